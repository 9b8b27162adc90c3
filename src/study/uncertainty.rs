//! What a calibration's uncertainty does to a result.
//!
//! Draws sets of factors from the covariance of each calibration that the replicas rest on, and runs every contender
//! with each set on the first repetition's requests. Chance of the workload is not in it: that is what repetitions are
//! for.

use std::sync::Arc;

use rayon::prelude::*;
use serde::Serialize;

use super::compare::Contender;
use super::run::{Keep, StudyError, Traces, jobs, run};
use crate::metrics::{Quantiles, RunSummary};
use crate::scenario::Scenario;
use crate::step_time::roofline::Roofline;

/// Ends of the interval that 95 % of the draws lie in; with fewer than forty draws all of them.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, schemars::JsonSchema)]
pub struct Spread {
    /// Lower end, milliseconds.
    pub low_ms: f64,
    /// Upper end, milliseconds.
    pub high_ms: f64,
}

/// A latency's mean and percentiles.
#[derive(Clone, Copy, Debug, PartialEq, Default, Serialize, schemars::JsonSchema)]
pub struct Spreads {
    /// Mean.
    pub mean: Option<Spread>,
    /// Median.
    pub p50: Option<Spread>,
    /// 90th percentile.
    pub p90: Option<Spread>,
    /// 95th percentile.
    pub p95: Option<Spread>,
    /// 99th percentile.
    pub p99: Option<Spread>,
}

/// One contender under all draws.
#[derive(Clone, Debug, PartialEq, Serialize, schemars::JsonSchema)]
pub struct Drawn {
    /// As the table shows it.
    pub name: String,
    /// In how many draws it has the lowest E2E P99.
    pub first: u32,
    /// End to end.
    pub e2e: Spreads,
    /// Time to first token.
    pub ttft: Spreads,
    /// Time per output token.
    pub tpot: Spreads,
}

/// All contenders under all draws.
#[derive(Clone, Debug, PartialEq, Serialize, schemars::JsonSchema)]
pub struct Uncertainty {
    /// Models drawn.
    pub draws: u32,
    /// The contenders, in the order they were given.
    pub contenders: Vec<Drawn>,
}

/// Whether anything in the scenario has an uncertainty that could be drawn from.
pub fn has_any(scenario: &Scenario) -> bool {
    scenario.replicas.iter().any(|kind| kind.calibration.is_some())
}

/// Runs `contenders` with `draws` models. `ran` is called after each run.
///
/// # Errors
/// If a trace cannot be read.
pub fn uncertainty(
    contenders: &[Contender],
    traces: &mut Traces,
    draws: u32,
    ran: &(dyn Fn() + Sync),
) -> Result<Uncertainty, StudyError> {
    let mut requests = Vec::new();
    for contender in contenders {
        let trace = traces.of(&contender.scenario.workload)?;
        requests.push(Arc::from(jobs(&contender.scenario, trace.as_deref(), 0)?));
    }
    let runs: Vec<(u32, usize)> =
        (0..draws).flat_map(|draw| (0..contenders.len()).map(move |index| (draw, index))).collect();
    let one = |&(draw, index): &(u32, usize)| {
        let scenario = redrawn(&contenders[index].scenario, draw);
        let result = run(&scenario, &requests[index], 0, false, Keep::Nothing)?;
        ran();
        Ok(result.summary)
    };
    let summaries = runs.par_iter().map(one).collect::<Result<Vec<RunSummary>, StudyError>>()?;
    let mut firsts = vec![0; contenders.len()];
    for of_draw in summaries.chunks(contenders.len()) {
        let p99 = |index: &usize| of_draw[*index].e2e_p99_of_offered_ms.unwrap_or(f64::INFINITY);
        let best = (0..contenders.len()).min_by(|a, b| p99(a).total_cmp(&p99(b)));
        firsts[best.expect("there is a contender")] += 1;
    }
    let drawn = |(index, contender): (usize, &Contender)| {
        let own: Vec<&RunSummary> = summaries.iter().skip(index).step_by(contenders.len()).collect();
        Drawn {
            name: contender.name.clone(),
            first: firsts[index],
            e2e: spreads(&own, |summary| &summary.e2e),
            ttft: spreads(&own, |summary| &summary.ttft),
            tpot: spreads(&own, |summary| &summary.tpot),
        }
    };
    Ok(Uncertainty { draws, contenders: contenders.iter().enumerate().map(drawn).collect() })
}

/// The scenario with draw number `draw` in place of what was fitted.
fn redrawn(scenario: &Scenario, draw: u32) -> Scenario {
    let mut scenario = scenario.clone();
    for kind in &mut scenario.replicas {
        let Some(calibration) = &kind.calibration else { continue };
        let multipliers = calibration.drawn(scenario.seed, u64::from(draw));
        let placement = &kind.placement;
        let bound =
            Roofline::bind_scaled(placement.gpu, &placement.model, &placement.deployment, &multipliers);
        kind.facts.step_time = Arc::new(bound.expect("what was bound once can be bound again"));
    }
    scenario
}

fn spreads(summaries: &[&RunSummary], of: impl Fn(&RunSummary) -> &Quantiles) -> Spreads {
    let spread = |part: fn(&Quantiles) -> Option<f64>| {
        let values: Option<Vec<f64>> = summaries.iter().map(|summary| part(of(summary))).collect();
        values.and_then(|values| spread(&values))
    };
    Spreads {
        mean: spread(|quantiles| quantiles.mean_ms),
        p50: spread(|quantiles| quantiles.p50_ms),
        p90: spread(|quantiles| quantiles.p90_ms),
        p95: spread(|quantiles| quantiles.p95_ms),
        p99: spread(|quantiles| quantiles.p99_ms),
    }
}

fn spread(values: &[f64]) -> Option<Spread> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let outside = sorted.len() / 40;
    Some(Spread { low_ms: *sorted.get(outside)?, high_ms: sorted[sorted.len() - 1 - outside] })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spread_leaves_out_a_twentieth() {
        let values: Vec<f64> = (0..200).map(f64::from).collect();
        assert_eq!(spread(&values), Some(Spread { low_ms: 5.0, high_ms: 194.0 }));
        assert_eq!(spread(&values[..10]), Some(Spread { low_ms: 0.0, high_ms: 9.0 }));
        assert_eq!(spread(&[]), None);
    }
}
