//! `session-sticky`: a session stays where it was first sent; new ones go where the fewest are.
//!
//! vLLM router `sticky_least_loaded`, SMG `manual` with `min_group`: fewest active sessions, ties by rendezvous hash of the
//! session; a session that was idle for two hours is forgotten (SMG: 4 h). Requests without a session go to the fewest in
//! flight and are not remembered.

use rustc_hash::FxHashMap;
use schemars::JsonSchema;
use serde::de::Error as _;
use serde::{Deserialize, Serialize};

use super::{Decision, Glance, PolicyInfo, Router, Server, Sight, fewest_in_flight};
use crate::random::mix;
use crate::request::Arrival;
use crate::time::{Span, Time};

/// `[router.parameters]` of this policy.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Parameters {
    /// A session that is idle for so long is forgotten, seconds.
    pub ttl_s: f64,
}

impl Default for Parameters {
    fn default() -> Self {
        Parameters { ttl_s: 7_200.0 }
    }
}

/// The entry of this policy in the list.
pub const INFO: PolicyInfo = PolicyInfo {
    name: "session-sticky",
    family: "affinity",
    reads: "session, own sessions and requests in flight",
    upstream: "vLLM router sticky_least_loaded, SMG manual (min_group), AIBrix session-affinity, Dynamo session affinity",
    default_freshness: None,
    build: |parameters, _seed, _gateway| {
        let Parameters { ttl_s } = parameters.clone().try_into()?;
        if !(ttl_s > 0.0 && ttl_s <= 31_536_000.0) {
            return Err(toml::de::Error::custom("`ttl_s` must be above 0, and at most a year"));
        }
        Ok(Box::new(SessionSticky {
            ttl: Span::from_s_f64(ttl_s),
            homes: FxHashMap::default(),
            counts: Vec::new(),
            swept: Time::ZERO,
        }))
    },
};

/// Forgotten sessions are looked for so often.
const SWEEP: Span = Span::from_s(60);

/// Homes of sessions.
#[derive(Clone, Debug)]
pub struct SessionSticky {
    ttl: Span,
    /// Never walked but to forget, and that in no order that shows.
    homes: FxHashMap<u64, (Server, Time)>,
    counts: Vec<u32>,
    swept: Time,
}

impl Router for SessionSticky {
    fn sight(&self) -> Sight {
        Sight { responses: true, ..Sight::default() }
    }

    fn meet(&mut self, servers: usize) {
        self.counts.resize(servers, 0);
    }

    fn decide(&mut self, arrival: &Arrival, glance: &mut dyn Glance) -> Decision {
        let (among, now) = (glance.candidates(), glance.now());
        let Some(session) = arrival.session else {
            return Decision::Send(fewest_in_flight(&among, glance));
        };
        if now.saturating_since(self.swept) >= SWEEP {
            let (ttl, counts) = (self.ttl, &mut self.counts);
            self.homes.retain(|_, (server, used)| {
                let kept = now.saturating_since(*used) <= ttl;
                counts[*server] -= u32::from(!kept);
                kept
            });
            self.swept = now;
        }
        // Who cannot be reached is home no more.
        if let Some((server, _)) = self.homes.get(&session)
            && among.contains(*server)
        {
            return Decision::Send(*server);
        }
        let rank = |server: &Server| (self.counts[*server], mix(mix(session) ^ *server as u64));
        Decision::Send(among.iter().min_by_key(rank).unwrap_or(among.at(0)))
    }

    fn committed(&mut self, arrival: &Arrival, server: Server, at: Time) {
        let Some(session) = arrival.session else { return };
        match self.homes.insert(session, (server, at)) {
            Some((before, _)) if before == server => {}
            before => {
                self.counts[server] += 1;
                if let Some((before, _)) = before {
                    self.counts[before] -= 1;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::router::tests::{Scene, at_s, policy, prompt};

    #[test]
    fn sessions_are_shared_out_and_stay() {
        let mut router = policy("session-sticky", "ttl_s = 100");
        let mut scene = Scene::of(3);
        let mut send = |scene: &mut Scene, session: u64| {
            scene.commit(&mut *router, &Arrival { session: Some(session), ..prompt(0, 1, 10) })
        };
        let homes: Vec<_> = (0..9).map(|session| send(&mut scene, session)).collect();
        assert!((0..3).all(|server| homes.iter().filter(|home| **home == server).count() == 3), "{homes:?}");
        scene.now = at_s(150);
        assert!((0..4).all(|session| send(&mut scene, session) == homes[session as usize]));
        // Five were idle for too long; the next ones fill up what they left.
        scene.now = at_s(240);
        let next: Vec<_> = (20..25).map(|session| send(&mut scene, session)).collect();
        let all = homes[..4].iter().chain(&next);
        let counts = all.fold([0; 3], |mut counts, home| {
            counts[*home] += 1;
            counts
        });
        assert_eq!(counts, [3, 3, 3]);
    }
}
