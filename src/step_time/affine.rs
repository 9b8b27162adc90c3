//! A step time that is affine in its tokens and contexts, with coefficients from the scenario.
//!
//! Knows four numbers. Knows no card and no model, so it marks nothing: whoever writes the numbers answers for them.

use super::{Batch, Decodes, Series, StepCost, StepTime};
use crate::time::Span;

/// `gpu = base + per_token * tokens + per_context_token * context_sum`, and a constant host time.
///
/// `context_sum` adds, over all sequences of the step, the tokens each has after it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Affine {
    /// GPU time of every step that computes anything.
    pub base: Span,
    /// GPU time of each token computed.
    pub per_token: Span,
    /// GPU time of each token attended to.
    pub per_context_token: Span,
    /// Host time of every step that computes anything.
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
        Series { first, growth: self.per_context_token * u64::from(decodes.count), count: steps.max(1) }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::Chunk;
    use super::super::testing::assert_run_equals_the_loop;
    use super::*;

    /// The formula of the golden recordings: `a_ns + b_ns * n + c_ns * sum(before + n)`.
    #[test]
    fn reproduces_the_recorded_formula() {
        let affine = Affine {
            base: Span::from_ns(5_000_000),
            per_token: Span::from_ns(12_000),
            per_context_token: Span::from_ns(30),
            host: Span::ZERO,
        };
        let chunks = [Chunk { tokens: 100, before: 50, samples: true }];
        let decodes = Decodes { count: 2, context_sum: 700, context_max: 400 };
        let cost = affine.cost(&Batch { chunks: &chunks, decodes });
        assert_eq!(cost.gpu, Span::from_ns(5_000_000 + 12_000 * 102 + 30 * (150 + 700)));
        assert_eq!(affine.cost(&Batch { chunks: &[], decodes: Decodes::default() }), StepCost::default());
    }

    proptest! {
        #[test]
        fn a_run_equals_its_steps(
            base in 0u64..10_000_000_000,
            per_token in 0u64..50_000_000,
            per_context_token in 0u64..100_000,
            count in 1u32..1_000,
            context in 1u64..100_000,
            steps in 1u64..300,
        ) {
            let affine = Affine {
                base: Span::from_ps(base),
                per_token: Span::from_ps(per_token),
                per_context_token: Span::from_ps(per_context_token),
                host: Span::from_us(700),
            };
            assert_run_equals_the_loop(&affine, count, context, steps);
        }
    }
}
