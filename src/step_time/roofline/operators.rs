//! Single operators on a card, as the roofline prices them: for holding it against measured ones.
//!
//! Without the multipliers that a whole step takes.

use super::attention::Attention;
use super::gemm::{Experts, Gemm};
use super::{ATTENTION_MULTIPLIER, Batch};
use crate::hardware::models::{KvCacheDtype, MatrixFormat};
use crate::hardware::{Deployment, Gpu, Model, model};
use crate::step_time::multipliers::Multipliers;
use crate::step_time::routing::Routing;
use crate::step_time::{Chunk, Decodes};

/// A matrix product of M rows with an N by K weight matrix in bfloat16, in microseconds.
#[derive(Clone, Debug)]
pub struct GemmPrice(Gemm);

impl GemmPrice {
    /// Prices on this card.
    pub fn new(gpu: &Gpu) -> GemmPrice {
        GemmPrice(Gemm::new(gpu, MatrixFormat::Bf16))
    }

    /// Microseconds.
    pub fn us(&self, m: f64, n: f64, k: f64) -> f64 {
        self.0.us(m, n, k)
    }
}

/// One layer's attention with these heads on one card.
#[derive(Clone, Copy, Debug)]
pub struct AttentionPrice(Attention);

impl AttentionPrice {
    /// Prices on this card.
    pub fn new(
        gpu: &Gpu,
        heads: u32,
        kv_heads: u32,
        head_dim: u32,
        kv_cache_dtype: KvCacheDtype,
    ) -> AttentionPrice {
        let any = model("llama-3.1-8b").expect("the catalogue has it");
        let layer = Model { layers: 1, heads, kv_heads, head_dim, ..any.clone() };
        let deployment = Deployment { kv_cache_dtype, ..Deployment::defaults(gpu, &layer) };
        AttentionPrice(Attention::new(gpu, &layer, &deployment, &Multipliers::NONE))
    }

    /// A call of so many decodes of this context, in microseconds.
    pub fn decode_us(&self, count: u32, context: u32) -> f64 {
        let context_sum = u64::from(count) * u64::from(context);
        self.us(&Batch { chunks: &[], decodes: Decodes { count, context_sum, context_max: context } })
    }

    /// A call of so many prompts of this length, in microseconds.
    pub fn prefill_us(&self, count: u32, tokens: u32) -> f64 {
        let chunks = vec![Chunk { tokens, before: 0, samples: true }; count as usize];
        self.us(&Batch { chunks: &chunks, decodes: Decodes::default() })
    }

    fn us(&self, batch: &Batch<'_>) -> f64 {
        self.0.cost_ps(batch) as f64 / 1e6 / ATTENTION_MULTIPLIER
    }
}

/// What a layer of experts looks like.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ExpertShape {
    /// Width of the residual stream.
    pub hidden: u32,
    /// Width of one expert on one card.
    pub width: u32,
    /// Experts of the layer.
    pub experts: u32,
    /// Experts that each token visits.
    pub top_k: u32,
    /// Cards among which whole experts are shared out.
    pub expert_parallel_size: u32,
    /// How weights are stored.
    pub format: MatrixFormat,
}

/// All routed experts of one layer on one card.
#[derive(Clone, Debug)]
pub struct ExpertsPrice(Experts);

impl ExpertsPrice {
    /// Prices on this card.
    pub fn new(gpu: &Gpu, shape: &ExpertShape) -> ExpertsPrice {
        let any = model("llama-3.1-8b").expect("the catalogue has it");
        let layer = Model {
            hidden: shape.hidden,
            moe_intermediate: shape.width,
            experts: shape.experts,
            top_k: shape.top_k,
            ..any.clone()
        };
        let experts = Experts::new(gpu, &layer, shape.format, 1.0, Routing::Even);
        ExpertsPrice(experts.shared_out(f64::from(shape.expert_parallel_size)))
    }

    /// Microseconds for so many tokens, routed uniformly.
    pub fn us(&self, tokens: f64) -> f64 {
        self.0.us(tokens)
    }
}
