//! What is real of a comparison, in words: intervals, differences, and whether the winner stays.

use super::table::{Table, number, percent};
use crate::study::compare::Comparison;
use crate::study::ranking::Ranked;
use crate::study::statistics::{Interval, Intervals, LatencyIntervals, Paired};

/// Of more contenders the intervals are in summary.json alone.
const MOST_WITH_INTERVALS: usize = 12;

/// Which differences are real: a bare ranking is never shown.
pub(super) fn differences(comparison: &Comparison) -> String {
    let level = number(comparison.level * 100.0);
    let mut text =
        format!("Which differences in E2E P99 are real, at {level} %, over {}:\n", comparison.population);
    if comparison.repeat == 1 {
        text.push_str("- none can be told from chance: set repeat = 5 or more");
        text.push_str(" (and resample for a trace), or let --until-decided find how many it takes\n");
        let own = intervals_with_remarks(comparison);
        return [text, own].into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join("\n");
    }
    let groups = comparison.ranking.last().map_or(0, |last| last.group);
    for group in 1..=groups {
        let members: Vec<&Ranked> =
            comparison.ranking.iter().filter(|ranked| ranked.group == group).collect();
        let names: Vec<&str> = members.iter().map(|ranked| ranked.name.as_str()).collect();
        let tied = if members.len() > 1 { " (cannot be told apart)" } else { "" };
        let between = if names.iter().any(|name| name.contains(',')) { "; " } else { ", " };
        text.push_str(&format!("- group {group}: {}{tied}\n", names.join(between)));
        if group > 1 {
            let first = members[0];
            let behind = first
                .behind_group
                .as_ref()
                .map_or(" infinitely".into(), |by| format!(" by {}", with_ends(by)));
            text.push_str(&format!("  {} is behind group {}{behind}\n", first.name, group - 1));
        }
    }
    for ranked in &comparison.ranking {
        for (objective, met) in &ranked.objectives {
            let verb = if *met { "meets" } else { "misses" };
            text.push_str(&format!("- {} {verb} {objective} in the mean of repetitions\n", ranked.name));
        }
    }
    if comparison.looks > 1 || comparison.decided {
        text.push_str(&decided(comparison));
    }
    let against = against_the_first(comparison).map_or(String::new(), |table| table.render());
    [text, against, intervals_with_remarks(comparison)].join("\n")
}

/// One scenario alone.
pub(super) fn of_one(comparison: &Comparison) -> String {
    let ranked = &comparison.ranking[0];
    let mut text = match intervals(comparison) {
        None => format!("E2E P99 has no interval ({})\n", comparison.population),
        Some(_) => format!("Over {}:\n{}", comparison.population, intervals_with_remarks(comparison)),
    };
    for (objective, met) in &ranked.objectives {
        text.push_str(&format!("{objective}: {}\n", if *met { "met" } else { "missed" }));
    }
    text
}

fn decided(comparison: &Comparison) -> String {
    let (repeat, looks) = (comparison.repeat, comparison.looks);
    let after = match looks {
        1 => format!("{repeat} repetitions"),
        _ => format!("{repeat} repetitions, looked at {looks} times"),
    };
    match comparison.decided {
        true => format!("- decided after {after}: everybody is behind the first, or within 1 % of it\n"),
        false => format!("- not decided after {after}\n"),
    }
}

/// Everybody against the first, pair by pair on the same requests.
pub(super) fn against_the_first(comparison: &Comparison) -> Option<Table> {
    let (first, others) = comparison.ranking.split_first()?;
    if others.is_empty() || comparison.repeat == 1 {
        return None;
    }
    let column = format!("E2E P99 ms above {}", first.name);
    let head = ["name", &column, "low", "high", "beats it in %", "verdict"];
    let mut table = Table::new(&head, 1);
    for ranked in others {
        let (cells, verdict) = match &ranked.behind_first {
            None => (["-", "-", "-", "-"].map(String::from).to_vec(), without_interval(ranked, first)),
            Some(Paired { difference, negative_probability, .. }) => (
                vec![
                    number(difference.estimate),
                    number(difference.low),
                    number(difference.high),
                    percent(*negative_probability),
                ],
                in_words(ranked.behind_first.as_ref().expect("it is there"), comparison.repeat),
            ),
        };
        table.row([vec![ranked.name.clone()], cells, vec![verdict]].concat());
    }
    Some(table)
}

fn without_interval(ranked: &Ranked, first: &Ranked) -> String {
    let infinite =
        ranked.repetitions.iter().filter(|summary| summary.e2e_p99_of_offered_ms.is_none()).count();
    let verdict = if ranked.is_behind_first { "worse" } else { "cannot tell" };
    match (ranked.e2e_p99_ms, first.e2e_p99_ms) {
        (Some(a), Some(b)) if a == b => "the same in every repetition".into(),
        _ if infinite == ranked.repetitions.len() => format!("{verdict}: infinite"),
        _ if infinite > 0 => format!("{verdict}: infinite in {infinite} of {}", ranked.repetitions.len()),
        _ => verdict.into(),
    }
}

fn in_words(paired: &Paired, repeat: u32) -> String {
    match paired {
        Paired { difference, .. } if difference.low > 0.0 => "worse".into(),
        Paired { difference, .. } if difference.high < 0.0 => "better".into(),
        Paired { repetitions_to_tell: Some(all), .. } => {
            format!("cannot tell; some {} more repetitions would", all.saturating_sub(repeat).max(1))
        }
        _ => "cannot tell, nor with 10,000 repetitions".into(),
    }
}

/// An interval of every mean and percentile, and what to know of them; nothing where there are none.
fn intervals_with_remarks(comparison: &Comparison) -> String {
    let Some(table) = intervals(comparison) else { return String::new() };
    table.render() + remarks_on_intervals(comparison).as_str()
}

/// What to know of the intervals, a line each.
pub(super) fn remarks_on_intervals(comparison: &Comparison) -> String {
    let mut text = String::new();
    if comparison.ranking.len() > MOST_WITH_INTERVALS {
        text.push_str("those of the others are in summary.json\n");
    }
    let refused = |intervals: &Intervals| {
        let Intervals { mean, p50, p90, p95, p99, p99_9, p99_99 } = intervals;
        [mean, p50, p90, p95, p99, p99_9, p99_99].iter().any(|interval| interval.is_none())
    };
    let shown = comparison.ranking.iter().take(MOST_WITH_INTERVALS).map(|ranked| &ranked.intervals);
    if shown.flat_map(|all| [&all.e2e, &all.ttft, &all.tpot]).any(refused) {
        text.push_str("-: fewer than ten requests beyond it, or infinite, or the same in all repetitions\n");
    }
    text
}

/// An interval of every mean and percentile; none of one repetition, unless it is long enough for batch means.
pub(super) fn intervals(comparison: &Comparison) -> Option<Table> {
    let known = |ranked: &Ranked| ranked.intervals != LatencyIntervals::default();
    if comparison.repeat == 1 && !comparison.ranking.iter().any(known) {
        return None;
    }
    let shown = comparison.ranking.iter().take(MOST_WITH_INTERVALS);
    let head = ["95 % intervals", "ms", "mean", "P50", "P90", "P95", "P99", "P99.9", "P99.99"];
    let mut table = Table::new(&head, 2);
    for ranked in shown {
        let all = &ranked.intervals;
        for (row, (latency, of)) in
            [("E2E", &all.e2e), ("TTFT", &all.ttft), ("TPOT", &all.tpot)].iter().enumerate()
        {
            let Intervals { mean, p50, p90, p95, p99, p99_9, p99_99 } = of;
            let mut cells =
                vec![if row == 0 { ranked.name.clone() } else { String::new() }, (*latency).into()];
            for interval in [mean, p50, p90, p95, p99, p99_9, p99_99] {
                cells.push(
                    interval.map_or("-".into(), |own| format!("{} to {}", number(own.low), number(own.high))),
                );
            }
            table.row(cells);
        }
    }
    Some(table)
}

fn with_ends(interval: &Interval) -> String {
    format!("{} ms ({} to {})", number(interval.estimate), number(interval.low), number(interval.high))
}

/// Whether the winner stays if step times are wrong; nothing where that was not asked for.
pub(super) fn stability(comparison: &Comparison) -> String {
    let Some(stability) = &comparison.stability else { return String::new() };
    let head = ["steps longer by %", "first", "place of the winner", "verdict"];
    let mut table = Table::new(&head, 0);
    for shifted in &stability.shifted {
        let verdict = match (shifted.winner_place, shifted.winner_is_behind) {
            (1, _) => "stays first",
            (_, false) => "cannot be told from the first",
            (_, true) => "behind",
        };
        table.row(vec![
            format!("{:+}", shifted.steps_longer_percent),
            shifted.first.clone(),
            shifted.winner_place.to_string(),
            verdict.into(),
        ]);
    }
    format!(
        "\nIf every step took longer or shorter than the model says, {} would be:\n{}",
        stability.winner,
        table.render()
    )
}
