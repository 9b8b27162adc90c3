//! The format of a calibration: the catalogue's prices times factors that were fitted to one server's measurements.
//!
//! A TOML file with what was measured, the factors, and the covariance of their logarithms. Knows how a set of factors
//! is drawn from it. Does not know how they were fitted.

use std::path::Path;

use nalgebra::{SMatrix, SVector};
use rand::RngExt;
use rand_distr::StandardNormal;
use serde::{Deserialize, Serialize};

use crate::hardware::{Deployment, Gpu, Model};
use crate::random::{Purpose, Seed};
use crate::step_time::multipliers::Multipliers;
use crate::step_time::roofline::{Roofline, RooflineError};

const COUNT: usize = Multipliers::COUNT;

/// Why a calibration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum CalibratedError {
    /// The file cannot be read, or is no calibration.
    #[error("{file}: {reason}")]
    File {
        /// Which.
        file: String,
        /// Why.
        reason: String,
    },
    /// The catalogue has no prices for this server.
    #[error(transparent)]
    Roofline(#[from] RooflineError),
}

/// The keys of the file.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    model: String,
    gpu: String,
    tensor_parallel_size: u32,
    /// Milliseconds between client and engine, where a client measured.
    #[serde(skip_serializing_if = "Option::is_none")]
    front_end_ms: Option<f64>,
    multipliers: toml::Table,
    /// Of the logarithms of the multipliers, in the order they stand in.
    covariance: Vec<Vec<f64>>,
}

/// A calibration of one model on one kind of card.
#[derive(Clone, Debug, PartialEq)]
pub struct Calibrated {
    /// The model's catalogue name.
    pub model: String,
    /// The card's catalogue name.
    pub gpu: String,
    /// Cards that share every layer.
    pub tensor_parallel_size: u32,
    /// Milliseconds between client and engine, where a client measured.
    pub front_end_ms: Option<f64>,
    /// The factors.
    pub multipliers: Multipliers,
    /// Covariance of their logarithms.
    pub covariance: SMatrix<f64, COUNT, COUNT>,
}

impl Calibrated {
    /// Reads a file that `tailcast calibrate` wrote.
    ///
    /// # Errors
    /// If it cannot be read, a factor is missing or not above zero, or the covariance is none.
    pub fn read(path: &Path) -> Result<Calibrated, CalibratedError> {
        let wrong = |reason: String| CalibratedError::File { file: path.display().to_string(), reason };
        let text = std::fs::read_to_string(path).map_err(|error| wrong(error.to_string()))?;
        let file: File = toml::from_str(&text).map_err(|error| wrong(error.to_string()))?;
        let mut multipliers = Multipliers::NONE;
        for (name, value) in Multipliers::NAMES.iter().zip(&mut multipliers.0) {
            let found = file.multipliers.get(*name).and_then(toml::Value::as_float);
            *value = found
                .filter(|value| value.is_finite() && *value > 0.0)
                .ok_or_else(|| wrong(format!("multipliers.{name}: expected a number above zero")))?;
        }
        if let Some(name) = file.multipliers.keys().find(|name| !Multipliers::NAMES.contains(&name.as_str()))
        {
            return Err(wrong(format!(
                "multipliers.{name}: no such factor; there are {}",
                Multipliers::NAMES.join(", ")
            )));
        }
        let square = file.covariance.len() == COUNT && file.covariance.iter().all(|row| row.len() == COUNT);
        if !square {
            return Err(wrong(format!("covariance: expected {COUNT} rows of {COUNT} numbers")));
        }
        let covariance = SMatrix::from_fn(|row, column| file.covariance[row][column]);
        if root(&covariance).is_none() {
            return Err(wrong("covariance: expected a symmetric matrix without negative directions".into()));
        }
        Ok(Calibrated {
            model: file.model,
            gpu: file.gpu,
            tensor_parallel_size: file.tensor_parallel_size,
            front_end_ms: file.front_end_ms,
            multipliers,
            covariance,
        })
    }

    /// The file's text.
    pub fn text(&self) -> String {
        let rounded = |value: f64| (value * 1e6).round() / 1e6;
        let multipliers = Multipliers::NAMES.iter().zip(self.multipliers.0);
        let file = File {
            model: self.model.clone(),
            gpu: self.gpu.clone(),
            tensor_parallel_size: self.tensor_parallel_size,
            front_end_ms: self.front_end_ms.map(rounded),
            multipliers: multipliers
                .map(|(name, value)| ((*name).to_string(), toml::Value::Float(rounded(value))))
                .collect(),
            covariance: self.covariance.row_iter().map(|row| row.iter().copied().collect()).collect(),
        };
        toml::to_string(&file).expect("numbers and names are TOML")
    }

    /// The factors of draw number `index`.
    pub fn drawn(&self, seed: Seed, index: u64) -> Multipliers {
        let mut stream = seed.stream(Purpose::Calibration, index);
        let normal: SVector<f64, COUNT> = SVector::from_fn(|_, _| stream.sample(StandardNormal));
        let shift = root(&self.covariance).expect("it was looked at when it was read") * normal;
        let mut drawn = self.multipliers;
        for (value, shift) in drawn.0.iter_mut().zip(shift.iter()) {
            *value *= shift.exp();
        }
        drawn
    }

    /// The catalogue's prices with these factors, and why they are less certain than where they were fitted.
    ///
    /// # Errors
    /// As [`Roofline::bind`].
    pub fn bind(
        &self,
        gpu: &Gpu,
        model: &Model,
        deployment: &Deployment,
    ) -> Result<(Roofline, Vec<String>), CalibratedError> {
        let roofline = Roofline::bind_scaled(gpu, model, deployment, &self.multipliers)?;
        let mut marks = Vec::new();
        let mut differs = |what: &str, fitted: &str, used: &str| {
            if fitted != used {
                marks.push(format!("calibrated with {what} {fitted}, used for {used}"));
            }
        };
        differs("model", &self.model, &model.name);
        differs("gpu", &self.gpu, &gpu.name);
        differs(
            "tensor_parallel_size",
            &self.tensor_parallel_size.to_string(),
            &deployment.tensor_parallel_size.to_string(),
        );
        Ok((roofline, marks))
    }
}

/// A matrix whose product with its own transpose is the covariance; none if there is none.
fn root(covariance: &SMatrix<f64, COUNT, COUNT>) -> Option<SMatrix<f64, COUNT, COUNT>> {
    let symmetric = (covariance - covariance.transpose()).amax() <= 1e-9 * covariance.amax();
    if !symmetric || covariance.iter().any(|value| !value.is_finite()) {
        return None;
    }
    let eigen = covariance.symmetric_eigen();
    let least = -1e-9 * covariance.amax();
    let positive = eigen.eigenvalues.iter().all(|value| *value >= least);
    let scale = SMatrix::from_diagonal(&eigen.eigenvalues.map(|value| value.max(0.0).sqrt()));
    positive.then(|| eigen.eigenvectors * scale)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn calibrated() -> Calibrated {
        let mut covariance = SMatrix::zeros();
        covariance[(0, 0)] = 0.0004;
        covariance[(1, 1)] = 0.0009;
        covariance[(0, 1)] = -0.0005;
        covariance[(1, 0)] = -0.0005;
        let mut multipliers = Multipliers::NONE;
        multipliers.0[0] = 1.25;
        Calibrated {
            model: "llama-3.1-8b".into(),
            gpu: "h100-sxm".into(),
            tensor_parallel_size: 1,
            front_end_ms: Some(5.5),
            multipliers,
            covariance,
        }
    }

    #[test]
    fn a_file_is_read_as_it_was_written() {
        let folder = tempfile::TempDir::new().unwrap();
        let path = folder.path().join("calibration.toml");
        std::fs::write(&path, calibrated().text()).unwrap();
        assert_eq!(Calibrated::read(&path).unwrap(), calibrated());

        let broken = |from: &str, to: &str| {
            let text = calibrated().text();
            assert!(text.contains(from), "{text}");
            std::fs::write(&path, text.replace(from, to)).unwrap();
            Calibrated::read(&path).unwrap_err().to_string()
        };
        assert!(
            broken("host = 1.0", "host = -1.0").contains("multipliers.host: expected a number above zero")
        );
        assert!(broken("host", "hots").contains("multipliers.host"));
        assert!(broken("0.0009", "-0.0009").contains("without negative directions"));
    }

    #[test]
    fn draws_have_the_covariance() {
        let calibrated = calibrated();
        let draws: Vec<[f64; COUNT]> =
            (0..4_000).map(|index| calibrated.drawn(Seed(1), index).0.map(f64::ln)).collect();
        let mean = |of: &dyn Fn(&[f64; COUNT]) -> f64| draws.iter().map(of).sum::<f64>() / draws.len() as f64;
        let first = mean(&|draw| draw[0]);
        assert!((first - 1.25f64.ln()).abs() < 0.002, "{first}");
        let second = mean(&|draw| draw[1]);
        let covariance = mean(&|draw| (draw[0] - first) * (draw[1] - second));
        assert!((covariance + 0.0005).abs() < 0.00005, "{covariance}");
        assert!(draws.iter().all(|draw| draw[6] == 0.0));
        assert_eq!(calibrated.drawn(Seed(1), 3), calibrated.drawn(Seed(1), 3));
    }
}
