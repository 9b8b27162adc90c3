//! `verify steps`: the roofline's operators against tables of measured ones.
//!
//! Knows the tables of public operator measurements: matrix products, attention of decodes and of prompts, experts. A
//! row is judged only where it has no part in what is judged: products whose shape is on the grid that the roofline
//! interpolates, and experts and decodes shaped as where their start was fitted, are left out and counted.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::BufReader;
use std::path::Path;

use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::compression;
use crate::hardware::models::{KvCacheDtype, MatrixFormat};
use crate::hardware::{Gpu, coefficients, gpu, gpus};
use crate::step_time::roofline::operators::{AttentionPrice, ExpertShape, ExpertsPrice, GemmPrice};

/// Why a table cannot be judged.
#[derive(Debug, thiserror::Error)]
#[error("{file}: {reason}")]
pub struct StepsError {
    file: String,
    reason: String,
}

/// Absolute relative errors of some rows.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Errors {
    errors: Vec<f64>,
    sum: f64,
}

impl Errors {
    fn add(&mut self, predicted: f64, measured: f64) {
        self.errors.push((predicted / measured - 1.0).abs());
        self.sum += predicted / measured - 1.0;
    }

    /// How many rows.
    pub fn count(&self) -> usize {
        self.errors.len()
    }

    /// Mean of the absolute errors.
    pub fn mean(&self) -> f64 {
        self.errors.iter().sum::<f64>() / self.errors.len() as f64
    }

    /// Mean of the errors with their signs.
    pub fn bias(&self) -> f64 {
        self.sum / self.errors.len() as f64
    }

    /// The error that the share `p` of rows does not exceed.
    pub fn quantile(&self, p: f64) -> f64 {
        let mut sorted = self.errors.clone();
        sorted.sort_by(f64::total_cmp);
        let rank = (p * sorted.len() as f64).ceil() as usize;
        sorted[rank.clamp(1, sorted.len()) - 1]
    }
}

/// The errors of one table.
#[derive(Clone, Debug)]
pub struct Judged {
    /// The card's catalogue name.
    pub gpu: String,
    /// What was measured.
    pub operator: &'static str,
    /// All rows judged.
    pub all: Errors,
    /// The same by region, in order.
    pub regions: Vec<(String, Errors)>,
    /// Rows left out, and why.
    pub left_out: BTreeMap<&'static str, usize>,
}

/// Judges one table, told by its file's name: `gemm_CARD_bf16_...`, `attn_decode_CARD_...`, `attn_prefill_CARD_...` or
/// `moe_CARD_...`.
///
/// # Errors
/// If the name tells no operator and card, or a row is not one.
pub fn judge(path: &Path) -> Result<Judged, StepsError> {
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let wrong = |reason: String| StepsError { file: path.display().to_string(), reason };
    let tables: [(&str, Judge); 4] = [
        ("gemm_", gemm),
        ("attn_decode_", attention_decode),
        ("attn_prefill_", attention_prefill),
        ("moe_", experts),
    ];
    for (prefix, judge) in tables {
        if let Some(rest) = name.strip_prefix(prefix) {
            let card = rest.split('_').next().unwrap_or_default();
            let card = measured_card(card)
                .ok_or_else(|| wrong(format!("`{card}` names no card of the catalogue")))?;
            return judge(path, card);
        }
    }
    let known: Vec<String> = tables.iter().map(|(prefix, _)| format!("{prefix}CARD_...")).collect();
    Err(wrong(format!("its name tells no operator; the tables are {}", known.join(", "))))
}

type Judge = fn(&Path, &'static Gpu) -> Result<Judged, StepsError>;

/// The card that a table's name means: `h200` is `h200-sxm`.
fn measured_card(name: &str) -> Option<&'static Gpu> {
    let forms =
        [name.to_owned(), format!("{name}-sxm"), format!("{name}-server"), name.replace("-sxm", "-80-sxm")];
    forms
        .iter()
        .find_map(|form| gpu(form).ok())
        .or_else(|| gpus().iter().find(|card| card.name.starts_with(name)))
}

fn rows<T: DeserializeOwned>(path: &Path) -> Result<Vec<T>, StepsError> {
    let wrong = |reason: String| StepsError { file: path.display().to_string(), reason };
    let file = File::open(path).map_err(|error| wrong(error.to_string()))?;
    let plain = compression::open(BufReader::new(file)).map_err(|error| wrong(error.to_string()))?;
    let rows: Result<Vec<T>, _> = csv::Reader::from_reader(plain).deserialize().collect();
    let rows = rows.map_err(|error| wrong(error.to_string()))?;
    if rows.is_empty() { Err(wrong("holds no rows".into())) } else { Ok(rows) }
}

/// Collects errors by region.
struct Ledger {
    judged: Judged,
    regions: Vec<(f64, String)>,
    errors: Vec<Errors>,
}

impl Ledger {
    /// Regions by a row's place: each holds places up to its end.
    fn new(card: &Gpu, operator: &'static str, regions: &[(f64, &str)]) -> Ledger {
        Ledger {
            judged: Judged {
                gpu: card.name.clone(),
                operator,
                all: Errors::default(),
                regions: Vec::new(),
                left_out: BTreeMap::new(),
            },
            regions: regions.iter().map(|(end, name)| (*end, (*name).to_string())).collect(),
            errors: vec![Errors::default(); regions.len()],
        }
    }

    fn row(&mut self, place: f64, predicted: f64, measured: f64) {
        self.judged.all.add(predicted, measured);
        if let Some(index) = self.regions.iter().position(|(end, _)| place <= *end) {
            self.errors[index].add(predicted, measured);
        }
    }

    fn leave_out(&mut self, why: &'static str) {
        *self.judged.left_out.entry(why).or_default() += 1;
    }

    fn close(mut self) -> Judged {
        let named = self.regions.into_iter().map(|(_, name)| name).zip(self.errors);
        self.judged.regions = named.filter(|(_, errors)| errors.count() > 0).collect();
        self.judged
    }
}

const FAR: f64 = f64::INFINITY;

fn gemm(path: &Path, card: &'static Gpu) -> Result<Judged, StepsError> {
    #[derive(Deserialize)]
    struct Row {
        m: f64,
        n: f64,
        k: f64,
        us: f64,
    }
    if !path.to_string_lossy().contains("bf16") {
        return Err(StepsError {
            file: path.display().to_string(),
            reason: "fp8 products were measured with dynamic scales, which include quantising; the roofline prices \
                     static ones, so only bf16 tables are judged"
                .into(),
        });
    }
    let price = GemmPrice::new(card);
    let regions = [
        (16.0, "M up to 16"),
        (128.0, "17 to 128"),
        (512.0, "129 to 512"),
        (2048.0, "513 to 2048"),
        (FAR, "above"),
    ];
    let mut ledger = Ledger::new(card, "matrix products, bf16", &regions);
    let on_grid: Vec<(f64, f64)> =
        coefficients::gemm_times(&card.name).map(|times| (times.n, times.k)).collect();
    for row in rows::<Row>(path)? {
        if on_grid.contains(&(row.n, row.k)) {
            ledger.leave_out("shapes on the grid that is interpolated");
        } else {
            ledger.row(row.m, price.us(row.m, row.n, row.k), row.us);
        }
    }
    Ok(ledger.close())
}

fn kv_dtype(name: &str) -> KvCacheDtype {
    if name.starts_with("fp8") { KvCacheDtype::Fp8 } else { KvCacheDtype::Auto }
}

fn attention_decode(path: &Path, card: &'static Gpu) -> Result<Judged, StepsError> {
    #[derive(Deserialize)]
    struct Row {
        head_dim: u32,
        kv_dtype: String,
        heads: u32,
        kv_heads: u32,
        batch: u32,
        ctx: u32,
        us: f64,
    }
    let regions =
        [(10.0, "KV below 10 MB"), (100.0, "10 to 100 MB"), (1000.0, "100 MB to 1 GB"), (FAR, "above")];
    let mut ledger = Ledger::new(card, "attention, decodes", &regions);
    for row in rows::<Row>(path)? {
        let dtype = kv_dtype(&row.kv_dtype);
        let fitted = coefficients::attention(&card.name, dtype, row.head_dim)
            .is_some_and(|coefficients| coefficients.decode_base_us.is_some());
        if fitted && [2, 8].contains(&row.kv_heads) {
            ledger.leave_out("calls of 2 and 8 key-value heads, to which their start was fitted");
            continue;
        }
        let bytes = u64::from(row.batch)
            * u64::from(row.ctx)
            * u64::from(row.kv_heads * row.head_dim * 2)
            * dtype.bytes();
        let price = AttentionPrice::new(card, row.heads, row.kv_heads, row.head_dim, dtype);
        ledger.row(bytes as f64 / 1e6, price.decode_us(row.batch, row.ctx), row.us);
    }
    Ok(ledger.close())
}

fn attention_prefill(path: &Path, card: &'static Gpu) -> Result<Judged, StepsError> {
    #[derive(Deserialize)]
    struct Row {
        head_dim: u32,
        heads: u32,
        kv_heads: u32,
        batch: u32,
        q: u32,
        us: f64,
    }
    let regions =
        [(128.0, "tokens up to 128"), (2048.0, "129 to 2048"), (16_384.0, "2049 to 16384"), (FAR, "above")];
    let mut ledger = Ledger::new(card, "attention, prompts", &regions);
    for row in rows::<Row>(path)? {
        let price = AttentionPrice::new(card, row.heads, row.kv_heads, row.head_dim, KvCacheDtype::Auto);
        let tokens = f64::from(row.batch) * f64::from(row.q);
        ledger.row(tokens, price.prefill_us(row.batch, row.q), row.us);
    }
    Ok(ledger.close())
}

fn experts(path: &Path, card: &'static Gpu) -> Result<Judged, StepsError> {
    #[derive(Deserialize)]
    struct Row {
        moe_dtype: String,
        hidden_size: u32,
        inter_size: u32,
        num_experts: u32,
        topk: u32,
        moe_tp_size: u32,
        moe_ep_size: u32,
        distribution: String,
        num_tokens: f64,
        us: f64,
    }
    let regions = [(16.0, "tokens up to 16"), (256.0, "17 to 256"), (4096.0, "257 to 4096"), (FAR, "above")];
    let mut ledger = Ledger::new(card, "experts, even routing", &regions);
    for row in rows::<Row>(path)? {
        let format = match row.moe_dtype.as_str() {
            "bfloat16" => MatrixFormat::Bf16,
            "fp8_block" => MatrixFormat::Fp8,
            "w4a16_mxfp4" => MatrixFormat::Mxfp4,
            _ => {
                ledger.leave_out("formats that the roofline does not price");
                continue;
            }
        };
        if row.distribution != "balanced" {
            ledger.leave_out("skewed routing");
            continue;
        }
        // The coefficients were fitted to the others.
        if [1, 4].contains(&(row.moe_tp_size * row.moe_ep_size)) {
            ledger.leave_out("experts whole or in quarters, to which the form was fitted");
            continue;
        }
        let shape = ExpertShape {
            hidden: row.hidden_size,
            width: row.inter_size / row.moe_tp_size,
            experts: row.num_experts,
            top_k: row.topk,
            expert_parallel_size: row.moe_ep_size,
            format,
        };
        ledger.row(row.num_tokens, ExpertsPrice::new(card, &shape).us(row.num_tokens), row.us);
    }
    Ok(ledger.close())
}
