//! How much longer or shorter single steps take than their price: scatter with a shape and no memory.
//!
//! Knows a step by its number, so it does not matter how steps are gathered, or who looks. A factor is lognormal with mean 1 and the
//! given coefficient of variation, cut off below one half so that there is a bound to what may come out when. Does not know causes:
//! clocks, interrupts, garbage collection and neighbours are alike here.

use std::f64::consts::TAU;

use crate::random::{Seed, mix};
use crate::step_time::StepCost;
use crate::time::Span;

/// No step takes a smaller part of its price, millionths.
const LEAST_PPM: u64 = 500_000;
/// Nor a larger one.
const MOST_PPM: u64 = 100_000_000;

/// The scatter of one engine's steps.
#[derive(Clone, Copy, Debug)]
pub struct Jitter {
    /// Of the logarithm.
    sigma: f64,
    seed: u64,
}

impl Jitter {
    /// Steps that scatter by a coefficient of variation; none if that is 0.
    pub fn new(cv: f64, seed: Seed) -> Option<Jitter> {
        (cv > 0.0).then(|| Jitter { sigma: (1.0 + cv * cv).ln().sqrt(), seed: seed.0 })
    }

    /// The factor of step number `step`, millionths.
    fn ppm(&self, step: u64) -> u64 {
        let draw = |which: u64| {
            let bits = mix(mix(self.seed ^ step) ^ which);
            // Above 0, up to 1.
            ((bits >> 11) + 1) as f64 / (1u64 << 53) as f64
        };
        let normal = (-2.0 * draw(1).ln()).sqrt() * (TAU * draw(2)).cos();
        let factor = (self.sigma * normal - self.sigma * self.sigma / 2.0).exp();
        ((factor * 1e6) as u64).clamp(LEAST_PPM, MOST_PPM)
    }

    /// What step number `step` takes of this price.
    pub fn of(&self, step: u64, cost: StepCost) -> StepCost {
        let ppm = self.ppm(step);
        StepCost { gpu: times(cost.gpu, ppm), host: times(cost.host, ppm) }
    }

    /// What any step takes of this price at least.
    pub(super) fn least(span: Span) -> Span {
        times(span, LEAST_PPM)
    }
}

fn times(span: Span, ppm: u64) -> Span {
    Span::from_ps((u128::from(span.as_ps()) * u128::from(ppm) / 1_000_000) as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn factors_have_mean_one_and_the_spread_asked_for() {
        let jitter = Jitter::new(0.1, Seed(3)).unwrap();
        let cost = StepCost { gpu: Span::from_ms(10), host: Span::from_ms(1) };
        let drawn: Vec<f64> = (0..50_000).map(|step| jitter.of(step, cost).gpu.as_ms() / 10.0).collect();
        let mean = drawn.iter().sum::<f64>() / drawn.len() as f64;
        let variance = drawn.iter().map(|own| (own - mean).powi(2)).sum::<f64>() / drawn.len() as f64;
        assert!((mean - 1.0).abs() < 0.002 && (variance.sqrt() - 0.1).abs() < 0.002, "{mean} {variance}");
        assert!(drawn.iter().all(|factor| *factor >= 0.5));
        assert_eq!(jitter.of(7, cost), jitter.of(7, cost));
        assert!(Jitter::new(0.0, Seed(3)).is_none());
    }
}
