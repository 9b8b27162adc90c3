//! Several scenarios side by side on the same requests, ranked by tail latency, with what is real of the
//! differences.
//!
//! Every repetition draws its requests once and gives them to all contenders (common random numbers). Runs go
//! in parallel; results come back in order, so the bytes are the same for any number of threads.

use std::ops::Range;
use std::sync::Arc;

use rayon::prelude::*;
use serde::Serialize;

use super::run::{Keep, RunResult, StudyError, Traces, jobs, run};
use super::saturation::saturation_requests_per_s;
use super::statistics::{Interval, interval};
use super::steady::{Beginning, beginning};
use super::uncertainty::Uncertainty;
use crate::metrics::RunSummary;
use crate::metrics::quantile::{EXACT_UP_TO, SKETCH_PARTS};
use crate::request::Outcome;
use crate::scenario::{LONGEST_S, Scenario, WarmupRule, Workload};
use crate::time::{Span, Time};
use crate::workload::Job;
use crate::workload::predictor::Predictor;

/// One side of a comparison.
#[derive(Clone, Debug)]
pub struct Contender {
    /// As the table shows it: a policy or a variant.
    pub name: String,
    /// What is run.
    pub scenario: Scenario,
}

impl Contender {
    /// The same with this warm-up.
    fn warmed(&self, warmup: Span) -> Contender {
        let mut contender = self.clone();
        contender.scenario.warmup = warmup;
        contender
    }
}

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
    /// Its 95 % interval over repetitions.
    pub e2e_p99_interval: Option<Interval>,
    /// E2E P99 above that of the first in the ranking, pair by pair; none for the first, and where there is no
    /// interval.
    pub behind_first: Option<Interval>,
    /// The same above the first of the group before; none in the first group.
    pub behind_group: Option<Interval>,
    /// A summary a repetition.
    pub repetitions: Vec<RunSummary>,
    /// What became of each request in the first repetition, the warm-up's too.
    pub outcomes: Vec<Outcome>,
    /// Requests sent outside it are the warm-up and the cool-down.
    pub counted: Range<Time>,
    /// Whether each P99 objective was met in the mean over repetitions, by name.
    pub objectives: Vec<(String, bool)>,
}

impl Ranked {
    /// Mean of a figure over repetitions; none where any repetition has none.
    pub fn mean(&self, of: impl Fn(&RunSummary) -> Option<f64>) -> Option<f64> {
        let values: Option<Vec<f64>> = self.repetitions.iter().map(of).collect();
        values.map(|values| values.iter().sum::<f64>() / values.len() as f64)
    }
}

/// Where the fleet stands under this workload.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Standing {
    /// Replicas.
    pub replicas: u32,
    /// Requests a second that are offered.
    pub offered_requests_per_s: f64,
    /// Requests a second that the fleet can bear at most, as measured.
    pub saturation_requests_per_s: Option<f64>,
    /// Offered over saturation.
    pub load: Option<f64>,
    /// Running list that half of the GPUs' time was at or below, under the first contender.
    pub median_batch: u32,
    /// Mean share of KV blocks in use, under the first contender.
    pub kv_cache_usage: f64,
    /// What to know before reading the table.
    pub remarks: Vec<String>,
}

/// A comparison, best first.
#[derive(Clone, Debug)]
pub struct Comparison {
    /// Of the scenario.
    pub title: String,
    /// Repetitions.
    pub repeat: u32,
    /// Where the fleet stands.
    pub standing: Standing,
    /// The contenders, best first.
    pub ranking: Vec<Ranked>,
    /// Why figures are less certain than usual.
    pub marks: Vec<String>,
    /// What reading the trace passed over.
    pub notes: Vec<String>,
    /// What the intervals speak of.
    pub population: String,
    /// The same under models drawn from a calibration, where that was asked for.
    pub uncertainty: Option<Uncertainty>,
}

/// Requests of one repetition under one workload.
type Drawn = (Workload, Predictor, u32, Arc<[Job]>);

/// Runs every contender on every repetition. `keep` says what is kept of the first; `ran` is called after each run.
///
/// # Errors
/// If a trace cannot be read or there is nothing to run.
///
/// # Panics
/// If there is no contender.
pub fn compare(
    contenders: &[Contender],
    traces: &mut Traces,
    check: bool,
    keep: Keep,
    ran: &(dyn Fn() + Sync),
) -> Result<Comparison, StudyError> {
    let repeat = contenders[0].scenario.repeat;
    let drawn = draw_all(contenders, traces)?;
    let jobs_of = |scenario: &Scenario, repetition: u32| {
        let same = |(workload, predictor, drawn_for, _): &&Drawn| {
            *workload == scenario.workload && *predictor == scenario.predictor && *drawn_for == repetition
        };
        drawn.iter().find(same).map(|(.., jobs)| jobs.clone()).unwrap_or_default()
    };
    let first_jobs = jobs_of(&contenders[0].scenario, 0);
    let begun = beginning_of(&contenders[0].scenario, &first_jobs)?;
    let warmed: Vec<Contender>;
    let contenders = match begun {
        None => contenders,
        Some(beginning) => {
            warmed = contenders.iter().map(|contender| contender.warmed(beginning.warmup)).collect();
            &warmed[..]
        }
    };
    let first = &contenders[0].scenario;
    let runs: Vec<(usize, u32)> =
        (0..contenders.len()).flat_map(|contender| (0..repeat).map(move |r| (contender, r))).collect();
    let (saturation, results) = rayon::join(
        || saturation_requests_per_s(first, &first_jobs),
        || {
            let one = |&(contender, repetition): &(usize, u32)| {
                let scenario = &contenders[contender].scenario;
                // Only the first repetition's requests are shown one by one.
                let keep = if repetition == 0 { keep } else { Keep::Nothing };
                let result = run(scenario, &jobs_of(scenario, repetition), repetition, check, keep)?;
                ran();
                Ok(result)
            };
            runs.par_iter().map(one).collect::<Result<Vec<RunResult>, StudyError>>()
        },
    );
    let results = results?;
    let mut notes = traces.notes();
    for note in results.iter().flat_map(|result| &result.notes) {
        if !notes.contains(note) {
            notes.push(note.clone());
        }
    }
    if results.iter().any(|result| result.summary.sketched) {
        notes.push(format!(
            "more than {EXACT_UP_TO} requests: quantiles are from a sketch and off by at most one part in {SKETCH_PARTS}."
        ));
    }
    let mut results = results.into_iter();
    let mut ranking: Vec<Ranked> = contenders
        .iter()
        .map(|contender| gather(contender, results.by_ref().take(repeat as usize).collect()))
        .collect();
    let mut standing = stand(first, saturation?, &first_jobs, &ranking[0].repetitions[0]);
    if let Some(beginning) = begun {
        let warmup_s = beginning.warmup.as_s();
        let what = format!("warm-up: MSER-5 leaves out the first {warmup_s:.3} s, under every contender");
        standing.remarks.push(what);
    }
    if begun.is_some_and(|beginning| beginning.never_steady) {
        standing.remarks.push("no steady state: MSER-5 would leave out more than half of the run".into());
    }
    // Infinite is last, and the more requests are lost the later.
    ranking.sort_by(|a, b| place(a).partial_cmp(&place(b)).unwrap_or(std::cmp::Ordering::Equal));
    group(&mut ranking);
    let mut marks: Vec<String> = Vec::new();
    for mark in contenders.iter().flat_map(|contender| &contender.scenario.marks) {
        if !marks.contains(mark) {
            marks.push(mark.clone());
        }
    }
    Ok(Comparison {
        title: first.title.clone(),
        repeat,
        standing,
        ranking,
        marks,
        notes,
        population: population(first),
        uncertainty: None,
    })
}

fn draw_all(contenders: &[Contender], traces: &mut Traces) -> Result<Vec<Drawn>, StudyError> {
    let mut drawn: Vec<Drawn> = Vec::new();
    for contender in contenders {
        let scenario = &contender.scenario;
        let trace = traces.of(&scenario.workload)?;
        for repetition in 0..scenario.repeat {
            let known = drawn.iter().any(|(workload, predictor, drawn_for, _)| {
                *workload == scenario.workload && *predictor == scenario.predictor && *drawn_for == repetition
            });
            if !known {
                let jobs: Arc<[Job]> = jobs(scenario, trace.as_deref(), repetition)?.into();
                check_that_something_is_measured(scenario, &jobs)?;
                drawn.push((scenario.workload.clone(), scenario.predictor.clone(), repetition, jobs));
            }
        }
    }
    Ok(drawn)
}

/// Every request may be in the warm-up, or so far apart that the clock cannot hold them.
fn check_that_something_is_measured(scenario: &Scenario, jobs: &[Job]) -> Result<(), StudyError> {
    let Some(last) = jobs.last().map(|job| job.sent) else {
        return Err(StudyError::Empty("the workload holds no request".into()));
    };
    if last.as_s() > LONGEST_S {
        return Err(StudyError::Empty(format!(
            "workload.rate_scale: the last request would be sent after {:.0} s, and a run holds {LONGEST_S:.0} s",
            last.as_s()
        )));
    }
    // Of a streamed trace only the beginning is known here.
    let streamed = matches!(scenario.workload, Workload::Trace { streamed: true, .. });
    let counted = scenario.counted();
    if !streamed && !jobs.iter().any(|job| counted.contains(&job.sent)) && last >= counted.end {
        return Err(StudyError::Empty(
            "cooldown_s: no request is sent between the warm-up and the cool-down, so nothing would be measured".into(),
        ));
    }
    if last < counted.start && !streamed {
        return Err(StudyError::Empty(format!(
            "warmup_s: every request is sent within the warm-up of {} s (the last at {:.3} s), so nothing would be measured",
            scenario.warmup.as_s(),
            last.as_s()
        )));
    }
    Ok(())
}

/// Where the steady state begins, if the scenario leaves that to a rule: by one run of the first contender, so that all
/// leave out the same requests.
fn beginning_of(scenario: &Scenario, jobs: &Arc<[Job]>) -> Result<Option<Beginning>, StudyError> {
    match scenario.warmup_rule {
        None => Ok(None),
        Some(WarmupRule::Mser5) => {
            Ok(Some(beginning(&run(scenario, jobs, 0, false, Keep::Outcomes)?.outcomes)))
        }
    }
}

/// Times are unlike when one holds so many times as many requests as another.
const UNLIKE: f64 = 3.0;
/// Fewer requests say nothing of a trend.
const FEWEST_FOR_TREND: u64 = 1_000;

fn gather(contender: &Contender, mut results: Vec<RunResult>) -> Ranked {
    let outcomes = results.first_mut().map(|first| std::mem::take(&mut first.outcomes)).unwrap_or_default();
    let repetitions: Vec<RunSummary> = results.into_iter().map(|result| result.summary).collect();
    let p99s: Option<Vec<f64>> = repetitions.iter().map(|summary| summary.e2e_p99_of_offered_ms).collect();
    let mut ranked = Ranked {
        name: contender.name.clone(),
        policy: contender.scenario.router.policy.clone(),
        parameters: in_one_line(&contender.scenario.router.parameters),
        group: 1,
        e2e_p99_ms: None,
        e2e_p99_interval: p99s.as_deref().and_then(interval),
        behind_first: None,
        behind_group: None,
        objectives: Vec::new(),
        repetitions,
        outcomes,
        counted: contender.scenario.counted(),
    };
    ranked.e2e_p99_ms = ranked.mean(|summary| summary.e2e_p99_of_offered_ms);
    let p99 = contender.scenario.p99;
    let met = |name: &str, limit: Option<Span>, of: fn(&RunSummary) -> Option<f64>| {
        let limit_ms = limit?.as_ms();
        Some((
            format!("{name} P99 <= {limit_ms} ms"),
            ranked.mean(of).is_some_and(|mean_ms| mean_ms <= limit_ms),
        ))
    };
    let objectives = [
        met("TTFT", p99.ttft, |summary| summary.ttft.p99_ms),
        met("TPOT", p99.tpot, |summary| summary.tpot.p99_ms),
        met("E2E", p99.e2e, |summary| summary.e2e_p99_of_offered_ms),
    ];
    ranked.objectives = objectives.into_iter().flatten().collect();
    ranked
}

fn in_one_line(parameters: &toml::Table) -> String {
    let pairs: Vec<String> = parameters.iter().map(|(key, value)| format!("{key} = {value}")).collect();
    pairs.join(", ")
}

/// What the ranking sorts by: E2E P99, then the share of requests without a whole answer.
fn place(ranked: &Ranked) -> (f64, f64) {
    let offered: u64 = ranked.repetitions.iter().map(|summary| summary.offered).sum();
    let completed: u64 = ranked.repetitions.iter().map(|summary| summary.completed).sum();
    (ranked.e2e_p99_ms.unwrap_or(f64::INFINITY), (offered - completed) as f64 / offered.max(1) as f64)
}

/// Whether one is behind another, repetition by repetition.
enum Behind {
    /// By this much, and the interval does not hold 0.
    Surely(Option<Interval>),
    /// It cannot be told.
    Unclear(Option<Interval>),
}

fn behind(later: &Ranked, earlier: &Ranked) -> Behind {
    let pairs = later.repetitions.iter().zip(&earlier.repetitions);
    let differences: Vec<Option<f64>> = pairs
        .clone()
        .map(|(later, earlier)| Some(later.e2e_p99_of_offered_ms? - earlier.e2e_p99_of_offered_ms?))
        .collect();
    if let Some(differences) = differences.iter().copied().collect::<Option<Vec<f64>>>() {
        let interval = interval(&differences);
        return match interval {
            Some(difference) if difference.low > 0.0 => Behind::Surely(interval),
            _ => Behind::Unclear(interval),
        };
    }
    // One of them is infinite: it is behind if that is so in every repetition of several, and never the other's.
    let infinite_only_here = pairs.clone().all(|(later, earlier)| {
        later.e2e_p99_of_offered_ms.is_none() && earlier.e2e_p99_of_offered_ms.is_some()
    });
    if infinite_only_here && later.repetitions.len() > 1 {
        Behind::Surely(None)
    } else {
        Behind::Unclear(None)
    }
}

/// Groups from the best on: one joins as long as it cannot be told from the group's first.
fn group(ranking: &mut [Ranked]) {
    let mut group_first = 0;
    let mut previous_first = None;
    for index in 1..ranking.len() {
        let (before, rest) = ranking.split_at_mut(index);
        let this = &mut rest[0];
        let (Behind::Surely(difference) | Behind::Unclear(difference)) = behind(this, &before[0]);
        this.behind_first = difference;
        match behind(this, &before[group_first]) {
            Behind::Surely(difference) => {
                this.group = before[index - 1].group + 1;
                this.behind_group = difference;
                previous_first = Some(group_first);
                group_first = index;
            }
            Behind::Unclear(_) => {
                this.group = before[index - 1].group;
                if let Some(first) = previous_first {
                    let (Behind::Surely(difference) | Behind::Unclear(difference)) =
                        behind(this, &before[first]);
                    this.behind_group = difference;
                }
            }
        }
    }
}

fn stand(scenario: &Scenario, saturation: Option<f64>, jobs: &[Job], summary: &RunSummary) -> Standing {
    let load = saturation.map(|saturation| summary.offered_requests_per_s / saturation);
    let mut remarks = Vec::new();
    match load {
        None => remarks.push("too few requests to measure the fleet's saturation".to_string()),
        Some(load) if load < 0.3 => remarks.push("too idle for routing to matter".to_string()),
        Some(load) if load > 1.0 => remarks.push(
            "overloaded: more is offered than the fleet can bear, so latencies grow as long as requests come"
                .to_string(),
        ),
        Some(_) => {}
    }
    if summary.queue_growth > 2.0 && load.is_some_and(|load| load > 0.9) {
        let growth = summary.queue_growth;
        remarks.push(format!(
            "the queue grows: {growth:.1} times as many requests in the system in the last quarter as in the second"
        ));
    } else if !(1.0 / UNLIKE..=UNLIKE).contains(&summary.queue_growth) && summary.offered >= FEWEST_FOR_TREND
    {
        let growth = summary.queue_growth;
        remarks.push(format!(
            "not stationary: {growth:.1} times as many requests in the system in the last quarter as in the second, so \
             percentiles mix unlike times"
        ));
    }
    if jobs.iter().all(|job| job.request.content.runs().is_empty()) {
        remarks.push("no prefix identities: prefix-aware policies cannot win".to_string());
    }
    let pressed = summary.preemptions > 0;
    if pressed {
        remarks.push(format!(
            "KV blocks run short: {} preemptions under the first contender",
            summary.preemptions
        ));
    }
    Standing {
        replicas: scenario.replicas.iter().map(|kind| kind.count).sum(),
        offered_requests_per_s: summary.offered_requests_per_s,
        saturation_requests_per_s: saturation,
        load,
        median_batch: summary.median_batch,
        kv_cache_usage: summary.kv_cache_usage,
        remarks,
    }
}

fn population(scenario: &Scenario) -> String {
    use crate::workload::replay::Resample;
    let repeat = scenario.repeat;
    match &scenario.workload {
        _ if repeat == 1 => "one repetition: nothing can be said of chance".into(),
        Workload::Drawn(_) => format!("{repeat} independent draws of the workload"),
        Workload::Trace { resample: Some(Resample::TimeBlocks), .. } => {
            format!("{repeat} draws of the trace's stretches of time, with replacement")
        }
        Workload::Trace { resample: Some(Resample::Sessions), .. } => {
            format!("{repeat} draws of the trace's sessions, with replacement")
        }
        Workload::Trace { .. } => format!("{repeat} jittered replays of the trace"),
    }
}
