//! `keda`: KEDA's ScaledObject with a Prometheus trigger on a sum of vLLM's metrics, as vLLM's production-stack
//! installs it (its tutorial: `vllm:num_requests_waiting`, threshold 5).
//!
//! Between one and the most it is an HPA on an external metric (`AverageValue`): wanted = ceil(sum / threshold),
//! unless sum / (threshold x pods) is within a tenth of 1. What is KEDA's own: it leaves zero as soon as the
//! trigger is above its activation threshold, and goes there once it has not been for `cooldown_period_s`. Requests
//! that wait at gateways are part of the sum, else nothing could wake it; KEDA's own poll at zero is every 30 s
//! (`autoscaler.interval_s`), an HPA's every 15.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::behavior::{Behavior, Pace};
use super::hpa::{is_within, tolerance};
use super::{
    Autoscaler, AutoscalerError, AutoscalerInfo, Metric, Reading, parameters, seconds, target, whole,
};
use crate::time::{Span, Time};

/// `[autoscaler.parameters]` of this autoscaler.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Parameters {
    /// What is summed over replicas; of the requests that wait, also those at gateways.
    pub metric: Metric,
    /// What of the sum each replica bears.
    pub threshold: f64,
    /// Above this sum there is at least one.
    pub activation_threshold: f64,
    /// From the last time that the sum was above it until the last replica goes, seconds.
    pub cooldown_period_s: f64,
    /// Nothing is done about a sum so near to what replicas bear, as a share.
    pub tolerance: f64,
    /// How fast it may change between one and the most.
    pub behavior: Behavior,
}

impl Default for Parameters {
    fn default() -> Self {
        Parameters {
            metric: Metric::default(),
            threshold: 5.0,
            activation_threshold: 0.0,
            cooldown_period_s: 300.0,
            tolerance: 0.1,
            behavior: Behavior::default(),
        }
    }
}

/// The entry of this autoscaler in the list.
pub const INFO: AutoscalerInfo = AutoscalerInfo {
    name: "keda",
    reads: "a gauge summed over replicas, as last scraped, and queues of gateways",
    upstream: "KEDA ScaledObject (Prometheus trigger); vLLM production-stack's autoscaling",
    default_interval: Span::from_s(15),
    build: |table| {
        let parameters: Parameters = parameters(table)?;
        Ok(Box::new(Keda::new(parameters)?))
    },
};

/// The autoscaler.
#[derive(Clone, Debug)]
pub struct Keda {
    metric: Metric,
    threshold: f64,
    activation_threshold: f64,
    cooldown: Span,
    tolerance: f64,
    pace: Pace,
    /// When the trigger was last above its activation threshold.
    active_at: Time,
}

impl Keda {
    /// One that has seen nothing.
    ///
    /// # Errors
    /// If a parameter is out of its range.
    pub fn new(parameters: Parameters) -> Result<Keda, AutoscalerError> {
        if !(0.0..=1e9).contains(&parameters.activation_threshold) {
            return Err(AutoscalerError::Range {
                key: "activation_threshold",
                message: format!(
                    "expected 0 or a number above it, got {:?}",
                    parameters.activation_threshold
                ),
            });
        }
        Ok(Keda {
            metric: parameters.metric,
            threshold: target("threshold", parameters.threshold, parameters.metric)?,
            activation_threshold: parameters.activation_threshold,
            cooldown: seconds("cooldown_period_s", parameters.cooldown_period_s, 0.0..=86_400.0)?,
            tolerance: tolerance(parameters.tolerance)?,
            pace: Pace::new(parameters.behavior)?,
            active_at: Time::ZERO,
        })
    }
}

impl Autoscaler for Keda {
    fn decide(&mut self, reading: &Reading<'_>) -> u32 {
        let at_gateways = match self.metric {
            Metric::NumRequestsWaiting | Metric::NumRequests => f64::from(reading.queued),
            Metric::NumRequestsRunning | Metric::KvCacheUsagePerc => 0.0,
        };
        let sum = self.metric.sum(reading.gauges) + at_gateways;
        let active = sum > self.activation_threshold;
        if active {
            self.active_at = reading.now;
        }
        match (reading.wanted, active) {
            (0, active) => u32::from(active),
            (_, false) if reading.now - self.active_at >= self.cooldown => 0,
            (wanted, _) => {
                let ratio = sum / (self.threshold * f64::from(wanted));
                let recommended = match is_within(ratio, self.tolerance) {
                    true => wanted,
                    false => whole(sum / self.threshold).max(1),
                };
                self.pace.let_through(reading, recommended)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{reading, waiting};
    use super::*;

    #[test]
    fn the_sum_is_shared_out() {
        let mut keda = Keda::new(Parameters::default()).unwrap();
        assert_eq!(keda.decide(&reading(0, 2, &waiting(&[10, 5]))), 3);
        assert_eq!(keda.decide(&reading(15, 3, &waiting(&[10, 5, 1]))), 3, "16 is near enough to 15");
    }

    #[test]
    fn from_zero_at_once_and_back_after_the_cooldown() {
        let mut keda = Keda::new(Parameters::default()).unwrap();
        assert_eq!(keda.decide(&reading(0, 0, &[])), 0);
        let woken = Reading { queued: 1, ..reading(15, 0, &[]) };
        assert_eq!(keda.decide(&woken), 1);
        assert_eq!(keda.decide(&reading(300, 1, &waiting(&[0]))), 1);
        assert_eq!(keda.decide(&reading(315, 1, &waiting(&[0]))), 0);
    }
}
