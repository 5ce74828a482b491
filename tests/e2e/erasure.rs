//! Erasures as docs/operations.md promises them: nothing is left, whoever writes meanwhile and whatever is killed.

use serde_json::Value;

use crate::lake::Lake;

const SHOP: &str = "
version: 1
database: shop
streams:
  orders:
    keep_rejects: true
    buffer: {interval: 900s}
    schema: [{name: order_id, type: bigint, required: true}, {name: customer_id, type: bigint}, {name: note, type: string}]
locations:
  customers: {}
workflows:
  daily:
    jobs:
      noted:
        sql: SELECT order_id, customer_id, note FROM orders
        into: mart.noted
        write: merge
        key: [order_id]
        mode: incremental
        incremental: orders
";

fn record(order: u64, customer: u64) -> String {
    format!("{{\"order_id\":{order},\"customer_id\":{customer},\"note\":\"of-customer-{customer}-\"}}\n")
}

/// The report of an erasure, and its exit code.
fn erase(lake: &Lake, arguments: &[&str]) -> (Option<i32>, Value) {
    let all = [&["--where", "customer_id = 42", "--output", "json"], arguments].concat();
    let output = lake.run("erase", &all);
    let text = String::from_utf8(output.stdout).unwrap();
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    (output.status.code(), serde_json::from_str(&text).unwrap_or_else(|e| panic!("{e}: {text}\n{error}")))
}

/// Files of the warehouse that hold something of the customer, in text or in the plain bytes of Parquet.
fn files_with(lake: &Lake, text: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut folders = vec![lake.data().join("objects")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let bytes = std::fs::read(&path).unwrap();
            if bytes.windows(text.len()).any(|part| part == text.as_bytes()) {
                found.push(path.display().to_string());
            }
        }
    }
    found
}

async fn shop() -> Lake {
    let lake = Lake::up(SHOP);
    for orders in [0..20, 20..40] {
        let records: String = orders.map(|order| record(order, if order % 10 == 3 { 42 } else { 7 })).collect();
        assert_eq!(lake.post("/streams/orders/records", "application/x-ndjson", records).await.0, 200);
        lake.flush("orders").await;
    }
    let customers = "customer_id,name\n7,seven\n42,of-customer-42-\n";
    assert_eq!(lake.put("/files/customers/customers.csv", customers).await.0, 201);
    assert_eq!(lake.post("/crawl", "application/json", "{}").await.0, 200);
    daily(&lake).await;
    lake
}

async fn daily(lake: &Lake) {
    let (status, run) = lake.post("/workflows/daily/runs", "application/json", "{}").await;
    assert_eq!((status, &run["status"]), (200, &Value::from("succeeded")), "{run:#}");
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_left_of_a_customer_and_nothing_of_it_comes_back() {
    let lake = shop().await;
    // Refused at the door and kept; still in the stream when the erasure begins.
    let refused = "{\"order_id\":\"x\",\"customer_id\":42,\"note\":\"of-customer-42-\"}\n";
    let buffered = record(50, 42) + &record(51, 7);
    lake.post("/streams/orders/records", "application/x-ndjson", refused.to_owned() + &buffered).await;
    assert!(files_with(&lake, "of-customer-42-").len() >= 3);

    let (code, looked) = erase(&lake, &["--dry-run"]);
    assert_eq!(code, Some(0));
    assert_eq!(looked["tables"].as_array().unwrap().len(), 2, "{looked:#}");
    assert_eq!(lake.number("SELECT count(*) FROM orders WHERE customer_id = 42").await, Some(4));
    let unasked = lake.run("erase", &["--where", "customer_id = 42"]);
    assert_eq!(unasked.status.code(), Some(2), "no terminal to ask at");
    assert_eq!(lake.number("SELECT count(*) FROM orders WHERE customer_id = 42").await, Some(4));

    let (code, waits) = erase(&lake, &["--yes"]);
    assert_eq!((code, &waits["complete"]), (Some(1), &Value::Bool(false)), "the job has to read on: {waits:#}");
    daily(&lake).await;
    let (code, done) = erase(&lake, &["--yes"]);
    assert_eq!(code, Some(0), "{done:#}");
    assert_eq!(files_with(&lake, "of-customer-42-"), Vec::<String>::new());
    for table in ["orders", "mart.noted"] {
        assert_eq!(lake.number(&format!("SELECT count(*) FROM {table} WHERE customer_id = 42")).await, Some(0));
    }
    assert_eq!(lake.number("SELECT count(*) FROM orders").await, Some(37), "order 51 and all others stay");
    assert_eq!(lake.number("SELECT count(*) FROM customers").await, Some(1));
    // What comes later is new.
    assert_eq!(lake.post("/streams/orders/records", "application/x-ndjson", record(60, 42)).await.0, 200);
    lake.flush("orders").await;
    assert_eq!(lake.number("SELECT count(*) FROM orders WHERE customer_id = 42").await, Some(1));
    daily(&lake).await;
    assert_eq!(lake.number("SELECT count(*) FROM mart.noted").await, Some(38));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_erasure_goes_on_after_any_kill_while_others_write() {
    let mut lake = shop().await;
    let mut order = 1_000;
    for after_ms in [5_u64, 20, 60, 120, 250] {
        let mut erasing = lake.tarn("erase").args(["--where", "customer_id = 42", "--yes"]).spawn().unwrap();
        order += 1;
        assert_eq!(lake.post("/streams/orders/records", "application/x-ndjson", record(order, 7)).await.0, 200);
        tokio::time::sleep(std::time::Duration::from_millis(after_ms)).await;
        // Both who asks and who does it.
        erasing.kill().unwrap();
        erasing.wait().unwrap();
        lake.kill();
        lake.start();
    }
    daily(&lake).await;
    for _ in 0..3 {
        if erase(&lake, &["--yes"]).0 == Some(0) {
            break;
        }
        daily(&lake).await;
    }
    let (code, done) = erase(&lake, &["--yes"]);
    assert_eq!(code, Some(0), "{done:#}");
    assert_eq!(lake.number("SELECT count(*) FROM orders").await, Some(36 + 5), "no other row is lost or doubled");
    assert_eq!(lake.number("SELECT count(DISTINCT order_id) FROM orders").await, Some(36 + 5));
    let left: Vec<_> = files_with(&lake, "of-customer-42-");
    assert!(
        left.len() <= 1,
        "a writer that was killed may have left a file, which the removal of orphans takes: {left:?}"
    );
}
