//! One scenario, one repetition: requests in, outcomes and a summary out.

use std::path::PathBuf;
use std::sync::Arc;

use thiserror::Error;

use super::bad_day::bad_day;
use super::cost::cost;
use super::scaling::scaling;
use crate::autoscaler::{self, AutoscalerError};
use crate::fleet::{Delivery, Fleet, FleetConfig};
use crate::metrics::{Collector, LaneStats, RunSummary};
use crate::random::{Purpose, Seed};
use crate::replica::Input;
use crate::request::{Outcome, RequestId};
use crate::router::characters::ByCharacters;
use crate::router::{PolicyError, Router, policies};
use crate::scenario::{Scenario, Workload};
use crate::time::Time;
use crate::trace::{self, ReadOptions, Trace, TraceError};
use crate::workload::drawn::moments;
use crate::workload::replay::{Replay, repeated, restarted};
use crate::workload::sessions::Sessions;
use crate::workload::shape::{Shape, Shaped};
use crate::workload::streamed::Streamed;
use crate::workload::{Job, OpenLoop, Source};

/// Why a study cannot be made.
#[derive(Debug, Error)]
pub enum StudyError {
    /// A trace cannot be read.
    #[error(transparent)]
    Trace(#[from] TraceError),
    /// A policy cannot be made.
    #[error(transparent)]
    Policy(#[from] PolicyError),
    /// An autoscaler cannot be made.
    #[error(transparent)]
    Autoscaler(#[from] AutoscalerError),
    /// A policy of the user's own could not decide.
    #[error("{0}")]
    Script(String),
    /// Nothing would be measured.
    #[error("{0}")]
    Empty(String),
    /// More requests than memory holds.
    #[error(
        "workload.rounds: {rounds} rounds of {rows} rows are more than the {MOST_HELD} requests that can be held\nhelp: set \
         workload.requests, or fewer rounds"
    )]
    TooMany {
        /// Rounds asked for.
        rounds: u32,
        /// Rows of the trace.
        rows: usize,
    },
}

/// A trace as it was asked for: file, how it is read, and what of it is kept.
type TraceKey = (PathBuf, ReadOptions, Shape);

/// Traces that have been read, so that each is read once. Clones share them.
#[derive(Clone, Debug, Default)]
pub struct Traces {
    read: Vec<(TraceKey, Arc<Trace>, Shaped)>,
}

impl Traces {
    /// The trace of this workload; none if it is drawn or streamed.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn of(&mut self, workload: &Workload) -> Result<Option<Arc<Trace>>, StudyError> {
        let Workload::Trace { path, options, shape, starts, streamed: false, .. } = workload else {
            return Ok(None);
        };
        let key = (path.clone(), options.clone(), *shape);
        let found = self.read.iter().find(|(read, _, _)| *read == key).map(|(_, trace, _)| trace.clone());
        let trace = match found {
            Some(trace) => trace,
            None => {
                let mut trace = trace::read(path, options)?;
                let (rows, shaped) = shape.apply(trace.rows, SHAPING);
                trace.rows = rows;
                if trace.rows.is_empty() {
                    let file = path.display();
                    let counted = shaped.lines().join(" ");
                    return Err(StudyError::Empty(format!(
                        "{file}: nothing is left of the trace: {counted}"
                    )));
                }
                let trace = Arc::new(trace);
                self.read.push((key, trace.clone(), shaped));
                trace
            }
        };
        if trace.is_timeless() && starts.is_none() {
            return Err(StudyError::Empty(format!(
                "{}: all requests have the same time, and would be sent at once\nhelp: say when they come: \
                 workload.arrivals = {{ rate_per_s = 10.0 }}",
                path.display()
            )));
        }
        Ok(Some(trace))
    }

    /// What reading them passed over or put in order, in sentences.
    pub fn notes(&self) -> Vec<String> {
        self.read
            .iter()
            .flat_map(|(_, trace, shaped)| trace.notes.lines().into_iter().chain(shaped.lines()))
            .collect()
    }
}

/// A trace is cut to size once, alike in all repetitions and for all seeds: it is one trace.
const SHAPING: Seed = Seed(0);

/// The seed of one repetition.
pub fn repetition_seed(scenario: &Scenario, repetition: u32) -> Seed {
    scenario.seed.derive(Purpose::Repetition, u64::from(repetition))
}

/// Requests that are made ready beforehand, at most: some 130 bytes each.
const MOST_HELD: u64 = 100_000_000;

/// Requests of a streamed trace that are read beforehand, to measure the fleet's saturation with them.
const HEAD: u32 = 8_000;

fn open_stream(scenario: &Scenario, requests: Option<u32>, seed: Seed) -> Result<Streamed, StudyError> {
    let Workload::Trace { path, options, rate_scale, .. } = &scenario.workload else {
        return Err(StudyError::Empty("a drawn workload has no trace to stream".into()));
    };
    Ok(Streamed::open(path, options, *rate_scale, requests, scenario.predictor.clone(), seed)?)
}

/// The requests of one repetition, in order of sending; of a streamed trace its first ones.
///
/// # Errors
/// If a streamed trace cannot be read.
pub fn jobs(scenario: &Scenario, trace: Option<&Trace>, repetition: u32) -> Result<Vec<Job>, StudyError> {
    let seed = repetition_seed(scenario, repetition);
    let mut jobs = match (&scenario.workload, trace) {
        (
            Workload::Trace { rate_scale, rounds, requests, resample, starts, closed_loop, .. },
            Some(trace),
        ) => {
            let all = trace.rows.len() as u64 * u64::from(*rounds);
            if requests.map_or(all, |requests| all.min(u64::from(requests))) > MOST_HELD {
                return Err(StudyError::TooMany { rounds: *rounds, rows: trace.rows.len() });
            }
            let replay = Replay {
                rate_scale: *rate_scale,
                rounds: *rounds,
                requests: *requests,
                resample: *resample,
                closed_loop: *closed_loop,
            };
            match starts {
                None => replay.jobs(&trace.rows, seed),
                Some(starts) => {
                    // All rounds are there before their sessions begin: they may run beside each other.
                    let rows =
                        restarted(&repeated(&trace.rows, *rounds), |count| moments(starts, count, seed));
                    Replay { rounds: 1, ..replay }.jobs(&rows, seed)
                }
            }
        }
        (Workload::Drawn(drawn), _) => drawn.draw(seed),
        (Workload::Trace { requests, .. }, None) => {
            let head = requests.map_or(HEAD, |requests| requests.min(HEAD));
            let mut stream = open_stream(scenario, Some(head), seed)?;
            let jobs = std::iter::from_fn(|| stream.next()).collect();
            // A stream has its predictions already.
            return stream.error().map_or(Ok(jobs), |error| Err(error.into()));
        }
    };
    scenario.predictor.predict(&mut jobs, seed);
    Ok(jobs)
}

/// One run.
#[derive(Clone, Debug)]
pub struct RunResult {
    /// In numbers.
    pub summary: RunSummary,
    /// What became of each request, in order of sending; empty unless they were kept.
    pub outcomes: Vec<Outcome>,
    /// What each replica was given, in the order of decisions; empty unless that was kept.
    pub deliveries: Vec<Vec<Delivery>>,
    /// What reading its trace passed over, where that was done while it ran.
    pub notes: Vec<String>,
}

/// What of a run is kept beside its summary.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keep {
    /// Every outcome: some 300 bytes a request.
    Outcomes,
    /// Every outcome, and what each replica was given.
    Deliveries,
    /// Nothing: memory does not grow with the number of requests.
    Nothing,
}

/// Runs a scenario once on the given requests. `check` watches the laws while it runs.
///
/// # Errors
/// If the policy cannot be made.
pub fn run(
    scenario: &Scenario,
    jobs: &Arc<[Job]>,
    repetition: u32,
    check: bool,
    keep: Keep,
) -> Result<RunResult, StudyError> {
    if matches!(scenario.workload, Workload::Trace { streamed: true, .. }) {
        return run_streamed(scenario, repetition, check, keep);
    }
    let keep_for_check = if check && keep == Keep::Nothing { Keep::Outcomes } else { keep };
    let mut result = if Sessions::are_in(jobs) {
        let mut sessions = Sessions::new(jobs.clone());
        let mut result = simulate(scenario, &mut sessions, repetition, check, keep_for_check)?;
        // Requests are numbered as they were sent; from here on by their place among the jobs.
        for outcome in &mut result.outcomes {
            outcome.attempt.request = RequestId(sessions.job_of(outcome.attempt.request));
            if let Some(engine) = &mut outcome.engine {
                engine.id = outcome.attempt.request;
            }
        }
        let job = |id: RequestId| {
            let job = RequestId(sessions.job_of(id.original()));
            if id.is_hedge() { job.hedge() } else { job }
        };
        for delivery in result.deliveries.iter_mut().flatten() {
            match &mut delivery.input {
                Input::Add(request) => request.id = job(request.id),
                Input::Abort(id, _) => *id = job(*id),
                Input::Control(_) => {}
            }
        }
        result.outcomes.sort_by_key(|outcome| outcome.attempt);
        result
    } else {
        simulate(scenario, &mut OpenLoop::new(jobs.clone()), repetition, check, keep_for_check)?
    };
    if check {
        check_conservation(&result.outcomes, jobs, &result.summary);
    }
    if keep == Keep::Nothing {
        result.outcomes = Vec::new();
    }
    Ok(result)
}

/// The same while the trace is read.
fn run_streamed(
    scenario: &Scenario,
    repetition: u32,
    check: bool,
    keep: Keep,
) -> Result<RunResult, StudyError> {
    let Workload::Trace { requests, .. } = &scenario.workload else {
        return Err(StudyError::Empty("a drawn workload has no trace to stream".into()));
    };
    let mut stream = open_stream(scenario, *requests, repetition_seed(scenario, repetition))?;
    let mut result = simulate(scenario, &mut stream, repetition, check, keep)?;
    if let Some(error) = stream.error() {
        return Err(error.into());
    }
    result.notes = stream.notes().lines();
    Ok(result)
}

/// Runs a scenario once on the requests of `source`.
///
/// # Errors
/// If the policy cannot be made.
pub fn simulate(
    scenario: &Scenario,
    source: &mut dyn Source,
    repetition: u32,
    check: bool,
    keep: Keep,
) -> Result<RunResult, StudyError> {
    simulate_with(scenario, source, repetition, check, keep, &|router| router)
}

/// The same with every gateway's policy wrapped in another.
///
/// # Errors
/// If the policy cannot be made, or fails.
pub fn simulate_with(
    scenario: &Scenario,
    source: &mut dyn Source,
    repetition: u32,
    check: bool,
    keep: Keep,
    wrap: &dyn Fn(Box<dyn Router>) -> Box<dyn Router>,
) -> Result<RunResult, StudyError> {
    let seed = repetition_seed(scenario, repetition);
    let router = &scenario.router;
    // A policy that comes after one that was lost draws from streams of its own.
    let new_router = |gateway: u64, lost: u64| -> Result<Box<dyn Router>, StudyError> {
        let policy = policies::build(&router.policy, &router.parameters, seed, lost << 32 | gateway)?;
        Ok(wrap(match router.characters_per_token {
            Some(characters) => ByCharacters::before(policy, characters),
            None => policy,
        }))
    };
    let routers: Vec<Box<dyn Router>> = (0..u64::from(router.gateways))
        .map(|gateway| new_router(gateway, 0))
        .collect::<Result<_, StudyError>>()?;
    let config = FleetConfig {
        freshness: router.freshness,
        impairments: router.impairments,
        decision_gap: router.decision_gap,
        network: scenario.network,
        admission: scenario.admission,
        health: scenario.health,
        retries: scenario.retries,
        hedging: scenario.hedging,
        patience: scenario.patience,
        incidents: scenario.plan(),
        spare: scenario.spare_machines() as usize,
        end: scenario.end,
        seed,
        check,
    };
    let kinds: Vec<_> = scenario.each_lane().collect();
    let replicas = kinds.iter().map(|kind| (kind.facts.clone(), LaneStats::default())).collect();
    let mut collector = Collector::new(scenario.counted(), scenario.goodput, &scenario.classes)
        .keeping_distributions(scenario.repeat > 1);
    let mut outcomes = Vec::new();
    let mut fleet = Fleet::new(config, replicas, routers);
    if keep == Keep::Deliveries {
        fleet = fleet.keeping_deliveries();
    }
    if let Some(plan) = &scenario.autoscaler {
        let autoscaler = (autoscaler::find(plan.policy)?.build)(&plan.parameters)?;
        fleet = fleet.scaled(plan.scale, scenario.scaled_lanes(), autoscaler);
    }
    let mut ended_one = |outcome: Outcome| {
        collector.add(&outcome);
        if keep != Keep::Nothing {
            outcomes.push(outcome);
        }
    };
    let again = |gateway: usize, lost: u32| {
        new_router(gateway as u64, u64::from(lost)).expect("it was made before from the same parameters")
    };
    let ended = fleet.run_with(source, &mut ended_one, &again);
    if let Some(failure) = ended.failure {
        return Err(StudyError::Script(failure));
    }
    let lanes: Vec<_> = kinds
        .iter()
        .zip(&ended.observers)
        .zip(&ended.replicas)
        .map(|((kind, observer), replica)| (kind.name.clone(), observer, replica.lifetime_signals()))
        .collect();
    let (lost, timed_out) = (collector.lost(), collector.timed_out());
    let mut summary = collector.summarise(&lanes, ended.at);
    if scenario.has_bad_days() {
        let generated = lanes.iter().map(|(_, _, signals)| signals.generation_tokens).sum();
        summary.bad_day =
            Some(bad_day(&ended.tally, &ended.happened, ended.at, (lost, timed_out), generated));
    }
    let run_s = (ended.at - Time::ZERO).as_s();
    // Machines that stand by for a deploy are on nobody's bill.
    let always_there = scenario.each_replica().count();
    let mut there_s: Vec<f64> =
        (0..kinds.len()).map(|server| if server < always_there { run_s } else { 0.0 }).collect();
    if let Some(book) = &ended.scaling {
        summary.scaling = Some(scaling(book, ended.at));
        let members = scenario.scaled_lanes();
        for &server in &members {
            there_s[server] = book.paid.as_s() / members.len() as f64;
        }
        let busy_s: f64 = ended.observers.iter().map(|observer| observer.busy.as_s()).sum();
        summary.busy_share = busy_s / there_s.iter().sum::<f64>().max(f64::MIN_POSITIVE);
    }
    let lanes: Vec<_> = kinds.iter().copied().zip(&ended.observers).zip(there_s).collect();
    summary.cost = Some(cost(&lanes, run_s, &summary));
    outcomes.sort_by_cached_key(|outcome| outcome.attempt);
    Ok(RunResult { summary, outcomes, deliveries: ended.deliveries, notes: Vec::new() })
}

/// Law 1: every request that was sent has exactly one outcome, and the kinds of outcomes add up.
fn check_conservation(outcomes: &[Outcome], jobs: &[Job], summary: &RunSummary) {
    assert!(
        outcomes.windows(2).all(|pair| pair[0].attempt < pair[1].attempt),
        "law 1: a request has two outcomes"
    );
    let (lost, timed_out) = summary.bad_day.as_ref().map_or((0, 0), |bad| (bad.lost, bad.timed_out));
    let without = summary.rejected + summary.aborted + timed_out + lost + summary.unfinished;
    assert_eq!(
        summary.offered,
        summary.completed + without,
        "law 1: offered = completed + rejected + aborted + timed out + lost + unfinished"
    );
    assert!(outcomes.len() <= jobs.len(), "law 1: more outcomes than requests");
    for outcome in outcomes.iter().filter(|outcome| outcome.finish.is_complete()) {
        let wanted = jobs[outcome.attempt.request.0 as usize].request.output_tokens;
        assert!(outcome.output_tokens() <= wanted, "law 1: more tokens came out than were asked for");
    }
}
