//! The Mooncake traces (JSON lines): those of the FAST'25 paper, and the older one of the arXiv form.
//!
//! Knows the four keys: milliseconds, token counts, and one id for each started block of 512 prompt tokens; rows that
//! name whole blocks only are taken as well. Does not know sessions: the traces name none.

use serde::Deserialize;

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

/// A row as nearly all are: read without a detour.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
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
        let (arrived_ps, plain) = match serde_json::from_str::<Plain>(lines.text()) {
            Ok(plain) => (i128::from(plain.timestamp) * TimeUnit::Milliseconds.ps(), plain),
            Err(_) => careful(lines)?,
        };
        row(lines, arrived_ps, &plain).map(Next::Row)
    }))
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
