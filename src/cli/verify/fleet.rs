//! `tailcast verify latency --scenario`: a routed fleet against what was measured of it.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use super::super::{CliError, print};
use crate::report::table::{Table, number};
use crate::scenario::{Loaded, Scenario};
use crate::verify::fleet::{self, Bound, Side};
use crate::verify::{gateway, prometheus};

pub(super) fn run(
    path: &Path,
    set: &[String],
    measured: &[PathBuf],
    max_error: Option<f64>,
) -> Result<ExitCode, CliError> {
    let scenario = Loaded::read(path, set).and_then(|loaded| loaded.resolve()).map_err(CliError::input)?;
    let rows: Vec<&PathBuf> = measured.iter().filter(|file| is_csv(file)).collect();
    let worst = match rows.as_slice() {
        [] => histograms(&scenario, measured)?,
        [file] if measured.len() == 1 => gateway_rows(&scenario, file)?,
        _ => {
            return Err(CliError::Input(
                "--measured: expected one file of gateway rows, or /metrics pages alone".into(),
            ));
        }
    };
    for mark in &scenario.marks {
        print(&format!("mark: {mark}\n"))?;
    }
    print(&format!("furthest off: {:+.2} %\n", 100.0 * worst))?;
    Ok(if max_error.is_none_or(|limit| worst.abs() <= limit) { ExitCode::SUCCESS } else { ExitCode::from(1) })
}

fn is_csv(file: &Path) -> bool {
    let name = file.file_name().unwrap_or_default().to_string_lossy();
    [".csv", ".csv.gz", ".csv.zst"].iter().any(|ending| name.ends_with(ending))
}

/// Compares and returns the error of all requests that is furthest off.
fn gateway_rows(scenario: &Scenario, file: &Path) -> Result<f64, CliError> {
    let measured = gateway::read(file).map_err(CliError::input)?;
    let sides = fleet::against_rows(scenario, &measured).map_err(CliError::input)?;
    let unknown = if measured.rows.iter().all(|row| row.prefix.is_none()) {
        "; prompts without prefixes, so nothing hits a prefix cache"
    } else {
        ""
    };
    print(&format!("{} requests as sent, under {}{unknown}\n", measured.rows.len(), scenario.router.policy))?;
    if measured.unanswered > 0 {
        print(&format!("left out: {} rows without a whole answer\n", measured.unanswered))?;
    }
    let mut table = Table::new(
        &["requests of", "real", "simulated", "latency", "", "real ms", "simulated ms", "error"],
        1,
    );
    for side in &sides {
        rows_of(&mut table, side);
    }
    print(&table.render())?;
    let errors = sides[0].figures.iter().map(|figure| figure.error());
    Ok(furthest(errors))
}

fn rows_of(table: &mut Table, side: &Side) {
    for (index, figure) in side.figures.iter().enumerate() {
        let first = |text: String| if index == 0 { text } else { String::new() };
        table.row(vec![
            first(side.name.clone()),
            first(side.requests[0].to_string()),
            first(side.requests[1].to_string()),
            figure.metric.into(),
            figure.statistic.into(),
            format!("{:.2}", figure.real_ms),
            format!("{:.2}", figure.simulated_ms),
            format!("{:+.2} %", 100.0 * figure.error()),
        ]);
    }
}

/// The same for histograms.
fn histograms(scenario: &Scenario, files: &[PathBuf]) -> Result<f64, CliError> {
    let mut scrapes = Vec::new();
    for file in files {
        scrapes.extend(prometheus::read(file).map_err(CliError::input)?);
    }
    let bounds = fleet::against_histograms(scenario, &scrapes).map_err(CliError::input)?;
    print(&format!(
        "{} servers scraped, against the scenario's own workload under {}; times from each server's front end\n",
        scrapes.len(),
        scenario.router.policy
    ))?;
    let mut table =
        Table::new(&["server", "latency", "", "real above ms", "up to ms", "simulated ms", "outside by"], 1);
    let mut last = "";
    for bound in &bounds {
        table.row(row_of(bound, last));
        last = &bound.server;
    }
    print(&table.render())?;
    Ok(furthest(bounds.iter().filter(|bound| bound.server == "all").map(Bound::error)))
}

fn row_of(bound: &Bound, last: &str) -> Vec<String> {
    let inside = bound.error() == 0.0;
    vec![
        if bound.server == last { String::new() } else { bound.server.clone() },
        bound.metric.into(),
        bound.statistic.into(),
        number(bound.low_ms),
        if bound.high_ms.is_finite() { number(bound.high_ms) } else { "infinite".into() },
        number(bound.simulated_ms),
        if inside { "-".into() } else { format!("{:+.1} %", 100.0 * bound.error()) },
    ]
}

fn furthest(errors: impl Iterator<Item = f64>) -> f64 {
    errors.fold(0.0, |worst: f64, error| if error.abs() > worst.abs() { error } else { worst })
}
