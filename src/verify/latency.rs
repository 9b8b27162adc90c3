//! `verify latency`: replays a measured run and compares what its requests waited.
//!
//! Every request is sent when it was really sent; what the replay makes of it is its own. A run that a client alone
//! recorded also has the way between client and engine ([`Way`]). Definitions: TTFT is first
//! token - queued (seen by the engine) or - sent (seen by a client), E2E is last token - the same start, TPOT is (last
//! token - first token) / (output tokens - 1).

use super::front_end::FrontEnd;
use super::measured::{MeasuredRequest, MeasuredRun};
use super::server::Server;
use crate::metrics::quantile::{Quantiles, Sample};
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

/// What lies between a client and the engine.
#[derive(Clone, Copy, Debug, PartialEq, Default)]
pub struct Way {
    /// The API server, from the request's arrival to the engine: HTTP, tokenizer, messages.
    pub front_end: Span,
    /// The network, there and back.
    pub network: Span,
    /// The API server for each token on the way back.
    pub per_token: Span,
}

impl Way {
    /// Of a server on the client's own machine, by published figures: the front end takes 5 to 7 ms, a token 46
    /// microseconds (`BLIS`, a regression on H100 traces).
    pub const LOCAL: Way =
        Way { front_end: Span::from_ms(6), network: Span::ZERO, per_token: Span::from_us(46) };
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
    /// The engine's side of every request in the replay, with the rank that served it, in the run's order.
    pub outcomes: Vec<(usize, EngineOutcome)>,
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
        figures(&self.real, &self.simulated)
    }
}

/// All figures that both sides have.
pub(super) fn figures(real: &Latencies, simulated: &Latencies) -> Vec<Figure> {
    let metrics = [
        ("TTFT", &real.ttft, &simulated.ttft),
        ("TPOT", &real.tpot, &simulated.tpot),
        ("E2E", &real.e2e, &simulated.e2e),
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

/// The three latencies of one request.
#[derive(Clone, Copy, Debug)]
pub struct Waits {
    /// To its first token.
    pub ttft: Span,
    /// For each token after it; none where there was one token only.
    pub tpot: Option<Span>,
    /// To its last token.
    pub e2e: Span,
}

pub(super) fn latencies(waits: impl Iterator<Item = Waits>) -> Latencies {
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

/// What the requests of `run` wait on `server`, each with what it really waited; none for one that never ends.
pub fn waits(run: &MeasuredRun, server: &Server, way: Way) -> Vec<Option<(Waits, Waits)>> {
    let outcomes = outcomes(run, server, way);
    let start_s = start_s(run);
    let pairs = outcomes.iter().zip(&run.requests);
    pairs
        .map(|((_, outcome), request)| Some((measured(request), simulated(start_s, request, outcome, way)?)))
        .collect()
}

/// Replays `run` on `server`, over `way` where a client recorded it.
pub fn replay(run: &MeasuredRun, server: &Server, way: Way) -> Verdict {
    let outcomes = outcomes(run, server, way);
    let preemptions = outcomes.iter().map(|(_, outcome)| u64::from(outcome.preemptions)).sum();
    let start_s = start_s(run);
    let pairs = outcomes.iter().zip(&run.requests);
    let simulated =
        latencies(pairs.filter_map(|((_, outcome), request)| simulated(start_s, request, outcome, way)));
    let real = latencies(run.requests.iter().map(measured));
    Verdict { real, simulated, preemptions, outcomes }
}

fn start_s(run: &MeasuredRun) -> f64 {
    run.requests.iter().map(MeasuredRequest::sent_s).fold(f64::INFINITY, f64::min)
}

fn sent(start_s: f64, request: &MeasuredRequest) -> Time {
    Time::ZERO + Span::from_s_f64(request.sent_s() - start_s)
}

fn outcomes(run: &MeasuredRun, server: &Server, way: Way) -> Vec<(usize, EngineOutcome)> {
    let way = if run.seen_by_engine() { Way::default() } else { way };
    let there = way.front_end + way.network.scale(1, 2);
    let mut front_end = FrontEnd::new(server);
    let start_s = start_s(run);
    for (index, request) in run.requests.iter().enumerate() {
        let at = sent(start_s, request) + there;
        let request_sent = Request {
            id: RequestId(index as u32),
            prompt_tokens: request.prompt_tokens,
            output_tokens: request.output_tokens,
            max_tokens: Some(request.output_tokens),
            priority: 0,
            attempt: 0,
            arrival_order: at.as_ps(),
            content: content(request, server.engine.block_size),
            remote_tokens: 0,
        };
        front_end.send(at, request.rank, request_sent);
    }
    front_end.finish()
}

fn simulated(start_s: f64, request: &MeasuredRequest, outcome: &EngineOutcome, way: Way) -> Option<Waits> {
    let (way, start) = match request.queued_s {
        Some(_) => (Way::default(), outcome.queued),
        None => (way, sent(start_s, request)),
    };
    let first = outcome.first_token? + way.network.scale(1, 2);
    let gaps = u64::from(outcome.output_tokens) - 1;
    let last = outcome.done + way.network.scale(1, 2) + way.per_token * gaps;
    Some(Waits {
        ttft: first - start,
        tpot: (gaps > 0).then(|| (last - first).scale(1, gaps)),
        e2e: last - start,
    })
}

/// What a request really waited.
pub fn measured(request: &MeasuredRequest) -> Waits {
    let start_s = request.queued_s.unwrap_or_else(|| request.sent_s());
    let gaps = f64::from(request.output_tokens) - 1.0;
    let decode_s = request.last_token_s - request.first_token_s;
    Waits {
        ttft: Span::from_s_f64(request.first_token_s - start_s),
        tpot: (gaps > 0.0).then(|| Span::from_s_f64(decode_s / gaps)),
        e2e: Span::from_s_f64(request.last_token_s - start_s),
    }
}
