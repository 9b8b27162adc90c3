//! `tailcast trace fit`: generator parameters that draw a workload like a trace.

use std::path::PathBuf;

use super::{CliError, Reading, check_not_input, print, replace, say_notes};
use crate::random::Seed;
use crate::report::table::Table;
use crate::trace::{Clock, TraceInfo};
use crate::workload::{fit, trace_of};

/// Find generator parameters for a trace, and say how near a workload drawn from them comes
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Arguments {
    /// The trace
    #[arg(required = true)]
    files: Vec<PathBuf>,
    #[command(flatten)]
    reading: Reading,
    /// Write the [workload] of a scenario here
    #[arg(long, short, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Draw the regenerated workload with this seed
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

/// One figure of a trace as text.
type Figure<'a> = Box<dyn Fn(&TraceInfo) -> String + 'a>;

pub(super) fn run(arguments: &Arguments) -> Result<(), CliError> {
    if let Some(out) = &arguments.out {
        check_not_input("--out", out, &arguments.files)?;
    }
    let trace = arguments.reading.read(&arguments.files, Clock::Absolute)?;
    say_notes(&trace);
    if trace.rows.len() < 10 {
        return Err(CliError::Input(format!(
            "{} requests are too few to fit; ten is the least",
            trace.rows.len()
        )));
    }
    if trace.is_timeless() {
        return Err(CliError::Input(
            "the trace has no times; draw its lengths with workload.lengths_of = \"FILE\" and give arrivals"
                .into(),
        ));
    }
    let fitted = fit::fit(&trace);
    let (before, after) =
        (TraceInfo::of(&trace), TraceInfo::of(&trace_of(&fitted.drawn.draw(Seed(arguments.seed)))));
    let mut table = Table::new(&["", "trace", "regenerated"], 1);
    let number =
        |value: Option<f64>, digits: usize| value.map_or("-".to_owned(), |value| format!("{value:.digits$}"));
    let figures: [(&str, Figure<'_>); 10] = [
        ("requests/s", Box::new(|info| number(info.mean_rate_per_s, 3))),
        ("CV of gaps", Box::new(|info| number(info.gap_cv, 2))),
        ("dispersion at 1 s", Box::new(|info| number(info.dispersion_1s, 2))),
        ("prompt tokens P50", Box::new(|info| number(Some(info.prompt_tokens.p50), 0))),
        ("prompt tokens P90", Box::new(|info| number(Some(info.prompt_tokens.p90), 0))),
        ("prompt tokens P99", Box::new(|info| number(Some(info.prompt_tokens.p99), 0))),
        ("output tokens P50", Box::new(|info| number(Some(info.output_tokens.p50), 0))),
        ("output tokens P90", Box::new(|info| number(Some(info.output_tokens.p90), 0))),
        ("output tokens P99", Box::new(|info| number(Some(info.output_tokens.p99), 0))),
        (
            "prompt tokens found again %",
            Box::new(|info| number(info.reuse.map(|reuse| 100.0 * reuse.prompt_token_share), 1)),
        ),
    ];
    for (name, figure) in &figures {
        table.row(vec![(*name).to_owned(), figure(&before), figure(&after)]);
    }
    let mut text = fitted.toml();
    text.push('\n');
    text.push_str(&table.render());
    text.push_str(&format!(
        "\ngreatest distance of distributions: gaps {:.3}, what prompts add {:.3}, outputs {:.3}; rank correlation of \
         prompts and outputs {:+.2}\n",
        fitted.gap_distance, fitted.prompt_distance, fitted.output_distance, fitted.length_correlation
    ));
    if fitted.length_correlation.abs() > 0.2 {
        text.push_str(
            "prompts and outputs go together: lengths_of = \"FILE\" draws them in pairs, as they were\n",
        );
    }
    if fitted.gap_distance >= 1.0 {
        text.push_str("the trace does not say when its sessions began: one a second is put in its place\n");
    }
    if let Some(path) = &arguments.out {
        replace(path, |file| std::io::Write::write_all(file, fitted.toml().as_bytes()))?;
    }
    print(&text)
}
