//! What gateways do and suffer, by hand: partitions, lost messages, a gateway that goes, second copies, slow starts, saturation and
//! classes that take turns.

use std::path::Path;

use tailcast::request::{Finish, Outcome};
use tailcast::scenario::Loaded;

use crate::bad_days::{finished, outcomes, paced};

/// Requests that wait for `tokens` steps of 100 ms each, so many a second.
fn busy(more: &str, replicas: u32, rate_per_s: f64, tokens: u32) -> String {
    paced(more, replicas)
        .replace("rate_per_s = 1.0", &format!("rate_per_s = {rate_per_s:?}"))
        .replace("requests = 60", &format!("requests = {}", 60.0 * rate_per_s))
        .replace("tokens = 2", &format!("tokens = {tokens}"))
}

fn sent_in(outcomes: &[Outcome], range: std::ops::Range<f64>) -> Vec<&Outcome> {
    outcomes.iter().filter(|outcome| range.contains(&outcome.sent.as_s())).collect()
}

/// A request a second by turns to two, of which one cannot be reached for ten seconds.
#[test]
fn where_nothing_passes_connections_fail_and_answers_come_late() {
    let parted = |more: &str| {
        paced(
            &format!("[[events]]\nkind = \"partition\"\nreplica = 1\nat_s = 10.15\nfor_s = 10.0\n{more}"),
            2,
        )
    };
    let health = "[router.health]\ninterval_s = 2.0\nconnect_timeout_s = 1.5\n";
    let (all, day) = outcomes(&parted(health));
    let noticed = day.incidents[0].noticed_after_s.unwrap();
    assert!((4.0..6.0).contains(&noticed), "{noticed}");
    assert_eq!(day.incidents[0].over_after_s, Some(10.0));
    let lost: Vec<_> = all.iter().filter(|outcome| outcome.finish == Finish::Lost).collect();
    assert!((2..=3).contains(&lost.len()), "{lost:?}");
    for outcome in &lost {
        assert_eq!((outcome.replica, outcome.arrived), (Some(1), None));
        assert_eq!((outcome.done_received - outcome.sent).as_s(), 1.5);
    }
    // Sent after checks have failed, before they succeed again: all to the other.
    assert!(sent_in(&all, 10.2 + noticed..20.0).iter().all(|outcome| outcome.replica == Some(0)));
    assert!(sent_in(&all, 24.0..60.0).iter().filter(|outcome| outcome.replica == Some(1)).count() > 15);
    // Whoever tries longer than it lasts gets through when it is over, and an answer under way then comes when it is over.
    let patient = "[router.health]\ninterval_s = 1000.0\nconnect_timeout_s = 60.0\n";
    let (all, _) = outcomes(&parted(patient));
    assert_eq!(finished(&all, Finish::Lost), 0);
    let late = all.iter().filter(|outcome| outcome.e2e().unwrap().as_s() > 0.5);
    assert!(late.clone().all(|outcome| outcome.done_received.as_s() >= 20.15 && outcome.replica == Some(1)));
    assert_eq!(late.count(), 5);
    // Another gateway may reach what this one cannot.
    let one_of_two =
        "gateway = 0\n[router]\nreplicas = 2\nhealth = { interval_s = 1000.0, connect_timeout_s = 1.5 }\n";
    let (all, day) = outcomes(&parted(one_of_two));
    let lost: Vec<_> = all.iter().filter(|outcome| outcome.finish == Finish::Lost).collect();
    assert!(!lost.is_empty() && lost.iter().all(|outcome| outcome.attempt.request.0 % 2 == 0), "{lost:?}");
    assert_eq!(day.lost as usize, lost.len());
    // Both cannot, one after the other, at times that overlap.
    let later = "gateway = 0\n[[events]]\nkind = \"partition\"\nreplica = 1\nat_s = 15.15\nfor_s = 10.0\ngateway = 1\n\
                 [router]\nreplicas = 2\nhealth = { interval_s = 1000.0, connect_timeout_s = 1.5 }\n";
    let (all, _) = outcomes(&parted(later));
    let lost = all.iter().filter(|outcome| outcome.finish == Finish::Lost);
    let lost: Vec<(u32, f64)> = lost.map(|one| (one.attempt.request.0 % 2, one.sent.as_s())).collect();
    let meant = [10.1..18.7, 15.1..23.7];
    assert!(lost.iter().all(|(gateway, sent)| meant[*gateway as usize].contains(sent)), "{lost:?}");
    assert!([0, 1].iter().all(|gateway| lost.iter().any(|one| one.0 == *gateway)), "{lost:?}");
}

/// Whoever gives up where nothing passes and comes again by another gateway is served by it at once, by whichever replica.
#[test]
fn a_second_try_by_another_gateway_does_not_wait_for_the_first_ones_network() {
    let parted = "[[events]]\nkind = \"partition\"\nreplica = \"all\"\nat_s = 20.15\nfor_s = 30.0\ngateway = 0\n\
                  [clients]\nretries = 1\ntimeout_s = { whole = 3.0 }\n\
                  [router]\nreplicas = 2\nhealth = { interval_s = 1000.0 }\n";
    // A second each, so some are there when it begins: word that these are given up arrives when it is over.
    let (all, day) = outcomes(&busy(parted, 4, 4.0, 10));
    let again: Vec<_> = all.iter().filter(|outcome| outcome.attempt.number > 0).collect();
    assert!(again.len() >= 50 && day.timed_out_tries >= 50, "{day:?}");
    let served = again.iter().filter(|outcome| outcome.finish.is_complete());
    assert!(served.clone().all(|outcome| outcome.e2e().unwrap().as_s() < 5.0), "3 s, and an answer");
    assert_eq!(again.len(), served.count(), "{day:?}");
}

/// What gets lost comes 200 ms later, or 600, or 1,400; nothing else changes.
#[test]
fn lost_messages_are_sent_again() {
    let lossy = "[[events]]\nkind = \"network\"\nreplica = 0\nat_s = 0.0\nloss = 0.2\n";
    let (calm, _) = outcomes(&busy("[clients]\nretries = 1\n", 1, 2.0, 2));
    let (all, _) = outcomes(&busy(lossy, 1, 2.0, 2));
    let late_ms = |(with, without): (&Outcome, &Outcome)| {
        ((with.e2e().unwrap().as_ms() - without.e2e().unwrap().as_ms()) / 100.0).round() as i64 * 100
    };
    let late: Vec<i64> = all.iter().zip(&calm).map(late_ms).collect();
    let share = late.iter().filter(|ms| **ms > 0).count() as f64 / late.len() as f64;
    // A request, its first token or its end: 1 - 0.8^3 at most, since a first token that is late may hide a lost end.
    assert!((0.30..0.60).contains(&share), "{share}");
    assert!(
        late.iter().all(|ms| *ms >= 0) && late.contains(&200) && late.iter().max() >= Some(&600),
        "{late:?}"
    );
}

/// Its connections break, clients see it, and one in two comes to nobody for a second; after that all come to the other.
#[test]
fn a_gateway_that_is_lost_takes_its_connections_along() {
    let lost = "[[events]]\nkind = \"gateway-lost\"\ngateway = 1\nat_s = 20.45\nrestart_s = 5.0\n\
                [router]\nreplicas = 2\npolicy = \"least-request\"\n";
    let (all, day) = outcomes(&busy(lost, 2, 10.0, 4));
    let incident = &day.incidents[0];
    assert_eq!((incident.gateway, incident.replica), (Some(1), None));
    assert_eq!((incident.noticed_after_s, incident.over_after_s), (Some(1.0), Some(5.0)));
    let lost: Vec<_> = all.iter().filter(|outcome| outcome.finish == Finish::Lost).collect();
    assert!(lost.iter().all(|outcome| outcome.attempt.request.0 % 2 == 1), "its own alone");
    // Of 0.4 s each, ten a second: two were under way; five came until clients knew.
    let (broken, refused): (Vec<&Outcome>, Vec<&Outcome>) =
        lost.iter().partition(|outcome| outcome.sent.as_s() < 20.45);
    assert!((1..=3).contains(&broken.len()) && refused.len() == 5, "{} {}", broken.len(), refused.len());
    assert!(refused.iter().all(|outcome| outcome.replica.is_none()));
    // Engines free what nobody reads any more, so nobody is slower afterwards.
    assert!(sent_in(&all, 21.5..60.0).iter().all(|outcome| outcome.finish.is_complete()));
    let retried = format!(
        "{lost}\n[clients]\nretries = 1\n",
        lost = "[[events]]\nkind = \"gateway-lost\"\ngateway = 1\nat_s = 20.45\n[router]\nreplicas = 2\n"
    );
    let (all, day) = outcomes(&busy(&retried, 2, 10.0, 4));
    assert_eq!((finished(&all, Finish::Lost), day.lost), (0, 0));
}

/// llm-d-router#2295: a reaper that takes live requests for leaked ones frees their slots, and the limit lets in as many again.
#[test]
fn counters_that_are_lost_let_in_too_many() {
    let limited = |more: &str| {
        let text =
            format!("[router]\nadmission = {{ most_in_flight = 4, queue = {{ ttl_s = 100.0 }} }}\n{more}");
        // Ten steps of 100 ms: one second each, eight a second.
        outcomes(&busy(&text, 2, 8.0, 10).replace("requests = 480", "requests = 80"))
    };
    let most_at_once = |all: &[Outcome]| {
        let spans = || all.iter().map(|outcome| (outcome.arrived.unwrap(), outcome.done_received));
        let at = |moment| spans().filter(|(from, to)| (*from..*to).contains(&moment)).count();
        spans().map(|(from, _)| at(from)).max().unwrap()
    };
    let (all, _) = limited("");
    assert_eq!(most_at_once(&all), 4);
    let lost = "[[events]]\nkind = \"counters-lost\"\ngateway = 0\nat_s = 5.05\n";
    let (all, day) = limited(lost);
    assert_eq!(most_at_once(&all), 8, "as many again");
    assert!(all.iter().all(|outcome| outcome.finish.is_complete()));
    assert_eq!((day.incidents[0].gateway, day.incidents[0].kind.as_str()), (Some(0), "counters-lost"));
}

/// Of a fleet with one gateway whose only one goes, nobody is served until another is there.
#[test]
fn without_a_gateway_there_is_nobody_to_come_to() {
    let lost = "[[events]]\nkind = \"gateway-lost\"\ngateway = \"any\"\nat_s = 20.45\n";
    let (all, _) = outcomes(&busy(lost, 2, 10.0, 2));
    assert!(sent_in(&all, 20.45..30.45).iter().all(|outcome| outcome.finish == Finish::Lost));
    assert!(sent_in(&all, 30.5..60.0).iter().all(|outcome| outcome.finish.is_complete()));
}

/// Two of four turns go to a replica that takes ten times as long: a second copy mends what a slow one does to first tokens.
#[test]
fn a_second_copy_goes_to_another_and_the_slower_is_cancelled() {
    let slow = "[[events]]\nkind = \"slow-down\"\nreplica = 1\nat_s = 0.0\nfactor = 10.0\n";
    let hedged = |more: &str| busy(&format!("{slow}{more}"), 2, 1.0, 2);
    let (plain, _) = outcomes(&hedged(""));
    let worst = |all: &[Outcome]| all.iter().map(|outcome| outcome.ttft().unwrap()).max().unwrap().as_ms();
    assert!(worst(&plain) >= 1_000.0);
    let (all, day) = outcomes(&hedged("[router.hedging]\nafter_ms = 300\n"));
    assert!(all.iter().all(|outcome| outcome.finish.is_complete() && outcome.output_tokens() == 2));
    assert!(worst(&all) <= 501.0, "300 ms, what is left of a step there, and a step: {}", worst(&all));
    assert!(day.hedges >= 25 && all.iter().all(|outcome| outcome.replica == Some(0)), "{day:?}");
    assert_eq!(day.lost + day.timed_out, 0);
    // Word that it is wanted no more waits for the step under way, and that gives the slow one its first token.
    assert_eq!(day.output_tokens_wasted, day.hedges);
    let (_, day) = outcomes(&hedged("[router.hedging]\nafter_ms = 300\nbudget = 0.1\n"));
    assert!((4..=6).contains(&day.hedges), "{day:?}");
    // A copy that dies leaves the other.
    let crash = "[[events]]\nkind = \"crash\"\nreplica = 1\nat_s = 1.35\nrestart_s = \"never\"\n[router.hedging]\nafter_ms = 300\n\
                 [router.health]\ninterval_s = 1000.0\n";
    let (all, day) = outcomes(&busy(&format!("{slow}{crash}"), 2, 2.0, 2));
    let (first, second) = (&all[1], all.iter().filter(|outcome| outcome.finish == Finish::Lost));
    assert!(first.finish.is_complete() && first.replica == Some(0), "{first:?}");
    assert!(day.hedges >= 1 && second.clone().all(|outcome| outcome.sent.as_s() > 1.35));
}

/// A replica that comes back has nothing in flight; whoever counts requests would give it everything.
#[test]
fn who_has_just_come_back_gets_less_at_first() {
    let back = |more: &str| {
        let text = format!(
            "[[events]]\nkind = \"drain\"\nreplica = 0\nat_s = 5.0\nrestart_s = 5.0\n[router]\npolicy = \"least-request\"\n\
             [router.health]\ninterval_s = 1.0\n{more}"
        );
        let (all, _) = outcomes(&busy(&text, 4, 40.0, 20));
        let share = |from: f64, to: f64| {
            let sent = sent_in(&all, from..to);
            sent.iter().filter(|outcome| outcome.replica == Some(0)).count() as f64 / sent.len() as f64
        };
        let first = all.iter().filter(|o| o.replica == Some(0)).map(|o| o.sent.as_s()).find(|at| *at > 8.0);
        let first = first.unwrap();
        (share(first, first + 0.5), share(first + 4.0, first + 6.0), share(first + 12.0, first + 20.0))
    };
    let (at_once, _, settled) = back("");
    assert!(at_once > 0.9 && (0.2..0.3).contains(&settled), "{at_once} {settled}");
    let (slowly, midway, settled) = back("slow_start_s = 10.0\n");
    assert!(slowly < 0.3 && midway < 0.24 && (0.2..0.3).contains(&settled), "{slowly} {midway} {settled}");
}

/// llm-d-router#2408: where gauges cannot be read, a detector takes the pool for saturated, and everybody waits for nothing.
#[test]
fn a_detector_that_fails_closed_blocks_an_idle_pool() {
    let blind = |router: &str| {
        let event = "[[events]]\nkind = \"metrics-lost\"\nreplica = \"all\"\nat_s = 20.0\nfor_s = 20.0\n";
        outcomes(&paced(&format!("[router]\nadmission = {router}\n{event}"), 2))
    };
    let (all, day) = blind("{ saturation = {}, queue = { ttl_s = 8.0 } }");
    let meanwhile = sent_in(&all, 20.3..32.2);
    assert!(!meanwhile.is_empty() && meanwhile.iter().all(|outcome| outcome.finish == Finish::Unavailable));
    // Those who come later wait until something is read again.
    assert!(sent_in(&all, 32.3..39.0).iter().all(|outcome| outcome.done_received.as_s() >= 40.0));
    assert!(sent_in(&all, 32.3..60.0).iter().all(|outcome| outcome.finish.is_complete()));
    assert!(day.unavailable_tries as usize == meanwhile.len(), "{day:?}");
    // Without a queue, only who can wait is refused.
    let (all, _) = blind("{ saturation = {} }");
    assert!(all.iter().all(|outcome| outcome.finish.is_complete()));
}

/// A flood of one class and a trickle of another, one slot: by turns, the trickle does not wait for the flood.
#[test]
fn classes_take_turns() {
    let (flood, trickle) = (40, 4);
    let waits = |fairness: &str, priority: i32| {
        let class = |name: &str, share: u32, priority: i32| {
            format!("[[workload.classes]]\nname = \"{name}\"\nshare = {share}\npriority = {priority}\n")
        };
        let text = format!(
            "[router]\nadmission = {{ most_in_flight = 1, queue = {{ fairness = \"{fairness}\" }} }}\n{}{}",
            class("flood", flood, priority),
            class("trickle", trickle, 0)
        );
        let (all, _) = outcomes(&busy(&text, 1, 8.0, 2).replace("requests = 480", "requests = 120"));
        let mean = |class: u16| {
            let own: Vec<f64> =
                all.iter().filter(|o| o.class == class).map(|o| o.ttft().unwrap().as_s()).collect();
            own.iter().sum::<f64>() / own.len() as f64
        };
        (mean(0), mean(1))
    };
    let (flood_first, trickle_first) = waits("first-come", 0);
    assert!(trickle_first > 2.0 && (trickle_first / flood_first) > 0.5);
    let (_, trickle_by_turns) = waits("round-robin", 0);
    assert!(trickle_by_turns < 0.7, "a turn of the flood at most: {trickle_by_turns}");
    // Who is more urgent goes first, turns or not.
    let (flood_urgent, trickle_behind) = waits("round-robin", -1);
    assert!(trickle_behind > 2.0 * flood_urgent, "{trickle_behind} {flood_urgent}");
}

/// A machine that is taken back: announced, drained for as long, and replaced.
#[test]
fn a_spot_machine_is_drained_and_replaced() {
    let taken =
        "[[events]]\nkind = \"spot-loss\"\nreplica = 0\nat_s = 10.0\nnotice_s = 20.0\nrestart_s = 10.0\n";
    let (all, day) = outcomes(&paced(taken, 2));
    assert_eq!(finished(&all, Finish::Stop), 60);
    let incident = &day.incidents[0];
    assert_eq!((incident.kind.as_str(), incident.noticed_after_s), ("spot-loss", Some(1.0)));
    assert!(incident.over_after_s.unwrap() < 13.0, "{incident:?}");
    assert!(sent_in(&all, 11.5..20.0).iter().all(|outcome| outcome.replica == Some(1)));
}

#[test]
fn mistakes_are_refused_where_they_stand() {
    let event = |keys: &str| format!("[[events]]\nat_s = 1.0\n{keys}");
    let cases = [
        (event("kind = \"partition\"\nreplica = 0"), "a partition needs an end"),
        (event("kind = \"partition\"\nreplica = 0\nfor_s = 0.0"), "expected a number above 0"),
        (event("kind = \"partition\"\nreplica = 0\nfor_s = 1.0\ngateway = 1"), "there is only gateway 0"),
        (
            event("kind = \"partition\"\nreplica = 0\nfor_s = 1.0\ngateway = \"any\""),
            "of one gateway, or of all",
        ),
        (
            event(
                "kind = \"gateway-lost\"\ngateway = 0\nrestart_s = \"never\"\n[[events]]\nkind = \"counters-lost\"\nat_s = 9.0\ngateway = 0",
            ),
            "gateway 0 is gone for ever since",
        ),
        (event("kind = \"network\"\nreplica = 0\nloss = 0.0"), "changes nothing"),
        (
            event(
                "kind = \"partition\"\nreplica = 0\nfor_s = 99.0\ngateway = 0\n[[events]]\nkind = \"partition\"\nat_s = 9.0\nfor_s = 1.0\nreplica = 0",
            ),
            "lasts until",
        ),
        ("[clients]\ntimeout_s = { first_token = 1e12 }".into(), "expected at most 8640000 s"),
        ("[router.hedging]\nafter_ms = 1e12".into(), "expected at most 8640000000 ms"),
        (event("kind = \"gateway-lost\""), "needs a gateway"),
        (event("kind = \"counters-lost\""), "a counters-lost needs a gateway"),
        (event("kind = \"counters-lost\"\ngateway = 0\n[router.view]\nshared = true"), "are not lost by one"),
        (event("kind = \"gateway-lost\"\ngateway = \"some\""), "a gateway's number, or \"any\""),
        (event("kind = \"gateway-lost\"\ngateway = 0\nreplica = 0"), "says nothing of a gateway-lost"),
        (event("kind = \"network\"\nreplica = 0\nloss = 1.0"), "expected a share of 0 to 0.9"),
        (event("kind = \"spot-loss\"\nreplica = 0\nnotice_s = -1.0"), "expected 0 or a number above it"),
        (event("kind = \"drain\"\nreplica = 0\nnotice_s = 1.0"), "says nothing of a drain"),
        ("[router]\nreplicas = 100000000".into(), "expected 1 to 1000 gateways"),
        ("[router.hedging]\nafter_ms = 0.0".into(), "expected a number above 0"),
        ("[router.hedging]\nbudget = 0.1".into(), "`after_ms` is missing"),
        ("[router.hedging]\nafter_ms = 5.0\nbudget = 2.0".into(), "expected a share, 0 to 1"),
        ("[router.health]\nslow_start_aggression = 2.0".into(), "nobody starts slowly"),
        ("[router.health]\nconnect_timeout_s = 0.0".into(), "expected a number above 0"),
        ("[router.admission]\nsaturation = { queue_depth = 0 }".into(), "expected a number above 0"),
        ("[router.admission]\nsaturation = { shedding = \"all\" }".into(), "saturated"),
        ("[router.admission]\nqueue = { fairness = \"fair\" }".into(), "round-robin"),
    ];
    for (keys, message) in cases {
        let text = paced(&keys, 2);
        let loaded = Loaded::from_text("scenario.toml", Path::new(""), text, &[]);
        let said = loaded.and_then(|loaded| loaded.resolve()).expect_err(&keys).to_string();
        assert!(
            said.contains(message) && said.contains("scenario.toml:") && said.contains('^'),
            "{keys}\n{said}"
        );
    }
}
