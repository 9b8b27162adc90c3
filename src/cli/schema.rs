//! `tailcast schema`: the JSON Schema of a scenario file, for editors.

use std::process::ExitCode;

use super::{CliError, print};
use crate::scenario::file::ScenarioFile;

/// Print the JSON Schema of a scenario file, for editors
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {}

pub(super) fn run(_arguments: &Arguments) -> Result<ExitCode, CliError> {
    let schema = schemars::schema_for!(ScenarioFile);
    let text = serde_json::to_string_pretty(&schema).map_err(|error| CliError::Write(error.to_string()))?;
    print(&(text + "\n"))?;
    Ok(ExitCode::SUCCESS)
}
