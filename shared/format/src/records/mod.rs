//! The one decoder of stream records: JSON objects to columns of a stream's schema. Ingest checks with it at the door,
//! the batcher makes Arrow batches with it, so what the one takes the other stores.
//!
//! What becomes what (nothing is guessed, nothing loses information unsaid):
//!
//! | Column | JSON |
//! |---|---|
//! | `boolean` | `true`, `false` |
//! | `tinyint` … `bigint` | a number without a fraction (`7`, `7.0`, `7e2`) in the type's range; never a string |
//! | `float`, `double` | a number in range, or `"NaN"`, `"Infinity"`, `"-Infinity"` |
//! | `decimal(p,s)` | a number or its text; refused if digits would be lost |
//! | `string` | a string |
//! | `binary` | a string in base64 |
//! | `date` | `"2013-01-31"` |
//! | `timestamp`, `timestamptz` | `"2013-01-31T06:00:00.5Z"`: `T` or a space, seconds, fraction and zone may be missing, a date alone is midnight; without a zone UTC is meant; digits below a microsecond are cut |
//! | `time` | `"06:00:00.5"`: seconds and fraction may be missing, digits below a microsecond are cut |
//! | `array<…>`, `struct<…>`, `map<…,…>` | an array; an object; an object whose keys are texts of the key type |
//!
//! `null` or nothing is null, unless the column is required. Names match exactly or else without regard to the case of ASCII
//! letters. Fields that the schema doesn't have are passed over and counted; a field that is there twice makes the record
//! invalid, because readers disagree on which one counts.

mod cell;
mod column;
mod csv;
mod lenient;
mod rejected;
mod value;

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use arrow::record_batch::{RecordBatch, RecordBatchOptions};
use jiter::{Jiter, Peek};

use self::value::{Fault, FieldIndex};
use shared::model::Column;
use shared::model::name::check_identifier;
use shared::model::types::arrow_schema;
use shared::{Error, Result};

pub(crate) use self::cell::check_cell_type;
pub(crate) use self::column::Buffer;
pub use self::csv::{BadRow, CsvOptions, rows};
pub use self::lenient::{FileDecoder, Source};
pub use self::rejected::Rejected;

/// Names of ignored fields that are counted one by one; those beyond count under `…`.
const MAX_IGNORED_NAMES: usize = 100;

/// Why a record can't be stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ErrorCode {
    /// Its bytes are no UTF-8.
    InvalidUtf8,
    /// It is no JSON, or holds a field twice.
    InvalidJson,
    /// It is JSON, but no object.
    NotAnObject,
    /// A value is of another type than its column.
    WrongType,
    /// A required column has no value.
    MissingRequired,
    /// A value is outside what its column can hold.
    Overflow,
    /// A CSV row has more or fewer cells than the header.
    RaggedRow,
}

impl ErrorCode {
    /// The stable name in answers and error objects.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::InvalidUtf8 => "invalid_utf8",
            Self::InvalidJson => "invalid_json",
            Self::NotAnObject => "not_an_object",
            Self::WrongType => "wrong_type",
            Self::MissingRequired => "missing_required",
            Self::Overflow => "overflow",
            Self::RaggedRow => "ragged_row",
        }
    }
}

/// What is wrong with one record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecordError {
    pub code: ErrorCode,
    /// The column at fault, if it was one.
    pub column: Option<String>,
    /// What was expected and what was found, with the path of the value.
    pub message: String,
}

/// Many records, decoded.
#[derive(Debug, Clone)]
pub struct Decoded {
    /// One row for each good record, in order.
    pub batch: RecordBatch,
    /// The place (from 0) among the records and the fault of each bad one, in order.
    pub errors: Vec<(usize, RecordError)>,
    /// How often good records had a field that no column is for, by its name.
    pub ignored: BTreeMap<String, u64>,
}

/// The columns of a stream's records.
#[derive(Debug, Clone)]
pub struct RecordSchema {
    columns: Vec<Column>,
    arrow: SchemaRef,
    index: Arc<FieldIndex>,
}

impl RecordSchema {
    /// # Errors
    /// `Invalid` without columns, for a name that is there twice or is none, or a map key of a type that has no text.
    pub fn new(columns: &[Column]) -> Result<Self> {
        if columns.is_empty() {
            return Err(Error::invalid("expected a schema of at least one column, found none"));
        }
        columns.iter().try_for_each(|column| check_identifier("column", &column.name))?;
        Self::of_table(columns)
    }

    /// As [`RecordSchema::new`], of a table's columns, which may have any name.
    ///
    /// # Errors
    /// `Invalid` for a name that is there twice, or a type that records have no form for.
    pub fn of_table(columns: &[Column]) -> Result<Self> {
        for column in columns {
            column::check_type(&column.ty).map_err(|e| e.context(format!("column `{}`", column.name)))?;
        }
        let index = FieldIndex::new(columns.iter().map(|c| c.name.as_str()))?;
        Ok(Self { columns: columns.to_vec(), arrow: Arc::new(arrow_schema(columns)), index: Arc::new(index) })
    }

    /// The columns as they were declared.
    pub fn columns(&self) -> &[Column] {
        &self.columns
    }

    /// The schema of [`Decoded::batch`].
    pub fn arrow(&self) -> &SchemaRef {
        &self.arrow
    }

    /// Whether [`RecordSchema::decode`] would store this record. For many records, use [`RecordSchema::checker`].
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn check(&self, record: &[u8]) -> Result<(), RecordError> {
        self.checker().check(record)
    }

    /// Checks record after record without making new buffers for each.
    pub fn checker(&self) -> Checker<'_> {
        Checker(Decoder::new(self))
    }

    /// Decodes records, each a JSON object; a bad one leaves no trace in the batch.
    ///
    /// # Errors
    /// `Limit` for more than 2 GiB of records at once.
    pub fn decode<'a>(&self, records: impl IntoIterator<Item = &'a [u8]>) -> Result<Decoded> {
        let mut decoder = Decoder::new(self);
        let mut errors = Vec::new();
        let mut bytes = 0usize;
        for (at, record) in records.into_iter().enumerate() {
            bytes = bytes.saturating_add(record.len());
            if i32::try_from(bytes).is_err() {
                return Err(Error::limit("expected at most 2 GiB of records in one batch, found more"));
            }
            if let Err(error) = decoder.push(record) {
                errors.push((at, error));
            }
        }
        let ignored = std::mem::take(&mut decoder.ignored);
        Ok(Decoded { batch: decoder.finish()?, errors, ignored })
    }
}

/// Checks record after record; see [`RecordSchema::checker`].
#[derive(Debug)]
pub struct Checker<'s>(Decoder<'s>);

impl Checker<'_> {
    /// As [`RecordSchema::check`].
    ///
    /// # Errors
    /// What is wrong with the record.
    pub fn check(&mut self, record: &[u8]) -> Result<(), RecordError> {
        let outcome = self.0.push(record);
        self.0.truncate(0);
        outcome
    }
}

/// Columns that grow by one row with each good record.
#[derive(Debug)]
struct Decoder<'s> {
    schema: &'s RecordSchema,
    buffers: Vec<Buffer>,
    rows: usize,
    ignored: BTreeMap<String, u64>,
    /// Fields of the record at hand that no column is for.
    unknown: Vec<String>,
}

impl<'s> Decoder<'s> {
    fn new(schema: &'s RecordSchema) -> Self {
        let buffers = schema.columns.iter().map(|c| Buffer::new(&c.ty)).collect();
        Self { schema, buffers, rows: 0, ignored: BTreeMap::new(), unknown: Vec::new() }
    }

    /// Adds one row, or none and says why.
    fn push(&mut self, record: &[u8]) -> Result<(), RecordError> {
        self.unknown.clear();
        match self.read(record) {
            Ok(()) => {
                self.rows += 1;
                self.count_ignored();
                Ok(())
            }
            Err(fault) => {
                self.truncate(self.rows);
                Err(fault.into_error())
            }
        }
    }

    fn read(&mut self, record: &[u8]) -> Result<(), Fault> {
        if let Err(error) = std::str::from_utf8(record) {
            let at = error.valid_up_to();
            return Err(Fault::new(
                ErrorCode::InvalidUtf8,
                format!("expected UTF-8, found a byte that is none at byte {at}"),
            ));
        }
        let mut json = Jiter::new(record);
        let peek = json.peek().map_err(|e| match record.iter().all(u8::is_ascii_whitespace) {
            true => Fault::new(ErrorCode::InvalidJson, "expected a JSON object, found nothing".into()),
            false => e.into(),
        })?;
        if peek != Peek::Object {
            return Err(value::not_an_object(&mut json, peek));
        }
        let unknown = &mut self.unknown;
        value::fields(&mut json, &mut self.buffers, &self.schema.index, self.rows, &mut |name| {
            unknown.push(name.to_owned());
        })?;
        json.finish()?;
        self.complete()
    }

    /// Null in every column that the record didn't have.
    fn complete(&mut self) -> Result<(), Fault> {
        for (buffer, column) in self.buffers.iter_mut().zip(&self.schema.columns) {
            if buffer.len() == self.rows {
                buffer.push_null();
            }
            if column.required && buffer.is_null(self.rows) {
                let message = format!("expected a value of `{}`, found none", column.ty);
                return Err(Fault::new(ErrorCode::MissingRequired, message).within_field(&column.name));
            }
        }
        Ok(())
    }

    fn count_ignored(&mut self) {
        for name in self.unknown.drain(..) {
            let known = self.ignored.len() < MAX_IGNORED_NAMES || self.ignored.contains_key(&name);
            *self.ignored.entry(if known { name } else { "…".into() }).or_default() += 1;
        }
    }

    fn truncate(&mut self, rows: usize) {
        self.buffers.iter_mut().for_each(|b| b.truncate(rows));
        self.rows = rows;
    }

    fn finish(self) -> Result<RecordBatch> {
        let fields = self.schema.arrow.fields();
        let arrays = self.buffers.into_iter().zip(fields).map(|(b, f)| b.finish(f.data_type())).collect::<Result<_>>();
        let options = RecordBatchOptions::new().with_row_count(Some(self.rows));
        RecordBatch::try_new_with_options(self.schema.arrow.clone(), arrays?, &options)
            .map_err(|e| Error::bug("decoded columns make no batch").with_source(e))
    }
}

#[cfg(test)]
mod tests;
