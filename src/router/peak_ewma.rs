//! `peak-ewma`: of two replicas the one whose recent latency times its requests in flight is less.
//!
//! Finagle, Linkerd, tower (`load/peak_ewma.rs`), brpc `p2c`: a latency above the average replaces it, one below moves it
//! towards itself by 1 - exp(-dt / tau), tau 10 s; load = average (in flight + 1), starting from 30 ms; two random replicas, the
//! first of equals. With streamed answers the latency ends at the first token (`until = "end"`: at the last). An average that
//! knows nothing of lengths mostly measures the mix of requests.

use rand::RngExt;
use rustc_hash::FxHashMap;
use schemars::JsonSchema;
use serde::de::Error as _;
use serde::{Deserialize, Serialize};

use super::{Decision, Feedback, Glance, PolicyInfo, Router, Server, Sight};
use crate::random::{Purpose, Stream};
use crate::request::{Arrival, RequestId};
use crate::time::Time;

/// When a latency ends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Until {
    /// At the first token.
    #[default]
    FirstToken,
    /// At the last.
    End,
}

/// `[router.parameters]` of this policy.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Parameters {
    /// How fast the average forgets, seconds.
    pub decay_s: f64,
    /// What is assumed of a replica without an answer, milliseconds.
    pub default_rtt_ms: f64,
    /// When a latency ends.
    pub until: Until,
}

impl Default for Parameters {
    fn default() -> Self {
        Parameters { decay_s: 10.0, default_rtt_ms: 30.0, until: Until::FirstToken }
    }
}

/// The entry of this policy in the list.
pub const INFO: PolicyInfo = PolicyInfo {
    name: "peak-ewma",
    family: "latency feedback",
    reads: "own latencies and requests in flight",
    upstream: "Finagle, Linkerd, tower peak EWMA, brpc p2c",
    default_freshness: None,
    build: |parameters, seed, gateway| {
        let parameters: Parameters = parameters.clone().try_into()?;
        if !(parameters.decay_s > 0.0 && parameters.default_rtt_ms >= 0.0) {
            return Err(toml::de::Error::custom("`decay_s` must be above 0, `default_rtt_ms` at least 0"));
        }
        let stream = seed.stream(Purpose::Routing, gateway);
        Ok(Box::new(PeakEwma { parameters, stream, averages: Vec::new(), sent: FxHashMap::default() }))
    },
};

/// Averages by replica: seconds, and when they were last told.
#[derive(Clone, Debug)]
pub struct PeakEwma {
    parameters: Parameters,
    stream: Stream,
    averages: Vec<(f64, Time)>,
    sent: FxHashMap<RequestId, Time>,
}

impl Router for PeakEwma {
    fn sight(&self) -> Sight {
        Sight {
            responses: true,
            first_tokens: self.parameters.until == Until::FirstToken,
            ..Sight::default()
        }
    }

    fn meet(&mut self, servers: usize) {
        self.averages.resize(servers, (self.parameters.default_rtt_ms / 1e3, Time::ZERO));
    }

    fn decide(&mut self, _arrival: &Arrival, glance: &mut dyn Glance) -> Decision {
        let among = glance.candidates();
        let servers = among.len();
        if servers == 1 {
            return Decision::Send(among.at(0));
        }
        let first = self.stream.random_range(0..servers);
        let second = (first + self.stream.random_range(1..servers)) % servers;
        let (first, second) = (among.at(first), among.at(second));
        let load = |server: Server| self.averages[server].0 * f64::from(glance.mine(server).in_flight + 1);
        Decision::Send(if load(second) < load(first) { second } else { first })
    }

    fn committed(&mut self, arrival: &Arrival, _server: Server, at: Time) {
        self.sent.insert(arrival.id, at);
    }

    fn heard(&mut self, feedback: &Feedback) {
        let (server, at) = match (*feedback, self.parameters.until) {
            (Feedback::FirstToken { server, at, .. }, Until::FirstToken)
            | (Feedback::Completed { server, at, .. }, Until::End) => (server, at),
            (Feedback::FirstToken { .. }, Until::End) => return,
            // What failed, or was counted at its first token.
            _ => {
                self.sent.remove(&feedback.id());
                return;
            }
        };
        let Some(sent) = self.sent.remove(&feedback.id()) else { return };
        let latency_s = at.saturating_since(sent).as_s();
        let (average, told) = self.averages[server];
        let average = if latency_s > average {
            latency_s
        } else {
            let kept = (-at.saturating_since(told).as_s() / self.parameters.decay_s).exp();
            average * kept + latency_s * (1.0 - kept)
        };
        self.averages[server] = (average, at);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::router::tests::{Scene, at_s, policy, prompt};

    #[test]
    fn peaks_count_at_once_and_fade() {
        let mut router = policy("peak-ewma", "");
        let mut scene = Scene::of(2);
        scene.send(&mut *router, &prompt(9, 1, 10));
        let mut told = |id: u32, server, sent, at| {
            router.committed(&prompt(id, 1, 10), server, at_s(sent));
            router.heard(&Feedback::FirstToken { id: RequestId(id), server, at: at_s(at) });
        };
        told(0, 0, 100, 102);
        told(1, 1, 100, 101);
        // 2 s against 1 s (1 + 1) with one in flight: equal, so both are met; with two there the first is less.
        scene.mine[1].in_flight = 2;
        assert!((0..30).all(|id| scene.send(&mut *router, &prompt(id, 1, 10)) == 0));
        // After ten seconds a latency of nothing takes 2 s down to 2 / e.
        let mut told = |id: u32, server, sent, at| {
            router.committed(&prompt(id, 1, 10), server, at_s(sent));
            router.heard(&Feedback::FirstToken { id: RequestId(id), server, at: at_s(at) });
        };
        told(2, 0, 112, 112);
        // 0.736 (3 + 1) = 2.94 against 1 (2 + 1) = 3.
        scene.mine[0].in_flight = 3;
        assert!((0..30).all(|id| scene.send(&mut *router, &prompt(id, 1, 10)) == 0));
        scene.mine[0].in_flight = 4;
        assert!((0..30).all(|id| scene.send(&mut *router, &prompt(id, 1, 10)) == 1));
    }
}
