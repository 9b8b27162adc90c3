//! Requests drawn from parameters: arrivals, lengths and shared prefixes, each from a stream of its own, so
//! that changing one redraws nothing else (law 8).

use rand::RngExt;
use rand::distr::Distribution;
use rand_distr::{Exp1, Gamma, LogNormal, Zipf};

use super::Job;
use crate::random::{Purpose, Seed, Stream};
use crate::request::{Content, ContentRun, Request, RequestId};
use crate::time::{Span, Time};

/// When requests are sent.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum ArrivalProcess {
    /// Equal gaps.
    Deterministic,
    /// Exponential gaps.
    Poisson,
    /// Gamma gaps with this coefficient of variation: above 1 is burstier than Poisson.
    Gamma {
        /// Standard deviation of the gaps over their mean.
        cv: f64,
    },
}

/// How long prompts or outputs are, in tokens.
#[derive(Clone, Copy, Debug, PartialEq)]
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
}

/// Prefixes that requests share: each request opens with one of `groups`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Prefixes {
    /// How many different ones.
    pub groups: u32,
    /// Tokens of each; they come on top of the drawn prompt length.
    pub tokens: u32,
    /// Popularity: the k-th is chosen in proportion to 1 / k^exponent. 0 is uniform.
    pub zipf_exponent: f64,
}

/// A workload by its parameters.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Drawn {
    /// How many requests.
    pub requests: u32,
    /// Mean arrivals a second.
    pub rate_per_s: f64,
    /// Gaps between them.
    pub process: ArrivalProcess,
    /// Prompts, shared prefixes not counted.
    pub prompt_tokens: Lengths,
    /// Outputs.
    pub output_tokens: Lengths,
    /// Shared prefixes, if any.
    pub prefixes: Option<Prefixes>,
}

impl Drawn {
    /// All requests, in order of sending; the first is sent one gap after the start.
    ///
    /// # Panics
    /// If the parameters have not been validated: a rate, a deviation or a range that cannot be.
    pub fn draw(&self, seed: Seed) -> Vec<Job> {
        let mut gaps = Gaps::new(self.process, seed.stream(Purpose::Arrivals, 0));
        let mut prompts = Draws::new(self.prompt_tokens, seed.stream(Purpose::PromptTokens, 0));
        let mut outputs = Draws::new(self.output_tokens, seed.stream(Purpose::OutputTokens, 0));
        let mut groups = seed.stream(Purpose::Prefixes, 0);
        let popularity = self.prefixes.map(|prefixes| {
            Zipf::new(f64::from(prefixes.groups), prefixes.zipf_exponent).expect("validated prefixes")
        });
        let mean_gap_s = 1.0 / self.rate_per_s;
        let mut sent = Time::ZERO;
        (0..self.requests)
            .map(|number| {
                sent += Span::from_s_f64(mean_gap_s * gaps.next());
                let mut prompt_tokens = prompts.next();
                let mut content = Content::default();
                if let (Some(prefixes), Some(popularity)) = (self.prefixes, popularity) {
                    let group = popularity.sample(&mut groups) as u64;
                    prompt_tokens += prefixes.tokens;
                    content = Content::from_runs([ContentRun {
                        stream: group,
                        position: 0,
                        tokens: prefixes.tokens,
                    }]);
                }
                Job {
                    sent,
                    request: Request {
                        id: RequestId(number),
                        prompt_tokens,
                        output_tokens: outputs.next(),
                        max_tokens: None,
                        priority: 0,
                        arrival_order: u64::from(number),
                        content,
                        remote_tokens: 0,
                    },
                    session: None,
                    predicted_output_tokens: None,
                }
            })
            .collect()
    }
}

/// Gaps with mean 1.
struct Gaps {
    process: ArrivalProcess,
    gamma: Option<Gamma<f64>>,
    stream: Stream,
}

impl Gaps {
    fn new(process: ArrivalProcess, stream: Stream) -> Gaps {
        let gamma = match process {
            ArrivalProcess::Gamma { cv } => {
                Some(Gamma::new(1.0 / (cv * cv), cv * cv).expect("a validated coefficient of variation"))
            }
            _ => None,
        };
        Gaps { process, gamma, stream }
    }

    fn next(&mut self) -> f64 {
        match (self.process, self.gamma) {
            (ArrivalProcess::Deterministic, _) => 1.0,
            (_, Some(gamma)) => gamma.sample(&mut self.stream),
            (_, None) => Exp1.sample(&mut self.stream),
        }
    }
}

struct Draws {
    lengths: Lengths,
    log_normal: Option<LogNormal<f64>>,
    stream: Stream,
}

impl Draws {
    fn new(lengths: Lengths, stream: Stream) -> Draws {
        let log_normal = match lengths {
            Lengths::LogNormal { mean, std, .. } => {
                // Moments of the tokens into those of their logarithm.
                let variance = (1.0 + (std / mean).powi(2)).ln();
                let location = mean.ln() - variance / 2.0;
                Some(LogNormal::new(location, variance.sqrt()).expect("validated moments"))
            }
            _ => None,
        };
        Draws { lengths, log_normal, stream }
    }

    fn next(&mut self) -> u32 {
        match (self.lengths, self.log_normal) {
            (Lengths::Fixed(tokens), _) => tokens,
            (Lengths::Uniform { min, max }, _) => self.stream.random_range(min..=max),
            (Lengths::LogNormal { min, max, .. }, Some(log_normal)) => {
                (log_normal.sample(&mut self.stream).round() as u32).clamp(min, max)
            }
            (Lengths::LogNormal { min, .. }, None) => min,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drawn() -> Drawn {
        Drawn {
            requests: 20_000,
            rate_per_s: 10.0,
            process: ArrivalProcess::Poisson,
            prompt_tokens: Lengths::LogNormal { mean: 800.0, std: 400.0, min: 1, max: 100_000 },
            output_tokens: Lengths::Uniform { min: 1, max: 9 },
            prefixes: Some(Prefixes { groups: 10, tokens: 100, zipf_exponent: 1.0 }),
        }
    }

    fn mean(values: impl Iterator<Item = f64>) -> f64 {
        let values: Vec<f64> = values.collect();
        values.iter().sum::<f64>() / values.len() as f64
    }

    #[test]
    fn moments_are_those_asked_for() {
        for process in
            [ArrivalProcess::Poisson, ArrivalProcess::Gamma { cv: 2.0 }, ArrivalProcess::Deterministic]
        {
            let jobs = Drawn { process, ..drawn() }.draw(Seed(1));
            let span_s = jobs[jobs.len() - 1].sent.as_s();
            assert!((span_s / 2_000.0 - 1.0).abs() < 0.05, "{process:?}: {span_s}");
        }
        let jobs = drawn().draw(Seed(1));
        let prompt = mean(jobs.iter().map(|job| f64::from(job.request.prompt_tokens - 100)));
        assert!((prompt / 800.0 - 1.0).abs() < 0.02, "{prompt}");
        let output = mean(jobs.iter().map(|job| f64::from(job.request.output_tokens)));
        assert!((output / 5.0 - 1.0).abs() < 0.02, "{output}");
        let first = jobs.iter().filter(|job| job.request.content.runs()[0].stream == 1).count();
        // Zipf over ten: the most popular has 1 / H(10) = 34.1 %.
        assert!((first as f64 / 20_000.0 - 0.341).abs() < 0.02, "{first}");
    }

    #[test]
    fn changing_one_knob_redraws_nothing_else() {
        let (a, b) = (drawn(), Drawn { output_tokens: Lengths::Fixed(7), rate_per_s: 20.0, ..drawn() });
        for (a, b) in a.draw(Seed(3)).iter().zip(b.draw(Seed(3))) {
            assert_eq!(a.request.prompt_tokens, b.request.prompt_tokens);
            assert_eq!(a.request.content, b.request.content);
        }
    }
}
