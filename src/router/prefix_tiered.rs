//! `prefix-tiered`: best match, or else who has least cached; two random ones when loads part.
//!
//! Ray Serve LLM `PrefixCacheAffinityRouter`: while the longest and shortest queue differ by less than `imbalanced_threshold`
//! (infinite since ray#59390): a match of at least 10 % goes to the best matching, of equals to the shorter queue; a smaller
//! one to the smallest tree; before anything is known, and when loads part, the shorter queue of two random replicas. The
//! tree goes by characters; here by blocks of 16 tokens. Nothing is evicted, as by default.

use rand::RngExt;
use schemars::JsonSchema;
use serde::de::Error as _;
use serde::{Deserialize, Serialize};

use super::belief::{Belief, Keeping};
use super::{Decision, Glance, PolicyInfo, Router, Server, Sight, least_and_most_in_flight};
use crate::random::{Purpose, Stream};
use crate::request::Arrival;
use crate::time::Time;

/// Tokens of a block of the tree.
const BLOCK_TOKENS: u32 = 16;

/// `[router.parameters]` of this policy.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Parameters {
    /// Loads part at this difference; infinite unless given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub imbalanced_threshold: Option<u32>,
    /// Share of the prompt that must match.
    pub match_rate_threshold: f64,
}

impl Default for Parameters {
    fn default() -> Self {
        Parameters { imbalanced_threshold: None, match_rate_threshold: 0.1 }
    }
}

/// The entry of this policy in the list.
pub const INFO: PolicyInfo = PolicyInfo {
    name: "prefix-tiered",
    family: "prefix-cache aware",
    reads: "own prefix belief, own requests in flight",
    upstream: "Ray Serve LLM PrefixCacheAffinityRouter",
    default_freshness: None,
    build: |parameters, seed, gateway| {
        let parameters: Parameters = parameters.clone().try_into()?;
        if !(0.0..=1.0).contains(&parameters.match_rate_threshold) {
            return Err(toml::de::Error::custom("`match_rate_threshold` must be 0 to 1"));
        }
        let keeping =
            Keeping { block_tokens: BLOCK_TOKENS, most_blocks: None, ttl: None, most_matched: u32::MAX };
        let stream = seed.stream(Purpose::Routing, gateway);
        Ok(Box::new(PrefixTiered { parameters, belief: Belief::new(keeping), servers: 0, stream }))
    },
};

/// The tree.
#[derive(Clone, Debug)]
pub struct PrefixTiered {
    parameters: Parameters,
    belief: Belief,
    servers: usize,
    stream: Stream,
}

impl Router for PrefixTiered {
    fn sight(&self) -> Sight {
        Sight { responses: true, ..Sight::default() }
    }

    fn decide(&mut self, arrival: &Arrival, glance: &mut dyn Glance) -> Decision {
        let (servers, among) = (glance.servers(), glance.candidates());
        self.servers = servers;
        let (least, most) = least_and_most_in_flight(glance);
        let load = |server: Server| glance.mine(server).in_flight;
        let parted = self.parameters.imbalanced_threshold.is_some_and(|threshold| most - least >= threshold);
        if parted || among.iter().all(|server| self.belief.blocks_at(server) == 0) {
            let first = self.stream.random_range(0..among.len());
            let second = (first + self.stream.random_range(0..among.len().max(2) - 1) + 1) % among.len();
            let (first, second) = (among.at(first), among.at(second));
            return Decision::Send(if load(second) < load(first) { second } else { first });
        }
        let matched = self.belief.matched(arrival, servers, glance.now(), false);
        let longest = among.iter().map(|server| matched[server]).max().unwrap_or(0);
        let rate = f64::from(longest * BLOCK_TOKENS) / f64::from(arrival.prompt_tokens.max(1));
        let chosen = if rate >= self.parameters.match_rate_threshold {
            among.iter().filter(|&server| matched[server] == longest).min_by_key(|&server| load(server))
        } else {
            among.iter().min_by_key(|&server| (self.belief.blocks_at(server), load(server)))
        };
        Decision::Send(chosen.unwrap_or(among.at(0)))
    }

    fn committed(&mut self, arrival: &Arrival, server: Server, at: Time) {
        self.belief.sent(arrival, self.servers, server, at);
    }
}

#[cfg(test)]
mod tests {
    use crate::router::tests::{Scene, policy, prompt};

    #[test]
    fn a_tenth_that_matches_is_enough() {
        let mut router = policy("prefix-tiered", "imbalanced_threshold = 10");
        let mut scene = Scene::of(2);
        let home = scene.commit(&mut *router, &prompt(0, 7, 160));
        // 160 of 1,600 are a tenth, of 1,700 they are not: then the smaller tree, which is empty.
        assert_eq!(scene.send(&mut *router, &prompt(1, 7, 1_600)), home);
        assert_eq!(scene.send(&mut *router, &prompt(2, 7, 1_700)), 1 - home);
        // Ten more in flight: of the two replicas the one with the shorter queue, whatever matches.
        scene.mine[home].in_flight = 10;
        assert_eq!(scene.send(&mut *router, &prompt(3, 7, 160)), 1 - home);
    }
}
