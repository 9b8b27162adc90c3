//! What comes out of steps: tokens are appended, requests end and give their blocks back.
//!
//! After `update_from_output` of `vllm/v1/core/sched/scheduler.py` and `async_scheduler.py`.

use super::kv_cache::Holding;
use super::scheduler::Scheduler;
use super::sequence::{Slot, State};
use super::step::Step;
use crate::request::{EngineOutcome, Finish, Ledger, Request, RequestId};
use crate::time::Time;

/// A token or an end that came out of a step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EngineEvent {
    /// A request's first token.
    FirstToken {
        /// Which request.
        id: RequestId,
        /// Which try at it.
        attempt: u32,
        /// When.
        at: Time,
    },
    /// A request ended.
    Ended(EngineOutcome),
}

impl EngineEvent {
    /// Which try at its request it is about.
    pub fn attempt(&self) -> u32 {
        match self {
            EngineEvent::FirstToken { attempt, .. } => *attempt,
            EngineEvent::Ended(outcome) => outcome.attempt,
        }
    }

    /// When it came out of the engine.
    pub fn at(&self) -> Time {
        match self {
            EngineEvent::FirstToken { at, .. } => *at,
            EngineEvent::Ended(outcome) => outcome.done,
        }
    }

    /// Which request it is about.
    pub fn id(&self) -> RequestId {
        match self {
            EngineEvent::FirstToken { id, .. } => *id,
            EngineEvent::Ended(outcome) => outcome.id,
        }
    }
}

impl Scheduler {
    /// Takes in the output of a step at `now`: appends tokens, ends requests, frees their blocks. `decodes` is
    /// how many got a token on the decode clock. `token` hears of every other request that got tokens and had
    /// some before, with the time of the last. Returns how many ended on the clock that are part of the step
    /// composed since.
    pub(super) fn process(
        &mut self,
        step: &Step,
        decodes: u32,
        now: Time,
        ledger: &Ledger,
        events: &mut Vec<EngineEvent>,
        mut token: impl FnMut(Time),
    ) -> u32 {
        if !step.scheduled.is_empty() || decodes > 0 {
            self.processed += 1;
            self.lift_fences();
        }
        self.totals.output_tokens += u64::from(decodes);
        let mut riders = 0;
        let mut ended_running = false;
        for part in &step.scheduled {
            let sequence = &mut self.sequences[part.slot as usize];
            let gone = sequence.serial != part.serial || sequence.state == State::Finished;
            if gone || part.sampled == 0 {
                continue;
            }
            let admission = sequence.admission;
            riders += self.process_ends(admission, now, ledger, events);
            let sequence = &mut self.sequences[part.slot as usize];
            let was_running = sequence.state == State::Running;
            let refused = part.drafts + 1 - part.sampled;
            if sequence.computed > 0 {
                sequence.computed -= refused;
            }
            if sequence.placeholders > 0 {
                sequence.placeholders -= refused;
            }
            let finish = self.append(part.slot, part.sampled);
            let sequence = &mut self.sequences[part.slot as usize];
            if sequence.first_token.is_none() {
                sequence.first_token = Some(now);
                sequence.ledger_at_first_token = *ledger;
                let attempt = sequence.request.attempt;
                events.push(EngineEvent::FirstToken { id: part.id, attempt, at: now });
            } else {
                token(sequence.last_token);
            }
            sequence.last_token = now;
            if self.config.async_scheduling && was_running {
                let sequence = self.sequence(part.slot);
                let certain = sequence.computed.saturating_sub(sequence.placeholders);
                self.register(part.slot, certain.min(sequence.known()));
            }
            match finish {
                Some(finish) => {
                    if was_running {
                        ended_running = true;
                    } else {
                        self.remove_from_waiting(part.slot);
                    }
                    self.finish(part.slot, finish, now, ledger, events);
                }
                None if !self.config.async_scheduling => {
                    let drafts = self.config.speculation.map_or(0, |s| s.num_speculative_tokens);
                    self.sequence_mut(part.slot).drafts = drafts;
                }
                None => {}
            }
        }
        if ended_running {
            let sequences = &self.sequences;
            self.running.retain(|&slot| sequences[slot as usize].state == State::Running);
        }
        riders + self.process_ends(u64::MAX, now, ledger, events)
    }

    /// Appends up to `sampled` tokens one by one; what follows a stop is dropped.
    pub(super) fn append(&mut self, slot: Slot, sampled: u32) -> Option<Finish> {
        let max_tokens = self.max_tokens(&self.sequence(slot).request);
        let max_model_len = self.config.max_model_len;
        let asynchronous = self.config.async_scheduling;
        let sequence = &mut self.sequences[slot as usize];
        for _ in 0..sampled {
            sequence.output += 1;
            self.totals.output_tokens += 1;
            if asynchronous {
                sequence.placeholders -= 1;
            }
            let by_length = sequence.known() >= max_model_len || sequence.output >= max_tokens;
            let by_stop_token = sequence.output >= sequence.request.output_tokens;
            if by_stop_token && max_tokens > sequence.request.output_tokens {
                return Some(Finish::Stop);
            }
            if by_length {
                return Some(Finish::Length);
            }
        }
        None
    }

    pub(super) fn max_tokens(&self, request: &Request) -> u32 {
        request.max_tokens.unwrap_or(self.config.max_model_len.saturating_sub(request.prompt_tokens))
    }

    /// Those who have not ended, in order of number.
    pub(super) fn unfinished(&self) -> Vec<RequestId> {
        let here = self.sequences.iter().filter(|sequence| sequence.state != State::Finished);
        let mut ids: Vec<RequestId> = here.map(|sequence| sequence.request.id).collect();
        ids.sort_unstable();
        ids
    }

    /// Ends a request whatever its state, before the step of `tick` is composed. Its blocks are free at once,
    /// unless a load is still filling them. Returns whether it was on the decode clock; none if it was not here.
    pub(super) fn end(
        &mut self,
        id: RequestId,
        finish: Finish,
        tick: u64,
        now: Time,
        ledger: &Ledger,
        events: &mut Vec<EngineEvent>,
    ) -> Option<bool> {
        let &slot = self.slots.get(&id)?;
        let was_on_clock = self.take_off(slot, tick);
        let state = self.sequence(slot).state;
        match state {
            State::Running => self.running.retain(|&other| other != slot),
            _ => self.remove_from_waiting(slot),
        }
        self.finish(slot, finish, now, ledger, events);
        Some(was_on_clock)
    }

    /// The load of a request's remote KV is done, whether it is still waited for or not.
    pub(super) fn load_finished(&mut self, id: RequestId) {
        if let Some(&slot) = self.slots.get(&id) {
            self.sequence_mut(slot).load_finished = true;
        } else if let Some(place) = self.loading.iter().position(|(loading, _)| *loading == id) {
            let (_, held) = self.loading.remove(place);
            self.cache.release(&held);
        }
    }

    /// Frees a request's blocks. Where a KV connector fills blocks and a step in flight may still write these,
    /// they wait for its output: the load would not be ordered against that write.
    pub(super) fn give_back(&mut self, slot: Slot) {
        let fences = self.config.async_scheduling && self.config.kv_load_delay_steps > 0;
        let sequence = &mut self.sequences[slot as usize];
        if fences && sequence.last_step > self.processed {
            let held = std::mem::take(&mut sequence.held);
            if !held.blocks.is_empty() {
                self.fenced.push_back((self.composed, held));
            }
            return;
        }
        self.cache.release(&sequence.held);
        sequence.held.clear();
    }

    fn lift_fences(&mut self) {
        while let Some((_, held)) = self.fenced.pop_front_if(|(fence, _)| *fence <= self.processed) {
            self.cache.release(&held);
        }
    }

    pub(super) fn remove_from_waiting(&mut self, slot: Slot) {
        let sequence = &self.sequences[slot as usize];
        self.waiting.remove(slot, sequence);
        self.skipped.remove(slot, sequence);
        self.waits_no_more(slot);
    }

    pub(super) fn begins_to_wait(&mut self, slot: Slot) {
        let tokens = self.sequence(slot).request.prompt_tokens;
        self.waiting_prompts.0 += u64::from(tokens);
        self.waiting_prompts.1 += u64::from(tokens.div_ceil(self.config.block_size));
    }

    pub(super) fn waits_no_more(&mut self, slot: Slot) {
        let tokens = self.sequence(slot).request.prompt_tokens;
        self.waiting_prompts.0 -= u64::from(tokens);
        self.waiting_prompts.1 -= u64::from(tokens.div_ceil(self.config.block_size));
    }

    pub(super) fn finish(
        &mut self,
        slot: Slot,
        finish: Finish,
        now: Time,
        ledger: &Ledger,
        events: &mut Vec<EngineEvent>,
    ) {
        let sequence = &mut self.sequences[slot as usize];
        let id = sequence.request.id;
        let loading = sequence.state == State::WaitingForRemoteKvs && !sequence.load_finished;
        sequence.state = State::Finished;
        let decode_parts =
            sequence.first_token.map_or(Ledger::default(), |_| ledger.since(&sequence.ledger_at_first_token));
        events.push(EngineEvent::Ended(EngineOutcome {
            id: sequence.request.id,
            attempt: sequence.request.attempt,
            queued: sequence.queued,
            scheduled: sequence.scheduled,
            first_token: sequence.first_token,
            done: now,
            output_tokens: sequence.output,
            cached_tokens: sequence.cached_tokens,
            preemptions: sequence.preemptions,
            decode_parts,
            finish,
        }));
        self.slots.remove(&sequence.request.id);
        self.totals.successes += u64::from(finish.is_complete());
        if loading {
            let held: Holding = std::mem::take(&mut sequence.held);
            self.loading.push((id, held));
        } else {
            self.give_back(slot);
        }
        self.forget_off_clock(slot);
        self.vacant.push(slot);
        self.unflushed_ends = true;
    }
}
