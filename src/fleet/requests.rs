//! A request's way through its gateway: it arrives, is decided about, goes out, and something comes back.
//!
//! Knows one try at a time. Does not know what follows when a try fails: [`super::ending`] does.

use super::lane::Look;
use super::link::{Leg, Message};
use super::saturation::Refusal;
use super::{Ends, Fleet, Gateway, Moment};
use crate::agenda::Kind;
use crate::observe::Observer;
use crate::replica::{EngineEvent, Input};
use crate::request::{Arrival, EngineOutcome, Finish, Request, RequestId};
use crate::router::{Candidates, Decision, Feedback, Server};
use crate::time::{Span, Time};
use crate::workload::Job;

/// A request that goes to a replica.
pub(super) struct Errand {
    pub(super) gateway: usize,
    pub(super) arrival: Arrival,
    pub(super) request: Request,
    pub(super) server: Server,
}

impl<O: Observer + Send> Fleet<O> {
    pub(super) fn move_to(&mut self, at: Time) {
        self.now = at;
    }

    /// A request reaches its gateway: clients take gateways in turn.
    pub(super) fn arrive(&mut self, job: Job, ends: &mut Ends<'_>) {
        self.move_to(job.sent + self.config.network.client_to_router);
        let (arrival, request) = (job.arrival(), job.request);
        let gateway = self.take_in(&arrival);
        self.tally.requests += 1;
        if self.remembers {
            self.pending.remember(&arrival, &request);
        }
        self.come(gateway, arrival, request, ends);
    }

    /// Takes a request into the books; returns its gateway.
    pub(super) fn take_in(&mut self, arrival: &Arrival) -> usize {
        let gateway = self.listed_from(arrival.id.0 as usize % self.gateways.len());
        self.pending.take_in(arrival, gateway);
        gateway
    }

    /// A client's try reaches its gateway.
    pub(super) fn come(&mut self, gateway: usize, arrival: Arrival, request: Request, ends: &mut Ends<'_>) {
        self.tally.tries += 1;
        if self.gateways[gateway].gone.is_some() {
            self.turn_away(arrival.id, Finish::Lost, ends);
            return;
        }
        self.file_timeouts(arrival.id);
        if !self.gateways[gateway].bucket.take(self.now, &self.config.admission) {
            self.turn_away(arrival.id, Finish::Refused, ends);
            return;
        }
        if !self.gateways[gateway].held.is_empty() {
            self.line_up(gateway, arrival, request, ends);
            return;
        }
        let (id, attempt) = (arrival.id, request.attempt);
        if self.decide(gateway, arrival, request, ends) {
            self.file_patience(id, attempt);
        }
    }

    /// Asks the policy about a request; returns whether it was kept at the gateway.
    pub(super) fn decide(
        &mut self,
        gateway: usize,
        arrival: Arrival,
        request: Request,
        ends: &mut Ends<'_>,
    ) -> bool {
        let id = arrival.id;
        let failed_at = if self.tries_again { self.pending.failed_at(id) } else { &[] };
        let Gateway { roster, view, .. } = &mut self.gateways[gateway];
        let candidates = match failed_at.is_empty() {
            true => roster.candidates().clone(),
            false => roster.candidates_but(failed_at),
        };
        let candidates = roster.without_warming(candidates, self.now, |server| view.mine(server).in_flight);
        if let Some(Refusal { finish, may_wait }) = self.refusal(gateway, &candidates, &request) {
            if may_wait && self.has_room_to_wait(gateway) {
                self.gateways[gateway].held.push_front(id);
                self.pending.keep(arrival, request);
                return true;
            }
            self.turn_away(id, finish, ends);
            return false;
        }
        match self.ask(gateway, &arrival, &request, &candidates) {
            Decision::Send(server) => {
                self.send(Errand { gateway, arrival, request, server });
                false
            }
            Decision::Hold => {
                let Gateway { sight, held, .. } = &mut self.gateways[gateway];
                assert!(sight.holds, "a policy held a request without saying that it may");
                held.push_front(id);
                self.pending.keep(arrival, request);
                true
            }
            Decision::Reject => {
                self.turn_away(id, Finish::Refused, ends);
                false
            }
        }
    }

    /// What the policy answers.
    pub(super) fn ask(
        &mut self,
        gateway: usize,
        arrival: &Arrival,
        request: &Request,
        candidates: &Candidates,
    ) -> Decision {
        let network = self.config.network;
        let count = self.gateways.len() as u32;
        let Gateway { router, view, sight, index, .. } = &mut self.gateways[gateway];
        let mut look = Look {
            now: self.now,
            lanes: &mut self.lanes,
            view,
            candidates,
            pending: &self.pending,
            way: self.config.decision_gap + network.router_to_replica + network.frontend,
            request,
            index: index.as_mut(),
            gateway: (gateway as u32, count),
        };
        let decision = match sight.clairvoyant {
            true => router.decide_knowing(arrival, &mut look),
            false => router.decide(arrival, &mut look),
        };
        if let Decision::Send(server) = decision {
            assert!(candidates.contains(server), "a policy named replica {server}, which is no candidate");
        }
        decision
    }

    /// A decision has been made, and takes effect now or after a gap.
    pub(super) fn send(&mut self, errand: Errand) {
        self.processes[errand.server].outstanding += 1;
        if self.config.decision_gap == Span::ZERO {
            self.commit(errand);
            return;
        }
        let Errand { arrival, request, server, .. } = errand;
        let at = self.now + self.config.decision_gap;
        let moment = Moment::Commit { request: request.id, attempt: request.attempt, server };
        self.agenda.add(at, Kind::Commit, u64::from(request.id.0), moment);
        self.pending.keep(arrival, request);
    }

    /// The gateway answers at once that it cannot serve this.
    pub(super) fn turn_away(&mut self, id: RequestId, finish: Finish, ends: &mut Ends<'_>) {
        self.last_end = self.last_end.max(self.now);
        let at = self.now + self.config.network.client_to_router;
        self.fail(id, None, finish, at, ends);
    }

    /// Gateways that learn at once what this one does and hears: all others, where they tell each other.
    fn others(&mut self, gateway: usize) -> impl Iterator<Item = &mut Gateway> {
        let listen = self.config.impairments.shared;
        let all = self.gateways.iter_mut().enumerate();
        all.filter(move |(other, _)| listen && *other != gateway).map(|(_, other)| other)
    }

    /// The gap behind a decision is over: it takes effect, unless its client has given up.
    pub(super) fn gap_is_over(&mut self, id: RequestId, attempt: u32, server: Server) {
        if self.pending.get(id.original()).is_some_and(|under_way| u32::from(under_way.attempt) == attempt)
            && let Some((gateway, arrival, request)) = self.pending.release(id)
        {
            self.commit(Errand { gateway, arrival, request, server });
        } else {
            self.leaves(server);
        }
    }

    /// A decision takes effect: counters rise, and the request is on its way.
    fn commit(&mut self, errand: Errand) {
        let Errand { gateway, arrival, mut request, server } = errand;
        let network = self.config.network;
        let (id, attempt) = (arrival.id, request.attempt);
        let usual = self.links[server].arrives(self.now, network.router_to_replica, gateway);
        let arrived = match self.links[server].has_changed() {
            false => Some(usual),
            true => self.arrives_by_changed_link(gateway, (id, attempt), server, usual),
        };
        self.pending.sent(id, server, self.now, arrived);
        self.file_hedge(id, attempt);
        self.gateways[gateway].view.sent(server);
        self.gateways[gateway].in_flight += 1;
        self.limit(gateway, server);
        self.gateways[gateway].router.committed(&arrival, server, self.now);
        let now = self.now;
        for other in self.others(gateway) {
            other.view.sent(server);
            other.router.committed(&arrival, server, now);
        }
        let Some(arrived) = arrived else {
            self.cannot_connect(&request, server);
            return;
        };
        // Two of the very same rank would preempt each other for ever in vLLM, whose clocks tell them apart.
        self.last_arrival_order = arrived.as_ps().max(self.last_arrival_order + 1);
        request.arrival_order = self.last_arrival_order;
        if let Some((_, before)) =
            self.links[server].was_called_back(id).filter(|(word, _)| *word > arrived + network.frontend)
        {
            // Word that a try before was given up is still on its way; an engine has one try of a request.
            self.deliver(server, arrived + network.frontend, Input::Abort(id, before));
        }
        self.deliver(server, arrived + network.frontend, Input::Add(request));
    }

    /// When a copy that is sent now arrives, on a way that has changed; none if it does not.
    fn arrives_by_changed_link(
        &mut self,
        gateway: usize,
        (id, attempt): (RequestId, u32),
        server: Server,
        at: Time,
    ) -> Option<Time> {
        let link = &self.links[server];
        let arrived = at + link.sent_again(Message { id, attempt, leg: Leg::There }, self.config.seed);
        let patience = self.config.health.connect_timeout;
        link.cut_from(gateway).is_none_or(|cut| cut.until <= self.now + patience).then_some(arrived)
    }

    /// Nothing passes, and its gateway gives up trying to connect.
    fn cannot_connect(&mut self, request: &Request, server: Server) {
        let at = self.now + self.config.health.connect_timeout;
        let event = EngineEvent::Ended(EngineOutcome::turned_away(request, at, Finish::Lost));
        self.agenda.add(at, Kind::Response, server as u64, Moment::Response { server, event });
    }

    /// A replica that has as many of a gateway's requests as it may is not chosen.
    fn limit(&mut self, gateway: usize, server: Server) {
        if let Some(most) = self.config.admission.most_per_replica {
            let Gateway { view, roster, .. } = &mut self.gateways[gateway];
            roster.fills(server, view.mine(server).in_flight >= most);
        }
    }

    /// Something is on its way to an engine.
    pub(super) fn deliver(&mut self, server: Server, at: Time, input: Input) {
        let lane = &mut self.lanes[server];
        let is_request = matches!(input, Input::Add(_));
        lane.deliver(at, self.delivered, input);
        self.delivered += 1;
        if self.listening.in_time() {
            let next = match is_request {
                true => lane.replica.next_completion_with_arrival(self.due.of(server), at),
                false => lane.replica.next_completion(),
            };
            self.due.set(server, next);
        }
    }

    /// A gateway, and whoever it tells, hears of a request it sent.
    pub(super) fn tell(&mut self, gateway: usize, feedback: &Feedback, server: Server, ended: bool) {
        let forgotten = &mut self.gateways[gateway].forgotten;
        let counts =
            !if ended { forgotten.remove(&feedback.id()) } else { forgotten.contains(&feedback.id()) };
        if counts {
            self.gateways[gateway].hears(feedback, server, ended);
        }
        if ended && counts {
            self.gateways[gateway].in_flight -= 1;
            self.limit(gateway, server);
        }
        for other in self.others(gateway) {
            other.hears(feedback, server, ended);
        }
    }

    /// Something a replica produced passes the gateway on its way to the client. Of tries that were given up nobody
    /// wants to know.
    pub(super) fn respond(&mut self, at: Time, server: Server, event: EngineEvent, ends: &mut Ends<'_>) {
        let original = event.id().original();
        let under_way = self.pending.get(original).map(|under_way| (under_way.gateway, under_way.attempt));
        let Some((gateway, _)) = under_way.filter(|(_, attempt)| u32::from(*attempt) == event.attempt())
        else {
            if let EngineEvent::Ended(engine) = &event {
                self.tally.waste(engine);
            }
            return;
        };
        let gateway = gateway as usize;
        if self.config.hedging.is_some() && !self.settle_hedge(original, server, &event, at) {
            self.ask_all_again(gateway, ends);
            return;
        }
        let feedback = match &event {
            EngineEvent::FirstToken { id, .. } => Feedback::FirstToken { id: *id, server, at },
            EngineEvent::Ended(engine) if engine.finish.is_complete() => {
                let (id, output_tokens) = (engine.id, engine.output_tokens);
                Feedback::Completed { id, server, at, output_tokens }
            }
            EngineEvent::Ended(engine) => Feedback::Failed { id: engine.id, server, at },
        };
        let ended = matches!(event, EngineEvent::Ended(_));
        self.tell(gateway, &feedback, server, ended);
        match event {
            EngineEvent::FirstToken { attempt, .. } => self.pending.first_token(original, attempt, at),
            EngineEvent::Ended(mut engine) => {
                engine.id = original;
                self.detect_outlier(gateway, server, engine.finish == Finish::Lost);
                self.leaves(server);
                self.attempt_ended(engine, at, ends);
            }
        }
        self.ask_all_again(gateway, ends);
    }

    /// Until when an answer is held up, where nothing passes any more. First tokens that are on their way still pass, so that they
    /// come before their ends.
    pub(super) fn held_up(&self, server: Server, event: &EngineEvent) -> Option<Time> {
        if !self.links[server].has_changed() || !matches!(event, EngineEvent::Ended(_)) {
            return None;
        }
        let under_way = self.pending.get(event.id().original())?;
        // That a try could not connect is the gateway's own finding.
        let connected = under_way.arrived.is_some() || under_way.first_token.is_some();
        let cut = self.links[server].cut_from(under_way.gateway as usize).filter(|_| connected)?;
        (u32::from(under_way.attempt) == event.attempt() && cut.until > self.now).then_some(cut.until)
    }

    /// A try is no longer at a replica, nor on its way there.
    pub(super) fn leaves(&mut self, server: Server) {
        self.processes[server].outstanding -= 1;
        self.stop_if_drained(server);
    }
}
