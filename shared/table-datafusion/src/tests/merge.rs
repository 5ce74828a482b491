use proptest::prelude::*;

use super::*;
use shared::ErrorKind;

fn by_id() -> Change {
    Change::Merge { key: vec!["id".into()] }
}

#[tokio::test]
async fn a_merge_replaces_rows_of_the_same_key_and_adds_the_others() {
    let table = table(&ports(), &["day(at)"]).await;
    append(&table, rows(&[(1, Some("a"), 0), (2, Some("b"), 1), (3, Some("c"), 2)])).await;
    let done = table.commit(by_id(), stream(rows(&[(2, Some("B"), 5), (4, Some("D"), 2)])), None).await.unwrap();
    assert_eq!((done.rows_added, done.rows_deleted), (2, 1));
    assert_eq!(
        sql(&table, Read::Current, "SELECT id, carrier, at FROM t ORDER BY id").await,
        ["1 a 1970-01-01T01:00:00", "2 B 1970-01-06T01:00:00", "3 c 1970-01-03T01:00:00", "4 D 1970-01-03T01:00:00"]
    );
    let history = table.reload().await.unwrap().history();
    assert_eq!((history[0].operation.as_str(), history[0].summary["total-records"].as_str()), ("overwrite", "4"));
}

#[tokio::test]
async fn a_merge_that_replaces_nothing_is_an_append() {
    let table = table(&ports(), &[]).await;
    append(&table, rows(&[(1, None, 0)])).await;
    table.commit(by_id(), stream(rows(&[(2, None, 0)])), None).await.unwrap();
    assert_eq!(table.reload().await.unwrap().history()[0].operation, "append");
}

#[tokio::test]
async fn a_key_that_comes_twice_is_named() {
    let table = table(&ports(), &[]).await;
    let key = vec!["carrier".to_owned(), "id".to_owned()];
    let twice = rows(&[(7, None, 0), (8, None, 0), (7, None, 1)]);
    let error = table.commit(Change::Merge { key }, stream(twice), None).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    assert!(error.to_string().contains("`carrier=null`, `id=7`"), "{error}");
    for key in [vec![], vec!["other".to_owned()]] {
        let error = table.commit(Change::Merge { key }, stream(rows(&[(1, None, 0)])), None).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid);
    }
}

/// Rows by key: carrier and id; the value is the day.
type Model = std::collections::BTreeMap<(Option<&'static str>, i64), i64>;

fn batches() -> impl Strategy<Value = Vec<(bool, Model)>> {
    let key = (prop_oneof![Just(None), Just(Some("AA")), Just(Some("UA"))], -3_i64..6);
    let batch = proptest::collection::btree_map(key, -5_i64..5, 0..8);
    proptest::collection::vec((proptest::bool::weighted(0.1), batch), 1..8)
}

async fn merges_like_a_map(partition_by: &[&str], properties: &[(&str, &str)], batches: &[(bool, Model)]) {
    let table = with_properties(table(&ports(), partition_by).await, properties).await;
    let mut model = Model::new();
    for (overwrite, batch) in batches {
        let new: Vec<_> = batch.iter().map(|((carrier, id), day)| (*id, *carrier, *day)).collect();
        let change = if *overwrite {
            model.clear();
            Change::Overwrite
        } else {
            Change::Merge { key: vec!["carrier".into(), "id".into()] }
        };
        let replaced = batch.keys().filter(|key| model.contains_key(*key)).count() as u64;
        model.extend(batch.clone());
        let done = table.commit(change, stream(rows(&new)), None).await.unwrap();
        if !overwrite {
            assert_eq!((done.rows_added, done.rows_deleted), (new.len() as u64, replaced));
        }
    }
    let query = "SELECT coalesce(carrier, '') AS c, id, CAST(at AS date) FROM t ORDER BY carrier NULLS FIRST, id";
    let expected: Vec<_> = model
        .iter()
        .map(|((carrier, id), day)| {
            let date = chrono::DateTime::from_timestamp(day * 86_400, 0).unwrap().date_naive();
            format!("{} {id} {date}", carrier.unwrap_or_default())
        })
        .collect();
    assert_eq!(sql(&table, Read::Current, query).await, expected);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, ..ProptestConfig::default() })]

    #[test]
    fn merging_is_like_inserting_into_a_map(batches in batches()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let on_read = ("write.merge.mode", "merge-on-read");
            merges_like_a_map(&[], &[], &batches).await;
            merges_like_a_map(&["carrier", "bucket(4, id)"], &[], &batches).await;
            merges_like_a_map(&["carrier", "bucket(4, id)"], &[on_read], &batches).await;
            merges_like_a_map(&[], &[on_read, ("format-version", "3")], &batches).await;
        });
    }
}

async fn with_properties(table: Table, properties: &[(&str, &str)]) -> Table {
    let properties = properties.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    table.alter(&[Alter::SetProperties(properties)]).await.unwrap()
}

#[tokio::test]
async fn a_merge_on_read_leaves_data_files_as_they_are() {
    let table = with_properties(table(&ports(), &[]).await, &[("write.merge.mode", "merge-on-read")]).await;
    append(&table, rows(&[(1, Some("a"), 0), (2, Some("b"), 1), (3, Some("c"), 2)])).await;
    let done = table.commit(by_id(), stream(rows(&[(2, Some("B"), 5), (4, Some("D"), 2)])), None).await.unwrap();
    assert_eq!((done.rows_added, done.rows_deleted), (2, 1));
    assert_eq!(sql(&table, Read::Current, "SELECT id, carrier FROM t ORDER BY id").await, ["1 a", "2 B", "3 c", "4 D"]);
    let summary = &table.reload().await.unwrap().history()[0].summary;
    assert_eq!((summary["total-data-files"].as_str(), summary["total-delete-files"].as_str()), ("2", "1"));
}

#[tokio::test]
async fn rows_that_come_during_a_merge_are_replaced_too() {
    for isolation in ["serializable", "snapshot"] {
        let table = table(&ports(), &[]).await;
        let table = with_properties(table, &[("write.merge.isolation-level", isolation)]).await;
        append(&table, rows(&[(1, Some("a"), 0), (9, Some("z"), 0)])).await;
        let meanwhile = table.clone();
        let new = rows(&[(1, Some("A"), 1), (2, Some("B"), 1)]);
        let schema = new.schema();
        let coming = futures::stream::once(async move {
            append(&meanwhile, rows(&[(2, Some("b"), 0), (3, Some("c"), 0)])).await;
            Ok(new)
        });
        let coming = Box::pin(RecordBatchStreamAdapter::new(schema, coming));
        let done = table.commit(by_id(), coming, None).await.unwrap();
        assert_eq!((done.rows_added, done.rows_deleted), (2, 2), "{isolation}");
        let found = sql(&table, Read::Current, "SELECT id, carrier FROM t ORDER BY id").await;
        assert_eq!(found, ["1 A", "2 B", "3 c", "9 z"], "{isolation}");
    }
}

#[tokio::test]
async fn rows_that_a_rollback_brings_back_during_a_merge_are_replaced_too() {
    let table = with_properties(table(&ports(), &[]).await, &[("write.delete.mode", "merge-on-read")]).await;
    append(&table, rows(&[(1, Some("a"), 0), (9, Some("z"), 0)])).await;
    let whole = table.reload().await.unwrap().current_snapshot().unwrap();
    let first = vec![datafusion::prelude::col("id").eq(datafusion::prelude::lit(1_i64))];
    table.commit(Change::OverwriteWhere(first), stream(rows(&[])), None).await.unwrap();
    assert_eq!(ids(&table, Read::Current).await, ["9"]);
    let meanwhile = table.clone();
    let new = rows(&[(1, Some("A"), 1)]);
    let schema = new.schema();
    let coming = futures::stream::once(async move {
        meanwhile.alter(&[Alter::RollbackTo { snapshot: whole, replay: false }]).await.unwrap();
        Ok(new)
    });
    table.commit(by_id(), Box::pin(RecordBatchStreamAdapter::new(schema, coming)), None).await.unwrap();
    assert_eq!(sql(&table, Read::Current, "SELECT id, carrier FROM t ORDER BY id").await, ["1 A", "9 z"]);
}

fn doubles(keys: &[Option<f64>], value: i64) -> RecordBatch {
    let keys: arrow::array::Float64Array = keys.iter().copied().collect();
    let values = Int64Array::from(vec![value; keys.len()]);
    RecordBatch::try_from_iter_with_nullable([
        ("k", Arc::new(keys) as ArrayRef, true),
        ("v", Arc::new(values) as ArrayRef, true),
    ])
    .unwrap()
}

#[tokio::test]
async fn nan_null_and_the_zeros_are_keys_like_others() {
    let ports = ports();
    let columns = [Column::new("k", ColumnType::Double), Column::new("v", ColumnType::BigInt)];
    let table = Tables::new(ports).ensure(&name(), &columns, &[]).await.unwrap();
    for key in [Some(f64::NAN), Some(-0.0), None, Some(1.0)] {
        append(&table, doubles(&[key], 1)).await;
    }
    let other_nan = f64::from_bits(f64::NAN.to_bits() ^ 1);
    let change = || Change::Merge { key: vec!["k".into()] };
    let new = doubles(&[Some(0.0), Some(other_nan), None], 2);
    let done = table.commit(change(), stream(new), None).await.unwrap();
    assert_eq!((done.rows_added, done.rows_deleted), (3, 3));
    assert_eq!(sql(&table, Read::Current, "SELECT v, count(*) FROM t GROUP BY v ORDER BY v").await, ["1 1", "2 3"]);
    let twice = doubles(&[Some(0.0), Some(-0.0)], 3);
    let error = table.commit(change(), stream(twice), None).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
}

#[tokio::test]
async fn the_keys_of_a_merge_take_memory_that_is_shared_with_queries() {
    use datafusion::execution::memory_pool::{GreedyMemoryPool, MemoryPool};
    let ports = ports();
    table(&ports, &[]).await;
    let pool: Arc<dyn MemoryPool> = Arc::new(GreedyMemoryPool::new(64 << 10));
    let table = with_memory(Tables::new(ports.clone()), pool.clone()).load(&name()).await.unwrap();
    let many = |rows: i64| super::rows(&(0..rows).map(|id| (id, None, 0)).collect::<Vec<_>>());
    let error = table.commit(by_id(), stream(many(5000)), None).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Limit, "{error}");
    assert_eq!(pool.reserved(), 0, "what failed holds nothing");
    assert!(ids(&table, Read::Current).await.is_empty());
    table.commit(by_id(), stream(many(500)), None).await.unwrap();
    assert_eq!((ids(&table, Read::Current).await.len(), pool.reserved()), (500, 0));
}
