//! The way between gateways and one replica: how long messages take, which are sent again, and when nothing passes.
//!
//! Knows one replica's network as it is now. A message that gets lost is sent again, as TCP does: after 200 ms (Linux' least
//! retransmission timeout), then twice as long each time. What is sent while nothing passes arrives when something does, if whoever
//! sent it still waits. Does not know who sends what.

use std::collections::BTreeMap;

use rand::RngExt;

use crate::random::{Purpose, Seed};
use crate::request::RequestId;
use crate::time::{Span, Time};

/// Linux' TCP_RTO_MIN.
const FIRST_RETRANSMISSION: Span = Span::from_ms(200);
/// Nothing is sent again more often.
const MOST_RETRANSMISSIONS: u32 = 10;

/// Which way a message goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Leg {
    There,
    FirstToken,
    End,
}

/// A message of one try at a request.
#[derive(Clone, Copy, Debug)]
pub(super) struct Message {
    pub(super) id: RequestId,
    pub(super) attempt: u32,
    pub(super) leg: Leg,
}

/// Nothing passes between a replica and this gateway, or all of them.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cut {
    pub(super) gateway: Option<usize>,
    pub(super) since: Time,
    pub(super) until: Time,
    /// Its place in the list of what happened.
    pub(super) happened: usize,
}

/// The way to one replica and back.
#[derive(Clone, Debug, Default)]
pub(super) struct Link {
    /// Whether it was ever other than usual; until then it costs nothing to ask.
    has_changed: bool,
    /// In each direction, beyond the usual.
    delay: Span,
    /// Share of messages that get lost.
    loss: f64,
    cuts: Vec<Cut>,
    /// When the last of what was sent there arrives, and when the last of what was said there is heard.
    last_arrives: Time,
    last_heard: Time,
    /// When first tokens are heard whose answers are not whole: an end does not overtake its first token.
    first_tokens: BTreeMap<(RequestId, u32), Time>,
    /// When all word has arrived that tries of a request were given up, and which was the last.
    called_back: BTreeMap<RequestId, (Time, u32)>,
}

impl Link {
    /// From now on it takes so much longer, and loses such a share.
    pub(super) fn worsens(&mut self, delay: Span, loss: f64) {
        (self.has_changed, self.delay, self.loss) = (true, delay, loss);
    }

    /// As usual, but for what is cut.
    pub(super) fn mends(&mut self) {
        (self.delay, self.loss) = (Span::ZERO, 0.0);
    }

    /// Nothing passes from now on.
    pub(super) fn cut(&mut self, cut: Cut) {
        self.has_changed = true;
        self.cuts.push(cut);
    }

    /// What is over by `now` cuts nobody off any more.
    pub(super) fn rejoin(&mut self, now: Time) {
        self.cuts.retain(|cut| cut.until > now);
    }

    /// What cuts it off from this gateway for longest, if anything does.
    pub(super) fn cut_from(&self, gateway: usize) -> Option<Cut> {
        let concerns = |cut: &&Cut| cut.gateway.is_none_or(|own| own == gateway);
        self.cuts.iter().filter(concerns).max_by_key(|cut| cut.until).copied()
    }

    /// When what a gateway sends at `now` arrives, if that usually takes so long. Nobody overtakes who has not lost anything.
    pub(super) fn arrives(&mut self, now: Time, usual: Span, gateway: usize) -> Time {
        let mut at = now + usual + self.delay;
        if self.has_changed {
            at = at.max(self.last_arrives);
            self.last_arrives = at;
            at = self.cut_from(gateway).map_or(at, |cut| at.max(cut.until));
        }
        at
    }

    /// Word that a try was given up is on its way there.
    pub(super) fn calls_back(&mut self, (id, attempt): (RequestId, u32), now: Time, arrives: Time) {
        if self.has_changed {
            self.called_back.retain(|_, (arrives, _)| *arrives > now);
            // Word of one before it may come later.
            let before = self.called_back.get(&id).map_or(Time::ZERO, |(arrives, _)| *arrives);
            self.called_back.insert(id, (arrives.max(before), attempt));
        }
    }

    /// When all word has arrived that tries were given up, and which was the last, if there were some.
    pub(super) fn was_called_back(&self, id: RequestId) -> Option<(Time, u32)> {
        self.called_back.get(&id).copied()
    }

    /// When a message that leaves at `at` is heard by its gateway, if it has one that still waits for it, on a way that has changed.
    pub(super) fn is_heard(
        &mut self,
        at: Time,
        usual: Span,
        gateway: Option<usize>,
        message: Message,
        seed: Seed,
    ) -> Time {
        let mut heard = (at + usual + self.delay).max(self.last_heard);
        self.last_heard = heard;
        if let Some(cut) = gateway.and_then(|gateway| self.cut_from(gateway)) {
            heard = heard.max(cut.until);
        }
        heard += self.sent_again(message, seed);
        let key = (message.id, message.attempt);
        match message.leg {
            Leg::End => heard.max(self.first_tokens.remove(&key).unwrap_or(Time::ZERO)),
            _ => {
                self.first_tokens.insert(key, heard);
                heard
            }
        }
    }

    /// How much later a message comes for having been lost. Its draw depends on nothing else.
    pub(super) fn sent_again(&self, message: Message, seed: Seed) -> Span {
        if self.loss == 0.0 {
            return Span::ZERO;
        }
        let index = u64::from(message.id.0) << 32 | u64::from(message.attempt) << 2 | message.leg as u64;
        let mut stream = seed.stream(Purpose::PacketLoss, index);
        let lost = (0..MOST_RETRANSMISSIONS).take_while(|_| stream.random::<f64>() < self.loss).count();
        FIRST_RETRANSMISSION * ((1 << lost) - 1)
    }

    /// Whether messages may come in another order than they were sent in.
    pub(super) fn has_changed(&self) -> bool {
        self.has_changed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at_ms(ms: u64) -> Time {
        Time::ZERO + Span::from_ms(ms)
    }

    fn message(id: u32, leg: Leg) -> Message {
        Message { id: RequestId(id), attempt: 0, leg }
    }

    #[test]
    fn what_is_lost_comes_after_200_600_1400_ms() {
        let mut link = Link::default();
        link.worsens(Span::ZERO, 0.3);
        let late: Vec<u64> = (0..20_000)
            .map(|id| link.sent_again(message(id, Leg::There), Seed(1)).as_ps() / 1_000_000_000)
            .collect();
        let share = |ms: u64| late.iter().filter(|own| **own == ms).count() as f64 / 20_000.0;
        for (ms, expected) in [(0, 0.7), (200, 0.21), (600, 0.063), (1_400, 0.0189)] {
            assert!((share(ms) - expected).abs() < 0.01, "{ms} ms: {}", share(ms));
        }
        link.mends();
        assert_eq!(link.sent_again(message(0, Leg::There), Seed(1)), Span::ZERO);
    }

    #[test]
    fn an_end_does_not_overtake_its_first_token() {
        let mut link = Link::default();
        link.worsens(Span::ZERO, 0.5);
        for id in 0..500 {
            let mut heard =
                |at, leg| link.is_heard(at_ms(at), Span::from_ms(1), Some(0), message(id, leg), Seed(2));
            let first = heard(u64::from(id), Leg::FirstToken);
            assert!(heard(u64::from(id) + 1, Leg::End) >= first);
        }
        assert!(link.first_tokens.is_empty());
    }

    #[test]
    fn what_is_cut_off_arrives_when_something_passes() {
        let mut link = Link::default();
        let usual = Span::from_ms(2);
        link.cut(Cut { gateway: Some(1), since: at_ms(5), until: at_ms(500), happened: 0 });
        link.cut(Cut { gateway: Some(1), since: at_ms(6), until: at_ms(400), happened: 1 });
        assert_eq!(link.arrives(at_ms(10), usual, 1), at_ms(500));
        assert_eq!(link.arrives(at_ms(11), usual, 0), at_ms(13), "the other gateway is not concerned");
        let end = message(3, Leg::End);
        assert_eq!(link.is_heard(at_ms(20), usual, Some(1), end, Seed(1)), at_ms(500));
        assert_eq!(link.is_heard(at_ms(20), usual, Some(0), end, Seed(1)), at_ms(22));
        link.rejoin(at_ms(400));
        assert_eq!(link.cut_from(1).map(|cut| cut.happened), Some(0));
        link.rejoin(at_ms(500));
        assert_eq!(link.arrives(at_ms(501), usual, 1), at_ms(503));
    }
}
