//! A mix of clients as ServeGen publishes them: each with its own rate, burstiness and lengths, window by window.
//!
//! Knows the published files: `chunk-N-trace.csv` (window start, rate, CV, distribution of gaps, shape, scale) and
//! `chunk-N-dataset.json` (window start to distributions of input and output tokens). A client without lengths is left out
//! and counted. Does not know what makes prompts alike: the files say nothing of it.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use rand::RngExt;
use rand::distr::Distribution;
use rand_distr::{Exp1, Gamma, Weibull};
use statrs::function::gamma::gamma;

use crate::random::{Purpose, Seed, Stream};
use crate::time::{Span, Time};
use crate::trace::files;

/// Clients and when they are looked at.
#[derive(Clone, Debug, PartialEq)]
pub struct Clients {
    clients: Vec<Client>,
    /// Where in the published days the workload begins.
    start_s: f64,
    /// How much of them it takes.
    duration_s: f64,
    /// Rates this many times as high.
    rate_scale: f64,
    /// Clients that were left out because their lengths are not there.
    pub without_lengths: u32,
}

#[derive(Clone, Debug, PartialEq)]
struct Client {
    number: u64,
    windows: Vec<Window>,
    lengths: Vec<LengthWindow>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
struct Window {
    start_s: f64,
    rate_per_s: f64,
    gaps: Gaps,
}

/// Gaps of mean one.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Gaps {
    Exponential,
    /// With this shape.
    Gamma(f64),
    /// With this shape.
    Weibull(f64),
}

/// What was found of a client's two files.
#[derive(Default)]
struct Published {
    windows: Option<Vec<Window>>,
    lengths: Option<Vec<LengthWindow>>,
}

#[derive(Clone, Debug, PartialEq)]
struct LengthWindow {
    start_s: f64,
    input: Arc<[(f64, u32)]>,
    output: Arc<[(f64, u32)]>,
}

/// Length of the last window of a file, which has none after it to end it.
const LAST_WINDOW_S: f64 = 600.0;

impl Clients {
    /// Reads a folder or archive of ServeGen's, and takes `duration_s` from `start_s` on.
    ///
    /// # Errors
    /// With file and line, if it holds no such files, or one of them is not as published.
    pub fn read(path: &Path, start_s: f64, duration_s: f64, rate_scale: f64) -> Result<Clients, String> {
        let shown = path.display();
        let mut by_number: BTreeMap<u64, Published> = BTreeMap::new();
        for (name, bytes) in files(path).map_err(|error| error.to_string())? {
            let base = name.rsplit('/').next().unwrap_or_default();
            let Some((number, kind)) = base.strip_prefix("chunk-").and_then(|rest| rest.split_once('-'))
            else {
                continue;
            };
            let Ok(number) = number.parse::<u64>() else { continue };
            let text = String::from_utf8(bytes).map_err(|_| format!("{name}: is not UTF-8 text"))?;
            let client = by_number.entry(number).or_default();
            match kind {
                "trace.csv" => client.windows = Some(windows(&name, &text)?),
                "dataset.json" => client.lengths = Some(lengths(&name, &text)?),
                _ => {}
            }
        }
        if by_number.is_empty() {
            return Err(format!("{shown}: holds no chunk-N-trace.csv as ServeGen publishes them"));
        }
        let mut clients = Vec::new();
        let mut without_lengths = 0;
        for (number, published) in by_number {
            let Some(windows) = published.windows else { continue };
            match published.lengths {
                Some(lengths) => clients.push(Client { number, windows, lengths }),
                None => without_lengths += 1,
            }
        }
        let mix = Clients { clients, start_s, duration_s, rate_scale, without_lengths };
        if mix.rate_per_s() <= 0.0 {
            return Err(format!(
                "{shown}: no client with known lengths is active from {start_s} s on for {duration_s} s"
            ));
        }
        Ok(mix)
    }

    /// Mean requests a second in the window that is taken.
    pub fn rate_per_s(&self) -> f64 {
        let end_s = self.start_s + self.duration_s;
        let of = |client: &Client| -> f64 {
            let requests = client.windows.iter().enumerate().map(|(index, window)| {
                let seconds = client.end_s(index).min(end_s) - window.start_s.max(self.start_s);
                window.rate_per_s * seconds.max(0.0)
            });
            requests.sum()
        };
        self.clients.iter().map(of).sum::<f64>() / self.duration_s * self.rate_scale
    }

    /// Sending time, prompt, output and client of every request in the window, in order of time; at most `most`.
    pub(super) fn draw(&self, most: u32, seed: Seed) -> Vec<(Time, u32, u32, u64)> {
        let mut all = Vec::new();
        for client in &self.clients {
            let mut arrivals = seed.stream(Purpose::Arrivals, client.number + 1);
            let mut prompts = seed.stream(Purpose::PromptTokens, client.number + 1);
            let mut outputs = seed.stream(Purpose::OutputTokens, client.number + 1);
            let mut given = 0;
            self.arrivals_of(client, &mut arrivals, &mut |at_s| {
                let Some(lengths) = client.lengths_at(at_s) else { return true };
                let (prompt, output) =
                    (pick(&lengths.input, &mut prompts), pick(&lengths.output, &mut outputs));
                all.push((
                    Time::ZERO + Span::from_s_f64(at_s - self.start_s),
                    prompt,
                    output.max(1),
                    client.number,
                ));
                given += 1;
                given < most
            });
        }
        all.sort_by_key(|(at, _, _, client)| (*at, *client));
        all.truncate(most as usize);
        all
    }

    /// Moments in published seconds; `give` says whether to go on.
    fn arrivals_of(&self, client: &Client, stream: &mut Stream, give: &mut dyn FnMut(f64) -> bool) {
        let end_s = self.start_s + self.duration_s;
        let first = client.windows.partition_point(|window| window.start_s <= self.start_s).saturating_sub(1);
        let mut at_s = self.start_s;
        // Own time until the next request: a client is met in the middle of a gap.
        let mut left: Option<f64> = None;
        for (index, window) in client.windows.iter().enumerate().skip(first) {
            let next_s =
                client.windows.get(index + 1).map_or(window.start_s + LAST_WINDOW_S, |next| next.start_s);
            let until_s = next_s.min(end_s);
            at_s = at_s.max(window.start_s);
            let rate = window.rate_per_s * self.rate_scale;
            if rate <= 0.0 || at_s >= until_s {
                continue;
            }
            loop {
                let gap = left.take().unwrap_or_else(|| window.gaps.draw(stream) * stream.random::<f64>());
                let due_s = at_s + gap / rate;
                if due_s >= until_s {
                    left = Some((gap - (until_s - at_s) * rate).max(0.0));
                    break;
                }
                at_s = due_s;
                if !give(at_s) {
                    return;
                }
                left = Some(window.gaps.draw(stream));
            }
            at_s = until_s;
            if until_s >= end_s {
                return;
            }
        }
    }
}

impl Client {
    /// Where a window ends.
    fn end_s(&self, index: usize) -> f64 {
        let next = self.windows.get(index + 1).map(|next| next.start_s);
        next.unwrap_or(self.windows[index].start_s + LAST_WINDOW_S)
    }

    fn lengths_at(&self, at_s: f64) -> Option<&LengthWindow> {
        let known = self.lengths.partition_point(|window| window.start_s <= at_s);
        // Where a window has none, the nearest one before it, or else the first, speaks for it.
        let usable = |window: &&LengthWindow| !window.input.is_empty() && !window.output.is_empty();
        self.lengths[..known].iter().rev().find(usable).or_else(|| self.lengths.iter().find(usable))
    }
}

impl Gaps {
    fn draw(self, stream: &mut Stream) -> f64 {
        match self {
            Gaps::Exponential => Exp1.sample(stream),
            Gaps::Gamma(shape) => Gamma::new(shape, 1.0 / shape).expect("a validated shape").sample(stream),
            Gaps::Weibull(shape) => {
                let scale = gamma(1.0 + 1.0 / shape).recip();
                Weibull::new(scale, shape).expect("a validated shape").sample(stream)
            }
        }
    }
}

/// One of the lengths, by their shares summed up.
fn pick(summed: &[(f64, u32)], stream: &mut Stream) -> u32 {
    let total = summed.last().map_or(0.0, |(sum, _)| *sum);
    let at = stream.random::<f64>() * total;
    let place = summed.partition_point(|(sum, _)| *sum <= at).min(summed.len() - 1);
    summed[place].1.max(1)
}

fn windows(name: &str, text: &str) -> Result<Vec<Window>, String> {
    let mut windows: Vec<Window> = Vec::new();
    for (number, line) in text.lines().map(str::trim).enumerate().filter(|(_, line)| !line.is_empty()) {
        let fields: Vec<&str> = line.split(',').map(str::trim).collect();
        let wrong = |expected: &str| format!("{name}:{}: expected {expected}, got \"{line}\"", number + 1);
        let [start, rate, _, distribution, shape, _] = fields[..] else {
            return Err(wrong("window start, rate, CV, distribution, shape and scale"));
        };
        let value = |text: &str| text.parse::<f64>().ok().filter(|value| value.is_finite() && *value >= 0.0);
        let start_s = value(start).ok_or_else(|| wrong("a window start in seconds"))?;
        let rate_per_s = value(rate).ok_or_else(|| wrong("a rate of at least 0"))?;
        let shape = value(shape).ok_or_else(|| wrong("a shape of at least 0"))?;
        let gaps = match distribution {
            "Gamma" if shape > 0.0 => Gaps::Gamma(shape),
            "Weibull" if shape > 0.0 => Gaps::Weibull(shape),
            "" | "Exponential" | "Poisson" => Gaps::Exponential,
            _ => return Err(wrong("Gamma or Weibull with a shape above 0")),
        };
        if windows.last().is_some_and(|last| last.start_s >= start_s) {
            return Err(wrong("windows in order of time"));
        }
        windows.push(Window { start_s, rate_per_s, gaps });
    }
    Ok(windows)
}

fn lengths(name: &str, text: &str) -> Result<Vec<LengthWindow>, String> {
    let all: BTreeMap<String, BTreeMap<String, serde_json::Value>> =
        serde_json::from_str(text).map_err(|error| format!("{name}: {error}"))?;
    let mut windows = Vec::new();
    for (start, fields) in &all {
        let start_s: f64 =
            start.parse().map_err(|_| format!("{name}: \"{start}\": expected a window start in seconds"))?;
        let of = |field: &str| match fields.get(field) {
            Some(serde_json::Value::String(text)) => summed(text)
                .ok_or_else(|| format!("{name}: \"{start}\".{field}: expected {{tokens: share, ...}}")),
            _ => Err(format!("{name}: \"{start}\": has no {field}")),
        };
        windows.push(LengthWindow { start_s, input: of("input_tokens")?, output: of("output_tokens")? });
    }
    windows.sort_by(|a, b| a.start_s.total_cmp(&b.start_s));
    Ok(windows)
}

/// A Python dictionary of token counts and shares, as shares summed up.
fn summed(text: &str) -> Option<Arc<[(f64, u32)]>> {
    let inner = text.trim().strip_prefix('{')?.strip_suffix('}')?.trim();
    let mut sum = 0.0;
    let mut points = Vec::new();
    for item in inner.split(',').map(str::trim).filter(|item| !item.is_empty()) {
        let (tokens, share) = item.split_once(':')?;
        let tokens: f64 = tokens.trim().parse().ok().filter(|tokens| (0.0..1e8).contains(tokens))?;
        let share: f64 =
            share.trim().parse().ok().filter(|share: &f64| *share >= 0.0 && share.is_finite())?;
        sum += share;
        points.push((sum, tokens as u32));
    }
    Some(points.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(trace: &str, dataset: &str) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("chunk-0-trace.csv"), trace).unwrap();
        std::fs::write(folder.path().join("chunk-0-dataset.json"), dataset).unwrap();
        std::fs::write(folder.path().join("chunk-7-trace.csv"), trace).unwrap();
        folder
    }

    const TRACE: &str =
        "0,0,0,,0,0\r\n600,20,1,Gamma,1.0,0.05\r\n1200,2,2,Weibull,0.6,0.3\r\n1800,0,0,,0,0\r\n";
    const LENGTHS: &str =
        "{\"0\": {\"input_tokens\": \"{100: 0.25, 200: 0.75}\", \"output_tokens\": \"{7: 1.0}\"}}";

    #[test]
    fn clients_follow_their_windows() {
        let folder = folder(TRACE, LENGTHS);
        let clients = Clients::read(folder.path(), 0.0, 2_400.0, 1.0).unwrap();
        assert_eq!(clients.without_lengths, 1);
        assert!((clients.rate_per_s() - (20.0 + 2.0) / 4.0).abs() < 1e-9, "{}", clients.rate_per_s());
        let drawn = clients.draw(u32::MAX, Seed(1));
        let within = |from: f64, to: f64| {
            drawn.iter().filter(|(at, ..)| (from..to).contains(&at.as_s())).count() as f64
        };
        assert_eq!((within(0.0, 600.0), within(1_800.0, 2_400.0)), (0.0, 0.0));
        // 12,000 exponential gaps, and 1,200 of twice the spread; five standard deviations.
        assert!((within(600.0, 1_200.0) - 12_000.0).abs() < 5.0 * 110.0);
        assert!((within(1_200.0, 1_800.0) - 1_200.0).abs() < 5.0 * 70.0);
        let short = drawn.iter().filter(|(_, prompt, ..)| *prompt == 100).count() as f64;
        assert!(
            (short / drawn.len() as f64 - 0.25).abs() < 0.02
                && drawn.iter().all(|(_, _, output, _)| *output == 7)
        );
        let later = Clients::read(folder.path(), 1_200.0, 300.0, 2.0).unwrap().draw(100, Seed(1));
        assert!(later.len() == 100 && later.is_sorted_by_key(|(at, ..)| *at));
    }

    #[test]
    fn what_is_not_as_published_is_told() {
        let said = |trace: &str, lengths: &str| {
            Clients::read(folder(trace, lengths).path(), 0.0, 600.0, 1.0)
                .unwrap_err()
                .rsplit('/')
                .next()
                .unwrap()
                .to_owned()
        };
        assert_eq!(
            said("0,x,0,,0,0", LENGTHS),
            "chunk-0-trace.csv:1: expected a rate of at least 0, got \"0,x,0,,0,0\""
        );
        assert!(said("0,1,0,Normal,1,1", LENGTHS).contains("expected Gamma or Weibull"));
        assert!(said("0,1,0", LENGTHS).contains("expected window start, rate"));
        assert!(said(TRACE, "{\"0\": {\"input_tokens\": \"{}\"}}").contains("has no output_tokens"));
        assert!(said(TRACE, LENGTHS).contains("no client with known lengths is active from 0 s on"));
        let empty = tempfile::tempdir().unwrap();
        assert!(
            Clients::read(empty.path(), 0.0, 1.0, 1.0).unwrap_err().contains("holds no chunk-N-trace.csv")
        );
    }
}
