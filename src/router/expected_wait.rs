//! `expected-wait`: the shortest wait by what waits, how fast it goes, and how full the memory is.
//!
//! SMG `least_load` (`least_load.rs`): (waiting tokens + tokens sent since the report) / throughput + lambda k / (1 - k), the
//! first least. Lambda 0.15 s; a replica that reports no throughput counts 2,000 tokens/s; k is clamped to 0.999; a request
//! counts 1,024 tokens, since the HTTP path knows no token counts (`token_counts = true` is the gRPC path), cached or not. A
//! replica without a report among others that have one: requests in flight times 1,024 over the mean throughput. No reports at
//! all: fewest in flight. With `choices = 2`, SMG's `power_of_two` since August 2026: the same score, two drawn at random.

use rand::RngExt;
use schemars::JsonSchema;
use serde::de::Error as _;
use serde::{Deserialize, Serialize};

use super::{Decision, Freshness, Glance, PolicyInfo, Router, Server, Sight};
use crate::random::{Purpose, Stream};
use crate::request::Arrival;
use crate::signals::Glimpse;
use crate::time::{Span, Time};

/// `[router.parameters]` of this policy.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Parameters {
    /// Seconds that memory pressure of 1 counts.
    pub lambda_s: f64,
    /// Tokens a second where none are reported.
    pub default_throughput: f64,
    /// Tokens of a request whose length is not known.
    pub default_request_tokens: u32,
    /// Whether prompts' lengths are known (gRPC).
    pub token_counts: bool,
    /// Replicas drawn at random and looked at; 0 is all.
    pub choices: u32,
}

impl Default for Parameters {
    fn default() -> Self {
        Parameters {
            lambda_s: 0.15,
            default_throughput: 2_000.0,
            default_request_tokens: 1_024,
            token_counts: false,
            choices: 0,
        }
    }
}

/// The entry of this policy in the list.
pub const INFO: PolicyInfo = PolicyInfo {
    name: "expected-wait",
    family: "engine gauges",
    reads: "waiting tokens, generated tokens a second, KV usage, own tokens sent since the report",
    upstream: "SMG least_load, SMG power_of_two (choices = 2)",
    default_freshness: Some(Freshness::Polled { interval: Span::from_s(10) }),
    build: |parameters, seed, gateway| {
        let parameters: Parameters = parameters.clone().try_into()?;
        if !(0.0..).contains(&parameters.lambda_s)
            || !(f64::MIN_POSITIVE..).contains(&parameters.default_throughput)
        {
            return Err(toml::de::Error::custom(
                "`lambda_s` must be at least 0, `default_throughput` above 0",
            ));
        }
        let stream = seed.stream(Purpose::Routing, gateway);
        Ok(Box::new(ExpectedWait { parameters, stream, loads: Vec::new(), drawn: Vec::new() }))
    },
};

/// KV usage counts as no more than this.
const FULLEST: f64 = 0.999;
/// Throughput is taken between reports at least so far apart.
const LEAST_WINDOW: Span = Span::from_s(1);

/// What is known of each replica.
#[derive(Clone, Debug)]
pub struct ExpectedWait {
    parameters: Parameters,
    stream: Stream,
    loads: Vec<Load>,
    drawn: Vec<Server>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Load {
    report: Glimpse,
    /// The report that the throughput is counted from.
    base: Option<(Time, u64)>,
    throughput: Option<f64>,
    sent_tokens: u64,
}

impl Load {
    fn read(&mut self, glimpse: Glimpse) {
        if glimpse.taken_at == self.report.taken_at && self.is_reported() {
            return;
        }
        self.report = glimpse;
        self.sent_tokens = 0;
        let generated = glimpse.signals.generation_tokens;
        let (since, before) = *self.base.get_or_insert((glimpse.taken_at, generated));
        let window = glimpse.taken_at.saturating_since(since);
        if window >= LEAST_WINDOW {
            // A counter that has fallen is that of a new process.
            let fresh = generated.checked_sub(before).unwrap_or(generated);
            let rate = fresh as f64 / window.as_s();
            self.throughput = (rate > 0.0).then_some(rate);
            self.base = Some((glimpse.taken_at, generated));
        }
    }

    /// A replica has blocks, so a report without any is none.
    fn is_reported(&self) -> bool {
        self.report.signals.kv_blocks_usable > 0
    }
}

impl ExpectedWait {
    fn tokens_of(&self, arrival: &Arrival) -> u32 {
        match self.parameters.token_counts {
            true => arrival.prompt_tokens,
            false => self.parameters.default_request_tokens,
        }
    }

    fn wait_s(&self, server: Server, in_flight: u32, mean_throughput: f64) -> f64 {
        let load = &self.loads[server];
        if !load.is_reported() {
            return f64::from(in_flight) * f64::from(self.parameters.default_request_tokens)
                / mean_throughput;
        }
        let tokens = load.report.signals.waiting_prompt_tokens + load.sent_tokens;
        let usage = load.report.signals.kv_cache_usage().min(FULLEST);
        let throughput = load.throughput.unwrap_or(self.parameters.default_throughput);
        tokens as f64 / throughput + self.parameters.lambda_s * usage / (1.0 - usage)
    }
}

impl Router for ExpectedWait {
    fn sight(&self) -> Sight {
        Sight { responses: true, signals: true, ..Sight::default() }
    }

    fn meet(&mut self, servers: usize) {
        self.loads.resize(servers, Load::default());
    }

    fn decide(&mut self, _arrival: &Arrival, glance: &mut dyn Glance) -> Decision {
        let among = glance.candidates();
        let servers = among.len();
        let (mut reported, mut throughputs) = (0u32, 0.0);
        for server in among.iter() {
            let load = &mut self.loads[server];
            load.read(glance.signals(server));
            if load.is_reported() {
                reported += 1;
                throughputs += load.throughput.unwrap_or(self.parameters.default_throughput);
            }
        }
        self.drawn.clear();
        let choices = self.parameters.choices as usize;
        if choices == 0 || choices >= servers {
            self.drawn.extend(among.iter());
        }
        while self.drawn.len() < choices.min(servers) {
            let server = among.at(self.stream.random_range(0..servers));
            if !self.drawn.contains(&server) {
                self.drawn.push(server);
            }
        }
        let mean = throughputs / f64::from(reported.max(1));
        let mut chosen = (f64::INFINITY, self.drawn[0]);
        for &server in &self.drawn {
            let in_flight = glance.mine(server).in_flight;
            let score =
                if reported == 0 { f64::from(in_flight) } else { self.wait_s(server, in_flight, mean) };
            if score < chosen.0 {
                chosen = (score, server);
            }
        }
        Decision::Send(chosen.1)
    }

    fn committed(&mut self, arrival: &Arrival, server: Server, _at: Time) {
        self.loads[server].sent_tokens += u64::from(self.tokens_of(arrival));
    }
}

#[cfg(test)]
mod tests {

    use crate::router::tests::{Scene, at_s, policy, prompt};

    /// At 2,000 tokens/s: 4,000 waiting tokens are 2 s; usage 0.95 counts 0.15 * 19 = 2.85 s, of 0.5 0.15 s.
    #[test]
    fn waiting_tokens_and_memory_pressure_are_both_seconds() {
        let mut scene = Scene::of(3);
        for (signals, (tokens, used)) in scene.signals.iter_mut().zip([(4_000, 0), (0, 950), (0, 500)]) {
            signals.waiting_prompt_tokens = tokens;
            (signals.kv_blocks_used, signals.kv_blocks_usable) = (used, 1_000);
        }
        let mut router = policy("expected-wait", "");
        // The third at 0.15 s, then with each send 0.512 s more: 0.66, 1.17, 1.69, 2.198 s.
        let sent: Vec<_> = (0..6).map(|id| scene.commit(&mut *router, &prompt(id, 1, 10))).collect();
        assert_eq!(sent, [2, 2, 2, 2, 0, 2]);
        // The next report wipes what was sent; the first has made 40,000 tokens in 10 s, so its 4,000 take 1 s, and
        // the second is empty but for 2.85 s.
        scene.taken_at = at_s(110);
        scene.signals[0].generation_tokens = 40_000;
        scene.signals[2].kv_blocks_used = 900;
        assert_eq!(scene.send(&mut *router, &prompt(9, 1, 10)), 0);
    }

    #[test]
    fn without_reports_the_fewest_in_flight_win() {
        let mut scene = Scene::in_flight(&[3, 1, 1]);
        scene.signals = vec![Default::default(); 3];
        let mut router = policy("expected-wait", "");
        assert_eq!(scene.send(&mut *router, &prompt(0, 1, 10)), 1);
        // Only the second reports: nothing waits, so it beats 3 * 1,024 / 2,000 s and 1,024 / 2,000 s.
        scene.signals[1].kv_blocks_usable = 999;
        assert_eq!(scene.send(&mut *router, &prompt(1, 1, 10)), 1);
        let mut two = policy("expected-wait", "choices = 2\ntoken_counts = true");
        let sent: Vec<_> = (0..30).map(|id| scene.send(&mut *two, &prompt(id, 1, 10))).collect();
        assert!(sent.contains(&1) && sent.contains(&2) && !sent.contains(&0), "{sent:?}");
    }
}
