//! Moments, distributions and independence of all that is drawn, with fixed seeds.

use statrs::distribution::{ContinuousCDF, Exp, Gamma, LogNormal, Weibull};
use statrs::function::gamma::gamma;

use super::arrivals::weibull_shape;
use super::*;

fn arrivals(process: ArrivalProcess) -> Arrivals {
    Arrivals { rate_per_s: 10.0, process, modulations: Vec::new() }
}

fn drawn() -> Drawn {
    Drawn {
        requests: 20_000,
        demand: Demand::Open(arrivals(ArrivalProcess::Poisson)),
        tokens: Tokens::Apart {
            prompt: Lengths::LogNormal { mean: 800.0, std: 400.0, min: 1, max: 100_000 },
            output: Lengths::Uniform { min: 1, max: 9 },
        },
        prefixes: Some(Prefixes { levels: vec![Level { groups: 10, tokens: 100, zipf_exponent: 1.0 }] }),
        classes: Vec::new(),
    }
}

fn mean(values: impl Iterator<Item = f64>) -> f64 {
    let values: Vec<f64> = values.collect();
    values.iter().sum::<f64>() / values.len() as f64
}

fn gaps_s(arrivals: &Arrivals, count: u32) -> Vec<f64> {
    let jobs = Drawn { requests: count, demand: Demand::Open(arrivals.clone()), ..drawn() }.draw(Seed(1));
    let mut before = Time::ZERO;
    let gaps = jobs.iter().map(|job| {
        let gap = (job.sent - before).as_s();
        before = job.sent;
        gap
    });
    gaps.collect()
}

/// The greatest distance between the distribution of `values` and `cdf`, against what chance leaves at one in a thousand
/// (Kolmogorov and Smirnov).
fn assert_follows(mut values: Vec<f64>, what: &str, cdf: impl Fn(f64) -> f64) {
    values.sort_by(f64::total_cmp);
    let count = values.len() as f64;
    let distance = values.iter().enumerate().fold(0.0f64, |distance, (index, value)| {
        let (below, above) = (index as f64 / count, (index + 1) as f64 / count);
        distance.max((cdf(*value) - below).abs()).max((above - cdf(*value)).abs())
    });
    assert!(distance < 1.95 / count.sqrt(), "{what}: {distance} over {count} draws");
}

/// Chi-square of counts against chances, against its normal approximation at four standard deviations.
fn assert_frequencies(values: &[u32], what: &str, chance: impl Fn(u32) -> f64) {
    let most = values.iter().copied().max().unwrap();
    let (mut statistic, mut cells) = (0.0, 0.0);
    for value in 0..=most {
        let expected = chance(value) * values.len() as f64;
        if expected >= 5.0 {
            let seen = values.iter().filter(|seen| **seen == value).count() as f64;
            statistic += (seen - expected).powi(2) / expected;
            cells += 1.0;
        }
    }
    let degrees: f64 = cells - 1.0;
    assert!(
        statistic < degrees + 4.0 * (2.0 * degrees).sqrt(),
        "{what}: chi-square {statistic} of {degrees}"
    );
}

#[test]
fn gaps_follow_their_distributions() {
    let gaps = |process| gaps_s(&arrivals(process), 20_000);
    let exponential = Exp::new(10.0).unwrap();
    assert_follows(gaps(ArrivalProcess::Poisson), "poisson", |gap| exponential.cdf(gap));
    for cv in [0.5, 2.0] {
        let shape = 1.0 / (cv * cv);
        let of_gamma = Gamma::new(shape, shape * 10.0).unwrap();
        assert_follows(gaps(ArrivalProcess::Gamma { cv }), "gamma", |gap| of_gamma.cdf(gap));
        let shape = weibull_shape(cv);
        let weibull = Weibull::new(shape, 0.1 / gamma(1.0 + 1.0 / shape)).unwrap();
        assert_follows(gaps(ArrivalProcess::Weibull { cv }), "weibull", |gap| weibull.cdf(gap));
        let drawn = gaps(ArrivalProcess::Weibull { cv });
        let (mean, square) = (mean(drawn.iter().copied()), mean(drawn.iter().map(|gap| gap * gap)));
        assert!(((square - mean * mean).sqrt() / mean / cv - 1.0).abs() < 0.05, "cv {cv}");
    }
    assert!(gaps(ArrivalProcess::Deterministic).iter().all(|gap| (gap - 0.1).abs() < 1e-9));
}

#[test]
fn modulated_processes_follow_their_rate() {
    // By the change of clock, arrivals of a modulated Poisson process are uniform in the integral of the rate.
    let modulations = vec![
        Modulation::Diurnal { period_s: 600.0, amplitude: 0.8, phase_s: 0.0 },
        Modulation::Ramp { start_s: 200.0, end_s: 1_000.0, from: 1.0, to: 3.0 },
        Modulation::Spike { at_s: 500.0, duration_s: 50.0, factor: 5.0 },
    ];
    let rate = |at_s: f64| {
        let sine = 1.0 + 0.8 * (std::f64::consts::TAU * at_s / 600.0).sin();
        let ramp = 1.0 + 2.0 * ((at_s - 200.0) / 800.0).clamp(0.0, 1.0);
        let spike = if (500.0..550.0).contains(&at_s) { 5.0 } else { 1.0 };
        10.0 * sine * ramp * spike
    };
    let mut integral = vec![0.0];
    for step in 0..400_000 {
        integral.push(integral[step] + rate((step as f64 + 0.5) * 0.01) * 0.01);
    }
    let arrivals = Arrivals { modulations, ..arrivals(ArrivalProcess::Poisson) };
    let jobs = Drawn { requests: 20_000, demand: Demand::Open(arrivals), ..drawn() }.draw(Seed(4));
    let own: Vec<f64> = jobs.iter().map(|job| integral[(job.sent.as_s() * 100.0) as usize]).collect();
    // So fifty of them are Erlang; the table of the integral adds a hundredth of a second.
    let sums: Vec<f64> = own.chunks(50).map(|chunk| chunk[chunk.len() - 1] - chunk[0]).collect();
    let erlang = Gamma::new(49.0, 1.0).unwrap();
    assert_follows(sums, "modulated", |sum| erlang.cdf(sum));
}

#[test]
fn modulated_markov_processes_burst() {
    let states =
        vec![State { factor: 0.2, mean_duration_s: 30.0 }, State { factor: 5.0, mean_duration_s: 6.0 }];
    // 0.2 for five sixths of the time and 5 for one: one in the mean.
    let gaps = gaps_s(&arrivals(ArrivalProcess::Mmpp { states }), 60_000);
    let span_s: f64 = gaps.iter().sum();
    assert!((span_s / 6_000.0 - 1.0).abs() < 0.15, "{span_s}");
    let mean_gap = span_s / 60_000.0;
    let variance = mean(gaps.iter().map(|gap| (gap - mean_gap).powi(2)));
    assert!(variance.sqrt() / mean_gap > 1.5);
}

#[test]
fn lengths_follow_their_distributions() {
    let draw = |lengths: Lengths| {
        let mut draws = LengthDraws::new(&lengths, Seed(5).stream(Purpose::PromptTokens, 0));
        (0..20_000).map(|_| draws.next()).collect::<Vec<u32>>()
    };
    assert_frequencies(&draw(Lengths::Uniform { min: 3, max: 12 }), "uniform", |value| {
        if (3..=12).contains(&value) { 0.1 } else { 0.0 }
    });
    let harmonic: f64 = (1..=50).map(|rank| f64::from(rank).powf(-1.2)).sum();
    assert_frequencies(&draw(Lengths::Zipf { min: 1, max: 50, exponent: 1.2 }), "zipf", |value| {
        if (1..=50).contains(&value) { f64::from(value).powf(-1.2) / harmonic } else { 0.0 }
    });
    let variance = (1.0 + 0.25f64).ln();
    let normal = LogNormal::new(800f64.ln() - variance / 2.0, variance.sqrt()).unwrap();
    let jittered = |values: Vec<u32>| values.iter().map(|value| f64::from(*value)).collect::<Vec<f64>>();
    let log_normal = draw(Lengths::LogNormal { mean: 800.0, std: 400.0, min: 1, max: 100_000 });
    // Rounding moves a value by half a token, where a hundred and fifty of them lie within one part in a hundred.
    assert_follows(jittered(log_normal), "log-normal", |value| normal.cdf(value));
    let pareto = draw(Lengths::Pareto { min: 1_000, alpha: 1.5, max: 1_000_000_000 });
    assert_follows(jittered(pareto), "pareto", |value| 1.0 - (1_000.0 / value.max(1_000.0)).powf(1.5));
    let measured: Arc<[u32]> = vec![1, 1, 1, 7].into();
    assert_frequencies(&draw(Lengths::Empirical(measured)), "empirical", |value| match value {
        1 => 0.75,
        7 => 0.25,
        _ => 0.0,
    });
    let points: Arc<[(f64, u32)]> = vec![(0.0, 1_000), (0.5, 2_000), (1.0, 10_000)].into();
    assert_follows(jittered(draw(Lengths::Quantiles(points))), "quantiles", |value| {
        if value < 2_000.0 { (value - 1_000.0) / 2_000.0 } else { 0.5 + (value - 2_000.0) / 16_000.0 }
    });
    let parts = vec![(3.0, Lengths::Fixed(2)), (1.0, Lengths::Fixed(5))];
    assert_frequencies(&draw(Lengths::Mixture(parts)), "mixture", |value| match value {
        2 => 0.75,
        5 => 0.25,
        _ => 0.0,
    });
}

#[test]
fn moments_are_those_asked_for() {
    let jobs = drawn().draw(Seed(1));
    let prompt = mean(jobs.iter().map(|job| f64::from(job.request.prompt_tokens - 100)));
    assert!((prompt / 800.0 - 1.0).abs() < 0.02, "{prompt}");
    let first = jobs.iter().filter(|job| job.request.content.runs()[0].stream == 1).count();
    // Zipf over ten: the most popular has 1 / H(10) = 34.1 %.
    assert!((first as f64 / 20_000.0 - 0.341).abs() < 0.02, "{first}");
}

#[test]
fn changing_one_knob_redraws_nothing_else() {
    let faster = Arrivals { rate_per_s: 20.0, ..arrivals(ArrivalProcess::Gamma { cv: 2.0 }) };
    let tokens = Tokens::Apart {
        prompt: Lengths::LogNormal { mean: 800.0, std: 400.0, min: 1, max: 100_000 },
        output: Lengths::Fixed(7),
    };
    let classes = vec![class("a", 1.0, None), class("b", 1.0, None)];
    let (a, b) = (drawn(), Drawn { tokens, demand: Demand::Open(faster), classes, ..drawn() });
    for (a, b) in a.draw(Seed(3)).iter().zip(b.draw(Seed(3))) {
        assert_eq!(a.request.prompt_tokens, b.request.prompt_tokens);
        assert_eq!(a.request.content, b.request.content);
    }
}

fn class(name: &str, share: f64, prompt: Option<Lengths>) -> Class {
    Class { name: name.into(), share, priority: 0, prompt, output: None, lora: None }
}

/// Lengths of one class are its own; what others draw does not depend on them.
#[test]
fn classes_come_by_their_shares_and_keep_to_themselves() {
    let draw = |long: u32| {
        let classes = vec![class("short", 3.0, None), class("long", 1.0, Some(Lengths::Fixed(long)))];
        Drawn { classes, requests: 4_000, ..drawn() }.draw(Seed(5))
    };
    let (a, b) = (draw(30_000), draw(40_000));
    let of = |jobs: &[Job], class| jobs.iter().filter(|job| job.class == class).count() as f64;
    // 1,000 of a binomial of 4,000 with a quarter: five standard deviations.
    assert!((of(&a, 1) - 1_000.0).abs() < 5.0 * 27.4, "{}", of(&a, 1));
    for (a, b) in a.iter().zip(&b) {
        assert_eq!((a.class, a.sent, a.request.output_tokens), (b.class, b.sent, b.request.output_tokens));
        match a.class {
            0 => assert_eq!(a.request.prompt_tokens, b.request.prompt_tokens),
            // 100 of the shared prefix come on top.
            _ => assert_eq!((a.request.prompt_tokens, b.request.prompt_tokens), (30_100, 40_100)),
        }
    }
}

/// Some users never get to send: the others are in order all the same, and each begins for himself.
#[test]
fn more_users_than_requests() {
    let demand = Demand::Users(300, Think::Exponential { mean_s: 2.0 });
    let jobs = Drawn { demand, requests: 200, ..drawn() }.draw(Seed(4));
    assert!(jobs.len() == 200 && jobs.is_sorted_by_key(|job| job.sent));
    assert!(jobs.iter().all(|job| job.waits.is_empty()));
}

/// The same text under two adapters is two texts, and nothing else is drawn anew.
#[test]
fn adapters_share_no_text() {
    let classes = |lora: [Option<&str>; 2]| {
        let of = |name: &str, lora: Option<&str>| Class {
            lora: lora.map(str::to_owned),
            ..class(name, 1.0, None)
        };
        vec![of("a", lora[0]), of("b", lora[1])]
    };
    let draw = |lora| Drawn { classes: classes(lora), requests: 200, ..drawn() }.draw(Seed(5));
    let texts = |jobs: &[Job], class| {
        let of = jobs.iter().filter(|job| job.class == class);
        let mut texts: Vec<u64> = of.map(|job| job.request.content.runs()[0].stream).collect();
        texts.sort_unstable();
        texts.dedup();
        texts
    };
    let (alike, apart) = (draw([Some("x"), Some("x")]), draw([Some("x"), Some("y")]));
    assert!(texts(&alike, 1).iter().any(|text| texts(&alike, 0).contains(text)));
    assert!(!texts(&apart, 1).iter().any(|text| texts(&apart, 0).contains(text)));
    assert_eq!(texts(&apart, 0), texts(&alike, 0));
    let lengths = |jobs: &[Job]| jobs.iter().map(|job| job.request.prompt_tokens).collect::<Vec<_>>();
    assert_eq!(lengths(&alike), lengths(&draw([None, None])));
}

#[test]
fn trees_share_what_their_ways_share() {
    let level = |groups, tokens| Level { groups, tokens, zipf_exponent: 0.0 };
    let prefixes = Prefixes { levels: vec![level(1, 64), level(3, 32), level(2, 16)] };
    let jobs = Drawn { prefixes: Some(prefixes), requests: 300, ..drawn() }.draw(Seed(2));
    let mut ways: Vec<Vec<u64>> =
        jobs.iter().map(|job| job.request.content.runs().iter().map(|run| run.stream).collect()).collect();
    ways.sort();
    ways.dedup();
    // One system prompt, three documents, and below each two of its own.
    assert_eq!(ways.len(), 6);
    let mut leaves: Vec<u64> = ways.iter().map(|way| way[2]).collect();
    leaves.sort_unstable();
    leaves.dedup();
    assert_eq!(leaves.len(), 6);
    assert!(ways.iter().all(|way| way[0] == ways[0][0]));
}

#[test]
fn sessions_say_again_what_was_said() {
    let turns = Turns {
        count: Lengths::Fixed(4),
        think: Think::Exponential { mean_s: 5.0 },
        max_prompt_tokens: u32::MAX,
    };
    let tokens = Tokens::Apart { prompt: Lengths::Fixed(50), output: Lengths::Fixed(20) };
    let demand = Demand::Sessions(arrivals(ArrivalProcess::Poisson), turns);
    let drawn = Drawn { requests: 400, demand, tokens, ..drawn() };
    let jobs = drawn.draw(Seed(6));
    assert_eq!(jobs.len(), 400);
    for session in jobs.chunks(4) {
        let prompts: Vec<u32> = session.iter().map(|job| job.request.prompt_tokens).collect();
        assert_eq!(prompts, [150, 220, 290, 360]);
        // The next prompt begins with this one and its answer.
        let (this, next) = (&session[0].request, &session[1].request);
        assert_eq!(next.content.truncated(170), this.content);
        assert!(session[1].waits.len() == 1 && session[0].waits.is_empty());
    }
    let thinks: Vec<f64> = jobs.iter().filter_map(|job| Some(job.waits.first()?.think?.as_s())).collect();
    let exponential = Exp::new(0.2).unwrap();
    assert_follows(thinks, "think", |think| exponential.cdf(think));
}

#[test]
fn users_wait_for_their_own_answers() {
    let demand = Demand::Users(5, Think::Fixed { seconds: 2.0 });
    let jobs = Drawn { requests: 20, demand, ..drawn() }.draw(Seed(6));
    assert!(jobs[..5].iter().all(|job| job.waits.is_empty() && job.sent <= Time::ZERO + Span::from_s(2)));
    for (number, job) in jobs.iter().enumerate().skip(5) {
        assert_eq!((job.waits[0].row as usize, job.waits[0].think), (number - 5, Some(Span::from_s(2))));
    }
}

#[test]
fn pairs_stay_together() {
    let tokens = Tokens::Pairs(vec![(10, 1), (1_000, 9)].into());
    let jobs = Drawn { tokens, prefixes: None, ..drawn() }.draw(Seed(8));
    assert!(jobs.iter().all(|job| (job.request.prompt_tokens == 10) == (job.request.output_tokens == 1)));
}
