//! What every [`Stream`] must do.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;

use super::kind;
use shared::ErrorKind;
use shared::model::{SequenceNumber, ShardId};
use shared::stream::{
    Backlog, MAX_PUT_BYTES, MAX_PUT_RECORDS, MAX_READ_BYTES, MAX_RECORD_BYTES, NewRecord, PutOutcome, ReadFrom, Record,
    Stream, StreamSpec,
};

/// Asserts the contract of [`Stream`] on an adapter without streams whose names begin with `conformance-`.
pub async fn conforms(stream: Arc<dyn Stream>) {
    a_stream_is_made_once(&*stream).await;
    what_is_not_there_is_not_found(&*stream).await;
    a_batch_past_the_limits_stores_nothing(&*stream).await;
    records_are_read_as_they_were_put(&*stream).await;
    reading_pages_through_everything_once(&*stream).await;
    a_backlog_is_what_reading_gives(&*stream).await;
    a_read_is_cut_at_its_bytes(&*stream).await;
    a_time_finds_what_arrived_since(&*stream).await;
    a_stream_gets_another_name_with_what_it_holds_where_it_can(&*stream).await;
    nothing_is_lost_among_many_writers(stream).await;
}

/// A record whose partition key is `key`.
pub fn record(key: impl Into<String>, data: impl Into<Bytes>) -> NewRecord {
    NewRecord { partition_key: key.into(), data: data.into() }
}

/// Every record of every shard, in order, read by pages of `page`.
///
/// # Panics
/// When a read fails.
pub async fn read_all(stream: &dyn Stream, name: &str, page: usize) -> BTreeMap<ShardId, Vec<Record>> {
    let mut all = BTreeMap::new();
    for shard in stream.shards(name).await.unwrap() {
        let (mut from, mut records) = (ReadFrom::Oldest, Vec::new());
        loop {
            let batch = stream.read(name, &shard.id, from, page).await.unwrap();
            if batch.records.is_empty() {
                assert_eq!(batch.behind_ms, 0, "an empty answer means that the reader has caught up");
                break;
            }
            assert!(batch.records.len() <= page.max(1));
            records.extend(batch.records);
            from = batch.next;
        }
        all.insert(shard.id, records);
    }
    all
}

async fn make(stream: &dyn Stream, name: &str, shards: u32) {
    stream.create(&StreamSpec { name: name.into(), shards, retention_hours: 24 }).await.unwrap();
}

async fn only_shard(stream: &dyn Stream, name: &str) -> ShardId {
    stream.shards(name).await.unwrap()[0].id.clone()
}

async fn a_stream_is_made_once(stream: &dyn Stream) {
    let spec = StreamSpec { name: "conformance-made".into(), shards: 3, retention_hours: 24 };
    stream.create(&spec).await.unwrap();
    stream.put(&spec.name, vec![record("k", "x")]).await.unwrap();
    stream.create(&spec).await.unwrap();
    assert_eq!(read_all(stream, &spec.name, 10).await.values().flatten().count(), 1);
    assert_eq!(kind(stream.create(&StreamSpec { shards: 2, ..spec.clone() }).await), ErrorKind::Conflict);
    for wrong in [
        StreamSpec { shards: 0, ..spec.clone() },
        StreamSpec { retention_hours: 23, ..spec.clone() },
        StreamSpec { retention_hours: 8_761, ..spec.clone() },
        StreamSpec { name: String::new(), ..spec.clone() },
    ] {
        assert_eq!(kind(stream.create(&wrong).await), ErrorKind::Invalid, "{wrong:?}");
    }
    make(stream, "conformance-a", 1).await;
    let names: Vec<_> =
        stream.list().await.unwrap().into_iter().filter(|name| name.starts_with("conformance-")).collect();
    assert_eq!(names, ["conformance-a", "conformance-made"]);
    let shards = stream.shards(&spec.name).await.unwrap();
    let ids: Vec<_> = shards.iter().map(|shard| shard.id.0.as_str()).collect();
    assert_eq!(ids, ["shardId-000000000000", "shardId-000000000001", "shardId-000000000002"]);
    assert!(shards.iter().all(|shard| shard.open && shard.parents.is_empty()));
}

async fn what_is_not_there_is_not_found(stream: &dyn Stream) {
    let absent = "conformance-absent";
    let shard = ShardId("shardId-000000000000".into());
    assert_eq!(kind(stream.shards(absent).await), ErrorKind::NotFound);
    assert_eq!(kind(stream.put(absent, vec![record("k", "x")]).await), ErrorKind::NotFound);
    assert_eq!(kind(stream.read(absent, &shard, ReadFrom::Oldest, 1).await), ErrorKind::NotFound);
    let shard = ShardId("shardId-000000000001".into());
    assert_eq!(kind(stream.read("conformance-a", &shard, ReadFrom::Oldest, 1).await), ErrorKind::NotFound);
}

async fn a_batch_past_the_limits_stores_nothing(stream: &dyn Stream) {
    let name = "conformance-limits";
    make(stream, name, 1).await;
    let mebibyte = || Bytes::from(vec![b'x'; MAX_RECORD_BYTES]);
    let cases = [
        (vec![], ErrorKind::Invalid),
        (vec![record("k", "x"), record("", "x")], ErrorKind::Invalid),
        (vec![record("k", "x"), record("k".repeat(257), "x")], ErrorKind::Invalid),
        (vec![record("k", "x"); MAX_PUT_RECORDS + 1], ErrorKind::Limit),
        (vec![record("k", "x"), record("k", vec![b'x'; MAX_RECORD_BYTES + 1])], ErrorKind::Limit),
        (vec![record("k", mebibyte()); MAX_PUT_BYTES / MAX_RECORD_BYTES], ErrorKind::Limit),
    ];
    for (batch, expected) in cases {
        assert_eq!(kind(stream.put(name, batch).await), expected);
    }
    assert_eq!(read_all(stream, name, 100).await.values().flatten().count(), 0);
    let longest_key = "é".repeat(256);
    stream.put(name, vec![record(longest_key, mebibyte()), record("k", "")]).await.unwrap();
    stream.put(name, vec![record("k", "x"); MAX_PUT_RECORDS]).await.unwrap();
    assert_eq!(read_all(stream, name, 10_000).await.values().flatten().count(), MAX_PUT_RECORDS + 2);
}

async fn records_are_read_as_they_were_put(stream: &dyn Stream) {
    let name = "conformance-order";
    make(stream, name, 4).await;
    let batch: Vec<_> = (0..200_u32).map(|i| record(format!("key {}", i % 23), i.to_be_bytes().to_vec())).collect();
    let mut expected: BTreeMap<ShardId, Vec<_>> = BTreeMap::new();
    for part in batch.chunks(60) {
        let outcomes = stream.put(name, part.to_vec()).await.unwrap();
        assert_eq!(outcomes.len(), part.len());
        for (record, outcome) in part.iter().zip(outcomes) {
            let PutOutcome::Stored { shard, sequence } = outcome else { panic!("not stored: {outcome:?}") };
            expected.entry(shard).or_default().push((sequence, record.partition_key.clone(), record.data.clone()));
        }
    }
    assert!(expected.len() > 1, "23 keys lie in more than one shard");
    for records in expected.values() {
        assert!(records.windows(2).all(|pair| pair[0].0 < pair[1].0), "sequence numbers grow in a shard");
    }
    let mut found = read_all(stream, name, 10_000).await;
    found.retain(|_, records| !records.is_empty());
    let of = |r: Record| (r.sequence, r.partition_key, r.data);
    let found: BTreeMap<_, Vec<_>> = found.into_iter().map(|(s, r)| (s, r.into_iter().map(of).collect())).collect();
    assert_eq!(found, expected);
    let key_shards: BTreeSet<_> =
        expected.iter().flat_map(|(shard, records)| records.iter().map(move |r| (&r.1, shard))).collect();
    assert_eq!(key_shards.len(), 23, "each key lies in one shard");
}

async fn reading_pages_through_everything_once(stream: &dyn Stream) {
    let whole = read_all(stream, "conformance-order", 10_000).await;
    for page in [1, 7, 64] {
        assert_eq!(read_all(stream, "conformance-order", page).await, whole);
    }
    let (shard, records) = whole.iter().find(|(_, records)| records.len() > 3).unwrap();
    let read = async |from| stream.read("conformance-order", shard, from, 2).await.unwrap();
    let batch = read(ReadFrom::After(records[0].sequence.clone())).await;
    assert_eq!(batch.records, records[1..3]);
    assert_eq!(batch.next, ReadFrom::After(records[2].sequence.clone()));
    assert!(batch.behind_ms > 0, "records follow");
    let end: SequenceNumber = "9".repeat(56).parse().unwrap();
    assert_eq!(read(ReadFrom::After(end)).await.records, []);
    assert_eq!(read(ReadFrom::After(SequenceNumber::zero())).await.records, records[..2]);
    let zero = stream.read("conformance-order", shard, ReadFrom::Oldest, 0).await.unwrap();
    assert_eq!(zero.records.len(), 1, "a read asks for one record at least");
}

async fn a_backlog_is_what_reading_gives(stream: &dyn Stream) {
    for (shard, records) in read_all(stream, "conformance-order", 10_000).await {
        for after in [None, Some(0), Some(records.len().saturating_sub(1))] {
            let left = after.map_or(&records[..], |at| records.get(at + 1..).unwrap_or_default());
            let after = after.and_then(|at| records.get(at)).map(|record| &record.sequence);
            let Some(backlog) = stream.backlog("conformance-order", &shard, after).await.unwrap() else { return };
            let bytes = left.iter().map(|record| record.data.len() as u64).sum();
            let oldest_ms = left.iter().map(|record| record.arrival_ms).min();
            assert_eq!(backlog, Backlog { records: left.len() as u64, bytes, oldest_ms });
        }
    }
}

async fn a_read_is_cut_at_its_bytes(stream: &dyn Stream) {
    let name = "conformance-bytes";
    make(stream, name, 1).await;
    for _ in 0..4 {
        stream.put(name, vec![record("k", vec![b'x'; MAX_RECORD_BYTES]); 4]).await.unwrap();
    }
    let shard = only_shard(stream, name).await;
    let batch = stream.read(name, &shard, ReadFrom::Oldest, 100).await.unwrap();
    let bytes: usize = batch.records.iter().map(|r| r.data.len()).sum();
    assert!((MAX_READ_BYTES - MAX_RECORD_BYTES..=MAX_READ_BYTES).contains(&bytes), "{bytes}");
    assert!(batch.behind_ms > 0);
    assert_eq!(read_all(stream, name, 100).await[&shard].len(), 16);
}

async fn a_time_finds_what_arrived_since(stream: &dyn Stream) {
    let name = "conformance-time";
    make(stream, name, 1).await;
    let shard = only_shard(stream, name).await;
    for text in ["before", "after"] {
        stream.put(name, vec![record("k", text)]).await.unwrap();
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    let all = stream.read(name, &shard, ReadFrom::Oldest, 10).await.unwrap().records;
    let at = async |time| stream.read(name, &shard, ReadFrom::Time(time), 10).await.unwrap();
    let since = |time| all.iter().filter(|r| r.arrival_ms >= time).cloned().collect::<Vec<_>>();
    for time in [0, all[0].arrival_ms, all[1].arrival_ms, all[1].arrival_ms + 1] {
        assert_eq!(at(time).await.records, since(time));
    }
    let future = all[1].arrival_ms + 3_600_000;
    let batch = at(future).await;
    assert_eq!((batch.records, batch.next), (vec![], ReadFrom::Time(future)));
}

async fn a_stream_gets_another_name_with_what_it_holds_where_it_can(stream: &dyn Stream) {
    let (old, new) = ("conformance-old", "conformance-new");
    make(stream, old, 2).await;
    stream.put(old, (0..9).map(|i| record(format!("{i}"), format!("{i}"))).collect()).await.unwrap();
    if !stream.can_rename() {
        assert_eq!(kind(stream.rename(old, new).await), ErrorKind::Invalid);
        return;
    }
    let held = read_all(stream, old, 100).await;
    // One that holds nothing gives way, and the same call again changes nothing.
    make(stream, new, 1).await;
    for _ in 0..2 {
        stream.rename(old, new).await.unwrap();
        assert_eq!(read_all(stream, new, 100).await, held);
        assert_eq!(kind(stream.shards(old).await), ErrorKind::NotFound);
    }
    make(stream, old, 1).await;
    assert_eq!(kind(stream.rename(old, new).await), ErrorKind::Conflict);
    assert_eq!(read_all(stream, new, 100).await, held);
    assert_eq!(kind(stream.rename("conformance-absent", "conformance-nowhere").await), ErrorKind::NotFound);
}

async fn nothing_is_lost_among_many_writers(stream: Arc<dyn Stream>) {
    let name = "conformance-writers";
    make(&*stream, name, 3).await;
    let writers = (0..8).map(|writer| {
        let stream = stream.clone();
        tokio::spawn(async move {
            for batch in 0..5 {
                let records = (0..20).map(|i| format!("{writer}-{batch}-{i}")).map(|text| record(text.clone(), text));
                let outcomes = stream.put(name, records.collect()).await.unwrap();
                assert!(outcomes.iter().all(|outcome| matches!(outcome, PutOutcome::Stored { .. })));
            }
        })
    });
    for writer in writers.collect::<Vec<_>>() {
        writer.await.unwrap();
    }
    let records: Vec<_> = read_all(&*stream, name, 33).await.into_values().flatten().collect();
    let texts: BTreeSet<_> = records.iter().map(|r| r.data.clone()).collect();
    assert_eq!((records.len(), texts.len()), (800, 800));
}
