//! Contenders at other rates than their scenario's: latency against load.

use super::capacity::with_rate;
use super::compare::{Contender, Repetitions, compare};
use super::run::{Keep, StudyError, Traces};

/// Loads that are run where the fleet's saturation is known.
const LOADS: [f64; 8] = [0.3, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 1.0];
/// Multiples of the scenario's rate that are run where it is not.
const FACTORS: [f64; 6] = [0.4, 0.6, 0.8, 1.0, 1.2, 1.4];
/// Repetitions of each point, at most.
const MOST_REPETITIONS: u32 = 3;

/// All contenders at one rate.
#[derive(Clone, Debug, PartialEq)]
pub struct LoadPoint {
    /// Multiple of the scenario's rate.
    pub factor: f64,
    /// Offered over saturation, where that is known.
    pub load: Option<f64>,
    /// Requests offered a second.
    pub offered_requests_per_s: f64,
    /// E2E P99 of all offered by name, milliseconds, mean over repetitions; none is infinite.
    pub e2e_p99_ms: Vec<(String, Option<f64>)>,
}

/// Runs contenders at rates around their own; `load` is offered over saturation at theirs.
///
/// # Errors
/// If a run cannot be made, or the workload has no rate that could be changed.
///
/// # Panics
/// If there is no contender.
pub fn load_curve(
    contenders: &[Contender],
    traces: &mut Traces,
    load: Option<f64>,
    ran: &(dyn Fn() + Sync),
) -> Result<Vec<LoadPoint>, StudyError> {
    let factors: Vec<f64> = match load {
        Some(load) if load > 0.0 => LOADS.iter().map(|at| at / load).collect(),
        _ => FACTORS.to_vec(),
    };
    let at = |factor: f64| {
        let sped = contenders.iter().map(|contender| {
            let mut scenario = with_rate(&contender.scenario, factor)?;
            scenario.repeat = scenario.repeat.min(MOST_REPETITIONS);
            Ok(Contender { name: contender.name.clone(), scenario })
        });
        let sped: Vec<Contender> = sped.collect::<Result<_, StudyError>>()?;
        let compared = compare(&sped, traces, Repetitions::Fixed, false, Keep::Nothing, ran)?;
        let p99 = contenders.iter().map(|contender| {
            let ranked = compared.ranking.iter().find(|ranked| ranked.name == contender.name);
            (contender.name.clone(), ranked.and_then(|ranked| ranked.e2e_p99_ms))
        });
        Ok(LoadPoint {
            factor,
            load: load.map(|load| load * factor),
            offered_requests_per_s: compared.standing.offered_requests_per_s,
            e2e_p99_ms: p99.collect(),
        })
    };
    factors.into_iter().map(at).collect()
}
