//! Accelerators: what their makers and their drivers say of them.
//!
//! `gpus.csv` holds a row a card, with the source of its specification, its memory and its price.

use std::sync::OnceLock;

use serde::Deserialize;

use super::catalogue::{self, CatalogueError};

/// One accelerator of the catalogue. Peaks are dense (no sparsity).
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Gpu {
    /// The catalogue name, such as `h100-sxm`.
    pub name: String,
    /// Who makes it.
    pub vendor: String,
    /// The generation, such as `hopper`.
    pub architecture: String,
    /// Memory as the label says.
    pub memory_gb: f64,
    /// Memory as CUDA reports it to vLLM: what `gpu_memory_utilization` is a fraction of.
    pub memory_bytes: u64,
    /// Where `memory_bytes` was read, or how it was derived from cards of the same kind.
    pub memory_bytes_source: String,
    /// Peak memory bandwidth, in 10^9 bytes a second.
    pub memory_bandwidth_gb_per_s: f64,
    /// Peak of bfloat16 matrix products, in 10^12 operations a second.
    pub bf16_tflops: f64,
    /// Peak of fp8 matrix products; none where the card has no fp8 arithmetic.
    pub fp8_tflops: Option<f64>,
    /// Streaming multiprocessors (or compute units).
    pub sm_count: u32,
    /// Thermal design power, in watts.
    pub tdp_w: Option<f64>,
    /// The card whose measured matrix products stand for this one's; none where no near one was measured.
    pub gemm_coefficients: Option<String>,
    /// The card whose measured attention stands for this one's.
    pub attention_coefficients: Option<String>,
    /// The card whose measured all-reduce stands for this one's.
    pub allreduce_coefficients: Option<String>,
    /// Typical price of a card for an hour, in US dollars.
    pub usd_per_hour: Option<f64>,
    /// Where the price was read.
    pub price_source: String,
    /// Where the specification was read.
    pub spec_source: String,
    /// What else to know.
    pub note: String,
}

impl Gpu {
    /// Peak memory bandwidth in bytes a second.
    pub fn bytes_per_s(&self) -> f64 {
        self.memory_bandwidth_gb_per_s * 1e9
    }

    /// Whether vLLM runs FlashAttention 2 on it: NVIDIA cards that are neither Hopper nor data-centre Blackwell.
    ///
    /// Such kernels give a whole batch one call with one block of queries a thread block, so their time comes in
    /// waves and decodes inside a mixed batch lose their packing.
    pub fn runs_flash_attention_2(&self) -> bool {
        matches!(self.architecture.as_str(), "ampere" | "ada" | "blackwell-consumer")
    }
}

/// All accelerators, in the catalogue's order.
pub fn gpus() -> &'static [Gpu] {
    static GPUS: OnceLock<Vec<Gpu>> = OnceLock::new();
    GPUS.get_or_init(|| catalogue::rows("gpus.csv", include_str!("gpus.csv")))
}

/// The accelerator of this name, upper or lower case.
///
/// # Errors
/// If the catalogue has none; the error names the nearest.
pub fn gpu(name: &str) -> Result<&'static Gpu, CatalogueError> {
    gpus()
        .iter()
        .find(|gpu| gpu.name.eq_ignore_ascii_case(name))
        .ok_or_else(|| CatalogueError::new("GPU", name, gpus().iter().map(|gpu| gpu.name.as_str())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_found_and_mistakes_answered() {
        assert_eq!(gpu("H100-SXM").unwrap().memory_bandwidth_gb_per_s, 3350.0);
        let error = gpu("h100-smx").unwrap_err();
        assert_eq!(error.nearest[0], "h100-sxm");
        assert!(error.to_string().contains("no GPU named `h100-smx`"), "{error}");
    }

    #[test]
    fn reported_memory_is_near_the_label() {
        for gpu in gpus() {
            let share = gpu.memory_bytes as f64 / (gpu.memory_gb * (1u64 << 30) as f64);
            assert!((0.9..=1.0).contains(&share), "{}: {share}", gpu.name);
        }
    }
}
