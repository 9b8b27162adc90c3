//! Blocks of the prefix-cache table that are known one by one, because some of them have the same content.
//!
//! Knows blocks, references and keys of single blocks. Does not know spans or the order of free blocks.
//!
//! Two requests that compute the same tokens at the same time both cache them. vLLM keeps both copies
//! (`BlockHashToBlockMap`): the one registered first serves until it is evicted, then the other.

use rustc_hash::FxHashMap;

use super::block_keys::BlockKey;
use super::free_list::{BlockId, PieceId};

/// No block: the end of a list.
const NONE: BlockId = 0;

#[derive(Clone, Debug, Default)]
pub(super) struct Block {
    pub(super) references: u32,
    /// While nobody refers to it: its piece of the free list, which it has for itself.
    pub(super) piece: PieceId,
    key: Option<BlockKey>,
    /// Neighbours among the blocks of the same key, in order of registration.
    previous: BlockId,
    next: BlockId,
}

/// The blocks that share one key, in order of registration.
#[derive(Clone, Copy, Debug)]
struct SameKey {
    first: BlockId,
    last: BlockId,
}

#[derive(Clone, Debug, Default)]
pub(super) struct Twins {
    /// By block, as far as blocks have ever been here; meaningful for those that are.
    blocks: Vec<Block>,
    /// Looked up and changed, never walked, so its order cannot show.
    by_key: FxHashMap<BlockKey, SameKey>,
}

impl Twins {
    /// The block with this key. Among several the one registered first serves.
    pub(super) fn first(&self, key: BlockKey) -> Option<BlockId> {
        self.by_key.get(&key).map(|same| same.first)
    }

    /// A block that is here.
    pub(super) fn block(&mut self, block: BlockId) -> &mut Block {
        &mut self.blocks[block as usize]
    }

    pub(super) fn references(&self, block: BlockId) -> u32 {
        self.blocks[block as usize].references
    }

    /// Registers a block, behind others of the same key.
    pub(super) fn add(&mut self, block: BlockId, key: BlockKey, references: u32) {
        if self.blocks.len() <= block as usize {
            self.blocks.resize(block as usize + 1, Block::default());
        }
        debug_assert!(self.blocks[block as usize].key.is_none(), "a block has at most one key (law 2)");
        let same = self.by_key.entry(key).or_insert(SameKey { first: block, last: NONE });
        let previous = std::mem::replace(&mut same.last, block);
        if previous != NONE {
            self.blocks[previous as usize].next = block;
        }
        self.blocks[block as usize] = Block { references, piece: 0, key: Some(key), previous, next: NONE };
    }

    /// Forgets a block.
    pub(super) fn remove(&mut self, block: BlockId) {
        let Block { key, previous, next, .. } = std::mem::take(&mut self.blocks[block as usize]);
        let Some(key) = key else { return };
        if previous != NONE {
            self.blocks[previous as usize].next = next;
        }
        if next != NONE {
            self.blocks[next as usize].previous = previous;
        }
        if previous == NONE && next == NONE {
            self.by_key.remove(&key);
        } else if let Some(same) = self.by_key.get_mut(&key) {
            if previous == NONE {
                same.first = next;
            }
            if next == NONE {
                same.last = previous;
            }
        }
    }

    /// The blocks here, each with its references.
    ///
    /// # Panics
    /// If one is not found under its own key (law 2).
    pub(super) fn check(&self) -> impl Iterator<Item = (BlockId, u32)> + '_ {
        self.blocks.iter().enumerate().filter_map(|(number, block)| {
            let key = block.key?;
            let mut twin = self.first(key).unwrap_or(NONE);
            while twin != NONE && twin as usize != number {
                twin = self.blocks[twin as usize].next;
            }
            assert_eq!(twin as usize, number, "law 2: block {number} is not found under its key");
            Some((number as BlockId, block.references))
        })
    }
}
