//! A gateway: a policy, what it sees, and whom it keeps waiting.

use std::collections::{BTreeSet, VecDeque};

use super::FleetConfig;
use super::admission::Bucket;
use super::health::Roster;
use super::incidents::Gone;
use super::kv_events::Subscriber;
use crate::random::Purpose;
use crate::request::RequestId;
use crate::router::{Feedback, Router, Server, Sight, View};
use crate::time::{Span, Time};

use rand::RngExt;

/// One of the fleet's gateways.
pub(super) struct Gateway {
    pub(super) router: Box<dyn Router>,
    pub(super) sight: Sight,
    pub(super) view: View,
    /// What it has been told of caches, if it listens and anything about that is not ideal.
    pub(super) index: Option<Subscriber>,
    pub(super) held: VecDeque<RequestId>,
    pub(super) roster: Roster,
    pub(super) bucket: Bucket,
    /// Tries it has sent whose end it has not heard.
    pub(super) in_flight: u32,
    /// Its health checks fall on this, and every interval after it.
    pub(super) check_phase: Span,
    /// Its process is not there.
    pub(super) gone: Option<Gone>,
    /// How many were lost in this place.
    pub(super) lost: u32,
    /// How many policies were made anew in this place.
    pub(super) renewals: u32,
    /// What is out and it counts no more: its counters were lost while this was under way.
    pub(super) forgotten: BTreeSet<RequestId>,
    /// The class of whoever left its queue last.
    pub(super) last_class: Option<u16>,
}

impl Gateway {
    /// Gateway `number`, which starts at `since` in front of `servers` replicas.
    pub(super) fn new(
        number: usize,
        mut router: Box<dyn Router>,
        servers: usize,
        config: &FleetConfig,
        since: Time,
    ) -> Gateway {
        router.meet(servers);
        let view = View::new(servers, config.freshness, config.impairments.staleness_limit);
        let mut phases = config.seed.stream(Purpose::CheckPhase, number as u64);
        let check_phase = Span::from_ps(phases.random_range(0..config.health.interval.as_ps()));
        let bucket = Bucket::new(&config.admission);
        let roster = Roster::new(servers, &config.health);
        let sight = router.sight();
        let FleetConfig { impairments, seed, .. } = config;
        let listens = sight.kv_events && impairments.are_of_kv_events();
        Gateway {
            index: listens.then(|| Subscriber::new(number, servers, since, *seed, impairments)),
            sight,
            router,
            view,
            held: VecDeque::new(),
            roster,
            check_phase,
            bucket,
            in_flight: 0,
            gone: None,
            lost: 0,
            renewals: 0,
            forgotten: BTreeSet::new(),
            last_class: None,
        }
    }

    /// Something passes it, or it is told of what passes another.
    pub(super) fn hears(&mut self, feedback: &Feedback, server: Server, ended: bool) {
        if ended {
            self.view.ended(server);
        }
        self.router.heard(feedback);
    }
}
