//! `drain-time`: requests in flight over the rate at which they have been ending.
//!
//! AIBrix `load-balance` (June 2026): argmin running / drain, running being the gateway's own count and drain the completions
//! of the last minute, a second; 1.0 where none is known. Ties at random.

use std::collections::VecDeque;

use super::{Decision, Feedback, Glance, Picker, PolicyInfo, Router, Sight, TieParameters};
use crate::request::Arrival;
use crate::time::{Span, Time};

/// Completions count for so long.
const WINDOW: Span = Span::from_s(60);
/// Where there were none.
const UNKNOWN_PER_S: f64 = 1.0;

/// The entry of this policy in the list.
pub const INFO: PolicyInfo = PolicyInfo {
    name: "drain-time",
    family: "own counts",
    reads: "own requests in flight, own completions of a minute",
    upstream: "AIBrix load-balance",
    default_freshness: None,
    build: |parameters, seed, gateway| {
        let TieParameters { ties } = parameters.clone().try_into()?;
        Ok(Box::new(DrainTime { picker: Picker::new(ties, seed, gateway), ends: Vec::new() }))
    },
};

/// Completions of the last minute by replica.
#[derive(Clone, Debug)]
pub struct DrainTime {
    picker: Picker,
    ends: Vec<VecDeque<Time>>,
}

impl Router for DrainTime {
    fn sight(&self) -> Sight {
        Sight { responses: true, ..Sight::default() }
    }

    fn meet(&mut self, servers: usize) {
        self.ends.resize(servers, VecDeque::new());
    }

    fn decide(&mut self, _arrival: &Arrival, glance: &mut dyn Glance) -> Decision {
        let (among, now) = (glance.candidates(), glance.now());
        let ends = &mut self.ends;
        let scores = among.iter().map(|server| {
            let ends = &mut ends[server];
            while ends.pop_front_if(|at| now.saturating_since(*at) > WINDOW).is_some() {}
            let drain = if ends.is_empty() { UNKNOWN_PER_S } else { ends.len() as f64 / WINDOW.as_s() };
            (server, f64::from(glance.mine(server).in_flight) / drain)
        });
        Decision::Send(self.picker.least(scores))
    }

    fn heard(&mut self, feedback: &Feedback) {
        if let Feedback::Completed { server, at, .. } = *feedback {
            self.ends[server].push_back(at);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::request::RequestId;
    use crate::router::tests::{Scene, at_s, policy, prompt};

    #[test]
    fn who_ends_more_may_have_more() {
        let mut router = policy("drain-time", "");
        router.meet(2);
        let mut scene = Scene::in_flight(&[6, 4]);
        let mut end = |server, seconds| {
            let id = RequestId(0);
            router.heard(&Feedback::Completed { id, server, at: at_s(seconds), output_tokens: 1 });
        };
        // 120 and 60 a minute: 6 / 2 = 3 s against 4 / 1 = 4 s.
        (0..120).for_each(|_| end(0, 60));
        (0..60).for_each(|_| end(1, 60));
        assert_eq!(scene.send(&mut *router, &prompt(0, 1, 10)), 0);
        // A minute later nothing is known any more: 6 against 4.
        scene.now = at_s(121);
        assert_eq!(scene.send(&mut *router, &prompt(0, 1, 10)), 1);
    }
}
