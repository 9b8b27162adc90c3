//! What depends on the number of tokens alone: matrix products, small kernels, experts and all-reduce of all layers,
//! and the output head.

use super::SMALL_MULTIPLIER;
use super::gemm::{Experts, Gemm};
use crate::hardware::models::MatrixFormat;
use crate::hardware::{Deployment, Gpu, Model};
use crate::step_time::links::Links;
use crate::step_time::multipliers::Multipliers;
use crate::step_time::routing::Routing;

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
    experts: Option<Experts>,
    links: Links,
    multipliers: Multipliers,
}

impl<'a> Dense<'a> {
    pub(super) fn new(
        gpu: &Gpu,
        model: &'a Model,
        deployment: &Deployment,
        multipliers: &Multipliers,
    ) -> Dense<'a> {
        let cards = f64::from(deployment.tensor_parallel_size);
        Dense {
            model,
            cards,
            us_per_byte: 1e6 / gpu.bytes_per_s(),
            linear: Gemm::new(gpu, model.dense_format(deployment.weight_dtype)),
            plain: Gemm::new(gpu, MatrixFormat::Bf16),
            experts: experts(gpu, model, deployment),
            links: Links::new(gpu, model, deployment).scaled(multipliers.all_reduce()),
            multipliers: *multipliers,
        }
    }

    /// All layers, attention and routed experts left out, for M tokens.
    pub(super) fn layers_us(&self, tokens: u32) -> f64 {
        let m = f64::from(tokens);
        let model = self.model;
        let every_layer = self.projections_us(m) + 2.0 * self.links.all_reduce_us(m);
        let small = |width: u32| {
            SMALL_MULTIPLIER * self.multipliers.small_kernels() * self.small_us(m, f64::from(width))
        };
        let dense_layer =
            || self.feed_forward_us(m, f64::from(model.intermediate)) + small(model.intermediate);
        let expert_layer = || {
            let router = self.product_us(&self.plain, m, f64::from(model.experts), f64::from(model.hidden));
            let shared = self.feed_forward_us(m, f64::from(model.shared_intermediate));
            router + shared + small(model.shared_intermediate)
        };
        let of = |layers: u32, us: &dyn Fn() -> f64| if layers == 0 { 0.0 } else { f64::from(layers) * us() };
        f64::from(model.layers) * every_layer
            + of(model.dense_layers(), &dense_layer)
            + of(model.moe_layers, &expert_layer)
            + self.links.all_reduce_us(m)
    }

    /// The routed experts of all layers, with the way there and back, for the M tokens of all engines.
    pub(super) fn experts_us(&self, tokens: u32) -> f64 {
        let m = f64::from(tokens);
        let layers = f64::from(self.model.moe_layers);
        self.experts.as_ref().map_or(0.0, |experts| {
            layers * (self.multipliers.matrix_products() * experts.us(m) + self.links.experts_us(m))
        })
    }

    /// The output head and the sampler, for so many sequences.
    pub(super) fn head_us(&self, samples: u32) -> f64 {
        if samples == 0 {
            return 0.0;
        }
        let samples = f64::from(samples);
        let vocab = f64::from(self.model.vocab);
        let head = self.product_us(&self.plain, samples, vocab / self.cards, f64::from(self.model.hidden));
        let sampler = SAMPLER_US + samples * vocab * SAMPLER_BYTES_PER_LOGIT * self.us_per_byte;
        head + self.links.logits_us(samples) + self.multipliers.small_kernels() * sampler
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
        self.product_us(&self.linear, m, (heads + 2.0 * kv_heads) * head_dim, hidden)
            + self.product_us(&self.linear, m, hidden, heads * head_dim)
    }

    fn feed_forward_us(&self, m: f64, width: f64) -> f64 {
        let hidden = f64::from(self.model.hidden);
        let halves = if self.model.mlp_gated { 2.0 } else { 1.0 };
        let width = width / self.cards;
        if width == 0.0 {
            return 0.0;
        }
        self.product_us(&self.linear, m, halves * width, hidden)
            + self.product_us(&self.linear, m, hidden, width)
    }

    fn product_us(&self, gemm: &Gemm, m: f64, n: f64, k: f64) -> f64 {
        self.multipliers.matrix_products() * gemm.us(m, n, k)
    }

    fn small_us(&self, m: f64, width: f64) -> f64 {
        let bytes = 12.0 * f64::from(self.model.hidden) + 6.0 * width / self.cards;
        SMALL_US + m * SMALL_INV_EFF_BANDWIDTH * bytes * self.us_per_byte
    }
}

/// The routed experts of a layer; none where the model has no such layers.
fn experts(gpu: &Gpu, model: &Model, deployment: &Deployment) -> Option<Experts> {
    if model.moe_layers == 0 {
        return None;
    }
    let format = model.expert_format(deployment.weight_dtype);
    let experts = Experts::new(gpu, model, format, f64::from(deployment.expert_slices()), Routing::Trained);
    Some(experts.shared_out(f64::from(deployment.expert_parallel_size())))
}
