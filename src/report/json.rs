//! `summary.json`: the whole result, versioned.

use serde::Serialize;

use crate::metrics::windows::Episode;
use crate::metrics::{Aftermath, RunSummary};
use crate::study::compare::Comparison;
use crate::study::ranking::Ranked;
use crate::study::stability::Stability;
use crate::study::standing::Standing;
use crate::study::statistics::{Interval, LatencyIntervals, Paired};
use crate::study::uncertainty::Uncertainty;

/// Rises when a field changes its meaning or goes away; new fields do not raise it.
pub const SCHEMA_VERSION: u32 = 2;

/// The result of a run or a comparison of tailcast. Latencies are milliseconds.
#[derive(Serialize, schemars::JsonSchema)]
#[schemars(title = "tailcast summary")]
struct SummaryFile<'a> {
    schema_version: u32,
    title: &'a str,
    ranked_by: &'static str,
    repetitions: u32,
    /// How often the repetitions were looked at before they were enough, and the level that leaves for each look.
    looks: u32,
    level: f64,
    decided: bool,
    population: &'a str,
    standing: &'a Standing,
    marks: &'a [String],
    notes: &'a [String],
    ranking: Vec<RankedFile<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    uncertainty: Option<&'a Uncertainty>,
    #[serde(skip_serializing_if = "Option::is_none")]
    stability: Option<&'a Stability>,
}

/// One policy or variant.
#[derive(Serialize, schemars::JsonSchema)]
struct RankedFile<'a> {
    name: &'a str,
    policy: &'a str,
    group: u32,
    /// Null is infinite: a percentile that falls among requests without a whole answer.
    e2e_p99_of_offered_ms: Option<f64>,
    /// Null where nothing can be said: one repetition, too few requests, or no width.
    intervals_ms: LatencyIntervals,
    behind_first_ms: Option<Paired>,
    behind_group_ms: Option<Interval>,
    objectives: Vec<Objective<'a>>,
    /// When its objectives were missed in the first repetition; absent where requests were not kept.
    #[serde(skip_serializing_if = "Option::is_none")]
    episodes: Option<&'a [Episode]>,
    /// The first repetition around its incidents.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(default)]
    aftermath: Option<Aftermath>,
    repetitions: &'a [RunSummary],
}

/// A P99 objective, in the mean of repetitions.
#[derive(Serialize, schemars::JsonSchema)]
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
        intervals_ms: ranked.intervals,
        behind_first_ms: ranked.behind_first,
        behind_group_ms: ranked.behind_group,
        objectives: ranked
            .objectives
            .iter()
            .map(|(objective, met)| Objective { objective, met: *met })
            .collect(),
        aftermath: ranked.aftermath,
        episodes: ranked.windows.as_ref().map(|windows| &windows.episodes[..]),
        repetitions: &ranked.repetitions,
    }
}

/// The JSON Schema of the summary.
///
/// # Errors
/// If it cannot be put together, which memory alone could cause.
pub fn schema() -> Result<String, serde_json::Error> {
    serde_json::to_string_pretty(&schemars::schema_for!(SummaryFile<'static>)).map(|text| text + "\n")
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
        looks: comparison.looks,
        level: comparison.level,
        decided: comparison.decided,
        population: &comparison.population,
        standing: &comparison.standing,
        marks: &comparison.marks,
        notes: &comparison.notes,
        ranking: comparison.ranking.iter().map(ranked).collect(),
        uncertainty: comparison.uncertainty.as_ref(),
        stability: comparison.stability.as_ref(),
    };
    serde_json::to_string_pretty(&file).map(|text| text + "\n")
}
