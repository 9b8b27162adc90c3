//! Agentic coding sessions of kv-cache-tester (JSON, a file a session): a closed loop with nested subagents.
//!
//! Knows that a request is sent `think_time` after the answer before it, that subagents run beside their parent from
//! their own start on, that the parent waits for the subagents that had ended when it went on, and that block ids mean
//! nothing outside the file. Does not know when the session began: whoever replays it says that.

use serde::Deserialize;

use super::content::{local_stream, text_id};
use super::error::TraceError;
use super::json;
use super::lines::{Lines, Opening};
use super::rows::{Next, NextRow, Recorded, document};
use super::{TraceRow, Wait, Waits};
use crate::request::{Content, ContentRun};
use crate::time::Span;

#[derive(Deserialize)]
struct Session {
    id: String,
    block_size: u32,
    requests: Vec<Entry>,
}

#[derive(Deserialize)]
struct Entry {
    t: f64,
    #[serde(rename = "type")]
    kind: String,
    #[serde(rename = "in")]
    input: Option<u32>,
    out: Option<u32>,
    #[serde(default)]
    hash_ids: Vec<u64>,
    api_time: Option<f64>,
    think_time: Option<f64>,
    status: Option<String>,
    duration_ms: Option<f64>,
    requests: Option<Vec<Entry>>,
}

pub(super) fn recognises(opening: &Opening) -> bool {
    opening.head.contains("\"hash_id_scope\"")
        || opening.head.contains("\"block_size\"") && opening.head.contains("\"requests\"")
}

pub(super) fn rows(lines: &mut Lines) -> Result<NextRow, TraceError> {
    let session: Session = json::parse_document(lines)?;
    if session.block_size == 0 {
        return Err(lines.problem("block_size: expected at least 1 token".to_owned()));
    }
    let id = text_id(&session.id);
    let mut reader = Reader { lines, id, block_size: session.block_size, rows: Vec::new() };
    reader.chain(&session.requests, 0.0, None, "requests")?;
    Ok(document(reader.rows.into_iter().map(Next::Row).collect()))
}

/// The last request of a chain, and when its answer ended in the recording.
#[derive(Clone, Copy)]
struct Last {
    row: u32,
    ended_s: f64,
}

struct Reader<'a> {
    lines: &'a Lines,
    /// Of the session.
    id: u64,
    block_size: u32,
    rows: Vec<Recorded>,
}

impl Reader<'_> {
    /// Adds the requests of an agent whose times count from `start_s`, and which began when `before` had ended; its last.
    fn chain(
        &mut self,
        entries: &[Entry],
        start_s: f64,
        before: Option<Last>,
        place: &str,
    ) -> Result<Option<Last>, TraceError> {
        let mut last = before;
        // Subagents that the next request waits for.
        let mut joined: Vec<Last> = Vec::new();
        for (index, entry) in entries.iter().enumerate() {
            let place = format!("{place}[{index}]");
            if !(entry.t.is_finite() && entry.t >= 0.0) {
                return Err(self
                    .lines
                    .problem(format!("{place}.t: expected seconds from the start, got {}", entry.t)));
            }
            let sent_s = start_s + entry.t;
            if let Some(nested) = &entry.requests {
                let end = self.chain(nested, sent_s, last, &place)?;
                let waited_for = entry.status.as_deref() != Some("async_launched");
                if let (Some(end), true, false) = (end, waited_for, nested.is_empty()) {
                    let ended_s = entry.duration_ms.map_or(end.ended_s, |duration| sent_s + duration / 1e3);
                    joined.push(Last { ended_s: ended_s.max(end.ended_s), ..end });
                }
                continue;
            }
            let (Some(input), Some(output)) = (entry.input, entry.out) else {
                let kind = &entry.kind;
                return Err(self
                    .lines
                    .problem(format!("{place}: an entry of type \"{kind}\" has no in, out or requests")));
            };
            let mut waits = Vec::new();
            let (over, running): (Vec<Last>, Vec<Last>) =
                joined.into_iter().partition(|end| end.ended_s <= sent_s + CLOCKS_DIFFER_S);
            joined = running;
            for (number, wait) in over.into_iter().chain(last).enumerate() {
                let recorded = sent_s - wait.ended_s;
                // Its own think time counts from the answer before it; where a subagent came between, from that.
                let alone = number == 0 && last.is_some_and(|last| last.row == wait.row);
                let think_s = entry.think_time.filter(|_| alone).unwrap_or(recorded);
                waits.push(Wait {
                    row: wait.row,
                    think: Some(Span::from_s_f64(think_s.clamp(0.0, LONGEST_THOUGHT_S))),
                });
            }
            let number = self.rows.len() as u32;
            self.rows.push(self.row(entry, sent_s, input, output, waits, &place)?);
            last = Some(Last { row: number, ended_s: sent_s + entry.api_time.unwrap_or(0.0).max(0.0) });
        }
        Ok(last)
    }

    fn row(
        &self,
        entry: &Entry,
        sent_s: f64,
        prompt_tokens: u32,
        output_tokens: u32,
        waits: Vec<Wait>,
        place: &str,
    ) -> Result<Recorded, TraceError> {
        let (size, got) = (self.block_size, entry.hash_ids.len());
        let most = prompt_tokens.div_ceil(size);
        if got > most as usize {
            return Err(self.lines.problem(format!(
                "{place}.hash_ids: expected at most {most} ids for {prompt_tokens} tokens in blocks of {size}, got {got}"
            )));
        }
        let mut left = prompt_tokens;
        let content = Content::from_runs(entry.hash_ids.iter().map(|&id| {
            let tokens = size.min(left);
            left -= tokens;
            ContentRun { stream: local_stream(id, self.id), position: 0, tokens }
        }));
        let row = TraceRow {
            content,
            session: Some(self.id),
            waits: Waits::of(waits),
            ..TraceRow::of_lengths(prompt_tokens, output_tokens)
        };
        Ok(Recorded { arrived_ps: i128::from(Span::from_s_f64(sent_s.min(LONGEST_THOUGHT_S)).as_ps()), row })
    }
}

/// Recorded starts, durations and pauses agree to about a second.
const CLOCKS_DIFFER_S: f64 = 1.0;

/// No pause is longer than a run may last.
const LONGEST_THOUGHT_S: f64 = 9e6;
