//! Who listens to what replicas say.
//!
//! Knows what the policies of a fleet read. Does not know how it reaches them.

use super::FleetConfig;
use super::incidents::{Incident, What, When};
use crate::router::Sight;
use crate::time::Span;

/// Who waits for what replicas say, so that nobody else pays for it.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Listening {
    /// Some policy hears of ends.
    pub(super) ends: bool,
    /// Some policy hears of first tokens.
    pub(super) first_tokens: bool,
    /// What is heard may cause something at once: a held request goes out, a client sends again, a drained process ends, silence is watched for.
    pub(super) reacts: bool,
}

impl Listening {
    /// What these gateways want to hear.
    pub(super) fn of(sights: impl Iterator<Item = Sight>) -> Listening {
        sights.fold(Listening::default(), |all, sight| Listening {
            ends: all.ends || sight.responses || sight.holds,
            first_tokens: all.first_tokens || sight.first_tokens,
            reacts: all.reacts || sight.holds,
        })
    }

    /// The same where this befalls the fleet: who drains, ejects or tries again waits for ends.
    pub(super) fn and_to(self, config: &FleetConfig) -> Listening {
        // A process that has drained ends with what it last said.
        let drains = |incident: &Incident| {
            matches!(incident.what, What::Drain { .. } | What::RollingDeploy { .. } | What::SpotLoss { .. })
        };
        // Drains wait for ends, a delay that changes is that of the moment, and what comes again stops when nobody is under way.
        let is_timed = |incident: &Incident| {
            let by_what = matches!(
                incident.what,
                What::Drain { .. }
                    | What::RollingDeploy { .. }
                    | What::Network { .. }
                    | What::SpotLoss { .. }
                    | What::Partition { .. }
                    | What::GatewayLost { .. }
                    | What::CountersLost { .. }
            );
            by_what || matches!(incident.when, When::Every { .. })
        };
        let patience = &config.patience;
        let limits = config.admission.most_per_replica.is_some() || config.admission.most_in_flight.is_some();
        let counts = limits
            || patience.ends()
            || config.retries.attempts > 0
            || config.health.eject_after > 0
            || config.health.slow_start > Span::ZERO
            || config.incidents.iter().any(is_timed);
        let hedges = config.hedging.is_some();
        let waits = config.admission.queue.is_some() || config.incidents.iter().any(drains);
        let reacts =
            self.reacts || hedges || patience.retries > 0 || patience.between_tokens.is_some() || waits;
        Listening { ends: self.ends || counts, reacts, first_tokens: self.first_tokens || hedges }
    }

    /// Whether responses must reach their gateways in the order of time.
    pub(super) fn in_time(self) -> bool {
        self.ends || self.reacts
    }
}
