//! Numbers as traces write them, read exactly.
//!
//! Knows whole numbers and decimal seconds. No floating point: a time survives to its last digit. Each
//! function answers with what it expected where the text is something else.

const PS_DIGITS: usize = 12;
const PS_PER_S: i128 = 1_000_000_000_000;

/// A count of tokens.
pub(super) fn tokens(text: &str) -> Result<u32, &'static str> {
    match whole(text) {
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
