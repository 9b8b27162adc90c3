//! The free blocks of one engine, in the order in which they will be taken.
//!
//! Knows blocks and their order. Does not know keys, references or requests.
//!
//! vLLM keeps one linked list (`FreeKVCacheBlockQueue`). Blocks join it at two places only: uncached ones at
//! its head, cached ones at its tail. So it is a stack in front of the blocks never taken yet in front of a
//! queue, and taking or returning a request's blocks copies stretches of memory instead of following links.
//! A block that a prefix hit takes out of the middle leaves a hole, which is skipped when its turn comes.

/// A block of the pool. Block 0 is the null block and never used.
pub(crate) type BlockId = u32;

/// An entry of the queue that holds nothing any more.
const HOLE: u32 = 0;

/// Marks blocks that the prefix-cache table knows, so that taking one is told.
const IN_TABLE: u32 = 1 << 31;

#[derive(Clone, Debug)]
pub(super) struct FreeList {
    /// Uncached blocks; the last is the next to be taken.
    stack: Vec<BlockId>,
    /// Blocks never taken yet, behind the stack.
    untouched: std::ops::Range<BlockId>,
    /// Cached blocks in order of release, behind both: a ring whose length is a power of two.
    ring: Vec<u32>,
    /// Places of the queue's first and next entry, counted from the start of the run.
    head: u64,
    tail: u64,
    /// Blocks in the queue, holes left out.
    queued: u32,
    /// Where each block of the table stands in the queue, while it does.
    places: Vec<u64>,
}

impl FreeList {
    /// All blocks of a pool of `num_gpu_blocks`, the null block left out, in order.
    pub(super) fn new(num_gpu_blocks: u32) -> FreeList {
        assert!(num_gpu_blocks < IN_TABLE, "a pool has less than 2^31 blocks");
        FreeList {
            stack: Vec::new(),
            untouched: 1..num_gpu_blocks,
            ring: vec![HOLE; 64],
            head: 0,
            tail: 0,
            queued: 0,
            places: vec![0; num_gpu_blocks as usize],
        }
    }

    pub(super) fn len(&self) -> u32 {
        self.stack.len() as u32 + self.untouched.len() as u32 + self.queued
    }

    /// Moves the next `count` blocks into `taken`. `evicted` hears of those that the table knows. Returns how
    /// many were cached.
    ///
    /// # Panics
    /// If fewer are free: the caller checks first.
    pub(super) fn take(
        &mut self,
        count: u32,
        taken: &mut Vec<BlockId>,
        mut evicted: impl FnMut(BlockId),
    ) -> u32 {
        assert!(count <= self.len(), "a block was taken from an empty free list");
        let mut left = count as usize;
        let from_stack = left.min(self.stack.len());
        if from_stack > 0 {
            taken.extend(self.stack.drain(self.stack.len() - from_stack..).rev());
            left -= from_stack;
        }
        let from_untouched = left.min(self.untouched.len());
        taken.extend(self.untouched.by_ref().take(from_untouched));
        left -= from_untouched;
        let cached = left as u32;
        self.queued -= cached;
        let mask = self.ring.len() as u64 - 1;
        while left > 0 {
            // Up to the end of the ring's memory entries lie side by side.
            let from = (self.head & mask) as usize;
            let stretch = &self.ring[from..self.ring.len().min(from + left)];
            let plain =
                stretch.iter().fold(true, |plain, &entry| plain & (entry.wrapping_sub(1) < IN_TABLE - 1));
            self.head += stretch.len() as u64;
            if plain {
                taken.extend_from_slice(stretch);
                left -= stretch.len();
                continue;
            }
            for &entry in stretch.iter().filter(|&&entry| entry != HOLE) {
                let block = entry & !IN_TABLE;
                if entry != block {
                    evicted(block);
                }
                taken.push(block);
                left -= 1;
            }
        }
        cached
    }

    /// Takes the next block. `evicted` hears of it if the table knows it. Returns it, and whether it was cached.
    ///
    /// # Panics
    /// If none is free: the caller checks first.
    pub(super) fn take_one(&mut self, evicted: impl FnOnce(BlockId)) -> (BlockId, bool) {
        if let Some(block) = self.stack.pop().or_else(|| self.untouched.next()) {
            return (block, false);
        }
        assert!(self.queued > 0, "a block was taken from an empty free list");
        let mask = self.ring.len() as u64 - 1;
        loop {
            let entry = self.ring[(self.head & mask) as usize];
            self.head += 1;
            if entry != HOLE {
                self.queued -= 1;
                let block = entry & !IN_TABLE;
                if entry != block {
                    evicted(block);
                }
                return (block, true);
            }
        }
    }

    /// Whether the table knows any of the next `count` blocks.
    pub(super) fn next_in_table(&self, count: u32) -> bool {
        let from_queue = (count as usize).saturating_sub(self.stack.len() + self.untouched.len());
        self.entries().take(from_queue).any(|entry| entry & IN_TABLE != 0)
    }

    /// Returns an uncached block: it is the next to be taken.
    pub(super) fn prepend(&mut self, block: BlockId) {
        self.stack.push(block);
    }

    /// Returns cached blocks that the table does not know, the last of `blocks` first.
    pub(super) fn append_reversed(&mut self, blocks: &[BlockId]) {
        self.make_room(blocks.len());
        let from = (self.tail & (self.ring.len() as u64 - 1)) as usize;
        // What does not fit behind the tail goes to the start of the ring's memory.
        let (wrapped, behind) = self.ring.split_at_mut(from);
        let (late, early) = blocks.split_at(blocks.len().saturating_sub(behind.len()));
        behind.iter_mut().zip(early.iter().rev()).for_each(|(place, &block)| *place = block);
        wrapped.iter_mut().zip(late.iter().rev()).for_each(|(place, &block)| *place = block);
        self.tail += blocks.len() as u64;
        self.queued += blocks.len() as u32;
    }

    /// Returns a block that the table knows.
    pub(super) fn append_from_table(&mut self, block: BlockId) {
        self.make_room(1);
        let mask = self.ring.len() as u64 - 1;
        self.ring[(self.tail & mask) as usize] = block | IN_TABLE;
        self.places[block as usize] = self.tail;
        self.tail += 1;
        self.queued += 1;
    }

    /// Takes out a block that [`FreeList::append_from_table`] put in and nobody has taken since.
    pub(super) fn remove(&mut self, block: BlockId) {
        let mask = self.ring.len() as u64 - 1;
        let place = (self.places[block as usize] & mask) as usize;
        debug_assert_eq!(self.ring[place], block | IN_TABLE, "block {block} is not where it was put");
        self.ring[place] = HOLE;
        self.queued -= 1;
    }

    /// Makes room for `count` more entries: holes are squeezed out, and the ring doubles where that is not enough.
    fn make_room(&mut self, count: usize) {
        let capacity = self.ring.len();
        if (self.tail - self.head) as usize + count <= capacity {
            return;
        }
        let live: Vec<u32> = self.entries().collect();
        let mut wanted = capacity;
        // At least half of the ring is free afterwards, so this work is paid by the entries it makes room for.
        while (live.len() + count) * 2 > wanted {
            wanted *= 2;
        }
        self.ring.clear();
        self.ring.extend_from_slice(&live);
        self.ring.resize(wanted, HOLE);
        (self.head, self.tail) = (0, live.len() as u64);
        for (place, entry) in live.into_iter().enumerate() {
            if entry & IN_TABLE != 0 {
                self.places[(entry & !IN_TABLE) as usize] = place as u64;
            }
        }
    }

    fn entries(&self) -> impl Iterator<Item = u32> + '_ {
        let mask = self.ring.len() as u64 - 1;
        (self.head..self.tail).map(move |place| self.ring[(place & mask) as usize]).filter(|&e| e != HOLE)
    }

    /// The free blocks, next to be taken first.
    pub(super) fn iter(&self) -> impl Iterator<Item = BlockId> + '_ {
        let queue = self.entries().map(|entry| entry & !IN_TABLE);
        self.stack.iter().rev().copied().chain(self.untouched.clone()).chain(queue)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use proptest::prelude::*;

    use super::*;

    /// What a request may do to the free list.
    #[derive(Clone, Debug)]
    enum Deed {
        Take(u32),
        /// Give back the request taken this many takes ago, of its blocks this share cached and this in the table.
        Return {
            which: usize,
            cached_percent: usize,
            table_percent: usize,
        },
        /// A prefix hit on one of the table's free blocks.
        Hit(usize),
    }

    fn deeds() -> impl Strategy<Value = Vec<Deed>> {
        let deed = prop_oneof![
            3 => prop_oneof![Just(1u32), 0u32..40].prop_map(Deed::Take),
            3 => (any::<usize>(), 0usize..=100, 0usize..=100).prop_map(|(which, cached_percent, table_percent)| {
                Deed::Return { which, cached_percent, table_percent }
            }),
            2 => any::<usize>().prop_map(Deed::Hit),
        ];
        prop::collection::vec(deed, 1..300)
    }

    proptest! {
        /// The judge is vLLM's own form: one list, blocks joining at its two ends and leaving from anywhere.
        #[test]
        fn it_is_one_list(blocks in 2u32..400, deeds in deeds()) {
            let mut list = FreeList::new(blocks);
            let mut judge: VecDeque<(BlockId, bool, bool)> = (1..blocks).map(|block| (block, false, false)).collect();
            let mut held: Vec<Vec<BlockId>> = Vec::new();
            for deed in deeds {
                match deed {
                    Deed::Take(count) => {
                        let count = count.min(list.len());
                        let (mut taken, mut evicted) = (Vec::new(), Vec::new());
                        let cached = match count {
                            1 => {
                                let (block, cached) = list.take_one(|block| evicted.push(block));
                                taken.push(block);
                                u32::from(cached)
                            }
                            _ => list.take(count, &mut taken, |block| evicted.push(block)),
                        };
                        let expected: Vec<_> = judge.drain(..count as usize).collect();
                        prop_assert_eq!(&taken, &expected.iter().map(|&(block, ..)| block).collect::<Vec<_>>());
                        prop_assert_eq!(cached as usize, expected.iter().filter(|entry| entry.1).count());
                        let known: Vec<_> = expected.iter().filter(|entry| entry.2).map(|entry| entry.0).collect();
                        prop_assert_eq!(evicted, known);
                        held.push(taken);
                    }
                    Deed::Return { which, cached_percent, table_percent } if !held.is_empty() => {
                        let request = held.remove(which % held.len());
                        let (cached, uncached) = request.split_at(request.len() * cached_percent / 100);
                        let (in_table, private) = cached.split_at(cached.len() * table_percent / 100);
                        for &block in uncached {
                            list.prepend(block);
                            judge.push_front((block, false, false));
                        }
                        list.append_reversed(private);
                        judge.extend(private.iter().rev().map(|&block| (block, true, false)));
                        for &block in in_table.iter().rev() {
                            list.append_from_table(block);
                            judge.push_back((block, true, true));
                        }
                    }
                    Deed::Hit(which) => {
                        let known: Vec<usize> =
                            judge.iter().enumerate().filter(|(_, entry)| entry.2).map(|(place, _)| place).collect();
                        if known.is_empty() {
                            continue;
                        }
                        let (block, ..) = judge.remove(known[which % known.len()]).unwrap();
                        list.remove(block);
                        held.push(vec![block]);
                    }
                    Deed::Return { .. } => {}
                }
                prop_assert_eq!(list.len() as usize, judge.len());
                prop_assert!(list.iter().eq(judge.iter().map(|&(block, ..)| block)));
            }
        }
    }
}
