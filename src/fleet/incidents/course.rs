//! The course of incidents: what each does to a replica, who is told and how late, and what comes after.
//!
//! Every order reaches the engine at its moment, so lanes need not be advanced for it; gateways learn by their own checks.

use std::ops::Range;

use rand::RngExt;
use rand_distr::Distribution;

use super::rollout::Rollout;
use super::{Back, Happened, Incident, What, When, Whom};
use crate::agenda::Kind;
use crate::fleet::{Ends, Fleet, Moment};
use crate::observe::Observer;
use crate::random::{Purpose, Stream};
use crate::replica::{Control, Input};
use crate::router::Server;
use crate::time::{Span, Time};

/// Where a replica's process stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::fleet) enum Stage {
    Up,
    /// Nothing new is meant to come.
    Draining,
    Down,
    /// There is none, and none is to come: an autoscaler has not ordered it.
    Absent,
}

/// A replica's process, and how often it has changed.
#[derive(Clone, Debug)]
pub(in crate::fleet) struct Process {
    pub(in crate::fleet) stage: Stage,
    /// Tells what was filed for one stage from what is so now.
    epoch: u32,
    /// The same of troubles that pass, by kind.
    trouble_epochs: [u32; 3],
    /// Reads of its gauges fail.
    pub(in crate::fleet) is_blind: bool,
    /// Tries that were sent here and have not ended, by the fleet's own count.
    pub(in crate::fleet) outstanding: u32,
    /// When gateways know that it drains.
    all_know_at: Time,
    back: Back,
    /// The place in [`Incidents::happened`] of what brought it to its stage.
    happened: Option<usize>,
    pub(super) rollout: Option<usize>,
    /// Its machine is a new one's when it has gone.
    pub(super) makes_room: bool,
}

impl Process {
    /// Tells what is so now from what was.
    pub(super) fn epoch(&self) -> u32 {
        self.epoch
    }

    pub(in crate::fleet) fn new() -> Process {
        Process {
            stage: Stage::Up,
            epoch: 0,
            trouble_epochs: [0; 3],
            is_blind: false,
            outstanding: 0,
            all_know_at: Time::ZERO,
            back: Back::Never,
            happened: None,
            rollout: None,
            makes_room: false,
        }
    }

    /// Something answers there.
    pub(in crate::fleet) fn answers(&self) -> bool {
        matches!(self.stage, Stage::Up | Stage::Draining)
    }

    /// A new stage; returns its number.
    pub(in crate::fleet) fn passes_to(&mut self, stage: Stage) -> u32 {
        self.stage = stage;
        self.epoch += 1;
        self.epoch
    }
}

/// Troubles that pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::fleet) enum Trouble {
    Pace,
    Network,
    Metrics,
}

/// Moments of incidents.
#[derive(Clone, Copy, Debug)]
pub(in crate::fleet) enum Step {
    /// An incident of the plan happens.
    Plan(usize),
    /// A new process is ready.
    Start { server: Server, epoch: u32 },
    /// The grace of a drain is over.
    Kill { server: Server, epoch: u32 },
    /// All gateways know that it drains.
    AllKnow { server: Server, epoch: u32 },
    /// All gateways know that it is up.
    AllSee { server: Server, epoch: u32 },
    /// A trouble has passed.
    Recover { server: Server, trouble: Trouble, epoch: u32 },
    /// A partition is over.
    Rejoin { server: Server },
    /// Checks have told a gateway.
    Notice { gateway: usize, server: Server, epoch: u32 },
    /// Its watch has told a gateway of a drain.
    Watch { gateway: usize, server: Server, epoch: u32 },
    /// Another gateway takes the place of one that was lost.
    GatewayStarts { gateway: usize },
    /// An ejection is over.
    Return { gateway: usize, lost: u32, server: Server, ejections: u32 },
    /// Gauges are read for the autoscaler.
    Scrape,
    /// The autoscaler decides.
    Scale,
}

/// The plan, and what became of it.
#[derive(Debug, Default)]
pub(in crate::fleet) struct Incidents {
    plan: Vec<Incident>,
    /// Of each incident of the plan.
    streams: Vec<Stream>,
    pub(super) rollouts: Vec<Rollout>,
    pub(in crate::fleet) happened: Vec<Happened>,
    /// Whose process does not run.
    down: Vec<Server>,
}

impl Incidents {
    /// Somebody knows of something from then on, if it is the first.
    fn notice(&mut self, happened: Option<usize>, at: Time) {
        if let Some(happened) = happened {
            let noticed = &mut self.happened[happened].noticed;
            *noticed = noticed.or(Some(at));
        }
    }
}

impl<O: Observer + Send> Fleet<O> {
    /// Files what is planned. Each incident draws from a stream of its own (law 8).
    pub(in crate::fleet) fn plan(&mut self, plan: &[Incident]) {
        self.incidents.plan = plan.to_vec();
        for (index, incident) in plan.iter().enumerate() {
            self.incidents.streams.push(self.config.seed.stream(Purpose::Incidents, index as u64));
            match incident.when {
                When::At(at) => self.file(at, Step::Plan(index)),
                When::Every { from, .. } => self.file_again(index, from),
            }
        }
    }

    pub(super) fn file(&mut self, at: Time, step: Step) {
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

    pub(in crate::fleet) fn befall(&mut self, step: Step, requests_to_come: bool, ends: &mut Ends<'_>) {
        match step {
            Step::Plan(index) => {
                if matches!(self.incidents.plan[index].when, When::Every { .. }) {
                    if !requests_to_come {
                        return;
                    }
                    self.file_again(index, self.now);
                }
                self.carry_out(index, ends);
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
            Step::AllSee { server, epoch } => {
                if self.processes[server].epoch == epoch
                    && let Some(rollout) = self.processes[server].rollout.take()
                {
                    self.roll_on(rollout);
                }
            }
            Step::Recover { server, trouble, epoch } => {
                if self.processes[server].trouble_epochs[trouble as usize] == epoch {
                    match trouble {
                        Trouble::Pace => self.order(server, Control::Pace { per_mille: 1_000 }),
                        Trouble::Network => self.links[server].mends(),
                        Trouble::Metrics => self.processes[server].is_blind = false,
                    }
                }
            }
            Step::Rejoin { server } => self.rejoin(server),
            Step::Notice { gateway, server, epoch } => {
                let process = &self.processes[server];
                if process.epoch == epoch {
                    let cut = self.links[server].cut_from(gateway);
                    let (answers, up) = (process.answers(), process.answers() && cut.is_none());
                    // Who was announced to go is not taken for one who has come back.
                    if !(up && process.stage == Stage::Draining) {
                        self.gateways[gateway].roster.checked(server, up, self.now);
                    }
                    if !up {
                        self.incidents.notice(cut.map(|cut| cut.happened), self.now);
                        self.incidents.notice(process.happened.filter(|_| !answers), self.now);
                    }
                    if !answers {
                        self.forget_blocks(gateway, server);
                    }
                }
            }
            Step::Watch { gateway, server, epoch } => {
                // Its process may have ended meanwhile; what was announced holds until the next is ready.
                let process = &self.processes[server];
                let ended = process.epoch == epoch + 1 && process.stage == Stage::Down;
                if process.epoch == epoch || ended || process.stage == Stage::Absent {
                    self.gateways[gateway].roster.drains(server);
                }
            }
            Step::Return { gateway, lost, server, ejections } => {
                if self.gateways[gateway].lost == lost {
                    self.gateways[gateway].roster.returns(server, ejections);
                }
            }
            Step::GatewayStarts { gateway } => self.gateway_starts(gateway, ends),
            Step::Scrape => self.scrape(requests_to_come),
            Step::Scale => self.scale(requests_to_come),
        }
    }

    fn carry_out(&mut self, index: usize, ends: &mut Ends<'_>) {
        let what = self.incidents.plan[index].what;
        match what {
            What::Crash { whom, back } => {
                self.meant(index, whom).for_each(|server| self.crash(server, what, back))
            }
            What::SlowDown { whom, per_mille, lasts } => self.meant(index, whom).for_each(|server| {
                self.order(server, Control::Pace { per_mille });
                self.passes(server, what, Trouble::Pace, lasts);
            }),
            What::Network { whom, delay, loss, lasts } => self.meant(index, whom).for_each(|server| {
                self.links[server].worsens(delay, loss);
                self.passes(server, what, Trouble::Network, lasts);
            }),
            What::MetricsLost { whom, lasts } => self.meant(index, whom).for_each(|server| {
                self.processes[server].is_blind = true;
                self.passes(server, what, Trouble::Metrics, lasts);
            }),
            What::Drain { whom, grace, back } => {
                self.meant(index, whom).for_each(|server| self.drain(server, Some(what), grace, back, None));
            }
            What::RollingDeploy { .. } => self.deploy(what),
            What::SpotLoss { whom, notice, back } => {
                self.meant(index, whom).for_each(|server| self.drain(server, Some(what), notice, back, None));
            }
            What::Partition { whom, .. } => self.part(index, what, whom),
            What::GatewayLost { gateway, .. } | What::CountersLost { gateway } => {
                let gateways = self.gateways.len();
                let by_chance = |stream: &mut Stream| stream.random_range(0..gateways);
                let gateway = gateway.unwrap_or_else(|| by_chance(&mut self.incidents.streams[index]));
                match what {
                    What::CountersLost { .. } => self.lose_counters(gateway, what, ends),
                    _ => self.lose_gateway(gateway, what, ends),
                }
            }
        }
    }

    fn crash(&mut self, server: Server, what: What, back: Back) {
        let happened = self.note(Some(server), what);
        if !self.processes[server].answers() {
            self.incidents.happened[happened].in_vain = true;
            return;
        }
        let process = &mut self.processes[server];
        (process.back, process.happened) = (back, Some(happened));
        self.stop(server);
    }

    /// Notes a trouble, and when it will be over.
    fn passes(&mut self, server: Server, what: What, trouble: Trouble, lasts: Option<Span>) {
        let happened = self.note(Some(server), what);
        let epoch = &mut self.processes[server].trouble_epochs[trouble as usize];
        *epoch += 1;
        let epoch = *epoch;
        if let Some(lasts) = lasts {
            self.incidents.happened[happened].over = Some(self.now + lasts);
            self.file(self.now + lasts, Step::Recover { server, trouble, epoch });
        }
    }

    pub(super) fn meant(&mut self, index: usize, whom: Whom) -> Range<Server> {
        match whom {
            Whom::One(server) => server..server + 1,
            Whom::Any => {
                let there = |server: &Server| self.processes[*server].stage != Stage::Absent;
                let there: Vec<Server> = (0..self.lanes.len()).filter(there).collect();
                if there.is_empty() {
                    return 0..0;
                }
                let server = there[self.incidents.streams[index].random_range(0..there.len())];
                server..server + 1
            }
            Whom::All => 0..self.lanes.len(),
        }
    }

    pub(super) fn note(&mut self, server: Option<Server>, what: What) -> usize {
        self.incidents.happened.push(Happened {
            at: self.now,
            server,
            gateway: None,
            what,
            noticed: None,
            over: None,
            in_vain: false,
        });
        self.incidents.happened.len() - 1
    }

    /// Who is up drains; `what` is noted, if it is something that befell it.
    pub(in crate::fleet) fn drain(
        &mut self,
        server: Server,
        what: Option<What>,
        grace: Span,
        back: Back,
        rollout: Option<usize>,
    ) {
        let happened = what.map(|what| self.note(Some(server), what));
        if self.processes[server].stage != Stage::Up {
            if let Some(happened) = happened {
                self.incidents.happened[happened].in_vain = true;
            }
            return;
        }
        let knows_at = self.now + self.config.health.watch_delay;
        self.incidents.notice(happened, knows_at);
        let process = &mut self.processes[server];
        let epoch = process.passes_to(Stage::Draining);
        (process.all_know_at, process.back) = (knows_at, back);
        (process.happened, process.rollout) = (happened, rollout);
        for gateway in 0..self.gateways.len() {
            self.file(knows_at, Step::Watch { gateway, server, epoch });
        }
        self.file(knows_at, Step::AllKnow { server, epoch });
        self.file(self.now + grace, Step::Kill { server, epoch });
    }

    /// A drained process ends as soon as nothing is there and nothing will come.
    pub(in crate::fleet) fn stop_if_drained(&mut self, server: Server) {
        let process = &self.processes[server];
        let known = self.now >= process.all_know_at;
        if process.stage == Stage::Draining && known && process.outstanding == 0 {
            self.stop(server);
        }
    }

    /// A process ends, whatever is in it.
    fn stop(&mut self, server: Server) {
        self.order(server, Control::Crash);
        self.incidents.down.push(server);
        let epoch = self.processes[server].passes_to(Stage::Down);
        let start_up = self.lanes[server].facts.start_up;
        let back = match self.processes[server].back {
            Back::Never => None,
            Back::Started => Some(start_up),
            Back::After(span) => Some(span),
        };
        let makes_room = self.processes[server].makes_room;
        let back = if self.is_gone(server) || makes_room { None } else { back };
        if makes_room {
            self.processes[server].passes_to(Stage::Absent);
            if let Some(happened) = self.processes[server].happened.take() {
                self.incidents.happened[happened].over = Some(self.now);
            }
        }
        match back {
            Some(back) => self.file(self.now + back, Step::Start { server, epoch }),
            None => self.goes_on_without(server),
        }
        self.tell_by_checks(server, false);
        self.note_change();
    }

    /// Who never comes back holds no deploy up.
    pub(in crate::fleet) fn goes_on_without(&mut self, server: Server) {
        let makes_room = std::mem::take(&mut self.processes[server].makes_room);
        if let Some(rollout) = self.processes[server].rollout.take() {
            if makes_room {
                self.room_for_new(server, rollout);
            } else {
                self.roll_on(rollout);
            }
        }
    }

    /// Where there was no process one is started, and ready after so long.
    pub(in crate::fleet) fn starts_anew(&mut self, server: Server, after: Span) {
        self.is_listed_nowhere(server);
        let epoch = self.processes[server].passes_to(Stage::Down);
        self.file(self.now + after, Step::Start { server, epoch });
    }

    /// No gateway lists it before its checks succeed.
    pub(in crate::fleet) fn is_listed_nowhere(&mut self, server: Server) {
        self.gateways.iter_mut().for_each(|gateway| gateway.roster.drains(server));
        (0..self.gateways.len()).for_each(|gateway| self.forget_blocks(gateway, server));
    }

    fn start(&mut self, server: Server, epoch: u32) {
        if self.processes[server].epoch != epoch {
            return;
        }
        self.order(server, Control::Start);
        self.processes[server].passes_to(Stage::Up);
        self.incidents.down.retain(|other| *other != server);
        if let Some(happened) = self.processes[server].happened.take() {
            self.incidents.happened[happened].over = Some(self.now);
        }
        self.tell_by_checks(server, true);
        self.note_change();
    }

    /// Gateways learn by their checks what is so since now.
    fn tell_by_checks(&mut self, server: Server, up: bool) {
        let epoch = self.processes[server].epoch;
        let mut last = self.now;
        for gateway in 0..self.gateways.len() {
            let at = self.config.health.noticed(self.gateways[gateway].check_phase, self.now, up);
            last = last.max(at);
            self.file(at, Step::Notice { gateway, server, epoch });
        }
        if up {
            self.file(last, Step::AllSee { server, epoch });
        }
    }

    fn order(&mut self, server: Server, control: Control) {
        self.deliver(server, self.now, Input::Control(control));
    }

    /// When a try may next be found to have failed: only who is down fails, and when its bound says so.
    pub(in crate::fleet) fn next_failure(&self) -> Time {
        let bounds = self.incidents.down.iter().filter_map(|&server| self.due.of(server));
        bounds.min().unwrap_or(Time::MAX)
    }

    /// What comes back from a replica, or fails to, tells a gateway's outlier detection.
    pub(in crate::fleet) fn detect_outlier(&mut self, gateway: usize, server: Server, failed: bool) {
        let health = self.config.health;
        if let Some((lasts, ejections)) = self.gateways[gateway].roster.heard(server, failed, &health) {
            let process = &self.processes[server];
            if process.stage == Stage::Down {
                self.incidents.notice(process.happened, self.now);
            }
            let lost = self.gateways[gateway].lost;
            self.file(self.now + lasts, Step::Return { gateway, lost, server, ejections });
        }
    }
}
