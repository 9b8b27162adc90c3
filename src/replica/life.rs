//! An engine starts, slows down and dies.
//!
//! Knows what orders do to an engine, in order of time. Does not know who gives them, or who is told. Nothing
//! survives a crash: what runs, waits or is on its way is lost, and with it the KV cache and the counters.

use std::collections::VecDeque;
use std::sync::Arc;

use super::engine::{Engine, Listeners, StepKind};
use super::output::EngineEvent;
use super::{Input, Limit, Replica};
use crate::request::{EngineOutcome, Finish};
use crate::signals::Signals;
use crate::step_time::StepTime;
use crate::step_time::scaled::Scaled;
use crate::time::Time;

/// Orders to an engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Control {
    /// The process is gone, and everything in it.
    Crash,
    /// A new process is ready. Its start-up is over.
    Start,
    /// From the next step on, steps take so many thousandths of what they would.
    Pace {
        /// 1,000 is the pace it was built with.
        per_mille: u32,
    },
}

/// What an engine has been told and not yet done, and what came before the process that runs.
#[derive(Clone, Debug)]
pub(super) struct Life {
    pub(super) up: bool,
    orders: VecDeque<(Time, Control)>,
    /// Prices at the pace it was built with.
    step_time: Arc<dyn StepTime>,
    per_mille: u32,
    /// Counters of the processes before this one.
    before: Signals,
}

impl Life {
    /// A process that runs from the start.
    pub(super) fn new(step_time: Arc<dyn StepTime>) -> Life {
        let before = Signals::default();
        Life { up: true, orders: VecDeque::new(), step_time, per_mille: 1_000, before }
    }

    /// Files an order; of equal times the earlier filed comes first.
    pub(super) fn order(&mut self, at: Time, control: Control) {
        let behind = self.orders.iter().rev().take_while(|(other, _)| *other > at).count();
        self.orders.insert(self.orders.len() - behind, (at, control));
    }

    /// When the next order is due.
    pub(super) fn next_order(&self) -> Option<Time> {
        self.orders.front().map(|(at, _)| *at)
    }

    fn paced(&self) -> Arc<dyn StepTime> {
        match self.per_mille {
            1_000 => self.step_time.clone(),
            per_mille => Arc::new(Scaled::new(self.step_time.clone(), u64::from(per_mille))),
        }
    }
}

impl Replica {
    /// Whether its process runs, as far as it has lived.
    pub fn is_up(&self) -> bool {
        self.life.up
    }

    /// Its gauges, with counters of all its processes.
    pub fn lifetime_signals(&self) -> Signals {
        let (now, before) = (self.signals(), self.life.before);
        Signals {
            preemptions: before.preemptions + now.preemptions,
            prefix_cache_queries: before.prefix_cache_queries + now.prefix_cache_queries,
            prefix_cache_hits: before.prefix_cache_hits + now.prefix_cache_hits,
            generation_tokens: before.generation_tokens + now.generation_tokens,
            successes: before.successes + now.successes,
            ..now
        }
    }

    /// Lives up to `until`, orders included. Each is obeyed at its time, behind what comes out then and before what
    /// comes in (law 4).
    pub(super) fn live(&mut self, until: Limit, listeners: &mut Listeners<'_>) {
        if let Limit::Time(moment) = until {
            while let Some((at, control)) = self.life.orders.pop_front_if(|(at, _)| *at <= moment) {
                self.live_without_orders(Limit::Time(at), listeners);
                if let (Control::Crash, Some(recorder)) = (control, &mut listeners.recorder) {
                    recorder.crashed();
                }
                self.obey(at, control);
            }
        }
        self.live_without_orders(until, listeners);
    }

    fn live_without_orders(&mut self, until: Limit, listeners: &mut Listeners<'_>) {
        match (self.life.up, until) {
            (true, _) => self.engine.advance(until, &mut self.inbox, &mut self.events, listeners),
            (false, Limit::Time(moment)) => self.lose_inputs(moment),
            (false, _) => unreachable!("recordings in steps have no crashes"),
        }
    }

    /// Whatever reaches it before then finds nobody. Who comes at the very moment may find a process that starts then.
    fn lose_inputs(&mut self, before: Time) {
        while let Some((at, input)) = self.inbox.pop_before(before) {
            if let Input::Add(request) = input {
                let nobody_since = self.engine.clock();
                let lost = EngineOutcome::turned_away(&request, at, Finish::Lost);
                // What waited in the front end is lost when that dies, and not before.
                let done = at.max(nobody_since);
                self.events.push(EngineEvent::Ended(EngineOutcome { done, ..lost }));
            }
        }
    }

    fn obey(&mut self, at: Time, control: Control) {
        match control {
            Control::Crash if self.life.up => {
                self.life.up = false;
                self.engine.lose_all(at, &mut self.events);
                self.life.before = self.lifetime_signals();
                self.engine = self.engine.successor(at, self.life.paced());
                self.lose_inputs(at);
            }
            Control::Start if !self.life.up => {
                self.lose_inputs(at);
                self.life.up = true;
                self.engine.busy_until(at);
            }
            Control::Crash | Control::Start => {}
            Control::Pace { per_mille } => {
                self.life.per_mille = per_mille;
                self.engine.step_time = self.life.paced();
            }
        }
    }
}

impl Engine {
    /// Everything here is lost at `at`, in order of number.
    fn lose_all(&mut self, at: Time, events: &mut Vec<EngineEvent>) {
        let kind = self.in_flight.front().map(|step| step.kind);
        // An idle loop may have booked the host time of a step that will never be.
        self.account(at.max(self.ledger_until), kind.unwrap_or(StepKind::Empty));
        // At schedule() one step is in flight, or none; now there may be another, of which nothing has come out.
        let usual = usize::from(self.scheduler.config().async_scheduling);
        let late = self.in_flight.len().saturating_sub(usual) as u32;
        for id in self.scheduler.unfinished() {
            self.scheduler.settle_late(id, self.steps, late);
            self.scheduler.end(id, Finish::Lost, self.steps, at, &self.ledger, events);
        }
    }

    /// The process that comes after this one: empty, ready at `at`, its steps numbered on.
    fn successor(&self, at: Time, step_time: Arc<dyn StepTime>) -> Engine {
        let mut engine = Engine::new(self.scheduler.config().clone(), step_time, self.path);
        engine.follow(self, at);
        engine.busy_until(at);
        engine
    }
}
