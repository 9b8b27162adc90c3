//! The JSON lines of the simulator LLMServingSim: token ids, and agentic sessions as lists of requests.
//!
//! Knows that two prompts share what their token ids have in common from the start: it is found in blocks of 16. Does
//! not know token ids that are absent: such a prompt shares nothing.

use serde::Deserialize;

use super::content::text_id;
use super::error::TraceError;
use super::json;
use super::lines::{Lines, Opening};
use super::options::TimeUnit;
use super::rows::{Next, NextRow, Recorded};
use super::{TraceRow, Wait, Waits};
use crate::random::mix;
use crate::request::{Content, ContentRun};
use crate::time::Span;

const BLOCK_TOKENS: usize = 16;

#[derive(Deserialize)]
struct Line {
    arrival_time_ns: Option<u64>,
    session_id: Option<serde_json::Value>,
    #[serde(flatten)]
    request: Option<One>,
    sub_requests: Option<Vec<One>>,
}

#[derive(Deserialize)]
struct One {
    input_toks: u32,
    output_toks: u32,
    #[serde(default)]
    input_tok_ids: Vec<u64>,
    #[serde(default)]
    output_tok_ids: Vec<u64>,
    #[serde(default)]
    tool_duration_ns: u64,
}

pub(super) fn recognises(opening: &Opening) -> bool {
    let has = |key: &str| opening.first().contains(&format!("\"{key}\""));
    opening.first().starts_with('{') && (has("input_toks") || has("sub_requests"))
}

pub(super) fn rows(_lines: &mut Lines) -> Result<NextRow, TraceError> {
    let mut ahead: Vec<Next> = Vec::new();
    let mut number = 0;
    Ok(Box::new(move |lines| {
        if let Some(next) = ahead.pop() {
            return Ok(next);
        }
        if !lines.advance()? {
            return Ok(Next::End);
        }
        let line: Line = json::parse(lines)?;
        let arrived_ps = i128::from(line.arrival_time_ns.ok_or_else(|| lines.missing("arrival_time_ns"))?)
            * TimeUnit::Nanoseconds.ps();
        let session = line.session_id.map(|session| text_id(&session.to_string()));
        let requests = match (line.sub_requests, line.request) {
            (Some(turns), _) => turns,
            (None, Some(request)) => vec![request],
            (None, None) => return Err(lines.missing("input_toks")),
        };
        if requests.is_empty() {
            return Err(lines.problem("sub_requests: expected at least one".to_owned()));
        }
        let mut before: Option<Wait> = None;
        for request in requests {
            let row = TraceRow {
                session,
                content: content(&request),
                waits: Waits::of(before.into_iter().collect()),
                ..TraceRow::of_lengths(request.input_toks, request.output_toks)
            };
            before = Some(Wait { row: number, think: Some(Span::from_ns(request.tool_duration_ns)) });
            number += 1;
            // Turns have no times of their own: they come when the one before has ended.
            ahead.push(Next::Row(Recorded { arrived_ps, row }));
        }
        ahead.reverse();
        Ok(ahead.pop().unwrap_or(Next::End))
    }))
}

/// Blocks named by all tokens up to their end, as vLLM's own hashes are; the answer's tokens follow the prompt's.
fn content(request: &One) -> Content {
    if request.input_tok_ids.len() != request.input_toks as usize {
        return Content::default();
    }
    let tokens: Vec<u64> = request.input_tok_ids.iter().chain(&request.output_tok_ids).copied().collect();
    let mut chain = 0;
    Content::from_runs(tokens.chunks(BLOCK_TOKENS).map(|block| {
        chain = block.iter().fold(chain, |chain, token| mix(chain ^ mix(*token)));
        ContentRun { stream: chain >> 1, position: 0, tokens: block.len() as u32 }
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_beginnings_are_equal_blocks() {
        let of = |ids: Vec<u64>| {
            let request = One {
                input_toks: ids.len() as u32,
                output_toks: 1,
                input_tok_ids: ids,
                output_tok_ids: Vec::new(),
                tool_duration_ns: 0,
            };
            content(&request)
        };
        let (a, b) = (of((0..40).collect()), of((0..32).chain([9, 9]).collect()));
        assert_eq!(a.truncated(32), b.truncated(32));
        assert_ne!(a.truncated(33), b.truncated(33));
    }
}
