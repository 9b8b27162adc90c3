//! `tailcast calibrate`: factors on the catalogue's prices, from what was measured on a server.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use super::results::check_not_input;
use super::{CliError, print, say};
use crate::calibration::evidence::{Evidence, Observation};
use crate::calibration::{Findings, PARAMETERS, Subject, bench, name, step_log};
use crate::hardware::model;
use crate::report::table::Table;
use crate::scenario::Loaded;
use crate::verify::measured::MeasuredRun;
use crate::verify::server::{Given, Server};

/// Fit the catalogue's prices to what was measured on a server
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Measurements of one server: request logs (NAME.requests.jsonl.gz with NAME.meta.json), results of `vllm bench
    /// serve --save-detailed` (.json), step logs (.csv with decodes, context_sum, chunks, seconds)
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// The server, where the measurements do not tell: the first kind of replica of this scenario
    #[arg(long, value_name = "SCENARIO")]
    scenario: Option<PathBuf>,
    /// Change a key of the scenario, such as --set replicas.max_num_seqs=128
    #[arg(long = "set", value_name = "KEY=VALUE", requires = "scenario")]
    set: Vec<String>,
    /// Fit to all measurements, and judge by the same ones
    #[arg(long)]
    all: bool,
    /// Where the calibration is written
    #[arg(long, value_name = "FILE", default_value = "calibration.toml")]
    out: PathBuf,
}

pub(super) fn run(arguments: &Arguments) -> Result<ExitCode, CliError> {
    check_not_input("--out", &arguments.out, arguments.files.iter().chain(&arguments.scenario))?;
    let subject = subject(arguments)?;
    let findings = subject.calibrate(arguments.all).map_err(|error| CliError::Input(error.to_string()))?;
    if findings.before.is_empty() {
        return Err(CliError::Input("the measurements hold nothing to fit to".into()));
    }
    print(&format!("{}, {} observations\n", subject.server.name, findings.before.len()))?;
    print(&coefficients(&findings))?;
    print(&residuals(&findings, arguments.all))?;
    let head = format!(
        "# What `tailcast calibrate` fitted; name it with step_time = {{ calibration = \"FILE\" }}.\n# Of {}\n",
        subject.server.name
    );
    std::fs::write(&arguments.out, head + findings.calibrated.text().as_str())
        .map_err(|error| CliError::Write(format!("{}: {error}", arguments.out.display())))?;
    say(&format!("the calibration is in {}", arguments.out.display()));
    Ok(ExitCode::SUCCESS)
}

fn subject(arguments: &Arguments) -> Result<Subject, CliError> {
    let input = |error: &dyn std::fmt::Display| CliError::Input(error.to_string());
    let mut server = match &arguments.scenario {
        Some(path) => {
            let scenario = Loaded::read(path, &arguments.set)
                .and_then(|loaded| loaded.resolve())
                .map_err(CliError::input)?;
            Some(Server::of_replica(&scenario.replicas[0]))
        }
        None => None,
    };
    let mut evidence = Vec::new();
    for path in &arguments.files {
        let of = |server: &Option<Server>, what: &str| {
            server.clone().ok_or_else(|| {
                input(&format!(
                    "{}: {what} does not tell how the server was started; describe it with --scenario FILE",
                    path.display()
                ))
            })
        };
        match ending(path) {
            Some("csv") => {
                let server = of(&server, "a step log")?;
                let steps = step_log::read(path, &server.placement.deployment);
                evidence.push(Evidence::Steps(steps.map_err(|error| input(&error))?));
            }
            Some("json") => {
                let server = of(&server, "a benchmark's result")?;
                let (run, failed) = bench::read(path).map_err(|error| input(&error))?;
                if failed > 0 {
                    say(&format!("{}: {failed} requests failed and are left out", path.display()));
                }
                let told = run.meta.model.as_deref().and_then(|name| model(name).ok());
                if let Some(told) = told.filter(|told| told.name != server.placement.model.name) {
                    return Err(input(&format!(
                        "{}: is of {}, and the scenario's replicas serve {}",
                        path.display(),
                        told.name,
                        server.placement.model.name
                    )));
                }
                server.check_requests(&run).map_err(|error| input(&error))?;
                evidence.push(Evidence::of_run(run));
            }
            Some("jsonl") => {
                let run = MeasuredRun::read(path).map_err(|error| input(&error))?;
                let told = match &arguments.scenario {
                    Some(_) => of(&server, "")?,
                    None => Server::of(&run, &Given::default()).map_err(|error| input(&error))?,
                };
                let first = server.get_or_insert_with(|| told.clone());
                if first.placement != told.placement {
                    return Err(input(&format!(
                        "{}: is of {}, the file before of {} or of other flags; calibrate one server at a time",
                        path.display(),
                        told.name,
                        first.name
                    )));
                }
                first.check_requests(&run).map_err(|error| input(&error))?;
                evidence.push(Evidence::of_run(run));
            }
            _ => {
                return Err(input(&format!(
                    "{}: expected NAME.requests.jsonl[.gz], a benchmark's .json or a step log's .csv[.gz]",
                    path.display()
                )));
            }
        }
    }
    let server = server.ok_or_else(|| input(&"no server is described; name one with --scenario FILE"))?;
    Ok(Subject { server, evidence })
}

/// What a file is, by its name without `.gz` and `.zst`.
fn ending(path: &Path) -> Option<&'static str> {
    let name = path.file_name()?.to_str()?;
    let plain = name.trim_end_matches(".gz").trim_end_matches(".zst");
    ["csv", "json", "jsonl"].into_iter().find(|ending| plain.ends_with(&format!(".{ending}")))
}

fn coefficients(findings: &Findings) -> String {
    let mut table = Table::new(&["factor on", "value", "from", "to", "learnt from the data %"], 1);
    for index in 0..PARAMETERS {
        let [low, value, high] = findings.fit.interval(index);
        if index + 1 == PARAMETERS && findings.calibrated.front_end_ms.is_none() {
            continue;
        }
        let number = |value: f64| format!("{value:.3}");
        let learnt = format!("{:.0}", 100.0 * findings.fit.learnt(index));
        table.row(vec![name(index).into(), number(value), number(low), number(high), learnt]);
    }
    let mut text = table.render();
    text.push_str("intervals at 95 %; a factor that was not learnt keeps what was known before\n");
    if let Some(ms) = findings.calibrated.front_end_ms {
        text.push_str(&format!("front end: {ms:.2} ms\n"));
    }
    text.push('\n');
    text
}

fn residuals(findings: &Findings, to_all: bool) -> String {
    let half = if to_all { "fitted to" } else { "kept aside" };
    let mut table = Table::new(
        &["region", "observations", "median %", "P90 %", "bias %", "before: median %", "P90 %", "bias %"],
        1,
    );
    let mut regions: Vec<&str> = Vec::new();
    for seen in &findings.before {
        if !regions.contains(&seen.region) {
            regions.push(seen.region);
        }
    }
    regions.sort_unstable();
    let judged = |observations: &[Observation], region: &str| -> Vec<f64> {
        let of_half = observations.iter().zip(&findings.fitted).filter(|(_, fitted)| to_all || !**fitted);
        let errors =
            of_half.filter(|(seen, _)| seen.region == region).map(|(seen, _)| seen.log_ratio.exp_m1());
        errors.collect()
    };
    for region in regions {
        let (after, before) = (judged(&findings.after, region), judged(&findings.before, region));
        if after.is_empty() {
            continue;
        }
        let mut row = vec![region.to_string(), after.len().to_string()];
        row.extend(figures(&after));
        row.extend(figures(&before));
        table.row(row);
    }
    format!("errors of what was {half}\n{}", table.render())
}

/// Median and 90th percentile of the absolute errors, and the median of the errors with their signs.
fn figures(errors: &[f64]) -> [String; 3] {
    let quantile = |values: &mut Vec<f64>, share: f64| {
        values.sort_by(f64::total_cmp);
        values[((share * values.len() as f64).ceil() as usize).clamp(1, values.len()) - 1]
    };
    let mut absolute: Vec<f64> = errors.iter().map(|error| error.abs()).collect();
    let mut signed = errors.to_vec();
    [
        format!("{:.1}", 100.0 * quantile(&mut absolute, 0.5)),
        format!("{:.1}", 100.0 * quantile(&mut absolute, 0.9)),
        format!("{:+.1}", 100.0 * quantile(&mut signed, 0.5)),
    ]
}
