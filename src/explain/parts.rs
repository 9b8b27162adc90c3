//! The parts of a request's latency. They sum to it, to the picosecond.

use std::ops::{AddAssign, Index, IndexMut, Sub};

use crate::time::Span;

/// What a request's time went to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// Tries that came to nothing, pauses between them, and waiting for the first of two copies.
    EarlierTries,
    /// Ways between client, gateway and replica.
    Network,
    /// Kept at the gateway: held by the policy, or between a decision and its effect.
    Router,
    /// The server's front end, before the engine and for each token on the way back.
    FrontEnd,
    /// Waiting for its first step, while steps held decodes alone or none was made.
    Queue,
    /// Prompts of others: waiting for its first step beside them, left out of a step for them, and what they add to the GPU time of
    /// steps it is part of.
    BehindPrefill,
    /// Its own prompt, at the price that the engine would ask were it alone.
    OwnPrefill,
    /// Of that, what another replica had cached when the request came.
    CacheMiss,
    /// Its decode steps, at the price that the engine would ask were it alone.
    Decode,
    /// What steps it was part of took longer than they would have for it alone, less what prompts of others added.
    SlowedByBatch,
    /// What its replica, slower than its card for a reason or by chance, took longer than that; below zero where it was quicker.
    SlowReplica,
    /// From losing its blocks to its next token.
    Preempted,
}

impl Part {
    /// All, in the order in which they are shown.
    pub const ALL: [Part; 12] = [
        Part::EarlierTries,
        Part::Network,
        Part::Router,
        Part::FrontEnd,
        Part::Queue,
        Part::BehindPrefill,
        Part::OwnPrefill,
        Part::CacheMiss,
        Part::Decode,
        Part::SlowedByBatch,
        Part::SlowReplica,
        Part::Preempted,
    ];

    /// The name in files.
    pub const fn key(self) -> &'static str {
        match self {
            Part::EarlierTries => "earlier_tries",
            Part::Network => "network",
            Part::Router => "router",
            Part::FrontEnd => "front_end",
            Part::Queue => "queue",
            Part::BehindPrefill => "behind_prefill",
            Part::OwnPrefill => "own_prefill",
            Part::CacheMiss => "cache_miss",
            Part::Decode => "decode",
            Part::SlowedByBatch => "slowed_by_batch",
            Part::SlowReplica => "slow_replica",
            Part::Preempted => "preempted",
        }
    }

    /// The name for people.
    pub const fn name(self) -> &'static str {
        match self {
            Part::EarlierTries => "earlier tries",
            Part::Network => "network",
            Part::Router => "kept at the router",
            Part::FrontEnd => "server's front end",
            Part::Queue => "queue",
            Part::BehindPrefill => "behind prompts of others",
            Part::OwnPrefill => "own prompt",
            Part::CacheMiss => "own prompt, cached elsewhere",
            Part::Decode => "decode, as if alone",
            Part::SlowedByBatch => "slowed by the batch",
            Part::SlowReplica => "slow replica",
            Part::Preempted => "preempted and recomputed",
        }
    }
}

/// An amount of each part, picoseconds. Differences may be below zero: a step beside others may be cheaper than its price alone,
/// where the host's work hides behind the step before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Parts([i64; Part::ALL.len()]);

impl Parts {
    /// Adds a length of time to a part.
    pub fn add(&mut self, part: Part, span: Span) {
        self[part] += span.as_ps() as i64;
    }

    /// The sum of all.
    pub fn total_ps(&self) -> i64 {
        self.0.iter().sum()
    }

    /// A part, milliseconds.
    pub fn ms(&self, part: Part) -> f64 {
        self[part] as f64 / 1e9
    }
}

impl Index<Part> for Parts {
    type Output = i64;

    fn index(&self, part: Part) -> &i64 {
        &self.0[part as usize]
    }
}

impl IndexMut<Part> for Parts {
    fn index_mut(&mut self, part: Part) -> &mut i64 {
        &mut self.0[part as usize]
    }
}

impl AddAssign for Parts {
    fn add_assign(&mut self, other: Parts) {
        self.0.iter_mut().zip(other.0).for_each(|(sum, part)| *sum += part);
    }
}

impl Sub for Parts {
    type Output = Parts;

    fn sub(self, other: Parts) -> Parts {
        Parts(std::array::from_fn(|index| self.0[index] - other.0[index]))
    }
}
