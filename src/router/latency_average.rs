//! `latency-average`: any of the replicas whose recent answers were quickest.
//!
//! LiteLLM `latency-based-routing`: the mean of up to ten samples of the time to first token (streamed answers), none being 0;
//! uniform among those at most (1 + buffer) times the lowest; a sample counts for an hour. Blind to what is in flight: between
//! two answers everybody follows the same one.

use std::collections::VecDeque;

use rand::RngExt;
use rustc_hash::FxHashMap;
use schemars::JsonSchema;
use serde::de::Error as _;
use serde::{Deserialize, Serialize};

use super::{Decision, Feedback, Glance, PolicyInfo, Router, Server, Sight};
use crate::random::{Purpose, Stream};
use crate::request::{Arrival, RequestId};
use crate::time::{Span, Time};

/// `[router.parameters]` of this policy.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Parameters {
    /// Samples that are kept of a replica.
    pub max_latency_list_size: u32,
    /// Those so much slower than the quickest count as quick: 0.5 is half as slow again.
    pub lowest_latency_buffer: f64,
    /// How long a sample counts, seconds.
    pub ttl_s: f64,
}

impl Default for Parameters {
    fn default() -> Self {
        Parameters { max_latency_list_size: 10, lowest_latency_buffer: 0.0, ttl_s: 3_600.0 }
    }
}

/// The entry of this policy in the list.
pub const INFO: PolicyInfo = PolicyInfo {
    name: "latency-average",
    family: "latency feedback",
    reads: "own latencies",
    upstream: "LiteLLM latency-based-routing",
    default_freshness: None,
    build: |parameters, seed, gateway| {
        let parameters: Parameters = parameters.clone().try_into()?;
        let usable = (0.0..).contains(&parameters.lowest_latency_buffer)
            && (1e-6..=31_536_000.0).contains(&parameters.ttl_s)
            && parameters.max_latency_list_size > 0;
        if !usable {
            return Err(toml::de::Error::custom(
                "`max_latency_list_size` must be at least 1, `lowest_latency_buffer` at least 0, `ttl_s` above 0 and at \
                 most a year",
            ));
        }
        let stream = seed.stream(Purpose::Routing, gateway);
        Ok(Box::new(LatencyAverage {
            parameters,
            stream,
            samples: Vec::new(),
            means: Vec::new(),
            sent: FxHashMap::default(),
        }))
    },
};

/// Samples by replica, the oldest first.
#[derive(Clone, Debug)]
pub struct LatencyAverage {
    parameters: Parameters,
    stream: Stream,
    samples: Vec<VecDeque<(Time, Span)>>,
    /// Of the decision under way.
    means: Vec<f64>,
    sent: FxHashMap<RequestId, Time>,
}

impl Router for LatencyAverage {
    fn sight(&self) -> Sight {
        Sight { responses: true, first_tokens: true, ..Sight::default() }
    }

    fn decide(&mut self, _arrival: &Arrival, glance: &mut dyn Glance) -> Decision {
        let (servers, now) = (glance.servers(), glance.now());
        let among = glance.candidates();
        self.samples.resize(servers, VecDeque::new());
        let ttl = Span::from_s_f64(self.parameters.ttl_s);
        let mean = |samples: &mut VecDeque<(Time, Span)>| {
            while samples.pop_front_if(|(at, _)| now.saturating_since(*at) > ttl).is_some() {}
            samples.iter().map(|(_, latency)| latency.as_s()).sum::<f64>() / samples.len().max(1) as f64
        };
        self.means.clear();
        self.means.extend(self.samples.iter_mut().map(mean));
        let lowest = among.iter().map(|server| self.means[server]).fold(f64::INFINITY, f64::min);
        let bound = lowest * (1.0 + self.parameters.lowest_latency_buffer);
        let mut quick = among.iter().filter(|&server| self.means[server] <= bound);
        let place = self.stream.random_range(0..quick.clone().count());
        Decision::Send(quick.nth(place).unwrap_or(among.at(0)))
    }

    fn committed(&mut self, arrival: &Arrival, _server: Server, at: Time) {
        self.sent.insert(arrival.id, at);
    }

    fn heard(&mut self, feedback: &Feedback) {
        let Some(sent) = self.sent.remove(&feedback.id()) else { return };
        if let Feedback::FirstToken { server, at, .. } = *feedback {
            if self.samples.len() <= server {
                self.samples.resize(server + 1, VecDeque::new());
            }
            let samples = &mut self.samples[server];
            samples.push_back((at, at.saturating_since(sent)));
            if samples.len() > self.parameters.max_latency_list_size as usize {
                samples.pop_front();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::router::tests::{Scene, at_s, policy, prompt};

    #[test]
    fn the_unseen_first_then_the_quickest() {
        let mut router = policy("latency-average", "max_latency_list_size = 2");
        let mut scene = Scene::of(2);
        let mut told = |id: u32, server, seconds: u64| {
            router.committed(&prompt(id, 1, 10), server, at_s(100));
            router.heard(&Feedback::FirstToken { id: RequestId(id), server, at: at_s(100 + seconds) });
        };
        // (9 + 3) / 2 = 6 of the last two, the first of which had been 1.
        told(0, 0, 1);
        told(1, 0, 9);
        told(2, 0, 3);
        assert!((0..20).all(|id| scene.send(&mut *router, &prompt(id, 1, 10)) == 1));
        let mut told = |id: u32, server, seconds: u64| {
            router.committed(&prompt(id, 1, 10), server, at_s(100));
            router.heard(&Feedback::FirstToken { id: RequestId(id), server, at: at_s(100 + seconds) });
        };
        told(3, 1, 7);
        assert!((0..20).all(|id| scene.send(&mut *router, &prompt(id, 1, 10)) == 0));
        // After an hour nobody has been seen.
        scene.now = at_s(4_000);
        assert!((0..40).any(|id| scene.send(&mut *router, &prompt(id, 1, 10)) == 1));
    }
}
