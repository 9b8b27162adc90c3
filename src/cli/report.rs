//! `tailcast report`: a result as one page for a person who decides.

use std::path::PathBuf;
use std::process::ExitCode;

use super::reopened::{Recorded, read_result};
use super::results::{check_not_own, put};
use super::{CliError, Threads, progress, say};
use crate::explain::explain;
use crate::report::html::{self, Report};
use crate::study::compare::{Contender, Repetitions, compare, first_repetition};
use crate::study::load_curve::{LoadPoint, load_curve};
use crate::study::{Comparison, Keep, StudyError, Traces};

/// Make report.html of a result: the verdict, charts, why the slow requests were slow, latency against load; one file, no network
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// The folder of a result, as `run --out` and `compare` write it
    result: PathBuf,
    /// The file; report.html in the folder unless given
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Leave out latency against load, which takes some twenty runs of each policy
    #[arg(long)]
    no_load_curve: bool,
    /// Nothing on stderr but errors
    #[arg(long)]
    quiet: bool,
    #[command(flatten)]
    threads: Threads,
}

pub(super) fn run(arguments: &Arguments) -> Result<ExitCode, CliError> {
    let folder = &arguments.result;
    let out = arguments.out.clone().unwrap_or_else(|| folder.join("report.html"));
    check_not_own(&out)?;
    let result = read_result(folder)?;
    let bar = progress(0, arguments.quiet);
    let mut traces = Traces::default();
    let work = || -> Result<(Comparison, String, Vec<LoadPoint>, usize), StudyError> {
        let ran = || bar.inc(1);
        let contenders = &result.contenders;
        let comparison = compare(contenders, &mut traces, Repetitions::Fixed, false, Keep::Outcomes, &ran)?;
        let best = &comparison.ranking[0].name;
        let which = contenders.iter().position(|contender| contender.name == *best).unwrap_or(0);
        let curve = match arguments.no_load_curve || contenders[which].scenario.has_bad_days() {
            true => Vec::new(),
            false => at_other_rates(contenders, &mut traces, comparison.standing.load, &ran)?,
        };
        let text = std::fs::read_to_string(folder.join("scenario.toml")).unwrap_or_default();
        Ok((comparison, text, curve, which))
    };
    let (comparison, scenario_text, curve, which) = arguments.threads.run(work)?.map_err(CliError::input)?;
    bar.finish_and_clear();
    let best = &comparison.ranking[0];
    Recorded::of(&result.summary, &best.name).check(&best.repetitions[0], folder)?;
    let explained = arguments.threads.run(|| {
        let (scenario, jobs) = first_repetition(&result.contenders, &mut traces, which)?;
        let explanation = explain(&scenario, &jobs)?;
        Ok::<_, StudyError>((scenario, explanation))
    })?;
    let (scenario, explanation) = explained.map_err(CliError::input)?;
    let report = Report {
        comparison: &comparison,
        scenario: &scenario,
        explanation: &explanation,
        load_curve: &curve,
        scenario_text: &scenario_text,
    };
    let page = html::page(&report).map_err(|error| CliError::Write(error.to_string()))?;
    put(&out, page.as_bytes())?;
    if !arguments.quiet {
        say(&format!("the report is {}", out.display()));
    }
    Ok(ExitCode::SUCCESS)
}

/// The curve; empty where the workload has no rate that could be changed.
fn at_other_rates(
    contenders: &[Contender],
    traces: &mut Traces,
    load: Option<f64>,
    ran: &(dyn Fn() + Sync),
) -> Result<Vec<LoadPoint>, StudyError> {
    match load_curve(contenders, traces, load, ran) {
        Err(StudyError::Empty(_)) => Ok(Vec::new()),
        curve => curve,
    }
}
