//! An autoscaler as written.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Who says how many replicas there should be. `replicas.count` is how many are up at the start.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, expecting = "a table, such as { policy = \"hpa\", max_replicas = 8 }")]
pub struct AutoscalerFile {
    /// A name of `tailcast list autoscalers`.
    pub policy: String,
    /// The `[[replicas]]` table that it scales, counted from 0; only where there are several.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replicas_table: Option<u32>,
    /// There are never fewer replicas.
    #[serde(default = "one")]
    pub min_replicas: u32,
    /// Nor more.
    pub max_replicas: u32,
    /// Between two decisions, seconds; the autoscaler's own unless given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interval_s: Option<f64>,
    /// Between two scrapes of replicas' gauges, seconds: Prometheus' own default is 60, kube-prometheus-stack's 30.
    #[serde(default = "half_a_minute")]
    pub scrape_interval_s: f64,
    /// From an order until there is a machine to start on, seconds; 0: machines stand by.
    #[serde(default)]
    pub node_start_up_s: f64,
    /// Longest wait for what is under way at a replica that goes, seconds: Kubernetes' terminationGracePeriodSeconds.
    #[serde(default = "half_a_minute")]
    pub grace_s: f64,
    /// Parameters of the autoscaler.
    #[serde(default, skip_serializing_if = "toml::Table::is_empty")]
    #[schemars(with = "serde_json::Map<String, serde_json::Value>")]
    pub parameters: toml::Table,
}

fn one() -> u32 {
    1
}

fn half_a_minute() -> f64 {
    30.0
}
