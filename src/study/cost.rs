//! What a run cost: prices and power of the catalogue over what came out.

use crate::hardware::power::watts;
use crate::metrics::{Cost, LaneStats, RunSummary};
use crate::scenario::ReplicaKind;
use crate::time::Span;

/// The cost of a run whose replicas of these kinds did this, and were there for so many seconds: of those that come and go, each for as
/// long as they were in the mean.
pub(super) fn cost(lanes: &[((&ReplicaKind, &LaneStats), f64)], run_s: f64, summary: &RunSummary) -> Cost {
    let there = |there_s: &f64| if run_s > 0.0 { there_s / run_s } else { 0.0 };
    let usd_per_hour: Option<f64> =
        lanes.iter().map(|((kind, _), there_s)| Some(kind.usd_per_hour()? * there(there_s))).sum();
    let joules: Option<f64> =
        lanes.iter().map(|((kind, stats), there_s)| joules(kind, stats, *there_s)).sum();
    let mean_watts = joules.filter(|_| run_s > 0.0).map(|joules| joules / run_s);
    let amount_for = |per_hour: Option<f64>, amount: f64, per_s: f64| {
        per_hour.filter(|_| per_s > 0.0).map(|per_hour| per_hour / 3_600.0 / per_s * amount)
    };
    let (tokens_per_s, good_per_s) = (summary.output_tokens_per_s, summary.goodput_requests_per_s);
    let kwh_per_hour = mean_watts.map(|watts| watts / 1e3);
    Cost {
        usd_per_hour,
        usd_per_million_output_tokens: amount_for(usd_per_hour, 1e6, tokens_per_s),
        usd_per_thousand_good_requests: amount_for(usd_per_hour, 1e3, good_per_s),
        watts: mean_watts,
        kwh_per_million_output_tokens: amount_for(kwh_per_hour, 1e6, tokens_per_s),
        kwh_per_thousand_good_requests: amount_for(kwh_per_hour, 1e3, good_per_s),
    }
}

/// Energy of one replica's cards: by the length of the running list while they work, and idle else.
fn joules(kind: &ReplicaKind, stats: &LaneStats, there_s: f64) -> Option<f64> {
    let cards = f64::from(kind.placement.deployment.tensor_parallel_size);
    let gpu = kind.placement.gpu;
    let at_work = stats.batch_time().iter().enumerate().filter(|(_, time)| **time > Span::ZERO);
    // A step always has a sequence, if only one that is leaving.
    let worked: Option<f64> =
        at_work.map(|(running, time)| Some(watts(gpu, running.max(1))? * time.as_s())).sum();
    // Of replicas that come and go the mean is known, so for one alone this may be below nothing; their sum is right.
    let idle_s = there_s - stats.busy.as_s();
    Some((worked? + watts(gpu, 0)? * idle_s) * cards)
}
