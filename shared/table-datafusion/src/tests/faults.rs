//! Commits while catalog and storage fail, and while many write at once.

use super::*;
use shared::ErrorKind;
use testing::catalog_faults::Fault::{LostReply, Refused};
use testing::catalog_faults::{self, FaultyCatalog};
use testing::faults::{Fault, Faulty, Operation, Plan};

/// The ports with a catalog that fails the next updates of the table.
fn faulty<const N: usize>(ports: &Ports, faults: [catalog_faults::Fault; N]) -> Ports {
    let catalog = FaultyCatalog::new(ports.catalog.clone());
    catalog.fail(&name(), &faults);
    Ports { catalog, ..ports.clone() }
}

async fn data_files(ports: &Ports) -> usize {
    let files = ports.storage.list(&ports.keys.table(&name())).await.unwrap();
    files.iter().filter(|o| o.url.path().ends_with(".parquet")).count()
}

#[tokio::test]
async fn a_lost_answer_after_success_is_a_success() {
    for kind in [ErrorKind::OutcomeUnknown, ErrorKind::Retry, ErrorKind::Conflict] {
        let ports = ports();
        let plain = table(&ports, &[]).await;
        append(&plain, rows(&[(1, None, 0)])).await;
        let table = table(&faulty(&ports, [LostReply(kind)]), &[]).await;
        let done = table.commit(Change::Append, stream(rows(&[(2, None, 0)])), Some(token(None, "7"))).await.unwrap();
        assert_eq!(done.attempts, 1);
        assert_eq!(ids(&plain, Read::Current).await, ["1", "2"], "{kind}");
        assert_eq!(plain.reload().await.unwrap().token("stream.flights").as_deref(), Some("7"));
    }
}

#[tokio::test]
async fn a_lost_request_is_sent_again_and_takes_effect_once() {
    for kind in [ErrorKind::OutcomeUnknown, ErrorKind::Retry, ErrorKind::Conflict] {
        let ports = ports();
        let table = table(&faulty(&ports, [Refused(kind); 3]), &[]).await;
        let done = table.commit(Change::Append, stream(rows(&[(2, None, 0)])), None).await.unwrap();
        assert_eq!(done.attempts, 4);
        assert_eq!(ids(&table, Read::Current).await, ["2"], "{kind}");
    }
}

#[tokio::test]
async fn an_outcome_that_stays_unknown_is_reported_and_nothing_is_removed() {
    let ports = ports();
    let table = table(&faulty(&ports, [Refused(ErrorKind::OutcomeUnknown); 100]), &[]).await;
    let error = table.commit(Change::Append, stream(rows(&[(2, None, 0)])), None).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::OutcomeUnknown, "{error}");
    assert_eq!(data_files(&ports).await, 1, "the request may still take effect");
}

#[tokio::test]
async fn a_commit_that_took_effect_and_can_not_be_read_back_removes_nothing() {
    for (fault, lookup) in
        [(ErrorKind::Bug, ErrorKind::Denied), (ErrorKind::Bug, ErrorKind::Bug), (ErrorKind::Conflict, ErrorKind::Bug)]
    {
        let ports = ports();
        let plain = table(&ports, &[]).await;
        let catalog = FaultyCatalog::new(ports.catalog.clone());
        let table = table(&Ports { catalog: catalog.clone(), ..ports.clone() }, &[]).await;
        catalog.fail(&name(), &[LostReply(fault)]);
        catalog.fail_reads(&name(), &[None, None, Some(lookup)]);
        let error = table.commit(Change::Append, stream(rows(&[(2, None, 0)])), None).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::OutcomeUnknown, "{error}");
        assert!(catalog.is_spent());
        assert_eq!(ids(&plain, Read::Current).await, ["2"], "{fault} {lookup}");
    }
}

#[tokio::test]
async fn a_failure_after_an_unknown_outcome_removes_nothing() {
    let ports = ports();
    let faults = [Refused(ErrorKind::Retry), Refused(ErrorKind::Denied)];
    let table = table(&faulty(&ports, faults), &[]).await;
    let error = table.commit(Change::Append, stream(rows(&[(2, None, 0)])), None).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::OutcomeUnknown, "{error}");
    assert_eq!(data_files(&ports).await, 1, "the first request may still take effect");
}

#[tokio::test]
async fn a_refused_commit_leaves_the_table_as_it_was_and_no_files() {
    let ports = ports();
    let plain = table(&ports, &[]).await;
    append(&plain, rows(&[(1, None, 0)])).await;
    let before = ports.storage.list(&ports.keys.table(&name())).await.unwrap();
    let table = table(&faulty(&ports, [Refused(ErrorKind::Denied)]), &[]).await;
    let error = table.commit(Change::Overwrite, stream(rows(&[(2, None, 0)])), None).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Denied, "{error}");
    assert_eq!(ids(&plain, Read::Current).await, ["1"]);
    assert_eq!(ports.storage.list(&ports.keys.table(&name())).await.unwrap(), before);
}

#[tokio::test]
async fn whatever_write_fails_the_table_is_as_before_or_after() {
    let mut succeeded = false;
    for nth in 1..12 {
        for fault in [Fault::Refused, Fault::LostReply] {
            let ports = ports();
            let plain = table(&ports, &["day(at)"]).await;
            append(&plain, rows(&[(1, None, 0), (2, None, 1)])).await;
            let plan = Plan::nth(Operation::Put, nth, fault);
            let storage = ports.storage.wrapped(|store| Faulty::wrap(store, &plan));
            let table = table(&Ports { storage, ..ports.clone() }, &[]).await;
            let key = vec!["id".to_owned()];
            let new = rows(&[(2, Some("new"), 1), (3, Some("new"), 4)]);
            let result = table.commit(Change::Merge { key }, stream(new), None).await;
            succeeded |= result.is_ok();
            assert_eq!(result.is_ok(), plan.injected() == 0);
            let expected: &[&str] = if result.is_ok() { &["1", "2", "3"] } else { &["1", "2"] };
            assert_eq!(ids(&plain, Read::Current).await, expected, "put {nth} {fault:?}");
        }
    }
    assert!(succeeded, "more writes than faults were tried");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn sixteen_writers_at_once_lose_no_row() {
    let ports = ports();
    let table = table(&ports, &[]).await;
    append(&table, rows(&[(-1, Some("old"), 0), (-2, Some("old"), 0)])).await;
    let mut writers = tokio::task::JoinSet::new();
    for writer in 0..16_i64 {
        let table = table.clone();
        writers.spawn(async move {
            for round in 0..3 {
                let id = 100 * writer + round;
                let (change, batch) = if writer % 4 == 0 {
                    // Mergers rewrite the rows that all share, and add their own.
                    let key = vec!["id".to_owned()];
                    (Change::Merge { key }, rows(&[(-1, Some("new"), 0), (id, Some("m"), 0)]))
                } else {
                    (Change::Append, rows(&[(id, Some("a"), 0)]))
                };
                table.commit(change, stream(batch), None).await.unwrap();
            }
        });
    }
    while let Some(done) = writers.join_next().await {
        done.unwrap();
    }
    let mut expected: Vec<i64> = (0..16).flat_map(|w| (0..3).map(move |r| 100 * w + r)).collect();
    expected.extend([-1, -2]);
    expected.sort_unstable();
    let expected: Vec<_> = expected.iter().map(ToString::to_string).collect();
    assert_eq!(ids(&table, Read::Current).await, expected);
    assert_eq!(sql(&table, Read::Current, "SELECT carrier FROM t WHERE id < 0 ORDER BY id").await, ["old", "new"]);
    assert_eq!(table.reload().await.unwrap().history().len(), 49);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_many_with_the_same_token_one_commits() {
    let table = table(&ports(), &[]).await;
    let mut writers = tokio::task::JoinSet::new();
    for _ in 0..8 {
        let table = table.clone();
        writers.spawn(async move {
            table.commit(Change::Append, stream(rows(&[(1, None, 0)])), Some(token(None, "10"))).await
        });
    }
    let results = writers.join_all().await;
    let refused = results.iter().filter_map(|r| r.as_ref().err());
    assert!(refused.clone().all(|error| error.kind() == ErrorKind::Conflict));
    assert_eq!(refused.count(), 7);
    assert_eq!(ids(&table, Read::Current).await, ["1"]);
}

#[tokio::test]
async fn a_passing_fault_of_the_store_under_a_footer_is_no_broken_file() {
    let ports = ports();
    let table = table(&ports, &[]).await;
    append(&table, rows(&[(1, None, 0)])).await;
    let plan = Plan::from(Operation::Get, 1, Fault::Busy);
    let storage = ports.storage.wrapped(|store| Faulty::wrap(store, &plan));
    let session = SessionContext::new();
    let root = ports.keys.root();
    session.register_object_store(root, storage.resolve(root).unwrap().0);
    let now = table.reload().await.unwrap();
    session.register_table("t", now.provider(Read::Current).await.unwrap()).unwrap();
    let error = session.sql("SELECT id FROM t").await.unwrap().collect().await.unwrap_err();
    assert_eq!(Error::from(error).kind(), ErrorKind::Retry);
}
