//! What an autoscaler did, from the fleet's books to the summary.

use crate::fleet::scaling::{Change, ScalingBook};
use crate::metrics::{RunSummary, Scaling, ScalingChange};
use crate::time::Time;

/// The books of a run that ended at `ended`, whose replicas cost so much an hour. Prices of tokens and requests are those
/// at the run's mean cost an hour, so that a warm-up is not charged to what came after it.
pub(super) fn scaling(
    book: &ScalingBook,
    ended: Time,
    usd_per_hour: Option<f64>,
    summary: &RunSummary,
) -> Scaling {
    let replica_hours = book.paid.as_s() / 3_600.0;
    let run_s = (ended - Time::ZERO).as_s();
    let usd = usd_per_hour.map(|usd| usd * replica_hours);
    let usd_for = |amount: f64, per_s: f64| match (usd, per_s * run_s) {
        (Some(usd), all) if all > 0.0 => Some(usd / all * amount),
        _ => None,
    };
    let steps = |rises: bool| {
        let pairs = book.changes.windows(2);
        pairs.filter(move |pair| {
            pair[0].wanted != pair[1].wanted && (pair[0].wanted < pair[1].wanted) == rises
        })
    };
    let change = |change: &Change| ScalingChange {
        at_s: change.at.as_s(),
        wanted: change.wanted,
        ready: change.ready,
    };
    Scaling {
        mean_replicas: if run_s > 0.0 { book.paid.as_s() / run_s } else { 0.0 },
        least_ready: book.changes.iter().map(|change| change.ready).min().unwrap_or(0),
        most_ready: book.changes.iter().map(|change| change.ready).max().unwrap_or(0),
        ups: steps(true).count() as u32,
        downs: steps(false).count() as u32,
        replica_hours,
        usd,
        usd_per_million_output_tokens: usd_for(1e6, summary.output_tokens_per_s),
        usd_per_thousand_good_requests: usd_for(1e3, summary.goodput_requests_per_s),
        changes: book.changes.iter().map(change).collect(),
    }
}
