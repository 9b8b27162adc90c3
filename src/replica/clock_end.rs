//! Ends of requests on the decode clock.

use std::cmp::Reverse;

use super::decode_clock::{Member, context_offset};
use super::output::EngineEvent;
use super::scheduler::Scheduler;
use super::sequence::Slot;
use crate::request::{Finish, Ledger};
use crate::time::Time;

impl Scheduler {
    /// Ends of the step of `tick` are the next to be processed; those foreseen are not composed any more.
    pub(super) fn take_due(&mut self, tick: u64) {
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
    pub(super) fn forget_who_left(&mut self) {
        while let Some(Reverse(end)) = self.clock.ends.peek() {
            let sequence = &self.sequences[end.slot as usize];
            if sequence.serial == end.serial && sequence.on_clock.is_some() {
                break;
            }
            self.clock.ends.pop();
        }
    }

    /// A sequence decodes on the clock no more.
    pub(super) fn leave_composition(&mut self, slot: Slot) {
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
            let longest_of = |members: &Vec<Member>| members.iter().map(|member| member.context_offset).max();
            clock.longest_offset = clock.phases.iter().filter_map(longest_of).max().unwrap_or_default();
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
}
