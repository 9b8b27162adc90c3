//! What routers see, and when: the state that one gateway holds about its replicas.
//!
//! Knows counts and reports. Does not know where they come from: the fleet fills them in.

use std::sync::Arc;

use super::{Freshness, Mine, Server};
use crate::replica::EngineConfig;
use crate::signals::{Glimpse, Signals};
use crate::step_time::StepTime;
use crate::time::Time;

/// What the operator of a gateway knows of a replica beforehand: the flags it was started with, and the
/// price of a batch on its card, as cost models beside gateways have it (Dynamo's AIConfigurator).
#[derive(Clone, Debug)]
pub struct Facts {
    /// Its flags, resolved.
    pub engine: EngineConfig,
    /// The price of a batch there.
    pub step_time: Arc<dyn StepTime>,
}

/// One gateway's private state.
#[derive(Clone, Debug)]
pub struct View {
    freshness: Freshness,
    mine: Vec<Mine>,
    reports: Vec<Glimpse>,
}

impl View {
    /// A view of `servers` replicas that has seen nothing yet.
    pub fn new(servers: usize, freshness: Freshness) -> View {
        View { freshness, mine: vec![Mine::default(); servers], reports: vec![Glimpse::default(); servers] }
    }

    /// How old the gauges are that it reads.
    pub fn freshness(&self) -> Freshness {
        self.freshness
    }

    /// Its own counts of a replica.
    pub fn mine(&self, server: Server) -> Mine {
        self.mine[server]
    }

    /// The last report of a replica's gauges.
    pub fn report(&self, server: Server) -> Glimpse {
        self.reports[server]
    }

    /// A request was sent.
    pub fn sent(&mut self, server: Server) {
        self.mine[server].in_flight += 1;
        self.mine[server].sent_since_report += 1;
    }

    /// The end of a request was heard.
    pub fn ended(&mut self, server: Server) {
        self.mine[server].in_flight -= 1;
    }

    /// A report came in: it replaces the one before, and what was sent since starts from nothing.
    pub fn reported(&mut self, server: Server, signals: Signals, taken_at: Time) {
        self.reports[server] = Glimpse { signals, taken_at };
        self.mine[server].in_flight_at_report = self.mine[server].in_flight;
        self.mine[server].sent_since_report = 0;
    }
}
