//! What Kinesis accepts, checked before anything is sent or stored.

use super::{MAX_PUT_BYTES, MAX_PUT_RECORDS, MAX_RECORD_BYTES, NewRecord, StreamSpec};
use crate::{Error, Result};

/// Hours of retention that Kinesis allows.
const RETENTION_HOURS: std::ops::RangeInclusive<u32> = 24..=8_760;
/// Characters of a partition key.
const KEY_CHARACTERS: std::ops::RangeInclusive<usize> = 1..=256;
/// # Errors
/// `Invalid` for a spec out of range.
pub fn check_spec(spec: &StreamSpec) -> Result<()> {
    if spec.name.is_empty() || spec.shards == 0 || !RETENTION_HOURS.contains(&spec.retention_hours) {
        return Err(Error::invalid(format!(
            "expected a stream with a name, 1 or more shards and a retention of {} to {} hours, found `{}` with {} shards and {} hours",
            RETENTION_HOURS.start(),
            RETENTION_HOURS.end(),
            spec.name,
            spec.shards,
            spec.retention_hours
        )));
    }
    Ok(())
}

/// # Errors
/// `Invalid` for an empty batch or a key of a wrong length, `Limit` past the limits of a put.
pub fn check_batch(records: &[NewRecord]) -> Result<()> {
    if records.is_empty() {
        return Err(Error::invalid("expected at least one record to put, found none"));
    }
    if records.len() > MAX_PUT_RECORDS {
        return Err(Error::limit(format!(
            "expected at most {MAX_PUT_RECORDS} records to put, found {}",
            records.len()
        )));
    }
    for (index, record) in records.iter().enumerate() {
        let characters = record.partition_key.chars().count();
        if !KEY_CHARACTERS.contains(&characters) {
            return Err(Error::invalid(format!(
                "record {index}: expected a partition key of {} to {} characters, found {characters}",
                KEY_CHARACTERS.start(),
                KEY_CHARACTERS.end()
            )));
        }
        if record.data.len() > MAX_RECORD_BYTES {
            let found = record.data.len();
            return Err(Error::limit(format!(
                "record {index}: expected at most {MAX_RECORD_BYTES} bytes, found {found}"
            )));
        }
    }
    let bytes: usize = records.iter().map(|r| r.data.len() + r.partition_key.len()).sum();
    if bytes > MAX_PUT_BYTES {
        return Err(Error::limit(format!("expected at most {MAX_PUT_BYTES} bytes to put, found {bytes}")));
    }
    Ok(())
}
