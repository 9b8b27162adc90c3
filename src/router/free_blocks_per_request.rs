//! `free-blocks-per-request`: where a request would find the most memory for itself.
//!
//! Llumnix's dispatch policy `load` (AlibabaPAI/llumnix, metric remaining_steps): freeness = (free blocks - blocks that waiting
//! prompts take) / (running + waiting), without bound where nobody is; the greatest is chosen, or by chance one of the
//! `top_k` greatest. Of equals the first. Llumnix moves running requests between engines too; that is not modelled.

use rand::RngExt;
use schemars::JsonSchema;
use serde::de::Error as _;
use serde::{Deserialize, Serialize};

use super::{Decision, Freshness, Glance, PolicyInfo, Router, Server, Sight};
use crate::random::{Purpose, Stream};
use crate::request::Arrival;
use crate::signals::Signals;
use crate::time::Span;

/// `[router.parameters]` of this policy.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Parameters {
    /// By chance one of so many of the freest.
    pub top_k: u32,
}

impl Default for Parameters {
    fn default() -> Self {
        Parameters { top_k: 1 }
    }
}

/// The entry of this policy in the list.
pub const INFO: PolicyInfo = PolicyInfo {
    name: "free-blocks-per-request",
    family: "engine gauges",
    reads: "free blocks, blocks that waiting prompts take, requests running and waiting",
    upstream: "Llumnix load, Llumnix-minus",
    default_freshness: Some(Freshness::Polled { interval: Span::from_ms(50) }),
    build: |parameters, seed, gateway| {
        let Parameters { top_k } = parameters.clone().try_into()?;
        if top_k == 0 {
            return Err(toml::de::Error::custom("`top_k` must be at least 1"));
        }
        let stream = seed.stream(Purpose::Routing, gateway);
        Ok(Box::new(FreeBlocksPerRequest { top_k: top_k as usize, stream, freest: Vec::new() }))
    },
};

/// The freest first.
#[derive(Clone, Debug)]
pub struct FreeBlocksPerRequest {
    top_k: usize,
    stream: Stream,
    freest: Vec<(f64, Server)>,
}

fn freeness(signals: &Signals) -> f64 {
    let free = i64::from(signals.kv_blocks_usable) - i64::from(signals.kv_blocks_used);
    match signals.running + signals.waiting {
        0 => f64::INFINITY,
        requests => (free - signals.waiting_prompt_blocks as i64) as f64 / f64::from(requests),
    }
}

impl Router for FreeBlocksPerRequest {
    fn sight(&self) -> Sight {
        Sight { signals: true, ..Sight::default() }
    }

    fn decide(&mut self, _arrival: &Arrival, glance: &mut dyn Glance) -> Decision {
        let among = glance.candidates();
        self.freest.clear();
        self.freest.extend(among.iter().map(|server| (freeness(&glance.signals(server).signals), server)));
        self.freest.sort_unstable_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
        let among = self.top_k.min(self.freest.len());
        let place = if among > 1 { self.stream.random_range(0..among) } else { 0 };
        Decision::Send(self.freest[place].1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::router::tests::{Scene, policy, prompt};

    /// (999 - 399 - 100) / (4 + 1) = 100; (999 - 199 - 0) / 10 = 80; (999 - 899 - 200) / 2 = -50.
    #[test]
    fn memory_is_shared_out_among_those_who_are_there() {
        let mut scene = Scene::of(3);
        let gauges = [(399, 4, 1, 100), (199, 10, 0, 0), (899, 1, 1, 200)];
        for (signals, (used, running, waiting, demand)) in scene.signals.iter_mut().zip(gauges) {
            (signals.kv_blocks_used, signals.running) = (used, running);
            (signals.waiting, signals.waiting_prompt_blocks) = (waiting, demand);
        }
        let mut router = policy("free-blocks-per-request", "");
        assert_eq!(scene.send(&mut *router, &prompt(0, 1, 10)), 0);
        let mut two = policy("free-blocks-per-request", "top_k = 2");
        let sent: Vec<_> = (0..20).map(|id| scene.send(&mut *two, &prompt(id, 1, 10))).collect();
        assert!(sent.contains(&0) && sent.contains(&1) && !sent.contains(&2), "{sent:?}");
        // Idle is best, and the first of two idle ones.
        scene.signals[1] = Signals { kv_blocks_usable: 999, ..Signals::default() };
        scene.signals[2] = scene.signals[1];
        assert_eq!(scene.send(&mut *router, &prompt(1, 1, 10)), 1);
    }
}
