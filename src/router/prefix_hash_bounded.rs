//! `prefix-hash-bounded`: the prompt's first tokens on a consistent-hash ring, past whoever has too much.
//!
//! KubeAI `PrefixHash` (consistent hashing with bounded loads): key of the first 100 characters, four taken as a token; 256
//! points a replica; clockwise to the first whose requests in flight are at most 1.25 (total + 1) / n; nobody: the first. SMG
//! `prefix_hash` takes 256 tokens and 150 points, and from a full owner goes to the least loaded under the bound
//! (`overflow = "least-loaded"`). HAProxy `hash-balance-factor` is the same walk with a key of its own.

use schemars::JsonSchema;
use serde::de::Error as _;
use serde::{Deserialize, Serialize};

use super::ring::Ring;
use super::{Decision, Glance, PolicyInfo, Router, Server, Sight};
use crate::replica::block_keys::leading_keys;
use crate::request::Arrival;

/// Who follows an owner that has too much.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Overflow {
    /// The next on the ring that has not (KubeAI, HAProxy).
    #[default]
    Clockwise,
    /// The least loaded of those that have not (SMG).
    LeastLoaded,
}

/// `[router.parameters]` of this policy.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Parameters {
    /// Tokens of the prompt that make the key.
    pub prefix_tokens: u32,
    /// Points of each replica on the ring.
    pub virtual_nodes: u32,
    /// A replica may have so many times the mean load.
    pub load_factor: f64,
    /// Who follows an owner that has more.
    pub overflow: Overflow,
}

impl Default for Parameters {
    fn default() -> Self {
        Parameters { prefix_tokens: 25, virtual_nodes: 256, load_factor: 1.25, overflow: Overflow::Clockwise }
    }
}

/// The entry of this policy in the list.
pub const INFO: PolicyInfo = PolicyInfo {
    name: "prefix-hash-bounded",
    family: "affinity",
    reads: "prompt's first tokens, own requests in flight",
    upstream: "KubeAI PrefixHash, SMG prefix_hash, HAProxy hash-balance-factor",
    default_freshness: None,
    build: |parameters, _seed, _gateway| {
        let parameters: Parameters = parameters.clone().try_into()?;
        if parameters.prefix_tokens == 0 || !(1..=65_537).contains(&parameters.virtual_nodes) {
            return Err(toml::de::Error::custom(
                "`prefix_tokens` must be at least 1, `virtual_nodes` 1 to 65537",
            ));
        }
        if !(1.0..).contains(&parameters.load_factor) {
            return Err(toml::de::Error::custom("`load_factor` must be at least 1"));
        }
        Ok(Box::new(PrefixHashBounded {
            ring: Ring::new(parameters.virtual_nodes),
            parameters,
            keys: Vec::new(),
        }))
    },
};

/// The ring.
#[derive(Clone, Debug)]
pub struct PrefixHashBounded {
    parameters: Parameters,
    ring: Ring,
    keys: Vec<u64>,
}

impl Router for PrefixHashBounded {
    fn sight(&self) -> Sight {
        Sight { responses: true, ..Sight::default() }
    }

    fn decide(&mut self, arrival: &Arrival, glance: &mut dyn Glance) -> Decision {
        let (servers, among) = (glance.servers(), glance.candidates());
        let tokens = self.parameters.prefix_tokens.min(arrival.prompt_tokens).max(1);
        leading_keys(arrival.id, &arrival.content, tokens, 1, &mut self.keys);
        let load = |server: Server| glance.mine(server).in_flight;
        let total: u32 = among.iter().map(load).sum();
        let bound = self.parameters.load_factor * f64::from(total + 1) / among.len() as f64;
        let fits = |server: &Server| f64::from(load(*server)) <= bound;
        let mut walk = self.ring.walk(self.keys[0], servers, &among).peekable();
        let owner = walk.peek().copied().unwrap_or(among.at(0));
        let chosen = match self.parameters.overflow {
            _ if fits(&owner) => Some(owner),
            Overflow::Clockwise => walk.find(fits),
            Overflow::LeastLoaded => among.iter().filter(fits).min_by_key(|server| load(*server)),
        };
        Decision::Send(chosen.unwrap_or(owner))
    }
}

#[cfg(test)]
mod tests {
    use crate::router::tests::{Scene, policy, prompt};

    #[test]
    fn a_prefix_stays_until_its_owner_has_a_quarter_more_than_its_share() {
        let mut router = policy("prefix-hash-bounded", "");
        let mut scene = Scene::of(4);
        let owner = scene.send(&mut *router, &prompt(0, 7, 500));
        // Another tail, the same first tokens.
        assert_eq!(scene.send(&mut *router, &prompt(1, 7, 900)), owner);
        // 4 of 11: 1.25 * 12 / 4 = 3.75 is exceeded.
        scene.mine.iter_mut().for_each(|mine| mine.in_flight = 2);
        scene.mine[owner].in_flight = 5;
        let next = scene.send(&mut *router, &prompt(2, 7, 500));
        assert_ne!(next, owner);
        // 3 of 9: 1.25 * 10 / 4 = 3.125 is not.
        scene.mine[owner].in_flight = 3;
        assert_eq!(scene.send(&mut *router, &prompt(3, 7, 500)), owner);
        // The least loaded of those under the bound.
        let mut smg = policy(
            "prefix-hash-bounded",
            "overflow = \"least-loaded\"\nprefix_tokens = 256\nvirtual_nodes = 150",
        );
        let owner = scene.send(&mut *smg, &prompt(4, 9, 500));
        scene.mine.iter_mut().for_each(|mine| mine.in_flight = 2);
        scene.mine[owner].in_flight = 9;
        let idle = (owner + 2) % 4;
        scene.mine[idle].in_flight = 1;
        assert_eq!(scene.send(&mut *smg, &prompt(5, 9, 500)), idle);
    }
}
