//! Engines of one server that share experts, and so every step.
//!
//! Where the experts of a model are spread over the data-parallel engines of a server, every layer waits for all of
//! them: an engine's k-th step is everybody's k-th step, and lasts as long as the slowest needs. An engine without
//! work computes a dummy token meanwhile, and looks for new requests between steps. Knows engines and the price of a
//! step together. Does not know who sends a request to which engine.
//!
//! After vLLM's `DPEngineCoreProc.run_busy_loop` (`vllm/v1/engine/core.py`). Left out: that engines agree only every
//! 32 steps that nobody has work, so that a few dummy steps more may stand between a burst and the next.

use std::sync::Arc;

use super::{EngineConfig, EngineEvent, Input, Limit, Replica};
use crate::observe::Silence;
use crate::signals::Signals;
use crate::step_time::{Batch, Decodes, StepTime};
use crate::time::{Span, Time};

/// What an engine without work computes.
const DUMMY: Batch<'static> =
    Batch { chunks: &[], decodes: Decodes { count: 1, context_sum: 1, context_max: 1 } };

/// Where an engine stands in the step that comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Turn {
    /// Not yet composed.
    Open,
    /// Composed.
    Step,
    /// Nothing to compute.
    Dummy,
}

/// The engines of one server, stepping together.
#[derive(Clone, Debug)]
pub struct Lockstep {
    engines: Vec<Replica>,
    turns: Vec<Turn>,
    step_time: Arc<dyn StepTime>,
    /// When the last common step ends.
    end: Time,
}

impl Lockstep {
    /// So many empty engines at time zero, all alike.
    pub fn new(config: &EngineConfig, step_time: &Arc<dyn StepTime>, engines: u32) -> Lockstep {
        let engine = || Replica::new(config.clone(), Arc::clone(step_time));
        Lockstep {
            engines: (0..engines).map(|_| engine()).collect(),
            turns: vec![Turn::Open; engines as usize],
            step_time: Arc::clone(step_time),
            end: Time::ZERO,
        }
    }

    /// As [`Replica::deliver`], to the engine of this rank.
    pub fn deliver(&mut self, rank: usize, at: Time, seq: u64, input: Input) {
        self.engines[rank].deliver(at, seq, input);
    }

    /// The gauges of the engine of this rank.
    pub fn signals(&self, rank: usize) -> Signals {
        self.engines[rank].signals()
    }

    /// Takes what has come out of the engine of this rank.
    pub fn take_events(&mut self, rank: usize) -> std::vec::Drain<'_, EngineEvent> {
        self.engines[rank].take_events()
    }

    /// Lives up to `until`: every schedule() call before it. Deliveries may lie at `until` or later.
    pub fn advance(&mut self, until: Time) {
        loop {
            if self.turns.iter().all(|turn| *turn == Turn::Dummy) {
                self.turns.fill(Turn::Open);
            }
            let all_idle = self.turns.iter().all(|turn| *turn == Turn::Open)
                && self.engines.iter().all(Replica::is_idle);
            let mut look = self.end;
            if all_idle {
                // Whoever gets the next request wakes the others.
                let Some(woken) = self.engines.iter().filter_map(Replica::next_input).min() else { return };
                look = look.max(woken);
            }
            self.compose(look, until);
            if self.turns.contains(&Turn::Open) {
                return;
            }
            if self.turns.contains(&Turn::Step) {
                self.compute();
            }
        }
    }

    /// Lets every engine compose the step that comes. One without work looks for requests at `look`, when the step
    /// before has ended.
    fn compose(&mut self, look: Time, until: Time) {
        for (engine, turn) in self.engines.iter_mut().zip(&mut self.turns) {
            while *turn == Turn::Open {
                let (steps, clock) = (engine.steps(), engine.clock());
                let limit = look.max(clock) + Span::from_ps(1);
                engine.advance(Limit::OneStep(steps, limit.min(until)), &mut Silence);
                if engine.steps() > steps {
                    *turn = Turn::Step;
                } else if engine.is_idle() && look < until {
                    *turn = Turn::Dummy;
                } else if engine.clock() == clock {
                    break;
                }
            }
        }
    }

    /// Prices the step that all have composed.
    fn compute(&mut self) {
        let composed = || self.engines.iter().zip(&self.turns);
        let batches: Vec<Batch<'_>> = composed()
            .map(|(engine, turn)| if *turn == Turn::Step { engine.newest_batch() } else { DUMMY })
            .map(|batch| if batch.tokens() > 0 { batch } else { DUMMY })
            .collect();
        let ready = composed().filter(|(_, turn)| **turn == Turn::Step).map(|(engine, _)| engine.clock());
        let start = ready.fold(self.end, Time::max);
        self.end = start + self.step_time.together(&batches);
        for (engine, turn) in self.engines.iter_mut().zip(&mut self.turns) {
            match turn {
                Turn::Step => engine.hold_newest_until(self.end),
                Turn::Dummy => engine.busy_until(self.end),
                Turn::Open => {}
            }
            *turn = Turn::Open;
        }
    }
}
