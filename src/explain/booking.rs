//! Where the time of one replica's requests goes, step by step.
//!
//! A recorder beside an engine. Time between two processed outputs belongs to the step whose output ends it. Whoever is here books
//! it: who was in the step, by what the step would have taken alone and why it took longer; who was not, by what kept it waiting.

use std::collections::{BTreeMap, VecDeque};

use super::alone::Alone;
use super::parts::{Part, Parts};
use crate::replica::{EngineEvent, Jitter, Recorder, Scheduled, Scheduler, Step};
use crate::request::{EngineOutcome, RequestId};
use crate::router::Facts;
use crate::signals::Signals;
use crate::step_time::{Batch, Chunk, Decodes, StepCost};
use crate::time::{Span, Time};

/// An ended request's time in its engine.
#[derive(Clone, Debug)]
pub(super) struct Booked {
    /// What the engine says of it.
    pub(super) outcome: EngineOutcome,
    /// From its delivery to its first token.
    pub(super) before_first_token: Parts,
    /// From its delivery to its end.
    pub(super) parts: Parts,
    /// Its prompt as it was computed, up to the first token.
    pub(super) chunks: Vec<Chunk>,
    pub(super) surroundings: Surroundings,
}

/// What was around a request.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Surroundings {
    /// The replica's gauges when it came.
    pub(super) at_delivery: Signals,
    /// Prompt tokens of others in the steps that it waited for.
    pub(super) prompt_tokens_ahead: u64,
    /// Steps in which it decoded.
    pub(super) decode_steps: u64,
    /// Sum over them of the sequences that decoded.
    pub(super) decoding_beside: u64,
}

/// A try at a request: who comes again may be on its way here before its engine knows that the try before was given up.
type Key = (RequestId, u32);

/// A try that is here, or nearly.
struct Live {
    booked_until: Time,
    parts: Parts,
    before_first_token: Option<Parts>,
    /// The first step that it was part of.
    first_step: Option<u64>,
    /// The step that took its blocks, and the one that sampled its next token; none yet is for ever.
    recovering: Option<(u64, u64)>,
    alone: Alone,
    chunks: Vec<Chunk>,
    surroundings: Surroundings,
}

impl Live {
    fn is_recovering_in(&self, step: u64) -> bool {
        self.recovering.is_some_and(|(from, to)| (from..=to).contains(&step))
    }
}

/// One request's part of a step in flight.
struct PartOfStep {
    key: Key,
    is_prompt: bool,
    /// GPU time of the step without prompts of others.
    without_prompts: Span,
}

struct InFlight {
    index: u64,
    /// At the pace of its card.
    gpu: Span,
    /// What the pace of its replica adds to that, and chance; below zero if that is quicker.
    paced_ps: i64,
    prompt_tokens: u64,
    decodes: u32,
    parts: Vec<PartOfStep>,
}

/// The recorder.
pub(super) struct Booking<'a> {
    facts: &'a Facts,
    jitter: Option<Jitter>,
    live: BTreeMap<Key, Live>,
    in_flight: VecDeque<InFlight>,
    /// Orders of another pace, soonest first, and the pace that holds: so many thousandths.
    paces: VecDeque<(Time, u32)>,
    per_mille: u32,
    pub(super) ended: Vec<Booked>,
}

impl<'a> Booking<'a> {
    pub(super) fn new(facts: &'a Facts, jitter: Option<Jitter>) -> Booking<'a> {
        Booking {
            facts,
            jitter,
            live: BTreeMap::new(),
            in_flight: VecDeque::new(),
            paces: VecDeque::new(),
            per_mille: 1_000,
            ended: Vec::new(),
        }
    }

    /// A try is on its way into the engine.
    pub(super) fn delivered(&mut self, key: Key, at: Time, at_delivery: Signals) {
        let live = Live {
            booked_until: at,
            parts: Parts::default(),
            before_first_token: None,
            first_step: None,
            recovering: None,
            alone: Alone::new(self.facts.engine.async_scheduling),
            chunks: Vec::new(),
            surroundings: Surroundings { at_delivery, ..Surroundings::default() },
        };
        self.live.insert(key, live);
    }

    /// From `at` on, steps take so many thousandths of what they would on its card.
    pub(super) fn paced(&mut self, at: Time, per_mille: u32) {
        self.paces.push_back((at, per_mille));
    }

    /// The try that the engine has: of several the first.
    fn key_of(&self, id: RequestId) -> Option<Key> {
        self.live.range((id, 0)..=(id, u32::MAX)).next().map(|(key, _)| *key)
    }

    fn cost(&self, chunks: &[Chunk], decodes: Decodes) -> StepCost {
        self.facts.step_time.cost(&Batch { chunks, decodes })
    }

    /// Books the time up to `at` to somebody who was in the step.
    fn book_part(live: &mut Live, at: Time, step: &InFlight, part: &PartOfStep) {
        let took = at - live.booked_until;
        let alone = live.alone.process();
        live.booked_until = at;
        if live.is_recovering_in(step.index) {
            live.parts.add(Part::Preempted, took);
            return;
        }
        live.parts.add(if part.is_prompt { Part::OwnPrefill } else { Part::Decode }, alone);
        let by_prompts = step.gpu.saturating_sub(part.without_prompts).min(took.saturating_sub(alone));
        live.parts.add(Part::BehindPrefill, by_prompts);
        let rest_ps = took.as_ps() as i64 - (alone + by_prompts).as_ps() as i64;
        // No more than there is, and nothing that is not there.
        let by_pace_ps = step.paced_ps.clamp(rest_ps.min(0), rest_ps.max(0));
        live.parts[Part::SlowReplica] += by_pace_ps;
        live.parts[Part::SlowedByBatch] += rest_ps - by_pace_ps;
        if !part.is_prompt {
            live.surroundings.decode_steps += 1;
            live.surroundings.decoding_beside += u64::from(step.decodes);
        }
    }

    /// The same of somebody who was not.
    fn book_wait(live: &mut Live, at: Time, step: &InFlight) {
        let took = at - live.booked_until;
        live.booked_until = at;
        let waits_for_first = live.first_step.is_none_or(|first| first > step.index);
        if waits_for_first {
            live.surroundings.prompt_tokens_ahead += step.prompt_tokens;
        }
        let part = match (live.is_recovering_in(step.index), step.prompt_tokens > 0) {
            (true, _) => Part::Preempted,
            (_, true) => Part::BehindPrefill,
            _ if waits_for_first => Part::Queue,
            _ => Part::SlowedByBatch,
        };
        live.parts.add(part, took);
    }
}

/// Whether a chunk is of a prompt, or of what was computed again after a preemption; otherwise drafts are verified.
fn is_prompt(part: &Scheduled) -> bool {
    part.drafts == 0
}

impl Recorder for Booking<'_> {
    fn scheduled(&mut self, index: u64, at: Time, step: &Step, scheduler: &Scheduler) {
        while let Some((_, per_mille)) = self.paces.pop_front_if(|(since, _)| *since <= at) {
            self.per_mille = per_mille;
        }
        for id in &step.preempted {
            if let Some(live) = self.key_of(*id).and_then(|key| self.live.get_mut(&key)) {
                live.recovering = Some((index, u64::MAX));
            }
        }
        let (mut prompts, mut drafts, mut decodes) = (Vec::new(), Vec::new(), Decodes::default());
        for part in &step.scheduled {
            match scheduler.chunk_of(part) {
                Some(chunk) if is_prompt(part) => prompts.push(chunk),
                Some(chunk) => drafts.push(chunk),
                None => decodes.add(part.before + part.tokens),
            }
        }
        let everybody: Vec<Chunk> = prompts.iter().chain(&drafts).copied().collect();
        let gpu = self.cost(&everybody, decodes).gpu;
        let no_prompts = match prompts.is_empty() {
            true => gpu,
            false => self.cost(&drafts, decodes).gpu,
        };
        let mut parts = Vec::with_capacity(step.scheduled.len());
        for part in &step.scheduled {
            let Some(key) = self.key_of(part.id) else { continue };
            let chunk = scheduler.chunk_of(part);
            let is_prompt = chunk.is_some() && is_prompt(part);
            let alone = match chunk {
                Some(chunk) => self.cost(&[chunk], Decodes::default()),
                None => {
                    let mut own = Decodes::default();
                    own.add(part.before + part.tokens);
                    self.cost(&[], own)
                }
            };
            let without_prompts = match chunk {
                Some(own) if is_prompt && prompts.len() > 1 => {
                    let rest: Vec<Chunk> = drafts.iter().copied().chain([own]).collect();
                    self.cost(&rest, decodes).gpu
                }
                _ if is_prompt => gpu,
                _ => no_prompts,
            };
            let Some(live) = self.live.get_mut(&key) else { continue };
            live.first_step.get_or_insert(index);
            live.alone.compose(alone);
            if let (Some(chunk), true, None) = (chunk, is_prompt, live.recovering) {
                live.chunks.push(chunk);
            }
            if let Some((_, to)) = &mut live.recovering
                && *to == u64::MAX
                && part.sampled > 0
            {
                *to = index;
            }
            parts.push(PartOfStep { key, is_prompt, without_prompts });
        }
        let prompt_tokens = prompts.iter().map(|chunk| u64::from(chunk.tokens)).sum();
        let mut cost = StepCost { gpu: gpu.scale(u64::from(self.per_mille), 1_000), host: Span::ZERO };
        if let Some(jitter) = &self.jitter {
            cost = jitter.of(index, cost);
        }
        let paced_ps = cost.gpu.as_ps() as i64 - gpu.as_ps() as i64;
        let decodes = decodes.count;
        self.in_flight.push_back(InFlight { index, gpu, paced_ps, prompt_tokens, decodes, parts });
    }

    fn processed(&mut self, index: u64, at: Time, events: &[EngineEvent], _scheduler: &Scheduler) {
        let Some(step) = self.in_flight.pop_front() else { return };
        debug_assert_eq!(step.index, index, "outputs are processed in order");
        for part in &step.parts {
            if let Some(live) = self.live.get_mut(&part.key) {
                Self::book_part(live, at, &step, part);
            }
        }
        // Whoever was in the step is booked up to now; whoever is on its way here books from its delivery on.
        for live in self.live.values_mut().filter(|live| live.booked_until < at) {
            Self::book_wait(live, at, &step);
        }
        for event in events {
            match event {
                EngineEvent::FirstToken { id, attempt, .. } => {
                    if let Some(live) = self.live.get_mut(&(*id, *attempt)) {
                        live.before_first_token = Some(live.parts);
                    }
                }
                EngineEvent::Ended(outcome) => {
                    let Some(live) = self.live.remove(&(outcome.id, outcome.attempt)) else { continue };
                    self.ended.push(Booked {
                        outcome: outcome.clone(),
                        before_first_token: live.before_first_token.unwrap_or_default(),
                        parts: live.parts,
                        chunks: live.chunks,
                        surroundings: live.surroundings,
                    });
                }
            }
        }
    }

    fn load_finished(&mut self, _id: RequestId) {}

    fn aborted(&mut self, id: RequestId) {
        if let Some(key) = self.key_of(id) {
            self.live.remove(&key);
        }
    }

    fn crashed(&mut self) {
        self.live.clear();
        self.in_flight.clear();
    }
}
