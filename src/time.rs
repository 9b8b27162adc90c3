//! Simulated time: integers in picoseconds.
//!
//! Knows the unit, and is the only file that does. Knows nothing of wall clocks.
//!
//! Integers make equal times equal, sums independent of their order, and a run of steps that each last
//! longer than the one before an arithmetic series whose closed form equals the loop to the last bit.
//! A nanosecond is too coarse: one token of KV cache is read in 1 to 40 ns. A `u64` of picoseconds
//! holds 213 days.

use std::fmt;
use std::iter::Sum;
use std::ops::{Add, AddAssign, Mul, Sub, SubAssign};

use serde::{Deserialize, Serialize};

const PS_PER_NS: u64 = 1_000;
const PS_PER_US: u64 = 1_000_000;
const PS_PER_MS: u64 = 1_000_000_000;
const PS_PER_S: u64 = 1_000_000_000_000;

/// A moment: picoseconds since the run began.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub struct Time(u64);

/// A length of time in picoseconds, never negative.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub struct Span(u64);

impl Time {
    /// The start of every run.
    pub const ZERO: Time = Time(0);
    /// Later than every moment that can be simulated: "to the end".
    pub const MAX: Time = Time(u64::MAX);

    /// The moment this many picoseconds after the start.
    pub const fn from_ps(ps: u64) -> Time {
        Time(ps)
    }

    /// Picoseconds since the start.
    pub const fn as_ps(self) -> u64 {
        self.0
    }

    /// Time passed since `earlier`.
    ///
    /// # Panics
    /// If `earlier` is later: time ran back (law 4).
    #[track_caller]
    pub fn since(self, earlier: Time) -> Span {
        Span(self.0.checked_sub(earlier.0).expect("time ran back"))
    }

    /// Time passed since `earlier`, or zero if that is still to come.
    pub const fn saturating_since(self, earlier: Time) -> Span {
        Span(self.0.saturating_sub(earlier.0))
    }

    /// The moment `span` later, or [`Time::MAX`] where that is past the end of time.
    pub const fn saturating_add(self, span: Span) -> Time {
        Time(self.0.saturating_add(span.0))
    }

    /// Seconds since the start, for people.
    pub fn as_s(self) -> f64 {
        Span(self.0).as_s()
    }
}

impl Span {
    /// No time at all.
    pub const ZERO: Span = Span(0);
    /// Longer than every run.
    pub const MAX: Span = Span(u64::MAX);

    /// This many picoseconds.
    pub const fn from_ps(ps: u64) -> Span {
        Span(ps)
    }

    /// This many nanoseconds.
    pub const fn from_ns(ns: u64) -> Span {
        Span(ns * PS_PER_NS)
    }

    /// This many microseconds.
    pub const fn from_us(us: u64) -> Span {
        Span(us * PS_PER_US)
    }

    /// This many milliseconds.
    pub const fn from_ms(ms: u64) -> Span {
        Span(ms * PS_PER_MS)
    }

    /// This many seconds.
    pub const fn from_s(s: u64) -> Span {
        Span(s * PS_PER_S)
    }

    /// Nearest span to `s` seconds; negative and not-a-number become zero, too long becomes [`Span::MAX`].
    pub fn from_s_f64(s: f64) -> Span {
        Span((s * PS_PER_S as f64).round() as u64)
    }

    /// Nearest span to `ms` milliseconds, with the limits of [`Span::from_s_f64`].
    pub fn from_ms_f64(ms: f64) -> Span {
        Span((ms * PS_PER_MS as f64).round() as u64)
    }

    /// Nearest span to `us` microseconds, with the limits of [`Span::from_s_f64`].
    pub fn from_us_f64(us: f64) -> Span {
        Span((us * PS_PER_US as f64).round() as u64)
    }

    /// Picoseconds.
    pub const fn as_ps(self) -> u64 {
        self.0
    }

    /// Milliseconds, for people.
    pub fn as_ms(self) -> f64 {
        self.0 as f64 / PS_PER_MS as f64
    }

    /// Microseconds, for people.
    pub fn as_us(self) -> f64 {
        self.0 as f64 / PS_PER_US as f64
    }

    /// Seconds, for people.
    pub fn as_s(self) -> f64 {
        self.0 as f64 / PS_PER_S as f64
    }

    /// The difference, or zero where `other` is longer.
    pub const fn saturating_sub(self, other: Span) -> Span {
        Span(self.0.saturating_sub(other.0))
    }

    /// This span times `numerator / denominator`, rounded down; products in 128 bits.
    ///
    /// # Panics
    /// If `denominator` is zero.
    pub fn scale(self, numerator: u64, denominator: u64) -> Span {
        Span((self.0 as u128 * numerator as u128 / denominator as u128) as u64)
    }
}

impl Add<Span> for Time {
    type Output = Time;
    fn add(self, span: Span) -> Time {
        Time(self.0 + span.0)
    }
}

impl AddAssign<Span> for Time {
    fn add_assign(&mut self, span: Span) {
        self.0 += span.0;
    }
}

impl Sub<Time> for Time {
    type Output = Span;
    #[track_caller]
    fn sub(self, earlier: Time) -> Span {
        self.since(earlier)
    }
}

impl Add for Span {
    type Output = Span;
    fn add(self, other: Span) -> Span {
        Span(self.0 + other.0)
    }
}

impl AddAssign for Span {
    fn add_assign(&mut self, other: Span) {
        self.0 += other.0;
    }
}

impl Sub for Span {
    type Output = Span;
    #[track_caller]
    fn sub(self, other: Span) -> Span {
        Span(self.0.checked_sub(other.0).expect("a span cannot be negative"))
    }
}

impl SubAssign for Span {
    fn sub_assign(&mut self, other: Span) {
        *self = *self - other;
    }
}

impl Mul<u64> for Span {
    type Output = Span;
    fn mul(self, times: u64) -> Span {
        Span(self.0 * times)
    }
}

impl Sum for Span {
    fn sum<I: Iterator<Item = Span>>(spans: I) -> Span {
        spans.fold(Span::ZERO, Add::add)
    }
}

impl fmt::Debug for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.6}s", self.as_s())
    }
}

impl fmt::Debug for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.6}ms", self.as_ms())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_agree() {
        assert_eq!(Span::from_s(1), Span::from_ms(1_000));
        assert_eq!(Span::from_ms(1), Span::from_us(1_000));
        assert_eq!(Span::from_us(1), Span::from_ns(1_000));
        assert_eq!(Span::from_ms_f64(0.25), Span::from_us(250));
        assert_eq!(Span::from_s_f64(-1.0), Span::ZERO);
        assert_eq!(Span::from_ns(3).scale(1, 2), Span::from_ps(1_500));
    }

    #[test]
    #[should_panic(expected = "time ran back")]
    fn time_does_not_run_back() {
        let _ = Time::ZERO - Time::from_ps(1);
    }
}
