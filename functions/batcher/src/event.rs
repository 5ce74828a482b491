//! What the events say: records that arrived, and ticks.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde_json::Value;
use shared::model::{SequenceNumber, ShardId};
use shared::project::Project;
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

/// A record that can't be counted.
#[derive(Debug)]
pub(crate) struct Refused {
    /// What Lambda knows the record by; empty when it does not say, which stands for the whole event.
    pub(crate) sequence: String,
    pub(crate) error: Error,
}

/// Gives the name of a stream in the lakehouse file for its name in Kinesis; `None` for one of somebody else's.
pub(crate) type Declared<'a> = &'a dyn Fn(&str) -> Option<String>;

/// The arrivals that a Kinesis event tells of, in sequence order, and its records that tell of none: those that can't be read
/// and those of a stream that the lakehouse file lacks. `declared` gives the name of a stream in that file for its name in Kinesis.
pub(crate) fn arrivals(records: &[Value], project: &Project, declared: Declared<'_>) -> (Arrivals, Vec<Refused>) {
    let (mut arrivals, mut refused) = (Arrivals::new(), Vec::new());
    for record in records {
        match arrival(record, project, declared) {
            Ok((stream, shard, arrival)) => {
                arrivals.entry(stream).or_default().entry(shard).or_default().push(arrival);
            }
            Err(error) => refused.push(Refused { sequence: identifier(record), error }),
        }
    }
    for shards in arrivals.values_mut() {
        shards.values_mut().for_each(|all| all.sort_by(|a, b| a.sequence.cmp(&b.sequence)));
    }
    (arrivals, refused)
}

/// # Errors
/// `Invalid` for a record without stream, shard, sequence number, time or data; `NotFound` for one of another stream.
fn arrival(record: &Value, project: &Project, declared: Declared<'_>) -> Result<(String, ShardId, Arrival)> {
    let source = text(record, "/eventSource").unwrap_or_default();
    if source != "aws:kinesis" {
        return Err(Error::invalid(format!("expected a record of `aws:kinesis`, found one of `{source}`")));
    }
    let (resource, shard) = origin(record)?;
    let stream = declared(&resource).ok_or_else(|| {
        Error::not_found(format!("expected a record of a stream of this lakehouse, found one of `{resource}`"))
    })?;
    project.stream(&stream)?;
    let missing = |what: &str| Error::invalid(format!("expected {what} in a record of stream `{stream}`, found none"));
    let sequence = text(record, "/kinesis/sequenceNumber").ok_or_else(|| missing("a `sequenceNumber`"))?.parse()?;
    let data = text(record, "/kinesis/data").ok_or_else(|| missing("`data`"))?;
    let time = record.pointer("/kinesis/approximateArrivalTimestamp").and_then(Value::as_f64);
    let arrival = Arrival {
        sequence,
        bytes: STANDARD.decode(data).map_err(|_| missing("`data` in base64"))?.len() as u64,
        at_ms: millis(time.ok_or_else(|| missing("an `approximateArrivalTimestamp`"))?),
    };
    Ok((stream, shard, arrival))
}

fn text<'a>(record: &'a Value, pointer: &str) -> Option<&'a str> {
    record.pointer(pointer).and_then(Value::as_str)
}

/// What names a record in `batchItemFailures`: its sequence number, which is in its id too.
fn identifier(record: &Value) -> String {
    let own = text(record, "/kinesis/sequenceNumber");
    let in_id = text(record, "/eventID").and_then(|id| id.split_once(':')).map(|(_, sequence)| sequence);
    let number = |text: &&str| text.parse::<SequenceNumber>().is_ok();
    own.filter(number).or(in_id.filter(number)).unwrap_or_default().to_owned()
}

/// Milliseconds of decimal seconds.
#[allow(clippy::cast_possible_truncation)] // A time out of range becomes the nearest in range.
fn millis(seconds: f64) -> i64 {
    (seconds * 1000.0).round() as i64
}

/// The stream, from `arn:aws:kinesis:region:account:stream/name`, and the shard, from `shardId-000000000000:49590…`.
fn origin(record: &Value) -> Result<(String, ShardId)> {
    let arn = text(record, "/eventSourceARN").unwrap_or_default();
    let stream = arn.split_once(":stream/").map(|(_, name)| name).filter(|name| !name.is_empty());
    let id = text(record, "/eventID").unwrap_or_default();
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

    fn record(stream: &str, sequence: &str, data: &str) -> Value {
        json!({
            "eventSource": "aws:kinesis", "eventSourceARN": format!("arn:aws:kinesis:local:0:stream/lake-{stream}"),
            "eventID": format!("shardId-000000000003:{sequence}"),
            "kinesis": {"sequenceNumber": sequence, "data": data, "approximateArrivalTimestamp": 1.234},
        })
    }

    fn told(records: &[Value]) -> (Arrivals, Vec<Refused>) {
        let text = "version: 1\ndatabase: d\nstreams:\n  flights: {schema: [{name: id, type: bigint}]}\n";
        let declared = |name: &str| name.strip_prefix("lake-").map(str::to_owned);
        arrivals(records, &Project::parse(text, "test").unwrap(), &declared)
    }

    #[test]
    fn a_record_of_a_stream_that_is_not_ours_is_refused() {
        let mut foreign = record("flights", "8", "");
        foreign["eventSourceARN"] = "arn:aws:kinesis:local:0:stream/other-flights".into();
        let (arrivals, refused) = told(&[record("flights", "7", ""), foreign]);
        assert_eq!((arrivals.len(), arrivals["flights"].len()), (1, 1));
        let refused: Vec<_> = refused.iter().map(|r| (r.sequence.as_str(), r.error.to_string())).collect();
        assert_eq!(
            refused,
            [("8", "expected a record of a stream of this lakehouse, found one of `other-flights`".into())]
        );
    }

    #[test]
    fn an_arrival_has_its_stream_shard_size_and_time() {
        let (arrivals, refused) = told(&[record("flights", "7", "aGVsbG8=")]);
        assert_eq!(
            arrivals["flights"][&ShardId("shardId-000000000003".into())],
            [Arrival { sequence: 7.into(), bytes: 5, at_ms: 1234 }]
        );
        assert!(refused.is_empty());
    }

    #[test]
    fn a_record_that_can_not_be_counted_holds_up_no_other_and_says_nothing_of_its_data() {
        let with = |pointer: &str, value: Value| {
            let mut record = record("flights", "8", "aGVsbG8=");
            *record.pointer_mut(pointer).unwrap() = value;
            record
        };
        for (bad, sequence, found) in [
            (record("flights", "8", "s3cret!"), "8", "`data` in base64"),
            (record("trains", "8", "aGVsbG8="), "8", "`trains`"),
            (with("/eventSource", json!("aws:s3")), "8", "`aws:s3`"),
            (with("/eventSourceARN", json!("arn:aws:s3:::bucket")), "8", "`arn:aws:s3:::bucket`"),
            (with("/eventID", json!("8")), "8", "`eventID`"),
            (with("/kinesis/sequenceNumber", json!("x8")), "8", "`x8`"),
            (with("/kinesis/data", Value::Null), "8", "`data`"),
            (with("/kinesis/approximateArrivalTimestamp", json!("s3cret")), "8", "`approximateArrivalTimestamp`"),
            (with("/kinesis", json!("s3cret")), "8", "`sequenceNumber`"),
            (json!({"eventSource": "aws:kinesis"}), "", "`eventSourceARN`"),
            (json!("s3cret"), "", "`aws:kinesis`"),
        ] {
            let (arrivals, refused) = told(&[record("flights", "7", ""), bad.clone(), record("flights", "9", "")]);
            let taken: Vec<_> = arrivals["flights"].values().flatten().map(|a| a.sequence.to_string()).collect();
            assert_eq!((taken, refused.len()), (vec!["7".to_owned(), "9".into()], 1), "{bad}");
            let text = refused[0].error.to_string();
            assert!(
                refused[0].sequence == sequence && text.contains(found) && !text.contains("s3cret"),
                "{bad}: {text}"
            );
        }
    }

    #[test]
    fn a_tick_says_which_stream_and_whether_to_flush() {
        let tick = Tick::parse(json!({"function": "batcher", "name": "flights", "flush": true})).unwrap();
        assert_eq!(tick, Tick { name: Some("flights".into()), flush: true });
        assert_eq!(Tick::parse(json!({})).unwrap(), Tick::default());
        assert!(Tick::parse(json!({"flush": "yes"})).is_err());
    }
}
