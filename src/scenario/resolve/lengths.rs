//! How long requests are: ranges and moments checked, measured lengths read.

use std::path::Path;
use std::sync::Arc;

use super::{Fault, at_least_one, fault, positive};
use crate::scenario::file::LengthsFile;
use crate::trace::{self, ReadOptions, Trace};
use crate::workload::drawn::Lengths;

/// Most tokens a length may name: far beyond any model, and far below what would overflow a sum.
const MOST_TOKENS: u32 = 100_000_000;

pub(super) fn lengths(path: &str, lengths: &LengthsFile, folder: &Path) -> Result<Lengths, Fault> {
    let at = |key: &str| format!("{path}.{key}");
    let range = |min: u32, max: u32| -> Result<(), Fault> {
        at_least_one(&at("min"), min)?;
        if min > max {
            return Err(fault(at("max"), format!("max ({max}) is below min ({min})")));
        }
        most(&at("max"), max)
    };
    match *lengths {
        LengthsFile::Fixed { tokens } => {
            at_least_one(&at("tokens"), tokens)?;
            most(&at("tokens"), tokens)?;
            Ok(Lengths::Fixed(tokens))
        }
        LengthsFile::Uniform { min, max } => range(min, max).map(|()| Lengths::Uniform { min, max }),
        LengthsFile::Lognormal { mean, std, min, max } => {
            range(min, max)?;
            let (mean, std) = (positive(&at("mean"), mean)?, positive(&at("std"), std)?);
            Ok(Lengths::LogNormal { mean, std, min, max })
        }
        LengthsFile::Pareto { min, alpha, max } => {
            range(min, max)?;
            Ok(Lengths::Pareto { min, alpha: positive(&at("alpha"), alpha)?, max })
        }
        LengthsFile::Zipf { min, max, exponent } => {
            range(min, max)?;
            Ok(Lengths::Zipf { min, max, exponent: positive(&at("exponent"), exponent)? })
        }
        LengthsFile::Empirical { ref trace } => {
            let read = read(&at("trace"), trace, folder)?;
            // The key says which of both lengths is meant.
            let outputs = path.ends_with("output_tokens");
            let of = |row: &trace::TraceRow| if outputs { row.output_tokens } else { row.prompt_tokens };
            Ok(Lengths::Empirical(read.rows.iter().map(of).collect()))
        }
        LengthsFile::Quantiles { ref points } => {
            let rising = points.windows(2).all(|pair| pair[0].0 < pair[1].0 && pair[0].1 <= pair[1].1);
            let whole = points.len() >= 2 && points[0].0 == 0.0 && points[points.len() - 1].0 == 1.0;
            if !(rising && whole && points[0].1 >= 1) {
                return Err(fault(
                    at("points"),
                    "expected [share, tokens] that rise, from share 0 to share 1",
                )
                .help("points = [[0.0, 10], [0.5, 400], [1.0, 4000]]"));
            }
            most(&at("points"), points[points.len() - 1].1)?;
            Ok(Lengths::Quantiles(points.as_slice().into()))
        }
        LengthsFile::Mixture { ref parts } => {
            if parts.is_empty() {
                return Err(fault(at("parts"), "a mixture has at least one part"));
            }
            let part = |(index, part): (usize, &crate::scenario::file::MixtureFile)| {
                let weight = positive(&at(&format!("parts.{index}.weight")), part.weight)?;
                // Parts keep the name of the whole at the end of their path, which tells prompts from outputs.
                let of = self::lengths(path, &part.lengths, folder)?;
                Ok((weight, of))
            };
            parts.iter().enumerate().map(part).collect::<Result<_, Fault>>().map(Lengths::Mixture)
        }
    }
}

/// Prompt and output lengths of a trace, side by side.
pub(super) fn pairs(path: &str, trace: &str, folder: &Path) -> Result<Arc<[(u32, u32)]>, Fault> {
    let read = read(path, trace, folder)?;
    Ok(read.rows.iter().map(|row| (row.prompt_tokens.max(1), row.output_tokens)).collect())
}

fn read(path: &str, trace: &str, folder: &Path) -> Result<Trace, Fault> {
    trace::read(&folder.join(trace), &ReadOptions::default()).map_err(|error| fault(path, error.to_string()))
}

fn most(path: &str, tokens: u32) -> Result<(), Fault> {
    if tokens > MOST_TOKENS {
        return Err(fault(path, format!("expected at most {MOST_TOKENS} tokens, got {tokens}")));
    }
    Ok(())
}
