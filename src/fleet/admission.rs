//! What a gateway lets in, before any policy is asked: a token bucket, limits of what is out, and a queue.
//!
//! Knows counts of its own gateway. Does not know replicas' gauges: [`super::saturation`] does. Who is over a limit is answered at once, 429 by the bucket and 503 by a limit, unless there is a
//! queue: then it waits, and is bound to a replica when there is one.

use super::saturation::Saturation;
use crate::time::{Span, Time};

/// Limits of one gateway.
#[derive(Clone, Copy, Debug, PartialEq, Default)]
pub struct Admission {
    /// Requests a second that the bucket is filled with.
    pub rate_per_s: Option<f64>,
    /// Requests that a full bucket holds.
    pub burst: f64,
    /// Requests out at any one replica: one that has so many is no candidate, as behind Envoy's circuit breaker.
    pub most_per_replica: Option<u32>,
    /// Requests out in all.
    pub most_in_flight: Option<u32>,
    /// Where those wait who find no replica.
    pub queue: Option<Queue>,
    /// Who says whether the fleet is saturated.
    pub saturation: Option<Saturation>,
}

/// A gateway's queue, as flow control of llm-d's EPP and Knative's activator have it: sooner who is of a more urgent
/// priority (vLLM's: less is sooner), then in order of arrival.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Queue {
    /// Whoever finds so many waiting is answered 429.
    pub max_requests: u32,
    /// Whoever has waited so long is answered 503.
    pub ttl: Span,
    /// Of equal priority, classes take turns, as with round-robin fairness of llm-d's flow control; else the first goes first.
    pub classes_take_turns: bool,
}

/// A bucket that is full at the start.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bucket {
    tokens: f64,
    filled_at: Time,
}

impl Bucket {
    pub(super) fn new(admission: &Admission) -> Bucket {
        Bucket { tokens: admission.burst, filled_at: Time::ZERO }
    }

    /// Takes a token, if there is one.
    pub(super) fn take(&mut self, now: Time, admission: &Admission) -> bool {
        let Some(rate_per_s) = admission.rate_per_s else { return true };
        let filled = (now - self.filled_at).as_s() * rate_per_s;
        self.tokens = (self.tokens + filled).min(admission.burst);
        self.filled_at = now;
        if self.tokens < 1.0 {
            return false;
        }
        self.tokens -= 1.0;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_lets_a_burst_in_and_then_its_rate() {
        let admission = Admission { rate_per_s: Some(2.0), burst: 3.0, ..Admission::default() };
        let mut bucket = Bucket::new(&admission);
        let at = |ms| Time::ZERO + Span::from_ms(ms);
        let taken: Vec<bool> = [0, 0, 0, 0, 400, 500, 500, 1_000, 9_000, 9_000, 9_000, 9_000]
            .map(|ms| bucket.take(at(ms), &admission))
            .into();
        let expected = [true, true, true, false, false, true, false, true, true, true, true, false];
        assert_eq!(taken, expected);
    }
}
