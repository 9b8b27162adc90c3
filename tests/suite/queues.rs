//! Law 10: where queueing theory has a closed formula, the simulation lies within its interval of it.

use std::sync::Arc;

use rand::distr::Distribution;
use rand_distr::{Exp1, Geometric};
use tailcast::fleet::{Fleet, FleetConfig};
use tailcast::observe::Silence;
use tailcast::random::{Purpose, Seed};
use tailcast::replica::EngineConfig;
use tailcast::request::{Content, Request, RequestId};
use tailcast::router::{Facts, policies};
use tailcast::step_time::affine::Affine;
use tailcast::study::statistics::interval;
use tailcast::time::{Span, Time};
use tailcast::trace::Waits;
use tailcast::workload::{Job, OpenLoop};

pub(crate) fn engine(max_num_seqs: u32) -> EngineConfig {
    EngineConfig {
        enable_prefix_caching: false,
        async_scheduling: false,
        empty_step_sleep: Span::ZERO,
        ..EngineConfig::plain(1_000_000, 1 << 16, max_num_seqs, 1 << 16)
    }
}

pub(crate) fn poisson(
    requests: u32,
    rate_per_s: f64,
    seed: Seed,
    output_tokens: &mut dyn FnMut() -> u32,
) -> Vec<Job> {
    let mut gaps = seed.stream(Purpose::Arrivals, 0);
    let mut sent = Time::ZERO;
    let job = |number| {
        let gap: f64 = Exp1.sample(&mut gaps);
        sent += Span::from_s_f64(gap / rate_per_s);
        Job {
            sent,
            request: Request {
                id: RequestId(number),
                prompt_tokens: 1,
                output_tokens: output_tokens(),
                max_tokens: None,
                priority: 0,
                attempt: 0,
                arrival_order: u64::from(number),
                content: Content::default(),
                remote_tokens: 0,
            },
            session: None,
            class: 0,
            waits: Waits::default(),
            predicted_output_tokens: None,
        }
    };
    (0..requests).map(job).collect()
}

/// Times in the system of one replica, the first tenth of requests left out, in order of their ends.
pub(crate) fn times(engine: EngineConfig, step_time: Affine, jobs: Vec<Job>) -> Vec<Span> {
    let config = FleetConfig::default();
    let router = policies::build("round-robin", &toml::Table::new(), Seed(0), 0).unwrap();
    let step_time = Arc::new(step_time);
    let facts = Facts { labels: Vec::new(), engine, step_time, start_up: Span::ZERO, step_time_jitter: 0.0 };
    let replica = (facts, Silence);
    let warmup = jobs.len() as u32 / 10;
    let mut times = Vec::new();
    Fleet::new(config, vec![replica], vec![router]).run(&mut OpenLoop::new(jobs.into()), &mut |outcome| {
        if outcome.attempt.request.0 >= warmup {
            times.push(outcome.e2e().unwrap());
        }
    });
    times
}

fn mean_time_s(engine: EngineConfig, step_time: Affine, jobs: Vec<Job>) -> f64 {
    let times = times(engine, step_time, jobs);
    times.iter().map(|time| time.as_s()).sum::<f64>() / times.len() as f64
}

/// One slot, one step of constant length for each request: M/D/1. Mean time = D + load * D / (2 (1 - load))
/// (Pollaczek and Khinchine).
#[test]
fn one_slot_and_a_constant_step_is_m_d_1() {
    let step_time = Affine {
        base: Span::from_ms(10),
        per_token: Span::ZERO,
        per_context_token: Span::ZERO,
        host: Span::ZERO,
    };
    for load in [0.5, 0.9] {
        let repetition = |seed| {
            let jobs = poisson(30_000, load / 0.010, Seed(seed), &mut || 1);
            mean_time_s(engine(1), step_time, jobs)
        };
        let got = interval(&(0..12).map(repetition).collect::<Vec<f64>>()).unwrap();
        let formula = 0.010 + load * 0.010 / (2.0 * (1.0 - load));
        assert!(got.low <= formula && formula <= got.high, "load {load}: {formula} is not in {got:?}");
        assert!((got.high - got.low) / formula < 0.15, "the interval says nothing: {got:?}");
    }
}

/// A step as long as its batch is wide, any number of slots: each request gets an equal share of the replica.
/// M/G/1 processor sharing: mean time = mean work / (1 - load), whatever the distribution of the work.
#[test]
fn a_step_in_proportion_to_its_batch_is_processor_sharing() {
    let token = Span::from_us(100);
    // The base is a thousandth of a token: a step needs some length of its own.
    let step_time = Affine {
        base: Span::from_ns(100),
        per_token: token,
        per_context_token: Span::ZERO,
        host: Span::ZERO,
    };
    let mean_tokens = 300.0;
    for load in [0.5, 0.7] {
        let repetition = |seed| {
            let mut lengths = Seed(seed).stream(Purpose::OutputTokens, 0);
            let geometric = Geometric::new(1.0 / mean_tokens).unwrap();
            let work_s = mean_tokens * token.as_s();
            let mut draw = || 1 + geometric.sample(&mut lengths) as u32;
            mean_time_s(engine(1 << 15), step_time, poisson(4_000, load / work_s, Seed(seed), &mut draw))
        };
        let got = interval(&(0..10).map(repetition).collect::<Vec<f64>>()).unwrap();
        let formula = mean_tokens * token.as_s() / (1.0 - load);
        assert!(got.low <= formula && formula <= got.high, "load {load}: {formula} is not in {got:?}");
        assert!((got.high - got.low) / formula < 0.25, "the interval says nothing: {got:?}");
    }
}
