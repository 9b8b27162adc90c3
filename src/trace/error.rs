//! What can be wrong with a trace file, said so that a person finds the place.
//!
//! Knows the words and the nearest known name. Does not know formats.

use super::FORMATS;

/// Why a file could not be read as a trace.
#[derive(Debug, thiserror::Error)]
pub enum TraceError {
    /// The file is absent or closed to us.
    #[error("{file}: cannot be opened: {source}")]
    Open {
        /// The path as it was given.
        file: String,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// Nobody knows a format of this name.
    #[error("there is no trace format \"{name}\"; did you mean {nearest}? The formats: {}", format_names())]
    UnknownFormat {
        /// The name that was asked for.
        name: String,
        /// The known name most like it.
        nearest: &'static str,
    },
    /// No format recognises how the file opens.
    #[error(
        "{file}: its first line, {first_line}, opens no known trace format; the formats: {}. Any other CSV or JSON lines are read \
         by `columns` (--columns arrived=...,prompt_tokens=...,output_tokens=...)",
        format_names()
    )]
    Unrecognised {
        /// The path as it was given.
        file: String,
        /// How the file opens.
        first_line: String,
    },
    /// No field of a request is called that.
    #[error(
        "columns: there is no field \"{name}\"; did you mean {nearest}? The fields: {}",
        super::Field::ALL.map(|(_, name)| name).join(", ")
    )]
    UnknownField {
        /// The name that was given.
        name: String,
        /// The known name most like it.
        nearest: &'static str,
    },
    /// No unit of time is called that.
    #[error("time_unit: expected s, ms, us or ns, got \"{name}\"")]
    UnknownUnit {
        /// The name that was given.
        name: String,
    },
    /// Options that cannot be had together.
    #[error("{file}: {problem}")]
    Options {
        /// The path as it was given.
        file: String,
        /// Which, and what to do.
        problem: String,
    },
    /// The file is in order, but there is nothing to replay.
    #[error("{file}: holds no requests: {reason}")]
    NoRequests {
        /// The path as it was given.
        file: String,
        /// What there is instead.
        reason: &'static str,
    },
    /// One value is not what its column holds.
    #[error("{file}:{line}: column {column}: expected {expected}, got {got}")]
    Value {
        /// The path as it was given.
        file: String,
        /// Line, counted from 1 as an editor does.
        line: u64,
        /// The column or key.
        column: String,
        /// What would have been right.
        expected: String,
        /// What stands there.
        got: String,
    },
    /// From a line on, the file cannot be read.
    #[error("{file}:{line}: {problem}")]
    Broken {
        /// The path as it was given.
        file: String,
        /// Line, counted from 1 as an editor does.
        line: u64,
        /// What is wrong.
        problem: String,
    },
    /// A line as a whole is wrong.
    #[error("{file}:{line}: {problem}")]
    Line {
        /// The path as it was given.
        file: String,
        /// Line, counted from 1 as an editor does.
        line: u64,
        /// What is wrong with it.
        problem: String,
    },
}

impl TraceError {
    /// Whether it is about one row, and the rows below may be good.
    pub(super) fn is_of_one_row(&self) -> bool {
        matches!(self, TraceError::Value { .. } | TraceError::Line { .. })
    }
}

fn format_names() -> String {
    FORMATS.iter().map(|format| format.name).collect::<Vec<_>>().join(", ")
}

/// Names less like each other than this are not taken for slips of the pen.
const LIKE: f64 = 0.75;

/// The one of `known` most like `wanted`; the first of equals, nothing where none are known.
pub(super) fn nearest<'a>(wanted: &str, known: impl Iterator<Item = &'a str>) -> &'a str {
    most_like(wanted, known).0
}

/// The same, if `wanted` may be meant for it.
pub(super) fn meant<'a>(wanted: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let (name, likeness) = most_like(wanted, known);
    (likeness > LIKE).then_some(name)
}

fn most_like<'a>(wanted: &str, known: impl Iterator<Item = &'a str>) -> (&'a str, f64) {
    let wanted = wanted.to_lowercase();
    let mut best = ("", -1.0);
    for name in known {
        let likeness = strsim::jaro_winkler(&wanted, &name.to_lowercase());
        if likeness > best.1 {
            best = (name, likeness);
        }
    }
    best
}

/// `text` in quotes, control characters escaped, long ones cut.
pub(super) fn quoted(text: &str) -> String {
    const SHOWN: usize = 60;
    match text.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{:?}...", &text[..end]),
        None => format!("{text:?}"),
    }
}
