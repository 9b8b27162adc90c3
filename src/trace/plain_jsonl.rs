//! tailcast's own JSON lines, for traces of one's own.
//!
//! Knows the keys of tailcast's CSV and three more. `blocks`: `{"tokens": N, "ids": [...]}` gives the ids
//! of the prompt's leading blocks of N tokens, and with `length` of so many tokens, which may be more than the prompt's
//! where the answer is known. `runs`: `[[stream, position, tokens], ...]` gives any identities. `waits`: `[[row, think
//! picoseconds or null], ...]` names the rows, counted from 0, whose answers the request waits for. A null means the same as no key.

use serde_json::{Map, Value};

use super::content::{blocks, prefix};
use super::error::TraceError;
use super::json::Object;
use super::lines::{Lines, Opening};
use super::numbers::{identity, limit, priority, seconds, tokens};
use super::rows::{Next, NextRow, Recorded};
use super::{TraceRow, Wait, Waits};
use crate::request::{Content, ContentRun};
use crate::time::Span;

const REQUIRED: [&str; 3] = ["arrived_s", "prompt_tokens", "output_tokens"];
const OPTIONAL: [&str; 8] =
    ["max_tokens", "session", "priority", "prefix", "prefix_tokens", "blocks", "runs", "waits"];

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
    let output_tokens = required("output_tokens")?;
    let row = TraceRow {
        max_tokens: object.number("max_tokens", limit)?,
        content: content(&object, prompt_tokens)?,
        session: object.number("session", identity)?,
        priority: object.number("priority", priority)?.unwrap_or(0),
        waits: match object.get("waits") {
            None => Waits::default(),
            Some(value) => {
                waits(value).ok_or_else(|| object.wrong("waits", "[[row, picoseconds or null], ...]"))?
            }
        },
        ..TraceRow::of_lengths(prompt_tokens, output_tokens)
    };
    let most = prompt_tokens.saturating_add(output_tokens);
    if row.content.tokens() > most {
        let key = if object.get("runs").is_some() { "runs" } else { "blocks" };
        return Err(
            object.wrong(key, format!("identities of at most the {most} tokens of prompt and answer"))
        );
    }
    Ok(Recorded { arrived_ps, row })
}

fn content(object: &Object, prompt_tokens: u32) -> Result<Content, TraceError> {
    let prefix_id = object.number("prefix", identity)?;
    let prefix_tokens = object.number("prefix_tokens", tokens)?;
    if let Some(value) = object.get("runs") {
        if prefix_id.is_some() || object.get("blocks").is_some() {
            return Err(object.wrong("runs", "either runs, blocks or a prefix"));
        }
        return runs(value).ok_or_else(|| object.wrong("runs", "[[stream, position, tokens], ...]"));
    }
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
    let known = |keys: &&Map<String, Value>| {
        keys.keys().all(|key| ["tokens", "ids", "length"].contains(&key.as_str()))
    };
    let keys = value.as_object().filter(known).ok_or_else(shape)?;
    let block_tokens = keys.get("tokens").and_then(Value::as_u64).ok_or_else(shape)?;
    let block_tokens = u32::try_from(block_tokens).ok().filter(|&tokens| tokens > 0).ok_or_else(shape)?;
    let ids = keys.get("ids").and_then(Object::whole_numbers).ok_or_else(shape)?;
    // What is known may reach past the prompt, into the answer.
    let length = keys.get("length").and_then(Value::as_u64).and_then(|length| u32::try_from(length).ok());
    let known_tokens = length.unwrap_or(prompt_tokens);
    let most = known_tokens.div_ceil(block_tokens);
    if ids.len() > most as usize {
        return Err(wrong(&format!(
            "at most {most} ids, one for each started block of {block_tokens} of {known_tokens} tokens"
        )));
    }
    Ok(blocks(known_tokens, block_tokens, &ids))
}

/// Runs as `[[stream, position, tokens], ...]`.
pub(super) fn runs(value: &Value) -> Option<Content> {
    let run = |value: &Value| {
        let [stream, position, tokens] = value.as_array()?.as_slice() else { return None };
        let small = |value: &Value| u32::try_from(value.as_u64()?).ok();
        let stream = super::content::stream(stream.as_u64()?);
        Some(ContentRun { stream, position: small(position)?, tokens: small(tokens)? })
    };
    let runs: Vec<ContentRun> = value.as_array()?.iter().map(run).collect::<Option<_>>()?;
    // Positions and lengths are sums of tokens, which must not overflow.
    let sum: u64 = runs.iter().map(|run| u64::from(run.position) + u64::from(run.tokens)).sum();
    (sum <= u64::from(u32::MAX)).then(|| Content::from_runs(runs))
}

/// Waits as `[[row, think picoseconds or null], ...]`.
pub(super) fn waits(value: &Value) -> Option<Waits> {
    let wait = |value: &Value| {
        let [row, think] = value.as_array()?.as_slice() else { return None };
        let think = match think {
            Value::Null => None,
            think => Some(Span::from_ps(think.as_u64().filter(|&ps| ps < u64::MAX / 4)?)),
        };
        Some(Wait { row: u32::try_from(row.as_u64()?).ok()?, think })
    };
    value.as_array()?.iter().map(wait).collect::<Option<Vec<_>>>().map(Waits::of)
}
