//! Does the winner stay if step times are wrong?
//!
//! Runs the same comparison with every step so much longer or shorter. Chance is in the groups, as ever; this is about the model.

use std::sync::Arc;

use serde::Serialize;

use super::compare::{Contender, Repetitions, compare};
use super::run::{Keep, StudyError, Traces};
use crate::step_time::scaled::Scaled;

/// The ranking under one error.
#[derive(Clone, Debug, PartialEq, Serialize, schemars::JsonSchema)]
pub struct Shifted {
    /// How much longer steps are, percent.
    pub steps_longer_percent: i32,
    /// Who is first then.
    pub first: String,
    /// Who cannot be told from the first, itself included.
    pub first_group: Vec<String>,
    /// The place of the winner of the comparison itself, from 1 on.
    pub winner_place: usize,
    /// Whether that winner is behind the first, beyond chance.
    pub winner_is_behind: bool,
}

/// The ranking under all errors asked for.
#[derive(Clone, Debug, PartialEq, Serialize, schemars::JsonSchema)]
pub struct Stability {
    /// The winner of the comparison itself.
    pub winner: String,
    /// By error, ascending.
    pub shifted: Vec<Shifted>,
}

/// Compares `contenders`, of which `winner` has won, with steps that are longer and shorter by each of `percents`.
///
/// # Errors
/// If a run cannot be made.
pub fn stability(
    contenders: &[Contender],
    traces: &mut Traces,
    winner: &str,
    percents: &[u32],
    ran: &(dyn Fn() + Sync),
) -> Result<Stability, StudyError> {
    let mut errors: Vec<i32> =
        percents.iter().flat_map(|&percent| [-(percent as i32), percent as i32]).collect();
    errors.sort_unstable();
    errors.dedup();
    let mut shifted = Vec::new();
    for error in errors {
        let contenders: Vec<Contender> =
            contenders.iter().map(|contender| slowed(contender, error)).collect();
        let comparison = compare(&contenders, traces, Repetitions::Fixed, false, Keep::Nothing, ran)?;
        let ranking = &comparison.ranking;
        let place = ranking.iter().position(|ranked| ranked.name == winner).unwrap_or(0);
        let equals = ranking.iter().filter(|ranked| ranked.group == 1);
        shifted.push(Shifted {
            steps_longer_percent: error,
            first: ranking[0].name.clone(),
            first_group: equals.map(|ranked| ranked.name.clone()).collect(),
            winner_place: place + 1,
            winner_is_behind: ranking[place].group > 1,
        });
    }
    Ok(Stability { winner: winner.to_string(), shifted })
}

fn slowed(contender: &Contender, percent: i32) -> Contender {
    let mut contender = contender.clone();
    for kind in &mut contender.scenario.replicas {
        let per_mille = (1_000 + 10 * i64::from(percent)) as u64;
        kind.facts.step_time = Arc::new(Scaled::new(kind.facts.step_time.clone(), per_mille));
    }
    contender
}
