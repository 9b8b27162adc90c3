//! Why the slow ones were slow, as text, CSV and JSON.

use serde_json::{Value, json};

use super::table::{Table, number, percent};
use crate::explain::{Explained, Explanation, Part, Parts, Story, Tail};
use crate::metrics::RunSummary;
use crate::scenario::Scenario;

/// For a terminal: what the tail is made of, then the slowest one by one.
pub fn text(name: &str, scenario: &Scenario, explanation: &Explanation) -> String {
    let summary = &explanation.summary;
    let whole = explanation.requests.len();
    let without = summary.offered - summary.completed;
    let mut text = match scenario.title.as_str() {
        "" => String::new(),
        title => format!("{title}\n"),
    };
    text.push_str(&format!("{name}, first repetition: {whole} requests with a whole answer"));
    text.push_str(&match without {
        0 => "\n".into(),
        _ => format!("; {without} without{}, whose latency is infinite and has no parts\n", why(summary)),
    });
    if without * 100 > summary.offered {
        text.push_str(
            "These are more than one in a hundred, so P99 is theirs; what follows is of the others.\n",
        );
    }
    for (what, tail) in [("End-to-end latency", &explanation.e2e), ("Time to first token", &explanation.ttft)]
    {
        if let Some(tail) = tail {
            text.push_str(&format!("\n{what}, ms; the parts of each request sum to it to the picosecond\n"));
            text.push_str(&table(tail).render());
            text.push_str(&verdict(tail));
        }
    }
    if !explanation.stories.is_empty() {
        if let Some(routing) = routing(&explanation.stories) {
            text.push_str(&format!("\n{routing}\n"));
        }
        text.push_str(
            "\nThe slowest, and what they would have taken elsewhere, had they alone gone there:\n",
        );
    }
    for (place, story) in explanation.stories.iter().enumerate() {
        text.push_str(&format!("{}. {}\n", place + 1, tell(story)));
    }
    text
}

/// What became of those without an answer.
fn why(summary: &RunSummary) -> String {
    let day = summary.bad_day.as_ref();
    let counts = [
        ("lost", day.map_or(0, |day| day.lost)),
        ("timed out", day.map_or(0, |day| day.timed_out)),
        ("refused", summary.rejected),
        ("unfinished", summary.unfinished),
    ];
    let said = counts.into_iter().filter(|(_, count)| *count > 0);
    let said: Vec<String> = said.map(|(what, count)| format!("{count} {what}")).collect();
    if said.is_empty() { String::new() } else { format!(" ({})", said.join(", ")) }
}

pub(super) fn table(tail: &Tail) -> Table {
    let head = ["part", "all", "P40 to P60", "slowest 1 %", "share %", "beyond typical", "share %"];
    let mut table = Table::new(&head, 1);
    let excess_ms = tail.excess_ms();
    let share = |part_ms: f64, whole_ms: f64| {
        if whole_ms > 0.0 { percent(part_ms / whole_ms) } else { "-".into() }
    };
    for part in Part::ALL {
        let of = |parts_ms: &[f64; Part::ALL.len()]| parts_ms[part as usize];
        let (all, typical, slowest) =
            (of(&tail.all.parts_ms), of(&tail.typical.parts_ms), of(&tail.slowest.parts_ms));
        // What nobody spends time with is not worth a row.
        if [all, typical, slowest].iter().any(|ms| ms.abs() >= 0.005) {
            let excess = tail.excess_of_ms(part);
            table.row(vec![
                part.name().into(),
                number(all),
                number(typical),
                number(slowest),
                share(slowest, tail.slowest.total_ms),
                number(excess),
                share(excess, excess_ms),
            ]);
        }
    }
    table.row(vec![
        "all parts".into(),
        number(tail.all.total_ms),
        number(tail.typical.total_ms),
        number(tail.slowest.total_ms),
        "100.0".into(),
        number(excess_ms),
        "100.0".into(),
    ]);
    table
}

/// What makes the tail longer than the middle, in a sentence.
pub fn verdict(tail: &Tail) -> String {
    let excess_ms = tail.excess_ms();
    let requests = match tail.slowest.requests {
        1 => "The slowest request".into(),
        count => format!("The slowest {count}"),
    };
    if excess_ms <= 0.0 {
        let takes = if tail.slowest.requests == 1 { "takes" } else { "take" };
        return format!("{requests} {takes} as long as typical ones.\n");
    }
    let mut parts: Vec<(f64, Part)> =
        Part::ALL.iter().map(|&part| (tail.excess_of_ms(part) / excess_ms, part)).collect();
    parts.sort_by(|a, b| b.0.total_cmp(&a.0));
    let named: Vec<String> = parts
        .iter()
        .take(3)
        .filter(|(share, _)| *share >= 0.1)
        .map(|(share, part)| format!("{:.0} % {}", share * 100.0, part.name()))
        .collect();
    format!(
        "{requests}, from {} ms on, take {} ms longer than typical ones: {}.\nThey have {} prompt and {} output tokens in the mean; \
         typical ones {} and {}.\n",
        number(tail.from_ms),
        number(excess_ms),
        named.join(", "),
        number(tail.slowest.prompt_tokens),
        number(tail.slowest.output_tokens),
        number(tail.typical.prompt_tokens),
        number(tail.typical.output_tokens),
    )
}

/// A gain below this share of a latency is none worth routing for.
const WORTH: f64 = 0.1;

/// Whether another replica would have helped the slowest; none where there is no other.
pub fn routing(stories: &[Story]) -> Option<String> {
    if stories.iter().all(|story| story.elsewhere.len() == 1) {
        return None;
    }
    let gain = |story: &Story| -> Option<f64> {
        let own = story.request.outcome.e2e()?.as_ms();
        Some((own - story.best()?.1.as_ms()) / own)
    };
    let mut gains: Vec<f64> = stories.iter().map(|story| gain(story).unwrap_or(0.0)).collect();
    gains.sort_by(f64::total_cmp);
    let helped = gains.iter().filter(|gain| **gain >= WORTH).count();
    let (all, least) = (gains.len(), WORTH * 100.0);
    let median = gains[all / 2] * 100.0;
    Some(match helped {
        0 if all == 1 => format!(
            "The slowest would not have ended {least:.0} % sooner on any other replica: it is the load or the request itself, not where it \
             went."
        ),
        0 => format!(
            "None of the {all} slowest would have ended {least:.0} % sooner on any other replica: it is the load or the request \
             itself, not where it went."
        ),
        _ => {
            let verdict = match helped * 2 >= all {
                true => "where they went is what made most of them slow",
                false => "most of them are slow wherever they go",
            };
            format!(
                "{helped} of the {all} slowest would have ended {least:.0} % sooner or more on the best other replica, {median:.0} % in \
                 the median: {verdict}."
            )
        }
    })
}

/// What happened to one of the slowest, in a few lines.
pub fn tell(story: &Story) -> String {
    let Explained { outcome, e2e, cached_elsewhere, .. } = &story.request;
    let ms = |part: Part| number(e2e.ms(part));
    let own = outcome.replica.unwrap_or_default();
    let latency_ms = outcome.e2e().map_or(0.0, |e2e| e2e.as_ms());
    let cached = outcome.engine.as_ref().map_or(0, |engine| engine.cached_tokens);
    let elsewhere = cached_elsewhere
        .map_or(String::new(), |(server, tokens)| format!("; replica {server} had {tokens} of them"));
    let mut text = format!(
        "request {}: {} ms, sent at {} s to replica {own}; prompt {} tokens, {cached} cached{elsewhere}; {} tokens out\n",
        outcome.attempt.request.0,
        number(latency_ms),
        number(outcome.sent.as_s()),
        outcome.prompt_tokens,
        outcome.output_tokens(),
    );
    let gauges = story.at_delivery;
    text.push_str(&format!(
        "   then running there {}, waiting {}, KV cache {} % used\n",
        gauges.running,
        gauges.waiting,
        percent(gauges.kv_cache_usage())
    ));
    let mut parts = Vec::new();
    if outcome.detour.is_some() && e2e[Part::EarlierTries] > 0 {
        parts.push(format!("earlier tries {} ms", ms(Part::EarlierTries)));
    }
    parts.push(format!("queue {} ms", ms(Part::Queue)));
    parts.push(match story.prompt_tokens_ahead {
        0 => format!("behind prompts of others {} ms", ms(Part::BehindPrefill)),
        ahead => {
            format!("behind prompts of others {} ms ({ahead} tokens before its own)", ms(Part::BehindPrefill))
        }
    });
    parts.push(format!("own prompt {} ms", number(e2e.ms(Part::OwnPrefill) + e2e.ms(Part::CacheMiss))));
    if let Some(batch) = story.mean_batch {
        parts.push(format!(
            "decode {} ms as if alone and {} ms more in batches of {}",
            ms(Part::Decode),
            ms(Part::SlowedByBatch),
            number(batch)
        ));
    }
    if e2e[Part::SlowReplica] != 0 {
        parts.push(format!("{} ms for a slow replica", ms(Part::SlowReplica)));
    }
    let preemptions = outcome.engine.as_ref().map_or(0, |engine| engine.preemptions);
    if preemptions > 0 {
        let times = if preemptions == 1 { "once".into() } else { format!("{preemptions} times") };
        parts.push(format!("preempted {times}, {} ms", ms(Part::Preempted)));
    }
    text.push_str(&format!("   {}\n", parts.join("; ")));
    text.push_str(&format!("   {}", alternatives(story, own as usize, latency_ms)));
    text
}

/// The best replicas for it, and how far from them its own is.
fn alternatives(story: &Story, own: usize, latency_ms: f64) -> String {
    if story.elsewhere.len() == 1 {
        return "there is no other replica".into();
    }
    let mut ends: Vec<(usize, f64)> = story
        .elsewhere
        .iter()
        .enumerate()
        .filter(|(server, _)| *server != own)
        .filter_map(|(server, end)| Some((server, (*end)?.as_ms())))
        .collect();
    ends.sort_by(|a, b| a.1.total_cmp(&b.1));
    let place = ends.iter().filter(|(_, ms)| *ms < latency_ms).count();
    let best: Vec<String> =
        ends.iter().take(3).map(|(server, ms)| format!("replica {server} {} ms", number(*ms))).collect();
    let sooner = match place {
        0 => "nowhere sooner".to_string(),
        _ => format!("sooner on {place} of the {} others", story.elsewhere.len() - 1),
    };
    format!("elsewhere: {sooner}; best {}", best.join(", "))
}

/// A row a request: its latency and its parts, picoseconds.
///
/// # Errors
/// If the bytes cannot be put together, which memory alone could cause.
pub fn csv(explanation: &Explanation) -> Result<Vec<u8>, csv::Error> {
    let mut writer = csv::Writer::from_writer(Vec::new());
    let mut head: Vec<String> = ["request", "replica", "ttft_ps", "e2e_ps"].map(String::from).to_vec();
    for latency in ["ttft", "e2e"] {
        head.extend(Part::ALL.iter().map(|part| format!("{latency}_{}_ps", part.key())));
    }
    writer.write_record(head)?;
    for request in &explanation.requests {
        let outcome = &request.outcome;
        let mut row = vec![
            outcome.attempt.request.0.to_string(),
            outcome.replica.map_or(String::new(), |replica| replica.to_string()),
            request.ttft.total_ps().to_string(),
            request.e2e.total_ps().to_string(),
        ];
        for parts in [request.ttft, request.e2e] {
            row.extend(Part::ALL.iter().map(|&part| parts[part].to_string()));
        }
        writer.write_record(row)?;
    }
    writer.into_inner().map_err(|error| error.into_error().into())
}

/// The same as the text, for programs.
///
/// # Errors
/// If it cannot be put together, which memory alone could cause.
pub fn json(name: &str, explanation: &Explanation) -> Result<String, serde_json::Error> {
    let value = json!({
        "schema_version": super::json::SCHEMA_VERSION,
        "name": name,
        "requests": explanation.requests.len(),
        "without_answer": explanation.summary.offered - explanation.summary.completed,
        "e2e": explanation.e2e.as_ref().map(tail_json),
        "ttft": explanation.ttft.as_ref().map(tail_json),
        "slowest": explanation.stories.iter().map(story_json).collect::<Vec<_>>(),
    });
    Ok(serde_json::to_string_pretty(&value)? + "\n")
}

fn tail_json(tail: &Tail) -> Value {
    let of = |composition: &crate::explain::tail::Composition| {
        let parts = Part::ALL
            .iter()
            .map(|&part| (part.key().to_string(), composition.parts_ms[part as usize].into()));
        json!({
            "requests": composition.requests,
            "mean_ms": composition.total_ms,
            "mean_prompt_tokens": composition.prompt_tokens,
            "mean_output_tokens": composition.output_tokens,
            "parts_ms": parts.collect::<serde_json::Map<String, Value>>(),
        })
    };
    json!({
        "all": of(&tail.all), "typical": of(&tail.typical), "slowest": of(&tail.slowest), "slowest_from_ms": tail.from_ms,
    })
}

fn parts_json(parts: &Parts) -> Value {
    Part::ALL
        .iter()
        .map(|&part| (part.key().to_string(), Value::from(parts[part])))
        .collect::<serde_json::Map<_, _>>()
        .into()
}

fn story_json(story: &Story) -> Value {
    let outcome = &story.request.outcome;
    json!({
        "request": outcome.attempt.request.0,
        "replica": outcome.replica,
        "sent_s": outcome.sent.as_s(),
        "e2e_ms": outcome.e2e().map(|e2e| e2e.as_ms()),
        "prompt_tokens": outcome.prompt_tokens,
        "output_tokens": outcome.output_tokens(),
        "cached_tokens": outcome.engine.as_ref().map(|engine| engine.cached_tokens),
        "cached_elsewhere": story.request.cached_elsewhere.map(|(replica, tokens)| json!({"replica": replica, "tokens": tokens})),
        "preemptions": outcome.engine.as_ref().map(|engine| engine.preemptions),
        "parts_ps": parts_json(&story.request.e2e),
        "at_delivery": {
            "running": story.at_delivery.running,
            "waiting": story.at_delivery.waiting,
            "kv_cache_usage": story.at_delivery.kv_cache_usage(),
        },
        "prompt_tokens_ahead": story.prompt_tokens_ahead,
        "mean_batch": story.mean_batch,
        "e2e_by_replica_ms": story.elsewhere.iter().map(|end| end.map(|end| end.as_ms())).collect::<Vec<_>>(),
    })
}
