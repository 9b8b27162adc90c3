//! Requests between their arrival at a gateway and their end.
//!
//! Knows what is needed for an outcome. Holds no more of them than lie between the oldest that is under way and
//! the newest, so its size follows the traffic, not the trace.

use std::collections::{BTreeMap, VecDeque};

use crate::request::{Arrival, Request, RequestId};
use crate::router::Server;
use crate::time::Time;

/// A request under way.
#[derive(Clone, Copy, Debug)]
pub(super) struct UnderWay {
    pub(super) sent: Time,
    pub(super) class: u16,
    pub(super) prompt_tokens: u32,
    gateway: u32,
    predicted_output_tokens: Option<u32>,
    pub(super) server: Option<u32>,
    pub(super) arrived: Option<Time>,
    /// When its first token passed the gateway.
    pub(super) first_token: Option<Time>,
}

#[derive(Debug, Default)]
pub(super) struct Pending {
    /// Number of the request that `window` begins with.
    first: u32,
    window: VecDeque<Option<UnderWay>>,
    /// Those that have not been sent on: held at their gateway, or decided and not yet committed.
    kept: BTreeMap<RequestId, (Arrival, Request)>,
}

impl Pending {
    /// A request reached its gateway.
    ///
    /// # Panics
    /// If it did before, or long ago.
    pub(super) fn take_in(&mut self, arrival: &Arrival, gateway: usize) {
        if self.window.is_empty() {
            self.first = arrival.id.0;
        }
        let place = arrival.id.0.checked_sub(self.first).expect("requests are numbered in order of sending");
        if self.window.len() <= place as usize {
            self.window.resize(place as usize + 1, None);
        }
        let under_way = UnderWay {
            sent: arrival.sent,
            class: arrival.class,
            prompt_tokens: arrival.prompt_tokens,
            gateway: gateway as u32,
            predicted_output_tokens: arrival.predicted_output_tokens,
            server: None,
            arrived: None,
            first_token: None,
        };
        let before = self.window[place as usize].replace(under_way);
        assert!(before.is_none(), "request {} was sent twice", arrival.id.0);
    }

    fn get(&mut self, id: RequestId) -> Option<&mut UnderWay> {
        let place = id.0.checked_sub(self.first)?;
        self.window.get_mut(place as usize)?.as_mut()
    }

    /// Keeps a request until it is sent on.
    pub(super) fn keep(&mut self, arrival: Arrival, request: Request) {
        self.kept.insert(arrival.id, (arrival, request));
    }

    /// A kept request, to be sent on, and its gateway.
    pub(super) fn release(&mut self, id: RequestId) -> Option<(usize, Arrival, Request)> {
        let (arrival, request) = self.kept.remove(&id)?;
        Some((self.gateway_of(id)?, arrival, request))
    }

    /// A request is on its way to a replica.
    pub(super) fn sent(&mut self, id: RequestId, server: Server, arrives: Time) {
        if let Some(under_way) = self.get(id) {
            (under_way.server, under_way.arrived) = (Some(server as u32), Some(arrives));
        }
    }

    /// Its first token passes the gateway at `at`.
    pub(super) fn first_token(&mut self, id: RequestId, at: Time) {
        if let Some(under_way) = self.get(id) {
            under_way.first_token = Some(at);
        }
    }

    /// The gateway of a request that has not ended.
    pub(super) fn gateway_of(&mut self, id: RequestId) -> Option<usize> {
        self.get(id).map(|under_way| under_way.gateway as usize)
    }

    /// Whether anybody is under way.
    pub(super) fn any(&self) -> bool {
        !self.window.is_empty()
    }

    /// What a predictor has said of a request's output length.
    pub(super) fn predicted(&self, id: RequestId) -> Option<u32> {
        let place = id.0.checked_sub(self.first)?;
        self.window.get(place as usize)?.as_ref()?.predicted_output_tokens
    }

    /// The oldest request under way.
    pub(super) fn first(&self) -> Option<RequestId> {
        (!self.window.is_empty()).then_some(RequestId(self.first))
    }

    /// A request ended.
    pub(super) fn remove(&mut self, id: RequestId) -> Option<UnderWay> {
        let place = id.0.checked_sub(self.first)?;
        let under_way = self.window.get_mut(place as usize)?.take()?;
        // The window begins with one that is under way, so whether it is empty says whether anybody is.
        while self.window.pop_front_if(|oldest| oldest.is_none()).is_some() {
            self.first += 1;
        }
        Some(under_way)
    }
}
