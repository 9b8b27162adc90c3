//! What one replica showed over a run: its steps, its token gaps and a timeline of bounded size.

use serde::Serialize;

use super::Histogram;
use crate::observe::{GapRun, Observer, StepRun};
use crate::time::{Span, Time};

/// Most points of a timeline: when it would have more, neighbours are joined and the interval doubles.
const MOST_POINTS: usize = 480;

/// A replica over one interval of time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize)]
pub struct TimelinePoint {
    /// Largest running list.
    pub running: u32,
    /// Most requests waiting.
    pub waiting: u32,
    /// Most blocks referred to.
    pub kv_blocks_used: u32,
    /// Steps begun.
    pub steps: u64,
}

impl TimelinePoint {
    /// `steps` of a run began here, at the last of which so many blocks were referred to.
    fn enter(&mut self, run: &StepRun<'_>, kv_blocks_used: u32, steps: u64) {
        self.running = self.running.max(run.running);
        self.waiting = self.waiting.max(run.waiting);
        self.kv_blocks_used = self.kv_blocks_used.max(kv_blocks_used);
        self.steps += steps;
    }
}

/// An observer that keeps integrals, a histogram and a timeline.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LaneStats {
    /// Steps.
    pub steps: u64,
    /// Time the GPU worked.
    pub busy: Span,
    /// When its last step ended.
    pub last_end: Time,
    /// Prompt (and recomputed) tokens.
    pub prefill_tokens: u64,
    /// Tokens decoded.
    pub decode_tokens: u64,
    /// GPU time by the length of the running list.
    batch_time: Vec<Span>,
    /// Sum over steps of blocks times picoseconds.
    kv_block_time: u128,
    /// Gaps between the tokens of a request.
    pub token_gaps: Histogram,
    interval: Span,
    timeline: Vec<TimelinePoint>,
    /// Where the last step was drawn: its point, and when that point ends.
    point: usize,
    point_ends: Time,
}

impl Default for LaneStats {
    fn default() -> Self {
        LaneStats {
            steps: 0,
            busy: Span::ZERO,
            last_end: Time::ZERO,
            prefill_tokens: 0,
            decode_tokens: 0,
            batch_time: Vec::new(),
            kv_block_time: 0,
            token_gaps: Histogram::default(),
            interval: Span::from_ms(100),
            timeline: Vec::new(),
            point: 0,
            point_ends: Time::ZERO,
        }
    }
}

impl LaneStats {
    /// Length of the running list that half of the GPU's time was at or below; 0 if it never worked.
    pub fn median_batch(&self) -> u32 {
        median_batch(&self.batch_time)
    }

    /// GPU time by length of the running list.
    pub fn batch_time(&self) -> &[Span] {
        &self.batch_time
    }

    /// Mean of blocks in use over the GPU's time.
    pub fn mean_kv_blocks(&self) -> f64 {
        if self.busy == Span::ZERO { 0.0 } else { self.kv_block_time as f64 / self.busy.as_ps() as f64 }
    }

    /// The points, each covering [`LaneStats::timeline_interval`].
    pub fn timeline(&self) -> &[TimelinePoint] {
        &self.timeline
    }

    /// Length of a point.
    pub fn timeline_interval(&self) -> Span {
        self.interval
    }

    /// Enters a run into the timeline: each step at the point in which it began.
    fn draw(&mut self, run: &StepRun<'_>, last_start: Time) {
        if last_start < self.point_ends {
            // Most runs lie within the point of the run before. Blocks only become more during a run.
            let taken: u32 = run.taken.iter().map(|taken| taken.blocks).sum();
            self.timeline[self.point].enter(run, run.kv_blocks_used + taken, run.count);
            return;
        }
        let (mut drawn, mut kv_blocks_used) = (0, run.kv_blocks_used);
        let mut taken = run.taken.iter().peekable();
        // The interval may double for the last step, so its place is made first.
        self.make_room(last_start);
        while drawn < run.count {
            let index = run.start_of(drawn).as_ps() / self.interval.as_ps();
            self.point = index as usize;
            self.point_ends = Time::from_ps((index + 1) * self.interval.as_ps());
            let until = run.steps_before(self.point_ends);
            while let Some(taken) = taken.next_if(|taken| taken.step < until) {
                kv_blocks_used += taken.blocks;
            }
            self.timeline[self.point].enter(run, kv_blocks_used, until - drawn);
            drawn = until;
        }
    }

    /// Makes the timeline reach to the point of `at`.
    fn make_room(&mut self, at: Time) {
        while (at.as_ps() / self.interval.as_ps()) as usize >= MOST_POINTS {
            self.interval = self.interval * 2;
            let join = |pair: &[TimelinePoint]| TimelinePoint {
                running: pair.iter().map(|point| point.running).max().unwrap_or(0),
                waiting: pair.iter().map(|point| point.waiting).max().unwrap_or(0),
                kv_blocks_used: pair.iter().map(|point| point.kv_blocks_used).max().unwrap_or(0),
                steps: pair.iter().map(|point| point.steps).sum(),
            };
            self.timeline = self.timeline.chunks(2).map(join).collect();
        }
        let index = (at.as_ps() / self.interval.as_ps()) as usize;
        if self.timeline.len() <= index {
            self.timeline.resize(index + 1, TimelinePoint::default());
        }
    }
}

/// Batch size that half of the time was at or below.
pub fn median_batch(batch_time: &[Span]) -> u32 {
    let total: Span = batch_time.iter().copied().sum();
    let mut seen = Span::ZERO;
    for (batch, time) in batch_time.iter().enumerate() {
        seen += *time;
        if seen.as_ps() * 2 >= total.as_ps() && total > Span::ZERO {
            return batch as u32;
        }
    }
    0
}

impl Observer for LaneStats {
    fn steps(&mut self, run: &StepRun<'_>) {
        let gpu = run.gpu_time();
        let last_start = run.start_of(run.count - 1);
        self.steps += run.count;
        self.busy += gpu;
        self.last_end = last_start + run.gpu_time_at(run.count - 1);
        self.prefill_tokens += u64::from(run.prefill_tokens) * run.count;
        self.decode_tokens += u64::from(run.decodes) * run.count;
        let batch = run.running as usize;
        if self.batch_time.len() <= batch {
            self.batch_time.resize(batch + 1, Span::ZERO);
        }
        self.batch_time[batch] += gpu;
        self.kv_block_time += u128::from(run.kv_blocks_used) * u128::from(gpu.as_ps());
        for taken in run.taken {
            // Blocks count from the step that took them on.
            let rest = gpu - run.gpu_time_of(taken.step);
            self.kv_block_time += u128::from(taken.blocks) * u128::from(rest.as_ps());
        }
        self.draw(run, last_start);
    }

    fn token_gaps(&mut self, gaps: &GapRun) {
        self.token_gaps.add_series(gaps.first, gaps.growth, gaps.steps, gaps.count);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observe::Pace;

    fn step(start_ms: u64, running: u32) -> StepRun<'static> {
        StepRun {
            start: Time::ZERO + Span::from_ms(start_ms),
            count: 1,
            first: Span::from_ms(1),
            growth: Span::ZERO,
            pace: Pace::After(Span::ZERO),
            decodes: running,
            prefill_tokens: 0,
            running,
            waiting: 0,
            kv_blocks_used: running * 2,
            taken: &[],
        }
    }

    #[test]
    fn a_long_timeline_keeps_its_peaks() {
        let mut stats = LaneStats::default();
        for second in 0..10_000 {
            stats.steps(&step(second * 1_000, if second == 777 { 50 } else { 2 }));
        }
        assert!(stats.timeline().len() <= MOST_POINTS);
        assert_eq!(stats.timeline().iter().map(|point| point.running).max(), Some(50));
        assert_eq!(stats.timeline().iter().map(|point| point.steps).sum::<u64>(), 10_000);
        assert_eq!(stats.median_batch(), 2);
        assert!((stats.mean_kv_blocks() - 4.0).abs() < 0.1);
    }
}
