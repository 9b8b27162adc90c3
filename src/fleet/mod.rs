//! The fleet: gateways in front of replicas, and the only place where time moves.
//!
//! Knows lanes (a replica and its observer), gateways (a policy and its private view), the network between
//! them, and the agenda. Does not know scenarios, statistics or files.
//!
//! One request's way: it is sent, reaches its gateway, the policy looks and decides, the decision takes
//! effect, the request is delivered to a replica, tokens come back. Between two looks a replica is a function
//! of its own past, so nothing simulates until somebody looks, and only what is looked at.

use std::collections::VecDeque;

use rand::RngExt;

mod lane;

use lane::{Lane, Look};

use crate::agenda::{Agenda, Kind};
use crate::observe::Observer;
use crate::random::{Purpose, Seed};
use crate::replica::{EngineEvent, Input, Replica};
use crate::request::{Arrival, Attempt, EngineOutcome, Finish, Outcome, Request, RequestId};
use crate::router::{Decision, Facts, Feedback, Freshness, Router, Server, Sight, View};
use crate::time::{Span, Time};
use crate::workload::Source;

/// Ways between client, gateway and replica, each in one direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Network {
    /// Client to gateway, and back.
    pub client_to_router: Span,
    /// Gateway to replica, and back.
    pub router_to_replica: Span,
    /// The replica's front end, before the engine: HTTP and tokenising.
    pub frontend: Span,
}

/// When a run ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// When the last request has ended.
    Drain,
    /// At this moment; what is still under way is counted as unfinished.
    At(Time),
}

/// Everything about a fleet but its replicas and policies.
#[derive(Clone, Copy, Debug)]
pub struct FleetConfig {
    /// How old the gauges are that gateways read.
    pub freshness: Freshness,
    /// Between a decision and its effect. None: the counters rise with the decision.
    pub decision_gap: Span,
    /// Delays.
    pub network: Network,
    /// When it ends.
    pub end: End,
    /// For poll phases.
    pub seed: Seed,
    /// Watches laws 2, 3 and 5 while it runs; slow.
    pub check: bool,
}

struct Gateway {
    router: Box<dyn Router>,
    sight: Sight,
    view: View,
    held: VecDeque<RequestId>,
}

/// A request between its arrival at a gateway and its end.
struct Pending {
    arrival: Arrival,
    request: Request,
    gateway: usize,
    server: Option<Server>,
    arrived: Option<Time>,
    first_token: Option<Time>,
}

enum Moment {
    Response { server: Server, event: EngineEvent },
    Report { gateway: usize },
    Commit { request: RequestId, server: Server },
}

/// Replicas behind gateways, ready to run.
pub struct Fleet<O> {
    config: FleetConfig,
    lanes: Vec<Lane<O>>,
    gateways: Vec<Gateway>,
    agenda: Agenda<Moment>,
    pending: Vec<Option<Pending>>,
    delivered: u64,
    now: Time,
    /// When the last request ended, as its gateway saw it.
    last_end: Time,
}

/// What is left when a run has ended.
pub struct Ended<O> {
    /// What each replica's observer has seen.
    pub observers: Vec<O>,
    /// Gauges of each replica at the end.
    pub replicas: Vec<Replica>,
    /// When the last thing happened.
    pub at: Time,
}

impl<O: Observer> Fleet<O> {
    /// A fleet at time zero. Each replica comes with its observer and with what operators know of it.
    ///
    /// # Panics
    /// If there is no replica or no gateway.
    pub fn new(config: FleetConfig, replicas: Vec<(Facts, O)>, routers: Vec<Box<dyn Router>>) -> Fleet<O> {
        assert!(!replicas.is_empty() && !routers.is_empty(), "a fleet has a replica and a gateway");
        let servers = replicas.len();
        let lanes = replicas.into_iter().map(|(facts, observer)| {
            let mut replica = Replica::new(facts.engine.clone(), facts.step_time.clone());
            replica.set_check(config.check);
            Lane { replica, observer, facts }
        });
        let gateways = routers.into_iter().map(|router| Gateway {
            sight: router.sight(),
            router,
            view: View::new(servers, config.freshness),
            held: VecDeque::new(),
        });
        Fleet {
            lanes: lanes.collect(),
            gateways: gateways.collect(),
            agenda: Agenda::default(),
            pending: Vec::new(),
            delivered: 0,
            now: Time::ZERO,
            last_end: Time::ZERO,
            config,
        }
    }

    /// Runs until the source is dry and everything has ended, or until the configured end. Every request
    /// gives `outcomes` exactly one outcome (law 1).
    pub fn run(mut self, source: &mut dyn Source, outcomes: &mut dyn FnMut(Outcome)) -> Ended<O> {
        let hears = self.gateways.iter().any(|gateway| gateway.sight.responses || gateway.sight.holds);
        let reacts = source.is_closed_loop() || self.gateways.iter().any(|gateway| gateway.sight.holds);
        let end = match self.config.end {
            End::Drain => Time::MAX,
            End::At(end) => end,
        };
        self.first_polls();
        loop {
            let arrival = source.next_sent().map(|sent| sent + self.config.network.client_to_router);
            let until = self.next_moment(arrival).min(end);
            // What reaches a gateway before then must be known before then.
            if (hears || reacts) && self.advance_lanes_due(until, reacts) {
                continue;
            }
            if until >= end {
                break;
            }
            if arrival.is_some_and(|at| self.agenda.peek().is_none_or(|next| next > (at, Kind::Arrival))) {
                let Some(job) = source.next() else { break };
                self.arrive(job.arrival(), job.request, outcomes, source);
            } else if let Some((at, moment)) = self.agenda.pop() {
                self.move_to(at);
                self.happen(moment, arrival.is_some(), outcomes, source);
            } else {
                break;
            }
        }
        self.finish(end, outcomes, source)
    }

    /// When the agenda or the source has something next; at the very end, when no lane has.
    fn next_moment(&self, arrival: Option<Time>) -> Time {
        let agenda = self.agenda.peek().map(|(at, _)| at);
        agenda.into_iter().chain(arrival).min().unwrap_or(Time::MAX)
    }

    /// Advances lanes whose next end may be heard before `until`, files what came out, and says whether
    /// anything did. If gateways or clients react, lanes stop at the first moment that may cause something.
    fn advance_lanes_due(&mut self, until: Time, reacts: bool) -> bool {
        let soonest = self.lanes.iter().filter_map(|lane| lane.replica.next_completion()).min();
        let Some(soonest) = soonest.filter(|&at| at <= until) else { return false };
        let limit = if reacts { soonest } else { until };
        let mut came_out = false;
        for server in 0..self.lanes.len() {
            if self.lanes[server].replica.next_completion().is_some_and(|at| at <= limit) {
                self.lanes[server].advance(limit);
                came_out |= self.file_events(server);
            }
        }
        came_out || reacts
    }

    fn file_events(&mut self, server: Server) -> bool {
        let back = self.config.network.router_to_replica;
        let mut any = false;
        for event in self.lanes[server].replica.take_events() {
            let at = match &event {
                EngineEvent::FirstToken { at, .. } => *at,
                EngineEvent::Ended(outcome) => outcome.done,
            };
            self.agenda.add(at + back, Kind::Response, server as u64, Moment::Response { server, event });
            any = true;
        }
        any
    }

    fn move_to(&mut self, at: Time) {
        assert!(at >= self.now, "law 4: time ran back from {:?} to {at:?}", self.now);
        self.now = at;
    }

    fn first_polls(&mut self) {
        let Freshness::Polled { interval } = self.config.freshness else { return };
        for gateway in 0..self.gateways.len() {
            if self.gateways[gateway].sight.signals {
                let mut phases = self.config.seed.stream(Purpose::PollPhase, gateway as u64);
                let phase = Span::from_ps(phases.random_range(0..interval.as_ps()));
                self.agenda.add(Time::ZERO + phase, Kind::Report, gateway as u64, Moment::Report { gateway });
            }
        }
    }

    /// A request reaches its gateway: clients take gateways in turn.
    fn arrive(
        &mut self,
        arrival: Arrival,
        request: Request,
        outcomes: &mut dyn FnMut(Outcome),
        source: &mut dyn Source,
    ) {
        self.move_to(arrival.sent + self.config.network.client_to_router);
        let id = arrival.id;
        let gateway = self.take_in(arrival, request);
        if self.gateways[gateway].held.is_empty() {
            self.decide(id, outcomes, source);
        } else {
            self.gateways[gateway].held.push_back(id);
        }
    }

    /// Takes a request into the books; returns its gateway.
    fn take_in(&mut self, arrival: Arrival, request: Request) -> usize {
        let id = arrival.id;
        let gateway = id.0 as usize % self.gateways.len();
        if self.pending.len() <= id.0 as usize {
            self.pending.resize_with(id.0 as usize + 1, || None);
        }
        let pending = Pending { arrival, request, gateway, server: None, arrived: None, first_token: None };
        assert!(self.pending[id.0 as usize].replace(pending).is_none(), "request {} was sent twice", id.0);
        gateway
    }

    /// Asks the policy about a request; returns whether it was kept at the gateway.
    fn decide(&mut self, id: RequestId, outcomes: &mut dyn FnMut(Outcome), source: &mut dyn Source) -> bool {
        let Some(pending) = &self.pending[id.0 as usize] else { return false };
        let gateway_index = pending.gateway;
        let gateway = &mut self.gateways[gateway_index];
        let mut look = Look { now: self.now, lanes: &mut self.lanes, view: &gateway.view };
        match gateway.router.decide(&pending.arrival, &mut look) {
            Decision::Send(server) => {
                assert!(server < self.lanes.len(), "a policy named replica {server} of {}", self.lanes.len());
                if self.config.decision_gap == Span::ZERO {
                    self.commit(id, server);
                } else {
                    let at = self.now + self.config.decision_gap;
                    self.agenda.add(
                        at,
                        Kind::Commit,
                        u64::from(id.0),
                        Moment::Commit { request: id, server },
                    );
                }
                false
            }
            Decision::Hold => {
                assert!(gateway.sight.holds, "a policy held a request without saying that it may");
                gateway.held.push_front(id);
                true
            }
            Decision::Reject => {
                self.end_at_gateway(id, Finish::Refused, outcomes, source);
                false
            }
        }
    }

    /// A decision takes effect: counters rise, and the request is on its way.
    fn commit(&mut self, id: RequestId, server: Server) {
        let Some(pending) = &mut self.pending[id.0 as usize] else { return };
        let gateway = &mut self.gateways[pending.gateway];
        let network = self.config.network;
        let arrived = self.now + network.router_to_replica;
        pending.server = Some(server);
        pending.arrived = Some(arrived);
        gateway.view.sent(server);
        gateway.router.committed(&pending.arrival, server, self.now);
        let mut request = pending.request.clone();
        request.arrival_order = arrived.as_ps();
        self.lanes[server].replica.deliver(arrived + network.frontend, self.delivered, Input::Add(request));
        self.delivered += 1;
    }

    fn happen(
        &mut self,
        moment: Moment,
        more_arrivals: bool,
        outcomes: &mut dyn FnMut(Outcome),
        source: &mut dyn Source,
    ) {
        match moment {
            Moment::Response { server, event } => self.respond(self.now, server, event, outcomes, source),
            Moment::Report { gateway } => {
                self.poll(gateway);
                let Freshness::Polled { interval } = self.config.freshness else { return };
                // Polls that no decision can follow are not made, so that a run can end.
                if more_arrivals || self.undecided() || source.is_closed_loop() && self.any_pending() {
                    let at = self.now + interval;
                    self.agenda.add(at, Kind::Report, gateway as u64, Moment::Report { gateway });
                }
            }
            Moment::Commit { request, server } => self.commit(request, server),
        }
    }

    fn undecided(&self) -> bool {
        self.gateways.iter().any(|gateway| !gateway.held.is_empty())
    }

    fn any_pending(&self) -> bool {
        self.pending.iter().any(Option::is_some)
    }

    fn poll(&mut self, gateway: usize) {
        for (server, lane) in self.lanes.iter_mut().enumerate() {
            lane.advance(self.now);
            self.gateways[gateway].view.reported(server, lane.replica.signals(), self.now);
        }
    }

    /// Something a replica produced passes the gateway on its way to the client.
    fn respond(
        &mut self,
        at: Time,
        server: Server,
        event: EngineEvent,
        outcomes: &mut dyn FnMut(Outcome),
        source: &mut dyn Source,
    ) {
        let id = match &event {
            EngineEvent::FirstToken { id, .. } => *id,
            EngineEvent::Ended(outcome) => outcome.id,
        };
        let Some(pending) = &mut self.pending[id.0 as usize] else { return };
        let gateway_index = pending.gateway;
        let gateway = &mut self.gateways[gateway_index];
        match event {
            EngineEvent::FirstToken { .. } => {
                pending.first_token = Some(at);
                gateway.router.heard(&Feedback::FirstToken { id, server, at });
            }
            EngineEvent::Ended(engine) => {
                gateway.view.ended(server);
                let feedback = match engine.finish.is_complete() {
                    true => Feedback::Completed { id, server, at, output_tokens: engine.output_tokens },
                    false => Feedback::Failed { id, server, at },
                };
                gateway.router.heard(&feedback);
                let finish = engine.finish;
                self.end(id, Some(engine), finish, at, outcomes, source);
            }
        }
        while let Some(held) = self.gateways[gateway_index].held.pop_front() {
            if self.decide(held, outcomes, source) {
                break;
            }
        }
    }

    fn end_at_gateway(
        &mut self,
        id: RequestId,
        finish: Finish,
        outcomes: &mut dyn FnMut(Outcome),
        source: &mut dyn Source,
    ) {
        self.end(id, None, finish, self.now, outcomes, source);
    }

    /// A request's end passes its gateway at `at` and reaches the client.
    fn end(
        &mut self,
        id: RequestId,
        engine: Option<EngineOutcome>,
        finish: Finish,
        at: Time,
        outcomes: &mut dyn FnMut(Outcome),
        source: &mut dyn Source,
    ) {
        let Some(pending) = self.pending[id.0 as usize].take() else { return };
        self.last_end = self.last_end.max(at);
        let network = self.config.network;
        let to_client = network.client_to_router;
        // What had not happened by the end of the run is not reported as if it had.
        let unfinished = finish == Finish::Unfinished;
        let happened = |moment: Option<Time>| moment.filter(|&moment| !unfinished || moment <= at);
        let outcome = Outcome {
            attempt: Attempt { request: id, number: 0 },
            replica: pending.server.map(|server| server as u32),
            sent: pending.arrival.sent,
            prompt_tokens: pending.arrival.prompt_tokens,
            arrived: happened(pending.arrived),
            first_token_received: happened(pending.first_token.map(|at| at + to_client)),
            done_received: if unfinished { at } else { at + to_client },
            engine,
            finish,
        };
        if self.config.check {
            check_causality(&outcome);
        }
        source.finished(&outcome);
        outcomes(outcome);
    }

    /// Lets the replicas run to the end, and gives every request that is left its outcome.
    fn finish(mut self, end: Time, outcomes: &mut dyn FnMut(Outcome), source: &mut dyn Source) -> Ended<O> {
        for server in 0..self.lanes.len() {
            self.lanes[server].advance(end);
            self.file_events(server);
        }
        while let Some((at, moment)) = self.agenda.pop() {
            if at > end {
                break;
            }
            // Responses that no policy was waiting for are read only now, in their order.
            self.now = self.now.max(at);
            if let Moment::Response { server, event } = moment {
                self.respond(at, server, event, outcomes, source);
            }
        }
        let at = match self.config.end {
            End::Drain => self.last_end,
            End::At(end) => end,
        };
        // What was sent and had not reached its gateway is under way too.
        while source.next_sent().is_some_and(|sent| sent < at) {
            let Some(job) = source.next() else { break };
            self.take_in(job.arrival(), job.request);
        }
        let left: Vec<RequestId> = self.pending.iter().flatten().map(|pending| pending.arrival.id).collect();
        for id in left {
            self.end(id, None, Finish::Unfinished, at, outcomes, source);
        }
        let mut observers = Vec::with_capacity(self.lanes.len());
        let mut replicas = Vec::with_capacity(self.lanes.len());
        for lane in self.lanes {
            observers.push(lane.observer);
            replicas.push(lane.replica);
        }
        Ended { observers, replicas, at }
    }
}

/// Law 3: sent <= arrived <= scheduled <= first token <= done.
fn check_causality(outcome: &Outcome) {
    let engine = outcome.engine.as_ref();
    let moments = [
        Some(outcome.sent),
        outcome.arrived,
        engine.map(|engine| engine.queued),
        engine.and_then(|engine| engine.scheduled),
        engine.and_then(|engine| engine.first_token),
        engine.map(|engine| engine.done),
        Some(outcome.done_received),
    ];
    let moments: Vec<Time> = moments.into_iter().flatten().collect();
    assert!(moments.is_sorted(), "law 3: {outcome:?}");
}
