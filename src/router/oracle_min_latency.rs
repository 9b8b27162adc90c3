//! `oracle-min-latency`: the replica that would really finish this request first, if nobody came after it.
//!
//! A bound for policies, and no policy: it forks every replica with the true output lengths and runs the forks on. Equal ends
//! go to the fewest in flight, then to the first. Greedy: it does not foresee who comes next, nor what the request does to others.

use super::round_robin::Parameters;
use super::{Clairvoyance, Decision, Glance, PolicyInfo, Router, Server, Sight};
use crate::request::Arrival;
use crate::time::Time;

/// The entry of this policy in the list.
pub const INFO: PolicyInfo = PolicyInfo {
    name: "oracle-min-latency",
    family: "bound",
    reads: "true output lengths, true state of engines: a bound that no gateway can reach by its own means",
    upstream: "none",
    default_freshness: None,
    build: |parameters, _seed, _gateway| {
        let Parameters {} = parameters.clone().try_into()?;
        Ok(Box::new(OracleMinLatency::default()))
    },
};

/// Knows everything but the future.
#[derive(Clone, Debug, Default)]
pub struct OracleMinLatency {
    order: Vec<Server>,
}

impl Router for OracleMinLatency {
    fn sight(&self) -> Sight {
        Sight { responses: true, clairvoyant: true, ..Sight::default() }
    }

    fn decide(&mut self, _arrival: &Arrival, _glance: &mut dyn Glance) -> Decision {
        unreachable!("a clairvoyant policy is asked by `decide_knowing`")
    }

    fn decide_knowing(&mut self, _arrival: &Arrival, knows: &mut dyn Clairvoyance) -> Decision {
        self.order.clear();
        self.order.extend(knows.candidates().iter());
        self.order.sort_by_key(|&server| knows.mine(server).in_flight);
        let mut best: Option<(Time, Server)> = None;
        for &server in &self.order {
            let until = best.map_or(Time::MAX, |(end, _)| end);
            match knows.true_completion(server, until) {
                Some(end) if best.is_none_or(|(soonest, _)| end < soonest) => best = Some((end, server)),
                _ => {}
            }
        }
        // A request that can end nowhere is refused wherever it goes.
        Decision::Send(best.map_or(self.order[0], |(_, server)| server))
    }
}
