//! What steps would take if a request were alone in its engine.
//!
//! Knows the recurrence of `replica/engine.rs`, for one request: the price of a step alone is the time between two outputs then.

use crate::step_time::StepCost;
use crate::time::{Span, Time};

/// An engine that a request has to itself, from its first step on.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Alone {
    asynchronous: bool,
    /// When the loop can act next: behind the host time of the newest step.
    clock: Time,
    /// When the newest two steps end, the older first.
    ends: [Time; 2],
    /// When the last output was processed.
    processed: Time,
    in_flight: u32,
}

impl Alone {
    pub(super) fn new(asynchronous: bool) -> Alone {
        Alone { asynchronous, ..Alone::default() }
    }

    /// A step is composed.
    pub(super) fn compose(&mut self, cost: StepCost) {
        self.clock += cost.host;
        let end = self.clock.max(self.ends[1]) + cost.gpu;
        self.ends = [self.ends[1], end];
        self.in_flight += 1;
        if !self.asynchronous {
            self.clock = end;
        }
    }

    /// The output of the oldest step in flight is processed: how long after the one before.
    pub(super) fn process(&mut self) -> Span {
        let end = if self.in_flight == 2 { self.ends[0] } else { self.ends[1] };
        self.in_flight -= 1;
        self.clock = self.clock.max(end);
        let since = self.clock - self.processed;
        self.processed = self.clock;
        since
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const COST: StepCost = StepCost { gpu: Span::from_ms(10), host: Span::from_ms(3) };

    #[test]
    fn a_synchronous_engine_takes_both() {
        let mut alone = Alone::new(false);
        for _ in 0..3 {
            alone.compose(COST);
            assert_eq!(alone.process(), Span::from_ms(13));
        }
    }

    #[test]
    fn an_asynchronous_one_hides_the_shorter() {
        let mut alone = Alone::new(true);
        alone.compose(COST);
        alone.compose(COST);
        assert_eq!(alone.process(), Span::from_ms(13));
        for _ in 0..3 {
            alone.compose(COST);
            assert_eq!(alone.process(), Span::from_ms(10));
        }
        assert_eq!(alone.process(), Span::from_ms(10));
    }
}
