//! Clients that give up when no token has come for a while.
//!
//! Knows when an engine must have said something next, and looks then; not sooner, so an answer costs a look per limit and not one
//! per token. Tokens between the first and the last take the usual way, whatever befalls the network, but none passes where nothing
//! does. Does not know what follows: [`super::ending`] does.

use super::link::Cut;
use super::patience::Phase;
use super::{Fleet, Moment};
use crate::agenda::Kind;
use crate::observe::Observer;
use crate::request::RequestId;
use crate::router::Server;
use crate::time::Time;

impl<O: Observer + Send> Fleet<O> {
    /// The first token of a try left its engine at `at`: files the moment by which the next must have.
    pub(super) fn watch_tokens(&mut self, copy: RequestId, attempt: u32, at: Time) {
        if let Some(limit) = self.config.patience.between_tokens {
            self.file_look(copy, attempt, at + limit);
        }
    }

    fn file_look(&mut self, copy: RequestId, attempt: u32, at: Time) {
        let moment = Moment::Look { copy, attempt };
        self.agenda.add(at, Kind::Timeout, u64::from(copy.0), moment);
    }

    /// Nothing will pass from now on: when each client there has heard its last token for a while.
    pub(super) fn note_last_tokens(&mut self, server: Server, gateway: Option<usize>) {
        if self.config.patience.between_tokens.is_none() {
            return;
        }
        self.lanes[server].advance(self.now);
        for (copy, own_gateway) in self.pending.out_at(server) {
            let is_cut = self.links[server].cut_from(own_gateway).is_some();
            if gateway.is_none_or(|gateway| gateway == own_gateway) && !is_cut {
                let back = self.config.network.router_to_replica;
                // An answer that is on its way, or has not begun, is as good as a token; what was so at an earlier partition is not.
                let last_token = self.lanes[server].replica.last_token_at(copy);
                let heard = last_token.map_or(self.now, |last_token| (last_token + back).min(self.now));
                self.pending.hears_last(copy.original(), heard);
            }
        }
    }

    /// No token may have left an engine for as long as a client waits. If so, the client gives up when it has heard nothing for
    /// that long; else the next look is due that long after the last token.
    pub(super) fn look_for_silence(&mut self, copy: RequestId, attempt: u32) {
        let Some(limit) = self.config.patience.between_tokens else { return };
        let id = copy.original();
        let Some(under_way) = self.pending.get(id).filter(|one| u32::from(one.attempt) == attempt) else {
            return;
        };
        if copy.is_hedge() != under_way.is_hedge {
            // Which of two copies goes on is settled when the gateway hears of a first token.
            if self.pending.hedge_of(id).is_some() {
                self.file_look(copy, attempt, self.now + limit);
            }
            return;
        }
        let (gateway, client_try) = (under_way.gateway as usize, under_way.client_tries);
        let (first_token, server) = (under_way.first_token, under_way.server);
        let Some(server) = server.map(|server| server as usize) else { return };
        self.lanes[server].advance(self.now);
        let last_token = self.lanes[server].replica.last_token_at(copy);
        let cut = self.links[server].cut_from(gateway);
        if last_token.is_none() && cut.is_none() {
            // What has ended is on its way; where nothing passes its client does not know.
            return;
        }
        let network = self.config.network;
        let seen_up_to = self.now + network.router_to_replica;
        let passed = last_token.unwrap_or(self.now) + network.router_to_replica;
        let before_cut = |cut: Cut| self.pending.heard_last(id).unwrap_or(cut.since).min(cut.since);
        let passed = cut.map_or(passed, |cut| passed.min(before_cut(cut)));
        // A client whose first token is still on its way does not wait for a second.
        let heard = passed.max(first_token.unwrap_or(seen_up_to));
        let patient_until = heard + limit;
        if patient_until > seen_up_to {
            let back = network.router_to_replica.as_ps();
            self.file_look(copy, attempt, Time::from_ps(patient_until.as_ps() - back));
            return;
        }
        let gives_up = patient_until + network.client_to_router;
        self.pending.gives_up(id, gives_up);
        let learnt = (gives_up + network.client_to_router).max(self.now);
        let moment = Moment::Timeout { request: id, client_try, phase: Phase::BetweenTokens };
        self.agenda.add(learnt, Kind::Timeout, u64::from(id.0), moment);
    }
}
