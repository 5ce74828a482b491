use iceberg::spec::{SnapshotReference, SnapshotRetention, TableMetadataBuilder};

use super::*;
use shared::ErrorKind;

/// Points names at snapshots, as another engine does.
async fn refer(table: &Table, name: &str, snapshot_id: i64, retention: SnapshotRetention) -> Table {
    let table = table.reload().await.unwrap();
    let builder = table.metadata().as_ref().clone().into_builder(Some(table.metadata_location().to_owned()));
    let reference = SnapshotReference { snapshot_id, retention };
    let built = builder.set_ref(name, reference).and_then(TableMetadataBuilder::build).unwrap();
    let (metadata, location) = (Arc::new(built.metadata), table.next_location());
    table.io().put_metadata(&location, &metadata).await.unwrap();
    table.swap(&metadata, location).await.unwrap()
}

const BRANCH: SnapshotRetention =
    SnapshotRetention::Branch { min_snapshots_to_keep: Some(3), max_snapshot_age_ms: None, max_ref_age_ms: None };
const TAG: SnapshotRetention = SnapshotRetention::Tag { max_ref_age_ms: Some(1000) };

#[tokio::test]
async fn the_past_is_read_by_time_tag_and_branch() {
    // The `iceberg` crate takes the time of changes to metadata from the system, and wants it near that of the snapshots.
    let clock = Arc::new(ManualClock::at(chrono::Utc::now().timestamp_millis() + 1000));
    let ports = adapters_embedded::in_memory(clock.clone()).unwrap();
    let table = table(&ports, &[]).await;
    let one = append(&table, rows(&[(1, None, 0)])).await.snapshot_id;
    clock.advance(1000);
    let two = append(&table, rows(&[(2, None, 0)])).await.snapshot_id;
    refer(&table, "audited", one, TAG).await;
    refer(&table, "work", one, BRANCH).await;
    let more = [columns(), vec![Column::new("extra", ColumnType::Int)]].concat();
    let table = Tables::new(ports.clone()).ensure(&name(), &more, &[]).await.unwrap();

    let first = table.metadata().snapshot_by_id(one).unwrap().timestamp_ms();
    let second = table.metadata().snapshot_by_id(two).unwrap().timestamp_ms();
    assert_eq!(ids(&table, Read::AsOf { ms: first }).await, ["1"]);
    assert_eq!(ids(&table, Read::AsOf { ms: second - 1 }).await, ["1"]);
    assert_eq!(ids(&table, Read::AsOf { ms: second }).await, ["1", "2"]);
    assert_eq!(ids(&table, Read::AsOf { ms: i64::MAX }).await, ["1", "2"]);
    assert_eq!(ids(&table, Read::Reference("audited".into())).await, ["1"]);
    assert_eq!(ids(&table, Read::Reference("main".into())).await, ["1", "2"]);

    let width = async |read| table.provider(read).await.unwrap().schema().fields().len();
    assert_eq!(width(Read::Reference("audited".into())).await, 3);
    assert_eq!(width(Read::AsOf { ms: first }).await, 3);
    assert_eq!(width(Read::Reference("work".into())).await, 4);

    let error = async |read| table.provider(read).await.unwrap_err();
    let early = error(Read::AsOf { ms: first - 1 }).await;
    assert_eq!(early.kind(), ErrorKind::NotFound);
    assert!(early.to_string().contains(&first.to_string()), "{early}");
    let unknown = error(Read::Reference("audit".into())).await;
    assert_eq!(unknown.kind(), ErrorKind::NotFound);
    assert!(unknown.to_string().contains("(`audited`, `main`, `work`), found `audit`"), "{unknown}");
}

async fn ask(table: &Table, which: &str, query: &str) -> Vec<String> {
    let session = SessionContext::new();
    let table = table.reload().await.unwrap();
    session.register_table("m", table.metadata_table(which.parse().unwrap()).await.unwrap()).unwrap();
    let batches = session.sql(query).await.unwrap().collect().await.unwrap();
    let text = pretty_format_batches(&batches).unwrap().to_string();
    let rows = text.lines().filter(|line| line.starts_with('|')).skip(1);
    rows.map(|row| row.trim_matches('|').split('|').map(str::trim).collect::<Vec<_>>().join(" ")).collect()
}

#[tokio::test]
async fn metadata_is_read_as_tables() {
    let table = table(&ports(), &["day(at)", "bucket(4, id)"]).await;
    for (which, columns) in [
        ("snapshots", "committed_at snapshot_id parent_id operation manifest_list summary"),
        ("history", "made_current_at snapshot_id parent_id is_current_ancestor"),
        ("refs", "name type snapshot_id max_reference_age_in_ms min_snapshots_to_keep max_snapshot_age_in_ms"),
        ("partitions", "partition record_count file_count total_size data"),
    ] {
        let provider = table.metadata_table(which.parse().unwrap()).await.unwrap();
        let schema = provider.schema();
        let names: Vec<_> = schema.fields().iter().map(|f| f.name().as_str()).collect();
        assert_eq!(names.join(" "), columns);
        assert_eq!(ask(&table, which, "SELECT * FROM m").await, Vec::<String>::new());
    }
    let one = append(&table, rows(&[(1, Some("a"), 0), (2, None, 1)])).await.snapshot_id;
    let two = append(&table, rows(&[(3, Some("c"), 1)])).await.snapshot_id;
    refer(&table, "audited", one, TAG).await;
    let key = vec!["id".to_owned()];
    let three = table.commit(Change::Merge { key }, stream(rows(&[(3, None, 1)])), None).await.unwrap().snapshot_id;

    let snapshots = "SELECT snapshot_id, parent_id, operation, summary['added-records'] FROM m";
    let snapshots = ask(&table, "snapshots", snapshots).await;
    let expected = [format!("{one}  append 2"), format!("{two} {one} append 1"), format!("{three} {two} overwrite 1")];
    assert!(expected.iter().all(|row| snapshots.contains(row)) && snapshots.len() == 3, "{snapshots:?}");
    let history = ask(&table, "history", "SELECT snapshot_id, parent_id, is_current_ancestor FROM m").await;
    assert_eq!(history, [format!("{one}  true"), format!("{two} {one} true"), format!("{three} {two} true")]);
    assert_eq!(
        ask(&table, "refs", "SELECT name, type, snapshot_id, max_reference_age_in_ms FROM m").await,
        [format!("audited TAG {one} 1000"), format!("main BRANCH {three} ")]
    );
    let files = "SELECT content, file_format, record_count, partition['at_day'], lower_bounds[CAST(1 AS INT)], null_value_counts[CAST(2 AS INT)], \
                 file_path LIKE '%.parquet', array_length(split_offsets) FROM m ORDER BY lower_bounds[CAST(1 AS INT)]";
    assert_eq!(
        ask(&table, "files", files).await,
        ["0 PARQUET 1 1970-01-01 1 0 true 1", "0 PARQUET 1 1970-01-02 2 1 true 1", "0 PARQUET 1 1970-01-02 3 1 true 1"]
    );
    assert_eq!(ask(&table, "files", "SELECT count(*) FROM m").await, ["3"]);
    let manifests = "SELECT sum(added_data_files_count), sum(existing_rows_count), \
                     min(partition_summaries[1]['lower_bound']), max(partition_summaries[1]['upper_bound']) FROM m";
    let manifests = ask(&table, "manifests", manifests).await;
    assert!(manifests[0].ends_with("1970-01-01 1970-01-02"), "{manifests:?}");
    let partitions = "SELECT partition['at_day'], sum(record_count), sum(file_count), min(data['id']['min']), \
                      max(data['carrier']['max']), sum(data['carrier']['null_count']) FROM m GROUP BY 1 ORDER BY 1";
    assert_eq!(ask(&table, "partitions", partitions).await, ["1970-01-01 1 1 1 a 0", "1970-01-02 2 2 2  2"]);
    assert!("entries".parse::<MetadataTable>().unwrap_err().to_string().contains("`snapshots`"));
}
