//! The Qwen Bailian traces (JSON lines): seconds, ids of 16-token blocks, and which chat continues which.
//!
//! Knows that the turns of a chat are linked by `parent_chat_id`, -1 for a first one. Does not know when an answer
//! ended, so a turn waits for the one before it, but no longer than that: think time is not recorded.

use rustc_hash::FxHashMap;
use serde::Deserialize;

use super::content::blocks;
use super::error::TraceError;
use super::json;
use super::lines::{Lines, Opening};
use super::numbers::decimal_ps;
use super::options::TimeUnit;
use super::rows::{Next, NextRow, Recorded};
use super::{TraceRow, Wait, Waits};

const BLOCK_TOKENS: u32 = 16;

#[derive(Deserialize)]
struct Turn {
    chat_id: i64,
    parent_chat_id: i64,
    timestamp: serde_json::Number,
    input_length: u32,
    output_length: u32,
    hash_ids: Vec<u64>,
}

pub(super) fn recognises(opening: &Opening) -> bool {
    opening.first().starts_with('{') && opening.first().contains("\"parent_chat_id\"")
}

pub(super) fn rows(_lines: &mut Lines) -> Result<NextRow, TraceError> {
    // The session and the number of the row of each chat.
    let mut chats: FxHashMap<i64, (u64, u32)> = FxHashMap::default();
    let mut number = 0;
    Ok(Box::new(move |lines| {
        if !lines.advance()? {
            return Ok(Next::End);
        }
        let this = number;
        number += 1;
        let turn: Turn = json::parse(lines)?;
        let arrived_ps = decimal_ps(&turn.timestamp.to_string(), TimeUnit::Seconds)
            .ok_or_else(|| lines.value("timestamp", "seconds", &turn.timestamp.to_string()))?;
        let (prompt_tokens, got) = (turn.input_length, turn.hash_ids.len());
        let started = prompt_tokens.div_ceil(BLOCK_TOKENS);
        if got != started as usize && got != (prompt_tokens / BLOCK_TOKENS) as usize {
            return Err(lines.problem(format!(
                "column hash_ids: expected {started} ids, one for each started block of {BLOCK_TOKENS} of \
                 {prompt_tokens} tokens, got {got}"
            )));
        }
        let parent = chats.get(&turn.parent_chat_id).copied();
        let session = parent.map_or(turn.chat_id as u64, |(session, _)| session);
        chats.insert(turn.chat_id, (session, this));
        let row = TraceRow {
            content: blocks(prompt_tokens, BLOCK_TOKENS, &turn.hash_ids),
            session: Some(session),
            waits: Waits::of(parent.iter().map(|&(_, row)| Wait { row, think: None }).collect()),
            ..TraceRow::of_lengths(prompt_tokens, turn.output_length)
        };
        Ok(Next::Row(Recorded { arrived_ps, row }))
    }))
}
