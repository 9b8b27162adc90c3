//! llm-d's predicted latency: `predicted-latency-producer`, the tiers of `slo-headroom-tier-filter`, and `latency-scorer`.
//!
//! Knows what a model predicts for a request at an endpoint, and how headrooms become scores. Does not know who is chosen.
//!
//! Features: KV usage, prompt length, requests waiting and running, the share of the prompt that is cached, prompt tokens in flight
//! and still queued, and those of requests that decode, by the gateway's own count; uncached tokens stand beside them, because this
//! model is linear (llm-d's trees find products by themselves). Samples count from the next flush on, every second. Headroom =
//! objective - prediction; requests carry no objective here, so both are 0 unless `ttft_slo_ms` and `tpot_slo_ms` say otherwise.

use rand::distr::Distribution;
use rand_distr::StandardNormal;
use rustc_hash::FxHashMap;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Endpoint;
use crate::random::{Purpose, Seed, Stream};
use crate::request::{Arrival, RequestId};
use crate::router::in_flight_tokens::InFlightTokens;
use crate::router::latency_model::{Features, Regression};
use crate::router::{Feedback, Server};
use crate::time::{Span, Time};

/// Between two trainings.
const FLUSH: Span = Span::from_s(1);

/// `predicted-latency-producer`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct LatencyProducer {
    /// Objective of every request, milliseconds.
    pub ttft_slo_ms: f64,
    /// Objective of every request, milliseconds a token.
    pub tpot_slo_ms: f64,
    /// Spread of the logarithm of an error that is put on every prediction.
    pub error_sigma: f64,
}

impl LatencyProducer {
    /// What is wrong with it, if anything.
    pub fn problem(&self) -> Option<&'static str> {
        if ![self.ttft_slo_ms, self.tpot_slo_ms].iter().all(|value| (0.0..=1e9).contains(value)) {
            return Some("`ttft_slo_ms` and `tpot_slo_ms` must be 0 to 1e9");
        }
        (!(0.0..=10.0).contains(&self.error_sigma)).then_some("`error_sigma` must be 0 to 10")
    }
}

/// Which of the endpoints with headroom.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Strategy {
    /// The tightest fit.
    #[default]
    Least,
    /// The most headroom.
    Most,
}

/// Objective less prediction, in seconds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Headroom {
    /// Of the time to the first token.
    pub ttft_s: f64,
    /// Of the time of a token after it.
    pub tpot_s: f64,
}

impl Headroom {
    /// Both objectives are met.
    pub fn fits(self) -> bool {
        self.ttft_s > 0.0 && self.tpot_s > 0.0
    }

    fn lacks(self, ttft: bool, tpot: bool) -> bool {
        !self.fits() && (self.ttft_s <= 0.0) == ttft && (self.tpot_s <= 0.0) == tpot
    }
}

/// A request on its way, for its sample.
#[derive(Clone, Copy, Debug)]
struct Sent {
    features: Features,
    prompt_tokens: u32,
    at: Time,
    first_token: Option<Time>,
}

/// Models, and what is on its way.
#[derive(Clone, Debug)]
pub struct Predictor {
    producer: LatencyProducer,
    stream: Stream,
    queued: InFlightTokens,
    decoding: InFlightTokens,
    ttft: Regression,
    tpot: Regression,
    trained_at: Time,
    /// Of the decision under way.
    looked: Vec<(Server, Features)>,
    /// Features where a request was sent whose decision has not taken effect.
    decided: FxHashMap<RequestId, Features>,
    sent: FxHashMap<RequestId, Sent>,
}

impl Predictor {
    /// One that knows nothing yet, of gateway `gateway`.
    pub fn new(producer: &LatencyProducer, seed: Seed, gateway: u64) -> Predictor {
        Predictor {
            producer: producer.clone(),
            stream: seed.derive(Purpose::Exploration, gateway).stream(Purpose::Prediction, 0),
            queued: InFlightTokens::default(),
            decoding: InFlightTokens::default(),
            ttft: Regression::default(),
            tpot: Regression::default(),
            trained_at: Time::ZERO,
            looked: Vec::new(),
            decided: FxHashMap::default(),
            sent: FxHashMap::default(),
        }
    }

    /// What each endpoint would do with a request, into the endpoints.
    pub fn look(&mut self, arrival: &Arrival, now: Time, endpoints: &mut [Endpoint]) {
        if now.saturating_since(self.trained_at) >= FLUSH {
            self.trained_at = now;
            self.ttft.train();
            self.tpot.train();
        }
        self.looked.clear();
        let prompt = f64::from(arrival.prompt_tokens);
        for endpoint in endpoints {
            let share = endpoint.prompt_share;
            let features = Features::from([
                1.0,
                endpoint.kv_cache_usage,
                prompt / 1e3,
                f64::from(endpoint.waiting) / 10.0,
                f64::from(endpoint.running) / 100.0,
                share,
                prompt * (1.0 - share) / 1e3,
                self.queued.at(endpoint.server) as f64 / 1e4,
                self.decoding.at(endpoint.server) as f64 / 1e5,
            ]);
            let sigma = self.producer.error_sigma;
            let mut headroom = |model: &Regression, slo_ms: f64| {
                let predicted = model.predict(&features)?;
                let wrong: f64 = if sigma > 0.0 { StandardNormal.sample(&mut self.stream) } else { 0.0 };
                Some(slo_ms / 1e3 - predicted * (sigma * wrong).exp())
            };
            let ttft_s = headroom(&self.ttft, self.producer.ttft_slo_ms);
            let tpot_s = headroom(&self.tpot, self.producer.tpot_slo_ms);
            endpoint.headroom = ttft_s.zip(tpot_s).map(|(ttft_s, tpot_s)| Headroom { ttft_s, tpot_s });
            self.looked.push((endpoint.server, features));
        }
    }

    /// The request will go there.
    pub fn chosen(&mut self, id: RequestId, server: Server) {
        if let Some((_, features)) = self.looked.iter().find(|(other, _)| *other == server) {
            self.decided.insert(id, *features);
        }
    }

    /// It has gone there.
    pub fn committed(&mut self, arrival: &Arrival, server: Server, at: Time) {
        let Some(features) = self.decided.remove(&arrival.id) else { return };
        let prompt_tokens = arrival.prompt_tokens;
        self.sent.insert(arrival.id, Sent { features, prompt_tokens, at, first_token: None });
        self.queued.charge(arrival.id, server, u64::from(prompt_tokens));
    }

    /// Something came back.
    pub fn heard(&mut self, feedback: &Feedback) {
        let id = feedback.id();
        self.queued.release(id);
        match *feedback {
            Feedback::FirstToken { server, at, .. } => {
                let Some(sent) = self.sent.get_mut(&id) else { return };
                sent.first_token = Some(at);
                self.decoding.charge(id, server, u64::from(sent.prompt_tokens));
                self.ttft.add(&sent.features, at.saturating_since(sent.at).as_s());
            }
            Feedback::Completed { at, output_tokens, .. } => {
                self.decoding.release(id);
                let Some(sent) = self.sent.remove(&id) else { return };
                if let Some(first) = sent.first_token
                    && output_tokens > 1
                {
                    let time = at.saturating_since(first).as_s() / f64::from(output_tokens - 1);
                    self.tpot.add(&sent.features, time);
                }
            }
            Feedback::Failed { .. } => {
                self.decoding.release(id);
                self.sent.remove(&id);
            }
        }
    }
}

/// Whether a model predicts anything yet.
fn are_predicted(endpoints: &[Endpoint]) -> bool {
    endpoints.iter().all(|endpoint| endpoint.headroom.is_some())
}

/// `slo-headroom-tier-filter`: leaves those with headroom, if there are any; where it `explores`, the others.
pub(super) fn keep_tier(endpoints: &mut Vec<Endpoint>, explores: impl FnOnce() -> bool) {
    let fits = |endpoint: &Endpoint| endpoint.headroom.is_some_and(Headroom::fits);
    let fitting = endpoints.iter().filter(|endpoint| fits(endpoint)).count();
    if are_predicted(endpoints) && fitting > 0 && fitting < endpoints.len() {
        let wanted = !explores();
        endpoints.retain(|endpoint| fits(endpoint) == wanted);
    }
}

/// Which of some endpoints are scored.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Scored {
    /// Those with headroom.
    Fitting,
    /// Those with nothing in flight.
    Idle,
    /// Those that lack TTFT, TPOT, or both.
    Lacking(bool, bool),
}

impl Scored {
    fn holds(self, endpoint: &Endpoint) -> bool {
        let Some(headroom) = endpoint.headroom else { return false };
        match self {
            Scored::Fitting => headroom.fits(),
            Scored::Idle => !headroom.fits() && endpoint.in_flight == 0,
            Scored::Lacking(ttft, tpot) => headroom.lacks(ttft, tpot),
        }
    }
}

/// What `latency-scorer` goes by.
#[derive(Clone, Copy)]
pub(super) struct Weights {
    pub(super) ttft: f64,
    pub(super) tpot: f64,
    pub(super) strategy: Strategy,
}

/// `latency-scorer`: of those with headroom the tightest fit (or the loosest) is the best; without any, the best of those with nothing
/// in flight, else of the first that is there of {only TPOT missed, only TTFT missed, both}. |headroom| is normalised from min to max
/// for each metric; one without a range has no weight. Before the model has seen enough: (1 - k + (max q - q) / max q + cached) / 3.
pub(super) fn score(endpoints: &[Endpoint], weights: Weights, scores: &mut Vec<f64>) {
    if !are_predicted(endpoints) {
        let longest = endpoints.iter().map(|endpoint| endpoint.waiting).max().unwrap_or(0);
        scores.extend(endpoints.iter().map(|endpoint| {
            let queue = f64::from(longest - endpoint.waiting) / f64::from(longest.max(1));
            (1.0 - endpoint.kv_cache_usage + queue + endpoint.prompt_share) / 3.0
        }));
        return;
    }
    let tiers = [
        Scored::Fitting,
        Scored::Idle,
        Scored::Lacking(false, true),
        Scored::Lacking(true, false),
        Scored::Lacking(true, true),
    ];
    let any = |tier: &Scored| endpoints.iter().any(|endpoint| tier.holds(endpoint));
    let tier = tiers.into_iter().find(any).unwrap_or(Scored::Fitting);
    let sizes = |endpoint: &Endpoint| {
        endpoint.headroom.map_or((0.0, 0.0), |headroom| (headroom.ttft_s.abs(), headroom.tpot_s.abs()))
    };
    let range = |of: fn((f64, f64)) -> f64| {
        let scored = endpoints.iter().filter(|endpoint| tier.holds(endpoint)).map(|one| of(sizes(one)));
        scored.fold((f64::INFINITY, f64::NEG_INFINITY), |(least, most), one| (least.min(one), most.max(one)))
    };
    let (ttfts, tpots) = (range(|size| size.0), range(|size| size.1));
    let most_wins = tier == Scored::Fitting && weights.strategy == Strategy::Most;
    // A metric without a range leaves all weight to the other.
    let weight = |weight: f64, (least, most): (f64, f64)| if most > least { weight } else { 0.0 };
    let whole = (weight(weights.ttft, ttfts) + weight(weights.tpot, tpots)).max(f64::MIN_POSITIVE);
    scores.extend(endpoints.iter().map(|endpoint| {
        if !tier.holds(endpoint) {
            return 0.0;
        }
        let (ttft, tpot) = sizes(endpoint);
        let size = (weights.ttft * within(ttfts, ttft) + weights.tpot * within(tpots, tpot)) / whole;
        if most_wins { size } else { 1.0 - size }
    }));
}

/// Where `value` lies between the ends of the range; nowhere where it has no width.
fn within((least, most): (f64, f64), value: f64) -> f64 {
    if most > least { (value - least) / (most - least) } else { 0.0 }
}
