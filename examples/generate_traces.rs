//! Writes made-up traces.
//!
//! Without arguments it writes the sample traces of `traces/` anew; without a change to the generator it
//! writes the same bytes.
//!
//! With `--azure-2024 ROWS FILE` it writes ROWS rows in the format of the Azure trace of 2024 to FILE:
//! Poisson arrivals under a daily wave, log-normal lengths (prompts 1,500 tokens in the mean, outputs 110).
//! 44 million rows, some 2 GB, fill the seven days of the published trace; fewer rows are the beginning of
//! the same week:
//!
//! ```text
//! cargo run --release --example generate_traces -- --azure-2024 44000000 week.csv
//! ```

#[path = "samples/azure_week.rs"]
mod azure_week;
mod samples;

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;

const USAGE: &str = "expected no arguments, or --azure-2024 ROWS FILE";

fn main() -> io::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match &arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [] => write_samples(),
        ["--azure-2024", rows, file] => {
            let rows = rows.parse().map_err(|_| io::Error::other(USAGE))?;
            let mut to = BufWriter::with_capacity(1 << 20, File::create(file)?);
            azure_week::write(rows, &mut to)?;
            to.flush()
        }
        _ => Err(io::Error::other(USAGE)),
    }
}

fn write_samples() -> io::Result<()> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("traces");
    for (name, text) in samples::all() {
        std::fs::write(folder.join(name), text)?;
    }
    Ok(())
}
