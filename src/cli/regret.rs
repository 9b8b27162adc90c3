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
    /// Print JSON instead of a table
    #[arg(long)]
    json: bool,
}

pub(super) fn run(arguments: &Arguments) -> Result<ExitCode, CliError> {
    let options = &arguments.options;
    let loaded = Loaded::read(&options.scenario, &options.assignments()).map_err(CliError::input)?;
    let (contenders, _) = compare::contenders(&loaded, &arguments.policies)?;
    check_that_keys_are_read(&loaded, &contenders)?;
    let bar = progress(contenders.len() as u64, options.quiet);
    let judged = options.threads.run(|| regrets(&contenders, &|| bar.inc(1)))?.map_err(CliError::input)?;
    bar.finish_and_clear();
    if arguments.json {
        let json =
            serde_json::to_string_pretty(&judged).map_err(|error| CliError::Write(error.to_string()))?;
        print(&format!("{json}\n"))?;
    } else {
        print(&regret::text(&judged))?;
    }
    Ok(ExitCode::SUCCESS)
}
