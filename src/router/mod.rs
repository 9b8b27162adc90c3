//! Which replica? One policy, one file.
//!
//! Knows what a gateway knows: arrivals, its own counts, gauges as old as the scenario says. Does not know
//! true output lengths or replicas; the types make sure of it (law 6).

use crate::random::{Purpose, Seed, Stream};
use crate::request::{Arrival, RequestId};
use crate::signals::Glimpse;
use crate::time::{Span, Time};

pub mod approximate_prefix;
pub mod belief;
pub mod cache_aware;
pub mod candidates;
pub mod characters;
pub mod drain_time;
pub mod dynamo_kv;
pub mod epp;
pub mod epp_precise;
pub mod epp_weighted;
pub mod estimated_ttft;
pub mod expected_wait;
pub mod free_blocks_per_request;
pub mod hit_minus_load;
pub mod in_flight;
pub mod in_flight_tokens;
pub mod join_idle_queue;
pub mod judged;
pub mod kv_index;
pub mod latency_average;
pub mod latency_model;
pub mod least_kv;
pub mod least_queue;
pub mod least_request;
pub mod least_tokens;
pub mod lmetric;
pub mod median;
pub mod oracle_min_latency;
pub mod orca_weighted;
pub mod peak_ewma;
pub mod policies;
pub mod power_of_two;
pub mod preble_e2;
pub mod predicted_completion;
pub mod predicted_latency;
pub mod prefix_hash_bounded;
pub mod prefix_sigma;
pub mod prefix_tiered;
pub mod prefix_trie;
pub mod prefix_two_choice;
pub mod prequal;
pub mod prices;
pub mod products;
pub mod random;
pub mod ring;
pub mod round_robin;
pub mod script;
pub mod scripting;
pub mod session_hash;
pub mod session_sticky;
pub mod simulate_ahead;
pub mod sticky_until_saturated;
#[cfg(test)]
mod tests;
pub mod view;
pub mod vllm_dp;
pub mod weighted_round_robin;

pub use candidates::Candidates;
pub use policies::{COMPARED, POLICIES, PolicyError, PolicyInfo};
pub use view::{Facts, Impairments, View};

/// Index of a replica behind a gateway.
pub type Server = usize;

/// What a policy answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Send it there.
    Send(Server),
    /// Keep it at the gateway; it is asked about again whenever a response has been heard.
    Hold,
    /// Refuse it: the client gets an error at once.
    Reject,
}

/// What a gateway counts itself about one replica.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Mine {
    /// Requests sent there whose end has not been heard.
    pub in_flight: u32,
    /// How many were in flight when its gauges were last reported.
    pub in_flight_at_report: u32,
    /// Requests sent there since then.
    pub sent_since_report: u32,
}

/// What a policy may look at while it decides.
pub trait Glance {
    /// The moment of the decision.
    fn now(&self) -> Time;
    /// How many replicas there are, whether they may be chosen or not: 0 .. servers().
    fn servers(&self) -> usize;
    /// Those that may be chosen.
    fn candidates(&self) -> Candidates;
    /// What the operator knows of a replica: flags and card.
    fn facts(&self, server: Server) -> &Facts;
    /// Its gauges, as fresh or as stale as the scenario says.
    fn signals(&mut self, server: Server) -> Glimpse;
    /// This gateway's own counts.
    fn mine(&self, server: Server) -> Mine;
    /// Its gauges as of now, whatever the scenario says: the answer to a probe of the policy's own.
    fn probe(&mut self, server: Server) -> Glimpse;
    /// Leading prompt tokens in its prefix cache, as an index of its KV events has them: as late as the scenario says.
    fn cached_tokens(&mut self, server: Server, arrival: &Arrival) -> u32;
    /// When this request would end there if nobody came after it, by a copy of the engine that a side-car runs ahead with
    /// predicted lengths; none if that is after `until`.
    fn completion_ahead(
        &mut self,
        server: Server,
        arrival: &Arrival,
        assumed: Assumed,
        until: Time,
    ) -> Option<Time>;
    /// The same of all who are there, with or without this request: the sum of times until they end, in picoseconds.
    fn completions_ahead(&mut self, server: Server, arrival: Option<&Arrival>, assumed: Assumed) -> u128;
    /// This gateway's number, and how many there are.
    fn gateway(&self) -> (u32, u32);
}

/// What a side-car takes lengths to be that no predictor has told it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Assumed {
    /// Output tokens of a request without a prediction.
    pub output_tokens: u32,
    /// Tokens still to come of a request that is longer than predicted.
    pub exceeded_tokens: u32,
}

/// What no gateway has: the truth. Policies that use it are bounds, and results say so.
pub trait Clairvoyance: Glance {
    /// When the request being decided would end there if nobody came after it; none if that is after `until`, or never.
    fn true_completion(&mut self, server: Server, until: Time) -> Option<Time>;
}

/// What a gateway hears of the requests it sent, when it hears it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Feedback {
    /// The first token passed through.
    FirstToken {
        /// Which request.
        id: RequestId,
        /// From where.
        server: Server,
        /// When.
        at: Time,
    },
    /// The answer is whole.
    Completed {
        /// Which request.
        id: RequestId,
        /// From where.
        server: Server,
        /// When.
        at: Time,
        /// Tokens that passed through.
        output_tokens: u32,
    },
    /// It ended without a whole answer.
    Failed {
        /// Which request.
        id: RequestId,
        /// From where.
        server: Server,
        /// When.
        at: Time,
    },
}

impl Feedback {
    /// Which request it is about.
    pub fn id(&self) -> RequestId {
        match self {
            Feedback::FirstToken { id, .. }
            | Feedback::Completed { id, .. }
            | Feedback::Failed { id, .. } => *id,
        }
    }
}

/// What a policy reads, so that nobody pays for what it does not look at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Sight {
    /// Its own counts, or [`Router::heard`].
    pub responses: bool,
    /// [`Router::heard`] of first tokens too.
    pub first_tokens: bool,
    /// Gauges.
    pub signals: bool,
    /// What engines have cached, by their KV events.
    pub kv_events: bool,
    /// The truth: such a policy is a bound, and is asked by [`Router::decide_knowing`].
    pub clairvoyant: bool,
    /// It may answer [`Decision::Hold`], so responses must reach it before time moves past them.
    pub holds: bool,
}

/// A routing policy of one gateway.
pub trait Router: Send {
    /// What it reads.
    fn sight(&self) -> Sight;

    /// There are so many replicas. Said before anything else, because where gateways tell each other what they do a policy hears of
    /// requests before it has decided anything.
    fn meet(&mut self, _servers: usize) {}

    /// Where to send this request.
    fn decide(&mut self, arrival: &Arrival, glance: &mut dyn Glance) -> Decision;

    /// The same for policies whose sight is clairvoyant.
    fn decide_knowing(&mut self, arrival: &Arrival, knows: &mut dyn Clairvoyance) -> Decision {
        self.decide(arrival, knows)
    }

    /// Its decision has taken effect.
    fn committed(&mut self, _arrival: &Arrival, _server: Server, _at: Time) {}

    /// Something came back.
    fn heard(&mut self, _feedback: &Feedback) {}

    /// Why it could not decide, if it is a program of somebody's that failed: the run has no result then.
    fn failure(&self) -> Option<&str> {
        None
    }
}

/// The least and the most requests in flight at any candidate, by the gateway's own count.
fn least_and_most_in_flight(glance: &dyn Glance) -> (u32, u32) {
    let among = glance.candidates();
    among
        .iter()
        .map(|server| glance.mine(server).in_flight)
        .fold((u32::MAX, 0), |(least, most), own| (least.min(own), most.max(own)))
}

/// The candidate with the fewest requests in flight by the gateway's own count, the first of equals.
fn fewest_in_flight(among: &Candidates, glance: &(impl Glance + ?Sized)) -> Server {
    among.iter().min_by_key(|&server| glance.mine(server).in_flight).unwrap_or(among.at(0))
}

/// How a policy chooses among equals.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Ties {
    /// Uniformly at random.
    Random,
    /// The first in the list.
    First,
    /// The first behind the one chosen last.
    Rotating,
}

/// `[router.parameters]` of policies whose only choice is how equals are told apart.
#[derive(Clone, Debug, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct TieParameters {
    /// How equals are told apart.
    pub ties: Ties,
}

impl Default for TieParameters {
    fn default() -> Self {
        TieParameters { ties: Ties::Random }
    }
}

/// Picks a smallest score, equals by rule.
#[derive(Clone, Debug)]
pub struct Picker {
    ties: Ties,
    stream: Stream,
    last: Option<Server>,
    equals: Vec<Server>,
}

impl Picker {
    /// A picker for gateway `gateway`.
    pub fn new(ties: Ties, seed: Seed, gateway: u64) -> Picker {
        Picker { ties, stream: seed.stream(Purpose::Routing, gateway), last: None, equals: Vec::new() }
    }

    /// The server of the least score.
    ///
    /// # Panics
    /// If there is no server.
    pub fn least<S: PartialOrd>(&mut self, scores: impl IntoIterator<Item = (Server, S)>) -> Server {
        use rand::RngExt;
        let scores = scores.into_iter();
        self.equals.clear();
        // Everybody may be equal.
        self.equals.reserve(scores.size_hint().0);
        let mut best: Option<S> = None;
        for (server, score) in scores {
            match &best {
                Some(least) if score > *least => continue,
                Some(least) if score == *least => {}
                _ => {
                    self.equals.clear();
                    best = Some(score);
                }
            }
            self.equals.push(server);
        }
        let chosen = match self.ties {
            Ties::First => self.equals[0],
            Ties::Random if self.equals.len() == 1 => self.equals[0],
            Ties::Random => self.equals[self.stream.random_range(0..self.equals.len())],
            Ties::Rotating => {
                let behind = self.equals.iter().find(|&&server| Some(server) > self.last);
                *behind.unwrap_or(&self.equals[0])
            }
        };
        self.last = Some(chosen);
        chosen
    }
}

/// How old the gauges are that a gateway reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Freshness {
    /// As of the decision: no product does this, and results are marked.
    Fresh,
    /// Polled at this interval, each gateway with a phase of its own.
    Polled {
        /// Between two polls.
        interval: Span,
    },
}
