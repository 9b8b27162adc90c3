//! vLLM's own front end: which data-parallel engine of a server gets a request.
//!
//! Engines of a dense model run apart; those of a model with experts step together. The engine with the lowest
//! 4 x waiting + running gets the next request, the first in rank order among equals; the front end then counts one
//! more waiting there, until the next publication replaces all its counts. Engines of a model with experts report
//! their counts, which are published every 100 ms; those of a dense model never do, and zeros are published every 5 s.
//! After `vllm/v1/engine/core_client.py` and `coordinator.py`, with one API server. Left out: that a publication may
//! wait up to 50 ms for reports of one step.

use std::sync::Arc;

use super::server::Server;
use crate::observe::Silence;
use crate::replica::lockstep::Lockstep;
use crate::replica::{EngineEvent, Input, Limit, Replica};
use crate::request::{EngineOutcome, Request};
use crate::signals::Signals;
use crate::time::{Span, Time};

/// Between publications of counts that engines report.
const REPORTED_INTERVAL: Span = Span::from_ms(100);
/// Between publications of counts that nobody reports.
const UNREPORTED_INTERVAL: Span = Span::from_ms(5000);
/// A waiting request counts as so many running ones.
const WAITING_WEIGHT: u32 = 4;

#[derive(Clone, Debug)]
enum Engines {
    Apart(Vec<Replica>),
    Together(Lockstep),
}

/// A server: its engines, and who shares requests out among them.
#[derive(Clone, Debug)]
pub struct FrontEnd {
    engines: Engines,
    /// Waiting and running on each engine, as far as the front end knows.
    counts: Vec<(u32, u32)>,
    interval: Span,
    published: u64,
    sent: u64,
}

impl FrontEnd {
    /// A server without requests at time zero.
    pub fn new(server: &Server) -> FrontEnd {
        let ranks = server.data_parallel_size;
        let together = server.shares_experts && ranks > 1;
        let apart = || Replica::new(server.engine.clone(), Arc::clone(&server.step_time));
        FrontEnd {
            engines: if together {
                Engines::Together(Lockstep::new(&server.engine, &server.step_time, ranks))
            } else {
                Engines::Apart((0..ranks).map(|_| apart()).collect())
            },
            counts: vec![(0, 0); ranks as usize],
            interval: if together { REPORTED_INTERVAL } else { UNREPORTED_INTERVAL },
            published: 0,
            sent: 0,
        }
    }

    /// Sends a request that reaches its engine at `at`, not before those sent earlier; to the engine of this rank, if
    /// one is given.
    pub fn send(&mut self, at: Time, rank: Option<u32>, request: Request) {
        let rank = match rank {
            _ if self.counts.len() == 1 => 0,
            Some(rank) => rank as usize,
            None => self.choose(at),
        };
        let input = Input::Add(request);
        match &mut self.engines {
            Engines::Apart(replicas) => replicas[rank].deliver(at, self.sent, input),
            Engines::Together(lockstep) => lockstep.deliver(rank, at, self.sent, input),
        }
        self.sent += 1;
    }

    fn choose(&mut self, at: Time) -> usize {
        let publication = (at - Time::ZERO).as_ps() / self.interval.as_ps();
        if publication > self.published {
            self.published = publication;
            self.advance(Time::ZERO + self.interval * publication);
            let signals = |rank| match &self.engines {
                Engines::Apart(_) => Signals::default(),
                Engines::Together(lockstep) => lockstep.signals(rank),
            };
            let counts = (0..self.counts.len()).map(signals);
            self.counts = counts.map(|signals| (signals.waiting, signals.running)).collect();
        }
        self.advance(at);
        let score = |rank: &usize| WAITING_WEIGHT * self.counts[*rank].0 + self.counts[*rank].1;
        let rank = (0..self.counts.len()).min_by_key(score).expect("a server has an engine");
        self.counts[rank].0 += 1;
        rank
    }

    fn advance(&mut self, until: Time) {
        match &mut self.engines {
            // Nobody looks at them.
            Engines::Apart(_) => {}
            Engines::Together(lockstep) => lockstep.advance(until),
        }
    }

    /// Serves all that was sent; what became of each request, with the rank that served it, in order of request.
    pub fn finish(mut self) -> Vec<(usize, EngineOutcome)> {
        self.advance(Time::MAX);
        let mut outcomes = Vec::new();
        for rank in 0..self.counts.len() {
            let events: Vec<EngineEvent> = match &mut self.engines {
                Engines::Apart(replicas) => {
                    replicas[rank].advance(Limit::Time(Time::MAX), &mut Silence);
                    replicas[rank].take_events().collect()
                }
                Engines::Together(lockstep) => lockstep.take_events(rank).collect(),
            };
            outcomes.extend(events.into_iter().filter_map(|event| match event {
                EngineEvent::Ended(outcome) => Some((rank, outcome)),
                EngineEvent::FirstToken { .. } => None,
            }));
        }
        outcomes.sort_by_key(|(_, outcome)| outcome.id);
        outcomes
    }
}
