//! A FlashAttention 2 call as thread blocks on multiprocessors.
//!
//! Every sequence and head gets one thread block for each 64 queries of the call's longest chunk. A block takes a start
//! and a time for each key it reads; blocks of sequences with fewer queries come up empty and leave. A decode is a
//! chunk of one query, so beside prompts it loses packed heads and split KV. The call lasts as its slowest block, or
//! as all blocks spread over the multiprocessors: in whole waves where all chunks are alike, with half of the longest
//! block on top where they are not.
//!
//! On two cards' engine profiles the form, with four coefficients each, is 6 to 7 % off in the mean over 28,000 calls.

use crate::step_time::{Batch, Chunk};

/// Queries of a thread block.
pub(super) const BLOCK_QUERIES: u64 = 64;
/// The share of the longest block that the last wave waits for where blocks differ: half of it in the mean.
const TAIL: f64 = 0.5;

/// Microseconds of a call, a block's start, a key, an empty block.
pub(super) type Coefficients = [f64; 4];

/// The card and the heads that a call runs with.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Shape {
    /// Query heads on the card.
    pub(super) heads: u64,
    /// Multiprocessors.
    pub(super) sm_count: u64,
    /// Keys that a query sees at most; [`u64::MAX`] without a sliding window.
    pub(super) window: u64,
}

/// What one call asks of the card: the two sums that may bind it, as amounts of the four coefficients.
#[derive(Clone, Copy, Debug)]
pub(super) struct Work {
    spread: Coefficients,
    longest: Coefficients,
}

impl Work {
    /// The work of a batch with at least one chunk.
    pub(super) fn of(batch: &Batch<'_>, shape: Shape) -> Work {
        // Blocks and keys are counted in integers: every decision of a predicting router prices some batches.
        let (mut full, mut keys, mut most, mut longest) = (0, 0, 1, 0);
        for chunk in batch.chunks {
            let blocks = blocks_of(chunk);
            most = most.max(blocks);
            full += blocks;
            keys += chunk_keys(chunk, blocks, shape.window);
            longest = longest.max(u64::from(chunk.before) + u64::from(chunk.tokens));
        }
        let count = u64::from(batch.decodes.count);
        let sequences = batch.chunks.len() as u64 + count;
        let alone = sequences == 1;
        full += count;
        keys += batch.decodes.context_sum.min(count.saturating_mul(shape.window));
        let empty = sequences * most - full;
        longest = longest.max(u64::from(batch.decodes.context_max));
        let longest = longest.min(shape.window.saturating_add(BLOCK_QUERIES)) as f64;
        let spread = if alone {
            let waves = (shape.heads * full).div_ceil(shape.sm_count) as f64;
            [1.0, waves, waves * keys as f64 / full.max(1) as f64, 0.0]
        } else {
            let share = shape.heads as f64 / shape.sm_count as f64;
            [1.0, share * full as f64 + TAIL, share * keys as f64 + TAIL * longest, share * empty as f64]
        };
        Work { spread, longest: [1.0, 1.0, longest, 0.0] }
    }

    /// Microseconds of the call.
    pub(super) fn us(&self, coefficients: &Coefficients) -> f64 {
        product(&self.spread, coefficients).max(product(&self.longest, coefficients))
    }

    /// The sum that binds the call.
    pub(super) fn binding(&self, coefficients: &Coefficients) -> Coefficients {
        let spread_binds = product(&self.spread, coefficients) >= product(&self.longest, coefficients);
        if spread_binds { self.spread } else { self.longest }
    }
}

fn blocks_of(chunk: &Chunk) -> u64 {
    u64::from(chunk.tokens).div_ceil(BLOCK_QUERIES)
}

/// Keys that all blocks of a chunk read, one head: a block reads up to its own last query.
fn chunk_keys(chunk: &Chunk, blocks: u64, window: u64) -> u64 {
    let (queries, before) = (u64::from(chunk.tokens), u64::from(chunk.before));
    let most = window.saturating_add(BLOCK_QUERIES);
    if before + queries <= most {
        return blocks * before + BLOCK_QUERIES * blocks * blocks.saturating_sub(1) / 2 + queries;
    }
    let block_keys = |block: u64| (before + queries.min(block * BLOCK_QUERIES)).min(most);
    (1..=blocks).map(block_keys).sum()
}

fn product(amounts: &Coefficients, coefficients: &Coefficients) -> f64 {
    amounts.iter().zip(coefficients).map(|(amount, us)| amount * us).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::step_time::Decodes;

    const SHAPE: Shape = Shape { heads: 32, sm_count: 128, window: u64::MAX };
    const COSTS: Coefficients = [10.0, 5.0, 0.03, 0.3];

    fn us(chunks: &[Chunk], decodes: Decodes, shape: Shape) -> f64 {
        Work::of(&Batch { chunks, decodes }, shape).us(&COSTS)
    }

    fn chunk(tokens: u32, before: u32) -> Chunk {
        Chunk { tokens, before, samples: true }
    }

    /// 256 queries of 32 heads are 128 blocks, one on each multiprocessor: the last reads every key.
    #[test]
    fn one_wave_lasts_as_its_longest_block() {
        assert_eq!(us(&[chunk(256, 1000)], Decodes::default(), SHAPE), 10.0 + 5.0 + 0.03 * 1256.0);
        // One block more a head is a second wave.
        let two = us(&[chunk(257, 100_000)], Decodes::default(), SHAPE);
        let one = us(&[chunk(256, 100_000)], Decodes::default(), SHAPE);
        assert!((two / one - 2.0).abs() < 0.01, "{two} {one}");
    }

    /// Eight decodes are 256 blocks of one query, and three empty ones each beside a chunk of four blocks.
    #[test]
    fn decodes_beside_a_chunk_are_blocks_too() {
        let decodes = Decodes { count: 8, context_sum: 8 * 1000, context_max: 1000 };
        let keys = 0.25 * (64.0 * 6.0 + 256.0 + 8000.0) + 0.5 * 1000.0;
        let expected = 10.0 + 5.0 * (0.25 * 12.0 + 0.5) + 0.03 * keys + 0.3 * 0.25 * 24.0;
        assert!((us(&[chunk(256, 0)], decodes, SHAPE) - expected).abs() < 1e-9);
    }

    #[test]
    fn a_window_caps_what_blocks_read() {
        let narrow = Shape { window: 64, ..SHAPE };
        let far = us(&[chunk(256, 100_000)], Decodes::default(), narrow);
        assert_eq!(far, 10.0 + 5.0 + 0.03 * 128.0);
        let near = us(&[chunk(64, 0)], Decodes::default(), narrow);
        assert_eq!(near, us(&[chunk(64, 0)], Decodes::default(), SHAPE));
    }
}
