//! Every step of every replica as a trace for ui.perfetto.dev or chrome://tracing (Trace Event Format, JSON).
//!
//! A replica is a process. Its steps are slices of one thread, its gauges counters, its requests asynchronous slices: queue, prefill,
//! decode. Times are simulated, in microseconds.

use std::io::{self, Write};

use serde_json::{Value, json};

use crate::observe::{GapRun, Observer, StepRun};
use crate::request::Outcome;
use crate::time::{Span, Time};

/// One step.
#[derive(Clone, Copy, Debug)]
struct SeenStep {
    start: Time,
    gpu: Span,
    decodes: u32,
    prefill_tokens: u32,
    running: u32,
    waiting: u32,
    kv_blocks_used: u32,
}

/// Sees the steps of one replica that begin within a stretch of time.
#[derive(Clone, Debug)]
pub struct Steps {
    from: Time,
    to: Time,
    seen: Vec<SeenStep>,
}

impl Steps {
    /// Nothing yet; of the steps to come, those that begin from `from` on and before `to`.
    pub fn between(from: Time, to: Time) -> Steps {
        Steps { from, to, seen: Vec::new() }
    }

    /// How many there were.
    pub fn count(&self) -> usize {
        self.seen.len()
    }
}

impl Observer for Steps {
    fn steps(&mut self, run: &StepRun<'_>) {
        if run.start >= self.to || run.end() < self.from {
            return;
        }
        for step in run.singles().filter(|step| (self.from..self.to).contains(&step.start)) {
            self.seen.push(SeenStep {
                start: step.start,
                gpu: step.first,
                decodes: step.decodes,
                prefill_tokens: step.prefill_tokens,
                running: step.running,
                waiting: step.waiting,
                kv_blocks_used: step.kv_blocks_used,
            });
        }
    }

    fn token_gaps(&mut self, _gaps: &GapRun) {}
}

/// Writes the trace: the steps of each replica, with its kind, and the requests that were in an engine within the stretch.
///
/// # Errors
/// If it cannot be written.
pub fn write(to: &mut dyn Write, replicas: &[(String, Steps)], outcomes: &[Outcome]) -> io::Result<()> {
    write!(to, "{{\"displayTimeUnit\":\"ms\",\"traceEvents\":[")?;
    let mut events = Events { to, any: false };
    for (number, (kind, steps)) in replicas.iter().enumerate() {
        let name = format!("replica {number}: {kind}");
        events.add(&json!({"ph": "M", "pid": number, "name": "process_name", "args": {"name": name}}))?;
        events.add(
            &json!({"ph": "M", "pid": number, "name": "process_sort_index", "args": {"sort_index": number}}),
        )?;
        events.add(&json!({"ph": "M", "pid": number, "tid": 0, "name": "thread_name", "args": {"name": "engine steps"}}))?;
        for step in &steps.seen {
            events.step(number, step)?;
        }
        for outcome in outcomes.iter().filter(|outcome| outcome.replica == Some(number as u32)) {
            events.request(number, outcome, steps)?;
        }
    }
    writeln!(to, "\n]}}")
}

struct Events<'a> {
    to: &'a mut dyn Write,
    any: bool,
}

/// Microseconds, to the picosecond.
fn us(at: Time) -> f64 {
    at.as_ps() as f64 / 1e6
}

impl Events<'_> {
    fn add(&mut self, event: &Value) -> io::Result<()> {
        let comma = if std::mem::replace(&mut self.any, true) { "," } else { "" };
        write!(self.to, "{comma}\n{event}")
    }

    fn step(&mut self, replica: usize, step: &SeenStep) -> io::Result<()> {
        let name = match (step.prefill_tokens, step.decodes) {
            (0, decodes) => format!("decode {decodes}"),
            (tokens, 0) => format!("prefill {tokens}"),
            (tokens, decodes) => format!("prefill {tokens} + decode {decodes}"),
        };
        self.add(&json!({
            "ph": "X", "pid": replica, "tid": 0, "ts": us(step.start), "dur": step.gpu.as_us(), "name": name,
            "cat": if step.prefill_tokens > 0 { "prefill" } else { "decode" },
            "args": {"prefill_tokens": step.prefill_tokens, "decodes": step.decodes},
        }))?;
        self.add(&json!({
            "ph": "C", "pid": replica, "ts": us(step.start), "name": "requests",
            "args": {"running": step.running, "waiting": step.waiting},
        }))?;
        self.add(&json!({
            "ph": "C", "pid": replica, "ts": us(step.start), "name": "KV blocks", "args": {"used": step.kv_blocks_used},
        }))
    }

    fn request(&mut self, replica: usize, outcome: &Outcome, steps: &Steps) -> io::Result<()> {
        let Some(engine) = &outcome.engine else { return Ok(()) };
        if engine.done < steps.from || engine.queued >= steps.to {
            return Ok(());
        }
        let id = outcome.attempt.request.0;
        let scheduled = engine.scheduled.unwrap_or(engine.done);
        let first_token = engine.first_token.unwrap_or(engine.done);
        let args = json!({
            "prompt_tokens": outcome.prompt_tokens, "cached_tokens": engine.cached_tokens, "output_tokens": engine.output_tokens,
            "preemptions": engine.preemptions, "finish": outcome.finish.name(),
        });
        let phases = [
            (format!("request {id}"), engine.queued, engine.done),
            ("queue".into(), engine.queued, scheduled),
            ("prefill".into(), scheduled, first_token),
            ("decode".into(), first_token, engine.done),
        ];
        for (place, (name, begin, end)) in phases.into_iter().enumerate() {
            if end > begin || place == 0 {
                let event = |phase: &str, at: Time| json!({"ph": phase, "cat": "request", "id": id, "pid": replica, "tid": 1, "ts": us(at), "name": name});
                let mut opening = event("b", begin);
                if place == 0 {
                    opening["args"] = args.clone();
                }
                self.add(&opening)?;
                self.add(&event("e", end))?;
            }
        }
        Ok(())
    }
}
