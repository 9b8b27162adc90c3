//! What depends on the number of tokens alone: matrix products, small kernels and all-reduce of all layers, and the
//! output head.

use super::gemm::{Experts, Gemm};
use super::{ALL_REDUCE_MULTIPLIER, SMALL_MULTIPLIER};
use crate::hardware::coefficients::{self, AllReduce};
use crate::hardware::models::MatrixFormat;
use crate::hardware::{Deployment, Gpu, Model};

/// Norms, rotary angles, activation, residual and KV write of a layer at one token, in microseconds: five to six
/// kernels after fusion, as vLLM's engine shows them.
const SMALL_US: f64 = 11.0;
/// Their memory traffic takes this many times what the bandwidth says.
const SMALL_INV_EFF_BANDWIDTH: f64 = 1.2;
/// Sampler kernels of a step, in microseconds.
const SAMPLER_US: f64 = 60.0;
/// Bytes that the sampler moves for each entry of the vocabulary and sequence.
const SAMPLER_BYTES_PER_LOGIT: f64 = 12.0;

/// Prices of everything but attention, in microseconds.
#[derive(Debug)]
pub(super) struct Dense<'a> {
    model: &'a Model,
    cards: f64,
    us_per_byte: f64,
    linear: Gemm,
    plain: Gemm,
    experts: Experts,
    all_reduce: Option<&'static AllReduce>,
}

impl<'a> Dense<'a> {
    pub(super) fn new(gpu: &Gpu, model: &'a Model, deployment: &Deployment) -> Dense<'a> {
        let cards = f64::from(deployment.tensor_parallel_size);
        Dense {
            model,
            cards,
            us_per_byte: 1e6 / gpu.bytes_per_s(),
            linear: Gemm::new(gpu, model.dense_format(deployment.weight_dtype)),
            plain: Gemm::new(gpu, MatrixFormat::Bf16),
            experts: Experts::new(gpu, model, model.expert_format(deployment.weight_dtype), cards),
            all_reduce: all_reduce(gpu, deployment.tensor_parallel_size),
        }
    }

    /// All layers, attention left out, for M tokens.
    pub(super) fn layers_us(&self, tokens: u32) -> f64 {
        let m = f64::from(tokens);
        let model = self.model;
        let every_layer = self.projections_us(m) + 2.0 * self.all_reduce_us(m);
        let small = |width: u32| SMALL_MULTIPLIER * self.small_us(m, f64::from(width));
        let dense_layer =
            || self.feed_forward_us(m, f64::from(model.intermediate)) + small(model.intermediate);
        let expert_layer = || {
            let router = self.plain.us(m, f64::from(model.experts), f64::from(model.hidden));
            let shared = self.feed_forward_us(m, f64::from(model.shared_intermediate));
            router + shared + self.experts.us(m) + small(model.shared_intermediate)
        };
        // Prices of absent layers are not asked for: they would divide by zero experts.
        let of = |layers: u32, us: &dyn Fn() -> f64| if layers == 0 { 0.0 } else { f64::from(layers) * us() };
        f64::from(model.layers) * every_layer
            + of(model.dense_layers(), &dense_layer)
            + of(model.moe_layers, &expert_layer)
    }

    /// The output head and the sampler, for so many sequences.
    pub(super) fn head_us(&self, samples: u32) -> f64 {
        if samples == 0 {
            return 0.0;
        }
        let samples = f64::from(samples);
        let vocab = f64::from(self.model.vocab);
        let head = self.plain.us(samples, vocab / self.cards, f64::from(self.model.hidden));
        head + SAMPLER_US + samples * vocab * SAMPLER_BYTES_PER_LOGIT * self.us_per_byte
    }

    /// Projections around attention. Those of MLA were measured together with it.
    fn projections_us(&self, m: f64) -> f64 {
        let model = self.model;
        if model.is_mla() {
            return 0.0;
        }
        let hidden = f64::from(model.hidden);
        let head_dim = f64::from(model.head_dim);
        let heads = f64::from(model.heads) / self.cards;
        let kv_heads = f64::from(model.kv_heads_per_gpu(self.cards as u32));
        self.linear.us(m, (heads + 2.0 * kv_heads) * head_dim, hidden)
            + self.linear.us(m, hidden, heads * head_dim)
    }

    fn feed_forward_us(&self, m: f64, width: f64) -> f64 {
        let hidden = f64::from(self.model.hidden);
        let halves = if self.model.mlp_gated { 2.0 } else { 1.0 };
        let width = width / self.cards;
        if width == 0.0 {
            return 0.0;
        }
        self.linear.us(m, halves * width, hidden) + self.linear.us(m, hidden, width)
    }

    fn small_us(&self, m: f64, width: f64) -> f64 {
        let bytes = 12.0 * f64::from(self.model.hidden) + 6.0 * width / self.cards;
        SMALL_US + m * SMALL_INV_EFF_BANDWIDTH * bytes * self.us_per_byte
    }

    fn all_reduce_us(&self, m: f64) -> f64 {
        all_reduce_us(self.all_reduce, m * f64::from(self.model.hidden) * 2.0)
    }
}

/// One all-reduce of so many bytes, in microseconds; nothing where a card works alone.
pub(in crate::step_time) fn all_reduce_us(measured: Option<&AllReduce>, bytes: f64) -> f64 {
    let Some(row) = measured else { return 0.0 };
    let line = |start_us: f64, gb_per_s: f64| start_us + bytes / (gb_per_s * 1e3);
    let small = line(row.small_us, row.small_gb_per_s);
    let large = line(row.large_us, row.large_gb_per_s);
    ALL_REDUCE_MULTIPLIER * small.min(large)
}

/// The measured all-reduce among at least this many cards; none for a card that works alone.
pub(in crate::step_time) fn all_reduce(gpu: &Gpu, tensor_parallel_size: u32) -> Option<&'static AllReduce> {
    if tensor_parallel_size < 2 {
        return None;
    }
    let measured = gpu.allreduce_coefficients.as_deref().unwrap_or(super::marks::OTHER_ALL_REDUCE);
    coefficients::all_reduce(measured, tensor_parallel_size.next_power_of_two())
}
