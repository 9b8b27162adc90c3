//! The prefix-cache table: which block holds the content with this key?
//!
//! Knows blocks, keys and references. Does not know the free list.
//!
//! A hash table of its own, because a prompt of 13,000 tokens asks, enters and evicts eight hundred blocks: places
//! hold the number of a block alone, and its key stands with its references, so that a whole table stays in
//! a processor's cache. Keys are well mixed already, so the place is their low bits, and the next free one behind.

use super::block_keys::BlockKey;
use super::free_list::BlockId;

/// No block: an empty place, the end of a list.
const NONE: BlockId = 0;

/// A block of the table.
#[derive(Clone, Copy, Debug, Default)]
struct Block {
    key: Option<BlockKey>,
    references: u32,
    /// Neighbours among the blocks of the same key, in order of registration.
    twin_previous: BlockId,
    twin_next: BlockId,
    /// The last of these; kept with the first.
    twin_last: BlockId,
}

/// Blocks that can be found by their content.
#[derive(Clone, Debug)]
pub(super) struct PrefixTable {
    /// By block; meaningful for those in the table.
    blocks: Vec<Block>,
    /// The first block of each key: at the key's place, or behind it with no empty place in between. At least
    /// half of the places are empty.
    places: Vec<BlockId>,
    /// How often a block was registered or evicted: while it stands still, look-ups give the same.
    changes: u64,
}

impl PrefixTable {
    pub(super) fn new(num_gpu_blocks: u32) -> PrefixTable {
        PrefixTable {
            blocks: vec![Block::default(); num_gpu_blocks as usize],
            places: vec![NONE; (2 * num_gpu_blocks as usize).next_power_of_two()],
            changes: 0,
        }
    }

    /// Blocks of the pool, the null block included.
    pub(super) fn len(&self) -> u32 {
        self.blocks.len() as u32
    }

    pub(super) fn changes(&self) -> u64 {
        self.changes
    }

    pub(super) fn holds(&self, block: BlockId) -> bool {
        self.blocks[block as usize].key.is_some()
    }

    /// The block with this key that was registered first.
    pub(super) fn find(&self, key: BlockKey) -> Option<BlockId> {
        let block = self.places[self.place_of(key)];
        (block != NONE).then_some(block)
    }

    /// The place of a key, or the empty one where it would go.
    fn place_of(&self, key: BlockKey) -> usize {
        let mask = self.places.len() - 1;
        let mut place = key.get() as usize & mask;
        loop {
            let block = self.places[place];
            if block == NONE || self.blocks[block as usize].key == Some(key) {
                return place;
            }
            place = (place + 1) & mask;
        }
    }

    /// A block that one request holds is found under `key` from here on, behind others of the same key.
    pub(super) fn add(&mut self, block: BlockId, key: BlockKey) {
        debug_assert!(!self.holds(block), "a block has at most one key (law 2)");
        self.changes += 1;
        let place = self.place_of(key);
        let first = self.places[place];
        let mut entry = Block { key: Some(key), references: 1, twin_last: block, ..Block::default() };
        if first == NONE {
            self.places[place] = block;
        } else {
            let last = std::mem::replace(&mut self.blocks[first as usize].twin_last, block);
            self.blocks[last as usize].twin_next = block;
            entry.twin_previous = last;
        }
        self.blocks[block as usize] = entry;
    }

    /// A block is not found any more.
    pub(super) fn remove(&mut self, block: BlockId) {
        self.changes += 1;
        let entry = self.blocks[block as usize];
        let Some(key) = entry.key else { return };
        let (before, after) = (entry.twin_previous, entry.twin_next);
        if after != NONE {
            self.blocks[after as usize].twin_previous = before;
        }
        if before != NONE {
            self.blocks[before as usize].twin_next = after;
            if after == NONE {
                let first = self.places[self.place_of(key)];
                self.blocks[first as usize].twin_last = before;
            }
        } else {
            let place = self.place_of(key);
            if after == NONE {
                self.vacate(place);
            } else {
                self.places[place] = after;
                self.blocks[after as usize].twin_last = entry.twin_last;
            }
        }
        self.blocks[block as usize] = Block::default();
    }

    /// Empties a place; those behind it that would not be found any more move up.
    fn vacate(&mut self, mut hole: usize) {
        let mask = self.places.len() - 1;
        let mut place = hole;
        loop {
            place = (place + 1) & mask;
            let block = self.places[place];
            if block == NONE {
                break;
            }
            let home = self.blocks[block as usize].key.map_or(place, |key| key.get() as usize & mask);
            // It may move up to its home, but not further.
            if place.wrapping_sub(home) & mask >= place.wrapping_sub(hole) & mask {
                self.places[hole] = block;
                hole = place;
            }
        }
        self.places[hole] = NONE;
    }

    /// How many requests refer to a block of the table.
    pub(super) fn references(&self, block: BlockId) -> u32 {
        self.blocks[block as usize].references
    }

    /// One request more refers to it; returns how many did.
    pub(super) fn refer(&mut self, block: BlockId) -> u32 {
        let references = &mut self.blocks[block as usize].references;
        *references += 1;
        *references - 1
    }

    /// One request less refers to it; returns how many still do.
    pub(super) fn unrefer(&mut self, block: BlockId) -> u32 {
        let references = &mut self.blocks[block as usize].references;
        *references -= 1;
        *references
    }

    /// Law 2: a block of the table is found under its own key.
    ///
    /// # Panics
    /// Where that is broken.
    pub(super) fn check(&self) {
        for (number, block) in self.blocks.iter().enumerate().skip(1) {
            let Some(key) = block.key else { continue };
            let mut twin = self.find(key).unwrap_or(NONE);
            while twin != NONE && twin as usize != number {
                twin = self.blocks[twin as usize].twin_next;
            }
            assert_eq!(twin as usize, number, "law 2: block {number} is not found under its key");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// The judge keeps a list a key. Keys are few and their low bits fewer, so that places are contended.
        #[test]
        fn it_finds_the_first_of_each_key(deeds in prop::collection::vec((1u32..40, 1u64..12), 1..400)) {
            let mut table = PrefixTable::new(40);
            let mut judge: BTreeMap<u64, Vec<BlockId>> = BTreeMap::new();
            for (block, number) in deeds {
                // Many keys share a place, at the end of the table too.
                let number = (number % 4 + 126) | number << 40;
                let key = BlockKey::new(number).unwrap();
                if table.holds(block) {
                    table.remove(block);
                    judge.values_mut().for_each(|twins| twins.retain(|&twin| twin != block));
                } else {
                    table.add(block, key);
                    judge.entry(number).or_default().push(block);
                }
                for (&number, twins) in &judge {
                    prop_assert_eq!(table.find(BlockKey::new(number).unwrap()), twins.first().copied());
                }
                table.check();
            }
        }
    }
}
