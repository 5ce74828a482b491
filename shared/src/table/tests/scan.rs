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
