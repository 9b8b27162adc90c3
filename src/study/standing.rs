//! Where a fleet stands under a workload: what to know before reading a table of latencies.

use serde::Serialize;

use super::compare::Contender;
use crate::metrics::RunSummary;
use crate::router::policies;
use crate::workload::Job;

/// Where the fleet stands under this workload.
#[derive(Clone, Debug, PartialEq, Serialize, schemars::JsonSchema)]
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

/// Times are unlike when one holds so many times as many requests as another.
const UNLIKE: f64 = 3.0;
/// A share of requests with an answer below which percentiles of the answered alone mislead.
const MOSTLY_ANSWERED: f64 = 0.999;
/// Fewer requests say nothing of a trend.
const FEWEST_FOR_TREND: u64 = 1_000;

/// Where the fleet of the first contender stands, by one run of it; and what of the others is to be known.
pub(super) fn stand(
    contenders: &[Contender],
    saturation: Option<f64>,
    jobs: &[Job],
    summary: &RunSummary,
) -> Standing {
    let scenario = &contenders[0].scenario;
    let plans = contenders.iter().filter_map(|contender| contender.scenario.autoscaler.as_ref());
    let most_replicas = plans.map(|plan| plan.scale.most).max();
    let load = saturation.map(|saturation| summary.offered_requests_per_s / saturation);
    let mut remarks = Vec::new();
    match load {
        None => remarks.push("too few requests to measure the fleet's saturation".to_string()),
        // On bad days what is left of a fleet may be busy.
        Some(load) if load < 0.3 && !scenario.has_bad_days() => {
            remarks.push("too idle for routing to matter".to_string())
        }
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
    if summary.rejected > 0 {
        let (rejected, offered) = (summary.rejected, summary.offered);
        let whole = match rejected == offered {
            true => ": its filters leave nobody, or nobody is there (labels are keys of [[replicas]])",
            false => "",
        };
        remarks
            .push(format!("{rejected} of {offered} requests were refused under the first contender{whole}"));
    }
    if let Some(most) = most_replicas {
        remarks.push(format!(
            "replicas, load and saturation are those of the start: an autoscaler may order up to {most} replicas"
        ));
    }
    let answered = summary.completed as f64 / summary.offered.max(1) as f64;
    if answered < MOSTLY_ANSWERED {
        let (completed, offered) = (summary.completed, summary.offered);
        remarks.push(format!(
            "latencies are those of requests with a whole answer, {completed} of {offered} under the first contender; the \
             ranking counts the others as infinite"
        ));
    }
    let pressed = summary.preemptions > 0;
    if pressed {
        remarks.push(format!(
            "KV blocks run short: {} preemptions under the first contender",
            summary.preemptions
        ));
    }
    let held = scenario.each_replica().map(|kind| kind.facts.engine.max_model_len).min().unwrap_or(u32::MAX);
    let is_cut = |job: &&Job| {
        let request = &job.request;
        let wanted = request.output_tokens.min(request.max_tokens.unwrap_or(u32::MAX));
        request.prompt_tokens < held && u64::from(request.prompt_tokens) + u64::from(wanted) > u64::from(held)
    };
    let cut = jobs.iter().filter(is_cut).count();
    if cut > 0 {
        let whom = if cut == 1 { "1 request asks".into() } else { format!("{cut} requests ask") };
        remarks.push(format!("{whom} for more tokens than max_model_len = {held} leaves, and ends there"));
    }
    let caches = scenario.each_replica().any(|kind| kind.facts.engine.enable_prefix_caching);
    if let Some(contender) = contenders.iter().find(|contender| contender.scenario.router.reads_kv_events)
        && !caches
    {
        remarks.push(format!("no replica caches prefixes: {} hears of no KV events", contender.name));
    }
    let reads_sessions = |contender: &&Contender| {
        policies::find(&contender.scenario.router.policy).is_ok_and(|info| info.reads.starts_with("session"))
    };
    if let Some(contender) = contenders.iter().find(reads_sessions)
        && jobs.iter().all(|job| job.session.is_none())
    {
        remarks.push(format!("no sessions: {} has nothing to go by", contender.name));
    }
    Standing {
        replicas: scenario.each_replica().count() as u32,
        offered_requests_per_s: summary.offered_requests_per_s,
        saturation_requests_per_s: saturation,
        load,
        median_batch: summary.median_batch,
        kv_cache_usage: summary.kv_cache_usage,
        remarks,
    }
}
