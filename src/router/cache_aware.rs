//! `cache-aware`: the longest match in an approximate tree while loads are even, the shortest queue while they are not.
//!
//! SGLang's router, SMG and vLLM's fork of it (`cache_aware.rs`). Uneven: max - min > balance_abs_threshold and
//! max > balance_rel_threshold * min of the gateway's own requests in flight; then argmin load, ties by fewer requests so far,
//! then by index. Even: the longest match over the prompt's length above cache_threshold: the one that matches; else the
//! least loaded (`fallback = "smallest-tree"`: older releases took who had least cached, sglang#14532). The prompt is entered
//! for whoever is chosen. Defaults are the command line's: 0.3, 64, 1.5; the library's are 0.5, 32, 1.1.
//!
//! The tree goes by characters; here it goes by blocks of 16 tokens. One hot replica switches every request to the shortest
//! queue (sglang#32195).

use schemars::JsonSchema;
use serde::de::Error as _;
use serde::{Deserialize, Serialize};

use super::belief::{Belief, Keeping};
use super::{Decision, Glance, PolicyInfo, Router, Server, Sight, least_and_most_in_flight};
use crate::request::Arrival;
use crate::time::Time;

/// Who gets a prompt that matches nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Fallback {
    /// The least loaded.
    #[default]
    LeastLoaded,
    /// Who has the smallest tree.
    SmallestTree,
}

/// `[router.parameters]` of this policy.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Parameters {
    /// Share of the prompt that must match.
    pub cache_threshold: f64,
    /// Loads are uneven beyond this difference ...
    pub balance_abs_threshold: u32,
    /// ... and this ratio.
    pub balance_rel_threshold: f64,
    /// Characters that the tree holds, four taken as a token, shared evenly among the replicas.
    pub max_tree_size: u64,
    /// Who gets a prompt that matches nothing.
    pub fallback: Fallback,
}

impl Default for Parameters {
    fn default() -> Self {
        Parameters {
            cache_threshold: 0.3,
            balance_abs_threshold: 64,
            balance_rel_threshold: 1.5,
            max_tree_size: 1 << 26,
            fallback: Fallback::LeastLoaded,
        }
    }
}

/// The entry of this policy in the list.
pub const INFO: PolicyInfo = PolicyInfo {
    name: "cache-aware",
    family: "prefix-cache aware",
    reads: "own prefix belief, own requests in flight",
    upstream: "SGLang and SMG cache_aware (default), vLLM router cache_aware",
    default_freshness: None,
    build: |parameters, _seed, _gateway| {
        let parameters: Parameters = parameters.clone().try_into()?;
        if !(0.0..=1.0).contains(&parameters.cache_threshold)
            || !(0.0..).contains(&parameters.balance_rel_threshold)
        {
            return Err(toml::de::Error::custom(
                "`cache_threshold` must be 0 to 1, `balance_rel_threshold` at least 0",
            ));
        }
        Ok(Box::new(CacheAware { parameters, belief: None, processed: Vec::new() }))
    },
};

/// Tokens of a block of the tree.
const BLOCK_TOKENS: u32 = 16;
const CHARACTERS_A_TOKEN: u64 = 4;

/// The tree, and how many requests each replica has had.
#[derive(Clone, Debug)]
pub struct CacheAware {
    parameters: Parameters,
    belief: Option<Belief>,
    processed: Vec<u64>,
}

impl CacheAware {
    fn belief(&mut self, servers: usize) -> &mut Belief {
        let tokens = self.parameters.max_tree_size / CHARACTERS_A_TOKEN / servers as u64;
        let keeping = Keeping {
            block_tokens: BLOCK_TOKENS,
            most_blocks: Some((tokens / u64::from(BLOCK_TOKENS)).max(1) as usize),
            ttl: None,
            most_matched: u32::MAX,
        };
        self.belief.get_or_insert_with(|| Belief::new(keeping))
    }
}

impl Router for CacheAware {
    fn sight(&self) -> Sight {
        Sight { responses: true, ..Sight::default() }
    }

    fn meet(&mut self, servers: usize) {
        self.processed.resize(servers, 0);
    }

    fn decide(&mut self, arrival: &Arrival, glance: &mut dyn Glance) -> Decision {
        let (servers, now) = (glance.servers(), glance.now());
        let among = glance.candidates();
        let (least, most) = least_and_most_in_flight(glance);
        let Parameters { cache_threshold, balance_abs_threshold, balance_rel_threshold, fallback, .. } =
            self.parameters;
        let uneven = most - least > balance_abs_threshold
            && f64::from(most) > balance_rel_threshold * f64::from(least);
        if !uneven {
            let matched = self.belief(servers).matched(arrival, servers, now, false);
            let longest = among.iter().map(|server| matched[server]).max().unwrap_or(0);
            let rate = f64::from(longest * BLOCK_TOKENS) / f64::from(arrival.prompt_tokens.max(1));
            if rate > cache_threshold {
                return Decision::Send(
                    among.iter().find(|server| matched[*server] == longest).unwrap_or(among.at(0)),
                );
            }
            if fallback == Fallback::SmallestTree {
                let belief = self.belief(servers);
                let tree = |server: &Server| belief.blocks_at(*server);
                return Decision::Send(among.iter().min_by_key(tree).unwrap_or(among.at(0)));
            }
        }
        let rank = |server: &Server| (glance.mine(*server).in_flight, self.processed[*server]);
        Decision::Send(among.iter().min_by_key(rank).unwrap_or(among.at(0)))
    }

    fn committed(&mut self, arrival: &Arrival, server: Server, at: Time) {
        let servers = self.processed.len().max(server + 1);
        self.processed.resize(servers, 0);
        self.processed[server] += 1;
        self.belief(servers).sent(arrival, servers, server, at);
    }
}

#[cfg(test)]
mod tests {
    use crate::router::tests::{Scene, policy, prompt};

    #[test]
    fn matches_decide_while_loads_are_even() {
        let mut router = policy("cache-aware", "");
        let mut scene = Scene::of(3);
        let home = scene.commit(&mut *router, &prompt(0, 7, 640));
        assert!((1..60).all(|id| scene.commit(&mut *router, &prompt(id, 7, 640)) == home));
        // 30 % of 2,000 tokens are not matched by 640.
        assert_eq!(scene.send(&mut *router, &prompt(60, 7, 2_100)), home);
        assert_ne!(scene.send(&mut *router, &prompt(61, 7, 2_200)), home);
        // 65 against 0: uneven, and all, whatever they match, join the shortest queue (sglang#32195).
        scene.mine[home].in_flight = 65;
        assert_ne!(scene.send(&mut *router, &prompt(62, 7, 640)), home);
        // 195 against 131: 64 more are not yet more than 64.
        scene.mine.iter_mut().for_each(|mine| mine.in_flight = 131);
        scene.mine[home].in_flight = 195;
        assert_eq!(scene.send(&mut *router, &prompt(63, 7, 640)), home);
    }

    /// The smallest tree is that of the replica that is stuck, and it gets every miss (sglang#14532).
    #[test]
    fn the_smallest_tree_is_a_trap() {
        let mut router = policy("cache-aware", "fallback = \"smallest-tree\"");
        let mut scene = Scene::of(2);
        let long = scene.commit(&mut *router, &prompt(0, 1, 6_400));
        let to_other =
            (1..30).filter(|id| scene.commit(&mut *router, &prompt(*id, 100 + u64::from(*id), 160)) != long);
        assert_eq!(to_other.count(), 29);
    }
}
