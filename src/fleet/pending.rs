//! Requests between their arrival at a gateway and their end.
//!
//! Knows what is needed for an outcome. Holds no more of them than lie between the oldest that is under way and
//! the newest, so its size follows the traffic, not the trace.

use std::collections::{BTreeMap, VecDeque};

use super::hedging::Hedge;
use crate::request::{Arrival, Request, RequestId};
use crate::router::Server;
use crate::time::Time;

/// A request under way.
#[derive(Clone, Copy, Debug)]
pub(super) struct UnderWay {
    pub(super) sent: Time,
    pub(super) class: u16,
    pub(super) prompt_tokens: u32,
    pub(super) gateway: u32,
    predicted_output_tokens: Option<u32>,
    /// Tries so far but the first: of all, of the client, and of the gateway since the client's last.
    pub(super) attempt: u16,
    pub(super) client_tries: u16,
    pub(super) gateway_tries: u16,
    /// When the client sent its present try.
    pub(super) try_sent: Time,
    pub(super) server: Option<u32>,
    pub(super) arrived: Option<Time>,
    /// When its present try set out, from its client or as if from there, and when it left its gateway.
    pub(super) set_out: Time,
    pub(super) left: Time,
    /// When its first token passed the gateway.
    pub(super) first_token: Option<Time>,
    /// Its client pauses before it comes again.
    pub(super) pauses: bool,
    /// Its engine knows it as the second copy of a request.
    pub(super) is_hedge: bool,
}

impl UnderWay {
    /// It is nowhere, and will be sent once more.
    pub(super) fn try_anew(&mut self) {
        self.attempt += 1;
        (self.server, self.arrived, self.first_token) = (None, None, None);
        self.is_hedge = false;
    }
}

#[derive(Debug, Default)]
pub(super) struct Pending {
    /// Number of the request that `window` begins with.
    first: u32,
    window: VecDeque<Option<UnderWay>>,
    /// Those that have not been sent on: held at their gateway, or decided and not yet committed.
    kept: BTreeMap<RequestId, (Arrival, Request)>,
    /// Those that may be sent once more, as they came.
    originals: BTreeMap<RequestId, (Arrival, Request)>,
    /// Second copies that are out beside the first.
    hedges: BTreeMap<RequestId, Hedge>,
    /// When clients give up that have heard no token for too long, which their gateways do not know yet.
    give_up: BTreeMap<RequestId, Time>,
    /// When clients have heard a token last, where nothing passes since.
    heard_last: BTreeMap<RequestId, Time>,
    /// Where tries of the gateway's own have failed since the client's last.
    failed_at: BTreeMap<RequestId, Vec<Server>>,
}

impl Pending {
    /// A request reached its gateway.
    ///
    /// # Panics
    /// If it did before, or long ago.
    pub(super) fn take_in(&mut self, arrival: &Arrival, gateway: usize) {
        if self.window.is_empty() {
            self.first = arrival.id.0;
        }
        let place = arrival.id.0.checked_sub(self.first).expect("requests are numbered in order of sending");
        if self.window.len() <= place as usize {
            self.window.resize(place as usize + 1, None);
        }
        let under_way = UnderWay {
            sent: arrival.sent,
            class: arrival.class,
            prompt_tokens: arrival.prompt_tokens,
            gateway: gateway as u32,
            predicted_output_tokens: arrival.predicted_output_tokens,
            attempt: 0,
            client_tries: 0,
            gateway_tries: 0,
            try_sent: arrival.sent,
            server: None,
            arrived: None,
            set_out: arrival.sent,
            left: arrival.sent,
            first_token: None,
            pauses: false,
            is_hedge: false,
        };
        let before = self.window[place as usize].replace(under_way);
        assert!(before.is_none(), "request {} was sent twice", arrival.id.0);
    }

    /// A request that has not ended.
    pub(super) fn get(&self, id: RequestId) -> Option<&UnderWay> {
        let place = id.0.checked_sub(self.first)?;
        self.window.get(place as usize)?.as_ref()
    }

    pub(super) fn get_mut(&mut self, id: RequestId) -> Option<&mut UnderWay> {
        let place = id.0.checked_sub(self.first)?;
        self.window.get_mut(place as usize)?.as_mut()
    }

    /// Keeps a request until it is sent on.
    pub(super) fn keep(&mut self, arrival: Arrival, request: Request) {
        self.kept.insert(arrival.id, (arrival, request));
    }

    /// How urgent a kept request is: less is sooner.
    pub(super) fn priority_of_kept(&self, id: RequestId) -> Option<i32> {
        self.kept.get(&id).map(|(_, request)| request.priority)
    }

    /// Remembers a request as it came, until it ends.
    pub(super) fn remember(&mut self, arrival: &Arrival, request: &Request) {
        self.originals.insert(arrival.id, (arrival.clone(), request.clone()));
    }

    /// A request as it came, if it was remembered.
    pub(super) fn original(&self, id: RequestId) -> Option<(Arrival, Request)> {
        self.originals.get(&id).cloned()
    }

    /// A gateway's try failed there.
    pub(super) fn failed(&mut self, id: RequestId, server: Server) {
        self.failed_at.entry(id).or_default().push(server);
    }

    /// Where its gateway's tries have failed.
    pub(super) fn failed_at(&self, id: RequestId) -> &[Server] {
        self.failed_at.get(&id).map_or(&[], Vec::as_slice)
    }

    /// A new try of its client begins from nothing.
    pub(super) fn begins_anew(&mut self, id: RequestId) {
        self.failed_at.remove(&id);
        self.give_up.remove(&id);
        self.heard_last.remove(&id);
    }

    /// A client has heard a token last, before nothing passed any more.
    pub(super) fn hears_last(&mut self, id: RequestId, at: Time) {
        self.heard_last.insert(id, at);
    }

    /// When that was.
    pub(super) fn heard_last(&self, id: RequestId) -> Option<Time> {
        self.heard_last.get(&id).copied()
    }

    /// A client has heard nothing for too long by then.
    pub(super) fn gives_up(&mut self, id: RequestId, at: Time) {
        self.give_up.insert(id, at);
    }

    /// When a client gives up that has heard nothing for too long, if it is so.
    pub(super) fn when_given_up(&self, id: RequestId) -> Option<Time> {
        self.give_up.get(&id).copied()
    }

    /// It is not to be sent on any more.
    pub(super) fn forget_kept(&mut self, id: RequestId) {
        self.kept.remove(&id);
    }

    /// A kept request, to be sent on, and its gateway.
    pub(super) fn release(&mut self, id: RequestId) -> Option<(usize, Arrival, Request)> {
        let (arrival, request) = self.kept.remove(&id)?;
        Some((self.get(id.original())?.gateway as usize, arrival, request))
    }

    /// A second copy of a request sets out.
    pub(super) fn hedged(&mut self, id: RequestId, set_out: Time) {
        self.hedges.insert(id, Hedge { server: None, set_out, left: set_out, arrived: None });
    }

    /// The second copy of a request, while both are out.
    pub(super) fn hedge_of(&self, id: RequestId) -> Option<Hedge> {
        self.hedges.get(&id).copied()
    }

    /// The second copy is out no more.
    pub(super) fn forget_hedge(&mut self, id: RequestId) -> Option<Hedge> {
        self.hedges.remove(&id)
    }

    /// Of two copies the first is out no more.
    pub(super) fn hedge_goes_on(&mut self, id: RequestId) {
        if let Some(Hedge { server, set_out, left, arrived }) = self.hedges.remove(&id)
            && let Some(under_way) = self.get_mut(id)
        {
            (under_way.server, under_way.arrived, under_way.is_hedge) = (server, arrived, true);
            (under_way.set_out, under_way.left) = (set_out, left);
        }
    }

    /// A request has left its gateway for a replica, and arrives there; none: it will not.
    pub(super) fn sent(&mut self, id: RequestId, server: Server, left: Time, arrives: Option<Time>) {
        let server = Some(server as u32);
        if id.is_hedge()
            && let Some(hedge) = self.hedges.get_mut(&id.original())
        {
            *hedge = Hedge { server, left, arrived: arrives, ..*hedge };
        } else if let Some(under_way) = self.get_mut(id.original()) {
            (under_way.server, under_way.left, under_way.arrived) = (server, left, arrives);
        }
    }

    /// The first token of a try passes the gateway at `at`; those of tries before do not count.
    pub(super) fn first_token(&mut self, id: RequestId, attempt: u32, at: Time) {
        if let Some(under_way) = self.get_mut(id)
            && u32::from(under_way.attempt) == attempt
        {
            under_way.first_token = Some(at);
        }
    }

    /// Requests whose connection is to this gateway, in order of number.
    pub(super) fn at_gateway(&self, gateway: usize) -> Vec<RequestId> {
        let is_there = |one: &UnderWay| one.gateway as usize == gateway && !one.pauses;
        let numbered = (self.first..).zip(&self.window);
        let there = numbered.filter(|(_, one)| one.as_ref().is_some_and(is_there));
        there.map(|(number, _)| RequestId(number)).collect()
    }

    /// First copies that are at this replica or on their way there, and their gateways.
    pub(super) fn out_at(&self, server: Server) -> Vec<(RequestId, usize)> {
        let numbered = (self.first..).zip(&self.window);
        let out = numbered.filter_map(|(number, one)| Some((RequestId(number), one.as_ref()?)));
        let there = out.filter(|(_, one)| one.server == Some(server as u32));
        there.map(|(id, one)| (if one.is_hedge { id.hedge() } else { id }, one.gateway as usize)).collect()
    }

    /// Copies of such requests that have been sent on.
    pub(super) fn out_at_gateway(&self, gateway: usize) -> Vec<RequestId> {
        let mut all = Vec::new();
        for id in self.at_gateway(gateway) {
            let Some(under_way) = self.get(id) else { continue };
            let copy = if under_way.is_hedge { id.hedge() } else { id };
            all.extend(under_way.server.map(|_| copy));
            all.extend(self.hedge_of(id).and_then(|hedge| hedge.server).map(|_| id.hedge()));
        }
        all
    }

    /// Copies that have been sent on, in order of request: as they came, to whom, and when their first token passed. Only of requests
    /// that were remembered.
    pub(super) fn sent_on(&self) -> Vec<(Arrival, Server, Option<Time>)> {
        let mut all = Vec::new();
        for (&id, (arrival, _)) in &self.originals {
            let Some(under_way) = self.get(id) else { continue };
            let first = under_way.server.map(|server| (under_way.is_hedge, server, under_way.first_token));
            let second = self.hedge_of(id).and_then(|hedge| Some((true, hedge.server?, None)));
            for (is_hedge, server, first_token) in first.into_iter().chain(second) {
                let id = if is_hedge { id.hedge() } else { id };
                all.push((Arrival { id, ..arrival.clone() }, server as usize, first_token));
            }
        }
        all
    }

    /// Whether anybody is under way.
    pub(super) fn any(&self) -> bool {
        !self.window.is_empty()
    }

    /// What a predictor has said of a request's output length.
    pub(super) fn predicted(&self, id: RequestId) -> Option<u32> {
        self.get(id.original())?.predicted_output_tokens
    }

    /// The oldest request under way.
    pub(super) fn first(&self) -> Option<RequestId> {
        (!self.window.is_empty()).then_some(RequestId(self.first))
    }

    /// A request ended.
    pub(super) fn remove(&mut self, id: RequestId) -> Option<UnderWay> {
        let place = id.0.checked_sub(self.first)?;
        let under_way = self.window.get_mut(place as usize)?.take()?;
        self.originals.remove(&id);
        self.begins_anew(id);
        self.hedges.remove(&id);
        // The window begins with one that is under way, so whether it is empty says whether anybody is.
        while self.window.pop_front_if(|oldest| oldest.is_none()).is_some() {
            self.first += 1;
        }
        Some(under_way)
    }
}
