//! Law 7, jumps: the fast path and the literal one give the same life to the last bit, on random engines.
//!
//! Seeds are fresh every time; a failure prints the case and the one command that repeats it.
#![expect(clippy::disallowed_methods, reason = "a seed that is to be repeated comes from the environment")]

use std::cell::Cell;

use proptest::prelude::*;
use proptest::test_runner::{RngAlgorithm, TestRng, TestRunner};
use tailcast::metrics::LaneStats;
use tailcast::observe::{GapRun, Observer, Silence, StepRun};
use tailcast::random::Seed;
use tailcast::replica::{Control, EngineEvent, Input, Limit, Path, Replica};
use tailcast::time::{Span, Time};

use crate::laws::Heard;
use crate::random_engine::{Case, case};

/// Listens for the laws and for the tables at once.
#[derive(Default)]
struct Both {
    heard: Heard,
    stats: LaneStats,
}

impl Observer for Both {
    fn steps(&mut self, run: &StepRun<'_>) {
        self.heard.steps(run);
        self.stats.steps(run);
    }

    fn token_gaps(&mut self, gaps: &GapRun) {
        self.heard.token_gaps(gaps);
        self.stats.token_gaps(gaps);
    }
}

/// All that can be seen of a replica from outside.
#[derive(Debug, PartialEq)]
struct Seen {
    events: Vec<EngineEvent>,
    signals: tailcast::signals::Signals,
    totals: tailcast::replica::Totals,
    evictions: u64,
    free_list: Vec<u32>,
    running: Vec<u32>,
    waiting: Vec<u32>,
    last_tokens: Vec<Option<Time>>,
    steps: u64,
    clock: Time,
}

fn see(replica: &mut Replica) -> Seen {
    let events = replica.take_events().collect();
    let scheduler = replica.scheduler();
    Seen {
        events,
        signals: replica.signals(),
        totals: scheduler.totals(),
        evictions: scheduler.evictions(),
        free_list: scheduler.free_list(),
        running: scheduler.running().map(|id| id.0).collect(),
        waiting: scheduler.waiting().map(|id| id.0).collect(),
        last_tokens: scheduler
            .running()
            .chain(scheduler.waiting())
            .map(|id| replica.last_token_at(id))
            .collect(),
        steps: replica.steps(),
        clock: replica.clock(),
    }
}

/// Lives on both paths side by side, looking at both at the same moments.
fn compare(case: &Case, looks: &[Time], check: bool) -> Result<(), TestCaseError> {
    let lives = [Path::Fast, Path::Literal].map(|path| {
        let mut replica = case.replica_on(path);
        replica.set_check(check);
        replica
    });
    compare_lives(lives, looks).map(|_| ())
}

/// The same of replicas that have been given everything. Returns what came out.
fn compare_lives(lives: [Replica; 2], looks: &[Time]) -> Result<Vec<EngineEvent>, TestCaseError> {
    let mut lives = lives.map(|replica| (replica, Both::default()));
    let mut events = Vec::new();
    for &look in looks.iter().chain([&Time::MAX]) {
        let [fast, literal] = &mut lives;
        fast.0.advance(Limit::Time(look), &mut fast.1);
        literal.0.advance(Limit::Time(look), &mut literal.1);
        let (fast, literal) = (see(&mut fast.0), see(&mut literal.0));
        // The first event that differs says more than both lists.
        for (fast, literal) in fast.events.iter().zip(&literal.events) {
            prop_assert_eq!(fast, literal, "looked at {:?}", look);
        }
        prop_assert_eq!(&fast, &literal, "looked at {:?}", look);
        events.extend(fast.events);
    }
    let [(_, fast), (_, literal)] = lives;
    // The first step or gap that differs says more than both lists.
    for (step, (fast, literal)) in fast.heard.steps.iter().zip(&literal.heard.steps).enumerate() {
        prop_assert_eq!(fast, literal, "step {}", step);
    }
    prop_assert_eq!(fast.heard.steps.len(), literal.heard.steps.len());
    prop_assert_eq!(fast.heard.gaps, literal.heard.gaps);
    prop_assert_eq!(fast.stats, literal.stats);
    Ok(events)
}

/// Cases of each test.
const CASES: u32 = 6_000;

/// Puts random cases to the test, from a seed that is fresh unless `TAILCAST_SEED` names one. What fails is made as
/// small as it gets, and the command that repeats it is printed.
fn on_random_cases<T: std::fmt::Debug>(
    name: &str,
    cases: impl Strategy<Value = T>,
    test: impl Fn(T) -> Result<(), TestCaseError>,
) {
    let fresh = || std::hash::BuildHasher::hash_one(&std::hash::RandomState::new(), name);
    let seed =
        std::env::var("TAILCAST_SEED").map_or_else(|_| fresh(), |seed| seed.parse().expect("a number"));
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    let config = ProptestConfig { cases: CASES, failure_persistence: None, ..ProptestConfig::default() };
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &bytes);
    if let Err(failure) = TestRunner::new_with_rng(config, rng).run(&cases, test) {
        panic!("{failure}\nrepeat it with: TAILCAST_SEED={seed} cargo test --test suite jumps::{name}");
    }
}

#[test]
fn the_fast_path_is_the_literal_one() {
    on_random_cases("the_fast_path_is_the_literal_one", case(), |case| compare(&case, &[], false));
}

#[test]
fn whoever_looks_when() {
    let looks = prop::collection::vec(0u64..400_000, 0..20);
    on_random_cases("whoever_looks_when", (case(), looks, any::<bool>()), |(case, looks, check)| {
        let mut looks: Vec<Time> = looks.into_iter().map(|us| Time::ZERO + Span::from_us(us)).collect();
        looks.sort();
        compare(&case, &looks, check)
    });
}

/// Processes die, start again and change their pace at any moment, and nothing of the dead one shows.
#[test]
fn engines_that_die_and_start_again() {
    let order = prop_oneof![
        2 => Just(Control::Crash),
        3 => Just(Control::Start),
        1 => (200u32..4_000).prop_map(|per_mille| Control::Pace { per_mille }),
    ];
    let orders = prop::collection::vec((0u64..120_000, order), 1..8);
    let looks = prop::collection::vec(0u64..200_000, 0..8);
    on_random_cases("engines_that_die_and_start_again", (case(), orders, looks), |(case, orders, looks)| {
        let at = |us| Time::ZERO + Span::from_us(us);
        let mut looks: Vec<Time> = looks.into_iter().map(at).collect();
        looks.sort();
        let lives = |path| {
            let mut replica = case.replica_on(path);
            for (number, &(us, order)) in orders.iter().enumerate() {
                replica.deliver(at(us), number as u64, Input::Control(order));
            }
            // Law 1: in the end everybody has ended, if by a crash.
            replica.deliver(at(40_000_000), 0, Input::Control(Control::Crash));
            replica
        };
        let [fast, literal] = [Path::Fast, Path::Literal].map(lives);
        let events = compare_lives([fast, literal], &looks)?;
        let mut ended: Vec<u32> = events
            .iter()
            .filter(|event| matches!(event, EngineEvent::Ended(_)))
            .map(|event| event.id().0)
            .collect();
        ended.sort_unstable();
        // Who is aborted before anybody took it in leaves no trace.
        prop_assert!(ended.windows(2).all(|pair| pair[0] < pair[1]));
        let without_abort = case.offers.iter().filter(|offer| offer.abort_us.is_none());
        for offer in without_abort {
            prop_assert!(ended.binary_search(&offer.request.id.0).is_ok(), "request {}", offer.request.id.0);
        }
        Ok(())
    });
}

/// The cases above would prove nothing if they seldom left the literal path.
#[test]
fn most_steps_of_random_cases_are_on_the_clock() {
    let (steps, literal) = (Cell::new(0), Cell::new(0));
    on_random_cases("most_steps_of_random_cases_are_on_the_clock", case(), |case| {
        let mut replica = case.replica();
        replica.advance(Limit::Time(Time::MAX), &mut Both::default());
        steps.set(steps.get() + replica.steps());
        literal.set(literal.get() + replica.literal_steps());
        Ok(())
    });
    assert!(literal.get() * 2 < steps.get(), "{} of {} steps were literal", literal.get(), steps.get());
}

/// Who comes at the very moment at which a process starts finds it, however often somebody looks.
#[test]
fn who_comes_with_the_start_is_served() {
    let job = crate::fleets::jobs(1, 1, 1.0).remove(0);
    let at = |ms| Time::ZERO + Span::from_ms(ms);
    for looks in [vec![], vec![at(2_000)]] {
        let mut replica = crate::fleets::facts(40).replica(0, Seed(1), Path::Fast);
        replica.deliver(at(1_000), 0, Input::Control(Control::Crash));
        looks.iter().for_each(|&look| replica.advance(Limit::Time(look), &mut Silence));
        replica.deliver(at(2_000), 1, Input::Control(Control::Start));
        replica.deliver(at(2_000), 2, Input::Add(job.request.clone()));
        replica.advance(Limit::Time(Time::MAX), &mut Silence);
        let ended: Vec<_> = replica.take_events().collect();
        let EngineEvent::Ended(last) = ended.last().unwrap() else { panic!("{ended:?}") };
        assert!(last.finish.is_complete(), "{last:?}");
    }
}
