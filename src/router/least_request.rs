//! `least-request`: fewest requests in flight, by the gateway's own count.
//!
//! AIBrix `least-request` (ties at random, the default here), LiteLLM `least-busy` (the first), HAProxy
//! `leastconn` (rotating), nginx `least_conn`, Dynamo `least-loaded`: argmin f, with f the requests sent and
//! not yet seen to end. Reads nothing of the engines.

use super::in_flight::InFlight;
use super::{Decision, Feedback, Glance, PolicyInfo, Router, Server, Sight, TieParameters, Ties};
use crate::random::Seed;
use crate::request::Arrival;
use crate::time::Time;

/// The entry of this policy in the list.
pub const INFO: PolicyInfo = PolicyInfo {
    name: "least-request",
    family: "own counts",
    reads: "own requests in flight",
    upstream: "AIBrix least-request, LiteLLM least-busy, HAProxy leastconn, nginx least_conn, Dynamo least-loaded",
    default_freshness: None,
    build: |parameters, seed, gateway| {
        let TieParameters { ties } = parameters.clone().try_into()?;
        Ok(Box::new(LeastRequest::new(ties, seed, gateway)))
    },
};

/// Join the shortest queue.
#[derive(Clone, Debug)]
pub struct LeastRequest {
    in_flight: InFlight,
}

impl LeastRequest {
    /// The policy of gateway `gateway`.
    pub fn new(ties: Ties, seed: Seed, gateway: u64) -> LeastRequest {
        LeastRequest { in_flight: InFlight::new(ties, seed, gateway) }
    }
}

impl Router for LeastRequest {
    fn sight(&self) -> Sight {
        Sight { responses: true, ..Sight::default() }
    }

    fn meet(&mut self, servers: usize) {
        self.in_flight.grow(servers);
    }

    fn decide(&mut self, _arrival: &Arrival, glance: &mut dyn Glance) -> Decision {
        Decision::Send(self.in_flight.fewest(glance.servers(), &glance.candidates()))
    }

    fn committed(&mut self, _arrival: &Arrival, server: Server, _at: Time) {
        self.in_flight.sent(server);
    }

    fn heard(&mut self, feedback: &Feedback) {
        if let Feedback::Completed { server, .. } | Feedback::Failed { server, .. } = *feedback {
            self.in_flight.ended(server);
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::request::RequestId;
    use crate::router::Feedback;
    use crate::router::tests::{Scene, policy, prompt};

    #[test]
    fn the_fewest_in_flight_and_equals_by_their_rule() {
        let mut router = policy("least-request", "ties = \"first\"");
        let mut scene = Scene::of(3);
        let sent: Vec<_> = (0..5).map(|id| scene.commit(&mut *router, &prompt(id, 1, 10))).collect();
        assert_eq!(sent, [0, 1, 2, 0, 1]);
        // Its answers to the first and the last of replica 1 have come: nothing is in flight there.
        for id in [1, 4] {
            let at = scene.now;
            router.heard(&Feedback::Completed { id: RequestId(id), server: 1, at, output_tokens: 3 });
        }
        assert_eq!(scene.commit(&mut *router, &prompt(5, 1, 10)), 1);
        let mut rotating = policy("least-request", "ties = \"rotating\"");
        let mut scene = Scene::of(3);
        assert_eq!(scene.commit(&mut *rotating, &prompt(0, 1, 10)), 0);
        rotating.heard(&Feedback::Completed { id: RequestId(0), server: 0, at: scene.now, output_tokens: 3 });
        assert_eq!(
            scene.commit(&mut *rotating, &prompt(1, 1, 10)),
            1,
            "the first behind the one chosen last"
        );
    }
}
