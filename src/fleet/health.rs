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
    /// So long after it was found to be up again, a replica gets less than its share.
    pub slow_start: Span,
    /// Its share grows with age to the power of one over this.
    pub slow_start_aggression: f64,
    /// How long a gateway tries to connect to where nothing passes.
    pub connect_timeout: Span,
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
            slow_start: Span::ZERO,
            slow_start_aggression: 1.0,
            connect_timeout: Span::from_s(5),
        }
    }
}

/// Nobody gets less than this part of its share, as behind Envoy.
const LEAST_SHARE: f64 = 0.1;

impl Health {
    /// The part of its share that a replica gets so long after it was found to be up: Envoy's slow start.
    fn share_at(&self, age: Span) -> f64 {
        let part = age.as_s().max(1.0) / self.slow_start.as_s();
        part.powf(1.0 / self.slow_start_aggression).clamp(LEAST_SHARE, 1.0)
    }

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
    /// When it was found to be up again, while that is not long ago.
    warms_since: Option<Time>,
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
    health: Health,
}

impl Roster {
    /// Everybody is up.
    pub(super) fn new(servers: usize, health: &Health) -> Roster {
        Roster {
            entries: vec![Entry::default(); servers],
            candidates: Candidates::all(servers),
            generation: 0,
            health: *health,
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

    /// The same but for those who have just come back and have more requests in flight than befits them; all where nobody else is
    /// left. Behind Envoy a host of weight w gets a part w of what the others have in flight; here that is a limit, so that it holds
    /// for every policy.
    pub(super) fn without_warming(
        &mut self,
        candidates: Candidates,
        now: Time,
        in_flight: impl Fn(Server) -> u32,
    ) -> Candidates {
        let health = self.health;
        if health.slow_start == Span::ZERO {
            return candidates;
        }
        let mut warm = Vec::new();
        let mut warming = Vec::new();
        for server in candidates.iter() {
            let entry = &mut self.entries[server];
            entry.warms_since = entry.warms_since.filter(|since| now < *since + health.slow_start);
            match entry.warms_since {
                None => warm.push(server),
                Some(since) => warming.push((server, since)),
            }
        }
        if warming.is_empty() || warm.is_empty() {
            return candidates;
        }
        let mean = warm.iter().map(|server| f64::from(in_flight(*server))).sum::<f64>() / warm.len() as f64;
        let has_room = |(server, since): &(Server, Time)| {
            f64::from(in_flight(*server)) < (mean * health.share_at(now - *since)).max(1.0)
        };
        warm.extend(warming.iter().filter(|one| has_room(one)).map(|(server, _)| *server));
        if warm.len() == candidates.len() {
            return candidates;
        }
        warm.sort_unstable();
        self.generation += 1;
        Candidates::of(warm, self.generation)
    }

    /// Checks have come to say so.
    pub(super) fn checked(&mut self, server: Server, up: bool, now: Time) {
        let entry = &mut self.entries[server];
        let was_away = entry.down || entry.drains;
        entry.down = !up;
        if up {
            let warms_since = if was_away { Some(now) } else { entry.warms_since };
            *entry = Entry { ejections: entry.ejections, full: entry.full, warms_since, ..Entry::default() };
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
        let panics = (up as f64) < self.health.panic_below * there().count() as f64;
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
        roster.checked(3, true, at_s(0));
        assert!(roster.candidates().contains(3), "a check that succeeds ends its second");
    }

    #[test]
    fn in_panic_everybody_counts_as_up() {
        let mut roster = Roster::new(4, &Health { panic_below: 0.5, ..Health::default() });
        roster.checked(0, false, at_s(0));
        roster.checked(1, false, at_s(0));
        assert_eq!(roster.candidates().len(), 2);
        roster.checked(2, false, at_s(0));
        assert_eq!(roster.candidates().len(), 4);
        roster.checked(2, true, at_s(0));
        assert_eq!(roster.candidates().iter().collect::<Vec<_>>(), [2, 3]);
    }

    #[test]
    fn who_goes_is_no_candidate_even_in_panic() {
        let mut roster = Roster::new(3, &Health { panic_below: 0.9, ..Health::default() });
        roster.drains(0);
        assert_eq!(roster.candidates().iter().collect::<Vec<_>>(), [1, 2]);
        roster.checked(1, false, at_s(0));
        assert_eq!(roster.candidates().iter().collect::<Vec<_>>(), [1, 2], "one of two is too few");
        roster.checked(0, true, at_s(0));
        assert_eq!(roster.candidates().len(), 3);
    }

    #[test]
    fn who_is_full_is_no_candidate_even_in_panic() {
        let mut roster = Roster::new(2, &Health { panic_below: 0.9, ..Health::default() });
        roster.checked(0, false, at_s(0));
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
        roster.checked(1, false, at_s(0));
        assert_eq!(roster.candidates_but(&[0]).iter().collect::<Vec<_>>(), [0]);
    }
}
