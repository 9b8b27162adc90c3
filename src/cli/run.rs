//! `tailcast run`: one scenario under its own policy.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use super::{
    CliError, CompareOptions, Pace, RunOptions, check_that_keys_are_read, print, progress, results, say,
};
use crate::report::{json, text};
use crate::scenario::Loaded;
use crate::study::Keep;
use crate::study::compare::{Contender, Repetitions};

/// Run one scenario under its own policy
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    options: RunOptions,
    #[command(flatten)]
    compare: CompareOptions,
    /// Where results are written; nowhere unless given
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
}

pub(super) fn run(arguments: &Arguments) -> Result<ExitCode, CliError> {
    let options = &arguments.options;
    let loaded = Loaded::read(&options.scenario, &options.assignments()).map_err(CliError::input)?;
    let scenario = loaded.resolve().map_err(CliError::input)?;
    if let Some(out) = &arguments.out {
        results::check_replaceable(out)?;
    }
    let keep = if arguments.out.is_some() { Keep::Outcomes } else { Keep::Nothing };
    let bar =
        progress(u64::from(scenario.repeat + arguments.compare.uncertainty.unwrap_or(0)), options.quiet);
    let contenders = [Contender { name: scenario.router.policy.clone(), scenario }];
    check_that_keys_are_read(&loaded, &contenders)?;
    let pace = Pace::begin();
    let comparison =
        arguments.compare.compare(options, &contenders, Repetitions::Fixed, keep, &|| bar.inc(1))?;
    bar.finish_and_clear();
    if let Some(out) = &arguments.out {
        let resolved = |folder: &Path| loaded.resolved_text(&[], folder);
        options.threads.run(|| results::write(out, &comparison, &resolved))??;
    }
    let shown = if arguments.compare.json {
        json::summary(&comparison).map_err(|error| CliError::Write(error.to_string()))?
    } else {
        text::single(&comparison)
    };
    print(&shown)?;
    if !options.quiet {
        say(&pace.told(&comparison));
    }
    if let Some(out) = arguments.out.as_ref().filter(|_| !options.quiet) {
        say(&format!("results and plots are in {}", out.display()));
    }
    Ok(ExitCode::SUCCESS)
}
