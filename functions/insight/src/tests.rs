//! The function as a whole: events in, answers out, over tables in memory.

use std::sync::Arc;

use arrow::array::{Date32Array, Int64Array, RecordBatch, StringArray};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use serde_json::json;
use shared::clock::ManualClock;
use shared::config::Settings;
use shared::model::types::columns_of;
use table_datafusion::{Change, ChangeTable};

use super::*;
use crate::shapes::departures;

const FILE: &str = "
version: 1
database: nyc
insights:
  departures:
    kind: forecast
    sql: SELECT day, sum(n) AS departures FROM departures GROUP BY day
    date: day
    value: departures
    horizon: 7
    into: forecasts
  unusual:
    kind: anomalies
    sql: SELECT day, origin, n FROM departures
    date: day
    value: n
    dimensions: [origin]
    into: unusual_days
    schedule: rate(5m)
";
/// 2014-01-01T00:00:00Z: the day after the last one of the data.
const NOW_MS: i64 = 1_388_534_400_000;

/// A lakehouse whose table `departures` holds the flights of each day of 2013, two of three from Newark.
async fn lakehouse() -> (Insight, tempfile::TempDir) {
    lakehouse_at(Arc::new(ManualClock::at(NOW_MS))).await
}

async fn lakehouse_at(clock: Arc<ManualClock>) -> (Insight, tempfile::TempDir) {
    let spill = tempfile::tempdir().unwrap();
    let ports = adapters_embedded::in_memory(clock).unwrap();
    let engine = Engine::open(&Settings::embedded(spill.path()).unwrap(), &ports).unwrap();
    let rows: Vec<(i32, &str, i64)> = (15_706..)
        .zip(departures())
        .flat_map(|(day, (_, n))| {
            let newark = (n * 2.0 / 3.0).round() as i64;
            [(day, "EWR", newark), (day, "JFK", n as i64 - newark)]
        })
        .collect();
    let batch = RecordBatch::try_from_iter([
        ("day", Arc::new(Date32Array::from_iter_values(rows.iter().map(|r| r.0))) as arrow::array::ArrayRef),
        ("origin", Arc::new(StringArray::from_iter_values(rows.iter().map(|r| r.1)))),
        ("n", Arc::new(Int64Array::from_iter_values(rows.iter().map(|r| r.2)))),
    ])
    .unwrap();
    let project = Arc::new(Project::parse(FILE, "lakehouse.yaml").unwrap());
    let table = project.table_name("departures").unwrap();
    let columns = columns_of(&batch.schema()).unwrap();
    let table = Tables::new(ports.clone()).ensure(&table, &columns, &[]).await.unwrap();
    let rows = RecordBatchStreamAdapter::new(batch.schema(), futures::stream::iter([Ok(batch)]));
    table.commit(Change::Append, Box::pin(rows), None).await.unwrap();
    (Insight::new(project, ports, engine).unwrap(), spill)
}

/// What Lambda would give back for the event.
async fn call(insight: &Insight, event: Value) -> Result<Value> {
    testing::invoke(event, |event| insight.handle(event)).await
}

async fn post(insight: &Insight, path: &str, body: Value, id: &str) -> (u16, Value) {
    let event = json!({
        "version": "2.0", "routeKey": "$default", "rawPath": path, "rawQueryString": "", "headers": {},
        "requestContext": {"requestId": id, "http": {"method": "POST", "path": path}, "timeEpoch": 0},
        "body": body.to_string(), "isBase64Encoded": false,
    });
    let response = testing::request(event, |event| insight.handle(event)).await;
    (response.status, serde_json::from_slice(&response.body).unwrap())
}

async fn count(insight: &Insight, sql: &str) -> i64 {
    let options = QueryOptions { database: "nyc".into(), ..QueryOptions::new(Principal::Owner) };
    let (batches, _) = insight.engine.query(sql, &options).await.unwrap().collect().await.unwrap();
    arrow::array::AsArray::as_primitive::<arrow::datatypes::Int64Type>(batches[0].column(0)).value(0)
}

#[tokio::test]
async fn a_declared_forecast_is_answered_and_stored_once() {
    let (insight, _spill) = lakehouse().await;
    let (status, answer) = post(&insight, "/insights/departures", json!({}), "r1").await;
    assert_eq!(status, 200, "{answer}");
    assert_eq!(answer["forecast"]["points"][0]["date"], "2014-01-01");
    assert_eq!((&answer["stored"]["table"], &answer["stored"]["rows"]), (&json!("nyc.forecasts"), &json!(7)));
    let (_, again) = post(&insight, "/insights/departures", json!({}), "r1").await;
    assert_eq!(again["stored"]["replayed"], true);
    assert_eq!(again["forecast"], answer["forecast"]);
    let (_, later) = post(&insight, "/insights/departures", json!({}), "r2").await;
    assert_eq!(later["stored"]["replayed"], false);
    assert_eq!(count(&insight, "SELECT count(*) FROM forecasts").await, 7);
}

#[tokio::test]
async fn a_scheduled_search_stores_every_day_and_marks_the_blizzard() {
    let (insight, _spill) = lakehouse().await;
    let event = json!({
        "id": "e1", "source": "tarn.scheduler", "detail-type": "Scheduled Event",
        "detail": {"function": "insight", "name": "unusual"},
    });
    let answer = call(&insight, event).await.unwrap();
    let first = &answer["anomalies"]["anomalies"][0];
    assert!(first["date"].as_str().unwrap().starts_with("2013-02-0"), "{first}");
    assert_eq!(first["contributions"][0]["members"][0]["member"], "EWR");
    assert_eq!(count(&insight, "SELECT count(*) FROM unusual_days").await, 365);
    let blizzard = "SELECT count(*) FROM unusual_days WHERE anomaly AND date BETWEEN '2013-02-08' AND '2013-02-09'";
    assert_eq!(count(&insight, blizzard).await, 2);
}

#[tokio::test]
async fn a_tick_without_a_name_answers_what_is_due() {
    let clock = Arc::new(ManualClock::at(NOW_MS));
    let (insight, _spill) = lakehouse_at(clock.clone()).await;
    let tick = || json!({"source": "aws.events", "detail-type": "Scheduled Event", "detail": {}});
    assert_eq!(call(&insight, tick()).await.unwrap(), json!({"ran": [], "left": []}));
    clock.advance(300_000);
    let answer = call(&insight, tick()).await.unwrap();
    assert_eq!(answer["ran"][0]["name"], "unusual");
    assert_eq!(answer["ran"][0]["answer"]["stored"]["rows"], 365, "{answer:#}");
    assert_eq!(call(&insight, tick()).await.unwrap()["ran"], json!([]));
}

#[tokio::test]
async fn an_ad_hoc_question_is_answered_and_not_stored() {
    let (insight, _spill) = lakehouse().await;
    let body = json!({
        "kind": "narrative", "sql": "SELECT day, origin, n FROM departures", "date": "day", "value": "n",
        "dimensions": ["origin"],
    });
    let (status, answer) = post(&insight, "/insight", body, "r1").await;
    assert_eq!(status, 200, "{answer}");
    assert!(answer["narrative"]["text"].as_str().unwrap().contains("328,521 in total"));
    assert!(answer.get("stored").is_none());
}

#[tokio::test]
async fn what_is_wrong_with_a_question_is_answered_with_its_status() {
    let (insight, _spill) = lakehouse().await;
    let ask =
        |sql: &str, date: &str, value: &str| json!({"kind": "forecast", "sql": sql, "date": date, "value": value});
    for (path, body, status, found) in [
        ("/insights/none", json!({}), 404, "`departures`"),
        ("/insight", ask("SELECT day, n FROM departures", "date", "n"), 400, "found `day`, `n`"),
        ("/insight", ask("SELECT day, origin FROM departures", "day", "origin"), 400, "`origin`, found the type"),
        ("/insight", ask("SELECT day, n FROM departures WHERE n < 0", "day", "n"), 400, "found none"),
        ("/insight", ask("SELECT day, n FROM nowhere", "day", "n"), 404, "nowhere"),
        ("/insight", ask("SELEC", "day", "n"), 400, "SELEC"),
        ("/insight", json!({"kind": "forecast"}), 400, "sql"),
        ("/elsewhere", json!({}), 404, "/elsewhere"),
    ] {
        let (found_status, answer) = post(&insight, path, body, "r1").await;
        let message = answer["error"]["message"].as_str().unwrap_or_default();
        assert!(found_status == status && message.contains(found), "{path} {found}: {found_status} {answer}");
    }
    let error = call(&insight, json!({"Records": [{"eventSource": "aws:s3", "s3": {}}]})).await.unwrap_err();
    assert_eq!(error.kind(), shared::ErrorKind::Invalid);
}
