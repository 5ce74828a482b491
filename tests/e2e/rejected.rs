//! Refused records and rows in quarantine come back or are given up: by two at once, killed, on a full disk.

use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};

use crate::bad_input::SmallDisk;
use crate::lake::Lake;

const SHOP: &str = "
version: 1
database: shop
streams:
  orders:
    keep_rejects: true
    buffer: {interval: 900s}
    schema: [{name: id, type: bigint, required: true}, {name: customer, type: bigint}, {name: amount, type: int}]
workflows:
  daily:
    jobs:
      good:
        sql: SELECT id, customer, amount FROM orders
        into: mart.good
        write: merge
        key: [id]
        mode: incremental
        incremental: orders
        quality: [{name: small, check: {row: amount < 100}, action: quarantine}]
";

/// The answer of a command and its exit code.
fn run(lake: &Lake, arguments: &[&str]) -> (Option<i32>, Value) {
    let output = lake.run("errors", &[arguments, &["--output", "json"]].concat());
    let text = String::from_utf8(output.stdout).unwrap();
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    (output.status.code(), serde_json::from_str(&text).unwrap_or_else(|_| Value::from(error)))
}

/// Orders of a customer, all with this amount.
async fn put(lake: &Lake, ids: std::ops::Range<u64>, customer: u64, amount: u64) {
    let record = |id| format!("{{\"id\":{id},\"customer\":{customer},\"amount\":{amount}}}\n");
    let (status, _) =
        lake.post("/streams/orders/records", "application/x-ndjson", ids.map(record).collect::<String>()).await;
    assert!(status == 200 || status == 207 || status == 400, "{status}");
}

async fn daily(lake: &Lake) {
    lake.flush("orders").await;
    let (status, run) = lake.post("/workflows/daily/runs", "application/json", "{}").await;
    assert_eq!((status, &run["status"]), (200, &json!("succeeded")), "{run:#}");
}

fn edit(lake: &Lake, from: &str, to: &str) {
    let text = std::fs::read_to_string(lake.lakehouse()).unwrap();
    assert!(text.contains(from), "{from}");
    std::fs::write(lake.lakehouse(), text.replace(from, to)).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_in_quarantine_come_back_or_are_given_up_and_the_status_names_them_no_more() {
    let mut lake = Lake::up(SHOP);
    put(&lake, 0..10, 1, 50).await;
    put(&lake, 10..12, 1, 150).await;
    put(&lake, 12..15, 1, 500).await;
    daily(&lake).await;
    let of_job = ["daily", "--workflow", "--job", "good"];
    let (_, shown) = run(&lake, &[&["show"], &of_job[..], &["--rule", "small"]].concat());
    assert_eq!(shown["quarantine"].as_array().unwrap().len(), 5, "{shown:#}");
    assert_eq!(run(&lake, &["show", "daily", "--workflow", "--code", "x"]).0, Some(2), "rows have no code");
    lake.stop();
    edit(&lake, "amount < 100", "amount < 200");
    lake.start();
    let (code, dry) = run(&lake, &[&["replay"], &of_job[..], &["--dry-run"]].concat());
    assert_eq!((code, &dry["replayed"], &dry["failing"]), (Some(2), &json!(2), &json!(3)), "{dry:#}");
    let (code, done) = run(&lake, &[&["replay"], &of_job[..]].concat());
    assert_eq!((code, &done["replayed"]), (Some(2), &json!(2)), "{done:#}");
    assert_eq!(lake.number("SELECT count(*) FROM mart.good").await, Some(12));
    let (code, told) = run(&lake, &["discard", "daily", "--workflow"]);
    assert_eq!(code, Some(2), "no terminal to ask at");
    assert!(told.as_str().unwrap().contains("--yes"), "{told}");
    let (code, dry) = run(&lake, &["discard", "daily", "--workflow", "--dry-run"]);
    assert_eq!((code, &dry["discarded"]), (Some(0), &json!(3)), "{dry:#}");
    let (code, gone) = run(&lake, &[&["discard"], &of_job[..], &["--yes"]].concat());
    assert_eq!((code, &gone["discarded"]), (Some(0), &json!(3)), "{gone:#}");
    let (_, listed) = run(&lake, &["list"]);
    assert_eq!(listed["errors"], json!([]), "{listed:#}");

    put(&lake, 20..23, 1, 3_000_000_000).await;
    assert_eq!(run(&lake, &["list"]).1["errors"][0]["records"], 3);
    let (code, gone) = run(&lake, &["discard", "orders", "--code", "overflow", "--yes"]);
    assert_eq!((code, &gone["discarded"]), (Some(0), &json!(3)), "{gone:#}");
    let status = lake.run("status", &["--output", "json"]);
    let status: Value = serde_json::from_slice(&status.stdout).unwrap();
    let told: Vec<_> =
        status["problems"].as_array().unwrap().iter().map(|problem| problem["message"].as_str().unwrap()).collect();
    assert!(
        !told.iter().any(|message| message.contains("not stored") || message.contains("in quarantine")),
        "{told:?}"
    );

    put(&lake, 30..40, 1, 50).await;
    lake.flush("orders").await;
    // Every name of a metric has one set of labels, so that its sum counts nothing twice.
    let (_, metrics) = lake.get("/metrics").await;
    let mut labels = std::collections::BTreeMap::<String, Vec<String>>::new();
    for line in metrics.as_str().unwrap().lines().filter(|line| !line.starts_with('#')) {
        let series = line.rsplit_once(' ').unwrap().0;
        let (name, given) = series.split_once('{').unwrap_or((series, ""));
        let names = given.split(',').filter_map(|pair| pair.split_once('=')).map(|(name, _)| name.trim().to_owned());
        let names: Vec<String> = names.filter(|name| name != "quantile").collect();
        assert_eq!(labels.entry(name.into()).or_insert_with(|| names.clone()), &names, "{line}");
    }
    assert!(
        labels.contains_key("tarn_commits_total") && labels.contains_key("tarn_stream_commits_total"),
        "{labels:?}"
    );
    let none = lake.run("logs", &["--stream", "nosuch"]);
    let told = String::from_utf8_lossy(&none.stderr).into_owned();
    assert_eq!(none.status.code(), Some(3), "{told}");
    assert!(told.contains("`nosuch`") && told.contains("`orders`"), "{told}");
}

/// Refused for a type that is too narrow, and set aside by a rule; the file is mended, nothing runs.
async fn set_aside(mut lake: Lake, refused: u64, aside: u64) -> Lake {
    lake.start();
    put(&lake, 0..100, 7, 1).await;
    for from in (1_000..1_000 + refused).step_by(100) {
        put(&lake, from..from + 100, 7, 3_000_000_000).await;
    }
    for from in (10_000..10_000 + aside).step_by(100) {
        put(&lake, from..from + 100, 7, 1_000).await;
        daily(&lake).await;
    }
    daily(&lake).await;
    lake.stop();
    edit(&lake, "name: amount, type: int", "name: amount, type: bigint");
    edit(&lake, "amount < 100", "amount < 10000");
    lake
}

async fn counted(lake: &Lake, table: &str) -> (i64, i64) {
    let sql = |what: &str| format!("SELECT count({what}) FROM {table}");
    (lake.number(&sql("*")).await.unwrap(), lake.number(&sql("DISTINCT id")).await.unwrap())
}

const REPLAYS: [&[&str]; 2] = [&["replay", "orders"], &["replay", "daily", "--workflow", "--job", "good"]];

#[tokio::test(flavor = "multi_thread")]
async fn replays_by_two_at_once_that_are_killed_store_each_once() {
    let mut lake = set_aside(Lake::new(SHOP), 1_000, 600).await;
    lake.start();
    for after_ms in [3_u64, 10, 25, 60, 120, 250] {
        let begin = |arguments: &[&str]| {
            let mut tarn = lake.tarn("errors");
            tarn.args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
        };
        let mut asking: Vec<_> = REPLAYS.iter().chain(&REPLAYS).map(|arguments| begin(arguments)).collect();
        tokio::time::sleep(Duration::from_millis(after_ms)).await;
        lake.kill();
        asking.iter_mut().for_each(|child| {
            child.kill().unwrap();
            child.wait().unwrap();
        });
        lake.start();
    }
    // Two at once, to their end.
    let (one, other) = tokio::join!(
        lake.post("/streams/orders/errors/replay", "application/json", "{}"),
        lake.post("/streams/orders/errors/replay", "application/json", "{}"),
    );
    assert!(one.0 == 200 || other.0 == 200, "{one:?} {other:?}");
    let body = r#"{"job": "good"}"#;
    let (one, other) = tokio::join!(
        lake.post("/workflows/daily/quarantine/replay", "application/json", body),
        lake.post("/workflows/daily/quarantine/replay", "application/json", body),
    );
    assert!(one.0 == 200 || other.0 == 200, "{one:?} {other:?}");
    for arguments in REPLAYS {
        let (code, last) = run(&lake, arguments);
        assert_eq!((code, &last["failing"]), (Some(0), &json!(0)), "{last:#}");
    }
    assert_eq!(counted(&lake, "orders").await, (1_700, 1_700));
    assert_eq!(counted(&lake, "mart.good").await, (700, 700));
    assert_eq!(run(&lake, &["list"]).1["errors"], json!([]));
}

#[tokio::test(flavor = "multi_thread")]
async fn replays_and_erasures_on_a_full_disk_fail_and_are_done_once_there_is_room() {
    let disk = match SmallDisk::mount("64m") {
        Ok(disk) => disk,
        Err(why) => {
            eprintln!("not run on a full disk: {why}");
            return;
        }
    };
    let mut lake = set_aside(Lake::at(disk.path(), SHOP), 2_000, 500).await;
    lake.start();
    put(&lake, 50_000..50_100, 42, 1).await;
    lake.flush("orders").await;
    let padding = disk.path().join("padding");
    // The last bytes too: each replay needs a few KB for what is agreed on, its rows and the table's metadata.
    let fill = |leave: usize| {
        let target = format!("of={}", padding.display());
        let _ = Command::new("dd").args(["if=/dev/zero", "bs=1k", &target]).output();
        let length = std::fs::metadata(&padding).unwrap().len();
        std::fs::File::options()
            .write(true)
            .open(&padding)
            .unwrap()
            .set_len(length.saturating_sub(leave as u64))
            .unwrap();
    };
    let mut failed = 0;
    for leave in [0, 8 << 10, 24 << 10, 48 << 10] {
        for (path, body) in [
            ("/streams/orders/errors/replay", "{}"),
            ("/workflows/daily/quarantine/replay", r#"{"job": "good"}"#),
            ("/erasures", r#"{"where": "customer = 42"}"#),
        ] {
            fill(leave);
            let (status, answer) = lake.post(path, "application/json", body).await;
            failed += u32::from(status >= 400);
            assert!(status < 400 || !answer.to_string().is_empty(), "{path}");
        }
    }
    assert!(failed > 0, "the disk was full");
    lake.kill();
    std::fs::remove_file(&padding).unwrap();
    lake.start();
    for arguments in REPLAYS {
        let (code, last) = run(&lake, arguments);
        assert_eq!((code, &last["failing"]), (Some(0), &json!(0)), "{last:#}");
    }
    daily(&lake).await;
    let erased = |lake: &Lake| lake.run("erase", &["--where", "customer = 42", "--yes"]).status.code();
    if erased(&lake) != Some(0) {
        daily(&lake).await;
        assert_eq!(erased(&lake), Some(0), "{}", lake.log());
    }
    assert_eq!(counted(&lake, "orders").await, (2_600, 2_600));
    assert_eq!(lake.number("SELECT count(*) FROM orders WHERE customer = 42").await, Some(0));
    assert_eq!(lake.number("SELECT count(*) FROM mart.good WHERE customer = 42").await, Some(0));
    let (rows, distinct) = counted(&lake, "mart.good").await;
    assert_eq!(rows, distinct);
}

/// `tarn plan` writes nothing; what it tells of is done when the file is taken over.
#[tokio::test(flavor = "multi_thread")]
async fn a_takeover_of_an_edited_file_that_is_killed_is_done_by_the_next_start() {
    let mut lake = Lake::up(SHOP);
    put(&lake, 0..100, 1, 1).await;
    daily(&lake).await;
    let mut next = 100;
    for (n, after_ms) in
        [(0_u64, 0_u64), (1, 30), (2, 60), (3, 100), (4, 150), (5, 250), (6, 900), (7, 1_050), (8, 1_200)]
    {
        // In the stream when the file changes.
        put(&lake, next..next + 10, 1, 1).await;
        next += 10;
        edit(&lake, "{name: amount,", &format!("{{name: c{n}, type: string}}, {{name: amount,"));
        let mut planning = lake.tarn("plan").stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        if after_ms < 500 {
            // At its start, which takes the file over.
            lake.kill();
            let mut up = lake.tarn("up");
            let mut child = up
                .args(["--port", "0"])
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .unwrap();
            std::thread::sleep(Duration::from_millis(after_ms));
            planning.kill().unwrap();
            child.kill().unwrap();
            child.wait().unwrap();
        } else {
            // While it runs: it looks at its file each second.
            tokio::time::sleep(Duration::from_millis(after_ms)).await;
            planning.kill().unwrap();
            lake.kill();
        }
        planning.wait().unwrap();
        lake.start();
    }
    let record = format!("{{\"id\":{next},\"c0\":\"a\",\"c8\":\"b\"}}\n");
    assert_eq!(lake.post("/streams/orders/records", "application/x-ndjson", record).await.0, 200);
    lake.flush("orders").await;
    let all = i64::try_from(next + 1).unwrap();
    assert_eq!(counted(&lake, "orders").await, (all, all), "no record is lost or doubled");
    assert_eq!(lake.number("SELECT count(*) FROM orders WHERE c0 = 'a' AND c8 = 'b'").await, Some(1));
    lake.stop();
    let plan = lake.run("plan", &["--output", "json"]);
    let told: Value = serde_json::from_slice(&plan.stdout).unwrap();
    assert_eq!((plan.status.code(), &told["changes"]), (Some(0), &json!([])), "all is taken over");
}
