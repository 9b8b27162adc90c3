//! `tailcast trace generate`: the workload of a scenario as a trace.

use std::path::PathBuf;

use super::{CliError, Writing, check_not_input, say};
use crate::scenario::Loaded;
use crate::study::Traces;
use crate::study::run::jobs;
use crate::workload::trace_of;

/// Write the requests of a scenario's workload as a trace
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Arguments {
    /// Scenario file (TOML)
    scenario: PathBuf,
    /// Change a key: key=value; may be given several times
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// Which of its repetitions, from 0
    #[arg(long, default_value_t = 0)]
    repetition: u32,
    #[command(flatten)]
    writing: Writing,
}

pub(super) fn run(arguments: &Arguments) -> Result<(), CliError> {
    arguments.writing.target()?;
    check_not_input("--out", &arguments.writing.out, [&arguments.scenario])?;
    let loaded = Loaded::read(&arguments.scenario, &arguments.set).map_err(CliError::input)?;
    let scenario = loaded.resolve().map_err(CliError::input)?;
    let mut traces = Traces::default();
    let trace = traces.of(&scenario.workload).map_err(CliError::input)?;
    for note in traces.notes() {
        say(&note);
    }
    let jobs = jobs(&scenario, trace.as_deref(), arguments.repetition).map_err(CliError::input)?;
    if !scenario.classes.is_empty() {
        say("classes are left out: no format holds them (priorities stay)");
    }
    arguments.writing.write(&trace_of(&jobs))
}
