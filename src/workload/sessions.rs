//! Closed loops: requests that are sent when others have been answered.
//!
//! Knows who waits for whom and how long they think. Does not know where that came from: a trace of sessions, or users
//! and sessions that were drawn. In a slow fleet everything behind a slow answer comes later, as it does with real users.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::Arc;

use super::{Job, Source};
use crate::request::{Outcome, RequestId};
use crate::time::Time;

/// Requests of which some wait for others.
#[derive(Clone, Debug)]
pub struct Sessions {
    jobs: Arc<[Job]>,
    /// By job: answers it still waits for.
    awaited: Vec<u32>,
    /// By job: when it is sent, as far as the answers that have come say.
    due: Vec<Time>,
    /// Jobs that wait for job i are `followers[starts[i] .. starts[i + 1]]`, each with the place of the wait among its own.
    starts: Vec<u32>,
    followers: Vec<(u32, u32)>,
    /// Jobs that wait for nobody any more.
    ready: BinaryHeap<Reverse<(Time, u32)>>,
    /// Jobs in the order in which they were sent: a request's number is its place here.
    sent: Vec<u32>,
}

impl Sessions {
    /// Whether any of these waits for another.
    pub fn are_in(jobs: &[Job]) -> bool {
        jobs.iter().any(|job| !job.waits.is_empty())
    }

    /// A closed loop of `jobs`; those that wait for nobody are sent at their own time.
    ///
    /// # Panics
    /// If a job waits for one that is not there.
    pub fn new(jobs: Arc<[Job]>) -> Sessions {
        let count = jobs.len();
        let mut starts = vec![0u32; count + 1];
        for wait in jobs.iter().flat_map(|job| job.waits.iter()) {
            starts[wait.row as usize + 1] += 1;
        }
        for index in 0..count {
            starts[index + 1] += starts[index];
        }
        let mut places = starts.clone();
        let mut followers = vec![(0, 0); starts[count] as usize];
        for (index, job) in jobs.iter().enumerate() {
            for (number, wait) in job.waits.iter().enumerate() {
                let place = &mut places[wait.row as usize];
                followers[*place as usize] = (index as u32, number as u32);
                *place += 1;
            }
        }
        let awaited: Vec<u32> = jobs.iter().map(|job| job.waits.len() as u32).collect();
        let ready = (0..count as u32)
            .filter(|&index| awaited[index as usize] == 0)
            .map(|index| Reverse((jobs[index as usize].sent, index)))
            .collect();
        let due = vec![Time::ZERO; count];
        Sessions { jobs, awaited, due, starts, followers, ready, sent: Vec::with_capacity(count) }
    }

    /// Which job the request with this number was.
    pub fn job_of(&self, request: RequestId) -> u32 {
        self.sent[request.0 as usize]
    }
}

impl Source for Sessions {
    fn next(&mut self) -> Option<Job> {
        let Reverse((sent, index)) = self.ready.pop()?;
        let number = self.sent.len() as u32;
        self.sent.push(index);
        let mut job = self.jobs[index as usize].clone();
        job.sent = sent;
        job.request.id = RequestId(number);
        job.request.arrival_order = u64::from(number);
        Some(job)
    }

    fn next_sent(&self) -> Option<Time> {
        self.ready.peek().map(|Reverse((sent, _))| *sent)
    }

    fn finished(&mut self, outcome: &Outcome) {
        let index = self.job_of(outcome.attempt.request) as usize;
        for place in self.starts[index]..self.starts[index + 1] {
            let (follower, wait) = self.followers[place as usize];
            let job = &self.jobs[follower as usize];
            let due = match job.waits[wait as usize].think {
                Some(think) => outcome.done_received + think,
                None => outcome.done_received.max(job.sent),
            };
            let follower = follower as usize;
            self.due[follower] = self.due[follower].max(due);
            self.awaited[follower] -= 1;
            if self.awaited[follower] == 0 {
                self.ready.push(Reverse((self.due[follower], follower as u32)));
            }
        }
    }

    fn is_closed_loop(&self) -> bool {
        true
    }
}
