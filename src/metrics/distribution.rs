//! How a latency is spread over the requests of a run, so that several runs can be set side by side at any percentile.
//!
//! Knows what share of the requests took at most so long. Exact up to a number of requests, at evenly spaced ranks beyond.

use crate::time::Span;

/// Values kept of one run: of more, those at evenly spaced ranks, so that a share is off by at most one part in twice as many.
pub const MOST_POINTS: usize = 1 << 16;

/// A latency over the requests of a run.
#[derive(Clone, Debug, PartialEq, Default)]
pub struct Distribution {
    /// Milliseconds, ascending, to 1 part in 10^7.
    points: Vec<f32>,
    /// Requests that got a whole answer, over all of them: the others took longer than any.
    answered_share: f64,
}

impl Distribution {
    /// Of sorted spans, when `lost` more requests never got a whole answer.
    pub(super) fn of(sorted: &[Span], lost: u64) -> Distribution {
        let kept = sorted.len().min(MOST_POINTS);
        // The middle of each of `kept` equal stretches of ranks.
        let at = |place: usize| sorted[((2 * place + 1) * sorted.len()) / (2 * kept)].as_ms() as f32;
        Distribution {
            points: (0..kept).map(at).collect(),
            answered_share: sorted.len() as f64 / (sorted.len() as u64 + lost).max(1) as f64,
        }
    }

    /// Share of all requests that took at most so long.
    pub fn share_within(&self, ms: f64) -> f64 {
        let within = self.points.partition_point(|point| f64::from(*point) <= ms);
        within as f64 / self.points.len().max(1) as f64 * self.answered_share
    }

    /// The longest that was kept, milliseconds; none without an answer.
    pub fn longest_ms(&self) -> Option<f64> {
        self.points.last().map(|point| f64::from(*point))
    }
}

/// The latencies of a run.
#[derive(Clone, Debug, PartialEq, Default)]
pub struct Distributions {
    /// End to end; requests without a whole answer count as infinite.
    pub e2e: Distribution,
    /// Time to first token, of whole answers.
    pub ttft: Distribution,
    /// Time per output token after the first, of whole answers.
    pub tpot: Distribution,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_count_what_was_lost() {
        let sorted: Vec<Span> = (1..=90).map(Span::from_ms).collect();
        let distribution = Distribution::of(&sorted, 10);
        assert_eq!(distribution.share_within(0.5), 0.0);
        assert!((distribution.share_within(45.0) - 0.45).abs() < 1e-12);
        assert!((distribution.share_within(1e9) - 0.9).abs() < 1e-12);
        assert_eq!(distribution.longest_ms(), Some(90.0));
        assert_eq!(Distribution::of(&[], 3).share_within(1.0), 0.0);
    }

    #[test]
    fn many_values_are_thinned_evenly() {
        let sorted: Vec<Span> = (0..1_000_003).map(Span::from_us).collect();
        let distribution = Distribution::of(&sorted, 0);
        for share in [0.001, 0.5, 0.99, 0.9999] {
            let got = distribution.share_within(share * 1_000.003);
            assert!((got - share).abs() <= 1.0 / MOST_POINTS as f64, "{share}: {got}");
        }
    }
}
