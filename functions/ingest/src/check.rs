//! Each record against the stream's schema, and the partition key of those that pass.

use bytes::Bytes;
use format::records::{BadRow, RecordError};
use jiter::{Jiter, JiterResult, Peek};
use shared::stream::{MAX_RECORD_BYTES, NewRecord};

use crate::Intake;
use crate::split::Cut;

/// Characters of a partition key at most; a longer value is cut.
const MAX_KEY_CHARACTERS: usize = 256;

/// What the check says of a record.
#[derive(Debug)]
pub(crate) enum Verdict {
    Good(NewRecord),
    Rejected { code: &'static str, message: String, data: Bytes },
}

impl Verdict {
    pub(crate) fn is_rejected(&self) -> bool {
        matches!(self, Self::Rejected { .. })
    }

    /// Of a good record's data.
    pub(crate) fn bytes(&self) -> usize {
        match self {
            Self::Good(record) => record.data.len(),
            Self::Rejected { .. } => 0,
        }
    }
}

/// Partition keys of records that have none of their own: different for each record of a request, so that they spread over the
/// shards, and the same when the request comes again.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Spread(pub(crate) u64);

impl Spread {
    /// The key of the record at `index`.
    pub(crate) fn key(self, index: usize) -> String {
        format!("{:016x}-{index}", self.0)
    }
}

/// Checks records in order.
pub(crate) fn check(records: Vec<Cut>, intake: &Intake, spread: Spread) -> Vec<Verdict> {
    let mut checker = intake.schema.checker();
    let mut check_one = |index: usize, record: Cut| -> Verdict {
        let data = match record {
            Ok(data) => data,
            Err(BadRow { error, row }) => return rejected(error, row.into()),
        };
        if data.len() > MAX_RECORD_BYTES {
            let message = format!("expected a record of at most {MAX_RECORD_BYTES} bytes, found {}", data.len());
            return Verdict::Rejected { code: "too_large", message, data };
        }
        match checker.check(&data) {
            Ok(()) => Verdict::Good(NewRecord { partition_key: partition_key(intake, &data, index, spread), data }),
            Err(error) => rejected(error, data),
        }
    };
    records.into_iter().enumerate().map(|(index, record)| check_one(index, record)).collect()
}

fn rejected(error: RecordError, data: Bytes) -> Verdict {
    Verdict::Rejected { code: error.code.as_str(), message: error.message, data }
}

fn partition_key(intake: &Intake, data: &Bytes, index: usize, spread: Spread) -> String {
    let declared = intake.declaration.partition_key.as_deref();
    let value = declared.and_then(|column| value_of(data, column).ok().flatten());
    match value {
        Some(value) if !value.is_empty() => value.chars().take(MAX_KEY_CHARACTERS).collect(),
        _ => spread.key(index),
    }
}

/// The text of a field of a JSON object: a string's content, any other value as it is written. Names match as in the check:
/// exactly, or else without regard to case.
fn value_of(data: &[u8], column: &str) -> JiterResult<Option<String>> {
    let mut json = Jiter::new(data);
    let mut key = json.next_object()?;
    let mut found = None;
    while let Some(name) = key {
        let exact = name == column;
        let fits = exact || (found.is_none() && name.eq_ignore_ascii_case(column));
        let peek = json.peek()?;
        let value = match peek {
            Peek::String if fits => Some(json.known_str()?.to_owned()),
            _ => {
                let start = json.current_index();
                json.known_skip(peek)?;
                let text = String::from_utf8_lossy(json.slice_to_current(start));
                (fits && peek != Peek::Null).then(|| text.into_owned())
            }
        };
        if exact {
            return Ok(value);
        }
        if fits {
            found = value;
        }
        key = json.next_key()?;
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_partition_key_is_the_text_of_its_column() {
        let value = |json: &str| value_of(json.as_bytes(), "carrier").unwrap();
        assert_eq!(value(r#"{"a":[1,{"carrier":"x"}],"carrier":"U\u0041"}"#).as_deref(), Some("UA"));
        assert_eq!(value(r#"{"carrier" : 17 }"#).as_deref(), Some("17"));
        assert_eq!(value(r#"{"Carrier":"AA"}"#).as_deref(), Some("AA"));
        assert_eq!(value(r#"{"CARRIER":"AA","carrier":"UA"}"#).as_deref(), Some("UA"));
        assert_eq!(value(r#"{"carrier":null}"#), None);
        assert_eq!(value("{}"), None);
    }
}
