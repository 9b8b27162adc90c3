//! The parts of a simulation, each by itself: `cargo bench --bench parts`.

use std::hint::black_box;
use std::path::Path;
use std::sync::Arc;

use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use tailcast::observe::Silence;
use tailcast::random::Seed;
use tailcast::replica::{self, EngineConfig, Input, Limit, Replica};
use tailcast::request::{Arrival, Content, ContentRun, Request, RequestId};
use tailcast::router::{
    Assumed, Candidates, Decision, Facts, Feedback, Freshness, Glance, Mine, Server, View, policies,
};
use tailcast::signals::{Glimpse, Signals};
use tailcast::step_time::affine::Affine;
use tailcast::time::{Span, Time};
use tailcast::trace::{self, ReadOptions};

fn facts() -> Facts {
    Facts {
        labels: Vec::new(),
        engine: EngineConfig::plain(30_000, 8_192, 256, 32_768),
        step_time: Arc::new(Affine {
            base: Span::from_ms(6),
            per_token: Span::from_us(30),
            per_context_token: Span::from_ns(40),
            host: Span::from_us(800),
        }),
        start_up: Span::from_s(60),
        step_time_jitter: 0.0,
    }
}

fn request(id: u32, prompt_tokens: u32, output_tokens: u32, content: Content) -> Request {
    Request {
        id: RequestId(id),
        prompt_tokens,
        output_tokens,
        max_tokens: None,
        priority: 0,
        attempt: 0,
        arrival_order: u64::from(id),
        content,
        remote_tokens: 0,
    }
}

/// A replica on which 64 requests decode and go on doing so for 20,000 steps.
fn decoding(path: replica::Path) -> Replica {
    let facts = facts();
    let mut replica = Replica::on_path(facts.engine, facts.step_time, path);
    for id in 0..64 {
        replica.deliver(
            Time::ZERO,
            u64::from(id),
            Input::Add(request(id, 500 + id, 20_000, Content::default())),
        );
    }
    replica.advance(Limit::Step(100), &mut Silence);
    replica
}

fn steps(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("64 decodes");
    group.throughput(Throughput::Elements(1_000));
    for (name, path) in
        [("literal, 1,000 steps", replica::Path::Literal), ("a jump of 1,000 steps", replica::Path::Fast)]
    {
        let ready = decoding(path);
        group.bench_function(name, |bencher| {
            let advance = |mut replica: Replica| {
                replica.advance(Limit::Step(1_100), &mut Silence);
                replica
            };
            bencher.iter_batched(|| ready.clone(), advance, BatchSize::SmallInput);
        });
    }
    group.finish();
}

/// A prompt of 13,000 tokens of which all but the last block is cached, and one that is new.
fn cache(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("a prompt of 13,000 tokens");
    let content = |stream| Content::from_runs([ContentRun { stream, position: 0, tokens: 13_000 }]);
    let facts = facts();
    let mut warm = Replica::new(facts.engine, facts.step_time);
    warm.deliver(Time::ZERO, 0, Input::Add(request(0, 13_000, 1, content(1))));
    warm.advance(Limit::Time(Time::ZERO + Span::from_s(100)), &mut Silence);
    for (name, stream) in [("cached", 1), ("new", 2)] {
        let mut ready = warm.clone();
        ready.deliver(Time::ZERO + Span::from_s(100), 1, Input::Add(request(1, 13_000, 1, content(stream))));
        group.bench_function(name, |bencher| {
            let advance = |mut replica: Replica| {
                replica.advance(Limit::Time(Time::ZERO + Span::from_s(200)), &mut Silence);
                replica
            };
            bencher.iter_batched(|| ready.clone(), advance, BatchSize::SmallInput);
        });
    }
    group.finish();
}

/// What a gateway sees while nothing comes back.
struct Still {
    facts: Facts,
    view: View,
    servers: usize,
    candidates: Candidates,
}

impl Glance for Still {
    fn now(&self) -> Time {
        Time::ZERO + Span::from_s(1)
    }

    fn servers(&self) -> usize {
        self.servers
    }

    fn candidates(&self) -> Candidates {
        self.candidates.clone()
    }

    fn facts(&self, _server: Server) -> &Facts {
        &self.facts
    }

    fn signals(&mut self, _server: Server) -> Glimpse {
        let signals =
            Signals { running: 20, kv_blocks_used: 2_000, kv_blocks_usable: 29_999, ..Signals::default() };
        Glimpse { signals, taken_at: Time::ZERO }
    }

    fn mine(&self, server: Server) -> Mine {
        self.view.mine(server)
    }

    fn probe(&mut self, server: Server) -> Glimpse {
        self.signals(server)
    }

    fn cached_tokens(&mut self, _server: Server, _arrival: &Arrival) -> u32 {
        0
    }

    fn completion_ahead(&mut self, _: usize, _: &Arrival, _: Assumed, until: Time) -> Option<Time> {
        Some(until)
    }

    fn completions_ahead(&mut self, _: usize, _: Option<&Arrival>, _: Assumed) -> u128 {
        0
    }

    fn gateway(&self) -> (u32, u32) {
        (0, 1)
    }
}

/// A decision, its effect, and the end of the request, so that counts stay as they are.
fn choices(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("a choice");
    let arrival = Arrival {
        id: RequestId(0),
        sent: Time::ZERO,
        prompt_tokens: 1_000,
        content: Content::default(),
        session: None,
        class: 0,
        max_tokens: None,
        priority: 0,
        predicted_output_tokens: Some(200),
    };
    for policy in ["round-robin", "power-of-two", "least-request", "least-kv", "predicted-completion"] {
        for servers in [8, 64, 1_024] {
            let mut router = policies::build(policy, &toml::Table::new(), Seed(1), 0).expect("a policy");
            let mut still = Still {
                facts: facts(),
                view: View::new(servers, Freshness::Fresh, None),
                servers,
                candidates: Candidates::all(servers),
            };
            router.meet(servers);
            group.bench_function(BenchmarkId::new(policy, servers), |bencher| {
                bencher.iter(|| {
                    let Decision::Send(server) = router.decide(black_box(&arrival), &mut still) else {
                        return;
                    };
                    let at = still.now();
                    router.committed(&arrival, server, at);
                    router.heard(&Feedback::Completed { id: arrival.id, server, at, output_tokens: 200 });
                });
            });
        }
    }
    group.finish();
}

fn traces(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("reading");
    for name in
        ["azure-2023-sample.csv", "azure-2024-sample.csv", "mooncake-sample.jsonl", "plain-sample.csv"]
    {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("traces").join(name);
        let rows = trace::read(&path, &ReadOptions::default()).expect("a sample").rows.len();
        group.throughput(Throughput::Elements(rows as u64));
        group.bench_function(name, |bencher| {
            bencher.iter(|| trace::read(black_box(&path), &ReadOptions::default()))
        });
    }
    group.finish();
}

criterion_group!(parts, steps, cache, choices, traces);
criterion_main!(parts);
