//! The median of the newest values.
//!
//! Knows values in the order they came and in order of size. Does not know what they mean.

use std::collections::VecDeque;

/// The newest `most` values.
#[derive(Clone, Debug)]
pub struct Median {
    most: usize,
    newest: VecDeque<u64>,
    sorted: Vec<u64>,
}

impl Median {
    /// Of the newest `most` values.
    pub fn of_newest(most: usize) -> Median {
        Median { most, newest: VecDeque::with_capacity(most), sorted: Vec::with_capacity(most) }
    }

    /// Another one.
    pub fn add(&mut self, value: u64) {
        if self.newest.len() == self.most
            && let Some(oldest) = self.newest.pop_front()
        {
            let place = self.sorted.partition_point(|&other| other < oldest);
            self.sorted.remove(place);
        }
        self.newest.push_back(value);
        let place = self.sorted.partition_point(|&other| other < value);
        self.sorted.insert(place, value);
    }

    /// The middle one, of an even number the upper; none before the first.
    pub fn get(&self) -> Option<u64> {
        self.sorted.get(self.sorted.len() / 2).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn old_values_go() {
        let mut median = Median::of_newest(3);
        assert_eq!(median.get(), None);
        let after: Vec<_> =
            [5, 1, 9, 9, 2].map(|value| (median.add(value), median.get().unwrap()).1).to_vec();
        assert_eq!(after, [5, 5, 5, 9, 9]);
    }
}
