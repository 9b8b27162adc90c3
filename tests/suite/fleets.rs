//! Laws 1, 3, 4, 6 and 7 of whole fleets: random replicas, networks, gateways and every policy.

use std::sync::{Arc, Mutex};

use proptest::prelude::*;
use tailcast::fleet::{End, Fleet, FleetConfig, Network};
use tailcast::metrics::LaneStats;
use tailcast::observe::Silence;
use tailcast::random::Seed;
use tailcast::replica::EngineConfig;
use tailcast::request::{Arrival, Finish, Outcome};
use tailcast::router::kv_index::IndexLimits;
use tailcast::router::{
    Decision, Facts, Feedback, Freshness, Glance, Impairments, POLICIES, Router, Server, Sight, policies,
};
use tailcast::step_time::affine::Affine;
use tailcast::time::{Span, Time};
use tailcast::workload::drawn::{
    ArrivalProcess, Arrivals, Class, Demand, Drawn, Lengths, Level, Prefixes, Think, Tokens, Turns,
};
use tailcast::workload::predictor::{Model, Predictor};
use tailcast::workload::sessions::Sessions;
use tailcast::workload::{Job, OpenLoop, Source};

fn class(priority: i32, share: f64) -> Class {
    Class { name: priority.to_string(), share, priority, prompt: None, output: None, lora: None }
}

pub(crate) fn facts(blocks: u32) -> Facts {
    Facts {
        labels: Vec::new(),
        engine: EngineConfig::plain(blocks, 256, 16, 600),
        step_time: Arc::new(Affine {
            base: Span::from_ms(5),
            per_token: Span::from_us(30),
            per_context_token: Span::from_ns(25),
            host: Span::from_us(600),
        }),
        start_up: Span::from_ms(300),
        step_time_jitter: 0.0,
    }
}

fn arrivals(rate_per_s: f64) -> Arrivals {
    Arrivals { rate_per_s, process: ArrivalProcess::Gamma { cv: 2.0 }, modulations: Vec::new() }
}

pub(crate) fn jobs(seed: u64, requests: u32, rate_per_s: f64) -> Vec<Job> {
    let mut jobs = Drawn {
        requests,
        demand: Demand::Open(arrivals(rate_per_s)),
        tokens: Tokens::Apart {
            prompt: Lengths::LogNormal { mean: 120.0, std: 120.0, min: 1, max: 900 },
            output: Lengths::LogNormal { mean: 30.0, std: 40.0, min: 1, max: 300 },
        },
        prefixes: Some(Prefixes { levels: vec![Level { groups: 5, tokens: 64, zipf_exponent: 1.0 }] }),
        classes: Vec::new(),
    }
    .draw(Seed(seed));
    Predictor::from(Model::LogNormal { bias: 1.0, sigma: 0.4 }).predict(&mut jobs, Seed(seed));
    jobs
}

/// A fleet and its traffic.
#[derive(Clone, Debug)]
pub(crate) struct Setting {
    pub(crate) seed: u64,
    pub(crate) servers: usize,
    pub(crate) gateways: u64,
    pub(crate) blocks: u32,
    pub(crate) requests: u32,
    pub(crate) rate_per_s: f64,
    pub(crate) config: FleetConfig,
}

fn impairments() -> impl Strategy<Value = Impairments> {
    let shares = (0.0f64..0.6, 0.0f64..0.6, any::<bool>());
    let spans = (0u64..300, prop::option::of(1u64..500), 0u64..200);
    let some = (shares, spans).prop_map(|((poll_loss, kv_event_loss, shared), (scrape, stale, delay))| {
        Impairments {
            scrape: Span::from_us(scrape),
            poll_loss,
            staleness_limit: stale.map(Span::from_ms),
            kv_event_delay: Span::from_ms(delay),
            kv_event_loss,
            kv_event_replay: stale.map(Span::from_ms),
            kv_index: IndexLimits::default(),
            shared,
        }
    });
    prop_oneof![Just(Impairments::default()), some]
}

pub(crate) fn setting() -> impl Strategy<Value = Setting> {
    let sizes = (any::<u64>(), 1usize..6, 1u64..4, 40u32..200, 1u32..120, 1.0f64..200.0);
    let delays = (0u64..3_000, 0u64..3_000, 0u64..8_000, prop_oneof![Just(0u64), 0u64..2_000]);
    let views = prop_oneof![Just(None), (1u64..400).prop_map(Some)];
    let ends = prop_oneof![4 => Just(None), 1 => (1u64..2_000).prop_map(Some)];
    (sizes, delays, views, ends, impairments()).prop_map(
        |((seed, servers, gateways, blocks, requests, rate_per_s), delays, view, end, impairments)| Setting {
            seed,
            servers,
            gateways,
            blocks,
            requests,
            rate_per_s,
            config: FleetConfig {
                freshness: view
                    .map_or(Freshness::Fresh, |ms| Freshness::Polled { interval: Span::from_ms(ms) }),
                impairments,
                decision_gap: Span::from_us(delays.3),
                network: Network {
                    client_to_router: Span::from_us(delays.0),
                    router_to_replica: Span::from_us(delays.1),
                    frontend: Span::from_us(delays.2),
                    per_token: Span::from_us(delays.2 / 100),
                },
                end: end.map_or(End::Drain, |ms| End::At(Time::ZERO + Span::from_ms(ms))),
                seed: Seed(seed),
                check: true,
                ..FleetConfig::default()
            },
        },
    )
}

pub(crate) fn routers(policy: &str, setting: &Setting) -> Vec<Box<dyn Router>> {
    let build = |gateway| policies::build(policy, &toml::Table::new(), Seed(setting.seed), gateway).unwrap();
    (0..setting.gateways).map(build).collect()
}

fn run(setting: &Setting, routers: Vec<Box<dyn Router>>, source: &mut dyn Source) -> Vec<Outcome> {
    let replicas = (0..setting.servers).map(|_| (facts(setting.blocks), Silence)).collect();
    let mut outcomes = Vec::new();
    Fleet::new(setting.config.clone(), replicas, routers).run(source, &mut |outcome| outcomes.push(outcome));
    outcomes.sort_by_key(|outcome| outcome.attempt);
    outcomes
}

fn run_policy(setting: &Setting, policy: &str, jobs: &[Job]) -> Vec<Outcome> {
    run(setting, routers(policy, setting), &mut OpenLoop::new(jobs.into()))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, ..ProptestConfig::default() })]

    /// Law 1: what was sent has one outcome each; nothing is lost, whatever the policy and the delays. Laws 2,
    /// 3 and 4 are asserted inside while it runs.
    #[test]
    fn every_request_has_one_outcome(setting in setting()) {
        let jobs = jobs(setting.seed, setting.requests, setting.rate_per_s);
        for policy in POLICIES {
            let outcomes = run_policy(&setting, policy.name, &jobs);
            let sent_in_time = |job: &&Job| match setting.config.end {
                End::Drain => true,
                End::At(end) => job.sent < end,
            };
            prop_assert_eq!(outcomes.len(), jobs.iter().filter(sent_in_time).count(), "{}", policy.name);
            for (outcome, job) in outcomes.iter().zip(&jobs) {
                prop_assert_eq!(outcome.attempt.request, job.request.id);
                let limit = facts(40).engine.max_model_len;
                match outcome.finish {
                    Finish::TooLong => prop_assert!(job.request.prompt_tokens >= limit),
                    Finish::Unfinished => prop_assert!(setting.config.end != End::Drain),
                    Finish::Stop | Finish::Length => {
                        let due = job.request.output_tokens.min(limit - job.request.prompt_tokens);
                        prop_assert_eq!(outcome.output_tokens(), due);
                        prop_assert!(outcome.ttft() <= outcome.e2e());
                    }
                    other => prop_assert!(false, "{:?}", other),
                }
            }
        }
    }

    /// Law 6: true output lengths of this request and later ones change no decision up to this one.
    #[test]
    fn no_policy_sees_the_hidden_truth(setting in setting(), from in 0usize..60, longer in 1u32..200) {
        let jobs = jobs(setting.seed, setting.requests, setting.rate_per_s);
        let mut changed = jobs.clone();
        let from = from.min(jobs.len() - 1);
        for job in &mut changed[from..] {
            job.request.output_tokens += longer;
        }
        let blind = |name: &str| !policies::build(name, &toml::Table::new(), Seed(0), 0).unwrap().sight().clairvoyant;
        for policy in POLICIES.iter().filter(|policy| blind(policy.name)) {
            let (a, b) = (run_policy(&setting, policy.name, &jobs), run_policy(&setting, policy.name, &changed));
            for (a, b) in a.iter().zip(&b).take(from + 1) {
                // A decision may have been made and not have taken effect when the run ended.
                prop_assert_eq!(a.replica, b.replica, "{}: request {}", policy.name, a.attempt.request.0);
            }
        }
    }

    /// Law 7: the same again is the same, and who listens changes nothing.
    #[test]
    fn the_same_bits_again(setting in setting()) {
        let jobs: Arc<[Job]> = jobs(setting.seed, setting.requests, setting.rate_per_s).into();
        for policy in POLICIES {
            let first = run_policy(&setting, policy.name, &jobs);
            let replicas = (0..setting.servers).map(|_| (facts(setting.blocks), LaneStats::default())).collect();
            let mut again = Vec::new();
            let config = FleetConfig { check: false, ..setting.config.clone() };
            Fleet::new(config, replicas, routers(policy.name, &setting))
                .run(&mut OpenLoop::new(jobs.clone()), &mut |outcome| again.push(outcome));
            again.sort_by_key(|outcome| outcome.attempt);
            prop_assert_eq!(first, again);
        }
    }

    /// A gateway that keeps requests until a replica is free: late binding goes through the same loop, and its
    /// count of what is out there is exact at every decision.
    #[test]
    fn held_requests_wait_at_the_gateway(setting in setting(), slots in 1u32..4) {
        let jobs = jobs(setting.seed, setting.requests, setting.rate_per_s);
        let most = Arc::new(Mutex::new(0));
        let gateways: Vec<Box<dyn Router>> = (0..setting.gateways)
            .map(|_| Box::new(OneSlotEach { slots, most: most.clone() }) as Box<dyn Router>)
            .collect();
        let outcomes = run(&setting, gateways, &mut OpenLoop::new(jobs.clone().into()));
        let lost = outcomes.iter().filter(|o| o.finish == Finish::Unfinished).count();
        prop_assert!(setting.config.end != End::Drain || lost == 0);
        // With a gap between decision and effect more may be decided than fits; without one, never.
        if setting.config.decision_gap == Span::ZERO {
            prop_assert!(*most.lock().unwrap() <= slots);
        }
    }

    /// What an index of KV events says is what the engine then finds, but that it always computes a prompt's last token.
    #[test]
    fn kv_events_tell_what_will_be_found(setting in setting()) {
        let jobs = jobs(setting.seed, setting.requests, setting.rate_per_s);
        // The engine itself, and an index of events that loses nothing: with nobody else there both know everything.
        let forgets_in_a_day = IndexLimits { ttl: Some(Span::from_ms(86_400_000)), ..IndexLimits::default() };
        for kv_index in [IndexLimits::default(), forgets_in_a_day] {
            let (network, impairments) = (Network::default(), Impairments { kv_index, ..Impairments::default() });
            let config = FleetConfig { end: End::Drain, network, impairments, decision_gap: Span::ZERO, ..setting.config.clone() };
            let setting = Setting { config, servers: 1, gateways: 1, ..setting.clone() };
            let told = Arc::new(Mutex::new(Vec::new()));
            let mut source = Users { jobs: jobs.clone(), sent: 0, ready: vec![Time::ZERO] };
            let outcomes = run(&setting, vec![Box::new(Asks { told: told.clone() })], &mut source);
            for ((outcome, cached), job) in outcomes.iter().zip(told.lock().unwrap().iter()).zip(&jobs) {
                if outcome.finish != Finish::TooLong {
                    let most = (job.request.prompt_tokens - 1) / 16 * 16;
                    prop_assert_eq!(outcome.engine.as_ref().unwrap().cached_tokens, most.min(*cached));
                }
            }
        }
    }

    /// A closed loop: each user sends again when the last answer has reached him, so never more than the users
    /// are under way.
    #[test]
    fn closed_loops_answer_to_ends(setting in setting(), users in 1u32..8) {
        let jobs = jobs(setting.seed, setting.requests, setting.rate_per_s);
        let config = FleetConfig { end: End::Drain, ..setting.config.clone() };
        let setting = Setting { config, ..setting };
        for policy in ["round-robin", "least-request", "least-kv"] {
            let mut source = Users { jobs: jobs.clone(), sent: 0, ready: vec![Time::ZERO; users as usize] };
            let outcomes = run(&setting, routers(policy, &setting), &mut source);
            prop_assert_eq!(outcomes.len(), jobs.len());
            for outcome in &outcomes {
                let beside = outcomes.iter().filter(|o| o.sent <= outcome.sent && o.done_received > outcome.sent);
                prop_assert!(beside.count() as u32 <= users, "{}", policy);
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, ..ProptestConfig::default() })]

    /// Turns of a session are sent when the answer before has been thought about, to the picosecond, whatever the
    /// policy; users are never more than there are.
    #[test]
    fn sessions_wait_for_their_answers(setting in setting(), users in 0u32..6) {
        let tokens = Tokens::Apart { prompt: Lengths::Uniform { min: 1, max: 90 }, output: Lengths::Uniform { min: 1, max: 30 } };
        let think = Think::Exponential { mean_s: 0.5 };
        let turns = Turns { count: Lengths::Uniform { min: 1, max: 5 }, think, max_prompt_tokens: 600 };
        let demand = if users > 0 { Demand::Users(users, think) } else { Demand::Sessions(arrivals(setting.rate_per_s), turns) };
        let drawn = Drawn { requests: setting.requests, demand, tokens, prefixes: None, classes: vec![class(0, 1.0), class(3, 0.2)] };
        let drawn: Arc<[Job]> = drawn.draw(Seed(setting.seed)).into();
        let config = FleetConfig { end: End::Drain, ..setting.config.clone() };
        let setting = Setting { config, ..setting };
        for policy in ["round-robin", "least-request"] {
            let mut source = Sessions::new(drawn.clone());
            let outcomes = run(&setting, routers(policy, &setting), &mut source);
            prop_assert_eq!(outcomes.len(), drawn.len());
            let mut ends = vec![None; drawn.len()];
            for outcome in &outcomes {
                ends[source.job_of(outcome.attempt.request) as usize] = Some((outcome.sent, outcome.done_received));
            }
            for (job, end) in drawn.iter().zip(&ends) {
                let due = job.waits.iter().map(|wait| ends[wait.row as usize].unwrap().1 + wait.think.unwrap()).max();
                prop_assert_eq!(end.unwrap().0, due.unwrap_or(job.sent), "{}", policy);
            }
        }
    }
}

/// Sends everything to the first replica, and keeps what it was told of its cache.
struct Asks {
    told: Arc<Mutex<Vec<u32>>>,
}

impl Router for Asks {
    fn sight(&self) -> Sight {
        Sight { kv_events: true, ..Sight::default() }
    }

    fn decide(&mut self, arrival: &Arrival, glance: &mut dyn Glance) -> Decision {
        self.told.lock().unwrap().push(glance.cached_tokens(0, arrival));
        Decision::Send(0)
    }
}

/// Sends to the first replica with a free slot, else keeps the request.
struct OneSlotEach {
    slots: u32,
    most: Arc<Mutex<u32>>,
}

impl Router for OneSlotEach {
    fn sight(&self) -> Sight {
        Sight { responses: true, holds: true, ..Sight::default() }
    }

    fn decide(&mut self, _arrival: &Arrival, glance: &mut dyn Glance) -> Decision {
        let glance = &*glance;
        let free = (0..glance.servers()).find(|&server| glance.mine(server).in_flight < self.slots);
        if let Some(server) = free {
            let mut most = self.most.lock().unwrap();
            *most = (*most).max(glance.mine(server).in_flight + 1);
        }
        free.map_or(Decision::Hold, Decision::Send)
    }

    fn committed(&mut self, _arrival: &Arrival, _server: Server, _at: Time) {}

    fn heard(&mut self, _feedback: &Feedback) {}
}

/// Users who wait for an answer before they send again.
struct Users {
    jobs: Vec<Job>,
    sent: usize,
    ready: Vec<Time>,
}

impl Source for Users {
    fn next(&mut self) -> Option<Job> {
        let at = self.next_sent()?;
        let user = self.ready.iter().position(|&ready| ready == at)?;
        self.ready.swap_remove(user);
        let mut job = self.jobs[self.sent].clone();
        job.sent = at;
        self.sent += 1;
        Some(job)
    }

    fn next_sent(&self) -> Option<Time> {
        if self.sent == self.jobs.len() { None } else { self.ready.iter().min().copied() }
    }

    fn finished(&mut self, outcome: &Outcome) {
        self.ready.push(outcome.done_received);
    }

    fn is_closed_loop(&self) -> bool {
        true
    }
}
