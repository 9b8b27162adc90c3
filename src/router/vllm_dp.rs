//! `vllm-dp`: vLLM's own balancer of data-parallel engines.
//!
//! `DPLBAsyncMPClient` (`vllm/v1/engine/core_client.py`): score 4 q + r of reported waiting and running requests, the first
//! least from engine (n * client) / clients on. Then the client's own copy of q grows by the number of clients, as if each
//! of them did alike; the next report, at most every 100 ms, replaces the copy whole, and with it what was sent since
//! (vllm#48027: bursts longer than that lose their bookkeeping). Knows no prefixes and no lengths.

use super::round_robin::Parameters;
use super::{Decision, Freshness, Glance, PolicyInfo, Router, Sight};
use crate::request::Arrival;
use crate::time::{Span, Time};

/// The entry of this policy in the list.
pub const INFO: PolicyInfo = PolicyInfo {
    name: "vllm-dp",
    family: "engine gauges",
    reads: "vllm:num_requests_waiting and _running, own sends since the report",
    upstream: "vLLM --data-parallel-size (internal load balancing)",
    default_freshness: Some(Freshness::Polled { interval: Span::from_ms(100) }),
    build: |parameters, _seed, _gateway| {
        let Parameters {} = parameters.clone().try_into()?;
        Ok(Box::new(VllmDp::default()))
    },
};

/// A waiting request counts as so many running ones.
const WAITING_WEIGHT: u32 = 4;

/// The client's copy of the engines' counts.
#[derive(Clone, Debug, Default)]
pub struct VllmDp {
    counts: Vec<Counts>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Counts {
    waiting: u32,
    running: u32,
    taken_at: Option<Time>,
}

impl Router for VllmDp {
    fn sight(&self) -> Sight {
        Sight { signals: true, ..Sight::default() }
    }

    fn decide(&mut self, _arrival: &Arrival, glance: &mut dyn Glance) -> Decision {
        let servers = glance.servers();
        self.counts.resize(servers, Counts::default());
        for (server, counts) in self.counts.iter_mut().enumerate() {
            let glimpse = glance.signals(server);
            if counts.taken_at != Some(glimpse.taken_at) {
                let (waiting, running) = (glimpse.signals.waiting, glimpse.signals.running);
                *counts = Counts { waiting, running, taken_at: Some(glimpse.taken_at) };
            }
        }
        let (client, clients) = glance.gateway();
        let among = glance.candidates();
        let start = servers * client as usize / clients as usize;
        let score = |counts: &Counts| WAITING_WEIGHT * counts.waiting + counts.running;
        let from_there = (start..start + servers).map(|server| server % servers);
        let up = from_there.filter(|&server| among.contains(server));
        let chosen = up.min_by_key(|&server| score(&self.counts[server])).unwrap_or(among.at(0));
        self.counts[chosen].waiting += clients;
        Decision::Send(chosen)
    }
}

#[cfg(test)]
mod tests {
    use crate::router::tests::{Scene, at_s, policy, prompt};

    fn scene(counts: &[(u32, u32)]) -> Scene {
        let mut scene = Scene::of(counts.len());
        for (signals, &(waiting, running)) in scene.signals.iter_mut().zip(counts) {
            (signals.waiting, signals.running) = (waiting, running);
        }
        scene
    }

    #[test]
    fn waiting_counts_fourfold_and_sends_are_remembered_until_the_report() {
        let mut router = policy("vllm-dp", "");
        // Scores 8, 6, 7: then 8, 10, 7 and 8, 10, 11.
        let mut scene = scene(&[(1, 4), (0, 6), (0, 7)]);
        let mut send = |scene: &mut Scene| scene.send(&mut *router, &prompt(0, 1, 10));
        assert_eq!([send(&mut scene), send(&mut scene), send(&mut scene)], [1, 2, 0]);
        // A new report with the same counts: what was sent is forgotten.
        scene.taken_at = at_s(101);
        assert_eq!(send(&mut scene), 1);
    }

    #[test]
    fn clients_begin_at_different_engines_and_expect_each_other_to_do_alike() {
        let mut router = policy("vllm-dp", "");
        let mut scene = scene(&[(0, 0); 4]);
        scene.gateway = (1, 2);
        let sent: Vec<_> = (0..5).map(|_| scene.send(&mut *router, &prompt(0, 1, 10))).collect();
        assert_eq!(sent, [2, 3, 0, 1, 2]);
    }
}
