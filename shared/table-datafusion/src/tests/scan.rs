use super::*;

#[tokio::test]
async fn filters_prune_files() {
    let table = table(&ports(), &["day(at)"]).await;
    append(&table, rows(&[(1, None, 0), (2, None, 1), (3, None, 2)])).await;
    let plan = sql(&table, Read::Current, "EXPLAIN SELECT id FROM t WHERE at >= TIMESTAMP '1970-01-03T00:00:00'").await;
    assert_eq!(plan.join("\n").matches(".parquet").count(), 1, "{plan:?}");
    assert_eq!(sql(&table, Read::Current, "SELECT id FROM t WHERE at >= TIMESTAMP '1970-01-03T00:00:00'").await, ["3"]);
    let none = sql(&table, Read::Current, "SELECT id FROM t WHERE at > TIMESTAMP '2000-01-01T00:00:00'").await;
    assert_eq!(none, Vec::<String>::new());
}

#[tokio::test]
async fn counting_reads_no_file() {
    let table = table(&ports(), &[]).await;
    append(&table, rows(&[(1, None, 0), (2, None, 1), (3, None, 2)])).await;
    let plan = sql(&table, Read::Current, "EXPLAIN SELECT count(*) FROM t").await.join("\n");
    assert!(!plan.contains(".parquet"), "{plan}");
    assert_eq!(sql(&table, Read::Current, "SELECT count(*) FROM t").await, ["3"]);
}

#[tokio::test]
async fn explain_tells_how_many_files_are_read() {
    let table = table(&ports(), &["day(at)"]).await;
    append(&table, rows(&[(1, None, 0), (2, None, 1), (3, None, 2)])).await;
    for (filter, files) in [("id > 1", "files=2 of 3"), ("id > 0", "files=3 of 3"), ("id IN (1, 3)", "files=2 of 3")] {
        let plan = sql(&table, Read::Current, &format!("EXPLAIN SELECT id FROM t WHERE {filter}")).await.join("\n");
        assert!(plan.contains(files), "{plan}");
    }
    let limited = sql(&table, Read::Current, "EXPLAIN SELECT id FROM t LIMIT 1").await.join("\n");
    assert!(limited.contains("files=1 of 3"), "{limited}");
    assert_eq!(sql(&table, Read::Current, "SELECT id FROM t ORDER BY id DESC LIMIT 1").await, ["3"]);
}

#[tokio::test]
async fn what_was_added_is_read_exactly() {
    let table = table(&ports(), &["day(at)"]).await;
    let one = append(&table, rows(&[(1, None, 0)])).await.snapshot_id;
    let two = append(&table, rows(&[(2, None, 0), (3, None, 1)])).await.snapshot_id;
    let empty = table.commit(Change::Append, stream(rows(&[])), Some(token(None, "1"))).await.unwrap().snapshot_id;
    let three = append(&table, rows(&[(4, None, 0)])).await.snapshot_id;
    for (after, to, expected) in [
        (None, one, vec!["1"]),
        (None, three, vec!["1", "2", "3", "4"]),
        (Some(one), two, vec!["2", "3"]),
        (Some(two), empty, vec![]),
        (Some(one), three, vec!["2", "3", "4"]),
        (Some(three), three, vec![]),
    ] {
        assert_eq!(ids(&table, Read::Added { after, to }).await, expected);
    }
    let table = table.reload().await.unwrap();
    let error = async |read| table.provider(read).await.unwrap_err().kind();
    assert_eq!(error(Read::Added { after: Some(three), to: one }).await, shared::ErrorKind::Invalid);
    assert_eq!(error(Read::Added { after: None, to: 42 }).await, shared::ErrorKind::NotFound);
    assert_eq!(error(Read::Snapshot(42)).await, shared::ErrorKind::NotFound);
    let key = vec!["id".to_owned()];
    table.commit(Change::Merge { key }, stream(rows(&[(4, None, 9)])), None).await.unwrap();
    let table = table.reload().await.unwrap();
    let to = table.current_snapshot().unwrap();
    let removed = table.provider(Read::Added { after: Some(three), to }).await.unwrap_err();
    assert_eq!(removed.kind(), shared::ErrorKind::Invalid, "{removed}");
    assert_eq!(ids(&table, Read::Added { after: None, to: three }).await, ["1", "2", "3", "4"]);
}

#[tokio::test]
async fn many_commits_keep_few_manifests_and_all_rows() {
    let table = table(&ports(), &[]).await;
    let mut last = 0;
    for i in 0..230 {
        last = append(&table, rows(&[(i, None, i)])).await.snapshot_id;
    }
    let table = table.reload().await.unwrap();
    let list =
        table.io().manifest_list(table.metadata().current_snapshot().unwrap(), table.metadata().format_version()).await;
    assert!(list.unwrap().len() <= 101);
    assert_eq!(sql(&table, Read::Current, "SELECT count(*), sum(id) FROM t").await, ["230 26335"]);
    let before = table.history()[150].id;
    assert_eq!(sql(&table, Read::Added { after: Some(before), to: last }, "SELECT count(*) FROM t").await, ["150"]);
}

#[tokio::test]
async fn values_that_bounds_can_not_hold_are_still_found() {
    use arrow::array::Float64Array;
    let ports = ports();
    let columns = [Column::new("x", ColumnType::Double), Column::new("s", ColumnType::String)];
    let table = Tables::new(ports).ensure(&name(), &columns, &[]).await.unwrap();
    let long = "é".repeat(500);
    let batch = RecordBatch::try_from_iter(vec![
        ("x", Arc::new(Float64Array::from(vec![f64::NAN, 1.0])) as ArrayRef),
        ("s", Arc::new(StringArray::from(vec![Some(long.as_str()), None]))),
    ])
    .unwrap();
    append(&table, batch).await;
    let table = table.reload().await.unwrap();
    let files =
        snapshot::live_files(table.io(), table.metadata(), table.metadata().current_snapshot().unwrap()).await.unwrap();
    // SQL orders NaN above all numbers; Iceberg's bounds leave it out.
    assert_eq!(prune::bounds(files[0].data(), 1, &arrow::datatypes::DataType::Float64), None);
    assert_eq!(sql(&table, Read::Current, &format!("SELECT count(*) FROM t WHERE s = '{long}'")).await, ["1"]);
    assert_eq!(sql(&table, Read::Current, &format!("SELECT count(*) FROM t WHERE s > '{long}'")).await, ["0"]);
    assert_eq!(sql(&table, Read::Current, "SELECT max(s) = repeat('é', 500) FROM t").await, ["true"]);
}

#[tokio::test]
async fn manifests_that_hold_no_partition_of_the_filter_are_not_read() {
    let ports = ports();
    let table = table(&ports, &["day(at)"]).await;
    for day in 0..4 {
        append(&table, rows(&[(day, None, day), (day + 10, None, day)])).await;
    }
    // The manifest of the first day is gone; whoever has to read it fails.
    let table = Tables::new(ports.clone()).load(&name()).await.unwrap();
    let list =
        table.io().manifest_list(table.metadata().current_snapshot().unwrap(), table.metadata().format_version()).await;
    let list = list.unwrap();
    let first = list.iter().min_by_key(|manifest| manifest.sequence_number).unwrap();
    ports.storage.delete(&first.manifest_path.parse().unwrap()).await.unwrap();
    let session = session(&table, Read::Current).await;
    let later = "SELECT id FROM t WHERE at >= TIMESTAMP '1970-01-03T00:00:00' ORDER BY id";
    let batches = session.sql(later).await.unwrap().collect().await.unwrap();
    assert_eq!(batches.iter().map(RecordBatch::num_rows).sum::<usize>(), 4);
    let explained = session.sql(&format!("EXPLAIN {later}")).await.unwrap().collect().await.unwrap();
    let explained = pretty_format_batches(&explained).unwrap().to_string();
    assert!(explained.contains("files=2 of 4"), "{explained}");
    let all = session.sql("SELECT id FROM t").await.unwrap().collect().await.unwrap_err();
    assert!(all.to_string().contains("-m0.avro") || all.to_string().contains(&first.manifest_path), "{all}");
}
