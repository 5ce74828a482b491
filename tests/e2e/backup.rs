//! Backups: taken while the lakehouse works, broken off, two at once, on a full disk, damaged; restored into an empty place and
//! compared row by row. And directories of other formats.

mod faults;
mod formats;
mod load;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use serde_json::{Value, json};
use shared::config::Settings;
use shared::model::TableName;
use tempfile::TempDir;

use crate::clients::rows_of;
use crate::flow::walk;
use crate::lake::{Lake, as_i64};

/// A stream, files, tables that are made of both: merged, and appended file by file; maintenance that removes files all the time.
const SHOP: &str = r#"
version: 1
database: shop
streams:
  orders:
    schema:
      - {name: id, type: bigint, required: true}
      - {name: note, type: string}
    buffer: {interval: 1s}
    keep_rejects: true
    shards: 2
locations:
  customers: {table: customers}
workflows:
  daily:
    jobs:
      merged:
        sql: SELECT id, note, id % 7 AS day FROM orders
        into: mart.orders
        mode: incremental
        incremental: orders
        write: merge
        key: [id]
        quality: [{name: no nines, check: {row: "id % 10 <> 9"}, action: quarantine}]
      seen:
        sql: SELECT id, name FROM customers
        into: mart.seen
        mode: incremental
        incremental: customers
        write: append
"#;

struct Backups(TempDir);

impl Backups {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self) -> PathBuf {
        self.0.path().join("backups")
    }

    fn text(&self) -> String {
        self.path().display().to_string()
    }

    /// Backs the lakehouse up; what the command says.
    fn take(&self, lake: &Lake, more: &[&str]) -> Value {
        let output = self.try_take(lake, more);
        assert!(output.status.success(), "{}\n{}", err(&output), lake.log());
        serde_json::from_slice(&output.stdout).unwrap()
    }

    fn try_take(&self, lake: &Lake, more: &[&str]) -> Output {
        lake.run("backup", &[&[self.text().as_str(), "--output", "json"], more].concat())
    }

    fn command(&self, lake: &Lake) -> Command {
        let mut command = lake.tarn("backup");
        command.arg(self.path()).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        command
    }

    /// Names of the backups.
    fn names(&self) -> Vec<String> {
        let listed = Lake::new(SHOP).run("backup", &[&self.text(), "--list", "--output", "json"]);
        assert!(listed.status.success(), "{}", err(&listed));
        let listed: Value = serde_json::from_slice(&listed.stdout).unwrap();
        let name = |backup: &Value| backup["name"].as_str().unwrap().to_owned();
        listed["backups"].as_array().unwrap().iter().map(name).collect()
    }

    fn verify(&self) -> Output {
        Lake::new(SHOP).run("backup", &[&self.text(), "--verify", "--output", "json"])
    }

    /// A lakehouse in a place of its own, restored.
    fn restored(&self, more: &[&str]) -> Lake {
        let lake = Lake::new(SHOP);
        let output = lake.run("restore", &[&[self.text().as_str()], more].concat());
        assert!(output.status.success(), "{}", err(&output));
        lake
    }

    /// The same with `tarn up` on it.
    fn up(&self, more: &[&str]) -> Lake {
        let mut lake = self.restored(more);
        lake.start();
        lake
    }
}

fn err(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// The text of an order, told by its id.
fn note(id: i64) -> String {
    format!("order {id} {}", id.wrapping_mul(2_654_435_761) % 1_000_003)
}

fn orders(ids: std::ops::Range<i64>) -> String {
    ids.map(|id| json!({"id": id, "note": note(id)}).to_string() + "\n").collect()
}

async fn send(lake: &Lake, ids: std::ops::Range<i64>) {
    let (status, answer) = lake.post("/streams/orders/records", "application/x-ndjson", orders(ids)).await;
    assert_eq!(status, 200, "{answer:#}");
}

async fn upload(lake: &Lake, id: i64) {
    let (status, answer) = lake.put(&format!("/files/customers/{id}.csv"), format!("id,name\n{id},c{id}\n")).await;
    assert_eq!(status, 201, "{answer:#}");
}

async fn run_daily(lake: &Lake) {
    let (status, run) = lake.post("/workflows/daily/runs", "application/json", "{}").await;
    assert_eq!((status, run["status"].as_str()), (200, Some("succeeded")), "{run:#}\n{}", lake.log());
}

/// The rows of a table of `id` and a text, by id; none twice.
async fn by_id(lake: &Lake, sql: &str) -> BTreeMap<i64, String> {
    let rows = lake.sql(sql).await;
    let found: BTreeMap<_, _> =
        rows.iter().map(|row| (as_i64(&row[0]), row[1].as_str().unwrap_or_default().to_owned())).collect();
    assert_eq!(found.len(), rows.len(), "none is there twice: {sql}");
    found
}

async fn filled() -> Lake {
    let lake = Lake::up(SHOP);
    send(&lake, 0..200).await;
    lake.flush("orders").await;
    for id in 0..5 {
        upload(&lake, id).await;
    }
    lake.until("SELECT count(*) FROM customers", 5).await;
    run_daily(&lake).await;
    lake.sql("CREATE TABLE notes AS SELECT 1 AS id, 'a' AS text").await;
    lake
}

/// What a lakehouse answers.
async fn content(lake: &Lake) -> BTreeMap<String, Vec<String>> {
    let mut all = BTreeMap::new();
    for table in ["orders", "customers", "mart.orders", "mart.seen", "notes"] {
        all.insert(table.to_owned(), lake.rows(table).await);
    }
    for path in ["/streams/orders/errors", "/workflows/daily/quarantine"] {
        let (status, answer) = lake.get(path).await;
        assert_eq!(status, 200, "{answer:#}");
        let mut lines: Vec<_> = answer["errors"].as_array().or(answer["quarantine"].as_array()).unwrap().clone();
        lines.iter_mut().for_each(|line| drop(line.as_object_mut().unwrap().remove("object")));
        let mut lines: Vec<_> = lines.iter().map(Value::to_string).collect();
        lines.sort();
        all.insert(path.to_owned(), lines);
    }
    all
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restored_lakehouse_goes_on_and_reads_no_file_twice() {
    let mut lake = filled().await;
    send(&lake, 200..210).await;
    let before = content(&lake).await;
    let backups = Backups::new();
    backups.take(&lake, &[]);
    lake.stop();
    std::fs::remove_dir_all(lake.data()).unwrap();

    let mut restored = backups.up(&[]);
    let own = restored.data().join("lakehouse.yaml");
    assert_eq!(std::fs::read_to_string(own).unwrap(), SHOP, "the lakehouse file in force came along");
    for (table, rows) in content(&restored).await {
        // What was in the stream may be in its table by now.
        assert!(rows == before[&table] || table == "orders", "{table}");
    }
    restored.until("SELECT count(*) FROM orders", 210).await;
    upload(&restored, 5).await;
    restored.until("SELECT count(*) FROM customers", 6).await;
    run_daily(&restored).await;
    assert_eq!(restored.number("SELECT count(*) FROM mart.seen").await, Some(6), "five files were read before");
    assert_eq!(restored.number("SELECT count(*) FROM mart.orders").await, Some(189));
    let (_, crawls) = restored.get("/crawls").await;
    assert!(!crawls.to_string().contains("\"changed\":5"), "{crawls:#}");

    // And so does one that was copied with the times of its files.
    restored.stop();
    let copy = Lake::new(SHOP);
    assert!(Command::new("cp").arg("-a").args([restored.data(), copy.data()]).status().unwrap().success());
    let mut copy = copy;
    copy.start();
    upload(&copy, 6).await;
    copy.until("SELECT count(*) FROM customers", 7).await;
    run_daily(&copy).await;
    assert_eq!(copy.number("SELECT count(*) FROM mart.seen").await, Some(7));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_backup_adds_only_what_is_new_and_the_oldest_go() {
    let lake = filled().await;
    let blob: Vec<u8> = (0..3_000_000_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    std::fs::write(lake.data().join("objects/raw/large.bin"), &blob).unwrap();
    let backups = Backups::new();
    let first = backups.take(&lake, &[]);
    assert!(first["newBytes"].as_u64().unwrap() > 3_000_000, "{first}");
    let second = backups.take(&lake, &[]);
    assert!(second["newBytes"].as_u64().unwrap() < 1_000_000, "{second}");
    lake.sql("DROP TABLE notes").await;
    std::fs::remove_file(lake.data().join("objects/raw/large.bin")).unwrap();
    assert_eq!(backups.names().len(), 2);
    let size = || walk(&backups.path()).iter().map(|file| file.metadata().unwrap().len()).sum::<u64>();
    assert!(size() > 3_000_000);
    let third = backups.take(&lake, &["--keep", "1"]);
    assert_eq!(third["removed"], json!([first["name"], second["name"]]));
    assert_eq!(backups.names(), [third["name"].as_str().unwrap()]);
    assert!(size() < 3_000_000, "what only the earlier ones had is gone: {}", size());
    let restored = backups.up(&[]);
    assert_eq!(restored.rows("orders").await, lake.rows("orders").await);
    assert_eq!(restored.query("SELECT * FROM notes").await.0, 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_can_not_be_backed_up_or_restored_is_refused_by_name() {
    let lake = filled().await;
    let backups = Backups::new();
    let refused = |output: Output, code: i32, text: &str| {
        assert_eq!(output.status.code(), Some(code), "{}", err(&output));
        assert!(err(&output).contains(text), "{text}: {}", err(&output));
    };
    refused(Lake::new(SHOP).run("restore", &[&backups.text()]), 3, "tarn-backups.json");
    refused(Lake::new(SHOP).run("backup", &[&backups.text()]), 3, "no data directory");
    let inside = lake.data().join("backups").display().to_string();
    refused(lake.run("backup", &[&inside]), 2, "apart from the data directory");
    assert!(!lake.data().join("backups").exists());
    refused(lake.run("backup", &[&backups.text(), "--url", "http://127.0.0.1:1"]), 2, "deployed");
    std::fs::create_dir_all(backups.path()).unwrap();
    std::fs::write(backups.path().join("letters.txt"), "x").unwrap();
    refused(backups.try_take(&lake, &[]), 4, "letters.txt");
    std::fs::remove_file(backups.path().join("letters.txt")).unwrap();

    let report = backups.take(&lake, &[]);
    refused(Lake::new(SHOP).run("restore", &[&backups.text(), "--at", "2001"]), 3, report["name"].as_str().unwrap());
    refused(lake.run("restore", &[&backups.text()]), 4, "empty directory");
    let other = filled().await;
    refused(backups.try_take(&other, &[]), 4, "of the lakehouse at");
    assert_eq!(backups.names(), [report["name"].as_str().unwrap()]);
}

/// The rows of a table as another engine reads it, by its metadata file.
fn read_by(reader: &str, metadata: &str) -> Vec<crate::clients::Row> {
    let python = crate::clients::root().join(".venv/bin/python");
    let script = crate::clients::root().join("tests/clients/read_iceberg.py");
    rows_of(&Command::new(python).arg(script).args([reader, metadata]).output().unwrap(), "id")
}

async fn metadata_of(lake: &Lake, table: &str) -> String {
    let ports = adapters_embedded::open(&Settings::embedded(&lake.data()).unwrap()).unwrap();
    let table = ports.catalog.get_table(&TableName::new("shop", table).unwrap()).await.unwrap();
    table.input.parameters["metadata_location"].clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lakehouse_that_is_relocated_is_read_by_other_engines_in_its_new_place() {
    let mut lake = filled().await;
    for (table, version) in [("v2", 2), ("v3", 3)] {
        let properties = format!("'format-version'='{version}', 'write.delete.mode'='merge-on-read'");
        lake.sql(&format!(
            "CREATE TABLE {table} (id BIGINT, day DATE) PARTITIONED BY (day) TBLPROPERTIES ({properties})"
        ))
        .await;
        for first in [0, 10] {
            let rows =
                (first..first + 10).map(|id| format!("({id}, DATE '2026-01-0{}')", id % 3 + 1)).collect::<Vec<_>>();
            lake.sql(&format!("INSERT INTO {table} VALUES {}", rows.join(", "))).await;
        }
        lake.sql(&format!("DELETE FROM {table} WHERE id % 4 = 1")).await;
    }
    let tables = ["v2", "v3", "orders", "notes"];
    let mut before = Vec::new();
    for table in tables {
        before.push(lake.rows(table).await);
    }
    lake.stop();
    let backups = Backups::new();
    backups.take(&lake, &[]);
    let old = std::fs::read_to_string(lake.data().join("objects.url")).unwrap();
    std::fs::remove_dir_all(lake.data()).unwrap();

    let mut restored = backups.restored(&["--relocate"]);
    assert_ne!(std::fs::read_to_string(restored.data().join("objects.url")).unwrap(), old);
    for table in tables {
        let metadata = metadata_of(&restored, table).await;
        let ours = rows_of(&restored.run("sql", &["--output", "json", &format!("SELECT * FROM {table}")]), "id");
        assert!(!ours.is_empty() && !metadata.contains(old.trim()), "{metadata}");
        for reader in ["duckdb", "pyiceberg"] {
            let place = url::Url::parse(&metadata).unwrap().to_file_path().unwrap();
            assert_eq!(read_by(reader, place.to_str().unwrap()), ours, "{reader} reads {table}");
        }
    }
    restored.start();
    for (table, before) in tables.iter().zip(before) {
        assert_eq!(restored.rows(table).await, before, "{table}");
    }
    // It goes on there: files are known, old ones are removed, new ones have URLs of the new place.
    run_daily(&restored).await;
    assert_eq!(restored.number("SELECT count(*) FROM mart.seen").await, Some(5), "no file is read twice");
    restored.sql("DELETE FROM v2 WHERE id = 0").await;
    restored.sql("OPTIMIZE v3 REWRITE DATA USING BIN_PACK").await;
    restored.sql("ALTER TABLE v2 SET TBLPROPERTIES ('history.expire.max-snapshot-age-ms'='1')").await;
    restored.sql("VACUUM v2").await;
    restored.sql("DROP TABLE notes").await;
    restored.stop();
    for table in ["v2", "v3"] {
        let metadata = metadata_of(&restored, table).await;
        let ours = rows_of(&restored.run("sql", &["--output", "json", &format!("SELECT * FROM {table}")]), "id");
        let place = url::Url::parse(&metadata).unwrap().to_file_path().unwrap();
        assert_eq!(read_by("duckdb", place.to_str().unwrap()), ours, "{table}");
    }
}
