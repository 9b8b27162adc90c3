//! `predicted-latency`: TTFT and time per token as a model predicts them that is trained on answers as they come.
//!
//! llm-d's `predicted-latency-producer` with `latency-scorer`. Features: KV usage, prompt length, requests waiting and running,
//! the share of the prompt that is cached by the approximate producer, prompt tokens in flight and still queued, and those of
//! requests that decode, by the gateway's own count; uncached tokens stand beside them, because this model is linear (llm-d's
//! trees find products by themselves). Samples count from the next flush on, every second. Headroom = objective - prediction;
//! a request carries no objective, so both are 0 unless `ttft_slo_ms` and `tpot_slo_ms` say otherwise.
//!
//! - Endpoints with both headrooms positive are a tier of their own: only they are scored, but with probability
//!   `exploration_probability` the others.
//! - Without any: those with nothing in flight, else the first that is there of {only TPOT missed, only TTFT missed, both}.
//! - Within the set |headroom| is normalised from min to max for each metric, 0.8 TTFT + 0.2 TPOT; a metric without a range
//!   has no weight. `least` (the tightest fit) wins, or `most` among those with headroom. Equals by chance.
//! - Before the model has seen enough: the greatest of (1 - k + (max q - q) / max q + cached share) / 3.
//!
//! `error_sigma` makes predictions worse: each is multiplied by exp(sigma Z), a median error of 0.67 sigma.

use rand::RngExt;
use rand::distr::Distribution;
use rand_distr::StandardNormal;
use rustc_hash::FxHashMap;
use schemars::JsonSchema;
use serde::de::Error as _;
use serde::{Deserialize, Serialize};

use super::approximate_prefix::{ApproximatePrefix, Parameters as Approximate};
use super::in_flight_tokens::InFlightTokens;
use super::latency_model::{Features, Regression};
use super::{Decision, Feedback, Glance, Picker, PolicyInfo, Router, Server, Sight, Ties, epp};
use crate::random::{Purpose, Stream};
use crate::request::{Arrival, RequestId};
use crate::time::{Span, Time};

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

/// `[router.parameters]` of this policy.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Parameters {
    /// Objective of every request, milliseconds.
    pub ttft_slo_ms: f64,
    /// Objective of every request, milliseconds a token.
    pub tpot_slo_ms: f64,
    /// Which of those with headroom.
    pub strategy: Strategy,
    /// Weight of TTFT.
    pub ttft_weight: f64,
    /// Weight of TPOT.
    pub tpot_weight: f64,
    /// How often those without headroom are tried.
    pub exploration_probability: f64,
    /// Spread of the logarithm of an error that is put on every prediction.
    pub error_sigma: f64,
    /// How prefixes are believed in.
    pub prefix: Approximate,
}

impl Default for Parameters {
    fn default() -> Self {
        Parameters {
            ttft_slo_ms: 0.0,
            tpot_slo_ms: 0.0,
            strategy: Strategy::Least,
            ttft_weight: 0.8,
            tpot_weight: 0.2,
            exploration_probability: 0.01,
            error_sigma: 0.0,
            prefix: Approximate::default(),
        }
    }
}

impl Parameters {
    fn problem(&self) -> Option<&'static str> {
        let weights = [self.ttft_weight, self.tpot_weight];
        let limits = [self.ttft_slo_ms, self.tpot_slo_ms];
        if !weights.iter().chain(&limits).all(|value| (0.0..=1e9).contains(value)) {
            return Some("weights and objectives must be 0 to 1e9");
        }
        if weights.iter().sum::<f64>() == 0.0 {
            return Some("`ttft_weight` and `tpot_weight` are both 0, so nothing would be weighed");
        }
        if !(0.0..=1.0).contains(&self.exploration_probability) || !(0.0..=10.0).contains(&self.error_sigma) {
            return Some("`exploration_probability` must be 0 to 1, `error_sigma` 0 to 10");
        }
        self.prefix.problem()
    }
}

/// The entry of this policy in the list.
pub const INFO: PolicyInfo = PolicyInfo {
    name: "predicted-latency",
    family: "completion time",
    reads: "gauges, own tokens in flight, own belief in prefixes, latencies of answers",
    upstream: "llm-d predicted-latency-producer and latency-scorer",
    default_freshness: Some(epp::FRESHNESS),
    build: |parameters, seed, gateway| {
        let parameters: Parameters = parameters.clone().try_into()?;
        if let Some(problem) = parameters.problem() {
            return Err(toml::de::Error::custom(problem));
        }
        Ok(Box::new(PredictedLatency {
            prefix: ApproximatePrefix::new(&parameters.prefix),
            parameters,
            picker: Picker::new(Ties::Random, seed, gateway),
            stream: seed.stream(Purpose::Exploration, gateway),
            queued: InFlightTokens::default(),
            decoding: InFlightTokens::default(),
            ttft: Regression::default(),
            tpot: Regression::default(),
            trained_at: Time::ZERO,
            decided: FxHashMap::default(),
            sent: FxHashMap::default(),
            endpoints: Vec::new(),
            set: Vec::new(),
        }))
    },
};

/// Between two trainings.
const FLUSH: Span = Span::from_s(1);

/// A request on its way, for its sample.
#[derive(Clone, Copy, Debug)]
struct Sent {
    features: Features,
    prompt_tokens: u32,
    at: Time,
    first_token: Option<Time>,
}

/// An endpoint as it is scored.
#[derive(Clone, Copy, Debug)]
struct Endpoint {
    server: Server,
    features: Features,
    in_flight: u32,
    /// Objective less prediction, seconds: of TTFT and of TPOT.
    headroom: Option<(f64, f64)>,
    waiting: u32,
    kv_cache_usage: f64,
    cached_share: f64,
}

/// Models, and what is on its way.
#[derive(Clone, Debug)]
pub struct PredictedLatency {
    parameters: Parameters,
    prefix: ApproximatePrefix,
    picker: Picker,
    stream: Stream,
    queued: InFlightTokens,
    decoding: InFlightTokens,
    ttft: Regression,
    tpot: Regression,
    trained_at: Time,
    /// Features where a request was sent whose decision has not taken effect.
    decided: FxHashMap<RequestId, Features>,
    sent: FxHashMap<RequestId, Sent>,
    endpoints: Vec<Endpoint>,
    /// Places in that list.
    set: Vec<usize>,
}

impl PredictedLatency {
    fn look(&mut self, arrival: &Arrival, glance: &mut dyn Glance) {
        let servers = glance.servers();
        let among = glance.candidates();
        let cached = self.prefix.cached_tokens(arrival, servers, glance.now());
        self.endpoints.clear();
        for server in among.iter() {
            let cached = cached[server];
            let signals = glance.signals(server).signals;
            let prompt = f64::from(arrival.prompt_tokens);
            let cached_share = f64::from(cached.min(arrival.prompt_tokens)) / prompt.max(1.0);
            let features = Features::from([
                1.0,
                signals.kv_cache_usage(),
                prompt / 1e3,
                f64::from(signals.waiting) / 10.0,
                f64::from(signals.running) / 100.0,
                cached_share,
                prompt * (1.0 - cached_share) / 1e3,
                self.queued.at(server) as f64 / 1e4,
                self.decoding.at(server) as f64 / 1e5,
            ]);
            let mut predict = |model: &Regression, slo_ms: f64| {
                let predicted = model.predict(&features)?;
                let sigma = self.parameters.error_sigma;
                let wrong: f64 = if sigma > 0.0 { StandardNormal.sample(&mut self.stream) } else { 0.0 };
                Some(slo_ms / 1e3 - predicted * (sigma * wrong).exp())
            };
            let ttft = predict(&self.ttft, self.parameters.ttft_slo_ms);
            let tpot = predict(&self.tpot, self.parameters.tpot_slo_ms);
            self.endpoints.push(Endpoint {
                server,
                features,
                in_flight: glance.mine(server).in_flight,
                headroom: ttft.zip(tpot),
                waiting: signals.waiting,
                kv_cache_usage: signals.kv_cache_usage(),
                cached_share,
            });
        }
    }

    /// Who is scored, and whether they have headroom. `headroom` of each, in order.
    fn choose_set(&mut self) -> bool {
        let headroom = |endpoint: &Endpoint| endpoint.headroom.unwrap_or((0.0, 0.0));
        let endpoints = &self.endpoints;
        let mut take = |which: &dyn Fn(&Endpoint) -> bool| {
            self.set.clear();
            self.set.extend((0..endpoints.len()).filter(|&place| which(&endpoints[place])));
            !self.set.is_empty()
        };
        let fits = |endpoint: &Endpoint| headroom(endpoint).0 > 0.0 && headroom(endpoint).1 > 0.0;
        let anybody = endpoints.iter().any(fits);
        let all = endpoints.iter().all(fits);
        let explores =
            anybody && !all && self.stream.random::<f64>() < self.parameters.exploration_probability;
        if anybody && !explores {
            take(&fits);
            return true;
        }
        let lacks = |endpoint: &Endpoint, ttft: bool, tpot: bool| {
            let (of_ttft, of_tpot) = headroom(endpoint);
            !fits(endpoint) && (of_ttft <= 0.0) == ttft && (of_tpot <= 0.0) == tpot
        };
        let _ = take(&|endpoint| !fits(endpoint) && endpoint.in_flight == 0)
            || take(&|endpoint| lacks(endpoint, false, true))
            || take(&|endpoint| lacks(endpoint, true, false))
            || take(&|endpoint| lacks(endpoint, true, true));
        false
    }
}

/// Where `value` lies between the ends of the range, and whether it has a width.
fn within((least, most): (f64, f64), value: f64) -> Option<f64> {
    (most > least).then(|| (value - least) / (most - least))
}

impl Router for PredictedLatency {
    fn sight(&self) -> Sight {
        Sight { responses: true, first_tokens: true, signals: true, ..Sight::default() }
    }

    fn decide(&mut self, arrival: &Arrival, glance: &mut dyn Glance) -> Decision {
        if glance.now().saturating_since(self.trained_at) >= FLUSH {
            self.trained_at = glance.now();
            self.ttft.train();
            self.tpot.train();
        }
        self.look(arrival, glance);
        let chosen = if self.endpoints.iter().all(|endpoint| endpoint.headroom.is_some()) {
            let positive = self.choose_set();
            let endpoints = &self.endpoints;
            let size = |place: usize| {
                let (ttft, tpot) = endpoints[place].headroom.unwrap_or((0.0, 0.0));
                (ttft.abs(), tpot.abs())
            };
            let range = |of: &dyn Fn((f64, f64)) -> f64| {
                self.set.iter().fold((f64::INFINITY, f64::NEG_INFINITY), |(least, most), &place| {
                    (least.min(of(size(place))), most.max(of(size(place))))
                })
            };
            let (ttfts, tpots) = (range(&|size| size.0), range(&|size| size.1));
            let Parameters { ttft_weight, tpot_weight, strategy, .. } = self.parameters;
            let sign = if positive && strategy == Strategy::Most { -1.0 } else { 1.0 };
            let score = |place: usize| {
                let (ttft, tpot) = (within(ttfts, size(place).0), within(tpots, size(place).1));
                sign * (ttft_weight * ttft.unwrap_or(0.0) + tpot_weight * tpot.unwrap_or(0.0))
            };
            self.picker.least(self.set.iter().map(|&place| (place, score(place))))
        } else {
            let longest = self.endpoints.iter().map(|endpoint| endpoint.waiting).max().unwrap_or(0);
            let score = |endpoint: &Endpoint| {
                let queue = f64::from(longest - endpoint.waiting) / f64::from(longest.max(1));
                -(1.0 - endpoint.kv_cache_usage + queue + endpoint.cached_share) / 3.0
            };
            self.picker.least(self.endpoints.iter().map(score).enumerate())
        };
        let Endpoint { server, features, .. } = self.endpoints[chosen];
        self.decided.insert(arrival.id, features);
        Decision::Send(server)
    }

    fn committed(&mut self, arrival: &Arrival, server: Server, at: Time) {
        let Some(features) = self.decided.remove(&arrival.id) else { return };
        let prompt_tokens = arrival.prompt_tokens;
        self.sent.insert(arrival.id, Sent { features, prompt_tokens, at, first_token: None });
        self.queued.charge(arrival.id, server, u64::from(prompt_tokens));
        self.prefix.sent(arrival, server, at);
    }

    fn heard(&mut self, feedback: &Feedback) {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::router::latency_model::FEWEST;
    use crate::router::tests::{Scene, policy, prompt};

    /// Trains on answers whose TTFT is a tenth of a second for each that waits, and whose tokens take 20 ms.
    fn trained(parameters: &str) -> (Box<dyn Router>, Scene) {
        let mut router = policy("predicted-latency", parameters);
        let mut scene = Scene::of(3);
        for id in 0..2 * FEWEST as u32 {
            for (server, signals) in scene.signals.iter_mut().enumerate() {
                signals.waiting = (id * 7 + server as u32 * 3) % 10;
            }
            let server = scene.commit(&mut *router, &prompt(id, u64::from(id), 10));
            let waits = scene.signals[server].waiting;
            let first = scene.now + Span::from_ms(100 * u64::from(waits));
            let id = RequestId(id);
            router.heard(&Feedback::FirstToken { id, server, at: first });
            let at = first + Span::from_ms(200);
            router.heard(&Feedback::Completed { id, server, at, output_tokens: 11 });
        }
        scene.now += Span::from_s(2);
        scene.mine = vec![super::super::Mine { in_flight: 1, ..Default::default() }; 3];
        for (signals, waiting) in scene.signals.iter_mut().zip([5, 2, 8]) {
            signals.waiting = waiting;
        }
        (router, scene)
    }

    #[test]
    fn without_objectives_the_least_predicted_wins_and_idle_ones_before_it() {
        let (mut router, mut scene) = trained("");
        assert_eq!(scene.send(&mut *router, &prompt(900, 900, 10)), 1);
        scene.mine[2].in_flight = 0;
        assert_eq!(scene.send(&mut *router, &prompt(901, 901, 10)), 2);
    }

    /// Predicted 500, 200 and 800 ms against 600: the first fits most tightly, the second leaves most room.
    #[test]
    fn with_objectives_the_tightest_fit_wins() {
        let objectives = "ttft_slo_ms = 600\ntpot_slo_ms = 100\nexploration_probability = 0";
        let (mut router, mut scene) = trained(objectives);
        assert_eq!(scene.send(&mut *router, &prompt(900, 900, 10)), 0);
        let (mut most, mut scene) = trained(&format!("{objectives}\nstrategy = \"most\""));
        assert_eq!(scene.send(&mut *most, &prompt(900, 900, 10)), 1);
    }

    /// (1 - 0.5 + 1 + 0) / 3, (1 - 0 + 0.5) / 3 and (1 - 0.2 + 0) / 3.
    #[test]
    fn before_it_knows_anything_gauges_decide() {
        let mut router = policy("predicted-latency", "");
        let mut scene = Scene::of(3);
        for (signals, (used, waiting)) in scene.signals.iter_mut().zip([(500, 0), (0, 1), (200, 2)]) {
            (signals.kv_blocks_usable, signals.kv_blocks_used, signals.waiting) = (1_000, used, waiting);
        }
        let sent: Vec<_> =
            (0..20).map(|id| scene.send(&mut *router, &prompt(id, u64::from(id), 10))).collect();
        assert!(sent.contains(&0) && sent.contains(&1) && !sent.contains(&2), "{sent:?}");
    }
}
