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

/// The rows of a trace in order of time, read as they are asked for. See [`super::stream`].
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

    /// The next row, its arrival counted from the first; none at the end, and after an error.
    ///
    /// # Errors
    /// Those of [`super::read`], each when its row's turn comes, and a row that came before an earlier one.
    pub fn next_row(&mut self) -> Result<Option<TraceRow>, TraceError> {
        if self.ended || self.given == self.most {
            return Ok(None);
        }
        let next = self.checked();
        self.ended = !matches!(next, Ok(Some(_)));
        next
    }

    fn checked(&mut self) -> Result<Option<TraceRow>, TraceError> {
        let Some(mut row) = self.rows.next()? else {
            return if self.given == 0 { Err(self.rows.nothing()) } else { Ok(None) };
        };
        if self.rows.notes().out_of_order > 0 {
            return Err(self.rows.problem(
                "this row came before an earlier one, and a trace that is streamed cannot be sorted; sort the \
                 file by time, or leave out `streamed`",
            ));
        }
        if self.given == MOST_ROWS {
            return Err(self.rows.problem("more requests than can be numbered (4294967296)"));
        }
        // The first row is the earliest, as all are in order.
        row.arrived = Time::ZERO + row.arrived.since(FIRST);
        self.duplicate_times += u64::from(self.given > 0 && row.arrived == self.before);
        self.before = row.arrived;
        self.given += 1;
        Ok(Some(row))
    }

    /// Clears `rows` and fills it with the next few thousand; false when there were none left. After an
    /// error `rows` holds those before it.
    ///
    /// # Errors
    /// Those of [`TraceStream::next_row`].
    pub fn next_chunk(&mut self, rows: &mut Vec<TraceRow>) -> Result<bool, TraceError> {
        rows.clear();
        while rows.len() < CHUNK
            && let Some(row) = self.next_row()?
        {
            rows.push(row);
        }
        Ok(!rows.is_empty())
    }

    /// What was odd about the file as far as it was read.
    pub fn notes(&self) -> Notes {
        Notes { duplicate_times: self.duplicate_times, ..self.rows.notes() }
    }

    /// Name of the format it is read as, one of [`super::FORMATS`].
    pub fn format(&self) -> &'static str {
        self.rows.format()
    }
}
