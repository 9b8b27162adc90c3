//! What routers are told of output lengths, and how wrong it is.

use rand::distr::Distribution;
use rand_distr::StandardNormal;

use super::Job;
use crate::random::{Purpose, Seed};

/// A predictor of output lengths, by its errors.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Predictor {
    /// Says nothing.
    None,
    /// The truth times `bias`.
    Scaled {
        /// 1 is exact.
        bias: f64,
    },
    /// The truth times bias * exp(sigma * Z), Z standard normal: a median relative error of about 0.67 sigma.
    LogNormal {
        /// 1 is right in the median.
        bias: f64,
        /// Spread of the logarithm.
        sigma: f64,
    },
}

/// Longer than any model's context, and short enough to be multiplied by the time of a step.
const LONGEST_PREDICTION: u32 = 1 << 24;

impl Predictor {
    /// Writes a prediction into every job. Each job draws from a stream of its own.
    pub fn predict(&self, jobs: &mut [Job], seed: Seed) {
        for job in jobs {
            let factor = match *self {
                Predictor::None => continue,
                Predictor::Scaled { bias } => bias,
                Predictor::LogNormal { bias, sigma } => {
                    let mut stream = seed.stream(Purpose::Prediction, u64::from(job.request.id.0));
                    let z: f64 = StandardNormal.sample(&mut stream);
                    bias * (sigma * z).exp()
                }
            };
            let predicted = (f64::from(job.request.output_tokens) * factor).round();
            job.predicted_output_tokens = Some((predicted as u32).clamp(1, LONGEST_PREDICTION));
        }
    }
}
