//! CSV with a header line to records: each row becomes the JSON object that [`RecordSchema`] reads, typed by the schema.

use csv::{ByteRecord, ReaderBuilder};
use jiter::Jiter;

use super::{ErrorCode, RecordError, RecordSchema};
use shared::model::ColumnType;
use shared::{Error, Result};

/// How a CSV body is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CsvOptions {
    /// Between cells (default: a comma).
    pub delimiter: u8,
}

impl Default for CsvOptions {
    fn default() -> Self {
        Self { delimiter: b',' }
    }
}

/// A row that no JSON object stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadRow {
    pub error: RecordError,
    /// The row as CSV, without its end.
    pub row: Vec<u8>,
}

impl RecordSchema {
    /// The rows of a CSV body with a header line, each as a JSON object for [`RecordSchema::check`], or what is wrong with it. An empty
    /// cell is null. A cell that is no value of its column's type becomes a string, which the check then refuses by name.
    /// Columns that the schema lacks are kept as strings. Bytes: RFC 4180, any line end, an optional byte order mark.
    ///
    /// # Errors
    /// `Invalid` without a header line, or when it names a column twice or none of the schema's.
    pub fn csv_to_json(&self, body: &[u8], options: CsvOptions) -> Result<Vec<Result<Vec<u8>, BadRow>>> {
        let body = body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(body);
        let mut rows =
            ReaderBuilder::new().delimiter(options.delimiter).flexible(true).has_headers(false).from_reader(body);
        let mut row = ByteRecord::new();
        if !read(&mut rows, &mut row)? {
            return Err(Error::invalid("expected a header line, found an empty body"));
        }
        let header = self.header(&row)?;
        let mut records = Vec::new();
        while read(&mut rows, &mut row)? {
            let record = self.row_to_json(&header, &row);
            records.push(record.map_err(|error| BadRow { error, row: line(&row, options) }));
        }
        Ok(records)
    }

    /// Each header cell as the beginning of a JSON field (`"name":`), and its column's type.
    fn header(&self, row: &ByteRecord) -> Result<Vec<(String, Option<&ColumnType>)>> {
        let mut names: Vec<&str> = Vec::new();
        let mut header = Vec::new();
        for cell in row {
            let name = std::str::from_utf8(cell)
                .map_err(|e| Error::invalid("expected a header line in UTF-8, found other bytes").with_source(e))?
                .trim();
            if names.contains(&name) {
                return Err(Error::invalid(format!("expected each column once in the header, found `{name}` twice")));
            }
            names.push(name);
            let ty = self.index.find(name, names.len() - 1).map(|at| &self.columns[at].ty);
            header.push((format!("{}:", serde_json::Value::from(name)), ty));
        }
        if header.iter().any(|(_, ty)| ty.is_some()) {
            return Ok(header);
        }
        let expected: Vec<_> = self.columns.iter().map(|c| format!("`{}`", c.name)).collect();
        Err(Error::invalid(format!(
            "expected a header line that names columns of {}, found `{}`",
            expected.join(", "),
            names.join("`, `").chars().take(200).collect::<String>()
        )))
    }

    fn row_to_json(&self, header: &[(String, Option<&ColumnType>)], row: &ByteRecord) -> Result<Vec<u8>, RecordError> {
        if row.len() != header.len() {
            let message = format!("expected {} cells as in the header, found {}", header.len(), row.len());
            return Err(RecordError { code: ErrorCode::RaggedRow, column: None, message });
        }
        let mut json = Vec::with_capacity(row.as_slice().len() + header.len() * 16);
        for (cell, (name, ty)) in row.iter().zip(header).filter(|(cell, _)| !cell.is_empty()) {
            json.push(if json.is_empty() { b'{' } else { b',' });
            json.extend_from_slice(name.as_bytes());
            let text = std::str::from_utf8(cell).map_err(|_| not_utf8(name))?;
            json.extend_from_slice(cell_to_json(text, *ty).as_bytes());
        }
        if json.is_empty() {
            json.push(b'{');
        }
        json.push(b'}');
        Ok(json)
    }
}

/// The rows of a CSV body behind its header line, each as a line without its end.
///
/// # Errors
/// None today: cells are split leniently.
pub fn rows(body: &[u8], options: CsvOptions) -> Result<Vec<Vec<u8>>> {
    let mut reader = ReaderBuilder::new().delimiter(options.delimiter).flexible(true).from_reader(body);
    let (mut row, mut rows) = (ByteRecord::new(), Vec::new());
    while read(&mut reader, &mut row)? {
        rows.push(line(&row, options));
    }
    Ok(rows)
}

/// The row as a line of CSV, in quotes where it needs them.
fn line(row: &ByteRecord, options: CsvOptions) -> Vec<u8> {
    let mut line = Vec::with_capacity(row.as_slice().len() + row.len());
    for (at, cell) in row.iter().enumerate() {
        if at > 0 {
            line.push(options.delimiter);
        }
        if cell.iter().any(|byte| matches!(byte, b'"' | b'\n' | b'\r') || *byte == options.delimiter) {
            line.push(b'"');
            cell.iter().for_each(|byte| {
                line.extend_from_slice(if *byte == b'"' { b"\"\"" } else { std::slice::from_ref(byte) })
            });
            line.push(b'"');
        } else {
            line.extend_from_slice(cell);
        }
    }
    line
}

/// The next row; cells are split leniently, so only reading itself could fail.
fn read(rows: &mut csv::Reader<&[u8]>, row: &mut ByteRecord) -> Result<bool> {
    rows.read_byte_record(row).map_err(|e| Error::invalid("expected a CSV body").with_source(e))
}

fn not_utf8(field: &str) -> RecordError {
    let column = field.trim_end_matches(':').trim_matches('"').to_owned();
    let message = format!("column `{column}`: expected UTF-8, found other bytes");
    RecordError { code: ErrorCode::InvalidUtf8, column: Some(column), message }
}

/// A cell as JSON of the type, or as a string.
fn cell_to_json(cell: &str, ty: Option<&ColumnType>) -> String {
    let typed = match ty {
        Some(ColumnType::Boolean) => match cell.trim().to_ascii_lowercase().as_str() {
            "true" | "t" => Some("true".into()),
            "false" | "f" => Some("false".into()),
            _ => None,
        },
        Some(
            ColumnType::TinyInt
            | ColumnType::SmallInt
            | ColumnType::Int
            | ColumnType::BigInt
            | ColumnType::Float
            | ColumnType::Double
            | ColumnType::Decimal(..),
        ) => number(cell.trim()),
        Some(ColumnType::Array(_) | ColumnType::Map(..) | ColumnType::Struct(_)) => {
            let mut json = Jiter::new(cell.as_bytes());
            json.next_skip().and_then(|()| json.finish()).ok().map(|()| cell.to_owned())
        }
        Some(ColumnType::Date | ColumnType::Time | ColumnType::Timestamp | ColumnType::TimestampTz) => {
            Some(serde_json::Value::from(cell.trim()).to_string())
        }
        _ => None,
    };
    typed.unwrap_or_else(|| serde_json::Value::from(cell).to_string())
}

/// A number as JSON writes it: CSV also has `+7`, `007` and `.5`.
fn number(cell: &str) -> Option<String> {
    let unsigned = cell.strip_prefix(['-', '+']).unwrap_or(cell);
    let sign = if cell.starts_with('-') { "-" } else { "" };
    let digits = unsigned.trim_start_matches('0');
    let zero = if digits.starts_with(|c: char| c.is_ascii_digit()) { "" } else { "0" };
    let text = format!("{sign}{}{digits}", if unsigned.is_empty() { "" } else { zero });
    let mut json = Jiter::new(text.as_bytes());
    json.next_number_bytes().map(|_| ()).and_then(|()| json.finish()).ok()?;
    Some(text)
}
