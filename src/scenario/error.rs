//! What is wrong with a scenario, where, and how to mend it.

use std::fmt;
use std::ops::Range;

use toml_edit::{Document, Item, Table, Value};

/// A mistake in a scenario file, shown with its line and a caret.
#[derive(Clone, Debug)]
pub struct ScenarioError {
    file: String,
    /// Line and column, counted from 1, and the line's text with the length to underline.
    place: Option<Place>,
    message: String,
    help: Option<String>,
}

#[derive(Clone, Debug)]
struct Place {
    line: usize,
    column: usize,
    text: String,
    width: usize,
}

impl ScenarioError {
    /// A mistake of the file as a whole.
    pub fn of_file(file: &str, message: impl Into<String>) -> ScenarioError {
        ScenarioError { file: file.into(), place: None, message: message.into(), help: None }
    }

    /// With a line that says what to do.
    #[must_use]
    pub fn help(mut self, help: impl Into<String>) -> ScenarioError {
        self.help = Some(help.into());
        self
    }

    /// The same mistake at another place: that of the variant which brought it in.
    pub(super) fn moved_to(self, at: impl FnOnce(&str) -> ScenarioError) -> ScenarioError {
        ScenarioError { help: self.help, ..at(&self.message) }
    }

    /// What the TOML reader says, with the nearest known name where it names those it knows.
    pub(super) fn of_toml(file: &str, text: &str, error: &toml::de::Error) -> ScenarioError {
        let message = error.message().trim();
        let place = error.span().map(|span| Place::new(text, span));
        let mut quoted = message.split('`').skip(1).step_by(2);
        let unknown = message.starts_with("unknown field") || message.starts_with("unknown variant");
        let Some(wrong) = quoted.next().filter(|_| unknown) else {
            let message = in_words(message).unwrap_or_else(|| message.into());
            return ScenarioError { file: file.into(), place, message, help: None };
        };
        let known: Vec<&str> = quoted.collect();
        let what = if message.starts_with("unknown field") { "key" } else { "value" };
        ScenarioError {
            file: file.into(),
            place,
            message: format!("unknown {what} `{wrong}`"),
            help: Some(nearest_or_all(wrong, &known)),
        }
    }

    /// A mistake at the key `path` (such as `replicas.0.max_num_seqs`), or at the nearest table above it
    /// where the key itself is not written.
    pub(super) fn at(file: &str, text: &str, path: &str, message: impl Into<String>) -> ScenarioError {
        let place = locate(text, path).map(|span| Place::new(text, span));
        let message = message.into();
        ScenarioError { file: file.into(), place, message: format!("{path}: {message}"), help: None }
    }
}

/// A value of the wrong kind, in the words of a TOML file instead of those of our types; none for other mistakes.
pub(super) fn in_words(message: &str) -> Option<String> {
    if let Some(key) = message.strip_prefix("missing field ") {
        return Some(format!("{key} is missing here"));
    }
    // Of a value that is one of several words.
    if message == "wanted string or table" {
        return Some("expected text in quotes".into());
    }
    let mismatch =
        message.strip_prefix("invalid type: ").or_else(|| message.strip_prefix("invalid value: "))?;
    let (got, wanted) = mismatch.rsplit_once(", expected ")?;
    let wanted = match wanted {
        "u8" | "u16" | "u32" | "u64" | "usize" => "a whole number, not below 0",
        "i8" | "i16" | "i32" | "i64" | "isize" => "a whole number",
        "f32" | "f64" => "a number",
        "a string" => "text in quotes",
        "a boolean" => "true or false",
        "a sequence" => "a list in [ ]",
        "a map" => "a table",
        "string only" => "text in quotes",
        wanted if wanted.starts_with("internally tagged enum") => "a table, such as { type = \"...\" }",
        wanted if wanted.starts_with("struct ") => "a table",
        wanted => wanted,
    };
    let got = match got {
        "sequence" => "a list",
        "map" => "a table",
        "unit variant" => "something else",
        // A number or a truth value stands in quotation marks behind its type's name.
        got => got.split('`').nth(1).unwrap_or(got),
    };
    Some(format!("expected {wanted}, got {got}"))
}

/// "did you mean ...", or the list of all names where none is near.
pub fn nearest_or_all(wrong: &str, known: &[&str]) -> String {
    let near = known
        .iter()
        .map(|name| (strsim::jaro_winkler(&wrong.to_lowercase(), &name.to_lowercase()), *name))
        .filter(|(likeness, _)| *likeness > 0.75)
        .max_by(|a, b| a.0.total_cmp(&b.0));
    match near {
        Some((_, name)) => format!("did you mean `{name}`?"),
        None => format!(
            "known are {}",
            known.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
        ),
    }
}

impl Place {
    fn new(text: &str, span: Range<usize>) -> Place {
        let start = span.start.min(text.len());
        let before = &text[..start];
        let line = before.matches('\n').count() + 1;
        let line_start = before.rfind('\n').map_or(0, |at| at + 1);
        let line_end = text[line_start..].find('\n').map_or(text.len(), |at| line_start + at);
        let end = span.end.clamp(start, line_end.max(start));
        Place {
            line,
            column: text[line_start..start].chars().count() + 1,
            text: text[line_start..line_end].trim_end().to_string(),
            width: text[start..end].chars().count().max(1),
        }
    }
}

/// The bytes of the value at a dotted path; where it is not written, those of the table that would hold it.
fn locate(text: &str, path: &str) -> Option<Range<usize>> {
    let document = Document::parse(text).ok()?;
    let mut at = At::Item(document.as_item());
    let mut found = None;
    for part in path.split('.') {
        let Some(next) = at.child(part) else { break };
        found = next.span().or(found);
        at = next;
    }
    found
}

/// A place in a parsed document, whichever way it was written.
enum At<'a> {
    Item(&'a Item),
    Table(&'a Table),
    Value(&'a Value),
}

impl<'a> At<'a> {
    fn child(&self, part: &str) -> Option<At<'a>> {
        let index = part.parse::<usize>().ok();
        match self {
            At::Item(Item::Table(table)) => table.get(part).map(At::Item),
            At::Item(Item::ArrayOfTables(tables)) => tables.get(index?).map(At::Table),
            At::Item(Item::Value(value)) => At::Value(value).child(part),
            At::Item(Item::None) => None,
            At::Table(table) => table.get(part).map(At::Item),
            At::Value(Value::InlineTable(table)) => table.get(part).map(At::Value),
            At::Value(Value::Array(array)) => array.get(index?).map(At::Value),
            At::Value(_) => None,
        }
    }

    fn span(&self) -> Option<Range<usize>> {
        match self {
            At::Item(item) => item.span(),
            At::Table(table) => table.span(),
            At::Value(value) => value.span(),
        }
    }
}

impl fmt::Display for ScenarioError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.place {
            None => write!(f, "{}: {}", self.file, self.message)?,
            Some(place) => {
                let margin = " ".repeat(place.line.to_string().len());
                let indent = " ".repeat(place.column - 1);
                let carets = "^".repeat(place.width.min(place.text.chars().count() + 1));
                writeln!(f, "{}:{}:{}: {}", self.file, place.line, place.column, self.message)?;
                writeln!(f, "{margin} |")?;
                writeln!(f, "{} | {}", place.line, place.text)?;
                write!(f, "{margin} | {indent}{carets}")?;
            }
        }
        if let Some(help) = &self.help {
            write!(f, "\nhelp: {help}")?;
        }
        Ok(())
    }
}

impl std::error::Error for ScenarioError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wrong_kinds_are_told_in_the_words_of_a_file() {
        #[derive(serde::Deserialize)]
        #[expect(dead_code, reason = "only what cannot be read is looked at")]
        struct Inner {
            count: u32,
            share: f64,
            name: String,
            list: Vec<bool>,
            word: Word,
        }
        #[derive(serde::Deserialize)]
        #[serde(rename_all = "kebab-case")]
        enum Word {
            One,
        }
        #[derive(serde::Deserialize)]
        #[expect(dead_code, reason = "only what cannot be read is looked at")]
        struct Outer {
            table: Inner,
        }
        let told = |line: &str| {
            let text = format!("[table]\n{line}\n");
            let error = toml::from_str::<Outer>(&text).err().expect("something is wrong");
            ScenarioError::of_toml("f.toml", &text, &error).to_string().lines().next().unwrap().to_string()
        };
        assert_eq!(told("count = 0.5"), "f.toml:2:9: expected a whole number, not below 0, got 0.5");
        assert_eq!(told("count = -1"), "f.toml:2:9: expected a whole number, not below 0, got -1");
        assert_eq!(
            told("share = \"a, expected b\""),
            "f.toml:2:9: expected a number, got string \"a, expected b\""
        );
        assert_eq!(told("share = true"), "f.toml:2:9: expected a number, got true");
        assert_eq!(told("name = 3"), "f.toml:2:8: expected text in quotes, got 3");
        assert_eq!(told("list = 3"), "f.toml:2:8: expected a list in [ ], got 3");
        assert_eq!(told("list = [3]"), "f.toml:2:9: expected true or false, got 3");
        assert_eq!(told("name = [1]"), "f.toml:2:8: expected text in quotes, got a list");
        assert_eq!(told("word = 5"), "f.toml:2:8: expected text in quotes");
        assert_eq!(told(""), "f.toml:1:1: `count` is missing here");
        let error = toml::from_str::<Outer>("table = 3").err().expect("a number is no table");
        let told = ScenarioError::of_toml("f.toml", "table = 3", &error).to_string();
        assert!(told.starts_with("f.toml:1:9: expected a table, got 3"), "{told}");
    }
}
