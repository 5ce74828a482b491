//! What the events say: records that arrived, and ticks.

use std::collections::BTreeMap;

use aws_lambda_events::kinesis::{KinesisEvent, KinesisEventRecord};
use serde::Deserialize;
use serde_json::Value;
use shared::model::{SequenceNumber, ShardId};
use shared::{Error, Result};

use crate::pending::Arrival;

/// Arrivals by shard, by stream.
pub(crate) type Arrivals = BTreeMap<String, BTreeMap<ShardId, Vec<Arrival>>>;

/// What a schedule's tick asks for.
#[derive(Debug, Default, PartialEq, Eq, Deserialize)]
pub(crate) struct Tick {
    /// The stream to look at (default: all).
    pub(crate) name: Option<String>,
    /// Write whatever is there, due or not.
    #[serde(default)]
    pub(crate) flush: bool,
}

impl Tick {
    /// # Errors
    /// `Invalid` when `detail` has another shape.
    pub(crate) fn parse(detail: Value) -> Result<Self> {
        serde_json::from_value(detail).map_err(|e| {
            Error::invalid("expected a tick's detail such as `{\"name\": \"flights\", \"flush\": true}`").with_source(e)
        })
    }
}

/// The arrivals that a Kinesis event tells of, in sequence order.
///
/// # Errors
/// `Invalid` for a record without stream, shard or sequence number.
pub(crate) fn arrivals(event: KinesisEvent) -> Result<Arrivals> {
    let mut arrivals = Arrivals::new();
    for record in event.records {
        let (stream, shard) = origin(&record)?;
        let sequence: SequenceNumber = record.kinesis.sequence_number.parse()?;
        let arrival = Arrival {
            sequence,
            bytes: record.kinesis.data.0.len() as u64,
            at_ms: record.kinesis.approximate_arrival_timestamp.0.timestamp_millis(),
        };
        arrivals.entry(stream).or_default().entry(shard).or_default().push(arrival);
    }
    for shards in arrivals.values_mut() {
        shards.values_mut().for_each(|all| all.sort_by(|a, b| a.sequence.cmp(&b.sequence)));
    }
    Ok(arrivals)
}

/// The stream, from `arn:aws:kinesis:region:account:stream/name`, and the shard, from `shardId-000000000000:49590…`.
fn origin(record: &KinesisEventRecord) -> Result<(String, ShardId)> {
    let arn = record.event_source_arn.as_deref().unwrap_or_default();
    let stream = arn.split_once(":stream/").map(|(_, name)| name).filter(|name| !name.is_empty());
    let id = record.event_id.as_deref().unwrap_or_default();
    let shard = id.split_once(':').map(|(shard, _)| shard).filter(|shard| !shard.is_empty());
    match (stream, shard) {
        (Some(stream), Some(shard)) => Ok((stream.into(), ShardId(shard.into()))),
        (None, _) => Err(Error::invalid(format!("expected an `eventSourceARN` with a stream, found `{arn}`"))),
        (_, None) => Err(Error::invalid(format!("expected an `eventID` of shard and sequence number, found `{id}`"))),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn event(arn: &str, id: &str) -> KinesisEvent {
        serde_json::from_value(json!({"Records": [{
            "eventSource": "aws:kinesis", "eventSourceARN": arn, "eventID": id,
            "kinesis": {"sequenceNumber": "7", "data": "aGVsbG8=", "partitionKey": "k", "approximateArrivalTimestamp": 1.234},
        }]}))
        .unwrap()
    }

    #[test]
    fn an_arrival_has_its_stream_shard_size_and_time() {
        let arrivals = arrivals(event("arn:aws:kinesis:local:0:stream/flights", "shardId-000000000003:7")).unwrap();
        let shard = ShardId("shardId-000000000003".into());
        assert_eq!(arrivals["flights"][&shard], [Arrival { sequence: 7.into(), bytes: 5, at_ms: 1234 }]);
    }

    #[test]
    fn a_record_of_no_stream_is_refused_with_what_it_says() {
        let error = arrivals(event("arn:aws:s3:::bucket", "shardId-000000000003:7")).unwrap_err();
        assert!(error.to_string().contains("`arn:aws:s3:::bucket`"), "{error}");
        assert!(arrivals(event("arn:aws:kinesis:local:0:stream/flights", "7")).is_err());
    }

    #[test]
    fn a_tick_says_which_stream_and_whether_to_flush() {
        let tick = Tick::parse(json!({"function": "batcher", "name": "flights", "flush": true})).unwrap();
        assert_eq!(tick, Tick { name: Some("flights".into()), flush: true });
        assert_eq!(Tick::parse(json!({})).unwrap(), Tick::default());
        assert!(Tick::parse(json!({"flush": "yes"})).is_err());
    }
}
