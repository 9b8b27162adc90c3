//! How long does a batch take?
//!
//! Knows batches and prices. Does not know requests, schedulers or clocks. One model, one file:
//! [`affine`] has its coefficients from the scenario, [`roofline`] from the catalogue, [`calibrated`] from a fit of these
//! to a server's measurements, [`profile`] from measured times of one layer's parts.
//!
//! Coefficients become integers once, when a model is bound to a card, so that a run of decode steps is an
//! arithmetic series to the last bit: `run(batch, k)` equals the sum of k single steps.

use crate::time::Span;

pub mod affine;
pub mod calibrated;
mod grid;
mod host;
mod links;
pub mod multipliers;
pub mod profile;
pub mod roofline;
mod routing;
pub mod scaled;
mod thread_blocks;
mod together;

/// Tokens of one prompt (or of one recomputed request) in a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Chunk {
    /// Tokens computed in this step.
    pub tokens: u32,
    /// Tokens of the same request computed before (its context).
    pub before: u32,
    /// Whether the request samples a token in this step.
    pub samples: bool,
}

/// The decodes of a step: one token each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Decodes {
    /// How many sequences.
    pub count: u32,
    /// Sum over them of the tokens each attends to, its own new one included.
    pub context_sum: u64,
    /// The longest of these contexts.
    pub context_max: u32,
}

impl Decodes {
    /// One more sequence, which attends to `context` tokens.
    pub fn add(&mut self, context: u32) {
        self.count += 1;
        self.context_sum += u64::from(context);
        self.context_max = self.context_max.max(context);
    }
}

/// What one engine step computes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Batch<'a> {
    /// Prefill chunks and speculative verifications, in the scheduler's order.
    pub chunks: &'a [Chunk],
    /// Everything that computes exactly one token after its prompt.
    pub decodes: Decodes,
}

impl Batch<'_> {
    /// All tokens of the step.
    pub fn tokens(&self) -> u64 {
        u64::from(self.decodes.count) + self.chunks.iter().map(|chunk| u64::from(chunk.tokens)).sum::<u64>()
    }

    /// Sum over all sequences of the tokens each has after this step.
    pub fn context_sum(&self) -> u64 {
        let chunks = self.chunks.iter().map(|chunk| u64::from(chunk.before) + u64::from(chunk.tokens));
        self.decodes.context_sum + chunks.sum::<u64>()
    }

    /// Sequences in the step.
    pub fn sequences(&self) -> u64 {
        u64::from(self.decodes.count) + self.chunks.len() as u64
    }

    /// Sequences that sample a token.
    pub fn samples(&self) -> u64 {
        u64::from(self.decodes.count) + self.chunks.iter().filter(|chunk| chunk.samples).count() as u64
    }
}

/// What one step costs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct StepCost {
    /// Time the GPU works.
    pub gpu: Span,
    /// Time the host needs before the GPU can start (hidden behind the step before in asynchronous mode).
    pub host: Span,
}

/// Costs of `count` steps in a row of which each GPU time is `growth` above the one before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Series {
    /// The first step.
    pub first: StepCost,
    /// What each GPU time grows by.
    pub growth: Span,
    /// How many steps this law holds for: at least 1, at most the number asked for.
    pub count: u64,
}

/// A step-time model bound to a card: the price of a batch.
pub trait StepTime: Send + Sync + std::fmt::Debug {
    /// The price of one step. A batch without tokens is free.
    fn cost(&self, batch: &Batch<'_>) -> StepCost;

    /// GPU time of one step that the engines of one server take together, a batch each: as long as the slowest, unless
    /// they share more than the moment.
    fn together(&self, batches: &[Batch<'_>]) -> Span {
        batches.iter().map(|batch| self.cost(batch).gpu).max().unwrap_or_default()
    }

    /// Prices of up to `steps` steps in a row of the same decodes, whose contexts grow by one token a step.
    ///
    /// Law: equals `steps` single [`StepTime::cost`]s, for as many as `count` says.
    fn run(&self, decodes: Decodes, steps: u64) -> Series;
}

#[cfg(test)]
pub(crate) mod testing {
    //! The law of [`StepTime::run`], for every model's tests.

    use super::{Batch, Decodes, StepTime};

    /// Prices `steps` steps one by one and in runs, and demands that both are equal to the last bit.
    pub(crate) fn assert_run_equals_the_loop(
        model: &dyn StepTime,
        count: u32,
        context_mean: u64,
        steps: u64,
    ) {
        let grown = |steps: u64| Decodes {
            count,
            context_sum: u64::from(count) * (context_mean + steps),
            context_max: (context_mean + steps) as u32,
        };
        let mut done = 0;
        while done < steps {
            let series = model.run(grown(done), steps - done);
            assert!((1..=steps - done).contains(&series.count), "{series:?}");
            for step in 0..series.count {
                let single = model.cost(&Batch { chunks: &[], decodes: grown(done + step) });
                assert_eq!(single.gpu, series.first.gpu + series.growth * step, "step {}", done + step);
                assert_eq!(single.host, series.first.host);
            }
            done += series.count;
        }
    }
}
