//! Clients that give up, by phase, and come again.

use tailcast::request::Finish;

use crate::bad_days::{finished, outcomes, paced};

/// A client that gives up takes its request back, and the engine's blocks with it; a retry is the same request.
#[test]
fn clients_give_up_and_try_again() {
    // 40 requests of 10 steps each, one running at a time: each waits for those before it.
    let queue = |clients: &str| {
        paced(clients, 1)
            .replace("requests = 60", "requests = 40")
            .replace("rate_per_s = 1.0", "rate_per_s = 2.0")
            .replace("tokens = 2", "tokens = 10")
            .replace("async_scheduling", "max_num_seqs = 1\nasync_scheduling")
    };
    let (gave_up, day) = outcomes(&queue("[clients]\ntimeout_s = { first_token = 1.05 }\n"));
    let timed_out: Vec<_> = gave_up.iter().filter(|outcome| outcome.finish == Finish::TimedOut).collect();
    assert_eq!(day.timed_out as usize, timed_out.len());
    // One second a request, two a second: half of them can be served.
    assert!((15..=22).contains(&timed_out.len()), "{}", timed_out.len());
    assert!(
        timed_out.iter().all(|outcome| ((outcome.done_received - outcome.sent).as_s() - 1.05).abs() < 1e-9)
    );
    let whole = gave_up.iter().filter(|outcome| outcome.finish.is_complete());
    assert!(whole.clone().all(|outcome| outcome.ttft().unwrap().as_s() <= 1.05));
    let again =
        "[clients]\ntimeout_s = { first_token = 1.05 }\nretries = 2\nbackoff = { first_ms = 100.0 }\n";
    let (tried, day) = outcomes(&queue(again));
    assert_eq!(tried.len(), 40);
    assert!(day.tries > 60 && day.timed_out < timed_out.len() as u64, "{day:?}");
    let budget = format!("{again}retry_budget = 0.1\n");
    let (_, day) = outcomes(&queue(&budget));
    assert!(day.tries <= 44, "{day:?}");
}

/// Tokens come every 0.1 s, until steps take 0.4 s, or nothing passes.
#[test]
fn clients_give_up_when_no_token_comes() {
    let patient = |limit_s: f64, rest: &str| {
        let text = format!("[clients]\ntimeout_s = {{ between_tokens = {limit_s} }}\n{rest}");
        outcomes(&paced(&text, 1).replace("tokens = 2", "tokens = 10"))
    };
    let stream = |rest: &str| patient(0.15, rest);
    let (calm, day) = stream("");
    assert_eq!((finished(&calm, Finish::Stop), day.timed_out), (60, 0));
    let slow = "[[events]]\nkind = \"slow-down\"\nreplica = 0\nat_s = 10.03\nfactor = 4.0\nfor_s = 5.0\n";
    let (slowed, day) = stream(slow);
    let gave_up: Vec<_> = slowed.iter().filter(|outcome| outcome.finish == Finish::TimedOut).collect();
    assert!((4..=8).contains(&gave_up.len()), "{}", gave_up.len());
    assert_eq!(day.timed_out as usize, gave_up.len());
    for outcome in gave_up {
        let (first, end) = (outcome.first_token_received.unwrap(), outcome.done_received);
        // Some tokens 0.1 s apart, then 0.15 s of silence.
        let beyond = ((end - first).as_s() - 0.15) / 0.1;
        assert!((beyond - beyond.round()).abs() < 1e-6 && end.as_s() < 15.5, "{beyond} {end:?}");
    }
    let cut = "[[events]]\nkind = \"partition\"\nreplica = 0\nat_s = 10.5\nfor_s = 3.0\n[router.health]\nconnect_timeout_s = 9.0\n";
    // Silence begins with the last token, a step before nothing passed.
    let slowly = format!("[[events]]\nkind = \"slow-down\"\nreplica = 0\nat_s = 9.0\nfactor = 4.3\n{cut}");
    let (slow, _) = patient(0.7, &slowly);
    let gave_up = slow.iter().filter(|outcome| outcome.finish == Finish::TimedOut);
    let ends: Vec<f64> = gave_up.map(|outcome| outcome.done_received.as_s()).collect();
    assert!(!ends.is_empty() && ends.iter().all(|end| (10.7..11.19).contains(end)), "{ends:?}");
    // In the second case the engine has long answered when its client gives up.
    for limit_s in [0.15, 1.1] {
        let (cut_off, _) = patient(limit_s, cut);
        let gave_up = cut_off.iter().filter(|outcome| outcome.finish == Finish::TimedOut);
        let ends: Vec<f64> = gave_up.map(|outcome| outcome.done_received.as_s()).collect();
        assert!(!ends.is_empty() && ends.iter().all(|end| (end - 10.5 - limit_s).abs() < 0.01), "{ends:?}");
    }
}
