//! Tokens that a gateway counts as outstanding at each replica.
//!
//! Knows what was charged for each request and where, and what will be charged for a request whose decision has not taken
//! effect. When a charge is released is the policy's choice.

use rustc_hash::FxHashMap;

use super::Server;
use crate::request::RequestId;

/// Charges by request, and their sums by replica.
#[derive(Clone, Debug, Default)]
pub struct InFlightTokens {
    charges: FxHashMap<RequestId, (Server, u64)>,
    sums: Vec<u64>,
    /// Of requests whose decision has not taken effect.
    decided: FxHashMap<RequestId, u64>,
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

    /// Keeps in mind what a request will be charged as soon as its decision takes effect.
    pub fn decide(&mut self, id: RequestId, tokens: u64) {
        self.decided.insert(id, tokens);
    }

    /// Charges what was decided, or `otherwise` if another gateway decided it.
    pub fn commit(&mut self, id: RequestId, server: Server, otherwise: u64) {
        let tokens = self.decided.remove(&id).unwrap_or(otherwise);
        self.charge(id, server, tokens);
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
