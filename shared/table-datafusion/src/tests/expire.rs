//! Expiry of snapshots: what stays, what goes, and what a failure leaves.

use std::collections::BTreeSet;

use super::*;
use shared::ErrorKind;
use testing::catalog_faults::Fault::{LostReply, Refused};
use testing::catalog_faults::{self, FaultyCatalog};
use testing::faults::{Fault, Faulty, Operation, Plan};

/// Everything that may go.
const ALL: Expire = Expire {
    older_than_ms: Some(i64::MAX),
    retain_last: None,
    through_sequence: None,
    from_sequence: None,
    dry_run: false,
};

/// The objects of the table's folder, but for metadata files that the log names no more.
async fn stored(ports: &Ports) -> BTreeSet<String> {
    let files = ports.storage.list(&ports.keys.table(&name())).await.unwrap();
    files.into_iter().map(|o| o.url.to_string()).collect()
}

async fn named(table: &Table) -> BTreeSet<String> {
    reachable::everything(&table.reload().await.unwrap()).await.unwrap().into_keys().collect()
}

/// Three appends, then everything overwritten, then one more append.
async fn aged(ports: &Ports) -> (Table, Vec<i64>) {
    let table = table(ports, &["day(at)"]).await;
    let mut snapshots = Vec::new();
    for id in 1..=3 {
        snapshots.push(append(&table, rows(&[(id, Some("old"), id)])).await.snapshot_id);
    }
    let over = table.commit(Change::Overwrite, stream(rows(&[(4, None, 1), (5, None, 2)])), None).await.unwrap();
    snapshots.push(over.snapshot_id);
    snapshots.push(append(&table, rows(&[(6, None, 9)])).await.snapshot_id);
    (table.reload().await.unwrap(), snapshots)
}

/// The table over a catalog that fails its next updates.
async fn faulty<const N: usize>(ports: &Ports, faults: [catalog_faults::Fault; N]) -> Table {
    let catalog = FaultyCatalog::new(ports.catalog.clone());
    let table = Tables::new(Ports { catalog: catalog.clone(), ..ports.clone() }).load(&name()).await.unwrap();
    catalog.fail(&name(), &faults);
    table
}

#[tokio::test]
async fn old_snapshots_go_with_the_files_that_only_they_name() {
    let ports = ports();
    let (table, snapshots) = aged(&ports).await;
    let before = stored(&ports).await;
    let told = table.expire(&Expire { dry_run: true, ..ALL }).await.unwrap();
    assert_eq!(stored(&ports).await, before, "a dry run removes nothing");
    assert_eq!(table.reload().await.unwrap().metadata_location(), table.metadata_location());

    let expired = table.expire(&ALL).await.unwrap();
    assert_eq!(expired, told);
    assert_eq!(expired.snapshots, snapshots[..4]);
    assert_eq!(expired.files[&FileKind::Data], 3);
    assert_eq!(expired.files[&FileKind::ManifestList], 4);
    assert!(expired.bytes > 0);
    assert_eq!(expired.left_behind, 0);
    assert_eq!(stored(&ports).await, named(&table).await, "what is left is what is named");
    assert_eq!(ids(&table, Read::Current).await, ["4", "5", "6"]);
    let now = table.reload().await.unwrap();
    assert_eq!(now.history().len(), 1);
    assert_eq!(now.metadata().history().len(), 1);
    assert_eq!(now.provider(Read::Snapshot(snapshots[0])).await.unwrap_err().kind(), ErrorKind::NotFound);
    // Nothing more to do, nothing written.
    assert_eq!(now.expire(&ALL).await.unwrap(), Expired::default());
    assert_eq!(now.reload().await.unwrap().metadata_location(), now.metadata_location());
    append(&now, rows(&[(7, None, 1)])).await;
    assert_eq!(ids(&table, Read::Current).await, ["4", "5", "6", "7"]);
}

#[tokio::test]
async fn the_newest_stay_by_number_and_by_age() {
    let ports = ports();
    let (table, snapshots) = aged(&ports).await;
    // By the clock of these tests every snapshot lies in the future.
    assert_eq!(table.expire(&Expire::default()).await.unwrap(), Expired::default());
    let expired = table.expire(&Expire { retain_last: Some(2), ..ALL }).await.unwrap();
    assert_eq!(expired.snapshots, snapshots[..3]);
    let setting = Alter::SetProperties([("history.expire.min-snapshots-to-keep".into(), "2".into())].into());
    let table = table.alter(&[setting]).await.unwrap();
    assert_eq!(table.expire(&ALL).await.unwrap().snapshots, Vec::<i64>::new());
    assert_eq!(table.expire(&Expire { retain_last: Some(1), ..ALL }).await.unwrap().snapshots, [snapshots[3]]);
}

#[tokio::test]
async fn tags_and_branches_keep_their_snapshots_until_they_are_past_their_age() {
    let ports = ports();
    let (table, snapshots) = aged(&ports).await;
    let keep = |max_ref_age_ms| Keep { max_ref_age_ms, ..Keep::default() };
    let few = Keep { min_snapshots_to_keep: Some(2), ..Keep::default() };
    let tag = |name: &str, snapshot, keep| Alter::CreateTag { name: name.into(), snapshot, keep, replace: false };
    let branch = Alter::CreateBranch { name: "b".into(), snapshot: Some(snapshots[2]), keep: few, replace: false };
    let changes = [tag("always", Some(snapshots[0]), keep(None)), branch];
    let table = table.alter(&changes).await.unwrap();
    let expired = table.expire(&ALL).await.unwrap();
    // The tag keeps the first, the branch two, `main` the last.
    assert_eq!(expired.snapshots, [snapshots[3]]);
    assert_eq!(ids(&table, Read::Snapshot(snapshots[0])).await, ["1"]);
    assert_eq!(ids(&table, Read::Snapshot(snapshots[2])).await, ["1", "2", "3"]);

    let later = Arc::new(ManualClock::at(4_000_000_000_000));
    let table = Tables::new(Ports { clock: later, ..ports.clone() }).load(&name()).await.unwrap();
    let short = tag("short", Some(snapshots[1]), keep(Some(1)));
    let table = table.alter(&[short, Alter::DropRef("b".into())]).await.unwrap();
    let expired = table.expire(&Expire { older_than_ms: Some(0), ..ALL }).await.unwrap();
    assert_eq!(expired.references, ["short"]);
    assert_eq!(expired.snapshots, Vec::<i64>::new(), "too young, though nothing names them");
    let expired = table.expire(&ALL).await.unwrap();
    assert_eq!(expired.snapshots, snapshots[1..3]);
    assert_eq!(ids(&table, Read::Snapshot(snapshots[0])).await, ["1"]);
    assert_eq!(stored(&ports).await, named(&table).await);
}

#[tokio::test]
async fn tokens_outlast_the_snapshots_that_hold_them() {
    let ports = ports();
    let table = table(&ports, &[]).await;
    let write = |id, expected: Option<&str>, value: &str| {
        let (table, token) = (table.clone(), token(expected, value));
        async move { table.commit(Change::Append, stream(rows(&[(id, None, 0)])), Some(token)).await }
    };
    write(1, None, "10").await.unwrap();
    write(2, Some("10"), "20").await.unwrap();
    append(&table, rows(&[(3, None, 0)])).await;
    let expired = table.expire(&ALL).await.unwrap();
    assert_eq!(expired.tokens, ["stream.flights"]);
    let now = table.reload().await.unwrap();
    assert_eq!(now.token("stream.flights").as_deref(), Some("20"));
    // A replay of what is expired finds that it was done.
    for (expected, value) in [(None, "10"), (Some("10"), "20")] {
        assert_eq!(write(9, expected, value).await.unwrap_err().kind(), ErrorKind::Conflict);
    }
    write(4, Some("20"), "30").await.unwrap();
    assert_eq!(table.reload().await.unwrap().token("stream.flights").as_deref(), Some("30"));
    append(&table, rows(&[(5, None, 0)])).await;
    table.expire(&ALL).await.unwrap();
    assert_eq!(table.reload().await.unwrap().token("stream.flights").as_deref(), Some("30"), "the newest value");
    assert_eq!(ids(&table, Read::Current).await, ["1", "2", "3", "4", "5"]);
}

#[tokio::test]
async fn a_token_before_a_gap_of_expired_snapshots_is_kept_though_a_tag_holds_it() {
    let ports = ports();
    let table = table(&ports, &[]).await;
    let first = token(None, "10");
    let first = table.commit(Change::Append, stream(rows(&[(1, None, 0)])), Some(first)).await.unwrap().snapshot_id;
    append(&table, rows(&[(2, None, 0)])).await;
    append(&table, rows(&[(3, None, 0)])).await;
    let keep = Keep::default();
    let tag = Alter::CreateTag { name: "first".into(), snapshot: Some(first), keep, replace: false };
    let table = table.alter(&[tag]).await.unwrap();
    let expired = table.expire(&ALL).await.unwrap();
    assert_eq!(expired.snapshots.len(), 1);
    assert_eq!(table.reload().await.unwrap().token("stream.flights").as_deref(), Some("10"));
}

#[tokio::test]
async fn a_request_is_remembered_for_a_day_after_its_snapshot_expired() {
    let ports = ports();
    let table = table(&ports, &[]).await;
    let request = || Some(Token { key: "sql.abc".into(), expected: None, value: "INSERT".into() });
    table.commit(Change::Append, stream(rows(&[(1, None, 0)])), request()).await.unwrap();
    append(&table, rows(&[(2, None, 0)])).await;
    assert_eq!(table.expire(&ALL).await.unwrap().tokens, ["sql.abc"]);
    let again = table.commit(Change::Append, stream(rows(&[(1, None, 0)])), request()).await.unwrap_err();
    assert_eq!(again.kind(), ErrorKind::Conflict);
    append(&table, rows(&[(3, None, 0)])).await;
    table.expire(&ALL).await.unwrap();
    assert_eq!(table.reload().await.unwrap().token("sql.abc").as_deref(), Some("INSERT"));
    // A day later nobody repeats it, and the table forgets it with its next expiry.
    append(&table, rows(&[(4, None, 0)])).await;
    let clock = Arc::new(ManualClock::at(chrono::Utc::now().timestamp_millis() + 86_500_000));
    let later = Tables::new(Ports { clock, ..ports.clone() }).load(&name()).await.unwrap();
    later.expire(&ALL).await.unwrap();
    let now = later.reload().await.unwrap();
    assert_eq!(now.token("sql.abc"), None);
    assert!(!now.metadata().properties().keys().any(|key| key.contains("token")), "{:?}", now.metadata().properties());
}

#[tokio::test]
async fn specs_and_schemas_that_nothing_uses_any_more_go_too_and_free_their_columns() {
    let ports = ports();
    let table = table(&ports, &["day(at)"]).await;
    append(&table, rows(&[(1, None, 0)])).await;
    let x = Alter::AddColumn { column: Column::new("x", ColumnType::Int), after: Position::Last };
    let table = table.alter(&[Alter::ReplacePartitionFields(vec![]), x]).await.unwrap();
    let drop = [Alter::DropColumn("at".into())];
    assert!(table.alter(&drop).await.is_err());
    table.commit(Change::Overwrite, stream(rows(&[(2, None, 0)])), None).await.unwrap();
    append(&table, rows(&[(3, None, 0)])).await;
    // The manifest of the overwrite still has the old spec in its list of what it removed, the next one does not.
    table.expire(&ALL).await.unwrap();
    let table = table.reload().await.unwrap();
    assert_eq!(table.metadata().partition_specs_iter().len(), 1);
    assert_eq!(table.metadata().schemas_iter().len(), 1);
    let table = table.alter(&drop).await.unwrap();
    assert_eq!(sql(&table, Read::Current, "SELECT * FROM t ORDER BY id").await, ["2  ", "3  "]);
}

#[tokio::test]
async fn a_lost_answer_is_settled_before_files_are_removed() {
    for kind in [ErrorKind::OutcomeUnknown, ErrorKind::Retry, ErrorKind::Conflict] {
        let ports = ports();
        let (table, snapshots) = aged(&ports).await;
        let expired = faulty(&ports, [Refused(kind), LostReply(kind)]).await.expire(&ALL).await.unwrap();
        assert_eq!(expired.snapshots, snapshots[..4], "{kind}");
        assert_eq!(ids(&table, Read::Current).await, ["4", "5", "6"]);
        let orphans: Vec<_> = stored(&ports).await.difference(&named(&table).await).cloned().collect();
        assert!(orphans.iter().all(|file| file.ends_with(".metadata.json")), "{orphans:?}");
    }
}

#[tokio::test]
async fn an_unknown_outcome_removes_no_file() {
    let ports = ports();
    let (table, snapshots) = aged(&ports).await;
    let before = stored(&ports).await;
    for (fault, kind) in [
        (Refused(ErrorKind::OutcomeUnknown), ErrorKind::OutcomeUnknown),
        (Refused(ErrorKind::Denied), ErrorKind::Denied),
    ] {
        let error = faulty(&ports, [fault; 100]).await.expire(&ALL).await.unwrap_err();
        assert_eq!(error.kind(), kind, "{error}");
        assert!(before.is_subset(&stored(&ports).await));
    }
    assert_eq!(ids(&table, Read::Snapshot(snapshots[1])).await, ["1", "2"]);
}

#[tokio::test]
async fn whatever_call_of_the_store_fails_no_named_file_is_lost() {
    let mut failed = 0;
    for operation in [Operation::Put, Operation::Get, Operation::Delete] {
        for nth in 1..8 {
            for fault in [Fault::Refused, Fault::LostReply] {
                let ports = ports();
                let (plain, _) = aged(&ports).await;
                let plan = Plan::nth(operation, nth, fault);
                let storage = ports.storage.wrapped(|store| Faulty::wrap(store, &plan));
                let table = Tables::new(Ports { storage, ..ports.clone() }).load(&name()).await;
                let Ok(table) = table else { continue };
                let result = table.expire(&ALL).await;
                failed += usize::from(result.is_err() || result.is_ok_and(|expired| expired.left_behind > 0));
                assert!(named(&plain).await.is_subset(&stored(&ports).await), "{operation:?} {nth} {fault:?}");
                assert_eq!(ids(&plain, Read::Current).await, ["4", "5", "6"], "{operation:?} {nth} {fault:?}");
                // What a failure left is removed with the orphans; snapshots that stayed go the next time.
                plain.expire(&ALL).await.unwrap();
                assert_eq!(plain.reload().await.unwrap().history().len(), 1);
            }
        }
    }
    assert!(failed > 0, "no fault was met");
}

#[tokio::test]
async fn a_wrong_request_or_setting_is_refused() {
    let ports = ports();
    let (table, _) = aged(&ports).await;
    let error = table.expire(&Expire { retain_last: Some(0), ..ALL }).await.unwrap_err();
    assert!(error.to_string().contains("found 0"), "{error}");
    let off = Alter::SetProperties([("gc.enabled".into(), "false".into())].into());
    let table = table.alter(&[off]).await.unwrap();
    let error = table.expire(&ALL).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    assert!(error.to_string().contains("`gc.enabled`"), "{error}");
    assert_eq!(table.history().len(), 5);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn writers_and_expiry_at_once_lose_no_row() {
    let ports = ports();
    let table = table(&ports, &[]).await;
    append(&table, rows(&[(-1, None, 0)])).await;
    let mut tasks = tokio::task::JoinSet::new();
    for writer in 0..6_i64 {
        let table = table.clone();
        tasks.spawn(async move {
            for round in 0..4 {
                let new = rows(&[(-1, Some("new"), 0), (10 * writer + round, None, 0)]);
                let merge = || Change::Merge { key: vec!["id".into()] };
                // What it reads may be expired under its hands, as nothing is kept here: then it is done again.
                while let Err(error) = table.commit(merge(), stream(new.clone()), None).await {
                    let gone = error.kind() == ErrorKind::NotFound || error.to_string().contains("not found");
                    assert!(gone || error.kind() == ErrorKind::Bug, "{error}");
                }
            }
        });
    }
    for _ in 0..2 {
        let table = table.clone();
        tasks.spawn(async move {
            for _ in 0..5 {
                // A reader of an expired snapshot may find its files gone; the table itself stays whole.
                let _ = table.expire(&ALL).await;
                tokio::time::sleep(std::time::Duration::from_millis(5)).await;
            }
        });
    }
    tasks.join_all().await;
    table.expire(&ALL).await.unwrap();
    let mut expected: Vec<i64> = (0..6).flat_map(|w| (0..4).map(move |r| 10 * w + r)).collect();
    expected.push(-1);
    expected.sort_unstable();
    assert_eq!(ids(&table, Read::Current).await, expected.iter().map(ToString::to_string).collect::<Vec<_>>());
}
