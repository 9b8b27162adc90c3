//! A layer profile as it lies on disk: times of the parts of one layer, measured inside vLLM.
//!
//! Knows the files and columns that LLMServingSim's profiler writes, in its own folders (`tp1/dense.csv`) or flat
//! (`tp1-dense.csv`), packed or not. Does not know models or cards: which parts a model needs is decided when it is
//! bound. Nothing is guessed: a table that is absent, a column that is missing and a time that is none are errors
//! with file, line and column.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::curve::Curve;
use crate::compression;

/// Why a profile cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ProfileError {
    /// The folder is not one.
    #[error("{folder}: is not a folder; a layer profile is one, with tp1/dense.csv and its like")]
    NotAFolder {
        /// The path as it was given.
        folder: String,
    },
    /// A table is absent.
    #[error(
        "{folder}: has no {table} table for tensor_parallel_size {cards}{measured}; looked for {looked_for}"
    )]
    NoTable {
        /// The folder as it was given.
        folder: String,
        /// `dense`, `per_sequence`, `attention` or `moe`.
        table: &'static str,
        /// Cards that share a layer.
        cards: u32,
        /// The degrees that the folder does have.
        measured: String,
        /// Names it could have had.
        looked_for: String,
    },
    /// A file could not be read.
    #[error("{file}: {reason}")]
    File {
        /// The path.
        file: String,
        /// What is wrong.
        reason: String,
    },
    /// A value is not what its column holds.
    #[error("{file}:{line}: column {column}: expected {expected}, got \"{got}\"")]
    Value {
        /// The path.
        file: String,
        /// Line, counted from 1.
        line: u64,
        /// The column.
        column: &'static str,
        /// What would have been right.
        expected: &'static str,
        /// What stands there.
        got: String,
    },
    /// Parts of the layer were not measured.
    #[error("{file}: has no times for {missing}, which {model} needs; it has {present}")]
    MissingOperators {
        /// The table.
        file: String,
        /// What is missing.
        missing: String,
        /// Whose layers they are.
        model: String,
        /// What there is.
        present: String,
    },
    /// Experts were not measured as the model's are cut and shared out.
    #[error(
        "{folder}: has no times of a layer's experts for {model} with each cut into {slices} and whole ones shared out \
         among {cards} cards (tp{slices}-moe.csv with ep {cards}, or tp1-moe.csv with ep 1: columns tokens, activated_experts and time_us); it \
         has {present}"
    )]
    NoExperts {
        /// The folder.
        folder: String,
        /// Whose layers they are.
        model: String,
        /// Slices that each expert is cut into.
        slices: u32,
        /// Cards among which whole experts are shared out.
        cards: u32,
        /// What there is.
        present: String,
    },
    /// Parts were measured that this program would leave out.
    #[error(
        "{file}: holds times of {unknown}, a part that is not understood: the layers of {model} have {known}"
    )]
    UnknownOperators {
        /// The table.
        file: String,
        /// What is not understood.
        unknown: String,
        /// Whose layers they were to be.
        model: String,
        /// What is understood.
        known: String,
    },
    /// Attention was measured at too few points.
    #[error("{file}: {reason}")]
    TooFewPoints {
        /// The table.
        file: String,
        /// Which points are missing.
        reason: String,
    },
}

/// Times of operators by name, in microseconds, and the file they are from.
#[derive(Clone, Debug)]
pub(crate) struct Operators {
    pub(super) file: String,
    pub(super) curves: BTreeMap<String, Curve>,
}

/// One measured attention call of one layer.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct AttentionRow {
    /// Tokens of the one prompt chunk; 0 without one.
    pub(crate) chunk: f64,
    /// Its tokens computed before.
    pub(crate) before: f64,
    /// Decodes beside it.
    pub(crate) decodes: f64,
    /// Tokens that each of them attends to.
    pub(crate) context: f64,
    /// Microseconds.
    pub(crate) us: f64,
}

/// Measured calls of a layer's experts, cut into so many slices each.
#[derive(Clone, Debug)]
pub(super) struct ExpertTable {
    slices: u32,
    pub(super) rows: Vec<ExpertRow>,
}

/// One measured call of a layer's experts.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct ExpertRow {
    pub(crate) expert_parallel_size: f64,
    pub(crate) tokens: f64,
    /// Experts that at least one token visits.
    pub(crate) visited: f64,
    pub(crate) us: f64,
}

/// One measured attention call of decodes alone with two lengths of context.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct UnevenRow {
    pub(crate) sequences: f64,
    /// How many of them have the longer context.
    pub(crate) long: f64,
    /// The longer context.
    pub(crate) longest: f64,
    /// The mean of all.
    pub(crate) mean: f64,
    /// Time of as many contexts that are all the mean.
    pub(crate) even_us: f64,
    /// Time of these.
    pub(crate) us: f64,
}

/// What was profiled, as `meta.yaml` says.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct ProfileMeta {
    /// The card, by its driver's name.
    pub gpu: Option<String>,
    /// The model, by its name on Hugging Face.
    pub model: Option<String>,
    /// The vLLM it was measured in.
    pub vllm_version: Option<String>,
    /// Whether uneven contexts were part of it.
    pub skew_profile: Option<SkewProfile>,
}

/// What `meta.yaml` says of the table of uneven contexts.
#[derive(Clone, Copy, Debug, Deserialize)]
pub struct SkewProfile {
    /// False where the profile was made without: a table that lies there is of an earlier one.
    pub enabled: bool,
}

/// A layer profile for one degree of tensor parallelism.
#[derive(Clone, Debug)]
pub struct LayerProfile {
    /// What was profiled; empty without a `meta.yaml`.
    pub meta: ProfileMeta,
    pub(crate) dense: Operators,
    pub(crate) per_sequence: Operators,
    pub(crate) attention: Vec<AttentionRow>,
    pub(crate) attention_file: String,
    /// Empty where uneven contexts were not measured, or in a form that is not understood.
    uneven: Vec<UnevenRow>,
    pub(super) folder: String,
    /// By the slices that each expert is cut into; empty where no experts were measured.
    experts: Vec<ExpertTable>,
}

impl LayerProfile {
    /// Reads the tables of `folder` for layers shared by `tensor_parallel_size` cards.
    ///
    /// # Errors
    /// If a table is absent, or a value in it is not a time or a count.
    pub fn read(folder: &Path, tensor_parallel_size: u32) -> Result<LayerProfile, ProfileError> {
        if !folder.is_dir() {
            return Err(ProfileError::NotAFolder { folder: folder.display().to_string() });
        }
        let table = |table: &'static str| {
            find(folder, tensor_parallel_size, table)
                .ok_or_else(|| no_table(folder, tensor_parallel_size, table))
        };
        let dense = Table::open(table("dense")?)?;
        let per_sequence = Table::open(table("per_sequence")?)?;
        let attention = Table::open(table("attention")?)?;
        let mut experts = Vec::new();
        for slices in 1..=64 {
            if let Some(path) = find(folder, slices, "moe") {
                experts.push(ExpertTable { slices, rows: expert_rows(Table::open(path)?)? });
            }
        }
        let uneven = find(folder, tensor_parallel_size, "skew").map(Table::open).transpose()?;
        let attention_file = attention.file.clone();
        Ok(LayerProfile {
            meta: meta(folder)?,
            dense: operators(dense, "tokens")?,
            per_sequence: operators(per_sequence, "sequences")?,
            attention: attention_rows(attention)?,
            attention_file,
            uneven: uneven.map(uneven_rows).transpose()?.unwrap_or_default(),
            folder: folder.display().to_string(),
            experts,
        })
    }
}

impl LayerProfile {
    /// Calls with uneven contexts, if they are part of this profile.
    pub(super) fn uneven(&self) -> &[UnevenRow] {
        let enabled = self.meta.skew_profile.is_none_or(|skew| skew.enabled);
        if enabled { &self.uneven } else { &[] }
    }

    /// Times of experts that are cut into so many slices.
    pub(super) fn experts(&self, slices: u32) -> Option<&ExpertTable> {
        self.experts.iter().find(|table| table.slices == slices)
    }

    /// Which experts were measured, in words.
    pub(super) fn experts_measured(&self) -> String {
        let mut measured: Vec<String> = Vec::new();
        for table in &self.experts {
            let mut cards: Vec<f64> = table.rows.iter().map(|row| row.expert_parallel_size).collect();
            cards.sort_by(f64::total_cmp);
            cards.dedup();
            let cards: Vec<String> = cards.iter().map(f64::to_string).collect();
            measured.push(format!("tp{}-moe.csv for ep {}", table.slices, cards.join(", ")));
        }
        if measured.is_empty() { "no table moe".into() } else { measured.join("; ") }
    }

    pub(super) fn holds_uneven(&self) -> bool {
        !self.uneven().is_empty()
    }
}

/// Names that a table can have in a profile's folder.
fn names(tensor_parallel_size: u32, table: &str) -> [String; 4] {
    let cards = tensor_parallel_size;
    [
        format!("tp{cards}/{table}.csv"),
        format!("tp{cards}/{table}.csv.gz"),
        format!("tp{cards}-{table}.csv"),
        format!("tp{cards}-{table}.csv.gz"),
    ]
}

fn find(folder: &Path, tensor_parallel_size: u32, table: &str) -> Option<PathBuf> {
    names(tensor_parallel_size, table).iter().map(|name| folder.join(name)).find(|path| path.is_file())
}

fn no_table(folder: &Path, cards: u32, table: &'static str) -> ProfileError {
    let measured: Vec<String> = (1..=64)
        .filter(|other| *other != cards && find(folder, *other, table).is_some())
        .map(|other| other.to_string())
        .collect();
    ProfileError::NoTable {
        folder: folder.display().to_string(),
        table,
        cards,
        measured: if measured.is_empty() {
            String::new()
        } else {
            format!(" (but for {})", measured.join(", "))
        },
        looked_for: names(cards, table).join(", "),
    }
}

fn meta(folder: &Path) -> Result<ProfileMeta, ProfileError> {
    let path = folder.join("meta.yaml");
    if !path.is_file() {
        return Ok(ProfileMeta::default());
    }
    let wrong = |reason: String| ProfileError::File { file: path.display().to_string(), reason };
    let text = std::fs::read_to_string(&path).map_err(|error| wrong(error.to_string()))?;
    serde_saphyr::from_str(&text).map_err(|error| wrong(error.to_string()))
}

/// A CSV table under the eyes of its reader.
struct Table {
    file: String,
    columns: csv::StringRecord,
    rows: csv::StringRecordsIntoIter<Box<dyn Read + Send>>,
}

impl Table {
    fn open(path: PathBuf) -> Result<Table, ProfileError> {
        let file = path.display().to_string();
        let wrong = |reason: String| ProfileError::File { file: path.display().to_string(), reason };
        let bytes = File::open(&path).map_err(|error| wrong(error.to_string()))?;
        let plain = compression::open(BufReader::new(bytes)).map_err(|error| wrong(error.to_string()))?;
        let mut reader = csv::ReaderBuilder::new().trim(csv::Trim::All).from_reader(plain);
        let columns = reader.headers().map_err(|error| wrong(error.to_string()))?.clone();
        Ok(Table { file, columns, rows: reader.into_records() })
    }

    fn has(&self, column: &str) -> bool {
        self.columns.iter().any(|name| name == column)
    }

    fn index(&self, column: &'static str) -> Result<usize, ProfileError> {
        self.columns.iter().position(|name| name == column).ok_or_else(|| ProfileError::File {
            file: self.file.clone(),
            reason: format!(
                "has no column {column}; its columns are {}",
                self.columns.iter().collect::<Vec<_>>().join(", ")
            ),
        })
    }

    /// Hands every row to `each`.
    fn read(
        mut self,
        mut each: impl FnMut(&Row<'_>) -> Result<(), ProfileError>,
    ) -> Result<(), ProfileError> {
        let mut empty = true;
        for record in self.rows.by_ref() {
            let record = record
                .map_err(|error| ProfileError::File { file: self.file.clone(), reason: error.to_string() })?;
            each(&Row { file: &self.file, record: &record })?;
            empty = false;
        }
        if empty {
            return Err(ProfileError::File { file: self.file, reason: "holds no rows".into() });
        }
        Ok(())
    }
}

struct Row<'a> {
    file: &'a str,
    record: &'a csv::StringRecord,
}

impl Row<'_> {
    fn text(&self, index: usize) -> &str {
        self.record.get(index).unwrap_or_default()
    }

    fn number(
        &self,
        column: &'static str,
        index: usize,
        expected: &'static str,
        right: impl Fn(f64) -> bool,
    ) -> Result<f64, ProfileError> {
        let got = self.text(index);
        got.parse().ok().filter(|value: &f64| value.is_finite() && right(*value)).ok_or_else(|| {
            ProfileError::Value {
                file: self.file.to_owned(),
                line: self.record.position().map_or(0, csv::Position::line),
                column,
                expected,
                got: got.to_owned(),
            }
        })
    }

    fn count(&self, column: &'static str, index: usize) -> Result<f64, ProfileError> {
        self.number(column, index, "a whole number, 0 or more", |value| value >= 0.0 && value.fract() == 0.0)
    }

    fn us(&self, index: usize) -> Result<f64, ProfileError> {
        self.number("time_us", index, "microseconds above 0", |value| value > 0.0)
    }
}

fn operators(table: Table, axis: &'static str) -> Result<Operators, ProfileError> {
    let (layer, x, us) = (table.index("layer")?, table.index(axis)?, table.index("time_us")?);
    let file = table.file.clone();
    let mut points: BTreeMap<String, Vec<(f64, f64)>> = BTreeMap::new();
    table.read(|row| {
        points.entry(row.text(layer).to_owned()).or_default().push((row.count(axis, x)?, row.us(us)?));
        Ok(())
    })?;
    let curves =
        points.into_iter().filter_map(|(name, points)| Some((name, Curve::through(points)?))).collect();
    Ok(Operators { file, curves })
}

fn attention_rows(table: Table) -> Result<Vec<AttentionRow>, ProfileError> {
    let chunk = table.index("prefill_chunk")?;
    // Later profilers say where the middle query of the chunk stands instead of what lies before the chunk.
    let (before_name, middle) =
        if table.has("prefill_key") { ("prefill_key", true) } else { ("kv_prefill", false) };
    let before = table.index(before_name)?;
    let (decodes, context) = (table.index("n_decode")?, table.index("kv_decode")?);
    let us = table.index("time_us")?;
    let queries = table.has("decode_q_len").then(|| table.index("decode_q_len")).transpose()?;
    let mut rows = Vec::new();
    table.read(|row| {
        // Verifications of drafts are no decodes.
        if let Some(queries) = queries
            && row.count("decode_q_len", queries)? != 1.0
        {
            return Ok(());
        }
        let chunk = row.count("prefill_chunk", chunk)?;
        let shift = if middle { chunk / 2.0 } else { 0.0 };
        let before = row.number(before_name, before, "a number, 0 or more", |value| value >= 0.0)?;
        rows.push(AttentionRow {
            chunk,
            before: (before - shift).max(0.0),
            decodes: row.count("n_decode", decodes)?,
            context: row.count("kv_decode", context)?,
            us: row.us(us)?,
        });
        Ok(())
    })?;
    Ok(rows)
}

/// Rows of decodes alone. A table of whole request lists, as later profilers write it, gives none.
fn uneven_rows(table: Table) -> Result<Vec<UnevenRow>, ProfileError> {
    if !table.has("kv_big") {
        return Ok(Vec::new());
    }
    let regime = table.index("regime")?;
    let (sequences, long) = (table.index("n")?, table.index("nb")?);
    let (longest, mean) = (table.index("kv_big")?, table.index("kv_mean")?);
    let (even, us) = (table.index("t_mean_us")?, table.index("t_skew_us")?);
    let mut rows = Vec::new();
    table.read(|row| {
        if row.text(regime) == "pure" {
            let time = |column, index| row.number(column, index, "microseconds above 0", |us| us > 0.0);
            rows.push(UnevenRow {
                sequences: row.count("n", sequences)?,
                long: row.count("nb", long)?,
                longest: row.count("kv_big", longest)?,
                mean: row.number("kv_mean", mean, "a number above 0", |mean| mean > 0.0)?,
                even_us: time("t_mean_us", even)?,
                us: time("t_skew_us", us)?,
            });
        }
        Ok(())
    })?;
    Ok(rows)
}

fn expert_rows(table: Table) -> Result<Vec<ExpertRow>, ProfileError> {
    let parallel = table.has("ep").then(|| table.index("ep")).transpose()?;
    let tokens = table.index("tokens")?;
    let (visited, us) = (table.index("activated_experts")?, table.index("time_us")?);
    let mut rows = Vec::new();
    table.read(|row| {
        rows.push(ExpertRow {
            expert_parallel_size: parallel.map_or(Ok(1.0), |index| row.count("ep", index))?,
            tokens: row.count("tokens", tokens)?,
            visited: row.count("activated_experts", visited)?,
            us: row.us(us)?,
        });
        Ok(())
    })?;
    Ok(rows)
}
