//! A trace replayed while it is read, for traces that are longer than the memory.
//!
//! Knows how to read ahead on a thread of its own. Does not know resampling, which needs the whole trace.
//! The jobs are those of [`Replay`] over the whole trace, for every chunk goes through it: only the numbers
//! of the requests are moved on.

use std::io;
use std::path::Path;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::{self, JoinHandle};
use std::vec;

use super::predictor::Predictor;
use super::replay::Replay;
use super::{Job, Source};
use crate::random::Seed;
use crate::request::RequestId;
use crate::time::Time;
use crate::trace::{self, Notes, ReadOptions, TraceError, TraceRow, TraceStream};

/// Chunks that the reader may be ahead: enough to even out its pace, and a megabyte or two of jobs.
const CHUNKS_AHEAD: usize = 4;

/// An open loop that reads its trace as the run goes on.
pub struct Streamed {
    format: &'static str,
    /// Not empty before the end, so that the next request is always known.
    jobs: vec::IntoIter<Job>,
    /// Absent once the reader has come to its end.
    reader: Option<(Receiver<Chunk>, JoinHandle<()>)>,
    notes: Notes,
    error: Option<TraceError>,
}

/// What the reader hands over at a time.
struct Chunk {
    jobs: Vec<Job>,
    /// What was odd about the file, up to here.
    notes: Notes,
    /// What ends the trace behind these jobs.
    error: Option<TraceError>,
}

impl Streamed {
    /// Opens the trace in `path` as [`trace::stream`] does: its first `requests` requests, or all, at
    /// `rate_scale` times its speed, with what `predictor` says of each.
    ///
    /// # Errors
    /// Whatever keeps the file from being a trace and shows before its first request.
    pub fn open(
        path: &Path,
        options: &ReadOptions,
        rate_scale: f64,
        requests: Option<u32>,
        predictor: Predictor,
        seed: Seed,
    ) -> Result<Streamed, TraceError> {
        let mut stream = trace::stream(path, options)?;
        if let Some(requests) = requests {
            stream = stream.first(requests);
        }
        let format = stream.format();
        let reader = Reader { stream, rate_scale, given: 0, predictor, seed };
        let (sender, receiver) = sync_channel(CHUNKS_AHEAD);
        let thread = thread::Builder::new().name("trace".to_owned());
        let thread =
            thread.spawn(move || reader.read_all(&sender)).map_err(|source| no_thread(path, source))?;
        let reader = Some((receiver, thread));
        let jobs = Vec::new().into_iter();
        let mut streamed = Streamed { format, jobs, reader, notes: Notes::default(), error: None };
        streamed.next_chunk();
        match streamed.error.take() {
            Some(error) if streamed.jobs.as_slice().is_empty() => Err(error),
            error => Ok(Streamed { error, ..streamed }),
        }
    }

    /// What ended the trace early, once; to be asked when [`Source::next`] has given its last request.
    pub fn error(&mut self) -> Option<TraceError> {
        self.error.take()
    }

    /// What was odd about the file as far as it was read: all of it, or up to the last request asked for.
    /// Whole when [`Source::next`] has given its last request.
    pub fn notes(&self) -> Notes {
        self.notes.clone()
    }

    /// Name of the format the trace is read as.
    pub fn format(&self) -> &'static str {
        self.format
    }

    /// Waits for the next chunk that holds a job, or for the end.
    fn next_chunk(&mut self) {
        while self.jobs.as_slice().is_empty()
            && let Some((receiver, _)) = &self.reader
        {
            if let Ok(chunk) = receiver.recv() {
                self.jobs = chunk.jobs.into_iter();
                self.notes = chunk.notes;
                self.error = chunk.error;
            } else if let Some((_, thread)) = self.reader.take()
                && let Err(panic) = thread.join()
            {
                // A reader that broke down must not look like the end of the trace.
                std::panic::resume_unwind(panic);
            }
        }
    }
}

impl Source for Streamed {
    fn next(&mut self) -> Option<Job> {
        let job = self.jobs.next()?;
        self.next_chunk();
        Some(job)
    }

    fn next_sent(&self) -> Option<Time> {
        self.jobs.as_slice().first().map(|job| job.sent)
    }
}

fn no_thread(path: &Path, source: io::Error) -> TraceError {
    TraceError::Open { file: path.display().to_string(), source }
}

/// The reading side, on its own thread.
struct Reader {
    stream: TraceStream,
    rate_scale: f64,
    /// Requests given so far, which is the next one's number.
    given: u32,
    predictor: Predictor,
    seed: Seed,
}

impl Reader {
    fn read_all(mut self, to: &SyncSender<Chunk>) {
        let mut rows = Vec::new();
        loop {
            let read = self.stream.next_chunk(&mut rows);
            let jobs = self.jobs(&rows);
            let chunk = Chunk { jobs, notes: self.stream.notes(), error: read.err() };
            let last = chunk.jobs.is_empty() || chunk.error.is_some();
            // Nobody listens any more when the run has ended before the trace.
            if to.send(chunk).is_err() || last {
                return;
            }
        }
    }

    fn jobs(&mut self, rows: &[TraceRow]) -> Vec<Job> {
        let replay = Replay {
            rate_scale: self.rate_scale,
            rounds: 1,
            requests: None,
            resample: None,
            closed_loop: false,
        };
        let mut jobs = replay.jobs(rows, self.seed);
        for job in &mut jobs {
            job.request.id = RequestId(self.given + job.request.id.0);
            job.request.arrival_order += u64::from(self.given);
        }
        self.predictor.predict(&mut jobs, self.seed);
        // A stream gives as many requests as there are numbers, so only the number after the last wraps.
        self.given = self.given.wrapping_add(rows.len() as u32);
        jobs
    }
}

#[cfg(test)]
mod tests {
    use crate::workload::predictor::Model;
    use std::fmt::Write as _;
    use std::io::Write as _;

    use tempfile::NamedTempFile;

    use super::*;

    const HEADER: &str = "arrived_s,prompt_tokens,output_tokens,session,prefix,prefix_tokens\n";
    const PREDICTOR: Predictor =
        Predictor { common: Model::LogNormal { bias: 1.1, sigma: 0.4 }, of_class: Vec::new() };

    fn file(text: &str) -> NamedTempFile {
        let mut file = NamedTempFile::new().unwrap();
        file.write_all(text.as_bytes()).unwrap();
        file
    }

    /// Rows that fill more than two chunks, with equal times and rows that produce nothing among them.
    fn many() -> String {
        let mut text = HEADER.to_owned();
        for row in 0..10_000u64 {
            let (at, output) = (7 + row / 3 * 11, row * 31 % 97);
            let _ = writeln!(
                text,
                "{}.{:03},{},{output},{},{},5",
                at / 1_000,
                at % 1_000,
                10 + row % 50,
                row % 9,
                row % 4
            );
        }
        text
    }

    fn open(file: &NamedTempFile, rate_scale: f64, requests: Option<u32>) -> Result<Streamed, TraceError> {
        Streamed::open(file.path(), &ReadOptions::default(), rate_scale, requests, PREDICTOR, Seed(5))
    }

    /// All jobs, each announced by its time before it is given.
    fn drain(streamed: &mut Streamed) -> Vec<Job> {
        let mut jobs = Vec::new();
        while let Some(sent) = streamed.next_sent() {
            let job = streamed.next().unwrap();
            assert_eq!(job.sent, sent);
            jobs.push(job);
        }
        assert!(streamed.next().is_none());
        jobs
    }

    #[test]
    fn it_gives_what_the_whole_trace_gives() {
        let file = file(&many());
        let trace = trace::read(file.path(), &ReadOptions::default()).unwrap();
        for (rate_scale, requests) in
            [(1.0, None), (3.7, None), (0.3, Some(5_000)), (1.0, Some(0)), (1.0, Some(1))]
        {
            let first = requests.map_or(trace.rows.len(), |requests| requests as usize);
            let whole = Replay { rate_scale, rounds: 1, requests: None, resample: None, closed_loop: false };
            let mut expected = whole.jobs(&trace.rows[..first], Seed(5));
            PREDICTOR.predict(&mut expected, Seed(5));
            let mut streamed = open(&file, rate_scale, requests).unwrap();
            assert_eq!(streamed.format(), trace.format);
            // A job has no equality of its own; its words hold all its fields.
            assert_eq!(format!("{:?}", drain(&mut streamed)), format!("{expected:?}"));
            assert!(streamed.error().is_none());
            if requests.is_none() {
                assert_eq!(streamed.notes(), trace.notes);
            }
        }
    }

    #[test]
    fn an_error_comes_after_the_requests_before_it() {
        let good = many().lines().count();
        let file = file(&format!("{}1000,1,x,,,\n", many()));
        let mut streamed = open(&file, 1.0, None).unwrap();
        let jobs = drain(&mut streamed);
        assert_eq!(jobs.len() as u64, streamed.notes().rows_read - streamed.notes().output_zero_skipped);
        let said = streamed.error().unwrap().to_string();
        assert!(said.contains(&format!(":{}: column output_tokens", good + 1)), "{said}");
        assert!(streamed.error().is_none());
        // Who stops before it never meets it.
        let mut streamed = open(&file, 1.0, Some(jobs.len() as u32)).unwrap();
        assert_eq!((drain(&mut streamed).len(), streamed.error().is_none()), (jobs.len(), true));
    }

    #[test]
    fn what_is_no_trace_is_told_at_once() {
        let said = |text: &str| open(&file(text), 1.0, None).err().unwrap().to_string();
        assert!(said(HEADER).ends_with("holds no requests: there is no row below the header"));
        assert!(said(&format!("{HEADER}1,1,x,,,\n")).contains(":2: column output_tokens"));
        assert!(said("").ends_with("it is empty"));
    }

    #[test]
    fn a_run_may_end_before_its_trace() {
        let mut streamed = open(&file(&many()), 1.0, None).unwrap();
        assert_eq!(streamed.next().unwrap().request.id, RequestId(0));
    }
}
