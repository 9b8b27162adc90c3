//! Lines of text with their numbers, as an editor counts them.
//!
//! Knows byte order marks, line ends, blank lines, UTF-8, and how to say where an error is. Does not know
//! what a line means. (The `csv` crate's own reader counts lines otherwise after blank ones and CR LF.)

use std::io::{self, BufRead, ErrorKind, Read};
use std::mem;

use super::error::{TraceError, meant, quoted};

/// Longer lines are refused, so that a file without line ends cannot fill the memory. The longest line of
/// a published trace is below 3 kB.
const LONGEST_LINE: usize = 16 << 20;

/// Bytes asked of the file at a time: some thousand lines, and still within a core's own cache.
const BLOCK: usize = 1 << 18;

/// Gives one line after another out of blocks of whole lines, which are checked and kept as one text: a
/// line is a part of it, and nothing is copied.
pub(super) struct Lines {
    file: String,
    source: Box<dyn Read + Send>,
    /// Whole lines; only the last line of a file may lack its end.
    block: String,
    /// Where in `block` the line after the current one begins.
    next: usize,
    /// What follows the block's last line.
    after: After,
    /// Beginning of the line that the block's end cut off.
    cut_off: Vec<u8>,
    /// Where in `block` the current line lies, without white space at its end.
    current: (usize, usize),
    /// Number of the current line.
    number: u64,
}

/// What follows the last whole line of a block.
enum After {
    More,
    End,
    TooLong,
    NotText,
    Damaged(io::Error),
}

impl Lines {
    pub(super) fn new(file: String, source: Box<dyn Read + Send>) -> Lines {
        Lines {
            file,
            source,
            block: String::new(),
            next: 0,
            after: After::More,
            cut_off: Vec::new(),
            current: (0, 0),
            number: 0,
        }
    }

    pub(super) fn file(&self) -> &str {
        &self.file
    }

    /// Everything from here on as one text, whatever its lines: for formats that are one document.
    pub(super) fn rest(&mut self) -> Result<String, TraceError> {
        let mut bytes = Vec::new();
        self.number = 1;
        self.source.read_to_end(&mut bytes).map_err(|error| self.damaged(&error))?;
        let text = String::from_utf8(bytes).map_err(|error| {
            let line = 1 + error.as_bytes()[..error.utf8_error().valid_up_to()]
                .iter()
                .filter(|&&byte| byte == b'\n')
                .count();
            self.number = line as u64;
            self.broken("this line is not UTF-8 text".to_owned())
        })?;
        Ok(text.strip_prefix('\u{feff}').map(str::to_owned).unwrap_or(text))
    }

    /// Moves to the next line that is not blank; false at the end.
    pub(super) fn advance(&mut self) -> Result<bool, TraceError> {
        loop {
            self.number += 1;
            if self.next == self.block.len() && !self.next_block()? {
                return Ok(false);
            }
            let mut start = self.next;
            let length = line_length(&self.block.as_bytes()[start..]);
            self.next += length;
            if length >= LONGEST_LINE {
                return Err(self.too_long());
            }
            if self.number == 1 && self.block.starts_with('\u{feff}') {
                start += '\u{feff}'.len_utf8();
            }
            let end = start + self.block[start..self.next].trim_ascii_end().len();
            self.current = (start, end);
            if end > start {
                return Ok(true);
            }
        }
    }

    /// Reads on until there is at least one whole line; false at the end of the file.
    fn next_block(&mut self) -> Result<bool, TraceError> {
        match mem::replace(&mut self.after, After::End) {
            After::More => {}
            After::End => return Ok(false),
            After::TooLong => return Err(self.too_long()),
            After::NotText => return Err(self.broken("this line is not UTF-8 text".to_owned())),
            After::Damaged(error) => return Err(self.damaged(&error)),
        }
        let mut bytes = mem::take(&mut self.block).into_bytes();
        bytes.clear();
        bytes.append(&mut self.cut_off);
        self.next = 0;
        let (whole, after) = self.read_lines(&mut bytes);
        self.cut_off.extend_from_slice(&bytes[whole..]);
        bytes.truncate(whole);
        self.after = after;
        self.block = String::from_utf8(bytes).unwrap_or_else(|error| {
            // The lines before the one that is no text are good, and come first.
            self.after = After::NotText;
            let good = error.utf8_error().valid_up_to();
            let mut bytes = error.into_bytes();
            bytes.truncate(whole_lines(&bytes[..good]));
            String::from_utf8(bytes).unwrap_or_default()
        });
        if self.block.is_empty() { self.next_block() } else { Ok(true) }
    }

    /// Adds to `bytes` until they hold a whole line: where the last one ends, and what follows it.
    fn read_lines(&mut self, bytes: &mut Vec<u8>) -> (usize, After) {
        loop {
            let before = bytes.len();
            bytes.reserve(BLOCK);
            match self.source.as_mut().take(BLOCK as u64).read_to_end(bytes) {
                Ok(BLOCK) => {}
                Ok(_) => return (bytes.len(), After::End),
                Err(error) => return (whole_lines(bytes), After::Damaged(error)),
            }
            let whole = before + whole_lines(&bytes[before..]);
            if whole > before {
                return (whole, After::More);
            }
            if bytes.len() >= LONGEST_LINE {
                return (0, After::TooLong);
            }
        }
    }

    /// The current line, without white space at its end.
    pub(super) fn text(&self) -> &str {
        &self.block[self.current.0..self.current.1]
    }

    fn too_long(&self) -> TraceError {
        self.broken(format!("this line is longer than {LONGEST_LINE} bytes"))
    }

    fn damaged(&self, error: &io::Error) -> TraceError {
        self.broken(match error.kind() {
            ErrorKind::UnexpectedEof => "the compressed data break off here; is the file whole?".to_owned(),
            _ => format!("the data cannot be read on from here: {error}"),
        })
    }

    fn broken(&self, problem: String) -> TraceError {
        TraceError::Broken { file: self.file.clone(), line: self.number, problem }
    }

    /// An error about the current line as a whole.
    pub(super) fn problem(&self, problem: String) -> TraceError {
        TraceError::Line { file: self.file.clone(), line: self.number, problem }
    }

    /// An error at line `number` of a text that was read whole.
    pub(super) fn problem_at(&self, number: u64, problem: String) -> TraceError {
        TraceError::Line { file: self.file.clone(), line: number.max(1), problem }
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
        // A name that is like none of these is no slip of the pen: the file is somebody's own.
        let meant = match meant(column, known.iter().copied()) {
            Some(name) => format!("did you mean {name}?"),
            None => "if it is a log of your own, say what is what: --columns arrived=...".to_string(),
        };
        self.problem(format!("unknown column {}; {meant} Known: {}", quoted(column), known.join(", ")))
    }

    /// An error about a column or key that is not there.
    pub(super) fn missing(&self, column: &str) -> TraceError {
        self.problem(format!("column {column} is missing"))
    }
}

/// How a file opens, for formats to recognise it.
pub(super) struct Opening {
    /// Its first bytes, as text.
    pub(super) head: String,
}

impl Opening {
    /// Of these first bytes; a letter that they cut off is no harm.
    pub(super) fn of(head: &[u8]) -> Opening {
        let text = String::from_utf8_lossy(head);
        Opening { head: text.strip_prefix('\u{feff}').unwrap_or(&text).to_owned() }
    }

    /// The first line that is not blank, without white space at its end; empty if there is none.
    pub(super) fn first(&self) -> &str {
        self.lines().next().unwrap_or_default()
    }

    /// The one after it.
    pub(super) fn second(&self) -> &str {
        self.lines().nth(1).unwrap_or_default()
    }

    fn lines(&self) -> impl Iterator<Item = &str> {
        self.head.lines().map(str::trim_ascii_end).filter(|line| !line.is_empty())
    }
}

/// Length of the first line of `bytes`, its end included.
fn line_length(mut bytes: &[u8]) -> usize {
    // Skipping in a slice cannot fail; it is how the standard library offers its quick search for a byte.
    let length = bytes.len();
    bytes.skip_until(b'\n').unwrap_or(length)
}

/// Length of the whole lines of `bytes`.
fn whole_lines(bytes: &[u8]) -> usize {
    bytes.iter().rposition(|&byte| byte == b'\n').map_or(0, |place| place + 1)
}
