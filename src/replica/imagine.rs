//! What would come next: copies of an engine that run ahead, with true output lengths or with guessed ones.
//!
//! A side-car of an engine sees its queues, how far each request is and what is cached, and simulates on from there
//! (Block, arXiv 2508.03611). It does not see which output token will be the last, so the copy it runs has lengths of its own.

use std::cmp::Reverse;

use super::decode_clock::End;
use super::engine::Engine;
use super::scheduler::Scheduler;
use super::sequence::State;
use super::{EngineEvent, Input, Limit, Replica};
use crate::observe::Silence;
use crate::request::{Finish, RequestId};
use crate::time::Time;

/// Who guesses lengths: (request, tokens sampled so far) -> tokens in all.
pub type Lengths<'a> = &'a mut dyn FnMut(RequestId, u32) -> u32;

impl Replica {
    /// A copy in which every request that is here, or on its way here, will be as long as `lengths` says, and at least one
    /// token longer than it is by now. Who has reached a limit that the scheduler foresees ends by it as before.
    pub fn imagined(&self, lengths: Lengths<'_>) -> Replica {
        let mut copy = self.clone();
        copy.set_check(false);
        // Nobody foresees how long the next steps take beyond their price.
        copy.engine.jitter = None;
        copy.engine.imagine(lengths);
        for (_, _, input) in copy.inbox.entries_mut() {
            if let Input::Add(request) = input {
                let limit = request.max_tokens.unwrap_or(u32::MAX);
                request.output_tokens = lengths(request.id, 0).clamp(1, limit.max(1));
            }
        }
        copy
    }

    /// Runs on until request `id` has ended; none if that is after `until`, or never, or because the process died.
    pub fn end_of(&mut self, id: RequestId, until: Time) -> Option<Time> {
        loop {
            for event in self.events.drain(..) {
                if let EngineEvent::Ended(outcome) = event
                    && outcome.id == id
                {
                    return (outcome.finish != Finish::Lost).then_some(outcome.done);
                }
            }
            let next = self.next_completion().filter(|&next| next <= until)?;
            self.advance(Limit::Time(next), &mut Silence);
        }
    }

    /// Runs on until everybody has ended, and tells of each end.
    pub fn ends(&mut self, mut ended: impl FnMut(RequestId, Time)) {
        loop {
            for event in self.events.drain(..) {
                if let EngineEvent::Ended(outcome) = event {
                    ended(outcome.id, outcome.done);
                }
            }
            let Some(next) = self.next_completion() else { return };
            self.advance(Limit::Time(next), &mut Silence);
        }
    }
}

impl Engine {
    fn imagine(&mut self, lengths: Lengths<'_>) {
        let tick = self.steps;
        self.scheduler.imagine(tick, lengths);
    }
}

impl Scheduler {
    /// `tick` is the next to be composed.
    fn imagine(&mut self, tick: u64, lengths: Lengths<'_>) {
        for slot in 0..self.sequences.len() {
            let sequence = &self.sequences[slot];
            if sequence.state == State::Finished {
                continue;
            }
            let sampled = match sequence.on_clock {
                Some(offset) => (offset + tick as i64 - 1) as u32,
                None => sequence.sampled,
            };
            let room = self.config.max_model_len.saturating_sub(sequence.request.prompt_tokens);
            let limit = self.max_tokens(&sequence.request).min(room);
            // Who has sampled all it may ends by that, whether it has stopped before in truth or not.
            self.sequences[slot].request.output_tokens = match sampled < limit {
                true => lengths(sequence.request.id, sampled).clamp(sampled + 1, limit),
                false => limit.max(1),
            };
        }
        // Who ends unforeseen is still part of every step, so its end moves to where it is imagined.
        let members: Vec<_> = self.clock.phases.iter().flatten().copied().collect();
        self.clock.ending.retain(|end| members.iter().all(|member| member.slot != end.slot));
        self.clock.ends.clear();
        for member in members {
            let sequence = self.sequence(member.slot);
            let offset = sequence.on_clock.unwrap_or_default();
            let (outputs, _) = self.outputs_of(sequence);
            let tick = (i64::from(outputs) - offset) as u64;
            let end = End { tick, admission: member.admission, slot: member.slot, serial: sequence.serial };
            self.clock.ends.push(Reverse(end));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;

    use super::*;
    use crate::replica::EngineConfig;
    use crate::request::{Content, ContentRun, Request};
    use crate::step_time::affine::Affine;
    use crate::time::Span;

    fn replica(blocks: u32, asynchronous: bool) -> Replica {
        let config = EngineConfig {
            async_scheduling: asynchronous,
            empty_step_sleep: Span::ZERO,
            ..EngineConfig::plain(blocks, 256, 12, 500)
        };
        let step_time = Affine {
            base: Span::from_ms(5),
            per_token: Span::from_us(30),
            per_context_token: Span::from_ns(25),
            host: Span::from_us(200),
        };
        Replica::new(config, Arc::new(step_time))
    }

    fn request(id: u32, prompt_tokens: u32, output_tokens: u32, max_tokens: Option<u32>) -> Request {
        Request {
            id: RequestId(id),
            prompt_tokens,
            output_tokens,
            max_tokens,
            priority: 0,
            attempt: 0,
            arrival_order: u64::from(id),
            content: Content::from_runs([ContentRun { stream: u64::from(id % 3), position: 0, tokens: 64 }]),
            remote_tokens: 0,
        }
    }

    fn all_ends(mut replica: Replica) -> Vec<(RequestId, Time)> {
        let mut ends = Vec::new();
        replica.ends(|id, at| ends.push((id, at)));
        ends.sort_unstable();
        ends
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

        /// With the true lengths a copy ends everybody when the engine does, whenever it was taken: on the clock, in the
        /// middle of prefills, under pressure. With other lengths it does what an engine does that had them from the start
        /// and has looked the same so far.
        #[test]
        fn a_copy_with_the_same_lengths_is_the_same(
            sizes in prop::collection::vec((1u32..300, 1u32..120, 0u64..400, prop::option::of((1u32..150, any::<bool>()))), 1..25),
            blocks in 40u32..160, asynchronous in any::<bool>(), look_ms in 0u64..1_200, longer in 0u32..90,
        ) {
            let mut engine = replica(blocks, asynchronous);
            let mut other = engine.clone();
            let true_length = |id: RequestId| sizes[id.0 as usize].1;
            // A limit one token behind the true end is reached by the step that is in flight when the end comes out.
            let mut knowable = true;
            for (id, &(prompt, output, at_ms, limit)) in sizes.iter().enumerate() {
                let at = Time::ZERO + Span::from_ms(at_ms);
                // Limits anywhere, and limits just behind the end.
                let limit = limit.map(|(limit, near)| if near { output + limit % 4 } else { limit });
                knowable &= limit != Some(output + 1);
                engine.deliver(at, id as u64, Input::Add(request(id as u32, prompt, output, limit)));
                other.deliver(at, id as u64, Input::Add(request(id as u32, prompt, output + longer, limit)));
            }
            let look = Time::ZERO + Span::from_ms(look_ms);
            engine.advance(Limit::Time(look), &mut Silence);
            other.advance(Limit::Time(look), &mut Silence);
            let ended: Vec<_> = engine.take_events().filter(|event| matches!(event, EngineEvent::Ended(_))).collect();
            // Nobody can know of an end that is in flight, so then the copy is later.
            let mut all_to_come = true;
            let imagined = engine.imagined(&mut |id, sampled| {
                all_to_come &= sampled < true_length(id);
                true_length(id)
            });
            let (truth, copy) = (all_ends(engine.clone()), all_ends(imagined));
            prop_assert_eq!(ended.len() + copy.len(), sizes.len());
            if all_to_come && knowable {
                prop_assert_eq!(truth, copy);
            }
            let seen_of_other: Vec<_> = other.take_events().filter(|event| matches!(event, EngineEvent::Ended(_))).collect();
            if ended.is_empty() && seen_of_other.is_empty() && longer > 4 {
                let with_longer = engine.imagined(&mut |id, _| true_length(id) + longer);
                prop_assert_eq!(all_ends(with_longer), all_ends(other));
            }
        }
    }
}
