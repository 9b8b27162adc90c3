//! From keys to meaning: validates a scenario file and fills in what it leaves open.
//!
//! After this nothing can fail but reading a trace: every number is in its range, every name is known, and
//! every replica can start.

use std::fmt::Display;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::error::{ScenarioError, nearest_or_all};
use super::file::{
    EndFile, EndWord, KvCacheDtypeFile, LengthsFile, LimitsFile, PredictorFile, ProcessFile,
    QuantizationFile, ReplicaFile, ResampleFile, ScenarioFile, SchedulingPolicyFile, StepTimeFile,
};
use crate::fleet::{End, Network};
use crate::hardware::defaults::Deployment;
use crate::hardware::gpus::{Gpu, gpu, gpus};
use crate::hardware::memory::{CannotStart, KvCapacity};
use crate::hardware::models::{KvCacheDtype, Model, WeightDtype, model, models};
use crate::metrics::Objectives;
use crate::random::Seed;
use crate::replica::{EngineConfig, SchedulingPolicy};
use crate::router::{Facts, Freshness, POLICIES, PolicyError, policies};
use crate::step_time::StepTime;
use crate::step_time::affine::Affine;
use crate::step_time::roofline::Roofline;
use crate::time::{Span, Time};
use crate::workload::drawn::{ArrivalProcess, Drawn, Lengths, Prefixes};
use crate::workload::predictor::Predictor;

/// The version of vLLM whose scheduler is modelled.
const MODELLED_VERSION: &str = "0.24";

/// A scenario as run.
#[derive(Clone, Debug)]
pub struct Scenario {
    /// What it shows.
    pub title: String,
    /// All randomness follows from it.
    pub seed: Seed,
    /// Independent repetitions.
    pub repeat: u32,
    /// Requests sent before are left out of the statistics.
    pub warmup: Span,
    /// When a run ends.
    pub end: End,
    /// Where requests come from.
    pub workload: Workload,
    /// What routers are told of output lengths.
    pub predictor: Predictor,
    /// Kinds of replicas, in the file's order.
    pub replicas: Vec<ReplicaKind>,
    /// How requests are sent to them.
    pub router: RouterPlan,
    /// Delays.
    pub network: Network,
    /// Limits of a good request.
    pub goodput: Objectives,
    /// Limits of the run's 99th percentiles.
    pub p99: Objectives,
    /// Why figures are less certain than usual.
    pub marks: Vec<String>,
}

/// Where requests come from.
#[derive(Clone, Debug, PartialEq)]
pub enum Workload {
    /// Drawn from parameters.
    Drawn(Drawn),
    /// Replayed from a trace.
    Trace {
        /// The file.
        path: PathBuf,
        /// Its format, where given.
        format: Option<String>,
        /// Arrivals this many times as fast.
        rate_scale: f64,
        /// Only the first so many.
        requests: Option<u32>,
        /// What differs between repetitions.
        resample: Option<Resample>,
    },
}

/// What differs between repetitions of a trace.
pub use crate::workload::replay::Resample;

/// Replicas that are alike.
#[derive(Clone, Debug)]
pub struct ReplicaKind {
    /// For people: "Llama-3.1-8B on h100-sxm".
    pub name: String,
    /// How many.
    pub count: u32,
    /// Their flags and their price list.
    pub facts: Facts,
    /// Where their memory goes.
    pub capacity: Option<KvCapacity>,
}

/// The router as run.
#[derive(Clone, Debug)]
pub struct RouterPlan {
    /// The policy's name.
    pub policy: String,
    /// Its parameters.
    pub parameters: toml::Table,
    /// Gateways.
    pub gateways: u32,
    /// How old the gauges are.
    pub freshness: Freshness,
    /// Between a decision and its effect.
    pub decision_gap: Span,
}

/// A mistake at a key.
#[derive(Clone, Debug)]
pub(super) struct Fault {
    path: String,
    message: String,
    help: Option<String>,
}

impl Fault {
    pub(super) fn locate(self, file: &str, text: &str) -> ScenarioError {
        let error = ScenarioError::at(file, text, &self.path, self.message);
        match self.help {
            Some(help) => error.help(help),
            None => error,
        }
    }

    fn help(mut self, help: impl Into<String>) -> Fault {
        self.help = Some(help.into());
        self
    }
}

fn fault(path: impl Into<String>, message: impl Into<String>) -> Fault {
    Fault { path: path.into(), message: message.into(), help: None }
}

fn positive(path: &str, value: f64) -> Result<f64, Fault> {
    if value.is_finite() && value > 0.0 {
        Ok(value)
    } else {
        Err(fault(path, format!("expected a number above 0, got {value}")))
    }
}

fn not_negative(path: &str, value: f64) -> Result<f64, Fault> {
    if value.is_finite() && value >= 0.0 {
        Ok(value)
    } else {
        Err(fault(path, format!("expected 0 or a number above it, got {value}")))
    }
}

fn at_least_one(path: &str, value: u32) -> Result<u32, Fault> {
    if value >= 1 { Ok(value) } else { Err(fault(path, "expected a whole number of at least 1, got 0")) }
}

fn span_ms(path: &str, ms: f64) -> Result<Span, Fault> {
    not_negative(path, ms).map(Span::from_ms_f64)
}

/// Longest time that a scenario may name: a hundred days, well inside what a clock of picoseconds holds.
const LONGEST_S: f64 = 100.0 * 86_400.0;

fn within_clock(path: &str, seconds: f64) -> Result<f64, Fault> {
    if seconds <= LONGEST_S {
        Ok(seconds)
    } else {
        Err(fault(path, format!("expected at most {LONGEST_S} s, got {seconds}")))
    }
}

pub(super) fn resolve(file: &ScenarioFile, folder: &Path) -> Result<Scenario, Fault> {
    let workload = workload(file, folder)?;
    check_repetitions(file, &workload)?;
    let warmup_s = within_clock("warmup_s", not_negative("warmup_s", file.warmup_s)?)?;
    let end = match file.end {
        EndFile::Word(EndWord::Drain) => End::Drain,
        EndFile::Seconds(seconds) => {
            let seconds = within_clock("end", positive("end", seconds)?)?;
            if warmup_s >= seconds {
                return Err(fault(
                    "warmup_s",
                    format!("the warm-up ({warmup_s} s) does not end before the run ({seconds} s)"),
                ));
            }
            End::At(Time::ZERO + Span::from_s_f64(seconds))
        }
    };
    if file.replicas.is_empty() {
        return Err(fault("replicas", "there is no [[replicas]] table").help("add one with model and gpu"));
    }
    let mut marks = Vec::new();
    let mut replicas = Vec::new();
    for (index, kind) in file.replicas.iter().enumerate() {
        replicas.push(replica_kind(index, kind, &mut marks)?);
    }
    let most = 100_000;
    if replicas.iter().map(|kind| u64::from(kind.count)).sum::<u64>() > most {
        return Err(fault("replicas.0.count", format!("expected at most {most} replicas in all")));
    }
    let router = router(file, &mut marks)?;
    let network = &file.network;
    marks.dedup();
    Ok(Scenario {
        title: file.title.clone(),
        seed: Seed(file.seed),
        repeat: file.repeat,
        warmup: Span::from_s_f64(warmup_s),
        end,
        workload,
        predictor: predictor(file)?,
        replicas,
        router,
        network: Network {
            client_to_router: span_ms("network.client_to_router_ms", network.client_to_router_ms)?,
            router_to_replica: span_ms("network.router_to_replica_ms", network.router_to_replica_ms)?,
            frontend: span_ms("network.frontend_ms", network.frontend_ms)?,
        },
        goodput: limits("slo.goodput", &file.slo.goodput)?,
        p99: limits("slo.p99", &file.slo.p99)?,
        marks,
    })
}

fn check_repetitions(file: &ScenarioFile, workload: &Workload) -> Result<(), Fault> {
    at_least_one("repeat", file.repeat)?;
    let is_trace = matches!(workload, Workload::Trace { .. });
    match (is_trace, file.resample) {
        (true, None) if file.repeat > 1 => Err(fault(
            "repeat",
            "a replayed trace draws nothing by itself, so repetitions would all be the same",
        )
        .help("say what varies: resample = \"time-blocks\" or \"jitter\"")),
        (false, Some(_)) => {
            Err(fault("resample", "a drawn workload varies by itself; resample is for traces")
                .help("leave it out"))
        }
        _ => Ok(()),
    }
}

fn limits(path: &str, limits: &LimitsFile) -> Result<Objectives, Fault> {
    let limit = |key: &str, value: Option<f64>| {
        value.map(|ms| positive(&format!("{path}.{key}"), ms).map(Span::from_ms_f64)).transpose()
    };
    Ok(Objectives {
        ttft: limit("ttft_ms", limits.ttft_ms)?,
        tpot: limit("tpot_ms", limits.tpot_ms)?,
        e2e: limit("e2e_ms", limits.e2e_ms)?,
    })
}

fn workload(file: &ScenarioFile, folder: &Path) -> Result<Workload, Fault> {
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
        return Ok(Workload::Trace {
            path: folder.join(trace),
            format: workload.format.clone(),
            rate_scale: positive("workload.rate_scale", workload.rate_scale.unwrap_or(1.0))?,
            requests: workload.requests,
            resample: file.resample.map(|resample| match resample {
                ResampleFile::TimeBlocks => Resample::TimeBlocks,
                ResampleFile::Jitter => Resample::Jitter,
            }),
        });
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

/// Most tokens a length may name: far beyond any model, and far below what would overflow a sum.
const MOST_TOKENS: u32 = 100_000_000;

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

fn predictor(file: &ScenarioFile) -> Result<Predictor, Fault> {
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

fn catalogue_entry(path: &str, file: &ReplicaFile) -> Result<(&'static Gpu, &'static Model), Fault> {
    let unknown = |key: &str, message: String, known: Vec<&str>, wrong: &str, list: &str| {
        fault(format!("{path}.{key}"), message)
            .help(format!("{} (`tailcast list {list}` shows all)", nearest_or_all(wrong, &known)))
    };
    let card = gpu(&file.gpu).map_err(|_| {
        let known = gpus().iter().map(|gpu| gpu.name.as_str()).collect();
        unknown("gpu", format!("no GPU `{}` is in the catalogue", file.gpu), known, &file.gpu, "gpus")
    })?;
    let shape = model(&file.model).map_err(|_| {
        let known = models().iter().map(|model| model.name.as_str()).collect();
        let short = file.model.rsplit('/').next().unwrap_or_default();
        unknown("model", format!("no model `{}` is in the catalogue", file.model), known, short, "models")
    })?;
    Ok((card, shape))
}

fn deployment(path: &str, file: &ReplicaFile, card: &Gpu, shape: &Model) -> Result<Deployment, Fault> {
    let at = |key: &str| format!("{path}.{key}");
    let defaults = Deployment::defaults(card, shape);
    let max_model_len = file.max_model_len.unwrap_or(defaults.max_model_len);
    if max_model_len > shape.max_position {
        return Err(fault(
            at("max_model_len"),
            format!("{max_model_len} is more than the {} positions of {}", shape.max_position, shape.name),
        ));
    }
    if max_model_len < 2 {
        return Err(fault(at("max_model_len"), "a prompt and an answer need at least 2 tokens"));
    }
    let utilization = file.gpu_memory_utilization.unwrap_or(defaults.gpu_memory_utilization);
    if !(utilization > 0.0 && utilization <= 1.0) {
        return Err(fault(
            at("gpu_memory_utilization"),
            format!("expected a share above 0 and up to 1, got {utilization}"),
        ));
    }
    let block_size = file.block_size.unwrap_or(defaults.block_size);
    if ![1, 8, 16, 32, 64, 128, 256].contains(&block_size) {
        return Err(fault(
            at("block_size"),
            format!("expected 1, 8, 16, 32, 64, 128 or 256, got {block_size}"),
        ));
    }
    let max_num_seqs = at_least_one(&at("max_num_seqs"), file.max_num_seqs.unwrap_or(defaults.max_num_seqs))?;
    // vLLM caps its own default at what the sequences could fill; one that is written stands.
    let default_budget = defaults.max_num_batched_tokens.min(max_num_seqs.saturating_mul(max_model_len));
    let mut max_num_batched_tokens = file.max_num_batched_tokens.unwrap_or(default_budget);
    if file.max_num_batched_tokens.is_none() && !file.enable_chunked_prefill {
        max_num_batched_tokens = max_num_batched_tokens.max(max_model_len);
    }
    at_least_one(&at("max_num_batched_tokens"), max_num_batched_tokens)?;
    let max_num_seqs =
        if file.max_num_seqs.is_none() { max_num_seqs.min(max_num_batched_tokens) } else { max_num_seqs };
    let most_budget = 1 << 20;
    if max_num_batched_tokens > most_budget {
        return Err(fault(at("max_num_batched_tokens"), format!("expected at most {most_budget}")));
    }
    if max_num_batched_tokens < max_num_seqs {
        return Err(fault(
            at("max_num_batched_tokens"),
            format!("{max_num_batched_tokens} is below max_num_seqs = {max_num_seqs}; vLLM refuses to start"),
        ));
    }
    if !file.enable_chunked_prefill && max_num_batched_tokens < max_model_len {
        return Err(fault(
            at("max_num_batched_tokens"),
            format!(
                "without chunked prefill a prompt of max_model_len = {max_model_len} must fit the budget of \
                 {max_num_batched_tokens}; vLLM refuses to start"
            ),
        ));
    }
    if file.long_prefill_token_threshold > max_model_len {
        return Err(fault(
            at("long_prefill_token_threshold"),
            format!("more than max_model_len = {max_model_len}; vLLM refuses to start"),
        ));
    }
    if !(0.0..1.0).contains(&file.watermark) {
        return Err(fault(
            at("watermark"),
            format!("expected a share from 0 up to 1, got {}", file.watermark),
        ));
    }
    Ok(Deployment {
        tensor_parallel_size: at_least_one(&at("tensor_parallel_size"), file.tensor_parallel_size)?,
        gpu_memory_utilization: utilization,
        max_num_batched_tokens,
        max_num_seqs,
        max_model_len,
        block_size,
        kv_cache_dtype: match file.kv_cache_dtype {
            KvCacheDtypeFile::Auto => KvCacheDtype::Auto,
            KvCacheDtypeFile::Fp8 => KvCacheDtype::Fp8,
        },
        weight_dtype: match file.quantization {
            QuantizationFile::None => WeightDtype::Auto,
            QuantizationFile::Fp8 => WeightDtype::Fp8,
        },
        enforce_eager: file.enforce_eager,
    })
}

fn replica_kind(index: usize, file: &ReplicaFile, marks: &mut Vec<String>) -> Result<ReplicaKind, Fault> {
    let path = format!("replicas.{index}");
    at_least_one(&format!("{path}.count"), file.count)?;
    let (card, shape) = catalogue_entry(&path, file)?;
    let deployment = deployment(&path, file, card, shape)?;
    if let Some(version) =
        file.vllm_version.as_deref().filter(|version| !version.starts_with(MODELLED_VERSION))
    {
        marks
            .push(format!("vllm_version {version}: its scheduler is taken to be that of {MODELLED_VERSION}"));
    }
    let cannot_start =
        |reason: &dyn Display| fault(path.clone(), format!("this replica cannot start: {reason}"));
    let (num_gpu_blocks, capacity) =
        match (KvCapacity::resolve(card, shape, &deployment), file.num_gpu_blocks_override) {
            (Ok(capacity), None) => {
                (u32::try_from(capacity.num_gpu_blocks).unwrap_or(u32::MAX), Some(capacity))
            }
            (Ok(capacity), Some(blocks)) => (blocks, Some(capacity)),
            (Err(CannotStart::SequenceTooLong { .. }), Some(blocks)) => (blocks, None),
            (Err(reason), _) => return Err(cannot_start(&reason)),
        };
    if let Some(capacity) = &capacity {
        marks.extend(capacity.notes.iter().cloned());
    }
    let needed = deployment.max_model_len.div_ceil(deployment.block_size);
    if num_gpu_blocks <= needed {
        return Err(fault(
            format!("{path}.num_gpu_blocks_override"),
            format!(
                "one sequence of max_model_len = {} needs {needed} blocks, and of {num_gpu_blocks} one is the null \
                 block; at most max_model_len = {} would fit",
                deployment.max_model_len,
                u64::from(num_gpu_blocks.saturating_sub(1)) * u64::from(deployment.block_size)
            ),
        )
        .help("lower max_model_len, or raise num_gpu_blocks_override"));
    }
    let step_time: Arc<dyn StepTime> = match &file.step_time {
        StepTimeFile::Roofline => {
            let roofline = Roofline::bind(card, shape, &deployment)
                .map_err(|error| fault(path.clone(), error.to_string()))?;
            marks.extend(roofline.marks().iter().cloned());
            Arc::new(roofline)
        }
        StepTimeFile::Affine { base_us, per_token_us, per_context_token_ns, host_us } => {
            let at = |key: &str| format!("{path}.step_time.{key}");
            Arc::new(Affine {
                base: Span::from_us_f64(positive(&at("base_us"), *base_us)?),
                per_token: Span::from_us_f64(not_negative(&at("per_token_us"), *per_token_us)?),
                per_context_token: Span::from_us_f64(
                    not_negative(&at("per_context_token_ns"), *per_context_token_ns)? / 1_000.0,
                ),
                host: Span::from_us_f64(not_negative(&at("host_us"), *host_us)?),
            })
        }
    };
    let engine = EngineConfig {
        block_size: deployment.block_size,
        num_gpu_blocks,
        max_num_batched_tokens: deployment.max_num_batched_tokens,
        max_num_seqs: deployment.max_num_seqs,
        max_model_len: deployment.max_model_len,
        enable_prefix_caching: file.enable_prefix_caching,
        enable_chunked_prefill: file.enable_chunked_prefill,
        long_prefill_token_threshold: file.long_prefill_token_threshold,
        scheduler_reserve_full_isl: file.scheduler_reserve_full_isl,
        watermark_blocks: (file.watermark * f64::from(num_gpu_blocks)) as u32,
        scheduling_policy: match file.scheduling_policy {
            SchedulingPolicyFile::Fcfs => SchedulingPolicy::Fcfs,
            SchedulingPolicyFile::Priority => SchedulingPolicy::Priority,
        },
        async_scheduling: file.async_scheduling,
        speculation: None,
        kv_load_delay_steps: 0,
        empty_step_sleep: Span::from_ms(1),
    };
    let cards = match deployment.tensor_parallel_size {
        1 => String::new(),
        cards => format!("{cards} x "),
    };
    Ok(ReplicaKind {
        name: format!("{} on {cards}{}", shape.name, card.name),
        count: file.count,
        facts: Facts { engine, step_time },
        capacity,
    })
}

fn router(file: &ScenarioFile, marks: &mut Vec<String>) -> Result<RouterPlan, Fault> {
    let router = &file.router;
    let unknown = |path: &str, name: &str| {
        let known: Vec<&str> = POLICIES.iter().map(|policy| policy.name).collect();
        fault(path, format!("unknown policy `{name}`"))
            .help(format!("{} (`tailcast list policies` shows all)", nearest_or_all(name, &known)))
    };
    for (index, policy) in file.policies.iter().enumerate() {
        policies::find(policy).map_err(|_| unknown(&format!("policies.{index}"), policy))?;
    }
    let info = policies::find(&router.policy).map_err(|_| unknown("router.policy", &router.policy))?;
    policies::build(&router.policy, &router.parameters, Seed(0), 0).map_err(|error| match error {
        PolicyError::Unknown { name } => unknown("router.policy", &name),
        PolicyError::Parameters { reason, .. } => fault("router.parameters", reason),
    })?;
    at_least_one("router.replicas", router.replicas)?;
    let freshness = match (router.view.fresh, router.view.poll_interval_ms) {
        (Some(true), None) => {
            marks.push("routers see fresh gauges, which no product does".into());
            Freshness::Fresh
        }
        (Some(true), Some(_)) => {
            return Err(
                fault("router.view", "fresh gauges are not polled").help("leave out one of the two keys")
            );
        }
        (_, Some(ms)) => {
            let interval = Span::from_ms_f64(positive("router.view.poll_interval_ms", ms)?);
            if interval < Span::from_ms(1) {
                return Err(fault(
                    "router.view.poll_interval_ms",
                    format!("expected at least 1 ms, got {ms}"),
                ));
            }
            Freshness::Polled { interval }
        }
        (_, None) => info.default_freshness,
    };
    Ok(RouterPlan {
        policy: router.policy.clone(),
        parameters: router.parameters.clone(),
        gateways: router.replicas,
        freshness,
        decision_gap: span_ms("router.decision_gap_ms", router.decision_gap_ms)?,
    })
}

/// The file with vLLM's defaults for its cards written out.
pub(super) fn fill_in(file: &ScenarioFile) -> Result<ScenarioFile, Fault> {
    let mut filled = file.clone();
    for (index, kind) in filled.replicas.iter_mut().enumerate() {
        let path = format!("replicas.{index}");
        let (card, shape) = catalogue_entry(&path, kind)?;
        let deployment = deployment(&path, kind, card, shape)?;
        kind.vllm_version.get_or_insert_with(|| MODELLED_VERSION.into());
        kind.gpu_memory_utilization = Some(deployment.gpu_memory_utilization);
        kind.max_model_len = Some(deployment.max_model_len);
        kind.max_num_batched_tokens = Some(deployment.max_num_batched_tokens);
        kind.max_num_seqs = Some(deployment.max_num_seqs);
        kind.block_size = Some(deployment.block_size);
    }
    Ok(filled)
}
