//! `random`: a uniform draw. nginx `random`, Envoy RANDOM, AIBrix `random`, EPP `random-picker`.

use rand::RngExt;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Decision, Glance, PolicyInfo, Router, Sight};
use crate::random::{Purpose, Seed, Stream};
use crate::request::Arrival;

/// `[router.parameters]` of this policy: none.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Parameters {}

/// The entry of this policy in the list.
pub const INFO: PolicyInfo = PolicyInfo {
    name: "random",
    family: "oblivious",
    reads: "nothing",
    upstream: "nginx random, Envoy RANDOM, AIBrix random, EPP random-picker",
    default_freshness: None,
    build: |parameters, seed, gateway| {
        let Parameters {} = parameters.clone().try_into()?;
        Ok(Box::new(Random::new(seed, gateway)))
    },
};

/// Every replica with the same probability, whatever its state.
#[derive(Clone, Debug)]
pub struct Random {
    stream: Stream,
}

impl Random {
    /// The policy of gateway `gateway`.
    pub fn new(seed: Seed, gateway: u64) -> Random {
        Random { stream: seed.stream(Purpose::Routing, gateway) }
    }
}

impl Router for Random {
    fn sight(&self) -> Sight {
        Sight::default()
    }

    fn decide(&mut self, _arrival: &Arrival, glance: &mut dyn Glance) -> Decision {
        let among = glance.candidates();
        Decision::Send(among.at(self.stream.random_range(0..among.len())))
    }
}

#[cfg(test)]
mod tests {
    use crate::router::tests::{Scene, policy, prompt};

    #[test]
    fn everybody_gets_his_share_whatever_his_load() {
        let mut router = policy("random", "");
        let mut scene = Scene::in_flight(&[900, 0, 3]);
        let mut sent = [0; 3];
        (0..3_000).for_each(|id| sent[scene.send(&mut *router, &prompt(id, 1, 10))] += 1);
        // Three standard deviations of a third of 3,000.
        assert!(sent.iter().all(|count| (923..1_077).contains(count)), "{sent:?}");
    }
}
