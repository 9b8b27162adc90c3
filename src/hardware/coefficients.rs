//! Measured coefficients of matrix products, experts, attention and collectives, by card.
//!
//! Fits of public operator measurements; every row names its source and its mean absolute percentage error. The
//! formulas they belong to are in [`crate::step_time::roofline`].

use std::sync::OnceLock;

use serde::Deserialize;

use super::catalogue;
use super::models::{KvCacheDtype, MatrixFormat};

/// Matrix products: `c0 + [(flops / peak * inv_eff_flops)^p + (bytes / bandwidth * inv_eff_bandwidth)^p]^(1/p)`.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Gemm {
    /// The card that was measured.
    pub gpu: String,
    /// Who measured it.
    pub source: String,
    /// Start of a bfloat16 product, in microseconds.
    pub bf16_c0_us: f64,
    /// Time at the dense peak is this many times what the peak says.
    pub bf16_inv_eff_flops: f64,
    /// Time at full bandwidth is this many times what the bandwidth says.
    pub bf16_inv_eff_bandwidth: f64,
    /// Sharpness of the corner between the two.
    pub bf16_p: f64,
    /// Mean absolute error of the fit, in percent.
    pub bf16_mape_percent: f64,
    /// As `bf16_inv_eff_flops`, for fp8.
    pub fp8_inv_eff_flops: Option<f64>,
    /// As `bf16_inv_eff_bandwidth`, for fp8.
    pub fp8_inv_eff_bandwidth: Option<f64>,
    /// As `bf16_p`, for fp8.
    pub fp8_p: Option<f64>,
    /// As `bf16_mape_percent`, for fp8.
    pub fp8_mape_percent: Option<f64>,
}

/// Matrix products of one N and K, at several M: a third of the values of N and of K that were measured. The others
/// are left for judging.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GemmTimes {
    /// The card that was measured.
    pub gpu: String,
    /// Who measured it.
    pub source: String,
    /// Rows of the weight matrix.
    pub n: f64,
    /// Its columns.
    pub k: f64,
    /// `M:microseconds`, with spaces between.
    points: String,
}

impl GemmTimes {
    /// M and microseconds.
    pub fn points(&self) -> impl Iterator<Item = (f64, f64)> {
        self.points.split(' ').map(|point| {
            let (m, us) = point.split_once(':').unwrap_or_default();
            let number = |text: &str| text.parse().unwrap_or_else(|_| panic!("gemm_grid.csv: {point}"));
            (number(m), number(us))
        })
    }
}

/// Attention of one layer.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Attention {
    /// The card that was measured.
    pub gpu: String,
    /// Who measured it.
    pub source: String,
    /// `bfloat16` or `fp8`.
    pub kv_dtype: String,
    /// Elements of a head.
    pub head_dim: u32,
    /// Reading KV from memory takes this many times what the bandwidth says.
    pub decode_inv_eff_bandwidth: f64,
    /// Start of a decode call, in microseconds; none where that of a real step is known better.
    pub decode_base_us: Option<f64>,
    /// Decode time of each sequence and key-value head, in microseconds.
    pub decode_us_per_sequence_and_kv_head: Option<f64>,
    /// Mean absolute error of the decode fit, in percent.
    pub decode_mape_percent: f64,
    /// Start of a prefill call, in microseconds.
    pub prefill_base_us: f64,
    /// Prefill takes this many times what the dense bfloat16 peak says.
    pub prefill_inv_eff_flops: f64,
    /// Microseconds for each 10^6 bytes of queries, keys, values and outputs.
    pub prefill_us_per_mb: f64,
    /// FlashAttention 2: start of a thread block, in microseconds.
    pub prefill_block_us: Option<f64>,
    /// Mean absolute error of the prefill fit, in percent.
    pub prefill_mape_percent: f64,
}

/// All routed experts of one layer, in one fused kernel, in the form of [`Gemm`].
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Experts {
    /// The card that was measured.
    pub gpu: String,
    /// Who measured it.
    pub source: String,
    /// How the weights are stored.
    pub weights: MatrixFormat,
    /// Start of the kernel, in microseconds.
    pub c0_us: f64,
    /// Time at the peak of the arithmetic (fp8 for fp8 weights, else bfloat16) is this many times what it says.
    pub inv_eff_flops: f64,
    /// Time at full bandwidth is this many times what the bandwidth says.
    pub inv_eff_bandwidth: f64,
    /// Sharpness of the corner between the two.
    pub p: f64,
    /// Mean absolute error of the fit, in percent, over even and skewed routing alike.
    pub mape_percent: f64,
}

/// All-reduce: the lower of two lines, `small_us + bytes / small_gb_per_s` and `large_us + bytes / large_gb_per_s`.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AllReduce {
    /// The card that was measured.
    pub gpu: String,
    /// Who measured it.
    pub source: String,
    /// Cards that take part.
    pub tensor_parallel_size: u32,
    /// Start of the line for small messages, in microseconds.
    pub small_us: f64,
    /// Its slope, as 10^9 bytes a second.
    pub small_gb_per_s: f64,
    /// Start of the line for large messages, in microseconds.
    pub large_us: f64,
    /// Its slope, as 10^9 bytes a second.
    pub large_gb_per_s: f64,
    /// Mean absolute error of the fit, in percent.
    pub mape_percent: f64,
}

/// NCCL's all-gather and reduce-scatter: a start and a line each, by the bytes of all cards together.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Gather {
    /// The card that was measured.
    pub gpu: String,
    /// Who measured it.
    pub source: String,
    /// Cards that take part.
    pub cards: u32,
    /// Start of an all-gather, in microseconds.
    pub all_gather_us: f64,
    /// Its slope, as 10^9 bytes a second.
    pub all_gather_gb_per_s: f64,
    /// Mean absolute error of the fit, in percent.
    pub all_gather_mape_percent: f64,
    /// Start of a reduce-scatter, in microseconds.
    pub reduce_scatter_us: f64,
    /// Its slope, as 10^9 bytes a second.
    pub reduce_scatter_gb_per_s: f64,
    /// Mean absolute error of the fit, in percent.
    pub reduce_scatter_mape_percent: f64,
}

/// Matrix products as measured on this card.
pub fn gemm(gpu: &str) -> Option<&'static Gemm> {
    static ROWS: OnceLock<Vec<Gemm>> = OnceLock::new();
    let csv = include_str!("gpu_operator_coefficients.csv");
    ROWS.get_or_init(|| catalogue::rows("gpu_operator_coefficients.csv", csv))
        .iter()
        .find(|row| row.gpu == gpu)
}

/// bfloat16 products as measured on this card; none where only coefficients are known.
pub fn gemm_times(gpu: &str) -> impl Iterator<Item = &'static GemmTimes> {
    static ROWS: OnceLock<Vec<GemmTimes>> = OnceLock::new();
    let rows = ROWS.get_or_init(|| catalogue::rows("gemm_grid.csv", include_str!("gemm_grid.csv")));
    rows.iter().filter(move |row| row.gpu == gpu)
}

/// Attention as measured on this card, at the head size nearest to the one asked for.
pub fn attention(gpu: &str, dtype: KvCacheDtype, head_dim: u32) -> Option<&'static Attention> {
    static ROWS: OnceLock<Vec<Attention>> = OnceLock::new();
    let csv = include_str!("attention_coefficients.csv");
    let kv_dtype = match dtype {
        KvCacheDtype::Auto => "bfloat16",
        KvCacheDtype::Fp8 => "fp8",
    };
    ROWS.get_or_init(|| catalogue::rows("attention_coefficients.csv", csv))
        .iter()
        .filter(|row| row.gpu == gpu && row.kv_dtype == kv_dtype)
        .min_by_key(|row| row.head_dim.abs_diff(head_dim))
}

/// Experts as measured on this card, with weights in this format.
pub fn experts(gpu: &str, weights: MatrixFormat) -> Option<&'static Experts> {
    static ROWS: OnceLock<Vec<Experts>> = OnceLock::new();
    let csv = include_str!("expert_coefficients.csv");
    ROWS.get_or_init(|| catalogue::rows("expert_coefficients.csv", csv))
        .iter()
        .find(|row| row.gpu == gpu && row.weights == weights)
}

/// All-reduce as measured among this many of these cards.
pub fn all_reduce(gpu: &str, tensor_parallel_size: u32) -> Option<&'static AllReduce> {
    static ROWS: OnceLock<Vec<AllReduce>> = OnceLock::new();
    let csv = include_str!("allreduce_coefficients.csv");
    ROWS.get_or_init(|| catalogue::rows("allreduce_coefficients.csv", csv))
        .iter()
        .find(|row| row.gpu == gpu && row.tensor_parallel_size == tensor_parallel_size)
}

/// All-gather and reduce-scatter as measured among this many of these cards.
pub fn gather(gpu: &str, cards: u32) -> Option<&'static Gather> {
    static ROWS: OnceLock<Vec<Gather>> = OnceLock::new();
    let csv = include_str!("gather_coefficients.csv");
    ROWS.get_or_init(|| catalogue::rows("gather_coefficients.csv", csv))
        .iter()
        .find(|row| row.gpu == gpu && row.cards == cards)
}

#[cfg(test)]
mod tests {
    use super::super::gpus;
    use super::*;

    #[test]
    fn every_card_that_a_gpu_refers_to_was_measured() {
        for gpu in gpus() {
            if let Some(name) = &gpu.gemm_coefficients {
                assert!(gemm(name).is_some(), "{}: {name}", gpu.name);
            }
            if let Some(name) = &gpu.attention_coefficients {
                assert!(attention(name, KvCacheDtype::Auto, 128).is_some(), "{}: {name}", gpu.name);
            }
            if let Some(name) = &gpu.allreduce_coefficients {
                assert!(all_reduce(name, 2).is_some(), "{}: {name}", gpu.name);
                assert!([2, 4, 8].iter().all(|cards| gather(name, *cards).is_some()), "{}: {name}", gpu.name);
            }
        }
    }
}
