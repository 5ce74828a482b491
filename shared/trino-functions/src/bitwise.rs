//! Bits of integers.

use super::call::{Bigint, Integer, Smallint, Tinyint, invalid, one, two};
use super::{Function, scalar};

const SECTION: &str = "Bitwise";

pub(super) fn functions() -> Vec<Function> {
    vec![
        scalar(SECTION, "bit_count", "the ones among the lowest `bits` bits of two's complement")
            .way("bit_count(bigint, bigint) -> bigint", two::<Bigint, Bigint, i64, _>(bit_count))
            .example("bit_count(9, 64)", "2")
            .example("bit_count(-7, 8)", "6"),
        scalar(SECTION, "bitwise_and", "the bits that both have")
            .way("bitwise_and(bigint, bigint) -> bigint", two::<Bigint, Bigint, i64, _>(|x, y| x & y))
            .example("bitwise_and(19, 25)", "17"),
        scalar(SECTION, "bitwise_or", "the bits that one of them has")
            .way("bitwise_or(bigint, bigint) -> bigint", two::<Bigint, Bigint, i64, _>(|x, y| x | y))
            .example("bitwise_or(19, 25)", "27"),
        scalar(SECTION, "bitwise_xor", "the bits that only one of them has")
            .way("bitwise_xor(bigint, bigint) -> bigint", two::<Bigint, Bigint, i64, _>(|x, y| x ^ y))
            .example("bitwise_xor(19, 25)", "10"),
        scalar(SECTION, "bitwise_not", "all bits turned")
            .way("bitwise_not(bigint) -> bigint", one::<Bigint, i64, _>(|x| !x))
            .example("bitwise_not(19)", "-20"),
        scalar(SECTION, "bitwise_left_shift", "the bits so many places higher; those past the type are lost")
            .way(
                "bitwise_left_shift(tinyint, bigint) -> tinyint",
                two::<Tinyint, Bigint, i8, _>(|x, by| left(x, by, i8::checked_shl)),
            )
            .way(
                "bitwise_left_shift(smallint, bigint) -> smallint",
                two::<Smallint, Bigint, i16, _>(|x, by| left(x, by, i16::checked_shl)),
            )
            .way(
                "bitwise_left_shift(integer, bigint) -> integer",
                two::<Integer, Bigint, i32, _>(|x, by| left(x, by, i32::checked_shl)),
            )
            .way(
                "bitwise_left_shift(bigint, bigint) -> bigint",
                two::<Bigint, Bigint, i64, _>(|x, by| left(x, by, i64::checked_shl)),
            )
            .example("bitwise_left_shift(1, 2)", "4")
            .example("bitwise_left_shift(5, 100)", "0"),
        scalar(SECTION, "bitwise_right_shift", "the bits so many places lower, with zeros from above")
            .way(
                "bitwise_right_shift(tinyint, bigint) -> tinyint",
                two::<Tinyint, Bigint, i8, _>(|x, by| left(x.cast_unsigned(), by, u8::checked_shr).cast_signed()),
            )
            .way(
                "bitwise_right_shift(smallint, bigint) -> smallint",
                two::<Smallint, Bigint, i16, _>(|x, by| left(x.cast_unsigned(), by, u16::checked_shr).cast_signed()),
            )
            .way(
                "bitwise_right_shift(integer, bigint) -> integer",
                two::<Integer, Bigint, i32, _>(|x, by| left(x.cast_unsigned(), by, u32::checked_shr).cast_signed()),
            )
            .way(
                "bitwise_right_shift(bigint, bigint) -> bigint",
                two::<Bigint, Bigint, i64, _>(|x, by| left(x.cast_unsigned(), by, u64::checked_shr).cast_signed()),
            )
            .example("bitwise_right_shift(8, 3)", "1")
            .example("bitwise_right_shift(BIGINT '-8', 62)", "3"),
        scalar(SECTION, "bitwise_right_shift_arithmetic", "the bits so many places lower, with the sign from above")
            .way(
                "bitwise_right_shift_arithmetic(tinyint, bigint) -> tinyint",
                two::<Tinyint, Bigint, i8, _>(|x, by| kept(x, by, i8::checked_shr, x >> 7)),
            )
            .way(
                "bitwise_right_shift_arithmetic(smallint, bigint) -> smallint",
                two::<Smallint, Bigint, i16, _>(|x, by| kept(x, by, i16::checked_shr, x >> 15)),
            )
            .way(
                "bitwise_right_shift_arithmetic(integer, bigint) -> integer",
                two::<Integer, Bigint, i32, _>(|x, by| kept(x, by, i32::checked_shr, x >> 31)),
            )
            .way(
                "bitwise_right_shift_arithmetic(bigint, bigint) -> bigint",
                two::<Bigint, Bigint, i64, _>(|x, by| kept(x, by, i64::checked_shr, x >> 63)),
            )
            .example("bitwise_right_shift_arithmetic(-8, 2)", "-2")
            .example("bitwise_right_shift_arithmetic(-8, 64)", "-1"),
    ]
}

fn bit_count(x: i64, bits: i64) -> datafusion::common::Result<i64> {
    let shift = u32::try_from(bits).ok().filter(|bits| (2..=64).contains(bits)).map(|bits| 64 - bits);
    let shift = shift.ok_or_else(|| invalid(format!("expected bits between 2 and 64, found {bits}")))?;
    if (x << shift) >> shift != x {
        return Err(invalid(format!("expected a number of at most {bits} bits, found {x}")));
    }
    Ok(i64::from((x.cast_unsigned() << shift).count_ones()))
}

/// The shifted value; zero past the type's bits.
fn left<T: Default>(x: T, by: i64, shift: fn(T, u32) -> Option<T>) -> T {
    u32::try_from(by).ok().and_then(|by| shift(x, by)).unwrap_or_default()
}

/// The shifted value; `past` past the type's bits.
fn kept<T>(x: T, by: i64, shift: fn(T, u32) -> Option<T>, past: T) -> T {
    u32::try_from(by).ok().and_then(|by| shift(x, by)).unwrap_or(past)
}
