//! Kinesis to Lambda as AWS documents it, played by the test: MiniStack's own event source takes `batchItemFailures` for
//! success, and knows neither bisecting nor a limit of retries nor a destination of failures. What is called is the deployed
//! batcher.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use adapters_aws::kinesis::KinesisStream;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use futures::future::join_all;
use serde_json::{Value, json};
use shared::clock::SystemClock;
use shared::model::ShardId;
use shared::random::SystemRandom;
use shared::stream::{NewRecord, PutOutcome, Record, Stream};
use testing::stream::read_all;
use url::Url;

use super::proxy::{Fault, Plan, Proxy};
use super::{Emulator, Stack};
use crate::lake::{Lake, as_i64};
use crate::lambda as http;

const LAKEHOUSE: &str = "
version: 1
database: poller
streams:
  events:
    schema: [{name: id, type: bigint, required: true}]
    buffer: {size: 1MiB, interval: 1s}
";
/// As in the template.
const RETRIES: u32 = 5;
const BATCH: usize = 15;
const GOOD: i64 = 120;

/// Calls that the function's calls of Glue fail for before Glue is there again: those of two invocations.
const OUTAGE: usize = 12;

/// An event source of one function: the records of each shard in order, the shards at once.
pub(super) struct Poller {
    pub(super) lambda: Lambda,
    pub(super) stream: String,
    /// Says of a record whether its event is damaged on the way, so that the function can't read it.
    pub(super) damaged: fn(&Record) -> bool,
}

/// What became of a shard's batches.
#[derive(Debug, Default)]
pub(super) struct Delivered {
    pub(super) calls: u32,
    bisected: u32,
    /// Batches that were sent again because the function said so, or failed.
    retried: u32,
    /// What the destination of failures learns of: the records of each batch that was given up.
    pub(super) given_up: Vec<Vec<Record>>,
}

impl Poller {
    pub(super) async fn deliver(&self, shard: &ShardId, records: &[Record]) -> Delivered {
        let mut delivered = Delivered::default();
        for (number, batch) in records.chunks(BATCH).enumerate() {
            self.take(shard, batch, &mut delivered).await;
            // At least once: a batch that was taken may come again.
            if number.is_multiple_of(2) {
                self.take(shard, batch, &mut delivered).await;
            }
        }
        delivered
    }

    /// One batch until it is taken or given up.
    async fn take(&self, shard: &ShardId, batch: &[Record], delivered: &mut Delivered) {
        let mut waiting = VecDeque::from([(batch, RETRIES)]);
        while let Some((batch, retries)) = waiting.pop_front() {
            delivered.calls += 1;
            let rest = match self.lambda.invoke(&self.event(shard, batch)).await {
                Ok(answer) => match first_failed(&answer, batch) {
                    None => continue,
                    Some(first) => &batch[first..],
                },
                Err(_) if batch.len() > 1 => {
                    let (first, second) = batch.split_at(batch.len() / 2);
                    delivered.bisected += 1;
                    waiting.push_front((second, RETRIES));
                    waiting.push_front((first, RETRIES));
                    continue;
                }
                Err(_) => batch,
            };
            match retries.checked_sub(1) {
                Some(left) => {
                    delivered.retried += 1;
                    waiting.push_front((rest, left));
                }
                None => delivered.given_up.push(rest.to_vec()),
            }
        }
    }

    fn event(&self, shard: &ShardId, batch: &[Record]) -> Value {
        let record = |record: &Record| {
            let data = if (self.damaged)(record) { "%%%".into() } else { STANDARD.encode(&record.data) };
            #[allow(clippy::cast_precision_loss)] // Milliseconds of our time have their places.
            let time = record.arrival_ms as f64 / 1_000.0;
            json!({
                "eventSource": "aws:kinesis", "eventVersion": "1.0", "eventName": "aws:kinesis:record",
                "awsRegion": "us-east-1", "eventID": format!("{shard}:{}", record.sequence),
                "eventSourceARN": format!("arn:aws:kinesis:us-east-1:000000000000:stream/{}", self.stream),
                "invokeIdentityArn": "arn:aws:iam::000000000000:role/tarn",
                "kinesis": {
                    "kinesisSchemaVersion": "1.0", "partitionKey": record.partition_key,
                    "sequenceNumber": record.sequence.as_str(), "data": data, "approximateArrivalTimestamp": time,
                },
            })
        };
        json!({"Records": batch.iter().map(record).collect::<Vec<_>>()})
    }
}

/// The place in the batch from which it is to be sent again: that of the lowest sequence number told. A number that is not in
/// the batch stands for all of it.
fn first_failed(answer: &Value, batch: &[Record]) -> Option<usize> {
    let failures = answer["batchItemFailures"].as_array().unwrap();
    let place = |failure: &Value| {
        let sequence = failure["itemIdentifier"].as_str().unwrap_or_default();
        batch.iter().position(|record| record.sequence.as_str() == sequence).unwrap_or(0)
    };
    failures.iter().map(place).min()
}

/// The API of Lambda for one function.
pub(super) struct Lambda {
    client: reqwest::Client,
    endpoint: String,
    function: String,
}

impl Lambda {
    fn url(&self, rest: &str) -> String {
        format!("{}/2015-03-31/functions/{}/{rest}", self.endpoint, self.function)
    }

    /// The answer, or the function's error.
    async fn invoke(&self, event: &Value) -> Result<Value, Value> {
        let answer = self.client.post(self.url("invocations")).body(event.to_string()).send().await.unwrap();
        assert_eq!(answer.status().as_u16(), 200);
        let failed = answer.headers().contains_key("x-amz-function-error");
        let body: Value = answer.json().await.unwrap();
        if failed { Err(body) } else { Ok(body) }
    }

    /// Writes the stream's records, by a request to the function itself: the API calls the version that was deployed, which
    /// knows nothing of what [`Lambda::set`] has changed since.
    pub(super) async fn flush(&self, stream: &str) {
        let request = http::request("POST", &format!("/streams/{stream}/flush"), "{}");
        let (status, answer) = http::read(self.invoke(&request).await.unwrap());
        assert_eq!(status, 200, "{answer}");
    }

    /// Adds a variable to the function's environment.
    pub(super) async fn set(&self, name: &str, value: &str) {
        let now: Value = self.client.get(self.url("configuration")).send().await.unwrap().json().await.unwrap();
        let mut variables = now["Environment"]["Variables"].clone();
        variables[name] = value.into();
        let change = json!({"Environment": {"Variables": variables}}).to_string();
        let changed = self.client.put(self.url("configuration")).body(change).send().await.unwrap();
        assert!(changed.status().is_success(), "{changed:?}");
    }

    /// Removes the event sources that the stack has made.
    pub(super) async fn unplug(&self) {
        let url = format!("{}/2015-03-31/event-source-mappings/", self.endpoint);
        let all: Value = self.client.get(&url).send().await.unwrap().json().await.unwrap();
        let sources = all["EventSourceMappings"].as_array().unwrap();
        let ours = sources.iter().filter(|source| source["FunctionArn"].as_str().unwrap().contains(&self.function));
        let mut removed = 0;
        for source in ours {
            let answer = self.client.delete(format!("{url}{}", source["UUID"].as_str().unwrap())).send().await.unwrap();
            assert!(answer.status().is_success(), "{answer:?}");
            removed += 1;
        }
        assert_eq!(removed, 1, "the template has an event source for the stream: {all:#}");
    }
}

pub(super) fn lambda(emulator: &Emulator, stack: &Stack) -> Lambda {
    let function = stack.0["functions"]["batcher"].as_str().unwrap().to_owned();
    Lambda { client: reqwest::Client::new(), endpoint: emulator.endpoint.clone(), function }
}

fn data(record: &Record) -> &str {
    std::str::from_utf8(&record.data).unwrap()
}

/// Good records, some that no schema takes, and a run of them whose events are damaged; spread over the shards.
async fn put(stream: &KinesisStream) {
    let good = (0..GOOD).map(|id| json!({ "id": id }).to_string());
    let bad = (0..4).map(|n| format!("no JSON, {n}"));
    let records =
        good.chain(bad).enumerate().map(|(n, data)| NewRecord { partition_key: n.to_string(), data: data.into() });
    let outcomes = stream.put("events", records.collect()).await.unwrap();
    assert!(outcomes.iter().all(|outcome| matches!(outcome, PutOutcome::Stored { .. })), "{outcomes:?}");
}

/// One record in the middle, and all of the last batch and more.
fn damaged(record: &Record) -> bool {
    let id = serde_json::from_slice::<Value>(&record.data).ok().and_then(|record| record["id"].as_i64());
    id.is_some_and(|id| id == 20 || id >= GOOD - 50)
}

#[tokio::test(flavor = "multi_thread")]
async fn events_that_fail_or_come_twice_or_are_given_up_lose_no_record_and_double_none() {
    let emulator = Emulator::ministack();
    let parameters = ["StreamMode=PROVISIONED", "StreamShards=2", "TickState=DISABLED"];
    let stack = emulator.deploy("tarn-poller", LAKEHOUSE, &parameters).await;
    let lambda = lambda(emulator, &stack);
    lambda.unplug().await;
    let glue = Proxy::start(&emulator.endpoint, Plan::random(1, 1_000, &[Fault::Unavailable]).at_most(OUTAGE)).await;
    lambda.set("AWS_ENDPOINT_URL_GLUE", &glue.endpoint).await;

    let stream =
        KinesisStream::new(&emulator.aws().await, "tarn-poller-", Arc::new(SystemClock), Arc::new(SystemRandom));
    put(&stream).await;
    let shards = read_all(&stream, "events", 1_000).await;
    assert_eq!(shards.len(), 2);
    // From here on each event finds the stream due.
    tokio::time::sleep(Duration::from_millis(1_100)).await;
    let poller = Poller { lambda, stream: "tarn-poller-events".into(), damaged };
    let delivered = join_all(shards.iter().map(|(shard, records)| poller.deliver(shard, records))).await;
    glue.has_injected_all();

    let count = |of: fn(&Delivered) -> u32| delivered.iter().map(of).sum::<u32>();
    assert!(count(|d| d.bisected) > 0, "{delivered:?}");
    assert!(count(|d| d.retried) > 0, "{delivered:?}");
    let given_up: Vec<_> = delivered.iter().flat_map(|d| &d.given_up).collect();
    assert!(!given_up.is_empty(), "{delivered:?}");
    assert!(given_up.iter().all(|batch| damaged(&batch[0])), "only what can't be read is given up: {given_up:?}");
    assert!(given_up.iter().any(|batch| batch.len() == 1), "{given_up:?}");

    let lake = Lake::deployed(LAKEHOUSE, stack.api());
    lake.flush("events").await;
    let found = lake.sql("SELECT id, count(*) FROM events GROUP BY id ORDER BY id").await;
    let found: Vec<_> = found.iter().map(|row| (as_i64(&row[0]), as_i64(&row[1]))).collect();
    assert_eq!(found, (0..GOOD).map(|id| (id, 1)).collect::<Vec<_>>());
    let bad = shards.values().flatten().filter(|record| data(record).starts_with("no JSON"));
    let expected: BTreeMap<_, _> = bad.map(|record| (data(record).to_owned(), 1)).collect();
    assert_eq!(failed(emulator, &stack).await, expected);
}

/// The data of the lines in the error objects, and how often each comes.
async fn failed(emulator: &Emulator, stack: &Stack) -> BTreeMap<String, usize> {
    let root = Url::parse(&format!("s3://{}/", stack.0["bucket"].as_str().unwrap())).unwrap();
    let storage = adapters_aws::storage::open(&emulator.aws().await, std::slice::from_ref(&root)).unwrap();
    let mut found = BTreeMap::new();
    for object in storage.list(&root.join("errors/").unwrap()).await.unwrap() {
        let text = storage.get(&object.url).await.unwrap();
        for line in String::from_utf8(text.to_vec()).unwrap().lines() {
            let line: Value = serde_json::from_str(line).unwrap();
            let data = STANDARD.decode(line["rawData"].as_str().unwrap()).unwrap();
            *found.entry(String::from_utf8(data).unwrap()).or_default() += 1;
        }
    }
    found
}
