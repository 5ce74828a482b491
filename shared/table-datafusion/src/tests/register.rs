use std::io::Write;

use flate2::Compression;
use flate2::write::GzEncoder;

use super::*;
use shared::ErrorKind;

fn other() -> TableName {
    TableName::new("nyc", "taken_over").unwrap()
}

#[tokio::test]
async fn a_table_is_entered_by_its_metadata_packed_or_not_and_can_be_changed() {
    for packed in [false, true] {
        let ports = ports();
        let first = table(&ports, &[]).await;
        append(&first, rows(&[(1, Some("UA"), 0), (2, None, 0)])).await;
        let first = first.reload().await.unwrap();
        let mut location = first.metadata_location().to_owned();
        if packed {
            let text = ports.storage.get(&location.parse().unwrap()).await.unwrap();
            let mut gzip = GzEncoder::new(Vec::new(), Compression::default());
            gzip.write_all(&text).unwrap();
            location = location.replace(".metadata.json", ".gz.metadata.json");
            ports.storage.put(&location.parse().unwrap(), gzip.finish().unwrap()).await.unwrap();
        }
        ports.catalog.delete_table(&name()).await.unwrap();
        let taken = Tables::new(ports.clone()).register(&other(), &location).await.unwrap();
        assert_eq!(taken.columns(), first.columns());
        append(&taken, rows(&[(3, None, 0)])).await;
        assert_eq!(ids(&taken, Read::Current).await, ["1", "2", "3"], "packed: {packed}");
        let again = Tables::new(ports).register(&other(), &location).await.unwrap_err();
        assert_eq!(again.kind(), ErrorKind::Conflict, "{again}");
    }
}

#[tokio::test]
async fn what_is_no_metadata_is_refused_with_its_place() {
    let ports = ports();
    let root = ports.keys.root().clone();
    let tables = Tables::new(ports.clone());
    let file = root.join("x/metadata/v1.metadata.json").unwrap();
    table(&ports, &[]).await;
    for (place, content, kind) in [
        (file.as_str(), None, ErrorKind::Invalid),
        (file.as_str(), Some("{}"), ErrorKind::Invalid),
        (file.as_str(), Some(r#"{"format-version": 2}"#), ErrorKind::Invalid),
        ("no place", None, ErrorKind::Invalid),
        ("/etc/passwd", None, ErrorKind::Denied),
    ] {
        if let Some(content) = content {
            ports.storage.put(&file, content).await.unwrap();
        }
        let error = tables.register(&other(), place).await.unwrap_err();
        assert_eq!(error.kind(), kind, "{place}: {error}");
        assert!(error.to_string().contains(place), "{error}");
        assert_eq!(tables.load(&other()).await.unwrap_err().kind(), ErrorKind::NotFound);
    }
}

#[tokio::test]
async fn metadata_that_another_table_of_the_catalog_has_is_refused_wherever_the_file_lies() {
    let ports = ports();
    let tables = Tables::new(ports.clone());
    let first = table(&ports, &[]).await;
    append(&first, rows(&[(1, None, 0)])).await;
    let older = first.metadata_location().to_owned();
    let newest = first.reload().await.unwrap().metadata_location().to_owned();
    let copy = ports.keys.root().join("raw/copy/metadata/v9.metadata.json").unwrap();
    let bytes = ports.storage.get(&newest.parse().unwrap()).await.unwrap();
    ports.storage.put(&copy, bytes).await.unwrap();
    for location in [older.as_str(), newest.as_str(), copy.as_str()] {
        let error = tables.register(&other(), location).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Conflict, "{location}: {error}");
        assert!(error.to_string().contains("`nyc.flights`"), "{error}");
    }
    // Out of the catalog it is anybody's.
    tables.drop(&name(), Purge::No).await.unwrap();
    let taken = tables.register(&other(), &newest).await.unwrap();
    assert_eq!(ids(&taken, Read::Current).await, ["1"]);
}

/// A table that was registered, with a file of a snapshot that is past its age.
async fn registered(ports: &Ports) -> Table {
    let tables = Tables::new(ports.clone());
    let first = table(ports, &[]).await;
    append(&first, rows(&[(1, None, 0)])).await;
    first.commit(Change::Overwrite, stream(rows(&[(2, None, 0)])), None).await.unwrap();
    let location = first.reload().await.unwrap().metadata_location().to_owned();
    tables.drop(&name(), Purge::No).await.unwrap();
    tables.register(&other(), &location).await.unwrap()
}

#[tokio::test]
async fn a_registered_table_is_dropped_without_its_files_unless_it_is_purged() {
    let ports = ports();
    let tables = Tables::new(ports.clone());
    let taken = registered(&ports).await;
    append(&taken, rows(&[(3, None, 0)])).await;
    let location = taken.reload().await.unwrap().metadata_location().to_owned();
    let before = ports.storage.list(ports.keys.root()).await.unwrap();
    let dropped = tables.drop(&other(), Purge::Own).await.unwrap();
    assert_eq!(dropped, Dropped { registered: true, ..Dropped::default() });
    assert_eq!(ports.storage.list(ports.keys.root()).await.unwrap(), before);
    let again = tables.register(&other(), &location).await.unwrap();
    assert_eq!(ids(&again, Read::Current).await, ["2", "3"]);
    let purged = tables.drop(&other(), Purge::All).await.unwrap();
    assert_eq!((purged.files, purged.left_behind, purged.elsewhere), (before.len() as u64, 0, 0));
    assert!(ports.storage.list(ports.keys.root()).await.unwrap().is_empty());
}

/// Metadata of `table` that says it lies in `folder`.
async fn elsewhere(ports: &Ports, table: &Table, folder: &str) -> String {
    let now = table.reload().await.unwrap();
    let bytes = ports.storage.get(&now.metadata_location().parse().unwrap()).await.unwrap();
    let mut json: serde_json::Value = serde_json::from_slice(&bytes).unwrap();
    json["location"] = folder.into();
    let file = format!("{}raw/foreign/v1.metadata.json", ports.keys.root());
    ports.storage.put(&file.parse().unwrap(), serde_json::to_vec(&json).unwrap()).await.unwrap();
    file
}

#[tokio::test]
async fn a_purge_and_an_expiry_take_no_file_outside_the_folder_of_the_table() {
    let ports = ports();
    let taken = registered(&ports).await;
    let tables = Tables::new(Ports { clock: Arc::new(ManualClock::at(4_000_000_000_000)), ..ports.clone() });
    let file = elsewhere(&ports, &taken, &format!("{}tables/nyc/moved", ports.keys.root())).await;
    tables.drop(&other(), Purge::No).await.unwrap();
    let moved = tables.register(&other(), &file).await.unwrap();
    let before = ports.storage.list(ports.keys.root()).await.unwrap();
    let expired = moved.expire(&Expire { retain_last: Some(1), ..Expire::default() }).await.unwrap();
    assert_eq!((expired.snapshots.len(), expired.files.values().sum::<u64>()), (1, 0));
    let dropped = tables.drop(&other(), Purge::All).await.unwrap();
    assert!(dropped.elsewhere > 0, "{dropped:?}");
    assert_eq!(ports.storage.list(ports.keys.root()).await.unwrap(), before);
}

#[tokio::test]
async fn a_folder_that_the_warehouse_keeps_other_things_in_is_never_purged() {
    for folder in ["raw", "tables/", "state/x", "results"] {
        let ports = ports();
        let tables = Tables::new(ports.clone());
        let taken = registered(&ports).await;
        let file = elsewhere(&ports, &taken, &format!("{}{folder}", ports.keys.root())).await;
        tables.drop(&other(), Purge::No).await.unwrap();
        tables.register(&other(), &file).await.unwrap();
        let before = ports.storage.list(ports.keys.root()).await.unwrap();
        let error = tables.drop(&other(), Purge::All).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Conflict, "{folder}: {error}");
        assert_eq!(ports.storage.list(ports.keys.root()).await.unwrap(), before);
        tables.drop(&other(), Purge::Own).await.unwrap();
    }
}
