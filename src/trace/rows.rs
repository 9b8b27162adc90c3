//! Rows on their way from a format into a trace: counted, set against the first one, put in order.
//!
//! Knows the order of time. Does not know where a row came from.

use rustc_hash::FxHashMap;

use super::error::TraceError;
use super::lines::Lines;
use super::{Notes, TraceRow, Wait, Waits};
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

/// What a format finds next.
pub(super) enum Next {
    /// A request.
    Row(Recorded),
    /// A record that is no request, or that nobody asked for.
    Skip(Skip),
    /// Nothing: the file is at its end.
    End,
}

/// Why a record is passed over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Skip {
    /// It is of another kind than requests.
    OtherKind,
    /// The service failed it.
    Failed,
    /// A filter leaves it out.
    Filtered,
}

/// What a format does with a file: each call takes the lines of one record.
pub(super) type NextRow = Box<dyn FnMut(&mut Lines) -> Result<Next, TraceError> + Send>;

/// The rows of a format that is one document, which has been read whole.
pub(super) fn document(rows: Vec<Next>) -> NextRow {
    let mut rows = rows.into_iter();
    Box::new(move |_| Ok(rows.next().unwrap_or(Next::End)))
}

/// The rows of one file in its own order, without those that are passed over.
pub(super) struct Rows {
    format: &'static str,
    lines: Lines,
    next_row: NextRow,
    /// Whether rows that cannot be read are passed over.
    lenient: bool,
    /// Time of the first row, in the format's own count of picoseconds.
    first_ps: Option<i128>,
    /// Latest time yet.
    latest: Time,
    /// What was met so far; equal times are counted by who knows the order.
    notes: Notes,
}

impl Rows {
    /// Rows of `lines`, whose header, if the format has one, has been read.
    pub(super) fn new(format: &'static str, lines: Lines, next_row: NextRow, lenient: bool) -> Rows {
        let notes = Notes::default();
        Rows { format, lines, next_row, lenient, first_ps: None, latest: Time::ZERO, notes }
    }

    /// Adds the next row that produced something to `rows`, its time counted so that the first one's is
    /// [`FIRST`]; false at the end. (A row goes straight to its place, for moving it costs as much as reading
    /// it.)
    pub(super) fn next(&mut self, rows: &mut Vec<TraceRow>) -> Result<bool, TraceError> {
        loop {
            let recorded = match (self.next_row)(&mut self.lines) {
                Ok(Next::Row(recorded)) => recorded,
                Ok(Next::End) => return Ok(false),
                Ok(Next::Skip(why)) => {
                    self.notes.rows_read += 1;
                    *self.notes.skipped(why) += 1;
                    continue;
                }
                Err(error) if self.lenient && error.is_of_one_row() => {
                    self.notes.rows_read += 1;
                    self.notes.unreadable_skipped += 1;
                    self.notes.first_unreadable.get_or_insert_with(|| error.to_string());
                    continue;
                }
                Err(error) => return Err(error),
            };
            let Recorded { arrived_ps, row } = recorded;
            self.notes.rows_read += 1;
            if row.output_tokens == 0 {
                self.notes.output_zero_skipped += 1;
                continue;
            }
            if let Some(wait) = row.waits.iter().find(|wait| u64::from(wait.row) + 1 >= self.notes.rows_read)
            {
                let above = self.notes.rows_read - 1;
                let problem =
                    format!("this row waits for row {}, which is not among the {above} above it", wait.row);
                return Err(self.lines.problem(problem));
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
    }

    /// Name of the format they are read as.
    pub(super) fn format(&self) -> &'static str {
        self.format
    }

    /// What was met so far, but for equal times.
    pub(super) fn notes(&self) -> &Notes {
        &self.notes
    }

    /// An error about the line of the row given last.
    pub(super) fn problem(&self, problem: &str) -> TraceError {
        self.lines.problem(problem.to_owned())
    }

    /// What is wrong with a file that has come to its end without giving a row.
    pub(super) fn nothing(&self) -> TraceError {
        let notes = &self.notes;
        let reason = match notes.rows_read {
            0 => "there is no row below the header",
            all if notes.filtered == all => "`where` leaves out every row",
            all if notes.unreadable_skipped == all => "no row can be read; leave out `lenient` to see why",
            all if notes.other_kinds_skipped == all => "no record is a request",
            _ => "no row produced a token",
        };
        TraceError::NoRequests { file: self.lines.file().to_owned(), reason }
    }

    /// All rows in order of time, from zero; also the time of the first, in the format's own count.
    pub(super) fn sorted(mut self) -> Result<(Vec<TraceRow>, Notes, i128), TraceError> {
        let mut rows = Vec::new();
        // Numbers that the format gave its rows, by which they name those they wait for.
        let mut numbers = Vec::new();
        while self.next(&mut rows)? {
            numbers.push(self.notes.rows_read as u32 - 1);
        }
        if self.notes.out_of_order > 0 {
            let mut order: Vec<u32> = (0..rows.len() as u32).collect();
            order.sort_by_key(|&index| rows[index as usize].arrived);
            rows.sort_by_key(|row| row.arrived);
            numbers = order.iter().map(|&index| numbers[index as usize]).collect();
        }
        renumber(&mut rows, &numbers);
        let earliest = rows.first().ok_or_else(|| self.nothing())?.arrived;
        let started_ps =
            self.first_ps.unwrap_or(0) + i128::from(earliest.as_ps()) - i128::from(FIRST.as_ps());
        let mut before = None;
        for row in &mut rows {
            let since: Span = row.arrived.since(earliest);
            row.arrived = Time::ZERO + since;
            self.notes.duplicate_times += u64::from(before == Some(row.arrived));
            before = Some(row.arrived);
        }
        Ok((rows, self.notes, started_ps))
    }
}

/// Rows name those they wait for by their number in the file; from here on by their place in `rows`. Who waits for a row
/// that was left out waits for nothing.
fn renumber(rows: &mut [TraceRow], numbers: &[u32]) {
    if rows.iter().all(|row| row.waits.is_empty()) {
        return;
    }
    let places: FxHashMap<u32, u32> =
        numbers.iter().enumerate().map(|(place, &number)| (number, place as u32)).collect();
    for row in rows {
        let kept = row.waits.iter().filter_map(|wait| Some(Wait { row: *places.get(&wait.row)?, ..*wait }));
        row.waits = Waits::of(kept.collect());
    }
}
