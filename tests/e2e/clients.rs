//! Programs that nobody here wrote read the tables: pyiceberg and DuckDB, from the environment that `make setup` makes.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::flow::{SHOP, orders, walk};
use crate::lake::{Lake, as_i64};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()
}

/// What a reader finds in the table of a metadata file: rows, distinct values of `key`, sum of `money` in cents.
fn read(reader: &str, metadata: &Path, key: &str, money: &str) -> Vec<i64> {
    let python = root().join(".venv/bin/python");
    assert!(python.exists(), "`make setup` makes the Python environment `.venv`");
    let output = Command::new(python)
        .arg(root().join("tests/clients/read_iceberg.py"))
        .args([reader.as_ref(), metadata.as_os_str()])
        .output()
        .unwrap();
    assert!(output.status.success(), "{reader}: {}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    let rows: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let keys: BTreeSet<String> = rows.iter().map(|row| row[key].to_string()).collect();
    let cents = rows.iter().filter_map(|row| row[money].as_str()).map(cents).sum();
    vec![i64::try_from(rows.len()).unwrap(), i64::try_from(keys.len()).unwrap(), cents]
}

/// `10.25` as 1025.
fn cents(money: &str) -> i64 {
    let (whole, fraction) = money.split_once('.').unwrap_or((money, "00"));
    format!("{whole}{fraction:0<2}").parse().unwrap()
}

/// The newest metadata file of a table.
fn metadata(lake: &Lake, table: &str) -> std::path::PathBuf {
    let mut files = walk(&lake.data().join("objects/tables").join(table).join("metadata"));
    files.retain(|f| f.to_string_lossy().ends_with(".metadata.json"));
    files.sort();
    files.pop().expect("the table has metadata")
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
    }
    for (name, key, money) in
        [("shop.orders", "id", "amount"), ("mart.orders", "id", "amount"), ("mart.revenue", "day", "revenue")]
    {
        let sql = format!("SELECT count(*), count(DISTINCT {key}), CAST(sum({money}) * 100 AS BIGINT) FROM {name}");
        let ours: Vec<i64> = lake.sql(&sql).await[0].iter().map(as_i64).collect();
        assert!(ours[0] > 0, "{name} has rows");
        for reader in ["pyiceberg", "duckdb"] {
            let theirs = read(reader, &metadata(&lake, &name.replace('.', "/")), key, money);
            assert_eq!(theirs, ours, "{name} in {reader}");
        }
    }
}
