//! Reading the catalogue's data files, and the error of a name that is in none of them.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer};

/// A name that the catalogue does not have.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no {kind} named `{name}` in the catalogue; the nearest: {}", nearest.join(", "))]
pub struct CatalogueError {
    /// What was looked for: "GPU" or "model".
    pub kind: &'static str,
    /// The name as it was asked for.
    pub name: String,
    /// Up to three known names, the nearest first.
    pub nearest: Vec<&'static str>,
}

impl CatalogueError {
    pub(super) fn new(
        kind: &'static str,
        name: &str,
        known: impl Iterator<Item = &'static str>,
    ) -> CatalogueError {
        let wanted = name.to_lowercase();
        let wanted = wanted.rsplit('/').next().unwrap_or_default();
        let mut scored: Vec<_> = known.map(|known| (strsim::jaro_winkler(wanted, known), known)).collect();
        scored.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(b.1)));
        let nearest = scored.into_iter().take(3).map(|(_, known)| known).collect();
        CatalogueError { kind, name: name.to_owned(), nearest }
    }
}

/// Rows of a data file that is part of this program.
///
/// # Panics
/// If a row does not parse: the file is ours, and a test reads every one.
pub(super) fn rows<T: DeserializeOwned>(file: &'static str, csv: &'static str) -> Vec<T> {
    let mut reader = csv::Reader::from_reader(csv.as_bytes());
    reader.deserialize().map(|row| row.unwrap_or_else(|error| panic!("{file}: {error}"))).collect()
}

/// A column that holds 0 or 1.
pub(super) fn zero_or_one<'de, D: Deserializer<'de>>(column: D) -> Result<bool, D::Error> {
    match u8::deserialize(column)? {
        0 => Ok(false),
        1 => Ok(true),
        other => Err(serde::de::Error::custom(format!("expected 0 or 1, found {other}"))),
    }
}
