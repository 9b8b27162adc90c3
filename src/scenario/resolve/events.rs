//! Bad days, from keys to a plan.

use std::sync::Arc;

use super::{Fault, ReplicaKind, at_least_one, fault, not_negative, positive, span_ms, within_clock};
use crate::fleet::admission::{Admission, Queue};
use crate::fleet::health::Health;
use crate::fleet::incidents::{Back, Incident, What, When, Whom};
use crate::fleet::patience::{Backoff, Patience, Retries};
use crate::scenario::file::{
    AdmissionFile, BackoffFile, ClientsFile, EventFile, EventKindFile, HealthFile, QueueFile, RestartFile,
    RetriesFile, ScenarioFile, SpacingFile, WhomFile, WhomWord,
};
use crate::time::{Span, Time};

/// As Kubernetes' terminationGracePeriodSeconds.
const GRACE: Span = Span::from_s(30);
/// An hour: whatever takes longer on the way has been given up.
const LONGEST_DELAY_MS: f64 = 3_600_000.0;
/// Whoever tries more often tries for ever.
const MOST_TRIES: u32 = 100;

pub(super) fn span_s(path: &str, seconds: f64) -> Result<Span, Fault> {
    Ok(Span::from_s_f64(within_clock(path, not_negative(path, seconds)?)?))
}

pub(super) fn positive_span_s(path: &str, seconds: f64) -> Result<Span, Fault> {
    Ok(Span::from_s_f64(within_clock(path, positive(path, seconds)?)?))
}

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
    })
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
    })
}

fn queue(file: &QueueFile) -> Result<Queue, Fault> {
    Ok(Queue {
        max_requests: at_least_one("router.admission.queue.max_requests", file.max_requests)?,
        ttl: positive_span_s("router.admission.queue.ttl_s", file.ttl_s)?,
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

pub(super) fn patience(file: &ClientsFile) -> Result<Patience, Fault> {
    let limit = |key: &str, seconds: Option<f64>| {
        seconds.map(|seconds| positive_span_s(&format!("clients.timeout_s.{key}"), seconds)).transpose()
    };
    let patience = Patience {
        first_token: limit("first_token", file.timeout_s.first_token)?,
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
    if let (Some(first), Some(whole)) = (patience.first_token, patience.whole)
        && first > whole
    {
        return Err(fault(
            "clients.timeout_s.first_token",
            "is longer than the wait for the whole answer, so it never comes to it",
        ));
    }
    Ok(patience)
}

/// What befalls the fleet by `[[events]]`.
pub(super) fn incidents(file: &ScenarioFile, kinds: &[ReplicaKind]) -> Result<Arc<[Incident]>, Fault> {
    let at_start: usize = kinds.iter().map(|kind| kind.count as usize).sum();
    let replicas = file.autoscaler.as_ref().map_or(at_start, |scaled| scaled.max_replicas as usize);
    let events = file.events.iter().enumerate();
    let incidents =
        events.map(|(index, event)| incident(index, event, replicas)).collect::<Result<_, _>>()?;
    refuse_contradictions(file)?;
    refuse_surges_without_machines(file)?;
    Ok(incidents)
}

/// A factor by which steps are longer, or shorter.
pub(super) fn factor(path: &str, factor: f64) -> Result<u32, Fault> {
    if (0.01..=1_000.0).contains(&factor) {
        Ok((factor * 1e3).round() as u32)
    } else {
        Err(fault(path, format!("expected 0.01 to 1000 times as long, got {factor}")))
    }
}

fn incident(index: usize, event: &EventFile, replicas: usize) -> Result<Incident, Fault> {
    let path = |key: &str| format!("events.{index}.{key}");
    use EventKindFile::{Crash, Drain, MetricsLost, Network, RollingDeploy, SlowDown};
    let kind = event.kind;
    // Every accepted key changes something (law 11).
    let belongs = |key: &str, given: bool, to: &[EventKindFile]| match given && !to.contains(&kind) {
        false => Ok(()),
        true => Err(fault(path(key), format!("says nothing of a {}", name(kind))).help("leave it out")),
    };
    belongs("replica", event.replica.is_some(), &[Crash, SlowDown, Network, MetricsLost, Drain])?;
    belongs("restart_s", event.restart_s.is_some(), &[Crash, Drain, RollingDeploy])?;
    belongs("factor", event.factor.is_some(), &[SlowDown])?;
    belongs("delay_ms", event.delay_ms.is_some(), &[Network])?;
    belongs("for_s", event.for_s.is_some(), &[SlowDown, Network, MetricsLost])?;
    belongs("grace_s", event.grace_s.is_some(), &[Drain, RollingDeploy])?;
    belongs("at_once", event.at_once.is_some(), &[RollingDeploy])?;
    belongs("surge", event.surge.is_some(), &[RollingDeploy])?;
    let whom = || match event.replica {
        None => Err(fault(format!("events.{index}"), format!("a {} needs a replica", name(kind)))
            .help("replica = 0, replica = \"any\" or replica = \"all\"")),
        Some(WhomFile::Word(WhomWord::Any)) => Ok(Whom::Any),
        Some(WhomFile::Word(WhomWord::All)) => Ok(Whom::All),
        Some(WhomFile::Number(number)) if (number as usize) < replicas => Ok(Whom::One(number as usize)),
        Some(WhomFile::Number(number)) => {
            let there = match replicas {
                1 => "there is only replica 0".to_string(),
                _ => format!("there are 0 to {}", replicas - 1),
            };
            Err(fault(path("replica"), format!("there is no replica {number}: {there}")))
        }
    };
    let back = match event.restart_s {
        None => Back::Started,
        Some(RestartFile::Word(_)) => Back::Never,
        Some(RestartFile::Seconds(seconds)) => Back::After(span_s(&path("restart_s"), seconds)?),
    };
    let grace = event.grace_s.map(|seconds| span_s(&path("grace_s"), seconds)).transpose()?.unwrap_or(GRACE);
    let lasts = || event.for_s.map(|seconds| positive_span_s(&path("for_s"), seconds)).transpose();
    let what = match kind {
        Network => {
            let ms = event.delay_ms.ok_or_else(|| {
                fault(format!("events.{index}"), "a network event needs a delay").help("delay_ms = 50.0")
            })?;
            if !(0.0..=LONGEST_DELAY_MS).contains(&ms) {
                let message = format!("expected 0 to {LONGEST_DELAY_MS} ms, got {ms}");
                return Err(fault(path("delay_ms"), message));
            }
            What::Network { whom: whom()?, delay: span_ms(&path("delay_ms"), ms)?, lasts: lasts()? }
        }
        MetricsLost => What::MetricsLost { whom: whom()?, lasts: lasts()? },
        Crash => What::Crash { whom: whom()?, back },
        SlowDown => {
            let times = event.factor.ok_or_else(|| {
                fault(format!("events.{index}"), "a slow-down needs a factor").help("factor = 2.0")
            })?;
            What::SlowDown { whom: whom()?, per_mille: factor(&path("factor"), times)?, lasts: lasts()? }
        }
        Drain => What::Drain { whom: whom()?, grace, back },
        RollingDeploy => {
            let at_once = event.at_once.unwrap_or(1);
            if !(1..=replicas).contains(&(at_once as usize)) {
                let message = format!("expected 1 to {replicas} replicas at a time, got {at_once}");
                return Err(fault(path("at_once"), message));
            }
            What::RollingDeploy { at_once, surge: event.surge.unwrap_or(0), grace, back }
        }
    };
    Ok(Incident { when: when(index, event)?, what })
}

fn when(index: usize, event: &EventFile) -> Result<When, Fault> {
    let path = |key: &str| format!("events.{index}.{key}");
    let at = |key: &str, seconds: f64| span_s(&path(key), seconds).map(|span| Time::ZERO + span);
    match (event.at_s, event.every_s) {
        (Some(seconds), None) => {
            let of_every = [
                ("spacing", event.spacing.is_some()),
                ("from_s", event.from_s.is_some()),
                ("until_s", event.until_s.is_some()),
            ];
            if let Some((key, _)) = of_every.into_iter().find(|(_, given)| *given) {
                return Err(
                    fault(path(key), "belongs to every_s, and this happens once").help("leave it out")
                );
            }
            Ok(When::At(at("at_s", seconds)?))
        }
        (None, Some(seconds)) => {
            let from = event.from_s.map_or(Ok(Time::ZERO), |seconds| at("from_s", seconds))?;
            let until = event.until_s.map_or(Ok(Time::MAX), |seconds| at("until_s", seconds))?;
            if until <= from {
                return Err(fault(path("until_s"), "is not behind from_s, so nothing ever happens"));
            }
            let mean = positive_span_s(&path("every_s"), seconds)?;
            if mean < Span::from_ms(1) {
                return Err(fault(path("every_s"), format!("expected at least 0.001 s, got {seconds}")));
            }
            Ok(When::Every { mean, even: event.spacing == Some(SpacingFile::Even), from, until })
        }
        (None, None) => Err(fault(format!("events.{index}"), "does not say when it happens")
            .help("at_s = 60.0, or every_s = 600.0")),
        (Some(_), Some(_)) => Err(fault(path("every_s"), "an event happens at_s once, or every_s again")
            .help("leave one of the two out")),
    }
}

/// A surge needs machines: some, and of one kind.
fn refuse_surges_without_machines(file: &ScenarioFile) -> Result<(), Fault> {
    for (index, event) in file.events.iter().enumerate() {
        let Some(surge) = event.surge else { continue };
        let refuse =
            |message: String, help: &str| Err(fault(format!("events.{index}.surge"), message).help(help));
        if !(1..=1_000).contains(&surge) {
            return refuse(
                format!("expected 1 to 1000 new replicas at a time, got {surge}"),
                "leave it out for none",
            );
        }
        if event.at_once.is_some() {
            return refuse(
                "new replicas come first, so none goes before, and at_once says that some do".into(),
                "leave one of the two out",
            );
        }
        if file.replicas.len() > 1 {
            return refuse(
                "is of replicas that are alike, and there are several kinds".into(),
                "leave one [[replicas]] table, or use at_once",
            );
        }
        if file.autoscaler.is_some() {
            return refuse("and an autoscaler would both order replicas".into(), "leave one of the two out");
        }
        if matches!(event.restart_s, Some(RestartFile::Word(_))) {
            return refuse("needs new replicas that are ready some time".into(), "give restart_s in seconds");
        }
    }
    Ok(())
}

/// Two troubles of one kind on one replica at a time, and what is planned for a replica that never comes back.
fn refuse_contradictions(file: &ScenarioFile) -> Result<(), Fault> {
    let of_one = |event: &EventFile| match (event.replica, event.at_s) {
        (Some(WhomFile::Number(number)), Some(at_s)) => Some((number, at_s)),
        _ => None,
    };
    for (index, event) in file.events.iter().enumerate() {
        let Some((number, at_s)) = of_one(event) else { continue };
        for (other_index, other) in file.events.iter().enumerate() {
            let Some((other_number, other_at_s)) = of_one(other) else { continue };
            if other_index == index || other_number != number || other_at_s < at_s {
                continue;
            }
            let goes_for_ever = matches!(event.restart_s, Some(RestartFile::Word(_)));
            if goes_for_ever && other_at_s > at_s {
                return Err(fault(
                    format!("events.{other_index}.at_s"),
                    format!("replica {number} is gone for ever since {at_s} s (event {index})"),
                )
                .help("let it restart, or let this happen sooner"));
            }
            let passes = [EventKindFile::SlowDown, EventKindFile::Network, EventKindFile::MetricsLost];
            let until = event.for_s.map(|lasts_s| at_s + lasts_s);
            let both_slow = event.kind == other.kind && passes.contains(&event.kind);
            if both_slow
                && until.is_none_or(|until| other_at_s < until)
                && (other_at_s > at_s || other_index > index)
            {
                return Err(fault(
                    format!("events.{other_index}.at_s"),
                    format!(
                        "the {} of event {index} on replica {number} lasts {}",
                        name(event.kind),
                        until.map_or("for ever".into(), |until| format!("until {until} s"))
                    ),
                )
                .help("end the first with for_s, or let this begin later"));
            }
        }
    }
    Ok(())
}

fn name(kind: EventKindFile) -> &'static str {
    match kind {
        EventKindFile::Crash => "crash",
        EventKindFile::SlowDown => "slow-down",
        EventKindFile::Network => "network",
        EventKindFile::MetricsLost => "metrics-lost",
        EventKindFile::Drain => "drain",
        EventKindFile::RollingDeploy => "rolling-deploy",
    }
}
