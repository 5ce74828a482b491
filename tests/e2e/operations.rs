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

/// A stream whose table is kept by default, each second, as nights come seldom; `more` is at the end of the file.
fn kept_each_second(more: &str) -> String {
    format!(
        "version: 1\ndatabase: shop\nstreams:\n  orders: {{buffer: {{interval: 900s}}, schema: [{{name: id, type: bigint}}]}}\n{more}\n"
    )
}

/// Puts `count` batches of one record, each a commit.
async fn small_commits(lake: &Lake, first: i64, count: i64) {
    for id in first..first + count {
        let (status, put) =
            lake.post("/streams/orders/records", "application/x-ndjson", format!("{{\"id\": {id}}}\n")).await;
        assert_eq!(status, 200, "{put:#}");
        lake.flush("orders").await;
    }
}

async fn count(lake: &Lake, of: &str) -> i64 {
    crate::lake::as_i64(&lake.sql(&format!("SELECT count(*) FROM {of}")).await[0][0])
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_s_table_is_compacted_without_a_declaration_and_then_is_at_rest() {
    let mut lake = Lake::new(&kept_each_second("maintenance: {schedule: rate(1s)}"));
    lake.start();
    small_commits(&lake, 0, 8).await;
    for tries in 0.. {
        let (_, runs) = lake.get("/workflows/maintenance/runs").await;
        let over = |run: &Value| run["recorded"] == true && run["jobs"]["shop.orders"]["status"] == "succeeded";
        if count(&lake, "\"orders$files\"").await < 5 && runs["runs"].as_array().unwrap().iter().any(over) {
            break;
        }
        assert!(tries < 100, "the table is not compacted: {runs:#}");
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    assert_eq!(
        lake.sql("SELECT count(*), count(DISTINCT id), sum(id) FROM orders").await,
        [[8, 8, 28].map(Value::from)]
    );
    let runs = lake.sql("SELECT workflow, job, status FROM tarn.runs").await;
    assert!(runs.contains(&["maintenance", "shop.orders", "succeeded"].map(Value::from).to_vec()), "{runs:?}");
    // Two more due times, so that what is under way is over; then nothing is written any more.
    let rest = std::time::Duration::from_millis(2_500);
    let snapshots = async || {
        let (orders, runs) =
            (count(&lake, "\"orders$snapshots\"").await, count(&lake, "tarn.\"runs$snapshots\"").await);
        (orders, runs, count(&lake, "tarn.runs").await)
    };
    tokio::time::sleep(rest).await;
    let before = snapshots().await;
    tokio::time::sleep(rest).await;
    assert_eq!(snapshots().await, before, "a lakehouse at rest is not written");
    let status = json_of(&lake, "status", &[]);
    for subject in ["workflow", "table"] {
        assert!(problems(&status, subject).is_empty(), "{status:#}");
    }
    let schedules = status["schedules"].as_array().unwrap();
    assert!(schedules.iter().any(|one| one["name"] == "maintenance"), "{schedules:?}");
    let (code, told) = run(&lake, "run", &["maintenance"]);
    assert_eq!(code, Some(0), "{told}");
}

#[tokio::test(flavor = "multi_thread")]
async fn one_line_turns_maintenance_by_default_off() {
    let mut lake = Lake::new(&kept_each_second("maintenance: off"));
    lake.start();
    small_commits(&lake, 0, 8).await;
    tokio::time::sleep(std::time::Duration::from_millis(2_500)).await;
    assert_eq!(count(&lake, "\"orders$files\"").await, 8);
    assert_eq!(run(&lake, "run", &["maintenance"]).0, Some(3), "there is no such workflow");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_is_whole_though_its_maintenance_is_killed_anywhere() {
    let keeps = "maintenance: {schedule: rate(1s), compact: {min_files: 2}, expire: {older_than: 0s}}";
    let mut lake = Lake::new(&kept_each_second(keeps));
    let mut next = 0;
    for alive_ms in [0, 150, 300, 450, 600, 800, 1_000] {
        lake.start();
        small_commits(&lake, next, 3).await;
        next += 3;
        tokio::time::sleep(std::time::Duration::from_millis(alive_ms)).await;
        lake.kill();
    }
    lake.start();
    let whole = [next, next, next * (next - 1) / 2].map(Value::from);
    assert_eq!(
        lake.sql("SELECT count(*), count(DISTINCT id), sum(id) FROM orders").await,
        std::slice::from_ref(&whole)
    );
    let (code, told) = run(&lake, "run", &["maintenance"]);
    assert!(matches!(code, Some(0 | 4)), "another run may go on: {code:?} {told}");
    for tries in 0.. {
        if count(&lake, "\"orders$files\"").await == 1 && count(&lake, "\"orders$snapshots\"").await == 1 {
            break;
        }
        assert!(tries < 100, "what was left undone is not done: {}", lake.get("/status/transform").await.1);
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    assert_eq!(lake.sql("SELECT count(*), count(DISTINCT id), sum(id) FROM orders").await, [whole]);
}
