//! What autoscalers did and what fleets cost, as text: a row a contender, and changes of the best that made any.

use super::table::{Table, number, number_or_dash};
use crate::metrics::{Cost, RunSummary, Scaling};
use crate::study::compare::Comparison;

/// Above so many changes a list of them says nothing.
const MOST_LINES: usize = 16;

/// A row a contender; none where all have the same fleet.
pub(super) fn table(comparison: &Comparison) -> Option<Table> {
    let head = [
        "name",
        "mean replicas",
        "fewest up",
        "most up",
        "ups",
        "downs",
        "$ / hour",
        "$ / 10^6 output tokens",
        "$ / 1000 good requests",
        "kW",
        "kWh / 10^6 output tokens",
    ];
    if !costs_differ(comparison) {
        return None;
    }
    let mut table = Table::new(&head, 1);
    for ranked in &comparison.ranking {
        let scaled = |part: &dyn Fn(&Scaling) -> f64| {
            number_or_dash(ranked.mean(|summary: &RunSummary| summary.scaling.as_ref().map(part)))
        };
        let costs = |part: &dyn Fn(&Cost) -> Option<f64>| {
            number_or_dash(ranked.mean(|summary: &RunSummary| summary.cost.as_ref().and_then(part)))
        };
        let replicas = match ranked.repetitions[0].scaling {
            Some(_) => scaled(&|scaling| scaling.mean_replicas),
            None => ranked.repetitions[0].replicas.len().to_string(),
        };
        table.row(vec![
            ranked.name.clone(),
            replicas,
            scaled(&|scaling| f64::from(scaling.least_ready)),
            scaled(&|scaling| f64::from(scaling.most_ready)),
            scaled(&|scaling| f64::from(scaling.ups)),
            scaled(&|scaling| f64::from(scaling.downs)),
            costs(&|cost| cost.usd_per_hour),
            costs(&|cost| cost.usd_per_million_output_tokens),
            costs(&|cost| cost.usd_per_thousand_good_requests),
            costs(&|cost| cost.watts.map(|watts| watts / 1e3)),
            costs(&|cost| cost.kwh_per_million_output_tokens),
        ]);
    }
    Some(table)
}

/// Whether replicas come and go, or contenders have fleets of different prices: else all cost the same.
fn costs_differ(comparison: &Comparison) -> bool {
    let firsts = || comparison.ranking.iter().map(|ranked| &ranked.repetitions[0]);
    let price = |summary: &RunSummary| summary.cost.as_ref().and_then(|cost| cost.usd_per_hour);
    let first = firsts().next().and_then(price);
    firsts().any(|summary| summary.scaling.is_some() || price(summary) != first)
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
