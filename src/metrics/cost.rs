//! What a run cost, in money and energy.
//!
//! Knows figures. Does not know prices: catalogue and scenario do.

use serde::Serialize;

/// What a fleet cost at the run's own pace: rates over rates, so a warm-up is charged to nobody. Of the cards alone.
#[derive(Clone, Debug, PartialEq, Serialize, schemars::JsonSchema)]
pub struct Cost {
    /// US dollars an hour by the catalogue's prices, with an autoscaler in the mean; none where a card has no price.
    pub usd_per_hour: Option<f64>,
    /// For a million output tokens of whole answers.
    pub usd_per_million_output_tokens: Option<f64>,
    /// For a thousand requests that met every objective of `[slo.goodput]`.
    pub usd_per_thousand_good_requests: Option<f64>,
    /// Mean power of all cards, watts, by a rule of thumb over TDP and batch; none where a card has no TDP.
    pub watts: Option<f64>,
    /// Kilowatt hours for a million output tokens of whole answers.
    pub kwh_per_million_output_tokens: Option<f64>,
    /// Kilowatt hours for a thousand requests that met every objective.
    pub kwh_per_thousand_good_requests: Option<f64>,
}
