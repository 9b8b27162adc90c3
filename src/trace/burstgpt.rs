//! The BurstGPT traces, all releases (CSV).
//!
//! Knows the columns by name, for later releases put new ones in between: whole or decimal seconds from midnight of the
//! first day, token counts, and a session that `API log` rows lack. A row without response tokens is a failed request.
//! Does not know when a request ended: what `Elapsed time` counts is not documented.

use super::TraceRow;
use super::columns::Columns;
use super::content::text_id;
use super::error::TraceError;
use super::lines::{Lines, Opening};
use super::numbers::{decimal_ps, identity, tokens};
use super::options::TimeUnit;
use super::rows::{Next, NextRow, Recorded, Skip};

const REQUIRED: [&str; 3] = ["Timestamp", "Request tokens", "Response tokens"];
const OPTIONAL: [&str; 5] = ["Session ID", "Elapsed time", "Model", "Total tokens", "Log Type"];
const SESSION: usize = 3;

pub(super) fn recognises(opening: &Opening) -> bool {
    opening.first().contains("Request tokens") || opening.first().contains("Response tokens")
}

pub(super) fn rows(lines: &mut Lines) -> Result<NextRow, TraceError> {
    let mut columns = Columns::read(lines, &REQUIRED, &OPTIONAL)?;
    Ok(Box::new(move |lines| {
        if !columns.advance(lines)? {
            return Ok(Next::End);
        }
        let value = |column: usize| columns.get(lines, column);
        let wrong = |column: usize, expected| lines.value(REQUIRED[column], expected, value(column));
        let time = decimal_ps(value(0), TimeUnit::Seconds);
        let arrived_ps = time.ok_or_else(|| wrong(0, "seconds from the first day's midnight"))?;
        // Some releases write counts as 472.0.
        let count = |column: usize| {
            let text = value(column);
            tokens(text.strip_suffix(".0").unwrap_or(text)).map_err(|expected| wrong(column, expected))
        };
        let (prompt_tokens, output_tokens) = (count(1)?, count(2)?);
        if output_tokens == 0 {
            return Ok(Next::Skip(Skip::Failed));
        }
        let session = Some(value(SESSION))
            .filter(|session| !session.is_empty())
            .map(|text| identity(text).unwrap_or_else(|_| text_id(text)));
        let row = TraceRow { session, ..TraceRow::of_lengths(prompt_tokens, output_tokens) };
        Ok(Next::Row(Recorded { arrived_ps, row }))
    }))
}
