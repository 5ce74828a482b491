use datafusion::logical_expr::{Expr, lit};
use datafusion::prelude::col;

use super::*;
use crate::ErrorKind;

async fn overwrite(table: &Table, filters: Vec<Expr>, batch: RecordBatch) -> Committed {
    table.commit(Change::OverwriteWhere(filters), stream(batch), None).await.unwrap()
}

#[tokio::test]
async fn rows_that_the_filter_lets_pass_give_way_to_the_new_ones() {
    let table = table(&ports(), &["day(at)"]).await;
    append(&table, rows(&[(1, Some("a"), 0), (2, None, 0), (3, Some("c"), 1), (4, Some("a"), 2)])).await;
    let done = overwrite(&table, vec![col("id").gt_eq(lit(2_i64))], rows(&[(9, Some("n"), 2)])).await;
    assert_eq!((done.rows_added, done.rows_deleted), (1, 3));
    assert_eq!(ids(&table, Read::Current).await, ["1", "9"]);
    assert_eq!((done.files_added, done.files_removed), (2, 3), "only the file of the first day is written anew");
}

#[tokio::test]
async fn files_whose_rows_all_leave_are_not_read() {
    let table = table(&ports(), &["day(at)"]).await;
    append(&table, rows(&[(1, None, 0), (2, None, 1)])).await;
    let all = table.ports.storage.list(&table.ports.keys.table(&name())).await.unwrap();
    for file in all.iter().filter(|o| o.url.path().ends_with(".parquet")) {
        table.ports.storage.delete(&file.url).await.unwrap();
    }
    let done = overwrite(&table, vec![col("id").gt(lit(1_i64))], rows(&[])).await;
    assert_eq!((done.rows_deleted, done.files_removed), (1, 1));
    assert_eq!(table.reload().await.unwrap().history()[0].operation, "delete");
    // A file that holds nulls where the filter looks can't be told from its bounds: some rows may stay.
    let unread = table.commit(
        Change::OverwriteWhere(vec![col("carrier").is_null().or(col("carrier").gt(lit("a")))]),
        stream(rows(&[])),
        None,
    );
    assert!(unread.await.is_err(), "its rows have to be read");
}

#[tokio::test]
async fn rows_of_which_the_filter_is_unknown_stay() {
    let table = table(&ports(), &[]).await;
    append(&table, rows(&[(1, Some("a"), 0), (2, None, 0), (3, Some("c"), 1)])).await;
    overwrite(&table, vec![col("carrier").not_eq(lit("a"))], rows(&[])).await;
    assert_eq!(ids(&table, Read::Current).await, ["1", "2"]);
    overwrite(&table, vec![], rows(&[(7, None, 0)])).await;
    assert_eq!(ids(&table, Read::Current).await, ["7"]);
}

#[tokio::test]
async fn partitions_that_get_rows_lose_their_old_ones() {
    let table = table(&ports(), &["day(at)"]).await;
    append(&table, rows(&[(1, None, 0), (2, None, 1), (3, None, 2)])).await;
    append(&table, rows(&[(4, None, 1)])).await;
    let new = rows(&[(8, None, 1), (9, None, 5)]);
    let done = table.commit(Change::ReplacePartitions, stream(new), None).await.unwrap();
    assert_eq!((done.rows_added, done.rows_deleted, done.files_removed), (2, 2, 2));
    assert_eq!(ids(&table, Read::Current).await, ["1", "3", "8", "9"]);
    let nothing = table.commit(Change::ReplacePartitions, stream(rows(&[])), None).await.unwrap();
    assert_eq!(nothing.attempts, 0);
    assert_eq!(ids(&table, Read::Current).await, ["1", "3", "8", "9"]);
}

#[tokio::test]
async fn a_filter_on_a_column_that_is_not_there_is_refused() {
    let table = table(&ports(), &[]).await;
    append(&table, rows(&[(1, None, 0)])).await;
    let change = Change::OverwriteWhere(vec![col("other").eq(lit(1))]);
    let error = table.commit(change, stream(rows(&[(2, None, 0)])), None).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
    assert!(error.to_string().contains("other"), "{error}");
    assert_eq!(ids(&table, Read::Current).await, ["1"]);
}
