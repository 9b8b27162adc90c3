//! A gateway is lost, its counters and beliefs with it, and another takes its place.
//!
//! Knows what becomes of what was under way through it: its connections break, clients see that at once, and engines abort what
//! nobody reads any more. Clients take the other gateways in turn as soon as they know. Whoever takes its place begins with nothing:
//! no counts, no gauges, no prefixes; but with the list of who is up.

use super::course::{Stage, Step};
use super::{Back, What};
use crate::fleet::{Ends, Fleet, Gateway};
use crate::observe::Observer;
use crate::request::Finish;
use crate::router::Feedback;
use crate::time::{Span, Time};

/// From the start of a gateway's process until it serves, unless a scenario says: it has no weights to load.
const START_UP: Span = Span::from_s(10);

/// A gateway that is not there.
#[derive(Clone, Copy, Debug)]
pub(in crate::fleet) struct Gone {
    /// Until then clients still come to it, and are refused.
    listed_until: Time,
    /// Its place in the list of what happened.
    happened: usize,
}

impl<O: Observer + Send> Fleet<O> {
    /// The first gateway from this one on, in turn, that clients know no better than to take; this one where none is left.
    pub(in crate::fleet) fn listed_from(&self, gateway: usize) -> usize {
        let count = self.gateways.len();
        let listed =
            |gateway: &usize| self.gateways[*gateway].gone.is_none_or(|gone| self.now < gone.listed_until);
        (gateway..gateway + count).map(|gateway| gateway % count).find(listed).unwrap_or(gateway)
    }

    /// This gateway's process dies.
    pub(super) fn lose_gateway(&mut self, gateway: usize, what: What, ends: &mut Ends<'_>) {
        let What::GatewayLost { noticed, back, .. } = what else { return };
        let happened = self.note(None, what);
        self.incidents.happened[happened].gateway = Some(gateway);
        if self.gateways[gateway].gone.is_some() {
            self.incidents.happened[happened].in_vain = true;
            return;
        }
        let listed_until = self.now + noticed;
        self.incidents.happened[happened].noticed = Some(listed_until);
        self.gateways[gateway].gone = Some(Gone { listed_until, happened });
        let back = match back {
            Back::Never => None,
            Back::Started => Some(START_UP),
            Back::After(span) => Some(span),
        };
        if let Some(back) = back {
            self.file(self.now + back, Step::GatewayStarts { gateway });
        }
        let at = self.now + self.config.network.client_to_router;
        self.last_end = self.last_end.max(self.now);
        for id in self.pending.at_gateway(gateway) {
            self.take_back(id);
            self.fail(id, None, Finish::Lost, at, ends);
        }
        self.gateways[gateway].held.clear();
    }

    /// Its counters and beliefs are gone while what they were of goes on: requests that are out are counted no more.
    pub(super) fn lose_counters(&mut self, gateway: usize, what: What, ends: &mut Ends<'_>) {
        let happened = self.note(None, what);
        let happened = &mut self.incidents.happened[happened];
        happened.gateway = Some(gateway);
        happened.in_vain = self.gateways[gateway].gone.is_some();
        happened.over = Some(self.now);
        if happened.in_vain {
            return;
        }
        let out = self.pending.out_at_gateway(gateway);
        let own = &mut self.gateways[gateway];
        own.forgotten.extend(out);
        own.renewals += 1;
        (own.in_flight, own.last_class) = (0, None);
        own.view.forget_counts();
        own.router = (ends.new_router)(gateway, own.renewals);
        own.router.meet(self.lanes.len());
        (0..self.lanes.len()).for_each(|server| self.gateways[gateway].roster.fills(server, false));
        // There is room, as far as it knows.
        self.ask_again(gateway, ends);
    }

    /// Another takes its place.
    pub(super) fn gateway_starts(&mut self, gateway: usize, ends: &Ends<'_>) {
        let Some(Gone { happened, .. }) = self.gateways[gateway].gone else { return };
        self.incidents.happened[happened].over = Some(self.now);
        let Gateway { lost, renewals, .. } = self.gateways[gateway];
        let (lost, renewals) = (lost + 1, renewals + 1);
        let router = (ends.new_router)(gateway, renewals);
        let mut new = Gateway::new(gateway, router, self.lanes.len(), &self.config, self.now);
        (new.lost, new.renewals) = (lost, renewals);
        for (server, process) in self.processes.iter().enumerate() {
            match process.stage {
                Stage::Draining | Stage::Absent => new.roster.drains(server),
                Stage::Up if self.links[server].cut_from(gateway).is_none() => {}
                Stage::Up | Stage::Down => new.roster.checked(server, false, self.now),
            }
        }
        if self.config.impairments.shared {
            // What gateways share lies in a store that has not gone with it: who is out, and where.
            for (arrival, server, first_token) in self.pending.sent_on() {
                new.view.sent(server);
                new.router.committed(&arrival, server, self.now);
                if let Some(at) = first_token {
                    new.router.heard(&Feedback::FirstToken { id: arrival.id, server, at });
                }
            }
        }
        self.gateways[gateway] = new;
    }
}
