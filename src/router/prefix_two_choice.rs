//! `prefix-two-choice`: a prompt's beginning names two replicas, and the better of the two gets it.
//!
//! DualMap (arXiv 2602.06502): two independent hashes of the prompt's first tokens give two candidates. The one that is believed
//! to have more of the prompt cached is taken, as long as the first token is expected there within the objective; else, and
//! where neither has more, the one where the first token is expected sooner, of equals the first hash's. Expected: the prices
//! of uncached prompt tokens in flight there by the gateway's own count, and of this prompt's own. Cached is what the gateway
//! sent there, up to as many blocks as the engine has. DualMap moves queued requests off hot replicas too; not modelled.

use schemars::JsonSchema;
use serde::de::Error as _;
use serde::{Deserialize, Serialize};

use super::belief::{Belief, Keeping};
use super::in_flight_tokens::InFlightTokens;
use super::ring::Ring;
use super::{Decision, Feedback, Glance, PolicyInfo, Router, Server, Sight, prices};
use crate::random::mix;
use crate::replica::block_keys::leading_keys;
use crate::request::Arrival;
use crate::time::{Span, Time};

/// `[router.parameters]` of this policy.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Parameters {
    /// Tokens of the prompt that make the key.
    pub prefix_tokens: u32,
    /// A cached prefix wins while the first token is expected within this, milliseconds.
    pub ttft_slo_ms: f64,
    /// Points of each replica on either ring.
    pub virtual_nodes: u32,
}

impl Default for Parameters {
    fn default() -> Self {
        Parameters { prefix_tokens: 256, ttft_slo_ms: 5_000.0, virtual_nodes: 160 }
    }
}

/// The entry of this policy in the list.
pub const INFO: PolicyInfo = PolicyInfo {
    name: "prefix-two-choice",
    family: "affinity",
    reads: "prompt's first tokens, own prompts in flight, own belief in prefixes, price list",
    upstream: "DualMap",
    default_freshness: None,
    build: |parameters, _seed, _gateway| {
        let parameters: Parameters = parameters.clone().try_into()?;
        if parameters.prefix_tokens == 0 || !(1..=65_537).contains(&parameters.virtual_nodes) {
            return Err(toml::de::Error::custom(
                "`prefix_tokens` must be at least 1, `virtual_nodes` 1 to 65537",
            ));
        }
        if !(0.0..=1e9).contains(&parameters.ttft_slo_ms) {
            return Err(toml::de::Error::custom("`ttft_slo_ms` must be 0 to 1e9 milliseconds"));
        }
        Ok(Box::new(PrefixTwoChoice {
            slo: Span::from_s_f64(parameters.ttft_slo_ms / 1e3),
            ring: Ring::new(parameters.virtual_nodes),
            parameters,
            belief: None,
            queued_ps: InFlightTokens::default(),
            keys: Vec::new(),
        }))
    },
};

/// Tells the second hash from the first.
const SECOND: u64 = 0x6475_616c_6d61_7032;

/// Two rings, and what was sent where.
#[derive(Clone, Debug)]
pub struct PrefixTwoChoice {
    parameters: Parameters,
    slo: Span,
    ring: Ring,
    belief: Option<Belief>,
    /// Prices of uncached prompts in flight, in picoseconds.
    queued_ps: InFlightTokens,
    keys: Vec<u64>,
}

impl Router for PrefixTwoChoice {
    fn sight(&self) -> Sight {
        Sight { responses: true, first_tokens: true, ..Sight::default() }
    }

    fn decide(&mut self, arrival: &Arrival, glance: &mut dyn Glance) -> Decision {
        let (servers, among) = (glance.servers(), glance.candidates());
        let tokens = self.parameters.prefix_tokens.min(arrival.prompt_tokens).max(1);
        leading_keys(arrival.id, &arrival.content, tokens, 1, &mut self.keys);
        let key = self.keys[0];
        let first = self.ring.first(key, servers, &among);
        // The second hash goes on from key to key until it names somebody else.
        let mut second = first;
        for attempt in 0..u64::from(among.len() > 1) * 64 {
            second = self.ring.first(mix(key ^ SECOND ^ attempt), servers, &among);
            if second != first {
                break;
            }
        }
        let engine = &glance.facts(first).engine;
        let keeping = Keeping {
            block_tokens: engine.block_size,
            most_blocks: Some(engine.num_gpu_blocks as usize),
            ttl: None,
            most_matched: u32::MAX,
        };
        let belief = self.belief.get_or_insert_with(|| Belief::new(keeping));
        let matched = belief.matched(arrival, servers, glance.now(), false);
        let of = |server: Server| {
            let cached = matched[server] * keeping.block_tokens;
            let own = prices::uncached(glance.facts(server), arrival.prompt_tokens, cached).as_ps();
            (cached, own, Span::from_ps(self.queued_ps.at(server) + own))
        };
        let (here, there) = (of(first), of(second));
        let second_is_warmer = there.0 > here.0 && there.2 <= self.slo;
        let first_is_warmer = here.0 > there.0 && here.2 <= self.slo;
        let takes_second = second_is_warmer || !first_is_warmer && there.2 < here.2;
        let (chosen, own) = if takes_second { (second, there.1) } else { (first, here.1) };
        self.queued_ps.decide(arrival.id, own);
        Decision::Send(chosen)
    }

    fn committed(&mut self, arrival: &Arrival, server: Server, at: Time) {
        self.queued_ps.commit(arrival.id, server, 0);
        if let Some(belief) = &mut self.belief {
            belief.sent(arrival, server + 1, server, at);
        }
    }

    fn heard(&mut self, feedback: &Feedback) {
        self.queued_ps.release(feedback.id());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::request::RequestId;
    use crate::router::tests::{Scene, policy, prompt};

    /// A prompt of 1,000 tokens takes 35.03 ms, one of which 992 are cached 5.26 ms.
    #[test]
    fn two_replicas_share_a_prefix_and_the_warm_one_wins_within_the_objective() {
        let mut scene = Scene::of(8);
        let mut router = policy("prefix-two-choice", "ttft_slo_ms = 60");
        let sent: Vec<_> = (0..40).map(|id| scene.commit(&mut *router, &prompt(id, 1, 1_000))).collect();
        let first = sent[0];
        // 35.03 + 4 * 5.26 ms are queued when the next would have 61.3 there: the other hash's replica is sooner.
        assert_eq!(sent[..5], [first; 5]);
        let second = sent[5];
        assert!(second != first && sent.iter().all(|server| [first, second].contains(server)), "{sent:?}");
        // What has had its first token is queued no more, and the first is warm again.
        for id in 0..40 {
            router.heard(&Feedback::FirstToken { id: RequestId(id), server: 0, at: scene.now });
        }
        assert_eq!(scene.send(&mut *router, &prompt(90, 1, 1_000)), first);
        // Different beginnings spread over all.
        let mut homes: Vec<_> =
            (0..60).map(|id| scene.send(&mut *router, &prompt(100 + id, 500 + u64::from(id), 400))).collect();
        homes.sort_unstable();
        homes.dedup();
        assert_eq!(homes.len(), 8);
    }
}
