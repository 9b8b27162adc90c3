//! A policy under judgement: its decisions stand beside what the truth would have said.
//!
//! Knows, at each decision, when the request would end at every replica if nobody came after it. Changes no decision: the policy
//! inside sees what it always sees.

use std::sync::{Arc, Mutex};

use super::{Clairvoyance, Decision, Feedback, Glance, Router, Server, Sight, fewest_in_flight};
use crate::request::{Arrival, RequestId};
use crate::time::Time;

/// One decision and its judgement. Ends are the engine's, if nobody came after.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Judgement {
    /// Which request.
    pub id: RequestId,
    /// When it was decided.
    pub at: Time,
    /// Where it went.
    pub chosen: Server,
    /// When it would end there.
    pub chosen_end: Time,
    /// The soonest end anywhere.
    pub best_end: Time,
    /// When it would end where this gateway has the fewest requests in flight, the first of equals.
    pub fewest_end: Time,
}

/// The list that judgements go to, in order of decision.
pub type Judgements = Arc<Mutex<Vec<Judgement>>>;

/// A policy, judged.
pub struct Judged {
    policy: Box<dyn Router>,
    judgements: Judgements,
}

impl Judged {
    /// Judges `policy`.
    pub fn new(policy: Box<dyn Router>, judgements: Judgements) -> Judged {
        Judged { policy, judgements }
    }
}

impl Router for Judged {
    fn sight(&self) -> Sight {
        Sight { clairvoyant: true, responses: true, ..self.policy.sight() }
    }

    fn meet(&mut self, servers: usize) {
        self.policy.meet(servers);
    }

    fn decide(&mut self, arrival: &Arrival, glance: &mut dyn Glance) -> Decision {
        self.policy.decide(arrival, glance)
    }

    fn decide_knowing(&mut self, arrival: &Arrival, knows: &mut dyn Clairvoyance) -> Decision {
        let decision = match self.policy.sight().clairvoyant {
            true => self.policy.decide_knowing(arrival, knows),
            false => self.policy.decide(arrival, knows),
        };
        let Decision::Send(chosen) = decision else { return decision };
        // A request that can end nowhere is refused wherever it goes: nothing is to be judged.
        let Some(chosen_end) = knows.true_completion(chosen, Time::MAX) else { return decision };
        let among = knows.candidates();
        let fewest = fewest_in_flight(&among, knows);
        let fewest_end = match fewest == chosen {
            true => chosen_end,
            false => knows.true_completion(fewest, Time::MAX).unwrap_or(chosen_end),
        };
        let mut best_end = chosen_end.min(fewest_end);
        for server in among.iter().filter(|&server| server != chosen && server != fewest) {
            best_end = knows.true_completion(server, best_end).unwrap_or(best_end).min(best_end);
        }
        let judgement =
            Judgement { id: arrival.id, at: knows.now(), chosen, chosen_end, best_end, fewest_end };
        if let Ok(mut judgements) = self.judgements.lock() {
            judgements.push(judgement);
        }
        decision
    }

    fn committed(&mut self, arrival: &Arrival, server: Server, at: Time) {
        self.policy.committed(arrival, server, at);
    }

    fn heard(&mut self, feedback: &Feedback) {
        self.policy.heard(feedback);
    }

    fn failure(&self) -> Option<&str> {
        self.policy.failure()
    }
}
