//! A rolling deploy: who is next, and what it waits for.
//!
//! Knows two ways, as a Kubernetes Deployment has them: so many go at a time and come back where they were
//! (`maxUnavailable`), or so many new ones are started first, on machines of their own, and an old one goes when a new one
//! is seen (`maxSurge`); the machine that it leaves is the next new one's. Does not know how a process drains or starts:
//! `course` does.

use std::collections::VecDeque;

use super::course::Stage;
use super::{Back, What};
use crate::fleet::Fleet;
use crate::observe::Observer;
use crate::router::Server;
use crate::time::Span;

/// A rolling deploy under way.
#[derive(Clone, Debug)]
pub(super) struct Rollout {
    what: What,
    grace: Span,
    back: Back,
    surges: bool,
    /// Who is still to go.
    queue: VecDeque<Server>,
    /// How many drain, start or wait to be seen.
    under_way: usize,
    /// Its place in the list of what happened.
    happened: usize,
}

impl<O: Observer + Send> Fleet<O> {
    /// A rolling deploy begins.
    pub(super) fn deploy(&mut self, what: What) {
        let What::RollingDeploy { at_once, surge, grace, back } = what else { return };
        let happened = self.note(None, what);
        let is_there = |server: &Server| self.processes[*server].stage != Stage::Absent;
        let (queue, machines): (Vec<Server>, Vec<Server>) = (0..self.lanes.len()).partition(is_there);
        let machines: Vec<Server> = machines.into_iter().take(surge as usize).collect();
        let queue = VecDeque::from(queue);
        let rollout = self.incidents.rollouts.len();
        let surges = !machines.is_empty();
        let under_way = if surges { machines.len() } else { at_once as usize };
        self.incidents.rollouts.push(Rollout { what, grace, back, surges, queue, under_way, happened });
        if surges {
            machines.into_iter().for_each(|server| self.start_new(server, rollout));
        } else {
            (0..under_way).for_each(|_| self.roll_on(rollout));
        }
    }

    /// One more is seen, or will never be: the next that is up is drained; who is down starts anew by itself.
    pub(super) fn roll_on(&mut self, rollout: usize) {
        let Rollout { what, grace, back, surges, .. } = self.incidents.rollouts[rollout];
        let Some(server) = self.next_of(rollout) else { return self.done_with_one(rollout) };
        self.incidents.rollouts[rollout].queue.pop_front();
        let back = if surges { Back::Never } else { back };
        self.drain(server, Some(what), grace, back, Some(rollout));
        self.processes[server].makes_room = surges;
    }

    /// An old one has left its machine: a new one is started there, if there is another old one.
    pub(super) fn room_for_new(&mut self, server: Server, rollout: usize) {
        match self.next_of(rollout) {
            Some(_) => self.start_new(server, rollout),
            None => self.done_with_one(rollout),
        }
    }

    /// Who goes next; those that are not up are passed over.
    fn next_of(&mut self, rollout: usize) -> Option<Server> {
        let queue = &mut self.incidents.rollouts[rollout].queue;
        while queue.pop_front_if(|server| self.processes[*server].stage != Stage::Up).is_some() {}
        queue.front().copied()
    }

    fn start_new(&mut self, server: Server, rollout: usize) {
        let start_up = match self.incidents.rollouts[rollout].back {
            Back::After(span) => span,
            Back::Started | Back::Never => self.lanes[server].facts.start_up,
        };
        self.starts_anew(server, start_up);
        self.processes[server].rollout = Some(rollout);
    }

    fn done_with_one(&mut self, rollout: usize) {
        let Rollout { under_way, happened, .. } = &mut self.incidents.rollouts[rollout];
        *under_way -= 1;
        if *under_way == 0 {
            self.incidents.happened[*happened].over = Some(self.now);
        }
    }
}
