//! `estimated-ttft`: where the first token is expected first.
//!
//! Mooncake's Conductor (FAST 2025): TTFT = T_queue + T_prefill(L, cached), argmin; the first of equals. T_queue: the prices of
//! the prompts that this gateway has in flight there and has heard no token of; T_prefill: the price of this request's uncached
//! tokens, attending to the cached ones, in steps of the token budget on that card. Cached tokens are looked up in the engines' caches.
//! Transfers of caches between replicas are not modelled, so the cache counts where it is.

use super::in_flight_tokens::InFlightTokens;
use super::round_robin::Parameters;
use super::{Decision, Feedback, Glance, Picker, PolicyInfo, Router, Server, Sight, Ties, prices};
use crate::request::Arrival;
use crate::time::Time;

/// The entry of this policy in the list.
pub const INFO: PolicyInfo = PolicyInfo {
    name: "estimated-ttft",
    family: "completion time",
    reads: "KV events, own prompts in flight, price list",
    upstream: "Mooncake Conductor, vLLM router ttft_aware",
    default_freshness: None,
    build: |parameters, seed, gateway| {
        let Parameters {} = parameters.clone().try_into()?;
        Ok(Box::new(EstimatedTtft {
            picker: Picker::new(Ties::First, seed, gateway),
            queued_ps: InFlightTokens::default(),
            own: Vec::new(),
        }))
    },
};

/// Prices of prompts in flight, in picoseconds.
#[derive(Clone, Debug)]
pub struct EstimatedTtft {
    picker: Picker,
    queued_ps: InFlightTokens,
    /// Price of the prompt being decided, by replica.
    own: Vec<u64>,
}

impl Router for EstimatedTtft {
    fn sight(&self) -> Sight {
        Sight { responses: true, first_tokens: true, kv_events: true, ..Sight::default() }
    }

    fn decide(&mut self, arrival: &Arrival, glance: &mut dyn Glance) -> Decision {
        let among = glance.candidates();
        self.own.clear();
        self.own.resize(glance.servers(), 0);
        for server in among.iter() {
            let cached = glance.cached_tokens(server, arrival);
            self.own[server] = prices::uncached(glance.facts(server), arrival.prompt_tokens, cached).as_ps();
        }
        let ttft = |server: Server| (server, self.queued_ps.at(server) + self.own[server]);
        let chosen = self.picker.least(among.iter().map(ttft));
        self.queued_ps.decide(arrival.id, self.own[chosen]);
        Decision::Send(chosen)
    }

    fn committed(&mut self, arrival: &Arrival, server: Server, _at: Time) {
        self.queued_ps.commit(arrival.id, server, 0);
    }

    fn heard(&mut self, feedback: &Feedback) {
        self.queued_ps.release(feedback.id());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::request::RequestId;
    use crate::router::tests::{Scene, at_s, policy, prompt};

    /// 5 ms + 30 us a token + 25 ns a token of context: 1,000 tokens take 35.03 ms, 200 behind 800 cached ones 11.03 ms.
    #[test]
    fn queue_and_own_prompt_are_one_sum() {
        let mut router = policy("estimated-ttft", "");
        let mut scene = Scene::of(2);
        scene.cached = vec![0, 800];
        let sent: Vec<_> = (0..5).map(|id| scene.commit(&mut *router, &prompt(id, 1, 1_000))).collect();
        // 11 at the second until it has 33.08 in its queue: 44.1 is more than 35.03.
        assert_eq!(sent, [1, 1, 1, 0, 1]);
        router.heard(&Feedback::FirstToken { id: RequestId(3), server: 0, at: at_s(101) });
        // Now 35.03 against 44.1 + 11.
        assert_eq!(scene.send(&mut *router, &prompt(9, 1, 1_000)), 0);
    }
}
