//! `tailcast trace info`: counts, rates, lengths and reuse, as text, JSON or a picture.

use std::path::PathBuf;

use serde::Serialize;

use super::{CliError, Reading, check_not_input, print, replace, say_notes};
use crate::report::plots;
use crate::trace::{CachePoint, Clock, Trace, TraceInfo, cache_curve, cache_sizes};

/// Print counts, span, rates, burstiness, lengths, sessions and prefix reuse of a trace
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Arguments {
    /// The trace; .gz, .zst, .xz, archives and folders are read directly
    #[arg(required = true)]
    files: Vec<PathBuf>,
    #[command(flatten)]
    reading: Reading,
    /// Print as JSON
    #[arg(long)]
    json: bool,
    /// Also what a cache of limited size would find, from small ones to one that holds all
    #[arg(long)]
    cache_curve: bool,
    /// Draw arrivals over time, lengths and reuse against cache size into this file (.svg or .png)
    #[arg(long, value_name = "FILE")]
    plot: Option<PathBuf>,
}

#[derive(Serialize)]
struct Json<'a> {
    #[serde(flatten)]
    info: &'a TraceInfo,
    #[serde(skip_serializing_if = "Option::is_none")]
    cache_curve: Option<&'a [CachePoint]>,
    notes: Vec<String>,
}

pub(super) fn run(arguments: &Arguments) -> Result<(), CliError> {
    if let Some(plot) = &arguments.plot {
        check_not_input("--plot", plot, &arguments.files)?;
    }
    let trace = arguments.reading.read(&arguments.files, Clock::Absolute)?;
    let info = TraceInfo::of(&trace);
    let wanted = arguments.cache_curve || arguments.plot.is_some();
    let curve = if wanted { cache_curve(&trace.rows, &cache_sizes(&trace.rows)) } else { Vec::new() };
    if let Some(path) = &arguments.plot {
        let title = format!("{}: {} requests", shown(&arguments.files), info.requests);
        let plot = plots::trace_overview("trace", &title, &figures(&trace, &curve));
        let plot = plot.map_err(|error| CliError::Write(error.to_string()))?;
        let bytes = match path.extension().and_then(|end| end.to_str()) {
            Some("svg") => plot.svg.into_bytes(),
            Some("png") => plot.png,
            _ => {
                return Err(CliError::Input(format!(
                    "--plot: {}: name a file that ends with .svg or .png",
                    path.display()
                )));
            }
        };
        replace(path, |file| std::io::Write::write_all(file, &bytes))?;
    }
    if arguments.json {
        let curve = arguments.cache_curve.then_some(curve.as_slice());
        let json = Json { info: &info, cache_curve: curve, notes: trace.notes.lines() };
        return print(
            &(serde_json::to_string_pretty(&json).map_err(|error| CliError::Write(error.to_string()))?
                + "\n"),
        );
    }
    say_notes(&trace);
    let mut text = info.text();
    if arguments.cache_curve {
        text.push_str("cache of blocks         tokens   % of references   % of prompt tokens\n");
        for point in &curve {
            text.push_str(&format!(
                "{:>15} {:>14} {:>17.1} {:>20.1}\n",
                point.blocks,
                point.tokens,
                100.0 * point.block_share,
                100.0 * point.prompt_token_share
            ));
        }
    }
    print(&text)
}

/// Intervals of the arrivals that are drawn.
const INTERVALS: f64 = 240.0;

fn figures(trace: &Trace, curve: &[CachePoint]) -> plots::TraceFigures {
    let span_s = trace.rows.last().map_or(0.0, |row| row.arrived.as_s());
    // A round length: 1, 2 or 5 times a power of ten.
    let least = (span_s / INTERVALS).max(1e-3);
    let power = 10f64.powf(least.log10().floor());
    let interval_s = [1.0, 2.0, 5.0, 10.0]
        .map(|step| step * power)
        .into_iter()
        .find(|step| *step >= least)
        .unwrap_or(least);
    let mut arrivals = vec![0; (span_s / interval_s) as usize + 1];
    let last = arrivals.len() - 1;
    for row in &trace.rows {
        arrivals[((row.arrived.as_s() / interval_s) as usize).min(last)] += 1;
    }
    let sorted = |length: fn(&crate::trace::TraceRow) -> u32| {
        let mut lengths: Vec<u32> = trace.rows.iter().map(length).collect();
        lengths.sort_unstable();
        lengths
    };
    plots::TraceFigures {
        interval_s,
        arrivals,
        prompt_tokens: sorted(|row| row.prompt_tokens),
        output_tokens: sorted(|row| row.output_tokens),
        found: curve.iter().map(|point| (point.tokens as f64, point.prompt_token_share)).collect(),
    }
}

fn shown(files: &[PathBuf]) -> String {
    let names = files.iter().filter_map(|file| Some(file.file_name()?.to_string_lossy().into_owned()));
    names.collect::<Vec<_>>().join(" + ")
}
