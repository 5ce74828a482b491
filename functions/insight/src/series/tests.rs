use std::sync::Arc;

use arrow::array::{ArrayRef, Date32Array, Float64Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use proptest::prelude::*;
use shared::ErrorKind;
use shared::project::InsightKind;

use super::*;
use crate::question::tests::question;

const HOUR: i64 = 3_600_000_000;
/// Long after every date of the tests.
const LATER_MS: i64 = 4_000_000_000_000;

/// A daily series that starts at 2013-01-01.
pub(crate) fn daily(values: &[f64]) -> Series {
    let values: Vec<Option<f64>> = values.iter().copied().map(Some).collect();
    from_days(&(0..).map(|i| 15_706 + i).zip(values).collect::<Vec<_>>()).unwrap()
}

pub(crate) fn from_days(rows: &[(i32, Option<f64>)]) -> Result<Series> {
    let days = Date32Array::from_iter_values(rows.iter().map(|r| r.0));
    let values = Float64Array::from_iter(rows.iter().map(|r| r.1));
    read(vec![("day", Arc::new(days)), ("count", Arc::new(values))], &[], LATER_MS)
}

fn from_instants(instants: &[i64], now_ms: i64) -> Series {
    let dates = TimestampMicrosecondArray::from_iter_values(instants.iter().copied());
    let ones = Float64Array::from_iter_values(instants.iter().map(|_| 1.0));
    read(vec![("day", Arc::new(dates)), ("count", Arc::new(ones))], &[], now_ms).unwrap()
}

pub(crate) fn read(columns: Vec<(&str, ArrayRef)>, dimensions: &[&str], now_ms: i64) -> Result<Series> {
    let question = Question {
        dimensions: dimensions.iter().map(ToString::to_string).collect(),
        ..question(InsightKind::Anomalies)
    };
    let batch = RecordBatch::try_from_iter(columns).unwrap();
    let mut rows = Rows::new(&question, &batch.schema())?;
    rows.push(&batch)?;
    Series::new(rows, &question, now_ms)
}

#[test]
fn the_period_is_found_from_the_dates() {
    let every = |step: i64, n: i64| (0..n).map(|i| i * step).collect::<Vec<_>>();
    let unit = |instants: &[i64]| from_instants(instants, LATER_MS).calendar.unit();
    assert_eq!(unit(&every(HOUR, 50)), Unit::Hour);
    assert_eq!(unit(&every(HOUR / 4, 50)), Unit::QuarterHour);
    assert_eq!(unit(&every(24 * HOUR, 50)), Unit::Day);
    assert_eq!(unit(&every(7 * 24 * HOUR, 50)), Unit::Week);
    let months: Vec<i64> = (0..24).map(|i| Calendar::new(Unit::Month, &[]).start(500 * 12 + i)).collect();
    assert_eq!(unit(&months), Unit::Month);
    let weekdays: Vec<i64> = (0..60).filter(|d| d % 7 < 5).map(|d| d * 24 * HOUR).collect();
    assert_eq!(unit(&weekdays), Unit::Day);
    assert_eq!(unit(&[17]), Unit::Day);
}

#[test]
fn missing_days_are_gaps_and_are_bridged() {
    let series = from_days(&[(0, Some(10.0)), (1, None), (2, Some(30.0)), (4, Some(50.0)), (5, Some(1.0))]).unwrap();
    assert_eq!(series.values, [Some(10.0), None, Some(30.0), None, Some(50.0), Some(1.0)]);
    assert_eq!(series.bridged(), [10.0, 20.0, 30.0, 40.0, 50.0, 1.0]);
    assert_eq!((series.rows, series.ignored_rows, series.known()), (5, 1, 4));
    assert_eq!(series.label(6), "1970-01-07");
}

#[test]
fn rows_of_one_date_are_summed_and_parted_by_dimension() {
    let series = read(
        vec![
            ("day", Arc::new(Date32Array::from(vec![0, 0, 1, 1, 1]))),
            ("count", Arc::new(Float64Array::from(vec![1.0, 2.0, 3.0, 4.0, 5.0]))),
            ("carrier", Arc::new(StringArray::from(vec![Some("UA"), Some("AA"), Some("UA"), None, Some("UA")]))),
        ],
        &["carrier"],
        LATER_MS,
    )
    .unwrap();
    assert_eq!(series.values, [Some(3.0), Some(12.0)]);
    let members: Vec<_> = series.dimensions[0].members.iter().map(|m| (m.name.as_str(), m.values.clone())).collect();
    assert_eq!(members, [("UA", vec![1.0, 8.0]), ("(null)", vec![0.0, 4.0]), ("AA", vec![2.0, 0.0])]);
}

#[test]
fn events_are_counted_and_a_period_without_any_is_zero() {
    let mut instants: Vec<i64> =
        (0..10).flat_map(|day| [day * 24 * HOUR + HOUR, day * 24 * HOUR + 23 * HOUR]).collect();
    instants.retain(|t| t / (24 * HOUR) != 4);
    let series = from_instants(&instants, LATER_MS);
    assert_eq!(series.calendar.unit(), Unit::Day);
    assert_eq!(series.values[4], Some(0.0));
    assert_eq!(series.values[5], Some(2.0));
}

#[test]
fn a_last_period_that_is_not_over_is_left_out() {
    let days: Vec<i64> = (0..10).map(|d| d * 24 * HOUR).collect();
    let series = from_instants(&days, 9 * 24 * HOUR / 1_000 + 5);
    assert_eq!(series.len(), 9);
    assert_eq!(series.left_out[0].date, "1970-01-10");
    assert_eq!(from_instants(&days, 10 * 24 * HOUR / 1_000).len(), 10);
}

#[test]
fn events_that_break_off_within_the_last_day_leave_it_out() {
    // Every five hours or so, which is too seldom for hours; the tenth day ends at eight in the morning.
    let instants: Vec<i64> = (0..45).map(|i| i * 5 * HOUR + i % 7).collect();
    let series = from_instants(&instants, LATER_MS);
    assert_eq!((series.calendar.unit(), series.len()), (Unit::Day, 9));
    assert_eq!(series.left_out[0].date, "1970-01-10");
}

#[test]
fn not_a_number_and_infinity_are_ignored_and_counted() {
    let series =
        from_days(&[(0, Some(1.0)), (1, Some(f64::NAN)), (2, Some(f64::INFINITY)), (3, Some(4.0)), (4, Some(1.0))])
            .unwrap();
    assert_eq!(series.ignored_rows, 2);
    assert_eq!(series.values[1], None);
}

#[test]
fn a_missing_column_is_named_with_those_that_there_are() {
    let error =
        read(vec![("when", Arc::new(Date32Array::from(vec![0]))), ("n", Arc::new(Date32Array::from(vec![0])))], &[], 0)
            .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    assert_eq!(error.to_string(), "expected the date column `day` in the answer of the SELECT, found `when`, `n`");
}

#[test]
fn a_column_of_the_wrong_type_is_refused_with_its_type() {
    let text: ArrayRef = Arc::new(StringArray::from(vec!["x"]));
    let day: ArrayRef = Arc::new(Date32Array::from(vec![0]));
    let error = read(vec![("day", day), ("count", text.clone())], &[], 0).unwrap_err();
    assert_eq!(error.to_string(), "expected a number in column `count`, found the type `Utf8`");
    let error = read(vec![("day", text), ("count", Arc::new(Float64Array::from(vec![1.0])))], &[], 0).unwrap_err();
    assert_eq!(error.to_string(), "expected a date or timestamp in column `day`, found the type `Utf8`");
}

#[test]
fn an_answer_without_usable_rows_is_refused() {
    assert!(from_days(&[]).unwrap_err().to_string().contains("found none"));
    assert!(from_days(&[(0, None)]).unwrap_err().to_string().contains("found 1 without"));
    assert!(from_days(&[(0, Some(1e200))]).unwrap_err().to_string().contains("1e150"));
}

#[test]
fn more_members_than_are_kept_become_other() {
    let n = 1_500;
    let series = read(
        vec![
            ("day", Arc::new(Date32Array::from_iter_values((0..n).map(|i| i % 2)))),
            ("count", Arc::new(Float64Array::from_iter_values((0..n).map(f64::from)))),
            ("id", Arc::new(Date32Array::from_iter_values(0..n))),
        ],
        &["id"],
        LATER_MS,
    )
    .unwrap();
    let members = &series.dimensions[0].members;
    assert_eq!((members.len(), members[1_000].name.as_str()), (1_001, "(other)"));
}

proptest! {
    #[test]
    fn nothing_is_lost_between_rows_and_periods(
        rows in prop::collection::vec((0..40i32, -1_000..1_000i32, 0..4u8), 1..200),
    ) {
        let series = read(
            vec![
                ("day", Arc::new(Date32Array::from_iter_values(rows.iter().map(|r| r.0)))),
                ("count", Arc::new(Float64Array::from_iter_values(rows.iter().map(|r| f64::from(r.1))))),
                ("kind", Arc::new(StringArray::from_iter_values(rows.iter().map(|r| r.2.to_string())))),
            ],
            &["kind"],
            LATER_MS,
        ).unwrap();
        let all: f64 = rows.iter().map(|r| f64::from(r.1)).sum();
        let total: f64 = series.values.iter().flatten().sum();
        let parted: f64 = series.dimensions[0].members.iter().flat_map(|m| &m.values).sum();
        let left: f64 = if series.left_out.is_empty() { all } else { total };
        prop_assert!((total - left).abs() < 1e-6);
        prop_assert!((parted - total).abs() < 1e-6);
    }
}
