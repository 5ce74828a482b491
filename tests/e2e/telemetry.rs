//! What the programs write to their log and as metrics under Lambda.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use shared::config::Settings;
use shared::stream::NewRecord;

use crate::lambda::{Function, kinesis, read, request, tick};

const SHOP: &str = "
version: 1
database: shop
streams:
  orders:
    schema: [{name: id, type: bigint, required: true}, {name: note, type: string}]
    buffer: {size: 1MiB, interval: 1s}
locations:
  customers: {table: customers}
workflows:
  daily:
    jobs:
      numbers: {sql: 'SELECT CAST(note AS bigint) AS n FROM orders', into: numbers}
      copies: {sql: 'SELECT id FROM orders', into: copies}
insights:
  a_day:
    kind: narrative
    into: days
    sql: SELECT DATE '2024-01-01' + CAST(value AS int) AS day, value AS n FROM generate_series(1, 60)
    date: day
    value: n
";

/// In a record, and in nothing that is logged.
const MARKER: &str = "marker-7f3a";

/// The values of a metric, by its name, of all documents under a dimension; checks each document's form.
fn metrics(function: &Function, dimension: &str, value: &str) -> BTreeMap<String, Vec<u64>> {
    let mut found = BTreeMap::<String, Vec<u64>>::new();
    for document in function.output() {
        let directive = &document["_aws"]["CloudWatchMetrics"][0];
        assert!(document["_aws"]["Timestamp"].as_i64().is_some_and(|ms| ms > 1_700_000_000_000), "{document:#}");
        assert_eq!(directive["Namespace"], "Shop/Tarn", "{document:#}");
        let expected = if dimension.is_empty() { json!([[]]) } else { json!([[dimension]]) };
        if directive["Dimensions"] != expected || (!dimension.is_empty() && document[dimension] != value) {
            continue;
        }
        for metric in directive["Metrics"].as_array().unwrap() {
            let name = metric["Name"].as_str().unwrap();
            assert!(["Count", "Bytes", "Milliseconds"].contains(&metric["Unit"].as_str().unwrap()), "{document:#}");
            let value = document[name].as_u64().unwrap_or_else(|| panic!("no `{name}`: {document:#}"));
            found.entry(name.into()).or_default().push(value);
        }
    }
    found
}

/// Snapshots made and conflicts met, of every table together.
fn commits(function: &Function) -> (u64, u64) {
    let told = metrics(function, "", "");
    let sum = |name: &str| told.get(name).map_or(0, |values| values.iter().sum());
    (sum("Commits"), sum("CommitConflicts"))
}

async fn start(name: &str, dir: &tempfile::TempDir) -> Function {
    Function::start_with(name, dir.path(), &[("TARN_METRICS_NAMESPACE", "Shop/Tarn")]).await
}

/// Nothing of the record is in what the function wrote.
fn is_silent(function: &Function, name: &str) {
    let written = function.log() + &function.output().iter().map(Value::to_string).collect::<String>();
    assert!(!written.is_empty(), "{name} wrote nothing at all");
    assert!(!written.contains(MARKER) && !written.contains("bWFya2VyLTdmM2"), "{name}: {written}");
}

#[tokio::test]
async fn functions_count_what_they_do_and_tell_nobody_what_records_say() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("lakehouse.yaml"), SHOP).unwrap();

    let mut ingest = start("ingest", &dir).await;
    let body = format!(r#"[{{"id": 1, "note": "{MARKER}"}}, {{"id": "{MARKER}"}}]"#);
    let (status, answer) = ingest.http("POST", "/streams/orders/records", &body).await;
    assert_eq!(status, 207, "{answer:#}");
    assert!(answer.to_string().contains(MARKER), "who sent it may see it: {answer:#}");
    let mut headless = request("POST", "/streams/orders/records", &format!("2,{MARKER}\n"));
    headless["headers"]["content-type"] = json!("text/csv");
    let (status, answer) = read(ingest.invoke(headless).await.unwrap());
    assert_eq!(status, 400, "{answer:#}");
    let told = metrics(&ingest, "stream", "orders");
    assert_eq!((&told["RecordsAccepted"], &told["RecordsRejected"]), (&vec![1], &vec![1]));
    assert!(told["BytesAccepted"][0] > 20, "{told:?}");
    is_silent(&ingest, "ingest");
    drop(ingest);

    // Another producer, whose records nobody checked.
    let ports = adapters_embedded::open(&Settings::embedded(&dir.path().join("data")).unwrap()).unwrap();
    let bad = NewRecord { partition_key: MARKER.into(), data: format!(r#"{{"id": "{MARKER}"}}"#).into() };
    ports.stream.put("orders", vec![bad]).await.unwrap();
    let mut batcher = start("batcher", &dir).await;
    let answer =
        batcher.invoke(kinesis("orders", &[("1", "bWFya2VyLTdmM2E="), ("2", "bWFya2VyLTdmM2E=?")])).await.unwrap();
    let report = &answer["flushed"][0];
    assert_eq!((&report["stored"], &report["rejected"]), (&json!(1), &json!(1)), "{answer:#}");
    batcher.invoke(tick(json!({}))).await.unwrap();
    let told = metrics(&batcher, "stream", "orders");
    assert_eq!((&told["RecordsWritten"], &told["RecordsFailed"]), (&vec![1], &vec![1]), "{told:?}");
    assert_eq!((&told["StreamCommits"], &told["StreamCommitConflicts"]), (&vec![1], &vec![0]), "{told:?}");
    assert_eq!(told["LagMilliseconds"], [0, 0], "{told:?}");
    assert_eq!(commits(&batcher), (1, 0));
    is_silent(&batcher, "batcher");
    drop(batcher);

    let folder = dir.path().join("data/objects/raw/customers");
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join("a.csv"), format!("id,name\n1,{MARKER}\n")).unwrap();
    let mut crawl = start("crawl", &dir).await;
    crawl.http("POST", "/crawl", "{}").await;
    let told = metrics(&crawl, "location", "customers");
    assert_eq!((&told["ObjectsSeen"], &told["TablesChanged"]), (&vec![1], &vec![1]), "{told:?}");
    is_silent(&crawl, "crawl");
    drop(crawl);

    let mut transform = start("transform", &dir).await;
    let (_, run) = transform.http("POST", "/workflows/daily/runs", "{}").await;
    assert!(run["jobs"]["numbers"]["error"]["message"].as_str().unwrap().contains(MARKER), "{run:#}");
    let told = metrics(&transform, "workflow", "daily");
    assert_eq!((&told["RunsFailed"], &told["RunsSucceeded"]), (&vec![1], &vec![0]), "{told:?}");
    assert_eq!((&told["RowsWritten"], &told["RowsQuarantined"]), (&vec![1], &vec![0]), "{told:?}");
    // Of the job that succeeded, and of the table of runs.
    assert_eq!(commits(&transform), (2, 0));
    is_silent(&transform, "transform");
    drop(transform);

    let mut query = start("query", &dir).await;
    let (status, answer) = query.http("POST", "/query", r#"{"sql": "SELECT id FROM orders"}"#).await;
    assert_eq!(status, 200, "{answer:#}");
    let (status, _) = query.http("POST", "/query", r#"{"sql": "SELECT CAST(note AS bigint) FROM orders"}"#).await;
    assert_eq!(status, 400);
    let told = metrics(&query, "", "");
    assert_eq!((told["RowsReturned"].as_slice(), told["QueryMilliseconds"].len()), (&[1][..], 1), "{told:?}");
    assert!(told["BytesScanned"][0] > 0, "{told:?}");
    assert_eq!(commits(&query), (0, 0));
    for sql in
        ["CREATE TABLE made AS SELECT 1 AS id", "INSERT INTO copies VALUES (7)", "DELETE FROM copies WHERE id = 8"]
    {
        let (status, answer) = query.http("POST", "/query", &json!({"sql": sql}).to_string()).await;
        assert_eq!(status, 200, "{sql}: {answer:#}");
    }
    assert_eq!(commits(&query), (2, 0), "one for each statement that changes something");
    is_silent(&query, "query");
    drop(query);

    let mut insight = start("insight", &dir).await;
    let (status, answer) = insight.http("POST", "/insights/a_day", "{}").await;
    assert_eq!(status, 200, "{answer:#}");
    assert_eq!(metrics(&insight, "", "")["InsightsComputed"], [1]);
    assert_eq!(commits(&insight), (1, 0));
}

#[tokio::test]
async fn what_a_tick_does_of_a_queued_run_is_logged_under_the_trace_of_its_request() {
    const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
    let dir = tempfile::tempdir().unwrap();
    let text = "version: 1\ndatabase: shop\nworkflows: {w: {jobs: {one: {sql: SELECT 1 AS n, into: one}}}}\n";
    std::fs::write(dir.path().join("lakehouse.yaml"), text).unwrap();
    let mut transform = Function::start("transform", dir.path()).await;
    let mut asked = request("POST", "/workflows/w/runs", "{}");
    asked["rawQueryString"] = json!("wait=false");
    asked["queryStringParameters"] = json!({"wait": "false"});
    asked["headers"]["traceparent"] = json!(format!("00-{TRACE}-00f067aa0ba902b7-01"));
    let (status, run) = read(transform.invoke(asked).await.unwrap());
    assert_eq!((status, &run["trace"]), (202, &json!(TRACE)), "{run:#}");
    transform.invoke(tick(json!({"queue": true}))).await.unwrap();
    for message in ["run begins", "table committed", "run ended"] {
        let lines = transform.logged(message);
        assert!(!lines.is_empty(), "{message}\n{}", transform.log());
        for line in lines {
            assert_eq!((&line["trace_id"], &line["run"]), (&json!(TRACE), &run["run"]), "{line:#}");
            assert_eq!((&line["trigger"], &line["request_id"]), (&json!("schedule"), &json!("request-2")), "{line:#}");
        }
    }
}

#[tokio::test]
async fn without_a_namespace_no_metric_is_written() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("lakehouse.yaml"), SHOP).unwrap();
    let mut ingest = Function::start("ingest", dir.path()).await;
    let (status, answer) = ingest.http("POST", "/streams/orders/records", r#"[{"id": 1}]"#).await;
    assert_eq!((status, ingest.output()), (200, vec![]), "{answer:#}");
}
