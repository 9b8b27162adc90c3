//! What a gateway believes to be cached where: its own past decisions, and nothing from the engines.
//!
//! Knows the keys of prompts' blocks, at a block size of its own, and which replica each was sent to. Forgets by size or by
//! age. Never learns that an engine has evicted something, so it may be wrong in both directions, silently.

use lru::LruCache;
use rustc_hash::{FxBuildHasher, FxHashMap};

use super::Server;
use crate::replica::block_keys::leading_keys;
use crate::request::Arrival;
use crate::time::{Span, Time};

/// How a belief is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keeping {
    /// Tokens of a block.
    pub block_tokens: u32,
    /// Blocks that are remembered of each replica; those used longest ago are forgotten.
    pub most_blocks: Option<usize>,
    /// What was not used for so long is forgotten.
    pub ttl: Option<Span>,
    /// Blocks of a prompt that are looked at.
    pub most_matched: u32,
}

/// Which blocks went where.
#[derive(Clone, Debug)]
pub struct Belief {
    keeping: Keeping,
    /// A table a replica: when each block was last sent there.
    replicas: Vec<LruCache<u64, Time, FxBuildHasher>>,
    /// How many replicas a block is believed to be at, so that a look-up ends where nobody has the next.
    holders: FxHashMap<u64, u32>,
    keys: Vec<u64>,
    /// What the last look-up found.
    matched: Vec<u32>,
}

impl Belief {
    /// Knows nothing yet.
    pub fn new(keeping: Keeping) -> Belief {
        Belief {
            keeping,
            replicas: Vec::new(),
            holders: FxHashMap::default(),
            keys: Vec::new(),
            matched: Vec::new(),
        }
    }

    /// Tokens of a block.
    pub fn block_tokens(&self) -> u32 {
        self.keeping.block_tokens
    }

    /// Leading whole blocks of the prompt that are believed to be at each of `servers`.
    ///
    /// With `gaps` a replica is credited with every block it has up to the first that nobody has, as llm-d's approximate
    /// producer does, whether it has those before or not.
    pub fn matched(&mut self, arrival: &Arrival, servers: usize, now: Time, gaps: bool) -> &[u32] {
        self.look_at(arrival, servers);
        let mut matched = std::mem::take(&mut self.matched);
        matched.clear();
        matched.resize(servers, 0);
        let oldest =
            self.keeping.ttl.map_or(Time::ZERO, |ttl| Time::ZERO + (now - Time::ZERO).saturating_sub(ttl));
        for (place, key) in self.keys.iter().enumerate() {
            if !self.holders.contains_key(key) {
                break;
            }
            let mut anybody = false;
            for (matched, blocks) in matched.iter_mut().zip(&self.replicas) {
                if (gaps || *matched == place as u32) && blocks.peek(key).is_some_and(|used| *used >= oldest)
                {
                    *matched += 1;
                    anybody = true;
                }
            }
            if !anybody {
                break;
            }
        }
        self.matched = matched;
        &self.matched
    }

    /// The same once more.
    pub fn last_matched(&self) -> &[u32] {
        &self.matched
    }

    /// The prompt was sent there.
    pub fn sent(&mut self, arrival: &Arrival, servers: usize, server: Server, now: Time) {
        self.look_at(arrival, servers.max(server + 1));
        let keys = std::mem::take(&mut self.keys);
        for &key in &keys {
            let blocks = &mut self.replicas[server];
            let Some((other, _)) = blocks.push(key, now) else {
                *self.holders.entry(key).or_insert(0) += 1;
                continue;
            };
            if other != key {
                *self.holders.entry(key).or_insert(0) += 1;
                self.forgotten(other);
            }
        }
        if let Some(ttl) = self.keeping.ttl {
            let oldest = Time::ZERO + (now - Time::ZERO).saturating_sub(ttl);
            while self.replicas[server].peek_lru().is_some_and(|(_, used)| *used < oldest) {
                if let Some((key, _)) = self.replicas[server].pop_lru() {
                    self.forgotten(key);
                }
            }
        }
        self.keys = keys;
    }

    /// Blocks that are believed to be at a replica.
    pub fn blocks_at(&self, server: Server) -> usize {
        self.replicas.get(server).map_or(0, LruCache::len)
    }

    fn forgotten(&mut self, key: u64) {
        if let Some(holders) = self.holders.get_mut(&key) {
            *holders -= 1;
            if *holders == 0 {
                self.holders.remove(&key);
            }
        }
    }

    fn look_at(&mut self, arrival: &Arrival, servers: usize) {
        if self.replicas.len() < servers {
            let table = || match self.keeping.most_blocks.and_then(std::num::NonZeroUsize::new) {
                Some(most) => {
                    let mut table = LruCache::unbounded_with_hasher(FxBuildHasher);
                    table.resize(most);
                    table
                }
                None => LruCache::unbounded_with_hasher(FxBuildHasher),
            };
            self.replicas.resize_with(servers, table);
        }
        let blocks = (arrival.prompt_tokens / self.keeping.block_tokens).min(self.keeping.most_matched);
        leading_keys(arrival.id, &arrival.content, self.keeping.block_tokens, blocks, &mut self.keys);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::router::tests::{at_s, prompt};

    fn keeping() -> Keeping {
        Keeping { block_tokens: 16, most_blocks: Some(4), ttl: None, most_matched: 1_000 }
    }

    #[test]
    fn whole_leading_blocks_match_until_they_are_forgotten() {
        let mut belief = Belief::new(keeping());
        let (long, short) = (prompt(0, 7, 50), prompt(1, 7, 40));
        belief.sent(&long, 2, 1, at_s(0));
        assert_eq!(belief.matched(&long, 2, at_s(1), false), [0, 3]);
        // The second lies within the first one's third block.
        assert_eq!(belief.matched(&short, 2, at_s(1), false), [0, 2]);
        assert_eq!(belief.matched(&prompt(2, 8, 50), 2, at_s(1), false), [0, 0]);
        // Two more blocks: the first of the old ones goes, and with it all that hangs on it.
        belief.sent(&prompt(3, 9, 32), 2, 1, at_s(2));
        assert_eq!(belief.matched(&long, 2, at_s(3), false), [0, 0]);
        assert_eq!(belief.blocks_at(1), 4);
    }

    #[test]
    fn age_forgets_too_and_gaps_are_credited_where_they_are() {
        let mut belief = Belief::new(Keeping { ttl: Some(Span::from_s(10)), most_blocks: None, ..keeping() });
        belief.sent(&prompt(0, 7, 64), 2, 0, at_s(0));
        assert_eq!(belief.matched(&prompt(1, 7, 64), 2, at_s(10), false), [4, 0]);
        assert_eq!(belief.matched(&prompt(1, 7, 64), 2, at_s(11), false), [0, 0]);
        let mut belief = Belief::new(keeping());
        belief.sent(&prompt(0, 7, 64), 2, 0, at_s(0));
        // Of replica 1 the first two blocks are pushed out by two others: two of four are left.
        belief.sent(&prompt(1, 7, 64), 2, 1, at_s(1));
        belief.sent(&prompt(2, 8, 32), 2, 1, at_s(2));
        assert_eq!(belief.matched(&prompt(3, 7, 64), 2, at_s(3), true), [4, 2]);
        assert_eq!(belief.matched(&prompt(3, 7, 64), 2, at_s(3), false), [4, 0]);
    }
}
