//! Tokens that a gateway counts as outstanding at each replica.
//!
//! Knows what was charged for each request and where. When a charge is released is the policy's choice.

use rustc_hash::FxHashMap;

use super::Server;
use crate::request::RequestId;

/// Charges by request, and their sums by replica.
#[derive(Clone, Debug, Default)]
pub struct InFlightTokens {
    charges: FxHashMap<RequestId, (Server, u64)>,
    sums: Vec<u64>,
}

impl InFlightTokens {
    /// Charges `tokens` of a request to a replica.
    pub fn charge(&mut self, id: RequestId, server: Server, tokens: u64) {
        if self.sums.len() <= server {
            self.sums.resize(server + 1, 0);
        }
        self.sums[server] += tokens;
        self.charges.insert(id, (server, tokens));
    }

    /// Releases what a request was charged, if it still is.
    pub fn release(&mut self, id: RequestId) {
        if let Some((server, tokens)) = self.charges.remove(&id) {
            self.sums[server] -= tokens;
        }
    }

    /// What is outstanding at a replica.
    pub fn at(&self, server: Server) -> u64 {
        self.sums.get(server).copied().unwrap_or(0)
    }
}
