//! Comma-separated values with a header.
//!
//! Knows quoting, column names and the number of fields. Does not know what a column means. A value ends
//! with its line, even a quoted one: no column of a trace holds text.

use super::error::TraceError;
use super::lines::Lines;

/// The fields of one line.
#[derive(Default)]
struct Record {
    /// Where each field lies: in the line itself or, if one of them is quoted, in `copied`.
    fields: Vec<(usize, usize)>,
    /// All fields without their quotes; empty where the line has none.
    copied: String,
    is_copied: bool,
}

impl Record {
    /// Splits the current line.
    fn split(&mut self, lines: &Lines) -> Result<(), TraceError> {
        self.is_copied = !self.split_in_place(lines.text());
        if self.is_copied { self.split_quoted(lines) } else { Ok(()) }
    }

    /// Finds the fields of a line that has no quoted one; false if it may have.
    fn split_in_place(&mut self, line: &str) -> bool {
        self.fields.clear();
        let mut start = 0;
        for part in line.as_bytes().split(|&byte| byte == b',') {
            let end = start + part.len();
            match part.first() {
                // White space may stand before a quote, and even outside ASCII.
                Some(b'"') | Some(b'\t'..=b' ') | Some(0x80..) => return false,
                Some(_) => self.fields.push((start, start + part.trim_ascii_end().len())),
                None => self.fields.push((start, start)),
            }
            start = end + 1;
        }
        true
    }

    /// Splits a line by the rules of quoting.
    fn split_quoted(&mut self, lines: &Lines) -> Result<(), TraceError> {
        self.fields.clear();
        self.copied.clear();
        let mut rest = lines.text();
        loop {
            let start = self.copied.len();
            let after;
            if let Some(quoted) = rest.trim_start().strip_prefix('"') {
                after = self.unquote(quoted).ok_or_else(|| {
                    lines.problem("a quoted field does not end on its line, or text follows it".to_owned())
                })?;
            } else {
                let end = rest.bytes().position(|byte| byte == b',').unwrap_or(rest.len());
                self.copied.push_str(rest[..end].trim_ascii());
                after = &rest[end..];
            }
            self.fields.push((start, self.copied.len()));
            match after.strip_prefix(',') {
                Some(next) => rest = next,
                None => return Ok(()),
            }
        }
    }

    /// Takes over a field from behind its opening quote; what follows it, from the comma on.
    fn unquote<'a>(&mut self, mut rest: &'a str) -> Option<&'a str> {
        loop {
            let (part, after) = rest.split_once('"')?;
            self.copied.push_str(part);
            match after.strip_prefix('"') {
                Some(next) => {
                    self.copied.push('"');
                    rest = next;
                }
                None => {
                    let after = after.trim_ascii_start();
                    return (after.is_empty() || after.starts_with(',')).then_some(after);
                }
            }
        }
    }

    /// Field number `index` of the line that was split, which is still the current one; empty where the line
    /// has fewer.
    fn get<'a>(&'a self, lines: &'a Lines, index: usize) -> &'a str {
        let text = if self.is_copied { &self.copied } else { lines.text() };
        self.fields.get(index).map_or("", |&(start, end)| &text[start..end])
    }
}

/// All fields of the current line, for files whose columns a person names.
pub(super) fn fields_of(lines: &Lines) -> Result<Vec<String>, TraceError> {
    let mut record = Record::default();
    record.split(lines)?;
    Ok((0..record.fields.len()).map(|field| record.get(lines, field).to_owned()).collect())
}

/// Which field of a row holds which of a format's columns.
pub(super) struct Columns {
    places: Vec<Option<usize>>,
    fields: usize,
    record: Record,
}

impl Columns {
    /// Reads the first line of a file whose columns are `required` and `optional`, in any order.
    pub(super) fn read(
        lines: &mut Lines,
        required: &[&str],
        optional: &[&str],
    ) -> Result<Columns, TraceError> {
        let mut record = Record::default();
        if lines.advance()? {
            record.split(lines)?;
        }
        let known = [required, optional].concat();
        let mut places = vec![None; known.len()];
        for field in 0..record.fields.len() {
            let name = record.get(lines, field);
            let column = known.iter().position(|known| *known == name);
            let place =
                column.map(|column| &mut places[column]).ok_or_else(|| lines.unknown(name, &known))?;
            if place.replace(field).is_some() {
                return Err(lines.problem(format!("column {name} is there twice")));
            }
        }
        match required.iter().zip(&places).find(|(_, place)| place.is_none()) {
            Some((name, _)) => Err(lines.missing(name)),
            None => Ok(Columns { places, fields: record.fields.len(), record }),
        }
    }

    /// Moves to the next row; false at the end.
    pub(super) fn advance(&mut self, lines: &mut Lines) -> Result<bool, TraceError> {
        if !lines.advance()? {
            return Ok(false);
        }
        self.record.split(lines)?;
        let (expected, got) = (self.fields, self.record.fields.len());
        if expected != got {
            return Err(lines.problem(format!("expected {expected} fields as in the header, got {got}")));
        }
        Ok(true)
    }

    /// Whether the file has the column, counted in the same way as for [`Columns::get`].
    pub(super) fn has(&self, column: usize) -> bool {
        self.places[column].is_some()
    }

    /// The value in `column`, counted through the required and then the optional ones; empty where the file
    /// does not have the column.
    pub(super) fn get<'a>(&'a self, lines: &'a Lines, column: usize) -> &'a str {
        self.places[column].map_or("", |field| self.record.get(lines, field))
    }
}
