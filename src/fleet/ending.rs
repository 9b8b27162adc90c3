//! How tries and requests end: whole, failed and tried again, given up, or left over.
//!
//! Knows clients' limits and who tries again. Every request that was sent gives exactly one outcome (law 1),
//! however many tries there were; what failed tries have produced is counted as waste.

use super::patience::Phase;
use super::pending::UnderWay;
use super::{End, Ended, Ends, Fleet, Moment};
use crate::agenda::Kind;
use crate::observe::Observer;
use crate::request::{Attempt, Detour, EngineOutcome, Finish, Outcome, RequestId};
use crate::time::Time;

/// Tries, and what was done in vain.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Tally {
    /// Requests that were sent.
    pub requests: u64,
    /// Tries of clients, the first ones included.
    pub tries: u64,
    /// Tries that gateways made again on their own.
    pub gateway_retries: u64,
    /// Second copies that gateways sent while they waited for the first.
    pub hedges: u64,
    /// Tries whose replica died, or could not be reached.
    pub lost: u64,
    /// Tries whose client waited too long.
    pub timed_out: u64,
    /// Tries for which there was no replica.
    pub unavailable: u64,
    /// Tries that had begun to answer, in vain.
    pub answers_wasted: u64,
    /// Output tokens of tries that came to nothing.
    pub output_tokens_wasted: u64,
}

impl Tally {
    /// What an engine did for a try that came to nothing.
    pub(super) fn waste(&mut self, engine: &EngineOutcome) {
        self.answers_wasted += u64::from(engine.output_tokens > 0);
        self.output_tokens_wasted += u64::from(engine.output_tokens);
    }
}

impl<O: Observer + Send> Fleet<O> {
    /// Files the moments at which the gateway would learn that a client has given up its present try.
    pub(super) fn file_timeouts(&mut self, id: RequestId) {
        let patience = self.config.patience;
        if patience.first_token.is_none() && patience.whole.is_none() {
            return;
        }
        let Some(under_way) = self.pending.get(id) else { return };
        let (sent, client_try) = (under_way.try_sent, under_way.client_tries);
        for (limit, phase) in [(patience.first_token, Phase::FirstToken), (patience.whole, Phase::Whole)] {
            let Some(limit) = limit else { continue };
            let at = sent + limit + self.config.network.client_to_router;
            let moment = Moment::Timeout { request: id, client_try, phase };
            self.agenda.add(at, Kind::Timeout, u64::from(id.0), moment);
        }
    }

    /// A client may have given up.
    pub(super) fn time_out(&mut self, id: RequestId, client_try: u16, phase: Phase, ends: &mut Ends<'_>) {
        let network = self.config.network;
        let Some(under_way) = self.pending.get(id).filter(|under_way| under_way.client_tries == client_try)
        else {
            return;
        };
        let deadline = self.now_at_client();
        let in_time = |token: Time| token + network.client_to_router <= deadline;
        if phase == Phase::FirstToken && under_way.first_token.is_some_and(in_time) {
            return;
        }
        let gateway = under_way.gateway as usize;
        self.take_back(id);
        self.last_end = self.last_end.max(self.now);
        self.fail(id, None, Finish::TimedOut, deadline, ends);
        self.ask_all_again(gateway, ends);
    }

    /// A try is under way no more: whoever keeps it forgets it, and the engine that has it is told to abort it.
    pub(super) fn take_back(&mut self, id: RequestId) {
        let Some(&UnderWay { gateway, server, arrived, is_hedge, .. }) = self.pending.get(id) else { return };
        let gateway = gateway as usize;
        self.gateways[gateway].held.retain(|held| *held != id);
        let copy = if is_hedge { id.hedge() } else { id };
        self.pending.forget_kept(copy);
        self.call_back(gateway, copy, server, arrived);
        self.cancel_hedge(id);
    }

    /// When a client did what its gateway learns of now.
    pub(super) fn now_at_client(&self) -> Time {
        Time::ZERO + (self.now - Time::ZERO).saturating_sub(self.config.network.client_to_router)
    }

    /// The end of a try passes its gateway at `at`.
    pub(super) fn attempt_ended(&mut self, engine: EngineOutcome, at: Time, ends: &mut Ends<'_>) {
        self.last_end = self.last_end.max(at);
        let network = self.config.network;
        let id = engine.id;
        let Some(under_way) = self.pending.get(id) else { return };
        let gaps = u64::from(engine.output_tokens).saturating_sub(1);
        let whole_at = at + network.client_to_router + network.per_token * gaps;
        if engine.finish.is_complete() {
            // Its client may have given up while its tokens, or word of that, were on their way.
            let patience = self.config.patience;
            let first_at = under_way.first_token.map(|token| token + network.client_to_router);
            let limits = [(first_at, patience.first_token), (Some(whole_at), patience.whole)];
            let missed = limits.into_iter().filter_map(|(came, limit)| {
                let deadline = under_way.try_sent + limit?;
                came.filter(|came| *came > deadline).map(|_| deadline)
            });
            match missed.chain(self.pending.when_given_up(id)).min() {
                Some(deadline) => {
                    self.tally.waste(&engine);
                    self.fail(id, None, Finish::TimedOut, deadline, ends);
                }
                None => self.end(id, Some(engine), None, whole_at, ends),
            }
            return;
        }
        let never_began = under_way.first_token.is_none() && engine.finish == Finish::Lost;
        if never_began && u32::from(under_way.gateway_tries) < self.config.retries.attempts {
            self.tally.lost += 1;
            self.tally.gateway_retries += 1;
            self.tally.waste(&engine);
            let under_way = self.pending.get_mut(id).expect("it was just looked at");
            under_way.gateway_tries += 1;
            let failed = under_way.server;
            under_way.try_anew();
            let (attempt, tries) = (u32::from(under_way.attempt), u32::from(under_way.gateway_tries));
            if let Some(failed) = failed {
                self.pending.failed(id, failed as usize);
            }
            let pause = self.config.retries.backoff.before(self.config.seed, id, tries);
            let moment = Moment::Again { request: id, attempt, by_client: false };
            self.agenda.add(at + pause, Kind::Arrival, u64::from(id.0), moment);
            return;
        }
        let finish = engine.finish;
        self.fail(id, Some(engine), finish, whole_at, ends);
    }

    /// A try has failed, as its client learns at `at`: it tries again if it may.
    pub(super) fn fail(
        &mut self,
        id: RequestId,
        engine: Option<EngineOutcome>,
        finish: Finish,
        at: Time,
        ends: &mut Ends<'_>,
    ) {
        match finish {
            Finish::Lost => self.tally.lost += 1,
            Finish::TimedOut => self.tally.timed_out += 1,
            Finish::Unavailable => self.tally.unavailable += 1,
            _ => {}
        }
        if let Some(engine) = &engine {
            self.tally.waste(engine);
        }
        let patience = self.config.patience;
        let retryable =
            matches!(finish, Finish::Lost | Finish::TimedOut | Finish::Unavailable | Finish::Refused);
        let retried = (self.tally.tries - self.tally.requests) as f64;
        let within = patience.budget.is_none_or(|share| retried < share * self.tally.requests as f64);
        let gateways = self.gateways.len() as u32;
        let Some(under_way) = self.pending.get_mut(id) else { return };
        if !(retryable && within && u32::from(under_way.client_tries) < patience.retries) {
            self.end(id, engine, Some(finish), at, ends);
            return;
        }
        under_way.client_tries += 1;
        under_way.gateway_tries = 0;
        // A client that comes again is a client that comes: it takes the next gateway.
        under_way.gateway = (under_way.gateway + 1) % gateways;
        under_way.try_anew();
        under_way.pauses = true;
        under_way.try_sent =
            at + patience.backoff.before(self.config.seed, id, u32::from(under_way.client_tries));
        under_way.set_out = under_way.try_sent;
        let (attempt, sent) = (u32::from(under_way.attempt), under_way.try_sent);
        self.pending.begins_anew(id);
        let moment = Moment::Again { request: id, attempt, by_client: true };
        let arrives = (sent + self.config.network.client_to_router).max(self.now);
        self.agenda.add(arrives, Kind::Arrival, u64::from(id.0), moment);
    }

    /// A request comes to a gateway once more.
    pub(super) fn again(&mut self, id: RequestId, attempt: u32, by_client: bool, ends: &mut Ends<'_>) {
        let Some(gateway) = self.pending.get(id).filter(|under_way| u32::from(under_way.attempt) == attempt)
        else {
            return;
        };
        let mut gateway = gateway.gateway as usize;
        let Some((arrival, mut request)) = self.pending.original(id) else { return };
        request.attempt = attempt;
        if by_client {
            gateway = self.listed_from(gateway);
            if let Some(under_way) = self.pending.get_mut(id) {
                (under_way.gateway, under_way.pauses) = (gateway as u32, false);
            }
            self.come(gateway, arrival, request, ends);
            return;
        }
        let as_if_from_client = self.now_at_client();
        if let Some(under_way) = self.pending.get_mut(id) {
            under_way.set_out = as_if_from_client;
        }
        if self.decide(gateway, arrival, request, ends) {
            self.file_patience(id, attempt);
        }
    }

    /// A request has ended, for its client at `at`. `finish` says how where no engine does.
    pub(super) fn end(
        &mut self,
        id: RequestId,
        engine: Option<EngineOutcome>,
        finish: Option<Finish>,
        at: Time,
        ends: &mut Ends<'_>,
    ) {
        let Some(pending) = self.pending.remove(id) else { return };
        let to_client = self.config.network.client_to_router;
        let finish = finish.or(engine.as_ref().map(|engine| engine.finish)).unwrap_or(Finish::Unfinished);
        // What had not happened by then is not reported as if it had.
        let cut = !finish.is_complete();
        let happened = |moment: Option<Time>| moment.filter(|&moment| !cut || moment <= at);
        let network = self.config.network;
        let UnderWay { set_out, left, .. } = pending;
        let is_plain = |arrived: Time| set_out == pending.sent && arrived == left + network.router_to_replica;
        let took_detour = pending.arrived.is_some_and(|arrived| !is_plain(arrived));
        let outcome = Outcome {
            attempt: Attempt { request: id, number: u32::from(pending.attempt) },
            replica: pending.server,
            class: pending.class,
            sent: pending.sent,
            prompt_tokens: pending.prompt_tokens,
            arrived: happened(pending.arrived),
            first_token_received: happened(pending.first_token.map(|at| at + to_client)),
            done_received: at,
            engine,
            finish,
            detour: took_detour.then(|| Box::new(Detour { set_out, left })),
        };
        if self.config.check {
            assert!(outcome.is_causal(), "law 3: {outcome:?}");
        }
        ends.source.finished(&outcome);
        (ends.outcomes)(outcome);
    }

    /// Lets the replicas run to the end, and gives every request that is left its outcome.
    pub(super) fn finish(mut self, end: Time, ends: &mut Ends<'_>) -> Ended<O> {
        if self.listening.in_time() {
            for server in 0..self.lanes.len() {
                self.lanes[server].advance(end);
                self.file_events(server);
            }
            while let Some((at, moment)) = self.agenda.pop() {
                if at > end {
                    break;
                }
                self.now = self.now.max(at);
                if let Moment::Response { server, event } = moment {
                    self.respond(at, server, event, ends);
                }
            }
        } else {
            self.drain_lanes(end, end, ends);
        }
        let at = match self.config.end {
            // Who is kept at a gateway to the last has waited until now.
            End::Drain if self.pending.any() => self.last_end.max(self.now),
            End::Drain => self.last_end,
            End::At(end) => end,
        };
        // What was sent and had not reached its gateway is under way too.
        while ends.source.next_sent().is_some_and(|sent| sent < at) {
            let Some(job) = ends.source.next() else { break };
            self.take_in(&job.arrival());
        }
        while let Some(id) = self.pending.first() {
            self.end(id, None, Some(Finish::Unfinished), at, ends);
        }
        let mut observers = Vec::with_capacity(self.lanes.len());
        let mut replicas = Vec::with_capacity(self.lanes.len());
        let mut deliveries = Vec::new();
        for lane in self.lanes {
            observers.push(lane.observer);
            replicas.push(lane.replica);
            deliveries.extend(lane.kept);
        }
        let scaling = self.scaling.map(|scaling| scaling.close(at));
        let failure = self.gateways.iter().find_map(|gateway| gateway.router.failure().map(str::to_string));
        let (tally, happened) = (self.tally, self.incidents.happened);
        Ended { observers, replicas, deliveries, at, failure, tally, happened, scaling }
    }
}
