//! Tables of other format versions than v2.

use iceberg::spec::FormatVersion;

use super::rows::{TestChange, with_properties};
use super::*;
use shared::ErrorKind;

pub(super) async fn upgraded(table: &Table) -> Table {
    let table = table.reload().await.unwrap();
    let builder = table.metadata().as_ref().clone().into_builder(Some(table.metadata_location().to_owned()));
    let built = builder.upgrade_format_version(FormatVersion::V3).unwrap().build().unwrap();
    let (metadata, location) = (Arc::new(built.metadata), table.next_location());
    table.io().put_metadata(&location, &metadata).await.unwrap();
    table.swap(&metadata, location).await.unwrap()
}

/// First row id and rows of each live file, with what an entry inherits from its manifest.
async fn row_ids(table: &Table) -> Vec<(u64, u64)> {
    let table = table.reload().await.unwrap();
    let snapshot = table.metadata().current_snapshot().unwrap();
    let list = table.io().manifest_list(snapshot, table.metadata().format_version()).await.unwrap();
    let mut ids = Vec::new();
    for file in list.iter() {
        let manifest = table.io().any_manifest(file).await.unwrap();
        let mut next = file.first_row_id.expect("every manifest of a v3 table has a first row id");
        for entry in manifest.entries().iter().filter(|e| e.is_alive()) {
            let own = entry.data_file().first_row_id();
            let first = own.map_or(next, i64::unsigned_abs);
            if own.is_none() {
                next += entry.record_count();
            }
            ids.push((first, entry.record_count()));
        }
    }
    ids.sort_unstable();
    ids
}

#[tokio::test]
async fn rows_of_a_v3_table_get_ids_that_stay_when_manifests_are_merged() {
    let table = table(&ports(), &["day(at)"]).await;
    append(&table, rows(&[(1, None, 0), (2, None, 0)])).await;
    let table = upgraded(&table).await;
    append(&table, rows(&[(3, None, 0), (4, None, 1), (5, None, 1)])).await;
    let now = table.reload().await.unwrap();
    let snapshot = now.metadata().current_snapshot().unwrap();
    assert_eq!((snapshot.first_row_id(), snapshot.added_rows_count()), (Some(0), Some(5)));
    assert_eq!(now.metadata().next_row_id(), 5);
    let before = row_ids(&table).await;
    assert_eq!(before.iter().map(|(_, rows)| rows).sum::<u64>(), 5);
    let table = with_properties(&table, &[("commit.manifest.min-count-to-merge", "2")]).await;
    append(&table, rows(&[(6, None, 5)])).await;
    let after = row_ids(&table).await;
    assert!(before.iter().all(|ids| after.contains(ids)), "{before:?} {after:?}");
    assert_eq!(ids(&table, Read::Current).await, ["1", "2", "3", "4", "5", "6"]);
    table.change_rows(&TestChange::delete("id = 4"), None).await.unwrap();
    assert_eq!(ids(&table, Read::Current).await, ["1", "2", "3", "5", "6"]);
    let mut next = 0;
    for (first, rows) in row_ids(&table).await {
        assert!(first >= next, "row ids are given out once");
        next = first + rows;
    }
}

#[tokio::test]
async fn a_v1_table_is_not_written_to() {
    let table = table(&ports(), &[]).await;
    let mut json: serde_json::Value = serde_json::to_value(table.metadata().as_ref()).unwrap();
    json["format-version"] = 1.into();
    let json = json.as_object_mut().unwrap();
    json.remove("last-sequence-number");
    json.insert("schema".into(), json["schemas"][0].clone());
    json.insert("partition-spec".into(), json["partition-specs"][0]["fields"].clone());
    let metadata: iceberg::spec::TableMetadata = serde_json::from_value(json.clone().into()).unwrap();
    let (metadata, location) = (Arc::new(metadata), table.next_location());
    table.io().put_metadata(&location, &metadata).await.unwrap();
    let table = table.swap(&metadata, location).await.unwrap();
    let error = table.commit(Change::Append, stream(rows(&[(1, None, 0)])), None).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    assert!(error.to_string().contains("v2 or v3"), "{error}");
}
