//! The adapters of AWS behind a proxy that fails: what the ports promise holds, and every record is stored once.
//!
//! Some promises can't be kept when an answer is lost, and are asserted without that fault:
//! - a put into Kinesis that ended without an answer may have stored its records: `ingest` looks, by the request's key;
//! - partitions that a call has added, its answer lost, are told as being there when it is made again;
//! - an object made under the condition that it is absent is there when the store itself tries again after a 500.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use adapters_aws::glue::GlueCatalog;
use adapters_aws::state::ObjectState;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use batcher::Batcher;
use engine::Engine;
use futures::future::join_all;
use ingest::Ingest;
use serde_json::{Value, json};
use shared::clock::{Clock, SystemClock};
use shared::config::Settings;
use shared::ports::Ports;
use shared::project::Project;
use shared::random::SystemRandom;
use shared::stream::{NewRecord, PutOutcome, ReadFrom, StreamSpec};
use shared::{ErrorKind, deadline};
use testing::{catalog, state, storage, stream};
use url::Url;

use super::proxy::{Fault, Plan, Proxy, Shards};
use super::{Emulator, aws_at};
use crate::lambda::{read, request, tick};

const ALL: [Fault; 7] = [
    Fault::Unavailable,
    Fault::Throttled,
    Fault::PartlyThrottled,
    Fault::Reset,
    Fault::LostReply,
    Fault::Broken,
    Fault::Slow,
];

async fn make_bucket(name: &str) -> Url {
    Emulator::ministack().aws().await.s3().create_bucket().bucket(name).send().await.unwrap();
    Url::parse(&format!("s3://{name}/lake%20house/")).unwrap()
}

/// MiniStack forgets an upload when it is completed, so a second try finds none; S3 answers it as the first.
fn s3_allows(operation: &str, fault: Fault) -> bool {
    let takes_effect = matches!(fault, Fault::LostReply | Fault::Broken);
    !(operation == "s3:CompleteMultipartUpload" && takes_effect)
}

#[tokio::test(flavor = "multi_thread")]
async fn state_on_s3_conforms_whatever_fails() {
    let root = make_bucket("faults-state").await;
    let plan = Plan::random(1, 150, &ALL).allowing(s3_allows);
    let proxy = Proxy::start(&Emulator::ministack().endpoint, plan).await;
    let aws = aws_at(&proxy.endpoint).await;
    let storage = adapters_aws::storage::open(&aws, std::slice::from_ref(&root)).unwrap();
    state::conforms(Arc::new(ObjectState::new(storage, root, Arc::new(SystemRandom)))).await;
    proxy.has_injected_all();
}

#[tokio::test(flavor = "multi_thread")]
async fn storage_on_s3_conforms_whatever_fails() {
    let root = make_bucket("faults-storage").await;
    // Without 500 after the effect: see above.
    let faults: Vec<_> = ALL.into_iter().filter(|fault| *fault != Fault::Broken).collect();
    let plan = Plan::random(2, 150, &faults).allowing(s3_allows);
    let proxy = Proxy::start(&Emulator::ministack().endpoint, plan).await;
    let aws = aws_at(&proxy.endpoint).await;
    let storage = adapters_aws::storage::open(&aws, std::slice::from_ref(&root)).unwrap();
    storage::conforms(&storage, &root).await;
    proxy.has_injected_all();
}

/// On an emulator of its own, as the suite's databases have fixed names.
#[tokio::test(flavor = "multi_thread")]
async fn the_catalog_in_glue_conforms_whatever_fails() {
    let emulator = Emulator::alone();
    let plan = Plan::random(3, 150, &ALL).allowing(|operation, fault| {
        let takes_effect = matches!(fault, Fault::LostReply | Fault::Broken);
        !(operation == "glue:BatchCreatePartition" && takes_effect)
    });
    let proxy = Proxy::start(&emulator.endpoint, plan).await;
    let glue = GlueCatalog::new(&aws_at(&proxy.endpoint).await);
    let gaps = catalog::Gaps { table_versions: true, ..Default::default() };
    catalog::conforms_but_for(Arc::new(glue), gaps).await;
    proxy.has_injected_all();
}

/// A lakehouse of a test's own: everything that has a name bears the test's.
fn lakehouse(name: &str) -> String {
    format!(
        "version: 1\ndatabase: {name}\nstreams:\n  events:\n    schema: [{{name: id, type: bigint, required: true}}, {{name: \
         sender, type: int}}]\n    buffer: {{size: 1MiB, interval: 1s}}\n    shards: 2\n"
    )
}

/// The connections of a lakehouse through `endpoint`.
async fn ports(name: &str, endpoint: &str) -> Ports {
    let name = name.replace('_', "-");
    let value = move |variable: &str| match variable {
        "TARN_PORTS" => Some("aws".to_owned()),
        "TARN_WAREHOUSE" => Some(format!("s3://{name}/")),
        "TARN_STREAM_PREFIX" => Some(format!("{name}-")),
        _ => None,
    };
    wiring::through(&aws_at(endpoint).await, &Settings::from_lookup(&value).unwrap()).unwrap()
}

const SENDERS: i64 = 4;
const REQUESTS: i64 = 12;
const RECORDS: i64 = 25;
const BAD: usize = 10;

/// Sends a request's records with one key until all of them are answered for; gives the ids of those that are stored.
async fn send(ingest: &Ingest, sender: i64, number: i64) -> BTreeSet<i64> {
    let first = (sender * REQUESTS + number) * RECORDS;
    let records: Vec<_> = (first..first + RECORDS).map(|id| json!({"id": id, "sender": sender})).collect();
    let mut event = request("POST", "/streams/events/records", &Value::from(records).to_string());
    event["headers"]["idempotency-key"] = format!("{sender}/{number}").into();
    loop {
        let (status, answer) = read(testing::invoke(event.clone(), |event| ingest.handle(event)).await.unwrap());
        match (status, answer["throttled"].as_u64()) {
            (200 | 207, Some(0)) => {
                let stored = answer["records"].as_array().unwrap().iter().filter(|entry| entry["status"] == "stored");
                return stored.map(|entry| first + entry["index"].as_i64().unwrap()).collect();
            }
            (200 | 207 | 429 | 503 | 504, _) => tokio::time::sleep(Duration::from_millis(300)).await,
            other => panic!("expected an answer or to be asked to come again, found {other:?}: {answer:#}"),
        }
    }
}

/// Flushes until told to stop; every error says that the same can be done again.
async fn write(batcher: &Batcher, done: &AtomicBool) {
    while !done.load(Ordering::SeqCst) {
        if let Err(error) =
            testing::invoke(tick(json!({"name": "events", "flush": true})), |event| batcher.handle(event)).await
        {
            let passing = [ErrorKind::Retry, ErrorKind::OutcomeUnknown, ErrorKind::Conflict];
            assert!(passing.contains(&error.kind()), "{:?}: {error}", error.kind());
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// Records that no schema takes, put by a producer that does not ask `ingest`.
async fn put_bad(ports: &Ports) -> BTreeSet<Vec<u8>> {
    let bad: BTreeSet<_> = (0..BAD).map(|n| format!("no JSON, {n}").into_bytes()).collect();
    let records = bad.iter().map(|data| NewRecord { partition_key: format!("{data:?}"), data: data.clone().into() });
    let outcomes = ports.stream.put("events", records.collect()).await.unwrap();
    assert!(outcomes.iter().all(|outcome| matches!(outcome, PutOutcome::Stored { .. })), "{outcomes:?}");
    bad
}

/// The data of the lines in the error objects, and how often each comes.
async fn failed(ports: &Ports) -> BTreeMap<Vec<u8>, usize> {
    let mut found = BTreeMap::new();
    for object in ports.storage.list(&ports.keys.root().join("errors/").unwrap()).await.unwrap() {
        let text = ports.storage.get(&object.url).await.unwrap();
        for line in String::from_utf8(text.to_vec()).unwrap().lines() {
            let line: Value = serde_json::from_str(line).unwrap();
            *found.entry(STANDARD.decode(line["rawData"].as_str().unwrap()).unwrap()).or_default() += 1;
        }
    }
    found
}

/// Every id in the stream, and how often it comes.
async fn streamed(ports: &Ports) -> BTreeMap<i64, i64> {
    let mut found = BTreeMap::new();
    for record in stream::read_all(&*ports.stream, "events", 1_000).await.into_values().flatten() {
        if let Ok(record) = serde_json::from_slice::<Value>(&record.data) {
            *found.entry(record["id"].as_i64().unwrap()).or_default() += 1;
        }
    }
    found
}

/// Every id in the table, and how often it comes: reads every live file.
async fn stored(name: &str, project: &Arc<Project>, ports: &Ports) -> BTreeMap<i64, i64> {
    let value = |_: &str| None;
    let engine = Engine::open(&Settings::from_lookup(&value).unwrap(), ports).unwrap();
    let query = query::Query::new(project.clone(), ports.clone(), engine).unwrap();
    let sql = format!("SELECT id, count(*) AS n FROM {name}.events GROUP BY id ORDER BY id");
    let body = json!({"sql": sql, "limit": 100_000}).to_string();
    let (status, answer) =
        read(testing::invoke(request("POST", "/query", &body), |event| query.handle(event)).await.unwrap());
    assert_eq!(status, 200, "{answer:#}");
    let number = |value: &Value| crate::lake::as_i64(value);
    answer["rows"].as_array().unwrap().iter().map(|row| (number(&row[0]), number(&row[1]))).collect()
}

/// Senders and batchers at work at once behind the proxy; at the end what was accepted is stored once.
async fn every_record_is_stored_once(name: &str, seed: u64, batchers: usize) {
    let emulator = Emulator::ministack();
    let clean = ports(name, &emulator.endpoint).await;
    emulator.aws().await.s3().create_bucket().bucket(name.replace('_', "-")).send().await.unwrap();
    clean.stream.create(&StreamSpec { name: "events".into(), shards: 2, retention_hours: 24 }).await.unwrap();
    let plan = Plan::random(seed, 100, &ALL).allowing(s3_allows);
    let proxy = Proxy::start(&emulator.endpoint, plan).await;
    let project = Arc::new(Project::parse(&lakehouse(name), "lakehouse.yaml").unwrap());
    let ingest = Ingest::new(project.clone(), ports(name, &proxy.endpoint).await).unwrap();
    let mut writers = Vec::new();
    for _ in 0..batchers {
        writers.push(Batcher::new(project.clone(), ports(name, &proxy.endpoint).await).unwrap());
    }

    let done = AtomicBool::new(false);
    let sending = async {
        let senders = (0..SENDERS).map(async |sender| {
            let mut accepted = BTreeSet::new();
            for number in 0..REQUESTS {
                accepted.extend(send(&ingest, sender, number).await);
            }
            accepted
        });
        let (accepted, bad) = tokio::join!(join_all(senders), put_bad(&clean));
        done.store(true, Ordering::SeqCst);
        (accepted.into_iter().flatten().collect::<BTreeSet<_>>(), bad)
    };
    let ((accepted, bad), _) = tokio::join!(sending, join_all(writers.iter().map(|batcher| write(batcher, &done))));
    assert_eq!(accepted.len() as i64, SENDERS * REQUESTS * RECORDS);
    proxy.has_injected_all();
    // What is left is written without faults: the end is looked at, not the way.
    let last = Batcher::new(project.clone(), clean.clone()).unwrap();
    last.flush("events").await.unwrap();

    let expected: BTreeMap<_, _> = accepted.into_iter().map(|id| (id, 1)).collect();
    let streamed = streamed(&clean).await;
    assert!(streamed == expected, "the stream: {}", difference(&streamed, &expected));
    let stored = stored(name, &project, &clean).await;
    assert!(stored == expected, "the table: {}", difference(&stored, &expected));
    assert_eq!(failed(&clean).await, bad.into_iter().map(|data| (data, 1)).collect::<BTreeMap<_, _>>());
}

fn difference(found: &BTreeMap<i64, i64>, expected: &BTreeMap<i64, i64>) -> String {
    let lost: Vec<_> = expected.keys().filter(|id| !found.contains_key(id)).collect();
    let more: Vec<_> = found.iter().filter(|(id, n)| expected.get(id) != Some(n)).collect();
    format!("lost: {lost:?}, too often: {more:?}")
}

#[tokio::test(flavor = "multi_thread")]
async fn accepted_records_are_in_the_table_once_whatever_fails() {
    every_record_is_stored_once("faults_one", 4, 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_batchers_at_once_store_every_record_once_whatever_fails() {
    every_record_is_stored_once("faults_two", 5, 2).await;
}

/// The first put and the first swap of the table's pointer take effect, and are answered when nobody waits any more.
#[tokio::test(flavor = "multi_thread")]
async fn what_took_effect_but_was_answered_too_late_is_found_out() {
    let (name, emulator) = ("faults_late", Emulator::ministack());
    emulator.aws().await.s3().create_bucket().bucket("faults-late").send().await.unwrap();
    let clean = ports(name, &emulator.endpoint).await;
    clean.stream.create(&StreamSpec { name: "events".into(), shards: 1, retention_hours: 24 }).await.unwrap();
    let project =
        Arc::new(Project::parse(&lakehouse(name).replace("shards: 2", "shards: 1"), "lakehouse.yaml").unwrap());
    let late = |operation| Plan::random(6, 1_000, &[Fault::TooLate]).allowing(operation).at_most(1);
    let putting = Proxy::start(&emulator.endpoint, late(|operation, _| operation == "kinesis:PutRecords")).await;
    let swapping = Proxy::start(&emulator.endpoint, late(|operation, _| operation == "glue:UpdateTable")).await;

    let batcher = Batcher::new(project.clone(), ports(name, &swapping.endpoint).await).unwrap();
    let ingest = Ingest::new(project.clone(), clean.clone()).unwrap();
    let mut expected = send(&ingest, 0, 0).await;
    let flush = async {
        let report = batcher.flush("events").await.unwrap();
        assert_eq!((report.commits, report.conflicts), (1, 0), "{report:?}");
    };
    let ingest = Ingest::new(project.clone(), ports(name, &putting.endpoint).await).unwrap();
    let (accepted, ()) = tokio::join!(send(&ingest, 1, 0), flush);
    expected.extend(accepted);
    putting.has_injected_all();
    swapping.has_injected_all();
    batcher.flush("events").await.unwrap();
    let found = stored(name, &project, &clean).await;
    assert_eq!(found, expected.into_iter().map(|id| (id, 1)).collect());
}

/// As on AWS, where after an answer of 10 MiB a shard refuses reads for 5 seconds: longer than the SDK would wait here, too.
#[tokio::test(flavor = "multi_thread")]
async fn a_backlog_of_several_large_answers_of_each_shard_is_worked_off() {
    let (name, emulator) = ("faults_backlog", Emulator::ministack());
    emulator.aws().await.s3().create_bucket().bucket("faults-backlog").send().await.unwrap();
    let clean = ports(name, &emulator.endpoint).await;
    clean.stream.create(&StreamSpec { name: "events".into(), shards: 2, retention_hours: 24 }).await.unwrap();
    let text = "x".repeat(1_000);
    let ids = 0..450_i64;
    let records = ids.clone().map(|id| stream::record(id.to_string(), json!({"id": id, "text": text}).to_string()));
    let outcomes = clean.stream.put("events", records.collect()).await.unwrap();
    assert!(outcomes.iter().all(|outcome| matches!(outcome, PutOutcome::Stored { .. })), "{outcomes:?}");

    let plan = Plan::narrow(Shards::new(80, 80_000, Duration::from_secs(4)));
    let proxy = Proxy::start(&emulator.endpoint, plan).await;
    let project = Arc::new(Project::parse(&lakehouse(name), "lakehouse.yaml").unwrap());
    let batcher = Batcher::new(project.clone(), ports(name, &proxy.endpoint).await).unwrap();
    let report = batcher.flush("events").await.unwrap();
    assert_eq!((report.records, report.commits, report.unfinished), (450, 1, false), "{report:?}");
    assert!(proxy.refused() >= 4, "two shards of three answers each: {} refused", proxy.refused());
    assert_eq!(stored(name, &project, &clean).await, ids.map(|id| (id, 1)).collect());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_throttled_read_goes_on_until_the_deadline_is_near() {
    let (name, emulator) = ("faults_throttled", Emulator::ministack());
    let clean = ports(name, &emulator.endpoint).await;
    clean.stream.create(&StreamSpec { name: "events".into(), shards: 1, retention_hours: 24 }).await.unwrap();
    let shard = clean.stream.shards("events").await.unwrap().remove(0).id;
    let plan = Plan::random(7, 1_000, &[Fault::Throttled]).allowing(|operation, _| operation == "kinesis:GetRecords");
    let proxy = Proxy::start(&emulator.endpoint, plan).await;
    let throttled = ports(name, &proxy.endpoint).await.stream;
    let at_ms = SystemClock.now_ms() + 8_000;
    let read = deadline::until(at_ms, throttled.read("events", &shard, ReadFrom::Oldest, 10)).await;
    assert!(SystemClock.now_ms() < at_ms);
    assert_eq!(read.unwrap_err().kind(), ErrorKind::Retry);
    let calls = proxy.injected()[&Fault::Throttled];
    assert!(calls > 6, "expected more calls than the SDK makes, found {calls}");
}
