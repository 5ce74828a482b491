//! Orphans, and tables that are dropped.

use std::collections::BTreeSet;

use url::Url;

use super::*;
use shared::ErrorKind;
use shared::catalog::{StorageDescriptor, TableInput};
use testing::catalog_faults::Fault::{LostReply, Refused};
use testing::catalog_faults::FaultyCatalog;

async fn stored(ports: &Ports) -> BTreeSet<String> {
    let files = ports.storage.list(&ports.keys.table(&name())).await.unwrap();
    files.into_iter().map(|o| o.url.to_string()).collect()
}

/// The table as it is seen in the year 2096, when everything is old.
async fn later(ports: &Ports) -> Table {
    let clock = Arc::new(ManualClock::at(4_000_000_000_000));
    Tables::new(Ports { clock, ..ports.clone() }).load(&name()).await.unwrap()
}

async fn litter(ports: &Ports, table: &Table) -> Vec<String> {
    let location = table.metadata().location();
    let files = [
        format!("{location}/data/at_day=1970-01-01/killed-00000.parquet"),
        format!("{location}/metadata/killed-m0.avro"),
        format!("{location}/metadata/00007-killed.metadata.json"),
    ];
    for file in &files {
        ports.storage.put(&Url::parse(file).unwrap(), "left by a writer that was stopped").await.unwrap();
    }
    files.to_vec()
}

#[tokio::test]
async fn files_that_nothing_names_go_and_all_others_stay() {
    let ports = ports();
    let table = table(&ports, &["day(at)", "carrier"]).await;
    for id in 1..=3 {
        append(&table, rows(&[(id, Some("a b/ü%20"), id)])).await;
    }
    let new = rows(&[(2, None, 0)]);
    table.commit(Change::Merge { key: vec!["id".into()] }, stream(new), None).await.unwrap();
    let whole = stored(&ports).await;
    let left = litter(&ports, &table).await;

    let table = later(&ports).await;
    let told = table.remove_orphans(&Orphans { dry_run: true, ..Orphans::default() }).await.unwrap();
    assert_eq!((told.orphans, told.young, told.files), (3, 0, whole.len() as u64 + 3));
    assert_eq!(told.bytes, 3 * 33);
    assert_eq!(told.examples.iter().collect::<BTreeSet<_>>(), left.iter().collect());
    assert_eq!(stored(&ports).await.len(), whole.len() + 3, "a dry run removes nothing");
    assert_eq!(table.remove_orphans(&Orphans::default()).await.unwrap(), told);
    assert_eq!(stored(&ports).await, whole);
    assert_eq!(ids(&table, Read::Current).await, ["1", "2", "3"]);
    assert_eq!(table.remove_orphans(&Orphans::default()).await.unwrap().orphans, 0);
}

#[tokio::test]
async fn files_that_may_be_in_flight_stay() {
    let ports = ports();
    let table = table(&ports, &[]).await;
    litter(&ports, &table).await;
    let now = chrono::Utc::now().timestamp_millis();
    let clock = Arc::new(ManualClock::at(now + 86_400_000));
    let soon = Tables::new(Ports { clock, ..ports.clone() }).load(&name()).await.unwrap();
    let report = soon.remove_orphans(&Orphans::default()).await.unwrap();
    assert_eq!((report.orphans, report.young), (0, 3));
    // By an hour ago everything would go: no writer could be sure of its files.
    let hasty = Orphans { older_than_ms: Some(now + 82_800_000), dry_run: true };
    let error = soon.remove_orphans(&hasty).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    assert!(error.to_string().contains("found 3600 s"), "{error}");
}

#[tokio::test]
async fn a_folder_with_another_table_in_it_is_left_alone() {
    let ports = ports();
    let table = table(&ports, &[]).await;
    litter(&ports, &table).await;
    let inside = TableInput {
        name: TableName::new("nyc", "guest").unwrap(),
        description: None,
        table_type: "EXTERNAL_TABLE".into(),
        parameters: BTreeMap::new(),
        storage: StorageDescriptor {
            location: format!("{}/data/guest/", table.metadata().location()),
            ..StorageDescriptor::default()
        },
        partition_keys: Vec::new(),
    };
    ports.catalog.create_table(&inside).await.unwrap();
    let before = stored(&ports).await;
    let error = later(&ports).await.remove_orphans(&Orphans::default()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict);
    assert!(error.to_string().contains("`nyc.guest`"), "{error}");
    assert_eq!(stored(&ports).await, before);
    let dropped = Tables::new(ports.clone()).drop(&name(), Purge::All).await.unwrap_err();
    assert_eq!(dropped.kind(), ErrorKind::Conflict, "{dropped}");
    let expired = later(&ports).await.expire(&Expire::default()).await.unwrap_err();
    assert_eq!(expired.kind(), ErrorKind::Conflict, "{expired}");
    assert_eq!(stored(&ports).await, before);
    assert!(ports.catalog.get_table(&name()).await.is_ok());
}

#[tokio::test]
async fn metadata_that_can_not_be_read_stops_the_removal_and_is_named() {
    let ports = ports();
    let table = table(&ports, &[]).await;
    append(&table, rows(&[(1, None, 0)])).await;
    litter(&ports, &table).await;
    let list = table.reload().await.unwrap().metadata().current_snapshot().unwrap().manifest_list().to_owned();
    ports.storage.put(&Url::parse(&list).unwrap(), "damaged").await.unwrap();
    let before = stored(&ports).await;
    let error = later(&ports).await.remove_orphans(&Orphans::default()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Bug);
    assert!(error.to_string().contains(&list), "{error}");
    assert!(Tables::new(ports.clone()).drop(&name(), Purge::Own).await.is_err());
    assert_eq!(stored(&ports).await, before);
    assert!(ports.catalog.get_table(&name()).await.is_ok());
}

#[tokio::test]
async fn a_dropped_table_leaves_its_files_unless_they_are_purged() {
    let ports = ports();
    let tables = Tables::new(ports.clone());
    let missing = tables.drop(&name(), Purge::Own).await.unwrap_err();
    assert_eq!(missing.kind(), ErrorKind::NotFound);
    let first = table(&ports, &[]).await;
    append(&first, rows(&[(1, None, 0)])).await;
    let files = stored(&ports).await;
    assert_eq!(tables.drop(&name(), Purge::No).await.unwrap(), Dropped::default());
    assert_eq!(stored(&ports).await, files);
    assert_eq!(tables.load(&name()).await.unwrap_err().kind(), ErrorKind::NotFound);
    // A table of the same name is another one, in a folder of its own.
    let second = table(&ports, &[]).await;
    append(&second, rows(&[(2, None, 0)])).await;
    assert_eq!(ids(&second, Read::Current).await, ["2"]);
    let dropped = tables.drop(&name(), Purge::Own).await.unwrap();
    assert_eq!(dropped.left_behind, 0);
    assert!(dropped.files > 0);
    assert_eq!(stored(&ports).await, files, "those of the first, which may come back");
}

#[tokio::test]
async fn a_drop_whose_answer_is_lost_is_a_drop() {
    for faults in [
        vec![LostReply(ErrorKind::OutcomeUnknown)],
        vec![LostReply(ErrorKind::Retry)],
        vec![Refused(ErrorKind::Retry), Refused(ErrorKind::OutcomeUnknown), LostReply(ErrorKind::Retry)],
    ] {
        let ports = ports();
        append(&table(&ports, &[]).await, rows(&[(1, None, 0)])).await;
        let catalog = FaultyCatalog::new(ports.catalog.clone());
        catalog.fail(&name(), &faults);
        let tables = Tables::new(Ports { catalog: catalog.clone(), ..ports.clone() });
        tables.drop(&name(), Purge::Own).await.unwrap();
        assert!(catalog.is_spent());
        assert!(stored(&ports).await.is_empty());
    }
    let ports = ports();
    append(&table(&ports, &[]).await, rows(&[(1, None, 0)])).await;
    let before = stored(&ports).await;
    let catalog = FaultyCatalog::new(ports.catalog.clone());
    catalog.fail(&name(), &[Refused(ErrorKind::Denied)]);
    let denied = Tables::new(Ports { catalog, ..ports.clone() }).drop(&name(), Purge::Own).await.unwrap_err();
    assert_eq!(denied.kind(), ErrorKind::Denied);
    assert_eq!(stored(&ports).await, before);
}
