//! `verify latency`: replays a measured run and compares what its requests waited.
//!
//! Every request is sent when it was really sent; what the replay makes of it is its own. Definitions: TTFT is first
//! token - queued (seen by the engine) or - sent (seen by a client), E2E is last token - the same start, TPOT is (last
//! token - first token) / (output tokens - 1).

use std::sync::Arc;

use super::measured::{MeasuredRequest, MeasuredRun};
use super::server::Server;
use crate::metrics::quantile::{Quantiles, Sample};
use crate::observe::Silence;
use crate::replica::{EngineEvent, Input, Limit, Replica};
use crate::request::{Content, ContentRun, EngineOutcome, Request, RequestId};
use crate::time::{Span, Time};

/// TTFT, TPOT and E2E.
#[derive(Clone, Copy, Debug, PartialEq, Default)]
pub struct Latencies {
    /// Time to first token.
    pub ttft: Quantiles,
    /// Time per output token after the first.
    pub tpot: Quantiles,
    /// End to end.
    pub e2e: Quantiles,
}

/// A measured run beside its replay.
#[derive(Clone, Debug)]
pub struct Verdict {
    /// As measured.
    pub real: Latencies,
    /// As replayed.
    pub simulated: Latencies,
    /// Preemptions in the replay.
    pub preemptions: u64,
    /// The engine's side of every request in the replay, in the run's order.
    pub outcomes: Vec<EngineOutcome>,
}

/// One figure of the comparison.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Figure {
    /// `TTFT`, `TPOT` or `E2E`.
    pub metric: &'static str,
    /// `mean`, `P50`, ...
    pub statistic: &'static str,
    /// Milliseconds as measured.
    pub real_ms: f64,
    /// Milliseconds as replayed.
    pub simulated_ms: f64,
}

impl Figure {
    /// Simulated over real, less one.
    pub fn error(&self) -> f64 {
        self.simulated_ms / self.real_ms - 1.0
    }
}

impl Verdict {
    /// All figures that both sides have.
    pub fn figures(&self) -> Vec<Figure> {
        let metrics = [
            ("TTFT", &self.real.ttft, &self.simulated.ttft),
            ("TPOT", &self.real.tpot, &self.simulated.tpot),
            ("E2E", &self.real.e2e, &self.simulated.e2e),
        ];
        let mut figures = Vec::new();
        for (metric, real, simulated) in metrics {
            let statistics = |of: &Quantiles| [of.mean_ms, of.p50_ms, of.p90_ms, of.p95_ms, of.p99_ms];
            let names = ["mean", "P50", "P90", "P95", "P99"];
            for ((statistic, real), simulated) in
                names.into_iter().zip(statistics(real)).zip(statistics(simulated))
            {
                if let (Some(real_ms), Some(simulated_ms)) = (real, simulated) {
                    figures.push(Figure { metric, statistic, real_ms, simulated_ms });
                }
            }
        }
        figures
    }
}

/// The three latencies of one request.
#[derive(Clone, Copy, Debug)]
struct Waits {
    ttft: Span,
    tpot: Option<Span>,
    e2e: Span,
}

fn latencies(waits: impl Iterator<Item = Waits>) -> Latencies {
    let (mut ttft, mut tpot, mut e2e) = (Sample::default(), Sample::default(), Sample::default());
    for wait in waits {
        ttft.add(wait.ttft);
        e2e.add(wait.e2e);
        if let Some(gap) = wait.tpot {
            tpot.add(gap);
        }
    }
    Latencies { ttft: ttft.quantiles(), tpot: tpot.quantiles(), e2e: e2e.quantiles() }
}

/// The tokens of a prompt by the identities of its blocks; a block that is not wholly in the prompt can hit nothing,
/// since the server generated other tokens than the data set's.
fn content(request: &MeasuredRequest, block_size: u32) -> Content {
    let whole = (request.prompt_tokens / block_size) as usize;
    Content::from_runs(request.block_ids.iter().take(whole).map(|id| ContentRun {
        stream: *id,
        position: 0,
        tokens: block_size,
    }))
}

/// Replays `run` on `server`.
pub fn replay(run: &MeasuredRun, server: &Server) -> Verdict {
    let start_s = run.requests.iter().map(MeasuredRequest::sent_s).fold(f64::INFINITY, f64::min);
    let moment = |s: f64| Time::ZERO + Span::from_s_f64(s - start_s);
    let mut replica = Replica::new(server.engine.clone(), Arc::clone(&server.step_time));
    for (index, request) in run.requests.iter().enumerate() {
        let at = moment(request.sent_s());
        replica.deliver(
            at,
            index as u64,
            Input::Add(Request {
                id: RequestId(index as u32),
                prompt_tokens: request.prompt_tokens,
                output_tokens: request.output_tokens,
                max_tokens: Some(request.output_tokens),
                priority: 0,
                arrival_order: at.as_ps(),
                content: content(request, server.engine.block_size),
                remote_tokens: 0,
            }),
        );
    }
    replica.advance(Limit::Time(Time::from_ps(u64::MAX)), &mut Silence);
    let mut outcomes: Vec<EngineOutcome> = replica
        .take_events()
        .filter_map(|event| match event {
            EngineEvent::Ended(outcome) => Some(outcome),
            EngineEvent::FirstToken { .. } => None,
        })
        .collect();
    outcomes.sort_by_key(|outcome| outcome.id);
    let preemptions = outcomes.iter().map(|outcome| u64::from(outcome.preemptions)).sum();
    let simulated = outcomes.iter().filter_map(|outcome| {
        let first = outcome.first_token?;
        let gaps = u64::from(outcome.output_tokens) - 1;
        Some(Waits {
            ttft: first - outcome.queued,
            tpot: (gaps > 0).then(|| (outcome.done - first).scale(1, gaps)),
            e2e: outcome.done - outcome.queued,
        })
    });
    let real = run.requests.iter().map(|request| {
        let start_s = request.queued_s.unwrap_or_else(|| request.sent_s());
        let gaps = f64::from(request.output_tokens) - 1.0;
        let decode_s = request.last_token_s - request.first_token_s;
        Waits {
            ttft: Span::from_s_f64(request.first_token_s - start_s),
            tpot: (gaps > 0.0).then(|| Span::from_s_f64(decode_s / gaps)),
            e2e: Span::from_s_f64(request.last_token_s - start_s),
        }
    });
    let (real, simulated) = (latencies(real), latencies(simulated));
    Verdict { real, simulated, preemptions, outcomes }
}
