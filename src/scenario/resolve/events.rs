//! What befalls a fleet, from `[[events]]` to a plan.

use std::sync::Arc;

use super::{Fault, ReplicaKind, fault, not_negative, positive, span_ms, within_clock};
use crate::fleet::incidents::{Back, Incident, What, When, Whom};
use crate::scenario::file::{
    EventFile, EventKindFile, RestartFile, ScenarioFile, SpacingFile, WhichGatewayFile, WhomFile, WhomWord,
};
use crate::time::{Span, Time};

/// As Kubernetes' terminationGracePeriodSeconds.
const GRACE: Span = Span::from_s(30);
/// An hour: whatever takes longer on the way has been given up.
const LONGEST_DELAY_MS: f64 = 3_600_000.0;
/// As AWS announces that it takes a spot instance back; others give 30 s.
const SPOT_NOTICE: Span = Span::from_s(120);
/// Until clients know that a gateway is gone: its endpoint is taken off as soon as its container has died.
const GATEWAY_NOTICED: Span = Span::from_s(1);

pub(super) fn span_s(path: &str, seconds: f64) -> Result<Span, Fault> {
    Ok(Span::from_s_f64(within_clock(path, not_negative(path, seconds)?)?))
}

pub(super) fn positive_span_s(path: &str, seconds: f64) -> Result<Span, Fault> {
    Ok(Span::from_s_f64(within_clock(path, positive(path, seconds)?)?))
}

/// What befalls the fleet by `[[events]]`.
pub(super) fn incidents(file: &ScenarioFile, kinds: &[ReplicaKind]) -> Result<Arc<[Incident]>, Fault> {
    let at_start: usize = kinds.iter().map(|kind| kind.count as usize).sum();
    let more = file.autoscaler.as_ref().map_or(0, |scaled| {
        let kind = &kinds[scaled.replicas_table.unwrap_or(0) as usize];
        scaled.max_replicas.saturating_sub(kind.count) as usize
    });
    let replicas = at_start + more;
    let events = file.events.iter().enumerate();
    let gateways = file.router.replicas;
    let incidents =
        events.map(|(index, event)| incident(index, event, replicas, gateways)).collect::<Result<_, _>>()?;
    refuse_what_befalls_the_gone(file, "replica", replica_of)?;
    refuse_what_befalls_the_gone(file, "gateway", gateway_of)?;
    refuse_contradictions(file)?;
    refuse_lost_counters_that_are_shared(file)?;
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

fn incident(index: usize, event: &EventFile, replicas: usize, gateways: u32) -> Result<Incident, Fault> {
    let path = |key: &str| format!("events.{index}.{key}");
    use EventKindFile::{
        CountersLost, Crash, Drain, GatewayLost, MetricsLost, Network, Partition, RollingDeploy, SlowDown,
        SpotLoss,
    };
    let kind = event.kind;
    // Every accepted key changes something (law 11).
    let belongs = |key: &str, given: bool, to: &[EventKindFile]| match given && !to.contains(&kind) {
        false => Ok(()),
        true => Err(fault(path(key), format!("says nothing of a {}", name(kind))).help("leave it out")),
    };
    let of_replicas = [Crash, SlowDown, Network, MetricsLost, Drain, SpotLoss, Partition];
    belongs("replica", event.replica.is_some(), &of_replicas)?;
    belongs("restart_s", event.restart_s.is_some(), &[Crash, Drain, RollingDeploy, SpotLoss, GatewayLost])?;
    belongs("loss", event.loss.is_some(), &[Network])?;
    belongs("notice_s", event.notice_s.is_some(), &[SpotLoss])?;
    belongs("gateway", event.gateway.is_some(), &[Partition, GatewayLost, CountersLost])?;
    belongs("noticed_after_s", event.noticed_after_s.is_some(), &[GatewayLost])?;
    belongs("factor", event.factor.is_some(), &[SlowDown])?;
    belongs("delay_ms", event.delay_ms.is_some(), &[Network])?;
    belongs("for_s", event.for_s.is_some(), &[SlowDown, Network, MetricsLost, Partition])?;
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
            if event.delay_ms.is_none() && event.loss.is_none() {
                return Err(fault(format!("events.{index}"), "a network event needs a delay or a loss")
                    .help("delay_ms = 50.0, or loss = 0.01"));
            }
            let loss = event.loss.unwrap_or(0.0);
            if !(0.0..=0.9).contains(&loss) {
                return Err(fault(path("loss"), format!("expected a share of 0 to 0.9, got {loss}"))
                    .help("where nothing passes, that is a partition"));
            }
            let ms = event.delay_ms.unwrap_or(0.0);
            if !(0.0..=LONGEST_DELAY_MS).contains(&ms) {
                let message = format!("expected 0 to {LONGEST_DELAY_MS} ms, got {ms}");
                return Err(fault(path("delay_ms"), message));
            }
            let delay = span_ms(&path("delay_ms"), ms)?;
            if loss == 0.0 && delay == Span::ZERO {
                return Err(fault(
                    format!("events.{index}"),
                    "changes nothing: no delay, and nothing is lost",
                )
                .help("delay_ms = 50.0, or loss = 0.01"));
            }
            What::Network { whom: whom()?, delay, loss, lasts: lasts()? }
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
        SpotLoss => {
            let notice = event.notice_s.map(|seconds| span_s(&path("notice_s"), seconds)).transpose()?;
            What::SpotLoss { whom: whom()?, notice: notice.unwrap_or(SPOT_NOTICE), back }
        }
        Partition => {
            let lasts = lasts()?.ok_or_else(|| {
                fault(format!("events.{index}"), "a partition needs an end").help("for_s = 30.0")
            })?;
            let gateway = match event.gateway {
                Some(WhichGatewayFile::Word(_)) => {
                    return Err(fault(path("gateway"), "a partition is of one gateway, or of all")
                        .help("give a number, or leave it out for all"));
                }
                Some(WhichGatewayFile::Number(number)) => Some(gateway(&path("gateway"), number, gateways)?),
                None => None,
            };
            What::Partition { whom: whom()?, gateway, lasts }
        }
        GatewayLost | CountersLost => {
            let gateway = match event.gateway {
                Some(WhichGatewayFile::Word(_)) => None,
                Some(WhichGatewayFile::Number(number)) => Some(gateway(&path("gateway"), number, gateways)?),
                None => {
                    return Err(fault(
                        format!("events.{index}"),
                        format!("a {} needs a gateway", name(kind)),
                    )
                    .help("gateway = 0, or gateway = \"any\""));
                }
            };
            if kind == CountersLost {
                return Ok(Incident { when: when(index, event)?, what: What::CountersLost { gateway } });
            }
            let noticed =
                event.noticed_after_s.map(|seconds| span_s(&path("noticed_after_s"), seconds)).transpose()?;
            What::GatewayLost { gateway, noticed: noticed.unwrap_or(GATEWAY_NOTICED), back }
        }
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

fn gateway(path: &str, number: u32, gateways: u32) -> Result<usize, Fault> {
    if number < gateways {
        return Ok(number as usize);
    }
    let there = match gateways {
        1 => "there is only gateway 0".to_string(),
        _ => format!("there are 0 to {}", gateways - 1),
    };
    Err(fault(path, format!("there is no gateway {number}: {there}")).help("router.replicas says how many"))
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

/// Who never comes back, replica or gateway, is not there for what is planned later.
fn refuse_what_befalls_the_gone(
    file: &ScenarioFile,
    who: &str,
    number_of: impl Fn(&EventFile) -> Option<u32>,
) -> Result<(), Fault> {
    let of_one = |event: &EventFile| number_of(event).zip(event.at_s);
    for (index, event) in file.events.iter().enumerate() {
        let goes_for_ever = matches!(event.restart_s, Some(RestartFile::Word(_)));
        let Some((number, at_s)) = of_one(event).filter(|_| goes_for_ever) else { continue };
        let is_later =
            |event: &EventFile| of_one(event).is_some_and(|(own, own_at_s)| own == number && own_at_s > at_s);
        if let Some(later) = file.events.iter().position(is_later) {
            return Err(fault(
                format!("events.{later}.at_s"),
                format!("{who} {number} is gone for ever since {at_s} s (event {index})"),
            )
            .help("let it restart, or let this happen sooner"));
        }
    }
    Ok(())
}

fn replica_of(event: &EventFile) -> Option<u32> {
    match event.replica? {
        WhomFile::Number(number) => Some(number),
        WhomFile::Word(_) => None,
    }
}

fn gateway_of(event: &EventFile) -> Option<u32> {
    match event.gateway? {
        WhichGatewayFile::Number(number) => Some(number),
        WhichGatewayFile::Word(_) => None,
    }
}

/// What lies in a store of all gateways is lost by none of them.
fn refuse_lost_counters_that_are_shared(file: &ScenarioFile) -> Result<(), Fault> {
    let is_lost = |event: &EventFile| event.kind == EventKindFile::CountersLost;
    match (file.events.iter().position(is_lost), file.router.view.shared) {
        (Some(index), Some(true)) => Err(fault(
            format!("events.{index}.kind"),
            "counters that gateways share are not lost by one of them",
        )
        .help("leave router.view.shared out, or this event")),
        _ => Ok(()),
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

/// Two troubles of one kind on one replica at a time.
fn refuse_contradictions(file: &ScenarioFile) -> Result<(), Fault> {
    let of_one = |event: &EventFile| replica_of(event).zip(event.at_s);
    for (index, event) in file.events.iter().enumerate() {
        let Some((number, at_s)) = of_one(event) else { continue };
        for (other_index, other) in file.events.iter().enumerate() {
            let Some((other_number, other_at_s)) = of_one(other) else { continue };
            if other_index == index || other_number != number || other_at_s < at_s {
                continue;
            }
            let passes = [
                EventKindFile::SlowDown,
                EventKindFile::Network,
                EventKindFile::MetricsLost,
                EventKindFile::Partition,
            ];
            let until = event.for_s.map(|lasts_s| at_s + lasts_s);
            // Cut off from two gateways at a time is no contradiction.
            let elsewhere = event.gateway.zip(other.gateway).is_some_and(|(own, other)| own != other);
            let both_slow = event.kind == other.kind && passes.contains(&event.kind) && !elsewhere;
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
        EventKindFile::SpotLoss => "spot-loss",
        EventKindFile::Partition => "partition",
        EventKindFile::GatewayLost => "gateway-lost",
        EventKindFile::CountersLost => "counters-lost",
    }
}
