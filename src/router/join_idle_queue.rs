//! `join-idle-queue`: any replica with nothing in flight, else any.
//!
//! JIQ (Lu et al., Performance 2011), EPP `active-request-scorer` with maxBusyScore 0: uniform among the idle by the gateway's
//! own count, uniform among all where nobody is.

use rand::RngExt;

use super::round_robin::Parameters;
use super::{Decision, Glance, PolicyInfo, Router, Sight};
use crate::random::{Purpose, Stream};
use crate::request::Arrival;

/// The entry of this policy in the list.
pub const INFO: PolicyInfo = PolicyInfo {
    name: "join-idle-queue",
    family: "own counts",
    reads: "own requests in flight",
    upstream: "EPP active-request-scorer with maxBusyScore 0",
    default_freshness: None,
    build: |parameters, seed, gateway| {
        let Parameters {} = parameters.clone().try_into()?;
        Ok(Box::new(JoinIdleQueue { stream: seed.stream(Purpose::Routing, gateway) }))
    },
};

/// An idle replica, if there is one.
#[derive(Clone, Debug)]
pub struct JoinIdleQueue {
    stream: Stream,
}

impl Router for JoinIdleQueue {
    fn sight(&self) -> Sight {
        Sight { responses: true, ..Sight::default() }
    }

    fn decide(&mut self, _arrival: &Arrival, glance: &mut dyn Glance) -> Decision {
        let among = glance.candidates();
        let mut idle = among.iter().filter(|&server| glance.mine(server).in_flight == 0);
        let place = match idle.clone().count() {
            0 => return Decision::Send(among.at(self.stream.random_range(0..among.len()))),
            count => self.stream.random_range(0..count),
        };
        Decision::Send(idle.nth(place).unwrap_or(among.at(0)))
    }
}

#[cfg(test)]
mod tests {
    use crate::router::tests::{Scene, policy, prompt};

    #[test]
    fn only_the_idle_are_chosen_while_there_are_some() {
        let mut router = policy("join-idle-queue", "");
        let mut scene = Scene::in_flight(&[1, 0, 5, 0]);
        let mut sent = [0; 4];
        (0..200).for_each(|id| sent[scene.send(&mut *router, &prompt(id, 1, 10))] += 1);
        assert!(sent[0] == 0 && sent[2] == 0 && sent[1] > 70 && sent[3] > 70, "{sent:?}");
        let mut busy = Scene::in_flight(&[1, 9]);
        assert!((0..50).any(|id| busy.send(&mut *router, &prompt(id, 1, 10)) == 1));
    }
}
