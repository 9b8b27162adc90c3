//! The decode clock: sequences that decode a token at every step are not visited one by one.
//!
//! The clock ticks once a schedule() call. A sequence on it is known by three numbers: how many tokens it has
//! sampled at tick 0 (as if it had always decoded), the tick of its last token, and the phase at which it
//! needs a new block. A tick visits those whose phase it is and those that end, and nobody else; what the
//! others would have counted up is worked out when they leave.
//!
//! In asynchronous mode a step is composed before the output of the one before is known, so composition and
//! output are a tick apart: who ends by a limit leaves the composition one tick before its last output is
//! processed, and who ends by a stop token rides one step more.
//!
//! Knows who is on the clock. Does not know requests, blocks or time: `clock_compose` composes steps with it,
//! `clock_end` ends requests on it, `clock_settle` takes them off.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::sequence::Slot;
use crate::step_time::Decodes;
use crate::time::Time;

/// Why the head of the waiting queue was not admitted. As long as all this stands, and free blocks have not
/// become more, trying again gives the same.
#[derive(Clone, Copy, Debug)]
pub(super) struct Blocked {
    pub(super) serial: u64,
    pub(super) budget: u32,
    pub(super) free_blocks: u32,
    pub(super) table_changes: u64,
    /// What one try counts, by [`Step::cache_queries`].
    pub(super) cache_queries: [u64; 4],
}

/// A sequence on the clock, in order of admission.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Member {
    pub(super) admission: u64,
    pub(super) slot: Slot,
    /// Its context at tick k is this plus k.
    pub(super) context_offset: i64,
}

/// The tick at whose step a sequence samples its last token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct End {
    pub(super) tick: u64,
    pub(super) admission: u64,
    pub(super) slot: Slot,
    pub(super) serial: u64,
}

#[derive(Clone, Debug)]
pub(super) struct DecodeClock {
    pub(super) active: bool,
    /// Sequences that decode at the next tick.
    pub(super) count: u32,
    /// At tick k their contexts sum to this plus `count` times k.
    pub(super) context_offset: i64,
    /// At tick k the longest context is this plus k.
    pub(super) longest_offset: i64,
    /// No member was admitted later.
    pub(super) latest_admission: u64,
    /// Members by the phase (tick modulo block size) at which they take a block, each in order of admission.
    pub(super) phases: Vec<Vec<Member>>,
    /// Soonest first. The first is always valid; others may have left.
    pub(super) ends: BinaryHeap<Reverse<End>>,
    /// Ends of the output that is processed next, in order of admission.
    pub(super) ending: Vec<End>,
    /// Running requests that are not on the clock, in order of admission.
    pub(super) off: Vec<Slot>,
    /// When the last output with a token in it was processed.
    last_token_at: Time,
}

impl DecodeClock {
    pub(super) fn new(block_size: u32) -> DecodeClock {
        DecodeClock {
            active: false,
            count: 0,
            context_offset: 0,
            longest_offset: 0,
            latest_admission: 0,
            phases: vec![Vec::new(); block_size as usize],
            ends: BinaryHeap::new(),
            ending: Vec::new(),
            off: Vec::new(),
            last_token_at: Time::ZERO,
        }
    }

    /// A request joined the running list.
    pub(super) fn admitted(&mut self, slot: Slot) {
        if self.active {
            self.off.push(slot);
        }
    }

    /// Whether everybody who runs is on the clock.
    pub(super) fn holds_all(&self) -> bool {
        self.active && self.off.is_empty() && self.count > 0
    }

    pub(super) fn count(&self) -> u32 {
        self.count
    }

    pub(super) fn last_token_at(&self) -> Time {
        self.last_token_at
    }

    pub(super) fn set_last_token_at(&mut self, at: Time) {
        self.last_token_at = at;
    }

    /// Whether somebody ends with the output that is processed next.
    pub(super) fn ends_with_next_output(&self) -> bool {
        !self.ending.is_empty()
    }

    /// The tick of the soonest last token.
    pub(super) fn next_end(&self) -> Option<u64> {
        self.ends.peek().map(|Reverse(end)| end.tick)
    }

    /// The decodes of the step at `tick`.
    pub(super) fn decodes(&self, tick: u64) -> Decodes {
        if self.count == 0 {
            return Decodes::default();
        }
        let tick = tick as i64;
        Decodes {
            count: self.count,
            context_sum: (self.context_offset + i64::from(self.count) * tick) as u64,
            context_max: (self.longest_offset + tick) as u32,
        }
    }

    /// Whose phase it is at `tick`. Asked at every step, and nearly all block sizes are powers of two.
    pub(super) fn phase_at(&self, tick: u64) -> usize {
        let phases = self.phases.len() as u64;
        let phase = if phases.is_power_of_two() { tick & (phases - 1) } else { tick % phases };
        phase as usize
    }

    /// How many take a block at `tick`.
    pub(super) fn crossings(&self, tick: u64) -> u32 {
        self.phases[self.phase_at(tick)].len() as u32
    }

    /// The first tick from `tick` on at which somebody takes a block; `until` if none comes before.
    pub(super) fn next_crossing(&self, tick: u64, until: u64) -> u64 {
        let (behind, ahead) = self.phases.split_at(self.phase_at(tick));
        let wait = ahead.iter().chain(behind).position(|members| !members.is_empty());
        wait.map_or(until, |wait| until.min(tick + wait as u64))
    }

    /// At most so many blocks are taken at one tick after another, `ticks` of them.
    pub(super) fn crossings_bound(&self, ticks: u64) -> u64 {
        u64::from(self.count) * ticks.div_ceil(self.phases.len() as u64)
    }

    /// The phase of a sequence whose context at tick k is `context_offset` + k: it needs a new block where
    /// that is one more than a multiple of the block size.
    pub(super) fn phase(&self, context_offset: i64) -> usize {
        (1 - context_offset).rem_euclid(self.phases.len() as i64) as usize
    }

    pub(super) fn join(&mut self, member: Member, end: End) {
        let context_offset = member.context_offset;
        let phase = self.phase(context_offset);
        let members = &mut self.phases[phase];
        let place = members.iter().rposition(|other| *other < member).map_or(0, |before| before + 1);
        members.insert(place, member);
        let is_first = self.count == 0;
        self.longest_offset = if is_first { context_offset } else { self.longest_offset.max(context_offset) };
        self.latest_admission =
            if is_first { member.admission } else { self.latest_admission.max(member.admission) };
        self.count += 1;
        self.context_offset += context_offset;
        self.ends.push(Reverse(end));
    }
}

/// A sequence's context at tick k is this plus k.
pub(super) fn context_offset(prompt_tokens: u32, sampled_offset: i64) -> i64 {
    i64::from(prompt_tokens) + sampled_offset - 1
}
