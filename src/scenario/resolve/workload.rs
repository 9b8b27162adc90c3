//! Where requests come from: a trace or parameters, and what routers are told of lengths.

use std::path::Path;

use super::{Fault, Resample, Workload, at_least_one, fault, not_negative, positive, within_clock};
use crate::scenario::file::{LengthsFile, PredictorFile, ProcessFile, ResampleFile, ScenarioFile};
use crate::workload::drawn::{ArrivalProcess, Drawn, Lengths, Prefixes};
use crate::workload::predictor::Predictor;

/// Most tokens a length may name: far beyond any model, and far below what would overflow a sum.
const MOST_TOKENS: u32 = 100_000_000;
pub(super) fn workload(file: &ScenarioFile, folder: &Path) -> Result<Workload, Fault> {
    let workload = &file.workload;
    if let Some(requests) = workload.requests {
        at_least_one("workload.requests", requests)?;
    }
    if let Some(trace) = &workload.trace {
        let drawn = [
            ("arrivals", workload.arrivals.is_some()),
            ("prompt_tokens", workload.prompt_tokens.is_some()),
            ("output_tokens", workload.output_tokens.is_some()),
            ("prefixes", workload.prefixes.is_some()),
        ];
        if let Some((key, _)) = drawn.iter().find(|(_, given)| *given) {
            return Err(fault(
                format!("workload.{key}"),
                "belongs to a drawn workload, but a trace is named",
            )
            .help("leave out either `trace` or this"));
        }
        let streamed = workload.streamed.unwrap_or(false);
        if streamed && (file.resample.is_some() || workload.rounds.is_some() || file.repeat > 1) {
            return Err(fault(
                "workload.streamed",
                "a streamed trace is never held whole, so it cannot be repeated or resampled",
            )
            .help("leave out `streamed`, or `repeat`, `resample` and `rounds`"));
        }
        return Ok(Workload::Trace {
            streamed,
            path: folder.join(trace),
            format: workload.format.clone(),
            rate_scale: positive("workload.rate_scale", workload.rate_scale.unwrap_or(1.0))?,
            rounds: at_least_one("workload.rounds", workload.rounds.unwrap_or(1))?,
            requests: workload.requests,
            resample: file.resample.map(|resample| match resample {
                ResampleFile::TimeBlocks => Resample::TimeBlocks,
                ResampleFile::Jitter => Resample::Jitter,
            }),
        });
    }
    let of_traces = [("rounds", workload.rounds.is_some()), ("streamed", workload.streamed.is_some())];
    if let Some((key, _)) = of_traces.iter().find(|(_, given)| *given) {
        return Err(fault(format!("workload.{key}"), "belongs to a trace, but none is named")
            .help("add trace = \"...\""));
    }
    if workload.format.is_some() {
        return Err(
            fault("workload.format", "belongs to a trace, but none is named").help("add trace = \"...\"")
        );
    }
    let missing = |key: &str| {
        fault("workload", format!("a drawn workload needs `{key}`"))
            .help("name a trace, or give requests, arrivals, prompt_tokens and output_tokens")
    };
    let arrivals = workload.arrivals.as_ref().ok_or_else(|| missing("arrivals"))?;
    let prompt_tokens = workload.prompt_tokens.as_ref().ok_or_else(|| missing("prompt_tokens"))?;
    let output_tokens = workload.output_tokens.as_ref().ok_or_else(|| missing("output_tokens"))?;
    let requests = workload.requests.ok_or_else(|| missing("requests"))?;
    let rate = positive("workload.arrivals.rate_per_s", arrivals.rate_per_s)?;
    let rate_scale = positive("workload.rate_scale", workload.rate_scale.unwrap_or(1.0))?;
    within_clock("workload.arrivals.rate_per_s", f64::from(requests) / (rate * rate_scale))
        .map_err(|fault| fault.help("at this rate the last request would come after a hundred days"))?;
    let process = match (arrivals.process, arrivals.cv) {
        (ProcessFile::Gamma, Some(cv)) => ArrivalProcess::Gamma { cv: positive("workload.arrivals.cv", cv)? },
        (ProcessFile::Gamma, None) => {
            return Err(fault("workload.arrivals", "process = \"gamma\" needs `cv`").help("add cv = 2.0"));
        }
        (_, Some(_)) => {
            return Err(
                fault("workload.arrivals.cv", "only process = \"gamma\" has a cv").help("leave it out")
            );
        }
        (ProcessFile::Poisson, None) => ArrivalProcess::Poisson,
        (ProcessFile::Deterministic, None) => ArrivalProcess::Deterministic,
    };
    let prefixes = match &workload.prefixes {
        None => None,
        Some(prefixes) => Some(Prefixes {
            groups: at_least_one("workload.prefixes.groups", prefixes.groups)?,
            tokens: at_least_one("workload.prefixes.tokens", prefixes.tokens)?,
            zipf_exponent: not_negative("workload.prefixes.zipf_exponent", prefixes.zipf_exponent)?,
        }),
    };
    Ok(Workload::Drawn(Drawn {
        requests,
        rate_per_s: rate * rate_scale,
        process,
        prompt_tokens: lengths("workload.prompt_tokens", prompt_tokens)?,
        output_tokens: lengths("workload.output_tokens", output_tokens)?,
        prefixes,
    }))
}

fn lengths(path: &str, lengths: &LengthsFile) -> Result<Lengths, Fault> {
    let range = |min: u32, max: u32| -> Result<(), Fault> {
        at_least_one(&format!("{path}.min"), min)?;
        if min > max {
            return Err(fault(format!("{path}.max"), format!("max ({max}) is below min ({min})")));
        }
        if max > MOST_TOKENS {
            return Err(fault(
                format!("{path}.max"),
                format!("expected at most {MOST_TOKENS} tokens, got {max}"),
            ));
        }
        Ok(())
    };
    match *lengths {
        LengthsFile::Fixed { tokens } => {
            at_least_one(&format!("{path}.tokens"), tokens)?;
            if tokens > MOST_TOKENS {
                return Err(fault(
                    format!("{path}.tokens"),
                    format!("expected at most {MOST_TOKENS} tokens"),
                ));
            }
            Ok(Lengths::Fixed(tokens))
        }
        LengthsFile::Uniform { min, max } => range(min, max).map(|()| Lengths::Uniform { min, max }),
        LengthsFile::Lognormal { mean, std, min, max } => {
            range(min, max)?;
            let mean = positive(&format!("{path}.mean"), mean)?;
            let std = positive(&format!("{path}.std"), std)?;
            Ok(Lengths::LogNormal { mean, std, min, max })
        }
    }
}

pub(super) fn predictor(file: &ScenarioFile) -> Result<Predictor, Fault> {
    let prediction = &file.workload.prediction;
    let path = "workload.prediction";
    let bias = prediction.bias.map(|bias| positive(&format!("{path}.bias"), bias)).transpose()?;
    let sigma = prediction.sigma.map(|sigma| positive(&format!("{path}.sigma"), sigma)).transpose()?;
    match (prediction.output_tokens, bias, sigma) {
        (PredictorFile::None, None, None) => Ok(Predictor::None),
        (PredictorFile::None, _, _) => Err(fault(path, "bias and sigma need a predictor")
            .help("add output_tokens = \"exact\" or \"lognormal\"")),
        (PredictorFile::Exact, bias, None) => Ok(Predictor::Scaled { bias: bias.unwrap_or(1.0) }),
        (PredictorFile::Exact, _, Some(_)) => {
            Err(fault(format!("{path}.sigma"), "an exact prediction has no spread")
                .help("use output_tokens = \"lognormal\""))
        }
        (PredictorFile::Lognormal, _, None) => {
            Err(fault(path, "a lognormal error needs `sigma`").help("add sigma = 0.45"))
        }
        (PredictorFile::Lognormal, bias, Some(sigma)) => {
            Ok(Predictor::LogNormal { bias: bias.unwrap_or(1.0), sigma })
        }
    }
}
