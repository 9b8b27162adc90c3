//! `sticky-until-saturated`: stay with the cached prefix until its replica is 18 s of prompts behind the others.
//!
//! A composition of [`epp`], llm-d's optimized baseline since August 2026: `prefix-cache-affinity-filter` (0.80 of the prompt,
//! released when the sticky replica's prompt tokens in flight take 18 s longer than another's at 15,928 tokens/s), then
//! `token-load-scorer` and the greatest score. The variant for traffic bound by decodes scores with `active-request-scorer`.

use super::epp::Parameters;
use super::epp::filters::FilterPlugin;
use super::epp::scorers::ScorerPlugin;
use super::{PolicyInfo, epp};

/// The entry of this policy in the list.
pub const INFO: PolicyInfo = PolicyInfo {
    name: "sticky-until-saturated",
    family: "prefix-cache aware",
    reads: "own prefix belief, own prompt tokens in flight",
    upstream: "llm-d optimized baseline",
    default_freshness: Some(epp::FRESHNESS),
    build: |parameters, seed, gateway| epp::build(parameters, defaults(), seed, gateway),
};

/// What the picker does unless `[router.parameters]` say otherwise.
pub(super) fn defaults() -> Parameters {
    let filter = FilterPlugin::PrefixCacheAffinityFilter {
        affinity_threshold: 0.80,
        max_ttft_penalty_ms: 18_000.0,
        peak_prefill_throughput: 15_928.0,
        exploration_probability: 0.0,
    };
    Parameters {
        filters: vec![filter],
        scorers: vec![ScorerPlugin::TokenLoadScorer { weight: 1.0 }],
        ..Parameters::default()
    }
}

#[cfg(test)]
mod tests {
    use crate::router::tests::{Scene, policy, prompt};

    /// 18 s at 15,928 tokens/s are 286,704 tokens: so many more in flight, and the prefix is let go.
    #[test]
    fn it_sticks_until_the_others_are_so_much_sooner() {
        let mut router = policy("sticky-until-saturated", "");
        let mut scene = Scene::of(2);
        let home = scene.commit(&mut *router, &prompt(0, 7, 6_400));
        // 6,400 of the first; then a text of its own in front of every tenth token: 1,600 more each, 4/5 cached.
        let turn = |id: u32| {
            use crate::request::{Content, ContentRun};
            let runs = [(7, 6_400), (1_000 + u64::from(id), 1_600)];
            let content =
                Content::from_runs(runs.map(|(stream, tokens)| ContentRun { stream, position: 0, tokens }));
            crate::request::Arrival { content, ..prompt(id, 7, 8_000) }
        };
        let at_home = (1..400).take_while(|&id| scene.commit(&mut *router, &turn(id)) == home).count();
        // 6,400 + 1,600 n > 286,704 from n = 176 on, which the decision of the next one sees.
        assert_eq!(at_home, 176);
    }
}
