//! The router: a policy by name, its parameters, and how old what it sees is.

use std::io::Read;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

use super::events::positive_span_s;
use super::{Fault, RouterPlan, at_least_one, fault, positive, span_ms};
use crate::random::Seed;
use crate::router::epp::POD_CACHE_SIZE;
use crate::router::kv_index::IndexLimits;
use crate::router::{Freshness, Impairments, POLICIES, PolicyError, Sight, policies};
use crate::scenario::error::{in_words, nearest_or_all};
use crate::scenario::file::{RouterFile, ScenarioFile};
use crate::time::Span;

/// The tables that may name a script (a policy's own, and those of its scorers), each with its path.
fn script_tables(
    parameters: &mut toml::Table,
    mut visit: impl FnMut(&str, &mut toml::Table) -> Result<(), Fault>,
) -> Result<(), Fault> {
    visit("router.parameters", parameters)?;
    if let Some(toml::Value::Array(scorers)) = parameters.get_mut("scorers") {
        for (index, scorer) in scorers.iter_mut().enumerate() {
            if let toml::Value::Table(scorer) = scorer {
                visit(&format!("router.parameters.scorers.{index}"), scorer)?;
            }
        }
    }
    Ok(())
}

/// Puts the text of scripts in the place of the names of their files, so that a scenario can be moved.
pub(in crate::scenario) fn embed_scripts(parameters: &mut toml::Table, folder: &Path) -> Result<(), Fault> {
    inline_scripts(parameters, folder)?;
    script_tables(parameters, |_, table| {
        if table.contains_key("source") {
            table.remove("file");
        }
        Ok(())
    })
}

/// Files of scripts that these parameters name.
pub(in crate::scenario) fn script_files(parameters: &mut toml::Table) -> Vec<PathBuf> {
    let mut files = Vec::new();
    let named = script_tables(parameters, |_, table| {
        files.extend(table.get("file").and_then(toml::Value::as_str).map(PathBuf::from));
        Ok(())
    });
    debug_assert!(named.is_ok(), "naming a file is no fault");
    files
}

/// Puts the text of scripts beside the names of their files, so that a plan holds all it needs.
fn inline_scripts(parameters: &mut toml::Table, folder: &Path) -> Result<(), Fault> {
    script_tables(parameters, |path, table| inline_script(&format!("{path}.file"), table, folder))
}

/// Each has a view of every replica.
const MOST_GATEWAYS: u32 = 1_000;

/// Bytes of a script: more is no script.
const LONGEST_SCRIPT: u64 = 1_000_000;

fn inline_script(path: &str, parameters: &mut toml::Table, folder: &Path) -> Result<(), Fault> {
    let Some(toml::Value::String(file)) = parameters.get("file") else { return Ok(()) };
    if parameters.contains_key("source") {
        return Err(
            fault(path, "a script is either a file or a source").help("leave out one of the two keys")
        );
    }
    let refuse = |error: String| {
        fault(path, format!("{file}: {error}")).help("name a script relative to this scenario")
    };
    let mut source = String::new();
    let opened = std::fs::File::open(folder.join(file)).map_err(|error| refuse(error.to_string()))?;
    opened.take(LONGEST_SCRIPT + 1).read_to_string(&mut source).map_err(|error| refuse(error.to_string()))?;
    if source.len() as u64 > LONGEST_SCRIPT {
        return Err(refuse(format!("is longer than the {LONGEST_SCRIPT} bytes that a script may have")));
    }
    if source.trim().is_empty() {
        return Err(refuse("is empty".into()));
    }
    parameters.insert("source".into(), toml::Value::String(source));
    Ok(())
}

pub(super) fn router(
    file: &ScenarioFile,
    folder: &Path,
    marks: &mut Vec<String>,
) -> Result<RouterPlan, Fault> {
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
    let mut parameters = router.parameters.clone();
    inline_scripts(&mut parameters, folder)?;
    let built = policies::build(&router.policy, &parameters, Seed(0), 0).map_err(|error| match error {
        PolicyError::Unknown { name } => unknown("router.policy", &name),
        PolicyError::Parameters { reason, .. } => {
            let fault = parameter_fault("router.parameters", &reason);
            Fault { message: format!("{} ({})", fault.message, router.policy), ..fault }
        }
    })?;
    let sight = built.sight();
    if sight.clairvoyant {
        marks.push(format!(
            "{} knows true output lengths and all state: a bound, and no policy",
            router.policy
        ));
    }
    at_least_one("router.replicas", router.replicas)?;
    if router.replicas > MOST_GATEWAYS {
        let message = format!("expected 1 to {MOST_GATEWAYS} gateways, got {}", router.replicas);
        return Err(fault("router.replicas", message));
    }
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
        // What is never read is never polled, whatever its age; a detector of saturation reads as llm-d's does.
        (_, None) => info.default_freshness.unwrap_or(match router.admission.saturation {
            Some(_) => Freshness::Polled { interval: Span::from_ms(50) },
            None => Freshness::Fresh,
        }),
    };
    let characters_per_token = router.view.characters_per_token;
    if let Some(characters) = characters_per_token
        && !(0.5..=16.0).contains(&characters)
    {
        return Err(fault(
            "router.view.characters_per_token",
            format!("expected 0.5 to 16 characters, got {characters}"),
        ));
    }
    let impairments = impairments(router, freshness, sight, marks)?;
    let replicas: u64 = file.replicas.iter().map(|kind| u64::from(kind.count)).sum();
    let known = impairments.kv_index.replicas_per_block.map_or(u64::MAX, |most| most.get() as u64);
    if replicas > known && router.view.kv_index_replicas_per_block.is_none() {
        marks.push(format!(
            "{}: llm-d's index knows {known} replicas of a block unless told otherwise (podCacheSize), and there are {replicas}; \
             router.view.kv_index_replicas_per_block",
            router.policy
        ));
    }
    Ok(RouterPlan {
        characters_per_token,
        policy: router.policy.clone(),
        parameters,
        gateways: router.replicas,
        impairments,
        reads_kv_events: sight.kv_events,
        freshness,
        decision_gap: span_ms("router.decision_gap_ms", router.decision_gap_ms)?,
    })
}

/// A mistake in a policy's parameters, which stand at `table`: at the key, and with the nearest name, where serde says which key it
/// is.
pub(super) fn parameter_fault(table: &str, reason: &str) -> Fault {
    let quoted: Vec<&str> = reason.split('`').skip(1).step_by(2).collect();
    let known = ["unknown field", "unknown variant"].iter().any(|start| reason.starts_with(start));
    match quoted.split_first() {
        Some((wrong, all)) if known && !all.is_empty() => {
            let what = if reason.starts_with("unknown field") { "key" } else { "value" };
            let path = if what == "key" { format!("{table}.{wrong}") } else { table.into() };
            fault(path, format!("unknown {what} `{wrong}`")).help(nearest_or_all(wrong, all))
        }
        Some((named, _)) if reason.starts_with('`') => fault(format!("{table}.{named}"), reason),
        Some((wrong, _)) if known => {
            fault(format!("{table}.{wrong}"), format!("unknown key `{wrong}`: there are no keys here"))
                .help("leave it out; is it of another policy?")
        }
        _ => fault(table, in_words(reason).unwrap_or_else(|| reason.into())),
    }
}

/// From the output with which KV events leave an engine until gateways have them, unless the scenario says: some milliseconds
/// (section (c) of the field's catalogue: "step + ms").
const KV_EVENT_DELAY_MS: f64 = 5.0;

/// How much of KV events is remembered.
fn kv_index(router: &RouterFile) -> Result<IndexLimits, Fault> {
    let view = &router.view;
    let of_llm_d = ["epp-", "sticky-until-saturated"].iter().any(|name| router.policy.starts_with(name));
    let usual = if of_llm_d { POD_CACHE_SIZE as u64 } else { 0 };
    let count = |most: u64| NonZeroUsize::new(usize::try_from(most).unwrap_or(usize::MAX));
    let blocks = view.kv_index_blocks.map(|blocks| {
        let few = || fault("router.view.kv_index_blocks", "expected at least 1 block, got 0");
        count(blocks).ok_or_else(|| few().help("leave it out for an index that holds everything"))
    });
    let ttl = view.kv_index_ttl_s.map(|ttl_s| positive_span_s("router.view.kv_index_ttl_s", ttl_s));
    Ok(IndexLimits {
        blocks: blocks.transpose()?,
        replicas_per_block: count(view.kv_index_replicas_per_block.unwrap_or(usual)),
        ttl: ttl.transpose()?,
    })
}

/// What is seen late, or not at all.
fn impairments(
    router: &RouterFile,
    freshness: Freshness,
    sight: Sight,
    marks: &mut Vec<String>,
) -> Result<Impairments, Fault> {
    let view = &router.view;
    let at = |key: &str| format!("router.view.{key}");
    let share = |key: &str, value: Option<f64>| match value.unwrap_or(0.0) {
        value if (0.0..=1.0).contains(&value) => Ok(value),
        value => Err(fault(at(key), format!("expected a share of 0 to 1, got {value}"))),
    };
    let scrape = span_ms(&at("scrape_ms"), view.scrape_ms.unwrap_or(0.0))?;
    let polled = match freshness {
        Freshness::Polled { interval } => Some(interval),
        Freshness::Fresh => None,
    };
    let of_polls = view.scrape_ms.is_some() || view.poll_loss.is_some() || view.staleness_limit_ms.is_some();
    if of_polls && view.fresh == Some(true) {
        return Err(fault(
            "router.view",
            "fresh gauges are not scraped, so none comes late, gets lost or goes stale",
        )
        .help("leave out `fresh`, or the other keys"));
    }
    if polled.is_some_and(|interval| scrape >= interval) && view.scrape_ms.is_some() {
        return Err(fault(at("scrape_ms"), "a read must arrive before the next one is made")
            .help("make poll_interval_ms longer"));
    }
    let kv_event_delay =
        span_ms(&at("kv_event_delay_ms"), view.kv_event_delay_ms.unwrap_or(KV_EVENT_DELAY_MS))?;
    if sight.kv_events && kv_event_delay == Span::ZERO {
        marks.push(format!(
            "{} sees KV events the moment they happen; real ones take milliseconds",
            router.policy
        ));
    }
    let staleness_limit = view.staleness_limit_ms.map(|ms| {
        let path = at("staleness_limit_ms");
        positive(&path, ms).and_then(|ms| span_ms(&path, ms))
    });
    let replay = view.kv_event_replay_ms.map(|ms| span_ms(&at("kv_event_replay_ms"), ms));
    if replay.is_some() && view.kv_event_loss.unwrap_or(0.0) == 0.0 {
        return Err(fault(at("kv_event_replay_ms"), "no event gets lost, so none is asked for again")
            .help("leave it out, or set kv_event_loss"));
    }
    Ok(Impairments {
        scrape,
        poll_loss: share("poll_loss", view.poll_loss)?,
        staleness_limit: staleness_limit.transpose()?,
        kv_event_delay: if sight.kv_events { kv_event_delay } else { Span::ZERO },
        kv_event_loss: share("kv_event_loss", view.kv_event_loss)?,
        kv_event_replay: replay.transpose()?,
        kv_index: if sight.kv_events { kv_index(router)? } else { IndexLimits::default() },
        shared: view.shared.unwrap_or(false),
    })
}
