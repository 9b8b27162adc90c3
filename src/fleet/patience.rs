//! How long clients wait, and what clients and gateways do about a try that failed.
//!
//! Knows limits, pauses and budgets. Does not know requests.

use rand::RngExt;

use crate::random::{Purpose, Seed};
use crate::request::RequestId;
use crate::time::Span;

/// Pauses between tries.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Backoff {
    /// Before the second try.
    pub first: Span,
    /// Each is so much longer than the one before.
    pub factor: f64,
    /// None is longer.
    pub longest: Span,
    /// Up to this share longer or shorter, by chance.
    pub jitter: f64,
}

/// Which of its limits a client has come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    FirstToken,
    BetweenTokens,
    Whole,
}

impl Default for Backoff {
    fn default() -> Self {
        Backoff { first: Span::ZERO, factor: 2.0, longest: Span::from_s(30), jitter: 0.0 }
    }
}

impl Backoff {
    /// The pause before try `attempt` of a request. Its draw depends on nothing else.
    pub(super) fn before(&self, seed: Seed, id: RequestId, attempt: u32) -> Span {
        let grown = self.first.as_s() * self.factor.powi(attempt as i32 - 1);
        let pause = grown.min(self.longest.as_s());
        if self.jitter == 0.0 || pause == 0.0 {
            return Span::from_s_f64(pause);
        }
        let mut stream = seed.stream(Purpose::Backoff, u64::from(id.0) << 32 | u64::from(attempt));
        let by = 1.0 + self.jitter * (2.0 * stream.random::<f64>() - 1.0);
        Span::from_s_f64(pause * by)
    }
}

/// What a client puts up with.
#[derive(Clone, Copy, Debug, PartialEq, Default)]
pub struct Patience {
    /// From a try's send to its first token.
    pub first_token: Option<Span>,
    /// From one token of a try to the next.
    pub between_tokens: Option<Span>,
    /// From a try's send to its last.
    pub whole: Option<Span>,
    /// Tries after the first.
    pub retries: u32,
    /// Pauses before them.
    pub backoff: Backoff,
    /// Retries of all clients stay below this share of requests sent.
    pub budget: Option<f64>,
}

/// What a gateway does about a try that never began: its replica could not be reached, or died before the first
/// token.
#[derive(Clone, Copy, Debug, PartialEq, Default)]
pub struct Retries {
    /// Tries after the first, each at another replica where there is one.
    pub attempts: u32,
    /// Pauses before them.
    pub backoff: Backoff,
}

impl Patience {
    /// Whether a client may give up.
    pub fn ends(&self) -> bool {
        self.first_token.is_some() || self.between_tokens.is_some() || self.whole.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_up_to_a_limit_and_vary_by_their_jitter() {
        let first = Span::from_ms(50);
        let steady = Backoff { first, factor: 1.5, longest: Span::from_ms(100), jitter: 0.0 };
        let pauses = [1, 2, 3].map(|attempt| steady.before(Seed(1), RequestId(7), attempt));
        assert_eq!(pauses, [first, Span::from_ms(75), Span::from_ms(100)]);
        let wild = Backoff { jitter: 0.2, ..steady };
        let drawn: Vec<_> = (0..200).map(|id| wild.before(Seed(1), RequestId(id), 1).as_s()).collect();
        assert!(drawn.iter().all(|pause| (0.04..=0.06).contains(pause)));
        assert!(drawn.iter().any(|pause| *pause < 0.042) && drawn.iter().any(|pause| *pause > 0.058));
        assert_eq!(wild.before(Seed(1), RequestId(3), 2), wild.before(Seed(1), RequestId(3), 2));
    }
}
