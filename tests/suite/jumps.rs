//! Law 7, jumps: the fast path and the literal one give the same life to the last bit, on random engines.
//!
//! Seeds are fresh every time; a failure prints the case, and the seed file that proptest writes repeats it with
//! the same command.

use proptest::prelude::*;
use tailcast::metrics::LaneStats;
use tailcast::observe::{GapRun, Observer, StepRun};
use tailcast::replica::{EngineEvent, Limit, Path, Replica};
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
        steps: replica.steps(),
        clock: replica.clock(),
    }
}

/// Lives on both paths side by side, looking at both at the same moments.
fn compare(case: &Case, looks: &[Time], check: bool) -> Result<(), TestCaseError> {
    let mut lives = [Path::Fast, Path::Literal].map(|path| {
        let mut replica = case.replica_on(path);
        replica.set_check(check);
        (replica, Both::default())
    });
    for &look in looks.iter().chain([&Time::MAX]) {
        let [fast, literal] = &mut lives;
        fast.0.advance(Limit::Time(look), &mut fast.1);
        literal.0.advance(Limit::Time(look), &mut literal.1);
        let (fast, literal) = (see(&mut fast.0), see(&mut literal.0));
        // The first event that differs says more than both lists.
        for (fast, literal) in fast.events.iter().zip(&literal.events) {
            prop_assert_eq!(fast, literal, "looked at {:?}", look);
        }
        prop_assert_eq!(fast, literal, "looked at {:?}", look);
    }
    let [(_, fast), (_, literal)] = lives;
    // The first step or gap that differs says more than both lists.
    for (step, (fast, literal)) in fast.heard.steps.iter().zip(&literal.heard.steps).enumerate() {
        prop_assert_eq!(fast, literal, "step {}", step);
    }
    prop_assert_eq!(fast.heard.steps.len(), literal.heard.steps.len());
    prop_assert_eq!(fast.heard.gaps, literal.heard.gaps);
    prop_assert_eq!(fast.stats, literal.stats);
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1_500, ..ProptestConfig::default() })]

    #[test]
    fn the_fast_path_is_the_literal_one(case in case()) {
        compare(&case, &[], false)?;
    }

    #[test]
    fn whoever_looks_when(case in case(), looks in prop::collection::vec(0u64..400_000, 0..20), check in any::<bool>()) {
        let mut looks: Vec<Time> = looks.into_iter().map(|us| Time::ZERO + Span::from_us(us)).collect();
        looks.sort();
        compare(&case, &looks, check)?;
    }
}
