//! Factors on the catalogue's prices, from what an operator has measured anyway.
//!
//! Knows three kinds of evidence: logs of steps, results of `vllm bench serve`, and logs of requests. Steps are priced;
//! requests are replayed on the real scheduler. Does not know how evidence was gathered, nor what is done with the
//! result.
//!
//! - [`evidence`]: what was measured, and what a set of factors makes of it
//! - [`step_log`], [`bench`]: formats; that of request logs is in [`crate::verify::measured`]
//! - [`fit`]: the factors that come nearest, with their covariance

use std::sync::Arc;

use crate::step_time::calibrated::Calibrated;
use crate::step_time::multipliers::Multipliers;
use crate::step_time::roofline::{Roofline, RooflineError};
use crate::verify::latency::Way;
use crate::verify::server::Server;

pub mod bench;
pub mod evidence;
pub mod fit;
pub mod step_log;

use evidence::{Evidence, Observation};
use fit::Fit;

/// Parameters of the fit: the factors, and one on the time between client and engine.
pub const PARAMETERS: usize = Multipliers::COUNT + 1;

/// How far the logarithm of each parameter is from zero where nothing was measured: operator tables are right to a
/// tenth, launches and hosts differ by half and more.
const PRIOR_SIGMAS: [f64; PARAMETERS] = [0.1, 0.15, 0.15, 0.2, 0.2, 0.5, 0.5, 0.5];

/// The name of parameter number `index`.
pub fn name(index: usize) -> &'static str {
    Multipliers::NAMES.get(index).copied().unwrap_or("front_end")
}

/// A server, and what was measured on it.
#[derive(Clone, Debug)]
pub struct Subject {
    /// The server.
    pub server: Server,
    /// What was measured.
    pub evidence: Vec<Evidence>,
}

/// What a calibration found.
#[derive(Clone, Debug)]
pub struct Findings {
    /// The parameters and their covariance.
    pub fit: Fit,
    /// Every observation under the catalogue's own prices.
    pub before: Vec<Observation>,
    /// Every observation under the fitted ones, in the same order.
    pub after: Vec<Observation>,
    /// Whether each observation had a part in the fit.
    pub fitted: Vec<bool>,
    /// The result as a file holds it.
    pub calibrated: Calibrated,
}

impl Subject {
    fn observe(&self, parameters: &[f64; PARAMETERS]) -> Result<Vec<Observation>, RooflineError> {
        let mut multipliers = Multipliers::NONE;
        for (value, log) in multipliers.0.iter_mut().zip(parameters) {
            *value = log.exp();
        }
        let placement = &self.server.placement;
        let roofline =
            Roofline::bind_scaled(placement.gpu, &placement.model, &placement.deployment, &multipliers)?;
        let server = self.server.priced(Arc::new(roofline));
        let front_end = Way::LOCAL.front_end.as_us() * parameters[Multipliers::COUNT].exp();
        Ok(self.evidence.iter().flat_map(|evidence| evidence.observe(&server, front_end)).collect())
    }

    /// Fits the factors; to every second observation and judged by the others, unless `to_all`.
    ///
    /// # Errors
    /// If the catalogue has no prices for the server.
    pub fn calibrate(&self, to_all: bool) -> Result<Findings, RooflineError> {
        let before = self.observe(&[0.0; PARAMETERS])?;
        // A request has two observations side by side, and they stay together.
        let fitted: Vec<bool> = (0..before.len()).map(|index| to_all || index % 4 < 2).collect();
        let residuals = |parameters: &[f64; PARAMETERS]| -> Vec<Observation> {
            // What could be bound once can be bound again.
            let all = self.observe(parameters).unwrap_or_else(|_| before.clone());
            all.into_iter().zip(&fitted).filter(|(_, fitted)| **fitted).map(|(of, _)| of).collect()
        };
        let mut sigmas = PRIOR_SIGMAS;
        if !self.evidence.iter().any(Evidence::seen_by_client) {
            // Nothing depends on it.
            sigmas[Multipliers::COUNT] = 1e-6;
        }
        let fit = fit::fit(&residuals, &sigmas);
        let after = self.observe(&fit.parameters)?;
        let placement = &self.server.placement;
        let mut multipliers = Multipliers::NONE;
        for (value, log) in multipliers.0.iter_mut().zip(fit.parameters) {
            *value = log.exp();
        }
        let client = self.evidence.iter().any(Evidence::seen_by_client);
        let calibrated = Calibrated {
            model: placement.model.name.clone(),
            gpu: placement.gpu.name.clone(),
            tensor_parallel_size: placement.deployment.tensor_parallel_size,
            front_end_ms: client
                .then(|| Way::LOCAL.front_end.as_ms() * fit.parameters[Multipliers::COUNT].exp()),
            multipliers,
            covariance: fit
                .covariance
                .fixed_view::<{ Multipliers::COUNT }, { Multipliers::COUNT }>(0, 0)
                .into(),
        };
        Ok(Findings { fit, before, after, fitted, calibrated })
    }
}
