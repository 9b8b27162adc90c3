//! `preble-e2`: to a cached prefix if it is most of the prompt, else where the whole cost is least.
//!
//! Preble's E2 (WukLab/preble; AIBrix `prefix-cache-preble`). A prefix longer than `exploit_above` of the prompt is exploited: of
//! the replicas that have the longest match the one of least cost. Otherwise a request explores: argmin of load + eviction +
//! its own prefill. Load: the prices of the uncached prompts sent there within the last three minutes, and for each request in
//! flight the median output times the median time a token (0.15 s before any was seen). Eviction: where this prompt does not
//! fit beside what is believed to be cached, the price of computing as many tokens again, times the share of prompt tokens that
//! were hits in the window. Equal costs go to the first. If the most loaded has more than `imbalance_factor` times the least,
//! what would be exploited there explores. Preble also copies hot prefixes when their queue doubles; not modelled.

use std::collections::VecDeque;

use rustc_hash::FxHashMap;
use schemars::JsonSchema;
use serde::de::Error as _;
use serde::{Deserialize, Serialize};

use super::belief::{Belief, Keeping};
use super::median::Median;
use super::prices::{self, Prefills};
use super::{Decision, Feedback, Glance, PolicyInfo, Router, Server, Sight};
use crate::request::{Arrival, RequestId};
use crate::time::{Span, Time};

/// `[router.parameters]` of this policy.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Parameters {
    /// A match of more than this share of the prompt is exploited.
    pub exploit_above: f64,
    /// Where the most loaded has more than so many times the least, it is left.
    pub imbalance_factor: f64,
    /// How long what was sent counts as load, seconds.
    pub window_s: f64,
    /// Time a token before any was seen, seconds.
    pub initial_tpot_s: f64,
}

impl Default for Parameters {
    fn default() -> Self {
        Parameters { exploit_above: 0.5, imbalance_factor: 1.5, window_s: 180.0, initial_tpot_s: 0.15 }
    }
}

/// The entry of this policy in the list.
pub const INFO: PolicyInfo = PolicyInfo {
    name: "preble-e2",
    family: "prefix-cache aware",
    reads: "own belief in prefixes, own sends of three minutes, answers' lengths and times, price list",
    upstream: "Preble E2, AIBrix prefix-cache-preble",
    default_freshness: None,
    build: |parameters, _seed, _gateway| {
        let parameters: Parameters = parameters.clone().try_into()?;
        if !(0.0..=1.0).contains(&parameters.exploit_above) || !(1.0..).contains(&parameters.imbalance_factor)
        {
            return Err(toml::de::Error::custom(
                "`exploit_above` must be 0 to 1, `imbalance_factor` at least 1",
            ));
        }
        let year = 0.0..=31_536_000.0;
        if !year.contains(&parameters.window_s) || !year.contains(&parameters.initial_tpot_s) {
            return Err(toml::de::Error::custom(
                "`window_s` and `initial_tpot_s` must be at least 0, and at most a year",
            ));
        }
        Ok(Box::new(PrebleE2 {
            window: Span::from_s_f64(parameters.window_s),
            parameters,
            belief: None,
            sent: VecDeque::new(),
            servers: Vec::new(),
            tokens: (0, 0),
            decided: FxHashMap::default(),
            first_tokens: FxHashMap::default(),
            outputs: Median::of_newest(1_024),
            token_times_ps: Median::of_newest(1_024),
            prefills: Prefills::default(),
            costs: Vec::new(),
        }))
    },
};

/// What an answer is taken to be long before any was seen: AIBrix's constant.
const INITIAL_OUTPUT_TOKENS: u64 = 45;

/// What was sent where, and what it cost.
#[derive(Clone, Debug)]
pub struct PrebleE2 {
    parameters: Parameters,
    window: Span,
    belief: Option<Belief>,
    /// Within the window, oldest first.
    sent: VecDeque<Sent>,
    /// Prices within the window, in picoseconds.
    servers: Vec<u64>,
    /// Prompt tokens within the window, and those that were hits.
    tokens: (u64, u64),
    /// What was believed of requests whose decision has not taken effect: cached tokens, and their own price.
    decided: FxHashMap<RequestId, (u32, u64)>,
    first_tokens: FxHashMap<RequestId, Time>,
    outputs: Median,
    token_times_ps: Median,
    prefills: Prefills,
    costs: Vec<Cost>,
}

#[derive(Clone, Copy, Debug)]
struct Sent {
    at: Time,
    server: Server,
    price_ps: u64,
    prompt_tokens: u32,
    hit_tokens: u32,
}

#[derive(Clone, Copy, Debug)]
struct Cost {
    server: Server,
    load_ps: u64,
    eviction_ps: u64,
    own_ps: u64,
    cached: u32,
}

impl Cost {
    fn whole(&self) -> u64 {
        self.load_ps + self.eviction_ps + self.own_ps
    }
}

impl PrebleE2 {
    fn forget(&mut self, now: Time) {
        while self.sent.front().is_some_and(|sent| now.saturating_since(sent.at) > self.window) {
            let Some(old) = self.sent.pop_front() else { break };
            self.servers[old.server] -= old.price_ps;
            self.tokens.0 -= u64::from(old.prompt_tokens);
            self.tokens.1 -= u64::from(old.hit_tokens);
        }
    }

    fn weigh(&mut self, arrival: &Arrival, glance: &dyn Glance) {
        let servers = glance.servers();
        let among = glance.candidates();
        let engine = &glance.facts(0).engine;
        let keeping = Keeping {
            block_tokens: engine.block_size,
            most_blocks: Some(engine.num_gpu_blocks as usize),
            ttl: None,
            most_matched: u32::MAX,
        };
        let belief = self.belief.get_or_insert_with(|| Belief::new(keeping));
        let decode_ps = self.outputs.get().unwrap_or(INITIAL_OUTPUT_TOKENS) as f64
            * self.token_times_ps.get().map_or(self.parameters.initial_tpot_s * 1e12, |ps| ps as f64);
        let hit_share = self.tokens.1 as f64 / self.tokens.0.max(1) as f64;
        self.costs.clear();
        belief.matched(arrival, servers, glance.now(), false);
        for server in among.iter() {
            let cached = belief.last_matched()[server] * keeping.block_tokens;
            let facts = glance.facts(server);
            let new_blocks = (arrival.prompt_tokens - cached).div_ceil(keeping.block_tokens);
            let blocks = belief.blocks_at(server) as u64 + u64::from(new_blocks);
            let evicted = blocks.saturating_sub(u64::from(facts.engine.num_gpu_blocks));
            let again =
                self.prefills.time_of(facts, evicted * u64::from(keeping.block_tokens)).as_ps() as f64;
            let in_flight = f64::from(glance.mine(server).in_flight);
            self.costs.push(Cost {
                server,
                load_ps: self.servers[server].saturating_add((in_flight * decode_ps) as u64),
                eviction_ps: (again * hit_share) as u64,
                own_ps: prices::uncached(facts, arrival.prompt_tokens, cached).as_ps(),
                cached,
            });
        }
    }
}

impl Router for PrebleE2 {
    fn sight(&self) -> Sight {
        Sight { responses: true, first_tokens: true, ..Sight::default() }
    }

    fn meet(&mut self, servers: usize) {
        self.servers.resize(servers, 0);
    }

    fn decide(&mut self, arrival: &Arrival, glance: &mut dyn Glance) -> Decision {
        self.forget(glance.now());
        self.weigh(arrival, glance);
        let costs = &self.costs;
        let longest = costs.iter().map(|cost| cost.cached).max().unwrap_or(0);
        let loads = || costs.iter().map(|cost| cost.load_ps);
        let (least, most) = (loads().min().unwrap_or(0), loads().max().unwrap_or(0));
        let uneven = most as f64 > self.parameters.imbalance_factor * least as f64;
        let exploits = f64::from(longest) > self.parameters.exploit_above * f64::from(arrival.prompt_tokens);
        let places = || 0..costs.len();
        let explored = || places().min_by_key(|&place| costs[place].whole()).unwrap_or(0);
        let chosen = match exploits {
            false => explored(),
            true => {
                let holders = places().filter(|&place| costs[place].cached == longest);
                let holder = holders.min_by_key(|&place| costs[place].load_ps).unwrap_or(0);
                if uneven && costs[holder].load_ps == most { explored() } else { holder }
            }
        };
        let Cost { server, cached, own_ps, .. } = costs[chosen];
        self.decided.insert(arrival.id, (cached, own_ps));
        Decision::Send(server)
    }

    fn committed(&mut self, arrival: &Arrival, server: Server, at: Time) {
        let (hit_tokens, price_ps) = self.decided.remove(&arrival.id).unwrap_or((0, 0));
        self.servers[server] += price_ps;
        self.tokens.0 += u64::from(arrival.prompt_tokens);
        self.tokens.1 += u64::from(hit_tokens);
        self.sent.push_back(Sent { at, server, price_ps, prompt_tokens: arrival.prompt_tokens, hit_tokens });
        let servers = self.servers.len();
        if let Some(belief) = &mut self.belief {
            belief.sent(arrival, servers, server, at);
        }
    }

    fn heard(&mut self, feedback: &Feedback) {
        match *feedback {
            Feedback::FirstToken { id, at, .. } => {
                self.first_tokens.insert(id, at);
            }
            Feedback::Completed { id, at, output_tokens, .. } => {
                self.outputs.add(u64::from(output_tokens));
                if let Some(first) = self.first_tokens.remove(&id)
                    && output_tokens > 1
                {
                    self.token_times_ps
                        .add(at.saturating_since(first).as_ps() / u64::from(output_tokens - 1));
                }
            }
            Feedback::Failed { id, .. } => {
                self.first_tokens.remove(&id);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::router::tests::{Scene, at_s, policy, prompt};

    /// A new prompt of 1,000 tokens costs 35.03 ms, a request in flight 45 * 0.15 s.
    #[test]
    fn a_long_match_is_exploited_until_its_replica_has_too_much() {
        let mut scene = Scene::of(2);
        let mut router = policy("preble-e2", "");
        // Nobody has it: the first of equals, and then whoever has nothing in flight.
        assert_eq!(scene.commit(&mut *router, &prompt(0, 1, 1_000)), 0);
        assert_eq!(scene.commit(&mut *router, &prompt(1, 2, 1_000)), 1);
        // More than half is at the first, whose load equals the second's.
        assert_eq!(scene.send(&mut *router, &prompt(2, 1, 1_200)), 0);
        // Less than half: the second of equal loads is as good, and the first has a part of it cached.
        assert_eq!(scene.send(&mut *router, &prompt(3, 1, 5_000)), 0);
        // Two in flight against one are more than 1.5 times: it explores, and 6.75 s outweigh the hit.
        scene.mine[0].in_flight = 2;
        assert_eq!(scene.send(&mut *router, &prompt(4, 1, 1_200)), 1);
        let mut patient = policy("preble-e2", "imbalance_factor = 10");
        scene.mine[0].in_flight = 0;
        scene.commit(&mut *patient, &prompt(0, 1, 1_000));
        scene.mine[0].in_flight = 2;
        assert_eq!(scene.send(&mut *patient, &prompt(4, 1, 1_200)), 0);
    }

    #[test]
    fn what_was_sent_counts_for_three_minutes() {
        let mut scene = Scene::of(2);
        let mut router = policy("preble-e2", "");
        scene.commit(&mut *router, &prompt(0, 1, 4_000));
        scene.mine[0].in_flight = 0;
        assert_eq!(scene.send(&mut *router, &prompt(1, 2, 100)), 1);
        scene.now = at_s(281);
        assert_eq!(scene.send(&mut *router, &prompt(2, 2, 100)), 0);
    }
}
