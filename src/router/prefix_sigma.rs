//! `prefix-sigma`: the best match among those that are not far above the mean.
//!
//! AIBrix `prefix-cache`: if max - min of the gateway's requests in flight exceeds 8, only those at the minimum are asked.
//! Then by match, the greatest first, equals by load; the first whose load is at most mean + 1 sigma; nobody: least
//! request, ties at random. The chosen one is entered; what was not used for 20 minutes is forgotten. AIBrix hashes blocks of
//! four characters; here they are 16 tokens.

use schemars::JsonSchema;
use serde::de::Error as _;
use serde::{Deserialize, Serialize};

use super::belief::{Belief, Keeping};
use super::{Decision, Glance, Picker, PolicyInfo, Router, Server, Sight, Ties, least_and_most_in_flight};
use crate::request::Arrival;
use crate::time::{Span, Time};

/// `[router.parameters]` of this policy.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Parameters {
    /// Loads are uneven beyond this difference.
    pub imbalance_threshold: u32,
    /// A match may be so many standard deviations above the mean load.
    pub sigma: f64,
    /// What was not used for so long is forgotten, seconds.
    pub ttl_s: f64,
}

impl Default for Parameters {
    fn default() -> Self {
        Parameters { imbalance_threshold: 8, sigma: 1.0, ttl_s: 1_200.0 }
    }
}

/// The entry of this policy in the list.
pub const INFO: PolicyInfo = PolicyInfo {
    name: "prefix-sigma",
    family: "prefix-cache aware",
    reads: "own prefix belief, own requests in flight",
    upstream: "AIBrix prefix-cache",
    default_freshness: None,
    build: |parameters, seed, gateway| {
        let parameters: Parameters = parameters.clone().try_into()?;
        if !(parameters.sigma >= 0.0 && parameters.ttl_s > 0.0 && parameters.ttl_s <= 31_536_000.0) {
            return Err(toml::de::Error::custom(
                "`sigma` must be at least 0, `ttl_s` above 0 and at most a year",
            ));
        }
        let keeping = Keeping {
            block_tokens: 16,
            most_blocks: Some(200_000),
            ttl: Some(Span::from_s_f64(parameters.ttl_s)),
            most_matched: u32::MAX,
        };
        Ok(Box::new(PrefixSigma {
            parameters,
            belief: Belief::new(keeping),
            servers: 0,
            picker: Picker::new(Ties::Random, seed, gateway),
        }))
    },
};

/// What is believed to be cached.
#[derive(Clone, Debug)]
pub struct PrefixSigma {
    parameters: Parameters,
    belief: Belief,
    servers: usize,
    picker: Picker,
}

impl Router for PrefixSigma {
    fn sight(&self) -> Sight {
        Sight { responses: true, ..Sight::default() }
    }

    fn decide(&mut self, arrival: &Arrival, glance: &mut dyn Glance) -> Decision {
        self.servers = glance.servers();
        let among = glance.candidates();
        let load = |server: Server| glance.mine(server).in_flight;
        let (least, most) = least_and_most_in_flight(glance);
        let uneven = most - least > self.parameters.imbalance_threshold;
        let asked = among.iter().filter(|&server| !uneven || load(server) == least);
        let loads = asked.clone().map(|server| f64::from(load(server)));
        let count = loads.clone().count() as f64;
        let mean = loads.clone().sum::<f64>() / count;
        let variance = loads.map(|load| (load - mean).powi(2)).sum::<f64>() / count;
        let bound = mean + self.parameters.sigma * variance.sqrt();
        let matched = self.belief.matched(arrival, self.servers, glance.now(), false);
        let fits = |server: &Server| matched[*server] > 0 && f64::from(load(*server)) <= bound;
        let best = asked
            .clone()
            .filter(fits)
            .min_by_key(|&server| (std::cmp::Reverse(matched[server]), load(server)));
        Decision::Send(match best {
            Some(server) => server,
            None => self.picker.least(asked.map(|server| (server, load(server)))),
        })
    }

    fn committed(&mut self, arrival: &Arrival, server: Server, at: Time) {
        self.belief.sent(arrival, self.servers, server, at);
    }
}

#[cfg(test)]
mod tests {
    use crate::router::tests::{Scene, policy, prompt};

    #[test]
    fn a_match_counts_as_far_as_one_sigma() {
        let mut router = policy("prefix-sigma", "");
        let mut scene = Scene::of(4);
        let home = scene.commit(&mut *router, &prompt(0, 7, 320));
        let mut others = (0..4).filter(|server| *server != home);
        // 4, 2, 1, 1: mean 2, sigma sqrt(1.5) = 1.22; 4 is above, 3 in 3, 2, 1, 2 (2 + 0.71) is too, 3 in 3, 3, 1, 1 is not.
        let (a, b, c) = (others.next().unwrap(), others.next().unwrap(), others.next().unwrap());
        let mut with = |counts: [u32; 4]| {
            for (server, count) in [home, a, b, c].into_iter().zip(counts) {
                scene.mine[server].in_flight = count;
            }
            scene.send(&mut *router, &prompt(1, 7, 320)) == home
        };
        assert!(!with([4, 2, 1, 1]) && !with([3, 2, 1, 2]) && with([3, 3, 1, 1]));
        // Nine more than the least: only those at the minimum are asked.
        assert!(!with([9, 9, 0, 0]) && with([8, 8, 0, 0]));
    }
}
