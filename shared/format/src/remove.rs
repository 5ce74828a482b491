//! Files without the rows of a subject: the other rows stay byte for byte in text, value for value in Parquet.

use std::io::{Read, Write};

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, Datum, RecordBatch, StringArray};
use arrow::compute::kernels::boolean::{and, not, or};
use arrow::compute::kernels::cmp::eq;
use arrow::compute::{cast, filter_record_batch, prep_null_mask_filter};
use arrow::datatypes::{DataType, SchemaRef};
use arrow::error::ArrowError;
use bytes::Bytes;
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::errors::ParquetError;
use parquet::file::properties::WriterProperties;
use serde_json::Value;
use shared::erasure::{Cell, Kind, Subject, Term};
use shared::model::name::to_column_name;
use shared::text::canonical_number;
use shared::{Error, Result};

use crate::compression::Compression;
use crate::csv::cursor::Cursor;
use crate::csv::decode::header_cells;
use crate::csv::names;
use crate::rows::BYTE_ORDER_MARK;
use crate::{CsvColumns, CsvFormat, Encoding, FileFormat, JsonFormat};

/// Bytes of a file when it is not compressed any more, at most: it is held in memory, twice.
const MOST_BYTES: u64 = 1 << 30;

/// What is left of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Remainder {
    /// Rows of the subject, which are gone.
    pub removed: u64,
    /// Rows that are left.
    pub rows: u64,
    /// The file without the rows; none when it has none of them.
    pub bytes: Option<Vec<u8>>,
}

/// Takes the rows of a subject out of a file of a table with these columns, by what their values stand for.
///
/// # Errors
/// `Invalid` for a file whose form can't be rewritten (a JSON array or stream, bzip2, xz), or that is none of its format; `Limit` for one
/// that is too large to be held in memory.
pub fn without_rows(
    format: &FileFormat,
    columns: &[(&str, Kind)],
    name: &str,
    file: Bytes,
    subject: &Subject,
) -> Result<Remainder> {
    if let Encoding::Parquet = format.encoding {
        return of_parquet(file, subject);
    }
    let compression = format.compression_of(name);
    let text = plain(compression, &file)?;
    let (body, removed, rows) = match &format.encoding {
        Encoding::Csv(csv) => of_csv(csv, columns, &text, subject),
        Encoding::Json(JsonFormat::Lines) => of_lines(columns, &text, subject)?,
        Encoding::Json(JsonFormat::Stream | JsonFormat::Array) => {
            return Err(Error::invalid(
                "expected a JSON object a line, found objects over several lines or in an array",
            ));
        }
        Encoding::Parquet => return Err(Error::bug("expected text, found Parquet")),
    };
    let bytes = if removed > 0 { Some(packed(compression, &body)?) } else { None };
    Ok(Remainder { removed, rows, bytes })
}

fn plain(compression: Compression, file: &Bytes) -> Result<Vec<u8>> {
    if !matches!(compression, Compression::None | Compression::Gzip | Compression::Zstd) {
        return Err(Error::invalid(format!("expected a file without compression, gzip or zstd, found {compression}")));
    }
    let mut text = Vec::new();
    let reader = compression.reader(std::io::Cursor::new(file.clone()))?;
    let read = reader.take(MOST_BYTES + 1).read_to_end(&mut text);
    read.map_err(|e| Error::invalid(format!("expected {compression}")).with_source(e))?;
    if text.len() as u64 > MOST_BYTES {
        return Err(Error::limit(format!("expected a file of at most {MOST_BYTES} bytes without compression")));
    }
    Ok(text)
}

fn packed(compression: Compression, text: &[u8]) -> Result<Vec<u8>> {
    let failed = |e: std::io::Error| Error::bug(format!("{compression} can't be written")).with_source(e);
    match compression {
        Compression::Gzip => {
            let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
            encoder.write_all(text).and_then(|()| encoder.finish()).map_err(failed)
        }
        Compression::Zstd => zstd::encode_all(text, 0).map_err(failed),
        _ => Ok(text.to_vec()),
    }
}

/// Keeps blank lines and everything else that is no object of the subject.
fn of_lines(columns: &[(&str, Kind)], text: &[u8], subject: &Subject) -> Result<(Vec<u8>, u64, u64)> {
    let (mut body, mut removed, mut rows) = (Vec::with_capacity(text.len()), 0, 0);
    for (at, line) in (1..).zip(text.split_inclusive(|byte| *byte == b'\n')) {
        let object = line.strip_prefix(BYTE_ORDER_MARK).unwrap_or(line);
        if object.iter().all(u8::is_ascii_whitespace) {
            body.extend_from_slice(line);
            continue;
        }
        let object: Value = serde_json::from_slice(object)
            .map_err(|e| Error::invalid(format!("line {at}: expected a JSON object")).with_source(e))?;
        if subject.is_json(&object, |column| kind_of(columns, column)) {
            removed += 1;
        } else {
            rows += 1;
            body.extend_from_slice(line);
        }
    }
    Ok((body, removed, rows))
}

fn of_csv(format: &CsvFormat, columns: &[(&str, Kind)], text: &[u8], subject: &Subject) -> (Vec<u8>, u64, u64) {
    let mark = if text.starts_with(BYTE_ORDER_MARK) { BYTE_ORDER_MARK.len() } else { 0 };
    let (mut body, mut removed, mut rows) = (text[..mark].to_vec(), 0, 0);
    let mut places: Vec<String> = columns.iter().map(|(name, _)| name.to_ascii_lowercase()).collect();
    let mut is_header = format.header;
    for row in csv_rows(format, &text[mark..]) {
        // A last row without its end gets one to be cut.
        let cells = header_cells(format, &[row, b"\n"].concat()).unwrap_or_default();
        let cell = |at: usize| cells.get(at).map(|cell| String::from_utf8_lossy(cell));
        if is_header {
            is_header = false;
            let known = names(
                (0..cells.len())
                    .map(|at| cell(at).unwrap_or_default().into_owned())
                    .collect::<Vec<_>>()
                    .iter()
                    .map(String::as_str),
            );
            let is_told = subject.columns().all(|column| known.iter().any(|name| name == column));
            if is_told || format.columns != CsvColumns::Declared {
                places = known;
            }
            body.extend_from_slice(row);
            continue;
        }
        let holds = |term: &Term| {
            let place = places.iter().position(|name| *name == term.column);
            let kind = kind_of(columns, &term.column);
            place.and_then(cell).is_some_and(|text| term.holds(&Cell { text, kind }))
        };
        if subject.terms().iter().all(holds) {
            removed += 1;
        } else {
            rows += u64::from(!cells.is_empty());
            body.extend_from_slice(row);
        }
    }
    (body, removed, rows)
}

fn kind_of(columns: &[(&str, Kind)], column: &str) -> Kind {
    let found = columns.iter().find(|(name, _)| name.eq_ignore_ascii_case(column));
    found.map_or(Kind::Any, |(_, kind)| *kind)
}

/// The rows with their ends.
fn csv_rows<'a>(format: &CsvFormat, text: &'a [u8]) -> impl Iterator<Item = &'a [u8]> {
    let mut cursor = Cursor::start(format);
    let mut rest = text;
    std::iter::from_fn(move || {
        let (first, behind) = rest.split_first()?;
        cursor.skip(std::slice::from_ref(first));
        let end = 1 + cursor.row_start(behind).unwrap_or(behind.len());
        let (row, next) = rest.split_at(end);
        rest = next;
        Some(row)
    })
}

fn of_parquet(file: Bytes, subject: &Subject) -> Result<Remainder> {
    parquet_without(file, subject).map_err(|e| match e {
        Failure::Parquet(e) => Error::invalid("expected a Parquet file").with_source(e),
        Failure::Other(e) => e,
    })
}

/// What goes wrong with a Parquet file.
enum Failure {
    Parquet(ParquetError),
    Other(Error),
}

impl From<ParquetError> for Failure {
    fn from(error: ParquetError) -> Self {
        Self::Parquet(error)
    }
}

impl From<ArrowError> for Failure {
    fn from(error: ArrowError) -> Self {
        Self::Other(error.into())
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Other(error)
    }
}

fn parquet_without(file: Bytes, subject: &Subject) -> std::result::Result<Remainder, Failure> {
    let builder = ParquetRecordBatchReaderBuilder::try_new(file)?;
    let metadata = builder.metadata().clone();
    let schema = builder.schema().clone();
    let compression = metadata.row_groups().first().and_then(|group| Some(group.columns().first()?.compression()));
    let properties = WriterProperties::builder()
        .set_compression(compression.unwrap_or(parquet::basic::Compression::SNAPPY))
        .set_key_value_metadata(metadata.file_metadata().key_value_metadata().cloned())
        .build();
    let mut writer = ArrowWriter::try_new(Vec::new(), schema.clone(), Some(properties))?;
    let (mut removed, mut rows) = (0, 0);
    for batch in builder.build()? {
        let batch = batch?;
        let mask = rows_of(&batch, &schema, subject)?;
        removed += mask.true_count() as u64;
        let kept = filter_record_batch(&batch, &not(&mask)?)?;
        rows += kept.num_rows() as u64;
        writer.write(&kept)?;
    }
    let bytes = writer.into_inner()?;
    Ok(Remainder { removed, rows, bytes: (removed > 0).then_some(bytes) })
}

/// True for rows of the subject.
fn rows_of(batch: &RecordBatch, schema: &SchemaRef, subject: &Subject) -> Result<BooleanArray> {
    let mut mask = BooleanArray::from(vec![true; batch.num_rows()]);
    for term in subject.terms() {
        let mut any = BooleanArray::from(vec![false; batch.num_rows()]);
        let place = schema.fields().iter().position(|field| to_column_name(field.name()) == term.column);
        if let Some(column) = place.map(|at| batch.column(at)) {
            for value in &term.values {
                any = or(&any, &equal(column, value)?)?;
            }
        }
        mask = and(&mask, &any)?;
    }
    Ok(mask)
}

/// True where a column has the value; nowhere when it is none of the column's type.
fn equal(column: &ArrayRef, value: &str) -> Result<BooleanArray> {
    let text: ArrayRef = std::sync::Arc::new(StringArray::from(vec![value]));
    let typed = cast(&text, column.data_type())?;
    // A number of more digits than the column has is none of its values.
    let is_cut = || canonical_number(value.trim().as_bytes()).ok() != shown(&typed);
    if typed.is_null(0) || (typed.data_type().is_numeric() && is_cut()) {
        return Ok(BooleanArray::from(vec![false; column.len()]));
    }
    let scalar = arrow::array::Scalar::new(typed);
    let equal = eq(column as &dyn Datum, &scalar)?;
    Ok(if equal.null_count() > 0 { prep_null_mask_filter(&equal) } else { equal })
}

/// A number of an array of one, written one way.
fn shown(value: &ArrayRef) -> Option<String> {
    let text = cast(value, &DataType::Utf8).ok()?;
    canonical_number(text.as_string::<i32>().value(0).as_bytes()).ok()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::Int64Array;

    use super::*;

    fn subject(condition: &str) -> Subject {
        Subject::parse(condition).unwrap()
    }

    fn text_of(format: &FileFormat, columns: &[&str], name: &str, text: &str, condition: &str) -> (u64, String) {
        let kind = |name: &str| if name == "id" { Kind::Number } else { Kind::Text };
        let columns: Vec<_> = columns.iter().map(|name| (*name, kind(name))).collect();
        let left = without_rows(format, &columns, name, Bytes::from(text.to_owned()), &subject(condition)).unwrap();
        (left.removed, left.bytes.map_or_else(String::new, |bytes| String::from_utf8(bytes).unwrap()))
    }

    #[test]
    fn rows_of_csv_go_and_the_others_stay_byte_for_byte() {
        let csv = CsvFormat { header: true, columns: CsvColumns::Header, multiline: true, ..CsvFormat::default() };
        let format = FileFormat { encoding: Encoding::Csv(csv), compression: Compression::None };
        let text =
            "\u{feff}Name,ID,note\r\n\"a, b\",1,\"two\nlines\"\r\nx,42,\"quo\"\"te\"\r\n\r\ny,42.0,z\r\nlast,420,x";
        let (removed, left) = text_of(&format, &["name", "id", "note"], "a.csv", text, "id = 42");
        assert_eq!(removed, 2);
        assert_eq!(left, "\u{feff}Name,ID,note\r\n\"a, b\",1,\"two\nlines\"\r\n\r\nlast,420,x");
        assert_eq!(text_of(&format, &["name", "id", "note"], "a.csv", text, "name = 'a, b'").0, 1);
        assert_eq!(text_of(&format, &["name", "id", "note"], "a.csv", text, "id = 7"), (0, String::new()));
        let bare = FileFormat { encoding: Encoding::Csv(CsvFormat::default()), compression: Compression::None };
        assert_eq!(text_of(&bare, &["id", "v"], "a.csv", "1,a\n42,b\n", "id = 42"), (1, "1,a\n".into()));
        assert_eq!(text_of(&bare, &["id", "v"], "a.csv", "1,1.10\n2,1.1\n", "v = '1.10'"), (1, "2,1.1\n".into()));
    }

    #[test]
    fn objects_of_lines_go_and_what_is_none_is_named() {
        let format = FileFormat { encoding: Encoding::Json(JsonFormat::Lines), compression: Compression::None };
        let text = "{\"id\": 1}\n\n{\"id\":\"42\"}\n{\"id\": 43}";
        assert_eq!(text_of(&format, &["id"], "a.json", text, "id = 42"), (1, "{\"id\": 1}\n\n{\"id\": 43}".into()));
        let error = without_rows(
            &format,
            &[("id", Kind::Number)],
            "a.json",
            Bytes::from("{\"id\":1}\nx\n"),
            &subject("id = 1"),
        );
        assert!(error.unwrap_err().to_string().contains("line 2"));
        let array = FileFormat { encoding: Encoding::Json(JsonFormat::Array), ..format };
        assert!(
            without_rows(&array, &[("id", Kind::Number)], "a.json", Bytes::from("[]"), &subject("id = 1")).is_err()
        );
    }

    #[test]
    fn compressed_files_stay_compressed() {
        let format = FileFormat { encoding: Encoding::Json(JsonFormat::Lines), compression: Compression::None };
        for (name, compression) in [("a.json.gz", Compression::Gzip), ("a.json.zst", Compression::Zstd)] {
            let file = packed(compression, b"{\"id\":1}\n{\"id\":42}\n").unwrap();
            let left = without_rows(&format, &[("id", Kind::Number)], name, file.into(), &subject("id = 42")).unwrap();
            assert_eq!((left.removed, left.rows), (1, 1));
            assert_eq!(plain(compression, &left.bytes.unwrap().into()).unwrap(), b"{\"id\":1}\n");
        }
    }

    #[test]
    fn rows_of_parquet_are_told_by_typed_values() {
        let batch = RecordBatch::try_from_iter([
            ("id", Arc::new(Int64Array::from(vec![Some(1), None, Some(42), Some(42)])) as ArrayRef),
            ("name", Arc::new(StringArray::from(vec![Some("a"), Some("b"), None, Some("x")]))),
        ])
        .unwrap();
        let mut writer = ArrowWriter::try_new(Vec::new(), batch.schema(), None).unwrap();
        writer.write(&batch).unwrap();
        let file = Bytes::from(writer.into_inner().unwrap());
        let of = |condition: &str| {
            without_rows(&FileFormat::parquet(), &[], "a.parquet", file.clone(), &subject(condition)).unwrap()
        };
        let left = of("id = 42");
        assert_eq!((left.removed, left.rows), (2, 2));
        let read = ParquetRecordBatchReaderBuilder::try_new(Bytes::from(left.bytes.unwrap())).unwrap().build().unwrap();
        let rows: Vec<_> = read.map(Result::unwrap).collect();
        assert_eq!(rows, [batch.slice(0, 2)]);
        assert_eq!((of("id = 42 AND name = 'x'").removed, of("id = 'x'").removed, of("other = 1").removed), (1, 0, 0));
    }
}
