//! Any CSV or JSON lines whose columns the user names: what an operator's own logs are.
//!
//! Knows which column or key holds what, keys inside keys (`usage.prompt_tokens`), times as numbers or by ISO 8601, and
//! filters. Columns that nobody named are passed over. Does not know what the file is called elsewhere.

use std::borrow::Cow;

use jiff::{Timestamp, civil, tz::TimeZone};
use serde_json::Value;

use super::TraceRow;
use super::columns::fields_of;
use super::content::{blocks, prefix, text_id};
use super::error::{TraceError, nearest};
use super::lines::{Lines, Opening};
use super::numbers::{decimal_ps, identity, limit, priority, tokens};
use super::options::{Field, ReadOptions, TimeUnit};
use super::rows::{Next, NextRow, Recorded, Skip};
use crate::request::Content;

/// What the user named, in the order of [`Field::ALL`].
struct Mapping {
    names: [Option<String>; Field::ALL.len()],
    filters: Vec<(String, String)>,
    time_unit: TimeUnit,
}

pub(super) fn rows(
    lines: &mut Lines,
    opening: &Opening,
    options: &ReadOptions,
) -> Result<NextRow, TraceError> {
    let mut names: [Option<String>; Field::ALL.len()] = Default::default();
    for (field, name) in &options.columns {
        names[*field as usize] = Some(name.clone());
    }
    let mapping = Mapping { names, filters: options.filters.clone(), time_unit: options.time_unit };
    for field in [Field::PromptTokens, Field::OutputTokens] {
        if mapping.name(field).is_none() {
            let problem = format!("`columns` must say where {} is, as {0} = \"...\"", field.name());
            return Err(TraceError::Options { file: lines.file().to_owned(), problem });
        }
    }
    if opening.first().starts_with('{') {
        return Ok(Box::new(move |lines| {
            if !lines.advance()? {
                return Ok(Next::End);
            }
            let object: Value = serde_json::from_str(lines.text())
                .map_err(|error| lines.problem(format!("not a whole JSON object: {error}")))?;
            mapping.row(lines, &|name| in_object(&object, name))
        }));
    }
    lines.advance()?;
    let header = fields_of(lines)?;
    let named = mapping.names.iter().flatten().chain(mapping.filters.iter().map(|(name, _)| name));
    for name in named {
        if !header.contains(name) {
            let near = nearest(name, header.iter().map(String::as_str));
            return Err(lines.problem(format!(
                "there is no column \"{name}\"; did you mean {near}? The file has: {}",
                header.join(", ")
            )));
        }
    }
    Ok(Box::new(move |lines| {
        if !lines.advance()? {
            return Ok(Next::End);
        }
        let record = fields_of(lines)?;
        if record.len() != header.len() {
            return Err(lines.problem(format!(
                "expected {} fields as in the header, got {}",
                header.len(),
                record.len()
            )));
        }
        let column = |name: &str| {
            let place = header.iter().position(|column| column == name)?;
            Some(Cow::Borrowed(record[place].as_str())).filter(|text| !text.is_empty())
        };
        mapping.row(lines, &column)
    }))
}

/// The value at `path` (`usage.prompt_tokens`) as text; none if it is absent or null.
fn in_object<'a>(object: &'a Value, path: &str) -> Option<Cow<'a, str>> {
    let value = match object.get(path) {
        Some(value) => value,
        None => path.split('.').try_fold(object, |value, key| match value {
            Value::Array(list) => list.get(key.parse::<usize>().ok()?),
            value => value.get(key),
        })?,
    };
    match value {
        Value::Null => None,
        Value::String(text) => Some(Cow::Borrowed(text)),
        value => Some(Cow::Owned(value.to_string())),
    }
}

/// The text in a column, if there is one.
type Look<'a> = &'a dyn Fn(&str) -> Option<Cow<'a, str>>;

impl Mapping {
    fn name(&self, field: Field) -> Option<&str> {
        self.names[field as usize].as_deref()
    }

    fn row<'a>(&'a self, lines: &'a Lines, look: Look<'a>) -> Result<Next, TraceError> {
        if !self.filters.iter().all(|(name, wanted)| look(name).is_some_and(|value| value == wanted.as_str()))
        {
            return Ok(Next::Skip(Skip::Filtered));
        }
        let place = Place { mapping: self, lines, look };
        let arrived_ps = match self.name(Field::Arrived) {
            None => 0,
            Some(_) => place.required(Field::Arrived, |text| {
                time_ps(text, self.time_unit)
                    .ok_or("a number, or a date and time such as 2026-01-31T12:00:00.5Z")
            })?,
        };
        let prompt_tokens = place.required(Field::PromptTokens, tokens)?;
        let output_tokens = place.required(Field::OutputTokens, tokens)?;
        let row = TraceRow {
            max_tokens: place.optional(Field::MaxTokens, limit)?,
            session: place.optional(Field::Session, any_id)?,
            priority: place.optional(Field::Priority, priority)?.unwrap_or(0),
            content: place.content(prompt_tokens)?,
            ..TraceRow::of_lengths(prompt_tokens, output_tokens)
        };
        Ok(Next::Row(Recorded { arrived_ps, row }))
    }
}

/// One record, and how to speak of its values.
struct Place<'a> {
    mapping: &'a Mapping,
    lines: &'a Lines,
    look: Look<'a>,
}

impl Place<'_> {
    fn text(&self, field: Field) -> Option<Cow<'_, str>> {
        (self.look)(self.mapping.name(field)?)
    }

    fn wrong(&self, field: Field, expected: impl Into<String>) -> TraceError {
        let name = self.mapping.name(field).unwrap_or_else(|| field.name());
        self.lines.value(name, expected, &self.text(field).unwrap_or_default())
    }

    fn optional<T>(
        &self,
        field: Field,
        parse: impl Fn(&str) -> Result<T, &'static str>,
    ) -> Result<Option<T>, TraceError> {
        let Some(text) = self.text(field) else { return Ok(None) };
        parse(&text).map(Some).map_err(|expected| self.wrong(field, expected))
    }

    fn required<T>(
        &self,
        field: Field,
        parse: impl Fn(&str) -> Result<T, &'static str>,
    ) -> Result<T, TraceError> {
        let found = self.optional(field, &parse)?;
        found.ok_or_else(|| self.wrong(field, parse("").err().unwrap_or("a value")))
    }

    fn content(&self, prompt_tokens: u32) -> Result<Content, TraceError> {
        if let Some(list) = self.text(Field::Blocks) {
            let wrong = || self.wrong(Field::Blocks, "a list of block identities, [1, 2, ...]");
            let Ok(Value::Array(list)) = serde_json::from_str(&list) else { return Err(wrong()) };
            let id = |value: &Value| match value {
                Value::String(text) => any_id(text).ok(),
                value => value.as_u64(),
            };
            let ids: Vec<u64> = list.iter().map(id).collect::<Option<_>>().ok_or_else(wrong)?;
            let size = self.required(Field::BlockTokens, limit)?;
            let most = prompt_tokens.div_ceil(size);
            if ids.len() > most as usize {
                let expected = format!(
                    "at most {most} ids, one for each started block of {size} of {prompt_tokens} tokens"
                );
                return Err(self.wrong(Field::Blocks, expected));
            }
            return Ok(blocks(prompt_tokens, size, &ids));
        }
        let (id, tokens) =
            (self.optional(Field::Prefix, any_id)?, self.optional(Field::PrefixTokens, tokens)?);
        match (id, tokens) {
            (Some(id), Some(tokens)) => Ok(prefix(id, tokens.min(prompt_tokens))),
            (Some(_), None) if self.mapping.name(Field::PrefixTokens).is_none() => {
                Err(self.wrong(Field::PrefixTokens, "`columns` to say where the prefix's length is"))
            }
            _ => Ok(Content::default()),
        }
    }
}

/// A number below 2^64 is an identity; any other text has one.
fn any_id(text: &str) -> Result<u64, &'static str> {
    Ok(identity(text).unwrap_or_else(|_| text_id(text)))
}

/// Picoseconds of a number, or of a date and time since 1970; one without a zone counts as of UTC.
fn time_ps(text: &str, unit: TimeUnit) -> Option<i128> {
    if let Some(ps) = decimal_ps(text, unit) {
        return Some(ps);
    }
    let zoned = text.parse::<Timestamp>().ok();
    let stamp = zoned.or_else(|| TimeZone::UTC.to_timestamp(text.parse::<civil::DateTime>().ok()?).ok())?;
    Some(stamp.as_nanosecond() * 1_000)
}
