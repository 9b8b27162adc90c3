//! A lane: one replica, who listens to it, and what a gateway sees of it at a decision.

use crate::observe::Observer;
use crate::replica::{Input, Limit, Replica};
use crate::request::{Arrival, Request, RequestId};
use crate::router::view::saturated;
use crate::router::{Assumed, Candidates, Clairvoyance, Facts, Freshness, Glance, Mine, Server, View};
use crate::signals::Glimpse;
use crate::time::{Span, Time};

use super::kv_events::{Publisher, Subscriber};
use super::pending::Pending;

/// An input as a replica was given it.
#[derive(Clone, Debug)]
pub struct Delivery {
    /// When it reaches the engine.
    pub at: Time,
    /// Orders deliveries of one moment, over the whole fleet.
    pub order: u64,
    /// What it is.
    pub input: Input,
}

/// A replica and its observer.
pub(super) struct Lane<O> {
    pub(super) replica: Replica,
    pub(super) observer: O,
    pub(super) facts: Facts,
    /// Who publishes its KV events, where anybody listens.
    pub(super) publisher: Option<Box<Publisher>>,
    /// What it was given, where that is kept.
    pub(super) kept: Option<Vec<Delivery>>,
    /// When the last of what is on its way reaches the engine.
    pub(super) last_delivery: Time,
}

impl<O: Observer> Lane<O> {
    pub(super) fn advance(&mut self, until: Time) {
        self.replica.advance(Limit::Time(until), &mut self.observer);
    }

    /// Something is on its way to the engine.
    pub(super) fn deliver(&mut self, at: Time, order: u64, input: Input) {
        self.last_delivery = self.last_delivery.max(at);
        if let Some(kept) = &mut self.kept {
            kept.push(Delivery { at, order, input: input.clone() });
        }
        if let Some(publisher) = &mut self.publisher {
            publisher.deliver(at, order, input.clone());
        }
        self.replica.deliver(at, order, input);
    }

    /// Whether its process runs; it must have lived up to now.
    pub(super) fn answers(&self) -> bool {
        self.replica.is_up()
    }
}

/// A gateway's look at the lanes.
pub(super) struct Look<'a, O> {
    pub(super) now: Time,
    pub(super) lanes: &'a mut [Lane<O>],
    pub(super) view: &'a View,
    /// Who may be chosen.
    pub(super) candidates: &'a Candidates,
    /// What predictors have said of requests under way.
    pub(super) pending: &'a Pending,
    /// From a decision to the engine.
    pub(super) way: Span,
    /// The request being decided, with its true length.
    pub(super) request: &'a Request,
    /// What the gateway has been told of caches.
    pub(super) index: Option<&'a mut Subscriber>,
    /// The gateway's number, and how many there are.
    pub(super) gateway: (u32, u32),
}

impl<O: Observer> Look<'_, O> {
    /// When what is decided now reaches an engine: behind all that is on its way there, such as word that a client has given up
    /// an earlier try.
    fn reaches(&self, server: Server) -> Time {
        (self.now + self.way).max(self.lanes[server].last_delivery)
    }

    /// A copy of a replica as of now, with lengths as they are predicted, and this request on its way there.
    fn imagined(&mut self, server: Server, arrival: Option<&Arrival>, assumed: Assumed) -> Replica {
        self.lanes[server].advance(self.now);
        let length = |predicted: Option<u32>, sampled: u32| {
            let total = predicted.unwrap_or(assumed.output_tokens);
            if total > sampled { total } else { sampled + assumed.exceeded_tokens }
        };
        let pending = self.pending;
        let mut lengths = |id: RequestId, sampled: u32| length(pending.predicted(id), sampled);
        let mut copy = self.lanes[server].replica.imagined(&mut lengths);
        copy.take_events();
        if let Some(arrival) = arrival {
            let limit = arrival.max_tokens.unwrap_or(u32::MAX).max(1);
            let output_tokens = length(arrival.predicted_output_tokens, 0).min(limit);
            let arrival_order = (self.now + self.way).as_ps();
            // Identities of answers are part of the truth.
            let content = self.request.content.truncated(self.request.prompt_tokens);
            let request = Request { output_tokens, arrival_order, content, ..self.request.clone() };
            copy.deliver(self.reaches(server), u64::MAX, Input::Add(request));
        }
        copy
    }
}

impl<O: Observer> Glance for Look<'_, O> {
    fn now(&self) -> Time {
        self.now
    }

    fn servers(&self) -> usize {
        self.lanes.len()
    }

    fn candidates(&self) -> Candidates {
        self.candidates.clone()
    }

    fn facts(&self, server: Server) -> &Facts {
        &self.lanes[server].facts
    }

    fn signals(&mut self, server: Server) -> Glimpse {
        match self.view.freshness() {
            Freshness::Polled { .. } => self.view.report(server, self.now),
            Freshness::Fresh => self.probe(server),
        }
    }

    fn mine(&self, server: Server) -> Mine {
        self.view.mine(server)
    }

    fn probe(&mut self, server: Server) -> Glimpse {
        self.lanes[server].advance(self.now);
        let lane = &self.lanes[server];
        // A dead process answers nothing: nobody takes it for an idle one.
        let signals = match lane.answers() {
            true => lane.replica.signals(),
            false => saturated(lane.replica.signals()),
        };
        Glimpse { signals, taken_at: self.now }
    }

    fn cached_tokens(&mut self, server: Server, arrival: &Arrival) -> u32 {
        let Some(index) = &mut self.index else {
            let lane = &mut self.lanes[server];
            lane.advance(self.now);
            let scheduler = lane.replica.scheduler();
            return scheduler.cached_tokens(arrival.id, &arrival.content, arrival.prompt_tokens);
        };
        let block_size = self.lanes[server].facts.engine.block_size;
        let publishers = self.lanes.iter_mut().map(|lane| lane.publisher.as_deref_mut());
        let leading = index.leading(arrival, block_size, self.now, publishers);
        leading[server] * block_size
    }

    fn completion_ahead(
        &mut self,
        server: Server,
        arrival: &Arrival,
        assumed: Assumed,
        until: Time,
    ) -> Option<Time> {
        let mut imagined = self.imagined(server, Some(arrival), assumed);
        match imagined.is_up() {
            true => imagined.end_of(arrival.id, until),
            // Where nothing runs nothing ends.
            false => (until == Time::MAX).then_some(Time::MAX),
        }
    }

    fn completions_ahead(&mut self, server: Server, arrival: Option<&Arrival>, assumed: Assumed) -> u128 {
        let now = self.now;
        let mut sum = 0;
        let mut imagined = self.imagined(server, arrival, assumed);
        if !imagined.is_up() {
            return arrival.map_or(0, |_| u128::from(u64::MAX));
        }
        imagined.ends(|_, at| sum += u128::from(at.saturating_since(now).as_ps()));
        sum
    }

    fn gateway(&self) -> (u32, u32) {
        self.gateway
    }
}

impl<O: Observer> Clairvoyance for Look<'_, O> {
    fn true_completion(&mut self, server: Server, until: Time) -> Option<Time> {
        self.lanes[server].advance(self.now);
        let mut copy = self.lanes[server].replica.clone();
        if !copy.is_up() {
            return None;
        }
        copy.set_check(false);
        copy.take_events();
        let arrival_order = (self.now + self.way).as_ps();
        let request = Request { arrival_order, ..self.request.clone() };
        copy.deliver(self.reaches(server), u64::MAX, Input::Add(request));
        copy.end_of(self.request.id, until)
    }
}
