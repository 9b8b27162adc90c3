//! What an engine is started with, by vLLM's names.

use crate::time::Span;

/// Order of the waiting queue and choice of preemption victims (`--scheduling-policy`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SchedulingPolicy {
    /// First come, first served; the last admitted is preempted first.
    Fcfs,
    /// By (priority, arrival); the least urgent running request is preempted first.
    Priority,
}

/// Speculative decoding as the scheduler sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Speculation {
    /// Drafts per step.
    pub num_speculative_tokens: u32,
    /// EAGLE-like methods reserve look-ahead slots and drop the last hit block; n-gram-like ones do not.
    pub eagle: bool,
}

impl Speculation {
    /// Tokens sampled when `drafts` drafts are verified: one, and those accepted before the first refusal.
    ///
    /// Acceptance follows the fixed pattern of the golden recordings: A = (i + 2j + floor(j^2 / 3)) mod (k + 1)
    /// for the j-th verification of request i.
    pub fn sampled(&self, drafts: u32, request: u32, verification: u32) -> u32 {
        let (i, j) = (u64::from(request), u64::from(verification));
        let accepted = (i + 2 * j + j * j / 3) % (u64::from(self.num_speculative_tokens) + 1);
        1 + drafts.min(accepted as u32)
    }
}

/// Everything that the scheduler and the cache of one engine depend on.
#[derive(Clone, Debug, PartialEq)]
pub struct EngineConfig {
    /// Tokens a KV block holds; also the granularity of prefix caching.
    pub block_size: u32,
    /// Blocks, the null block included: one less is usable.
    pub num_gpu_blocks: u32,
    /// Token budget of a step.
    pub max_num_batched_tokens: u32,
    /// Longest running list.
    pub max_num_seqs: u32,
    /// Longest sequence, prompt and output together.
    pub max_model_len: u32,
    /// Whether full blocks are kept for later requests with the same prefix.
    pub enable_prefix_caching: bool,
    /// Whether a prompt may be computed over several steps.
    pub enable_chunked_prefill: bool,
    /// Longest chunk of a prompt; 0 is no limit.
    pub long_prefill_token_threshold: u32,
    /// Whether admission wants room for the whole known sequence, not for the chunk alone.
    pub scheduler_reserve_full_isl: bool,
    /// Blocks that must stay free after an admission beside running requests: floor(watermark * N).
    pub watermark_blocks: u32,
    /// Order of the waiting queue.
    pub scheduling_policy: SchedulingPolicy,
    /// Whether step k + 1 is composed before the output of step k is known.
    pub async_scheduling: bool,
    /// Draft tokens, if any.
    pub speculation: Option<Speculation>,
    /// A KV connector is attached whose asynchronous loads finish with the first step that is this many
    /// steps later, or more; 0 is no connector.
    pub kv_load_delay_steps: u32,
    /// How long the engine sleeps after an empty step with requests left: 1 ms in vLLM, none in recordings.
    pub empty_step_sleep: Span,
}

impl EngineConfig {
    /// An engine of the library's user: vLLM's own settings, with a pool of so many blocks, a step of so many tokens, and so many
    /// sequences of so many tokens at once.
    pub fn plain(
        num_gpu_blocks: u32,
        max_num_batched_tokens: u32,
        max_num_seqs: u32,
        max_model_len: u32,
    ) -> EngineConfig {
        EngineConfig {
            block_size: 16,
            num_gpu_blocks,
            max_num_batched_tokens,
            max_num_seqs,
            max_model_len,
            enable_prefix_caching: true,
            enable_chunked_prefill: true,
            long_prefill_token_threshold: 0,
            scheduler_reserve_full_isl: true,
            watermark_blocks: 0,
            scheduling_policy: SchedulingPolicy::Fcfs,
            async_scheduling: true,
            speculation: None,
            kv_load_delay_steps: 0,
            empty_step_sleep: Span::from_ms(1),
        }
    }

    /// Blocks that hold `tokens` tokens.
    pub fn blocks_for(&self, tokens: u32) -> u32 {
        tokens.div_ceil(self.block_size)
    }
}
