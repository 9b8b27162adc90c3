//! `tailcast init`: a scenario from the command line that a fleet is run with.

use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;

use super::{CliError, print, say};
use crate::scenario::Loaded;
use crate::scenario::vllm_command::{self, Fate, VllmCommand};

/// Make a scenario from the `vllm serve ...` command a fleet is run with
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// The command, in quotes
    #[arg(long, value_name = "'vllm serve ...'")]
    vllm: String,
    /// The card it runs on (`tailcast list gpus`)
    #[arg(long)]
    gpu: String,
    /// How many replicas
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    count: u32,
    /// Where the scenario is written; stdout unless given. An existing file is not overwritten
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

pub(super) fn run(arguments: &Arguments) -> Result<ExitCode, CliError> {
    let command =
        vllm_command::parse(&arguments.vllm).map_err(|error| CliError::Input(format!("--vllm: {error}")))?;
    for flag in &command.flags {
        match &flag.fate {
            Fate::Mapped { key, .. } => say(&format!("mapped      {}  ->  {key}", flag.text)),
            Fate::Irrelevant { reason } => say(&format!("irrelevant  {}  ({reason})", flag.text)),
            Fate::Refused { reason } => say(&format!("refused     {}  ({reason})", flag.text)),
        }
    }
    let refused = command.refused().count();
    if refused > 0 {
        return Err(CliError::Input(format!(
            "{refused} of these flags change how long steps take or what is scheduled, and are not modelled\n\
             help: leave them out to see the fleet without them"
        )));
    }
    let text = scenario(arguments, &command);
    // What is written must run: the scenario is read back before anybody sees it.
    let name = "the scenario made from --vllm";
    Loaded::from_text(name, "".as_ref(), text.clone(), &[])
        .and_then(|loaded| loaded.resolve())
        .map_err(CliError::input)?;
    match &arguments.out {
        None => print(&text)?,
        Some(out) => {
            let file = fs::File::create_new(out)
                .map_err(|error| CliError::Write(format!("{}: {error}", out.display())))?;
            std::io::Write::write_all(&mut &file, text.as_bytes())
                .map_err(|error| CliError::Write(format!("{}: {error}", out.display())))?;
            say(&format!("written to {}; its workload is an example to be replaced", out.display()));
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn scenario(arguments: &Arguments, command: &VllmCommand) -> String {
    let quoted = |text: &str| toml::Value::String(text.into()).to_string();
    let mut replicas =
        format!("[[replicas]]\ncount = {}\ngpu = {}\n", arguments.count, quoted(&arguments.gpu));
    for (key, value) in command.mapped() {
        replicas.push_str(&format!("{key} = {value}\n"));
    }
    let model = command.model().unwrap_or_default();
    format!(
        "# {count} replicas of {model} on {gpu}. The workload is an example: put your own trace or rates in its place.\n\
         title = {title}\n\
         seed = 1\n\
         repeat = 5\n\
         \n\
         # Or: trace = \"requests.csv\" (see `tailcast list formats`), with resample = \"time-blocks\" above.\n\
         [workload]\n\
         requests = {requests}\n\
         arrivals = {{ rate_per_s = {rate} }}\n\
         prompt_tokens = {{ distribution = \"lognormal\", mean = 800, std = 600, max = 4000 }}\n\
         output_tokens = {{ distribution = \"lognormal\", mean = 200, std = 200, max = 1000 }}\n\
         \n\
         {replicas}\n\
         [router]\n\
         policy = \"least-request\"\n\
         \n\
         [slo.goodput]\n\
         ttft_ms = 500\n\
         tpot_ms = 50\n",
        count = arguments.count,
        gpu = arguments.gpu,
        title = quoted(&format!("{model} on {} x {}", arguments.count, arguments.gpu)),
        requests = 1_000u64.saturating_mul(u64::from(arguments.count)).min(20_000),
        rate = 4 * u64::from(arguments.count),
    )
}
