//! The way of KV events, from engines to the gateways' indices: late, lost, and played again.
//!
//! Knows batches of events, how long they take and which get lost. Does not know what policies make of an index.
//!
//! A process that dies tells nobody. What a gateway was told of it stands until its checks have failed, as llm-d forgets a pod and
//! Dynamo a worker when they drop it; a partition alone leaves it standing.
//!
//! A replica is a function of what it was given, so its events are those of a second copy of it that lives later, on the
//! literal path: there every step has its output, with which events leave. Nobody but gateways that read events pays for it.

use std::collections::VecDeque;
use std::sync::Arc;

use super::Fleet;
use crate::observe::Observer;
use crate::random::{Purpose, Seed, mix};
use crate::replica::block_keys::leading_keys;
use crate::replica::{
    Announced, EngineEvent, Input, KvEvent, Limit, Path, Recorder, Replica, Scheduler, Step,
};
use crate::request::{Arrival, RequestId};
use crate::router::kv_index::{IndexLimits, KvIndex};
use crate::router::{Facts, Impairments, Server};
use crate::time::{Span, Time};

/// Events that left an engine with one output.
#[derive(Clone, Debug)]
struct Batch {
    at: Time,
    /// Counts the batches of a replica; a listener sees by it that one is missing.
    number: u64,
    events: Arc<[KvEvent]>,
}

/// A replica's publisher.
#[derive(Debug)]
pub(super) struct Publisher {
    /// The same replica, living behind it.
    replica: Replica,
    published: u64,
    /// For each gateway, what it has not taken yet.
    outboxes: Vec<VecDeque<Batch>>,
}

impl Publisher {
    /// Of replica number `server` of a fleet, for so many gateways; `seed` is the run's.
    pub(super) fn new(
        facts: &Facts,
        server: Server,
        seed: Seed,
        gateways: usize,
        limits: IndexLimits,
    ) -> Publisher {
        // Blocks that nobody else could ask for only take up room.
        let announced = if limits.blocks.is_some() { Announced::All } else { Announced::Findable };
        let replica = facts.replica(server, seed, Path::Literal).publishing(announced);
        Publisher { replica, published: 0, outboxes: vec![VecDeque::new(); gateways] }
    }

    /// What the replica is given, when it is given.
    pub(super) fn deliver(&mut self, at: Time, order: u64, input: Input) {
        self.replica.deliver(at, order, input);
    }

    /// Publishes everything up to and at this moment.
    fn advance(&mut self, until: Time) {
        let mut wire = Wire { published: &mut self.published, outboxes: &mut self.outboxes };
        self.replica.advance_recorded(Limit::Time(until), &mut wire);
        self.replica.take_events();
    }
}

/// Where a publisher's batches go.
struct Wire<'a> {
    published: &'a mut u64,
    outboxes: &'a mut [VecDeque<Batch>],
}

impl Recorder for Wire<'_> {
    fn scheduled(&mut self, _: u64, _: Time, _: &Step, _: &Scheduler) {}
    fn processed(&mut self, _: u64, _: Time, _: &[EngineEvent], _: &Scheduler) {}
    fn load_finished(&mut self, _: RequestId) {}
    fn aborted(&mut self, _: RequestId) {}

    fn published(&mut self, at: Time, events: Vec<KvEvent>) {
        let batch = Batch { at, number: *self.published, events: events.into() };
        *self.published += 1;
        self.outboxes.iter_mut().for_each(|outbox| outbox.push_back(batch.clone()));
    }
}

/// One gateway's subscription to one replica.
#[derive(Clone, Debug, Default)]
struct Feed {
    /// Lost on the way, and not yet missed.
    missing: Vec<Batch>,
    /// What has come in or will, and when.
    inbox: VecDeque<(Time, Batch)>,
    /// When the last of it is there; order is kept.
    last: Time,
}

impl Feed {
    /// A batch leaves, and takes `delay`. If it is lost, and what is lost can be asked for again, it comes in `replay` after the
    /// next one has shown that it is missing, and all behind it wait.
    fn take(&mut self, batch: Batch, lost: bool, delay: Span, replay: Option<Span>) {
        match (lost, replay) {
            (true, Some(_)) => return self.missing.push(batch),
            (true, None) => return,
            (false, _) => {}
        }
        let arrives = batch.at + delay;
        let asked = if self.missing.is_empty() { Span::ZERO } else { replay.unwrap_or(Span::ZERO) };
        self.last = self.last.max(arrives + asked);
        let last = self.last;
        self.inbox.extend(self.missing.drain(..).chain([batch]).map(|batch| (last, batch)));
    }
}

/// One gateway's index, with what is on its way there.
#[derive(Clone, Debug)]
pub(super) struct Subscriber {
    index: KvIndex,
    feeds: Vec<Feed>,
    impairments: Impairments,
    /// Which gateway, and the seed of what it loses.
    gateway: usize,
    seed: Seed,
    /// It hears nothing from before.
    since: Time,
    keys: Vec<u64>,
    found: Vec<u32>,
    /// Whom and when it was looked up for, in blocks of how many tokens.
    looked: Option<(RequestId, Time, u32)>,
}

impl Subscriber {
    /// Gateway number `gateway`, which starts at `since` in front of `servers` replicas; `seed` is the run's.
    pub(super) fn new(
        gateway: usize,
        servers: usize,
        since: Time,
        seed: Seed,
        impairments: &Impairments,
    ) -> Subscriber {
        Subscriber {
            index: KvIndex::new(servers, impairments.kv_index),
            feeds: vec![Feed::default(); servers],
            impairments: *impairments,
            gateway,
            seed: seed.derive(Purpose::EventLoss, gateway as u64),
            since,
            keys: Vec::new(),
            found: Vec::new(),
            looked: None,
        }
    }

    /// Leading blocks of a prompt, of `block_size` tokens, that each replica is said to have at `now`.
    pub(super) fn leading<'a>(
        &mut self,
        arrival: &Arrival,
        block_size: u32,
        now: Time,
        publishers: impl Iterator<Item = Option<&'a mut Publisher>>,
    ) -> &[u32] {
        let asked = (arrival.id, now, block_size);
        if self.looked != Some(asked) {
            self.looked = Some(asked);
            self.catch_up(now, publishers);
            let blocks = arrival.content.tokens().min(arrival.prompt_tokens) / block_size;
            leading_keys(arrival.id, &arrival.content, block_size, blocks, &mut self.keys);
            self.index.leading(&self.keys, now, &mut self.found);
        }
        &self.found
    }

    /// A replica's process is known to be gone.
    fn forget<'a>(
        &mut self,
        server: Server,
        now: Time,
        publishers: impl Iterator<Item = Option<&'a mut Publisher>>,
    ) {
        self.catch_up(now, publishers);
        let feed = &mut self.feeds[server];
        feed.missing.clear();
        feed.inbox.clear();
        self.index.cleared(server);
    }

    /// Takes in what has arrived by `now`, in the order in which it has.
    fn catch_up<'a>(&mut self, now: Time, publishers: impl Iterator<Item = Option<&'a mut Publisher>>) {
        let Impairments { kv_event_delay: delay, kv_event_loss: loss, kv_event_replay: replay, .. } =
            self.impairments;
        let then = Time::ZERO + (now - Time::ZERO).saturating_sub(delay);
        for (server, publisher) in publishers.enumerate() {
            let Some(publisher) = publisher else { continue };
            publisher.advance(then);
            for batch in publisher.outboxes[self.gateway].drain(..).filter(|batch| batch.at >= self.since) {
                let draw = mix(mix(self.seed.0 ^ server as u64) ^ batch.number);
                let lost = ((draw >> 11) as f64) < loss * (1u64 << 53) as f64;
                self.feeds[server].take(batch, lost, delay, replay);
            }
        }
        let arrived = |feed: &Feed| feed.inbox.front().map(|&(at, _)| at).filter(|&at| at <= now);
        loop {
            let next =
                self.feeds.iter().enumerate().filter_map(|(server, feed)| Some((arrived(feed)?, server)));
            let Some((at, server)) = next.min() else { break };
            let Some((_, batch)) = self.feeds[server].inbox.pop_front() else { break };
            for &event in &*batch.events {
                match event {
                    KvEvent::Stored(key) => self.index.stored(server, key, at),
                    KvEvent::Removed(key) => self.index.removed(server, key),
                }
            }
        }
    }
}

impl<O: Observer> Fleet<O> {
    /// A gateway has found that a replica's process is gone, and with it what it had cached.
    pub(super) fn forget_blocks(&mut self, gateway: usize, server: Server) {
        if let Some(index) = &mut self.gateways[gateway].index {
            let publishers = self.lanes.iter_mut().map(|lane| lane.publisher.as_deref_mut());
            index.forget(server, self.now, publishers);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Time {
        Time::ZERO + Span::from_ms(ms)
    }

    /// When each batch of one a 10 ms is there, on a way of 3 ms, if those in `lost` get lost.
    fn arrivals(lost: &[u64], replay: Option<Span>) -> Vec<(u64, Time)> {
        let mut feed = Feed::default();
        for number in 0..6 {
            let batch = Batch { at: at(10 * number), number, events: Arc::new([]) };
            feed.take(batch, lost.contains(&number), Span::from_ms(3), replay);
        }
        feed.inbox.iter().map(|(at, batch)| (batch.number, *at)).collect()
    }

    #[test]
    fn what_nobody_asks_for_again_is_lost_for_good() {
        assert_eq!(arrivals(&[1, 4], None), [(0, at(3)), (2, at(23)), (3, at(33)), (5, at(53))]);
    }

    #[test]
    fn a_gap_is_filled_in_order_once_the_next_batch_shows_it() {
        let replay = Some(Span::from_ms(15));
        let filled = [(0, at(3)), (1, at(48)), (2, at(48)), (3, at(48)), (4, at(48)), (5, at(53))];
        assert_eq!(arrivals(&[1, 2], replay), filled);
        // Of what is behind the last that came through nobody knows yet.
        assert_eq!(arrivals(&[5], replay).len(), 5);
    }
}
