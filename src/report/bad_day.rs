//! What befell a run, as text: tries, losses and waste of each contender, and the incidents of the first.

use super::table::{Table, number, number_or_dash, percent};
use crate::metrics::{Aftermath, BadDay, IncidentSummary};
use crate::study::compare::Comparison;

/// Whether anybody lost, gave up, or tried again.
fn is_eventful(day: &BadDay) -> bool {
    let failed = day.lost_tries + day.timed_out_tries + day.unavailable_tries;
    failed + day.gateway_retries + day.hedges + day.output_tokens_wasted > 0
}

/// A row a contender; none where nothing failed.
pub(super) fn table(comparison: &Comparison) -> Option<Table> {
    let head = [
        "name",
        "requests lost",
        "timed out",
        "tries a request",
        "tries by gateways",
        "second copies",
        "tries lost",
        "tries timed out",
        "tries answered 503",
        "wasted tokens %",
        "noticed after s",
    ];
    let days = comparison.ranking.iter().flat_map(|ranked| &ranked.repetitions);
    if !days.filter_map(|summary| summary.bad_day.as_ref()).any(is_eventful) {
        return None;
    }
    let mut table = Table::new(&head, 1);
    for ranked in &comparison.ranking {
        ranked.repetitions[0].bad_day.as_ref()?;
        let of = |part: &dyn Fn(&BadDay) -> Option<f64>| {
            number_or_dash(ranked.mean(|summary| summary.bad_day.as_ref().and_then(part)))
        };
        let requests = |summary: &crate::metrics::RunSummary| {
            (summary.offered + summary.warmup_requests + summary.cooldown_requests) as f64
        };
        let tries =
            ranked.mean(|summary| Some(summary.bad_day.as_ref()?.tries as f64 / requests(summary).max(1.0)));
        table.row(vec![
            ranked.name.clone(),
            of(&|day| Some(day.lost as f64)),
            of(&|day| Some(day.timed_out as f64)),
            number_or_dash(tries),
            of(&|day| Some(day.gateway_retries as f64)),
            of(&|day| Some(day.hedges as f64)),
            of(&|day| Some(day.lost_tries as f64)),
            of(&|day| Some(day.timed_out_tries as f64)),
            of(&|day| Some(day.unavailable_tries as f64)),
            of(&|day| Some(day.wasted_share * 100.0)),
            of(&BadDay::mean_noticed_after_s),
        ]);
    }
    Some(table)
}

/// Above so many incidents a list of them says nothing.
const MOST_LINES: usize = 12;

/// The incidents of the first contender's first repetition, a line each.
pub(super) fn incidents(comparison: &Comparison) -> String {
    let first = &comparison.ranking[0].repetitions[0];
    let Some(day) = first.bad_day.as_ref().filter(|day| !day.incidents.is_empty()) else {
        return String::new();
    };
    let mut text =
        format!("\nWhat befell the fleet, in the first repetition of {}:\n", comparison.ranking[0].name);
    day.incidents.iter().take(MOST_LINES).for_each(|incident| text += &line(incident));
    if day.incidents.len() > MOST_LINES {
        text += &format!("- ... and {} more (summary.json)\n", day.incidents.len() - MOST_LINES);
    }
    let told = comparison.ranking.iter().filter_map(|ranked| Some((&ranked.name, ranked.aftermath?)));
    let told: Vec<String> = told.map(|(name, aftermath)| around(name, &aftermath)).collect();
    if !told.is_empty() {
        text += "Good is who met every limit of [slo]; where none is set, who got a whole answer:\n";
    }
    text.push_str(&told.concat());
    text
}

/// Before, during and after, in a sentence.
fn around(name: &str, aftermath: &Aftermath) -> String {
    let share = |share: Option<f64>| share.map_or("-".into(), percent);
    let after = match aftermath.recovered_after_s {
        _ if aftermath.metastable => {
            "; METASTABLE: the cause is gone and less is offered than the fleet can bear, and it does not recover".into()
        }
        Some(seconds) if seconds > 0.0 => format!("; recovered {} s after", number(seconds)),
        Some(_) => String::new(),
        None if aftermath.good_after.is_none_or(|good| good >= aftermath.good_before.unwrap_or(1.0)) => {
            String::new()
        }
        None => "; not recovered when the last request was sent".into(),
    };
    let before =
        aftermath.good_before.map_or(String::new(), |good| format!("{} % good before, ", percent(good)));
    let (during, from_s) = (share(aftermath.good_during), number(aftermath.from_s));
    match aftermath.to_s {
        None => format!("- {name}: {before}{during} % good from {from_s} s on\n"),
        Some(to_s) => {
            let afterwards = share(aftermath.good_after);
            format!(
                "- {name}: {before}{during} % good from {from_s} to {} s, {afterwards} % afterwards{after}\n",
                number(to_s)
            )
        }
    }
}

fn line(incident: &IncidentSummary) -> String {
    let whom = match (incident.replica, incident.gateway) {
        (Some(replica), None) => format!("replica {replica}"),
        (Some(replica), Some(gateway)) => format!("replica {replica} from gateway {gateway}"),
        (None, Some(gateway)) => format!("gateway {gateway}"),
        (None, None) => "all replicas".into(),
    };
    // What passes without a new process.
    let slow = ["slow-down", "network", "metrics-lost", "partition", "counters-lost"]
        .contains(&incident.kind.as_str());
    if incident.in_vain {
        return format!(
            "- {} s: {} of {whom}, which was not there, or going already\n",
            number(incident.at_s),
            incident.kind
        );
    }
    let noticed = match (incident.noticed_after_s, incident.replica) {
        (Some(after), _) => format!(", noticed after {} s", number(after)),
        (None, Some(_)) if !slow || incident.kind == "partition" => ", not noticed".into(),
        _ => String::new(),
    };
    let lasted = incident.over_after_s.filter(|_| incident.kind != "counters-lost");
    let over = lasted.map_or(String::new(), |after| {
        format!(", {} after {} s", if slow { "over" } else { "ready again" }, number(after))
    });
    format!("- {} s: {} of {whom}{noticed}{over}\n", number(incident.at_s), incident.kind)
}
