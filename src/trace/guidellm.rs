//! The report of GuideLLM (JSON): benchmarks with their requests, by how they ended.
//!
//! Knows the places where versions 0.2 to 0.7 write a request's start. Benchmarks follow each other on one clock.
//! Does not know requests that were sampled away: `--sample-requests` must leave them in.

use serde::Deserialize;

use super::TraceRow;
use super::error::TraceError;
use super::json;
use super::lines::{Lines, Opening};
use super::rows::{Next, NextRow, Recorded, Skip, document};
use crate::time::Span;

#[derive(Deserialize)]
struct Report {
    benchmarks: Vec<Benchmark>,
}

#[derive(Deserialize)]
struct Benchmark {
    requests: ByStatus,
}

#[derive(Deserialize)]
struct ByStatus {
    #[serde(default)]
    successful: Vec<Request>,
    #[serde(default)]
    incomplete: Vec<serde::de::IgnoredAny>,
    #[serde(default)]
    errored: Vec<serde::de::IgnoredAny>,
}

#[derive(Deserialize)]
struct Request {
    prompt_tokens: Option<u32>,
    output_tokens: Option<u32>,
    start_time: Option<f64>,
    request_start_time: Option<f64>,
    info: Option<Info>,
}

#[derive(Deserialize)]
struct Info {
    timings: Option<Timings>,
}

#[derive(Deserialize)]
struct Timings {
    request_start: Option<f64>,
}

pub(super) fn recognises(opening: &Opening) -> bool {
    opening.head.contains("\"benchmarks\"") || opening.head.contains("\"guidellm_version\"")
}

pub(super) fn rows(lines: &mut Lines) -> Result<NextRow, TraceError> {
    let report: Report = json::parse_document(lines)?;
    let mut rows = Vec::new();
    for (benchmark, of) in report.benchmarks.iter().enumerate() {
        for (index, request) in of.requests.successful.iter().enumerate() {
            let missing = |key: &str| {
                lines.problem(format!("benchmarks[{benchmark}].requests.successful[{index}]: has no {key}"))
            };
            let timings = request.info.as_ref().and_then(|info| info.timings.as_ref());
            let start = timings.and_then(|timings| timings.request_start);
            let start = start.or(request.request_start_time).or(request.start_time);
            let start =
                start.filter(|start| (0.0..1e12).contains(start)).ok_or_else(|| missing("start time"))?;
            let prompt_tokens = request.prompt_tokens.ok_or_else(|| missing("prompt_tokens"))?;
            let output_tokens = request.output_tokens.ok_or_else(|| missing("output_tokens"))?;
            // Seconds since 1970: whole ones apart, for the fraction would not fit beside them.
            let arrived_ps = start.floor() as i128 * 1_000_000_000_000
                + i128::from(Span::from_s_f64(start.fract()).as_ps());
            rows.push(Next::Row(Recorded {
                arrived_ps,
                row: TraceRow::of_lengths(prompt_tokens, output_tokens),
            }));
        }
        let failed = of.requests.incomplete.len() + of.requests.errored.len();
        rows.extend((0..failed).map(|_| Next::Skip(Skip::Failed)));
    }
    Ok(document(rows))
}
