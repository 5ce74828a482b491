//! The template with the real zips on the emulator: the demo's main job on some days, through the HTTP API, Kinesis, object events
//! and schedules. The tables end as they do on one machine.

use serde_json::json;
use tarn::demo::data::{DIMENSIONS, LAKEHOUSE, WEATHER};

use super::Emulator;
use crate::demo_killed::{DAYS, Day, TABLES, days};
use crate::lake::Lake;

/// The demo's files and first days, and the workflow in between and at the end.
async fn travel(lake: &Lake, flush: bool) {
    for file in DIMENSIONS.iter().chain(&WEATHER[..1]) {
        let (status, answer) = lake.put(&format!("/files/{}/{}", file.location, file.path), file.bytes).await;
        assert_eq!(status, 201, "{answer:#}");
    }
    for (location, rows) in [("planes", 3_322), ("airports", 1_458), ("airlines", 16), ("weather", 2_226)] {
        lake.until(&format!("SELECT count(*) FROM nyc.{location}"), rows).await;
    }
    let mut stored = 0;
    for Day { name: day, body } in days() {
        let headers =
            [("content-type", "application/x-ndjson"), ("content-encoding", "gzip"), ("idempotency-key", day.as_str())];
        let (status, answer) = lake.post_with("/streams/flights/records", &headers, body).await;
        assert_eq!((status, &answer["throttled"]), (207, &0.into()), "{answer:#}");
        stored += answer["stored"].as_i64().unwrap();
    }
    if flush {
        lake.flush("flights").await;
    }
    // Without a flush the stream is written when it is due: at its next event, or at the schedule's tick.
    let set_aside = DAYS as i64;
    assert!(stored > set_aside, "{stored}");
    lake.until("SELECT count(*) FROM nyc.flights", stored).await;
    let (status, run) = lake.post("/workflows/curate/runs", "application/json", "{}").await;
    assert_eq!((status, run["status"].as_str()), (200, Some("succeeded")), "{run:#}");
}

/// The file as it is changes nothing, and all of its SQL can be planned; one that renames a stream which holds nothing, and reads a
/// column that no table has, is told so.
fn an_edit_is_planned(lake: &Lake) {
    let plan = || {
        let output = lake.run("plan", &["--output", "json", "--url", &lake.url("")]);
        let answer: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        (output.status.code(), answer)
    };
    let (code, answer) = plan();
    assert_eq!((code, &answer["changes"], &answer["unchecked"]), (Some(0), &json!([]), &json!([])), "{answer:#}");
    let edited = LAKEHOUSE
        .replacen("  flights:\n", "  trips:\n    was: flights\n    table: flights\n", 1)
        .replace("f.tailnum,", "f.tailnumber,");
    std::fs::write(lake.lakehouse(), edited).unwrap();
    let (code, answer) = plan();
    assert_eq!(code, Some(1), "{answer:#}");
    let changes = answer["changes"].as_array().unwrap();
    let has = |effect: &str, name: &str, what: &str| {
        changes.iter().any(|change| change["effect"] == effect && change["name"] == name && change["what"] == what)
    };
    assert!(has("needs_allow", "curate.flights", "`sql` can't be planned"), "{answer:#}");
    assert!(has("applied", "trips", "was `flights`"), "{answer:#}");
    std::fs::write(lake.lakehouse(), LAKEHOUSE).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_main_job_ends_on_the_emulator_as_it_does_on_one_machine() {
    let emulator = Emulator::ministack();
    let stack = emulator.deploy("tarn-main", LAKEHOUSE, &[]).await;
    let deployed = Lake::deployed(LAKEHOUSE, stack.api());
    let local = Lake::up(LAKEHOUSE);
    tokio::join!(travel(&deployed, false), travel(&local, true));
    for table in TABLES {
        let (ours, theirs) = (deployed.rows(table).await, local.rows(table).await);
        assert!(!theirs.is_empty(), "{table} has rows");
        let differing = ours.iter().zip(&theirs).find(|(ours, theirs)| ours != theirs);
        assert_eq!((ours.len(), differing), (theirs.len(), None), "{table}");
    }
    for lake in [&deployed, &local] {
        an_edit_is_planned(lake);
    }
    let of = |lake: &Lake| lake.run("status", &["--output", "json", "--url", &lake.url("")]);
    let (ours, theirs) = (of(&deployed), of(&local));
    assert_eq!((ours.status.code(), theirs.status.code()), (Some(1), Some(1)), "records were refused");
    let refused = |status: &[u8]| serde_json::from_slice::<serde_json::Value>(status).unwrap()["refused"].clone();
    let (ours, theirs) = (refused(&ours.stdout), refused(&theirs.stdout));
    assert_eq!((&ours[0]["records"], &theirs[0]["records"]), (&DAYS.into(), &DAYS.into()), "{ours:#}");
    let mut answered = 0;
    for insight in ["daily_departures", "cancellations", "year_in_words"] {
        let ask = async |lake: &Lake| {
            let (status, mut answer) = lake.post(&format!("/insights/{insight}"), "application/json", "{}").await;
            answer.as_object_mut().unwrap().remove("stored");
            (status, answer)
        };
        let (answer, expected) = (ask(&deployed).await, ask(&local).await);
        assert_eq!(answer, expected, "{insight}");
        answered += u32::from(answer.0 == 200);
    }
    assert!(answered > 0, "some insight has an answer after {DAYS} days");
}
