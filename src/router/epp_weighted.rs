//! `epp-weighted`: the endpoint picker as it is without a configuration: prefix 3, queue 2, KV usage 2, the greatest sum.
//!
//! A composition of [`epp`]: `prefix-cache-scorer` by the approximate producer, `queue-scorer` (min-max over the endpoints)
//! and `kv-cache-utilization-scorer` by gauges scraped every 50 ms. `[router.parameters]` replace it part by part, so any
//! configuration of filters, scorers and picker can be written; llm-d's "legacy blend" adds `no-hit-lru-scorer` with 2.

use super::{PolicyInfo, epp};

/// The entry of this policy in the list.
pub const INFO: PolicyInfo = PolicyInfo {
    name: "epp-weighted",
    family: "prefix-cache aware",
    reads: "own prefix belief, vllm:num_requests_waiting, vllm:kv_cache_usage_perc",
    upstream: "EPP (llm-d, Gateway API Inference Extension) without configuration",
    default_freshness: Some(epp::FRESHNESS),
    build: |parameters, seed, gateway| epp::build(parameters, epp::Parameters::default(), seed, gateway),
};

#[cfg(test)]
mod tests {
    use crate::router::tests::{Scene, policy, prompt};
    use crate::router::{Decision, Glance};

    /// By hand: queue 2 (8 - q) / 8, KV 2 (1 - k), prefix 3 h / L.
    #[test]
    fn the_weighted_sum_decides() {
        let mut router = policy("epp-weighted", "");
        let mut scene = Scene::of(3);
        // Replica 2 has the text: it is the only one not idle when this was sent.
        for (server, waiting, used) in [(0, 8, 0), (1, 8, 0), (2, 0, 0)] {
            (scene.signals[server].waiting, scene.signals[server].kv_blocks_used) = (waiting, used);
        }
        assert_eq!(scene.commit(&mut *router, &prompt(0, 7, 640)), 2);
        // 2 + 2 + 0 against 0 + 2 (1 - 0.3) + 3: the text wins by 0.4.
        (scene.signals[2].waiting, scene.signals[2].kv_blocks_used) = (8, 300);
        (scene.signals[0].waiting, scene.signals[1].waiting) = (0, 8);
        assert_eq!(scene.send(&mut *router, &prompt(1, 7, 640)), 2);
        // With more of the cache in use 2 (1 - 0.6) + 3 = 3.8 is less than 4.
        scene.signals[2].kv_blocks_used = 600;
        assert_eq!(scene.send(&mut *router, &prompt(2, 7, 640)), 0);
    }

    /// One very common prefix attracts everything while queues are short (llm-d-router#669).
    #[test]
    fn a_hot_prefix_attracts_all() {
        let mut router = policy("epp-weighted", "");
        let mut scene = Scene::of(4);
        let first = scene.commit(&mut *router, &prompt(0, 7, 6_400));
        assert!((1..40).all(|id| scene.commit(&mut *router, &prompt(id, 7, 6_400)) == first));
    }

    #[test]
    fn filters_and_pickers_are_written_in_toml() {
        let mut router = policy(
            "epp-weighted",
            "scorers = [{ type = \"active-request-scorer\" }]\nfilters = [{ type = \"utilization-filter\", max_queue_depth = 3 }]",
        );
        let mut scene = Scene::in_flight(&[5, 1, 9]);
        scene.signals[1].waiting = 4;
        assert_eq!(scene.send(&mut *router, &prompt(0, 7, 64)), 0);
        scene.signals.iter_mut().for_each(|signals| signals.waiting = 4);
        assert_eq!(router.decide(&prompt(1, 7, 64), &mut scene as &mut dyn Glance), Decision::Reject);
    }

    #[test]
    fn a_scorer_may_be_a_script() {
        let scorers =
            |source: &str| format!("scorers = [{{ type = \"script-scorer\", source = \"{source}\" }}]");
        let mut router =
            policy("epp-weighted", &scorers("fn score(request, replica) { 1.0 / (1 + replica.in_flight) }"));
        let mut scene = Scene::in_flight(&[3, 1, 2]);
        assert_eq!(scene.send(&mut *router, &prompt(0, 1, 10)), 1);
        let mut wrong = policy("epp-weighted", &scorers("fn score(request, replica) { replica.nothing }"));
        wrong.decide(&prompt(0, 1, 10), &mut scene);
        assert!(wrong.failure().is_some_and(|failure| failure.starts_with("a script-scorer:1:")));
        let nothing = "scorers = [{ type = \"queue-scorer\", weight = 0 }]".parse().unwrap();
        let refused = crate::router::policies::build("epp-weighted", &nothing, crate::random::Seed(0), 0);
        assert!(refused.err().unwrap().to_string().contains("nothing would be weighed"));
    }

    #[test]
    fn saturated_endpoints_are_passed_over_unless_all_are() {
        let fewest = "scorers = [{ type = \"active-request-scorer\" }]\nfilters = [{ type = \"";
        let mut router = policy("epp-weighted", &format!("{fewest}utilization-detector\" }}]"));
        let mut scene = Scene::in_flight(&[0, 3, 5]);
        // Five waiting are saturated, and so is a cache that is four fifths full.
        scene.signals[0].waiting = 5;
        assert_eq!(scene.send(&mut *router, &prompt(0, 1, 100)), 1);
        scene.signals[1].kv_blocks_used = 800;
        assert_eq!(scene.send(&mut *router, &prompt(1, 1, 100)), 2);
        scene.signals[2].waiting = 9;
        assert_eq!(scene.send(&mut *router, &prompt(2, 1, 100)), 0);
        let most = format!(
            "{fewest}concurrency-detector\", max_concurrency = 4 }}, {{ type = \"decode-filter\" }}]"
        );
        let mut router = policy("epp-weighted", &most);
        let scene = &mut Scene::in_flight(&[9, 3, 4]);
        scene.facts.labels.push(("llm-d.ai/role".into(), "decode".into()));
        assert_eq!(scene.send(&mut *router, &prompt(0, 1, 100)), 1);
        scene.facts.labels[0].1 = "prefill".into();
        assert_eq!(router.decide(&prompt(1, 1, 100), scene), Decision::Reject);
    }
}
