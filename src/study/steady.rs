//! Where a run's steady state begins, and whether it has one.
//!
//! MSER-5 (White, Cobb and Spratt, WSC 2000): of the means of five requests in a row, as many are left out from the
//! beginning as make the squared standard error of the others least. Does not know contenders.

use crate::request::Outcome;
use crate::time::{Span, Time};

/// Requests of a mean.
const BATCH: usize = 5;
/// Fewer means than this say nothing.
const FEWEST: usize = 20;

/// How a run begins.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Beginning {
    /// When its steady state begins.
    pub warmup: Span,
    /// Whether the rule would leave out the most it may, half of the run: then there is no steady state.
    pub never_steady: bool,
}

/// The end of the warm-up by the end-to-end latencies of completed requests; nothing is left out of a run that is too
/// short.
pub fn beginning(outcomes: &[Outcome]) -> Beginning {
    let mut sent: Vec<(Time, f64)> =
        outcomes.iter().filter_map(|outcome| Some((outcome.sent, outcome.e2e()?.as_s()))).collect();
    sent.sort_by_key(|(at, _)| *at);
    let means: Vec<f64> = sent
        .chunks_exact(BATCH)
        .map(|batch| batch.iter().map(|(_, latency)| latency).sum::<f64>() / BATCH as f64)
        .collect();
    let Some((left_out, most)) = mser(&means) else {
        return Beginning { warmup: Span::ZERO, never_steady: false };
    };
    let first = sent[left_out * BATCH].0;
    Beginning {
        warmup: if left_out == 0 { Span::ZERO } else { first - Time::ZERO },
        never_steady: left_out == most,
    }
}

/// How many means to leave out, and the most that may be.
fn mser(means: &[f64]) -> Option<(usize, usize)> {
    if means.len() < FEWEST {
        return None;
    }
    let most = means.len() / 2;
    let (mut count, mut sum, mut squares) = (0.0, 0.0, 0.0);
    let mut best = (f64::INFINITY, 0);
    for (index, mean) in means.iter().enumerate().rev() {
        count += 1.0;
        sum += mean;
        squares += mean * mean;
        let error = (squares - sum * sum / count) / (count * count);
        // Of equals the earliest: nothing is left out without a reason.
        if index <= most && error <= best.0 {
            best = (error, index);
        }
    }
    Some((best.1, most))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_start_that_differs_is_left_out() {
        // Thirty means that fall from 10 to 1, then noise around 1.
        let noise = |index: usize| 0.05 * ((index * 7_919 % 101) as f64 / 50.0 - 1.0);
        let means: Vec<f64> = (0..400)
            .map(|index| if index < 30 { 10.0 - 0.3 * index as f64 } else { 1.0 } + noise(index))
            .collect();
        let (left_out, most) = mser(&means).unwrap();
        assert!((28..=34).contains(&left_out) && most == 200, "{left_out}");
        let flat: Vec<f64> = (0..400).map(noise).collect();
        assert!(mser(&flat).unwrap().0 < 20);
        // What grows to the end has no steady state.
        let growing: Vec<f64> = (0..400).map(|index| index as f64).collect();
        assert_eq!(mser(&growing), Some((200, 200)));
        assert_eq!(mser(&flat[..10]), None);
    }
}
