//! What a fleet is told of itself, but for its replicas and policies.

use std::sync::Arc;

use super::admission::Admission;
use super::health::Health;
use super::hedging::Hedging;
use super::incidents::Incident;
use super::patience::{Patience, Retries};
use crate::random::Seed;
use crate::router::{Freshness, Impairments};
use crate::time::{Span, Time};

/// Ways between client, gateway and replica, each in one direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Network {
    /// Client to gateway, and back.
    pub client_to_router: Span,
    /// Gateway to replica, and back.
    pub router_to_replica: Span,
    /// The replica's front end, before the engine: HTTP and tokenising.
    pub frontend: Span,
    /// The replica's front end for each token after the first, on the way back to the client.
    pub per_token: Span,
}

/// When a run ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// When the last request has ended.
    Drain,
    /// At this moment; what is still under way is counted as unfinished.
    At(Time),
}

impl End {
    /// Nothing happens from this moment on.
    pub fn moment(self) -> Time {
        match self {
            End::Drain => Time::MAX,
            End::At(end) => end,
        }
    }
}

/// Everything about a fleet but its replicas and policies.
#[derive(Clone, Debug)]
pub struct FleetConfig {
    /// How old the gauges are that gateways read.
    pub freshness: Freshness,
    /// What gateways see late, or not at all.
    pub impairments: Impairments,
    /// Between a decision and its effect. None: the counters rise with the decision.
    pub decision_gap: Span,
    /// Delays.
    pub network: Network,
    /// What gateways let in.
    pub admission: Admission,
    /// How gateways learn who is up.
    pub health: Health,
    /// What gateways do about tries that never began.
    pub retries: Retries,
    /// When gateways send a second copy.
    pub hedging: Option<Hedging>,
    /// What clients put up with.
    pub patience: Patience,
    /// What befalls replicas.
    pub incidents: Arc<[Incident]>,
    /// So many of the replicas, the last ones, are machines without a process at the start: a deploy may start one there.
    pub spare: usize,
    /// When it ends.
    pub end: End,
    /// For poll phases.
    pub seed: Seed,
    /// Watches laws 2, 3 and 5 while it runs; slow.
    pub check: bool,
}

impl Default for FleetConfig {
    /// Fresh gauges, no delays, and a day on which nothing happens, to its end.
    fn default() -> Self {
        FleetConfig {
            freshness: Freshness::Fresh,
            impairments: Impairments::default(),
            decision_gap: Span::ZERO,
            network: Network::default(),
            admission: Admission::default(),
            health: Health::default(),
            retries: Retries::default(),
            hedging: None,
            patience: Patience::default(),
            incidents: Arc::new([]),
            spare: 0,
            end: End::Drain,
            seed: Seed(0),
            check: false,
        }
    }
}
