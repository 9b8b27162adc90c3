//! KV-cache slots for requests: look-up, allocation and registration, as vLLM's `KVCacheManager` does them.
//!
//! Knows what a request needs and what the cache holds. Does not know the order in which requests ask.
//! After `vllm/v1/core/kv_cache_manager.py`.

use super::block_keys::{KeyChain, Span, block_key};
use super::kv_events::{Announced, EventLog, KvEvent};
use super::scheduler::Scheduler;
use super::sequence::{Slot, State};
use super::step::Step;
use crate::request::{Content, RequestId};

/// How an allocation is asked for.
#[derive(Clone, Copy)]
pub(super) struct Need {
    /// New tokens to compute.
    pub(super) tokens: u32,
    /// Tokens that another server's KV supplies.
    pub(super) external: u32,
    /// Ask for room for the whole known sequence.
    pub(super) admission: bool,
    /// Blocks that others in the middle of a prefill still need.
    pub(super) reserved: u32,
}

impl Scheduler {
    /// Leading prompt tokens of a request, which is not here yet, whose whole blocks stand in the prefix cache now: what an
    /// index of the engine's KV events would say. Counts no look-up and changes no order.
    pub fn cached_tokens(&self, request: RequestId, content: &Content, prompt_tokens: u32) -> u32 {
        let block_size = self.config.block_size;
        let most = content.tokens().min(prompt_tokens) / block_size;
        let mut chain = KeyChain::new(block_size, request);
        let (mut start, mut found) = (0, 0);
        while self.config.enable_prefix_caching && start < most {
            let span = chain.next(content);
            let blocks = span.end.min(most) - span.start;
            let of_span = self.cache.count_found(span.key, blocks);
            found += of_span;
            if of_span < blocks {
                break;
            }
            start = span.end;
        }
        found * block_size
    }

    /// Finds the longest cached prefix into `hits` and counts the look-up; returns its tokens.
    pub(super) fn look_up(&mut self, slot: Slot, step: &mut Step) -> u32 {
        if !self.config.enable_prefix_caching {
            return 0;
        }
        let block_size = self.config.block_size;
        let sequence = &mut self.sequences[slot as usize];
        // The last token must be computed for its logits, so a fully cached prompt loses a whole block.
        let most = ((sequence.known() - 1) / block_size).min(sequence.findable_blocks());
        for span in sequence.spans(most).0.iter().take_while(|span| span.start < most) {
            let blocks = span.end.min(most) - span.start;
            if self.cache.look_up(span.key, blocks, &mut self.hits) < blocks {
                break;
            }
        }
        if self.config.speculation.is_some_and(|speculation| speculation.eagle) {
            self.hits.pop();
        }
        let hit_tokens = self.hits.len() * block_size;
        let counters = if sequence.preemptions == 0 { 0 } else { 2 };
        step.cache_queries[counters] += u64::from(sequence.known());
        step.cache_queries[counters + 1] += u64::from(hit_tokens);
        hit_tokens
    }

    /// Blocks that requests in the middle of a prefill or of a load still need for what they know.
    pub(super) fn blocks_still_needed(&self) -> u32 {
        let in_prefill = self.running.iter().copied().filter(|&slot| {
            let sequence = self.sequence(slot);
            sequence.computed < sequence.known()
        });
        let loading = self.skipped.iter().chain(self.passed_over.iter().copied());
        let loading = loading.filter(|&slot| self.sequence(slot).computed > 0);
        in_prefill
            .chain(loading)
            .map(|slot| {
                let sequence = self.sequence(slot);
                let whole = self.config.blocks_for(sequence.known().min(self.config.max_model_len));
                whole.saturating_sub(sequence.held.blocks.len() as u32)
            })
            .sum()
    }

    /// vLLM's `allocate_slots`: blocks for `need` on top of what the request holds and of `self.hits`.
    /// `false` changes nothing.
    pub(super) fn allocate(&mut self, slot: Slot, need: Need) -> bool {
        let config = &self.config;
        let sequence = &self.sequences[slot as usize];
        let watermark = if need.admission && !self.running.is_empty() { config.watermark_blocks } else { 0 };
        let held = sequence.held.blocks.len() as u32 + self.hits.len();
        let evictable = self.cache.count_evictable(&self.hits);
        let free = self.cache.free_count();
        let fits = |total_tokens: u32, free: u32| {
            let blocks = config.blocks_for(total_tokens.min(config.max_model_len)).saturating_sub(held);
            blocks + evictable + watermark <= free
        };
        if need.admission && config.scheduler_reserve_full_isl && !fits(sequence.known(), free) {
            return false;
        }
        let computed = sequence.computed + self.hits.len() * config.block_size + need.external;
        let lookahead = match config.speculation {
            // A load brings no draft with it.
            Some(speculation) if speculation.eagle && need.external == 0 => {
                speculation.num_speculative_tokens
            }
            _ => 0,
        };
        let total = computed + need.tokens + lookahead;
        if need.reserved > free || !fits(total, free - need.reserved) {
            return false;
        }
        let wanted = config.blocks_for(total.min(config.max_model_len)).saturating_sub(held);
        let held = &mut self.sequences[slot as usize].held;
        self.cache.hold(&self.hits, held);
        self.cache.take(wanted, &mut held.blocks);
        if need.external == 0 {
            let tokens = (computed + need.tokens).min(self.sequence(slot).known());
            self.register(slot, tokens);
        }
        true
    }

    /// The full blocks among the first `tokens` tokens are cached from here on; those that others could ask for
    /// enter the prefix-cache table.
    pub(super) fn register(&mut self, slot: Slot, tokens: u32) {
        if !self.config.enable_prefix_caching {
            return;
        }
        let full = tokens / self.config.block_size;
        let sequence = &mut self.sequences[slot as usize];
        if full <= sequence.held.registered {
            return;
        }
        let before = std::mem::replace(&mut sequence.held.registered, full);
        match self.publishes() {
            Some(Announced::All) => self.announce(slot, before, full),
            Some(Announced::Findable) => {
                let findable = self.sequence(slot).identified_blocks().min(full);
                self.announce(slot, before.min(findable), findable);
            }
            None => {}
        }
        let sequence = &mut self.sequences[slot as usize];
        let identified = sequence.identified_blocks().min(full);
        self.enter_table(slot, identified);
    }

    /// From here on it keeps events of what is cached and lost.
    pub(super) fn publish(&mut self, announced: Announced) {
        self.cache.log = Some(Box::new(EventLog::new(self.config.num_gpu_blocks, announced)));
    }

    /// What it keeps events of, if of anything.
    pub(super) fn publishes(&self) -> Option<Announced> {
        self.cache.log.as_ref().map(|log| log.announced)
    }

    /// The events since the last call.
    pub(super) fn take_kv_events(&mut self) -> Vec<KvEvent> {
        self.cache.log.as_mut().map_or_else(Vec::new, |log| log.take())
    }

    /// Tells those who listen of full blocks number `from` to `to`.
    fn announce(&mut self, slot: Slot, from: u32, to: u32) {
        let (spans, held) = self.sequences[slot as usize].spans(to);
        let Some(log) = &mut self.cache.log else { return };
        let mut span = spans.partition_point(|span| span.end <= from);
        for block in from..to {
            if spans[span].end == block {
                span += 1;
            }
            let Span { key, start, .. } = spans[span];
            log.stored(held.blocks[block as usize], block_key(key, block - start));
        }
    }

    /// Puts the leading `count` blocks, all of them full, into the prefix-cache table.
    pub(super) fn enter_table(&mut self, slot: Slot, count: u32) {
        if count <= self.sequence(slot).held.in_table {
            return;
        }
        let (spans, held) = self.sequences[slot as usize].spans(count);
        // What it has in the table ends in the last span it holds there, or at that span's end.
        let behind = spans.get(held.spans.len().wrapping_sub(1)).is_some_and(|last| last.end > held.in_table);
        for span in &spans[held.spans.len() - usize::from(behind)..] {
            if span.start >= count {
                break;
            }
            self.cache.register(span.key, span.start, span.end.min(count), held);
        }
    }

    /// Laws 2 and 5 as far as they show between steps.
    ///
    /// # Panics
    /// Where a law is broken.
    pub(super) fn check(&self) {
        let here = self.running.iter().copied().chain(self.waiting.iter()).chain(self.skipped.iter());
        let held = here.map(|slot| &self.sequence(slot).held);
        let fenced = self.fenced.iter().map(|(_, held)| held);
        let loading = self.loading.iter().map(|(_, held)| held);
        self.cache.check(held.chain(fenced).chain(loading));
        for &slot in &self.running {
            let sequence = self.sequence(slot);
            assert_eq!(sequence.state, State::Running, "the running list holds one that does not run");
            assert!(
                sequence.computed <= sequence.held.blocks.len() as u32 * self.config.block_size,
                "law 2: tokens are computed that have no block"
            );
        }
        assert!(self.running.len() <= self.config.max_num_seqs as usize, "max_num_seqs is exceeded");
    }
}
