//! The CSV of the simulators Vidur and Splitwise: arrivals in seconds, or lengths alone.
//!
//! Knows both names that the columns have, and that a file may hold no times: then all rows are at zero, and the
//! arrivals come from elsewhere.

use super::TraceRow;
use super::columns::Columns;
use super::error::TraceError;
use super::lines::{Lines, Opening};
use super::numbers::{decimal_ps, tokens};
use super::options::TimeUnit;
use super::rows::{Next, NextRow, Recorded};

const VIDUR: [&str; 2] = ["num_prefill_tokens", "num_decode_tokens"];
const VIDUR_OTHERS: [&str; 3] = ["arrived_at", "num_total_tokens", "pd_ratio"];
const SPLITWISE: [&str; 2] = ["prompt_size", "token_size"];
const SPLITWISE_OTHERS: [&str; 6] =
    ["arrival_timestamp", "request_id", "request_type", "application_id", "batch_size", "prompt_id"];
/// Place of the time's column, behind the two required ones.
const ARRIVED: usize = 2;

pub(super) fn recognises(opening: &Opening) -> bool {
    let names = || opening.first().split(',').map(|name| name.trim().trim_matches('"'));
    names().any(|name| VIDUR.contains(&name) || name == VIDUR_OTHERS[0])
        || SPLITWISE.iter().all(|wanted| names().any(|name| name == *wanted))
}

pub(super) fn rows(lines: &mut Lines, opening: &Opening) -> Result<NextRow, TraceError> {
    let splitwise = opening.first().contains(SPLITWISE[0]);
    let (required, others): (&'static [&'static str], &'static [&'static str]) =
        if splitwise { (&SPLITWISE, &SPLITWISE_OTHERS) } else { (&VIDUR, &VIDUR_OTHERS) };
    let mut columns = Columns::read(lines, required, others)?;
    Ok(Box::new(move |lines| {
        if !columns.advance(lines)? {
            return Ok(Next::End);
        }
        let value = |column: usize| columns.get(lines, column);
        let count = |column: usize| {
            tokens(value(column)).map_err(|expected| lines.value(required[column], expected, value(column)))
        };
        let arrived_ps = match value(ARRIVED) {
            "" if !columns.has(ARRIVED) => 0,
            text => decimal_ps(text, TimeUnit::Seconds)
                .ok_or_else(|| lines.value(others[0], "seconds after the trace's start", text))?,
        };
        Ok(Next::Row(Recorded { arrived_ps, row: TraceRow::of_lengths(count(0)?, count(1)?) }))
    }))
}
