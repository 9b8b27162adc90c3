//! `prequal`: probes that ran ahead say who has few requests, and who of these is quick.
//!
//! Prequal (Google, NSDI 2024, arXiv 2312.10172): after each request three random replicas are probed for their requests in
//! flight (RIF) and the median latency of recent requests that met about as many. At most 16 answers are kept, a second at
//! most; one is removed at every request, the oldest and the worst in turn. Probes above the 0.84 quantile of recent RIF are
//! hot; of the cold ones the least latency is taken, of hot ones alone the least RIF. Fewer than two answers: any replica. An
//! answer's RIF grows with what is sent there.
//!
//! An answer is here as of the request that asked for it, and is used from the next one on. A replica's median latency is of
//! what this gateway sent there: the replicas keep none.

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
    /// Answers that are kept.
    pub pool_size: u32,
    /// And for how long, seconds.
    pub max_age_s: f64,
    /// Probes a request.
    pub probe_rate: u32,
    /// Answers removed a request.
    pub remove_rate: u32,
    /// The quantile of recent RIF above which a replica is hot.
    pub rif_quantile: f64,
}

impl Default for Parameters {
    fn default() -> Self {
        Parameters { pool_size: 16, max_age_s: 1.0, probe_rate: 3, remove_rate: 1, rif_quantile: 0.84 }
    }
}

/// The entry of this policy in the list.
pub const INFO: PolicyInfo = PolicyInfo {
    name: "prequal",
    family: "probes",
    reads: "probed requests in flight, own latencies",
    upstream: "Prequal (Google)",
    default_freshness: None,
    build: |parameters, seed, gateway| {
        let parameters: Parameters = parameters.clone().try_into()?;
        if parameters.pool_size < 2
            || parameters.probe_rate == 0
            || !(1e-6..=86_400.0).contains(&parameters.max_age_s)
        {
            return Err(toml::de::Error::custom(
                "`pool_size` must be at least 2, `probe_rate` at least 1, `max_age_s` above 0 and at most a day",
            ));
        }
        if !(0.0..=1.0).contains(&parameters.rif_quantile) {
            return Err(toml::de::Error::custom("`rif_quantile` must be 0 to 1"));
        }
        Ok(Box::new(Prequal {
            parameters,
            stream: seed.stream(Purpose::Routing, gateway),
            pool: VecDeque::new(),
            recent: VecDeque::new(),
            worst_next: false,
            latencies: Vec::new(),
            sent: FxHashMap::default(),
            asked: Vec::new(),
            sorted: Vec::new(),
            near: Vec::new(),
        }))
    },
};

/// RIF values of which the quantile is taken.
const RECENT: usize = 128;
/// Latencies that are kept of a replica, and those of which the median is taken.
const SAMPLES: usize = 64;
const NEAREST: usize = 9;

#[derive(Clone, Copy, Debug)]
struct Probe {
    server: Server,
    requests: u32,
    latency: Span,
    taken_at: Time,
}

/// The pool of answers, and latencies by replica.
#[derive(Clone, Debug)]
pub struct Prequal {
    parameters: Parameters,
    stream: Stream,
    /// The oldest first.
    pool: VecDeque<Probe>,
    recent: VecDeque<u32>,
    worst_next: bool,
    latencies: Vec<VecDeque<(u32, Span)>>,
    /// Where and when a request was sent, and how many it met.
    sent: FxHashMap<RequestId, (Server, Time, u32)>,
    /// Who is probed for the decision under way.
    asked: Vec<Server>,
    /// Room for sorting.
    sorted: Vec<u32>,
    near: Vec<(u32, Span)>,
}

impl Prequal {
    /// Requests in flight from which on a replica is hot.
    fn threshold(&mut self) -> u32 {
        self.sorted.clear();
        self.sorted.extend(&self.recent);
        self.sorted.sort_unstable();
        let place = (self.sorted.len().saturating_sub(1)) as f64 * self.parameters.rif_quantile;
        self.sorted.get(place as usize).copied().unwrap_or(u32::MAX)
    }

    /// The median latency of recent requests that met about so many.
    fn latency(&mut self, server: Server, requests: u32) -> Span {
        let Some(samples) = self.latencies.get(server) else { return Span::ZERO };
        let near = &mut self.near;
        near.clear();
        near.extend(samples.iter().map(|(met, latency)| (met.abs_diff(requests), *latency)));
        near.sort_unstable();
        near.truncate(NEAREST);
        near.sort_unstable_by_key(|(_, latency)| *latency);
        near.get(near.len() / 2).map_or(Span::ZERO, |(_, latency)| *latency)
    }

    /// Place of the best of the pool, by heat, latency and RIF; of the worst with `reversed`.
    fn best(&mut self, reversed: bool) -> Option<usize> {
        let threshold = self.threshold();
        let rank = |probe: &Probe| match probe.requests > threshold {
            true => (true, Span::ZERO, probe.requests),
            false => (false, probe.latency, probe.requests),
        };
        let places = 0..self.pool.len();
        let of = |place: &usize| rank(&self.pool[*place]);
        if reversed { places.max_by_key(of) } else { places.min_by_key(of) }
    }

    fn probe(&mut self, glance: &mut dyn Glance) {
        let among = glance.candidates();
        self.asked.clear();
        while self.asked.len() < (self.parameters.probe_rate as usize).min(among.len()) {
            let server = among.at(self.stream.random_range(0..among.len()));
            if self.asked.contains(&server) {
                continue;
            }
            self.asked.push(server);
            let glimpse = glance.probe(server);
            let requests = glimpse.signals.running + glimpse.signals.waiting;
            self.recent.push_back(requests);
            if self.recent.len() > RECENT {
                self.recent.pop_front();
            }
            let latency = self.latency(server, requests);
            self.pool.push_back(Probe { server, requests, latency, taken_at: glimpse.taken_at });
            if self.pool.len() > self.parameters.pool_size as usize {
                self.pool.pop_front();
            }
        }
    }
}

impl Router for Prequal {
    fn sight(&self) -> Sight {
        Sight { responses: true, ..Sight::default() }
    }

    fn decide(&mut self, _arrival: &Arrival, glance: &mut dyn Glance) -> Decision {
        let (among, now) = (glance.candidates(), glance.now());
        let age = Span::from_s_f64(self.parameters.max_age_s);
        while self.pool.pop_front_if(|probe| now.saturating_since(probe.taken_at) > age).is_some() {}
        // The pool holds nobody who cannot be reached.
        self.pool.retain(|probe| among.contains(probe.server));
        let chosen = match self.best(false) {
            Some(place) if self.pool.len() >= 2 => self.pool[place].server,
            _ => among.at(self.stream.random_range(0..among.len())),
        };
        for _ in 0..self.parameters.remove_rate {
            let place = if self.worst_next { self.best(true) } else { (!self.pool.is_empty()).then_some(0) };
            if let Some(place) = place {
                self.pool.remove(place);
            }
            self.worst_next = !self.worst_next;
        }
        self.probe(glance);
        Decision::Send(chosen)
    }

    fn committed(&mut self, arrival: &Arrival, server: Server, at: Time) {
        let met =
            self.pool.iter().rev().find(|probe| probe.server == server).map_or(0, |probe| probe.requests);
        self.sent.insert(arrival.id, (server, at, met));
        for probe in self.pool.iter_mut().filter(|probe| probe.server == server) {
            probe.requests += 1;
        }
    }

    fn heard(&mut self, feedback: &Feedback) {
        let Some((server, sent, met)) = self.sent.remove(&feedback.id()) else { return };
        if let Feedback::Completed { at, .. } = *feedback {
            if self.latencies.len() <= server {
                self.latencies.resize(server + 1, VecDeque::new());
            }
            let samples = &mut self.latencies[server];
            samples.push_back((met, at.saturating_since(sent)));
            if samples.len() > SAMPLES {
                samples.pop_front();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::router::tests::{Scene, at_s, policy, prompt};

    fn probed(running: &[u32]) -> Scene {
        let mut scene = Scene::of(running.len());
        scene.signals.iter_mut().zip(running).for_each(|(signals, running)| signals.running = *running);
        scene
    }

    /// Where nobody's latency is known, the fewest requests among the probed decide, and each send counts.
    #[test]
    fn probes_steer_away_from_the_busy() {
        let mut router = policy("prequal", "probe_rate = 4");
        let mut scene = probed(&[30, 2, 30, 30]);
        scene.commit(&mut *router, &prompt(0, 1, 10));
        let sent: Vec<_> = (1..10).map(|id| scene.commit(&mut *router, &prompt(id, 1, 10))).collect();
        assert!(sent.iter().all(|server| *server == 1), "{sent:?}");
    }

    /// Of the cold ones the quick one is taken, though it has more.
    #[test]
    fn the_quick_one_of_the_cold() {
        let mut router = policy("prequal", "probe_rate = 2\nrif_quantile = 1.0");
        let mut scene = probed(&[3, 5]);
        for (id, server, seconds) in [(0, 0, 9), (1, 1, 1)] {
            router.committed(&prompt(id, 1, 10), server, at_s(90));
            let at = at_s(90 + seconds);
            router.heard(&Feedback::Completed { id: RequestId(id), server, at, output_tokens: 1 });
        }
        scene.send(&mut *router, &prompt(2, 1, 10));
        assert_eq!(scene.send(&mut *router, &prompt(3, 1, 10)), 1);
        // Answers of more than a second ago say nothing: with none left, anybody may be taken.
        scene.now = at_s(200);
        let mut met: Vec<_> = (4..40)
            .map(|id| {
                scene.now += Span::from_s(2);
                scene.send(&mut *router, &prompt(id, 1, 10))
            })
            .collect();
        met.sort_unstable();
        met.dedup();
        assert_eq!(met, [0, 1]);
    }
}
