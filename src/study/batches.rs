//! Intervals from one long run: batch means.
//!
//! Requests in order of sending are cut into stretches of equal number, long enough to be as good as independent, and these stand for
//! repetitions (Law, Simulation Modeling and Analysis, chapter 9). Where neighbouring stretches are alike the run is too short for
//! it, or not stationary, and nothing is said.

use std::ops::Range;

use super::statistics::{Intervals, LatencyIntervals, interval, percentile_interval};
use crate::metrics::{Distribution, Sample};
use crate::request::Outcome;
use crate::time::{Span, Time};

/// Stretches of a run.
pub const STRETCHES: usize = 20;
/// Requests that a stretch needs.
const FEWEST: usize = 200;
/// Correlation of neighbouring stretches above which they are not independent: of twenty that are, one in twenty is above it.
const MOST_CORRELATED: f64 = 0.32;

/// Why one run says nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unsaid {
    /// It has too few requests.
    Short,
    /// Its stretches depend on each other.
    Dependent,
}

/// Intervals of one run's latencies.
///
/// # Errors
/// If it is too short for them, or its stretches depend on each other.
pub fn of_run(outcomes: &[Outcome], counted: &Range<Time>) -> Result<LatencyIntervals, Unsaid> {
    let mut sent: Vec<&Outcome> = outcomes.iter().filter(|outcome| counted.contains(&outcome.sent)).collect();
    sent.sort_by_key(|outcome| (outcome.sent, outcome.attempt));
    let series = |of: fn(&Outcome) -> Option<Span>| -> Vec<Option<Span>> {
        sent.iter().map(|outcome| of(outcome).filter(|_| outcome.finish.is_complete())).collect()
    };
    let whole = |latencies: Vec<Option<Span>>| -> Vec<Option<Span>> {
        latencies.into_iter().filter(Option::is_some).collect()
    };
    if sent.len() / STRETCHES < FEWEST {
        return Err(Unsaid::Short);
    }
    let e2e = intervals(&series(Outcome::e2e)).ok_or(Unsaid::Dependent)?;
    let of_answers = |of| intervals(&whole(series(of))).unwrap_or_default();
    Ok(LatencyIntervals { e2e, ttft: of_answers(Outcome::ttft), tpot: of_answers(Outcome::tpot) })
}

/// Intervals of latencies in order of sending, of which those without an answer are infinite; none as for [`of_run`].
pub fn intervals(latencies: &[Option<Span>]) -> Option<Intervals> {
    let length = latencies.len() / STRETCHES;
    if length < FEWEST {
        return None;
    }
    // What does not fill a stretch is left out at the beginning, where a run is least like itself.
    let stretches = latencies[latencies.len() - length * STRETCHES..].chunks_exact(length).map(|stretch| {
        let mut sample = Sample::default();
        stretch.iter().flatten().for_each(|span| sample.add(*span));
        let lost = stretch.iter().filter(|span| span.is_none()).count() as u64;
        (sample.quantiles().mean_ms, sample.distribution(lost))
    });
    let (means, distributions): (Vec<Option<f64>>, Vec<Distribution>) = stretches.unzip();
    let means: Vec<f64> = means.into_iter().collect::<Option<_>>()?;
    if correlation_of_neighbours(&means) > MOST_CORRELATED {
        return None;
    }
    let distributions: Vec<&Distribution> = distributions.iter().collect();
    let percentile = |p: f64| percentile_interval(&distributions, p, latencies.len() as u64);
    Some(Intervals::of(interval(&means), percentile))
}

/// Correlation of each value with the next; zero where all are equal.
fn correlation_of_neighbours(values: &[f64]) -> f64 {
    let mean = values.iter().sum::<f64>() / values.len() as f64;
    let all: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
    let pairs: f64 = values.windows(2).map(|pair| (pair[0] - mean) * (pair[1] - mean)).sum();
    if all > 0.0 { pairs / all } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 20 stretches of 200, each value its stretch's level plus 0 to 199 microseconds.
    fn series(level_ms: impl Fn(usize) -> u64) -> Vec<Option<Span>> {
        (0..4_000).map(|k| Some(Span::from_ms(level_ms(k / 200)) + Span::from_us(k as u64 % 200))).collect()
    }

    #[test]
    fn stretches_stand_for_repetitions() {
        // Levels of 10 and 12 ms by turns: a mean of 11.0995 ms, a standard error of sqrt(20 / 19) / sqrt(20), t(19) = 2.093.
        let got = intervals(&series(|stretch| 10 + 2 * (stretch as u64 % 2))).unwrap();
        let mean = got.mean.unwrap();
        let half = 2.093 * (20.0f64 / 19.0).sqrt() / 20f64.sqrt();
        assert!((mean.estimate - 11.0995).abs() < 1e-9, "{mean:?}");
        assert!((mean.high - mean.estimate - half).abs() < 1e-3, "{mean:?}");
        assert!(got.p99.is_some() && got.p99_9.is_none());
    }

    #[test]
    fn a_run_that_is_too_short_or_has_a_trend_says_nothing() {
        assert_eq!(intervals(&series(|_| 10)[..3_980]), None);
        assert_eq!(intervals(&series(|stretch| 10 + stretch as u64)), None);
    }
}
