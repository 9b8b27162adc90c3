//! `least-tokens`: fewest prompt tokens still to be computed, this request's own included.
//!
//! EPP `token-load-scorer`: score 1 - min(1, (T + u) / 4,194,304), T being the uncached prompt tokens that this gateway has in
//! flight there, u this request's own uncached ones, by the approximate prefix belief; ties uniform. T rises when the
//! decision takes effect and falls at the first token. SMG `dp_min_token` is the same without a belief (`prefix = false`).

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::approximate_prefix::{ApproximatePrefix, Parameters as Prefix};
use super::{Decision, Feedback, Glance, Picker, PolicyInfo, Router, Server, Sight, Ties};
use crate::request::Arrival;
use crate::router::in_flight_tokens::InFlightTokens;
use crate::time::Time;

/// Beyond so many tokens all replicas are alike.
pub(super) const SCALE_TOKENS: f64 = 4_194_304.0;

/// `[router.parameters]` of this policy.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Parameters {
    /// Whether tokens believed to be cached count as computed.
    pub prefix: bool,
}

impl Default for Parameters {
    fn default() -> Self {
        Parameters { prefix: true }
    }
}

/// The entry of this policy in the list.
pub const INFO: PolicyInfo = PolicyInfo {
    name: "least-tokens",
    family: "own counts",
    reads: "own prompt tokens in flight, own prefix belief",
    upstream: "EPP token-load-scorer, SMG dp_min_token",
    default_freshness: None,
    build: |parameters, seed, gateway| {
        let Parameters { prefix } = parameters.clone().try_into()?;
        Ok(Box::new(LeastTokens {
            picker: Picker::new(Ties::Random, seed, gateway),
            prefix: prefix.then(|| ApproximatePrefix::new(&Prefix::default())),
            in_flight: InFlightTokens::default(),
        }))
    },
};

/// Prompt tokens in flight, and what is believed to be cached.
#[derive(Clone, Debug)]
pub struct LeastTokens {
    picker: Picker,
    prefix: Option<ApproximatePrefix>,
    in_flight: InFlightTokens,
}

/// Prompt tokens that are believed to be cached at each replica; empty without a belief.
fn cached<'a>(
    prefix: &'a mut Option<ApproximatePrefix>,
    arrival: &Arrival,
    servers: usize,
    now: Time,
) -> &'a [u32] {
    prefix.as_mut().map_or(&[], |prefix| prefix.cached_tokens(arrival, servers, now))
}

impl Router for LeastTokens {
    fn sight(&self) -> Sight {
        Sight { responses: true, first_tokens: true, ..Sight::default() }
    }

    fn decide(&mut self, arrival: &Arrival, glance: &mut dyn Glance) -> Decision {
        let (servers, among) = (glance.servers(), glance.candidates());
        let cached = cached(&mut self.prefix, arrival, servers, glance.now());
        let load = |server: Server| {
            let own = arrival.prompt_tokens - cached.get(server).unwrap_or(&0);
            (server, ((self.in_flight.at(server) + u64::from(own)) as f64 / SCALE_TOKENS).min(1.0))
        };
        Decision::Send(self.picker.least(among.iter().map(load)))
    }

    fn committed(&mut self, arrival: &Arrival, server: Server, at: Time) {
        let cached = cached(&mut self.prefix, arrival, server + 1, at).get(server).copied().unwrap_or(0);
        self.in_flight.charge(arrival.id, server, u64::from(arrival.prompt_tokens - cached));
        if let Some(prefix) = &mut self.prefix {
            prefix.sent(arrival, server, at);
        }
    }

    fn heard(&mut self, feedback: &Feedback) {
        self.in_flight.release(feedback.id());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::request::RequestId;
    use crate::router::tests::{Scene, at_s, policy, prompt};

    #[test]
    fn tokens_weigh_and_not_requests() {
        let mut router = policy("least-tokens", "");
        let mut scene = Scene::of(2);
        let long = scene.commit(&mut *router, &prompt(0, 1, 6_400));
        // Many short ones go to the other replica until they are more tokens than the long one.
        let short: Vec<_> =
            (1..9).map(|id| scene.commit(&mut *router, &prompt(id, 100 + u64::from(id), 640))).collect();
        assert!(short.iter().all(|server| *server != long), "{short:?}");
        // The long one's text is believed to be there: who has nothing else to compute joins it.
        assert_eq!(scene.send(&mut *router, &prompt(20, 1, 6_400)), long);
        assert_eq!(scene.send(&mut *router, &prompt(21, 77, 640)), 1 - long);
        router.heard(&Feedback::FirstToken { id: RequestId(0), server: long, at: at_s(101) });
        assert_eq!(scene.send(&mut *router, &prompt(22, 78, 640)), long);
    }
}
