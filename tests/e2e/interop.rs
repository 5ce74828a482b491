//! Iceberg tables between engines: what SQL does to a table here, pyiceberg, DuckDB, polars and Sail read column by column after
//! every step; what Sail writes with deletes of every kind is read and changed here, and read there again.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::Value;

use crate::clients::{Row, TYPES, difference, root, rows_of, sample, sorted, without_null_lists_of_structs};
use crate::flow::walk;
use crate::lake::Lake;

const READERS: [&str; 4] = ["pyiceberg", "duckdb", "polars", "sail"];
/// polars 2.1 plans with pyiceberg, which reads no equality deletes and no deletion vectors.
const READERS_OF_ALL_DELETES: [&str; 2] = ["duckdb", "sail"];

/// A state of a table: what led to it, its metadata, and its rows as we read them.
struct Step {
    sql: String,
    metadata: PathBuf,
    rows: Vec<Row>,
}

fn client(script: &str) -> Command {
    let python = root().join(".venv/bin/python");
    assert!(python.exists(), "`make setup` makes the Python environment `.venv`");
    let mut command = Command::new(python);
    command.arg(root().join("tests/clients").join(script));
    command
}

/// The newest metadata file in a table's folder.
fn newest_metadata(folder: &Path) -> PathBuf {
    let version = |path: &Path| -> Option<u64> {
        let name = path.file_name()?.to_str()?.strip_suffix(".metadata.json")?.trim_start_matches('v');
        name.split('-').next()?.parse().ok()
    };
    let files = walk(&folder.join("metadata"));
    files.into_iter().filter(|f| version(f).is_some()).max_by_key(|f| version(f)).expect("the table has metadata")
}

/// The folder of a table that was made of a query: its name goes on with what no other has.
fn made_by_query(lake: &Lake, table: &str) -> PathBuf {
    let folders = std::fs::read_dir(lake.data().join("objects/tables/lab")).unwrap().map(|entry| entry.unwrap().path());
    let named = |folder: &PathBuf| folder.file_name().unwrap().to_str().unwrap().starts_with(&format!("{table}-"));
    folders.into_iter().find(named).expect("the table has a folder")
}

async fn step(lake: &Lake, table: &str, folder: &Path, sql: &str) -> Step {
    if !sql.is_empty() {
        lake.sql(sql).await;
    }
    let rows = rows_of(&lake.run("sql", &["--output", "json", &format!("SELECT * FROM {table}")]), "id");
    Step { sql: sql.to_owned(), metadata: newest_metadata(folder), rows }
}

/// What the reader finds in each state must be what we found.
fn compare(reader: &str, steps: &[Step]) {
    let metadata = steps.iter().map(|step| &step.metadata);
    let output = client("read_iceberg.py").args(["each", reader]).args(metadata).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let read: Vec<Vec<Row>> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    for (number, step) in steps.iter().enumerate() {
        let at = format!("{reader}, step {number}, after `{}` ({})", step.sql, step.metadata.display());
        let Some(theirs) = read.get(number) else {
            panic!("{at}: {}", String::from_utf8_lossy(&output.stderr));
        };
        // pyiceberg makes empty lists of some nulls, and so does polars where it has pyiceberg read for it.
        let plain = |rows: &[Row]| match reader {
            "pyiceberg" | "polars" => without_null_lists_of_structs(rows),
            _ => rows.to_vec(),
        };
        if let Some(difference) = difference(&plain(&step.rows), &plain(&sorted(theirs.clone(), "id"))) {
            panic!("{at}: {difference}");
        }
    }
    assert!(output.status.success(), "{reader}: {}", String::from_utf8_lossy(&output.stderr));
}

async fn put(lake: &Lake, ids: std::ops::Range<i64>) {
    let body: String = ids.map(|id| sample(id, id).to_string() + "\n").collect();
    let (status, answer) = lake.post("/streams/samples/records", "application/x-ndjson", body).await;
    assert_eq!(status, 200, "{answer:#}");
    lake.flush("samples").await;
}

#[tokio::test]
async fn a_table_reads_the_same_elsewhere_after_every_kind_of_change() {
    let lake = Lake::up(TYPES);
    put(&lake, 0..80).await;
    let mut steps = Vec::new();
    // (statement, rows that the table then has)
    let script = [
        (
            "CREATE TABLE lab.t WITH (table_type = 'ICEBERG', partitioning = ARRAY['month(day)', 'bucket(id, 3)']) AS SELECT * FROM lab.samples WHERE id < 60",
            60,
        ),
        ("INSERT INTO lab.t SELECT * FROM lab.samples WHERE id >= 60", 80),
        ("INSERT INTO lab.t (number, id, text) VALUES (1000, 1000, 'only a few columns')", 81),
        ("DELETE FROM lab.t WHERE id % 9 = 4", 72),
        ("UPDATE lab.t SET text = 'changed', money = money + 1, tags = NULL WHERE id BETWEEN 10 AND 20", 72),
        (
            "MERGE INTO lab.t USING (SELECT * FROM lab.samples WHERE id < 30) AS s ON t.id = s.id WHEN MATCHED AND s.id % 2 = 0 THEN UPDATE SET amount = -s.amount, counts = s.counts WHEN MATCHED AND s.id = 21 THEN DELETE WHEN NOT MATCHED THEN INSERT (number, id, flag, at, deep) VALUES (s.number, s.id, s.flag, s.at, s.deep)",
            74,
        ),
        (
            "ALTER TABLE lab.t SET TBLPROPERTIES ('write.delete.mode' = 'merge-on-read', 'write.update.mode' = 'merge-on-read', 'write.merge.mode' = 'merge-on-read')",
            74,
        ),
        ("DELETE FROM lab.t WHERE id % 9 = 5", 65),
        ("UPDATE lab.t SET text = 'changed again', spot = NULL WHERE id BETWEEN 15 AND 35", 65),
        (
            "MERGE INTO lab.t USING (SELECT * FROM lab.samples WHERE id < 24) AS s ON t.id = s.id WHEN MATCHED AND s.id < 6 THEN DELETE WHEN NOT MATCHED THEN INSERT (number, id, seen) VALUES (s.number, s.id, s.seen)",
            64,
        ),
        ("ALTER TABLE lab.t ADD COLUMNS (extra string, more decimal(9,3))", 64),
        ("UPDATE lab.t SET extra = 'there', more = 1.5 WHERE id < 40", 64),
        ("ALTER TABLE lab.t RENAME COLUMN text TO words", 64),
        ("ALTER TABLE lab.t CHANGE COLUMN tiny tiny bigint", 64),
        ("ALTER TABLE lab.t CHANGE COLUMN single single double", 64),
        ("ALTER TABLE lab.t DROP COLUMN small", 64),
        ("ALTER TABLE lab.t CHANGE COLUMN words words string AFTER id", 64),
        ("INSERT INTO lab.t (number, id, words, day) VALUES (2000, 2000, 'new spec comes', DATE '2020-02-29')", 65),
        ("ALTER TABLE lab.t ADD PARTITION FIELD truncate(4, words)", 65),
        (
            "INSERT INTO lab.t (number, id, words, day) VALUES (2001, 2001, 'new spec came', DATE '2020-02-29'), (2002, 2002, NULL, NULL)",
            67,
        ),
        ("DELETE FROM lab.t WHERE id = 2000 OR words = 'changed'", 63),
        ("OPTIMIZE lab.t REWRITE DATA USING BIN_PACK", 63),
        ("OPTIMIZE lab.t REWRITE DATA USING SORT (day, id)", 63),
        ("INSERT OVERWRITE lab.t SELECT * FROM lab.t WHERE id < 2000", 62),
    ];
    lake.sql(script[0].0).await;
    let folder = made_by_query(&lake, "t");
    for (number, (sql, expected)) in script.into_iter().enumerate() {
        let step = step(&lake, "lab.t", &folder, if number == 0 { "" } else { sql }).await;
        assert_eq!(step.rows.len(), expected, "{sql}");
        steps.push(step);
    }
    for reader in READERS {
        compare(reader, &steps);
    }
    lake.sql("ALTER TABLE lab.t SET TBLPROPERTIES ('vacuum_max_snapshot_age_seconds' = '1', 'vacuum_min_snapshots_to_keep' = '1')").await;
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    let last = [step(&lake, "lab.t", &folder, "VACUUM lab.t").await];
    assert_eq!(last[0].rows, steps.last().unwrap().rows);
    assert!(lake.sql("SELECT count(*) FROM lab.\"t$snapshots\"").await[0][0] == 1);
    for reader in READERS {
        compare(reader, &last);
    }
}

/// Has Sail run statements on the table `x` at `folder`.
fn sail(folder: &Path, statements: &[String]) {
    let output = client("sail.py").args(statements).output().unwrap();
    assert!(output.status.success(), "{}: {}", folder.display(), String::from_utf8_lossy(&output.stderr));
}

/// Columns of a table of Sail's, and a query of its rows.
struct Made {
    columns: &'static str,
    rows: &'static str,
}

const EVERY_TYPE: Made = Made {
    columns: "id bigint NOT NULL, at timestamp, u timestamp_ntz, n string, x decimal(12,3), big decimal(30,5), l array<string>, \
        s struct<a:int,b:string>, m map<string,int>, b binary, d date, f float, g double, t boolean",
    rows: "SELECT id, timestamp'2024-01-01 00:00:00.123' + make_dt_interval(0, cast(id AS int)), timestamp_ntz'1969-12-31 23:59:59.5', concat('n', id), \
        id * 1.5, -id * 1000000000000.00001, array('a', NULL), named_struct('a', cast(id AS int), 'b', NULL), map('k', cast(id AS int)), \
        cast('ab' AS binary), date'1969-12-30' + cast(id % 4 AS int), 1.1, 2.5, id % 2 = 0 FROM range(100)",
};

/// What Sail's equality deletes can name.
const PLAIN_TYPES: Made = Made {
    columns: "id bigint NOT NULL, u timestamp_ntz, n string, x decimal(12,3), d date",
    rows: "SELECT id, timestamp_ntz'1969-12-31 23:59:59.5', concat('n', id), id * 1.5, date'1969-12-30' + cast(id % 4 AS int) FROM range(100)",
};

/// A table of Sail's, whose rows it then changes.
fn made_by_sail(folder: &Path, made: &Made, clauses: &str, changes: &[&str]) {
    let (place, Made { columns, rows }) = (folder.display(), made);
    let mut statements = vec![
        format!("CREATE TABLE x ({columns}) USING iceberg {clauses} LOCATION '{place}'"),
        format!("INSERT INTO x {rows}"),
    ];
    statements.extend(changes.iter().map(|sql| (*sql).to_owned()));
    sail(folder, &statements);
}

/// Reads and changes a foreign table here, and has others read each state of it.
async fn taken_over(lake: &Lake, name: &str, folder: &Path, expected: usize, changes: &[(&str, usize)]) -> Vec<Step> {
    let metadata = newest_metadata(folder);
    lake.sql("CREATE DATABASE IF NOT EXISTS lab").await;
    lake.sql(&format!("CALL system.register_table(table => 'lab.{name}', metadata_file => '{}')", metadata.display()))
        .await;
    let table = format!("lab.{name}");
    let mut steps = vec![step(lake, &table, folder, "").await];
    assert_eq!(steps[0].rows.len(), expected, "{name}");
    for (sql, expected) in changes {
        let step = step(lake, &table, folder, &sql.replace("{t}", &table)).await;
        assert_eq!(step.rows.len(), *expected, "{name}: {sql}");
        steps.push(step);
    }
    for reader in READERS_OF_ALL_DELETES {
        compare(reader, &steps);
    }
    steps
}

/// Of each row the id that DuckDB finds, and the sequence number of its last change: the two others of [`READERS`] that read
/// format v3, pyiceberg and polars, have no columns of lineage, and nor has Sail, though it writes them.
fn lineage(steps: &[Step]) -> Vec<BTreeMap<i64, (i64, i64)>> {
    let output =
        client("read_iceberg.py").arg("lineage").args(steps.iter().map(|step| &step.metadata)).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    let rows = text.lines().map(|line| serde_json::from_str::<Vec<(i64, i64, i64)>>(line).unwrap());
    rows.map(|rows| rows.into_iter().map(|(id, row_id, updated)| (id, (row_id, updated))).collect()).collect()
}

/// Rows keep their ids from state to state, and their sequence numbers unless their values change.
fn ids_survive(steps: &[Step]) {
    let found = lineage(steps);
    assert_eq!(found.len(), steps.len());
    for (number, pair) in found.windows(2).enumerate() {
        let at = format!("step {}, after `{}`", number + 1, steps[number + 1].sql);
        let row = |step: usize, id: i64| steps[step].rows.iter().find(|row| row["id"] == id).cloned();
        let ids: BTreeSet<i64> = pair[1].values().map(|(row_id, _)| *row_id).collect();
        assert_eq!(ids.len(), steps[number + 1].rows.len(), "{at}: ids are told apart");
        let greatest = pair[0].values().map(|(row_id, _)| *row_id).max().unwrap();
        for (id, (row_id, updated)) in &pair[1] {
            let Some((old_id, old_updated)) = pair[0].get(id) else {
                assert!(*row_id > greatest, "{at}: row {id} is new and has the id {row_id}");
                continue;
            };
            assert_eq!(row_id, old_id, "{at}: row {id}");
            let changed = row(number, *id) != row(number + 1, *id);
            assert_eq!(updated > old_updated, changed, "{at}: row {id}: {old_updated} {updated}");
        }
    }
}

const CHANGES: [&str; 4] = [
    "DELETE FROM {t} WHERE id % 10 = 1",
    "UPDATE {t} SET n = 'ours', x = x * 2 WHERE id BETWEEN 30 AND 50",
    "INSERT INTO {t} (id, n, d) VALUES (500, 'new', DATE '2024-02-29')",
    "MERGE INTO {t} USING (VALUES (2, 'two'), (500, 'again'), (501, 'more')) AS s(id, n) ON {t}.id = s.id WHEN MATCHED AND s.id = 2 THEN DELETE WHEN MATCHED THEN UPDATE SET n = s.n WHEN NOT MATCHED THEN INSERT (id, n) VALUES (s.id, s.n)",
];

#[tokio::test]
async fn a_table_that_another_engine_partitioned_and_rewrote_is_read_and_changed() {
    let lake = Lake::up(TYPES);
    let folder = lake.data().join("objects/foreign/partitioned");
    let changes = ["DELETE FROM x WHERE id % 7 = 0", "UPDATE x SET n = 'theirs' WHERE id % 7 = 1"];
    made_by_sail(&folder, &EVERY_TYPE, "PARTITIONED BY (d)", &changes);
    let after = [(CHANGES[0], 77), (CHANGES[1], 77), (CHANGES[2], 78), (CHANGES[3], 78)];
    taken_over(
        &lake,
        "partitioned",
        &folder,
        85,
        &[&after[..], &[("OPTIMIZE {t} REWRITE DATA USING BIN_PACK", 78)]].concat(),
    )
    .await;
}

#[tokio::test]
async fn a_table_with_equality_deletes_of_another_engine_is_read_and_changed() {
    let lake = Lake::up(TYPES);
    let folder = lake.data().join("objects/foreign/equality");
    // A row that comes again after its delete stays.
    let changes = ["DELETE FROM x WHERE id % 7 = 0", "INSERT INTO x (id, n) VALUES (7, 'again')"];
    made_by_sail(
        &folder,
        &PLAIN_TYPES,
        "TBLPROPERTIES ('format-version' = '2', 'write.delete.mode' = 'merge-on-read')",
        &changes,
    );
    let after = [(CHANGES[0], 78), (CHANGES[1], 78), (CHANGES[2], 79), (CHANGES[3], 79)];
    taken_over(
        &lake,
        "equality",
        &folder,
        86,
        &[&after[..], &[("OPTIMIZE {t} REWRITE DATA USING BIN_PACK", 79)]].concat(),
    )
    .await;
}

#[tokio::test]
async fn a_table_of_format_3_with_deletion_vectors_of_another_engine_is_read_and_changed() {
    let lake = Lake::up(TYPES);
    let folder = lake.data().join("objects/foreign/vectors");
    let modes = "'write.delete.mode' = 'merge-on-read', 'write.update.mode' = 'merge-on-read'";
    let changes = [
        "DELETE FROM x WHERE id % 7 = 0",
        "UPDATE x SET n = 'theirs' WHERE id % 7 = 1",
        "INSERT INTO x (id, n) VALUES (7, 'again')",
    ];
    made_by_sail(&folder, &EVERY_TYPE, &format!("TBLPROPERTIES ('format-version' = '3', {modes})"), &changes);
    let copying = "ALTER TABLE {t} SET TBLPROPERTIES ('write.delete.mode' = 'copy-on-write', 'write.update.mode' = 'copy-on-write', 'write.merge.mode' = 'copy-on-write')";
    let after = [
        (CHANGES[0], 78),
        (CHANGES[1], 78),
        (CHANGES[2], 79),
        (CHANGES[3], 79),
        ("OPTIMIZE {t} REWRITE DATA USING BIN_PACK", 79),
        ("UPDATE {t} SET n = 'ours again' WHERE id BETWEEN 45 AND 55", 79),
        (copying, 79),
        ("UPDATE {t} SET n = 'copied' WHERE id BETWEEN 50 AND 60", 79),
        ("OPTIMIZE {t} REWRITE DATA USING SORT (d, id)", 79),
        ("DELETE FROM {t} WHERE id < 10", 72),
        (
            "MERGE INTO {t} USING (VALUES (22, 'merged'), (602, 'more')) AS s(id, n) ON {t}.id = s.id WHEN MATCHED THEN UPDATE SET n = s.n WHEN NOT MATCHED THEN INSERT (id, n) VALUES (s.id, s.n)",
            73,
        ),
        ("OPTIMIZE {t} REWRITE DATA USING ZORDER (id, d)", 73),
    ];
    ids_survive(&taken_over(&lake, "vectors", &folder, 86, &after).await);
}

/// The columns of tables with years that Python's dates don't have, as numbers and texts.
const EXACT: &str = "id, u, arrow_cast(d, 'Int32') AS d, arrow_cast(at, 'Int64') AS at, arrow_cast(seen, 'Int64') AS seen, arrow_cast(t, 'Int64') AS t";

/// The 15th of March of the year -44, two first of January of the years 0 and 1, the day before 1970, the last of the year 9999.
const DAYS: [i64; 5] = [-735_525, -719_528, -719_162, -1, 2_932_896];
const DAY: i64 = 86_400_000_000;

/// Rows of `days`: the id is the place, the rest follows from the day. Times of day wander, uuids have both halves' signs.
fn old_rows(days: &[i64]) -> String {
    let row = |(id, day): (usize, &i64)| {
        let (micros, time) = (day * DAY + 1, [0, 1, DAY - 1, DAY / 24, 5][id % 5]);
        let uuid = format!("{:02x}", 50 * (id % 5)).repeat(16);
        format!(
            "({id}, X'{uuid}', arrow_cast(arrow_cast({day}, 'Int32'), 'Date32'), arrow_cast({micros}, 'Timestamp(Microsecond, None)'), \
             arrow_cast({micros}, 'Timestamp(Microsecond, Some(\"+00:00\"))'), arrow_cast({time}, 'Time64(Microsecond)'))"
        )
    };
    days.iter().enumerate().map(row).collect::<Vec<_>>().join(", ")
}

async fn exact_step(lake: &Lake, table: &str, folder: &Path, sql: &str) -> Step {
    if !sql.is_empty() {
        lake.sql(sql).await;
    }
    let rows = rows_of(&lake.run("sql", &["--output", "json", &format!("SELECT {EXACT} FROM {table}")]), "id");
    Step { sql: sql.to_owned(), metadata: newest_metadata(folder), rows }
}

/// As [`compare`]; all readers show all values so. Sail reads times of day, but has no way to send them other than as numbers.
fn compare_exactly(steps: &[Step]) {
    for reader in READERS {
        let paths = steps.iter().map(|step| &step.metadata);
        let output = client("read_iceberg.py").args(["exact", reader]).args(paths).output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        let read: Vec<Vec<Row>> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(read.len(), steps.len(), "{reader}: {}", String::from_utf8_lossy(&output.stderr));
        for (number, (step, theirs)) in steps.iter().zip(read).enumerate() {
            if let Some(difference) = difference(&step.rows, &sorted(theirs, "id")) {
                panic!("{reader}, step {number}, after `{}` ({}): {difference}", step.sql, step.metadata.display());
            }
        }
    }
}

/// What each day's row must read as.
fn check_days(rows: &[Row]) {
    for (row, day) in rows.iter().zip(DAYS) {
        assert_eq!(row["d"], day, "{row:?}");
        for column in ["at", "seen"] {
            let micros = row[column].as_i64().or_else(|| row[column].as_str()?.parse().ok());
            assert_eq!(micros, Some(day * DAY + 1), "{column} {row:?}");
        }
    }
}

#[tokio::test]
async fn years_before_the_first_uuids_and_times_of_day_read_the_same_elsewhere() {
    let lake = Lake::up(TYPES);
    lake.sql("CREATE DATABASE IF NOT EXISTS lab").await;
    let merge_on_read = ["delete", "update", "merge"].map(|kind| format!("'write.{kind}.mode' = 'merge-on-read'"));
    for (name, parts) in [
        ("plain", ""),
        ("months", "PARTITIONED BY (month(d), bucket(3, u))"),
        ("years", "PARTITIONED BY (year(at), bucket(2, t))"),
        ("hours", "PARTITIONED BY (hour(seen))"),
        ("values", "PARTITIONED BY (seen, t)"),
    ] {
        let table = format!("lab.{name}");
        let folder = lake.data().join("objects/tables/lab").join(name);
        let columns = "id bigint, u uuid, d date, at timestamp, seen timestamp with time zone, t time";
        lake.sql(&format!("CREATE TABLE {table} ({columns}) {parts}")).await;
        let mut steps = Vec::new();
        for sql in [
            format!("INSERT INTO {table} VALUES {}, (5, NULL, NULL, NULL, NULL, NULL)", old_rows(&DAYS)),
            format!("INSERT INTO {table} SELECT id + 10, u, d, at, seen, t FROM {table}"),
            format!(
                "UPDATE {table} SET u = '00112233-4455-6677-8899-aabbccddeeff' WHERE d = arrow_cast(-735525, 'Date32') AND id > 5"
            ),
            format!("ALTER TABLE {table} SET TBLPROPERTIES ({})", merge_on_read.join(", ")),
            format!(
                "DELETE FROM {table} WHERE at < arrow_cast(-63549359999999998, 'Timestamp(Microsecond, None)') AND id > 5 OR t = TIME '00:00:00.000005' AND id > 5"
            ),
            format!("OPTIMIZE {table} REWRITE DATA USING SORT (at, u, t)"),
        ] {
            steps.push(exact_step(&lake, &table, &folder, &sql).await);
            check_days(&steps.last().unwrap().rows);
        }
        let counts: Vec<_> = steps.iter().map(|step| step.rows.len()).collect();
        assert_eq!(counts, [6, 12, 12, 12, 10, 10], "{name}");
        compare_exactly(&steps);
        assert!(!lake.sql(&format!("SELECT * FROM lab.\"{name}$files\"")).await.is_empty());
        for (filter, expected) in [
            ("d < DATE '0001-01-01'", "0,1,11"),
            ("at < TIMESTAMP '0001-01-01 00:00:00'", "0,1,11"),
            ("u = UUID '32323232-3232-3232-3232-323232323232'", "1,11"),
            ("t > TIME '23:59:59'", "2,12"),
            ("d > DATE '9999-01-01'", "4"),
        ] {
            let rows = lake.sql(&format!("SELECT id FROM {table} WHERE {filter} ORDER BY id")).await;
            let ids: Vec<_> = rows.iter().map(|row| row[0].to_string()).collect();
            assert_eq!(ids.join(","), expected, "{name}: {filter}");
        }
    }
}

#[tokio::test]
async fn years_before_the_first_that_others_write_are_read_and_changed() {
    let lake = Lake::up(TYPES);
    lake.sql("CREATE DATABASE IF NOT EXISTS lab").await;
    let folder = lake.data().join("objects/foreign/old");
    let output = client("write_iceberg.py").arg("old").arg(&folder).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    // Sail has no times of day and no uuids in its SQL.
    let theirs = lake.data().join("objects/foreign/theirs");
    let day = |(id, day): (usize, &i64)| {
        let micros = day * DAY + 1;
        format!(
            "SELECT {id}, date_add(date'1970-01-01', {day}), cast(timestamp_micros({micros}) AS timestamp_ntz), timestamp_micros({micros})"
        )
    };
    let rows = DAYS.iter().enumerate().map(day).collect::<Vec<_>>().join(" UNION ALL ");
    let columns = "id bigint, d date, at timestamp_ntz, seen timestamp";
    sail(
        &theirs,
        &[
            format!("CREATE TABLE x ({columns}) USING iceberg LOCATION '{}'", theirs.display()),
            format!("INSERT INTO x {rows}"),
        ],
    );
    for (name, folder) in [("old", &folder), ("theirs", &theirs)] {
        let (table, metadata) = (format!("lab.{name}"), newest_metadata(folder));
        let call = "CALL system.register_table";
        lake.sql(&format!("{call}(table => '{table}', metadata_file => '{}')", metadata.display())).await;
        if name == "theirs" {
            lake.sql(&format!("ALTER TABLE {table} ADD COLUMNS (u uuid, t time)")).await;
        }
        let mut steps = Vec::new();
        for sql in [
            String::new(),
            format!(
                "UPDATE {table} SET u = '00112233-4455-6677-8899-aabbccddeeff', t = TIME '12:00:00.5' WHERE d < DATE '0001-01-01'"
            ),
            format!("INSERT INTO {table} (id, d, at, seen) SELECT id + 10, d, at, seen FROM {table}"),
            format!("DELETE FROM {table} WHERE id = 11 OR at > TIMESTAMP '9999-12-30 00:00:00' AND id > 10"),
            format!("OPTIMIZE {table} REWRITE DATA USING ZORDER (d, at)"),
        ] {
            steps.push(exact_step(&lake, &table, folder, &sql).await);
            check_days(&steps.last().unwrap().rows);
        }
        let (before, updated) = (&steps[0].rows, &steps[1].rows);
        if name == "old" {
            assert_eq!(
                (&before[2]["u"], &before[2]["t"]),
                (&"64646464-6464-6464-6464-646464646464".into(), &(DAY - 1).into())
            );
        }
        assert_eq!(updated.iter().filter(|row| row["t"] == 43_200_500_000_i64).count(), 2, "{name}");
        let rows = if name == "old" { 6 } else { 5 };
        let counts: Vec<_> = steps.iter().map(|step| step.rows.len()).collect();
        assert_eq!(counts, [rows, rows, 2 * rows, 2 * rows - 2, 2 * rows - 2], "{name}");
        compare_exactly(&steps);
    }
}

#[tokio::test]
async fn partitions_whose_names_avro_does_not_take_are_read_and_changed() {
    let lake = Lake::up(TYPES);
    lake.sql("CREATE DATABASE IF NOT EXISTS lab").await;
    let names = [("a b", "a b"), ("1a", "1a"), ("\u{fc}", "\u{fc}"), ("ab", "a.b/x")];
    for (i, (column, partition)) in names.into_iter().enumerate() {
        let (table, folder) = (format!("lab.named{i}"), lake.data().join(format!("objects/foreign/named{i}")));
        let output = client("write_iceberg.py").arg("named").arg(&folder).args([column, partition]).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let metadata = newest_metadata(&folder);
        let call = "CALL system.register_table";
        lake.sql(&format!("{call}(table => '{table}', metadata_file => '{}')", metadata.display())).await;
        let mut steps = Vec::new();
        for sql in [
            String::new(),
            format!("UPDATE {table} SET id = id + 10 WHERE \"{column}\" = 'x'"),
            format!("INSERT INTO {table} VALUES (4, 'new'), (5, NULL)"),
            format!("DELETE FROM {table} WHERE \"{column}\" IS NULL AND id < 5"),
            format!("OPTIMIZE {table} REWRITE DATA USING BIN_PACK"),
        ] {
            steps.push(step(&lake, &table, &folder, &sql).await);
        }
        assert_eq!(steps[0].rows[0][column], Value::from("x"), "{column}");
        let counts: Vec<_> = steps.iter().map(|step| step.rows.len()).collect();
        assert_eq!(counts, [3, 3, 5, 4, 4], "{column}");
        compare("pyiceberg", &steps);
    }
}

#[tokio::test]
async fn a_metadata_file_that_is_no_table_is_refused_by_name() {
    let lake = Lake::up(TYPES);
    let file = lake.data().join("objects/foreign/broken/metadata/v1.metadata.json");
    std::fs::create_dir_all(file.parent().unwrap()).unwrap();
    for text in ["", "{}", r#"{"format-version": 2}"#] {
        std::fs::write(&file, text).unwrap();
        let sql = format!("CALL system.register_table(table => 'lab.broken', metadata_file => '{}')", file.display());
        let (status, answer) = lake.query(&sql).await;
        assert!((400..500).contains(&status), "{status} {answer:#}");
        let message = answer["error"]["message"].as_str().unwrap();
        assert!(message.contains("v1.metadata.json"), "{message}");
    }
    let (_, answer) = lake.query("SELECT * FROM lab.broken").await;
    assert_eq!(answer["error"]["kind"], Value::from("NotFound"));
}
