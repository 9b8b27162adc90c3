//! TraceLab's rounds of coding agents (JSON lines): lengths, and how much of each prompt a cache held.
//!
//! Knows that a round's first timing event is the nearest thing to its arrival, and its last one to its end; the next
//! round of the session waits for that. Does not know identities: the cached tokens are taken to be the beginning of what
//! the session's rounds have in common.

use jiff::Timestamp;
use rustc_hash::FxHashMap;
use serde::Deserialize;

use super::content::{prefix, text_id};
use super::error::TraceError;
use super::json;
use super::lines::{Lines, Opening};
use super::rows::{Next, NextRow, Recorded};
use super::{TraceRow, Wait, Waits};
use crate::time::Span;

#[derive(Deserialize)]
struct Round {
    session_id: String,
    input_tokens_total: u32,
    prefix_tokens: Option<u32>,
    output_tokens: u32,
    timing_events: Vec<TimingEvent>,
}

#[derive(Deserialize)]
struct TimingEvent {
    timestamp: Timestamp,
}

pub(super) fn recognises(opening: &Opening) -> bool {
    opening.first().starts_with('{') && opening.first().contains("\"timing_events\"")
}

pub(super) fn rows(_lines: &mut Lines) -> Result<NextRow, TraceError> {
    // Of each session the round before, and when it ended.
    let mut sessions: FxHashMap<u64, (u32, i128)> = FxHashMap::default();
    let mut number = 0;
    Ok(Box::new(move |lines| {
        if !lines.advance()? {
            return Ok(Next::End);
        }
        let this = number;
        number += 1;
        let round: Round = json::parse(lines)?;
        let times = || round.timing_events.iter().map(|event| event.timestamp.as_nanosecond() * 1_000);
        let Some((arrived_ps, ended_ps)) = times().min().zip(times().max()) else {
            return Err(
                lines.problem("timing_events: expected at least one, to know when it came".to_owned())
            );
        };
        let session = text_id(&round.session_id);
        let tokens = round.prefix_tokens.unwrap_or(0).min(round.input_tokens_total);
        let mut row = TraceRow {
            session: Some(session),
            content: prefix(session >> 1, tokens),
            ..TraceRow::of_lengths(round.input_tokens_total, round.output_tokens)
        };
        if let Some((row_before, end_before)) = sessions.insert(session, (this, ended_ps)) {
            let think = Span::from_ps(u64::try_from(arrived_ps - end_before).unwrap_or(0));
            row.waits = Waits::of(vec![Wait { row: row_before, think: Some(think) }]);
        }
        Ok(Next::Row(Recorded { arrived_ps, row }))
    }))
}
