//! One request inside an engine, and the queues it waits in.
//!
//! Knows what vLLM's `Request` object knows. Does not know the other requests.

use std::collections::{BTreeSet, VecDeque};

use super::kv_cache::{BlockId, BlockKey, KeyChain};
use crate::request::{Ledger, Request};
use crate::time::Time;

/// Place of a sequence in the scheduler's table.
pub(super) type Slot = u32;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// In the waiting queue, never admitted or with its remote KV loaded.
    Waiting,
    /// In the waiting queue, its blocks lost.
    Preempted,
    /// Its KV is being loaded from another server.
    WaitingForRemoteKvs,
    /// On the running list.
    Running,
    /// Ended; its slot may be given to another.
    Finished,
}

#[derive(Clone, Debug)]
pub(super) struct Sequence {
    /// Tells this holder of the slot from earlier ones.
    pub(super) serial: u64,
    pub(super) request: Request,
    pub(super) state: State,
    /// vLLM's `num_computed_tokens`: tokens whose KV is computed or scheduled.
    pub(super) computed: u32,
    /// Output tokens appended.
    pub(super) output: u32,
    /// Asynchronous mode: tokens scheduled to be sampled that have not come back.
    pub(super) placeholders: u32,
    /// Draft tokens to verify in the next step.
    pub(super) drafts: u32,
    /// Verification steps so far.
    pub(super) verifications: u32,
    /// Tokens sampled by all steps scheduled so far, those in flight included.
    pub(super) sampled: u32,
    /// The block table.
    pub(super) blocks: Vec<BlockId>,
    /// Leading blocks that are in the prefix-cache table.
    pub(super) registered: u32,
    pub(super) keys: Vec<BlockKey>,
    pub(super) chain: KeyChain,
    pub(super) preemptions: u32,
    /// The load of its remote KV is done.
    pub(super) load_finished: bool,
    /// Number of the last step with a token in it that it had a part in.
    pub(super) last_step: u64,
    pub(super) queued: Time,
    pub(super) scheduled: Option<Time>,
    pub(super) first_token: Option<Time>,
    pub(super) last_token: Time,
    pub(super) ledger_at_first_token: Ledger,
    pub(super) cached_tokens: u32,
}

impl Sequence {
    pub(super) fn new(serial: u64, request: Request, block_size: u32, queued: Time) -> Sequence {
        let chain = KeyChain::new(block_size, request.id);
        Sequence {
            serial,
            request,
            state: State::Waiting,
            computed: 0,
            output: 0,
            placeholders: 0,
            drafts: 0,
            verifications: 0,
            sampled: 0,
            blocks: Vec::new(),
            registered: 0,
            keys: Vec::new(),
            chain,
            preemptions: 0,
            load_finished: false,
            last_step: 0,
            queued,
            scheduled: None,
            first_token: None,
            last_token: queued,
            ledger_at_first_token: Ledger::default(),
            cached_tokens: 0,
        }
    }

    /// Known tokens: the prompt and the outputs appended.
    pub(super) fn known(&self) -> u32 {
        self.request.prompt_tokens + self.output
    }

    /// Keys of the first `count` full blocks.
    ///
    /// # Panics
    /// If a block is not full yet: its content is not known.
    pub(super) fn keys_up_to(&mut self, count: u32, block_size: u32) -> &[BlockKey] {
        assert!(count * block_size <= self.known(), "a key was asked of a block that is not full");
        while self.keys.len() < count as usize {
            let key = self.chain.next(&self.request.content);
            self.keys.push(key);
        }
        &self.keys[..count as usize]
    }

    /// Orders the waiting queue under the priority policy, and (first two fields) chooses victims.
    pub(super) fn rank(&self) -> (i32, u64, u32) {
        (self.request.priority, self.request.arrival_order, self.request.id.0)
    }
}

/// Requests that wait: first come first served, or by priority.
#[derive(Clone, Debug)]
pub(super) enum WaitingQueue {
    Fcfs(VecDeque<Slot>),
    Priority(BTreeSet<((i32, u64, u32), Slot)>),
}

impl WaitingQueue {
    pub(super) fn len(&self) -> usize {
        match self {
            WaitingQueue::Fcfs(queue) => queue.len(),
            WaitingQueue::Priority(queue) => queue.len(),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub(super) fn head(&self) -> Option<Slot> {
        match self {
            WaitingQueue::Fcfs(queue) => queue.front().copied(),
            WaitingQueue::Priority(queue) => queue.first().map(|&(_, slot)| slot),
        }
    }

    pub(super) fn pop(&mut self) -> Option<Slot> {
        match self {
            WaitingQueue::Fcfs(queue) => queue.pop_front(),
            WaitingQueue::Priority(queue) => queue.pop_first().map(|(_, slot)| slot),
        }
    }

    /// A new arrival: behind all others, or by its rank.
    pub(super) fn add(&mut self, slot: Slot, sequence: &Sequence) {
        match self {
            WaitingQueue::Fcfs(queue) => queue.push_back(slot),
            WaitingQueue::Priority(queue) => {
                queue.insert((sequence.rank(), slot));
            }
        }
    }

    /// A preempted or passed-over request: before all others, or by its rank.
    pub(super) fn put_back(&mut self, slot: Slot, sequence: &Sequence) {
        match self {
            WaitingQueue::Fcfs(queue) => queue.push_front(slot),
            WaitingQueue::Priority(queue) => {
                queue.insert((sequence.rank(), slot));
            }
        }
    }

    pub(super) fn remove(&mut self, slot: Slot, sequence: &Sequence) {
        match self {
            WaitingQueue::Fcfs(queue) => queue.retain(|&other| other != slot),
            WaitingQueue::Priority(queue) => {
                queue.remove(&(sequence.rank(), slot));
            }
        }
    }

    /// In the order in which they would be served.
    pub(super) fn iter(&self) -> Box<dyn Iterator<Item = Slot> + '_> {
        match self {
            WaitingQueue::Fcfs(queue) => Box::new(queue.iter().copied()),
            WaitingQueue::Priority(queue) => Box::new(queue.iter().map(|&(_, slot)| slot)),
        }
    }
}
