//! What one schedule() call decided, as plain data.

use super::sequence::Slot;
use crate::request::RequestId;

/// One request's part of a step.
#[derive(Clone, Copy, Debug)]
pub struct Scheduled {
    pub(super) slot: Slot,
    pub(super) serial: u64,
    /// Which request.
    pub id: RequestId,
    /// Tokens computed in this step, drafts included.
    pub tokens: u32,
    /// `num_computed_tokens` before this step.
    pub before: u32,
    /// Drafts verified in this step.
    pub drafts: u32,
    /// Tokens sampled: 0 in the middle of a prefill.
    pub sampled: u32,
    /// Tokens sampled by all earlier steps, those in flight included.
    pub sampled_before: u32,
    /// Admitted from the waiting queue in this step.
    pub admitted: bool,
    /// Length of its block table before this step; 0 if admitted.
    pub blocks_before: u32,
}

/// What one `schedule()` call decided.
#[derive(Clone, Debug, Default)]
pub struct Step {
    /// What was scheduled, in vLLM's order.
    pub scheduled: Vec<Scheduled>,
    /// Requests admitted for the first time.
    pub new: Vec<RequestId>,
    /// Requests admitted again after a preemption.
    pub resumed: Vec<RequestId>,
    /// Requests preempted, in order.
    pub preempted: Vec<RequestId>,
    /// Remote KV loads started, with their tokens.
    pub loads_started: Vec<(RequestId, u32)>,
    /// Tokens looked up and hit in the prefix cache, for new requests and for preempted ones.
    pub cache_queries: [u64; 4],
}

impl Step {
    pub(super) fn clear(&mut self) {
        self.scheduled.clear();
        self.new.clear();
        self.resumed.clear();
        self.preempted.clear();
        self.loads_started.clear();
        self.cache_queries = [0; 4];
    }
}

/// Totals since the start.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Totals {
    /// Requests that lost their blocks, counted each time.
    pub preemptions: u64,
    /// Tokens scheduled.
    pub scheduled_tokens: u64,
    /// Tokens that came out.
    pub output_tokens: u64,
    /// Cache hits of first admissions, in tokens.
    pub first_admission_hit_tokens: u64,
    /// Cache hits of all admissions, in tokens.
    pub all_admission_hit_tokens: u64,
    /// Requests that ended by a stop token or by length.
    pub successes: u64,
    /// Tokens looked up for requests never preempted.
    pub cache_queries: u64,
    /// Tokens hit for requests never preempted.
    pub cache_hits: u64,
}
