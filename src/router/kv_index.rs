//! A gateway's index of KV events: which blocks are said to be where.
//!
//! Knows keys of blocks, replicas, and when each was heard of. Does not know engines, or how events come here.
//!
//! After llm-d's `kvblock` indices (`in_memory.go`): so many keys, those neither told nor found for longest going first
//! (`inMemoryConfig.size`, 100,000,000), and of each key so many replicas, the one told first going first (`podCacheSize`, 10).
//! Others forget by age, counted from the event: a hit is no event, so what is hot is forgotten like everything else.

use std::num::NonZeroUsize;

use lru::LruCache;
use rustc_hash::{FxBuildHasher, FxHashMap};

use super::Server;
use crate::time::{Span, Time};

/// How much an index holds, and how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct IndexLimits {
    /// Blocks, over all replicas.
    pub blocks: Option<NonZeroUsize>,
    /// Replicas of one block.
    pub replicas_per_block: Option<NonZeroUsize>,
    /// What was told so long ago is forgotten.
    pub ttl: Option<Span>,
}

/// A replica that is said to have a block.
#[derive(Clone, Copy, Debug)]
struct Holder {
    server: u32,
    /// How often that replica's blocks had been cleared.
    life: u32,
    told_at: Time,
}

/// Who has a block, in the order in which they told. Most blocks are at one replica.
#[derive(Clone, Debug)]
struct Holders {
    first: Holder,
    others: Vec<Holder>,
}

impl Holders {
    fn iter(&self) -> impl Iterator<Item = &Holder> {
        std::iter::once(&self.first).chain(&self.others)
    }

    /// Keeps those for whom `stays` holds; false if nobody does.
    fn retain(&mut self, stays: impl Fn(&Holder) -> bool) -> bool {
        self.others.retain(&stays);
        if stays(&self.first) {
            return true;
        }
        if self.others.is_empty() {
            return false;
        }
        self.first = self.others.remove(0);
        true
    }
}

/// Entries by key. Looked up and changed, never walked, so their order cannot show.
#[derive(Clone, Debug)]
enum Entries {
    All(FxHashMap<u64, Holders>),
    Some(LruCache<u64, Holders, FxBuildHasher>),
}

impl Entries {
    /// An entry, which counts as used.
    fn get_mut(&mut self, key: u64) -> Option<&mut Holders> {
        match self {
            Entries::All(entries) => entries.get_mut(&key),
            Entries::Some(entries) => entries.get_mut(&key),
        }
    }

    /// An entry, which does not.
    fn peek_mut(&mut self, key: u64) -> Option<&mut Holders> {
        match self {
            Entries::All(entries) => entries.get_mut(&key),
            Entries::Some(entries) => entries.peek_mut(&key),
        }
    }

    fn insert(&mut self, key: u64, holders: Holders) {
        match self {
            Entries::All(entries) => drop(entries.insert(key, holders)),
            Entries::Some(entries) => drop(entries.push(key, holders)),
        }
    }

    fn remove(&mut self, key: u64) {
        match self {
            Entries::All(entries) => drop(entries.remove(&key)),
            Entries::Some(entries) => drop(entries.pop(&key)),
        }
    }

    fn len(&self) -> usize {
        match self {
            Entries::All(entries) => entries.len(),
            Entries::Some(entries) => entries.len(),
        }
    }
}

/// What one gateway has been told, as far as it remembers.
#[derive(Clone, Debug)]
pub struct KvIndex {
    limits: IndexLimits,
    blocks: Entries,
    lives: Vec<u32>,
}

impl KvIndex {
    /// Knows nothing yet of `servers` replicas.
    pub fn new(servers: usize, limits: IndexLimits) -> KvIndex {
        let blocks = match limits.blocks {
            None => Entries::All(FxHashMap::default()),
            Some(most) => {
                // It grows as it is filled: a limit of 10^8 takes no room by itself.
                let mut entries = LruCache::unbounded_with_hasher(FxBuildHasher);
                entries.resize(most);
                Entries::Some(entries)
            }
        };
        KvIndex { limits, blocks, lives: vec![0; servers] }
    }

    /// A replica has cached a block.
    pub fn stored(&mut self, server: Server, key: u64, at: Time) {
        let holder = Holder { server: server as u32, life: self.lives[server], told_at: at };
        let (lives, ttl) = (&self.lives, self.limits.ttl);
        let Some(holders) = self.blocks.get_mut(key) else {
            self.blocks.insert(key, Holders { first: holder, others: Vec::new() });
            return;
        };
        let others = |other: &Holder| other.server != holder.server && holds(other, lives, ttl, at);
        if !holders.retain(others) {
            holders.first = holder;
            return;
        }
        holders.others.push(holder);
        if self.limits.replicas_per_block.is_some_and(|most| holders.others.len() >= most.get()) {
            holders.first = holders.others.remove(0);
        }
    }

    /// A replica has lost a block.
    pub fn removed(&mut self, server: Server, key: u64) {
        let Some(holders) = self.blocks.peek_mut(key) else { return };
        if !holders.retain(|holder| holder.server != server as u32) {
            self.blocks.remove(key);
        }
    }

    /// A replica has lost everything.
    pub fn cleared(&mut self, server: Server) {
        self.lives[server] += 1;
    }

    /// How many of the leading blocks with these keys each replica is said to have. What is found counts as used.
    pub fn leading(&mut self, keys: &[u64], now: Time, found: &mut Vec<u32>) {
        found.clear();
        found.resize(self.lives.len(), 0);
        for (place, &key) in (0u32..).zip(keys) {
            let Some(holders) = self.blocks.get_mut(key) else { return };
            let mut anybody = false;
            for holder in holders.iter().filter(|holder| holds(holder, &self.lives, self.limits.ttl, now)) {
                let found = &mut found[holder.server as usize];
                if *found == place {
                    *found += 1;
                    anybody = true;
                }
            }
            if !anybody {
                return;
            }
        }
    }

    /// Blocks it has an entry for.
    pub fn len(&self) -> usize {
        self.blocks.len()
    }

    /// Whether it has no entry.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Whether what a replica told is still believed.
fn holds(holder: &Holder, lives: &[u32], ttl: Option<Span>, now: Time) -> bool {
    let of_this_life = holder.life == lives[holder.server as usize];
    of_this_life && ttl.is_none_or(|ttl| now.saturating_since(holder.told_at) <= ttl)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Time {
        Time::ZERO + Span::from_ms(ms)
    }

    fn index(limits: IndexLimits) -> KvIndex {
        KvIndex::new(4, limits)
    }

    fn leading(index: &mut KvIndex, keys: &[u64], now: Time) -> Vec<u32> {
        let mut found = Vec::new();
        index.leading(keys, now, &mut found);
        found
    }

    #[test]
    fn a_replica_is_credited_up_to_its_first_gap() {
        let mut index = index(IndexLimits::default());
        for (server, keys) in [(0, vec![1, 2, 3]), (1, vec![1, 3]), (2, vec![2, 3])] {
            keys.into_iter().for_each(|key| index.stored(server, key, at(0)));
        }
        assert_eq!(leading(&mut index, &[1, 2, 3, 4], at(1)), [3, 1, 0, 0]);
        index.removed(0, 2);
        assert_eq!(leading(&mut index, &[1, 2, 3, 4], at(1)), [1, 1, 0, 0]);
        index.cleared(0);
        assert_eq!(leading(&mut index, &[1, 2, 3, 4], at(1)), [0, 1, 0, 0]);
        index.stored(0, 1, at(2));
        assert_eq!(leading(&mut index, &[1, 2, 3, 4], at(2)), [1, 1, 0, 0]);
    }

    #[test]
    fn what_is_neither_told_nor_found_goes_first() {
        let mut index = index(IndexLimits { blocks: NonZeroUsize::new(2), ..IndexLimits::default() });
        index.stored(0, 1, at(0));
        index.stored(0, 2, at(1));
        assert_eq!(leading(&mut index, &[1], at(2))[0], 1);
        index.stored(1, 3, at(3));
        assert_eq!((index.len(), leading(&mut index, &[2], at(4))[0]), (2, 0));
        assert_eq!(leading(&mut index, &[1], at(4))[0], 1);
    }

    #[test]
    fn of_many_replicas_with_a_block_the_last_to_tell_are_known() {
        let limits = IndexLimits { replicas_per_block: NonZeroUsize::new(2), ..IndexLimits::default() };
        let mut index = index(limits);
        [0, 1, 2].into_iter().for_each(|server| index.stored(server, 7, at(0)));
        assert_eq!(leading(&mut index, &[7], at(0)), [0, 1, 1, 0]);
        // Who tells again is the last to have told.
        index.stored(1, 7, at(1));
        index.stored(3, 7, at(2));
        assert_eq!(leading(&mut index, &[7], at(2)), [0, 1, 0, 1]);
    }

    #[test]
    fn one_replica_a_block_is_one() {
        let limits = IndexLimits { replicas_per_block: NonZeroUsize::new(1), ..IndexLimits::default() };
        let mut index = index(limits);
        [0, 1].into_iter().for_each(|server| index.stored(server, 7, at(0)));
        assert_eq!(leading(&mut index, &[7], at(0)), [0, 1, 0, 0]);
    }

    #[test]
    fn age_counts_from_the_event_and_not_from_the_last_hit() {
        let mut index = index(IndexLimits { ttl: Some(Span::from_ms(10)), ..IndexLimits::default() });
        index.stored(0, 1, at(0));
        assert_eq!(leading(&mut index, &[1], at(10))[0], 1);
        assert_eq!(leading(&mut index, &[1], at(11))[0], 0);
        index.stored(0, 1, at(12));
        assert_eq!(leading(&mut index, &[1], at(20))[0], 1);
    }
}
