//! `requests.csv`, a row a request, and `timeline.csv`, a row a replica and interval. First repetition.

use crate::request::Outcome;
use crate::study::compare::Comparison;
use crate::study::ranking::Ranked;
use crate::time::Span;

fn ms(span: Option<Span>) -> String {
    span.map_or(String::new(), |span| format!("{:.6}", span.as_ms()))
}

/// Requests of every contender. Times are since the run began; empty is "never". The parts sum to `e2e_ms`.
///
/// # Errors
/// If the bytes cannot be put together, which memory alone could cause.
pub fn requests(comparison: &Comparison) -> Result<Vec<u8>, csv::Error> {
    let mut writer = csv::Writer::from_writer(Vec::new());
    writer.write_record([
        "name",
        "request",
        "finish",
        "replica",
        "class",
        "sent_s",
        "prompt_tokens",
        "output_tokens",
        "cached_tokens",
        "preemptions",
        "ttft_ms",
        "engine_ttft_ms",
        "tpot_ms",
        "e2e_ms",
        "way_there_ms",
        "queue_ms",
        "prefill_ms",
        "decode_ms",
        "decode_beside_prefill_ms",
        "idle_ms",
        "way_back_ms",
    ])?;
    for ranked in &comparison.ranking {
        for outcome in &ranked.outcomes {
            writer.write_record(request_row(ranked, outcome))?;
        }
    }
    writer.into_inner().map_err(|error| error.into_error().into())
}

fn request_row(ranked: &Ranked, outcome: &Outcome) -> [String; 21] {
    let engine = outcome.engine.as_ref();
    let whole = outcome.finish.is_complete().then_some(()).and(engine);
    let scheduled = engine.and_then(|engine| engine.scheduled);
    let first_token = engine.and_then(|engine| engine.first_token);
    [
        ranked.name.clone(),
        outcome.attempt.request.0.to_string(),
        outcome.finish.name().into(),
        outcome.replica.map_or(String::new(), |replica| replica.to_string()),
        ranked.repetitions[0]
            .classes
            .get(usize::from(outcome.class))
            .map_or(String::new(), |class| class.name.clone()),
        format!("{:.9}", outcome.sent.as_s()),
        outcome.prompt_tokens.to_string(),
        outcome.output_tokens().to_string(),
        engine.map_or(0, |engine| engine.cached_tokens).to_string(),
        engine.map_or(0, |engine| engine.preemptions).to_string(),
        ms(outcome.ttft()),
        ms(outcome.engine_ttft()),
        ms(outcome.tpot()),
        ms(outcome.e2e()),
        ms(outcome.arrived.map(|arrived| arrived - outcome.sent)),
        ms(outcome.arrived.zip(scheduled).map(|(arrived, scheduled)| scheduled - arrived)),
        ms(scheduled.zip(first_token).map(|(scheduled, first)| first - scheduled)),
        ms(whole.map(|engine| engine.decode_parts.decode)),
        ms(whole.map(|engine| engine.decode_parts.prefill)),
        ms(whole.map(|engine| engine.decode_parts.idle)),
        ms(whole.map(|engine| outcome.done_received - engine.done)),
    ]
}

/// Running, waiting and KV use of every replica over time.
///
/// # Errors
/// If the bytes cannot be put together, which memory alone could cause.
pub fn timeline(comparison: &Comparison) -> Result<Vec<u8>, csv::Error> {
    let mut writer = csv::Writer::from_writer(Vec::new());
    writer.write_record([
        "name",
        "replica",
        "from_s",
        "to_s",
        "running_max",
        "waiting_max",
        "kv_cache_usage_max",
        "steps",
    ])?;
    for ranked in &comparison.ranking {
        for (number, replica) in ranked.repetitions[0].replicas.iter().enumerate() {
            for (index, point) in replica.timeline.iter().enumerate() {
                let from_s = index as f64 * replica.timeline_interval_s;
                let usage = f64::from(point.kv_blocks_used) / f64::from(replica.kv_blocks_usable.max(1));
                writer.write_record([
                    ranked.name.clone(),
                    number.to_string(),
                    format!("{from_s:.3}"),
                    format!("{:.3}", from_s + replica.timeline_interval_s),
                    point.running.to_string(),
                    point.waiting.to_string(),
                    format!("{usage:.6}"),
                    point.steps.to_string(),
                ])?;
            }
        }
    }
    writer.into_inner().map_err(|error| error.into_error().into())
}
