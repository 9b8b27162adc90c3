//! A trace that says nothing of who sent it.
//!
//! What is guaranteed: identities of sessions and of texts are replaced by keyed BLAKE3 hashes, so without the key nobody
//! can tell whether a known text or session is among them, and two traces under different keys cannot be joined; dates
//! are dropped, times count from the first request; lengths are rounded up to a multiple of the bucket, and where one shared
//! text ends within a prompt, down to one. What is not: the
//! pattern of arrivals, of lengths beyond the bucket, and of who shares with whom stays, for that is what a replay needs;
//! someone who knows such a pattern may recognise it.

use super::{Trace, TraceRow};
use crate::request::{Content, ContentRun};

/// Replaces identities under `key`, and rounds lengths up to multiples of `bucket_tokens`.
pub fn anonymise(trace: &mut Trace, key: &[u8; 32], bucket_tokens: u32) {
    let bucket = bucket_tokens.max(1);
    let down = |tokens: u32| tokens / bucket * bucket;
    let up = |tokens: u32| tokens.div_ceil(bucket).saturating_mul(bucket);
    let hashed = |kind: &[u8], id: u64| {
        let mut hasher = blake3::Hasher::new_keyed(key);
        hasher.update(kind).update(&id.to_le_bytes());
        let bytes: [u8; 8] =
            hasher.finalize().as_bytes()[..8].try_into().expect("a hash has more than eight bytes");
        u64::from_le_bytes(bytes)
    };
    for row in &mut trace.rows {
        let mut at = 0;
        let run = |run: &ContentRun| {
            // Where one text ends and the next begins is as telling as a length: both move back to the bucket's bound.
            let from = down(at);
            at += run.tokens;
            let position = down(run.position);
            ContentRun { stream: hashed(b"text", run.stream) >> 1, position, tokens: down(at) - from }
        };
        *row = TraceRow {
            prompt_tokens: up(row.prompt_tokens),
            output_tokens: up(row.output_tokens),
            max_tokens: row.max_tokens.map(up),
            content: Content::from_runs(row.content.runs().iter().map(run)),
            session: row.session.map(|session| hashed(b"session", session)),
            ..row.clone()
        };
    }
    trace.started_ps = 0;
}

/// A key from any text.
pub fn key_of(text: &[u8]) -> [u8; 32] {
    blake3::derive_key("tailcast trace identities, version 1", text)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// No length that is left tells more than the bucket.
    #[test]
    fn every_length_is_a_multiple_of_the_bucket() {
        let runs = [(7, 0, 641), (8, 13, 300), (9, 0, 5)];
        let runs = runs.map(|(stream, position, tokens)| ContentRun { stream, position, tokens });
        let row = TraceRow { content: Content::from_runs(runs), ..TraceRow::of_lengths(933, 70) };
        let mut trace = Trace { format: "t", rows: vec![row], notes: Default::default(), started_ps: 9 };
        anonymise(&mut trace, &key_of(b"a"), 16);
        let row = &trace.rows[0];
        assert_eq!((row.prompt_tokens, row.output_tokens), (944, 80));
        let runs: Vec<(u32, u32)> = row.content.runs().iter().map(|run| (run.position, run.tokens)).collect();
        assert_eq!(runs, [(0, 640), (0, 288), (0, 16)]);
    }

    #[test]
    fn sharing_stays_and_identities_go() {
        let run = |stream| ContentRun { stream, position: 0, tokens: 8 };
        let row = |id| TraceRow {
            content: Content::from_runs([run(7), run(id)]),
            session: Some(id),
            ..TraceRow::of_lengths(17, 3)
        };
        let trace =
            || Trace { format: "t", rows: vec![row(1), row(2)], notes: Default::default(), started_ps: 9 };
        let (mut one, mut again, mut other) = (trace(), trace(), trace());
        anonymise(&mut one, &key_of(b"a"), 8);
        anonymise(&mut again, &key_of(b"a"), 8);
        anonymise(&mut other, &key_of(b"b"), 8);
        assert_eq!(one.rows, again.rows);
        let streams = |trace: &Trace, row: usize| trace.rows[row].content.runs()[0].stream;
        assert_eq!(streams(&one, 0), streams(&one, 1));
        assert!(streams(&one, 0) != 7 && streams(&one, 0) != streams(&other, 0));
        assert_ne!(one.rows[0].session, one.rows[1].session);
        assert_eq!((one.rows[0].prompt_tokens, one.rows[0].output_tokens, one.started_ps), (24, 8, 0));
    }
}
