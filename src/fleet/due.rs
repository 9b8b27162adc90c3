//! Which replica may have something to say next.
//!
//! Knows a bound for each replica and finds the soonest without looking at the others. Does not know what a
//! bound is about.

use crate::time::Time;

/// A tournament among replicas: the soonest bound wins.
#[derive(Clone, Debug)]
pub(super) struct Due {
    /// A binary tree in level order, replicas at its leaves: each node holds the soonest bound below it.
    nodes: Vec<Time>,
    leaves: usize,
}

impl Due {
    /// Nobody has anything to say.
    pub(super) fn new(replicas: usize) -> Due {
        let leaves = replicas.next_power_of_two();
        Due { nodes: vec![Time::MAX; 2 * leaves], leaves }
    }

    /// Sets a replica's bound; none is never.
    pub(super) fn set(&mut self, replica: usize, bound: Option<Time>) {
        let mut node = self.leaves + replica;
        self.nodes[node] = bound.unwrap_or(Time::MAX);
        while node > 1 {
            node /= 2;
            let soonest = self.nodes[2 * node].min(self.nodes[2 * node + 1]);
            if self.nodes[node] == soonest {
                break;
            }
            self.nodes[node] = soonest;
        }
    }

    /// The bound of one replica; none is never.
    pub(super) fn of(&self, replica: usize) -> Option<Time> {
        Some(self.nodes[self.leaves + replica]).filter(|&bound| bound < Time::MAX)
    }

    /// The soonest bound, if it lies at or before `until`, and the first replica that has it.
    pub(super) fn soonest(&self, until: Time) -> Option<(Time, usize)> {
        let bound = self.nodes[1];
        if bound > until || bound == Time::MAX {
            return None;
        }
        let mut node = 1;
        while node < self.leaves {
            node *= 2;
            node += usize::from(self.nodes[node] != bound);
        }
        Some((bound, node - self.leaves))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn the_first_of_the_soonest_wins(
            replicas in 1usize..40,
            settings in prop::collection::vec((any::<usize>(), prop::option::of(0u64..50)), 0..200),
            until in 0u64..60,
        ) {
            let mut due = Due::new(replicas);
            let mut bounds = vec![None; replicas];
            for (replica, bound) in settings {
                let bound = bound.map(Time::from_ps);
                due.set(replica % replicas, bound);
                bounds[replica % replicas] = bound;
                let soonest = bounds.iter().flatten().min().copied().filter(|&bound| bound <= Time::from_ps(until));
                let expected = soonest.map(|bound| (bound, bounds.iter().position(|&b| b == Some(bound)).unwrap()));
                prop_assert_eq!(due.soonest(Time::from_ps(until)), expected);
            }
        }
    }
}
