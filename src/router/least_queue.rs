//! `least-queue`: the shortest `vllm:num_requests_waiting`.
//!
//! EPP `queue-scorer` alone: (max q - q) / (max q - min q), the greatest wins, ties at random, scraped every 50 ms. Nothing
//! local is added, so all arrivals between two scrapes follow the same best replica.

use super::{Decision, Freshness, Glance, Picker, PolicyInfo, Router, Sight, TieParameters};
use crate::request::Arrival;
use crate::time::Span;

/// The entry of this policy in the list.
pub const INFO: PolicyInfo = PolicyInfo {
    name: "least-queue",
    family: "engine gauges",
    reads: "vllm:num_requests_waiting",
    upstream: "EPP queue-scorer",
    default_freshness: Some(Freshness::Polled { interval: Span::from_ms(50) }),
    build: |parameters, seed, gateway| {
        let TieParameters { ties } = parameters.clone().try_into()?;
        Ok(Box::new(LeastQueue { picker: Picker::new(ties, seed, gateway) }))
    },
};

/// Fewest waiting first.
#[derive(Clone, Debug)]
pub struct LeastQueue {
    picker: Picker,
}

impl Router for LeastQueue {
    fn sight(&self) -> Sight {
        Sight { signals: true, ..Sight::default() }
    }

    fn decide(&mut self, _arrival: &Arrival, glance: &mut dyn Glance) -> Decision {
        // Scaling does not change who is least.
        let among = glance.candidates();
        Decision::Send(
            self.picker.least(among.iter().map(|server| (server, glance.signals(server).signals.waiting))),
        )
    }
}

#[cfg(test)]
mod tests {
    use crate::router::tests::{Scene, policy, prompt};

    #[test]
    fn the_shortest_queue_by_gauges_whatever_is_in_flight() {
        let mut router = policy("least-queue", "");
        let mut scene = Scene::in_flight(&[0, 9, 0]);
        (scene.signals[0].waiting, scene.signals[1].waiting, scene.signals[2].waiting) = (4, 1, 2);
        // A burst between two scrapes goes to one replica: the herd on a snapshot.
        assert!((0..8).all(|id| scene.commit(&mut *router, &prompt(id, 1, 10)) == 1));
    }
}
