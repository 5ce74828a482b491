use datafusion::common::ScalarValue;
use datafusion::logical_expr::{Expr, lit};
use datafusion::prelude::col;

use super::rows::{TestChange, with_properties};
use super::version::upgraded;
use super::*;
use shared::ErrorKind;

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
    let all = table.ports().storage.list(&table.ports().keys.table(&name())).await.unwrap();
    for file in all.iter().filter(|o| o.url.path().ends_with(".parquet")) {
        table.ports().storage.delete(&file.url).await.unwrap();
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

#[tokio::test]
async fn rows_that_were_deleted_before_do_not_count_as_deleted_again() {
    for version in ["2", "3"] {
        let all_of_a_day = || col("at").lt(lit(ScalarValue::TimestampMicrosecond(Some(DAY), None)));
        let changes: [(&str, Change, u64); 4] = [
            ("overwrite", Change::Overwrite, 4),
            ("everywhere", Change::OverwriteWhere(vec![]), 4),
            ("of the first day", Change::OverwriteWhere(vec![all_of_a_day()]), 2),
            ("partitions", Change::ReplacePartitions, 2),
        ];
        for (what, change, deleted) in changes {
            let table = table(&ports(), &["day(at)"]).await;
            let first = [(1, Some("a"), 0), (2, Some("b"), 0), (3, Some("c"), 0), (4, Some("d"), 0)];
            append(&table, rows(&first)).await;
            append(&table, rows(&[(5, None, 1), (6, None, 1)])).await;
            let properties = [("write.delete.mode", "merge-on-read"), ("write.delete.isolation-level", "snapshot")];
            let table = with_properties(&table, &properties).await;
            let table = if version == "3" { upgraded(&table).await } else { table };
            for id in [1, 2] {
                let deleted = table.change_rows(&TestChange::delete(&format!("id = {id}")), None).await.unwrap();
                assert_eq!((deleted.rows_deleted, deleted.files_removed), (1, 0), "by delete files");
            }
            let new = if change == Change::OverwriteWhere(vec![]) { rows(&[]) } else { rows(&[(9, None, 0)]) };
            let done = table.commit(change, stream(new), None).await.unwrap();
            assert_eq!(done.rows_deleted, deleted, "v{version}: {what}");
        }
    }
}

#[tokio::test]
async fn files_of_an_earlier_partitioning_stay_where_they_can_not_hold_rows_that_are_replaced() {
    let table = table(&ports(), &["month(at)"]).await;
    append(&table, rows(&[(1, None, 0), (2, None, 3)])).await;
    append(&table, rows(&[(3, None, 40)])).await;
    let days = vec!["day(at)".parse().unwrap()];
    let table = table.alter(&[Alter::ReplacePartitionFields(days)]).await.unwrap();
    append(&table, rows(&[(4, None, 5), (5, None, 41)])).await;
    // The first file holds days 0 to 3 of its month, the second day 40 alone.
    let replace = |days: &'static [i64]| {
        let new: Vec<_> = days.iter().map(|day| (100 + day, None, *day)).collect();
        table.commit(Change::ReplacePartitions, stream(rows(&new)), None)
    };
    let done = replace(&[5, 41, 70]).await.unwrap();
    assert_eq!((done.rows_added, done.rows_deleted), (3, 2));
    assert_eq!(ids(&table, Read::Current).await, ["1", "2", "3", "105", "141", "170"]);
    for days in [&[5, 2][..], &[40]] {
        let error = replace(days).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid, "{days:?}");
        assert!(error.to_string().contains("rewrite the table first"), "{error}");
    }
    assert_eq!(ids(&table, Read::Current).await, ["1", "2", "3", "105", "141", "170"]);
}

#[tokio::test]
async fn values_of_an_earlier_partitioning_and_nulls_tell_files_apart() {
    let table = table(&ports(), &["carrier"]).await;
    append(&table, rows(&[(1, Some("a"), 0), (2, Some("b"), 0), (3, None, 0)])).await;
    let fields = vec!["carrier".parse().unwrap(), "bucket(4, id)".parse().unwrap()];
    let table = table.alter(&[Alter::ReplacePartitionFields(fields)]).await.unwrap();
    let replace = |carrier| table.commit(Change::ReplacePartitions, stream(rows(&[(9, carrier, 1)])), None);
    replace(Some("c")).await.unwrap();
    for carrier in [Some("a"), None] {
        assert_eq!(replace(carrier).await.unwrap_err().kind(), ErrorKind::Invalid, "{carrier:?}");
    }
    assert_eq!(ids(&table, Read::Current).await, ["1", "2", "3", "9"]);
}
