//! The function behind API Gateway events.

use std::time::Duration;

use serde_json::{Value, json};
use shared::clock::SystemClock;
use shared::config::Settings;

use super::*;

struct Lake {
    query: Query,
    ports: Ports,
    _spill: tempfile::TempDir,
}

fn lake() -> Lake {
    let spill = tempfile::tempdir().unwrap();
    let ports = adapters_embedded::in_memory(Arc::new(SystemClock)).unwrap();
    let engine = Engine::open(&Settings::embedded(spill.path()).unwrap(), &ports).unwrap();
    let project = Arc::new(Project::parse("version: 1\ndatabase: nyc\n", "lakehouse.yaml").unwrap());
    Lake { query: Query::new(project, ports.clone(), engine).unwrap(), ports, _spill: spill }
}

impl Lake {
    async fn post(&self, body: Value) -> Response {
        self.send("POST", "/query", body.to_string()).await
    }

    async fn send(&self, method: &str, path: &str, body: String) -> Response {
        self.send_with(method, path, body, json!({"content-type": "application/json"})).await
    }

    /// A statement under an idempotency key.
    async fn keyed(&self, key: &str, sql: &str) -> Response {
        let headers = json!({"content-type": "application/json", "idempotency-key": key});
        self.send_with("POST", "/query", json!({"sql": sql}).to_string(), headers).await
    }

    async fn send_with(&self, method: &str, path: &str, body: String, headers: Value) -> Response {
        let event = json!({
            "version": "2.0",
            "rawPath": path,
            "headers": headers,
            "requestContext": {"http": {"method": method, "path": path}, "requestId": "r"},
            "body": body,
            "isBase64Encoded": false,
        });
        testing::request(event, |event| self.query.handle(event)).await
    }
}

fn body(response: &Response) -> Value {
    serde_json::from_slice(&response.body).unwrap()
}

#[tokio::test]
async fn json_answers_hold_columns_rows_and_figures() {
    let response = lake().post(json!({"sql": "SELECT 1 AS a, 'x' AS b, CAST(1.50 AS decimal(5,2)) AS c"})).await;
    assert_eq!(response.status, 200);
    let answer = body(&response);
    assert_eq!(answer["columns"][2], json!({"name": "c", "type": "decimal(5,2)"}));
    assert_eq!(answer["rows"], json!([[1, "x", "1.50"]]));
    assert_eq!((&answer["truncated"], &answer["stats"]["rows"]), (&json!(false), &json!(1)));
    assert_eq!(response.headers["x-tarn-rows"], "1");
    assert_eq!(answer["queryId"], json!(response.headers["x-tarn-query-id"]));
    assert!(
        response.headers.contains_key("x-tarn-bytes-scanned") && response.headers.contains_key("x-tarn-elapsed-ms")
    );
}

#[tokio::test]
async fn a_limit_cuts_rows_off_and_says_so() {
    let response = lake().post(json!({"sql": "SELECT * FROM generate_series(1, 100000) AS t(n)", "limit": 3})).await;
    let answer = body(&response);
    assert_eq!(answer["rows"], json!([[1], [2], [3]]));
    assert_eq!((&answer["truncated"], response.headers["x-tarn-rows"].as_str()), (&json!(true), "3"));
}

#[tokio::test]
async fn csv_and_arrow_carry_the_rows_alone() {
    let lake = lake();
    let csv = lake.post(json!({"sql": "VALUES (1, 'a b'), (2, NULL)", "format": "csv"})).await;
    assert_eq!(csv.headers["content-type"], "text/csv; charset=utf-8");
    assert_eq!(csv.body, "column1,column2\r\n1,a b\r\n2,\r\n");
    let arrow = lake.post(json!({"sql": "VALUES (1), (2)", "format": "arrow"})).await;
    let reader = arrow::ipc::reader::StreamReader::try_new(arrow.body.as_ref(), None).unwrap();
    assert_eq!(reader.map(|batch| batch.unwrap().num_rows()).sum::<usize>(), 2);
}

#[tokio::test]
async fn an_answer_that_no_response_can_hold_is_stored_whole() {
    let lake = lake();
    let sql = "SELECT n, rpad('x', 1000, 'x') AS t FROM generate_series(1, 8000) AS g(n)";
    for format in ["json", "csv", "arrow"] {
        let response = lake.post(json!({"sql": sql, "format": format})).await;
        let answer = body(&response);
        assert_eq!((response.status, answer["rows"].as_array().unwrap().len()), (200, 100), "{format}");
        let url = answer["result"]["url"].as_str().unwrap();
        assert_eq!(response.headers["x-tarn-result-url"], url);
        let whole = lake.ports.storage.get(&url::Url::parse(url).unwrap()).await.unwrap();
        assert_eq!(answer["result"]["bytes"], json!(whole.len()), "{format}");
        let rows = match format {
            "json" => serde_json::from_slice::<Value>(&whole).unwrap()["rows"].as_array().unwrap().len(),
            "csv" => whole.iter().filter(|b| **b == b'\n').count() - 1,
            _ => {
                let reader = arrow::ipc::reader::StreamReader::try_new(whole.as_ref(), None).unwrap();
                reader.map(|batch| batch.unwrap().num_rows()).sum()
            }
        };
        assert_eq!(rows, 8000, "{format}");
    }
}

/// A store that signs addresses.
#[derive(Debug)]
struct Signing;

#[async_trait::async_trait]
impl shared::storage::NativeApi for Signing {
    async fn presigned_put(&self, _: &url::Url, _: &object_store::path::Path, _: Duration) -> Result<String> {
        Err(Error::bug("nothing is uploaded"))
    }

    async fn presigned_get(&self, _: &url::Url, path: &object_store::path::Path, _: Duration) -> Result<String> {
        Ok(format!("https://signed.example/{path}?signature"))
    }

    async fn delete(&self, _: &url::Url, _: &object_store::path::Path) -> Result<()> {
        Err(Error::bug("nothing is removed"))
    }

    async fn can_list(&self, _: &url::Url, _: &object_store::path::Path) -> Result<()> {
        Ok(())
    }
}

/// A lakehouse whose objects have signed addresses, as on S3.
fn signing() -> Lake {
    let Lake { query, ports, _spill } = lake();
    let root = url::Url::parse("memory:///").unwrap();
    let (store, _) = ports.storage.resolve(&root.join("results/x").unwrap()).unwrap();
    let root = shared::storage::Root::new(&root, store).with_native(Arc::new(Signing));
    let ports = Ports { storage: shared::storage::Storage::new(vec![root]), ..ports };
    Lake { query: Query { ports: ports.clone(), ..query }, ports, _spill }
}

#[tokio::test]
async fn a_stored_answer_is_sent_for_by_its_signed_address_in_the_format_that_was_asked_for() {
    let lake = signing();
    let sql = "SELECT n, rpad('x', 1000, 'x') AS t FROM generate_series(1, 8000) AS g(n)";
    for format in ["csv", "ndjson", "arrow", "parquet", "frames"] {
        let sql = if format == "parquet" {
            sql.replace("rpad('x', 1000, 'x')", "to_hex(sha512(to_utf8(CAST(n AS varchar))))")
        } else {
            sql.into()
        };
        let sql = sql.replace("8000", if format == "parquet" { "200000" } else { "8000" });
        let response = lake.post(json!({"sql": sql, "format": format})).await;
        assert_eq!((response.status, body(&response)["result"]["format"].as_str()), (303, Some(format)));
        let location = &response.headers["location"];
        assert!(location.starts_with("https://signed.example/results/") && location.contains(format), "{location}");
        assert_eq!(body(&response)["result"]["download"], json!(location));
    }
    let response = lake.post(json!({"sql": sql})).await;
    assert_eq!((response.status, response.headers.get("location")), (200, None));
    assert!(body(&response)["result"]["download"].as_str().unwrap().ends_with(".json?signature"));
}

#[tokio::test]
async fn rows_that_are_too_large_to_be_shown_beside_the_address_of_the_whole_are_left_out() {
    let answer = body(&lake().post(json!({"sql": "SELECT rpad('x', 7000000, 'x') AS t"})).await);
    assert_eq!(
        (&answer["rows"], &answer["truncated"], &answer["stats"]["rows"]),
        (&json!([]), &json!(true), &json!(1))
    );
    assert!(answer["result"]["url"].as_str().is_some(), "{answer}");
}

#[tokio::test]
async fn a_large_answer_is_given_on_as_it_is_found_where_the_server_can_unless_it_is_json() {
    let lake = lake();
    let sql = "SELECT n, rpad('x', 1000, 'x') AS t FROM generate_series(1, 8000) AS g(n)";
    let asked = |format: &str, stream: Option<bool>| {
        let mut body = json!({"sql": sql, "format": format});
        if let Some(stream) = stream {
            body["stream"] = json!(stream);
        }
        Request { body: body.to_string().into(), streams: true, ..Request::new("POST", "/query", "r") }
    };
    for (format, stream, is_streamed) in
        [("csv", None, true), ("ndjson", None, true), ("csv", Some(false), false), ("json", None, false)]
    {
        let reply = lake.query.handle(Event::Http(asked(format, stream))).await.unwrap();
        let response = reply.response().unwrap();
        assert_eq!(matches!(response.body, Body::Parts(_)), is_streamed, "{format} {stream:?}");
        let whole = response.whole().await.unwrap();
        let lines = whole.body.iter().filter(|byte| **byte == b'\n').count();
        let expected = if is_streamed { 8000 + usize::from(format == "csv") } else { 0 };
        assert_eq!((lines, whole.headers.contains_key("x-tarn-result-url")), (expected, !is_streamed), "{format}");
    }
}

#[tokio::test]
async fn ndjson_and_parquet_are_formats_too() {
    let lake = lake();
    let sql = "VALUES (1, 'a b'), (2, NULL)";
    let ndjson = lake.post(json!({"sql": sql, "format": "ndjson"})).await;
    assert_eq!(ndjson.body, "{\"column1\":1,\"column2\":\"a b\"}\n{\"column1\":2,\"column2\":null}\n");
    let parquet = lake.post(json!({"sql": sql, "format": "parquet"})).await;
    assert_eq!(parquet.headers["content-type"], "application/vnd.apache.parquet");
    let reader = parquet::arrow::arrow_reader::ParquetRecordBatchReader::try_new(parquet.body, 10).unwrap();
    assert_eq!(reader.map(|batch| batch.unwrap().num_rows()).sum::<usize>(), 2);
}

#[tokio::test]
async fn frames_tell_how_far_a_query_is_before_its_first_rows_and_how_it_fails() {
    use crate::frames::{Frames, Kind};
    let lake = lake();
    let all = |bytes: &[u8]| {
        let (mut frames, mut found) = (Frames::default(), Vec::new());
        frames.feed(bytes);
        while let Some((kind, payload)) = frames.next().unwrap() {
            found.push((kind, String::from_utf8_lossy(&payload).into_owned()));
        }
        found
    };
    let slow =
        "SELECT sum(a.value * b.value % 7) AS n FROM generate_series(1, 30000) a CROSS JOIN generate_series(1, 3000) b";
    let told = all(&lake.streamed(slow, "frames").await.whole().await.unwrap().body);
    let [(Kind::Arrow, _), (Kind::Progress, progress), ..] = told.as_slice() else { panic!("{told:?}") };
    let progress: Value = serde_json::from_str(progress).unwrap();
    assert!(progress["elapsed_ms"].as_u64().unwrap() >= 200 && progress["rows"] == 0, "{progress}");
    let Some((Kind::End, end)) = told.last() else { panic!("{told:?}") };
    assert_eq!(serde_json::from_str::<Value>(end).unwrap()["stats"]["rows"], 1);
    let fails = "SELECT 10 / (100000 - value) AS n FROM generate_series(1, 200000)";
    let told = all(&lake.streamed(fails, "frames").await.whole().await.unwrap().body);
    let Some((Kind::Error, error)) = told.last() else { panic!("{:?}", told.last()) };
    assert!(error.contains("\"Invalid\"") && error.contains("zero"), "{error}");
}

#[tokio::test]
async fn errors_become_responses_that_say_where() {
    let lake = lake();
    for (sql, status, kind, says) in [
        ("SELECT\n  1 +", 400, "Invalid", "line 2, column 6"),
        ("SELECT * FROM nothing", 404, "NotFound", "line 1, column 15"),
        ("DROP TABLE x", 404, "NotFound", "line 1, column 12"),
        ("CREATE VIEW v AS SELECT 1", 403, "Denied", "CREATE"),
        ("INSERT INTO x SELEKT 1", 400, "Invalid", "line 1, column 15"),
        ("SELECT 1 / 0", 400, "Invalid", "zero"),
    ] {
        let response = lake.post(json!({"sql": sql})).await;
        let error = &body(&response)["error"];
        assert_eq!((response.status, error["kind"].as_str().unwrap()), (status, kind), "{sql}: {error}");
        assert!(error["message"].as_str().unwrap().contains(says), "{sql}: {error}");
        assert!(response.headers.contains_key("x-tarn-query-id"));
    }
    assert_eq!(lake.send("GET", "/query", String::new()).await.status, 400);
    assert_eq!(lake.send("POST", "/elsewhere", String::new()).await.status, 404);
    assert_eq!(lake.send("POST", "/query", "{".into()).await.status, 400);
}

#[tokio::test]
async fn a_request_can_bound_time_and_bytes() {
    let body = json!({"sql": "SELECT count(*) FROM generate_series(1, 10000000000)", "timeoutSeconds": 0.2});
    let response = lake().post(body).await;
    assert_eq!(response.status, 413);
}

#[tokio::test]
async fn other_events_are_not_served() {
    let event = json!({"Records": [{"eventSource": "aws:s3", "s3": {}}]});
    let lake = lake();
    assert!(testing::invoke(event, |event| lake.query.handle(event)).await.is_err());
}

#[tokio::test]
async fn a_statement_that_writes_answers_with_what_it_changed() {
    let lake = lake();
    lake.post(json!({"sql": "CREATE DATABASE nyc"})).await;
    let made = body(&lake.post(json!({"sql": "CREATE TABLE t (a bigint, b string)"})).await);
    assert_eq!(made["committed"]["statement"], "CREATE TABLE", "{made}");
    let answer = body(&lake.post(json!({"sql": "INSERT INTO t VALUES (1, 'x'), (2, NULL)"})).await);
    let committed = &answer["committed"];
    assert_eq!((&committed["target"], &committed["rowsAdded"]), (&json!("nyc.t"), &json!(2)), "{answer}");
    assert!(committed["snapshotId"].as_str().unwrap().parse::<i64>().is_ok(), "{answer}");
    assert_eq!(answer["rows"][0][2], 2, "{answer}");
    let read = body(&lake.post(json!({"sql": "SELECT * FROM t ORDER BY a"})).await);
    assert_eq!((&read["rows"], read.get("committed")), (&json!([[1, "x"], [2, null]]), None));
}

#[tokio::test]
async fn a_statement_that_comes_again_under_its_key_changes_nothing() {
    let lake = lake();
    lake.post(json!({"sql": "CREATE DATABASE nyc"})).await;
    lake.post(json!({"sql": "CREATE TABLE t (a bigint)"})).await;
    let first = body(&lake.keyed("k1", "INSERT INTO t VALUES (1)").await);
    let again = body(&lake.keyed("k1", "INSERT INTO t VALUES (1)").await);
    assert_eq!(again["committed"]["snapshotId"], first["committed"]["snapshotId"], "{again}");
    assert_eq!(again["committed"]["note"], "done before under this idempotency key");
    assert_eq!(body(&lake.post(json!({"sql": "SELECT count(*) FROM t"})).await)["rows"], json!([[1]]));
    assert_eq!(lake.keyed("k1", "INSERT INTO t VALUES (2)").await.status, 409);
    assert_eq!(lake.keyed("", "INSERT INTO t VALUES (2)").await.status, 400);
    assert_eq!(body(&lake.keyed("k2", "INSERT INTO t VALUES (1)").await)["committed"]["rowsAdded"], 1);
}

#[tokio::test]
async fn only_databases_of_the_lakehouse_are_written() {
    let lake = lake();
    shared::catalog::ensure_database(lake.ports.catalog.as_ref(), "other").await.unwrap();
    for (sql, status) in
        [("CREATE DATABASE theirs", 403), ("CREATE TABLE other.t (a int)", 404), ("DROP DATABASE other", 403)]
    {
        let response = lake.post(json!({"sql": sql})).await;
        assert_eq!(response.status, status, "{sql}: {}", body(&response));
    }
}

impl Lake {
    /// Asks for the rows as they are found.
    async fn streamed(&self, sql: &str, format: &str) -> Response<Body> {
        let body = json!({"sql": sql, "format": format, "stream": true}).to_string().into();
        let request = Request { body, streams: true, ..Request::new("POST", "/query", "r") };
        self.query.handle(Event::Http(request)).await.unwrap().response().unwrap()
    }
}

#[tokio::test]
async fn rows_are_given_on_as_they_are_found_where_that_is_asked_for() {
    let lake = lake();
    let many = "SELECT value AS n, rpad('x', 100, 'x') AS x FROM generate_series(1, 200000)";
    let streamed = lake.streamed(many, "json").await;
    assert!(matches!(streamed.body, Body::Parts(_)) && !streamed.headers.contains_key("x-tarn-result-url"));
    let answer = body(&streamed.whole().await.unwrap());
    assert_eq!(answer["rows"].as_array().unwrap().len(), 200_000);
    assert_eq!((&answer["stats"]["rows"], &answer["truncated"]), (&json!(200_000), &json!(false)));
    let csv = lake.streamed("SELECT 1 AS a, NULL AS b", "csv").await.whole().await.unwrap();
    assert_eq!(csv.body, "a,b\r\n1,\r\n");
    // What carries answers whole has this one stored.
    let stored = lake.post(json!({"sql": many, "stream": true})).await;
    assert!(stored.headers.contains_key("x-tarn-result-url"), "{:?}", stored.headers);
}

#[tokio::test]
async fn an_answer_that_fails_on_its_way_is_not_taken_for_a_whole_one() {
    let lake = lake();
    let fails = "SELECT 10 / (100000 - value) AS n FROM generate_series(1, 200000)";
    let answer = body(&lake.streamed(fails, "json").await.whole().await.unwrap());
    assert_eq!(answer["error"]["kind"], "Invalid", "{}", answer["error"]);
    assert!(answer["error"]["message"].as_str().unwrap().contains("zero"), "{}", answer["error"]);
    assert!(answer.get("stats").is_none() && answer["rows"].as_array().unwrap().len() < 200_000);
    for format in ["csv", "arrow"] {
        let error = lake.streamed(fails, format).await.whole().await.unwrap_err();
        assert_eq!(error.kind(), shared::ErrorKind::Invalid, "{error}");
    }
}
