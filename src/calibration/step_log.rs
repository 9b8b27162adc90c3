//! The format of a step log: a CSV line for each engine step.
//!
//! Columns `decodes` (sequences that compute one token), `context_sum` (tokens they attend to, all together), `chunks`
//! (prompts, as `tokens@before` with spaces between, `before` being the tokens computed earlier; may be empty) and
//! `seconds` (from the start of a step to the start of the next).

use std::fs::File;
use std::io::BufReader;
use std::path::Path;

use serde::Deserialize;

use crate::compression;
use crate::hardware::Deployment;
use crate::step_time::{Chunk, Decodes};

/// Why a file of measurements cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("{file}{}: {reason}", line.map_or(String::new(), |line| format!(":{line}")))]
pub struct MeasurementError {
    /// Which file.
    pub file: String,
    /// Where in it.
    pub line: Option<u64>,
    /// Why.
    pub reason: String,
}

/// One step as it was logged.
#[derive(Clone, Debug, PartialEq)]
pub struct LoggedStep {
    /// Its decodes.
    pub decodes: Decodes,
    /// Its prompts.
    pub chunks: Vec<Chunk>,
    /// How long it took.
    pub seconds: f64,
}

#[derive(Deserialize)]
struct Row {
    decodes: u32,
    context_sum: u64,
    #[serde(default)]
    chunks: String,
    seconds: f64,
}

/// Reads a step log of a server that is started with `deployment`.
///
/// # Errors
/// If the file cannot be read, a line is no step, or a step is larger than the server's limits.
pub fn read(path: &Path, deployment: &Deployment) -> Result<Vec<LoggedStep>, MeasurementError> {
    let wrong = |line: Option<u64>, reason: String| MeasurementError {
        file: path.display().to_string(),
        line,
        reason,
    };
    let file = File::open(path).map_err(|error| wrong(None, error.to_string()))?;
    let plain = compression::open(BufReader::new(file)).map_err(|error| wrong(None, error.to_string()))?;
    let mut reader = csv::ReaderBuilder::new().trim(csv::Trim::All).from_reader(plain);
    let columns = reader.headers().map_err(|error| wrong(None, error.to_string()))?.clone();
    for needed in ["decodes", "context_sum", "chunks", "seconds"] {
        if !columns.iter().any(|column| column == needed) {
            let found = columns.iter().collect::<Vec<_>>().join(", ");
            return Err(wrong(Some(1), format!("a step log has a column {needed}; this file has {found}")));
        }
    }
    let mut steps = Vec::new();
    for record in reader.records() {
        let record = record.map_err(|error| wrong(None, error.to_string()))?;
        let line = record.position().map(csv::Position::line);
        let row: Row = record.deserialize(Some(&columns)).map_err(|error| wrong(line, error.to_string()))?;
        steps.push(step(&row, deployment).map_err(|reason| wrong(line, reason))?);
    }
    if steps.is_empty() { Err(wrong(None, "holds no steps".into())) } else { Ok(steps) }
}

fn step(row: &Row, deployment: &Deployment) -> Result<LoggedStep, String> {
    let chunks: Vec<Chunk> = row.chunks.split_whitespace().map(chunk).collect::<Result<_, _>>()?;
    if !(row.seconds.is_finite() && row.seconds > 0.0) {
        return Err(format!("seconds: expected a number above zero, got {}", row.seconds));
    }
    let tokens = u64::from(row.decodes) + chunks.iter().map(|chunk| u64::from(chunk.tokens)).sum::<u64>();
    if tokens == 0 {
        return Err("a step computes at least one token".into());
    }
    if tokens > u64::from(deployment.max_num_batched_tokens) {
        return Err(format!(
            "{tokens} tokens are more than max_num_batched_tokens = {}",
            deployment.max_num_batched_tokens
        ));
    }
    let sequences = u64::from(row.decodes) + chunks.len() as u64;
    if sequences > u64::from(deployment.max_num_seqs) {
        return Err(format!(
            "{sequences} sequences are more than max_num_seqs = {}",
            deployment.max_num_seqs
        ));
    }
    if row.context_sum < u64::from(row.decodes) {
        return Err(format!(
            "context_sum: {} decodes attend to at least as many tokens, got {}",
            row.decodes, row.context_sum
        ));
    }
    let context_max = row.context_sum.div_ceil(u64::from(row.decodes.max(1)));
    let decodes = Decodes {
        count: row.decodes,
        context_sum: row.context_sum,
        context_max: u32::try_from(context_max).map_err(|_| "context_sum is too large".to_string())?,
    };
    Ok(LoggedStep { decodes, chunks, seconds: row.seconds })
}

fn chunk(text: &str) -> Result<Chunk, String> {
    let wrong = || format!("chunks: expected tokens@before, such as 512@0, got {text:?}");
    let (tokens, before) = text.split_once('@').ok_or_else(wrong)?;
    let (tokens, before) = (tokens.parse().map_err(|_| wrong())?, before.parse().map_err(|_| wrong())?);
    if tokens == 0 { Err(wrong()) } else { Ok(Chunk { tokens, before, samples: true }) }
}
