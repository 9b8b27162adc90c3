//! A trace read piece by piece, for files that are longer than the memory.
//!
//! Knows that rows must already be in order of time: a stream cannot sort. Does not know formats.

use super::error::TraceError;
use super::rows::{FIRST, Rows};
use super::{Notes, TraceRow};
use crate::time::Time;

/// Rows that [`TraceStream::next_chunk`] gives at most.
const CHUNK: usize = 4_096;

/// Requests that a run can number.
const MOST_ROWS: u64 = u32::MAX as u64 + 1;

/// The rows of a trace in order of time, read as they are asked for. See [`super::stream()`].
pub struct TraceStream {
    rows: Rows,
    given: u64,
    /// Rows that are wanted.
    most: u64,
    /// Time of the row given last.
    before: Time,
    duplicate_times: u64,
    ended: bool,
}

impl TraceStream {
    pub(super) fn new(rows: Rows) -> TraceStream {
        TraceStream { rows, given: 0, most: u64::MAX, before: Time::ZERO, duplicate_times: 0, ended: false }
    }

    /// Only its first `requests` rows; what follows them is never read.
    pub fn first(self, requests: u32) -> TraceStream {
        TraceStream { most: u64::from(requests), ..self }
    }

    /// Clears `rows` and fills it with the next few thousand, their arrivals counted from the first row;
    /// false when there were none left. After an error `rows` holds those before it, and nothing follows.
    ///
    /// # Errors
    /// Those of [`super::read`], each when its row's turn comes, and a row that came before an earlier one.
    pub fn next_chunk(&mut self, rows: &mut Vec<TraceRow>) -> Result<bool, TraceError> {
        rows.clear();
        while rows.len() < CHUNK && !self.ended && self.given < self.most {
            // An error ends the stream as well.
            self.ended = true;
            self.ended = !self.next(rows)?;
        }
        Ok(!rows.is_empty())
    }

    /// Adds the next row to `rows`; false at the end.
    fn next(&mut self, rows: &mut Vec<TraceRow>) -> Result<bool, TraceError> {
        if !self.rows.next(rows)? {
            return if self.given == 0 { Err(self.rows.nothing()) } else { Ok(false) };
        }
        if let Some(problem) = self.refused() {
            rows.pop();
            return Err(self.rows.problem(problem));
        }
        if let Some(row) = rows.last_mut() {
            // The first row is the earliest, as all are in order.
            row.arrived = Time::ZERO + row.arrived.since(FIRST);
            self.duplicate_times += u64::from(self.given > 0 && row.arrived == self.before);
            self.before = row.arrived;
        }
        self.given += 1;
        Ok(true)
    }

    /// Why a stream cannot give the row that was just read, if so.
    fn refused(&self) -> Option<&'static str> {
        if self.rows.notes().out_of_order > 0 {
            return Some(
                "this row came before an earlier one, and a trace that is streamed cannot be sorted; sort the \
                 file by time, or leave out `streamed`",
            );
        }
        (self.given == MOST_ROWS).then_some("more requests than can be numbered (4294967296)")
    }

    /// What was odd about the file as far as it was read.
    pub fn notes(&self) -> Notes {
        Notes { duplicate_times: self.duplicate_times, ..self.rows.notes().clone() }
    }

    /// Name of the format it is read as, one of [`super::FORMATS`].
    pub fn format(&self) -> &'static str {
        self.rows.format()
    }
}
