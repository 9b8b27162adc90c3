//! What an autoscaler did, from the fleet's books to the summary.

use crate::fleet::scaling::{Change, ScalingBook};
use crate::metrics::{Scaling, ScalingChange};
use crate::time::Time;

/// The books of a run that ended at `ended`.
pub(super) fn scaling(book: &ScalingBook, ended: Time) -> Scaling {
    let run_s = (ended - Time::ZERO).as_s();
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
        replica_hours: book.paid.as_s() / 3_600.0,
        changes: book.changes.iter().map(change).collect(),
    }
}
