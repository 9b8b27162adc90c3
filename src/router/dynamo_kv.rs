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
            active: ActiveBlocks::default(),
            held: FxHashMap::default(),
            decided: FxHashMap::default(),
            spare: Vec::new(),
            cached: Vec::new(),
            new: Vec::new(),
            costs: Vec::new(),
            weights: Vec::new(),
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
    active: ActiveBlocks,
    /// Blocks of each request in flight, and where.
    held: FxHashMap<RequestId, (Server, Vec<u64>)>,
    /// Uncached tokens and blocks of requests whose decision has not taken effect.
    decided: FxHashMap<RequestId, (u64, Vec<u64>)>,
    /// Lists of blocks that nobody needs any more.
    spare: Vec<Vec<u64>>,
    /// Of the decision under way: tokens cached and blocks that would be new by replica, costs and weights by candidate.
    cached: Vec<u32>,
    new: Vec<u32>,
    costs: Vec<f64>,
    weights: Vec<f64>,
}

/// Which blocks requests in flight have at which replicas.
#[derive(Clone, Debug, Default)]
struct ActiveBlocks {
    /// Of each block: where, and how many requests have it there.
    holders: FxHashMap<u64, Vec<(Server, u32)>>,
    /// Distinct blocks by replica.
    counts: Vec<u32>,
}

impl ActiveBlocks {
    /// Of these blocks, how many each replica does not have, into `new`.
    fn new_at(&self, blocks: &[u64], new: &mut Vec<u32>) {
        new.clear();
        new.resize(self.counts.len(), blocks.len() as u32);
        for holders in blocks.iter().filter_map(|key| self.holders.get(key)) {
            holders.iter().for_each(|(server, _)| new[*server] -= 1);
        }
    }

    fn add(&mut self, key: u64, server: Server) {
        let holders = self.holders.entry(key).or_default();
        match holders.iter_mut().find(|(holder, _)| *holder == server) {
            Some((_, requests)) => *requests += 1,
            None => {
                holders.push((server, 1));
                self.counts[server] += 1;
            }
        }
    }

    fn remove(&mut self, key: u64, server: Server) {
        let Some(holders) = self.holders.get_mut(&key) else { return };
        let Some(place) = holders.iter().position(|(holder, _)| *holder == server) else { return };
        holders[place].1 -= 1;
        if holders[place].1 == 0 {
            holders.swap_remove(place);
            self.counts[server] -= 1;
        }
        if holders.is_empty() {
            self.holders.remove(&key);
        }
    }
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

    /// The place of one in the list of costs by chance, the cheaper the likelier.
    fn softly(&mut self) -> usize {
        let costs = &self.costs;
        let (least, most) = costs.iter().fold((f64::INFINITY, f64::NEG_INFINITY), |(least, most), cost| {
            (least.min(*cost), most.max(*cost))
        });
        let width = ((most - least) * self.parameters.router_temperature).max(f64::MIN_POSITIVE);
        self.weights.clear();
        self.weights.extend(costs.iter().map(|cost| (-(cost - least) / width).exp()));
        let mut left = self.stream.random::<f64>() * self.weights.iter().sum::<f64>();
        for (place, weight) in self.weights.iter().enumerate() {
            left -= weight;
            if left < 0.0 {
                return place;
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
        self.active.counts.resize(servers, 0);
    }

    fn decide(&mut self, arrival: &Arrival, glance: &mut dyn Glance) -> Decision {
        let (servers, among) = (glance.servers(), glance.candidates());
        let block = glance.facts(0).engine.block_size;
        let mut blocks = self.spare.pop().unwrap_or_default();
        leading_keys(arrival.id, &arrival.content, block, arrival.prompt_tokens.div_ceil(block), &mut blocks);
        let now = glance.now();
        let mut cached = std::mem::take(&mut self.cached);
        cached.clear();
        match self.belief(block) {
            Some(belief) => {
                cached.extend(belief.matched(arrival, servers, now, false).iter().map(|own| own * block));
            }
            None => cached.extend((0..servers).map(|server| glance.cached_tokens(server, arrival))),
        }
        self.active.new_at(&blocks, &mut self.new);
        let Parameters { overlap_score_credit, prefill_load_scale, router_temperature, .. } = self.parameters;
        let prompt = u64::from(arrival.prompt_tokens);
        self.costs.clear();
        self.costs.extend(among.iter().map(|server| {
            let raw = (self.prefill.at(server) + prompt) as f64 / f64::from(block);
            let credit = overlap_score_credit * f64::from(cached[server] / block);
            let decode = self.active.counts[server] + self.new[server];
            prefill_load_scale * (raw - credit).max(0.0) + f64::from(decode)
        }));
        let chosen = match router_temperature > 0.0 {
            true => self.softly(),
            false => self.picker.least(self.costs.iter().copied().enumerate()),
        };
        let chosen = among.at(chosen);
        self.decided.insert(arrival.id, (prompt - u64::from(cached[chosen]).min(prompt), blocks));
        self.cached = cached;
        Decision::Send(chosen)
    }

    fn committed(&mut self, arrival: &Arrival, server: Server, at: Time) {
        let Some((uncached, blocks)) = self.decided.remove(&arrival.id) else { return };
        self.prefill.charge(arrival.id, server, uncached);
        for key in &blocks {
            self.active.add(*key, server);
        }
        self.held.insert(arrival.id, (server, blocks));
        let servers = self.active.counts.len();
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
        for key in &blocks {
            self.active.remove(*key, server);
        }
        self.spare.push(blocks);
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
