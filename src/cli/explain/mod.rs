//! `tailcast explain`: where a figure comes from, above all why the slow requests were slow.

use std::path::PathBuf;
use std::process::ExitCode;

use super::reopened::{Reopened, reopen};
use super::{CliError, Threads, print, results, say};
use crate::explain::explain;
use crate::report::explanation;

mod memory;

/// Say why the slow requests of a result were slow: what their time went to, and what another replica would have done
#[derive(Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub(super) struct Arguments {
    #[command(subcommand)]
    what: Option<What>,
    /// The folder of a result, as `run --out` and `compare` write it
    #[arg(required = true)]
    result: Option<PathBuf>,
    /// Which policy or variant of it; the best unless given
    #[arg(long, value_name = "NAME")]
    policy: Option<String>,
    /// Also write the parts of every request that is counted and got a whole answer into this CSV file, in picoseconds
    #[arg(long, value_name = "FILE")]
    parts: Option<PathBuf>,
    /// Print JSON instead of text
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    threads: Threads,
}

/// Other figures that can be explained.
#[derive(Debug, clap::Subcommand)]
enum What {
    Memory(memory::Arguments),
}

pub(super) fn run(arguments: &Arguments) -> Result<ExitCode, CliError> {
    let result = match (&arguments.what, &arguments.result) {
        (Some(What::Memory(arguments)), _) => return memory::run(arguments),
        (None, Some(result)) => result,
        (None, None) => return Err(CliError::Input("name the folder of a result".into())),
    };
    if let Some(file) = &arguments.parts {
        results::check_not_own(file)?;
    }
    let Reopened { name, scenario, jobs, recorded } = reopen(result, arguments.policy.as_deref())?;
    let explanation = arguments.threads.run(|| explain(&scenario, &jobs))?.map_err(CliError::input)?;
    recorded.check(&explanation.summary, result)?;
    if let Some(file) = &arguments.parts {
        let csv = explanation::csv(&explanation).map_err(|error| CliError::Write(error.to_string()))?;
        results::put(file, &csv)?;
        say(&format!("the parts of {} requests are in {}", explanation.requests.len(), file.display()));
    }
    print(&match arguments.json {
        true => explanation::json(&name, &explanation).map_err(|error| CliError::Write(error.to_string()))?,
        false => explanation::text(&name, &scenario, &explanation),
    })?;
    Ok(ExitCode::SUCCESS)
}
