//! Bad days by hand: what a crash, a slow-down, a drain and impatient clients do, to the request; and what is refused.

use std::path::Path;
use std::sync::Arc;

use tailcast::metrics::{BadDay, RunSummary};
use tailcast::request::{Finish, Outcome};
use tailcast::scenario::Loaded;
use tailcast::study::Keep;
use tailcast::study::run::{jobs, run};

use crate::cli::{folder_with, stderr, stdout, tailcast};

/// A request a second, of two steps: `replicas` of them, a step is 100 ms whatever it holds.
pub(crate) fn paced(more: &str, replicas: u32) -> String {
    format!(
        "seed = 5\n[workload]\nrequests = 60\n\
         arrivals = {{ rate_per_s = 1.0, process = \"deterministic\" }}\n\
         prompt_tokens = {{ distribution = \"fixed\", tokens = 10 }}\n\
         output_tokens = {{ distribution = \"fixed\", tokens = 2 }}\n\
         [[replicas]]\ncount = {replicas}\nmodel = \"llama-3.1-8b\"\ngpu = \"a100-80-sxm\"\nasync_scheduling = false\n\
         step_time = {{ model = \"affine\", base_us = 100000.0 }}\n{more}\n"
    )
}

/// The first repetition of a scenario, with laws 2 to 5 watched.
pub(crate) fn ran(text: &str) -> (Vec<Outcome>, RunSummary) {
    let loaded = Loaded::from_text("bad-day", Path::new(""), text.into(), &[])
        .unwrap_or_else(|error| panic!("{error}"));
    let scenario = loaded.resolve().unwrap_or_else(|error| panic!("{error}"));
    let jobs: Arc<[_]> = jobs(&scenario, None, 0).unwrap().into();
    let result = run(&scenario, &jobs, 0, true, Keep::Outcomes).unwrap();
    (result.outcomes, result.summary)
}

pub(crate) fn outcomes(text: &str) -> (Vec<Outcome>, BadDay) {
    let (outcomes, summary) = ran(text);
    (outcomes, summary.bad_day.expect("a bad day"))
}

pub(crate) fn finished(outcomes: &[Outcome], finish: Finish) -> usize {
    outcomes.iter().filter(|outcome| outcome.finish == finish).count()
}

/// The second of its sending, and where it went, of all that were lost.
fn lost(outcomes: &[Outcome]) -> Vec<(u64, Option<u32>)> {
    let lost = outcomes.iter().filter(|outcome| outcome.finish == Finish::Lost);
    lost.map(|outcome| (outcome.sent.as_s() as u64, outcome.replica)).collect()
}

/// Nobody checks before 3 failed checks are over, and round-robin goes on sending every other request to the dead.
#[test]
fn a_dead_replica_takes_its_turn_until_checks_have_failed() {
    let crash = "[[events]]\nkind = \"crash\"\nreplica = 1\nat_s = 10.05\nrestart_s = 20.0\n\
                 [router.health]\ninterval_s = 2.0\n";
    let (outcomes, day) = outcomes(&paced(crash, 2));
    let incident = &day.incidents[0];
    let noticed = incident.noticed_after_s.unwrap();
    // Two whole intervals lie between the first failed check and the third.
    assert!((4.0..6.0).contains(&noticed), "{noticed}");
    assert_eq!(incident.over_after_s, Some(20.0));
    let lost = lost(&outcomes);
    assert!(!lost.is_empty() && lost.iter().all(|(_, replica)| *replica == Some(1)));
    assert!(lost.iter().all(|(second, _)| (10..=10 + noticed as u64).contains(second)), "{lost:?}");
    assert_eq!(day.lost as usize, lost.len());
    // Every other request meanwhile, and one that was there when it died at most.
    assert!((2..=4).contains(&lost.len()), "{lost:?}");
    // It serves again when a check has seen it.
    let back = outcomes.iter().filter(|outcome| outcome.replica == Some(1) && outcome.sent.as_s() > 30.05);
    assert!(back.clone().count() >= 12 && back.clone().all(|outcome| outcome.finish.is_complete()));
}

/// Fast failures look like low load: the dead replica has nothing in flight, so it gets everything ("sinkhole").
#[test]
fn whoever_counts_requests_sends_all_to_the_dead() {
    let crash = |policy: &str| {
        format!(
            "[router]\npolicy = \"{policy}\"\n[router.health]\ninterval_s = 5.0\n\
             [[events]]\nkind = \"crash\"\nreplica = 0\nat_s = 20.0\nrestart_s = \"never\"\n"
        )
    };
    // Forty requests a second of half a second each: were the dead one to get all of them, the others would be as idle.
    let busy = |policy: &str| {
        paced(&crash(policy), 4)
            .replace("requests = 60", "requests = 2400")
            .replace("rate_per_s = 1.0", "rate_per_s = 40.0")
            .replace("tokens = 2", "tokens = 5")
    };
    let share = |policy: &str| {
        let (outcomes, day) = outcomes(&busy(policy));
        let noticed = day.incidents[0].noticed_after_s.unwrap();
        let meanwhile = |outcome: &&Outcome| (20.0..20.0 + noticed).contains(&outcome.sent.as_s());
        let sent: Vec<_> = outcomes.iter().filter(meanwhile).collect();
        sent.iter().filter(|outcome| outcome.replica == Some(0)).count() as f64 / sent.len() as f64
    };
    let (turns, counts) = (share("round-robin"), share("least-request"));
    assert!((0.2..0.3).contains(&turns), "{turns}");
    assert!(counts > 0.6, "{counts}");
}

/// A process that dies publishes nothing: whoever goes by KV events sends to it until checks have failed, and then forgets it.
#[test]
fn the_dead_tell_nobody_that_their_cache_is_gone() {
    let router = "[router]\npolicy = \"epp-precise\"\nparameters = { scorers = [{ type = \"prefix-cache-scorer\" }] }\n\
                  [router.health]\ninterval_s = 2.0\n";
    let chats = |events: &str| {
        let text = paced(&format!("{router}{events}"), 2);
        text.replace("tokens = 10 }\n", "tokens = 10 }\nprefixes = { groups = 1, tokens = 64 }\n")
    };
    let (undisturbed, _) = ran(&chats(""));
    let home = undisturbed[20].replica.unwrap();
    assert!(undisturbed[1..].iter().all(|outcome| outcome.replica == Some(home)));
    let crash = format!("[[events]]\nkind = \"crash\"\nreplica = {home}\nat_s = 10.05\nrestart_s = 20.0\n");
    let (outcomes, day) = outcomes(&chats(&crash));
    let noticed = day.incidents[0].noticed_after_s.unwrap();
    let lost = lost(&outcomes);
    // All that came until then.
    assert!(lost.len() as f64 >= noticed.floor(), "{lost:?} {noticed}");
    assert!(lost.iter().all(|(second, replica)| *replica == Some(home) && *second <= 10 + noticed as u64));
    // It comes back empty, and nobody remembers what it had.
    let later = outcomes.iter().filter(|outcome| outcome.sent.as_s() > 12.0 + noticed);
    assert!(later.clone().count() > 20 && later.clone().all(|outcome| outcome.replica == Some(1 - home)));
}

/// What never began is tried elsewhere: only what was running when the process died is lost.
#[test]
fn gateways_try_again_elsewhere() {
    let crash = "[[events]]\nkind = \"crash\"\nreplica = 1\nat_s = 10.05\nrestart_s = 20.0\n\
                 [router.retries]\nattempts = 1\n";
    let (outcomes, day) = outcomes(&paced(crash, 2));
    assert_eq!(finished(&outcomes, Finish::Lost) + finished(&outcomes, Finish::Stop), 60);
    assert!(finished(&outcomes, Finish::Lost) <= 1 && day.gateway_retries >= 2, "{day:?}");
    let again = outcomes.iter().filter(|outcome| outcome.attempt.number == 1);
    assert!(again.clone().all(|outcome| outcome.replica == Some(0) && outcome.finish.is_complete()));
    assert_eq!(again.count() as u64, day.gateway_retries);
}

/// Ejection is quicker than checks: three failures in a row, and nothing more goes there for thirty seconds.
#[test]
fn outlier_detection_is_quicker_than_checks() {
    let crash = "[[events]]\nkind = \"crash\"\nreplica = 1\nat_s = 10.05\nrestart_s = 15.0\n\
                 [router.health]\ninterval_s = 1000.0\neject_after = 3\n";
    let (outcomes, day) = outcomes(&paced(crash, 2));
    assert_eq!(lost(&outcomes).len(), 3);
    let ejected_until = 10.05 + day.incidents[0].noticed_after_s.unwrap() + 30.0;
    let meanwhile = |outcome: &&Outcome| (17.0..ejected_until).contains(&outcome.sent.as_s());
    assert!(outcomes.iter().filter(meanwhile).all(|outcome| outcome.replica == Some(0)));
    assert!(outcomes.iter().any(|outcome| outcome.replica == Some(1) && outcome.sent.as_s() > ejected_until));
}

#[test]
fn steps_of_a_slow_replica_take_so_many_times_as_long() {
    let slow = "[[events]]\nkind = \"slow-down\"\nreplica = 0\nat_s = 20.0\nfor_s = 20.0\nfactor = 3.0\n";
    let (outcomes, day) = outcomes(&paced(slow, 1));
    for outcome in &outcomes {
        let (sent, took) = (outcome.sent.as_s(), outcome.e2e().unwrap().as_s());
        // A prompt's step and another of its decode.
        let expected = if (20.0..39.4).contains(&sent) { 0.6 } else { 0.2 };
        let between = (19.8..20.0).contains(&sent) || (39.4..40.0).contains(&sent);
        assert!(between || (took - expected).abs() < 1e-9, "sent at {sent}: {took}");
    }
    assert_eq!(day.incidents[0].over_after_s, Some(20.0));
    let (outcomes, _) = self::outcomes(&paced("slowdown = 3.0", 1));
    assert!(outcomes.iter().all(|outcome| (outcome.e2e().unwrap().as_s() - 0.6).abs() < 1e-9));
}

/// Both ways, for as long as it lasts.
#[test]
fn a_slow_network_is_paid_for_twice() {
    let slow = "[[events]]\nkind = \"network\"\nreplica = 0\nat_s = 20.05\nfor_s = 20.0\ndelay_ms = 150.0\n";
    let (outcomes, _) = outcomes(&paced(slow, 1));
    for outcome in &outcomes {
        let (sent, took) = (outcome.sent.as_s(), outcome.e2e().unwrap().as_s());
        let expected = if (20.05..39.5).contains(&sent) { 0.5 } else { 0.2 };
        let between = (19.8..20.05).contains(&sent) || (39.5..40.1).contains(&sent);
        assert!(between || (took - expected).abs() < 1e-9, "sent at {sent}: {took}");
    }
}

/// Gauges that cannot be read stay what they were: whoever goes by them alone goes on sending, or stops.
#[test]
fn gauges_that_cannot_be_read_stay_what_they_were() {
    let blind = |at_s: f64| {
        paced(
            &format!(
                "[router]\npolicy = \"least-queue\"\nparameters = {{ ties = \"first\" }}\nview.poll_interval_ms = 100.0\n\
                 [[events]]\nkind = \"metrics-lost\"\nreplica = 0\nat_s = {at_s:.1}\n"
            ),
            2,
        )
        .replace("rate_per_s = 1.0", "rate_per_s = 12.0")
        .replace("requests = 60", "requests = 600")
        .replace("async_scheduling", "max_num_seqs = 1\nasync_scheduling")
    };
    let to_first = |text: &str| {
        let (outcomes, _) = outcomes(text);
        outcomes.iter().filter(|outcome| outcome.replica == Some(0)).count()
    };
    // Idle when last read, it gets everything; read late, it is one of two.
    assert_eq!(to_first(&blind(0.0)), 600);
    assert!((200..400).contains(&to_first(&blind(1_000.0))));
}

/// A drain that is given time loses nobody; one that is not loses what is under way, and what comes before gateways know.
#[test]
fn drains_lose_nobody_who_is_given_time() {
    let drain = |grace: f64| {
        format!(
            "[[events]]\nkind = \"drain\"\nreplica = 0\nat_s = 20.05\ngrace_s = {grace:.1}\nrestart_s = 10.0\n"
        )
    };
    let (calm, day) = outcomes(&paced(&drain(30.0), 2));
    assert_eq!(finished(&calm, Finish::Stop), 60);
    let gone = |outcome: &&Outcome| (21.1..30.0).contains(&outcome.sent.as_s());
    assert!(calm.iter().filter(gone).all(|outcome| outcome.replica == Some(1)));
    assert_eq!(day.incidents[0].noticed_after_s, Some(1.0));
    let (hasty, _) = outcomes(&paced(&drain(0.0), 2));
    assert!(finished(&hasty, Finish::Lost) >= 1);
}

/// One at a time, each when gateways know that the one before is up, and nobody is lost.
#[test]
fn a_rolling_deploy_takes_one_after_the_other() {
    let deploy = "[[events]]\nkind = \"rolling-deploy\"\nat_s = 5.0\nrestart_s = 4.0\n[router.health]\ninterval_s = 0.5\n";
    let (outcomes, day) = outcomes(&paced(deploy, 4));
    assert_eq!(finished(&outcomes, Finish::Stop), 60);
    let drained: Vec<_> = day.incidents.iter().filter(|incident| incident.replica.is_some()).collect();
    assert_eq!(drained.iter().map(|incident| incident.replica.unwrap()).collect::<Vec<_>>(), [0, 1, 2, 3]);
    for pair in drained.windows(2) {
        let waited = pair[1].at_s - pair[0].at_s - pair[0].over_after_s.unwrap();
        assert!((0.0..=0.5).contains(&waited), "{pair:?}");
    }
}

/// Two replicas, checked every ten seconds: whoever drained the second as soon as the first has started would leave nobody.
#[test]
fn a_rolling_deploy_leaves_somebody_to_send_to() {
    let deploy = "[[events]]\nkind = \"rolling-deploy\"\nat_s = 5.0\nrestart_s = 4.0\n";
    let (outcomes, _) = outcomes(&paced(deploy, 2));
    assert_eq!(finished(&outcomes, Finish::Stop), 60);
}

/// A new one first: four are always there, and the last to go leaves its machine to nobody.
#[test]
fn a_surge_starts_new_ones_first() {
    let deploy = "[[events]]\nkind = \"rolling-deploy\"\nat_s = 5.0\nrestart_s = 4.0\nsurge = 1\n[router.health]\ninterval_s = 0.5\n";
    let (outcomes, day) = outcomes(&paced(deploy, 4));
    assert_eq!(finished(&outcomes, Finish::Stop), 60);
    let gone: Vec<_> = day.incidents.iter().filter(|incident| incident.replica.is_some()).collect();
    assert_eq!(gone.iter().map(|incident| incident.replica.unwrap()).collect::<Vec<_>>(), [0, 1, 2, 3]);
    // Four seconds to start, half a second to be seen; then each goes within a second and a bit of being told.
    assert!((9.0..=9.5).contains(&gone[0].at_s), "{gone:?}");
    for pair in gone.windows(2) {
        let left = pair[0].at_s + pair[0].over_after_s.unwrap();
        assert!((4.0..=4.5).contains(&(pair[1].at_s - left)), "{pair:?}");
    }
    let used = |server: u32, from_s: f64| {
        outcomes.iter().any(|outcome| outcome.replica == Some(server) && outcome.sent.as_s() > from_s)
    };
    // New ones run on the spare machine and on those of the first three.
    assert!((0..5).all(|server| used(server, 35.0) != (server == 3)));
    let whole = &day.incidents[0];
    let last = gone.last().unwrap();
    let over = last.at_s + last.over_after_s.unwrap();
    assert!((whole.at_s + whole.over_after_s.unwrap() - over).abs() < 1e-9);
}

/// A replica that dies while it drains is started again, and the deploy goes on with the others.
#[test]
fn a_crash_does_not_stop_a_rolling_deploy() {
    let both = "[[events]]\nkind = \"rolling-deploy\"\nat_s = 5.0\nrestart_s = 4.0\n\
                [[events]]\nkind = \"crash\"\nreplica = 0\nat_s = 5.1\nrestart_s = 6.0\n\
                [router.health]\ninterval_s = 0.5\n";
    let (_, day) = outcomes(&paced(both, 3));
    let of = |kind: &str| {
        let mine = day.incidents.iter().filter(|incident| incident.kind == kind);
        mine.filter_map(|incident| incident.replica).collect::<Vec<_>>()
    };
    assert_eq!((of("crash"), of("rolling-deploy")), (vec![0], vec![0, 1, 2]));
    let crash = day.incidents.iter().find(|incident| incident.kind == "crash").unwrap();
    assert_eq!(crash.over_after_s, Some(6.0));
    let second = day.incidents.iter().find(|incident| incident.replica == Some(1)).unwrap();
    assert!((11.1..=11.6).contains(&second.at_s), "{second:?}");
}

/// Nobody is left: 503, and clients that try again are served when somebody is.
#[test]
fn where_nobody_is_left_gateways_say_so() {
    let crash = "[[events]]\nkind = \"crash\"\nreplica = 0\nat_s = 10.5\nrestart_s = 20.0\n[router.health]\ninterval_s = 1.0\n";
    let (alone, day) = outcomes(&paced(crash, 1));
    assert!(finished(&alone, Finish::Unavailable) >= 15, "{day:?}");
    assert_eq!(day.unavailable_tries as usize, finished(&alone, Finish::Unavailable));
    let patient =
        format!("{crash}[clients]\nretries = 10\nbackoff = {{ first_ms = 1000.0, factor = 1.5 }}\n");
    let (served, _) = outcomes(&paced(&patient, 1));
    assert_eq!(finished(&served, Finish::Stop), 60);
}

/// Envoy's circuit breaker and a token bucket, counted by hand: requests of a second each, two a second.
#[test]
fn gateways_let_in_what_they_may() {
    let busy = |admission: &str| {
        paced(&format!("[router.admission]\n{admission}\n[clients]\ntimeout_s = {{ whole = 900.0 }}\n"), 2)
            .replace("rate_per_s = 1.0,", "rate_per_s = 4.0,")
            .replace("tokens = 2", "tokens = 10")
    };
    let all = |admission: &str| outcomes(&busy(admission)).0;
    // Four a second of a second each: four are out at any time, of which two fit.
    let (per_replica, in_all) = (all("most_per_replica = 1"), all("most_in_flight = 2"));
    for outcomes in [&per_replica, &in_all] {
        let served = finished(outcomes, Finish::Stop);
        assert!((28..=33).contains(&served), "{served}");
        assert_eq!(finished(outcomes, Finish::Unavailable), 60 - served);
    }
    // Fifteen seconds of one a second, and a burst of five.
    let bucket = all("rate_per_s = 1.0\nburst = 5.0");
    assert!((19..=20).contains(&finished(&bucket, Finish::Stop)));
    assert_eq!(finished(&bucket, Finish::Refused), 60 - finished(&bucket, Finish::Stop));
}

/// Each mistake is shown at its line, with what would be right.
#[test]
fn contradictions_are_refused_where_they_stand() {
    let cases = [
        ("[[events]]\nkind = \"crash\"\nreplica = 7\nat_s = 1.0", "there is no replica 7: there are 0 to 1"),
        ("[[events]]\nkind = \"crash\"\nreplica = 0\nat_s = -1.0", "expected 0 or a number above it"),
        ("[[events]]\nkind = \"crash\"\nreplica = 0", "does not say when it happens"),
        ("[[events]]\nkind = \"crash\"\nat_s = 1.0", "a crash needs a replica"),
        ("[[events]]\nkind = \"crash\"\nreplica = 0\nat_s = 1.0\nfactor = 2.0", "says nothing of a crash"),
        (
            "[[events]]\nkind = \"crash\"\nreplica = 0\nat_s = 1.0\nevery_s = 2.0",
            "happens at_s once, or every_s again",
        ),
        ("[[events]]\nkind = \"crush\"\nreplica = 0\nat_s = 1.0", "did you mean `crash`?"),
        ("[[events]]\nkind = \"slow-down\"\nreplica = 0\nat_s = 1.0", "needs a factor"),
        (
            "[[events]]\nkind = \"slow-down\"\nreplica = 0\nat_s = 1.0\nfactor = 0.0",
            "expected 0.01 to 1000 times",
        ),
        (
            "[[events]]\nkind = \"rolling-deploy\"\nat_s = 1.0\nat_once = 3",
            "expected 1 to 2 replicas at a time",
        ),
        (
            "[[events]]\nkind = \"rolling-deploy\"\nat_s = 1.0\nat_once = 1\nsurge = 1",
            "new replicas come first",
        ),
        ("[[events]]\nkind = \"rolling-deploy\"\nat_s = 1.0\nsurge = 0", "expected 1 to 1000"),
        (
            "[[events]]\nkind = \"rolling-deploy\"\nat_s = 1.0\nsurge = 1\nrestart_s = \"never\"",
            "ready some time",
        ),
        ("[[events]]\nkind = \"drain\"\nreplica = 0\nat_s = 1.0\nsurge = 1", "says nothing of a drain"),
        (
            "[[events]]\nkind = \"crash\"\nreplica = 0\nat_s = 5.0\nrestart_s = \"never\"\n\
             [[events]]\nkind = \"drain\"\nreplica = 0\nat_s = 9.0",
            "replica 0 is gone for ever since 5 s",
        ),
        (
            "[[events]]\nkind = \"slow-down\"\nreplica = 0\nat_s = 5.0\nfactor = 2.0\n\
             [[events]]\nkind = \"slow-down\"\nreplica = 0\nat_s = 9.0\nfactor = 3.0",
            "the slow-down of event 0 on replica 0 lasts for ever",
        ),
        ("[clients]\nretries = 1000", "expected at most 100 tries"),
        ("[clients]\nretry_budget = 0.2", "says nothing, since clients do not try again"),
        ("[clients]\ntimeout_s = { first_token = 9.0, whole = 3.0 }", "longer than the wait for the whole"),
        ("[[events]]\nkind = \"network\"\nreplica = 0\nat_s = 1.0", "needs a delay"),
        (
            "[[events]]\nkind = \"metrics-lost\"\nreplica = 0\nat_s = 1.0\ndelay_ms = 1.0",
            "says nothing of a metrics-lost",
        ),
        ("[router.admission]\nburst = 3.0", "there is none"),
        ("[router.admission]\nmost_in_flight = 0", "expected a whole number of at least 1"),
        ("[router.health]\ninterval_s = 0.0", "expected a number above 0"),
        ("[router.health]\nunhealthy_after = 0", "expected 1 to 1000 checks"),
        ("[router.retries]\nattempts = 1\nbackoff = { factor = 0.5 }", "expected 1 to 100"),
    ];
    for (keys, message) in cases {
        let folder = folder_with(&paced(keys, 2));
        let output = tailcast(&["run", "scenario.toml"], folder.path());
        let said = stderr(&output);
        assert!(
            said.contains(message) && said.contains("scenario.toml:") && said.contains('^'),
            "{keys}\n{said}"
        );
        assert!(!output.status.success() && stdout(&output).is_empty());
    }
}

/// What `[[events]]` do is part of every output, and of the same bytes on any number of threads.
#[test]
fn results_tell_of_bad_days() {
    let text = paced(
        "[[events]]\nkind = \"crash\"\nreplica = \"any\"\nevery_s = 12.0\nrestart_s = 5.0\n[router.health]\ninterval_s = 1.0\n\
         [clients]\nretries = 1\n[slo.p99]\ne2e_ms = 500.0\n",
        3,
    );
    let folder = folder_with(&text.replace("seed = 5", "seed = 5\nrepeat = 4"));
    let compare = |threads: &str, out: &str| {
        let policies = "round-robin,least-request";
        let arguments =
            ["compare", "scenario.toml", "--policies", policies, "--out", out, "--threads", threads];
        let output = tailcast(&arguments, folder.path());
        assert!(output.status.success(), "{}", stderr(&output));
        stdout(&output)
    };
    let one = compare("1", "one");
    assert_eq!(one, compare("2", "two"));
    assert!(one.contains("tries a request") && one.contains("crash of replica"), "{one}");
    let read = |out: &str| std::fs::read_to_string(folder.path().join(out).join("summary.json")).unwrap();
    assert_eq!(read("one"), read("two"));
    let summary: serde_json::Value = serde_json::from_str(&read("one")).unwrap();
    let day = &summary["ranking"][0]["repetitions"][0]["bad_day"];
    assert!(
        day["tries"].as_u64().unwrap() >= 60
            && day["incidents"].as_array().is_some_and(|all| !all.is_empty())
    );
    // Again from what was written: the resolved scenario holds all of it.
    let again = tailcast(&["compare", "one/scenario.toml", "--out", "three"], folder.path());
    assert_eq!(stdout(&again), one, "{}", stderr(&again));
    let explained = tailcast(&["explain", "one"], folder.path());
    assert!(
        stdout(&explained).contains("sum to it to the picosecond"),
        "{}{}",
        stdout(&explained),
        stderr(&explained)
    );
    let report = tailcast(&["report", "one", "--no-load-curve"], folder.path());
    let page = std::fs::read_to_string(folder.path().join("one/report.html")).unwrap();
    assert!(page.contains("crash of replica") && page.contains("tries a request"), "{}", stderr(&report));
}

/// Law 7: the size that holds with a replica failing midway is a brute search's.
#[test]
fn capacity_with_a_replica_that_fails_midway() {
    let text = paced(
        "[slo.p99]\ne2e_ms = 900.0\n[router.health]\ninterval_s = 0.2\n[router.retries]\nattempts = 2\n",
        1,
    )
    .replace("seed = 5", "seed = 5\nrepeat = 5")
    .replace("process = \"deterministic\"", "process = \"poisson\"")
    .replace("requests = 60", "requests = 2000")
    .replace("rate_per_s = 1.0", "rate_per_s = 20.0")
    .replace("async_scheduling", "max_num_seqs = 2\nasync_scheduling");
    let folder = folder_with(&text);
    let answer = |more: &[&str]| {
        let arguments = [&["capacity", "scenario.toml", "--replicas", "1..16", "--json"], more].concat();
        let output = tailcast(&arguments, folder.path());
        let value: serde_json::Value =
            serde_json::from_str(&stdout(&output)).unwrap_or_else(|_| panic!("{}", stderr(&output)));
        value["searches"][0]["answer"]["replicas"].as_u64().unwrap()
    };
    let (calm, failing, down) = (answer(&[]), answer(&["--failing", "1"]), answer(&["--down", "1"]));
    assert_eq!(down, calm + 1);
    // Half of the time it has them all; and what dies with it is one in a hundred at most.
    assert!((calm + 1..=calm + 2).contains(&failing), "{calm} {failing}");
    let output =
        tailcast(&["capacity", "scenario.toml", "--replicas", "1..4", "--failing", "4"], folder.path());
    assert!(stderr(&output).contains("--failing: of 4 replicas at most 3 can fail"), "{}", stderr(&output));
}

/// Events that come again end with the requests, also where no policy listens to anything.
#[test]
fn what_comes_again_stops_when_nobody_is_left() {
    let again = "[[events]]\nkind = \"crash\"\nreplica = \"any\"\nevery_s = 7.0\nrestart_s = 3.0\n";
    let (outcomes, day) = outcomes(&paced(again, 3));
    assert_eq!(finished(&outcomes, Finish::Lost) + finished(&outcomes, Finish::Stop), 60);
    let last = day.incidents.last().unwrap();
    assert!((3..30).contains(&day.incidents.len()) && last.at_s <= 61.0, "{day:?}");
}
