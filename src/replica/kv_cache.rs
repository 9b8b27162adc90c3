//! The KV-cache blocks of one engine: the pool, its free list, and the prefix-cache table.
//!
//! Knows blocks, reference counts and keys. Does not know requests, queues or budgets.
//!
//! After vLLM 0.24 `vllm/v1/core/block_pool.py` and `single_type_kv_cache_manager.py`: the free list holds
//! every block that nobody refers to, and is the allocator and the LRU order in one. A cached block stays
//! valid in it until it is taken from its head.

use std::num::NonZeroU64;

use rustc_hash::FxHashMap;

use crate::random::mix;
use crate::request::{Content, RequestId};

/// A block of the pool. Block 0 is the null block and never used.
pub(crate) type BlockId = u32;

/// Identity of a full block's content and of everything before it.
pub(super) type BlockKey = NonZeroU64;

/// No block: the end of a list.
const NONE: BlockId = 0;

#[derive(Clone, Debug, Default)]
struct Block {
    references: u32,
    key: Option<BlockKey>,
    /// Neighbours in the free list.
    free_previous: BlockId,
    free_next: BlockId,
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
    blocks: Vec<Block>,
    free_first: BlockId,
    free_last: BlockId,
    free_count: u32,
    /// Looked up and changed, never walked, so its order cannot show.
    table: FxHashMap<BlockKey, Twins>,
    prefix_caching: bool,
    evictions: u64,
    /// Reused by `release`.
    uncached: Vec<BlockId>,
}

impl KvCache {
    /// A pool of `num_gpu_blocks` blocks, the null block included; the free list is 1, 2, 3, ...
    pub(super) fn new(num_gpu_blocks: u32, prefix_caching: bool) -> KvCache {
        let mut cache = KvCache {
            blocks: vec![Block::default(); num_gpu_blocks as usize],
            free_first: NONE,
            free_last: NONE,
            free_count: 0,
            table: FxHashMap::default(),
            prefix_caching,
            evictions: 0,
            uncached: Vec::new(),
        };
        for block in 1..num_gpu_blocks {
            cache.append_free(block);
        }
        cache
    }

    pub(super) fn free_count(&self) -> u32 {
        self.free_count
    }

    pub(super) fn usable_count(&self) -> u32 {
        self.blocks.len() as u32 - 1
    }

    /// Cached blocks lost so far because they were taken from the free list.
    pub(super) fn evictions(&self) -> u64 {
        self.evictions
    }

    /// The free list, next to be taken first.
    pub(super) fn free_list(&self) -> Vec<BlockId> {
        let mut list = Vec::with_capacity(self.free_count as usize);
        let mut block = self.free_first;
        while block != NONE {
            list.push(block);
            block = self.blocks[block as usize].free_next;
        }
        list
    }

    /// Appends to `hits` the blocks that hold the leading keys, up to the first one not in the table.
    /// Among blocks of one key the one registered first serves. Changes no order.
    pub(super) fn look_up(&self, keys: &[BlockKey], hits: &mut Vec<BlockId>) {
        for key in keys {
            let Some(twins) = self.table.get(key) else { break };
            hits.push(twins.first);
        }
    }

    /// How many of these blocks nobody refers to, so that touching them takes them off the free list.
    pub(super) fn count_evictable(&self, hits: &[BlockId]) -> u32 {
        hits.iter().filter(|&&hit| self.blocks[hit as usize].references == 0).count() as u32
    }

    /// One more reference to a cached block.
    pub(super) fn touch(&mut self, block: BlockId) {
        if self.blocks[block as usize].references == 0 {
            self.unlink_free(block);
        }
        self.blocks[block as usize].references += 1;
    }

    /// Takes the block at the head of the free list; what it cached is lost.
    ///
    /// # Panics
    /// If the list is empty: the caller checks first.
    pub(super) fn take(&mut self) -> BlockId {
        let block = self.free_first;
        assert_ne!(block, NONE, "a block was taken from an empty free list");
        self.unlink_free(block);
        if self.blocks[block as usize].key.is_some() {
            self.unregister(block);
            self.evictions += 1;
        }
        self.blocks[block as usize].references = 1;
        block
    }

    /// Puts a full block into the prefix-cache table, behind others of the same key.
    pub(super) fn register(&mut self, block: BlockId, key: BlockKey) {
        debug_assert!(self.prefix_caching);
        debug_assert!(self.blocks[block as usize].key.is_none(), "a block has at most one key (law 2)");
        let twins = self.table.entry(key).or_insert(Twins { first: NONE, last: NONE });
        let before = twins.last;
        twins.last = block;
        if before == NONE {
            twins.first = block;
        } else {
            self.blocks[before as usize].twin_next = block;
        }
        let entry = &mut self.blocks[block as usize];
        entry.key = Some(key);
        entry.twin_previous = before;
        entry.twin_next = NONE;
    }

    /// Drops one reference to each block of a request, last block first.
    ///
    /// Those left without any join the free list: uncached ones at its head, the first met becoming the new
    /// head, cached ones at its tail. So a partial last block is reused at once, and of a request's cached
    /// blocks the deepest goes first.
    pub(super) fn release(&mut self, blocks: &[BlockId]) {
        let mut uncached = std::mem::take(&mut self.uncached);
        for &block in blocks.iter().rev() {
            let entry = &mut self.blocks[block as usize];
            entry.references -= 1;
            if entry.references > 0 {
                continue;
            }
            if entry.key.is_some() {
                self.append_free(block);
            } else {
                uncached.push(block);
            }
        }
        for block in uncached.drain(..).rev() {
            self.prepend_free(block);
        }
        self.uncached = uncached;
    }

    fn unregister(&mut self, block: BlockId) {
        let entry = &mut self.blocks[block as usize];
        let Some(key) = entry.key.take() else { return };
        let (before, after) = (entry.twin_previous, entry.twin_next);
        entry.twin_previous = NONE;
        entry.twin_next = NONE;
        if before != NONE {
            self.blocks[before as usize].twin_next = after;
        }
        if after != NONE {
            self.blocks[after as usize].twin_previous = before;
        }
        if before == NONE && after == NONE {
            self.table.remove(&key);
        } else if let Some(twins) = self.table.get_mut(&key) {
            if before == NONE {
                twins.first = after;
            }
            if after == NONE {
                twins.last = before;
            }
        }
    }

    fn append_free(&mut self, block: BlockId) {
        let last = self.free_last;
        let entry = &mut self.blocks[block as usize];
        entry.free_previous = last;
        entry.free_next = NONE;
        if last == NONE {
            self.free_first = block;
        } else {
            self.blocks[last as usize].free_next = block;
        }
        self.free_last = block;
        self.free_count += 1;
    }

    fn prepend_free(&mut self, block: BlockId) {
        let first = self.free_first;
        let entry = &mut self.blocks[block as usize];
        entry.free_previous = NONE;
        entry.free_next = first;
        if first == NONE {
            self.free_last = block;
        } else {
            self.blocks[first as usize].free_previous = block;
        }
        self.free_first = block;
        self.free_count += 1;
    }

    fn unlink_free(&mut self, block: BlockId) {
        let (before, after) = {
            let entry = &self.blocks[block as usize];
            (entry.free_previous, entry.free_next)
        };
        if before == NONE {
            self.free_first = after;
        } else {
            self.blocks[before as usize].free_next = after;
        }
        if after == NONE {
            self.free_last = before;
        } else {
            self.blocks[after as usize].free_previous = before;
        }
        self.free_count -= 1;
    }

    /// Law 2: free + distinct referenced = N - 1; the references are those the given tables hold; a block is
    /// found under its own key.
    ///
    /// # Panics
    /// Where the law is broken.
    pub(super) fn check<'a>(&self, tables: impl Iterator<Item = &'a [BlockId]>) {
        let mut references = vec![0u32; self.blocks.len()];
        for block in tables.flatten() {
            references[*block as usize] += 1;
        }
        let free = self.free_list();
        assert_eq!(free.len(), self.free_count as usize, "law 2: the free list has lost count");
        for block in &free {
            assert_eq!(references[*block as usize], 0, "law 2: block {block} is free and referred to");
        }
        let referenced = references.iter().filter(|&&count| count > 0).count();
        assert_eq!(free.len() + referenced, self.blocks.len() - 1, "law 2: free + referenced = N - 1");
        for (number, block) in self.blocks.iter().enumerate().skip(1) {
            assert_eq!(block.references, references[number], "law 2: references of block {number}");
            if let Some(key) = block.key {
                let mut twin = self.table.get(&key).map_or(NONE, |twins| twins.first);
                while twin != NONE && twin as usize != number {
                    twin = self.blocks[twin as usize].twin_next;
                }
                assert_eq!(twin as usize, number, "law 2: block {number} is not found under its key");
            }
        }
    }
}

/// The keys of a request's full blocks, made one after the other.
///
/// A key covers the chain of everything before it, so equal keys mean equal whole prefixes. Keys are 64 bits
/// of a well-mixed chain where vLLM takes 256: among the 10^5 blocks of a pool the chance of a false hit is
/// about 10^-9 for a run of 10^5 look-ups.
#[derive(Clone, Debug)]
pub(super) struct KeyChain {
    block_size: u32,
    private_stream: u64,
    run: usize,
    /// Tokens of the current run (or of the private stream behind the last run) already covered.
    offset: u32,
    last: u64,
}

impl KeyChain {
    pub(super) fn new(block_size: u32, request: RequestId) -> KeyChain {
        KeyChain { block_size, private_stream: Content::private_stream(request), run: 0, offset: 0, last: 0 }
    }

    /// The key of the next full block of `content`.
    pub(super) fn next(&mut self, content: &Content) -> BlockKey {
        let runs = content.runs();
        let mut left = self.block_size;
        let mut key = mix(self.last ^ u64::from(self.block_size));
        while left > 0 {
            let (stream, position, tokens) = match runs.get(self.run) {
                Some(run) => {
                    let tokens = left.min(run.tokens - self.offset);
                    let piece = (run.stream, run.position + self.offset, tokens);
                    self.offset += tokens;
                    if self.offset == run.tokens {
                        self.run += 1;
                        self.offset = 0;
                    }
                    piece
                }
                None => {
                    let piece = (self.private_stream, self.offset, left);
                    self.offset += left;
                    piece
                }
            };
            key = mix(key ^ mix(stream));
            key = mix(key ^ (u64::from(position) << 32 | u64::from(tokens)));
            left -= tokens;
        }
        self.last = key;
        NonZeroU64::new(key).unwrap_or(NonZeroU64::MIN)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::request::ContentRun;

    fn key(number: u64) -> BlockKey {
        NonZeroU64::new(number).unwrap()
    }

    #[test]
    fn uncached_blocks_go_to_the_head_cached_ones_to_the_tail() {
        let mut cache = KvCache::new(8, true);
        let blocks: Vec<BlockId> = (0..4).map(|_| cache.take()).collect();
        assert_eq!(blocks, [1, 2, 3, 4]);
        cache.register(1, key(10));
        cache.register(2, key(20));
        cache.release(&blocks);
        assert_eq!(cache.free_list(), [4, 3, 5, 6, 7, 2, 1]);
        cache.check(std::iter::empty());
    }

    #[test]
    fn the_first_registered_of_equal_blocks_serves_until_it_is_evicted() {
        let mut cache = KvCache::new(4, true);
        let (a, b) = (cache.take(), cache.take());
        cache.register(a, key(7));
        cache.register(b, key(7));
        let mut hits = Vec::new();
        cache.look_up(&[key(7), key(8)], &mut hits);
        assert_eq!(hits, [a]);
        cache.release(&[a]);
        assert_eq!([cache.take(), cache.take()], [3, a]);
        hits.clear();
        cache.look_up(&[key(7)], &mut hits);
        assert_eq!(hits, [b]);
        assert_eq!(cache.evictions(), 1);
    }

    #[test]
    fn keys_are_equal_exactly_as_long_as_the_prefix_is() {
        let content = |tail| {
            Content::from_runs([
                ContentRun { stream: 1, position: 0, tokens: 40 },
                ContentRun { stream: tail, position: 0, tokens: 60 },
            ])
        };
        let keys = |content: &Content, request| {
            let mut chain = KeyChain::new(16, RequestId(request));
            (0..8).map(|_| chain.next(content)).collect::<Vec<_>>()
        };
        let (a, b) = (keys(&content(2), 0), keys(&content(3), 0));
        assert_eq!(a[..2], b[..2]);
        assert!((2..8).all(|block| a[block] != b[block]));
        let other_request = keys(&content(2), 1);
        assert_eq!(a[..6], other_request[..6]);
        assert_ne!(a[6], other_request[6]);
    }
}
