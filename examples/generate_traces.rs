//! Writes made-up traces.
//!
//! Without arguments the samples of `traces/`, anew: run it from the root of the checkout; without a change to
//! the generator it writes the same bytes. With `--azure-2024 ROWS FILE` a trace of so many rows in that format, for
//! measuring: 44 million rows are a week of the volume of Azure's trace of 2024. Arrivals are Poisson under a daily
//! wave, prompts and outputs log-normal; the same ROWS give the same bytes.

mod samples;

use std::fs::File;
use std::io::{BufWriter, Error, Write};
use std::path::Path;

use rand::SeedableRng;
use rand::distr::Distribution;
use rand_distr::{Exp1, LogNormal};
use rand_xoshiro::Xoshiro256PlusPlus;

/// Rows a second in the mean: 44 million in seven days.
const ROWS_PER_S: f64 = 44e6 / (7.0 * 86_400.0);

fn main() -> std::io::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.as_slice() {
        [] => {
            let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("traces");
            for (name, text) in samples::all() {
                std::fs::write(folder.join(name), text)?;
            }
            Ok(())
        }
        [flag, rows, file] if flag == "--azure-2024" => {
            let rows =
                rows.parse().map_err(|_| Error::other(format!("ROWS: expected a number, got {rows}")))?;
            azure_2024(rows, Path::new(file))
        }
        _ => Err(Error::other("usage: generate_traces [--azure-2024 ROWS FILE]")),
    }
}

fn azure_2024(rows: u64, file: &Path) -> std::io::Result<()> {
    let mut stream = Xoshiro256PlusPlus::seed_from_u64(2_024);
    // Moments of the tokens: 1,500 and 1,500 for prompts, 110 and 110 for outputs.
    let tokens =
        |mean: f64| LogNormal::new(mean.ln() - 2f64.ln() / 2.0, 2f64.ln().sqrt()).map_err(Error::other);
    let (prompts, outputs) = (tokens(1_500.0)?, tokens(110.0)?);
    let mut out = BufWriter::with_capacity(1 << 20, File::create(file)?);
    writeln!(out, "TIMESTAMP,ContextTokens,GeneratedTokens")?;
    let mut at_s = 0.0;
    for _ in 0..rows {
        // Twice as many by day as by night.
        let wave = 1.0 + (at_s / 86_400.0 * std::f64::consts::TAU).sin() / 3.0;
        let gap: f64 = Exp1.sample(&mut stream);
        at_s += gap / (ROWS_PER_S * wave);
        let at_us = (at_s * 1e6) as u64;
        let (s, us) = (at_us / 1_000_000, at_us % 1_000_000);
        let (day, hour, minute, second) = (s / 86_400, s / 3_600 % 24, s / 60 % 60, s % 60);
        let prompt = prompts.sample(&mut stream).clamp(1.0, 8_000.0) as u32;
        let output = outputs.sample(&mut stream).clamp(1.0, 1_000.0) as u32;
        let day = 10 + day;
        writeln!(out, "2024-05-{day:02} {hour:02}:{minute:02}:{second:02}.{us:06}+00:00,{prompt},{output}")?;
    }
    out.flush()
}
