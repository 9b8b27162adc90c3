//! Bad days as written: what befalls replicas, what clients put up with, what gateways do about it.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Something that happens to a replica, once or again and again.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct EventFile {
    /// What happens.
    pub kind: EventKindFile,
    /// When, seconds after the start.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at_s: Option<f64>,
    /// Or again and again while requests come: seconds from one to the next, on average.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub every_s: Option<f64>,
    /// Of `every_s`: "chance" (exponential gaps, unless given) or "even".
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub spacing: Option<SpacingFile>,
    /// Of `every_s`: not before, seconds after the start.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from_s: Option<f64>,
    /// Of `every_s`: not from then on, seconds after the start.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until_s: Option<f64>,
    /// Which replica, counted from 0 over all tables; or "any": one by chance, each time anew; or "all" at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replica: Option<WhomFile>,
    /// Crash, drain, rolling-deploy, spot-loss, gateway-lost: seconds from the end of the process until the next is ready, or
    /// "never"; as long as the model takes to start (`replicas.start_up_s`), unless given; a gateway takes 10.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restart_s: Option<RestartFile>,
    /// Slow-down: how many times as long steps take.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub factor: Option<f64>,
    /// Network: so much longer in each direction, milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delay_ms: Option<f64>,
    /// Network: share of messages that get lost, and are sent again after 200 ms, then 400 ms and so on, as TCP does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub loss: Option<f64>,
    /// Partition: the gateway that is cut off from the replica, counted from 0; all unless given. Gateway-lost, counters-lost: which, or "any".
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gateway: Option<WhichGatewayFile>,
    /// Spot-loss: seconds from the announcement until the machine is gone; 120 unless given, as AWS has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub notice_s: Option<f64>,
    /// Gateway-lost: seconds until clients know and take the others; 1 unless given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub noticed_after_s: Option<f64>,
    /// Slow-down, network, metrics-lost: how long it lasts, seconds; for ever unless given. A partition needs it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub for_s: Option<f64>,
    /// Drain, rolling-deploy: longest wait for what is under way, seconds; 30 unless given, as Kubernetes'
    /// terminationGracePeriodSeconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grace_s: Option<f64>,
    /// Rolling-deploy: new replicas that are started first, on machines of their own, and seen before an old one goes (maxSurge);
    /// none unless given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub surge: Option<u32>,
    /// Rolling-deploy: replicas that are down or draining at a time (maxUnavailable); 1 unless given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at_once: Option<u32>,
}

/// What happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum EventKindFile {
    /// The process dies: what runs and waits there is lost, with the KV cache.
    Crash,
    /// Steps take longer.
    SlowDown,
    /// What goes there and comes back is under way for longer.
    Network,
    /// Reads of its gauges fail; requests do not.
    MetricsLost,
    /// Nothing new is sent there; the process ends when nothing is left, or the grace is over.
    Drain,
    /// Every replica is drained and started again, in turn.
    RollingDeploy,
    /// Its machine is taken back: it drains for as long as was announced, and another comes.
    SpotLoss,
    /// Nothing passes between it and its gateways; what is sent meanwhile comes afterwards, or is given up.
    Partition,
    /// A gateway's process dies, with its connections, counters and beliefs.
    GatewayLost,
    /// A gateway loses its counters and beliefs while its connections go on: what is out is counted no more.
    CountersLost,
}

/// Which gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged, expecting = "expected a gateway's number, or \"any\"")]
pub enum WhichGatewayFile {
    /// This one.
    Number(u32),
    /// By a word.
    Word(AnyWord),
}

/// A gateway that has no number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum AnyWord {
    /// One by chance.
    Any,
}

/// Gaps between events that come again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum SpacingFile {
    /// Exponential: nobody knows when the next is.
    Chance,
    /// All alike.
    Even,
}

/// Which replica.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged, expecting = "expected a replica's number, \"any\" or \"all\"")]
pub enum WhomFile {
    /// This one.
    Number(u32),
    /// By a word.
    Word(WhomWord),
}

/// Replicas that have no number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum WhomWord {
    /// One by chance.
    Any,
    /// Every one.
    All,
}

/// When the next process is ready.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged, expecting = "expected seconds, or \"never\"")]
pub enum RestartFile {
    /// After so many seconds.
    Seconds(f64),
    /// By a word.
    Word(NeverWord),
}

/// Not at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum NeverWord {
    /// Not at all.
    Never,
}

/// How gateways learn who is up. The checks are Kubernetes' readiness probes unless given.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, expecting = "a table of checks, such as { interval_s = 5.0 }")]
pub struct HealthFile {
    /// Between two checks of a replica, seconds.
    pub interval_s: f64,
    /// Checks in a row that must fail before nothing is sent there any more.
    pub unhealthy_after: u32,
    /// Checks in a row that must succeed before something is sent there again.
    pub healthy_after: u32,
    /// From the announcement of a drain until gateways know, seconds.
    pub watch_delay_s: f64,
    /// Failures in a row by which a replica is ejected, whatever its checks say; 0: never. Envoy's outlier detection has 5.
    pub eject_after: u32,
    /// How long, seconds, times how often it was.
    pub ejection_s: f64,
    /// Share of the replicas that may be ejected at a time; one always may.
    pub most_ejected: f64,
    /// Below this share of replicas that are up, everybody counts as up; Envoy's panic threshold is 0.5, 0 is none.
    pub panic_below: f64,
    /// Slow start: for so long after its checks have succeeded again, seconds, a replica has fewer requests in flight than the
    /// others, from a tenth on; 0: at once as many.
    pub slow_start_s: f64,
    /// Slow start: its part grows with its age to the power of one over this.
    pub slow_start_aggression: f64,
    /// How long a gateway tries to connect where nothing passes, seconds; Envoy has 5, nginx 60.
    pub connect_timeout_s: f64,
}

impl Default for HealthFile {
    fn default() -> Self {
        HealthFile {
            interval_s: 10.0,
            unhealthy_after: 3,
            healthy_after: 1,
            watch_delay_s: 1.0,
            eject_after: 0,
            ejection_s: 30.0,
            most_ejected: 0.1,
            panic_below: 0.0,
            slow_start_s: 0.0,
            slow_start_aggression: 1.0,
            connect_timeout_s: 5.0,
        }
    }
}

impl HealthFile {
    /// Whether nothing was said.
    pub fn is_default(&self) -> bool {
        *self == HealthFile::default()
    }
}

/// What a gateway lets in before its policy is asked; no limits unless given.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, expecting = "a table of limits, such as { most_in_flight = 100 }")]
pub struct AdmissionFile {
    /// Token bucket: requests a second; whoever finds it empty is answered 429.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rate_per_s: Option<f64>,
    /// Token bucket: requests that it holds when full; as many as in a second unless given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub burst: Option<f64>,
    /// Requests out at any one replica; one that has so many is not chosen, as behind Envoy's circuit breaker.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub most_per_replica: Option<u32>,
    /// Requests out in all; whoever comes then is answered 503, unless there is a queue.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub most_in_flight: Option<u32>,
    /// Where requests wait that find no replica; unless given they are answered 503 at once.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub queue: Option<QueueFile>,
    /// Who says that the fleet is saturated: requests then wait, or without a queue those that can wait (a priority above 0) are
    /// answered 429.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub saturation: Option<SaturationFile>,
}

/// llm-d's utilization-detector: per replica the larger of its queue and its KV usage, each over a threshold; the mean of replicas.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(
    default,
    deny_unknown_fields,
    expecting = "a table of thresholds, such as { queue_depth = 5, kv_cache_usage = 0.8 }"
)]
pub struct SaturationFile {
    /// Requests waiting at a replica by which it is saturated.
    pub queue_depth: f64,
    /// Share of KV blocks used by which it is saturated.
    pub kv_cache_usage: f64,
    /// Gauges that are older, milliseconds, are those of a saturated replica.
    pub staleness_ms: f64,
    /// Who is refused of those that can wait.
    pub shedding: SheddingFile,
}

impl Default for SaturationFile {
    fn default() -> Self {
        SaturationFile {
            queue_depth: 5.0,
            kv_cache_usage: 0.8,
            staleness_ms: 200.0,
            shedding: SheddingFile::Saturated,
        }
    }
}

/// Who is refused of those that can wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum SheddingFile {
    /// All, when the fleet is saturated.
    Saturated,
    /// The share min(300 s^5, 1) at saturation s, at once: llm-d-router's probabilistic-admitter.
    Probabilistic,
}

/// Who leaves a queue first, of equal priority.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum FairnessFile {
    /// Whoever came first.
    FirstCome,
    /// Classes take turns.
    RoundRobin,
}

/// A gateway's queue: by priority, then in order of arrival.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, expecting = "a table, such as { max_requests = 1000, ttl_s = 60.0 }")]
pub struct QueueFile {
    /// Whoever finds so many waiting is answered 429.
    pub max_requests: u32,
    /// Whoever has waited so long is answered 503, seconds.
    pub ttl_s: f64,
    /// Of equal priority: "first-come", or "round-robin" among classes.
    pub fairness: FairnessFile,
}

impl Default for QueueFile {
    fn default() -> Self {
        QueueFile { max_requests: 1_000, ttl_s: 60.0, fairness: FairnessFile::FirstCome }
    }
}

impl AdmissionFile {
    /// Whether nothing was said.
    pub fn is_default(&self) -> bool {
        *self == AdmissionFile::default()
    }
}

/// Pauses between tries.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, expecting = "a table of pauses, such as { first_ms = 200.0 }")]
pub struct BackoffFile {
    /// Before the second try, milliseconds.
    pub first_ms: f64,
    /// Each is so much longer than the one before, at least 1.
    pub factor: f64,
    /// None is longer, milliseconds.
    pub longest_ms: f64,
    /// Up to this share longer or shorter, by chance.
    pub jitter: f64,
}

impl Default for BackoffFile {
    fn default() -> Self {
        BackoffFile { first_ms: 0.0, factor: 2.0, longest_ms: 30_000.0, jitter: 0.0 }
    }
}

/// What gateways do about tries that never began: the replica could not be reached, or died before the first token.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, expecting = "a table, such as { attempts = 2 }")]
pub struct RetriesFile {
    /// Tries after the first, each at another replica where there is one.
    pub attempts: u32,
    /// Pauses before them.
    pub backoff: BackoffFile,
}

impl RetriesFile {
    /// Whether nothing was said.
    pub fn is_default(&self) -> bool {
        *self == RetriesFile::default()
    }
}

/// A second copy of a request that has not begun to answer, at another replica; whichever is behind is cancelled.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, expecting = "a table, such as { after_ms = 1000.0, budget = 0.05 }")]
pub struct HedgingFile {
    /// So long after the first, if no first token has come, milliseconds.
    pub after_ms: f64,
    /// Second copies stay below this share of requests; no limit unless given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub budget: Option<f64>,
}

/// What clients put up with.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, expecting = "a table, such as { retries = 2 }")]
pub struct ClientsFile {
    /// How long they wait, by phase.
    pub timeout_s: TimeoutFile,
    /// Tries after the first, of what was lost, refused, or took too long.
    pub retries: u32,
    /// Retries of all clients stay below this share of requests sent; no limit unless given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retry_budget: Option<f64>,
    /// Pauses before retries.
    pub backoff: BackoffFile,
}

impl ClientsFile {
    /// Whether nothing was said.
    pub fn is_default(&self) -> bool {
        *self == ClientsFile::default()
    }
}

/// How long clients wait for a try, seconds; for ever unless given.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(
    default,
    deny_unknown_fields,
    expecting = "a table of seconds by phase, such as { first_token = 10.0, whole = 120.0 }"
)]
pub struct TimeoutFile {
    /// For its first token.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub first_token: Option<f64>,
    /// For the next after that, each time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub between_tokens: Option<f64>,
    /// For its last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub whole: Option<f64>,
}
