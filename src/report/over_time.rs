//! The first repetition over time: `windows.csv`, and the times of missed objectives in words.

use super::table::number;
use crate::metrics::windows::Episode;
use crate::study::compare::Comparison;

/// A row a contender and window. `replicas_up` is a mean over the window, empty where no autoscaler changes their number. A percentile that falls among requests without an answer is `inf`; empty is "too few to tell".
///
/// # Errors
/// If the bytes cannot be put together, which memory alone could cause.
pub fn csv(comparison: &Comparison) -> Result<Vec<u8>, csv::Error> {
    let mut writer = csv::Writer::from_writer(Vec::new());
    writer.write_record([
        "name",
        "from_s",
        "to_s",
        "offered",
        "without_answer",
        "offered_requests_per_s",
        "e2e_p50_ms",
        "e2e_p90_ms",
        "e2e_p99_ms",
        "ttft_p50_ms",
        "ttft_p90_ms",
        "ttft_p99_ms",
        "missed_share",
        "burn_rate",
        "replicas_up",
    ])?;
    let told = |value: Option<f64>| value.map_or(String::new(), |value| format!("{value:.6}"));
    for ranked in &comparison.ranking {
        let scaling = ranked.repetitions.first().and_then(|summary| summary.scaling.as_ref());
        for window in ranked.windows.iter().flat_map(|windows| &windows.windows) {
            writer.write_record([
                ranked.name.clone(),
                format!("{:.3}", window.from_s),
                format!("{:.3}", window.to_s),
                window.offered.to_string(),
                window.without_answer.to_string(),
                format!("{:.6}", window.offered_requests_per_s),
                told(window.e2e_p50_ms),
                told(window.e2e_p90_ms),
                told(window.e2e_p99_ms),
                told(window.ttft_p50_ms),
                told(window.ttft_p90_ms),
                told(window.ttft_p99_ms),
                told(window.missed_share),
                told(window.burn_rate),
                told(scaling.map(|scaling| scaling.mean_ready(window.from_s, window.to_s))),
            ])?;
        }
    }
    writer.into_inner().map_err(|error| error.into_error().into())
}

/// When objectives were missed, a line a contender; nothing where there are none or nobody missed them.
pub(super) fn text(comparison: &Comparison) -> String {
    let lines = episodes(comparison);
    if lines.is_empty() {
        return String::new();
    }
    let head = "Over time, in the first repetition (windows.csv): when more than one request in a hundred missed a limit\n";
    let lines: String = lines.iter().map(|line| format!("- {line}\n")).collect();
    format!("\n{head}{lines}")
}

/// The same, a sentence a contender that missed them.
pub(super) fn episodes(comparison: &Comparison) -> Vec<String> {
    comparison
        .ranking
        .iter()
        .filter_map(|ranked| Some((&ranked.name, ranked.windows.as_ref()?)))
        .filter(|(_, windows)| !windows.episodes.is_empty())
        .map(|(name, windows)| line(name, windows.length_s, &windows.episodes))
        .collect()
}

fn line(name: &str, length_s: f64, episodes: &[Episode]) -> String {
    let all_s: f64 = episodes.iter().map(|episode| episode.to_s - episode.from_s).sum();
    let later_less = |a: &&Episode, b: &&Episode| a.missed.cmp(&b.missed).then(b.from_s.total_cmp(&a.from_s));
    let worst = episodes.iter().max_by(later_less);
    let stretches = match episodes.len() {
        1 => "one stretch".into(),
        count => format!("{count} stretches"),
    };
    let mut line =
        format!("{name}: {} s in {stretches} (in windows of some {} s)", number(all_s), number(length_s));
    if let Some(worst) = worst {
        line.push_str(&format!(
            "; the worst from {} to {} s, {} missed, {} times the allowed share at most",
            number(worst.from_s),
            number(worst.to_s),
            match worst.missed {
                1 => "one request".into(),
                missed => format!("{missed} requests"),
            },
            number(worst.worst_burn_rate)
        ));
        if let Some(recovery_s) = worst.recovery_s {
            line.push_str(&format!(
                "; a spike of {} times the mean rate, and {} s to recover from it",
                number(worst.peak_over_mean),
                number(recovery_s)
            ));
        }
    }
    if episodes.last().is_some_and(|last| !last.recovered) {
        line.push_str("; not over when the last request was sent");
    }
    line
}
