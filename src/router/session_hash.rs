//! `session-hash`: a session's key on a consistent-hash ring.
//!
//! production-stack `session` (uhashring), vLLM router `consistent_hash`, SMG `consistent_hashing`: 160 points a replica. Knows no load:
//! heavy sessions that fall together stay together. A request without a session goes where fewest were sent in the last minute, never
//! used ones first; other products do otherwise (`without_session`): nginx hashes the empty text, so all of them are one session,
//! HAProxy takes turns, Envoy draws.

use std::collections::VecDeque;

use schemars::JsonSchema;
use serde::de::Error as _;
use serde::{Deserialize, Serialize};

use super::random::Random;
use super::ring::Ring;
use super::round_robin::RoundRobin;
use super::{Decision, Glance, PolicyInfo, Router, Server, Sight};
use crate::request::Arrival;
use crate::time::{Span, Time};

/// The key of a header that is not there.
const EMPTY_KEY: u64 = 0;

/// Sends count for so long where there is no session.
const WINDOW: Span = Span::from_s(60);

/// `[router.parameters]` of this policy.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Parameters {
    /// Points of each replica on the ring.
    pub virtual_nodes: u32,
    /// Where requests without a session go.
    pub without_session: WithoutSession,
}

/// Where requests without a session go.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum WithoutSession {
    /// Where fewest were sent in the last minute (production-stack).
    #[default]
    FewestSent,
    /// All to where an empty key falls (nginx).
    OneKey,
    /// In turn (HAProxy).
    RoundRobin,
    /// Anywhere (Envoy).
    Random,
}

impl Default for Parameters {
    fn default() -> Self {
        Parameters { virtual_nodes: 160, without_session: WithoutSession::FewestSent }
    }
}

/// The entry of this policy in the list.
pub const INFO: PolicyInfo = PolicyInfo {
    name: "session-hash",
    family: "affinity",
    reads: "session",
    upstream: "production-stack session, vLLM router consistent_hash, SMG consistent_hashing, nginx hash consistent",
    default_freshness: None,
    build: |parameters, seed, gateway| {
        let Parameters { virtual_nodes, without_session } = parameters.clone().try_into()?;
        if !(1..=65_537).contains(&virtual_nodes) {
            return Err(toml::de::Error::custom("`virtual_nodes` must be 1 to 65537"));
        }
        Ok(Box::new(SessionHash {
            ring: Ring::new(virtual_nodes),
            without_session,
            sends: Vec::new(),
            turns: RoundRobin::default(),
            anyone: Random::new(seed, gateway),
        }))
    },
};

/// The ring, and when requests without a session were sent where.
#[derive(Clone, Debug)]
pub struct SessionHash {
    ring: Ring,
    without_session: WithoutSession,
    sends: Vec<VecDeque<Time>>,
    turns: RoundRobin,
    anyone: Random,
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
        let key = match (arrival.session, self.without_session) {
            (Some(session), _) => session,
            (None, WithoutSession::OneKey) => EMPTY_KEY,
            (None, WithoutSession::RoundRobin) => return self.turns.decide(arrival, glance),
            (None, WithoutSession::Random) => return self.anyone.decide(arrival, glance),
            (None, WithoutSession::FewestSent) => {
                for sends in &mut self.sends {
                    while sends.pop_front_if(|at| now.saturating_since(*at) > WINDOW).is_some() {}
                }
                let fewest = |server: &Server| self.sends[*server].len();
                return Decision::Send(among.iter().min_by_key(fewest).unwrap_or(among.at(0)));
            }
        };
        Decision::Send(self.ring.first(key, servers, &among))
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

    #[test]
    fn who_has_no_session_goes_as_the_product_has_it() {
        let sent = |way: &str| {
            let mut router = policy("session-hash", &format!("without_session = \"{way}\""));
            let mut scene = Scene::of(4);
            (0..40).map(|id| scene.commit(&mut *router, &prompt(id, 1, 10))).collect::<Vec<_>>()
        };
        let one = sent("one-key");
        assert!(one.iter().all(|server| *server == one[0]));
        assert_eq!(sent("round-robin")[..6], [0, 1, 2, 3, 0, 1]);
        let counts: Vec<_> =
            (0..4).map(|server| sent("random").iter().filter(|one| **one == server).count()).collect();
        assert!(counts.iter().all(|count| (3..20).contains(count)), "{counts:?}");
        assert_eq!(sent("fewest-sent")[..4], [0, 1, 2, 3]);
    }
}
