//! Quantiles of recorded spans: exact up to a bound, from a sketch of known error beyond.

use serde::Serialize;

use super::distribution::MOST_POINTS;
use super::{Distribution, Histogram};
use crate::time::Span;

/// Mean and percentiles of one latency, in milliseconds; none where nothing was recorded.
#[derive(Clone, Copy, Debug, PartialEq, Default, Serialize, schemars::JsonSchema)]
pub struct Quantiles {
    /// How many values.
    pub count: u64,
    /// Arithmetic mean.
    pub mean_ms: Option<f64>,
    /// Median.
    pub p50_ms: Option<f64>,
    /// 90th percentile.
    pub p90_ms: Option<f64>,
    /// 95th percentile.
    pub p95_ms: Option<f64>,
    /// 99th percentile.
    pub p99_ms: Option<f64>,
    /// Largest.
    pub max_ms: Option<f64>,
}

/// Values up to which quantiles are exact; of more, a sketch keeps counts alone.
pub const EXACT_UP_TO: usize = 1 << 21;

/// Bits of the sketch: a value is known to one part in 2^11, and a reported quantile, the middle of its bucket,
/// lies within one part in [`SKETCH_PARTS`] of a recorded value at its place.
const SKETCH_BITS: u32 = 11;

/// A quantile of a sketch is off by at most one part in so many.
pub const SKETCH_PARTS: u64 = 2 << SKETCH_BITS;

/// Recorded spans: all of them up to [`EXACT_UP_TO`], their distribution beyond. Count, mean and largest are
/// always exact, and nothing depends on the order in which they came.
#[derive(Clone, Debug, Default)]
pub struct Sample {
    values: Vec<Span>,
    /// Whether the values are in order.
    sorted: bool,
    sketch: Option<Histogram<SKETCH_BITS>>,
    count: u64,
    total_ps: u128,
    largest: Span,
}

impl Sample {
    /// One more.
    pub fn add(&mut self, value: Span) {
        self.count += 1;
        self.total_ps += u128::from(value.as_ps());
        self.largest = self.largest.max(value);
        if let Some(sketch) = &mut self.sketch {
            sketch.add(value, 1);
            return;
        }
        self.values.push(value);
        self.sorted = false;
        if self.values.len() > EXACT_UP_TO {
            let mut sketch = Histogram::default();
            for value in std::mem::take(&mut self.values) {
                sketch.add(value, 1);
            }
            self.sketch = Some(sketch);
        }
    }

    /// Whether quantiles come from a sketch.
    pub fn is_sketched(&self) -> bool {
        self.sketch.is_some()
    }

    /// How the values are spread, when `lost` more requests never came back.
    pub fn distribution(&mut self, lost: u64) -> Distribution {
        match &self.sketch {
            Some(sketch) => {
                let ranks = (0..MOST_POINTS as u64)
                    .map(|place| (2 * place + 1) * self.count / (2 * MOST_POINTS as u64));
                let sorted: Vec<Span> = ranks.filter_map(|rank| sketch.value_at(rank)).collect();
                // The share that was lost, told of as many values as are kept.
                Distribution::of(
                    &sorted,
                    (lost as f64 * sorted.len() as f64 / self.count as f64).round() as u64,
                )
            }
            None => {
                self.values.sort_unstable();
                self.sorted = true;
                Distribution::of(&self.values, lost)
            }
        }
    }

    /// Mean and percentiles.
    pub fn quantiles(&mut self) -> Quantiles {
        if self.count == 0 {
            return Quantiles::default();
        }
        let mean_ps = self.total_ps as f64 / self.count as f64;
        Quantiles {
            count: self.count,
            mean_ms: Some(mean_ps / Span::from_ms(1).as_ps() as f64),
            p50_ms: self.percentile_with_lost_ms(0, 50.0),
            p90_ms: self.percentile_with_lost_ms(0, 90.0),
            p95_ms: self.percentile_with_lost_ms(0, 95.0),
            p99_ms: self.percentile_with_lost_ms(0, 99.0),
            max_ms: Some(self.largest.as_ms()),
        }
    }

    /// The `p`-th percentile, linear between neighbours as numpy has it, when `lost` more requests never came
    /// back, each later than all others: none, which reads as infinite, where it falls among them.
    pub fn percentile_with_lost_ms(&mut self, lost: u64, p: f64) -> Option<f64> {
        let all = self.count + lost;
        let place = all.checked_sub(1)? as f64 * p / 100.0;
        let (below, above) = (place.floor() as u64, place.ceil() as u64);
        if above >= self.count {
            return None;
        }
        let (below, above) = match &self.sketch {
            Some(sketch) => (sketch.value_at(below)?, sketch.value_at(above)?),
            None if self.sorted => (self.values[below as usize], self.values[above as usize]),
            None => {
                let (_, &mut at, behind) = self.values.select_nth_unstable(below as usize);
                let next = if above > below { behind.iter().min().copied()? } else { at };
                (at, next)
            }
        };
        Some(below.as_ms() + (above.as_ms() - below.as_ms()) * place.fract())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn sample(values: impl IntoIterator<Item = u64>) -> Sample {
        let mut sample = Sample::default();
        values.into_iter().for_each(|ms| sample.add(Span::from_ms(ms)));
        sample
    }

    #[test]
    fn percentiles_are_numpys() {
        let quantiles = sample([4, 1, 3, 2]).quantiles();
        assert_eq!(quantiles.mean_ms, Some(2.5));
        assert_eq!(quantiles.p50_ms, Some(2.5));
        // numpy.percentile([1, 2, 3, 4], 90) = 3.7
        assert!((quantiles.p90_ms.unwrap() - 3.7).abs() < 1e-12);
        assert_eq!(quantiles.max_ms, Some(4.0));
        assert_eq!(sample([]).quantiles().p50_ms, None);
    }

    #[test]
    fn lost_requests_count_as_infinite() {
        let mut values = sample(1..=99);
        assert_eq!(values.percentile_with_lost_ms(1, 50.0), Some(50.5));
        assert_eq!(values.percentile_with_lost_ms(1, 99.0), None);
        assert_eq!(values.percentile_with_lost_ms(0, 100.0), Some(99.0));
        assert_eq!(sample([]).percentile_with_lost_ms(0, 50.0), None);
    }

    #[test]
    fn many_values_become_a_sketch_that_keeps_its_bound() {
        let mut sample = Sample::default();
        let mut value = 1u64;
        let mut values: Vec<Span> = Vec::new();
        for _ in 0..=EXACT_UP_TO {
            // Full period, so that the values are spread over all magnitudes the same way every time.
            value = value.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let span = Span::from_ps(value >> (20 + value % 30));
            sample.add(span);
            values.push(span);
        }
        assert!(sample.is_sketched());
        values.sort_unstable();
        for p in [1.0, 50.0, 90.0, 99.0, 99.9] {
            let exact_ms = values[(p / 100.0 * (values.len() - 1) as f64).round() as usize].as_ms();
            let got_ms = sample.percentile_with_lost_ms(0, p).unwrap();
            assert!(
                (got_ms / exact_ms - 1.0).abs() <= 2.0 / SKETCH_PARTS as f64,
                "P{p}: {got_ms} for {exact_ms}"
            );
        }
        assert_eq!(sample.quantiles().max_ms, values.last().map(|last| last.as_ms()));
    }

    proptest! {
        /// The judge sorts.
        #[test]
        fn any_order_gives_the_same(mut values in prop::collection::vec(0u64..1_000, 1..200), lost in 0u64..5, p in 0.0f64..=100.0) {
            let mut in_order = sample(values.iter().copied());
            values.sort_unstable();
            let place = (values.len() as u64 + lost - 1) as f64 * p / 100.0;
            let at = |place: f64| values.get(place as usize).map(|&ms| ms as f64);
            let expected = at(place.floor()).zip(at(place.ceil())).map(|(a, b)| a + (b - a) * place.fract());
            prop_assert_eq!(in_order.percentile_with_lost_ms(lost, p), expected);
            prop_assert_eq!(sample(values).percentile_with_lost_ms(lost, p), expected);
        }
    }
}
