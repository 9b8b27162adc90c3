//! `tailcast regret`: each decision of a policy against the best one that the truth knew of.

use std::process::ExitCode;

use super::{CliError, RunOptions, check_that_keys_are_read, compare, print, progress};
use crate::report::regret;
use crate::scenario::Loaded;
use crate::study::regret::regrets;

/// What each decision cost against the best one, and a bound that no policy can beat
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    options: RunOptions,
    /// Policies to judge, separated by commas, or `all`; the scenario's `policies` and `[[variants]]` unless given
    #[arg(long, value_delimiter = ',', value_name = "NAME,...")]
    policies: Vec<String>,
}

pub(super) fn run(arguments: &Arguments) -> Result<ExitCode, CliError> {
    let options = &arguments.options;
    if options.check || options.uncertainty.is_some() || !options.step_time_error.is_empty() {
        let message = "--check, --uncertainty and --step-time-error belong to `run` and `compare`\nhelp: leave them out";
        return Err(CliError::Input(message.into()));
    }
    let loaded = Loaded::read(&options.scenario, &options.assignments()).map_err(CliError::input)?;
    let (contenders, _) = compare::contenders(&loaded, &arguments.policies)?;
    check_that_keys_are_read(&loaded, &contenders)?;
    let bar = progress(contenders.len() as u64, options.quiet);
    let judged = options.on_threads(|| regrets(&contenders, &|| bar.inc(1)))?.map_err(CliError::input)?;
    bar.finish_and_clear();
    if options.json {
        let json =
            serde_json::to_string_pretty(&judged).map_err(|error| CliError::Write(error.to_string()))?;
        print(&format!("{json}\n"))?;
    } else {
        print(&regret::text(&judged))?;
    }
    Ok(ExitCode::SUCCESS)
}
