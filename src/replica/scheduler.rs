//! The scheduler of one engine: vLLM 0.24's V1 `Scheduler`, step by step.
//!
//! Knows requests, queues, the token budget and the KV cache. Does not know time: the loop that calls
//! `schedule` and `process` does. It visits every sequence at every step, which is
//! slow and obviously right. After `vllm/v1/core/sched/scheduler.py` and `async_scheduler.py`.

use std::collections::VecDeque;

use rustc_hash::FxHashMap;

use super::allocation::Need;
use super::config::{EngineConfig, SchedulingPolicy};
use super::decode_clock::{Blocked, DecodeClock};
use super::kv_cache::{Holding, KvCache};
use super::prefix_table::Hits;
use super::sequence::{Sequence, Slot, State, WaitingQueue};
use super::step::{Scheduled, Step, Totals};
use crate::request::{Request, RequestId};
use crate::step_time::Chunk;
use crate::time::Time;

/// The scheduler, the cache and all requests of one engine.
#[derive(Clone, Debug)]
pub struct Scheduler {
    pub(super) config: EngineConfig,
    pub(super) cache: KvCache,
    pub(super) sequences: Vec<Sequence>,
    pub(super) vacant: Vec<Slot>,
    /// Looked up by aborts, never walked.
    pub(super) slots: FxHashMap<RequestId, Slot>,
    pub(super) waiting: WaitingQueue,
    /// Waiting requests that cannot run for a reason other than capacity.
    pub(super) skipped: WaitingQueue,
    pub(super) running: Vec<Slot>,
    /// Prompts of those that wait: tokens, and the blocks these take.
    pub(super) waiting_prompts: (u64, u64),
    /// Ends that the workers have not been told of: the next schedule() call tells them.
    pub(super) unflushed_ends: bool,
    pub(super) next_serial: u64,
    pub(super) totals: Totals,
    /// Steps with a token in them: composed, and processed.
    pub(super) composed: u64,
    pub(super) processed: u64,
    /// Blocks that a step in flight may still write, with the number of the last such step.
    pub(super) fenced: VecDeque<(u64, Holding)>,
    /// Blocks of aborted requests that a load is still filling.
    pub(super) loading: Vec<(RequestId, Holding)>,
    pub(super) hits: Hits,
    pub(super) passed_over: Vec<Slot>,
    pub(super) admissions: u64,
    /// The head of the waiting queue could not be admitted, and why that will not change by itself.
    pub(super) blocked: Option<Blocked>,
    pub(super) clock: DecodeClock,
}

impl Scheduler {
    pub(super) fn new(config: EngineConfig) -> Scheduler {
        let queue = || match config.scheduling_policy {
            SchedulingPolicy::Fcfs => WaitingQueue::Fcfs(VecDeque::new()),
            SchedulingPolicy::Priority => WaitingQueue::Priority(Default::default()),
        };
        Scheduler {
            cache: KvCache::new(config.num_gpu_blocks),
            sequences: Vec::new(),
            vacant: Vec::new(),
            slots: FxHashMap::default(),
            waiting: queue(),
            skipped: queue(),
            running: Vec::new(),
            waiting_prompts: (0, 0),
            unflushed_ends: false,
            next_serial: 0,
            totals: Totals::default(),
            composed: 0,
            processed: 0,
            fenced: VecDeque::new(),
            loading: Vec::new(),
            hits: Hits::default(),
            passed_over: Vec::new(),
            admissions: 0,
            blocked: None,
            clock: DecodeClock::new(config.block_size),
            config,
        }
    }

    /// What the engine was started with.
    pub fn config(&self) -> &EngineConfig {
        &self.config
    }

    /// Requests on the running list, in admission order.
    pub fn running(&self) -> impl ExactSizeIterator<Item = RequestId> + '_ {
        self.running.iter().map(|&slot| self.sequence(slot).request.id)
    }

    /// Requests in the waiting queue, in the order in which they would be served.
    pub fn waiting(&self) -> impl Iterator<Item = RequestId> + '_ {
        self.waiting.iter().map(|slot| self.sequence(slot).request.id)
    }

    /// Requests that wait for something else than capacity.
    pub fn skipped(&self) -> impl Iterator<Item = RequestId> + '_ {
        self.skipped.iter().map(|slot| self.sequence(slot).request.id)
    }

    /// Requests that wait, for whatever reason.
    pub fn waiting_count(&self) -> u32 {
        (self.waiting.len() + self.skipped.len()) as u32
    }

    /// Length of the running list.
    pub fn running_count(&self) -> u32 {
        self.running.len() as u32
    }

    /// Free blocks.
    pub fn free_blocks(&self) -> u32 {
        self.cache.free_count()
    }

    /// Blocks that can be used at all.
    pub fn usable_blocks(&self) -> u32 {
        self.cache.usable_count()
    }

    /// The free list, next to be allocated first.
    pub fn free_list(&self) -> Vec<u32> {
        self.cache.free_list()
    }

    /// Cached blocks evicted so far.
    pub fn evictions(&self) -> u64 {
        self.cache.evictions()
    }

    /// Totals since the start.
    pub fn totals(&self) -> Totals {
        self.totals
    }

    /// The block table entries that `part` of the step just scheduled added to.
    pub fn blocks_of(&self, part: &Scheduled) -> &[u32] {
        &self.sequence(part.slot).held.blocks[part.blocks_before as usize..]
    }

    /// Prompt length of a scheduled request.
    pub fn prompt_tokens_of(&self, part: &Scheduled) -> u32 {
        self.sequence(part.slot).request.prompt_tokens
    }

    /// A part as its price is told: one token after the prompt is a decode (none), everything else a chunk.
    pub fn chunk_of(&self, part: &Scheduled) -> Option<Chunk> {
        let is_decode = part.tokens == 1 && part.before >= self.prompt_tokens_of(part);
        let samples = part.sampled > 0;
        (!is_decode).then_some(Chunk { tokens: part.tokens, before: part.before, samples })
    }

    pub(super) fn has_unfinished(&self) -> bool {
        !self.running.is_empty() || !self.waiting.is_empty() || !self.skipped.is_empty()
    }

    /// Whether the engine loop has a reason to call schedule(): requests, or (asynchronous mode) ends that
    /// the workers have not been told of.
    pub(super) fn has_requests(&self) -> bool {
        self.has_unfinished() || (self.config.async_scheduling && self.unflushed_ends)
    }

    pub(super) fn sequence(&self, slot: Slot) -> &Sequence {
        &self.sequences[slot as usize]
    }

    pub(super) fn sequence_mut(&mut self, slot: Slot) -> &mut Sequence {
        &mut self.sequences[slot as usize]
    }

    pub(super) fn add(&mut self, request: Request, now: Time) {
        let serial = self.next_serial;
        self.next_serial += 1;
        let id = request.id;
        let block_size = self.config.block_size;
        let slot = match self.vacant.pop() {
            Some(slot) => {
                let earlier = &mut self.sequences[slot as usize];
                *earlier = Sequence::new(serial, request, block_size, now, Some(earlier));
                slot
            }
            None => {
                self.sequences.push(Sequence::new(serial, request, block_size, now, None));
                (self.sequences.len() - 1) as Slot
            }
        };
        let earlier = self.slots.insert(id, slot);
        assert!(earlier.is_none(), "request {} was added while it was here", id.0);
        self.waiting.add(slot, &self.sequences[slot as usize]);
        self.begins_to_wait(slot);
    }

    /// Composes the next step into `step`.
    pub(super) fn schedule(&mut self, now: Time, step: &mut Step) {
        step.clear();
        self.blocked = None;
        let mut budget = self.config.max_num_batched_tokens;
        self.schedule_running(&mut budget, step);
        if step.preempted.is_empty() {
            self.admit(&mut budget, now, step);
        }
        self.composed += u64::from(!step.scheduled.is_empty());
        self.after_schedule(step);
    }

    fn schedule_running(&mut self, budget: &mut u32, step: &mut Step) {
        let mut position = 0;
        while position < self.running.len() && *budget > 0 {
            let slot = self.running[position];
            let sequence = self.sequence(slot);
            let tokens = self.tokens_wanted(sequence).min(*budget);
            if tokens == 0 {
                position += 1;
                continue;
            }
            let known = sequence.known() + sequence.placeholders;
            let drafts = (tokens + sequence.computed).saturating_sub(known);
            let before = sequence.computed;
            let blocks_before = sequence.held.blocks.len() as u32;
            let need = Need { tokens, external: 0, admission: false, reserved: 0 };
            self.hits.clear();
            let mut allocated = true;
            while !self.allocate(slot, need) {
                let victim = self.choose_victim();
                let victim_position =
                    self.running.iter().position(|&other| other == victim).unwrap_or_default();
                self.running.remove(victim_position);
                // A victim that already has its part in this step gives the tokens back. One that stands
                // before this request but was skipped moves the list under the position, as in vLLM.
                if let Some(part) = step.scheduled.iter().position(|part| part.slot == victim) {
                    *budget += step.scheduled.remove(part).tokens;
                    position -= 1;
                }
                self.preempt(victim, step);
                if victim == slot {
                    allocated = false;
                    break;
                }
            }
            if !allocated {
                break;
            }
            *budget -= tokens;
            step.scheduled.push(self.part(slot, tokens, before, drafts, false, blocks_before));
            position += 1;
        }
    }

    /// Tokens that a running request would compute next, were the budget large enough; 0 if none.
    pub(super) fn tokens_wanted(&self, sequence: &Sequence) -> u32 {
        if self.ends_in_flight(sequence) {
            return 0;
        }
        let known = sequence.known() + sequence.placeholders;
        let room = self.config.max_model_len.saturating_sub(sequence.computed + 1);
        let wanted = (known + sequence.drafts).saturating_sub(sequence.computed);
        self.below_threshold(wanted).min(room)
    }

    /// Asynchronous mode: its last token is on its way, by a limit that is known beforehand.
    fn ends_in_flight(&self, sequence: &Sequence) -> bool {
        let prompt = sequence.request.prompt_tokens;
        let max_tokens = self.max_tokens(&sequence.request);
        sequence.placeholders > 0
            && u64::from(sequence.computed) + 2
                >= u64::from(prompt) + u64::from(max_tokens) + u64::from(sequence.placeholders)
    }

    fn below_threshold(&self, tokens: u32) -> u32 {
        match self.config.long_prefill_token_threshold {
            0 => tokens,
            threshold => tokens.min(threshold),
        }
    }

    /// Who loses its blocks: the last admitted, or by the largest (priority, arrival), the first of equals.
    fn choose_victim(&self) -> Slot {
        let last = *self.running.last().expect("somebody runs while a running request is scheduled");
        match self.config.scheduling_policy {
            SchedulingPolicy::Fcfs => last,
            SchedulingPolicy::Priority => {
                let rank = |slot: Slot| {
                    let (priority, arrival, _) = self.sequence(slot).rank();
                    (priority, arrival)
                };
                let largest = self.running.iter().map(|&slot| rank(slot)).max();
                self.running.iter().copied().find(|&slot| Some(rank(slot)) == largest).unwrap_or(last)
            }
        }
    }

    fn preempt(&mut self, slot: Slot, step: &mut Step) {
        // It may find its own blocks again, so the private ones enter the table now.
        let cached = self.sequence(slot).held.registered;
        self.enter_table(slot, cached);
        let sequence = &mut self.sequences[slot as usize];
        sequence.tabled_blocks = sequence.tabled_blocks.max(cached);
        sequence.state = State::Preempted;
        sequence.computed = 0;
        sequence.drafts = 0;
        sequence.preemptions += 1;
        step.preempted.push(sequence.request.id);
        self.totals.preemptions += 1;
        self.give_back(slot);
        self.waiting.put_back(slot, &self.sequences[slot as usize]);
        self.begins_to_wait(slot);
    }

    pub(super) fn admit(&mut self, budget: &mut u32, now: Time, step: &mut Step) {
        self.blocked = None;
        while *budget > 0 && self.running.len() < self.config.max_num_seqs as usize {
            let Some((slot, from_skipped)) = self.next_waiting() else { break };
            if self.sequence(slot).state == State::WaitingForRemoteKvs {
                if !self.sequence(slot).load_finished {
                    self.pop_waiting(from_skipped);
                    self.passed_over.push(slot);
                    continue;
                }
                self.promote(slot);
            }
            let queries_before = step.cache_queries;
            if !self.try_admit(slot, from_skipped, budget, now, step) {
                self.blocked = Some(Blocked {
                    serial: self.sequence(slot).serial,
                    budget: *budget,
                    free_blocks: self.cache.free_count(),
                    table_changes: self.cache.table_changes(),
                    cache_queries: std::array::from_fn(|i| step.cache_queries[i] - queries_before[i]),
                });
                break;
            }
        }
        while let Some(slot) = self.passed_over.pop() {
            self.skipped.put_back(slot, &self.sequences[slot as usize]);
        }
    }

    /// The head of the waiting queues, and whether it is the skipped one's.
    pub(super) fn next_waiting(&self) -> Option<(Slot, bool)> {
        match (self.skipped.head(), self.waiting.head()) {
            (Some(skipped), Some(waiting)) => match self.config.scheduling_policy {
                SchedulingPolicy::Fcfs => Some((skipped, true)),
                SchedulingPolicy::Priority => {
                    let skipped_first = self.sequence(skipped).rank() < self.sequence(waiting).rank();
                    Some(if skipped_first { (skipped, true) } else { (waiting, false) })
                }
            },
            (Some(skipped), None) => Some((skipped, true)),
            (None, Some(waiting)) => Some((waiting, false)),
            (None, None) => None,
        }
    }

    fn pop_waiting(&mut self, from_skipped: bool) {
        let queue = if from_skipped { &mut self.skipped } else { &mut self.waiting };
        queue.pop();
    }

    /// Its remote KV has arrived: its full blocks enter the cache, and one token at least is computed here.
    fn promote(&mut self, slot: Slot) {
        let computed = self.sequence(slot).computed;
        self.register(slot, computed);
        let sequence = self.sequence_mut(slot);
        sequence.state = State::Waiting;
        if sequence.computed == sequence.known() {
            sequence.computed -= 1;
        }
    }

    /// Tries to admit the head of the waiting queue; `false` ends the pass.
    fn try_admit(
        &mut self,
        slot: Slot,
        from_skipped: bool,
        budget: &mut u32,
        now: Time,
        step: &mut Step,
    ) -> bool {
        self.hits.clear();
        let mut hit_tokens = 0;
        let mut external = 0;
        if self.sequence(slot).computed == 0 {
            hit_tokens = self.look_up(slot, step);
            let sequence = self.sequence(slot);
            // What has been loaded once is not loaded again, and after a preemption everything is recomputed.
            let may_load = sequence.preemptions == 0 && !sequence.load_finished;
            if may_load && self.config.kv_load_delay_steps > 0 {
                external = sequence.request.remote_tokens.saturating_sub(hit_tokens);
            }
        }
        if external > 0 {
            let reserved = self.blocks_still_needed();
            if !self.allocate(slot, Need { tokens: 0, external, admission: true, reserved }) {
                return false;
            }
            self.pop_waiting(from_skipped);
            let sequence = self.sequence_mut(slot);
            sequence.state = State::WaitingForRemoteKvs;
            sequence.computed = hit_tokens + external;
            step.loads_started.push((sequence.request.id, external));
            self.passed_over.push(slot);
            return true;
        }
        let sequence = self.sequence(slot);
        let before = sequence.computed + hit_tokens;
        let wanted = self.below_threshold(sequence.known() - before);
        if !self.config.enable_chunked_prefill && wanted > *budget {
            return false;
        }
        let tokens = wanted.min(*budget);
        if !self.allocate(slot, Need { tokens, external: 0, admission: true, reserved: 0 }) {
            return false;
        }
        self.pop_waiting(from_skipped);
        self.waits_no_more(slot);
        self.running.push(slot);
        self.clock.admitted(slot);
        *budget -= tokens;
        self.totals.all_admission_hit_tokens += u64::from(before);
        let sequence = &mut self.sequences[slot as usize];
        sequence.state = State::Running;
        sequence.admission = self.admissions;
        self.admissions += 1;
        sequence.computed = before;
        if sequence.preemptions == 0 {
            self.totals.first_admission_hit_tokens += u64::from(before);
            sequence.cached_tokens = before;
            step.new.push(sequence.request.id);
        } else {
            step.resumed.push(sequence.request.id);
        }
        if sequence.scheduled.is_none() {
            sequence.scheduled = Some(now);
        }
        step.scheduled.push(self.part(slot, tokens, before, 0, true, 0));
        true
    }

    pub(super) fn part(
        &self,
        slot: Slot,
        tokens: u32,
        before: u32,
        drafts: u32,
        admitted: bool,
        blocks_before: u32,
    ) -> Scheduled {
        let sequence = self.sequence(slot);
        Scheduled {
            slot,
            serial: sequence.serial,
            id: sequence.request.id,
            tokens,
            before,
            drafts,
            sampled: 0,
            sampled_before: sequence.sampled,
            admitted,
            blocks_before,
        }
    }

    /// Tokens count as computed from here on; asynchronous mode assumes the sampled ones.
    pub(super) fn after_schedule(&mut self, step: &mut Step) {
        self.unflushed_ends = false;
        for part in &mut step.scheduled {
            let sequence = &mut self.sequences[part.slot as usize];
            sequence.computed += part.tokens;
            sequence.drafts = 0;
            sequence.last_step = self.composed;
            self.totals.scheduled_tokens += u64::from(part.tokens);
            if sequence.computed < sequence.known() + sequence.placeholders {
                continue;
            }
            part.sampled = 1;
            sequence.last_sampling_step = self.composed;
            if let Some(speculation) = self.config.speculation
                && part.drafts > 0
            {
                part.sampled = speculation.sampled(part.drafts, part.id.0, sequence.verifications);
                sequence.verifications += 1;
            }
            sequence.sampled += part.sampled;
            if self.config.async_scheduling {
                sequence.placeholders += 1 + part.drafts;
                sequence.drafts = self.config.speculation.map_or(0, |s| s.num_speculative_tokens);
            }
        }
        let [queries, hits, ..] = step.cache_queries;
        self.totals.cache_queries += queries;
        self.totals.cache_hits += hits;
    }
}
