//! A record that could not be stored, as a line of an error object: the same wherever it was refused.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use shared::model::{SequenceNumber, ShardId};
use shared::{Error, Result};

/// A line of an error object, in the words of Firehose. Every try to store an interval writes the same lines, so that trying
/// again changes nothing: no time of the try, no count of tries.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Rejected {
    pub stream: String,
    /// Where the record is in the stream; none of one that was refused at the door.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shard: Option<ShardId>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sequence: Option<SequenceNumber>,
    /// Milliseconds since the epoch.
    pub arrival_timestamp: i64,
    pub error_code: String,
    pub error_message: String,
    /// 1, and one more with each replay that it fails.
    pub attempts_made: u32,
    /// In base64.
    raw_data: String,
}

impl Rejected {
    /// A record that was refused for the first time.
    pub fn new(
        stream: &str,
        place: Option<(ShardId, SequenceNumber)>,
        arrival_ms: i64,
        (code, message): (&str, &str),
        data: &[u8],
    ) -> Self {
        let (shard, sequence) = place.unzip();
        Self {
            stream: stream.into(),
            shard,
            sequence,
            arrival_timestamp: arrival_ms,
            error_code: code.into(),
            error_message: message.into(),
            attempts_made: 1,
            raw_data: STANDARD.encode(data),
        }
    }

    /// The same record, refused again.
    #[must_use]
    pub fn again(&self, code: &str, message: &str) -> Self {
        let attempts_made = self.attempts_made.saturating_add(1);
        Self { error_code: code.into(), error_message: message.into(), attempts_made, ..self.clone() }
    }

    /// The line without its end; `None` when it is none of ours.
    pub fn parse(line: &[u8]) -> Option<Self> {
        serde_json::from_slice(line).ok()
    }

    /// The record's bytes; `None` when they are no base64.
    pub fn data(&self) -> Option<Vec<u8>> {
        STANDARD.decode(&self.raw_data).ok()
    }

    /// Adds the line to an object.
    ///
    /// # Errors
    /// `Bug` when it has no JSON form.
    pub fn write(&self, object: &mut Vec<u8>) -> Result<()> {
        serde_json::to_writer(&mut *object, self)
            .map_err(|e| Error::bug("a rejected record has no JSON form").with_source(e))?;
        object.push(b'\n');
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_holds_the_record_and_why_it_was_refused() {
        let place = (ShardId("shardId-000000000000".into()), SequenceNumber::from(7));
        let rejected = Rejected::new("orders", Some(place), 5, ("wrong_type", "expected a number"), b"{\"id\":\"x\"}");
        let mut object = Vec::new();
        rejected.write(&mut object).unwrap();
        let line = object.strip_suffix(b"\n").unwrap();
        assert_eq!(
            std::str::from_utf8(line).unwrap(),
            "{\"stream\":\"orders\",\"shard\":\"shardId-000000000000\",\"sequence\":\"7\",\"arrivalTimestamp\":5,\
             \"errorCode\":\"wrong_type\",\"errorMessage\":\"expected a number\",\"attemptsMade\":1,\"rawData\":\"eyJpZCI6IngifQ==\"}"
        );
        assert_eq!(Rejected::parse(line).unwrap(), rejected);
        assert_eq!(rejected.data().unwrap(), b"{\"id\":\"x\"}");
        assert_eq!(Rejected::parse(b"{\"run\":1}"), None);
    }
}
