//! `power-of-two`: the less loaded of two replicas drawn at random.
//!
//! nginx `random two least_conn`, HAProxy `random(2)`, Envoy and gRPC LEAST_REQUEST, SMG `power_of_two`, Ray
//! Serve's default. Two (`choices`) distinct replicas are drawn; the one with fewer requests in flight, by the
//! gateway's own count, is chosen, and of equals the one drawn first.

use rand::RngExt;
use schemars::JsonSchema;
use serde::de::Error as _;
use serde::{Deserialize, Serialize};

use super::{Decision, Glance, PolicyInfo, Router, Server, Sight};
use crate::random::{Purpose, Seed, Stream};
use crate::request::Arrival;

/// `[router.parameters]` of this policy.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Parameters {
    /// Replicas drawn for each decision, at least 1.
    pub choices: u32,
}

impl Default for Parameters {
    fn default() -> Self {
        Parameters { choices: 2 }
    }
}

/// The entry of this policy in the list.
pub const INFO: PolicyInfo = PolicyInfo {
    name: "power-of-two",
    family: "own counts",
    reads: "own requests in flight",
    upstream: "nginx random two least_conn, HAProxy random(2), Envoy and gRPC LEAST_REQUEST, SMG power_of_two, Ray Serve",
    default_freshness: None,
    build: |parameters, seed, gateway| {
        let Parameters { choices } = parameters.clone().try_into()?;
        if choices == 0 {
            return Err(toml::de::Error::custom("`choices` must be at least 1"));
        }
        Ok(Box::new(PowerOfTwo::new(choices, seed, gateway)))
    },
};

/// Join the shorter of a few queues.
#[derive(Clone, Debug)]
pub struct PowerOfTwo {
    choices: usize,
    stream: Stream,
    drawn: Vec<Server>,
}

impl PowerOfTwo {
    /// The policy of gateway `gateway`, which draws `choices` replicas (or all, where there are fewer).
    pub fn new(choices: u32, seed: Seed, gateway: u64) -> PowerOfTwo {
        let stream = seed.stream(Purpose::Routing, gateway);
        PowerOfTwo { choices: choices as usize, stream, drawn: Vec::new() }
    }
}

impl Router for PowerOfTwo {
    fn sight(&self) -> Sight {
        Sight { responses: true, ..Sight::default() }
    }

    fn decide(&mut self, _arrival: &Arrival, glance: &mut dyn Glance) -> Decision {
        let among = glance.candidates();
        self.drawn.clear();
        while self.drawn.len() < self.choices.min(among.len()) {
            let server = among.at(self.stream.random_range(0..among.len()));
            if !self.drawn.contains(&server) {
                self.drawn.push(server);
            }
        }
        let mut chosen = self.drawn[0];
        for &server in &self.drawn[1..] {
            if glance.mine(server).in_flight < glance.mine(chosen).in_flight {
                chosen = server;
            }
        }
        Decision::Send(chosen)
    }
}

#[cfg(test)]
mod tests {
    use crate::router::tests::{Scene, policy, prompt};

    /// How often each of three is chosen out of 3,000 times.
    fn sent(parameters: &str, in_flight: &[u32; 3]) -> [u32; 3] {
        let mut router = policy("power-of-two", parameters);
        let mut scene = Scene::in_flight(in_flight);
        let mut sent = [0; 3];
        (0..3_000).for_each(|id| sent[scene.send(&mut *router, &prompt(id, 1, 10))] += 1);
        sent
    }

    /// Pairs are equally likely: the least busy wins two of three, the second one, the busiest none.
    #[test]
    fn the_less_busy_of_two_that_are_drawn() {
        let [least, second, busiest] = sent("", &[1, 4, 9]);
        assert!(busiest == 0 && (1_923..2_077).contains(&least), "{least} {second} {busiest}");
        assert_eq!(sent("choices = 3", &[4, 1, 9]), [0, 3_000, 0]);
        assert_eq!(sent("choices = 99", &[4, 1, 9]), [0, 3_000, 0]);
    }

    /// Equals: the one drawn first, which is anybody.
    #[test]
    fn equals_are_told_apart_by_chance() {
        let sent = sent("", &[5, 5, 5]);
        assert!(sent.iter().all(|count| (923..1_077).contains(count)), "{sent:?}");
    }
}
