//! Long made-up traces in the format of Azure 2024, to measure readers and long runs with.
//!
//! Knows the rate and the lengths of such a week. Unlike the samples it draws with floating point, so
//! another mathematical library may write other bytes.

use std::f64::consts::TAU;
use std::fmt::Write as _;
use std::io::{self, Write};

use jiff::ToSpan;
use jiff::civil::Date;
use rand::SeedableRng;
use rand::distr::Distribution;
use rand_distr::{Exp1, LogNormal};
use rand_xoshiro::Xoshiro256PlusPlus;

const SEED: u64 = 44_000_000;
const FIRST_DAY: Date = Date::constant(2024, 5, 10);
const DAY_US: u64 = 86_400 * 1_000_000;

/// 44 million rows in 7 days, as the published trace of conversations and code together.
const MEAN_RATE_PER_S: f64 = 44_000_000.0 / (7.0 * 86_400.0);

/// The busiest moment of a day has this much more than the mean, the calmest this much less.
const WAVE: f64 = 0.5;

/// Token counts, log-normal.
struct Lengths {
    logarithm: LogNormal<f64>,
    max: u32,
    stream: Xoshiro256PlusPlus,
}

impl Lengths {
    /// Lengths whose standard deviation equals their mean, before those above `max` are cut.
    fn new(mean: f64, max: u32, stream: u64) -> Lengths {
        let variance = std::f64::consts::LN_2;
        let logarithm = LogNormal::new(mean.ln() - variance / 2.0, variance.sqrt()).expect("fixed moments");
        Lengths { logarithm, max, stream: Xoshiro256PlusPlus::seed_from_u64(SEED + stream) }
    }

    fn next(&mut self) -> u32 {
        (self.logarithm.sample(&mut self.stream).round() as u32).clamp(1, self.max)
    }
}

/// Writes a header and `rows` rows.
pub(crate) fn write(rows: u64, to: &mut impl Write) -> io::Result<()> {
    let mut gaps = Xoshiro256PlusPlus::seed_from_u64(SEED);
    let (mut prompts, mut outputs) = (Lengths::new(1_500.0, 8_000, 1), Lengths::new(110.0, 1_000, 2));
    let mut us = 0.0;
    let mut clock = Clock { second: None, text: String::new() };
    let mut line = String::new();
    to.write_all(b"TIMESTAMP,ContextTokens,GeneratedTokens\n")?;
    for _ in 0..rows {
        // A day begins in the middle of its calm half, so the wave's mean over whole days is 1.
        let wave = 1.0 - WAVE * (us / DAY_US as f64 * TAU).cos();
        let gap_s: f64 = Exp1.sample(&mut gaps);
        us += gap_s / (MEAN_RATE_PER_S * wave) * 1e6;
        let whole_us = us as u64;
        line.clear();
        line.push_str(clock.at(whole_us / 1_000_000));
        // Writing to a string cannot fail. A whole second is written without a fraction, as it is published.
        let _ = match whole_us % 1_000_000 {
            0 => Ok(()),
            fraction => write!(line, ".{fraction:06}"),
        };
        let _ = writeln!(line, "+00:00,{},{}", prompts.next(), outputs.next());
        to.write_all(line.as_bytes())?;
    }
    Ok(())
}

/// The text of the current second, which many rows share.
struct Clock {
    second: Option<u64>,
    text: String,
}

impl Clock {
    fn at(&mut self, second: u64) -> &str {
        if self.second != Some(second) {
            self.second = Some(second);
            let date = FIRST_DAY.saturating_add(((second / 86_400) as i64).days());
            let (hour, minute) = (second / 3_600 % 24, second / 60 % 60);
            self.text = format!("{date} {hour:02}:{minute:02}:{:02}", second % 60);
        }
        &self.text
    }
}
