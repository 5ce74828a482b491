//! Runs that nobody waits for: every one is done, once, in order, whoever dies meanwhile.

use std::time::Duration;

use serde_json::{Value, json};
use shared::clock::Clock;
use shared::deadline;
use shared::state::Expect;
use shared::telemetry::trace;
use testing::catalog_faults::Fault;
use transform::Transform;

use crate::lake::{Lake, call, name, resume, send_to};
use crate::recovery::faulty;

const APPEND: &str =
    "  w: { parameters: { n: '0' }, jobs: { one: { sql: 'SELECT ${n} AS n', into: one, write: append } } }\n";

fn tick() -> Value {
    json!({"detail-type": "Scheduled Event", "source": "aws.events", "id": "t", "detail": {}})
}

async fn queue(transform: &Transform, n: u32) -> (u16, Value) {
    let body = json!({"parameters": {"n": n}});
    send_to(transform, "POST", "/workflows/w/runs", "wait=false", &body).await
}

async fn get(transform: &Transform, run: &Value) -> Value {
    send_to(transform, "GET", &format!("/runs/{}", run["run"].as_str().unwrap()), "", &json!(null)).await.1
}

#[tokio::test]
async fn queued_runs_are_done_by_the_next_tick_in_the_order_they_came() {
    let lake = Lake::new().await;
    let transform = lake.transform(APPEND);
    let mut runs = Vec::new();
    for n in 1..=3 {
        let (status, run) = queue(&transform, n).await;
        assert_eq!((status, &run["status"]), (202, &json!("pending")), "{run:#}");
        runs.push(run);
        lake.clock.advance(1);
    }
    assert_eq!(get(&transform, &runs[0]).await["status"], "pending");
    let answer = call(&transform, tick()).await.unwrap();
    let done: Vec<_> = runs.iter().map(|run| json!({"run": run["run"], "status": "succeeded"})).collect();
    assert_eq!(answer["queue"], json!(done));
    let rows = lake.rows("SELECT n FROM one").await;
    assert_eq!(rows.as_array().unwrap().len(), 3, "{rows}");
    assert_eq!(call(&transform, tick()).await.unwrap()["queue"], json!([]));
}

#[tokio::test]
async fn a_queued_run_keeps_the_trace_of_its_request() {
    let lake = Lake::new().await;
    let transform = lake.transform(APPEND);
    let of = |digit: &str| Some(digit.repeat(32));
    let (_, run) = trace::within(of("a"), queue(&transform, 1)).await;
    assert_eq!(run["trace"], "a".repeat(32), "{run:#}");
    assert_eq!(trace::within(of("b"), call(&transform, tick())).await.unwrap()["queue"][0]["status"], "succeeded");
    assert_eq!(get(&transform, &run).await["trace"], "a".repeat(32));
    let (_, untraced) = queue(&transform, 2).await;
    assert_eq!(untraced.get("trace"), None, "{untraced:#}");
}

#[tokio::test]
async fn a_queued_run_that_time_cuts_short_is_finished_by_later_ticks() {
    let lake = Lake::new().await;
    let workflows = "  w: { parameters: { n: '0' }, jobs: {
        one: { sql: 'SELECT 1 AS id', into: one, write: append }, two: { sql: 'SELECT id FROM one', into: two, write: append } } }\n";
    let (transform, catalog) = faulty(&lake, workflows);
    let (_, run) = queue(&transform, 0).await;
    catalog.fail(&name("two"), &[Fault::HangAfter]);
    let soon = lake.clock.now_ms() + 4_000;
    let cut = deadline::until(soon, call(&transform, tick())).await.unwrap();
    assert_eq!(cut["queue"][0]["status"], "failed", "{cut:#}");
    assert_eq!(get(&transform, &run).await["interrupted"], true);
    lake.clock.advance(60_000);
    assert_eq!(call(&transform, tick()).await.unwrap()["queue"][0]["status"], "succeeded");
    assert_eq!(lake.rows("SELECT * FROM one").await, json!([{"id": 1}]));
    assert_eq!(lake.rows("SELECT * FROM two").await, json!([{"id": 1}]));
    assert_eq!(call(&transform, tick()).await.unwrap()["queue"], json!([]));
}

#[tokio::test]
async fn a_queued_run_whose_runner_died_is_taken_up_again() {
    let lake = Lake::new().await;
    let (transform, catalog) = faulty(&lake, APPEND);
    let (_, run) = queue(&transform, 1).await;
    catalog.fail(&name("one"), &[Fault::Hang]);
    let process = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    process.spawn({
        let transform = transform.clone();
        async move { call(&transform, tick()).await }
    });
    while !catalog.is_spent() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    process.shutdown_background();
    lake.clock.advance(60_000);
    let fresh = lake.transform(APPEND);
    assert_eq!(call(&fresh, tick()).await.unwrap()["queue"][0]["status"], "succeeded");
    assert_eq!(get(&fresh, &run).await["attempt"], 2);
    assert_eq!(lake.rows("SELECT n FROM one").await, json!([{"n": 1}]));
}

#[tokio::test]
async fn a_queued_run_can_be_cancelled_before_it_begins() {
    let lake = Lake::new().await;
    let transform = lake.transform(APPEND);
    let (_, run) = queue(&transform, 1).await;
    let path = format!("/runs/{}/cancel", run["run"].as_str().unwrap());
    assert_eq!(send_to(&transform, "POST", &path, "", &json!({})).await.0, 202);
    assert_eq!(get(&transform, &run).await["status"], "cancelled");
    assert_eq!(call(&transform, tick()).await.unwrap()["queue"], json!([]));
    assert_eq!(send_to(&transform, "POST", &path, "", &json!({})).await.0, 409);
    assert_eq!(resume(&transform, &run).await.1["status"], "succeeded");
}

#[tokio::test]
async fn a_queued_run_whose_workflow_is_gone_fails_and_says_so() {
    let lake = Lake::new().await;
    let (_, run) = queue(&lake.transform(APPEND), 1).await;
    let other = lake.transform("  v: { jobs: { one: { sql: 'SELECT 1 AS n', into: one } } }\n");
    assert_eq!(call(&other, tick()).await.unwrap()["queue"][0]["status"], "failed");
    let run = get(&other, &run).await;
    assert!(run["jobs"]["one"]["error"]["message"].as_str().unwrap().contains("`w`"), "{run:#}");
}

#[tokio::test]
async fn a_mark_without_its_run_is_dropped_and_the_queue_is_bounded() {
    let lake = Lake::new().await;
    let transform = lake.transform(APPEND);
    lake.ports.state.put("queue/w-0", "{}".into(), Expect::Absent).await.unwrap();
    assert_eq!(call(&transform, tick()).await.unwrap()["queue"], json!([]));
    for n in 0..50 {
        assert_eq!(queue(&transform, n).await.0, 202);
    }
    let (status, answer) = queue(&transform, 50).await;
    assert_eq!(status, 413, "{answer}");
    assert!(answer["error"]["message"].as_str().unwrap().contains("50"), "{answer}");
}
