//! `verify latency --scenario`: a whole routed fleet against what was measured of it.
//!
//! Against a gateway's rows the fleet serves those very requests, and every figure is compared, in total and by replica.
//! Against histograms it serves the scenario's own workload, and a quantile is right where it lies between the bounds
//! of the bucket in which the real one lies. Knows outcomes. Does not know how they came about.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::gateway::{GatewayRow, GatewayRows};
use super::latency::{Figure, Latencies, Waits, figures, latencies};
use super::prometheus::{Buckets, METRICS, Scrape};
use crate::metrics::quantile::Sample;
use crate::request::{Content, ContentRun, Outcome, Request, RequestId};
use crate::scenario::Scenario;
use crate::study::run::jobs;
use crate::study::{Keep, StudyError, Traces, run};
use crate::time::{Span, Time};
use crate::trace;
use crate::workload::Job;

/// Real and simulated latencies of some requests.
#[derive(Clone, Debug)]
pub struct Side {
    /// Which requests: `all`, or a replica.
    pub name: String,
    /// How many were measured, and how many simulated.
    pub requests: [usize; 2],
    /// The comparison, figure by figure.
    pub figures: Vec<Figure>,
}

/// The fleet against a gateway's rows: all requests, then those of each replica.
///
/// # Errors
/// If the scenario cannot be run, or rows name more replicas than it has.
pub fn against_rows(scenario: &Scenario, measured: &GatewayRows) -> Result<Vec<Side>, StudyError> {
    let start_s = measured.rows.first().map_or(0.0, |row| row.sent_s);
    let mut requests: Vec<Job> =
        measured.rows.iter().enumerate().map(|(index, row)| job(index, row, start_s)).collect();
    scenario.predictor.predict(&mut requests, scenario.seed);
    let outcomes = serve(scenario, requests)?;
    let count: u32 = scenario.replicas.iter().map(|kind| kind.count).sum();
    let servers = servers(measured, count)?;
    let mut sides = vec![side("all", &measured.rows.iter().collect::<Vec<_>>(), &outcomes)];
    for (name, index) in servers {
        let real: Vec<&GatewayRow> =
            measured.rows.iter().filter(|row| row.replica.as_deref() == Some(&name)).collect();
        let own: Vec<Outcome> =
            outcomes.iter().filter(|outcome| outcome.replica == Some(index)).cloned().collect();
        sides.push(side(&name, &real, &own));
    }
    Ok(sides)
}

/// Replicas that the rows name, with the index of each in the scenario: by number, or else in order of their names.
fn servers(measured: &GatewayRows, count: u32) -> Result<Vec<(String, u32)>, StudyError> {
    let mut names: Vec<&str> = measured.rows.iter().filter_map(|row| row.replica.as_deref()).collect();
    names.sort_unstable();
    names.dedup();
    let numbers: Option<Vec<u32>> = names.iter().map(|name| name.parse().ok()).collect();
    let numbers = numbers.unwrap_or_else(|| (0..names.len() as u32).collect());
    if let Some(beyond) = numbers.iter().position(|number| *number >= count) {
        return Err(StudyError::Empty(format!(
            "replica `{}` was measured, and the scenario has {count} replicas",
            names[beyond]
        )));
    }
    let mut servers: Vec<(String, u32)> = names.into_iter().map(str::to_owned).zip(numbers).collect();
    servers.sort_by_key(|(_, number)| *number);
    Ok(servers)
}

fn job(index: usize, row: &GatewayRow, start_s: f64) -> Job {
    let sent = Time::ZERO + Span::from_s_f64(row.sent_s - start_s);
    let request = Request {
        id: RequestId(index as u32),
        prompt_tokens: row.prompt_tokens,
        output_tokens: row.output_tokens,
        max_tokens: None,
        priority: 0,
        attempt: 0,
        arrival_order: index as u64,
        content: Content::from_runs(row.prefix.map(|(stream, tokens)| ContentRun {
            stream,
            position: 0,
            tokens,
        })),
        remote_tokens: 0,
    };
    Job {
        sent,
        request,
        session: None,
        class: 0,
        waits: trace::Waits::default(),
        predicted_output_tokens: None,
    }
}

fn serve(scenario: &Scenario, requests: Vec<Job>) -> Result<Vec<Outcome>, StudyError> {
    let mut source = crate::workload::OpenLoop::new(Arc::from(requests));
    Ok(run::simulate(scenario, &mut source, 0, false, Keep::Outcomes)?.outcomes)
}

fn side(name: &str, real: &[&GatewayRow], simulated: &[Outcome]) -> Side {
    let measured: Latencies = latencies(real.iter().map(|row| {
        let gaps = f64::from(row.output_tokens) - 1.0;
        let decode_us = (row.e2e_ms - row.ttft_ms) * 1e3;
        Waits {
            ttft: Span::from_us_f64(row.ttft_ms * 1e3),
            tpot: (gaps > 0.0).then(|| Span::from_us_f64(decode_us / gaps)),
            e2e: Span::from_us_f64(row.e2e_ms * 1e3),
        }
    }));
    let waits = simulated.iter().filter_map(|outcome| {
        Some(Waits { ttft: outcome.ttft()?, tpot: outcome.tpot(), e2e: outcome.e2e()? })
    });
    let simulated_latencies = latencies(waits);
    Side {
        name: name.into(),
        requests: [real.len(), simulated.len()],
        figures: figures(&measured, &simulated_latencies),
    }
}

/// One quantile of a histogram beside the simulated one.
#[derive(Clone, Debug, PartialEq)]
pub struct Bound {
    /// Which server: `all`, or one of the scraped.
    pub server: String,
    /// `TTFT`, `TPOT` or `E2E`.
    pub metric: &'static str,
    /// `mean`, `P50`, ...
    pub statistic: &'static str,
    /// The real one lies above this, milliseconds.
    pub low_ms: f64,
    /// And not above this; equal to the lower bound where it is known exactly.
    pub high_ms: f64,
    /// The simulated one.
    pub simulated_ms: f64,
}

impl Bound {
    /// How far the simulated one lies outside, relative to the bound that it passes.
    pub fn error(&self) -> f64 {
        if self.simulated_ms < self.low_ms {
            self.simulated_ms / self.low_ms - 1.0
        } else if self.simulated_ms > self.high_ms {
            self.simulated_ms / self.high_ms - 1.0
        } else {
            0.0
        }
    }
}

/// The fleet under the scenario's workload against scraped histograms: all together, then server by server where as
/// many were scraped as the scenario has replicas.
///
/// # Errors
/// If the scenario cannot be run.
pub fn against_histograms(scenario: &Scenario, scrapes: &[Scrape]) -> Result<Vec<Bound>, StudyError> {
    let trace = Traces::default().of(&scenario.workload)?;
    let outcomes = serve(scenario, jobs(scenario, trace.as_deref(), 0)?)?;
    let count: u32 = scenario.replicas.iter().map(|kind| kind.count).sum();
    let mut bounds = bounds_of("all", &sum(scrapes), &outcomes);
    if scrapes.len() == count as usize && count > 1 {
        for (index, scrape) in (0..count).zip(scrapes) {
            let own: Vec<Outcome> =
                outcomes.iter().filter(|outcome| outcome.replica == Some(index)).cloned().collect();
            bounds.extend(bounds_of(&scrape.server, &scrape.histograms, &own));
        }
    }
    Ok(bounds)
}

type Histograms = BTreeMap<&'static str, Buckets>;

/// All servers as one. Bounds that not all have keep the counts of those that do, which are then too low.
fn sum(scrapes: &[Scrape]) -> Histograms {
    let mut total = Histograms::new();
    for (metric, buckets) in scrapes.iter().flat_map(|scrape| &scrape.histograms) {
        let all = total.entry(metric).or_default();
        for (bound, count) in &buckets.cumulative {
            match all.cumulative.iter_mut().find(|(known, _)| known == bound) {
                Some((_, sum)) => *sum += count,
                None => all.cumulative.push((*bound, *count)),
            }
        }
        all.cumulative.sort_by(|a, b| a.0.total_cmp(&b.0));
        all.sum_s = buckets.sum_s.map(|sum_s| sum_s + all.sum_s.unwrap_or(0.0));
    }
    total
}

fn bounds_of(server: &str, histograms: &Histograms, outcomes: &[Outcome]) -> Vec<Bound> {
    let mut bounds = Vec::new();
    for (name, metric) in METRICS {
        let Some(buckets) = histograms.get(name) else { continue };
        let mut sample = Sample::default();
        for outcome in outcomes {
            // What a server shows counts from its own front end.
            let own = match metric {
                "TTFT" => outcome.engine_ttft(),
                "TPOT" => engine_tpot(outcome),
                _ => engine_e2e(outcome),
            };
            if let Some(value) = own {
                sample.add(value);
            }
        }
        let simulated = sample.quantiles();
        let mut add = |statistic, simulated_ms: Option<f64>, real: Option<(f64, f64)>| {
            if let (Some(simulated_ms), Some((low_s, high_s))) = (simulated_ms, real) {
                let (low_ms, high_ms) = (low_s * 1e3, high_s * 1e3);
                let server = server.to_string();
                bounds.push(Bound { server, metric, statistic, low_ms, high_ms, simulated_ms });
            }
        };
        let mean_s = buckets.sum_s.filter(|_| buckets.count() > 0.0).map(|sum_s| sum_s / buckets.count());
        add("mean", simulated.mean_ms, mean_s.map(|mean_s| (mean_s, mean_s)));
        add("P50", simulated.p50_ms, buckets.bounds(0.50));
        add("P90", simulated.p90_ms, buckets.bounds(0.90));
        add("P95", simulated.p95_ms, buckets.bounds(0.95));
        add("P99", simulated.p99_ms, buckets.bounds(0.99));
    }
    bounds
}

fn engine_e2e(outcome: &Outcome) -> Option<Span> {
    Some(outcome.engine.as_ref().filter(|_| outcome.finish.is_complete())?.done - outcome.arrived?)
}

fn engine_tpot(outcome: &Outcome) -> Option<Span> {
    let gaps = u64::from(outcome.output_tokens().checked_sub(1)?);
    (gaps > 0).then_some(())?;
    Some((engine_e2e(outcome)? - outcome.engine_ttft()?).scale(1, gaps))
}
