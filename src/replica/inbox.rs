//! What has been sent to a replica and not been taken in: in order of time, drained at schedule() only.

use std::collections::VecDeque;

use super::Input;
use crate::time::Time;

#[derive(Clone, Debug, Default)]
pub(super) struct Inbox {
    entries: VecDeque<(Time, u64, Input)>,
    /// How many of them are aborts.
    aborts: u32,
}

impl Inbox {
    /// Files an input under its time; of equal times the lower `seq` is drained first.
    pub(super) fn deliver(&mut self, at: Time, seq: u64, input: Input) {
        self.aborts += u32::from(matches!(input, Input::Abort(..)));
        // Nearly all deliveries come in order, so the place is at or near the end.
        let behind = self.entries.iter().rev().take_while(|(t, s, _)| (*t, *s) > (at, seq)).count();
        self.entries.insert(self.entries.len() - behind, (at, seq, input));
    }

    pub(super) fn entries_mut(&mut self) -> impl Iterator<Item = &mut (Time, u64, Input)> {
        self.entries.iter_mut()
    }

    pub(super) fn holds_aborts(&self) -> bool {
        self.aborts > 0
    }

    pub(super) fn next_at(&self) -> Option<Time> {
        self.entries.front().map(|&(at, _, _)| at)
    }

    pub(super) fn pop_until(&mut self, now: Time) -> Option<(Time, Input)> {
        if self.next_at()? > now {
            return None;
        }
        self.pop()
    }

    pub(super) fn pop_before(&mut self, moment: Time) -> Option<(Time, Input)> {
        if self.next_at()? >= moment {
            return None;
        }
        self.pop()
    }

    fn pop(&mut self) -> Option<(Time, Input)> {
        let (at, _, input) = self.entries.pop_front()?;
        self.aborts -= u32::from(matches!(input, Input::Abort(..)));
        Some((at, input))
    }
}
