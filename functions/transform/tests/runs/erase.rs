//! Erasures: nothing of a subject is left in any place, and the others stay.

use serde_json::{Value, json};
use shared::erasure;
use shared::model::{SequenceNumber, ShardId};
use transform::Transform;

use crate::lake::{Lake, send, succeed};

const LAKE: &str = "  w: { jobs: { one: { sql: 'SELECT id, name FROM raw', into: one, write: append, mode: incremental, incremental: raw } } }
streams:
  raw: { schema: [{name: id, type: bigint}, {name: name, type: string}] }
  other: { schema: [{name: key, type: bigint}] }
";

async fn pass(transform: &Transform, body: Value) -> Value {
    let (status, report) = send(transform, "POST", "/erasures", &body).await;
    assert_eq!(status, 200, "{report:#}");
    report
}

/// Passes until one is complete or nothing more can be done.
async fn erase(transform: &Transform, condition: &str) -> Value {
    let mut last = json!({});
    for _ in 0..4 {
        last = pass(transform, json!({"where": condition})).await;
        if last["complete"] == true {
            break;
        }
    }
    last
}

async fn lake() -> Lake {
    let lake = Lake::new().await;
    lake.add("raw", "SELECT * FROM (VALUES (1, 'a'), (42, 'x')) AS t(id, name)").await;
    lake.add("raw", "SELECT * FROM (VALUES (2, 'b'), (42, 'y')) AS t(id, name)").await;
    lake
}

/// Whether any object of the warehouse holds the text, plain or in Parquet.
async fn objects_with(lake: &Lake, text: &str) -> Vec<String> {
    let mut found = Vec::new();
    for object in lake.ports.storage.list(lake.ports.keys.root()).await.unwrap() {
        let bytes = lake.ports.storage.get(&object.url).await.unwrap();
        if bytes.windows(text.len()).any(|part| part == text.as_bytes()) {
            found.push(object.url.to_string());
        }
    }
    found
}

#[tokio::test]
async fn rows_leave_all_tables_and_their_versions_once_jobs_have_read_on() {
    let lake = lake().await;
    let transform = lake.transform(LAKE);
    succeed(&transform, "w").await;
    lake.add("raw", "SELECT 3 AS id, 'c' AS name").await;

    let looked = pass(&transform, json!({"where": "id = 42", "dryRun": true})).await;
    let of = |report: &Value, table: &str| {
        report["tables"].as_array().unwrap().iter().find(|t| t["table"] == table).cloned().unwrap_or_default()
    };
    assert_eq!(
        (&of(&looked, "nyc.raw")["rows"], &of(&looked, "nyc.one")["rows"]),
        (&json!(2), &json!(2)),
        "{looked:#}"
    );
    assert_eq!(lake.rows("SELECT count(*) AS n FROM raw WHERE id = 42").await, json!([{"n": 2}]));

    // The job has not read row 3 yet, and goes on from a version that holds the rows.
    let waits = erase(&transform, "id = 42").await;
    assert_eq!(waits["complete"], false, "{waits:#}");
    assert!(waits["remaining"][0].as_str().unwrap().contains("`tarn run w`"), "{waits:#}");
    assert_eq!(lake.rows("SELECT id FROM raw ORDER BY id").await, json!([{"id": 1}, {"id": 2}, {"id": 3}]));
    lake.clock.advance(1);
    let run = succeed(&transform, "w").await;
    assert_eq!(run["jobs"]["one"]["rows_written"], 1, "{run:#}");

    let done = erase(&transform, "id = 42").await;
    assert_eq!(done["complete"], true, "{done:#}");
    for table in ["raw", "one"] {
        let rows = lake.rows(&format!("SELECT id, name FROM {table} ORDER BY id")).await;
        assert_eq!(rows, json!([{"id": 1, "name": "a"}, {"id": 2, "name": "b"}, {"id": 3, "name": "c"}]), "{table}");
        let history = lake.table(table).await.metadata().snapshots().len();
        assert!(history <= 2, "{table}: {history}");
    }
    lake.clock.advance(1);
    assert_eq!(succeed(&transform, "w").await["jobs"]["one"]["read"], "nothing_new");
    let report = done["url"].as_str().unwrap().parse().unwrap();
    let report = String::from_utf8(lake.ports.storage.get(&report).await.unwrap().to_vec()).unwrap();
    assert!(!report.contains("id = 42"), "{report}");
}

#[tokio::test]
async fn raw_files_refused_records_quarantine_and_answers_are_rid_of_the_subject() {
    let lake = Lake::new().await;
    lake.csv_table("files", &[("id", "bigint"), ("name", "string")]).await;
    lake.put("files", "a.csv", "1,ann\n42,secret\n").await;
    lake.put("files", "b.csv", "42,secret\n").await;
    lake.put("files", "c.csv", "3,cat\n").await;
    let appends = LAKE.replace("raw', into", "files', into").replace("incremental: raw", "incremental: files");
    let transform = lake.transform(&appends);
    succeed(&transform, "w").await;
    let (storage, keys) = (&lake.ports.storage, &lake.ports.keys);
    let rejected = |data: &str| {
        let mut line = Vec::new();
        let place = Some((ShardId("s".into()), SequenceNumber::from(1)));
        format::records::Rejected::new("raw", place, 5, ("wrong_type", "x"), data.as_bytes()).write(&mut line).unwrap();
        line
    };
    let lines = [rejected(r#"{"id":42,"name":7}"#), rejected(r#"{"id":7,"name":7}"#), rejected("42,secret")].concat();
    let errors = keys.error_object("raw", &ShardId("s".into()), &SequenceNumber::from(0));
    storage.put(&errors, lines).await.unwrap();
    let aside = "{\"run\":\"r\",\"rules\":[\"x\"],\"row\":{\"id\":42,\"name\":\"secret\"}}\n";
    storage.put(&keys.quarantine("w", "one", "r"), aside.to_owned()).await.unwrap();
    storage.put(&keys.result("q", "csv"), "42,secret\n".to_owned()).await.unwrap();

    let done = erase(&transform, "id = 42").await;
    assert_eq!(done["complete"], true, "{done:#}");
    let told =
        done["notReached"].as_array().unwrap().iter().any(|line| line.as_str().unwrap().contains("can't be read"));
    assert!(told, "{done:#}");
    let text = String::from_utf8(storage.get(&errors).await.unwrap().to_vec()).unwrap();
    assert_eq!(text.lines().count(), 2, "{text}");
    let broken = pass(&transform, json!({"where": "id = 42", "broken": true})).await;
    assert_eq!(broken["objects"][0]["records"], 1, "{broken:#}");
    assert_eq!(objects_with(&lake, "secret").await, Vec::<String>::new());
    assert_eq!(lake.rows("SELECT id FROM files ORDER BY id").await, json!([{"id": 1}, {"id": 3}]));
    assert_eq!(lake.rows("SELECT id FROM one ORDER BY id").await, json!([{"id": 1}, {"id": 3}]));
    // A file that was written anew is not read again; one that comes is.
    lake.put("files", "d.csv", "4,dan\n").await;
    lake.clock.advance(1);
    let run = succeed(&transform, "w").await;
    assert_eq!(run["jobs"]["one"]["rows_written"], 1, "{run:#}");
}

#[tokio::test]
async fn values_are_compared_by_type_and_an_undeclared_stream_is_searched() {
    let lake = Lake::new().await;
    lake.csv_table("files", &[("id", "bigint"), ("name", "string")]).await;
    lake.put("files", "a.csv", "1,ann\n0042,secret\n").await;
    let transform = lake.transform(LAKE);
    let gone = lake.ports.keys.errors("gone").join("s/0.ndjson").unwrap();
    let mut line = Vec::new();
    let place = Some((ShardId("s".into()), SequenceNumber::from(1)));
    let rejected = format::records::Rejected::new("gone", place, 5, ("x", "x"), b"{\"id\":42}");
    rejected.write(&mut line).unwrap();
    lake.ports.storage.put(&gone, line).await.unwrap();
    let left = erase(&transform, "id = 42").await;
    assert_eq!(left["complete"], true, "a number is a number however it is written: {left:#}");
    assert_eq!(objects_with(&lake, "secret").await, Vec::<String>::new());
    assert!(!lake.ports.storage.exists(&gone).await.unwrap());
}

#[tokio::test]
async fn a_file_whose_rewriting_was_not_noted_is_noted_by_the_next_pass() {
    let lake = Lake::new().await;
    lake.csv_table("raw", &[("id", "bigint"), ("name", "string")]).await;
    lake.put("raw", "a.csv", "1,ann\n42,secret\n").await;
    let transform = lake.transform(LAKE);
    succeed(&transform, "w").await;
    let bookmark = lake.ports.state.get("bookmarks/w/one").await.unwrap().unwrap();
    erase(&transform, "id = 42").await;
    // As if it had stopped between the file and the note.
    lake.ports.state.put("bookmarks/w/one", bookmark.bytes, shared::state::Expect::Anything).await.unwrap();
    let seen: Value =
        serde_json::from_slice(&lake.ports.state.get("bookmarks/w/one").await.unwrap().unwrap().bytes).unwrap();
    let url = lake.ports.keys.raw("raw").join("a.csv").unwrap();
    let before = seen["announced"]["files"].get(url.as_str()).or(seen["files"].get(url.as_str())).unwrap().clone();
    let digest = shared::digest::sha256_hex("1,ann\n", 32);
    let intent = json!({url.as_str(): {"before": before, "digest": digest}}).to_string();
    lake.ports.state.put("erasures/files", intent.into(), shared::state::Expect::Anything).await.unwrap();
    assert_eq!(erase(&transform, "id = 42").await["complete"], true);
    lake.clock.advance(1);
    let run = succeed(&transform, "w").await;
    assert_eq!(run["jobs"]["one"]["read"], "nothing_new", "{run:#}");
}

#[tokio::test]
async fn only_the_named_table_and_its_streams_are_meant() {
    let lake = lake().await;
    let transform = lake.transform(LAKE);
    succeed(&transform, "w").await;
    let body = json!({"where": "id = 42", "tables": ["raw"]});
    for _ in 0..3 {
        pass(&transform, body.clone()).await;
        lake.clock.advance(1);
        succeed(&transform, "w").await;
    }
    let last = pass(&transform, body).await;
    assert_eq!(last["complete"], true, "{last:#}");
    assert_eq!(lake.rows("SELECT count(*) AS n FROM raw WHERE id = 42").await, json!([{"n": 0}]));
    assert_eq!(lake.rows("SELECT count(*) AS n FROM one WHERE id = 42").await, json!([{"n": 2}]));
    let erased = erasure::erased(lake.ports.state.as_ref()).await.unwrap();
    let now_ms = lake.ports.clock.now_ms();
    let of = |stream: &str| {
        erased.iter().any(|e| e.is_record(stream, now_ms - 10_000, b"{\"id\":42}", |_| erasure::Kind::Number))
    };
    assert!(of("raw") && !of("other"));
}

#[tokio::test]
async fn a_condition_that_names_nobody_is_refused() {
    let transform = lake().await.transform(LAKE);
    for condition in ["id > 3", "1 = 1", ""] {
        let (status, answer) = send(&transform, "POST", "/erasures", &json!({"where": condition})).await;
        assert_eq!((status, answer["error"]["kind"].as_str()), (400, Some("Invalid")), "{condition}: {answer}");
    }
    for body in [json!({"where": "id = 1", "tables": ["nosuch"]}), json!({"where": "nosuch = 1"})] {
        let (status, answer) = send(&transform, "POST", "/erasures", &body).await;
        assert_eq!(status, 404, "{answer}");
    }
}
