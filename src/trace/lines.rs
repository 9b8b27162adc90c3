//! Lines of text with their numbers, as an editor counts them.
//!
//! Knows byte order marks, line ends, blank lines, UTF-8, and how to say where an error is. Does not know
//! what a line means. (The `csv` crate's own reader counts lines otherwise after blank ones and CR LF.)

use std::io::{BufRead, ErrorKind, Read};

use super::error::{TraceError, nearest, quoted};

/// Longer lines are refused, so that a file without line ends cannot fill the memory. The longest line of
/// a published trace is below 3 kB.
const LONGEST_LINE: u64 = 16 << 20;

/// Reads one line after another into the same memory.
pub(super) struct Lines {
    file: String,
    source: Box<dyn BufRead>,
    /// Bytes of the current line, without its end.
    current: Vec<u8>,
    /// Number of the current line.
    number: u64,
    /// Lines read ahead to recognise the format, last one first.
    ahead: Vec<(u64, Vec<u8>)>,
}

impl Lines {
    pub(super) fn new(file: String, source: Box<dyn BufRead>) -> Lines {
        Lines { file, source, current: Vec::new(), number: 0, ahead: Vec::new() }
    }

    pub(super) fn file(&self) -> &str {
        &self.file
    }

    /// The first two lines that are not blank, to be read again by [`Lines::advance`]; empty where the
    /// file has fewer.
    pub(super) fn opening(&mut self) -> Result<(String, String), TraceError> {
        let mut opening = Vec::new();
        while opening.len() < 2 && self.advance()? {
            opening.push((self.number, self.current.clone()));
        }
        let mut texts = opening.iter().map(|(_, line)| String::from_utf8_lossy(line).into_owned());
        let texts = (texts.next().unwrap_or_default(), texts.next().unwrap_or_default());
        opening.reverse();
        self.ahead = opening;
        Ok(texts)
    }

    /// Moves to the next line that is not blank; false at the end.
    pub(super) fn advance(&mut self) -> Result<bool, TraceError> {
        if let Some((number, line)) = self.ahead.pop() {
            (self.number, self.current) = (number, line);
            return Ok(true);
        }
        loop {
            self.current.clear();
            self.number += 1;
            let mut limited = self.source.as_mut().take(LONGEST_LINE);
            let read = limited.read_until(b'\n', &mut self.current).map_err(|error| self.damaged(&error))?;
            if read == 0 {
                return Ok(false);
            }
            if read as u64 == LONGEST_LINE {
                return Err(self.problem(format!("this line is longer than {LONGEST_LINE} bytes")));
            }
            if self.number == 1 && self.current.starts_with(b"\xef\xbb\xbf") {
                self.current.drain(..3);
            }
            let end = self.current.trim_ascii_end().len();
            self.current.truncate(end);
            if std::str::from_utf8(&self.current).is_err() {
                return Err(self.problem("this line is not UTF-8 text".to_owned()));
            }
            if end > 0 {
                return Ok(true);
            }
        }
    }

    /// The current line, without white space at its end.
    pub(super) fn text(&self) -> &str {
        // `advance` has refused every line that is not UTF-8, so the default is never taken.
        std::str::from_utf8(&self.current).unwrap_or_default()
    }

    fn damaged(&self, error: &std::io::Error) -> TraceError {
        self.problem(match error.kind() {
            ErrorKind::UnexpectedEof => "the compressed data break off here; is the file whole?".to_owned(),
            _ => format!("the data cannot be read on from here: {error}"),
        })
    }

    /// An error about the current line as a whole.
    pub(super) fn problem(&self, problem: String) -> TraceError {
        TraceError::Line { file: self.file.clone(), line: self.number, problem }
    }

    /// An error about `got` in `column` of the current line.
    pub(super) fn value(&self, column: &str, expected: impl Into<String>, got: &str) -> TraceError {
        TraceError::Value {
            file: self.file.clone(),
            line: self.number,
            column: column.to_owned(),
            expected: expected.into(),
            got: if got.is_empty() { "nothing".to_owned() } else { quoted(got) },
        }
    }

    /// An error about a column or key that the format does not have.
    pub(super) fn unknown(&self, column: &str, known: &[&str]) -> TraceError {
        let nearest = nearest(column, known.iter().copied());
        let column = quoted(column);
        self.problem(format!("unknown column {column}; did you mean {nearest}? Known: {}", known.join(", ")))
    }

    /// An error about a column or key that is not there.
    pub(super) fn missing(&self, column: &str) -> TraceError {
        self.problem(format!("column {column} is missing"))
    }

    pub(super) fn unrecognised(&self, first_line: &str) -> TraceError {
        TraceError::Unrecognised { file: self.file.clone(), first_line: quoted(first_line) }
    }
}
