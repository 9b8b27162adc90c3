//! The format of what a gateway saw of its requests: a CSV line for each.
//!
//! Columns by the names of tailcast's own `requests.csv`: `sent_s`, `prompt_tokens`, `output_tokens`, `ttft_ms`, `e2e_ms`
//! and, where they were kept, `replica`, and `prefix` with `prefix_tokens` (a text that opens this prompt and others); others
//! are passed over. Knows what is a row. Does not know fleets.

use std::fs::File;
use std::io::BufReader;
use std::path::Path;

use serde::Deserialize;

use super::measured::MeasuredError;
use crate::compression;

/// One request as its gateway saw it.
#[derive(Clone, Debug, PartialEq)]
pub struct GatewayRow {
    /// When it was sent, seconds from any zero.
    pub sent_s: f64,
    /// Length of its prompt.
    pub prompt_tokens: u32,
    /// Tokens that came out.
    pub output_tokens: u32,
    /// To its first token.
    pub ttft_ms: f64,
    /// To its last token.
    pub e2e_ms: f64,
    /// Who served it, by name or number.
    pub replica: Option<String>,
    /// A text that opens its prompt and others, and how many of its tokens that is.
    pub prefix: Option<(u64, u32)>,
}

/// The rows of a gateway, in order of sending.
#[derive(Clone, Debug, PartialEq)]
pub struct GatewayRows {
    /// Requests with a whole answer.
    pub rows: Vec<GatewayRow>,
    /// Rows without an answer, left out.
    pub unanswered: usize,
}

#[derive(Deserialize)]
struct Row {
    name: Option<String>,
    sent_s: f64,
    prompt_tokens: u32,
    output_tokens: u32,
    ttft_ms: Option<f64>,
    e2e_ms: Option<f64>,
    replica: Option<String>,
    prefix: Option<u64>,
    prefix_tokens: Option<u32>,
}

/// Reads gateway rows.
///
/// # Errors
/// If the file cannot be read, lacks a column, or a line makes no sense.
pub fn read(path: &Path) -> Result<GatewayRows, MeasuredError> {
    let whole = |reason: String| MeasuredError::of(path, reason);
    let file = File::open(path).map_err(|error| whole(error.to_string()))?;
    let plain = compression::open(BufReader::new(file)).map_err(|error| whole(error.to_string()))?;
    let mut reader = csv::ReaderBuilder::new().trim(csv::Trim::All).from_reader(plain);
    let columns = reader.headers().map_err(|error| whole(error.to_string()))?.clone();
    for needed in ["sent_s", "prompt_tokens", "output_tokens", "ttft_ms", "e2e_ms"] {
        if !columns.iter().any(|column| column == needed) {
            let found = columns.iter().collect::<Vec<_>>().join(", ");
            return Err(whole(format!("gateway rows have a column {needed}; this file has {found}")));
        }
    }
    let (mut rows, mut unanswered) = (Vec::new(), 0);
    let mut policy: Option<String> = None;
    for record in reader.records() {
        let record = record.map_err(|error| whole(error.to_string()))?;
        let line = record.position().map_or(0, csv::Position::line) as usize;
        let at = |reason: String| MeasuredError::at(path, line, reason);
        let row: Row = record.deserialize(Some(&columns)).map_err(|error| at(error.to_string()))?;
        if let Some(name) = row.name {
            let first = policy.get_or_insert_with(|| name.clone());
            if *first != name {
                return Err(at(format!("is of {name}, rows before of {first}: one run at a time")));
            }
        }
        let (Some(ttft_ms), Some(e2e_ms)) = (row.ttft_ms, row.e2e_ms) else {
            unanswered += 1;
            continue;
        };
        let times = [row.sent_s, ttft_ms, e2e_ms];
        if times.iter().any(|time| !time.is_finite()) || ttft_ms <= 0.0 || e2e_ms < ttft_ms {
            return Err(at(format!("expected 0 < ttft_ms <= e2e_ms, got {ttft_ms} and {e2e_ms}")));
        }
        if row.prompt_tokens == 0 || row.output_tokens == 0 {
            return Err(at("prompt_tokens and output_tokens are at least 1".into()));
        }
        let (prompt_tokens, output_tokens) = (row.prompt_tokens, row.output_tokens);
        let replica = row.replica.filter(|name| !name.is_empty());
        let prefix = match (row.prefix, row.prefix_tokens) {
            (None, None) => None,
            (Some(prefix), Some(_)) if prefix >= 1 << 63 => {
                return Err(at(format!("prefix: expected an id below 2^63, got {prefix}")));
            }
            (Some(prefix), Some(tokens)) if tokens <= prompt_tokens => Some((prefix, tokens)),
            (Some(_), Some(tokens)) => {
                return Err(at(format!("prefix_tokens: {tokens} of a prompt of {prompt_tokens} tokens")));
            }
            _ => return Err(at("prefix and prefix_tokens belong together".into())),
        };
        let sent_s = row.sent_s;
        rows.push(GatewayRow { sent_s, prompt_tokens, output_tokens, ttft_ms, e2e_ms, replica, prefix });
    }
    if rows.is_empty() {
        return Err(whole("holds no answered requests".into()));
    }
    rows.sort_by(|a, b| a.sent_s.total_cmp(&b.sent_s));
    Ok(GatewayRows { rows, unanswered })
}
