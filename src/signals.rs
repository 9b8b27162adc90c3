//! What a replica shows outside: the gauges of its metrics endpoint, and nothing more.

use crate::time::Time;

/// A replica's gauges at one moment (`vllm:num_requests_running` and its kin).
///
/// vLLM sets them when it processes the output of a step, so they say nothing of requests that are still
/// being tokenised or that came in while the step ran.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Signals {
    /// `vllm:num_requests_running`: length of the running list, partial prefills included.
    pub running: u32,
    /// `vllm:num_requests_waiting`: preempted ones included.
    pub waiting: u32,
    /// Blocks that some request refers to. Cached blocks that nobody refers to count as free.
    pub kv_blocks_used: u32,
    /// Usable blocks: all but the null block.
    pub kv_blocks_usable: u32,
    /// `vllm:num_preemptions_total`.
    pub preemptions: u64,
    /// `vllm:prefix_cache_queries_total`, in tokens.
    pub prefix_cache_queries: u64,
    /// `vllm:prefix_cache_hits_total`, in tokens.
    pub prefix_cache_hits: u64,
    /// Prompt tokens of those that wait, preempted ones included: what SGLang's and Llumnix's load reports tell. vLLM's own
    /// endpoint has no such gauge.
    pub waiting_prompt_tokens: u64,
    /// Blocks that these prompts take.
    pub waiting_prompt_blocks: u64,
    /// `vllm:generation_tokens_total`.
    pub generation_tokens: u64,
    /// `vllm:request_success_total`, of all reasons.
    pub successes: u64,
}

impl Signals {
    /// `vllm:kv_cache_usage_perc`: share of usable blocks in use, 0 to 1.
    pub fn kv_cache_usage(&self) -> f64 {
        f64::from(self.kv_blocks_used) / f64::from(self.kv_blocks_usable.max(1))
    }
}

/// Gauges, and how old they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Glimpse {
    /// The gauges.
    pub signals: Signals,
    /// The moment they describe.
    pub taken_at: Time,
}
