//! The autoscaler: its limits, and its parameters checked by making one.

use super::events::{positive_span_s, span_s};
use super::router::parameter_fault;
use super::{AutoscalerPlan, Fault, MOST_REPLICAS, fault};
use crate::autoscaler::{self, AUTOSCALERS, AutoscalerError};
use crate::fleet::scaling::Scale;
use crate::scenario::error::nearest_or_all;
use crate::scenario::file::ScenarioFile;
use crate::time::Span;

/// Whoever decides more often than this decides on noise.
const SHORTEST_INTERVAL: Span = Span::from_s(1);
/// A machine that takes longer than a day to come is none.
const LONGEST_NODE_START_UP_S: f64 = 86_400.0;

pub(super) fn autoscaler(
    file: &ScenarioFile,
    marks: &mut Vec<String>,
) -> Result<Option<AutoscalerPlan>, Fault> {
    let Some(written) = &file.autoscaler else { return Ok(None) };
    let info = autoscaler::find(&written.policy).map_err(|error| {
        let known: Vec<&str> = AUTOSCALERS.iter().map(|info| info.name).collect();
        fault("autoscaler.policy", error.to_string()).help(format!(
            "{} (`tailcast list autoscalers` shows all)",
            nearest_or_all(&written.policy, &known)
        ))
    })?;
    if let Err(error) = (info.build)(&written.parameters) {
        return Err(match error {
            AutoscalerError::Range { key, message } => fault(format!("autoscaler.parameters.{key}"), message),
            error => parameter_fault("autoscaler.parameters", &error.to_string()),
        });
    }
    let table = match (file.replicas.len(), written.replicas_table) {
        (1, None) => 0,
        (1, Some(_)) => {
            return Err(fault(
                "autoscaler.replicas_table",
                "says nothing, since there is one [[replicas]] table",
            )
            .help("leave it out"));
        }
        (tables, Some(table)) if (table as usize) < tables => table as usize,
        (tables, Some(table)) => {
            return Err(fault(
                "autoscaler.replicas_table",
                format!("there is no [[replicas]] table {table}: there are 0 to {}", tables - 1),
            ));
        }
        (_, None) => {
            return Err(fault("autoscaler", "scales replicas that are alike, and there are several kinds")
                .help("say which: replicas_table = 0"));
        }
    };
    let kind = &file.replicas[table];
    let (least, most) = (written.min_replicas, written.max_replicas);
    if !(1..=MOST_REPLICAS).contains(&most) {
        let message = format!("expected 1 to {MOST_REPLICAS} replicas, got {most}");
        return Err(fault("autoscaler.max_replicas", message));
    }
    if least > most {
        return Err(fault("autoscaler.min_replicas", format!("is more than max_replicas = {most}")));
    }
    if least == 0 && info.name == "hpa" {
        return Err(fault(
            "autoscaler.min_replicas",
            "an HPA never leaves 0, since nobody is there to measure",
        )
        .help("min_replicas = 1, or policy = \"keda\""));
    }
    let metric = written.parameters.get("metric").and_then(toml::Value::as_str).unwrap_or_default();
    if least == 0 && ["num_requests_running", "kv_cache_usage_perc"].contains(&metric) {
        return Err(fault(
            "autoscaler.parameters.metric",
            format!("of nobody {metric} is always 0, so nothing would wake the fleet from 0"),
        )
        .help("metric = \"num_requests\" or \"num_requests_waiting\", which count the gateways' queues, or min_replicas = 1"));
    }
    if least == 0 && file.router.admission.queue.is_none() {
        marks.push(
            "min_replicas = 0 without router.admission.queue: whoever comes while nobody is up is answered 503".into(),
        );
    }
    if !(least..=most).contains(&kind.count) {
        return Err(fault(
            format!("replicas.{table}.count"),
            format!(
                "{} replicas at the start are not within min_replicas = {least} and max_replicas = {most}",
                kind.count
            ),
        ));
    }
    let at_least_the_shortest = |key: &str, seconds: f64| {
        let path = format!("autoscaler.{key}");
        let span = positive_span_s(&path, seconds)?;
        match span >= SHORTEST_INTERVAL {
            true => Ok(span),
            false => Err(fault(path, format!("expected at least 1 s, got {seconds:?}"))),
        }
    };
    let interval = written.interval_s.map(|seconds| at_least_the_shortest("interval_s", seconds));
    Ok(Some(AutoscalerPlan {
        policy: info.name,
        table,
        parameters: written.parameters.clone(),
        scale: Scale {
            initial: kind.count,
            least,
            most,
            interval: interval.transpose()?.unwrap_or(info.default_interval),
            scrape_interval: at_least_the_shortest("scrape_interval_s", written.scrape_interval_s)?,
            node_start_up: node_start_up(written.node_start_up_s)?,
            grace: span_s("autoscaler.grace_s", written.grace_s)?,
        },
    }))
}

fn node_start_up(seconds: f64) -> Result<Span, Fault> {
    let path = "autoscaler.node_start_up_s";
    let span = span_s(path, seconds)?;
    match seconds <= LONGEST_NODE_START_UP_S {
        true => Ok(span),
        false => Err(fault(path, format!("expected at most {LONGEST_NODE_START_UP_S} s, got {seconds:?}"))),
    }
}
