use std::collections::BTreeSet;
use std::future::Future;
use std::task::Poll;

use arrow::array::AsArray;
use arrow::datatypes::Int64Type;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use datafusion::prelude::SessionContext;
use proptest::prelude::*;
use shared::ErrorKind;
use shared::clock::ManualClock;
use shared::model::{SequenceNumber, TableName};
use shared::stream::{NewRecord, PutOutcome, ReadFrom, StreamSpec};
use table::{Read, Table};
use table_datafusion::ReadTable;
use testing::faults::{Fault, Faulty, Operation, Plan};

use super::*;

mod erased;
mod replay;
mod throttled;

use throttled::Narrow;

const LAKEHOUSE: &str = "
version: 1
database: nyc
streams:
  flights:
    shards: 2
    partition_by: [day(at)]
    buffer: {size: 1MiB, interval: 60s}
    schema:
      - {name: id, type: bigint, required: true}
      - {name: name, type: string}
      - {name: at, type: timestamp}
";

/// A lakehouse in memory with the stream `flights` of two shards.
struct Lake {
    ports: Ports,
    clock: Arc<ManualClock>,
}

/// What was put: the ids of good records, and where the bad ones are.
#[derive(Debug, Default, PartialEq, Eq)]
struct Contents {
    stored: Vec<i64>,
    rejected: Vec<(ShardId, SequenceNumber)>,
}

impl Contents {
    fn sorted(mut self) -> Self {
        self.stored.sort_unstable();
        self.rejected.sort();
        self
    }

    fn extend(&mut self, other: Self) {
        self.stored.extend(other.stored);
        self.rejected.extend(other.rejected);
    }
}

impl Lake {
    async fn new() -> Self {
        let clock = Arc::new(ManualClock::at(1_000_000));
        let ports = adapters_embedded::in_memory(clock.clone()).unwrap();
        let spec = StreamSpec { name: "flights".into(), shards: 2, retention_hours: 24 };
        ports.stream.create(&spec).await.unwrap();
        Self { ports, clock }
    }

    fn batcher(&self) -> Batcher {
        self.batcher_over(self.ports.clone())
    }

    fn batcher_over(&self, ports: Ports) -> Batcher {
        Batcher::new(Arc::new(Project::parse(LAKEHOUSE, "test").unwrap()), ports).unwrap()
    }

    fn batcher_reading(&self, stream: &Arc<Narrow>) -> Batcher {
        self.batcher_over(Ports { stream: stream.clone(), ..self.ports.clone() })
    }

    /// A batcher whose storage fails by `plan`.
    fn faulty(&self, plan: &Arc<Plan>) -> Batcher {
        let storage = self.ports.storage.wrapped(|store| Faulty::wrap(store, plan));
        self.batcher_over(Ports { storage, ..self.ports.clone() })
    }

    async fn put(&self, records: &[String]) -> Vec<(ShardId, SequenceNumber)> {
        let records = records
            .iter()
            .map(|text| NewRecord { partition_key: text.chars().take(99).collect(), data: text.clone().into() });
        let outcomes = self.ports.stream.put("flights", records.collect()).await.unwrap();
        let place = |outcome| match outcome {
            PutOutcome::Stored { shard, sequence } => (shard, sequence),
            other => panic!("{other:?}"),
        };
        outcomes.into_iter().map(place).collect()
    }

    /// Puts records with these ids; every id that 5 divides has a bad one.
    async fn put_ids(&self, ids: std::ops::Range<i64>) -> Contents {
        let text = |id| match id % 5 {
            0 => format!(r#"{{"id":"{id}"}}"#),
            _ => format!(r#"{{"id":{id},"name":"n{id}","at":"2013-01-0{}T00:00:00Z"}}"#, id % 9 + 1),
        };
        let places = self.put(&ids.clone().map(text).collect::<Vec<_>>()).await;
        let rejected = ids.clone().zip(places).filter(|(id, _)| id % 5 == 0).map(|(_, place)| place);
        Contents { stored: ids.filter(|id| id % 5 != 0).collect(), rejected: rejected.collect() }
    }

    /// The Kinesis event of everything in the stream.
    async fn event(&self) -> Value {
        let mut records = Vec::new();
        for shard in self.ports.stream.shards("flights").await.unwrap() {
            let batch = self.ports.stream.read("flights", &shard.id, ReadFrom::Oldest, 10_000).await.unwrap();
            records.extend(batch.records.into_iter().map(|record| {
                json!({
                    "eventSource": "aws:kinesis",
                    "eventSourceARN": "arn:aws:kinesis:local:000000000000:stream/flights",
                    "eventID": format!("{}:{}", shard.id, record.sequence),
                    "kinesis": {
                        "sequenceNumber": record.sequence,
                        "partitionKey": record.partition_key,
                        "data": STANDARD.encode(&record.data),
                        "approximateArrivalTimestamp": record.arrival_ms as f64 / 1000.0,
                    },
                })
            }));
        }
        json!({"Records": records})
    }

    async fn table(&self) -> Table {
        Tables::new(self.ports.clone()).load(&TableName::new("nyc", "flights").unwrap()).await.unwrap()
    }

    /// What lies in the table and in the error objects.
    async fn contents(&self) -> Contents {
        let provider = self.table().await.provider(Read::Current).await.unwrap();
        let session = SessionContext::new();
        let root = self.ports.keys.root();
        session.register_object_store(root, self.ports.storage.resolve(root).unwrap().0);
        let batches = session.read_table(provider).unwrap().collect().await.unwrap();
        let ids = |batch: &arrow::record_batch::RecordBatch| {
            batch.column_by_name("id").unwrap().as_primitive::<Int64Type>().values().to_vec()
        };
        let mut rejected = Vec::new();
        for object in self.ports.storage.list(&self.ports.keys.errors("flights")).await.unwrap() {
            let text = self.ports.storage.get(&object.url).await.unwrap();
            for line in text.split(|b| *b == b'\n').filter(|line| !line.is_empty()) {
                let line: Value = serde_json::from_slice(line).unwrap();
                rejected.push((
                    ShardId(line["shard"].as_str().unwrap().into()),
                    line["sequence"].as_str().unwrap().parse().unwrap(),
                ));
            }
        }
        Contents { stored: batches.iter().flat_map(ids).collect(), rejected }.sorted()
    }
}

fn tick(flush: bool) -> Value {
    json!({
        "source": "tarn.scheduler", "detail-type": "Scheduled Event",
        "detail": {"function": "batcher", "name": "flights", "flush": flush},
    })
}

/// Polls `future` so many times and then drops it, as a kill would.
async fn killed_after<F: Future>(polls: usize, future: F) -> Option<F::Output> {
    let mut future = Box::pin(future);
    let mut left = polls;
    std::future::poll_fn(|context| {
        if left == 0 {
            return Poll::Ready(None);
        }
        left -= 1;
        future.as_mut().poll(context).map(Some)
    })
    .await
}

#[tokio::test]
async fn records_wait_until_they_are_old_enough() {
    let lake = Lake::new().await;
    let batcher = lake.batcher();
    lake.put_ids(1..4).await;
    let answer = call(&batcher, lake.event().await).await.unwrap();
    assert_eq!(answer, json!({"batchItemFailures": [], "flushed": []}));
    lake.clock.advance(59_999);
    assert_eq!(call(&batcher, tick(false)).await.unwrap(), json!({"flushed": []}));
    lake.clock.advance(1);
    let answer = call(&batcher, tick(false)).await.unwrap();
    assert_eq!(answer["flushed"][0]["stored"], 3);
    assert_eq!(call(&batcher, tick(false)).await.unwrap(), json!({"flushed": []}));
    assert_eq!(lake.contents().await.stored, [1, 2, 3]);
}

#[tokio::test]
async fn enough_bytes_are_written_at_once() {
    let lake = Lake::new().await;
    let name = "x".repeat(700_000);
    lake.put(&[format!(r#"{{"id":1,"name":"{name}"}}"#), format!(r#"{{"id":2,"name":"{name}"}}"#)]).await;
    let answer = call(&lake.batcher(), lake.event().await).await.unwrap();
    assert_eq!(answer["flushed"][0]["stored"], 2, "{answer}");
    assert_eq!(lake.contents().await.stored, [1, 2]);
}

/// What Lambda would give back for the event.
async fn call(batcher: &Batcher, event: Value) -> Result<Value> {
    testing::invoke(event, |event| batcher.handle(event)).await
}

/// A request as API Gateway sends it; status and body of its answer.
async fn http(batcher: &Batcher, method: &str, path: &str) -> (u16, Value) {
    let event = json!({
        "version": "2.0", "routeKey": "$default", "rawPath": path, "rawQueryString": "", "headers": {},
        "requestContext": {"requestId": "r", "http": {"method": method, "path": path}, "timeEpoch": 0},
        "isBase64Encoded": false,
    });
    let response = testing::request(event, |event| batcher.handle(event)).await;
    (response.status, serde_json::from_slice(&response.body).unwrap())
}

#[tokio::test]
async fn a_flush_over_http_writes_what_is_buffered() {
    let lake = Lake::new().await;
    let batcher = lake.batcher();
    lake.put_ids(1..4).await;
    let (status, answer) = http(&batcher, "POST", "/streams/flights/flush").await;
    assert_eq!((status, &answer["flushed"][0]["stored"]), (200, &json!(3)), "{answer}");
    assert_eq!(lake.contents().await.stored, [1, 2, 3]);
    for (method, path) in [("POST", "/streams/trains/flush"), ("GET", "/streams/flights/flush"), ("POST", "/flush")] {
        let (status, answer) = http(&batcher, method, path).await;
        assert_eq!((status, &answer["error"]["kind"]), (404, &json!("NotFound")), "{method} {path}");
    }
}

#[tokio::test]
async fn a_replayed_event_changes_nothing() {
    let lake = Lake::new().await;
    let batcher = lake.batcher();
    let put = lake.put_ids(1..40).await.sorted();
    let event = lake.event().await;
    call(&batcher, event.clone()).await.unwrap();
    call(&batcher, tick(true)).await.unwrap();
    let snapshot = lake.table().await.current_snapshot();
    call(&batcher, event).await.unwrap();
    lake.clock.advance(3_600_000);
    assert_eq!(call(&batcher, tick(false)).await.unwrap(), json!({"flushed": []}));
    let answer = call(&batcher, tick(true)).await.unwrap();
    assert_eq!((&answer["flushed"][0]["records"], &answer["flushed"][0]["commits"]), (&json!(0), &json!(0)));
    assert_eq!(lake.table().await.current_snapshot(), snapshot);
    assert_eq!(lake.contents().await, put);
}

#[tokio::test]
async fn bad_records_are_set_aside_with_the_reason_and_the_counts_reconcile() {
    let lake = Lake::new().await;
    let good = r#"{"id":1,"name":"a","at":"2013-01-01 05:00:00"}"#;
    let put = [
        NewRecord { partition_key: "a".into(), data: good.into() },
        NewRecord { partition_key: "a".into(), data: r#"{"id":9223372036854775808}"#.into() },
        NewRecord { partition_key: "a".into(), data: b"{\"id\":2,\"name\":\"\xff\"}"[..].into() },
        NewRecord { partition_key: "a".into(), data: "{\"id\":".into() },
        NewRecord { partition_key: "a".into(), data: r#"{"name":"b"}"#.into() },
        NewRecord { partition_key: "a".into(), data: r#"{"id":3,"extra":true}"#.into() },
    ];
    lake.ports.stream.put("flights", put.to_vec()).await.unwrap();
    let report = lake.batcher().flush("flights").await.unwrap();
    assert_eq!((report.records, report.stored, report.rejected), (6, 2, 4));
    assert_eq!(report.ignored, BTreeMap::from([("extra".to_owned(), 1)]));
    assert_eq!(lake.contents().await.stored, [1, 3]);
    let object = lake.ports.storage.get(&report.error_objects[0].parse().unwrap()).await.unwrap();
    let lines: Vec<Value> = object
        .split(|b| *b == b'\n')
        .filter(|line| !line.is_empty())
        .map(|line| serde_json::from_slice(line).unwrap())
        .collect();
    let codes: Vec<_> = lines.iter().map(|line| line["errorCode"].as_str().unwrap()).collect();
    assert_eq!(codes, ["overflow", "invalid_utf8", "invalid_json", "missing_required"]);
    assert_eq!(STANDARD.decode(lines[1]["rawData"].as_str().unwrap()).unwrap(), put[2].data);
    assert!(lines[0]["errorMessage"].as_str().unwrap().contains("column `id`"));
    assert_eq!(lines[0]["arrivalTimestamp"], 1_000_000);
}

#[tokio::test]
async fn a_commit_that_fails_after_the_error_object_leaves_nothing_double() {
    let lake = Lake::new().await;
    let mut put = lake.put_ids(1..10).await;
    lake.batcher().flush("flights").await.unwrap();
    put.extend(lake.put_ids(10..30).await);
    // The first put is an error object; the table's files fail.
    let plan = Plan::from(Operation::Put, 3, Fault::Refused);
    let event = lake.event().await;
    lake.faulty(&plan).flush("flights").await.unwrap_err();
    assert!(plan.injected() > 0);
    put.extend(lake.put_ids(30..50).await);
    lake.clock.advance(60_000);
    let failing = lake.faulty(&Plan::from(Operation::Put, 1, Fault::Refused));
    let answer = call(&failing, event.clone()).await.unwrap();
    assert_eq!(answer["batchItemFailures"].as_array().unwrap().len(), 2, "{answer}");
    call(&lake.batcher(), event).await.unwrap();
    lake.batcher().flush("flights").await.unwrap();
    assert_eq!(lake.contents().await, put.sorted());
}

#[tokio::test]
async fn a_flush_without_time_stops_between_commits_and_the_next_one_goes_on() {
    let lake = Lake::new().await;
    let put = lake.put_ids(1..30).await;
    let batcher = lake.batcher_reading(&Narrow::over(&lake));
    let soon = lake.ports.clock.now_ms() + 16_000;
    let first = deadline::until(soon, batcher.flush("flights")).await.unwrap();
    assert!(first.unfinished, "{first:?}");
    assert_eq!((first.commits, first.records), (1, 6), "half of the 12 s before the reserve, a record a second");
    let rest = batcher.flush("flights").await.unwrap();
    assert!(!rest.unfinished && first.records + rest.records == 29, "{rest:?}");
    assert_eq!(lake.contents().await, put.sorted());
}

#[tokio::test]
async fn what_left_the_stream_before_it_was_written_is_reported() {
    let lake = Lake::new().await;
    let batcher = lake.batcher();
    lake.put_ids(1..4).await;
    call(&batcher, lake.event().await).await.unwrap();
    lake.clock.advance(25 * 3_600_000);
    lake.put_ids(6..8).await;
    let report = batcher.flush("flights").await.unwrap();
    assert_eq!((report.stored, report.missing), (2, 3));
    assert_eq!(batcher.flush("flights").await.unwrap().missing, 0);
}

#[tokio::test]
async fn what_is_no_event_of_a_declared_stream_is_refused() {
    let lake = Lake::new().await;
    let batcher = lake.batcher();
    let mut event = json!({"Records": [{
        "eventSource": "aws:kinesis", "eventSourceARN": "arn:aws:kinesis:local:0:stream/trains", "eventID": "s:1",
        "kinesis": {"sequenceNumber": "1", "data": "", "partitionKey": "k", "approximateArrivalTimestamp": 0},
    }]});
    assert_eq!(call(&batcher, event.clone()).await.unwrap_err().kind(), ErrorKind::NotFound);
    event["Records"][0]["eventSource"] = "aws:sqs".into();
    assert_eq!(call(&batcher, event).await.unwrap_err().kind(), ErrorKind::Invalid);
}

/// Something that happens to a stream.
#[derive(Debug, Clone)]
enum Act {
    Put(u8),
    Event,
    /// A flush that is killed after so many steps.
    Killed(usize),
    /// A flush over storage that fails now and then.
    Faulty(u64),
    /// A flush whose shards refuse after so many answers.
    Throttled(usize, usize),
    /// Two flushes at once, either of which may be killed.
    Both(usize, usize),
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        3 => (1u8..12).prop_map(Act::Put),
        1 => Just(Act::Event),
        2 => (0usize..40).prop_map(Act::Killed),
        1 => any::<u64>().prop_map(Act::Faulty),
        2 => (0usize..8, 0usize..8).prop_map(|(a, b)| Act::Throttled(a, b)),
        2 => (0usize..200, 0usize..200).prop_map(|(a, b)| Act::Both(a, b)),
    ]
}

async fn live(acts: Vec<Act>) -> (Contents, Contents) {
    let lake = Lake::new().await;
    let mut put = Contents::default();
    let mut next = 1i64;
    for act in acts {
        match act {
            Act::Put(count) => {
                let end = next + i64::from(count);
                put.extend(lake.put_ids(next..end).await);
                next = end;
            }
            Act::Event if next > 1 => {
                lake.clock.advance(61_000);
                call(&lake.batcher(), lake.event().await).await.unwrap();
            }
            Act::Event => {}
            Act::Killed(steps) => drop(killed_after(steps, lake.batcher().flush("flights")).await),
            Act::Faulty(seed) => drop(lake.faulty(&Plan::random(seed, 100)).flush("flights").await),
            Act::Throttled(a, b) => {
                let narrow = Narrow::over(&lake);
                narrow.refuse_after([a, b]);
                drop(lake.batcher_reading(&narrow).flush("flights").await);
            }
            Act::Both(a, b) => {
                let (one, other) = (lake.batcher(), lake.batcher());
                let (one, other) = (killed_after(a, one.flush("flights")), killed_after(b, other.flush("flights")));
                drop(futures::join!(one, other));
            }
        }
    }
    lake.batcher().flush("flights").await.unwrap();
    (put.sorted(), lake.contents().await)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn every_record_is_stored_or_rejected_once_whatever_happens(acts in proptest::collection::vec(act(), 1..12)) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let (put, found) = runtime.block_on(live(acts));
        let unique: BTreeSet<_> = found.stored.iter().collect();
        prop_assert_eq!(unique.len(), found.stored.len());
        prop_assert_eq!(put, found);
    }
}
