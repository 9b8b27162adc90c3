//! The fleet: gateways in front of replicas, and the only place where time moves.
//!
//! Knows lanes (a replica and its observer), gateways (a policy and its private view), the network between
//! them, and the agenda. Does not know scenarios, statistics or files.
//!
//! One request's way: it is sent, reaches its gateway, the policy looks and decides, the decision takes
//! effect, the request is delivered to a replica, tokens come back. Between two looks a replica is a function
//! of its own past, so nothing simulates until somebody looks, and only what is looked at.

use rayon::prelude::*;

pub mod admission;
mod config;
mod due;
mod ending;
mod gateway;
pub mod health;
pub mod incidents;
mod lane;
mod listening;
pub mod patience;
mod pending;
mod polls;
mod requests;
pub mod scaling;
mod waiting;

pub use config::{End, FleetConfig, Network};
use due::Due;
pub use ending::Tally;
use gateway::Gateway;
use incidents::{Happened, Incidents, Process, Step};
pub use lane::Delivery;
use lane::Lane;
use listening::Listening;
use pending::Pending;
use scaling::{Scaling, ScalingBook};

use crate::agenda::{Agenda, Kind};
use crate::observe::Observer;
use crate::replica::{EngineEvent, Replica};
use crate::request::{Outcome, RequestId};
use crate::router::{Facts, Router, Server};
use crate::signals::Glimpse;
use crate::time::{Span, Time};
use crate::workload::Source;

enum Moment {
    Response { server: Server, event: EngineEvent },
    Report { gateway: usize },
    Scraped { gateway: usize, reports: Vec<(Server, Glimpse)> },
    Commit { request: RequestId, attempt: u32, server: Server },
    Incident(Step),
    Timeout { request: RequestId, client_try: u16, whole: bool },
    Again { request: RequestId, attempt: u32, by_client: bool },
    Waited { request: RequestId, attempt: u32 },
}

/// Replicas behind gateways, ready to run.
pub struct Fleet<O> {
    config: FleetConfig,
    lanes: Vec<Lane<O>>,
    /// When each lane may have something to say; kept where somebody listens.
    due: Due,
    gateways: Vec<Gateway>,
    /// Of each lane.
    processes: Vec<Process>,
    incidents: Incidents,
    scaling: Option<Scaling>,
    tally: Tally,
    /// Whether somebody may try again.
    tries_again: bool,
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
    /// Tries, and what was done in vain.
    pub tally: Tally,
    /// What befell replicas, in order of time.
    pub happened: Vec<Happened>,
    /// What an autoscaler did; none where there was none.
    pub scaling: Option<ScalingBook>,
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
    /// If there is no replica or no gateway, or more spare ones than replicas.
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
            Lane {
                replica,
                observer,
                facts,
                late,
                kept: None,
                last_delivery: Time::ZERO,
                last_sent_arrives: Time::ZERO,
                last_response: Time::ZERO,
            }
        });
        let gateways: Vec<Gateway> = routers
            .into_iter()
            .enumerate()
            .map(|(number, router)| Gateway::new(number, router, servers, &config))
            .collect();
        let listening = Listening::of(gateways.iter().map(|gateway| gateway.sight)).and_to(&config);
        let tries_again = config.patience.retries > 0 || config.retries.attempts > 0;
        let plan = config.incidents.clone();
        let mut fleet = Fleet {
            lanes: lanes.collect(),
            due: Due::new(servers),
            gateways,
            processes: vec![Process::new(); servers],
            incidents: Incidents::default(),
            scaling: None,
            tally: Tally::default(),
            tries_again,
            agenda: Agenda::default(),
            pending: Pending::default(),
            delivered: 0,
            last_arrival_order: 0,
            now: Time::ZERO,
            last_end: Time::ZERO,
            listening,
            config,
        };
        fleet.plan(&plan);
        (servers - fleet.config.spare..servers).for_each(|server| fleet.is_not_there(server));
        fleet
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
        let end = self.config.end.moment();
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
        // A gateway that tries again does so when it hears of a failure, and nobody must have lived past that.
        let limit = match self.listening.reacts {
            true => soonest,
            false if self.config.retries.attempts > 0 => self.next_failure().min(until),
            false => until,
        };
        let mut came_out = false;
        while let Some((_, server)) = self.due.soonest(limit) {
            self.lanes[server].advance(limit);
            came_out |= self.file_events(server);
            // All that comes out up to the limit has come out.
            let behind = limit.saturating_add(Span::from_ps(1));
            let next = self.lanes[server].replica.next_completion();
            self.due.set(server, next.map(|next| next.max(behind)));
        }
        came_out || limit < until || self.listening.reacts
    }

    /// From a gateway to a replica, or back.
    fn way(&self, server: Server) -> Span {
        self.config.network.router_to_replica + self.processes[server].delay
    }

    /// Puts what came out of a replica where its gateway will hear it.
    fn file_events(&mut self, server: Server) -> bool {
        let back = self.way(server);
        let keeps_order = self.processes[server].network_has_changed();
        let Lane { replica, last_response, .. } = &mut self.lanes[server];
        let mut any = false;
        for event in replica.take_events() {
            let mut at = event.at() + back;
            if keeps_order {
                // What is behind on the way stays behind, however quick the network has become.
                at = at.max(*last_response);
                *last_response = at;
            }
            match event {
                EngineEvent::FirstToken { id, attempt, .. } if !self.listening.first_tokens => {
                    self.pending.first_token(id, attempt, at);
                }
                event => {
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
        for server in 0..self.lanes.len() {
            let back = self.way(server);
            let mut events = self.lanes[server].replica.lend_events();
            for event in events.drain(..) {
                let at = event.at() + back;
                match event {
                    _ if at > end => {}
                    EngineEvent::FirstToken { id, attempt, .. } => self.pending.first_token(id, attempt, at),
                    EngineEvent::Ended(engine) => self.attempt_ended(engine, at, ends),
                }
            }
            self.lanes[server].replica.return_events(events);
        }
    }

    fn happen(&mut self, moment: Moment, more_arrivals: bool, ends: &mut Ends<'_>) {
        match moment {
            Moment::Response { server, event } => self.respond(self.now, server, event, ends),
            Moment::Report { gateway } => self.report(gateway, more_arrivals, ends),
            Moment::Scraped { gateway, reports } => self.scraped(gateway, &reports),
            Moment::Commit { request, attempt, server } => self.gap_is_over(request, attempt, server),
            Moment::Incident(step) => {
                self.befall(step, more_arrivals || self.pending.any());
                if let Step::Notice { gateway, .. } | Step::Return { gateway, .. } = step {
                    // Whoever has waited for a replica may find one now.
                    self.ask_again(gateway, ends);
                }
            }
            Moment::Timeout { request, client_try, whole } => self.time_out(request, client_try, whole, ends),
            Moment::Again { request, attempt, by_client } => self.again(request, attempt, by_client, ends),
            Moment::Waited { request, attempt } => self.waited(request, attempt, ends),
        }
    }
}
