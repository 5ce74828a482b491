//! The partition transforms of Iceberg's specification ("Partition Transforms", "Appendix B: 32-bit Hash Requirements") over Arrow
//! arrays, and partition values as literals of manifests.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BinaryArray, Int32Array, Int64Array, PrimitiveArray, StringArray, new_null_array,
};
use arrow::compute::cast;
use arrow::datatypes::{
    ArrowPrimitiveType, DataType, Date32Type, Decimal128Type, Float32Type, Float64Type, Int32Type, Int64Type,
    Time64MicrosecondType, TimeUnit, TimestampMicrosecondType, TimestampNanosecondType,
};
use chrono::{DateTime, Datelike, Days, NaiveDate};
use iceberg::spec::{Literal, PrimitiveLiteral, PrimitiveType, Transform, Type};

use shared::{Error, Result};

const HOUR_MICROS: i64 = 3_600_000_000;
const DAY_MICROS: i64 = 24 * HOUR_MICROS;

/// What a transform makes of each value; nulls stay null. Years, months and hours are counted from 1970 in UTC, rounded down;
/// a day is a date.
///
/// # Errors
/// `Invalid` for a type that the transform doesn't take, and for values whose result has no place in its type.
pub fn apply(transform: Transform, values: &ArrayRef) -> Result<ArrayRef> {
    match transform {
        Transform::Identity => Ok(Arc::clone(values)),
        Transform::Void => Ok(new_null_array(values.data_type(), values.len())),
        Transform::Bucket(buckets) => bucket(buckets, values),
        Transform::Truncate(width) => truncate(width, values),
        Transform::Year => calendar(transform, values, |date| date.year() - 1970),
        Transform::Month => calendar(transform, values, |date| (date.year() - 1970) * 12 + date.month0().cast_signed()),
        Transform::Day => {
            let days = narrow::<Date32Type>(transform, &units(transform, values, DAY_MICROS)?)?;
            Ok(Arc::new(days))
        }
        Transform::Hour if values.data_type() == &DataType::Date32 => Err(unfit(transform, values)),
        Transform::Hour => {
            let hours = narrow::<Int32Type>(transform, &units(transform, values, HOUR_MICROS)?)?;
            Ok(Arc::new(hours))
        }
        Transform::Unknown => Err(Error::invalid("expected a partition transform of the specification, found another")),
    }
}

/// The value at `row` as a literal of a manifest; `None` for null.
///
/// # Errors
/// `Invalid` for values of another type than `ty`.
pub fn literal(values: &ArrayRef, row: usize, ty: &Type) -> Result<Option<Literal>> {
    if values.is_null(row) {
        return Ok(None);
    }
    let bytes = || cast(&values.slice(row, 1), &DataType::Binary).map(|one| one.as_binary::<i32>().value(0).to_vec());
    let literal = match values.data_type() {
        DataType::Boolean => PrimitiveLiteral::Boolean(values.as_boolean().value(row)),
        DataType::Int32 => PrimitiveLiteral::Int(values.as_primitive::<Int32Type>().value(row)),
        DataType::Date32 => PrimitiveLiteral::Int(values.as_primitive::<Date32Type>().value(row)),
        DataType::Int64 => PrimitiveLiteral::Long(values.as_primitive::<Int64Type>().value(row)),
        DataType::Time64(TimeUnit::Microsecond) => {
            PrimitiveLiteral::Long(values.as_primitive::<Time64MicrosecondType>().value(row))
        }
        DataType::Timestamp(TimeUnit::Microsecond, _) => {
            PrimitiveLiteral::Long(values.as_primitive::<TimestampMicrosecondType>().value(row))
        }
        DataType::Timestamp(TimeUnit::Nanosecond, _) => {
            PrimitiveLiteral::Long(values.as_primitive::<TimestampNanosecondType>().value(row))
        }
        DataType::Float32 => PrimitiveLiteral::Float(values.as_primitive::<Float32Type>().value(row).into()),
        DataType::Float64 => PrimitiveLiteral::Double(values.as_primitive::<Float64Type>().value(row).into()),
        DataType::Decimal128(..) => PrimitiveLiteral::Int128(values.as_primitive::<Decimal128Type>().value(row)),
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => {
            let text = cast(&values.slice(row, 1), &DataType::Utf8)?;
            PrimitiveLiteral::String(text.as_string::<i32>().value(0).to_owned())
        }
        DataType::FixedSizeBinary(16) if *ty == Type::Primitive(PrimitiveType::Uuid) => {
            let bytes = bytes()?.try_into().map_err(|_| Error::bug("expected the 16 bytes of a uuid"))?;
            PrimitiveLiteral::UInt128(u128::from_be_bytes(bytes))
        }
        DataType::Binary | DataType::LargeBinary | DataType::BinaryView | DataType::FixedSizeBinary(_) => {
            PrimitiveLiteral::Binary(bytes()?)
        }
        found => {
            return Err(Error::invalid(format!("expected a partition value of type `{ty}`, found `{found}`")));
        }
    };
    Ok(Some(Literal::Primitive(literal)))
}

/// A time in the words of the `iceberg` crate where that itself panics: at most times with a zone before 1970, and at years that no
/// calendar here has, of which the bare number is told.
pub fn zoned(ty: &PrimitiveType, literal: &PrimitiveLiteral) -> Option<String> {
    use PrimitiveType as P;
    match (ty, literal) {
        (P::Timestamptz, PrimitiveLiteral::Long(micros)) => {
            Some(DateTime::from_timestamp_micros(*micros).map_or_else(|| micros.to_string(), |time| time.to_string()))
        }
        (P::TimestamptzNs, PrimitiveLiteral::Long(nanos)) => Some(DateTime::from_timestamp_nanos(*nanos).to_string()),
        (P::Timestamp, PrimitiveLiteral::Long(micros)) => {
            DateTime::from_timestamp_micros(*micros).is_none().then(|| micros.to_string())
        }
        (P::Date, PrimitiveLiteral::Int(days)) => {
            DateTime::from_timestamp(i64::from(*days) * 86_400, 0).is_none().then(|| days.to_string())
        }
        _ => None,
    }
}

fn unfit(transform: Transform, values: &ArrayRef) -> Error {
    Error::invalid(format!("expected values that `{transform}` takes, found `{}`", values.data_type()))
}

/// `(murmur3_x86_32(value) & i32::MAX) % buckets`.
fn bucket(buckets: u32, values: &ArrayRef) -> Result<ArrayRef> {
    let divisor = i32::try_from(buckets)
        .ok()
        .filter(|n| *n > 0)
        .ok_or_else(|| Error::invalid(format!("expected from 1 to {} buckets, found {buckets}", i32::MAX)))?;
    let of = |bytes: &[u8]| (hash(bytes) & i32::MAX) % divisor;
    let long = |value: i64| of(&value.to_le_bytes());
    let hashed: Int32Array = match values.data_type() {
        DataType::Int32 => values.as_primitive::<Int32Type>().unary(|value| long(value.into())),
        DataType::Date32 => values.as_primitive::<Date32Type>().unary(|value| long(value.into())),
        DataType::Int64 => values.as_primitive::<Int64Type>().unary(long),
        DataType::Time64(TimeUnit::Microsecond) => values.as_primitive::<Time64MicrosecondType>().unary(long),
        DataType::Timestamp(TimeUnit::Microsecond | TimeUnit::Nanosecond, _) => {
            units(Transform::Bucket(buckets), values, 1)?.unary(long)
        }
        DataType::Decimal128(..) => {
            values.as_primitive::<Decimal128Type>().unary(|value| of(shortest(&value.to_be_bytes())))
        }
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => {
            let text = cast(values, &DataType::Utf8)?;
            text.as_string::<i32>().iter().map(|value| value.map(|text| of(text.as_bytes()))).collect()
        }
        DataType::Binary | DataType::LargeBinary | DataType::BinaryView | DataType::FixedSizeBinary(_) => {
            let bytes = cast(values, &DataType::Binary)?;
            bytes.as_binary::<i32>().iter().map(|value| value.map(of)).collect()
        }
        _ => return Err(unfit(Transform::Bucket(buckets), values)),
    };
    Ok(Arc::new(hashed))
}

/// The fewest bytes that hold the two's complement, big-endian.
fn shortest(bytes: &[u8; 16]) -> &[u8] {
    let sign = if bytes[0] & 0x80 == 0 { 0x00 } else { 0xFF };
    let spare = bytes.windows(2).take_while(|pair| pair[0] == sign && (pair[1] ^ sign) & 0x80 == 0).count();
    &bytes[spare..]
}

/// Murmur3 of 32 bits for x86, with the seed 0.
fn hash(bytes: &[u8]) -> i32 {
    let mix = |block: u32| block.wrapping_mul(0xcc9e_2d51).rotate_left(15).wrapping_mul(0x1b87_3593);
    let (blocks, tail) = bytes.as_chunks::<4>();
    let mut hash = blocks.iter().fold(0_u32, |hash, block| {
        (hash ^ mix(u32::from_le_bytes(*block))).rotate_left(13).wrapping_mul(5).wrapping_add(0xe654_6b64)
    });
    let rest = tail.iter().rev().fold(0_u32, |rest, byte| (rest << 8) | u32::from(*byte));
    // The length counts modulo 2^32.
    hash ^= mix(rest) ^ (bytes.len() as u32);
    hash = (hash ^ (hash >> 16)).wrapping_mul(0x85eb_ca6b);
    hash = (hash ^ (hash >> 13)).wrapping_mul(0xc2b2_ae35);
    (hash ^ (hash >> 16)).cast_signed()
}

/// Dates and timestamps in units of so many microseconds, rounded down.
fn units(transform: Transform, values: &ArrayRef, micros: i64) -> Result<Int64Array> {
    Ok(match values.data_type() {
        DataType::Date32 => {
            let days = values.as_primitive::<Date32Type>();
            days.unary(|day| (i64::from(day) * DAY_MICROS).div_euclid(micros))
        }
        DataType::Timestamp(TimeUnit::Microsecond, _) => {
            values.as_primitive::<TimestampMicrosecondType>().unary(|value| value.div_euclid(micros))
        }
        DataType::Timestamp(TimeUnit::Nanosecond, _) => {
            values.as_primitive::<TimestampNanosecondType>().unary(|value| value.div_euclid(1000).div_euclid(micros))
        }
        _ => return Err(unfit(transform, values)),
    })
}

fn narrow<T: ArrowPrimitiveType<Native = i32>>(transform: Transform, units: &Int64Array) -> Result<PrimitiveArray<T>> {
    units.try_unary(|value| {
        i32::try_from(value)
            .map_err(|_| Error::invalid(format!("expected a time that `{transform}` can count, found one too far")))
    })
}

fn calendar(transform: Transform, values: &ArrayRef, of: impl Fn(NaiveDate) -> i32) -> Result<ArrayRef> {
    let days = units(transform, values, DAY_MICROS)?;
    let date = |days: i64| {
        let distance = Days::new(days.unsigned_abs());
        let epoch = NaiveDate::default();
        if days < 0 { epoch.checked_sub_days(distance) } else { epoch.checked_add_days(distance) }
    };
    let counted: Int32Array = days.try_unary(|days| {
        date(days)
            .map(&of)
            .ok_or_else(|| Error::invalid(format!("expected a time that `{transform}` can count, found one too far")))
    })?;
    Ok(Arc::new(counted))
}

/// Texts to so many characters, bytes to so many bytes, numbers down to a multiple of `width` (decimals by their unscaled value).
fn truncate(width: u32, values: &ArrayRef) -> Result<ArrayRef> {
    let transform = Transform::Truncate(width);
    if width == 0 {
        return Err(Error::invalid("expected a width of at least 1 to truncate to, found 0"));
    }
    let (take, wide) = (width as usize, i64::from(width));
    let low = || Error::invalid(format!("expected a number that `{transform}` can round down, found one too low"));
    Ok(match values.data_type() {
        DataType::Int32 => {
            let down = |value: i32| value.checked_sub(i64::from(value).rem_euclid(wide).try_into().ok()?);
            Arc::new(values.as_primitive::<Int32Type>().try_unary::<_, Int32Type, Error>(|v| down(v).ok_or_else(low))?)
        }
        DataType::Int64 => {
            let down = |value: i64| value.checked_sub(value.rem_euclid(wide)).ok_or_else(low);
            Arc::new(values.as_primitive::<Int64Type>().try_unary::<_, Int64Type, Error>(down)?)
        }
        DataType::Decimal128(precision, scale) => {
            let down = |value: i128| value.checked_sub(value.rem_euclid(wide.into())).ok_or_else(low);
            let rounded = values.as_primitive::<Decimal128Type>().try_unary::<_, Decimal128Type, Error>(down)?;
            Arc::new(rounded.with_precision_and_scale(*precision, *scale)?)
        }
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => {
            let text = cast(values, &DataType::Utf8)?;
            let cut = |text: &str| text.char_indices().nth(take).map_or(text.len(), |(end, _)| end);
            let cut: StringArray = text.as_string::<i32>().iter().map(|text| text.map(|t| &t[..cut(t)])).collect();
            Arc::new(cut)
        }
        DataType::Binary | DataType::LargeBinary | DataType::BinaryView => {
            let bytes = cast(values, &DataType::Binary)?;
            let cut = |bytes: &[u8]| bytes[..take.min(bytes.len())].to_vec();
            let cut: BinaryArray = bytes.as_binary::<i32>().iter().map(|bytes| bytes.map(cut)).collect();
            Arc::new(cut)
        }
        _ => return Err(unfit(transform, values)),
    })
}

#[cfg(test)]
mod tests {
    use arrow::array::{
        BinaryViewArray, BooleanArray, Date32Array, Decimal128Array, FixedSizeBinaryArray, StringViewArray,
        Time64MicrosecondArray, TimestampMicrosecondArray, TimestampNanosecondArray,
    };

    use super::*;
    use shared::ErrorKind;

    /// The hash itself: the transform's largest number of buckets leaves all of its 31 bits but for the largest.
    fn hashed(values: impl Array + 'static) -> i32 {
        let buckets = apply(Transform::Bucket(i32::MAX as u32), &(Arc::new(values) as ArrayRef)).unwrap();
        buckets.as_primitive::<Int32Type>().value(0)
    }

    fn of_spec(hash: i32) -> i32 {
        (hash & i32::MAX) % i32::MAX
    }

    #[test]
    fn hashes_are_those_of_the_specification() {
        assert_eq!(hashed(Int32Array::from(vec![34])), of_spec(2_017_239_379));
        assert_eq!(hashed(Int64Array::from(vec![34])), of_spec(2_017_239_379));
        let decimal = Decimal128Array::from(vec![1420]).with_precision_and_scale(9, 2).unwrap();
        assert_eq!(hashed(decimal), of_spec(-500_754_589));
        assert_eq!(hashed(Date32Array::from(vec![17_486])), of_spec(-653_330_422));
        assert_eq!(hashed(Time64MicrosecondArray::from(vec![81_068_000_000])), of_spec(-662_762_989));
        let at = 1_510_871_468_000_000;
        assert_eq!(hashed(TimestampMicrosecondArray::from(vec![at])), of_spec(-2_047_944_441));
        assert_eq!(hashed(TimestampMicrosecondArray::from(vec![at + 1])), of_spec(-1_207_196_810));
        assert_eq!(hashed(TimestampNanosecondArray::from(vec![at * 1000])), of_spec(-2_047_944_441));
        assert_eq!(hashed(TimestampNanosecondArray::from(vec![at * 1000 + 1001])), of_spec(-1_207_196_810));
        assert_eq!(hashed(StringArray::from(vec!["iceberg"])), of_spec(1_210_000_089));
        assert_eq!(hashed(StringViewArray::from(vec!["iceberg"])), of_spec(1_210_000_089));
        let uuid = uuid::Uuid::parse_str("f79c3e09-677c-4bbd-a479-3f349cb785e7").unwrap();
        let uuid = FixedSizeBinaryArray::try_from_iter(std::iter::once(uuid.as_bytes())).unwrap();
        assert_eq!(hashed(uuid), of_spec(1_488_055_340));
        assert_eq!(hashed(BinaryArray::from(vec![[0_u8, 1, 2, 3].as_slice()])), of_spec(-188_683_207));
        assert_eq!(hashed(BinaryViewArray::from(vec![[0_u8, 1, 2, 3].as_slice()])), of_spec(-188_683_207));
    }

    #[test]
    fn decimals_are_hashed_by_their_fewest_bytes() {
        assert_eq!(shortest(&0_i128.to_be_bytes()), [0]);
        assert_eq!(shortest(&127_i128.to_be_bytes()), [0x7F]);
        assert_eq!(shortest(&128_i128.to_be_bytes()), [0, 0x80]);
        assert_eq!(shortest(&(-1_i128).to_be_bytes()), [0xFF]);
        assert_eq!(shortest(&(-128_i128).to_be_bytes()), [0x80]);
        assert_eq!(shortest(&(-129_i128).to_be_bytes()), [0xFF, 0x7F]);
    }

    #[test]
    fn times_are_counted_down_from_1970_in_utc() {
        let last_of_1969: ArrayRef = Arc::new(TimestampMicrosecondArray::from(vec![Some(-1), Some(0), None]));
        let counted = |transform| {
            let counted = cast(&apply(transform, &last_of_1969).unwrap(), &DataType::Int32).unwrap();
            counted.as_primitive::<Int32Type>().iter().collect::<Vec<_>>()
        };
        for transform in [Transform::Year, Transform::Month, Transform::Day, Transform::Hour] {
            assert_eq!(counted(transform), [Some(-1), Some(0), None], "{transform}");
        }
        let before: ArrayRef = Arc::new(TimestampNanosecondArray::from(vec![-1]));
        assert_eq!(apply(Transform::Hour, &before).unwrap().as_primitive::<Int32Type>().value(0), -1);
        // 2017-11-16T22:31:08, the example of the specification.
        let example: ArrayRef = Arc::new(TimestampMicrosecondArray::from(vec![1_510_871_468_000_000]));
        let one = |transform| {
            cast(&apply(transform, &example).unwrap(), &DataType::Int32).unwrap().as_primitive::<Int32Type>().value(0)
        };
        assert_eq!(
            [Transform::Year, Transform::Month, Transform::Day, Transform::Hour].map(one),
            [47, 574, 17_486, 419_686]
        );
    }

    #[test]
    fn numbers_are_truncated_down_and_texts_by_characters() {
        let numbers: ArrayRef = Arc::new(Int32Array::from(vec![1, -1, 0, 10, -10]));
        let down = apply(Transform::Truncate(10), &numbers).unwrap();
        assert_eq!(down.as_primitive::<Int32Type>().values(), &[0, -10, 0, 10, -10]);
        let decimal: ArrayRef =
            Arc::new(Decimal128Array::from(vec![1065, -1065]).with_precision_and_scale(9, 2).unwrap());
        let down = apply(Transform::Truncate(50), &decimal).unwrap();
        assert_eq!(down.as_primitive::<Decimal128Type>().values(), &[1050, -1100]);
        let text: ArrayRef = Arc::new(StringArray::from(vec!["iceberg", "öäü", ""]));
        let cut = apply(Transform::Truncate(2), &text).unwrap();
        assert_eq!(cut.as_string::<i32>().iter().flatten().collect::<Vec<_>>(), ["ic", "öä", ""]);
        let lowest: ArrayRef = Arc::new(Int32Array::from(vec![i32::MIN]));
        assert_eq!(apply(Transform::Truncate(10), &lowest).unwrap_err().kind(), ErrorKind::Invalid);
    }

    #[test]
    fn other_types_are_refused() {
        let flags: ArrayRef = Arc::new(BooleanArray::from(vec![true]));
        let transforms = [Transform::Bucket(2), Transform::Truncate(2), Transform::Day, Transform::Year];
        for transform in transforms {
            assert_eq!(apply(transform, &flags).unwrap_err().kind(), ErrorKind::Invalid, "{transform}");
        }
        let dates: ArrayRef = Arc::new(Date32Array::from(vec![0]));
        assert_eq!(apply(Transform::Hour, &dates).unwrap_err().kind(), ErrorKind::Invalid);
    }

    #[test]
    fn a_partition_value_is_a_literal_of_its_type() {
        let ty = Type::Primitive(PrimitiveType::Uuid);
        let uuids: ArrayRef = Arc::new(FixedSizeBinaryArray::try_from_iter(std::iter::once([1_u8; 16])).unwrap());
        let expected = PrimitiveLiteral::UInt128(u128::from_be_bytes([1; 16]));
        assert_eq!(literal(&uuids, 0, &ty).unwrap(), Some(Literal::Primitive(expected)));
        let nothing: ArrayRef = Arc::new(Int64Array::from(vec![None]));
        assert_eq!(literal(&nothing, 0, &Type::Primitive(PrimitiveType::Long)).unwrap(), None);
    }
}
