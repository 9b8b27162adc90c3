//! `tailcast schema`: the JSON Schemas of what is read and written.

use std::process::ExitCode;

use super::{CliError, print};
use crate::report::json;
use crate::scenario::file::ScenarioFile;

/// Print the JSON Schema of a scenario file, for editors, or of summary.json, for programs
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// What the schema is of
    #[arg(value_enum, default_value = "scenario")]
    of: Of,
}

/// What has a schema.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Of {
    /// A scenario file
    Scenario,
    /// summary.json of a result
    Summary,
}

pub(super) fn run(arguments: &Arguments) -> Result<ExitCode, CliError> {
    let text = match arguments.of {
        Of::Scenario => {
            serde_json::to_string_pretty(&schemars::schema_for!(ScenarioFile)).map(|text| text + "\n")
        }
        Of::Summary => json::schema(),
    };
    print(&text.map_err(|error| CliError::Write(error.to_string()))?)?;
    Ok(ExitCode::SUCCESS)
}
