//! Quality rules: what is written, what is set aside, what is said.

use serde_json::{Value, json};

use shared::ErrorKind;
use shared::ports::Ports;
use testing::catalog_faults::{Fault, FaultyCatalog};

use crate::lake::{Lake, name, send, start, succeed};

async fn lake() -> Lake {
    let lake = Lake::new().await;
    lake.add(
        "raw",
        "SELECT * FROM (VALUES (1, 'a', 5), (2, 'b', -1), (3, NULL, 7), (3, 'd', -2)) AS t(id, name, delay)",
    )
    .await;
    lake
}

fn workflow(rules: &str) -> String {
    format!("  w:\n    jobs:\n      one:\n        sql: SELECT * FROM raw\n        into: one\n        quality:\n{rules}")
}

fn rule(name: &str, check: &str, action: &str) -> String {
    format!("          - {{ name: {name}, check: {check}, action: {action} }}\n")
}

#[tokio::test]
async fn quarantine_sets_the_breaking_rows_aside_and_writes_the_rest() {
    let lake = lake().await;
    let rules = rule("on_time", "{ row: 'delay >= 0' }", "quarantine")
        + &rule("named", "{ row: 'name IS NOT NULL' }", "quarantine");
    let transform = lake.transform(&workflow(&rules));
    let run = succeed(&transform, "w").await;
    let job = &run["jobs"]["one"];
    assert_eq!(
        (&job["rows_selected"], &job["rows_written"], &job["rows_quarantined"]),
        (&json!(4), &json!(1), &json!(3))
    );
    assert_eq!(lake.rows("SELECT * FROM one").await, json!([{"id": 1, "name": "a", "delay": 5}]));
    let url = job["quarantine"].as_str().unwrap().parse().unwrap();
    let text = String::from_utf8(lake.ports.storage.get(&url).await.unwrap().to_vec()).unwrap();
    let mut rows: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    rows.sort_by_key(|row| row["row"]["delay"].as_i64());
    let aside = |rule: &str, row: Value| json!({"form": 2, "run": run["run"], "rules": [rule], "row": row});
    let expected = [
        aside("on_time", json!({"id": 3, "name": "d", "delay": -2})),
        aside("on_time", json!({"id": 2, "name": "b", "delay": -1})),
        aside("named", json!({"id": 3, "name": null, "delay": 7})),
    ];
    assert_eq!(rows, expected);
    let report = &job["quality"][0];
    assert_eq!(
        (&report["passed"], &report["rows_passed"], &report["rows_failed"]),
        (&json!(false), &json!(2), &json!(2))
    );
}

#[tokio::test]
async fn another_try_sets_the_same_rows_aside_once() {
    let lake = lake().await;
    lake.add("one", "SELECT 0 AS id, 'old' AS name, 0 AS delay").await;
    let catalog = FaultyCatalog::new(lake.ports.catalog.clone());
    let ports = Ports { catalog: catalog.clone(), ..lake.ports.clone() };
    let rules = rule("on_time", "{ row: 'delay >= 0' }", "quarantine");
    let transform = lake.transform_over(ports, &workflow(&rules).replace("into: one", "into: one\n        retries: 2"));
    catalog.fail(&name("one"), &[Fault::Refused(ErrorKind::Limit), Fault::LostReply(ErrorKind::Limit)]);
    let run = succeed(&transform, "w").await;
    assert!(catalog.is_spent());
    let stored = lake.ports.storage.list(&lake.ports.keys.root().join("quarantine/").unwrap()).await.unwrap();
    let urls: Vec<_> = stored.iter().map(|object| object.url.as_str()).collect();
    assert_eq!(urls.len(), 1, "{urls:?}");
    assert_eq!(run["jobs"]["one"]["quarantine"], urls[0], "{run:#}");
    let text = lake.ports.storage.get(&stored[0].url).await.unwrap();
    assert_eq!(text.iter().filter(|byte| **byte == b'\n').count(), 2);
    assert_eq!(lake.rows("SELECT count(*) AS n FROM one").await, json!([{"n": 2}]));
}

#[tokio::test]
async fn fail_writes_nothing_and_reports_everything() {
    let lake = lake().await;
    lake.add("one", "SELECT 0 AS id, 'old' AS name, 0 AS delay").await;
    let rules = rule("positive", "{ row: 'delay >= 0' }", "fail") + &rule("aside", "{ row: 'id < 3' }", "quarantine");
    let transform = lake.transform(&workflow(&rules));
    let run = start(&transform, "w").await;
    let job = &run["jobs"]["one"];
    assert_eq!(job["status"], "failed");
    assert_eq!(job["error"]["kind"], "Invalid", "{job:#}");
    assert!(job["error"]["message"].as_str().unwrap().contains("2 of 4 rows"), "{job:#}");
    assert_eq!(job["quality"][0]["rows_failed"], 2);
    assert_eq!(job["quality"][0]["examples"].as_array().unwrap().len(), 2);
    assert_eq!(lake.rows("SELECT name FROM one").await, json!([{"name": "old"}]));
    assert!(lake.ports.storage.list(&lake.ports.keys.root().join("quarantine/").unwrap()).await.unwrap().is_empty());
}

#[tokio::test]
async fn rules_about_all_rows_fail_or_warn() {
    for (check, part) in [
        ("{ unique: [id] }", "1 of 4 rows"),
        ("{ completeness: { column: name, at_least: 0.9 } }", "0.7500"),
        ("{ row_count: { at_least: 5 } }", "at least 5 rows, found 4"),
    ] {
        let lake = lake().await;
        let run = start(&lake.transform(&workflow(&rule("r", check, "fail"))), "w").await;
        let message = run["jobs"]["one"]["error"]["message"].as_str().unwrap();
        assert!(message.contains(part), "{check}: {message}");
        assert!(message.contains("`r`"), "{check}: {message}");
        lake.clock.advance(1);
        let run = succeed(&lake.transform(&workflow(&rule("r", check, "warn"))), "w").await;
        let job = &run["jobs"]["one"];
        assert_eq!((&job["quality"][0]["passed"], &job["rows_written"]), (&json!(false), &json!(4)), "{job:#}");
        assert!(job["quality"][0]["message"].as_str().unwrap().contains(part));
        lake.clock.advance(1);
        let kept = rule("r", &check.replace("id", "id, delay").replace("0.9", "0.75").replace('5', "4"), "fail");
        if !check.contains("completeness") {
            succeed(&lake.transform(&workflow(&kept)), "w").await;
        }
    }
}

#[tokio::test]
async fn a_rule_that_does_not_fit_the_rows_says_so() {
    for (check, part) in [
        ("{ row: 'delai >= 0' }", "delai"),
        ("{ row: 'delay' }", "`r`"),
        ("{ unique: [nope] }", "`nope`"),
        ("{ completeness: { column: nope, at_least: 1.0 } }", "`nope`"),
    ] {
        let lake = lake().await;
        let run = start(&lake.transform(&workflow(&rule("r", check, "fail"))), "w").await;
        let error = &run["jobs"]["one"]["error"];
        assert_eq!(error["kind"], "Invalid", "{check}: {error}");
        assert!(error["message"].as_str().unwrap().contains(part), "{check}: {error}");
        // A dry run finds it too.
        let transform = lake.transform(&workflow(&rule("r", check, "fail")));
        let (_, looked) = send(&transform, "POST", "/workflows/w/runs", &json!({"dryRun": true})).await;
        let error = looked["jobs"]["one"]["error"].as_str().unwrap_or_default();
        assert!(error.contains(part), "{check}: {looked:#}");
    }
}

#[tokio::test]
async fn a_job_s_sql_may_end_as_it_likes() {
    for end in [";", " ;; ", "; -- that is all", " -- ; no", " /* ; */ ;\n-- end\n"] {
        let lake = lake().await;
        let sql = json!(format!("SELECT * FROM raw{end}")).to_string();
        let rules = rule("on_time", "{ row: 'delay >= 0' }", "quarantine");
        let transform = lake.transform(&workflow(&rules).replace("SELECT * FROM raw", &sql));
        let run = succeed(&transform, "w").await;
        assert_eq!(run["jobs"]["one"]["rows_written"], 2, "{end}: {run:#}");
    }
}

#[tokio::test]
async fn the_error_of_a_job_with_rules_is_that_of_its_own_sql() {
    let lake = lake().await;
    let rules = rule("r", "{ row: 'delay >= 0' }", "fail");
    let transform = lake.transform(&workflow(&rules).replace("SELECT * FROM raw", "SELECT nope FROM raw"));
    let run = start(&transform, "w").await;
    let message = run["jobs"]["one"]["error"]["message"].as_str().unwrap();
    assert!(message.contains("nope") && !message.contains("quality"), "{message}");
}
