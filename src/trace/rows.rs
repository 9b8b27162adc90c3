//! Rows on their way from a reader into a trace, or out of it again in chunks: counted, sorted, set to start at
//! zero.
//!
//! Knows the order of time. Does not know where a row came from.

use std::sync::mpsc::SyncSender;

use super::error::TraceError;
use super::lines::Lines;
use super::{Notes, TraceRow};
use crate::time::{Span, Time};

/// Times while the earliest row is not yet known: this stands for the time of the file's first row.
const FIRST: i128 = 1 << 63;

/// Collects the rows of one file.
#[derive(Default)]
pub(super) struct Rows {
    rows: Vec<TraceRow>,
    /// Time of the first row, in the reader's own count of picoseconds.
    first: Option<i128>,
    /// Latest time yet, counted as in `rows`.
    latest: Time,
    notes: Notes,
    /// Where chunks go as soon as they are full, instead of being kept.
    chunks: Option<SyncSender<Vec<TraceRow>>>,
}

/// Rows that are handed on together.
const CHUNK: usize = 4_096;

impl Rows {
    /// Adds the row of the current line, which came at `arrived_ps` by any clock that the whole file
    /// shares; `row.arrived` is set here. A row without output is counted only.
    pub(super) fn push(&mut self, lines: &Lines, arrived_ps: i128, row: TraceRow) -> Result<(), TraceError> {
        self.notes.rows_read += 1;
        if row.output_tokens == 0 {
            self.notes.output_zero_skipped += 1;
            return Ok(());
        }
        let first = *self.first.get_or_insert(arrived_ps);
        if self.chunks.is_some() {
            return self.hand_on(lines, arrived_ps - first, row);
        }
        let Ok(arrived) = u64::try_from(arrived_ps - first + FIRST) else {
            let problem = "this row lies more than 106 days from the first, more than can be simulated";
            return Err(lines.problem(problem.to_owned()));
        };
        let arrived = Time::from_ps(arrived);
        self.notes.out_of_order += u64::from(arrived < self.latest);
        self.latest = self.latest.max(arrived);
        self.rows.push(TraceRow { arrived, ..row });
        Ok(())
    }

    /// Rows that are handed on in chunks: they must come in order of time.
    pub(super) fn in_chunks(chunks: SyncSender<Vec<TraceRow>>) -> Rows {
        Rows { chunks: Some(chunks), ..Rows::default() }
    }

    fn hand_on(&mut self, lines: &Lines, since_first_ps: i128, row: TraceRow) -> Result<(), TraceError> {
        let arrived = u64::try_from(since_first_ps).map(Time::from_ps);
        let Some(arrived) = arrived.ok().filter(|&arrived| arrived >= self.latest) else {
            let problem = "this row lies before the one above it, which a trace that is streamed cannot: sort the file \
                           by time, or leave out `streamed`";
            return Err(lines.problem(problem.to_owned()));
        };
        self.notes.duplicate_times +=
            u64::from(self.notes.rows_read - self.notes.output_zero_skipped > 1 && arrived == self.latest);
        self.latest = arrived;
        self.rows.push(TraceRow { arrived, ..row });
        if self.rows.len() == CHUNK { self.send() } else { Ok(()) }
    }

    fn send(&mut self) -> Result<(), TraceError> {
        let chunk = std::mem::replace(&mut self.rows, Vec::with_capacity(CHUNK));
        match &self.chunks {
            Some(chunks) => chunks.send(chunk).map_err(|_| TraceError::Abandoned),
            None => Ok(()),
        }
    }

    /// Hands on what is left of a trace in chunks.
    pub(super) fn finish_chunks(mut self, lines: &Lines) -> Result<Notes, TraceError> {
        let file = lines.file().to_owned();
        if self.notes.rows_read == 0 {
            return Err(TraceError::NoRequests { file, reason: "there is no row below the header" });
        }
        if self.first.is_none() {
            return Err(TraceError::NoRequests { file, reason: "no row produced a token" });
        }
        self.send()?;
        Ok(self.notes)
    }

    /// The rows in order of time, from zero.
    pub(super) fn finish(mut self, file: &str) -> Result<(Vec<TraceRow>, Notes), TraceError> {
        let no_requests = |reason| TraceError::NoRequests { file: file.to_owned(), reason };
        if self.notes.rows_read == 0 {
            return Err(no_requests("there is no row below the header"));
        }
        if self.notes.out_of_order > 0 {
            self.rows.sort_by_key(|row| row.arrived);
        }
        let earliest = self.rows.first().ok_or_else(|| no_requests("no row produced a token"))?.arrived;
        let mut before = None;
        for row in &mut self.rows {
            let since: Span = row.arrived.since(earliest);
            row.arrived = Time::ZERO + since;
            self.notes.duplicate_times += u64::from(before == Some(row.arrived));
            before = Some(row.arrived);
        }
        Ok((self.rows, self.notes))
    }
}
