//! Statements that write, on a deployed lakehouse: tables in Glue and S3, which pyiceberg reads and changes in between.

use serde_json::json;

use super::Emulator;
use super::readers::{compare, write_with_pyiceberg};
use crate::lake::{Lake, as_i64};

const LAKEHOUSE: &str = "
version: 1
database: statements
";

#[tokio::test(flavor = "multi_thread")]
async fn statements_change_tables_in_glue_beside_another_engine() {
    let emulator = Emulator::ministack();
    let stack = emulator.deploy("tarn-statements", LAKEHOUSE, &["TickState=DISABLED"]).await;
    let lake = Lake::deployed(LAKEHOUSE, stack.api());
    lake.sql("CREATE DATABASE IF NOT EXISTS statements").await;
    lake.sql("CREATE TABLE t (id bigint, day date, note string, amount decimal(12,2)) TBLPROPERTIES ('table_type' = 'ICEBERG')").await;
    let modes = "'write.delete.mode' = 'merge-on-read', 'write.update.mode' = 'merge-on-read', 'write.merge.mode' = 'merge-on-read'";
    let merge_on_read = format!("ALTER TABLE t SET TBLPROPERTIES ({modes})");
    // (statement, rows that the table then has)
    let before = [
        (
            "INSERT INTO t SELECT value, DATE '2024-01-01' + CAST(value AS INT), 'n' || value, value * 1.5 FROM generate_series(1, 90)",
            90,
        ),
        ("DELETE FROM t WHERE id % 10 = 0", 81),
        ("UPDATE t SET note = 'changed' WHERE id < 20", 81),
        (
            "MERGE INTO t USING (VALUES (1, 'gone'), (2, 'kept'), (100, 'new')) AS s(id, note) ON t.id = s.id WHEN MATCHED AND s.note = 'gone' THEN DELETE WHEN MATCHED THEN UPDATE SET note = s.note WHEN NOT MATCHED THEN INSERT (id, note) VALUES (s.id, s.note)",
            81,
        ),
        ("ALTER TABLE t ADD COLUMNS (extra string)", 81),
        ("ALTER TABLE t RENAME COLUMN note TO words", 81),
    ];
    for (sql, rows) in before {
        lake.sql(sql).await;
        assert_eq!(compare(emulator, &lake, "statements.t", "id").await.len(), rows, "{sql}");
    }
    let version =
        as_i64(&lake.sql("SELECT snapshot_id FROM \"t$snapshots\" ORDER BY committed_at DESC LIMIT 1").await[0][0]);
    assert_eq!(write_with_pyiceberg(emulator, &["delete", "statements.t", "id == 2 or id > 80"]), json!(70));
    lake.sql(&merge_on_read).await;
    let after = [
        ("DELETE FROM t WHERE id % 10 = 5", 62),
        ("UPDATE t SET extra = 'there' WHERE id BETWEEN 30 AND 60", 62),
        ("OPTIMIZE t REWRITE DATA USING BIN_PACK", 62),
    ];
    for (sql, rows) in after {
        lake.sql(sql).await;
        assert_eq!(compare(emulator, &lake, "statements.t", "id").await.len(), rows, "{sql}");
    }
    // That snapshot has the column's name of then.
    let then = lake.sql(&format!("SELECT count(*), count(note) FROM t FOR VERSION AS OF {version}")).await;
    assert_eq!(as_i64(&then[0][0]), 81);
    lake.sql("DROP TABLE t").await;
    assert_eq!(lake.query("SELECT * FROM t").await.0, 404);
}
