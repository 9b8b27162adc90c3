//! What a replica tells of its steps: runs of steps, never single ones.
//!
//! A replica that jumps over many steps reports them as one run, so an observer costs nothing per step. How
//! steps are gathered into runs depends on who looks when; what an observer makes of them must not, so it
//! counts what adds up, and samples by time, never by run. Observers only listen: a run with one gives the
//! same bytes as a run without (law 7).

use crate::time::{Span, Time};

/// When the steps of a run begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pace {
    /// Each so long after the end of the one before: the GPU, or the engine loop around it, sets the pace.
    After(Span),
    /// Each so long after the begin of the one before: the host sets the pace.
    Every(Span),
}

/// Blocks taken at the begin of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Taken {
    /// Which step of the run, from 1 on.
    pub step: u64,
    /// How many blocks.
    pub blocks: u32,
}

/// `count` steps in a row, alike but for their length, which grows by `growth` from each to the next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StepRun<'a> {
    /// When the first of them began to execute.
    pub start: Time,
    /// How many.
    pub count: u64,
    /// GPU time of the first.
    pub first: Span,
    /// What each is longer than the one before.
    pub growth: Span,
    /// When each begins after the one before.
    pub pace: Pace,
    /// Sequences that decoded in each.
    pub decodes: u32,
    /// Prompt (or recomputed) tokens of each.
    pub prefill_tokens: u32,
    /// Requests on the running list after scheduling.
    pub running: u32,
    /// Requests that waited after scheduling.
    pub waiting: u32,
    /// Blocks referred to after scheduling the first.
    pub kv_blocks_used: u32,
    /// Blocks taken by later ones, in order of step.
    pub taken: &'a [Taken],
}

impl StepRun<'_> {
    /// GPU time of the first `steps` of the run: an arithmetic series.
    pub fn gpu_time_of(&self, steps: u64) -> Span {
        series(self.first, self.growth, steps)
    }

    /// GPU time of the whole run.
    pub fn gpu_time(&self) -> Span {
        self.gpu_time_of(self.count)
    }

    /// GPU time of step number `step`, from 0 on.
    pub fn gpu_time_at(&self, step: u64) -> Span {
        self.first + self.growth * step
    }

    /// When step number `step`, from 0 on, began to execute.
    pub fn start_of(&self, step: u64) -> Time {
        match self.pace {
            Pace::After(pause) => self.start + self.gpu_time_of(step) + pause * step,
            Pace::Every(interval) => self.start + interval * step,
        }
    }

    /// When the last step ended.
    pub fn end(&self) -> Time {
        let last = self.count - 1;
        self.start_of(last) + self.gpu_time_at(last)
    }

    /// How many of the steps began before `at`.
    pub fn steps_before(&self, at: Time) -> u64 {
        if self.start_of(self.count - 1) < at {
            return self.count;
        }
        let (mut before, mut from) = (0, self.count - 1);
        while before < from {
            let middle = before + (from - before) / 2;
            if self.start_of(middle) < at {
                before = middle + 1;
            } else {
                from = middle;
            }
        }
        before
    }

    /// The steps of the run as runs of their own.
    pub fn singles(&self) -> impl Iterator<Item = StepRun<'static>> + '_ {
        let mut kv_blocks_used = self.kv_blocks_used;
        let mut taken = self.taken.iter().peekable();
        (0..self.count).map(move |step| {
            while let Some(blocks) = taken.next_if(|taken| taken.step == step) {
                kv_blocks_used += blocks.blocks;
            }
            StepRun {
                start: self.start_of(step),
                count: 1,
                first: self.gpu_time_at(step),
                growth: Span::ZERO,
                pace: Pace::After(Span::ZERO),
                decodes: self.decodes,
                prefill_tokens: self.prefill_tokens,
                running: self.running,
                waiting: self.waiting,
                kv_blocks_used,
                taken: &[],
            }
        })
    }
}

/// The sum of `steps` spans, each `growth` above the one before.
///
/// # Panics
/// If it is longer than simulated time: then one of its two parts is.
pub fn series(first: Span, growth: Span, steps: u64) -> Span {
    const TOO_LONG: &str = "a run of steps ends within simulated time";
    let level = first.as_ps().checked_mul(steps).expect(TOO_LONG);
    if steps < 2 || growth == Span::ZERO {
        return Span::from_ps(level);
    }
    let (even, odd) = if steps.is_multiple_of(2) { (steps, steps - 1) } else { (steps - 1, steps) };
    let rise = (even / 2).checked_mul(odd).and_then(|pairs| pairs.checked_mul(growth.as_ps()));
    Span::from_ps(rise.and_then(|rise| rise.checked_add(level)).expect(TOO_LONG))
}

/// Gaps between tokens: `steps` of them in a row, each `growth` longer than the one before, each for `count`
/// requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GapRun {
    /// The first gap.
    pub first: Span,
    /// What each is longer than the one before.
    pub growth: Span,
    /// How many in a row.
    pub steps: u64,
    /// Requests that had each.
    pub count: u64,
}

/// Somebody who listens to one replica.
pub trait Observer {
    /// Steps were scheduled.
    fn steps(&mut self, run: &StepRun<'_>);

    /// Tokens came out, so long after the tokens of the same requests before.
    fn token_gaps(&mut self, gaps: &GapRun);
}

/// Nobody listens.
#[derive(Clone, Copy, Debug, Default)]
pub struct Silence;

impl Observer for Silence {
    fn steps(&mut self, _run: &StepRun<'_>) {}
    fn token_gaps(&mut self, _gaps: &GapRun) {}
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn run(count: u64, first: u64, growth: u64, pace: Pace) -> StepRun<'static> {
        StepRun {
            start: Time::from_ps(1_000),
            count,
            first: Span::from_ps(first),
            growth: Span::from_ps(growth),
            pace,
            decodes: 1,
            prefill_tokens: 0,
            running: 1,
            waiting: 0,
            kv_blocks_used: 7,
            taken: &[Taken { step: 2, blocks: 3 }],
        }
    }

    proptest! {
        #[test]
        fn a_run_is_its_steps_one_after_another(
            count in 1u64..200, first in 1u64..1_000, growth in 0u64..50, pause in 0u64..400, at in 0u64..300_000,
        ) {
            for pace in [Pace::After(Span::from_ps(pause)), Pace::Every(Span::from_ps(10_000 + pause))] {
                let run = run(count, first, growth, pace);
                let (mut start, mut before, mut gpu) = (run.start, 0, Span::ZERO);
                for (step, single) in run.singles().enumerate() {
                    prop_assert_eq!(single.start, start);
                    prop_assert_eq!(single.first, Span::from_ps(first + growth * step as u64));
                    prop_assert_eq!(single.kv_blocks_used, if step < 2 { 7 } else { 10 });
                    before += u64::from(start < Time::from_ps(at));
                    gpu += single.first;
                    start = match pace {
                        Pace::After(pause) => start + single.first + pause,
                        Pace::Every(interval) => start + interval,
                    };
                }
                prop_assert_eq!(run.steps_before(Time::from_ps(at)), before);
                prop_assert_eq!(run.gpu_time(), gpu);
            }
        }
    }
}
