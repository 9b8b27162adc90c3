//! `verify schedule`: rebuilds recordings of the real scheduler from their headers and compares every field.
//!
//! Uses the replica alone: no fleet, no router, no scenario.

use std::io::BufRead;
use std::sync::Arc;

use serde_json::{Map, Value};
use thiserror::Error;

use super::recording::{Arrivals, Header, Writer};
use crate::replica::{Input, Limit, Path, Replica};
use crate::step_time::affine::Affine;
use crate::time::{Span, Time};

/// Why a recording cannot be read.
#[derive(Debug, Error)]
pub enum RecordingError {
    /// The bytes could not be read.
    #[error("{0}")]
    Read(#[from] std::io::Error),
    /// A line is not JSON, or the header is not one.
    #[error("line {line}: {reason}")]
    Malformed {
        /// Counted from 1.
        line: usize,
        /// What is wrong with it.
        reason: String,
    },
    /// The header describes an engine that cannot be.
    #[error("line 1: {0}")]
    Impossible(String),
}

/// The first difference between a recording and its rebuilt self.
#[derive(Clone, Debug, PartialEq)]
pub struct Difference {
    /// Which step, or "end".
    pub step: String,
    /// Which field.
    pub field: String,
    /// What the recording says; absent where it has no such field.
    pub expected: Option<Value>,
    /// What was rebuilt.
    pub got: Option<Value>,
}

/// How a recording compares with its rebuilt self.
#[derive(Clone, Debug, PartialEq)]
pub struct Verdict {
    /// The recording's own name.
    pub name: String,
    /// Step lines in the recording.
    pub steps: u64,
    /// Steps that were rebuilt by a visit to every sequence.
    pub literal_steps: u64,
    /// Fields that differ, over all lines.
    pub differences: u64,
    /// The first of them.
    pub first: Option<Difference>,
}

/// Reads the header of a recording.
///
/// # Errors
/// If the first line is not a header of this format, or describes an engine that cannot be.
pub fn read_header(line: &str) -> Result<Header, RecordingError> {
    let malformed = |reason: String| RecordingError::Malformed { line: 1, reason };
    let header: Header = serde_json::from_str(line)
        .map_err(|error| malformed(format!("expected the header of a golden recording: {error}")))?;
    if header.golden != 1 {
        return Err(malformed(format!("expected format 1 of the golden recordings, got {}", header.golden)));
    }
    let engine = header.config.engine();
    let positive = [
        ("block_size", engine.block_size),
        ("max_num_batched_tokens", engine.max_num_batched_tokens),
        ("max_num_seqs", engine.max_num_seqs),
        ("max_model_len", engine.max_model_len),
    ];
    for (key, value) in positive {
        if value == 0 {
            return Err(RecordingError::Impossible(format!("config.{key} must be at least 1")));
        }
    }
    if engine.num_gpu_blocks < 2 {
        return Err(RecordingError::Impossible(
            "config.num_gpu_blocks must be at least 2: one is the null block".into(),
        ));
    }
    let mut last = 0;
    for (index, request) in header.requests.iter().enumerate() {
        if request.id().0 as usize != index || request.arr < last {
            return Err(RecordingError::Impossible(format!(
                "requests[{index}]: ids count from 0 in order of arrival"
            )));
        }
        last = request.arr;
        let ours = request.request(engine.block_size);
        if ours.output_tokens == 0 || ours.prompt_tokens == 0 || ours.prompt_tokens >= engine.max_model_len {
            return Err(RecordingError::Impossible(format!(
                "requests[{index}]: p and o are at least 1, and p is less than max_model_len"
            )));
        }
    }
    Ok(header)
}

/// A recording rebuilt from its header.
#[derive(Clone, Debug)]
pub struct Rebuilt {
    /// All lines behind the header.
    pub lines: Vec<Value>,
    /// Steps that were composed by a visit to every sequence.
    pub literal_steps: u64,
}

/// Rebuilds all lines behind the header from the header alone, on either path of the replica.
///
/// # Errors
/// If the engine of the header would wait for ever, as vLLM's can: a request that holds loaded KV behind one
/// that needs its blocks. No recording can hold that.
pub fn rebuild(header: &Header, path: Path) -> Result<Rebuilt, RecordingError> {
    let config = &header.config;
    let step_time = Affine {
        base: Span::from_ns(config.a_ns),
        per_token: Span::from_ns(config.b_ns),
        per_context_token: Span::from_ns(config.c_ns),
        host: Span::ZERO,
    };
    let mut writer = Writer::new(config);
    let mut replica = Replica::on_path(config.engine(), Arc::new(step_time), path);
    match config.arrivals {
        Arrivals::Time => drive_by_time(header, &mut replica, &mut writer)?,
        Arrivals::Step => drive_by_step(header, &mut replica, &mut writer)?,
    }
    advance(&mut replica, u64::MAX, &mut writer)?;
    let lines = writer.finish(header.requests.len(), replica.scheduler(), replica.clock());
    Ok(Rebuilt { lines, literal_steps: replica.literal_steps() })
}

/// Steps without an output token after which an engine goes round for ever: no prompt takes as many chunks.
const STUCK_AFTER_STEPS: u64 = 100_000;

/// Makes every schedule() call of a lower index than `until`, as far as there is anything to do.
fn advance(replica: &mut Replica, until: u64, writer: &mut Writer) -> Result<(), RecordingError> {
    let patience = STUCK_AFTER_STEPS + u64::from(replica.config().kv_load_delay_steps);
    loop {
        let (from, tokens) = (replica.steps(), replica.scheduler().totals().output_tokens);
        let goal = until.min(from.saturating_add(patience));
        replica.advance_recorded(Limit::Step(goal), writer);
        if replica.steps() < goal || goal == until {
            return Ok(());
        }
        if replica.scheduler().totals().output_tokens == tokens {
            return Err(RecordingError::Impossible(format!(
                "from step {from} on no request makes headway: this engine would wait for ever"
            )));
        }
    }
}

/// Arrivals at their times; aborts count in steps here too, and come behind the arrivals of their moment.
fn drive_by_time(header: &Header, replica: &mut Replica, writer: &mut Writer) -> Result<(), RecordingError> {
    let block_size = header.config.engine().block_size;
    let mut aborts = Vec::new();
    for (seq, request) in header.requests.iter().enumerate() {
        let at = Time::ZERO + Span::from_ns(request.arr);
        replica.deliver(at, seq as u64, Input::Add(request.request(block_size)));
        aborts.extend(request.abort.map(|step| (step, request.id(), at)));
    }
    aborts.sort();
    for (number, (step, id, arrives)) in aborts.into_iter().enumerate() {
        advance(replica, step, writer)?;
        // One that has not arrived is aborted with its arrival.
        let at = replica.clock().max(arrives);
        replica.deliver(at, (header.requests.len() + number) as u64, Input::Abort(id, 0));
    }
    Ok(())
}

/// Before schedule() call k: every request that arrives at or before k, then every abort due, by (index, id).
fn drive_by_step(header: &Header, replica: &mut Replica, writer: &mut Writer) -> Result<(), RecordingError> {
    let block_size = header.config.engine().block_size;
    let mut moments: Vec<(u64, bool, u64, Input)> = Vec::new();
    for request in &header.requests {
        let order = u64::from(request.id().0);
        moments.push((request.arr, false, order, Input::Add(request.request(block_size))));
        if let Some(abort) = request.abort {
            // A request that is not there yet is aborted with its arrival.
            moments.push((abort.max(request.arr), true, order, Input::Abort(request.id(), 0)));
        }
    }
    moments.sort_by_key(|&(step, is_abort, order, _)| (step, is_abort, order));
    for (seq, (step, is_abort, _, input)) in moments.into_iter().enumerate() {
        advance(replica, step, writer)?;
        if replica.is_idle() && replica.steps() < step && !is_abort {
            replica.jump_to_step(step);
        }
        replica.deliver(replica.clock(), seq as u64, input);
    }
    Ok(())
}

/// Compares a recording with what its header rebuilds.
///
/// # Errors
/// If the recording cannot be read.
pub fn verify(recording: impl BufRead, path: Path) -> Result<Verdict, RecordingError> {
    let mut lines = recording.lines();
    let header = match lines.next() {
        Some(line) => read_header(&line?)?,
        None => return Err(RecordingError::Malformed { line: 1, reason: "the file is empty".into() }),
    };
    let Rebuilt { lines: rebuilt, literal_steps } = rebuild(&header, path)?;
    let mut rebuilt = rebuilt.into_iter();
    let mut verdict = Verdict { name: header.name, steps: 0, literal_steps, differences: 0, first: None };
    let mut ended = false;
    for (index, line) in lines.enumerate() {
        let line_number = index + 2;
        let malformed = |reason: String| RecordingError::Malformed { line: line_number, reason };
        let recorded: Value = serde_json::from_str(&line?).map_err(|error| malformed(error.to_string()))?;
        let Value::Object(mut recorded) = recorded else {
            return Err(malformed("expected a JSON object".into()));
        };
        let mut got = match rebuilt.next() {
            Some(Value::Object(line)) => line,
            _ => Map::new(),
        };
        let step = match recorded.get("k") {
            Some(k) => {
                verdict.steps += 1;
                k.to_string()
            }
            None => {
                ended = true;
                recorded = unwrap_end(recorded);
                got = unwrap_end(got);
                "end".to_string()
            }
        };
        compare(&step, &recorded, &got, &mut verdict);
    }
    if !ended {
        let reason = "the recording is cut off: it has no end line".to_string();
        return Err(RecordingError::Malformed { line: verdict.steps as usize + 2, reason });
    }
    for line in rebuilt {
        let Value::Object(line) = line else { continue };
        let step = line.get("k").map_or("end".to_string(), Value::to_string);
        compare(&step, &Map::new(), &unwrap_end(line), &mut verdict);
    }
    Ok(verdict)
}

fn unwrap_end(line: Map<String, Value>) -> Map<String, Value> {
    match line.get("end") {
        Some(Value::Object(end)) => end.clone(),
        _ => line,
    }
}

/// Counts the fields, of either side, in which two lines differ.
fn compare(step: &str, expected: &Map<String, Value>, got: &Map<String, Value>, verdict: &mut Verdict) {
    let only_got = got.keys().filter(|key| !expected.contains_key(*key));
    for field in expected.keys().chain(only_got) {
        let (expected, got) = (expected.get(field), got.get(field));
        if expected == got {
            continue;
        }
        verdict.differences += 1;
        verdict.first.get_or_insert_with(|| Difference {
            step: step.to_string(),
            field: field.clone(),
            expected: expected.cloned(),
            got: got.cloned(),
        });
    }
}
