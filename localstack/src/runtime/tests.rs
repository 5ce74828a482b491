//! The runtime as a whole: started on a directory of its own, called over HTTP.

use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};
use shared::ErrorKind;
use shared::config::Settings;

use super::{Options, Running, start};

const LAKEHOUSE: &str = "
version: 1
database: shop
streams:
  orders:
    schema:
      - {name: id, type: bigint, required: true}
      - {name: amount, type: double}
    buffer: {size: 64MiB, interval: 900s}
locations:
  products: {}
";

async fn up(data: &Path, options: &Options) -> Running {
    let mut settings = Settings::embedded(data).unwrap();
    settings.project = data.join("lakehouse.yaml");
    std::fs::write(&settings.project, LAKEHOUSE).unwrap();
    start(&settings, options).await.unwrap()
}

async fn call(url: &str, method: &str, path: &str, body: &str) -> (u16, Value) {
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let request = client.request(method.parse().unwrap(), format!("{url}{path}"));
    let answer = request.header("content-type", "application/json").body(body.to_owned()).send().await.unwrap();
    let status = answer.status().as_u16();
    (status, serde_json::from_slice(&answer.bytes().await.unwrap()).unwrap_or_default())
}

async fn count(url: &str) -> Value {
    let (status, answer) = call(url, "POST", "/query", r#"{"sql": "SELECT count(*), sum(id) FROM orders"}"#).await;
    if status == 200 { answer["rows"][0].clone() } else { answer["error"]["kind"].clone() }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_accepted_survives_a_restart_and_is_stored_once() {
    let dir = tempfile::tempdir().unwrap();
    let running = up(dir.path(), &Options::default()).await;
    let (status, answer) = call(&running.url, "POST", "/streams/orders/records", r#"[{"id": 1}, {"id": 2}]"#).await;
    assert_eq!((status, &answer["stored"]), (200, &json!(2)));
    running.stop().await.unwrap();

    let running = up(dir.path(), &Options::default()).await;
    assert_eq!(count(&running.url).await, "NotFound", "nothing was due, so nothing was written");
    for _ in 0..2 {
        let (status, _) = call(&running.url, "POST", "/streams/orders/flush", "").await;
        assert_eq!((status, count(&running.url).await), (200, json!([2, 3])));
    }
    running.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_is_crawled_without_being_asked_for_and_so_is_a_file_dropped_into_the_folder() {
    let dir = tempfile::tempdir().unwrap();
    let running = up(dir.path(), &Options::default()).await;
    let (status, _) = call(&running.url, "PUT", "/files/products/a.csv", "name,price\nlamp,3\nchair,4\n").await;
    assert_eq!(status, 201);
    wait_for_objects(&running.url, 1).await;
    std::fs::write(dir.path().join("objects/raw/products/b.csv"), "name,price\ndesk,5\n").unwrap();
    wait_for_objects(&running.url, 2).await;
    let (status, answer) = call(&running.url, "POST", "/query", r#"{"sql": "SELECT count(*) FROM products"}"#).await;
    assert_eq!((status, &answer["rows"]), (200, &json!([[3]])));
    running.stop().await.unwrap();
}

/// Waits until the crawler has taken as many objects of the location.
async fn wait_for_objects(url: &str, objects: u64) {
    let mut last = Value::Null;
    for _ in 0..200 {
        last = call(url, "GET", "/status", "").await.1;
        if last["locations"][0] == json!({"name": "products", "objects": objects, "skipped": 0}) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("expected {objects} objects, found {last}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_too_large_or_unknown_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let running = up(dir.path(), &Options { max_body: 100, ..Options::default() }).await;
    let (status, answer) = call(&running.url, "POST", "/streams/orders/records", &"x".repeat(101)).await;
    assert_eq!((status, &answer["error"]["kind"]), (413, &json!("Limit")));
    assert_eq!(call(&running.url, "GET", "/nowhere", "").await.0, 404);
    assert_eq!(call(&running.url, "POST", "/streams/nope/flush", "").await.0, 404);
    let (status, health) = call(&running.url, "GET", "/health", "").await;
    assert_eq!((status, &health["pid"]), (200, &json!(std::process::id())));
    running.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn more_requests_than_may_be_under_way_are_told_to_come_again() {
    let dir = tempfile::tempdir().unwrap();
    let running = up(dir.path(), &Options { in_flight: 0, ..Options::default() }).await;
    assert_eq!(call(&running.url, "GET", "/status", "").await.0, 429);
    assert_eq!(call(&running.url, "GET", "/health", "").await.0, 200);
    running.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_runtime_on_the_directory_is_refused_with_the_first_ones_pid() {
    let dir = tempfile::tempdir().unwrap();
    let running = up(dir.path(), &Options::default()).await;
    let mut settings = Settings::embedded(dir.path()).unwrap();
    settings.project = dir.path().join("lakehouse.yaml");
    let error = start(&settings, &Options::default()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict);
    assert!(error.to_string().contains(&std::process::id().to_string()), "{error}");
    running.stop().await.unwrap();
}
