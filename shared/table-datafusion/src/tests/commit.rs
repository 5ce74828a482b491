use iceberg::spec::Datum;

use super::*;
use shared::ErrorKind;
use table::{Alter, NewTable};

#[tokio::test]
async fn appended_rows_are_read_back() {
    let table = table(&ports(), &[]).await;
    assert_eq!(ids(&table, Read::Current).await, Vec::<String>::new());
    let committed = append(&table, rows(&[(1, Some("UA"), 0), (2, None, 1)])).await;
    assert_eq!((committed.rows_added, committed.files_added, committed.attempts), (2, 1, 1));
    append(&table, rows(&[(3, Some("AA"), 2)])).await;
    assert_eq!(
        sql(&table, Read::Current, "SELECT id, carrier, at FROM t ORDER BY id").await,
        ["1 UA 1970-01-01T01:00:00", "2  1970-01-02T01:00:00", "3 AA 1970-01-03T01:00:00"]
    );
}

#[tokio::test]
async fn a_replay_changes_nothing() {
    let table = table(&ports(), &[]).await;
    let first = table.commit(Change::Append, stream(rows(&[(1, None, 0)])), Some(token(None, "10"))).await.unwrap();
    assert!(first.snapshot_id > 0);
    // The replay comes from a table that was loaded before, and from one loaded after.
    for stale in [table.clone(), table.reload().await.unwrap()] {
        let replay = stale.commit(Change::Append, stream(rows(&[(1, None, 0)])), Some(token(None, "10"))).await;
        assert_eq!(replay.unwrap_err().kind(), ErrorKind::Conflict);
    }
    append(&table, rows(&[(2, None, 0)])).await;
    let table = table.reload().await.unwrap();
    assert_eq!(table.token("stream.flights").as_deref(), Some("10"));
    assert_eq!(table.token("stream.other"), None);
    table.commit(Change::Append, stream(rows(&[(3, None, 0)])), Some(token(Some("10"), "20"))).await.unwrap();
    assert_eq!(ids(&table, Read::Current).await, ["1", "2", "3"]);
    let left: Vec<_> = table.ports().storage.list(&table.ports().keys.table(&name())).await.unwrap();
    let data = left.iter().filter(|o| o.url.path().ends_with(".parquet")).count();
    assert_eq!(data, 3, "a refused replay leaves no data file behind");
}

#[tokio::test]
async fn a_commit_without_rows_moves_the_token_or_does_nothing() {
    let table = table(&ports(), &[]).await;
    let nothing = append(&table, rows(&[])).await;
    assert_eq!((nothing.snapshot_id, table.reload().await.unwrap().current_snapshot()), (0, None));
    let moved = table.commit(Change::Append, stream(rows(&[])), Some(token(None, "5"))).await.unwrap();
    let table = table.reload().await.unwrap();
    assert_eq!(table.current_snapshot(), Some(moved.snapshot_id));
    assert_eq!(table.token("stream.flights").as_deref(), Some("5"));
    assert_eq!(moved.files_added, 0);
    assert_eq!(ids(&table, Read::Current).await, Vec::<String>::new());
}

#[tokio::test]
async fn overwriting_replaces_every_row_at_once() {
    let table = table(&ports(), &["day(at)"]).await;
    append(&table, rows(&[(1, None, 0), (2, None, 1)])).await;
    append(&table, rows(&[(3, None, 5)])).await;
    let before = table.reload().await.unwrap().current_snapshot().unwrap();
    let done = table.commit(Change::Overwrite, stream(rows(&[(9, None, 9)])), None).await.unwrap();
    assert_eq!((done.rows_added, done.rows_deleted), (1, 3));
    assert_eq!(ids(&table, Read::Current).await, ["9"]);
    assert_eq!(ids(&table, Read::Snapshot(before)).await, ["1", "2", "3"]);
    table.commit(Change::Overwrite, stream(rows(&[])), None).await.unwrap();
    assert_eq!(ids(&table, Read::Current).await, Vec::<String>::new());
    let newest = &table.reload().await.unwrap().history()[0];
    assert_eq!(newest.summary["total-records"], "0");
    assert_eq!(newest.operation, "delete");
}

#[tokio::test]
async fn snapshots_carry_the_summary_of_the_specification() {
    let table = table(&ports(), &["carrier"]).await;
    append(&table, rows(&[(1, Some("UA"), 0), (2, Some("AA"), 0), (3, None, 0)])).await;
    append(&table, rows(&[(4, Some("UA"), 0)])).await;
    let history = table.reload().await.unwrap().history();
    assert_eq!(history.len(), 2);
    let summary = &history[0].summary;
    for (key, value) in [
        ("added-data-files", "1"),
        ("added-records", "1"),
        ("changed-partition-count", "1"),
        ("total-data-files", "4"),
        ("total-records", "4"),
        ("total-delete-files", "0"),
    ] {
        assert_eq!(summary[key], value, "{key}");
    }
    assert_eq!(history[1].parent, None);
    assert_eq!(history[0].parent, Some(history[1].id));
    assert_eq!(history[0].operation, "append");
}

#[tokio::test]
async fn rows_that_do_not_fit_are_refused_by_name() {
    let table = table(&ports(), &[]).await;
    let batch = |columns| RecordBatch::try_from_iter::<_, &str>(columns).unwrap();
    let ids: ArrayRef = Arc::new(Int64Array::from(vec![Some(1), None]));
    for (columns, named) in [
        (vec![("id", ids.clone())], "`id`"),
        (vec![("carrier", Arc::new(StringArray::from(vec!["x"])) as ArrayRef)], "`id`"),
        (
            vec![
                ("id", Arc::new(Int64Array::from(vec![1])) as ArrayRef),
                ("other", Arc::new(Int64Array::from(vec![1]))),
            ],
            "`other`",
        ),
        (vec![("id", Arc::new(StringArray::from(vec!["1"])) as ArrayRef)], "`id`"),
    ] {
        let error = table.commit(Change::Append, stream(batch(columns)), None).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
        assert!(error.to_string().contains(named), "{error}");
    }
}

#[tokio::test]
async fn a_table_of_another_kind_is_not_loaded() {
    let ports = ports();
    let tables = Tables::new(ports.clone());
    assert_eq!(tables.load(&name()).await.unwrap_err().kind(), ErrorKind::NotFound);
    let table = table(&ports, &[]).await;
    let entry = ports.catalog.get_table(&name()).await.unwrap();
    let mut input = entry.input.clone();
    assert_eq!(input.parameters["table_type"], "ICEBERG");
    assert_eq!(input.parameters["metadata_location"], table.metadata_location());
    assert_eq!(input.table_type, "EXTERNAL_TABLE");
    input.parameters.remove("table_type");
    ports.catalog.update_table(&input, &entry.version).await.unwrap();
    assert_eq!(tables.load(&name()).await.unwrap_err().kind(), ErrorKind::Invalid);
}

#[tokio::test]
async fn files_are_compressed_and_cut_as_the_properties_ask() {
    use parquet::basic::Compression;
    use parquet::file::reader::{FileReader, SerializedFileReader};
    let table = table(&ports(), &[]).await;
    let properties = [("write.parquet.compression-codec", "Snappy"), ("write.target-file-size-bytes", "1")];
    let table = super::rows::with_properties(&table, &properties).await;
    let two = futures::stream::iter([Ok(rows(&[(1, None, 0)])), Ok(rows(&[(2, None, 0)]))]);
    let two = Box::pin(RecordBatchStreamAdapter::new(rows(&[]).schema(), two));
    assert_eq!(table.commit(Change::Append, two, None).await.unwrap().files_added, 2);
    let files = table.ports().storage.list(&table.ports().keys.table(&name())).await.unwrap();
    let file = files.iter().find(|o| o.url.path().ends_with(".parquet")).unwrap();
    let reader = SerializedFileReader::new(table.ports().storage.get(&file.url).await.unwrap()).unwrap();
    assert_eq!(reader.metadata().row_group(0).column(0).compression(), Compression::SNAPPY);
    for (key, value) in properties {
        let table = super::rows::with_properties(&table, &[(key, "much")]).await;
        let error = table.commit(Change::Append, stream(rows(&[(3, None, 0)])), None).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
        assert!(error.to_string().contains(key) && error.to_string().contains("much"), "{error}");
        super::rows::with_properties(&table, &[(key, value)]).await;
    }
}

#[tokio::test]
async fn files_are_encoded_and_described_as_the_properties_ask() {
    use parquet::file::reader::{FileReader, SerializedFileReader};
    let table = table(&ports(), &[]).await;
    let properties = [
        ("write.parquet.compression-level", "19"),
        ("write.parquet.page-row-limit", "10"),
        ("write.parquet.bloom-filter-enabled.column.carrier", "true"),
        ("write.parquet.bloom-filter-ndv.column.carrier", "100"),
        ("write.parquet.bloom-filter-enabled.column.id", "false"),
        ("write.parquet.bloom-filter-enabled.column.gone", "true"),
        ("write.metadata.metrics.default", "counts"),
        ("write.metadata.metrics.column.carrier", "truncate(2)"),
        ("write.metadata.metrics.column.at", "none"),
    ];
    let properties = properties.map(|(key, value)| (key.to_owned(), value.to_owned()));
    let table = table.alter(&[Alter::SetProperties(properties.into())]).await.unwrap();
    let names: Vec<_> = (0..100).map(|n| format!("carrier {n}")).collect();
    let batch: Vec<_> = names.iter().zip(0..).map(|(name, id)| (id, Some(name.as_str()), 0)).collect();
    append(&table, rows(&batch)).await;
    let table = table.reload().await.unwrap();
    let snapshot = table.metadata().current_snapshot().unwrap();
    let live = table::live::live_files(table.io(), table.metadata(), snapshot).await.unwrap();
    let file = live[0].data();
    assert_eq!(file.value_counts().get(&1), Some(&100));
    assert_eq!(file.lower_bounds().keys().chain(file.upper_bounds().keys()).collect::<Vec<_>>(), [&2, &2]);
    assert_eq!((&file.lower_bounds()[&2], &file.upper_bounds()[&2]), (&Datum::string("ca"), &Datum::string("cb")));
    assert!(!file.value_counts().contains_key(&3) && !file.column_sizes().contains_key(&3));
    let url = url::Url::parse(file.file_path()).unwrap();
    let reader = SerializedFileReader::new(table.ports().storage.get(&url).await.unwrap()).unwrap();
    let columns = reader.metadata().row_group(0).columns();
    assert!(columns[1].bloom_filter_offset().is_some() && columns[0].bloom_filter_offset().is_none());
    assert!(
        columns[0].offset_index_length() > Some(60),
        "ten pages of ten rows: {:?}",
        columns[0].offset_index_length()
    );
    assert_eq!(sql(&table, Read::Current, "SELECT id FROM t WHERE carrier = 'carrier 7'").await, ["7"]);
    assert_eq!(sql(&table, Read::Current, "SELECT count(*) FROM t WHERE carrier = 'carrier 70x'").await, ["0"]);

    for (key, value) in [
        ("write.parquet.compression-codec", "much"),
        ("write.parquet.compression-level", "99"),
        ("write.parquet.page-size-bytes", "-1"),
        ("write.parquet.bloom-filter-fpp.column.carrier", "1.5"),
        ("write.metadata.metrics.default", "some"),
        ("write.metadata.metrics.column.carrier", "truncate(0)"),
    ] {
        let change = Alter::SetProperties([(key.to_owned(), value.to_owned())].into());
        let error = table.alter(&[change]).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
        assert!(error.to_string().contains(key) && error.to_string().contains(value), "{error}");
        let mut properties: std::collections::BTreeMap<_, _> =
            table.metadata().properties().clone().into_iter().collect();
        properties.insert(key.to_owned(), value.to_owned());
        let new = NewTable { columns: super::columns(), properties, ..NewTable::default() };
        let another = TableName::new("nyc", "another").unwrap();
        let error = Tables::new(table.ports().clone()).create_as(&another, &new, None).await.unwrap_err();
        assert!(error.kind() == ErrorKind::Invalid && error.to_string().contains(key), "{error}");
    }
}
