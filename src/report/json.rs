//! `summary.json`: the whole result, versioned.

use serde::Serialize;

use crate::metrics::RunSummary;
use crate::study::compare::{Comparison, Ranked, Standing};
use crate::study::statistics::Interval;
use crate::study::uncertainty::Uncertainty;

/// Rises when a field changes its meaning or goes away; new fields do not raise it.
pub const SCHEMA_VERSION: u32 = 1;

#[derive(Serialize)]
struct SummaryFile<'a> {
    schema_version: u32,
    title: &'a str,
    ranked_by: &'static str,
    repetitions: u32,
    population: &'a str,
    standing: &'a Standing,
    marks: &'a [String],
    notes: &'a [String],
    ranking: Vec<RankedFile<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    uncertainty: Option<&'a Uncertainty>,
}

#[derive(Serialize)]
struct RankedFile<'a> {
    name: &'a str,
    policy: &'a str,
    group: u32,
    /// Null is infinite: a percentile that falls among requests without a whole answer.
    e2e_p99_of_offered_ms: Option<f64>,
    e2e_p99_of_offered_interval_ms: Option<Interval>,
    behind_first_ms: Option<Interval>,
    behind_group_ms: Option<Interval>,
    objectives: Vec<Objective<'a>>,
    repetitions: &'a [RunSummary],
}

#[derive(Serialize)]
struct Objective<'a> {
    objective: &'a str,
    met: bool,
}

fn ranked(ranked: &Ranked) -> RankedFile<'_> {
    RankedFile {
        name: &ranked.name,
        policy: &ranked.policy,
        group: ranked.group,
        e2e_p99_of_offered_ms: ranked.e2e_p99_ms,
        e2e_p99_of_offered_interval_ms: ranked.e2e_p99_interval,
        behind_first_ms: ranked.behind_first,
        behind_group_ms: ranked.behind_group,
        objectives: ranked
            .objectives
            .iter()
            .map(|(objective, met)| Objective { objective, met: *met })
            .collect(),
        repetitions: &ranked.repetitions,
    }
}

/// The comparison as JSON text with a final newline.
///
/// # Errors
/// Never for what a study produces; a number that is not finite would be one.
pub fn summary(comparison: &Comparison) -> Result<String, serde_json::Error> {
    let file = SummaryFile {
        schema_version: SCHEMA_VERSION,
        title: &comparison.title,
        ranked_by: "e2e_p99_of_offered_ms",
        repetitions: comparison.repeat,
        population: &comparison.population,
        standing: &comparison.standing,
        marks: &comparison.marks,
        notes: &comparison.notes,
        ranking: comparison.ranking.iter().map(ranked).collect(),
        uncertainty: comparison.uncertainty.as_ref(),
    };
    serde_json::to_string_pretty(&file).map(|text| text + "\n")
}
