//! The host's part of a step: scheduling, preparing inputs, launching.
//!
//! Hidden behind the GPU's step before where scheduling is asynchronous.

use crate::time::Span;

/// Host time of a step: an estimate, between published figures of the scheduler alone (0.14 ms at 128 decodes,
/// 0.29 ms at 256) and regressions over whole steps.
const BASE: Span = Span::from_us(600);
/// Host time of each sequence in a step, from the same estimate.
const PER_SEQUENCE: Span = Span::from_us(8);

/// Host time of a step with so many sequences.
pub(super) fn span(sequences: u64) -> Span {
    BASE + PER_SEQUENCE * sequences
}
