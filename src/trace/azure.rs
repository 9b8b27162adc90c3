//! The Azure LLM inference traces of 2023, 2024 and, with images, 2025 (CSV).
//!
//! Knows the columns and the ways of writing a time: 2023 has seven digits after the point and no zone, 2024 has the
//! zone, `+00:00`, and six digits or none, 2025 writes `T` and `Z` and three digits. Does not know what an image costs:
//! the trace counts its tokens among those of the context.
//! Times count from 1970, so two traces may be set against each other, and are exact to their last digit.

use jiff::civil::Date;

use super::TraceRow;
use super::columns::Columns;
use super::error::TraceError;
use super::lines::{Lines, Opening};
use super::numbers::{digit, fraction_ps, tokens};
use super::rows::{Next, NextRow, Recorded};

const COLUMNS: [&str; 3] = ["TIMESTAMP", "ContextTokens", "GeneratedTokens"];
const ZONE: &str = "+00:00";

/// The column that the trace of 2025 has besides.
const IMAGES: &str = "NumImages";

pub(super) fn recognises_2023(opening: &Opening) -> bool {
    recognises(opening, &COLUMNS) && !opening.second().contains(ZONE)
}

pub(super) fn recognises_2024(opening: &Opening) -> bool {
    recognises(opening, &COLUMNS) && opening.second().contains(ZONE)
}

pub(super) fn recognises_2025(opening: &Opening) -> bool {
    recognises(opening, &[IMAGES])
}

/// One name is enough: a misspelt or missing other is then told as such.
fn recognises(opening: &Opening, names: &[&str]) -> bool {
    opening.first().split(',').any(|name| names.contains(&name.trim().trim_matches('"')))
}

pub(super) fn rows_2023(lines: &mut Lines) -> Result<NextRow, TraceError> {
    let mut clock = Clock::new();
    rows(lines, &[], move |text| clock.ps(text, b' ').ok_or("a time such as 2023-11-16 18:15:46.6805900"))
}

pub(super) fn rows_2024(lines: &mut Lines) -> Result<NextRow, TraceError> {
    const EXPECTED: &str = "a time such as 2024-05-10 00:00:00.009930+00:00";
    let mut clock = Clock::new();
    let time =
        move |text: &str| text.strip_suffix(ZONE).and_then(|text| clock.ps(text, b' ')).ok_or(EXPECTED);
    rows(lines, &[], time)
}

pub(super) fn rows_2025(lines: &mut Lines) -> Result<NextRow, TraceError> {
    const EXPECTED: &str = "a time such as 2024-10-15T12:00:00.269Z";
    let mut clock = Clock::new();
    let time = move |text: &str| text.strip_suffix('Z').and_then(|text| clock.ps(text, b'T')).ok_or(EXPECTED);
    rows(lines, &[IMAGES], time)
}

fn rows(
    lines: &mut Lines,
    others: &[&str],
    mut time: impl FnMut(&str) -> Result<i128, &'static str> + Send + 'static,
) -> Result<NextRow, TraceError> {
    let mut columns = Columns::read(lines, &COLUMNS, others)?;
    Ok(Box::new(move |lines| {
        if !columns.advance(lines)? {
            return Ok(Next::End);
        }
        let value = |column: usize| columns.get(lines, column);
        let wrong = |column: usize, expected| lines.value(COLUMNS[column], expected, value(column));
        let arrived_ps = time(value(0)).map_err(|expected| wrong(0, expected))?;
        let prompt_tokens = tokens(value(1)).map_err(|expected| wrong(1, expected))?;
        let output_tokens = tokens(value(2)).map_err(|expected| wrong(2, expected))?;
        Ok(Next::Row(Recorded { arrived_ps, row: TraceRow::of_lengths(prompt_tokens, output_tokens) }))
    }))
}

/// Reads times, most of which fall on the same day as the one before.
struct Clock {
    date: [u8; 10],
    /// Seconds from 1970 to `date`.
    date_s: i64,
}

impl Clock {
    fn new() -> Clock {
        Clock { date: *b"1970-01-01", date_s: 0 }
    }

    /// Picoseconds since 1970 of `YYYY-MM-DD HH:MM:SS`, with or without a fraction, `between` in the place of the space.
    fn ps(&mut self, text: &str, between: u8) -> Option<i128> {
        let (date, time) = text.as_bytes().split_first_chunk()?;
        let (&[middle, h, hh, b':', m, mm, b':', s, ss], fraction) = time.split_first_chunk()? else {
            return None;
        };
        let (hour, minute, second) = (number(&[h, hh])?, number(&[m, mm])?, number(&[s, ss])?);
        if middle != between || hour > 23 || minute > 59 || second > 59 {
            return None;
        }
        let fraction_ps = match fraction {
            [] => 0,
            [b'.', digits @ ..] if !digits.is_empty() => fraction_ps(digits)?.ok()?,
            _ => return None,
        };
        if *date != self.date {
            (self.date, self.date_s) = (*date, since_1970_s(date)?);
        }
        let since_1970_s = self.date_s + hour * 3_600 + minute * 60 + second;
        Some(i128::from(since_1970_s) * 1_000_000_000_000 + fraction_ps)
    }
}

/// Seconds from 1970 to the beginning of the day `YYYY-MM-DD`.
fn since_1970_s(date: &[u8; 10]) -> Option<i64> {
    let &[y, yy, yyy, yyyy, b'-', m, mm, b'-', d, dd] = date else { return None };
    let (year, month, day) = (number(&[y, yy, yyy, yyyy])?, number(&[m, mm])?, number(&[d, dd])?);
    let date = Date::new(year as i16, month as i8, day as i8).ok()?;
    Some(date.duration_since(Date::constant(1970, 1, 1)).as_secs())
}

/// The number that a few digits write.
fn number(digits: &[u8]) -> Option<i64> {
    let mut number = 0;
    for byte in digits {
        number = number * 10 + i64::from(digit(*byte)?);
    }
    Some(number)
}
