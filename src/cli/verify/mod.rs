//! `tailcast verify`: the model against recordings of the real thing. One question, one file.

use std::process::ExitCode;

use super::CliError;

mod latency;
mod schedule;

/// Hold the model against recordings of the real thing
#[derive(Debug, clap::Subcommand)]
pub(super) enum Verify {
    Schedule(schedule::Arguments),
    Latency(latency::Arguments),
}

pub(super) fn run(verify: &Verify) -> Result<ExitCode, CliError> {
    match verify {
        Verify::Schedule(arguments) => schedule::run(arguments),
        Verify::Latency(arguments) => latency::run(arguments),
    }
}
