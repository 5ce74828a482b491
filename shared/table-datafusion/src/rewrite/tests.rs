//! Compaction over storage and catalog in memory.

use std::collections::BTreeSet;

use arrow::array::{ArrayRef, Float64Array, Int64Array, RecordBatch};
use datafusion::prelude::{col, lit};
use iceberg::spec::{FormatVersion, Operation as Kind};

use super::*;
use crate::tests::rows::TestChange;
use crate::tests::{append, ids, name, ports, rows, sql, stream, table};
use crate::{Change, ChangeTable};
use shared::ErrorKind;
use shared::model::Transform;
use shared::model::{Column, ColumnType};
use shared::ports::Ports;
use table::live::{live_entries, live_files};
use table::{Alter, Expire, Read, Tables};
use testing::catalog_faults::Fault::{self, LostReply, Refused};
use testing::catalog_faults::FaultyCatalog;
use testing::faults::{Fault as StoreFault, Faulty, Operation, Plan};

/// Two small files are worth it.
fn pack() -> Rewrite {
    Rewrite { min_input_files: Some(2), ..Rewrite::default() }
}

fn by(column: &str, transform: Transform, descending: bool) -> SortField {
    SortField { column: column.into(), transform, descending, nulls_first: true }
}

async fn live(table: &Table) -> Vec<table::live::LiveFile> {
    let table = table.reload().await.unwrap();
    let metadata = table.metadata();
    live_files(table.io(), metadata, metadata.current_snapshot().unwrap()).await.unwrap()
}

async fn data_files(ports: &Ports) -> BTreeSet<String> {
    let files = ports.storage.list(&ports.keys.table(&name())).await.unwrap();
    files.into_iter().map(|o| o.url.to_string()).filter(|url| url.ends_with(".parquet")).collect()
}

/// Two files for each of two days.
async fn scattered(ports: &Ports) -> Table {
    let table = table(ports, &["day(at)"]).await;
    for id in [1, 2] {
        append(&table, rows(&[(id, Some("a"), 0), (10 * id, Some("b"), 1)])).await;
    }
    table.reload().await.unwrap()
}

#[tokio::test]
async fn small_files_of_a_partition_become_one_and_no_row_changes() {
    let ports = ports();
    let table = scattered(&ports).await;
    let read = table.metadata().last_sequence_number();
    let told = table.rewrite(&Rewrite { dry_run: true, ..pack() }).await.unwrap();
    assert_eq!((told.groups, told.files_removed, told.files_added), (2, 4, 0));
    assert_eq!(table.reload().await.unwrap().metadata_location(), table.metadata_location());

    let done = table.rewrite(&pack()).await.unwrap();
    assert_eq!((done.groups, done.conflicts, done.files_removed, done.files_added), (2, 0, 4, 2));
    assert_eq!(done.bytes_removed, told.bytes_removed);
    assert_eq!(ids(&table, Read::Current).await, ["1", "2", "10", "20"]);
    let now = table.reload().await.unwrap();
    let snapshot = now.metadata().current_snapshot().unwrap();
    assert_eq!(done.snapshots, [snapshot.snapshot_id()]);
    assert_eq!(snapshot.summary().operation, Kind::Replace);
    assert_eq!(snapshot.summary().additional_properties["total-records"], "4");
    assert_eq!(snapshot.summary().additional_properties["total-data-files"], "2");
    let files = live(&now).await;
    assert_eq!(files.len(), 2);
    assert!(files.iter().all(|file| file.sequence() == read), "as old as the rows in them");
    let list = now.io().manifest_list(snapshot, FormatVersion::V2).await.unwrap();
    let added = list.iter().filter(|manifest| manifest.has_added_files());
    assert!(added.clone().all(|manifest| manifest.min_sequence_number == read) && added.count() == 1, "{list:?}");
    // Incremental readers see no new rows.
    let added =
        Read::Added { after: now.metadata().current_snapshot().unwrap().parent_snapshot_id(), to: done.snapshots[0] };
    assert!(ids(&now, added).await.is_empty());
    assert_eq!(now.rewrite(&pack()).await.unwrap(), Rewritten::default(), "nothing is left to do");
    assert_eq!(now.reload().await.unwrap().metadata_location(), now.metadata_location());
    now.expire(&Expire { older_than_ms: Some(i64::MAX), ..Expire::default() }).await.unwrap();
    assert_eq!(data_files(&ports).await.len(), 2);
}

#[tokio::test]
async fn nights_after_days_of_small_commits_rewrite_little_and_change_no_row() {
    let ports = ports();
    let properties = [
        ("write.delete.mode".to_owned(), "merge-on-read".to_owned()),
        ("write.target-file-size-bytes".to_owned(), "40000".to_owned()),
    ];
    let table = table(&ports, &[]).await.alter(&[Alter::SetProperties(properties.into())]).await.unwrap();
    let (mut expected, mut next, mut came, mut rewritten) = (BTreeSet::new(), 0_i64, 0, 0);
    for day in 0..24_i64 {
        for commit in 0..6 {
            // Between 20 and 500 rows whose ids don't compress well.
            let ids = (0..20 + (day * 7 + commit * 83) % 480).map(|n| (next + n) * 7_919_777 % 1_000_000_007);
            let batch: Vec<_> = ids.map(|id| (id, None, 0)).collect();
            next += batch.len() as i64;
            expected.extend(batch.iter().map(|(id, ..)| *id));
            append(&table, rows(&batch)).await;
        }
        if day % 8 == 7 {
            table.change_rows(&TestChange::delete("id < 20000000"), None).await.unwrap();
            expected.retain(|id| *id >= 20_000_000);
        }
        let total =
            |files: &[table::live::LiveFile]| -> u64 { files.iter().map(|f| f.data().file_size_in_bytes()).sum() };
        let before = live(&table).await;
        let had_deletes = delete_files(&table).await > 0;
        let done = table.rewrite(&Rewrite::default()).await.unwrap();
        assert_eq!(done.bytes_removed, total(&before) - kept(&before, &live(&table).await));
        assert_eq!(delete_files(&table).await, 0);
        if !had_deletes {
            rewritten += done.bytes_removed;
        }
        came = came.max(total(&live(&table).await));
        let found: BTreeSet<i64> = ids(&table, Read::Current).await.iter().map(|id| id.parse().unwrap()).collect();
        assert_eq!(found, expected, "day {day}");
        assert_eq!(ids(&table, Read::Current).await.len(), expected.len());
    }
    // What was put together may be worth being put together again, but not for long.
    let mut rounds = 0;
    while table.rewrite(&Rewrite::default()).await.unwrap() != Rewritten::default() {
        rounds += 1;
    }
    assert!(rounds <= 3, "{rounds} rounds until it is at rest");
    let files = live(&table).await.len() as u64;
    assert!(files <= came / 20_000 + 14, "{files} files of {came} bytes");
    assert!(rewritten <= 8 * came, "{rewritten} bytes rewritten of {came}");
}

/// Bytes of the files of `before` that are there still.
fn kept(before: &[table::live::LiveFile], now: &[table::live::LiveFile]) -> u64 {
    let now: BTreeSet<&str> = now.iter().map(|file| file.data().file_path()).collect();
    let stay = before.iter().filter(|file| now.contains(file.data().file_path()));
    stay.map(|file| file.data().file_size_in_bytes()).sum()
}

#[tokio::test]
async fn few_files_wait_and_only_those_that_may_match_are_taken() {
    let ports = ports();
    let table = scattered(&ports).await;
    assert_eq!(table.rewrite(&Rewrite::default()).await.unwrap(), Rewritten::default());
    let done = table.rewrite(&Rewrite { filters: vec![col("id").gt_eq(lit(10))], ..pack() }).await.unwrap();
    assert_eq!((done.groups, done.files_removed), (1, 2));
    assert_eq!(live(&table).await.len(), 3);
    assert_eq!(ids(&table, Read::Current).await, ["1", "2", "10", "20"]);
}

#[tokio::test]
async fn files_are_cut_at_the_size_that_is_asked_for() {
    let ports = ports();
    let table = table(&ports, &[]).await;
    let many: Vec<(i64, Option<&str>, i64)> = (0..60_000).map(|id| ((id * 7_919) % 1_000_003, None, id % 97)).collect();
    append(&table, rows(&many)).await;
    let whole = live(&table).await[0].data().file_size_in_bytes();
    let done = table.rewrite(&Rewrite { target_file_bytes: Some(whole / 4), ..Rewrite::default() }).await.unwrap();
    assert!(done.files_removed == 1 && (3..=8).contains(&done.files_added), "{done:?}");
    assert_eq!(sql(&table, Read::Current, "SELECT count(*), count(DISTINCT id) FROM t").await, ["60000 60000"]);
}

#[tokio::test]
async fn rows_are_sorted_by_the_order_asked_for_within_little_memory() {
    let ports = ports();
    let table = table(&ports, &[]).await;
    let order = vec![by("carrier", Transform::Truncate(1), true), by("id", Transform::Identity, false)];
    let table = table.alter(&[Alter::SetSortOrder(order)]).await.unwrap();
    let texts: Vec<String> =
        (0..100_000_i64).map(|n| format!("{}{n:060}", ["a", "b", "c"][(n % 3) as usize])).collect();
    for half in texts.chunks(50_000) {
        let batch: Vec<_> = half.iter().enumerate().map(|(n, text)| (-(n as i64), Some(text.as_str()), 0)).collect();
        append(&table, rows(&batch)).await;
    }
    let spill = tempfile::tempdir().unwrap();
    let sort = Rewrite {
        arrangement: Arrangement::Sort(Vec::new()),
        memory_bytes: Some(4 << 20),
        spill: Some(spill.path().to_owned()),
        ..Rewrite::default()
    };
    let done = table.rewrite(&sort).await.unwrap();
    assert_eq!((done.files_removed, done.files_added), (2, 1));
    let file = live(&table).await.remove(0);
    assert_eq!(file.data().sort_order_id(), Some(1));
    let read = "SELECT substr(carrier, 1, 1) AS c, id, row_number() OVER () AS n FROM t";
    let wrong = format!(
        "SELECT count(*) FROM (SELECT c, id, lag(c) OVER (ORDER BY n) AS c0, lag(id) OVER (ORDER BY n) AS id0 FROM ({read})) \
         WHERE c > c0 OR (c = c0 AND id < id0)"
    );
    assert_eq!(sql(&table, Read::Current, &wrong).await, ["0"]);
    assert_eq!(sql(&table, Read::Current, "SELECT count(*), count(DISTINCT carrier) FROM t").await, ["100000 100000"]);
    assert_eq!(table.rewrite(&sort).await.unwrap(), Rewritten::default(), "sorted already");
    // Another order gets an id of its own.
    let other =
        Rewrite { arrangement: Arrangement::Sort(vec![by("id", Transform::Identity, true)]), ..Rewrite::default() };
    assert_eq!(table.rewrite(&other).await.unwrap().files_added, 1);
    assert_eq!(live(&table).await[0].data().sort_order_id(), Some(2));
}

#[tokio::test]
async fn a_sort_that_is_done_again_takes_what_is_not_sorted_yet() {
    let ports = ports();
    let table = table(&ports, &[]).await;
    append(&table, rows(&(0..500).map(|id| (id * 7 % 500, None, 0)).collect::<Vec<_>>())).await;
    let sort = Rewrite {
        arrangement: Arrangement::Sort(vec![by("id", Transform::Identity, false)]),
        // So that the file is of a good size.
        target_file_bytes: Some(2_500),
        ..Rewrite::default()
    };
    let first = table.rewrite(&sort).await.unwrap();
    assert!(first.files_removed == 1 && first.files_added >= 1, "{first:?}");
    assert!(live(&table).await.iter().all(|file| file.data().sort_order_id() == Some(1)));
    assert!(table.reload().await.unwrap().metadata().default_sort_order().is_unsorted(), "writers need not sort");
    assert_eq!(table.rewrite(&sort).await.unwrap(), Rewritten::default(), "all of it is sorted");
    let sorted: BTreeSet<_> = data_files(&ports).await;
    append(&table, rows(&(500..900).map(|id| (id * 7 % 900, None, 0)).collect::<Vec<_>>())).await;
    let second = table.rewrite(&sort).await.unwrap();
    assert_eq!(second.files_removed, 1, "{second:?}");
    assert!(sorted.is_subset(&data_files(&ports).await), "what is sorted stays as it is");
}

#[tokio::test]
async fn z_order_narrows_the_files_in_every_column() {
    let ports = ports();
    let columns = [Column::new("a", ColumnType::BigInt), Column::new("b", ColumnType::Double)];
    let table = Tables::new(ports.clone()).ensure(&name(), &columns, &[]).await.unwrap();
    let a: ArrayRef = Arc::new((0..65_536_i64).map(|n| Some(n % 256)).collect::<Int64Array>());
    let b: ArrayRef = Arc::new((0..65_536_i32).map(|n| Some(f64::from(n / 256))).collect::<Float64Array>());
    append(&table, RecordBatch::try_from_iter([("a", a), ("b", b)]).unwrap()).await;
    let z_order = Arrangement::ZOrder(vec!["a".into(), "b".into()]);
    let done = table
        .rewrite(&Rewrite { arrangement: z_order, target_file_bytes: Some(1), ..Rewrite::default() })
        .await
        .unwrap();
    assert_eq!(done.files_added, 8, "one for each batch of 8192 rows");
    let number = |datum: &iceberg::spec::Datum| match datum.literal() {
        iceberg::spec::PrimitiveLiteral::Long(n) => *n,
        iceberg::spec::PrimitiveLiteral::Double(number) => number.0 as i64,
        other => panic!("{other:?}"),
    };
    for file in live(&table).await {
        let width = |id| number(&file.data().upper_bounds()[&id]) - number(&file.data().lower_bounds()[&id]) + 1;
        assert!(width(1) <= 128 && width(2) <= 128, "{} × {}", width(1), width(2));
    }
    assert_eq!(sql(&table, Read::Current, "SELECT count(*), sum(a) FROM t").await, ["65536 8355840"]);
}

#[tokio::test]
async fn files_of_an_earlier_partitioning_are_brought_into_the_present_one() {
    let ports = ports();
    let table = scattered(&ports).await;
    let table = table.alter(&[Alter::ReplacePartitionFields(vec!["carrier".parse().unwrap()])]).await.unwrap();
    let done = table.rewrite(&Rewrite::default()).await.unwrap();
    assert_eq!((done.groups, done.files_removed, done.files_added), (1, 4, 2));
    assert!(live(&table).await.iter().all(|file| file.spec_id() == 1));
    assert_eq!(ids(&table, Read::Current).await, ["1", "2", "10", "20"]);
    // The snapshot of the compaction still lists what it removed.
    append(&table, rows(&[(30, Some("c"), 0)])).await;
    let table = table.reload().await.unwrap();
    table.expire(&Expire { older_than_ms: Some(i64::MAX), ..Expire::default() }).await.unwrap();
    let table = table.alter(&[Alter::DropColumn("at".into())]).await.unwrap();
    assert_eq!(sql(&table, Read::Current, "SELECT * FROM t ORDER BY id LIMIT 1").await, ["1 a"]);
}

#[tokio::test]
async fn what_can_not_be_done_is_refused_by_name() {
    let ports = ports();
    let table = scattered(&ports).await;
    for (rewrite, expected) in [
        (Rewrite { arrangement: Arrangement::Sort(vec![]), ..pack() }, "found neither"),
        (Rewrite { arrangement: Arrangement::Sort(vec![by("x", Transform::Identity, false)]), ..pack() }, "found `x`"),
        (Rewrite { arrangement: Arrangement::Sort(vec![by("id", Transform::Day, false)]), ..pack() }, "found `long`"),
        (Rewrite { arrangement: Arrangement::ZOrder(vec![]), ..pack() }, "found none"),
        (Rewrite { arrangement: Arrangement::ZOrder(vec!["y".into()]), ..pack() }, "found `y`"),
        (Rewrite { target_file_bytes: Some(0), ..pack() }, "a target of 0"),
    ] {
        let error = table.rewrite(&rewrite).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
        assert!(error.to_string().contains(expected), "{error}");
    }
    let small = Rewrite {
        arrangement: Arrangement::Sort(vec![by("id", Transform::Identity, false)]),
        memory_bytes: Some(1),
        ..pack()
    };
    assert!(table.rewrite(&small).await.is_err());
    assert_eq!(data_files(&ports).await.len(), 4, "nothing is left of it");
}

/// Reads and writes every group of the table, then lets `meanwhile` happen, then commits.
async fn interrupted<F: Future<Output = ()>>(table: &Table, meanwhile: impl FnOnce(Table) -> F) -> Rewritten {
    let rewrite = pack();
    let job = Job::new(table, &rewrite).unwrap();
    let mut replacement = Replacement::new(table);
    for group in job.groups().await.unwrap() {
        replacement.push(job.write(group).await.unwrap());
    }
    meanwhile(table.clone()).await;
    let mut rewritten = Rewritten::default();
    replacement.commit(&mut rewritten).await.unwrap();
    rewritten
}

#[tokio::test]
async fn rows_that_come_meanwhile_are_no_conflict() {
    let ports = ports();
    let table = scattered(&ports).await;
    let done = interrupted(&table, |table| async move {
        append(&table, rows(&[(3, None, 0)])).await;
    });
    let done = done.await;
    assert_eq!((done.groups, done.conflicts), (2, 0));
    assert_eq!(ids(&table, Read::Current).await, ["1", "2", "3", "10", "20"]);
}

#[tokio::test]
async fn a_group_whose_files_are_changed_meanwhile_is_left_alone() {
    let ports = ports();
    let table = scattered(&ports).await;
    let done = interrupted(&table, |table| async move {
        let new = rows(&[(20, Some("new"), 1)]);
        table.commit(Change::Merge { key: vec!["id".into()] }, stream(new), None).await.unwrap();
    });
    let done = done.await;
    assert_eq!((done.groups, done.conflicts, done.files_removed, done.files_added), (1, 1, 2, 1));
    assert_eq!(
        sql(&table, Read::Current, "SELECT id, carrier FROM t ORDER BY id").await,
        ["1 a", "2 a", "10 b", "20 new"]
    );
    let before = data_files(&ports).await;
    // With every group changed nothing is committed and nothing left.
    let table = table.reload().await.unwrap();
    let done = interrupted(&table, |table| async move {
        table.commit(Change::Overwrite, stream(rows(&[(5, None, 0)])), None).await.unwrap();
    });
    let done = done.await;
    assert_eq!((done.groups, done.conflicts), (0, 1));
    assert!(done.snapshots.is_empty());
    assert_eq!(ids(&table, Read::Current).await, ["5"]);
    assert_eq!(data_files(&ports).await.difference(&before).count(), 1, "only the file of the overwrite is new");
}

/// The table of [`scattered`], whose deletes go into delete files.
async fn merging_on_read(ports: &Ports) -> Table {
    let mode = Alter::SetProperties([("write.delete.mode".into(), "merge-on-read".into())].into());
    scattered(ports).await.alter(&[mode]).await.unwrap()
}

async fn delete_files(table: &Table) -> usize {
    let table = table.reload().await.unwrap();
    let snapshot = table.metadata().current_snapshot().unwrap();
    let files = live_entries(table.io(), table.metadata(), snapshot).await.unwrap();
    files.iter().filter(|file| file.data().content_type() != iceberg::spec::DataContentType::Data).count()
}

#[tokio::test]
async fn deleted_rows_are_left_out_and_their_delete_files_go() {
    let ports = ports();
    let table = merging_on_read(&ports).await;
    table.change_rows(&TestChange::delete("id = 10"), None).await.unwrap();
    assert_eq!(delete_files(&table).await, 1);
    // The file with the deleted row is worth it alone, the others wait for more.
    let done = table.rewrite(&Rewrite::default()).await.unwrap();
    assert_eq!((done.groups, done.files_removed, done.delete_files_removed), (1, 2, 1), "{done:?}");
    assert_eq!(delete_files(&table).await, 0);
    assert_eq!(ids(&table, Read::Current).await, ["1", "2", "20"]);
    let now = table.reload().await.unwrap();
    let summary = &now.metadata().current_snapshot().unwrap().summary().additional_properties;
    assert_eq!((summary["total-delete-files"].as_str(), summary["total-records"].as_str()), ("0", "3"));
    // A file of which every row is deleted leaves nothing behind.
    table.change_rows(&TestChange::delete("id = 1"), None).await.unwrap();
    table.change_rows(&TestChange::delete("id = 2"), None).await.unwrap();
    table.rewrite(&pack()).await.unwrap();
    assert_eq!(delete_files(&table).await, 0);
    assert_eq!(ids(&table, Read::Current).await, ["20"]);
}

#[tokio::test]
async fn rows_that_are_deleted_meanwhile_stay_deleted() {
    let ports = ports();
    let table = merging_on_read(&ports).await;
    let done = interrupted(&table, |table| async move {
        table.change_rows(&TestChange::delete("id = 10"), None).await.unwrap();
    });
    let done = done.await;
    assert_eq!((done.groups, done.conflicts), (1, 1));
    assert_eq!(ids(&table, Read::Current).await, ["1", "2", "20"]);
    table.rewrite(&pack()).await.unwrap();
    assert_eq!((ids(&table, Read::Current).await.len(), delete_files(&table).await), (3, 0));
}

async fn faulty<const N: usize>(ports: &Ports, faults: [Fault; N]) -> Table {
    let catalog = FaultyCatalog::new(ports.catalog.clone());
    let table = Tables::new(Ports { catalog: catalog.clone(), ..ports.clone() }).load(&name()).await.unwrap();
    catalog.fail(&name(), &faults);
    table
}

#[tokio::test]
async fn a_lost_answer_is_no_second_compaction_and_a_refusal_leaves_nothing() {
    for kind in [ErrorKind::OutcomeUnknown, ErrorKind::Retry, ErrorKind::Conflict] {
        let ports = ports();
        let table = scattered(&ports).await;
        let done = faulty(&ports, [Refused(kind), LostReply(kind)]).await.rewrite(&pack()).await.unwrap();
        assert_eq!((done.groups, done.snapshots.len()), (2, 1), "{kind}");
        assert_eq!(ids(&table, Read::Current).await, ["1", "2", "10", "20"], "{kind}");
        assert_eq!(live(&table).await.len(), 2);
    }
    let ports = ports();
    let table = scattered(&ports).await;
    let before = data_files(&ports).await;
    let error = faulty(&ports, [Refused(ErrorKind::Denied)]).await.rewrite(&pack()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Denied);
    assert_eq!(data_files(&ports).await, before);
    assert_eq!(table.reload().await.unwrap().metadata_location(), table.metadata_location());
}

#[tokio::test]
async fn whatever_call_of_the_store_fails_all_rows_stay() {
    let mut failed = 0;
    for operation in [Operation::Put, Operation::Get] {
        for nth in 1..8 {
            for fault in [StoreFault::Refused, StoreFault::LostReply] {
                let ports = ports();
                let plain = scattered(&ports).await;
                let plan = Plan::nth(operation, nth, fault);
                let storage = ports.storage.wrapped(|store| Faulty::wrap(store, &plan));
                let Ok(table) = Tables::new(Ports { storage, ..ports.clone() }).load(&name()).await else { continue };
                failed += usize::from(table.rewrite(&pack()).await.is_err());
                assert_eq!(ids(&plain, Read::Current).await, ["1", "2", "10", "20"], "{operation:?} {nth} {fault:?}");
            }
        }
    }
    assert!(failed > 0, "no fault was met");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn writers_and_compactions_at_once_lose_no_row_and_double_none() {
    let ports = ports();
    let table = scattered(&ports).await;
    let mut tasks = tokio::task::JoinSet::new();
    for writer in 1..=4_i64 {
        let table = table.clone();
        tasks.spawn(async move {
            for round in 0..5 {
                let new = rows(&[(100 * writer + round, None, round % 2), (1, Some("new"), 0)]);
                let change = if writer == 1 { Change::Merge { key: vec!["id".into()] } } else { Change::Append };
                let new = if writer == 1 { new } else { new.slice(0, 1) };
                table.commit(change, stream(new), None).await.unwrap();
            }
        });
    }
    let compactor = table.clone();
    tasks.spawn(async move {
        for _ in 0..5 {
            compactor.rewrite(&pack()).await.unwrap();
        }
    });
    tasks.join_all().await;
    table.rewrite(&pack()).await.unwrap();
    assert_eq!(live(&table).await.len(), 2);
    let mut expected: Vec<i64> = (1..=4).flat_map(|w| (0..5).map(move |r| 100 * w + r)).collect();
    expected.extend([1, 2, 10, 20]);
    expected.sort_unstable();
    assert_eq!(ids(&table, Read::Current).await, expected.iter().map(ToString::to_string).collect::<Vec<_>>());
}
