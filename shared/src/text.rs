//! Texts to values: integers, decimals, dates, times. What cells of CSV files, texts in JSON files and records of streams become.

use chrono::NaiveDate;

const MICROS_PER_SECOND: i64 = 1_000_000;
const MICROS_PER_DAY: i64 = 86_400 * MICROS_PER_SECOND;

/// Why a text is no value of a type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Misfit {
    /// It is not written like one.
    Form,
    /// It has digits after those that the type keeps.
    Fraction,
    /// It lies outside the type's range.
    Range,
    /// It is written like a date or time, and calendar or clock have no such month, day, hour, ….
    NoSuch(&'static str),
}

/// A number's text as an integer; a fraction of zeros is none (`7.0`, `7e2`).
pub fn integer(text: &[u8]) -> Result<i64, Misfit> {
    let (negative, digits) = match text {
        [b'-', rest @ ..] => (true, rest),
        all => (false, all),
    };
    if digits.is_empty() || digits.len() > 18 || !digits.iter().all(u8::is_ascii_digit) {
        return decimal(text, 38, 0).and_then(|v| i64::try_from(v).map_err(|_| Misfit::Range));
    }
    let value = digits.iter().fold(0i64, |value, digit| value * 10 + i64::from(digit - b'0'));
    Ok(if negative { -value } else { value })
}

/// Whether the text is a number in digits, as CSV and JSON write it.
pub fn is_number(text: &[u8]) -> bool {
    !matches!(Mantissa::parse(text), Err(Misfit::Form))
}

/// A number's text as the nearest double; digits only, or what stands for no number or for none that is finite (`nan`, `-inf`).
pub fn double(text: &[u8]) -> Result<f64, Misfit> {
    if let Some(value) = not_finite(text) {
        return Ok(value);
    }
    let digits = |byte: &u8| byte.is_ascii_digit() || matches!(byte, b'.' | b'e' | b'E' | b'+' | b'-');
    let text = std::str::from_utf8(text).ok().filter(|text| text.bytes().all(|byte| digits(&byte)));
    match text.and_then(|text| text.parse::<f64>().ok()) {
        Some(value) if value.is_infinite() => Err(Misfit::Range),
        Some(value) => Ok(value),
        None => Err(Misfit::Form),
    }
}

/// What `nan`, `inf` and `infinity` stand for, in any case and with any sign.
pub fn not_finite(text: &[u8]) -> Option<f64> {
    let (sign, word) = match text {
        [b'-', word @ ..] => (-1.0, word),
        [b'+', word @ ..] => (1.0, word),
        word => (1.0, word),
    };
    let is = |name: &[u8]| word.eq_ignore_ascii_case(name);
    match () {
        () if is(b"nan") => Some(f64::NAN),
        () if is(b"inf") || is(b"infinity") => Some(sign * f64::INFINITY),
        () => None,
    }
}

/// `true` or `false`, in any case.
pub fn boolean(text: &[u8]) -> Result<bool, Misfit> {
    match text {
        _ if text.eq_ignore_ascii_case(b"true") => Ok(true),
        _ if text.eq_ignore_ascii_case(b"false") => Ok(false),
        _ => Err(Misfit::Form),
    }
}

/// A number's text times `10^scale`, exactly.
pub fn decimal(text: &[u8], precision: u8, scale: i8) -> Result<i128, Misfit> {
    let number = Mantissa::parse(text)?;
    if number.digits == 0 {
        return Ok(0);
    }
    let shift = number.exponent + i64::from(scale);
    let factor = u32::try_from(shift.unsigned_abs()).ok().and_then(|n| 10i128.checked_pow(n));
    let value = match (shift >= 0, factor) {
        (true, Some(factor)) => number.digits.checked_mul(factor).ok_or(Misfit::Range)?,
        (true, None) => return Err(Misfit::Range),
        // The last digit of the mantissa is not zero, so something is lost.
        (false, _) => return Err(Misfit::Fraction),
    };
    match 10i128.checked_pow(u32::from(precision)) {
        Some(limit) if value < limit => Ok(if number.negative { -value } else { value }),
        _ => Err(Misfit::Range),
    }
}

/// A number's text, written one way: the same for `42`, `042.0` and `4.2e1`.
///
/// # Errors
/// [`Misfit::Form`] for a text that is no number in digits, [`Misfit::Range`] for one of more than 38 digits.
pub fn canonical_number(text: &[u8]) -> Result<String, Misfit> {
    let Mantissa { negative, digits, exponent } = Mantissa::parse(text)?;
    let sign = if negative { "-" } else { "" };
    Ok(if digits == 0 { "0".into() } else { format!("{sign}{digits}e{exponent}") })
}

/// `±digits × 10^exponent`; `digits` ends in no zero.
struct Mantissa {
    negative: bool,
    digits: i128,
    exponent: i64,
}

impl Mantissa {
    fn parse(text: &[u8]) -> Result<Self, Misfit> {
        let (negative, rest) = match text {
            [b'-', rest @ ..] => (true, rest),
            [b'+', rest @ ..] => (false, rest),
            all => (false, all),
        };
        let end = rest.iter().position(|b| matches!(b, b'e' | b'E')).unwrap_or(rest.len());
        let (number, exponent) = rest.split_at(end);
        let mut exponent = match exponent {
            [] => 0,
            [_, digits @ ..] => power(digits)?,
        };
        let (mut digits, mut zeros, mut seen, mut point) = (0i128, 0u32, false, false);
        for byte in number {
            match byte {
                b'.' if !point => point = true,
                b'0'..=b'9' => {
                    seen = true;
                    exponent -= i64::from(point);
                    if *byte == b'0' {
                        zeros += u32::from(digits != 0);
                        continue;
                    }
                    let factor = 10i128.checked_pow(zeros + 1).ok_or(Misfit::Range)?;
                    let digit = i128::from(byte - b'0');
                    digits = digits.checked_mul(factor).and_then(|v| v.checked_add(digit)).ok_or(Misfit::Range)?;
                    zeros = 0;
                }
                _ => return Err(Misfit::Form),
            }
        }
        let exponent = exponent + i64::from(zeros);
        if seen { Ok(Self { negative, digits, exponent }) } else { Err(Misfit::Form) }
    }
}

/// The digits after `e`.
fn power(text: &[u8]) -> Result<i64, Misfit> {
    let text = std::str::from_utf8(text).map_err(|_| Misfit::Form)?;
    let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return Err(Misfit::Form);
    }
    text.parse::<i32>().map(i64::from).map_err(|_| Misfit::Range)
}

/// `2013-01-31` as days since 1970-01-01.
pub fn date(text: &[u8]) -> Result<i32, Misfit> {
    match *text {
        [y1, y2, y3, y4, b'-', m1, m2, b'-', d1, d2] => {
            let year = number(&[y1, y2, y3, y4])?;
            let (month, day) = (number(&[m1, m2])?, number(&[d1, d2])?);
            let part = if (1..=12).contains(&month) { "day" } else { "month" };
            let date = NaiveDate::from_ymd_opt(i32::try_from(year).unwrap_or(0), month, day);
            Ok(date.ok_or(Misfit::NoSuch(part))?.to_epoch_days())
        }
        _ => Err(Misfit::Form),
    }
}

/// An ISO-8601 date and time as microseconds since the epoch; without a zone, UTC is meant.
pub fn timestamp(text: &[u8]) -> Result<i64, Misfit> {
    let (day, rest) = text.split_at_checked(10).ok_or(Misfit::Form)?;
    let day = i64::from(date(day)?) * MICROS_PER_DAY;
    let time = match rest {
        [] => return Ok(day),
        [b'T' | b't' | b' ', time @ ..] => time,
        _ => return Err(Misfit::Form),
    };
    let (time, rest) = time_of_day(time)?;
    Ok(day + time - zone(rest)? * MICROS_PER_SECOND)
}

/// `06:00:00.5` as microseconds since midnight.
pub fn time(text: &[u8]) -> Result<i64, Misfit> {
    match time_of_day(text)? {
        (time, []) => Ok(time),
        _ => Err(Misfit::Form),
    }
}

/// Microseconds since midnight, and what comes after the time.
fn time_of_day(text: &[u8]) -> Result<(i64, &[u8]), Misfit> {
    let (hour, minute, rest) = hour_minute(text)?;
    let (second, rest) = match *rest {
        [b':', s1, s2, ref rest @ ..] => (number(&[s1, s2])?, rest),
        _ => (0, rest),
    };
    let (micros, rest) = match rest {
        [b'.' | b',', rest @ ..] => fraction(rest)?,
        rest => (0, rest),
    };
    match (hour, minute, second) {
        (24.., _, _) => return Err(Misfit::NoSuch("hour")),
        (_, 60.., _) => return Err(Misfit::NoSuch("minute")),
        (_, _, 60..) => return Err(Misfit::NoSuch("second")),
        _ => {}
    }
    Ok((i64::from(hour * 3600 + minute * 60 + second) * MICROS_PER_SECOND + micros, rest))
}

fn hour_minute(text: &[u8]) -> Result<(u32, u32, &[u8]), Misfit> {
    match *text {
        [h1, h2, b':', m1, m2, ref rest @ ..] => Ok((number(&[h1, h2])?, number(&[m1, m2])?, rest)),
        _ => Err(Misfit::Form),
    }
}

/// Microseconds of the digits after the point; those beyond the sixth are cut.
fn fraction(text: &[u8]) -> Result<(i64, &[u8]), Misfit> {
    let digits = text.iter().take_while(|b| b.is_ascii_digit()).count();
    if digits == 0 {
        return Err(Misfit::Form);
    }
    let micros = (0..6).fold(0, |micros, place| {
        let digit = if place < digits { i64::from(text[place] - b'0') } else { 0 };
        micros * 10 + digit
    });
    Ok((micros, &text[digits..]))
}

/// Seconds east of UTC: nothing, `Z`, `+02:00`, `+0200`, `-05`.
fn zone(text: &[u8]) -> Result<i64, Misfit> {
    let text = text.trim_ascii_start();
    let (sign, hours, minutes) = match *text {
        [] | [b'Z' | b'z'] | [b'U', b'T', b'C'] => return Ok(0),
        [sign, h1, h2] => (sign, number(&[h1, h2])?, 0),
        [sign, h1, h2, b':', m1, m2] | [sign, h1, h2, m1, m2] => (sign, number(&[h1, h2])?, number(&[m1, m2])?),
        _ => return Err(Misfit::Form),
    };
    if hours > 23 || minutes > 59 {
        return Err(Misfit::NoSuch("zone"));
    }
    let seconds = i64::from(hours * 3600 + minutes * 60);
    match sign {
        b'+' => Ok(seconds),
        b'-' => Ok(-seconds),
        _ => Err(Misfit::Form),
    }
}

fn number(digits: &[u8]) -> Result<u32, Misfit> {
    digits.iter().try_fold(0u32, |value, digit| match digit {
        b'0'..=b'9' => Ok(value * 10 + u32::from(digit - b'0')),
        _ => Err(Misfit::Form),
    })
}

#[cfg(test)]
mod tests {
    use chrono::DateTime;
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn times_of_day_are_microseconds_since_midnight() {
        assert_eq!(time(b"00:00"), Ok(0));
        assert_eq!(time(b"23:59:59.9999999"), Ok(MICROS_PER_DAY - 1));
        for (text, why) in
            [("24:00:00", Misfit::NoSuch("hour")), ("06:00Z", Misfit::Form), ("6:00", Misfit::Form), ("", Misfit::Form)]
        {
            assert_eq!(time(text.as_bytes()), Err(why), "{text}");
        }
    }

    #[test]
    fn integers_are_exact_or_refused() {
        assert_eq!(integer(b"-42"), Ok(-42));
        assert_eq!(integer(b"9223372036854775807"), Ok(i64::MAX));
        assert_eq!(integer(b"-9223372036854775808"), Ok(i64::MIN));
        assert_eq!(integer(b"9223372036854775808"), Err(Misfit::Range));
        assert_eq!(integer(b"517.0"), Ok(517));
        assert_eq!(integer(b"2e3"), Ok(2000));
        assert_eq!(integer(b"1.5"), Err(Misfit::Fraction));
        assert_eq!(integer(b"1e99999999999"), Err(Misfit::Range));
        assert_eq!(integer(b""), Err(Misfit::Form));
        assert_eq!(integer(b"-"), Err(Misfit::Form));
        assert_eq!(integer(b"12a"), Err(Misfit::Form));
    }

    #[test]
    fn decimals_are_exact_or_refused() {
        assert_eq!(decimal(b"12.5", 10, 2), Ok(1250));
        assert_eq!(decimal(b"-0.010", 10, 2), Ok(-1));
        assert_eq!(decimal(b"1e2", 5, 2), Ok(10_000));
        assert_eq!(decimal(b"1e3", 5, 2), Err(Misfit::Range));
        assert_eq!(decimal(b"0.125", 10, 2), Err(Misfit::Fraction));
        assert_eq!(decimal(b"0.00", 10, 2), Ok(0));
        assert_eq!(decimal(b"0e9999", 10, 2), Ok(0));
        assert_eq!(decimal(b"99999999999999999999999999999999999999", 38, 0), Ok(10i128.pow(38) - 1));
        assert_eq!(decimal(b"100000000000000000000000000000000000000", 38, 0), Err(Misfit::Range));
        for bad in ["", ".", "1.2.3", "abc", "1e", "--1"] {
            assert_eq!(decimal(bad.as_bytes(), 10, 2), Err(Misfit::Form), "{bad}");
        }
    }

    #[test]
    fn a_number_is_written_one_way() {
        for same in ["42", "042", "+42.0", "4.2e1", "420e-1"] {
            assert_eq!(canonical_number(same.as_bytes()).unwrap(), "42e0", "{same}");
        }
        assert_eq!(canonical_number(b"-0.50").unwrap(), "-5e-1");
        assert_eq!(canonical_number(b"-0.0").unwrap(), "0");
        assert_ne!(canonical_number(b"1.1"), canonical_number(b"1.01"));
        for none in ["", "-", "1.2.3", "1e", "x", "0x1", "1 2"] {
            assert_eq!(canonical_number(none.as_bytes()), Err(Misfit::Form), "{none}");
        }
    }

    #[test]
    fn times_in_any_zone_become_utc() {
        let expected = DateTime::parse_from_rfc3339("2013-01-31T04:30:05.250Z").unwrap().timestamp_micros();
        for text in [
            "2013-01-31T04:30:05.25Z",
            "2013-01-31 04:30:05.250",
            "2013-01-31T06:30:05.250000+02:00",
            "2013-01-30T23:30:05.25-0500",
            "2013-01-31 04:30:05.250000999 UTC",
        ] {
            assert_eq!(timestamp(text.as_bytes()), Ok(expected), "{text}");
        }
        assert_eq!(timestamp(b"1970-01-02"), Ok(MICROS_PER_DAY));
        assert_eq!(timestamp(b"1970-01-01T00:01"), Ok(60 * MICROS_PER_SECOND));
    }

    #[test]
    fn a_time_that_is_none_is_refused() {
        for bad in [
            "",
            "2013-02-30",
            "2013-01-31T25:00:00",
            "2013-01-31T10:00:00 Paris",
            "2013-01-31T10:00:00.",
            "20130131",
            "é013-01-31",
        ] {
            assert!(timestamp(bad.as_bytes()).is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn every_integer_survives_its_text(value: i64) {
            prop_assert_eq!(integer(value.to_string().as_bytes()), Ok(value));
        }

        #[test]
        fn every_decimal_survives_its_text(value in -(10i128.pow(20))..10i128.pow(20), scale in 0i8..10) {
            let text = format!("{value}e-{scale}");
            prop_assert_eq!(decimal(text.as_bytes(), 38, scale), Ok(value));
        }

        #[test]
        fn every_time_survives_its_text(seconds in -62_000_000_000i64..250_000_000_000, micros in 0u32..1_000_000) {
            let time = DateTime::from_timestamp(seconds, micros * 1000).unwrap();
            let text = time.to_rfc3339();
            prop_assert_eq!(timestamp(text.as_bytes()), Ok(time.timestamp_micros()));
        }
    }
}
