//! Attention of steps that hold decodes alone: measured over the number of sequences and their mean context.
//!
//! For each number of sequences the measured times are the corners of a broken line over the sum of contexts. Every
//! piece has an integer slope, so a run of steps is an arithmetic series until a corner is reached.

use super::curve::Curve;
use super::folder::AttentionRow;
use super::uneven::Uneven;
use crate::step_time::Decodes;
use crate::step_time::grid::bracket;

/// A straight piece of the line.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Piece {
    /// Sum of contexts where it begins.
    from: u64,
    /// Picoseconds there.
    at_ps: u64,
    /// Picoseconds for each token more.
    per_token_ps: u64,
}

#[derive(Clone, Debug)]
pub(super) struct DecodeAttention {
    /// By number of sequences; entry 0 is never used.
    pieces: Vec<Vec<Piece>>,
    /// By number of sequences: picoseconds for each token by which the longest context exceeds the mean.
    per_token_above_mean_ps: Vec<u64>,
    longest_context: f64,
    most_sequences: f64,
}

impl DecodeAttention {
    /// All layers together, for up to `max_num_seqs` sequences; none if no decodes were measured.
    pub(super) fn new(
        rows: &[AttentionRow],
        uneven: Option<&Uneven>,
        layers: f64,
        max_num_seqs: u32,
    ) -> Option<DecodeAttention> {
        let mut rows: Vec<&AttentionRow> =
            rows.iter().filter(|row| row.chunk == 0.0 && row.decodes > 0.0 && row.context > 0.0).collect();
        rows.sort_by(|a, b| a.decodes.total_cmp(&b.decodes));
        let mut contexts: Vec<f64> = rows.iter().map(|row| row.context).collect();
        contexts.sort_by(f64::total_cmp);
        contexts.dedup();
        let (mut sequences, mut by_context) = (Vec::new(), Vec::new());
        for same in rows.chunk_by(|a, b| a.decodes == b.decodes) {
            sequences.push(same[0].decodes);
            by_context.extend(Curve::through(same.iter().map(|row| (row.context, row.us))));
        }
        let most_sequences = *sequences.last()?;
        let us = |count: f64, context: f64| {
            let (below, share) = bracket(&sequences, count);
            let low = by_context[below].at(context);
            if count > most_sequences && below > 0 {
                let before = by_context[below - 1].at(context);
                let slope = (low - before) / (sequences[below] - sequences[below - 1]);
                return low + slope.max(0.0) * (count - most_sequences);
            }
            if share == 0.0 { low } else { low * (1.0 - share) + by_context[below + 1].at(context) * share }
        };
        let line = |count: u32| {
            let count = f64::from(count);
            // Noise in which a longer context is faster is levelled, so that time never falls.
            let mut least: f64 = 0.0;
            let corners: Vec<(u64, u64)> = contexts
                .iter()
                .map(|context| {
                    least = least.max(us(count, *context) * layers);
                    ((count * context) as u64, (least * 1e6).round() as u64)
                })
                .collect();
            let mut pieces = vec![Piece { from: 0, at_ps: corners[0].1, per_token_ps: 0 }];
            for pair in corners.windows(2) {
                let [(from, at_ps), (to, end_ps)] = [pair[0], pair[1]];
                let per_token_ps = ((end_ps - at_ps) as f64 / (to - from) as f64).round() as u64;
                pieces.push(Piece { from, at_ps, per_token_ps });
            }
            pieces
        };
        Some(DecodeAttention {
            pieces: (0..=max_num_seqs).map(|count| line(count.max(1))).collect(),
            per_token_above_mean_ps: (0..=max_num_seqs)
                .map(|count| uneven.map_or(0.0, |uneven| uneven.us_per_token(count)))
                .map(|us| (us * layers * 1e6).round() as u64)
                .collect(),
            longest_context: *contexts.last()?,
            most_sequences,
        })
    }

    /// The longest context that was measured.
    pub(super) fn longest_context(&self) -> f64 {
        self.longest_context
    }

    /// The most sequences that were measured.
    pub(super) fn most_sequences(&self) -> f64 {
        self.most_sequences
    }

    fn piece(&self, decodes: Decodes) -> (&[Piece], usize) {
        let pieces = &self.pieces[decodes.count as usize];
        (pieces, pieces.partition_point(|piece| piece.from <= decodes.context_sum) - 1)
    }

    pub(super) fn cost_ps(&self, decodes: Decodes) -> u64 {
        let (pieces, index) = self.piece(decodes);
        let piece = pieces[index];
        let even_ps = piece.at_ps + piece.per_token_ps * (decodes.context_sum - piece.from);
        // The distance from the mean stays as it is while all contexts grow alike.
        let count = u64::from(decodes.count);
        let above_mean = (u64::from(decodes.context_max) * count).saturating_sub(decodes.context_sum);
        even_ps + self.per_token_above_mean_ps[decodes.count as usize] * above_mean / count
    }

    /// By how much attention of these decodes grows a step, and for how many steps.
    pub(super) fn growth_ps(&self, decodes: Decodes) -> (u64, u64) {
        let (pieces, index) = self.piece(decodes);
        let count = u64::from(decodes.count);
        let steps = match pieces.get(index + 1) {
            Some(next) => (next.from - decodes.context_sum).div_ceil(count),
            None => u64::MAX,
        };
        (pieces[index].per_token_ps * count, steps)
    }
}
