//! Models: their shapes, and the bytes their weights and their KV cache take.
//!
//! `models.csv` holds a row a model, with its sources. Shapes are those of the published `config.json`.

use std::sync::OnceLock;

use serde::{Deserialize, Serialize};

use super::catalogue::{self, CatalogueError};

/// One model of the catalogue.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Model {
    /// The catalogue name, such as `llama-3.1-8b`.
    pub name: String,
    /// Its name on Hugging Face.
    pub hf_id: String,
    /// All parameters, in 10^9, computed from the shape.
    pub params_b: f64,
    /// Transformer layers.
    pub layers: u32,
    /// Width of the residual stream.
    pub hidden: u32,
    /// Width of the dense feed-forward part.
    pub intermediate: u32,
    /// Query heads.
    pub heads: u32,
    /// Key-value heads.
    pub kv_heads: u32,
    /// Elements of a head.
    pub head_dim: u32,
    /// Entries of the vocabulary.
    pub vocab: u32,
    /// Whether embedding and output head are one matrix.
    #[serde(deserialize_with = "catalogue::zero_or_one")]
    pub tied_embeddings: bool,
    /// Whether the feed-forward part has a gate beside its up-projection.
    #[serde(deserialize_with = "catalogue::zero_or_one")]
    pub mlp_gated: bool,
    /// Routed experts of a mixture-of-experts layer; 0 in a dense model.
    pub experts: u32,
    /// Experts that each token visits.
    pub top_k: u32,
    /// Width of one expert.
    pub moe_intermediate: u32,
    /// Width of the experts that every token visits, together.
    pub shared_intermediate: u32,
    /// Layers with experts.
    pub moe_layers: u32,
    /// Tokens that a sliding-window layer attends to; 0 where there is none.
    pub sliding_window: u32,
    /// Layers with a sliding window.
    pub sliding_layers: u32,
    /// Elements of the latent that multi-head latent attention (MLA) caches; 0 in other models.
    pub kv_lora_rank: u32,
    /// Elements of an MLA key that carry the position.
    pub qk_rope_head_dim: u32,
    /// Elements of an MLA key that do not.
    pub qk_nope_head_dim: u32,
    /// Elements of an MLA value head.
    pub v_head_dim: u32,
    /// Rank of the MLA query projection; 0 where it has full rank.
    pub q_lora_rank: u32,
    /// The longest sequence its configuration allows, in tokens.
    pub max_position: u32,
    /// How the published weights are stored: `bf16`, `fp8_block` or `mxfp4(moe)+bf16`.
    pub native_weight_dtype: String,
    /// Where the shape was read.
    pub sources: String,
    /// What else to know.
    pub note: String,
}

/// How weights are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum WeightDtype {
    /// As published.
    #[default]
    Auto,
    /// Every linear layer in fp8; embedding and output head stay bfloat16.
    Fp8,
}

/// How the KV cache is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum KvCacheDtype {
    /// As the model computes: bfloat16.
    #[default]
    Auto,
    /// One byte an element.
    Fp8,
}

impl KvCacheDtype {
    /// Bytes of one cached element.
    pub fn bytes(self) -> u64 {
        match self {
            KvCacheDtype::Auto => 2,
            KvCacheDtype::Fp8 => 1,
        }
    }
}

/// The formats a matrix can be stored in, resolved.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MatrixFormat {
    /// Two bytes a weight.
    Bf16,
    /// One byte a weight; the scales are less than a thousandth.
    Fp8,
    /// Four bits a weight and a scale of eight bits for each 32.
    Mxfp4,
}

impl MatrixFormat {
    /// Bytes of one weight, scales included.
    pub fn bytes(self) -> f64 {
        match self {
            MatrixFormat::Bf16 => 2.0,
            MatrixFormat::Fp8 => 1.0,
            MatrixFormat::Mxfp4 => 4.25 / 8.0,
        }
    }
}

impl Model {
    /// Whether it caches one latent a token (DeepSeek's multi-head latent attention).
    pub fn is_mla(&self) -> bool {
        self.kv_lora_rank > 0
    }

    /// Layers whose feed-forward part is dense.
    pub fn dense_layers(&self) -> u32 {
        self.layers - self.moe_layers
    }

    /// Key-value heads on each of `tensor_parallel_size` cards: at least one, so heads are replicated where there
    /// are more cards than heads.
    pub fn kv_heads_per_gpu(&self, tensor_parallel_size: u32) -> u32 {
        (self.kv_heads / tensor_parallel_size).max(1)
    }

    /// Bytes of KV cache that one token takes on each card, over all layers.
    ///
    /// The latent of MLA is not divided: every card holds all of it. Source: `vllm/v1/kv_cache_interface.py`.
    pub fn kv_bytes_per_token(&self, tensor_parallel_size: u32, dtype: KvCacheDtype) -> u64 {
        let elements = if self.is_mla() {
            self.kv_lora_rank + self.qk_rope_head_dim
        } else {
            self.kv_heads_per_gpu(tensor_parallel_size) * 2 * self.head_dim
        };
        u64::from(self.layers) * u64::from(elements) * dtype.bytes()
    }

    /// How the matrices outside the experts are stored.
    pub fn dense_format(&self, dtype: WeightDtype) -> MatrixFormat {
        match (dtype, self.native_weight_dtype.as_str()) {
            (WeightDtype::Fp8, _) | (WeightDtype::Auto, "fp8_block") => MatrixFormat::Fp8,
            (WeightDtype::Auto, _) => MatrixFormat::Bf16,
        }
    }

    /// How the experts are stored.
    pub fn expert_format(&self, dtype: WeightDtype) -> MatrixFormat {
        match (dtype, self.native_weight_dtype.as_str()) {
            (WeightDtype::Auto, "mxfp4(moe)+bf16") => MatrixFormat::Mxfp4,
            _ => self.dense_format(dtype),
        }
    }

    /// Parameters of all routed experts.
    pub fn expert_parameters(&self) -> f64 {
        let matrices = if self.mlp_gated { 3.0 } else { 2.0 };
        let one = matrices * f64::from(self.hidden) * f64::from(self.moe_intermediate);
        f64::from(self.moe_layers) * f64::from(self.experts) * one
    }

    /// Parameters of the embedding and the output head.
    pub fn embedding_parameters(&self) -> f64 {
        let matrices = if self.tied_embeddings { 1.0 } else { 2.0 };
        matrices * f64::from(self.vocab) * f64::from(self.hidden)
    }

    /// Bytes of weights on each card.
    ///
    /// Parameters in their stored format, divided among the cards (experts among `expert_cards`, those of all
    /// data-parallel engines together), plus what every card holds whole: key-value
    /// projections that are replicated, and the table of rotary angles (`max_position` rows of bfloat16), which
    /// vLLM counts into "Model loading took" (14.99 GiB for Llama-3.1-8B: 14.96 of weights and 0.03 of table).
    pub fn weight_bytes(&self, tensor_parallel_size: u32, expert_cards: u32, dtype: WeightDtype) -> u64 {
        let cards = f64::from(tensor_parallel_size);
        let experts = self.expert_parameters();
        let embedding = self.embedding_parameters();
        let rest = self.params_b * 1e9 - experts - embedding;
        let divided = embedding * MatrixFormat::Bf16.bytes() + rest * self.dense_format(dtype).bytes();
        let experts = experts * self.expert_format(dtype).bytes() / f64::from(expert_cards);
        let replicated_heads = if self.is_mla() {
            0.0
        } else {
            f64::from(self.kv_heads_per_gpu(tensor_parallel_size)) - f64::from(self.kv_heads) / cards
        };
        let replicated = f64::from(self.layers)
            * 2.0
            * replicated_heads
            * f64::from(self.head_dim * self.hidden)
            * self.dense_format(dtype).bytes();
        let rotary_dim = if self.is_mla() { self.qk_rope_head_dim } else { self.head_dim };
        let rotary = u64::from(self.max_position) * u64::from(rotary_dim) * 2;
        (divided / cards + experts + replicated).round() as u64 + rotary
    }
}

/// All models, in the catalogue's order.
pub fn models() -> &'static [Model] {
    static MODELS: OnceLock<Vec<Model>> = OnceLock::new();
    MODELS.get_or_init(|| catalogue::rows("models.csv", include_str!("models.csv")))
}

/// The model of this catalogue name (`llama-3.1-8b`) or Hugging Face id (`meta-llama/Llama-3.1-8B-Instruct`), upper
/// or lower case.
///
/// The tuned and the base variant of a model have one shape, so an id may leave `-Instruct` out.
///
/// # Errors
/// If the catalogue has none; the error names the nearest.
pub fn model(name: &str) -> Result<&'static Model, CatalogueError> {
    let wanted = name.to_lowercase();
    let named = |model: &&Model| {
        let hf_id = model.hf_id.to_lowercase();
        let organisation = hf_id.split('/').next().unwrap_or_default();
        wanted == model.name || wanted == hf_id || wanted == format!("{organisation}/{}", model.name)
    };
    models()
        .iter()
        .find(named)
        .ok_or_else(|| CatalogueError::new("model", name, models().iter().map(|model| model.name.as_str())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_model_answers_to_all_its_names() {
        let short = model("Llama-3.1-8B").unwrap();
        assert_eq!(model("meta-llama/Llama-3.1-8B-Instruct").unwrap(), short);
        assert_eq!(model("meta-llama/Llama-3.1-8B").unwrap(), short);
        assert_eq!(model("llama-3.1-8").unwrap_err().nearest[0], "llama-3.1-8b");
    }

    /// The figures of the table in the notes on step time, recomputed from published configurations.
    #[test]
    fn kv_bytes_agree_with_published_figures() {
        let bytes = |name, cards, dtype| model(name).unwrap().kv_bytes_per_token(cards, dtype);
        assert_eq!(bytes("llama-3.1-8b", 1, KvCacheDtype::Auto), 131_072);
        assert_eq!(bytes("llama-3.1-8b", 1, KvCacheDtype::Fp8), 65_536);
        assert_eq!(
            bytes("llama-3.1-70b", 16, KvCacheDtype::Auto),
            327_680 / 8,
            "one head stays on every card"
        );
        assert_eq!(bytes("deepseek-v3", 8, KvCacheDtype::Auto), 70_272, "the latent is not divided");
        assert_eq!(bytes("gemma-3-27b", 1, KvCacheDtype::Auto), 507_904);
    }
}
