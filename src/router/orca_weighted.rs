//! `orca-weighted`: in proportion to what each replica says it does for how busy it is.
//!
//! gRPC `weighted_round_robin` (proposal A58, grpc-go `balancer/weightedroundrobin`) on load reports: weight = qps /
//! (utilisation + errors a request * penalty). Utilisation is KV-cache usage, the load that vLLM names in its ORCA reports;
//! answers a second come from the difference of two reports, and engines report no errors. A weight counts from 10 s after a
//! replica's first report, and for 3 minutes after its last usable one; replicas without one get the mean of the others, and
//! with fewer than two usable weights it is plain round robin. Weights are read anew every second and served by a static
//! stride scheduler: the first place is drawn at random.

use rand::RngExt;
use schemars::JsonSchema;
use serde::de::Error as _;
use serde::{Deserialize, Serialize};

use super::{Decision, Freshness, Glance, PolicyInfo, Router, Sight};
use crate::random::Purpose;
use crate::request::Arrival;
use crate::signals::Glimpse;
use crate::time::{Span, Time};

/// `[router.parameters]` of this policy.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Parameters {
    /// From the first report until a weight counts, seconds.
    pub blackout_period_s: f64,
    /// From the last usable report until a weight is forgotten, seconds.
    pub weight_expiration_period_s: f64,
    /// Between two readings of the weights, seconds; at least 0.1.
    pub weight_update_period_s: f64,
}

impl Default for Parameters {
    fn default() -> Self {
        Parameters { blackout_period_s: 10.0, weight_expiration_period_s: 180.0, weight_update_period_s: 1.0 }
    }
}

/// The entry of this policy in the list.
pub const INFO: PolicyInfo = PolicyInfo {
    name: "orca-weighted",
    family: "engine gauges",
    reads: "answers a second and KV usage, by load reports",
    upstream: "gRPC weighted_round_robin",
    default_freshness: Some(Freshness::Polled { interval: Span::from_s(10) }),
    build: |parameters, seed, gateway| {
        let parameters: Parameters = parameters.clone().try_into()?;
        let year = 0.0..=31_536_000.0;
        if ![parameters.blackout_period_s, parameters.weight_expiration_period_s]
            .iter()
            .all(|value| year.contains(value))
            || !(0.1..=31_536_000.0).contains(&parameters.weight_update_period_s)
        {
            return Err(toml::de::Error::custom(
                "periods must be at least 0 seconds (`weight_update_period_s` 0.1), and at most a year",
            ));
        }
        let turn = seed.stream(Purpose::Routing, gateway).random_range(0..u64::from(u32::MAX));
        Ok(Box::new(OrcaWeighted {
            parameters,
            backends: Vec::new(),
            strides: Vec::new(),
            read_at: None,
            turn,
        }))
    },
};

/// The greatest stride.
const MOST: u64 = 65_535;

/// Weights and the place in the schedule.
#[derive(Clone, Debug)]
pub struct OrcaWeighted {
    parameters: Parameters,
    backends: Vec<Backend>,
    strides: Vec<u64>,
    read_at: Option<Time>,
    turn: u64,
}

#[derive(Clone, Copy, Debug, Default)]
struct Backend {
    report: Option<Glimpse>,
    first_at: Option<Time>,
    weight: f64,
    usable_at: Option<Time>,
}

impl Backend {
    fn read(&mut self, glimpse: Glimpse) {
        let before = self.report.replace(glimpse);
        let Some(before) = before.filter(|before| before.taken_at < glimpse.taken_at) else { return };
        let window = glimpse.taken_at - before.taken_at;
        let (now, then) = (glimpse.signals.successes, before.signals.successes);
        // A counter that has fallen is that of a new process.
        let answers = now.checked_sub(then).unwrap_or(now);
        let utilisation = glimpse.signals.kv_cache_usage();
        if answers > 0 && utilisation > 0.0 {
            self.first_at.get_or_insert(glimpse.taken_at);
            self.usable_at = Some(glimpse.taken_at);
            self.weight = answers as f64 / window.as_s() / utilisation;
        }
    }

    fn usable(&self, now: Time, parameters: &Parameters) -> Option<f64> {
        let old_enough = now.saturating_since(self.first_at?).as_s() >= parameters.blackout_period_s;
        let expired = now.saturating_since(self.usable_at?).as_s() >= parameters.weight_expiration_period_s;
        (old_enough && !expired).then_some(self.weight)
    }
}

impl OrcaWeighted {
    fn read_weights(&mut self, now: Time) {
        let usable = |backend: &Backend| backend.usable(now, &self.parameters);
        let (count, sum, most) = self
            .backends
            .iter()
            .filter_map(usable)
            .fold((0u32, 0.0, 0.0f64), |(count, sum, most), weight| {
                (count + 1, sum + weight, most.max(weight))
            });
        self.strides.clear();
        if count < 2 {
            self.strides.resize(self.backends.len(), MOST);
            return;
        }
        let mean = sum / f64::from(count);
        let stride = |backend: &Backend| {
            let weight = usable(backend).unwrap_or(mean);
            ((weight / most * MOST as f64).round() as u64).max(1)
        };
        self.strides.extend(self.backends.iter().map(stride));
    }
}

impl Router for OrcaWeighted {
    fn sight(&self) -> Sight {
        Sight { signals: true, ..Sight::default() }
    }

    fn decide(&mut self, _arrival: &Arrival, glance: &mut dyn Glance) -> Decision {
        let (servers, now) = (glance.servers(), glance.now());
        let among = glance.candidates();
        self.backends.resize(servers, Backend::default());
        for (server, backend) in self.backends.iter_mut().enumerate() {
            let glimpse = glance.signals(server);
            if backend.report.is_none_or(|report| report.taken_at < glimpse.taken_at) {
                backend.read(glimpse);
            }
        }
        let period = self.parameters.weight_update_period_s;
        if self.read_at.is_none_or(|at| now.saturating_since(at).as_s() >= period) {
            self.read_at = Some(now);
            self.read_weights(now);
        }
        // Everybody is passed once a generation, and taken in the share of generations that its stride says.
        loop {
            let (server, generation) = (self.turn as usize % servers, self.turn / servers as u64);
            self.turn += 1;
            let stride = self.strides[server];
            if among.contains(server)
                && (stride * generation + MOST / 2 * server as u64) % MOST >= MOST - stride
            {
                return Decision::Send(server);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::router::tests::{Scene, at_s, policy, prompt};

    fn shares(scene: &mut Scene, router: &mut dyn Router) -> [u32; 3] {
        let mut shares = [0; 3];
        for id in 0..600 {
            shares[scene.send(router, &prompt(id, 1, 10))] += 1;
        }
        shares
    }

    /// 4 answers a second at half the memory weigh 8; 1 at a quarter 4; the third never answers and gets their mean, 6.
    #[test]
    fn shares_follow_answers_over_use() {
        let mut router = policy("orca-weighted", "");
        let mut scene = Scene::of(3);
        assert_eq!(shares(&mut scene, &mut *router), [200; 3]);
        for (signals, (used, answers)) in scene.signals.iter_mut().zip([(500, 40), (250, 10), (900, 0)]) {
            (signals.kv_blocks_usable, signals.kv_blocks_used) = (1_000, used);
            signals.successes = answers;
        }
        (scene.now, scene.taken_at) = (at_s(110), at_s(110));
        // Ten seconds of blackout, then 8 : 4 : 6 of 18.
        assert_eq!(shares(&mut scene, &mut *router), [200; 3]);
        scene.now = at_s(121);
        let got = shares(&mut scene, &mut *router);
        let near = |got: u32, expected: u32| got.abs_diff(expected) <= 2;
        assert!(near(got[0], 267) && near(got[1], 133) && near(got[2], 200), "{got:?}");
        // Three minutes without a report.
        scene.now = at_s(291);
        assert_eq!(shares(&mut scene, &mut *router), [200; 3]);
    }
}
