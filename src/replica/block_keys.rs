//! Identities of full blocks.
//!
//! Knows content and how it falls into blocks. Does not know blocks of the pool.

use std::num::NonZeroU64;

use crate::random::mix;
use crate::request::{Content, RequestId};

/// Identity of what stands in some blocks and of everything before them.
pub(super) type BlockKey = NonZeroU64;

/// Full blocks of a request whose tokens follow each other in one stream: block `j` of it is known by `key`
/// and `j`. A block in which two streams meet is a span of its own.
///
/// Where spans begin depends on what stands before them alone, so requests with the same tokens have the same
/// spans as far as they agree, and two requests whose span with the same key differs in length agree in all
/// the blocks that both have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Span {
    pub(super) key: BlockKey,
    /// Number of its first block within the request.
    pub(super) start: u32,
    /// Number of the first block behind it; the private stream behind the content has no end.
    pub(super) end: u32,
}

/// The spans of a request, made one after the other.
///
/// A key covers the chain of everything before it, so equal keys mean equal whole prefixes. Keys are 64 bits
/// of a well-mixed chain where vLLM takes 256: among the 10^5 blocks of a pool the chance of a false hit is
/// about 10^-9 for a run of 10^5 look-ups.
#[derive(Clone, Debug)]
pub(super) struct KeyChain {
    block_size: u32,
    private_stream: u64,
    run: usize,
    /// Tokens of the current run (or of the private stream behind the last run) already covered.
    offset: u32,
    last: u64,
    /// Blocks already covered.
    blocks: u32,
}

impl KeyChain {
    pub(super) fn new(block_size: u32, request: RequestId) -> KeyChain {
        let private_stream = Content::private_stream(request);
        KeyChain { block_size, private_stream, run: 0, offset: 0, last: 0, blocks: 0 }
    }

    /// The next span of `content`. The one in the private stream is the last.
    pub(super) fn next(&mut self, content: &Content) -> Span {
        let start = self.blocks;
        let whole = match content.runs().get(self.run) {
            Some(run) => (run.tokens - self.offset) / self.block_size,
            None => u32::MAX - start,
        };
        if whole > 0 {
            let (stream, position) = match content.runs().get(self.run) {
                Some(run) => (run.stream, run.position + self.offset),
                None => (self.private_stream, self.offset),
            };
            let key = chained(self.last, stream, position, self.block_size);
            self.last = mix(key ^ u64::from(whole));
            self.blocks += whole;
            self.cover(content, whole.saturating_mul(self.block_size));
            return Span { key: identity(key), start, end: self.blocks };
        }
        let mut left = self.block_size;
        while left > 0 {
            let (stream, position, tokens) = match content.runs().get(self.run) {
                Some(run) => (run.stream, run.position + self.offset, left.min(run.tokens - self.offset)),
                None => (self.private_stream, self.offset, left),
            };
            self.last = chained(self.last, stream, position, tokens);
            self.cover(content, tokens);
            left -= tokens;
        }
        self.blocks += 1;
        Span { key: identity(self.last), start, end: self.blocks }
    }

    /// Goes `tokens` on, which all lie in the current run.
    fn cover(&mut self, content: &Content, tokens: u32) {
        self.offset = self.offset.saturating_add(tokens);
        if content.runs().get(self.run).is_some_and(|run| self.offset == run.tokens) {
            self.run += 1;
            self.offset = 0;
        }
    }
}

fn chained(before: u64, stream: u64, position: u32, tokens: u32) -> u64 {
    mix(mix(before ^ mix(stream)) ^ (u64::from(position) << 32 | u64::from(tokens)))
}

fn identity(key: u64) -> BlockKey {
    NonZeroU64::new(key).unwrap_or(NonZeroU64::MIN)
}

/// Keys of the first `blocks` blocks of a request's tokens, if blocks had `block_size` tokens: as a gateway hashes prompts.
/// Tokens without an identity make keys that no other request has.
pub fn leading_keys(
    request: RequestId,
    content: &Content,
    block_size: u32,
    blocks: u32,
    keys: &mut Vec<u64>,
) {
    keys.clear();
    let mut chain = KeyChain::new(block_size, request);
    while keys.len() < blocks as usize {
        let span = chain.next(content);
        keys.extend((0..span.end.min(blocks) - span.start).map(|block| block_key(span.key, block).get()));
    }
}

/// The key of one block of a span.
pub(super) fn block_key(span: BlockKey, block: u32) -> BlockKey {
    identity(mix(span.get() ^ mix(u64::from(block))))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::request::ContentRun;

    fn run(stream: u64, tokens: u32) -> ContentRun {
        ContentRun { stream, position: 0, tokens }
    }

    /// The keys of the first `blocks` blocks.
    fn keys(content: &Content, request: u32, blocks: u32) -> Vec<BlockKey> {
        let mut chain = KeyChain::new(16, RequestId(request));
        let mut keys = Vec::new();
        while keys.len() < blocks as usize {
            let span = chain.next(content);
            assert_eq!(span.start as usize, keys.len());
            keys.extend(
                (span.start..span.end.min(blocks)).map(|block| block_key(span.key, block - span.start)),
            );
        }
        keys
    }

    #[test]
    fn keys_are_equal_exactly_as_long_as_the_prefix_is() {
        let content = |tail| Content::from_runs([run(1, 40), run(tail, 60)]);
        let (a, b) = (keys(&content(2), 0, 8), keys(&content(3), 0, 8));
        assert_eq!(a[..2], b[..2]);
        assert!((2..8).all(|block| a[block] != b[block]));
        let other_request = keys(&content(2), 1, 8);
        assert_eq!(a[..6], other_request[..6]);
        assert_ne!(a[6], other_request[6]);
    }

    #[test]
    fn a_longer_stretch_of_the_same_stream_begins_with_the_same_blocks() {
        let short = keys(&Content::from_runs([run(1, 40), run(2, 60)]), 0, 6);
        let long = keys(&Content::from_runs([run(1, 200)]), 0, 12);
        assert_eq!(short[..2], long[..2]);
        assert_ne!(short[2], long[2]);
        let distinct: std::collections::BTreeSet<_> = short.iter().chain(&long[2..]).collect();
        assert_eq!(distinct.len(), 16);
    }

    #[test]
    fn streams_that_meet_at_a_block_boundary_make_no_span_between_them() {
        let content = Content::from_runs([run(1, 512), run(2, 512), run(3, 100)]);
        let mut chain = KeyChain::new(16, RequestId(0));
        let ends: Vec<u32> = (0..5).map(|_| chain.next(&content).end).collect();
        assert_eq!(ends, [32, 64, 70, 71, u32::MAX]);
    }
}
