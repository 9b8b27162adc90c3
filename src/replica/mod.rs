//! One vLLM engine as a passive value: a function of what was delivered to it and of time.
//!
//! Knows one scheduler, its KV cache and the price of its steps. Does not know other replicas, routers or
//! clients. Nothing happens in it until somebody advances it.
//!
//! - [`config`]: what the engine is started with
//! - [`scheduler`]: which requests get which tokens in a step
//! - [`step`]: what a step holds, as plain data
//! - `allocation`: which blocks that takes
//! - [`output`]: what comes out of a step
//! - `kv_cache`, `free_list`: which blocks they get; `prefix_table`, `twins`, `block_keys`: what the prefix
//!   cache still holds, by its content
//! - [`kv_events`]: what it tells of its prefix cache
//! - `sequence`: one request inside, and the queue it waits in
//! - `engine`: when each step happens
//! - `decode_clock`, with `clock_compose`, `clock_end` and `clock_settle`: decodes without a visit to each at
//!   every step
//! - `jump`: many steps at once
//! - `jitter`: single steps take longer or shorter than their price
//! - `imagine`: copies that run ahead, with guessed lengths
//! - `life`: an engine starts, slows down and dies
//! - [`lockstep`]: engines of one server that share experts, and so every step

use std::sync::Arc;

use crate::observe::{Observer, Silence};
use crate::request::{EngineOutcome, Finish, Request, RequestId};
use crate::signals::Signals;
use crate::step_time::{Batch, StepTime};
use crate::time::Time;

mod allocation;
pub mod block_keys;
mod clock_compose;
mod clock_end;
mod clock_settle;
pub mod config;
mod decode_clock;
mod engine;
mod free_list;
mod imagine;
pub(crate) mod inbox;
mod jitter;
mod jump;
mod kv_cache;
pub mod kv_events;
mod life;
pub mod lockstep;
pub mod output;
mod prefix_table;
pub mod scheduler;
mod sequence;
pub mod step;
mod twins;

pub use config::{EngineConfig, SchedulingPolicy, Speculation};
use engine::{Engine, Listeners};
pub use imagine::Lengths;
use inbox::Inbox;
pub use jitter::Jitter;
pub use kv_events::{Announced, KvEvent};
pub use life::Control;
use life::Life;
pub use output::EngineEvent;
pub use scheduler::Scheduler;
pub use step::{Scheduled, Step, Totals};

/// What can be sent to a replica.
#[derive(Clone, Debug)]
pub enum Input {
    /// A request.
    Add(Request),
    /// The client of a request is gone, as far as this try and those before it go.
    Abort(RequestId, u32),
    /// An order to the engine itself.
    Control(Control),
}

/// How a replica composes its steps: to the same result, at another cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Path {
    /// Decodes on a clock, many steps at once where nothing changes, the literal way where that cannot go.
    Fast,
    /// Every sequence at every step: the judge.
    Literal,
}

/// How far a replica may go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    /// Every output up to and at this moment, every schedule() call before it: at equal times deliveries
    /// come between the two (law 4).
    Time(Time),
    /// Every schedule() call of a lower index. Recordings count arrivals in steps.
    Step(u64),
    /// The schedule() call of this index at most, if it comes before this moment, and no output after it.
    OneStep(u64, Time),
}

/// Somebody who writes down every step: a recording is made of this.
pub trait Recorder {
    /// schedule() call number `index` was made at `at`.
    fn scheduled(&mut self, index: u64, at: Time, step: &Step, scheduler: &Scheduler);
    /// The output of step `index` was processed at `at`; `events` came out of it.
    fn processed(&mut self, index: u64, at: Time, events: &[EngineEvent], scheduler: &Scheduler);
    /// The load of a request's remote KV was reported finished with the output being processed.
    fn load_finished(&mut self, id: RequestId);
    /// A request was aborted before the next schedule() call.
    fn aborted(&mut self, id: RequestId);
    /// The process died, and everything in it. Recordings hold none of that.
    fn crashed(&mut self) {}
    /// Changes of its prefix cache left with the output being processed at `at`, from an engine that publishes them.
    fn published(&mut self, _at: Time, _events: Vec<KvEvent>) {}
}

/// One engine: deliver, advance, look.
#[derive(Clone, Debug)]
pub struct Replica {
    inbox: Inbox,
    engine: Engine,
    events: Vec<EngineEvent>,
    life: Life,
}

impl Replica {
    /// An empty engine at time zero.
    pub fn new(config: EngineConfig, step_time: Arc<dyn StepTime>) -> Replica {
        Replica::on_path(config, step_time, Path::Fast)
    }

    /// The same, composing its steps in a given way.
    pub fn on_path(config: EngineConfig, step_time: Arc<dyn StepTime>, path: Path) -> Replica {
        Replica {
            inbox: Inbox::default(),
            engine: Engine::new(config, step_time.clone(), path),
            events: Vec::new(),
            life: Life::new(step_time),
        }
    }

    /// The same, publishing what it caches and loses. Meant for the literal path: on the fast one blocks that nobody else could
    /// ask for are announced late.
    pub fn publishing(mut self, announced: Announced) -> Replica {
        self.engine.scheduler.publish(announced);
        self
    }

    /// The same, whose steps scatter around their price.
    pub fn with_jitter(mut self, jitter: Option<Jitter>) -> Replica {
        self.engine.jitter = jitter;
        self
    }

    /// Watches laws 2 and 5 at every step from here on; slow.
    pub fn set_check(&mut self, check: bool) {
        self.engine.set_check(check);
    }

    /// Sends an input that reaches the engine at `at`, which must not lie before the last
    /// [`Replica::advance`]. Of equal times the lower `seq` comes first.
    ///
    /// A prompt that is empty or does not leave room for one token is refused by the front end, as vLLM
    /// answers 400, and never reaches the scheduler.
    pub fn deliver(&mut self, at: Time, seq: u64, input: Input) {
        match input {
            Input::Add(request) if !self.admissible(request.prompt_tokens) => {
                self.events.push(EngineEvent::Ended(EngineOutcome::turned_away(
                    &request,
                    at,
                    Finish::TooLong,
                )));
            }
            Input::Control(control) => self.life.order(at, control),
            input => self.inbox.deliver(at, seq, input),
        }
    }

    /// Whether the front end takes a prompt of this length.
    pub fn admissible(&self, prompt_tokens: u32) -> bool {
        prompt_tokens > 0 && prompt_tokens < self.config().max_model_len
    }

    /// Lives up to `until`, telling `observer` of its steps. Going there in two goes is the same (law 12).
    pub fn advance(&mut self, until: Limit, observer: &mut dyn Observer) {
        let listeners = &mut Listeners { observer, recorder: None };
        self.live(until, listeners);
    }

    /// Like [`Replica::advance`], with every step written down.
    pub fn advance_recorded(&mut self, until: Limit, recorder: &mut dyn Recorder) {
        let listeners = &mut Listeners { observer: &mut Silence, recorder: Some(recorder) };
        self.live(until, listeners);
    }

    /// Takes what has come out since the last call, in order of processing.
    pub fn take_events(&mut self) -> std::vec::Drain<'_, EngineEvent> {
        self.events.drain(..)
    }

    /// The same for somebody who hands the list back empty, so that its memory is used again.
    pub fn lend_events(&mut self) -> Vec<EngineEvent> {
        std::mem::take(&mut self.events)
    }

    /// Takes an empty list back.
    pub fn return_events(&mut self, events: Vec<EngineEvent>) {
        debug_assert!(events.is_empty() && self.events.is_empty());
        self.events = events;
    }

    /// The gauges as the engine last set them.
    pub fn signals(&self) -> Signals {
        self.engine.signals()
    }

    /// No first token and no end comes out before this moment: never late, and void after a delivery. None if
    /// nothing is here.
    pub fn next_completion(&self) -> Option<Time> {
        let refused = self.events.iter().map(EngineEvent::at);
        let next = match self.life.up {
            true => self.engine.next_completion(&self.inbox),
            false => self.inbox.next_at(),
        };
        // An order may be the end of everything here.
        let order = self.life.next_order().filter(|_| next.is_some() || self.inbox.next_at().is_some());
        refused.chain(next).chain(order).min()
    }

    /// The same after the delivery of a request that reaches the engine at `at`, from what was said before it: nobody else
    /// is done sooner because of it.
    pub fn next_completion_with_arrival(&self, before: Option<Time>, at: Time) -> Option<Time> {
        let refused = self.events.iter().map(EngineEvent::at);
        let own = if self.life.up { self.engine.soonest_output(at) } else { at };
        refused.chain([own]).chain(before).chain(self.life.next_order()).min()
    }

    /// When the last token of a request came out of the engine, if it is here and one has, as far as it has lived.
    pub fn last_token_at(&self, id: RequestId) -> Option<Time> {
        self.engine.last_token_at(id)
    }

    /// What the engine was started with.
    pub fn config(&self) -> &EngineConfig {
        self.scheduler().config()
    }

    /// Its scheduler, to read.
    pub fn scheduler(&self) -> &Scheduler {
        self.engine.scheduler()
    }

    /// When the engine loop can act next.
    pub fn clock(&self) -> Time {
        self.engine.clock()
    }

    /// schedule() calls so far, jumps included.
    pub fn steps(&self) -> u64 {
        self.engine.steps()
    }

    /// Those of them that were composed by a visit to every sequence: all on the literal path, and on the fast
    /// one those that the decode clock could not compose.
    pub fn literal_steps(&self) -> u64 {
        self.engine.literal_steps()
    }

    /// Nothing runs, waits or is in flight.
    pub fn is_idle(&self) -> bool {
        self.engine.is_idle()
    }

    /// What the newest step computes; nothing before the first.
    fn newest_batch(&self) -> Batch<'_> {
        self.engine.newest_batch()
    }

    /// The newest step in flight ends then, and not when it would have ended alone.
    fn hold_newest_until(&mut self, end: Time) {
        self.engine.hold_newest_until(end);
    }

    /// While idle: the engine loop is busy until then.
    fn busy_until(&mut self, moment: Time) {
        self.engine.busy_until(moment);
    }

    /// When the next input is due.
    fn next_input(&self) -> Option<Time> {
        self.inbox.next_at()
    }

    /// While idle: gives the next schedule() call this index, as recordings in steps do.
    ///
    /// # Panics
    /// If the engine is not idle, or would step back.
    pub fn jump_to_step(&mut self, index: u64) {
        self.engine.jump_to_step(index);
    }
}
