//! Hedged requests: a gateway that has heard nothing for a while sends a second copy elsewhere, and cancels whichever is behind.
//!
//! Knows the two copies of a try, the first and its hedge, until one has given its first token; that one goes on, the other is aborted
//! (Dean and Barroso, The Tail at Scale, 2013; gRPC's hedgingPolicy). A copy is a request of its own for engines and policies, with a
//! number of its own; a copy that fails leaves the other. Does not know clients: they see one answer.

use super::pending::UnderWay;
use super::requests::Errand;
use super::saturation::Refusal;
use super::{Fleet, Moment};
use crate::agenda::Kind;
use crate::observe::Observer;
use crate::replica::{EngineEvent, Input};
use crate::request::{Finish, RequestId};
use crate::router::{Decision, Feedback, Server};
use crate::time::{Span, Time};

/// When a second copy is sent.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Hedging {
    /// So long after the first, if no first token has come.
    pub after: Span,
    /// Second copies stay below this share of requests.
    pub budget: Option<f64>,
}

/// A second copy whose first token has not come.
#[derive(Clone, Copy, Debug)]
pub(super) struct Hedge {
    /// Where it was sent; none while its decision takes effect.
    pub(super) server: Option<u32>,
    /// When its client would have sent it, and when it left the gateway.
    pub(super) set_out: Time,
    pub(super) left: Time,
    /// When it arrives there; none if it does not.
    pub(super) arrived: Option<Time>,
}

impl<O: Observer + Send> Fleet<O> {
    /// A first copy has gone out: files the moment at which a second may.
    pub(super) fn file_hedge(&mut self, request: RequestId, attempt: u32) {
        let Some(hedging) = self.config.hedging else { return };
        if !request.is_hedge() {
            let moment = Moment::Hedge { request, attempt };
            self.agenda.add(self.now + hedging.after, Kind::Timeout, u64::from(request.0), moment);
        }
    }

    /// If no first token has come, a second copy goes to another replica, where the policy wants it.
    pub(super) fn hedge(&mut self, id: RequestId, attempt: u32) {
        let under_way = self.pending.get(id).filter(|one| u32::from(one.attempt) == attempt);
        let Some(&UnderWay { gateway, server: Some(first), first_token: None, is_hedge: false, .. }) =
            under_way
        else {
            return;
        };
        let budget = self.config.hedging.and_then(|hedging| hedging.budget);
        let spent = |share: f64| self.tally.hedges as f64 >= share * self.tally.requests as f64;
        let (gateway, first) = (gateway as usize, first as usize);
        let candidates = self.gateways[gateway].roster.candidates_but(&[first]);
        if budget.is_some_and(spent) || candidates.contains(first) || candidates.is_empty() {
            return;
        }
        let Some((mut arrival, mut request)) = self.pending.original(id) else { return };
        let copy = id.hedge();
        (arrival.id, request.id, request.attempt) = (copy, copy, attempt);
        if let Some(Refusal { .. }) = self.refusal(gateway, &candidates, &request) {
            return;
        }
        if let Decision::Send(server) = self.ask(gateway, &arrival, &request, &candidates) {
            self.tally.hedges += 1;
            self.pending.hedged(id, self.now_at_client());
            self.send(Errand { gateway, arrival, request, server });
        }
    }

    /// Of two copies that are out, what one says ends the other, or is the end of itself. Says whether the event is the try's.
    pub(super) fn settle_hedge(
        &mut self,
        id: RequestId,
        server: Server,
        event: &EngineEvent,
        at: Time,
    ) -> bool {
        let Some(under_way) = self.pending.get(id) else { return false };
        let gateway = under_way.gateway as usize;
        let is_first = event.id().is_hedge() == under_way.is_hedge;
        if self.pending.hedge_of(id).is_none() {
            if let (false, EngineEvent::Ended(engine)) = (is_first, event) {
                self.tally.waste(engine);
            }
            return is_first;
        }
        match event {
            EngineEvent::FirstToken { .. } if is_first => self.cancel_hedge(id),
            EngineEvent::FirstToken { .. } => {
                self.cancel_first(id);
                self.pending.hedge_goes_on(id);
            }
            EngineEvent::Ended(engine) => {
                let copy = engine.id;
                self.tally.waste(engine);
                self.tell(gateway, &Feedback::Failed { id: copy, server, at }, server, true);
                self.detect_outlier(gateway, server, engine.finish == Finish::Lost);
                self.leaves(server);
                if is_first {
                    self.pending.hedge_goes_on(id);
                } else {
                    self.pending.forget_hedge(id);
                }
                return false;
            }
        }
        true
    }

    /// The second copy is wanted no more.
    pub(super) fn cancel_hedge(&mut self, id: RequestId) {
        let Some(Hedge { server, arrived, .. }) = self.pending.forget_hedge(id) else { return };
        let Some(gateway) = self.pending.get(id).map(|under_way| under_way.gateway as usize) else { return };
        self.pending.forget_kept(id.hedge());
        self.call_back(gateway, id.hedge(), server, arrived);
    }

    /// The first copy is wanted no more.
    fn cancel_first(&mut self, id: RequestId) {
        let Some(&UnderWay { gateway, server, arrived, .. }) = self.pending.get(id) else { return };
        self.call_back(gateway as usize, id, server, arrived);
    }

    /// The engine that has a copy is told to abort it, and its gateway counts it no more.
    pub(super) fn call_back(
        &mut self,
        gateway: usize,
        copy: RequestId,
        server: Option<u32>,
        arrived: Option<Time>,
    ) {
        let Some(server) = server.map(|server| server as usize) else { return };
        let network = self.config.network;
        if let Some(arrived) = arrived {
            let at = self.links[server].arrives(self.now, network.router_to_replica, gateway);
            let at = at.max(arrived + network.frontend);
            let attempt = self.pending.get(copy.original()).map_or(0, |one| u32::from(one.attempt));
            self.links[server].calls_back((copy, attempt), self.now, at);
            self.deliver(server, at, Input::Abort(copy, attempt));
        }
        self.tell(gateway, &Feedback::Failed { id: copy, server, at: self.now }, server, true);
        self.leaves(server);
    }
}
