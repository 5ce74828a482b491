//! Some jobs of a workflow, and runs that are only looked at.

use serde_json::{Value, json};

use crate::lake::{Lake, resume, send, start, succeed};

const W: &str = "  w:
    jobs:
      first: { sql: 'SELECT id FROM raw', into: first, write: append, mode: incremental, incremental: raw }
      second: { sql: 'SELECT count(*) AS n FROM first', into: second }
      other: { sql: 'SELECT nosuch FROM raw', into: third }
    maintenance:
      kept: { table: raw, compact: {}, after: [first] }
";

async fn run(transform: &transform::Transform, body: Value) -> Value {
    let (status, run) = send(transform, "POST", "/workflows/w/runs", &body).await;
    assert_eq!(status, 200, "{run:#}");
    run
}

async fn lake() -> Lake {
    let lake = Lake::new().await;
    lake.add("raw", "SELECT * FROM (VALUES (1), (2)) AS t(id)").await;
    lake
}

#[tokio::test]
async fn a_job_alone_waits_for_none_and_a_resume_keeps_to_it() {
    let lake = lake().await;
    let transform = lake.transform(W);
    let done = run(&transform, json!({"jobs": ["first"]})).await;
    assert_eq!((&done["status"], done["jobs"].as_object().unwrap().len()), (&json!("succeeded"), 1), "{done:#}");
    lake.clock.advance(1);
    let done = run(&transform, json!({"jobs": ["second"]})).await;
    assert_eq!(done["status"], "succeeded", "it does not wait for `first`: {done:#}");
    assert_eq!(lake.rows("SELECT n FROM second").await, json!([{"n": 2}]));
    lake.clock.advance(1);
    let failed = run(&transform, json!({"jobs": ["first", "other"]})).await;
    assert_eq!(failed["status"], "failed");
    lake.clock.advance(1);
    let (_, again) = resume(&transform, &failed).await;
    let jobs: Vec<_> = again["jobs"].as_object().unwrap().keys().collect();
    assert_eq!(jobs, ["first", "other"]);
    let (status, error) = send(&transform, "POST", "/workflows/w/runs", &json!({"jobs": ["nosuch"]})).await;
    assert_eq!(status, 404);
    assert!(error["error"]["message"].as_str().unwrap().contains("`first`"), "{error}");
}

#[tokio::test]
async fn a_run_that_is_looked_at_says_what_it_would_do_and_does_nothing() {
    let lake = lake().await;
    let transform = lake.transform(W);
    let look = || run(&transform, json!({"dryRun": true}));
    let looked = look().await;
    let of = |looked: &Value, job: &str| looked["jobs"][job].clone();
    let first = of(&looked, "first");
    assert_eq!((&first["read"], &first["exists"], &first["write"]), (&json!("full"), &json!(false), &json!("append")));
    assert_eq!((&first["reads"][0]["rows"], &first["reads"][0]["files"]), (&json!(2), &json!(1)), "{first:#}");
    assert_eq!(first["columns"], json!({"id": "Int64"}));
    let second = of(&looked, "second");
    assert_eq!(second["after"], json!(["first"]));
    assert!(second["error"].as_str().unwrap().contains("`first`"), "not made yet: {second:#}");
    assert!(of(&looked, "other")["error"].as_str().unwrap().contains("nosuch"));
    assert_eq!(of(&looked, "kept")["maintenance"]["dry_run"], true);
    assert_eq!(send(&transform, "GET", "/workflows/w/runs", &json!({})).await.1["runs"], json!([]));
    assert_eq!(lake.rows("SELECT count(*) AS n FROM raw").await, json!([{"n": 2}]));

    run(&transform, json!({"jobs": ["first"]})).await;
    assert_eq!(of(&look().await, "first")["read"], "nothing_new");
    lake.add("raw", "SELECT 3 AS id").await;
    let first = of(&look().await, "first");
    assert_eq!(
        (&first["read"], &first["reads"][0]["new"], &first["reads"][0]["rows"]),
        (&json!("incremental"), &json!(true), &json!(1))
    );
    assert_eq!(of(&look().await, "first"), first, "a bookmark stays where it is");
}

#[tokio::test]
async fn looking_at_new_files_announces_none() {
    let lake = Lake::new().await;
    lake.csv_table("raw", &[("id", "bigint")]).await;
    lake.put("raw", "a.csv", "1\n2\n").await;
    let transform = lake.transform("  w: { jobs: { first: { sql: 'SELECT id FROM raw', into: first, write: append, mode: incremental, incremental: raw } } }\n");
    let looked = run(&transform, json!({"dryRun": true})).await;
    let read = &looked["jobs"]["first"]["reads"][0];
    assert_eq!((&read["files"], &read["bytes"], &read["rows"]), (&json!(1), &json!(4), &Value::Null), "{looked:#}");
    assert_eq!(lake.ports.state.list("bookmarks/").await.unwrap(), Vec::<String>::new());
    assert_eq!(succeed(&transform, "w").await["jobs"]["first"]["rows_written"], 2);
    lake.clock.advance(1);
    assert_eq!(start(&transform, "w").await["jobs"]["first"]["read"], "nothing_new");
}
