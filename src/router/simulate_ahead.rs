//! `simulate-ahead`: every replica's own scheduler is run forward with this request in it, and the soonest end wins.
//!
//! Block (arXiv 2508.03611, AKafakA/vidur_opt_scheduler): a side-car beside each engine copies its running and waiting requests
//! with predicted output lengths, and simulates on. Here the copy is the replica itself, to the block, with the lengths that
//! predictors give (`default_output_tokens` where they give none, then the mean of what was seen), and `exceeded_tokens` more
//! for a request that is longer already. All replicas are asked, or `choices` drawn at random; equal ends are told apart at
//! random. `social` takes the least sum of all ends instead: what the request costs those who are there counts as its own.
//!
//! The copies are taken at the decision: a probe's way and the side-car's own time are `decision_gap_ms`.

use rand::RngExt;
use schemars::JsonSchema;
use serde::de::Error as _;
use serde::{Deserialize, Serialize};

use super::{Assumed, Decision, Feedback, Glance, Picker, PolicyInfo, Router, Server, Sight, Ties};
use crate::random::{Purpose, Stream};
use crate::request::Arrival;
use crate::time::Time;

/// `[router.parameters]` of this policy.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Parameters {
    /// Replicas that are asked, drawn at random; 0 is all.
    pub choices: u32,
    /// Output length assumed where no prediction is granted and none has been seen to end yet.
    pub default_output_tokens: u32,
    /// What is left of a request that is longer than predicted.
    pub exceeded_tokens: u32,
    /// Whether delays of others count.
    pub social: bool,
}

impl Default for Parameters {
    fn default() -> Self {
        Parameters { choices: 0, default_output_tokens: 256, exceeded_tokens: 10, social: false }
    }
}

/// The entry of this policy in the list.
pub const INFO: PolicyInfo = PolicyInfo {
    name: "simulate-ahead",
    family: "completion time",
    reads: "queues and caches of engines by side-cars, predicted output lengths, price list",
    upstream: "Block",
    default_freshness: None,
    build: |parameters, seed, gateway| {
        let parameters: Parameters = parameters.clone().try_into()?;
        if parameters.default_output_tokens == 0 || parameters.exceeded_tokens == 0 {
            return Err(toml::de::Error::custom(
                "`default_output_tokens` and `exceeded_tokens` must be at least 1",
            ));
        }
        Ok(Box::new(SimulateAhead {
            parameters,
            picker: Picker::new(Ties::Random, seed, gateway),
            stream: seed.stream(Purpose::Exploration, gateway),
            asked: Vec::new(),
            ends: Vec::new(),
            seen: (0, 0),
        }))
    },
};

/// Asks side-cars.
#[derive(Clone, Debug)]
pub struct SimulateAhead {
    parameters: Parameters,
    picker: Picker,
    stream: Stream,
    asked: Vec<Server>,
    ends: Vec<(Server, u128)>,
    /// Answers, and their tokens.
    seen: (u64, u64),
}

impl SimulateAhead {
    fn assumed(&self) -> Assumed {
        let mean = self.seen.1.checked_div(self.seen.0);
        Assumed {
            output_tokens: mean.map_or(self.parameters.default_output_tokens, |mean| mean.max(1) as u32),
            exceeded_tokens: self.parameters.exceeded_tokens,
        }
    }
}

impl Router for SimulateAhead {
    fn sight(&self) -> Sight {
        Sight { responses: true, ..Sight::default() }
    }

    fn decide(&mut self, arrival: &Arrival, glance: &mut dyn Glance) -> Decision {
        let among = glance.candidates();
        let servers = among.len();
        let assumed = self.assumed();
        self.asked.clear();
        self.asked.extend(among.iter());
        let choices = self.parameters.choices as usize;
        if choices > 0 && choices < servers {
            for place in 0..choices {
                let other = self.stream.random_range(place..servers);
                self.asked.swap(place, other);
            }
            self.asked.truncate(choices);
        }
        // Whoever is likely to be first is asked first: others need not be run past its end.
        self.asked.sort_by_key(|&server| glance.mine(server).in_flight);
        self.ends.clear();
        let mut soonest = Time::MAX;
        for &server in &self.asked {
            if self.parameters.social {
                let with = glance.completions_ahead(server, Some(arrival), assumed);
                let without = glance.completions_ahead(server, None, assumed);
                self.ends.push((server, with.saturating_sub(without)));
            } else if let Some(end) = glance.completion_ahead(server, arrival, assumed, soonest) {
                soonest = end;
                self.ends.push((server, u128::from((end - Time::ZERO).as_ps())));
            }
        }
        self.ends.sort_unstable_by_key(|(server, _)| *server);
        Decision::Send(self.picker.least(self.ends.iter().copied()))
    }

    fn heard(&mut self, feedback: &Feedback) {
        if let Feedback::Completed { output_tokens, .. } = feedback {
            self.seen.0 += 1;
            self.seen.1 += u64::from(*output_tokens);
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::router::tests::{Scene, at_s, policy, prompt};

    #[test]
    fn the_soonest_end_wins_and_equal_ones_by_chance() {
        let mut scene = Scene::of(4);
        scene.ends = [9, 7, 8, 7].map(at_s).to_vec();
        let mut router = policy("simulate-ahead", "");
        let sent: Vec<_> = (0..40).map(|id| scene.send(&mut *router, &prompt(id, 1, 10))).collect();
        assert!(sent.iter().all(|server| [1, 3].contains(server)) && sent.contains(&1) && sent.contains(&3));
        // One replica drawn at random is as good as any.
        let mut one = policy("simulate-ahead", "choices = 1");
        let sent: Vec<_> = (0..40).map(|id| scene.send(&mut *one, &prompt(id, 1, 10))).collect();
        assert!((0..4).all(|server| sent.contains(&server)), "{sent:?}");
    }
}
