//! Parameters that draw a workload like a trace.
//!
//! Knows the generator's own shapes: gaps that are Poisson, gamma or Weibull; lengths that are log-normal or straight
//! between points of their distribution; a tree of shared texts
//! of at most two levels; sessions by their turns. Does not know a trace's hours: a rate that changes with the day shows in
//! how much more the regenerated one differs at a second than at a gap.

use std::collections::BTreeMap;
use std::fmt::Write;

use rustc_hash::FxHashMap;
use statrs::distribution::{ContinuousCDF, Gamma, LogNormal, Weibull};
use statrs::function::gamma::gamma;

use super::drawn::arrivals::weibull_shape;
use super::drawn::{ArrivalProcess, Arrivals, Demand, Drawn, Lengths, Level, Prefixes, Think, Tokens, Turns};
use super::shape::common_runs;
use crate::trace::{Trace, TraceRow};

/// A fitted workload, and how far its parts are from what was measured.
#[derive(Clone, Debug, PartialEq)]
pub struct Fitted {
    /// The parameters.
    pub drawn: Drawn,
    /// Greatest distance of the distributions of gaps (Kolmogorov and Smirnov), 0 to 1.
    pub gap_distance: f64,
    /// The same of what prompts add.
    pub prompt_distance: f64,
    /// The same of outputs.
    pub output_distance: f64,
    /// Rank correlation of prompts and outputs, which separate lengths do not keep.
    pub length_correlation: f64,
}

/// Sessions are fitted where at least so large a share of the requests are later turns of one.
const TURNS_SHARE: f64 = 0.1;
/// A process counts as Poisson when its coefficient of variation is so near to one.
const POISSON_CV: f64 = 0.05;

/// Fits all parts.
pub fn fit(trace: &Trace) -> Fitted {
    let rows = &trace.rows;
    let later = rows.iter().filter(|row| !row.waits.is_empty()).count();
    let in_sessions = later as f64 > TURNS_SHARE * rows.len() as f64;
    let starts: Vec<&TraceRow> = if in_sessions {
        let mut seen = FxHashMap::default();
        rows.iter()
            .filter(|row| row.session.is_none_or(|session| seen.insert(session, ()).is_none()))
            .collect()
    } else {
        rows.iter().collect()
    };
    let gaps: Vec<f64> = starts.windows(2).map(|pair| (pair[1].arrived - pair[0].arrived).as_s()).collect();
    let (arrivals, gap_distance) = arrivals(&gaps);
    let prefixes = prefixes(rows, in_sessions);
    let shared: u32 = prefixes.iter().flat_map(|prefixes| &prefixes.levels).map(|level| level.tokens).sum();
    let mut added: Vec<f64> = Vec::with_capacity(rows.len());
    let mut thinks: Vec<f64> = Vec::new();
    let mut turns: BTreeMap<u64, u32> = BTreeMap::new();
    for row in rows {
        let said = match (in_sessions, row.waits.iter().max_by_key(|wait| wait.row)) {
            (true, Some(wait)) => {
                thinks.extend(wait.think.map(|think| think.as_s()));
                let before = &rows[wait.row as usize];
                before.prompt_tokens.saturating_add(before.output_tokens)
            }
            _ => shared,
        };
        added.push(f64::from(row.prompt_tokens.saturating_sub(said).max(1)));
        if let Some(session) = row.session {
            *turns.entry(session).or_insert(0) += 1;
        }
    }
    let outputs: Vec<f64> = rows.iter().map(|row| f64::from(row.output_tokens)).collect();
    let (prompt, prompt_distance) = lengths(&added);
    let (output, output_distance) = lengths(&outputs);
    let prompts: Vec<f64> = rows.iter().map(|row| f64::from(row.prompt_tokens)).collect();
    let demand = if in_sessions {
        let counts: Vec<f64> = turns.values().map(|count| f64::from(*count)).collect();
        let think = if thinks.is_empty() {
            Think::Fixed { seconds: 0.0 }
        } else {
            let (mean_s, std_s) = moments(&thinks);
            Think::LogNormal { mean_s: mean_s.max(1e-3), std_s: std_s.max(1e-3) }
        };
        let max_prompt_tokens = prompts.iter().fold(1.0f64, |most, tokens| most.max(*tokens)) as u32;
        Demand::Sessions(arrivals, Turns { count: lengths(&counts).0, think, max_prompt_tokens })
    } else {
        Demand::Open(arrivals)
    };
    let tokens = Tokens::Apart { prompt, output };
    let drawn = Drawn { requests: rows.len() as u32, demand, tokens, prefixes, classes: Vec::new() };
    let length_correlation = correlation(&ranks(&prompts), &ranks(&outputs));
    Fitted { drawn, gap_distance, prompt_distance, output_distance, length_correlation }
}

fn arrivals(gaps: &[f64]) -> (Arrivals, f64) {
    let (mean, std) = moments(gaps);
    if mean <= 0.0 {
        // Sessions that say nothing of when they began.
        return (
            Arrivals { rate_per_s: 1.0, process: ArrivalProcess::Poisson, modulations: Vec::new() },
            1.0,
        );
    }
    let cv = (std / mean).max(0.01);
    let of = |process| Arrivals { rate_per_s: 1.0 / mean, process, modulations: Vec::new() };
    let shape = 1.0 / (cv * cv);
    let of_gamma = Gamma::new(shape, shape / mean).map(|law| distance(gaps, |gap| law.cdf(gap)));
    let gamma_distance = of_gamma.unwrap_or(1.0);
    if (cv - 1.0).abs() < POISSON_CV {
        return (of(ArrivalProcess::Poisson), gamma_distance);
    }
    let shape = weibull_shape(cv);
    let of_weibull = Weibull::new(shape, mean / gamma(1.0 + 1.0 / shape));
    let weibull_distance = of_weibull.map(|law| distance(gaps, |gap| law.cdf(gap))).unwrap_or(1.0);
    if weibull_distance < gamma_distance {
        (of(ArrivalProcess::Weibull { cv }), weibull_distance)
    } else {
        (of(ArrivalProcess::Gamma { cv }), gamma_distance)
    }
}

/// A system prompt where nearly all open alike, and documents below it where some do.
fn prefixes(rows: &[TraceRow], in_sessions: bool) -> Option<Prefixes> {
    let common = common_runs(rows);
    let first = rows.iter().find(|row| row.content.runs().len() >= common.max(1))?;
    let root: u32 = first.content.runs()[..common].iter().map(|run| run.tokens).sum();
    let mut levels = Vec::new();
    if root > 0 {
        levels.push(Level { groups: 1, tokens: root, zipf_exponent: 0.0 });
    }
    if !in_sessions {
        levels.extend(documents(rows, common));
    }
    (!levels.is_empty()).then_some(Prefixes { levels })
}

/// Texts behind the common ones: as many as differ in their first stretch, as popular as these are, and so long that
/// those who come again find as many tokens as in the trace.
fn documents(rows: &[TraceRow], common: usize) -> Option<Level> {
    let mut uses: BTreeMap<u64, u32> = BTreeMap::new();
    let mut seen: FxHashMap<(u64, u32), u32> = FxHashMap::default();
    let (mut found, mut identified) = (0u64, 0u64);
    for row in rows {
        let Some(behind) = row.content.runs().get(common..).filter(|runs| !runs.is_empty()) else { continue };
        identified += 1;
        *uses.entry(behind[0].stream).or_insert(0) += 1;
        let mut leading = true;
        for run in behind {
            let longest = seen.entry((run.stream, run.position)).or_insert(0);
            if leading {
                found += u64::from(run.tokens.min(*longest));
            }
            leading &= *longest >= run.tokens;
            *longest = run.tokens.max(*longest);
        }
    }
    let groups = uses.len() as u64;
    let again = identified.saturating_sub(groups);
    if again == 0 || found == 0 {
        return None;
    }
    let mut counts: Vec<f64> = uses.values().map(|count| f64::from(*count)).collect();
    counts.sort_by(|a, b| b.total_cmp(a));
    // The slope of frequency against rank where frequencies are more than chance: those used at least three times.
    let points: Vec<(f64, f64)> = counts
        .iter()
        .enumerate()
        .take_while(|(_, count)| **count >= 3.0)
        .map(|(rank, count)| ((rank as f64 + 1.0).ln(), count.ln()))
        .collect();
    let zipf_exponent = if points.len() >= 3 { -slope(&points) } else { 0.0 };
    Some(Level {
        groups: groups as u32,
        tokens: ((found as f64 / again as f64).round() as u32).max(1),
        zipf_exponent: zipf_exponent.clamp(0.0, 5.0),
    })
}

fn slope(points: &[(f64, f64)]) -> f64 {
    let count = points.len() as f64;
    let (x, y) =
        points.iter().fold((0.0, 0.0), |sum, point| (sum.0 + point.0 / count, sum.1 + point.1 / count));
    let (top, bottom) = points.iter().fold((0.0, 0.0), |sum, point| {
        (sum.0 + (point.0 - x) * (point.1 - y), sum.1 + (point.0 - x).powi(2))
    });
    if bottom > 0.0 { top / bottom } else { 0.0 }
}

fn moments(values: &[f64]) -> (f64, f64) {
    let count = values.len().max(1) as f64;
    let mean = values.iter().sum::<f64>() / count;
    (mean, (values.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / count).sqrt())
}

/// Log-normal where that is near, else the distribution's own points.
fn lengths(values: &[f64]) -> (Lengths, f64) {
    let (fitted, apart) = log_normal(values);
    if apart < NEAR { (fitted, apart) } else { quantiles(values) }
}

/// A distribution is near another when no share differs by more.
const NEAR: f64 = 0.03;
/// Shares whose lengths make the points of a distribution.
const SHARES: [f64; 27] = [
    0.0, 0.01, 0.02, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4, 0.45, 0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8,
    0.85, 0.9, 0.95, 0.98, 0.99, 0.995, 0.999, 1.0,
];

fn quantiles(values: &[f64]) -> (Lengths, f64) {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let at =
        |share: &f64| (*share, sorted[((sorted.len() - 1) as f64 * share).round() as usize].max(1.0) as u32);
    let points: Vec<(f64, u32)> = SHARES.iter().map(at).collect();
    let cdf = |value: f64| {
        let above =
            points.partition_point(|(_, tokens)| f64::from(*tokens) < value).clamp(1, points.len() - 1);
        let ((low, from), (high, to)) = (points[above - 1], points[above]);
        let width = f64::from(to) - f64::from(from);
        if width > 0.0 {
            low + (high - low) * ((value - f64::from(from)) / width).clamp(0.0, 1.0)
        } else {
            high
        }
    };
    // Equal lengths are a step, which the points have in one place and the middle of equal ones in another.
    let apart = distance(values, cdf);
    (Lengths::Quantiles(points.into()), apart)
}

/// By the moments of the logarithm, which no single long request can bend.
fn log_normal(values: &[f64]) -> (Lengths, f64) {
    let logs: Vec<f64> = values.iter().map(|value| value.max(1.0).ln()).collect();
    let (location, scale) = moments(&logs);
    let least = values.iter().copied().fold(f64::INFINITY, f64::min).max(1.0) as u32;
    let most = values.iter().copied().fold(1.0, f64::max) as u32;
    if scale < 1e-6 {
        return (Lengths::Fixed(most), 0.0);
    }
    let mean = (location + scale * scale / 2.0).exp();
    let std = mean * ((scale * scale).exp() - 1.0).sqrt();
    let apart = LogNormal::new(location, scale).map(|law| distance(values, |value| law.cdf(value)));
    (Lengths::LogNormal { mean, std, min: least, max: most }, apart.unwrap_or(1.0))
}

/// Greatest distance between the distribution of `values`, taken at the middle of equal ones, and `cdf`.
fn distance(values: &[f64], cdf: impl Fn(f64) -> f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let (mut most, mut below) = (0.0f64, 0.0);
    for same in sorted.chunk_by(|a, b| a == b) {
        let middle = (below + same.len() as f64 / 2.0) / sorted.len() as f64;
        most = most.max((cdf(same[0].max(1e-12)) - middle).abs());
        below += same.len() as f64;
    }
    most
}

fn ranks(values: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..values.len()).collect();
    order.sort_by(|&a, &b| values[a].total_cmp(&values[b]));
    let mut ranks = vec![0.0; values.len()];
    let mut place = 0;
    for same in order.chunk_by(|&a, &b| values[a] == values[b]) {
        let middle = place as f64 + (same.len() as f64 - 1.0) / 2.0;
        for &index in same {
            ranks[index] = middle;
        }
        place += same.len();
    }
    ranks
}

fn correlation(a: &[f64], b: &[f64]) -> f64 {
    let ((mean_a, std_a), (mean_b, std_b)) = (moments(a), moments(b));
    if std_a == 0.0 || std_b == 0.0 {
        return 0.0;
    }
    let sum: f64 = a.iter().zip(b).map(|(a, b)| (a - mean_a) * (b - mean_b)).sum();
    sum / a.len() as f64 / (std_a * std_b)
}

impl Fitted {
    /// `[workload]` of a scenario that draws it.
    pub fn toml(&self) -> String {
        let mut text = format!("[workload]\nrequests = {}\n", self.drawn.requests);
        // Writing to a string cannot fail.
        let mut line = |line: String| {
            let _ = writeln!(text, "{line}");
        };
        let arrivals = |arrivals: &Arrivals| {
            let rate = arrivals.rate_per_s;
            match arrivals.process {
                ArrivalProcess::Gamma { cv } => {
                    format!("arrivals = {{ process = \"gamma\", rate_per_s = {rate:.6}, cv = {cv:.4} }}")
                }
                ArrivalProcess::Weibull { cv } => {
                    format!("arrivals = {{ process = \"weibull\", rate_per_s = {rate:.6}, cv = {cv:.4} }}")
                }
                _ => format!("arrivals = {{ rate_per_s = {rate:.6} }}"),
            }
        };
        match &self.drawn.demand {
            Demand::Open(open) => line(arrivals(open)),
            Demand::Sessions(starts, turns) => {
                line(arrivals(starts));
                let think = match turns.think {
                    Think::LogNormal { mean_s, std_s } => {
                        format!(
                            "{{ distribution = \"lognormal\", mean_s = {mean_s:.4}, std_s = {std_s:.4} }}"
                        )
                    }
                    _ => "{ distribution = \"fixed\", seconds = 0.0 }".to_owned(),
                };
                line(format!("sessions = {{ turns = {}, think = {think} }}", lengths_toml(&turns.count)));
                line(format!("max_prompt_tokens = {}", turns.max_prompt_tokens));
            }
            Demand::Users(..) | Demand::Clients(_) => {}
        }
        if let Tokens::Apart { prompt, output } = &self.drawn.tokens {
            line(format!("prompt_tokens = {}", lengths_toml(prompt)));
            line(format!("output_tokens = {}", lengths_toml(output)));
        }
        if let Some(prefixes) = &self.drawn.prefixes {
            let level = |level: &Level| {
                format!(
                    "{{ groups = {}, tokens = {}, zipf_exponent = {:.3} }}",
                    level.groups, level.tokens, level.zipf_exponent
                )
            };
            let levels: Vec<String> = prefixes.levels.iter().map(level).collect();
            line(format!("prefixes = {{ levels = [{}] }}", levels.join(", ")));
        }
        text
    }
}

fn lengths_toml(lengths: &Lengths) -> String {
    match lengths {
        Lengths::LogNormal { mean, std, min, max } => {
            format!(
                "{{ distribution = \"lognormal\", mean = {mean:.3}, std = {std:.3}, min = {min}, max = {max} }}"
            )
        }
        Lengths::Fixed(tokens) => format!("{{ distribution = \"fixed\", tokens = {tokens} }}"),
        Lengths::Quantiles(points) => {
            let points: Vec<String> =
                points.iter().map(|(share, tokens)| format!("[{share:?}, {tokens}]")).collect();
            format!("{{ distribution = \"quantiles\", points = [{}] }}", points.join(", "))
        }
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Seed;
    use crate::workload::trace_of;

    /// What was drawn is found again.
    #[test]
    fn a_drawn_workload_is_found_again() {
        let prefixes = Prefixes {
            levels: vec![
                Level { groups: 1, tokens: 64, zipf_exponent: 0.0 },
                Level { groups: 200, tokens: 512, zipf_exponent: 1.0 },
            ],
        };
        let drawn = Drawn {
            requests: 20_000,
            demand: Demand::Open(Arrivals {
                rate_per_s: 12.0,
                process: ArrivalProcess::Gamma { cv: 2.5 },
                modulations: Vec::new(),
            }),
            tokens: Tokens::Apart {
                prompt: Lengths::LogNormal { mean: 900.0, std: 700.0, min: 1, max: 100_000 },
                output: Lengths::LogNormal { mean: 200.0, std: 150.0, min: 1, max: 100_000 },
            },
            prefixes: Some(prefixes),
            classes: Vec::new(),
        };
        let fitted = fit(&trace_of(&drawn.draw(Seed(3))));
        let Demand::Open(arrivals) = &fitted.drawn.demand else { panic!("no sessions") };
        assert!((arrivals.rate_per_s / 12.0 - 1.0).abs() < 0.05);
        let ArrivalProcess::Gamma { cv } = arrivals.process else { panic!("{arrivals:?}") };
        assert!((cv / 2.5 - 1.0).abs() < 0.05, "{cv}");
        let Tokens::Apart { prompt: Lengths::LogNormal { mean, std, .. }, .. } = fitted.drawn.tokens else {
            panic!("log-normal prompts")
        };
        assert!((mean / 900.0 - 1.0).abs() < 0.05 && (std / 700.0 - 1.0).abs() < 0.1, "{mean} {std}");
        let levels = fitted.drawn.prefixes.unwrap().levels;
        assert_eq!((levels[0].tokens, levels[1].groups, levels[1].tokens), (64, 200, 512));
        assert!((levels[1].zipf_exponent - 1.0).abs() < 0.15, "{levels:?}");
        assert!(
            fitted.prompt_distance < 0.02
                && fitted.gap_distance < 0.02
                && fitted.length_correlation.abs() < 0.05
        );
    }

    #[test]
    fn drawn_sessions_are_found_again() {
        let drawn = Drawn {
            requests: 20_000,
            demand: Demand::Sessions(
                Arrivals { rate_per_s: 2.0, process: ArrivalProcess::Poisson, modulations: Vec::new() },
                Turns {
                    count: Lengths::Uniform { min: 3, max: 7 },
                    think: Think::LogNormal { mean_s: 20.0, std_s: 10.0 },
                    max_prompt_tokens: u32::MAX,
                },
            ),
            tokens: Tokens::Apart { prompt: Lengths::Fixed(120), output: Lengths::Fixed(80) },
            prefixes: None,
            classes: Vec::new(),
        };
        let fitted = fit(&trace_of(&drawn.draw(Seed(3))));
        let Demand::Sessions(arrivals, turns) = &fitted.drawn.demand else { panic!("sessions") };
        assert!((arrivals.rate_per_s / 2.0 - 1.0).abs() < 0.05);
        let Think::LogNormal { mean_s, .. } = turns.think else { panic!("log-normal") };
        assert!((mean_s / 20.0 - 1.0).abs() < 0.05);
        let Lengths::Quantiles(points) = &turns.count else { panic!("{:?}", turns.count) };
        // The last session is cut off by the number of requests.
        assert_eq!((points[2].1, points[12], points[26].1), (3, (0.5, 5), 7));
        assert_eq!(
            fitted.drawn.tokens,
            Tokens::Apart { prompt: Lengths::Fixed(120), output: Lengths::Fixed(80) }
        );
    }
}
