//! The format of a result of `vllm bench serve --save-result --save-detailed`.
//!
//! Arrays with an entry a request: `input_lens`, `output_lens`, `ttfts`, `itls` (a list each), `start_times` and
//! `errors`, all in seconds (`vllm/benchmarks/serve.py`). The file does not say how the server was started.

use std::path::Path;

use serde::Deserialize;

use super::step_log::MeasurementError;
use crate::verify::measured::{MeasuredRequest, MeasuredRun, Meta};

#[derive(Deserialize)]
struct BenchResult {
    model_id: Option<String>,
    input_lens: Option<Vec<u32>>,
    output_lens: Option<Vec<u32>>,
    ttfts: Option<Vec<f64>>,
    itls: Option<Vec<Vec<f64>>>,
    start_times: Option<Vec<f64>>,
    errors: Option<Vec<String>>,
}

/// Reads the requests of a benchmark; also says how many failed and are left out.
///
/// # Errors
/// If the file is no such result, holds no rows a request, or rows of different number.
pub fn read(path: &Path) -> Result<(MeasuredRun, usize), MeasurementError> {
    let wrong = |reason: String| MeasurementError { file: path.display().to_string(), line: None, reason };
    let text = std::fs::read_to_string(path).map_err(|error| wrong(error.to_string()))?;
    let result: BenchResult = serde_json::from_str(&text).map_err(|error| wrong(error.to_string()))?;
    let missing =
        |key: &str| wrong(format!("has no {key}: run `vllm bench serve` with --save-result --save-detailed"));
    let prompts = result.input_lens.ok_or_else(|| missing("input_lens"))?;
    let outputs = result.output_lens.ok_or_else(|| missing("output_lens"))?;
    let ttfts = result.ttfts.ok_or_else(|| missing("ttfts"))?;
    let itls = result.itls.ok_or_else(|| missing("itls"))?;
    let starts = result.start_times.ok_or_else(|| {
        wrong("has no start_times: vLLM writes them with --save-detailed since 0.11; without them nobody knows \
               which requests ran together".into())
    })?;
    let errors = result.errors.unwrap_or_else(|| vec![String::new(); prompts.len()]);
    for (key, length) in [
        ("output_lens", outputs.len()),
        ("ttfts", ttfts.len()),
        ("itls", itls.len()),
        ("start_times", starts.len()),
        ("errors", errors.len()),
    ] {
        if length != prompts.len() {
            let count = prompts.len();
            return Err(wrong(format!("{key}: expected {count} entries as in input_lens, got {length}")));
        }
    }
    let zero = starts.iter().copied().fold(f64::INFINITY, f64::min);
    let mut requests = Vec::new();
    let mut failed = 0;
    for index in 0..prompts.len() {
        let decode_s: f64 = itls[index].iter().sum();
        if !errors[index].is_empty() || outputs[index] == 0 || ttfts[index] <= 0.0 {
            failed += 1;
            continue;
        }
        if !(ttfts[index].is_finite() && decode_s.is_finite() && decode_s >= 0.0 && prompts[index] > 0) {
            return Err(wrong(format!("request {index}: expected times and lengths above zero")));
        }
        let sent_s = starts[index] - zero;
        let first_token_s = sent_s + ttfts[index];
        requests.push(MeasuredRequest {
            id: index as u64,
            arrival_s: None,
            client_s: Some(sent_s),
            queued_s: None,
            scheduled_s: None,
            first_token_s,
            last_token_s: first_token_s + decode_s,
            prompt_tokens: prompts[index],
            output_tokens: outputs[index],
            block_ids: Vec::new(),
            rank: None,
        });
    }
    if requests.is_empty() {
        return Err(wrong("holds no request that succeeded".into()));
    }
    requests.sort_by(|a, b| a.sent_s().total_cmp(&b.sent_s()).then(a.id.cmp(&b.id)));
    let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    let meta = Meta { model: result.model_id, ..Meta::default() };
    let (file, meta_file) = (path.to_owned(), path.to_owned());
    Ok((MeasuredRun { name, file, meta_file, meta, requests }, failed))
}
