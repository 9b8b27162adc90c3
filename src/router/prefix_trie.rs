//! `prefix-trie`: any of those that were sent the longest beginning of the prompt.
//!
//! vLLM production-stack `prefixaware`: a trie of chunks of 128 characters (32 tokens here) that forgets nothing; uniform among
//! the replicas at the deepest match, which on a miss are all. A match below `prefix_min_match_length` goes where fewest were
//! sent in the last minute. The chosen one is entered. Knows no load: a common beginning draws everything.

use rand::RngExt;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::belief::{Belief, Keeping};
use super::{Decision, Glance, PolicyInfo, Router, Server, Sight, fewest_in_flight};
use crate::random::{Purpose, Stream};
use crate::request::Arrival;
use crate::time::Time;

/// 128 characters, four taken as a token.
const CHUNK_TOKENS: u32 = 32;

/// `[router.parameters]` of this policy.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Parameters {
    /// Tokens that must match, or the replica with the fewest requests in flight is taken.
    pub prefix_min_match_tokens: u32,
}

/// The entry of this policy in the list.
pub const INFO: PolicyInfo = PolicyInfo {
    name: "prefix-trie",
    family: "prefix-cache aware",
    reads: "own prefix belief",
    upstream: "vLLM production-stack prefixaware",
    default_freshness: None,
    build: |parameters, seed, gateway| {
        let Parameters { prefix_min_match_tokens } = parameters.clone().try_into()?;
        let keeping =
            Keeping { block_tokens: CHUNK_TOKENS, most_blocks: None, ttl: None, most_matched: u32::MAX };
        Ok(Box::new(PrefixTrie {
            least_tokens: prefix_min_match_tokens,
            belief: Belief::new(keeping),
            servers: 0,
            stream: seed.stream(Purpose::Routing, gateway),
        }))
    },
};

/// The trie.
#[derive(Clone, Debug)]
pub struct PrefixTrie {
    least_tokens: u32,
    belief: Belief,
    servers: usize,
    stream: Stream,
}

impl Router for PrefixTrie {
    fn sight(&self) -> Sight {
        Sight { responses: self.least_tokens > 0, ..Sight::default() }
    }

    fn decide(&mut self, arrival: &Arrival, glance: &mut dyn Glance) -> Decision {
        self.servers = glance.servers();
        let among = glance.candidates();
        let matched = self.belief.matched(arrival, self.servers, glance.now(), false);
        let deepest = among.iter().map(|server| matched[server]).max().unwrap_or(0);
        if deepest * CHUNK_TOKENS < self.least_tokens {
            return Decision::Send(fewest_in_flight(&among, glance));
        }
        let mut best = among.iter().filter(|&server| matched[server] == deepest);
        let place = self.stream.random_range(0..best.clone().count());
        Decision::Send(best.nth(place).unwrap_or(among.at(0)))
    }

    fn committed(&mut self, arrival: &Arrival, server: Server, at: Time) {
        self.belief.sent(arrival, self.servers, server, at);
    }
}

#[cfg(test)]
mod tests {
    use crate::router::tests::{Scene, policy, prompt};

    #[test]
    fn the_deepest_match_draws_all_and_a_miss_goes_anywhere() {
        let mut router = policy("prefix-trie", "");
        let mut scene = Scene::of(4);
        let home = scene.commit(&mut *router, &prompt(0, 7, 320));
        assert!((1..50).all(|id| scene.commit(&mut *router, &prompt(id, 7, 320)) == home));
        let mut met: Vec<_> =
            (50..90).map(|id| scene.commit(&mut *router, &prompt(id, 1_000 + u64::from(id), 320))).collect();
        met.sort_unstable();
        met.dedup();
        assert_eq!(met, [0, 1, 2, 3]);
        let mut shy = policy("prefix-trie", "prefix_min_match_tokens = 321");
        let mut scene = Scene::in_flight(&[3, 1, 2]);
        shy.committed(&prompt(0, 7, 320), 0, scene.now);
        assert_eq!(scene.send(&mut *shy, &prompt(1, 7, 320)), 1);
    }
}
