//! The free blocks of one engine, in the order in which they will be taken.
//!
//! Knows blocks and their order. Does not know keys, references or requests.
//!
//! vLLM keeps one linked list (`FreeKVCacheBlockQueue`). Blocks join it at two places only: uncached ones at
//! its head, cached ones at its tail. So it is a stack in front of the blocks never taken yet in front of a
//! queue, and taking or returning a request's blocks copies stretches of memory instead of following links.
//! What prefix hits take out of the middle leaves holes, which are skipped when their turn comes.

/// A block of the pool. Block 0 is the null block and never used.
pub(crate) type BlockId = u32;

/// An entry of the queue that holds nothing any more.
const HOLE: u32 = 0;

/// Blocks that joined the queue together and that the prefix-cache table knows.
pub(super) type PieceId = u32;

/// No piece: the end of a list.
const NONE: PieceId = PieceId::MAX;

#[derive(Clone, Copy, Debug)]
struct Piece {
    /// Place of its first entry in the queue, next to be taken; the others lie behind it without a hole.
    start: u64,
    length: u32,
    /// Whom to tell when its blocks are taken.
    owner: u32,
    previous: PieceId,
    next: PieceId,
}

/// Blocks of one piece that were taken, the table's loss.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Evicted {
    pub(super) owner: u32,
    pub(super) piece: PieceId,
    /// The first of them.
    pub(super) block: BlockId,
    pub(super) count: u32,
    /// Nothing of the piece is left.
    pub(super) whole: bool,
}

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
    /// What of the queue the table knows, linked in the queue's order.
    pieces: Vec<Piece>,
    vacant: Vec<PieceId>,
    first: PieceId,
    last: PieceId,
}

impl FreeList {
    /// All blocks of a pool of `num_gpu_blocks`, the null block left out, in order.
    pub(super) fn new(num_gpu_blocks: u32) -> FreeList {
        FreeList {
            stack: Vec::new(),
            untouched: 1..num_gpu_blocks,
            ring: vec![HOLE; 64],
            head: 0,
            tail: 0,
            queued: 0,
            pieces: Vec::new(),
            vacant: Vec::new(),
            first: NONE,
            last: NONE,
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
    pub(super) fn take(&mut self, count: u32, taken: &mut Vec<BlockId>, evicted: impl FnMut(Evicted)) -> u32 {
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
            let holes = stretch.iter().fold(0, |holes, &entry| holes + usize::from(entry == HOLE));
            self.head += stretch.len() as u64;
            left -= stretch.len() - holes;
            if holes == 0 {
                taken.extend_from_slice(stretch);
            } else {
                taken.extend(stretch.iter().filter(|&&entry| entry != HOLE));
            }
        }
        self.evict_passed(evicted);
        cached
    }

    /// Takes the next block. `evicted` hears of it if the table knows it. Returns it, and whether it was cached.
    ///
    /// # Panics
    /// If none is free: the caller checks first.
    pub(super) fn take_one(&mut self, evicted: impl FnMut(Evicted)) -> (BlockId, bool) {
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
                self.evict_passed(evicted);
                return (entry, true);
            }
        }
    }

    /// Tells of the pieces that the head has passed.
    fn evict_passed(&mut self, mut evicted: impl FnMut(Evicted)) {
        let mask = self.ring.len() as u64 - 1;
        while self.first != NONE && self.pieces[self.first as usize].start < self.head {
            let id = self.first;
            let piece = &mut self.pieces[id as usize];
            let count = piece.length.min((self.head - piece.start).min(u64::from(u32::MAX)) as u32);
            let block = self.ring[(piece.start & mask) as usize];
            piece.start += u64::from(count);
            piece.length -= count;
            let (owner, whole) = (piece.owner, piece.length == 0);
            if whole {
                self.unlink(id);
            }
            evicted(Evicted { owner, piece: id, block, count, whole });
        }
    }

    /// Whether the table knows any of the next `count` blocks.
    pub(super) fn next_in_table(&self, count: u32) -> bool {
        let from_queue = (count as usize).saturating_sub(self.stack.len() + self.untouched.len());
        if self.first == NONE || from_queue == 0 {
            return false;
        }
        let before = self.entries_to(self.pieces[self.first as usize].start);
        before.take(from_queue).count() < from_queue
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

    /// Returns blocks that the table knows, the last of `blocks` first.
    pub(super) fn append_piece_reversed(&mut self, blocks: &[BlockId], owner: u32) -> PieceId {
        self.append_reversed(blocks);
        let length = blocks.len() as u32;
        let start = self.tail - u64::from(length);
        let id = self.add(Piece { start, length, owner, previous: self.last, next: NONE });
        match self.last {
            NONE => self.first = id,
            last => self.pieces[last as usize].next = id,
        }
        self.last = id;
        id
    }

    /// Takes up to `count` blocks out of a piece, those that would be taken last. Returns how many these were
    /// and whether nothing of the piece is left.
    pub(super) fn shorten(&mut self, id: PieceId, count: u32) -> (u32, bool) {
        let piece = &mut self.pieces[id as usize];
        let count = count.min(piece.length);
        piece.length -= count;
        let (from, whole) = (piece.start + u64::from(piece.length), piece.length == 0);
        let mask = self.ring.len() as u64 - 1;
        for place in from..from + u64::from(count) {
            self.ring[(place & mask) as usize] = HOLE;
        }
        self.queued -= count;
        if whole {
            self.unlink(id);
        }
        (count, whole)
    }

    /// Makes each block of a piece a piece of its own; these come with their blocks, next to be taken first.
    pub(super) fn take_apart(&mut self, id: PieceId) -> Vec<(BlockId, PieceId)> {
        let mask = self.ring.len() as u64 - 1;
        let Piece { start, length, owner, next, .. } = self.pieces[id as usize];
        self.pieces[id as usize].length = 1;
        let mut apart = vec![(self.ring[(start & mask) as usize], id)];
        let mut previous = id;
        for place in start + 1..start + u64::from(length) {
            let id = self.add(Piece { start: place, length: 1, owner, previous, next });
            self.pieces[previous as usize].next = id;
            apart.push((self.ring[(place & mask) as usize], id));
            previous = id;
        }
        match next {
            NONE => self.last = previous,
            next => self.pieces[next as usize].previous = previous,
        }
        apart
    }

    fn add(&mut self, piece: Piece) -> PieceId {
        if let Some(id) = self.vacant.pop() {
            self.pieces[id as usize] = piece;
            return id;
        }
        self.pieces.push(piece);
        self.pieces.len() as PieceId - 1
    }

    fn unlink(&mut self, id: PieceId) {
        let Piece { previous, next, .. } = self.pieces[id as usize];
        match previous {
            NONE => self.first = next,
            previous => self.pieces[previous as usize].next = next,
        }
        match next {
            NONE => self.last = previous,
            next => self.pieces[next as usize].previous = previous,
        }
        self.vacant.push(id);
    }

    /// Makes room for `count` more entries: holes are squeezed out, and the ring doubles where that is not enough.
    fn make_room(&mut self, count: usize) {
        let capacity = self.ring.len();
        if (self.tail - self.head) as usize + count <= capacity {
            return;
        }
        let mut live = Vec::with_capacity(self.queued as usize);
        let mut piece = self.first;
        for place in self.head..self.tail {
            if piece != NONE && self.pieces[piece as usize].start == place {
                self.pieces[piece as usize].start = live.len() as u64;
                piece = self.pieces[piece as usize].next;
            }
            let entry = self.ring[(place & (capacity as u64 - 1)) as usize];
            if entry != HOLE {
                live.push(entry);
            }
        }
        let mut wanted = capacity;
        // At least half of the ring is free afterwards, so this work is paid by the entries it makes room for.
        while (live.len() + count) * 2 > wanted {
            wanted *= 2;
        }
        (self.head, self.tail) = (0, live.len() as u64);
        live.resize(wanted, HOLE);
        self.ring = live;
    }

    /// The live entries of the queue before place `end`.
    fn entries_to(&self, end: u64) -> impl Iterator<Item = u32> + '_ {
        let mask = self.ring.len() as u64 - 1;
        (self.head..end).map(move |place| self.ring[(place & mask) as usize]).filter(|&entry| entry != HOLE)
    }

    /// The free blocks, next to be taken first.
    pub(super) fn iter(&self) -> impl Iterator<Item = BlockId> + '_ {
        let queue = self.entries_to(self.tail);
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
        /// A prefix hit on up to so many blocks of one of the table's pieces.
        Hit {
            which: usize,
            count: u32,
        },
        /// A piece whose blocks come and go one by one from now on.
        Apart(usize),
    }

    fn deeds() -> impl Strategy<Value = Vec<Deed>> {
        let deed = prop_oneof![
            6 => prop_oneof![Just(1u32), 0u32..40].prop_map(Deed::Take),
            6 => (any::<usize>(), 0usize..=100, 0usize..=100).prop_map(|(which, cached_percent, table_percent)| {
                Deed::Return { which, cached_percent, table_percent }
            }),
            4 => (any::<usize>(), 1u32..9).prop_map(|(which, count)| Deed::Hit { which, count }),
            1 => any::<usize>().prop_map(Deed::Apart),
        ];
        prop::collection::vec(deed, 1..300)
    }

    proptest! {
        /// The judge is vLLM's own form: one list, blocks joining at its two ends and leaving from anywhere.
        /// Its entries are the block, whether it is cached, and its piece.
        #[test]
        fn it_is_one_list(blocks in 2u32..400, deeds in deeds()) {
            let mut list = FreeList::new(blocks);
            let mut judge: VecDeque<(BlockId, bool, Option<PieceId>)> =
                (1..blocks).map(|block| (block, false, None)).collect();
            let mut held: Vec<Vec<BlockId>> = Vec::new();
            for (number, deed) in deeds.into_iter().enumerate() {
                let mut pieces: Vec<PieceId> = judge.iter().filter_map(|entry| entry.2).collect();
                pieces.dedup();
                match deed {
                    Deed::Take(count) => {
                        let count = count.min(list.len());
                        let may_evict = judge.iter().take(count as usize).any(|entry| entry.2.is_some());
                        prop_assert_eq!(list.next_in_table(count), may_evict);
                        let (mut taken, mut evicted) = (Vec::new(), Vec::new());
                        let cached = match count {
                            1 => {
                                let (block, cached) = list.take_one(|piece| evicted.push(piece));
                                taken.push(block);
                                u32::from(cached)
                            }
                            _ => list.take(count, &mut taken, |piece| evicted.push(piece)),
                        };
                        let expected: Vec<_> = judge.drain(..count as usize).collect();
                        prop_assert_eq!(&taken, &expected.iter().map(|&(block, ..)| block).collect::<Vec<_>>());
                        prop_assert_eq!(cached as usize, expected.iter().filter(|entry| entry.1).count());
                        let known: Vec<_> = expected.iter().filter_map(|entry| Some((entry.2?, entry.0))).collect();
                        let lost = known.chunk_by(|a, b| a.0 == b.0).map(|blocks| {
                            let (piece, block) = blocks[0];
                            let whole = judge.iter().all(|entry| entry.2 != Some(piece));
                            (piece, block, blocks.len() as u32, whole)
                        });
                        let told = evicted.iter().map(|piece| (piece.piece, piece.block, piece.count, piece.whole));
                        prop_assert!(told.eq(lost));
                        held.push(taken);
                    }
                    Deed::Return { which, cached_percent, table_percent } if !held.is_empty() => {
                        let request = held.remove(which % held.len());
                        let (cached, uncached) = request.split_at(request.len() * cached_percent / 100);
                        let (in_table, private) = cached.split_at(cached.len() * table_percent / 100);
                        for &block in uncached {
                            list.prepend(block);
                            judge.push_front((block, false, None));
                        }
                        list.append_reversed(private);
                        judge.extend(private.iter().rev().map(|&block| (block, true, None)));
                        if !in_table.is_empty() {
                            let piece = list.append_piece_reversed(in_table, number as u32);
                            judge.extend(in_table.iter().rev().map(|&block| (block, true, Some(piece))));
                        }
                    }
                    Deed::Hit { which, count } if !pieces.is_empty() => {
                        let piece = pieces[which % pieces.len()];
                        let places: Vec<usize> =
                            (0..judge.len()).filter(|&place| judge[place].2 == Some(piece)).collect();
                        let hit = &places[places.len().saturating_sub(count as usize)..];
                        let (removed, whole) = list.shorten(piece, count);
                        prop_assert_eq!((removed as usize, whole), (hit.len(), hit.len() == places.len()));
                        held.push(hit.iter().rev().filter_map(|&place| judge.remove(place)).map(|entry| entry.0).collect());
                    }
                    Deed::Apart(which) if !pieces.is_empty() => {
                        let piece = pieces[which % pieces.len()];
                        let apart = list.take_apart(piece);
                        let mut members = judge.iter_mut().filter(|entry| entry.2 == Some(piece));
                        for (block, own) in apart {
                            let member = members.next().expect("a piece has no more blocks than it had");
                            prop_assert_eq!(member.0, block);
                            member.2 = Some(own);
                        }
                        prop_assert!(members.next().is_none());
                    }
                    Deed::Return { .. } | Deed::Hit { .. } | Deed::Apart(_) => {}
                }
                prop_assert_eq!(list.len() as usize, judge.len());
                prop_assert!(list.iter().eq(judge.iter().map(|&(block, ..)| block)));
            }
        }
    }
}
