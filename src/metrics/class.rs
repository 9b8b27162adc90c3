//! One class of requests (a tenant, a level of service) over a run.

use serde::Serialize;

use super::quantile::{Quantiles, Sample};
use super::summary::Objectives;
use crate::request::Outcome;

/// One class of requests in numbers, as [`RunSummary`](super::RunSummary) has them for all.
#[derive(Clone, Debug, PartialEq, Serialize, schemars::JsonSchema)]
pub struct ClassSummary {
    /// Its name.
    pub name: String,
    /// Requests sent after the warm-up.
    pub offered: u64,
    /// Of these, whole answers.
    pub completed: u64,
    /// Share of offered requests that met what the class must meet.
    pub goodput_share: f64,
    /// Time to first token as the client sees it.
    pub ttft: Quantiles,
    /// Time per output token after the first.
    pub tpot: Quantiles,
    /// End to end.
    pub e2e: Quantiles,
    /// E2E P99 of all offered requests, those without a whole answer counting as infinite (none).
    pub e2e_p99_of_offered_ms: Option<f64>,
}

/// Takes in the outcomes of one class.
#[derive(Clone, Debug)]
pub(super) struct ClassTally {
    name: String,
    objectives: Objectives,
    offered: u64,
    completed: u64,
    good: u64,
    ttft: Sample,
    tpot: Sample,
    e2e: Sample,
}

impl ClassTally {
    pub(super) fn new(name: &str, objectives: Objectives) -> ClassTally {
        ClassTally {
            name: name.to_owned(),
            objectives,
            offered: 0,
            completed: 0,
            good: 0,
            ttft: Sample::default(),
            tpot: Sample::default(),
            e2e: Sample::default(),
        }
    }

    /// One more outcome; says whether it was good.
    pub(super) fn add(&mut self, outcome: &Outcome) -> bool {
        self.offered += 1;
        if outcome.finish.is_complete() {
            self.completed += 1;
            let samples = [
                (&mut self.ttft, outcome.ttft()),
                (&mut self.tpot, outcome.tpot()),
                (&mut self.e2e, outcome.e2e()),
            ];
            for (sample, value) in samples {
                value.into_iter().for_each(|value| sample.add(value));
            }
        }
        let good = self.objectives.met_by(outcome);
        self.good += u64::from(good);
        good
    }

    pub(super) fn summarise(mut self) -> ClassSummary {
        ClassSummary {
            name: self.name,
            offered: self.offered,
            completed: self.completed,
            goodput_share: if self.offered > 0 { self.good as f64 / self.offered as f64 } else { 0.0 },
            ttft: self.ttft.quantiles(),
            tpot: self.tpot.quantiles(),
            e2e_p99_of_offered_ms: self.e2e.percentile_with_lost_ms(self.offered - self.completed, 99.0),
            e2e: self.e2e.quantiles(),
        }
    }
}
