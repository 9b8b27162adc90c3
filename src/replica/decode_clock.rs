//! The decode clock: sequences that decode a token at every step are not visited one by one.
//!
//! The clock ticks once a schedule() call. A sequence on it is known by three numbers: how many tokens it has
//! sampled at tick 0 (as if it had always decoded), the tick of its last token, and the phase at which it
//! needs a new block. A tick visits those whose phase it is and those that end, and nobody else; what the
//! others would have counted up is worked out when they leave (`settle`).
//!
//! Knows who is on the clock, and composes and processes steps with it to the same result as the literal
//! scheduler. Does not know time. It declines a step that it cannot express (more running than the token
//! budget, too few free blocks, prefills before decodes under a short budget); the engine then settles the
//! clock and takes the literal path for that step.
//!
//! In asynchronous mode a step is composed before the output of the one before is known, so composition and
//! output are a tick apart: who ends by a limit leaves the composition one tick before its last output is
//! processed, and who ends by a stop token rides one step more.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::allocation::Need;
use super::output::EngineEvent;
use super::scheduler::Scheduler;
use super::sequence::{Sequence, Slot};
use super::step::{Scheduled, Step};
use crate::request::{Finish, Ledger};
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
struct Member {
    admission: u64,
    slot: Slot,
}

/// The tick at whose step a sequence samples its last token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct End {
    tick: u64,
    admission: u64,
    slot: Slot,
    serial: u64,
}

#[derive(Clone, Debug)]
pub(super) struct DecodeClock {
    active: bool,
    /// Sequences that decode at the next tick.
    count: u32,
    /// At tick k their contexts sum to this plus `count` times k.
    context_offset: i64,
    /// At tick k the longest context is this plus k.
    longest_offset: i64,
    /// No member was admitted later.
    latest_admission: u64,
    /// Members by the phase (tick modulo block size) at which they take a block, each in order of admission.
    phases: Vec<Vec<Member>>,
    /// Soonest first. The first is always valid; others may have left.
    ends: BinaryHeap<Reverse<End>>,
    /// Ends of the output that is processed next, in order of admission.
    ending: Vec<End>,
    /// Running requests that are not on the clock, in order of admission.
    off: Vec<Slot>,
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

    /// How many take a block at `tick`.
    pub(super) fn crossings(&self, tick: u64) -> u32 {
        self.phases[(tick % self.phases.len() as u64) as usize].len() as u32
    }

    /// At most so many blocks are taken at one tick after another, `ticks` of them.
    pub(super) fn crossings_bound(&self, ticks: u64) -> u64 {
        u64::from(self.count) * ticks.div_ceil(self.phases.len() as u64)
    }

    /// The phase of a sequence whose context at tick k is `context_offset` + k: it needs a new block where
    /// that is one more than a multiple of the block size.
    fn phase(&self, context_offset: i64) -> usize {
        (1 - context_offset).rem_euclid(self.phases.len() as i64) as usize
    }

    fn join(&mut self, member: Member, context_offset: i64, end: End) {
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
fn context_offset(prompt_tokens: u32, sampled_offset: i64) -> i64 {
    i64::from(prompt_tokens) + sampled_offset - 1
}

impl Scheduler {
    /// Whether the clock may be used at all: drafts and loads are the literal scheduler's.
    fn clock_fits(&self) -> bool {
        self.config.speculation.is_none() && self.config.kv_load_delay_steps == 0
    }

    /// Tokens that a request produces before it ends, and whether that is a limit the scheduler foresees.
    fn outputs_of(&self, sequence: &Sequence) -> (u32, bool) {
        let request = &sequence.request;
        let room = self.config.max_model_len.saturating_sub(request.prompt_tokens);
        let limit = self.max_tokens(request).min(room);
        (request.output_tokens.min(limit), request.output_tokens >= limit)
    }

    /// Composes the step of `tick` into `step`, decodes on the clock left out. Where it cannot, it says false
    /// and the caller settles the clock and goes the literal way.
    pub(super) fn schedule_on_clock(&mut self, tick: u64, now: Time, step: &mut Step) -> bool {
        if !self.clock.active {
            // Under pressure the literal path would be taken again at once.
            if !self.clock_fits() || self.cache.free_count() < self.running_count() {
                return false;
            }
            self.clock.active = true;
            self.clock.off.extend_from_slice(&self.running);
        }
        if self.config.async_scheduling {
            self.take_due(tick - u64::from(tick > 0));
        }
        self.join_clock(tick);
        if !self.fits_clock(tick) {
            return false;
        }
        step.clear();
        let mut budget = self.config.max_num_batched_tokens - self.clock.count;
        self.compose_running(tick, &mut budget, step);
        self.admit(&mut budget, now, step);
        self.composed += u64::from(!step.scheduled.is_empty() || self.clock.count > 0);
        self.totals.scheduled_tokens += u64::from(self.clock.count);
        self.after_schedule(step);
        true
    }

    /// Ends of the step of `tick` are the next to be processed; those foreseen are not composed any more.
    fn take_due(&mut self, tick: u64) {
        while self.clock.next_end().is_some_and(|due| due <= tick) {
            let Some(Reverse(end)) = self.clock.ends.pop() else { break };
            debug_assert_eq!(end.tick, tick, "an end was passed over");
            self.clock.ending.push(end);
            if self.config.async_scheduling && self.outputs_of(self.sequence(end.slot)).1 {
                self.leave_composition(end.slot);
            }
            self.forget_who_left();
        }
    }

    /// Keeps the soonest end valid.
    fn forget_who_left(&mut self) {
        while let Some(Reverse(end)) = self.clock.ends.peek() {
            let sequence = &self.sequences[end.slot as usize];
            if sequence.serial == end.serial && sequence.on_clock.is_some() {
                break;
            }
            self.clock.ends.pop();
        }
    }

    /// Takes in those whose next step is a plain decode, because the step before sampled a token for them.
    fn join_clock(&mut self, tick: u64) {
        if self.clock.off.is_empty() {
            return;
        }
        let in_flight = u32::from(self.config.async_scheduling);
        let mut off = std::mem::take(&mut self.clock.off);
        off.retain(|&slot| {
            let sequence = &self.sequences[slot as usize];
            let (outputs, _) = self.outputs_of(sequence);
            let known = sequence.request.prompt_tokens + sequence.sampled;
            // An empty step may have come in between, whose output has brought the token in.
            let decodes = sequence.sampled > 0
                && sequence.computed + 1 == known
                && sequence.last_sampling_step == self.composed
                && sequence.placeholders == in_flight
                && outputs > sequence.sampled;
            // In synchronous mode a block fills one tick before the next is taken, and the clock does not stop
            // there for those whose outputs others may ask for.
            let enters_table = sequence.identified_blocks() > sequence.held.registered;
            if !decodes || (enters_table && !self.config.async_scheduling) {
                return true;
            }
            let sampled_offset = i64::from(sequence.sampled) - (tick as i64 - 1);
            let (admission, serial) = (sequence.admission, sequence.serial);
            let end = End { tick: tick - 1 + u64::from(outputs - sequence.sampled), admission, slot, serial };
            let context_offset = context_offset(sequence.request.prompt_tokens, sampled_offset);
            self.clock.join(Member { admission, slot }, context_offset, end);
            self.sequences[slot as usize].on_clock = Some(sampled_offset);
            false
        });
        self.clock.off = off;
    }

    /// Whether the literal scheduler would give every running request all it asks for.
    fn fits_clock(&self, tick: u64) -> bool {
        let Some(budget) = self.config.max_num_batched_tokens.checked_sub(self.clock.count) else {
            return false;
        };
        let (mut tokens, mut blocks) = (0u64, u64::from(self.clock.crossings(tick)));
        let mut behind = true;
        for &slot in &self.clock.off {
            let sequence = self.sequence(slot);
            let wanted = self.tokens_wanted(sequence);
            behind &= wanted == 0 || sequence.admission > self.clock.latest_admission;
            tokens += u64::from(wanted);
            let after = self.config.blocks_for(sequence.computed + wanted);
            blocks += u64::from(after.saturating_sub(sequence.held.blocks.len() as u32));
        }
        // Where tokens run short, those in front get theirs first; the clock can only be in front.
        let in_order = tokens <= u64::from(budget) || behind || self.clock.count == 0;
        in_order && blocks <= u64::from(self.cache.free_count())
    }

    /// Gives running requests their blocks and tokens, in order of admission.
    fn compose_running(&mut self, tick: u64, budget: &mut u32, step: &mut Step) {
        let phase = (tick % self.clock.phases.len() as u64) as usize;
        let members = std::mem::take(&mut self.clock.phases[phase]);
        let off = std::mem::take(&mut self.clock.off);
        let mut next = 0;
        for &slot in &off {
            let admission = self.sequence(slot).admission;
            while next < members.len() && members[next].admission < admission {
                self.take_block(members[next].slot, tick);
                next += 1;
            }
            self.compose_off_clock(slot, budget, step);
        }
        for member in &members[next..] {
            self.take_block(member.slot, tick);
        }
        self.clock.phases[phase] = members;
        self.clock.off = off;
    }

    /// A sequence on the clock crosses into a new block at `tick`.
    fn take_block(&mut self, slot: Slot, tick: u64) {
        let sequence = &mut self.sequences[slot as usize];
        self.cache.take_one(&mut sequence.held.blocks);
        if sequence.identified_blocks() > sequence.held.in_table
            && let Some(sampled_offset) = sequence.on_clock
        {
            // Known are the tokens that have come out: in asynchronous mode those of the step before the last.
            let known = i64::from(sequence.request.prompt_tokens) + sampled_offset + tick as i64 - 2;
            self.register(slot, known as u32);
        }
    }

    /// Every crossing of `tick`, where nobody runs off the clock.
    pub(super) fn take_blocks(&mut self, tick: u64) {
        let phase = (tick % self.clock.phases.len() as u64) as usize;
        let members = std::mem::take(&mut self.clock.phases[phase]);
        for member in &members {
            self.take_block(member.slot, tick);
        }
        self.clock.phases[phase] = members;
    }

    /// Whether the crossings of `tick` may change what a look-up finds.
    pub(super) fn crossings_touch_table(&self, tick: u64) -> bool {
        let members = &self.clock.phases[(tick % self.clock.phases.len() as u64) as usize];
        let enters = |member: &Member| {
            let sequence = self.sequence(member.slot);
            sequence.identified_blocks() > sequence.held.in_table
        };
        self.cache.would_evict_from_table(members.len() as u32) || members.iter().any(enters)
    }

    /// Counts `ticks` steps of decodes alone, composed and processed, with `tries` of the blocked head.
    pub(super) fn count_decodes(&mut self, ticks: u64, tries: bool) {
        let tokens = u64::from(self.clock.count) * ticks;
        self.composed += ticks;
        self.processed += ticks;
        self.totals.scheduled_tokens += tokens;
        self.totals.output_tokens += tokens;
        self.unflushed_ends = false;
        if let Some(blocked) = self.blocked.filter(|_| tries) {
            self.totals.cache_queries += blocked.cache_queries[0] * ticks;
            self.totals.cache_hits += blocked.cache_queries[1] * ticks;
        }
    }

    /// Whether the waiting queue is left alone as long as only decodes go on; none where that cannot be told.
    /// The answer says whether its head is tried at every step.
    pub(super) fn waits_in_vain(&self) -> Option<bool> {
        let Some((head, _)) = self.next_waiting() else { return Some(false) };
        let budget = self.config.max_num_batched_tokens - self.clock.count;
        if budget == 0 || self.running.len() >= self.config.max_num_seqs as usize {
            return Some(false);
        }
        let blocked = self.blocked?;
        let same = blocked.serial == self.sequence(head).serial
            && blocked.budget == budget
            && blocked.free_blocks >= self.cache.free_count()
            && blocked.table_changes == self.cache.table_changes();
        same.then_some(true)
    }

    /// The literal scheduler's treatment of one running request for which budget and blocks are known to do.
    fn compose_off_clock(&mut self, slot: Slot, budget: &mut u32, step: &mut Step) {
        let sequence = self.sequence(slot);
        let tokens = self.tokens_wanted(sequence).min(*budget);
        if tokens == 0 {
            return;
        }
        let (before, blocks_before) = (sequence.computed, sequence.held.blocks.len() as u32);
        self.hits.clear();
        let allocated = self.allocate(slot, Need { tokens, external: 0, admission: false, reserved: 0 });
        assert!(allocated, "blocks were counted before the clock composed a step");
        *budget -= tokens;
        step.scheduled.push(self.part(slot, tokens, before, 0, false, blocks_before));
    }

    /// A sequence decodes on the clock no more.
    fn leave_composition(&mut self, slot: Slot) {
        let sequence = &self.sequences[slot as usize];
        let Some(sampled_offset) = sequence.on_clock else { return };
        let context_offset = context_offset(sequence.request.prompt_tokens, sampled_offset);
        let phase = self.clock.phase(context_offset);
        let members = &mut self.clock.phases[phase];
        let Some(place) = members.iter().position(|member| member.slot == slot) else { return };
        members.remove(place);
        let clock = &mut self.clock;
        clock.count -= 1;
        clock.context_offset -= context_offset;
        if context_offset == clock.longest_offset && clock.count > 0 {
            let offsets = clock.phases.iter().flatten().map(|member| {
                let sequence = &self.sequences[member.slot as usize];
                self::context_offset(sequence.request.prompt_tokens, sequence.on_clock.unwrap_or_default())
            });
            clock.longest_offset = offsets.max().unwrap_or_default();
        }
    }

    /// Ends of the output of step `tick` that come before `admission`. Returns how many of them are part of the
    /// step composed after it.
    pub(super) fn process_ends(
        &mut self,
        admission: u64,
        now: Time,
        ledger: &Ledger,
        events: &mut Vec<EngineEvent>,
    ) -> u32 {
        let due = self.clock.ending.iter().take_while(|end| end.admission < admission).count();
        let mut riders = 0;
        for index in 0..due {
            let end = self.clock.ending[index];
            // An abort may have come in between.
            let sequence = &self.sequences[end.slot as usize];
            if sequence.serial != end.serial || sequence.on_clock.is_none() {
                continue;
            }
            riders += self.end_on_clock(end.slot, now, ledger, events);
        }
        self.clock.ending.drain(..due);
        riders
    }

    fn end_on_clock(&mut self, slot: Slot, now: Time, ledger: &Ledger, events: &mut Vec<EngineEvent>) -> u32 {
        let sequence = self.sequence(slot);
        let (outputs, foreseen) = self.outputs_of(sequence);
        let stopped = self.max_tokens(&sequence.request) > sequence.request.output_tokens
            && outputs == sequence.request.output_tokens;
        let computed = sequence.request.prompt_tokens + outputs - 1;
        self.sequence_mut(slot).output = outputs;
        self.register(slot, computed);
        self.leave_composition(slot);
        self.sequence_mut(slot).on_clock = None;
        if let Some(place) = self.running.iter().position(|&other| other == slot) {
            self.running.remove(place);
        }
        self.finish(slot, if stopped { Finish::Stop } else { Finish::Length }, now, ledger, events);
        u32::from(self.config.async_scheduling && !foreseen)
    }

    /// Synchronous mode: the output of step `tick` is processed before the next is composed.
    pub(super) fn take_due_now(&mut self, tick: u64) {
        if self.clock.active && !self.config.async_scheduling {
            self.take_due(tick);
        }
    }

    /// A request that ended or lost its place is off the clock's books. `tick` is the next to be composed.
    /// Returns whether it was on the clock, that is part of the step in flight.
    pub(super) fn take_off(&mut self, slot: Slot, tick: u64) -> bool {
        if !self.clock.active {
            return false;
        }
        if self.sequence(slot).on_clock.is_none() {
            return false;
        }
        self.leave_composition(slot);
        self.settle_one(slot, tick);
        self.forget_who_left();
        true
    }

    pub(super) fn forget_off_clock(&mut self, slot: Slot) {
        if let Some(place) = self.clock.off.iter().position(|&other| other == slot) {
            self.clock.off.remove(place);
        }
    }

    /// Writes back what a sequence would have counted up by the time the step of `tick` is composed. Returns its
    /// part of the step before, unless it has joined only now.
    fn settle_one(&mut self, slot: Slot, tick: u64) -> Option<Scheduled> {
        let in_flight = u32::from(self.config.async_scheduling);
        let last_token_at = self.clock.last_token_at;
        let composed = self.composed;
        let sequence = &mut self.sequences[slot as usize];
        let sampled_offset = sequence.on_clock.take()?;
        let sampled = (sampled_offset + tick as i64 - 1) as u32;
        if sampled == sequence.sampled {
            return None;
        }
        let prompt_tokens = sequence.request.prompt_tokens;
        sequence.sampled = sampled;
        sequence.output = sampled - in_flight;
        sequence.placeholders = in_flight;
        sequence.computed = prompt_tokens + sampled - 1;
        sequence.last_step = composed;
        sequence.last_sampling_step = composed;
        sequence.last_token = last_token_at;
        let computed = sequence.computed;
        self.register(slot, computed - in_flight);
        let mut part = self.part(slot, 1, computed - 1, 0, false, self.config.blocks_for(computed - 1));
        (part.sampled, part.sampled_before) = (1, sampled - 1);
        Some(part)
    }

    /// Takes everybody off the clock before the step of `tick` is composed; the decodes of the step in flight
    /// become parts of it.
    pub(super) fn settle(&mut self, tick: u64, in_flight: Option<&mut Step>) {
        if !self.clock.active {
            return;
        }
        let running = std::mem::take(&mut self.running);
        let parts: Vec<Scheduled> = running.iter().filter_map(|&slot| self.settle_one(slot, tick)).collect();
        self.running = running;
        if let Some(step) = in_flight {
            step.scheduled.extend(parts);
            let sequences = &self.sequences;
            step.scheduled.sort_by_key(|part| sequences[part.slot as usize].admission);
        }
        let clock = &mut self.clock;
        clock.active = false;
        (clock.count, clock.context_offset) = (0, 0);
        clock.phases.iter_mut().for_each(Vec::clear);
        clock.ends.clear();
        clock.ending.clear();
        clock.off.clear();
    }

    /// The step of `tick` as the literal scheduler would have composed it: with a part for everybody.
    pub(super) fn spelt_out(&self, tick: u64, step: &Step) -> Step {
        let mut whole = step.clone();
        let mut members: Vec<Member> = self.clock.phases.iter().flatten().copied().collect();
        members.sort_unstable();
        let decodes = members.iter().map(|member| {
            let sequence = self.sequence(member.slot);
            let sampled = (sequence.on_clock.unwrap_or_default() + tick as i64) as u32;
            let before = sequence.request.prompt_tokens + sampled - 2;
            let mut part = self.part(member.slot, 1, before, 0, false, self.config.blocks_for(before));
            (part.sampled, part.sampled_before) = (1, sampled - 1);
            part
        });
        whole.scheduled.extend(decodes);
        whole.scheduled.sort_by_key(|part| self.sequence(part.slot).admission);
        whole
    }
}
