//! Exact quantiles of recorded spans.

use serde::Serialize;

use crate::time::Span;

/// Mean and percentiles of one latency, in milliseconds; none where nothing was recorded.
#[derive(Clone, Copy, Debug, PartialEq, Default, Serialize)]
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

impl Quantiles {
    /// Of these values; sorts them.
    pub fn of(values: &mut [Span]) -> Quantiles {
        values.sort_unstable();
        if values.is_empty() {
            return Quantiles::default();
        }
        let total: u128 = values.iter().map(|value| u128::from(value.as_ps())).sum();
        let mean_ps = total as f64 / values.len() as f64;
        let percentile = |p| Some(percentile_ms(values, p));
        Quantiles {
            count: values.len() as u64,
            mean_ms: Some(mean_ps / Span::from_ms(1).as_ps() as f64),
            p50_ms: percentile(50.0),
            p90_ms: percentile(90.0),
            p95_ms: percentile(95.0),
            p99_ms: percentile(99.0),
            max_ms: percentile(100.0),
        }
    }
}

/// The `p`-th percentile of sorted values, linear between neighbours as numpy has it, in milliseconds.
///
/// # Panics
/// If there is no value.
pub fn percentile_ms(sorted: &[Span], p: f64) -> f64 {
    let place = (sorted.len() - 1) as f64 * p / 100.0;
    let (below, above) = (sorted[place.floor() as usize], sorted[place.ceil() as usize]);
    below.as_ms() + (above.as_ms() - below.as_ms()) * place.fract()
}

/// The `p`-th percentile when `lost` more requests never came back, each later than all others: none, which
/// reads as infinite, where it falls among them.
pub fn percentile_with_lost_ms(sorted: &[Span], lost: u64, p: f64) -> Option<f64> {
    let all = sorted.len() as u64 + lost;
    if all == 0 {
        return None;
    }
    let place = (all - 1) as f64 * p / 100.0;
    let (below, above) = (place.floor() as usize, place.ceil() as usize);
    let (below, above) = (sorted.get(below)?, sorted.get(above)?);
    Some(below.as_ms() + (above.as_ms() - below.as_ms()) * place.fract())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_numpys() {
        let mut values: Vec<Span> = [4, 1, 3, 2].map(Span::from_ms).to_vec();
        let quantiles = Quantiles::of(&mut values);
        assert_eq!(quantiles.mean_ms, Some(2.5));
        assert_eq!(quantiles.p50_ms, Some(2.5));
        // numpy.percentile([1, 2, 3, 4], 90) = 3.7
        assert!((quantiles.p90_ms.unwrap() - 3.7).abs() < 1e-12);
        assert_eq!(Quantiles::of(&mut []).p50_ms, None);
    }

    #[test]
    fn lost_requests_count_as_infinite() {
        let values: Vec<Span> = (1..=99).map(Span::from_ms).collect();
        assert_eq!(percentile_with_lost_ms(&values, 1, 50.0), Some(50.5));
        assert_eq!(percentile_with_lost_ms(&values, 1, 99.0), None);
        assert_eq!(percentile_with_lost_ms(&values, 0, 100.0), Some(99.0));
    }
}
