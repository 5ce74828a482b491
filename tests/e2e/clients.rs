//! Programs that nobody here wrote read the tables: pyiceberg and DuckDB, from the environment that `make setup` makes. What
//! they find is compared with our own answer, value by value.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use crate::flow::{SHOP, orders, walk};
use crate::lake::Lake;

/// A stream with a column of every type, a table that its rows are merged into, one that is written anew by each run.
pub(crate) const TYPES: &str = r#"
version: 1
database: lab
streams:
  samples:
    schema:
      - {name: number, type: bigint, required: true}
      - {name: id, type: int, required: true}
      - {name: flag, type: boolean}
      - {name: tiny, type: tinyint}
      - {name: small, type: smallint}
      - {name: big, type: bigint}
      - {name: single, type: float}
      - {name: amount, type: double}
      - {name: money, type: "decimal(20,4)"}
      - {name: cents, type: "decimal(9,2)"}
      - {name: text, type: string}
      - {name: bytes, type: binary}
      - {name: day, type: date}
      - {name: at, type: timestamp}
      - {name: seen, type: timestamptz}
      - {name: tags, type: array<string>}
      - {name: spot, type: "struct<lat:double,lon:double,names:array<string>>"}
      - {name: counts, type: "map<string,bigint>"}
      - {name: deep, type: "array<struct<a:int,b:map<string,decimal(5,2)>>>"}
    partition_by: [month(day), "bucket(3, id)"]
    buffer: {size: 1MiB, interval: 15m}
workflows:
  daily:
    jobs:
      merged:
        sql: SELECT * FROM samples
        into: mart.merged
        mode: incremental
        incremental: samples
        write: merge
        key: [id]
        partition_by: [month(day)]
      overwritten: {sql: "SELECT * FROM samples WHERE id % 2 = 0", into: mart.overwritten}
"#;

pub(crate) type Row = BTreeMap<String, Value>;

pub(crate) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()
}

pub(crate) fn rows_of(output: &std::process::Output, key: &str) -> Vec<Row> {
    assert!(output.status.success(), "{output:?}");
    let text = std::str::from_utf8(&output.stdout).unwrap();
    sorted(text.lines().map(|line| serde_json::from_str(line).unwrap()).collect(), key)
}

/// In the order of the numbers in the column `key`.
pub(crate) fn sorted(mut rows: Vec<Row>, key: &str) -> Vec<Row> {
    rows.sort_by_cached_key(|row| (row[key].as_i64(), json!(row).to_string()));
    rows
}

/// What a reader finds in the table of a metadata file.
fn read(reader: &str, metadata: &Path, key: &str) -> Vec<Row> {
    let python = root().join(".venv/bin/python");
    assert!(python.exists(), "`make setup` makes the Python environment `.venv`");
    let script = root().join("tests/clients/read_iceberg.py");
    let output = Command::new(python).arg(script).arg(reader).arg(metadata).output().unwrap();
    rows_of(&output, key)
}

/// The newest metadata file of a table.
fn metadata(lake: &Lake, table: &str) -> std::path::PathBuf {
    let mut files = walk(&lake.data().join("objects/tables").join(table.replace('.', "/")).join("metadata"));
    files.retain(|f| f.to_string_lossy().ends_with(".metadata.json"));
    files.sort();
    files.pop().expect("the table has metadata")
}

/// The first difference between two readings, in words.
pub(crate) fn difference(ours: &[Row], theirs: &[Row]) -> Option<String> {
    for (number, (our, their)) in ours.iter().zip(theirs).enumerate() {
        let columns: Vec<_> = our.keys().chain(their.keys().filter(|column| !our.contains_key(*column))).collect();
        if let Some(column) = columns.into_iter().find(|column| our.get(*column) != their.get(*column)) {
            let shown = |row: &Row| row.get(column).map_or("no such column".into(), Value::to_string);
            return Some(format!(
                "column `{column}`, row {number}: ours {}, theirs {}\nour row: {}",
                shown(our),
                shown(their),
                json!(our)
            ));
        }
    }
    (ours.len() != theirs.len()).then(|| format!("{} rows are ours, {} theirs", ours.len(), theirs.len()))
}

/// pyiceberg 0.11 reads a list of structs that is null as an empty one: `ArrowProjectionVisitor.list` makes the array anew from
/// offsets and values, without its validity. DuckDB has to find the null.
pub(crate) fn without_null_lists_of_structs(rows: &[Row]) -> Vec<Row> {
    let mut rows = rows.to_vec();
    for row in rows.iter_mut().filter(|row| row.get("deep").is_some_and(Value::is_null)) {
        row.insert("deep".into(), json!([]));
    }
    rows
}

/// Compares what both readers find in a table with our own answer; gives our answer.
fn compare(lake: &Lake, table: &str, key: &str) -> Vec<Row> {
    let ours = rows_of(&lake.run("sql", &["--output", "json", &format!("SELECT * FROM {table}")]), key);
    assert!(!ours.is_empty(), "{table} has rows");
    for reader in ["pyiceberg", "duckdb"] {
        let ours = if reader == "pyiceberg" { without_null_lists_of_structs(&ours) } else { ours.clone() };
        if let Some(difference) = difference(&ours, &read(reader, &metadata(lake, table), key)) {
            panic!("{table} in {reader}: {difference}");
        }
    }
    ours
}

/// A record with everything, or only with what is required, or with nulls inside.
pub(crate) fn sample(number: i64, id: i64) -> Value {
    let day = format!("201{}-{:02}-{:02}", id % 4, id % 12 + 1, id % 28 + 1);
    match id % 5 {
        0 => json!({"number": number, "id": id}),
        1 => json!({
            "number": number, "id": id, "flag": null, "text": "", "day": day, "bytes": "", "tags": [],
            "spot": {"lat": null, "names": [null]}, "counts": {}, "deep": [null, {"a": null, "b": null}, {"b": {"x": null}}],
        }),
        _ => json!({
            "number": number, "id": id, "flag": number % 2 == 0, "tiny": id % 128 - 64, "small": -number,
            "big": 9_007_199_254_740_993 + number, "single": f64::from(i32::try_from(id).unwrap()) / 8.0 + 0.1,
            "amount": 1.0 / (1.0 + f64::from(i32::try_from(number).unwrap())), "money": format!("-{number}123456789012.{:04}", id),
            "cents": format!("{id}.05"), "text": format!("Zürich \u{1f6eb} \"{number}\""), "bytes": "AP/+gA==", "day": day,
            "at": format!("{day}T23:59:59.{:06}", number * 7), "seen": format!("{day}T01:02:03.5+02:00"),
            "tags": ["a", null, number.to_string()],
            "spot": {"lat": 40.5 + f64::from(i32::try_from(id).unwrap()), "lon": -0.25, "names": ["JFK", ""]},
            "counts": {"x": number, "y": null, "z": -1},
            "deep": [{"a": id, "b": {"k": "1.50", "l": "-999.99"}}, {"a": 2, "b": {}}],
        }),
    }
}

#[tokio::test]
async fn every_value_of_every_type_reads_the_same_in_pyiceberg_and_duckdb() {
    let lake = Lake::up(TYPES);
    // The second round has half of the first one's ids again, under other numbers.
    for (round, ids) in [(0, 0..60), (1, 30..90)] {
        let body: String = ids.map(|id| sample(round * 100 + id, id).to_string() + "\n").collect();
        let (status, put) = lake.post("/streams/samples/records", "application/x-ndjson", body).await;
        assert_eq!(status, 200, "{put:#}");
        lake.flush("samples").await;
        let (_, run) = lake.post("/workflows/daily/runs", "application/json", "{}").await;
        assert_eq!(run["status"], "succeeded", "{run:#}");
        let rows = if round == 0 { [60, 60, 30] } else { [120, 90, 60] };
        for (table, expected) in ["lab.samples", "mart.merged", "mart.overwritten"].into_iter().zip(rows) {
            let rows = compare(&lake, table, "number");
            assert_eq!(rows.len(), expected, "{table}");
            let full = rows.iter().find(|row| row["id"] == 32).unwrap();
            let number = full["number"].as_i64().unwrap();
            assert_eq!(full["money"], format!("-{number}123456789012.0032"), "{table}");
            assert_eq!(full["seen"], "2010-09-04T23:02:03.500Z", "{table}");
            assert_eq!(full["deep"][0], json!({"a": 32, "b": {"k": "1.50", "l": "-999.99"}}), "{table}");
        }
    }
}

#[tokio::test]
async fn appended_merged_and_overwritten_tables_read_the_same_in_pyiceberg_and_duckdb() {
    let lake = Lake::up(SHOP);
    lake.put("/files/customers/customers.csv", "id,name\n1,Ada\n2,Grace\n3,Edsger\n").await;
    lake.until("SELECT count(*) FROM customers", 3).await;
    for first in [0, 60] {
        lake.post("/streams/orders/records", "application/x-ndjson", orders(first, 90)).await;
        lake.flush("orders").await;
        let (_, run) = lake.post("/workflows/daily/runs", "application/json", "{}").await;
        assert_eq!(run["status"], "succeeded", "{run:#}");
        for (table, key) in [("shop.orders", "id"), ("mart.orders", "id"), ("mart.revenue", "orders")] {
            compare(&lake, table, key);
        }
    }
}

#[test]
fn a_difference_is_told_with_its_column_and_row() {
    let rows = |text: &str| -> Vec<Row> { serde_json::from_str(text).unwrap() };
    let ours = rows(r#"[{"id": 1, "name": "a"}, {"id": 2, "name": null}]"#);
    assert_eq!(difference(&ours, &ours), None);
    let said = |text: &str| difference(&ours, &rows(text)).unwrap();
    assert!(
        said(r#"[{"id": 1, "name": "a"}, {"id": 2, "name": ""}]"#)
            .starts_with("column `name`, row 1: ours null, theirs \"\"")
    );
    assert!(said(r#"[{"id": 1}, {"id": 2, "name": null}]"#).contains("no such column"));
    assert!(said(r#"[{"id": 1, "name": "a"}]"#).contains("2 rows are ours, 1 theirs"));
}
