//! Off the decode clock: what a sequence would have counted up by now is written back.

use super::scheduler::Scheduler;
use super::sequence::Slot;
use super::step::{Scheduled, Step};
use crate::request::RequestId;
use crate::time::Time;

impl Scheduler {
    /// A request that ended or lost its place is off the clock's books. `tick` is the next to be composed.
    /// Returns whether it was on the clock, that is part of the step in flight.
    pub(super) fn take_off(&mut self, slot: Slot, tick: u64) -> bool {
        if self.sequence(slot).on_clock.is_none() {
            return false;
        }
        self.leave_composition(slot);
        self.settle_one(slot, tick);
        self.forget_who_left();
        true
    }

    /// Takes a request off the clock while `late` steps more are in flight than there are at schedule().
    pub(super) fn settle_late(&mut self, id: RequestId, tick: u64, late: u32) {
        let Some(&slot) = self.slots.get(&id) else { return };
        let sampled = self.sequence(slot).sampled;
        self.take_off(slot, tick);
        let sequence = self.sequence_mut(slot);
        if sequence.sampled != sampled {
            sequence.output -= late;
        }
    }

    /// Which try of a request is here, if one is.
    pub(super) fn attempt_of(&self, id: RequestId) -> Option<u32> {
        self.slots.get(&id).map(|&slot| self.sequence(slot).request.attempt)
    }

    /// When the last token of a request came out, if it is here and one has. `processed` is the tick whose output was processed
    /// last.
    pub(super) fn last_token_at(&self, id: RequestId, processed: i64) -> Option<Time> {
        let sequence = self.sequence(*self.slots.get(&id)?);
        sequence.first_token?;
        // Who has joined the clock only now has no token from it yet.
        let has_ticked = |offset: i64| offset + processed > i64::from(sequence.sampled);
        let by_clock = sequence.on_clock.is_some_and(has_ticked);
        Some(if by_clock { self.clock.last_token_at() } else { sequence.last_token })
    }

    pub(super) fn forget_off_clock(&mut self, slot: Slot) {
        if let Some(place) = self.clock.off.iter().position(|&other| other == slot) {
            self.clock.off.remove(place);
        }
    }

    /// Writes back what a sequence would have counted up by the time the step of `tick` is composed. Returns its
    /// part of the step before, unless it has joined only now.
    pub(super) fn settle_one(&mut self, slot: Slot, tick: u64) -> Option<Scheduled> {
        let in_flight = u32::from(self.config.async_scheduling);
        let last_token_at = self.clock.last_token_at();
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
        Some(self.decode_part(slot, computed - 1, sampled))
    }

    /// A plain decode with `before` tokens computed, which samples token number `sampled`.
    fn decode_part(&self, slot: Slot, before: u32, sampled: u32) -> Scheduled {
        let part = self.part(slot, 1, before, 0, false, self.config.blocks_for(before));
        Scheduled { sampled: 1, sampled_before: sampled - 1, ..part }
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
        let decodes = self.clock.phases.iter().flatten().map(|member| {
            let sequence = self.sequence(member.slot);
            let sampled = (sequence.on_clock.unwrap_or_default() + tick as i64) as u32;
            let before = sequence.request.prompt_tokens + sampled - 2;
            self.decode_part(member.slot, before, sampled)
        });
        whole.scheduled.extend(decodes);
        whole.scheduled.sort_by_key(|part| self.sequence(part.slot).admission);
        whole
    }
}
