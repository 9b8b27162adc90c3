//! `least-kv`: the lowest `vllm:kv_cache_usage_perc`.
//!
//! EPP `kv-cache-utilization-scorer` (score 1 - k, ties at random, scraped every 50 ms: the defaults here) and
//! AIBrix `least-gpu-cache`. Nothing local is added, so every arrival between two polls sees the same best
//! replica and all follow it, as in production.

use super::{Decision, Freshness, Glance, Picker, PolicyInfo, Router, Sight, TieParameters, Ties};
use crate::random::Seed;
use crate::request::Arrival;
use crate::time::Span;

/// The entry of this policy in the list.
pub const INFO: PolicyInfo = PolicyInfo {
    name: "least-kv",
    family: "engine gauges",
    reads: "vllm:kv_cache_usage_perc",
    upstream: "EPP kv-cache-utilization-scorer, AIBrix least-gpu-cache",
    default_freshness: Some(Freshness::Polled { interval: Span::from_ms(50) }),
    build: |parameters, seed, gateway| {
        let TieParameters { ties } = parameters.clone().try_into()?;
        Ok(Box::new(LeastKv::new(ties, seed, gateway)))
    },
};

/// Most free KV cache first.
#[derive(Clone, Debug)]
pub struct LeastKv {
    picker: Picker,
}

impl LeastKv {
    /// The policy of gateway `gateway`.
    pub fn new(ties: Ties, seed: Seed, gateway: u64) -> LeastKv {
        LeastKv { picker: Picker::new(ties, seed, gateway) }
    }
}

impl Router for LeastKv {
    fn sight(&self) -> Sight {
        Sight { signals: true, ..Sight::default() }
    }

    fn decide(&mut self, _arrival: &Arrival, glance: &mut dyn Glance) -> Decision {
        let among = glance.candidates();
        let scores = among.iter().map(|server| (server, glance.signals(server).signals.kv_cache_usage()));
        Decision::Send(self.picker.least(scores))
    }
}

#[cfg(test)]
mod tests {
    use crate::router::tests::{Scene, policy, prompt};

    #[test]
    fn the_least_used_cache_whatever_is_in_flight() {
        let mut router = policy("least-kv", "ties = \"first\"");
        let mut scene = Scene::in_flight(&[0, 7, 0]);
        for (signals, (used, usable)) in
            scene.signals.iter_mut().zip([(300, 1_000), (350, 2_000), (180, 1_000)])
        {
            (signals.kv_blocks_used, signals.kv_blocks_usable) = (used, usable);
        }
        // 30 %, 17.5 % and 18 %.
        assert_eq!(scene.send(&mut *router, &prompt(0, 1, 10)), 1);
        scene.signals[1].kv_blocks_used = 360;
        // 18 % twice.
        assert_eq!(scene.send(&mut *router, &prompt(1, 1, 10)), 1);
    }
}
