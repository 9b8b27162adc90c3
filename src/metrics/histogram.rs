//! A histogram of spans in fixed integer buckets, for values too many to keep.
//!
//! Buckets are whole picoseconds up to 2^BITS, then 2^BITS to each power of two. With the 7 bits of token gaps a
//! value is known to 1 part in 128 (0.8 %), and to 1 in 256 when the bucket's middle is reported. Counts are
//! integers: merging gives the same in any order.

use serde::Serialize;

use crate::time::Span;

/// Counts of spans by bucket, 2^`BITS` buckets to each power of two.
#[derive(Clone, Debug, PartialEq, Eq, Default, Serialize)]
pub struct Histogram<const BITS: u32 = 7> {
    counts: Vec<u64>,
    total: u64,
}

impl<const BITS: u32> Histogram<BITS> {
    const PER_POWER: u64 = 1 << BITS;

    fn bucket(span: Span) -> usize {
        let value = span.as_ps();
        if value < Self::PER_POWER {
            return value as usize;
        }
        let shift = value.ilog2() - BITS;
        (u64::from(shift + 1) * Self::PER_POWER + ((value >> shift) - Self::PER_POWER)) as usize
    }

    /// The least value of a bucket, and how many values it holds.
    fn range(bucket: usize) -> (u64, u64) {
        let (power, place) = (bucket as u64 / Self::PER_POWER, bucket as u64 % Self::PER_POWER);
        match power.checked_sub(1) {
            None => (place, 1),
            Some(shift) => ((Self::PER_POWER + place) << shift, 1 << shift),
        }
    }

    /// The middle of a bucket.
    fn middle(bucket: usize) -> Span {
        let (low, width) = Self::range(bucket);
        Span::from_ps(low + width / 2)
    }

    /// Counts `count` values of `span`.
    pub fn add(&mut self, span: Span, count: u64) {
        let bucket = Self::bucket(span);
        if self.counts.len() <= bucket {
            self.counts.resize(bucket + 1, 0);
        }
        self.counts[bucket] += count;
        self.total += count;
    }

    /// Counts `count` values of each of `steps` spans, each `growth` above the one before.
    pub fn add_series(&mut self, first: Span, growth: Span, steps: u64, count: u64) {
        if steps == 1 || growth == Span::ZERO {
            if steps > 0 {
                self.add(first, steps * count);
            }
            return;
        }
        let mut done = 0;
        while done < steps {
            let value = first + growth * done;
            let (low, width) = Self::range(Self::bucket(value));
            // So many steps lie in the same bucket.
            let room = low + width - 1 - value.as_ps();
            let here = room.checked_div(growth.as_ps()).map_or(steps, |more| more + 1).min(steps - done);
            self.add(value, here * count);
            done += here;
        }
    }

    /// Adds all of another's counts.
    pub fn merge(&mut self, other: &Histogram<BITS>) {
        if self.counts.len() < other.counts.len() {
            self.counts.resize(other.counts.len(), 0);
        }
        for (mine, theirs) in self.counts.iter_mut().zip(&other.counts) {
            *mine += theirs;
        }
        self.total += other.total;
    }

    /// The bucket's middle of the value that `place` others lie before; none where there are not so many.
    pub fn value_at(&self, place: u64) -> Option<Span> {
        let mut seen = 0;
        for (bucket, count) in self.counts.iter().enumerate() {
            seen += count;
            if seen > place {
                return Some(Self::middle(bucket));
            }
        }
        None
    }

    /// How many values.
    pub fn total(&self) -> u64 {
        self.total
    }

    /// The bucket's middle of the value at the `p`-th percentile; none where there is no value.
    pub fn percentile(&self, p: f64) -> Option<Span> {
        let last = self.total.checked_sub(1)?;
        self.value_at((last as f64 * p / 100.0).round() as u64)
    }

    /// Mean of the buckets' middles in milliseconds; none where there is no value.
    pub fn mean_ms(&self) -> Option<f64> {
        (self.total > 0).then(|| {
            let weighted = |(bucket, count): (usize, &u64)| Self::middle(bucket).as_ms() * *count as f64;
            self.counts.iter().enumerate().map(weighted).sum::<f64>() / self.total as f64
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_series_is_its_values_one_by_one(
            first in 0u64..1 << 40, growth in prop_oneof![Just(0u64), 0u64..1 << 20, 0u64..1 << 36],
            steps in 0u64..300, count in 1u64..50,
        ) {
            let (mut at_once, mut one_by_one): (Histogram, Histogram) = Default::default();
            at_once.add_series(Span::from_ps(first), Span::from_ps(growth), steps, count);
            for step in 0..steps {
                one_by_one.add(Span::from_ps(first + growth * step), count);
            }
            prop_assert_eq!(at_once, one_by_one);
        }
    }

    #[test]
    fn values_are_known_to_one_part_in_256() {
        for ps in (0..2_000_000_000u64).step_by(999_983).chain([0, 1, 127, 128, 129, u64::MAX / 2]) {
            let back = Histogram::<7>::middle(Histogram::<7>::bucket(Span::from_ps(ps))).as_ps();
            assert!(back.abs_diff(ps) as f64 <= ps as f64 / 256.0 + 1.0, "{ps} came back as {back}");
        }
    }

    #[test]
    fn merging_is_adding() {
        let (mut a, mut b, mut both): (Histogram, Histogram, Histogram) = Default::default();
        for ms in 1..100 {
            let half = if ms % 2 == 0 { &mut a } else { &mut b };
            half.add(Span::from_ms(ms), ms);
            both.add(Span::from_ms(ms), ms);
        }
        a.merge(&b);
        assert_eq!(a, both);
        let median_ms = both.percentile(50.0).map_or(0.0, Span::as_ms);
        assert!((median_ms / 70.0 - 1.0).abs() < 0.02, "{median_ms}");
    }
}
