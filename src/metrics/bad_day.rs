//! A bad day in numbers: what befell replicas, what was tried again, what was done in vain.
//!
//! Knows counts and moments. Does not know what caused what.

use serde::Serialize;

/// What befell a fleet, and what its clients and gateways did about it. Warm-up and cool-down are included.
#[derive(Clone, Debug, PartialEq, Serialize, schemars::JsonSchema)]
pub struct BadDay {
    /// Requests whose last try was lost with its replica, of those counted.
    pub lost: u64,
    /// Requests whose client gave up in the end, of those counted.
    pub timed_out: u64,
    /// Tries of clients, the first ones included.
    pub tries: u64,
    /// Tries that gateways made again on their own.
    pub gateway_retries: u64,
    /// Second copies that gateways sent while they waited for the first.
    pub hedges: u64,
    /// Tries whose replica died, or could not be reached.
    pub lost_tries: u64,
    /// Tries whose client waited too long.
    pub timed_out_tries: u64,
    /// Tries for which there was no replica: 503.
    pub unavailable_tries: u64,
    /// Tries that had begun to answer, in vain.
    pub answers_wasted: u64,
    /// Output tokens of tries that came to nothing.
    pub output_tokens_wasted: u64,
    /// Their share of all output tokens.
    pub wasted_share: f64,
    /// What happened, in order of time.
    pub incidents: Vec<IncidentSummary>,
}

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Serialize, schemars::JsonSchema)]
pub struct IncidentSummary {
    /// When, seconds after the start.
    pub at_s: f64,
    /// What, by its name in a scenario.
    pub kind: String,
    /// To which replica; none: to all in turn, or to a gateway.
    pub replica: Option<u32>,
    /// To which gateway; none: to replicas.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gateway: Option<u32>,
    /// Until the last gateway sent nothing there any more; none where nobody noticed.
    pub noticed_after_s: Option<f64>,
    /// Until it was ready again, or as quick as before; none if that was not in this run.
    pub over_after_s: Option<f64>,
    /// Whether it changed nothing: who was to die or go was down or going already.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    #[schemars(default)]
    pub in_vain: bool,
}

impl BadDay {
    /// Mean time until gateways had noticed, over what they noticed of.
    pub fn mean_noticed_after_s(&self) -> Option<f64> {
        let noticed: Vec<f64> =
            self.incidents.iter().filter_map(|incident| incident.noticed_after_s).collect();
        (!noticed.is_empty()).then(|| noticed.iter().sum::<f64>() / noticed.len() as f64)
    }
}
