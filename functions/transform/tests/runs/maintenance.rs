//! Tables that workflows keep.

use serde_json::{Value, json};

use crate::lake::{Lake, start};

const KEEP: &str = "
  nightly:
    maintenance:
      keep: {table: flights, compact: {min_files: 2}, expire: {older_than: 1d}, orphans: {}}
";

async fn scattered(lake: &Lake) {
    for id in 1..=4 {
        lake.add("flights", &format!("SELECT {id}::bigint AS id")).await;
    }
}

/// The record of the only job of a run of `nightly`.
async fn kept(lake: &Lake, workflows: &str) -> Value {
    start(&lake.transform(workflows), "nightly").await["jobs"]["keep"].clone()
}

#[tokio::test]
async fn a_table_is_compacted_and_its_old_snapshots_expire_the_next_time() {
    let lake = Lake::new().await;
    scattered(&lake).await;
    let first = kept(&lake, KEEP).await;
    assert_eq!(first["status"], "succeeded", "{first}");
    assert_eq!(first["into"], "nyc.flights");
    let compacted = &first["maintenance"]["compacted"];
    assert_eq!((&compacted["files_removed"], &compacted["files_added"]), (&json!(4), &json!(1)), "{first}");
    assert_eq!(first["snapshot_id"], compacted["snapshots"][0]);
    assert_eq!(first["maintenance"]["expired"]["snapshots"], 0, "none is a day old");
    assert_eq!(lake.rows("SELECT count(*) AS n, sum(id) AS s FROM flights").await, json!([{"n": 4, "s": 10}]));

    // Snapshots have the time of the machine, whatever the clock of this lake says.
    lake.clock.advance(2_300_000_000_000);
    let second = kept(&lake, KEEP).await;
    let report = &second["maintenance"];
    assert_eq!(report["compacted"]["groups"], 0, "{second}");
    assert_eq!(report["expired"]["snapshots"], 4, "{second}");
    assert!(report["expired"]["files"].as_u64().unwrap() >= 8, "{second}");
    assert_eq!(report["orphans"]["left_behind"], 0, "{second}");
    assert_eq!(lake.table("flights").await.history().len(), 1);
    assert_eq!(lake.rows("SELECT count(*) AS n, sum(id) AS s FROM flights").await, json!([{"n": 4, "s": 10}]));
    let noted = lake.rows("SELECT job, status FROM tarn.runs ORDER BY run_started").await;
    assert_eq!(noted, json!([{"job": "keep", "status": "succeeded"}, {"job": "keep", "status": "succeeded"}]));
}

#[tokio::test]
async fn a_dry_run_tells_what_it_would_do() {
    let lake = Lake::new().await;
    scattered(&lake).await;
    let before = lake.table("flights").await.metadata_location().to_owned();
    let told = kept(&lake, &KEEP.replace("orphans: {}", "orphans: {}, dry_run: true")).await;
    assert_eq!(told["maintenance"]["dry_run"], true, "{told}");
    assert_eq!(told["maintenance"]["compacted"]["files_removed"], 4, "{told}");
    assert_eq!(told["snapshot_id"], Value::Null);
    assert_eq!(lake.table("flights").await.metadata_location(), before);
}

#[tokio::test]
async fn a_table_that_is_not_there_or_can_not_be_sorted_so_fails_the_job_with_the_reason() {
    let lake = Lake::new().await;
    let missing = kept(&lake, KEEP).await;
    assert_eq!(missing["status"], "failed");
    assert_eq!(missing["error"]["kind"], "NotFound", "{missing}");
    scattered(&lake).await;
    let unsortable = kept(&lake, &KEEP.replace("min_files: 2", "sort: [idd]")).await;
    let message = unsortable["error"]["message"].as_str().unwrap();
    assert!(message.contains("`idd`") && message.contains("`id`"), "{message}");
    assert_eq!(lake.table("flights").await.history().len(), 4);
}

#[tokio::test]
async fn an_incremental_job_finds_its_place_after_its_table_was_compacted() {
    let lake = Lake::new().await;
    scattered(&lake).await;
    let workflows = format!(
        "{KEEP}\n  copy:\n    jobs:\n      copy: {{sql: SELECT * FROM flights, into: copied, write: append, mode: incremental, incremental: flights}}\n"
    );
    let transform = lake.transform(&workflows);
    assert_eq!(start(&transform, "copy").await["jobs"]["copy"]["rows_written"], 4);
    assert_eq!(start(&transform, "nightly").await["status"], "succeeded");
    lake.add("flights", "SELECT 5::bigint AS id").await;
    let copied = start(&transform, "copy").await;
    assert_eq!(copied["jobs"]["copy"]["rows_written"], 1, "{copied}");
    assert_eq!(lake.rows("SELECT count(*) AS n, count(DISTINCT id) AS d FROM copied").await, json!([{"n": 5, "d": 5}]));
}
