//! Which jobs run, in which order, with which parameters.

use serde_json::json;

use crate::lake::{Lake, call, send, start, succeed};

#[tokio::test]
async fn jobs_run_in_the_order_of_what_they_read_and_every_run_is_a_row_of_a_table() {
    let lake = Lake::new().await;
    lake.add("raw", "SELECT * FROM (VALUES (1, 'AA', 10), (2, 'AA', 30), (3, 'UA', 5)) AS t(id, carrier, delay)").await;
    let transform = lake.transform(
        r#"
  star:
    parallel: 2
    parameters: { least: "6" }
    jobs:
      a_report: { sql: "SELECT carrier, delay AS total FROM delays WHERE delay > ${least}", into: report }
      b_delays: { sql: "SELECT carrier, sum(delay) AS delay FROM clean GROUP BY carrier", into: delays }
      c_clean:  { sql: "SELECT * FROM raw WHERE id > 1", into: clean }
      d_stamp:  { sql: "SELECT ${run_date} AS day, '${run_id}' AS run", into: stamp, after: [a_report] }
"#,
    );
    let run = succeed(&transform, "star").await;
    assert_eq!(lake.rows("SELECT * FROM report").await, json!([{"carrier": "AA", "total": 30}]));
    assert_eq!(lake.rows("SELECT * FROM stamp").await, json!([{"day": "2023-11-14", "run": run["run"]}]));
    assert_eq!(run["jobs"]["b_delays"]["rows_written"], 2);
    assert_eq!(run["recorded"], true);
    let rows = lake.rows("SELECT job, status, rows_written, run FROM tarn.runs ORDER BY job").await;
    let row =
        |job: &str, rows: u64| json!({"job": job, "status": "succeeded", "rows_written": rows, "run": run["run"]});
    assert_eq!(rows, json!([row("a_report", 1), row("b_delays", 2), row("c_clean", 2), row("d_stamp", 1)]));
}

#[tokio::test]
async fn a_run_sets_parameters_and_its_record_is_found_again() {
    let lake = Lake::new().await;
    let transform = lake.transform(
        r#"
  daily:
    parameters: { start: "2013-01-01" }
    jobs:
      one: { sql: "SELECT ${start} AS start", into: one }
"#,
    );
    let body = json!({"parameters": {"start": "it's"}});
    let (status, run) = send(&transform, "POST", "/workflows/daily/runs", &body).await;
    assert_eq!((status, &run["status"]), (200, &json!("succeeded")), "{run:#}");
    assert_eq!(lake.rows("SELECT * FROM one").await, json!([{"start": "it's"}]));
    let path = format!("/runs/{}", run["run"].as_str().unwrap());
    assert_eq!(send(&transform, "GET", &path, &json!(null)).await, (200, run.clone()));
    lake.clock.advance(1);
    let later = succeed(&transform, "daily").await;
    let (_, list) = send(&transform, "GET", "/workflows/daily/runs", &json!(null)).await;
    assert_eq!(list, json!({"workflow": "daily", "runs": [later, run]}));
}

#[tokio::test]
async fn wrong_requests_are_answered_with_what_is_wrong() {
    let lake = Lake::new().await;
    let transform = lake.transform("  daily: { jobs: { one: { sql: 'SELECT 1 AS one', into: one } } }\n");
    for (method, path, body, status, part) in [
        ("POST", "/workflows/nightly/runs", json!({}), 404, "`nightly`"),
        ("GET", "/workflows/nightly/runs", json!({}), 404, "`nightly`"),
        ("POST", "/workflows/daily/runs", json!({"parameters": {"end": "x"}}), 400, "`end`"),
        ("POST", "/workflows/daily/runs", json!({"paramters": {}}), 400, "`paramters`"),
        ("GET", "/runs/daily-0", json!({}), 404, "`daily-0`"),
        ("POST", "/runs/x/resume", json!({}), 404, "`x`"),
        ("DELETE", "/runs/x", json!({}), 404, "`/runs/x`"),
    ] {
        let (found, answer) = send(&transform, method, path, &body).await;
        let message = answer["error"]["message"].as_str().unwrap();
        assert_eq!(found, status, "{method} {path}: {message}");
        assert!(message.contains(part), "{method} {path}: {message}");
    }
}

#[tokio::test]
async fn a_failing_job_says_why_and_stops_only_what_needs_it() {
    let lake = Lake::new().await;
    lake.add("raw", "SELECT 1 AS id").await;
    let transform = lake.transform(
        r#"
  mixed:
    jobs:
      bad_table:  { sql: "SELECT * FROM nowhere", into: t1, retries: 0 }
      bad_column: { sql: "SELECT idd FROM raw", into: t2, retries: 3 }
      bad_value:  { sql: "SELECT 1 / (id - 1) AS x FROM raw", into: t4 }
      bad_name:   { sql: "SELECT count(*) FROM raw", into: t5 }
      behind:     { sql: "SELECT * FROM t2", into: t7 }
      last:       { sql: "SELECT * FROM t7", into: t8 }
      good:       { sql: "SELECT id FROM raw", into: t9 }
"#,
    );
    let run = start(&transform, "mixed").await;
    assert_eq!(run["status"], "failed");
    let jobs = &run["jobs"];
    for (job, kind, part) in [
        ("bad_table", "NotFound", "nowhere"),
        ("bad_column", "Invalid", "idd"),
        ("bad_value", "Invalid", "zero"),
        ("bad_name", "Invalid", "count(*)"),
    ] {
        let error = &jobs[job]["error"];
        assert_eq!(error["kind"], kind, "{job}: {error}");
        assert!(error["message"].as_str().unwrap().to_lowercase().contains(&part.to_lowercase()), "{job}: {error}");
        assert_eq!(jobs[job]["tries"], 1, "{job}");
    }
    assert_eq!((&jobs["behind"]["status"], &jobs["last"]["status"]), (&json!("skipped"), &json!("skipped")));
    assert_eq!(jobs["good"]["status"], "succeeded");
    let failed =
        lake.rows("SELECT count(*) AS n FROM tarn.runs WHERE status <> 'succeeded' AND run_status = 'failed'").await;
    assert_eq!(failed, json!([{"n": 6}]));
}

#[tokio::test]
async fn a_schedule_starts_a_run() {
    let lake = Lake::new().await;
    let transform = lake.transform("  daily: { jobs: { one: { sql: 'SELECT 1 AS one', into: one } } }\n");
    let event = |name: &str| {
        json!({
            "version": "0", "id": "e", "detail-type": "Scheduled Event", "source": "tarn.scheduler", "account": "0",
            "time": "2023-11-14T22:13:20Z", "region": "local", "resources": [],
            "detail": {"function": "transform", "name": name},
        })
    };
    let run = call(&transform, event("daily")).await.unwrap();
    assert_eq!(run["status"], "succeeded", "{run:#}");
    assert!(call(&transform, event("nightly")).await.is_err());
}

#[tokio::test]
async fn later_runs_may_bring_more_columns() {
    let lake = Lake::new().await;
    let before = lake.transform("  w: { jobs: { one: { sql: 'SELECT 1 AS a', into: one, write: append } } }\n");
    succeed(&before, "w").await;
    let after =
        lake.transform("  w: { jobs: { one: { sql: \"SELECT 'x' AS b, 2 AS a\", into: one, write: append } } }\n");
    lake.clock.advance(1);
    succeed(&after, "w").await;
    assert_eq!(lake.rows("SELECT a, b FROM one ORDER BY a").await, json!([{"a": 1, "b": null}, {"a": 2, "b": "x"}]));
}

#[tokio::test]
async fn merge_replaces_rows_by_key_and_overwrite_replaces_the_table() {
    let lake = Lake::new().await;
    lake.add("raw", "SELECT * FROM (VALUES (1, 'a'), (2, 'b')) AS t(id, v)").await;
    let transform = lake.transform(
        r#"
  w:
    jobs:
      merged:      { sql: "SELECT * FROM raw", into: merged, write: merge, key: [id] }
      overwritten: { sql: "SELECT * FROM raw", into: overwritten, write: overwrite }
      appended:    { sql: "SELECT * FROM raw", into: appended, write: append }
"#,
    );
    succeed(&transform, "w").await;
    lake.write("raw", "SELECT * FROM (VALUES (2, 'c'), (3, 'd')) AS t(id, v)", table_datafusion::Change::Overwrite)
        .await;
    lake.clock.advance(1);
    succeed(&transform, "w").await;
    let rows =
        |rows: &[(i64, &str)]| rows.iter().map(|(id, v)| json!({"id": id, "v": v})).collect::<serde_json::Value>();
    assert_eq!(lake.rows("SELECT * FROM merged ORDER BY id").await, rows(&[(1, "a"), (2, "c"), (3, "d")]));
    assert_eq!(lake.rows("SELECT * FROM overwritten ORDER BY id").await, rows(&[(2, "c"), (3, "d")]));
    assert_eq!(
        lake.rows("SELECT * FROM appended ORDER BY id, v").await,
        rows(&[(1, "a"), (2, "b"), (2, "c"), (3, "d")])
    );
}

#[tokio::test]
async fn a_query_that_fails_half_way_leaves_the_old_rows() {
    let lake = Lake::new().await;
    lake.add("raw", "SELECT * FROM generate_series(1, 20000) AS t(id)").await;
    let transform = lake.transform(
        r#"
  w:
    parameters: { bad: "0" }
    jobs:
      one: { sql: "SELECT id, 1 / (id - ${bad}) AS x FROM raw", into: one }
"#,
    );
    succeed(&transform, "w").await;
    lake.clock.advance(1);
    let (_, run) = send(&transform, "POST", "/workflows/w/runs", &json!({"parameters": {"bad": 19999}})).await;
    assert_eq!(run["jobs"]["one"]["status"], "failed", "{run:#}");
    assert_eq!(lake.rows("SELECT count(*) AS n FROM one").await, json!([{"n": 20000}]));
}
