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
