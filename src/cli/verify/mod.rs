//! `tailcast verify`: the model against recordings of the real thing. One question, one file.

use std::process::ExitCode;

use super::CliError;

mod fleet;
mod latency;
mod schedule;
mod steps;

/// Hold the model against recordings of the real thing
#[derive(Debug, clap::Subcommand)]
pub(super) enum Verify {
    Schedule(schedule::Arguments),
    Steps(steps::Arguments),
    Latency(Box<latency::Arguments>),
}

pub(super) fn run(verify: &Verify) -> Result<ExitCode, CliError> {
    match verify {
        Verify::Schedule(arguments) => schedule::run(arguments),
        Verify::Steps(arguments) => steps::run(arguments),
        Verify::Latency(arguments) => latency::run(arguments),
    }
}

/// A share: "1%" or "0.01".
fn percent(text: &str) -> Result<f64, String> {
    let (number, scale) = text.strip_suffix('%').map_or((text, 1.0), |number| (number, 0.01));
    let value: f64 =
        number.trim().parse().map_err(|_| format!("expected a percentage such as 1%, got {text}"))?;
    let share = value * scale;
    (share.is_finite() && share >= 0.0).then_some(share).ok_or_else(|| "expected 0% or more".into())
}
