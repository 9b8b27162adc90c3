//! A trace cut to size before it is replayed: a window of time, a sample, lengths within limits, coarse times spread.
//!
//! Knows that sessions stay whole, and that requests that share more than the prefix common to all belong together.
//! Does not know rates or rounds: [`super::replay`] does.

use rand::RngExt;
use rustc_hash::FxHashMap;

use crate::random::{Purpose, Seed, mix};
use crate::request::ContentRun;
use crate::time::{Span, Time};
use crate::trace::{TraceRow, Wait, Waits};

/// What is kept of a trace, and how.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Shape {
    /// Requests from here on only, counted from the trace's first, which becomes the new beginning.
    pub start: Span,
    /// Requests before this only.
    pub end: Option<Span>,
    /// This share of the sessions; of requests without a session, of the groups that share a prefix.
    pub sample: f64,
    /// Longer prompts are cut or left out.
    pub max_prompt_tokens: Option<u32>,
    /// Longer outputs are cut or left out.
    pub max_output_tokens: Option<u32>,
    /// What happens to requests beyond these limits.
    pub over_limit: OverLimit,
    /// Times were rounded to multiples of this: requests are moved back by a draw from it.
    pub spread: Span,
    /// Whether the next turn of a session finds the tokens of an answer.
    pub answers: Answers,
}

/// Answers as parts of what a session says next.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Answers {
    /// As the trace's identities have it.
    #[default]
    AsTheyAre,
    /// They are found, where the identities of the next prompt show it.
    Cached,
    /// They are not found: identities end with the prompt.
    NotCached,
}

/// What happens to requests that are too long.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OverLimit {
    /// They are left out.
    #[default]
    Drop,
    /// They are cut to the limit.
    Clip,
}

impl Default for Shape {
    fn default() -> Shape {
        Shape {
            start: Span::ZERO,
            end: None,
            sample: 1.0,
            max_prompt_tokens: None,
            max_output_tokens: None,
            over_limit: OverLimit::Drop,
            spread: Span::ZERO,
            answers: Answers::AsTheyAre,
        }
    }
}

/// What shaping did, counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Shaped {
    /// Requests outside the window.
    pub outside_window: u64,
    /// Requests that the sample left out.
    pub not_sampled: u64,
    /// Requests over a limit that were left out.
    pub dropped: u64,
    /// Requests over a limit that were cut.
    pub clipped: u64,
    /// Requests whose time was moved within the grid.
    pub spread: u64,
    /// Requests whose answer the next turn was found to hold.
    pub answers_cached: u64,
}

impl Shaped {
    /// Sentences for people; none where nothing was changed.
    pub fn lines(&self) -> Vec<String> {
        let said = [
            (self.outside_window, "requests lie outside the window and were left out."),
            (self.not_sampled, "requests were not sampled; sessions and shared prefixes stay whole."),
            (self.dropped, "requests were longer than a limit and were left out."),
            (self.clipped, "requests were longer than a limit and were cut to it."),
            (self.spread, "requests were spread over the grid that their times were rounded to."),
            (self.answers_cached, "answers are part of the next prompt of their session, as its blocks say."),
        ];
        said.iter().filter(|(count, _)| *count > 0).map(|(count, what)| format!("{count} {what}")).collect()
    }
}

impl Shape {
    /// The rows that are kept, in order of time from zero, and what was done. `seed` draws the sample and the spread.
    pub fn apply(&self, rows: Vec<TraceRow>, seed: Seed) -> (Vec<TraceRow>, Shaped) {
        let (mut rows, mut shaped) = if (Shape { answers: Answers::AsTheyAre, ..*self }) == Shape::default() {
            (rows, Shaped::default())
        } else {
            self.cut(&rows, seed)
        };
        match self.answers {
            Answers::AsTheyAre => {}
            Answers::Cached => shaped.answers_cached = join_answers(&mut rows),
            Answers::NotCached => {
                rows.iter_mut().for_each(|row| row.content = row.content.truncated(row.prompt_tokens));
            }
        }
        (rows, shaped)
    }

    fn cut(&self, rows: &[TraceRow], seed: Seed) -> (Vec<TraceRow>, Shaped) {
        let mut shaped = Shaped::default();
        let groups = (self.sample < 1.0).then(|| groups(rows));
        let mut kept: Vec<(u32, TraceRow)> = Vec::new();
        for (index, row) in rows.iter().enumerate() {
            let since = row.arrived - Time::ZERO;
            if since < self.start || self.end.is_some_and(|end| since >= end) {
                shaped.outside_window += 1;
                continue;
            }
            if let Some(groups) = &groups
                && !self.is_sampled(groups[index], seed)
            {
                shaped.not_sampled += 1;
                continue;
            }
            let Some(row) = self.limited(row, &mut shaped) else { continue };
            kept.push((index as u32, TraceRow { arrived: Time::ZERO + (since - self.start), ..row }));
        }
        if self.spread > Span::ZERO {
            let mut draws = seed.stream(Purpose::Spreading, 0);
            for (_, row) in &mut kept {
                row.arrived += Span::from_ps(draws.random_range(0..self.spread.as_ps()));
                shaped.spread += 1;
            }
            kept.sort_by_key(|(_, row)| row.arrived);
        }
        let places: FxHashMap<u32, u32> =
            kept.iter().enumerate().map(|(place, (index, _))| (*index, place as u32)).collect();
        let mut rows: Vec<TraceRow> = kept.into_iter().map(|(_, row)| row).collect();
        for row in rows.iter_mut().filter(|row| !row.waits.is_empty()) {
            // Who waited for a request that is not there is sent when it was sent then.
            let waits =
                row.waits.iter().filter_map(|wait| Some(Wait { row: *places.get(&wait.row)?, ..*wait }));
            row.waits = Waits::of(waits.collect());
        }
        let earliest = rows.first().map_or(Time::ZERO, |row| row.arrived);
        for row in &mut rows {
            row.arrived = Time::ZERO + (row.arrived - earliest);
        }
        (rows, shaped)
    }

    fn is_sampled(&self, group: u64, seed: Seed) -> bool {
        let draw = seed.derive(Purpose::Sampling, group).0;
        (draw as f64) < self.sample * 2f64.powi(64)
    }

    fn limited(&self, row: &TraceRow, shaped: &mut Shaped) -> Option<TraceRow> {
        let prompt = self.max_prompt_tokens.unwrap_or(u32::MAX);
        let output = self.max_output_tokens.unwrap_or(u32::MAX);
        if row.prompt_tokens <= prompt && row.output_tokens <= output {
            return Some(row.clone());
        }
        if self.over_limit == OverLimit::Drop {
            shaped.dropped += 1;
            return None;
        }
        shaped.clipped += 1;
        let prompt_tokens = row.prompt_tokens.min(prompt);
        Some(TraceRow {
            prompt_tokens,
            output_tokens: row.output_tokens.min(output),
            content: row.content.truncated(prompt_tokens),
            ..row.clone()
        })
    }
}

/// Which group each row belongs to: its session or, without one, those that share its identities beyond what all share.
fn groups(rows: &[TraceRow]) -> Vec<u64> {
    let common = common_runs(rows);
    let group = |(index, row): (usize, &TraceRow)| match (row.session, row.content.runs().get(common)) {
        (Some(session), _) => mix(session),
        (None, Some(run)) => mix(mix(run.stream) ^ u64::from(run.position)),
        (None, None) => mix(index as u64 ^ (1 << 63)),
    };
    rows.iter().enumerate().map(group).collect()
}

/// Leading runs that nearly all rows with identities have in common, as a system prompt.
pub(super) fn common_runs(rows: &[TraceRow]) -> usize {
    let mut common = 0;
    loop {
        let runs: Vec<&ContentRun> = rows.iter().filter_map(|row| row.content.runs().get(common)).collect();
        let Some(first) = runs.first() else { return 0 };
        if runs.iter().filter(|run| **run == *first).count() * 10 < runs.len() * 9 {
            return common;
        }
        common += 1;
    }
}

/// Gives requests the identities of their answers, where the next turn of the session begins with their prompt and is
/// long enough to hold the answer too; how many.
fn join_answers(rows: &mut [TraceRow]) -> u64 {
    let mut joined = 0;
    for next in 0..rows.len() {
        let waits: Vec<Wait> = rows[next].waits.to_vec();
        for wait in waits {
            let (before, after) = (&rows[wait.row as usize], &rows[next]);
            let whole = before.prompt_tokens.saturating_add(before.output_tokens);
            // The block in which the prompt ends goes on in the next turn, so the last one may differ.
            let known = before.content.runs();
            let agreeing = known.iter().zip(after.content.runs()).take_while(|(a, b)| a == b).count();
            if known.is_empty()
                || agreeing + 1 < known.len()
                || after.content.tokens() < whole
                || before.content.tokens() > before.prompt_tokens
            {
                continue;
            }
            rows[wait.row as usize].content = after.content.truncated(whole);
            joined += 1;
        }
    }
    joined
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::request::Content;

    fn row(number: u64, session: Option<u64>, prompt_tokens: u32) -> TraceRow {
        TraceRow {
            arrived: Time::ZERO + Span::from_s(number),
            session,
            ..TraceRow::of_lengths(prompt_tokens, 10)
        }
    }

    fn waits(row: u32) -> Waits {
        Waits::of(vec![Wait { row, think: None }])
    }

    #[test]
    fn windows_begin_at_zero_and_keep_who_waits() {
        let mut rows: Vec<TraceRow> = (0..10).map(|number| row(number, None, 5)).collect();
        rows[5].waits = waits(4);
        rows[4].waits = waits(1);
        let shape = Shape { start: Span::from_s(3), end: Some(Span::from_s(7)), ..Shape::default() };
        let (kept, shaped) = shape.apply(rows.clone(), Seed(1));
        assert_eq!((kept.len(), shaped.outside_window), (4, 6));
        assert_eq!(kept[0].arrived, Time::ZERO);
        assert_eq!((kept[2].waits[0].row, kept[1].waits.len()), (1, 0));
    }

    #[test]
    fn samples_keep_sessions_whole() {
        let rows: Vec<TraceRow> = (0..4_000).map(|number| row(number, Some(number / 4), 5)).collect();
        let (kept, shaped) = Shape { sample: 0.25, ..Shape::default() }.apply(rows.clone(), Seed(7));
        assert_eq!(kept.len() as u64 + shaped.not_sampled, 4_000);
        assert!(
            kept.len().is_multiple_of(4) && kept.chunks(4).all(|four| four[0].session == four[3].session)
        );
        // 250 of 1,000 sessions, give or take four standard deviations.
        assert!((195..=305).contains(&(kept.len() / 4)), "{}", kept.len());
    }

    #[test]
    fn samples_keep_shared_prefixes_whole() {
        let with = |number: u64| {
            let run = |stream| ContentRun { stream, position: 0, tokens: 8 };
            TraceRow { content: Content::from_runs([run(0), run(1 + number % 50)]), ..row(number, None, 20) }
        };
        let rows: Vec<TraceRow> = (0..1_000).map(with).collect();
        let (kept, _) = Shape { sample: 0.5, ..Shape::default() }.apply(rows.clone(), Seed(3));
        // All of a document or nothing of it, though everybody shares the system prompt.
        assert!(kept.len().is_multiple_of(20) && !kept.is_empty() && kept.len() < 1_000, "{}", kept.len());
    }

    #[test]
    fn limits_drop_or_clip() {
        let rows = vec![row(0, None, 5), row(1, None, 50)];
        let shape = Shape { max_prompt_tokens: Some(20), ..Shape::default() };
        let (kept, shaped) = shape.apply(rows.clone(), Seed(1));
        assert_eq!((kept.len(), shaped.dropped), (1, 1));
        let (kept, shaped) = Shape { over_limit: OverLimit::Clip, ..shape }.apply(rows.clone(), Seed(1));
        assert_eq!((kept.len(), kept[1].prompt_tokens, shaped.clipped), (2, 20, 1));
    }

    #[test]
    fn coarse_times_are_spread_within_their_grid() {
        let rows: Vec<TraceRow> = (0..300).map(|number| row(number / 30 * 3, None, 5)).collect();
        let (kept, _) = Shape { spread: Span::from_s(3), ..Shape::default() }.apply(rows.clone(), Seed(1));
        assert!(kept.is_sorted_by_key(|row| row.arrived));
        let mut times: Vec<u64> = kept.iter().map(|row| row.arrived.as_ps()).collect();
        times.dedup();
        assert!(times.len() > 299 && times[299] < Span::from_s(30).as_ps());
    }

    #[test]
    fn answers_become_part_of_the_next_prompt() {
        let blocks = |ids: std::ops::Range<u64>, tokens: u32| {
            let run = |stream| ContentRun { stream, position: 0, tokens: 16 };
            Content::from_runs(ids.map(run)).truncated(tokens)
        };
        // 40 tokens and an answer of 10; then a prompt of 64 that begins with both.
        let first = TraceRow { content: blocks(0..3, 40), ..row(0, Some(1), 40) };
        let second = TraceRow { content: blocks(0..4, 64), waits: waits(0), ..row(1, Some(1), 64) };
        let shape = Shape { answers: Answers::Cached, ..Shape::default() };
        let (kept, shaped) = shape.apply(vec![first.clone(), second], Seed(1));
        assert_eq!((shaped.answers_cached, kept[0].content.tokens()), (1, 50));
        // A prompt that begins otherwise does not hold the answer.
        let other = TraceRow { content: blocks(9..13, 64), waits: waits(0), ..row(1, Some(1), 64) };
        let (kept, shaped) = shape.apply(vec![first, other], Seed(1));
        assert_eq!((shaped.answers_cached, kept[0].content.tokens()), (0, 40));
        // What identities tell of an answer is forgotten if it is not to be found.
        let told = TraceRow { content: blocks(0..4, 50), ..row(0, Some(1), 40) };
        let shape = Shape { answers: Answers::NotCached, ..Shape::default() };
        assert_eq!(shape.apply(vec![told], Seed(1)).0[0].content.tokens(), 40);
    }
}
