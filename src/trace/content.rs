//! Identities of prompt tokens as traces write them: a shared prefix, or ids of equal blocks.
//!
//! Knows how they become runs. Does not know which format they came from.

use crate::random::mix;
use crate::request::{Content, ContentRun};

/// Identities from here on are kept for tokens that no other request shares.
const FIRST_PRIVATE: u64 = 1 << 63;

/// An identity that may stand in a stream: small ones as they are, those that need all 64 bits (hashes) mixed into 63.
/// Two of n hashes fall together with a chance of n^2 / 2^64.
pub(super) const fn stream(id: u64) -> u64 {
    if id < FIRST_PRIVATE { id } else { mix(id) >> 1 }
}

/// An identity that means something within `scope` alone: a file, a conversation.
pub(super) const fn local_stream(id: u64, scope: u64) -> u64 {
    mix(id ^ mix(scope)) >> 1
}

/// The identity of a text.
pub(super) fn text_id(text: &str) -> u64 {
    // FNV-1a, mixed: stable between versions and machines, as results must be.
    let hash = text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    mix(hash)
}

/// The first `tokens` tokens of the shared text `prefix`.
pub(super) fn prefix(prefix: u64, tokens: u32) -> Content {
    Content::from_runs([ContentRun { stream: stream(prefix), position: 0, tokens }])
}

/// Blocks of `block_tokens` tokens each from the prompt's start, the last one cut at the prompt's end. The caller has
/// checked that the last block begins within the prompt.
pub(super) fn blocks(prompt_tokens: u32, block_tokens: u32, ids: &[u64]) -> Content {
    let mut left = prompt_tokens;
    Content::from_runs(ids.iter().map(|&id| {
        let tokens = block_tokens.min(left);
        left -= tokens;
        ContentRun { stream: stream(id), position: 0, tokens }
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_identity_has_a_stream() {
        assert_eq!(stream(7), 7);
        assert!(stream(u64::MAX) < FIRST_PRIVATE && stream(u64::MAX) != stream(u64::MAX - 1));
        assert_ne!(local_stream(1, 2), local_stream(1, 3));
        assert_ne!(text_id("a"), text_id("b"));
    }
}
