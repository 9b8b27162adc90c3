//! tailcast's own JSON lines, for traces of one's own.
//!
//! Knows the keys of tailcast's CSV and one more, `blocks`: `{"tokens": N, "ids": [...]}` gives the ids of
//! the prompt's leading blocks of N tokens. A null means the same as no key.

use serde_json::Value;

use super::TraceRow;
use super::content::{blocks, prefix};
use super::error::TraceError;
use super::json::Object;
use super::lines::{Lines, Opening};
use super::numbers::{identity, limit, priority, seconds, tokens};
use super::rows::{Next, NextRow, Recorded};
use crate::request::Content;

const REQUIRED: [&str; 3] = ["arrived_s", "prompt_tokens", "output_tokens"];
const OPTIONAL: [&str; 6] = ["max_tokens", "session", "priority", "prefix", "prefix_tokens", "blocks"];

/// One or two keys are enough: a misspelt or missing other is then told as such.
pub(super) fn recognises(opening: &Opening) -> bool {
    let first = opening.first();
    let has = |key: &str| first.contains(&format!("\"{key}\""));
    first.starts_with('{') && (has("arrived_s") || has("prompt_tokens") && has("output_tokens"))
}

pub(super) fn rows(_lines: &mut Lines) -> Result<NextRow, TraceError> {
    Ok(Box::new(|lines| if lines.advance()? { row(lines).map(Next::Row) } else { Ok(Next::End) }))
}

/// The row on the current line.
fn row(lines: &Lines) -> Result<Recorded, TraceError> {
    let object = Object::read(lines, &REQUIRED, &OPTIONAL)?;
    let required = |key: &str| object.number(key, tokens)?.ok_or_else(|| lines.missing(key));
    let arrived = object.digits("arrived_s").map_or(Err("decimal seconds, such as 12.345"), seconds);
    let arrived_ps = arrived.map_err(|expected| object.wrong("arrived_s", expected))?;
    let prompt_tokens = required("prompt_tokens")?;
    let row = TraceRow {
        max_tokens: object.number("max_tokens", limit)?,
        content: content(&object, prompt_tokens)?,
        session: object.number("session", identity)?,
        priority: object.number("priority", priority)?.unwrap_or(0),
        ..TraceRow::of_lengths(prompt_tokens, required("output_tokens")?)
    };
    Ok(Recorded { arrived_ps, row })
}

fn content(object: &Object, prompt_tokens: u32) -> Result<Content, TraceError> {
    let prefix_id = object.number("prefix", identity)?;
    let prefix_tokens = object.number("prefix_tokens", tokens)?;
    if let Some(value) = object.get("blocks") {
        if prefix_id.is_some() || prefix_tokens.is_some() {
            return Err(object.wrong("blocks", "either blocks or a prefix, not both"));
        }
        return block_content(object, value, prompt_tokens);
    }
    match (prefix_id, prefix_tokens) {
        (None, None | Some(0)) => Ok(Content::default()),
        (Some(_), None) => Err(object.wrong("prefix_tokens", "the length of the prefix that the row names")),
        (None, Some(_)) => Err(object.wrong("prefix", "the id of the prefix whose length the row gives")),
        (Some(_), Some(tokens)) if tokens > prompt_tokens => {
            Err(object.wrong("prefix_tokens", format!("at most the prompt's {prompt_tokens} tokens")))
        }
        (Some(id), Some(tokens)) => Ok(prefix(id, tokens)),
    }
}

fn block_content(object: &Object, value: &Value, prompt_tokens: u32) -> Result<Content, TraceError> {
    let wrong = |expected: &str| object.wrong("blocks", expected);
    let shape = || wrong("{\"tokens\": N, \"ids\": [...]}, whole numbers, N at least 1");
    let keys = value.as_object().filter(|keys| keys.len() == 2).ok_or_else(shape)?;
    let block_tokens = keys.get("tokens").and_then(Value::as_u64).ok_or_else(shape)?;
    let block_tokens = u32::try_from(block_tokens).ok().filter(|&tokens| tokens > 0).ok_or_else(shape)?;
    let ids = keys.get("ids").and_then(Object::whole_numbers).ok_or_else(shape)?;
    let most = prompt_tokens.div_ceil(block_tokens);
    if ids.len() > most as usize {
        return Err(wrong(&format!(
            "at most {most} ids, one for each started block of {block_tokens} of {prompt_tokens} tokens"
        )));
    }
    Ok(blocks(prompt_tokens, block_tokens, &ids))
}
