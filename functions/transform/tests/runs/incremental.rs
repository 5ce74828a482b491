//! Incremental jobs read every row once, whatever crashes where.

use serde_json::json;
use table_datafusion::Change;

use crate::lake::{Lake, send, start, succeed};

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
async fn an_append_goes_on_after_a_delete_and_doubles_no_row() {
    let lake = Lake::new().await;
    lake.add("raw", "SELECT * FROM (VALUES (1), (2), (3)) AS t(id)").await;
    let transform = lake.transform(APPEND);
    succeed(&transform, "w").await;
    lake.change("DELETE FROM raw WHERE id = 2").await;
    lake.add("raw", "SELECT 4 AS id").await;
    lake.add("raw", "SELECT 5 AS id").await;
    lake.change("DELETE FROM raw WHERE id = 5").await;
    lake.clock.advance(1);
    let run = succeed(&transform, "w").await;
    let job = &run["jobs"]["one"];
    assert_eq!((&job["read"], &job["rows_written"]), (&json!("incremental"), &json!(1)), "{job:#}");
    assert!(job["note"].as_str().unwrap().contains("stays"), "{job:#}");
    let rows = lake.rows("SELECT id FROM one ORDER BY id").await;
    assert_eq!(rows, json!([{"id": 1}, {"id": 2}, {"id": 3}, {"id": 4}]));
    // A row that was changed can't be told from a new one.
    lake.change("UPDATE raw SET id = 30 WHERE id = 3").await;
    lake.clock.advance(1);
    let (_, looked) = send(&transform, "POST", "/workflows/w/runs", &json!({"dryRun": true})).await;
    assert!(looked["jobs"]["one"]["error"].as_str().unwrap_or_default().contains("double"), "{looked:#}");
    let run = start(&transform, "w").await;
    assert!(run["jobs"]["one"]["error"]["message"].as_str().unwrap().contains("double"), "{run:#}");
}

#[tokio::test]
async fn a_merge_follows_deletes_and_changes_of_its_source() {
    let lake = Lake::new().await;
    lake.add("raw", "SELECT * FROM (VALUES (1, 'a'), (2, 'b'), (3, 'c'), (3, 'c')) AS t(id, v)").await;
    let merge = MERGE.replace("SELECT id, v FROM raw", "SELECT id, max(v) AS v FROM raw GROUP BY id");
    let transform = lake.transform(&merge);
    succeed(&transform, "w").await;
    lake.change("DELETE FROM raw WHERE id = 1").await;
    // One of two rows with the key of a group: the group stays.
    lake.change("UPDATE raw SET v = 'd' WHERE id = 3").await;
    lake.add("raw", "SELECT 4 AS id, 'x' AS v").await;
    lake.clock.advance(1);
    let run = succeed(&transform, "w").await;
    let job = &run["jobs"]["one"];
    assert!(job["note"].as_str().unwrap().contains("left"), "{job:#}");
    let rows = lake.rows("SELECT id, v FROM one ORDER BY id").await;
    assert_eq!(rows, json!([{"id": 2, "v": "b"}, {"id": 3, "v": "d"}, {"id": 4, "v": "x"}]));
    // All of them, and nothing else has come.
    lake.change("DELETE FROM raw WHERE id > 0").await;
    lake.clock.advance(1);
    succeed(&transform, "w").await;
    assert_eq!(lake.rows("SELECT id FROM one").await, json!([]));
}

#[tokio::test]
async fn a_merge_follows_its_source_back_to_an_earlier_version() {
    let lake = Lake::new().await;
    lake.add("raw", "SELECT 1 AS id, 'a' AS v").await;
    let first = lake.table("raw").await.current_snapshot().unwrap();
    let transform = lake.transform(MERGE);
    lake.add("raw", "SELECT 2 AS id, 'b' AS v").await;
    succeed(&transform, "w").await;
    lake.change(&format!("ALTER TABLE raw EXECUTE rollback_to_snapshot({first})")).await;
    lake.add("raw", "SELECT 3 AS id, 'c' AS v").await;
    lake.clock.advance(1);
    succeed(&transform, "w").await;
    let rows = lake.rows("SELECT id, v FROM one ORDER BY id").await;
    assert_eq!(rows, json!([{"id": 1, "v": "a"}, {"id": 3, "v": "c"}]));
}

#[tokio::test]
async fn what_happens_after_a_delete_is_the_jobs_own_choice() {
    let lake = Lake::new().await;
    lake.add("raw", "SELECT * FROM (VALUES (1, 'a'), (2, 'b')) AS t(id, v)").await;
    let with = |workflow: &str, policy: &str| {
        let policy = format!("mode: incremental, on_source_delete: {policy}");
        MERGE
            .replace("w:", workflow)
            .replace("into: one", &format!("into: {}", &workflow[..1]))
            .replace("mode: incremental", &policy)
    };
    let transform = lake.transform(&format!("{}{}", with("i:", "ignore"), with("f:", "fail")));
    succeed(&transform, "i").await;
    succeed(&transform, "f").await;
    lake.change("DELETE FROM raw WHERE id = 1").await;
    lake.change("UPDATE raw SET v = 'B' WHERE id = 2").await;
    lake.clock.advance(1);
    let run = succeed(&transform, "i").await;
    assert_eq!(run["jobs"]["one"]["read"], "incremental", "{run:#}");
    let rows = lake.rows("SELECT id, v FROM i ORDER BY id").await;
    assert_eq!(rows, json!([{"id": 1, "v": "a"}, {"id": 2, "v": "B"}]));
    let run = start(&transform, "f").await;
    assert!(
        run["jobs"]["one"]["error"]["message"].as_str().unwrap().contains("`on_source_delete` is `fail`"),
        "{run:#}"
    );
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
