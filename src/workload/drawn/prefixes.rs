//! What prompts have in common: a tree of shared texts, a system prompt at its root and documents further out.

use rand::distr::Distribution;
use rand_distr::Zipf;

use crate::random::{Purpose, Seed, Stream, mix};
use crate::request::ContentRun;

/// Prefixes that requests share, from the beginning of the prompt on: each request takes one text of every level, and
/// the texts of a level belong to the one chosen before them.
#[derive(Clone, Debug, PartialEq)]
pub struct Prefixes {
    /// From the root outwards.
    pub levels: Vec<Level>,
}

/// One level of the tree.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Level {
    /// How many different ones below each of the level before.
    pub groups: u32,
    /// Tokens of each; they come on top of the drawn prompt length.
    pub tokens: u32,
    /// Popularity: the k-th is chosen in proportion to 1 / k^exponent. 0 is uniform.
    pub zipf_exponent: f64,
}

/// Draws one path through the tree after another.
pub(super) struct PrefixDraws {
    levels: Vec<(Level, Zipf<f64>, Stream)>,
}

impl PrefixDraws {
    pub(super) fn new(prefixes: Option<&Prefixes>, seed: Seed) -> PrefixDraws {
        let levels = prefixes.map_or(&[][..], |prefixes| &prefixes.levels);
        let draws = levels.iter().enumerate().map(|(place, level)| {
            let popularity =
                Zipf::new(f64::from(level.groups), level.zipf_exponent).expect("validated prefixes");
            (*level, popularity, seed.stream(Purpose::Prefixes, place as u64))
        });
        PrefixDraws { levels: draws.collect() }
    }

    /// The runs of the next request's shared texts.
    pub(super) fn next(&mut self) -> Vec<ContentRun> {
        let mut node = 0;
        let mut runs = Vec::with_capacity(self.levels.len());
        for (place, (level, popularity, stream)) in self.levels.iter_mut().enumerate() {
            let group = popularity.sample(stream) as u64;
            // Texts of the first level are named by their rank, those below by the way to them.
            node = if place == 0 { group } else { mix(mix(node) ^ group) >> 2 };
            runs.push(ContentRun { stream: node, position: 0, tokens: level.tokens });
        }
        runs
    }
}
