//! A record's and a file's way through all six functions, over HTTP.

use serde_json::{Value, json};

use crate::lake::{Lake, as_i64, gzip};

/// Orders as a stream, customers as files, a workflow that joins them, questions about both.
pub(crate) const SHOP: &str = r#"
version: 1
database: shop
streams:
  orders:
    schema:
      - {name: id, type: bigint, required: true}
      - {name: customer, type: int}
      - {name: placed_at, type: timestamp, required: true}
      - {name: amount, type: "decimal(10,2)"}
      - {name: quantity, type: smallint}
    partition_by: [day(placed_at)]
    buffer: {size: 1MiB, interval: 1s}
    shards: 2
locations:
  customers: {table: customers}
workflows:
  daily:
    jobs:
      enriched:
        sql: |
          SELECT o.id, o.placed_at, o.amount, c.name AS customer
          FROM orders o LEFT JOIN customers c ON o.customer = c.id
        into: mart.orders
        mode: incremental
        incremental: orders
        write: merge
        key: [id]
        quality:
          - {name: amount is there, check: {row: "amount IS NOT NULL"}, action: quarantine}
      revenue:
        sql: SELECT CAST(placed_at AS DATE) AS day, sum(amount) AS revenue, count(*) AS orders FROM mart.orders GROUP BY 1
        into: mart.revenue
insights:
  orders_a_day:
    kind: forecast
    sql: SELECT CAST(placed_at AS DATE) AS day, count(*) AS orders FROM orders GROUP BY 1
    date: day
    value: orders
    horizon: 7
"#;

/// `count` orders from `first`, three a day over sixty days and then again, as NDJSON.
pub(crate) fn orders(first: i64, count: i64) -> String {
    (first..first + count).map(|id| order(id).to_string() + "\n").collect()
}

fn order(id: i64) -> Value {
    let day = chrono::DateTime::from_timestamp(1_704_067_200 + id / 3 % 60 * 86_400, 0).unwrap();
    json!({"id": id, "customer": id % 3 + 1, "placed_at": day.format("%Y-%m-%dT%H:%M:%S").to_string(), "amount": 10.25, "quantity": 1})
}

const CUSTOMERS: &str = "id,name\n1,Ada\n2,Grace\n3,Edsger\n";

#[tokio::test]
async fn records_and_files_become_tables_workflows_answers_and_forecasts() {
    let lake = Lake::up(SHOP);

    let (status, put) = lake.post("/streams/orders/records", "application/x-ndjson", orders(0, 90)).await;
    assert_eq!(status, 200, "{put:#}");
    let headers = [("content-type", "application/x-ndjson"), ("content-encoding", "gzip")];
    let (status, put) = lake.post_with("/streams/orders/records", &headers, gzip(orders(90, 30).as_bytes())).await;
    assert_eq!(status, 200, "{put:#}");
    let (status, put) = lake.put("/files/customers/customers.csv", CUSTOMERS).await;
    assert_eq!(status, 201, "{put:#}");
    lake.until("SELECT count(*) FROM orders", 120).await;
    lake.until("SELECT count(*) FROM customers", 3).await;

    let (status, run) = lake.post("/workflows/daily/runs", "application/json", "{}").await;
    assert_eq!(status, 200, "{run:#}\n{}", lake.log());
    assert_eq!(run["status"], "succeeded", "{run:#}");
    let rows = lake.sql("SELECT customer, count(*) FROM mart.orders GROUP BY customer ORDER BY customer").await;
    let rows: Vec<_> = rows.iter().map(|r| (r[0].as_str().unwrap(), as_i64(&r[1]))).collect();
    assert_eq!(rows, [("Ada", 40), ("Edsger", 40), ("Grace", 40)]);
    assert_eq!(lake.number("SELECT count(*) FROM mart.revenue").await, Some(40));

    let (status, forecast) = lake.post("/insights/orders_a_day", "application/json", "{}").await;
    assert_eq!(status, 200, "{forecast:#}");
    assert_eq!(lake.number("SELECT count(*) FROM tarn.runs WHERE status = 'succeeded'").await, Some(2));
}

#[tokio::test]
async fn an_incremental_job_reads_only_what_is_new_and_sets_bad_rows_aside() {
    let lake = Lake::up(SHOP);
    lake.put("/files/customers/customers.csv", CUSTOMERS).await;
    lake.until("SELECT count(*) FROM customers", 3).await;
    for round in 0..3 {
        let mut body = orders(round * 10, 10);
        body += &format!("{{\"id\": {}, \"customer\": 1, \"placed_at\": \"2024-01-01\"}}\n", 1000 + round);
        let (status, put) = lake.post("/streams/orders/records", "application/x-ndjson", body).await;
        assert_eq!(status, 200, "{put:#}");
        lake.flush("orders").await;
        let (status, run) = lake.post("/workflows/daily/runs", "application/json", "{}").await;
        assert_eq!(status, 200, "{run:#}\n{}", lake.log());
        assert_eq!(lake.number("SELECT count(*) FROM mart.orders").await, Some(10 * (round + 1)));
        let text = run.to_string();
        assert!(text.contains("quarantin"), "the record says what was set aside: {text}");
    }
    let set_aside = walk(&lake.data().join("objects/quarantine"));
    assert_eq!(set_aside.len(), 3, "one object a run: {set_aside:?}");
}

#[tokio::test]
async fn a_restart_continues_where_it_was() {
    let mut lake = Lake::up(SHOP);
    lake.post("/streams/orders/records", "application/x-ndjson", orders(0, 50)).await;
    assert_eq!(lake.stop(), Some(0));
    lake.start();
    lake.post("/streams/orders/records", "application/x-ndjson", orders(50, 50)).await;
    lake.until("SELECT count(*) FROM orders", 100).await;
    assert_eq!(lake.number("SELECT count(DISTINCT id) FROM orders").await, Some(100));
}

#[tokio::test]
async fn a_file_that_is_dropped_into_the_raw_zone_is_crawled() {
    let lake = Lake::up(SHOP);
    let folder = lake.data().join("objects/raw/customers");
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join("a.csv"), CUSTOMERS).unwrap();
    lake.until("SELECT count(*) FROM customers", 3).await;
    std::fs::write(folder.join("b.csv"), "id,name\n4,Barbara\n").unwrap();
    lake.until("SELECT count(*) FROM customers", 4).await;
}

#[tokio::test]
async fn the_command_line_works_beside_a_running_tarn_and_without_it() {
    let mut lake = Lake::new(SHOP);
    let file = lake.data().with_file_name("orders.ndjson");
    std::fs::write(&file, orders(0, 12)).unwrap();
    let count = ["--output", "csv", "SELECT count(*) AS n FROM orders"];
    for running in [true, false] {
        if running {
            lake.start();
        }
        let put = lake.run("put", &["orders", file.to_str().unwrap()]);
        assert!(put.status.success(), "{put:?}");
        if running {
            lake.until("SELECT count(*) FROM orders", 12).await;
            let asked = lake.run("sql", &count);
            assert_eq!(String::from_utf8_lossy(&asked.stdout), "n\n12\n", "{asked:?}");
            lake.stop();
        }
    }
    let validated = lake.run("validate", &[]);
    assert!(
        validated.status.success() && String::from_utf8_lossy(&validated.stdout).contains("mart.orders"),
        "{validated:?}"
    );
    let asked = lake.run("sql", &["--output", "csv", "SELECT count(*) AS n FROM orders WHERE id >= 0"]);
    assert!(asked.status.success(), "{asked:?}");
    let nobody = lake.run("run", &["nightly"]);
    assert_eq!(nobody.status.code(), Some(3), "{nobody:?}");
}

/// Every file below a folder.
pub(crate) fn walk(folder: &std::path::Path) -> Vec<std::path::PathBuf> {
    let Ok(entries) = std::fs::read_dir(folder) else { return Vec::new() };
    entries
        .flat_map(|entry| {
            let path = entry.unwrap().path();
            if path.is_dir() { walk(&path) } else { vec![path] }
        })
        .collect()
}
