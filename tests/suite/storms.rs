//! Laws 1, 3, 4, 7 and 8 of whole fleets on bad days: crashes, slow-downs, drains, deploys, impatient clients, retries.
//!
//! Seeds are fresh every time; a failure prints the case and the one command that repeats it.
#![expect(clippy::disallowed_methods, reason = "a seed that is to be repeated comes from the environment")]

use std::sync::Arc;

use proptest::prelude::*;
use proptest::test_runner::{RngAlgorithm, TestRng, TestRunner};
use tailcast::autoscaler::behavior::Behavior;
use tailcast::autoscaler::{Autoscaler, Metric, hpa, keda, predictive};
use tailcast::fleet::admission::{Admission, Queue};
use tailcast::fleet::health::Health;
use tailcast::fleet::hedging::Hedging;
use tailcast::fleet::incidents::{Back, Incident, What, When, Whom};
use tailcast::fleet::patience::{Backoff, Patience, Retries};
use tailcast::fleet::saturation::Saturation;
use tailcast::fleet::scaling::Scale;
use tailcast::fleet::{End, Ended, Fleet, FleetConfig};
use tailcast::metrics::LaneStats;
use tailcast::observe::{Observer, Silence};
use tailcast::random::Seed;
use tailcast::request::{Finish, Outcome};
use tailcast::router::{POLICIES, policies};
use tailcast::time::{Span, Time};
use tailcast::workload::{Job, OpenLoop};

use crate::fleets::{Setting, facts, jobs, routers, setting};

fn at_ms(ms: u64) -> Time {
    Time::ZERO + Span::from_ms(ms)
}

fn incident() -> impl Strategy<Value = Incident> {
    let when = prop_oneof![
        3 => (0u64..3_000).prop_map(|ms| When::At(at_ms(ms))),
        1 => (50u64..1_000, any::<bool>(), 0u64..500).prop_map(|(mean, even, from)| When::Every {
            mean: Span::from_ms(mean),
            even,
            from: at_ms(from),
            until: at_ms(4_000),
        }),
    ];
    // Numbers are taken modulo the size of the fleet.
    let whom = prop_oneof![3 => (0usize..6).prop_map(Whom::One), 2 => Just(Whom::Any), 1 => Just(Whom::All)];
    let back = prop_oneof![
        1 => Just(Back::Never),
        2 => Just(Back::Started),
        3 => (0u64..1_500).prop_map(|ms| Back::After(Span::from_ms(ms))),
    ];
    let what = (0u32..10, whom, back, 0u64..800, 100u32..5_000, prop::option::of(1u64..900)).prop_map(
        |(kind, whom, back, grace, per_mille, lasts)| {
            let grace = Span::from_ms(grace);
            match kind {
                0 => What::Crash { whom, back },
                1 => What::SlowDown { whom, per_mille, lasts: lasts.map(Span::from_ms) },
                2 => What::Drain { whom, grace, back },
                3 => {
                    let loss = f64::from(per_mille % 7) / 10.0;
                    What::Network { whom, delay: grace, loss, lasts: lasts.map(Span::from_ms) }
                }
                4 => What::MetricsLost { whom, lasts: lasts.map(Span::from_ms) },
                5 => What::SpotLoss { whom, notice: grace, back },
                6 => {
                    let gateway = lasts.map(|lasts| lasts as usize);
                    What::Partition { whom, gateway, lasts: grace + Span::from_ms(1) }
                }
                8 => What::CountersLost { gateway: lasts.map(|lasts| lasts as usize) },
                7 => {
                    let gateway = lasts.map(|lasts| lasts as usize);
                    What::GatewayLost { gateway, noticed: grace, back }
                }
                _ => {
                    What::RollingDeploy { at_once: 1 + per_mille % 2, surge: per_mille / 2 % 3, grace, back }
                }
            }
        },
    );
    (when, what).prop_map(|(when, what)| Incident { when, what })
}

fn backoff() -> impl Strategy<Value = Backoff> {
    (0u64..200, 1.0f64..3.0, 0.0f64..1.0).prop_map(|(first, factor, jitter)| Backoff {
        first: Span::from_ms(first),
        factor,
        longest: Span::from_ms(400),
        jitter,
    })
}

fn patience() -> impl Strategy<Value = Patience> {
    let limit = || prop::option::of((1u64..2_000).prop_map(Span::from_ms));
    let gap = prop::option::of((1u64..300).prop_map(Span::from_ms));
    (limit(), gap, limit(), 0u32..4, backoff(), prop::option::of(0.0f64..1.0)).prop_map(
        |(first_token, between_tokens, whole, retries, backoff, budget)| Patience {
            first_token,
            between_tokens,
            whole,
            retries,
            backoff,
            budget,
        },
    )
}

fn health() -> impl Strategy<Value = Health> {
    (1u64..300, 1u32..4, 0u64..200, 0u32..3, 0.0f64..0.7, (0u64..900, 1u64..400)).prop_map(
        |(interval, checks, watch, eject_after, share, (slow_start, connect))| Health {
            interval: Span::from_ms(interval),
            unhealthy_after: checks,
            healthy_after: 4 - checks,
            watch_delay: Span::from_ms(watch),
            eject_after,
            ejection: Span::from_ms(interval * 3),
            most_ejected: share,
            panic_below: if share < 0.3 { 0.0 } else { share },
            slow_start: Span::from_ms(slow_start.saturating_sub(400)),
            slow_start_aggression: 0.5 + share,
            connect_timeout: Span::from_ms(connect),
        },
    )
}

fn admission() -> impl Strategy<Value = Admission> {
    let limits = (prop::option::of(1u32..20), prop::option::of(1u32..60));
    let queue = (1u32..40, 1u64..2_000, any::<bool>()).prop_map(|(max_requests, ttl, classes_take_turns)| {
        Queue { max_requests, ttl: Span::from_ms(ttl), classes_take_turns }
    });
    let saturation =
        (0.5f64..6.0, 0.1f64..1.0, 1u64..600, any::<bool>()).prop_map(|(depth, usage, stale, early)| {
            Saturation {
                queue_depth: depth,
                kv_cache_usage: usage,
                staleness: Span::from_ms(stale),
                probabilistic: early,
            }
        });
    let gates = (prop::option::of(queue), prop::option::of(saturation));
    let some = (prop::option::of(1.0f64..200.0), 1.0f64..20.0, limits, gates).prop_map(
        |(rate_per_s, burst, (most_per_replica, most_in_flight), (queue, saturation))| Admission {
            rate_per_s,
            burst,
            most_per_replica,
            most_in_flight,
            queue,
            saturation,
        },
    );
    prop_oneof![2 => Just(Admission::default()), 1 => some]
}

/// An autoscaler in a hurry, its limits in shares of the fleet, and which one it is.
#[derive(Clone, Copy, Debug)]
struct Scaled {
    scale: Scale,
    kind: u32,
    target: f64,
}

impl Scaled {
    fn autoscaler(&self) -> Box<dyn Autoscaler> {
        let behavior = Behavior {
            scale_up_stabilization_window_s: 0.1,
            scale_down_stabilization_window_s: 0.3,
            period_s: 0.2,
            ..Behavior::default()
        };
        match self.kind {
            0 => Box::new(
                hpa::Hpa::new(hpa::Parameters {
                    metric: Metric::NumRequests,
                    target: self.target,
                    behavior,
                    ..hpa::Parameters::default()
                })
                .unwrap(),
            ),
            1 => Box::new(
                keda::Keda::new(keda::Parameters {
                    metric: Metric::NumRequests,
                    threshold: self.target,
                    cooldown_period_s: 0.4,
                    behavior,
                    ..keda::Parameters::default()
                })
                .unwrap(),
            ),
            _ => Box::new(
                predictive::Predictive::new(&predictive::Parameters {
                    requests_per_s_per_replica: 10.0 * self.target,
                    headroom: 0.2,
                    alpha: 0.5,
                    beta: 0.2,
                    scale_down_stabilization_window_s: 0.3,
                })
                .unwrap(),
            ),
        }
    }
}

fn scaled(servers: usize) -> impl Strategy<Value = Option<Scaled>> {
    let most = servers as u32;
    let limits = (0..=most).prop_flat_map(move |least| (Just(least), least..=most));
    let spans = (100u64..600, 50u64..400, 0u64..300, 0u64..500);
    let scaled = (limits, spans, 0u32..3, 0.5f64..8.0).prop_map(
        move |((least, initial), (interval, scrape, node, grace), kind, target)| Scaled {
            scale: Scale {
                initial,
                least: if kind == 0 { least.max(1).min(initial.max(1)) } else { least },
                most,
                interval: Span::from_ms(interval),
                scrape_interval: Span::from_ms(scrape),
                node_start_up: Span::from_ms(node),
                grace: Span::from_ms(grace),
            },
            kind,
            target,
        },
    );
    prop_oneof![1 => Just(None), 1 => scaled.prop_map(Some)]
}

/// A fleet on a bad day, and who makes it larger and smaller.
type Storm = (Setting, Option<Scaled>);

fn storm() -> impl Strategy<Value = Storm> {
    bad_day().prop_flat_map(|setting| {
        let servers = setting.servers;
        (Just(setting), scaled(servers), 0..servers.min(3)).prop_map(|(mut setting, scaled, spare)| {
            // An autoscaler has its own that are not there.
            setting.config.spare = if scaled.is_none() { spare } else { 0 };
            (setting, scaled)
        })
    })
}

/// A fleet on a bad day.
fn bad_day() -> impl Strategy<Value = Setting> {
    let incidents = prop::collection::vec(incident(), 0..6);
    let retries = (0u32..3, backoff()).prop_map(|(attempts, backoff)| Retries { attempts, backoff });
    let hedging = (1u64..400, prop::option::of(0.0f64..1.0))
        .prop_map(|(after, budget)| Hedging { after: Span::from_ms(after), budget });
    let gates = (retries, admission(), prop::option::weighted(0.3, hedging));
    (setting(), incidents, patience(), gates, health()).prop_map(
        |(setting, mut incidents, patience, (retries, admission, hedging), health)| {
            for incident in &mut incidents {
                if let What::Crash { whom: Whom::One(server), .. }
                | What::SlowDown { whom: Whom::One(server), .. }
                | What::Network { whom: Whom::One(server), .. }
                | What::MetricsLost { whom: Whom::One(server), .. }
                | What::SpotLoss { whom: Whom::One(server), .. }
                | What::Partition { whom: Whom::One(server), .. }
                | What::Drain { whom: Whom::One(server), .. } = &mut incident.what
                {
                    *server %= setting.servers;
                }
                if let What::Partition { gateway: Some(gateway), .. }
                | What::CountersLost { gateway: Some(gateway) }
                | What::GatewayLost { gateway: Some(gateway), .. } = &mut incident.what
                {
                    *gateway %= setting.gateways as usize;
                }
            }
            if setting.config.impairments.shared {
                incidents.retain(|incident| !matches!(incident.what, What::CountersLost { .. }));
            }
            let incidents = incidents.into();
            let config =
                FleetConfig { incidents, patience, retries, admission, hedging, health, ..setting.config };
            Setting { config, ..setting }
        },
    )
}

fn run<O: Observer + Send + Default>(
    (setting, scaled): &Storm,
    policy: &str,
    jobs: &[Job],
    check: bool,
) -> (Vec<Outcome>, Ended<O>) {
    let replicas = (0..setting.servers).map(|_| (facts(setting.blocks), O::default())).collect();
    let mut outcomes = Vec::new();
    let config = FleetConfig { check, ..setting.config.clone() };
    let mut fleet = Fleet::new(config, replicas, routers(policy, setting));
    if let Some(scaled) = scaled {
        fleet = fleet.scaled(scaled.scale, (0..setting.servers).collect(), scaled.autoscaler());
    }
    let again = |gateway: usize, lost: u32| {
        let gateway = u64::from(lost) << 32 | gateway as u64;
        policies::build(policy, &toml::Table::new(), Seed(setting.seed), gateway).unwrap()
    };
    let source = &mut OpenLoop::new(jobs.into());
    let ended = fleet.run_with(source, &mut |outcome| outcomes.push(outcome), &again);
    outcomes.sort_by_key(|outcome| outcome.attempt.request);
    (outcomes, ended)
}

/// Law 1, of requests and of tries; laws 2 to 4 are asserted inside.
fn holds(storm: &Storm, policy: &str, jobs: &[Job]) -> Result<(), TestCaseError> {
    let (outcomes, ended) = run::<Silence>(storm, policy, jobs, true);
    let (setting, scaled) = storm;
    let sent_in_time = |job: &&Job| match setting.config.end {
        End::Drain => true,
        End::At(end) => job.sent < end,
    };
    prop_assert_eq!(outcomes.len(), jobs.iter().filter(sent_in_time).count(), "{}", policy);
    let Patience { first_token, whole, retries, .. } = setting.config.patience;
    let most_tries = (1 + retries) * (1 + setting.config.retries.attempts);
    for (outcome, job) in outcomes.iter().zip(jobs) {
        prop_assert_eq!(outcome.attempt.request, job.request.id);
        prop_assert!(outcome.attempt.number < most_tries, "{}: {:?}", policy, outcome);
        match outcome.finish {
            Finish::Unfinished => prop_assert!(setting.config.end != End::Drain, "{}: {:?}", policy, outcome),
            Finish::TimedOut => prop_assert!(setting.config.patience.ends()),
            Finish::Stop | Finish::Length => {
                let limit = facts(40).engine.max_model_len;
                let due = job.request.output_tokens.min(limit - job.request.prompt_tokens);
                prop_assert_eq!(outcome.output_tokens(), due);
                prop_assert!(outcome.ttft() <= outcome.e2e());
                // No client gets an answer that it did not wait for.
                if let (Some(whole), 0) = (whole, outcome.attempt.number) {
                    prop_assert!(outcome.e2e().unwrap() <= whole);
                }
                if let (Some(first), 0) = (first_token, outcome.attempt.number) {
                    prop_assert!(outcome.ttft().unwrap() <= first);
                }
            }
            _ => {}
        }
    }
    let has_come = |outcome: &&Outcome| outcome.finish != Finish::Unfinished;
    let again = outcomes.iter().filter(has_come).filter(|outcome| outcome.attempt.number > 0).count() as u64;
    prop_assert!(ended.tally.tries - ended.tally.requests + ended.tally.gateway_retries >= again);
    let in_order = ended.happened.windows(2).all(|pair| pair[0].at <= pair[1].at);
    prop_assert!(
        in_order && ended.happened.iter().all(|one| one.noticed.is_none_or(|noticed| noticed >= one.at))
    );
    if let (Some(scaled), Some(book)) = (scaled, &ended.scaling) {
        let Scale { least, most, initial, .. } = scaled.scale;
        let lived = ended.at - Time::ZERO;
        prop_assert!(book.paid <= lived * u64::from(most), "{}: {:?}", policy, book);
        prop_assert!(book.changes.windows(2).all(|pair| pair[0].at < pair[1].at));
        for (place, change) in book.changes.iter().enumerate() {
            let wanted = if place == 0 { initial..=initial } else { least.min(initial)..=most };
            prop_assert!(wanted.contains(&change.wanted) && change.ready <= most, "{}: {:?}", policy, book);
        }
    }
    Ok(())
}

/// The same again is the same, whoever listens (law 7).
fn repeats(storm: &Storm, policy: &str, jobs: &[Job]) -> Result<(), TestCaseError> {
    let (first, ended) = run::<Silence>(storm, policy, jobs, true);
    let (again, ended_again) = run::<LaneStats>(storm, policy, jobs, false);
    prop_assert_eq!(first, again, "{}", policy);
    prop_assert_eq!(ended.scaling, ended_again.scaling, "{}", policy);
    Ok(())
}

fn through_storms(name: &str, cases: u32, test: fn(&Storm, &str, &[Job]) -> Result<(), TestCaseError>) {
    let fresh = || std::hash::BuildHasher::hash_one(&std::hash::RandomState::new(), name);
    let seed =
        std::env::var("TAILCAST_SEED").map_or_else(|_| fresh(), |seed| seed.parse().expect("a number"));
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    let config = ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() };
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &bytes);
    // Each storm meets a few policies, and all of them together meet each policy often.
    let cases = (storm(), any::<prop::sample::Index>());
    let outcome = TestRunner::new_with_rng(config, rng).run(&cases, |(storm, first)| {
        let setting = &storm.0;
        let jobs = jobs(setting.seed, setting.requests, setting.rate_per_s);
        let first = first.index(POLICIES.len());
        for policy in POLICIES.iter().cycle().skip(first).take(6).filter(|policy| policy.name != "script") {
            test(&storm, policy.name, &jobs)?;
        }
        Ok(())
    });
    if let Err(failure) = outcome {
        panic!("{failure}\nrepeat it with: TAILCAST_SEED={seed} cargo test --test suite storms::{name}");
    }
}

#[test]
fn every_request_has_one_outcome_in_any_storm() {
    through_storms("every_request_has_one_outcome_in_any_storm", 300, holds);
}

#[test]
fn storms_repeat_to_the_bit() {
    through_storms("storms_repeat_to_the_bit", 60, repeats);
}

/// Ten thousand storms: `cargo test --test suite ten_thousand -- --ignored`.
#[test]
#[ignore = "two minutes"]
fn ten_thousand_storms() {
    through_storms("ten_thousand_storms", 10_000, holds);
}

/// A day on which nothing happens is the same with all the machinery in place: checks, limits nobody reaches, retries
/// nobody needs (law 7).
#[test]
fn where_nothing_happens_nothing_changes() {
    let mut runner = TestRunner::new(ProptestConfig { cases: 60, ..ProptestConfig::default() });
    let outcome = runner.run(&setting(), |setting| {
        let jobs = jobs(setting.seed, setting.requests, setting.rate_per_s);
        let never = Some(Span::from_s(3_600));
        let config = FleetConfig {
            incidents: Arc::new([Incident {
                when: When::At(Time::ZERO + Span::from_s(7_200)),
                what: What::RollingDeploy { at_once: 1, surge: 0, grace: Span::ZERO, back: Back::Started },
            }]),
            patience: Patience {
                first_token: never,
                between_tokens: never,
                whole: never,
                retries: 3,
                ..Patience::default()
            },
            retries: Retries { attempts: 2, ..Retries::default() },
            health: Health { eject_after: 3, ..Health::default() },
            ..setting.config.clone()
        };
        let armed = (Setting { config, ..setting.clone() }, None);
        // Who may have as many as there are, and no fewer, only watches.
        let servers = setting.servers as u32;
        let scale = Scale {
            initial: servers,
            least: servers,
            most: servers,
            interval: Span::from_ms(300),
            scrape_interval: Span::from_ms(200),
            node_start_up: Span::ZERO,
            grace: Span::ZERO,
        };
        let scaled = (setting.clone(), Some(Scaled { scale, kind: 0, target: 4.0 }));
        let plain = (setting, None);
        for policy in POLICIES {
            let (calm, _) = run::<Silence>(&plain, policy.name, &jobs, false);
            for other in [&armed, &scaled] {
                let (watched, _) = run::<Silence>(other, policy.name, &jobs, false);
                prop_assert_eq!(&calm, &watched, "{}", policy.name);
            }
        }
        Ok(())
    });
    outcome.unwrap();
}
