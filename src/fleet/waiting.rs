//! Requests that wait at their gateway: held by a policy, or in a queue until there is a replica.
//!
//! Knows their order and how long they may wait. Does not know why a policy holds them.

use super::{Ends, Fleet, Gateway, Moment};
use crate::agenda::Kind;
use crate::observe::Observer;
use crate::request::{Arrival, Finish, Request, RequestId};

impl<O: Observer + Send> Fleet<O> {
    /// Whether one more may wait for a replica.
    pub(super) fn has_room_to_wait(&self, gateway: usize) -> bool {
        let waiting = self.gateways[gateway].held.len();
        self.config.admission.queue.is_some_and(|queue| waiting < queue.max_requests as usize)
    }

    /// Others wait already: this one goes behind those that are as urgent.
    pub(super) fn line_up(
        &mut self,
        gateway: usize,
        arrival: Arrival,
        request: Request,
        ends: &mut Ends<'_>,
    ) {
        let id = arrival.id;
        if self.config.admission.queue.is_some() && !self.has_room_to_wait(gateway) {
            self.turn_away(id, Finish::Refused, ends);
            return;
        }
        let held = &self.gateways[gateway].held;
        let later = |other: &&RequestId| self.pending.priority_of_kept(**other) > Some(request.priority);
        let place = held.len() - held.iter().rev().take_while(later).count();
        self.gateways[gateway].held.insert(place, id);
        let attempt = request.attempt;
        self.pending.keep(arrival, request);
        self.file_patience(id, attempt);
    }

    /// Files the moment at which a request that waits has waited for too long.
    pub(super) fn file_patience(&mut self, request: RequestId, attempt: u32) {
        if let Some(queue) = self.config.admission.queue {
            let moment = Moment::Waited { request, attempt };
            self.agenda.add(self.now + queue.ttl, Kind::Timeout, u64::from(request.0), moment);
        }
    }

    /// A request has waited for as long as it may.
    pub(super) fn waited(&mut self, id: RequestId, attempt: u32, ends: &mut Ends<'_>) {
        let under_way = self.pending.get(id).filter(|under_way| u32::from(under_way.attempt) == attempt);
        let Some(gateway) = under_way.map(|under_way| under_way.gateway as usize) else { return };
        let held = &mut self.gateways[gateway].held;
        let Some(place) = held.iter().position(|held| *held == id) else { return };
        held.remove(place);
        self.pending.forget_kept(id);
        self.turn_away(id, Finish::Unavailable, ends);
        self.ask_again(gateway, ends);
    }

    /// What one gateway has heard may let it, and whoever it tells, send what they keep.
    pub(super) fn ask_all_again(&mut self, heard_by: usize, ends: &mut Ends<'_>) {
        for gateway in 0..self.gateways.len() {
            if gateway == heard_by || self.config.impairments.shared {
                self.ask_again(gateway, ends);
            }
        }
    }

    /// Asks about the requests a gateway keeps, in order, until it keeps one again.
    pub(super) fn ask_again(&mut self, gateway: usize, ends: &mut Ends<'_>) {
        while let Some(held) = self.next_held(gateway) {
            let Some((gateway, arrival, request)) = self.pending.release(held) else { continue };
            let class = arrival.class;
            if self.decide(gateway, arrival, request, ends) {
                break;
            }
            self.gateways[gateway].last_class = Some(class);
        }
    }

    /// Takes the next of those who wait: of the most urgent, the first; where classes take turns, the first of the class whose turn
    /// it is.
    fn next_held(&mut self, gateway: usize) -> Option<RequestId> {
        let Gateway { held, last_class, .. } = &mut self.gateways[gateway];
        if !self.config.admission.queue.is_some_and(|queue| queue.classes_take_turns) {
            return held.pop_front();
        }
        let urgency = |id: &RequestId| self.pending.priority_of_kept(*id);
        let most_urgent = urgency(held.front()?);
        let band = held.iter().enumerate().take_while(|(_, id)| urgency(id) == most_urgent);
        let class_of = |id: &RequestId| self.pending.get(*id).map(|under_way| under_way.class);
        // Behind the class that was served last, round to it again.
        let turn = |id: &RequestId| {
            let class = class_of(id);
            (class <= *last_class, class)
        };
        let (place, _) = band.min_by_key(|(place, id)| (turn(id), *place))?;
        held.remove(place)
    }
}
