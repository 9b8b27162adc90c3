//! Law 10, of the statistics: nominal 95 % intervals hold the truth of known queues in 95 of 100 cases.
//!
//! The queue is M/D/1: one slot, one step of constant length for each request. Its mean time is Pollaczek and Khinchine's, its
//! distribution Erlang's, in the stable form of G. J. Franx (A simple solution for the M/D/c waiting time distribution, 2001).

use rand::distr::Distribution as _;
use rand_distr::Exp1;
use rayon::prelude::*;
use tailcast::metrics::{Distribution, Sample};
use tailcast::random::{Purpose, Seed};
use tailcast::step_time::affine::Affine;
use tailcast::study::batches;
use tailcast::study::statistics::{interval, percentile_interval};
use tailcast::time::Span;

use crate::queues::{engine, poisson, times};

/// Length of a step, seconds.
const STEP_S: f64 = 0.010;

/// Mean time in the system, seconds.
fn mean_s(load: f64) -> f64 {
    STEP_S + load * STEP_S / (2.0 * (1.0 - load))
}

/// The time in the system that a share of requests does not exceed, seconds.
fn percentile_s(load: f64, share: f64) -> f64 {
    // Chances of k arrivals during a step, then of n requests in the system (the chain embedded at departures).
    let states = 400;
    let arrivals: Vec<f64> = std::iter::successors(Some((0, (-load).exp())), |&(k, chance)| {
        Some((k + 1, chance * load / f64::from(k + 1)))
    })
    .map(|(_, chance)| chance)
    .take(states)
    .collect();
    let mut system = vec![1.0 - load];
    for n in 0..states - 2 {
        let known: f64 = (1..=n).map(|k| system[k] * arrivals[n - k + 1]).sum();
        let next = (system[n] - system[0] * arrivals[n] - known) / arrivals[0];
        system.push(next.max(0.0));
    }
    // At most so many waiting.
    let waiting: Vec<f64> = (1..states - 2)
        .scan(system[0], |sum, n| {
            *sum += system[n];
            Some(*sum)
        })
        .collect();
    let waits_at_most = |steps: f64| {
        let k = steps.floor() as usize + 1;
        let rest = load * (k as f64 - steps);
        let mut term = (-rest).exp();
        let mut sum = 0.0;
        for j in 0..k {
            sum += waiting[(k - 1 - j).min(waiting.len() - 1)] * term;
            term *= rest / (j + 1) as f64;
        }
        sum
    };
    let (mut low, mut high) = (0.0, 200.0);
    for _ in 0..60 {
        let middle = (low + high) / 2.0;
        if waits_at_most(middle) < share { low = middle } else { high = middle }
    }
    STEP_S * (1.0 + high)
}

/// Times in the system by the simulator, the first tenth left out.
fn simulated(load: f64, requests: u32, seed: u64) -> Vec<Span> {
    let step_time = Affine {
        base: Span::from_s_f64(STEP_S),
        per_token: Span::ZERO,
        per_context_token: Span::ZERO,
        host: Span::ZERO,
    };
    times(engine(1), step_time, poisson(requests, load / STEP_S, Seed(seed), &mut || 1))
}

/// The same by Lindley's recursion, from the same arrivals: what the simulator is held against, and quick.
fn by_recursion(load: f64, requests: u32, seed: u64) -> Vec<Span> {
    let mut gaps = Seed(seed).stream(Purpose::Arrivals, 0);
    let mut wait_s = -f64::INFINITY;
    let mut time = |_| {
        let gap: f64 = Exp1.sample(&mut gaps);
        wait_s = (wait_s + STEP_S - gap * STEP_S / load).max(0.0);
        Span::from_s_f64(wait_s + STEP_S)
    };
    let times: Vec<Span> = (0..requests).map(&mut time).collect();
    times[requests as usize / 10..].to_vec()
}

/// Of so many seeds, how many intervals over ten repetitions hold the mean and P99.
fn covered(load: f64, requests: u32, seeds: u64, of: fn(f64, u32, u64) -> Vec<Span>) -> (f64, f64) {
    const REPETITIONS: u64 = 10;
    let (mean, p99) = (mean_s(load), percentile_s(load, 0.99));
    let one = |seed: u64| {
        let runs: Vec<(f64, Distribution)> = (0..REPETITIONS)
            .map(|repetition| {
                let times = of(load, requests, 1_000_003 * seed + repetition);
                let mean_s = times.iter().map(|time| time.as_s()).sum::<f64>() / times.len() as f64;
                let mut sample = Sample::default();
                times.into_iter().for_each(|time| sample.add(time));
                (mean_s, sample.distribution(0))
            })
            .collect();
        let means: Vec<f64> = runs.iter().map(|(mean, _)| *mean).collect();
        let distributions: Vec<&Distribution> = runs.iter().map(|(_, distribution)| distribution).collect();
        let of_mean = interval(&means).unwrap();
        let of_p99 = percentile_interval(&distributions, 99.0, REPETITIONS * u64::from(requests)).unwrap();
        (u64::from(of_mean.holds(mean)), u64::from(of_p99.holds(p99 * 1e3)))
    };
    let (means, p99s) =
        (0..seeds).into_par_iter().map(one).reduce(|| (0, 0), |(a, b), (c, d)| (a + c, b + d));
    (means as f64 / seeds as f64, p99s as f64 / seeds as f64)
}

#[test]
fn the_recursion_is_the_simulator() {
    let (mut simulated, recursion) = (simulated(0.9, 3_000, 5), by_recursion(0.9, 3_000, 5));
    simulated.truncate(recursion.len());
    for (one, other) in simulated.iter().zip(&recursion) {
        assert!((one.as_s() - other.as_s()).abs() < 1e-6, "{one:?} {other:?}");
    }
}

/// Of M/D/1 at load 0.9 the chance to wait is 0.9 and the tail falls by exp(-0.2 t / D) or so.
#[test]
fn the_formula_is_the_queues() {
    for load in [0.5, 0.9] {
        let mut all: Vec<Span> = (0..40).flat_map(|seed| by_recursion(load, 50_000, seed)).collect();
        all.sort_unstable();
        for share in [0.9, 0.99] {
            let got = all[(share * all.len() as f64) as usize].as_s();
            let formula = percentile_s(load, share);
            assert!((got / formula - 1.0).abs() < 0.03, "load {load}, {share}: {got} against {formula}");
        }
    }
}

/// 600 seeds: the share that is held has a standard deviation of 0.9 %, and lies within four of 95 %.
#[test]
fn intervals_hold_the_truth_as_often_as_they_say() {
    for (load, requests) in [(0.5, 5_000), (0.9, 20_000)] {
        let (means, p99s) = covered(load, requests, 600, by_recursion);
        for (what, share) in [("mean", means), ("P99", p99s)] {
            assert!((share - 0.95).abs() < 0.036, "load {load}: {what} held in {share}");
        }
    }
}

/// The same of batch means: intervals from one long run. 300 seeds: the share's standard deviation is 1.3 %.
#[test]
fn one_long_run_holds_the_truth_as_often_as_it_says() {
    for (load, requests) in [(0.5, 20_000), (0.9, 120_000)] {
        let (mean_ms, p99_ms) = (mean_s(load) * 1e3, percentile_s(load, 0.99) * 1e3);
        let one = |seed: u64| {
            let times: Vec<Option<Span>> = by_recursion(load, requests, seed).into_iter().map(Some).collect();
            let intervals = batches::intervals(&times)?;
            Some((intervals.mean?.holds(mean_ms), intervals.p99?.holds(p99_ms)))
        };
        let told: Vec<(bool, bool)> = (0..300u64).into_par_iter().filter_map(one).collect();
        // It keeps silent of stretches that happen to be alike: one run in twenty, by its own rule.
        assert!((255..=297).contains(&told.len()), "load {load}: {} of 300 runs say something", told.len());
        let share = |of: fn(&(bool, bool)) -> bool| {
            told.iter().filter(|one| of(one)).count() as f64 / told.len() as f64
        };
        for (what, share) in [("mean", share(|one| one.0)), ("P99", share(|one| one.1))] {
            assert!((share - 0.95).abs() < 0.05, "load {load}: {what} held in {share}");
        }
    }
}

/// What the statistics promise, on 2,000 seeds by the simulator itself: minutes, in a release build.
/// `cargo test --release --test suite two_thousand_seeds -- --ignored`; with `TAILCAST_SHOW=1` it fails and tells the shares
#[test]
#[ignore = "minutes"]
fn two_thousand_seeds() {
    let mut shares = Vec::new();
    for (load, requests) in [(0.5, 20_000), (0.9, 50_000)] {
        let (means, p99s) = covered(load, requests, 2_000, simulated);
        shares.push((load, means, p99s));
    }
    // Told where it passes too, as the panic of a run that asks for it.
    let good = |share: &f64| (0.94..=0.96).contains(share);
    assert!(shares.iter().all(|(_, means, p99s)| good(means) && good(p99s)), "load, mean, P99: {shares:?}");
    if std::env::var_os("TAILCAST_SHOW").is_some() {
        panic!("load, mean, P99: {shares:?}");
    }
}
