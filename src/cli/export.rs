//! `tailcast export`: a result in the formats of other tools.

use std::collections::BTreeMap;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use super::reopened::{Reopened, reopen};
use super::results::{cannot, check_not_own, put};
use super::{CliError, Threads, print, say};
use crate::explain::replay;
use crate::fleet::{Delivery, End};
use crate::replica::{EngineEvent, Input};
use crate::report::parquet;
use crate::report::perfetto::{self, Steps};
use crate::report::prometheus::{self, Meter, Scraped};
use crate::study::run::{Keep, RunResult, run as run_once};
use crate::time::{Span, Time};

/// Give a result to other tools
#[derive(Debug, clap::Subcommand)]
pub(super) enum Export {
    Perfetto(PerfettoArguments),
    Prometheus(PrometheusArguments),
    Parquet(ParquetArguments),
}

/// Every step of every replica and every request, for ui.perfetto.dev or chrome://tracing
#[derive(Debug, clap::Args)]
pub(super) struct PerfettoArguments {
    /// The folder of a result
    result: PathBuf,
    /// Which policy or variant of it; the best unless given
    #[arg(long, value_name = "NAME")]
    policy: Option<String>,
    /// Steps that begin from this second on
    #[arg(long, value_name = "SECOND", default_value_t = 0.0)]
    from_s: f64,
    /// Steps that begin before this second; to the end unless given
    #[arg(long, value_name = "SECOND")]
    to_s: Option<f64>,
    /// The file; packed if it ends in .gz
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    #[command(flatten)]
    threads: Threads,
}

/// What the replicas' /metrics pages would show, by vLLM's own names
#[derive(Debug, clap::Args)]
pub(super) struct PrometheusArguments {
    /// The folder of a result
    result: PathBuf,
    /// Which policy or variant of it; the best unless given
    #[arg(long, value_name = "NAME")]
    policy: Option<String>,
    /// The moment, seconds after the start; the end of the run unless given
    #[arg(long, value_name = "SECOND")]
    at_s: Option<f64>,
    #[command(flatten)]
    threads: Threads,
}

/// The CSV tables of a result or a sweep as Parquet files, beside them
#[derive(Debug, clap::Args)]
pub(super) struct ParquetArguments {
    /// The folder of a result or a sweep
    folder: PathBuf,
}

pub(super) fn run(export: &Export) -> Result<ExitCode, CliError> {
    match export {
        Export::Perfetto(arguments) => to_perfetto(arguments),
        Export::Prometheus(arguments) => to_prometheus(arguments),
        Export::Parquet(arguments) => to_parquet(arguments),
    }?;
    Ok(ExitCode::SUCCESS)
}

/// The run of the result again, with what each replica was given.
fn again(reopened: &Reopened, result: &Path, threads: Threads) -> Result<RunResult, CliError> {
    let run = || run_once(&reopened.scenario, &reopened.jobs, 0, false, Keep::Deliveries);
    let again = threads.run(run)?.map_err(CliError::input)?;
    reopened.recorded.check(&again.summary, result)?;
    Ok(again)
}

fn second(option: &str, seconds: f64) -> Result<Time, CliError> {
    match (0.0..=1e6).contains(&seconds) {
        true => Ok(Time::ZERO + Span::from_s_f64(seconds)),
        false => Err(CliError::Input(format!("{option}: expected seconds from 0 to 1000000, got {seconds}"))),
    }
}

/// Steps that a viewer can still show.
const MOST_STEPS: usize = 3_000_000;

fn to_perfetto(arguments: &PerfettoArguments) -> Result<(), CliError> {
    check_not_own(&arguments.out)?;
    let from = second("--from-s", arguments.from_s)?;
    let to = arguments.to_s.map_or(Ok(Time::MAX), |seconds| second("--to-s", seconds))?;
    if to <= from {
        return Err(CliError::Input("--to-s: expected a second behind --from-s".into()));
    }
    let reopened = reopen(&arguments.result, arguments.policy.as_deref())?;
    let again = again(&reopened, &arguments.result, arguments.threads)?;
    let scenario = &reopened.scenario;
    let until = match scenario.end {
        End::Drain => to,
        End::At(end) => end.min(to),
    };
    let lives =
        arguments.threads.run(|| replay(scenario, &again.deliveries, until, || Steps::between(from, to)))?;
    let names = scenario.each_replica().map(|kind| kind.name.clone());
    let replicas: Vec<(String, Steps)> = names.zip(lives.into_iter().map(|(_, steps)| steps)).collect();
    let steps: usize = replicas.iter().map(|(_, steps)| steps.count()).sum();
    if steps > MOST_STEPS {
        return Err(CliError::Input(format!(
            "{steps} steps are more than the {MOST_STEPS} that a viewer can show\nhelp: name a stretch with --from-s and --to-s"
        )));
    }
    let mut bytes = Vec::new();
    let packed = arguments.out.extension().is_some_and(|extension| extension == "gz");
    let written = if packed {
        let mut packer =
            flate2::write::GzEncoder::new(BufWriter::new(&mut bytes), flate2::Compression::default());
        perfetto::write(&mut packer, &replicas, &again.outcomes)
            .and_then(|()| packer.finish())
            .and_then(|mut buffer| buffer.flush())
    } else {
        perfetto::write(&mut bytes, &replicas, &again.outcomes)
    };
    written.map_err(|error| cannot(&arguments.out, &error))?;
    put(&arguments.out, &bytes)?;
    say(&format!("{}: {steps} steps are in {}", reopened.name, arguments.out.display()));
    Ok(())
}

fn to_prometheus(arguments: &PrometheusArguments) -> Result<(), CliError> {
    let asked = arguments.at_s.map(|seconds| second("--at-s", seconds)).transpose()?;
    let reopened = reopen(&arguments.result, arguments.policy.as_deref())?;
    let again = again(&reopened, &arguments.result, arguments.threads)?;
    let scenario = &reopened.scenario;
    let last = again.outcomes.iter().map(|outcome| outcome.done_received).max().unwrap_or_default();
    let at = match (asked, scenario.end) {
        (Some(at), _) => at,
        (None, End::At(end)) => end,
        (None, End::Drain) => last,
    };
    let lives = arguments.threads.run(|| replay(scenario, &again.deliveries, at, Meter::default))?;
    let scraped = scenario.each_replica().zip(lives).zip(&again.deliveries);
    let scraped = scraped.map(|((kind, (mut replica, meter)), given)| Scraped {
        model: kind.placement.model.name.clone(),
        max_model_len: kind.facts.engine.max_model_len,
        signals: replica.signals(),
        meter,
        prompt_tokens: prompt_tokens(given, replica.take_events()),
    });
    print(&prometheus::page(&scraped.collect::<Vec<Scraped>>(), &again.outcomes, at))
}

/// Prompt tokens of tries that have given a first token: vLLM counts them then.
fn prompt_tokens(given: &[Delivery], events: impl Iterator<Item = EngineEvent>) -> u64 {
    let prompts = given.iter().filter_map(|delivery| match &delivery.input {
        Input::Add(request) => Some(((request.id, request.attempt), u64::from(request.prompt_tokens))),
        _ => None,
    });
    let prompts: BTreeMap<_, u64> = prompts.collect();
    let begun = events.filter_map(|event| match event {
        EngineEvent::FirstToken { id, attempt, .. } => prompts.get(&(id, attempt)),
        EngineEvent::Ended(_) => None,
    });
    begun.sum()
}

/// The tables that results and sweeps hold.
const TABLES: [&str; 4] = ["requests", "windows", "timeline", "sweep"];

fn to_parquet(arguments: &ParquetArguments) -> Result<(), CliError> {
    let folder = &arguments.folder;
    let mut written = Vec::new();
    for table in TABLES {
        let file = folder.join(format!("{table}.csv"));
        if !file.is_file() {
            continue;
        }
        let wrong = |error: &dyn std::fmt::Display| CliError::Input(format!("{}: {error}", file.display()));
        let bytes = std::fs::read(&file).map_err(|error| wrong(&error))?;
        let out = folder.join(format!("{table}.parquet"));
        put(&out, &parquet::of_csv(&bytes).map_err(|error| wrong(&error))?)?;
        written.push(out.display().to_string());
    }
    if written.is_empty() {
        return Err(CliError::Input(format!(
            "{} holds none of the tables of a result or a sweep\nhelp: name a folder that `tailcast compare` or `tailcast sweep` has \
             written",
            folder.display()
        )));
    }
    print(&(written.join("\n") + "\n"))
}
