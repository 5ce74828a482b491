//! Samples of Parquet: the schema in the file's footer.

use arrow::datatypes::DataType;
use bytes::Bytes;
use parquet::arrow::parquet_to_arrow_schema;
use parquet::errors::ParquetError;
use parquet::file::metadata::{ParquetMetaData, ParquetMetaDataReader};

use super::merge::{SampledColumn, Shape};
use super::{FileFault, FileFormat, Sample};
use shared::model::ColumnType;
use shared::model::name::to_column_name;

/// Bytes at the end of a file that hold most footers whole.
pub const FOOTER_BYTES: u64 = 64 << 10;

/// The bytes that every Parquet file begins and ends with.
pub const MAGIC: &[u8] = b"PAR1";

/// What the end of a file says.
#[derive(Debug)]
pub enum Footer {
    /// So many bytes at the end of the file are needed.
    Needs(u64),
    Sample(Box<Sample>),
}

/// Reads the footer from `tail`, the last bytes of a file of `size` bytes.
///
/// # Errors
/// `Truncated` when the file does not end as Parquet does; `Corrupt` when the footer makes no schema.
pub fn footer(tail: Bytes, size: u64) -> Result<Footer, FileFault> {
    // The parser panics at some footers that nobody wrote.
    std::panic::catch_unwind(|| parse(tail, size))
        .unwrap_or_else(|_| Err(FileFault::Corrupt { found: "its footer can't be decoded".into() }))
}

/// What of a footer can't be, in a file of `size` bytes.
pub fn check_footer(metadata: &ParquetMetaData, size: u64) -> Result<(), String> {
    let within = |offset: i64, length: i64| match (u64::try_from(offset), u64::try_from(length)) {
        (Ok(offset), Ok(length)) => offset.checked_add(length).is_some_and(|end| end <= size),
        _ => false,
    };
    let mut rows = 0_i64;
    for group in metadata.row_groups() {
        rows = rows.saturating_add(group.num_rows());
        for column in group.columns() {
            let start =
                column.dictionary_page_offset().filter(|start| *start != 0).unwrap_or(column.data_page_offset());
            let mut parts = vec![(start, column.compressed_size())];
            parts
                .extend(column.column_index_offset().zip(column.column_index_length()).map(|(o, l)| (o, i64::from(l))));
            parts
                .extend(column.offset_index_offset().zip(column.offset_index_length()).map(|(o, l)| (o, i64::from(l))));
            if let Some((offset, length)) = parts.into_iter().find(|(offset, length)| !within(*offset, *length)) {
                return Err(format!(
                    "expected the column `{}` within the {size} bytes of the file, found {length} bytes at {offset}",
                    column.column_path()
                ));
            }
        }
        if group.num_rows() < 0 {
            return Err(format!("expected a number of rows, found {}", group.num_rows()));
        }
    }
    match metadata.file_metadata().num_rows() {
        counted if counted == rows => Ok(()),
        counted => Err(format!("its footer counts {counted} rows, its row groups hold {rows}")),
    }
}

fn parse(tail: Bytes, size: u64) -> Result<Footer, FileFault> {
    if !tail.ends_with(MAGIC) || size < 12 {
        return Err(FileFault::Truncated { found: "Parquet begins but its footer is missing".into() });
    }
    let mut reader = ParquetMetaDataReader::new();
    match reader.try_parse_sized(&tail, size) {
        Ok(()) => {}
        Err(ParquetError::NeedMoreData(bytes)) if (bytes as u64) > size => {
            return Err(FileFault::Truncated { found: "the Parquet footer is longer than the file".into() });
        }
        Err(ParquetError::NeedMoreData(bytes)) if bytes > tail.len() => return Ok(Footer::Needs(bytes as u64)),
        Err(error) => return Err(corrupt(&error)),
    }
    let metadata = reader.finish().map_err(|error| corrupt(&error))?;
    check_footer(&metadata, size).map_err(|found| FileFault::Corrupt { found })?;
    let file = metadata.file_metadata();
    let schema =
        parquet_to_arrow_schema(file.schema_descr(), file.key_value_metadata()).map_err(|error| corrupt(&error))?;
    let mut notes = Vec::new();
    let mut columns = Vec::with_capacity(schema.fields().len());
    for field in schema.fields() {
        match ColumnType::from_arrow(field.data_type()) {
            Ok(ty) => columns.push(SampledColumn {
                name: to_column_name(field.name()),
                source: field.name().clone(),
                // What writers give a column without any value.
                shape: if *field.data_type() == DataType::Null { Shape::Unknown } else { Shape::from(&ty) },
            }),
            Err(error) => notes.push(format!("the column `{}` is left out: {error}", field.name())),
        }
    }
    let columns = super::unique_names(columns, &mut notes);
    Ok(Footer::Sample(Box::new(Sample { format: FileFormat::parquet(), columns, first_row: None, notes })))
}

fn corrupt(error: &ParquetError) -> FileFault {
    FileFault::Corrupt { found: error.to_string() }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{ArrayRef, Int32Array, StringArray};
    use arrow::record_batch::RecordBatch;
    use parquet::arrow::ArrowWriter;

    use super::*;

    fn file() -> Bytes {
        let a: ArrayRef = Arc::new(Int32Array::from(vec![1, 2]));
        let b: ArrayRef = Arc::new(StringArray::from(vec!["x", "y"]));
        let batch = RecordBatch::try_from_iter([("a", a), ("TailNum", b)]).unwrap();
        let mut bytes = Vec::new();
        let mut writer = ArrowWriter::try_new(&mut bytes, batch.schema(), None).unwrap();
        writer.write(&batch).unwrap();
        writer.close().unwrap();
        bytes.into()
    }

    #[test]
    fn the_footer_alone_gives_the_schema() {
        let file = file();
        let size = file.len() as u64;
        let needs = match footer(file.slice(file.len() - 8..), size).unwrap() {
            Footer::Needs(bytes) => usize::try_from(bytes).unwrap(),
            Footer::Sample(_) => panic!("8 bytes hold no schema"),
        };
        let Footer::Sample(sample) = footer(file.slice(file.len() - needs..), size).unwrap() else {
            panic!("not enough")
        };
        let types: Vec<_> = sample.columns.iter().map(|c| format!("{}:{}", c.name, c.shape.column_type())).collect();
        assert_eq!(types, ["a:int", "tailnum:string"]);
        assert_eq!(sample.columns[1].source, "TailNum");
    }

    #[test]
    fn a_file_that_is_cut_anywhere_is_reported() {
        let file = file();
        for length in 4..file.len() {
            let cut = file.slice(..length);
            assert!(footer(cut, length as u64).is_err(), "cut at {length}");
        }
    }
}
