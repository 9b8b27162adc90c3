//! Whether a fleet is saturated, as one gateway sees it, and who is let in all the same.
//!
//! Knows llm-d's `utilization-detector` (per replica the larger of its queue and its KV usage, each over a threshold; the mean of
//! replicas; gauges that are missing or stale count as 1, so that it fails closed) and `probabilistic-admitter`. Does not know
//! policies: it is asked before them.

use rand::RngExt;

use super::{Fleet, Gateway};
use crate::observe::Observer;
use crate::random::Purpose;
use crate::request::{Finish, Request};
use crate::router::{Candidates, Freshness};
use crate::signals::Glimpse;
use crate::time::{Span, Time};

/// A detector of saturation.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Saturation {
    /// Requests waiting at a replica that make it saturated.
    pub queue_depth: f64,
    /// Share of KV blocks used that does.
    pub kv_cache_usage: f64,
    /// Gauges older than this are those of a saturated replica.
    pub staleness: Span,
    /// Requests that can wait are refused before the fleet is saturated, ever more of them.
    pub probabilistic: bool,
}

impl Saturation {
    /// Of one replica; 1 is saturated.
    fn of(&self, glimpse: Glimpse, now: Time) -> f64 {
        if now.saturating_since(glimpse.taken_at) > self.staleness || glimpse.signals.kv_blocks_usable == 0 {
            return 1.0;
        }
        let signals = glimpse.signals;
        (f64::from(signals.waiting) / self.queue_depth).max(signals.kv_cache_usage() / self.kv_cache_usage)
    }

    /// The share of requests that can wait that is refused at this saturation (llm-d-router's probabilistic admitter).
    fn share_refused(saturation: f64) -> f64 {
        (300.0 * saturation.powi(5)).min(1.0)
    }
}

/// Why a request is not decided about now.
pub(super) struct Refusal {
    pub(super) finish: Finish,
    /// It may wait instead, where there is a queue.
    pub(super) may_wait: bool,
}

impl<O: Observer + Send> Fleet<O> {
    /// Whether a gateway cannot, or will not, decide about a request now.
    pub(super) fn refusal(
        &mut self,
        gateway: usize,
        candidates: &Candidates,
        request: &Request,
    ) -> Option<Refusal> {
        let admission = self.config.admission;
        let most = admission.most_in_flight.unwrap_or(u32::MAX);
        if candidates.is_empty() || self.gateways[gateway].in_flight >= most {
            return Some(Refusal { finish: Finish::Unavailable, may_wait: true });
        }
        let detector = admission.saturation?;
        let saturation = self.saturation(gateway, candidates, &detector);
        // vLLM's priorities: whoever is less urgent than usual can wait, as those of a negative priority can in llm-d.
        let can_wait = request.priority > 0;
        if detector.probabilistic && can_wait {
            let index = u64::from(request.id.0) << 32 | u64::from(request.attempt);
            let draw: f64 = self.config.seed.stream(Purpose::Shedding, index).random();
            if draw < Saturation::share_refused(saturation) {
                return Some(Refusal { finish: Finish::Refused, may_wait: false });
            }
        }
        let refused = saturation >= 1.0 && (can_wait || admission.queue.is_some());
        refused.then_some(Refusal { finish: Finish::Refused, may_wait: true })
    }

    /// The mean over those who may be chosen.
    fn saturation(&mut self, gateway: usize, candidates: &Candidates, detector: &Saturation) -> f64 {
        let now = self.now;
        let Gateway { view, .. } = &self.gateways[gateway];
        let of = |server: usize| match view.freshness() {
            Freshness::Polled { .. } => detector.of(view.last_report(server), now),
            Freshness::Fresh => {
                let lane = &mut self.lanes[server];
                lane.advance(now);
                match lane.answers() {
                    true => detector.of(Glimpse { signals: lane.replica.signals(), taken_at: now }, now),
                    false => 1.0,
                }
            }
        };
        candidates.iter().map(of).sum::<f64>() / candidates.len() as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::signals::Signals;

    #[test]
    fn the_larger_of_queue_and_kv_counts_and_stale_gauges_are_full() {
        let detector = Saturation {
            queue_depth: 5.0,
            kv_cache_usage: 0.8,
            staleness: Span::from_ms(200),
            probabilistic: false,
        };
        let at = |ms| Time::ZERO + Span::from_ms(ms);
        let glimpse = |waiting, kv_blocks_used| Glimpse {
            signals: Signals { waiting, kv_blocks_used, kv_blocks_usable: 100, ..Signals::default() },
            taken_at: at(1_000),
        };
        assert_eq!(detector.of(glimpse(4, 40), at(1_000)), 0.8);
        assert_eq!(detector.of(glimpse(1, 40), at(1_200)), 0.5);
        assert_eq!(detector.of(glimpse(0, 0), at(1_201)), 1.0);
        assert_eq!(detector.of(Glimpse::default(), at(0)), 1.0, "nothing was ever read");
        // 2.3 % at 0.15, all at about 0.34.
        assert!((Saturation::share_refused(0.15) - 0.0228).abs() < 1e-4);
        assert_eq!(Saturation::share_refused(0.35), 1.0);
    }
}
