//! The Mooncake traces (JSON lines): those of the FAST'25 paper, and the older one of the arXiv form.
//!
//! Knows the four keys: milliseconds, token counts, and one id for each started block of 512 prompt tokens; rows that
//! name whole blocks only are taken as well. Does not know sessions: the traces name none.

use super::TraceRow;
use super::content::blocks;
use super::error::TraceError;
use super::json::Object;
use super::lines::{Lines, Opening};
use super::numbers::{decimal_ps, tokens};
use super::options::TimeUnit;
use super::rows::{Next, NextRow, Recorded};

const KEYS: [&str; 4] = ["timestamp", "input_length", "output_length", "hash_ids"];
const BLOCK_TOKENS: u32 = 512;

struct Plain {
    timestamp: u64,
    input_length: u32,
    output_length: u32,
    hash_ids: Vec<u64>,
}

/// One or two names are enough: a misspelt or missing other is then told as such.
pub(super) fn recognises(opening: &Opening) -> bool {
    let first = opening.first();
    let has = |key: &str| first.contains(&format!("\"{key}\""));
    first.starts_with('{')
        && !has("chat_id")
        && (has("hash_ids") && !has("requests") || has("input_length") && has("output_length"))
}

pub(super) fn rows(_lines: &mut Lines) -> Result<NextRow, TraceError> {
    Ok(Box::new(|lines| {
        if !lines.advance()? {
            return Ok(Next::End);
        }
        let (arrived_ps, plain) = match published(lines.text()) {
            Some(plain) => (i128::from(plain.timestamp) * TimeUnit::Milliseconds.ps(), plain),
            None => careful(lines)?,
        };
        row(lines, arrived_ps, &plain).map(Next::Row)
    }))
}

/// A row as nearly all are, its keys in the published order and plain numbers behind them, read in one go; anything else is
/// left to who looks more closely.
fn published(line: &str) -> Option<Plain> {
    let mut left = Scan(line.as_bytes());
    let [time_key, prompt_key, output_key, ids_key] = KEYS;
    left.symbol(b'{')?;
    let timestamp = left.key(time_key)?.number()?;
    left.symbol(b',')?;
    let input_length = u32::try_from(left.key(prompt_key)?.number()?).ok()?;
    left.symbol(b',')?;
    let output_length = u32::try_from(left.key(output_key)?.number()?).ok()?;
    left.symbol(b',')?;
    left.key(ids_key)?.symbol(b'[')?;
    let mut hash_ids = Vec::with_capacity((input_length / BLOCK_TOKENS) as usize + 1);
    if left.symbol(b']').is_none() {
        loop {
            hash_ids.push(left.number()?);
            if left.symbol(b',').is_none() {
                break;
            }
        }
        left.symbol(b']')?;
    }
    left.symbol(b'}')?;
    left.0.is_empty().then_some(Plain { timestamp, input_length, output_length, hash_ids })
}

/// What is left of a line.
struct Scan<'a>(&'a [u8]);

impl Scan<'_> {
    fn skip_spaces(&mut self) {
        while let [b' ', rest @ ..] = self.0 {
            self.0 = rest;
        }
    }

    fn symbol(&mut self, symbol: u8) -> Option<()> {
        self.skip_spaces();
        let rest = self.0.strip_prefix(&[symbol])?;
        self.0 = rest;
        Some(())
    }

    /// A key and its colon.
    fn key(&mut self, key: &str) -> Option<&mut Self> {
        self.symbol(b'"')?;
        let rest = self.0.strip_prefix(key.as_bytes())?.strip_prefix(b"\"")?;
        self.0 = rest;
        self.symbol(b':')?;
        Some(self)
    }

    /// A whole number of at most 19 digits, which always fit, without a sign, and without leading zeros, which JSON forbids.
    fn number(&mut self) -> Option<u64> {
        self.skip_spaces();
        let bytes = self.0;
        let (mut value, mut digits) = (0u64, 0);
        while let Some(digit) =
            bytes.get(digits).map(|byte| byte.wrapping_sub(b'0')).filter(|digit| *digit <= 9)
        {
            value = value.wrapping_mul(10).wrapping_add(u64::from(digit));
            digits += 1;
        }
        self.0 = &bytes[digits..];
        let plain = (1..=19).contains(&digits) && (digits == 1 || bytes[0] != b'0');
        plain.then_some(value)
    }
}

/// The row on the current line, taken apart key by key, so that what is wrong can be told.
fn careful(lines: &Lines) -> Result<(i128, Plain), TraceError> {
    let object = Object::read(lines, &KEYS, &[])?;
    let missing = |key| lines.missing(key);
    let [time_key, prompt_key, output_key, ids_key] = KEYS;
    let milliseconds = object
        .digits(time_key)
        .and_then(|text| decimal_ps(text, TimeUnit::Milliseconds))
        .ok_or_else(|| object.wrong(time_key, "milliseconds after the trace's start"))?;
    let input_length = object.number(prompt_key, tokens)?.ok_or_else(|| missing(prompt_key))?;
    let output_length = object.number(output_key, tokens)?.ok_or_else(|| missing(output_key))?;
    let hash_ids = object.get(ids_key).and_then(Object::whole_numbers);
    let hash_ids = hash_ids.ok_or_else(|| object.wrong(ids_key, "a list of whole numbers below 2^64"))?;
    Ok((milliseconds, Plain { timestamp: 0, input_length, output_length, hash_ids }))
}

fn row(lines: &Lines, arrived_ps: i128, plain: &Plain) -> Result<Recorded, TraceError> {
    let (prompt_tokens, got) = (plain.input_length, plain.hash_ids.len());
    let started = prompt_tokens.div_ceil(BLOCK_TOKENS);
    if got != started as usize && got != (prompt_tokens / BLOCK_TOKENS) as usize {
        return Err(lines.problem(format!(
            "column hash_ids: expected {started} ids, one for each started block of {BLOCK_TOKENS} of {prompt_tokens} \
             tokens, got {got}"
        )));
    }
    let content = blocks(prompt_tokens, BLOCK_TOKENS, &plain.hash_ids);
    let row = TraceRow { content, ..TraceRow::of_lengths(prompt_tokens, plain.output_length) };
    Ok(Recorded { arrived_ps, row })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The quick way takes what a JSON parser takes, or nothing.
    #[test]
    fn the_quick_way_reads_as_a_parser_does() {
        let line = |numbers: &str, ids: &str| {
            format!(
                "{{\"timestamp\": {numbers}, \"input_length\": 600,\"output_length\":3 , \"hash_ids\": [{ids}]}}"
            )
        };
        let plain = published(&line("27482", "0, 9999999999999999999")).unwrap();
        assert_eq!((plain.timestamp, plain.input_length, plain.output_length), (27_482, 600, 3));
        assert_eq!(plain.hash_ids, [0, 9_999_999_999_999_999_999]);
        assert_eq!(published(&line("0", "")).unwrap().hash_ids, [0u64; 0]);
        for (numbers, ids) in [
            ("012", "1"),
            ("-1", "1"),
            ("1.0", "1"),
            ("1", "1,"),
            ("1", "1 2"),
            ("1", "18446744073709551616"),
            ("1", "00"),
        ] {
            assert!(published(&line(numbers, ids)).is_none(), "{numbers} {ids}");
        }
        assert!(published(&(line("1", "1") + "x")).is_none());
    }
}
