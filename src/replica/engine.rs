//! The engine loop: when each step happens.
//!
//! Knows one recurrence, for both ways of composing a step: the literal scheduler, which visits every sequence
//! at every step, and the decode clock. The literal way alone ([`Path::Literal`]) is slow, obviously right, and
//! the judge of the other. With h the host time of a step, g its GPU time and s(k) the moment schedule() is
//! called,
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
use super::jitter::Jitter;
use super::output::EngineEvent;
use super::scheduler::Scheduler;
use super::step::Step;
use super::{EngineConfig, Input, Limit, Path, Recorder};
use crate::observe::{GapRun, Observer, Pace, StepRun, Taken};
use crate::request::{Finish, Ledger, RequestId};
use crate::signals::Signals;
use crate::step_time::{Batch, Chunk, Decodes, StepTime};
use crate::time::{Span, Time};

#[derive(Clone, Debug)]
pub(super) struct InFlight {
    pub(super) index: u64,
    pub(super) end: Time,
    pub(super) kind: StepKind,
    /// Sequences on the decode clock that still get a token of it.
    pub(super) decodes: u32,
    /// What else it holds. Boxed, because steps move between lists and are used again.
    pub(super) step: Box<Step>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum StepKind {
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
pub(super) struct Engine {
    pub(super) path: Path,
    pub(super) scheduler: Scheduler,
    pub(super) step_time: Arc<dyn StepTime>,
    /// How its steps scatter around their price.
    pub(super) jitter: Option<Jitter>,
    /// When the engine loop can act next.
    pub(super) clock: Time,
    /// Index of the next schedule() call.
    pub(super) steps: u64,
    pub(super) in_flight: VecDeque<InFlight>,
    /// The loop is blocked until the oldest step in flight ends.
    waits: bool,
    /// The last schedule() call came out empty: the engine sleeps before the next.
    slept_for_nothing: bool,
    /// Steps composed the literal way.
    literal_steps: u64,
    pub(super) last_end: Time,
    /// Loads under way: the step whose output reports them at the earliest.
    loads: VecDeque<(u64, RequestId)>,
    signals: Signals,
    pub(super) ledger: Ledger,
    pub(super) ledger_until: Time,
    #[expect(clippy::vec_box, reason = "boxes move between here and the steps in flight")]
    spare: Vec<Box<Step>>,
    /// The newest step's, with the decodes beside them.
    chunks: Vec<Chunk>,
    decodes: Decodes,
    pub(super) taken: Vec<Taken>,
    check: bool,
}

impl Engine {
    pub(super) fn new(config: EngineConfig, step_time: Arc<dyn StepTime>, path: Path) -> Engine {
        let scheduler = Scheduler::new(config);
        let signals = Signals { kv_blocks_usable: scheduler.usable_blocks(), ..Signals::default() };
        Engine {
            path,
            scheduler,
            step_time,
            jitter: None,
            clock: Time::ZERO,
            steps: 0,
            in_flight: VecDeque::new(),
            waits: false,
            slept_for_nothing: false,
            literal_steps: 0,
            last_end: Time::ZERO,
            loads: VecDeque::new(),
            signals,
            ledger: Ledger::default(),
            ledger_until: Time::ZERO,
            spare: Vec::new(),
            chunks: Vec::new(),
            decodes: Decodes::default(),
            taken: Vec::new(),
            check: false,
        }
    }

    /// Goes on where `before` stopped at `at`: in time, and in the numbers of steps.
    pub(super) fn follow(&mut self, before: &Engine, at: Time) {
        (self.steps, self.literal_steps, self.check) = (before.steps, before.literal_steps, before.check);
        (self.ledger, self.ledger_until) = (before.ledger, at);
        self.jitter = before.jitter;
        if let Some(announced) = before.scheduler.publishes() {
            self.scheduler.publish(announced);
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

    pub(super) fn literal_steps(&self) -> u64 {
        self.literal_steps
    }

    pub(super) fn set_check(&mut self, check: bool) {
        self.check = check;
    }

    pub(super) fn is_idle(&self) -> bool {
        self.in_flight.is_empty() && !self.scheduler.has_requests()
    }

    pub(super) fn newest_batch(&self) -> Batch<'_> {
        Batch { chunks: &self.chunks, decodes: self.decodes }
    }

    pub(super) fn hold_newest_until(&mut self, end: Time) {
        let newest = self.in_flight.back_mut().expect("only a step in flight can be held");
        newest.end = end;
        self.last_end = end;
    }

    pub(super) fn busy_until(&mut self, moment: Time) {
        assert!(self.is_idle(), "an engine with work keeps its own time");
        self.clock = self.clock.max(moment);
        self.last_end = self.last_end.max(moment);
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
        if let Some(at) = self.next_completion_on_clock(inbox) {
            return Some(at);
        }
        match self.in_flight.front() {
            Some(oldest) if self.waits => Some(oldest.end.max(self.clock)),
            None if !self.scheduler.has_requests() => inbox.next_at().map(|at| at.max(self.clock) + soonest),
            _ => Some(self.clock + soonest),
        }
    }

    /// A request that comes in at `at` has no output before this moment: it is composed at a schedule() call, and the
    /// GPU finishes what it has first.
    pub(super) fn soonest_output(&self, at: Time) -> Time {
        at.max(self.last_end).max(self.clock) + Span::from_ps(1)
    }

    /// The same while all that runs is on the clock: its soonest end if only decodes went on, which prefills
    /// can only delay, or the first output of what has come since. None where the clock cannot tell.
    fn next_completion_on_clock(&self, inbox: &Inbox) -> Option<Time> {
        let soonest = Span::from_ps(1);
        if !self.scheduler.clock.holds_all() || inbox.holds_aborts() {
            return None;
        }
        self.scheduler.waits_in_vain()?;
        if self.scheduler.clock.ends_with_next_output() {
            return self.in_flight.front().map(|step| step.end.max(self.clock));
        }
        let with_parts = self.in_flight.iter().find(|step| !step.step.scheduled.is_empty());
        let parts = with_parts.map(|step| step.end.max(self.clock));
        // A request that comes in is composed at schedule(), and the GPU finishes what it has first.
        let arrival = inbox.next_at().map(|at| at.max(self.last_end) + soonest);
        let end = self.next_end_on_clock();
        [parts, arrival, end].into_iter().flatten().min()
    }

    pub(super) fn advance(
        &mut self,
        until: Limit,
        inbox: &mut Inbox,
        events: &mut Vec<EngineEvent>,
        listeners: &mut Listeners<'_>,
    ) {
        loop {
            if matches!(until, Limit::OneStep(step, _) if self.steps > step) {
                return;
            }
            if self.waits {
                let end = self.in_flight.front().map_or(self.clock, |oldest| oldest.end);
                let limit = match until {
                    Limit::Time(limit) | Limit::OneStep(_, limit) => limit,
                    Limit::Step(_) => Time::MAX,
                };
                if end.max(self.clock) > limit {
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
                Limit::Time(limit) | Limit::OneStep(_, limit) => self.clock >= limit,
                Limit::Step(limit) => self.steps >= limit,
            };
            if reached {
                return;
            }
            self.drain(inbox, events, listeners);
            if self.scheduler.has_requests() {
                if !self.jump(until, inbox.next_at(), listeners) {
                    self.schedule(listeners);
                }
            } else if !self.in_flight.is_empty() {
                self.waits = true;
            } else {
                let next = inbox.next_at().filter(|&at| match until {
                    Limit::Time(limit) | Limit::OneStep(_, limit) => at < limit,
                    Limit::Step(_) => true,
                });
                let Some(at) = next else { return };
                self.account(at.max(self.clock), StepKind::Empty);
                self.clock = self.clock.max(at);
            }
        }
    }

    fn drain(&mut self, inbox: &mut Inbox, events: &mut Vec<EngineEvent>, listeners: &mut Listeners<'_>) {
        while let Some((_, input)) = inbox.pop_until(self.clock) {
            match input {
                // What comes late of a try that another has followed is of nobody.
                Input::Add(request)
                    if self.scheduler.attempt_of(request.id).is_some_and(|own| own > request.attempt) => {}
                Input::Add(request) => self.scheduler.add(request, self.clock),
                Input::Abort(id, attempt)
                    if self.scheduler.attempt_of(id).is_none_or(|own| own > attempt) => {}
                Input::Abort(id, _) => {
                    let (scheduler, now) = (&mut self.scheduler, self.clock);
                    let aborted = scheduler.end(id, Finish::Aborted, self.steps, now, &self.ledger, events);
                    if let (Some(true), Some(in_flight)) = (aborted, self.in_flight.back_mut()) {
                        in_flight.decodes -= 1;
                    }
                    if let (Some(_), Some(recorder)) = (aborted, &mut listeners.recorder) {
                        recorder.aborted(id);
                    }
                }
                Input::Control(_) => unreachable!("orders are kept apart from inputs"),
            }
        }
    }

    fn schedule(&mut self, listeners: &mut Listeners<'_>) {
        let mut step = self.spare.pop().unwrap_or_default();
        let on_clock =
            self.path == Path::Fast && self.scheduler.schedule_on_clock(self.steps, self.clock, &mut step);
        if !on_clock {
            let in_flight = self.in_flight.back_mut().map(|in_flight| {
                in_flight.decodes = 0;
                &mut *in_flight.step
            });
            self.scheduler.settle(self.steps, in_flight);
            self.scheduler.schedule(self.clock, &mut step);
            self.literal_steps += 1;
        }
        if self.check {
            self.scheduler.check();
        }
        if let Some(recorder) = &mut listeners.recorder {
            let whole = if on_clock { &self.scheduler.spelt_out(self.steps, &step) } else { &step };
            recorder.scheduled(self.steps, self.clock, whole, &self.scheduler);
        }
        let decodes = if on_clock { self.scheduler.clock.decodes(self.steps) } else { Decodes::default() };
        let (kind, run) = self.price(&step, decodes);
        if kind != StepKind::Empty {
            listeners.observer.steps(&run);
        }
        let end = run.end();
        let delay = u64::from(self.scheduler.config().kv_load_delay_steps);
        self.loads.extend(step.loads_started.iter().map(|&(id, _)| (self.steps + delay, id)));
        let asynchronous = self.scheduler.config().async_scheduling;
        let had_none_in_flight = self.in_flight.is_empty();
        let goes_on = kind != StepKind::Empty || self.scheduler.has_requests();
        self.waits = !(asynchronous && had_none_in_flight && goes_on);
        self.slept_for_nothing = kind == StepKind::Empty;
        self.last_end = end;
        self.in_flight.push_back(InFlight { index: self.steps, end, kind, decodes: decodes.count, step });
        self.steps += 1;
    }

    /// The moments of a step composed now, with these decodes on the clock beside it; moves the engine's time
    /// past its host time.
    fn price(&mut self, step: &Step, mut decodes: Decodes) -> (StepKind, StepRun<'static>) {
        self.chunks.clear();
        let mut prefill_tokens = 0;
        for part in &step.scheduled {
            match self.scheduler.chunk_of(part) {
                None => decodes.add(part.before + part.tokens),
                Some(chunk) => {
                    self.chunks.push(chunk);
                    prefill_tokens += part.tokens;
                }
            }
        }
        self.decodes = decodes;
        let mut cost = self.step_time.cost(&Batch { chunks: &self.chunks, decodes });
        if let Some(jitter) = &self.jitter {
            cost = jitter.of(self.steps, cost);
        }
        self.clock += cost.host;
        let kind = match (step.scheduled.is_empty() && decodes.count == 0, self.chunks.is_empty()) {
            (true, _) => StepKind::Empty,
            (false, true) => StepKind::Decode,
            (false, false) => StepKind::Prefill,
        };
        let run = StepRun {
            start: self.clock.max(self.last_end),
            count: 1,
            first: cost.gpu,
            growth: Span::ZERO,
            pace: Pace::After(Span::ZERO),
            decodes: decodes.count,
            prefill_tokens,
            running: self.scheduler.running_count(),
            waiting: self.scheduler.waiting_count(),
            kv_blocks_used: self.scheduler.usable_blocks() - self.scheduler.free_blocks(),
            taken: &[],
        };
        (kind, run)
    }

    fn process_oldest(&mut self, events: &mut Vec<EngineEvent>, listeners: &mut Listeners<'_>) {
        let Some(done) = self.in_flight.pop_front() else { return };
        self.clock = self.clock.max(done.end);
        self.account(self.clock, done.kind);
        let ended_from = events.len();
        let now = self.clock;
        let observer = &mut *listeners.observer;
        let mut gaps = |since: Time, count: u64| {
            if count > 0 {
                observer.token_gaps(&GapRun { first: now - since, growth: Span::ZERO, steps: 1, count });
            }
        };
        self.scheduler.take_due_now(done.index);
        let (mut last_token, mut tokens) = (self.scheduler.clock.last_token_at(), u64::from(done.decodes));
        let riders = self.scheduler.process(&done.step, done.decodes, now, &self.ledger, events, |before| {
            // Almost all requests of a step had their last token at the same moment.
            if before != last_token {
                gaps(last_token, tokens);
                (last_token, tokens) = (before, 0);
            }
            tokens += 1;
        });
        gaps(last_token, tokens);
        if done.kind != StepKind::Empty {
            self.scheduler.clock.set_last_token_at(now);
        }
        if let Some(in_flight) = self.in_flight.front_mut() {
            in_flight.decodes -= riders;
        }
        while let Some((_, id)) = self.loads.pop_front_if(|(earliest, _)| *earliest <= done.index) {
            self.scheduler.load_finished(id);
            if let Some(recorder) = &mut listeners.recorder {
                recorder.load_finished(id);
            }
        }
        if let Some(recorder) = &mut listeners.recorder {
            let published = self.scheduler.take_kv_events();
            if !published.is_empty() {
                recorder.published(now, published);
            }
            recorder.processed(done.index, now, &events[ended_from..], &self.scheduler);
        }
        self.read_gauges();
        self.spare.push(done.step);
    }

    /// When the last token of a request came out, if it is here and one has.
    pub(super) fn last_token_at(&self, id: RequestId) -> Option<Time> {
        let next = self.in_flight.front().map_or(self.steps, |step| step.index);
        self.scheduler.last_token_at(id, next as i64 - 1)
    }

    pub(super) fn read_gauges(&mut self) {
        let totals = self.scheduler.totals();
        self.signals = Signals {
            running: self.scheduler.running_count(),
            waiting: self.scheduler.waiting_count(),
            kv_blocks_used: self.scheduler.usable_blocks() - self.scheduler.free_blocks(),
            kv_blocks_usable: self.scheduler.usable_blocks(),
            preemptions: totals.preemptions,
            prefix_cache_queries: totals.cache_queries,
            prefix_cache_hits: totals.cache_hits,
            waiting_prompt_tokens: self.scheduler.waiting_prompts.0,
            waiting_prompt_blocks: self.scheduler.waiting_prompts.1,
            generation_tokens: totals.output_tokens,
            successes: totals.successes,
        };
    }

    /// Books the time since the last booking.
    pub(super) fn account(&mut self, until: Time, kind: StepKind) {
        let span = until - self.ledger_until;
        self.ledger_until = until;
        match kind {
            StepKind::Empty => self.ledger.idle += span,
            StepKind::Decode => self.ledger.decode += span,
            StepKind::Prefill => self.ledger.prefill += span,
        }
    }
}
