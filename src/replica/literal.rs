//! The literal engine: visits every sequence at every step. Slow, obviously right, and the judge of any
//! faster path.
//!
//! Knows when things happen: one recurrence gives the moments of every step. With h the host time of a step,
//! g its GPU time and s(k) the moment schedule() is called,
//!
//! ```text
//! synchronous    start(k) = s(k) + h                      s(k+1) = end(k)
//! asynchronous   start(k) = max(end(k-1), s(k) + h)       s(k)   = max(end(k-2), s(k-1) + h)
//!                end(k)   = start(k) + g(k)
//! ```
//!
//! Inputs are drained at s(k), never later. After vLLM's `EngineCore.step` and `step_with_batch_queue`
//! (`vllm/v1/engine/core.py`).

use std::collections::VecDeque;
use std::sync::Arc;

use super::inbox::Inbox;
use super::output::EngineEvent;
use super::scheduler::Scheduler;
use super::step::Step;
use super::{EngineConfig, Input, Limit, Recorder};
use crate::observe::{Observer, StepRun};
use crate::request::{Ledger, RequestId};
use crate::signals::Signals;
use crate::step_time::{Batch, Chunk, Decodes, StepTime};
use crate::time::{Span, Time};

#[derive(Clone, Debug)]
struct InFlight {
    index: u64,
    end: Time,
    kind: StepKind,
    step: Step,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum StepKind {
    Empty,
    Decode,
    Prefill,
}

/// Who listens while an engine advances.
pub(super) struct Listeners<'a> {
    pub(super) observer: &'a mut dyn Observer,
    pub(super) recorder: Option<&'a mut dyn Recorder>,
}

#[derive(Clone, Debug)]
pub(super) struct Literal {
    scheduler: Scheduler,
    step_time: Arc<dyn StepTime>,
    /// When the engine loop can act next.
    clock: Time,
    /// Index of the next schedule() call.
    steps: u64,
    in_flight: VecDeque<InFlight>,
    /// The loop is blocked until the oldest step in flight ends.
    waits: bool,
    /// The last schedule() call came out empty: the engine sleeps before the next.
    slept_for_nothing: bool,
    last_end: Time,
    /// Loads under way: the step whose output reports them at the earliest.
    loads: VecDeque<(u64, RequestId)>,
    signals: Signals,
    ledger: Ledger,
    ledger_until: Time,
    spare: Vec<Step>,
    chunks: Vec<Chunk>,
    check: bool,
}

impl Literal {
    pub(super) fn new(config: EngineConfig, step_time: Arc<dyn StepTime>) -> Literal {
        let scheduler = Scheduler::new(config);
        let signals = Signals { kv_blocks_usable: scheduler.usable_blocks(), ..Signals::default() };
        Literal {
            scheduler,
            step_time,
            clock: Time::ZERO,
            steps: 0,
            in_flight: VecDeque::new(),
            waits: false,
            slept_for_nothing: false,
            last_end: Time::ZERO,
            loads: VecDeque::new(),
            signals,
            ledger: Ledger::default(),
            ledger_until: Time::ZERO,
            spare: Vec::new(),
            chunks: Vec::new(),
            check: false,
        }
    }

    pub(super) fn scheduler(&self) -> &Scheduler {
        &self.scheduler
    }

    pub(super) fn signals(&self) -> Signals {
        self.signals
    }

    pub(super) fn clock(&self) -> Time {
        self.clock
    }

    pub(super) fn steps(&self) -> u64 {
        self.steps
    }

    pub(super) fn set_check(&mut self, check: bool) {
        self.check = check;
    }

    pub(super) fn is_idle(&self) -> bool {
        self.in_flight.is_empty() && !self.scheduler.has_requests()
    }

    /// While idle: the next schedule() call has index `index`.
    pub(super) fn jump_to_step(&mut self, index: u64) {
        assert!(self.is_idle() && index >= self.steps, "only an idle engine jumps, and only forward");
        self.steps = index;
    }

    /// No first token and no end comes out before this moment; none if nothing is here.
    ///
    /// A loop that is not blocked must go round once more before anything can come out, and whatever it
    /// composes then lasts at least a picosecond, so whoever advances to this moment makes headway.
    pub(super) fn next_completion(&self, inbox: &Inbox) -> Option<Time> {
        let soonest = Span::from_ps(1);
        match self.in_flight.front() {
            Some(oldest) if self.waits => Some(oldest.end.max(self.clock)),
            None if !self.scheduler.has_requests() => inbox.next_at().map(|at| at.max(self.clock) + soonest),
            _ => Some(self.clock + soonest),
        }
    }

    pub(super) fn advance(
        &mut self,
        until: Limit,
        inbox: &mut Inbox,
        events: &mut Vec<EngineEvent>,
        listeners: &mut Listeners<'_>,
    ) {
        loop {
            if self.waits {
                let end = self.in_flight.front().map_or(self.clock, |oldest| oldest.end);
                if matches!(until, Limit::Time(limit) if end.max(self.clock) > limit) {
                    return;
                }
                self.process_oldest(events, listeners);
                self.waits = false;
                continue;
            }
            if self.slept_for_nothing {
                self.slept_for_nothing = false;
                if self.scheduler.has_unfinished() {
                    self.clock += self.scheduler.config().empty_step_sleep;
                }
            }
            let reached = match until {
                Limit::Time(limit) => self.clock >= limit,
                Limit::Step(limit) => self.steps >= limit,
            };
            if reached {
                return;
            }
            self.drain(inbox, events, listeners);
            if self.scheduler.has_requests() {
                self.schedule(listeners);
            } else if !self.in_flight.is_empty() {
                self.waits = true;
            } else {
                let next = inbox.next_at().filter(|&at| match until {
                    Limit::Time(limit) => at < limit,
                    Limit::Step(_) => true,
                });
                let Some(at) = next else { return };
                self.account(at.max(self.clock), StepKind::Empty);
                self.clock = self.clock.max(at);
            }
        }
    }

    fn drain(&mut self, inbox: &mut Inbox, events: &mut Vec<EngineEvent>, listeners: &mut Listeners<'_>) {
        while let Some((at, input)) = inbox.pop_until(self.clock) {
            match input {
                Input::Add(request) => self.scheduler.add(request, at),
                Input::Abort(id) => {
                    if self.scheduler.abort(id, self.clock, &self.ledger, events)
                        && let Some(recorder) = &mut listeners.recorder
                    {
                        recorder.aborted(id);
                    }
                }
                Input::Control(control) => match control {},
            }
        }
    }

    fn schedule(&mut self, listeners: &mut Listeners<'_>) {
        let mut step = self.spare.pop().unwrap_or_default();
        self.scheduler.schedule(self.clock, &mut step);
        if self.check {
            self.scheduler.check();
        }
        if let Some(recorder) = &mut listeners.recorder {
            recorder.scheduled(self.steps, self.clock, &step, &self.scheduler);
        }
        let (kind, run) = self.price(&step);
        listeners_steps(listeners, &run, kind);
        let delay = u64::from(self.scheduler.config().kv_load_delay_steps);
        self.loads.extend(step.loads_started.iter().map(|&(id, _)| (self.steps + delay, id)));
        let asynchronous = self.scheduler.config().async_scheduling;
        let had_none_in_flight = self.in_flight.is_empty();
        let goes_on = kind != StepKind::Empty || self.scheduler.has_requests();
        self.waits = !(asynchronous && had_none_in_flight && goes_on);
        self.slept_for_nothing = kind == StepKind::Empty;
        self.last_end = run.start + run.first;
        self.in_flight.push_back(InFlight { index: self.steps, end: self.last_end, kind, step });
        self.steps += 1;
    }

    /// The moments of a step composed now; moves the clock past its host time.
    fn price(&mut self, step: &Step) -> (StepKind, StepRun) {
        self.chunks.clear();
        let mut decodes = Decodes::default();
        let mut prefill_tokens = 0;
        for part in &step.scheduled {
            let context = part.before + part.tokens;
            if part.tokens == 1 && part.before >= self.scheduler.prompt_tokens_of(part) {
                decodes.count += 1;
                decodes.context_sum += u64::from(context);
                decodes.context_max = decodes.context_max.max(context);
            } else {
                let samples = part.sampled > 0;
                self.chunks.push(Chunk { tokens: part.tokens, before: part.before, samples });
                prefill_tokens += part.tokens;
            }
        }
        let cost = self.step_time.cost(&Batch { chunks: &self.chunks, decodes });
        self.clock += cost.host;
        let kind = match (step.scheduled.is_empty(), self.chunks.is_empty()) {
            (true, _) => StepKind::Empty,
            (false, true) => StepKind::Decode,
            (false, false) => StepKind::Prefill,
        };
        let run = StepRun {
            start: self.clock.max(self.last_end),
            count: 1,
            first: cost.gpu,
            growth: Span::ZERO,
            decodes: decodes.count,
            prefill_tokens,
            running: self.scheduler.running_count(),
            waiting: self.scheduler.waiting_count(),
            kv_blocks_used: self.scheduler.usable_blocks() - self.scheduler.free_blocks(),
        };
        (kind, run)
    }

    fn process_oldest(&mut self, events: &mut Vec<EngineEvent>, listeners: &mut Listeners<'_>) {
        let Some(done) = self.in_flight.pop_front() else { return };
        self.clock = self.clock.max(done.end);
        self.account(self.clock, done.kind);
        let ended_from = events.len();
        let (mut last_token, mut tokens) = (self.clock, 0);
        let now = self.clock;
        let observer = &mut *listeners.observer;
        self.scheduler.process(&done.step, now, &self.ledger, events, |before| {
            // Almost all requests of a step had their last token at the same moment.
            if before != last_token {
                if tokens > 0 {
                    observer.token_gaps(now - last_token, tokens);
                }
                (last_token, tokens) = (before, 0);
            }
            tokens += 1;
        });
        if tokens > 0 {
            observer.token_gaps(now - last_token, tokens);
        }
        let reported = self.loads.iter().take_while(|(earliest, _)| *earliest <= done.index).count();
        for (_, id) in self.loads.drain(..reported) {
            self.scheduler.load_finished(id);
            if let Some(recorder) = &mut listeners.recorder {
                recorder.load_finished(id);
            }
        }
        if let Some(recorder) = &mut listeners.recorder {
            recorder.processed(done.index, &events[ended_from..], &self.scheduler);
        }
        self.read_gauges();
        self.spare.push(done.step);
    }

    fn read_gauges(&mut self) {
        let totals = self.scheduler.totals();
        self.signals = Signals {
            running: self.scheduler.running_count(),
            waiting: self.scheduler.waiting_count(),
            kv_blocks_used: self.scheduler.usable_blocks() - self.scheduler.free_blocks(),
            kv_blocks_usable: self.scheduler.usable_blocks(),
            preemptions: totals.preemptions,
            prefix_cache_queries: totals.cache_queries,
            prefix_cache_hits: totals.cache_hits,
        };
    }

    /// Books the time since the last booking.
    fn account(&mut self, until: Time, kind: StepKind) {
        let span = until - self.ledger_until;
        self.ledger_until = until;
        match kind {
            StepKind::Empty => self.ledger.idle += span,
            StepKind::Decode => self.ledger.decode += span,
            StepKind::Prefill => self.ledger.prefill += span,
        }
    }
}

fn listeners_steps(listeners: &mut Listeners<'_>, run: &StepRun, kind: StepKind) {
    if kind != StepKind::Empty {
        listeners.observer.steps(run);
    }
}
