//! A gateway without a tokenizer: it takes a prompt for as long as its characters over four.
//!
//! Knows how many characters a token of this traffic has. Changes what a policy is told of a prompt's length and of where its
//! content lies, and nothing else. llm-d's approximate producer and the vLLM router count so.

use super::{Decision, Feedback, Glance, Router, Server, Sight};
use crate::request::{Arrival, Content, ContentRun};
use crate::time::Time;

/// Characters that such a gateway takes for a token.
const CHARACTERS_COUNTED: f64 = 4.0;

/// A policy that is told lengths by characters.
pub struct ByCharacters {
    policy: Box<dyn Router>,
    /// Tokens that a gateway counts for each that there is.
    ratio: f64,
}

impl ByCharacters {
    /// `policy` before traffic whose tokens have so many characters each. A policy that reads KV events has a tokenizer, since it
    /// could not ask its index otherwise, and stays as it is.
    pub fn before(policy: Box<dyn Router>, characters_per_token: f64) -> Box<dyn Router> {
        if policy.sight().kv_events {
            return policy;
        }
        Box::new(ByCharacters { policy, ratio: characters_per_token / CHARACTERS_COUNTED })
    }

    /// Where the end of `tokens` tokens falls by characters.
    fn counted(&self, tokens: u32) -> u32 {
        (f64::from(tokens) * self.ratio) as u32
    }

    /// The arrival as it is told. Ends of runs are rounded, not their lengths, so prompts agree as far as they did.
    fn told(&self, arrival: &Arrival) -> Arrival {
        let mut end = 0;
        let runs = arrival.content.runs().iter().map(|run| {
            let start = self.counted(end);
            end += run.tokens;
            ContentRun {
                stream: run.stream,
                position: self.counted(run.position),
                tokens: self.counted(end) - start,
            }
        });
        let content = Content::from_runs(runs);
        Arrival { prompt_tokens: self.counted(arrival.prompt_tokens).max(1), content, ..arrival.clone() }
    }
}

impl Router for ByCharacters {
    fn sight(&self) -> Sight {
        self.policy.sight()
    }

    fn meet(&mut self, servers: usize) {
        self.policy.meet(servers);
    }

    fn decide(&mut self, arrival: &Arrival, glance: &mut dyn Glance) -> Decision {
        let told = self.told(arrival);
        self.policy.decide(&told, glance)
    }

    fn committed(&mut self, arrival: &Arrival, server: Server, at: Time) {
        let told = self.told(arrival);
        self.policy.committed(&told, server, at);
    }

    fn heard(&mut self, feedback: &Feedback) {
        self.policy.heard(feedback);
    }

    fn failure(&self) -> Option<&str> {
        self.policy.failure()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::router::tests::{Scene, policy, prompt};

    /// 400 tokens of five characters count as 500, of three as 300; 320 are what the shared text has in both.
    #[test]
    fn lengths_and_shared_beginnings_scale_alike() {
        for (characters, whole, shared) in [(5.0, 500, 400), (3.0, 300, 240), (4.0, 400, 320)] {
            let by = ByCharacters { policy: policy("prefix-trie", ""), ratio: characters / 4.0 };
            let run = |stream, tokens| ContentRun { stream, position: 0, tokens };
            let of = |own| Arrival {
                content: Content::from_runs([run(7, 320), run(own, 80)]),
                ..prompt(0, 7, 400)
            };
            let (one, other) = (by.told(&of(1)), by.told(&of(2)));
            assert_eq!(one.prompt_tokens, whole);
            assert_eq!(one.content.tokens(), whole);
            assert_eq!(one.content.runs()[0], other.content.runs()[0]);
            assert_eq!(one.content.runs()[0].tokens, shared);
        }
    }

    #[test]
    fn a_minimum_match_is_reached_by_characters() {
        let least = "prefix_min_match_tokens = 320";
        let home = |characters: f64| {
            let mut router = ByCharacters::before(policy("prefix-trie", least), characters);
            let mut scene = Scene::in_flight(&[3, 0, 1]);
            router.meet(3);
            router.committed(&prompt(0, 7, 320), 0, scene.now);
            scene.send(&mut *router, &prompt(1, 7, 320))
        };
        // 320 tokens of three characters are 240 to this gateway: too few, so the least loaded has it.
        assert_eq!((home(4.0), home(3.0)), (0, 1));
        assert!(policy("epp-precise", "").sight().kv_events);
    }
}
