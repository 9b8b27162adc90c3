//! How many replicas there should be: autoscalers, one a file.
//!
//! Knows gauges as they were last scraped, and counts. Does not know which replica goes or how one starts: the
//! fleet does.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::signals::Signals;
use crate::time::{Span, Time};

pub mod behavior;
pub mod hpa;
pub mod keda;
pub mod predictive;

/// What an autoscaler sees when it decides.
#[derive(Clone, Copy, Debug)]
pub struct Reading<'a> {
    /// Now.
    pub now: Time,
    /// Replicas there should be, as was decided last.
    pub wanted: u32,
    /// There are never fewer, nor more.
    pub limits: (u32, u32),
    /// Gauges of those that were up when they were last scraped, and still are.
    pub gauges: &'a [Signals],
    /// Requests that wait at gateways for a replica.
    pub queued: u32,
    /// Requests that have come to gateways since the start.
    pub arrivals: u64,
    /// From an order until a replica is ready.
    pub start_up: Span,
}

impl Reading<'_> {
    /// Replicas that are wanted and have told nothing: they start, are down, or could not be read.
    pub fn silent(&self) -> u32 {
        self.wanted.saturating_sub(self.gauges.len() as u32)
    }
}

/// Says how many replicas there should be.
pub trait Autoscaler: Send {
    /// Asked again and again, at a fixed pace. The fleet keeps the answer within its limits.
    fn decide(&mut self, reading: &Reading<'_>) -> u32;
}

/// What vLLM and gateways tell, by vLLM's names.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Metric {
    /// `vllm:num_requests_waiting`, and with `keda` the queues of gateways.
    #[default]
    NumRequestsWaiting,
    /// `vllm:num_requests_running`.
    NumRequestsRunning,
    /// Both.
    NumRequests,
    /// `vllm:kv_cache_usage_perc`, 0 to 1.
    KvCacheUsagePerc,
}

impl Metric {
    fn of(self, signals: &Signals) -> f64 {
        match self {
            Metric::NumRequestsWaiting => f64::from(signals.waiting),
            Metric::NumRequestsRunning => f64::from(signals.running),
            Metric::NumRequests => f64::from(signals.running + signals.waiting),
            Metric::KvCacheUsagePerc => signals.kv_cache_usage(),
        }
    }

    fn sum(self, gauges: &[Signals]) -> f64 {
        gauges.iter().map(|signals| self.of(signals)).sum()
    }
}

/// A whole number of replicas that bears `replicas`. The small number keeps 3.0000000001 from becoming a fourth.
fn whole(replicas: f64) -> u32 {
    (replicas - 1e-9).ceil().clamp(0.0, f64::from(u32::MAX)) as u32
}

/// Why an autoscaler cannot be made.
#[derive(Debug, Error)]
pub enum AutoscalerError {
    /// Nobody has this name.
    #[error("unknown autoscaler `{0}`")]
    Unknown(String),
    /// Its parameters cannot be understood.
    #[error("{0}")]
    Parameters(String),
    /// A parameter is out of its range.
    #[error("{key}: {message}")]
    Range {
        /// Of `[autoscaler.parameters]`.
        key: &'static str,
        /// What was expected.
        message: String,
    },
}

fn positive(key: &'static str, value: f64) -> Result<f64, AutoscalerError> {
    match value.is_finite() && value > 0.0 {
        true => Ok(value),
        false => {
            Err(AutoscalerError::Range { key, message: format!("expected a number above 0, got {value:?}") })
        }
    }
}

/// A length of time between two bounds.
fn seconds(
    key: &'static str,
    value: f64,
    range: std::ops::RangeInclusive<f64>,
) -> Result<Span, AutoscalerError> {
    match range.contains(&value) {
        true => Ok(Span::from_s_f64(value)),
        false => {
            let (least, most) = (range.start(), range.end());
            let message = format!("expected {least} to {most} seconds, got {value:?}");
            Err(AutoscalerError::Range { key, message })
        }
    }
}

/// A target of a metric: a gauge that is a share has none above 1.
fn target(key: &'static str, value: f64, metric: Metric) -> Result<f64, AutoscalerError> {
    if metric == Metric::KvCacheUsagePerc && value > 1.0 {
        let message = format!("kv_cache_usage_perc is 0 to 1 and never comes to {value:?}; 0.7 would do");
        return Err(AutoscalerError::Range { key, message });
    }
    positive(key, value)
}

/// Longest stabilization window, in seconds, as Kubernetes has it.
const LONGEST_WINDOW_S: f64 = 3_600.0;

/// An autoscaler as `tailcast list autoscalers` shows it.
#[derive(Clone, Copy, Debug)]
pub struct AutoscalerInfo {
    /// Its name in scenarios.
    pub name: &'static str,
    /// What it reads.
    pub reads: &'static str,
    /// The products that have it.
    pub upstream: &'static str,
    /// Between two decisions, unless the scenario says otherwise.
    pub default_interval: Span,
    /// Makes one from `[autoscaler.parameters]`.
    pub build: Build,
}

/// Makes an autoscaler.
pub type Build = fn(&toml::Table) -> Result<Box<dyn Autoscaler>, AutoscalerError>;

/// All of them.
pub const AUTOSCALERS: &[AutoscalerInfo] = &[hpa::INFO, keda::INFO, predictive::INFO];

/// The autoscaler of this name.
///
/// # Errors
/// If there is none.
pub fn find(name: &str) -> Result<&'static AutoscalerInfo, AutoscalerError> {
    let found = AUTOSCALERS.iter().find(|info| info.name == name);
    found.ok_or_else(|| AutoscalerError::Unknown(name.into()))
}

fn parameters<P: for<'de> Deserialize<'de>>(table: &toml::Table) -> Result<P, AutoscalerError> {
    table
        .clone()
        .try_into()
        .map_err(|error: toml::de::Error| AutoscalerError::Parameters(error.message().to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Replicas with so many waiting each.
    pub(super) fn waiting(counts: &[u32]) -> Vec<Signals> {
        counts.iter().map(|&waiting| Signals { waiting, ..Signals::default() }).collect()
    }

    pub(super) fn reading(now_s: u64, wanted: u32, gauges: &[Signals]) -> Reading<'_> {
        let now = Time::ZERO + Span::from_s(now_s);
        Reading {
            now,
            wanted,
            limits: (0, 1_000),
            gauges,
            queued: 0,
            arrivals: 0,
            start_up: Span::from_s(60),
        }
    }

    #[test]
    fn metrics_are_those_of_vllm() {
        let signals = Signals {
            running: 3,
            waiting: 4,
            kv_blocks_used: 25,
            kv_blocks_usable: 100,
            ..Signals::default()
        };
        let read = |metric: Metric| metric.of(&signals);
        assert_eq!(read(Metric::NumRequestsWaiting), 4.0);
        assert_eq!(read(Metric::NumRequestsRunning), 3.0);
        assert_eq!(read(Metric::NumRequests), 7.0);
        assert_eq!(read(Metric::KvCacheUsagePerc), 0.25);
    }

    #[test]
    fn every_autoscaler_can_be_made_and_refuses_what_it_does_not_know() {
        for info in AUTOSCALERS {
            let mut table = toml::Table::new();
            if info.name == "predictive" {
                table.insert("requests_per_s_per_replica".into(), 2.0.into());
            }
            (info.build)(&table).unwrap_or_else(|error| panic!("{}: {error}", info.name));
            table.insert("nonsense".into(), 1.into());
            assert!((info.build)(&table).is_err(), "{}", info.name);
        }
        assert!(find("hpa").is_ok() && find("none").is_err());
    }
}
