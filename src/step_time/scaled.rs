//! A model whose steps are all longer, or all shorter, by the same share.
//!
//! Knows the factor. Prices one step at a time, since a run of rounded prices is no arithmetic series.

use std::sync::Arc;

use super::{Batch, Decodes, Series, StepCost, StepTime};
use crate::time::Span;

/// A model times a factor.
#[derive(Debug)]
pub struct Scaled {
    model: Arc<dyn StepTime>,
    per_mille: u64,
}

impl Scaled {
    /// `model` times `per_mille` thousandths.
    pub fn new(model: Arc<dyn StepTime>, per_mille: u64) -> Scaled {
        Scaled { model, per_mille }
    }

    fn scaled(&self, span: Span) -> Span {
        Span::from_ps(span.as_ps() * self.per_mille / 1_000)
    }
}

impl StepTime for Scaled {
    fn cost(&self, batch: &Batch<'_>) -> StepCost {
        let StepCost { gpu, host } = self.model.cost(batch);
        StepCost { gpu: self.scaled(gpu), host: self.scaled(host) }
    }

    fn together(&self, batches: &[Batch<'_>]) -> Span {
        self.scaled(self.model.together(batches))
    }

    fn run(&self, decodes: Decodes, _steps: u64) -> Series {
        Series { first: self.cost(&Batch { chunks: &[], decodes }), growth: Span::ZERO, count: 1 }
    }
}
