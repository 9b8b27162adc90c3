//! Comma-separated values with a header.
//!
//! Knows quoting, column names and the number of fields. Does not know what a column means. A value ends
//! with its line, even a quoted one: no column of a trace holds text.

use super::error::TraceError;
use super::lines::Lines;

/// The fields of one line, held in memory that is used again for the next.
#[derive(Default)]
pub(super) struct Record {
    text: String,
    ends: Vec<usize>,
}

impl Record {
    /// Splits the current line.
    pub(super) fn split(&mut self, lines: &Lines) -> Result<(), TraceError> {
        self.text.clear();
        self.ends.clear();
        let mut rest = lines.text();
        loop {
            let after;
            if let Some(quoted) = rest.trim_start().strip_prefix('"') {
                after = self.unquote(quoted).ok_or_else(|| {
                    lines.problem("a quoted field does not end on its line, or text follows it".to_owned())
                })?;
            } else {
                let end = rest.bytes().position(|byte| byte == b',').unwrap_or(rest.len());
                self.text.push_str(rest[..end].trim_ascii());
                after = &rest[end..];
            }
            self.ends.push(self.text.len());
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
            self.text.push_str(part);
            match after.strip_prefix('"') {
                Some(next) => {
                    self.text.push('"');
                    rest = next;
                }
                None => {
                    let after = after.trim_ascii_start();
                    return (after.is_empty() || after.starts_with(',')).then_some(after);
                }
            }
        }
    }

    pub(super) fn len(&self) -> usize {
        self.ends.len()
    }

    /// Field number `index`; empty where the line has fewer.
    pub(super) fn get(&self, index: usize) -> &str {
        let start = if index == 0 { 0 } else { self.ends.get(index - 1).copied().unwrap_or(0) };
        self.ends.get(index).map_or("", |&end| &self.text[start..end])
    }
}

/// Which field of a row holds which of a format's columns.
pub(super) struct Header {
    places: Vec<Option<usize>>,
    fields: usize,
    record: Record,
}

impl Header {
    /// Reads the first line of a file whose columns are `required` and `optional`, in any order.
    pub(super) fn read(
        lines: &mut Lines,
        required: &[&str],
        optional: &[&str],
    ) -> Result<Header, TraceError> {
        let mut record = Record::default();
        if lines.advance()? {
            record.split(lines)?;
        }
        let known = [required, optional].concat();
        let mut places = vec![None; known.len()];
        for field in 0..record.len() {
            let name = record.get(field);
            let column = known.iter().position(|known| *known == name);
            let place =
                column.map(|column| &mut places[column]).ok_or_else(|| lines.unknown(name, &known))?;
            if place.replace(field).is_some() {
                return Err(lines.problem(format!("column {name} is there twice")));
            }
        }
        match required.iter().zip(&places).find(|(_, place)| place.is_none()) {
            Some((name, _)) => Err(lines.missing(name)),
            None => Ok(Header { places, fields: record.len(), record }),
        }
    }

    /// Moves to the next row; false at the end.
    pub(super) fn advance(&mut self, lines: &mut Lines) -> Result<bool, TraceError> {
        if !lines.advance()? {
            return Ok(false);
        }
        self.record.split(lines)?;
        let (expected, got) = (self.fields, self.record.len());
        if expected != got {
            return Err(lines.problem(format!("expected {expected} fields as in the header, got {got}")));
        }
        Ok(true)
    }

    /// The value in `column`, counted through the required and then the optional ones; empty where the file
    /// does not have the column.
    pub(super) fn get(&self, column: usize) -> &str {
        self.places[column].map_or("", |field| self.record.get(field))
    }
}
