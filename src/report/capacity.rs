//! How many replicas, or how much load: the answer, the way to it, and its picture.

use super::plots::{Along, MeasuredLine, Plot, PlotError, measured_lines};
use super::table::{Table, number, number_or_dash};
use crate::study::capacity::{Capacity, Latency, Objective, Point, Quantity, Verdict};

/// The name of its picture.
pub const CURVE: &str = "capacity";

fn name(latency: Latency) -> &'static str {
    match latency {
        Latency::E2e => "E2E",
        Latency::Ttft => "TTFT",
        Latency::Tpot => "TPOT",
    }
}

fn written(objective: &Objective) -> String {
    let Objective { latency, percent, limit_ms } = *objective;
    format!("{} P{percent} <= {limit_ms} ms", name(latency))
}

/// All searches, each with its answer and the sizes it tried.
pub fn text(
    title: &str,
    searches: &[Capacity],
    quantity: Quantity,
    objectives: &[Objective],
    confidence: f64,
    population: &str,
) -> String {
    let all: Vec<String> = objectives.iter().map(written).collect();
    let mut text = String::new();
    if !title.is_empty() {
        text.push_str(&format!("{title}\n"));
    }
    text.push_str(&format!(
        "What holds {} with {} % confidence, over {population}:\n\n",
        all.join(", "),
        number(confidence * 100.0)
    ));
    for search in searches {
        text.push_str(&answer(search, quantity));
    }
    if let Some(cheapest) = cheapest(searches) {
        text.push_str(&format!("\nCheapest: {cheapest}\n"));
    }
    for search in searches.iter().filter(|search| !search.walked.is_empty()) {
        text.push_str(&format!(
            "\n{} on {}\n{}",
            search.policy,
            search.kind,
            walked(search, quantity, objectives)
        ));
    }
    text
}

fn answer(search: &Capacity, quantity: Quantity) -> String {
    let of = format!("{} on {}", search.policy, search.kind);
    let Some(point) = &search.answer else {
        if search.is_mix {
            return format!("- {of} together: no mix is cheaper\n");
        }
        return match search.walked.iter().any(|point| point.verdict == Verdict::Open) {
            true => format!("- {of}: none in range for sure; more repetitions may tell\n"),
            false => format!("- {of}: none in range\n"),
        };
    };
    let cost = point.usd_per_hour.map_or(String::new(), |usd| {
        let tokens = point
            .usd_per_million_output_tokens
            .map_or(String::new(), |usd| format!(", {} $ a million output tokens", number(usd)));
        format!("; {} $ an hour{tokens}", number(usd))
    });
    match quantity {
        Quantity::Replicas { down, failing, .. } => {
            let down = match down {
                0 => String::new(),
                down => format!(", of which {down} may be down from the start"),
            };
            let replicas = if point.replicas == 1 { "replica" } else { "replicas" };
            let failing = match failing {
                0 => String::new(),
                failing => format!(", of which {failing} may crash midway"),
            };
            format!("- {of}: {} {replicas}{down}{failing}{cost}\n", counts(point))
        }
        Quantity::Rate => format!(
            "- {of}: {}{} requests/s, {} times the scenario's rate{cost}\n",
            if search.ends_the_range { "at least " } else { "" },
            number(point.offered_requests_per_s),
            number(point.rate_factor)
        ),
    }
}

/// Replicas of each kind.
fn counts(point: &Point) -> String {
    point.counts.iter().map(u32::to_string).collect::<Vec<_>>().join(" + ")
}

/// Of several kinds of replicas the one that costs least an hour; the first of equals.
fn cheapest(searches: &[Capacity]) -> Option<String> {
    let priced = searches.iter().filter_map(|search| {
        let point = search.answer.as_ref()?;
        Some((point.usd_per_hour?, search, point))
    });
    let several = searches.iter().any(|search| search.kind != searches[0].kind);
    let (_, search, point) = priced.min_by(|a, b| a.0.total_cmp(&b.0)).filter(|_| several)?;
    Some(format!("{} x {} under {}", counts(point), search.kind, search.policy))
}

fn walked(search: &Capacity, quantity: Quantity, objectives: &[Objective]) -> String {
    let size = match quantity {
        Quantity::Replicas { .. } => "replicas",
        Quantity::Rate => "times the rate",
    };
    let mut head: Vec<String> = vec![size.into(), "requests/s".into()];
    for objective in objectives {
        head.push(format!("{} P{} ms", name(objective.latency), objective.percent));
        head.push("within %".into());
    }
    head.extend(["load %", "$ an hour", "$ a million", "verdict"].map(String::from));
    let head: Vec<&str> = head.iter().map(String::as_str).collect();
    let mut table = Table::new(&head, 0);
    for point in &search.walked {
        let own = match quantity {
            Quantity::Replicas { .. } => counts(point),
            Quantity::Rate => format!("{:.3}", point.rate_factor),
        };
        let mut cells = vec![own, number(point.offered_requests_per_s)];
        for judged in &point.objectives {
            cells.push(judged.percentile_ms.map_or("infinite".into(), number));
            cells.push(format!("{:.2}", judged.share * 100.0));
        }
        cells.push(number_or_dash(point.load.map(|load| load * 100.0)));
        cells.push(number_or_dash(point.usd_per_hour));
        cells.push(number_or_dash(point.usd_per_million_output_tokens));
        cells.push(in_words(point).into());
        table.row(cells);
    }
    table.render()
}

fn in_words(point: &Point) -> &'static str {
    match point.verdict {
        _ if point.overloaded => "overloaded",
        Verdict::Holds => "holds",
        Verdict::Open => "cannot tell",
        Verdict::Fails => "fails",
    }
}

/// Each objective's percentile over its limit, by size, for every search.
///
/// # Errors
/// If it cannot be drawn.
pub fn plot(
    title: &str,
    searches: &[Capacity],
    quantity: Quantity,
    objectives: &[Objective],
) -> Result<Plot, PlotError> {
    let size = |point: &Point| match quantity {
        Quantity::Replicas { .. } => f64::from(point.replicas),
        Quantity::Rate => point.offered_requests_per_s,
    };
    let mut lines = Vec::new();
    // A mix has no size along which it grows.
    for search in searches.iter().filter(|search| !search.is_mix) {
        for (index, objective) in objectives.iter().enumerate() {
            let at = |point: &Point| {
                let ms = point.objectives[index].percentile_ms.unwrap_or(f64::INFINITY);
                (size(point), ms / objective.limit_ms)
            };
            lines.push(MeasuredLine {
                label: format!("{} on {}: {}", search.policy, search.kind, written(objective)),
                points: search.walked.iter().map(at).collect(),
                ringed: search.answer.iter().map(at).collect(),
            });
        }
    }
    let x_label = match quantity {
        Quantity::Replicas { .. } => "replicas",
        Quantity::Rate => "requests offered a second",
    };
    let title = if title.is_empty() { "capacity".into() } else { format!("{title} \u{2013} capacity") };
    measured_lines(
        CURVE,
        &title,
        Along::Sizes,
        (x_label, "percentile divided by its limit"),
        &lines,
        Some((1.0, "limit")),
    )
}
