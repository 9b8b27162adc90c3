//! `hpa`: Kubernetes' HorizontalPodAutoscaler on a metric of pods (`type: Pods`, `AverageValue`), such as
//! prometheus-adapter makes of vLLM's.
//!
//! wanted = ceil(pods x mean / target), unless mean / target is within a tenth of 1. Pods that start, or could
//! not be read, count as idle on the way up and as on target on the way down, and may stop a change but not turn it
//! (`calcPlainMetricReplicas` of `replica_calculator.go`). Pods that wait for a node are treated alike, where
//! Kubernetes leaves them out on the way down. It never leaves zero, since nobody is there to measure.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::behavior::{Behavior, Pace};
use super::{Autoscaler, AutoscalerError, AutoscalerInfo, Metric, Reading, parameters, target, whole};
use crate::time::Span;

/// `[autoscaler.parameters]` of this autoscaler.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Parameters {
    /// What is measured of each replica.
    pub metric: Metric,
    /// What its mean over replicas should be.
    pub target: f64,
    /// Nothing is done about a mean so near to its target, as a share.
    pub tolerance: f64,
    /// How fast it may change.
    pub behavior: Behavior,
}

impl Default for Parameters {
    fn default() -> Self {
        Parameters { metric: Metric::default(), target: 5.0, tolerance: 0.1, behavior: Behavior::default() }
    }
}

/// The entry of this autoscaler in the list.
pub const INFO: AutoscalerInfo = AutoscalerInfo {
    name: "hpa",
    reads: "a gauge of each replica, as last scraped",
    upstream: "Kubernetes HorizontalPodAutoscaler (autoscaling/v2, Pods metric)",
    default_interval: Span::from_s(15),
    build: |table| {
        let parameters: Parameters = parameters(table)?;
        Ok(Box::new(Hpa::new(parameters)?))
    },
};

/// The autoscaler.
#[derive(Clone, Debug)]
pub struct Hpa {
    metric: Metric,
    target: f64,
    tolerance: f64,
    pace: Pace,
}

impl Hpa {
    /// One that has seen nothing.
    ///
    /// # Errors
    /// If a parameter is out of its range.
    pub fn new(parameters: Parameters) -> Result<Hpa, AutoscalerError> {
        Ok(Hpa {
            metric: parameters.metric,
            target: target("target", parameters.target, parameters.metric)?,
            tolerance: tolerance(parameters.tolerance)?,
            pace: Pace::new(parameters.behavior)?,
        })
    }

    fn recommended(&self, reading: &Reading<'_>) -> u32 {
        let (told, silent) = (reading.gauges.len() as f64, f64::from(reading.silent()));
        if told == 0.0 {
            return reading.wanted;
        }
        let sum = self.metric.sum(reading.gauges);
        let within = |ratio: f64| is_within(ratio, self.tolerance);
        let ratio = sum / told / self.target;
        if silent == 0.0 {
            return if within(ratio) { reading.wanted } else { whole(ratio * told) };
        }
        let assumed = if ratio < 1.0 { self.target * silent } else { 0.0 };
        let all = told + silent;
        let with_silent = (sum + assumed) / all / self.target;
        let turned = (ratio - 1.0) * (with_silent - 1.0) < 0.0;
        let recommended = whole(with_silent * all);
        let against =
            if with_silent < 1.0 { recommended > reading.wanted } else { recommended < reading.wanted };
        if within(with_silent) || turned || against { reading.wanted } else { recommended }
    }
}

/// Whether a metric over its target is near enough to 1.
pub(super) fn is_within(ratio: f64, tolerance: f64) -> bool {
    (1.0 - tolerance..=1.0 + tolerance).contains(&ratio)
}

/// A share by which a metric may miss its target.
pub(super) fn tolerance(tolerance: f64) -> Result<f64, AutoscalerError> {
    match (0.0..1.0).contains(&tolerance) {
        true => Ok(tolerance),
        false => Err(AutoscalerError::Range {
            key: "tolerance",
            message: format!("expected a share from 0 up to 1, got {tolerance:?}"),
        }),
    }
}

impl Autoscaler for Hpa {
    fn decide(&mut self, reading: &Reading<'_>) -> u32 {
        let recommended = self.recommended(reading);
        self.pace.let_through(reading, recommended)
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{reading, waiting};
    use super::*;

    fn recommended(wanted: u32, counts: &[u32]) -> u32 {
        let hpa = Hpa::new(Parameters { target: 10.0, ..Parameters::default() }).unwrap();
        hpa.recommended(&reading(0, wanted, &waiting(counts)))
    }

    #[test]
    fn as_many_as_bring_the_mean_to_its_target() {
        assert_eq!(recommended(2, &[20, 20]), 4);
        assert_eq!(recommended(4, &[5, 5, 5, 5]), 2);
        assert_eq!(recommended(2, &[11, 11]), 2, "a tenth above is near enough");
        assert_eq!(recommended(2, &[12, 11]), 3);
        assert_eq!(recommended(3, &[]), 3, "nobody tells anything");
    }

    /// Two of four tell: on the way up the others count as idle, on the way down as on target.
    #[test]
    fn who_tells_nothing_slows_a_change_and_never_turns_it() {
        assert_eq!(recommended(4, &[30, 30]), 6);
        assert_eq!(recommended(4, &[15, 15]), 4, "with two idle ones nobody is needed");
        assert_eq!(recommended(4, &[0, 0]), 2);
        assert_eq!(recommended(4, &[18, 18]), 4);
    }
}
