//! Scorers of the endpoint picker, by llm-d's names: 0 is bad, 1 is good.

use rustc_hash::FxHashMap;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::latency::{self, Strategy};
use super::{Endpoint, context_length};
use crate::request::Arrival;
use crate::router::least_tokens::SCALE_TOKENS;
use crate::router::scripting::Constants;
use crate::router::{Glance, Server};
use crate::time::{Span, Time};

/// Waiting requests at which `load-aware-scorer` gives nothing.
const LOAD_AWARE_QUEUE: f64 = 128.0;
/// Tokens of which `prefix-cache-scorer` counts a hit as whole, by its absolute part.
const ABSOLUTE_TOKENS: f64 = 8_192.0;
/// How long `session-affinity-scorer` remembers.
const SESSION_TTL: Span = Span::from_s(300);

fn one() -> f64 {
    1.0
}

fn ttft_weight() -> f64 {
    0.8
}

fn tpot_weight() -> f64 {
    0.2
}

fn range_label() -> String {
    context_length::LABEL.into()
}

/// A scorer and its weight.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "type", rename_all = "kebab-case", deny_unknown_fields)]
pub enum ScorerPlugin {
    /// (max q - q) / (max q - min q) of waiting requests; all equal: 1.
    QueueScorer {
        /// Times this.
        #[serde(default = "one")]
        weight: f64,
    },
    /// The same of running requests.
    RunningRequestsSizeScorer {
        /// Times this.
        #[serde(default = "one")]
        weight: f64,
    },
    /// 1 - KV-cache usage.
    KvCacheUtilizationScorer {
        /// Times this.
        #[serde(default = "one")]
        weight: f64,
    },
    /// Nothing waits: 0.5, falling to 0 at 128.
    LoadAwareScorer {
        /// Times this.
        #[serde(default = "one")]
        weight: f64,
    },
    /// In flight by own count: up to `idle_threshold` 1, else (max f - f) / max f * `max_busy_score`.
    ActiveRequestScorer {
        /// Times this.
        #[serde(default = "one")]
        weight: f64,
        /// So many count as idle.
        #[serde(default)]
        idle_threshold: u32,
        /// What the least busy of the busy could get.
        #[serde(default = "one")]
        max_busy_score: f64,
    },
    /// 1 - min(1, (T + u) / 4,194,304): uncached prompt tokens in flight and this request's own.
    TokenLoadScorer {
        /// Times this.
        #[serde(default = "one")]
        weight: f64,
    },
    /// The share of the prompt's blocks that is cached, or in part (h / 8192)^2.
    PrefixCacheScorer {
        /// Times this.
        #[serde(default = "one")]
        weight: f64,
        /// Share of the absolute part.
        #[serde(default)]
        absolute_weight: f64,
    },
    /// A request with a hit anywhere: 0.5 for all. Else by who was longest not sent one without.
    NoHitLruScorer {
        /// Times this.
        #[serde(default = "one")]
        weight: f64,
    },
    /// 1 for the endpoint that had the session last.
    SessionAffinityScorer {
        /// Times this.
        #[serde(default = "one")]
        weight: f64,
    },
    /// By the range of tokens that an endpoint's label says it is for; see `context_length`.
    ContextLengthAware {
        /// Times this.
        #[serde(default = "one")]
        weight: f64,
        /// The label.
        #[serde(default = "range_label")]
        label: String,
        /// Whether those whose range does not hold the prompt are left out.
        #[serde(default)]
        enable_filtering: bool,
    },
    /// By headroom under objectives, as the latency producer predicts; see `latency`.
    LatencyScorer {
        /// Times this.
        #[serde(default = "one")]
        weight: f64,
        /// Weight of TTFT.
        #[serde(default = "ttft_weight")]
        ttft_weight: f64,
        /// Weight of TPOT.
        #[serde(default = "tpot_weight")]
        tpot_weight: f64,
        /// Which of those with headroom.
        #[serde(default)]
        strategy: Strategy,
    },
    /// One of your own: `fn score(request, replica)` of a Rhai script, 0 to 1.
    ScriptScorer {
        /// Times this.
        #[serde(default = "one")]
        weight: f64,
        /// The script, relative to the scenario.
        #[serde(default)]
        file: String,
        /// Its text, in place of a file.
        #[serde(default)]
        source: String,
        /// Values of constants that it has, by name.
        #[serde(default, skip_serializing_if = "Constants::is_empty")]
        constants: Constants,
    },
}

/// Which endpoints were sent requests without a hit, and when.
#[derive(Clone, Debug, Default)]
pub struct ColdRoutes {
    /// The how-manieth cold request was the last one there; 0 is never.
    last: Vec<u64>,
    count: u64,
}

impl ColdRoutes {
    pub(super) fn routed(&mut self, server: Server, cold: bool) {
        if self.last.len() <= server {
            self.last.resize(server + 1, 0);
        }
        if cold {
            self.count += 1;
            self.last[server] = self.count;
        }
    }
}

/// Who had which session last.
#[derive(Clone, Debug, Default)]
pub struct SessionServers {
    last: FxHashMap<u64, (Server, Time)>,
}

impl SessionServers {
    pub(super) fn routed(&mut self, arrival: &Arrival, server: Server, at: Time) {
        if let Some(session) = arrival.session {
            self.last.insert(session, (server, at));
        }
    }

    pub(super) fn of(&self, arrival: &Arrival, now: Time) -> Option<Server> {
        let (server, at) = self.last.get(&arrival.session?)?;
        (now.saturating_since(*at) <= SESSION_TTL).then_some(*server)
    }
}

/// What a picker knows beside its endpoints.
#[derive(Clone, Copy)]
pub struct Known<'a> {
    /// Who was sent requests without a hit.
    pub cold_routes: &'a ColdRoutes,
    /// Who had which session.
    pub sessions: &'a SessionServers,
    /// The moment of the decision.
    pub now: Time,
    /// Labels.
    pub glance: &'a dyn Glance,
}

impl ScorerPlugin {
    /// Its weight.
    pub fn weight(&self) -> f64 {
        match *self {
            ScorerPlugin::QueueScorer { weight }
            | ScorerPlugin::RunningRequestsSizeScorer { weight }
            | ScorerPlugin::KvCacheUtilizationScorer { weight }
            | ScorerPlugin::LoadAwareScorer { weight }
            | ScorerPlugin::ActiveRequestScorer { weight, .. }
            | ScorerPlugin::TokenLoadScorer { weight }
            | ScorerPlugin::PrefixCacheScorer { weight, .. }
            | ScorerPlugin::NoHitLruScorer { weight }
            | ScorerPlugin::SessionAffinityScorer { weight }
            | ScorerPlugin::ContextLengthAware { weight, .. }
            | ScorerPlugin::LatencyScorer { weight, .. }
            | ScorerPlugin::ScriptScorer { weight, .. } => weight,
        }
    }

    /// What is wrong with its parameters, if anything.
    pub fn problem(&self) -> Option<&'static str> {
        let usable = |value: f64| value >= 0.0 && value.is_finite();
        match *self {
            _ if !usable(self.weight()) => Some("the `weight` of a scorer must be at least 0"),
            ScorerPlugin::ActiveRequestScorer { max_busy_score, .. }
                if !(0.0..=1.0).contains(&max_busy_score) =>
            {
                Some("`max_busy_score` must be 0 to 1")
            }
            ScorerPlugin::PrefixCacheScorer { absolute_weight, .. }
                if !(0.0..=1.0).contains(&absolute_weight) =>
            {
                Some("`absolute_weight` must be 0 to 1")
            }
            ScorerPlugin::LatencyScorer { ttft_weight, tpot_weight, .. } => {
                let usable = [ttft_weight, tpot_weight].iter().all(|weight| (0.0..=1e9).contains(weight));
                match ttft_weight + tpot_weight {
                    _ if !usable => Some("`ttft_weight` and `tpot_weight` must be 0 to 1e9"),
                    0.0 => Some("`ttft_weight` and `tpot_weight` are both 0, so nothing would be weighed"),
                    _ => None,
                }
            }
            _ => None,
        }
    }

    /// Whether it reads scraped gauges.
    pub fn reads_gauges(&self) -> bool {
        matches!(
            self,
            ScorerPlugin::QueueScorer { .. }
                | ScorerPlugin::RunningRequestsSizeScorer { .. }
                | ScorerPlugin::KvCacheUtilizationScorer { .. }
                | ScorerPlugin::LoadAwareScorer { .. }
        )
    }

    /// Whether it reads what is cached.
    pub fn reads_prefixes(&self) -> bool {
        matches!(
            self,
            ScorerPlugin::TokenLoadScorer { .. }
                | ScorerPlugin::PrefixCacheScorer { .. }
                | ScorerPlugin::NoHitLruScorer { .. }
        )
    }

    /// Whether it reads predicted latencies.
    pub fn reads_predictions(&self) -> bool {
        matches!(self, ScorerPlugin::LatencyScorer { .. })
    }

    /// Leaves out who does not take a request, where the scorer is a filter too.
    pub fn leave_out(&self, arrival: &Arrival, endpoints: &mut Vec<Endpoint>, glance: &dyn Glance) {
        if let ScorerPlugin::ContextLengthAware { label, enable_filtering: true, .. } = self {
            let takes = |server| context_length::takes(label, arrival.prompt_tokens, server, glance);
            endpoints.retain(|endpoint| takes(endpoint.server));
        }
    }

    /// A score for each endpoint, into `scores`.
    pub fn score(&self, arrival: &Arrival, endpoints: &[Endpoint], known: &Known<'_>, scores: &mut Vec<f64>) {
        let Known { cold_routes, sessions, now, glance } = *known;
        scores.clear();
        let mut each = |score: &dyn Fn(&Endpoint) -> f64| scores.extend(endpoints.iter().map(score));
        match *self {
            ScorerPlugin::QueueScorer { .. } => fewest(endpoints, |endpoint| endpoint.waiting, scores),
            ScorerPlugin::RunningRequestsSizeScorer { .. } => {
                fewest(endpoints, |endpoint| endpoint.running, scores);
            }
            ScorerPlugin::KvCacheUtilizationScorer { .. } => each(&|endpoint| 1.0 - endpoint.kv_cache_usage),
            ScorerPlugin::LoadAwareScorer { .. } => {
                each(&|endpoint| 0.5 * (1.0 - f64::from(endpoint.waiting) / LOAD_AWARE_QUEUE).max(0.0))
            }
            ScorerPlugin::ActiveRequestScorer { idle_threshold, max_busy_score, .. } => {
                let most = endpoints.iter().map(|endpoint| endpoint.in_flight).max().unwrap_or(0);
                each(&|endpoint| match endpoint.in_flight {
                    few if few <= idle_threshold => 1.0,
                    many => f64::from(most - many) / f64::from(most) * max_busy_score,
                })
            }
            ScorerPlugin::TokenLoadScorer { .. } => each(&|endpoint| {
                let own = u64::from(arrival.prompt_tokens - endpoint.cached_tokens);
                1.0 - ((endpoint.in_flight_tokens + own) as f64 / SCALE_TOKENS).min(1.0)
            }),
            ScorerPlugin::PrefixCacheScorer { absolute_weight, .. } => each(&|endpoint| {
                let (cached, share) = (f64::from(endpoint.cached_tokens), endpoint.cached_share());
                absolute_weight * (cached / ABSOLUTE_TOKENS).min(1.0).powi(2)
                    + (1.0 - absolute_weight) * share
            }),
            ScorerPlugin::NoHitLruScorer { .. } => {
                if endpoints.iter().any(|endpoint| endpoint.cached_tokens > 0) {
                    return each(&|_| 0.5);
                }
                let last = |endpoint: &Endpoint| cold_routes.last.get(endpoint.server).copied().unwrap_or(0);
                let rank = |endpoint: &Endpoint| match last(endpoint) {
                    0 => 0,
                    own => 1 + endpoints.iter().filter(|other| last(other) > 0 && last(other) < own).count(),
                };
                let most = endpoints.iter().map(rank).max().unwrap_or(0).max(1);
                each(&|endpoint| 1.0 - rank(endpoint) as f64 / most as f64);
            }
            ScorerPlugin::LatencyScorer { ttft_weight: ttft, tpot_weight: tpot, strategy, .. } => {
                latency::score(endpoints, latency::Weights { ttft, tpot, strategy }, scores);
            }
            // Its script is asked where the replicas are seen.
            ScorerPlugin::ScriptScorer { .. } => each(&|_| 0.0),
            ScorerPlugin::SessionAffinityScorer { .. } => {
                let last = sessions.of(arrival, now);
                each(&|endpoint| f64::from(u8::from(last == Some(endpoint.server))));
            }
            ScorerPlugin::ContextLengthAware { ref label, .. } => {
                each(&|endpoint| {
                    context_length::score(label, arrival.prompt_tokens, endpoint.server, glance)
                });
            }
        }
    }
}

fn fewest(endpoints: &[Endpoint], count: impl Fn(&Endpoint) -> u32 + Copy, scores: &mut Vec<f64>) {
    let counts = endpoints.iter().map(count);
    let (least, most) =
        counts.clone().fold((u32::MAX, 0), |(least, most), one| (least.min(one), most.max(one)));
    let score = |one: u32| if most == least { 1.0 } else { f64::from(most - one) / f64::from(most - least) };
    scores.extend(counts.map(score));
}
