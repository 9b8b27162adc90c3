//! What routers see, and when: the state that one gateway holds about its replicas.
//!
//! Knows counts and reports. Does not know where they come from: the fleet fills them in.

use std::sync::Arc;

use super::kv_index::IndexLimits;
use super::{Freshness, Mine, Server};
use crate::random::{Purpose, Seed};
use crate::replica::{EngineConfig, Jitter, Path, Replica};
use crate::signals::{Glimpse, Signals};
use crate::step_time::StepTime;
use crate::time::{Span, Time};

/// What the operator of a gateway knows of a replica beforehand: the flags it was started with, and the
/// price of a batch on its card, as cost models beside gateways have it (Dynamo's AIConfigurator).
#[derive(Clone, Debug)]
pub struct Facts {
    /// What its operator has labelled it with, by key.
    pub labels: Vec<(String, String)>,
    /// Its flags, resolved.
    pub engine: EngineConfig,
    /// The price of a batch there.
    pub step_time: Arc<dyn StepTime>,
    /// From the start of its process until it is ready.
    pub start_up: Span,
    /// Coefficient of variation by which single steps scatter around their price.
    pub step_time_jitter: f64,
}

impl Facts {
    /// An engine with these flags, number `server` of a fleet, composing its steps in a given way; `seed` is the run's.
    pub fn replica(&self, server: Server, seed: Seed, path: Path) -> Replica {
        let replica = Replica::on_path(self.engine.clone(), self.step_time.clone(), path);
        replica.with_jitter(self.jitter(server, seed))
    }

    /// How its steps scatter, as number `server` of a fleet; `seed` is the run's.
    pub fn jitter(&self, server: Server, seed: Seed) -> Option<Jitter> {
        Jitter::new(self.step_time_jitter, seed.derive(Purpose::StepJitter, server as u64))
    }

    /// The value of a label, if it has it.
    pub fn label(&self, key: &str) -> Option<&str> {
        self.labels.iter().find(|(own, _)| own == key).map(|(_, value)| &**value)
    }
}

/// What gateways see late, or not at all, beyond the age of gauges.
#[derive(Clone, Copy, Debug, PartialEq, Default)]
pub struct Impairments {
    /// From a read of gauges until a gateway has them.
    pub scrape: Span,
    /// Share of reads, replica by replica, that fail.
    pub poll_loss: f64,
    /// Gauges older than this are taken for those of a replica that can take nothing more.
    pub staleness_limit: Option<Span>,
    /// From the output with which KV events leave an engine until gateways have them.
    pub kv_event_delay: Span,
    /// Share of batches of KV events, gateway by gateway, that get lost on the way.
    pub kv_event_loss: f64,
    /// From seeing that a batch is missing until it comes in, if it can be asked for again.
    pub kv_event_replay: Option<Span>,
    /// How much of what KV events tell is remembered.
    pub kv_index: IndexLimits,
    /// Gateways tell each other, at once, what they send and hear.
    pub shared: bool,
}

impl Impairments {
    /// Whether what gateways know of caches by KV events may differ from what is there.
    pub fn are_of_kv_events(&self) -> bool {
        let late = self.kv_event_delay > Span::ZERO || self.kv_event_replay.is_some();
        late || self.kv_event_loss > 0.0 || self.kv_index != IndexLimits::default()
    }
}

/// What stale gauges are taken for: nothing is free, and very many wait.
const SATURATED_QUEUE: u32 = 1_000_000;

/// The gauges of a replica that can take nothing more.
pub fn saturated(signals: Signals) -> Signals {
    let kv_blocks_usable = signals.kv_blocks_usable.max(1);
    Signals { waiting: SATURATED_QUEUE, kv_blocks_usable, kv_blocks_used: kv_blocks_usable, ..signals }
}

/// One gateway's private state.
#[derive(Clone, Debug)]
pub struct View {
    freshness: Freshness,
    staleness_limit: Option<Span>,
    mine: Vec<Mine>,
    reports: Vec<Glimpse>,
}

impl View {
    /// A view of `servers` replicas that has seen nothing yet.
    pub fn new(servers: usize, freshness: Freshness, staleness_limit: Option<Span>) -> View {
        View {
            freshness,
            staleness_limit,
            mine: vec![Mine::default(); servers],
            reports: vec![Glimpse::default(); servers],
        }
    }

    /// How old the gauges are that it reads.
    pub fn freshness(&self) -> Freshness {
        self.freshness
    }

    /// Its own counts of a replica. Where state is fresh each look is a report.
    pub fn mine(&self, server: Server) -> Mine {
        let own = self.mine[server];
        match self.freshness {
            Freshness::Polled { .. } => own,
            Freshness::Fresh => Mine { in_flight_at_report: own.in_flight, sent_since_report: 0, ..own },
        }
    }

    /// The last report of a replica's gauges, as it is taken at `now`: one past its limit counts as saturated, which is how
    /// llm-d's utilisation detector fails closed.
    pub fn report(&self, server: Server, now: Time) -> Glimpse {
        let Glimpse { signals, taken_at } = self.reports[server];
        match self.staleness_limit.is_some_and(|limit| now.saturating_since(taken_at) > limit) {
            true => Glimpse { signals: saturated(signals), taken_at },
            false => Glimpse { signals, taken_at },
        }
    }

    /// The last report of a replica's gauges as it came, however old.
    pub fn last_report(&self, server: Server) -> Glimpse {
        self.reports[server]
    }

    /// Its own counts begin anew; reports stay.
    pub fn forget_counts(&mut self) {
        self.mine.fill(Mine::default());
    }

    /// A request was sent.
    pub fn sent(&mut self, server: Server) {
        self.mine[server].in_flight += 1;
        self.mine[server].sent_since_report += 1;
    }

    /// The end of a request was heard.
    pub fn ended(&mut self, server: Server) {
        self.mine[server].in_flight -= 1;
    }

    /// A report came in: it replaces the one before, and what was sent since starts from nothing.
    pub fn reported(&mut self, server: Server, signals: Signals, taken_at: Time) {
        self.reports[server] = Glimpse { signals, taken_at };
        self.mine[server].in_flight_at_report = self.mine[server].in_flight;
        self.mine[server].sent_since_report = 0;
    }
}
