//! The fleet: gateways in front of replicas, and the only place where time moves.
//!
//! Knows lanes (a replica and its observer), gateways (a policy and its private view), the network between
//! them, and the agenda. Does not know scenarios, statistics or files.
//!
//! One request's way: it is sent, reaches its gateway, the policy looks and decides, the decision takes
//! effect, the request is delivered to a replica, tokens come back. Between two looks a replica is a function
//! of its own past, so nothing simulates until somebody looks, and only what is looked at.

use rayon::prelude::*;

mod config;
mod due;
mod gateway;
mod lane;
mod listening;
mod pending;
mod polls;

pub use config::{End, FleetConfig, Network};
use due::Due;
use gateway::Gateway;
pub use lane::Delivery;
use lane::{Lane, Look};
use listening::Listening;
use pending::Pending;

use crate::agenda::{Agenda, Kind};
use crate::observe::Observer;
use crate::replica::{EngineEvent, Replica};
use crate::request::{Arrival, Attempt, EngineOutcome, Finish, Outcome, Request, RequestId};
use crate::router::{Decision, Facts, Feedback, Router, Server};
use crate::signals::Glimpse;
use crate::time::{Span, Time};
use crate::workload::{Job, Source};

enum Moment {
    Response { server: Server, event: EngineEvent },
    Report { gateway: usize },
    Scraped { gateway: usize, reports: Vec<(Server, Glimpse)> },
    Commit { request: RequestId, server: Server },
}

/// Replicas behind gateways, ready to run.
pub struct Fleet<O> {
    config: FleetConfig,
    lanes: Vec<Lane<O>>,
    /// When each lane may have something to say; kept where somebody listens.
    due: Due,
    gateways: Vec<Gateway>,
    agenda: Agenda<Moment>,
    pending: Pending,
    delivered: u64,
    /// Orders requests of one priority: no two front ends' clocks read the same.
    last_arrival_order: u64,
    now: Time,
    /// When the last request ended, as its gateway saw it.
    last_end: Time,
    listening: Listening,
}

/// What is left at the end.
pub struct Ended<O> {
    /// What each replica's observer has seen.
    pub observers: Vec<O>,
    /// Gauges of each replica at the end.
    pub replicas: Vec<Replica>,
    /// What each replica was given, in the order of decisions; empty unless that was kept.
    pub deliveries: Vec<Vec<Delivery>>,
    /// When the last thing happened.
    pub at: Time,
    /// Why a gateway's policy could not go on, if one could not.
    pub failure: Option<String>,
}

/// Where outcomes go and requests come from.
struct Ends<'a> {
    outcomes: &'a mut dyn FnMut(Outcome),
    source: &'a mut dyn Source,
}

/// Arrivals that are decided before lanes advance, where no policy looks at them.
const BATCH: usize = 4_096;

impl<O: Observer + Send> Fleet<O> {
    /// A fleet at time zero. Each replica comes with its observer and with what operators know of it.
    ///
    /// # Panics
    /// If there is no replica or no gateway.
    pub fn new(config: FleetConfig, replicas: Vec<(Facts, O)>, routers: Vec<Box<dyn Router>>) -> Fleet<O> {
        assert!(!replicas.is_empty() && !routers.is_empty(), "a fleet has a replica and a gateway");
        let servers = replicas.len();
        // Who reads KV events reads the past of an engine: a second copy of it that lives so much later.
        let late_index = config.impairments.kv_event_delay > Span::ZERO
            && routers.iter().any(|router| router.sight().kv_events);
        let lanes = replicas.into_iter().map(|(facts, observer)| {
            let mut replica = Replica::new(facts.engine.clone(), facts.step_time.clone());
            replica.set_check(config.check);
            let late = (late_index && facts.engine.enable_prefix_caching).then(|| Box::new(replica.clone()));
            Lane { replica, observer, facts, late, kept: None }
        });
        let gateways: Vec<Gateway> =
            routers.into_iter().map(|router| Gateway::new(router, servers, &config)).collect();
        let listening = Listening::of(gateways.iter().map(|gateway| gateway.sight));
        Fleet {
            lanes: lanes.collect(),
            due: Due::new(servers),
            gateways,
            agenda: Agenda::default(),
            pending: Pending::default(),
            delivered: 0,
            last_arrival_order: 0,
            now: Time::ZERO,
            last_end: Time::ZERO,
            listening,
            config,
        }
    }

    /// The same, which keeps what each replica is given.
    pub fn keeping_deliveries(mut self) -> Fleet<O> {
        self.lanes.iter_mut().for_each(|lane| lane.kept = Some(Vec::new()));
        self
    }

    /// Runs until the source is dry and everything has ended, or until the configured end. Every request
    /// gives `outcomes` exactly one outcome (law 1), in an order that is the same every time but not that of
    /// their ends.
    pub fn run(mut self, source: &mut dyn Source, outcomes: &mut dyn FnMut(Outcome)) -> Ended<O> {
        self.listening.reacts |= source.is_closed_loop();
        let end = match self.config.end {
            End::Drain => Time::MAX,
            End::At(end) => end,
        };
        let ends = &mut Ends { outcomes, source };
        self.first_polls();
        let mut undrained = 0;
        loop {
            let arrival = ends.source.next_sent().map(|sent| sent + self.config.network.client_to_router);
            let until = self.next_moment(arrival).min(end);
            // What reaches a gateway before then must be known before then.
            if self.listening.in_time() && self.advance_lanes_due(until) {
                continue;
            }
            if until >= end {
                break;
            }
            if arrival.is_some_and(|at| self.agenda.peek().is_none_or(|next| next > (at, Kind::Arrival))) {
                let Some(job) = ends.source.next() else { break };
                self.arrive(job, ends);
                undrained += 1;
            } else if let Some((at, moment)) = self.agenda.pop() {
                self.move_to(at);
                self.happen(moment, arrival.is_some(), ends);
            } else {
                break;
            }
            if undrained == BATCH && !self.listening.in_time() {
                undrained = 0;
                self.drain_lanes(self.now, end, ends);
            }
        }
        self.finish(end, ends)
    }

    /// When the agenda or the source has something next; at the very end, when no lane has.
    fn next_moment(&self, arrival: Option<Time>) -> Time {
        let agenda = self.agenda.peek().map(|(at, _)| at);
        agenda.into_iter().chain(arrival).min().unwrap_or(Time::MAX)
    }

    /// Advances lanes whose next end may be heard before `until`, files what came out, and says whether
    /// anything did. If gateways or clients react, lanes stop at the first moment that may cause something.
    fn advance_lanes_due(&mut self, until: Time) -> bool {
        let Some((soonest, _)) = self.due.soonest(until) else { return false };
        let limit = if self.listening.reacts { soonest } else { until };
        let mut came_out = false;
        while let Some((_, server)) = self.due.soonest(limit) {
            self.lanes[server].advance(limit);
            came_out |= self.file_events(server);
            // All that comes out up to the limit has come out.
            let behind = limit.saturating_add(Span::from_ps(1));
            let next = self.lanes[server].replica.next_completion();
            self.due.set(server, next.map(|next| next.max(behind)));
        }
        came_out || self.listening.reacts
    }

    /// Puts what came out of a replica where its gateway will hear it.
    fn file_events(&mut self, server: Server) -> bool {
        let back = self.config.network.router_to_replica;
        let mut any = false;
        for event in self.lanes[server].replica.take_events() {
            match event {
                EngineEvent::FirstToken { id, at } if !self.listening.first_tokens => {
                    self.pending.first_token(id, at + back);
                }
                event => {
                    let at = event.at() + back;
                    self.agenda.add(at, Kind::Response, server as u64, Moment::Response { server, event });
                    any = true;
                }
            }
        }
        any
    }

    /// Nobody listens: lanes live up to `until` side by side, and what came out goes straight to its client,
    /// unless it would reach the gateway after `end`.
    fn drain_lanes(&mut self, until: Time, end: Time, ends: &mut Ends<'_>) {
        self.lanes.par_iter_mut().for_each(|lane| lane.advance(until));
        let back = self.config.network.router_to_replica;
        for server in 0..self.lanes.len() {
            let mut events = self.lanes[server].replica.lend_events();
            for event in events.drain(..) {
                let at = event.at() + back;
                match event {
                    _ if at > end => {}
                    EngineEvent::FirstToken { id, .. } => self.pending.first_token(id, at),
                    EngineEvent::Ended(engine) => {
                        self.end(engine.id, Some(engine), None, at, ends);
                    }
                }
            }
            self.lanes[server].replica.return_events(events);
        }
    }

    fn move_to(&mut self, at: Time) {
        assert!(at >= self.now, "law 4: time ran back from {:?} to {at:?}", self.now);
        self.now = at;
    }

    /// A request reaches its gateway: clients take gateways in turn.
    fn arrive(&mut self, job: Job, ends: &mut Ends<'_>) {
        self.move_to(job.sent + self.config.network.client_to_router);
        let (arrival, request) = (job.arrival(), job.request);
        let gateway = self.take_in(&arrival);
        if self.gateways[gateway].held.is_empty() {
            self.decide(gateway, arrival, request, ends);
        } else {
            self.gateways[gateway].held.push_back(arrival.id);
            self.pending.keep(arrival, request);
        }
    }

    /// Takes a request into the books; returns its gateway.
    fn take_in(&mut self, arrival: &Arrival) -> usize {
        let gateway = arrival.id.0 as usize % self.gateways.len();
        self.pending.take_in(arrival, gateway);
        gateway
    }

    /// Asks the policy about a request; returns whether it was kept at the gateway.
    fn decide(&mut self, gateway: usize, arrival: Arrival, request: Request, ends: &mut Ends<'_>) -> bool {
        let id = arrival.id;
        let count = self.gateways.len() as u32;
        let Gateway { router, view, sight, held } = &mut self.gateways[gateway];
        let network = self.config.network;
        let mut look = Look {
            now: self.now,
            lanes: &mut self.lanes,
            view,
            pending: &self.pending,
            way: self.config.decision_gap + network.router_to_replica + network.frontend,
            request: &request,
            impairments: &self.config.impairments,
            seed: self.config.seed,
            gateway: (gateway as u32, count),
        };
        let decision = match sight.clairvoyant {
            true => router.decide_knowing(&arrival, &mut look),
            false => router.decide(&arrival, &mut look),
        };
        match decision {
            Decision::Send(server) => {
                assert!(server < self.lanes.len(), "a policy named replica {server} of {}", self.lanes.len());
                if self.config.decision_gap == Span::ZERO {
                    self.commit(gateway, &arrival, request, server);
                } else {
                    let at = self.now + self.config.decision_gap;
                    let moment = Moment::Commit { request: id, server };
                    self.agenda.add(at, Kind::Commit, u64::from(id.0), moment);
                    self.pending.keep(arrival, request);
                }
                false
            }
            Decision::Hold => {
                assert!(sight.holds, "a policy held a request without saying that it may");
                held.push_front(id);
                self.pending.keep(arrival, request);
                true
            }
            Decision::Reject => {
                self.end(id, None, Some(Finish::Refused), self.now, ends);
                false
            }
        }
    }

    /// Gateways that learn at once what this one does and hears: all others, where they tell each other.
    fn others(&mut self, gateway: usize) -> impl Iterator<Item = &mut Gateway> {
        let listen = self.config.impairments.shared;
        let all = self.gateways.iter_mut().enumerate();
        all.filter(move |(other, _)| listen && *other != gateway).map(|(_, other)| other)
    }

    /// A decision takes effect: counters rise, and the request is on its way.
    fn commit(&mut self, gateway: usize, arrival: &Arrival, mut request: Request, server: Server) {
        let network = self.config.network;
        let arrived = self.now + network.router_to_replica;
        self.pending.sent(arrival.id, server, arrived);
        self.gateways[gateway].view.sent(server);
        self.gateways[gateway].router.committed(arrival, server, self.now);
        let now = self.now;
        for other in self.others(gateway) {
            other.view.sent(server);
            other.router.committed(arrival, server, now);
        }
        // Two of the very same rank would preempt each other for ever in vLLM, whose clocks tell them apart.
        self.last_arrival_order = arrived.as_ps().max(self.last_arrival_order + 1);
        request.arrival_order = self.last_arrival_order;
        let lane = &mut self.lanes[server];
        lane.deliver(arrived + network.frontend, self.delivered, request);
        let replica = &mut lane.replica;
        self.delivered += 1;
        if self.listening.in_time() {
            self.due.set(server, replica.next_completion());
        }
    }

    fn happen(&mut self, moment: Moment, more_arrivals: bool, ends: &mut Ends<'_>) {
        match moment {
            Moment::Response { server, event } => self.respond(self.now, server, event, ends),
            Moment::Report { gateway } => self.report(gateway, more_arrivals, ends),
            Moment::Scraped { gateway, reports } => self.scraped(gateway, &reports),
            Moment::Commit { request, server } => {
                if let Some((gateway, arrival, request)) = self.pending.release(request) {
                    self.commit(gateway, &arrival, request, server);
                }
            }
        }
    }

    /// Something a replica produced passes the gateway on its way to the client.
    fn respond(&mut self, at: Time, server: Server, event: EngineEvent, ends: &mut Ends<'_>) {
        let Some(gateway_index) = self.pending.gateway_of(event.id()) else { return };
        let feedback = match &event {
            EngineEvent::FirstToken { id, .. } => Feedback::FirstToken { id: *id, server, at },
            EngineEvent::Ended(engine) if engine.finish.is_complete() => {
                let (id, output_tokens) = (engine.id, engine.output_tokens);
                Feedback::Completed { id, server, at, output_tokens }
            }
            EngineEvent::Ended(engine) => Feedback::Failed { id: engine.id, server, at },
        };
        let ended = matches!(event, EngineEvent::Ended(_));
        self.gateways[gateway_index].hears(&feedback, server, ended);
        for other in self.others(gateway_index) {
            other.hears(&feedback, server, ended);
        }
        match event {
            EngineEvent::FirstToken { id, .. } => self.pending.first_token(id, at),
            EngineEvent::Ended(engine) => self.end(engine.id, Some(engine), None, at, ends),
        }
        for gateway in 0..self.gateways.len() {
            if gateway == gateway_index || self.config.impairments.shared {
                self.ask_again(gateway, ends);
            }
        }
    }

    /// Asks about the requests a gateway keeps, in order, until it keeps one again.
    fn ask_again(&mut self, gateway: usize, ends: &mut Ends<'_>) {
        while let Some(held) = self.gateways[gateway].held.pop_front() {
            let Some((gateway, arrival, request)) = self.pending.release(held) else { continue };
            if self.decide(gateway, arrival, request, ends) {
                break;
            }
        }
    }

    /// A request's end passes its gateway at `at` and reaches the client. `finish` says how where no engine does.
    fn end(
        &mut self,
        id: RequestId,
        engine: Option<EngineOutcome>,
        finish: Option<Finish>,
        at: Time,
        ends: &mut Ends<'_>,
    ) {
        let Some(pending) = self.pending.remove(id) else { return };
        self.last_end = self.last_end.max(at);
        let to_client = self.config.network.client_to_router;
        let tokens = engine.as_ref().map_or(0, |engine| u64::from(engine.output_tokens));
        let per_token = self.config.network.per_token * tokens.saturating_sub(1);
        let finish = finish.or(engine.as_ref().map(|engine| engine.finish)).unwrap_or(Finish::Unfinished);
        // What had not happened by the end of the run is not reported as if it had.
        let unfinished = finish == Finish::Unfinished;
        let happened = |moment: Option<Time>| moment.filter(|&moment| !unfinished || moment <= at);
        let outcome = Outcome {
            attempt: Attempt { request: id, number: 0 },
            replica: pending.server,
            class: pending.class,
            sent: pending.sent,
            prompt_tokens: pending.prompt_tokens,
            arrived: happened(pending.arrived),
            first_token_received: happened(pending.first_token.map(|at| at + to_client)),
            done_received: if unfinished { at } else { at + to_client + per_token },
            engine,
            finish,
        };
        if self.config.check {
            assert!(outcome.is_causal(), "law 3: {outcome:?}");
        }
        ends.source.finished(&outcome);
        (ends.outcomes)(outcome);
    }

    /// Lets the replicas run to the end, and gives every request that is left its outcome.
    fn finish(mut self, end: Time, ends: &mut Ends<'_>) -> Ended<O> {
        if self.listening.in_time() {
            for server in 0..self.lanes.len() {
                self.lanes[server].advance(end);
                self.file_events(server);
            }
            while let Some((at, moment)) = self.agenda.pop() {
                if at > end {
                    break;
                }
                self.now = self.now.max(at);
                if let Moment::Response { server, event } = moment {
                    self.respond(at, server, event, ends);
                }
            }
        } else {
            self.drain_lanes(end, end, ends);
        }
        let at = match self.config.end {
            // Who is kept at a gateway to the last has waited until now.
            End::Drain if self.pending.any() => self.last_end.max(self.now),
            End::Drain => self.last_end,
            End::At(end) => end,
        };
        // What was sent and had not reached its gateway is under way too.
        while ends.source.next_sent().is_some_and(|sent| sent < at) {
            let Some(job) = ends.source.next() else { break };
            self.take_in(&job.arrival());
        }
        while let Some(id) = self.pending.first() {
            self.end(id, None, Some(Finish::Unfinished), at, ends);
        }
        let mut observers = Vec::with_capacity(self.lanes.len());
        let mut replicas = Vec::with_capacity(self.lanes.len());
        let mut deliveries = Vec::new();
        for lane in self.lanes {
            observers.push(lane.observer);
            replicas.push(lane.replica);
            deliveries.extend(lane.kept);
        }
        let failure = self.gateways.iter().find_map(|gateway| gateway.router.failure().map(str::to_string));
        Ended { observers, replicas, deliveries, at, failure }
    }
}
