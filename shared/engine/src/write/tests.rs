//! Statements that write, over ports in memory.

use std::time::Duration;

use arrow::array::AsArray;
use arrow::util::pretty::pretty_format_batches;

use super::*;
use crate::QueryOptions;
use shared::Principal;
use shared::catalog::ensure_database;
use shared::clock::SystemClock;
use shared::config::Settings;

struct Lake {
    engine: Engine,
    _spill: tempfile::TempDir,
}

impl Lake {
    async fn new() -> Self {
        Self::with_memory(256 << 20).await
    }

    async fn with_memory(memory: u64) -> Self {
        let spill = tempfile::tempdir().unwrap();
        let ports = adapters_embedded::in_memory(Arc::new(SystemClock)).unwrap();
        let settings = Settings { memory, ..Settings::embedded(spill.path()).unwrap() };
        ensure_database(ports.catalog.as_ref(), "db").await.unwrap();
        Self { engine: Engine::open(&settings, &ports).unwrap(), _spill: spill }
    }

    fn options() -> QueryOptions {
        QueryOptions { database: "db".into(), ..QueryOptions::new(Principal::Owner) }
    }

    async fn try_with(&self, sql: &str, options: &QueryOptions) -> Result<Outcome> {
        Ok(self.engine.execute(sql, options).await?.outcome.unwrap())
    }

    async fn write(&self, sql: &str) -> Outcome {
        self.try_with(sql, &Self::options()).await.unwrap_or_else(|e| panic!("{sql}: {e}"))
    }

    async fn refused(&self, sql: &str, options: &QueryOptions) -> Error {
        self.try_with(sql, options).await.unwrap_err()
    }

    async fn keyed(&self, key: &str, sql: &str) -> Outcome {
        let options = QueryOptions { idempotency_key: Some(key.into()), ..Self::options() };
        self.try_with(sql, &options).await.unwrap_or_else(|e| panic!("{sql}: {e}"))
    }

    /// Cells joined by commas, rows by semicolons.
    async fn cells(&self, sql: &str) -> String {
        let answer = self.engine.query(sql, &Self::options()).await.unwrap_or_else(|e| panic!("{sql}: {e}"));
        let table = pretty_format_batches(&answer.collect().await.unwrap().0).unwrap().to_string();
        let cells = |line: &str| line.trim_matches('|').split('|').map(str::trim).collect::<Vec<_>>().join(",");
        table.lines().skip(3).filter(|l| l.starts_with('|')).map(cells).collect::<Vec<_>>().join(";")
    }
}

#[tokio::test]
async fn every_kind_of_statement_is_done_once_under_its_key() {
    let lake = Lake::new().await;
    for (key, sql) in [
        ("empty", "CREATE TABLE e (id int)"),
        ("make", "CREATE TABLE t AS SELECT n AS id, 'x' AS name FROM generate_series(1, 4) AS g(n)"),
        ("insert", "INSERT INTO t (id) VALUES (5)"),
        ("update", "UPDATE t SET id = id + 1"),
        (
            "merge",
            "MERGE INTO t USING (SELECT 9 AS id) s ON t.id = s.id WHEN NOT MATCHED THEN INSERT (id) VALUES (s.id)",
        ),
        ("delete", "DELETE FROM t WHERE id IN (SELECT max(id) FROM t)"),
    ] {
        let first = lake.keyed(key, sql).await;
        assert_eq!(first.note, None, "{sql}");
        let again = lake.keyed(key, sql).await;
        assert_eq!(again.note.as_deref(), Some("done before under this idempotency key"), "{sql}");
        assert_eq!(again.snapshot_id, first.snapshot_id, "{sql}");
    }
    assert_eq!(lake.cells("SELECT id FROM t ORDER BY id").await, "2;3;4;5;6");
}

#[tokio::test]
async fn a_key_of_another_statement_or_of_one_that_nothing_remembers_is_refused() {
    let lake = Lake::new().await;
    lake.write("CREATE TABLE t (a int)").await;
    lake.keyed("k", "INSERT INTO t VALUES (1)").await;
    let keyed = |key: &str| QueryOptions { idempotency_key: Some(key.into()), ..Lake::options() };
    assert_eq!(lake.refused("INSERT INTO t VALUES (2)", &keyed("k")).await.kind(), ErrorKind::Conflict);
    assert_eq!(lake.refused("INSERT INTO t VALUES (2)", &keyed("")).await.kind(), ErrorKind::Invalid);
    for sql in ["DROP TABLE t", "ALTER TABLE t ADD COLUMNS (b int)"] {
        let error = lake.refused(sql, &keyed("d")).await;
        assert!(error.kind() == ErrorKind::Invalid && error.message().contains("no idempotency key"), "{error}");
    }
    assert_eq!(lake.cells("SELECT * FROM t").await, "1");
}

#[tokio::test]
async fn a_statement_whose_rows_take_too_long_or_too_many_bytes_changes_nothing() {
    let lake = Lake::new().await;
    lake.write("CREATE TABLE t AS SELECT n AS id, rpad('x', 100, 'x') AS name FROM generate_series(1, 1000) AS g(n)")
        .await;
    let soon = QueryOptions { timeout: Some(Duration::from_millis(200)), ..Lake::options() };
    for sql in [
        "INSERT INTO t SELECT n, 'y' FROM generate_series(1, 10000000000) AS g(n)",
        "CREATE TABLE u AS SELECT n FROM generate_series(1, 10000000000) AS g(n)",
    ] {
        let error = lake.refused(sql, &soon).await;
        assert_eq!(error.kind(), ErrorKind::Limit, "{sql}: {error}");
    }
    let few = QueryOptions { max_bytes_scanned: Some(100), ..Lake::options() };
    let error = lake.refused("UPDATE t SET name = upper(name)", &few).await;
    assert_eq!(error.kind(), ErrorKind::Limit, "{error}");
    assert_eq!(
        lake.cells("SELECT count(*), max(id), count(*) FILTER (WHERE name LIKE 'x%') FROM t").await,
        "1000,1000,1000"
    );
    let gone = lake.engine.query("SELECT * FROM u", &Lake::options()).await.map(|_| ()).unwrap_err();
    assert_eq!(gone.kind(), ErrorKind::NotFound);
}

#[tokio::test]
async fn explain_shows_what_would_be_done_and_does_nothing() {
    let lake = Lake::new().await;
    lake.write("CREATE TABLE t AS SELECT 1 AS id").await;
    lake.write("CREATE TABLE s AS SELECT 1 AS id").await;
    for (sql, says) in [
        ("EXPLAIN INSERT INTO t SELECT id + 1 FROM s", "append rows to db.t"),
        ("EXPLAIN MERGE INTO t USING s ON t.id = s.id WHEN MATCHED THEN DELETE", "HashJoinExec"),
        ("EXPLAIN UPDATE t SET id = 2", "update rows of db.t"),
        ("EXPLAIN DELETE FROM t WHERE id = 1", "delete rows of db.t"),
        ("EXPLAIN CREATE TABLE u AS SELECT * FROM t", "create the table db.u (id bigint)"),
        ("EXPLAIN ALTER TABLE t ADD COLUMNS (a int)", "AddColumn"),
        ("EXPLAIN DROP TABLE t", "drop the table db.t"),
    ] {
        let answer = lake.engine.execute(sql, &Lake::options()).await.unwrap_or_else(|e| panic!("{sql}: {e}"));
        assert!(answer.outcome.is_none(), "{sql}");
        let text = pretty_format_batches(&answer.collect().await.unwrap().0).unwrap().to_string();
        assert!(text.contains(says), "{sql}:\n{text}");
    }
    assert_eq!(lake.cells("SELECT * FROM t").await, "1");
    assert_eq!(lake.cells("SELECT count(*) FROM information_schema.tables WHERE table_name = 'u'").await, "0");
}

#[tokio::test]
async fn statements_at_once_lose_nothing() {
    let lake = Arc::new(Lake::new().await);
    lake.write("CREATE TABLE t AS SELECT n AS id, 0 AS total FROM generate_series(1, 10) AS g(n)").await;
    let statements = (0..8).map(|i| match i % 2 {
        0 => format!("INSERT INTO t VALUES ({}, 0)", 100 + i),
        _ => "UPDATE t SET total = total + 1 WHERE id <= 10".to_owned(),
    });
    let running: Vec<_> = statements
        .map(|sql| {
            let lake = Arc::clone(&lake);
            tokio::spawn(async move { lake.write(&sql).await })
        })
        .collect();
    for statement in running {
        statement.await.unwrap();
    }
    assert_eq!(lake.cells("SELECT count(*), min(total), max(total) FROM t WHERE id <= 10").await, "10,4,4");
    assert_eq!(lake.cells("SELECT count(*) FROM t WHERE id >= 100").await, "4");
}

#[tokio::test]
async fn a_merge_of_few_rows_into_a_large_table_takes_little_memory() {
    let lake = Lake::with_memory(24 << 20).await;
    let rows = "SELECT n AS id, rpad('', 128, to_hex(md5(to_utf8(CAST(n AS varchar))))) AS name FROM generate_series(1, 400000) AS g(n)";
    lake.write(&format!("CREATE TABLE t AS {rows}")).await;
    let merged = lake
        .write(
            "MERGE INTO t USING (SELECT n * 400 AS id FROM generate_series(1, 1001) AS g(n)) s ON t.id = s.id \
             WHEN MATCHED THEN UPDATE SET name = 'new' WHEN NOT MATCHED THEN INSERT (id) VALUES (s.id)",
        )
        .await;
    assert_eq!((merged.rows_updated, merged.rows_added, merged.rows_deleted), (1000, 1, 0));
    assert_eq!(lake.cells("SELECT count(*), count(*) FILTER (WHERE name = 'new') FROM t").await, "400001,1000");
}

#[tokio::test]
async fn versions_and_changes_are_read_by_the_ids_of_snapshots() {
    let lake = Lake::new().await;
    let first = lake.write("CREATE TABLE t AS SELECT 1 AS id, 'a' AS name").await.snapshot_id.unwrap();
    let second = lake.write("UPDATE t SET name = 'b'").await.snapshot_id.unwrap();
    lake.write("INSERT INTO t VALUES (2, 'c')").await;
    assert_eq!(lake.cells(&format!("SELECT * FROM t FOR VERSION AS OF {first}")).await, "1,a");
    let both = format!(
        "SELECT a.name, b.name FROM t FOR VERSION AS OF {first} a JOIN t FOR SYSTEM_VERSION AS OF {second} b ON a.id = b.id"
    );
    assert_eq!(lake.cells(&both).await, "a,b");
    let changed = format!("SELECT _change_type, id, name FROM table_changes('t', {first}, {second}, 'id') ORDER BY 1");
    assert_eq!(lake.cells(&changed).await, "update_postimage,1,b;update_preimage,1,a");
    let later = format!("SELECT count(*) FROM table_changes('db.t', {second}, NULL)");
    assert_eq!(lake.cells(&later).await, "1");
}

/// One table for each number of files and nulls: whether an ORDER BY of its order must sort.
#[tokio::test]
async fn files_that_were_sorted_are_known_as_sorted() {
    let lake = Lake::new().await;
    for (table, partitions, null, sorts) in [
        ("one", "", "", false),
        ("one_with_null", "", ", (NULL, 'x')", true),
        ("apart", "PARTITIONED BY (truncate(10, id))", "", false),
        ("apart_with_null", "PARTITIONED BY (truncate(10, id))", ", (NULL, 'x')", true),
        ("overlapping", "PARTITIONED BY (bucket(40, id))", "", true),
    ] {
        lake.write(&format!("CREATE TABLE {table} (id bigint, name varchar) {partitions}")).await;
        let rows: Vec<_> = (0..100).map(|n| format!("({}, 'n{n}')", n * 37 % 100)).collect();
        lake.write(&format!("INSERT INTO {table} VALUES {}{null}", rows.join(", "))).await;
        lake.write(&format!("ALTER TABLE {table} WRITE ORDERED BY id")).await;
        let sql = format!("SELECT id FROM {table} ORDER BY id");
        let before = lake.cells(&sql).await;
        let plan = lake.cells(&format!("EXPLAIN {sql}")).await;
        assert!(plan.contains("SortExec"), "no file says that it is sorted yet: {plan}");
        lake.write(&format!("OPTIMIZE {table} REWRITE DATA USING SORT")).await;
        let plan = lake.cells(&format!("EXPLAIN {sql}")).await;
        assert_eq!(plan.contains("SortExec"), sorts, "{table}: {plan}");
        assert_eq!(lake.cells(&sql).await, before, "{table}");
        let backwards = lake.cells(&format!("{sql} DESC")).await;
        let mut reversed: Vec<_> = before.split(';').rev().collect();
        if !null.is_empty() {
            reversed.rotate_left(1);
        }
        assert_eq!(backwards, reversed.join(";"), "{table}");
        let as_declared = format!("{sql} ASC NULLS FIRST");
        let plan = lake.cells(&format!("EXPLAIN {as_declared}")).await;
        assert_eq!(plan.contains("SortExec"), table != "one_with_null", "{table}: {plan}");
        let nulls_first = lake.cells(&as_declared).await;
        let expected = match before.strip_suffix(';') {
            Some(values) => format!(";{values}"),
            None => before.clone(),
        };
        assert_eq!(nulls_first, expected, "{table}");
        // A new file without that order ends it.
        lake.write(&format!("INSERT INTO {table} VALUES (50, 'late')")).await;
        let plan = lake.cells(&format!("EXPLAIN {sql}")).await;
        assert!(plan.contains("SortExec"), "{table}: {plan}");
    }
}

/// The names of the objects below the warehouse.
async fn objects(lake: &Lake) -> Vec<String> {
    let ports = &lake.engine.ports;
    let all = ports.storage.list(ports.keys.root()).await.unwrap();
    all.into_iter().map(|object| object.url.to_string()).collect()
}

#[tokio::test]
async fn a_table_of_a_query_comes_with_its_rows_or_not_at_all() {
    let lake = Lake::new().await;
    let made = lake
        .write("CREATE TABLE t WITH (partitioning = ARRAY['id']) AS SELECT n AS id FROM generate_series(1, 3) AS g(n)")
        .await;
    assert_eq!((made.rows_added, made.snapshot_id.is_some()), (3, true));
    assert_eq!(lake.cells("SELECT id FROM t ORDER BY id").await, "1;2;3");
    assert_eq!(lake.cells("SELECT operation, summary['added-records'] FROM \"t$snapshots\"").await, "append,3");
    lake.write("INSERT INTO t VALUES (4)").await;
    let before = objects(&lake).await;

    let error = lake.refused("CREATE TABLE t AS SELECT 5 AS id", &Lake::options()).await;
    assert_eq!(error.kind(), ErrorKind::Conflict);
    let kept = lake.write("CREATE TABLE IF NOT EXISTS t AS SELECT 5 AS id").await;
    assert_eq!(kept.note.as_deref(), Some("the table exists"));
    let failing = "SELECT n AS id, 1 / (1000 - n) AS x FROM generate_series(1, 100000) AS g(n)";
    for sql in [format!("CREATE TABLE u AS {failing}"), format!("CREATE TABLE IF NOT EXISTS u AS {failing}")] {
        lake.refused(&sql, &Lake::options()).await;
        assert_eq!(lake.refused("INSERT INTO u VALUES (1, 1)", &Lake::options()).await.kind(), ErrorKind::NotFound);
    }
    assert_eq!(
        lake.refused("CREATE TABLE other.u AS SELECT 1 AS id", &Lake::options()).await.kind(),
        ErrorKind::NotFound
    );
    assert_eq!(objects(&lake).await, before, "nothing is left behind");
    assert_eq!(lake.cells("SELECT id FROM t ORDER BY id").await, "1;2;3;4");

    let empty = lake.write("CREATE TABLE e AS SELECT n AS id FROM generate_series(1, 3) AS g(n) WHERE n > 3").await;
    assert_eq!((empty.rows_added, empty.snapshot_id), (0, None));
    lake.write("INSERT INTO e VALUES (1)").await;
    lake.write("DROP TABLE e").await;
    lake.write("DROP TABLE t").await;
    assert_eq!(objects(&lake).await, Vec::<String>::new());
}

#[tokio::test]
async fn of_two_that_make_the_same_table_one_does() {
    let lake = Lake::new().await;
    let sql = |n: u32| format!("CREATE TABLE IF NOT EXISTS t AS SELECT {n} AS id");
    let options = Lake::options();
    let (one, other) = (sql(1), sql(2));
    let (first, second) = tokio::join!(lake.try_with(&one, &options), lake.try_with(&other, &options));
    let notes = [first.unwrap().note, second.unwrap().note];
    assert_eq!(notes.iter().filter(|note| note.as_deref() == Some("the table exists")).count(), 1, "{notes:?}");
    assert_eq!(lake.cells("SELECT count(*) FROM t").await, "1");
    let files = objects(&lake).await.iter().filter(|object| object.ends_with(".parquet")).count();
    assert_eq!(files, 1, "the other's rows are gone");
}

#[tokio::test]
async fn insert_overwrite_of_a_partition_replaces_its_rows_alone() {
    let lake = Lake::new().await;
    lake.write("CREATE TABLE t (id int, day date, note string) PARTITIONED BY (day)").await;
    lake.write(
        "INSERT INTO t VALUES (1, DATE '2024-01-01', 'a'), (2, DATE '2024-01-01', 'b'), (3, DATE '2024-01-02', 'c')",
    )
    .await;
    let done = lake.write("INSERT OVERWRITE t PARTITION (day = DATE '2024-01-01') SELECT 9, 'n'").await;
    assert_eq!((done.rows_added, done.rows_deleted), (1, 2));
    let all = "SELECT id, day, note FROM t ORDER BY id";
    assert_eq!(lake.cells(all).await, "3,2024-01-02,c;9,2024-01-01,n");
    // A value that has no rows yet, and rows by the columns' names.
    let done = lake.write("INSERT OVERWRITE t PARTITION (day = DATE '2024-01-03') (note, id) VALUES ('x', 4)").await;
    assert_eq!((done.rows_added, done.rows_deleted), (1, 0));
    let done = lake.write("INSERT OVERWRITE t PARTITION (day = DATE '2024-01-01') SELECT 1, 'a' WHERE false").await;
    assert_eq!((done.rows_added, done.rows_deleted), (0, 1));
    assert_eq!(lake.cells(all).await, "3,2024-01-02,c;4,2024-01-03,x");
    for (sql, expected) in [
        ("INSERT OVERWRITE t PARTITION (dey = DATE '2024-01-02') SELECT 1, 'a'", "dey"),
        ("INSERT OVERWRITE t PARTITION (day = 'soon') SELECT 1, 'a'", "expected a value of `date`"),
        ("INSERT OVERWRITE t PARTITION (day = DATE '2024-01-02') SELECT 1", "expected 2 columns"),
        ("INSERT OVERWRITE t PARTITION (day = DATE '2024-01-02', day = DATE '2024-01-03') SELECT 1, 'a'", "`day`"),
        ("INSERT OVERWRITE t PARTITION (day = DATE '2024-01-02') (id, day) SELECT 1, DATE '2024-01-05'", "`day`"),
    ] {
        let error = lake.refused(sql, &Lake::options()).await;
        assert!(error.kind() == ErrorKind::Invalid && error.to_string().contains(expected), "{sql}: {error}");
    }
    assert_eq!(lake.cells(all).await, "3,2024-01-02,c;4,2024-01-03,x");
}

#[tokio::test]
async fn a_delete_of_all_rows_counts_those_that_are_there() {
    let lake = Lake::new().await;
    lake.write("CREATE TABLE t TBLPROPERTIES ('write.delete.mode'='merge-on-read') AS SELECT n AS id FROM generate_series(1, 10) AS g(n)")
        .await;
    assert_eq!(lake.write("DELETE FROM t WHERE id IN (2, 4, 6)").await.rows_deleted, 3);
    assert_eq!(lake.write("DELETE FROM t").await.rows_deleted, 7);
}

#[tokio::test]
async fn a_table_can_leave_the_catalog_and_come_back_with_its_files() {
    let lake = Lake::new().await;
    lake.write("CREATE TABLE t AS SELECT 1 AS id").await;
    let left = lake.write("CALL system.unregister_table('db.t')").await;
    let note = left.note.unwrap();
    let file = note.split('`').nth(1).unwrap();
    let gone = lake.refused("SELECT * FROM t", &Lake::options()).await;
    assert_eq!(gone.kind(), ErrorKind::NotFound, "{gone}");
    lake.write("CREATE TABLE t AS SELECT 2 AS id").await;
    let register = |name: &str| format!("CALL system.register_table(table => 'db.{name}', metadata_file => '{file}')");
    lake.write(&register("back")).await;
    let taken = lake.refused(&register("twice"), &Lake::options()).await;
    assert!(taken.kind() == ErrorKind::Conflict && taken.to_string().contains("`db.back`"), "{taken}");
    lake.write("DROP TABLE t").await;
    assert_eq!(lake.cells("SELECT id FROM back").await, "1");
    let dropped = lake.write("DROP TABLE back").await;
    assert!(dropped.note.unwrap().contains("PURGE"));
    lake.write(&register("again")).await;
    assert_eq!(lake.cells("SELECT id FROM again").await, "1");
    assert_eq!(lake.write("DROP TABLE again PURGE").await.note, None);
    let empty = lake.refused(&register("again"), &Lake::options()).await;
    assert_eq!(empty.kind(), ErrorKind::Invalid, "{empty}");
    let unknown = lake.refused("CALL system.unregister_table(table => 'db.nothing')", &Lake::options()).await;
    assert_eq!(unknown.kind(), ErrorKind::NotFound, "{unknown}");
}

#[tokio::test]
async fn a_scan_limit_is_told_as_a_limit_also_of_metadata() {
    let lake = Lake::new().await;
    lake.write("CREATE TABLE t AS SELECT n AS id FROM generate_series(1, 1000) AS g(n)").await;
    // A fresh engine has no metadata in memory.
    for bytes in [10, 3000] {
        let settings = Settings::embedded(lake._spill.path()).unwrap();
        let engine = Engine::open(&settings, &lake.engine.ports).unwrap();
        let options = QueryOptions { max_bytes_scanned: Some(bytes), ..Lake::options() };
        let answer = match engine.query("SELECT sum(id) FROM t", &options).await {
            Ok(answer) => answer.collect().await.map(drop),
            Err(error) => Err(error),
        };
        let error = answer.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Limit, "{bytes}: {error}");
    }
}

#[tokio::test]
async fn the_least_and_the_greatest_number_of_a_column_can_be_filtered() {
    let lake = Lake::new().await;
    lake.write("CREATE TABLE t (g int, b bigint)").await;
    lake.write("INSERT INTO t VALUES (1, 9223372036854775807), (2, CAST('-9223372036854775808' AS bigint))").await;
    for (filter, expected) in [("g = 1", "1"), ("b > 0", "1"), ("b < 0", "2"), ("b <> 5", "1;2"), ("b + 0 = b", "1;2")]
    {
        assert_eq!(lake.cells(&format!("SELECT g FROM t WHERE {filter} ORDER BY g")).await, expected, "{filter}");
    }
}

#[tokio::test]
async fn a_description_says_what_is_written_and_changes_nothing() {
    let lake = Lake::new().await;
    for (sql, reads) in [
        ("CREATE DATABASE other", ""),
        ("CREATE TABLE t (id bigint)", ""),
        ("CREATE TABLE u AS SELECT * FROM t", "db.t"),
        ("INSERT INTO t SELECT * FROM u", "db.u"),
        ("UPDATE t SET id = (SELECT max(id) FROM u)", "db.u"),
        ("MERGE INTO t USING u ON t.id = u.id WHEN NOT MATCHED THEN INSERT *", "db.u"),
        ("DELETE FROM t WHERE id > 5", ""),
        ("ALTER TABLE t ADD COLUMNS (x int)", ""),
        ("OPTIMIZE t REWRITE DATA USING BIN_PACK", ""),
        ("VACUUM t", ""),
        ("DROP TABLE u", ""),
        ("DROP DATABASE other", ""),
    ] {
        let description = lake.engine.describe(sql, &Lake::options()).await.unwrap();
        let answer = lake.engine.execute(sql, &Lake::options()).await.unwrap();
        let outcome = answer.outcome.as_ref().unwrap();
        assert_eq!((description.statement, &description.schema), (outcome.statement, &answer.schema), "{sql}");
        let writes = description.writes.as_ref().map_or_else(|| "other".to_owned(), ToString::to_string);
        let names: Vec<_> = description.reads.iter().map(ToString::to_string).collect();
        assert_eq!((writes.as_str(), names.join(" ").as_str()), (outcome.target.as_str(), reads), "{sql}");
    }
}

#[tokio::test]
async fn the_statement_that_show_create_table_tells_makes_the_same_table() {
    let lake = Lake::new().await;
    lake.write(
        "CREATE TABLE t (id bigint NOT NULL COMMENT 'it''s the key', \"date\" date, ts timestamp, seen timestamp with time zone, \
         all_seen array<timestamp with time zone>, u uuid, at time(6), place struct<city:string,`a-b`:map<string,time(6)>>) \
         COMMENT 'one of each' PARTITIONED BY (day(ts), bucket(4, id), \"date\", truncate(3, place.city)) \
         TBLPROPERTIES ('vacuum_max_snapshot_age_seconds'='60', 'own'='value')",
    )
    .await;
    let told = async || {
        let answer = lake.engine.query("SHOW CREATE TABLE t", &Lake::options()).await.unwrap();
        let batches = answer.collect().await.unwrap().0;
        batches[0].column(0).as_string::<i32>().value(0).to_owned()
    };
    let (before, columns) = (told().await, lake.cells("DESCRIBE t").await);
    for part in [
        "CREATE TABLE db.t (\n  id bigint NOT NULL COMMENT 'it''s the key',\n  `date` date,\n",
        "  place struct<city:string,`a-b`:map<string,time(6)>>)\nCOMMENT 'one of each'\n",
        "\nPARTITIONED BY (day(ts), bucket(4, id), `date`, truncate(3, place.city))\nLOCATION '",
        "\nTBLPROPERTIES (\n  'table_type'='iceberg',\n  'vacuum_max_snapshot_age_seconds'='60',\n  'own'='value',\n",
    ] {
        assert!(before.contains(part), "expected `{part}` in\n{before}");
    }
    lake.write("DROP TABLE t").await;
    lake.write(&before).await;
    assert_eq!((told().await, lake.cells("DESCRIBE t").await), (before, columns));
    let properties = lake.cells("SHOW TBLPROPERTIES t").await;
    assert!(properties.contains("history.expire.max-snapshot-age-ms,60000"), "{properties}");
    assert!(properties.contains("metadata_location,memory:"), "{properties}");
}
