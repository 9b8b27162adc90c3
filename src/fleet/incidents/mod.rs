//! What may befall replicas: crashes, slow-downs, networks, lost gauges, drains and rolling deploys, as plain data.
//!
//! Knows what happens, to whom and when. Does not know what follows: `course` does.

use crate::router::Server;
use crate::time::{Span, Time};

mod course;
mod gateways;
mod partition;
mod rollout;

pub(super) use course::{Incidents, Process, Stage, Step};
pub(super) use gateways::Gone;

/// Something that happens, once or again and again.
#[derive(Clone, Debug, PartialEq)]
pub struct Incident {
    /// When.
    pub when: When,
    /// What.
    pub what: What,
}

/// When something happens.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum When {
    /// Once.
    At(Time),
    /// Again and again while requests come or are under way.
    Every {
        /// From one to the next, on average.
        mean: Span,
        /// Gaps are all alike, or exponential.
        even: bool,
        /// Not before.
        from: Time,
        /// Not from then on.
        until: Time,
    },
}

/// Whom something befalls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Whom {
    /// This replica.
    One(Server),
    /// One by chance, all being equally likely; if it is down, nothing happens.
    Any,
    /// Every one.
    All,
}

/// When who went down is back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Back {
    /// Never.
    Never,
    /// After as long as it takes to start.
    Started,
    /// After so long.
    After(Span),
}

/// What happens.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum What {
    /// The process dies, and everything in it.
    Crash {
        /// Whose.
        whom: Whom,
        /// When it is ready again.
        back: Back,
    },
    /// Steps take longer.
    SlowDown {
        /// Whose.
        whom: Whom,
        /// So many thousandths.
        per_mille: u32,
        /// For so long; none: for ever.
        lasts: Option<Span>,
    },
    /// What goes there and comes back is under way for longer.
    Network {
        /// Whose.
        whom: Whom,
        /// In each direction.
        delay: Span,
        /// Share of messages that get lost and are sent again.
        loss: f64,
        /// For so long; none: for ever.
        lasts: Option<Span>,
    },
    /// Reads of its gauges fail; requests do not.
    MetricsLost {
        /// Whose.
        whom: Whom,
        /// For so long; none: for ever.
        lasts: Option<Span>,
    },
    /// Nothing new is sent there; when nothing is left, or the grace is over, its process ends.
    Drain {
        /// Who.
        whom: Whom,
        /// Longest wait for what is under way.
        grace: Span,
        /// When the next process is ready.
        back: Back,
    },
    /// A machine is taken back by whoever let it cheaply: it drains, and another comes.
    SpotLoss {
        /// Whose.
        whom: Whom,
        /// From the announcement until it is gone.
        notice: Span,
        /// When the next process is ready, on another machine.
        back: Back,
    },
    /// Nothing passes between a replica and its gateways, in either direction.
    Partition {
        /// Whose.
        whom: Whom,
        /// Which gateway; none: all.
        gateway: Option<usize>,
        /// For so long.
        lasts: Span,
    },
    /// A gateway's process dies, and all that it knows.
    GatewayLost {
        /// Which; none: one by chance.
        gateway: Option<usize>,
        /// Until clients know, and come to the others.
        noticed: Span,
        /// When another serves in its place.
        back: Back,
    },
    /// A gateway counts what is out no more, and has forgotten what it believed, as when a reaper takes live requests for leaked ones.
    CountersLost {
        /// Which; none: one by chance.
        gateway: Option<usize>,
    },
    /// Every replica is drained and started again, so many at a time, each in turn when gateways know that one before it, or one that
    /// was started in its place, is up.
    RollingDeploy {
        /// How many go at a time; not where new ones come first.
        at_once: u32,
        /// How many new ones are started first, on machines of their own: the fleet's spare ones, as far as there are any.
        surge: u32,
        /// Longest wait for what is under way.
        grace: Span,
        /// When the next process is ready.
        back: Back,
    },
}

impl What {
    /// Whom it befalls; none: all in turn.
    pub fn whom(&self) -> Option<Whom> {
        match self {
            What::Crash { whom, .. }
            | What::SlowDown { whom, .. }
            | What::Network { whom, .. }
            | What::MetricsLost { whom, .. }
            | What::Drain { whom, .. }
            | What::SpotLoss { whom, .. }
            | What::Partition { whom, .. } => Some(*whom),
            What::RollingDeploy { .. } | What::GatewayLost { .. } | What::CountersLost { .. } => None,
        }
    }

    /// Its name in scenarios and tables.
    pub fn name(&self) -> &'static str {
        match self {
            What::Crash { .. } => "crash",
            What::SlowDown { .. } => "slow-down",
            What::Network { .. } => "network",
            What::MetricsLost { .. } => "metrics-lost",
            What::Drain { .. } => "drain",
            What::RollingDeploy { .. } => "rolling-deploy",
            What::SpotLoss { .. } => "spot-loss",
            What::Partition { .. } => "partition",
            What::GatewayLost { .. } => "gateway-lost",
            What::CountersLost { .. } => "counters-lost",
        }
    }
}

/// What has happened.
#[derive(Clone, Debug, PartialEq)]
pub struct Happened {
    /// When.
    pub at: Time,
    /// To whom; none: to all in turn.
    pub server: Option<Server>,
    /// To which gateway; none: to replicas.
    pub gateway: Option<usize>,
    /// What.
    pub what: What,
    /// When the last gateway had noticed, where there is something to notice.
    pub noticed: Option<Time>,
    /// When it was over: ready again, or as quick as before.
    pub over: Option<Time>,
    /// It changed nothing: who was to die or go was not up.
    pub in_vain: bool,
}
