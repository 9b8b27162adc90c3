//! How many replicas there are: what an autoscaler is told, and what its answer brings about.
//!
//! Knows orders, starts and goodbyes, and what replicas cost in time. Does not know when more are needed: the
//! [`autoscaler`](crate::autoscaler) does. Who is ordered is paid for from then on, whether or not it answers yet.

use rand::RngExt;
use rayon::prelude::*;

use super::incidents::{Back, Stage, Step};
use super::{Fleet, Moment};
use crate::agenda::Kind;
use crate::autoscaler::{Autoscaler, Reading};
use crate::observe::Observer;
use crate::random::Purpose;
use crate::replica::{Control, Input};
use crate::router::Server;
use crate::signals::Signals;
use crate::time::{Span, Time};

/// The limits of an autoscaler, and its surroundings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Scale {
    /// Replicas that are up at the start.
    pub initial: u32,
    /// There are never fewer.
    pub least: u32,
    /// Nor more. The fleet has so many lanes.
    pub most: u32,
    /// Between two decisions.
    pub interval: Span,
    /// Between two reads of gauges, as Prometheus scrapes them.
    pub scrape_interval: Span,
    /// From an order until there is a machine to start on.
    pub node_start_up: Span,
    /// Longest wait for what is under way at a replica that goes.
    pub grace: Span,
}

/// A change in the number of replicas.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Change {
    /// When.
    pub at: Time,
    /// Replicas there should be from then on.
    pub wanted: u32,
    /// Replicas that are up from then on.
    pub ready: u32,
}

/// What scaling did and cost.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct ScalingBook {
    /// Every change, in order of time; the first is the start.
    pub changes: Vec<Change>,
    /// Time from orders to ends, summed over replicas.
    pub paid: Span,
}

/// An autoscaler at work.
pub(super) struct Scaling {
    scale: Scale,
    /// The replicas that it may have, those that are up at the start first.
    members: Vec<Server>,
    autoscaler: Box<dyn Autoscaler>,
    wanted: u32,
    /// Gauges of who was up at the last scrape.
    scraped: Vec<Option<Signals>>,
    /// When those that are paid for were ordered, and who was, from when to when.
    ordered_at: Vec<Option<Time>>,
    paid: Vec<(Time, Time)>,
    /// Orders so far, and the number of each replica's.
    orders: u64,
    order_of: Vec<u64>,
    /// Those who go for good.
    leaves: Vec<bool>,
    pub(super) book: ScalingBook,
}

impl Scaling {
    fn pays(&mut self, server: Server, until: Time) {
        if let Some(since) = self.ordered_at[server].take() {
            self.paid.push((since, until));
        }
    }

    /// Pays for whoever is left at the end.
    pub(super) fn close(mut self, at: Time) -> ScalingBook {
        (0..self.ordered_at.len()).for_each(|server| self.pays(server, at));
        let paid = self.paid.iter().map(|(since, until)| (*until).min(at).saturating_since(*since));
        self.book.paid = paid.fold(Span::ZERO, |sum, span| sum + span);
        self.book.changes.retain(|change| change.at <= at);
        self.book
    }
}

impl<O: Observer + Send> Fleet<O> {
    /// The same with an autoscaler of these replicas, which are alike. The first of them are up at the start, the others are not there.
    ///
    /// # Panics
    /// If these are not as many as there may be, or the limits are not in order.
    pub fn scaled(mut self, scale: Scale, members: Vec<Server>, autoscaler: Box<dyn Autoscaler>) -> Fleet<O> {
        let lanes = self.lanes.len();
        let in_order = scale.least <= scale.most && scale.initial <= scale.most;
        assert!(scale.most as usize == members.len() && in_order && members.iter().all(|own| *own < lanes));
        (self.listening.ends, self.listening.reacts) = (true, true);
        let (up, absent) = members.split_at(scale.initial as usize);
        let (is_up, absent) = (|server: &Server| up.contains(server), absent.to_vec());
        self.scaling = Some(Scaling {
            scale,
            autoscaler,
            wanted: scale.initial,
            scraped: vec![None; lanes],
            paid: Vec::new(),
            ordered_at: (0..lanes).map(|server| is_up(&server).then_some(Time::ZERO)).collect(),
            orders: lanes as u64,
            order_of: (0..lanes as u64).collect(),
            leaves: vec![false; lanes],
            book: ScalingBook::default(),
            members,
        });
        absent.into_iter().for_each(|server| self.is_not_there(server));
        self.note_change();
        // Nobody keeps the scraper and the autoscaler in step.
        let mut phases = self.config.seed.stream(Purpose::ScrapePhase, 0);
        let phase = Span::from_ps(phases.random_range(0..scale.scrape_interval.as_ps()));
        self.file_scaling(Time::ZERO + phase, Step::Scrape);
        self.file_scaling(Time::ZERO + scale.interval, Step::Scale);
        self
    }

    /// At the start there is no process here.
    pub(super) fn is_not_there(&mut self, server: Server) {
        self.deliver(server, Time::ZERO, Input::Control(Control::Crash));
        self.processes[server].passes_to(Stage::Absent);
        self.is_listed_nowhere(server);
    }

    fn file_scaling(&mut self, at: Time, step: Step) {
        self.agenda.add(at, Kind::Incident, u64::MAX, Moment::Incident(step));
    }

    /// The number of replicas has changed, or of those that are up.
    pub(super) fn note_change(&mut self) {
        let Some(scaling) = &mut self.scaling else { return };
        let answers = |server: &&Server| self.processes[**server].answers();
        let ready = scaling.members.iter().filter(answers).count() as u32;
        let change = Change { at: self.now, wanted: scaling.wanted, ready };
        let changes = &mut scaling.book.changes;
        if changes.last().is_some_and(|last| last.at == change.at) {
            changes.pop();
        }
        let same = |last: &Change| (last.wanted, last.ready) == (change.wanted, change.ready);
        if !changes.last().is_some_and(same) {
            changes.push(change);
        }
    }

    /// The gauges of all that are up are read, while anybody comes or is under way.
    pub(super) fn scrape(&mut self, goes_on: bool) {
        let now = self.now;
        self.lanes.par_iter_mut().with_min_len(64).for_each(|lane| lane.advance(now));
        let Some(scaling) = &mut self.scaling else { return };
        for (server, lane) in self.lanes.iter().enumerate() {
            let process = &self.processes[server];
            let told = process.stage == Stage::Up && lane.answers() && !process.is_blind;
            scaling.scraped[server] = told.then(|| lane.replica.signals());
        }
        let next = now + scaling.scale.scrape_interval;
        if goes_on {
            self.file_scaling(next, Step::Scrape);
        }
    }

    /// The autoscaler decides.
    pub(super) fn scale(&mut self, goes_on: bool) {
        let Some(scaling) = &mut self.scaling else { return };
        let up = |server: Server| self.processes[server].stage == Stage::Up;
        let told = scaling.members.iter().filter(|server| up(**server));
        let gauges: Vec<Signals> = told.filter_map(|server| scaling.scraped[*server]).collect();
        let queued = self.gateways.iter().map(|gateway| gateway.held.len() as u32).sum();
        let start_up = scaling.scale.node_start_up + self.lanes[scaling.members[0]].facts.start_up;
        let reading = Reading {
            now: self.now,
            wanted: scaling.wanted,
            limits: (scaling.scale.least, scaling.scale.most),
            gauges: &gauges,
            queued,
            arrivals: self.tally.tries,
            start_up,
        };
        let decided = scaling.autoscaler.decide(&reading);
        scaling.wanted = decided.clamp(scaling.scale.least, scaling.scale.most);
        let next = self.now + scaling.scale.interval;
        self.reconcile();
        self.note_change();
        if goes_on {
            self.file_scaling(next, Step::Scale);
        }
    }

    /// Orders who is missing, and lets go who is too many.
    fn reconcile(&mut self) {
        let Some(scaling) = &self.scaling else { return };
        let there =
            |server: &Server| self.processes[*server].stage != Stage::Absent && !scaling.leaves[*server];
        let mut members = scaling.members.clone();
        members.sort_unstable();
        let mut there: Vec<Server> = members.iter().copied().filter(there).collect();
        let wanted = scaling.wanted as usize;
        if there.len() < wanted {
            let absent = |server: &Server| self.processes[*server].stage == Stage::Absent;
            let absent: Vec<Server> = members.into_iter().filter(absent).collect();
            absent.into_iter().take(wanted - there.len()).for_each(|server| self.order_one(server));
            return;
        }
        // As a ReplicaSet does: first those that are not up, then those that came last.
        let key = |server: &Server| {
            (self.processes[*server].stage == Stage::Up, std::cmp::Reverse(scaling.order_of[*server]))
        };
        there.sort_by_key(key);
        let too_many = there.len() - wanted;
        there.into_iter().take(too_many).for_each(|server| self.let_go(server));
    }

    fn order_one(&mut self, server: Server) {
        let Some(scaling) = &mut self.scaling else { return };
        scaling.ordered_at[server] = Some(self.now);
        scaling.orders += 1;
        scaling.order_of[server] = scaling.orders;
        scaling.scraped[server] = None;
        let after = scaling.scale.node_start_up + self.lanes[server].facts.start_up;
        self.starts_anew(server, after);
    }

    fn let_go(&mut self, server: Server) {
        let Some(scaling) = &mut self.scaling else { return };
        let grace = scaling.scale.grace;
        match self.processes[server].stage {
            Stage::Up => {
                scaling.leaves[server] = true;
                self.drain(server, None, grace, Back::Never, None);
            }
            // Somebody else drains it already.
            Stage::Draining => scaling.leaves[server] = true,
            Stage::Down => {
                self.processes[server].passes_to(Stage::Absent);
                scaling.pays(server, self.now);
                self.goes_on_without(server);
            }
            Stage::Absent => {}
        }
    }

    /// A process has stopped; says whether it is gone for good.
    pub(super) fn is_gone(&mut self, server: Server) -> bool {
        let Some(scaling) = &mut self.scaling else { return false };
        let gone = std::mem::take(&mut scaling.leaves[server]);
        if gone {
            scaling.pays(server, self.now);
            self.processes[server].passes_to(Stage::Absent);
        }
        gone
    }
}
