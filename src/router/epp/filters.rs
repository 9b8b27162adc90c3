//! Filters of the endpoint picker, by llm-d's names, and what each does when nobody is left.

use rand::RngExt;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Endpoint;
use crate::random::{Purpose, Seed, Stream};

fn affinity_threshold() -> f64 {
    0.80
}

fn max_ttft_penalty_ms() -> f64 {
    18_000.0
}

fn peak_prefill_throughput() -> f64 {
    15_928.0
}

fn one() -> f64 {
    1.0
}

/// A filter.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "type", rename_all = "kebab-case", deny_unknown_fields)]
pub enum FilterPlugin {
    /// Keeps those that have most of the prompt cached ("sticky"); all, if nobody has, or if their prompt tokens in flight make
    /// the first token so much later than elsewhere.
    PrefixCacheAffinityFilter {
        /// Share of the prompt that must be cached.
        #[serde(default = "affinity_threshold")]
        affinity_threshold: f64,
        /// How much later the sticky may be.
        #[serde(default = "max_ttft_penalty_ms")]
        max_ttft_penalty_ms: f64,
        /// Prompt tokens a second by which tokens in flight become time: calibrated for Qwen-32B on two H100.
        #[serde(default = "peak_prefill_throughput")]
        peak_prefill_throughput: f64,
        /// How often the filter is passed over.
        #[serde(default)]
        exploration_probability: f64,
    },
    /// Keeps those under these limits. Nobody left: 503, unless `fallback_on_empty`.
    UtilizationFilter {
        /// Waiting requests at most.
        #[serde(default)]
        max_queue_depth: Option<u32>,
        /// KV-cache usage at most, 0 to 1.
        #[serde(default = "one")]
        max_kv_cache_utilization: f64,
        /// Keep all instead of none.
        #[serde(default)]
        fallback_on_empty: bool,
    },
}

/// When a filter is passed over by chance.
#[derive(Clone, Debug)]
pub struct Exploration {
    stream: Stream,
}

impl Exploration {
    pub(super) fn new(seed: Seed, gateway: u64) -> Exploration {
        Exploration { stream: seed.stream(Purpose::Exploration, gateway) }
    }
}

impl FilterPlugin {
    /// What is wrong with its parameters, if anything.
    pub fn problem(&self) -> Option<&'static str> {
        match *self {
            FilterPlugin::PrefixCacheAffinityFilter {
                affinity_threshold,
                max_ttft_penalty_ms,
                peak_prefill_throughput,
                exploration_probability,
            } => {
                if !(0.0..=1.0).contains(&affinity_threshold)
                    || !(0.0..=1.0).contains(&exploration_probability)
                {
                    Some("`affinity_threshold` and `exploration_probability` must be 0 to 1")
                } else if !(max_ttft_penalty_ms >= 0.0 && peak_prefill_throughput > 0.0) {
                    Some("`max_ttft_penalty_ms` must be at least 0, `peak_prefill_throughput` above 0")
                } else {
                    None
                }
            }
            FilterPlugin::UtilizationFilter { max_kv_cache_utilization, .. } => {
                let share = (0.0..=1.0).contains(&max_kv_cache_utilization);
                (!share).then_some("`max_kv_cache_utilization` must be 0 to 1")
            }
        }
    }

    /// Whether it reads scraped gauges.
    pub fn reads_gauges(&self) -> bool {
        matches!(self, FilterPlugin::UtilizationFilter { .. })
    }

    /// Whether it reads what is cached.
    pub fn reads_prefixes(&self) -> bool {
        matches!(self, FilterPlugin::PrefixCacheAffinityFilter { .. })
    }

    /// Those that are asked further.
    pub fn keep(&self, endpoints: Vec<Endpoint>, exploration: &mut Exploration) -> Vec<Endpoint> {
        match *self {
            FilterPlugin::PrefixCacheAffinityFilter {
                affinity_threshold,
                max_ttft_penalty_ms,
                peak_prefill_throughput,
                exploration_probability,
            } => {
                if exploration_probability > 0.0
                    && exploration.stream.random::<f64>() < exploration_probability
                {
                    return endpoints;
                }
                let sticky = |endpoint: &&Endpoint| endpoint.cached_share() >= affinity_threshold;
                let ttft_ms =
                    |endpoint: &Endpoint| endpoint.in_flight_tokens as f64 / peak_prefill_throughput * 1e3;
                let best = |some: &mut dyn Iterator<Item = &Endpoint>| some.map(ttft_ms).reduce(f64::min);
                let Some(best_sticky) = best(&mut endpoints.iter().filter(sticky)) else { return endpoints };
                let best_other = best(&mut endpoints.iter().filter(|endpoint| !sticky(endpoint)));
                if best_other.is_some_and(|other| best_sticky - other > max_ttft_penalty_ms) {
                    return endpoints;
                }
                endpoints.iter().filter(sticky).copied().collect()
            }
            FilterPlugin::UtilizationFilter {
                max_queue_depth,
                max_kv_cache_utilization,
                fallback_on_empty,
            } => {
                let within = |endpoint: &&Endpoint| {
                    max_queue_depth.is_none_or(|most| endpoint.waiting <= most)
                        && endpoint.kv_cache_usage <= max_kv_cache_utilization
                };
                let kept: Vec<Endpoint> = endpoints.iter().filter(within).copied().collect();
                if kept.is_empty() && fallback_on_empty { endpoints } else { kept }
            }
        }
    }
}
