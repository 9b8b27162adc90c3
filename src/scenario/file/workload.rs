//! The keys of `[workload]` as written.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{LimitsFile, PredictionFile};

/// Where requests come from: a trace, or parameters to draw from.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct WorkloadFile {
    /// A trace, relative to this scenario: a file, packed or not, or a folder or archive of one file a session.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trace: Option<String>,
    /// The trace's format, where its content does not tell (`tailcast list formats`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub format: Option<String>,
    /// Which column or key of any CSV or JSON lines holds what: arrived, prompt_tokens, output_tokens, and max_tokens,
    /// session, priority, prefix, prefix_tokens, blocks, block_tokens if there are any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub columns: Option<BTreeMap<String, String>>,
    /// Only rows whose columns or keys have these values; with `columns`.
    #[serde(rename = "where", skip_serializing_if = "Option::is_none")]
    pub filters: Option<BTreeMap<String, String>>,
    /// What a number in the column `arrived` counts; seconds unless given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub time_unit: Option<TimeUnitFile>,
    /// Whether rows that cannot be read are left out and counted, instead of refusing the trace.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lenient: Option<bool>,
    /// Requests of the trace from here on only, seconds after its first, which becomes the new beginning.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub start_s: Option<f64>,
    /// Requests of the trace before this only, seconds after its first.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub end_s: Option<f64>,
    /// This share of the trace's sessions, or of the groups that share a prefix where there are no sessions.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sample: Option<f64>,
    /// Longer prompts are cut or left out, as `over_limit` says; of sessions that are drawn, the session ends there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_prompt_tokens: Option<u32>,
    /// Longer outputs are cut or left out, as `over_limit` says.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_output_tokens: Option<u32>,
    /// What happens to requests beyond these limits; "drop" unless given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub over_limit: Option<OverLimitFile>,
    /// The trace's times were rounded to a grid of this: each request is moved back by a draw from it, milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub spread_ms: Option<f64>,
    /// Whether the answers of a session are part of its next prompts, where the trace's identities show it; true unless
    /// given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub answers_are_cached: Option<bool>,
    /// Whether requests wait for the answers they waited for when the trace was recorded; true unless given. If not, they
    /// are sent when they were sent then.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub closed_loop: Option<bool>,
    /// Arrivals this many times as fast. Think time stays as it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rate_scale: Option<f64>,
    /// The trace so many times in a row, each time with prefix identities of its own; 1 unless given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rounds: Option<u32>,
    /// Whether the trace is read while it is replayed and never held whole. It must be in order of time, and cannot
    /// be resampled.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub streamed: Option<bool>,
    /// Only the first so many requests of the trace (of all its rounds), or how many are drawn.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub requests: Option<u32>,
    /// When requests are sent, or sessions begin. Beside a trace it takes the place of the times of its sessions.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub arrivals: Option<ArrivalsFile>,
    /// Instead of `arrivals`: users who send again when they have their answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub users: Option<UsersFile>,
    /// Instead of all that follows: clients as ServeGen publishes them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub servegen: Option<ServeGenFile>,
    /// Turns of the sessions that `arrivals` begins; without it every request stands alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sessions: Option<SessionsFile>,
    /// Prompt lengths, shared prefixes not counted; of sessions, what each turn adds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prompt_tokens: Option<LengthsFile>,
    /// Output lengths.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub output_tokens: Option<LengthsFile>,
    /// Instead of both: pairs of lengths from this trace, drawn with replacement, so that long prompts keep their outputs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lengths_of: Option<String>,
    /// Prefixes that requests share.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prefixes: Option<PrefixesFile>,
    /// Tenants or levels of service: results show each apart.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub classes: Option<Vec<ClassFile>>,
    /// Whether routers are told a predicted output length, and how good it is.
    pub prediction: PredictionFile,
}

impl WorkloadFile {
    /// Paths of the traces whose lengths are drawn from, and of clients.
    pub fn length_traces(&mut self) -> Vec<&mut String> {
        fn of(lengths: &mut LengthsFile) -> Vec<&mut String> {
            match lengths {
                LengthsFile::Empirical { trace } => vec![trace],
                LengthsFile::Mixture { parts } => {
                    parts.iter_mut().flat_map(|part| of(&mut part.lengths)).collect()
                }
                _ => Vec::new(),
            }
        }
        let classes = self.classes.iter_mut().flatten();
        let of_classes = classes.flat_map(|class| [&mut class.prompt_tokens, &mut class.output_tokens]);
        let all = [&mut self.prompt_tokens, &mut self.output_tokens].into_iter().chain(of_classes);
        let lengths = all.flatten().flat_map(of);
        let clients = self.servegen.iter_mut().map(|servegen| &mut servegen.path);
        self.lengths_of.iter_mut().chain(clients).chain(lengths).collect()
    }
}

/// Units of time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum TimeUnitFile {
    /// Seconds.
    #[serde(rename = "s")]
    Seconds,
    /// Milliseconds.
    #[serde(rename = "ms")]
    Milliseconds,
    /// Microseconds.
    #[serde(rename = "us")]
    Microseconds,
    /// Nanoseconds.
    #[serde(rename = "ns")]
    Nanoseconds,
}

/// What happens to requests that are too long.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum OverLimitFile {
    /// They are left out, and counted.
    Drop,
    /// They are cut to the limit, and counted.
    Clip,
}

/// When requests are sent.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ArrivalsFile {
    /// Gaps between arrivals.
    #[serde(default)]
    pub process: ProcessFile,
    /// Mean arrivals a second, before it is modulated. Of `mmpp` it follows from the states.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate_per_s: Option<f64>,
    /// Standard deviation of the gaps over their mean; of `gamma` and `weibull` only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cv: Option<f64>,
    /// Of `mmpp` only: states that follow each other.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub states: Vec<StateFile>,
    /// How the rate changes with time; several are multiplied.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub modulation: Vec<ModulationFile>,
}

/// Gaps between arrivals.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum ProcessFile {
    /// Exponential.
    #[default]
    Poisson,
    /// All equal.
    Deterministic,
    /// Gamma with a given coefficient of variation.
    Gamma,
    /// Weibull with a given coefficient of variation.
    Weibull,
    /// Exponential, at a rate that depends on a state which changes by chance.
    Mmpp,
}

/// A state of `mmpp`.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct StateFile {
    /// Arrivals a second in it.
    pub rate_per_s: f64,
    /// Mean of its exponential duration, seconds.
    pub mean_duration_s: f64,
}

/// How the rate changes with time.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "shape", rename_all = "kebab-case", deny_unknown_fields)]
pub enum ModulationFile {
    /// Up and down as a sine: 1 + amplitude sin(2 pi (t - phase) / period).
    Diurnal {
        /// Seconds of a whole day.
        period_s: f64,
        /// 0 is flat, 1 falls to nothing.
        amplitude: f64,
        /// When it first rises through the mean, seconds.
        #[serde(default)]
        phase_s: f64,
    },
    /// From one factor to another in a straight line.
    Ramp {
        /// Where it begins, seconds.
        start_s: f64,
        /// Where it ends, seconds.
        end_s: f64,
        /// Factor before it.
        from: f64,
        /// Factor after it.
        to: f64,
    },
    /// A factor for a while.
    Spike {
        /// Where it begins, seconds.
        at_s: f64,
        /// How long it lasts, seconds.
        duration_s: f64,
        /// The factor.
        factor: f64,
    },
}

/// Users who wait for their answers.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct UsersFile {
    /// How many.
    pub count: u32,
    /// Between an answer and the next request.
    pub think: ThinkFile,
}

/// A mix of clients as ServeGen publishes them.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ServeGenFile {
    /// The folder or archive with `chunk-N-trace.csv` and `chunk-N-dataset.json`, relative to this scenario.
    pub path: String,
    /// Where in the published days the workload begins, seconds.
    #[serde(default)]
    pub start_s: f64,
    /// How much of them it takes, seconds.
    pub duration_s: f64,
}

/// The turns of a session: each prompt begins with all that was said before.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SessionsFile {
    /// How many turns a session has.
    pub turns: LengthsFile,
    /// Between an answer and the next turn.
    pub think: ThinkFile,
}

/// Time between an answer and what follows it.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "distribution", rename_all = "kebab-case", deny_unknown_fields)]
pub enum ThinkFile {
    /// Always the same.
    Fixed {
        /// Seconds.
        seconds: f64,
    },
    /// Exponential.
    Exponential {
        /// Mean seconds.
        mean_s: f64,
    },
    /// Log-normal.
    Lognormal {
        /// Mean seconds.
        mean_s: f64,
        /// Standard deviation in seconds.
        std_s: f64,
    },
}

fn one_u32() -> u32 {
    1
}

/// How long prompts or outputs are.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "distribution", rename_all = "kebab-case", deny_unknown_fields)]
pub enum LengthsFile {
    /// All alike.
    Fixed {
        /// Their length.
        tokens: u32,
    },
    /// All whole numbers from `min` to `max`, equally likely.
    Uniform {
        /// Least.
        min: u32,
        /// Most.
        max: u32,
    },
    /// Log-normal, by mean and standard deviation of the tokens, cut to `min` and `max`.
    Lognormal {
        /// Mean tokens.
        mean: f64,
        /// Standard deviation in tokens.
        std: f64,
        /// Least, 1 unless given.
        #[serde(default = "one_u32")]
        min: u32,
        /// Most.
        max: u32,
    },
    /// A heavy tail: longer than x with a chance of (min / x)^alpha, cut at `max`.
    Pareto {
        /// Least.
        min: u32,
        /// The tail's exponent: the smaller, the heavier.
        alpha: f64,
        /// Most.
        max: u32,
    },
    /// The k-th length from `min` on with a chance in proportion to 1 / k^exponent.
    Zipf {
        /// Least, and most frequent; 1 unless given.
        #[serde(default = "one_u32")]
        min: u32,
        /// Most.
        max: u32,
        /// How fast frequency falls.
        exponent: f64,
    },
    /// As often as in a trace, relative to this scenario.
    Empirical {
        /// The trace.
        trace: String,
    },
    /// Straight between points of the distribution, as `tailcast trace fit` finds them.
    Quantiles {
        /// [share of requests at most so long, tokens], both rising, from share 0 to share 1.
        points: Vec<(f64, u32)>,
    },
    /// One of several, by weight.
    Mixture {
        /// The several.
        parts: Vec<MixtureFile>,
    },
}

/// A part of a mixture.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct MixtureFile {
    /// How often, relative to the other parts.
    pub weight: f64,
    /// What is drawn then.
    pub lengths: LengthsFile,
}

/// Prefixes that requests share: system prompts, documents.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PrefixesFile {
    /// How many different ones.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub groups: Option<u32>,
    /// Tokens of each, on top of the prompt length.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tokens: Option<u32>,
    /// Popularity falls as 1 / rank^exponent; 0 is uniform.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub zipf_exponent: Option<f64>,
    /// Instead of these: a tree, from the root outwards. A system prompt is a level of one group, documents are a second.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub levels: Vec<LevelFile>,
}

/// A level of shared texts.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LevelFile {
    /// How many different ones below each of the level before.
    pub groups: u32,
    /// Tokens of each, on top of the prompt length.
    pub tokens: u32,
    /// Popularity falls as 1 / rank^exponent; 0 is uniform.
    #[serde(default)]
    pub zipf_exponent: f64,
}

/// A tenant or level of service.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ClassFile {
    /// What results call it.
    pub name: String,
    /// How often its requests (or sessions) come, relative to the others.
    pub share: f64,
    /// Lower is more urgent; heeded where `scheduling_policy` is "priority".
    #[serde(default)]
    pub priority: i32,
    /// Prompt lengths of its own; the workload's unless given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prompt_tokens: Option<LengthsFile>,
    /// Output lengths of its own; the workload's unless given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output_tokens: Option<LengthsFile>,
    /// The LoRA adapter its requests ask for: prefixes are shared within one adapter only, as vLLM keys its blocks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lora: Option<String>,
    /// What its requests must meet to count as good; `[slo.goodput]` unless given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub goodput: Option<LimitsFile>,
    /// What routers are told of its output lengths; `[workload.prediction]` unless given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prediction: Option<PredictionFile>,
}
