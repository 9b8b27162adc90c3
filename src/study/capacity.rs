//! How many replicas, or how many requests a second? The least fleet, or the highest rate, at which objectives hold.
//!
//! Each size is run on the same repetitions of the same requests. An objective "p % within so long" holds at a size if the share of
//! requests within it, repetition by repetition, is at least p with the confidence asked for; it fails if that share is below p with
//! the same confidence; else it is open, and more repetitions would tell. A size that cannot bear what is offered, whose queue grows
//! as long as requests come, holds nothing, however short the run. Bisection takes objectives to hold from some size on.

use std::ops::RangeInclusive;
use std::sync::Arc;

use rayon::prelude::*;
use serde::Serialize;

use super::compare::check_that_something_is_measured;
use super::run::{Keep, StudyError, Traces, jobs, run};
use super::saturation::saturation_requests_per_s;
use super::statistics::{FEWEST_BEYOND, at_least, pooled_percentile_ms};
use crate::fleet::incidents::{Back, Incident, What, When, Whom};
use crate::metrics::{Distribution, Distributions, RunSummary};
use crate::scenario::{ReplicaKind, Scenario, Workload};
use crate::time::{Span, Time};
use crate::workload::Job;
use crate::workload::drawn::Demand;

/// A latency that objectives are set on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Latency {
    /// End to end.
    E2e,
    /// Time to first token.
    Ttft,
    /// Time per output token after the first.
    Tpot,
}

impl Latency {
    fn of(self, all: &Distributions) -> &Distribution {
        match self {
            Latency::E2e => &all.e2e,
            Latency::Ttft => &all.ttft,
            Latency::Tpot => &all.tpot,
        }
    }
}

/// What must hold: `percent` of all offered requests within `limit`. One without a whole answer is not.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Objective {
    /// Which latency.
    pub latency: Latency,
    /// Percent of requests, above 0 and below 100.
    pub percent: f64,
    /// Milliseconds.
    pub limit_ms: f64,
}

/// The objectives that `[slo.p99]` of a scenario sets.
pub fn objectives_of(scenario: &Scenario) -> Vec<Objective> {
    let p99 = scenario.p99;
    let of = |latency, limit: Option<Span>| {
        limit.map(|limit| Objective { latency, percent: 99.0, limit_ms: limit.as_ms() })
    };
    let all = [of(Latency::Ttft, p99.ttft), of(Latency::Tpot, p99.tpot), of(Latency::E2e, p99.e2e)];
    all.into_iter().flatten().collect()
}

/// Whether an objective holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// It fails, with the confidence asked for.
    Fails,
    /// Nothing can be said with that confidence.
    Open,
    /// It holds, with that confidence.
    Holds,
}

/// What is sought.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Quantity {
    /// The least number of replicas from `fewest` to `most`, of which `down` are down from the start and `failing` crash in
    /// the middle of the requests, not to come back.
    Replicas {
        /// From.
        fewest: u32,
        /// To.
        most: u32,
        /// How many of them serve nothing.
        down: u32,
        /// How many serve half the time.
        failing: u32,
    },
    /// The highest rate, as a multiple of the scenario's from 1 / 64 to 64.
    Rate,
}

/// An objective at one size.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Judged {
    /// Share of offered requests within the limit, mean over repetitions.
    pub share: f64,
    /// The percentile itself, milliseconds; none is infinite.
    pub percentile_ms: Option<f64>,
    /// Whether it holds.
    pub verdict: Verdict,
}

/// One size that was run.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Point {
    /// Replicas paid for.
    pub replicas: u32,
    /// The same by kind, in the scenario's order.
    pub counts: Vec<u32>,
    /// Multiple of the scenario's rate.
    pub rate_factor: f64,
    /// Requests offered a second, mean over repetitions.
    pub offered_requests_per_s: f64,
    /// Each objective in order.
    pub objectives: Vec<Judged>,
    /// The worst of them; fails where the fleet is overloaded.
    pub verdict: Verdict,
    /// Requests offered over those at which the fleet saturates, as measured.
    pub load: Option<f64>,
    /// More is offered than it can bear, and its queue grows.
    pub overloaded: bool,
    /// Share of the replicas' time in which their GPUs worked.
    pub busy_share: f64,
    /// US dollars an hour for all replicas; none where the catalogue has no price.
    pub usd_per_hour: Option<f64>,
    /// US dollars for a million output tokens at this rate.
    pub usd_per_million_output_tokens: Option<f64>,
}

/// The answer, and the way to it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Capacity {
    /// The policy.
    pub policy: String,
    /// The kind of replica.
    pub kind: String,
    /// Two kinds side by side, cheaper than either alone.
    pub is_mix: bool,
    /// The size sought; none where no size in range would do, and no mix would be cheaper.
    pub answer: Option<Point>,
    /// All sizes that were run, ascending.
    pub walked: Vec<Point>,
    /// The answer is where the range ends: more would hold too.
    pub ends_the_range: bool,
}

/// Beyond saturation, a queue that has grown by so much from the second to the last quarter of the sending time grows on: one that
/// grows evenly is at 2.3, one that stands still at 1. Saturation is that of a fleet that does not look, so one whose policy finds
/// prefixes may bear more; its queue stands still then. In doubt the fleet is taken for overloaded.
const GROWING: f64 = 1.1;

/// What is run, and what it costs.
pub(super) struct Size {
    /// Replicas paid for, by kind.
    pub(super) counts: Vec<u32>,
    /// Requests a second at which those that serve saturate.
    pub(super) bears: Option<f64>,
    pub(super) rate_factor: f64,
    pub(super) usd_per_hour: Option<f64>,
}

/// Requests of all repetitions.
pub(super) type Repetitions = Vec<Arc<[Job]>>;

/// Everything that stays the same from size to size.
pub(super) struct Search<'a> {
    scenario: &'a Scenario,
    traces: &'a mut Traces,
    objectives: &'a [Objective],
    confidence: f64,
    ran: &'a (dyn Fn() + Sync),
    pub(super) walked: Vec<Point>,
    /// Requests a second that one replica bears, or the whole fleet where its size stays.
    saturation: Option<f64>,
}

/// Searches for the size of `scenario`. Of replicas to count it has one kind.
///
/// # Errors
/// If a run cannot be made, or the rate of the workload is not a number that could be raised.
///
/// # Panics
/// If there is no objective, or there are several kinds of replicas to count.
pub fn capacity(
    scenario: &Scenario,
    traces: &mut Traces,
    quantity: Quantity,
    objectives: &[Objective],
    confidence: f64,
    ran: &(dyn Fn() + Sync),
) -> Result<Capacity, StudyError> {
    let one_kind = quantity == Quantity::Rate || scenario.replicas.len() == 1;
    assert!(!objectives.is_empty() && one_kind, "there is an objective, and one kind of replica to count");
    let mut search = Search::new(scenario, traces, objectives, confidence, ran);
    let mut measured = scenario.clone();
    if let Quantity::Replicas { .. } = quantity {
        measured.replicas[0].count = 1;
    }
    let requests = search.draw(scenario)?;
    search.saturation = saturation_requests_per_s(&measured, &requests[0])?;
    let answer = match quantity {
        Quantity::Replicas { fewest, most, down, failing } => {
            search.fewest_replicas(&requests, fewest..=most, down, failing)?
        }
        Quantity::Rate => search.highest_rate()?,
    };
    let mut walked = search.walked;
    walked.sort_by(|a, b| {
        (a.replicas, a.rate_factor).partial_cmp(&(b.replicas, b.rate_factor)).expect("numbers")
    });
    let ends_the_range = answer.as_ref().is_some_and(|answer: &Point| {
        quantity == Quantity::Rate && walked.iter().all(|point| point.rate_factor <= answer.rate_factor)
    });
    Ok(Capacity {
        ends_the_range,
        is_mix: false,
        policy: scenario.router.policy.clone(),
        kind: scenario.replicas.iter().map(|kind| kind.name.as_str()).collect::<Vec<_>>().join(" and "),
        answer,
        walked,
    })
}

impl<'a> Search<'a> {
    pub(super) fn new(
        scenario: &'a Scenario,
        traces: &'a mut Traces,
        objectives: &'a [Objective],
        confidence: f64,
        ran: &'a (dyn Fn() + Sync),
    ) -> Search<'a> {
        Search { scenario, traces, objectives, confidence, ran, walked: Vec::new(), saturation: None }
    }

    fn fewest_replicas(
        &mut self,
        requests: &Repetitions,
        range: RangeInclusive<u32>,
        down: u32,
        failing: u32,
    ) -> Result<Option<Point>, StudyError> {
        let (fewest, most) = (*range.start(), *range.end());
        let at = |search: &mut Self, replicas: u32| -> Result<bool, StudyError> {
            let kind = &search.scenario.replicas[0];
            let usd_per_hour = kind.usd_per_hour().map(|usd| usd * f64::from(replicas));
            let serving = replicas.saturating_sub(down);
            let left = serving.saturating_sub(failing);
            let bears = search.saturation.map(|saturation| saturation * f64::from(left));
            let size = Size { counts: vec![replicas], bears, rate_factor: 1.0, usd_per_hour };
            let mut sized = search.scenario.clone();
            sized.replicas = vec![ReplicaKind { count: if left == 0 { 0 } else { serving }, ..kind.clone() }];
            sized.incidents = with_failures(&sized, &requests[0], failing);
            let point = search.point(&sized, size, requests)?;
            let holds = point.verdict == Verdict::Holds;
            search.walked.push(point);
            Ok(holds)
        };
        // From the scenario's own number on, twice as far each time, until one side holds and the other does not.
        let (mut no, mut yes) = (fewest - 1, None);
        let mut next = self.scenario.replicas[0].count.clamp(fewest, most);
        loop {
            match at(self, next)? {
                true => {
                    yes = Some(next);
                    if next - no <= 1 {
                        break;
                    }
                    next = (no + 1).max(next / 2);
                }
                false => {
                    no = next;
                    if yes.is_some() || next == most {
                        break;
                    }
                    next = next.saturating_mul(2).min(most);
                }
            }
            if yes.is_some_and(|yes| next >= yes) {
                break;
            }
        }
        let Some(mut yes) = yes else { return Ok(None) };
        while yes - no > 1 {
            let middle = u32::midpoint(no, yes);
            if at(self, middle)? { yes = middle } else { no = middle }
        }
        Ok(self.walked.iter().find(|point| point.replicas == yes).cloned())
    }

    /// To 1 %, on a scale of logarithms.
    fn highest_rate(&mut self) -> Result<Option<Point>, StudyError> {
        const RANGE: f64 = 64.0;
        const STEP: f64 = 1.01;
        let at = |search: &mut Self, factor: f64| -> Result<bool, StudyError> {
            let scenario = with_rate(search.scenario, factor)?;
            let requests = search.draw(&scenario)?;
            let kinds = &scenario.replicas;
            let size = Size {
                counts: kinds.iter().map(|kind| kind.count).collect(),
                bears: search.saturation,
                rate_factor: factor,
                usd_per_hour: kinds
                    .iter()
                    .map(|kind| Some(kind.usd_per_hour()? * f64::from(kind.count)))
                    .sum(),
            };
            let point = search.point(&scenario, size, &requests)?;
            let holds = point.verdict == Verdict::Holds;
            search.walked.push(point);
            Ok(holds)
        };
        let (mut yes, mut no) = (None, None);
        let mut next = 1.0;
        while yes.is_none() || no.is_none() {
            match at(self, next)? {
                true => yes = Some(next),
                false => no = Some(next),
            }
            next = if yes == Some(next) { next * 2.0 } else { next / 2.0 };
            if !(1.0 / RANGE..=RANGE).contains(&next) {
                break;
            }
        }
        let Some(mut yes) = yes else { return Ok(None) };
        if let Some(mut no) = no {
            while no / yes > STEP {
                let middle = (no * yes).sqrt();
                if at(self, middle)? { yes = middle } else { no = middle }
            }
        }
        Ok(self.walked.iter().find(|point| point.rate_factor == yes).cloned())
    }

    pub(super) fn draw(&mut self, scenario: &Scenario) -> Result<Repetitions, StudyError> {
        let trace = self.traces.of(&scenario.workload)?;
        let draw = |repetition| {
            let jobs: Arc<[Job]> = jobs(scenario, trace.as_deref(), repetition)?.into();
            check_that_something_is_measured(scenario, &jobs)?;
            Ok(jobs)
        };
        (0..scenario.repeat).into_par_iter().map(draw).collect()
    }

    pub(super) fn point(
        &self,
        sized: &Scenario,
        size: Size,
        requests: &Repetitions,
    ) -> Result<Point, StudyError> {
        let Size { counts, bears, rate_factor, usd_per_hour } = size;
        let fails = |_: &Objective| Judged { share: 0.0, percentile_ms: None, verdict: Verdict::Fails };
        let mut point = Point {
            replicas: counts.iter().sum(),
            counts,
            rate_factor,
            offered_requests_per_s: 0.0,
            objectives: self.objectives.iter().map(fails).collect(),
            verdict: Verdict::Fails,
            load: None,
            overloaded: true,
            busy_share: 0.0,
            usd_per_hour,
            usd_per_million_output_tokens: None,
        };
        let serving: u32 = sized.replicas.iter().map(|kind| kind.count).sum();
        if serving == 0 {
            return Ok(point);
        }
        let one = |(repetition, jobs): (usize, &Arc<[Job]>)| {
            let result = run(sized, jobs, repetition as u32, false, Keep::Nothing)?;
            (self.ran)();
            Ok(result.summary)
        };
        let summaries =
            requests.par_iter().enumerate().map(one).collect::<Result<Vec<RunSummary>, StudyError>>()?;
        let mean =
            |of: fn(&RunSummary) -> f64| summaries.iter().map(of).sum::<f64>() / summaries.len() as f64;
        let judged = |objective: &Objective| {
            let within: Vec<f64> = summaries.iter().map(|summary| share_within(summary, objective)).collect();
            let share = within.iter().sum::<f64>() / within.len() as f64;
            let offered: u64 = summaries.iter().map(|summary| summary.offered).sum();
            let beyond = offered as f64 * (1.0 - objective.percent / 100.0);
            let verdict = match at_least(&within, objective.percent / 100.0, self.confidence) {
                Some(false) => Verdict::Fails,
                Some(true) if beyond >= FEWEST_BEYOND => Verdict::Holds,
                _ => Verdict::Open,
            };
            let all: Vec<&Distribution> = summaries
                .iter()
                .filter_map(|summary| summary.distributions.as_ref())
                .map(|all| objective.latency.of(all))
                .collect();
            Judged { share, percentile_ms: pooled_percentile_ms(&all, objective.percent), verdict }
        };
        point.objectives = self.objectives.iter().map(judged).collect();
        point.verdict =
            point.objectives.iter().map(|judged| judged.verdict).min().expect("there is an objective");
        let offered = mean(|summary| summary.offered_requests_per_s);
        point.offered_requests_per_s = offered;
        point.load = bears.map(|bears| offered / bears);
        point.overloaded =
            point.load.is_some_and(|load| load > 1.0) && mean(|summary| summary.queue_growth) > GROWING;
        if point.overloaded {
            point.verdict = Verdict::Fails;
        }
        point.busy_share = mean(|summary| summary.busy_share);
        let tokens = mean(|summary| summary.output_tokens_per_s)
            / mean(|summary| summary.requests_per_s).max(f64::MIN_POSITIVE);
        let bears = bears.map(|bears| bears.max(mean(|summary| summary.requests_per_s)));
        point.usd_per_million_output_tokens =
            usd_per_hour.and_then(|usd| usd_per_million_output_tokens(usd, tokens, offered, bears));
        Ok(point)
    }
}

/// What befalls a fleet, and the crash of its first `failing` replicas when half of the requests' time is over.
fn with_failures(scenario: &Scenario, requests: &[Job], failing: u32) -> Arc<[Incident]> {
    // Those of closed loops are in no order of time: most are sent when an answer has come.
    let sent = || requests.iter().map(|job| job.sent);
    let (first, last) = (sent().min().unwrap_or(Time::ZERO), sent().max().unwrap_or(Time::ZERO));
    let middle = first + (last - first).scale(1, 2);
    let crash = |server: u32| Incident {
        when: When::At(middle),
        what: What::Crash { whom: Whom::One(server as usize), back: Back::Never },
    };
    scenario.incidents.iter().cloned().chain((0..failing).map(crash)).collect()
}

/// Share of all offered requests within an objective's limit.
fn share_within(summary: &RunSummary, objective: &Objective) -> f64 {
    let Some(all) = &summary.distributions else { return 0.0 };
    let within = objective.latency.of(all).share_within(objective.limit_ms);
    match objective.latency {
        // Counts those without an answer itself.
        Latency::E2e => within,
        Latency::Ttft | Latency::Tpot => within * summary.completed as f64 / summary.offered.max(1) as f64,
    }
}

/// US dollars for a million output tokens of a fleet that costs so much an hour, at the rate that is offered or that it bears,
/// whichever is less. The time in which a run empties at its end is in neither.
pub fn usd_per_million_output_tokens(
    usd_per_hour: f64,
    tokens_per_request: f64,
    offered_requests_per_s: f64,
    bears_requests_per_s: Option<f64>,
) -> Option<f64> {
    let rate = offered_requests_per_s.min(bears_requests_per_s.unwrap_or(f64::INFINITY));
    let million_tokens_an_hour = tokens_per_request * rate * 3_600.0 / 1e6;
    (million_tokens_an_hour > 0.0).then(|| usd_per_hour / million_tokens_an_hour)
}

/// The same scenario with requests that come `factor` times as fast, and as many more that the run is not shorter.
pub(super) fn with_rate(scenario: &Scenario, factor: f64) -> Result<Scenario, StudyError> {
    let mut scenario = scenario.clone();
    match &mut scenario.workload {
        Workload::Trace { starts, rate_scale, rounds, requests, .. } => {
            match starts {
                Some(starts) => starts.rate_per_s *= factor,
                None => *rate_scale *= factor,
            }
            let more = factor.max(1.0);
            *rounds = (f64::from(*rounds) * more).ceil() as u32;
            *requests = requests.map(|requests| (f64::from(requests) * more) as u32);
        }
        Workload::Drawn(drawn) => match &mut drawn.demand {
            Demand::Open(arrivals) | Demand::Sessions(arrivals, _) => {
                arrivals.rate_per_s *= factor;
                drawn.requests = (f64::from(drawn.requests) * factor.max(1.0)) as u32;
            }
            Demand::Clients(_) | Demand::Users(..) => {
                return Err(StudyError::Empty(
                    "the workload has no rate of its own that could be raised: users send when they are answered, clients as \
                     they were published"
                        .into(),
                ));
            }
        },
    }
    Ok(scenario)
}
