//! A comparison as text for a terminal: where the fleet stands, the ranking, what is real of it.

use super::table::{Table, number, number_or_dash, percent};
use super::{bad_day, over_time, scaling, verdict};
use crate::metrics::{ClassSummary, Quantiles, RunSummary};
use crate::study::compare::Comparison;
use crate::study::standing::Standing;

/// The whole comparison.
pub fn comparison(comparison: &Comparison) -> String {
    [tables(comparison), verdict::differences(comparison)].join("\n") + beside(comparison).as_str()
}

/// One scenario alone: the same tables, and one of its replicas instead of a verdict.
pub fn single(comparison: &Comparison) -> String {
    let replicas = replicas(&comparison.ranking[0].repetitions[0]);
    [tables(comparison), replicas, verdict::of_one(comparison)].join("\n") + beside(comparison).as_str()
}

fn tables(comparison: &Comparison) -> String {
    let by_class = classes(comparison).map_or(String::new(), |table| table.render());
    let bad_day = bad_day::table(comparison).map_or(String::new(), |table| table.render());
    let scaling = scaling::table(comparison).map_or(String::new(), |table| table.render());
    let rates = rates(comparison).render();
    let parts = [opening(comparison), latencies(comparison).render(), rates, bad_day, scaling, by_class];
    parts.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join("\n")
}

fn opening(comparison: &Comparison) -> String {
    let mut text = String::new();
    if !comparison.title.is_empty() {
        text.push_str(&comparison.title);
        text.push('\n');
    }
    text.push_str(&standing(&comparison.standing));
    for remark in &comparison.standing.remarks {
        text.push_str(&format!("- {remark}\n"));
    }
    for mark in &comparison.marks {
        text.push_str(&format!("- mind: {mark}\n"));
    }
    for note in &comparison.notes {
        text.push_str(&format!("- trace: {note}\n"));
    }
    text
}

pub(super) fn standing(standing: &Standing) -> String {
    let replicas = match standing.replicas {
        1 => "1 replica".to_string(),
        count => format!("{count} replicas"),
    };
    let load = match (standing.saturation_requests_per_s, standing.load) {
        (Some(saturation), Some(load)) => {
            format!(", {} % of the {} at which the fleet saturates", number(load * 100.0), number(saturation))
        }
        _ => String::new(),
    };
    format!(
        "{replicas}; {} requests/s offered{load}; median batch {}; KV cache {} % used\n",
        number(standing.offered_requests_per_s),
        standing.median_batch,
        percent(standing.kv_cache_usage)
    )
}

pub(super) fn latencies(comparison: &Comparison) -> Table {
    let head = [
        "group",
        "name",
        "E2E ms mean",
        "P50",
        "P90",
        "P99",
        "TTFT ms mean",
        "P50",
        "P90",
        "P99",
        "TPOT ms mean",
        "P50",
        "P90",
        "P99",
    ];
    let mut table = Table::new(&head, 2);
    for ranked in &comparison.ranking {
        let mut cells = vec![ranked.group.to_string(), ranked.name.clone()];
        for of in [|s: &RunSummary| s.e2e, |s: &RunSummary| s.ttft, |s: &RunSummary| s.tpot] {
            let parts: [fn(&Quantiles) -> Option<f64>; 4] =
                [|q| q.mean_ms, |q| q.p50_ms, |q| q.p90_ms, |q| q.p99_ms];
            cells.extend(parts.iter().map(|part| number_or_dash(ranked.mean(|s| part(&of(s))))));
        }
        table.row(cells);
    }
    table
}

pub(super) fn rates(comparison: &Comparison) -> Table {
    let head = [
        "group",
        "name",
        "ranked by E2E P99 ms",
        "requests/s",
        "output tokens/s",
        "good requests/s",
        "good %",
        "preemptions",
        "prefix_cache_hit_rate %",
        "rejected",
        "unfinished",
        "busy %",
        "queue growth",
    ];
    let mut table = Table::new(&head, 2);
    for ranked in &comparison.ranking {
        let of = |part: fn(&RunSummary) -> f64| ranked.mean(|summary| Some(part(summary)));
        table.row(vec![
            ranked.group.to_string(),
            ranked.name.clone(),
            ranked.e2e_p99_ms.map_or("infinite".into(), number),
            number_or_dash(of(|s| s.requests_per_s)),
            number_or_dash(of(|s| s.output_tokens_per_s)),
            number_or_dash(of(|s| s.goodput_requests_per_s)),
            number_or_dash(of(|s| s.goodput_share * 100.0)),
            number_or_dash(of(|s| s.preemptions as f64)),
            number_or_dash(of(|s| s.prefix_cache_hit_rate * 100.0)),
            number_or_dash(of(|s| s.rejected as f64)),
            number_or_dash(of(|s| s.unfinished as f64)),
            number_or_dash(of(|s| s.busy_share * 100.0)),
            number_or_dash(of(|s| s.queue_growth)),
        ]);
    }
    table
}

/// A row a contender and class; nothing where all requests are alike.
pub(super) fn classes(comparison: &Comparison) -> Option<Table> {
    let head = [
        "name",
        "class",
        "offered",
        "good %",
        "E2E ms P50",
        "P99",
        "TTFT ms P50",
        "P99",
        "TPOT ms P50",
        "P99",
    ];
    let mut table = Table::new(&head, 2);
    let mut rows = 0;
    for ranked in &comparison.ranking {
        let classes = ranked.repetitions.first().map_or(0, |first| first.classes.len());
        for class in 0..classes {
            let of = |part: &dyn Fn(&ClassSummary) -> Option<f64>| {
                number_or_dash(ranked.mean(|summary| part(&summary.classes[class])))
            };
            let name = ranked.repetitions[0].classes[class].name.clone();
            table.row(vec![
                if class == 0 { ranked.name.clone() } else { String::new() },
                name,
                of(&|class| Some(class.offered as f64)),
                of(&|class| Some(class.goodput_share * 100.0)),
                of(&|class| class.e2e.p50_ms),
                of(&|class| class.e2e.p99_ms),
                of(&|class| class.ttft.p50_ms),
                of(&|class| class.ttft.p99_ms),
                of(&|class| class.tpot.p50_ms),
                of(&|class| class.tpot.p99_ms),
            ]);
            rows += 1;
        }
    }
    (rows > 0).then_some(table)
}

/// What there is beside the tables: the run over time, and what errors of the model would do; nothing where that was not asked for.
fn beside(comparison: &Comparison) -> String {
    scaling::changes(comparison)
        + bad_day::incidents(comparison).as_str()
        + over_time::text(comparison).as_str()
        + uncertainty(comparison).as_str()
        + verdict::stability(comparison).as_str()
}

/// The latencies under models drawn from a calibration; nothing where that was not asked for.
fn uncertainty(comparison: &Comparison) -> String {
    let Some(uncertainty) = &comparison.uncertainty else { return String::new() };
    let draws = uncertainty.draws;
    let mut table = Table::new(&["name", "latency ms", "mean", "P50", "P90", "P95", "P99", "first in"], 2);
    for drawn in &uncertainty.contenders {
        for (index, (latency, spreads)) in
            [("E2E", &drawn.e2e), ("TTFT", &drawn.ttft), ("TPOT", &drawn.tpot)].into_iter().enumerate()
        {
            let first_row = index == 0;
            let mut cells = vec![if first_row { drawn.name.clone() } else { String::new() }, latency.into()];
            for spread in [spreads.mean, spreads.p50, spreads.p90, spreads.p95, spreads.p99] {
                cells.push(spread.map_or("-".into(), |spread| {
                    format!("{} to {}", number(spread.low_ms), number(spread.high_ms))
                }));
            }
            cells.push(if first_row { format!("{} of {draws}", drawn.first) } else { String::new() });
            table.row(cells);
        }
    }
    format!(
        "\nWhere 95 % of {draws} models drawn from the calibration lie (requests of the first repetition):\n{}",
        table.render()
    )
}

/// Above this many replicas a table of them says nothing.
const MOST_ROWS: usize = 32;

fn replicas(summary: &RunSummary) -> String {
    let head = [
        "replica",
        "kind",
        "requests",
        "busy %",
        "median batch",
        "KV mean %",
        "KV max %",
        "preemptions",
        "prefix_cache_hit_rate %",
    ];
    let mut table = Table::new(&head, 2);
    for (number, replica) in summary.replicas.iter().enumerate().take(MOST_ROWS) {
        table.row(vec![
            number.to_string(),
            replica.kind.clone(),
            replica.requests.to_string(),
            percent(replica.busy_share),
            replica.median_batch.to_string(),
            percent(replica.kv_cache_usage),
            percent(replica.kv_cache_usage_max),
            replica.preemptions.to_string(),
            percent(replica.prefix_cache_hit_rate),
        ]);
    }
    let mut text = table.render();
    if summary.replicas.len() > MOST_ROWS {
        text.push_str(&format!("... and {} more\n", summary.replicas.len() - MOST_ROWS));
    }
    text
}
