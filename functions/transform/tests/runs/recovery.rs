//! Faults, tries, resumes, leases: nothing is written twice, nothing is lost, everything ends.

use std::sync::Arc;

use serde_json::json;
use shared::clock::Clock;
use shared::ports::Ports;
use shared::{ErrorKind, deadline};
use table_datafusion::Change;
use testing::catalog_faults::{Fault, FaultyCatalog};
use testing::faults::{Faulty, Plan};
use transform::Transform;

use crate::lake::{Lake, call, name, resume, send, start, succeed};

/// The function over a catalog that can be made to fail.
pub fn faulty(lake: &Lake, workflows: &str) -> (Transform, Arc<FaultyCatalog>) {
    let catalog = FaultyCatalog::new(lake.ports.catalog.clone());
    let ports = Ports { catalog: catalog.clone(), ..lake.ports.clone() };
    (lake.transform_over(ports, workflows), catalog)
}

const ONE: &str =
    "  w: { jobs: { one: { sql: 'SELECT id FROM raw', into: one, write: append, retries: 2, timeout: 1s } } }\n";

#[tokio::test]
async fn a_passing_fault_is_tried_again() {
    let lake = Lake::new().await;
    lake.add("raw", "SELECT 1 AS id").await;
    let (transform, catalog) = faulty(&lake, ONE);
    catalog.fail(&name("one"), &[Fault::Refused(ErrorKind::Limit), Fault::Refused(ErrorKind::Limit)]);
    let run = succeed(&transform, "w").await;
    assert!(catalog.is_spent());
    assert_eq!(lake.rows("SELECT * FROM one").await, json!([{"id": 1}]));
    assert_eq!(run["jobs"]["one"]["tries"], 3, "{run:#}");
}

#[tokio::test]
async fn a_commit_whose_reply_is_lost_is_not_made_again() {
    for fault in [Fault::LostReply(ErrorKind::OutcomeUnknown), Fault::LostReply(ErrorKind::Retry), Fault::HangAfter] {
        let lake = Lake::new().await;
        lake.add("raw", "SELECT 1 AS id").await;
        let (transform, catalog) = faulty(&lake, ONE);
        catalog.fail(&name("one"), &[fault]);
        succeed(&transform, "w").await;
        assert!(catalog.is_spent(), "{fault:?}");
        assert_eq!(lake.rows("SELECT * FROM one").await, json!([{"id": 1}]), "{fault:?}");
    }
}

#[tokio::test]
async fn a_job_that_takes_too_long_fails_and_blocks_its_dependents() {
    let lake = Lake::new().await;
    lake.add("raw", "SELECT 1 AS id").await;
    let two = ONE
        .replace("retries: 2", "retries: 1")
        .replace(" } } }\n", " }, two: { sql: 'SELECT * FROM one', into: two } } }\n");
    let (transform, catalog) = faulty(&lake, &two);
    catalog.fail(&name("one"), &[Fault::Hang, Fault::Hang]);
    let run = start(&transform, "w").await;
    let job = &run["jobs"]["one"];
    assert_eq!((&job["error"]["kind"], &job["tries"]), (&json!("Limit"), &json!(2)), "{job:#}");
    assert!(job["error"]["message"].as_str().unwrap().contains("`1s`"), "{job:#}");
    assert_eq!(run["jobs"]["two"]["status"], "skipped");
}

#[tokio::test]
async fn a_resume_does_what_failed_and_keeps_what_succeeded() {
    let lake = Lake::new().await;
    lake.add("raw", "SELECT 1 AS id").await;
    let transform = lake.transform(
        r#"
  w:
    jobs:
      first:  { sql: "SELECT id FROM raw", into: first, write: append }
      second: { sql: "SELECT id FROM missing", into: second }
      third:  { sql: "SELECT id FROM second", into: third }
"#,
    );
    let failed = start(&transform, "w").await;
    assert_eq!(failed["status"], "failed");
    assert_eq!(resume(&transform, &failed).await.1["status"], "failed");
    lake.add("missing", "SELECT 7 AS id").await;
    lake.clock.advance(1);
    let (status, run) = resume(&transform, &failed).await;
    assert_eq!((status, &run["status"], &run["attempt"]), (200, &json!("succeeded"), &json!(3)), "{run:#}");
    assert_eq!(lake.rows("SELECT * FROM first").await, json!([{"id": 1}]));
    assert_eq!(lake.rows("SELECT * FROM third").await, json!([{"id": 7}]));
    let (status, answer) = resume(&transform, &run).await;
    assert_eq!(status, 400, "{answer}");
    let rows = lake.rows("SELECT attempt, job, status FROM tarn.runs ORDER BY attempt, job").await;
    let row = |attempt: u32, job: &str, status: &str| json!({"attempt": attempt, "job": job, "status": status});
    let expected = json!([
        row(1, "first", "succeeded"),
        row(1, "second", "failed"),
        row(1, "third", "skipped"),
        row(2, "second", "failed"),
        row(2, "third", "skipped"),
        row(3, "second", "succeeded"),
        row(3, "third", "succeeded"),
    ]);
    assert_eq!(rows, expected);
}

#[tokio::test]
async fn a_resume_behind_a_commit_that_nobody_saw_writes_nothing_twice() {
    let lake = Lake::new().await;
    lake.add("raw", "SELECT 1 AS id").await;
    let once = ONE.replace("retries: 2", "retries: 0");
    let (transform, catalog) = faulty(&lake, &once);
    catalog.fail(&name("one"), &[Fault::HangAfter]);
    let request = tokio::spawn({
        let transform = transform.clone();
        async move { start(&transform, "w").await }
    });
    while !catalog.is_spent() {
        tokio::task::yield_now().await;
    }
    let runs = send(&transform, "GET", "/workflows/w/runs", &json!(null)).await.1;
    let run = runs["runs"][0].clone();
    let (status, answer) =
        send(&transform, "POST", &format!("/runs/{}/cancel", run["run"].as_str().unwrap()), &json!({})).await;
    assert_eq!(status, 202, "{answer}");
    let cancelled = request.await.unwrap();
    assert_eq!(cancelled["status"], "cancelled", "{cancelled:#}");
    lake.add("raw", "SELECT 2 AS id").await;
    let (_, resumed) = resume(&transform, &cancelled).await;
    assert_eq!(resumed["status"], "succeeded", "{resumed:#}");
    assert_eq!(lake.rows("SELECT * FROM one").await, json!([{"id": 1}]));
}

#[tokio::test]
async fn a_second_start_is_refused_until_the_first_runner_is_gone() {
    let lake = Lake::new().await;
    lake.add("raw", "SELECT 1 AS id").await;
    let slow = ONE.replace("timeout: 1s", "timeout: 60s");
    let (transform, catalog) = faulty(&lake, &slow);
    catalog.fail(&name("one"), &[Fault::Hang]);
    let first = tokio::spawn({
        let transform = transform.clone();
        async move { send(&transform, "POST", "/workflows/w/runs", &json!({})).await }
    });
    while !catalog.is_spent() {
        tokio::task::yield_now().await;
    }
    let runs = send(&transform, "GET", "/workflows/w/runs", &json!(null)).await.1;
    let running = runs["runs"][0]["run"].as_str().unwrap().to_owned();
    let (status, answer) = send(&transform, "POST", "/workflows/w/runs", &json!({})).await;
    assert_eq!(status, 409, "{answer}");
    assert!(answer["error"]["message"].as_str().unwrap().contains(&running), "{answer}");

    // The host knows that the runner is gone; the run that it left is closed, and nothing of it is lost from the records.
    transform.expire_leases().await.unwrap();
    lake.clock.advance(1);
    succeed(&transform, "w").await;
    let (_, left) = send(&transform, "GET", &format!("/runs/{running}"), &json!(null)).await;
    assert_eq!((&left["status"], &left["recorded"]), (&json!("failed"), &json!(true)), "{left:#}");
    let (status, answer) = first.await.unwrap();
    assert_eq!(status, 409, "{answer}");
    assert_eq!(lake.rows("SELECT * FROM one").await, json!([{"id": 1}]));
    let rows = lake.rows("SELECT status FROM tarn.runs ORDER BY run").await;
    assert_eq!(rows, json!([{"status": "failed"}, {"status": "succeeded"}]));
}

#[tokio::test]
async fn a_run_that_could_not_be_recorded_is_recorded_by_the_next_one() {
    let lake = Lake::new().await;
    lake.add("raw", "SELECT 1 AS id").await;
    succeed(&lake.transform(ONE), "w").await;
    lake.clock.advance(1);
    let (transform, catalog) = faulty(&lake, ONE);
    catalog.fail(&name("tarn.runs"), &[Fault::Refused(ErrorKind::Denied)]);
    let run = succeed(&transform, "w").await;
    assert!(catalog.is_spent());
    assert_eq!(run["recorded"], false);
    lake.clock.advance(1);
    succeed(&transform, "w").await;
    assert_eq!(lake.rows("SELECT count(*) AS n FROM tarn.runs").await, json!([{"n": 3}]));
}

#[tokio::test]
async fn no_more_jobs_begin_than_may_run_at_once() {
    for (parallel, expected) in [(1, ["running", "pending", "pending"]), (2, ["running", "running", "pending"])] {
        let lake = Lake::new().await;
        for table in ["a", "b", "c"] {
            lake.add(table, "SELECT 1 AS id").await;
        }
        let jobs: String =
            ["a", "b", "c"].map(|t| format!("      {t}: {{ sql: 'SELECT 2 AS id', into: {t} }}\n")).concat();
        let (transform, catalog) = faulty(&lake, &format!("  w:\n    parallel: {parallel}\n    jobs:\n{jobs}"));
        let hung = &["a", "b", "c"][..parallel];
        hung.iter().for_each(|table| catalog.fail(&name(table), &[Fault::Hang]));
        let request = tokio::spawn({
            let transform = transform.clone();
            async move { start(&transform, "w").await }
        });
        while !catalog.is_spent() {
            tokio::task::yield_now().await;
        }
        let runs = send(&transform, "GET", "/workflows/w/runs", &json!(null)).await.1;
        let jobs = runs["runs"][0]["jobs"].as_object().unwrap();
        assert_eq!(jobs.values().map(|job| job["status"].as_str().unwrap()).collect::<Vec<_>>(), expected);
        let run = runs["runs"][0]["run"].as_str().unwrap();
        let (status, answer) = send(&transform, "POST", &format!("/runs/{run}/cancel"), &json!({})).await;
        assert_eq!(status, 202, "{answer}");
        request.await.unwrap();
    }
}

#[tokio::test]
async fn random_faults_of_the_store_lose_and_double_nothing() {
    let jobs = "one: { sql: 'SELECT id FROM raw', into: one, write: append, mode: incremental, incremental: raw, retries: 10 }";
    let more = "two: { sql: 'SELECT id FROM files', into: two, write: append, mode: incremental, incremental: files, retries: 10 }";
    let workflows = format!("  w:\n    jobs:\n      {jobs}\n      {more}\n");
    let mut faults = 0;
    for seed in 0..30 {
        let lake = Lake::new().await;
        lake.csv_table("files", &[("id", "bigint")]).await;
        let plan = Plan::random(seed, 100);
        let storage = lake.ports.storage.wrapped(|store| Faulty::wrap(store, &plan));
        let transform = lake.transform_over(Ports { storage, ..lake.ports.clone() }, &workflows);
        for round in 0..4 {
            lake.add("raw", &format!("SELECT {round} AS id")).await;
            lake.put("files", &format!("{round}.csv"), &format!("{round}\n")).await;
            lake.clock.advance(1);
            let mut run = start(&transform, "w").await;
            while run["status"] != "succeeded" {
                run = resume(&transform, &run).await.1;
            }
        }
        plan.stop();
        faults += plan.injected();
        for table in ["one", "two"] {
            let rows = lake.rows(&format!("SELECT id FROM {table} ORDER BY id")).await;
            assert_eq!(rows, json!([{"id": 0}, {"id": 1}, {"id": 2}, {"id": 3}]), "{table} with seed {seed}");
        }
    }
    assert!(faults > 100, "{faults} faults are too few to prove anything");
}

#[tokio::test]
async fn workflows_that_write_one_table_at_once_lose_nothing() {
    let lake = Lake::new().await;
    lake.write("raw", "SELECT * FROM generate_series(1, 100) AS t(id)", Change::Append).await;
    let workflows: String = (0..4).map(|n| ONE.replace("w:", &format!("w{n}:")).replace("1s", "60s")).collect();
    let transform = lake.transform(&workflows);
    let runs = (0..4).map(|n| {
        let transform = transform.clone();
        async move { succeed(&transform, &format!("w{n}")).await }
    });
    futures::future::join_all(runs).await;
    assert_eq!(
        lake.rows("SELECT count(*) AS n, count(DISTINCT id) AS d FROM one").await,
        json!([{"n": 400, "d": 100}])
    );
    assert_eq!(lake.rows("SELECT count(*) AS n FROM tarn.runs").await, json!([{"n": 4}]));
}

/// A tick that names no workflow.
fn tick() -> serde_json::Value {
    json!({"detail-type": "Scheduled Event", "source": "aws.events", "detail": {}})
}

#[tokio::test]
async fn a_tick_runs_the_workflows_that_are_due_and_no_other() {
    let lake = Lake::new().await;
    let jobs = "jobs: { one: { sql: 'SELECT 1 AS id', into: one, write: append } }";
    let transform = lake.transform(&format!("  w: {{ schedule: rate(5m), {jobs} }}\n  by_hand: {{ {jobs} }}\n"));
    assert_eq!(call(&transform, tick()).await.unwrap(), json!({"ran": [], "left": [], "queue": []}));
    lake.clock.advance(300_000);
    let answer = call(&transform, tick()).await.unwrap();
    assert_eq!((answer["ran"].as_array().unwrap().len(), &answer["ran"][0]["name"]), (1, &json!("w")), "{answer:#}");
    assert_eq!(answer["ran"][0]["answer"]["status"], "succeeded", "{answer:#}");
    assert_eq!(call(&transform, tick()).await.unwrap()["ran"], json!([]));
}

#[tokio::test]
async fn an_event_that_comes_twice_begins_one_run() {
    let lake = Lake::new().await;
    let transform = lake.transform(ONE);
    lake.add("raw", "SELECT 1 AS id").await;
    let event = |id: &str| {
        json!({
            "detail-type": "Scheduled Event", "source": "aws.events", "id": id, "detail": {"name": "w"},
        })
    };
    let first = call(&transform, event("a")).await.unwrap();
    assert_eq!(call(&transform, event("a")).await.unwrap(), first);
    lake.clock.advance(1);
    assert_ne!(call(&transform, event("b")).await.unwrap()["run"], first["run"]);
}

#[tokio::test]
async fn a_run_that_time_cuts_short_goes_on_at_the_next_tick() {
    let lake = Lake::new().await;
    let workflows = "  w: { schedule: rate(5m), jobs: {
        one: { sql: 'SELECT 1 AS id', into: one, write: append }, two: { sql: 'SELECT id FROM one', into: two, write: append } } }\n";
    let (transform, catalog) = faulty(&lake, workflows);
    call(&transform, tick()).await.unwrap();
    lake.clock.advance(300_000);
    catalog.fail(&name("two"), &[Fault::HangAfter]);
    let soon = lake.clock.now_ms() + 4_000;
    let cut = deadline::until(soon, call(&transform, tick())).await.unwrap()["ran"][0]["answer"].clone();
    assert_eq!((&cut["status"], &cut["interrupted"]), (&json!("failed"), &json!(true)), "{cut:#}");
    assert_eq!(cut["jobs"]["one"]["status"], "succeeded", "{cut:#}");
    assert_eq!(cut["jobs"]["two"]["error"]["kind"], "Retry", "{cut:#}");
    let rest = call(&transform, tick()).await.unwrap()["ran"][0]["answer"].clone();
    assert_eq!(
        (&rest["run"], &rest["attempt"], &rest["status"]),
        (&cut["run"], &json!(2), &json!("succeeded")),
        "{rest:#}"
    );
    assert_eq!(lake.rows("SELECT * FROM two").await, json!([{"id": 1}]));
    assert_eq!(call(&transform, tick()).await.unwrap()["ran"], json!([]));
}

#[tokio::test]
async fn a_run_without_time_for_any_job_is_to_be_tried_again() {
    let lake = Lake::new().await;
    let (transform, catalog) = faulty(&lake, ONE);
    lake.add("raw", "SELECT 1 AS id").await;
    catalog.fail(&name("one"), &[Fault::HangAfter]);
    let event =
        || json!({"detail-type": "Scheduled Event", "source": "aws.events", "id": "a", "detail": {"name": "w"}});
    let soon = lake.clock.now_ms() + 1_000;
    let error = deadline::until(soon, call(&transform, event())).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Retry, "{error}");
    let run = call(&transform, event()).await.unwrap();
    assert_eq!((&run["status"], &run["attempt"]), (&json!("succeeded"), &json!(2)), "{run:#}");
    assert_eq!(lake.rows("SELECT * FROM one").await, json!([{"id": 1}]));
}
