//! Contenders in order, and what is real of it.
//!
//! Knows summaries of repetitions. The ranking goes by E2E P99, mean over repetitions; differences are taken pair by pair on the
//! same requests. Does not know how runs are made.

use std::ops::Range;

use super::compare::Contender;
use super::statistics::{
    Interval, Intervals, LatencyIntervals, Paired, interval, paired, percentile_interval,
};
use crate::metrics::{Aftermath, Distribution, Distributions, Quantiles, RunSummary, Windows};
use crate::request::Outcome;
use crate::time::{Span, Time};

/// One side with its results.
#[derive(Clone, Debug)]
pub struct Ranked {
    /// As the table shows it.
    pub name: String,
    /// Its policy.
    pub policy: String,
    /// The policy's parameters where they are not the product's own, in one line.
    pub parameters: String,
    /// 1 is best. Those of one group cannot be told apart from the group's first.
    pub group: u32,
    /// E2E P99 over all offered requests, mean over repetitions; none is infinite.
    pub e2e_p99_ms: Option<f64>,
    /// Intervals over repetitions, at 95 %.
    pub intervals: LatencyIntervals,
    /// E2E P99 of a repetition above that of the first in the ranking, pair by pair; none for the first, and where there is no
    /// interval.
    pub behind_first: Option<Paired>,
    /// Whether it is known to be behind the first.
    pub is_behind_first: bool,
    /// The same above the first of the group before; none in the first group.
    pub behind_group: Option<Interval>,
    /// A summary a repetition.
    pub repetitions: Vec<RunSummary>,
    /// What became of each request in the first repetition, the warm-up's too.
    pub outcomes: Vec<Outcome>,
    /// The first repetition over time; none unless its outcomes were kept.
    pub windows: Option<Windows>,
    /// The same around its incidents; none where there were none.
    pub aftermath: Option<Aftermath>,
    /// Requests sent outside it are the warm-up and the cool-down.
    pub counted: Range<Time>,
    /// Whether each P99 objective was met in the mean over repetitions, by name.
    pub objectives: Vec<(String, bool)>,
    /// Its place among the contenders as they were given.
    pub(super) given: usize,
}

impl Ranked {
    /// A side that has not been run.
    pub(super) fn new(given: usize, contender: &Contender) -> Ranked {
        let parameters = &contender.scenario.router.parameters;
        let pairs: Vec<String> = parameters.iter().map(|(key, value)| format!("{key} = {value}")).collect();
        Ranked {
            name: contender.name.clone(),
            policy: contender.scenario.router.policy.clone(),
            parameters: pairs.join(", "),
            group: 1,
            e2e_p99_ms: None,
            intervals: LatencyIntervals::default(),
            behind_first: None,
            is_behind_first: false,
            behind_group: None,
            repetitions: Vec::new(),
            outcomes: Vec::new(),
            windows: None,
            aftermath: None,
            counted: contender.scenario.counted(),
            objectives: Vec::new(),
            given,
        }
    }

    /// Mean of a figure over repetitions; none where any repetition has none.
    pub fn mean(&self, of: impl Fn(&RunSummary) -> Option<f64>) -> Option<f64> {
        let values: Option<Vec<f64>> = self.repetitions.iter().map(of).collect();
        values.map(|values| values.iter().sum::<f64>() / values.len() as f64)
    }

    /// Works out what its repetitions say.
    fn gather(&mut self, contender: &Contender) {
        self.e2e_p99_ms = self.mean(|summary| summary.e2e_p99_of_offered_ms);
        let p99 = contender.scenario.p99;
        let met = |name: &str, limit: Option<Span>, of: fn(&RunSummary) -> Option<f64>| {
            let limit_ms = limit?.as_ms();
            let met = self.mean(of).is_some_and(|mean_ms| mean_ms <= limit_ms);
            Some((format!("{name} P99 <= {limit_ms} ms"), met))
        };
        let objectives = [
            met("TTFT", p99.ttft, |summary| summary.ttft_p99_of_offered_ms),
            met("TPOT", p99.tpot, |summary| summary.tpot.p99_ms),
            met("E2E", p99.e2e, |summary| summary.e2e_p99_of_offered_ms),
        ];
        self.objectives = objectives.into_iter().flatten().collect();
        self.intervals = LatencyIntervals {
            e2e: self.intervals_of(|summary| &summary.e2e, |all| &all.e2e),
            ttft: self.intervals_of(|summary| &summary.ttft, |all| &all.ttft),
            tpot: self.intervals_of(|summary| &summary.tpot, |all| &all.tpot),
        };
    }

    fn intervals_of(
        &self,
        quantiles: fn(&RunSummary) -> &Quantiles,
        distribution: fn(&Distributions) -> &Distribution,
    ) -> Intervals {
        let means: Option<Vec<f64>> =
            self.repetitions.iter().map(|summary| quantiles(summary).mean_ms).collect();
        let distributions: Vec<&Distribution> = self
            .repetitions
            .iter()
            .filter_map(|summary| summary.distributions.as_ref())
            .map(distribution)
            .collect();
        let requests = self.repetitions.iter().map(|summary| quantiles(summary).count).sum();
        Intervals::of(means.and_then(|means| interval(&means)), |p| {
            percentile_interval(&distributions, p, requests)
        })
    }

    /// What the ranking sorts by: E2E P99, then the share of requests without a whole answer.
    fn place(&self) -> (f64, f64) {
        let offered: u64 = self.repetitions.iter().map(|summary| summary.offered).sum();
        let completed: u64 = self.repetitions.iter().map(|summary| summary.completed).sum();
        (self.e2e_p99_ms.unwrap_or(f64::INFINITY), (offered - completed) as f64 / offered.max(1) as f64)
    }
}

/// Sorts, and groups what cannot be told apart with intervals at `level`. `contenders` are as they were given.
pub(super) fn rank(ranking: &mut [Ranked], contenders: &[Contender], level: f64) {
    for ranked in ranking.iter_mut() {
        ranked.gather(&contenders[ranked.given]);
    }
    // Infinite is last, and the more requests are lost the later.
    ranking.sort_by(|a, b| {
        let by_place = a.place().partial_cmp(&b.place()).unwrap_or(std::cmp::Ordering::Equal);
        by_place.then(a.given.cmp(&b.given))
    });
    group(ranking, level);
}

/// A difference within this share of the first's E2E P99 is as good as none.
const NEGLIGIBLE: f64 = 0.01;

/// Whether of every contender it is known that it is behind the first, or as good as it.
pub(super) fn is_decided(ranking: &[Ranked], level: f64) -> bool {
    let first = &ranking[0];
    let negligible_ms = first.e2e_p99_ms.unwrap_or(0.0) * NEGLIGIBLE;
    ranking[1..].iter().all(|ranked| match behind(ranked, first, level) {
        Behind::Surely(_) => true,
        Behind::Unclear(Some(paired)) => {
            paired.difference.low >= -negligible_ms && paired.difference.high <= negligible_ms
        }
        // The same in every repetition: they decide alike.
        Behind::Unclear(None) => ranked.repetitions.iter().zip(&first.repetitions).all(|(a, b)| {
            a.e2e_p99_of_offered_ms.is_some() && a.e2e_p99_of_offered_ms == b.e2e_p99_of_offered_ms
        }),
    })
}

/// Whether one is behind another, repetition by repetition.
enum Behind {
    /// By this much, and the interval does not hold 0.
    Surely(Option<Paired>),
    /// It cannot be told.
    Unclear(Option<Paired>),
}

fn behind(later: &Ranked, earlier: &Ranked, level: f64) -> Behind {
    let pairs = later.repetitions.iter().zip(&earlier.repetitions);
    let differences: Option<Vec<f64>> = pairs
        .clone()
        .map(|(later, earlier)| Some(later.e2e_p99_of_offered_ms? - earlier.e2e_p99_of_offered_ms?))
        .collect();
    if let Some(differences) = differences {
        let paired = paired(&differences, level);
        return match paired {
            Some(Paired { difference, .. }) if difference.low > 0.0 => Behind::Surely(paired),
            _ => Behind::Unclear(paired),
        };
    }
    let p99 = |ranked: &Ranked| -> Vec<f64> {
        let summaries = ranked.repetitions.iter();
        summaries.map(|summary| summary.e2e_p99_of_offered_ms.unwrap_or(f64::INFINITY)).collect()
    };
    match is_later_by_signs(&p99(later), &p99(earlier), level) {
        true => Behind::Surely(None),
        false => Behind::Unclear(None),
    }
}

/// Where one is infinite somewhere there is no mean, and signs are left: it is later if it alone is infinite in every repetition of
/// several, or later in each of as many as are not later by chance.
fn is_later_by_signs(later: &[f64], earlier: &[f64], level: f64) -> bool {
    let pairs = || later.iter().zip(earlier);
    let alone_is_infinite = pairs().all(|(later, earlier)| later.is_infinite() && earlier.is_finite());
    let is_later = pairs().all(|(later, earlier)| later > earlier);
    let chance = 0.5f64.powi(later.len() as i32);
    alone_is_infinite && later.len() > 1 || is_later && chance <= 1.0 - level
}

/// Groups from the best on: one joins as long as it cannot be told from the group's first.
fn group(ranking: &mut [Ranked], level: f64) {
    let mut group_first = 0;
    let mut previous_first = None;
    let difference = |paired: Option<Paired>| paired.map(|paired| paired.difference);
    (ranking[0].group, ranking[0].behind_first, ranking[0].behind_group) = (1, None, None);
    for index in 1..ranking.len() {
        let (before, rest) = ranking.split_at_mut(index);
        let this = &mut rest[0];
        (this.is_behind_first, this.behind_first) = match behind(this, &before[0], level) {
            Behind::Surely(by) => (true, by),
            Behind::Unclear(by) => (false, by),
        };
        this.behind_group = None;
        match behind(this, &before[group_first], level) {
            Behind::Surely(by) => {
                this.group = before[index - 1].group + 1;
                this.behind_group = difference(by);
                previous_first = Some(group_first);
                group_first = index;
            }
            Behind::Unclear(_) => {
                this.group = before[index - 1].group;
                if let Some(first) = previous_first {
                    let (Behind::Surely(by) | Behind::Unclear(by)) = behind(this, &before[first], level);
                    this.behind_group = difference(by);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_some_are_infinite_signs_decide() {
        let infinite = f64::INFINITY;
        let finite = [1.0, 2.0, 1.5, 1.2, 1.1];
        assert!(is_later_by_signs(&[infinite, 2.5, infinite, 1.3, 9.0], &finite, 0.95));
        assert!(!is_later_by_signs(&[infinite, 2.5, infinite, 1.3, 1.0], &finite, 0.95), "not in the last");
        assert!(
            !is_later_by_signs(&[infinite, 2.5, infinite], &finite[..3], 0.95),
            "three coins may fall alike"
        );
        assert!(!is_later_by_signs(&[infinite, 2.5, infinite, 1.3, 9.0], &finite, 0.99));
        assert!(is_later_by_signs(&[infinite, infinite], &finite[..2], 0.95));
        assert!(!is_later_by_signs(&[infinite; 5], &[infinite, 1.0, 1.0, 1.0, 1.0], 0.95), "both are");
    }
}
