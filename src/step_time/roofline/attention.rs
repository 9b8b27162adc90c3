//! The time of attention, in integer picoseconds of all layers together.
//!
//! A decode reads its context, so time follows the sum of contexts, not the longest: unequal contexts of equal sum cost
//! 0 to 5 % more in the median, which is left out. Prefill follows the pairs of query and key. How the two mix depends
//! on the kernel: Hopper and data-centre Blackwell schedule tiles and give the sum; FlashAttention 2 runs both in one
//! call of thread blocks (`thread_blocks.rs`), where decodes lose packed heads and split KV.
//!
//! Layers with a sliding window read at most the window. A batch tells the sum of its contexts alone, so decodes count
//! with the mean context: exact while all are shorter or all are longer than the window.

use super::{ATTENTION_MULTIPLIER, picoseconds};
use crate::hardware::coefficients;
use crate::hardware::{Deployment, Gpu, Model};
use crate::step_time::multipliers::Multipliers;
use crate::step_time::thread_blocks::{BLOCK_QUERIES, Coefficients, Shape, Work};
use crate::step_time::{Batch, Chunk, Decodes};

/// Start of a decode call inside a step on Hopper, in microseconds, and on cards that were not measured; alone 12 to 18,
/// where L2 holds what a step has evicted.
const DECODE_BASE_US: f64 = 13.0;
/// Decode time of each sequence and key-value head inside a step, in microseconds, on the same cards.
const DECODE_US_PER_SEQUENCE_AND_KV_HEAD: f64 = 0.022;
/// Decode on cards that were not measured: the upper of the recommended efficiencies.
const DEFAULT_DECODE_INV_EFF: f64 = 1.09;
/// Prefill on cards that were not measured, as on H100 and H200: start, excess over the peak, excess of traffic.
const DEFAULT_PREFILL: (f64, f64, f64) = (12.8, 1.47, 2.4);

/// FlashAttention 2 on cards that were not measured: start of a call with prompts and of a thread block, microseconds.
const DEFAULT_BLOCKS: (f64, f64) = (4.0, 4.0);
/// FlashAttention 2: an empty thread block, in microseconds, as both engine profiles have it.
const EMPTY_BLOCK_US: f64 = 0.34;

/// MLA: heads on a card, start of a decode of the attention module in microseconds, microseconds a sequence. The
/// module was measured whole on H200, projections included, so no multiplier applies; 3 to 7 % off in the mean.
const MLA_DECODE: [(u32, f64, f64); 4] =
    [(128, 142.0, 0.68), (64, 119.0, 0.37), (32, 106.0, 0.23), (16, 99.0, 0.17)];
/// MLA: time of KV reading and of arithmetic in a decode over what the peaks say.
const MLA_DECODE_INV_EFF: (f64, f64) = (0.8, 1.0);
/// MLA: start of a prefill in microseconds, excess of projections, excess of attention.
const MLA_PREFILL: (f64, f64, f64) = (120.0, 3.3, 0.9);

/// Binary places of the slopes that price chunks: a pair of query and key takes some picoseconds only.
const FRACTION_BITS: u32 = 16;

#[derive(Clone, Copy, Debug)]
pub(super) struct Attention {
    decode_base_ps: u64,
    decode_per_sequence_ps: u64,
    /// Layers with full attention, by token attended to.
    decode_per_token_ps: u64,
    /// Layers with a sliding window, by token attended to.
    decode_per_window_token_ps: u64,
    window: u64,
    prefill: Prefill,
}

/// Prices of a call that holds chunks. Slopes have [`FRACTION_BITS`] binary places.
#[derive(Clone, Copy, Debug)]
enum Prefill {
    Flops {
        base_ps: u64,
        per_token: u64,
        per_pair: u64,
        per_window_pair: u64,
        /// Whether decodes beside the chunks start a call of their own.
        separate_decodes: bool,
    },
    /// FlashAttention 2: one call for all.
    Blocks(Blocks),
}

/// Calls of all layers as thread blocks.
#[derive(Clone, Copy, Debug)]
struct Blocks {
    shape: Shape,
    /// Layers with full attention, and those with a sliding window.
    layers: [f64; 2],
    window: u64,
    coefficients: Coefficients,
    us_per_token: f64,
}

impl Blocks {
    fn cost_ps(&self, batch: &Batch<'_>) -> u64 {
        let tokens: u64 = batch.chunks.iter().map(|chunk| u64::from(chunk.tokens)).sum();
        let windows = [u64::MAX, self.window];
        let calls = self.layers.into_iter().zip(windows).filter(|(layers, _)| *layers > 0.0);
        let us = calls.map(|(layers, window)| {
            let work = Work::of(batch, Shape { window, ..self.shape });
            layers * (work.us(&self.coefficients) + self.us_per_token * tokens as f64)
        });
        picoseconds(us.sum())
    }
}

impl Attention {
    pub(super) fn new(
        gpu: &Gpu,
        model: &Model,
        deployment: &Deployment,
        multipliers: &Multipliers,
    ) -> Attention {
        if model.is_mla() {
            latent(gpu, model, deployment, multipliers)
        } else {
            grouped(gpu, model, deployment, multipliers)
        }
    }

    /// Attention of a step.
    pub(super) fn cost_ps(&self, batch: &Batch<'_>) -> u64 {
        if batch.chunks.iter().all(|chunk| chunk.tokens == 0) {
            return self.decode_base_ps + self.decodes_ps(batch.decodes);
        }
        match self.prefill {
            Prefill::Flops { base_ps, per_token, per_pair, per_window_pair, separate_decodes } => {
                let mut work = 0;
                for chunk in batch.chunks {
                    work += product(per_token, u64::from(chunk.tokens))
                        + product(per_pair, pairs(chunk, u64::MAX))
                        + product(per_window_pair, pairs(chunk, self.window));
                }
                let decode_base_ps =
                    if separate_decodes && batch.decodes.count > 0 { self.decode_base_ps } else { 0 };
                base_ps + whole(work) + decode_base_ps + self.decodes_ps(batch.decodes)
            }
            Prefill::Blocks(blocks) => blocks.cost_ps(batch),
        }
    }

    /// By how much attention of these decodes grows a step, and for how many steps.
    pub(super) fn growth_ps(&self, decodes: Decodes) -> (u64, u64) {
        let count = u64::from(decodes.count);
        let full = self.decode_per_token_ps * count;
        if self.decode_per_window_token_ps == 0 {
            return (full, u64::MAX);
        }
        match (count * self.window).checked_sub(decodes.context_sum) {
            None => (full, u64::MAX),
            Some(room) => (full + self.decode_per_window_token_ps * count, room / count + 1),
        }
    }

    /// Decodes without the start of their call.
    fn decodes_ps(&self, decodes: Decodes) -> u64 {
        let count = u64::from(decodes.count);
        let in_window = decodes.context_sum.min(count * self.window);
        self.decode_per_sequence_ps * count
            + self.decode_per_token_ps * decodes.context_sum
            + self.decode_per_window_token_ps * in_window
    }
}

/// Pairs of query and key in a chunk, where each query sees at most `window` keys.
fn pairs(chunk: &Chunk, window: u64) -> u64 {
    let (queries, before) = (u64::from(chunk.tokens), u64::from(chunk.before));
    let growing = queries.min(window.saturating_sub(before));
    let triangle = growing * before + growing * (growing + 1) / 2;
    let capped = queries - growing;
    if capped == 0 { triangle } else { triangle + capped * window }
}

fn product(slope: u64, amount: u64) -> u128 {
    u128::from(slope) * u128::from(amount)
}

fn whole(work: u128) -> u64 {
    (work >> FRACTION_BITS) as u64
}

/// A slope of so many microseconds, with [`FRACTION_BITS`] binary places.
fn slope(us: f64) -> u64 {
    (us * 1e6 * f64::from(1u32 << FRACTION_BITS)).round() as u64
}

/// Multi-head and grouped-query attention.
fn grouped(gpu: &Gpu, model: &Model, deployment: &Deployment, multipliers: &Multipliers) -> Attention {
    let cards = deployment.tensor_parallel_size;
    let kv_dtype = deployment.kv_cache_dtype;
    let measured = gpu.attention_coefficients.as_deref();
    let row = measured.and_then(|measured| {
        coefficients::attention(measured, kv_dtype, model.head_dim)
            .or_else(|| coefficients::attention(measured, Default::default(), model.head_dim))
    });
    let us_per_byte = 1e6 / gpu.bytes_per_s();
    let us_per_flop = 1e-6 / gpu.bf16_tflops;
    let heads = f64::from(model.heads / cards);
    let kv_heads = f64::from(model.kv_heads_per_gpu(cards));
    let head_dim = f64::from(model.head_dim);
    let kv_bytes_per_token = kv_heads * 2.0 * head_dim * kv_dtype.bytes() as f64;

    let full_layers = f64::from(model.layers - model.sliding_layers) * ATTENTION_MULTIPLIER;
    let window_layers = f64::from(model.sliding_layers) * ATTENTION_MULTIPLIER;
    let layers = full_layers + window_layers;
    let (decode, prefill_factor) = (multipliers.decode_attention(), multipliers.prefill_attention());

    let decode_inv_eff = row.map_or(DEFAULT_DECODE_INV_EFF, |row| row.decode_inv_eff_bandwidth);
    let decode_us = decode_inv_eff * kv_bytes_per_token * us_per_byte;
    let decode_base_us = row.and_then(|row| row.decode_base_us).unwrap_or(DECODE_BASE_US);
    let decode_us_per_sequence = row
        .and_then(|row| row.decode_us_per_sequence_and_kv_head)
        .unwrap_or(DECODE_US_PER_SEQUENCE_AND_KV_HEAD);
    let (prefill_base_us, prefill_inv_eff, us_per_byte_moved) = match row {
        Some(row) => {
            // Traffic measured on another card goes with the bandwidth.
            let bandwidth = measured.and_then(|measured| crate::hardware::gpu(measured).ok());
            let relative = bandwidth.map_or(1.0, |other| other.bytes_per_s() / gpu.bytes_per_s());
            (row.prefill_base_us, row.prefill_inv_eff_flops, row.prefill_us_per_mb / 1e6 * relative)
        }
        None => (DEFAULT_PREFILL.0, DEFAULT_PREFILL.1, DEFAULT_PREFILL.2 * us_per_byte),
    };
    let us_per_pair_and_head = prefill_inv_eff * 4.0 * head_dim * us_per_flop;

    let prefill = if gpu.runs_flash_attention_2() {
        let (base_us, block_us) = match row.and_then(|row| Some((row.prefill_base_us, row.prefill_block_us?)))
        {
            Some(measured) => measured,
            None => DEFAULT_BLOCKS,
        };
        // A multiprocessor has its share of the card's peak.
        let key_us = us_per_pair_and_head * BLOCK_QUERIES as f64 * f64::from(gpu.sm_count);
        Prefill::Blocks(Blocks {
            shape: Shape {
                heads: u64::from(model.heads / cards),
                sm_count: u64::from(gpu.sm_count),
                window: u64::MAX,
            },
            layers: [prefill_factor * full_layers, prefill_factor * window_layers],
            window: u64::from(model.sliding_window),
            coefficients: [base_us, block_us, key_us, EMPTY_BLOCK_US],
            us_per_token: us_per_byte_moved * (2.0 * heads + 2.0 * kv_heads) * head_dim * 2.0,
        })
    } else {
        let bytes_per_token = (2.0 * heads + 2.0 * kv_heads) * head_dim * 2.0;
        Prefill::Flops {
            base_ps: picoseconds(prefill_factor * layers * prefill_base_us),
            per_token: slope(prefill_factor * layers * us_per_byte_moved * bytes_per_token),
            per_pair: slope(prefill_factor * full_layers * heads * us_per_pair_and_head),
            per_window_pair: slope(prefill_factor * window_layers * heads * us_per_pair_and_head),
            separate_decodes: false,
        }
    };
    Attention {
        decode_base_ps: picoseconds(decode * layers * decode_base_us),
        decode_per_sequence_ps: picoseconds(decode * layers * kv_heads * decode_us_per_sequence),
        decode_per_token_ps: picoseconds(decode * full_layers * decode_us),
        decode_per_window_token_ps: picoseconds(decode * window_layers * decode_us),
        window: u64::from(model.sliding_window),
        prefill,
    }
}

/// Multi-head latent attention, its projections included.
fn latent(gpu: &Gpu, model: &Model, deployment: &Deployment, multipliers: &Multipliers) -> Attention {
    let (decode, prefill) = (
        multipliers.decode_attention() * f64::from(model.layers),
        multipliers.prefill_attention() * f64::from(model.layers),
    );
    let heads = model.heads / deployment.tensor_parallel_size;
    let us_per_byte = 1e6 / gpu.bytes_per_s();
    let us_per_flop = 1e-6 / gpu.bf16_tflops;
    let us_per_fp8_flop = 1e-6 / gpu.fp8_tflops.unwrap_or(gpu.bf16_tflops);

    let [first, rest @ ..] = MLA_DECODE;
    let nearest = |best: (u32, f64, f64), row: (u32, f64, f64)| {
        if row.0.abs_diff(heads) < best.0.abs_diff(heads) { row } else { best }
    };
    let (_, decode_base_us, decode_us) = rest.into_iter().fold(first, nearest);
    let heads = f64::from(heads);
    let latent = f64::from(model.kv_lora_rank + model.qk_rope_head_dim);
    // Scores against the whole latent, values from its part without position, two operations each.
    let decode_flops = heads * 2.0 * (latent + f64::from(model.kv_lora_rank));
    let decode_bytes = latent * deployment.kv_cache_dtype.bytes() as f64;
    let per_token_us =
        MLA_DECODE_INV_EFF.0 * decode_bytes * us_per_byte + MLA_DECODE_INV_EFF.1 * decode_flops * us_per_flop;

    let hidden = f64::from(model.hidden);
    let key = f64::from(model.qk_nope_head_dim + model.qk_rope_head_dim);
    let value = f64::from(model.v_head_dim);
    let rank = f64::from(model.q_lora_rank);
    let queries = if rank > 0.0 { hidden * rank + rank * heads * key } else { hidden * heads * key };
    let keys_and_values = f64::from(model.kv_lora_rank) * heads * (f64::from(model.qk_nope_head_dim) + value);
    let projections = queries + hidden * latent + keys_and_values + heads * value * hidden;

    let (prefill_base_us, projection_inv_eff, attention_inv_eff) = MLA_PREFILL;
    let pair_flops = 2.0 * heads * (key + value);
    Attention {
        decode_base_ps: picoseconds(decode * decode_base_us),
        decode_per_sequence_ps: picoseconds(decode * decode_us),
        decode_per_token_ps: picoseconds(decode * per_token_us),
        decode_per_window_token_ps: 0,
        window: 0,
        prefill: Prefill::Flops {
            base_ps: picoseconds(prefill * prefill_base_us),
            per_token: slope(prefill * projection_inv_eff * 2.0 * projections * us_per_fp8_flop),
            per_pair: slope(prefill * attention_inv_eff * pair_flops * us_per_flop),
            per_window_pair: 0,
            separate_decodes: true,
        },
    }
}
