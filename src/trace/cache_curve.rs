//! How much of its prompts a trace would find again in one cache of a given size.
//!
//! Knows a cache that forgets what was used longest ago. A hit is a leading identity that is still there. Does not know
//! replicas: with several, each sees a part of the trace.

use rustc_hash::FxHashMap;
use serde::Serialize;

use super::TraceRow;

/// One size of a cache and what it finds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct CachePoint {
    /// Identified stretches (blocks, where the trace has blocks) that fit.
    pub blocks: u64,
    /// Tokens of all prompts in the cache when it is full, by the mean length of a stretch.
    pub tokens: u64,
    /// Share of the references to stretches that hit.
    pub block_share: f64,
    /// Share of all prompt tokens that hit.
    pub prompt_token_share: f64,
}

/// The curve at these sizes; empty for a trace without identities.
pub fn cache_curve(rows: &[TraceRow], sizes: &[u64]) -> Vec<CachePoint> {
    let references: u64 = rows.iter().map(|row| row.content.runs().len() as u64).sum();
    if references == 0 {
        return Vec::new();
    }
    let tokens: u64 = rows.iter().map(|row| u64::from(row.content.tokens())).sum();
    let prompts: u64 = rows.iter().map(|row| u64::from(row.prompt_tokens)).sum();
    let numbers = numbered(rows);
    let point = |&blocks: &u64| {
        let (hits, hit_tokens) = replay(rows, &numbers, blocks);
        CachePoint {
            blocks,
            tokens: (blocks as f64 * tokens as f64 / references as f64).round() as u64,
            block_share: hits as f64 / references as f64,
            prompt_token_share: hit_tokens as f64 / prompts as f64,
        }
    };
    sizes.iter().map(point).collect()
}

/// Sizes that span what the trace uses: doubling up to the number of different stretches.
pub fn cache_sizes(rows: &[TraceRow]) -> Vec<u64> {
    let numbers = numbered(rows);
    let distinct = numbers.iter().flatten().max().map_or(0, |most| u64::from(*most) + 1);
    let mut sizes: Vec<u64> = (0..12).map(|halvings| distinct >> halvings).filter(|&size| size > 0).collect();
    sizes.reverse();
    sizes.dedup();
    sizes
}

/// Each row's stretches by number, equal where all before them is equal too: a cache finds a block only behind those that
/// led to it.
fn numbered(rows: &[TraceRow]) -> Vec<Vec<u32>> {
    let mut numbers: FxHashMap<(u64, u32, u32), u32> = FxHashMap::default();
    let of = |row: &TraceRow| {
        let runs = row.content.runs().iter();
        runs.map(|run| {
            let next = numbers.len() as u32;
            *numbers.entry((run.stream, run.position, run.tokens)).or_insert(next)
        })
        .collect()
    };
    rows.iter().map(of).collect()
}

/// Hits, and tokens in them, of a cache that holds `blocks` stretches.
fn replay(rows: &[TraceRow], numbers: &[Vec<u32>], blocks: u64) -> (u64, u64) {
    let count = numbers.iter().flatten().max().map_or(0, |most| *most as usize + 1);
    let mut list = Recency::new(count);
    let (mut hits, mut hit_tokens) = (0, 0);
    for (row, numbers) in rows.iter().zip(numbers) {
        let leading = numbers.iter().take_while(|&&number| list.holds(number)).count();
        hits += leading as u64;
        let found = row.content.runs()[..leading].iter().map(|run| u64::from(run.tokens)).sum::<u64>();
        hit_tokens += found.min(u64::from(row.prompt_tokens));
        // The deepest are used longest ago, as in vLLM: a prefix outlives what hangs on it.
        for &number in numbers.iter().rev() {
            list.touch(number);
            if list.held > blocks {
                list.forget_oldest();
            }
        }
    }
    (hits, hit_tokens)
}

/// Who was used when: a list through arrays, newest first.
struct Recency {
    newer: Vec<u32>,
    older: Vec<u32>,
    held: u64,
}

/// Not in the list.
const OUT: u32 = u32::MAX;

impl Recency {
    fn new(count: usize) -> Recency {
        // The entry behind the last is head and tail of the ring.
        let mut list = Recency { newer: vec![OUT; count + 1], older: vec![OUT; count + 1], held: 0 };
        (list.newer[count], list.older[count]) = (count as u32, count as u32);
        list
    }

    fn ring(&self) -> usize {
        self.newer.len() - 1
    }

    fn holds(&self, number: u32) -> bool {
        self.newer[number as usize] != OUT
    }

    fn remove(&mut self, number: u32) {
        let (newer, older) = (self.newer[number as usize], self.older[number as usize]);
        self.older[newer as usize] = older;
        self.newer[older as usize] = newer;
        self.newer[number as usize] = OUT;
        self.held -= 1;
    }

    fn touch(&mut self, number: u32) {
        if self.holds(number) {
            self.remove(number);
        }
        let ring = self.ring();
        let newest = self.older[ring];
        (self.newer[number as usize], self.older[number as usize]) = (ring as u32, newest);
        self.newer[newest as usize] = number;
        self.older[ring] = number;
        self.held += 1;
    }

    fn forget_oldest(&mut self) {
        let oldest = self.newer[self.ring()];
        self.remove(oldest);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::request::{Content, ContentRun};

    #[test]
    fn what_was_used_longest_ago_goes_first() {
        let row = |ids: &[u64]| {
            let run = |&stream: &u64| ContentRun { stream, position: 0, tokens: 4 };
            TraceRow { content: Content::from_runs(ids.iter().map(run)), ..TraceRow::of_lengths(10, 1) }
        };
        let rows = [row(&[1, 2]), row(&[3]), row(&[1, 2]), row(&[3])];
        let share = |blocks| cache_curve(&rows, &[blocks])[0].block_share;
        // Of two blocks, 3 drives out 2, and then 2 drives out 3 while 1 stays at the front.
        assert_eq!((share(3), share(2), share(1)), (0.5, 1.0 / 6.0, 0.0));
        assert_eq!(cache_sizes(&rows), [1, 3]);
        assert!(cache_curve(&[TraceRow::of_lengths(1, 1)], &[5]).is_empty());
    }
}
