//! A ridge regression of TTFT and TPOT on what a gateway sees, trained as it goes.
//!
//! One of the models of llm-d's predictor side-car (`bayesian-ridge`; boosted trees are its default). Knows features and
//! latencies. Does not know replicas. Everything has a fixed size, so training and predicting allocate nothing.

use nalgebra::{SMatrix, SVector};

/// How many numbers describe a request and the endpoint it would go to.
pub const FEATURES: usize = 9;

/// A request and an endpoint, in numbers of about one.
pub type Features = SVector<f64, FEATURES>;

/// Added to the diagonal: what is not known is taken to have no influence.
const RIDGE: f64 = 1e-3;
/// Fewer samples predict nothing.
pub const FEWEST: u64 = 30;

/// One target.
#[derive(Clone, Debug)]
pub struct Regression {
    products: SMatrix<f64, FEATURES, FEATURES>,
    targets: Features,
    weights: Option<Features>,
    samples: u64,
}

impl Default for Regression {
    fn default() -> Self {
        Regression {
            products: SMatrix::identity() * RIDGE,
            targets: Features::zeros(),
            weights: None,
            samples: 0,
        }
    }
}

impl Regression {
    /// Another sample; it counts from the next [`Regression::train`] on.
    pub fn add(&mut self, features: &Features, target: f64) {
        self.products += features * features.transpose();
        self.targets += features * target;
        self.samples += 1;
    }

    /// Takes in what was added.
    pub fn train(&mut self) {
        if self.samples >= FEWEST
            && let Some(factor) = self.products.cholesky()
        {
            self.weights = Some(factor.solve(&self.targets));
        }
    }

    /// What it predicts, at least 0; none before it was trained on enough.
    pub fn predict(&self, features: &Features) -> Option<f64> {
        self.weights.as_ref().map(|weights| weights.dot(features).max(0.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_linear_truth_is_found() {
        let mut regression = Regression::default();
        let at = |i: u32| {
            let mut features = Features::from_element(0.0);
            features[0] = 1.0;
            features[1] = f64::from(i % 7);
            features[2] = f64::from(i % 5) / 5.0;
            features
        };
        for i in 0..FEWEST as u32 - 1 {
            regression.add(&at(i), 0.2 + 3.0 * at(i)[1] - at(i)[2]);
        }
        regression.train();
        assert_eq!(regression.predict(&at(3)), None);
        regression.add(&at(40), 0.2 + 3.0 * at(40)[1] - at(40)[2]);
        regression.train();
        let predicted = regression.predict(&at(4)).unwrap();
        assert!((predicted - (0.2 + 12.0 - 0.8)).abs() < 0.01, "{predicted}");
        // A latency is not negative.
        let mut far = at(0);
        far[2] = 1_000.0;
        assert_eq!(regression.predict(&far), Some(0.0));
    }
}
