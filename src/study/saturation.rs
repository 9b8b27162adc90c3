//! What a fleet can bear at most, measured: its throughput when there is always more to do.
//!
//! One replica of each kind is flooded: requests of the scenario's workload are all there from the start. It is
//! done twice, with N requests and with 2 N; the N more, divided by the time they take more, is the replica's
//! saturation, because filling and emptying cost the same both times. A fleet bears the sum over its replicas.
//! A drawn workload is drawn as long as it takes; of a trace N is half of what it has, if that is less.

use std::sync::Arc;

use super::run::{Keep, StudyError, repetition_seed, simulate};
use crate::fleet::{End, Network};
use crate::router::{Freshness, Impairments};
use crate::scenario::{ReplicaKind, Scenario, Workload};
use crate::time::{Span, Time};
use crate::trace::Waits;
use crate::workload::drawn::Drawn;
use crate::workload::{Job, OpenLoop};

/// Batches that N requests fill, at the longest running list: several turn-overs each time.
const BATCHES: usize = 3;

/// Bounds of N.
const FEWEST: usize = 50;
const MOST: usize = 4_000;

/// The ends up to which time is taken: the last tenth, where the replica runs empty, is left out.
const UP_TO: f64 = 0.9;

/// Requests a second at saturation; none where too few requests are there to tell.
///
/// # Errors
/// If a run cannot be made.
pub fn saturation_requests_per_s(scenario: &Scenario, jobs: &Arc<[Job]>) -> Result<Option<f64>, StudyError> {
    let mut sum = 0.0;
    for kind in &scenario.replicas {
        match of_one_replica(scenario, kind, jobs)? {
            Some(rate) => sum += rate * f64::from(kind.count),
            None => return Ok(None),
        }
    }
    Ok(Some(sum))
}

fn of_one_replica(scenario: &Scenario, kind: &ReplicaKind, jobs: &[Job]) -> Result<Option<f64>, StudyError> {
    let wanted = (BATCHES * kind.facts.engine.max_num_seqs as usize).clamp(FEWEST, MOST);
    let requests = match &scenario.workload {
        Workload::Drawn(drawn) => {
            Drawn { requests: 2 * wanted as u32, ..drawn.clone() }.draw(repetition_seed(scenario, 0))
        }
        Workload::Trace { .. } => jobs.iter().take(2 * wanted).cloned().collect(),
    };
    let half = requests.len() / 2;
    if half < FEWEST {
        return Ok(None);
    }
    let mut alone = scenario.undisturbed();
    alone.replicas = vec![ReplicaKind { count: 1, ..kind.clone() }];
    alone.router.policy = "round-robin".into();
    alone.router.parameters = toml::Table::new();
    alone.router.gateways = 1;
    alone.router.decision_gap = Span::ZERO;
    alone.router.freshness = Freshness::Fresh;
    alone.router.impairments = Impairments::default();
    alone.network = Network::default();
    alone.end = End::Drain;
    (alone.warmup, alone.cooldown) = (Span::ZERO, Span::ZERO);
    let (fewer, fewer_s) = flood(&alone, &requests[..half])?;
    let (more, more_s) = flood(&alone, &requests)?;
    let (ended, took_s) = (more.saturating_sub(fewer), more_s - fewer_s);
    Ok((ended > 0 && took_s > 0.0).then(|| ended as f64 / took_s))
}

/// Ends of the first nine tenths of these requests, all sent at once: how many, and when.
fn flood(alone: &Scenario, requests: &[Job]) -> Result<(usize, f64), StudyError> {
    let at_once: Arc<[Job]> =
        requests.iter().map(|job| Job { sent: Time::ZERO, waits: Waits::default(), ..job.clone() }).collect();
    let result = simulate(alone, &mut OpenLoop::new(at_once), 0, false, Keep::Outcomes)?;
    let mut ends: Vec<Time> =
        result.outcomes.iter().filter(|o| o.finish.is_complete()).map(|o| o.done_received).collect();
    ends.sort_unstable();
    let counted = (ends.len() as f64 * UP_TO) as usize;
    Ok((counted, counted.checked_sub(1).map_or(0.0, |last| ends[last].as_s())))
}
