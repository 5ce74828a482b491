use std::cell::RefCell;
use std::sync::Arc;

use super::*;
use shared::clock::{Clock, ManualClock};

const MINUTE: i64 = 60_000;

const LAKEHOUSE: &str = "
version: 1
database: nyc
locations:
  hourly: {schedule: rate(1h)}
  often: {schedule: rate(5m)}
  other: {schedule: rate(5m)}
  by_hand: {}
";

fn every_five_minutes() -> Schedule {
    "rate(5m)".parse().unwrap()
}

fn due(schedule: &str, next_ms: i64) -> Due {
    Due { schedule: schedule.into(), next_ms, held_until_ms: 0, failures: 0 }
}

/// A lakehouse in memory at five minutes less one millisecond, whose schedules are known already.
struct Lake {
    ports: Ports,
    clock: Arc<ManualClock>,
    project: Project,
    ran: RefCell<Vec<String>>,
}

impl Lake {
    async fn new() -> Self {
        let clock = Arc::new(ManualClock::at(1));
        let ports = adapters_embedded::in_memory(clock.clone()).unwrap();
        let project = Project::parse(LAKEHOUSE, "test").unwrap();
        let lake = Self { ports, clock, project, ran: RefCell::default() };
        assert_eq!(lake.tick(&[]).await.unwrap(), json!({"ran": [], "left": []}));
        lake.clock.advance(5 * MINUTE - 2);
        lake
    }

    /// A tick in which the entries named in `faulty` fail.
    async fn tick(&self, faulty: &[(&str, ErrorKind)]) -> Result<Value> {
        tick(&self.ports, &self.project, Kind::Crawl, |occurrence| async move {
            self.ran.borrow_mut().push(occurrence.id());
            match faulty.iter().find(|(name, _)| *name == occurrence.name) {
                Some((_, kind)) => Err(Error::new(*kind, "no")),
                None => Ok(Progress::Done(json!(occurrence.due_ms))),
            }
        })
        .await
    }

    fn ran(&self) -> Vec<String> {
        std::mem::take(&mut self.ran.borrow_mut())
    }
}

#[test]
fn a_new_schedule_waits_for_its_first_due_time() {
    let first = decide(&every_five_minutes(), None, 1, 0).unwrap();
    assert_eq!(first, Decision::Begin(due("rate(5m)", 5 * MINUTE)));
}

#[test]
fn due_times_missed_while_nothing_ran_are_made_up_for_by_one_run() {
    let stored = due("rate(5m)", 5 * MINUTE);
    let late = decide(&every_five_minutes(), Some(&stored), 61 * MINUTE, 99 * MINUTE).unwrap();
    let next = due("rate(5m)", 65 * MINUTE);
    assert_eq!(late, Decision::Run { claim: Due { held_until_ms: 99 * MINUTE, ..stored }, next: next.clone() });
    assert_eq!(decide(&every_five_minutes(), Some(&next), 61 * MINUTE + 1, 0).unwrap(), Decision::Wait);
}

#[test]
fn a_changed_schedule_starts_afresh() {
    let stored = due("rate(1m)", 0);
    let decision = decide(&every_five_minutes(), Some(&stored), MINUTE, 0).unwrap();
    assert_eq!(decision, Decision::Begin(due("rate(5m)", 5 * MINUTE)));
}

#[test]
fn what_an_earlier_version_stored_is_read() {
    let read: Due = serde_json::from_value(json!({"schedule": "rate(5m)", "next_ms": 7})).unwrap();
    assert_eq!(read, due("rate(5m)", 7));
}

#[tokio::test]
async fn a_tick_runs_what_is_due_once_for_each_due_time() {
    let lake = Lake::new().await;
    assert_eq!(lake.tick(&[]).await.unwrap()["ran"], json!([]));
    let mut runs = Vec::new();
    for _ in 0..20 {
        lake.clock.advance(MINUTE);
        lake.tick(&[]).await.unwrap();
        runs.extend(lake.ran());
    }
    let often: Vec<_> = runs.iter().filter(|id| id.starts_with("often-")).collect();
    assert_eq!(often, ["often-300000", "often-600000", "often-900000", "often-1200000"]);
    assert_eq!(runs.len(), 8, "`other` as often, `hourly` not yet, `by_hand` never: {runs:?}");
}

#[tokio::test]
async fn of_two_ticks_at_once_each_due_entry_is_run_by_one() {
    let lake = Lake::new().await;
    lake.clock.advance(1);
    let slow = |_: Occurrence| async {
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        Ok(Progress::Done(Value::Null))
    };
    let one = tick(&lake.ports, &lake.project, Kind::Crawl, slow);
    let other = tick(&lake.ports, &lake.project, Kind::Crawl, slow);
    let (one, other) = futures::join!(one, other);
    let ran = [one.unwrap(), other.unwrap()].map(|answer| answer["ran"].as_array().unwrap().clone()).concat();
    let mut names: Vec<_> = ran.iter().map(|r| r["name"].as_str().unwrap()).collect();
    names.sort_unstable();
    assert_eq!(names, ["often", "other"]);
}

#[tokio::test]
async fn an_entry_whose_runner_died_is_run_again_when_its_claim_has_run_out() {
    let lake = Lake::new().await;
    lake.clock.advance(1);
    let hangs = tick(&lake.ports, &lake.project, Kind::Crawl, |_| std::future::pending());
    assert!(tokio::time::timeout(std::time::Duration::from_millis(50), hangs).await.is_err());
    lake.clock.advance(CLAIM_MS - 1);
    lake.tick(&[]).await.unwrap();
    assert_eq!(lake.ran(), ["other-300000"], "`often` is still claimed");
    lake.clock.advance(1);
    lake.tick(&[]).await.unwrap();
    assert_eq!(lake.ran(), ["often-300000"]);
}

#[tokio::test]
async fn a_claim_ends_with_the_deadline_of_its_runner() {
    let lake = Lake::new().await;
    lake.clock.advance(1);
    let entry = entries(&lake.project).into_iter().find(|entry| entry.name == "often").unwrap();
    let run = |_| std::future::pending::<Result<Progress<()>>>();
    let hangs = deadline::until(lake.clock.now_ms() + 30_000, entry.run_if_due(&lake.ports, run));
    assert!(tokio::time::timeout(std::time::Duration::from_millis(50), hangs).await.is_err());
    let held = entry.due(&lake.ports).await.unwrap().unwrap().held_until_ms;
    assert_eq!(held, lake.clock.now_ms() + 30_000 + AFTER_DEADLINE_MS);
}

#[tokio::test]
async fn one_that_fails_keeps_no_other_from_running_and_is_named() {
    let lake = Lake::new().await;
    lake.clock.advance(1);
    let error = lake.tick(&[("often", ErrorKind::Denied)]).await.unwrap_err();
    assert_eq!((lake.ran().len(), error.kind()), (2, ErrorKind::Denied));
    assert_eq!(error.message(), "1 of 2 due runs failed; `often`: no; `other` ran");
    lake.clock.advance(MINUTE);
    lake.tick(&[]).await.unwrap();
    assert!(lake.ran().is_empty(), "what is wrong stays wrong until the next due time");
}

#[tokio::test]
async fn a_passing_fault_is_tried_again_after_a_wait_three_times_in_all() {
    let lake = Lake::new().await;
    lake.clock.advance(1);
    let mut tries = 0;
    for _ in 0..30 {
        // The error is looked at through the count of runs.
        let _ = lake.tick(&[("often", ErrorKind::Retry)]).await;
        tries += lake.ran().iter().filter(|id| *id == "often-300000").count();
        lake.clock.advance(1_000);
    }
    assert_eq!(tries, 3);
}

#[tokio::test]
async fn what_is_unfinished_is_due_at_once() {
    let lake = Lake::new().await;
    lake.clock.advance(1);
    let half = |occurrence: Occurrence| async move { Ok(Progress::Unfinished(json!(occurrence.due_ms))) };
    let answer = tick(&lake.ports, &lake.project, Kind::Crawl, half).await.unwrap();
    assert_eq!(answer["ran"][0], json!({"name": "often", "answer": 300_000}));
    lake.tick(&[]).await.unwrap();
    assert_eq!(lake.ran(), ["often-300000", "other-300000"]);
}

#[tokio::test]
async fn a_tick_without_time_leaves_the_rest_to_the_next() {
    let lake = Lake::new().await;
    lake.clock.advance(1);
    let soon = lake.clock.now_ms() + 10_000;
    let answer = deadline::until(soon, lake.tick(&[])).await.unwrap();
    assert_eq!((lake.ran(), &answer["left"]), (vec!["often-300000".to_owned()], &json!(["other"])));
    lake.tick(&[]).await.unwrap();
    assert_eq!(lake.ran(), ["other-300000"]);
}

#[tokio::test]
async fn a_host_that_starts_alone_frees_what_the_last_one_held() {
    let lake = Lake::new().await;
    lake.clock.advance(1);
    let hangs = tick(&lake.ports, &lake.project, Kind::Crawl, |_| std::future::pending());
    assert!(tokio::time::timeout(std::time::Duration::from_millis(50), hangs).await.is_err());
    release_all(&lake.ports, &lake.project).await.unwrap();
    lake.tick(&[]).await.unwrap();
    assert_eq!(lake.ran(), ["often-300000", "other-300000"]);
}

#[test]
fn a_tick_names_one_or_none() {
    assert_eq!(named(&json!({})).unwrap(), None);
    assert_eq!(named(&json!({"name": "w"})).unwrap(), Some("w"));
    assert!(named(&json!({"name": 3})).is_err());
}
