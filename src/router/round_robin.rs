//! `round-robin`: each in turn, from the first. HAProxy `static-rr`, Dynamo `round-robin`, SMG `round_robin`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Decision, Glance, PolicyInfo, Router, Server, Sight};
use crate::request::Arrival;

/// `[router.parameters]` of this policy: none.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Parameters {}

/// The entry of this policy in the list.
pub const INFO: PolicyInfo = PolicyInfo {
    name: "round-robin",
    family: "oblivious",
    reads: "nothing",
    upstream: "HAProxy static-rr, Dynamo round-robin, SMG round_robin",
    default_freshness: None,
    build: |parameters, _seed, _gateway| {
        let Parameters {} = parameters.clone().try_into()?;
        Ok(Box::new(RoundRobin::default()))
    },
};

/// Replica 0, 1, 2, ... and again; every gateway counts for itself.
#[derive(Clone, Debug, Default)]
pub struct RoundRobin {
    next: Server,
}

impl Router for RoundRobin {
    fn sight(&self) -> Sight {
        Sight::default()
    }

    fn decide(&mut self, _arrival: &Arrival, glance: &mut dyn Glance) -> Decision {
        let among = glance.candidates();
        let next = self.next % glance.servers();
        let place = among.place(next).unwrap_or_else(|behind| behind % among.len());
        let server = among.at(place);
        self.next = server + 1;
        Decision::Send(server)
    }
}

#[cfg(test)]
mod tests {
    use crate::router::tests::{Scene, policy, prompt};

    #[test]
    fn everybody_in_turn_and_who_is_down_is_passed_over() {
        let mut router = policy("round-robin", "");
        let mut scene = Scene::in_flight(&[900, 0, 3]);
        let mut next = |scene: &mut Scene| scene.send(&mut *router, &prompt(0, 1, 10));
        assert_eq!([next(&mut scene), next(&mut scene), next(&mut scene), next(&mut scene)], [0, 1, 2, 0]);
        scene.up = vec![0, 2];
        assert_eq!([next(&mut scene), next(&mut scene), next(&mut scene)], [2, 0, 2]);
    }
}
