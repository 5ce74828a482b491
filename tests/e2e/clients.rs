//! Programs that nobody here wrote read the tables: pyiceberg and DuckDB, from the environment that `make setup` makes.

use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::flow::{SHOP, orders, walk};
use crate::lake::{Lake, as_i64};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()
}

/// What a reader finds in the table of a metadata file: rows, distinct ids, sum of amounts.
fn read(reader: &str, metadata: &Path) -> Value {
    let python = root().join(".venv/bin/python");
    assert!(python.exists(), "`make setup` makes the Python environment `.venv`");
    let output = Command::new(python)
        .arg(root().join("tests/clients/read_orders.py"))
        .args([reader.as_ref(), metadata.as_os_str()])
        .output()
        .unwrap();
    assert!(output.status.success(), "{reader}: {}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
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
    for (table, sql) in [
        ("shop/orders", "SELECT count(*), count(DISTINCT id), CAST(sum(amount) * 100 AS BIGINT) FROM orders"),
        ("mart/orders", "SELECT count(*), count(DISTINCT id), CAST(sum(amount) * 100 AS BIGINT) FROM mart.orders"),
        ("mart/revenue", "SELECT count(*), count(DISTINCT day), CAST(sum(revenue) * 100 AS BIGINT) FROM mart.revenue"),
    ] {
        let ours: Vec<i64> = lake.sql(sql).await[0].iter().map(as_i64).collect();
        for reader in ["pyiceberg", "duckdb"] {
            let theirs = read(reader, &metadata(&lake, table));
            let theirs: Vec<i64> = theirs.as_array().unwrap().iter().map(as_i64).collect();
            assert_eq!(theirs, ours, "{table} in {reader}");
        }
    }
}
