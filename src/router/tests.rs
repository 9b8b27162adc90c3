//! Hand-made states for the tests of policies.

use super::*;
use crate::replica::EngineConfig;
use crate::request::{Content, ContentRun};
use crate::signals::Signals;
use crate::step_time::affine::Affine;

/// A moment, in seconds.
pub(super) fn at_s(seconds: u64) -> Time {
    Time::ZERO + Span::from_s(seconds)
}

/// Request `id` whose whole prompt is the beginning of a shared text.
pub(super) fn prompt(id: u32, text: u64, tokens: u32) -> Arrival {
    Arrival {
        id: RequestId(id),
        sent: Time::ZERO,
        prompt_tokens: tokens,
        content: Content::from_runs([ContentRun { stream: text, position: 0, tokens }]),
        session: None,
        class: 0,
        max_tokens: None,
        priority: 0,
        predicted_output_tokens: None,
    }
}

/// What a gateway sees, as a test sets it.
pub(super) struct Scene {
    pub(super) now: Time,
    pub(super) signals: Vec<Signals>,
    /// When they were taken.
    pub(super) taken_at: Time,
    pub(super) mine: Vec<Mine>,
    /// What the engines have cached, whatever is asked for.
    pub(super) cached: Vec<u32>,
    /// Who may be chosen; everybody if none is named.
    pub(super) up: Vec<Server>,
    pub(super) gateway: (u32, u32),
    /// When a request would end, by a copy that runs ahead.
    pub(super) ends: Vec<Time>,
    pub(super) facts: Facts,
}

impl Scene {
    /// Idle replicas.
    pub(super) fn of(servers: usize) -> Scene {
        let engine = EngineConfig::plain(1_000, 2_048, 64, 10_000);
        let step_time = Affine {
            base: Span::from_ms(5),
            per_token: Span::from_us(30),
            per_context_token: Span::from_ns(25),
            host: Span::ZERO,
        };
        Scene {
            now: at_s(100),
            signals: vec![Signals { kv_blocks_usable: 999, ..Signals::default() }; servers],
            taken_at: at_s(100),
            mine: vec![Mine::default(); servers],
            cached: vec![0; servers],
            up: Vec::new(),
            gateway: (0, 1),
            ends: vec![at_s(101); servers],
            facts: Facts {
                labels: Vec::new(),
                engine,
                step_time: std::sync::Arc::new(step_time),
                start_up: Span::from_s(60),
                step_time_jitter: 0.0,
            },
        }
    }

    /// So many requests in flight by the gateway's own count.
    pub(super) fn in_flight(counts: &[u32]) -> Scene {
        let mine = counts.iter().map(|&in_flight| Mine { in_flight, ..Mine::default() }).collect();
        Scene { mine, ..Scene::of(counts.len()) }
    }

    /// Where the policy sends it.
    pub(super) fn send(&mut self, router: &mut dyn Router, arrival: &Arrival) -> Server {
        router.meet(self.mine.len());
        let Decision::Send(server) = router.decide(arrival, self) else { panic!("it is sent") };
        server
    }

    /// The same, and it takes effect.
    pub(super) fn commit(&mut self, router: &mut dyn Router, arrival: &Arrival) -> Server {
        let server = self.send(router, arrival);
        router.committed(arrival, server, self.now);
        self.mine[server].in_flight += 1;
        self.mine[server].sent_since_report += 1;
        server
    }
}

impl Glance for Scene {
    fn now(&self) -> Time {
        self.now
    }

    fn servers(&self) -> usize {
        self.mine.len()
    }

    fn candidates(&self) -> Candidates {
        match self.up.is_empty() {
            true => Candidates::all(self.mine.len()),
            false => Candidates::of(self.up.iter().copied(), self.up.iter().map(|server| 1 << server).sum()),
        }
    }

    fn facts(&self, _server: Server) -> &Facts {
        &self.facts
    }

    fn signals(&mut self, server: Server) -> Glimpse {
        Glimpse { signals: self.signals[server], taken_at: self.taken_at }
    }

    fn mine(&self, server: Server) -> Mine {
        self.mine[server]
    }

    fn probe(&mut self, server: Server) -> Glimpse {
        Glimpse { signals: self.signals[server], taken_at: self.now }
    }

    fn cached_tokens(&mut self, server: Server, _arrival: &Arrival) -> u32 {
        self.cached[server]
    }

    fn completion_ahead(&mut self, server: Server, _: &Arrival, _: Assumed, until: Time) -> Option<Time> {
        Some(self.ends[server]).filter(|&end| end <= until)
    }

    fn completions_ahead(&mut self, server: Server, arrival: Option<&Arrival>, _: Assumed) -> u128 {
        arrival.map_or(0, |_| u128::from((self.ends[server] - Time::ZERO).as_ps()))
    }

    fn gateway(&self) -> (u32, u32) {
        self.gateway
    }
}

/// The policy called `name` with these parameters.
pub(super) fn policy(name: &str, parameters: &str) -> Box<dyn Router> {
    let parameters = parameters.parse::<toml::Table>().expect("parameters of a test");
    policies::build(name, &parameters, Seed(1), 0).expect("a policy")
}

/// Who is down gets nothing, whatever a policy has remembered of it, and whoever comes back gets something again.
#[test]
fn every_policy_sends_to_candidates_alone() {
    for info in POLICIES {
        if info.name == "script" || info.name == "oracle-min-latency" {
            continue;
        }
        let mut router = policy(info.name, "");
        let mut scene = Scene::of(6);
        let mut sent = [0; 6];
        router.meet(6);
        for id in 0..300u32 {
            scene.up = match id / 60 {
                0 | 4 => Vec::new(),
                1 => vec![1, 2, 5],
                2 => vec![0, 3],
                _ => vec![4],
            };
            scene.now += Span::from_ms(20);
            let mut arrival = prompt(id, u64::from(id % 7), 400);
            arrival.session = (id % 3 > 0).then_some(u64::from(id % 11));
            let Decision::Send(server) = router.decide(&arrival, &mut scene) else { continue };
            assert!(scene.candidates().contains(server), "{} sent to replica {server}", info.name);
            router.committed(&arrival, server, scene.now);
            scene.mine[server].in_flight += 1;
            sent[server] += 1;
            if id % 3 > 0 {
                let (id, at) = (arrival.id, scene.now);
                router.heard(&Feedback::FirstToken { id, server, at });
                router.heard(&Feedback::Completed { id, server, at, output_tokens: 20 });
                scene.mine[server].in_flight -= 1;
            }
        }
        assert_eq!(sent.iter().sum::<i32>(), 300, "{}", info.name);
    }
}
