//! `tailcast trace amplify`: a trace as more users of the same kind would have made it.

use std::path::PathBuf;

use super::{CliError, Reading, Writing, check_not_input, say, say_notes};
use crate::random::Seed;
use crate::trace::{Clock, TraceInfo};
use crate::workload::amplify::amplify;

/// Write a trace at N times its rate, as bursty and with as much in common as it was
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Arguments {
    /// The trace
    #[arg(required = true)]
    files: Vec<PathBuf>,
    /// How many times the rate
    #[arg(long, value_name = "N")]
    times: f64,
    #[command(flatten)]
    reading: Reading,
    #[command(flatten)]
    writing: Writing,
    /// Draws of the sample behind a part of a round follow from this
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

/// Requests that a run can number.
const MOST_REQUESTS: f64 = 4e9;

pub(super) fn run(arguments: &Arguments) -> Result<(), CliError> {
    arguments.writing.target()?;
    check_not_input("--out", &arguments.writing.out, &arguments.files)?;
    let trace = arguments.reading.read(&arguments.files, Clock::Absolute)?;
    say_notes(&trace);
    let times = arguments.times;
    let many = times * trace.rows.len() as f64;
    if !(times > 0.0 && many < MOST_REQUESTS) {
        return Err(CliError::Input(format!(
            "--times: expected above 0, and fewer than {MOST_REQUESTS} requests, got {times}"
        )));
    }
    let more = amplify(&trace, times, Seed(arguments.seed));
    let (before, after) = (TraceInfo::of(&trace), TraceInfo::of(&more));
    let number = |value: Option<f64>| value.map_or("-".to_owned(), |value| format!("{value:.3}"));
    let reuse = |info: &TraceInfo| number(info.reuse.map(|reuse| reuse.prompt_token_share));
    say(&format!("requests/s {} -> {}", number(before.mean_rate_per_s), number(after.mean_rate_per_s)));
    say(&format!("CV of gaps {} -> {}", number(before.gap_cv), number(after.gap_cv)));
    say(&format!("share of prompt tokens found again {} -> {}", reuse(&before), reuse(&after)));
    arguments.writing.write(&more)
}
