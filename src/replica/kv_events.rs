//! What an engine tells of its prefix cache: vLLM's KV events.
//!
//! Knows which blocks were announced and under what key. Does not know who listens, or how late.
//!
//! After vLLM 0.24 `block_pool.py`: every full block is announced when it is cached (`BlockStored`), generated ones too, and
//! again when it is taken for something else (`BlockRemoved`), even while another block with the same content stays: two
//! requests that computed the same tokens at the same time leave two such blocks. A hit is not announced. Events wait for the
//! next output that is processed (`Scheduler.update_from_output`), and leave with it as one batch.

use super::block_keys::BlockKey;
use super::free_list::BlockId;

/// A change of what can be found in an engine's prefix cache. Blocks are known by the tokens up to their end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KvEvent {
    /// A block with this content is cached.
    Stored(u64),
    /// A block with this content was taken for something else.
    Removed(u64),
}

/// Which blocks an engine tells of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Announced {
    /// All that are full, as vLLM does.
    All,
    /// Those that another request could ask for: enough where nobody counts the others.
    Findable,
}

/// Events that wait for the next output.
#[derive(Clone, Debug)]
pub(super) struct EventLog {
    pub(super) announced: Announced,
    /// Under which key each block of the pool was announced.
    keys: Vec<Option<BlockKey>>,
    events: Vec<KvEvent>,
}

impl EventLog {
    /// Of a pool of `num_gpu_blocks` blocks.
    pub(super) fn new(num_gpu_blocks: u32, announced: Announced) -> EventLog {
        EventLog { announced, keys: vec![None; num_gpu_blocks as usize], events: Vec::new() }
    }

    pub(super) fn stored(&mut self, block: BlockId, key: BlockKey) {
        self.keys[block as usize] = Some(key);
        self.events.push(KvEvent::Stored(key.get()));
    }

    /// These blocks left the free list to hold something else.
    pub(super) fn taken(&mut self, blocks: &[BlockId]) {
        let keys = &mut self.keys;
        let lost = blocks.iter().filter_map(|&block| keys[block as usize].take());
        self.events.extend(lost.map(|key| KvEvent::Removed(key.get())));
    }

    pub(super) fn take(&mut self) -> Vec<KvEvent> {
        std::mem::take(&mut self.events)
    }
}
