//! Traces: bytes to requests. One format, one file.
//!
//! Knows files, compression, columns and the order of rows. Does not know replicas, rates or how a trace
//! is replayed. A new format is one file with a `rows` and a `recognises`, and one entry in [`FORMATS`].

mod azure;
mod columns;
mod content;
mod error;
mod info;
mod json;
mod lines;
mod mooncake;
mod numbers;
mod plain_csv;
mod plain_jsonl;
mod rows;
mod stream;
#[cfg(test)]
mod tests;

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;

pub use error::TraceError;
pub use info::{Lengths, Reuse, TraceInfo};
pub use stream::TraceStream;

use crate::request::Content;
use crate::time::Time;
use error::nearest;
use lines::Lines;
use rows::{NextRow, Rows};

/// One request as it was recorded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TraceRow {
    /// When it came, counted from the trace's first request.
    pub arrived: Time,
    /// Prompt length; 0 where the recording says so.
    pub prompt_tokens: u32,
    /// Tokens it produced, at least 1.
    pub output_tokens: u32,
    /// The limit the client set, where the trace states it.
    pub max_tokens: Option<u32>,
    /// Identities of leading prompt tokens, never past the prompt; empty where the trace has none.
    pub content: Content,
    /// The conversation it belongs to, where the trace says.
    pub session: Option<u64>,
    /// Lower is more urgent; 0 where the trace does not say.
    pub priority: i32,
}

/// A trace that was read.
#[derive(Clone, Debug)]
pub struct Trace {
    /// Name of the format it was read as, one of [`FORMATS`].
    pub format: &'static str,
    /// At least one request, sorted by time, equal times in file order.
    pub rows: Vec<TraceRow>,
    /// What was odd about the file.
    pub notes: Notes,
}

/// What a reader met that a person may want to know.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Notes {
    /// Rows in the file, skipped ones included.
    pub rows_read: u64,
    /// Rows left out because they produced nothing: vLLM refuses to generate nothing.
    pub output_zero_skipped: u64,
    /// Requests that stood in the file below one that came later; they were sorted.
    pub out_of_order: u64,
    /// Requests that came at the same time as the one before them; they keep the order of the file.
    pub duplicate_times: u64,
}

impl Notes {
    /// Sentences for people; none when nothing was odd.
    pub fn lines(&self) -> Vec<String> {
        let rows = self.rows_read;
        let mut lines = Vec::new();
        if self.output_zero_skipped > 0 {
            let skipped = self.output_zero_skipped;
            lines.push(format!("{skipped} of {rows} rows produced no token and were left out."));
        }
        if self.out_of_order > 0 {
            let moved = self.out_of_order;
            lines.push(format!(
                "{moved} of {rows} rows stood below a later one; the trace was sorted by time."
            ));
        }
        if self.duplicate_times > 0 {
            let equal = self.duplicate_times;
            lines.push(format!("{equal} of {rows} rows came at the same time as another before them."));
        }
        lines
    }
}

/// A format of traces, as the program lists it.
pub struct FormatInfo {
    /// The name by which a scenario or command line asks for it.
    pub name: &'static str,
    /// What it is, in one line.
    pub description: &'static str,
    /// Its columns or keys, as the file spells them; optional ones in brackets.
    pub columns: &'static str,
    /// Whether a file that opens with these two lines is of this format. The first is never blank, the
    /// second is empty if there is none.
    recognises: fn(&str, &str) -> bool,
    /// Reads the header, if the format has one, and knows from then on how to take rows from lines.
    rows: fn(&mut Lines) -> Result<NextRow, TraceError>,
}

/// Every format, in the order in which they are tried on a file of unknown format.
pub const FORMATS: &[FormatInfo] = &[
    FormatInfo {
        name: "azure-2023",
        description: "Azure LLM inference trace 2023 (CSV): local times with seven digits, no prefixes",
        columns: "TIMESTAMP, ContextTokens, GeneratedTokens",
        recognises: azure::recognises_2023,
        rows: azure::rows_2023,
    },
    FormatInfo {
        name: "azure-2024",
        description: "Azure LLM inference trace 2024 (CSV): as 2023, but the zone is written, +00:00",
        columns: "TIMESTAMP, ContextTokens, GeneratedTokens",
        recognises: azure::recognises_2024,
        rows: azure::rows_2024,
    },
    FormatInfo {
        name: "mooncake",
        description: "Mooncake FAST'25 (JSON lines): milliseconds, prefixes as ids of 512-token blocks",
        columns: "timestamp, input_length, output_length, hash_ids",
        recognises: mooncake::recognises,
        rows: mooncake::rows,
    },
    FormatInfo {
        name: "tailcast-csv",
        description: "tailcast's own CSV: columns by name, in any order",
        columns: "arrived_s, prompt_tokens, output_tokens, [max_tokens, session, priority, prefix, prefix_tokens]",
        recognises: plain_csv::recognises,
        rows: plain_csv::rows,
    },
    FormatInfo {
        name: "tailcast-jsonl",
        description: "tailcast's own JSON lines: the keys of tailcast-csv, and prefixes as blocks of any size",
        columns: "arrived_s, prompt_tokens, output_tokens, [max_tokens, session, priority, prefix, \
                  prefix_tokens, blocks]",
        recognises: plain_jsonl::recognises,
        rows: plain_jsonl::rows,
    },
];

/// Reads the trace in `path`, as `format` or, without one, as the first format that recognises it.
///
/// The file may be compressed by gzip or zstd; its first bytes tell, not its name.
///
/// # Errors
/// Whatever keeps the file from being a trace, with the file, the line and the column.
pub fn read(path: &Path, format: Option<&str>) -> Result<Trace, TraceError> {
    all(open(path, format)?)
}

/// Opens the trace in `path` to be read piece by piece, so that it need not fit into the memory; otherwise
/// as [`read`] does, but that the file's rows must be in order of time.
///
/// # Errors
/// Whatever keeps the file from being opened as a trace; errors of single rows come with their turn.
pub fn stream(path: &Path, format: Option<&str>) -> Result<TraceStream, TraceError> {
    open(path, format).map(TraceStream::new)
}

fn open(path: &Path, format: Option<&str>) -> Result<Rows, TraceError> {
    let file = path.display().to_string();
    // The name is checked first, so that a misspelt one is told without reading anything.
    let format = format.map(by_name).transpose()?;
    let cannot = |source| TraceError::Open { file: file.clone(), source };
    let opened = File::open(path).map_err(cannot)?;
    if opened.metadata().map_err(cannot)?.is_dir() {
        return Err(TraceError::Folder { file });
    }
    rows_of(file.clone(), BufReader::with_capacity(1 << 16, opened), format)
}

fn by_name(name: &str) -> Result<&'static FormatInfo, TraceError> {
    FORMATS.iter().find(|format| format.name == name).ok_or_else(|| TraceError::UnknownFormat {
        name: name.to_owned(),
        nearest: nearest(name, FORMATS.iter().map(|format| format.name)),
    })
}

fn rows_of(
    file: String,
    bytes: impl BufRead + Send + 'static,
    format: Option<&'static FormatInfo>,
) -> Result<Rows, TraceError> {
    let text =
        crate::compression::open(bytes).map_err(|source| TraceError::Open { file: file.clone(), source })?;
    let mut lines = Lines::new(file, text);
    let (first, second) = lines.opening()?;
    if first.is_empty() {
        return Err(TraceError::NoRequests { file: lines.file().to_owned(), reason: "it is empty" });
    }
    let recognised = || FORMATS.iter().find(|format| (format.recognises)(&first, &second));
    let format = format.or_else(recognised).ok_or_else(|| lines.unrecognised(&first))?;
    Rows::new(format, lines)
}

fn all(rows: Rows) -> Result<Trace, TraceError> {
    let format = rows.format();
    let (rows, notes) = rows.sorted()?;
    Ok(Trace { format, rows, notes })
}

/// Reads `bytes` as [`read`] does a file.
#[cfg(test)]
fn read_from(
    file: String,
    bytes: impl BufRead + Send + 'static,
    format: Option<&'static FormatInfo>,
) -> Result<Trace, TraceError> {
    all(rows_of(file, bytes, format)?)
}
