//! How routing fails in production, as small fleets: each is a documented incident, beside what mends it.

use std::path::Path;
use std::sync::Arc;

use tailcast::scenario::Loaded;
use tailcast::study::Keep;
use tailcast::study::run::{jobs, run};

/// Requests that each replica got, and those that were refused. `keys` go to the top of the scenario.
fn served(keys: &str, workload: &str, replicas: u32) -> (Vec<u32>, u32) {
    let text = format!(
        "seed = 5\n{keys}\n[workload]\n{workload}\n[[replicas]]\ncount = {replicas}\nmodel = \"llama-3.1-8b\"\ngpu = \"a100-80-sxm\"\n"
    );
    let loaded =
        Loaded::from_text("incident", Path::new(""), text, &[]).unwrap_or_else(|error| panic!("{error}"));
    let scenario = loaded.resolve().unwrap_or_else(|error| panic!("{error}"));
    let jobs: Arc<[_]> = jobs(&scenario, None, 0).unwrap().into();
    let result = run(&scenario, &jobs, 0, true, Keep::Outcomes).unwrap();
    let mut counts = vec![0; replicas as usize];
    let mut refused = 0;
    for outcome in &result.outcomes {
        match outcome.replica {
            Some(replica) => counts[replica as usize] += 1,
            None => refused += 1,
        }
    }
    (counts, refused)
}

/// A burst of `requests` within a few milliseconds, each of so many prompt tokens.
fn burst(requests: u32, prompt_tokens: u32) -> String {
    format!(
        "requests = {requests}\narrivals = {{ rate_per_s = 20000.0 }}\n\
         prompt_tokens = {{ distribution = \"fixed\", tokens = {prompt_tokens} }}\n\
         output_tokens = {{ distribution = \"fixed\", tokens = 50 }}"
    )
}

/// The same one by one, so far apart that nothing is in flight when the next one comes.
fn paced(requests: u32, more: &str) -> String {
    format!(
        "requests = {requests}\narrivals = {{ rate_per_s = 0.2, process = \"deterministic\" }}\n\
         prompt_tokens = {{ distribution = \"fixed\", tokens = 300 }}\n\
         output_tokens = {{ distribution = \"fixed\", tokens = 20 }}\n{more}"
    )
}

/// vllm-project/router#177 and #178: a polled signal without counts of one's own sends all of a burst of eight to one worker.
#[test]
fn a_burst_between_two_polls_follows_one_replica() {
    let polled = "router = { policy = \"least-queue\", parameters = { ties = \"first\" }, view.poll_interval_ms = 5000 }";
    assert_eq!(served(polled, &burst(8, 200), 2).0, [8, 0]);
    let counted = "router = { policy = \"least-request\", parameters = { ties = \"first\" } }";
    assert_eq!(served(counted, &burst(8, 200), 2).0, [4, 4]);
}

/// llm-d-router#2515: counters that rise after the decision; a burst within the gap sees equal scores.
#[test]
fn scores_before_increments_make_a_herd() {
    let gap = |ms: f64| {
        format!(
            "router = {{ policy = \"least-request\", decision_gap_ms = {ms:.1}, parameters = {{ ties = \"first\" }} }}"
        )
    };
    assert_eq!(served(&gap(50.0), &burst(12, 200), 4).0, [12, 0, 0, 0]);
    assert_eq!(served(&gap(0.0), &burst(12, 200), 4).0, [3, 3, 3, 3]);
}

/// vllm#22910, litellm#39322: equal scores that always go to the first replica leave the others idle under light load.
#[test]
fn a_constant_tie_break_piles_up() {
    let ties = |rule: &str| {
        format!("router = {{ policy = \"least-request\", parameters = {{ ties = \"{rule}\" }} }}")
    };
    assert_eq!(served(&ties("first"), &paced(12, ""), 3).0, [12, 0, 0]);
    assert_eq!(served(&ties("rotating"), &paced(12, ""), 3).0, [4, 4, 4]);
}

/// Infera#103: between paced requests nothing is in flight, so the load term is 0 and the first of equals takes all.
#[test]
fn paced_requests_show_no_load() {
    let router = |policy: &str| format!("router.policy = \"{policy}\"");
    assert_eq!(served(&router("hit-minus-load"), &paced(16, ""), 2).0, [16, 0]);
    assert_eq!(served(&router("round-robin"), &paced(16, ""), 2).0, [8, 8]);
}

/// smg#1621: with R gateways each sees 1/R of the load, so a threshold in absolute counts never trips. Gateways that share
/// their counts see all of it.
#[test]
fn several_gateways_each_see_a_part_of_the_load() {
    let prefixes = format!("{}\nprefixes = {{ groups = 1, tokens = 1900 }}", burst(160, 100));
    let gateways =
        |count: u32, more: &str| format!("router = {{ policy = \"cache-aware\", replicas = {count}{more} }}");
    let to_the_cold_one = |router: &str| {
        let (counts, _) = served(router, &prefixes, 2);
        counts.into_iter().min().unwrap()
    };
    assert!(to_the_cold_one(&gateways(1, "")) > 20);
    assert_eq!(to_the_cold_one(&gateways(4, "")), 0);
    assert!(to_the_cold_one(&gateways(4, ", view.shared = true")) > 20);
}

/// llm-d-router#2408: stale gauges count as saturated, and a pool whose filter leaves nobody blocks itself while it idles.
#[test]
fn stale_gauges_fail_closed() {
    let stale = |limit_ms: u32, fallback: bool| {
        format!(
            "router = {{ policy = \"epp-weighted\", view = {{ poll_interval_ms = 1000, staleness_limit_ms = {limit_ms} }}, \
             parameters = {{ filters = [{{ type = \"utilization-filter\", max_kv_cache_utilization = 0.9, fallback_on_empty = {fallback} }}] }} }}"
        )
    };
    let workload = paced(20, "");
    // A request in five seconds, a poll a second: at 200 ms most find a report that is too old.
    let (_, refused) = served(&stale(200, false), &workload, 1);
    assert!(refused >= 10, "{refused}");
    assert_eq!(served(&stale(2_000, false), &workload, 1).1, 0);
    assert_eq!(served(&stale(200, true), &workload, 1).1, 0);
}

/// production-stack#1035 and its kin: a session stays where it is, whatever else is idle.
#[test]
fn a_pinned_session_keeps_its_replica_busy() {
    let session = "requests = 40\nusers = { count = 1, think = { distribution = \"fixed\", seconds = 0.1 } }\nprompt_tokens = { distribution = \"fixed\", tokens = 500 }\n\
                   output_tokens = { distribution = \"fixed\", tokens = 40 }";
    let (sticky, _) = served("router.policy = \"session-sticky\"", session, 4);
    assert_eq!(sticky.iter().filter(|&&count| count > 0).count(), 1, "{sticky:?}");
    let (spread, _) =
        served("router = { policy = \"least-request\", parameters = { ties = \"rotating\" } }", session, 4);
    assert_eq!(spread, [10; 4]);
}

/// Events that are late, lost or forgotten: the index knows less than the engines, and a prefix is computed more often. What is
/// lost can be asked for again.
#[test]
fn late_and_lost_events_cost_hits() {
    let hits = |view: &str| {
        let text = format!(
            "seed = 5\n[workload]\nrequests = 400\narrivals = {{ rate_per_s = 8.0 }}\n\
             prompt_tokens = {{ distribution = \"fixed\", tokens = 200 }}\n\
             output_tokens = {{ distribution = \"fixed\", tokens = 30 }}\nprefixes = {{ groups = 40, tokens = 3200 }}\n\
             [[replicas]]\ncount = 4\nmodel = \"llama-3.1-8b\"\ngpu = \"a100-80-sxm\"\n\
             [router]\npolicy = \"epp-precise\"\nview = {{ {view} }}\n"
        );
        let scenario = Loaded::from_text("events", Path::new(""), text, &[]).unwrap().resolve().unwrap();
        let jobs: Arc<[_]> = jobs(&scenario, None, 0).unwrap().into();
        run(&scenario, &jobs, 0, true, Keep::Nothing).unwrap().summary.prefix_cache_hit_rate
    };
    let fresh = hits("kv_event_delay_ms = 0.0");
    for less in [
        "kv_event_delay_ms = 20000.0",
        "kv_event_loss = 0.9",
        "kv_index_ttl_s = 2.0",
        "kv_index_blocks = 2000",
        "kv_event_loss = 0.9, kv_event_replay_ms = 20000.0",
    ] {
        assert!(fresh > hits(less) + 0.05, "{less}: {} of {fresh}", hits(less));
    }
    let asked_for_again = hits("kv_event_loss = 0.9, kv_event_replay_ms = 10.0");
    assert!(asked_for_again > hits("kv_event_loss = 0.9") + 0.05, "{asked_for_again}");
}

/// A policy of somebody's that keeps everything at the gateway: the run ends all the same, with nothing done.
#[test]
fn who_is_held_for_ever_does_not_hold_the_run() {
    let script = r#"router = { policy = "script", parameters = { source = 'fn choose(request, replicas) { let w = replicas[0].waiting; "hold" }' } }"#;
    assert_eq!(served(script, &burst(5, 100), 2), (vec![0, 0], 5));
}

/// llm-d's index knows ten replicas of a block unless it is told otherwise; a fleet that is larger is told so, others know all.
#[test]
fn a_product_keeps_its_own_index() {
    let resolved = |policy: &str, count: u32, view: &str| {
        let text = format!(
            "[workload]\nrequests = 1\narrivals = {{ rate_per_s = 1.0 }}\n\
             prompt_tokens = {{ distribution = \"fixed\", tokens = 20 }}\noutput_tokens = {{ distribution = \"fixed\", tokens = 3 }}\n\
             [[replicas]]\ncount = {count}\nmodel = \"llama-3.1-8b\"\ngpu = \"a100-80-sxm\"\n\
             [router]\npolicy = \"{policy}\"\nview = {{ {view} }}\n"
        );
        Loaded::from_text("index", Path::new(""), text, &[]).unwrap().resolve()
    };
    let known = |policy: &str, count: u32, view: &str| {
        let scenario = resolved(policy, count, view).unwrap();
        let told = scenario.marks.iter().any(|mark| mark.contains("podCacheSize"));
        (scenario.router.impairments.kv_index.replicas_per_block.map(|most| most.get()), told)
    };
    assert_eq!(known("epp-precise", 12, ""), (Some(10), true));
    assert_eq!(known("epp-precise", 10, ""), (Some(10), false));
    assert_eq!(known("epp-precise", 12, "kv_index_replicas_per_block = 0"), (None, false));
    assert_eq!(known("epp-precise", 12, "kv_index_replicas_per_block = 3"), (Some(3), false));
    assert_eq!(known("dynamo-kv", 12, ""), (None, false));
    for (wrong, told) in [
        ("kv_index_blocks = 0", "at least 1 block"),
        ("kv_index_ttl_s = 0.0", "expected"),
        ("kv_event_replay_ms = 20.0", "no event gets lost"),
        ("kv_event_loss = 0.1, kv_event_replay_ms = -1.0", "expected"),
    ] {
        let error = resolved("epp-precise", 2, wrong).unwrap_err().to_string();
        assert!(error.contains(told), "{wrong}: {error}");
    }
}
