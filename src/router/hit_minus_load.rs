//! `hit-minus-load`: cached share of the prompt less the load above the mean.
//!
//! vLLM production-stack `loadaware` (August 2026): argmax of matched / L - beta (load - mean) / max(1, mean), beta 1, with load the
//! router's own requests in flight and matched looked up in the engines' caches; the first of equals.

use schemars::JsonSchema;
use serde::de::Error as _;
use serde::{Deserialize, Serialize};

use super::{Decision, Glance, Picker, PolicyInfo, Router, Server, Sight, Ties};
use crate::request::Arrival;

/// `[router.parameters]` of this policy.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Parameters {
    /// What load counts against a hit.
    pub beta: f64,
}

impl Default for Parameters {
    fn default() -> Self {
        Parameters { beta: 1.0 }
    }
}

/// The entry of this policy in the list.
pub const INFO: PolicyInfo = PolicyInfo {
    name: "hit-minus-load",
    family: "prefix-cache aware",
    reads: "KV events, own requests in flight",
    upstream: "vLLM production-stack loadaware",
    default_freshness: None,
    build: |parameters, seed, gateway| {
        let Parameters { beta } = parameters.clone().try_into()?;
        if !(beta >= 0.0 && beta.is_finite()) {
            return Err(toml::de::Error::custom("`beta` must be at least 0"));
        }
        Ok(Box::new(HitMinusLoad { beta, picker: Picker::new(Ties::First, seed, gateway) }))
    },
};

/// The balance of both.
#[derive(Clone, Debug)]
pub struct HitMinusLoad {
    beta: f64,
    picker: Picker,
}

impl Router for HitMinusLoad {
    fn sight(&self) -> Sight {
        Sight { responses: true, kv_events: true, ..Sight::default() }
    }

    fn decide(&mut self, arrival: &Arrival, glance: &mut dyn Glance) -> Decision {
        let among = glance.candidates();
        let load = |glance: &dyn Glance, server: Server| f64::from(glance.mine(server).in_flight);
        let mean = among.iter().map(|server| load(glance, server)).sum::<f64>() / among.len() as f64;
        let score = |server: Server| {
            let cached = f64::from(glance.cached_tokens(server, arrival));
            let hit = cached / f64::from(arrival.prompt_tokens.max(1));
            (server, self.beta * (load(glance, server) - mean) / mean.max(1.0) - hit)
        };
        Decision::Send(self.picker.least(among.iter().map(score)))
    }
}

#[cfg(test)]
mod tests {
    use crate::router::tests::{Scene, policy, prompt};

    /// Loads 6, 2, 1: mean 3. Hit 0.8 - 1 = -0.2 against 0.1 + 1/3 and 0 + 2/3.
    #[test]
    fn a_hit_is_worth_so_much_load() {
        let mut router = policy("hit-minus-load", "");
        let mut scene = Scene::in_flight(&[6, 2, 1]);
        scene.cached = vec![80, 10, 0];
        assert_eq!(scene.send(&mut *router, &prompt(0, 1, 100)), 2);
        let mut light = policy("hit-minus-load", "beta = 0.1");
        assert_eq!(scene.send(&mut *light, &prompt(1, 1, 100)), 0);
    }
}
