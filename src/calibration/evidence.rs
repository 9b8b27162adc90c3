//! What was measured, and what a server with given prices makes of it.

use std::collections::BTreeMap;

use rand::RngExt;

use super::step_log::LoggedStep;
use crate::random::{Purpose, Seed};
use crate::step_time::Batch;
use crate::time::Span;
use crate::verify::latency::{self, Way};
use crate::verify::measured::MeasuredRun;
use crate::verify::server::Server;

/// One kind of measurement, with a scatter of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The length of a step.
    Step,
    /// A request's time to first token.
    Ttft,
    /// A request's time for each further token.
    Tpot,
}

impl Kind {
    /// All of them, in order.
    pub const ALL: [Kind; 3] = [Kind::Step, Kind::Ttft, Kind::Tpot];
}

/// One measurement beside its price.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Observation {
    /// What was measured.
    pub kind: Kind,
    /// Which part of what can happen it is of.
    pub region: &'static str,
    /// Logarithm of the simulated over the measured time.
    pub log_ratio: f64,
}

/// What was measured on a server.
#[derive(Clone, Debug)]
pub enum Evidence {
    /// Steps, one by one.
    Steps(Vec<LoggedStep>),
    /// Requests of a run, and the same run sent a little earlier or later, request by request.
    Run {
        /// As measured.
        run: Box<MeasuredRun>,
        /// As it might have been sent.
        shaken: Vec<MeasuredRun>,
    },
}

/// How often a run is replayed, each time shaken in another way.
const REPLAYS: u64 = 8;
/// Requests are sent up to so many seconds earlier or later: about half a step. Whether a request just makes a step or
/// just misses it is chance, and a price should not depend on it.
const SHAKE_S: f64 = 0.015;

impl Evidence {
    /// Evidence from a run.
    pub fn of_run(run: MeasuredRun) -> Evidence {
        let shaken = (0..REPLAYS).map(|replay| {
            let mut stream = Seed(0).stream(Purpose::Calibration, replay);
            let mut copy = run.clone();
            for request in &mut copy.requests {
                let shift_s = SHAKE_S * (2.0 * stream.random::<f64>() - 1.0);
                request.client_s = Some(request.sent_s() + shift_s);
            }
            // Requests reach a server in order; those that changed places keep their lengths.
            copy.requests.sort_by(|a, b| a.sent_s().total_cmp(&b.sent_s()).then(a.id.cmp(&b.id)));
            copy
        });
        Evidence::Run { shaken: shaken.collect(), run: Box::new(run) }
    }

    /// Whether the time between client and engine is part of it.
    pub fn seen_by_client(&self) -> bool {
        matches!(self, Evidence::Run { run, .. } if !run.seen_by_engine())
    }

    /// Every measurement beside what `server` makes of it; `front_end_us` lie between client and engine.
    pub fn observe(&self, server: &Server, front_end_us: f64) -> Vec<Observation> {
        match self {
            Evidence::Steps(steps) => steps.iter().map(|step| observed_step(step, server)).collect(),
            Evidence::Run { run, shaken } => {
                let way = Way { front_end: Span::from_us_f64(front_end_us), ..Way::LOCAL };
                observed_run(run, shaken, server, way)
            }
        }
    }
}

fn observed_step(step: &LoggedStep, server: &Server) -> Observation {
    let cost = server.step_time.cost(&Batch { chunks: &step.chunks, decodes: step.decodes });
    // Scheduled ahead, a step lasts as long as the longer of the two; else as both.
    let simulated =
        if server.engine.async_scheduling { cost.gpu.max(cost.host) } else { cost.gpu + cost.host };
    let contexts = step.decodes.context_sum;
    let region = match (step.chunks.is_empty(), step.decodes.count) {
        (true, _) if contexts < 50_000 => "steps of decodes, contexts below 50,000 tokens",
        (true, _) => "steps of decodes, contexts above",
        (false, 0) => "steps of prompts",
        (false, _) => "steps of both",
    };
    Observation { kind: Kind::Step, region, log_ratio: (simulated.as_s() / step.seconds).ln() }
}

/// Simulated seconds of one request, summed over replays.
#[derive(Clone, Copy, Default)]
struct Sums {
    ttft_s: f64,
    tpot_s: f64,
    replays: f64,
}

fn observed_run(run: &MeasuredRun, shaken: &[MeasuredRun], server: &Server, way: Way) -> Vec<Observation> {
    let mut sums: BTreeMap<u64, Sums> = BTreeMap::new();
    for copy in shaken {
        for (request, waits) in copy.requests.iter().zip(latency::waits(copy, server, way)) {
            let Some((_, simulated)) = waits else { continue };
            let sum = sums.entry(request.id).or_default();
            sum.ttft_s += simulated.ttft.as_s();
            sum.tpot_s += simulated.tpot.map_or(0.0, Span::as_s);
            sum.replays += 1.0;
        }
    }
    let mut observations = Vec::new();
    for request in &run.requests {
        let Some(sum) = sums.get(&request.id) else { continue };
        let real = latency::measured(request);
        let mut add = |kind, region, simulated_s: f64, real: Span| {
            if simulated_s > 0.0 && real > Span::ZERO {
                let log_ratio = (simulated_s / sum.replays / real.as_s()).ln();
                observations.push(Observation { kind, region, log_ratio });
            }
        };
        let region = match request.prompt_tokens {
            0..=512 => "TTFT, prompts up to 512 tokens",
            513..=2048 => "TTFT, 513 to 2,048",
            _ => "TTFT, above",
        };
        add(Kind::Ttft, region, sum.ttft_s, real.ttft);
        if let Some(real) = real.tpot {
            let region = match request.output_tokens {
                0..=128 => "TPOT, outputs up to 128 tokens",
                _ => "TPOT, above",
            };
            add(Kind::Tpot, region, sum.tpot_s, real);
        }
    }
    observations
}
