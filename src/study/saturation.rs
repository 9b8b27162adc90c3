//! What a fleet can bear at most, measured: its throughput when every request is there from the start.
//!
//! Requests of the scenario's workload are all sent at time zero and dealt out in turn. The rate at which the
//! middle 60 % of them end is the fleet's saturation: the filling and the emptying are left out. Queues and
//! prefix caches are then as full as they get, so this is an upper bound of what a real arrival process can
//! reach. A drawn workload is drawn as long as it takes; a trace gives what it has.

use std::sync::Arc;

use super::run::{StudyError, repetition_seed, run};
use crate::fleet::End;
use crate::router::Freshness;
use crate::scenario::{Scenario, Workload};
use crate::time::{Span, Time};
use crate::workload::Job;
use crate::workload::drawn::Drawn;

/// Most requests a replica is given: enough for its batch to turn over several times.
const REQUESTS_PER_REPLICA: usize = 1_500;

/// Fewest ends from which a rate is read.
const FEWEST_REQUESTS: usize = 100;

/// Most requests in all: beyond, the replicas are many enough to average over.
const MOST_REQUESTS: usize = 100_000;

/// Requests a second at saturation; none where too few requests end to tell.
///
/// # Errors
/// If the run cannot be made.
pub fn saturation_requests_per_s(scenario: &Scenario, jobs: &Arc<[Job]>) -> Result<Option<f64>, StudyError> {
    let replicas: usize = scenario.replicas.iter().map(|kind| kind.count as usize).sum();
    let wanted = REQUESTS_PER_REPLICA.saturating_mul(replicas).min(MOST_REQUESTS);
    let longer = match &scenario.workload {
        Workload::Drawn(drawn) => {
            Drawn { requests: wanted as u32, ..*drawn }.draw(repetition_seed(scenario, 0))
        }
        Workload::Trace { .. } => jobs.iter().take(wanted).cloned().collect(),
    };
    let at_once: Arc<[Job]> = longer.into_iter().map(|job| Job { sent: Time::ZERO, ..job }).collect();
    let mut flooded = scenario.clone();
    flooded.router.policy = "round-robin".into();
    flooded.router.parameters = toml::Table::new();
    flooded.router.gateways = 1;
    flooded.router.decision_gap = Span::ZERO;
    flooded.router.freshness = Freshness::Fresh;
    flooded.end = End::Drain;
    flooded.warmup = Span::ZERO;
    let result = run(&flooded, &at_once, 0, false)?;
    let mut ends: Vec<Time> =
        result.outcomes.iter().filter(|o| o.finish.is_complete()).map(|o| o.done_received).collect();
    ends.sort_unstable();
    let (from, to) = (ends.len() / 5, ends.len() * 4 / 5);
    if ends.len() < FEWEST_REQUESTS {
        return Ok(None);
    }
    let span_s = (ends[to] - ends[from]).as_s();
    Ok((span_s > 0.0).then(|| (to - from) as f64 / span_s))
}
