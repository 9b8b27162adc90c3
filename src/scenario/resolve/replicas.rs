//! Replicas: flags checked as vLLM checks them, memory as it resolves it, and a price list.

use std::borrow::Cow;
use std::fmt::Display;
use std::path::Path;

use super::events::{factor, span_s};
use super::step_time::step_time;
use super::{Fault, ReplicaKind, at_least_one, fault};
use crate::hardware::defaults::Deployment;
use crate::hardware::gpus::{Gpu, gpu, gpus};
use crate::hardware::memory::{CannotStart, KvCapacity};
use crate::hardware::models::{KvCacheDtype, Model, WeightDtype, model, models};
use crate::hardware::start_up::start_up;
use crate::hardware::{Placement, config_json};
use crate::replica::{EngineConfig, SchedulingPolicy};
use crate::router::Facts;
use crate::scenario::error::nearest_or_all;
use crate::scenario::file::{
    KvCacheDtypeFile, QuantizationFile, ReplicaFile, ScenarioFile, SchedulingPolicyFile,
};
use crate::time::Span;

/// The version of vLLM whose scheduler is modelled.
const MODELLED_VERSION: &str = "0.24";

/// The card, and the model: of the catalogue, or of the `config.json` that the key names.
fn card_and_model(
    path: &str,
    file: &ReplicaFile,
    folder: &Path,
) -> Result<(&'static Gpu, Cow<'static, Model>), Fault> {
    let unknown = |key: &str, message: String, known: Vec<&str>, wrong: &str, list: &str| {
        fault(format!("{path}.{key}"), message)
            .help(format!("{} (`tailcast list {list}` shows all)", nearest_or_all(wrong, &known)))
    };
    let card = gpu(&file.gpu).map_err(|_| {
        let known = gpus().iter().map(|gpu| gpu.name.as_str()).collect();
        unknown("gpu", format!("no GPU `{}` is in the catalogue", file.gpu), known, &file.gpu, "gpus")
    })?;
    if file.model.ends_with(".json") {
        let shape = config_json::read(&folder.join(&file.model))
            .map_err(|error| fault(format!("{path}.model"), error.to_string()))?;
        return Ok((card, Cow::Owned(shape)));
    }
    let shape = model(&file.model).map_err(|_| {
        let known = models().iter().map(|model| model.name.as_str()).collect();
        let short = file.model.rsplit('/').next().unwrap_or_default();
        unknown("model", format!("no model `{}` is in the catalogue", file.model), known, short, "models")
    })?;
    Ok((card, Cow::Borrowed(shape)))
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
        data_parallel_size: 1,
        enable_expert_parallel: file.enable_expert_parallel,
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

pub(super) fn replica_kind(
    index: usize,
    file: &ReplicaFile,
    folder: &Path,
    marks: &mut Vec<String>,
) -> Result<ReplicaKind, Fault> {
    let path = format!("replicas.{index}");
    at_least_one(&format!("{path}.count"), file.count)?;
    let (card, shape) = card_and_model(&path, file, folder)?;
    let deployment = deployment(&path, file, card, &shape)?;
    if let Some(version) =
        file.vllm_version.as_deref().filter(|version| !version.starts_with(MODELLED_VERSION))
    {
        marks
            .push(format!("vllm_version {version}: its scheduler is taken to be that of {MODELLED_VERSION}"));
    }
    let cannot_start =
        |reason: &dyn Display| fault(path.clone(), format!("this replica cannot start: {reason}"));
    let (num_gpu_blocks, capacity) =
        match (KvCapacity::resolve(card, &shape, &deployment), file.num_gpu_blocks_override) {
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
    let placement = Placement { gpu: card, model: shape.into_owned(), deployment };
    let Placement { model: shape, deployment, .. } = &placement;
    let (step_time, calibration) = step_time(&path, file, folder, &placement, marks)?;
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
    let start_up = match file.start_up_s {
        Some(seconds) => span_s(&format!("{path}.start_up_s"), seconds)?,
        None => start_up(shape, deployment),
    };
    let pace_per_mille =
        file.slowdown.map_or(Ok(1_000), |slowdown| factor(&format!("{path}.slowdown"), slowdown))?;
    let step_time_jitter = file.step_time_jitter.unwrap_or(0.0);
    if !(0.0..=2.0).contains(&step_time_jitter) {
        let path = format!("{path}.step_time_jitter");
        return Err(fault(path, format!("expected 0 to 2, got {step_time_jitter}"))
            .help("0.05 is a spread of 5 % from step to step"));
    }
    let labels = file.labels.iter().map(|(key, value)| (key.clone(), value.clone())).collect();
    Ok(ReplicaKind {
        name: format!("{} on {cards}{}", shape.name, card.name),
        count: file.count,
        pace_per_mille,
        facts: Facts { labels, engine, step_time, start_up, step_time_jitter },
        capacity,
        placement,
        calibration,
    })
}

/// The file with vLLM's defaults for its cards written out.
pub(in crate::scenario) fn fill_in(file: &ScenarioFile, folder: &Path) -> Result<ScenarioFile, Fault> {
    let mut filled = file.clone();
    for (index, kind) in filled.replicas.iter_mut().enumerate() {
        let path = format!("replicas.{index}");
        let (card, shape) = card_and_model(&path, kind, folder)?;
        let deployment = deployment(&path, kind, card, &shape)?;
        kind.vllm_version.get_or_insert_with(|| MODELLED_VERSION.into());
        kind.gpu_memory_utilization = Some(deployment.gpu_memory_utilization);
        kind.max_model_len = Some(deployment.max_model_len);
        kind.max_num_batched_tokens = Some(deployment.max_num_batched_tokens);
        kind.max_num_seqs = Some(deployment.max_num_seqs);
        kind.block_size = Some(deployment.block_size);
        kind.step_time.model = Some(kind.step_time.model());
    }
    Ok(filled)
}
