//! What a request can find in the prefix cache: spans of blocks by their content.
//!
//! Knows which blocks hold a span, who holds how much of it, and which of its blocks are free. Does not know
//! requests, or blocks that only their holder could ask for.
//!
//! vLLM's table has an entry for each block (`BlockPool.cached_block_hash_to_block`). Here one entry stands for
//! a whole [`Span`], because three things always hold of it while no two blocks have the same content:
//!
//! - a request that holds a block of a span in the table holds all blocks before it, so holders are counted by how
//!   many leading blocks they hold, and the free blocks are those behind the longest holder;
//! - it returns its blocks last first, so the free blocks of a span stand in the free list deepest first;
//! - therefore blocks are evicted deepest first, and what can be found is always a leading part.
//!
//! As soon as a block is registered whose content is there already, the span is taken apart, and its blocks are
//! known one by one ([`Twins`]) until all of them are gone.

use rustc_hash::FxHashMap;

use super::block_keys::{BlockKey, block_key};
use super::free_list::{BlockId, Evicted, FreeList, PieceId};
use super::twins::Twins;

/// Place of a span in the table.
type SpanId = u32;

/// What a request holds of a span in the table: its leading blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct HeldSpan {
    span: SpanId,
    pub(super) blocks: u32,
}

/// So many requests hold exactly the leading `blocks` blocks.
#[derive(Clone, Copy, Debug)]
struct Holders {
    blocks: u32,
    count: u32,
}

#[derive(Clone, Debug)]
struct Entry {
    key: BlockKey,
    /// The leading blocks that can be found; none while it is apart.
    blocks: Vec<BlockId>,
    /// By number of blocks held, rising.
    holders: Vec<Holders>,
    /// Where its free blocks are, deepest first; nothing while it is apart.
    free: Vec<PieceId>,
    /// Its blocks are known one by one: so many of them.
    apart: u32,
}

/// What a request finds.
#[derive(Clone, Debug, Default)]
pub(super) struct Hits {
    pub(super) blocks: Vec<BlockId>,
    pub(super) spans: Vec<HeldSpan>,
}

#[derive(Clone, Debug, Default)]
pub(super) struct PrefixTable {
    entries: Vec<Entry>,
    vacant: Vec<SpanId>,
    /// Looked up and changed, never walked, so its order cannot show.
    by_key: FxHashMap<BlockKey, SpanId>,
    twins: Twins,
    /// How often something was registered or evicted.
    changes: u64,
}

impl Hits {
    pub(super) fn len(&self) -> u32 {
        self.blocks.len() as u32
    }

    pub(super) fn clear(&mut self) {
        self.blocks.clear();
        self.spans.clear();
    }

    /// Does without the last block.
    pub(super) fn pop(&mut self) {
        self.blocks.pop();
        if let Some(last) = self.spans.last_mut() {
            last.blocks -= 1;
            if last.blocks == 0 {
                self.spans.pop();
            }
        }
    }
}

impl Entry {
    /// Leading blocks that somebody holds.
    fn held(&self) -> u32 {
        self.holders.last().map_or(0, |longest| longest.blocks)
    }

    fn hold(&mut self, blocks: u32) {
        let place = self.holders.partition_point(|holders| holders.blocks < blocks);
        match self.holders.get_mut(place) {
            Some(holders) if holders.blocks == blocks => holders.count += 1,
            _ => self.holders.insert(place, Holders { blocks, count: 1 }),
        }
    }

    fn let_go(&mut self, blocks: u32) {
        let place = self.holders.partition_point(|holders| holders.blocks < blocks);
        let holders = &mut self.holders[place];
        debug_assert_eq!(holders.blocks, blocks, "a holder lets go of what it holds");
        holders.count -= 1;
        if holders.count == 0 {
            self.holders.remove(place);
        }
    }
}

impl PrefixTable {
    /// While this number stands still, [`PrefixTable::look_up`] answers the same.
    pub(super) fn changes(&self) -> u64 {
        self.changes
    }

    /// Adds to `hits` the leading blocks of a span that can be found, `most` at most, and returns their number.
    pub(super) fn look_up(&self, key: BlockKey, most: u32, hits: &mut Hits) -> u32 {
        let Some(&span) = self.by_key.get(&key) else { return 0 };
        let entry = &self.entries[span as usize];
        let before = hits.len();
        if entry.apart > 0 {
            hits.blocks.extend((0..most).map_while(|block| self.twins.first(block_key(key, block))));
        } else {
            hits.blocks.extend(entry.blocks.iter().take(most as usize));
        }
        let blocks = hits.len() - before;
        if blocks > 0 {
            hits.spans.push(HeldSpan { span, blocks });
        }
        blocks
    }

    /// How many leading blocks of a span can be found, `most` at most.
    pub(super) fn count_found(&self, key: BlockKey, most: u32) -> u32 {
        let Some(&span) = self.by_key.get(&key) else { return 0 };
        let entry = &self.entries[span as usize];
        if entry.apart > 0 {
            (0..most).take_while(|&block| self.twins.first(block_key(key, block)).is_some()).count() as u32
        } else {
            most.min(entry.blocks.len() as u32)
        }
    }

    /// How many of these blocks nobody holds.
    pub(super) fn count_free(&self, hits: &Hits) -> u32 {
        let mut first = 0;
        let free = hits.spans.iter().map(|&HeldSpan { span, blocks }| {
            let of_span = &hits.blocks[first..first + blocks as usize];
            first += blocks as usize;
            let entry = &self.entries[span as usize];
            if entry.apart > 0 {
                of_span.iter().filter(|&&block| self.twins.references(block) == 0).count() as u32
            } else {
                blocks.saturating_sub(entry.held())
            }
        });
        free.sum()
    }

    /// One more holder of these blocks; those that were free leave the free list.
    pub(super) fn hold(&mut self, hits: &Hits, free: &mut FreeList) {
        let mut first = 0;
        for &HeldSpan { span, blocks } in &hits.spans {
            let of_span = &hits.blocks[first..first + blocks as usize];
            first += blocks as usize;
            let entry = &mut self.entries[span as usize];
            if entry.apart > 0 {
                for &block in of_span {
                    let twin = self.twins.block(block);
                    if twin.references == 0 {
                        free.shorten(twin.piece, 1);
                    }
                    twin.references += 1;
                }
                continue;
            }
            let mut wanted = blocks.saturating_sub(entry.held());
            while wanted > 0 {
                let shallowest = *entry.free.last().expect("what nobody holds is free");
                let (removed, whole) = free.shorten(shallowest, wanted);
                wanted -= removed;
                if whole {
                    entry.free.pop();
                }
            }
            entry.hold(blocks);
        }
    }

    /// Registers full blocks of one holder, which stand `from` blocks behind the start of the span with this
    /// key; what it holds of the table, `held`, grows by them.
    pub(super) fn register(
        &mut self,
        key: BlockKey,
        from: u32,
        blocks: &[BlockId],
        held: &mut Vec<HeldSpan>,
        free: &mut FreeList,
    ) {
        self.changes += 1;
        if from == 0 {
            held.push(HeldSpan { span: self.entry(key), blocks: 0 });
        }
        let mine = held.last_mut().expect("who holds blocks of a span in the table knows the span");
        debug_assert_eq!(mine.blocks, from, "blocks are registered in order");
        mine.blocks += blocks.len() as u32;
        let entry = &mut self.entries[mine.span as usize];
        if entry.apart == 0 && entry.blocks.len() as u32 == from {
            entry.blocks.extend_from_slice(blocks);
            if from > 0 {
                entry.let_go(from);
            }
            entry.hold(mine.blocks);
            return;
        }
        let span = mine.span;
        if entry.apart == 0 {
            self.take_apart(span, free);
        }
        self.entries[span as usize].apart += blocks.len() as u32;
        for (number, &block) in (from..).zip(blocks) {
            self.twins.add(block, block_key(key, number), 1);
        }
    }

    /// Drops one holder of blocks in the table, last block first; those without any join the free list.
    pub(super) fn release(&mut self, spans: &[HeldSpan], blocks: &[BlockId], free: &mut FreeList) {
        let mut end = blocks.len();
        for &HeldSpan { span, blocks: count } in spans.iter().rev() {
            let of_span = &blocks[end - count as usize..end];
            end -= count as usize;
            let entry = &mut self.entries[span as usize];
            if entry.apart > 0 {
                for &block in of_span.iter().rev() {
                    let twin = self.twins.block(block);
                    twin.references -= 1;
                    if twin.references == 0 {
                        twin.piece = free.append_piece_reversed(&[block], span);
                    }
                }
                continue;
            }
            entry.let_go(count);
            let still_held = entry.held();
            if still_held < count {
                entry.free.push(free.append_piece_reversed(&of_span[still_held as usize..], span));
            }
        }
    }

    /// Blocks left the free list to hold something else.
    pub(super) fn evict(&mut self, evicted: Evicted) {
        self.changes += 1;
        let entry = &mut self.entries[evicted.owner as usize];
        let left = if entry.apart > 0 {
            self.twins.remove(evicted.block);
            entry.apart -= 1;
            entry.apart
        } else {
            debug_assert_eq!(entry.free.first(), Some(&evicted.piece), "the deepest blocks go first");
            debug_assert!(entry.blocks.ends_with(&[evicted.block]), "the deepest blocks go first");
            if evicted.whole {
                entry.free.remove(0);
            }
            entry.blocks.truncate(entry.blocks.len() - evicted.count as usize);
            entry.blocks.len() as u32
        };
        if left == 0 {
            self.by_key.remove(&entry.key);
            self.vacant.push(evicted.owner);
        }
    }

    /// The entry of a span, an empty one if nothing of it is there.
    fn entry(&mut self, key: BlockKey) -> SpanId {
        *self.by_key.entry(key).or_insert_with(|| {
            // An earlier entry's memory is used again.
            if let Some(span) = self.vacant.pop() {
                self.entries[span as usize].key = key;
                return span;
            }
            let (blocks, holders, free) = Default::default();
            self.entries.push(Entry { key, blocks, holders, free, apart: 0 });
            self.entries.len() as SpanId - 1
        })
    }

    fn take_apart(&mut self, span: SpanId, free: &mut FreeList) {
        let entry = &mut self.entries[span as usize];
        entry.apart = entry.blocks.len() as u32;
        for (number, &block) in (0u32..).zip(&entry.blocks) {
            let holders = entry.holders.iter().filter(|holders| holders.blocks > number);
            let references = holders.map(|holders| holders.count).sum();
            self.twins.add(block, block_key(entry.key, number), references);
        }
        for piece in entry.free.drain(..) {
            for (block, own) in free.take_apart(piece) {
                self.twins.block(block).piece = own;
            }
        }
        entry.blocks.clear();
        entry.holders.clear();
    }

    /// The blocks in the table, each with the number of its holders.
    ///
    /// # Panics
    /// If a span or a block is not found under its own key (law 2).
    pub(super) fn check(&self) -> Vec<(BlockId, u32)> {
        let mut known: Vec<(BlockId, u32)> = self.twins.check().collect();
        assert_eq!(
            known.len() as u32,
            self.entries.iter().map(|entry| entry.apart).sum::<u32>(),
            "law 2: blocks known one by one belong to spans that are apart"
        );
        for (span, entry) in (0u32..).zip(&self.entries) {
            let empty = entry.apart == 0 && entry.blocks.is_empty();
            assert_eq!(
                self.by_key.get(&entry.key) == Some(&span),
                !empty,
                "law 2: a span is found by its key"
            );
            assert!(entry.held() <= entry.blocks.len() as u32, "law 2: more is held than is there");
            known.extend((0u32..).zip(&entry.blocks).map(|(number, &block)| {
                let holders = entry.holders.iter().filter(|holders| holders.blocks > number);
                (block, holders.map(|holders| holders.count).sum())
            }));
        }
        known
    }
}
