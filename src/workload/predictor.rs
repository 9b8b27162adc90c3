//! What routers are told of output lengths, and how wrong it is.
//!
//! Knows true lengths and error models consistent with what published predictors report. Does not know who uses it.

use rand::RngExt;
use rand::distr::Distribution;
use rand_distr::StandardNormal;
use statrs::distribution::{ContinuousCDF, Normal};

use super::Job;
use crate::random::{Purpose, Seed, Stream};

/// A predictor of output lengths, by its errors.
#[derive(Clone, Debug, PartialEq)]
pub enum Model {
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
    /// A classifier of lengths: the right bucket by chance, else one beside it (S3, TetriInfer).
    Buckets {
        /// Upper ends of all buckets but the last, rising.
        edges: Vec<u32>,
        /// How often it is right.
        accuracy: f64,
        /// What a bucket is taken to say.
        value: BucketValue,
    },
    /// Orders requests with this correlation of normal scores to the truth, and is right in nothing else (LTR): the lengths
    /// it gives are the true ones, dealt out in its order. Kendall's tau is (2 / pi) asin of it.
    Rank {
        /// -1 to 1.
        correlation: f64,
    },
    /// The mean of all requests with this predictor: what is known of a class and not of a request.
    Mean,
}

/// What a bucket is taken to say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum BucketValue {
    /// Half way between its ends; of the last, half as much again as its lower end.
    #[default]
    Middle,
    /// Its upper end; of the last, twice its lower end.
    Upper,
}

impl Model {
    /// Whether what it says of one request depends on the others, so that all must be known beforehand.
    pub fn needs_all(&self) -> bool {
        matches!(self, Model::Rank { .. } | Model::Mean)
    }
}

/// A model for each class of requests.
#[derive(Clone, Debug, PartialEq)]
pub struct Predictor {
    /// Of requests whose class has none of its own.
    pub common: Model,
    /// By class.
    pub of_class: Vec<Option<Model>>,
}

impl From<Model> for Predictor {
    fn from(common: Model) -> Predictor {
        Predictor { common, of_class: Vec::new() }
    }
}

/// Longer than any model's context, and short enough to be multiplied by the time of a step.
const LONGEST_PREDICTION: u32 = 1 << 24;

impl Predictor {
    /// All models.
    pub fn models(&self) -> impl Iterator<Item = &Model> {
        std::iter::once(&self.common).chain(self.of_class.iter().flatten())
    }

    /// Writes a prediction into every job. Each job draws from a stream of its own.
    pub fn predict(&self, jobs: &mut [Job], seed: Seed) {
        let own = |class: u16| self.of_class.get(usize::from(class)).and_then(Option::as_ref);
        let of_common: Vec<usize> =
            (0..jobs.len()).filter(|&place| own(jobs[place].class).is_none()).collect();
        predict_by(&self.common, jobs, &of_common, seed);
        for (class, model) in self.of_class.iter().enumerate() {
            let Some(model) = model else { continue };
            let of_class: Vec<usize> =
                (0..jobs.len()).filter(|&place| usize::from(jobs[place].class) == class).collect();
            predict_by(model, jobs, &of_class, seed);
        }
    }
}

fn predict_by(model: &Model, jobs: &mut [Job], places: &[usize], seed: Seed) {
    match model {
        Model::None => {}
        Model::Rank { correlation } => predict_ranks(jobs, places, *correlation, seed),
        Model::Mean => {
            let sum: u64 = places.iter().map(|&place| u64::from(jobs[place].request.output_tokens)).sum();
            let mean = sum as f64 / places.len().max(1) as f64;
            for &place in places {
                jobs[place].predicted_output_tokens = Some(whole(mean));
            }
        }
        _ => {
            for &place in places {
                let truth = jobs[place].request.output_tokens;
                let stream = || seed.stream(Purpose::Prediction, u64::from(jobs[place].request.id.0));
                let predicted = match model {
                    Model::Scaled { bias } => f64::from(truth) * bias,
                    Model::LogNormal { bias, sigma } => {
                        let z: f64 = StandardNormal.sample(&mut stream());
                        f64::from(truth) * bias * (sigma * z).exp()
                    }
                    Model::Buckets { edges, accuracy, value } => {
                        bucket_value(edges, bucket(edges, truth, *accuracy, &mut stream()), *value)
                    }
                    Model::None | Model::Rank { .. } | Model::Mean => unreachable!("handled above"),
                };
                jobs[place].predicted_output_tokens = Some(whole(predicted));
            }
        }
    }
}

fn whole(predicted: f64) -> u32 {
    (predicted.round() as u32).clamp(1, LONGEST_PREDICTION)
}

/// The bucket that is told: the right one, or at the same odds one beside it.
fn bucket(edges: &[u32], truth: u32, accuracy: f64, stream: &mut Stream) -> usize {
    let right = edges.partition_point(|&edge| edge < truth);
    if stream.random::<f64>() < accuracy {
        return right;
    }
    let above = stream.random::<bool>();
    match (right, above) {
        (0, _) => 1.min(edges.len()),
        (right, true) if right < edges.len() => right + 1,
        (right, _) => right - 1,
    }
}

fn bucket_value(edges: &[u32], bucket: usize, value: BucketValue) -> f64 {
    let lower = bucket.checked_sub(1).map_or(0.0, |below| f64::from(edges[below]));
    match (edges.get(bucket), value) {
        (Some(&upper), BucketValue::Upper) => f64::from(upper),
        (Some(&upper), BucketValue::Middle) => (lower + f64::from(upper)) / 2.0,
        (None, BucketValue::Upper) => 2.0 * lower,
        (None, BucketValue::Middle) => 1.5 * lower,
    }
}

/// Deals out the true lengths in an order that correlates with the true one: a Gaussian copula.
fn predict_ranks(jobs: &mut [Job], places: &[usize], correlation: f64, seed: Seed) {
    let normal = Normal::standard();
    let mut by_truth: Vec<usize> = places.to_vec();
    by_truth.sort_by_key(|&place| (jobs[place].request.output_tokens, jobs[place].request.id));
    let spread = (1.0 - correlation * correlation).sqrt();
    let count = by_truth.len() as f64;
    let scored = by_truth.iter().enumerate().map(|(rank, &place)| {
        let score = normal.inverse_cdf((rank as f64 + 0.5) / count);
        let mut stream = seed.stream(Purpose::Prediction, u64::from(jobs[place].request.id.0));
        let z: f64 = StandardNormal.sample(&mut stream);
        (correlation * score + spread * z, place)
    });
    let mut by_score: Vec<(f64, usize)> = scored.collect();
    by_score.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
    let lengths: Vec<u32> = by_truth.iter().map(|&place| jobs[place].request.output_tokens).collect();
    for ((_, place), length) in by_score.into_iter().zip(lengths) {
        jobs[place].predicted_output_tokens = Some(length.clamp(1, LONGEST_PREDICTION));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::request::{Content, Request, RequestId};
    use crate::time::Time;

    fn jobs(count: u32) -> Vec<Job> {
        let job = |id: u32| Job {
            sent: Time::ZERO,
            request: Request {
                id: RequestId(id),
                prompt_tokens: 10,
                output_tokens: 1 + (id * 7919) % 997,
                max_tokens: None,
                priority: 0,
                attempt: 0,
                arrival_order: 0,
                content: Content::default(),
                remote_tokens: 0,
            },
            session: None,
            class: (id % 2) as u16,
            waits: Default::default(),
            predicted_output_tokens: None,
        };
        (0..count).map(job).collect()
    }

    fn predicted(model: Model, count: u32) -> Vec<(u32, u32)> {
        let mut jobs = jobs(count);
        Predictor::from(model).predict(&mut jobs, Seed(3));
        jobs.iter().map(|job| (job.request.output_tokens, job.predicted_output_tokens.unwrap())).collect()
    }

    /// Section 11.4: a median absolute relative error of 0.674 sigma for small sigma.
    #[test]
    fn a_lognormal_error_has_its_median() {
        let mut errors: Vec<f64> = predicted(Model::LogNormal { bias: 1.0, sigma: 0.1 }, 4_001)
            .iter()
            .filter(|(truth, _)| *truth > 100)
            .map(|(truth, said)| (f64::from(*said) / f64::from(*truth) - 1.0).abs())
            .collect();
        errors.sort_by(f64::total_cmp);
        let median = errors[errors.len() / 2];
        assert!((0.062..0.073).contains(&median), "{median}");
    }

    /// Section 11.4: Kendall's tau = (2 / pi) asin(rho), here 0.81 and 0.6.
    #[test]
    fn ranks_agree_as_far_as_the_correlation_says() {
        let pairs = predicted(Model::Rank { correlation: 0.81 }, 1_500);
        let (mut concordant, mut discordant) = (0u32, 0u32);
        for (place, a) in pairs.iter().enumerate() {
            for b in &pairs[place + 1..] {
                match (a.0.cmp(&b.0) as i32) * (a.1.cmp(&b.1) as i32) {
                    1 => concordant += 1,
                    -1 => discordant += 1,
                    _ => {}
                }
            }
        }
        let tau = (f64::from(concordant) - f64::from(discordant)) / f64::from(concordant + discordant);
        assert!((0.57..0.63).contains(&tau), "{tau}");
        // The lengths are the true ones in another order.
        let (mut truths, mut said): (Vec<u32>, Vec<u32>) = pairs.into_iter().unzip();
        truths.sort_unstable();
        said.sort_unstable();
        assert_eq!(truths, said);
        assert!(predicted(Model::Rank { correlation: 1.0 }, 500).iter().all(|(truth, said)| truth == said));
    }

    #[test]
    fn buckets_are_right_as_often_as_they_say_and_else_one_beside() {
        let edges = vec![100, 200, 400];
        let middles = [50, 150, 300, 600];
        let model = Model::Buckets { edges: edges.clone(), accuracy: 0.7, value: BucketValue::Middle };
        let pairs = predicted(model, 4_000);
        let place = |said: u32| middles.iter().position(|&middle| middle == said).unwrap();
        let off: Vec<usize> = pairs
            .iter()
            .map(|&(truth, said)| place(said).abs_diff(edges.partition_point(|&edge| edge < truth)))
            .collect();
        assert!(off.iter().all(|&off| off <= 1));
        let right = off.iter().filter(|&&off| off == 0).count() as f64 / off.len() as f64;
        assert!((0.68..0.72).contains(&right), "{right}");
        let upper = Model::Buckets { edges, accuracy: 1.0, value: BucketValue::Upper };
        assert!(predicted(upper, 100).iter().all(|(_, said)| [100, 200, 400, 800].contains(said)));
    }

    #[test]
    fn classes_may_have_models_of_their_own() {
        let mut jobs = jobs(100);
        let of_class = vec![None, Some(Model::Mean)];
        Predictor { common: Model::Scaled { bias: 2.0 }, of_class }.predict(&mut jobs, Seed(1));
        let sum: u32 = jobs.iter().filter(|job| job.class == 1).map(|job| job.request.output_tokens).sum();
        for job in &jobs {
            let twice = 2 * job.request.output_tokens;
            let expected = if job.class == 0 { twice } else { (f64::from(sum) / 50.0).round() as u32 };
            assert_eq!(job.predicted_output_tokens, Some(expected));
        }
    }
}
