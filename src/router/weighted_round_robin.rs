//! `weighted-round-robin`: in turn, in proportion to weights, and spread as evenly as they allow.
//!
//! nginx's smooth weighted round robin (`ngx_http_upstream_round_robin.c`), HAProxy `roundrobin`, Envoy ROUND_ROBIN: at each
//! decision every credit grows by its weight, the greatest (the first of equals) is chosen, and loses the sum of all
//! weights. Reads nothing.

use schemars::JsonSchema;
use serde::de::Error as _;
use serde::{Deserialize, Serialize};

use super::{Decision, Glance, PolicyInfo, Router, Sight};
use crate::request::Arrival;

/// `[router.parameters]` of this policy.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Parameters {
    /// A weight a replica, in order; 1 for those that are not named.
    pub weights: Vec<f64>,
}

/// The entry of this policy in the list.
pub const INFO: PolicyInfo = PolicyInfo {
    name: "weighted-round-robin",
    family: "oblivious",
    reads: "nothing",
    upstream: "nginx (default), HAProxy roundrobin, Envoy ROUND_ROBIN",
    default_freshness: None,
    build: |parameters, _seed, _gateway| {
        let Parameters { weights } = parameters.clone().try_into()?;
        let usable = weights.iter().all(|weight| *weight >= 0.0 && weight.is_finite());
        if !usable || !weights.is_empty() && weights.iter().all(|weight| *weight == 0.0) {
            return Err(toml::de::Error::custom(
                "`weights` must be numbers of at least 0, not all of them 0",
            ));
        }
        Ok(Box::new(WeightedRoundRobin { weights, credits: Vec::new(), failure: None }))
    },
};

/// Credits by replica.
#[derive(Clone, Debug)]
pub struct WeightedRoundRobin {
    weights: Vec<f64>,
    credits: Vec<f64>,
    failure: Option<String>,
}

impl Router for WeightedRoundRobin {
    fn sight(&self) -> Sight {
        Sight::default()
    }

    fn meet(&mut self, servers: usize) {
        if self.weights.len() > servers {
            let named = self.weights.len();
            self.failure =
                Some(format!("router.parameters.weights names {named} replicas, and there are {servers}"));
        }
    }

    fn failure(&self) -> Option<&str> {
        self.failure.as_deref()
    }

    fn decide(&mut self, _arrival: &Arrival, glance: &mut dyn Glance) -> Decision {
        self.credits.resize(glance.servers(), 0.0);
        let mut total = 0.0;
        let among = glance.candidates();
        let mut chosen = among.at(0);
        for server in among.iter() {
            let weight = self.weights.get(server).copied().unwrap_or(1.0);
            total += weight;
            self.credits[server] += weight;
            if self.credits[server] > self.credits[chosen] {
                chosen = server;
            }
        }
        self.credits[chosen] -= total;
        Decision::Send(chosen)
    }
}

#[cfg(test)]
mod tests {
    use crate::router::tests::{Scene, policy, prompt};

    /// The example of nginx's own commit message: weights 5, 1, 1 give a a b a c a a.
    #[test]
    fn turns_are_spread() {
        let mut router = policy("weighted-round-robin", "weights = [5, 1, 1]");
        let mut scene = Scene::of(3);
        let turns: Vec<_> = (0..7).map(|id| scene.send(&mut *router, &prompt(id, 1, 10))).collect();
        assert_eq!(turns, [0, 0, 1, 0, 2, 0, 0]);
    }
}
