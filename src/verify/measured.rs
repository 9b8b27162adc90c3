//! The format of a measured run: `NAME.requests.jsonl.gz` with a line for each request, and `NAME.meta.json` beside
//! it with what the server was started with.
//!
//! Knows keys and their types. Does not know what follows from them.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::Value;

use crate::compression;

/// Why a measured run cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("{file}{}: {reason}", line.map_or(String::new(), |line| format!(":{line}")))]
pub struct MeasuredError {
    file: String,
    line: Option<usize>,
    reason: String,
}

impl MeasuredError {
    /// An error of a whole file.
    pub fn of(file: &Path, reason: impl std::fmt::Display) -> MeasuredError {
        MeasuredError { file: file.display().to_string(), line: None, reason: reason.to_string() }
    }

    /// An error of one line.
    pub fn at(file: &Path, line: usize, reason: impl std::fmt::Display) -> MeasuredError {
        MeasuredError { line: Some(line), ..MeasuredError::of(file, reason) }
    }
}

/// One request of a measured run. Seconds; the engine's clock and the client's have zeros of their own.
#[derive(Clone, Debug, Deserialize)]
pub struct MeasuredRequest {
    /// Its number.
    pub id: u64,
    /// When the workload planned to send it.
    pub arrival_s: Option<f64>,
    /// When it was sent.
    pub client_s: Option<f64>,
    /// When the engine took it in; absent in a run that a client alone recorded.
    pub queued_s: Option<f64>,
    /// When it was first scheduled.
    pub scheduled_s: Option<f64>,
    /// When its first token came.
    pub first_token_s: f64,
    /// When its last token came.
    pub last_token_s: f64,
    /// Length of its prompt.
    pub prompt_tokens: u32,
    /// Tokens that came out.
    pub output_tokens: u32,
    /// Identities of its blocks, prompt first.
    #[serde(default)]
    pub block_ids: Vec<u64>,
    /// The data-parallel rank that served it, where that was recorded.
    pub rank: Option<u32>,
}

/// What is known of a run's server.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct Meta {
    /// The model, by its name on Hugging Face.
    pub model: Option<String>,
    /// The vLLM that ran.
    pub vllm_version: Option<String>,
    /// What the engine was started with, under vLLM's names.
    #[serde(default)]
    pub engine_kwargs: serde_json::Map<String, Value>,
    /// The KV cache that resulted.
    #[serde(default)]
    pub kv_cache: serde_json::Map<String, Value>,
    /// The card.
    #[serde(default)]
    pub hardware: serde_json::Map<String, Value>,
    /// The configuration that vLLM resolved.
    #[serde(default)]
    pub resolved: serde_json::Map<String, Value>,
    /// Preemptions over the whole run, where they were counted.
    pub num_preemptions: Option<u64>,
}

/// A measured run.
#[derive(Clone, Debug)]
pub struct MeasuredRun {
    /// Its name: the file's, without endings.
    pub name: String,
    /// The file with its requests.
    pub file: PathBuf,
    /// The file beside it.
    pub meta_file: PathBuf,
    /// What is known of its server.
    pub meta: Meta,
    /// Its requests, in order of sending.
    pub requests: Vec<MeasuredRequest>,
}

const ENDINGS: [&str; 3] = [".requests.jsonl.gz", ".requests.jsonl.zst", ".requests.jsonl"];

impl MeasuredRun {
    /// Reads `NAME.requests.jsonl[.gz]` and `NAME.meta.json`.
    ///
    /// # Errors
    /// If either is absent, a line is no request, or moments of a request are out of order.
    pub fn read(path: &Path) -> Result<MeasuredRun, MeasuredError> {
        let file_name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let name = ENDINGS.iter().find_map(|ending| file_name.strip_suffix(ending)).ok_or_else(|| {
            MeasuredError::of(path, "expected a file NAME.requests.jsonl.gz with NAME.meta.json beside it")
        })?;
        let meta_file = path.with_file_name(format!("{name}.meta.json"));
        let text =
            std::fs::read_to_string(&meta_file).map_err(|error| MeasuredError::of(&meta_file, error))?;
        let meta = serde_json::from_str(&text).map_err(|error| MeasuredError::of(&meta_file, error))?;
        let mut requests = requests(path)?;
        requests.sort_by(|a, b| a.sent_s().total_cmp(&b.sent_s()).then(a.id.cmp(&b.id)));
        Ok(MeasuredRun { name: name.to_owned(), file: path.to_owned(), meta_file, meta, requests })
    }

    /// Whether the engine itself recorded it, and not a client alone.
    pub fn seen_by_engine(&self) -> bool {
        self.requests.iter().all(|request| request.queued_s.is_some())
    }
}

impl MeasuredRequest {
    /// When it was sent, as measured, or else as planned.
    pub fn sent_s(&self) -> f64 {
        self.client_s.or(self.arrival_s).or(self.queued_s).unwrap_or_default()
    }
}

fn requests(path: &Path) -> Result<Vec<MeasuredRequest>, MeasuredError> {
    let wrong = |reason: std::io::Error| MeasuredError::of(path, reason);
    let bytes = File::open(path).map_err(wrong)?;
    let plain = compression::open(BufReader::new(bytes)).map_err(wrong)?;
    let mut requests: Vec<MeasuredRequest> = Vec::new();
    for (index, line) in BufReader::new(plain).lines().enumerate() {
        let line = line.map_err(wrong)?;
        if line.trim().is_empty() {
            continue;
        }
        let at = |reason: String| MeasuredError {
            file: path.display().to_string(),
            line: Some(index + 1),
            reason,
        };
        let request: MeasuredRequest = serde_json::from_str(&line).map_err(|error| at(error.to_string()))?;
        check(&request).map_err(at)?;
        requests.push(request);
    }
    if requests.is_empty() {
        return Err(MeasuredError::of(path, "holds no requests"));
    }
    Ok(requests)
}

fn check(request: &MeasuredRequest) -> Result<(), String> {
    if request.client_s.is_none() && request.arrival_s.is_none() && request.queued_s.is_none() {
        return Err("has none of client_s, arrival_s and queued_s: nobody knows when it was sent".into());
    }
    if request.prompt_tokens == 0 || request.output_tokens == 0 {
        return Err("prompt_tokens and output_tokens are at least 1".into());
    }
    let engine =
        [request.queued_s, request.scheduled_s, Some(request.first_token_s), Some(request.last_token_s)];
    let moments: Vec<f64> = engine.into_iter().flatten().collect();
    if moments.iter().any(|moment| !moment.is_finite()) || !moments.is_sorted() {
        return Err("expected queued_s <= scheduled_s <= first_token_s <= last_token_s".into());
    }
    Ok(())
}
