//! A verdict on the oddities of a trace, with counts.
//!
//! Knows what is odd about times and lengths. Does not know what a scenario would make of it.

use std::collections::BTreeMap;
use std::fmt::Write;

use serde::Serialize;

use super::Trace;

/// How far an oddity matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Weight {
    /// Worth knowing.
    Note,
    /// Replayed as it stands, it may say other things than it seems to.
    Warning,
}

/// One thing that is odd.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Oddity {
    /// How far it matters.
    pub weight: Weight,
    /// How many requests it concerns.
    pub requests: u64,
    /// What it is, and what to do about it.
    pub what: String,
}

/// A pause counts as silence when it is so many mean gaps long.
const SILENCE_GAPS: f64 = 100.0;
/// A length at the top is a limit of the service when so large a share of the requests has it.
const PILED_SHARE: f64 = 0.001;
/// Prompts beyond this fit few servers.
const LONG_PROMPT: u32 = 131_072;
/// Times on a grid: so few different ones in proportion to the requests.
const GRID_SHARE: f64 = 0.5;

/// All that is odd, the weightier first.
pub fn oddities(trace: &Trace) -> Vec<Oddity> {
    let (rows, notes) = (&trace.rows, &trace.notes);
    let mut found = Vec::new();
    let mut say = |weight, requests: u64, what: String| {
        if requests > 0 {
            found.push(Oddity { weight, requests, what });
        }
    };
    use Weight::{Note, Warning};
    say(Warning, notes.unreadable_skipped, "rows cannot be read and were left out".into());
    say(Note, notes.other_kinds_skipped, "records are no requests".into());
    say(Note, notes.failed_skipped, "requests were failed by the service and left out".into());
    say(Note, notes.output_zero_skipped, "requests produced nothing and were left out".into());
    say(Note, notes.out_of_order, "requests stood below a later one; they were sorted".into());
    let all = rows.len() as u64;
    if trace.is_timeless() {
        say(Warning, all, "have no times: give a scenario `arrivals`".into());
    } else if (notes.duplicate_times as f64) > GRID_SHARE * all as f64 {
        let grid = grid_ms(trace).map_or(String::new(), |grid| format!(" (about {grid} ms apart)"));
        let what = format!(
            "share their time with another: times lie on a grid{grid}; spread_ms moves requests within it"
        );
        say(Warning, notes.duplicate_times, what);
    } else {
        say(Note, notes.duplicate_times, "came at the same time as another".into());
    }
    let span_s = rows.last().map_or(0.0, |row| row.arrived.as_s());
    let mean_gap_s = span_s / (all.max(2) - 1) as f64;
    let silences: Vec<f64> = rows
        .windows(2)
        .map(|pair| (pair[1].arrived - pair[0].arrived).as_s())
        .filter(|gap| *gap > SILENCE_GAPS * mean_gap_s && *gap > 1.0)
        .collect();
    let longest = silences.iter().copied().fold(0.0, f64::max);
    let total: f64 = silences.iter().sum();
    let what = format!(
        "came after a silence of more than {SILENCE_GAPS} mean gaps; the longest is {longest:.1} s, all {total:.0} s"
    );
    say(Note, silences.len() as u64, what);
    say(
        Warning,
        rows.iter().filter(|row| row.prompt_tokens == 0).count() as u64,
        "have an empty prompt, which vLLM refuses".into(),
    );
    let long = rows.iter().filter(|row| row.prompt_tokens > LONG_PROMPT).count() as u64;
    say(
        Warning,
        long,
        format!("have prompts of more than {LONG_PROMPT} tokens; max_prompt_tokens cuts or drops them"),
    );
    for (name, lengths) in [
        ("prompts", rows.iter().map(|row| row.prompt_tokens).collect::<Vec<_>>()),
        ("outputs", rows.iter().map(|row| row.output_tokens).collect()),
    ] {
        let mut counts: BTreeMap<u32, u64> = BTreeMap::new();
        for length in lengths {
            *counts.entry(length).or_insert(0) += 1;
        }
        let top: Vec<(u32, u64)> =
            counts.iter().rev().take(3).map(|(length, count)| (*length, *count)).collect();
        let Some(&(most, _)) = top.first() else { continue };
        let near: u64 = top.iter().filter(|(length, _)| most - length <= 2).map(|(_, count)| count).sum();
        if near as f64 > PILED_SHARE * all as f64 && near > 5 && counts.len() > 10 {
            say(
                Note,
                near,
                format!("have {name} of {most} tokens or up to two less: a limit of the service cut them"),
            );
        }
        if let [(most, 1), (next, _), ..] = top[..]
            && f64::from(most) > 1.5 * f64::from(next)
        {
            say(
                Note,
                1,
                format!("has one of the {name} far beyond all others: {most} tokens, the next {next}"),
            );
        }
    }
    say(
        Note,
        rows.iter().filter(|row| row.output_tokens == 1).count() as u64,
        "produced a single token: they have no TPOT".into(),
    );
    found.sort_by_key(|oddity| std::cmp::Reverse(oddity.weight));
    found
}

/// The usual distance of different times, in milliseconds.
fn grid_ms(trace: &Trace) -> Option<u64> {
    let mut gaps: Vec<u64> = trace
        .rows
        .windows(2)
        .map(|pair| (pair[1].arrived - pair[0].arrived).as_ps() / 1_000_000_000)
        .filter(|gap| *gap > 0)
        .collect();
    gaps.sort_unstable();
    gaps.get(gaps.len() / 2).copied()
}

/// The verdict for people.
pub fn text(trace: &Trace, oddities: &[Oddity]) -> String {
    let mut text = String::new();
    let warnings = oddities.iter().filter(|oddity| oddity.weight == Weight::Warning).count();
    let verdict = match (warnings, oddities.len()) {
        (0, 0) => "nothing is odd".to_owned(),
        (0, _) => "fit to be replayed".to_owned(),
        (1, _) => "fit to be replayed with care: 1 warning".to_owned(),
        (warnings, _) => format!("fit to be replayed with care: {warnings} warnings"),
    };
    // Writing to a string cannot fail.
    let _ = writeln!(text, "{} requests, read as {}: {verdict}", trace.rows.len(), trace.format);
    for Oddity { weight, requests, what } in oddities {
        let weight = if *weight == Weight::Warning { "warning" } else { "note" };
        let _ = writeln!(text, "  {weight:<8} {requests:>9} {what}");
    }
    text
}
