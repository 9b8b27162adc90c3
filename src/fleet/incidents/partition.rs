//! Nothing passes between a replica and its gateways, or one of them, for a while.
//!
//! Knows when it begins and ends, and what checks make of it. What is under way then is the link's (`fleet/link.rs`).

use super::course::Step;
use super::{What, Whom};
use crate::fleet::Fleet;
use crate::fleet::link::{Cut, Link};
use crate::observe::Observer;
use crate::router::Server;

impl<O: Observer + Send> Fleet<O> {
    /// A partition begins for those who are meant.
    pub(super) fn part(&mut self, index: usize, what: What, whom: Whom) {
        let What::Partition { gateway, lasts, .. } = what else { return };
        for server in self.meant(index, whom) {
            let (happened, until) = (self.note(Some(server), what), self.now + lasts);
            (self.incidents.happened[happened].over, self.incidents.happened[happened].gateway) =
                (Some(until), gateway);
            self.file(until, Step::Rejoin { server });
            self.note_last_tokens(server, gateway);
            let cut = Cut { gateway, since: self.now, until, happened };
            self.changes_passage(server, |link| link.cut(cut));
        }
    }

    /// A partition is over.
    pub(super) fn rejoin(&mut self, server: Server) {
        let now = self.now;
        self.changes_passage(server, |link| link.rejoin(now));
    }

    /// Something passes from now on, or nothing does; checks find out.
    fn changes_passage(&mut self, server: Server, change: impl FnOnce(&mut Link)) {
        let concerned = |fleet: &Self| -> Vec<bool> {
            let gateways = 0..fleet.gateways.len();
            gateways.map(|gateway| fleet.links[server].cut_from(gateway).is_some()).collect()
        };
        let before = concerned(self);
        change(&mut self.links[server]);
        let epoch = self.processes[server].epoch();
        for (gateway, is_cut) in concerned(self).into_iter().enumerate() {
            if is_cut || before[gateway] {
                let phase = self.gateways[gateway].check_phase;
                let at = self.config.health.noticed(phase, self.now, !is_cut);
                self.file(at, Step::Notice { gateway, server, epoch });
            }
        }
    }
}
