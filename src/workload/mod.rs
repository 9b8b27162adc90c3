//! Where requests come from: drawn from parameters, or replayed from a trace.
//!
//! Knows arrivals, lengths and identities. Does not know replicas or routers.

use std::sync::Arc;

use crate::request::{Arrival, Outcome, Request};
use crate::time::{Span, Time};
use crate::trace::{Notes, Trace, TraceRow, Wait, Waits, in_order};

pub mod amplify;
pub mod drawn;
pub mod fit;
pub mod predictor;
pub mod replay;
pub mod sessions;
pub mod shape;
pub mod streamed;

/// A request with all that is true of it; a router is shown its [`Job::arrival`] only.
#[derive(Clone, Debug)]
pub struct Job {
    /// When the client sends it.
    pub sent: Time,
    /// What a replica is given.
    pub request: Request,
    /// The conversation it belongs to, where known.
    pub session: Option<u64>,
    /// Its tenant or level of service, by its place among the workload's classes; 0 where there are none.
    pub class: u16,
    /// Requests whose answers it waits for, by their place among the jobs; in open loops there are none.
    pub waits: Waits,
    /// What a predictor says of its output length, where the scenario grants one.
    pub predicted_output_tokens: Option<u32>,
}

impl Job {
    /// What a router may see.
    pub fn arrival(&self) -> Arrival {
        Arrival {
            id: self.request.id,
            sent: self.sent,
            prompt_tokens: self.request.prompt_tokens,
            content: self.request.content.truncated(self.request.prompt_tokens),
            session: self.session,
            class: self.class,
            max_tokens: self.request.max_tokens,
            priority: self.request.priority,
            predicted_output_tokens: self.predicted_output_tokens,
        }
    }
}

/// Requests as a trace. Who waits for another has the time that he would have if answers took none.
pub fn trace_of(jobs: &[Job]) -> Trace {
    let mut rows: Vec<TraceRow> = Vec::with_capacity(jobs.len());
    for job in jobs {
        let due = |wait: &Wait| rows[wait.row as usize].arrived + wait.think.unwrap_or(Span::ZERO);
        let arrived = job.waits.iter().map(due).max().unwrap_or(job.sent);
        rows.push(TraceRow {
            arrived,
            prompt_tokens: job.request.prompt_tokens,
            output_tokens: job.request.output_tokens,
            max_tokens: job.request.max_tokens,
            content: job.request.content.clone(),
            session: job.session,
            priority: job.request.priority,
            waits: job.waits.clone(),
        });
    }
    in_order(&mut rows);
    let first = rows.first().map_or(Time::ZERO, |row| row.arrived);
    for row in &mut rows {
        row.arrived = Time::ZERO + (row.arrived - first);
    }
    Trace { format: "drawn", rows, notes: Notes::default(), started_ps: 0 }
}

/// Requests in order of sending.
pub trait Source {
    /// The next request, not sent before those given earlier.
    fn next(&mut self) -> Option<Job>;

    /// When the next request will be sent, as far as is known now.
    fn next_sent(&self) -> Option<Time>;

    /// A request has ended for its client. In a closed loop this may cause another.
    fn finished(&mut self, _outcome: &Outcome) {}

    /// Whether [`Source::finished`] may cause requests, so that ends must be heard in time.
    fn is_closed_loop(&self) -> bool {
        false
    }
}

/// Requests known beforehand, shared by all runs that are compared.
#[derive(Clone, Debug)]
pub struct OpenLoop {
    jobs: Arc<[Job]>,
    next: usize,
}

impl OpenLoop {
    /// All of `jobs`, which are in order of sending.
    pub fn new(jobs: Arc<[Job]>) -> OpenLoop {
        debug_assert!(jobs.is_sorted_by_key(|job| job.sent), "requests are in order of sending");
        OpenLoop { jobs, next: 0 }
    }
}

impl Source for OpenLoop {
    fn next(&mut self) -> Option<Job> {
        let job = self.jobs.get(self.next)?.clone();
        self.next += 1;
        Some(job)
    }

    fn next_sent(&self) -> Option<Time> {
        self.jobs.get(self.next).map(|job| job.sent)
    }
}
