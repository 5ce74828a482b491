//! Row-level deletes that other engines write. The delete files are made here by the specification: no program that runs here
//! writes equality deletes or deletion vectors.

use arrow::array::{Int32Array, Int64Array};
use datafusion::execution::memory_pool::GreedyMemoryPool;
use datafusion::execution::runtime_env::RuntimeEnvBuilder;
use datafusion::prelude::SessionConfig;
use iceberg::spec::{FormatVersion, NestedField, PrimitiveType, Schema, TableMetadataBuilder, Type};

use super::foreign::{commit, data_files, equality_deletes, position_deletes, vector};
use super::*;

fn longs(values: &[Option<i64>]) -> ArrayRef {
    Arc::new(values.iter().copied().collect::<Int64Array>())
}

fn texts(values: &[Option<&str>]) -> ArrayRef {
    Arc::new(values.iter().copied().collect::<StringArray>())
}

async fn places(table: &Table) -> Vec<String> {
    let session = session(table, Read::Current).await;
    session.deregister_table("t").unwrap();
    session.register_table("t", table.reload().await.unwrap().addressed().await.unwrap()).unwrap();
    let batches = session.sql("SELECT id, _pos FROM t ORDER BY id").await.unwrap().collect().await.unwrap();
    let text = pretty_format_batches(&batches).unwrap().to_string();
    let rows = text.lines().filter(|line| line.starts_with('|')).skip(1);
    rows.map(|row| row.trim_matches('|').split('|').map(str::trim).collect::<Vec<_>>().join("@")).collect()
}

#[tokio::test]
async fn rows_deleted_by_place_are_gone() {
    let table = table(&ports(), &["day(at)"]).await;
    append(&table, rows(&[(1, None, 0), (2, Some("b"), 0), (3, None, 0), (4, None, 1), (5, None, 1)])).await;
    append(&table, rows(&[(6, None, 0), (7, None, 0)])).await;
    let table = table.reload().await.unwrap();
    let files = data_files(&table).await;
    let [first, second, third] = [0, 1, 2].map(|i| files[i].data());
    let (a, b, c) = (first.file_path(), second.file_path(), third.file_path());
    // Deletes hold for files of their own partition that are not newer.
    let (deletes, bytes) = position_deletes(&table, "d1.parquet", first, &[(a, 0), (a, 2), (b, 0), (c, 1)]);
    let (older, older_bytes) = position_deletes(&table, "d2.parquet", first, &[(a, 1), (c, 0)]);
    let before = table.current_snapshot().unwrap();
    let table = commit(&table, vec![(deletes, bytes, None), (older, older_bytes, Some(1))]).await;
    assert_eq!(ids(&table, Read::Current).await, ["4", "5", "6"]);
    assert_eq!(places(&table).await, ["4@0", "5@1", "6@0"]);
    assert_eq!(ids(&table, Read::Snapshot(before)).await.len(), 7);
    assert_eq!(sql(&table, Read::Current, "SELECT count(*), min(id), count(carrier) FROM t").await, ["3 4 0"]);
    assert_eq!(sql(&table, Read::Current, "SELECT count(*) FROM t WHERE id < 4").await, ["0"]);
    assert_eq!(sql(&table, Read::Current, "SELECT count(*) FROM (SELECT * FROM t LIMIT 3)").await, ["3"]);
    let files = "SELECT content, count(*) FROM m GROUP BY 1 ORDER BY 1";
    let session = SessionContext::new();
    session.register_table("m", table.metadata_table(MetadataTable::Files).await.unwrap()).unwrap();
    let batches = session.sql(files).await.unwrap().collect().await.unwrap();
    let text = pretty_format_batches(&batches).unwrap().to_string();
    assert!(text.contains("| 0       | 3        |") && text.contains("| 1       | 2        |"), "{text}");
}

#[tokio::test]
async fn deleted_places_count_from_the_start_of_the_file() {
    let table = table(&ports(), &[]).await;
    let bytes = foreign::parquet_rows(&(0..10_000).map(|i| (i, None, i / 1000)).collect::<Vec<_>>(), 1000);
    let table = foreign::add_file(&table, "big.parquet", bytes).await;
    let files = data_files(&table).await;
    let path = files[0].data().file_path();
    // All of the third row group, one row in the last, every other of the first, and one that is not there.
    let gone = (2000..3000).chain([9999, 20_000]).chain((0..1000).step_by(2));
    let gone: Vec<_> = gone.map(|place| (path, place)).collect();
    let (deletes, bytes) = position_deletes(&table, "d.parquet", files[0].data(), &gone);
    let table = commit(&table, vec![(deletes, bytes, None)]).await;
    let expected = (0..10_000_i64).filter(|i| !(2000..3000).contains(i) && *i != 9999 && (*i >= 1000 || i % 2 == 1));
    let (count, sum) = expected.fold((0, 0), |(count, sum), id| (count + 1, sum + id));
    assert_eq!(sql(&table, Read::Current, "SELECT count(*), sum(id) FROM t").await, [format!("{count} {sum}")]);
    assert_eq!(sql(&table, Read::Current, "SELECT min(id), count(*) FROM t WHERE id >= 9990").await, ["9990 9"]);
    assert_eq!(sql(&table, Read::Current, "SELECT count(*) FROM t WHERE id BETWEEN 1990 AND 3009").await, ["20"]);
    let mut config = SessionConfig::new().with_target_partitions(4).with_batch_size(128);
    config.options_mut().optimizer.repartition_file_min_size = 1;
    config.options_mut().execution.parquet.pushdown_filters = true;
    let session = SessionContext::new_with_config(config);
    let root = table.ports().keys.root();
    session.register_object_store(root, table.ports().storage.resolve(root).unwrap().0);
    session.register_table("t", table.provider(Read::Current).await.unwrap()).unwrap();
    session.register_table("a", table.addressed().await.unwrap()).unwrap();
    for query in ["SELECT count(*), sum(id) FROM t", "SELECT count(*), sum(id) FROM a WHERE id = _pos"] {
        let batches = session.sql(query).await.unwrap().collect().await.unwrap();
        let text = pretty_format_batches(&batches).unwrap().to_string();
        let found: Vec<_> = text.lines().nth(3).unwrap().split_whitespace().collect();
        assert_eq!(found, ["|", &count.to_string(), "|", &sum.to_string(), "|"]);
    }
    let batches = session.sql("SELECT count(*) FROM t WHERE id >= 9990").await.unwrap().collect().await.unwrap();
    assert!(pretty_format_batches(&batches).unwrap().to_string().contains("| 9 "));
}

/// The table in format v3.
async fn upgraded(table: &Table) -> Table {
    let table = table.reload().await.unwrap();
    let builder = table.metadata().as_ref().clone().into_builder(Some(table.metadata_location().to_owned()));
    let built = builder.upgrade_format_version(FormatVersion::V3).and_then(TableMetadataBuilder::build).unwrap();
    let (metadata, location) = (Arc::new(built.metadata), table.next_location());
    table.io().put_metadata(&location, &metadata).await.unwrap();
    table.swap(&metadata, location).await.unwrap()
}

#[tokio::test]
async fn deletion_vectors_take_the_place_of_position_deletes() {
    let table = table(&ports(), &[]).await;
    append(&table, rows(&[(1, None, 0), (2, None, 0), (3, None, 0)])).await;
    append(&table, rows(&[(4, None, 0), (5, None, 0)])).await;
    let table = table.reload().await.unwrap();
    let files = data_files(&table).await;
    let (first, second) = (files[0].data(), files[1].data());
    let named = [(first.file_path(), 0), (second.file_path(), 1)];
    let (deletes, bytes) = position_deletes(&table, "d.parquet", first, &named);
    let table = commit(&table, vec![(deletes, bytes, None)]).await;
    assert_eq!(ids(&table, Read::Current).await, ["2", "3", "4"]);
    let table = upgraded(&table).await;
    // A vector holds what was deleted before, or it is meant to be back.
    let (deletes, bytes) = vector(&table, "v.puffin", first, &[1]);
    let table = commit(&table, vec![(deletes, bytes, None)]).await;
    assert_eq!(ids(&table, Read::Current).await, ["1", "3", "4"]);
    assert_eq!(places(&table).await, ["1@0", "3@2", "4@0"]);
    append(&table, rows(&[(6, None, 0)])).await;
    assert_eq!(ids(&table, Read::Current).await, ["1", "3", "4", "6"]);
}

#[tokio::test]
async fn rows_deleted_by_value_are_gone_when_they_are_older() {
    let table = table(&ports(), &["day(at)"]).await;
    append(&table, rows(&[(1, Some("a"), 0), (2, None, 0), (3, Some("c"), 0), (3, Some("x"), 1)])).await;
    let table = table.reload().await.unwrap();
    let files = data_files(&table).await;
    let day = files[0].data();
    let ids_of = |values: &[Option<i64>]| vec![("id", 1, longs(values))];
    let (by_id, by_id_bytes) = equality_deletes(&table, "e1.parquet", day, ids_of(&[Some(3), Some(7)]));
    let null_or_a = vec![("carrier", 2, texts(&[None, Some("no")])), ("id", 1, longs(&[Some(2), Some(1)]))];
    let (by_both, by_both_bytes) = equality_deletes(&table, "e2.parquet", day, null_or_a);
    let (new, new_bytes) = position_deletes(&table, "d.parquet", day, &[(day.file_path(), 0)]);
    let deletes = vec![(by_id, by_id_bytes, None), (by_both, by_both_bytes, None)];
    let table = commit(&table, deletes).await;
    // Row 3 of the other day stays, row 2 went with its null.
    assert_eq!(ids(&table, Read::Current).await, ["1", "3"]);
    assert_eq!(sql(&table, Read::Current, "SELECT carrier FROM t WHERE id = 3").await, ["x"]);
    assert_eq!(sql(&table, Read::Current, "SELECT count(*), count(carrier) FROM t").await, ["2 2"]);
    assert_eq!(places(&table).await, ["1@0", "3@0"]);
    // The same key comes again and is newer than the delete.
    append(&table, rows(&[(3, Some("new"), 0)])).await;
    assert_eq!(sql(&table, Read::Current, "SELECT carrier FROM t WHERE id = 3 ORDER BY 1").await, ["new", "x"]);
    let table = commit(&table, vec![(new, new_bytes, None)]).await;
    assert_eq!(ids(&table, Read::Current).await, ["3", "3"]);
    let plan = sql(&table, Read::Current, "EXPLAIN SELECT carrier FROM t WHERE id = 3").await.join("\n");
    assert!(plan.contains("EqualityDeletes: files=1") && plan.contains("predicate=id@"), "{plan}");
    // A change by key here reads the table without the deleted rows, and does not bring them back.
    let key = vec!["id".to_owned()];
    table.commit(Change::Merge { key }, stream(rows(&[(9, None, 0), (3, Some("last"), 0)])), None).await.unwrap();
    assert_eq!(sql(&table, Read::Current, "SELECT id, carrier FROM t ORDER BY id").await, ["3 last", "9 "]);
}

#[tokio::test]
async fn deletes_hold_by_columns_that_were_widened_renamed_or_dropped() {
    let ports = ports();
    let columns = [Column::new("a", ColumnType::Int), Column::new("b", ColumnType::String)];
    let table = Tables::new(ports.clone()).ensure(&name(), &columns, &[]).await.unwrap();
    let values = |a: &[i32], b: &[&str]| {
        RecordBatch::try_from_iter([
            ("a", Arc::new(Int32Array::from(a.to_vec())) as ArrayRef),
            ("b", texts(&b.iter().map(|b| Some(*b)).collect::<Vec<_>>())),
        ])
    };
    append(&table, values(&[1, 2, 3, 4], &["x", "y", "x", "z"]).unwrap()).await;
    let table = table.reload().await.unwrap();
    let files = data_files(&table).await;
    let like = files[0].data();
    let (by_a, by_a_bytes) =
        equality_deletes(&table, "a.parquet", like, vec![("a", 1, Arc::new(Int32Array::from(vec![2])))]);
    let (by_b, by_b_bytes) = equality_deletes(&table, "b.parquet", like, vec![("b", 2, texts(&[Some("x")]))]);
    let table = commit(&table, vec![(by_a, by_a_bytes, None), (by_b, by_b_bytes, None)]).await;
    assert_eq!(sql(&table, Read::Current, "SELECT a FROM t").await, ["4"]);
    let schema = Schema::builder().with_fields([
        Arc::new(NestedField::optional(1, "key", Type::Primitive(PrimitiveType::Long))),
        Arc::new(NestedField::optional(3, "b", Type::Primitive(PrimitiveType::Long))),
    ]);
    let builder = table.metadata().as_ref().clone().into_builder(Some(table.metadata_location().to_owned()));
    let built = builder.add_current_schema(schema.build().unwrap()).and_then(TableMetadataBuilder::build).unwrap();
    let (metadata, location) = (Arc::new(built.metadata), table.next_location());
    table.io().put_metadata(&location, &metadata).await.unwrap();
    let table = table.swap(&metadata, location).await.unwrap();
    assert_eq!(sql(&table, Read::Current, "SELECT * FROM t").await, ["4 "]);
    assert_eq!(sql(&table, Read::Current, "SELECT b FROM t WHERE key > 0").await, [""]);
    assert_eq!(sql(&table, Read::Current, "SELECT count(*) FROM t").await, ["1"]);
}

#[tokio::test]
async fn deletes_that_can_not_be_read_are_named() {
    let table = table(&ports(), &[]).await;
    append(&table, rows(&[(1, None, 0), (2, None, 0)])).await;
    let table = table.reload().await.unwrap();
    let files = data_files(&table).await;
    let path = files[0].data().file_path();
    let (deletes, bytes) = position_deletes(&table, "d.parquet", files[0].data(), &[(path, 0)]);
    let gone = deletes.file_path().to_owned();
    let table = commit(&table, vec![(deletes, bytes, None)]).await;
    table.ports().storage.delete(&gone.parse().unwrap()).await.unwrap();
    let frame = session(&table, Read::Current).await.sql("SELECT id FROM t").await.unwrap();
    let error = Error::from(frame.collect().await.unwrap_err());
    assert!(error.to_string().contains("d.parquet"), "{error}");
}

#[tokio::test]
async fn deletes_take_no_more_memory_than_there_is() {
    let table = table(&ports(), &[]).await;
    append(&table, rows(&[(1, None, 0), (2, None, 0)])).await;
    let table = table.reload().await.unwrap();
    let files = data_files(&table).await;
    let many: Vec<_> = (0..10_000).map(Some).collect();
    let (deletes, bytes) = equality_deletes(&table, "e.parquet", files[0].data(), vec![("id", 1, longs(&many))]);
    let table = commit(&table, vec![(deletes, bytes, None)]).await;
    for (memory, expected) in [(64 << 10, Some(shared::ErrorKind::Limit)), (64 << 20, None)] {
        let runtime = RuntimeEnvBuilder::new().with_memory_pool(Arc::new(GreedyMemoryPool::new(memory)));
        let session = SessionContext::new_with_config_rt(SessionConfig::new(), Arc::new(runtime.build().unwrap()));
        let root = table.ports().keys.root();
        session.register_object_store(root, table.ports().storage.resolve(root).unwrap().0);
        session.register_table("t", table.provider(Read::Current).await.unwrap()).unwrap();
        let answer = session.sql("SELECT id FROM t").await.unwrap().collect().await;
        assert_eq!(answer.map_err(|e| Error::from(e).kind()).err(), expected);
    }
}

#[tokio::test]
async fn a_delete_by_value_means_both_zeros_and_every_nan() {
    let doubles = |values: &[f64]| Arc::new(arrow::array::Float64Array::from(values.to_vec())) as ArrayRef;
    let columns = [Column::new("x", ColumnType::Double)];
    let table = Tables::new(ports()).ensure(&name(), &columns, &[]).await.unwrap();
    let values = doubles(&[0.0, -0.0, f64::NAN, -f64::NAN, 1.0]);
    append(&table, RecordBatch::try_from_iter_with_nullable([("x", values, true)]).unwrap()).await;
    let table = table.reload().await.unwrap();
    let files = data_files(&table).await;
    let gone = vec![("x", 1, doubles(&[-0.0, f64::NAN]))];
    let (deletes, bytes) = equality_deletes(&table, "e.parquet", files[0].data(), gone);
    let table = commit(&table, vec![(deletes, bytes, None)]).await;
    assert_eq!(sql(&table, Read::Current, "SELECT x FROM t").await, ["1.0"]);
}
