//! A body cut into records. JSON records are slices of the body, not copies; CSV rows become the JSON objects they stand for.

use bytes::Bytes;
use format::records::{BadRow, CsvOptions, RecordSchema, rows};
use jiter::{Jiter, JiterError};
use shared::api::Request;
use shared::{Error, Result};

use crate::MAX_RECORDS;
use crate::body::{self, Shape, without_mark};

/// A record's bytes, or the row that is none.
pub(crate) type Cut = Result<Bytes, BadRow>;

/// The records of `body`, in order; blank lines are passed over.
///
/// # Errors
/// `Invalid` when there are none or the body can't be cut, with the place; `Limit` for more than [`MAX_RECORDS`].
pub(crate) fn split(body: &Bytes, shape: Shape, schema: &RecordSchema) -> Result<Vec<Cut>> {
    let body = body.slice_ref(without_mark(body));
    let records = match shape {
        Shape::Lines => lines(&body)?,
        Shape::Json => json(&body)?,
        Shape::Csv { delimiter } => csv(&body, delimiter, schema)?,
    };
    match records.is_empty() {
        true => Err(Error::invalid(format!("expected at least one record, found none in {} bytes", body.len()))),
        false => Ok(records),
    }
}

/// The records of a request's body as they were sent, in the order in which its answer counts them; rows of CSV without the header.
///
/// # Errors
/// As the request itself is refused.
pub fn as_sent(request: &Request) -> Result<Vec<Bytes>> {
    let body = body::decode(request)?;
    let shape = body::shape(request, &body)?;
    let body = body.slice_ref(without_mark(&body));
    let cut = match shape {
        Shape::Lines => lines(&body)?,
        Shape::Json => json(&body)?,
        Shape::Csv { delimiter } => {
            return Ok(rows(&body, CsvOptions { delimiter })?.into_iter().map(Bytes::from).collect());
        }
    };
    Ok(cut.into_iter().map(|record| record.unwrap_or_else(|bad| bad.row.into())).collect())
}

fn lines(body: &Bytes) -> Result<Vec<Cut>> {
    let mut records = Vec::new();
    for line in body.split(|byte| *byte == b'\n') {
        let line = line.trim_ascii();
        if !line.is_empty() {
            add(&mut records, Ok(body.slice_ref(line)))?;
        }
    }
    Ok(records)
}

/// One array of records; anything else that `application/json` may have been said of: one object, or objects line by line.
fn json(body: &Bytes) -> Result<Vec<Cut>> {
    let mut parser = Jiter::new(body);
    match body.trim_ascii_start().first() {
        Some(b'[') => array(body, &mut parser).map_err(|error| match error {
            Cause::Syntax(error) => not_json(&error, &parser),
            Cause::Limit(error) => error,
        }),
        Some(_) if parser.next_skip().and_then(|()| parser.finish()).is_ok() => {
            Ok(vec![Ok(body.slice_ref(body.trim_ascii()))])
        }
        _ => lines(body),
    }
}

enum Cause {
    Syntax(JiterError),
    Limit(Error),
}

impl From<JiterError> for Cause {
    fn from(error: JiterError) -> Self {
        Self::Syntax(error)
    }
}

fn array(body: &Bytes, parser: &mut Jiter<'_>) -> Result<Vec<Cut>, Cause> {
    let mut records = Vec::new();
    let mut next = parser.next_array()?;
    while let Some(peek) = next {
        let start = parser.current_index();
        parser.known_skip(peek)?;
        let end = parser.current_index();
        add(&mut records, Ok(body.slice(start..end))).map_err(Cause::Limit)?;
        next = parser.array_step()?;
    }
    parser.finish()?;
    Ok(records)
}

fn not_json(error: &JiterError, parser: &Jiter<'_>) -> Error {
    let place = parser.error_position(error.index);
    Error::invalid(format!("expected a JSON array of records: {} at {place}", error.error_type))
}

fn csv(body: &Bytes, delimiter: u8, schema: &RecordSchema) -> Result<Vec<Cut>> {
    if body.iter().filter(|byte| matches!(byte, b'\n' | b'\r')).count() > MAX_RECORDS {
        count_rows(body, delimiter)?;
    }
    let rows = schema.csv_to_json(body, CsvOptions { delimiter })?;
    Ok(rows.into_iter().map(|row| row.map(Bytes::from)).collect())
}

/// Refuses a body of too many rows before each takes memory of its own.
fn count_rows(body: &[u8], delimiter: u8) -> Result<()> {
    let mut reader = csv::ReaderBuilder::new().delimiter(delimiter).flexible(true).from_reader(body);
    let mut row = csv::ByteRecord::new();
    let mut rows = 0;
    while reader.read_byte_record(&mut row).map_err(|e| Error::invalid("expected CSV").with_source(e))? {
        rows += 1;
        if rows > MAX_RECORDS {
            return Err(too_many());
        }
    }
    Ok(())
}

fn add(records: &mut Vec<Cut>, record: Cut) -> Result<()> {
    if records.len() == MAX_RECORDS {
        return Err(too_many());
    }
    records.push(record);
    Ok(())
}

fn too_many() -> Error {
    Error::limit(format!("expected at most {MAX_RECORDS} records in one request, found more"))
}
