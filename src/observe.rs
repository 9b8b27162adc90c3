//! What a replica tells of its steps: runs of steps, never single ones.
//!
//! A replica that jumps over many steps reports them as one run, so an observer costs nothing per step.
//! Observers only listen: a run with one gives the same bytes as a run without (law 7).

use crate::time::{Span, Time};

/// `count` steps in a row, alike but for their length, which grows by `growth` from each to the next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StepRun {
    /// When the first of them began to execute.
    pub start: Time,
    /// How many.
    pub count: u64,
    /// GPU time of the first.
    pub first: Span,
    /// What each is longer than the one before.
    pub growth: Span,
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
}

impl StepRun {
    /// GPU time of the whole run: an arithmetic series.
    pub fn gpu_time(&self) -> Span {
        let pairs = self.count * self.count.saturating_sub(1) / 2;
        self.first * self.count + self.growth * pairs
    }
}

/// Somebody who listens to one replica.
pub trait Observer {
    /// Steps were scheduled.
    fn steps(&mut self, run: &StepRun);

    /// `count` tokens came out, each `gap` after its request's token before.
    fn token_gaps(&mut self, gap: Span, count: u64);
}

/// Nobody listens.
#[derive(Clone, Copy, Debug, Default)]
pub struct Silence;

impl Observer for Silence {
    fn steps(&mut self, _run: &StepRun) {}
    fn token_gaps(&mut self, _gap: Span, _count: u64) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_is_the_sum_of_its_steps() {
        let run = StepRun {
            start: Time::ZERO,
            count: 5,
            first: Span::from_ps(100),
            growth: Span::from_ps(7),
            decodes: 1,
            prefill_tokens: 0,
            running: 1,
            waiting: 0,
            kv_blocks_used: 1,
        };
        let one_by_one: Span = (0..5).map(|step| Span::from_ps(100 + 7 * step)).sum();
        assert_eq!(run.gpu_time(), one_by_one);
    }
}
