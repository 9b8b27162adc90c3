//! Laws 1, 2, 3, 5 and 12 of one replica, on random engines. A failure prints the case that repeats it.

use std::collections::BTreeMap;

use proptest::prelude::*;
use tailcast::observe::{GapRun, Observer, StepRun};
use tailcast::replica::{EngineEvent, Input, Limit, Path, Replica};
use tailcast::request::{EngineOutcome, Finish};
use tailcast::time::{Span, Time};

use crate::random_engine::{Case, case};

/// Everything an observer can hear, however it was gathered into runs.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Heard {
    pub(crate) steps: Vec<StepRun<'static>>,
    pub(crate) gaps: BTreeMap<Span, u64>,
}

impl Observer for Heard {
    fn steps(&mut self, run: &StepRun<'_>) {
        self.steps.extend(run.singles());
        // Forty requests of at most 160 tokens end long before.
        assert!(self.steps.len() < 1_000_000, "an engine goes round for ever");
    }

    fn token_gaps(&mut self, gaps: &GapRun) {
        for step in 0..gaps.steps {
            *self.gaps.entry(gaps.first + gaps.growth * step).or_default() += gaps.count;
        }
    }
}

fn ends(replica: &mut Replica) -> Vec<EngineOutcome> {
    let ended = |event| match event {
        EngineEvent::Ended(outcome) => Some(outcome),
        EngineEvent::FirstToken { .. } => None,
    };
    replica.take_events().filter_map(ended).collect()
}

fn lived(case: &Case, check: bool) -> (Replica, Heard) {
    let mut replica = case.replica();
    replica.set_check(check);
    let mut heard = Heard::default();
    replica.advance(Limit::Time(Time::MAX), &mut heard);
    (replica, heard)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    /// Law 1: every request ends once, with the tokens its limits allow. Law 2 is watched at every step.
    #[test]
    fn requests_and_tokens_are_conserved(case in case()) {
        let (mut replica, _) = lived(&case, true);
        let outcomes: BTreeMap<u32, EngineOutcome> = {
            let ends = ends(&mut replica);
            let count = ends.len();
            let by_id: BTreeMap<u32, EngineOutcome> = ends.into_iter().map(|end| (end.id.0, end)).collect();
            prop_assert_eq!(count, by_id.len());
            by_id
        };
        prop_assert_eq!(outcomes.len(), case.offers.len());
        for offer in &case.offers {
            let request = &offer.request;
            let outcome = &outcomes[&request.id.0];
            let room = case.engine.max_model_len - request.prompt_tokens;
            let limit = request.max_tokens.unwrap_or(room).min(room);
            let due = request.output_tokens.min(limit);
            match outcome.finish {
                Finish::Stop => prop_assert_eq!(outcome.output_tokens, request.output_tokens),
                Finish::Length => prop_assert_eq!(outcome.output_tokens, due),
                Finish::Aborted => {
                    prop_assert!(offer.abort_us.is_some());
                    prop_assert!(outcome.output_tokens <= due);
                }
                other => prop_assert!(false, "request {} ended as {:?}", request.id.0, other),
            }
        }
        prop_assert!(replica.is_idle());
        prop_assert_eq!(replica.scheduler().free_blocks(), replica.scheduler().usable_blocks());
    }

    /// Law 3: queued <= scheduled <= first token <= done, and the parts of a latency sum to it exactly.
    #[test]
    fn causes_come_before_effects(case in case()) {
        let (mut replica, _) = lived(&case, false);
        for end in ends(&mut replica) {
            let moments: Vec<Time> =
                [Some(end.queued), end.scheduled, end.first_token, Some(end.done)].into_iter().flatten().collect();
            prop_assert!(moments.is_sorted(), "{:?}", end);
            if end.finish.is_complete() {
                let decode = end.done - end.first_token.unwrap();
                prop_assert_eq!(end.decode_parts.total(), decode);
            }
        }
    }

    /// Law 4: steps begin in order and one at a time.
    #[test]
    fn steps_follow_each_other(case in case()) {
        let (_, heard) = lived(&case, false);
        for pair in heard.steps.windows(2) {
            prop_assert!(pair[0].start + pair[0].gpu_time() <= pair[1].start);
        }
    }

    /// Law 5: from one step to the next there is no gap but host time and the sleep after an empty step, unless
    /// nothing was there.
    #[test]
    fn a_replica_with_work_works(case in case()) {
        let (mut replica, heard) = lived(&case, false);
        let ends = ends(&mut replica);
        // A host that scatters takes more now and then.
        let hosts = if case.jitter > 0.0 { 100 } else { 2 };
        let allowed = case.step_time.host * hosts + case.engine.empty_step_sleep * 3;
        for pair in heard.steps.windows(2) {
            let (from, to) = (pair[0].start + pair[0].gpu_time(), pair[1].start);
            if to.saturating_since(from) <= allowed {
                continue;
            }
            // Somebody who was there all the time and could run would break the law.
            let there = ends.iter().any(|end| end.queued <= from && end.done >= to);
            prop_assert!(!there, "idle from {:?} to {:?}", from, to);
        }
    }

    /// Law 12: looking changes nothing, and neither does looking often.
    #[test]
    fn looking_changes_nothing(case in case(), looks in prop::collection::vec(0u64..200_000, 0..12)) {
        let (mut straight, straight_heard) = lived(&case, false);
        let mut looks: Vec<Time> = looks.into_iter().map(|us| Time::ZERO + Span::from_us(us)).collect();
        looks.sort();
        looks.push(Time::MAX);
        let mut replica = case.empty_replica_on(Path::Fast);
        let mut heard = Heard::default();
        let mut from = Time::ZERO;
        for look in looks {
            // Deliveries come just before they are due, as a fleet's do.
            case.deliver(&mut replica, from, look);
            replica.advance(Limit::Time(look), &mut heard);
            let _ = (replica.signals(), replica.next_completion());
            from = look;
        }
        prop_assert_eq!(&heard, &straight_heard);
        prop_assert_eq!(ends(&mut replica), ends(&mut straight));
        prop_assert_eq!(replica.scheduler().free_list(), straight.scheduler().free_list());
    }

    /// `next_completion` is never late: nothing ends before it.
    #[test]
    fn the_next_completion_is_never_late(case in case()) {
        let mut replica = case.replica();
        let mut heard = Heard::default();
        let mut rounds = 0;
        while let Some(bound) = replica.next_completion() {
            let before = Time::from_ps(bound.as_ps() - 1);
            replica.advance(Limit::Time(before), &mut heard);
            prop_assert!(ends(&mut replica).is_empty(), "something ended before {:?}", bound);
            replica.advance(Limit::Time(bound), &mut heard);
            let _ = ends(&mut replica);
            rounds += 1;
            prop_assert!(rounds < 1_000_000, "no headway");
        }
        prop_assert!(replica.is_idle());
    }

    /// The same where requests come in while it lives, and each mends what was said before it.
    #[test]
    fn arrivals_leave_the_next_completion_early_enough(case in case()) {
        let mut offers: Vec<_> = case.offers.iter().collect();
        offers.sort_by_key(|offer| offer.at_us);
        let mut replica = case.empty_replica_on(Path::Fast);
        let mut heard = Heard::default();
        let mut bound: Option<Time> = None;
        let just_before = |at: Time| Time::from_ps(at.as_ps().saturating_sub(1));
        for (seq, offer) in offers.into_iter().enumerate() {
            let at = Time::ZERO + Span::from_us(offer.at_us);
            while let Some(due) = bound.filter(|due| *due < at) {
                replica.advance(Limit::Time(due), &mut heard);
                prop_assert!(replica.take_events().all(|event| event.at() >= due), "something came out before {:?}", due);
                bound = replica.next_completion();
            }
            replica.advance(Limit::Time(just_before(at)), &mut heard);
            prop_assert!(replica.take_events().next().is_none(), "something came out before {:?}", bound);
            replica.deliver(at, seq as u64, Input::Add(offer.request.clone()));
            bound = replica.next_completion_with_arrival(bound, at);
        }
        while let Some(due) = bound {
            replica.advance(Limit::Time(due), &mut heard);
            prop_assert!(replica.take_events().all(|event| event.at() >= due), "something came out before {:?}", due);
            bound = replica.next_completion();
        }
        prop_assert!(replica.is_idle());
    }

    /// A copy lives the same life.
    #[test]
    fn a_clone_is_the_same_replica(case in case(), at in 0u64..100_000) {
        let mut replica = case.replica();
        replica.advance(Limit::Time(Time::ZERO + Span::from_us(at)), &mut Heard::default());
        let mut copy = replica.clone();
        let (mut a, mut b) = (Heard::default(), Heard::default());
        replica.advance(Limit::Time(Time::MAX), &mut a);
        copy.advance(Limit::Time(Time::MAX), &mut b);
        prop_assert_eq!(a, b);
        prop_assert_eq!(ends(&mut replica), ends(&mut copy));
    }
}
