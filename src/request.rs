//! A request, in the three forms in which anybody may know it.
//!
//! [`Arrival`] is what a router sees, [`Request`] what a replica is given (it alone holds the true output
//! length), [`Outcome`] what became of it. Content is known by identity only: no text, no token ids.

use std::sync::Arc;

use crate::time::{Span, Time};

/// Number of a request in its run, in order of sending; below 2^31.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct RequestId(pub u32);

/// The bit that a second copy's number has set.
const HEDGE: u32 = 1 << 31;

impl RequestId {
    /// The number under which engines and policies know a second copy of this request.
    pub const fn hedge(self) -> RequestId {
        RequestId(self.0 | HEDGE)
    }

    /// Whether it is that of a second copy.
    pub const fn is_hedge(self) -> bool {
        self.0 & HEDGE != 0
    }

    /// The number of the request itself, whichever copy this is.
    pub const fn original(self) -> RequestId {
        RequestId(self.0 & !HEDGE)
    }
}

/// A stretch of identified tokens: positions `position .. position + tokens` of stream `stream`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ContentRun {
    /// Identity of the text these tokens are part of; below 2^63 shared by all requests that name it.
    pub stream: u64,
    /// First token of the stretch within the stream.
    pub position: u32,
    /// Length of the stretch.
    pub tokens: u32,
}

/// Identities of a request's leading tokens, as runs.
///
/// Two requests hold the same first n tokens exactly when their runs, cut at n, are equal. Each engine
/// derives keys at its own block size. Tokens past the end of the runs are private to the request; so are
/// outputs, unless the runs reach past the prompt.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Default)]
pub struct Content {
    /// None where nothing is identified, so that such requests are copied without touching a shared count.
    runs: Option<Arc<[ContentRun]>>,
}

/// Streams from here on belong to one request each.
const PRIVATE_STREAMS: u64 = 1 << 63;

impl Content {
    /// Content from runs in order; neighbours that continue each other are joined, empty ones dropped.
    ///
    /// # Panics
    /// If a stream lies in the private half (at or above 2^63).
    pub fn from_runs(runs: impl IntoIterator<Item = ContentRun>) -> Content {
        let runs = runs.into_iter();
        let mut joined: Vec<ContentRun> = Vec::with_capacity(runs.size_hint().0);
        for run in runs {
            assert!(run.stream < PRIVATE_STREAMS, "stream {} is in the private half", run.stream);
            match joined.last_mut() {
                _ if run.tokens == 0 => {}
                Some(last) if last.stream == run.stream && last.position + last.tokens == run.position => {
                    last.tokens += run.tokens;
                }
                _ => joined.push(run),
            }
        }
        Content { runs: (!joined.is_empty()).then(|| joined.into()) }
    }

    /// The runs, in token order.
    pub fn runs(&self) -> &[ContentRun] {
        self.runs.as_deref().unwrap_or_default()
    }

    /// Tokens that carry an identity.
    pub fn tokens(&self) -> u32 {
        self.runs().iter().map(|run| run.tokens).sum()
    }

    /// The first `tokens` tokens only.
    pub fn truncated(&self, tokens: u32) -> Content {
        if self.tokens() <= tokens {
            return self.clone();
        }
        let mut left = tokens;
        Content::from_runs(self.runs().iter().map(|run| {
            let kept = run.tokens.min(left);
            left -= kept;
            ContentRun { tokens: kept, ..*run }
        }))
    }

    /// The stream that holds the unidentified tokens of `request`.
    pub const fn private_stream(request: RequestId) -> u64 {
        PRIVATE_STREAMS | request.0 as u64
    }
}

/// What a router may see of a request. Never its true output length.
#[derive(Clone, Debug)]
pub struct Arrival {
    /// Which request.
    pub id: RequestId,
    /// When the client sends it.
    pub sent: Time,
    /// Prompt length.
    pub prompt_tokens: u32,
    /// Identities, cut at the prompt's end.
    pub content: Content,
    /// The conversation it belongs to, where the trace says.
    pub session: Option<u64>,
    /// Its tenant or level of service, by number.
    pub class: u16,
    /// The limit the client set; absent unless the trace states it.
    pub max_tokens: Option<u32>,
    /// Lower is more urgent.
    pub priority: i32,
    /// Expected output length, where the scenario grants a predictor.
    pub predicted_output_tokens: Option<u32>,
}

/// A request as a replica is given it.
#[derive(Clone, Debug)]
pub struct Request {
    /// Which request.
    pub id: RequestId,
    /// Which try at it this is, from 0.
    pub attempt: u32,
    /// Prompt length, at least 1.
    pub prompt_tokens: u32,
    /// Tokens it will produce, at least 1, unless a limit ends it first.
    pub output_tokens: u32,
    /// The limit the client set. Absent: the request ends by a stop token, which no scheduler foresees.
    pub max_tokens: Option<u32>,
    /// Lower is more urgent.
    pub priority: i32,
    /// Orders equal priorities: the front end's clock when the request came in.
    pub arrival_order: u64,
    /// Identities; may reach past the prompt where the recording knows the outputs' identities too.
    pub content: Content,
    /// Leading prompt tokens whose KV another server holds ready (KV connector), usually 0.
    pub remote_tokens: u32,
}

/// One try at a request. Conservation counts requests, outcomes are of attempts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Attempt {
    /// Which request.
    pub request: RequestId,
    /// 0 for the first try.
    pub number: u32,
}

/// How an attempt ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Finish {
    /// By a stop token.
    Stop,
    /// By `max_tokens` or `max_model_len`.
    Length,
    /// Taken back by the client.
    Aborted,
    /// Refused by the gateway's policy.
    Refused,
    /// No replica could be chosen: the gateway answers 503.
    Unavailable,
    /// Its replica died, or could not be reached.
    Lost,
    /// Its client waited too long.
    TimedOut,
    /// Refused by the server: an empty prompt, or one that does not fit `max_model_len`.
    TooLong,
    /// Still under way when the run ended.
    Unfinished,
}

impl Finish {
    /// Whether the client got a whole answer.
    pub const fn is_complete(self) -> bool {
        matches!(self, Finish::Stop | Finish::Length)
    }

    /// The name in tables and files.
    pub const fn name(self) -> &'static str {
        match self {
            Finish::Stop => "stop",
            Finish::Length => "length",
            Finish::Aborted => "aborted",
            Finish::Refused => "refused",
            Finish::Unavailable => "unavailable",
            Finish::Lost => "lost",
            Finish::TimedOut => "timed-out",
            Finish::TooLong => "too-long",
            Finish::Unfinished => "unfinished",
        }
    }
}

/// Running integrals of one replica's time. The parts of a request's latency are differences of two
/// snapshots, so they sum exactly to the time between them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Ledger {
    /// Time in steps of decodes alone.
    pub decode: Span,
    /// Time in steps that carried a prefill chunk.
    pub prefill: Span,
    /// Time without a request to work on. Host time counts with the step it prepares.
    pub idle: Span,
}

impl Ledger {
    /// All time so far.
    pub fn total(&self) -> Span {
        self.decode + self.prefill + self.idle
    }

    /// What passed since `earlier`.
    pub fn since(&self, earlier: &Ledger) -> Ledger {
        Ledger {
            decode: self.decode - earlier.decode,
            prefill: self.prefill - earlier.prefill,
            idle: self.idle - earlier.idle,
        }
    }
}

/// What a replica knows of an attempt it has ended. Moments are of the engine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EngineOutcome {
    /// Which request.
    pub id: RequestId,
    /// Which try at it.
    pub attempt: u32,
    /// When the engine took it in: at the schedule() call after its delivery, as vLLM's own QUEUED event.
    pub queued: Time,
    /// When it was first scheduled; absent if it never was.
    pub scheduled: Option<Time>,
    /// When its first token came out.
    pub first_token: Option<Time>,
    /// When it ended.
    pub done: Time,
    /// Tokens that came out.
    pub output_tokens: u32,
    /// Prompt tokens found in the prefix cache at its first admission.
    pub cached_tokens: u32,
    /// Times it lost its blocks.
    pub preemptions: u32,
    /// From first token to end, by what the replica was doing.
    pub decode_parts: Ledger,
    /// How it ended.
    pub finish: Finish,
}

impl EngineOutcome {
    /// Of a request that no scheduler ever had: turned away, or lost, at `at`.
    pub fn turned_away(request: &Request, at: Time, finish: Finish) -> EngineOutcome {
        EngineOutcome {
            id: request.id,
            attempt: request.attempt,
            queued: at,
            scheduled: None,
            first_token: None,
            done: at,
            output_tokens: 0,
            cached_tokens: 0,
            preemptions: 0,
            decode_parts: Ledger::default(),
            finish,
        }
    }
}

/// The way of an attempt that was not the plain one: not the first, a second copy, or on a network that was not as usual.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Detour {
    /// When it set out from its client, or would have, where its gateway sent it once more.
    pub set_out: Time,
    /// When it left its gateway.
    pub left: Time,
}

/// What became of an attempt, as its client saw it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// Which try at which request.
    pub attempt: Attempt,
    /// The replica that served it; absent if none did.
    pub replica: Option<u32>,
    /// Its tenant or level of service, by number.
    pub class: u16,
    /// When the client sent it.
    pub sent: Time,
    /// Prompt length.
    pub prompt_tokens: u32,
    /// When the replica's front end got it.
    pub arrived: Option<Time>,
    /// When its first token reached the client.
    pub first_token_received: Option<Time>,
    /// When its end reached the client.
    pub done_received: Time,
    /// The engine's side; absent if it never reached one.
    pub engine: Option<EngineOutcome>,
    /// How it ended.
    pub finish: Finish,
    /// Its way to a replica, where that was not the plain one.
    pub detour: Option<Box<Detour>>,
}

impl Outcome {
    /// Tokens that came out.
    pub fn output_tokens(&self) -> u32 {
        self.engine.as_ref().map_or(0, |engine| engine.output_tokens)
    }

    /// Law 3: sent <= arrived <= scheduled <= first token <= done.
    pub fn is_causal(&self) -> bool {
        let engine = self.engine.as_ref();
        let moments = [
            Some(self.sent),
            self.arrived,
            engine.map(|engine| engine.queued),
            engine.and_then(|engine| engine.scheduled),
            engine.and_then(|engine| engine.first_token),
            engine.map(|engine| engine.done),
            Some(self.done_received),
        ];
        moments.into_iter().flatten().is_sorted()
    }

    /// Time to first token, from the client's send to its first token.
    pub fn ttft(&self) -> Option<Span> {
        self.first_token_received.map(|at| at - self.sent)
    }

    /// What `vllm:time_to_first_token_seconds` would show: from the front end to the engine's first token.
    pub fn engine_ttft(&self) -> Option<Span> {
        Some(self.engine.as_ref()?.first_token? - self.arrived?)
    }

    /// End to end: from the client's send to its last token; absent unless the answer is whole.
    pub fn e2e(&self) -> Option<Span> {
        self.finish.is_complete().then(|| self.done_received - self.sent)
    }

    /// Time per output token after the first: (E2E - TTFT) / (output - 1); absent for one token.
    pub fn tpot(&self) -> Option<Span> {
        let gaps = u64::from(self.output_tokens().checked_sub(1)?);
        (gaps > 0).then_some(())?;
        Some((self.e2e()? - self.ttft()?).scale(1, gaps))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(stream: u64, position: u32, tokens: u32) -> ContentRun {
        ContentRun { stream, position, tokens }
    }

    #[test]
    fn neighbours_join() {
        let whole = Content::from_runs([run(7, 0, 32)]);
        let parts = Content::from_runs([run(7, 0, 16), run(9, 0, 0), run(7, 16, 16)]);
        assert_eq!(whole, parts);
        assert_eq!(whole.truncated(20), Content::from_runs([run(7, 0, 20)]));
    }

    #[test]
    fn equal_until_they_part() {
        let a = Content::from_runs([run(1, 0, 100), run(2, 0, 50)]);
        let b = Content::from_runs([run(1, 0, 100), run(3, 0, 50)]);
        assert_eq!(a.truncated(100), b.truncated(100));
        assert_ne!(a.truncated(101), b.truncated(101));
    }
}
