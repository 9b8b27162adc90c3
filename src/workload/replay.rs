//! A trace as a workload: scaled, cut, and resampled where a study wants repetitions.

use rand::RngExt;
use rustc_hash::FxHashMap;

use super::Job;
use crate::random::{Purpose, Seed, mix};
use crate::request::{Content, ContentRun, Request, RequestId};
use crate::time::{Span, Time};
use crate::trace::{TraceRow, Wait, Waits, in_order};

/// What differs between repetitions of a trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resample {
    /// Stretches of equal length, drawn with replacement and joined.
    TimeBlocks,
    /// Each request moved by up to half the mean gap, earlier or later.
    Jitter,
    /// Whole sessions, drawn with replacement; each begins where one began.
    Sessions,
}

/// Stretches that [`Resample::TimeBlocks`] cuts a trace into.
const BLOCKS: u64 = 20;

/// How a trace becomes requests.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Replay {
    /// Its arrivals so many times as fast.
    pub rate_scale: f64,
    /// So many times in a row, one mean gap between the last of one round and the first of the next. Each round
    /// has prefix identities of its own, so that repeating a trace does not look like users repeating themselves.
    pub rounds: u32,
    /// Only the first so many of them all.
    pub requests: Option<u32>,
    /// One draw of it instead of what was recorded.
    pub resample: Option<Resample>,
    /// Whether requests wait for the answers that they waited for then. If not, they are sent when they were sent then.
    pub closed_loop: bool,
}

/// When a request is sent, of which row it is, and the how-manieth use of that row.
type Sent = (Time, usize, u64);

impl Replay {
    /// The requests in order of sending. Without `resample` they are as recorded, and `seed` is not used.
    pub fn jobs(&self, rows: &[TraceRow], seed: Seed) -> Vec<Job> {
        let mut sent = self.sent(rows);
        match self.resample {
            None => {}
            Some(Resample::TimeBlocks) => sent = time_blocks(&sent, u64::from(self.rounds), seed),
            Some(Resample::Jitter) => jitter(&mut sent, seed),
            Some(Resample::Sessions) => sent = sessions(&sent, rows, u64::from(self.rounds), seed),
        }
        sent.sort_by_key(|&(at, index, copy)| (at, copy, index));
        let numbered = sent.iter().enumerate();
        let mut jobs: Vec<Job> =
            numbered.map(|(number, &(at, index, copy))| job(&rows[index], number as u32, at, copy)).collect();
        if self.closed_loop {
            connect(&mut jobs, &sent, rows);
        }
        jobs
    }

    /// All rounds, before anything is resampled.
    fn sent(&self, rows: &[TraceRow]) -> Vec<Sent> {
        let last = rows.last().map_or(0, |row| row.arrived.as_ps());
        let round = last + last / (rows.len() as u64).saturating_sub(1).max(1);
        let all = rows.len() as u64 * u64::from(self.rounds);
        let most = self.requests.map_or(all, |requests| all.min(u64::from(requests)));
        let rounds = (0..u64::from(self.rounds)).flat_map(|number| {
            let start = round.saturating_mul(number);
            rows.iter()
                .enumerate()
                .map(move |(index, row)| (row.arrived.as_ps().saturating_add(start), index, number))
        });
        rounds
            .take(most as usize)
            .map(|(at, index, number)| (scaled(at, self.rate_scale), index, number))
            .collect()
    }
}

/// When a request that came at `arrived_ps` is sent at another rate.
pub(super) fn scaled(arrived_ps: u64, rate_scale: f64) -> Time {
    match rate_scale {
        1.0 => Time::from_ps(arrived_ps.min(LATEST_PS)),
        scale => Time::from_ps(((arrived_ps as f64 / scale).round() as u64).min(LATEST_PS)),
    }
}

/// Request `number`, the `copy`-th use of a row.
pub(super) fn job(row: &TraceRow, number: u32, sent: Time, copy: u64) -> Job {
    Job {
        sent,
        request: Request {
            id: RequestId(number),
            prompt_tokens: row.prompt_tokens,
            output_tokens: row.output_tokens,
            max_tokens: row.max_tokens,
            priority: row.priority,
            attempt: 0,
            arrival_order: u64::from(number),
            content: copied(&row.content, copy),
            remote_tokens: 0,
        },
        session: row.session.map(|session| if copy == 0 { session } else { mix(session ^ mix(copy)) }),
        class: 0,
        waits: Waits::default(),
        predicted_output_tokens: None,
    }
}

/// Far beyond what a run may last, and far below what would overflow when a request is moved.
const LATEST_PS: u64 = u64::MAX / 4;

/// Lets each use of a row wait for the same use of the rows that it waits for; those that are not among the jobs are
/// waited for by nobody.
fn connect(jobs: &mut [Job], sent: &[Sent], rows: &[TraceRow]) {
    if rows.iter().all(|row| row.waits.is_empty()) {
        return;
    }
    let places: FxHashMap<(usize, u64), u32> =
        sent.iter().enumerate().map(|(place, &(_, index, copy))| ((index, copy), place as u32)).collect();
    for (job, &(_, index, copy)) in jobs.iter_mut().zip(sent) {
        let place = |wait: &Wait| places.get(&(wait.row as usize, copy)).copied();
        let waits = rows[index].waits.iter().filter_map(|wait| Some(Wait { row: place(wait)?, ..*wait }));
        job.waits = Waits::of(waits.collect());
    }
}

/// Content of the `copy`-th use of a row: identities of its own.
fn copied(content: &Content, copy: u64) -> Content {
    if copy == 0 {
        return content.clone();
    }
    let fresh = |run: &ContentRun| ContentRun { stream: mix(run.stream ^ mix(copy)) >> 1, ..*run };
    Content::from_runs(content.runs().iter().map(fresh))
}

fn time_blocks(sent: &[Sent], rounds: u64, seed: Seed) -> Vec<Sent> {
    let Some(&(last, _, _)) = sent.last() else { return Vec::new() };
    // One picosecond more, so that the last request lies inside the last block.
    let block = (last.as_ps() + 1).div_ceil(BLOCKS);
    let mut draws = seed.stream(Purpose::Resampling, 0);
    let mut used = [0u64; BLOCKS as usize];
    let mut joined = Vec::with_capacity(sent.len());
    for place in 0..BLOCKS {
        let drawn = draws.random_range(0..BLOCKS);
        let uses = used[drawn as usize];
        used[drawn as usize] += 1;
        let from = sent.partition_point(|(at, _, _)| at.as_ps() < drawn * block);
        let to = sent.partition_point(|(at, _, _)| at.as_ps() < (drawn + 1) * block);
        let moved = |&(at, index, round): &Sent| {
            (Time::from_ps(at.as_ps() - drawn * block + place * block), index, uses * rounds + round)
        };
        joined.extend(sent[from..to].iter().map(moved));
    }
    joined
}

/// The sessions among `sent`, by when they begin; a request without one is a session of its own.
fn by_session(sent: &[Sent], rows: &[TraceRow]) -> Vec<Vec<Sent>> {
    let mut places: FxHashMap<(u64, u64), usize> = FxHashMap::default();
    let mut groups: Vec<Vec<Sent>> = Vec::new();
    for one in sent {
        let place = match rows[one.1].session {
            Some(session) => *places.entry((session, one.2)).or_insert(groups.len()),
            None => groups.len(),
        };
        if place == groups.len() {
            groups.push(Vec::new());
        }
        groups[place].push(*one);
    }
    groups
}

fn sessions(sent: &[Sent], rows: &[TraceRow], rounds: u64, seed: Seed) -> Vec<Sent> {
    let groups = by_session(sent, rows);
    let mut draws = seed.stream(Purpose::Resampling, 0);
    let mut used = vec![0u64; groups.len()];
    let mut joined = Vec::with_capacity(sent.len());
    for place in &groups {
        let drawn = draws.random_range(0..groups.len());
        let uses = used[drawn];
        used[drawn] += 1;
        let (begins, began) = (place[0].0, groups[drawn][0].0);
        joined.extend(
            groups[drawn]
                .iter()
                .map(|&(at, index, round)| (begins + (at - began), index, uses * rounds + round)),
        );
    }
    joined
}

/// Rows so many times, each time with identities of its own, one behind the other.
pub fn repeated(rows: &[TraceRow], rounds: u32) -> Vec<TraceRow> {
    let count = rows.len() as u32;
    let last = rows.last().map_or(Time::ZERO, |row| row.arrived) - Time::ZERO;
    let mut all = Vec::with_capacity(rows.len() * rounds as usize);
    for round in 0..rounds {
        let copy = u64::from(round);
        all.extend(rows.iter().map(|row| TraceRow {
            arrived: Time::from_ps(
                row.arrived.as_ps().saturating_add(last.as_ps().saturating_mul(copy)).min(LATEST_PS),
            ),
            content: copied(&row.content, copy),
            session: row.session.map(|session| if copy == 0 { session } else { mix(session ^ mix(copy)) }),
            waits: Waits::of(
                row.waits.iter().map(|wait| Wait { row: wait.row + round * count, ..*wait }).collect(),
            ),
            ..row.clone()
        }));
    }
    all
}

/// Rows whose sessions begin at other times: the k-th of them at the k-th of `starts`, its turns as far behind as they
/// were.
pub fn restarted(rows: &[TraceRow], starts: impl FnOnce(usize) -> Vec<Time>) -> Vec<TraceRow> {
    let sent: Vec<Sent> = rows.iter().enumerate().map(|(index, row)| (row.arrived, index, 0)).collect();
    let groups = by_session(&sent, rows);
    let mut moved = rows.to_vec();
    for (group, start) in groups.iter().zip(starts(groups.len())) {
        for &(at, index, _) in group {
            moved[index].arrived = start + (at - group[0].0);
        }
    }
    in_order(&mut moved);
    moved
}

fn jitter(sent: &mut [Sent], seed: Seed) {
    let Some(&(last, _, _)) = sent.last() else { return };
    let half_gap = last.as_ps() / sent.len() as u64 / 2;
    let mut draws = seed.stream(Purpose::Resampling, 0);
    for (at, _, _) in sent {
        let shift = Span::from_ps(draws.random_range(0..=2 * half_gap));
        *at = Time::from_ps((*at + shift).as_ps().saturating_sub(half_gap));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn replay(rows: &[TraceRow], rate_scale: f64, resample: Option<Resample>, seed: Seed) -> Vec<Job> {
        Replay { rate_scale, rounds: 1, requests: None, resample, closed_loop: false }.jobs(rows, seed)
    }

    #[test]
    fn rounds_follow_each_other_with_identities_of_their_own() {
        let replay =
            Replay { rate_scale: 2.0, rounds: 3, requests: Some(900), resample: None, closed_loop: false };
        let jobs = replay.jobs(&rows(), Seed(1));
        assert_eq!(jobs.len(), 900);
        // Rows come every 100 ms, at twice the rate every 50 ms, also from one round to the next.
        assert!(jobs.windows(2).all(|pair| pair[1].sent - pair[0].sent == Span::from_ms(50)));
        let mut streams: Vec<u64> = jobs.iter().map(|job| job.request.content.runs()[0].stream).collect();
        streams.sort_unstable();
        streams.dedup();
        assert_eq!(streams.len(), jobs.len());
    }

    fn rows() -> Vec<TraceRow> {
        let row = |number: u64| TraceRow {
            arrived: Time::ZERO + Span::from_ms(number * 100),
            content: Content::from_runs([ContentRun { stream: number, position: 0, tokens: 8 }]),
            ..TraceRow::of_lengths(10 + number as u32, 5)
        };
        (0..400).map(row).collect()
    }

    #[test]
    fn without_resampling_it_is_as_recorded() {
        let jobs = replay(&rows(), 2.0, None, Seed(1));
        assert_eq!(jobs.len(), 400);
        assert_eq!(jobs[10].sent, Time::ZERO + Span::from_ms(500));
        assert_eq!(jobs[10].request.prompt_tokens, 20);
    }

    #[test]
    fn resampling_keeps_order_and_kind() {
        for resample in [Resample::TimeBlocks, Resample::Jitter, Resample::Sessions] {
            let (a, b) = (
                replay(&rows(), 1.0, Some(resample), Seed(1)),
                replay(&rows(), 1.0, Some(resample), Seed(2)),
            );
            assert!(a.is_sorted_by_key(|job| job.sent));
            assert!(
                a.iter()
                    .zip(&b)
                    .any(|(a, b)| a.sent != b.sent || a.request.prompt_tokens != b.request.prompt_tokens)
            );
            assert_eq!(a.len(), 400, "{resample:?}");
        }
    }

    #[test]
    fn a_stretch_used_twice_does_not_repeat_identities() {
        let jobs = replay(&rows(), 1.0, Some(Resample::TimeBlocks), Seed(1));
        let mut streams: Vec<u64> = jobs.iter().map(|job| job.request.content.runs()[0].stream).collect();
        streams.sort_unstable();
        streams.dedup();
        assert_eq!(streams.len(), jobs.len());
    }
}
