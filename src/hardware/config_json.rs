//! Models that the catalogue lacks: the shape, from the `config.json` of Hugging Face.
//!
//! Knows the decoder families whose layers the step-time and memory models describe, and the fields each must have.
//! Does not guess: an architecture that is not in `FAMILIES`, and a field that is missing or out of range, are
//! refused by name.

use std::path::Path;

use serde_json::{Map, Value};

use super::models::Model;

/// Why a `config.json` gives no model.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{file}: {reason}")]
pub struct ConfigError {
    /// The path as it was given.
    pub file: String,
    /// What is wrong, by field.
    pub reason: String,
}

/// What sets a family apart from the plain decoder of Llama.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Family {
    /// Grouped-query attention and a gated feed-forward part.
    Dense,
    /// The same with experts, whose number stands in this field.
    Experts(&'static str),
    /// Latent attention and experts.
    Latent,
}

/// Architectures that are understood.
const FAMILIES: [(&str, Family); 17] = [
    ("LlamaForCausalLM", Family::Dense),
    ("MistralForCausalLM", Family::Dense),
    ("Qwen2ForCausalLM", Family::Dense),
    ("Qwen3ForCausalLM", Family::Dense),
    ("Phi3ForCausalLM", Family::Dense),
    ("Gemma2ForCausalLM", Family::Dense),
    ("Gemma3ForCausalLM", Family::Dense),
    ("GraniteForCausalLM", Family::Dense),
    ("Olmo2ForCausalLM", Family::Dense),
    ("MixtralForCausalLM", Family::Experts("num_local_experts")),
    ("GptOssForCausalLM", Family::Experts("num_local_experts")),
    ("Qwen2MoeForCausalLM", Family::Experts("num_experts")),
    ("Qwen3MoeForCausalLM", Family::Experts("num_experts")),
    ("Glm4MoeForCausalLM", Family::Experts("n_routed_experts")),
    ("DeepseekV2ForCausalLM", Family::Latent),
    ("DeepseekV3ForCausalLM", Family::Latent),
    ("KimiK2ForCausalLM", Family::Latent),
];

/// Reads the model that `path`, a `config.json`, describes.
///
/// # Errors
/// If the file is no configuration, its architecture is not understood, or a field is missing or out of range.
pub fn read(path: &Path) -> Result<Model, ConfigError> {
    let wrong = |reason: String| ConfigError { file: path.display().to_string(), reason };
    let text = std::fs::read_to_string(path).map_err(|error| wrong(error.to_string()))?;
    let fields: Map<String, Value> = serde_json::from_str(&text)
        .map_err(|error| wrong(format!("expected a JSON object of Hugging Face: {error}")))?;
    let folder = path.parent().and_then(Path::file_name).map(|name| name.to_string_lossy().into_owned());
    let said = fields.get("_name_or_path").and_then(Value::as_str).filter(|name| !name.is_empty());
    let stem = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    let by_place = if stem == "config" { folder.unwrap_or(stem) } else { stem };
    let name = said.map_or(by_place, str::to_owned);
    model(&name, &fields).map_err(wrong)
}

struct Fields<'a>(&'a Map<String, Value>);

impl Fields<'_> {
    fn number(&self, key: &str) -> Result<Option<u32>, String> {
        match self.0.get(key) {
            None | Some(Value::Null) => Ok(None),
            Some(value) => {
                let number = value.as_u64().and_then(|number| u32::try_from(number).ok());
                number
                    .map(Some)
                    .ok_or_else(|| format!("{key}: expected a whole number, 0 or more, got {value}"))
            }
        }
    }

    fn at_least_one(&self, key: &str) -> Result<u32, String> {
        match self.number(key)? {
            None => Err(format!("{key} is missing")),
            Some(0) => Err(format!("{key}: expected at least 1, got 0")),
            Some(number) => Ok(number),
        }
    }

    fn or(&self, key: &str, default: u32) -> Result<u32, String> {
        Ok(self.number(key)?.unwrap_or(default))
    }

    fn switch(&self, key: &str) -> bool {
        self.0.get(key).and_then(Value::as_bool).unwrap_or(false)
    }
}

fn family(fields: &Map<String, Value>) -> Result<Family, String> {
    let architectures = fields.get("architectures").and_then(Value::as_array);
    let Some(name) = architectures.and_then(|names| names.first()).and_then(Value::as_str) else {
        return Err(
            "architectures is missing: expected a list with one name, such as LlamaForCausalLM".into()
        );
    };
    let found = FAMILIES.iter().find(|(known, _)| *known == name);
    found.map(|(_, family)| *family).ok_or_else(|| {
        let known: Vec<&str> = FAMILIES.iter().map(|(known, _)| *known).collect();
        format!("architectures: {name} is not understood; those that are: {}", known.join(", "))
    })
}

fn model(name: &str, fields: &Map<String, Value>) -> Result<Model, String> {
    let family = family(fields)?;
    let get = Fields(fields);
    let (hidden, layers) = (get.at_least_one("hidden_size")?, get.at_least_one("num_hidden_layers")?);
    let heads = get.at_least_one("num_attention_heads")?;
    let intermediate = get.at_least_one("intermediate_size")?;
    let experts = match family {
        Family::Dense => 0,
        Family::Experts(key) => get.at_least_one(key)?,
        Family::Latent => get.or("n_routed_experts", 0)?,
    };
    let has_experts = experts > 0;
    let if_experts = |value: Result<u32, String>| if has_experts { value } else { Ok(0) };
    let moe_intermediate =
        if_experts(get.number("moe_intermediate_size").map(|width| width.unwrap_or(intermediate)))?;
    let shared_intermediate = match get.number("shared_expert_intermediate_size")? {
        Some(width) => width,
        None => get.or("n_shared_experts", 0)? * moe_intermediate,
    };
    let latent = family == Family::Latent;
    let if_latent = |key: &str| if latent { get.at_least_one(key) } else { Ok(0) };
    let (qk_nope_head_dim, qk_rope_head_dim) =
        (if_latent("qk_nope_head_dim")?, if_latent("qk_rope_head_dim")?);
    let head_dim = match get.number("head_dim")? {
        _ if latent => qk_nope_head_dim + qk_rope_head_dim,
        Some(size) if size > 0 => size,
        _ if hidden % heads == 0 => hidden / heads,
        _ => {
            return Err(format!(
                "head_dim is missing, and hidden_size = {hidden} is no multiple of {heads} heads"
            ));
        }
    };
    let (sliding_window, sliding_layers) = window(&get, fields, layers)?;
    let mut model = Model {
        name: name.rsplit('/').next().unwrap_or(name).to_lowercase(),
        hf_id: name.to_owned(),
        params_b: 0.0,
        layers,
        hidden,
        intermediate,
        heads,
        kv_heads: get.or("num_key_value_heads", heads)?.max(1),
        head_dim,
        vocab: get.at_least_one("vocab_size")?,
        tied_embeddings: get.switch("tie_word_embeddings"),
        mlp_gated: true,
        experts,
        top_k: if_experts(get.at_least_one("num_experts_per_tok"))?,
        moe_intermediate,
        shared_intermediate: if has_experts { shared_intermediate } else { 0 },
        moe_layers: if has_experts { layers - dense_layers(&get, fields, layers)? } else { 0 },
        sliding_window,
        sliding_layers,
        kv_lora_rank: if_latent("kv_lora_rank")?,
        qk_rope_head_dim,
        qk_nope_head_dim,
        v_head_dim: if_latent("v_head_dim")?,
        q_lora_rank: if latent { get.or("q_lora_rank", 0)? } else { 0 },
        max_position: get.at_least_one("max_position_embeddings")?,
        native_weight_dtype: weight_dtype(fields)?,
        sources: "config.json".into(),
        note: String::new(),
    };
    if has_experts && model.top_k > model.experts {
        return Err(format!("num_experts_per_tok = {} is more than the {experts} experts", model.top_k));
    }
    model.params_b = parameters(&model) / 1e9;
    Ok(model)
}

/// Layers of a model with experts that have none.
fn dense_layers(get: &Fields<'_>, fields: &Map<String, Value>, layers: u32) -> Result<u32, String> {
    let listed = fields.get("mlp_only_layers").and_then(Value::as_array).map_or(0, |list| list.len() as u32);
    let step = get.or("decoder_sparse_step", 1)?.max(1);
    let skipped = layers - layers / step;
    Ok((get.or("first_k_dense_replace", 0)? + listed + skipped).min(layers))
}

/// The sliding window and the layers that have it.
fn window(get: &Fields<'_>, fields: &Map<String, Value>, layers: u32) -> Result<(u32, u32), String> {
    let window = get.or("sliding_window", 0)?;
    let switched_off = fields.get("use_sliding_window").and_then(Value::as_bool) == Some(false);
    if window == 0 || switched_off {
        return Ok((0, 0));
    }
    if let Some(kinds) = fields.get("layer_types").and_then(Value::as_array) {
        let sliding = kinds.iter().filter(|kind| kind.as_str() == Some("sliding_attention")).count() as u32;
        return Ok(if sliding == 0 { (0, 0) } else { (window, sliding.min(layers)) });
    }
    let full_every = get.or("sliding_window_pattern", 0)?;
    let full = layers.checked_div(full_every).unwrap_or(0);
    Ok((window, layers - full))
}

fn weight_dtype(fields: &Map<String, Value>) -> Result<String, String> {
    let Some(quantization) = fields.get("quantization_config") else { return Ok("bf16".into()) };
    match quantization.get("quant_method").and_then(Value::as_str) {
        Some("fp8") => Ok("fp8_block".into()),
        Some("mxfp4") => Ok("mxfp4(moe)+bf16".into()),
        other => Err(format!(
            "quantization_config.quant_method: {} is not understood; those that are: fp8, mxfp4",
            other.unwrap_or("nothing")
        )),
    }
}

/// All parameters of the shape; norms and biases are below a thousandth and left out.
fn parameters(model: &Model) -> f64 {
    let [hidden, heads, head_dim] = [model.hidden, model.heads, model.head_dim].map(f64::from);
    let attention = if model.is_mla() {
        let [latent, rope, nope, value, rank] = [
            model.kv_lora_rank,
            model.qk_rope_head_dim,
            model.qk_nope_head_dim,
            model.v_head_dim,
            model.q_lora_rank,
        ]
        .map(f64::from);
        let queries = heads * (nope + rope);
        let query = if rank > 0.0 { hidden * rank + rank * queries } else { hidden * queries };
        query + hidden * (latent + rope) + latent * heads * (nope + value) + heads * value * hidden
    } else {
        hidden * head_dim * (2.0 * heads + 2.0 * f64::from(model.kv_heads))
    };
    let dense = 3.0 * hidden * f64::from(model.intermediate);
    let shared = 3.0 * hidden * f64::from(model.shared_intermediate) + hidden * f64::from(model.experts);
    f64::from(model.layers) * attention
        + f64::from(model.dense_layers()) * dense
        + f64::from(model.moe_layers) * shared
        + model.expert_parameters()
        + model.embedding_parameters()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str) -> Result<Model, String> {
        model("made/Up-1B", &serde_json::from_str(text).unwrap())
    }

    /// Published configurations, cut to the fields that are read, against the catalogue's rows.
    #[test]
    fn published_configurations_give_the_catalogues_shapes() {
        let configurations = [
            (
                "llama-3.1-8b",
                r#"{"architectures":["LlamaForCausalLM"],"hidden_size":4096,"intermediate_size":14336,
                "max_position_embeddings":131072,"num_attention_heads":32,"num_hidden_layers":32,
                "num_key_value_heads":8,"vocab_size":128256,"tie_word_embeddings":false}"#,
            ),
            (
                "qwen3-30b-a3b",
                r#"{"architectures":["Qwen3MoeForCausalLM"],"decoder_sparse_step":1,"head_dim":128,
                "hidden_size":2048,"intermediate_size":6144,"max_position_embeddings":40960,"mlp_only_layers":[],
                "moe_intermediate_size":768,"num_attention_heads":32,"num_experts":128,"num_experts_per_tok":8,
                "num_hidden_layers":48,"num_key_value_heads":4,"sliding_window":null,"use_sliding_window":false,
                "vocab_size":151936}"#,
            ),
            (
                "mixtral-8x7b",
                r#"{"architectures":["MixtralForCausalLM"],"hidden_size":4096,"intermediate_size":14336,
                "max_position_embeddings":32768,"num_attention_heads":32,"num_experts_per_tok":2,
                "num_hidden_layers":32,"num_key_value_heads":8,"num_local_experts":8,"sliding_window":null,
                "vocab_size":32000}"#,
            ),
            (
                "deepseek-v3",
                r#"{"architectures":["DeepseekV3ForCausalLM"],"first_k_dense_replace":3,"hidden_size":7168,
                "intermediate_size":18432,"kv_lora_rank":512,"max_position_embeddings":163840,
                "moe_intermediate_size":2048,"n_routed_experts":256,"n_shared_experts":1,"num_attention_heads":128,
                "num_experts_per_tok":8,"num_hidden_layers":61,"num_key_value_heads":128,"q_lora_rank":1536,
                "qk_nope_head_dim":128,"qk_rope_head_dim":64,"v_head_dim":128,"vocab_size":129280,
                "quantization_config":{"quant_method":"fp8"}}"#,
            ),
        ];
        for (name, text) in configurations {
            let (read, row) = (of(text).unwrap(), super::super::model(name).unwrap());
            assert!(
                (read.params_b / row.params_b - 1.0).abs() < 0.01,
                "{name}: {} {}",
                read.params_b,
                row.params_b
            );
            let [name_, hf_id, sources, note] =
                [&row.name, &row.hf_id, &row.sources, &row.note].map(String::clone);
            let read = Model { name: name_, hf_id, sources, note, params_b: row.params_b, ..read };
            assert_eq!(read, *row, "{name}");
        }
    }

    #[test]
    fn refusals_name_the_field() {
        let text = r#"{"architectures":["LlamaForCausalLM"],"hidden_size":4096,"intermediate_size":14336,
            "max_position_embeddings":131072,"num_attention_heads":32,"num_hidden_layers":32,"vocab_size":128256}"#;
        assert_eq!(of(text).unwrap().kv_heads, 32);
        let said = |from: &str, to: &str| of(&text.replace(from, to)).unwrap_err();
        assert!(
            said("LlamaForCausalLM", "MambaForCausalLM")
                .starts_with("architectures: MambaForCausalLM is not")
        );
        assert_eq!(said("\"hidden_size\"", "\"width\""), "hidden_size is missing");
        assert_eq!(said("32,\"vocab", "0,\"vocab"), "num_hidden_layers: expected at least 1, got 0");
        assert!(said("128256", "\"many\"").starts_with("vocab_size: expected a whole number"));
        assert!(said("4096", "4097").starts_with("head_dim is missing, and hidden_size = 4097"));
        assert!(of("{}").unwrap_err().starts_with("architectures is missing"));
        let awq = text.replace("128256", "128256,\"quantization_config\":{\"quant_method\":\"awq\"}");
        assert!(of(&awq).unwrap_err().contains("quant_method: awq is not understood"));
    }

    #[test]
    fn windows_follow_the_list_of_layers_or_the_pattern() {
        let text = r#"{"architectures":["Gemma3ForCausalLM"],"hidden_size":5376,"intermediate_size":21504,"head_dim":128,
            "max_position_embeddings":131072,"num_attention_heads":32,"num_key_value_heads":16,"num_hidden_layers":62,
            "vocab_size":262208,"tie_word_embeddings":true,"sliding_window":1024,"sliding_window_pattern":6}"#;
        let gemma = of(text).unwrap();
        assert_eq!((gemma.sliding_window, gemma.sliding_layers), (1024, 52));
        let listed = text.replace(
            "\"sliding_window_pattern\":6",
            "\"layer_types\":[\"sliding_attention\",\"full_attention\",\"sliding_attention\"]",
        );
        assert_eq!(of(&listed).unwrap().sliding_layers, 2);
    }
}
