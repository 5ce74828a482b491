//! Incremental jobs read every row once, whatever crashes where.

use serde_json::json;
use table_datafusion::Change;

use crate::lake::{Lake, start, succeed};

const APPEND: &str = "  w: { jobs: { one: { sql: 'SELECT id FROM raw', into: one, write: append, mode: incremental, incremental: raw } } }\n";
const MERGE: &str = "  w: { jobs: { one: { sql: 'SELECT id, v FROM raw', into: one, write: merge, key: [id], mode: incremental, incremental: raw } } }\n";

#[tokio::test]
async fn only_added_rows_are_read_and_nothing_new_commits_nothing() {
    let lake = Lake::new().await;
    let transform = lake.transform(APPEND);
    for round in 1..=3 {
        lake.add("raw", &format!("SELECT {round} AS id UNION ALL SELECT {round} * 10")).await;
        lake.clock.advance(1);
        let run = succeed(&transform, "w").await;
        let job = &run["jobs"]["one"];
        assert_eq!(job["rows_written"], 2, "{job:#}");
        assert_eq!(job["read"], if round == 1 { "full" } else { "incremental" });
        let snapshot = lake.table("one").await.current_snapshot();
        lake.clock.advance(1);
        let run = succeed(&transform, "w").await;
        let job = &run["jobs"]["one"];
        assert_eq!(
            (&job["read"], &job["rows_written"], &job["snapshot_id"]),
            (&json!("nothing_new"), &json!(0), &json!(null))
        );
        assert_eq!(lake.table("one").await.current_snapshot(), snapshot);
    }
    let rows = lake.rows("SELECT id FROM one ORDER BY id").await;
    assert_eq!(rows, json!([{"id": 1}, {"id": 2}, {"id": 3}, {"id": 10}, {"id": 20}, {"id": 30}]));
}

#[tokio::test]
async fn an_input_that_never_had_rows_makes_an_empty_table() {
    let lake = Lake::new().await;
    lake.tables
        .ensure(&crate::lake::name("raw"), &[shared::model::Column::new("id", shared::model::ColumnType::Int)], &[])
        .await
        .unwrap();
    let transform = lake.transform(APPEND);
    let run = succeed(&transform, "w").await;
    assert_eq!(run["jobs"]["one"]["read"], "nothing_new");
    assert_eq!(lake.rows("SELECT * FROM one").await, json!([]));
}

#[tokio::test]
async fn rewritten_input_is_read_again_by_a_merge_and_refused_by_an_append() {
    let lake = Lake::new().await;
    lake.add("raw", "SELECT 1 AS id, 'a' AS v").await;
    let (append, merge) = (APPEND.replace("w:", "a:"), MERGE.replace("w:", "m:"));
    let transform = lake.transform(&format!("{append}{}", merge.replace("into: one", "into: two")));
    succeed(&transform, "a").await;
    succeed(&transform, "m").await;
    lake.write("raw", "SELECT * FROM (VALUES (1, 'b'), (2, 'c')) AS t(id, v)", Change::Overwrite).await;
    lake.clock.advance(1);
    let run = succeed(&transform, "m").await;
    let job = &run["jobs"]["one"];
    assert_eq!(job["read"], "full_after_rewrite", "{job:#}");
    assert!(job["note"].as_str().unwrap().contains("`nyc.raw`"), "{job:#}");
    assert_eq!(lake.rows("SELECT * FROM two ORDER BY id").await, json!([{"id": 1, "v": "b"}, {"id": 2, "v": "c"}]));
    let run = start(&transform, "a").await;
    let error = &run["jobs"]["one"]["error"];
    assert_eq!(error["kind"], "Invalid", "{error}");
    assert!(error["message"].as_str().unwrap().contains("double"), "{error}");
    assert_eq!(lake.rows("SELECT * FROM one").await, json!([{"id": 1}]));
}

#[tokio::test]
async fn files_are_read_once_even_when_the_state_is_behind_the_table() {
    let lake = Lake::new().await;
    lake.csv_table("raw", &[("id", "bigint")]).await;
    let transform = lake.transform(APPEND);
    let key = "bookmarks/w/one";
    lake.put("raw", "a.csv", "1\n2\n").await;
    succeed(&transform, "w").await;
    lake.put("raw", "b.csv", "3\n").await;
    lake.put("raw", "_hidden.csv", "99\n").await;
    lake.clock.advance(1);
    let run = succeed(&transform, "w").await;
    assert_eq!(run["jobs"]["one"]["rows_written"], 1, "{run:#}");

    // A crash behind the commit: the document still announces what the table has.
    let settled = lake.ports.state.get(key).await.unwrap().unwrap();
    lake.put("raw", "c.csv", "4\n").await;
    lake.clock.advance(1);
    succeed(&transform, "w").await;
    let mut document: serde_json::Value = serde_json::from_slice(&settled.bytes).unwrap();
    let now: serde_json::Value =
        serde_json::from_slice(&lake.ports.state.get(key).await.unwrap().unwrap().bytes).unwrap();
    let url = lake.ports.keys.raw("raw").join("c.csv").unwrap().to_string();
    document["announced"] =
        json!({"generation": now["generation"], "files": {&url: now["files"][&url]}, "whole": false});
    let bytes = serde_json::to_vec(&document).unwrap();
    lake.ports.state.put(key, bytes.into(), shared::state::Expect::Anything).await.unwrap();
    lake.clock.advance(1);
    let run = succeed(&transform, "w").await;
    assert_eq!(run["jobs"]["one"]["read"], "nothing_new", "{run:#}");
    lake.put("raw", "d.csv", "5\n").await;
    lake.clock.advance(1);
    succeed(&transform, "w").await;
    let rows = lake.rows("SELECT id FROM one ORDER BY id").await;
    assert_eq!(rows, json!([{"id": 1}, {"id": 2}, {"id": 3}, {"id": 4}, {"id": 5}]));
}

#[tokio::test]
async fn a_file_that_was_replaced_is_refused_by_an_append() {
    let lake = Lake::new().await;
    lake.csv_table("raw", &[("id", "bigint")]).await;
    let transform = lake.transform(APPEND);
    lake.put("raw", "a.csv", "1\n").await;
    succeed(&transform, "w").await;
    lake.put("raw", "a.csv", "1\n2\n").await;
    lake.clock.advance(1);
    let run = start(&transform, "w").await;
    let error = &run["jobs"]["one"]["error"];
    assert!(error["message"].as_str().unwrap().contains("a.csv"), "{run:#}");
    assert_eq!(lake.rows("SELECT * FROM one").await, json!([{"id": 1}]));
}
