//! tailcast's own CSV, for traces of one's own.
//!
//! Knows its columns, which may stand in any order; an empty field of an optional one means that the row
//! does not say. Does not know blocks: a row names at most one shared prefix.

use super::TraceRow;
use super::columns::Columns;
use super::content::prefix;
use super::error::TraceError;
use super::lines::{Lines, Opening};
use super::numbers::{identity, limit, priority, seconds, tokens};
use super::rows::{Next, NextRow, Recorded};
use crate::request::Content;

const REQUIRED: [&str; 3] = ["arrived_s", "prompt_tokens", "output_tokens"];
const OPTIONAL: [&str; 5] = ["max_tokens", "session", "priority", "prefix", "prefix_tokens"];

// Places of the columns in the two lists above, one after the other.
const ARRIVED: usize = 0;
const PROMPT: usize = 1;
const OUTPUT: usize = 2;
const LIMIT: usize = 3;
const SESSION: usize = 4;
const PRIORITY: usize = 5;
const PREFIX: usize = 6;
const PREFIX_TOKENS: usize = 7;

/// One or two names are enough: a misspelt or missing other is then told as such.
pub(super) fn recognises(opening: &Opening) -> bool {
    let has = |column: &str| opening.first().split(',').any(|name| name.trim().trim_matches('"') == column);
    has("arrived_s") || has("prompt_tokens") && has("output_tokens")
}

pub(super) fn rows(lines: &mut Lines) -> Result<NextRow, TraceError> {
    let mut columns = Columns::read(lines, &REQUIRED, &OPTIONAL)?;
    Ok(Box::new(move |lines| {
        if !columns.advance(lines)? {
            return Ok(Next::End);
        }
        let fields = Fields { lines, columns: &columns };
        let arrived_ps = fields.required(ARRIVED, seconds)?;
        let prompt_tokens = fields.required(PROMPT, tokens)?;
        let row = TraceRow {
            max_tokens: fields.optional(LIMIT, limit)?,
            content: fields.content(prompt_tokens)?,
            session: fields.optional(SESSION, identity)?,
            priority: fields.optional(PRIORITY, priority)?.unwrap_or(0),
            ..TraceRow::of_lengths(prompt_tokens, fields.required(OUTPUT, tokens)?)
        };
        Ok(Next::Row(Recorded { arrived_ps, row }))
    }))
}

/// The values of one row.
struct Fields<'a> {
    lines: &'a Lines,
    columns: &'a Columns,
}

type Parse<T> = fn(&str) -> Result<T, &'static str>;

impl Fields<'_> {
    fn required<T>(&self, column: usize, parse: Parse<T>) -> Result<T, TraceError> {
        parse(self.columns.get(self.lines, column)).map_err(|expected| self.wrong(column, expected))
    }

    fn optional<T>(&self, column: usize, parse: Parse<T>) -> Result<Option<T>, TraceError> {
        if self.columns.get(self.lines, column).is_empty() {
            return Ok(None);
        }
        self.required(column, parse).map(Some)
    }

    fn content(&self, prompt_tokens: u32) -> Result<Content, TraceError> {
        match (self.optional(PREFIX, identity)?, self.optional(PREFIX_TOKENS, tokens)?) {
            (None, None) => Ok(Content::default()),
            (Some(_), None) => Err(self.wrong(PREFIX_TOKENS, "the length of the prefix that the row names")),
            (None, Some(0)) => Ok(Content::default()),
            (None, Some(_)) => Err(self.wrong(PREFIX, "the id of the prefix whose length the row gives")),
            (Some(_), Some(tokens)) if tokens > prompt_tokens => {
                Err(self.wrong(PREFIX_TOKENS, format!("at most the prompt's {prompt_tokens} tokens")))
            }
            (Some(id), Some(tokens)) => Ok(prefix(id, tokens)),
        }
    }

    fn wrong(&self, column: usize, expected: impl Into<String>) -> TraceError {
        let name = REQUIRED.iter().chain(&OPTIONAL).nth(column).copied().unwrap_or_default();
        self.lines.value(name, expected, self.columns.get(self.lines, column))
    }
}
