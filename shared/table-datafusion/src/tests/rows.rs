//! Row-level changes: DELETE, UPDATE and MERGE as SQL's side asks for them.

use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use datafusion::logical_expr::{Expr, lit};
use datafusion::prelude::col;

use super::*;
use shared::ErrorKind;

/// A change whose rows a query over `t`, the table with addresses, and `s`, some new rows, gives.
pub(crate) struct TestChange {
    kind: RowChangeKind,
    filters: Vec<Expr>,
    query: String,
    source: Option<RecordBatch>,
    /// Commits that happen after the rows were asked for the first time.
    meanwhile: Option<(Table, Meanwhile)>,
    asked: AtomicUsize,
}

enum Meanwhile {
    Append(RecordBatch),
    Delete(&'static str),
}

impl TestChange {
    fn new(kind: RowChangeKind, query: impl Into<String>) -> Self {
        let (filters, source, meanwhile, asked) = (Vec::new(), None, None, AtomicUsize::new(0));
        Self { kind, filters, query: query.into(), source, meanwhile, asked }
    }

    pub(crate) fn delete(predicate: &str) -> Self {
        Self::new(RowChangeKind::Delete, format!("SELECT _file, _pos, false AS _insert FROM t WHERE {predicate}"))
    }

    pub(super) fn update(carrier: &str, predicate: &str) -> Self {
        let query =
            format!("SELECT t._file, t._pos, true AS _insert, id, '{carrier}' AS carrier, at FROM t WHERE {predicate}");
        Self::new(RowChangeKind::Update, query)
    }

    /// MERGE by id: matched rows take the source's values, those without a carrier are deleted, others are inserted.
    pub(super) fn merge(source: RecordBatch) -> Self {
        let query = "SELECT t._file, t._pos, s.carrier IS NOT NULL AS _insert, s.id, s.carrier, s.at
            FROM s LEFT JOIN t ON t.id = s.id";
        Self { source: Some(source), ..Self::new(RowChangeKind::Merge, query) }
    }

    pub(super) fn filtered(self, filter: Expr) -> Self {
        Self { filters: vec![filter], ..self }
    }

    pub(super) fn while_another_appends(self, table: &Table, batch: RecordBatch) -> Self {
        Self { meanwhile: Some((table.clone(), Meanwhile::Append(batch))), ..self }
    }

    pub(super) fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }
}

#[async_trait]
impl RowChange for TestChange {
    fn kind(&self) -> RowChangeKind {
        self.kind
    }

    fn filters(&self) -> Vec<Expr> {
        self.filters.clone()
    }

    async fn rows(&self, table: &Table) -> Result<SendableRecordBatchStream> {
        let session = SessionContext::new();
        let root = table.ports().keys.root();
        session.register_object_store(root, table.ports().storage.resolve(root)?.0);
        session.register_table("t", table.addressed().await?)?;
        if let Some(source) = &self.source {
            session.register_batch("s", source.clone())?;
        }
        let query = match table.keeps_lineage() {
            true => self.query.replacen("t._pos,", "t._pos, t._row_id,", 1),
            false => self.query.clone(),
        };
        let rows = session.sql(&query).await?.execute_stream().await?;
        if let (0, Some((table, meanwhile))) = (self.asked.fetch_add(1, Ordering::SeqCst), &self.meanwhile) {
            match meanwhile {
                Meanwhile::Append(batch) => append(table, batch.clone()).await,
                Meanwhile::Delete(predicate) => change(table, Self::delete(predicate)).await,
            };
        }
        Ok(rows)
    }
}

async fn change(table: &Table, change: TestChange) -> Committed {
    table.change_rows(&change, None).await.unwrap()
}

/// The table with properties that steer its row-level changes.
pub(super) async fn with_properties(table: &Table, properties: &[(&str, &str)]) -> Table {
    let table = table.reload().await.unwrap();
    let properties = properties.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
    let builder = table.metadata().as_ref().clone().into_builder(Some(table.metadata_location().to_owned()));
    let built = builder.set_properties(properties).unwrap().build().unwrap();
    let (metadata, location) = (Arc::new(built.metadata), table.next_location());
    table.io().put_metadata(&location, &metadata).await.unwrap();
    table.swap(&metadata, location).await.unwrap()
}

async fn files(table: &Table) -> Vec<String> {
    let table = table.reload().await.unwrap();
    let Some(snapshot) = table.metadata().current_snapshot() else { return Vec::new() };
    let live = snapshot::live_files(table.io(), table.metadata(), snapshot).await.unwrap();
    let mut paths: Vec<_> = live.iter().map(|file| file.data().file_path().to_owned()).collect();
    paths.sort();
    paths
}

async fn live_deletes(table: &Table) -> Vec<snapshot::LiveFile> {
    let snapshot = table.metadata().current_snapshot().unwrap();
    live::live_deletes(table.io(), table.metadata(), snapshot).await.unwrap()
}

async fn three_days() -> Table {
    let table = table(&ports(), &["day(at)"]).await;
    append(&table, rows(&[(1, Some("a"), 0), (2, Some("b"), 0), (3, Some("c"), 1), (4, None, 2)])).await;
    table
}

#[tokio::test]
async fn a_delete_rewrites_the_files_that_held_the_rows_and_no_others() {
    let table = three_days().await;
    let before = files(&table).await;
    let done = change(&table, TestChange::delete("id = 2 OR id = 4")).await;
    assert_eq!((done.rows_added, done.rows_updated, done.rows_deleted), (0, 0, 2));
    assert_eq!((done.files_added, done.files_removed), (1, 2), "the file that lost every row is not written anew");
    assert_eq!(ids(&table, Read::Current).await, ["1", "3"]);
    assert_eq!(files(&table).await.iter().filter(|file| before.contains(file)).count(), 1);
    let newest = &table.reload().await.unwrap().history()[0];
    assert_eq!(newest.operation, "overwrite");
    for (key, value) in [("deleted-records", "3"), ("added-records", "1"), ("total-records", "2")] {
        assert_eq!(newest.summary[key], value, "{key}");
    }
    let done = change(&table, TestChange::delete("id = 3")).await;
    assert_eq!((done.files_added, done.files_removed), (0, 1));
    assert_eq!(table.reload().await.unwrap().history()[0].operation, "delete");
}

#[tokio::test]
async fn a_change_of_no_row_commits_nothing_unless_it_has_a_token() {
    let table = three_days().await;
    let before = table.reload().await.unwrap().current_snapshot();
    let done = change(&table, TestChange::delete("id = 77")).await;
    assert_eq!((done.attempts, Some(done.snapshot_id)), (0, before));
    let nothing = TestChange::delete("id = 77");
    let done = table.change_rows(&nothing, Some(token(None, "1"))).await.unwrap();
    assert_eq!(done.attempts, 1);
    let replay = table.change_rows(&TestChange::delete("id = 1"), Some(token(None, "1"))).await.unwrap_err();
    assert_eq!(replay.kind(), ErrorKind::Conflict);
    assert_eq!(ids(&table, Read::Current).await, ["1", "2", "3", "4"]);
}

#[tokio::test]
async fn an_update_gives_new_values_and_moves_rows_between_partitions() {
    let table = table(&ports(), &["carrier"]).await;
    append(&table, rows(&[(1, Some("a"), 0), (2, Some("b"), 0), (3, Some("a"), 1)])).await;
    let done = change(&table, TestChange::update("b", "id = 3")).await;
    assert_eq!((done.rows_added, done.rows_updated, done.rows_deleted), (0, 1, 0));
    assert_eq!(
        sql(&table, Read::Current, "SELECT id, carrier, at FROM t ORDER BY id").await,
        ["1 a 1970-01-01T01:00:00", "2 b 1970-01-01T01:00:00", "3 b 1970-01-02T01:00:00"]
    );
    assert!(files(&table).await.iter().filter(|file| file.contains("carrier=b")).count() == 2);
}

#[tokio::test]
async fn a_merge_updates_deletes_and_inserts_at_once() {
    let table = three_days().await;
    let done = change(&table, TestChange::merge(rows(&[(1, Some("A"), 0), (3, None, 0), (9, Some("i"), 9)]))).await;
    assert_eq!((done.rows_added, done.rows_updated, done.rows_deleted), (1, 1, 1));
    assert_eq!(sql(&table, Read::Current, "SELECT id, carrier FROM t ORDER BY id").await, ["1 A", "2 b", "4 ", "9 i"]);
}

#[tokio::test]
async fn a_row_matched_twice_is_refused_and_leaves_no_file() {
    let table = three_days().await;
    let before = table.ports().storage.list(&table.ports().keys.table(&name())).await.unwrap();
    let twice = TestChange::merge(rows(&[(1, Some("A"), 0), (1, Some("B"), 0)]));
    let error = table.change_rows(&twice, None).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    assert!(error.to_string().contains("more than one row of the source"), "{error}");
    assert_eq!(table.ports().storage.list(&table.ports().keys.table(&name())).await.unwrap(), before);
}

#[tokio::test]
async fn work_serves_again_when_what_came_does_not_concern_it() {
    for (isolation, came, asked) in [
        ("serializable", (8, Some("x"), 0), 1),
        ("serializable", (2, Some("x"), 0), 2),
        ("snapshot", (2, Some("x"), 0), 1),
    ] {
        let table = three_days().await;
        let table = with_properties(&table, &[("write.delete.isolation-level", isolation)]).await;
        let delete = TestChange::delete("id = 2").filtered(col("id").eq(lit(2_i64)));
        let delete = delete.while_another_appends(&table, rows(&[came]));
        let done = table.change_rows(&delete, None).await.unwrap();
        assert_eq!((delete.asked(), done.attempts as usize), (asked, asked), "{isolation}");
        let left: &[&str] = match (isolation, came.0) {
            (_, 8) => &["1", "3", "4", "8"],
            ("snapshot", _) => &["1", "2", "3", "4"],
            _ => &["1", "3", "4"],
        };
        assert_eq!(ids(&table, Read::Current).await, left, "{isolation}");
        assert_eq!(done.rows_deleted, if asked == 2 { 2 } else { 1 });
    }
}

#[tokio::test]
async fn files_of_a_try_that_did_not_hold_are_removed() {
    let table = three_days().await;
    let update = TestChange::update("new", "id <= 2").while_another_appends(&table, rows(&[(0, Some("x"), 0)]));
    table.change_rows(&update, None).await.unwrap();
    assert_eq!(update.asked(), 2);
    assert_eq!(sql(&table, Read::Current, "SELECT count(*) FROM t WHERE carrier = 'new'").await, ["3"]);
    let left = table.ports().storage.list(&table.ports().keys.table(&name())).await.unwrap();
    let data: Vec<_> = left.iter().filter(|o| o.url.path().ends_with(".parquet")).collect();
    let live = files(&table).await;
    // Three files of the first append, the one of the other writer, and what the update wrote.
    assert_eq!(data.len(), 4 + live.len() - 2, "{data:?} {live:?}");
}

#[tokio::test]
async fn a_property_with_another_value_is_named() {
    let table = three_days().await;
    for key in ["write.delete.mode", "write.delete.isolation-level"] {
        let table = with_properties(&table, &[(key, "sometimes")]).await;
        let error = table.change_rows(&TestChange::delete("id = 1"), None).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid);
        assert!(error.to_string().contains(key) && error.to_string().contains("sometimes"), "{error}");
        with_properties(&table, &[(key, if key.ends_with("mode") { "copy-on-write" } else { "snapshot" })]).await;
    }
}

#[tokio::test]
async fn merge_on_read_names_the_rows_in_sorted_delete_files_of_their_partition() {
    use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
    let table = table(&ports(), &["carrier"]).await;
    append(&table, rows(&[(1, Some("a"), 0), (2, Some("b"), 0), (3, Some("a"), 1), (4, Some("a"), 1)])).await;
    append(&table, rows(&[(5, Some("a"), 0), (6, Some("a"), 0)])).await;
    let before = files(&table).await;
    let table = with_properties(&table, &[("write.delete.mode", "merge-on-read")]).await;
    let done = change(&table, TestChange::delete("id IN (2, 6, 4, 1)")).await;
    assert_eq!((done.rows_deleted, done.files_added, done.files_removed, done.delete_files_added), (4, 0, 0, 2));
    let now = table.reload().await.unwrap();
    let newest = &now.history()[0];
    assert_eq!(newest.operation, "delete");
    for (key, value) in [
        ("added-delete-files", "2"),
        ("added-position-delete-files", "2"),
        ("added-position-deletes", "4"),
        ("total-delete-files", "2"),
        ("total-position-deletes", "4"),
        ("total-records", "6"),
        ("total-data-files", "3"),
        ("changed-partition-count", "2"),
    ] {
        assert_eq!(newest.summary[key], value, "{key}");
    }
    let deletes = live_deletes(&now).await;
    assert_eq!(deletes.len(), 2);
    for delete in &deletes {
        let bytes =
            now.ports().storage.get(&shared::storage::url_of(delete.data().file_path()).unwrap()).await.unwrap();
        let reader = ParquetRecordBatchReaderBuilder::try_new(bytes).unwrap();
        assert_eq!(reader.parquet_schema().column(0).self_type().get_basic_info().id(), 2_147_483_546);
        assert_eq!(reader.parquet_schema().column(1).self_type().get_basic_info().id(), 2_147_483_545);
        let batches: Vec<_> = reader.build().unwrap().map(|batch| batch.unwrap()).collect();
        let text = pretty_format_batches(&batches).unwrap().to_string();
        let lines: Vec<_> = text.lines().filter(|line| line.contains("parquet")).collect();
        assert!(lines.is_sorted(), "{text}");
        assert_eq!(lines.len() as u64, delete.data().record_count());
        match delete.data().record_count() {
            1 => assert!(before.contains(&delete.data().referenced_data_file().unwrap())),
            3 => assert_eq!(delete.data().referenced_data_file(), None),
            other => panic!("{other} rows in a delete file: {text}"),
        }
    }
}

#[tokio::test]
async fn merge_on_read_of_a_v3_table_writes_vectors_that_others_can_find() {
    use iceberg::io::FileIO;
    use iceberg::puffin::{DELETION_VECTOR_V1, PuffinReader};
    let table = version::upgraded(&three_days().await).await;
    let table = with_properties(&table, &[("write.delete.mode", "merge-on-read")]).await;
    let done = change(&table, TestChange::delete("id IN (1, 3)")).await;
    assert_eq!((done.rows_deleted, done.files_added, done.files_removed, done.delete_files_added), (2, 0, 0, 2));
    let now = table.reload().await.unwrap();
    let newest = &now.history()[0];
    for (key, value) in [("added-dvs", "2"), ("added-delete-files", "2"), ("total-position-deletes", "2")] {
        assert_eq!(newest.summary[key], value, "{key}");
    }
    let vectors = live_deletes(&now).await;
    assert_eq!(vectors.len(), 2);
    let path = vectors[0].data().file_path().to_owned();
    let memory = FileIO::new_with_memory();
    let bytes = now.ports().storage.get(&shared::storage::url_of(&path).unwrap()).await.unwrap();
    memory.new_output(&path).unwrap().write(bytes.clone()).await.unwrap();
    let reader = PuffinReader::new(memory.new_input(&path).unwrap());
    let blobs = reader.file_metadata().await.unwrap().blobs();
    for vector in &vectors {
        let file = vector.data();
        assert_eq!((file.file_path(), file.file_size_in_bytes()), (path.as_str(), bytes.len() as u64));
        let (offset, length) = (file.content_offset().unwrap(), file.content_size_in_bytes().unwrap());
        let blob = blobs.iter().find(|blob| blob.offset() == offset.unsigned_abs()).unwrap();
        assert_eq!((blob.blob_type(), blob.length()), (DELETION_VECTOR_V1, length.unsigned_abs()));
        assert_eq!(blob.properties().get("referenced-data-file"), file.referenced_data_file().as_ref());
        assert_eq!(blob.properties()["cardinality"], "1");
    }
    assert_eq!(ids(&table, Read::Current).await, ["2", "4"]);
    // A data file has one vector at most: the new one holds what the old one did.
    let done = change(&table, TestChange::delete("id = 2")).await;
    assert_eq!((done.rows_deleted, done.delete_files_added), (1, 1));
    let vectors = live_deletes(&table.reload().await.unwrap()).await;
    let mut rows: Vec<_> = vectors.iter().map(|vector| vector.data().record_count()).collect();
    rows.sort_unstable();
    assert_eq!(rows, [1, 2]);
    assert_eq!(ids(&table, Read::Current).await, ["4"]);
    let summary = &table.reload().await.unwrap().history()[0].summary;
    for (key, value) in [("removed-dvs", "1"), ("total-delete-files", "2"), ("total-position-deletes", "3")] {
        assert_eq!(summary[key], value, "{key}");
    }
}

#[tokio::test]
async fn deletes_of_a_file_leave_with_it() {
    for v3 in [false, true] {
        let table = three_days().await;
        let table = if v3 { version::upgraded(&table).await } else { table };
        let table = with_properties(&table, &[("write.delete.mode", "merge-on-read")]).await;
        change(&table, TestChange::delete("id IN (1, 3)")).await;
        assert_eq!(live_deletes(&table.reload().await.unwrap()).await.len(), 2);
        // Updates copy: the file of the first day goes, and what deleted from it alone.
        change(&table, TestChange::update("new", "id = 2")).await;
        assert_eq!(sql(&table, Read::Current, "SELECT id, carrier FROM t ORDER BY id").await, ["2 new", "4 "]);
        assert_eq!(live_deletes(&table.reload().await.unwrap()).await.len(), 1, "{v3}");
        table.commit(Change::Overwrite, stream(rows(&[(7, None, 0)])), None).await.unwrap();
        let now = table.reload().await.unwrap();
        assert_eq!(live_deletes(&now).await.len(), 0);
        assert_eq!(now.history()[0].summary["total-delete-files"], "0");
        assert_eq!(now.history()[0].summary["total-position-deletes"], "0");
        assert_eq!(ids(&table, Read::Current).await, ["7"]);
    }
}

#[tokio::test]
async fn rows_that_another_writer_deleted_meanwhile_do_not_come_back() {
    let table = with_properties(&three_days().await, &[("write.delete.mode", "merge-on-read")]).await;
    let update = TestChange::update("new", "id = 1").filtered(col("id").eq(lit(1_i64)));
    let update = TestChange { meanwhile: Some((table.clone(), Meanwhile::Delete("id = 2"))), ..update };
    table.change_rows(&update, None).await.unwrap();
    assert_eq!(update.asked(), 2, "the file that it rewrote has got deletes");
    assert_eq!(sql(&table, Read::Current, "SELECT id, carrier FROM t ORDER BY id").await, ["1 new", "3 c", "4 "]);
}

#[tokio::test]
async fn rows_deleted_while_a_merge_by_key_is_written_do_not_come_back() {
    use futures::StreamExt;
    let table = with_properties(&three_days().await, &[("write.delete.mode", "merge-on-read")]).await;
    let new = rows(&[(1, Some("new"), 0)]);
    let (schema, other) = (new.schema(), table.clone());
    let end = async move {
        change(&other, TestChange::delete("id = 2")).await;
        Ok(rows(&[]))
    };
    let batches = futures::stream::iter([Ok(new)]).chain(futures::stream::once(end));
    let slow = Box::pin(RecordBatchStreamAdapter::new(schema, batches));
    let done = table.commit(Change::Merge { key: vec!["id".into()] }, slow, None).await.unwrap();
    assert_eq!((done.attempts, done.rows_deleted), (2, 1));
    assert_eq!(sql(&table, Read::Current, "SELECT id, carrier FROM t ORDER BY id").await, ["1 new", "3 c", "4 "]);
}

/// A MERGE over the whole table that takes a while to work out.
struct Slow(TestChange);

#[async_trait]
impl RowChange for Slow {
    fn kind(&self) -> RowChangeKind {
        self.0.kind()
    }

    fn filters(&self) -> Vec<Expr> {
        self.0.filters()
    }

    async fn rows(&self, table: &Table) -> Result<SendableRecordBatchStream> {
        let rows = self.0.rows(table).await;
        tokio::time::sleep(std::time::Duration::from_millis(200)).await;
        rows
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_merge_of_the_whole_table_gets_its_turn_beside_a_stream_of_appends() {
    let table = three_days().await;
    let appends = tokio::spawn({
        let table = table.clone();
        async move {
            for id in 100.. {
                append(&table, rows(&[(id, Some("s"), 0)])).await;
            }
        }
    });
    while table.reload().await.unwrap().history().len() < 4 {
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    let merge = Slow(TestChange::merge(rows(&[(1, Some("A"), 0), (9, Some("i"), 9)])));
    let done = table.change_rows(&merge, None).await.unwrap();
    appends.abort();
    assert!(done.attempts <= 3, "appends came first {} times", done.attempts);
    assert_eq!(sql(&table, Read::Current, "SELECT carrier FROM t WHERE id IN (1, 9) ORDER BY id").await, ["A", "i"]);
}
