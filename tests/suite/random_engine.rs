//! Random engines and requests for the laws: small blocks, tight memory, every switch of the scheduler.

use std::sync::Arc;

use proptest::prelude::*;
use tailcast::random::Seed;
use tailcast::replica::{EngineConfig, Input, Jitter, Path, Replica, SchedulingPolicy, Speculation};
use tailcast::request::{Content, ContentRun, Request, RequestId};
use tailcast::step_time::affine::Affine;
use tailcast::time::{Span, Time};

/// A request with its arrival in microseconds and, for some, the moment of its abort.
#[derive(Clone, Debug)]
pub(crate) struct Offer {
    pub(crate) at_us: u64,
    pub(crate) request: Request,
    pub(crate) abort_us: Option<u64>,
}

/// An engine, its step time and what it is offered.
#[derive(Clone, Debug)]
pub(crate) struct Case {
    pub(crate) engine: EngineConfig,
    pub(crate) step_time: Affine,
    pub(crate) jitter: f64,
    pub(crate) offers: Vec<Offer>,
}

impl Case {
    /// The replica with everything delivered.
    pub(crate) fn replica(&self) -> Replica {
        self.replica_on(Path::Fast)
    }

    /// The same, composing its steps in a given way.
    pub(crate) fn replica_on(&self, path: Path) -> Replica {
        let mut replica = self.empty_replica_on(path);
        self.deliver(&mut replica, Time::ZERO, Time::MAX);
        replica
    }

    /// The same with nothing delivered.
    pub(crate) fn empty_replica_on(&self, path: Path) -> Replica {
        Replica::on_path(self.engine.clone(), Arc::new(self.step_time), path)
            .with_jitter(Jitter::new(self.jitter, Seed(9)))
    }

    /// Delivers what comes at `from` or later, but before `to`.
    pub(crate) fn deliver(&self, replica: &mut Replica, from: Time, to: Time) {
        let mut seq = 0;
        for offer in &self.offers {
            let abort = offer.abort_us.map(|us| (us, Input::Abort(offer.request.id, offer.request.attempt)));
            let add = (offer.at_us, Input::Add(offer.request.clone()));
            for (us, input) in std::iter::once(add).chain(abort) {
                let at = Time::ZERO + Span::from_us(us);
                if at >= from && at < to {
                    replica.deliver(at, seq, input);
                }
                seq += 1;
            }
        }
    }
}

const MAX_MODEL_LEN: u32 = 160;

fn engine() -> impl Strategy<Value = EngineConfig> {
    let pool = prop_oneof![3 => 42u32..160, 1 => 160u32..900];
    let budget = prop_oneof![4 => 1u32..64, 1 => 64u32..2_000];
    let block_size = prop_oneof![1 => Just(1u32), 6 => Just(4), 2 => Just(7), 1 => Just(16)];
    let limits = (pool, budget, 0u32..3, 0u32..24, block_size);
    let switches =
        (any::<[bool; 5]>(), prop_oneof![3 => Just(None), 1 => (1u32..4, any::<bool>()).prop_map(Some)]);
    (limits, switches, 1u32..24).prop_map(
        |((pool, budget, watermark, threshold, block_size), (flags, spec), seqs)| {
            let [caching, reserve, priority, asynchronous, chunked] = flags;
            EngineConfig {
                block_size,
                // Room for the longest sequence, with drafts, whatever a block holds.
                num_gpu_blocks: pool.max(MAX_MODEL_LEN.div_ceil(block_size) + 2),
                max_num_batched_tokens: if chunked { budget.max(seqs) } else { MAX_MODEL_LEN },
                max_num_seqs: seqs,
                max_model_len: MAX_MODEL_LEN,
                enable_prefix_caching: caching,
                enable_chunked_prefill: chunked,
                long_prefill_token_threshold: if threshold < 8 { 0 } else { threshold },
                scheduler_reserve_full_isl: reserve,
                watermark_blocks: watermark,
                scheduling_policy: if priority { SchedulingPolicy::Priority } else { SchedulingPolicy::Fcfs },
                async_scheduling: asynchronous,
                speculation: spec.map(|(k, eagle)| Speculation { num_speculative_tokens: k, eagle }),
                kv_load_delay_steps: 0,
                empty_step_sleep: Span::from_ms(1),
            }
        },
    )
}

fn offer(number: u32) -> impl Strategy<Value = Offer> {
    let lengths = (1u32..120, 1u32..60, prop_oneof![Just(None), (1u32..60).prop_map(Some)]);
    // Some prompts share a beginning; of some the outputs are identified too, or what follows is.
    let identity = (0u64..4, 0u32..60, prop_oneof![3 => Just(0u32), 1 => 1u32..150], 4u64..7);
    (
        0u64..60_000,
        lengths,
        identity,
        0i32..3,
        prop_oneof![5 => Just(None), 1 => (0u64..80_000).prop_map(Some)],
    )
        .prop_map(
            move |(
                at_us,
                (prompt_tokens, output_tokens, max_tokens),
                (stream, shared, more, next),
                priority,
                abort,
            )| {
                let shared = ContentRun { stream, position: 0, tokens: shared.min(prompt_tokens) };
                let more = ContentRun { stream: next, position: 0, tokens: more };
                Offer {
                    at_us,
                    abort_us: abort.map(|later: u64| at_us + later),
                    request: Request {
                        id: RequestId(number),
                        prompt_tokens,
                        output_tokens,
                        max_tokens,
                        priority,
                        // Unique, as a clock's readings are: equals of one priority preempt each other for ever.
                        attempt: 0,
                        arrival_order: at_us * 64 + u64::from(number),
                        content: Content::from_runs([shared, more]),
                        remote_tokens: 0,
                    },
                }
            },
        )
}

/// Cases with up to forty requests.
pub(crate) fn case() -> impl Strategy<Value = Case> {
    let offers = (1u32..40).prop_flat_map(|count| (0..count).map(offer).collect::<Vec<_>>());
    let step_time = (1u64..2_000, 0u64..20, 0u64..2_000, prop_oneof![Just(0u64), 0u64..900, 0u64..4_000])
        .prop_map(|(base, token, context, host)| Affine {
            base: Span::from_us(base),
            per_token: Span::from_us(token),
            per_context_token: Span::from_ns(context),
            host: Span::from_us(host),
        });
    let jitter = prop_oneof![3 => Just(0.0), 1 => 0.01f64..0.8];
    (engine(), step_time, offers, jitter).prop_map(|(engine, step_time, mut offers, jitter)| {
        offers.sort_by_key(|offer| offer.at_us);
        Case { engine, step_time, jitter, offers }
    })
}
