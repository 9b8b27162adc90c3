//! What autoscalers did, as text: a row a contender, and the first one's changes.

use super::table::{Table, number, number_or_dash};
use crate::metrics::{RunSummary, Scaling};
use crate::study::compare::Comparison;
use crate::study::ranking::Ranked;

/// Above so many changes a list of them says nothing.
const MOST_LINES: usize = 16;

/// A row a contender that has an autoscaler; none where nobody has.
pub(super) fn table(comparison: &Comparison) -> Option<Table> {
    let head = [
        "name",
        "mean replicas",
        "fewest up",
        "most up",
        "ups",
        "downs",
        "replica hours",
        "$",
        "$ / 10^6 output tokens",
        "$ / 1000 good requests",
    ];
    let has_one = |ranked: &&Ranked| ranked.repetitions[0].scaling.is_some();
    comparison.ranking.iter().find(has_one)?;
    let mut table = Table::new(&head, 1);
    for ranked in comparison.ranking.iter().filter(has_one) {
        let of = |part: &dyn Fn(&Scaling) -> Option<f64>| {
            number_or_dash(ranked.mean(|summary: &RunSummary| summary.scaling.as_ref().and_then(part)))
        };
        table.row(vec![
            ranked.name.clone(),
            of(&|scaling| Some(scaling.mean_replicas)),
            of(&|scaling| Some(f64::from(scaling.least_ready))),
            of(&|scaling| Some(f64::from(scaling.most_ready))),
            of(&|scaling| Some(f64::from(scaling.ups))),
            of(&|scaling| Some(f64::from(scaling.downs))),
            of(&|scaling| Some(scaling.replica_hours)),
            of(&|scaling| scaling.usd),
            of(&|scaling| scaling.usd_per_million_output_tokens),
            of(&|scaling| scaling.usd_per_thousand_good_requests),
        ]);
    }
    Some(table)
}

/// How the number of replicas changed in the first repetition of the best contender under which it did.
pub(super) fn changes(comparison: &Comparison) -> String {
    let changed = comparison.ranking.iter().find_map(|ranked| {
        let scaling = ranked.repetitions[0].scaling.as_ref()?;
        (scaling.changes.len() > 1).then_some((ranked, scaling))
    });
    let Some((first, scaling)) = changed else { return String::new() };
    let mut text = format!("\nReplicas in the first repetition of {}, wanted and up:\n", first.name);
    for change in scaling.changes.iter().take(MOST_LINES) {
        text += &format!("- from {} s: {} wanted, {} up\n", number(change.at_s), change.wanted, change.ready);
    }
    if scaling.changes.len() > MOST_LINES {
        text += &format!("- ... and {} more changes (summary.json)\n", scaling.changes.len() - MOST_LINES);
    }
    text
}
