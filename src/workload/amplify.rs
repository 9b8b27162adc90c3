//! A trace as more users of the same kind would have made it.
//!
//! N times the rate for the same time: the trace runs N times as fast and N times in a row, so bursts stay as bursty as
//! they were. Each time has identities of its own, but for the texts that nearly all requests open with, which would be
//! the same for everybody. A part of a round takes whole sessions. Think time stays as it was.

use crate::random::{Seed, mix};
use crate::request::{Content, ContentRun};
use crate::time::{Span, Time};
use crate::trace::{Trace, TraceRow, Wait, Waits, in_order};
use crate::workload::shape::{Shape, common_runs};

/// `trace` at `times` its rate.
///
/// # Panics
/// If `times` is not above 0.
pub fn amplify(trace: &Trace, times: f64, seed: Seed) -> Trace {
    assert!(times > 0.0, "a rate is scaled by more than nothing");
    let common = common_runs(&trace.rows);
    let rows = &trace.rows;
    let last = rows.last().map_or(0, |row| row.arrived.as_ps());
    let round_ps = (last + last / (rows.len() as u64).saturating_sub(1).max(1)) as f64 / times;
    let mut all: Vec<TraceRow> = Vec::new();
    let rounds = times.ceil() as u64;
    for round in 0..rounds {
        let share = (times - round as f64).min(1.0);
        let shape = Shape { sample: share, ..Shape::default() };
        let part =
            if share < 1.0 { stretched(shape.apply(rows.clone(), seed).0, share) } else { rows.clone() };
        let (start, first) = (Span::from_ps((round_ps * round as f64).round() as u64), all.len() as u32);
        let fresh = |id: u64| if round == 0 { id } else { mix(id ^ mix(round)) >> 1 };
        all.extend(part.into_iter().map(|row| TraceRow {
            arrived: Time::from_ps((row.arrived.as_ps() as f64 / times).round() as u64) + start,
            session: row.session.map(fresh),
            content: Content::from_runs(row.content.runs().iter().enumerate().map(|(place, run)| {
                ContentRun { stream: if place < common { run.stream } else { fresh(run.stream) }, ..*run }
            })),
            waits: Waits::of(row.waits.iter().map(|wait| Wait { row: wait.row + first, ..*wait }).collect()),
            ..row
        }));
    }
    in_order(&mut all);
    Trace { rows: all, ..trace.clone() }
}

/// A part of a trace has its share of the requests over all of the time; a round of it is as much shorter, at full rate.
fn stretched(mut rows: Vec<TraceRow>, share: f64) -> Vec<TraceRow> {
    for row in &mut rows {
        row.arrived = Time::from_ps((row.arrived.as_ps() as f64 * share).round() as u64);
    }
    rows
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trace::TraceInfo;

    #[test]
    fn more_of_the_same() {
        let row = |number: u64| {
            let run = |stream| ContentRun { stream, position: 0, tokens: 8 };
            TraceRow {
                arrived: Time::ZERO + Span::from_ms(number * number % 977 + 40 * number),
                content: Content::from_runs([run(1), run(100 + number % 60)]),
                ..TraceRow::of_lengths(20, 3)
            }
        };
        let mut rows: Vec<TraceRow> = (0..3_000).map(row).collect();
        in_order(&mut rows);
        let trace = Trace { format: "t", rows, notes: Default::default(), started_ps: 0 };
        let before = TraceInfo::of(&trace);
        for times in [2.0, 2.5, 0.5] {
            let after = TraceInfo::of(&amplify(&trace, times, Seed(1)));
            let rate = after.mean_rate_per_s.unwrap() / before.mean_rate_per_s.unwrap() / times;
            assert!((rate - 1.0).abs() < 0.2, "{times}: {rate}");
            assert!((after.span_s / before.span_s - 1.0).abs() < 0.2, "{times}: {}", after.span_s);
            let (a, b) = (after.reuse.unwrap(), before.reuse.unwrap());
            assert!((a.prompt_token_share - b.prompt_token_share).abs() < 0.03, "{times}");
            assert!((after.gap_cv.unwrap() / before.gap_cv.unwrap() - 1.0).abs() < 0.2, "{times}");
        }
    }
}
