//! How long prompts and outputs are.

use std::sync::Arc;

use rand::RngExt;
use rand::distr::Distribution;
use rand_distr::{LogNormal, Pareto, Zipf};

use crate::random::Stream;

/// How long prompts or outputs are, in tokens.
#[derive(Clone, Debug, PartialEq)]
pub enum Lengths {
    /// All alike.
    Fixed(u32),
    /// Whole numbers from `min` to `max`, both included, all equally likely.
    Uniform {
        /// Least.
        min: u32,
        /// Most.
        max: u32,
    },
    /// Log-normal with this mean and standard deviation of the tokens themselves, cut to `min ..= max`.
    LogNormal {
        /// Mean before cutting.
        mean: f64,
        /// Standard deviation before cutting.
        std: f64,
        /// Least.
        min: u32,
        /// Most.
        max: u32,
    },
    /// Pareto: the chance to be longer than x is (min / x)^alpha, cut at `max`.
    Pareto {
        /// Least.
        min: u32,
        /// The tail's exponent: the smaller, the heavier.
        alpha: f64,
        /// Most.
        max: u32,
    },
    /// `min` + k - 1 with a chance in proportion to 1 / k^exponent, k up to `max` - `min` + 1.
    Zipf {
        /// Least, and most frequent.
        min: u32,
        /// Most.
        max: u32,
        /// How fast frequency falls.
        exponent: f64,
    },
    /// As often as they were measured.
    Empirical(Arc<[u32]>),
    /// Straight between points of the distribution: the share of requests at most so long, rising from 0 to 1.
    Quantiles(Arc<[(f64, u32)]>),
    /// One of several, by weight.
    Mixture(Vec<(f64, Lengths)>),
}

/// Draws one length after another.
pub(super) struct LengthDraws {
    kind: Kind,
    stream: Stream,
}

enum Kind {
    Fixed(u32),
    Uniform(u32, u32),
    LogNormal(LogNormal<f64>, u32, u32),
    Pareto(Pareto<f64>, u32, u32),
    Zipf(Zipf<f64>, u32),
    Empirical(Arc<[u32]>),
    Quantiles(Arc<[(f64, u32)]>),
    /// Weights up to and with each part.
    Mixture(Vec<(f64, Kind)>),
}

impl LengthDraws {
    pub(super) fn new(lengths: &Lengths, stream: Stream) -> LengthDraws {
        LengthDraws { kind: Kind::new(lengths), stream }
    }

    pub(super) fn next(&mut self) -> u32 {
        self.kind.draw(&mut self.stream)
    }
}

impl Kind {
    fn new(lengths: &Lengths) -> Kind {
        match lengths {
            Lengths::Fixed(tokens) => Kind::Fixed(*tokens),
            Lengths::Uniform { min, max } => Kind::Uniform(*min, *max),
            Lengths::LogNormal { mean, std, min, max } => {
                // Moments of the tokens into those of their logarithm.
                let variance = (1.0 + (std / mean).powi(2)).ln();
                let location = mean.ln() - variance / 2.0;
                let normal = LogNormal::new(location, variance.sqrt()).expect("validated moments");
                Kind::LogNormal(normal, *min, *max)
            }
            Lengths::Pareto { min, alpha, max } => {
                Kind::Pareto(Pareto::new(f64::from(*min), *alpha).expect("a validated tail"), *min, *max)
            }
            Lengths::Zipf { min, max, exponent } => {
                let count = f64::from(max - min) + 1.0;
                Kind::Zipf(Zipf::new(count, *exponent).expect("a validated exponent"), *min)
            }
            Lengths::Empirical(measured) => Kind::Empirical(measured.clone()),
            Lengths::Quantiles(points) => Kind::Quantiles(points.clone()),
            Lengths::Mixture(parts) => {
                let mut sum = 0.0;
                let parts = parts.iter().map(|(weight, part)| {
                    sum += weight;
                    (sum, Kind::new(part))
                });
                Kind::Mixture(parts.collect())
            }
        }
    }

    fn draw(&self, stream: &mut Stream) -> u32 {
        match self {
            Kind::Fixed(tokens) => *tokens,
            Kind::Uniform(min, max) => stream.random_range(*min..=*max),
            Kind::LogNormal(normal, min, max) => (normal.sample(stream).round() as u32).clamp(*min, *max),
            Kind::Pareto(pareto, min, max) => (pareto.sample(stream).round() as u32).clamp(*min, *max),
            Kind::Zipf(zipf, min) => min + (zipf.sample(stream) as u32).saturating_sub(1),
            Kind::Empirical(measured) => measured[stream.random_range(0..measured.len())],
            Kind::Quantiles(points) => {
                let at: f64 = stream.random();
                let above = points.partition_point(|(share, _)| *share <= at).clamp(1, points.len() - 1);
                let ((low, from), (high, to)) = (points[above - 1], points[above]);
                let between = ((at - low) / (high - low)).clamp(0.0, 1.0);
                (f64::from(from) + (f64::from(to) - f64::from(from)) * between).round() as u32
            }
            Kind::Mixture(parts) => {
                let total = parts.last().map_or(0.0, |(sum, _)| *sum);
                let at = stream.random::<f64>() * total;
                let part = parts.iter().find(|(sum, _)| at < *sum).or(parts.last());
                part.map_or(1, |(_, part)| part.draw(stream))
            }
        }
    }
}
