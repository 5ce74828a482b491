//! The grammar of statements that write.

use super::*;
use shared::ErrorKind;
use shared::model::ColumnType;
use shared::model::Transform;
use table::{Alter, SortField};
use table_datafusion::Arrangement;

fn written(sql: &str) -> Writing {
    match parse(sql) {
        Ok(Statement::Writing(writing)) => *writing,
        Ok(other) => panic!("{sql}: {other:?}"),
        Err(error) => panic!("{sql}: {error}"),
    }
}

fn refused(sql: &str) -> Error {
    match parse(sql) {
        Err(error) => error,
        Ok(parsed) => panic!("{sql}: {parsed:?}"),
    }
}

fn created(sql: &str) -> CreateTable {
    match written(sql) {
        Writing::CreateTable(made) => made,
        other => panic!("{sql}: {other:?}"),
    }
}

fn altered(sql: &str) -> Vec<Alteration> {
    match written(sql) {
        Writing::Alter { alterations, .. } => alterations,
        other => panic!("{sql}: {other:?}"),
    }
}

#[test]
fn a_table_is_created_in_athenas_spelling() {
    let made = created(
        "CREATE TABLE IF NOT EXISTS nyc.`Flights` (id bigint NOT NULL COMMENT 'the number', tags array<struct<a: int, b:array<string>>>, \
         at timestamp with time zone, ts timestamp, price decimal(10, 2), name varchar(20))\n\
         PARTITIONED BY (day(ts), bucket(16, id), truncate(4, name), name) COMMENT 'all' LOCATION 's3://b/t/' \
         TBLPROPERTIES ('table_type'='ICEBERG', 'write_compression'='zstd', 'vacuum_min_snapshots_to_keep'=3);",
    );
    assert_eq!(made.table.resolve("x").unwrap().to_string(), "nyc.flights");
    let columns: Vec<_> = made.columns.iter().map(|c| format!("{} {} {}", c.name, c.ty, c.required)).collect();
    assert_eq!(
        columns,
        [
            "id bigint true",
            "tags array<struct<a:int,b:array<string>>> false",
            "at timestamptz false",
            "ts timestamp false",
            "price decimal(10,2) false",
            "name string false"
        ]
    );
    let fields: Vec<_> = made.partition_by.iter().map(ToString::to_string).collect();
    assert_eq!(fields, ["day(ts)", "bucket(16, id)", "truncate(4, name)", "name"]);
    assert_eq!(made.columns[0].comment.as_deref(), Some("the number"));
    assert_eq!((made.comment.as_deref(), made.location.as_deref()), (Some("all"), Some("s3://b/t/")));
    assert_eq!(made.properties["vacuum_min_snapshots_to_keep"], "3");
}

#[test]
fn a_table_is_created_from_a_query_with_trinos_options() {
    let made = created(
        "-- /* {\"app\": \"dbt\"} */\nCREATE TABLE t WITH (table_type = 'ICEBERG', is_external = false, \
         partitioning = ARRAY['month(ts)', 'bucket(id, 8)'], location = 's3://b/t') AS SELECT 1 AS a WITH NO DATA",
    );
    let fields: Vec<_> = made.partition_by.iter().map(ToString::to_string).collect();
    assert_eq!(fields, ["month(ts)", "bucket(8, id)"]);
    assert_eq!(made.query.unwrap().to_string(), "SELECT 1 AS a");
    assert!(!made.with_data);
}

#[test]
fn rows_are_inserted_by_query_or_values_into_all_or_some_columns() {
    for (sql, columns, into) in [
        ("INSERT INTO t VALUES (1, 'a')", 0, Into::Append),
        ("INSERT INTO TABLE db.t (a, b) SELECT 1, 2", 2, Into::Append),
        ("INSERT INTO t (SELECT 1)", 0, Into::Append),
        ("INSERT INTO t WITH x AS (SELECT 1) SELECT * FROM x", 0, Into::Append),
        ("INSERT OVERWRITE TABLE t SELECT 1", 0, Into::Overwrite),
        ("INSERT OVERWRITE t (a) VALUES (1)", 1, Into::Overwrite),
    ] {
        match written(sql) {
            Writing::Insert(insert) => assert_eq!((insert.columns.len(), insert.into), (columns, into), "{sql}"),
            other => panic!("{sql}: {other:?}"),
        }
    }
    match written("INSERT OVERWRITE t PARTITION (day = DATE '2013-01-01') SELECT a FROM s") {
        Writing::Insert(Insert { fixed, into: Into::Replace(conditions), .. }) => {
            assert_eq!(fixed[0].0, "day");
            assert_eq!(conditions[0].to_string(), "\"day\" = (DATE '2013-01-01')");
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_merge_has_its_clauses_in_order() {
    let Writing::Merge(merge) = written(
        "MERGE INTO nyc.accounts t USING (SELECT * FROM updates) AS s ON t.id = s.id \
         WHEN MATCHED AND s.gone THEN DELETE \
         WHEN MATCHED THEN UPDATE SET total = t.total + s.total, t.name = s.name \
         WHEN NOT MATCHED AND s.total > 0 THEN INSERT (id, total) VALUES (s.id, s.total) \
         WHEN NOT MATCHED BY SOURCE AND t.total = 0 THEN DELETE WHEN NOT MATCHED THEN INSERT * \
         WHEN MATCHED THEN UPDATE SET *",
    ) else {
        panic!("expected a merge")
    };
    let whens: Vec<_> = merge.arms.iter().map(|arm| arm.when).collect();
    assert_eq!(whens, [Match::Both, Match::Both, Match::Source, Match::Target, Match::Source, Match::Both]);
    assert_eq!(merge.alias.as_deref(), Some("t"));
    assert!(matches!(&merge.arms[1].action, Action::Update(set) if set[1].0 == "name"));
    assert!(matches!(&merge.arms[5].action, Action::UpdateAll));
}

#[test]
fn rows_are_updated_and_deleted() {
    let Writing::Update(update) = written("UPDATE t AS x SET x.a = 1, b = (SELECT max(b) FROM s) WHERE c IN (1, 2)")
    else {
        panic!("expected an update")
    };
    assert_eq!((update.set.len(), update.alias.as_deref()), (2, Some("x")));
    assert!(matches!(written("DELETE FROM t"), Writing::Delete(Delete { condition: None, alias: None, .. })));
    assert!(matches!(written("DELETE FROM t WHERE a = 1"), Writing::Delete(Delete { condition: Some(_), .. })));
    assert!(matches!(written("TRUNCATE TABLE t"), Writing::Delete(Delete { condition: None, .. })));
}

#[test]
fn tables_are_altered_in_athenas_and_sparks_spelling() {
    let spelled = [
        ("ADD COLUMNS (a int, b string COMMENT 'x')", 2),
        ("ADD COLUMN s.f bigint AFTER e", 1),
        ("DROP COLUMN a", 1),
        ("DROP a", 1),
        ("RENAME COLUMN a TO b", 1),
        ("CHANGE COLUMN a b bigint COMMENT 'x' AFTER c", 4),
        ("CHANGE a a bigint", 1),
        ("ALTER COLUMN a TYPE double", 1),
        ("ALTER COLUMN a DROP NOT NULL", 1),
        ("ALTER COLUMN a FIRST", 1),
        ("SET TBLPROPERTIES ('a'='b')", 1),
        ("UNSET TBLPROPERTIES ('a', 'b')", 1),
        ("ADD PARTITION FIELD bucket(16, id)", 1),
        ("DROP PARTITION FIELD days(ts)", 1),
        ("REPLACE PARTITION FIELD day(ts) WITH hour(ts)", 2),
        ("WRITE ORDERED BY a DESC NULLS LAST, b", 1),
        ("WRITE UNORDERED", 1),
        ("CREATE TAG monthly AS OF VERSION 12 RETAIN 30 DAYS", 1),
        ("CREATE OR REPLACE BRANCH audit", 1),
        ("DROP BRANCH IF EXISTS audit", 1),
        ("EXECUTE rollback_to_snapshot(12)", 1),
        ("EXECUTE rollback_to_snapshot(12, replay => true)", 1),
        ("EXECUTE rollback_to_timestamp(TIMESTAMP '2020-01-01')", 1),
    ];
    for (sql, count) in spelled {
        assert_eq!(altered(&format!("ALTER TABLE db.t {sql}")).len(), count, "{sql}");
    }
    let widen = Alter::WidenColumn { name: "b".into(), ty: ColumnType::BigInt };
    assert_eq!(altered("ALTER TABLE t CHANGE COLUMN a b bigint")[1], widen.into());
    let order = altered("ALTER TABLE t WRITE ORDERED BY a DESC, b");
    let field = |column: &str, descending, nulls_first| SortField {
        column: column.into(),
        transform: Transform::Identity,
        descending,
        nulls_first,
    };
    let expected = Alter::SetSortOrder(vec![field("a", true, false), field("b", false, true)]);
    assert_eq!(order, [expected.into()]);
}

#[test]
fn upkeep_is_parsed() {
    for (sql, arrangement, filtered) in [
        ("OPTIMIZE t REWRITE DATA USING BIN_PACK", Arrangement::BinPack, false),
        ("optimize db.t rewrite data using bin_pack where day > 1", Arrangement::BinPack, true),
        ("OPTIMIZE t REWRITE DATA USING ZORDER (a, b)", Arrangement::ZOrder(vec!["a".into(), "b".into()]), false),
    ] {
        match written(sql) {
            Writing::Optimize(o) => {
                assert_eq!((o.arrangement, o.condition.is_some()), (arrangement, filtered), "{sql}")
            }
            other => panic!("{sql}: {other:?}"),
        }
    }
    assert!(matches!(written("VACUUM nyc.t"), Writing::Vacuum { .. }));
}

#[test]
fn explain_of_a_write_is_its_own_and_analyze_is_denied() {
    assert!(matches!(parse("EXPLAIN DELETE FROM t"), Ok(Statement::Explain { verbose: false, .. })));
    assert!(matches!(parse("EXPLAIN SELECT 1"), Ok(Statement::Reading(_))));
    assert_eq!(refused("EXPLAIN ANALYZE DELETE FROM t").kind(), ErrorKind::Denied);
}

#[test]
fn what_nobody_runs_is_denied() {
    for sql in
        ["CREATE VIEW v AS SELECT 1", "CREATE EXTERNAL TABLE t STORED AS CSV LOCATION '/x'", "DROP VIEW v", "SET a = 1"]
    {
        assert_eq!(refused(sql).kind(), ErrorKind::Denied, "{sql}");
    }
}

#[test]
fn bad_statements_point_at_what_is_wrong() {
    for (sql, says) in [
        ("INSERT t VALUES (1)", "line 1, column 8: expected: INTO, found: t"),
        ("DELETE FROM", "line 1, column 12: "),
        ("CREATE TABLE t (a money)", "line 1, column 19: expected a column type"),
        ("CREATE TABLE t", "line 1, column 15: expected: `(` and the columns, or AS and a query"),
        ("CREATE TABLE t (a int) PARTITIONED BY (week(a))", "line 1, column 40: expected: a column, or year"),
        ("CREATE TABLE t (a int) PARTITIONED BY (bucket(0, a))", "line 1, column 40: expected: a column, or year"),
        ("UPDATE t SET a = 1, a = 2", "line 1, column 21: expected every column once, found `a`"),
        ("UPDATE t SET s.a = 1", "line 1, column 14: expected a column of `t` to set, found `s.a`"),
        ("MERGE INTO t USING s ON t.a = s.a", "WHEN MATCHED"),
        ("MERGE INTO t USING s ON true WHEN MATCHED THEN INSERT *", "line 1, column 48: expected UPDATE SET or DELETE"),
        ("MERGE INTO t USING s ON true WHEN NOT MATCHED THEN DELETE", "line 1, column 52: expected INSERT"),
        (
            "MERGE INTO t USING s ON true WHEN NOT MATCHED THEN INSERT (a, b) VALUES (1)",
            "expected 2 values, one for each column, found 1",
        ),
        ("ALTER TABLE t EXPLODE", "line 1, column 15: expected: ADD, DROP"),
        ("OPTIMIZE t REWRITE DATA USING MAGIC", "line 1, column 31: expected: BIN_PACK"),
        ("DROP TABLE t u", "line 1, column 14: expected: end of statement, found: u"),
        ("DROP TABLE a; DROP TABLE b", "expected one statement, found 2"),
        ("INSERT INTO t SELECT a FORM x", "expected: end of statement, found: x"),
    ] {
        let error = refused(sql);
        assert_eq!(error.kind(), ErrorKind::Invalid, "{sql}: {error}");
        assert!(error.message().contains(says), "{sql}: {error}");
    }
}

#[test]
fn nesting_without_end_is_refused() {
    let sql = format!("DELETE FROM t WHERE {}1{}", "(".repeat(5_000), ")".repeat(5_000));
    assert_eq!(refused(&sql).kind(), ErrorKind::Invalid);
}
