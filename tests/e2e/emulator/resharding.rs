//! Shards that split and merge while records come: read as Lambda reads them, parents before children, and written once and in
//! order by the deployed batcher. MiniStack forgets the records of a shard that splits, so the stream is kinesis-mock's.

use std::collections::{BTreeMap, HashMap};
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use adapters_aws::kinesis::KinesisStream;
use aws_sdk_kinesis::Client;
use aws_sdk_kinesis::types::StreamStatus;
use serde_json::json;
use shared::clock::SystemClock;
use shared::model::ShardId;
use shared::random::SystemRandom;
use shared::stream::{NewRecord, PutOutcome, Record, Shard, Stream, StreamSpec};
use testing::stream::read_all;

use super::poller::{Poller, lambda};
use super::{Emulator, python};
use crate::lake::{Lake, as_i64};

const LAKEHOUSE: &str = "
version: 1
database: resharding
streams:
  events:
    schema: [{name: key, type: bigint, required: true}, {name: version, type: bigint, required: true}]
    buffer: {size: 1MiB, interval: 1s}
";
const KINESIS_NAME: &str = "tarn-resharding-events";
const KEYS: i64 = 40;

/// One more version of each key.
async fn put(stream: &KinesisStream, version: i64) {
    let record = |key: i64| NewRecord {
        partition_key: key.to_string(),
        data: json!({"key": key, "version": version}).to_string().into(),
    };
    let outcomes = stream.put("events", (0..KEYS).map(record).collect()).await.unwrap();
    assert!(outcomes.iter().all(|outcome| matches!(outcome, PutOutcome::Stored { .. })), "{outcomes:?}");
}

async fn active(client: &Client) {
    loop {
        let answer = client.describe_stream_summary().stream_name(KINESIS_NAME).send().await.unwrap();
        if *answer.stream_description_summary().unwrap().stream_status() == StreamStatus::Active {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

async fn split(client: &Client, shard: &ShardId, at: u128) {
    let split = client.split_shard().stream_name(KINESIS_NAME).shard_to_split(&shard.0);
    split.new_starting_hash_key(at.to_string()).send().await.unwrap();
    active(client).await;
}

async fn merge(client: &Client, one: &ShardId, other: &ShardId) {
    let merge = client.merge_shards().stream_name(KINESIS_NAME).shard_to_merge(&one.0);
    merge.adjacent_shard_to_merge(&other.0).send().await.unwrap();
    active(client).await;
}

/// What an event source hands over: a shard when all of its parents have been.
async fn deliver(poller: &Poller, shards: &[Shard], records: &BTreeMap<ShardId, Vec<Record>>) {
    for shard in shards {
        let delivered = poller.deliver(&shard.id, &records[&shard.id]).await;
        assert!(delivered.given_up.is_empty(), "{delivered:?}");
    }
}

fn parents_come_first(shards: &[Shard]) {
    for (place, shard) in shards.iter().enumerate() {
        assert!(shard.parents.iter().all(|parent| shards[..place].iter().any(|s| s.id == *parent)), "{shards:?}");
    }
}

fn open(shards: &[Shard]) -> Vec<&Shard> {
    shards.iter().filter(|shard| shard.open).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn shards_that_split_and_merge_lose_no_record_double_none_and_keep_the_order_of_a_key() {
    let (emulator, kinesis) = (Emulator::ministack(), Emulator::kinesis_mock());
    let stack = emulator.deploy("tarn-resharding", LAKEHOUSE, &["StreamMode=PROVISIONED", "TickState=DISABLED"]).await;
    let lambda = lambda(emulator, &stack);
    lambda.unplug().await;
    lambda.set("AWS_ENDPOINT_URL_KINESIS", &kinesis.endpoint).await;
    let poller = Poller { lambda, stream: KINESIS_NAME.into(), damaged: |_| false };
    let aws = kinesis.aws().await;
    let (client, stream) = (
        Client::new(aws.config()),
        KinesisStream::new(&aws, "tarn-resharding-", Arc::new(SystemClock), Arc::new(SystemRandom)),
    );

    stream.create(&StreamSpec { name: "events".into(), shards: 2, retention_hours: 24 }).await.unwrap();
    let first = stream.shards("events").await.unwrap();
    put(&stream, 1).await;
    deliver(&poller, &first, &read_all(&stream, "events", 1_000).await).await;
    put(&stream, 2).await;
    split(&client, &first[0].id, u128::MAX / 8).await;
    put(&stream, 3).await;
    let after_split = stream.shards("events").await.unwrap();
    assert_eq!((after_split.len(), open(&after_split).len()), (4, 3), "{after_split:?}");
    deliver(&poller, &after_split, &read_all(&stream, "events", 1_000).await).await;
    let children: Vec<_> = open(&after_split).into_iter().filter(|shard| !shard.parents.is_empty()).collect();
    merge(&client, &children[0].id, &children[1].id).await;
    put(&stream, 4).await;

    let shards = stream.shards("events").await.unwrap();
    parents_come_first(&shards);
    assert_eq!((shards.len(), open(&shards).len()), (5, 2), "{shards:?}");
    let records = read_all(&stream, "events", 7).await;
    let mut versions: HashMap<&str, Vec<i64>> = HashMap::new();
    for record in shards.iter().flat_map(|shard| &records[&shard.id]) {
        let value: serde_json::Value = serde_json::from_slice(&record.data).unwrap();
        versions.entry(&record.partition_key).or_default().push(value["version"].as_i64().unwrap());
    }
    assert_eq!(versions.len(), 40);
    assert!(versions.values().all(|versions| *versions == [1, 2, 3, 4]), "{versions:?}");

    deliver(&poller, &shards, &records).await;
    poller.lambda.flush("events").await;
    let lake = Lake::deployed(LAKEHOUSE, stack.api());
    let found = lake.sql("SELECT key, version, count(*) FROM events GROUP BY key, version ORDER BY key, version").await;
    let found: Vec<_> = found.iter().map(|row| (as_i64(&row[0]), as_i64(&row[1]), as_i64(&row[2]))).collect();
    let expected: Vec<_> = (0..KEYS).flat_map(|key| (1..=4).map(move |version| (key, version, 1))).collect();
    assert_eq!(found, expected);
}

#[test]
fn the_emulator_of_streams_ends_with_what_started_it_also_when_that_is_killed() {
    let mut script = python("tests/e2e/emulator/run_kinesis_mock.py");
    let mut script = script.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut ready = String::new();
    BufReader::new(script.stdout.take().unwrap()).read_line(&mut ready).unwrap();
    assert!(ready.contains("endpoint"), "{ready}");
    let pid = script.id();
    let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap();
    let servers: Vec<&str> = children.split_whitespace().collect();
    assert_eq!(servers.len(), 1, "one process serves: {children}");

    script.kill().unwrap();
    script.wait().unwrap();
    let gone = || !Path::new("/proc").join(servers[0]).exists();
    for _ in 0..100 {
        if gone() {
            return;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    panic!("process {} is still there", servers[0]);
}
