//! Which server a measured run was of: what its meta file says, what vLLM's defaults add, and what had to be assumed.
//!
//! Knows vLLM's names of options and the catalogue. Does not know requests.

use std::borrow::Cow;
use std::sync::Arc;

use serde_json::{Map, Value};

use super::measured::{MeasuredError, MeasuredRun};
use crate::hardware::models::{KvCacheDtype, WeightDtype};
use crate::hardware::{Deployment, Gpu, KvCapacity, Model, Placement, config_json, gpu, gpus, model};
use crate::replica::{EngineConfig, SchedulingPolicy};
use crate::scenario::ReplicaKind;
use crate::step_time::StepTime;
use crate::step_time::calibrated::Calibrated;
use crate::step_time::profile::{LayerProfile, LayerTimes};
use crate::step_time::roofline::Roofline;
use crate::time::Span;

/// What the command line adds to a meta file, or sets against it.
#[derive(Clone, Debug, Default)]
pub struct Given {
    /// A layer profile; the catalogue if there is none.
    pub profile: Option<std::path::PathBuf>,
    /// Factors on the catalogue's prices: what `tailcast calibrate` wrote.
    pub calibration: Option<std::path::PathBuf>,
    /// The card.
    pub gpu: Option<String>,
    /// The model: a name, or the path of a `config.json`.
    pub model: Option<String>,
    /// Blocks of the KV cache.
    pub num_gpu_blocks: Option<u32>,
}

/// The server of a measured run, ready to be replayed.
#[derive(Clone, Debug)]
pub struct Server {
    /// Its model, cards and flags.
    pub placement: Placement,
    /// Each of its engines.
    pub engine: EngineConfig,
    /// How long their steps take.
    pub step_time: Arc<dyn StepTime>,
    /// Engines that share the requests.
    pub data_parallel_size: u32,
    /// Whether they share experts too, and so every step.
    pub shares_experts: bool,
    /// Model, card and cards, in words.
    pub name: String,
    /// What the meta file left open, and how it was filled.
    pub assumed: Vec<String>,
    /// Where figures are less certain than elsewhere.
    pub marks: Vec<String>,
}

/// Keys of a meta file by what they say, whichever of its parts says it.
struct Options<'a> {
    run: &'a MeasuredRun,
    parts: Vec<&'a Map<String, Value>>,
    assumed: Vec<String>,
}

impl<'a> Options<'a> {
    fn new(run: &'a MeasuredRun) -> Options<'a> {
        let meta = &run.meta;
        let resolved =
            ["scheduler_config", "cache_config", "parallel_config", "compilation_config", "model_config"];
        let mut parts: Vec<&Map<String, Value>> =
            resolved.iter().filter_map(|part| meta.resolved.get(*part)?.as_object()).collect();
        parts.extend([&meta.kv_cache, &meta.engine_kwargs]);
        Options { run, parts, assumed: Vec::new() }
    }

    fn find(&self, key: &str) -> Option<&'a Value> {
        self.parts.iter().find_map(|part| part.get(key).filter(|value| !value.is_null()))
    }

    fn wrong(&self, key: &str, expected: &str, got: &Value) -> MeasuredError {
        MeasuredError::of(&self.run.meta_file, format!("{key}: expected {expected}, got {got}"))
    }

    fn or_assume<T: std::fmt::Display>(&mut self, key: &str, value: Option<T>, default: T) -> T {
        value.unwrap_or_else(|| {
            self.assumed.push(format!("{key} = {default}"));
            default
        })
    }

    fn count(&self, key: &str) -> Result<Option<u32>, MeasuredError> {
        let Some(value) = self.find(key) else { return Ok(None) };
        let count = value.as_u64().and_then(|count| u32::try_from(count).ok());
        count.map(Some).ok_or_else(|| self.wrong(key, "a whole number", value))
    }

    fn switch(&self, key: &str) -> Result<Option<bool>, MeasuredError> {
        let Some(value) = self.find(key) else { return Ok(None) };
        value.as_bool().map(Some).ok_or_else(|| self.wrong(key, "true or false", value))
    }

    fn number(&self, key: &str) -> Result<Option<f64>, MeasuredError> {
        let Some(value) = self.find(key) else { return Ok(None) };
        value.as_f64().map(Some).ok_or_else(|| self.wrong(key, "a number", value))
    }

    fn word(&self, key: &str) -> Option<&'a str> {
        self.find(key).and_then(Value::as_str)
    }
}

impl Server {
    /// The server of `run`.
    ///
    /// # Errors
    /// If card or model are not known, an option is of the wrong type, the server could not start, or the profile
    /// does not fit the model.
    pub fn of(run: &MeasuredRun, given: &Given) -> Result<Server, MeasuredError> {
        let mut options = Options::new(run);
        let wrong = |reason: &dyn std::fmt::Display| MeasuredError::of(&run.meta_file, reason);
        let tensor_parallel_size = options.count("tensor_parallel_size")?.unwrap_or(1);
        let profile = match &given.profile {
            Some(folder) => {
                let read = LayerProfile::read(folder, tensor_parallel_size);
                Some(read.map_err(|error| MeasuredError::of(&run.file, format!("--profile {error}")))?)
            }
            None => None,
        };
        let card = card(run, given, profile.as_ref(), &mut options)?;
        let shape = shape(run, given, &options)?;
        let shape = shape.as_ref();
        let deployment = deployment(card, shape, tensor_parallel_size, &mut options)?;
        let num_gpu_blocks = match (given.num_gpu_blocks, options.count("num_gpu_blocks")?) {
            (Some(blocks), _) | (None, Some(blocks)) => blocks,
            (None, None) => {
                let capacity =
                    KvCapacity::resolve(card, shape, &deployment).map_err(|error| wrong(&error))?;
                options
                    .assumed
                    .push(format!("num_gpu_blocks = {} (from the memory model)", capacity.num_gpu_blocks));
                u32::try_from(capacity.num_gpu_blocks).unwrap_or(u32::MAX)
            }
        };
        let engine = engine(&deployment, num_gpu_blocks, &mut options)?;
        check_requests(run, &engine, deployment.data_parallel_size)?;
        let (step_time, marks): (Arc<dyn StepTime>, Vec<String>) = match &profile {
            Some(profile) => {
                let times = LayerTimes::bind(profile, card, shape, &deployment);
                let times =
                    times.map_err(|error| MeasuredError::of(&run.file, format!("--profile {error}")))?;
                let marks = times.marks().to_vec();
                (Arc::new(times), marks)
            }
            None => {
                let (roofline, elsewhere) = match &given.calibration {
                    Some(file) => Calibrated::read(file)
                        .and_then(|calibrated| calibrated.bind(card, shape, &deployment))
                        .map_err(|error| wrong(&error))?,
                    None => {
                        let bound = Roofline::bind(card, shape, &deployment);
                        (bound.map_err(|error| wrong(&error))?, Vec::new())
                    }
                };
                let marks = roofline.marks().iter().cloned().chain(elsewhere).collect();
                (Arc::new(roofline), marks)
            }
        };
        let cards = match tensor_parallel_size * deployment.data_parallel_size {
            1 => String::new(),
            cards => format!("{cards} x "),
        };
        let data_parallel_size = deployment.data_parallel_size;
        Ok(Server {
            engine,
            step_time,
            data_parallel_size,
            shares_experts: shape.moe_layers > 0,
            name: format!("{} on {cards}{}", shape.name, card.name),
            assumed: options.assumed,
            marks,
            placement: Placement { gpu: card, model: shape.clone(), deployment },
        })
    }

    /// One replica of a scenario, as a server of its own.
    pub fn of_replica(kind: &ReplicaKind) -> Server {
        Server {
            placement: kind.placement.clone(),
            engine: kind.facts.engine.clone(),
            step_time: Arc::clone(&kind.facts.step_time),
            data_parallel_size: 1,
            shares_experts: false,
            name: kind.name.clone(),
            assumed: Vec::new(),
            marks: Vec::new(),
        }
    }

    /// Whether this server could have served the requests of `run`.
    ///
    /// # Errors
    /// If one is too long for it, or names a rank that it does not have.
    pub fn check_requests(&self, run: &MeasuredRun) -> Result<(), MeasuredError> {
        check_requests(run, &self.engine, self.data_parallel_size)
    }

    /// The same with other prices.
    pub fn priced(&self, step_time: Arc<dyn StepTime>) -> Server {
        Server { step_time, ..self.clone() }
    }
}

/// Whether the server could have served these requests: a recording that it could not have made is of another one.
fn check_requests(
    run: &MeasuredRun,
    engine: &EngineConfig,
    data_parallel_size: u32,
) -> Result<(), MeasuredError> {
    let usable = u64::from(engine.num_gpu_blocks.saturating_sub(1));
    for request in &run.requests {
        let wrong =
            |reason: String| Err(MeasuredError::of(&run.file, format!("request {}: {reason}", request.id)));
        if let Some(rank) = request.rank.filter(|rank| *rank >= data_parallel_size) {
            return wrong(format!("rank {rank} of a server with data_parallel_size = {data_parallel_size}"));
        }
        let tokens = u64::from(request.prompt_tokens) + u64::from(request.output_tokens);
        if tokens > u64::from(engine.max_model_len) {
            return wrong(format!(
                "a prompt of {} tokens with {} of output is longer than max_model_len = {}",
                request.prompt_tokens, request.output_tokens, engine.max_model_len
            ));
        }
        if tokens.div_ceil(u64::from(engine.block_size)) > usable {
            return wrong(format!("its {tokens} tokens do not fit into the {usable} usable KV blocks"));
        }
    }
    Ok(())
}

/// A name without its signs and in lower case.
fn letters(name: &str) -> String {
    name.chars().filter(char::is_ascii_alphanumeric).collect::<String>().to_ascii_lowercase()
}

/// The card of the catalogue whose name `text` holds, or begins; the longest such name.
fn card_in(text: &str) -> Option<&'static Gpu> {
    let text = letters(text);
    let named = |card: &&Gpu| {
        let name = letters(&card.name);
        // A form (sxm, server) that the driver or the file's name leaves out does not count.
        let stem = card.name.rsplit_once('-').map_or(name.clone(), |(stem, _)| letters(stem));
        text.contains(&name) || (stem.len() >= 4 && text.contains(&stem))
    };
    gpus().iter().filter(named).max_by_key(|card| {
        let whole = text.contains(&letters(&card.name));
        let stem = card.name.rsplit_once('-').map_or(0, |(stem, _)| letters(stem).len());
        (if whole { letters(&card.name).len() } else { stem }, std::cmp::Reverse(card.name.len()))
    })
}

fn card(
    run: &MeasuredRun,
    given: &Given,
    profile: Option<&LayerProfile>,
    options: &mut Options<'_>,
) -> Result<&'static Gpu, MeasuredError> {
    if let Some(name) = &given.gpu {
        return gpu(name).map_err(|error| MeasuredError::of(&run.meta_file, format!("--gpu: {error}")));
    }
    let driver = run.meta.hardware.get("device_name").and_then(Value::as_str);
    if let Some(card) = driver.and_then(card_in) {
        return Ok(card);
    }
    let by_profile = profile.and_then(|profile| card_in(profile.meta.gpu.as_deref()?));
    let (card, where_from) = match by_profile {
        Some(card) => (card, "the profile's meta.yaml"),
        None => {
            let card = card_in(&run.name).ok_or_else(|| {
                MeasuredError::of(
                    &run.meta_file,
                    "hardware.device_name is absent or names no card of the catalogue; say --gpu NAME \
                     (tailcast list gpus)",
                )
            })?;
            (card, "the run's name")
        }
    };
    options.assumed.push(format!("gpu = {} (from {where_from})", card.name));
    Ok(card)
}

fn shape(
    run: &MeasuredRun,
    given: &Given,
    options: &Options<'_>,
) -> Result<Cow<'static, Model>, MeasuredError> {
    if let Some(path) = given.model.as_deref().filter(|name| name.ends_with(".json")) {
        let read = config_json::read(std::path::Path::new(path));
        return read
            .map(Cow::Owned)
            .map_err(|error| MeasuredError::of(&run.meta_file, format!("--model: {error}")));
    }
    let named = given.model.as_deref().or(run.meta.model.as_deref()).or_else(|| options.word("model"));
    let name = named.ok_or_else(|| MeasuredError::of(&run.meta_file, "names no model; say --model NAME"))?;
    model(name)
        .map(Cow::Borrowed)
        .map_err(|error| MeasuredError::of(&run.meta_file, format!("model: {error}; or say --model NAME")))
}

fn deployment(
    card: &Gpu,
    shape: &Model,
    tensor_parallel_size: u32,
    options: &mut Options<'_>,
) -> Result<Deployment, MeasuredError> {
    let defaults = Deployment { tensor_parallel_size, ..Deployment::defaults(card, shape) };
    let count = |options: &mut Options<'_>, key: &str, default: u32| {
        let said = options.count(key)?;
        Ok::<u32, MeasuredError>(options.or_assume(key, said, default))
    };
    let utilization = options.number("gpu_memory_utilization")?;
    let kv_cache_dtype = match options.word("kv_cache_dtype").or_else(|| options.word("cache_dtype")) {
        Some(name) if name.starts_with("fp8") => KvCacheDtype::Fp8,
        _ => KvCacheDtype::Auto,
    };
    let weight_dtype = match options.word("quantization") {
        Some(name) if name.contains("fp8") => WeightDtype::Fp8,
        _ => WeightDtype::Auto,
    };
    let data_parallel_size = options.count("data_parallel_size")?.unwrap_or(1);
    if data_parallel_size == 0 || tensor_parallel_size == 0 {
        return Err(options.wrong("data_parallel_size, tensor_parallel_size", "at least 1", &Value::from(0)));
    }
    let pipeline = options.count("pipeline_parallel_size")?.unwrap_or(1);
    if pipeline > 1 {
        return Err(options.wrong(
            "pipeline_parallel_size",
            "1: pipelines are not modelled",
            &Value::from(pipeline),
        ));
    }
    if data_parallel_size > 1 {
        let servers = options.count("api_server_count")?;
        options.or_assume("api_server_count", servers, 1);
    }
    Ok(Deployment {
        data_parallel_size,
        enable_expert_parallel: options.switch("enable_expert_parallel")?.unwrap_or(false),
        max_num_batched_tokens: count(options, "max_num_batched_tokens", defaults.max_num_batched_tokens)?,
        max_num_seqs: count(options, "max_num_seqs", defaults.max_num_seqs)?,
        max_model_len: count(options, "max_model_len", defaults.max_model_len)?,
        block_size: options.count("block_size")?.unwrap_or(defaults.block_size),
        gpu_memory_utilization: utilization.unwrap_or(defaults.gpu_memory_utilization),
        enforce_eager: options.switch("enforce_eager")?.unwrap_or(false),
        kv_cache_dtype,
        weight_dtype,
        ..defaults
    })
}

fn engine(
    deployment: &Deployment,
    num_gpu_blocks: u32,
    options: &mut Options<'_>,
) -> Result<EngineConfig, MeasuredError> {
    let switch = |options: &mut Options<'_>, key: &str, default: bool| {
        let said = options.switch(key)?;
        Ok::<bool, MeasuredError>(options.or_assume(key, said, default))
    };
    Ok(EngineConfig {
        block_size: deployment.block_size,
        num_gpu_blocks,
        max_num_batched_tokens: deployment.max_num_batched_tokens,
        max_num_seqs: deployment.max_num_seqs,
        max_model_len: deployment.max_model_len,
        enable_prefix_caching: switch(options, "enable_prefix_caching", true)?,
        enable_chunked_prefill: switch(options, "enable_chunked_prefill", true)?,
        long_prefill_token_threshold: options.count("long_prefill_token_threshold")?.unwrap_or(0),
        scheduler_reserve_full_isl: switch(options, "scheduler_reserve_full_isl", true)?,
        watermark_blocks: (options.number("watermark")?.unwrap_or(0.0) * f64::from(num_gpu_blocks)) as u32,
        scheduling_policy: match options.word("policy").or_else(|| options.word("scheduling_policy")) {
            Some("priority") => SchedulingPolicy::Priority,
            _ => SchedulingPolicy::Fcfs,
        },
        async_scheduling: switch(options, "async_scheduling", true)?,
        speculation: None,
        kv_load_delay_steps: 0,
        empty_step_sleep: Span::from_ms(1),
    })
}
