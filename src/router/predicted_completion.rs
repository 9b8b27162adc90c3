//! `predicted-completion`: the replica predicted to finish this request first, given its state now.
//!
//! Estimate = wait for a slot and for KV blocks + prefill of what is queued and of this prompt + its decode.
//! Every part comes from what a gateway can see: the requests it sent and what it heard of them, the gauges
//! for those of others, the flags and the price list of the card, and predicted output lengths. The forms are
//! those of the published estimators: token backlog over rate for prefill (EPP, Mooncake Conductor), output
//! tokens times the batch's step time for decode (RouteBalance), and, where slots or blocks are full, the
//! time until enough of the running requests are predicted to end (Little's-law E2E of RouteBalance).
//!
//! `estimator` says how much of that is counted, each with all before it: `tokens` (queued prompts and this one), `decode-backlog`
//! (this answer at the pace of who decodes there now), `interference` (at the pace with this request among them), `kv-pressure`
//! (the wait for a slot and for blocks). The next rung is `simulate-ahead`. `social` adds what others lose: every one of them
//! stands still while this prompt is computed, and then takes longer steps for as long as both are there.
//!
//! Wrong predictions make it wrong: see `scenarios/prediction-loses.toml`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::prices::{self, Prefills};
use super::{Decision, Facts, Feedback, Freshness, Glance, Mine, PolicyInfo, Router, Server, Sight};
use crate::request::{Arrival, RequestId};
use crate::signals::Signals;
use crate::step_time::Decodes;
use crate::time::{Span, Time};

/// `[router.parameters]` of this policy.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Parameters {
    /// Output length assumed where no prediction is granted and none has been seen to end yet.
    pub default_output_tokens: u32,
    /// How much is counted.
    pub estimator: Estimator,
    /// Whether what others lose is counted too.
    pub social: bool,
}

/// Rungs of the ladder, each with all before it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Estimator {
    /// Queued prompts and this one.
    Tokens,
    /// This answer at the pace of who decodes there now.
    DecodeBacklog,
    /// At the pace with this request among them.
    Interference,
    /// The wait for a slot and for blocks.
    #[default]
    KvPressure,
}

impl Default for Parameters {
    fn default() -> Self {
        Parameters { default_output_tokens: 256, estimator: Estimator::KvPressure, social: false }
    }
}

/// The entry of this policy in the list.
pub const INFO: PolicyInfo = PolicyInfo {
    name: "predicted-completion",
    family: "completion time",
    reads: "own requests, gauges, prompt length, predicted output length, price list",
    upstream: "RouteBalance, LBGR and Mooncake Conductor are of this form",
    default_freshness: Some(Freshness::Polled { interval: Span::from_ms(50) }),
    build: |parameters, _seed, _gateway| {
        let parameters: Parameters = parameters.clone().try_into()?;
        Ok(Box::new(PredictedCompletion::new(parameters)))
    },
};

/// A request sent and not yet seen to end.
#[derive(Clone, Copy, Debug)]
struct Outstanding {
    id: RequestId,
    prompt_tokens: u32,
    predicted_output_tokens: u32,
    first_token_at: Option<Time>,
}

/// What one gateway has out at one replica, with its sums kept up to date.
#[derive(Clone, Debug, Default)]
struct Out {
    requests: Vec<Outstanding>,
    /// Those whose first token was heard, and the sum of these moments in picoseconds.
    decoding: u32,
    first_tokens_ps: u128,
    prompt_tokens: u64,
    /// Prompts of those whose first token was not heard.
    queued_prompt_tokens: u64,
}

impl Out {
    fn sent(&mut self, request: Outstanding) {
        self.prompt_tokens += u64::from(request.prompt_tokens);
        self.queued_prompt_tokens += u64::from(request.prompt_tokens);
        self.requests.push(request);
    }

    fn first_token(&mut self, id: RequestId, at: Time) {
        if let Some(request) = self.requests.iter_mut().find(|request| request.id == id) {
            request.first_token_at = Some(at);
            self.queued_prompt_tokens -= u64::from(request.prompt_tokens);
            self.decoding += 1;
            self.first_tokens_ps += u128::from(at.as_ps());
        }
    }

    fn ended(&mut self, id: RequestId) {
        let Some(place) = self.requests.iter().position(|request| request.id == id) else { return };
        let request = self.requests.swap_remove(place);
        self.prompt_tokens -= u64::from(request.prompt_tokens);
        match request.first_token_at {
            Some(at) => {
                self.decoding -= 1;
                self.first_tokens_ps -= u128::from(at.as_ps());
            }
            None => self.queued_prompt_tokens -= u64::from(request.prompt_tokens),
        }
    }

    /// Whether what the requests here hold surely fits into `room` tokens, if each has got one every `token_gap`.
    fn surely_fits(&self, room: u64, now: Time, token_gap: Span) -> bool {
        let Some(left) = room.checked_sub(self.prompt_tokens + u64::from(self.decoding)) else {
            return false;
        };
        // A first token is heard in the past, so no difference is negative.
        let decoding_ps = u128::from(self.decoding) * u128::from(now.as_ps()) - self.first_tokens_ps;
        decoding_ps <= u128::from(left) * u128::from(token_gap.as_ps().max(1))
    }
}

/// Shortest predicted completion first.
#[derive(Clone, Debug)]
pub struct PredictedCompletion {
    parameters: Parameters,
    outstanding: Vec<Out>,
    prefills: Prefills,
    outputs_seen: u64,
    output_tokens_seen: u64,
    /// Reused: (tokens still to come, tokens held) of each outstanding request.
    ends: Vec<(u32, u64)>,
}

impl PredictedCompletion {
    /// The policy of one gateway.
    pub fn new(parameters: Parameters) -> PredictedCompletion {
        PredictedCompletion {
            parameters,
            outstanding: Vec::new(),
            prefills: Prefills::default(),
            outputs_seen: 0,
            output_tokens_seen: 0,
            ends: Vec::new(),
        }
    }

    fn predicted_output_tokens(&self, arrival: &Arrival) -> u32 {
        let mean = self.output_tokens_seen.checked_div(self.outputs_seen);
        let assumed = mean.map_or(self.parameters.default_output_tokens, |mean| mean as u32);
        let predicted = arrival.predicted_output_tokens.unwrap_or(assumed);
        predicted.min(arrival.max_tokens.unwrap_or(u32::MAX)).max(1)
    }

    /// When this request would be done if it were sent to `server`, counted from now; none if that is surely later
    /// than `least`.
    fn estimate(
        &mut self,
        arrival: &Arrival,
        server: Server,
        now: Time,
        facts: &Facts,
        theirs: Theirs,
        least: Option<Span>,
    ) -> Option<Span> {
        let output_tokens = self.predicted_output_tokens(arrival);
        let out = &self.outstanding[server];
        let decodes = Decodes {
            count: out.decoding + theirs.requests + 1,
            context_sum: out.prompt_tokens + theirs.tokens + u64::from(arrival.prompt_tokens),
            context_max: 0,
        };
        let estimator = self.parameters.estimator;
        let prompts = out.queued_prompt_tokens + u64::from(arrival.prompt_tokens);
        let without = || {
            let (count, context_sum) =
                (decodes.count - 1, decodes.context_sum - u64::from(arrival.prompt_tokens));
            match count {
                // Alone it still decodes.
                0 => prices::step(facts, &[], decodes),
                _ => prices::step(facts, &[], Decodes { count, context_sum, context_max: 0 }),
            }
        };
        let mut time = Span::ZERO;
        if estimator >= Estimator::DecodeBacklog {
            let with = estimator >= Estimator::Interference;
            let token_gap = if with { prices::step(facts, &[], decodes) } else { without() };
            if estimator == Estimator::KvPressure {
                let steps = self.tokens_until_room(arrival, server, now, token_gap, facts, theirs);
                time += token_gap * u64::from(steps);
            }
            time += token_gap * u64::from(output_tokens - 1);
        }
        if self.parameters.social {
            let longer = prices::step(facts, &[], decodes).saturating_sub(without());
            time += self.loss_of_others(arrival, output_tokens, server, now, facts, theirs, longer);
        }
        // Prefill is the dearest price to tell, and mostly the others decide.
        if least.is_some_and(|least| time > least) {
            return None;
        }
        Some(time + self.prefills.time_of(facts, prompts))
    }

    /// What the requests there lose by this one: its prompt's time each, and `longer` a step as long as both are there. Of
    /// others' requests nothing is known but their number, so they are taken to stay as long as this one.
    #[expect(clippy::too_many_arguments, reason = "all of the state that an estimate is made of")]
    fn loss_of_others(
        &mut self,
        arrival: &Arrival,
        output_tokens: u32,
        server: Server,
        now: Time,
        facts: &Facts,
        theirs: Theirs,
        longer: Span,
    ) -> Span {
        let own_prompt = self.prefills.time_of(facts, u64::from(arrival.prompt_tokens));
        let out = &self.outstanding[server];
        let there = Decodes { count: out.decoding.max(1), context_sum: out.prompt_tokens, context_max: 0 };
        let gap = prices::step(facts, &[], there);
        let mut steps = u64::from(theirs.requests) * u64::from(output_tokens);
        for request in &out.requests {
            let left = match request.first_token_at {
                // How far it is is not seen; one that has decoded for as long as it was predicted is about to end.
                Some(at) => {
                    let generated = now.saturating_since(at).as_ps() / gap.as_ps().max(1) + 1;
                    u64::from(request.predicted_output_tokens).saturating_sub(generated).max(1)
                }
                None => u64::from(request.predicted_output_tokens),
            };
            steps += left.min(u64::from(output_tokens));
        }
        own_prompt * (out.requests.len() as u64 + u64::from(theirs.requests)) + longer * steps
    }

    /// Decode steps until a slot and enough blocks are free, if requests end as predicted.
    fn tokens_until_room(
        &mut self,
        arrival: &Arrival,
        server: Server,
        now: Time,
        token_gap: Span,
        facts: &Facts,
        theirs: Theirs,
    ) -> u32 {
        let out = &self.outstanding[server];
        let engine = &facts.engine;
        let slots = u64::from(engine.max_num_seqs);
        let room = u64::from(engine.num_gpu_blocks - 1) * u64::from(engine.block_size);
        let mut requests = out.requests.len() as u64 + u64::from(theirs.requests) + 1;
        let others = theirs.tokens + u64::from(arrival.prompt_tokens);
        // Mostly there is room for all, and nobody has to be looked at.
        if requests <= slots && others <= room && out.surely_fits(room - others, now, token_gap) {
            return 0;
        }
        self.ends.clear();
        for request in &out.requests {
            let generated = match request.first_token_at {
                Some(at) => now.saturating_since(at).as_ps() / token_gap.as_ps().max(1) + 1,
                None => 0,
            };
            let left = u64::from(request.predicted_output_tokens).saturating_sub(generated).max(1);
            self.ends.push((left as u32, u64::from(request.prompt_tokens) + generated));
        }
        self.ends.sort_unstable();
        let mut tokens = self.ends.iter().map(|&(_, held)| held).sum::<u64>() + others;
        let mut steps = 0;
        for &(left, held) in &self.ends {
            if requests <= slots && tokens <= room {
                break;
            }
            steps = left;
            requests -= 1;
            tokens -= held;
        }
        steps
    }
}

/// What others have running on a replica, as its gauges tell.
#[derive(Clone, Copy, Debug, Default)]
struct Theirs {
    requests: u32,
    tokens: u64,
}

impl Theirs {
    fn of(signals: &Signals, mine: Mine, facts: &Facts) -> Theirs {
        let reported = signals.running + signals.waiting;
        let requests = reported.saturating_sub(mine.in_flight_at_report);
        let used = u64::from(signals.kv_blocks_used) * u64::from(facts.engine.block_size);
        let tokens = (used * u64::from(requests)).checked_div(u64::from(reported)).unwrap_or(0);
        Theirs { requests, tokens }
    }
}

impl Router for PredictedCompletion {
    fn sight(&self) -> Sight {
        Sight { responses: true, first_tokens: true, signals: true, ..Sight::default() }
    }

    fn meet(&mut self, servers: usize) {
        self.outstanding.resize(servers, Out::default());
    }

    fn decide(&mut self, arrival: &Arrival, glance: &mut dyn Glance) -> Decision {
        let now = glance.now();
        let mut best: Option<((Span, u32), Server)> = None;
        for server in glance.candidates().iter() {
            let signals = glance.signals(server).signals;
            let mine = glance.mine(server);
            let facts = glance.facts(server);
            let theirs = Theirs::of(&signals, mine, facts);
            let least = best.map(|((least, _), _)| least);
            let Some(time) = self.estimate(arrival, server, now, facts, theirs, least) else { continue };
            // Equal estimates go to the least in flight, then to the first.
            let score = (time, mine.in_flight);
            if best.is_none_or(|(least, _)| score < least) {
                best = Some((score, server));
            }
        }
        best.map_or(Decision::Reject, |(_, server)| Decision::Send(server))
    }

    fn committed(&mut self, arrival: &Arrival, server: Server, _at: Time) {
        let predicted_output_tokens = self.predicted_output_tokens(arrival);
        self.outstanding[server].sent(Outstanding {
            id: arrival.id,
            prompt_tokens: arrival.prompt_tokens,
            predicted_output_tokens,
            first_token_at: None,
        });
    }

    fn heard(&mut self, feedback: &Feedback) {
        match *feedback {
            Feedback::FirstToken { id, server, at } => {
                self.outstanding[server].first_token(id, at);
            }
            Feedback::Completed { id, server, output_tokens, .. } => {
                self.outputs_seen += 1;
                self.output_tokens_seen += u64::from(output_tokens);
                self.outstanding[server].ended(id);
            }
            Feedback::Failed { id, server, .. } => {
                self.outstanding[server].ended(id);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::router::tests::{Scene, policy, prompt};

    fn of(id: u32, prompt_tokens: u32, predicted: u32) -> Arrival {
        Arrival { predicted_output_tokens: Some(predicted), ..prompt(id, u64::from(id), prompt_tokens) }
    }

    /// Has `decoding` at each replica, and after them prompts of `queued` tokens.
    fn placed(parameters: &str, decoding: [u32; 2], queued: [u32; 2]) -> (Box<dyn Router>, Scene) {
        let mut router = policy("predicted-completion", parameters);
        let mut scene = Scene::of(2);
        scene.send(&mut *router, &of(0, 1, 1));
        let mut id = 0;
        for server in 0..2 {
            for _ in 0..decoding[server] {
                id += 1;
                router.committed(&of(id, 10, 500), server, scene.now);
                router.heard(&Feedback::FirstToken { id: RequestId(id), server, at: scene.now });
            }
            if queued[server] > 0 {
                id += 1;
                router.committed(&of(id, queued[server], 500), server, scene.now);
            }
            scene.mine[server].in_flight = decoding[server] + u32::from(queued[server] > 0);
        }
        (router, scene)
    }

    /// A step is 5 ms, 30 us a token and 25 ns a token of context: behind 1,000 queued tokens a prompt waits 30 ms and a step
    /// more; ten that decode make each of 999 steps 0.27 ms longer.
    #[test]
    fn each_rung_sees_more() {
        let (mut tokens, mut scene) = placed("estimator = \"tokens\"", [0, 10], [1_000, 0]);
        assert_eq!(scene.send(&mut *tokens, &of(90, 100, 1_000)), 1);
        let (mut backlog, mut scene) = placed("estimator = \"decode-backlog\"", [0, 10], [1_000, 0]);
        assert_eq!(scene.send(&mut *backlog, &of(90, 100, 1_000)), 0);
        // Of two tokens the queue is all that counts.
        assert_eq!(scene.send(&mut *backlog, &of(91, 100, 2)), 1);
        // A replica with one that decodes looks as fast as an idle one until this request is counted among them.
        let (mut alone, mut scene) = placed("estimator = \"decode-backlog\"", [1, 0], [0, 0]);
        assert_eq!(scene.send(&mut *alone, &of(90, 500, 1_000)), 0);
        let (mut together, mut scene) = placed("estimator = \"interference\"", [1, 0], [0, 0]);
        assert_eq!(scene.send(&mut *together, &of(90, 500, 1_000)), 1);
    }

    /// A prompt of 4,000 tokens stops twenty for 0.13 s each, or one; alone it is sooner done where the twenty are.
    #[test]
    fn the_social_one_counts_who_is_kept_waiting() {
        let (mut selfish, mut scene) = placed("estimator = \"tokens\"", [20, 0], [0, 1_000]);
        assert_eq!(scene.send(&mut *selfish, &of(90, 4_000, 1)), 0);
        let (mut social, mut scene) = placed("estimator = \"tokens\"\nsocial = true", [20, 0], [0, 1_000]);
        assert_eq!(scene.send(&mut *social, &of(90, 4_000, 1)), 1);
    }
}
