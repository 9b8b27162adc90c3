//! One run in numbers.

use serde::Serialize;

use super::lane::{LaneStats, median_batch};
use super::quantile::{Quantiles, percentile_with_lost_ms};
use super::{Histogram, TimelinePoint};
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
#[derive(Clone, Debug, PartialEq, Serialize)]
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
#[derive(Clone, Debug, PartialEq, Serialize)]
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
    /// E2E P99 of all offered requests, those without a whole answer counting as infinite (none).
    pub e2e_p99_of_offered_ms: Option<f64>,
    /// Median gap between two tokens of a request, warm-up included, to 1 part in 256.
    pub itl_p50_ms: Option<f64>,
    /// 99th percentile of the same.
    pub itl_p99_ms: Option<f64>,
    /// Requests that lost their blocks, counted each time, warm-up included.
    pub preemptions: u64,
    /// Prompt tokens found in a prefix cache over prompt tokens of admitted requests.
    pub prefix_cache_hit_rate: f64,
    /// Share of the replicas' time in which their GPUs worked.
    pub busy_share: f64,
    /// Running list that half of the GPUs' time was at or below.
    pub median_batch: u32,
    /// Mean share of usable blocks in use while GPUs worked.
    pub kv_cache_usage: f64,
    /// Mean requests in the system in the last quarter of the sending time over that in the second.
    pub queue_growth: f64,
    /// Engine steps of all replicas.
    pub steps: u64,
    /// By replica.
    pub replicas: Vec<ReplicaSummary>,
}

/// Takes in outcomes and ends in a summary.
#[derive(Clone, Debug, Default)]
pub struct Collector {
    warmup_until: Time,
    objectives: Objectives,
    outcomes: Vec<Outcome>,
}

impl Collector {
    /// Requests sent before `warmup_until` are left out of all figures.
    pub fn new(warmup_until: Time, objectives: Objectives) -> Collector {
        Collector { warmup_until, objectives, outcomes: Vec::new() }
    }

    /// One more outcome.
    pub fn add(&mut self, outcome: Outcome) {
        self.outcomes.push(outcome);
    }

    /// All outcomes, in order of request.
    pub fn into_outcomes(mut self) -> Vec<Outcome> {
        self.outcomes.sort_by_key(|outcome| outcome.attempt);
        self.outcomes
    }

    /// The run in numbers, given each replica's kind, observer and last gauges.
    pub fn summarise(&self, lanes: &[(String, &LaneStats, Signals)], ended: Time) -> RunSummary {
        let counted: Vec<&Outcome> =
            self.outcomes.iter().filter(|outcome| outcome.sent >= self.warmup_until).collect();
        let count = |finishes: &[Finish]| {
            counted.iter().filter(|outcome| finishes.contains(&outcome.finish)).count() as u64
        };
        let spans = |of: fn(&Outcome) -> Option<Span>| -> Vec<Span> {
            counted.iter().filter(|outcome| outcome.finish.is_complete()).filter_map(|o| of(o)).collect()
        };
        let offered = counted.len() as u64;
        let completed = count(&[Finish::Stop, Finish::Length]);
        let first_sent = counted.iter().map(|outcome| outcome.sent).min().unwrap_or_default();
        let last_sent = counted.iter().map(|outcome| outcome.sent).max().unwrap_or_default();
        let last_done = counted.iter().map(|outcome| outcome.done_received).max();
        let span_s = last_done.unwrap_or_default().saturating_since(first_sent).as_s();
        let rate = |amount: u64| if span_s > 0.0 { amount as f64 / span_s } else { 0.0 };
        let sending_s = last_sent.saturating_since(first_sent).as_s();
        let output_tokens: u64 = counted.iter().map(|outcome| u64::from(outcome.output_tokens())).sum();
        let prompt_tokens: u64 = counted
            .iter()
            .filter(|outcome| outcome.finish.is_complete())
            .map(|outcome| u64::from(outcome.prompt_tokens))
            .sum();
        let good = counted.iter().filter(|outcome| self.objectives.met_by(outcome)).count() as u64;
        let mut e2e = spans(Outcome::e2e);
        let e2e_quantiles = Quantiles::of(&mut e2e);
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
        let busy_s: f64 = lanes.iter().map(|(_, stats, _)| stats.busy.as_s()).sum();
        let all_s: f64 = lanes.iter().map(|(_, stats, _)| lived_s(stats, ended)).sum();
        let weighted_usage = |(_, stats, signals): &(String, &LaneStats, Signals)| {
            stats.mean_kv_blocks() / f64::from(signals.kv_blocks_usable.max(1)) * stats.busy.as_s()
        };
        RunSummary {
            offered,
            completed,
            rejected: count(&[Finish::Refused, Finish::TooLong]),
            aborted: count(&[Finish::Aborted]),
            unfinished: count(&[Finish::Unfinished]),
            warmup_requests: self.outcomes.len() as u64 - offered,
            span_s,
            offered_requests_per_s: if sending_s > 0.0 { (offered - 1) as f64 / sending_s } else { 0.0 },
            requests_per_s: rate(completed),
            output_tokens_per_s: rate(output_tokens),
            total_tokens_per_s: rate(output_tokens + prompt_tokens),
            goodput_requests_per_s: rate(good),
            goodput_share: if offered > 0 { good as f64 / offered as f64 } else { 0.0 },
            ttft: Quantiles::of(&mut spans(Outcome::ttft)),
            engine_ttft: Quantiles::of(&mut spans(Outcome::engine_ttft)),
            tpot: Quantiles::of(&mut spans(Outcome::tpot)),
            e2e_p99_of_offered_ms: percentile_with_lost_ms(&e2e, offered - completed, 99.0),
            e2e: e2e_quantiles,
            itl_p50_ms: gaps.percentile(50.0).map(Span::as_ms),
            itl_p99_ms: gaps.percentile(99.0).map(Span::as_ms),
            preemptions: lanes.iter().map(|(_, _, signals)| signals.preemptions).sum(),
            prefix_cache_hit_rate: hit_rate(counted.iter().copied()),
            busy_share: if all_s > 0.0 { busy_s / all_s } else { 0.0 },
            median_batch: median_batch(&batch_time),
            kv_cache_usage: if busy_s > 0.0 {
                lanes.iter().map(weighted_usage).sum::<f64>() / busy_s
            } else {
                0.0
            },
            queue_growth: queue_growth(&counted, first_sent, last_sent),
            steps: lanes.iter().map(|(_, stats, _)| stats.steps).sum(),
            replicas: self.by_replica(lanes, ended),
        }
    }

    fn by_replica(&self, lanes: &[(String, &LaneStats, Signals)], ended: Time) -> Vec<ReplicaSummary> {
        let mut sent_there = vec![Vec::new(); lanes.len()];
        for outcome in &self.outcomes {
            if let Some(replica) = outcome.replica {
                sent_there[replica as usize].push(outcome);
            }
        }
        let summarise = |((kind, stats, signals), sent): (&(String, &LaneStats, Signals), Vec<&Outcome>)| {
            let usable = f64::from(signals.kv_blocks_usable.max(1));
            let most = stats.timeline().iter().map(|point| point.kv_blocks_used).max().unwrap_or(0);
            ReplicaSummary {
                kind: kind.clone(),
                requests: sent.len() as u64,
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
                prefix_cache_hit_rate: hit_rate(sent.into_iter()),
                timeline_interval_s: stats.timeline_interval().as_s(),
                timeline: stats.timeline().to_vec(),
                kv_blocks_usable: signals.kv_blocks_usable,
            }
        };
        lanes.iter().zip(sent_there).map(summarise).collect()
    }
}

/// How long a replica lived: to the end of the run, or of a step that was still under way then.
fn lived_s(stats: &LaneStats, ended: Time) -> f64 {
    ended.max(stats.last_end).as_s()
}

/// Cached over all prompt tokens of the requests that an engine admitted.
fn hit_rate<'a>(outcomes: impl Iterator<Item = &'a Outcome>) -> f64 {
    let (mut cached, mut all) = (0u64, 0u64);
    for outcome in outcomes {
        if let Some(engine) = outcome.engine.as_ref().filter(|engine| engine.scheduled.is_some()) {
            cached += u64::from(engine.cached_tokens);
            all += u64::from(outcome.prompt_tokens);
        }
    }
    if all == 0 { 0.0 } else { cached as f64 / all as f64 }
}

/// Mean requests in the system in the last quarter of the sending time over that in the second quarter.
/// Well above 1, the queue grows as long as requests come; 1 where there is nothing to compare.
fn queue_growth(outcomes: &[&Outcome], first_sent: Time, last_sent: Time) -> f64 {
    let quarter = (last_sent.as_ps() - first_sent.as_ps()) / 4;
    let inside = |from: u64, to: u64| -> u128 {
        let overlap = |outcome: &&Outcome| {
            let (sent, done) = (outcome.sent.as_ps().max(from), outcome.done_received.as_ps().min(to));
            u128::from(done.saturating_sub(sent))
        };
        outcomes.iter().map(overlap).sum()
    };
    let start = first_sent.as_ps();
    let early = inside(start + quarter, start + 2 * quarter);
    let late = inside(start + 3 * quarter, start + 4 * quarter);
    if early == 0 { 1.0 } else { late as f64 / early as f64 }
}
