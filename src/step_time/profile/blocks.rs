//! Attention of calls that hold prompt chunks: the form of thread blocks, fitted, and what it misses.
//!
//! Four coefficients are fitted to the profile's rows by least squares of relative errors. What the form misses is
//! measured too: its ratio to each row is kept on the grid of the profile ([`Ratios`]), and a batch of several chunks
//! takes the ratio of one chunk with all of their tokens. So a measured call costs what was measured, and the form
//! only bridges what no profile holds: several chunks in one call, and unequal contexts.

use nalgebra::{Matrix4, Vector4};

use super::folder::AttentionRow;
use crate::step_time::grid::Grid;
use crate::step_time::thread_blocks::{Coefficients, Shape, Work};
use crate::step_time::{Batch, Chunk, Decodes};

/// Rounds of choosing, for each row, what binds it, and fitting; choices settle after a few.
const FIT_ROUNDS: usize = 12;

/// Attention of one layer in calls with chunks.
#[derive(Clone, Debug)]
pub(super) struct ThreadBlocks {
    shape: Shape,
    coefficients: Coefficients,
    ratios: Option<Ratios>,
}

impl ThreadBlocks {
    /// Fits the form to the rows with a chunk; none if fewer than ten were measured.
    pub(super) fn fit(rows: &[AttentionRow], heads: u32, sm_count: u32) -> Option<ThreadBlocks> {
        let shape = Shape { heads: u64::from(heads), sm_count: u64::from(sm_count), window: u64::MAX };
        let rows: Vec<AttentionRow> = rows.iter().filter(|row| row.chunk > 0.0).copied().collect();
        if rows.len() < 10 {
            return None;
        }
        let works: Vec<Work> = rows.iter().map(|row| work(row, shape)).collect();
        let mut coefficients = [5.0, 4.0, 0.03, 0.3];
        for _ in 0..FIT_ROUNDS {
            let (mut normal, mut right) = (Matrix4::zeros(), Vector4::zeros());
            for (work, row) in works.iter().zip(&rows) {
                let amounts = Vector4::from(work.binding(&coefficients)) / row.us;
                normal += amounts * amounts.transpose();
                right += amounts;
            }
            coefficients = normal.cholesky()?.solve(&right).map(|value| value.max(0.0)).into();
        }
        let ratios = Ratios::new(&rows, |row| row.us / work(row, shape).us(&coefficients));
        Some(ThreadBlocks { shape, coefficients, ratios })
    }

    /// Microseconds of one layer's call for this batch, which holds at least one chunk.
    pub(super) fn us(&self, batch: &Batch<'_>) -> f64 {
        let form = Work::of(batch, self.shape).us(&self.coefficients);
        let Some(ratios) = &self.ratios else { return form };
        let tokens: f64 = batch.chunks.iter().map(|chunk| f64::from(chunk.tokens)).sum();
        let keys: f64 =
            batch.chunks.iter().map(|chunk| f64::from(chunk.tokens) * f64::from(chunk.before)).sum();
        let count = f64::from(batch.decodes.count);
        let context = if count > 0.0 { batch.decodes.context_sum as f64 / count } else { 0.0 };
        form * ratios.at([tokens, keys / tokens.max(1.0), count, context])
    }
}

fn work(row: &AttentionRow, shape: Shape) -> Work {
    let chunk = Chunk { tokens: row.chunk as u32, before: row.before as u32, samples: false };
    let (count, context) = (row.decodes as u32, row.context as u32);
    let decodes = Decodes { count, context_sum: u64::from(count) * u64::from(context), context_max: context };
    Work::of(&Batch { chunks: &[chunk], decodes }, shape)
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
