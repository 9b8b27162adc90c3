//! `tailcast trace`: what is in a trace.

use std::path::PathBuf;
use std::process::ExitCode;

use super::{CliError, print};
use crate::trace::TraceInfo;

/// Look into traces
#[derive(Debug, clap::Subcommand)]
pub(super) enum Trace {
    Info(InfoArguments),
}

/// Print counts, span, rates, burstiness, lengths and prefix reuse of a trace
#[derive(Debug, clap::Args)]
pub(super) struct InfoArguments {
    /// The trace; .gz and .zst are read directly
    file: PathBuf,
    /// Its format, where its content does not tell (`tailcast list formats`)
    #[arg(long)]
    format: Option<String>,
    /// Print as JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn run(trace: &Trace) -> Result<ExitCode, CliError> {
    let Trace::Info(arguments) = trace;
    let trace = crate::trace::read(
        &arguments.file,
        &crate::trace::ReadOptions::of_format(arguments.format.as_deref()),
    )
    .map_err(CliError::input)?;
    let info = TraceInfo::of(&trace);
    let text = if arguments.json {
        serde_json::to_string_pretty(&info).map_err(|error| CliError::Write(error.to_string()))? + "\n"
    } else {
        info.text()
    };
    print(&text)?;
    Ok(ExitCode::SUCCESS)
}
