//! Which plots a comparison gets: the distributions, the tails, and every contender's replicas over time.

use rayon::prelude::*;

use super::plots::{
    Along, Curve, MeasuredLine, Plot, PlotError, ReplicaLine, TailBar, latency_cdf, measured_lines,
    replicas_over_time, tail_bars,
};
use crate::metrics::{Scaling, Window, Windows};
use crate::request::Outcome;
use crate::study::compare::Comparison;
use crate::study::ranking::Ranked;
use crate::time::Span;

/// Names of plots that there is one of in a result.
const TTFT_CDF: &str = "ttft-cdf";
const E2E_CDF: &str = "e2e-cdf";
const E2E_TAIL: &str = "e2e-tail";
const E2E_OVER_TIME: &str = "e2e-over-time";
/// What names of plots begin with that are about replicas.
const REPLICAS: &str = "replicas-";

/// Whether a plot of this name may be one of a comparison's.
pub fn is_one(name: &str) -> bool {
    name.starts_with(REPLICAS) || [TTFT_CDF, E2E_CDF, E2E_TAIL, E2E_OVER_TIME].contains(&name)
}

/// One plot to be drawn, where there is something to show.
type Drawing<'a> = dyn Fn() -> Result<Option<Plot>, PlotError> + Sync + 'a;

/// All plots, of the first repetition but for the tail bars, which are means over repetitions.
///
/// # Errors
/// If one cannot be drawn.
pub fn of(comparison: &Comparison) -> Result<Vec<Plot>, PlotError> {
    let titled = |what: &str| match comparison.title.as_str() {
        "" => what.to_string(),
        title => format!("{title} \u{2013} {what}"),
    };
    let one_of = match comparison.repeat {
        1 => String::new(),
        repeat => format!(" (first of {repeat} repetitions)"),
    };
    let cdf = |name: &str, what: &str, of: fn(&Outcome) -> Option<Span>| {
        latency_cdf(name, &titled(&format!("{what}{one_of}")), what, &curves(comparison, of))
    };
    let tails = || {
        let title = titled("tail of the end-to-end latency");
        tail_bars(E2E_TAIL, &title, "end-to-end latency", &bars(comparison))
    };
    let replicas = |ranked: &Ranked| {
        let name = format!("{REPLICAS}{}", file_name(&ranked.name));
        let title = titled(&format!("replicas under {}{one_of}", ranked.name));
        replicas_over_time(&name, &title, &lines(ranked))
    };
    let mut drawn: Vec<Box<Drawing<'_>>> = vec![
        Box::new(|| cdf(TTFT_CDF, "time to first token", Outcome::ttft).map(Some)),
        Box::new(|| cdf(E2E_CDF, "end-to-end latency", Outcome::e2e).map(Some)),
        Box::new(|| tails().map(Some)),
        Box::new(|| over_time(comparison, &titled)),
        Box::new(|| replicas_up(comparison, &titled)),
    ];
    for ranked in &comparison.ranking {
        drawn.push(Box::new(|| replicas(ranked).map(Some)));
    }
    // Pictures are much to draw, each by itself.
    drawn.par_iter().filter_map(|draw| draw().transpose()).collect()
}

/// E2E P99 by window, or P90 where windows hold too few requests for it.
fn over_time(comparison: &Comparison, titled: &dyn Fn(&str) -> String) -> Result<Option<Plot>, PlotError> {
    let windows =
        || comparison.ranking.iter().filter_map(|ranked| Some((&ranked.name, ranked.windows.as_ref()?)));
    let Some((_, first)) = windows().next() else { return Ok(None) };
    let told =
        |of: fn(&Window) -> Option<f64>| first.windows.iter().filter(|window| of(window).is_some()).count();
    let (percent, of): (u32, fn(&Window) -> Option<f64>) =
        match told(|w| w.e2e_p99_ms) * 2 >= first.windows.len() {
            true => (99, |window| window.e2e_p99_ms),
            false => (90, |window| window.e2e_p90_ms),
        };
    let line = |(name, windows): (&String, &Windows)| MeasuredLine {
        label: name.clone(),
        points: windows.windows.iter().filter_map(|w| Some(((w.from_s + w.to_s) / 2.0, of(w)?))).collect(),
        ringed: Vec::new(),
    };
    let lines: Vec<MeasuredLine> = windows().map(line).collect();
    let title = titled(&format!("tail over time, in windows of {} s", first.length_s));
    let labels = ("sent at, seconds", &*format!("end-to-end latency P{percent}, ms"));
    measured_lines(E2E_OVER_TIME, &title, Along::Time, labels, &lines, None).map(Some)
}

/// Replicas that are up over time, in steps; nothing where no autoscaler changes anything.
fn replicas_up(comparison: &Comparison, titled: &dyn Fn(&str) -> String) -> Result<Option<Plot>, PlotError> {
    let scaled = comparison.ranking.iter().filter_map(|ranked| {
        let first = ranked.repetitions.first()?;
        let timelines = first.replicas.iter();
        let end_s = timelines.map(|replica| replica.timeline.len() as f64 * replica.timeline_interval_s);
        Some((&ranked.name, first.scaling.as_ref()?, end_s.fold(0.0, f64::max)))
    });
    let line = |(name, scaling, end_s): (&String, &Scaling, f64)| {
        let mut points: Vec<(f64, f64)> = Vec::new();
        for change in &scaling.changes {
            points.extend(points.last().map(|(_, before)| (change.at_s, *before)));
            points.push((change.at_s, f64::from(change.ready)));
        }
        points.extend(points.last().map(|(at_s, ready)| (at_s.max(end_s), *ready)));
        MeasuredLine { label: name.clone(), points, ringed: Vec::new() }
    };
    let lines: Vec<MeasuredLine> = scaled.map(line).collect();
    if lines.iter().all(|line| line.points.len() <= 2) {
        return Ok(None);
    }
    let labels = ("time, seconds", "replicas that are up");
    measured_lines(&format!("{REPLICAS}up"), &titled("replicas over time"), Along::Time, labels, &lines, None)
        .map(Some)
}

fn curves(comparison: &Comparison, of: fn(&Outcome) -> Option<Span>) -> Vec<Curve> {
    let curve = |ranked: &Ranked| {
        let counted = || ranked.outcomes.iter().filter(|outcome| ranked.counted.contains(&outcome.sent));
        let whole = counted().filter(|outcome| outcome.finish.is_complete());
        let mut values: Vec<Span> = whole.filter_map(of).collect();
        values.sort_unstable();
        Curve {
            label: ranked.name.clone(),
            lost: (counted().count() - values.len()) as u64,
            values_ms: values.into_iter().map(Span::as_ms).collect(),
        }
    };
    comparison.ranking.iter().map(curve).collect()
}

fn bars(comparison: &Comparison) -> Vec<TailBar> {
    let bar = |ranked: &Ranked| TailBar {
        label: ranked.name.clone(),
        p50_ms: ranked.mean(|summary| summary.e2e.p50_ms),
        p90_ms: ranked.mean(|summary| summary.e2e.p90_ms),
        p99_ms: ranked.e2e_p99_ms,
        p99_interval_ms: ranked.intervals.e2e.p99.map(|interval| (interval.low, interval.high)),
    };
    comparison.ranking.iter().map(bar).collect()
}

fn lines(ranked: &Ranked) -> Vec<ReplicaLine> {
    let replicas = ranked.repetitions.first().map_or(&[][..], |summary| &summary.replicas);
    let line = |(number, replica): (usize, &crate::metrics::ReplicaSummary)| ReplicaLine {
        label: format!("replica {number}"),
        interval_s: replica.timeline_interval_s,
        points: replica.timeline.clone(),
        kv_blocks_usable: replica.kv_blocks_usable,
    };
    replicas.iter().enumerate().map(line).collect()
}

/// A contender's name as part of a file name: letters, digits and dashes.
fn file_name(name: &str) -> String {
    let dashed = name.to_lowercase().replace(|c: char| !c.is_ascii_alphanumeric(), "-");
    dashed.split('-').filter(|part| !part.is_empty()).collect::<Vec<_>>().join("-")
}
