//! Many steps at once.
//!
//! Knows the engine's recurrence in closed form. While everybody who runs decodes on the clock, and nobody
//! ends, comes or can be admitted, steps differ by their length alone, which grows by the same amount from each
//! to the next; so k of them are an arithmetic series, and what is visited tick by tick is only who takes a
//! block. One recurrence has three regimes in which it is simple: synchronous; asynchronous with the GPU setting
//! the pace (s(k) = end(k-2)); asynchronous with the host setting it (s(k) = s(k-1) + h). A jump stays inside one.
//!
//! Does not know who is on the clock or which blocks they take: the scheduler does.

use super::Limit;
use super::engine::{Engine, Listeners, StepKind};
use super::jitter::Jitter;
use super::step::Step;
use crate::observe::{GapRun, Pace, StepRun, Taken, series};
use crate::step_time::{Series, StepCost};
use crate::time::{Span, Time};

/// What sets the pace of the steps ahead.
#[derive(Clone, Copy, Debug)]
enum Regime {
    /// Each step is composed when the one before has ended.
    Synchronous,
    /// The GPU works without a pause from this moment on.
    GpuBound(Time),
    /// Steps begin a host time apart.
    HostBound,
}

/// The moments of a run of steps that begins with the next schedule() call.
#[derive(Clone, Copy, Debug)]
struct Course {
    regime: Regime,
    /// When schedule() is called next.
    now: Time,
    series: Series,
}

impl Course {
    /// When schedule() is called for step number `step` of the run.
    fn schedule_at(&self, step: u64) -> Time {
        let (host, gpu) = (self.series.first.host, |steps| self.gpu_time(steps));
        match (self.regime, step.checked_sub(1)) {
            (_, None) => self.now,
            (Regime::Synchronous, _) => self.now + gpu(step) + host * step,
            (Regime::GpuBound(from), Some(earlier)) => from + gpu(earlier),
            (Regime::HostBound, _) => self.now + host * step,
        }
    }

    fn gpu_time(&self, steps: u64) -> Span {
        series(self.series.first.gpu, self.series.growth, steps)
    }

    /// When step number 0 begins to execute, and when the others follow.
    fn begins(&self) -> (Time, Pace) {
        let host = self.series.first.host;
        match self.regime {
            Regime::Synchronous => (self.now + host, Pace::After(host)),
            Regime::GpuBound(from) => (from, Pace::After(Span::ZERO)),
            Regime::HostBound => (self.now + host, Pace::Every(host)),
        }
    }

    /// The most steps, up to `most`, after which schedule() is not called later than `limit`.
    fn steps_until(&self, limit: Time, most: u64) -> u64 {
        if self.schedule_at(most) <= limit {
            return most;
        }
        let (mut fits, mut too_many) = (0, most);
        // Steps grow little, so as many as fit at the first one's pace is mostly right or next to it.
        let interval = self.schedule_at(2) - self.schedule_at(1);
        let room = limit.saturating_since(self.now).as_ps();
        let mut guess = room.checked_div(interval.as_ps()).unwrap_or(0);
        let mut stride = 1;
        while fits < guess && guess < too_many {
            if self.schedule_at(guess) <= limit {
                fits = guess;
                guess += stride;
            } else {
                too_many = guess;
                guess = guess.saturating_sub(stride);
            }
            stride *= 2;
        }
        while too_many - fits > 1 {
            let middle = fits + (too_many - fits) / 2;
            if self.schedule_at(middle) <= limit {
                fits = middle;
            } else {
                too_many = middle;
            }
        }
        fits
    }
}

impl Engine {
    /// Lives through as many steps as are alike; says whether there was any.
    pub(super) fn jump(
        &mut self,
        until: Limit,
        next_input: Option<Time>,
        listeners: &mut Listeners<'_>,
    ) -> bool {
        let mut most = self.steps_without_end();
        let mut limit = next_input.unwrap_or(Time::MAX);
        match until {
            Limit::Time(until) => limit = limit.min(until),
            Limit::Step(until) => most = most.min(until - self.steps),
            Limit::OneStep(..) => return false,
        }
        // The step in flight ends before the second of a jump is composed. Whoever is looked at often asks in vain most
        // of the time, and then no step is priced.
        if most == 0 || self.in_flight.front().is_some_and(|step| step.end > limit) {
            return false;
        }
        let (Some(tries), Some(course)) = (self.scheduler.waits_in_vain(), self.course()) else {
            return false;
        };
        let steps = course.steps_until(limit, most.min(course.series.count));
        if steps == 0 || !self.tick_fits(self.steps, tries) {
            return false;
        }
        self.live_through(&course, steps, tries, listeners);
        true
    }

    /// The course of the steps ahead, if they are plain decodes in a settled regime.
    fn course(&self) -> Option<Course> {
        if !self.scheduler.clock.holds_all() {
            return None;
        }
        let decodes = self.scheduler.clock.decodes(self.steps);
        let in_flight = self.in_flight.front();
        if in_flight.is_some_and(|step| !step.step.scheduled.is_empty() || step.decodes != decodes.count) {
            return None;
        }
        let mut series = self.step_time.run(decodes, u64::MAX);
        if let Some(jitter) = &self.jitter {
            // Each step is a law of its own.
            let first = jitter.of(self.steps, series.first);
            series = Series { first, growth: Span::ZERO, count: 1 };
        }
        let (host, gpu) = (series.first.host, series.first.gpu);
        let regime = match in_flight {
            _ if !self.scheduler.config().async_scheduling => Regime::Synchronous,
            Some(before) if self.clock + host <= before.end && gpu >= host && gpu > Span::ZERO => {
                Regime::GpuBound(before.end)
            }
            Some(before) if before.end <= self.clock + host && gpu <= host && host > Span::ZERO => {
                // Until steps have grown as long as the host time.
                if let Some(steps) = (host - gpu).as_ps().checked_div(series.growth.as_ps()) {
                    series.count = series.count.min(steps + 1);
                }
                Regime::HostBound
            }
            _ => return None,
        };
        Some(Course { regime, now: self.clock, series })
    }

    /// Steps that can be composed and processed before the output of one in which somebody ends.
    fn steps_without_end(&self) -> u64 {
        let in_flight = self.in_flight.len() as u64;
        self.scheduler.clock.next_end().map_or(0, |end| (end + in_flight).saturating_sub(self.steps))
    }

    /// Whether the blocks of a tick can be taken with nobody else affected.
    fn tick_fits(&self, tick: u64, tries: bool) -> bool {
        self.scheduler.clock.crossings(tick) <= self.scheduler.free_blocks()
            && !(tries && self.scheduler.crossings_touch_table(tick))
    }

    fn live_through(&mut self, course: &Course, most: u64, tries: bool, listeners: &mut Listeners<'_>) {
        let first = self.steps;
        let used = |scheduler: &super::Scheduler| scheduler.usable_blocks() - scheduler.free_blocks();
        let mut kv_blocks_used = 0;
        self.taken.clear();
        let roomy = self.scheduler.clock.crossings_bound(most) <= u64::from(self.scheduler.free_blocks());
        let every_tick = !roomy || tries || listeners.recorder.is_some();
        let mut steps = 0;
        while steps < most {
            if steps > 0 && every_tick && !self.tick_fits(first + steps, tries) {
                break;
            }
            let blocks = self.scheduler.clock.crossings(first + steps);
            if blocks > 0 {
                self.scheduler.take_blocks(first + steps);
            }
            if steps == 0 {
                kv_blocks_used = used(&self.scheduler);
            } else if blocks > 0 {
                self.taken.push(Taken { step: steps, blocks });
            }
            if listeners.recorder.is_some() {
                self.record(course, steps, tries, listeners);
            }
            steps += 1;
            if !every_tick {
                // Nobody takes a block in between.
                steps = self.scheduler.clock.next_crossing(first + steps, first + most) - first;
            }
        }
        self.scheduler.count_decodes(steps, tries);
        let (start, pace) = course.begins();
        let decodes = self.scheduler.clock.count();
        let run = StepRun {
            start,
            count: steps,
            first: course.series.first.gpu,
            growth: course.series.growth,
            pace,
            decodes,
            prefill_tokens: 0,
            running: self.scheduler.running_count(),
            waiting: self.scheduler.waiting_count(),
            kv_blocks_used,
            taken: &self.taken,
        };
        listeners.observer.steps(&run);
        let end = run.end();
        self.tell_gaps(course, steps, listeners);
        // Outputs are processed up to that of the step before the one left in flight.
        let processed = course.schedule_at(steps);
        self.account(processed, StepKind::Decode);
        self.scheduler.clock.set_last_token_at(processed);
        self.clock = processed;
        self.steps += steps;
        self.last_end = end;
        if let Some(in_flight) = self.in_flight.front_mut() {
            (in_flight.index, in_flight.end, in_flight.decodes) = (self.steps - 1, end, decodes);
            in_flight.kind = StepKind::Decode;
        }
        self.read_gauges();
    }

    /// The gaps before the tokens that come out during a jump of `steps`.
    fn tell_gaps(&self, course: &Course, steps: u64, listeners: &mut Listeners<'_>) {
        let count = u64::from(self.scheduler.clock.count());
        let host = course.series.first.host;
        let (gpu, growth) = (course.series.first.gpu, course.series.growth);
        let last_token_at = self.scheduler.clock.last_token_at();
        // The first output, in asynchronous mode that of the step in flight, is processed before the second step is
        // composed, and follows one from before the jump.
        let first = course.schedule_at(1) - last_token_at;
        listeners.observer.token_gaps(&GapRun { first, growth: Span::ZERO, steps: 1, count });
        let (next, growth) = match course.regime {
            Regime::Synchronous => (host + gpu + growth, growth),
            Regime::GpuBound(_) => (gpu, growth),
            Regime::HostBound => (host, Span::ZERO),
        };
        if steps > 1 {
            listeners.observer.token_gaps(&GapRun { first: next, growth, steps: steps - 1, count });
        }
    }

    /// Spells out step number `step` of a jump.
    fn record(&mut self, course: &Course, step: u64, tries: bool, listeners: &mut Listeners<'_>) {
        let Some(recorder) = &mut listeners.recorder else { return };
        let tick = self.steps + step;
        let mut whole = self.scheduler.spelt_out(tick, &Step::default());
        if let Some(blocked) = self.scheduler.blocked.filter(|_| tries) {
            whole.cache_queries = blocked.cache_queries;
        }
        recorder.scheduled(tick, course.schedule_at(step), &whole, &self.scheduler);
        let processed = tick - self.in_flight.len() as u64;
        recorder.processed(processed, course.schedule_at(step + 1), &[], &self.scheduler);
    }

    /// The soonest end on the clock does not come out before this moment: as many steps lie before it, each
    /// at least as long as the next if only decodes go on.
    pub(super) fn next_end_on_clock(&self) -> Option<Time> {
        let end = self.scheduler.clock.next_end()?;
        if let Some(in_flight) = self.in_flight.iter().find(|step| step.index == end) {
            return Some(in_flight.end.max(self.clock));
        }
        let steps = (end + 1).saturating_sub(self.steps);
        if self.scheduler.clock.crossings_bound(steps) > u64::from(self.scheduler.free_blocks()) {
            // Somebody may be preempted, and the others are faster without.
            return Some(self.last_end.max(self.clock + Span::from_ps(1)));
        }
        let mut ahead = self.step_time.run(self.scheduler.clock.decodes(self.steps), steps);
        if self.jitter.is_some() {
            let StepCost { gpu, host } = ahead.first;
            ahead.first = StepCost { gpu: Jitter::least(gpu), host: Jitter::least(host) };
            ahead.growth = Jitter::least(ahead.growth);
        }
        // Behind the stretch that the model vouches for, steps are taken to grow no more.
        let vouched = ahead.count.min(steps);
        let last = ahead.first.gpu + ahead.growth * vouched.saturating_sub(1);
        let gpu = series(ahead.first.gpu, ahead.growth, vouched) + last * (steps - vouched);
        let host = ahead.first.host * steps;
        Some(match self.scheduler.config().async_scheduling {
            true => (self.last_end + gpu).max(self.clock + host),
            false => self.clock.max(self.last_end) + gpu + host,
        })
    }
}
