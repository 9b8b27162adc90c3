//! Traces written: each request as the target can hold it, and what it cannot hold told.
//!
//! Knows what each target holds. What has to be rounded or left out is counted, never silent.

use std::io::{self, Write};

use rustc_hash::FxHashMap;

use super::{Trace, TraceRow, parquet_rows};
use crate::request::{Content, ContentRun};
use crate::time::Span;

/// A format that can be written.
pub struct Target {
    /// The name by which a command line asks for it; it is read under the same name.
    pub name: &'static str,
    /// Times are written to whole numbers of this.
    resolution: Span,
    limits: bool,
    sessions: bool,
    priorities: bool,
    identities: Identities,
    waits: bool,
    write: fn(&Trace, &mut dyn Write) -> io::Result<()>,
}

/// How a target holds what prompts have in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Identities {
    None,
    /// One shared prefix a request.
    Prefix,
    /// Ids of blocks of so many tokens, for every started block.
    Blocks(u32),
    All,
}

const PS: Span = Span::from_ps(1);
const NOTHING: Target = Target {
    name: "",
    resolution: PS,
    limits: false,
    sessions: false,
    priorities: false,
    identities: Identities::None,
    waits: false,
    write: |_, _| Ok(()),
};

/// Every format that can be written.
pub const TARGETS: &[Target] = &[
    Target {
        name: "tailcast-jsonl",
        limits: true,
        sessions: true,
        priorities: true,
        identities: Identities::All,
        waits: true,
        write: tailcast_jsonl,
        ..NOTHING
    },
    Target {
        name: "tailcast-parquet",
        limits: true,
        sessions: true,
        priorities: true,
        identities: Identities::All,
        waits: true,
        write: parquet_rows::write,
        ..NOTHING
    },
    Target {
        name: "tailcast-csv",
        limits: true,
        sessions: true,
        priorities: true,
        identities: Identities::Prefix,
        write: tailcast_csv,
        ..NOTHING
    },
    Target {
        name: "mooncake",
        resolution: Span::from_ms(1),
        identities: Identities::Blocks(512),
        write: mooncake,
        ..NOTHING
    },
    Target {
        name: "bailian",
        resolution: Span::from_us(1),
        sessions: true,
        identities: Identities::Blocks(16),
        waits: true,
        write: bailian,
        ..NOTHING
    },
    Target { name: "azure-2023", resolution: Span::from_ns(100), write: azure_2023, ..NOTHING },
    Target { name: "azure-2024", resolution: Span::from_us(1), write: azure_2024, ..NOTHING },
    Target { name: "burstgpt", resolution: Span::from_us(1), sessions: true, write: burstgpt, ..NOTHING },
    Target { name: "vidur", resolution: Span::from_us(1), write: vidur, ..NOTHING },
];

impl Target {
    /// Writes `trace`.
    ///
    /// # Errors
    /// If `to` cannot take the bytes.
    pub fn write(&self, trace: &Trace, to: &mut dyn Write) -> io::Result<()> {
        (self.write)(trace, to)
    }

    /// What of `trace` the format cannot hold, in sentences; none if it holds all.
    pub fn losses(&self, trace: &Trace) -> Vec<String> {
        let count = |lost: &dyn Fn(&TraceRow) -> bool| trace.rows.iter().filter(|row| lost(row)).count();
        let holds_content = |row: &TraceRow| match self.identities {
            Identities::All => true,
            Identities::None => row.content.runs().is_empty(),
            Identities::Prefix => match row.content.runs() {
                [] => true,
                [run] => run.position == 0 && run.tokens <= row.prompt_tokens,
                _ => false,
            },
            Identities::Blocks(size) => row.content.runs().is_empty() || is_in_blocks(row, size),
        };
        let turns_alone = |row: &TraceRow| match self.name {
            // A chat names one turn before it, and no pause.
            "bailian" => row.waits.len() <= 1 && row.waits.iter().all(|wait| wait.think.is_none()),
            _ => self.waits || row.waits.is_empty(),
        };
        let blocks = matches!(self.identities, Identities::Blocks(_));
        // Where a session is told by its turns' parents alone, a turn without one begins another.
        let mut begun = FxHashMap::default();
        let mut again = |row: &&TraceRow| {
            row.session.is_some_and(|session| begun.insert(session, ()).is_some()) && row.waits.is_empty()
        };
        let by_parent = self.name == "bailian";
        let unlinked = trace.rows.iter().filter(|row| by_parent && again(row)).count();
        let lost = [
            (
                count(&|row| !row.arrived.as_ps().is_multiple_of(self.resolution.as_ps())),
                format!("times were rounded to {}", named(self.resolution)),
            ),
            (
                count(&|row| !self.limits && row.max_tokens.is_some()),
                "limits (max_tokens) were left out".into(),
            ),
            (count(&|row| !self.sessions && row.session.is_some()), "sessions were left out".into()),
            (unlinked, "later turns of a session stand alone, since they wait for no answer".into()),
            (
                count(&|row| blocks && row.content.runs().is_empty()),
                "prompts without identities were given ids that nobody else has".into(),
            ),
            (count(&|row| !self.priorities && row.priority != 0), "priorities were left out".into()),
            (
                count(&|row| !holds_content(row)),
                match self.identities {
                    Identities::Blocks(size) => {
                        format!("prompts had their identities written anew, as blocks of {size} tokens")
                    }
                    Identities::Prefix => "prompts kept only the first of several shared texts".into(),
                    _ => "prompts lost the identities of their tokens".into(),
                },
            ),
            (count(&|row| !turns_alone(row)), "think times or waits for answers were left out".into()),
        ];
        let all = trace.rows.len();
        lost.into_iter()
            .filter(|(count, _)| *count > 0)
            .map(|(count, what)| format!("{count} of {all}: {what}."))
            .collect()
    }
}

fn named(resolution: Span) -> String {
    match resolution.as_ps() {
        1_000_000_000 => "1 ms".into(),
        ps => format!("{} us", ps as f64 / 1e6),
    }
}

/// Whether each started block of the prompt is one text from its beginning, as formats with ids of blocks have it.
fn is_in_blocks(row: &TraceRow, size: u32) -> bool {
    let runs = row.content.runs();
    runs.len() == row.prompt_tokens.div_ceil(size) as usize
        && runs.iter().enumerate().all(|(place, run)| {
            let left = row.prompt_tokens - place as u32 * size;
            run.position == 0 && run.tokens == size.min(left)
        })
}

/// Ids of all started blocks: those that the trace has, or else numbers in order of appearance, equal where all tokens up
/// to the block's end are.
struct BlockIds {
    size: u32,
    as_they_are: bool,
    numbers: FxHashMap<(u64, Content), u64>,
    next: u64,
}

impl BlockIds {
    fn new(rows: &[TraceRow], size: u32) -> BlockIds {
        let as_they_are = rows.iter().all(|row| is_in_blocks(row, size));
        BlockIds { size, as_they_are, numbers: FxHashMap::default(), next: 0 }
    }

    fn of(&mut self, row: &TraceRow) -> Vec<u64> {
        if self.as_they_are {
            return row.content.runs().iter().map(|run| run.stream).collect();
        }
        let mut before = u64::MAX;
        let mut ids = Vec::new();
        for start in (0..row.prompt_tokens).step_by(self.size as usize) {
            let end = (start + self.size).min(row.prompt_tokens);
            let part = slice(&row.content, start, end);
            let new = self.next;
            let id = if part.tokens() == end - start {
                *self.numbers.entry((before, part)).or_insert(new)
            } else {
                new
            };
            self.next += u64::from(id == new);
            before = id;
            ids.push(id);
        }
        ids
    }
}

/// What is known of the tokens from `start` to `end`.
fn slice(content: &Content, start: u32, end: u32) -> Content {
    let mut at = 0;
    Content::from_runs(content.runs().iter().map(|run| {
        let (from, to) = (at.max(start), (at + run.tokens).min(end));
        let cut = ContentRun {
            position: run.position + from.saturating_sub(at),
            tokens: to.saturating_sub(from),
            ..*run
        };
        at += run.tokens;
        cut
    }))
}

/// A time rounded to whole numbers of `unit`, in that unit.
fn rounded(row: &TraceRow, unit: Span) -> u64 {
    (row.arrived.as_ps() + unit.as_ps() / 2) / unit.as_ps()
}

/// Seconds with as many digits as it takes to say them exactly, but at most `digits`.
pub(super) fn seconds(ps: u64, digits: usize) -> String {
    let unit = 10u64.pow(12 - digits as u32);
    let ps = (ps + unit / 2) / unit * unit;
    let text = format!("{}.{:012}", ps / 1_000_000_000_000, ps % 1_000_000_000_000);
    let text = text.trim_end_matches('0');
    if text.ends_with('.') { format!("{text}0") } else { text.to_owned() }
}

fn tailcast_jsonl(trace: &Trace, to: &mut dyn Write) -> io::Result<()> {
    for row in &trace.rows {
        write!(to, "{{\"arrived_s\": {}", seconds(row.arrived.as_ps(), 12))?;
        write!(to, ", \"prompt_tokens\": {}, \"output_tokens\": {}", row.prompt_tokens, row.output_tokens)?;
        if let Some(limit) = row.max_tokens {
            write!(to, ", \"max_tokens\": {limit}")?;
        }
        if let Some(session) = row.session {
            write!(to, ", \"session\": {session}")?;
        }
        if row.priority != 0 {
            write!(to, ", \"priority\": {}", row.priority)?;
        }
        if let Some(text) = content_json(&row.content) {
            write!(to, ", {text}")?;
        }
        if !row.waits.is_empty() {
            write!(to, ", \"waits\": {}", waits_json(row))?;
        }
        writeln!(to, "}}")?;
    }
    Ok(())
}

/// The key and value that hold these identities: equal blocks where they are some, else runs; none if there are none.
fn content_json(content: &Content) -> Option<String> {
    let runs = content.runs();
    let size = runs.first()?.tokens;
    let (last, others) = runs.split_last()?;
    let equal = others.iter().all(|run| run.tokens == size && run.position == 0);
    if equal && last.position == 0 && last.tokens <= size && runs.len() > 1 {
        let ids: Vec<String> = runs.iter().map(|run| run.stream.to_string()).collect();
        let length = content.tokens();
        // A last block that is cut ends with the prompt or, where the answer is known too, beyond it.
        return Some(format!(
            "\"blocks\": {{\"tokens\": {size}, \"ids\": [{}], \"length\": {length}}}",
            ids.join(", ")
        ));
    }
    Some(format!("\"runs\": {}", runs_json(content)))
}

/// `[[stream, position, tokens], ...]`.
pub(super) fn runs_json(content: &Content) -> String {
    let run = |run: &ContentRun| format!("[{}, {}, {}]", run.stream, run.position, run.tokens);
    format!("[{}]", content.runs().iter().map(run).collect::<Vec<_>>().join(", "))
}

/// `[[row, think time in picoseconds or null], ...]`.
pub(super) fn waits_json(row: &TraceRow) -> String {
    let waits = row.waits.iter().map(|wait| {
        let think = wait.think.map_or("null".to_owned(), |think| think.as_ps().to_string());
        format!("[{}, {think}]", wait.row)
    });
    format!("[{}]", waits.collect::<Vec<_>>().join(", "))
}

fn tailcast_csv(trace: &Trace, to: &mut dyn Write) -> io::Result<()> {
    writeln!(to, "arrived_s,prompt_tokens,output_tokens,max_tokens,session,priority,prefix,prefix_tokens")?;
    for row in &trace.rows {
        let or_empty = |value: Option<u64>| value.map_or(String::new(), |value| value.to_string());
        let prefix = row.content.runs().first().filter(|run| run.position == 0);
        let known = prefix.map(|run| u64::from(run.tokens.min(row.prompt_tokens)));
        writeln!(
            to,
            "{},{},{},{},{},{},{},{}",
            seconds(row.arrived.as_ps(), 12),
            row.prompt_tokens,
            row.output_tokens,
            or_empty(row.max_tokens.map(u64::from)),
            or_empty(row.session),
            if row.priority == 0 { String::new() } else { row.priority.to_string() },
            or_empty(prefix.map(|run| run.stream)),
            or_empty(known),
        )?;
    }
    Ok(())
}

fn mooncake(trace: &Trace, to: &mut dyn Write) -> io::Result<()> {
    let mut ids = BlockIds::new(&trace.rows, 512);
    for row in &trace.rows {
        let ids: Vec<String> = ids.of(row).iter().map(u64::to_string).collect();
        writeln!(
            to,
            "{{\"timestamp\": {}, \"input_length\": {}, \"output_length\": {}, \"hash_ids\": [{}]}}",
            rounded(row, Span::from_ms(1)),
            row.prompt_tokens,
            row.output_tokens,
            ids.join(", ")
        )?;
    }
    Ok(())
}

fn bailian(trace: &Trace, to: &mut dyn Write) -> io::Result<()> {
    let mut ids = BlockIds::new(&trace.rows, 16);
    let mut turns: Vec<u32> = Vec::with_capacity(trace.rows.len());
    for (chat, row) in trace.rows.iter().enumerate() {
        let parent = row.waits.iter().map(|wait| wait.row).filter(|&parent| (parent as usize) < chat).max();
        let turn = parent.map_or(1, |parent| turns[parent as usize] + 1);
        turns.push(turn);
        let ids: Vec<String> = ids.of(row).iter().map(u64::to_string).collect();
        writeln!(
            to,
            "{{\"chat_id\": {chat}, \"parent_chat_id\": {}, \"timestamp\": {}, \"input_length\": {}, \
             \"output_length\": {}, \"type\": \"text\", \"turn\": {turn}, \"hash_ids\": [{}]}}",
            parent.map_or(-1, i64::from),
            seconds(row.arrived.as_ps(), 6),
            row.prompt_tokens,
            row.output_tokens,
            ids.join(", ")
        )?;
    }
    Ok(())
}

/// The day on which traces without a date are laid.
const SOME_DAY_S: i64 = 1_700_000_000 / 86_400 * 86_400;

/// Whole seconds since 1970 and what is left in `unit`.
fn dated(trace: &Trace, row: &TraceRow, unit: Span) -> (jiff::civil::DateTime, u64) {
    let unit_ps = i128::from(unit.as_ps());
    let start_ps = if trace.started_ps >= super::many::SINCE_1971_PS {
        trace.started_ps
    } else {
        i128::from(SOME_DAY_S) * 1_000_000_000_000
    };
    let units = (start_ps + i128::from(row.arrived.as_ps()) + unit_ps / 2) / unit_ps;
    let per_second = 1_000_000_000_000 / unit_ps;
    let stamp =
        jiff::Timestamp::from_second((units / per_second) as i64).unwrap_or(jiff::Timestamp::UNIX_EPOCH);
    (jiff::tz::TimeZone::UTC.to_datetime(stamp), (units % per_second) as u64)
}

fn azure_2023(trace: &Trace, to: &mut dyn Write) -> io::Result<()> {
    write!(to, "TIMESTAMP,ContextTokens,GeneratedTokens")?;
    for row in &trace.rows {
        let (time, ticks) = dated(trace, row, Span::from_ns(100));
        let time = time.to_string().replace('T', " ");
        write!(to, "\r\n{time}.{ticks:07},{},{}", row.prompt_tokens, row.output_tokens)?;
    }
    Ok(())
}

fn azure_2024(trace: &Trace, to: &mut dyn Write) -> io::Result<()> {
    writeln!(to, "TIMESTAMP,ContextTokens,GeneratedTokens")?;
    for row in &trace.rows {
        let (time, micros) = dated(trace, row, Span::from_us(1));
        let time = time.to_string().replace('T', " ");
        let fraction = if micros == 0 { String::new() } else { format!(".{micros:06}") };
        writeln!(to, "{time}{fraction}+00:00,{},{}", row.prompt_tokens, row.output_tokens)?;
    }
    Ok(())
}

fn burstgpt(trace: &Trace, to: &mut dyn Write) -> io::Result<()> {
    writeln!(
        to,
        "Timestamp,Session ID,Elapsed time,Model,Request tokens,Response tokens,Total tokens,Log Type"
    )?;
    for row in &trace.rows {
        let session = row.session.map_or(String::new(), |session| session.to_string());
        let kind = if session.is_empty() { "API log" } else { "Conversation log" };
        let total = u64::from(row.prompt_tokens) + u64::from(row.output_tokens);
        let time = seconds(row.arrived.as_ps(), 6);
        writeln!(to, "{time},{session},,,{},{},{total},{kind}", row.prompt_tokens, row.output_tokens)?;
    }
    Ok(())
}

fn vidur(trace: &Trace, to: &mut dyn Write) -> io::Result<()> {
    writeln!(to, "arrived_at,num_prefill_tokens,num_decode_tokens")?;
    for row in &trace.rows {
        writeln!(to, "{},{},{}", seconds(row.arrived.as_ps(), 6), row.prompt_tokens, row.output_tokens)?;
    }
    Ok(())
}
