//! Who is up, as one gateway knows it.
//!
//! Knows health checks, announcements of drains, and ejection of replicas that fail. A check costs nothing here:
//! checks come at a fixed pace, so when a gateway notices follows from when a replica went. Does not know why a
//! replica is down.

use crate::router::{Candidates, Server};
use crate::time::{Span, Time};

/// How gateways learn who is up. Checks are those of Kubernetes' readiness probes unless a scenario says otherwise.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Health {
    /// Between two checks of a replica.
    pub interval: Span,
    /// Checks in a row that must fail before nothing is sent there any more.
    pub unhealthy_after: u32,
    /// Checks in a row that must succeed before something is sent there again.
    pub healthy_after: u32,
    /// From the announcement of a drain until gateways know.
    pub watch_delay: Span,
    /// Failures in a row by which a replica is ejected, whatever its checks say; 0: never.
    pub eject_after: u32,
    /// How long, times how often it was.
    pub ejection: Span,
    /// Share of the replicas that may be ejected at a time; one always may.
    pub most_ejected: f64,
    /// Below this share of replicas that are up, everybody counts as up.
    pub panic_below: f64,
}

impl Default for Health {
    fn default() -> Self {
        Health {
            interval: Span::from_s(10),
            unhealthy_after: 3,
            healthy_after: 1,
            watch_delay: Span::from_s(1),
            eject_after: 0,
            ejection: Span::from_s(30),
            most_ejected: 0.1,
            panic_below: 0.0,
        }
    }
}

impl Health {
    /// When a gateway whose checks fall on `phase` and every interval after it has noticed what is so since `since`.
    pub(super) fn noticed(&self, phase: Span, since: Time, up: bool) -> Time {
        let checks = if up { self.healthy_after } else { self.unhealthy_after };
        let behind = (since - Time::ZERO).saturating_sub(phase).as_ps();
        let first = phase + self.interval * behind.div_ceil(self.interval.as_ps());
        Time::ZERO + first + self.interval * u64::from(checks - 1)
    }
}

/// What one gateway knows of one replica.
#[derive(Clone, Copy, Debug, Default)]
struct Entry {
    down: bool,
    drains: bool,
    ejected: bool,
    /// It has as many of this gateway's requests as it may.
    full: bool,
    /// In a row.
    failures: u32,
    ejections: u32,
}

/// A gateway's list of replicas.
#[derive(Clone, Debug)]
pub(super) struct Roster {
    entries: Vec<Entry>,
    candidates: Candidates,
    generation: u64,
    panic_below: f64,
}

impl Roster {
    /// Everybody is up.
    pub(super) fn new(servers: usize, health: &Health) -> Roster {
        Roster {
            entries: vec![Entry::default(); servers],
            candidates: Candidates::all(servers),
            generation: 0,
            panic_below: health.panic_below,
        }
    }

    /// Who may be chosen.
    pub(super) fn candidates(&self) -> &Candidates {
        &self.candidates
    }

    /// The same but for those who have just failed, unless nobody else is left.
    pub(super) fn candidates_but(&mut self, failed: &[Server]) -> Candidates {
        let others: Vec<Server> = self.candidates.iter().filter(|server| !failed.contains(server)).collect();
        if others.is_empty() || others.len() == self.candidates.len() {
            return self.candidates.clone();
        }
        self.generation += 1;
        Candidates::of(others, self.generation)
    }

    /// Checks have come to say so.
    pub(super) fn checked(&mut self, server: Server, up: bool) {
        let entry = &mut self.entries[server];
        entry.down = !up;
        if up {
            *entry = Entry { ejections: entry.ejections, full: entry.full, ..Entry::default() };
        }
        self.list();
    }

    /// It was announced that it goes.
    pub(super) fn drains(&mut self, server: Server) {
        self.entries[server].drains = true;
        self.list();
    }

    /// Something came back from there: an answer, or a failure. Says how long it is ejected, and for how many times by now, if it
    /// just was.
    pub(super) fn heard(&mut self, server: Server, failed: bool, health: &Health) -> Option<(Span, u32)> {
        if health.eject_after == 0 {
            return None;
        }
        let most = (health.most_ejected * self.entries.len() as f64) as usize;
        let ejected = self.entries.iter().filter(|entry| entry.ejected).count();
        let entry = &mut self.entries[server];
        entry.failures = if failed { entry.failures + 1 } else { 0 };
        if entry.failures < health.eject_after || entry.ejected || ejected >= most.max(1) {
            return None;
        }
        (entry.ejected, entry.failures) = (true, 0);
        entry.ejections += 1;
        let ejections = entry.ejections;
        self.list();
        Some((health.ejection * u64::from(ejections), ejections))
    }

    /// It has, or no longer has, as many requests as it may.
    pub(super) fn fills(&mut self, server: Server, full: bool) {
        if self.entries[server].full != full {
            self.entries[server].full = full;
            self.list();
        }
    }

    /// The ejection of this number is over. A check that succeeds ends it sooner, as Envoy's does, and then another may have begun.
    pub(super) fn returns(&mut self, server: Server, ejections: u32) {
        if self.entries[server].ejections == ejections {
            self.entries[server].ejected = false;
            self.list();
        }
    }

    fn list(&mut self) {
        // Who was announced to go is on nobody's list any more, in panic or not.
        let there = || self.entries.iter().filter(|entry| !entry.drains);
        let is_up = |entry: &Entry| !(entry.down || entry.ejected);
        let up = there().filter(|entry| is_up(entry)).count();
        let panics = (up as f64) < self.panic_below * there().count() as f64;
        let listed = |entry: &Entry| (panics || is_up(entry)) && !entry.drains && !entry.full;
        self.generation += 1;
        let servers = (0..self.entries.len()).filter(|&server| listed(&self.entries[server]));
        self.candidates = Candidates::of(servers, self.generation);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at_s(seconds: u64) -> Time {
        Time::ZERO + Span::from_s(seconds)
    }

    #[test]
    fn checks_notice_at_their_own_pace() {
        let health = Health::default();
        let phase = Span::from_s(4);
        // Checks at 4, 14, 24, ...: down since 15, the third that fails is at 44; up since 44, the one at 44 sees it.
        assert_eq!(health.noticed(phase, at_s(15), false), at_s(44));
        assert_eq!(health.noticed(phase, at_s(44), true), at_s(44));
        assert_eq!(health.noticed(phase, at_s(0), true), at_s(4));
    }

    #[test]
    fn ejection_lasts_longer_each_time_and_takes_a_tenth_at_most() {
        let health = Health { eject_after: 2, ..Health::default() };
        let mut roster = Roster::new(20, &health);
        assert_eq!(roster.heard(3, true, &health), None);
        assert_eq!(roster.heard(3, false, &health), None);
        assert_eq!(roster.heard(3, true, &health), None);
        assert_eq!(roster.heard(3, true, &health), Some((Span::from_s(30), 1)));
        assert!(!roster.candidates().contains(3));
        let eject = |roster: &mut Roster, server| {
            roster.heard(server, true, &health);
            roster.heard(server, true, &health)
        };
        assert_eq!(eject(&mut roster, 4), Some((Span::from_s(30), 1)));
        assert_eq!(eject(&mut roster, 5), None, "two of twenty are out");
        roster.returns(3, 1);
        assert_eq!(eject(&mut roster, 3), Some((Span::from_s(60), 2)));
        roster.returns(3, 1);
        assert!(!roster.candidates().contains(3), "its first ejection ends once");
        roster.checked(3, true);
        assert!(roster.candidates().contains(3), "a check that succeeds ends its second");
    }

    #[test]
    fn in_panic_everybody_counts_as_up() {
        let mut roster = Roster::new(4, &Health { panic_below: 0.5, ..Health::default() });
        roster.checked(0, false);
        roster.checked(1, false);
        assert_eq!(roster.candidates().len(), 2);
        roster.checked(2, false);
        assert_eq!(roster.candidates().len(), 4);
        roster.checked(2, true);
        assert_eq!(roster.candidates().iter().collect::<Vec<_>>(), [2, 3]);
    }

    #[test]
    fn who_goes_is_no_candidate_even_in_panic() {
        let mut roster = Roster::new(3, &Health { panic_below: 0.9, ..Health::default() });
        roster.drains(0);
        assert_eq!(roster.candidates().iter().collect::<Vec<_>>(), [1, 2]);
        roster.checked(1, false);
        assert_eq!(roster.candidates().iter().collect::<Vec<_>>(), [1, 2], "one of two is too few");
        roster.checked(0, true);
        assert_eq!(roster.candidates().len(), 3);
    }

    #[test]
    fn who_is_full_is_no_candidate_even_in_panic() {
        let mut roster = Roster::new(2, &Health { panic_below: 0.9, ..Health::default() });
        roster.checked(0, false);
        assert_eq!(roster.candidates().len(), 2);
        roster.fills(1, true);
        assert_eq!(roster.candidates().iter().collect::<Vec<_>>(), [0]);
        roster.fills(1, false);
        assert_eq!(roster.candidates().len(), 2);
    }

    #[test]
    fn who_failed_is_avoided_where_somebody_else_is_left() {
        let mut roster = Roster::new(2, &Health::default());
        assert_eq!(roster.candidates_but(&[0]).iter().collect::<Vec<_>>(), [1]);
        roster.checked(1, false);
        assert_eq!(roster.candidates_but(&[0]).iter().collect::<Vec<_>>(), [0]);
    }
}
