//! How fast a Kubernetes HPA lets a recommendation through: `spec.behavior` of `autoscaling/v2`.
//!
//! Knows stabilization windows (of recommendations within one, the lowest counts on the way up, the highest on
//! the way down) and scaling policies (so many pods or so many percent a period). Does not know metrics. Form and
//! defaults are those of `horizontal.go` and of the API's defaults: up at once by the larger of four pods and
//! 100 % every 15 seconds; down by any number, once all recommendations of five minutes agree.

use std::collections::VecDeque;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{AutoscalerError, LONGEST_WINDOW_S, Reading, seconds};
use crate::time::{Span, Time};

/// `spec.behavior`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Behavior {
    /// On the way up the lowest recommendation of so many seconds counts.
    pub scale_up_stabilization_window_s: f64,
    /// On the way down the highest of so many seconds counts.
    pub scale_down_stabilization_window_s: f64,
    /// Up by so many replicas a period ...
    pub scale_up_pods: u32,
    /// ... or by so many percent, whichever is more.
    pub scale_up_percent: u32,
    /// Down by so many replicas a period ...
    pub scale_down_pods: u32,
    /// ... or by so many percent, whichever is more.
    pub scale_down_percent: u32,
    /// The period, seconds.
    pub period_s: f64,
}

impl Default for Behavior {
    fn default() -> Self {
        Behavior {
            scale_up_stabilization_window_s: 0.0,
            scale_down_stabilization_window_s: 300.0,
            scale_up_pods: 4,
            scale_up_percent: 100,
            scale_down_pods: 0,
            scale_down_percent: 100,
            period_s: 15.0,
        }
    }
}

/// A behavior and what it remembers.
#[derive(Clone, Debug)]
pub(super) struct Pace {
    behavior: Behavior,
    up_window: Span,
    down_window: Span,
    period: Span,
    recommendations: VecDeque<(Time, u32)>,
    /// Changes, up or down, and when.
    changes: VecDeque<(Time, i64)>,
}

impl Pace {
    pub(super) fn new(behavior: Behavior) -> Result<Pace, AutoscalerError> {
        for (pods, percent, key) in [
            (behavior.scale_up_pods, behavior.scale_up_percent, "behavior.scale_up_percent"),
            (behavior.scale_down_pods, behavior.scale_down_percent, "behavior.scale_down_percent"),
        ] {
            if pods == 0 && percent == 0 {
                let message = "with no pods and 0 percent a period it never changes".into();
                return Err(AutoscalerError::Range { key, message });
            }
        }
        Ok(Pace {
            up_window: seconds(
                "behavior.scale_up_stabilization_window_s",
                behavior.scale_up_stabilization_window_s,
                0.0..=LONGEST_WINDOW_S,
            )?,
            down_window: seconds(
                "behavior.scale_down_stabilization_window_s",
                behavior.scale_down_stabilization_window_s,
                0.0..=LONGEST_WINDOW_S,
            )?,
            period: seconds("behavior.period_s", behavior.period_s, 0.1..=1_800.0)?,
            behavior,
            recommendations: VecDeque::new(),
            changes: VecDeque::new(),
        })
    }

    /// What of a recommendation is let through.
    pub(super) fn let_through(&mut self, reading: &Reading<'_>, recommended: u32) -> u32 {
        let (least, most) = reading.limits;
        self.within_limits(reading.now, reading.wanted, recommended.clamp(least, most))
    }

    fn within_limits(&mut self, now: Time, current: u32, recommended: u32) -> u32 {
        if self.recommendations.is_empty() {
            // What it finds is its first recommendation, so nobody goes before a whole window is over.
            self.recommendations.push_back((now, current));
        }
        let stable = self.stabilized(now, current, recommended);
        let allowed = self.limited(now, current, stable);
        if allowed != current {
            self.changes.push_back((now, i64::from(allowed) - i64::from(current)));
        }
        allowed
    }

    fn stabilized(&mut self, now: Time, current: u32, recommended: u32) -> u32 {
        self.recommendations.push_back((now, recommended));
        let longest = self.up_window.max(self.down_window);
        while self.recommendations.pop_front_if(|(at, _)| now - *at >= longest && *at < now).is_some() {}
        let within = |window: Span| {
            let newer = self.recommendations.iter().filter(move |(at, _)| now - *at < window);
            newer.map(|(_, recommended)| *recommended)
        };
        let lowest = within(self.up_window).fold(recommended, u32::min);
        let highest = within(self.down_window).fold(recommended, u32::max);
        current.max(lowest).min(highest)
    }

    fn limited(&mut self, now: Time, current: u32, wanted: u32) -> u32 {
        let period = self.period;
        while self.changes.pop_front_if(|(at, _)| now - *at >= period).is_some() {}
        let added: i64 = self.changes.iter().map(|(_, change)| (*change).max(0)).sum();
        let taken: i64 = self.changes.iter().map(|(_, change)| (-*change).max(0)).sum();
        let began_with = (i64::from(current) - added + taken).max(0);
        let share = |percent: u32| began_with as f64 * f64::from(percent) / 100.0;
        if wanted > current {
            let by_percent = (began_with as f64 + share(self.behavior.scale_up_percent)).ceil() as i64;
            let most = by_percent.max(began_with + i64::from(self.behavior.scale_up_pods));
            wanted.min(most.max(i64::from(current)) as u32)
        } else {
            let by_percent = (began_with as f64 - share(self.behavior.scale_down_percent)).max(0.0) as i64;
            let least = by_percent.min(began_with - i64::from(self.behavior.scale_down_pods)).max(0);
            wanted.max(least.min(i64::from(current)) as u32)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Time {
        Time::ZERO + Span::from_s(seconds)
    }

    #[test]
    fn down_only_when_five_minutes_agree() {
        let mut pace = Pace::new(Behavior::default()).unwrap();
        assert_eq!(pace.within_limits(at(0), 8, 8), 8);
        assert_eq!(pace.within_limits(at(15), 8, 2), 8);
        assert_eq!(pace.within_limits(at(299), 8, 3), 8, "the first is just within the window");
        assert_eq!(pace.within_limits(at(315), 8, 2), 3);
        assert_eq!(pace.within_limits(at(330), 3, 5), 5, "up at once");
    }

    #[test]
    fn up_by_four_or_by_as_many_again_each_period() {
        let mut pace = Pace::new(Behavior::default()).unwrap();
        assert_eq!(pace.within_limits(at(0), 1, 100), 5);
        assert_eq!(pace.within_limits(at(5), 5, 100), 5, "four were added in this period");
        assert_eq!(pace.within_limits(at(15), 5, 100), 10);
        assert_eq!(pace.within_limits(at(30), 10, 100), 20);
    }

    /// Idle for ten minutes at its least, then a rush: what was never let go must not count as let go.
    #[test]
    fn what_its_limits_hold_back_is_no_change() {
        let slow = Behavior { scale_up_pods: 1, scale_up_percent: 0, period_s: 60.0, ..Behavior::default() };
        let mut pace = Pace::new(slow).unwrap();
        let reading = |now_s: u64, wanted: u32| Reading {
            now: at(now_s),
            wanted,
            limits: (2, 10),
            gauges: &[],
            queued: 0,
            arrivals: 0,
            start_up: Span::ZERO,
        };
        for tick in 0..40 {
            assert_eq!(pace.let_through(&reading(tick * 15, 2), 0), 2);
        }
        assert_eq!(pace.let_through(&reading(600, 2), 100), 3);
        assert_eq!(pace.let_through(&reading(615, 3), 100), 3);
        assert_eq!(pace.let_through(&reading(660, 3), 100), 4);
    }

    #[test]
    fn a_slow_way_down_and_a_patient_way_up() {
        let slow = Behavior {
            scale_up_stabilization_window_s: 60.0,
            scale_down_stabilization_window_s: 0.0,
            scale_down_pods: 1,
            scale_down_percent: 0,
            period_s: 60.0,
            ..Behavior::default()
        };
        let mut pace = Pace::new(slow).unwrap();
        assert_eq!(pace.within_limits(at(0), 4, 1), 3);
        assert_eq!(pace.within_limits(at(30), 3, 1), 3);
        assert_eq!(pace.within_limits(at(60), 3, 1), 2);
        assert_eq!(pace.within_limits(at(70), 2, 6), 2, "a minute ago one was enough");
        assert_eq!(pace.within_limits(at(131), 2, 6), 6);
    }
}
