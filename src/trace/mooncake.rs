//! The Mooncake FAST'25 traces (JSON lines).
//!
//! Knows the four keys: whole milliseconds, token counts, and one id for each started block of 512 prompt
//! tokens. Does not know sessions: the trace names none.

use super::TraceRow;
use super::content::{IDENTITY_EXPECTED, blocks};
use super::error::TraceError;
use super::json::Object;
use super::lines::Lines;
use super::numbers::{identity, tokens};
use super::rows::{NextRow, Recorded};
use crate::time::Time;

const KEYS: [&str; 4] = ["timestamp", "input_length", "output_length", "hash_ids"];
const BLOCK_TOKENS: u32 = 512;
const PS_PER_MS: i128 = 1_000_000_000;

/// One or two names are enough: a misspelt or missing other is then told as such.
pub(super) fn recognises(first: &str, _second: &str) -> bool {
    let has = |key: &str| first.contains(&format!("\"{key}\""));
    first.starts_with('{') && (has("hash_ids") || has("input_length") && has("output_length"))
}

pub(super) fn rows(_lines: &mut Lines) -> Result<NextRow, TraceError> {
    Ok(Box::new(|lines| if lines.advance()? { row(lines).map(Some) } else { Ok(None) }))
}

/// The row on the current line.
fn row(lines: &Lines) -> Result<Recorded, TraceError> {
    let object = Object::read(lines, &KEYS, &[])?;
    let milliseconds = |text: &str| identity(text).map_err(|_| "whole milliseconds after the trace's start");
    let [time_key, prompt_key, output_key, ids_key] = KEYS;
    let missing = |key| lines.missing(key);
    let arrived = object.number(time_key, milliseconds)?.ok_or_else(|| missing(time_key))?;
    let prompt_tokens = object.number(prompt_key, tokens)?.ok_or_else(|| missing(prompt_key))?;
    let output_tokens = object.number(output_key, tokens)?.ok_or_else(|| missing(output_key))?;
    let ids = object.get(ids_key).and_then(Object::whole_numbers);
    let ids = ids.ok_or_else(|| object.wrong(ids_key, "a list of whole numbers below 2^63"))?;
    let blocks_needed = prompt_tokens.div_ceil(BLOCK_TOKENS);
    if ids.len() != blocks_needed as usize {
        let got = ids.len();
        return Err(lines.problem(format!(
            "column {ids_key}: expected {blocks_needed} ids, one for each started block of \
             {BLOCK_TOKENS} of {prompt_tokens} tokens, got {got}"
        )));
    }
    let content = blocks(prompt_tokens, BLOCK_TOKENS, &ids);
    let content = content.ok_or_else(|| object.wrong(ids_key, IDENTITY_EXPECTED))?;
    let row = TraceRow {
        arrived: Time::ZERO,
        prompt_tokens,
        output_tokens,
        max_tokens: None,
        content,
        session: None,
        priority: 0,
    };
    Ok(Recorded { arrived_ps: i128::from(arrived) * PS_PER_MS, row })
}
