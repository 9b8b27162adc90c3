//! What gateways and clients do about bad days, from keys to limits.

use super::events::{positive_span_s, span_s};
use super::{Fault, at_least_one, fault, not_negative, positive, span_ms};
use crate::fleet::admission::{Admission, Queue};
use crate::fleet::health::Health;
use crate::fleet::hedging::Hedging;
use crate::fleet::patience::{Backoff, Patience, Retries};
use crate::fleet::saturation::Saturation;
use crate::scenario::file::{
    AdmissionFile, BackoffFile, ClientsFile, FairnessFile, HealthFile, HedgingFile, QueueFile, RetriesFile,
    SaturationFile, SheddingFile,
};
use crate::time::Span;

/// Whoever tries more often tries for ever.
const MOST_TRIES: u32 = 100;

fn share(path: &str, value: f64) -> Result<f64, Fault> {
    if (0.0..=1.0).contains(&value) {
        Ok(value)
    } else {
        Err(fault(path, format!("expected a share, 0 to 1, got {value}")))
    }
}

pub(super) fn health(file: &HealthFile) -> Result<Health, Fault> {
    for (key, checks) in [("unhealthy_after", file.unhealthy_after), ("healthy_after", file.healthy_after)] {
        if !(1..=1_000).contains(&checks) {
            return Err(fault(
                format!("router.health.{key}"),
                format!("expected 1 to 1000 checks, got {checks}"),
            ));
        }
    }
    let given = HealthFile::default();
    let of_ejection = [
        ("ejection_s", file.ejection_s != given.ejection_s),
        ("most_ejected", file.most_ejected != given.most_ejected),
    ];
    if let (0, Some((key, _))) = (file.eject_after, of_ejection.into_iter().find(|(_, said)| *said)) {
        return Err(fault(format!("router.health.{key}"), "says nothing, since nobody is ejected")
            .help("set router.health.eject_after, or leave it out"));
    }
    Ok(Health {
        interval: positive_span_s("router.health.interval_s", file.interval_s)?,
        unhealthy_after: file.unhealthy_after,
        healthy_after: file.healthy_after,
        watch_delay: span_s("router.health.watch_delay_s", file.watch_delay_s)?,
        eject_after: file.eject_after,
        ejection: positive_span_s("router.health.ejection_s", file.ejection_s)?,
        most_ejected: share("router.health.most_ejected", file.most_ejected)?,
        panic_below: share("router.health.panic_below", file.panic_below)?,
        slow_start: span_s("router.health.slow_start_s", file.slow_start_s)?,
        slow_start_aggression: aggression(file)?,
        connect_timeout: positive_span_s("router.health.connect_timeout_s", file.connect_timeout_s)?,
    })
}

fn aggression(file: &HealthFile) -> Result<f64, Fault> {
    let path = "router.health.slow_start_aggression";
    let aggression = file.slow_start_aggression;
    if file.slow_start_s == 0.0 && aggression != HealthFile::default().slow_start_aggression {
        return Err(fault(path, "says nothing, since nobody starts slowly")
            .help("set router.health.slow_start_s, or leave it out"));
    }
    match (0.1..=10.0).contains(&aggression) {
        true => Ok(aggression),
        false => Err(fault(path, format!("expected 0.1 to 10, got {aggression}"))),
    }
}

pub(super) fn admission(file: &AdmissionFile) -> Result<Admission, Fault> {
    let path = |key: &str| format!("router.admission.{key}");
    let rate_per_s = file.rate_per_s.map(|rate| positive(&path("rate_per_s"), rate)).transpose()?;
    let burst = match (file.burst, rate_per_s) {
        (Some(burst), Some(_)) if (1.0..=1e9).contains(&burst) => burst,
        (Some(burst), Some(_)) => {
            return Err(fault(path("burst"), format!("expected 1 to 1e9 requests, got {burst}")));
        }
        (Some(_), None) => {
            return Err(fault(path("burst"), "is that of a bucket, and there is none").help("set rate_per_s"));
        }
        (None, rate) => rate.unwrap_or(1.0).max(1.0),
    };
    let limit = |key: &str, most: Option<u32>| most.map(|most| at_least_one(&path(key), most)).transpose();
    Ok(Admission {
        rate_per_s,
        burst,
        most_per_replica: limit("most_per_replica", file.most_per_replica)?,
        most_in_flight: limit("most_in_flight", file.most_in_flight)?,
        queue: file.queue.as_ref().map(queue).transpose()?,
        saturation: file.saturation.as_ref().map(saturation).transpose()?,
    })
}

fn saturation(file: &SaturationFile) -> Result<Saturation, Fault> {
    let path = |key: &str| format!("router.admission.saturation.{key}");
    Ok(Saturation {
        queue_depth: positive(&path("queue_depth"), file.queue_depth)?,
        kv_cache_usage: positive(
            &path("kv_cache_usage"),
            share(&path("kv_cache_usage"), file.kv_cache_usage)?,
        )?,
        staleness: span_ms(&path("staleness_ms"), positive(&path("staleness_ms"), file.staleness_ms)?)?,
        probabilistic: file.shedding == SheddingFile::Probabilistic,
    })
}

fn queue(file: &QueueFile) -> Result<Queue, Fault> {
    Ok(Queue {
        max_requests: at_least_one("router.admission.queue.max_requests", file.max_requests)?,
        ttl: positive_span_s("router.admission.queue.ttl_s", file.ttl_s)?,
        classes_take_turns: file.fairness == FairnessFile::RoundRobin,
    })
}

fn backoff(path: &str, file: &BackoffFile) -> Result<Backoff, Fault> {
    if !(1.0..=100.0).contains(&file.factor) {
        return Err(fault(format!("{path}.factor"), format!("expected 1 to 100, got {}", file.factor)));
    }
    let given = BackoffFile::default();
    let of_pauses = [
        ("factor", file.factor != given.factor),
        ("longest_ms", file.longest_ms != given.longest_ms),
        ("jitter", file.jitter != given.jitter),
    ];
    if let (true, Some((key, _))) = (file.first_ms == 0.0, of_pauses.into_iter().find(|(_, said)| *said)) {
        return Err(fault(format!("{path}.{key}"), "says nothing, since there is no first pause")
            .help(format!("set {path}.first_ms, or leave it out")));
    }
    Ok(Backoff {
        first: span_ms(&format!("{path}.first_ms"), file.first_ms)?,
        factor: file.factor,
        longest: span_ms(&format!("{path}.longest_ms"), file.longest_ms)?,
        jitter: share(&format!("{path}.jitter"), file.jitter)?,
    })
}

fn tries(path: &str, tries: u32) -> Result<u32, Fault> {
    if tries <= MOST_TRIES {
        return Ok(tries);
    }
    Err(fault(path, format!("expected at most {MOST_TRIES} tries, got {tries}"))
        .help("a client that never gives up never ends; say how often it tries"))
}

pub(super) fn retries(file: &RetriesFile) -> Result<Retries, Fault> {
    Ok(Retries {
        attempts: tries("router.retries.attempts", file.attempts)?,
        backoff: backoff("router.retries.backoff", &file.backoff)?,
    })
}

pub(super) fn hedging(file: &HedgingFile) -> Result<Hedging, Fault> {
    let path = |key: &str| format!("router.hedging.{key}");
    Ok(Hedging {
        after: span_ms(&path("after_ms"), positive(&path("after_ms"), file.after_ms)?)?,
        budget: file.budget.map(|budget| share(&path("budget"), budget)).transpose()?,
    })
}

pub(super) fn patience(file: &ClientsFile) -> Result<Patience, Fault> {
    let limit = |key: &str, seconds: Option<f64>| {
        seconds.map(|seconds| positive_span_s(&format!("clients.timeout_s.{key}"), seconds)).transpose()
    };
    let patience = Patience {
        first_token: limit("first_token", file.timeout_s.first_token)?,
        between_tokens: limit("between_tokens", file.timeout_s.between_tokens)?,
        whole: limit("whole", file.timeout_s.whole)?,
        retries: tries("clients.retries", file.retries)?,
        backoff: backoff("clients.backoff", &file.backoff)?,
        budget: file.retry_budget.map(|budget| not_negative("clients.retry_budget", budget)).transpose()?,
    };
    let unused = |key: &str| {
        fault(format!("clients.{key}"), "says nothing, since clients do not try again")
            .help("set clients.retries, or leave it out")
    };
    if patience.retries == 0 && patience.budget.is_some() {
        return Err(unused("retry_budget"));
    }
    if patience.retries == 0 && file.backoff != BackoffFile::default() {
        return Err(unused("backoff"));
    }
    let parts = [("first_token", patience.first_token), ("between_tokens", patience.between_tokens)];
    let too_long = |limit: Option<Span>| limit.zip(patience.whole).is_some_and(|(part, whole)| part > whole);
    if let Some((key, _)) = parts.into_iter().find(|(_, limit)| too_long(*limit)) {
        return Err(fault(
            format!("clients.timeout_s.{key}"),
            "is longer than the wait for the whole answer, so it never comes to it",
        ));
    }
    Ok(patience)
}
