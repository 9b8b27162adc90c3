//! What routers are told of output lengths, as written.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What routers are told of output lengths.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct PredictionFile {
    /// The kind of predictor.
    pub output_tokens: PredictorFile,
    /// Spread of `lognormal`: the prediction is the truth times exp(sigma * Z).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sigma: Option<f64>,
    /// The prediction is this many times too long; of `exact` and `lognormal`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bias: Option<f64>,
    /// Of `buckets`: upper ends of all buckets but the last, rising; 32, 64, ... 8192 unless given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub edges: Option<Vec<u32>>,
    /// Of `buckets`: how often the right one is told, 0 to 1; else one beside it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub accuracy: Option<f64>,
    /// Of `buckets`: what one is taken to say; "middle" unless given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub value: Option<BucketValueFile>,
    /// Of `rank`: correlation of normal scores with the truth, -1 to 1. Kendall's tau is (2 / pi) asin of it: 0.81 is a tau of 0.6.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub correlation: Option<f64>,
}

/// What a bucket is taken to say.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum BucketValueFile {
    /// Half way between its ends.
    Middle,
    /// Its upper end.
    Upper,
}

/// Kinds of predictors.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum PredictorFile {
    /// Routers are told nothing.
    #[default]
    None,
    /// The truth, times `bias`.
    Exact,
    /// The truth, times `bias`, with a log-normal error.
    Lognormal,
    /// A classifier into buckets of lengths, right with probability `accuracy`.
    Buckets,
    /// Right in the order of requests only, as far as `correlation` says.
    Rank,
    /// The mean of all requests (of the class, where a class has it): what is known of a kind and not of a request.
    Mean,
}
