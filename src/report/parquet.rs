//! Any of the CSV tables as Parquet, for notebooks and query engines.
//!
//! Knows columns by their content: whole numbers, numbers, or texts; an empty cell is null. A column whose name says that it
//! measures something holds doubles, whatever its values happen to be.

use std::sync::Arc;

use parquet::basic::{Compression, LogicalType, Repetition, Type as PhysicalType, ZstdLevel};
use parquet::data_type::{ByteArray, ByteArrayType, DataType, DoubleType, Int64Type};
use parquet::errors::ParquetError;
use parquet::file::properties::WriterProperties;
use parquet::file::writer::{SerializedFileWriter, SerializedRowGroupWriter};
use parquet::schema::types::Type;

/// Why a table cannot be written.
#[derive(Debug, thiserror::Error)]
pub enum ParquetTableError {
    /// It is no CSV.
    #[error(transparent)]
    Csv(#[from] csv::Error),
    /// It cannot be put together.
    #[error(transparent)]
    Parquet(#[from] ParquetError),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Whole,
    Number,
    Text,
}

/// Ends of names of columns that measure something.
const MEASURES: [&str; 8] =
    ["_ms", "_s", "_share", "_usage", "_rate", "_factor", "_tokens_usd", "mean_replicas"];

/// Columns that name something, even if it looks like a number.
const NAMES: [&str; 4] = ["name", "finish", "class", "policy"];

/// Rows of a row group.
const GROUP: usize = 1 << 17;

/// The table as a Parquet file.
///
/// # Errors
/// If it is not a table, or cannot be put together.
pub fn of_csv(bytes: &[u8]) -> Result<Vec<u8>, ParquetTableError> {
    let mut reader = csv::Reader::from_reader(bytes);
    let names: Vec<String> = reader.headers()?.iter().map(String::from).collect();
    let mut columns: Vec<Vec<String>> = vec![Vec::new(); names.len()];
    for row in reader.records() {
        for (column, cell) in columns.iter_mut().zip(row?.iter()) {
            column.push(cell.to_string());
        }
    }
    let kinds: Vec<Kind> = names.iter().zip(&columns).map(|(name, cells)| kind(name, cells)).collect();
    let fields = names.iter().zip(&kinds).map(|(name, kind)| field(name, *kind).map(Arc::new));
    let schema = Type::group_type_builder("tailcast")
        .with_fields(fields.collect::<Result<Vec<Arc<Type>>, ParquetError>>()?)
        .build()?;
    let properties =
        WriterProperties::builder().set_compression(Compression::ZSTD(ZstdLevel::default())).build();
    let mut writer = SerializedFileWriter::new(Vec::new(), Arc::new(schema), Arc::new(properties))?;
    let rows = columns.first().map_or(0, Vec::len);
    for from in (0..rows).step_by(GROUP) {
        let to = rows.min(from + GROUP);
        let mut group = writer.next_row_group()?;
        for (column, kind) in columns.iter().zip(&kinds) {
            let cells = &column[from..to];
            match kind {
                Kind::Whole => write::<Int64Type>(&mut group, cells, |cell| cell.parse().ok())?,
                Kind::Number => write::<DoubleType>(&mut group, cells, |cell| cell.parse().ok())?,
                Kind::Text => write::<ByteArrayType>(&mut group, cells, |cell| Some(ByteArray::from(cell)))?,
            }
        }
        group.close()?;
    }
    Ok(writer.into_inner()?)
}

fn kind(name: &str, cells: &[String]) -> Kind {
    let told = || cells.iter().filter(|cell| !cell.is_empty());
    if NAMES.contains(&name) || !told().all(|cell| cell.parse::<f64>().is_ok()) {
        Kind::Text
    } else if MEASURES.iter().any(|end| name.ends_with(end))
        || !told().all(|cell| cell.parse::<i64>().is_ok())
    {
        Kind::Number
    } else {
        Kind::Whole
    }
}

fn field(name: &str, kind: Kind) -> Result<Type, ParquetError> {
    let (physical, logical) = match kind {
        Kind::Whole => (PhysicalType::INT64, None),
        Kind::Number => (PhysicalType::DOUBLE, None),
        Kind::Text => (PhysicalType::BYTE_ARRAY, Some(LogicalType::String)),
    };
    Type::primitive_type_builder(name, physical)
        .with_repetition(Repetition::OPTIONAL)
        .with_logical_type(logical)
        .build()
}

fn write<T: DataType>(
    group: &mut SerializedRowGroupWriter<'_, Vec<u8>>,
    cells: &[String],
    value: impl Fn(&str) -> Option<T::T>,
) -> Result<(), ParquetError> {
    let (mut present, mut levels) = (Vec::new(), Vec::with_capacity(cells.len()));
    for cell in cells {
        let value = if cell.is_empty() { None } else { value(cell) };
        levels.push(i16::from(value.is_some()));
        present.extend(value);
    }
    let mut column =
        group.next_column()?.ok_or_else(|| ParquetError::General("the schema has fewer columns".into()))?;
    column.typed::<T>().write_batch(&present, Some(&levels), None)?;
    column.close()
}

#[cfg(test)]
mod tests {
    use parquet::file::reader::{FileReader, SerializedFileReader};
    use parquet::record::Field;

    use super::*;

    #[test]
    fn columns_have_the_kinds_of_their_cells() {
        let csv = "name,replica,ttft_ms,steps\n7,0,12,3\n8,,,4\n";
        let file = SerializedFileReader::new(bytes::Bytes::from(of_csv(csv.as_bytes()).unwrap())).unwrap();
        let rows: Vec<Vec<Field>> = file
            .get_row_iter(None)
            .unwrap()
            .map(|row| row.unwrap().get_column_iter().map(|(_, field)| field.clone()).collect())
            .collect();
        let text = |text: &str| Field::Str(text.into());
        assert_eq!(
            rows,
            [
                vec![text("7"), Field::Long(0), Field::Double(12.0), Field::Long(3)],
                vec![text("8"), Field::Null, Field::Null, Field::Long(4)],
            ]
        );
    }
}
