//! The KV-cache blocks of one engine: the pool, and the prefix-cache table.
//!
//! Knows which blocks are free, which are held, and which can be found. Does not know requests, queues or budgets.
//!
//! After vLLM 0.24 `vllm/v1/core/block_pool.py` and `single_type_kv_cache_manager.py`: the free list holds
//! every block that nobody refers to, and is the allocator and the LRU order in one. A cached block stays
//! valid in it until it is taken.
//!
//! Where vLLM puts every full block into its table, here only those enter that another request could ask for:
//! blocks whose tokens all carry an identity, and the private ones of a preempted request, which it may find
//! again itself. A block outside the table has one holder at most, who knows whether it is full, so the pool
//! keeps nothing about it but its place in the free list.

use super::block_keys::BlockKey;
pub(crate) use super::free_list::BlockId;
use super::free_list::FreeList;
use super::kv_events::EventLog;
use super::prefix_table::{HeldSpan, Hits, PrefixTable};

#[derive(Clone, Debug)]
pub(super) struct KvCache {
    num_gpu_blocks: u32,
    free: FreeList,
    table: PrefixTable,
    evictions: u64,
    /// What it tells others of itself, if it does.
    pub(super) log: Option<Box<EventLog>>,
}

/// Blocks that a request holds, and what of them is known to whom.
#[derive(Clone, Debug, Default)]
pub(super) struct Holding {
    /// The block table.
    pub(super) blocks: Vec<BlockId>,
    /// Leading blocks that are full and cached.
    pub(super) registered: u32,
    /// Leading blocks that are in the prefix-cache table, where others find them.
    pub(super) in_table: u32,
    /// The same, as the table counts them.
    pub(super) spans: Vec<HeldSpan>,
}

impl Holding {
    /// Holds nothing any more; the memory is kept for whoever comes next.
    pub(super) fn clear(&mut self) {
        self.blocks.clear();
        self.spans.clear();
        (self.registered, self.in_table) = (0, 0);
    }
}

impl KvCache {
    /// A pool of `num_gpu_blocks` blocks, the null block included; the free list is 1, 2, 3, ...
    pub(super) fn new(num_gpu_blocks: u32) -> KvCache {
        let (free, table) = (FreeList::new(num_gpu_blocks), PrefixTable::default());
        KvCache { num_gpu_blocks, free, table, evictions: 0, log: None }
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
        self.table.changes()
    }

    /// Adds to `hits` the leading blocks of a span that can be found, `most` at most, and returns their number.
    /// Among blocks of the same content the one registered first serves. Changes no order.
    pub(super) fn look_up(&self, span: BlockKey, most: u32, hits: &mut Hits) -> u32 {
        self.table.look_up(span, most, hits)
    }

    /// How many leading blocks of a span a look-up would find, `most` at most.
    pub(super) fn count_found(&self, span: BlockKey, most: u32) -> u32 {
        self.table.count_found(span, most)
    }

    /// How many of these blocks nobody refers to, so that holding them takes them off the free list.
    pub(super) fn count_evictable(&self, hits: &Hits) -> u32 {
        self.table.count_free(hits)
    }

    /// Gives hits to a request that holds nothing yet.
    pub(super) fn hold(&mut self, hits: &Hits, held: &mut Holding) {
        if hits.blocks.is_empty() {
            return;
        }
        debug_assert!(held.blocks.is_empty(), "hits are the first blocks of a request");
        self.table.hold(hits, &mut self.free);
        held.blocks.extend_from_slice(&hits.blocks);
        held.spans.extend_from_slice(&hits.spans);
        (held.registered, held.in_table) = (hits.len(), hits.len());
    }

    /// Moves the next `count` free blocks to the end of `blocks`; what they cached is lost.
    ///
    /// # Panics
    /// If fewer are free: the caller checks first.
    pub(super) fn take(&mut self, count: u32, blocks: &mut Vec<BlockId>) {
        let (table, before) = (&mut self.table, blocks.len());
        self.evictions += u64::from(self.free.take(count, blocks, |evicted| table.evict(evicted)));
        if let Some(log) = &mut self.log {
            log.taken(&blocks[before..]);
        }
    }

    /// The same for one block.
    pub(super) fn take_one(&mut self, blocks: &mut Vec<BlockId>) {
        let table = &mut self.table;
        let (block, cached) = self.free.take_one(|evicted| table.evict(evicted));
        self.evictions += u64::from(cached);
        blocks.push(block);
        if let Some(log) = &mut self.log {
            log.taken(&[block]);
        }
    }

    /// Whether taking `count` blocks would change what look-ups find.
    pub(super) fn would_evict_from_table(&self, count: u32) -> bool {
        self.free.next_in_table(count)
    }

    /// Puts full blocks of one holder into the table, behind others of the same content: those that follow
    /// what it has there, up to block number `end`, which lie in the span that starts at block number `start`.
    pub(super) fn register(&mut self, span: BlockKey, start: u32, end: u32, held: &mut Holding) {
        let from = held.in_table;
        let blocks = &held.blocks[from as usize..end as usize];
        self.table.register(span, from - start, blocks, &mut held.spans, &mut self.free);
        held.in_table = end;
    }

    /// Drops one reference to each block of a request, last block first.
    ///
    /// Those left without any join the free list: uncached ones at its head, the first met becoming the new
    /// head, cached ones at its tail. So a partial last block is reused at once, and of a request's cached
    /// blocks the deepest goes first.
    pub(super) fn release(&mut self, held: &Holding) {
        let (cached, uncached) = held.blocks.split_at(held.registered as usize);
        let (in_table, private) = cached.split_at(held.in_table as usize);
        for &block in uncached {
            self.free.prepend(block);
        }
        self.free.append_reversed(private);
        self.table.release(&held.spans, in_table, &mut self.free);
    }

    /// Law 2: free + distinct referenced = N - 1; the references are those the given tables hold; what is in
    /// the table is found under its own key.
    ///
    /// # Panics
    /// Where the law is broken.
    pub(super) fn check<'a>(&self, tables: impl Iterator<Item = &'a Holding>) {
        let mut table_holders: Vec<Option<u32>> = vec![None; self.num_gpu_blocks as usize];
        for (block, holders) in self.table.check() {
            assert_eq!(
                table_holders[block as usize].replace(holders),
                None,
                "law 2: block {block} is there twice"
            );
        }
        let mut references = vec![0u32; self.num_gpu_blocks as usize];
        for held in tables {
            assert!(held.in_table <= held.registered && held.registered as usize <= held.blocks.len());
            assert_eq!(held.in_table, held.spans.iter().map(|span| span.blocks).sum::<u32>());
            for (index, &block) in held.blocks.iter().enumerate() {
                references[block as usize] += 1;
                let in_table = table_holders[block as usize].is_some();
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
        for (block, (&references, holders)) in references.iter().zip(table_holders).enumerate() {
            match holders {
                Some(holders) => assert_eq!(holders, references, "law 2: references of block {block}"),
                None => assert!(references <= 1, "law 2: block {block} has two holders outside the table"),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use proptest::prelude::*;

    use super::super::block_keys::{KeyChain, Span};
    use super::*;
    use crate::request::{Content, ContentRun, RequestId};

    const BLOCK_SIZE: u32 = 4;

    /// A request in the eyes of the cache alone.
    #[derive(Clone)]
    struct Holder {
        spans: Vec<Span>,
        /// Its blocks in the judge's eyes: each is known by the tokens up to its end.
        prefixes: Vec<Vec<(u64, u32)>>,
        held: Holding,
    }

    impl Holder {
        /// A request whose content consists of the given (stream, first position, tokens).
        fn new(runs: &[(u64, u32, u32)]) -> Holder {
            let run = |&(stream, position, tokens)| ContentRun { stream, position, tokens };
            let content = Content::from_runs(runs.iter().map(run));
            let full = content.tokens() / BLOCK_SIZE;
            let mut chain = KeyChain::new(BLOCK_SIZE, RequestId(0));
            let mut spans: Vec<Span> = Vec::new();
            while spans.last().map_or(0, |span| span.end) < full {
                spans.push(chain.next(&content));
            }
            let tokens: Vec<(u64, u32)> = content
                .runs()
                .iter()
                .flat_map(|run| (0..run.tokens).map(|token| (run.stream, run.position + token)))
                .collect();
            let prefixes = (1..=full).map(|block| tokens[..(block * BLOCK_SIZE) as usize].to_vec()).collect();
            Holder { spans, prefixes, held: Holding::default() }
        }

        fn look_up(&self, cache: &KvCache) -> Hits {
            let mut hits = Hits::default();
            for span in &self.spans {
                let most = span.end.min(self.prefixes.len() as u32) - span.start;
                if cache.look_up(span.key, most, &mut hits) < most {
                    break;
                }
            }
            hits
        }

        fn register(&mut self, cache: &mut KvCache, end: u32) {
            for span in &self.spans {
                if span.end > self.held.in_table && span.start < end {
                    cache.register(span.key, span.start, span.end.min(end), &mut self.held);
                }
            }
            self.held.registered = self.held.registered.max(end);
        }
    }

    fn taken(cache: &mut KvCache, runs: &[(u64, u32, u32)], blocks: u32) -> Holder {
        let mut holder = Holder::new(runs);
        cache.take(blocks, &mut holder.held.blocks);
        holder
    }

    #[test]
    fn uncached_blocks_go_to_the_head_cached_ones_to_the_tail() {
        let mut cache = KvCache::new(8);
        let mut holder = taken(&mut cache, &[(1, 0, 4)], 4);
        assert_eq!(holder.held.blocks, [1, 2, 3, 4]);
        holder.register(&mut cache, 1);
        holder.held.registered = 2;
        cache.release(&holder.held);
        assert_eq!(cache.free_list(), [4, 3, 5, 6, 7, 2, 1]);
        cache.check(std::iter::empty());
    }

    #[test]
    fn the_first_registered_of_equal_blocks_serves_until_it_is_evicted() {
        let mut cache = KvCache::new(4);
        let mut a = taken(&mut cache, &[(7, 0, 4)], 1);
        let mut b = taken(&mut cache, &[(7, 0, 4)], 1);
        a.register(&mut cache, 1);
        b.register(&mut cache, 1);
        assert_eq!(b.look_up(&cache).blocks, [1]);
        assert!(Holder::new(&[(8, 0, 4)]).look_up(&cache).blocks.is_empty());
        cache.release(&a.held);
        assert_eq!(taken(&mut cache, &[], 2).held.blocks, [3, 1]);
        assert_eq!(a.look_up(&cache).blocks, [2]);
        assert_eq!(cache.evictions(), 1);
    }

    /// vLLM's own form, as slow as it likes: every block in one list of free blocks and one list of cached ones.
    struct Judge {
        free: VecDeque<BlockId>,
        /// In order of registration.
        cached: Vec<(Vec<(u64, u32)>, BlockId)>,
        references: Vec<u32>,
    }

    impl Judge {
        fn look_up(&self, holder: &Holder) -> Vec<BlockId> {
            let first =
                |prefix: &Vec<_>| self.cached.iter().find(|(key, _)| key == prefix).map(|&(_, block)| block);
            holder.prefixes.iter().map_while(first).collect()
        }

        fn hold(&mut self, hits: &[BlockId]) {
            for &block in hits {
                self.free.retain(|&free| free != block);
                self.references[block as usize] += 1;
            }
        }

        fn take(&mut self, count: u32) -> Vec<BlockId> {
            let taken: Vec<BlockId> = self.free.drain(..count as usize).collect();
            for &block in &taken {
                self.references[block as usize] += 1;
                self.cached.retain(|&(_, cached)| cached != block);
            }
            taken
        }

        fn release(&mut self, blocks: &[BlockId]) {
            let mut uncached = 0;
            for &block in blocks.iter().rev() {
                self.references[block as usize] -= 1;
                if self.references[block as usize] > 0 {
                    continue;
                }
                if self.cached.iter().any(|&(_, cached)| cached == block) {
                    self.free.push_back(block);
                } else {
                    self.free.insert(uncached, block);
                    uncached += 1;
                }
            }
        }
    }

    #[derive(Clone, Debug)]
    enum Deed {
        /// A request comes, finds what it can (less the last block, as EAGLE has it), and takes blocks for the rest.
        Come {
            runs: Vec<(u64, u32, u32)>,
            without_last: bool,
        },
        /// One of the requests has computed so many more blocks.
        Compute {
            which: usize,
            blocks: u32,
        },
        Go(usize),
    }

    fn deeds() -> impl Strategy<Value = Vec<Deed>> {
        // Few streams, positions and lengths, so that contents agree often and part anywhere.
        let run = (0u64..3, (0u32..2).prop_map(|start| start * 6), 1u32..30);
        let come = (prop::collection::vec(run, 1..4), prop::bool::weighted(0.2));
        let deed = prop_oneof![
            3 => come.prop_map(|(runs, without_last)| Deed::Come { runs, without_last }),
            4 => (any::<usize>(), prop_oneof![1u32..6, Just(100)]).prop_map(|(which, blocks)| {
                Deed::Compute { which, blocks }
            }),
            2 => any::<usize>().prop_map(Deed::Go),
        ];
        prop::collection::vec(deed, 1..120)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2_000))]

        #[test]
        fn spans_are_as_good_as_single_blocks(pool in 2u32..90, deeds in deeds()) {
            let mut cache = KvCache::new(pool);
            let mut judge =
                Judge { free: (1..pool).collect(), cached: Vec::new(), references: vec![0; pool as usize] };
            let mut holders: Vec<Holder> = Vec::new();
            for deed in deeds {
                match deed {
                    Deed::Come { runs, without_last } => {
                        let mut holder = Holder::new(&runs);
                        let mut hits = holder.look_up(&cache);
                        let mut expected = judge.look_up(&holder);
                        prop_assert_eq!(&hits.blocks, &expected);
                        if without_last {
                            hits.pop();
                            expected.pop();
                        }
                        let free = expected.iter().filter(|&&hit| judge.references[hit as usize] == 0).count();
                        prop_assert_eq!(cache.count_evictable(&hits) as usize, free);
                        let wanted = (holder.prefixes.len() + 1 - expected.len()) as u32;
                        if wanted + free as u32 > cache.free_count() {
                            continue;
                        }
                        cache.hold(&hits, &mut holder.held);
                        judge.hold(&expected);
                        let evicts = judge.free.iter().take(wanted as usize).any(|&block| {
                            judge.cached.iter().any(|&(_, cached)| cached == block)
                        });
                        prop_assert_eq!(cache.would_evict_from_table(wanted), evicts);
                        match wanted {
                            1 => cache.take_one(&mut holder.held.blocks),
                            _ => cache.take(wanted, &mut holder.held.blocks),
                        }
                        expected.extend(judge.take(wanted));
                        prop_assert_eq!(&holder.held.blocks, &expected);
                        holders.push(holder);
                    }
                    Deed::Compute { which, blocks } if !holders.is_empty() => {
                        let number = which % holders.len();
                        let holder = &mut holders[number];
                        let from = holder.held.in_table;
                        let end = (from + blocks).min(holder.prefixes.len() as u32);
                        holder.register(&mut cache, end);
                        for block in from as usize..end as usize {
                            judge.cached.push((holder.prefixes[block].clone(), holder.held.blocks[block]));
                        }
                    }
                    Deed::Go(which) if !holders.is_empty() => {
                        let holder = holders.remove(which % holders.len());
                        cache.release(&holder.held);
                        judge.release(&holder.held.blocks);
                    }
                    Deed::Compute { .. } | Deed::Go(_) => {}
                }
                prop_assert_eq!(cache.free_list(), judge.free.iter().copied().collect::<Vec<_>>());
                cache.check(holders.iter().map(|holder| &holder.held));
            }
        }
    }
}
