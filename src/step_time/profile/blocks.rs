//! Attention of calls that hold prompt chunks, as thread blocks on multiprocessors.
//!
//! FlashAttention gives every sequence and head one thread block for each 64 queries of the call's longest chunk. A
//! block takes a start and a time for each key it reads; blocks of sequences with fewer queries come up empty and
//! leave. A decode is a chunk of one query, so it loses packed heads and split KV. The call lasts as its slowest
//! block, or as all blocks spread over the multiprocessors: in whole waves where all chunks are alike, with half
//! of the longest block on top where they are not.
//!
//! Four coefficients are fitted to the profile's rows by least squares of relative errors. What the form misses is
//! measured too: its ratio to each row is kept on the grid of the profile ([`Ratios`]), and a batch of several chunks
//! takes the ratio of one chunk with all of their tokens. So a measured call costs what was measured, and the form
//! only bridges what no profile holds: several chunks in one call, and unequal contexts.

use nalgebra::{Matrix4, Vector4};

use super::curve::bracket;
use super::folder::AttentionRow;
use crate::step_time::{Batch, Chunk};

/// Queries of a thread block.
const BLOCK_QUERIES: f64 = 64.0;
/// The share of the longest block that the last wave waits for where blocks differ: half of it in the mean.
const TAIL: f64 = 0.5;
/// Rounds of choosing, for each row, what binds it, and fitting; choices settle after a few.
const FIT_ROUNDS: usize = 12;

/// What one call asks of the card: the two sums it may be bound by, as amounts of the four coefficients.
#[derive(Clone, Copy, Debug)]
struct Work {
    spread: Vector4<f64>,
    longest: Vector4<f64>,
}

/// Microseconds: a call, a block's start, a key, an empty block.
type Coefficients = Vector4<f64>;

/// Attention of one layer in calls with chunks.
#[derive(Clone, Debug)]
pub(super) struct ThreadBlocks {
    heads: f64,
    sm_count: f64,
    coefficients: Coefficients,
    ratios: Option<Ratios>,
}

impl ThreadBlocks {
    /// Fits the form to the rows with a chunk; none if fewer than ten were measured.
    pub(super) fn fit(rows: &[AttentionRow], heads: u32, sm_count: u32) -> Option<ThreadBlocks> {
        let mut blocks = ThreadBlocks {
            heads: f64::from(heads),
            sm_count: f64::from(sm_count),
            coefficients: Vector4::new(5.0, 4.0, 0.03, 0.3),
            ratios: None,
        };
        let rows: Vec<AttentionRow> = rows.iter().filter(|row| row.chunk > 0.0).copied().collect();
        if rows.len() < 10 {
            return None;
        }
        let works: Vec<Work> = rows.iter().map(|row| blocks.work_of(row)).collect();
        for _ in 0..FIT_ROUNDS {
            let (mut normal, mut right) = (Matrix4::zeros(), Vector4::zeros());
            for (work, row) in works.iter().zip(&rows) {
                let amounts = work.binding(&blocks.coefficients) / row.us;
                normal += amounts * amounts.transpose();
                right += amounts;
            }
            blocks.coefficients = normal.cholesky()?.solve(&right).map(|value| value.max(0.0));
        }
        let ratios = Ratios::new(&rows, |row| row.us / blocks.form_us(&blocks.work_of(row)));
        Some(ThreadBlocks { ratios, ..blocks })
    }

    /// Microseconds of one layer's call for this batch, which holds at least one chunk.
    pub(super) fn us(&self, batch: &Batch<'_>) -> f64 {
        let form = self.form_us(&self.work(batch));
        let Some(ratios) = &self.ratios else { return form };
        let tokens: f64 = batch.chunks.iter().map(|chunk| f64::from(chunk.tokens)).sum();
        let keys: f64 =
            batch.chunks.iter().map(|chunk| f64::from(chunk.tokens) * f64::from(chunk.before)).sum();
        let count = f64::from(batch.decodes.count);
        let context = if count > 0.0 { batch.decodes.context_sum as f64 / count } else { 0.0 };
        form * ratios.at([tokens, keys / tokens.max(1.0), count, context])
    }

    fn form_us(&self, work: &Work) -> f64 {
        work.spread.dot(&self.coefficients).max(work.longest.dot(&self.coefficients))
    }

    fn work_of(&self, row: &AttentionRow) -> Work {
        let chunk = Chunk { tokens: row.chunk as u32, before: row.before as u32, samples: false };
        let count = row.decodes as u32;
        let decodes = crate::step_time::Decodes {
            count,
            context_sum: u64::from(count) * row.context as u64,
            context_max: row.context as u32,
        };
        self.work(&Batch { chunks: &[chunk], decodes })
    }

    fn work(&self, batch: &Batch<'_>) -> Work {
        let blocks_of = |queries: f64| (queries / BLOCK_QUERIES).ceil();
        let most = batch.chunks.iter().map(|chunk| blocks_of(f64::from(chunk.tokens))).fold(1.0, f64::max);
        let (mut full, mut keys, mut empty, mut longest) = (0.0, 0.0, 0.0, 0.0_f64);
        for chunk in batch.chunks {
            let (queries, before) = (f64::from(chunk.tokens), f64::from(chunk.before));
            let blocks = blocks_of(queries);
            full += blocks;
            empty += most - blocks;
            // Block j of b reads the chunk up to its own last query: 64 (1 + ... + (b - 1)) keys, and all q.
            keys += blocks * before + BLOCK_QUERIES * blocks * (blocks - 1.0) / 2.0 + queries;
            longest = longest.max(before + queries);
        }
        let count = f64::from(batch.decodes.count);
        let alone = batch.chunks.len() == 1 && count == 0.0;
        full += count;
        keys += batch.decodes.context_sum as f64;
        empty += count * (most - 1.0);
        longest = longest.max(f64::from(batch.decodes.context_max));
        let spread = if alone {
            let waves = (self.heads * full / self.sm_count).ceil();
            Vector4::new(1.0, waves, waves * keys / full, 0.0)
        } else {
            let share = self.heads / self.sm_count;
            Vector4::new(1.0, share * full + TAIL, share * keys + TAIL * longest, share * empty)
        };
        Work { spread, longest: Vector4::new(1.0, 1.0, longest, 0.0) }
    }
}

impl Work {
    fn binding(&self, coefficients: &Coefficients) -> Vector4<f64> {
        let spread_binds = self.spread.dot(coefficients) >= self.longest.dot(coefficients);
        if spread_binds { self.spread } else { self.longest }
    }
}

/// Measured times over those of the form, on a grid of chunk tokens, tokens before, decodes and their context.
#[derive(Clone, Debug)]
struct Ratios {
    /// Chunks without decodes: the first two axes.
    alone: Grid<2>,
    /// Chunks beside decodes: all four.
    mixed: Option<Grid<4>>,
}

impl Ratios {
    fn new(rows: &[AttentionRow], ratio: impl Fn(&AttentionRow) -> f64) -> Option<Ratios> {
        let place = |row: &AttentionRow| [row.chunk, row.before, row.decodes, row.context];
        let (mixed, alone): (Vec<&AttentionRow>, Vec<&AttentionRow>) =
            rows.iter().partition(|row| row.decodes > 0.0);
        Some(Ratios {
            alone: Grid::new(alone.iter().map(|row| ([row.chunk, row.before], ratio(row))).collect())?,
            mixed: Grid::new(mixed.iter().map(|row| (place(row), ratio(row))).collect()),
        })
    }

    fn at(&self, [tokens, before, decodes, context]: [f64; 4]) -> f64 {
        match &self.mixed {
            Some(mixed) if decodes > 0.0 => mixed.at([tokens, before, decodes, context]),
            _ => self.alone.at([tokens, before]),
        }
    }
}

/// Values at all crossings of some axes; between them straight along each axis, outside as at the nearest end.
#[derive(Clone, Debug)]
struct Grid<const AXES: usize> {
    axes: [Vec<f64>; AXES],
    /// The last axis runs fastest.
    values: Vec<f64>,
}

impl<const AXES: usize> Grid<AXES> {
    /// The largest complete grid among scattered points: as long as crossings are absent, the value of an axis that
    /// lacks the largest share of its own is given up. None if nothing is left.
    fn new(points: Vec<([f64; AXES], f64)>) -> Option<Grid<AXES>> {
        let mut points = points;
        loop {
            let axes: [Vec<f64>; AXES] = std::array::from_fn(|axis| {
                let mut values: Vec<f64> = points.iter().map(|(place, _)| place[axis]).collect();
                values.sort_by(f64::total_cmp);
                values.dedup();
                values
            });
            let crossings: usize = axes.iter().map(Vec::len).product();
            if crossings == 0 {
                return None;
            }
            if points.len() >= crossings {
                return Some(Grid::complete(axes, &points));
            }
            let mut worst = (f64::INFINITY, 0, 0.0);
            for (axis, values) in axes.iter().enumerate() {
                for value in values {
                    let there = points.iter().filter(|(place, _)| place[axis] == *value).count();
                    let share = (there * values.len()) as f64 / crossings as f64;
                    if share < worst.0 {
                        worst = (share, axis, *value);
                    }
                }
            }
            points.retain(|(place, _)| place[worst.1] != worst.2);
        }
    }

    fn complete(axes: [Vec<f64>; AXES], points: &[([f64; AXES], f64)]) -> Grid<AXES> {
        let mut values = vec![1.0; axes.iter().map(Vec::len).product()];
        for (place, value) in points {
            let index = axes
                .iter()
                .zip(place)
                .fold(0, |index, (axis, x)| index * axis.len() + axis.partition_point(|value| value < x));
            values[index] = *value;
        }
        Grid { axes, values }
    }

    fn at(&self, place: [f64; AXES]) -> f64 {
        let brackets: [(usize, f64); AXES] =
            std::array::from_fn(|axis| bracket(&self.axes[axis], place[axis]));
        let mut sum = 0.0;
        for corner in 0..1usize << AXES {
            let (mut index, mut weight) = (0, 1.0);
            for (axis, (below, share)) in brackets.iter().enumerate() {
                let above = corner >> axis & 1 == 1;
                weight *= if above { *share } else { 1.0 - share };
                index = index * self.axes[axis].len()
                    + (below + usize::from(above)).min(self.axes[axis].len() - 1);
            }
            if weight > 0.0 {
                sum += weight * self.values[index];
            }
        }
        sum
    }
}
