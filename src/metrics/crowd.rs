//! How many requests are in the system, and whether they become more.
//!
//! Knows when requests were sent and when they ended. Keeps each of them up to a bound, and beyond it the time
//! that requests spent in the system by intervals, whose length doubles as the run goes on.

use super::quantile::EXACT_UP_TO;
use crate::time::Time;

/// Most intervals beyond the bound; a quarter of a run is known to about one part in so many quarters.
const MOST_INTERVALS: usize = 4_096;

#[derive(Clone, Debug, Default)]
pub(super) struct Crowd {
    stays: Vec<(Time, Time)>,
    /// Request-picoseconds by interval, once there are too many stays to keep.
    intervals: Option<Intervals>,
}

#[derive(Clone, Debug)]
struct Intervals {
    length_ps: u64,
    inside_ps: Vec<u128>,
}

impl Crowd {
    /// A request was in the system from `sent` to `done`.
    pub(super) fn add(&mut self, sent: Time, done: Time) {
        if let Some(intervals) = &mut self.intervals {
            intervals.add(sent.as_ps(), done.as_ps());
            return;
        }
        self.stays.push((sent, done));
        if self.stays.len() > EXACT_UP_TO {
            let mut intervals = Intervals { length_ps: 1 << 30, inside_ps: Vec::new() };
            for (sent, done) in std::mem::take(&mut self.stays) {
                intervals.add(sent.as_ps(), done.as_ps());
            }
            self.intervals = Some(intervals);
        }
    }

    /// Mean requests in the system in the last quarter of the sending time over that in the second quarter.
    /// Well above 1, the queue grows as long as requests come; 1 where there is nothing to compare.
    pub(super) fn growth(&self, first_sent: Time, last_sent: Time) -> f64 {
        let start = first_sent.as_ps();
        let quarter = (last_sent.as_ps() - start) / 4;
        let early = self.inside_ps(start + quarter, start + 2 * quarter);
        let late = self.inside_ps(start + 3 * quarter, start + 4 * quarter);
        if early == 0 { 1.0 } else { late as f64 / early as f64 }
    }

    /// Time that requests spent in the system between two moments.
    fn inside_ps(&self, from: u64, to: u64) -> u128 {
        match &self.intervals {
            Some(intervals) => intervals.inside_ps(from, to),
            None => {
                let overlap = |&(sent, done): &(Time, Time)| {
                    u128::from(done.as_ps().min(to).saturating_sub(sent.as_ps().max(from)))
                };
                self.stays.iter().map(overlap).sum()
            }
        }
    }
}

impl Intervals {
    fn add(&mut self, sent: u64, done: u64) {
        while done / self.length_ps >= MOST_INTERVALS as u64 {
            self.length_ps *= 2;
            self.inside_ps = self.inside_ps.chunks(2).map(|pair| pair.iter().sum()).collect();
        }
        let last = (done / self.length_ps) as usize;
        if self.inside_ps.len() <= last {
            self.inside_ps.resize(last + 1, 0);
        }
        for index in (sent / self.length_ps) as usize..=last {
            let begin = index as u64 * self.length_ps;
            let inside = done.min(begin + self.length_ps) - sent.max(begin);
            self.inside_ps[index] += u128::from(inside);
        }
    }

    /// Intervals that lie partly between the two moments count in proportion.
    fn inside_ps(&self, from: u64, to: u64) -> u128 {
        let share = |(index, inside): (usize, &u128)| {
            let begin = index as u64 * self.length_ps;
            let overlap = to.min(begin + self.length_ps).saturating_sub(from.max(begin));
            inside * u128::from(overlap) / u128::from(self.length_ps)
        };
        self.inside_ps.iter().enumerate().map(share).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intervals_tell_what_stays_tell() {
        let stays: Vec<(u64, u64)> =
            (0..20_000u64).map(|i| (i << 28, (i << 28) + ((i * i) << 10) + 5)).collect();
        let mut exact = Crowd::default();
        let mut intervals = Intervals { length_ps: 1 << 20, inside_ps: Vec::new() };
        for &(sent, done) in &stays {
            exact.add(Time::from_ps(sent), Time::from_ps(done));
            intervals.add(sent, done);
        }
        let rough = Crowd { stays: Vec::new(), intervals: Some(intervals) };
        let last = Time::from_ps(stays[stays.len() - 1].0);
        let (exact, rough) = (exact.growth(Time::ZERO, last), rough.growth(Time::ZERO, last));
        assert!(exact > 2.0 && (rough / exact - 1.0).abs() < 0.01, "{rough} for {exact}");
    }
}
