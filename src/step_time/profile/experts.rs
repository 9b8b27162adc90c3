//! Experts of one layer, from measured times by tokens and by experts visited.

use super::curve::Curve;
use super::folder::ExpertRow;
use crate::step_time::grid::bracket;

/// Measured times of a layer's experts on one card.
#[derive(Clone, Debug)]
pub(super) struct Experts {
    /// Of the tokens of a step, the share that counts: less than all where measurements of a card with all experts
    /// stand for one that has some of them, or slices of each, and so that share of the work.
    token_share: f64,
    /// Of the experts that are visited anywhere, the share that one card has.
    visited_share: f64,
    tokens: Vec<f64>,
    /// For each of these, microseconds by experts visited.
    by_visited: Vec<Curve>,
}

impl Experts {
    /// Experts cut into `slices` each and shared out among `cards`; none if that was not measured, nor a card with all of
    /// them whole. `table` has the rows of experts that are cut into so many slices.
    pub(super) fn new<'a>(
        table: impl Fn(u32) -> Option<&'a [ExpertRow]>,
        slices: u32,
        cards: u32,
    ) -> Option<Experts> {
        let parallel = f64::from(cards);
        let exact = table(slices)
            .and_then(|rows| Experts::measured(rows, parallel))
            .map(|whole| Experts { visited_share: parallel.recip(), ..whole });
        let share = f64::from(slices * cards).recip();
        exact.or_else(|| {
            let whole = Experts::measured(table(1)?, 1.0)?;
            Some(Experts { token_share: share, visited_share: share, ..whole })
        })
    }

    fn measured(rows: &[ExpertRow], cards: f64) -> Option<Experts> {
        let mut rows: Vec<&ExpertRow> = rows.iter().filter(|row| row.expert_parallel_size == cards).collect();
        rows.sort_by(|a, b| a.tokens.total_cmp(&b.tokens));
        let (mut tokens, mut by_visited) = (Vec::new(), Vec::new());
        for same in rows.chunk_by(|a, b| a.tokens == b.tokens) {
            tokens.push(same[0].tokens);
            by_visited.extend(Curve::through(same.iter().map(|row| (row.visited, row.us))));
        }
        (!tokens.is_empty()).then_some(Experts { token_share: 1.0, visited_share: 1.0, tokens, by_visited })
    }

    /// The most tokens of a step that were measured.
    pub(super) fn end(&self) -> f64 {
        self.tokens[self.tokens.len() - 1] / self.token_share
    }

    /// Whether measurements of a card with all experts stand for this one.
    pub(super) fn stands_in(&self) -> bool {
        self.token_share < 1.0
    }

    /// Microseconds of one layer for so many tokens that visit so many experts on all cards together. Behind the last measured count, time
    /// grows as between the last two.
    pub(super) fn us(&self, tokens: f64, visited: f64) -> f64 {
        let end = self.tokens[self.tokens.len() - 1];
        let tokens = tokens * self.token_share;
        let visited = visited * self.visited_share;
        let (below, share) = bracket(&self.tokens, tokens);
        let at = |index: usize| self.by_visited[index].at(visited);
        if tokens > end && below > 0 {
            let slope = (at(below) - at(below - 1)) / (self.tokens[below] - self.tokens[below - 1]);
            return at(below) + slope.max(0.0) * (tokens - end);
        }
        if share == 0.0 { at(below) } else { at(below) * (1.0 - share) + at(below + 1) * share }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_and_visited_experts_are_two_axes() {
        let row = |tokens, visited, us| ExpertRow { expert_parallel_size: 1.0, tokens, visited, us };
        let rows = [row(1.0, 2.0, 10.0), row(4.0, 4.0, 20.0), row(4.0, 8.0, 40.0)];
        let experts = Experts::new(|slices| (slices == 1).then_some(rows.as_slice()), 1, 1).unwrap();
        assert_eq!(experts.us(1.0, 2.0), 10.0);
        assert_eq!(experts.us(4.0, 6.0), 30.0);
        assert_eq!(experts.us(2.5, 6.0), 20.0);
        assert_eq!(experts.us(7.0, 6.0), 50.0);
        // Two cards: each has half of the visits, of whole experts or of halves.
        for (slices, cards) in [(1, 2), (2, 1)] {
            let half =
                Experts::new(|slices| (slices == 1).then_some(rows.as_slice()), slices, cards).unwrap();
            assert!(half.stands_in() && !experts.stands_in());
            assert_eq!((half.us(8.0, 12.0), half.end()), (30.0, 8.0));
        }
        let other = [ExpertRow { expert_parallel_size: 4.0, ..rows[0] }];
        let four = Experts::new(|_| Some(other.as_slice()), 1, 4).unwrap();
        assert_eq!((four.us(1.0, 8.0), four.stands_in()), (10.0, false));
        assert!(Experts::new(|_| Some(other.as_slice()), 1, 2).is_none());
    }
}
