//! Why the slow ones were slow: where each request's time went, what the tail is made of, and what another replica would have done.
//!
//! Knows one run and lives it again with every step looked at (`lane`). Changes nothing: each request ends when it ended.
//!
//! - [`parts`]: what time is divided into
//! - `booking`: step by step, in one replica
//! - `alone`: what the same steps would have taken for one request alone
//! - `lane`: one replica's life again, and what it would have been to requests that went elsewhere
//! - [`replay`]: every replica's life again, with an observer beside it
//! - [`mod@tail`]: what the slowest hundredth is made of, beside the typical ones

use std::sync::Arc;

use rayon::prelude::*;

use crate::fleet::Delivery;
use crate::metrics::RunSummary;
use crate::request::{Attempt, Detour, EngineOutcome, Outcome};
use crate::router::{Facts, Server};
use crate::scenario::Scenario;
use crate::step_time::{Batch, Chunk, Decodes};
use crate::study::StudyError;
use crate::study::run::{Keep, repetition_seed, run};
use crate::time::Span;
use crate::workload::Job;

mod alone;
mod booking;
mod lane;
pub mod parts;
mod replay;
pub mod tail;

use booking::{Booked, Surroundings};
use lane::{Life, live_again};
pub use parts::{Part, Parts};
pub use replay::replay;
pub use tail::Tail;

/// Requests whose story is told.
pub const STORIES: usize = 10;

/// One request that got a whole answer.
#[derive(Clone, Debug)]
pub struct Explained {
    /// What became of it.
    pub outcome: Outcome,
    /// Parts of its time to first token.
    pub ttft: Parts,
    /// Parts of its end-to-end latency.
    pub e2e: Parts,
    /// Where most of its prompt was cached when it came, if elsewhere more than where it went: replica and tokens.
    pub cached_elsewhere: Option<(Server, u32)>,
}

/// One of the slowest, and what was around it.
#[derive(Clone, Debug)]
pub struct Story {
    /// The request.
    pub request: Explained,
    /// Running, waiting and blocks of its replica when it came.
    pub at_delivery: crate::signals::Signals,
    /// Prompt tokens of others in the steps that it waited for.
    pub prompt_tokens_ahead: u64,
    /// Sequences that decoded beside it, mean over its decode steps, itself included; none if it had no such step.
    pub mean_batch: Option<f64>,
    /// Its end-to-end latency by replica, had it alone gone there; none where it would never have ended. Its own is as it was.
    pub elsewhere: Vec<Option<Span>>,
}

impl Story {
    /// The replica on which it would have ended soonest, and its latency there.
    pub fn best(&self) -> Option<(Server, Span)> {
        let ends = self.elsewhere.iter().enumerate();
        ends.filter_map(|(server, end)| Some((server, (*end)?))).min_by_key(|&(server, end)| (end, server))
    }
}

/// One run, explained.
#[derive(Clone, Debug)]
pub struct Explanation {
    /// In numbers.
    pub summary: RunSummary,
    /// Requests within the counted time that got a whole answer, by number.
    pub requests: Vec<Explained>,
    /// What the tail of the time to first token is made of; none without requests.
    pub ttft: Option<Tail>,
    /// The same of the end-to-end latency.
    pub e2e: Option<Tail>,
    /// The slowest by end-to-end latency, slowest first.
    pub stories: Vec<Story>,
}

/// Explains the first repetition of a scenario on its requests.
///
/// # Errors
/// If it cannot be run.
///
/// # Panics
/// If a replica that lives alone ends a request at another moment than it did in the fleet, or parts do not sum to the whole:
/// both are laws.
pub fn explain(scenario: &Scenario, jobs: &Arc<[Job]>) -> Result<Explanation, StudyError> {
    let result = run(scenario, jobs, 0, false, Keep::Deliveries)?;
    let counted = scenario.counted();
    let is_explained = |outcome: &&Outcome| outcome.finish.is_complete() && counted.contains(&outcome.sent);
    let outcomes: Vec<&Outcome> = result.outcomes.iter().filter(is_explained).collect();
    let mut slowest = outcomes.clone();
    slowest.sort_by_key(|outcome| (std::cmp::Reverse(outcome.e2e()), outcome.attempt));
    slowest.truncate(STORIES);
    let mut asked: Vec<Attempt> = slowest.iter().map(|outcome| outcome.attempt).collect();
    asked.sort_unstable();
    let facts: Vec<&Facts> = scenario.each_lane().map(|kind| &kind.facts).collect();
    let mut lives = lives(&facts, &result.deliveries, &asked, scenario);
    let mut best_cached: Vec<(Attempt, Server, u32)> = Vec::new();
    for (server, life) in lives.iter().enumerate() {
        best_cached.extend(life.cached.iter().map(|&(attempt, tokens)| (attempt, server, tokens)));
    }
    // The most for each request, the first replica of equals.
    best_cached.sort_by_key(|&(attempt, server, tokens)| (attempt, std::cmp::Reverse(tokens), server));
    best_cached.dedup_by_key(|(attempt, _, _)| *attempt);
    for life in &mut lives {
        // Of two copies no more than one is here, and its client knows of one.
        life.booked.retain(|booked| booked.outcome.finish.is_complete());
        life.booked.iter_mut().for_each(|booked| booked.outcome.id = booked.outcome.id.original());
        life.booked.sort_by_key(|booked| attempt_of(&booked.outcome));
    }
    let mut requests = Vec::with_capacity(outcomes.len());
    let mut surroundings = Vec::with_capacity(outcomes.len());
    for outcome in outcomes {
        let attempt = outcome.attempt;
        let server = outcome.replica.expect("a whole answer comes from a replica") as usize;
        let booked = &lives[server].booked;
        let place = booked.binary_search_by_key(&attempt, |booked| attempt_of(&booked.outcome));
        let booked = &booked[place.expect("law 12: a replica that lives alone ends the same requests")];
        let found = best_cached.binary_search_by_key(&attempt, |&(attempt, _, _)| attempt).ok();
        let elsewhere = found.map(|place| (best_cached[place].1, best_cached[place].2));
        let elsewhere = elsewhere.filter(|&(_, tokens)| tokens > booked.outcome.cached_tokens);
        requests.push(explained(scenario, facts[server], outcome, booked, elsewhere));
        surroundings.push(booked.surroundings);
    }
    let stories = slowest.iter().map(|outcome| {
        let id = outcome.attempt.request;
        let place = requests.binary_search_by_key(&id, |request: &Explained| request.outcome.attempt.request);
        let place = place.expect("the slowest are among them");
        story(requests[place].clone(), &surroundings[place], &lives)
    });
    Ok(Explanation {
        stories: stories.collect(),
        ttft: Tail::of(&requests, Outcome::ttft, |request| request.ttft),
        e2e: Tail::of(&requests, Outcome::e2e, |request| request.e2e),
        requests,
        summary: result.summary,
    })
}

fn attempt_of(engine: &EngineOutcome) -> Attempt {
    Attempt { request: engine.id, number: engine.attempt }
}

/// Every replica's life again, side by side.
fn lives(
    facts: &[&Facts],
    deliveries: &[Vec<Delivery>],
    asked: &[Attempt],
    scenario: &Scenario,
) -> Vec<Life> {
    let given = |(server, all)| -> Vec<(Server, &Delivery)> {
        let all: &Vec<Delivery> = all;
        all.iter().map(|delivery| (server, delivery)).collect()
    };
    let mut all: Vec<(Server, &Delivery)> = deliveries.iter().enumerate().flat_map(given).collect();
    all.sort_by_key(|(_, delivery)| (delivery.at, delivery.order));
    let seed = repetition_seed(scenario, 0);
    let one =
        |(server, facts): (Server, &&Facts)| live_again(server, facts, &all, asked, (scenario.end, seed));
    facts.par_iter().enumerate().map(one).collect()
}

/// A request's parts: its way to the engine and back, and what its engine made of it.
fn explained(
    scenario: &Scenario,
    facts: &Facts,
    outcome: &Outcome,
    booked: &Booked,
    cached_elsewhere: Option<(Server, u32)>,
) -> Explained {
    let engine = outcome.engine.as_ref().expect("a whole answer comes from an engine");
    assert_eq!(*engine, booked.outcome, "law 12: a replica that lives alone does what it did in the fleet");
    let network = scenario.network;
    let arrived = outcome.arrived.expect("a whole answer has reached a replica");
    let (set_out, there) = match outcome.detour.as_deref() {
        None => (outcome.sent, network.router_to_replica),
        Some(Detour { set_out, left }) => (*set_out, arrived - *left),
    };
    let way = network.client_to_router + there;
    let mut outside = Parts::default();
    outside.add(Part::EarlierTries, set_out - outcome.sent);
    outside.add(Part::Network, way);
    outside.add(Part::Router, arrived - set_out - way);
    outside.add(Part::FrontEnd, network.frontend);
    let (mut ttft, mut e2e) = (outside, outside);
    ttft += booked.before_first_token;
    e2e += booked.parts;
    let by_token = network.per_token * u64::from(engine.output_tokens).saturating_sub(1);
    e2e.add(Part::FrontEnd, by_token);
    e2e.add(Part::Network, outcome.done_received - engine.done - by_token);
    if let (Some(received), Some(came_out)) = (outcome.first_token_received, engine.first_token) {
        ttft.add(Part::Network, received - came_out);
    }
    if let Some((_, tokens)) = cached_elsewhere {
        let saved = saved_ps(facts, &booked.chunks, outcome.prompt_tokens, tokens);
        for parts in [&mut ttft, &mut e2e] {
            parts[Part::OwnPrefill] -= saved;
            parts[Part::CacheMiss] += saved;
        }
    }
    let sums_to =
        |parts: &Parts, span: Option<Span>| span.is_some_and(|span| span.as_ps() as i64 == parts.total_ps());
    assert!(
        sums_to(&e2e, outcome.e2e()) && sums_to(&ttft, outcome.ttft()),
        "parts sum to the whole: {outcome:?}"
    );
    Explained { outcome: outcome.clone(), ttft, e2e, cached_elsewhere }
}

/// GPU time of a prompt's chunks that would not have been computed, had so many of its tokens been cached.
fn saved_ps(facts: &Facts, chunks: &[Chunk], prompt_tokens: u32, cached_tokens: u32) -> i64 {
    // The last token is always computed, and a block is cached as a whole.
    let block = facts.engine.block_size;
    let cached = cached_tokens.min(prompt_tokens.saturating_sub(1) / block * block);
    let gpu = |chunk: Chunk| {
        facts.step_time.cost(&Batch { chunks: &[chunk], decodes: Decodes::default() }).gpu.as_ps() as i64
    };
    let saved = |chunk: &Chunk| {
        let end = chunk.before + chunk.tokens;
        match cached {
            cached if cached <= chunk.before => 0,
            cached if cached >= end => gpu(*chunk),
            cached => gpu(*chunk) - gpu(Chunk { before: cached, tokens: end - cached, ..*chunk }),
        }
    };
    chunks.iter().map(saved).sum()
}

fn story(request: Explained, around: &Surroundings, lives: &[Life]) -> Story {
    let outcome = &request.outcome;
    let id = outcome.attempt;
    let engine = outcome.engine.as_ref().expect("a whole answer comes from an engine");
    // The way to another replica and back is as long.
    let ways = outcome.e2e().expect("it has a whole answer") - (engine.done - outcome.sent);
    let elsewhere = |life: &Life| match life.ends.iter().find(|(asked, _)| *asked == id) {
        Some((_, end)) => end.map(|end| end - outcome.sent + ways),
        // Where it went.
        None => outcome.e2e(),
    };
    Story {
        at_delivery: around.at_delivery,
        prompt_tokens_ahead: around.prompt_tokens_ahead,
        mean_batch: (around.decode_steps > 0)
            .then(|| around.decoding_beside as f64 / around.decode_steps as f64),
        elsewhere: lives.iter().map(elsewhere).collect(),
        request,
    }
}
