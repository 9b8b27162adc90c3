//! No built-in policy allocates when it decides. What it keeps may grow when decisions take effect and answers are heard.

use tailcast::random::Seed;
use tailcast::replica::EngineConfig;
use tailcast::request::{Arrival, Content, ContentRun, RequestId};
use tailcast::router::{
    Assumed, Candidates, Decision, Facts, Feedback, Glance, Mine, POLICIES, Router, Server, policies,
};
use tailcast::signals::{Glimpse, Signals};
use tailcast::step_time::affine::Affine;
use tailcast::time::{Span, Time};

const SERVERS: usize = 12;

/// A fleet that stands still, but for what the gateway itself has in flight.
struct Still {
    now: Time,
    facts: Facts,
    in_flight: [u32; SERVERS],
    candidates: Candidates,
}

impl Still {
    fn new() -> Still {
        let engine = EngineConfig::plain(4_000, 2_048, 64, 10_000);
        let step_time = Affine {
            base: Span::from_ms(5),
            per_token: Span::from_us(30),
            per_context_token: Span::from_ns(25),
            host: Span::ZERO,
        };
        let step_time = std::sync::Arc::new(step_time);
        let facts =
            Facts { labels: Vec::new(), engine, step_time, start_up: Span::ZERO, step_time_jitter: 0.0 };
        Still { now: Time::ZERO, facts, in_flight: [0; SERVERS], candidates: Candidates::all(SERVERS) }
    }
}

impl Glance for Still {
    fn now(&self) -> Time {
        self.now
    }

    fn servers(&self) -> usize {
        SERVERS
    }

    fn candidates(&self) -> Candidates {
        self.candidates.clone()
    }

    fn facts(&self, _server: Server) -> &Facts {
        &self.facts
    }

    fn signals(&mut self, server: Server) -> Glimpse {
        let running = self.in_flight[server];
        let signals = Signals {
            running,
            waiting: server as u32 % 3,
            kv_blocks_usable: 3_999,
            kv_blocks_used: 50 * running,
            ..Signals::default()
        };
        Glimpse { signals, taken_at: self.now }
    }

    fn mine(&self, server: Server) -> Mine {
        Mine { in_flight: self.in_flight[server], ..Mine::default() }
    }

    fn probe(&mut self, server: Server) -> Glimpse {
        self.signals(server)
    }

    fn cached_tokens(&mut self, server: Server, arrival: &Arrival) -> u32 {
        arrival.prompt_tokens * (server as u32 % 4) / 4 / 16 * 16
    }

    fn completion_ahead(&mut self, server: Server, _: &Arrival, _: Assumed, until: Time) -> Option<Time> {
        let ahead = Span::from_ms(100 * (1 + u64::from(self.in_flight[server])));
        Some(self.now + ahead).filter(|end| *end <= until)
    }

    fn completions_ahead(&mut self, server: Server, _: Option<&Arrival>, _: Assumed) -> u128 {
        u128::from(self.in_flight[server])
    }

    fn gateway(&self) -> (u32, u32) {
        (0, 2)
    }
}

fn arrival(id: u32) -> Arrival {
    let run = |stream: u64, tokens| ContentRun { stream, position: 0, tokens };
    // A few system prompts, some hundred conversations, lengths from a block to some thousand tokens.
    let own = 16 + id * 37 % 3_000;
    let runs = [run(u64::from(id % 5), 200), run(1_000 + u64::from(id % 300), own)];
    Arrival {
        id: RequestId(id),
        sent: Time::ZERO,
        prompt_tokens: 200 + own,
        content: Content::from_runs(runs),
        session: Some(u64::from(id % 300)),
        class: 0,
        max_tokens: Some(500),
        priority: 0,
        predicted_output_tokens: Some(20 + id % 200),
    }
}

/// Allocations of the decisions on requests `ids`, each in flight until 60 others have come.
fn decided(
    router: &mut dyn Router,
    fleet: &mut Still,
    ids: std::ops::Range<u32>,
    sent: &mut Vec<Server>,
) -> u64 {
    let mut allocations = 0;
    for id in ids {
        fleet.now += Span::from_ms(40);
        let arrival = arrival(id);
        let mut decision = Decision::Reject;
        allocations += allocation_counter::measure(|| decision = router.decide(&arrival, fleet)).count_total;
        let Decision::Send(server) = decision else { panic!("it is sent") };
        router.committed(&arrival, server, fleet.now);
        fleet.in_flight[server] += 1;
        sent.push(server);
        let (at, output_tokens) = (fleet.now, 100);
        if let Some(first) = id.checked_sub(20) {
            let server = sent[first as usize];
            router.heard(&Feedback::FirstToken { id: RequestId(first), server, at });
        }
        if let Some(last) = id.checked_sub(60) {
            let server = sent[last as usize];
            fleet.in_flight[server] -= 1;
            router.heard(&Feedback::Completed { id: RequestId(last), server, at, output_tokens });
        }
    }
    allocations
}

#[test]
fn no_policy_allocates_when_it_decides() {
    let mut allocating = Vec::new();
    for policy in POLICIES {
        let mut router = policies::build(policy.name, &toml::Table::new(), Seed(1), 0).expect("a policy");
        if router.sight().clairvoyant {
            // No policy but a bound: it runs copies of engines on.
            continue;
        }
        let (mut fleet, mut sent) = (Still::new(), Vec::new());
        router.meet(SERVERS);
        // Tables find their size.
        decided(&mut *router, &mut fleet, 0..4_000, &mut sent);
        let allocations = decided(&mut *router, &mut fleet, 4_000..6_000, &mut sent);
        if allocations > 0 {
            allocating.push((policy.name, allocations));
        }
    }
    assert!(allocating.is_empty(), "allocations in 2,000 decisions: {allocating:?}");
}
