//! The Azure LLM inference traces of 2023 and 2024 (CSV).
//!
//! Knows the three columns and both ways of writing a time: 2023 has seven digits after the point and no
//! zone, 2024 has the zone, `+00:00`, and six digits or none. Does not know the multimodal trace of 2025.
//! Times count from 1970, so two traces may be set against each other, and are exact to their last digit.

use jiff::civil::Date;

use super::TraceRow;
use super::columns::Header;
use super::error::TraceError;
use super::lines::Lines;
use super::numbers::{fraction_ps, tokens};
use super::rows::Rows;
use crate::request::Content;
use crate::time::Time;

const COLUMNS: [&str; 3] = ["TIMESTAMP", "ContextTokens", "GeneratedTokens"];
const ZONE: &str = "+00:00";

pub(super) fn recognises_2023(header: &str, row: &str) -> bool {
    recognises(header) && !row.contains(ZONE)
}

pub(super) fn recognises_2024(header: &str, row: &str) -> bool {
    recognises(header) && row.contains(ZONE)
}

/// One name is enough: a misspelt or missing other is then told as such.
fn recognises(header: &str) -> bool {
    header.split(',').any(|name| COLUMNS.contains(&name.trim().trim_matches('"')))
}

pub(super) fn read_2023(lines: &mut Lines, rows: &mut Rows) -> Result<(), TraceError> {
    read(lines, rows, |text| local_time(text).ok_or("a time such as 2023-11-16 18:15:46.6805900"))
}

pub(super) fn read_2024(lines: &mut Lines, rows: &mut Rows) -> Result<(), TraceError> {
    read(lines, rows, |text| {
        text.strip_suffix(ZONE).and_then(local_time).ok_or("a time such as 2024-05-10 00:00:00.009930+00:00")
    })
}

fn read(
    lines: &mut Lines,
    rows: &mut Rows,
    time: fn(&str) -> Result<i128, &'static str>,
) -> Result<(), TraceError> {
    let mut row = Header::read(lines, &COLUMNS, &[])?;
    while row.advance(lines)? {
        let wrong = |column: usize, expected| lines.value(COLUMNS[column], expected, row.get(column));
        let arrived = time(row.get(0)).map_err(|expected| wrong(0, expected))?;
        let prompt_tokens = tokens(row.get(1)).map_err(|expected| wrong(1, expected))?;
        let output_tokens = tokens(row.get(2)).map_err(|expected| wrong(2, expected))?;
        let row = TraceRow {
            arrived: Time::ZERO,
            prompt_tokens,
            output_tokens,
            max_tokens: None,
            content: Content::default(),
            session: None,
            priority: 0,
        };
        rows.push(lines, arrived, row)?;
    }
    Ok(())
}

/// Picoseconds since 1970 of `YYYY-MM-DD HH:MM:SS`, with or without a fraction.
fn local_time(text: &str) -> Option<i128> {
    let bytes = text.as_bytes();
    if bytes.len() < 19 || !text.is_ascii() {
        return None;
    }
    let (seconds, fraction) = text.split_at(19);
    for (place, byte) in seconds.bytes().enumerate() {
        let right = match place {
            4 | 7 => byte == b'-',
            10 => byte == b' ',
            13 | 16 => byte == b':',
            _ => byte.is_ascii_digit(),
        };
        if !right {
            return None;
        }
    }
    let number =
        |from: usize, to: usize| bytes[from..to].iter().fold(0, |sum, b| sum * 10 + i64::from(b - b'0'));
    let (hour, minute, second) = (number(11, 13), number(14, 16), number(17, 19));
    if hour > 23 || minute > 59 || second > 59 {
        return None;
    }
    let date = Date::new(number(0, 4) as i16, number(5, 7) as i8, number(8, 10) as i8).ok()?;
    let day = date.duration_since(Date::constant(1970, 1, 1)).as_secs();
    let since_1970 = day + hour * 3_600 + minute * 60 + second;
    let fraction_ps = match fraction.strip_prefix('.') {
        Some("") => return None,
        Some(digits) => fraction_ps(digits)?.ok()?,
        None if fraction.is_empty() => 0,
        None => return None,
    };
    Some(i128::from(since_1970) * 1_000_000_000_000 + fraction_ps)
}
