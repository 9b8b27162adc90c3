//! How many KV-cache blocks a replica has: vLLM's own arithmetic, with estimates for what vLLM measures.
//!
//! vLLM plans with `ceil(total * gpu_memory_utilization)` bytes of a card, and takes from them the weights, the peak
//! of a profile run, what is allocated outside PyTorch, and (since 0.21) an estimate of the CUDA graphs. The rest is
//! KV cache. Weights follow from the shape; the other three are estimated:
//!
//! * **Activation peak**: the higher of two moments of the profile run, which has `max_num_batched_tokens` tokens of
//!   `max_num_seqs` sequences. In a layer: the widest pair of tensors (gate-and-up with its product, or queries,
//!   keys and values with the output) beside three residual-sized ones, in bfloat16. A published log of
//!   Qwen2.5-0.5B at 32,768 tokens shows 1.06 GiB; this gives 1.05. In the sampler, which sees the whole vocabulary:
//!   logits in bfloat16 and float32, probabilities, random draws, and a row of scratch for each multiprocessor.
//! * **CUDA graphs**: 0.33 GiB and 2.4 MiB a graph. Published logs of 7B models show 0.35 GiB for 9 graphs and
//!   0.53 GiB for 86.
//! * **Outside PyTorch**: kernels loaded and driver state, 0.1 GiB on one card (logs: 0.07 to 0.2), 0.21 GiB where
//!   cards work together (a log of four).
//!
//! The block pool of models that mix window sizes is not modelled: their sliding-window layers count as full ones.

use super::defaults::{Deployment, captured_graphs};
use super::gpus::Gpu;
use super::models::Model;

const GIB: f64 = (1u64 << 30) as f64;
const MIB: f64 = (1u64 << 20) as f64;

/// Memory of the first CUDA graphs, whatever their number.
const GRAPHS_BASE_BYTES: f64 = 0.33 * GIB;
/// Memory of each CUDA graph.
const GRAPH_BYTES: f64 = 2.4 * MIB;
/// Memory outside PyTorch on a card that works alone.
const NON_TORCH_ALONE_BYTES: f64 = 0.1 * GIB;
/// Memory outside PyTorch on a card that works with others.
const NON_TORCH_TOGETHER_BYTES: f64 = 0.21 * GIB;

/// The memory of one card, part by part. All cards of a replica are alike.
#[derive(Clone, Debug, PartialEq)]
pub struct KvCapacity {
    /// What CUDA reports.
    pub total_bytes: u64,
    /// What vLLM plans with: `ceil(total * gpu_memory_utilization)`.
    pub requested_bytes: u64,
    /// Weights, with the table of rotary angles.
    pub weight_bytes: u64,
    /// Peak of the profile run above the weights (an estimate).
    pub activation_peak_bytes: u64,
    /// CUDA graphs (an estimate); 0 with `enforce_eager`.
    pub cuda_graph_bytes: u64,
    /// Kernels and driver state (an estimate).
    pub non_torch_bytes: u64,
    /// What is left for the KV cache.
    pub available_bytes: u64,
    /// Bytes of one block over all layers.
    pub bytes_per_block: u64,
    /// Blocks of the pool, vLLM's null block included.
    pub num_gpu_blocks: u64,
    /// What of this does not follow vLLM to the byte.
    pub notes: Vec<String>,
}

/// Why vLLM would not start.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum CannotStart {
    /// Heads cannot be shared out among the cards.
    #[error(
        "tensor_parallel_size = {tensor_parallel_size} does not divide the {heads} attention heads of {model} \
         (and its {kv_heads} key-value heads must divide it or be divided by it)"
    )]
    HeadsNotDivisible {
        /// The model.
        model: String,
        /// Its attention heads.
        heads: u32,
        /// Its key-value heads.
        kv_heads: u32,
        /// Cards that were to share them.
        tensor_parallel_size: u32,
    },
    /// Nothing is left for the KV cache.
    #[error(
        "no memory is left for the KV cache: of {total_gib:.2} GiB, gpu_memory_utilization = {utilization} allows \
         {requested_gib:.2} GiB, and weights take {weight_gib:.2}, the profile run {activation_gib:.2}, CUDA graphs \
         {graph_gib:.2} and the driver {non_torch_gib:.2} GiB, which is {missing_gib:.2} GiB too much; raise \
         gpu_memory_utilization or tensor_parallel_size"
    )]
    NoKvMemory {
        /// What CUDA reports.
        total_gib: f64,
        /// The share that was asked for.
        utilization: f64,
        /// What vLLM plans with.
        requested_gib: f64,
        /// Weights.
        weight_gib: f64,
        /// Activation peak.
        activation_gib: f64,
        /// CUDA graphs.
        graph_gib: f64,
        /// Outside PyTorch.
        non_torch_gib: f64,
        /// How far the parts exceed the plan.
        missing_gib: f64,
    },
    /// One sequence of the greatest length does not fit.
    #[error(
        "one sequence of max_model_len = {max_model_len} tokens needs {needed_blocks} blocks, {needed_gib:.2} GiB of \
         KV cache, and {available_gib:.2} GiB ({num_gpu_blocks} blocks) are available; at most max_model_len = \
         {max_model_len_possible} would fit: lower max_model_len, or raise gpu_memory_utilization or \
         tensor_parallel_size"
    )]
    SequenceTooLong {
        /// The length that was asked for.
        max_model_len: u32,
        /// Blocks it needs.
        needed_blocks: u64,
        /// Memory it needs.
        needed_gib: f64,
        /// Memory there is.
        available_gib: f64,
        /// Blocks there are.
        num_gpu_blocks: u64,
        /// The greatest length that fits.
        max_model_len_possible: u64,
    },
}

impl KvCapacity {
    /// The KV cache of one replica, as vLLM would resolve it at start-up.
    ///
    /// # Errors
    /// If vLLM would refuse to start: heads do not divide, nothing is left for the KV cache, or one sequence of
    /// `max_model_len` does not fit.
    pub fn resolve(gpu: &Gpu, model: &Model, deployment: &Deployment) -> Result<KvCapacity, CannotStart> {
        check_heads(model, deployment.tensor_parallel_size)?;
        let total_bytes = gpu.memory_bytes;
        let requested_bytes = (total_bytes as f64 * deployment.gpu_memory_utilization).ceil() as u64;
        let weight_bytes = model.weight_bytes(
            deployment.tensor_parallel_size,
            deployment.expert_cards(),
            deployment.weight_dtype,
        );
        let activation_peak_bytes = activation_peak_bytes(gpu, model, deployment);
        let cuda_graph_bytes = cuda_graph_bytes(deployment);
        let non_torch_bytes = non_torch_bytes(deployment);
        let taken = weight_bytes + activation_peak_bytes + cuda_graph_bytes + non_torch_bytes;
        let available_bytes = requested_bytes.saturating_sub(taken);

        let block_size = u64::from(deployment.block_size);
        let kv_bytes_per_token =
            model.kv_bytes_per_token(deployment.tensor_parallel_size, deployment.kv_cache_dtype);
        let bytes_per_block = block_size * kv_bytes_per_token;
        let num_gpu_blocks = available_bytes / bytes_per_block;
        if num_gpu_blocks == 0 {
            return Err(CannotStart::NoKvMemory {
                total_gib: gib(total_bytes),
                utilization: deployment.gpu_memory_utilization,
                requested_gib: gib(requested_bytes),
                weight_gib: gib(weight_bytes),
                activation_gib: gib(activation_peak_bytes),
                graph_gib: gib(cuda_graph_bytes),
                non_torch_gib: gib(non_torch_bytes),
                missing_gib: gib((taken + bytes_per_block).saturating_sub(requested_bytes)),
            });
        }
        let needed_blocks = u64::from(deployment.max_model_len).div_ceil(block_size);
        if needed_blocks > num_gpu_blocks {
            return Err(CannotStart::SequenceTooLong {
                max_model_len: deployment.max_model_len,
                needed_blocks,
                needed_gib: gib(needed_blocks * bytes_per_block),
                available_gib: gib(available_bytes),
                num_gpu_blocks,
                max_model_len_possible: num_gpu_blocks * block_size,
            });
        }
        Ok(KvCapacity {
            total_bytes,
            requested_bytes,
            weight_bytes,
            activation_peak_bytes,
            cuda_graph_bytes,
            non_torch_bytes,
            available_bytes,
            bytes_per_block,
            num_gpu_blocks,
            notes: notes(gpu, model),
        })
    }
}

fn gib(bytes: u64) -> f64 {
    bytes as f64 / GIB
}

/// Whether the heads of a model can be shared out among so many cards.
pub(crate) fn check_heads(model: &Model, tensor_parallel_size: u32) -> Result<(), CannotStart> {
    let cards = tensor_parallel_size;
    let heads_divide = cards > 0 && model.heads.is_multiple_of(cards);
    // Every MLA card holds the one latent, so only query heads are shared out.
    let kv_heads_divide = model.is_mla()
        || cards > 0 && (model.kv_heads.is_multiple_of(cards) || cards.is_multiple_of(model.kv_heads));
    if heads_divide && kv_heads_divide {
        return Ok(());
    }
    Err(CannotStart::HeadsNotDivisible {
        model: model.name.clone(),
        heads: model.heads,
        kv_heads: model.kv_heads,
        tensor_parallel_size,
    })
}

/// The higher of the two moments that the module's documentation names.
fn activation_peak_bytes(gpu: &Gpu, model: &Model, deployment: &Deployment) -> u64 {
    let cards = u64::from(deployment.tensor_parallel_size);
    let tokens = u64::from(deployment.max_num_batched_tokens);
    let hidden = u64::from(model.hidden);
    let halves = if model.mlp_gated { 2 } else { 1 };

    let dense = (halves + 1) * u64::from(model.intermediate) / cards;
    // The fused expert kernel keeps two buffers with a row for each pair of token and expert; the first serves both
    // the gate-and-up product and the way back to the residual width.
    let expert_width = u64::from(model.moe_intermediate / deployment.expert_slices());
    let experts = u64::from(model.top_k) * ((halves * expert_width).max(hidden) + expert_width);
    let query_heads = u64::from(model.heads) / cards;
    let kv_heads = u64::from(model.kv_heads_per_gpu(deployment.tensor_parallel_size));
    let attention = (2 * query_heads + 2 * kv_heads) * u64::from(model.head_dim);
    let feed_forward = match (model.dense_layers(), model.moe_layers) {
        (_, 0) => dense,
        (0, _) => experts,
        _ => dense.max(experts),
    };
    let in_a_layer = 2 * tokens * (feed_forward.max(attention) + 3 * hidden);

    let sequences = u64::from(deployment.max_num_seqs.min(deployment.max_num_batched_tokens));
    let scratch_rows = u64::from(gpu.sm_count).min(sequences);
    let bytes_per_logit = 2 + 4 + 4 + 4;
    let in_the_sampler =
        u64::from(model.vocab) * (bytes_per_logit * sequences + 4 * scratch_rows) + 2 * tokens * hidden;
    in_a_layer.max(in_the_sampler)
}

fn cuda_graph_bytes(deployment: &Deployment) -> u64 {
    if deployment.enforce_eager {
        return 0;
    }
    let graphs = captured_graphs(deployment.max_captured(), deployment.max_num_seqs);
    (GRAPHS_BASE_BYTES + GRAPH_BYTES * f64::from(graphs)) as u64
}

fn non_torch_bytes(deployment: &Deployment) -> u64 {
    let bytes =
        if deployment.tensor_parallel_size > 1 { NON_TORCH_TOGETHER_BYTES } else { NON_TORCH_ALONE_BYTES };
    bytes as u64
}

fn notes(gpu: &Gpu, model: &Model) -> Vec<String> {
    let mut notes = Vec::new();
    if model.sliding_layers > 0 {
        notes.push(format!(
            "{} of {} layers of {} have a sliding window of {} tokens; their KV cache is counted in full, so vLLM \
             holds more sequences than this",
            model.sliding_layers, model.layers, model.name, model.sliding_window
        ));
    }
    if gpu.memory_bytes_source.starts_with("derived") {
        notes.push(format!(
            "the memory that {} reports was not measured ({})",
            gpu.name, gpu.memory_bytes_source
        ));
    }
    if gpu.vendor != "NVIDIA" {
        notes.push(format!(
            "memory beside weights and KV cache is estimated as on NVIDIA cards, not {}",
            gpu.vendor
        ));
    }
    notes
}

#[cfg(test)]
mod tests {
    use super::super::{gpu, model};
    use super::*;

    /// The recorded server (RTX 4090, Llama-3.1-8B, gpu_memory_utilization 0.9, 2,048 tokens, 256 sequences) had
    /// 2,588 blocks. Its vLLM was 0.19, which by its own messages did not yet take the graphs from the plan: the sum
    /// agrees, which part took what was not recorded.
    #[test]
    fn the_recorded_rtx_4090_has_its_blocks() {
        let card = gpu("rtx-4090").unwrap();
        let llama = model("llama-3.1-8b").unwrap();
        let deployment = Deployment {
            gpu_memory_utilization: 0.9,
            max_model_len: 32_768,
            ..Deployment::defaults(card, llama)
        };
        let capacity = KvCapacity::resolve(card, llama, &deployment).unwrap();
        assert_eq!(capacity.requested_bytes, 22_725_564_826);
        assert_eq!(capacity.bytes_per_block, 2 << 20);
        let error = capacity.num_gpu_blocks as f64 / 2_588.0 - 1.0;
        assert!(error.abs() < 0.02, "{} blocks: {capacity:?}", capacity.num_gpu_blocks);
    }

    /// vLLM's log of Llama-3.1-8B: "Model loading took 14.99 GiB".
    #[test]
    fn weights_are_what_vllm_reports() {
        let bytes = model("llama-3.1-8b").unwrap().weight_bytes(1, 1, Default::default());
        assert!((gib(bytes) - 14.99).abs() < 0.01, "{}", gib(bytes));
    }

    #[test]
    fn refusals_spell_out_their_arithmetic() {
        let card = gpu("rtx-4090").unwrap();
        let large = model("llama-3.1-70b").unwrap();
        let error = KvCapacity::resolve(card, large, &Deployment::defaults(card, large)).unwrap_err();
        let text = error.to_string();
        assert!(text.starts_with("no memory is left for the KV cache: of 23.52 GiB"), "{text}");

        let small = model("llama-3.1-8b").unwrap();
        let error = KvCapacity::resolve(card, small, &Deployment::defaults(card, small)).unwrap_err();
        let CannotStart::SequenceTooLong { needed_blocks, num_gpu_blocks, max_model_len_possible, .. } =
            error
        else {
            panic!("{error}");
        };
        assert_eq!(needed_blocks, 8_192);
        assert_eq!(max_model_len_possible, num_gpu_blocks * 16);

        let seven = Deployment { tensor_parallel_size: 7, ..Deployment::defaults(card, small) };
        let error = KvCapacity::resolve(card, small, &seven).unwrap_err();
        assert!(error.to_string().contains("does not divide the 32 attention heads"), "{error}");
    }
}
