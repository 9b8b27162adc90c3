//! The router: a policy by name, its parameters, and how old what it sees is.

use super::{Fault, RouterPlan, at_least_one, fault, positive, span_ms};
use crate::random::Seed;
use crate::router::{Freshness, POLICIES, PolicyError, policies};
use crate::scenario::error::nearest_or_all;
use crate::scenario::file::ScenarioFile;
use crate::time::Span;

pub(super) fn router(file: &ScenarioFile, marks: &mut Vec<String>) -> Result<RouterPlan, Fault> {
    let router = &file.router;
    let unknown = |path: &str, name: &str| {
        let known: Vec<&str> = POLICIES.iter().map(|policy| policy.name).collect();
        fault(path, format!("unknown policy `{name}`"))
            .help(format!("{} (`tailcast list policies` shows all)", nearest_or_all(name, &known)))
    };
    for (index, policy) in file.policies.iter().enumerate() {
        policies::find(policy).map_err(|_| unknown(&format!("policies.{index}"), policy))?;
    }
    let info = policies::find(&router.policy).map_err(|_| unknown("router.policy", &router.policy))?;
    let built =
        policies::build(&router.policy, &router.parameters, Seed(0), 0).map_err(|error| match error {
            PolicyError::Unknown { name } => unknown("router.policy", &name),
            PolicyError::Parameters { reason, .. } => fault("router.parameters", reason),
        })?;
    if built.sight().kv_events {
        marks.push(format!(
            "{} sees KV events the moment they happen; real ones take milliseconds",
            router.policy
        ));
    }
    if built.sight().clairvoyant {
        marks.push(format!(
            "{} knows true output lengths and all state: a bound, and no policy",
            router.policy
        ));
    }
    at_least_one("router.replicas", router.replicas)?;
    let freshness = match (router.view.fresh, router.view.poll_interval_ms) {
        (Some(true), None) => {
            marks.push("routers see fresh gauges, which no product does".into());
            Freshness::Fresh
        }
        (Some(true), Some(_)) => {
            return Err(
                fault("router.view", "fresh gauges are not polled").help("leave out one of the two keys")
            );
        }
        (_, Some(ms)) => {
            let path = "router.view.poll_interval_ms";
            let interval = span_ms(path, positive(path, ms)?)?;
            if interval < Span::from_ms(1) {
                return Err(fault(
                    "router.view.poll_interval_ms",
                    format!("expected at least 1 ms, got {ms}"),
                ));
            }
            Freshness::Polled { interval }
        }
        // What is never read is never polled, whatever its age.
        (_, None) => info.default_freshness.unwrap_or(Freshness::Fresh),
    };
    Ok(RouterPlan {
        policy: router.policy.clone(),
        parameters: router.parameters.clone(),
        gateways: router.replicas,
        freshness,
        decision_gap: span_ms("router.decision_gap_ms", router.decision_gap_ms)?,
    })
}
