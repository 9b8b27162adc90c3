//! A lane: one replica, who listens to it, and what a gateway sees of it at a decision.

use crate::observe::Observer;
use crate::replica::{Limit, Replica};
use crate::request::Arrival;
use crate::router::{Facts, Freshness, Glance, Mine, Server, View};
use crate::signals::Glimpse;
use crate::time::Time;

/// A replica and its observer.
pub(super) struct Lane<O> {
    pub(super) replica: Replica,
    pub(super) observer: O,
    pub(super) facts: Facts,
}

impl<O: Observer> Lane<O> {
    pub(super) fn advance(&mut self, until: Time) {
        self.replica.advance(Limit::Time(until), &mut self.observer);
    }
}

/// A gateway's look at the lanes.
pub(super) struct Look<'a, O> {
    pub(super) now: Time,
    pub(super) lanes: &'a mut [Lane<O>],
    pub(super) view: &'a View,
    /// The gateway's number, and how many there are.
    pub(super) gateway: (u32, u32),
}

impl<O: Observer> Glance for Look<'_, O> {
    fn now(&self) -> Time {
        self.now
    }

    fn servers(&self) -> usize {
        self.lanes.len()
    }

    fn facts(&self, server: Server) -> &Facts {
        &self.lanes[server].facts
    }

    fn signals(&mut self, server: Server) -> Glimpse {
        match self.view.freshness() {
            Freshness::Polled { .. } => self.view.report(server),
            Freshness::Fresh => self.probe(server),
        }
    }

    fn mine(&self, server: Server) -> Mine {
        self.view.mine(server)
    }

    fn probe(&mut self, server: Server) -> Glimpse {
        self.lanes[server].advance(self.now);
        Glimpse { signals: self.lanes[server].replica.signals(), taken_at: self.now }
    }

    fn cached_tokens(&mut self, server: Server, arrival: &Arrival) -> u32 {
        self.lanes[server].advance(self.now);
        let scheduler = self.lanes[server].replica.scheduler();
        scheduler.cached_tokens(arrival.id, &arrival.content, arrival.prompt_tokens)
    }

    fn gateway(&self) -> (u32, u32) {
        self.gateway
    }
}
