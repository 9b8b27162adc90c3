//! How a trace is to be read, where its content alone does not say.
//!
//! Knows the choices a person has. Does not know formats.

use super::error::{TraceError, nearest};

/// How a trace is to be read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReadOptions {
    /// One of [`super::FORMATS`]; told by the content unless given.
    pub format: Option<String>,
    /// Which column or key holds what; if any are given, the file may be any CSV or JSON lines.
    pub columns: Vec<(Field, String)>,
    /// Only rows whose column or key has this value.
    pub filters: Vec<(String, String)>,
    /// What a number in `arrived` counts, with [`ReadOptions::columns`].
    pub time_unit: TimeUnit,
    /// Rows that cannot be read are left out and counted, instead of refusing the file.
    pub lenient: bool,
}

impl ReadOptions {
    /// A file whose content tells its format, or of `format`.
    pub fn of_format(format: Option<&str>) -> ReadOptions {
        ReadOptions { format: format.map(str::to_owned), ..ReadOptions::default() }
    }
}

/// What a column or key may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Field {
    /// When the request came: a number, or a date and time by ISO 8601.
    Arrived,
    /// Prompt length.
    PromptTokens,
    /// Output length.
    OutputTokens,
    /// The limit the client set.
    MaxTokens,
    /// The conversation: a number or any text.
    Session,
    /// Lower is more urgent.
    Priority,
    /// Identity of the text the prompt opens with: a number or any text.
    Prefix,
    /// How many tokens of it.
    PrefixTokens,
    /// A list of identities of equal blocks, numbers or texts.
    Blocks,
    /// Tokens of each of these blocks.
    BlockTokens,
}

impl Field {
    /// All fields by the names that scenarios and command lines use.
    pub const ALL: [(Field, &str); 10] = [
        (Field::Arrived, "arrived"),
        (Field::PromptTokens, "prompt_tokens"),
        (Field::OutputTokens, "output_tokens"),
        (Field::MaxTokens, "max_tokens"),
        (Field::Session, "session"),
        (Field::Priority, "priority"),
        (Field::Prefix, "prefix"),
        (Field::PrefixTokens, "prefix_tokens"),
        (Field::Blocks, "blocks"),
        (Field::BlockTokens, "block_tokens"),
    ];

    /// The field called `name`.
    ///
    /// # Errors
    /// If there is none.
    pub fn by_name(name: &str) -> Result<Field, TraceError> {
        let found = Field::ALL.iter().find(|(_, known)| *known == name);
        found.map(|(field, _)| *field).ok_or_else(|| TraceError::UnknownField {
            name: name.to_owned(),
            nearest: nearest(name, Field::ALL.iter().map(|(_, known)| *known)),
        })
    }

    /// The name that scenarios and command lines use.
    pub fn name(self) -> &'static str {
        Field::ALL[self as usize].1
    }
}

/// What a number of time counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TimeUnit {
    /// Seconds.
    #[default]
    Seconds,
    /// Milliseconds.
    Milliseconds,
    /// Microseconds.
    Microseconds,
    /// Nanoseconds.
    Nanoseconds,
}

impl TimeUnit {
    /// All units by name.
    pub const ALL: [(TimeUnit, &str); 4] = [
        (TimeUnit::Seconds, "s"),
        (TimeUnit::Milliseconds, "ms"),
        (TimeUnit::Microseconds, "us"),
        (TimeUnit::Nanoseconds, "ns"),
    ];

    /// The unit called `name`.
    ///
    /// # Errors
    /// If there is none.
    pub fn by_name(name: &str) -> Result<TimeUnit, TraceError> {
        let found = TimeUnit::ALL.iter().find(|(_, known)| *known == name);
        found.map(|(unit, _)| *unit).ok_or_else(|| TraceError::UnknownUnit { name: name.to_owned() })
    }

    /// Picoseconds of one.
    pub(super) fn ps(self) -> i128 {
        match self {
            TimeUnit::Seconds => 1_000_000_000_000,
            TimeUnit::Milliseconds => 1_000_000_000,
            TimeUnit::Microseconds => 1_000_000,
            TimeUnit::Nanoseconds => 1_000,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_stand_in_their_places() {
        for (place, (field, name)) in Field::ALL.into_iter().enumerate() {
            assert_eq!((field as usize, field.name(), Field::by_name(name).unwrap()), (place, name, field));
        }
        let said = Field::by_name("promt_tokens").unwrap_err().to_string();
        assert!(said.contains("did you mean prompt_tokens?"), "{said}");
    }
}
