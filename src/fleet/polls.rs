//! Gauges on their way to gateways: when they are read, when they arrive, and which never do.

use rand::RngExt;
use rayon::prelude::*;

use super::gateway::Gateway;
use super::{Ends, Fleet, Moment};
use crate::agenda::Kind;
use crate::observe::Observer;
use crate::random::Purpose;
use crate::router::{Freshness, Server};
use crate::signals::Glimpse;
use crate::time::{Span, Time};

/// Lanes live apart between polls, too; waking another thread pays only for so many of them.
const LANES_A_THREAD: usize = 64;

impl<O: Observer + Send> Fleet<O> {
    pub(super) fn first_polls(&mut self) {
        let Freshness::Polled { interval } = self.config.freshness else { return };
        for gateway in 0..self.gateways.len() {
            if self.gateways[gateway].sight.signals || self.config.admission.saturation.is_some() {
                let mut phases = self.config.seed.stream(Purpose::PollPhase, gateway as u64);
                let phase = Span::from_ps(phases.random_range(0..interval.as_ps()));
                self.agenda.add(Time::ZERO + phase, Kind::Report, gateway as u64, Moment::Report { gateway });
            }
        }
    }

    /// A gateway reads its replicas' gauges, and files its next read.
    pub(super) fn report(&mut self, gateway: usize, more_arrivals: bool, ends: &mut Ends<'_>) {
        let Freshness::Polled { interval } = self.config.freshness else { return };
        if self.gateways[gateway].gone.is_none() {
            self.poll(gateway);
            self.is_told(gateway, ends);
        }
        // Polls that no decision can follow are not made, so that a run can end: who is held is asked about again when something
        // has been heard, and where nothing is out nothing will be.
        let servers = self.lanes.len();
        let anything_out = || {
            let of = |gateway: &Gateway| (0..servers).any(|server| gateway.view.mine(server).in_flight > 0);
            self.gateways.iter().any(of)
        };
        // Where a detector holds everybody back, the queue's TTL ends it.
        let held_back = self.config.admission.saturation.is_some() && self.config.admission.queue.is_some();
        let anybody_held = self.gateways.iter().any(|gateway| !gateway.held.is_empty());
        let undecided = anybody_held && (held_back || anything_out());
        if more_arrivals
            || undecided
            || (ends.source.is_closed_loop() || self.tries_again) && self.pending.any()
        {
            let at = self.now + interval;
            self.agenda.add(at, Kind::Report, gateway as u64, Moment::Report { gateway });
        }
    }

    fn poll(&mut self, gateway: usize) {
        let now = self.now;
        self.lanes.par_iter_mut().with_min_len(LANES_A_THREAD).for_each(|lane| lane.advance(now));
        let impairments = self.config.impairments;
        if impairments.poll_loss == 0.0 && impairments.scrape == Span::ZERO {
            for server in 0..self.lanes.len() {
                if self.lanes[server].answers() && self.is_seen(gateway, server) {
                    let signals = self.lanes[server].replica.signals();
                    self.gateways[gateway].view.reported(server, signals, now);
                }
            }
            return;
        }
        // Each poll has a stream of its own, so that no other draw depends on how many there were.
        let index = now.as_ps() ^ ((gateway as u64) << 56);
        let mut losses = self.config.seed.stream(Purpose::PollLoss, index);
        let mut reports = Vec::with_capacity(self.lanes.len());
        for (server, lane) in self.lanes.iter().enumerate() {
            if losses.random::<f64>() >= impairments.poll_loss
                && lane.answers()
                && self.is_seen(gateway, server)
            {
                reports.push((server, Glimpse { signals: lane.replica.signals(), taken_at: now }));
            }
        }
        let at = now + impairments.scrape;
        self.agenda.add(at, Kind::Report, gateway as u64, Moment::Scraped { gateway, reports });
    }

    /// Whether reads of a replica's gauges succeed.
    fn is_seen(&self, gateway: usize, server: Server) -> bool {
        !self.processes[server].is_blind && self.links[server].cut_from(gateway).is_none()
    }

    /// What a gateway has read has arrived.
    pub(super) fn scraped(&mut self, gateway: usize, reports: &[(Server, Glimpse)], ends: &mut Ends<'_>) {
        if self.gateways[gateway].gone.is_some() {
            return;
        }
        for &(server, glimpse) in reports {
            self.gateways[gateway].view.reported(server, glimpse.signals, glimpse.taken_at);
        }
        self.is_told(gateway, ends);
    }

    /// Whoever was kept back for what gauges said may go.
    fn is_told(&mut self, gateway: usize, ends: &mut Ends<'_>) {
        if self.config.admission.saturation.is_some() {
            self.ask_again(gateway, ends);
        }
    }
}
