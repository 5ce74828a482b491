//! Changes of a table that touch no row.

use std::collections::BTreeMap;

use arrow::array::Int32Array;
use iceberg::spec::SnapshotRetention;

use super::*;
use shared::ErrorKind;
use shared::model::Transform;
use testing::catalog_faults::Fault::{LostReply, Refused};
use testing::catalog_faults::{self, FaultyCatalog};

async fn made(ports: &Ports, columns: &[(&str, &str)]) -> Table {
    let columns: Vec<_> = columns.iter().map(|(name, ty)| Column::new(*name, ty.parse().unwrap())).collect();
    Tables::new(ports.clone()).ensure(&name(), &columns, &[]).await.unwrap()
}

fn add(name: &str, ty: &str, after: Position) -> Alter {
    Alter::AddColumn { column: Column::new(name, ty.parse().unwrap()), after }
}

fn rename(from: &str, to: &str) -> Alter {
    Alter::RenameColumn { from: from.into(), to: to.into() }
}

fn widen(name: &str, ty: &str) -> Alter {
    Alter::WidenColumn { name: name.into(), ty: ty.parse().unwrap() }
}

fn set(key: &str, value: &str) -> Alter {
    Alter::SetProperties(BTreeMap::from([(key.to_owned(), value.to_owned())]))
}

fn tag(name: &str, snapshot: Option<i64>) -> Alter {
    Alter::CreateTag { name: name.into(), snapshot, keep: Keep::default(), replace: false }
}

fn branch(name: &str, snapshot: Option<i64>) -> Alter {
    Alter::CreateBranch { name: name.into(), snapshot, keep: Keep::default(), replace: false }
}

fn described(table: &Table) -> Vec<String> {
    table.columns().iter().map(|c| format!("{}:{}", c.name, c.ty)).collect()
}

fn spec(table: &Table) -> Vec<String> {
    let fields = table.metadata().default_partition_spec().fields();
    fields.iter().map(|f| format!("{}={}#{}", f.name, f.transform, f.field_id)).collect()
}

async fn select(table: &Table, values: &str) {
    let rows = SessionContext::new().sql(values).await.unwrap().execute_stream().await.unwrap();
    table.commit(Change::Append, rows, None).await.unwrap();
}

#[tokio::test]
async fn columns_are_added_dropped_renamed_widened_and_moved_and_old_rows_are_read_right() {
    let ports = ports();
    let table = made(&ports, &[("a", "int"), ("b", "string"), ("c", "float")]).await;
    select(&table, "SELECT 1::int AS a, 'x' AS b, 0.5::float AS c").await;
    let changes = [
        add("d", "bigint", Position::After("a".into())),
        Alter::DropColumn("b".into()),
        rename("a", "id"),
        widen("id", "bigint"),
        widen("c", "double"),
        Alter::MoveColumn { name: "c".into(), to: Position::First },
        // The name of the dropped column for another one.
        add("b", "int", Position::Before("id".into())),
        Alter::Comment { column: "id".into(), comment: Some("what it is".into()) },
    ];
    let table = table.alter(&changes).await.unwrap();
    assert_eq!(described(&table), ["c:double", "b:int", "id:bigint", "d:bigint"]);
    assert_eq!(table.columns()[2].comment.as_deref(), Some("what it is"));
    select(&table, "SELECT 1.5 AS c, 7::int AS b, 1099511627776 AS id, 2 AS d").await;
    let rows = sql(&table, Read::Current, "SELECT c, b, id, d FROM t ORDER BY id").await;
    assert_eq!(rows, ["0.5  1 ", "1.5 7 1099511627776 2"]);
    assert_eq!(sql(&table, Read::Current, "SELECT id FROM t WHERE b IS NULL AND id < 5").await, ["1"]);
    let catalog = ports.catalog.get_table(&name()).await.unwrap();
    let names: Vec<_> = catalog.input.storage.columns.iter().map(|c| c.name.as_str()).collect();
    assert_eq!(names, ["c", "b", "id", "d"]);
    assert_eq!(table.metadata().schemas_iter().len(), 2, "one schema for one call");
}

#[tokio::test]
async fn fields_inside_columns_are_changed_by_their_path() {
    let columns = [("s", "struct<x:int,y:string>"), ("l", "array<struct<p:int>>"), ("m", "map<string,int>")];
    let table = made(&ports(), &columns).await;
    let changes = [
        add("s.z", "double", Position::First),
        rename("s.y", "w"),
        widen("s.x", "bigint"),
        add("l.q", "string", Position::Last),
        widen("l.element.p", "bigint"),
        widen("m.value", "bigint"),
        Alter::MoveColumn { name: "s.w".into(), to: Position::Before("x".into()) },
    ];
    let table = table.alter(&changes).await.unwrap();
    let expected =
        ["s:struct<z:double,w:string,x:bigint>", "l:array<struct<p:bigint,q:string>>", "m:map<string,bigint>"];
    assert_eq!(described(&table), expected);
    let table = table.alter(&[Alter::DropColumn("s.w".into())]).await.unwrap();
    assert_eq!(described(&table)[0], "s:struct<z:double,x:bigint>");
}

#[tokio::test]
async fn what_readers_could_not_follow_is_refused_with_what_was_found_and_changes_nothing() {
    let ports = ports();
    let table = table(&ports, &["day(at)"]).await;
    append(&table, rows(&[(1, Some("a"), 0)])).await;
    let before = table.reload().await.unwrap();
    let last = [Alter::DropColumn("id".into()), Alter::DropColumn("carrier".into())];
    let required = Column { required: true, ..Column::new("n", ColumnType::Int) };
    let day: PartitionField = "day(at)".parse().unwrap();
    let order = |column: &str| SortField {
        column: column.into(),
        transform: Transform::Identity,
        descending: false,
        nulls_first: true,
    };
    let cases: Vec<(Vec<Alter>, &str)> = vec![
        (vec![Alter::DropColumn("at".into())], "`at`, read by `at_day`"),
        (vec![Alter::DropPartitionField(day.clone()), Alter::DropColumn("at".into())], "expire"),
        (vec![Alter::SetSortOrder(vec![order("id")]), Alter::DropColumn("id".into())], "sort order"),
        (vec![Alter::DropColumn("nothing".into())], "found `nothing`"),
        (vec![add("carrier", "int", Position::Last)], "`carrier`, which exists"),
        (vec![add("Carrier", "int", Position::Last)], "`Carrier`"),
        (vec![add("x.y", "int", Position::Last)], "found `x`"),
        (vec![add("carrier.y", "int", Position::Last)], "expected a struct"),
        (vec![add("n", "int", Position::After("m".into()))], "found `m`"),
        (vec![add("at_day", "int", Position::Last)], "at_day"),
        (vec![Alter::AddColumn { column: required, after: Position::Last }], "may be null"),
        (vec![rename("carrier", "id")], "`id`, which exists"),
        (vec![rename("carrier", "a b")], "`a b`"),
        (vec![widen("id", "int")], "expected a type that `bigint` widens to, found `int`"),
        (vec![widen("id", "string")], "found `string`"),
        (vec![Alter::MoveColumn { name: "id".into(), to: Position::After("id".into()) }], "found `id`"),
        (vec![Alter::AddPartitionField(day.clone())], "that the table lacks"),
        (vec![Alter::AddPartitionField("hour(at)".parse().unwrap())], "at_day"),
        (vec![Alter::AddPartitionField("year(id)".parse().unwrap())], "found `long`"),
        (vec![Alter::AddPartitionField("nothing".parse().unwrap())], "found `nothing`"),
        (vec![Alter::DropPartitionField("month(at)".parse().unwrap())], "`at_day`"),
        (vec![Alter::SetSortOrder(vec![order("nothing")])], "found `nothing`"),
        (vec![set("write.merge.mode", "sometimes")], "found `sometimes`"),
        (vec![set("history.expire.min-snapshots-to-keep", "0")], "found `0`"),
        (vec![set("format-version", "1")], "or a later one"),
        (vec![set("format-version", "9")], "found `9`"),
        (vec![set("tarn.token.x", "1")], "`tarn.token.x`"),
        (vec![set("current-snapshot-id", "1")], "current-snapshot-id"),
        (vec![tag("main", None)], "other than `main`"),
        (vec![Alter::DropRef("main".into())], "stays"),
        (vec![tag("x", None), tag("x", None)], "`x`, which exists"),
        (vec![tag("x", None), Alter::FastForward { branch: "x".into(), to: "main".into() }], "found the tag"),
    ];
    for (changes, expected) in cases {
        let error = table.alter(&changes).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid, "{changes:?}: {error}");
        assert!(error.to_string().contains(expected), "{changes:?}: {error}");
    }
    for changes in [
        vec![tag("x", Some(7))],
        vec![Alter::RollbackTo { snapshot: 7, replay: false }],
        vec![Alter::DropRef("x".into())],
    ] {
        let error = table.alter(&changes).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");
    }
    assert_eq!(table.reload().await.unwrap().metadata_location(), before.metadata_location());
    let small = made(&super::ports(), &[("id", "int"), ("carrier", "int")]).await;
    assert!(small.alter(&last).await.unwrap_err().to_string().contains("the last one"));
}

#[tokio::test]
async fn a_partition_field_that_returns_has_its_old_id_and_files_of_every_spec_are_read() {
    let ports = ports();
    let table = table(&ports, &["day(at)"]).await;
    append(&table, rows(&[(1, Some("a"), 0), (2, Some("b"), 1)])).await;
    let day: PartitionField = "day(at)".parse().unwrap();
    let bucket: PartitionField = "bucket(4, id)".parse().unwrap();
    assert_eq!(spec(&table), ["at_day=day#1000"]);
    let table = table.alter(&[Alter::AddPartitionField(bucket)]).await.unwrap();
    assert_eq!(spec(&table), ["at_day=day#1000", "id_bucket_4=bucket[4]#1001"]);
    append(&table, rows(&[(3, Some("c"), 1)])).await;
    let table = table.alter(&[Alter::ReplacePartitionFields(vec!["carrier".parse().unwrap()])]).await.unwrap();
    assert_eq!(spec(&table), ["carrier=identity#1002"]);
    append(&table, rows(&[(4, Some("d"), 2)])).await;
    let table = table.alter(&[Alter::ReplacePartitionFields(vec![day])]).await.unwrap();
    assert_eq!(spec(&table), ["at_day=day#1000"]);
    assert_eq!(table.metadata().default_partition_spec_id(), 0, "the first spec again");
    let table = table.alter(&[Alter::ReplacePartitionFields(vec![])]).await.unwrap();
    assert!(table.metadata().default_partition_spec().is_unpartitioned());
    append(&table, rows(&[(5, None, 2)])).await;
    assert_eq!(ids(&table, Read::Current).await, ["1", "2", "3", "4", "5"]);
    assert_eq!(sql(&table, Read::Current, "SELECT id FROM t WHERE carrier = 'd'").await, ["4"]);
    // A row of each spec is replaced.
    let key = vec!["id".to_owned()];
    let new: Vec<_> = (1..=5).map(|id| (id, Some("new"), 0)).collect();
    table.commit(Change::Merge { key }, stream(rows(&new)), None).await.unwrap();
    assert_eq!(sql(&table, Read::Current, "SELECT count(*), min(carrier) FROM t").await, ["5 new"]);
}

#[tokio::test]
async fn a_sort_order_and_properties_are_set_once_and_nothing_to_do_writes_nothing() {
    let table = made(&ports(), &[("a", "int"), ("b", "string")]).await;
    let order =
        vec![SortField { column: "b".into(), transform: Transform::Truncate(2), descending: true, nulls_first: false }];
    let changes = [
        Alter::SetSortOrder(order),
        set("write.merge.mode", "merge-on-read"),
        set("owner", "ops"),
        Alter::RemoveProperties(vec!["write.parquet.compression-codec".into(), "absent".into()]),
    ];
    let table = table.alter(&changes).await.unwrap();
    let fields = &table.metadata().default_sort_order().fields;
    assert_eq!(fields.len(), 1);
    assert_eq!(fields[0].transform.to_string(), "truncate[2]");
    assert_eq!(table.metadata().properties()["owner"], "ops");
    assert!(!table.metadata().properties().contains_key("write.parquet.compression-codec"));
    assert_eq!(table.metadata().metadata_log().len(), 1, "one file for one call");
    let again = table.alter(&changes).await.unwrap();
    assert_eq!(again.metadata_location(), table.metadata_location());
    let table = table.alter(&[Alter::SetSortOrder(vec![])]).await.unwrap();
    assert!(table.metadata().default_sort_order().is_unsorted());
}

#[tokio::test]
async fn properties_and_the_name_mapping_follow_a_rename() {
    let table = made(&ports(), &[("a", "struct<x:int>"), ("b", "int")]).await;
    let mapping =
        r#"[{"field-id":1,"names":["a"],"fields":[{"field-id":3,"names":["x"]}]},{"field-id":2,"names":["b"]}]"#;
    let table = table
        .alter(&[
            set("schema.name-mapping.default", mapping),
            set("write.metadata.metrics.column.a.x", "none"),
            set("write.metadata.metrics.column.ab", "none"),
        ])
        .await
        .unwrap();
    let table =
        table.alter(&[rename("a", "s"), Alter::DropColumn("b".into()), add("b", "int", Position::Last)]).await.unwrap();
    let properties = table.metadata().properties();
    assert_eq!(properties["write.metadata.metrics.column.s.x"], "none");
    assert!(!properties.contains_key("write.metadata.metrics.column.a.x"));
    assert_eq!(properties["write.metadata.metrics.column.ab"], "none");
    let expected = r#"[{"field-id":1,"names":["a","s"],"fields":[{"field-id":3,"names":["x"]}]},{"field-id":2,"names":[]},{"field-id":4,"names":["b"]}]"#;
    assert_eq!(properties["schema.name-mapping.default"], expected);
}

#[tokio::test]
async fn tags_and_branches_name_snapshots_and_rollback_makes_an_earlier_one_current() {
    let ports = ports();
    let table = table(&ports, &[]).await;
    assert!(table.alter(&[tag("t", None)]).await.unwrap_err().to_string().contains("without"));
    let mut snapshots = Vec::new();
    for id in 1..=3 {
        snapshots.push(append(&table, rows(&[(id, None, 0)])).await.snapshot_id);
    }
    let keep = Keep { max_ref_age_ms: Some(5), ..Keep::default() };
    let table = table
        .alter(&[
            Alter::CreateTag { name: "first".into(), snapshot: Some(snapshots[0]), keep, replace: false },
            branch("audit", Some(snapshots[1])),
            tag("last", None),
        ])
        .await
        .unwrap();
    let all = refs::all(table.metadata()).unwrap();
    assert_eq!(all["first"].snapshot_id, snapshots[0]);
    assert_eq!(all["first"].retention, SnapshotRetention::Tag { max_ref_age_ms: Some(5) });
    assert_eq!(all["last"].snapshot_id, snapshots[2]);
    assert_eq!(all["main"].snapshot_id, snapshots[2]);

    let table = table.alter(&[Alter::RollbackTo { snapshot: snapshots[0], replay: false }]).await.unwrap();
    assert_eq!(ids(&table, Read::Current).await, ["1"]);
    assert_eq!(table.metadata().history().len(), 4, "the log says what was current when");
    let forward = Alter::FastForward { branch: "main".into(), to: "audit".into() };
    let table = table.alter(&[forward]).await.unwrap();
    assert_eq!(ids(&table, Read::Current).await, ["1", "2"]);
    // Not an ancestor of what is current now, but a snapshot of the table.
    let error = table.alter(&[Alter::RollbackTo { snapshot: snapshots[2], replay: false }]).await.unwrap_err();
    assert!(error.to_string().contains("ancestor"), "{error}");
    let table = table.alter(&[Alter::SetCurrentSnapshot(snapshots[2])]).await.unwrap();
    assert_eq!(ids(&table, Read::Current).await, ["1", "2", "3"]);
    // A branch goes on from where it is after a rollback, and can't be moved back.
    append(
        &table.alter(&[Alter::RollbackTo { snapshot: snapshots[0], replay: false }]).await.unwrap(),
        rows(&[(9, None, 0)]),
    )
    .await;
    assert_eq!(ids(&table, Read::Current).await, ["1", "9"]);
    let back = Alter::FastForward { branch: "main".into(), to: "audit".into() };
    assert!(table.alter(&[back]).await.unwrap_err().to_string().contains("none of its ancestors"));
    let table = table.alter(&[Alter::DropRef("first".into())]).await.unwrap();
    assert!(!refs::all(table.metadata()).unwrap().contains_key("first"));
    assert_eq!(ids(&table, Read::Snapshot(snapshots[0])).await, ["1"]);
}

#[tokio::test]
async fn a_rollback_to_a_time_takes_the_newest_snapshot_before_it() {
    let table = table(&ports(), &[]).await;
    let first = append(&table, rows(&[(1, None, 0)])).await.snapshot_id;
    tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    let between = chrono::Utc::now().timestamp_millis();
    // A change of metadata takes the present time, and later snapshots are no older.
    let table = table.alter(&[set("owner", "ops")]).await.unwrap();
    append(&table, rows(&[(2, None, 0)])).await;
    let table = table.alter(&[Alter::RollbackToTime { before_ms: between, replay: false }]).await.unwrap();
    assert_eq!(table.current_snapshot(), Some(first));
    let error = table.alter(&[Alter::RollbackToTime { before_ms: 1_000, replay: false }]).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert!(error.to_string().contains("1970-01-01T00:00:01"), "{error}");
}

/// Commits a row under a token; gives the snapshot.
async fn commit_at(table: &Table, id: i64, expected: Option<&str>, value: &str) -> i64 {
    let now = table.reload().await.unwrap();
    let rows = stream(rows(&[(id, None, 0)]));
    now.commit(Change::Append, rows, Some(token(expected, value))).await.unwrap().snapshot_id
}

fn position(table: &Table) -> String {
    table.token("stream.flights").unwrap()
}

#[tokio::test]
async fn a_rollback_keeps_positions_unless_a_replay_is_asked_for() {
    let table = table(&ports(), &[]).await;
    let first = commit_at(&table, 1, None, "a").await;
    let second = commit_at(&table, 2, Some("a"), "b").await;
    let third = commit_at(&table, 3, Some("b"), "c").await;
    let back = |snapshot, replay| [Alter::RollbackTo { snapshot, replay }];

    let kept = table.alter(&back(second, false)).await.unwrap();
    assert_eq!((ids(&kept, Read::Current).await.len(), position(&kept).as_str()), (2, "c"));
    // Further back it still is the newest that counts; what is committed from there counts more.
    let kept = table.alter(&back(first, false)).await.unwrap();
    assert_eq!((ids(&kept, Read::Current).await, position(&kept).as_str()), (vec!["1".into()], "c"));
    let fourth = commit_at(&table, 4, Some("c"), "d").await;
    let now = table.reload().await.unwrap();
    assert_eq!((ids(&now, Read::Current).await, position(&now).as_str()), (vec!["1".into(), "4".into()], "d"));
    let everything = Expire { older_than_ms: Some(i64::MAX), ..Expire::default() };
    assert_eq!(now.expire(&everything).await.unwrap().snapshots.len(), 3);
    assert_eq!(position(&table.reload().await.unwrap()), "d");

    commit_at(&table, 5, Some("d"), "e").await;
    let replayed = table.alter(&back(fourth, true)).await.unwrap();
    assert_eq!((ids(&replayed, Read::Current).await.len(), position(&replayed).as_str()), (2, "d"));
    assert!(table.alter(&back(third, true)).await.is_err(), "it has expired");
}

#[tokio::test]
async fn a_replay_goes_back_to_the_position_of_its_snapshot_also_after_a_rollback_that_kept_it() {
    let table = table(&ports(), &[]).await;
    let first = commit_at(&table, 1, None, "a").await;
    let second = commit_at(&table, 2, Some("a"), "b").await;
    commit_at(&table, 3, Some("b"), "c").await;
    table.alter(&[Alter::RollbackTo { snapshot: second, replay: false }]).await.unwrap();
    let table = table.alter(&[Alter::RollbackTo { snapshot: first, replay: true }]).await.unwrap();
    assert_eq!(position(&table), "a");
    assert!(!table.metadata().properties().keys().any(|key| key.starts_with("tarn.token")));
}

#[tokio::test]
async fn positions_outlast_expiry_after_a_rollback() {
    let table = table(&ports(), &[]).await;
    let first = commit_at(&table, 1, None, "a").await;
    commit_at(&table, 2, Some("a"), "b").await;
    commit_at(&table, 3, Some("b"), "c").await;
    table.alter(&[Alter::RollbackTo { snapshot: first, replay: false }]).await.unwrap();
    commit_at(&table, 4, Some("c"), "d").await;
    // Without the token: a compaction, or a statement.
    let fifth = append(&table.reload().await.unwrap(), rows(&[(5, None, 0)])).await.snapshot_id;
    let everything = Expire { older_than_ms: Some(i64::MAX), ..Expire::default() };
    table.reload().await.unwrap().expire(&everything).await.unwrap();
    assert_eq!(position(&table.reload().await.unwrap()), "d");
    // A newer one that stays does not hide the one that the version before it had.
    commit_at(&table, 6, Some("d"), "e").await;
    let seventh = append(&table.reload().await.unwrap(), rows(&[(7, None, 0)])).await.snapshot_id;
    commit_at(&table, 8, Some("e"), "f").await;
    let two = Expire { retain_last: Some(2), ..everything };
    table.reload().await.unwrap().expire(&two).await.unwrap();
    let back = table.alter(&[Alter::RollbackTo { snapshot: seventh, replay: true }]).await.unwrap();
    assert_eq!(position(&back), "e", "{fifth}");
}

#[tokio::test]
async fn a_replay_after_a_rollback_keeps_what_that_kept_of_others() {
    let table = table(&ports(), &[]).await;
    let of_job = |expected: Option<&str>, value: &str| Token { key: "job.w.j".into(), ..token(expected, value) };
    let first = commit_at(&table, 1, None, "a").await;
    let now = table.reload().await.unwrap();
    now.commit(Change::Append, stream(rows(&[(2, None, 0)])), Some(of_job(None, "j"))).await.unwrap();
    table.alter(&[Alter::RollbackTo { snapshot: first, replay: false }]).await.unwrap();
    let fourth = commit_at(&table, 4, Some("a"), "b").await;
    commit_at(&table, 5, Some("b"), "c").await;
    let back = table.alter(&[Alter::RollbackTo { snapshot: fourth, replay: true }]).await.unwrap();
    assert_eq!((position(&back).as_str(), back.token("job.w.j").as_deref()), ("b", Some("j")));
}

#[tokio::test]
async fn a_table_that_is_moved_forward_again_keeps_the_newest_position() {
    let table = table(&ports(), &[]).await;
    let first = commit_at(&table, 1, None, "a").await;
    let second = commit_at(&table, 2, Some("a"), "b").await;
    commit_at(&table, 3, Some("b"), "c").await;
    let table = table.alter(&[branch("audit", Some(second))]).await.unwrap();
    table.alter(&[Alter::RollbackTo { snapshot: first, replay: false }]).await.unwrap();
    let table = table.alter(&[Alter::FastForward { branch: "main".into(), to: "audit".into() }]).await.unwrap();
    assert_eq!((ids(&table, Read::Current).await.len(), position(&table).as_str()), (2, "c"));
}

/// The table over a catalog that fails its next updates.
async fn faulty<const N: usize>(ports: &Ports, faults: [catalog_faults::Fault; N]) -> Table {
    let catalog = FaultyCatalog::new(ports.catalog.clone());
    let table = Tables::new(Ports { catalog: catalog.clone(), ..ports.clone() }).load(&name()).await.unwrap();
    catalog.fail(&name(), &faults);
    table
}

async fn metadata_files(ports: &Ports) -> usize {
    let files = ports.storage.list(&ports.keys.table(&name())).await.unwrap();
    files.iter().filter(|o| o.url.path().ends_with(".metadata.json")).count()
}

#[tokio::test]
async fn a_change_whose_answer_is_lost_is_found_and_not_made_twice() {
    for kind in [ErrorKind::OutcomeUnknown, ErrorKind::Retry, ErrorKind::Conflict] {
        let ports = ports();
        table(&ports, &[]).await;
        let altered = faulty(&ports, [LostReply(kind)]).await.alter(&[add("x", "int", Position::Last)]).await.unwrap();
        assert_eq!(described(&altered).len(), 4, "{kind}");
        assert_eq!(metadata_files(&ports).await, 2, "{kind}");
    }
}

#[tokio::test]
async fn a_change_that_is_refused_for_a_while_is_made_once_and_leaves_no_files() {
    for kind in [ErrorKind::OutcomeUnknown, ErrorKind::Retry, ErrorKind::Conflict] {
        let ports = ports();
        table(&ports, &[]).await;
        let altered = faulty(&ports, [Refused(kind); 3]).await.alter(&[add("x", "int", Position::Last)]).await.unwrap();
        assert_eq!(described(&altered).len(), 4, "{kind}");
        // What was sent without an answer may take effect until the table has changed.
        let expected = if kind == ErrorKind::Conflict { 2 } else { 5 };
        assert_eq!(metadata_files(&ports).await, expected, "{kind}");
    }
}

#[tokio::test]
async fn a_change_whose_outcome_stays_unknown_says_so_and_one_that_is_denied_leaves_nothing() {
    let ports = ports();
    table(&ports, &[]).await;
    let unknown = faulty(&ports, [Refused(ErrorKind::OutcomeUnknown); 100]).await;
    let error = unknown.alter(&[add("x", "int", Position::Last)]).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::OutcomeUnknown, "{error}");
    let left = metadata_files(&ports).await;
    assert!(left > 1, "the request may still take effect");
    let denied = faulty(&ports, [Refused(ErrorKind::Denied)]).await;
    let error = denied.alter(&[add("x", "int", Position::Last)]).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Denied, "{error}");
    assert_eq!(metadata_files(&ports).await, left);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn changes_of_the_metadata_and_appends_at_once_all_take_effect() {
    let ports = ports();
    let table = made(&ports, &[("a", "int")]).await;
    let mut writers = tokio::task::JoinSet::new();
    for n in 0..8 {
        let table = table.clone();
        writers.spawn(async move {
            if n % 2 == 0 {
                let changes = [add(&format!("c{n}"), "int", Position::Last), set(&format!("p{n}"), "1")];
                table.alter(&changes).await.unwrap();
            } else {
                let batch =
                    RecordBatch::try_from_iter([("a", Arc::new(Int32Array::from(vec![n])) as ArrayRef)]).unwrap();
                append(&table, batch).await;
            }
        });
    }
    writers.join_all().await;
    let table = table.reload().await.unwrap();
    assert_eq!(described(&table).len(), 5);
    assert_eq!(table.metadata().properties().keys().filter(|key| key.starts_with('p')).count(), 4);
    assert_eq!(sql(&table, Read::Current, "SELECT a FROM t ORDER BY a").await, ["1", "3", "5", "7"]);
    let ids: std::collections::HashSet<_> =
        table.metadata().current_schema().as_struct().fields().iter().map(|f| f.id).collect();
    assert_eq!(ids.len(), 5, "no id twice");
}

#[tokio::test]
async fn a_table_that_a_clock_which_is_ahead_has_changed_can_be_altered_by_one_that_is_not() {
    let now_ms = chrono::Utc::now().timestamp_millis();
    let ahead = adapters_embedded::in_memory(Arc::new(ManualClock::at(now_ms + 3_600_000))).unwrap();
    let table = table(&ahead, &[]).await;
    append(&table, rows(&[(1, None, 0)])).await;
    let behind = Ports { clock: Arc::new(ManualClock::at(now_ms)), ..ahead };
    let tables = Tables::new(behind);
    let before = tables.load(&name()).await.unwrap().metadata().clone();
    tables.load(&name()).await.unwrap().alter(&[set("owner", "ops")]).await.unwrap();
    let table = tables.load(&name()).await.unwrap();
    let now = table.metadata();
    assert_eq!(now.properties()["owner"], "ops");
    assert_eq!((now.last_updated_ms(), now.history()), (before.last_updated_ms(), before.history()));
    assert_eq!(now.metadata_log().len(), before.metadata_log().len() + 1);
}
