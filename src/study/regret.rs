//! Regret: what each decision cost against the best one that the truth knew of, and how good any policy could be.
//!
//! At every decision all replicas are forked with the true lengths and run on until the request ends there, as if nobody came
//! after it. Regret is the end where it went, less the soonest end anywhere. It is the regret of one greedy decision: what the
//! request does to others, and what comes later, is in nobody's.

use std::sync::{Arc, Mutex};

use rayon::prelude::*;
use rustc_hash::FxHashMap;
use serde::Serialize;

use super::compare::Contender;
use super::run::{Keep, StudyError, Traces, jobs, simulate_with};
use crate::fleet::End;
use crate::metrics::quantile::Sample;
use crate::replica::block_keys::leading_keys;
use crate::request::Outcome;
use crate::router::judged::{Judged, Judgement, Judgements};
use crate::router::{Facts, Router, prices};
use crate::scenario::{Scenario, Workload};
use crate::step_time::Decodes;
use crate::time::Span;
use crate::workload::sessions::Sessions;
use crate::workload::{Job, OpenLoop, Source};

/// A policy's decisions against the truth. Times are milliseconds.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Regret {
    /// The policy, or the variant.
    pub name: String,
    /// Decisions that were judged: of requests within the counted time that ended.
    pub decisions: u64,
    /// Share of them that no other replica would have ended sooner.
    pub right_share: f64,
    /// Mean over decisions.
    pub mean_ms: f64,
    /// 99th percentile over decisions.
    pub p99_ms: f64,
    /// Sum over decisions, seconds.
    pub total_s: f64,
    /// Mean over the slowest hundredth of requests, by their E2E.
    pub of_slowest_ms: f64,
    /// Share of decisions at which the replica with the fewest requests in flight was not the best.
    pub fewest_wrong_share: f64,
    /// What going there would have cost, mean over all decisions.
    pub fewest_mean_ms: f64,
    /// E2E P99 as it came out; none if it is infinite.
    pub e2e_p99_ms: Option<f64>,
    /// Requests a second of the workload, judged or not.
    pub offered_requests_per_s: f64,
}

/// All contenders, and the bound.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Regrets {
    /// Of the scenario.
    pub title: String,
    /// In order of E2E P99.
    pub regrets: Vec<Regret>,
    /// E2E P99 below which no policy can come.
    pub bound_e2e_p99_ms: Option<f64>,
}

/// Judges every contender's decisions in its first repetition. `ran` is called after each run.
///
/// # Errors
/// If a trace cannot be read, a policy cannot be made, or there is nothing to judge.
pub fn regrets(contenders: &[Contender], ran: &(dyn Fn() + Sync)) -> Result<Regrets, StudyError> {
    let mut traces = Traces::default();
    let mut drawn: Vec<Arc<[Job]>> = Vec::new();
    for contender in contenders {
        if matches!(contender.scenario.workload, Workload::Trace { streamed: true, .. }) {
            let message = "workload.streamed: regret needs the whole trace\nhelp: leave it out";
            return Err(StudyError::Empty(message.into()));
        }
        let trace = traces.of(&contender.scenario.workload)?;
        drawn.push(jobs(&contender.scenario, trace.as_deref(), 0)?.into());
    }
    let judge = |(contender, jobs): (&Contender, &Arc<[Job]>)| {
        let regret = judge(contender, jobs);
        ran();
        regret
    };
    let mut regrets: Vec<Regret> =
        contenders.par_iter().zip(&drawn).map(judge).collect::<Result<_, StudyError>>()?;
    let place = |regret: &Regret| regret.e2e_p99_ms.unwrap_or(f64::INFINITY);
    regrets.sort_by(|a, b| place(a).total_cmp(&place(b)));
    let first = &contenders[0].scenario;
    Ok(Regrets {
        title: first.title.clone(),
        regrets,
        bound_e2e_p99_ms: bounds(first, &drawn[0]).and_then(|bounds| quantile_ms(&bounds)),
    })
}

fn judge(contender: &Contender, jobs: &Arc<[Job]>) -> Result<Regret, StudyError> {
    let scenario = &contender.scenario;
    let judgements: Judgements = Arc::new(Mutex::new(Vec::new()));
    let wrap =
        |policy: Box<dyn Router>| -> Box<dyn Router> { Box::new(Judged::new(policy, judgements.clone())) };
    let mut sessions;
    let mut open;
    let source: &mut dyn Source = if Sessions::are_in(jobs) {
        sessions = Sessions::new(jobs.clone());
        &mut sessions
    } else {
        open = OpenLoop::new(jobs.clone());
        &mut open
    };
    let result = simulate_with(scenario, source, 0, false, Keep::Outcomes, &wrap)?;
    let judgements = judgements.lock().map(|judgements| judgements.clone()).unwrap_or_default();
    let counted = scenario.counted();
    let outcome_of = |judgement: &Judgement| {
        let found = result.outcomes.binary_search_by_key(&judgement.id, |outcome| outcome.attempt.request);
        found.ok().map(|place| &result.outcomes[place])
    };
    let judged: Vec<(Judgement, &Outcome)> = judgements
        .iter()
        .filter_map(|judgement| Some((*judgement, outcome_of(judgement)?)))
        .filter(|(_, outcome)| counted.contains(&outcome.sent) && outcome.finish.is_complete())
        .collect();
    if judged.is_empty() {
        return Err(StudyError::Empty(format!(
            "{}: no request ended of those that count, so no decision can be judged\nhelp: send more requests, or lower warmup_s",
            contender.name
        )));
    }
    Ok(summed(&contender.name, judged, &result.summary))
}

fn summed(
    name: &str,
    mut judged: Vec<(Judgement, &Outcome)>,
    summary: &crate::metrics::RunSummary,
) -> Regret {
    let regret_ms = |judgement: &Judgement| (judgement.chosen_end - judgement.best_end).as_ms();
    let count = judged.len() as f64;
    let total_ms: f64 = judged.iter().map(|(judgement, _)| regret_ms(judgement)).sum();
    let share = |which: &dyn Fn(&Judgement) -> bool| {
        judged.iter().filter(|(judgement, _)| which(judgement)).count() as f64 / count
    };
    let fewest_ms: f64 =
        judged.iter().map(|(judgement, _)| (judgement.fewest_end - judgement.best_end).as_ms()).sum();
    let (right_share, fewest_wrong_share) = (
        share(&|judgement| judgement.chosen_end == judgement.best_end),
        share(&|judgement| judgement.fewest_end > judgement.best_end),
    );
    let p99_ms = percentile(judged.iter().map(|(judgement, _)| regret_ms(judgement)), 0.99).unwrap_or(0.0);
    judged.sort_by_key(|(_, outcome)| std::cmp::Reverse(outcome.e2e()));
    let slowest = &judged[..judged.len().div_ceil(100)];
    let of_slowest: f64 = slowest.iter().map(|(judgement, _)| regret_ms(judgement)).sum();
    Regret {
        name: name.to_string(),
        decisions: judged.len() as u64,
        right_share,
        mean_ms: total_ms / count,
        p99_ms,
        total_s: total_ms / 1e3,
        of_slowest_ms: of_slowest / slowest.len() as f64,
        fewest_wrong_share,
        fewest_mean_ms: fewest_ms / count,
        e2e_p99_ms: summary.e2e_p99_of_offered_ms,
        offered_requests_per_s: summary.offered_requests_per_s,
    }
}

/// The smallest value that so large a share of all does not exceed; none of nothing.
fn percentile(values: impl Iterator<Item = f64>, share: f64) -> Option<f64> {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    let place = (values.len() as f64 * share).ceil() as usize;
    values.get(place.saturating_sub(1)).copied()
}

/// For each counted request an E2E that no policy can beat on this fleet: alone on its best replica, with every leading block
/// cached that another request of the run has (an earlier one, where the order of sending is known), the host's time hidden, and
/// the network's delays. Rests on one assumption: a step takes no less time with more in it. None where it depends on the policy
/// which requests are counted: in a closed loop with a warm-up, a cool-down or an end.
pub fn bounds(scenario: &Scenario, jobs: &[Job]) -> Option<Vec<Span>> {
    let closed = Sessions::are_in(jobs);
    let all_count = scenario.warmup == Span::ZERO
        && scenario.warmup_rule.is_none()
        && scenario.cooldown == Span::ZERO
        && scenario.end == End::Drain;
    if closed && !all_count {
        return None;
    }
    let counted = scenario.counted();
    let mut sizes: Vec<u32> = scenario.replicas.iter().map(|kind| kind.facts.engine.block_size).collect();
    sizes.sort_unstable();
    sizes.dedup();
    // How many requests hold each block, at the block sizes that there are.
    let mut holders: FxHashMap<u64, u32> = FxHashMap::default();
    let mut keys = Vec::new();
    let mut hold = |job: &Job, holders: &mut FxHashMap<u64, u32>| {
        // What was answered is cached too, where its identity is known.
        let tokens = job.request.content.tokens().max(job.request.prompt_tokens);
        for &size in &sizes {
            leading_keys(job.request.id, &job.request.content, size, tokens / size, &mut keys);
            for &key in &keys {
                *holders.entry(key).or_insert(0) += 1;
            }
        }
    };
    if closed {
        jobs.iter().for_each(|job| hold(job, &mut holders));
    }
    let others = u32::from(closed);
    let network = scenario.network;
    let mut bounds = Vec::with_capacity(jobs.len());
    let mut own = Vec::new();
    for job in jobs {
        let request = &job.request;
        let kinds = scenario.replicas.iter().map(|kind| &kind.facts);
        let fits = |facts: &&Facts| (1..facts.engine.max_model_len).contains(&request.prompt_tokens);
        let alone = kinds.filter(fits).map(|facts| {
            let size = facts.engine.block_size;
            leading_keys(request.id, &request.content, size, request.prompt_tokens / size, &mut own);
            let held = |key: &&u64| holders.get(key).is_some_and(|&count| count > others);
            let hits = own.iter().take_while(held).count() as u32;
            solo(facts, job, if facts.engine.enable_prefix_caching { hits * size } else { 0 })
        });
        let alone = alone.min();
        if !closed {
            hold(job, &mut holders);
        }
        if let Some(time) = alone
            && (closed || counted.contains(&job.sent))
        {
            let ways = (network.client_to_router + network.router_to_replica) * 2 + network.frontend;
            let tokens = u64::from(request.output_tokens.min(request.max_tokens.unwrap_or(u32::MAX)));
            bounds.push(ways + time + network.per_token * tokens.saturating_sub(1));
        }
    }
    Some(bounds)
}

/// The percentile as all results have it.
fn quantile_ms(spans: &[Span]) -> Option<f64> {
    let mut sample = Sample::default();
    spans.iter().for_each(|&span| sample.add(span));
    sample.percentile_with_lost_ms(0, 99.0)
}

/// GPU time of a request alone.
fn solo(facts: &Facts, job: &Job, cached: u32) -> Span {
    let request = &job.request;
    let room = facts.engine.max_model_len - request.prompt_tokens;
    let outputs = request.output_tokens.min(request.max_tokens.unwrap_or(u32::MAX)).min(room);
    let mut time = prices::uncached(facts, request.prompt_tokens, cached);
    let mut done = 0;
    let steps = u64::from(outputs.saturating_sub(1));
    while done < steps {
        let context = u64::from(request.prompt_tokens) + 1 + done;
        let decodes = Decodes { count: 1, context_sum: context, context_max: context as u32 };
        let series = facts.step_time.run(decodes, steps - done);
        time += crate::observe::series(series.first.gpu, series.growth, series.count);
        done += series.count;
    }
    time
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scenario::Loaded;

    fn contenders(text: &str, policies: &[&str]) -> Vec<Contender> {
        let loaded = Loaded::from_text("test", std::path::Path::new(""), text.to_string(), &[]).unwrap();
        let of = |policy: &&str| Contender {
            name: (*policy).to_string(),
            scenario: loaded.with_policy(policy).unwrap(),
        };
        policies.iter().map(of).collect()
    }

    const SCENARIO: &str = r#"
        seed = 3
        [workload]
        requests = 300
        arrivals = { rate_per_s = 12.0 }
        prompt_tokens = { distribution = "lognormal", mean = 900, std = 900, max = 6000 }
        output_tokens = { distribution = "lognormal", mean = 80, std = 90, max = 900 }
        prefixes = { groups = 6, tokens = 640 }
        [[replicas]]
        count = 3
        model = "llama-3.1-8b"
        gpu = "a100-80-sxm"
        [network]
        router_to_replica_ms = 0.3
    "#;

    #[test]
    fn the_oracle_regrets_nothing_and_nobody_beats_the_bound() {
        let contenders = contenders(SCENARIO, &["random", "least-request", "oracle-min-latency"]);
        let judged = regrets(&contenders, &|| {}).unwrap();
        let of = |name: &str| judged.regrets.iter().find(|regret| regret.name == name).unwrap();
        let oracle = of("oracle-min-latency");
        assert_eq!((oracle.right_share, oracle.total_s), (1.0, 0.0));
        let (random, least) = (of("random"), of("least-request"));
        assert!(random.mean_ms > least.mean_ms && least.mean_ms > 0.0, "{judged:?}");
        // Who goes to the fewest is wrong as often as the fewest are, ties at random left aside.
        assert!(least.right_share >= 1.0 - least.fewest_wrong_share - 0.2, "{judged:?}");
        for contender in &contenders {
            let jobs: Arc<[Job]> = jobs(&contender.scenario, None, 0).unwrap().into();
            let result =
                super::super::run::run(&contender.scenario, &jobs, 0, false, Keep::Outcomes).unwrap();
            for (bound, outcome) in bounds(&contender.scenario, &jobs).unwrap().iter().zip(&result.outcomes) {
                assert!(outcome.e2e().is_none_or(|e2e| e2e >= *bound), "{outcome:?} {bound:?}");
            }
        }
    }

    #[test]
    fn answers_that_are_cached_count_for_the_bound_and_a_closed_loop_has_one_if_all_count() {
        let chats = r#"
            [workload]
            requests = 60
            arrivals = { rate_per_s = 2.0 }
            prompt_tokens = { distribution = "lognormal", mean = 300, std = 300, max = 3000 }
            output_tokens = { distribution = "lognormal", mean = 300, std = 200, max = 2000 }
            prefixes = { groups = 1, tokens = 600 }
            [workload.sessions]
            turns = { distribution = "zipf", max = 10, exponent = 0.5 }
            think = { distribution = "fixed", seconds = 1.0 }
            [[replicas]]
            count = 2
            model = "llama-3.1-8b"
            gpu = "h100-sxm"
        "#;
        let judged = regrets(&contenders(chats, &["session-hash", "round-robin"]), &|| {}).unwrap();
        let bound = judged.bound_e2e_p99_ms.unwrap();
        assert!(judged.regrets.iter().all(|regret| regret.e2e_p99_ms.unwrap() >= bound), "{judged:?}");
        let warmed =
            regrets(&contenders(&format!("warmup_s = 3\n{chats}"), &["round-robin"]), &|| {}).unwrap();
        assert_eq!(warmed.bound_e2e_p99_ms, None);
    }

    #[test]
    fn judging_changes_no_result() {
        let contender = &contenders(SCENARIO, &["predicted-completion"])[0];
        let jobs: Arc<[Job]> = jobs(&contender.scenario, None, 0).unwrap().into();
        let plain = super::super::run::run(&contender.scenario, &jobs, 0, false, Keep::Nothing).unwrap();
        assert_eq!(judge(contender, &jobs).unwrap().e2e_p99_ms, plain.summary.e2e_p99_of_offered_ms);
    }
}
