//! A step time that is affine in its tokens and contexts, with coefficients from the scenario.

use super::{Batch, Decodes, Series, StepCost, StepTime};
use crate::time::Span;

/// GPU time = base + per_token * tokens + per_context_token * contexts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Affine {
    /// Of every step with a token in it.
    pub base: Span,
    /// Of each token computed.
    pub per_token: Span,
    /// Of each token that a sequence has after the step.
    pub per_context_token: Span,
    /// Host time of every step with a token in it.
    pub host: Span,
}

impl StepTime for Affine {
    fn cost(&self, batch: &Batch<'_>) -> StepCost {
        let tokens = batch.tokens();
        if tokens == 0 {
            return StepCost::default();
        }
        let gpu = self.base + self.per_token * tokens + self.per_context_token * batch.context_sum();
        StepCost { gpu, host: self.host }
    }

    fn run(&self, decodes: Decodes, steps: u64) -> Series {
        let first = self.cost(&Batch { chunks: &[], decodes });
        Series { first, growth: self.per_context_token * u64::from(decodes.count), count: steps }
    }
}
