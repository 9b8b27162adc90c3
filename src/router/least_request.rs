//! `least-request`: fewest requests in flight, by the gateway's own count.
//!
//! AIBrix `least-request` (ties at random, the default here), LiteLLM `least-busy` (the first), HAProxy
//! `leastconn` (rotating), nginx `least_conn`, Dynamo `least-loaded`: argmin f, with f the requests sent and
//! not yet seen to end. Reads nothing of the engines.

use super::{Decision, Glance, Picker, PolicyInfo, Router, Sight, TieParameters, Ties};
use crate::random::Seed;
use crate::request::Arrival;

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
    picker: Picker,
}

impl LeastRequest {
    /// The policy of gateway `gateway`.
    pub fn new(ties: Ties, seed: Seed, gateway: u64) -> LeastRequest {
        LeastRequest { picker: Picker::new(ties, seed, gateway) }
    }
}

impl Router for LeastRequest {
    fn sight(&self) -> Sight {
        Sight { responses: true, ..Sight::default() }
    }

    fn decide(&mut self, _arrival: &Arrival, glance: &mut dyn Glance) -> Decision {
        let glance = &*glance;
        let scores = (0..glance.servers()).map(|server| (server, glance.mine(server).in_flight));
        Decision::Send(self.picker.least(scores))
    }
}
