//! A gateway: a policy, what it sees, and whom it keeps waiting.

use std::collections::VecDeque;

use super::FleetConfig;
use crate::request::RequestId;
use crate::router::{Feedback, Router, Server, Sight, View};

/// One of the fleet's gateways.
pub(super) struct Gateway {
    pub(super) router: Box<dyn Router>,
    pub(super) sight: Sight,
    pub(super) view: View,
    pub(super) held: VecDeque<RequestId>,
}

impl Gateway {
    /// A gateway in front of `servers` replicas.
    pub(super) fn new(mut router: Box<dyn Router>, servers: usize, config: &FleetConfig) -> Gateway {
        router.meet(servers);
        let view = View::new(servers, config.freshness, config.impairments.staleness_limit);
        Gateway { sight: router.sight(), router, view, held: VecDeque::new() }
    }

    /// Something passes it, or it is told of what passes another.
    pub(super) fn hears(&mut self, feedback: &Feedback, server: Server, ended: bool) {
        if ended {
            self.view.ended(server);
        }
        self.router.heard(feedback);
    }
}
