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
