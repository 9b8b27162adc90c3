//! Nothing passes between a replica and its gateways, or one of them, for a while.
//!
//! Knows when it begins and ends, and what checks make of it. What is under way then is the link's (`fleet/link.rs`).

use super::course::Step;
use super::course::Trouble;
use super::{What, Whom};
use crate::fleet::Fleet;
use crate::fleet::link::Cut;
use crate::observe::Observer;
use crate::router::Server;

impl<O: Observer + Send> Fleet<O> {
    /// A partition begins for those who are meant.
    pub(super) fn part(&mut self, index: usize, what: What, whom: Whom) {
        let What::Partition { gateway, lasts, .. } = what else { return };
        for server in self.meant(index, whom) {
            let happened = self.passes(server, what, Trouble::Partition, Some(lasts));
            self.set_cut(server, Some(Cut { gateway, until: self.now + lasts, happened }));
        }
    }

    /// Something passes from now on, or nothing does; checks find out.
    pub(super) fn set_cut(&mut self, server: Server, cut: Option<Cut>) {
        let concerned = |fleet: &Self| -> Vec<bool> {
            let gateways = 0..fleet.gateways.len();
            gateways.map(|gateway| fleet.links[server].cut_from(gateway).is_some()).collect()
        };
        let before = concerned(self);
        self.links[server].set_cut(cut);
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
