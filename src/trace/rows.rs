//! Rows on their way from a format into a trace: counted, set against the first one, put in order.
//!
//! Knows the order of time. Does not know where a row came from.

use super::error::TraceError;
use super::lines::Lines;
use super::{FormatInfo, Notes, TraceRow};
use crate::time::{Span, Time};

/// Times while the earliest row is not yet known: this stands for the time of the file's first row.
pub(super) const FIRST: Time = Time::from_ps(1 << 63);

/// A row as its format gives it.
pub(super) struct Recorded {
    /// When it came, by any clock that the whole file shares.
    pub(super) arrived_ps: i128,
    /// The row, but for `arrived`, which is set here.
    pub(super) row: TraceRow,
}

/// What a format does with a file: each call takes the lines of one row; none at the end.
pub(super) type NextRow = Box<dyn FnMut(&mut Lines) -> Result<Option<Recorded>, TraceError> + Send>;

/// The rows of one file in its own order, without those that produced nothing.
pub(super) struct Rows {
    format: &'static FormatInfo,
    lines: Lines,
    next_row: NextRow,
    /// Time of the first row, in the format's own count of picoseconds.
    first_ps: Option<i128>,
    /// Latest time yet.
    latest: Time,
    /// What was met so far; equal times are counted by who knows the order.
    notes: Notes,
}

impl Rows {
    /// Rows of `lines`, whose header, if the format has one, is read here.
    pub(super) fn new(format: &'static FormatInfo, mut lines: Lines) -> Result<Rows, TraceError> {
        let next_row = (format.rows)(&mut lines)?;
        Ok(Rows { format, lines, next_row, first_ps: None, latest: Time::ZERO, notes: Notes::default() })
    }

    /// Adds the next row that produced something to `rows`, its time counted so that the first one's is
    /// [`FIRST`]; false at the end. (A row goes straight to its place, for moving it costs as much as reading
    /// it.)
    pub(super) fn next(&mut self, rows: &mut Vec<TraceRow>) -> Result<bool, TraceError> {
        while let Some(Recorded { arrived_ps, row }) = (self.next_row)(&mut self.lines)? {
            self.notes.rows_read += 1;
            if row.output_tokens == 0 {
                self.notes.output_zero_skipped += 1;
                continue;
            }
            let since_first = arrived_ps - *self.first_ps.get_or_insert(arrived_ps);
            let Ok(arrived) = u64::try_from(since_first + i128::from(FIRST.as_ps())) else {
                let problem = "this row lies more than 106 days from the first, more than can be simulated";
                return Err(self.problem(problem));
            };
            let arrived = Time::from_ps(arrived);
            self.notes.out_of_order += u64::from(arrived < self.latest);
            self.latest = self.latest.max(arrived);
            rows.push(TraceRow { arrived, ..row });
            return Ok(true);
        }
        Ok(false)
    }

    /// Name of the format they are read as.
    pub(super) fn format(&self) -> &'static str {
        self.format.name
    }

    /// What was met so far, but for equal times.
    pub(super) fn notes(&self) -> Notes {
        self.notes
    }

    /// An error about the line of the row given last.
    pub(super) fn problem(&self, problem: &str) -> TraceError {
        self.lines.problem(problem.to_owned())
    }

    /// What is wrong with a file that has come to its end without giving a row.
    pub(super) fn nothing(&self) -> TraceError {
        let reason = match self.notes.rows_read {
            0 => "there is no row below the header",
            _ => "no row produced a token",
        };
        TraceError::NoRequests { file: self.lines.file().to_owned(), reason }
    }

    /// All rows in order of time, from zero.
    pub(super) fn sorted(mut self) -> Result<(Vec<TraceRow>, Notes), TraceError> {
        let mut rows = Vec::new();
        while self.next(&mut rows)? {}
        if self.notes.out_of_order > 0 {
            rows.sort_by_key(|row| row.arrived);
        }
        let earliest = rows.first().ok_or_else(|| self.nothing())?.arrived;
        let mut before = None;
        for row in &mut rows {
            let since: Span = row.arrived.since(earliest);
            row.arrived = Time::ZERO + since;
            self.notes.duplicate_times += u64::from(before == Some(row.arrived));
            before = Some(row.arrived);
        }
        Ok((rows, self.notes))
    }
}
