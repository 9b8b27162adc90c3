//! NVIDIA Dynamo's request trace (JSON lines): one record an event, of which `request_end` holds a request.
//!
//! Knows arrival, lengths, hashes of the prompt's blocks, the agent's session, and when the answer ended: the next
//! request of the session waits for it, and thinks as long as was recorded. Does not know tools: their time is part of
//! that. Records are written when requests end, so arrivals are out of order.

use rustc_hash::FxHashMap;
use serde::Deserialize;

use super::content::{blocks, text_id};
use super::error::TraceError;
use super::json;
use super::lines::{Lines, Opening};
use super::numbers::decimal_ps;
use super::options::TimeUnit;
use super::rows::{Next, NextRow, Recorded, Skip};
use super::{TraceRow, Wait, Waits};
use crate::time::Span;

#[derive(Deserialize)]
struct Record {
    event: Event,
}

#[derive(Deserialize)]
struct Event {
    event_type: String,
    agent_context: Option<AgentContext>,
    request: Option<Request>,
}

#[derive(Deserialize)]
struct AgentContext {
    session_id: Option<String>,
}

#[derive(Deserialize)]
struct Request {
    request_received_ms: serde_json::Number,
    total_time_ms: Option<serde_json::Number>,
    input_tokens: u32,
    output_tokens: u32,
    replay: Option<Replay>,
}

#[derive(Deserialize)]
struct Replay {
    trace_block_size: u32,
    input_sequence_hashes: Vec<u64>,
}

pub(super) fn recognises(opening: &Opening) -> bool {
    opening.first().contains("\"dynamo.request.trace.")
}

pub(super) fn rows(_lines: &mut Lines) -> Result<NextRow, TraceError> {
    // Of each session the last request that ended, and when.
    let mut sessions: FxHashMap<u64, (u32, i128)> = FxHashMap::default();
    let mut number = 0;
    Ok(Box::new(move |lines| {
        if !lines.advance()? {
            return Ok(Next::End);
        }
        let this = number;
        number += 1;
        let record: Record = json::parse(lines)?;
        if record.event.event_type != "request_end" {
            return Ok(Next::Skip(Skip::OtherKind));
        }
        let request = record.event.request.ok_or_else(|| lines.missing("event.request"))?;
        let time = |key: &str, value: &serde_json::Number| {
            let text = value.to_string();
            decimal_ps(&text, TimeUnit::Milliseconds)
                .ok_or_else(|| lines.value(key, "milliseconds since 1970", &text))
        };
        let arrived_ps = time("event.request.request_received_ms", &request.request_received_ms)?;
        let session = record.event.agent_context.and_then(|context| context.session_id);
        let session = session.map(|session| text_id(&session));
        let mut row =
            TraceRow { session, ..TraceRow::of_lengths(request.input_tokens, request.output_tokens) };
        if let Some(replay) = request.replay {
            let size = replay.trace_block_size;
            let (hashes, most) = (replay.input_sequence_hashes, request.input_tokens.div_ceil(size.max(1)));
            if size == 0 || hashes.len() > most as usize {
                return Err(lines.problem(format!(
                    "event.request.replay: expected at most {most} hashes, one for each started block of {size} of \
                     {} tokens, got {}",
                    request.input_tokens,
                    hashes.len()
                )));
            }
            row.content = blocks(request.input_tokens, size, &hashes);
        }
        if let (Some(session), Some(total)) = (session, &request.total_time_ms) {
            let ended_ps = arrived_ps + time("event.request.total_time_ms", total)?;
            // Records come as requests end; one that was sent before the last end ran beside that request.
            if let Some(&(row_before, end_before)) = sessions.get(&session)
                && end_before <= arrived_ps
            {
                let think = Span::from_ps(u64::try_from(arrived_ps - end_before).unwrap_or(0));
                row.waits = Waits::of(vec![Wait { row: row_before, think: Some(think) }]);
            }
            sessions.insert(session, (this, ended_ps));
        }
        Ok(Next::Row(Recorded { arrived_ps, row }))
    }))
}
