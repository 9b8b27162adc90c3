//! tailcast's own Parquet: a row a request, with the columns of its JSON lines.
//!
//! Knows its schema: `arrived_ps`, `prompt_tokens`, `output_tokens`, and optional `max_tokens`, `session`, `priority`,
//! `runs` and `waits`, the last two as JSON text. A file of another schema is told which column is missing. Does not
//! stream: a Parquet file is read from its end.

use std::io::{self, Write};
use std::sync::Arc;

use parquet::basic::{Compression, ZstdLevel};
use parquet::data_type::{ByteArray, ByteArrayType, DataType, Int32Type, Int64Type};
use parquet::errors::ParquetError;
use parquet::file::properties::WriterProperties;
use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::file::writer::{SerializedFileWriter, SerializedRowGroupWriter};
use parquet::record::{Field, Row};
use parquet::schema::parser::parse_message_type;

use super::error::TraceError;
use super::plain_jsonl::{runs, waits};
use super::rows::{Next, NextRow, Recorded, document};
use super::write::{runs_json, waits_json};
use super::{Trace, TraceRow};

/// How every Parquet file begins.
pub(super) const MAGIC: &[u8] = b"PAR1";

const SCHEMA: &str = "message requests {
    required int64 arrived_ps;
    required int32 prompt_tokens (integer(32, false));
    required int32 output_tokens (integer(32, false));
    optional int32 max_tokens (integer(32, false));
    optional int64 session (integer(64, false));
    optional int32 priority;
    optional byte_array runs (string);
    optional byte_array waits (string);
}";

/// Rows of one group, which are held until it is whole.
const GROUP: usize = 1 << 17;

pub(super) fn rows(file: &str, bytes: Vec<u8>) -> Result<NextRow, TraceError> {
    let problem = |what: String| TraceError::Options { file: file.to_owned(), problem: what };
    let broken = |error: ParquetError| problem(format!("is not a whole Parquet file: {error}"));
    let reader = SerializedFileReader::new(bytes::Bytes::from(bytes)).map_err(broken)?;
    let names: Vec<String> = reader
        .metadata()
        .file_metadata()
        .schema()
        .get_fields()
        .iter()
        .map(|field| field.name().to_owned())
        .collect();
    for wanted in ["arrived_ps", "prompt_tokens", "output_tokens"] {
        if !names.iter().any(|name| name == wanted) {
            return Err(problem(format!("column {wanted} is missing; the file has: {}", names.join(", "))));
        }
    }
    let mut rows = Vec::new();
    for (number, row) in reader.get_row_iter(None).map_err(broken)?.enumerate() {
        let row = row.map_err(broken)?;
        let recorded = recorded(&row).map_err(|(column, expected)| TraceError::Value {
            file: file.to_owned(),
            line: number as u64 + 1,
            column: column.to_owned(),
            expected: expected.to_owned(),
            got: value(&row, column).map_or("nothing".to_owned(), |field| format!("\"{field}\"")),
        })?;
        rows.push(Next::Row(recorded));
    }
    Ok(document(rows))
}

fn value<'a>(row: &'a Row, column: &str) -> Option<&'a Field> {
    row.get_column_iter().find(|(name, _)| *name == column).map(|(_, field)| field)
}

type Wrong = (&'static str, &'static str);

fn recorded(row: &Row) -> Result<Recorded, Wrong> {
    let whole = |column: &'static str| match value(row, column) {
        None | Some(Field::Null) => Ok(None),
        Some(Field::Byte(number)) => Ok(Some(i128::from(*number))),
        Some(Field::Short(number)) => Ok(Some(i128::from(*number))),
        Some(Field::Int(number)) => Ok(Some(i128::from(*number))),
        Some(Field::Long(number)) => Ok(Some(i128::from(*number))),
        Some(Field::UByte(number)) => Ok(Some(i128::from(*number))),
        Some(Field::UShort(number)) => Ok(Some(i128::from(*number))),
        Some(Field::UInt(number)) => Ok(Some(i128::from(*number))),
        Some(Field::ULong(number)) => Ok(Some(i128::from(*number))),
        Some(_) => Err((column, "a whole number")),
    };
    let count = |column: &'static str| {
        let number = whole(column)?;
        number.map(u32::try_from).transpose().map_err(|_| (column, "a whole number of tokens"))
    };
    let text = |column: &'static str| match value(row, column) {
        None | Some(Field::Null) => Ok(None),
        Some(Field::Str(text)) => Ok(Some(text.as_str())),
        Some(_) => Err((column, "a text")),
    };
    let tokens = |column: &'static str| count(column)?.ok_or((column, "a whole number of tokens"));
    let arrived_ps = whole("arrived_ps")?.ok_or(("arrived_ps", "whole picoseconds"))?;
    let session =
        whole("session")?.map(u64::try_from).transpose().map_err(|_| ("session", "a whole number"))?;
    let priority =
        whole("priority")?.map(i32::try_from).transpose().map_err(|_| ("priority", "a small number"))?;
    let mut request = TraceRow::of_lengths(tokens("prompt_tokens")?, tokens("output_tokens")?);
    request.max_tokens = count("max_tokens")?.filter(|&limit| limit > 0);
    request.session = session;
    request.priority = priority.unwrap_or(0);
    let parse = |text: &str| serde_json::from_str(text).unwrap_or_default();
    if let Some(text) = text("runs")? {
        request.content = runs(&parse(text)).ok_or(("runs", "[[stream, position, tokens], ...]"))?;
    }
    if let Some(text) = text("waits")? {
        request.waits = waits(&parse(text)).ok_or(("waits", "[[row, picoseconds or null], ...]"))?;
    }
    Ok(Recorded { arrived_ps, row: request })
}

pub(super) fn write(trace: &Trace, to: &mut dyn Write) -> io::Result<()> {
    write_all(trace, to).map_err(io::Error::other)
}

fn write_all(trace: &Trace, to: &mut dyn Write) -> Result<(), ParquetError> {
    let schema = Arc::new(parse_message_type(SCHEMA)?);
    let properties =
        WriterProperties::builder().set_compression(Compression::ZSTD(ZstdLevel::default())).build();
    // The writer wants to own what it writes to, and to send it between threads.
    let mut writer = SerializedFileWriter::new(Vec::new(), schema, Arc::new(properties))?;
    for rows in trace.rows.chunks(GROUP) {
        let mut group = writer.next_row_group()?;
        let all = vec![1; rows.len()];
        let arrived: Vec<i64> = rows.iter().map(|row| row.arrived.as_ps() as i64).collect();
        column::<Int64Type>(&mut group, &arrived, None)?;
        let lengths =
            |length: fn(&TraceRow) -> u32| rows.iter().map(|row| length(row) as i32).collect::<Vec<i32>>();
        column::<Int32Type>(&mut group, &lengths(|row| row.prompt_tokens), None)?;
        column::<Int32Type>(&mut group, &lengths(|row| row.output_tokens), None)?;
        optional::<Int32Type>(&mut group, rows.iter().map(|row| row.max_tokens.map(|limit| limit as i32)))?;
        optional::<Int64Type>(&mut group, rows.iter().map(|row| row.session.map(|session| session as i64)))?;
        let priorities: Vec<i32> = rows.iter().map(|row| row.priority).collect();
        column::<Int32Type>(&mut group, &priorities, Some(&all))?;
        let json =
            |is_empty: bool, text: &dyn Fn() -> String| (!is_empty).then(|| ByteArray::from(text().as_str()));
        optional::<ByteArrayType>(
            &mut group,
            rows.iter().map(|row| json(row.content.runs().is_empty(), &|| runs_json(&row.content))),
        )?;
        optional::<ByteArrayType>(
            &mut group,
            rows.iter().map(|row| json(row.waits.is_empty(), &|| waits_json(row))),
        )?;
        group.close()?;
    }
    let bytes = writer.into_inner()?;
    to.write_all(&bytes).map_err(|error| ParquetError::External(Box::new(error)))
}

fn optional<T: DataType>(
    group: &mut SerializedRowGroupWriter<'_, Vec<u8>>,
    values: impl Iterator<Item = Option<T::T>>,
) -> Result<(), ParquetError> {
    let (mut present, mut levels) = (Vec::new(), Vec::new());
    for value in values {
        levels.push(i16::from(value.is_some()));
        present.extend(value);
    }
    column::<T>(group, &present, Some(&levels))
}

fn column<T: DataType>(
    group: &mut SerializedRowGroupWriter<'_, Vec<u8>>,
    values: &[T::T],
    levels: Option<&[i16]>,
) -> Result<(), ParquetError> {
    let mut column =
        group.next_column()?.ok_or_else(|| ParquetError::General("the schema has fewer columns".into()))?;
    column.typed::<T>().write_batch(values, levels, None)?;
    column.close()
}
