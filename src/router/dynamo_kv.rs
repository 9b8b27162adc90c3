//! `dynamo-kv`: prompt blocks still to be computed plus blocks in use.
//!
//! NVIDIA Dynamo's KV router (`lib/kv-router/src/scheduling`): cost = prefill_load_scale max(0, (T + L) / B - credit * overlap) +
//! active blocks + new blocks, argmin, exact ties uniform. T: uncached prompt tokens that this router has in flight there,
//! until their first token; active blocks: distinct blocks of requests in flight, shared ones counted once, until they end;
//! overlap: from the engines' KV events, or, with `use_kv_events = false`, from the router's own decisions of the last 120 s.
//! With a temperature, by chance in proportion to exp(-(cost - least) / ((most - least) T)).
//!
//! Output blocks are not counted, as by default. Routers do not tell each other (`replica sync` is off by default).

use rand::RngExt;
use rustc_hash::FxHashMap;
use schemars::JsonSchema;
use serde::de::Error as _;
use serde::{Deserialize, Serialize};

use super::belief::{Belief, Keeping};
use super::in_flight_tokens::InFlightTokens;
use super::{Decision, Feedback, Glance, Picker, PolicyInfo, Router, Server, Sight, Ties};
use crate::random::{Purpose, Stream};
use crate::replica::block_keys::leading_keys;
use crate::request::{Arrival, RequestId};
use crate::time::{Span, Time};

/// `[router.parameters]` of this policy.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Parameters {
    /// Blocks that a block found counts for.
    pub overlap_score_credit: f64,
    /// What prompt blocks count for, against blocks in use.
    pub prefill_load_scale: f64,
    /// 0: the least cost.
    pub router_temperature: f64,
    /// Whether overlaps come from the engines' KV events.
    pub use_kv_events: bool,
    /// Without events: how long a decision is believed, seconds.
    pub router_ttl_s: f64,
}

impl Default for Parameters {
    fn default() -> Self {
        Parameters {
            overlap_score_credit: 1.0,
            prefill_load_scale: 1.0,
            router_temperature: 0.0,
            use_kv_events: true,
            router_ttl_s: 120.0,
        }
    }
}

/// The entry of this policy in the list.
pub const INFO: PolicyInfo = PolicyInfo {
    name: "dynamo-kv",
    family: "prefix-cache aware",
    reads: "KV events (or own prefix belief), own prompt tokens and blocks in flight",
    upstream: "NVIDIA Dynamo --router-mode kv",
    default_freshness: None,
    build: |parameters, seed, gateway| {
        let parameters: Parameters = parameters.clone().try_into()?;
        let all =
            [parameters.overlap_score_credit, parameters.prefill_load_scale, parameters.router_temperature];
        if !all.iter().all(|value| *value >= 0.0 && value.is_finite()) {
            return Err(toml::de::Error::custom(
                "`overlap_score_credit`, `prefill_load_scale` and `router_temperature` must be at least 0",
            ));
        }
        if !(parameters.router_ttl_s > 0.0 && parameters.router_ttl_s <= 31_536_000.0) {
            return Err(toml::de::Error::custom("`router_ttl_s` must be above 0, and at most a year"));
        }
        Ok(Box::new(DynamoKv {
            picker: Picker::new(Ties::Random, seed, gateway),
            stream: seed.stream(Purpose::Exploration, gateway),
            parameters,
            belief: None,
            prefill: InFlightTokens::default(),
            active: Vec::new(),
            held: FxHashMap::default(),
            decided: FxHashMap::default(),
        }))
    },
};

/// What this router has in flight where.
#[derive(Clone, Debug)]
pub struct DynamoKv {
    parameters: Parameters,
    picker: Picker,
    stream: Stream,
    belief: Option<Belief>,
    prefill: InFlightTokens,
    /// By replica: how many requests in flight have each block.
    active: Vec<FxHashMap<u64, u32>>,
    /// Blocks of each request in flight, and where.
    held: FxHashMap<RequestId, (Server, Vec<u64>)>,
    /// Uncached tokens and blocks of requests whose decision has not taken effect.
    decided: FxHashMap<RequestId, (u64, Vec<u64>)>,
}

impl DynamoKv {
    fn belief(&mut self, block_tokens: u32) -> Option<&mut Belief> {
        let keeping = Keeping {
            block_tokens,
            most_blocks: None,
            ttl: Some(Span::from_s_f64(self.parameters.router_ttl_s)),
            most_matched: u32::MAX,
        };
        (!self.parameters.use_kv_events).then(|| self.belief.get_or_insert_with(|| Belief::new(keeping)))
    }

    /// By chance, the cheaper the likelier.
    fn softly(&mut self, costs: &[f64]) -> Server {
        let (least, most) = costs.iter().fold((f64::INFINITY, f64::NEG_INFINITY), |(least, most), cost| {
            (least.min(*cost), most.max(*cost))
        });
        let width = ((most - least) * self.parameters.router_temperature).max(f64::MIN_POSITIVE);
        let weights: Vec<f64> = costs.iter().map(|cost| (-(cost - least) / width).exp()).collect();
        let mut left = self.stream.random::<f64>() * weights.iter().sum::<f64>();
        for (server, weight) in weights.iter().enumerate() {
            left -= weight;
            if left < 0.0 {
                return server;
            }
        }
        costs.len() - 1
    }
}

impl Router for DynamoKv {
    fn sight(&self) -> Sight {
        let kv_events = self.parameters.use_kv_events;
        Sight { responses: true, first_tokens: true, kv_events, ..Sight::default() }
    }

    fn meet(&mut self, servers: usize) {
        self.active.resize(servers, FxHashMap::default());
    }

    fn decide(&mut self, arrival: &Arrival, glance: &mut dyn Glance) -> Decision {
        let servers = glance.servers();
        let block = glance.facts(0).engine.block_size;
        let mut blocks = Vec::new();
        leading_keys(arrival.id, &arrival.content, block, arrival.prompt_tokens.div_ceil(block), &mut blocks);
        let now = glance.now();
        let cached: Vec<u32> = match self.belief(block) {
            Some(belief) => {
                belief.matched(arrival, servers, now, false).iter().map(|own| own * block).collect()
            }
            None => (0..servers).map(|server| glance.cached_tokens(server, arrival)).collect(),
        };
        let Parameters { overlap_score_credit, prefill_load_scale, router_temperature, .. } = self.parameters;
        let prompt = u64::from(arrival.prompt_tokens);
        let costs: Vec<f64> = (0..servers)
            .map(|server| {
                let raw = (self.prefill.at(server) + prompt) as f64 / f64::from(block);
                let credit = overlap_score_credit * f64::from(cached[server] / block);
                let active = &self.active[server];
                let new = blocks.iter().filter(|key| !active.contains_key(key)).count();
                prefill_load_scale * (raw - credit).max(0.0) + (active.len() + new) as f64
            })
            .collect();
        let chosen = match router_temperature > 0.0 {
            true => self.softly(&costs),
            false => self.picker.least(costs.iter().copied().enumerate()),
        };
        self.decided.insert(arrival.id, (prompt - u64::from(cached[chosen]).min(prompt), blocks));
        Decision::Send(chosen)
    }

    fn committed(&mut self, arrival: &Arrival, server: Server, at: Time) {
        let Some((uncached, blocks)) = self.decided.remove(&arrival.id) else { return };
        self.prefill.charge(arrival.id, server, uncached);
        for key in &blocks {
            *self.active[server].entry(*key).or_insert(0) += 1;
        }
        self.held.insert(arrival.id, (server, blocks));
        let servers = self.active.len();
        if let Some(belief) = &mut self.belief {
            belief.sent(arrival, servers, server, at);
        }
    }

    fn heard(&mut self, feedback: &Feedback) {
        self.prefill.release(feedback.id());
        if matches!(feedback, Feedback::FirstToken { .. }) {
            return;
        }
        let Some((server, blocks)) = self.held.remove(&feedback.id()) else { return };
        for key in blocks {
            if let Some(count) = self.active[server].get_mut(&key) {
                *count -= 1;
                if *count == 0 {
                    self.active[server].remove(&key);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::router::tests::{Scene, at_s, policy, prompt};

    /// Blocks of 16. 640 tokens are 40 blocks: 40 - 30 + 0 + 40 = 50 with 480 tokens cached, 80 without.
    #[test]
    fn overlap_is_worth_its_blocks() {
        let mut router = policy("dynamo-kv", "");
        let mut scene = Scene::of(2);
        scene.cached = vec![0, 480];
        assert_eq!(scene.commit(&mut *router, &prompt(0, 7, 640)), 1);
        // There: T = 160, active 40. The same text again: (160 + 640) / 16 - 30 + 40 + 0 = 60 against 80.
        assert_eq!(scene.commit(&mut *router, &prompt(1, 7, 640)), 1);
        // Another text: (320 + 640) / 16 - 30 + 40 + 40 = 110 against 80: even a match must not cost more than it saves.
        assert_eq!(scene.send(&mut *router, &prompt(2, 8, 640)), 0);
        // First tokens release prompts, ends release blocks: 40 - 30 + 0 + 40 again.
        for id in [RequestId(0), RequestId(1)] {
            router.heard(&Feedback::FirstToken { id, server: 1, at: at_s(101) });
            router.heard(&Feedback::Completed { id, server: 1, at: at_s(102), output_tokens: 9 });
        }
        assert_eq!(scene.send(&mut *router, &prompt(3, 8, 640)), 1);
    }

    /// Single prompts without reuse, decided before anything is heard, are shared out.
    #[test]
    fn without_events_its_own_decisions_are_believed() {
        let mut router = policy("dynamo-kv", "use_kv_events = false");
        let mut scene = Scene::of(4);
        let home = scene.commit(&mut *router, &prompt(0, 7, 640));
        // 40 - 40 + 40 + (640 - 0) / 16 of the first = 80 + ... against 80: equal or more, so the others follow first.
        let sent: Vec<_> =
            (1..4).map(|id| scene.commit(&mut *router, &prompt(id, 100 + u64::from(id), 640))).collect();
        assert!(!sent.contains(&home), "{sent:?}");
        router.heard(&Feedback::FirstToken { id: RequestId(0), server: home, at: at_s(101) });
        assert_eq!(scene.send(&mut *router, &prompt(9, 7, 640)), home);
    }

    #[test]
    fn a_temperature_spreads() {
        let mut router = policy("dynamo-kv", "router_temperature = 1.0");
        let mut scene = Scene::of(2);
        scene.cached = vec![0, 480];
        let to_cached =
            (0..1_000).filter(|id| scene.send(&mut *router, &prompt(*id, 7, 640)) == 1).count() as f64;
        // 1 / (1 + e^-1) = 0.731; five standard deviations.
        assert!((to_cached / 1_000.0 - 0.731).abs() < 0.07, "{to_cached}");
    }
}
