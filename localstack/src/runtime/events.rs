//! The events that AWS would send: built here, in the shape that Lambda receives.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use chrono::{DateTime, SecondsFormat, Utc};
use serde_json::{Map, Value, json};
use shared::model::{Keys, ShardId};
use shared::storage::ObjectInfo;
use shared::stream::Record;
use url::Url;

/// What the events of the embedded runtime name as region and account.
const REGION: &str = "local";
const ACCOUNT: &str = "000000000000";

/// Records of one shard of a Kinesis stream.
pub fn kinesis(stream: &str, shard: &ShardId, records: &[Record]) -> Value {
    let arn = format!("arn:aws:kinesis:{REGION}:{ACCOUNT}:stream/{stream}");
    let records: Vec<Value> = records
        .iter()
        .map(|record| {
            let mut kinesis = Map::with_capacity(5);
            kinesis.insert("kinesisSchemaVersion".into(), "1.0".into());
            kinesis.insert("partitionKey".into(), record.partition_key.as_str().into());
            kinesis.insert("sequenceNumber".into(), record.sequence.as_str().into());
            kinesis.insert("data".into(), STANDARD.encode(&record.data).into());
            kinesis.insert("approximateArrivalTimestamp".into(), seconds(record.arrival_ms));
            let mut event = Map::with_capacity(8);
            event.insert("kinesis".into(), Value::Object(kinesis));
            event.insert("eventSource".into(), "aws:kinesis".into());
            event.insert("eventVersion".into(), "1.0".into());
            event.insert("eventID".into(), format!("{shard}:{}", record.sequence).into());
            event.insert("eventName".into(), "aws:kinesis:record".into());
            event.insert("invokeIdentityArn".into(), format!("arn:aws:iam::{ACCOUNT}:role/tarn").into());
            event.insert("awsRegion".into(), REGION.into());
            event.insert("eventSourceARN".into(), arn.as_str().into());
            Value::Object(event)
        })
        .collect();
    json!({"Records": records})
}

/// What happened to an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ObjectChange {
    Created,
    Removed,
}

/// Objects of the warehouse that were created or removed. A key is the path from the bucket on, encoded as S3 does.
pub fn objects(keys: &Keys, changes: &[(ObjectChange, ObjectInfo)], now_ms: i64) -> Value {
    let bucket = keys.bucket();
    let records: Vec<Value> = changes
        .iter()
        .map(|(change, object)| {
            let (name, size) = match change {
                ObjectChange::Created => ("ObjectCreated:Put", json!(object.size)),
                ObjectChange::Removed => ("ObjectRemoved:Delete", Value::Null),
            };
            let mut record = json!({
                "eventVersion": "2.1",
                "eventSource": "aws:s3",
                "awsRegion": REGION,
                "eventTime": time(now_ms).to_rfc3339_opts(SecondsFormat::Millis, true),
                "eventName": name,
                "userIdentity": {"principalId": "tarn"},
                "requestParameters": {"sourceIPAddress": "127.0.0.1"},
                "responseElements": {"x-amz-request-id": "", "x-amz-id-2": ""},
                "s3": {
                    "s3SchemaVersion": "1.0",
                    "configurationId": "tarn",
                    "bucket": {
                        "name": bucket,
                        "ownerIdentity": {"principalId": "tarn"},
                        "arn": format!("arn:aws:s3:::{bucket}"),
                    },
                    "object": {
                        "key": object_key(&object.url),
                        "sequencer": format!("{:016X}", object.modified_ms),
                    },
                },
            });
            if *change == ObjectChange::Created {
                record["s3"]["object"]["size"] = size;
                record["s3"]["object"]["eTag"] = json!(object.etag.as_deref().unwrap_or_default());
            }
            record
        })
        .collect();
    json!({"Records": records})
}

/// A tick of a schedule, as EventBridge sends it. `id` tells this tick from every other.
pub fn schedule(detail: &Value, id: &str, now_ms: i64) -> Value {
    json!({
        "version": "0",
        "id": id,
        "detail-type": "Scheduled Event",
        "source": "tarn.scheduler",
        "account": ACCOUNT,
        "time": time(now_ms).to_rfc3339_opts(SecondsFormat::Secs, true),
        "region": REGION,
        "resources": [],
        "detail": detail,
    })
}

/// The key of an object, with what S3 percent-encodes in events encoded (and space as `+`).
fn object_key(object: &Url) -> String {
    let key = object.path().strip_prefix('/').unwrap_or(object.path());
    let parts: Vec<String> = key
        .split('/')
        .map(|part| {
            let decoded: Vec<u8> = percent_encoding::percent_decode_str(part).collect();
            url::form_urlencoded::byte_serialize(&decoded).collect()
        })
        .collect();
    parts.join("/")
}

/// A request's query string as API Gateway gives it: decoded, the values of a repeated name joined by commas.
pub(super) fn query_parameters(query: &str) -> BTreeMap<String, String> {
    let mut parameters = BTreeMap::<String, String>::new();
    for (name, value) in url::form_urlencoded::parse(query.as_bytes()) {
        parameters
            .entry(name.into_owned())
            .and_modify(|values| {
                values.push(',');
                values.push_str(&value);
            })
            .or_insert_with(|| value.into_owned());
    }
    parameters
}

fn time(ms: i64) -> DateTime<Utc> {
    DateTime::from_timestamp_millis(ms).unwrap_or_default()
}

/// Milliseconds as the decimal seconds that Kinesis writes.
#[allow(clippy::cast_precision_loss)] // Exact up to the year 287396.
fn seconds(ms: i64) -> Value {
    json!(ms as f64 / 1000.0)
}

#[cfg(test)]
mod tests {
    use aws_lambda_events::kinesis::KinesisEvent;
    use aws_lambda_events::s3::S3Event;
    use shared::api::Event;
    use shared::model::SequenceNumber;

    use super::*;

    #[test]
    fn a_kinesis_event_is_the_one_aws_sends() {
        let record = Record {
            sequence: SequenceNumber::from(42),
            partition_key: "k".into(),
            data: bytes::Bytes::from_static(b"{}"),
            arrival_ms: 1_545_084_650_987,
        };
        let event = kinesis("flights", &ShardId("shardId-000000000000".into()), std::slice::from_ref(&record));
        assert_eq!(event["Records"][0]["kinesis"]["approximateArrivalTimestamp"].to_string(), "1545084650.987");
        let read: KinesisEvent = serde_json::from_value(event).unwrap();
        let read = &read.records[0];
        assert_eq!(read.kinesis.sequence_number, "42");
        assert_eq!(read.kinesis.data.0, b"{}");
        assert_eq!(read.kinesis.approximate_arrival_timestamp.timestamp_millis(), record.arrival_ms);
        assert_eq!(read.event_id.as_deref(), Some("shardId-000000000000:42"));
        assert_eq!(read.event_source_arn.as_deref(), Some("arn:aws:kinesis:local:000000000000:stream/flights"));
    }

    fn object(url: &str) -> ObjectInfo {
        ObjectInfo { url: Url::parse(url).unwrap(), size: 7, etag: Some("e".into()), modified_ms: 1 }
    }

    #[test]
    fn an_object_event_names_bucket_and_key_as_s3_does() {
        let keys = Keys::new(Url::parse("file:///data/objects/").unwrap()).unwrap();
        let changes = [
            (ObjectChange::Created, object("file:///data/objects/raw/weather/day=1/a%20b.csv")),
            (ObjectChange::Removed, object("file:///data/objects/raw/weather/c.csv")),
        ];
        let event: S3Event = serde_json::from_value(objects(&keys, &changes, 0)).unwrap();
        let (created, removed) = (&event.records[0], &event.records[1]);
        assert_eq!(created.event_name.as_deref(), Some("ObjectCreated:Put"));
        assert_eq!(created.s3.bucket.name.as_deref(), Some("local"));
        assert_eq!(created.s3.object.key.as_deref(), Some("data/objects/raw/weather/day%3D1/a+b.csv"));
        assert_eq!(created.s3.object.size, Some(7));
        assert_eq!(removed.event_name.as_deref(), Some("ObjectRemoved:Delete"));
        assert_eq!(removed.s3.object.size, None);
    }

    #[test]
    fn a_bucket_of_the_warehouse_keeps_its_name() {
        let keys = Keys::new(Url::parse("s3://lake/prefix/").unwrap()).unwrap();
        let event = objects(&keys, &[(ObjectChange::Created, object("s3://lake/prefix/raw/x.csv"))], 0);
        assert_eq!(event["Records"][0]["s3"]["bucket"]["name"], "lake");
        assert_eq!(event["Records"][0]["s3"]["object"]["key"], "prefix/raw/x.csv");
    }

    #[test]
    fn a_tick_is_an_eventbridge_event() {
        let detail = json!({"function": "crawl", "name": "weather"});
        let Event::Schedule(event) = Event::parse(schedule(&detail, "1", 0)).unwrap() else { panic!() };
        assert_eq!(event.source.as_str(), "tarn.scheduler");
        assert_eq!(event.detail, detail);
    }

    #[test]
    fn a_repeated_query_parameter_is_joined_by_commas() {
        assert_eq!(
            query_parameters("a=1&a=2&b=x+y"),
            BTreeMap::from([("a".into(), "1,2".into()), ("b".into(), "x y".into())])
        );
    }
}
