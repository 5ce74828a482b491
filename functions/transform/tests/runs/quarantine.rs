//! Rows in quarantine: written once they keep the rules, given up, and neither twice nor by mistake.

use std::future::Future;
use std::task::Poll;

use proptest::prelude::*;
use serde_json::{Value, json};
use shared::ErrorKind;
use shared::ports::Ports;
use testing::catalog_faults::{Fault, FaultyCatalog};
use transform::Transform;

use crate::lake::{Lake, name, resume, send, send_to, start, succeed};

const ROWS: &str = "SELECT * FROM (VALUES (1, 5), (2, -1), (3, -2)) AS t(id, delay)";

fn file(write: &str, rules: &str) -> String {
    format!(
        "  w:\n    jobs:\n      one:\n        sql: SELECT * FROM raw\n        into: one\n        mode: incremental\n        incremental: raw\n        \
         {write}\n        quality: [{rules}]\n"
    )
}

fn at_least(delay: i64) -> String {
    format!("{{name: on_time, check: {{row: 'delay >= {delay}'}}, action: quarantine}}")
}

fn append(delay: i64) -> String {
    file("write: append", &at_least(delay))
}

fn merge(delay: i64) -> String {
    file("{write: merge, key: [id]}", &at_least(delay))
        .replace("{write: merge, key: [id]}", "write: merge\n        key: [id]")
}

async fn lake(file: &str) -> Lake {
    let lake = Lake::new().await;
    lake.add("raw", ROWS).await;
    succeed(&lake.transform(file), "w").await;
    lake
}

async fn replay(transform: &Transform, body: Value) -> Value {
    let (status, answer) = send(transform, "POST", "/workflows/w/quarantine/replay", &body).await;
    assert_eq!(status, 200, "{answer:#}");
    answer
}

async fn discard(transform: &Transform, body: Value) -> Value {
    let (status, answer) = send(transform, "POST", "/workflows/w/quarantine/discard", &body).await;
    assert_eq!(status, 200, "{answer:#}");
    answer
}

async fn waiting(transform: &Transform) -> Vec<Value> {
    let (_, answer) = send(transform, "GET", "/workflows/w/quarantine", &Value::Null).await;
    let mut rows = answer["quarantine"].as_array().unwrap_or_else(|| panic!("{answer:#}")).clone();
    rows.sort_by_key(|row| (row["row"]["id"].as_i64(), row["row"]["delay"].as_i64()));
    rows
}

fn figures(replay: &Value) -> (u64, u64) {
    (replay["replayed"].as_u64().unwrap(), replay["failing"].as_u64().unwrap())
}

async fn ids(lake: &Lake) -> Value {
    lake.rows("SELECT id, delay FROM one ORDER BY id, delay").await
}

#[tokio::test]
async fn a_row_that_keeps_the_rules_of_now_is_written_and_leaves_the_others_stay() {
    let lake = lake(&append(0)).await;
    let strict = lake.transform(&append(0));
    let same = replay(&strict, json!({"job": "one"})).await;
    assert_eq!(figures(&same), (0, 2), "{same:#}");
    assert_eq!(same["reason"], "it breaks `on_time`");
    let mild = lake.transform(&append(-1));
    let dry = replay(&mild, json!({"job": "one", "dryRun": true})).await;
    assert_eq!((figures(&dry), waiting(&mild).await.len()), ((1, 1), 2), "{dry:#}");
    assert_eq!(figures(&replay(&mild, json!({"job": "one", "rule": "other"})).await), (0, 0));
    assert_eq!(figures(&replay(&mild, json!({"job": "one", "until": "2001-01-01"})).await), (0, 0));
    let done = replay(&mild, json!({"job": "one", "rule": "on_time"})).await;
    assert_eq!(figures(&done), (1, 1), "{done:#}");
    assert_eq!(ids(&lake).await, json!([{"id": 1, "delay": 5}, {"id": 2, "delay": -1}]));
    let left = waiting(&mild).await;
    assert_eq!(
        (left.len(), &left[0]["row"], &left[0]["reason"]),
        (1, &json!({"id": 3, "delay": -2}), &json!("it breaks `on_time`"))
    );
    assert_eq!(figures(&replay(&mild, json!({"job": "one"})).await), (0, 1), "once");
    // The job goes on from where it was: the replay is none of its runs.
    lake.add("raw", "SELECT 4 AS id, 4 AS delay").await;
    lake.clock.advance(1);
    succeed(&mild, "w").await;
    assert_eq!(ids(&lake).await.as_array().unwrap().len(), 3);
    let (_, status) = send(&mild, "GET", "/status/transform", &Value::Null).await;
    assert_eq!(status["quarantine"][0]["records"], 1, "{status:#}");
}

#[tokio::test]
async fn a_replay_fits_rows_to_the_table_as_it_is_now_or_says_what_is_lost() {
    let lake = lake(&append(0)).await;
    lake.change("ALTER TABLE nyc.one ADD COLUMNS (note string)").await;
    let mild = lake.transform(&append(-1));
    assert_eq!(figures(&replay(&mild, json!({"job": "one"})).await), (1, 1));
    lake.change("ALTER TABLE nyc.one RENAME COLUMN delay TO late").await;
    let rule = append(-5).replace("delay >=", "coalesce(late, 0) >=");
    let renamed = replay(&lake.transform(&rule), json!({"job": "one"})).await;
    assert_eq!(figures(&renamed), (0, 1));
    assert!(renamed["reason"].as_str().unwrap().contains("`delay`"), "{renamed:#}");
}

#[tokio::test]
async fn values_of_every_type_come_back_as_they_were() {
    let lake = Lake::new().await;
    let row = "SELECT 9223372036854775807 AS big, CAST('12345678901234567890.123456789' AS decimal(38,9)) AS dec, \
         CAST('NaN' AS double) AS nan, CAST('-Infinity' AS double) AS inf, CAST(0.1 AS real) AS f, X'00ff10' AS bin, \
         TIMESTAMP '2013-01-31 06:00:00.123456' AS at, DATE '1969-12-31' AS day, 'a \"b\" \n ü' AS text, \
         CAST(NULL AS bigint) AS none, ARRAY[1.5, NULL] AS list, named_struct('a', CAST('NaN' AS double), 'b', X'01') AS nested";
    lake.add("raw", row).await;
    let never = file("write: append", "{name: never, check: {row: 'big < 0'}, action: quarantine}");
    succeed(&lake.transform(&never), "w").await;
    let gone = file("write: append", "{name: always, check: {row: 'big > 0'}, action: quarantine}");
    let transform = lake.transform(&gone);
    let done = replay(&transform, json!({"job": "one"})).await;
    assert_eq!(figures(&done), (1, 0), "{done:#}");
    let shown = |table: &str| {
        let sql = format!("SELECT * FROM {table}");
        let lake = &lake;
        async move {
            let options =
                engine::QueryOptions { database: "nyc".into(), ..engine::QueryOptions::new(shared::Principal::Owner) };
            let (batches, _) = lake.engine.query(&sql, &options).await.unwrap().collect().await.unwrap();
            format!("{:?}", batches.iter().map(|batch| batch.columns().to_vec()).collect::<Vec<_>>())
        }
    };
    assert_eq!(shown("one").await, shown("raw").await);
}

#[tokio::test]
async fn rows_of_a_merge_are_the_newest_of_their_key_or_stay() {
    let lake = lake(&merge(0)).await;
    // Key 2 is written by a later run, key 3 only set aside again, key 4 is new, key 5 leaves.
    lake.clock.advance(1);
    lake.add("raw", "SELECT * FROM (VALUES (2, 7), (3, -1), (4, -1), (5, 1)) AS t(id, delay)").await;
    let strict = lake.transform(&merge(0));
    succeed(&strict, "w").await;
    lake.clock.advance(1);
    lake.add("raw", "SELECT 5 AS id, -1 AS delay").await;
    succeed(&strict, "w").await;
    lake.change("DELETE FROM nyc.one WHERE id = 5").await;
    assert_eq!(waiting(&strict).await.len(), 5);

    let mild = lake.transform(&merge(-2));
    let dry = replay(&mild, json!({"job": "one", "dryRun": true})).await;
    assert_eq!((figures(&dry), &dry["superseded"]), ((2, 2), &json!(1)), "{dry:#}");
    let done = replay(&mild, json!({"job": "one"})).await;
    assert_eq!((figures(&done), &done["superseded"]), ((2, 2), &json!(1)), "{done:#}");
    assert!(done["reason"].as_str().unwrap().contains("`overwrite`"), "{done:#}");
    let expected =
        json!([{"id": 1, "delay": 5}, {"id": 2, "delay": 7}, {"id": 3, "delay": -1}, {"id": 4, "delay": -1}]);
    assert_eq!(ids(&lake).await, expected, "key 2 keeps its newer row, key 5 stays deleted");
    let left: Vec<_> = waiting(&mild).await.iter().map(|row| row["row"]["id"].clone()).collect();
    assert_eq!(left, [2, 5]);
    let forced = replay(&mild, json!({"job": "one", "overwrite": true, "rule": "on_time"})).await;
    assert_eq!(figures(&forced), (2, 0), "{forced:#}");
    assert_eq!(ids(&lake).await[1], json!({"id": 2, "delay": -1}));
}

#[tokio::test]
async fn a_row_of_the_same_run_and_key_is_not_overwritten() {
    let lake = Lake::new().await;
    lake.add("raw", "SELECT * FROM (VALUES (1, 5), (1, -1), (2, -1), (2, -2)) AS t(id, delay)").await;
    succeed(&lake.transform(&merge(0)), "w").await;
    let mild = lake.transform(&merge(-2));
    let done = replay(&mild, json!({"job": "one"})).await;
    assert_eq!(figures(&done), (0, 3), "{done:#}");
    assert_eq!(ids(&lake).await, json!([{"id": 1, "delay": 5}]));
}

#[tokio::test]
async fn a_version_that_is_gone_tells_nothing_of_what_is_newer() {
    let lake = lake(&merge(0)).await;
    lake.clock.advance(1);
    lake.add("raw", "SELECT 9 AS id, 9 AS delay").await;
    succeed(&lake.transform(&merge(0)), "w").await;
    // Snapshots have the time of the machine, whatever the clock of this lake says.
    lake.clock.advance(2_300_000_000_000);
    let upkeep = "  keep:\n    maintenance:\n      one: { table: one, expire: { older_than: 1d, keep: 1 } }\n";
    let expired = succeed(&lake.transform(upkeep), "keep").await;
    assert_eq!(expired["jobs"]["one"]["maintenance"]["expired"]["snapshots"], 1, "{expired:#}");
    let mild = lake.transform(&merge(-2));
    let done = replay(&mild, json!({"job": "one"})).await;
    assert_eq!(figures(&done), (0, 2), "{done:#}");
    assert!(done["reason"].as_str().unwrap().contains("is gone"), "{done:#}");
    assert_eq!(figures(&replay(&mild, json!({"job": "one", "overwrite": true})).await), (2, 0));
}

#[tokio::test]
async fn a_table_that_each_run_makes_anew_takes_no_rows() {
    let lake = Lake::new().await;
    lake.add("raw", ROWS).await;
    let text = file("write: overwrite", &at_least(0));
    succeed(&lake.transform(&text), "w").await;
    let mild = lake.transform(&text.replace("0'", "-1'"));
    let (status, answer) = send(&mild, "POST", "/workflows/w/quarantine/replay", &json!({"job": "one"})).await;
    assert_eq!(status, 400, "{answer}");
    assert!(answer.to_string().contains("`tarn run w --job one`"), "{answer}");
    for (body, part) in
        [(json!({}), "expected `job`"), (json!({"job": "x"}), "no job `x`"), (json!({"job": "one", "dry": 1}), "dry")]
    {
        let (_, answer) = send(&mild, "POST", "/workflows/w/quarantine/replay", &body).await;
        assert!(answer.to_string().contains(part), "{answer}");
    }
}

#[tokio::test]
async fn rules_about_all_rows_hold_for_replayed_ones_as_far_as_they_can() {
    let lake = Lake::new().await;
    lake.add("raw", "SELECT * FROM (VALUES (1, -1, 'a'), (1, -2, 'b'), (2, -1, NULL)) AS t(id, delay, name)").await;
    let rules = |delay: i64| {
        at_least(delay)
            + ", {name: once, check: {unique: [id]}, action: fail}, {name: full, check: {completeness: {column: name, at_least: 1}}, action: fail}"
    };
    succeed(&lake.transform(&file("write: append", &rules(0))), "w").await;
    let mild = lake.transform(&file("write: append", &rules(-9)));
    let done = replay(&mild, json!({"job": "one"})).await;
    assert_eq!(figures(&done), (1, 2), "{done:#}");
    let left: Vec<_> = waiting(&mild).await.iter().map(|row| row["rules"][0].clone()).collect();
    assert_eq!(left, ["once", "full"]);
}

#[tokio::test]
async fn rules_with_parameters_have_those_of_the_run() {
    let lake = Lake::new().await;
    lake.add("raw", ROWS).await;
    let text = |rule: &str| {
        file("write: append", &format!("{{name: on_time, check: {{row: '{rule}'}}, action: quarantine}}"))
            .replace("  w:\n", "  w:\n    parameters: {least: '0'}\n")
    };
    let (status, run) = send(
        &lake.transform(&text("delay >= ${least}")),
        "POST",
        "/workflows/w/runs",
        &json!({"parameters": {"least": -1}}),
    )
    .await;
    assert_eq!((status, &run["jobs"]["one"]["rows_quarantined"]), (200, &json!(1)), "{run:#}");
    let mild = lake.transform(&text("delay >= ${least} - 1"));
    assert_eq!(figures(&replay(&mild, json!({"job": "one"})).await), (1, 0));
}

#[tokio::test]
async fn what_a_run_set_aside_that_did_not_commit_is_left_to_the_next() {
    let lake = Lake::new().await;
    lake.add("raw", ROWS).await;
    lake.add("one", "SELECT 0 AS id, 0 AS delay").await;
    let catalog = FaultyCatalog::new(lake.ports.catalog.clone());
    let ports = Ports { catalog: catalog.clone(), ..lake.ports.clone() };
    let file = append(0) + "        retries: 0\n";
    let transform = lake.transform_over(ports, &file);
    catalog.fail(&name("one"), &[Fault::Refused(ErrorKind::Limit)]);
    let run = start(&transform, "w").await;
    assert_eq!((&run["status"], waiting(&transform).await.len()), (&json!("failed"), 2), "{run:#}");
    let mild = lake.transform(&append(-2));
    let none = replay(&mild, json!({"job": "one"})).await;
    assert_eq!(figures(&none), (0, 2));
    assert!(none["reason"].as_str().unwrap().contains("did not commit"), "{none:#}");
    // Given up, and set aside anew by the resumed run.
    assert_eq!(discard(&mild, json!({"job": "one"})).await["discarded"], 2);
    assert!(waiting(&mild).await.is_empty());
    let (status, resumed) = resume(&lake.transform(&file), &run).await;
    assert_eq!((status, &resumed["status"]), (200, &json!("succeeded")), "{resumed:#}");
    assert_eq!(waiting(&mild).await.len(), 2);
    assert_eq!(figures(&replay(&mild, json!({"job": "one"})).await), (2, 0));
    assert_eq!(ids(&lake).await.as_array().unwrap().len(), 4);
}

#[tokio::test]
async fn rows_that_are_given_up_are_gone_and_others_stay() {
    let lake = lake(&append(0)).await;
    let transform = lake.transform(&append(0));
    let (_, shown) = send_to(&transform, "GET", "/workflows/w/quarantine", "rule=other", &Value::Null).await;
    assert_eq!(shown["quarantine"], json!([]), "{shown}");
    assert_eq!(discard(&transform, json!({"rule": "other"})).await["discarded"], 0);
    let dry = discard(&transform, json!({"dryRun": true})).await;
    assert_eq!((&dry["discarded"], waiting(&transform).await.len()), (&json!(2), 2));
    tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    lake.clock.advance(1);
    lake.add("raw", "SELECT 7 AS id, -7 AS delay").await;
    succeed(&transform, "w").await;
    let done = discard(&transform, json!({"asOfMs": dry["asOfMs"]})).await;
    assert_eq!(done["discarded"], 2, "{done}");
    let left: Vec<_> = waiting(&transform).await.iter().map(|row| row["row"]["id"].clone()).collect();
    assert_eq!(left, [7], "came meanwhile");
    // Also of a job that is declared no more.
    let other = lake.transform(&append(0).replace("one:", "two:"));
    assert_eq!(discard(&other, json!({"job": "one"})).await["discarded"], 1);
    let (_, status) = send(&other, "GET", "/status/transform", &Value::Null).await;
    assert_eq!(status["quarantine"], json!([]), "{status}");
}

/// Polls `future` so many times and then drops it, as a kill would.
async fn killed_after<F: Future>(polls: usize, future: F) -> Option<F::Output> {
    let mut future = Box::pin(future);
    let mut left = polls;
    std::future::poll_fn(|context| {
        if left == 0 {
            return Poll::Ready(None);
        }
        left -= 1;
        future.as_mut().poll(context).map(Some)
    })
    .await
}

/// Killed between the commit of its rows and their leaving: the table has them, and they wait.
#[tokio::test]
async fn a_replay_that_was_killed_anywhere_is_finished_by_the_next() {
    for text in [append as fn(i64) -> String, merge] {
        for steps in (0..400).step_by(7) {
            let lake = lake(&text(0)).await;
            let mild = lake.transform(&text(-2));
            let body = json!({"job": "one"});
            drop(killed_after(steps, send(&mild, "POST", "/workflows/w/quarantine/replay", &body)).await);
            let last = replay(&mild, body).await;
            assert_eq!(last["failing"], 0, "{steps}: {last:#}");
            assert_eq!(ids(&lake).await.as_array().unwrap().len(), 3, "{steps}");
            assert!(waiting(&mild).await.is_empty(), "{steps}");
        }
    }
}

/// Runs, replays and discards, two at once, each killed somewhere.
async fn live(text: fn(i64) -> String, acts: Vec<(usize, usize, bool)>) {
    let lake = lake(&text(0)).await;
    let (strict, mild) = (lake.transform(&text(0)), lake.transform(&text(-1)));
    let mut next = 10;
    for (a, b, gives_up) in acts {
        lake.clock.advance(1);
        lake.add(
            "raw",
            &format!("SELECT * FROM (VALUES ({next}, -1), ({}, -9), ({}, 1)) AS t(id, delay)", next + 1, next + 2),
        )
        .await;
        next += 3;
        succeed(&strict, "w").await;
        let body = json!({"job": "one"});
        let one = killed_after(a, send(&mild, "POST", "/workflows/w/quarantine/replay", &body));
        let other = killed_after(b, send(&mild, "POST", "/workflows/w/quarantine/replay", &body));
        if gives_up {
            let unwanted = json!({"job": "one", "rule": "none such"});
            let third = killed_after(b, send(&mild, "POST", "/workflows/w/quarantine/discard", &unwanted));
            drop(futures::join!(one, other, third));
        } else {
            drop(futures::join!(one, other));
        }
    }
    replay(&mild, json!({"job": "one"})).await;
    let last = replay(&mild, json!({"job": "one"})).await;
    assert_eq!(last["replayed"], 0, "{last}");
    let mut expected = vec![1, 2];
    expected.extend((10..next).filter(|id| (id - 10) % 3 != 1));
    let found: Vec<i64> = ids(&lake).await.as_array().unwrap().iter().map(|row| row["id"].as_i64().unwrap()).collect();
    assert_eq!(found, expected, "each once");
    let left = waiting(&mild).await;
    assert_eq!(left.len() as i64, 1 + (next - 10) / 3, "{left:#?}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn every_row_is_in_the_table_or_waits_once_whatever_happens_to_replays(
        merges in any::<bool>(), acts in proptest::collection::vec((0usize..400, 0usize..400, any::<bool>()), 1..4),
    ) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        runtime.block_on(live(if merges { merge } else { append }, acts));
    }
}
