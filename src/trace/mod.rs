//! Traces: bytes to requests. One format, one file.
//!
//! Knows files, compression, columns and the order of rows. Does not know replicas, rates or how a trace
//! is replayed. A new format is one file with a `rows` and a `recognises`, and one entry in [`FORMATS`].

mod agentic;
pub mod anonymise;
mod azure;
mod bailian;
mod burstgpt;
mod cache_curve;
pub mod check;
mod columns;
mod content;
mod dynamo;
mod error;
mod guidellm;
mod inference_perf;
mod info;
mod json;
mod lines;
mod llmservingsim;
mod many;
mod mapped;
mod mooncake;
mod numbers;
mod options;
mod parquet_rows;
mod plain_csv;
mod plain_jsonl;
mod rows;
mod sharegpt;
mod stream;
#[cfg(test)]
mod tests;
mod tracelab;
mod vidur;
mod vllm_bench;
mod write;

#[cfg(test)]
use std::io::BufRead;
use std::io::{self, Cursor, Read};
use std::ops::Deref;
use std::path::Path;
use std::sync::Arc;

pub use cache_curve::{CachePoint, cache_curve, cache_sizes};
pub use error::TraceError;
pub use info::{Lengths, Reuse, TraceInfo};
pub use many::{Clock, files, in_order, merge};
pub use options::{Field, ReadOptions, TimeUnit};
pub use stream::TraceStream;
pub use write::{TARGETS, Target};

use crate::request::Content;
use crate::time::{Span, Time};
use error::{nearest, quoted};
use lines::{Lines, Opening};
use rows::{NextRow, Rows, Skip};

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
    /// Requests whose answers it waited for, where the trace says.
    pub waits: Waits,
}

impl TraceRow {
    /// A request of these lengths, about which nothing else is said.
    pub fn of_lengths(prompt_tokens: u32, output_tokens: u32) -> TraceRow {
        TraceRow {
            arrived: Time::ZERO,
            prompt_tokens,
            output_tokens,
            max_tokens: None,
            content: Content::default(),
            session: None,
            priority: 0,
            waits: Waits::default(),
        }
    }
}

/// A request whose answer another waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wait {
    /// Its place in [`Trace::rows`].
    pub row: u32,
    /// Time from its end to the sending of the one that waited. None where the trace does not say: then that one is sent
    /// when it was sent then, or at this end if that is later.
    pub think: Option<Span>,
}

/// The requests that one waited for: it was sent when it had thought about all of their answers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Waits(Option<Arc<[Wait]>>);

impl Waits {
    /// For all of these.
    pub fn of(waits: Vec<Wait>) -> Waits {
        Waits((!waits.is_empty()).then(|| waits.into()))
    }
}

impl Deref for Waits {
    type Target = [Wait];

    fn deref(&self) -> &[Wait] {
        self.0.as_deref().unwrap_or_default()
    }
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
    /// When the first request came, in picoseconds of the format's own clock: since 1970 where the file has dates.
    pub started_ps: i128,
}

impl Trace {
    /// Whether it says nothing of when its requests came: all have the same time.
    pub fn is_timeless(&self) -> bool {
        self.rows.len() > 1 && self.rows.iter().all(|row| row.arrived == Time::ZERO)
    }
}

/// What a reader met that a person may want to know.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Notes {
    /// Rows in the file, skipped ones included.
    pub rows_read: u64,
    /// Records that are no requests.
    pub other_kinds_skipped: u64,
    /// Requests that the service failed.
    pub failed_skipped: u64,
    /// Requests that a filter left out.
    pub filtered: u64,
    /// Rows that could not be read, with [`ReadOptions::lenient`].
    pub unreadable_skipped: u64,
    /// What was wrong with the first of them.
    pub first_unreadable: Option<String>,
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
        let passed_over = [
            (self.other_kinds_skipped, "are no requests and were passed over."),
            (self.failed_skipped, "were failed by the service and left out."),
            (self.filtered, "were left out by `where`."),
        ];
        for (count, what) in passed_over.into_iter().filter(|(count, _)| *count > 0) {
            lines.push(format!("{count} of {rows} rows {what}"));
        }
        if let Some(first) = &self.first_unreadable {
            let skipped = self.unreadable_skipped;
            lines.push(format!(
                "{skipped} of {rows} rows could not be read and were left out; the first: {first}"
            ));
        }
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

    /// Adds what another file was like.
    fn add(&mut self, other: Notes) {
        self.rows_read += other.rows_read;
        self.other_kinds_skipped += other.other_kinds_skipped;
        self.failed_skipped += other.failed_skipped;
        self.filtered += other.filtered;
        self.unreadable_skipped += other.unreadable_skipped;
        self.first_unreadable = self.first_unreadable.take().or(other.first_unreadable);
        self.output_zero_skipped += other.output_zero_skipped;
        self.out_of_order += other.out_of_order;
        self.duplicate_times += other.duplicate_times;
    }

    fn skipped(&mut self, why: Skip) -> &mut u64 {
        match why {
            Skip::OtherKind => &mut self.other_kinds_skipped,
            Skip::Failed => &mut self.failed_skipped,
            Skip::Filtered => &mut self.filtered,
        }
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
    /// Whether a file that opens so is of this format; its first line is not empty.
    recognises: fn(&Opening) -> bool,
    /// Reads the header, if the format has one, and knows from then on how to take rows from lines.
    rows: fn(&mut Lines, &Opening) -> Result<NextRow, TraceError>,
}

/// Every format, in the order in which they are tried on a file of unknown format.
pub const FORMATS: &[FormatInfo] = &[
    FormatInfo {
        name: "azure-2023",
        description: "Azure LLM inference trace 2023 (CSV): local times with seven digits, no prefixes",
        columns: "TIMESTAMP, ContextTokens, GeneratedTokens",
        recognises: |opening| azure::recognises_2023(opening) && !azure::recognises_2025(opening),
        rows: |lines, _| azure::rows_2023(lines),
    },
    FormatInfo {
        name: "azure-2024",
        description: "Azure LLM inference trace 2024 (CSV): as 2023, but the zone is written, +00:00",
        columns: "TIMESTAMP, ContextTokens, GeneratedTokens",
        recognises: azure::recognises_2024,
        rows: |lines, _| azure::rows_2024(lines),
    },
    FormatInfo {
        name: "azure-2025",
        description: "Azure multimodal (LMM) inference trace 2025 (CSV): images are part of the context's tokens",
        columns: "TIMESTAMP, NumImages, ContextTokens, GeneratedTokens",
        recognises: azure::recognises_2025,
        rows: |lines, _| azure::rows_2025(lines),
    },
    FormatInfo {
        name: "burstgpt",
        description: "BurstGPT, all releases (CSV): seconds, sessions where known; failed requests are left out",
        columns: "Timestamp, Request tokens, Response tokens, [Session ID, Elapsed time, Model, Total tokens, Log Type]",
        recognises: burstgpt::recognises,
        rows: |lines, _| burstgpt::rows(lines),
    },
    FormatInfo {
        name: "vidur",
        description: "Vidur and Splitwise (CSV): seconds, or lengths alone",
        columns: "num_prefill_tokens, num_decode_tokens, [arrived_at, num_total_tokens, pd_ratio], or prompt_size, \
                  token_size, [arrival_timestamp, ...]",
        recognises: vidur::recognises,
        rows: vidur::rows,
    },
    FormatInfo {
        name: "bailian",
        description: "Qwen Bailian (JSON lines): seconds, prefixes as ids of 16-token blocks, turns of chats",
        columns: "chat_id, parent_chat_id, timestamp, input_length, output_length, hash_ids, [type, turn]",
        recognises: bailian::recognises,
        rows: |lines, _| bailian::rows(lines),
    },
    FormatInfo {
        name: "dynamo",
        description: "NVIDIA Dynamo's request trace (JSON lines): events, of which request_end is a request",
        columns: "event.{event_type, agent_context.session_id, request.{request_received_ms, input_tokens, \
                  output_tokens, [total_time_ms, replay]}}",
        recognises: dynamo::recognises,
        rows: |lines, _| dynamo::rows(lines),
    },
    FormatInfo {
        name: "agentic",
        description: "Coding-agent sessions of kv-cache-tester (JSON, a file a session): subagents, think time",
        columns: "id, block_size, requests[].{t, type, in, out, hash_ids, [api_time, think_time, requests]}",
        recognises: agentic::recognises,
        rows: |lines, _| agentic::rows(lines),
    },
    FormatInfo {
        name: "tracelab",
        description: "TraceLab's agent rounds (JSON lines): sessions, cached tokens, event times",
        columns: "session_id, input_tokens_total, output_tokens, timing_events, [prefix_tokens]",
        recognises: tracelab::recognises,
        rows: |lines, _| tracelab::rows(lines),
    },
    FormatInfo {
        name: "llmservingsim",
        description: "LLMServingSim (JSON lines): token ids, sessions as lists of requests",
        columns: "arrival_time_ns, input_toks, output_toks, [input_tok_ids, output_tok_ids, session_id, sub_requests]",
        recognises: llmservingsim::recognises,
        rows: |lines, _| llmservingsim::rows(lines),
    },
    FormatInfo {
        name: "vllm-bench",
        description: "Result of `vllm bench serve --save-detailed` (JSON): what was sent, and when",
        columns: "input_lens, output_lens, start_times, [errors]",
        recognises: vllm_bench::recognises,
        rows: |lines, _| vllm_bench::rows(lines),
    },
    FormatInfo {
        name: "guidellm",
        description: "Report of GuideLLM (JSON): what was sent, and when",
        columns: "benchmarks[].requests.successful[].{prompt_tokens, output_tokens, info.timings.request_start}",
        recognises: guidellm::recognises,
        rows: |lines, _| guidellm::rows(lines),
    },
    FormatInfo {
        name: "inference-perf",
        description: "per_request_lifecycle_metrics.json of inference-perf: what was sent, and when",
        columns: "[].{start_time, info.{input_tokens, output_tokens}, [error]}",
        recognises: inference_perf::recognises,
        rows: |lines, _| inference_perf::rows(lines),
    },
    FormatInfo {
        name: "mooncake",
        description: "Mooncake FAST'25 and arXiv (JSON lines): milliseconds, prefixes as ids of 512-token blocks",
        columns: "timestamp, input_length, output_length, hash_ids",
        recognises: mooncake::recognises,
        rows: |lines, _| mooncake::rows(lines),
    },
    FormatInfo {
        name: "tailcast-csv",
        description: "tailcast's own CSV: columns by name, in any order",
        columns: "arrived_s, prompt_tokens, output_tokens, [max_tokens, session, priority, prefix, prefix_tokens]",
        recognises: plain_csv::recognises,
        rows: |lines, _| plain_csv::rows(lines),
    },
    FormatInfo {
        name: "tailcast-jsonl",
        description: "tailcast's own JSON lines: the keys of tailcast-csv, prefixes as blocks of any size, waits",
        columns: "arrived_s, prompt_tokens, output_tokens, [max_tokens, session, priority, prefix, \
                  prefix_tokens, blocks, runs, waits]",
        recognises: plain_jsonl::recognises,
        rows: |lines, _| plain_jsonl::rows(lines),
    },
    FormatInfo {
        name: "sharegpt",
        description: "ShareGPT and data sets of `vllm bench serve` (JSON): texts, four characters counted a token; no times",
        columns: "conversations[].value or prompt, output, [prompt_tokens, output_tokens]",
        recognises: sharegpt::recognises,
        rows: sharegpt::rows,
    },
];

/// Reads the trace in `path`: a file or, of a trace of one file a session, a folder or an archive.
///
/// It may be compressed by gzip, zstd or xz; its first bytes tell, not its name. A format that is not named is the
/// first that recognises how the file opens.
///
/// # Errors
/// Whatever keeps the file from being a trace, with the file, the line and the column.
pub fn read(path: &Path, options: &ReadOptions) -> Result<Trace, TraceError> {
    match many::open(path)? {
        many::Source::File(bytes) => all(rows_of(path.display().to_string(), bytes, options)?),
        many::Source::Files(files) => many::read(path, files, options),
    }
}

/// Opens the trace in `path` to be read piece by piece, so that it need not fit into the memory; otherwise
/// as [`read`] does, but that it must be one file whose rows are in order of time.
///
/// # Errors
/// Whatever keeps the file from being opened as a trace; errors of single rows come with their turn.
pub fn stream(path: &Path, options: &ReadOptions) -> Result<TraceStream, TraceError> {
    let file = path.display().to_string();
    match many::open(path)? {
        many::Source::File(bytes) => rows_of(file, bytes, options).map(TraceStream::new),
        many::Source::Files(_) => Err(TraceError::Options {
            file,
            problem: "is many files, which cannot be streamed; leave out `streamed`".to_owned(),
        }),
    }
}

fn by_name(name: &str) -> Result<&'static FormatInfo, TraceError> {
    FORMATS.iter().find(|format| format.name == name).ok_or_else(|| TraceError::UnknownFormat {
        name: name.to_owned(),
        nearest: nearest(name, FORMATS.iter().map(|format| format.name)),
    })
}

/// Bytes of a file by which its format is told.
const HEAD: u64 = 1 << 16;

/// The rows of a file whose plain bytes are `bytes`.
fn rows_of(file: String, mut bytes: Box<dyn Read + Send>, options: &ReadOptions) -> Result<Rows, TraceError> {
    // The name is checked first, so that a misspelt one is told without reading anything.
    let format = options.format.as_deref().map(by_name).transpose()?;
    let mut head = Vec::new();
    // What cannot be read is told with its line, by who comes to it.
    let broken = bytes.by_ref().take(HEAD).read_to_end(&mut head).err();
    if head.starts_with(parquet_rows::MAGIC) {
        bytes.read_to_end(&mut head).map_err(|source| TraceError::Open { file: file.clone(), source })?;
        let next_row = parquet_rows::rows(&file, head)?;
        return Ok(Rows::new(
            "tailcast-parquet",
            Lines::new(file, Box::new(io::empty())),
            next_row,
            options.lenient,
        ));
    }
    let opening = Opening::of(&head);
    let mut lines = Lines::new(file.clone(), Box::new(Cursor::new(head).chain(Fails(broken)).chain(bytes)));
    if opening.first().is_empty() {
        lines.advance()?;
        return Err(TraceError::NoRequests { file, reason: "it is empty" });
    }
    if !options.columns.is_empty() || !options.filters.is_empty() {
        if let Some(format) = format {
            let problem =
                format!("`columns` and `where` read any file, but format {} is asked for", format.name);
            return Err(TraceError::Options { file, problem });
        }
        let next_row = mapped::rows(&mut lines, &opening, options)?;
        return Ok(Rows::new("columns", lines, next_row, options.lenient));
    }
    let recognised = || FORMATS.iter().find(|format| (format.recognises)(&opening));
    let Some(format) = format.or_else(recognised) else {
        lines.advance()?;
        return Err(TraceError::Unrecognised { file, first_line: quoted(opening.first()) });
    };
    let next_row = (format.rows)(&mut lines, &opening)?;
    Ok(Rows::new(format.name, lines, next_row, options.lenient))
}

/// Gives an error once, if there is one, and then nothing.
struct Fails(Option<io::Error>);

impl Read for Fails {
    fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
        self.0.take().map_or(Ok(0), Err)
    }
}

fn all(rows: Rows) -> Result<Trace, TraceError> {
    let format = rows.format();
    let (rows, notes, started_ps) = rows.sorted()?;
    Ok(Trace { format, rows, notes, started_ps })
}

/// Reads `bytes` as [`read`] does a file.
#[cfg(test)]
fn read_from(
    file: String,
    bytes: impl BufRead + Send + 'static,
    options: &ReadOptions,
) -> Result<Trace, TraceError> {
    let plain =
        crate::compression::open(bytes).map_err(|source| TraceError::Open { file: file.clone(), source })?;
    all(rows_of(file, plain, options)?)
}
