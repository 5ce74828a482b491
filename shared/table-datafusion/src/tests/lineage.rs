//! Rows of v3 tables keep their ids through whatever happens to them and their files.

use std::collections::{BTreeMap, BTreeSet};

use arrow::array::{Array, AsArray};
use arrow::datatypes::Int64Type;
use datafusion::logical_expr::lit;
use datafusion::prelude::col;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use proptest::prelude::*;

use super::foreign::{commit, data_files, equality_deletes, position_deletes};
use super::rows::TestChange;
use super::*;
use shared::model::Transform;

/// The id of a row and the sequence number of its last change.
type Lineage = (Option<i64>, Option<i64>);

async fn lineage(table: &Table) -> BTreeMap<i64, Lineage> {
    let table = table.reload().await.unwrap();
    let session = session(&table, Read::Current).await;
    session.register_table("a", table.addressed().await.unwrap()).unwrap();
    let query = "SELECT id, _row_id, _last_updated_sequence_number FROM a";
    let batches = session.sql(query).await.unwrap().collect().await.unwrap();
    let mut found = BTreeMap::new();
    for batch in &batches {
        let columns: Vec<_> = batch.columns().iter().map(|column| column.as_primitive::<Int64Type>()).collect();
        for row in 0..batch.num_rows() {
            let [id, row_id, updated] = [0, 1, 2].map(|c| (columns[c].is_valid(row)).then(|| columns[c].value(row)));
            assert_eq!(found.insert(id.unwrap(), (row_id, updated)), None, "{id:?} is there twice");
        }
    }
    found
}

#[derive(Debug, Clone)]
enum Step {
    /// Rows with ids of their own.
    Append(usize),
    /// Rows whose id leaves this rest when divided by 3.
    Update(i64),
    Delete(i64),
    /// Rows with these ids; those that are even delete.
    Merge(BTreeSet<i64>),
    MergeByKey(BTreeSet<i64>),
    /// Rows from this id on make place for one new row.
    OverwriteWhere(i64),
    Rewrite(Arrangement),
    /// How rows leave.
    MergeOnRead(bool),
}

fn step() -> impl Strategy<Value = Step> {
    let some_ids = || proptest::collection::btree_set(0_i64..12, 1..5);
    let sorted = SortField { column: "at".into(), transform: Transform::Day, descending: true, nulls_first: true };
    let arrangement = prop_oneof![
        Just(Arrangement::BinPack),
        Just(Arrangement::Sort(vec![sorted])),
        Just(Arrangement::ZOrder(vec!["at".into(), "id".into()])),
    ];
    prop_oneof![
        3 => (1_usize..5).prop_map(Step::Append),
        2 => (0_i64..3).prop_map(Step::Update),
        1 => (0_i64..3).prop_map(Step::Delete),
        2 => some_ids().prop_map(Step::Merge),
        1 => some_ids().prop_map(Step::MergeByKey),
        1 => (6_i64..20).prop_map(Step::OverwriteWhere),
        4 => arrangement.prop_map(Step::Rewrite),
        1 => any::<bool>().prop_map(Step::MergeOnRead),
    ]
}

/// What becomes of a row's lineage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Stays,
    Updated,
    New,
}

/// The rows after a step.
fn fates(before: &BTreeMap<i64, Lineage>, step: &Step, next: i64) -> BTreeMap<i64, Fate> {
    let mut fates: BTreeMap<i64, Fate> = before.keys().map(|id| (*id, Fate::Stays)).collect();
    match step {
        Step::Append(count) => fates.extend((next..).take(*count).map(|id| (id, Fate::New))),
        Step::Update(rest) => {
            fates.iter_mut().filter(|(id, _)| *id % 3 == *rest).for_each(|(_, fate)| *fate = Fate::Updated);
        }
        Step::Delete(rest) => fates.retain(|id, _| id % 3 != *rest),
        Step::Merge(ids) => {
            for id in ids {
                match (fates.get_mut(id), id % 2 == 0) {
                    (Some(_), true) => drop(fates.remove(id)),
                    (Some(fate), false) => *fate = Fate::Updated,
                    (None, true) => {}
                    (None, false) => drop(fates.insert(*id, Fate::New)),
                }
            }
        }
        // It does not look which rows are the same.
        Step::MergeByKey(ids) => fates.extend(ids.iter().map(|id| (*id, Fate::New))),
        Step::OverwriteWhere(from) => {
            fates.retain(|id, _| id < from);
            fates.insert(next, Fate::New);
        }
        Step::Rewrite(_) | Step::MergeOnRead(_) => {}
    }
    fates
}

async fn take(table: &Table, step: &Step, next: i64) {
    let of_ids = |ids: &BTreeSet<i64>, deletes: bool| {
        let carrier = |id: i64| if deletes && id % 2 == 0 { None } else { Some("merged") };
        rows(&ids.iter().map(|id| (*id, carrier(*id), id % 2)).collect::<Vec<_>>())
    };
    match step {
        Step::Append(count) => {
            append(table, rows(&(next..).take(*count).map(|id| (id, Some("a"), id % 2)).collect::<Vec<_>>())).await;
        }
        Step::Update(rest) => {
            table.change_rows(&TestChange::update("new", &format!("id % 3 = {rest}")), None).await.unwrap();
        }
        Step::Delete(rest) => {
            table.change_rows(&TestChange::delete(&format!("id % 3 = {rest}")), None).await.unwrap();
        }
        Step::Merge(ids) => {
            // Rows that are not there and have no carrier are no rows to insert.
            let there = lineage(table).await;
            let ids = ids.iter().filter(|id| *id % 2 == 1 || there.contains_key(id)).copied().collect();
            table.change_rows(&TestChange::merge(of_ids(&ids, true)), None).await.unwrap();
        }
        Step::MergeByKey(ids) => {
            table.commit(Change::Merge { key: vec!["id".into()] }, stream(of_ids(ids, false)), None).await.unwrap();
        }
        Step::OverwriteWhere(from) => {
            let change = Change::OverwriteWhere(vec![col("id").gt_eq(lit(*from))]);
            table.commit(change, stream(rows(&[(next, None, 0)])), None).await.unwrap();
        }
        Step::Rewrite(arrangement) => {
            let rewrite = Rewrite { arrangement: arrangement.clone(), min_input_files: Some(2), ..Rewrite::default() };
            table.rewrite(&rewrite).await.unwrap();
        }
        Step::MergeOnRead(on_read) => {
            let mode = if *on_read { "merge-on-read" } else { "copy-on-write" };
            let modes = ["delete", "update", "merge"].map(|kind| (format!("write.{kind}.mode"), mode.to_owned()));
            table.reload().await.unwrap().alter(&[Alter::SetProperties(modes.into())]).await.unwrap();
        }
    }
}

async fn to_v3(table: &Table) -> Table {
    let v3 = Alter::SetProperties([("format-version".into(), "3".into())].into());
    table.reload().await.unwrap().alter(&[v3]).await.unwrap()
}

/// Takes the steps and looks at every row's lineage after each. `older`: rows that are older than the table's lineage.
async fn ids_survive(partition_by: &[&str], older: usize, steps: &[Step]) {
    let table = table(&ports(), partition_by).await;
    let mut next = 100;
    append(&table, rows(&(0..older as i64).map(|id| (id, Some("old"), id % 2)).collect::<Vec<_>>())).await;
    let table = to_v3(&table).await;
    let mut before = lineage(&table).await;
    assert!(before.values().all(|found| *found == (None, Some(1))), "{before:?}");
    for (i, step) in steps.iter().enumerate() {
        let base = table.reload().await.unwrap();
        let fates = fates(&before, step, next);
        take(&table, step, next).await;
        next += 10;
        let now = table.reload().await.unwrap();
        let after = lineage(&now).await;
        let at = format!("step {i}: {step:?} {before:?} {after:?}");
        assert_eq!(after.keys().collect::<Vec<_>>(), fates.keys().collect::<Vec<_>>(), "{at}");
        let (fresh, committed) = (base.metadata().next_row_id() as i64, now.metadata().last_sequence_number());
        let same_snapshot = base.current_snapshot() == now.current_snapshot();
        let mut seen = BTreeSet::new();
        for (id, fate) in fates {
            let (row_id, updated) = after[&id];
            let (old_id, old_updated) = before.get(&id).copied().unwrap_or_default();
            // Rows that had no id get one with the first commit.
            match (fate, old_id) {
                (Fate::Stays | Fate::Updated, Some(old)) => assert_eq!(row_id, Some(old), "{id}, {at}"),
                (Fate::Stays, None) if same_snapshot => assert_eq!(row_id, None, "{id}, {at}"),
                _ => assert!(row_id.is_some_and(|row_id| row_id >= fresh), "{id} got an id that was given out, {at}"),
            }
            let expected = if fate == Fate::Stays { old_updated } else { Some(committed) };
            assert_eq!(updated, expected, "{id}, {at}");
            assert!(
                row_id.is_none_or(|row_id| row_id < now.metadata().next_row_id() as i64 && seen.insert(row_id)),
                "{at}"
            );
        }
        before = after;
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, ..ProptestConfig::default() })]

    #[test]
    fn ids_survive_any_sequence_of_changes_and_rewrites(steps in proptest::collection::vec(step(), 1..12)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            ids_survive(&[], 0, &steps).await;
            ids_survive(&["day(at)"], 5, &steps).await;
        });
    }
}

#[tokio::test]
async fn ids_survive_each_kind_of_change_and_rewrite_in_turn() {
    let sort = Arrangement::Sort(vec![SortField {
        column: "id".into(),
        transform: Transform::Identity,
        descending: true,
        nulls_first: true,
    }]);
    let z_order = Arrangement::ZOrder(vec!["id".into(), "at".into()]);
    for on_read in [false, true] {
        let steps = [
            Step::MergeOnRead(on_read),
            Step::Append(4),
            Step::Update(1),
            Step::Rewrite(Arrangement::BinPack),
            Step::Append(3),
            Step::Merge([1, 2, 3, 4, 7, 101].into()),
            Step::Delete(2),
            Step::Rewrite(sort.clone()),
            Step::Update(0),
            Step::OverwriteWhere(130),
            Step::MergeByKey([0, 9].into()),
            Step::Rewrite(z_order.clone()),
            Step::Update(1),
        ];
        ids_survive(&["day(at)"], 6, &steps).await;
        ids_survive(&[], 6, &steps).await;
    }
}

#[tokio::test]
async fn files_hold_the_lineage_of_rows_that_were_there_before_under_the_reserved_ids() {
    let table = to_v3(&table(&ports(), &[]).await).await;
    append(&table, rows(&[(1, None, 0), (2, None, 0), (3, None, 0)])).await;
    let columns = async |table: &Table| {
        let file = data_files(&table.reload().await.unwrap()).await.swap_remove(0);
        let bytes =
            table.ports().storage.get(&shared::storage::url_of(file.data().file_path()).unwrap()).await.unwrap();
        let reader = ParquetRecordBatchReaderBuilder::try_new(bytes).unwrap();
        let columns = reader.parquet_schema().root_schema().get_fields().to_vec();
        let ids = columns.iter().map(|c| (c.name().to_owned(), c.get_basic_info().id())).collect::<Vec<_>>();
        (ids, reader.build().unwrap().map(|batch| batch.unwrap()).collect::<Vec<_>>(), file)
    };
    assert_eq!(columns(&table).await.0.len(), 3, "rows that come inherit all of it");
    table.change_rows(&TestChange::update("new", "id = 2"), None).await.unwrap();
    let (ids, batches, file) = columns(&table).await;
    let reserved = [("_row_id".to_owned(), 2_147_483_540), ("_last_updated_sequence_number".to_owned(), 2_147_483_539)];
    assert_eq!(ids[3..], reserved);
    let text = pretty_format_batches(&batches).unwrap().to_string();
    let shown: BTreeSet<String> = text.lines().filter(|l| l.contains("1970")).map(|l| l.replace(' ', "")).collect();
    let at = "1970-01-01T01:00:00";
    let expected = [format!("|1||{at}|0|1|"), format!("|2|new|{at}|1||"), format!("|3||{at}|2|1|")];
    assert_eq!(shown, BTreeSet::from(expected));
    assert!(file.data().value_counts().keys().all(|id| *id < 10), "manifests tell of the table's columns");
}

#[tokio::test]
async fn rows_beside_deleted_ones_have_their_own_ids() {
    let table = to_v3(&table(&ports(), &[]).await).await;
    append(&table, rows(&[(1, None, 0), (2, None, 0), (3, None, 0), (4, None, 0)])).await;
    let table = table.reload().await.unwrap();
    let file = data_files(&table).await.swap_remove(0);
    let (by_place, by_place_bytes) =
        position_deletes(&table, "d.parquet", file.data(), &[(file.data().file_path(), 0)]);
    let values: ArrayRef = Arc::new(Int64Array::from(vec![3]));
    let (by_value, by_value_bytes) = equality_deletes(&table, "e.parquet", file.data(), vec![("id", 1, values)]);
    let table = commit(&table, vec![(by_place, by_place_bytes, None), (by_value, by_value_bytes, None)]).await;
    let expected = BTreeMap::from([(2, (Some(1), Some(1))), (4, (Some(3), Some(1)))]);
    assert_eq!(lineage(&table).await, expected);
    table.rewrite(&Rewrite::default()).await.unwrap();
    assert_eq!(lineage(&table).await, expected);
}

#[tokio::test]
async fn rows_that_get_their_ids_meanwhile_keep_them() {
    let table = table(&ports(), &[]).await;
    append(&table, rows(&[(1, None, 0), (2, None, 0)])).await;
    let table = to_v3(&table).await;
    // The other's commit, which comes first, gives the old rows their ids.
    let update = TestChange::update("new", "id = 1").filtered(col("id").eq(lit(1_i64)));
    let update = update.while_another_appends(&table, rows(&[(7, None, 0)]));
    table.change_rows(&update, None).await.unwrap();
    assert_eq!(update.asked(), 2);
    let ids: BTreeMap<_, _> = lineage(&table).await.into_iter().map(|(id, (row_id, _))| (id, row_id)).collect();
    assert_eq!(ids, BTreeMap::from([(1, Some(1)), (2, Some(2)), (7, Some(0))]));
}

#[tokio::test]
async fn a_column_under_a_name_of_the_lineage_is_refused_and_so_are_rows_without_ids() {
    let columns = [Column::new("_row_id", ColumnType::BigInt)];
    let named = Tables::new(ports()).ensure(&name(), &columns, &[]).await.unwrap();
    named.addressed().await.unwrap();
    let error = to_v3(&named).await.addressed().await.unwrap_err();
    assert!(error.to_string().contains("found `_row_id`"), "{error}");

    let table = to_v3(&table(&ports(), &[]).await).await;
    append(&table, rows(&[(1, None, 0)])).await;
    let file = data_files(&table.reload().await.unwrap()).await.swap_remove(0);
    let error = table.change_rows(&Idless(file.data().file_path().to_owned()), None).await.unwrap_err();
    assert_eq!(error.kind(), shared::ErrorKind::Bug);
    assert!(error.to_string().contains("expected the column `_row_id`"), "{error}");
}

/// An update of the first row of a file that forgets the row's id.
struct Idless(String);

#[async_trait::async_trait]
impl RowChange for Idless {
    fn kind(&self) -> RowChangeKind {
        RowChangeKind::Update
    }

    fn filters(&self) -> Vec<Expr> {
        Vec::new()
    }

    async fn rows(&self, _: &Table) -> Result<SendableRecordBatchStream> {
        let columns: [(&str, ArrayRef); 4] = [
            ("_file", Arc::new(StringArray::from(vec![self.0.as_str()]))),
            ("_pos", Arc::new(Int64Array::from(vec![0]))),
            ("_insert", Arc::new(arrow::array::BooleanArray::from(vec![true]))),
            ("id", Arc::new(Int64Array::from(vec![1]))),
        ];
        Ok(stream(RecordBatch::try_from_iter(columns)?))
    }
}
