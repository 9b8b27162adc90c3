//! What an autoscaler did, in numbers.
//!
//! Knows how many replicas there were when. Does not know why.

use serde::Serialize;

/// How many replicas there were. Warm-up and cool-down are included.
#[derive(Clone, Debug, PartialEq, Serialize, schemars::JsonSchema)]
pub struct Scaling {
    /// Replicas paid for, from their orders to their ends, in the mean over the run.
    pub mean_replicas: f64,
    /// Fewest that were up at any time.
    pub least_ready: u32,
    /// Most that were up at any time.
    pub most_ready: u32,
    /// How often the number that was wanted rose.
    pub ups: u32,
    /// How often it fell.
    pub downs: u32,
    /// Hours of replicas, from their orders to their ends.
    pub replica_hours: f64,
    /// Every change, in order of time; the first is the start.
    pub changes: Vec<ScalingChange>,
}

/// A change in the number of replicas.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, schemars::JsonSchema)]
pub struct ScalingChange {
    /// When, seconds after the start.
    pub at_s: f64,
    /// Replicas there should be from then on.
    pub wanted: u32,
    /// Replicas that are up from then on.
    pub ready: u32,
}

impl Scaling {
    /// Replicas that were up between two moments, in the mean.
    pub fn mean_ready(&self, from_s: f64, to_s: f64) -> f64 {
        let ends = self.changes.iter().skip(1).map(|change| change.at_s).chain([f64::INFINITY]);
        let up_s = self.changes.iter().zip(ends).map(|(change, end_s)| {
            f64::from(change.ready) * (end_s.min(to_s) - change.at_s.max(from_s)).max(0.0)
        });
        up_s.sum::<f64>() / (to_s - from_s).max(f64::MIN_POSITIVE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mean_over_a_window_weighs_by_time() {
        let change = |at_s, ready| ScalingChange { at_s, wanted: ready, ready };
        let scaling = Scaling {
            mean_replicas: 0.0,
            least_ready: 1,
            most_ready: 4,
            ups: 1,
            downs: 1,
            replica_hours: 0.0,
            changes: vec![change(0.0, 2), change(10.0, 4), change(30.0, 1)],
        };
        assert_eq!(scaling.mean_ready(0.0, 20.0), 3.0);
        assert_eq!(scaling.mean_ready(25.0, 35.0), 2.5);
        assert_eq!(scaling.mean_ready(100.0, 110.0), 1.0);
    }
}
