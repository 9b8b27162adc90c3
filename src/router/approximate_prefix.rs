//! llm-d's approximate prefix producer: a belief in blocks of 64 tokens, a least-recently-used list of 31,250 a replica.
//!
//! `approx-prefix-cache-producer`: at most 131,072 tokens of a prompt are matched, the belief grows when a decision takes
//! effect and learns nothing of evictions, and a replica may be credited with blocks behind a gap. The default counts entries
//! as engine blocks of 16 tokens while it hashes 64, so it believes in about four times what an engine can hold.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Server;
use super::belief::{Belief, Keeping};
use crate::request::Arrival;
use crate::time::Time;

/// How prefixes are matched.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Parameters {
    /// Tokens of a hashed block.
    pub block_size_tokens: u32,
    /// Blocks remembered of each replica.
    pub lru_capacity_per_server: u32,
    /// Tokens of a prompt that are matched at most.
    pub max_prefix_tokens: u32,
}

impl Default for Parameters {
    fn default() -> Self {
        Parameters { block_size_tokens: 64, lru_capacity_per_server: 31_250, max_prefix_tokens: 131_072 }
    }
}

impl Parameters {
    /// What is wrong with them, if anything.
    pub fn problem(&self) -> Option<&'static str> {
        let whole = self.block_size_tokens > 0 && self.lru_capacity_per_server > 0;
        (!whole).then_some("`block_size_tokens` and `lru_capacity_per_server` must be at least 1")
    }
}

/// What is believed to be cached where.
#[derive(Clone, Debug)]
pub struct ApproximatePrefix {
    belief: Belief,
    servers: usize,
    /// What the last look-up found.
    cached: Vec<u32>,
}

impl ApproximatePrefix {
    /// Believes nothing yet.
    pub fn new(parameters: &Parameters) -> ApproximatePrefix {
        let block_tokens = parameters.block_size_tokens;
        let keeping = Keeping {
            block_tokens,
            most_blocks: Some(parameters.lru_capacity_per_server as usize),
            ttl: None,
            most_matched: parameters.max_prefix_tokens / block_tokens,
        };
        ApproximatePrefix { belief: Belief::new(keeping), servers: 0, cached: Vec::new() }
    }

    /// Tokens of a hashed block.
    pub fn block_tokens(&self) -> u32 {
        self.belief.block_tokens()
    }

    /// Prompt tokens believed to be cached at each replica.
    pub fn cached_tokens(&mut self, arrival: &Arrival, servers: usize, now: Time) -> &[u32] {
        self.servers = self.servers.max(servers);
        let size = self.belief.block_tokens();
        let blocks = self.belief.matched(arrival, servers, now, true);
        self.cached.clear();
        self.cached.extend(blocks.iter().map(|blocks| blocks * size));
        &self.cached
    }

    /// The request's prompt was sent there.
    pub fn sent(&mut self, arrival: &Arrival, server: Server, at: Time) {
        self.belief.sent(arrival, self.servers.max(server + 1), server, at);
    }
}
