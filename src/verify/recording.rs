//! The format of the golden scheduler recordings: a header with configuration and requests, a line for each
//! schedule() call, an end line.
//!
//! Knows how a header is read and how lines are written. Lines are written from a replica alone; a recorded
//! line is read nowhere in this file.

use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::replica::{EngineConfig, EngineEvent, Recorder, Scheduler, SchedulingPolicy, Speculation, Step};
use crate::request::{Content, ContentRun, Request, RequestId};
use crate::time::{Span, Time};

/// Line 1 of a recording.
#[derive(Clone, Debug, Deserialize)]
pub struct Header {
    /// Version of the format.
    pub golden: u32,
    /// What the recording is called.
    pub name: String,
    /// What the engine was started with.
    pub config: HeaderConfig,
    /// What it was given, in order of arrival.
    pub requests: Vec<HeaderRequest>,
}

/// The engine of a recording, by the recording's names.
#[derive(Clone, Debug, Deserialize)]
pub struct HeaderConfig {
    scheduler: SchedulerMode,
    policy: Policy,
    block_size: u32,
    num_gpu_blocks: u32,
    max_num_batched_tokens: u32,
    max_num_seqs: u32,
    max_model_len: u32,
    enable_prefix_caching: bool,
    enable_chunked_prefill: bool,
    #[serde(default)]
    long_prefill_token_threshold: u32,
    scheduler_reserve_full_isl: bool,
    #[serde(default)]
    watermark: f64,
    #[serde(default)]
    spec_k: u32,
    #[serde(default)]
    spec_eagle: bool,
    #[serde(default)]
    kv_load_delay: u32,
    /// What arrivals are counted in.
    pub arrivals: Arrivals,
    /// Step time: nanoseconds of every step.
    #[serde(default)]
    pub a_ns: u64,
    /// Nanoseconds of each token.
    #[serde(default)]
    pub b_ns: u64,
    /// Nanoseconds of each token of context.
    #[serde(default)]
    pub c_ns: u64,
    /// Whether lines carry block ids.
    #[serde(default)]
    pub block_ids: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum SchedulerMode {
    Sync,
    Async,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Policy {
    Fcfs,
    Priority,
}

/// What the arrivals of a recording are counted in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Arrivals {
    /// Indices of schedule() calls.
    Step,
    /// Nanoseconds.
    Time,
}

/// A request of a recording.
#[derive(Clone, Debug, Deserialize)]
pub struct HeaderRequest {
    id: u32,
    /// Arrival: a step index or nanoseconds.
    pub arr: u64,
    p: u32,
    o: u32,
    max: Option<u32>,
    #[serde(default)]
    pri: i32,
    #[serde(default)]
    h: Vec<(u64, u32)>,
    /// Step index at which its client aborts it.
    pub abort: Option<u64>,
    #[serde(default)]
    remote: u32,
}

impl HeaderConfig {
    /// The same engine in our words.
    pub fn engine(&self) -> EngineConfig {
        EngineConfig {
            block_size: self.block_size,
            num_gpu_blocks: self.num_gpu_blocks,
            max_num_batched_tokens: self.max_num_batched_tokens,
            max_num_seqs: self.max_num_seqs,
            max_model_len: self.max_model_len,
            enable_prefix_caching: self.enable_prefix_caching,
            enable_chunked_prefill: self.enable_chunked_prefill,
            long_prefill_token_threshold: self.long_prefill_token_threshold,
            scheduler_reserve_full_isl: self.scheduler_reserve_full_isl,
            watermark_blocks: (self.watermark * f64::from(self.num_gpu_blocks)) as u32,
            scheduling_policy: match self.policy {
                Policy::Fcfs => SchedulingPolicy::Fcfs,
                Policy::Priority => SchedulingPolicy::Priority,
            },
            async_scheduling: self.scheduler == SchedulerMode::Async,
            speculation: (self.spec_k > 0)
                .then_some(Speculation { num_speculative_tokens: self.spec_k, eagle: self.spec_eagle }),
            kv_load_delay_steps: self.kv_load_delay,
            empty_step_sleep: Span::ZERO,
        }
    }
}

impl HeaderRequest {
    /// Which request.
    pub fn id(&self) -> RequestId {
        RequestId(self.id)
    }

    /// The same request in our words. A recorded identity stands for one block and all before it, so each
    /// becomes a run of its own.
    pub fn request(&self, block_size: u32) -> Request {
        let ids = self.h.iter().flat_map(|&(first, count)| (0..u64::from(count)).map(move |i| first + i));
        Request {
            id: self.id(),
            prompt_tokens: self.p,
            output_tokens: self.o,
            max_tokens: Some(self.max.unwrap_or(self.o)),
            priority: self.pri,
            attempt: 0,
            arrival_order: self.arr,
            content: Content::from_runs(ids.map(|stream| ContentRun {
                stream,
                position: 0,
                tokens: block_size,
            })),
            remote_tokens: self.remote,
        }
    }
}

/// Writes the lines of a recording while a replica advances.
#[derive(Debug, Default)]
pub struct Writer {
    block_ids: bool,
    with_time: bool,
    asynchronous: bool,
    lines: Vec<Value>,
    line: Option<Map<String, Value>>,
    aborted: Vec<u32>,
    free: u32,
    steps: u64,
}

impl Writer {
    /// A writer for recordings with this configuration.
    pub fn new(config: &HeaderConfig) -> Writer {
        Writer {
            block_ids: config.block_ids,
            with_time: config.arrivals == Arrivals::Time,
            asynchronous: config.scheduler == SchedulerMode::Async,
            ..Writer::default()
        }
    }

    /// All lines behind the header, given the replica at the end of its run.
    pub fn finish(mut self, requests: usize, scheduler: &Scheduler, clock: Time) -> Vec<Value> {
        self.close_line();
        let totals = scheduler.totals();
        let mut end = Map::new();
        end.insert("steps".into(), json!(self.steps));
        end.insert("requests".into(), json!(requests));
        end.insert("preemptions".into(), json!(totals.preemptions));
        end.insert("scheduled_tokens".into(), json!(totals.scheduled_tokens));
        end.insert("output_tokens".into(), json!(totals.output_tokens));
        end.insert("evictions".into(), json!(scheduler.evictions()));
        end.insert("first_admission_hit_tokens".into(), json!(totals.first_admission_hit_tokens));
        end.insert("all_admission_hit_tokens".into(), json!(totals.all_admission_hit_tokens));
        if self.with_time {
            end.insert("clock".into(), json!(clock.as_ps() / 1_000));
        }
        if self.block_ids {
            end.insert("free_queue".into(), json!(scheduler.free_list()));
        }
        self.lines.push(json!({ "end": end }));
        self.lines
    }

    fn close_line(&mut self) {
        if let Some(line) = self.line.take() {
            self.lines.push(Value::Object(line));
        }
    }
}

/// Inserts a list unless it is empty: absent means empty in this format.
fn insert_list<T: Into<Value>>(line: &mut Map<String, Value>, key: &str, list: Vec<T>) {
    if !list.is_empty() {
        line.insert(key.into(), Value::Array(list.into_iter().map(Into::into).collect()));
    }
}

fn ids(list: impl IntoIterator<Item = RequestId>) -> Vec<u32> {
    list.into_iter().map(|id| id.0).collect()
}

fn push_to_list(line: &mut Map<String, Value>, key: &str, value: Value) {
    if let Value::Array(list) = line.entry(key).or_insert_with(|| json!([])) {
        list.push(value);
    }
}

impl Recorder for Writer {
    fn scheduled(&mut self, index: u64, at: Time, step: &Step, scheduler: &Scheduler) {
        self.close_line();
        self.steps += 1;
        let mut line = Map::new();
        line.insert("k".into(), json!(index));
        if self.with_time {
            line.insert("t".into(), json!(at.as_ps() / 1_000));
        }
        insert_list(&mut line, "abt", std::mem::take(&mut self.aborted));
        let parts = step.scheduled.iter().map(|part| {
            let decodes = scheduler.prompt_tokens_of(part) + part.sampled_before;
            let ordinary = part.tokens == 1 && !part.admitted && part.before + 1 == decodes;
            if ordinary { json!(part.id.0) } else { json!([part.id.0, part.tokens, part.before]) }
        });
        line.insert("sch".into(), parts.collect());
        insert_list(&mut line, "new", ids(step.new.iter().copied()));
        insert_list(&mut line, "res", ids(step.resumed.iter().copied()));
        insert_list(&mut line, "pre", ids(step.preempted.iter().copied()));
        if !scheduler.running().eq(step.scheduled.iter().map(|part| part.id)) {
            line.insert("run".into(), json!(ids(scheduler.running())));
        }
        insert_list(&mut line, "wait", ids(scheduler.waiting()));
        insert_list(&mut line, "skipped", ids(scheduler.skipped()));
        let loads = step.loads_started.iter().map(|(id, tokens)| json!([id.0, tokens]));
        insert_list(&mut line, "kvload", loads.collect());
        self.free = scheduler.free_blocks();
        line.insert("free".into(), json!(self.free));
        if self.block_ids {
            let grown = step.scheduled.iter().filter(|part| !scheduler.blocks_of(part).is_empty());
            let blocks = grown.map(|part| json!([part.id.0, scheduler.blocks_of(part)]));
            insert_list(&mut line, "blk", blocks.collect());
        }
        if step.cache_queries != [0; 4] {
            line.insert("q".into(), json!(step.cache_queries));
        }
        let verified = step.scheduled.iter().filter(|part| part.drafts > 0 && part.sampled > 0);
        let accepted = verified.map(|part| json!([part.id.0, part.drafts, part.sampled]));
        insert_list(&mut line, "acc", accepted.collect());
        self.line = Some(line);
    }

    fn processed(&mut self, index: u64, _at: Time, events: &[EngineEvent], scheduler: &Scheduler) {
        let Some(line) = &mut self.line else { return };
        if self.asynchronous {
            push_to_list(line, "upd", json!(index));
        }
        for event in events {
            if let EngineEvent::Ended(outcome) = event {
                push_to_list(line, "fin", json!(outcome.id.0));
            }
        }
        let free = scheduler.free_blocks();
        line.remove("free2");
        if free != self.free {
            line.insert("free2".into(), json!(free));
        }
    }

    fn load_finished(&mut self, id: RequestId) {
        if let Some(line) = &mut self.line {
            push_to_list(line, "kvdone", json!(id.0));
        }
    }

    fn aborted(&mut self, id: RequestId) {
        self.aborted.push(id.0);
    }
}
