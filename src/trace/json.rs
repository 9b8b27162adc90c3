//! JSON: one object a line, or one document.
//!
//! Knows how to take an object apart and how to say what is wrong with it. Does not know any key.

use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::error::TraceError;
use super::lines::Lines;

/// The object on the current line, whose keys must be among `required` and `optional`. A null counts as an
/// absent key.
pub(super) struct Object<'a> {
    lines: &'a Lines,
    values: Map<String, Value>,
}

impl<'a> Object<'a> {
    pub(super) fn read(
        lines: &'a Lines,
        required: &[&str],
        optional: &[&str],
    ) -> Result<Object<'a>, TraceError> {
        let values = match serde_json::from_str(lines.text()) {
            Ok(Value::Object(values)) => values,
            Ok(_) => return Err(lines.problem("expected one JSON object on each line".to_owned())),
            Err(error) => {
                let said = error.to_string();
                let what = said.split(" at line ").next().unwrap_or_default();
                let column = error.column();
                return Err(lines.problem(format!("not a whole JSON object: {what} at character {column}")));
            }
        };
        let known = || [required, optional].concat();
        if let Some(key) = values.keys().find(|key| !known().contains(&key.as_str())) {
            return Err(lines.unknown(key, &known()));
        }
        let object = Object { lines, values };
        match required.iter().find(|key| object.get(key).is_none()) {
            Some(key) => Err(lines.missing(key)),
            None => Ok(object),
        }
    }

    pub(super) fn get(&self, key: &str) -> Option<&Value> {
        self.values.get(key).filter(|value| !value.is_null())
    }

    /// The value of `key` by `parse`, if it is there. A number is parsed from its digits; everything else
    /// is not what was expected, and neither is a number in quotes.
    pub(super) fn number<T>(
        &self,
        key: &str,
        parse: impl Fn(&str) -> Result<T, &'static str>,
    ) -> Result<Option<T>, TraceError> {
        let Some(value) = self.get(key) else { return Ok(None) };
        let text = value.to_string();
        match parse(&text) {
            Ok(number) => Ok(Some(number)),
            Err(expected) => Err(self.wrong(key, expected)),
        }
    }

    /// The whole numbers below 2^64 in the list that is `value`; none if it is anything else.
    pub(super) fn whole_numbers(value: &Value) -> Option<Vec<u64>> {
        value.as_array()?.iter().map(Value::as_u64).collect()
    }

    /// The characters of the number that is the value of `key`, as the line has them: JSON's own reader
    /// would pass a fraction through floating point. A string's characters stand for it as well.
    pub(super) fn digits(&self, key: &str) -> Option<&str> {
        match self.get(key)? {
            Value::String(text) => Some(text),
            Value::Number(_) => number_text(self.lines.text(), key),
            _ => None,
        }
    }

    /// An error about the value of `key`.
    pub(super) fn wrong(&self, key: &str, expected: impl Into<String>) -> TraceError {
        let got = self.get(key).map(Value::to_string).unwrap_or_default();
        self.lines.value(key, expected, &got)
    }
}

/// The object on the current line.
pub(super) fn parse<T: DeserializeOwned>(lines: &Lines) -> Result<T, TraceError> {
    let mut deserializer = serde_json::Deserializer::from_str(lines.text());
    let parsed = serde_path_to_error::deserialize(&mut deserializer);
    let parsed = parsed.and_then(|value| deserializer.end().map(|()| value).map_err(whole));
    parsed.map_err(|error| lines.problem(said(&error)))
}

/// The document that all lines make.
pub(super) fn parse_document<T: DeserializeOwned>(lines: &mut Lines) -> Result<T, TraceError> {
    let text = lines.rest()?;
    let mut deserializer = serde_json::Deserializer::from_str(&text);
    let parsed = serde_path_to_error::deserialize(&mut deserializer);
    let parsed = parsed.and_then(|value| deserializer.end().map(|()| value).map_err(whole));
    parsed.map_err(|error| lines.problem_at(error.inner().line() as u64, said(&error)))
}

type PathError = serde_path_to_error::Error<serde_json::Error>;

/// An error about nothing in particular.
fn whole(error: serde_json::Error) -> PathError {
    PathError::new(serde_path_to_error::Track::new().path(), error)
}

/// What is wrong, with the way to it.
fn said(error: &PathError) -> String {
    let inner = error.inner().to_string();
    let what = inner.split(" at line ").next().unwrap_or_default();
    let (path, column) = (error.path().to_string(), error.inner().column());
    match path.as_str() {
        "." => format!("not what was expected: {what} at character {column}"),
        path => format!("{path}: {what} at character {column}"),
    }
}

/// The text of the last number that is the value of `key` in the object `line`, which is known to be JSON.
fn number_text<'a>(line: &'a str, key: &str) -> Option<&'a str> {
    let bytes = line.as_bytes();
    let (mut depth, mut place, mut found) = (0, 0, None);
    while place < bytes.len() {
        match bytes[place] {
            b'{' | b'[' => depth += 1,
            b'}' | b']' => depth -= 1,
            b'"' => {
                let start = place + 1;
                place = start;
                while *bytes.get(place)? != b'"' {
                    place += if bytes[place] == b'\\' { 2 } else { 1 };
                }
                let value = line[place + 1..].trim_start().strip_prefix(':');
                if let (1, true, Some(value)) = (depth, &line[start..place] == key, value) {
                    let value = value.trim_start();
                    let end = value.find([',', '}', ' ', '\t']).unwrap_or(value.len());
                    found = Some(&value[..end]);
                }
            }
            _ => {}
        }
        place += 1;
    }
    found
}

#[cfg(test)]
mod tests {
    use super::number_text;

    #[test]
    fn a_number_is_found_as_it_is_written() {
        let line = r#"{"a": {"t": 1}, "b": "t\": 2", "t" : 0.100000000000000001 , "c": ["t"]}"#;
        assert_eq!(number_text(line, "t"), Some("0.100000000000000001"));
        assert_eq!(number_text(line, "z"), None);
    }
}
