//! `tailcast trace check`: a verdict on what is odd about a trace.

use std::path::PathBuf;

use super::{CliError, Reading, print};
use crate::trace::{Clock, check};

/// Say what is odd about a trace, with counts, and whether it is fit to be replayed
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Arguments {
    /// The trace
    #[arg(required = true)]
    files: Vec<PathBuf>,
    #[command(flatten)]
    reading: Reading,
    /// Print as JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn run(arguments: &Arguments) -> Result<(), CliError> {
    let trace = arguments.reading.read(&arguments.files, Clock::Absolute)?;
    let oddities = check::oddities(&trace);
    if arguments.json {
        let text =
            serde_json::to_string_pretty(&oddities).map_err(|error| CliError::Write(error.to_string()))?;
        return print(&(text + "\n"));
    }
    print(&check::text(&trace, &oddities))
}
