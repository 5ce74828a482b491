//! What a partition value says of the column that the table is partitioned by.

use arrow::datatypes::DataType;
use chrono::{Datelike, NaiveDate};
use datafusion::common::ScalarValue;
use iceberg::spec::{PrimitiveLiteral, PrimitiveType, Transform};

use super::prune::value;

const HOUR_MICROS: i64 = 3_600_000_000;
const DAY_MICROS: i64 = 24 * HOUR_MICROS;

/// The least and the greatest value of a column of the types `source` and `ty` in a partition; `None` when the transform does
/// not tell.
pub(super) fn span(
    transform: Transform,
    partition: &PrimitiveLiteral,
    source: &PrimitiveType,
    ty: &DataType,
) -> Option<(ScalarValue, ScalarValue)> {
    let unit = match (transform, partition) {
        (Transform::Year, PrimitiveLiteral::Int(n)) => {
            (months(n.checked_mul(12)?)?, months(n.checked_add(1)?.checked_mul(12)?)?)
        }
        (Transform::Month, PrimitiveLiteral::Int(n)) => (months(*n)?, months(n.checked_add(1)?)?),
        (Transform::Day, PrimitiveLiteral::Int(n)) => (i64::from(*n) * DAY_MICROS, (i64::from(*n) + 1) * DAY_MICROS),
        (Transform::Hour, PrimitiveLiteral::Int(n)) => (i64::from(*n) * HOUR_MICROS, (i64::from(*n) + 1) * HOUR_MICROS),
        // Zero and NaN have several forms.
        (Transform::Identity, literal) if !ty.is_floating() => {
            let value = value(source, literal)?.cast_to(ty).ok()?;
            return Some((value.clone(), value));
        }
        (Transform::Truncate(width), PrimitiveLiteral::Int(least)) if ty.is_integer() => {
            return integers(i64::from(*least), width, ty);
        }
        (Transform::Truncate(width), PrimitiveLiteral::Long(least)) if ty.is_integer() => {
            return integers(*least, width, ty);
        }
        _ => return None,
    };
    let (start, end) = unit;
    match ty {
        DataType::Date32 => {
            let days = |micros: i64| i32::try_from(micros.div_euclid(DAY_MICROS)).ok();
            Some((ScalarValue::Date32(days(start)), ScalarValue::Date32(days(end - 1))))
        }
        DataType::Timestamp(arrow::datatypes::TimeUnit::Nanosecond, zone) => {
            let at = |nanos| ScalarValue::TimestampNanosecond(Some(nanos), zone.clone());
            // Nanoseconds reach less far than their partitions.
            Some((at(start.saturating_mul(1000)), at((end - 1).saturating_mul(1000).saturating_add(999))))
        }
        DataType::Timestamp(arrow::datatypes::TimeUnit::Microsecond, zone) => {
            let at = |micros| ScalarValue::TimestampMicrosecond(Some(micros), zone.clone());
            Some((at(start), at(end - 1)))
        }
        _ => None,
    }
}

fn integers(least: i64, width: u32, ty: &DataType) -> Option<(ScalarValue, ScalarValue)> {
    let greatest = least.checked_add(i64::from(width) - 1)?;
    let value = |n: i64| ScalarValue::Int64(Some(n)).cast_to(ty).ok();
    Some((value(least)?, value(greatest)?))
}

/// Microseconds from 1970 to the start of the month that is `n` months later.
fn months(n: i32) -> Option<i64> {
    let first = NaiveDate::from_ymd_opt(1970 + n.div_euclid(12), u32::try_from(n.rem_euclid(12)).ok()? + 1, 1)?;
    let epoch = NaiveDate::default().num_days_from_ce();
    i64::from(first.num_days_from_ce() - epoch).checked_mul(DAY_MICROS)
}

#[cfg(test)]
mod tests {
    use arrow::datatypes::TimeUnit;

    use super::*;

    #[test]
    fn partitions_bound_the_values_of_their_column() {
        let timestamp = DataType::Timestamp(TimeUnit::Microsecond, None);
        let shown = |transform, n, source, ty: &DataType| {
            let (least, greatest) = span(transform, &PrimitiveLiteral::Int(n), &source, ty).unwrap();
            let text = |value: ScalarValue| value.cast_to(&DataType::Utf8).unwrap().to_string();
            format!("{} {}", text(least), text(greatest))
        };
        let at = |transform, n| shown(transform, n, PrimitiveType::Timestamp, &timestamp);
        assert_eq!(at(Transform::Year, 0), "1970-01-01T00:00:00 1970-12-31T23:59:59.999999");
        assert_eq!(at(Transform::Month, -1), "1969-12-01T00:00:00 1969-12-31T23:59:59.999999");
        assert_eq!(at(Transform::Month, 649), "2024-02-01T00:00:00 2024-02-29T23:59:59.999999");
        assert_eq!(at(Transform::Day, -1), "1969-12-31T00:00:00 1969-12-31T23:59:59.999999");
        assert_eq!(at(Transform::Hour, 25), "1970-01-02T01:00:00 1970-01-02T01:59:59.999999");
        assert_eq!(shown(Transform::Month, 1, PrimitiveType::Date, &DataType::Date32), "1970-02-01 1970-02-28");
        assert_eq!(shown(Transform::Truncate(10), -10, PrimitiveType::Int, &DataType::Int32), "-10 -1");
        assert_eq!(shown(Transform::Identity, 7, PrimitiveType::Int, &DataType::Int64), "7 7");
        assert!(span(Transform::Bucket(4), &PrimitiveLiteral::Int(1), &PrimitiveType::Int, &DataType::Int32).is_none());
    }
}
