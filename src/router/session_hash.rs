//! `session-hash`: a session's key on a consistent-hash ring.
//!
//! production-stack `session` (uhashring), vLLM router `consistent_hash`, SMG `consistent_hashing`: 160 points a replica; a
//! request without a session goes where fewest were sent in the last minute, never used ones first. Knows no load: heavy
//! sessions that fall together stay together.

use std::collections::VecDeque;

use schemars::JsonSchema;
use serde::de::Error as _;
use serde::{Deserialize, Serialize};

use super::ring::Ring;
use super::{Decision, Glance, PolicyInfo, Router, Server, Sight};
use crate::request::Arrival;
use crate::time::{Span, Time};

/// Sends count for so long where there is no session.
const WINDOW: Span = Span::from_s(60);

/// `[router.parameters]` of this policy.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Parameters {
    /// Points of each replica on the ring.
    pub virtual_nodes: u32,
}

impl Default for Parameters {
    fn default() -> Self {
        Parameters { virtual_nodes: 160 }
    }
}

/// The entry of this policy in the list.
pub const INFO: PolicyInfo = PolicyInfo {
    name: "session-hash",
    family: "affinity",
    reads: "session",
    upstream: "production-stack session, vLLM router consistent_hash, SMG consistent_hashing, nginx hash consistent",
    default_freshness: None,
    build: |parameters, _seed, _gateway| {
        let Parameters { virtual_nodes } = parameters.clone().try_into()?;
        if !(1..=65_537).contains(&virtual_nodes) {
            return Err(toml::de::Error::custom("`virtual_nodes` must be 1 to 65537"));
        }
        Ok(Box::new(SessionHash { ring: Ring::new(virtual_nodes), sends: Vec::new() }))
    },
};

/// The ring, and when requests without a session were sent where.
#[derive(Clone, Debug)]
pub struct SessionHash {
    ring: Ring,
    sends: Vec<VecDeque<Time>>,
}

impl Router for SessionHash {
    fn sight(&self) -> Sight {
        Sight::default()
    }

    fn meet(&mut self, servers: usize) {
        self.sends.resize(servers, VecDeque::new());
    }

    fn decide(&mut self, arrival: &Arrival, glance: &mut dyn Glance) -> Decision {
        let (servers, now) = (glance.servers(), glance.now());
        let among = glance.candidates();
        if let Some(session) = arrival.session {
            return Decision::Send(self.ring.first(session, servers, &among));
        }
        for sends in &mut self.sends {
            while sends.pop_front_if(|at| now.saturating_since(*at) > WINDOW).is_some() {}
        }
        let fewest = |server: &Server| self.sends[*server].len();
        Decision::Send(among.iter().min_by_key(fewest).unwrap_or(among.at(0)))
    }

    fn committed(&mut self, _arrival: &Arrival, server: Server, at: Time) {
        self.sends[server].push_back(at);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::router::tests::{Scene, policy, prompt};

    #[test]
    fn a_session_stays_and_the_others_go_where_least_went() {
        let mut router = policy("session-hash", "");
        let mut scene = Scene::of(4);
        let of = |id: u32, session| Arrival { session, ..prompt(id, 1, 10) };
        let home = scene.commit(&mut *router, &of(0, Some(42)));
        assert!((1..20).all(|id| scene.commit(&mut *router, &of(id, Some(42))) == home));
        let spread: Vec<_> = (20..23).map(|id| scene.commit(&mut *router, &of(id, None))).collect();
        assert!(!spread.contains(&home), "{spread:?}");
    }
}
