//! Least squares of logarithms, pulled towards what was known before.
//!
//! Knows residuals as a function of parameters. Each kind of observation is weighed by its own scatter, outliers count
//! with less (Huber), and neighbours are not taken to be independent: where the pulls of whole stretches of observations
//! exceed what as many independent ones would have, all count with that much less, so a queue that shows in a hundred
//! requests does not count a hundred times.
//!
//! A replay is made of discrete moments: a first token that just misses a step jumps by the whole step when a price
//! moves by a hair. So requests are taken ten by ten, in the mean of their logarithms.

use nalgebra::{SMatrix, SVector};

use super::PARAMETERS;
use super::evidence::{Kind, Observation};

type Vector = SVector<f64, PARAMETERS>;
type Matrix = SMatrix<f64, PARAMETERS, PARAMETERS>;

/// Rounds at most; the fit settles after a few.
const ROUNDS: usize = 20;
/// Step of a difference quotient, to both sides: logarithms of times are nearly straight in logarithms of factors, and a
/// wide step drowns the jumps, which would pass for knowledge.
const STEP: f64 = 0.2;
/// The least step, near the end: a queue bends, and a wide step then points past the valley.
const LEAST_STEP: f64 = 0.02;
/// Requests that are taken together.
const TOGETHER: usize = 10;
/// Shorter and shorter steps that are tried in a round.
const TRIES: usize = 8;
/// Residuals beyond so many scatters count with less.
const HUBER: f64 = 2.0;
/// Stretches of neighbouring observations.
const STRETCHES: usize = 20;
/// The least scatter of each kind: no measurement of a step is better, and no replay hits a first token better than by
/// a part of a step.
const LEAST_SCATTER: [f64; Kind::ALL.len()] = [0.002, 0.03, 0.003];

/// Fitted parameters, as logarithms.
#[derive(Clone, Debug, PartialEq)]
pub struct Fit {
    /// Logarithms of the factors.
    pub parameters: [f64; PARAMETERS],
    /// Their covariance.
    pub covariance: Matrix,
    /// What their variances were before anything was measured.
    pub prior: [f64; PARAMETERS],
}

impl Fit {
    /// A factor with the ends of its 95 % interval.
    pub fn interval(&self, index: usize) -> [f64; 3] {
        let half = 1.96 * self.covariance[(index, index)].sqrt();
        [self.parameters[index] - half, self.parameters[index], self.parameters[index] + half].map(f64::exp)
    }

    /// How much of what was not known about a parameter the data took away, 0 to 1.
    pub fn learnt(&self, index: usize) -> f64 {
        (1.0 - self.covariance[(index, index)] / self.prior[index]).clamp(0.0, 1.0)
    }
}

/// The parameters that make `observe` least, each pulled to zero by its `sigmas`.
pub fn fit(observe: &dyn Fn(&[f64; PARAMETERS]) -> Vec<Observation>, sigmas: &[f64; PARAMETERS]) -> Fit {
    let observe = &|parameters: &[f64; PARAMETERS]| together(&observe(parameters));
    let precision = Matrix::from_diagonal(&Vector::from_fn(|index, _| sigmas[index].powi(-2)));
    let mut theta = Vector::zeros();
    let mut covariance = precision;
    // How many neighbours speak as one is known only when something was fitted.
    let mut neighbours = 1.0;
    for _ in 0..2 {
        theta = descend(observe, theta, neighbours, &precision);
        let here = observe(&theta.into());
        let scatter = Scatter::of(&here, neighbours);
        let slope = linearise(observe, &theta, &here, STEP, &scatter, &precision);
        covariance = slope.normal.try_inverse().unwrap_or(covariance);
        neighbours *= overdispersion(&slope.jacobian, &here, &scatter, &precision);
    }
    Fit {
        parameters: theta.into(),
        covariance: (covariance + covariance.transpose()) * 0.5,
        prior: sigmas.map(|sigma| sigma * sigma),
    }
}

/// Steps as they are, requests by tens: the mean of their logarithms.
fn together(seen: &[Observation]) -> Vec<Observation> {
    let mut means = Vec::new();
    for kind in Kind::ALL {
        let of_kind: Vec<Observation> = seen.iter().filter(|seen| seen.kind == kind).copied().collect();
        for some in of_kind.chunks(if kind == Kind::Step { 1 } else { TOGETHER }) {
            let log_ratio = some.iter().map(|seen| seen.log_ratio).sum::<f64>() / some.len() as f64;
            means.push(Observation { log_ratio, ..some[0] });
        }
    }
    means
}

/// Goes down from `theta` as far as it goes (Levenberg and Marquardt).
fn descend(
    observe: &dyn Fn(&[f64; PARAMETERS]) -> Vec<Observation>,
    mut theta: Vector,
    neighbours: f64,
    precision: &Matrix,
) -> Vector {
    let mut here = observe(&theta.into());
    let (mut damping, mut width) = (1e-3, STEP);
    for _ in 0..ROUNDS {
        let scatter = Scatter::of(&here, neighbours);
        let slope = linearise(observe, &theta, &here, width, &scatter, precision);
        let before = cost(&here, &scatter, &theta, precision);
        let better = (0..TRIES).find_map(|_| {
            let damped = slope.normal + Matrix::from_diagonal(&slope.normal.diagonal()) * damping;
            let step = damped.cholesky()?.solve(&slope.pull);
            let tried = theta - step;
            let there = observe(&tried.into());
            if cost(&there, &scatter, &tried, precision) < before {
                damping *= 0.3;
                return Some((tried, there, step.amax()));
            }
            damping *= 4.0;
            None
        });
        let mut moved = 0.0;
        if let Some((tried, there, by)) = better {
            (theta, here, moved) = (tried, there, by);
        }
        if moved < 1e-3 {
            if width <= LEAST_STEP {
                break;
            }
            (width, damping) = (width / 3.0, 1e-3);
        }
    }
    theta
}

/// By how much the pulls of whole stretches exceed those of as many independent observations.
fn overdispersion(jacobian: &[Vector], here: &[Observation], scatter: &Scatter, precision: &Matrix) -> f64 {
    let scale = precision.diagonal().map(|value| value.sqrt().recip());
    let (mut together, mut apart) = (0.0, 0.0);
    let stretch = here.len().div_ceil(STRETCHES).max(1);
    for (gradients, observations) in jacobian.chunks(stretch).zip(here.chunks(stretch)) {
        let mut pull = Vector::zeros();
        for (gradient, seen) in gradients.iter().zip(observations) {
            let gradient = gradient.component_mul(&scale);
            let weight = scatter.weight(seen);
            pull += gradient * (weight * seen.log_ratio);
            apart += weight * gradient.norm_squared();
        }
        together += pull.norm_squared();
    }
    if apart > 0.0 { (together / apart).max(1.0) } else { 1.0 }
}

/// How observations change with the parameters.
struct Slope {
    /// The gradient of each observation.
    jacobian: Vec<Vector>,
    normal: Matrix,
    /// Half the gradient of the cost.
    pull: Vector,
}

fn linearise(
    observe: &dyn Fn(&[f64; PARAMETERS]) -> Vec<Observation>,
    theta: &Vector,
    here: &[Observation],
    width: f64,
    scatter: &Scatter,
    precision: &Matrix,
) -> Slope {
    let mut jacobian = vec![Vector::zeros(); here.len()];
    for parameter in 0..PARAMETERS {
        let moved = |by: f64| {
            let mut moved = *theta;
            moved[parameter] += by;
            observe(&moved.into())
        };
        let both = moved(width).into_iter().zip(moved(-width));
        for (gradient, (more, less)) in jacobian.iter_mut().zip(both) {
            gradient[parameter] = (more.log_ratio - less.log_ratio) / (2.0 * width);
        }
    }
    let (mut normal, mut pull) = (*precision, precision * theta);
    for (gradient, seen) in jacobian.iter().zip(here) {
        let weight = scatter.weight(seen);
        normal += gradient * gradient.transpose() * weight;
        pull += gradient * (weight * seen.log_ratio);
    }
    Slope { jacobian, normal, pull }
}

fn cost(seen: &[Observation], scatter: &Scatter, theta: &Vector, precision: &Matrix) -> f64 {
    let misfit: f64 = seen.iter().map(|seen| scatter.weight(seen) * seen.log_ratio.powi(2)).sum();
    misfit + (theta.transpose() * precision * theta)[0]
}

/// The scatter of each kind of observation: the median of its absolute residuals, as that of a normal one.
struct Scatter {
    sigmas: [f64; Kind::ALL.len()],
    /// So many neighbours speak as one.
    neighbours: f64,
}

impl Scatter {
    fn of(seen: &[Observation], neighbours: f64) -> Scatter {
        let sigmas = Kind::ALL.map(|kind| {
            let mut absolute: Vec<f64> =
                seen.iter().filter(|seen| seen.kind == kind).map(|seen| seen.log_ratio.abs()).collect();
            absolute.sort_by(f64::total_cmp);
            let median = absolute.get(absolute.len() / 2).copied().unwrap_or(1.0);
            (1.4826 * median).max(LEAST_SCATTER[kind as usize])
        });
        Scatter { sigmas, neighbours }
    }

    fn weight(&self, seen: &Observation) -> f64 {
        let sigma = self.sigmas[seen.kind as usize];
        let far = seen.log_ratio.abs() / (HUBER * sigma);
        sigma.powi(-2) / (far.max(1.0) * self.neighbours)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Observations that depend on the first two parameters alone, the truth being 0.1 and -0.05.
    fn observe(parameters: &[f64; PARAMETERS]) -> Vec<Observation> {
        (0..200)
            .map(|index| {
                let share = f64::from(index % 10) / 10.0;
                let noise = 0.01 * f64::from(index * 7919 % 101 - 50) / 50.0;
                let log_ratio =
                    share * (parameters[0] - 0.1) + (1.0 - share) * (parameters[1] + 0.05) + noise;
                Observation { kind: Kind::Step, region: "", log_ratio }
            })
            .collect()
    }

    #[test]
    fn what_the_data_say_is_found_and_the_rest_stays() {
        let fit = fit(&observe, &[0.15; PARAMETERS]);
        assert!((fit.parameters[0] - 0.1).abs() < 0.004, "{:?}", fit.parameters);
        assert!((fit.parameters[1] + 0.05).abs() < 0.004, "{:?}", fit.parameters);
        assert!(fit.parameters[2..].iter().all(|value| value.abs() < 1e-9));
        assert!(fit.learnt(0) > 0.95 && fit.learnt(1) > 0.95 && fit.learnt(2) < 0.01);
        let [low, middle, high] = fit.interval(0);
        assert!(low < 0.1f64.exp() && 0.1f64.exp() < high && middle < 1.12, "{low} {middle} {high}");
        // Nothing was seen of the third: its interval is what was known before.
        assert!((fit.interval(2)[2] - (1.96 * 0.15f64).exp()).abs() < 1e-6);
    }

    #[test]
    fn outliers_pull_little() {
        let with_outliers = |parameters: &[f64; PARAMETERS]| {
            let mut seen = observe(parameters);
            for seen in seen.iter_mut().step_by(20) {
                seen.log_ratio += 3.0;
            }
            seen
        };
        let fit = fit(&with_outliers, &[0.15; PARAMETERS]);
        assert!((fit.parameters[0] - 0.1).abs() < 0.02, "{:?}", fit.parameters);
    }
}
