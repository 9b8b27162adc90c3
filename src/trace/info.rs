//! What a trace is like: rates, bursts, lengths and how much of its prompts repeats.
//!
//! Knows statistics of a trace as it was recorded. Does not know any server: reuse is what a cache that
//! forgets nothing would find.

use std::fmt::Write;

use rustc_hash::FxHashMap;
use serde::Serialize;

use super::{Trace, TraceRow};
use crate::time::Span;

/// A trace in numbers.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct TraceInfo {
    /// The format it was read as.
    pub format: &'static str,
    /// How many requests it holds.
    pub requests: u64,
    /// From the first arrival to the last.
    pub span_s: f64,
    /// Requests over the span; absent where all came at once.
    pub mean_rate_per_s: Option<f64>,
    /// Most requests in one second. Windows follow one another from the first arrival.
    pub peak_1s_requests: u64,
    /// Most requests in one minute.
    pub peak_60s_requests: u64,
    /// Fewest requests in a minute that lies wholly within the span; absent where none does.
    pub least_60s_requests: Option<u64>,
    /// Standard deviation over mean of the gaps between arrivals; 1 for a Poisson process.
    pub gap_cv: Option<f64>,
    /// Variance over mean of the counts in each second; 1 for a Poisson process.
    pub dispersion_1s: Option<f64>,
    /// Prompt lengths.
    pub prompt_tokens: Lengths,
    /// Output lengths.
    pub output_tokens: Lengths,
    /// Conversations, and requests that waited for answers; absent where the trace names none.
    pub sessions: Option<Sessions>,
    /// How much of the prompts a cache that forgets nothing would hold; absent without identities.
    pub reuse: Option<Reuse>,
}

/// A distribution of token counts; percentiles interpolate linearly between neighbours.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Lengths {
    /// Mean.
    pub mean: f64,
    /// Median.
    pub p50: f64,
    /// 90th percentile.
    pub p90: f64,
    /// 99th percentile.
    pub p99: f64,
    /// Longest.
    pub max: u32,
    /// Sum.
    pub total: u64,
}

/// Conversations of a trace.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Sessions {
    /// How many.
    pub sessions: u64,
    /// Requests of the longest.
    pub longest_requests: u64,
    /// Requests that were sent when another had been answered.
    pub waiting_requests: u64,
}

impl Sessions {
    fn of(rows: &[TraceRow]) -> Option<Sessions> {
        let mut turns: FxHashMap<u64, u64> = FxHashMap::default();
        for session in rows.iter().filter_map(|row| row.session) {
            *turns.entry(session).or_insert(0) += 1;
        }
        let waiting_requests = rows.iter().filter(|row| !row.waits.is_empty()).count() as u64;
        let longest_requests = turns.values().copied().max()?;
        Some(Sessions { sessions: turns.len() as u64, longest_requests, waiting_requests })
    }
}

/// Reuse of prefixes, requests taken in order: a hit is a leading identity that was seen before.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Reuse {
    /// References to an identified block or prefix.
    pub block_references: u64,
    /// Different ones among them.
    pub distinct_blocks: u64,
    /// Share of the references that hit.
    pub block_share: f64,
    /// Share of all prompt tokens, those without identity included, that hit.
    pub prompt_token_share: f64,
}

impl TraceInfo {
    /// The numbers of `trace`.
    pub fn of(trace: &Trace) -> TraceInfo {
        let rows = &trace.rows;
        let requests = rows.len() as u64;
        let span = rows.last().map_or(Span::ZERO, |row| Span::from_ps(row.arrived.as_ps()));
        let seconds = Windows::of(rows, span, Span::from_s(1));
        let minutes = Windows::of(rows, span, Span::from_s(60));
        TraceInfo {
            format: trace.format,
            requests,
            span_s: span.as_s(),
            mean_rate_per_s: (span > Span::ZERO).then(|| requests as f64 / span.as_s()),
            peak_1s_requests: seconds.peak,
            peak_60s_requests: minutes.peak,
            least_60s_requests: minutes.least,
            gap_cv: gap_cv(rows, span),
            dispersion_1s: seconds.dispersion,
            prompt_tokens: Lengths::of(rows.iter().map(|row| row.prompt_tokens).collect()),
            output_tokens: Lengths::of(rows.iter().map(|row| row.output_tokens).collect()),
            sessions: Sessions::of(rows),
            reuse: Reuse::of(rows),
        }
    }

    /// The numbers for people, in lines.
    pub fn text(&self) -> String {
        let or_none =
            |value: Option<f64>| value.map_or_else(|| "-".to_owned(), |value| format!("{value:.2}"));
        let least = self.least_60s_requests.map_or_else(|| "-".to_owned(), |least| least.to_string());
        let rate = self.mean_rate_per_s.map_or_else(|| "-".to_owned(), |rate| format!("{rate:.3}"));
        let mut text = String::new();
        let mut line = |label: &str, value: String| {
            // Writing to a string cannot fail.
            let _ = writeln!(text, "{label:<22}{value}");
        };
        line("format", self.format.to_owned());
        line("requests", self.requests.to_string());
        line("span", format!("{:.3} s", self.span_s));
        line("mean rate", format!("{rate} requests/s"));
        line("busiest second", format!("{} requests", self.peak_1s_requests));
        line("busiest minute", format!("{} requests", self.peak_60s_requests));
        line("quietest minute", format!("{least} requests"));
        line("CV of gaps", format!("{} (Poisson: 1)", or_none(self.gap_cv)));
        line("dispersion at 1 s", format!("{} (Poisson: 1)", or_none(self.dispersion_1s)));
        for (label, lengths) in [("prompt tokens", self.prompt_tokens), ("output tokens", self.output_tokens)]
        {
            let Lengths { mean, p50, p90, p99, max, total } = lengths;
            line(
                label,
                format!("mean {mean:.1}, p50 {p50:.0}, p90 {p90:.0}, p99 {p99:.0}, max {max}, total {total}"),
            );
        }
        if let Some(of) = self.sessions {
            let (sessions, longest, waiting) = (of.sessions, of.longest_requests, of.waiting_requests);
            line(
                "sessions",
                format!(
                    "{sessions}, the longest of {longest} requests; {waiting} requests waited for an answer"
                ),
            );
        }
        line(
            "prefix reuse",
            match self.reuse {
                None => "the trace names no prefixes".to_owned(),
                Some(reuse) => format!(
                    "{:.1} % of prompt tokens, {:.1} % of {} block references ({} distinct), \
                     by a cache that forgets nothing",
                    100.0 * reuse.prompt_token_share,
                    100.0 * reuse.block_share,
                    reuse.block_references,
                    reuse.distinct_blocks,
                ),
            },
        );
        text
    }
}

impl Lengths {
    fn of(mut lengths: Vec<u32>) -> Lengths {
        lengths.sort_unstable();
        let total = lengths.iter().map(|&tokens| u64::from(tokens)).sum();
        Lengths {
            mean: if lengths.is_empty() { 0.0 } else { total as f64 / lengths.len() as f64 },
            p50: percentile(&lengths, 0.50),
            p90: percentile(&lengths, 0.90),
            p99: percentile(&lengths, 0.99),
            max: lengths.last().copied().unwrap_or(0),
            total,
        }
    }
}

fn percentile(sorted: &[u32], share: f64) -> f64 {
    let place = share * sorted.len().saturating_sub(1) as f64;
    let at = |index: usize| sorted.get(index).map_or(0.0, |&tokens| f64::from(tokens));
    let (low, high) = (at(place.floor() as usize), at(place.ceil() as usize));
    low + (high - low) * place.fract()
}

/// Counts of arrivals in windows of one length, which follow one another from the first arrival.
struct Windows {
    /// Most in any.
    peak: u64,
    /// Fewest, the last window left out: the span ends within it.
    least: Option<u64>,
    /// Variance over mean of all.
    dispersion: Option<f64>,
}

impl Windows {
    fn of(rows: &[TraceRow], span: Span, length: Span) -> Windows {
        let window = |row: &TraceRow| row.arrived.as_ps() / length.as_ps();
        let whole = span.as_ps() / length.as_ps();
        let (mut peak, mut least, mut busy, mut squares) = (0, u64::MAX, 0, 0u128);
        for same in rows.chunk_by(|a, b| window(a) == window(b)) {
            let count = same.len() as u64;
            peak = peak.max(count);
            squares += u128::from(count) * u128::from(count);
            if window(&same[0]) < whole {
                busy += 1;
                least = least.min(count);
            }
        }
        let all = (whole + 1) as f64;
        let mean = rows.len() as f64 / all;
        let variance = squares as f64 / all - mean * mean;
        Windows {
            peak,
            least: (whole > 0).then_some(if busy < whole { 0 } else { least }),
            dispersion: (whole > 0).then(|| variance / mean),
        }
    }
}

fn gap_cv(rows: &[TraceRow], span: Span) -> Option<f64> {
    if rows.len() < 3 || span == Span::ZERO {
        return None;
    }
    let gaps = (rows.len() - 1) as f64;
    let mean = span.as_s() / gaps;
    let squares = rows.windows(2).map(|pair| ((pair[1].arrived - pair[0].arrived).as_s() - mean).powi(2));
    Some((squares.sum::<f64>() / gaps).sqrt() / mean)
}

impl Reuse {
    fn of(rows: &[TraceRow]) -> Option<Reuse> {
        // The longest stretch seen of each stream from each of its positions.
        let mut seen: FxHashMap<(u64, u32), u32> = FxHashMap::default();
        let (mut references, mut hits, mut prompt, mut hit_tokens) = (0u64, 0u64, 0u64, 0u64);
        for row in rows {
            prompt += u64::from(row.prompt_tokens);
            references += row.content.runs().len() as u64;
            let mut leading = true;
            for run in row.content.runs() {
                let longest = seen.entry((run.stream, run.position)).or_insert(0);
                if leading && *longest > 0 {
                    hits += 1;
                    hit_tokens += u64::from(run.tokens.min(*longest));
                }
                leading &= *longest >= run.tokens;
                *longest = run.tokens.max(*longest);
            }
        }
        (references > 0).then(|| Reuse {
            block_references: references,
            distinct_blocks: seen.len() as u64,
            block_share: hits as f64 / references as f64,
            prompt_token_share: hit_tokens as f64 / prompt as f64,
        })
    }
}
