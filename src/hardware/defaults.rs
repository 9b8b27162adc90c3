//! What one `vllm serve` is started with, and vLLM 0.24's defaults for it.
//!
//! Source: `vllm/engine/arg_utils.py` and `vllm/config/vllm.py` of 0.24.0.

use super::gpus::Gpu;
use super::models::{KvCacheDtype, Model, WeightDtype};

/// Tokens of a KV-cache block.
pub const BLOCK_SIZE: u32 = 16;

/// Share of a card's memory that vLLM plans with.
pub const GPU_MEMORY_UTILIZATION: f64 = 0.92;

/// The options that decide how much fits and how long a step takes, under vLLM's names.
#[derive(Clone, Debug, PartialEq)]
pub struct Deployment {
    /// Cards that share every layer.
    pub tensor_parallel_size: u32,
    /// Engines of one server. Those of a model with experts share its experts among all of their cards.
    pub data_parallel_size: u32,
    /// Whether whole experts are shared out among cards, and not slices of each.
    pub enable_expert_parallel: bool,
    /// Share of each card's memory that vLLM plans with.
    pub gpu_memory_utilization: f64,
    /// Tokens of a step, at most.
    pub max_num_batched_tokens: u32,
    /// Running sequences, at most.
    pub max_num_seqs: u32,
    /// Tokens of a sequence, prompt and output, at most.
    pub max_model_len: u32,
    /// Tokens of a KV-cache block.
    pub block_size: u32,
    /// How the KV cache is stored.
    pub kv_cache_dtype: KvCacheDtype,
    /// How weights are stored.
    pub weight_dtype: WeightDtype,
    /// Whether CUDA graphs are off.
    pub enforce_eager: bool,
}

/// A model on cards.
#[derive(Clone, Debug, PartialEq)]
pub struct Placement {
    /// The kind of card.
    pub gpu: &'static Gpu,
    /// The model.
    pub model: Model,
    /// What the server is started with.
    pub deployment: Deployment,
}

impl Deployment {
    /// What `vllm serve MODEL` takes on this card when nothing else is said.
    ///
    /// A long prompt budget is a default only where the sequences could fill it, hence the cap by
    /// `max_num_seqs * max_model_len`.
    pub fn defaults(gpu: &Gpu, model: &Model) -> Deployment {
        let max_num_seqs = default_max_num_seqs(gpu);
        let max_model_len = model.max_position;
        let max_num_batched_tokens =
            default_max_num_batched_tokens(gpu).min(max_num_seqs.saturating_mul(max_model_len));
        Deployment {
            tensor_parallel_size: 1,
            data_parallel_size: 1,
            enable_expert_parallel: false,
            gpu_memory_utilization: GPU_MEMORY_UTILIZATION,
            max_num_batched_tokens,
            max_num_seqs: max_num_seqs.min(max_num_batched_tokens),
            max_model_len,
            block_size: BLOCK_SIZE,
            kv_cache_dtype: KvCacheDtype::Auto,
            weight_dtype: WeightDtype::Auto,
            enforce_eager: false,
        }
    }

    /// Cards among which the experts of a layer are shared out, in one way or the other.
    pub fn expert_cards(&self) -> u32 {
        self.tensor_parallel_size * self.data_parallel_size
    }

    /// Cards among which whole experts are shared out.
    pub fn expert_parallel_size(&self) -> u32 {
        if self.enable_expert_parallel { self.expert_cards() } else { 1 }
    }

    /// Slices into which each expert is cut.
    pub fn expert_slices(&self) -> u32 {
        self.expert_cards() / self.expert_parallel_size()
    }

    /// The largest batch that has a CUDA graph, in tokens; 0 where graphs are off.
    pub fn max_captured(&self) -> u32 {
        if self.enforce_eager { 0 } else { max_captured(self.max_num_seqs, self.max_num_batched_tokens) }
    }
}

/// Whether vLLM counts the card among the large ones: at least 70 GiB, and not an A100.
fn is_large(gpu: &Gpu) -> bool {
    gpu.memory_bytes >= 70 << 30 && !gpu.name.contains("a100")
}

/// `max_num_batched_tokens` of `vllm serve` on this card.
pub fn default_max_num_batched_tokens(gpu: &Gpu) -> u32 {
    if is_large(gpu) { 8192 } else { 2048 }
}

/// `max_num_seqs` of `vllm serve` on this card.
pub fn default_max_num_seqs(gpu: &Gpu) -> u32 {
    if is_large(gpu) { 1024 } else { 256 }
}

/// The largest batch that has a CUDA graph, in tokens, without speculative decoding.
pub fn max_captured(max_num_seqs: u32, max_num_batched_tokens: u32) -> u32 {
    max_num_seqs.saturating_mul(2).min(512).min(max_num_batched_tokens)
}

/// The captured size that a step of `tokens` tokens is padded to: 1, 2, 4, every 8 below 256, every 16 from there.
///
/// None where the step runs without a graph, at its own size.
pub fn capture_size(tokens: u32, max_captured: u32) -> Option<u32> {
    let size = match tokens {
        0 => return None,
        1 | 2 => tokens,
        3 | 4 => 4,
        5..=248 => tokens.next_multiple_of(8),
        _ => tokens.next_multiple_of(16),
    };
    (size <= max_captured).then_some(size)
}

/// How many CUDA graphs are captured: piecewise ones at every size, and full ones at every size that a batch of
/// decodes alone can reach.
pub fn captured_graphs(max_captured: u32, max_num_seqs: u32) -> u32 {
    let is_captured = |size: &u32| capture_size(*size, max_captured) == Some(*size);
    let piecewise = (1..=max_captured).filter(is_captured).count();
    let full = (1..=max_captured.min(max_num_seqs)).filter(is_captured).count();
    (piecewise + full) as u32
}

#[cfg(test)]
mod tests {
    use super::super::{gpu, model};
    use super::*;

    #[test]
    fn capture_sizes_are_vllms() {
        let sizes: Vec<u32> = (1..=512).filter(|size| capture_size(*size, 512) == Some(*size)).collect();
        assert_eq!(sizes.len(), 51, "as recorded by vLLM: 1, 2, 4, 8, ..., 256, 272, ..., 512");
        assert_eq!(&sizes[..5], &[1, 2, 4, 8, 16]);
        assert_eq!(capture_size(249, 512), Some(256));
        assert_eq!(capture_size(257, 512), Some(272));
        assert_eq!(capture_size(513, 512), None);
        assert_eq!(capture_size(5, 0), None);
        assert_eq!(captured_graphs(512, 256), 86, "vLLM logs PIECEWISE=51, FULL=35");
    }

    #[test]
    fn defaults_depend_on_the_card() {
        let llama = model("llama-3.1-8b").unwrap();
        let tokens = |name| Deployment::defaults(gpu(name).unwrap(), llama).max_num_batched_tokens;
        assert_eq!(tokens("h100-sxm"), 8192);
        assert_eq!(tokens("a100-80-sxm"), 2048);
        assert_eq!(tokens("rtx-4090"), 2048);
        assert_eq!(Deployment::defaults(gpu("h200-sxm").unwrap(), llama).max_num_seqs, 1024);
    }
}
