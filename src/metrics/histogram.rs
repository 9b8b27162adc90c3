//! A histogram of spans in fixed integer buckets, for values too many to keep.
//!
//! Buckets are whole picoseconds up to 128, then 128 to each power of two, so a value is known to 1 part in
//! 128 (0.8 %), and to 1 in 256 when the bucket's middle is reported. Counts are integers: merging gives the
//! same in any order.

use serde::Serialize;

use crate::time::Span;

const BITS: u32 = 7;
const PER_POWER: u64 = 1 << BITS;

/// Counts of spans by bucket.
#[derive(Clone, Debug, PartialEq, Eq, Default, Serialize)]
pub struct Histogram {
    counts: Vec<u64>,
    total: u64,
}

fn bucket(span: Span) -> usize {
    let value = span.as_ps();
    if value < PER_POWER {
        return value as usize;
    }
    let shift = value.ilog2() - BITS;
    (u64::from(shift + 1) * PER_POWER + ((value >> shift) - PER_POWER)) as usize
}

/// The middle of a bucket.
fn middle(bucket: usize) -> Span {
    let (power, place) = (bucket as u64 / PER_POWER, bucket as u64 % PER_POWER);
    if power == 0 {
        return Span::from_ps(place);
    }
    let shift = power - 1;
    let low = (PER_POWER + place) << shift;
    Span::from_ps(low + (1 << shift) / 2)
}

impl Histogram {
    /// Counts `count` values of `span`.
    pub fn add(&mut self, span: Span, count: u64) {
        let bucket = bucket(span);
        if self.counts.len() <= bucket {
            self.counts.resize(bucket + 1, 0);
        }
        self.counts[bucket] += count;
        self.total += count;
    }

    /// Counts `count` values of each of `steps` spans, each `growth` above the one before.
    pub fn add_series(&mut self, first: Span, growth: Span, steps: u64, count: u64) {
        for step in 0..steps {
            self.add(first + growth * step, count);
        }
    }

    /// Adds all of another's counts.
    pub fn merge(&mut self, other: &Histogram) {
        if self.counts.len() < other.counts.len() {
            self.counts.resize(other.counts.len(), 0);
        }
        for (mine, theirs) in self.counts.iter_mut().zip(&other.counts) {
            *mine += theirs;
        }
        self.total += other.total;
    }

    /// How many values.
    pub fn total(&self) -> u64 {
        self.total
    }

    /// The bucket's middle of the value at the `p`-th percentile; none where there is no value.
    pub fn percentile(&self, p: f64) -> Option<Span> {
        let last = self.total.checked_sub(1)?;
        let place = (last as f64 * p / 100.0).round() as u64;
        let mut seen = 0;
        for (bucket, count) in self.counts.iter().enumerate() {
            seen += count;
            if seen > place {
                return Some(middle(bucket));
            }
        }
        None
    }

    /// Mean of the buckets' middles in milliseconds; none where there is no value.
    pub fn mean_ms(&self) -> Option<f64> {
        (self.total > 0).then(|| {
            let weighted = |(bucket, count): (usize, &u64)| middle(bucket).as_ms() * *count as f64;
            self.counts.iter().enumerate().map(weighted).sum::<f64>() / self.total as f64
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_known_to_one_part_in_256() {
        for ps in (0..2_000_000_000u64).step_by(999_983).chain([0, 1, 127, 128, 129, u64::MAX / 2]) {
            let back = middle(bucket(Span::from_ps(ps))).as_ps();
            assert!(back.abs_diff(ps) as f64 <= ps as f64 / 256.0 + 1.0, "{ps} came back as {back}");
        }
    }

    #[test]
    fn merging_is_adding() {
        let (mut a, mut b, mut both) = (Histogram::default(), Histogram::default(), Histogram::default());
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
