//! `epp-precise`: the endpoint picker with an index of the engines' KV events: prefix 2, KV usage 1, queue 1.
//!
//! A composition of [`epp`]: llm-d's precise prefix sample (`precise-prefix-cache-producer`). What the index says is true to
//! the block, as late as KV events are (`router.view.kv_event_delay_ms`). What was decided and has not been computed is not in
//! it, unless `prefix.speculative_ttl_s` is set (llm-d: 2 s).

use super::epp::scorers::ScorerPlugin;
use super::epp::{Parameters, PrefixProducer};
use super::{PolicyInfo, epp};

/// The entry of this policy in the list.
pub const INFO: PolicyInfo = PolicyInfo {
    name: "epp-precise",
    family: "prefix-cache aware",
    reads: "KV events, vllm:num_requests_waiting, vllm:kv_cache_usage_perc",
    upstream: "llm-d precise prefix sample, KServe (prefix 3, queue 2, kv 2, active-request 3)",
    default_freshness: Some(epp::FRESHNESS),
    build: |parameters, seed, gateway| epp::build(parameters, defaults(), seed, gateway),
};

/// What the picker does unless `[router.parameters]` say otherwise.
pub(super) fn defaults() -> Parameters {
    Parameters {
        prefix: PrefixProducer::PrecisePrefixCacheProducer { speculative_ttl_s: 0.0 },
        scorers: vec![
            ScorerPlugin::PrefixCacheScorer { weight: 2.0, absolute_weight: 0.0 },
            ScorerPlugin::KvCacheUtilizationScorer { weight: 1.0 },
            ScorerPlugin::QueueScorer { weight: 1.0 },
        ],
        ..Parameters::default()
    }
}

#[cfg(test)]
mod tests {
    use crate::router::tests::{Scene, policy, prompt};

    #[test]
    fn the_index_is_believed_until_queues_say_more() {
        let mut router = policy("epp-precise", "");
        let mut scene = Scene::of(3);
        // 2 * 0.5 + 1 + 1 against 1 + 1.
        scene.cached = vec![0, 320, 0];
        assert_eq!(scene.send(&mut *router, &prompt(0, 7, 640)), 1);
        // 1 + 0.5 + 0 against 0 + 1 + 1.
        (scene.signals[1].waiting, scene.signals[1].kv_blocks_used) = (4, 500);
        assert_ne!(scene.send(&mut *router, &prompt(1, 7, 640)), 1);
    }

    /// A burst before the first has been computed is spread, unless decisions are believed at once.
    #[test]
    fn speculation_bridges_until_events_come() {
        let spread = |parameters: &str| {
            let mut router = policy("epp-precise", parameters);
            let mut scene = Scene::of(4);
            let mut sent: Vec<_> =
                (0..12).map(|id| scene.commit(&mut *router, &prompt(id, 7, 640))).collect();
            sent.sort_unstable();
            sent.dedup();
            sent.len()
        };
        assert!(spread("") > 1);
        assert_eq!(
            spread("prefix = { type = \"precise-prefix-cache-producer\", speculative_ttl_s = 2.0 }"),
            1
        );
    }
}
