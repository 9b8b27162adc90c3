//! A step time from GPU and model figures: an operator-level roofline.
//!
//! ```text
//! gpu  = layers * [ GEMMs(M) + small kernels(M) + all-reduce(M) + attention ] + head(samples) + fixed
//! GEMM = c0 + [ (flops / peak)^p + (bytes / bandwidth)^p ]^(1/p)          both terms over their measured efficiency
//! M    = tokens of the step, padded to the next CUDA graph
//! ```
//!
//! Knows measured coefficients of single operators and sums them; nothing is fitted to a whole server except the five
//! multipliers named below. On 143 public step times of eight dense models on H100 and H200 the form was 5 to 6 %
//! off in the mean (10 to 12 % at the 90th percentile). Does not know clocks that fall under load, skewed routing of
//! experts, speculative drafts, pipeline stages or adapters. Where a figure stands outside what was measured,
//! [`Roofline::marks`] says so.
//!
//! Everything but attention depends on M alone and is tabulated when a model is bound to a card (`dense.rs`);
//! attention is a few integer products (`attention.rs`). So a step costs two look-ups, and a run of decode steps is an
//! arithmetic series, exact to the picosecond.

use crate::hardware::defaults::capture_size;
use crate::hardware::memory::{self, CannotStart};
use crate::hardware::{Deployment, Gpu, Model};
use crate::step_time::host::Host;
use crate::step_time::multipliers::Multipliers;
use crate::step_time::{Batch, Decodes, Series, StepCost, StepTime, together};
use crate::time::Span;

mod attention;
pub(super) mod dense;
mod gemm;
mod marks;
pub mod operators;
#[cfg(test)]
mod tests;

use attention::Attention;

/// Attention in a real step over attention measured alone. Fitted on Llama-70B fp8 on H100 (InferenceX); 1.1 to 1.15
/// elsewhere.
const ATTENTION_MULTIPLIER: f64 = 1.12;
/// The same for small kernels, fitted on the same runs.
const SMALL_MULTIPLIER: f64 = 1.08;
/// Time of each step that no operator accounts for, in microseconds (same fit).
const FIXED_US: f64 = 150.0;

/// Launching a layer's kernels one by one, without a graph: an estimate, the middle of 20 to 40 microseconds.
const LAUNCH_US_PER_LAYER: f64 = 30.0;

/// Why a roofline cannot be had.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum RooflineError {
    /// Heads cannot be shared out among the cards.
    #[error(transparent)]
    CannotStart(#[from] CannotStart),
    /// More cards work together than were ever measured.
    #[error(
        "tensor_parallel_size = {0}: all-reduce was measured among 2, 4 and 8 cards of one server, not among more"
    )]
    TooManyCards(u32),
}

/// The step time of one model on one kind of card, bound once.
#[derive(Clone, Debug)]
pub struct Roofline {
    /// GPU picoseconds of a step of so many tokens, attention and head left out; entry 0 is never used.
    by_tokens: Vec<u64>,
    /// GPU picoseconds of experts that engines share, by the tokens of all of them; empty where nobody shares.
    by_shared_tokens: Vec<u64>,
    /// GPU picoseconds of the output head and the sampler, by sequences that sample.
    by_samples: Vec<u64>,
    attention: Attention,
    /// The least a step lasts without a graph, in picoseconds: launching its kernels.
    launch_ps: u64,
    max_captured: u32,
    host: Host,
    marks: Vec<String>,
}

impl Roofline {
    /// Binds a model to a card.
    ///
    /// # Errors
    /// If the heads do not divide among the cards, or more cards work together than were measured.
    pub fn bind(gpu: &Gpu, model: &Model, deployment: &Deployment) -> Result<Roofline, RooflineError> {
        Roofline::bind_scaled(gpu, model, deployment, &Multipliers::NONE)
    }

    /// The same with factors on the prices.
    ///
    /// # Errors
    /// As [`Roofline::bind`].
    pub fn bind_scaled(
        gpu: &Gpu,
        model: &Model,
        deployment: &Deployment,
        multipliers: &Multipliers,
    ) -> Result<Roofline, RooflineError> {
        memory::check_heads(model, deployment.tensor_parallel_size)?;
        if deployment.tensor_parallel_size > 8 {
            return Err(RooflineError::TooManyCards(deployment.tensor_parallel_size));
        }
        let max_captured = deployment.max_captured();
        let dense = dense::Dense::new(gpu, model, deployment, multipliers);
        let shared = model.moe_layers > 0 && deployment.data_parallel_size > 1;
        // Noise in which a longer step is faster is levelled.
        let mut least = 0;
        let by_tokens = (0..=deployment.max_num_batched_tokens)
            .map(|tokens| capture_size(tokens, max_captured).unwrap_or(tokens))
            .map(|padded| {
                let experts_us = if shared { 0.0 } else { dense.experts_us(padded) };
                least = least
                    .max(picoseconds(multipliers.fixed() * FIXED_US + dense.layers_us(padded) + experts_us));
                least
            })
            .collect();
        let most = deployment.max_num_batched_tokens * deployment.data_parallel_size;
        let by_shared_tokens =
            (0..=most).filter(|_| shared).map(|tokens| picoseconds(dense.experts_us(tokens))).collect();
        let by_samples =
            (0..=deployment.max_num_seqs).map(|samples| picoseconds(dense.head_us(samples))).collect();
        Ok(Roofline {
            by_tokens,
            by_shared_tokens,
            by_samples,
            attention: Attention::new(gpu, model, deployment, multipliers),
            launch_ps: picoseconds(LAUNCH_US_PER_LAYER * f64::from(model.layers)),
            max_captured,
            host: Host::new(multipliers.host()),
            marks: marks::marks(gpu, model, deployment),
        })
    }

    /// Why figures of this combination are less certain than those of dense models on H100 and H200; empty for these.
    pub fn marks(&self) -> &[String] {
        &self.marks
    }

    /// The least that a step of so many tokens lasts, in picoseconds.
    fn floor_ps(&self, tokens: u64) -> u64 {
        if tokens <= u64::from(self.max_captured) { 0 } else { self.launch_ps }
    }

    /// GPU picoseconds of experts that engines share, for the rows of all of them; nothing where nobody shares.
    fn shared_ps(&self, rows: u64) -> u64 {
        self.by_shared_tokens.get(rows as usize).copied().unwrap_or(0)
    }

    /// GPU picoseconds of all kernels, launched without a pause.
    fn kernels_ps(&self, batch: &Batch<'_>) -> u64 {
        let tokens = batch.tokens();
        self.dense_ps(tokens, batch.samples()) + self.attention.cost_ps(batch) + self.shared_ps(tokens)
    }

    /// GPU picoseconds that do not depend on contexts.
    fn dense_ps(&self, tokens: u64, samples: u64) -> u64 {
        let by_tokens = self.by_tokens.get(tokens as usize);
        let by_samples = self.by_samples.get(samples as usize);
        by_tokens.expect("a step has at most max_num_batched_tokens tokens")
            + by_samples.expect("a step has at most max_num_seqs sequences")
    }
}

impl StepTime for Roofline {
    /// # Panics
    /// If the batch has more tokens than `max_num_batched_tokens`, or samples for more than `max_num_seqs`.
    fn cost(&self, batch: &Batch<'_>) -> StepCost {
        let tokens = batch.tokens();
        if tokens == 0 {
            return StepCost::default();
        }
        StepCost {
            gpu: Span::from_ps(self.kernels_ps(batch).max(self.floor_ps(tokens))),
            host: self.host.span(batch.sequences()),
        }
    }

    fn together(&self, batches: &[Batch<'_>]) -> Span {
        let tokens: Vec<u64> = batches.iter().map(Batch::tokens).collect();
        let rows = together::rows(&tokens, self.max_captured);
        let own = batches.iter().zip(&rows).map(|(batch, rows)| {
            let kernels_ps = self.dense_ps(*rows, batch.samples()) + self.attention.cost_ps(batch);
            kernels_ps.max(self.floor_ps(*rows))
        });
        Span::from_ps(own.max().unwrap_or(0) + self.shared_ps(rows.iter().sum()))
    }

    fn run(&self, decodes: Decodes, steps: u64) -> Series {
        let steps = steps.max(1);
        let tokens = u64::from(decodes.count);
        if tokens == 0 {
            return Series { first: StepCost::default(), growth: Span::ZERO, count: steps };
        }
        let (growth_ps, mut count) = self.attention.growth_ps(decodes);
        let launch_ps = self.floor_ps(tokens);
        let kernels_ps = self.kernels_ps(&Batch { chunks: &[], decodes });
        let first = StepCost { gpu: Span::from_ps(kernels_ps.max(launch_ps)), host: self.host.span(tokens) };
        if kernels_ps >= launch_ps {
            return Series { first, growth: Span::from_ps(growth_ps), count: count.min(steps) };
        }
        // Launching takes longer than the kernels themselves until contexts have grown enough.
        if let Some(hidden) = (launch_ps - kernels_ps).checked_div(growth_ps) {
            count = count.min(hidden + 1);
        }
        Series { first, growth: Span::ZERO, count: count.min(steps) }
    }
}

/// Integer picoseconds of a length of time in microseconds.
fn picoseconds(us: f64) -> u64 {
    Span::from_us_f64(us).as_ps()
}
