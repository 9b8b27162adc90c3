//! A trace read while it is used: in chunks, on a thread of its own, never held whole.
//!
//! Knows chunks and their order. Does not know formats: they are read by the same code as whole traces.

use std::path::Path;
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread::JoinHandle;

use super::rows::Rows;
use super::{Notes, TraceError, TraceRow, open, open_file};

/// Chunks that may lie ready. The reader waits while there are more.
const READY: usize = 4;

/// The rows of a trace in order of time, as they are read.
#[derive(Debug)]
pub struct TraceStream {
    chunks: Receiver<Vec<TraceRow>>,
    reader: JoinHandle<Result<Notes, TraceError>>,
}

impl TraceStream {
    /// Begins to read the trace in `path`, as `format` or, without one, as the first format that recognises it.
    ///
    /// # Errors
    /// If there is no such file or format. What is wrong inside the file is told by [`TraceStream::finish`].
    pub fn open(path: &Path, format: Option<&str>) -> Result<TraceStream, TraceError> {
        let (file, bytes, format) = open_file(path, format)?;
        let (sender, chunks) = sync_channel(READY);
        let reader = std::thread::spawn(move || {
            let (mut lines, format) = open(file, bytes, format)?;
            let mut rows = Rows::in_chunks(sender);
            (format.read)(&mut lines, &mut rows)?;
            rows.finish_chunks(&lines)
        });
        Ok(TraceStream { chunks, reader })
    }

    /// The next rows, their times counted from the first row of the trace; none at the end, or where the file is
    /// wrong.
    pub fn next_chunk(&mut self) -> Option<Vec<TraceRow>> {
        self.chunks.recv().ok()
    }

    /// What was odd about the file. Call it when there are no more chunks; sooner, the rest is not read.
    ///
    /// # Errors
    /// Whatever kept the file from being a trace in order of time, with the file, the line and the column.
    pub fn finish(self) -> Result<Notes, TraceError> {
        drop(self.chunks);
        match self.reader.join().expect("a reader answers with an error") {
            Err(TraceError::Abandoned) => Ok(Notes::default()),
            answer => answer,
        }
    }
}
