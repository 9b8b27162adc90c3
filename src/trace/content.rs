//! Identities of prompt tokens as traces write them: a shared prefix, or ids of equal blocks.
//!
//! Knows how they become runs. Does not know which format they came from.

use crate::request::{Content, ContentRun};

/// Identities from here on are kept for tokens that no other request shares.
const FIRST_PRIVATE: u64 = 1 << 63;

/// What is expected of an identity, where the functions here answer with none.
pub(super) const IDENTITY_EXPECTED: &str = "an id below 2^63 (9223372036854775808)";

/// The first `tokens` tokens of the shared text `prefix`; none for an id that is too large.
pub(super) fn prefix(prefix: u64, tokens: u32) -> Option<Content> {
    let run = ContentRun { stream: prefix, position: 0, tokens };
    (prefix < FIRST_PRIVATE).then(|| Content::from_runs([run]))
}

/// Blocks of `block_tokens` tokens each from the prompt's start, the last one cut at the prompt's end; none
/// if an id is too large. The caller has checked that the last block begins within the prompt.
pub(super) fn blocks(prompt_tokens: u32, block_tokens: u32, ids: &[u64]) -> Option<Content> {
    if ids.iter().any(|&id| id >= FIRST_PRIVATE) {
        return None;
    }
    let mut left = prompt_tokens;
    Some(Content::from_runs(ids.iter().map(|&stream| {
        let tokens = block_tokens.min(left);
        left -= tokens;
        ContentRun { stream, position: 0, tokens }
    })))
}
