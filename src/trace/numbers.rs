//! Numbers as traces write them, read exactly.
//!
//! Knows whole numbers and decimal seconds. No floating point: a time survives to its last digit. Each
//! function answers with what it expected where the text is something else.

use super::options::TimeUnit;

const PS_DIGITS: usize = 12;
const PS_PER_S: i128 = 1_000_000_000_000;

/// A count of tokens, also as 12.0.
pub(super) fn tokens(text: &str) -> Result<u32, &'static str> {
    match whole(text).or_else(|| whole(text.strip_suffix(".0")?)) {
        Some(number) => number.try_into().map_err(|_| "at most 4294967295 tokens"),
        None => Err("a whole number of tokens"),
    }
}

/// The most tokens that a client lets a request produce.
pub(super) fn limit(text: &str) -> Result<u32, &'static str> {
    match tokens(text)? {
        0 => Err("at least 1 token"),
        limit => Ok(limit),
    }
}

/// An identity.
pub(super) fn identity(text: &str) -> Result<u64, &'static str> {
    let number = whole(text).ok_or("a whole number")?;
    number.try_into().map_err(|_| "a whole number below 2^64")
}

/// A priority.
pub(super) fn priority(text: &str) -> Result<i32, &'static str> {
    text.parse().map_err(|_| "a whole number from -2147483648 to 2147483647")
}

/// Decimal seconds to picoseconds, exactly.
pub(super) fn seconds(text: &str) -> Result<i128, &'static str> {
    const EXPECTED: &str = "decimal seconds, such as 12.345";
    let (whole_text, fraction) = match text.split_once('.') {
        Some((whole_text, fraction)) if !fraction.is_empty() => (whole_text, fraction),
        Some(_) => return Err(EXPECTED),
        None => (text, ""),
    };
    let seconds = whole(whole_text).ok_or(EXPECTED)?;
    if seconds > u128::from(u32::MAX) {
        return Err("at most 4294967295 seconds");
    }
    Ok(seconds as i128 * PS_PER_S + fraction_ps(fraction.as_bytes()).ok_or(EXPECTED)??)
}

/// A decimal number of `unit`, with an exponent or a sign if need be, to picoseconds; what is finer than one is cut.
pub(super) fn decimal_ps(text: &str, unit: TimeUnit) -> Option<i128> {
    let (negative, text) = text.strip_prefix('-').map_or((false, text), |rest| (true, rest));
    let (mantissa, exponent) = match text.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, exponent.parse::<i32>().ok()?),
        None => (text, 0),
    };
    let (whole_text, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    if fraction.is_empty() && mantissa.ends_with('.') {
        return None;
    }
    // The digits as a whole number, and where its point stands when it counts picoseconds.
    let mut number: i128 = 0;
    let mut places = unit.ps().ilog10() as i32 + exponent - fraction.len() as i32;
    for &byte in whole_text.as_bytes().iter().chain(fraction.as_bytes()) {
        let digit = i128::from(digit(byte)?);
        match number.checked_mul(10).filter(|&number| number < 1 << 100) {
            Some(moved) => number = moved + digit,
            None => places += 1,
        }
    }
    if whole_text.is_empty() || places > 30 {
        return None;
    }
    while places > 0 {
        number = number.checked_mul(10)?;
        places -= 1;
    }
    while places < 0 && number > 0 {
        number /= 10;
        places += 1;
    }
    Some(if negative { -number } else { number })
}

/// Digits after the point of a number of seconds to picoseconds: none where there is another character, an
/// expectation where there are more digits than a picosecond has.
pub(super) fn fraction_ps(digits: &[u8]) -> Option<Result<i128, &'static str>> {
    let (counted, beyond) = digits.split_at(digits.len().min(PS_DIGITS));
    let mut ps: u64 = 0;
    for &byte in counted {
        ps = ps * 10 + u64::from(digit(byte)?);
    }
    ps *= 10u64.pow((PS_DIGITS - counted.len()) as u32);
    let mut finer = false;
    for &byte in beyond {
        finer |= digit(byte)? > 0;
    }
    Some(if finer { Err("at most 12 digits after the point (a picosecond)") } else { Ok(i128::from(ps)) })
}

/// The value of a decimal digit.
pub(super) fn digit(byte: u8) -> Option<u8> {
    let digit = byte.wrapping_sub(b'0');
    (digit <= 9).then_some(digit)
}

/// Digits and nothing else; numbers past 128 bits count as the largest, which every caller refuses.
fn whole(text: &str) -> Option<u128> {
    if text.is_empty() {
        return None;
    }
    // The first digits fit into 64 bits, whatever they are, and there are seldom more.
    const FIT: usize = u64::MAX.ilog10() as usize;
    let (front, rest) = text.as_bytes().split_at(text.len().min(FIT));
    let mut number: u64 = 0;
    for &byte in front {
        number = number * 10 + u64::from(digit(byte)?);
    }
    let mut number = u128::from(number);
    for &byte in rest {
        number = number.saturating_mul(10).saturating_add(u128::from(digit(byte)?));
    }
    Some(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decimals_are_exact() {
        let ms = |text| decimal_ps(text, TimeUnit::Milliseconds);
        assert_eq!(
            (ms("0.5"), ms("3001"), ms("-2")),
            (Some(500_000_000), Some(3_001_000_000_000), Some(-2_000_000_000))
        );
        assert_eq!(
            (ms("1.5e3"), ms("1e-3"), ms("1E-12")),
            (Some(1_500_000_000_000), Some(1_000_000), Some(0))
        );
        assert_eq!(
            decimal_ps("1779163048815.25", TimeUnit::Milliseconds),
            Some(1_779_163_048_815_250_000_000)
        );
        assert_eq!(
            decimal_ps("0.1000000000000000055511151231257827", TimeUnit::Seconds),
            Some(100_000_000_000)
        );
        for wrong in ["", ".", "1.", "x", "1e", "NaN", "inf", "1 0", "1e99"] {
            assert_eq!(ms(wrong), None, "{wrong}");
        }
    }
}
