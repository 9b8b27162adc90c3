//! What work costs on a card: the price list behind policies that estimate time, as cost models beside gateways have it.
//!
//! Knows prices of batches. Does not know what is running anywhere.

use super::Facts;
use crate::step_time::{Batch, Chunk, Decodes};
use crate::time::Span;

/// Time from one step to the next: the GPU's or the host's, whichever is longer.
pub fn step(facts: &Facts, chunks: &[Chunk], decodes: Decodes) -> Span {
    let cost = facts.step_time.cost(&Batch { chunks, decodes });
    match facts.engine.async_scheduling {
        true => cost.gpu.max(cost.host),
        false => cost.gpu + cost.host,
    }
}

/// Time to compute this many prompt tokens in steps of the token budget, none of them after a context.
pub fn prefill(facts: &Facts, tokens: u64) -> Span {
    let budget = u64::from(facts.engine.max_num_batched_tokens);
    let of = |tokens: u64| {
        let chunk = Chunk { tokens: tokens as u32, before: 0, samples: true };
        step(facts, &[chunk], Decodes::default())
    };
    let (full, rest) = (tokens / budget, tokens % budget);
    let mut time = Span::ZERO;
    if full > 0 {
        time += of(budget) * full;
    }
    if rest > 0 {
        time += of(rest);
    }
    time
}

/// GPU time of a prompt in one step, of which the `cached` leading tokens are there; the last one is always computed.
pub fn uncached(facts: &Facts, prompt_tokens: u32, cached: u32) -> Span {
    let before = cached.min(prompt_tokens.saturating_sub(1));
    let chunk = Chunk { tokens: prompt_tokens - before, before, samples: true };
    facts.step_time.cost(&Batch { chunks: &[chunk], decodes: Decodes::default() }).gpu
}
