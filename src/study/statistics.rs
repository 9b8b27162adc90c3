//! Intervals over repetitions.
//!
//! Repetitions are independent; policies share the requests of each (common random numbers), so their
//! difference is taken pair by pair. Intervals are Student's t over repetitions, at 95 %.

use serde::Serialize;
use statrs::distribution::{ContinuousCDF, StudentsT};

/// Mean of repetitions with its 95 % interval.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Interval {
    /// Mean over repetitions.
    pub mean: f64,
    /// Lower end.
    pub low: f64,
    /// Upper end.
    pub high: f64,
}

/// The 95 % interval of the mean of independent values; none for fewer than two, or where all are equal:
/// an interval of no width is no result.
pub fn interval(values: &[f64]) -> Option<Interval> {
    let count = values.len() as f64;
    if values.len() < 2 {
        return None;
    }
    let mean = values.iter().sum::<f64>() / count;
    let variance = values.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / (count - 1.0);
    if variance == 0.0 {
        return None;
    }
    let half = t_quantile(count - 1.0) * (variance / count).sqrt();
    Some(Interval { mean, low: mean - half, high: mean + half })
}

/// The 97.5 % point of Student's t.
fn t_quantile(degrees_of_freedom: f64) -> f64 {
    StudentsT::new(0.0, 1.0, degrees_of_freedom).map_or(f64::INFINITY, |t| t.inverse_cdf(0.975))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intervals_are_students() {
        // t(4, 0.975) = 2.776445; of 1..5 the mean is 3 and the standard error sqrt(2.5 / 5).
        let got = interval(&[1.0, 2.0, 3.0, 4.0, 5.0]).unwrap();
        let half = 2.776445 * (2.5f64 / 5.0).sqrt();
        assert!((got.low - (3.0 - half)).abs() < 1e-5 && (got.high - (3.0 + half)).abs() < 1e-5, "{got:?}");
        assert_eq!(interval(&[1.0]), None);
        assert_eq!(interval(&[2.0, 2.0, 2.0]), None);
    }
}
