//! Randomness: one seed, one independent stream for each purpose and index.
//!
//! Knows how a stream is derived. Does not know what is drawn from it. A new consumer takes a purpose of
//! its own, so it changes no draw of another (law 8). The generator is named (xoshiro256++), because
//! `rand`'s `StdRng` may change between versions and with it every result.

use rand::SeedableRng;
use rand_xoshiro::Xoshiro256PlusPlus;
use serde::{Deserialize, Serialize};

/// The generator of every stream.
pub type Stream = Xoshiro256PlusPlus;

/// The number at the top of a scenario from which all randomness of a run follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seed(pub u64);

/// What a stream is for. Adding one changes no other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// One repetition of a study; its index is the repetition.
    Repetition,
    /// Gaps between arrivals.
    Arrivals,
    /// Prompt lengths.
    PromptTokens,
    /// Output lengths.
    OutputTokens,
    /// Which shared prefix a request opens with.
    Prefixes,
    /// Choices of a gateway's policy; its index is the gateway.
    Routing,
    /// When each gateway's first poll falls.
    PollPhase,
    /// Errors of predicted output lengths.
    Prediction,
    /// Which parts of a trace a repetition replays.
    Resampling,
    /// Bootstrap draws of a study's intervals.
    Bootstrap,
    /// Factors drawn from a calibration; its index is the draw.
    Calibration,
    /// Whether a session of a trace is sampled; its index is the session.
    Sampling,
    /// Where in the grid of its time a request of a trace really came.
    Spreading,
    /// When sessions of a trace begin that does not say it.
    SessionStarts,
    /// Think time between turns; its index is the session or user.
    ThinkTime,
    /// How many turns a session has.
    Turns,
    /// Which class a request belongs to.
    Classes,
    /// Which pair of lengths is taken from a trace.
    PairedLengths,
    /// Rates that change by chance.
    Modulation,
    /// When a gateway tries what it would not have chosen; its index is the gateway.
    Exploration,
    /// Which scrapes of gauges are lost; its index is the poll's moment and gateway.
    PollLoss,
    /// Which KV events are lost; its index is the gateway.
    EventLoss,
    /// Where in its range a key of a sweep lies; its index is the key.
    Sweep,
    /// When each gateway's first health check falls.
    CheckPhase,
    /// When something happens by chance, and to whom; its index is the incident.
    Incidents,
    /// How long a pause before another try is; its index is the request and the try.
    Backoff,
    /// When the first scrape for an autoscaler falls.
    ScrapePhase,
    /// Which messages get lost on their way; its index is the request, the try and the way.
    PacketLoss,
    /// How single steps scatter around their price; its index is the replica.
    StepJitter,
    /// Which requests that can wait are refused before a fleet is saturated.
    Shedding,
}

impl Seed {
    /// The stream for `purpose`, number `index`.
    pub fn stream(self, purpose: Purpose, index: u64) -> Stream {
        Stream::seed_from_u64(self.derive(purpose, index).0)
    }

    /// A seed of its own for `purpose`, number `index`: for a part that has streams in turn.
    pub fn derive(self, purpose: Purpose, index: u64) -> Seed {
        Seed(mix(mix(mix(self.0) ^ (purpose as u64 + 1)) ^ index))
    }
}

/// A bijection of 64 bits in which every input bit moves about half of the output bits
/// (the finaliser of SplitMix64; Steele, Lea and Flood, OOPSLA 2014).
pub const fn mix(value: u64) -> u64 {
    let z = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use rand::Rng;

    use super::*;

    #[test]
    fn streams_differ_and_repeat() {
        let draw = |seed: u64, purpose, index| Seed(seed).stream(purpose, index).next_u64();
        let first = draw(1, Purpose::Arrivals, 0);
        assert_eq!(first, draw(1, Purpose::Arrivals, 0));
        assert_ne!(first, draw(2, Purpose::Arrivals, 0));
        assert_ne!(first, draw(1, Purpose::PromptTokens, 0));
        assert_ne!(first, draw(1, Purpose::Arrivals, 1));
    }
}
