//! One request inside an engine, and the queues it waits in.
//!
//! Knows what vLLM's `Request` object knows. Does not know the other requests.

use std::collections::{BTreeSet, VecDeque};

use super::block_keys::{KeyChain, Span};
use super::kv_cache::Holding;
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
    /// Orders the running list: counts admissions.
    pub(super) admission: u64,
    /// While it decodes on the clock: tokens sampled by the steps up to and with tick k are this plus k, and
    /// `computed`, `output`, `placeholders` and `sampled` stand as they were when it joined.
    pub(super) on_clock: Option<i64>,
    /// Its blocks.
    pub(super) held: Holding,
    /// Leading blocks that others could ask for: all their tokens carry an identity.
    identified_blocks: u32,
    /// Leading blocks that have ever been in the prefix-cache table under its keys; later ones cannot be found.
    pub(super) tabled_blocks: u32,
    spans: Vec<Span>,
    chain: KeyChain,
    pub(super) preemptions: u32,
    /// The load of its remote KV is done.
    pub(super) load_finished: bool,
    /// Number of the last step with a token in it that it had a part in.
    pub(super) last_step: u64,
    /// Number of the last such step that sampled a token for it.
    pub(super) last_sampling_step: u64,
    pub(super) queued: Time,
    pub(super) scheduled: Option<Time>,
    pub(super) first_token: Option<Time>,
    pub(super) last_token: Time,
    pub(super) ledger_at_first_token: Ledger,
    pub(super) cached_tokens: u32,
}

impl Sequence {
    /// Reuses the memory of `earlier`, an ended request.
    pub(super) fn new(
        serial: u64,
        request: Request,
        block_size: u32,
        queued: Time,
        earlier: Option<&mut Sequence>,
    ) -> Sequence {
        let chain = KeyChain::new(block_size, request.id);
        let identified_blocks = request.content.tokens() / block_size;
        let (held, mut spans) = earlier.map_or_else(Default::default, |earlier| {
            (std::mem::take(&mut earlier.held), std::mem::take(&mut earlier.spans))
        });
        spans.clear();
        debug_assert!(held.blocks.is_empty(), "an ended request holds no block");
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
            admission: 0,
            on_clock: None,
            held,
            identified_blocks,
            tabled_blocks: 0,
            spans,
            chain,
            preemptions: 0,
            load_finished: false,
            last_step: 0,
            last_sampling_step: 0,
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

    /// The spans of at least the leading `blocks` blocks, all of them full, and what the request holds.
    pub(super) fn spans(&mut self, blocks: u32) -> (&[Span], &mut Holding) {
        while self.spans.last().map_or(0, |span| span.end) < blocks {
            let span = self.chain.next(&self.request.content);
            self.spans.push(span);
        }
        (&self.spans, &mut self.held)
    }

    /// Leading blocks that somebody could find in the prefix-cache table: those others may hold too, and those
    /// it has put there itself before it was preempted.
    pub(super) fn findable_blocks(&self) -> u32 {
        self.identified_blocks.max(self.tabled_blocks)
    }

    /// Leading blocks that others could ask for.
    pub(super) fn identified_blocks(&self) -> u32 {
        self.identified_blocks
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
