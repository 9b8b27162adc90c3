//! The `per_request_lifecycle_metrics.json` of inference-perf: a list of requests.
//!
//! Knows start, token counts and errors. Does not know prompts: they are passed over.

use serde::Deserialize;

use super::TraceRow;
use super::error::TraceError;
use super::json;
use super::lines::{Lines, Opening};
use super::rows::{Next, NextRow, Recorded, Skip, document};
use crate::time::Span;

#[derive(Deserialize)]
struct Request {
    start_time: f64,
    info: Option<Info>,
    error: Option<serde_json::Value>,
}

#[derive(Deserialize)]
struct Info {
    input_tokens: Option<u32>,
    output_tokens: Option<u32>,
}

pub(super) fn recognises(opening: &Opening) -> bool {
    let has = |key: &str| opening.head.contains(&format!("\"{key}\""));
    opening.first().starts_with('[') && has("start_time") && (has("info") || has("end_time"))
}

pub(super) fn rows(lines: &mut Lines) -> Result<NextRow, TraceError> {
    let requests: Vec<Request> = json::parse_document(lines)?;
    let mut rows = Vec::new();
    for (index, request) in requests.iter().enumerate() {
        let problem = |what: &str| lines.problem(format!("[{index}]: {what}"));
        if request.error.as_ref().is_some_and(|error| !error.is_null()) {
            rows.push(Next::Skip(Skip::Failed));
            continue;
        }
        let info = request.info.as_ref().ok_or_else(|| problem("has no info"))?;
        let prompt_tokens = info.input_tokens.ok_or_else(|| problem("has no info.input_tokens"))?;
        let output_tokens = info.output_tokens.ok_or_else(|| problem("has no info.output_tokens"))?;
        if !(0.0..1e12).contains(&request.start_time) {
            return Err(problem("start_time: expected seconds"));
        }
        let arrived_ps = request.start_time.floor() as i128 * 1_000_000_000_000
            + i128::from(Span::from_s_f64(request.start_time.fract()).as_ps());
        rows.push(Next::Row(Recorded {
            arrived_ps,
            row: TraceRow::of_lengths(prompt_tokens, output_tokens),
        }));
    }
    Ok(document(rows))
}
