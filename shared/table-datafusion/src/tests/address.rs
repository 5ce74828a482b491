use arrow::array::Int32Array;
use datafusion::prelude::SessionConfig;

use super::*;

async fn over(table: &Table, config: SessionConfig) -> SessionContext {
    let session = SessionContext::new_with_config(config);
    let root = table.ports().keys.root();
    session.register_object_store(root, table.ports().storage.resolve(root).unwrap().0);
    session.register_table("t", table.reload().await.unwrap().addressed().await.unwrap()).unwrap();
    session
}

async fn ask(session: &SessionContext, query: &str) -> Vec<String> {
    let batches = session.sql(query).await.unwrap().collect().await.unwrap();
    let text = pretty_format_batches(&batches).unwrap().to_string();
    let rows = text.lines().filter(|line| line.starts_with('|')).skip(1);
    rows.map(|row| row.trim_matches('|').split('|').map(str::trim).collect::<Vec<_>>().join(" ")).collect()
}

#[tokio::test]
async fn rows_have_the_file_that_holds_them_and_their_place_there() {
    let table = table(&ports(), &["day(at)"]).await;
    append(&table, rows(&[(1, None, 0), (2, None, 1), (3, Some("a"), 0), (4, None, 0)])).await;
    append(&table, rows(&[(5, None, 0)])).await;
    let session = over(&table, SessionConfig::new()).await;
    let places = ask(&session, "SELECT id, _pos FROM t ORDER BY id").await;
    assert_eq!(places, ["1 0", "2 0", "3 1", "4 2", "5 0"]);
    assert_eq!(ask(&session, "SELECT _pos FROM t WHERE carrier = 'a'").await, ["1"]);
    assert_eq!(ask(&session, "SELECT count(DISTINCT _file) FROM t").await, ["3"]);
    assert_eq!(ask(&session, "SELECT count(*), max(_pos) FROM t WHERE _pos + 0 >= 1").await, ["2 2"]);
    let now = table.reload().await.unwrap();
    let snapshot = now.metadata().current_snapshot().unwrap();
    let live = snapshot::live_files(now.io(), now.metadata(), snapshot).await.unwrap();
    let file = live.iter().map(|f| f.data()).find(|f| f.record_count() == 3).unwrap().file_path();
    assert_eq!(ask(&session, &format!("SELECT id FROM t WHERE _file = '{file}' ORDER BY id")).await, ["1", "3", "4"]);
    let plan = ask(&session, &format!("EXPLAIN SELECT id FROM t WHERE _file = '{file}'")).await.join("\n");
    assert!(plan.contains("files=1 of 3"), "{plan}");
    let all = ask(&session, "SELECT * FROM t WHERE id = 3").await;
    assert_eq!(all, [format!("3 a 1970-01-01T01:00:00 1 {file}")]);
}

#[tokio::test]
async fn places_are_those_of_the_file_whatever_is_pruned_and_split() {
    let ports = ports();
    let table = Tables::new(ports.clone()).ensure(&name(), &columns(), &[]).await.unwrap();
    let writer = foreign::parquet_rows(&(0..10_000).map(|i| (i, None, i / 1000)).collect::<Vec<_>>(), 1000);
    let table = foreign::add_file(&table, "split.parquet", writer).await;
    let mut config = SessionConfig::new().with_target_partitions(4).with_batch_size(300);
    config.options_mut().optimizer.repartition_file_min_size = 1;
    let session = over(&table, config).await;
    assert_eq!(
        ask(&session, "SELECT count(*), sum(CASE WHEN id = _pos THEN 1 ELSE 0 END) FROM t").await,
        ["10000 10000"]
    );
    let late = "SELECT min(_pos), max(_pos), count(*) FROM t WHERE id >= 8500";
    assert_eq!(ask(&session, late).await, ["8500 9999 1500"]);
    let analyzed = ask(&session, &format!("EXPLAIN ANALYZE {late}")).await.join("\n");
    assert!(analyzed.contains("row_groups_pruned_statistics=10 total → 2 matched"), "{analyzed}");
    assert_eq!(ask(&session, "SELECT _pos FROM t WHERE id = 4321").await, ["4321"]);
}

#[tokio::test]
async fn a_table_with_a_column_of_that_name_has_no_addresses() {
    let table = Tables::new(ports()).ensure(&name(), &[Column::new("_pos", ColumnType::Int)], &[]).await.unwrap();
    append(&table, RecordBatch::try_from_iter([("_pos", Arc::new(Int32Array::from(vec![1])) as ArrayRef)]).unwrap())
        .await;
    let error = table.reload().await.unwrap().addressed().await.unwrap_err();
    assert_eq!(error.kind(), shared::ErrorKind::Invalid);
    assert!(error.to_string().contains("found `_pos`"), "{error}");
}
