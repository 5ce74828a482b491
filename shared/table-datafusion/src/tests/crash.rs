//! Writers that are killed at any step, and calls that fail at any step: what others read, and what a second try does.

use super::rows::{TestChange, with_properties};
use super::*;
use shared::ErrorKind;
use shared::random::SeededRandom;
use testing::catalog_faults::{self, FaultyCatalog};
use testing::faults::{Fault, Faulty, Plan};

/// Everything that changes rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Append,
    Overwrite,
    OverwriteWhere,
    ReplacePartitions,
    MergeByKey,
    Delete,
    Update,
    Merge,
    DeleteOnRead,
    UpdateOnRead,
    MergeOnRead,
}

const KINDS: [Kind; 11] = [
    Kind::Append,
    Kind::Overwrite,
    Kind::OverwriteWhere,
    Kind::ReplacePartitions,
    Kind::MergeByKey,
    Kind::Delete,
    Kind::Update,
    Kind::Merge,
    Kind::DeleteOnRead,
    Kind::UpdateOnRead,
    Kind::MergeOnRead,
];

/// Rows before each change.
const BEFORE: [&str; 4] = ["1 a", "2 b", "3 c", "4 d"];

/// One change of each kind, for a table partitioned by day.
async fn change(table: &Table, kind: Kind) -> Result<Committed> {
    use datafusion::logical_expr::lit;
    use datafusion::prelude::col;
    let token = Some(token(None, "1"));
    let new = || stream(rows(&[(2, Some("new"), 0), (9, Some("new"), 0)]));
    match kind {
        Kind::Append => table.commit(Change::Append, new(), token).await,
        Kind::Overwrite => table.commit(Change::Overwrite, new(), token).await,
        Kind::OverwriteWhere => {
            table.commit(Change::OverwriteWhere(vec![col("id").lt_eq(lit(2_i64))]), new(), token).await
        }
        Kind::ReplacePartitions => table.commit(Change::ReplacePartitions, new(), token).await,
        Kind::MergeByKey => table.commit(Change::Merge { key: vec!["id".into()] }, new(), token).await,
        Kind::Delete | Kind::DeleteOnRead => table.change_rows(&TestChange::delete("id = 1 OR id = 4"), token).await,
        Kind::Update | Kind::UpdateOnRead => {
            table.change_rows(&TestChange::update("new", "id >= 2 AND id < 4"), token).await
        }
        Kind::Merge | Kind::MergeOnRead => {
            table
                .change_rows(&TestChange::merge(rows(&[(1, None, 0), (2, Some("new"), 0), (9, Some("new"), 0)])), token)
                .await
        }
    }
}

fn after(kind: Kind) -> &'static [&'static str] {
    match kind {
        Kind::Append => &["1 a", "2 b", "2 new", "3 c", "4 d", "9 new"],
        Kind::Overwrite => &["2 new", "9 new"],
        Kind::OverwriteWhere => &["2 new", "3 c", "4 d", "9 new"],
        Kind::ReplacePartitions => &["2 new", "3 c", "4 d", "9 new"],
        Kind::MergeByKey => &["1 a", "2 new", "3 c", "4 d", "9 new"],
        Kind::Delete | Kind::DeleteOnRead => &["2 b", "3 c"],
        Kind::Update | Kind::UpdateOnRead => &["1 a", "2 new", "3 new", "4 d"],
        Kind::Merge | Kind::MergeOnRead => &["2 new", "3 c", "4 d", "9 new"],
    }
}

async fn all(table: &Table) -> Vec<String> {
    sql(table, Read::Current, "SELECT id, carrier FROM t ORDER BY id, carrier").await
}

async fn prepared(ports: &Ports, kind: Kind) -> Table {
    let table = table(ports, &["day(at)"]).await;
    append(&table, rows(&[(1, Some("a"), 0), (2, Some("b"), 0), (3, Some("c"), 1)])).await;
    append(&table, rows(&[(4, Some("d"), 2)])).await;
    let on_read = matches!(kind, Kind::DeleteOnRead | Kind::UpdateOnRead | Kind::MergeOnRead);
    let mode = if on_read { "merge-on-read" } else { "copy-on-write" };
    let modes = ["delete", "update", "merge"].map(|kind| format!("write.{kind}.mode"));
    let mut properties: Vec<_> = modes.iter().map(|key| (key.as_str(), mode)).collect();
    properties.push(("commit.manifest.min-count-to-merge", "2"));
    with_properties(&table, &properties).await
}

/// The change runs over failing ports. What is read then is what was before or what comes after it; trying again over sound
/// ports gives what comes after, once.
async fn survives(
    kind: Kind,
    sound: &Ports,
    failing: Ports,
    killed: impl Future<Output = ()>,
    step: &str,
) -> Option<Result<Committed>> {
    let table = prepared(sound, kind).await;
    let writer = async {
        let entry = failing.catalog.get_table(&name()).await?;
        change(&Tables::new(failing.clone()).open(entry).await?, kind).await
    };
    let result = tokio::select! {
        result = writer => Some(result),
        () = killed => None,
    };
    let now = all(&table).await;
    let committed = table.reload().await.unwrap().token("stream.flights").is_some();
    assert_eq!(now, if committed { after(kind) } else { &BEFORE[..] }, "{kind:?} {step}");
    match &result {
        Some(Ok(_)) => assert!(committed, "{kind:?} {step}"),
        Some(Err(error)) => {
            assert!(!committed || error.kind() == ErrorKind::OutcomeUnknown, "{kind:?} {step}: {error}")
        }
        None => {}
    }
    match change(&Tables::new(sound.clone()).load(&name()).await.unwrap(), kind).await {
        Ok(_) => assert!(!committed, "{kind:?} {step}"),
        Err(error) => assert!(committed && error.kind() == ErrorKind::Conflict, "{kind:?} {step}: {error}"),
    }
    assert_eq!(all(&table).await, after(kind), "{kind:?} {step}");
    result
}

/// Ports whose store fails by plan.
fn with_plan(ports: &Ports, plan: &Arc<Plan>) -> Ports {
    Ports { storage: ports.storage.wrapped(|store| Faulty::wrap(store, plan)), ..ports.clone() }
}

async fn struck(plan: Arc<Plan>) {
    while plan.injected() == 0 {
        tokio::time::sleep(std::time::Duration::from_millis(1)).await;
    }
}

#[tokio::test]
async fn a_writer_that_is_killed_at_any_call_of_the_store_leaves_before_or_after() {
    for kind in KINDS {
        let mut steps = 0;
        for nth in 1.. {
            let fault = if nth % 2 == 0 { Fault::Hang } else { Fault::HangAfter };
            let (sound, plan) = (ports(), Plan::nth_of_any(nth, fault));
            let failing = with_plan(&sound, &plan);
            let result = survives(kind, &sound, failing, struck(plan.clone()), &format!("killed at call {nth}")).await;
            if plan.injected() == 0 {
                assert!(result.unwrap().is_ok());
                break;
            }
            steps += 1;
        }
        assert!(steps >= 5, "{kind:?} has {steps} steps");
    }
}

#[tokio::test]
async fn a_writer_that_is_killed_at_the_catalog_leaves_before_or_after() {
    for kind in KINDS {
        for fault in [catalog_faults::Fault::Hang, catalog_faults::Fault::HangAfter] {
            let sound = ports();
            let catalog = FaultyCatalog::new(sound.catalog.clone());
            catalog.fail(&name(), &[fault]);
            let failing = Ports { catalog: catalog.clone(), ..sound.clone() };
            let spent = async {
                while !catalog.is_spent() {
                    tokio::time::sleep(std::time::Duration::from_millis(1)).await;
                }
                tokio::time::sleep(std::time::Duration::from_millis(20)).await;
            };
            let result = survives(kind, &sound, failing, spent, &format!("{fault:?}")).await;
            assert!(result.is_none(), "{kind:?} was not killed");
        }
    }
}

#[tokio::test]
async fn whatever_call_of_the_store_fails_the_table_is_as_before_or_after() {
    for kind in KINDS {
        for fault in [Fault::Busy, Fault::LostReply, Fault::Refused] {
            for nth in 1.. {
                let (sound, plan) = (ports(), Plan::nth_of_any(nth, fault));
                let failing = with_plan(&sound, &plan);
                let step = format!("call {nth} {fault:?}");
                let result = survives(kind, &sound, failing, std::future::pending(), &step).await;
                if plan.injected() == 0 {
                    assert!(result.unwrap().is_ok());
                    break;
                }
            }
        }
    }
}

#[tokio::test]
async fn whatever_call_of_the_catalog_fails_the_change_happens_once() {
    use catalog_faults::Fault::{LostReply, Refused};
    for kind in KINDS {
        for error in [ErrorKind::Conflict, ErrorKind::Retry, ErrorKind::OutcomeUnknown] {
            for (fault, reads) in
                [(Refused(error), 0), (LostReply(error), 0), (Refused(error), 2), (LostReply(error), 2)]
            {
                let sound = ports();
                let catalog = FaultyCatalog::new(sound.catalog.clone());
                catalog.fail(&name(), &[fault]);
                // The first two reads load the table and find its newest state; those after the update look for the outcome.
                let mut failing_reads = vec![None, None];
                failing_reads.extend(vec![Some(ErrorKind::Retry); reads]);
                catalog.fail_reads(&name(), &failing_reads);
                let failing = Ports { catalog: catalog.clone(), ..sound.clone() };
                let step = format!("{fault:?} {reads}");
                let result = survives(kind, &sound, failing, std::future::pending(), &step).await;
                assert!(catalog.is_spent());
                assert!(result.unwrap().is_ok(), "{kind:?} {step}");
            }
        }
    }
}

/// Changes with tokens, each tried until its token is there, while store and catalog fail at random.
async fn storm(seed: u64, mode: &str) {
    use catalog_faults::Fault::{LostReply, Refused};
    let dice = SeededRandom::new(seed);
    let sound = ports();
    let properties = ["delete", "update", "merge"].map(|kind| format!("write.{kind}.mode"));
    let mut properties: Vec<_> = properties.iter().map(|key| (key.as_str(), mode)).collect();
    properties.push(("commit.manifest.min-count-to-merge", "3"));
    let plain = with_properties(&table(&sound, &["carrier"]).await, &properties).await;
    let plan = Plan::random(seed, 40);
    let catalog = FaultyCatalog::new(sound.catalog.clone());
    let failing = Ports { catalog: catalog.clone(), ..with_plan(&sound, &plan) };
    let mut model = std::collections::BTreeMap::new();
    let mut done: Option<String> = None;
    for step in 0..25_i64 {
        let id = i64::try_from(dice.next() % 8).unwrap();
        let what = dice.next() % 4;
        let value = format!("v{step}");
        let token = Token { key: "job.storm".into(), expected: done.clone(), value: step.to_string() };
        for attempt in 0.. {
            assert!(attempt < 200, "seed {seed} step {step}");
            let faults: Vec<_> = (0..dice.next() % 3)
                .map(|_| match dice.next() % 4 {
                    0 => Refused(ErrorKind::Retry),
                    1 => Refused(ErrorKind::Conflict),
                    2 => LostReply(ErrorKind::OutcomeUnknown),
                    _ => LostReply(ErrorKind::Retry),
                })
                .collect();
            catalog.fail(&name(), &faults);
            let reads: Vec<_> = (0..8).map(|_| dice.next().is_multiple_of(5).then_some(ErrorKind::Retry)).collect();
            catalog.fail_reads(&name(), &reads);
            let tried = async {
                let table = Tables::new(failing.clone()).load(&name()).await?;
                let new = rows(&[(id, Some(value.as_str()), 0)]);
                match what {
                    0 => table.commit(Change::Merge { key: vec!["id".into()] }, stream(new), Some(token.clone())).await,
                    1 => table.change_rows(&TestChange::delete(&format!("id = {id}")), Some(token.clone())).await,
                    2 => {
                        table
                            .change_rows(&TestChange::update(&value, &format!("id >= {id}")), Some(token.clone()))
                            .await
                    }
                    _ => table.change_rows(&TestChange::merge(new), Some(token.clone())).await,
                }
            };
            let result = tried.await;
            let token_now = plain.reload().await.unwrap().token("job.storm");
            assert!(token_now == token.expected || token_now.as_ref() == Some(&token.value), "{token_now:?}");
            if result.is_ok() {
                assert_eq!(token_now.as_ref(), Some(&token.value));
            }
            if token_now.as_ref() == Some(&token.value) {
                break;
            }
        }
        done = Some(token.value);
        match what {
            0 | 3 => drop(model.insert(id, value)),
            1 => drop(model.remove(&id)),
            _ => model.range_mut(id..).for_each(|(_, old)| old.clone_from(&value)),
        }
        let expected: Vec<_> = model.iter().map(|(id, carrier)| format!("{id} {carrier}")).collect();
        assert_eq!(all(&plain).await, expected, "seed {seed} step {step}");
    }
    assert!(plan.injected() > 5, "{} faults", plan.injected());
}

#[tokio::test]
async fn tokens_hold_and_no_live_file_is_lost_while_everything_fails_at_random() {
    for seed in 0..3 {
        storm(seed, "copy-on-write").await;
        storm(seed, "merge-on-read").await;
    }
}
