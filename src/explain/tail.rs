//! What the slowest hundredth is made of, beside the typical ones.

use super::Explained;
use super::parts::{Part, Parts};
use crate::request::Outcome;
use crate::time::Span;

/// Mean parts of some requests.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Composition {
    /// How many requests.
    pub requests: usize,
    /// Mean of each part, in the order of [`Part::ALL`], milliseconds.
    pub parts_ms: [f64; Part::ALL.len()],
    /// Mean latency, milliseconds.
    pub total_ms: f64,
    /// Mean prompt length.
    pub prompt_tokens: f64,
    /// Mean output length.
    pub output_tokens: f64,
}

impl Composition {
    fn of(requests: &[(Span, Parts, &Outcome)]) -> Composition {
        let mut sum = [0i128; Part::ALL.len()];
        for (_, parts, _) in requests {
            for (sum, part) in sum.iter_mut().zip(Part::ALL) {
                *sum += i128::from(parts[part]);
            }
        }
        let count = requests.len().max(1) as f64;
        let mean_ms = |sum: i128| sum as f64 / 1e9 / count;
        let mean_tokens = |of: fn(&Outcome) -> u32| {
            requests.iter().map(|(_, _, outcome)| f64::from(of(outcome))).sum::<f64>() / count
        };
        Composition {
            requests: requests.len(),
            parts_ms: sum.map(mean_ms),
            total_ms: mean_ms(sum.iter().sum()),
            prompt_tokens: mean_tokens(|outcome| outcome.prompt_tokens),
            output_tokens: mean_tokens(Outcome::output_tokens),
        }
    }
}

/// The tail of a latency and what it is made of.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Tail {
    /// All requests.
    pub all: Composition,
    /// Those from the 40th to the 60th percentile.
    pub typical: Composition,
    /// The slowest hundredth, at least one.
    pub slowest: Composition,
    /// The shortest latency among the slowest, milliseconds.
    pub from_ms: f64,
}

impl Tail {
    /// Of these requests, by a latency and its parts; none if there are no requests.
    pub(super) fn of(
        requests: &[Explained],
        latency: fn(&Outcome) -> Option<Span>,
        parts: fn(&Explained) -> Parts,
    ) -> Option<Tail> {
        let mut sorted: Vec<(Span, Parts, &Outcome)> = requests
            .iter()
            .filter_map(|request| Some((latency(&request.outcome)?, parts(request), &request.outcome)))
            .collect();
        sorted.sort_by_key(|(latency, _, outcome)| (*latency, outcome.attempt));
        let count = sorted.len();
        let slowest = &sorted[count - count.div_ceil(100)..];
        // Of few requests the one in the middle.
        let middle = count * 2 / 5..(count * 3 / 5).max(count * 2 / 5 + 1);
        Some(Tail {
            from_ms: slowest.first()?.0.as_ms(),
            all: Composition::of(&sorted),
            typical: Composition::of(&sorted[middle]),
            slowest: Composition::of(slowest),
        })
    }

    /// What the slowest take longer than typical ones, milliseconds.
    pub fn excess_ms(&self) -> f64 {
        self.slowest.total_ms - self.typical.total_ms
    }

    /// What of that is due to a part, milliseconds.
    pub fn excess_of_ms(&self, part: Part) -> f64 {
        self.slowest.parts_ms[part as usize] - self.typical.parts_ms[part as usize]
    }
}
