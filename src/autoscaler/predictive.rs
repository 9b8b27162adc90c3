//! `predictive`: as many as the arrivals will need once a replica ordered now is ready.
//!
//! Arrivals a second are smoothed with a level and a trend (Holt's double exponential smoothing) and carried on to
//! the end of a start-up; wanted = ceil(forecast x (1 + headroom) / what one replica bears). The form is that of
//! Dynamo's planner (a load predictor, and replicas by what each bears in a profile); what one bears is that of the
//! scenario: `tailcast capacity` tells it. On the way down the highest of `scale_down_stabilization_window_s` counts.

use std::collections::VecDeque;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    Autoscaler, AutoscalerError, AutoscalerInfo, LONGEST_WINDOW_S, Reading, parameters, positive, seconds,
    whole,
};
use crate::time::{Span, Time};

/// `[autoscaler.parameters]` of this autoscaler.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Parameters {
    /// Requests a second that one replica bears.
    pub requests_per_s_per_replica: f64,
    /// So much more than the forecast is provided for, as a share.
    #[serde(default = "headroom")]
    pub headroom: f64,
    /// Weight of the newest rate in the level.
    #[serde(default = "alpha")]
    pub alpha: f64,
    /// Weight of the newest change in the trend.
    #[serde(default = "beta")]
    pub beta: f64,
    /// On the way down the highest recommendation of so many seconds counts.
    #[serde(default = "window")]
    pub scale_down_stabilization_window_s: f64,
}

fn headroom() -> f64 {
    0.2
}

fn alpha() -> f64 {
    0.5
}

fn beta() -> f64 {
    0.2
}

fn window() -> f64 {
    300.0
}

/// The entry of this autoscaler in the list.
pub const INFO: AutoscalerInfo = AutoscalerInfo {
    name: "predictive",
    reads: "arrivals at gateways, start-up time, what a replica bears",
    upstream: "Dynamo's planner is of this form",
    default_interval: Span::from_s(15),
    build: |table| {
        let parameters: Parameters = parameters(table)?;
        Ok(Box::new(Predictive::new(&parameters)?))
    },
};

/// The autoscaler.
#[derive(Clone, Debug)]
pub struct Predictive {
    bears_per_s: f64,
    headroom: f64,
    alpha: f64,
    beta: f64,
    window: Span,
    /// The last reading: when, and arrivals until then.
    last: (Time, u64),
    /// Requests a second, and by how much that grows a second.
    smoothed: Option<(f64, f64)>,
    recommendations: VecDeque<(Time, u32)>,
}

impl Predictive {
    /// One that has seen nothing.
    ///
    /// # Errors
    /// If a parameter is out of its range.
    pub fn new(parameters: &Parameters) -> Result<Predictive, AutoscalerError> {
        let share = |key: &'static str, value: f64, most: f64| match (0.0..=most).contains(&value) {
            true => Ok(value),
            false => {
                Err(AutoscalerError::Range { key, message: format!("expected 0 to {most}, got {value:?}") })
            }
        };
        Ok(Predictive {
            bears_per_s: positive("requests_per_s_per_replica", parameters.requests_per_s_per_replica)?,
            headroom: share("headroom", parameters.headroom, 100.0)?,
            alpha: positive("alpha", share("alpha", parameters.alpha, 1.0)?)?,
            beta: share("beta", parameters.beta, 1.0)?,
            window: seconds(
                "scale_down_stabilization_window_s",
                parameters.scale_down_stabilization_window_s,
                0.0..=LONGEST_WINDOW_S,
            )?,
            last: (Time::ZERO, 0),
            smoothed: None,
            recommendations: VecDeque::new(),
        })
    }

    /// Takes in the arrivals since the last reading.
    fn smooth(&mut self, now: Time, arrivals: u64) {
        let past_s = (now - self.last.0).as_s();
        if past_s <= 0.0 {
            return;
        }
        let rate = (arrivals - self.last.1) as f64 / past_s;
        self.last = (now, arrivals);
        self.smoothed = Some(match self.smoothed {
            None => (rate, 0.0),
            Some((level, trend)) => {
                // Nobody arrives less than never: a fall that is carried on below nothing would rise again.
                let next = (self.alpha * rate + (1.0 - self.alpha) * (level + trend * past_s)).max(0.0);
                (next, self.beta * (next - level) / past_s + (1.0 - self.beta) * trend)
            }
        });
    }
}

impl Autoscaler for Predictive {
    fn decide(&mut self, reading: &Reading<'_>) -> u32 {
        self.smooth(reading.now, reading.arrivals);
        let Some((level, trend)) = self.smoothed else { return reading.wanted };
        let forecast = (level + trend * reading.start_up.as_s()).max(0.0);
        let recommended = whole(forecast * (1.0 + self.headroom) / self.bears_per_s);
        let (now, window) = (reading.now, self.window);
        if self.recommendations.is_empty() {
            // What it finds is its first recommendation, so nobody goes before a whole window is over.
            self.recommendations.push_back((now, reading.wanted));
        }
        self.recommendations.push_back((now, recommended));
        while self.recommendations.pop_front_if(|(at, _)| now - *at >= window && *at < now).is_some() {}
        let highest = self.recommendations.iter().map(|(_, recommended)| *recommended).max();
        let highest = highest.unwrap_or(recommended);
        recommended.max(reading.wanted.min(highest))
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::reading;
    use super::*;

    fn predictive(headroom: f64) -> Predictive {
        Predictive::new(&Parameters {
            requests_per_s_per_replica: 2.0,
            headroom,
            alpha: 1.0,
            beta: 1.0,
            scale_down_stabilization_window_s: 60.0,
        })
        .unwrap()
    }

    /// Ten a second, then twelve: a trend of 0.2 a second a second, and a minute later there are 24.
    #[test]
    fn it_orders_for_when_they_are_ready() {
        let mut autoscaler = predictive(0.0);
        assert_eq!(autoscaler.decide(&Reading { arrivals: 100, ..reading(10, 1, &[]) }), 5);
        assert_eq!(autoscaler.decide(&Reading { arrivals: 220, ..reading(20, 5, &[]) }), 12);
    }

    #[test]
    fn headroom_is_provided_and_the_way_down_waits() {
        let mut autoscaler = predictive(0.5);
        assert_eq!(autoscaler.decide(&Reading { arrivals: 100, ..reading(10, 1, &[]) }), 8);
        let flat = |now_s: u64, wanted| Reading { arrivals: 100, ..reading(now_s, wanted, &[]) };
        assert_eq!(autoscaler.decide(&flat(20, 8)), 8);
        assert_eq!(autoscaler.decide(&flat(69, 8)), 8);
        assert_eq!(autoscaler.decide(&flat(70, 8)), 0);
    }

    /// Arrivals stop: whatever the trend, nobody is ordered for nobody.
    #[test]
    fn a_fall_does_not_swing_back() {
        let mut autoscaler = Predictive::new(&Parameters {
            requests_per_s_per_replica: 1.0,
            headroom: 0.2,
            alpha: 0.5,
            beta: 0.2,
            scale_down_stabilization_window_s: 0.0,
        })
        .unwrap();
        let mut decide = |now_s, arrivals| autoscaler.decide(&Reading { arrivals, ..reading(now_s, 1, &[]) });
        for tick in 1..=8 {
            decide(15 * tick, 30 * tick);
        }
        let after: Vec<u32> = (9..=80).map(|tick| decide(15 * tick, 240)).collect();
        let first_none = after.iter().position(|wanted| *wanted == 0).unwrap();
        assert!(after[first_none..].iter().all(|wanted| *wanted == 0), "{after:?}");
    }
}
