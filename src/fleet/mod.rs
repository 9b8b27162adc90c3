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
pub mod hedging;
pub mod incidents;
mod kv_events;
mod lane;
mod link;
mod listening;
pub mod patience;
mod pending;
mod polls;
mod requests;
pub mod saturation;
pub mod scaling;
mod silence;
mod waiting;

pub use config::{End, FleetConfig, Network};
use due::Due;
pub use ending::Tally;
use gateway::Gateway;
use incidents::{Happened, Incidents, Process, Step, What};
use kv_events::Publisher;
pub use lane::Delivery;
use lane::Lane;
use link::{Leg, Link, Message};
use listening::Listening;
use patience::Phase;
use pending::Pending;
use scaling::{Scaling, ScalingBook};

use crate::agenda::{Agenda, Kind};
use crate::observe::Observer;
use crate::replica::{Control, EngineEvent, Input, Path, Replica};
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
    Timeout { request: RequestId, client_try: u16, phase: Phase },
    Look { copy: RequestId, attempt: u32 },
    Hedge { request: RequestId, attempt: u32 },
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
    /// To each lane.
    links: Vec<Link>,
    incidents: Incidents,
    scaling: Option<Scaling>,
    tally: Tally,
    /// Whether somebody may try again.
    tries_again: bool,
    /// Whether requests are kept as they came, until they end.
    remembers: bool,
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

/// Makes the policy of a gateway anew: its number, and how many were made in its place before.
pub type NewRouter<'a> = dyn Fn(usize, u32) -> Box<dyn Router> + 'a;

/// Where outcomes go, and where requests and policies come from.
struct Ends<'a> {
    outcomes: &'a mut dyn FnMut(Outcome),
    source: &'a mut dyn Source,
    new_router: &'a NewRouter<'a>,
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
        let listened_to =
            config.impairments.are_of_kv_events() && routers.iter().any(|router| router.sight().kv_events);
        let lanes: Vec<_> = replicas
            .into_iter()
            .enumerate()
            .map(|(server, (facts, observer))| {
                let mut replica = facts.replica(server, config.seed, Path::Fast);
                replica.set_check(config.check);
                let publisher = (listened_to && facts.engine.enable_prefix_caching).then(|| {
                    Box::new(Publisher::new(
                        &facts,
                        server,
                        config.seed,
                        routers.len(),
                        config.impairments.kv_index,
                    ))
                });
                Lane { replica, observer, facts, publisher, kept: None, last_delivery: Time::ZERO }
            })
            .collect();
        let gateways: Vec<Gateway> = routers
            .into_iter()
            .enumerate()
            .map(|(number, router)| Gateway::new(number, router, servers, &config, Time::ZERO))
            .collect();
        let listening = Listening::of(gateways.iter().map(|gateway| gateway.sight)).and_to(&config);
        let tries_again =
            config.patience.retries > 0 || config.retries.attempts > 0 || config.hedging.is_some();
        let plan = config.incidents.clone();
        let gateways_go = plan.iter().any(|incident| matches!(incident.what, What::GatewayLost { .. }));
        let mut fleet = Fleet {
            lanes,
            due: Due::new(servers),
            gateways,
            processes: vec![Process::new(); servers],
            links: vec![Link::default(); servers],
            incidents: Incidents::default(),
            scaling: None,
            tally: Tally::default(),
            tries_again,
            remembers: tries_again || gateways_go && config.impairments.shared,
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
        for (lane, process) in self.lanes.iter_mut().zip(&self.processes) {
            // Machines without a process were told so before.
            let crash = Delivery { at: Time::ZERO, order: 0, input: Input::Control(Control::Crash) };
            lane.kept = Some(if process.answers() { Vec::new() } else { vec![crash] });
        }
        self
    }

    /// Runs until the source is dry and everything has ended, or until the configured end. Every request
    /// gives `outcomes` exactly one outcome (law 1), in an order that is the same every time but not that of
    /// their ends.
    ///
    /// # Panics
    /// If a gateway is lost and comes back: [`Fleet::run_with`] says how its policy is made.
    pub fn run(self, source: &mut dyn Source, outcomes: &mut dyn FnMut(Outcome)) -> Ended<O> {
        let never: &NewRouter<'_> = &|_, _| unreachable!("no gateway comes back here");
        self.run_with(source, outcomes, never)
    }

    /// The same where gateways may be lost: those that come back begin with a policy of `new_router`.
    pub fn run_with(
        mut self,
        source: &mut dyn Source,
        outcomes: &mut dyn FnMut(Outcome),
        new_router: &NewRouter<'_>,
    ) -> Ended<O> {
        self.listening.reacts |= source.is_closed_loop();
        let end = self.config.end.moment();
        let ends = &mut Ends { outcomes, source, new_router };
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

    /// Puts what came out of a replica where its gateway will hear it.
    fn file_events(&mut self, server: Server) -> bool {
        let back = self.config.network.router_to_replica;
        let mut any = false;
        let mut events = self.lanes[server].replica.lend_events();
        for event in events.drain(..) {
            if let EngineEvent::FirstToken { id, attempt, at } = event {
                self.watch_tokens(id, attempt, at);
            }
            let at = match self.links[server].has_changed() {
                false => event.at() + back,
                true => {
                    let (id, attempt) = (event.id(), event.attempt());
                    let under_way = self.pending.get(id).filter(|one| u32::from(one.attempt) == attempt);
                    let gateway = under_way.map(|one| one.gateway as usize);
                    let leg = if matches!(event, EngineEvent::Ended(_)) { Leg::End } else { Leg::FirstToken };
                    let message = Message { id, attempt, leg };
                    self.links[server].is_heard(event.at(), back, gateway, message, self.config.seed)
                }
            };
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
        self.lanes[server].replica.return_events(events);
        any
    }

    /// Nobody listens: lanes live up to `until` side by side, and what came out goes straight to its client,
    /// unless it would reach the gateway after `end`.
    fn drain_lanes(&mut self, until: Time, end: Time, ends: &mut Ends<'_>) {
        self.lanes.par_iter_mut().for_each(|lane| lane.advance(until));
        for server in 0..self.lanes.len() {
            let back = self.config.network.router_to_replica;
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
            Moment::Response { server, event } => match self.held_up(server, &event) {
                Some(until) => {
                    self.agenda.add(until, Kind::Response, server as u64, Moment::Response { server, event })
                }
                None => self.respond(self.now, server, event, ends),
            },
            Moment::Report { gateway } => self.report(gateway, more_arrivals, ends),
            Moment::Scraped { gateway, reports } => self.scraped(gateway, &reports, ends),
            Moment::Commit { request, attempt, server } => self.gap_is_over(request, attempt, server),
            Moment::Incident(step) => {
                self.befall(step, more_arrivals || self.pending.any(), ends);
                if let Step::Notice { gateway, .. } | Step::Return { gateway, .. } = step {
                    // Whoever has waited for a replica may find one now.
                    self.ask_again(gateway, ends);
                }
            }
            Moment::Timeout { request, client_try, phase } => self.time_out(request, client_try, phase, ends),
            Moment::Look { copy, attempt } => self.look_for_silence(copy, attempt),
            Moment::Hedge { request, attempt } => self.hedge(request, attempt),
            Moment::Again { request, attempt, by_client } => self.again(request, attempt, by_client, ends),
            Moment::Waited { request, attempt } => self.waited(request, attempt, ends),
        }
    }
}
