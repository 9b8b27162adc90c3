//! The few moments that really are events, in a total order.
//!
//! Knows when and what kind. Does not know what a moment means: the fleet does. Step ends and schedule()
//! calls are not here; they happen inside replicas when somebody looks.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use crate::time::Time;

/// Kinds of moments. At equal times they come in this order (law 4), then by index.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// A token or an end reaches a gateway.
    Response,
    /// Something befalls a replica, or somebody learns of it.
    Incident,
    /// A gateway learns that a client has given up.
    Timeout,
    /// A gateway reads its replicas' gauges.
    Report,
    /// A request reaches a gateway, which decides at once.
    Arrival,
    /// A decision takes effect, where the scenario sets a gap between the two.
    Commit,
}

/// Time, kind, index, order of filing.
type Key = (Time, Kind, u64, u64);

/// Moments with their payloads, soonest first.
#[derive(Debug)]
pub struct Agenda<T> {
    /// Each with the place of its payload: payloads are large, and a heap moves its entries about.
    heap: BinaryHeap<Reverse<(Key, usize)>>,
    payloads: Vec<Option<T>>,
    vacant: Vec<usize>,
    next_index: u64,
}

impl<T> Default for Agenda<T> {
    fn default() -> Self {
        Agenda { heap: BinaryHeap::new(), payloads: Vec::new(), vacant: Vec::new(), next_index: 0 }
    }
}

impl<T> Agenda<T> {
    /// Files a moment. `index` orders equal times and kinds; what is still equal keeps the order of filing.
    pub fn add(&mut self, at: Time, kind: Kind, index: u64, payload: T) {
        let key = (at, kind, index, self.next_index);
        self.next_index += 1;
        let place = match self.vacant.pop() {
            Some(place) => {
                self.payloads[place] = Some(payload);
                place
            }
            None => {
                self.payloads.push(Some(payload));
                self.payloads.len() - 1
            }
        };
        self.heap.push(Reverse((key, place)));
    }

    /// When the next moment is, and of which kind.
    pub fn peek(&self) -> Option<(Time, Kind)> {
        self.heap.peek().map(|Reverse((key, _))| (key.0, key.1))
    }

    /// Takes the next moment.
    pub fn pop(&mut self) -> Option<(Time, T)> {
        let Reverse((key, place)) = self.heap.pop()?;
        self.vacant.push(place);
        self.payloads[place].take().map(|payload| (key.0, payload))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_times_follow_kind_then_index_then_filing() {
        let mut agenda = Agenda::default();
        let at = Time::from_ps(5);
        agenda.add(at, Kind::Arrival, 2, "second arrival");
        agenda.add(at, Kind::Commit, 0, "commit");
        agenda.add(at, Kind::Arrival, 1, "first arrival");
        agenda.add(at, Kind::Response, 9, "response");
        agenda.add(Time::from_ps(4), Kind::Commit, 9, "sooner");
        agenda.add(at, Kind::Response, 9, "response, filed later");
        let order: Vec<&str> = std::iter::from_fn(|| agenda.pop().map(|(_, what)| what)).collect();
        let expected =
            ["sooner", "response", "response, filed later", "first arrival", "second arrival", "commit"];
        assert_eq!(order, expected);
    }
}
