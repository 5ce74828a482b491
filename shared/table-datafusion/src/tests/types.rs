//! Times of day, uuids and nanoseconds: what is written is read, found by its bounds, and survives changes.

use arrow::array::{Array, AsArray, FixedSizeBinaryArray, Time64MicrosecondArray, TimestampNanosecondArray};
use datafusion::logical_expr::lit;
use datafusion::prelude::col;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::basic::LogicalType;
use proptest::prelude::*;

use super::foreign::data_files;
use super::rows::TestChange;
use super::*;
use shared::ErrorKind;
use shared::model::Transform;
use table::Alter;

const LAST_MICRO: i64 = 86_400_000_000 - 1;

/// Id, time of day, uuid, nanoseconds.
type Row = (i64, Option<i64>, Option<u128>, Option<i64>);

fn column(name: &str, ty: &str) -> Column {
    Column::new(name, ty.parse().unwrap())
}

fn kinds() -> Vec<Column> {
    vec![
        column("id", "bigint"),
        column("t", "time"),
        column("u", "uuid"),
        column("n", "timestamp_ns"),
        column("z", "timestamptz_ns"),
        column("inner", "struct<u:uuid,t:array<time>>"),
    ]
}

fn batch(rows: &[Row]) -> RecordBatch {
    let uuids = rows.iter().map(|row| row.2.map(u128::to_be_bytes));
    let nanos: TimestampNanosecondArray = rows.iter().map(|row| row.3).collect();
    RecordBatch::try_from_iter_with_nullable([
        ("id", Arc::new(rows.iter().map(|row| Some(row.0)).collect::<Int64Array>()) as ArrayRef, true),
        ("t", Arc::new(rows.iter().map(|row| row.1).collect::<Time64MicrosecondArray>()), true),
        ("u", Arc::new(FixedSizeBinaryArray::try_from_sparse_iter_with_size(uuids, 16).unwrap()), true),
        ("n", Arc::new(nanos.clone()), true),
        ("z", Arc::new(nanos.with_timezone("+00:00")), true),
    ])
    .unwrap()
}

async fn made(partition_by: &[&str]) -> Table {
    let new = NewTable {
        columns: kinds(),
        partition_by: partition_by.iter().map(|field| field.parse().unwrap()).collect(),
        properties: [("format-version".to_owned(), "3".to_owned())].into(),
        ..NewTable::default()
    };
    let ports = ports();
    shared::catalog::ensure_database(ports.catalog.as_ref(), &name().database).await.unwrap();
    Tables::new(ports).create_as(&name(), &new, None).await.unwrap()
}

async fn found(table: &Table, filter: Option<Expr>) -> Vec<Row> {
    let table = table.reload().await.unwrap();
    let mut frame = session(&table, Read::Current).await.table("t").await.unwrap();
    if let Some(filter) = filter {
        frame = frame.filter(filter).unwrap();
    }
    let mut rows = Vec::new();
    for batch in frame.collect().await.unwrap() {
        let ids = batch["id"].as_primitive::<arrow::datatypes::Int64Type>();
        let times = batch["t"].as_primitive::<arrow::datatypes::Time64MicrosecondType>();
        let uuids = batch["u"].as_fixed_size_binary();
        let nanos = batch["n"].as_primitive::<arrow::datatypes::TimestampNanosecondType>();
        assert_eq!(nanos.values(), batch["z"].as_primitive::<arrow::datatypes::TimestampNanosecondType>().values());
        for i in 0..batch.num_rows() {
            let uuid = uuids.is_valid(i).then(|| u128::from_be_bytes(uuids.value(i).try_into().unwrap()));
            let time = times.is_valid(i).then(|| times.value(i));
            rows.push((ids.value(i), time, uuid, nanos.is_valid(i).then(|| nanos.value(i))));
        }
    }
    rows.sort_unstable();
    rows
}

fn uuid(value: u128) -> datafusion::common::ScalarValue {
    datafusion::common::ScalarValue::FixedSizeBinary(16, Some(value.to_be_bytes().to_vec()))
}

fn time(micros: i64) -> datafusion::common::ScalarValue {
    datafusion::common::ScalarValue::Time64Microsecond(Some(micros))
}

fn nanos(nanos: i64) -> datafusion::common::ScalarValue {
    datafusion::common::ScalarValue::TimestampNanosecond(Some(nanos), None)
}

const SMALL: [Row; 3] =
    [(1, Some(0), Some(1), Some(-1)), (2, Some(1), Some(1 << 100), Some(999)), (3, None, None, None)];
const LARGE: [Row; 2] = [
    (4, Some(LAST_MICRO), Some(u128::MAX), Some(i64::MAX)),
    (5, Some(7_000_000), Some(1 << 127), Some(1_709_164_800_000_000_001)),
];

#[tokio::test]
async fn bounds_tell_which_file_holds_a_value() {
    let table = made(&[]).await;
    append(&table, batch(&SMALL)).await;
    append(&table, batch(&LARGE)).await;
    let all: Vec<Row> = SMALL.iter().chain(&LARGE).copied().collect();
    assert_eq!(found(&table, None).await, all);
    let now = table.reload().await.unwrap();
    for file in data_files(&now).await {
        let bounds = file.data().lower_bounds().keys().chain(file.data().upper_bounds().keys()).count();
        assert_eq!(bounds, 10, "id, t, u, n, z have both");
    }
    for (filter, expected) in [
        (col("t").gt(lit(time(1))), &LARGE[..]),
        (col("t").lt_eq(lit(time(1))), &SMALL[..2]),
        (col("u").eq(lit(uuid(u128::MAX))), &LARGE[..1]),
        (col("u").lt(lit(uuid(1 << 120))), &SMALL[..2]),
        (col("n").gt(lit(nanos(1_000))), &LARGE[..]),
        (col("n").lt(lit(nanos(0))), &SMALL[..1]),
    ] {
        assert_eq!(found(&table, Some(filter.clone())).await, expected, "{filter}");
        let session = session(&now, Read::Current).await;
        let frame = session.table("t").await.unwrap().filter(filter.clone()).unwrap();
        let plan = frame.explain(false, false).unwrap().collect().await.unwrap();
        let plan = pretty_format_batches(&plan).unwrap().to_string();
        assert!(plan.contains("files=1 of 2"), "{filter}: {plan}");
    }
}

#[tokio::test]
async fn files_say_what_is_a_uuid_at_any_depth() {
    let table = made(&[]).await;
    append(&table, batch(&SMALL)).await;
    let file = data_files(&table.reload().await.unwrap()).await.swap_remove(0);
    let bytes = table.ports().storage.get(&shared::storage::url_of(file.data().file_path()).unwrap()).await.unwrap();
    let reader = ParquetRecordBatchReaderBuilder::try_new(bytes).unwrap();
    let kinds: Vec<_> =
        reader.parquet_schema().columns().iter().map(|c| (c.path().string(), c.logical_type_ref().cloned())).collect();
    let of = |path: &str| kinds.iter().find(|(name, _)| name == path).unwrap().1.clone();
    assert_eq!((of("u"), of("inner.u")), (Some(LogicalType::Uuid), Some(LogicalType::Uuid)));
    assert!(
        matches!(of("inner.t.list.element"), Some(LogicalType::Time(time)) if !time.is_adjusted_to_u_t_c),
        "{kinds:?}"
    );
    assert!(matches!(of("z"), Some(LogicalType::Timestamp(time)) if time.is_adjusted_to_u_t_c), "{kinds:?}");
}

#[tokio::test]
async fn rows_are_parted_changed_and_rewritten_by_values_of_these_types() {
    for partition_by in [&["t"][..], &["bucket(4, u)"], &["day(n)"], &["hour(z)", "bucket(2, u)"]] {
        let table = made(partition_by).await;
        append(&table, batch(&SMALL)).await;
        append(&table, batch(&LARGE)).await;
        let key = vec!["u".to_owned()];
        let new = (6, Some(5), Some(1 << 100), Some(-999));
        table.commit(Change::Merge { key }, stream(batch(&[new])), None).await.unwrap();
        let mut model = vec![SMALL[0], SMALL[2], LARGE[0], LARGE[1], new];
        assert_eq!(found(&table, None).await, model, "{partition_by:?}");
        table
            .change_rows(&TestChange::delete("t = arrow_cast('00:00:07', 'Time64(Microsecond)')"), None)
            .await
            .unwrap();
        model.remove(3);
        assert_eq!(found(&table, None).await, model, "{partition_by:?}");
        let fields = ["t", "u", "n", "z"].map(str::to_owned);
        let sorted = fields.iter().map(|column| SortField {
            column: column.clone(),
            transform: Transform::Identity,
            descending: true,
            nulls_first: false,
        });
        for arrangement in
            [Arrangement::BinPack, Arrangement::Sort(sorted.collect()), Arrangement::ZOrder(fields.to_vec())]
        {
            table.rewrite(&Rewrite { arrangement, min_input_files: Some(1), ..Rewrite::default() }).await.unwrap();
            assert_eq!(found(&table, None).await, model, "{partition_by:?}");
        }
        for row in &model {
            let filters = [
                row.1.map(|v| col("t").eq(lit(time(v)))),
                row.2.map(|v| col("u").eq(lit(uuid(v)))),
                row.3.map(|v| col("n").eq(lit(nanos(v)))),
            ];
            for filter in filters.into_iter().flatten() {
                assert_eq!(found(&table, Some(filter.clone())).await, [*row], "{partition_by:?} {filter}");
            }
        }
        for which in [MetadataTable::Files, MetadataTable::Partitions] {
            let session = SessionContext::new();
            session.register_table("m", table.reload().await.unwrap().metadata_table(which).await.unwrap()).unwrap();
            let rows = session.sql("SELECT * FROM m").await.unwrap().collect().await.unwrap();
            assert!(!pretty_format_batches(&rows).unwrap().to_string().is_empty(), "{which:?}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn any_value_is_found_through_bounds_and_partitions(
        values in proptest::collection::vec((0..=LAST_MICRO, any::<u128>(), any::<i64>()), 1..6), cut in 0_usize..6,
    ) {
        let rows: Vec<Row> = values.iter().zip(0..).map(|((t, u, n), id)| (id, Some(*t), Some(*u), Some(*n))).collect();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            for partition_by in [&[][..], &["month(n)", "bucket(3, t)"], &["year(z)"]] {
                let table = made(partition_by).await;
                let (a, b) = rows.split_at(cut.min(rows.len()));
                append(&table, batch(a)).await;
                append(&table, batch(b)).await;
                for row in &rows {
                    let filter = col("t").eq(lit(time(row.1.unwrap()))).and(col("u").eq(lit(uuid(row.2.unwrap()))));
                    let filter = filter.and(col("n").eq(lit(nanos(row.3.unwrap()))));
                    assert!(found(&table, Some(filter)).await.contains(row), "{partition_by:?} {row:?}");
                }
            }
        });
    }
}

#[tokio::test]
async fn what_manifests_can_not_hold_is_no_partition_as_it_is() {
    for (field, instead) in [("u", "bucket(n, …)"), ("n", "day(…)"), ("z", "day(…)")] {
        let table = made(&[]).await;
        let partition: PartitionField = field.parse().unwrap();
        let change = Alter::ReplacePartitionFields(vec![partition]);
        let error = table.alter(&[change]).await.unwrap_err();
        assert!(error.kind() == ErrorKind::Invalid && error.to_string().contains(instead), "{error}");
    }
    let ports = ports();
    let tables = Tables::new(ports.clone());
    shared::catalog::ensure_database(ports.catalog.as_ref(), "nyc").await.unwrap();
    let error = tables.create(&name(), &[column("u", "uuid")], &["u".parse().unwrap()]).await.unwrap_err();
    assert!(error.kind() == ErrorKind::Invalid && error.to_string().contains("`u`"), "{error}");
}

#[tokio::test]
async fn nanoseconds_are_for_tables_of_format_v3() {
    let columns = [column("id", "bigint"), column("s", "struct<at:timestamptz_ns>")];
    let ports = ports();
    let tables = Tables::new(ports.clone());
    shared::catalog::ensure_database(ports.catalog.as_ref(), "nyc").await.unwrap();
    let error = tables.create(&name(), &columns, &[]).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    assert!(error.to_string().contains("column `s.at`: expected a table of Iceberg's format v3"), "{error}");
    let table = tables.create(&name(), &columns[..1], &[]).await.unwrap();
    let add = Alter::AddColumn { column: column("n", "timestamp_ns"), after: Position::Last };
    let error = table.alter(std::slice::from_ref(&add)).await.unwrap_err();
    assert!(error.to_string().contains("found `v2`: set the table property `format-version` to `3`"), "{error}");
    let error = tables.ensure(&name(), &columns, &[]).await.unwrap_err();
    assert!(error.to_string().contains("column `s.at`"), "{error}");
    let v3 = Alter::SetProperties([("format-version".into(), "3".into())].into());
    let table = table.alter(&[v3, add]).await.unwrap();
    assert_eq!(table.columns()[1], column("n", "timestamp_ns"));
}

#[tokio::test]
async fn glue_knows_the_types_by_the_names_that_others_give_them() {
    let table = made(&[]).await;
    let entry = table.ports().catalog.get_table(&name()).await.unwrap();
    let types: Vec<_> = entry.input.storage.columns.iter().map(|column| column.ty.to_string()).collect();
    assert_eq!(types, ["bigint", "string", "string", "timestamp", "timestamp", "struct<u:string,t:array<string>>"]);
    assert_eq!(table.columns(), kinds());
}
