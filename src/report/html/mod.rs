//! `report.html`: one file for a person who decides. It asks nothing of the network.
//!
//! The verdict comes first; then tables, which are plain HTML, and charts, which `charts.js` draws from the data in the page. What
//! stands in a table can be read without scripts and on paper.

use serde_json::{Value, json};

use super::explanation;
use super::table::{Table, escaped, number};
use super::{bad_day, over_time, scaling, text, verdict};
use crate::explain::Explanation;
use crate::request::Outcome;
use crate::scenario::Scenario;
use crate::study::compare::Comparison;
use crate::study::load_curve::LoadPoint;
use crate::study::ranking::Ranked;
use crate::study::sweep::knee;
use crate::time::Span;

const PAGE: &str = include_str!("page.html");
const STYLE: &str = include_str!("style.css");
const SCRIPT: &str = include_str!("charts.js");

/// What a report is made of.
pub struct Report<'a> {
    /// The comparison, with the outcomes of its first repetition.
    pub comparison: &'a Comparison,
    /// The scenario of the first in the ranking.
    pub scenario: &'a Scenario,
    /// Its first repetition, explained; none where that cannot be done.
    pub explanation: &'a Explanation,
    /// All at other rates; empty where the workload has none that could be changed.
    pub load_curve: &'a [LoadPoint],
    /// The resolved scenario, as text.
    pub scenario_text: &'a str,
}

/// The whole page.
///
/// # Errors
/// If its data cannot be put together, which memory alone could cause.
pub fn page(report: &Report<'_>) -> Result<String, serde_json::Error> {
    let comparison = report.comparison;
    let title = match comparison.title.as_str() {
        "" => "tailcast report",
        title => title,
    };
    // A closing tag within the data would end it.
    let data = serde_json::to_string(&data(report))?.replace('<', "\\u003c");
    let parts = [
        ("title", escaped(title)),
        ("style", STYLE.to_string()),
        ("verdict", verdict_html(comparison)),
        ("standing", standing_html(comparison)),
        (
            "differences",
            verdict::against_the_first(comparison).map_or(String::new(), |table| {
                format!("<h3>Against the first, pair by pair on the same requests</h3>\n{}", table.html())
            }),
        ),
        ("latencies", text::latencies(comparison).html()),
        ("rates", text::rates(comparison).html()),
        (
            "bad_day",
            bad_day::table(comparison).map_or(String::new(), |table| {
                format!("<h3>What clients and gateways did about failures</h3>\n{}", table.html())
            }),
        ),
        ("incidents", preformatted(&bad_day::incidents(comparison))),
        (
            "scaling",
            scaling::table(comparison).map_or(String::new(), |table| {
                format!(
                    "<h3>Replicas and what they cost</h3>\n{}{}",
                    table.html(),
                    preformatted(&scaling::changes(comparison))
                )
            }),
        ),
        (
            "classes",
            text::classes(comparison)
                .map_or(String::new(), |table| format!("<h3>By class of requests</h3>\n{}", table.html())),
        ),
        ("episodes", list(over_time::episodes(comparison).into_iter())),
        ("intervals", intervals_html(comparison)),
        ("tail", tail_html(report)),
        ("load", load_html(report)),
        ("scenario", escaped(report.scenario_text)),
        ("version", env!("CARGO_PKG_VERSION").to_string()),
        ("data", data),
        ("script", SCRIPT.to_string()),
    ];
    // One pass over the template, so that nothing within a part is taken for a place.
    let mut page =
        String::with_capacity(PAGE.len() + parts.iter().map(|(_, part)| part.len()).sum::<usize>());
    let mut pieces = PAGE.split("{{");
    page.push_str(pieces.next().unwrap_or_default());
    for piece in pieces {
        let (name, rest) = piece.split_once("}}").unwrap_or((piece, ""));
        let part = parts.iter().find(|(known, _)| *known == name);
        page.push_str(&part.unwrap_or_else(|| panic!("the template names `{name}`")).1);
        page.push_str(rest);
    }
    Ok(page)
}

/// Lines as they stand; nothing of nothing.
fn preformatted(text: &str) -> String {
    if text.is_empty() { String::new() } else { format!("<pre>{}</pre>\n", escaped(text.trim())) }
}

fn paragraph(text: &str) -> String {
    format!("<p>{}</p>\n", escaped(text))
}

fn list(lines: impl Iterator<Item = String>) -> String {
    let items: String = lines.map(|line| format!("<li>{}</li>\n", escaped(&line))).collect();
    if items.is_empty() { items } else { format!("<ul>\n{items}</ul>\n") }
}

fn latency(ms: Option<f64>) -> String {
    ms.map_or("infinite".into(), |ms| format!("{} ms", number(ms)))
}

/// Who is best, by how much, and how sure that is.
fn verdict_html(comparison: &Comparison) -> String {
    let first = &comparison.ranking[0];
    let within = first
        .intervals
        .e2e
        .p99
        .map_or(String::new(), |own| format!(" (95 %: {} to {})", number(own.low), number(own.high)));
    let others = &comparison.ranking[1..];
    let headline = match others.is_empty() {
        false if first.e2e_p99_ms.is_none() => {
            "No policy here has a finite E2E P99: too many requests get no answer".into()
        }
        true => format!("{}: E2E P99 {}{within}", first.name, latency(first.e2e_p99_ms)),
        false => {
            let equals: Vec<&str> = others
                .iter()
                .filter(|other| !other.is_behind_first)
                .map(|other| other.name.as_str())
                .collect();
            match (comparison.repeat, equals.is_empty()) {
                (1, _) => format!(
                    "{} has the lowest E2E P99, {}; one repetition cannot tell this from chance",
                    first.name,
                    latency(first.e2e_p99_ms)
                ),
                (_, true) => format!(
                    "{} keeps the slowest requests fastest: E2E P99 {}{within}",
                    first.name,
                    latency(first.e2e_p99_ms)
                ),
                (_, false) => format!(
                    "{} comes first with an E2E P99 of {}{within}, and cannot be told from {}",
                    first.name,
                    latency(first.e2e_p99_ms),
                    equals.join(", ")
                ),
            }
        }
    };
    let objectives = first.objectives.iter().enumerate().map(|(place, (objective, _))| {
        let names = |wanted: bool| -> Vec<&str> {
            let is_so =
                |ranked: &&Ranked| ranked.objectives.get(place).is_some_and(|(_, met)| *met == wanted);
            comparison.ranking.iter().filter(is_so).map(|ranked| ranked.name.as_str()).collect()
        };
        let told = |what: &str, names: Vec<&str>| match names.is_empty() {
            true => format!("{what} nobody"),
            false => format!("{what} {}", names.join(", ")),
        };
        format!("{objective}: {}; {}", told("met by", names(true)), told("missed by", names(false)))
    });
    format!("<p class=\"headline\">{}</p>\n{}", escaped(&headline), list(objectives))
}

fn standing_html(comparison: &Comparison) -> String {
    let remarks = comparison.standing.remarks.iter().cloned();
    let marks = comparison.marks.iter().map(|mark| format!("Mind: {mark}"));
    let notes = comparison.notes.iter().map(|note| format!("Trace: {note}"));
    let spoken = format!("Intervals speak of {}.", comparison.population);
    paragraph(text::standing(&comparison.standing).trim())
        + list(remarks.chain(marks).chain(notes).chain([spoken])).as_str()
}

fn intervals_html(comparison: &Comparison) -> String {
    match verdict::intervals(comparison) {
        None => paragraph(
            "One repetition has no intervals, unless it is long: set repeat = 5 or more (and resample for a trace).",
        ),
        Some(table) => {
            table.html() + list(verdict::remarks_on_intervals(comparison).lines().map(String::from)).as_str()
        }
    }
}

fn tail_html(report: &Report<'_>) -> String {
    let explanation = report.explanation;
    let first = &report.comparison.ranking[0].name;
    let mut html = paragraph(&format!(
        "Under {first}, in the first repetition: {} requests with a whole answer. The parts of each sum to its latency to the picosecond.",
        explanation.requests.len()
    ));
    for (what, tail) in [("End-to-end latency", &explanation.e2e), ("Time to first token", &explanation.ttft)]
    {
        if let Some(tail) = tail {
            html += &format!("<h3>{what}, ms</h3>\n");
            explanation::verdict(tail).lines().for_each(|line| html += &paragraph(line));
            html += &explanation::table(tail).html();
        }
    }
    if explanation.stories.is_empty() {
        return html;
    }
    html += "<h3>The slowest, one by one</h3>\n";
    html += &explanation::routing(&explanation.stories).map_or(String::new(), |text| paragraph(&text));
    let story = |story| format!("<li><pre>{}</pre></li>\n", escaped(&explanation::tell(story)));
    let stories: String = explanation.stories.iter().map(story).collect();
    html + format!("<ol class=\"stories\">\n{stories}</ol>\n").as_str()
}

fn load_html(report: &Report<'_>) -> String {
    if report.load_curve.is_empty() {
        return String::new();
    }
    let names: Vec<&str> = report.load_curve[0].e2e_p99_ms.iter().map(|(name, _)| name.as_str()).collect();
    let head = [&["requests/s", "load %"], &names[..]].concat();
    let mut table = Table::new(&head, 0);
    for point in report.load_curve {
        let mut cells = vec![
            number(point.offered_requests_per_s),
            point.load.map_or("-".into(), |load| number(load * 100.0)),
        ];
        cells.extend(point.e2e_p99_ms.iter().map(|(_, ms)| ms.map_or("infinite".into(), number)));
        table.row(cells);
    }
    table.html()
}

/// What charts are drawn from.
fn data(report: &Report<'_>) -> Value {
    let ranking = &report.comparison.ranking;
    json!({
        "names": ranking.iter().map(|ranked| &ranked.name).collect::<Vec<_>>(),
        "e2e_cdf": ranking.iter().map(|ranked| curve(ranked, Outcome::e2e)).collect::<Vec<_>>(),
        "ttft_cdf": ranking.iter().map(|ranked| curve(ranked, Outcome::ttft)).collect::<Vec<_>>(),
        "windows": ranking.iter().map(over_time).collect::<Vec<_>>(),
        "replicas": ranking.iter().map(replicas).collect::<Vec<_>>(),
        "load": load(report, ranking),
        "tail": tail(report.explanation),
        "tail_empty": "No request got an answer.",
        "limits": {
            "ttft_ms": report.scenario.p99.ttft.map(Span::as_ms),
            "e2e_ms": report.scenario.p99.e2e.map(Span::as_ms),
        },
    })
}

/// Shares at which a distribution is drawn: evenly up to 99 %, then closer and closer to one.
fn shares() -> impl Iterator<Item = f64> {
    let body = (0..198).map(|k| f64::from(k) * 0.005);
    let beyond = (0..=40).map(|k| 1.0 - 0.01 * 10f64.powf(-f64::from(k) / 20.0));
    body.chain(beyond)
}

/// Pairs of a latency in milliseconds and the share of offered requests within it.
fn curve(ranked: &Ranked, of: fn(&Outcome) -> Option<Span>) -> Value {
    let counted: Vec<&Outcome> =
        ranked.outcomes.iter().filter(|outcome| ranked.counted.contains(&outcome.sent)).collect();
    let whole = counted.iter().filter(|outcome| outcome.finish.is_complete());
    let mut values: Vec<Span> = whole.filter_map(|outcome| of(outcome)).collect();
    values.sort_unstable();
    let offered = counted.len() as f64;
    let at = |share: f64| {
        let rank = (share * offered).ceil().max(1.0) as usize;
        values.get(rank - 1).map(|value| json!([value.as_ms(), share]))
    };
    let last = values.last().map(|value| json!([value.as_ms(), values.len() as f64 / offered]));
    shares().filter(|share| share * offered <= offered - 1.0).filter_map(at).chain(last).collect()
}

fn over_time(ranked: &Ranked) -> Value {
    let windows = ranked.windows.iter().flat_map(|windows| &windows.windows);
    let row = |window: &crate::metrics::Window| {
        json!({
            "at": (window.from_s + window.to_s) / 2.0,
            "rate": window.offered_requests_per_s,
            "p50": window.e2e_p50_ms,
            "p90": window.e2e_p90_ms,
            "p99": window.e2e_p99_ms,
            "burn": window.burn_rate,
        })
    };
    windows.map(row).collect()
}

/// Columns of a heat map at most, and rows: of more replicas, those that waited most.
const MOST_COLUMNS: usize = 160;
const MOST_ROWS: usize = 64;

fn replicas(ranked: &Ranked) -> Value {
    let Some(summary) = ranked.repetitions.first() else { return Value::Null };
    let longest_s = summary
        .replicas
        .iter()
        .map(|replica| replica.timeline.len() as f64 * replica.timeline_interval_s)
        .fold(0.0, f64::max);
    let column_s = (longest_s / MOST_COLUMNS as f64).max(0.1);
    let row = |(number, replica): (usize, &crate::metrics::ReplicaSummary)| {
        let columns = (longest_s / column_s).ceil() as usize;
        let (mut running, mut waiting, mut kv) = (vec![0; columns], vec![0; columns], vec![0.0; columns]);
        for (index, point) in replica.timeline.iter().enumerate() {
            let column = ((index as f64 * replica.timeline_interval_s / column_s) as usize).min(columns - 1);
            running[column] = point.running.max(running[column]);
            waiting[column] = point.waiting.max(waiting[column]);
            let usage = f64::from(point.kv_blocks_used) / f64::from(replica.kv_blocks_usable.max(1));
            kv[column] = (usage * 1e3).round().max(kv[column] * 10.0) / 10.0;
        }
        let waited: u64 = waiting.iter().map(|&count| u64::from(count)).sum();
        (waited, json!({"replica": number, "running": running, "waiting": waiting, "kv": kv}))
    };
    let mut rows: Vec<(u64, Value)> = summary.replicas.iter().enumerate().map(row).collect();
    let all = rows.len();
    if all > MOST_ROWS {
        rows.sort_by_key(|(waited, _)| std::cmp::Reverse(*waited));
        rows.truncate(MOST_ROWS);
    }
    let rows: Vec<Value> = rows.into_iter().map(|(_, row)| row).collect();
    json!({"column_s": column_s, "all": all, "rows": rows})
}

/// A curve a contender, with its knee marked.
fn load(report: &Report<'_>, ranking: &[Ranked]) -> Value {
    let points = report.load_curve;
    let empty = match report.scenario.has_bad_days() {
        true => "Something happens on this day, and at another rate it would be another day: no curve.",
        false => {
            "No curve: none was asked for, or the workload has no rate of its own that could be changed."
        }
    };
    let line = |ranked: &Ranked| {
        let of = |point: &LoadPoint| {
            let ms = point.e2e_p99_ms.iter().find(|(name, _)| *name == ranked.name)?.1?;
            let x = point.load.map_or(point.offered_requests_per_s, |load| load * 100.0);
            Some((x, ms))
        };
        let points: Vec<(f64, f64)> = points.iter().filter_map(of).collect();
        json!({"points": points, "knee": knee(&points).map(|place| points[place])})
    };
    let is_load = points.first().is_some_and(|point| point.load.is_some());
    json!({"empty": empty, "is_load": is_load, "lines": ranking.iter().map(line).collect::<Vec<_>>()})
}

/// Parts of the latency by group of requests.
fn tail(explanation: &Explanation) -> Value {
    let parts: Vec<&str> = crate::explain::Part::ALL.iter().map(|part| part.name()).collect();
    let of = |tail: &Option<crate::explain::Tail>| {
        tail.as_ref().map(|tail| {
            json!([
                ["all", tail.all.parts_ms],
                ["typical (P40 to P60)", tail.typical.parts_ms],
                ["slowest 1 %", tail.slowest.parts_ms],
            ])
        })
    };
    json!({"parts": parts, "e2e": of(&explanation.e2e), "ttft": of(&explanation.ttft)})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_template_names_only_what_there_is() {
        let named: Vec<&str> = PAGE
            .split("{{")
            .skip(1)
            .filter_map(|piece| piece.split_once("}}"))
            .map(|(name, _)| name)
            .collect();
        let known = [
            "title",
            "style",
            "episodes",
            "verdict",
            "standing",
            "differences",
            "latencies",
            "rates",
            "bad_day",
            "incidents",
            "scaling",
            "classes",
            "intervals",
            "tail",
            "load",
            "scenario",
            "version",
            "data",
            "script",
        ];
        assert!(named.iter().all(|name| known.contains(name)), "{named:?}");
        assert!(known.iter().all(|name| named.contains(name)), "{named:?}");
    }

    #[test]
    fn every_part_of_a_latency_has_a_colour_of_its_own() {
        let colours =
            SCRIPT.split_once("partColor = (part) =>").and_then(|(_, rest)| rest.split_once("][part]"));
        let listed = colours.expect("a list of colours").0.trim().trim_start_matches('[');
        let mut colours: Vec<&str> = listed.split(',').map(str::trim).collect();
        assert_eq!(colours.len(), crate::explain::Part::ALL.len());
        colours.sort_unstable();
        colours.dedup();
        assert_eq!(colours.len(), crate::explain::Part::ALL.len());
    }

    #[test]
    fn nothing_is_asked_of_the_network() {
        for asset in [PAGE, STYLE, SCRIPT] {
            assert!(
                !asset.contains("http:") && !asset.contains("https:") && !asset.contains("import("),
                "{asset}"
            );
        }
    }

    #[test]
    fn shares_rise_to_the_last_hundredth_of_a_percent() {
        let all: Vec<f64> = shares().collect();
        assert!(all.windows(2).all(|pair| pair[0] < pair[1]), "{all:?}");
        assert!((all[all.len() - 1] - 0.9999).abs() < 1e-12);
    }
}
