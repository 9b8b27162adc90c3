//! Traces of many files: a folder, or an archive (`.tar`, packed or not). Each file is a trace of its own.
//!
//! Knows that files whose times are relative begin together, and those with dates where their dates put them. Does not
//! know formats.

use std::fs::{self, File};
use std::io::{BufReader, Cursor, Read};
use std::path::Path;

use super::error::TraceError;
use super::{Notes, ReadOptions, Trace, TraceRow, Wait, Waits, all, rows_of};
use crate::compression;
use crate::time::{Span, Time};

/// Where a tar archive says that it is one, and how.
const TAR_MAGIC: (usize, &[u8]) = (257, b"ustar");

/// What a path leads to.
pub(super) enum Source {
    /// One file's plain bytes.
    File(Box<dyn Read + Send>),
    /// Many files: names, and bytes as they are.
    Files(Vec<(String, Vec<u8>)>),
}

/// Opens what lies at `path`.
pub(super) fn open(path: &Path) -> Result<Source, TraceError> {
    let file = path.display().to_string();
    let cannot = |source| TraceError::Open { file: file.clone(), source };
    if path.is_dir() {
        let mut paths: Vec<_> = fs::read_dir(path)
            .and_then(|entries| entries.map(|entry| entry.map(|entry| entry.path())).collect())
            .map_err(cannot)?;
        // Hidden files are a file manager's, not anybody's trace.
        let hidden =
            |path: &Path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with('.'));
        paths.retain(|path| path.is_file() && !hidden(path));
        paths.sort();
        let read = |path: &Path| {
            let name = path.display().to_string();
            let bytes = fs::read(path).map_err(|source| TraceError::Open { file: name.clone(), source })?;
            Ok((name, bytes))
        };
        return paths.iter().map(|path| read(path)).collect::<Result<_, _>>().map(Source::Files);
    }
    let opened = BufReader::with_capacity(1 << 16, File::open(path).map_err(cannot)?);
    let mut plain = compression::open(opened).map_err(cannot)?;
    let mut head = Vec::new();
    // An error comes again, to whoever reads on.
    let broken = plain.by_ref().take(512).read_to_end(&mut head).err();
    let (place, magic) = TAR_MAGIC;
    let is_archive = head.get(place..place + magic.len()) == Some(magic);
    let whole = Cursor::new(head).chain(super::Fails(broken)).chain(plain);
    if !is_archive {
        return Ok(Source::File(Box::new(whole)));
    }
    let mut files = Vec::new();
    let mut archive = tar::Archive::new(whole);
    for entry in archive.entries().map_err(cannot)? {
        let mut entry = entry.map_err(cannot)?;
        if !entry.header().entry_type().is_file() {
            continue;
        }
        let name = format!("{file}/{}", entry.path().map_err(cannot)?.display());
        let mut bytes = Vec::new();
        entry.read_to_end(&mut bytes).map_err(cannot)?;
        files.push((name, bytes));
    }
    files.sort();
    Ok(Source::Files(files))
}

/// Names and bytes of the files in a folder or an archive.
///
/// # Errors
/// If it cannot be read, or is a single file.
pub fn files(path: &Path) -> Result<Vec<(String, Vec<u8>)>, TraceError> {
    match open(path)? {
        Source::Files(files) => Ok(files),
        Source::File(_) => Err(TraceError::Options {
            file: path.display().to_string(),
            problem: "is one file; expected a folder or an archive".to_owned(),
        }),
    }
}

/// Reads each of `files`, and lays them over each other.
pub(super) fn read(
    path: &Path,
    files: Vec<(String, Vec<u8>)>,
    options: &ReadOptions,
) -> Result<Trace, TraceError> {
    let mut traces = Vec::new();
    for (name, bytes) in files {
        let plain = compression::open(Cursor::new(bytes))
            .map_err(|source| TraceError::Open { file: name.clone(), source })?;
        traces.push(all(rows_of(name, plain, options)?)?);
    }
    if traces.is_empty() {
        let file = path.display().to_string();
        return Err(TraceError::NoRequests { file, reason: "the folder holds no file" });
    }
    // Sessions of a folder each have a clock of their own, unless it has dates.
    let dated = traces.iter().all(|trace: &Trace| trace.started_ps >= SINCE_1971_PS);
    Ok(merge(traces, if dated { Clock::Absolute } else { Clock::Relative }))
}

/// By which clock traces are laid over each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Clock {
    /// As their own clocks say: dates, or seconds from a zero that they are taken to share. Of a mixture those without dates
    /// begin with the first.
    Absolute,
    /// All begin together.
    Relative,
}

/// Several traces as one; requests of equal times in the order of the traces.
///
/// # Panics
/// If `traces` is empty.
pub fn merge(traces: Vec<Trace>, clock: Clock) -> Trace {
    let dates = traces.iter().filter(|trace| trace.started_ps >= SINCE_1971_PS).count();
    let one_clock = clock == Clock::Absolute && (dates == 0 || dates == traces.len());
    let started_ps = traces.iter().map(|trace| trace.started_ps).min().expect("at least one trace");
    let format = traces[0].format;
    let format = if traces.iter().all(|trace| trace.format == format) { format } else { "several" };
    let mut notes = Notes::default();
    let mut rows: Vec<TraceRow> = Vec::new();
    for trace in traces {
        let shift = if one_clock { trace.started_ps - started_ps } else { 0 };
        let shift = Span::from_ps(u64::try_from(shift).unwrap_or(u64::MAX / 4));
        let first = rows.len() as u32;
        rows.extend(trace.rows.into_iter().map(|row| TraceRow {
            arrived: row.arrived + shift,
            waits: Waits::of(row.waits.iter().map(|wait| Wait { row: wait.row + first, ..*wait }).collect()),
            ..row
        }));
        notes.add(trace.notes);
    }
    in_order(&mut rows);
    let times: Vec<Time> = rows.iter().map(|row| row.arrived).collect();
    notes.duplicate_times = times.windows(2).filter(|pair| pair[0] == pair[1]).count() as u64;
    Trace { format, rows, notes, started_ps }
}

/// A year after the beginning of all clocks: times before it are relative ones.
pub(super) const SINCE_1971_PS: i128 = 31_536_000 * 1_000_000_000_000;

/// Puts rows into the order of their times, those of equal times as they stand, and keeps who waits for whom.
pub fn in_order(rows: &mut [TraceRow]) {
    if rows.is_sorted_by_key(|row| row.arrived) {
        return;
    }
    let mut order: Vec<u32> = (0..rows.len() as u32).collect();
    order.sort_by_key(|&index| rows[index as usize].arrived);
    let mut places = vec![0; rows.len()];
    for (place, &index) in order.iter().enumerate() {
        places[index as usize] = place as u32;
    }
    rows.sort_by_key(|row| row.arrived);
    for row in rows.iter_mut().filter(|row| !row.waits.is_empty()) {
        let moved = row.waits.iter().map(|wait| Wait { row: places[wait.row as usize], ..*wait });
        row.waits = Waits::of(moved.collect());
    }
}
