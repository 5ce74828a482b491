use super::foreign::{commit, data_files, equality_deletes, position_deletes};
use super::*;
use shared::ErrorKind;

async fn changes(table: &Table, after: Option<i64>, to: Option<i64>, key: Option<&str>, query: &str) -> Vec<String> {
    let table = table.reload().await.unwrap();
    let key = key.map(|key| key.split(',').map(str::to_owned).collect());
    let session = session(&table, Read::Current).await;
    session.register_table("c", table.changes(after, to, key).await.unwrap()).unwrap();
    let batches = session.sql(query).await.unwrap().collect().await.unwrap();
    let text = pretty_format_batches(&batches).unwrap().to_string();
    let rows = text.lines().filter(|line| line.starts_with('|')).skip(1);
    rows.map(|row| row.trim_matches('|').split('|').map(str::trim).collect::<Vec<_>>().join(" ")).collect()
}

const ALL: &str = "SELECT _change_ordinal AS o, _change_type, id, carrier FROM c ORDER BY o, id, _change_type, carrier";

#[tokio::test]
async fn rows_that_came_went_and_changed_are_told() {
    let table = table(&ports(), &["day(at)"]).await;
    let one = append(&table, rows(&[(1, Some("a"), 0), (2, Some("b"), 0), (3, Some("c"), 0)])).await.snapshot_id;
    let two = append(&table, rows(&[(4, Some("d"), 1), (4, Some("d"), 1)])).await.snapshot_id;
    let key = vec!["id".to_owned()];
    let merged = rows(&[(2, Some("new"), 0), (5, None, 0)]);
    let three = table.commit(Change::Merge { key }, stream(merged), None).await.unwrap().snapshot_id;
    // Rows 1 and 3 were carried over to another file.
    let third = changes(&table, Some(two), None, None, ALL).await;
    assert_eq!(third, ["0 delete 2 b", "0 insert 2 new", "0 insert 5 "]);
    let keyed = changes(&table, Some(two), Some(three), Some("id"), ALL).await;
    assert_eq!(keyed, ["0 update_postimage 2 new", "0 update_preimage 2 b", "0 insert 5 "]);
    let all = changes(&table, None, None, Some("id"), ALL).await;
    assert_eq!(all[..5], ["0 insert 1 a", "0 insert 2 b", "0 insert 3 c", "1 insert 4 d", "1 insert 4 d"]);
    assert_eq!(all[5..], ["2 update_postimage 2 new", "2 update_preimage 2 b", "2 insert 5 "]);
    assert_eq!(changes(&table, Some(one), Some(two), None, ALL).await, ["0 insert 4 d", "0 insert 4 d"]);
    assert_eq!(changes(&table, Some(three), None, None, ALL).await, Vec::<String>::new());
    let ids = "SELECT DISTINCT _commit_snapshot_id FROM c WHERE id IN (2, 4) ORDER BY _change_ordinal";
    let ids = changes(&table, None, None, None, &ids.replace(" ORDER BY _change_ordinal", "")).await;
    assert!([one, two, three].iter().all(|id| ids.contains(&id.to_string())) && ids.len() == 3, "{ids:?}");

    // The whole table anew: one of the two equal rows stays.
    let anew = rows(&[(4, Some("d"), 1), (1, Some("a"), 0)]);
    table.commit(Change::Overwrite, stream(anew), None).await.unwrap();
    let gone = changes(&table, Some(three), None, None, ALL).await;
    assert_eq!(gone, ["0 delete 2 new", "0 delete 3 c", "0 delete 4 d", "0 delete 5 "]);
    let pruned = "EXPLAIN SELECT id FROM c WHERE at >= TIMESTAMP '1970-01-02T00:00:00'";
    let plan = changes(&table, None, Some(two), None, pruned).await.join("\n");
    assert_eq!(plan.matches(".parquet").count(), 1, "{plan}");
}

#[tokio::test]
async fn rows_deleted_by_place_and_by_value_are_told() {
    let table = table(&ports(), &[]).await;
    append(&table, rows(&[(1, Some("a"), 0), (2, Some("b"), 0), (3, Some("c"), 0)])).await;
    let table = table.reload().await.unwrap();
    let first = table.current_snapshot();
    let files = data_files(&table).await;
    let (file, path) = (files[0].data(), files[0].data().file_path());
    let (places, bytes) = position_deletes(&table, "p.parquet", file, &[(path, 0)]);
    let table = commit(&table, vec![(places, bytes, None)]).await;
    let second = table.current_snapshot();
    let two = Arc::new(Int64Array::from(vec![1, 2])) as ArrayRef;
    let (values, bytes) = equality_deletes(&table, "e.parquet", file, vec![("id", 1, two)]);
    let table = commit(&table, vec![(values, bytes, None)]).await;
    assert_eq!(changes(&table, first, second, None, ALL).await, ["0 delete 1 a"]);
    assert_eq!(changes(&table, second, None, Some("id"), ALL).await, ["0 delete 2 b"]);
    assert_eq!(changes(&table, first, None, None, ALL).await, ["0 delete 1 a", "1 delete 2 b"]);
}

#[tokio::test]
async fn rows_with_maps_lists_and_structs_cancel_out_too() {
    let columns: Vec<_> = [("id", "int"), ("m", "map<string,array<map<string,int>>>"), ("s", "struct<a:array<int>>")]
        .map(|(name, ty)| Column::new(name, ty.parse().unwrap()))
        .into();
    let table = Tables::new(ports()).ensure(&name(), &columns, &[]).await.unwrap();
    let values = "SELECT 1 AS id, map(['k'], [[map(['x'], [1])]]) AS m, named_struct('a', [1, NULL]) AS s \
                  UNION ALL SELECT 2, NULL, NULL UNION ALL SELECT 3, map(['z'], [NULL]), named_struct('a', NULL)";
    let query = async |sql: &str| SessionContext::new().sql(sql).await.unwrap().execute_stream().await.unwrap();
    table.commit(Change::Append, query(values).await, None).await.unwrap();
    let first = table.reload().await.unwrap().current_snapshot();
    let key = vec!["id".to_owned()];
    let merged = "SELECT 2 AS id, map(['new'], [NULL]) AS m";
    table.commit(Change::Merge { key }, query(merged).await, None).await.unwrap();
    let found = "SELECT _change_type, id, m FROM c ORDER BY 1";
    assert_eq!(changes(&table, first, None, None, found).await, ["delete 2 ", "insert 2 {new: }"]);
}

#[tokio::test]
async fn changes_that_can_not_be_told_are_refused() {
    let table = table(&ports(), &[]).await;
    assert_eq!(changes(&table, None, None, None, ALL).await, Vec::<String>::new());
    let one = append(&table, rows(&[(1, None, 0)])).await.snapshot_id;
    let two = append(&table, rows(&[(2, None, 0)])).await.snapshot_id;
    let table = table.reload().await.unwrap();
    let error = async |after, to, key: Option<&str>| {
        let key = key.map(|key| vec![key.to_owned()]);
        table.changes(after, to, key).await.unwrap_err()
    };
    assert_eq!(error(Some(42), None, None).await.kind(), ErrorKind::NotFound);
    assert_eq!(error(Some(two), Some(one), None).await.kind(), ErrorKind::Invalid);
    let unknown = error(None, None, Some("nope")).await;
    assert!(unknown.to_string().contains("found `nope`"), "{unknown}");
}
