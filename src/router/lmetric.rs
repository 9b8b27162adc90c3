//! `lmetric`: prompt tokens still to be computed times the batch they would join.
//!
//! LMetric (arXiv 2603.15202), Dynamo's `lmetric` selection: argmin of (T + u) (b + 1), T the uncached prompt tokens in flight
//! there by the gateway's own count, u this request's own, b the requests in flight; the first of equals. No weight to
//! tune. Cached tokens are looked up in the engines' caches.

use super::in_flight_tokens::InFlightTokens;
use super::round_robin::Parameters;
use super::{Decision, Feedback, Glance, Picker, PolicyInfo, Router, Server, Sight, Ties};
use crate::request::Arrival;
use crate::time::Time;

/// The entry of this policy in the list.
pub const INFO: PolicyInfo = PolicyInfo {
    name: "lmetric",
    family: "prefix-cache aware",
    reads: "KV events, own prompt tokens and requests in flight",
    upstream: "LMetric, Dynamo lmetric",
    default_freshness: None,
    build: |parameters, seed, gateway| {
        let Parameters {} = parameters.clone().try_into()?;
        Ok(Box::new(LMetric {
            picker: Picker::new(Ties::First, seed, gateway),
            in_flight: InFlightTokens::default(),
            uncached: Vec::new(),
        }))
    },
};

/// Prompt tokens in flight.
#[derive(Clone, Debug)]
pub struct LMetric {
    picker: Picker,
    in_flight: InFlightTokens,
    /// Of the prompt being decided, by replica.
    uncached: Vec<u64>,
}

impl Router for LMetric {
    fn sight(&self) -> Sight {
        Sight { responses: true, first_tokens: true, kv_events: true, ..Sight::default() }
    }

    fn decide(&mut self, arrival: &Arrival, glance: &mut dyn Glance) -> Decision {
        let among = glance.candidates();
        self.uncached.clear();
        self.uncached.resize(glance.servers(), 0);
        for server in among.iter() {
            self.uncached[server] =
                u64::from(arrival.prompt_tokens.saturating_sub(glance.cached_tokens(server, arrival)));
        }
        let score = |server: Server| {
            let batch = u64::from(glance.mine(server).in_flight) + 1;
            (server, (self.in_flight.at(server) + self.uncached[server]) * batch)
        };
        let chosen = self.picker.least(among.iter().map(score));
        self.in_flight.decide(arrival.id, self.uncached[chosen]);
        Decision::Send(chosen)
    }

    fn committed(&mut self, arrival: &Arrival, server: Server, _at: Time) {
        self.in_flight.commit(arrival.id, server, u64::from(arrival.prompt_tokens));
    }

    fn heard(&mut self, feedback: &Feedback) {
        self.in_flight.release(feedback.id());
    }
}

#[cfg(test)]
mod tests {
    use crate::router::tests::{Scene, policy, prompt};

    /// (0 + 100) * 5 = 500, (0 + 200) * 2 = 400, (0 + 200) * 3 = 600; then (200 + 200) * 3 = 1,200 at the second.
    #[test]
    fn the_product_decides() {
        let mut router = policy("lmetric", "");
        let mut scene = Scene::in_flight(&[4, 1, 2]);
        scene.cached = vec![100, 0, 0];
        assert_eq!(scene.commit(&mut *router, &prompt(0, 1, 200)), 1);
        assert_eq!(scene.commit(&mut *router, &prompt(1, 1, 200)), 0);
    }
}
