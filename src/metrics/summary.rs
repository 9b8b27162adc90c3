//! One run in numbers.

use std::ops::Range;

use serde::Serialize;

use super::class::{ClassSummary, ClassTally};
use super::crowd::Crowd;
use super::lane::{LaneStats, median_batch};
use super::quantile::{Quantiles, Sample};
use super::{BadDay, Cost, Distributions, Histogram, Scaling, TimelinePoint};
use crate::request::{Finish, Outcome};
use crate::signals::Signals;
use crate::time::{Span, Time};

/// Limits that a request must meet to count as good (`vllm bench serve --goodput`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Objectives {
    /// On time to first token.
    pub ttft: Option<Span>,
    /// On time per output token.
    pub tpot: Option<Span>,
    /// On end-to-end latency.
    pub e2e: Option<Span>,
}

impl Objectives {
    /// Whether a request met them all. One without a whole answer never does.
    pub fn met_by(&self, outcome: &Outcome) -> bool {
        let within = |value: Option<Span>, limit: Option<Span>| match (value, limit) {
            (Some(value), Some(limit)) => value <= limit,
            _ => true,
        };
        outcome.finish.is_complete()
            && within(outcome.ttft(), self.ttft)
            && within(outcome.tpot(), self.tpot)
            && within(outcome.e2e(), self.e2e)
    }
}

/// One replica over a run.
#[derive(Clone, Debug, PartialEq, Serialize, schemars::JsonSchema)]
pub struct ReplicaSummary {
    /// Its kind, as the scenario names it.
    pub kind: String,
    /// Requests sent there.
    pub requests: u64,
    /// Steps it made.
    pub steps: u64,
    /// Share of the run's time in which its GPU worked.
    pub busy_share: f64,
    /// Running list that half of its GPU time was at or below.
    pub median_batch: u32,
    /// Mean share of its usable blocks in use while it worked.
    pub kv_cache_usage: f64,
    /// Largest share of its usable blocks in use.
    pub kv_cache_usage_max: f64,
    /// Requests that lost their blocks, counted each time.
    pub preemptions: u64,
    /// Prompt tokens found in its prefix cache over prompt tokens admitted.
    pub prefix_cache_hit_rate: f64,
    /// Length of a timeline point.
    pub timeline_interval_s: f64,
    /// Running, waiting and blocks over time.
    #[serde(skip)]
    pub timeline: Vec<TimelinePoint>,
    /// Usable blocks.
    pub kv_blocks_usable: u32,
}

/// One run in numbers. Latencies are of requests sent after the warm-up that got a whole answer.
#[derive(Clone, Debug, PartialEq, Serialize, schemars::JsonSchema)]
pub struct RunSummary {
    /// Requests sent after the warm-up.
    pub offered: u64,
    /// Of these, whole answers.
    pub completed: u64,
    /// Refused by the gateway or the server.
    pub rejected: u64,
    /// Taken back by their clients.
    pub aborted: u64,
    /// Still under way at the end.
    pub unfinished: u64,
    /// Requests of the warm-up, left out of all figures here.
    pub warmup_requests: u64,
    /// Requests of the cool-down, left out too.
    pub cooldown_requests: u64,
    /// From the first request counted to the last answer.
    pub span_s: f64,
    /// Requests offered a second.
    pub offered_requests_per_s: f64,
    /// Whole answers a second.
    pub requests_per_s: f64,
    /// Output tokens a second.
    pub output_tokens_per_s: f64,
    /// Prompt and output tokens a second.
    pub total_tokens_per_s: f64,
    /// Requests a second that met every objective of `[slo.goodput]`.
    pub goodput_requests_per_s: f64,
    /// Share of offered requests that met them.
    pub goodput_share: f64,
    /// Time to first token as the client sees it.
    pub ttft: Quantiles,
    /// Time to first token as `vllm:time_to_first_token_seconds` shows it.
    pub engine_ttft: Quantiles,
    /// Time per output token after the first.
    pub tpot: Quantiles,
    /// End to end.
    pub e2e: Quantiles,
    /// Whether quantiles come from a sketch, because there are more requests than are kept one by one; they are
    /// then off by at most one part in 4,096.
    pub sketched: bool,
    /// E2E P99 of all offered requests, those without a whole answer counting as infinite (none).
    pub e2e_p99_of_offered_ms: Option<f64>,
    /// The same of the time to first token.
    #[serde(skip)]
    pub ttft_p99_of_offered_ms: Option<f64>,
    /// Median gap between two tokens of a request, warm-up included, to 1 part in 256.
    pub itl_p50_ms: Option<f64>,
    /// 99th percentile of the same.
    pub itl_p99_ms: Option<f64>,
    /// Requests that lost their blocks, counted each time, warm-up included.
    pub preemptions: u64,
    /// Prompt tokens found in a prefix cache over prompt tokens of admitted requests.
    pub prefix_cache_hit_rate: f64,
    /// Share of the replicas' time in which their GPUs worked; with an autoscaler, of the time that is paid for.
    pub busy_share: f64,
    /// Running list that half of the GPUs' time was at or below.
    pub median_batch: u32,
    /// Mean share of usable blocks in use while GPUs worked.
    pub kv_cache_usage: f64,
    /// Mean requests in the system in the last quarter of the sending time over that in the second.
    pub queue_growth: f64,
    /// Engine steps of all replicas.
    pub steps: u64,
    /// By class of requests; empty if all are alike.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(default)]
    pub classes: Vec<ClassSummary>,
    /// By replica.
    pub replicas: Vec<ReplicaSummary>,
    /// What befell the fleet; absent where nothing could.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(default)]
    pub bad_day: Option<BadDay>,
    /// What the fleet cost, in money and energy; absent where nobody asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(default)]
    pub cost: Option<Cost>,
    /// What an autoscaler did; absent where there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(default)]
    pub scaling: Option<Scaling>,
    /// How latencies are spread, where several runs are set side by side.
    #[serde(skip)]
    pub distributions: Option<Distributions>,
}

/// Takes in outcomes one by one and ends in a summary, which does not depend on their order. Its size does not
/// grow with their number beyond [`EXACT_UP_TO`](super::quantile::EXACT_UP_TO).
#[derive(Clone, Debug, Default)]
pub struct Collector {
    counted: Range<Time>,
    objectives: Objectives,
    warmup_requests: u64,
    cooldown_requests: u64,
    offered: u64,
    completed: u64,
    rejected: u64,
    aborted: u64,
    lost: u64,
    timed_out: u64,
    unfinished: u64,
    good: u64,
    first_sent: Option<Time>,
    last_sent: Time,
    last_done: Time,
    output_tokens: u64,
    /// Of whole answers.
    prompt_tokens: u64,
    ttft: Sample,
    engine_ttft: Sample,
    tpot: Sample,
    e2e: Sample,
    hits: HitRate,
    crowd: Crowd,
    classes: Vec<ClassTally>,
    keeps_distributions: bool,
    /// Requests and hits by replica, those of the warm-up too.
    replicas: Vec<(u64, HitRate)>,
}

impl Collector {
    /// Requests so far whose replica died.
    pub fn lost(&self) -> u64 {
        self.lost
    }

    /// Requests so far whose client gave up.
    pub fn timed_out(&self) -> u64 {
        self.timed_out
    }

    /// Only requests sent within `counted` are in the figures. Those of `classes`, by their numbers, must meet
    /// what their class must.
    pub fn new(counted: Range<Time>, objectives: Objectives, classes: &[(String, Objectives)]) -> Collector {
        let classes = classes.iter().map(|(name, own)| ClassTally::new(name, *own)).collect();
        Collector { counted, objectives, classes, ..Collector::default() }
    }

    /// The same, which also keeps how latencies are spread.
    pub fn keeping_distributions(self, keeps_distributions: bool) -> Collector {
        Collector { keeps_distributions, ..self }
    }

    /// One more outcome.
    pub fn add(&mut self, outcome: &Outcome) {
        if let Some(replica) = outcome.replica {
            if self.replicas.len() <= replica as usize {
                self.replicas.resize(replica as usize + 1, Default::default());
            }
            let (requests, hits) = &mut self.replicas[replica as usize];
            *requests += 1;
            hits.add(outcome);
        }
        if !self.counted.contains(&outcome.sent) {
            let early = outcome.sent < self.counted.start;
            *if early { &mut self.warmup_requests } else { &mut self.cooldown_requests } += 1;
            return;
        }
        self.offered += 1;
        let kind = match outcome.finish {
            Finish::Stop | Finish::Length => &mut self.completed,
            Finish::Refused | Finish::TooLong | Finish::Unavailable => &mut self.rejected,
            Finish::Aborted => &mut self.aborted,
            Finish::Lost => &mut self.lost,
            Finish::TimedOut => &mut self.timed_out,
            Finish::Unfinished => &mut self.unfinished,
        };
        *kind += 1;
        let good = match self.classes.get_mut(usize::from(outcome.class)) {
            Some(class) => class.add(outcome),
            None => self.objectives.met_by(outcome),
        };
        self.good += u64::from(good);
        self.first_sent = Some(self.first_sent.map_or(outcome.sent, |first| first.min(outcome.sent)));
        self.last_sent = self.last_sent.max(outcome.sent);
        self.last_done = self.last_done.max(outcome.done_received);
        self.output_tokens += u64::from(outcome.output_tokens());
        if outcome.finish.is_complete() {
            self.prompt_tokens += u64::from(outcome.prompt_tokens);
            let samples = [
                (&mut self.ttft, outcome.ttft()),
                (&mut self.engine_ttft, outcome.engine_ttft()),
                (&mut self.tpot, outcome.tpot()),
                (&mut self.e2e, outcome.e2e()),
            ];
            for (sample, value) in samples {
                if let Some(value) = value {
                    sample.add(value);
                }
            }
        }
        self.hits.add(outcome);
        self.crowd.add(outcome.sent, outcome.done_received);
    }

    /// The run in numbers, given each replica's kind, observer and last gauges.
    pub fn summarise(mut self, lanes: &[(String, &LaneStats, Signals)], ended: Time) -> RunSummary {
        let (offered, completed) = (self.offered, self.completed);
        let first_sent = self.first_sent.unwrap_or_default();
        let span_s = self.last_done.saturating_since(first_sent).as_s();
        let rate = |amount: u64| if span_s > 0.0 { amount as f64 / span_s } else { 0.0 };
        let sending_s = self.last_sent.saturating_since(first_sent).as_s();
        let mut gaps = Histogram::default();
        let mut batch_time: Vec<Span> = Vec::new();
        for (_, stats, _) in lanes {
            gaps.merge(&stats.token_gaps);
            if batch_time.len() < stats.batch_time().len() {
                batch_time.resize(stats.batch_time().len(), Span::ZERO);
            }
            for (sum, time) in batch_time.iter_mut().zip(stats.batch_time()) {
                *sum += *time;
            }
        }
        let distributions = self.keeps_distributions.then(|| Distributions {
            e2e: self.e2e.distribution(offered - completed),
            ttft: self.ttft.distribution(0),
            tpot: self.tpot.distribution(0),
        });
        let busy_s: f64 = lanes.iter().map(|(_, stats, _)| stats.busy.as_s()).sum();
        let all_s: f64 = lanes.iter().map(|(_, stats, _)| lived_s(stats, ended)).sum();
        let weighted_usage = |(_, stats, signals): &(String, &LaneStats, Signals)| {
            stats.mean_kv_blocks() / f64::from(signals.kv_blocks_usable.max(1)) * stats.busy.as_s()
        };
        RunSummary {
            offered,
            completed,
            rejected: self.rejected,
            aborted: self.aborted,
            unfinished: self.unfinished,
            warmup_requests: self.warmup_requests,
            cooldown_requests: self.cooldown_requests,
            span_s,
            offered_requests_per_s: if sending_s > 0.0 { (offered - 1) as f64 / sending_s } else { 0.0 },
            requests_per_s: rate(completed),
            output_tokens_per_s: rate(self.output_tokens),
            total_tokens_per_s: rate(self.output_tokens + self.prompt_tokens),
            goodput_requests_per_s: rate(self.good),
            goodput_share: if offered > 0 { self.good as f64 / offered as f64 } else { 0.0 },
            ttft: self.ttft.quantiles(),
            engine_ttft: self.engine_ttft.quantiles(),
            tpot: self.tpot.quantiles(),
            ttft_p99_of_offered_ms: self.ttft.percentile_with_lost_ms(offered - completed, 99.0),
            e2e_p99_of_offered_ms: self.e2e.percentile_with_lost_ms(offered - completed, 99.0),
            e2e: self.e2e.quantiles(),
            sketched: self.e2e.is_sketched(),
            itl_p50_ms: gaps.percentile(50.0).map(Span::as_ms),
            itl_p99_ms: gaps.percentile(99.0).map(Span::as_ms),
            preemptions: lanes.iter().map(|(_, _, signals)| signals.preemptions).sum(),
            prefix_cache_hit_rate: self.hits.rate(),
            busy_share: if all_s > 0.0 { busy_s / all_s } else { 0.0 },
            median_batch: median_batch(&batch_time),
            kv_cache_usage: if busy_s > 0.0 {
                lanes.iter().map(weighted_usage).sum::<f64>() / busy_s
            } else {
                0.0
            },
            queue_growth: self.crowd.growth(first_sent, self.last_sent),
            steps: lanes.iter().map(|(_, stats, _)| stats.steps).sum(),
            classes: std::mem::take(&mut self.classes).into_iter().map(ClassTally::summarise).collect(),
            replicas: self.by_replica(lanes, ended),
            bad_day: None,
            cost: None,
            scaling: None,
            distributions,
        }
    }

    fn by_replica(&mut self, lanes: &[(String, &LaneStats, Signals)], ended: Time) -> Vec<ReplicaSummary> {
        self.replicas.resize(lanes.len(), Default::default());
        let summarise = |((kind, stats, signals), (requests, hits)): (
            &(String, &LaneStats, Signals),
            &(u64, HitRate),
        )| {
            let usable = f64::from(signals.kv_blocks_usable.max(1));
            let most = stats.timeline().iter().map(|point| point.kv_blocks_used).max().unwrap_or(0);
            ReplicaSummary {
                kind: kind.clone(),
                requests: *requests,
                steps: stats.steps,
                busy_share: if stats.busy > Span::ZERO {
                    stats.busy.as_s() / lived_s(stats, ended)
                } else {
                    0.0
                },
                median_batch: stats.median_batch(),
                kv_cache_usage: stats.mean_kv_blocks() / usable,
                kv_cache_usage_max: f64::from(most) / usable,
                preemptions: signals.preemptions,
                prefix_cache_hit_rate: hits.rate(),
                timeline_interval_s: stats.timeline_interval().as_s(),
                timeline: stats.timeline().to_vec(),
                kv_blocks_usable: signals.kv_blocks_usable,
            }
        };
        lanes.iter().zip(&self.replicas).map(summarise).collect()
    }
}

/// How long a replica lived: to the end of the run, or of a step that was still under way then.
fn lived_s(stats: &LaneStats, ended: Time) -> f64 {
    ended.max(stats.last_end).as_s()
}

/// Cached over all prompt tokens of the requests that an engine admitted.
#[derive(Clone, Copy, Debug, Default)]
struct HitRate {
    cached: u64,
    all: u64,
}

impl HitRate {
    fn add(&mut self, outcome: &Outcome) {
        if let Some(engine) = outcome.engine.as_ref().filter(|engine| engine.scheduled.is_some()) {
            self.cached += u64::from(engine.cached_tokens);
            self.all += u64::from(outcome.prompt_tokens);
        }
    }

    fn rate(self) -> f64 {
        if self.all == 0 { 0.0 } else { self.cached as f64 / self.all as f64 }
    }
}
