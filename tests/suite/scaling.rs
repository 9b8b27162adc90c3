//! Autoscalers by hand: when replicas are ordered, when they are up, what they cost, and what is refused; queues of gateways.

use std::path::Path;

use tailcast::hardware::gpu;
use tailcast::metrics::{RunSummary, Scaling};
use tailcast::request::{Finish, Outcome};
use tailcast::scenario::Loaded;

use crate::bad_days::ran;

/// Requests of ten steps, one at a time, a step is 100 ms: each replica bears one a second.
fn slow(requests: u32, rate_per_s: f64, count: u32, more: &str) -> String {
    format!(
        "seed = 5\n[workload]\nrequests = {requests}\n\
         arrivals = {{ rate_per_s = {rate_per_s:.3}, process = \"deterministic\" }}\n\
         prompt_tokens = {{ distribution = \"fixed\", tokens = 10 }}\n\
         output_tokens = {{ distribution = \"fixed\", tokens = 10 }}\n\
         [[replicas]]\ncount = {count}\nmodel = \"llama-3.1-8b\"\ngpu = \"a100-80-sxm\"\nasync_scheduling = false\n\
         max_num_seqs = 1\nstart_up_s = 20.0\n\
         step_time = {{ model = \"affine\", base_us = 100000.0 }}\n\
         [router.health]\ninterval_s = 1.0\n{more}\n"
    )
}

fn scaling(summary: &RunSummary) -> &Scaling {
    summary.scaling.as_ref().expect("an autoscaler")
}

fn wanted(scaling: &Scaling) -> Vec<u32> {
    let mut wanted: Vec<u32> = scaling.changes.iter().map(|change| change.wanted).collect();
    wanted.dedup();
    wanted
}

/// Two a second and one replica: one more waits every second. What is ordered at a decision is up twenty seconds later, and
/// gateways send there once they have checked.
#[test]
fn what_is_ordered_is_up_a_start_up_later() {
    let hpa = "[autoscaler]\npolicy = \"hpa\"\nmin_replicas = 1\nmax_replicas = 3\nscrape_interval_s = 5.0\n\
               parameters = { target = 5.0 }\n";
    let (outcomes, summary) = ran(&slow(240, 2.0, 1, hpa));
    let scaling = scaling(&summary);
    // Within the first fifteen seconds some ten to fifteen wait: three times the target.
    assert_eq!(&wanted(scaling)[..2], [1, 3]);
    let ordered = scaling.changes.iter().find(|change| change.wanted == 3).unwrap();
    assert_eq!(ordered.at_s, 15.0);
    let up = scaling.changes.iter().find(|change| change.ready == 3).unwrap();
    assert_eq!(up.at_s, 35.0);
    let elsewhere = outcomes.iter().filter(|outcome| outcome.replica != Some(0));
    let first = elsewhere.map(|outcome| outcome.sent.as_s()).fold(f64::INFINITY, f64::min);
    assert!((35.0..=36.5).contains(&first), "{first}");
    assert!(outcomes.iter().all(|outcome| outcome.finish == Finish::Stop));
}

/// What is paid for: one replica throughout, and two more from their order to the end of their drain.
#[test]
fn replicas_are_paid_for_from_order_to_end() {
    let down = "behavior = { scale_down_stabilization_window_s = 30.0 }";
    let hpa = format!(
        "[autoscaler]\npolicy = \"hpa\"\nmax_replicas = 3\nscrape_interval_s = 5.0\nnode_start_up_s = 10.0\n\
         parameters = {{ target = 5.0, {down} }}\n"
    );
    let busy = slow(400, 2.0, 1, &hpa);
    // A burst, and then little.
    let quiet = busy.replace(
        "arrivals = { rate_per_s = 2.000, process = \"deterministic\" }",
        "arrivals = { rate_per_s = 1.000, process = \"deterministic\", modulation = [\n\
         { shape = \"spike\", at_s = 0, duration_s = 60, factor = 2.0 }] }",
    );
    let (_, summary) = ran(&quiet);
    let scaling = scaling(&summary);
    let wanted = wanted(scaling);
    assert!(wanted.contains(&3) && *wanted.last().unwrap() < 3, "{wanted:?}");
    assert_eq!(scaling.most_ready, 3);
    let end_s = scaling.replica_hours * 3_600.0 / scaling.mean_replicas;
    let ordered_s = scaling.changes.iter().find(|change| change.wanted == 3).unwrap().at_s;
    let up_s = scaling.changes.iter().find(|change| change.ready == 3).unwrap().at_s;
    assert_eq!(up_s - ordered_s, 30.0, "ten for the machine, twenty for the process");
    // Everybody who is up is paid for, and two more while they start.
    let up: f64 = scaling.mean_ready(0.0, end_s) * end_s;
    let paid_s = scaling.replica_hours * 3_600.0;
    assert!((paid_s - up - 2.0 * 30.0).abs() < 1e-6, "{paid_s} {up}");
    let cost = summary.cost.as_ref().unwrap();
    let usd_per_hour = gpu("a100-80-sxm").unwrap().usd_per_hour.unwrap();
    let usd = usd_per_hour * scaling.replica_hours;
    assert!((cost.usd_per_hour.unwrap() - usd_per_hour * scaling.mean_replicas).abs() < 1e-9);
    assert!((cost.usd_per_million_output_tokens.unwrap() / (usd / 4_000.0 * 1e6) - 1.0).abs() < 0.01);
    // One sequence at a time: 3/7 of 400 W while it works, 60 W while nobody does.
    let busy_s = summary.busy_share * paid_s;
    let joules = 400.0 * 3.0 / 7.0 * busy_s + 60.0 * (paid_s - busy_s);
    assert!((cost.watts.unwrap() * end_s / joules - 1.0).abs() < 1e-6, "{cost:?}");
}

/// Nobody is there: the first request waits at the gateway until KEDA has seen it and a replica is up and checked.
#[test]
fn from_zero_with_a_queue_at_the_gateway() {
    let keda = "[autoscaler]\npolicy = \"keda\"\nmin_replicas = 0\nmax_replicas = 1\ninterval_s = 10.0\n\
                parameters = { cooldown_period_s = 30.0 }\n\
                [router.admission]\nqueue = { ttl_s = 100.0 }\n";
    let asleep = slow(3, 0.01, 1, keda);
    let (served, summary) = ran(&asleep);
    assert!(served.iter().all(|outcome| outcome.finish == Finish::Stop));
    let scaling = scaling(&summary);
    // It sleeps before each of the three.
    assert_eq!(wanted(scaling), [1, 0, 1, 0, 1, 0, 1]);
    // A decision at most ten seconds later, twenty of start-up, a check at most a second later, a second of work.
    let second = served[1].e2e().unwrap().as_s();
    assert!((21.0..=32.5).contains(&second), "{second}");
    let impatient = asleep.replace("ttl_s = 100.0", "ttl_s = 5.0");
    let (given_up, _) = ran(&impatient);
    assert_eq!(given_up[1].finish, Finish::Unavailable);
    assert_eq!((given_up[1].done_received - given_up[1].sent).as_s(), 5.0);
}

/// Four a second where two are served: with a queue for three, one request in two is told so at once, and nobody waits long.
#[test]
fn a_full_queue_turns_away() {
    let admission = "[router.admission]\nmost_in_flight = 2\nqueue = { max_requests = 3, ttl_s = 100.0 }\n";
    let (outcomes, _) = ran(&slow(100, 4.0, 2, admission));
    let of = |finish: Finish| outcomes.iter().filter(|outcome| outcome.finish == finish).count();
    assert!((45..=52).contains(&of(Finish::Refused)), "{}", of(Finish::Refused));
    assert_eq!(of(Finish::Refused) + of(Finish::Stop), 100);
    let longest = outcomes.iter().filter_map(Outcome::e2e).map(|e2e| e2e.as_s()).fold(0.0, f64::max);
    // Two are served a second: whoever comes third in the queue waits for two ends and then works a second itself.
    assert!((2.0..=3.0).contains(&longest), "{longest}");
}

/// Two kinds, of which the second is scaled: what is ordered is of that kind, has the numbers behind all others, and is paid for beside
/// those that stay.
#[test]
fn one_kind_of_several_is_scaled() {
    let two = |count: u32| {
        let kind = "[[replicas]]\ncount = 2\nmodel = \"llama-3.1-8b\"\ngpu = \"h100-sxm\"\nasync_scheduling = false\nmax_num_seqs = 1\n\
                    step_time = { model = \"affine\", base_us = 100000.0 }\n";
        let hpa = "[autoscaler]\npolicy = \"hpa\"\nreplicas_table = 1\nmin_replicas = 1\nmax_replicas = 3\nscrape_interval_s = 5.0\n\
                   parameters = { target = 2.0 }\n[router]\npolicy = \"least-request\"\n";
        slow(400, 4.0, count, hpa).replacen("[[replicas]]", &format!("{kind}[[replicas]]"), 1)
    };
    let (outcomes, summary) = ran(&two(1));
    let scaling = scaling(&summary);
    assert_eq!((scaling.changes[0].wanted, scaling.changes[0].ready, scaling.most_ready), (1, 1, 3));
    let of = |server: u32| outcomes.iter().filter(|outcome| outcome.replica == Some(server)).count();
    assert_eq!((0..5).map(of).sum::<usize>(), 400);
    assert!((0..5).all(|server| of(server) > 40), "five serve, two of them ordered");
    let first = outcomes.iter().find(|outcome| outcome.replica >= Some(3)).unwrap();
    assert!(first.sent.as_s() > 20.0, "{first:?}");
    // Two H100 all the time, and A100 as long as they were paid for.
    let price = |name: &str| gpu(name).unwrap().usd_per_hour.unwrap();
    let cost = summary.cost.as_ref().unwrap().usd_per_hour.unwrap();
    let expected = 2.0 * price("h100-sxm") + scaling.mean_replicas * price("a100-80-sxm");
    assert!((cost / expected - 1.0).abs() < 1e-9, "{cost} {expected}");
}

#[test]
fn contradictions_are_refused_where_they_stand() {
    let at = |more: &str| {
        let text = slow(10, 1.0, 2, more);
        let loaded = Loaded::from_text("scaling", Path::new(""), text, &[]);
        loaded.and_then(|loaded| loaded.resolve()).expect_err(more).to_string()
    };
    let scaled = |keys: &str| at(&format!("[autoscaler]\npolicy = \"hpa\"\nmax_replicas = 4\n{keys}\n"));
    for (keys, named) in [
        ("min_replicas = 5", "more than max_replicas"),
        ("min_replicas = 0", "never leaves 0"),
        ("min_replicas = 3", "not within"),
        ("interval_s = 0.0", "above 0"),
        ("interval_s = 0.01", "at least 1 s"),
        ("node_start_up_s = -1.0", "0 or a number above it"),
        ("parameters = { target = -1.0 }", "above 0"),
        ("parameters = { metric = \"kv_cache_usage_perc\" }", "0 to 1"),
        ("parameters = { behavior = { period_s = 0.0 } }", "0.1 to 1800"),
        ("parameters = { behavior = { scale_up_pods = 0, scale_up_percent = 0 } }", "never changes"),
        ("node_start_up_s = 1e6", "at most 86400"),
        ("parameters = { metrik = 1 }", "unknown key `metrik`"),
        ("parameters = { metric = \"cpu\" }", "cpu"),
        ("parameters = { tolerance = 1.5 }", "0 up to 1"),
        ("replicas = 3", "unknown key"),
        ("replicas_table = 0", "one [[replicas]] table"),
    ] {
        let error = scaled(keys);
        assert!(error.contains(named) && error.contains("scaling:"), "{keys}: {error}");
    }
    assert!(at("[autoscaler]\npolicy = \"hpaa\"\nmax_replicas = 4\n").contains("hpa"));
    assert!(
        at("[autoscaler]\npolicy = \"predictive\"\nmax_replicas = 4\n")
            .contains("requests_per_s_per_replica")
    );
    let asleep = "[autoscaler]\npolicy = \"keda\"\nmin_replicas = 0\nmax_replicas = 4\nparameters = { metric = \"num_requests_running\" }\n";
    assert!(at(asleep).contains("nothing would wake"));
    assert!(at("[router.admission]\nqueue = { ttl_s = 0.0 }\n").contains("above 0"));
    assert!(at("[router.admission]\nqueue = 3\n").contains("max_requests"));
}
