//! A trace as a workload while it is read: memory does not grow with its length.
//!
//! Knows how rows become requests one after the other, as [`super::replay`] makes them of a whole trace. Cannot
//! resample or repeat, for which the whole trace would have to be there.

use std::path::Path;

use super::predictor::Predictor;
use super::replay::{job, scaled};
use super::{Job, Source};
use crate::random::Seed;
use crate::time::Time;
use crate::trace::{Notes, TraceError, TraceStream};

/// Requests of a trace, made as they are asked for.
#[derive(Debug)]
pub struct Streamed {
    stream: TraceStream,
    rate_scale: f64,
    /// How many requests are still to come, at most.
    left: u32,
    predictor: Predictor,
    seed: Seed,
    /// Requests ready to be sent, the next one last.
    ready: Vec<Job>,
    made: u32,
}

impl Streamed {
    /// The first `requests` requests (all, without) of the trace in `path`, its arrivals `rate_scale` times as fast.
    ///
    /// # Errors
    /// If there is no such file or format.
    pub fn open(
        path: &Path,
        format: Option<&str>,
        rate_scale: f64,
        requests: Option<u32>,
        predictor: Predictor,
        seed: Seed,
    ) -> Result<Streamed, TraceError> {
        let stream = TraceStream::open(path, format)?;
        let left = requests.unwrap_or(u32::MAX);
        let mut streamed = Streamed { stream, rate_scale, left, predictor, seed, ready: Vec::new(), made: 0 };
        streamed.refill();
        Ok(streamed)
    }

    /// What was odd about the part of the file that was read.
    ///
    /// # Errors
    /// What was wrong with the file: the requests came from the part before.
    pub fn finish(self) -> Result<Notes, TraceError> {
        self.stream.finish()
    }

    fn refill(&mut self) {
        while self.ready.is_empty() && self.left > 0 {
            let Some(rows) = self.stream.next_chunk() else { return };
            for row in rows.iter().take(self.left as usize) {
                self.ready.push(job(row, self.made, scaled(row.arrived.as_ps(), self.rate_scale), 0));
                self.made += 1;
            }
            self.left -= self.ready.len() as u32;
            self.predictor.predict(&mut self.ready, self.seed);
            self.ready.reverse();
        }
    }
}

impl Source for Streamed {
    fn next(&mut self) -> Option<Job> {
        let job = self.ready.pop()?;
        self.refill();
        Some(job)
    }

    fn next_sent(&self) -> Option<Time> {
        self.ready.last().map(|job| job.sent)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trace;
    use crate::workload::replay::Replay;

    fn sample(name: &str) -> std::path::PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("traces").join(name)
    }

    #[test]
    fn streaming_gives_the_requests_of_the_whole_trace() {
        let predictor = Predictor::LogNormal { bias: 1.1, sigma: 0.4 };
        for name in
            ["azure-2023-sample.csv", "azure-2024-sample.csv", "mooncake-sample.jsonl", "plain-sample.csv"]
        {
            for requests in [None, Some(150)] {
                let replay = Replay { rate_scale: 1.7, rounds: 1, requests, resample: None };
                let mut whole = replay.jobs(&trace::read(&sample(name), None).unwrap().rows, Seed(3));
                predictor.predict(&mut whole, Seed(3));
                let mut streamed =
                    Streamed::open(&sample(name), None, 1.7, requests, predictor, Seed(3)).unwrap();
                let jobs: Vec<Job> = std::iter::from_fn(|| streamed.next()).collect();
                assert_eq!(format!("{jobs:?}"), format!("{whole:?}"), "{name}");
                assert!(streamed.finish().is_ok());
            }
        }
    }

    #[test]
    fn a_row_before_its_forerunner_is_told_with_its_line() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("unsorted.csv");
        std::fs::write(&path, "arrived_s,prompt_tokens,output_tokens\n1,10,5\n3,10,5\n2,10,5\n").unwrap();
        let mut streamed = Streamed::open(&path, None, 1.0, None, Predictor::None, Seed(1)).unwrap();
        while streamed.next().is_some() {}
        let error = streamed.finish().unwrap_err().to_string();
        assert!(error.contains("unsorted.csv:4:") && error.contains("sort the file"), "{error}");
    }
}
