//! `predicted-latency`: TTFT and time per token as a model predicts them that is trained on answers as they come.
//!
//! A composition of [`epp`]: llm-d's `predicted-latency-producer` (`epp/latency.rs`), `slo-headroom-tier-filter` and `latency-scorer`.
//!
//! - Endpoints with both headrooms positive are a tier of their own: only they are scored, but with probability
//!   `exploration_probability` the others.
//! - Without any: those with nothing in flight, else the first that is there of {only TPOT missed, only TTFT missed, both}.
//! - Within the set |headroom| is normalised from min to max for each metric, 0.8 TTFT + 0.2 TPOT; a metric without a range
//!   has no weight. `least` (the tightest fit) wins, or `most` among those with headroom. Equals by chance.
//! - Before the model has seen enough: the greatest of (1 - k + (max q - q) / max q + cached share) / 3.
//!
//! `error_sigma` makes predictions worse: each is multiplied by exp(sigma Z), a median error of 0.67 sigma.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::approximate_prefix::Parameters as Approximate;
use super::epp::filters::FilterPlugin;
use super::epp::latency::{LatencyProducer, Strategy};
use super::epp::scorers::ScorerPlugin;
use super::{PolicyInfo, epp};

/// `[router.parameters]` of this policy.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Parameters {
    /// Objective of every request, milliseconds.
    pub ttft_slo_ms: f64,
    /// Objective of every request, milliseconds a token.
    pub tpot_slo_ms: f64,
    /// Which of those with headroom.
    pub strategy: Strategy,
    /// Weight of TTFT.
    pub ttft_weight: f64,
    /// Weight of TPOT.
    pub tpot_weight: f64,
    /// How often those without headroom are tried.
    pub exploration_probability: f64,
    /// Spread of the logarithm of an error that is put on every prediction.
    pub error_sigma: f64,
    /// How prefixes are believed in.
    pub prefix: Approximate,
}

impl Default for Parameters {
    fn default() -> Self {
        Parameters {
            ttft_slo_ms: 0.0,
            tpot_slo_ms: 0.0,
            strategy: Strategy::Least,
            ttft_weight: 0.8,
            tpot_weight: 0.2,
            exploration_probability: 0.01,
            error_sigma: 0.0,
            prefix: Approximate::default(),
        }
    }
}

impl Parameters {
    /// The same as plugins.
    fn plugins(&self) -> epp::Parameters {
        let exploration_probability = self.exploration_probability;
        let (ttft_weight, tpot_weight, strategy) = (self.ttft_weight, self.tpot_weight, self.strategy);
        epp::Parameters {
            prefix: epp::PrefixProducer::ApproxPrefixCacheProducer { parameters: self.prefix.clone() },
            latency: LatencyProducer {
                ttft_slo_ms: self.ttft_slo_ms,
                tpot_slo_ms: self.tpot_slo_ms,
                error_sigma: self.error_sigma,
            },
            filters: vec![FilterPlugin::SloHeadroomTierFilter { exploration_probability }],
            scorers: vec![ScorerPlugin::LatencyScorer { weight: 1.0, ttft_weight, tpot_weight, strategy }],
            ..epp::Parameters::default()
        }
    }
}

/// The entry of this policy in the list.
pub const INFO: PolicyInfo = PolicyInfo {
    name: "predicted-latency",
    family: "completion time",
    reads: "gauges, own tokens in flight, own belief in prefixes, latencies of answers",
    upstream: "llm-d predicted-latency-producer, slo-headroom-tier-filter and latency-scorer",
    default_freshness: Some(epp::FRESHNESS),
    build: |parameters, seed, gateway| {
        let parameters: Parameters = parameters.clone().try_into()?;
        epp::made(parameters.plugins(), seed, gateway)
    },
};

/// Its `[router.parameters]` as plugins; none if they are not its.
pub(super) fn plugins(parameters: &toml::Table) -> Option<epp::Parameters> {
    let parameters: Parameters = parameters.clone().try_into().ok()?;
    Some(parameters.plugins())
}

#[cfg(test)]
mod tests {
    use crate::request::RequestId;
    use crate::router::latency_model::FEWEST;
    use crate::router::tests::{Scene, policy, prompt};
    use crate::router::{Feedback, Mine, Router};
    use crate::time::Span;

    /// Trains on answers whose TTFT is a tenth of a second for each that waits, and whose tokens take 20 ms.
    fn trained(parameters: &str) -> (Box<dyn Router>, Scene) {
        let mut router = policy("predicted-latency", parameters);
        let mut scene = Scene::of(3);
        for id in 0..2 * FEWEST as u32 {
            for (server, signals) in scene.signals.iter_mut().enumerate() {
                signals.waiting = (id * 7 + server as u32 * 3) % 10;
            }
            let server = scene.commit(&mut *router, &prompt(id, u64::from(id), 10));
            let waits = scene.signals[server].waiting;
            let first = scene.now + Span::from_ms(100 * u64::from(waits));
            let id = RequestId(id);
            router.heard(&Feedback::FirstToken { id, server, at: first });
            let at = first + Span::from_ms(200);
            router.heard(&Feedback::Completed { id, server, at, output_tokens: 11 });
        }
        scene.now += Span::from_s(2);
        scene.mine = vec![Mine { in_flight: 1, ..Default::default() }; 3];
        for (signals, waiting) in scene.signals.iter_mut().zip([5, 2, 8]) {
            signals.waiting = waiting;
        }
        (router, scene)
    }

    #[test]
    fn without_objectives_the_least_predicted_wins_and_idle_ones_before_it() {
        let (mut router, mut scene) = trained("");
        assert_eq!(scene.send(&mut *router, &prompt(900, 900, 10)), 1);
        scene.mine[2].in_flight = 0;
        assert_eq!(scene.send(&mut *router, &prompt(901, 901, 10)), 2);
    }

    /// Predicted 500, 200 and 800 ms against 600: the first fits most tightly, the second leaves most room.
    #[test]
    fn with_objectives_the_tightest_fit_wins() {
        let objectives = "ttft_slo_ms = 600\ntpot_slo_ms = 100\nexploration_probability = 0";
        let (mut router, mut scene) = trained(objectives);
        assert_eq!(scene.send(&mut *router, &prompt(900, 900, 10)), 0);
        let (mut most, mut scene) = trained(&format!("{objectives}\nstrategy = \"most\""));
        assert_eq!(scene.send(&mut *most, &prompt(900, 900, 10)), 1);
    }

    /// (1 - 0.5 + 1 + 0) / 3, (1 - 0 + 0.5) / 3 and (1 - 0.2 + 0) / 3.
    #[test]
    fn before_it_knows_anything_gauges_decide() {
        let mut router = policy("predicted-latency", "");
        let mut scene = Scene::of(3);
        for (signals, (used, waiting)) in scene.signals.iter_mut().zip([(500, 0), (0, 1), (200, 2)]) {
            (signals.kv_blocks_usable, signals.kv_blocks_used, signals.waiting) = (1_000, used, waiting);
        }
        let sent: Vec<_> =
            (0..20).map(|id| scene.send(&mut *router, &prompt(id, u64::from(id), 10))).collect();
        assert!(sent.contains(&0) && sent.contains(&1) && !sent.contains(&2), "{sent:?}");
    }
}
