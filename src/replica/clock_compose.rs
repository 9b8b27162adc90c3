//! Steps composed with the decode clock, to the same result as the literal scheduler's.
//!
//! Declines what it cannot express (more running than the token budget, too few free blocks, prefills before
//! decodes under a short budget); the engine then settles the clock and takes the literal path for that step.

use super::allocation::Need;
use super::decode_clock::{End, Member, context_offset};
use super::scheduler::Scheduler;
use super::sequence::{Sequence, Slot};
use super::step::Step;
use crate::time::Time;

impl Scheduler {
    /// Whether the clock may be used at all: drafts and loads are the literal scheduler's.
    fn clock_fits(&self) -> bool {
        self.config.speculation.is_none() && self.config.kv_load_delay_steps == 0
    }

    /// Tokens that a request produces before it ends, and whether that is a limit the scheduler foresees.
    pub(super) fn outputs_of(&self, sequence: &Sequence) -> (u32, bool) {
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
            self.clock.join(Member { admission, slot, context_offset }, end);
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
        let phase = self.clock.phase_at(tick);
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
        let phase = self.clock.phase_at(tick);
        let members = std::mem::take(&mut self.clock.phases[phase]);
        for member in &members {
            self.take_block(member.slot, tick);
        }
        self.clock.phases[phase] = members;
    }

    /// Whether the crossings of `tick` may change what a look-up finds.
    pub(super) fn crossings_touch_table(&self, tick: u64) -> bool {
        let members = &self.clock.phases[self.clock.phase_at(tick)];
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
}
