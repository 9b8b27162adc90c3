//! Where requests come from: a trace or parameters, and what routers are told of lengths.

use std::path::Path;
use std::sync::Arc;

use super::classes::classes;
use super::{Fault, Resample, Workload, at_least_one, fault, not_negative, positive, within_clock};
use crate::scenario::file::{
    ArrivalsFile, OverLimitFile, PrefixesFile, ProcessFile, ResampleFile, ScenarioFile, ServeGenFile,
    ThinkFile, TimeUnitFile, WorkloadFile,
};
use crate::time::Span;
use crate::trace::{Field, ReadOptions, TimeUnit};
use crate::workload::drawn::{
    ArrivalProcess, Arrivals, Clients, Demand, Drawn, Level, Modulation, Prefixes, State, Think, Tokens,
    Turns,
};
use crate::workload::shape::{Answers, OverLimit, Shape};

use super::lengths::{lengths, pairs};

pub(super) fn workload(file: &ScenarioFile, folder: &Path) -> Result<Workload, Fault> {
    let workload = &file.workload;
    if let Some(requests) = workload.requests {
        at_least_one("workload.requests", requests)?;
    }
    match &workload.trace {
        Some(trace) => replayed(file, &folder.join(trace)),
        None => drawn(workload, folder).map(Workload::Drawn),
    }
}

fn replayed(file: &ScenarioFile, path: &Path) -> Result<Workload, Fault> {
    let workload = &file.workload;
    let drawn = [
        ("users", workload.users.is_some()),
        ("servegen", workload.servegen.is_some()),
        ("sessions", workload.sessions.is_some()),
        ("prompt_tokens", workload.prompt_tokens.is_some()),
        ("output_tokens", workload.output_tokens.is_some()),
        ("lengths_of", workload.lengths_of.is_some()),
        ("prefixes", workload.prefixes.is_some()),
        ("classes", workload.classes.is_some()),
    ];
    if let Some((key, _)) = drawn.iter().find(|(_, given)| *given) {
        return Err(fault(format!("workload.{key}"), "belongs to a drawn workload, but a trace is named")
            .help("leave out either `trace` or this"));
    }
    let shape = shape(workload)?;
    let streamed = workload.streamed.unwrap_or(false);
    if streamed && (file.resample.is_some() || workload.rounds.is_some() || file.repeat > 1) {
        return Err(fault(
            "workload.streamed",
            "a streamed trace is never held whole, so it cannot be repeated or resampled",
        )
        .help("leave out `streamed`, or `repeat`, `resample` and `rounds`"));
    }
    let needs_all = shape != Shape::default()
        || workload.arrivals.is_some()
        || workload.closed_loop == Some(true)
        || workload.answers_are_cached.is_some();
    if streamed && needs_all {
        return Err(fault(
            "workload.streamed",
            "a streamed trace is replayed as it stands: without a window, a sample, limits, `arrivals` or a closed loop",
        )
        .help("leave out `streamed`, or prepare the trace with `tailcast trace convert`"));
    }
    let starts = workload.arrivals.as_ref().map(|written| arrivals(written, 1.0)).transpose()?;
    Ok(Workload::Trace {
        streamed,
        path: path.to_path_buf(),
        options: options(workload)?,
        shape: Shape {
            answers: match workload.answers_are_cached {
                // A stream is read once, and never looks back.
                None | Some(true) if streamed => Answers::AsTheyAre,
                None | Some(true) => Answers::Cached,
                Some(false) => Answers::NotCached,
            },
            ..shape
        },
        starts,
        closed_loop: !streamed && workload.closed_loop.unwrap_or(true),
        rate_scale: positive("workload.rate_scale", workload.rate_scale.unwrap_or(1.0))?,
        rounds: at_least_one("workload.rounds", workload.rounds.unwrap_or(1))?,
        requests: workload.requests,
        resample: file.resample.map(|resample| match resample {
            ResampleFile::TimeBlocks => Resample::TimeBlocks,
            ResampleFile::Jitter => Resample::Jitter,
            ResampleFile::Sessions => Resample::Sessions,
        }),
    })
}

fn options(workload: &WorkloadFile) -> Result<ReadOptions, Fault> {
    let named = workload.columns.iter().flatten().map(|(name, column)| {
        let field = Field::by_name(name)
            .map_err(|error| fault(format!("workload.columns.{name}"), error.to_string()))?;
        Ok((field, column.clone()))
    });
    let columns: Vec<(Field, String)> = named.collect::<Result<_, Fault>>()?;
    if columns.is_empty() && (workload.filters.is_some() || workload.time_unit.is_some()) {
        let key = if workload.filters.is_some() { "where" } else { "time_unit" };
        return Err(fault(format!("workload.{key}"), "belongs to `columns`, which are not given")
            .help("columns = { arrived = \"...\", prompt_tokens = \"...\", output_tokens = \"...\" }"));
    }
    let filters = workload.filters.iter().flatten().map(|(name, value)| (name.clone(), value.clone()));
    Ok(ReadOptions {
        format: workload.format.clone(),
        columns,
        filters: filters.collect(),
        time_unit: match workload.time_unit {
            None | Some(TimeUnitFile::Seconds) => TimeUnit::Seconds,
            Some(TimeUnitFile::Milliseconds) => TimeUnit::Milliseconds,
            Some(TimeUnitFile::Microseconds) => TimeUnit::Microseconds,
            Some(TimeUnitFile::Nanoseconds) => TimeUnit::Nanoseconds,
        },
        lenient: workload.lenient.unwrap_or(false),
    })
}

fn shape(workload: &WorkloadFile) -> Result<Shape, Fault> {
    let seconds = |key: &str, value: f64| {
        let value =
            within_clock(&format!("workload.{key}"), not_negative(&format!("workload.{key}"), value)?)?;
        Ok::<Span, Fault>(Span::from_s_f64(value))
    };
    let start = seconds("start_s", workload.start_s.unwrap_or(0.0))?;
    let end = workload.end_s.map(|end| seconds("end_s", end)).transpose()?;
    if end.is_some_and(|end| end <= start) {
        return Err(
            fault("workload.end_s", "the window ends before it begins").help("end_s lies above start_s")
        );
    }
    let sample = positive("workload.sample", workload.sample.unwrap_or(1.0))?;
    if sample > 1.0 {
        return Err(fault("workload.sample", format!("expected a share of at most 1, got {sample}"))
            .help("to replay more than the trace holds, set rounds or rate_scale"));
    }
    let limited = workload.max_prompt_tokens.is_some() || workload.max_output_tokens.is_some();
    if workload.over_limit.is_some() && !limited {
        return Err(fault("workload.over_limit", "there is no limit")
            .help("add max_prompt_tokens or max_output_tokens"));
    }
    let limit = |key: &str, value: Option<u32>| {
        value.map(|value| at_least_one(&format!("workload.{key}"), value)).transpose()
    };
    Ok(Shape {
        start,
        end,
        sample,
        max_prompt_tokens: limit("max_prompt_tokens", workload.max_prompt_tokens)?,
        max_output_tokens: limit("max_output_tokens", workload.max_output_tokens)?,
        over_limit: match workload.over_limit {
            None | Some(OverLimitFile::Drop) => OverLimit::Drop,
            Some(OverLimitFile::Clip) => OverLimit::Clip,
        },
        spread: seconds("spread_ms", workload.spread_ms.unwrap_or(0.0) / 1e3)?,
        answers: Answers::AsTheyAre,
    })
}

fn drawn(workload: &WorkloadFile, folder: &Path) -> Result<Drawn, Fault> {
    let of_traces = [
        ("rounds", workload.rounds.is_some()),
        ("streamed", workload.streamed.is_some()),
        ("format", workload.format.is_some()),
        ("columns", workload.columns.is_some()),
        ("where", workload.filters.is_some()),
        ("time_unit", workload.time_unit.is_some()),
        ("lenient", workload.lenient.is_some()),
        ("start_s", workload.start_s.is_some()),
        ("end_s", workload.end_s.is_some()),
        ("sample", workload.sample.is_some()),
        ("max_output_tokens", workload.max_output_tokens.is_some()),
        ("over_limit", workload.over_limit.is_some()),
        ("spread_ms", workload.spread_ms.is_some()),
        ("answers_are_cached", workload.answers_are_cached.is_some()),
        ("closed_loop", workload.closed_loop.is_some()),
    ];
    if let Some((key, _)) = of_traces.iter().find(|(_, given)| *given) {
        return Err(fault(format!("workload.{key}"), "belongs to a trace, but none is named")
            .help("add trace = \"...\""));
    }
    let missing = |key: &str| {
        fault("workload", format!("a drawn workload needs `{key}`"))
            .help("name a trace, or give requests, arrivals, prompt_tokens and output_tokens")
    };
    let rate_scale = positive("workload.rate_scale", workload.rate_scale.unwrap_or(1.0))?;
    if let Some(written) = &workload.servegen {
        return clients(workload, written, rate_scale, folder);
    }
    let demand = match (&workload.users, &workload.arrivals) {
        (Some(_), Some(_)) => {
            return Err(fault("workload.users", "users send by themselves; arrivals are for open workloads")
                .help("leave out either `users` or `arrivals`"));
        }
        (Some(_), None) if workload.sessions.is_some() => {
            return Err(fault("workload.sessions", "sessions begin by `arrivals`, not by users")
                .help("give arrivals = { rate_per_s = ... } instead of users"));
        }
        (Some(users), None) => Demand::Users(
            at_least_one("workload.users.count", users.count)?,
            think("workload.users.think", users.think)?,
        ),
        (None, None) => return Err(missing("arrivals")),
        (None, Some(written)) => {
            let arrivals = arrivals(written, rate_scale)?;
            match &workload.sessions {
                None => Demand::Open(arrivals),
                Some(sessions) => Demand::Sessions(
                    arrivals,
                    Turns {
                        count: lengths("workload.sessions.turns", &sessions.turns, folder)?,
                        think: think("workload.sessions.think", sessions.think)?,
                        max_prompt_tokens: workload.max_prompt_tokens.unwrap_or(u32::MAX),
                    },
                ),
            }
        }
    };
    if workload.max_prompt_tokens.is_some() && workload.sessions.is_none() {
        return Err(fault(
            "workload.max_prompt_tokens",
            "belongs to a trace or to sessions, and there are none",
        )
        .help("set the `max` of prompt_tokens"));
    }
    let tokens = match (&workload.lengths_of, &workload.prompt_tokens, &workload.output_tokens) {
        (Some(trace), None, None) => Tokens::Pairs(pairs("workload.lengths_of", trace, folder)?),
        (Some(_), _, _) => {
            return Err(fault("workload.lengths_of", "takes the place of prompt_tokens and output_tokens")
                .help("leave out either this or those"));
        }
        (None, prompt, output) => Tokens::Apart {
            prompt: lengths(
                "workload.prompt_tokens",
                prompt.as_ref().ok_or_else(|| missing("prompt_tokens"))?,
                folder,
            )?,
            output: lengths(
                "workload.output_tokens",
                output.as_ref().ok_or_else(|| missing("output_tokens"))?,
                folder,
            )?,
        },
    };
    let requests = workload.requests.ok_or_else(|| missing("requests"))?;
    if let Demand::Open(arrivals) = &demand {
        within_clock("workload.arrivals.rate_per_s", f64::from(requests) / arrivals.rate_per_s)
            .map_err(|fault| fault.help("at this rate the last request would come after a hundred days"))?;
    }
    let classes = classes(workload.classes.as_ref(), folder)?;
    let prefixes = workload.prefixes.as_ref().map(prefixes).transpose()?;
    Ok(Drawn { requests, demand, tokens, prefixes, classes })
}

/// Clients bring their arrivals and lengths; prefixes and classes may be laid over them.
fn clients(
    workload: &WorkloadFile,
    written: &ServeGenFile,
    rate_scale: f64,
    folder: &Path,
) -> Result<Drawn, Fault> {
    let others = [
        ("arrivals", workload.arrivals.is_some()),
        ("users", workload.users.is_some()),
        ("sessions", workload.sessions.is_some()),
        ("prompt_tokens", workload.prompt_tokens.is_some()),
        ("output_tokens", workload.output_tokens.is_some()),
        ("lengths_of", workload.lengths_of.is_some()),
        ("max_prompt_tokens", workload.max_prompt_tokens.is_some()),
    ];
    let lengths = workload
        .classes
        .iter()
        .flatten()
        .any(|class| class.prompt_tokens.is_some() || class.output_tokens.is_some());
    if lengths {
        return Err(fault("workload.classes", "have lengths, which the clients of `servegen` bring")
            .help("leave out prompt_tokens and output_tokens of the classes"));
    }
    if let Some((key, _)) = others.iter().find(|(_, given)| *given) {
        return Err(fault(format!("workload.{key}"), "is already said by the clients of `servegen`")
            .help("leave out either `servegen` or this"));
    }
    let path = "workload.servegen";
    let start_s = within_clock(path, not_negative(&format!("{path}.start_s"), written.start_s)?)?;
    let duration_s = within_clock(path, positive(&format!("{path}.duration_s"), written.duration_s)?)?;
    let clients = Clients::read(&folder.join(&written.path), start_s, duration_s, rate_scale)
        .map_err(|error| fault(format!("{path}.path"), error))?;
    let expected = clients.rate_per_s() * duration_s;
    if expected > MOST_DRAWN && workload.requests.is_none() {
        let hint = format!(
            "set workload.requests, a shorter duration_s, or rate_scale = {:.4}",
            MOST_DRAWN / expected
        );
        return Err(fault(path, format!("about {expected:.0} requests are more than can be held")).help(hint));
    }
    Ok(Drawn {
        requests: workload.requests.unwrap_or(u32::MAX),
        demand: Demand::Clients(Arc::new(clients)),
        tokens: Tokens::OfClients,
        prefixes: workload.prefixes.as_ref().map(prefixes).transpose()?,
        classes: classes(workload.classes.as_ref(), folder)?,
    })
}

/// Requests that are drawn and held at once, at most.
const MOST_DRAWN: f64 = 1e8;

fn arrivals(arrivals: &ArrivalsFile, rate_scale: f64) -> Result<Arrivals, Fault> {
    let path = "workload.arrivals";
    let cv = |of: fn(f64) -> ArrivalProcess, name: &str| match arrivals.cv {
        Some(cv) => positive(&format!("{path}.cv"), cv).map(of),
        None => Err(fault(path, format!("process = \"{name}\" needs `cv`")).help("add cv = 2.0")),
    };
    if arrivals.cv.is_some() && !matches!(arrivals.process, ProcessFile::Gamma | ProcessFile::Weibull) {
        return Err(fault(format!("{path}.cv"), "only process = \"gamma\" and \"weibull\" have a cv")
            .help("leave it out"));
    }
    if !arrivals.states.is_empty() && arrivals.process != ProcessFile::Mmpp {
        return Err(
            fault(format!("{path}.states"), "only process = \"mmpp\" has states").help("leave them out")
        );
    }
    let mut rate_per_s = arrivals.rate_per_s;
    let process = match arrivals.process {
        ProcessFile::Poisson => ArrivalProcess::Poisson,
        ProcessFile::Deterministic => ArrivalProcess::Deterministic,
        ProcessFile::Gamma => cv(|cv| ArrivalProcess::Gamma { cv }, "gamma")?,
        ProcessFile::Weibull => cv(|cv| ArrivalProcess::Weibull { cv }, "weibull")?,
        ProcessFile::Mmpp => {
            if arrivals.rate_per_s.is_some() {
                return Err(fault(
                    format!("{path}.rate_per_s"),
                    "the rate of \"mmpp\" follows from its states",
                )
                .help("leave it out, or set workload.rate_scale"));
            }
            if arrivals.states.len() < 2 {
                return Err(fault(path, "process = \"mmpp\" needs at least two `states`")
                    .help("states = [{ rate_per_s = 2, mean_duration_s = 60 }, { rate_per_s = 20, mean_duration_s = 5 }]"));
            }
            let (mut arrived, mut lasted) = (0.0, 0.0);
            for (index, state) in arrivals.states.iter().enumerate() {
                not_negative(&format!("{path}.states.{index}.rate_per_s"), state.rate_per_s)?;
                let duration =
                    positive(&format!("{path}.states.{index}.mean_duration_s"), state.mean_duration_s)?;
                arrived += state.rate_per_s * duration;
                lasted += duration;
            }
            let mean = positive(&format!("{path}.states"), arrived / lasted)?;
            rate_per_s = Some(mean);
            let state = |state: &crate::scenario::file::StateFile| State {
                factor: state.rate_per_s / mean,
                mean_duration_s: state.mean_duration_s,
            };
            ArrivalProcess::Mmpp { states: arrivals.states.iter().map(state).collect() }
        }
    };
    let rate = rate_per_s.ok_or_else(|| fault(path, "needs `rate_per_s`").help("add rate_per_s = 10.0"))?;
    let rate_per_s = positive(&format!("{path}.rate_per_s"), rate)? * rate_scale;
    let modulations = arrivals
        .modulation
        .iter()
        .enumerate()
        .map(|(index, written)| modulation(&format!("{path}.modulation.{index}"), written));
    Ok(Arrivals { rate_per_s, process, modulations: modulations.collect::<Result<_, _>>()? })
}

fn modulation(path: &str, written: &crate::scenario::file::ModulationFile) -> Result<Modulation, Fault> {
    use crate::scenario::file::ModulationFile as File;
    let at = |key: &str| format!("{path}.{key}");
    match *written {
        File::Diurnal { period_s, amplitude, phase_s } => {
            positive(&at("period_s"), period_s)?;
            if !(0.0..=1.0).contains(&amplitude) {
                return Err(fault(at("amplitude"), format!("expected 0 to 1, got {amplitude}")));
            }
            if !phase_s.is_finite() {
                return Err(fault(at("phase_s"), "expected seconds"));
            }
            Ok(Modulation::Diurnal { period_s, amplitude, phase_s })
        }
        File::Ramp { start_s, end_s, from, to } => {
            not_negative(&at("start_s"), start_s)?;
            if end_s.is_nan() || end_s <= start_s {
                return Err(
                    fault(at("end_s"), "the ramp ends before it begins").help("end_s lies above start_s")
                );
            }
            not_negative(&at("from"), from)?;
            // A rate that falls to nothing for ever would never bring the last requests.
            positive(&at("to"), to)?;
            Ok(Modulation::Ramp { start_s, end_s, from, to })
        }
        File::Spike { at_s, duration_s, factor } => {
            not_negative(&at("at_s"), at_s)?;
            positive(&at("duration_s"), duration_s)?;
            not_negative(&at("factor"), factor)?;
            Ok(Modulation::Spike { at_s, duration_s, factor })
        }
    }
}

fn think(path: &str, think: ThinkFile) -> Result<Think, Fault> {
    let at = |key: &str| format!("{path}.{key}");
    Ok(match think {
        ThinkFile::Fixed { seconds } => Think::Fixed { seconds: not_negative(&at("seconds"), seconds)? },
        ThinkFile::Exponential { mean_s } => Think::Exponential { mean_s: positive(&at("mean_s"), mean_s)? },
        ThinkFile::Lognormal { mean_s, std_s } => Think::LogNormal {
            mean_s: positive(&at("mean_s"), mean_s)?,
            std_s: positive(&at("std_s"), std_s)?,
        },
    })
}

fn prefixes(prefixes: &PrefixesFile) -> Result<Prefixes, Fault> {
    let path = "workload.prefixes";
    let single = [prefixes.groups.is_some(), prefixes.tokens.is_some(), prefixes.zipf_exponent.is_some()];
    let level = |path: &str, groups: u32, tokens: u32, zipf_exponent: f64| {
        Ok::<Level, Fault>(Level {
            groups: at_least_one(&format!("{path}.groups"), groups)?,
            tokens: at_least_one(&format!("{path}.tokens"), tokens)?,
            zipf_exponent: not_negative(&format!("{path}.zipf_exponent"), zipf_exponent)?,
        })
    };
    if prefixes.levels.is_empty() {
        let missing =
            |key: &str| fault(path, format!("needs `{key}`")).help("or a tree: levels = [{ ... }, ...]");
        let groups = prefixes.groups.ok_or_else(|| missing("groups"))?;
        let tokens = prefixes.tokens.ok_or_else(|| missing("tokens"))?;
        return Ok(Prefixes {
            levels: vec![level(path, groups, tokens, prefixes.zipf_exponent.unwrap_or(0.0))?],
        });
    }
    if single.contains(&true) {
        return Err(fault(format!("{path}.levels"), "takes the place of groups, tokens and zipf_exponent")
            .help("leave out either this or those"));
    }
    let levels = prefixes.levels.iter().enumerate().map(|(index, written)| {
        level(&format!("{path}.levels.{index}"), written.groups, written.tokens, written.zipf_exponent)
    });
    Ok(Prefixes { levels: levels.collect::<Result<_, _>>()? })
}
