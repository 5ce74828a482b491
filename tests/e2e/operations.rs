//! What docs/operations.md promises: what is wrong is told, what happened can be looked up, refused records come back.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::lake::Lake;

const SHOP: &str = "
version: 1
database: shop
streams:
  orders:
    keep_rejects: true
    buffer: {interval: 1s}
    schema: [{name: id, type: bigint, required: true}, {name: amount, type: int}]
locations:
  customers: {}
workflows:
  daily:
    jobs:
      good:
        sql: SELECT id, amount FROM orders
        into: mart.good
        quality: [{name: not too much, check: {row: amount < 100}, action: quarantine}]
";

/// What a command wrote, and its exit code.
fn run(lake: &Lake, command: &str, arguments: &[&str]) -> (Option<i32>, String) {
    let output = lake.run(command, arguments);
    (output.status.code(), String::from_utf8(output.stdout).unwrap())
}

fn json_of(lake: &Lake, command: &str, arguments: &[&str]) -> Value {
    let (_, text) = run(lake, command, &[arguments, &["--output", "json"]].concat());
    serde_json::from_str(&text).unwrap_or_else(|e| panic!("{command} {arguments:?}: {e}\n{text}"))
}

/// The problems of a subject in a status.
fn problems<'a>(status: &'a Value, subject: &str) -> Vec<&'a Value> {
    let all = status["problems"].as_array().unwrap();
    all.iter().filter(|problem| problem["subject"] == subject).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn refused_records_are_told_kept_shown_and_stored_once_the_schema_is_mended() {
    let mut lake = Lake::new(SHOP);
    assert_eq!(run(&lake, "status", &[]).0, Some(3), "a mistyped directory is not sound, and is not made");
    assert!(!lake.data().exists());
    lake.start();
    let (code, text) = run(&lake, "status", &[]);
    assert_eq!((code, text.lines().next()), (Some(0), Some("nothing is wrong")), "{text}");
    let records = lake.data().with_file_name("orders.csv");
    std::fs::write(&records, "id,amount\n1,10\n2,3000000000\n3,\"x, y\"\n4\n5,50\n").unwrap();
    let rejects = lake.data().with_file_name("rejects.ndjson");
    let put = [&["orders"][..], &[records.to_str().unwrap(), "--rejects", rejects.to_str().unwrap()]].concat();
    assert_eq!(run(&lake, "put", &put).0, Some(2));
    let kept: Vec<Value> =
        std::fs::read_to_string(&rejects).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let raw = |line: &Value| String::from_utf8(STANDARD.decode(line["rawData"].as_str().unwrap()).unwrap()).unwrap();
    assert_eq!(kept.iter().map(raw).collect::<Vec<_>>(), ["2,3000000000", "3,\"x, y\"", "4"]);
    assert_eq!(kept[0]["errorCode"], "overflow");

    let (code, text) = run(&lake, "status", &[]);
    assert_eq!(code, Some(1), "{text}");
    assert!(text.starts_with("2 things are wrong\n"), "{text}");
    let status = json_of(&lake, "status", &[]);
    let told: Vec<_> = problems(&status, "stream").iter().map(|p| p["message"].as_str().unwrap()).collect();
    assert!(told.iter().any(|message| message.starts_with("3 records refused in the last 24 hours")), "{told:?}");
    assert!(told.iter().any(|message| message.starts_with("3 records not stored, in 1 object;")), "{told:?}");
    let (_, metrics) = lake.get("/metrics").await;
    let metrics = metrics.as_str().unwrap();
    for line in [
        "tarn_records_rejected_total{stream=\"orders\"} 3",
        "tarn_records_accepted_total{stream=\"orders\"} 2",
        "tarn_problems{severity=\"warning\"} 2",
        "tarn_stream_error_records{stream=\"orders\"} 3",
    ] {
        assert!(metrics.lines().any(|found| found == line), "{line}\n{metrics}");
    }

    assert_eq!(json_of(&lake, "errors", &["list"])["errors"][0]["records"], 3);
    let shown = json_of(&lake, "errors", &["show", "orders", "--code", "overflow"]);
    assert_eq!(shown["errors"][0]["data"], r#"{"id":2,"amount":3000000000}"#);
    lake.until("SELECT count(*) FROM orders", 2).await;
    lake.stop();

    std::fs::write(lake.lakehouse(), SHOP.replace("name: amount, type: int", "name: amount, type: bigint")).unwrap();
    lake.start();
    assert_eq!(json_of(&lake, "errors", &["replay", "orders", "--dry-run"])["replayed"], 1);
    assert_eq!(lake.number("SELECT count(*) FROM orders").await, Some(2));
    let replayed = json_of(&lake, "errors", &["replay", "orders"]);
    assert_eq!((&replayed["replayed"], &replayed["failing"]), (&json!(1), &json!(2)), "{replayed}");
    assert_eq!(lake.number("SELECT sum(amount) FROM orders").await, Some(3_000_000_060));
    assert_eq!(json_of(&lake, "errors", &["replay", "orders"])["replayed"], 0);
    assert_eq!(json_of(&lake, "errors", &["list"])["errors"][0]["records"], 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_fails_is_told_with_its_cause_until_it_succeeds_and_the_log_can_be_looked_up() {
    let mut lake = Lake::up(SHOP);
    let (status, _) = lake.put("/files/customers/a.csv", "id,name\n1,Ada\n").await;
    assert_eq!(status, 201);
    lake.until("SELECT count(*) FROM customers", 1).await;
    let (status, _) = lake.put("/files/customers/odd.bin", vec![0, 159, 146, 150]).await;
    assert_eq!(status, 201);
    lake.post("/crawl", "application/json", "{}").await;
    // No record was stored yet, so the table is not there.
    let (_, run_) = lake.post("/workflows/daily/runs", "application/json", "{}").await;
    assert_eq!(run_["status"], "failed", "{run_:#}");
    let status = json_of(&lake, "status", &[]);
    let [failed] = problems(&status, "workflow")[..] else { panic!("{status:#}") };
    assert!(failed["message"].as_str().unwrap().starts_with("failed: job `good`: "), "{failed:#}");
    assert!(failed["advice"].as_str().unwrap().contains(run_["run"].as_str().unwrap()), "{failed:#}");
    let [odd] = problems(&status, "location")[..] else { panic!("{status:#}") };
    assert!(odd["message"].as_str().unwrap().contains("`odd.bin`"), "{odd:#}");

    lake.post(
        "/streams/orders/records",
        "application/x-ndjson",
        "{\"id\":1,\"amount\":1}\n{\"id\":2,\"amount\":200}\n",
    )
    .await;
    lake.flush("orders").await;
    for _ in 0..2 {
        let (_, run_) = lake.post("/workflows/daily/runs", "application/json", "{}").await;
        assert_eq!(run_["status"], "succeeded", "{run_:#}");
        // A full run sets the row aside anew, and not twice.
        let rows = json_of(&lake, "errors", &["show", "daily", "--workflow", "--job", "good"]);
        assert_eq!(rows["quarantine"].as_array().unwrap().len(), 1, "{rows}");
        assert_eq!(rows["quarantine"][0]["row"], json!({"id": 2, "amount": 200}));
    }
    let status = json_of(&lake, "status", &[]);
    let told: Vec<_> = problems(&status, "workflow").iter().map(|p| p["message"].as_str().unwrap()).collect();
    assert!(told.iter().any(|message| message.starts_with("1 row in quarantine, in 1 object;")), "{told:?}");
    assert!(!told.iter().any(|message| message.starts_with("failed")), "{told:?}");

    lake.stop();
    let (code, text) = run(&lake, "logs", &["--stream", "orders"]);
    assert_eq!(code, Some(0));
    let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(!lines.is_empty() && lines.iter().all(|line| line["stream"] == "orders"), "{text}");
    let (_, text) = run(&lake, "logs", &["--run", run_["run"].as_str().unwrap()]);
    assert!(text.contains("run ended"), "{text}");
    assert_eq!(run(&Lake::new(SHOP), "logs", &[]).0, Some(3));
}
