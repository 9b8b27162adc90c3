//! The result of `vllm bench serve --save-result --save-detailed` (JSON) as a trace.
//!
//! Knows when each request was sent and how long it was. Does not know latencies: `tailcast calibrate` reads those.

use serde::Deserialize;

use super::TraceRow;
use super::error::TraceError;
use super::json;
use super::lines::{Lines, Opening};
use super::rows::{Next, NextRow, Recorded, Skip, document};
use crate::time::Span;

#[derive(Deserialize)]
struct BenchResult {
    input_lens: Option<Vec<u32>>,
    output_lens: Option<Vec<u32>>,
    start_times: Option<Vec<f64>>,
    errors: Option<Vec<String>>,
}

pub(super) fn recognises(opening: &Opening) -> bool {
    let has = |key: &str| opening.head.contains(&format!("\"{key}\""));
    has("request_throughput") || has("input_lens") || has("num_prompts") && has("tokenizer_id")
}

pub(super) fn rows(lines: &mut Lines) -> Result<NextRow, TraceError> {
    let result: BenchResult = json::parse_document(lines)?;
    let missing = |key: &str| {
        lines.problem(format!(
            "has no {key}: run `vllm bench serve` with --save-result --save-detailed (0.11 or later)"
        ))
    };
    let prompts = result.input_lens.ok_or_else(|| missing("input_lens"))?;
    let outputs = result.output_lens.ok_or_else(|| missing("output_lens"))?;
    let starts = result.start_times.ok_or_else(|| missing("start_times"))?;
    let errors = result.errors.unwrap_or_else(|| vec![String::new(); prompts.len()]);
    for (key, length) in
        [("output_lens", outputs.len()), ("start_times", starts.len()), ("errors", errors.len())]
    {
        if length != prompts.len() {
            let count = prompts.len();
            return Err(
                lines.problem(format!("{key}: expected {count} entries as in input_lens, got {length}"))
            );
        }
    }
    let first = starts.iter().copied().fold(f64::INFINITY, f64::min);
    let row = |index: usize| {
        if !errors[index].is_empty() {
            return Ok(Next::Skip(Skip::Failed));
        }
        let after_s = starts[index] - first;
        if !(0.0..9e6).contains(&after_s) {
            return Err(
                lines.problem(format!("start_times[{index}]: expected seconds, got {}", starts[index]))
            );
        }
        let arrived_ps = i128::from(Span::from_s_f64(after_s).as_ps());
        Ok(Next::Row(Recorded { arrived_ps, row: TraceRow::of_lengths(prompts[index], outputs[index]) }))
    };
    (0..prompts.len()).map(row).collect::<Result<Vec<_>, _>>().map(document)
}
