//! The command line: one subcommand, one file.
//!
//! stdout is the result, stderr is talk. Exit codes: 0 done; 1 a check found differences; 2 the input or the
//! command line is wrong; 3 results could not be written.

use std::fmt;
use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

use crate::router::policies;
use crate::scenario::Loaded;
use crate::scenario::file::PredictorFile;
use crate::study::compare::{Comparison, Contender, Repetitions};
use crate::study::{self, Keep, StudyError, Traces};

mod calibrate;
mod capacity;
mod compare;
mod explain;
mod export;
mod init;
mod list;
mod pace;
mod regret;
mod reopened;
mod report;
mod results;
mod run;
mod schema;
mod sweep;
mod trace;
mod verify;

use pace::Pace;

/// Forecasts the tail latency of a fleet of vLLM replicas before anyone rents a GPU.
#[derive(Debug, Parser)]
#[command(version, about, after_help = EXAMPLES)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

const EXAMPLES: &str = "Examples:
  tailcast compare scenarios/quickstart.toml
  tailcast compare scenarios/quickstart.toml --policies round-robin,least-request --set repeat=3
  tailcast run scenarios/quickstart.toml --set workload.rate_scale=1.2 --out output/faster
  tailcast trace info traces/mooncake-sample.jsonl
  tailcast init --vllm 'vllm serve meta-llama/Llama-3.1-8B-Instruct --max-num-seqs 256' --gpu h100-sxm --count 8

Exit codes: 0 done; 1 a check found differences; 2 the input or the command line is wrong;
3 results could not be written.";

#[derive(Debug, Subcommand)]
enum Command {
    Compare(compare::Arguments),
    Capacity(capacity::Arguments),
    Sweep(sweep::Arguments),
    Merge(sweep::MergeArguments),
    Regret(regret::Arguments),
    Run(run::Arguments),
    Calibrate(calibrate::Arguments),
    Init(init::Arguments),
    #[command(subcommand)]
    Trace(trace::Trace),
    #[command(subcommand)]
    Verify(verify::Verify),
    Explain(explain::Arguments),
    Report(report::Arguments),
    #[command(subcommand)]
    Export(export::Export),
    #[command(subcommand)]
    List(list::List),
    Schema(schema::Arguments),
}

/// What all that run a scenario have in common.
#[derive(Debug, Args)]
struct RunOptions {
    /// Scenario file (TOML)
    scenario: std::path::PathBuf,
    /// Change a key: key=value, such as workload.rate_scale=2; may be given several times
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// Another seed than the scenario's, at most 2^63 - 1
    #[arg(long, value_parser = clap::value_parser!(u64).range(..=i64::MAX as u64))]
    seed: Option<u64>,
    #[command(flatten)]
    threads: Threads,
    /// Nothing on stderr but errors
    #[arg(long)]
    quiet: bool,
}

/// What `run` and `compare` also take: how a comparison is watched, doubted and shown.
#[derive(Debug, Args)]
struct CompareOptions {
    /// Print the summary as JSON instead of tables
    #[arg(long)]
    json: bool,
    /// Draw so many models from the replicas' calibration, and give every percentile the interval they span
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(2..=10_000))]
    uncertainty: Option<u32>,
    /// Also say whether the winner stays if every step is so many percent longer or shorter, such as 5,10,20
    #[arg(long, value_name = "PERCENT,...", value_delimiter = ',', value_parser = clap::value_parser!(u32).range(1..=90))]
    step_time_error: Vec<u32>,
    /// Watch the laws of the simulation while it runs; slow
    #[arg(long)]
    check: bool,
}

/// How many threads.
#[derive(Clone, Copy, Debug, Args)]
struct Threads {
    /// Threads to run on, up to 256; all cores unless given. Results are the same for any number
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=256))]
    threads: Option<u16>,
}

impl Threads {
    /// Runs `work` on the threads asked for.
    fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T, CliError> {
        let threads = self.threads.map_or(0, usize::from);
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build();
        Ok(pool
            .map_err(|error| CliError::Write(format!("threads could not be started: {error}")))?
            .install(work))
    }
}

impl RunOptions {
    fn assignments(&self) -> Vec<String> {
        let seed = self.seed.map(|seed| format!("seed={seed}"));
        self.set.iter().cloned().chain(seed).collect()
    }

    /// The scenario, with no fewer repetitions than this.
    fn read_with_repetitions(&self, fewest: u32) -> Result<Loaded, CliError> {
        let mut assignments = self.assignments();
        let loaded = Loaded::read(&self.scenario, &assignments).map_err(CliError::input)?;
        if loaded.file.repeat >= fewest {
            return Ok(loaded);
        }
        if loaded.file.workload.trace.is_some() && loaded.file.resample.is_none() {
            return Err(CliError::Input(format!(
                "this needs at least {fewest} repetitions, and between those of a replayed trace something has to vary\nhelp: add --set \
                 resample=time-blocks (or sessions, or jitter)"
            )));
        }
        if loaded.file.repeat > 1 && !self.quiet {
            say(&format!(
                "{fewest} repetitions instead of {}: fewer say too little of chance",
                loaded.file.repeat
            ));
        }
        assignments.push(format!("repeat={fewest}"));
        Loaded::read(&self.scenario, &assignments).map_err(CliError::input)
    }
}

impl CompareOptions {
    /// How many models are drawn; 0 unless asked for.
    fn draws(&self, contenders: &[Contender]) -> Result<u32, CliError> {
        let any = contenders.iter().any(|contender| study::uncertainty::has_any(&contender.scenario));
        match self.uncertainty {
            Some(_) if !any => Err(CliError::Input(
                "--uncertainty: no replica rests on a calibration, so nothing is known of its uncertainty\nhelp: make one \
                 with `tailcast calibrate`, and name it with step_time = { calibration = \"FILE\" }"
                    .into(),
            )),
            draws => Ok(draws.unwrap_or(0)),
        }
    }

    /// Compares, and draws models if that was asked for.
    fn compare(
        &self,
        options: &RunOptions,
        contenders: &[Contender],
        repetitions: Repetitions,
        keep: Keep,
        ran: &(dyn Fn() + Sync),
    ) -> Result<Comparison, CliError> {
        let draws = self.draws(contenders)?;
        let work = || {
            let mut traces = Traces::default();
            let mut comparison = study::compare(contenders, &mut traces, repetitions, self.check, keep, ran)?;
            if draws > 0 {
                comparison.uncertainty =
                    Some(study::uncertainty::uncertainty(contenders, &mut traces, draws, ran)?);
            }
            if !self.step_time_error.is_empty() {
                let winner = comparison.ranking[0].name.clone();
                let percents = &self.step_time_error;
                comparison.stability =
                    Some(study::stability::stability(contenders, &mut traces, &winner, percents, ran)?);
            }
            Ok::<Comparison, StudyError>(comparison)
        };
        options.threads.run(work)?.map_err(CliError::input)
    }
}

/// Refuses keys that neither these contenders nor any policy of the file would read: an accepted key changes
/// something (law 11).
fn check_that_keys_are_read(loaded: &Loaded, contenders: &[Contender]) -> Result<(), CliError> {
    let compared = contenders.iter().map(|contender| contender.scenario.router.policy.as_str());
    let named = loaded.policies_named();
    let all: Vec<_> = compared.chain(named).filter_map(|name| policies::find(name).ok()).collect();
    let policies = || all.iter();
    let view = &loaded.file.router.view;
    let of_gauges = view.fresh.is_some()
        || view.poll_interval_ms.is_some()
        || view.scrape_ms.is_some()
        || view.poll_loss.is_some()
        || view.staleness_limit_ms.is_some();
    let unused = |what: &str, example: &str| {
        let help = format!("leave it out, or add one that does, such as {example}");
        Err(CliError::Input(format!("router.view: no policy here reads {what}\nhelp: {help}")))
    };
    let detects = contenders.iter().any(|contender| contender.scenario.admission.saturation.is_some());
    if of_gauges && !detects && policies().all(|policy| policy.default_freshness.is_none()) {
        return unused("gauges", "least-kv");
    }
    let of_events = view.kv_event_delay_ms.is_some()
        || view.kv_event_loss.is_some()
        || view.kv_event_replay_ms.is_some()
        || view.kv_index_blocks.is_some()
        || view.kv_index_replicas_per_block.is_some()
        || view.kv_index_ttl_s.is_some();
    // Of policies that the file names and nobody compares now, parameters are not known.
    let might = |name: &str| {
        let policy = policies::find(name).ok();
        policy.is_some_and(|policy| policy.reads.contains("KV events") || name.starts_with("epp-"))
    };
    let is_compared = |name: &str| contenders.iter().any(|other| other.scenario.router.policy == name);
    let read = contenders.iter().any(|contender| contender.scenario.router.reads_kv_events)
        || loaded.policies_named().any(|name| !is_compared(name) && might(name));
    if of_events && !read {
        return unused("KV events", "epp-precise");
    }
    let workload = &loaded.file.workload;
    let own = workload.classes.iter().flatten().filter_map(|class| class.prediction.as_ref());
    let predicts = std::iter::once(&workload.prediction)
        .chain(own)
        .any(|prediction| prediction.output_tokens != PredictorFile::None);
    if predicts && policies().all(|policy| !policy.reads.contains("predicted output length")) {
        return Err(CliError::Input(
            "workload.prediction: no policy here reads predicted lengths\nhelp: leave it out, or add predicted-completion"
                .into(),
        ));
    }
    Ok(())
}

/// Why a command ends without its result.
#[derive(Debug)]
enum CliError {
    /// The input or the command line is wrong.
    Input(String),
    /// Results could not be written.
    Write(String),
}

impl fmt::Display for CliError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CliError::Input(message) | CliError::Write(message) => f.write_str(message),
        }
    }
}

impl CliError {
    fn input(error: impl fmt::Display) -> CliError {
        CliError::Input(error.to_string())
    }
}

/// Prints a result. A reader that has gone away is no error: it has seen what it wanted.
fn print(text: &str) -> Result<(), CliError> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(CliError::Write(format!("stdout: {error}")))
        }
        _ => Ok(()),
    }
}

/// Says something that is not the result.
fn say(text: &str) {
    // Nobody is left to tell if stderr is gone.
    let _ = writeln!(io::stderr().lock(), "{text}");
}

/// A progress bar over `length` runs on a terminal; hidden elsewhere.
fn progress(length: u64, quiet: bool) -> indicatif::ProgressBar {
    if quiet || !io::stderr().is_terminal() {
        return indicatif::ProgressBar::hidden();
    }
    let style = indicatif::ProgressStyle::with_template("{bar:40} {pos}/{len} runs, {elapsed} so far");
    indicatif::ProgressBar::new(length)
        .with_style(style.unwrap_or_else(|_| indicatif::ProgressStyle::default_bar()))
}

/// Parses the command line and runs it.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    let result = match cli.command {
        Command::Compare(arguments) => compare::run(&arguments),
        Command::Capacity(arguments) => capacity::run(&arguments),
        Command::Sweep(arguments) => sweep::run(&arguments),
        Command::Merge(arguments) => sweep::merge(&arguments),
        Command::Regret(arguments) => regret::run(&arguments),
        Command::Run(arguments) => run::run(&arguments),
        Command::Calibrate(arguments) => calibrate::run(&arguments),
        Command::Init(arguments) => init::run(&arguments),
        Command::Trace(command) => trace::run(&command),
        Command::Verify(command) => verify::run(&command),
        Command::Explain(arguments) => explain::run(&arguments),
        Command::Report(arguments) => report::run(&arguments),
        Command::Export(command) => export::run(&command),
        Command::List(command) => list::run(&command),
        Command::Schema(arguments) => schema::run(&arguments),
    };
    match result {
        Ok(code) => code,
        Err(error) => {
            say(&format!("error: {error}"));
            match error {
                CliError::Input(_) => ExitCode::from(2),
                CliError::Write(_) => ExitCode::from(3),
            }
        }
    }
}
