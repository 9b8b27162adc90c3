//! Filters of the endpoint picker, by llm-d's names, and what each does when nobody is left.

use rand::RngExt;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Endpoint, latency};
use crate::random::{Purpose, Seed, Stream};
use crate::router::{Glance, Server};

fn affinity_threshold() -> f64 {
    0.80
}

fn max_ttft_penalty_ms() -> f64 {
    18_000.0
}

fn peak_prefill_throughput() -> f64 {
    15_928.0
}

fn queue_depth_threshold() -> u32 {
    5
}

fn kv_cache_util_threshold() -> f64 {
    0.8
}

fn max_concurrency() -> u32 {
    100
}

fn one() -> f64 {
    1.0
}

fn exploration_probability() -> f64 {
    0.01
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
    /// Keeps those with headroom for both objectives, as the latency producer predicts; all, if nobody has any.
    SloHeadroomTierFilter {
        /// How often the others are kept instead.
        #[serde(default = "exploration_probability")]
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
    /// `utilization-detector` as a filter: keeps those whose max(waiting / threshold, usage / threshold) is below 1; all, if none is.
    UtilizationDetector {
        /// Waiting requests that count as saturated.
        #[serde(default = "queue_depth_threshold")]
        queue_depth_threshold: u32,
        /// KV-cache usage that counts as saturated, 0 to 1.
        #[serde(default = "kv_cache_util_threshold")]
        kv_cache_util_threshold: f64,
    },
    /// `concurrency-detector` as a filter: keeps those with fewer requests in flight by the picker's own count; all, if none has.
    ConcurrencyDetector {
        /// Requests in flight that count as saturated.
        #[serde(default = "max_concurrency")]
        max_concurrency: u32,
    },
    /// Keeps those whose label has one of these values.
    ByLabel {
        /// The label's key.
        label: String,
        /// Values that are kept.
        valid_values: Vec<String>,
        /// Whether those without the label are kept.
        #[serde(default)]
        allows_no_label: bool,
    },
    /// `by-label` of [`ROLE`]: those that decode, or have no role.
    DecodeFilter {},
    /// `by-label` of [`ROLE`]: those that prefill.
    PrefillFilter {},
    /// Keeps the endpoint that had the session last, if it is there; all for others.
    SessionAffinityFilter {},
}

/// The label by which endpoints have roles.
pub const ROLE: &str = "llm-d.ai/role";

/// When a filter is passed over by chance.
#[derive(Clone, Debug)]
pub struct Exploration {
    stream: Stream,
}

impl Exploration {
    pub(super) fn new(seed: Seed, gateway: u64) -> Exploration {
        Exploration { stream: seed.stream(Purpose::Exploration, gateway) }
    }

    /// Whether it is now, if it is so often. What is never passed over draws nothing.
    fn explores(&mut self, probability: f64) -> bool {
        probability > 0.0 && self.stream.random::<f64>() < probability
    }
}

impl FilterPlugin {
    /// What is wrong with its parameters, if anything.
    pub fn problem(&self) -> Option<&'static str> {
        match *self {
            FilterPlugin::DecodeFilter {}
            | FilterPlugin::PrefillFilter {}
            | FilterPlugin::SessionAffinityFilter {} => None,
            FilterPlugin::ByLabel { ref label, ref valid_values, allows_no_label } => {
                let empty = label.is_empty() || valid_values.is_empty() && !allows_no_label;
                empty.then_some("`by-label` needs a `label`, and `valid_values` or `allows_no_label`")
            }
            FilterPlugin::UtilizationDetector { queue_depth_threshold, kv_cache_util_threshold } => {
                let usable = queue_depth_threshold > 0 && (1e-6..=1.0).contains(&kv_cache_util_threshold);
                (!usable).then_some("`queue_depth_threshold` must be at least 1, `kv_cache_util_threshold` above 0 and at most 1")
            }
            FilterPlugin::ConcurrencyDetector { max_concurrency } => {
                (max_concurrency == 0).then_some("`max_concurrency` must be at least 1")
            }
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
            FilterPlugin::SloHeadroomTierFilter { exploration_probability } => {
                let share = (0.0..=1.0).contains(&exploration_probability);
                (!share).then_some("`exploration_probability` must be 0 to 1")
            }
            FilterPlugin::UtilizationFilter { max_kv_cache_utilization, .. } => {
                let share = (0.0..=1.0).contains(&max_kv_cache_utilization);
                (!share).then_some("`max_kv_cache_utilization` must be 0 to 1")
            }
        }
    }

    /// Whether it reads scraped gauges.
    pub fn reads_gauges(&self) -> bool {
        matches!(self, FilterPlugin::UtilizationFilter { .. } | FilterPlugin::UtilizationDetector { .. })
    }

    /// Whether it reads what is cached.
    pub fn reads_prefixes(&self) -> bool {
        matches!(self, FilterPlugin::PrefixCacheAffinityFilter { .. })
    }

    /// Whether it reads predicted latencies.
    pub fn reads_predictions(&self) -> bool {
        matches!(self, FilterPlugin::SloHeadroomTierFilter { .. })
    }

    /// Leaves those that are asked further.
    ///
    /// `session` is who had the request's session last.
    pub fn keep(
        &self,
        endpoints: &mut Vec<Endpoint>,
        exploration: &mut Exploration,
        session: Option<Server>,
        glance: &dyn Glance,
    ) {
        match *self {
            FilterPlugin::UtilizationDetector { queue_depth_threshold, kv_cache_util_threshold } => {
                keep_all_of_none(endpoints, |endpoint| {
                    let queue = f64::from(endpoint.waiting) / f64::from(queue_depth_threshold);
                    queue.max(endpoint.kv_cache_usage / kv_cache_util_threshold) < 1.0
                });
            }
            FilterPlugin::ConcurrencyDetector { max_concurrency } => {
                keep_all_of_none(endpoints, |endpoint| endpoint.in_flight < max_concurrency);
            }
            FilterPlugin::ByLabel { ref label, ref valid_values, allows_no_label } => {
                endpoints.retain(|endpoint| match glance.facts(endpoint.server).label(label) {
                    Some(value) => valid_values.iter().any(|valid| valid == value),
                    None => allows_no_label,
                });
            }
            FilterPlugin::DecodeFilter {} => endpoints.retain(|endpoint| {
                let role = glance.facts(endpoint.server).label(ROLE);
                role.is_none_or(|role| ["decode", "prefill-decode", "both"].contains(&role))
            }),
            FilterPlugin::PrefillFilter {} => endpoints.retain(|endpoint| {
                let role = glance.facts(endpoint.server).label(ROLE);
                role.is_some_and(|role| ["prefill", "prefill-decode", "both"].contains(&role))
            }),
            FilterPlugin::SessionAffinityFilter {} => {
                keep_all_of_none(endpoints, |endpoint| Some(endpoint.server) == session);
            }
            FilterPlugin::PrefixCacheAffinityFilter {
                affinity_threshold,
                max_ttft_penalty_ms,
                peak_prefill_throughput,
                exploration_probability,
            } => {
                if exploration.explores(exploration_probability) {
                    return;
                }
                let sticky = |endpoint: &&Endpoint| endpoint.cached_share() >= affinity_threshold;
                let ttft_ms =
                    |endpoint: &Endpoint| endpoint.in_flight_tokens as f64 / peak_prefill_throughput * 1e3;
                let best = |some: &mut dyn Iterator<Item = &Endpoint>| some.map(ttft_ms).reduce(f64::min);
                let Some(best_sticky) = best(&mut endpoints.iter().filter(sticky)) else { return };
                let best_other = best(&mut endpoints.iter().filter(|endpoint| !sticky(endpoint)));
                if best_other.is_some_and(|other| best_sticky - other > max_ttft_penalty_ms) {
                    return;
                }
                endpoints.retain(|endpoint| sticky(&endpoint));
            }
            FilterPlugin::SloHeadroomTierFilter { exploration_probability } => {
                latency::keep_tier(endpoints, || exploration.explores(exploration_probability));
            }
            FilterPlugin::UtilizationFilter {
                max_queue_depth,
                max_kv_cache_utilization,
                fallback_on_empty,
            } => {
                let within = |endpoint: &Endpoint| {
                    max_queue_depth.is_none_or(|most| endpoint.waiting <= most)
                        && endpoint.kv_cache_usage <= max_kv_cache_utilization
                };
                match fallback_on_empty {
                    true => keep_all_of_none(endpoints, within),
                    false => endpoints.retain(within),
                }
            }
        }
    }
}

/// Leaves those that are good; all, if none is.
fn keep_all_of_none(endpoints: &mut Vec<Endpoint>, good: impl Fn(&Endpoint) -> bool) {
    if endpoints.iter().any(&good) {
        endpoints.retain(good);
    }
}
