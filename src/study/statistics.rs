//! Intervals over repetitions, and what may be said of a difference.
//!
//! Repetitions are independent; policies share the requests of each (common random numbers), so their difference is taken pair by
//! pair. Two methods, and everything else follows from them:
//!
//! - A **mean** of repetitions: Student's t, after Hall's monotone cubic transformation has taken the skewness out (P. Hall, On the
//!   removal of skewness by transformation, JRSS B 54, 1992). Waiting times are skewed, and a plain t interval misses the truth on
//!   one side; without skewness the two are the same.
//! - A **percentile** p of all requests: the values x at which the share of requests that took at most x, taken repetition by
//!   repetition, is not told apart from p by the interval of a mean. Shares have no bias, where the percentile of each repetition
//!   is biased towards the middle, the more the fewer requests it has.
//!
//! Their coverage is measured on queues of known distribution: `tests/suite/coverage.rs`.

use serde::Serialize;
use statrs::distribution::{ContinuousCDF, StudentsT};

use crate::metrics::Distribution;

/// The level of intervals where nobody asks for another.
pub const LEVEL: f64 = 0.95;

/// An estimate and its interval.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
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

/// Count, mean, standard error of the mean, and skewness over the square root of the count.
struct Moments {
    count: f64,
    mean: f64,
    error: f64,
    skew: f64,
}

impl Moments {
    fn of(values: impl Iterator<Item = f64> + Clone) -> Moments {
        let count = values.clone().count() as f64;
        let mean = values.clone().sum::<f64>() / count;
        let power = |exponent: i32| values.clone().map(|value| (value - mean).powi(exponent)).sum::<f64>();
        let variance = power(2) / (count - 1.0);
        // Of two values nothing is known of skewness.
        let third = if count > 2.0 { power(3) * count / ((count - 1.0) * (count - 2.0)) } else { 0.0 };
        let skew = if variance > 0.0 { third / variance.powf(1.5) / count.sqrt() } else { 0.0 };
        Moments { count, mean, error: (variance / count).sqrt(), skew }
    }

    /// How far a value is from the mean, in units that are Student's: Hall's transformation of (mean - value) / error.
    fn distance(&self, value: f64) -> f64 {
        if self.error == 0.0 {
            return match self.mean - value {
                0.0 => 0.0,
                above if above > 0.0 => f64::INFINITY,
                _ => f64::NEG_INFINITY,
            };
        }
        let (t, g) = ((self.mean - value) / self.error, self.skew);
        t + g * t * t / 3.0 + g * g * t * t * t / 27.0 + g / 6.0
    }

    /// The value at this distance: the inverse.
    fn value_at(&self, distance: f64) -> f64 {
        let g = self.skew;
        let t = match g.abs() < 1e-9 {
            true => distance,
            false => 3.0 / g * ((1.0 + g * (distance - g / 6.0)).cbrt() - 1.0),
        };
        self.mean - t * self.error
    }
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
    let t = t_quantile(moments.count - 1.0, level);
    let (low, high) = (moments.value_at(t), moments.value_at(-t));
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
    let of = |ms: f64| Moments::of(repetitions.iter().map(move |repetition| repetition.share_within(ms)));
    let share = p / 100.0;
    let low = least_ms(repetitions, &|ms| of(ms).distance(share) >= -t)?;
    let estimate = pooled_percentile_ms(repetitions, p)?;
    let high = least_ms(repetitions, &|ms| of(ms).distance(share) > t)?;
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
    let moments = Moments::of(values.iter().copied());
    let t = t_quantile(moments.count - 1.0, 2.0 * confidence - 1.0);
    match moments.distance(least) {
        // All are the same, and just so many.
        0.0 if moments.error == 0.0 => Some(true),
        distance if distance >= t => Some(true),
        distance if distance <= -t => Some(false),
        _ => None,
    }
}

/// What repetitions say of a difference between two that had the same requests.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Paired {
    /// The difference and its interval.
    pub difference: Interval,
    /// The chance that it would be negative in one more repetition.
    pub negative_probability: f64,
    /// Repetitions, in all, by which the interval would leave 0 out, if mean and spread stay; none where it does already, or where
    /// [`MOST_REPETITIONS`] would not do.
    pub repetitions_to_tell: Option<u32>,
}

/// Where `repetitions_to_tell` ends.
pub const MOST_REPETITIONS: u32 = 10_000;

/// The difference, pair by pair; none where [`interval_at`] has none.
pub fn paired(differences: &[f64], level: f64) -> Option<Paired> {
    let difference = interval_at(differences, level)?;
    let Moments { count, mean, error, .. } = Moments::of(differences.iter().copied());
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
    fn intervals_of_symmetric_values_are_students() {
        // t(4, 0.975) = 2.776445; of 1..5 the mean is 3 and the standard error sqrt(2.5 / 5).
        let got = interval(&[1.0, 2.0, 3.0, 4.0, 5.0]).unwrap();
        let half = 2.776445 * (2.5f64 / 5.0).sqrt();
        assert!((got.low - (3.0 - half)).abs() < 1e-5 && (got.high - (3.0 + half)).abs() < 1e-5, "{got:?}");
        assert_eq!(interval(&[1.0]), None);
        assert_eq!(interval(&[2.0, 2.0, 2.0]), None);
    }

    #[test]
    fn skewness_moves_an_interval_and_the_inverse_finds_its_ends() {
        let values = [1.0, 1.2, 1.1, 0.9, 1.3, 5.0];
        let moments = Moments::of(values.iter().copied());
        let got = interval(&values).unwrap();
        let t = t_quantile(5.0, LEVEL);
        assert!((moments.distance(got.low) - t).abs() < 1e-9);
        assert!((moments.distance(got.high) + t).abs() < 1e-9);
        // Something long is seldom seen: the truth may lie far above the mean, and not so far below.
        assert!(got.high - got.estimate > got.estimate - got.low);
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
        // Ten requests lie beyond P99.9 and nine beyond what is asked for next.
        assert!(percentile_interval(&runs, 99.9, 10_000).is_some());
        assert_eq!(percentile_interval(&runs, 99.91, 10_000), None);
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
