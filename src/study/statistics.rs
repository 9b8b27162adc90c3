//! Intervals over repetitions, and what may be said of a difference.
//!
//! Repetitions are independent; policies share the requests of each (common random numbers), so their difference is taken pair by
//! pair. Two methods, and everything else follows from them:
//!
//! - A **mean** of repetitions: Student's t.
//! - A **percentile** p of all requests: the values x at which the share of requests that took at most x, taken repetition by
//!   repetition, is not told apart from p. Shares have no bias, where the percentile of each repetition is biased towards the middle,
//!   the more the fewer requests it has. They are skewed, since now and then a long queue makes many requests slow: Hall's monotone
//!   cubic transformation takes that out before Student's t is asked (P. Hall, On the removal of skewness by transformation, JRSS B
//!   54, 1992). Of few repetitions little is known of skewness, so its part is bounded.
//!
//! Their coverage is measured on queues of known distribution: `tests/suite/coverage.rs`.

use serde::Serialize;
use statrs::distribution::{ContinuousCDF, StudentsT};

use crate::metrics::Distribution;
use crate::scenario::MOST_REPETITIONS;

/// The level of intervals where nobody asks for another.
pub const LEVEL: f64 = 0.95;

/// An estimate and its interval.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, schemars::JsonSchema)]
pub struct Interval {
    /// What is estimated.
    pub estimate: f64,
    /// Lower end.
    pub low: f64,
    /// Upper end.
    pub high: f64,
}

impl Interval {
    /// Whether a value lies in it.
    pub fn holds(&self, value: f64) -> bool {
        (self.low..=self.high).contains(&value)
    }
}

/// Intervals of a latency over repetitions, milliseconds; none where nothing can be said: one repetition, too few requests beyond
/// a percentile, or no width.
#[derive(Clone, Copy, Debug, PartialEq, Default, Serialize, schemars::JsonSchema)]
pub struct Intervals {
    /// Of the mean of a repetition.
    pub mean: Option<Interval>,
    /// Of the median of all requests.
    pub p50: Option<Interval>,
    /// 90th percentile.
    pub p90: Option<Interval>,
    /// 95th percentile.
    pub p95: Option<Interval>,
    /// 99th percentile.
    pub p99: Option<Interval>,
    /// 99.9th percentile.
    pub p99_9: Option<Interval>,
    /// 99.99th percentile.
    pub p99_99: Option<Interval>,
}

impl Intervals {
    /// Of a mean, and of percentiles by a rule. No latency is below zero, whatever Student's form says of two values.
    pub fn of(mean: Option<Interval>, percentile: impl Fn(f64) -> Option<Interval>) -> Intervals {
        Intervals {
            mean: mean.map(|mean| Interval { low: mean.low.max(0.0), ..mean }),
            p50: percentile(50.0),
            p90: percentile(90.0),
            p95: percentile(95.0),
            p99: percentile(99.0),
            p99_9: percentile(99.9),
            p99_99: percentile(99.99),
        }
    }
}

/// Those of all latencies.
#[derive(Clone, Copy, Debug, PartialEq, Default, Serialize, schemars::JsonSchema)]
pub struct LatencyIntervals {
    /// End to end; percentiles are of all offered requests, those without a whole answer counting as infinite.
    pub e2e: Intervals,
    /// Time to first token.
    pub ttft: Intervals,
    /// Time per output token.
    pub tpot: Intervals,
}

/// Count, mean, and standard error of the mean.
struct Moments {
    count: f64,
    mean: f64,
    error: f64,
}

impl Moments {
    fn of(values: impl Iterator<Item = f64> + Clone) -> Moments {
        let count = values.clone().count() as f64;
        let mean = values.clone().sum::<f64>() / count;
        let squares = values.map(|value| (value - mean).powi(2)).sum::<f64>();
        Moments { count, mean, error: (squares / (count - 1.0) / count).sqrt() }
    }
}

/// Bound of skewness over the square root of the count, over the quantile of Student's t that it is compared with. At 1 the
/// transformation has no slope there, and an interval no end.
const MOST_SKEW: f64 = 0.75;

/// How far the mean of `values` is above `value`, in units that are Student's where values are skewed, to be compared with `t`.
fn distance(values: impl Iterator<Item = f64> + Clone, value: f64, t: f64) -> f64 {
    let Moments { count, mean, error } = Moments::of(values.clone());
    if error == 0.0 {
        return match mean - value {
            0.0 => 0.0,
            above if above > 0.0 => f64::INFINITY,
            _ => f64::NEG_INFINITY,
        };
    }
    let cubes = values.map(|value| (value - mean).powi(3)).sum::<f64>();
    let variance = error * error * count;
    // Of two values nothing is known of skewness.
    let third = if count > 2.0 { cubes * count / ((count - 1.0) * (count - 2.0)) } else { 0.0 };
    let g = (third / variance.powf(1.5) / count.sqrt()).clamp(-MOST_SKEW / t, MOST_SKEW / t);
    let plain = (mean - value) / error;
    plain + g * plain.powi(2) / 3.0 + g * g * plain.powi(3) / 27.0 + g / 6.0
}

/// The interval of the mean of independent values at 95 %; none for fewer than two, or where all are equal: an interval of no width
/// is no result.
pub fn interval(values: &[f64]) -> Option<Interval> {
    interval_at(values, LEVEL)
}

/// The same at another level.
pub fn interval_at(values: &[f64], level: f64) -> Option<Interval> {
    if values.len() < 2 {
        return None;
    }
    let moments = Moments::of(values.iter().copied());
    let half = t_quantile(moments.count - 1.0, level) * moments.error;
    let (low, high) = (moments.mean - half, moments.mean + half);
    (low < high).then_some(Interval { estimate: moments.mean, low, high })
}

/// Requests beyond a percentile, over all repetitions, below which nothing is said of it.
pub const FEWEST_BEYOND: f64 = 10.0;

/// The interval of the `p`-th percentile of all requests at 95 %, milliseconds; none for fewer than two repetitions, for fewer than
/// [`FEWEST_BEYOND`] of `requests` beyond it, where it is infinite, and where it has no width.
pub fn percentile_interval(repetitions: &[&Distribution], p: f64, requests: u64) -> Option<Interval> {
    let beyond = requests as f64 * (1.0 - p / 100.0);
    if repetitions.len() < 2 || beyond < FEWEST_BEYOND {
        return None;
    }
    let t = t_quantile(repetitions.len() as f64 - 1.0, LEVEL);
    let share = p / 100.0;
    let above =
        |ms: f64| distance(repetitions.iter().map(|repetition| repetition.share_within(ms)), share, t);
    let low = least_ms(repetitions, &|ms| above(ms) >= -t)?;
    let estimate = pooled_percentile_ms(repetitions, p)?;
    if Moments::of(repetitions.iter().map(|repetition| repetition.share_within(estimate))).error == 0.0 {
        // Repetitions that agree to the last request say nothing of chance.
        return None;
    }
    let high = least_ms(repetitions, &|ms| above(ms) > t)?;
    (high - low > 1e-6 * high).then_some(Interval { estimate, low, high })
}

/// The `p`-th percentile of all requests, each repetition counting alike, milliseconds; none where it is infinite.
pub fn pooled_percentile_ms(repetitions: &[&Distribution], p: f64) -> Option<f64> {
    let count = repetitions.len() as f64;
    let share =
        |ms: f64| repetitions.iter().map(|repetition| repetition.share_within(ms)).sum::<f64>() / count;
    least_ms(repetitions, &|ms| share(ms) >= p / 100.0)
}

/// The least latency of which `enough` is true, as it is of all above; none if it is not even of the longest.
fn least_ms(repetitions: &[&Distribution], enough: &dyn Fn(f64) -> bool) -> Option<f64> {
    let longest = repetitions.iter().filter_map(|repetition| repetition.longest_ms()).reduce(f64::max)?;
    let (mut low, mut high) = (0.0, longest);
    if !enough(high) {
        return None;
    }
    while high - low > 1e-7 * high {
        let middle = (low + high) / 2.0;
        if enough(middle) { high = middle } else { low = middle }
    }
    Some(high)
}

/// Whether the mean of independent values is at least `least`, with this confidence on one side; none where nothing can be said
/// with it.
pub fn at_least(values: &[f64], least: f64, confidence: f64) -> Option<bool> {
    if values.len() < 2 {
        return None;
    }
    let t = t_quantile(values.len() as f64 - 1.0, 2.0 * confidence - 1.0);
    match distance(values.iter().copied(), least, t) {
        // All are the same, and just so many.
        0.0 if values.iter().all(|value| *value == least) => Some(true),
        distance if distance >= t => Some(true),
        distance if distance <= -t => Some(false),
        _ => None,
    }
}

/// What repetitions say of a difference between two that had the same requests.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, schemars::JsonSchema)]
pub struct Paired {
    /// The difference and its interval.
    pub difference: Interval,
    /// The chance that it would be negative in one more repetition.
    pub negative_probability: f64,
    /// Repetitions, in all, by which the interval would leave 0 out, if mean and spread stay; none where it does already, or where
    /// [`MOST_REPETITIONS`] would not do.
    pub repetitions_to_tell: Option<u32>,
}

/// The difference, pair by pair; none where [`interval_at`] has none.
pub fn paired(differences: &[f64], level: f64) -> Option<Paired> {
    let difference = interval_at(differences, level)?;
    let Moments { count, mean, error } = Moments::of(differences.iter().copied());
    let spread = error * count.sqrt();
    let student = StudentsT::new(0.0, 1.0, count - 1.0).ok()?;
    let negative_probability = student.cdf(-mean / (spread * (1.0 + 1.0 / count).sqrt()));
    let tells = |&repetitions: &u32| {
        let count = f64::from(repetitions);
        t_quantile(count - 1.0, level) * spread / count.sqrt() < mean.abs()
    };
    let open = difference.holds(0.0);
    // The bound falls with every repetition more, so halving finds the first.
    let repetitions_to_tell = (open && tells(&MOST_REPETITIONS)).then(|| {
        let (mut no, mut yes) = (differences.len() as u32, MOST_REPETITIONS);
        while yes - no > 1 {
            let middle = u32::midpoint(no, yes);
            if tells(&middle) { yes = middle } else { no = middle }
        }
        yes
    });
    Some(Paired { difference, negative_probability, repetitions_to_tell })
}

/// The level of look number `look`, from 1 on, when results are looked at again and again: errors of all looks together are no more
/// than those of one look at 95 %, since 1 + 1/4 + 1/9 + ... = pi^2 / 6.
pub fn level_of_look(look: u32) -> f64 {
    1.0 - (1.0 - LEVEL) * 6.0 / (std::f64::consts::PI * f64::from(look)).powi(2)
}

/// The point that Student's t exceeds on either side with all but `level`.
fn t_quantile(degrees_of_freedom: f64, level: f64) -> f64 {
    let point = 1.0 - (1.0 - level) / 2.0;
    StudentsT::new(0.0, 1.0, degrees_of_freedom).map_or(f64::INFINITY, |t| t.inverse_cdf(point))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::Sample;
    use crate::time::Span;

    #[test]
    fn intervals_of_means_are_students() {
        // t(4, 0.975) = 2.776445; of 1..5 the mean is 3 and the standard error sqrt(2.5 / 5).
        let got = interval(&[1.0, 2.0, 3.0, 4.0, 5.0]).unwrap();
        let half = 2.776445 * (2.5f64 / 5.0).sqrt();
        assert!((got.low - (3.0 - half)).abs() < 1e-5 && (got.high - (3.0 + half)).abs() < 1e-5, "{got:?}");
        assert_eq!(interval(&[1.0]), None);
        assert_eq!(interval(&[2.0, 2.0, 2.0]), None);
        // t(1, 0.975) = 12.7: of two latencies the plain form reaches far below zero.
        let of_two = interval(&[10.0, 30.0]);
        assert!(of_two.is_some_and(|interval| interval.low < 0.0));
        assert_eq!(Intervals::of(of_two, |_| None).mean.map(|mean| mean.low), Some(0.0));
    }

    #[test]
    fn skewness_is_taken_out_within_bounds() {
        let symmetric = [1.0, 2.0, 3.0, 4.0, 5.0];
        assert!((distance(symmetric.into_iter(), 2.0, 2.776) - 1.0 / 0.5f64.sqrt()).abs() < 1e-12);
        // Seldom a long one: the truth may well lie above the mean, so what is above is nearer than it looks, and what is below farther.
        let skewed = [1.0, 1.2, 1.1, 0.9, 1.3, 5.0];
        let plain = |value: f64| {
            let Moments { mean, error, .. } = Moments::of(skewed.into_iter());
            (mean - value) / error
        };
        for value in [0.5, 1.0, 3.0, 4.0] {
            assert!(distance(skewed.into_iter(), value, 2.571) > plain(value));
        }
        // It falls as the value rises, even where skewness is as large as six values can have it.
        let falls = (0..100).map(|step| distance(skewed.into_iter(), f64::from(step) / 10.0, 2.571));
        assert!(falls.collect::<Vec<_>>().windows(2).all(|pair| pair[0] >= pair[1]));
    }

    fn distribution(values: impl Iterator<Item = u64>) -> Distribution {
        let mut sample = Sample::default();
        values.for_each(|us| sample.add(Span::from_us(us)));
        sample.distribution(0)
    }

    #[test]
    fn a_percentile_lies_where_shares_do_not_tell_it_apart() {
        // Ten repetitions of 1,000 evenly spread values, each stretched by its own factor.
        let runs: Vec<Distribution> =
            (0..10).map(|run| distribution((0..1_000).map(move |i| i * (995 + run)))).collect();
        let runs: Vec<&Distribution> = runs.iter().collect();
        let got = percentile_interval(&runs, 90.0, 10_000).unwrap();
        // 900 of 1,000 at a factor of 999.5: 899.5 ms or so; the factors' spread is 0.3 %, their mean's 0.1 %.
        assert!((got.estimate - 899.0).abs() < 1.0, "{got:?}");
        assert!(got.high - got.low < 6.0 && got.low < got.estimate && got.estimate < got.high, "{got:?}");
        // Of 2,001 requests ten lie beyond P99.5, of 1,999 they do not.
        assert!(percentile_interval(&runs, 99.5, 2_001).is_some());
        assert_eq!(percentile_interval(&runs, 99.5, 1_999), None);
        assert_eq!(percentile_interval(&runs[..1], 50.0, 10_000), None);
        assert_eq!(percentile_interval(&[runs[0], runs[0]], 50.0, 10_000), None);
    }

    #[test]
    fn a_mean_is_at_least_so_much_or_not_or_nobody_knows() {
        // One-sided t(4, 0.95) = 2.132; standard error 0.7071, so 1.508 to either side of 3.
        let values = [1.0, 2.0, 3.0, 4.0, 5.0];
        assert_eq!(at_least(&values, 1.49, 0.95), Some(true));
        assert_eq!(at_least(&values, 1.50, 0.95), None);
        assert_eq!(at_least(&values, 4.51, 0.95), Some(false));
        assert_eq!(at_least(&[1.0, 1.0], 1.0, 0.95), Some(true));
        assert_eq!(at_least(&[0.9, 0.9], 1.0, 0.95), Some(false));
        assert_eq!(at_least(&[1.0], 0.5, 0.95), None);
    }

    #[test]
    fn a_difference_says_how_many_repetitions_would_tell() {
        // Mean 1, standard deviation 2: t(N - 1) * 2 / sqrt(N) < 1 from N = 18 on (t(17) = 2.110, sqrt(18) = 4.243).
        let differences = [-1.0, 3.0, -1.0, 3.0, 1.0 - 2f64.sqrt(), 1.0 + 2f64.sqrt()];
        let spread = (differences.iter().map(|d| (d - 1.0f64).powi(2)).sum::<f64>() / 5.0).sqrt();
        assert!((spread - 2.0).abs() < 1e-12);
        let got = paired(&differences, LEVEL).unwrap();
        assert_eq!(got.repetitions_to_tell, Some(18));
        // P(T5 < -1 / (2 sqrt(7 / 6))) = P(T5 < -0.463) = 0.331.
        assert!((got.negative_probability - 0.331).abs() < 2e-3, "{got:?}");
        let sure = paired(&[5.0, 5.1, 4.9, 5.0], LEVEL).unwrap();
        assert!(sure.repetitions_to_tell.is_none() && sure.negative_probability < 1e-3);
        assert!((level_of_look(1) - 0.9696).abs() < 1e-4 && level_of_look(3) > level_of_look(2));
    }
}
