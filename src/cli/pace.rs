//! How fast it went, for stderr: wall time is never part of a result.

use std::time::Instant;

use crate::study::Comparison;

/// A clock on the wall.
pub(super) struct Pace {
    begun: Instant,
}

impl Pace {
    #[expect(clippy::disallowed_methods, reason = "people want to know how long it took; results do not")]
    pub(super) fn begin() -> Pace {
        Pace { begun: Instant::now() }
    }

    /// Rates since the beginning, reading and the measuring of saturation included.
    pub(super) fn told(&self, comparison: &Comparison) -> String {
        let wall_s = self.begun.elapsed().as_secs_f64().max(1e-9);
        let runs = || comparison.ranking.iter().flat_map(|ranked| &ranked.repetitions);
        let requests: u64 = runs().map(|run| run.offered + run.warmup_requests + run.cooldown_requests).sum();
        let steps: u64 = runs().map(|run| run.steps).sum();
        let simulated_s: f64 = runs().map(|run| run.span_s).sum();
        format!(
            "{requests} requests and {steps} engine steps in {wall_s:.2} s: {:.0} requests/s, {:.0} steps/s, {:.0} simulated \
             seconds a second (reading and measuring saturation included)",
            requests as f64 / wall_s,
            steps as f64 / wall_s,
            simulated_s / wall_s,
        )
    }
}
