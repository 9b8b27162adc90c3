//! The host's part of a step: scheduling, preparing inputs, launching.
//!
//! Hidden behind the GPU's step before where scheduling is asynchronous.

use crate::time::Span;

/// Host time of a step in microseconds: an estimate, between published figures of the scheduler alone (0.14 ms at 128
/// decodes, 0.29 ms at 256) and regressions over whole steps.
const BASE_US: f64 = 600.0;
/// Host time of each sequence in a step in microseconds, from the same estimate.
const PER_SEQUENCE_US: f64 = 8.0;

/// What the host takes for a step.
#[derive(Clone, Copy, Debug)]
pub(super) struct Host {
    base: Span,
    per_sequence: Span,
}

impl Host {
    /// The estimate times a factor.
    pub(super) fn new(multiplier: f64) -> Host {
        Host {
            base: Span::from_us_f64(multiplier * BASE_US),
            per_sequence: Span::from_us_f64(multiplier * PER_SEQUENCE_US),
        }
    }

    /// Host time of a step with so many sequences.
    pub(super) fn span(self, sequences: u64) -> Span {
        self.base + self.per_sequence * sequences
    }
}
