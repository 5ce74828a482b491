//! Any sequence of changes does to a table what it does to rows in memory.

use arrow::array::Int32Array;
use datafusion::logical_expr::lit;
use datafusion::prelude::col;
use proptest::prelude::*;

use super::rows::{TestChange, with_properties};
use super::*;

/// Id, carrier, day.
type Row = (i64, Option<&'static str>, i64);

#[derive(Debug, Clone)]
enum Step {
    Append(Vec<Row>),
    Overwrite(Vec<Row>),
    /// Rows from this id on.
    OverwriteWhere(i64, Vec<Row>),
    ReplacePartitions(Vec<Row>),
    MergeByKey(Vec<Row>),
    /// Rows with the second ids leave.
    MergeAndRemove(Vec<Row>, Vec<i64>),
    /// Rows whose id leaves this rest when divided by 3.
    Delete(i64),
    Update(i64),
    /// Rows without a carrier delete.
    Merge(Vec<Row>),
}

fn some_rows() -> impl Strategy<Value = Vec<Row>> {
    let carrier = prop_oneof![Just(None), Just(Some("AA")), Just(Some("UA"))];
    proptest::collection::btree_map(0_i64..9, (carrier, -2_i64..3), 0..6)
        .prop_map(|rows| rows.into_iter().map(|(id, (carrier, day))| (id, carrier, day)).collect())
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => some_rows().prop_map(Step::Append),
        1 => some_rows().prop_map(Step::Overwrite),
        2 => (0_i64..9, some_rows()).prop_map(|(from, rows)| Step::OverwriteWhere(from, rows)),
        1 => some_rows().prop_map(Step::ReplacePartitions),
        2 => some_rows().prop_map(Step::MergeByKey),
        2 => (some_rows(), proptest::collection::vec(0_i64..9, 1..4)).prop_map(|(new, gone)| Step::MergeAndRemove(new, gone)),
        2 => (0_i64..3).prop_map(Step::Delete),
        2 => (0_i64..3).prop_map(Step::Update),
        2 => some_rows().prop_map(Step::Merge),
    ]
}

/// What the step does to rows in memory. `by_day`: the table is partitioned by day, otherwise it is one partition.
fn in_memory(model: &mut Vec<Row>, step: &Step, by_day: bool) {
    let matched = |new: &[Row], id: i64| new.iter().find(|row| row.0 == id).copied();
    match step {
        Step::Append(new) => model.extend(new),
        Step::Overwrite(new) => *model = new.clone(),
        Step::OverwriteWhere(from, new) => {
            model.retain(|row| row.0 < *from);
            model.extend(new);
        }
        Step::ReplacePartitions(new) => {
            model.retain(|row| !new.iter().any(|new| !by_day || new.2 == row.2));
            model.extend(new);
        }
        Step::MergeByKey(new) => {
            model.retain(|row| matched(new, row.0).is_none());
            model.extend(new);
        }
        Step::MergeAndRemove(new, gone) => {
            model.retain(|row| matched(new, row.0).is_none() && !gone.contains(&row.0));
            model.extend(new);
        }
        Step::Delete(rest) => model.retain(|row| row.0 % 3 != *rest),
        Step::Update(rest) => model.iter_mut().filter(|row| row.0 % 3 == *rest).for_each(|row| row.1 = Some("new")),
        Step::Merge(new) => {
            let unmatched: Vec<_> = new.iter().filter(|new| !model.iter().any(|row| row.0 == new.0)).copied().collect();
            let kept = model.iter().filter_map(|row| match matched(new, row.0) {
                None => Some(*row),
                Some(new) => new.1.is_some().then_some(new),
            });
            *model = kept.collect();
            model.extend(unmatched.into_iter().filter(|row| row.1.is_some()));
        }
    }
}

async fn in_table(table: &Table, step: &Step) {
    let commit = async |change, new: &[Row]| table.commit(change, stream(rows(new)), None).await.unwrap();
    match step {
        Step::Append(new) => commit(Change::Append, new).await,
        Step::Overwrite(new) => commit(Change::Overwrite, new).await,
        Step::OverwriteWhere(from, new) => commit(Change::OverwriteWhere(vec![col("id").gt_eq(lit(*from))]), new).await,
        Step::ReplacePartitions(new) => commit(Change::ReplacePartitions, new).await,
        Step::MergeByKey(new) => commit(Change::Merge { key: vec!["id".into()] }, new).await,
        Step::MergeAndRemove(new, gone) => {
            // Narrower than the table's column.
            let gone: Int32Array = gone.iter().map(|id| i32::try_from(*id).unwrap()).collect();
            let gone = vec![RecordBatch::try_from_iter([("id", Arc::new(gone) as ArrayRef)]).unwrap()];
            commit(Change::MergeAndRemove { key: vec!["id".into()], gone }, new).await
        }
        Step::Delete(rest) => table.change_rows(&TestChange::delete(&format!("id % 3 = {rest}")), None).await.unwrap(),
        Step::Update(rest) => {
            table.change_rows(&TestChange::update("new", &format!("id % 3 = {rest}")), None).await.unwrap()
        }
        Step::Merge(new) => table.change_rows(&TestChange::merge(rows(new)), None).await.unwrap(),
    };
}

async fn behaves_like_rows_in_memory(partition_by: &[&str], mode: &str, steps: &[Step]) {
    let table = table(&ports(), partition_by).await;
    let properties = ["delete", "update", "merge"].map(|kind| (format!("write.{kind}.mode"), mode));
    let mut properties: Vec<_> = properties.iter().map(|(key, mode)| (key.as_str(), *mode)).collect();
    properties.push(("commit.manifest.min-count-to-merge", "3"));
    let table = with_properties(&table, &properties).await;
    let mut model: Vec<Row> = Vec::new();
    let mut versions: Vec<(i64, Vec<String>)> = Vec::new();
    for (i, step) in steps.iter().enumerate() {
        in_memory(&mut model, step, !partition_by.is_empty());
        in_table(&table, step).await;
        let mut expected: Vec<_> =
            model.iter().map(|(id, carrier, day)| format!("{id} {} {day}", carrier.unwrap_or_default())).collect();
        expected.sort();
        assert_eq!(read(&table, Read::Current).await, expected, "step {i}: {step:?}");
        let now = table.reload().await.unwrap();
        versions.extend(now.current_snapshot().map(|id| (id, expected)));
        if let (Some(newest), "copy-on-write") = (now.history().first(), mode) {
            assert_eq!(newest.summary["total-records"], model.len().to_string(), "step {i}: {step:?}");
        }
    }
    tells_differences(&table, &versions).await;
}

async fn read(table: &Table, read: Read) -> Vec<String> {
    let days = "CAST(floor(CAST(arrow_cast(at, 'Int64') AS DOUBLE) / 86400000000) AS BIGINT)";
    let query = format!("SELECT id, coalesce(carrier, '') AS carrier, {days} AS day FROM t");
    let mut found = sql(table, read, &query).await;
    found.sort();
    found
}

/// Between the last version and each other, in both directions, the rows that came and left are those that only one of the two has.
async fn tells_differences(table: &Table, versions: &[(i64, Vec<String>)]) {
    let Some((last, at_last)) = versions.last() else { return };
    let only = |of: &[String], other: &[String]| {
        let mut other = other.to_vec();
        let is_other = |row: &&String| other.iter().position(|o| o == *row).map(|at| other.swap_remove(at)).is_none();
        of.iter().filter(is_other).cloned().collect::<Vec<_>>()
    };
    for (id, at_id) in versions {
        let difference = |after: i64, to: i64| [Read::Came { after, to }, Read::Left { after, to }];
        for (difference, before, now) in
            [(difference(*id, *last), at_id, at_last), (difference(*last, *id), at_last, at_id)]
        {
            let [came, left] = difference;
            assert_eq!(read(table, came).await, only(now, before));
            assert_eq!(read(table, left).await, only(before, now));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 10, ..ProptestConfig::default() })]

    #[test]
    fn changes_do_to_a_table_what_they_do_to_rows_in_memory(steps in proptest::collection::vec(step(), 1..9)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            behaves_like_rows_in_memory(&[], "copy-on-write", &steps).await;
            behaves_like_rows_in_memory(&["day(at)"], "copy-on-write", &steps).await;
            behaves_like_rows_in_memory(&["day(at)"], "merge-on-read", &steps).await;
        });
    }
}
