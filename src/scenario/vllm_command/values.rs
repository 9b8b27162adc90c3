//! Values of flags, read as vLLM 0.24 reads them.
//!
//! Knows numbers, units and names. Does not know whether a value suits the model or the GPU.

use toml::Value;

use Reading::{Bad, Good, NotModelled};

/// What a value turns out to be.
pub(super) enum Reading {
    /// A value of the key.
    Good(Value),
    /// A value that vLLM takes and the simulator does not model; the reason.
    NotModelled(&'static str),
    /// No value of this flag; what was expected.
    Bad(&'static str),
}

/// A model's name or path. The shell would have replaced a variable; here its value is not known.
pub(super) fn model(text: &str) -> Reading {
    if text.is_empty() || text.starts_with('$') {
        Bad("the name or path of a model")
    } else {
        Good(Value::from(text))
    }
}

/// A switch, as `true` or `false`.
pub(super) fn switch(text: &str) -> Reading {
    Good(Value::Boolean(text == "true"))
}

/// A whole number, zero included.
pub(super) fn whole(text: &str) -> Reading {
    count(text.parse().ok(), 0).map_or(Bad("a whole number"), Good)
}

/// A whole number from 1.
pub(super) fn positive(text: &str) -> Reading {
    count(text.parse().ok(), 1).map_or(Bad("a whole number from 1"), Good)
}

/// A whole number from 1 that may end in a unit: `8k` is 8000, `8K` is 8192.
pub(super) fn readable(text: &str) -> Reading {
    count(with_unit(text), 1).map_or(Bad("a whole number from 1, such as 8192, 8k (8000) or 8K (8192)"), Good)
}

/// The longest sequence: as `readable`, or left to the KV memory.
pub(super) fn length(text: &str) -> Reading {
    if text == "-1" || text.eq_ignore_ascii_case("auto") {
        NotModelled(
            "a longest sequence fitted to the KV memory is not modelled: write the number that vLLM logs",
        )
    } else {
        readable(text)
    }
}

/// The share of GPU memory that vLLM may use.
pub(super) fn memory_share(text: &str) -> Reading {
    match text.parse::<f64>() {
        Ok(share) if share > 0.0 && share <= 1.0 => Good(Value::Float(share)),
        _ => Bad("a number above 0, up to 1"),
    }
}

/// The share of KV blocks kept free at admissions.
pub(super) fn watermark(text: &str) -> Reading {
    match text.parse::<f64>() {
        Ok(share) if (0.0..1.0).contains(&share) => Good(Value::Float(share)),
        _ => Bad("a number from 0, below 1"),
    }
}

/// The order of the waiting queue.
pub(super) fn policy(text: &str) -> Reading {
    match text {
        "fcfs" | "priority" => Good(Value::from(text)),
        _ => Bad("`fcfs` or `priority`"),
    }
}

/// The type of the KV cache. The 16-bit types take the bytes that `auto` takes, for models of other types are
/// refused; of the 8-bit ones, those that store more than one byte an element are not modelled.
pub(super) fn cache_type(text: &str) -> Reading {
    match text {
        "auto" | "bfloat16" | "float16" => Good(Value::from("auto")),
        "fp8" | "fp8_e4m3" | "fp8_e5m2" | "fp8_inc" => Good(Value::from("fp8")),
        "fp8_ds_mla" | "fp8_per_token_head" | "int8_per_token_head" | "nvfp4" => NotModelled(OTHER_CACHE),
        _ if text.starts_with("turboquant_") => NotModelled(OTHER_CACHE),
        _ => Bad("a KV cache type of vLLM, such as `auto` or `fp8`"),
    }
}

const OTHER_CACHE: &str = "the KV cache is modelled in 16 bits or in plain fp8 only";

/// How weights are stored. vLLM's list is long and open to plug-ins, so any other name is taken for one of it.
pub(super) fn quantization(text: &str) -> Reading {
    match text {
        "fp8" => Good(Value::from("fp8")),
        "" => Bad("a quantization method, such as `fp8`"),
        _ if text.eq_ignore_ascii_case("none") => Good(Value::from("none")),
        _ => NotModelled("weights are modelled unquantized or in plain fp8 only"),
    }
}

/// A number of at least `least` that fits where vLLM keeps it.
fn count(number: Option<u64>, least: u32) -> Option<Value> {
    let number = u32::try_from(number?).ok()?;
    (number >= least).then(|| Value::Integer(i64::from(number)))
}

/// Lower-case units are powers of 1000 and may follow decimals; upper-case ones are powers of 1024 and may not.
fn with_unit(text: &str) -> Option<u64> {
    let last = text.chars().last()?;
    let power: u32 = match last.to_ascii_lowercase() {
        'k' => 1,
        'm' => 2,
        'g' => 3,
        't' => 4,
        _ => return text.parse().ok(),
    };
    let number = &text[..text.len() - 1];
    if last.is_ascii_uppercase() {
        return number.parse::<u64>().ok()?.checked_mul(1024_u64.pow(power));
    }
    if !number.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.') {
        return None;
    }
    // vLLM drops what is left of a token after the multiplication; so does this conversion.
    number.parse::<f64>().ok().map(|number| (number * 1000_u64.pow(power) as f64) as u64)
}
