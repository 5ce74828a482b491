//! Tables that are kept without being declared.

use std::sync::Arc;

use serde_json::{Value, json};
use shared::project::Project;
use transform::Transform;

use crate::lake::{Lake, call, send, start};

const DAY_MS: i64 = 86_400_000;
/// Snapshots have the time of the machine, whatever the clock of the lake says: this is behind it.
const LATER_MS: i64 = 2_300_000_000_000;

const STREAMS: &str = "streams: {flights: {schema: [{name: id, type: bigint}]}}\n";

fn over(lake: &Lake, more: &str) -> Transform {
    let text = format!("version: 1\ndatabase: nyc\n{STREAMS}{more}");
    let project = Arc::new(Project::parse(&text, "lakehouse.yaml").unwrap());
    Transform::new(project, lake.ports.clone(), lake.engine.clone()).unwrap()
}

/// As a stream of small commits leaves a table.
async fn scattered(lake: &Lake, ids: std::ops::Range<i64>) {
    for id in ids {
        lake.add("flights", &format!("SELECT {id}::bigint AS id")).await;
    }
}

/// What a schedule's event does that names the workflow.
async fn night(transform: &Transform, cause: &str) -> Value {
    let event = json!({
        "version": "0", "id": cause, "detail-type": "Scheduled Event", "source": "aws.events",
        "time": "2026-01-01T03:00:00Z", "detail": {"name": "maintenance"},
    });
    call(transform, event).await.unwrap()
}

async fn locations(lake: &Lake) -> Vec<String> {
    let mut found = Vec::new();
    for table in ["flights", "tarn.runs"] {
        match lake.tables.load(&crate::lake::name(table)).await {
            Ok(table) => found.push(table.metadata_location().to_owned()),
            Err(error) => assert_eq!(error.kind(), shared::ErrorKind::NotFound, "{error}"),
        }
    }
    found
}

#[tokio::test]
async fn a_stream_s_table_is_kept_each_night_and_a_lakehouse_at_rest_stays_as_it_is() {
    let lake = Lake::new().await;
    let transform = over(&lake, "");
    assert!(night(&transform, "0").await["skipped"].is_string(), "no table is there yet");
    scattered(&lake, 0..6).await;
    let first = night(&transform, "1").await;
    assert_eq!(first["status"], "succeeded", "{first:#}");
    assert_eq!(first["jobs"].as_object().unwrap().len(), 1, "the table of runs is not there yet");
    let kept = &first["jobs"]["nyc.flights"]["maintenance"];
    assert_eq!((&kept["compacted"]["files_removed"], &kept["compacted"]["files_added"]), (&json!(6), &json!(1)));
    assert_eq!(lake.rows("SELECT count(*) AS n FROM tarn.runs").await, json!([{"n": 1}]));

    // The table of runs is looked at once, without a row about it.
    let second = night(&transform, "2").await;
    assert_eq!(second["jobs"].as_object().unwrap().keys().collect::<Vec<_>>(), ["tarn.runs"], "{second:#}");
    assert_eq!(second["recorded"], true);
    let before = locations(&lake).await;
    for cause in ["3", "4"] {
        assert_eq!(night(&transform, cause).await["skipped"], "no table needs anything");
    }
    assert_eq!(locations(&lake).await, before);

    // Old snapshots go once they are old, and then nothing more happens, whatever time passes.
    lake.clock.advance(LATER_MS);
    let expired = night(&transform, "5").await;
    assert_eq!(expired["jobs"]["nyc.flights"]["maintenance"]["expired"]["snapshots"], 6, "{expired:#}");
    let mut nights = Vec::new();
    for night_of in 0..30 {
        lake.clock.advance(DAY_MS);
        nights.push(night(&transform, &format!("later-{night_of}")).await["skipped"].is_string());
    }
    assert!(nights[20..].iter().all(|skipped| *skipped), "{nights:?}");
    assert!(nights.iter().filter(|skipped| !**skipped).count() <= 6, "{nights:?}");
    let runs = lake.rows("SELECT count(*) AS n FROM tarn.runs").await;
    assert!(runs[0]["n"].as_u64().unwrap() <= 4, "{runs}");
    assert_eq!(lake.rows("SELECT count(*) AS n, sum(id) AS s FROM flights").await, json!([{"n": 6, "s": 15}]));
}

#[tokio::test]
async fn a_tick_that_names_nothing_keeps_tables_when_the_night_comes() {
    let lake = Lake::new().await;
    let transform = over(&lake, "");
    scattered(&lake, 0..6).await;
    let tick = async || {
        let event = json!({
            "version": "0", "id": "t", "detail-type": "Scheduled Event", "source": "aws.events",
            "time": "2026-01-01T03:00:00Z", "detail": {},
        });
        call(&transform, event).await.unwrap()
    };
    assert_eq!(tick().await["ran"], json!([]), "it is not night yet");
    lake.clock.advance(DAY_MS);
    let ran = tick().await["ran"].clone();
    assert_eq!((&ran[0]["name"], &ran[0]["answer"]["status"]), (&json!("maintenance"), &json!("succeeded")), "{ran:#}");
    assert_eq!(tick().await["ran"], json!([]));
    assert_eq!(lake.table("flights").await.history().len(), 7);
}

#[tokio::test]
async fn one_line_turns_it_off() {
    let lake = Lake::new().await;
    scattered(&lake, 0..6).await;
    let off = over(&lake, "maintenance: off\n");
    let (status, _) = send(&off, "POST", "/workflows/maintenance/runs", &json!({})).await;
    assert_eq!(status, 404);
    let schedules = send(&off, "GET", "/status/transform", &json!({})).await.1;
    assert!(!schedules.to_string().contains("maintenance"), "{schedules}");
    let on = over(&lake, "");
    let schedules = send(&on, "GET", "/status/transform", &json!({})).await.1;
    assert!(schedules.to_string().contains(r#""name":"maintenance""#), "{schedules}");
    assert_eq!(lake.table("flights").await.history().len(), 6);
}

#[tokio::test]
async fn a_run_by_hand_looks_at_every_table_and_a_dry_run_changes_none() {
    let lake = Lake::new().await;
    let transform = over(&lake, "");
    scattered(&lake, 0..6).await;
    let before = locations(&lake).await;
    let (status, told) = send(&transform, "POST", "/workflows/maintenance/runs", &json!({"dryRun": true})).await;
    assert_eq!(status, 200, "{told}");
    assert_eq!(told["jobs"]["nyc.flights"]["maintenance"]["compacted"]["files_removed"], 6, "{told:#}");
    assert_eq!(
        (&told["jobs"]["tarn.runs"]["exists"], &told["jobs"]["tarn.runs"]["error"]),
        (&json!(false), &Value::Null)
    );
    assert_eq!(locations(&lake).await, before);
    let run = start(&transform, "maintenance").await;
    assert_eq!(run["status"], "succeeded", "{run:#}");
    assert_eq!(run["jobs"]["tarn.runs"]["note"], "nothing has written the table yet");
    assert_eq!(lake.table("flights").await.history().len(), 7);
}

#[tokio::test]
async fn a_table_without_the_removal_of_files_is_compacted_and_no_more() {
    let lake = Lake::new().await;
    let transform = over(&lake, "");
    scattered(&lake, 0..6).await;
    lake.change("ALTER TABLE flights SET TBLPROPERTIES ('gc.enabled'='false')").await;
    lake.clock.advance(LATER_MS);
    let kept = night(&transform, "1").await["jobs"]["nyc.flights"].clone();
    assert_eq!(kept["status"], "succeeded", "{kept:#}");
    assert_eq!(kept["maintenance"]["compacted"]["files_removed"], 6);
    assert_eq!(kept["maintenance"]["expired"], Value::Null);
    assert!(kept["note"].as_str().unwrap().contains("gc.enabled"), "{kept:#}");
}

const COPY: &str = "workflows:
  copy:
    jobs:
      copy: {sql: SELECT * FROM flights, into: copied, write: append, mode: incremental, incremental: flights}
";

#[tokio::test]
async fn snapshots_that_an_incremental_job_reads_on_from_do_not_expire() {
    let lake = Lake::new().await;
    let transform = over(&lake, COPY);
    scattered(&lake, 0..3).await;
    assert_eq!(start(&transform, "copy").await["jobs"]["copy"]["rows_written"], 3);
    scattered(&lake, 3..9).await;
    lake.clock.advance(LATER_MS);
    let kept = night(&transform, "1").await["jobs"]["nyc.flights"].clone();
    assert_eq!(kept["maintenance"]["expired"]["snapshots"], 2, "those before the job's place: {kept:#}");
    assert!(kept["note"].as_str().unwrap().contains("`copy.copy`"), "{kept:#}");
    let copied = start(&transform, "copy").await;
    assert_eq!(
        (&copied["jobs"]["copy"]["read"], &copied["jobs"]["copy"]["rows_written"]),
        (&json!("incremental"), &json!(6))
    );
    // Once it has read on they go.
    let kept = night(&transform, "2").await["jobs"]["nyc.flights"].clone();
    assert_eq!(kept["maintenance"]["expired"]["snapshots"], 7, "{kept:#}");
    assert_eq!(lake.rows("SELECT count(*) AS n, count(DISTINCT id) AS d FROM copied").await, json!([{"n": 9, "d": 9}]));
    scattered(&lake, 9..10).await;
    assert_eq!(start(&transform, "copy").await["jobs"]["copy"]["rows_written"], 1);
}
