//! The KV-cache blocks of one engine: the pool, and the prefix-cache table.
//!
//! Knows blocks, references and keys. Does not know requests, queues or budgets.
//!
//! After vLLM 0.24 `vllm/v1/core/block_pool.py` and `single_type_kv_cache_manager.py`: the free list holds
//! every block that nobody refers to, and is the allocator and the LRU order in one. A cached block stays
//! valid in it until it is taken.
//!
//! Where vLLM puts every full block into its table, here only those enter that another request could ask for:
//! blocks whose tokens all carry an identity, and the private ones of a preempted request, which it may find
//! again itself. A block outside the table has one holder at most, who knows whether it is full, so the pool
//! keeps nothing about it but its place in the free list.

use rustc_hash::FxHashMap;

use super::block_keys::BlockKey;
pub(crate) use super::free_list::BlockId;
use super::free_list::FreeList;

/// No block: the end of a list.
const NONE: BlockId = 0;

/// A block of the table.
#[derive(Clone, Debug, Default)]
struct Block {
    references: u32,
    key: Option<BlockKey>,
    /// Neighbours among the blocks of the same key, in order of registration.
    twin_previous: BlockId,
    twin_next: BlockId,
}

/// The blocks that share one key, in order of registration.
#[derive(Clone, Copy, Debug)]
struct Twins {
    first: BlockId,
    last: BlockId,
}

#[derive(Clone, Debug)]
pub(super) struct KvCache {
    num_gpu_blocks: u32,
    free: FreeList,
    table: Table,
    evictions: u64,
}

/// Blocks that can be found by their content.
#[derive(Clone, Debug)]
struct Table {
    /// By block, as far as blocks have ever been in the table; meaningful for those that are.
    blocks: Vec<Block>,
    /// Looked up and changed, never walked, so its order cannot show.
    by_key: FxHashMap<BlockKey, Twins>,
    /// How often a block was registered or evicted: while it stands still, look-ups give the same.
    changes: u64,
}

/// The blocks that a request holds, and what of them is known to whom: the leading `in_table` are in the
/// table, the leading `registered` are full and cached, the others partial or not cached.
#[derive(Clone, Copy, Debug)]
pub(super) struct Held<'a> {
    pub(super) blocks: &'a [BlockId],
    pub(super) in_table: u32,
    pub(super) registered: u32,
}

impl KvCache {
    /// A pool of `num_gpu_blocks` blocks, the null block included; the free list is 1, 2, 3, ...
    pub(super) fn new(num_gpu_blocks: u32) -> KvCache {
        KvCache {
            num_gpu_blocks,
            free: FreeList::new(num_gpu_blocks),
            table: Table { blocks: Vec::new(), by_key: FxHashMap::default(), changes: 0 },
            evictions: 0,
        }
    }

    pub(super) fn free_count(&self) -> u32 {
        self.free.len()
    }

    pub(super) fn usable_count(&self) -> u32 {
        self.num_gpu_blocks - 1
    }

    /// Cached blocks lost so far because they were taken from the free list.
    pub(super) fn evictions(&self) -> u64 {
        self.evictions
    }

    /// The free list, next to be taken first.
    pub(super) fn free_list(&self) -> Vec<BlockId> {
        self.free.iter().collect()
    }

    /// While this number stands still, [`KvCache::look_up`] answers the same.
    pub(super) fn table_changes(&self) -> u64 {
        self.table.changes
    }

    /// The block with this key. Among several the one registered first serves. Changes no order.
    pub(super) fn look_up(&self, key: BlockKey) -> Option<BlockId> {
        self.table.by_key.get(&key).map(|twins| twins.first)
    }

    /// How many of these blocks nobody refers to, so that touching them takes them off the free list.
    pub(super) fn count_evictable(&self, hits: &[BlockId]) -> u32 {
        hits.iter().filter(|&&hit| self.table.blocks[hit as usize].references == 0).count() as u32
    }

    /// One more reference to each of these blocks of the table.
    pub(super) fn touch(&mut self, hits: &[BlockId]) {
        for &block in hits {
            let entry = &mut self.table.blocks[block as usize];
            if entry.references == 0 {
                self.free.remove(block);
            }
            entry.references += 1;
        }
    }

    /// Moves the next `count` free blocks to the end of `blocks`; what they cached is lost.
    ///
    /// # Panics
    /// If fewer are free: the caller checks first.
    pub(super) fn take(&mut self, count: u32, blocks: &mut Vec<BlockId>) {
        let table = &mut self.table;
        self.evictions += u64::from(self.free.take(count, blocks, |block| table.remove(block)));
    }

    /// The same for one block.
    pub(super) fn take_one(&mut self, blocks: &mut Vec<BlockId>) {
        let table = &mut self.table;
        let (block, cached) = self.free.take_one(|block| table.remove(block));
        self.evictions += u64::from(cached);
        blocks.push(block);
    }

    /// Whether taking `count` blocks would change what look-ups find.
    pub(super) fn would_evict_from_table(&self, count: u32) -> bool {
        self.free.next_in_table(count)
    }

    /// Puts a full block of one holder into the table, behind others of the same key.
    pub(super) fn register(&mut self, block: BlockId, key: BlockKey) {
        self.table.add(block, key);
    }

    /// Drops one reference to each block of a request, last block first.
    ///
    /// Those left without any join the free list: uncached ones at its head, the first met becoming the new
    /// head, cached ones at its tail. So a partial last block is reused at once, and of a request's cached
    /// blocks the deepest goes first.
    pub(super) fn release(&mut self, held: Held<'_>) {
        let (cached, uncached) = held.blocks.split_at(held.registered as usize);
        let (in_table, private) = cached.split_at(held.in_table as usize);
        for &block in uncached {
            self.free.prepend(block);
        }
        self.free.append_reversed(private);
        for &block in in_table.iter().rev() {
            let entry = &mut self.table.blocks[block as usize];
            entry.references -= 1;
            if entry.references == 0 {
                self.free.append_from_table(block);
            }
        }
    }

    /// Law 2: free + distinct referenced = N - 1; the references are those the given tables hold; a block is
    /// found under its own key.
    ///
    /// # Panics
    /// Where the law is broken.
    pub(super) fn check<'a>(&self, tables: impl Iterator<Item = Held<'a>>) {
        let mut references = vec![0u32; self.num_gpu_blocks as usize];
        for held in tables {
            assert!(held.in_table <= held.registered && held.registered as usize <= held.blocks.len());
            for (index, &block) in held.blocks.iter().enumerate() {
                references[block as usize] += 1;
                let in_table = self.table.blocks.get(block as usize).is_some_and(|block| block.key.is_some());
                assert_eq!(in_table, index < held.in_table as usize, "law 2: block {block} in the table");
            }
        }
        let free = self.free_list();
        assert_eq!(free.len(), self.free.len() as usize, "law 2: the free list has lost count");
        for block in &free {
            assert_eq!(references[*block as usize], 0, "law 2: block {block} is free and referred to");
        }
        let referenced = references.iter().filter(|&&count| count > 0).count();
        assert_eq!(free.len() + referenced, self.usable_count() as usize, "law 2: free + referenced = N - 1");
        for (number, block) in self.table.blocks.iter().enumerate().skip(1) {
            let Some(key) = block.key else {
                assert!(references[number] <= 1, "law 2: block {number} has two holders outside the table");
                continue;
            };
            assert_eq!(block.references, references[number], "law 2: references of block {number}");
            let mut twin = self.table.by_key.get(&key).map_or(NONE, |twins| twins.first);
            while twin != NONE && twin as usize != number {
                twin = self.table.blocks[twin as usize].twin_next;
            }
            assert_eq!(twin as usize, number, "law 2: block {number} is not found under its key");
        }
    }
}

impl Table {
    fn add(&mut self, block: BlockId, key: BlockKey) {
        if self.blocks.len() <= block as usize {
            self.blocks.resize(block as usize + 1, Block::default());
        }
        debug_assert!(self.blocks[block as usize].key.is_none(), "a block has at most one key (law 2)");
        self.changes += 1;
        let twins = self.by_key.entry(key).or_insert(Twins { first: NONE, last: NONE });
        let before = twins.last;
        twins.last = block;
        if before == NONE {
            twins.first = block;
        } else {
            self.blocks[before as usize].twin_next = block;
        }
        self.blocks[block as usize] =
            Block { references: 1, key: Some(key), twin_previous: before, twin_next: NONE };
    }

    fn remove(&mut self, block: BlockId) {
        self.changes += 1;
        let entry = std::mem::take(&mut self.blocks[block as usize]);
        let Some(key) = entry.key else { return };
        let (before, after) = (entry.twin_previous, entry.twin_next);
        if before != NONE {
            self.blocks[before as usize].twin_next = after;
        }
        if after != NONE {
            self.blocks[after as usize].twin_previous = before;
        }
        if before == NONE && after == NONE {
            self.by_key.remove(&key);
        } else if let Some(twins) = self.by_key.get_mut(&key) {
            if before == NONE {
                twins.first = after;
            }
            if after == NONE {
                twins.last = before;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU64;

    use super::*;

    fn key(number: u64) -> BlockKey {
        NonZeroU64::new(number).unwrap()
    }

    fn take(cache: &mut KvCache, count: u32) -> Vec<BlockId> {
        let mut blocks = Vec::new();
        cache.take(count, &mut blocks);
        blocks
    }

    #[test]
    fn uncached_blocks_go_to_the_head_cached_ones_to_the_tail() {
        let mut cache = KvCache::new(8);
        let blocks = take(&mut cache, 4);
        assert_eq!(blocks, [1, 2, 3, 4]);
        cache.register(1, key(10));
        cache.release(Held { blocks: &blocks, in_table: 1, registered: 2 });
        assert_eq!(cache.free_list(), [4, 3, 5, 6, 7, 2, 1]);
        cache.check(std::iter::empty());
    }

    #[test]
    fn the_first_registered_of_equal_blocks_serves_until_it_is_evicted() {
        let mut cache = KvCache::new(4);
        let (a, b) = (take(&mut cache, 1), take(&mut cache, 1));
        cache.register(a[0], key(7));
        cache.register(b[0], key(7));
        assert_eq!((cache.look_up(key(7)), cache.look_up(key(8))), (Some(a[0]), None));
        cache.release(Held { blocks: &a, in_table: 1, registered: 1 });
        assert_eq!(take(&mut cache, 2), [3, a[0]]);
        assert_eq!(cache.look_up(key(7)), Some(b[0]));
        assert_eq!(cache.evictions(), 1);
    }
}
