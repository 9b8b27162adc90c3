//! What befalls replicas: crashes, restarts, slow-downs, drains and rolling deploys.
//!
//! Knows what happens to which replica when, who is told and how late. Does not know why. Every order reaches the
//! engine at its moment, so lanes need not be advanced for it; gateways learn by their own checks.

use rand::RngExt;
use rand_distr::Distribution;
use std::collections::VecDeque;
use std::ops::Range;

use super::{Fleet, Moment};
use crate::agenda::Kind;
use crate::observe::Observer;
use crate::random::{Purpose, Stream};
use crate::replica::{Control, Input};
use crate::router::Server;
use crate::time::{Span, Time};

/// Something that happens, once or again and again.
#[derive(Clone, Debug, PartialEq)]
pub struct Incident {
    /// When.
    pub when: When,
    /// What.
    pub what: What,
}

/// When something happens.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum When {
    /// Once.
    At(Time),
    /// Again and again while requests come or are under way.
    Every {
        /// From one to the next, on average.
        mean: Span,
        /// Gaps are all alike, or exponential.
        even: bool,
        /// Not before.
        from: Time,
        /// Not from then on.
        until: Time,
    },
}

/// Whom something befalls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Whom {
    /// This replica.
    One(Server),
    /// One by chance, all being equally likely; if it is down, nothing happens.
    Any,
    /// Every one.
    All,
}

/// When who went down is back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Back {
    /// Never.
    Never,
    /// After as long as it takes to start.
    Started,
    /// After so long.
    After(Span),
}

/// What happens.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum What {
    /// The process dies, and everything in it.
    Crash {
        /// Whose.
        whom: Whom,
        /// When it is ready again.
        back: Back,
    },
    /// Steps take longer.
    SlowDown {
        /// Whose.
        whom: Whom,
        /// So many thousandths.
        per_mille: u32,
        /// For so long; none: for ever.
        lasts: Option<Span>,
    },
    /// Nothing new is sent there; when nothing is left, or the grace is over, its process ends.
    Drain {
        /// Who.
        whom: Whom,
        /// Longest wait for what is under way.
        grace: Span,
        /// When the next process is ready.
        back: Back,
    },
    /// Every replica is drained and started again, so many at a time, each in turn when one before it is ready.
    RollingDeploy {
        /// How many at a time.
        at_once: u32,
        /// Longest wait for what is under way.
        grace: Span,
        /// When the next process is ready.
        back: Back,
    },
}

impl What {
    /// Whom it befalls; none: all in turn.
    pub fn whom(&self) -> Option<Whom> {
        match self {
            What::Crash { whom, .. } | What::SlowDown { whom, .. } | What::Drain { whom, .. } => Some(*whom),
            What::RollingDeploy { .. } => None,
        }
    }

    /// Its name in scenarios and tables.
    pub fn name(&self) -> &'static str {
        match self {
            What::Crash { .. } => "crash",
            What::SlowDown { .. } => "slow-down",
            What::Drain { .. } => "drain",
            What::RollingDeploy { .. } => "rolling-deploy",
        }
    }
}

/// What has happened.
#[derive(Clone, Debug, PartialEq)]
pub struct Happened {
    /// When.
    pub at: Time,
    /// To whom; none: to all in turn.
    pub server: Option<Server>,
    /// What.
    pub what: What,
    /// When the last gateway had noticed, where there is something to notice.
    pub noticed: Option<Time>,
    /// When it was over: ready again, or as quick as before.
    pub over: Option<Time>,
}

/// Where a replica's process stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    Up,
    /// Nothing new is meant to come.
    Draining,
    Down,
}

/// A replica's process, and how often it has changed.
#[derive(Clone, Debug)]
pub(super) struct Process {
    pub(super) stage: Stage,
    /// Tells what was filed for one stage from what is so now.
    epoch: u32,
    pace_epoch: u32,
    /// Tries that were sent here and have not ended, by the fleet's own count.
    pub(super) outstanding: u32,
    /// When gateways know that it drains.
    all_know_at: Time,
    back: Back,
    /// Its place in [`Incidents::happened`].
    happened: usize,
    rollout: Option<usize>,
}

impl Process {
    pub(super) fn new() -> Process {
        Process {
            stage: Stage::Up,
            epoch: 0,
            pace_epoch: 0,
            outstanding: 0,
            all_know_at: Time::ZERO,
            back: Back::Never,
            happened: 0,
            rollout: None,
        }
    }
}

/// Moments of incidents.
#[derive(Clone, Copy, Debug)]
pub(super) enum Step {
    /// An incident of the plan happens.
    Plan(usize),
    /// A new process is ready.
    Start { server: Server, epoch: u32 },
    /// The grace of a drain is over.
    Kill { server: Server, epoch: u32 },
    /// All gateways know that it drains.
    AllKnow { server: Server, epoch: u32 },
    /// Steps take as long as before.
    Recover { server: Server, pace_epoch: u32 },
    /// Checks have told a gateway.
    Notice { gateway: usize, server: Server, epoch: u32 },
    /// Its watch has told a gateway of a drain.
    Watch { gateway: usize, server: Server, epoch: u32 },
    /// An ejection is over.
    Return { gateway: usize, server: Server, ejections: u32 },
}

/// The plan, and what became of it.
#[derive(Debug, Default)]
pub(super) struct Incidents {
    plan: Vec<Incident>,
    /// Of each incident of the plan.
    streams: Vec<Stream>,
    rollouts: Vec<VecDeque<Server>>,
    pub(super) happened: Vec<Happened>,
}

impl<O: Observer + Send> Fleet<O> {
    /// Files what is planned. Each incident draws from a stream of its own (law 8).
    pub(super) fn plan(&mut self, plan: &[Incident]) {
        self.incidents.plan = plan.to_vec();
        for (index, incident) in plan.iter().enumerate() {
            self.incidents.streams.push(self.config.seed.stream(Purpose::Incidents, index as u64));
            match incident.when {
                When::At(at) => self.file(at, Step::Plan(index)),
                When::Every { from, .. } => self.file_again(index, from),
            }
        }
    }

    fn file(&mut self, at: Time, step: Step) {
        self.agenda.add(at, Kind::Incident, 0, Moment::Incident(step));
    }

    /// Files the next of what happens again and again.
    fn file_again(&mut self, index: usize, behind: Time) {
        let When::Every { mean, even, until, .. } = self.incidents.plan[index].when else { return };
        let gap = match even {
            true => mean,
            false => {
                let draw: f64 = rand_distr::Exp1.sample(&mut self.incidents.streams[index]);
                Span::from_s_f64(mean.as_s() * draw)
            }
        };
        let at = behind.saturating_add(gap);
        if at < until {
            self.file(at, Step::Plan(index));
        }
    }

    pub(super) fn befall(&mut self, step: Step, requests_to_come: bool) {
        match step {
            Step::Plan(index) => {
                if matches!(self.incidents.plan[index].when, When::Every { .. }) {
                    if !requests_to_come {
                        return;
                    }
                    self.file_again(index, self.now);
                }
                self.carry_out(index);
            }
            Step::Start { server, epoch } => self.start(server, epoch),
            Step::Kill { server, epoch } => {
                if self.processes[server].epoch == epoch {
                    self.stop(server);
                }
            }
            Step::AllKnow { server, epoch } => {
                if self.processes[server].epoch == epoch {
                    self.stop_if_drained(server);
                }
            }
            Step::Recover { server, pace_epoch } => {
                if self.processes[server].pace_epoch == pace_epoch {
                    self.order(server, Control::Pace { per_mille: 1_000 });
                }
            }
            Step::Notice { gateway, server, epoch } => {
                if self.processes[server].epoch == epoch {
                    let up = self.processes[server].stage != Stage::Down;
                    self.gateways[gateway].roster.checked(server, up);
                    if !up {
                        let happened = self.processes[server].happened;
                        self.incidents.happened[happened].noticed = Some(self.now);
                    }
                }
            }
            Step::Watch { gateway, server, epoch } => {
                if self.processes[server].epoch == epoch {
                    self.gateways[gateway].roster.drains(server);
                }
            }
            Step::Return { gateway, server, ejections } => {
                self.gateways[gateway].roster.returns(server, ejections);
            }
        }
    }

    fn carry_out(&mut self, index: usize) {
        let what = self.incidents.plan[index].what;
        match what {
            What::Crash { whom, .. } | What::SlowDown { whom, .. } | What::Drain { whom, .. } => {
                for server in self.meant(index, whom) {
                    self.befalls(server, what);
                }
            }
            What::RollingDeploy { at_once, .. } => {
                self.note(None, what);
                let rollout = self.incidents.rollouts.len();
                self.incidents.rollouts.push((0..self.lanes.len()).collect());
                (0..at_once).for_each(|_| self.roll_on(rollout, what));
            }
        }
    }

    fn befalls(&mut self, server: Server, what: What) {
        match what {
            What::Crash { back, .. } => {
                if self.processes[server].stage != Stage::Down {
                    let happened = self.note(Some(server), what);
                    let process = &mut self.processes[server];
                    (process.back, process.happened) = (back, happened);
                    self.stop(server);
                }
            }
            What::SlowDown { per_mille, lasts, .. } => {
                let happened = self.note(Some(server), what);
                self.order(server, Control::Pace { per_mille });
                self.processes[server].pace_epoch += 1;
                let pace_epoch = self.processes[server].pace_epoch;
                if let Some(lasts) = lasts {
                    self.incidents.happened[happened].over = Some(self.now + lasts);
                    self.file(self.now + lasts, Step::Recover { server, pace_epoch });
                }
            }
            What::Drain { grace, back, .. } => self.drain(server, what, grace, back, None),
            What::RollingDeploy { .. } => {}
        }
    }

    fn meant(&mut self, index: usize, whom: Whom) -> Range<Server> {
        match whom {
            Whom::One(server) => server..server + 1,
            Whom::Any => {
                let server = self.incidents.streams[index].random_range(0..self.lanes.len());
                server..server + 1
            }
            Whom::All => 0..self.lanes.len(),
        }
    }

    fn note(&mut self, server: Option<Server>, what: What) -> usize {
        self.incidents.happened.push(Happened { at: self.now, server, what, noticed: None, over: None });
        self.incidents.happened.len() - 1
    }

    /// The next of a rolling deploy that is up is drained; who is down starts anew by itself.
    fn roll_on(&mut self, rollout: usize, what: What) {
        let What::RollingDeploy { grace, back, .. } = what else { return };
        while let Some(server) = self.incidents.rollouts[rollout].pop_front() {
            if self.processes[server].stage == Stage::Up {
                self.drain(server, what, grace, back, Some(rollout));
                return;
            }
        }
    }

    fn drain(&mut self, server: Server, what: What, grace: Span, back: Back, rollout: Option<usize>) {
        if self.processes[server].stage != Stage::Up {
            return;
        }
        let happened = self.note(Some(server), what);
        let knows_at = self.now + self.config.health.watch_delay;
        self.incidents.happened[happened].noticed = Some(knows_at);
        let process = &mut self.processes[server];
        process.stage = Stage::Draining;
        process.epoch += 1;
        (process.all_know_at, process.back) = (knows_at, back);
        (process.happened, process.rollout) = (happened, rollout);
        let epoch = process.epoch;
        for gateway in 0..self.gateways.len() {
            self.file(knows_at, Step::Watch { gateway, server, epoch });
        }
        self.file(knows_at, Step::AllKnow { server, epoch });
        self.file(self.now + grace, Step::Kill { server, epoch });
    }

    /// A drained process ends as soon as nothing is there and nothing will come.
    pub(super) fn stop_if_drained(&mut self, server: Server) {
        let process = &self.processes[server];
        let known = self.now >= process.all_know_at;
        if process.stage == Stage::Draining && known && process.outstanding == 0 {
            self.stop(server);
        }
    }

    /// A process ends, whatever is in it.
    fn stop(&mut self, server: Server) {
        self.order(server, Control::Crash);
        let process = &mut self.processes[server];
        process.stage = Stage::Down;
        process.epoch += 1;
        let epoch = process.epoch;
        let start_up = self.lanes[server].facts.start_up;
        let back = match process.back {
            Back::Never => None,
            Back::Started => Some(start_up),
            Back::After(span) => Some(span),
        };
        match back {
            Some(back) => self.file(self.now + back, Step::Start { server, epoch }),
            None => {
                // Who never comes back holds no deploy up.
                if let Some(rollout) = self.processes[server].rollout.take() {
                    let happened = self.processes[server].happened;
                    self.roll_on(rollout, self.incidents.happened[happened].what);
                }
            }
        }
        self.tell_by_checks(server, false);
    }

    fn start(&mut self, server: Server, epoch: u32) {
        if self.processes[server].epoch != epoch {
            return;
        }
        self.order(server, Control::Start);
        let process = &mut self.processes[server];
        process.stage = Stage::Up;
        process.epoch += 1;
        let (happened, rollout) = (process.happened, process.rollout.take());
        self.incidents.happened[happened].over = Some(self.now);
        self.tell_by_checks(server, true);
        if let Some(rollout) = rollout {
            self.roll_on(rollout, self.incidents.happened[happened].what);
        }
    }

    /// Gateways learn by their checks what is so since now.
    fn tell_by_checks(&mut self, server: Server, up: bool) {
        let epoch = self.processes[server].epoch;
        for gateway in 0..self.gateways.len() {
            let at = self.config.health.noticed(self.gateways[gateway].check_phase, self.now, up);
            self.file(at, Step::Notice { gateway, server, epoch });
        }
    }

    fn order(&mut self, server: Server, control: Control) {
        self.deliver(server, self.now, Input::Control(control));
    }

    /// What comes back from a replica, or fails to, tells a gateway's outlier detection.
    pub(super) fn detect_outlier(&mut self, gateway: usize, server: Server, failed: bool) {
        let health = self.config.health;
        if let Some((lasts, ejections)) = self.gateways[gateway].roster.heard(server, failed, &health) {
            let process = &self.processes[server];
            if process.stage == Stage::Down {
                let noticed = &mut self.incidents.happened[process.happened].noticed;
                *noticed = noticed.or(Some(self.now));
            }
            self.file(self.now + lasts, Step::Return { gateway, server, ejections });
        }
    }
}
