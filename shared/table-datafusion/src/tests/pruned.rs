//! What filters find where files and row groups can be ruled out, against what they say of each row.

use arrow::array::{Date32Array, Decimal128Array, Float32Array, Float64Array};

use super::*;

const NULL: Option<f64> = None;
const NAN: Option<f64> = Some(f64::NAN);

fn all_columns() -> Vec<Column> {
    let types = [
        ("id", ColumnType::BigInt),
        ("x", ColumnType::Double),
        ("f", ColumnType::Float),
        ("s", ColumnType::String),
        ("d", ColumnType::Date),
        ("at", ColumnType::Timestamp),
        ("n", ColumnType::Decimal(30, 2)),
    ];
    types.into_iter().map(|(name, ty)| Column::new(name, ty)).collect()
}

/// Rows of [`all_columns`]: id, `x` and `f`, text, days since 1970 and hundredths.
fn batch(values: &[(i64, Option<f64>, Option<&str>, i32)]) -> RecordBatch {
    let far = |days: i32| i64::from(days) * DAY;
    let numbers = values.iter().map(|v| Some(i128::from(v.3) * 1001)).collect::<Decimal128Array>();
    RecordBatch::try_from_iter_with_nullable([
        ("id", Arc::new(values.iter().map(|v| Some(v.0)).collect::<Int64Array>()) as ArrayRef, true),
        ("x", Arc::new(values.iter().map(|v| v.1).collect::<Float64Array>()), true),
        ("f", Arc::new(values.iter().map(|v| v.1.map(|x| x as f32)).collect::<Float32Array>()), true),
        ("s", Arc::new(values.iter().map(|v| v.2).collect::<StringArray>()), true),
        ("d", Arc::new(values.iter().map(|v| Some(v.3)).collect::<Date32Array>()), true),
        ("at", Arc::new(values.iter().map(|v| Some(far(v.3))).collect::<TimestampMicrosecondArray>()), true),
        ("n", Arc::new(numbers.with_precision_and_scale(30, 2).unwrap()), true),
    ])
    .unwrap()
}

/// Days since 1970 of the first day of the year 1 and of the last of the year 9999.
const FIRST: i32 = -719_162;
const LAST: i32 = 2_932_896;

async fn with_files(ports: &Ports, partition_by: &[&str]) -> Table {
    let fields: Vec<PartitionField> = partition_by.iter().map(|f| f.parse().unwrap()).collect();
    let properties =
        ["x", "f", "s", "n"].map(|c| (format!("write.parquet.bloom-filter-enabled.column.{c}"), "true".to_owned()));
    let new =
        NewTable { columns: all_columns(), partition_by: fields, properties: properties.into(), ..NewTable::default() };
    shared::catalog::ensure_database(ports.catalog.as_ref(), &name().database).await.unwrap();
    let table = Tables::new(ports.clone()).create_as(&name(), &new, None).await.unwrap();
    for file in [
        &[(i64::MIN, Some(0.5), Some("ab"), FIRST), (i64::MAX, Some(0.5), Some("ac"), LAST)][..],
        &[(1, NAN, Some("a%b"), 0), (2, Some(0.5), Some("a_b"), 1)],
        &[(3, NAN, None, -1), (4, NAN, Some(""), -365)],
        &[(5, Some(-0.0), Some("prefix one"), 19_000), (6, Some(-0.0), Some("prefix two"), 19_001)],
        &[(7, Some(0.0), Some("\u{10ffff}"), 20_000)],
        &[(8, NULL, Some("zz"), 20_001), (9, Some(f64::INFINITY), Some("Z"), 20_002)],
        &[(10, Some(f64::NEG_INFINITY), Some("ü"), -300_000), (11, Some(6.5), Some("東京"), 300_000)],
    ] {
        append(&table, batch(file)).await;
    }
    table
}

fn predicates() -> Vec<String> {
    let mut simple = Vec::new();
    let literals: [(&str, &[&str]); 7] = [
        ("id", &["1", "5", "9223372036854775807", "-9223372036854775808", "1.5"]),
        ("x", &["0.5", "0.0", "-0.0", "6", "100", "1", "CAST('NaN' AS double)", "CAST('Infinity' AS double)"]),
        ("f", &["0.5", "CAST(0.0 AS float)", "CAST(-0.0 AS float)", "6", "CAST('NaN' AS float)"]),
        ("s", &["'ab'", "''", "'a_b'", "'zz'", "'東京'"]),
        ("d", &["DATE '0001-01-01'", "DATE '9999-12-31'", "DATE '1969-12-31'", "DATE '2022-01-08'"]),
        // A literal with the word TIMESTAMP has nanoseconds here, which reach less far.
        (
            "at",
            &[
                "CAST('0001-01-01 00:00:00' AS timestamp(6))",
                "CAST('9999-12-31 00:00:00' AS timestamp(6))",
                "CAST('1969-12-31 00:00:00' AS timestamp(6))",
            ],
        ),
        ("n", &["0", "10.01", "-10.01", "CAST('190190.00' AS decimal(30,2))"]),
    ];
    for (column, literals) in literals {
        for literal in literals {
            for op in ["=", "<>", "<", "<=", ">", ">="] {
                simple.push(format!("{column} {op} {literal}"));
                simple.push(format!("NOT ({literal} {op} {column})"));
            }
            simple.push(format!("{column} IS DISTINCT FROM {literal}"));
            // DataFusion's IN tells the zeros apart in long lists and not in short ones.
            if !literal.contains("0.0") || literal.contains("190") {
                simple.push(format!("{column} IN ({literal}, {})", literals[0]));
                simple.push(format!("{column} NOT IN ({literal}, {})", literals[0]));
            }
            simple.push(format!("{column} BETWEEN {} AND {literal}", literals[0]));
        }
        simple.push(format!("{column} IS NULL"));
        simple.push(format!("{column} IS NOT NULL"));
    }
    for text in [
        "s LIKE 'prefix%'",
        "s NOT LIKE 'prefix%'",
        "s LIKE 'a\\%b'",
        "s LIKE 'a_b'",
        "s LIKE '%o'",
        "s LIKE ''",
        "s NOT LIKE ''",
        "s LIKE '東%'",
        "s ILIKE 'PREFIX%'",
        "starts_with(s, 'prefix')",
        "NOT starts_with(s, 'a_')",
        "starts_with(s, '')",
        "regexp_like(s, '^a')",
        "NOT regexp_like(s, '^prefix')",
        "s ~ '^prefix (one|two)$'",
        "s !~ '^a'",
        "length(s) > 2",
        "upper(s) = 'ZZ'",
        "s || 'x' = 'zzx'",
        "substr(s, 1, 2) = 'pr'",
        "s > 'prefix' AND s LIKE 'p%'",
        "coalesce(s, 'ab') = 'ab'",
        "isnan(x)",
        "NOT isnan(x)",
        "abs(x) > 1",
        "x + 1 > 1",
        "-x > 0",
        "CAST(x AS float) > 6",
        "CAST(id AS double) > 0",
        "CASE WHEN x > 1 THEN true ELSE false END",
        "x <> f",
        "nullif(x, 0.5) IS NULL",
    ] {
        simple.push(text.to_owned());
    }
    let pairs = simple.iter().zip(simple.iter().skip(67).step_by(5));
    let pairs: Vec<_> =
        pairs.flat_map(|(a, b)| [format!("({a}) OR ({b})"), format!("NOT (({a}) AND ({b}))")]).collect();
    simple.extend(pairs);
    simple
}

async fn found(session: &SessionContext, predicate: &str) -> Vec<String> {
    let query = format!("SELECT id FROM t WHERE {predicate} ORDER BY id");
    let rows = session.sql(&query).await.unwrap().collect().await.unwrap_or_else(|e| panic!("{predicate}: {e}"));
    rows.iter().flat_map(|rows| (0..rows.num_rows()).map(|row| format!("{:?}", rows.column(0).slice(row, 1)))).collect()
}

#[tokio::test]
async fn a_filter_finds_what_it_says_of_each_row_whatever_can_be_ruled_out() {
    for partition_by in [&[][..], &["month(at)"], &["truncate(2, s)"], &["bucket(4, id)"], &["x"], &["n"]] {
        let ports = ports();
        let table = with_files(&ports, partition_by).await;
        let all = session(&table.reload().await.unwrap(), Read::Current).await;
        let now = table.reload().await.unwrap();
        let addressed = session(&now, Read::Current).await;
        addressed.deregister_table("t").unwrap();
        addressed.register_table("t", now.addressed().await.unwrap()).unwrap();
        let every = if partition_by.is_empty() { 1 } else { 7 };
        for predicate in predicates().into_iter().step_by(every) {
            let whole = found(&all, &format!("CASE WHEN random() < 2 THEN ({predicate}) END")).await;
            assert_eq!(found(&all, &predicate).await, whole, "{predicate}, partitioned by {partition_by:?}");
            assert_eq!(found(&addressed, &predicate).await, whole, "{predicate} with addresses, {partition_by:?}");
        }
    }
}
