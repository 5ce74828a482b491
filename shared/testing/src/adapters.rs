//! The embedded adapters under the conformance suites: in memory, on disk, and opened again.

use std::io::Write;
use std::path::Path;
use std::sync::Arc;

use proptest::prelude::*;
use url::Url;

use super::{catalog, state, storage, stream};
use adapters_embedded::catalog::EmbeddedCatalog;
use adapters_embedded::state::EmbeddedState;
use adapters_embedded::stream::EmbeddedStream;
use shared::clock::{Clock, SystemClock};
use shared::config::Settings;
use shared::ports::Ports;
use shared::state::Expect;
use shared::storage::Storage;
use shared::stream::{PutOutcome, Stream, StreamSpec};

fn clock() -> Arc<dyn Clock> {
    Arc::new(SystemClock)
}

fn open(data: &Path) -> Ports {
    adapters_embedded::open(&Settings::embedded(data).unwrap()).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn state_in_memory_conforms() {
    state::conforms(Arc::new(EmbeddedState::in_memory(clock()).unwrap())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn catalog_in_memory_conforms() {
    catalog::conforms(Arc::new(EmbeddedCatalog::in_memory(clock()).unwrap())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn stream_in_memory_conforms() {
    stream::conforms(Arc::new(EmbeddedStream::in_memory(clock()).unwrap())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn storage_in_memory_conforms() {
    let root = Url::parse("memory:///").unwrap();
    storage::conforms(&Storage::in_memory(), &root).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn storage_below_a_folder_in_memory_conforms() {
    let root = Url::parse("memory:///a/lake%20house/").unwrap();
    storage::conforms(&adapters_embedded::storage::open(std::slice::from_ref(&root)).unwrap(), &root).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn storage_on_disk_conforms() {
    let folder = tempfile::tempdir().unwrap();
    let root = Url::from_directory_path(folder.path().join("lake house +é%")).unwrap();
    storage::conforms(&adapters_embedded::storage::open(std::slice::from_ref(&root)).unwrap(), &root).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn state_on_disk_conforms_and_is_there_when_opened_again() {
    let folder = tempfile::tempdir().unwrap();
    let ports = open(folder.path());
    state::conforms(ports.state.clone()).await;
    let before = ports.state.get("conformance/race").await.unwrap().unwrap();
    drop(ports);
    let state = open(folder.path()).state;
    assert_eq!(state.get("conformance/race").await.unwrap().unwrap(), before);
    state.put("conformance/race", "x".into(), Expect::Version(before.version)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn catalog_on_disk_conforms_and_is_there_when_opened_again() {
    let folder = tempfile::tempdir().unwrap();
    let ports = open(folder.path());
    catalog::conforms(ports.catalog.clone()).await;
    let before = ports.catalog.list_tables("conformance").await.unwrap();
    assert_eq!(before.len(), 4);
    drop(ports);
    let catalog = open(folder.path()).catalog;
    assert_eq!(catalog.list_tables("conformance").await.unwrap(), before);
    for table in before {
        catalog.update_table(&table.input, &table.version).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn stream_on_disk_conforms_and_is_there_when_opened_again() {
    let folder = tempfile::tempdir().unwrap();
    let ports = open(folder.path());
    stream::conforms(ports.stream.clone()).await;
    let before = stream::read_all(&*ports.stream, "conformance-writers", 100).await;
    drop(ports);
    let stream = open(folder.path()).stream;
    assert_eq!(stream::read_all(&*stream, "conformance-writers", 100).await, before);
    let outcomes = stream.put("conformance-writers", vec![stream::record("k", "x")]).await.unwrap();
    let PutOutcome::Stored { sequence, .. } = &outcomes[0] else { panic!("not stored: {outcomes:?}") };
    assert!(before.values().flatten().all(|record| record.sequence < *sequence), "numbers grow over a restart");
}

#[tokio::test]
async fn a_full_disk_is_a_limit_and_what_was_stored_before_stays() {
    let folder = tempfile::tempdir().unwrap();
    let mounted = std::process::Command::new("mount")
        .args(["-t", "tmpfs", "-o", "size=2m", "tmpfs"])
        .arg(folder.path())
        .output()
        .is_ok_and(|output| output.status.success());
    if !mounted {
        // Past the harness's capture, so that it is seen.
        writeln!(std::io::stderr(), "SKIPPED: the test of a full disk needs leave to mount a tmpfs").unwrap();
        return;
    }
    let checked = tokio::spawn(fill(folder.path().to_owned())).await;
    let unmounted = std::process::Command::new("umount").arg("-l").arg(folder.path()).status().unwrap();
    assert!(unmounted.success());
    checked.unwrap();
}

/// Fills the disk below `folder` through each port.
async fn fill(folder: std::path::PathBuf) {
    let ports = open(&folder);
    let url = ports.keys.raw("x").join("small.bin").unwrap();
    ports.storage.put(&url, "small").await.unwrap();
    let big = ports.keys.raw("x").join("big.bin").unwrap();
    let error = ports.storage.put(&big, vec![0; 4 << 20]).await.unwrap_err();
    assert_eq!(error.kind(), shared::ErrorKind::Limit, "{error}");
    assert!(error.to_string().contains(big.as_str()), "{error}");
    let listed = ports.storage.list(&ports.keys.raw("x")).await.unwrap();
    assert_eq!(listed.len(), 1, "nothing is left behind");
    assert_eq!(std::fs::read_dir(folder.join("objects/raw/x")).unwrap().count(), 1, "not even a hidden file");

    ports.stream.create(&StreamSpec { name: "s".into(), shards: 1, retention_hours: 24 }).await.unwrap();
    let (mut stored, error) = (0, loop_until_full(&ports).await);
    assert_eq!(error.1.kind(), shared::ErrorKind::Limit, "{}", error.1);
    stored += error.0;
    let read = stream::read_all(&*ports.stream, "s", 100).await;
    assert_eq!(read.values().flatten().count(), stored, "a failed put stores nothing");
    assert_eq!(ports.storage.get(&url).await.unwrap(), "small");
}

async fn loop_until_full(ports: &Ports) -> (usize, shared::Error) {
    for stored in 0.. {
        if let Err(error) = ports.stream.put("s", vec![stream::record("k", vec![0; 50_000])]).await {
            return (stored, error);
        }
    }
    unreachable!("the disk has an end")
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn every_record_is_read_once_whatever_the_batches_shards_and_pages(
        batches in prop::collection::vec(prop::collection::vec(("[a-z]{1,3}", prop::collection::vec(any::<u8>(), 0..40)), 1..30), 0..12),
        shards in 1_u32..9,
        page in 1_usize..50,
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let port = EmbeddedStream::in_memory(clock()).unwrap();
            port.create(&StreamSpec { name: "s".into(), shards, retention_hours: 24 }).await.unwrap();
            let mut stored = Vec::new();
            for batch in &batches {
                let records: Vec<_> = batch.iter().map(|(key, data)| stream::record(key, data.clone())).collect();
                for (record, outcome) in records.clone().into_iter().zip(port.put("s", records).await.unwrap()) {
                    let PutOutcome::Stored { shard, sequence } = outcome else { panic!("not stored: {outcome:?}") };
                    stored.push((shard, sequence, record.partition_key, record.data));
                }
            }
            let mut read: Vec<_> = stream::read_all(&port, "s", page)
                .await
                .into_iter()
                .flat_map(|(shard, records)| {
                    records.into_iter().map(move |r| (shard.clone(), r.sequence, r.partition_key, r.data))
                })
                .collect();
            read.sort_by(|a, b| a.1.cmp(&b.1));
            assert_eq!(read, stored);
        });
    }
}
