//! Records that can't be stored: one JSON line each, with the reason, in an object of their own.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use format::records::RecordError;
use serde::Serialize;
use shared::model::ShardId;
use shared::stream::Record;
use shared::{Error, Result};

/// A line of an error object, in the words of Firehose. Every try to store an interval writes the same lines, so that a
/// replay changes nothing: no time of the try, no count of tries.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Line<'a> {
    stream: &'a str,
    shard: &'a ShardId,
    sequence: &'a str,
    /// Milliseconds since the epoch.
    arrival_timestamp: i64,
    error_code: &'static str,
    error_message: &'a str,
    attempts_made: u32,
    /// In base64.
    raw_data: String,
}

/// Adds the line of one record to an error object.
///
/// # Errors
/// `Bug` when it has no JSON form.
pub(crate) fn add_line(
    object: &mut Vec<u8>,
    stream: &str,
    shard: &ShardId,
    record: &Record,
    error: &RecordError,
) -> Result<()> {
    let line = Line {
        stream,
        shard,
        sequence: record.sequence.as_str(),
        arrival_timestamp: record.arrival_ms,
        error_code: error.code.as_str(),
        error_message: &error.message,
        attempts_made: 1,
        raw_data: STANDARD.encode(&record.data),
    };
    serde_json::to_writer(&mut *object, &line)
        .map_err(|e| Error::bug("a failed record has no JSON form").with_source(e))?;
    object.push(b'\n');
    Ok(())
}
