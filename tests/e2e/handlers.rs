//! The six programs as Lambda runs them: each asks the runtime API for an event and answers it.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::flow::{SHOP, orders};
use crate::lambda::{Function, kinesis, read, request, tick};

#[tokio::test]
async fn six_programs_do_the_main_job_between_them_as_lambda_functions() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("lakehouse.yaml"), SHOP).unwrap();

    let mut ingest = Function::start("ingest", dir.path()).await;
    let (status, put) = ingest.http("POST", "/streams/orders/records", &orders(0, 60)).await;
    assert_eq!(status, 200, "{put:#}");
    let (status, put) =
        ingest.http("PUT", "/files/customers/customers.csv", "id,name\n1,Ada\n2,Grace\n3,Edsger\n").await;
    assert_eq!(status, 201, "{put:#}");
    drop(ingest);

    let mut batcher = Function::start("batcher", dir.path()).await;
    let report = batcher.invoke(tick(json!({"flush": true}))).await.unwrap();
    assert!(report.to_string().contains("60"), "{report:#}");
    drop(batcher);

    let mut crawl = Function::start("crawl", dir.path()).await;
    let (status, report) = crawl.http("POST", "/crawl", "{}").await;
    assert_eq!(status, 200, "{report:#}");
    drop(crawl);

    let mut transform = Function::start("transform", dir.path()).await;
    let (status, run) = transform.http("POST", "/workflows/daily/runs", "{}").await;
    assert_eq!((status, run["status"].as_str()), (200, Some("succeeded")), "{run:#}");
    drop(transform);

    let mut query = Function::start("query", dir.path()).await;
    let (status, answer) = query
        .http("POST", "/query", r#"{"sql": "SELECT count(*) AS n FROM mart.orders WHERE customer = 'Ada'"}"#)
        .await;
    assert_eq!(status, 200, "{answer:#}");
    assert_eq!(crate::lake::as_i64(&answer["rows"][0][0]), 20);
    drop(query);

    let mut insight = Function::start("insight", dir.path()).await;
    let (status, forecast) = insight.http("POST", "/insights/orders_a_day", "{}").await;
    assert_eq!(status, 200, "{forecast:#}");
}

#[tokio::test]
async fn every_function_refuses_an_event_that_is_not_for_it() {
    for name in ["ingest", "batcher", "crawl", "transform", "query", "insight"] {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("lakehouse.yaml"), SHOP).unwrap();
        let mut function = Function::start(name, dir.path()).await;
        let error = function.invoke(json!({"hello": "world"})).await.unwrap_err();
        assert!(error["errorMessage"].as_str().is_some_and(|m| m.contains("expected an event")), "{name}: {error:#}");
    }
}

/// A lakehouse in which the record of an event, which arrived long ago, makes a stream due.
const EAGER: &str = "
version: 1
database: shop
streams:
  orders:
    schema: [{name: id, type: bigint, required: true}]
    buffer: {size: 1MiB, interval: 1s}
locations:
  customers: {schedule: rate(1s)}
";

#[tokio::test]
async fn every_log_line_of_an_invocation_says_which_call_it_belongs_to() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("lakehouse.yaml"), EAGER).unwrap();
    let mut ingest = Function::start("ingest", dir.path()).await;
    let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
    let mut put = request("POST", "/streams/orders/records", r#"[{"id": 1}]"#);
    put["headers"]["Traceparent"] = json!(format!("00-{trace}-00f067aa0ba902b7-01"));
    for _ in 0..2 {
        let (status, answer) = read(ingest.invoke(put.clone()).await.unwrap());
        assert_eq!(status, 200, "{answer:#}");
    }
    let lines = ingest.logged("records");
    assert_eq!(lines.len(), 2, "{}", ingest.log());
    for (line, number) in lines.iter().zip(1..) {
        assert_eq!(line["request_id"], format!("request-{number}"), "{line:#}");
        assert_eq!((&line["function"], &line["version"]), (&json!("ingest"), &json!("$LATEST")));
        assert_eq!((&line["cold_start"], &line["trigger"]), (&json!(number == 1), &json!("http")));
        assert_eq!((&line["trace_id"], &line["stream"]), (&json!(trace), &json!("orders")));
        assert_eq!(line["xray_trace_id"], "1-5759e988-bd862e3fe1be46a994272793");
    }
    drop(ingest);

    let mut batcher = Function::start("batcher", dir.path()).await;
    let answer = batcher.invoke(kinesis("orders", &[("1", "eyJpZCI6IDF9")])).await.unwrap();
    assert_eq!(answer["flushed"][0]["stored"], 2, "{answer:#}");
    let line = batcher.logged("table committed").remove(0);
    assert_eq!(
        (&line["table"], &line["snapshot_id"]),
        (&json!("shop.orders"), &answer["flushed"][0]["snapshot"]),
        "{line:#}"
    );
    assert_eq!((&line["stream"], &line["shard"]), (&json!("orders"), &json!("shardId-000000000000")), "{line:#}");
    assert_eq!(line["trace_id"], "5759e988bd862e3fe1be46a994272793", "without a request's, X-Ray's: {line:#}");
    let (status, answer) = batcher.http("POST", "/streams/orders/flush", "").await;
    assert_eq!((status, &answer["flushed"][0]["records"]), (200, &json!(0)), "{answer:#}");
}

#[tokio::test]
async fn a_tick_that_names_nothing_runs_what_is_due() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("lakehouse.yaml"), EAGER).unwrap();
    let mut crawl = Function::start("crawl", dir.path()).await;
    assert_eq!(crawl.invoke(tick(json!({}))).await.unwrap(), json!({"ran": [], "left": []}));
    tokio::time::sleep(Duration::from_millis(1_100)).await;
    let answer = crawl.invoke(tick(json!({}))).await.unwrap();
    assert_eq!(answer["ran"][0]["name"], "customers", "{answer:#}");
    for name in ["batcher", "transform", "insight"] {
        let mut function = Function::start(name, dir.path()).await;
        let answer = function.invoke(tick(json!({}))).await;
        assert!(answer.is_ok(), "{name}: {answer:?}");
    }
}

#[tokio::test]
async fn a_function_answers_before_lambda_ends_it_and_serves_on() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("lakehouse.yaml"), EAGER).unwrap();
    let mut query = Function::start("query", dir.path()).await;
    let (status, answer) = query.http("POST", "/query", r#"{"sql": "SELECT 1 AS one"}"#).await;
    assert_eq!(status, 200, "{answer:#}");
    let slow = json!({"sql": "SELECT sum(x % 7) FROM generate_series(1, 1000000000000) AS a(x)"});
    let (begun, time) = (Instant::now(), Duration::from_secs(3));
    let answer = query.invoke_within(request("POST", "/query", &slow.to_string()), time).await.unwrap();
    let (status, answer) = read(answer);
    assert_eq!((status, &answer["error"]["kind"]), (504, &json!("OutcomeUnknown")), "{answer:#}");
    assert!(begun.elapsed() < time, "{:?}", begun.elapsed());
    let (status, answer) = query.http("POST", "/query", r#"{"sql": "SELECT 1 AS one"}"#).await;
    assert_eq!(status, 200, "{answer:#}");
}

#[tokio::test]
async fn a_wrong_setting_is_the_error_of_the_event_with_its_variable() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("lakehouse.yaml"), EAGER).unwrap();
    let mut crawl = Function::start_with("crawl", dir.path(), &[("TARN_MEMORY", "lots")]).await;
    let error = crawl.invoke(tick(json!({}))).await.unwrap_err();
    assert_eq!(error["errorType"], "Invalid", "{error:#}");
    assert!(error["errorMessage"].as_str().unwrap().contains("TARN_MEMORY"), "{error:#}");
    let (status, answer) = crawl.http("GET", "/crawls", "").await;
    assert_eq!((status, &answer["error"]["kind"]), (400, &json!("Invalid")), "{answer:#}");
}
