//! From keys to meaning: validates a scenario file and fills in what it leaves open.
//!
//! After this nothing can fail but reading a trace: every number is in its range, every name is known, and
//! every replica can start.

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::error::ScenarioError;
use super::file::{EndFile, EndWord, LimitsFile, ScenarioFile, WarmupFile, WarmupRuleFile};
use crate::fleet::admission::Admission;
use crate::fleet::health::Health;
use crate::fleet::hedging::Hedging;
use crate::fleet::incidents::{Incident, What, When, Whom};
use crate::fleet::patience::{Patience, Retries};
use crate::fleet::scaling::Scale;
use crate::fleet::{End, Network};
use crate::hardware::Placement;
use crate::hardware::memory::KvCapacity;
use crate::metrics::Objectives;
use crate::random::Seed;
use crate::router::{Facts, Freshness, Impairments};
use crate::step_time::calibrated::Calibrated;
use crate::time::{Span, Time};
use crate::trace::ReadOptions;
use crate::workload::drawn::{Arrivals, Demand, Drawn};
use crate::workload::predictor::Predictor;
use crate::workload::shape::Shape;

mod autoscaler;
mod classes;
mod events;
mod lengths;
mod patience;
mod prediction;
mod replicas;
mod router;
mod step_time;
mod workload;

pub(super) use replicas::fill_in;

/// A scenario as run.
#[derive(Clone, Debug)]
pub struct Scenario {
    /// What it shows.
    pub title: String,
    /// All randomness follows from it.
    pub seed: Seed,
    /// Independent repetitions.
    pub repeat: u32,
    /// Requests sent before are left out of the statistics.
    pub warmup: Span,
    /// How that is found, if it is not given: by a run of the first contender.
    pub warmup_rule: Option<WarmupRule>,
    /// Requests sent so shortly before the end of the run are left out too.
    pub cooldown: Span,
    /// Length of windows over time, if it is given.
    pub window: Option<Span>,
    /// When a run ends.
    pub end: End,
    /// Where requests come from.
    pub workload: Workload,
    /// What routers are told of output lengths.
    pub predictor: Predictor,
    /// Kinds of replicas, in the file's order.
    pub replicas: Vec<ReplicaKind>,
    /// How requests are sent to them.
    pub router: RouterPlan,
    /// Delays.
    pub network: Network,
    /// What gateways let in.
    pub admission: Admission,
    /// How gateways learn who is up.
    pub health: Health,
    /// What gateways do about tries that never began.
    pub retries: Retries,
    /// When gateways send a second copy.
    pub hedging: Option<Hedging>,
    /// What clients put up with.
    pub patience: Patience,
    /// What befalls replicas.
    pub incidents: Arc<[Incident]>,
    /// Who says how many replicas there should be.
    pub autoscaler: Option<AutoscalerPlan>,
    /// Limits of a good request.
    pub goodput: Objectives,
    /// Classes of requests by name, and what each must meet; empty if all are alike.
    pub classes: Vec<(String, Objectives)>,
    /// Limits of the run's 99th percentiles.
    pub p99: Objectives,
    /// Why figures are less certain than usual.
    pub marks: Vec<String>,
}

impl Scenario {
    /// What every request should meet: the limits of the P99 objectives, or of a good request where there are none.
    pub fn limits(&self) -> Option<Objectives> {
        [self.p99, self.goodput].into_iter().find(|limits| *limits != Objectives::default())
    }

    /// Whether anything may befall its replicas, anybody may give up, try again or wait at a gateway, or replicas come and go.
    pub fn has_bad_days(&self) -> bool {
        let gives_up = self.patience.ends();
        let tries_again = self.patience.retries > 0 || self.retries.attempts > 0;
        let tries_again = tries_again || self.hedging.is_some();
        let waits = self.admission.queue.is_some() || self.admission.saturation.is_some();
        !self.plan().is_empty() || gives_up || tries_again || waits || self.autoscaler.is_some()
    }

    /// What befalls its replicas: those that are slow from the start, and the events that are of replicas it has.
    pub fn plan(&self) -> Arc<[Incident]> {
        let slow = self.each_lane().enumerate().filter(|(_, kind)| kind.pace_per_mille != 1_000);
        let slow = slow.map(|(server, kind)| Incident {
            when: When::At(Time::ZERO),
            what: What::SlowDown { whom: Whom::One(server), per_mille: kind.pace_per_mille, lasts: None },
        });
        let replicas = self.each_lane().count();
        let events = self.incidents.iter().filter(|incident| match incident.what.whom() {
            Some(Whom::One(server)) => server < replicas,
            _ => true,
        });
        slow.chain(events.cloned()).collect()
    }

    /// The same on a day on which nothing happens and everybody is patient.
    #[must_use]
    pub fn undisturbed(&self) -> Scenario {
        Scenario {
            incidents: Arc::new([]),
            autoscaler: None,
            admission: Admission::default(),
            patience: Patience::default(),
            retries: Retries::default(),
            hedging: None,
            health: Health::default(),
            ..self.clone()
        }
    }

    /// Every replica's kind, in the order of their numbers.
    pub fn each_replica(&self) -> impl Iterator<Item = &ReplicaKind> {
        self.replicas.iter().flat_map(|kind| std::iter::repeat_n(kind, kind.count as usize))
    }

    /// Machines that stand by for rolling deploys.
    pub fn spare_machines(&self) -> u32 {
        let surges = self.incidents.iter().map(|incident| match incident.what {
            What::RollingDeploy { surge, .. } => surge,
            _ => 0,
        });
        surges.max().unwrap_or(0)
    }

    /// The kind of every replica that there may be: an autoscaler or a deploy may start more than there are at the start.
    pub fn each_lane(&self) -> impl Iterator<Item = &ReplicaKind> {
        let (kind, more) = match &self.autoscaler {
            Some(plan) => (&self.replicas[plan.table], plan.scale.most - plan.scale.initial),
            None => (&self.replicas[0], self.spare_machines()),
        };
        self.each_replica().chain(std::iter::repeat_n(kind, more as usize))
    }

    /// Numbers of the replicas that an autoscaler may have, those that are up at the start first; none without one.
    pub fn scaled_lanes(&self) -> Vec<usize> {
        let Some(plan) = &self.autoscaler else { return Vec::new() };
        let before = self.replicas[..plan.table].iter().map(|kind| kind.count as usize).sum::<usize>();
        let all = self.each_replica().count();
        let more = (plan.scale.most - plan.scale.initial) as usize;
        (before..before + plan.scale.initial as usize).chain(all..all + more).collect()
    }

    /// When requests that are in the statistics are sent.
    pub fn counted(&self) -> Range<Time> {
        let end = match self.end {
            End::Drain => Time::MAX,
            End::At(end) => Time::ZERO + ((end - Time::ZERO) - self.cooldown),
        };
        Time::ZERO + self.warmup..end
    }
}

/// Where requests come from.
#[derive(Clone, Debug, PartialEq)]
pub enum Workload {
    /// Drawn from parameters.
    Drawn(Drawn),
    /// Replayed from a trace.
    Trace {
        /// The file.
        path: PathBuf,
        /// How it is read.
        options: ReadOptions,
        /// What of it is kept.
        shape: Shape,
        /// When its sessions begin, instead of its own times.
        starts: Option<Arrivals>,
        /// Whether requests wait for the answers that they waited for then.
        closed_loop: bool,
        /// Arrivals this many times as fast.
        rate_scale: f64,
        /// Whether it is read while it is replayed.
        streamed: bool,
        /// So many times in a row.
        rounds: u32,
        /// Only the first so many.
        requests: Option<u32>,
        /// What differs between repetitions.
        resample: Option<Resample>,
    },
}

/// How the end of the warm-up is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WarmupRule {
    /// The marginal standard error rule on means of five requests.
    Mser5,
}

pub(super) use router::{embed_scripts, script_files};

/// What differs between repetitions of a trace.
pub use crate::workload::replay::Resample;

/// Replicas that are alike.
#[derive(Clone, Debug)]
pub struct ReplicaKind {
    /// For people: "Llama-3.1-8B on h100-sxm".
    pub name: String,
    /// How many.
    pub count: u32,
    /// How many thousandths of what their price list says steps take in truth; no gateway knows.
    pub pace_per_mille: u32,
    /// Their flags and their price list.
    pub facts: Facts,
    /// Where their memory goes.
    pub capacity: Option<KvCapacity>,
    /// The model, the card and the flags that decide about time and memory.
    pub placement: Placement,
    /// What their prices were fitted to, if they were.
    pub calibration: Option<Calibrated>,
}

impl ReplicaKind {
    /// US dollars for an hour of one replica; none where the catalogue has no price of its cards.
    pub fn usd_per_hour(&self) -> Option<f64> {
        let cards = f64::from(self.placement.deployment.tensor_parallel_size);
        self.placement.gpu.usd_per_hour.map(|usd| usd * cards)
    }
}

/// An autoscaler as run.
#[derive(Clone, Debug)]
pub struct AutoscalerPlan {
    /// Its name.
    pub policy: &'static str,
    /// The kind of replicas that it scales.
    pub table: usize,
    /// Its parameters.
    pub parameters: toml::Table,
    /// Its limits and its surroundings.
    pub scale: Scale,
}

/// The router as run.
#[derive(Clone, Debug)]
pub struct RouterPlan {
    /// The policy's name.
    pub policy: String,
    /// Its parameters.
    pub parameters: toml::Table,
    /// Gateways.
    pub gateways: u32,
    /// How old the gauges are.
    pub freshness: Freshness,
    /// What is seen late, or not at all.
    pub impairments: Impairments,
    /// Its policy reads KV events.
    pub reads_kv_events: bool,
    /// Characters a token has, where gateways count them instead of tokens.
    pub characters_per_token: Option<f64>,
    /// Between a decision and its effect.
    pub decision_gap: Span,
}

/// A mistake at a key.
#[derive(Clone, Debug)]
pub(in crate::scenario) struct Fault {
    path: String,
    message: String,
    help: Option<String>,
}

impl Fault {
    pub(super) fn locate(self, file: &str, text: &str) -> ScenarioError {
        let error = ScenarioError::at(file, text, &self.path, self.message);
        match self.help {
            Some(help) => error.help(help),
            None => error,
        }
    }

    fn help(mut self, help: impl Into<String>) -> Fault {
        self.help = Some(help.into());
        self
    }
}

fn fault(path: impl Into<String>, message: impl Into<String>) -> Fault {
    Fault { path: path.into(), message: message.into(), help: None }
}

/// A number as a person would write it: nobody reads three hundred digits.
fn shown(value: f64) -> String {
    if value.abs() < 1e15 { format!("{value}") } else { format!("{value:e}") }
}

fn positive(path: &str, value: f64) -> Result<f64, Fault> {
    if value.is_finite() && value > 0.0 {
        Ok(value)
    } else {
        Err(fault(path, format!("expected a number above 0, got {}", shown(value))))
    }
}

fn not_negative(path: &str, value: f64) -> Result<f64, Fault> {
    if value.is_finite() && value >= 0.0 {
        Ok(value)
    } else {
        Err(fault(path, format!("expected 0 or a number above it, got {}", shown(value))))
    }
}

fn at_least_one(path: &str, value: u32) -> Result<u32, Fault> {
    if value >= 1 { Ok(value) } else { Err(fault(path, "expected a whole number of at least 1, got 0")) }
}

fn span_ms(path: &str, ms: f64) -> Result<Span, Fault> {
    not_negative(path, ms)?;
    if ms > LONGEST_S * 1_000.0 {
        return Err(fault(path, format!("expected at most {} ms, got {}", LONGEST_S * 1_000.0, shown(ms))));
    }
    Ok(Span::from_ms_f64(ms))
}

/// Longest time that a scenario may name: a hundred days, well inside what a clock of picoseconds holds.
pub const LONGEST_S: f64 = 100.0 * 86_400.0;

fn within_clock(path: &str, seconds: f64) -> Result<f64, Fault> {
    if seconds <= LONGEST_S {
        Ok(seconds)
    } else {
        Err(fault(path, format!("expected at most {LONGEST_S} s, got {}", shown(seconds))))
    }
}

/// Most repetitions of a study, as many as a comparison goes on for until it is decided.
pub const MOST_REPETITIONS: u32 = 10_000;
/// Most replicas of a fleet.
const MOST_REPLICAS: u32 = 100_000;

/// A window below this holds no request worth a percentile.
const SHORTEST_WINDOW_S: f64 = 0.01;

pub(in crate::scenario) fn resolve(file: &ScenarioFile, folder: &Path) -> Result<Scenario, Fault> {
    let workload = workload::workload(file, folder)?;
    check_repetitions(file, &workload)?;
    let (warmup_s, warmup_rule) = match file.warmup_s {
        WarmupFile::Seconds(seconds) => (within_clock("warmup_s", not_negative("warmup_s", seconds)?)?, None),
        WarmupFile::Rule(WarmupRuleFile::Mser5) => (0.0, Some(WarmupRule::Mser5)),
    };
    let cooldown_s = within_clock("cooldown_s", not_negative("cooldown_s", file.cooldown_s)?)?;
    if let Some(seconds) = file.window_s.filter(|seconds| *seconds < SHORTEST_WINDOW_S) {
        return Err(fault("window_s", format!("expected at least {SHORTEST_WINDOW_S} s, got {seconds}")));
    }
    let window =
        file.window_s.map(|seconds| within_clock("window_s", positive("window_s", seconds)?)).transpose()?;
    let end = match file.end {
        EndFile::Word(EndWord::Drain) if cooldown_s > 0.0 => {
            return Err(fault("cooldown_s", "belongs to a run that ends at a time, and this one drains")
                .help("set end = 600, or leave out cooldown_s"));
        }
        EndFile::Word(EndWord::Drain) => End::Drain,
        EndFile::Seconds(seconds) => {
            let seconds = within_clock("end", positive("end", seconds)?)?;
            if warmup_s >= seconds {
                return Err(fault(
                    "warmup_s",
                    format!("the warm-up ({warmup_s} s) does not end before the run ({seconds} s)"),
                ));
            }
            if warmup_s + cooldown_s >= seconds {
                return Err(fault(
                    "cooldown_s",
                    format!(
                        "warm-up and cool-down ({warmup_s} + {cooldown_s} s) leave nothing of the run's {seconds} s"
                    ),
                ));
            }
            End::At(Time::ZERO + Span::from_s_f64(seconds))
        }
    };
    if file.replicas.is_empty() {
        return Err(fault("replicas", "there is no [[replicas]] table").help("add one with model and gpu"));
    }
    let mut marks = Vec::new();
    if let Workload::Drawn(Drawn { demand: Demand::Clients(clients), .. }) = &workload
        && clients.without_lengths > 0
    {
        let count = clients.without_lengths;
        marks.push(format!(
            "servegen: {count} clients have no file of lengths and were left out, with their requests"
        ));
    }
    if file.workload.classes.iter().flatten().any(|class| class.lora.is_some()) {
        marks.push(
            "LoRA adapters part the prefix cache; their kernels' time and max_loras are not modelled"
                .to_owned(),
        );
    }
    let mut kinds = Vec::new();
    for (index, kind) in file.replicas.iter().enumerate() {
        kinds.push(replicas::replica_kind(index, kind, folder, &mut marks)?);
    }
    if kinds.iter().map(|kind| u64::from(kind.count)).sum::<u64>() > u64::from(MOST_REPLICAS) {
        return Err(fault("replicas.0.count", format!("expected at most {MOST_REPLICAS} replicas in all")));
    }
    let autoscaler = autoscaler::autoscaler(file, &mut marks)?;
    let router = router::router(file, folder, &mut marks)?;
    let predictor = prediction::predictor(file, &workload)?;
    let network = &file.network;
    let incidents = events::incidents(file, &kinds)?;
    let goodput = limits("slo.goodput", &file.slo.goodput)?;
    marks.dedup();
    Ok(Scenario {
        title: file.title.clone(),
        seed: Seed(file.seed),
        repeat: file.repeat,
        warmup: Span::from_s_f64(warmup_s),
        cooldown: Span::from_s_f64(cooldown_s),
        warmup_rule,
        window: window.map(Span::from_s_f64),
        end,
        workload,
        predictor,
        replicas: kinds,
        router,
        network: Network {
            client_to_router: span_ms("network.client_to_router_ms", network.client_to_router_ms)?,
            router_to_replica: span_ms("network.router_to_replica_ms", network.router_to_replica_ms)?,
            frontend: span_ms("network.frontend_ms", network.frontend_ms)?,
            per_token: span_ms("network.per_token_us", network.per_token_us / 1e3)?,
        },
        admission: patience::admission(&file.router.admission)?,
        health: patience::health(&file.router.health)?,
        retries: patience::retries(&file.router.retries)?,
        hedging: file.router.hedging.as_ref().map(patience::hedging).transpose()?,
        patience: patience::patience(&file.clients)?,
        incidents,
        autoscaler,
        goodput,
        classes: classes::objectives(file, goodput)?,
        p99: limits("slo.p99", &file.slo.p99)?,
        marks,
    })
}

fn check_repetitions(file: &ScenarioFile, workload: &Workload) -> Result<(), Fault> {
    at_least_one("repeat", file.repeat)?;
    if file.repeat > MOST_REPETITIONS {
        return Err(fault("repeat", format!("expected 1 to {MOST_REPETITIONS}, got {}", file.repeat)));
    }
    let is_trace = matches!(workload, Workload::Trace { .. });
    match (is_trace, file.resample) {
        (true, None) if file.repeat > 1 => Err(fault(
            "repeat",
            "a replayed trace draws nothing by itself, so repetitions would all be the same",
        )
        .help("say what varies: resample = \"time-blocks\", \"sessions\" or \"jitter\"")),
        (false, Some(_)) => {
            Err(fault("resample", "a drawn workload varies by itself; resample is for traces")
                .help("leave it out"))
        }
        _ => Ok(()),
    }
}

fn limits(path: &str, limits: &LimitsFile) -> Result<Objectives, Fault> {
    let limit = |key: &str, value: Option<f64>| {
        value.map(|ms| positive(&format!("{path}.{key}"), ms).map(Span::from_ms_f64)).transpose()
    };
    Ok(Objectives {
        ttft: limit("ttft_ms", limits.ttft_ms)?,
        tpot: limit("tpot_ms", limits.tpot_ms)?,
        e2e: limit("e2e_ms", limits.e2e_ms)?,
    })
}
