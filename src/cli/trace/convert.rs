//! `tailcast trace convert`: any trace as another format, cut to size, several as one.

use std::path::PathBuf;

use super::{CliError, Cutting, Reading, Writing, check_not_input, say_notes};
use crate::trace::Clock;

/// Write a trace in another format: a part of it, or several laid over each other. Says what is lost
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Arguments {
    /// The traces
    #[arg(required = true)]
    files: Vec<PathBuf>,
    #[command(flatten)]
    reading: Reading,
    #[command(flatten)]
    cutting: Cutting,
    #[command(flatten)]
    writing: Writing,
    /// Several traces all begin together, whatever their dates say
    #[arg(long)]
    from_their_starts: bool,
    /// Arrivals this many times as fast
    #[arg(long, value_name = "FACTOR", default_value_t = 1.0)]
    rate_scale: f64,
}

pub(super) fn run(arguments: &Arguments) -> Result<(), CliError> {
    arguments.writing.target()?;
    if !(arguments.rate_scale > 0.0 && arguments.rate_scale.is_finite()) {
        return Err(CliError::Input(format!(
            "--rate-scale: expected a factor above 0, got {}",
            arguments.rate_scale
        )));
    }
    let clock = if arguments.from_their_starts { Clock::Relative } else { Clock::Absolute };
    check_not_input("--out", &arguments.writing.out, &arguments.files)?;
    let mut trace = arguments.reading.read(&arguments.files, clock)?;
    say_notes(&trace);
    arguments.cutting.apply(&mut trace)?;
    if arguments.rate_scale != 1.0 {
        for row in &mut trace.rows {
            let ps = row.arrived.as_ps() as f64 / arguments.rate_scale;
            row.arrived = crate::time::Time::from_ps(ps.round().min(u64::MAX as f64 / 4.0) as u64);
        }
    }
    arguments.writing.write(&trace)
}
