//! Several scenarios side by side on the same requests, ranked by tail latency, with what is real of the
//! differences.
//!
//! Every repetition draws its requests once and gives them to all contenders (common random numbers). Runs go
//! in parallel; results come back in order, so the bytes are the same for any number of threads.

use std::ops::Range;
use std::sync::Arc;

use rayon::prelude::*;

use super::batches::{self, Unsaid};
use super::ranking::{Ranked, is_decided, rank};
use super::run::{Keep, RunResult, StudyError, Traces, jobs, run};
use super::saturation::saturation_requests_per_s;
use super::stability::Stability;
use super::standing::{Standing, stand};
use super::statistics::{LEVEL, level_of_look};
use super::steady::{Beginning, beginning};
use super::uncertainty::Uncertainty;
use crate::metrics::quantile::{EXACT_UP_TO, SKETCH_PARTS};
use crate::metrics::{aftermath, windows};
use crate::scenario::{LONGEST_S, Scenario, WarmupRule, Workload};
use crate::time::Span;
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

/// A comparison, best first.
#[derive(Clone, Debug)]
pub struct Comparison {
    /// Of the scenario.
    pub title: String,
    /// Repetitions.
    pub repeat: u32,
    /// How often results were looked at before it was enough.
    pub looks: u32,
    /// The level at which differences are judged: 95 %, or what the last of several looks leaves of it.
    pub level: f64,
    /// Whether every contender is known to be behind the first, or within 1 % of it.
    pub decided: bool,
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
    /// Whether the winner stays if step times are wrong, where that was asked for.
    pub stability: Option<Stability>,
}

/// Requests of one repetition under one workload.
type Drawn = (Workload, Predictor, u32, Arc<[Job]>);

/// How many repetitions are made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Repetitions {
    /// As many as the scenario says.
    Fixed,
    /// From as many as the scenario says on, half as many more each time, until every contender is known to be behind the first or as
    /// good as it, but no more than this.
    UntilDecided {
        /// At most.
        most: u32,
    },
}

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
    repetitions: Repetitions,
    check: bool,
    keep: Keep,
    ran: &(dyn Fn() + Sync),
) -> Result<Comparison, StudyError> {
    let mut repeat = contenders[0].scenario.repeat;
    let mut drawn = Vec::new();
    draw(contenders, traces, 0..repeat, &mut drawn)?;
    let first_jobs = jobs_of(&drawn, &contenders[0].scenario, 0);
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
    let mut ranking: Vec<Ranked> =
        contenders.iter().enumerate().map(|(given, contender)| Ranked::new(given, contender)).collect();
    let mut notes = traces.notes();
    let (saturation, ran_first) = rayon::join(
        || saturation_requests_per_s(first, &first_jobs),
        || run_all(contenders, &drawn, 0..repeat, check, keep, ran),
    );
    take_in(&mut ranking, ran_first?, &mut notes);
    let (mut look, mut level) = (1, LEVEL);
    let most = match repetitions {
        Repetitions::Fixed => repeat,
        Repetitions::UntilDecided { most } => most,
    };
    let decided = loop {
        if repetitions != Repetitions::Fixed {
            level = level_of_look(look);
        }
        rank(&mut ranking, contenders, level);
        let decided = repeat > 1 && is_decided(&ranking, level);
        if decided || repeat >= most {
            break decided;
        }
        let more = repeat..(repeat + repeat.div_ceil(2)).min(most);
        (repeat, look) = (more.end, look + 1);
        draw(contenders, traces, more.clone(), &mut drawn)?;
        take_in(&mut ranking, run_all(contenders, &drawn, more, check, keep, ran)?, &mut notes);
    };
    if ranking.iter().flat_map(|ranked| &ranked.repetitions).any(|summary| summary.sketched) {
        notes.push(format!(
            "more than {EXACT_UP_TO} requests: quantiles are from a sketch and off by at most one part in {SKETCH_PARTS}."
        ));
    }
    let given_first = ranking.iter().find(|ranked| ranked.given == 0).map(|ranked| &ranked.repetitions[0]);
    let given_first = given_first.expect("there is a contender");
    let mut standing = stand(contenders, saturation?, &first_jobs, given_first);
    let (mut by_batches, mut dependent) = (false, false);
    for ranked in ranking.iter_mut().filter(|ranked| !ranked.outcomes.is_empty()) {
        let scenario = &contenders[ranked.given].scenario;
        let over_time = windows(&ranked.outcomes, &ranked.counted, scenario.window, scenario.limits());
        let day = ranked.repetitions.first().and_then(|summary| summary.bad_day.as_ref());
        let bears = standing.saturation_requests_per_s;
        let limits = scenario.limits().unwrap_or_default();
        let counted = ranked.outcomes.iter().filter(|outcome| ranked.counted.contains(&outcome.sent));
        let sent: Vec<(f64, bool)> =
            counted.map(|outcome| (outcome.sent.as_s(), limits.met_by(outcome))).collect();
        ranked.aftermath = day.and_then(|day| aftermath(&over_time, &sent, &day.incidents, bears));
        ranked.windows = Some(over_time);
        if repeat == 1 {
            match batches::of_run(&ranked.outcomes, &ranked.counted) {
                Ok(intervals) => (ranked.intervals, by_batches) = (intervals, true),
                Err(Unsaid::Dependent) => dependent = true,
                Err(Unsaid::Short) => {}
            }
        }
    }
    if let Some(beginning) = begun {
        let warmup_s = beginning.warmup.as_s();
        let what = format!("warm-up: MSER-5 leaves out the first {warmup_s:.3} s, under every contender");
        standing.remarks.push(what);
    }
    if begun.is_some_and(|beginning| beginning.never_steady) {
        standing.remarks.push("no steady state: MSER-5 would leave out more than half of the run".into());
    }
    let mut marks: Vec<String> = Vec::new();
    for mark in contenders.iter().flat_map(|contender| &contender.scenario.marks) {
        if !marks.contains(mark) {
            marks.push(mark.clone());
        }
    }
    Ok(Comparison {
        title: first.title.clone(),
        repeat,
        looks: look,
        level,
        decided,
        standing,
        ranking,
        marks,
        notes,
        population: match by_batches {
            false if dependent => "one repetition, whose stretches depend on each other, so batch means say nothing: a longer run or more \
                                   repetitions would"
                .into(),
            true => format!(
                "one run in {} stretches (batch means), hence of a longer one of its kind",
                batches::STRETCHES
            ),
            false => population(first, repeat),
        },
        uncertainty: None,
        stability: None,
    })
}

/// What each contender made of its repetitions, in order.
fn take_in(ranking: &mut [Ranked], results: Vec<Vec<RunResult>>, notes: &mut Vec<String>) {
    // As they were given: results are in that order.
    ranking.sort_by_key(|ranked| ranked.given);
    for (ranked, results) in ranking.iter_mut().zip(results) {
        for result in results {
            for note in result.notes {
                if !notes.contains(&note) {
                    notes.push(note);
                }
            }
            if ranked.repetitions.is_empty() {
                ranked.outcomes = result.outcomes;
            }
            ranked.repetitions.push(result.summary);
        }
    }
}

/// Results by contender and repetition.
fn run_all(
    contenders: &[Contender],
    drawn: &[Drawn],
    repetitions: Range<u32>,
    check: bool,
    keep: Keep,
    ran: &(dyn Fn() + Sync),
) -> Result<Vec<Vec<RunResult>>, StudyError> {
    let runs: Vec<(usize, u32)> = (0..contenders.len())
        .flat_map(|contender| repetitions.clone().map(move |r| (contender, r)))
        .collect();
    let one = |&(contender, repetition): &(usize, u32)| {
        let scenario = &contenders[contender].scenario;
        // Only the first repetition's requests are shown one by one.
        let keep = if repetition == 0 { keep } else { Keep::Nothing };
        let result = run(scenario, &jobs_of(drawn, scenario, repetition), repetition, check, keep)?;
        ran();
        Ok(result)
    };
    let results = runs.par_iter().map(one).collect::<Result<Vec<RunResult>, StudyError>>()?;
    let mut results = results.into_iter();
    Ok(contenders.iter().map(|_| results.by_ref().take(repetitions.len()).collect()).collect())
}

/// The requests that a contender has in a repetition.
fn jobs_of(drawn: &[Drawn], scenario: &Scenario, repetition: u32) -> Arc<[Job]> {
    let same = |(workload, predictor, drawn_for, _): &&Drawn| {
        *drawn_for == repetition && *workload == scenario.workload && *predictor == scenario.predictor
    };
    drawn.iter().find(same).map(|(.., jobs)| jobs.clone()).unwrap_or_default()
}

/// Draws the requests of these repetitions, once for all contenders that have the same.
fn draw(
    contenders: &[Contender],
    traces: &mut Traces,
    repetitions: Range<u32>,
    drawn: &mut Vec<Drawn>,
) -> Result<(), StudyError> {
    for contender in contenders {
        let scenario = &contender.scenario;
        let trace = traces.of(&scenario.workload)?;
        for repetition in repetitions.clone() {
            if jobs_of(drawn, scenario, repetition).is_empty() {
                let jobs: Arc<[Job]> = jobs(scenario, trace.as_deref(), repetition)?.into();
                check_that_something_is_measured(scenario, &jobs)?;
                drawn.push((scenario.workload.clone(), scenario.predictor.clone(), repetition, jobs));
            }
        }
    }
    Ok(())
}

/// A contender as it runs beside the others: its scenario with the warm-up that all share, and its requests in the first repetition.
///
/// # Errors
/// If a trace cannot be read or there is nothing to run.
pub fn first_repetition(
    contenders: &[Contender],
    traces: &mut Traces,
    which: usize,
) -> Result<(Scenario, Arc<[Job]>), StudyError> {
    let mut drawn = Vec::new();
    draw(contenders, traces, 0..1, &mut drawn)?;
    let first = &contenders[0].scenario;
    let mut contender = contenders[which].clone();
    if let Some(beginning) = beginning_of(first, &jobs_of(&drawn, first, 0))? {
        contender = contender.warmed(beginning.warmup);
    }
    let jobs = jobs_of(&drawn, &contender.scenario, 0);
    Ok((contender.scenario, jobs))
}

/// Every request may be in the warm-up, or so far apart that the clock cannot hold them.
pub(super) fn check_that_something_is_measured(scenario: &Scenario, jobs: &[Job]) -> Result<(), StudyError> {
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
        if scenario.cooldown == Span::ZERO {
            return Err(StudyError::Empty(
                "end: no request is sent between the warm-up and the end, so nothing would be measured"
                    .into(),
            ));
        }
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

/// What repetitions are drawn from, hence what intervals speak of.
pub fn population(scenario: &Scenario, repeat: u32) -> String {
    use crate::workload::replay::Resample;
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
