//! Where time goes: parts sum to the whole, are what they say on hand-made cases, and another replica would have done what it does
//! when the request is really sent there.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use proptest::prelude::*;
use tailcast::explain::{Explained, Explanation, Part, explain};
use tailcast::replica::Input;
use tailcast::request::{Arrival, RequestId};
use tailcast::router::{Decision, Glance, Router, Server, Sight};
use tailcast::scenario::{Loaded, Scenario};
use tailcast::study::Traces;
use tailcast::study::compare::{Contender, first_repetition};
use tailcast::study::run::{Keep, run, simulate_with};
use tailcast::time::Time;
use tailcast::workload::{Job, OpenLoop};

fn read(text: &str) -> (Scenario, Arc<[Job]>) {
    let loaded = Loaded::from_text("scenario.toml", Path::new("."), text.into(), &[]);
    let scenario =
        loaded.unwrap_or_else(|error| panic!("{error}")).resolve().unwrap_or_else(|error| panic!("{error}"));
    let contender = Contender { name: scenario.router.policy.clone(), scenario };
    first_repetition(&[contender], &mut Traces::default(), 0).unwrap()
}

fn explained(text: &str) -> Explanation {
    let (scenario, jobs) = read(text);
    explain(&scenario, &jobs).unwrap()
}

/// 5 ms a step, 30 us a token, 25 ns a token of context, 100 us of host time; no network.
const AFFINE: &str = r#"
step_time = { model = "affine", base_us = 5000.0, per_token_us = 30.0, per_context_token_ns = 25.0, host_us = 100.0 }
"#;

/// A fleet of such replicas, with what else it says.
fn fleet(count: u32, engine: &str, rest: &str) -> String {
    format!(
        "{rest}\n[[replicas]]\ncount = {count}\nmodel = \"llama-3.1-8b\"\ngpu = \"h100-sxm\"\nmax_model_len = 8192\n{AFFINE}\n{engine}\n"
    )
}

fn ms(request: &Explained, part: Part) -> f64 {
    request.e2e.ms(part)
}

#[test]
fn who_is_alone_waits_for_nobody() {
    for asynchronous in [true, false] {
        let text = fleet(
            2,
            &format!("async_scheduling = {asynchronous}"),
            r#"
                [network]
                client_to_router_ms = 1.0
                router_to_replica_ms = 2.0
                frontend_ms = 4.0
                [workload]
                requests = 20
                arrivals = { rate_per_s = 0.01 }
                prompt_tokens = { distribution = "uniform", min = 1, max = 5000 }
                output_tokens = { distribution = "uniform", min = 1, max = 300 }
            "#,
        );
        let explanation = explained(&text);
        assert_eq!(explanation.requests.len(), 20);
        for request in &explanation.requests {
            assert_eq!((ms(request, Part::Network), ms(request, Part::FrontEnd)), (6.0, 4.0));
            for part in [
                Part::Router,
                Part::Queue,
                Part::BehindPrefill,
                Part::SlowedByBatch,
                Part::Preempted,
                Part::CacheMiss,
            ] {
                assert_eq!(request.e2e[part], 0, "{part:?} of {:?}", request.outcome);
            }
            let prompt = f64::from(request.outcome.prompt_tokens);
            assert!(ms(request, Part::OwnPrefill) >= 5.0 + 0.03 * prompt, "{:?}", request.outcome);
        }
    }
}

/// A trace of two requests: the first decodes while the prompt of the second is computed.
fn two(second_at_ms: u64, policy: &str, content: &str) -> String {
    let rows = [
        format!(r#"{{"timestamp": 0, "input_length": 512, "output_length": 40, "hash_ids": [1{content}]}}"#),
        format!(
            r#"{{"timestamp": {second_at_ms}, "input_length": 512, "output_length": 1, "hash_ids": [1{content}]}}"#
        ),
    ];
    let folder = tempfile::tempdir().unwrap().keep();
    let trace = folder.join("two.jsonl");
    std::fs::write(&trace, rows.join("\n") + "\n").unwrap();
    let workload = format!("[router]\npolicy = \"{policy}\"\n[workload]\ntrace = \"{}\"\n", trace.display());
    fleet(2, "async_scheduling = false", &workload)
}

#[test]
fn a_prompt_beside_a_decode_is_told_apart_from_the_batch() {
    // session-hash sends requests without a session by their content to one replica: both go to the same.
    let explanation = explained(&two(100, "prefix-hash-bounded", ""));
    let (first, second) = (&explanation.requests[0], &explanation.requests[1]);
    assert_eq!(first.outcome.replica, second.outcome.replica);
    // The second's prompt is cached but for its last block of 16 tokens, which one step of the first computes beside it:
    // 16 tokens at 30 us, and their context of 512 at 25 ns.
    assert!((ms(first, Part::BehindPrefill) - (16.0 * 0.030 + 512.0 * 25e-6)).abs() < 1e-9, "{first:?}");
    assert_eq!(first.e2e[Part::SlowedByBatch], 0);
    // The second waits for the step under way, and is slowed by the first's decode: a token and its context.
    assert!(ms(second, Part::Queue) > 0.0 && ms(second, Part::Queue) < 5.2);
    let context = 25e-6 * f64::from(512 + 17);
    assert!((ms(second, Part::SlowedByBatch) - (0.030 + context)).abs() < 4e-4, "{second:?}");
    assert!(
        (ms(second, Part::OwnPrefill) - (0.1 + 5.0 + 16.0 * 0.030 + 512.0 * 25e-6)).abs() < 1e-9,
        "{second:?}"
    );
}

#[test]
fn what_another_replica_had_cached_is_a_part() {
    // Round robin sends the second where nothing is cached.
    let explanation = explained(&two(5_000, "round-robin", ""));
    let second = &explanation.requests[1];
    let first = explanation.requests[0].outcome.replica.unwrap() as Server;
    assert_eq!(second.cached_elsewhere, Some((first, 512)));
    // All but the last block of 16 tokens, which has to be computed: 496 tokens at 30 us; the context is as long.
    assert!((ms(second, Part::CacheMiss) - 496.0 * 0.030).abs() < 1e-9, "{second:?}");
    let story =
        explanation.stories.iter().find(|story| story.request.outcome.attempt.request.0 == 1).unwrap();
    let (best, there) = story.best().unwrap();
    assert_eq!(best, first);
    let saved_ms = story.request.outcome.e2e().unwrap().as_ms() - there.as_ms();
    assert!((saved_ms - ms(second, Part::CacheMiss)).abs() < 1e-9);
}

#[test]
fn turns_of_a_conversation_are_explained_too() {
    let workload = r#"
        seed = 5
        [network]
        frontend_ms = 3.0
        [workload]
        requests = 120
        arrivals = { rate_per_s = 4.0 }
        prompt_tokens = { distribution = "uniform", min = 20, max = 400 }
        output_tokens = { distribution = "uniform", min = 5, max = 60 }
        [workload.sessions]
        turns = { distribution = "uniform", min = 2, max = 5 }
        think = { distribution = "lognormal", mean_s = 0.5, std_s = 0.5 }
    "#;
    let explanation = explained(&fleet(2, "", workload));
    assert_eq!(explanation.requests.len(), 120);
    // Later turns find what was said before.
    assert!(explanation.requests.iter().any(|request| request.cached_elsewhere.is_some()));
}

/// Sends every request where it is told.
struct Told(BTreeMap<RequestId, Server>);

impl Router for Told {
    fn sight(&self) -> Sight {
        Sight::default()
    }

    fn decide(&mut self, arrival: &Arrival, _: &mut dyn Glance) -> Decision {
        // One that was decided about so shortly before the end that it never got anywhere may go anywhere.
        Decision::Send(self.0.get(&arrival.id).copied().unwrap_or(0))
    }

    fn committed(&mut self, _: &Arrival, _: Server, _: Time) {}
}

/// The judge of "elsewhere": the whole fleet again, with every request sent where it went but for this one.
fn really_sent(
    scenario: &Scenario,
    jobs: &Arc<[Job]>,
    explanation: &Explanation,
    moved: RequestId,
    to: Server,
) -> Option<f64> {
    let result = run(scenario, jobs, 0, false, Keep::Deliveries).unwrap();
    let mut told = BTreeMap::new();
    for (server, deliveries) in result.deliveries.iter().enumerate() {
        for delivery in deliveries {
            let Input::Add(request) = &delivery.input else { continue };
            told.insert(request.id, server);
        }
    }
    told.insert(moved, to);
    let wrap = |_: Box<dyn Router>| -> Box<dyn Router> { Box::new(Told(told.clone())) };
    let again =
        simulate_with(scenario, &mut OpenLoop::new(jobs.clone()), 0, false, Keep::Outcomes, &wrap).unwrap();
    assert_eq!(again.summary.offered, explanation.summary.offered);
    let outcome = again.outcomes.iter().find(|outcome| outcome.attempt.request == moved)?;
    outcome.e2e().map(|e2e| e2e.as_ms())
}

fn text() -> impl Strategy<Value = String> {
    let load = (any::<u32>(), 20u32..150, 5.0f64..150.0, 1u32..4);
    let engine = (any::<bool>(), any::<bool>(), prop::option::of(300u32..600), 64u32..3_000, 2u32..40);
    let policy = prop::sample::select(vec![
        "round-robin",
        "least-request",
        "cache-aware",
        "predicted-completion",
        "random",
    ]);
    let rest = (0u32..3, prop_oneof![3 => Just(None), 1 => (1u32..5).prop_map(Some)], 0.0f64..3.0);
    (load, engine, policy, rest).prop_map(|((seed, requests, rate, count), (asynchronous, caching, blocks, budget, seqs), policy, (groups, end, gap))| {
        let prefixes = if groups > 0 { format!("prefixes = {{ groups = {groups}, tokens = 100 }}") } else { String::new() };
        let end = end.map_or(String::new(), |end| format!("end = {end}"));
        let blocks = blocks.map_or(String::new(), |blocks| format!("num_gpu_blocks_override = {blocks}"));
        fleet(
            count,
            &format!(
                "async_scheduling = {asynchronous}\nenable_prefix_caching = {caching}\n{blocks}\nmax_num_batched_tokens = {budget}\nmax_num_seqs = {seqs}\nenable_chunked_prefill = true"
            ),
            &format!(
                "seed = {seed}\n{end}\n[router]\npolicy = \"{policy}\"\ndecision_gap_ms = {gap}\n[network]\nclient_to_router_ms = 0.7\nrouter_to_replica_ms = 0.3\nfrontend_ms = 2.0\n[workload]\nrequests = {requests}\narrivals = {{ rate_per_s = {rate} }}\nprompt_tokens = {{ distribution = \"lognormal\", mean = 300, std = 500, max = 3000 }}\noutput_tokens = {{ distribution = \"lognormal\", mean = 60, std = 60, max = 900 }}\n{prefixes}\n"
            ),
        )
        .replace("max_model_len = 8192", "max_model_len = 4096")
    })
}

/// What befalls the fleets of [`text`], and what gateways and clients do about it.
fn bad_day() -> impl Strategy<Value = String> {
    let event = (0u32..7, 0.0f64..4.0, 0.05f64..2.0).prop_map(|(kind, at, lasts)| {
        let whom = "\"any\"";
        let rest = match kind {
            0 => format!("kind = \"crash\", replica = {whom}, restart_s = {lasts}"),
            1 => format!("kind = \"slow-down\", replica = {whom}, factor = 3.0, for_s = {lasts}"),
            2 => format!("kind = \"drain\", replica = {whom}, grace_s = 0.3, restart_s = {lasts}"),
            3 => {
                format!("kind = \"network\", replica = {whom}, delay_ms = 40.0, loss = 0.2, for_s = {lasts}")
            }
            4 => format!("kind = \"partition\", replica = {whom}, for_s = {lasts}"),
            5 => format!("kind = \"gateway-lost\", gateway = \"any\", restart_s = {lasts}"),
            _ => format!("kind = \"rolling-deploy\", restart_s = {lasts}, grace_s = 0.5, surge = 1"),
        };
        format!("{{ at_s = {at}, {rest} }}")
    });
    let clients = prop_oneof![
        Just(String::new()),
        (0.2f64..3.0, 0u32..4).prop_map(|(first, retries)| {
            format!("clients = {{ timeout_s = {{ first_token = {first} }}, retries = {retries} }}")
        }),
    ];
    let gateways = (0u32..3, prop::option::of(20u32..600), any::<bool>()).prop_map(|(attempts, hedge, queue)| {
        let hedge = hedge.map_or(String::new(), |ms| format!("hedging = {{ after_ms = {ms} }}\n"));
        let queue = if queue { "admission.queue = { ttl_s = 2.0 }\n" } else { "" };
        format!(
            "retries = {{ attempts = {attempts} }}\n{hedge}{queue}health = {{ interval_s = 0.4, connect_timeout_s = 0.3 }}\n"
        )
    });
    (prop::collection::vec(event, 0..5), clients, gateways).prop_map(|(events, clients, gateways)| {
        format!("events = [{}]\n{clients}\n[router]\nreplicas = 2\n{gateways}", events.join(", "))
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, ..ProptestConfig::default() })]

    /// On bad days too: `explain` asserts that parts sum to the picosecond, and that replicas that live alone die and end requests as
    /// they did.
    #[test]
    fn parts_sum_on_bad_days((text, day, scatters) in (text(), bad_day(), any::<bool>())) {
        let text = text.replace("[router]\n", &format!("{day}\n"));
        let scattered = text.replace("max_model_len", "step_time_jitter = 0.3\nmax_model_len");
        let (scenario, jobs) = read(if scatters { &scattered } else { &text });
        let explanation = explain(&scenario, &jobs).unwrap();
        for request in &explanation.requests {
            let again = request.outcome.attempt.number > 0;
            for part in [Part::EarlierTries, Part::Network, Part::Router, Part::Queue, Part::BehindPrefill] {
                prop_assert!(request.e2e[part] >= 0, "{:?} of {:?}", part, request);
            }
            prop_assert!(!again || request.e2e[Part::EarlierTries] > 0, "{:?}", request);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, ..ProptestConfig::default() })]

    /// Whatever the load, pressure and engine: parts sum to the picosecond and replicas that live alone end requests when they did
    /// (`explain` asserts both), no part but the batch's is below zero, and the slowest would have ended elsewhere when they do.
    #[test]
    fn parts_sum_and_elsewhere_is_true(text in text()) {
        let (scenario, jobs) = read(&text);
        let explanation = explain(&scenario, &jobs).unwrap();
        for request in &explanation.requests {
            for part in Part::ALL.into_iter().filter(|part| *part != Part::SlowedByBatch) {
                prop_assert!(request.e2e[part] >= 0, "{:?} of {:?}\n{}", part, request, text);
                prop_assert!(request.ttft[part] <= request.e2e[part] || part == Part::SlowedByBatch);
            }
            let preemptions = request.outcome.engine.as_ref().unwrap().preemptions;
            let lost_time = request.e2e[Part::Preempted] > 0;
            // In asynchronous mode one may lose its blocks while its last token is in flight, and that costs it nothing.
            let at_the_last = preemptions == 1 && text.contains("async_scheduling = true");
            prop_assert!(lost_time == (preemptions > 0) || (!lost_time && at_the_last), "{:?}\n{}", request, text);
        }
        for story in explanation.stories.iter().take(2) {
            let id = story.request.outcome.attempt.request;
            for (server, end) in story.elsewhere.iter().enumerate() {
                let real = really_sent(&scenario, &jobs, &explanation, id, server);
                let told = end.map(|end| end.as_ms());
                // A run that ends early has no end for what goes on behind it.
                prop_assert!(real == told || (real.is_none() && text.contains("end =")), "{:?} {:?}\n{}", real, told, text);
            }
        }
    }
}
