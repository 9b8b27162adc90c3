//! `tailcast verify latency`: whole servers against what their requests really waited.

use std::path::PathBuf;
use std::process::ExitCode;

use super::super::{CliError, print};
use super::{fleet, percent};
use crate::report::table::Table;
use crate::time::{Span, Time};
use crate::verify::latency::{self, Figure, Verdict, Way};
use crate::verify::measured::MeasuredRun;
use crate::verify::server::{Given, Server};

/// Replay measured runs and compare what their requests waited
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Arguments {
    /// Measured runs: NAME.requests.jsonl.gz, with NAME.meta.json beside it
    #[arg(required_unless_present = "scenario", value_name = "RUN")]
    runs: Vec<PathBuf>,
    /// A fleet instead: held against what --measured shows of it
    #[arg(long, value_name = "FLEET", requires = "measured", conflicts_with_all = ["runs", "profile", "calibration",
        "catalogue", "gpu", "model", "num_gpu_blocks", "front_end_ms", "network_ms", "token_us", "requests"])]
    scenario: Option<PathBuf>,
    /// A gateway's rows (.csv: sent_s, prompt_tokens, output_tokens, ttft_ms, e2e_ms, and replica), which the fleet
    /// serves; or saved /metrics pages of its servers, against the scenario's own workload
    #[arg(long, value_name = "FILE", requires = "scenario")]
    measured: Vec<PathBuf>,
    /// Change a key of the fleet, such as --set router.policy=round-robin
    #[arg(long = "set", value_name = "KEY=VALUE", requires = "scenario")]
    set: Vec<String>,
    /// Step times from a layer profile: a folder with tp1-dense.csv and its like
    #[arg(long, value_name = "FOLDER", conflicts_with = "catalogue")]
    profile: Option<PathBuf>,
    /// Step times from the catalogue's figures times the factors in a file that `tailcast calibrate` wrote
    #[arg(long, value_name = "FILE", conflicts_with_all = ["catalogue", "profile"])]
    calibration: Option<PathBuf>,
    /// Step times from the catalogue's figures of card and model (the default)
    #[arg(long)]
    catalogue: bool,
    /// The card, where the meta file does not name it
    #[arg(long, value_name = "NAME")]
    gpu: Option<String>,
    /// The model, where the meta file does not name it or names one that the catalogue lacks: a name, or a config.json
    #[arg(long, value_name = "NAME")]
    model: Option<String>,
    /// Blocks of the KV cache, where the meta file does not tell
    #[arg(long, value_name = "N")]
    num_gpu_blocks: Option<u32>,
    /// Time in the API server before the engine, where only a client recorded [default: 6]
    #[arg(long, value_name = "MS", value_parser = milliseconds)]
    front_end_ms: Option<f64>,
    /// Time on the network, there and back, where only a client recorded [default: 0]
    #[arg(long, value_name = "MS", value_parser = milliseconds)]
    network_ms: Option<f64>,
    /// Time in the API server for each token on the way back, where only a client recorded [default: 46]
    #[arg(long, value_name = "US", value_parser = milliseconds)]
    token_us: Option<f64>,
    /// Exit with 1 if any figure is further off, such as 1%
    #[arg(long, value_name = "PERCENT", value_parser = percent)]
    max_error: Option<f64>,
    /// Write the moments of every request, measured and replayed, into this CSV file
    #[arg(long, value_name = "FILE")]
    requests: Option<PathBuf>,
}

pub(super) fn run(arguments: &Arguments) -> Result<ExitCode, CliError> {
    if let Some(scenario) = &arguments.scenario {
        return fleet::run(scenario, &arguments.set, &arguments.measured, arguments.max_error);
    }
    let given = Given {
        profile: arguments.profile.clone(),
        calibration: arguments.calibration.clone(),
        gpu: arguments.gpu.clone(),
        model: arguments.model.clone(),
        num_gpu_blocks: arguments.num_gpu_blocks,
    };
    let way = Way {
        front_end: arguments.front_end_ms.map_or(Way::LOCAL.front_end, |ms| Span::from_us_f64(1e3 * ms)),
        network: arguments.network_ms.map_or(Way::LOCAL.network, |ms| Span::from_us_f64(1e3 * ms)),
        per_token: arguments.token_us.map_or(Way::LOCAL.per_token, Span::from_us_f64),
    };
    let mut worst: Option<(String, Figure)> = None;
    let mut rows = MOMENTS.to_string();
    for path in &arguments.runs {
        let input = |error: &dyn std::fmt::Display| CliError::Input(error.to_string());
        let run = MeasuredRun::read(path).map_err(|error| input(&error))?;
        let server = Server::of(&run, &given).map_err(|error| input(&error))?;
        let verdict = latency::replay(&run, &server, way);
        print(&head(&run, &server))?;
        print(&assumed(arguments, &run, &server, way))?;
        rows.push_str(&moments(&run, &verdict));
        let mut table = Table::new(&["latency", "", "real ms", "simulated ms", "error"], 2);
        let mut last = "";
        for figure in verdict.figures() {
            let metric = if figure.metric == last { "" } else { figure.metric };
            last = figure.metric;
            table.row(vec![
                metric.into(),
                figure.statistic.into(),
                format!("{:.2}", figure.real_ms),
                format!("{:.2}", figure.simulated_ms),
                format!("{:+.2} %", 100.0 * figure.error()),
            ]);
            let further = |(_, worst): &(String, Figure)| figure.error().abs() > worst.error().abs();
            if worst.as_ref().is_none_or(further) {
                worst = Some((run.name.clone(), figure));
            }
        }
        print(&table.render())?;
        let counted =
            run.meta.num_preemptions.map_or(String::new(), |real| format!(", {real} in the real run"));
        print(&format!("preemptions: {} in the replay{counted}\n\n", verdict.preemptions))?;
    }
    if let Some(path) = &arguments.requests {
        std::fs::write(path, &rows)
            .map_err(|error| CliError::Input(format!("{}: {error}", path.display())))?;
    }
    let Some((name, figure)) = worst else { return Ok(ExitCode::SUCCESS) };
    print(&format!(
        "furthest off: {} {} of {name}, {:+.2} %\n",
        figure.metric,
        figure.statistic,
        100.0 * figure.error()
    ))?;
    let Some(limit) = arguments.max_error else { return Ok(ExitCode::SUCCESS) };
    Ok(if figure.error().abs() <= limit { ExitCode::SUCCESS } else { ExitCode::from(1) })
}

const MOMENTS: &str = "run,id,prompt_tokens,output_tokens,sent_s,real_queued_s,queued_s,real_scheduled_s,scheduled_s,\
    real_first_token_s,first_token_s,real_last_token_s,last_token_s,preemptions,rank\n";

/// A line for each request. Moments of the engine count from its first queued request, as they were recorded.
fn moments(run: &MeasuredRun, verdict: &Verdict) -> String {
    let start = verdict.outcomes.iter().map(|(_, outcome)| outcome.queued).min().unwrap_or_default();
    let mut rows = String::new();
    for (request, (rank, outcome)) in run.requests.iter().zip(&verdict.outcomes) {
        let real = |at: Option<f64>| at.map_or(String::new(), |s| format!("{s:.6}"));
        let simulated =
            |at: Option<Time>| at.map_or(String::new(), |at| format!("{:.6}", (at - start).as_s()));
        let cells = [
            run.name.clone(),
            request.id.to_string(),
            request.prompt_tokens.to_string(),
            request.output_tokens.to_string(),
            real(Some(request.sent_s())),
            real(request.queued_s),
            simulated(Some(outcome.queued)),
            real(request.scheduled_s),
            simulated(outcome.scheduled),
            real(Some(request.first_token_s)),
            simulated(outcome.first_token),
            real(Some(request.last_token_s)),
            simulated(Some(outcome.done)),
            outcome.preemptions.to_string(),
            rank.to_string(),
        ];
        rows.push_str(&cells.join(","));
        rows.push('\n');
    }
    rows
}

fn head(run: &MeasuredRun, server: &Server) -> String {
    let version = run.meta.vllm_version.as_deref().unwrap_or("of unknown version");
    let clock = if run.seen_by_engine() { "the engine's" } else { "the client's" };
    let mut text = format!(
        "{}: {} requests, {}, vLLM {version}, {clock} clock\n",
        run.name,
        run.requests.len(),
        server.name
    );
    for mark in &server.marks {
        text.push_str(&format!("  mark: {mark}\n"));
    }
    text
}

/// What nobody said, and what was taken instead.
fn assumed(arguments: &Arguments, run: &MeasuredRun, server: &Server, way: Way) -> String {
    let mut assumed = server.assumed.clone();
    if !run.seen_by_engine() {
        let mut add = |given: Option<f64>, text: String| assumed.extend(given.is_none().then_some(text));
        add(arguments.front_end_ms, format!("front end = {} ms", way.front_end.as_ms()));
        add(arguments.network_ms, format!("network = {} ms", way.network.as_ms()));
        add(arguments.token_us, format!("{} us for each token on the way back", 1e3 * way.per_token.as_ms()));
    }
    if assumed.is_empty() { String::new() } else { format!("  assumed: {}\n", assumed.join(", ")) }
}

/// A length of time on the command line.
fn milliseconds(text: &str) -> Result<f64, String> {
    let value: f64 = text.parse().map_err(|_| format!("expected a number, got {text:?}"))?;
    let sensible = value.is_finite() && (0.0..=1e6).contains(&value);
    sensible.then_some(value).ok_or_else(|| format!("expected 0 to 1,000,000, got {text}"))
}
