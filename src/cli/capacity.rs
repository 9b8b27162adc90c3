//! `tailcast capacity`: the least fleet, or the highest rate, at which objectives hold.

use std::path::PathBuf;
use std::process::ExitCode;

use super::{CliError, RunOptions, check_that_keys_are_read, compare, print, progress, results, say};
use crate::fleet::incidents::Whom;
use crate::report::capacity;
use crate::scenario::{ReplicaKind, Scenario};
use crate::study::capacity::{Capacity, Latency, Objective, Quantity, capacity as search, objectives_of};
use crate::study::compare::{Contender, population};
use crate::study::mix::{Alone, cheapest_mix};
use crate::study::{StudyError, Traces};

/// The least number of replicas, or the highest rate, at which objectives hold
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    options: RunOptions,
    /// An objective, such as ttft.p99=800 or e2e.p95=10000, milliseconds; several times for several; `[slo.p99]` unless given
    #[arg(long, value_name = "LATENCY.pN=MS")]
    slo: Vec<String>,
    /// Replicas to search, from and to
    #[arg(long, value_name = "FEWEST..MOST", default_value = "1..512", conflicts_with = "rate")]
    replicas: String,
    /// Search the highest rate of the scenario's own fleet instead
    #[arg(long)]
    rate: bool,
    /// So many of the replicas are down from the start
    #[arg(long, value_name = "N", default_value_t = 0, conflicts_with = "rate")]
    down: u32,
    /// So many of the replicas crash when half of the requests' time is over, and do not come back; what is lost with them
    /// counts as missed
    #[arg(long, value_name = "N", default_value_t = 0, conflicts_with = "rate")]
    failing: u32,
    /// How sure it has to be
    #[arg(long, value_name = "SHARE", default_value_t = 0.95)]
    confidence: f64,
    /// Policies to search for, separated by commas; the scenario's `policies` and `[[variants]]` unless given, else its router's
    #[arg(long, value_delimiter = ',', value_name = "NAME,...")]
    policies: Vec<String>,
    /// A folder for the picture; none unless given
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Print JSON instead of tables
    #[arg(long)]
    json: bool,
}

/// Repetitions below which there is no confidence.
const FEWEST_REPETITIONS: u32 = 5;

pub(super) fn run(arguments: &Arguments) -> Result<ExitCode, CliError> {
    let options = &arguments.options;
    if !(0.5..1.0).contains(&arguments.confidence) {
        return Err(CliError::Input(
            "--confidence: expected a share of at least 0.5 and below 1, such as 0.95".into(),
        ));
    }
    let quantity = match arguments.rate {
        true => Quantity::Rate,
        false => replicas(arguments)?,
    };
    let loaded = options.read_with_repetitions(FEWEST_REPETITIONS)?;
    let contenders = compare::contenders_or_own(&loaded, &arguments.policies)?;
    check_that_keys_are_read(&loaded, &contenders)?;
    let first = &contenders[0].scenario;
    if let Quantity::Replicas { fewest, .. } = quantity
        && first.incidents.iter().any(|incident| match incident.what.whom() {
            Some(Whom::One(server)) => server >= fewest as usize,
            _ => false,
        })
    {
        say("note: events of a replica that a size does not have do not happen there");
    }
    if contenders.iter().any(|contender| contender.scenario.autoscaler.is_some()) {
        return Err(CliError::Input(
            "capacity sizes a fleet that stays as it is, and this one has an autoscaler\nhelp: leave [autoscaler] out, or compare \
             autoscalers as [[variants]]: their tables tell mean replicas and what they cost"
                .into(),
        ));
    }
    let objectives = match arguments.slo.is_empty() {
        true => objectives_of(first),
        false => arguments.slo.iter().map(|text| objective(text)).collect::<Result<_, _>>()?,
    };
    if objectives.is_empty() {
        return Err(CliError::Input(
            "there is no objective to hold\nhelp: say --slo ttft.p99=800, or set [slo.p99] in the scenario"
                .into(),
        ));
    }
    if let Some(out) = &arguments.out {
        results::check_replaceable(out)?;
    }
    let bar = progress(0, options.quiet);
    let searches = options.threads.run(|| {
        let mut traces = Traces::default();
        let mut all = Vec::new();
        let whole = |contender: &Contender| match quantity {
            Quantity::Rate => vec![contender.scenario.clone()],
            Quantity::Replicas { .. } => each_kind_alone(contender),
        };
        let ran = || bar.inc(1);
        for contender in &contenders {
            let mut own = Vec::new();
            for alone in whole(contender) {
                own.push(search(&alone, &mut traces, quantity, &objectives, arguments.confidence, &ran)?);
            }
            // Which of two kinds fails would be one more question.
            if let Quantity::Replicas { down, most, failing: 0, .. } = quantity {
                for (pair, alone) in pairs(contender, &own, most) {
                    let mix = cheapest_mix(
                        &pair,
                        &mut traces,
                        alone,
                        down,
                        &objectives,
                        arguments.confidence,
                        &ran,
                    )?;
                    own.extend(mix);
                }
            }
            all.extend(own);
        }
        Ok::<Vec<Capacity>, StudyError>(all)
    })?;
    let searches = searches.map_err(CliError::input)?;
    bar.finish_and_clear();
    if let Some(out) = &arguments.out {
        let plot = capacity::plot(&first.title, &searches, quantity, &objectives)
            .map_err(|error| CliError::Write(error.to_string()))?;
        let json = json(first, &searches, quantity, &objectives, arguments.confidence)?;
        results::write_files(
            out,
            &[
                ("summary.json".into(), json.into_bytes()),
                (format!("{}.svg", plot.name), plot.svg.into_bytes()),
                (format!("{}.png", plot.name), plot.png),
            ],
        )?;
    }
    let shown = match arguments.json {
        true => json(first, &searches, quantity, &objectives, arguments.confidence)?,
        false => capacity::text(
            &first.title,
            &searches,
            quantity,
            &objectives,
            arguments.confidence,
            &population(first, first.repeat),
        ),
    };
    print(&shown)?;
    if let Some(out) = arguments.out.as_ref().filter(|_| !options.quiet) {
        say(&format!("the curve is in {}", out.display()));
    }
    Ok(ExitCode::SUCCESS)
}

/// A scenario for each kind of replica, with no other.
fn each_kind_alone(contender: &Contender) -> Vec<Scenario> {
    let alone = |kind: &ReplicaKind| {
        let mut scenario = contender.scenario.clone();
        scenario.replicas = vec![kind.clone()];
        scenario
    };
    contender.scenario.replicas.iter().map(alone).collect()
}

/// Each two kinds, with how many replicas it takes of each alone, or as many as are searched where none will do.
fn pairs(contender: &Contender, alone: &[Capacity], most: u32) -> Vec<(Scenario, [Alone; 2])> {
    let kinds = &contender.scenario.replicas;
    let of = |kind: usize| match &alone[kind].answer {
        Some(point) => Alone { replicas: point.replicas, holds: true },
        None => Alone { replicas: most, holds: false },
    };
    let mut pairs = Vec::new();
    for first in 0..kinds.len() {
        for second in first + 1..kinds.len() {
            let mut scenario = contender.scenario.clone();
            scenario.replicas = vec![kinds[first].clone(), kinds[second].clone()];
            pairs.push((scenario, [of(first), of(second)]));
        }
    }
    pairs
}

fn replicas(arguments: &Arguments) -> Result<Quantity, CliError> {
    let text = &arguments.replicas;
    let expected = || {
        CliError::Input(format!(
            "--replicas: expected FEWEST..MOST of 1 to 4096, such as 1..512, got `{text}`"
        ))
    };
    let (fewest, most) = text.split_once("..").ok_or_else(expected)?;
    let number = |text: &str| text.trim().parse::<u32>().map_err(|_| expected());
    let (fewest, most) = (number(fewest)?, number(most)?);
    if fewest == 0 || most < fewest || most > 4_096 {
        return Err(expected());
    }
    let (down, failing) = (arguments.down, arguments.failing);
    if down >= most {
        return Err(CliError::Input(format!("--down: of {most} replicas at most {} can be down", most - 1)));
    }
    if failing >= most - down {
        let left = most - down;
        return Err(CliError::Input(format!("--failing: of {left} replicas at most {} can fail", left - 1)));
    }
    Ok(Quantity::Replicas { fewest, most, down, failing })
}

fn objective(text: &str) -> Result<Objective, CliError> {
    let expected = || {
        CliError::Input(format!(
            "--slo: expected LATENCY.pN=MS with ttft, tpot or e2e and N above 0 and below 100, such as ttft.p99=800, got `{text}`"
        ))
    };
    let (key, limit) = text.split_once('=').ok_or_else(expected)?;
    let (latency, percent) = key.split_once('.').ok_or_else(expected)?;
    let latency = match latency.trim().to_lowercase().as_str() {
        "ttft" => Latency::Ttft,
        "tpot" => Latency::Tpot,
        "e2e" => Latency::E2e,
        _ => return Err(expected()),
    };
    let percent = percent.trim().to_lowercase().strip_prefix('p').and_then(|text| text.parse::<f64>().ok());
    let percent = percent.filter(|p| *p > 0.0 && *p < 100.0).ok_or_else(expected)?;
    let limit_ms = limit.trim().trim_end_matches("ms").trim().parse::<f64>().ok();
    let limit_ms = limit_ms.filter(|ms| *ms > 0.0 && ms.is_finite()).ok_or_else(expected)?;
    Ok(Objective { latency, percent, limit_ms })
}

fn json(
    scenario: &Scenario,
    searches: &[Capacity],
    quantity: Quantity,
    objectives: &[Objective],
    confidence: f64,
) -> Result<String, CliError> {
    let (down, failing) = match quantity {
        Quantity::Replicas { down, failing, .. } => (down, failing),
        Quantity::Rate => (0, 0),
    };
    let value = serde_json::json!({
        "title": scenario.title,
        "repetitions": scenario.repeat,
        "population": population(scenario, scenario.repeat),
        "confidence": confidence,
        "down": down,
        "failing": failing,
        "schema_version": crate::report::json::SCHEMA_VERSION,
        "objectives": objectives,
        "searches": searches,
    });
    let text = serde_json::to_string_pretty(&value).map_err(|error| CliError::Write(error.to_string()))?;
    Ok(text + "\n")
}
