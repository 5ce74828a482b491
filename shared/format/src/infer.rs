//! The type of a value that is written as text.
//!
//! Only types that queries read back from the same text are inferred: the checks end in the parsers ([`shared::text`]) that they use.

use super::merge::Shape;
use shared::model::ColumnType;
use shared::text;

/// Texts that often stand for no value; they do where the other values of a column have a type.
pub const NULL_TEXTS: [&str; 10] = ["NA", "N/A", "n/a", "NULL", "null", "Null", "\\N", "None", "nil", "#N/A"];

/// The shape of a text: the narrowest of boolean, bigint, decimal(38,0), double, date, timestamp, timestamptz, otherwise string.
///
/// A number with leading zeros is a string (an identifier such as a postal code would lose them), and so are integers of more than
/// 38 digits.
pub fn text_shape(text: &str) -> Shape {
    let bytes = text.as_bytes();
    let ty = match bytes.first() {
        None => return Shape::Unknown,
        Some(b'0'..=b'9' | b'+' | b'-' | b'.') => number(text).or_else(|| instant(text)),
        Some(b't' | b'T' | b'f' | b'F') => boolean(text),
        Some(b'n' | b'N' | b'i' | b'I') => not_finite(text),
        Some(_) => None,
    };
    Shape::Scalar(ty.unwrap_or(ColumnType::String))
}

fn boolean(text: &str) -> Option<ColumnType> {
    text::boolean(text.as_bytes()).is_ok().then_some(ColumnType::Boolean)
}

fn not_finite(text: &str) -> Option<ColumnType> {
    text::not_finite(text.as_bytes()).map(|_| ColumnType::Double)
}

fn number(text: &str) -> Option<ColumnType> {
    let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
    let whole = unsigned.bytes().take_while(u8::is_ascii_digit).count();
    if whole > 1 && unsigned.starts_with('0') {
        return None;
    }
    if whole == unsigned.len() {
        return integer(text, whole);
    }
    if text::double(text.as_bytes()).is_ok() {
        return Some(ColumnType::Double);
    }
    None
}

/// A plus sign is a telephone number's, which a number would lose.
fn integer(text: &str, digits: usize) -> Option<ColumnType> {
    match digits {
        _ if digits == 0 || text.starts_with('+') => None,
        1..=19 if text::integer(text.as_bytes()).is_ok() => Some(ColumnType::BigInt),
        1..=38 => Some(ColumnType::Decimal(38, 0)),
        _ => None,
    }
}

/// `2013-01-02`; `2013-01-02T03:04:05` with `T` or a space, a fraction, a zone.
fn instant(text: &str) -> Option<ColumnType> {
    let bytes = text.as_bytes();
    let dashed = bytes.len() >= 10 && bytes[4] == b'-' && bytes[7] == b'-';
    if !dashed {
        return None;
    }
    if bytes.len() == 10 {
        return text::date(bytes).is_ok().then_some(ColumnType::Date);
    }
    if bytes.len() < 19 || bytes[13] != b':' || bytes[16] != b':' || !text.is_ascii() {
        return None;
    }
    text::timestamp(bytes).ok()?;
    let zone = text[19..].trim_start_matches(|c: char| c == '.' || c == ',' || c.is_ascii_digit());
    Some(if zone.is_empty() { ColumnType::Timestamp } else { ColumnType::TimestampTz })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_have_the_types_that_people_mean() {
        for (text, ty) in [
            ("1", "bigint"),
            ("-17", "bigint"),
            ("0", "bigint"),
            ("9223372036854775807", "bigint"),
            ("9223372036854775808", "decimal(38,0)"),
            ("100000000000000000000000000000000000000000", "string"),
            ("1.5", "double"),
            ("-.5", "double"),
            ("1e5", "double"),
            ("NaN", "double"),
            ("-inf", "double"),
            ("007", "string"),
            ("02139", "string"),
            ("0.5", "double"),
            ("1e400", "string"),
            ("+1.5", "double"),
            ("+491701234567", "string"),
            ("+5", "string"),
            ("1-2", "string"),
            ("1.2.3", "string"),
            ("1,5", "string"),
            ("-", "string"),
            (" 1", "string"),
            ("true", "boolean"),
            ("FALSE", "boolean"),
            ("t", "string"),
            ("2013-01-02", "date"),
            ("2013-02-30", "string"),
            ("20130102", "bigint"),
            ("2013-01-02T03:04:05", "timestamp"),
            ("2013-01-02 03:04:05.123456", "timestamp"),
            ("2013-01-02T03:04:05Z", "timestamptz"),
            ("2013-01-02 03:04:05+01:00", "timestamptz"),
            ("2013-01-02T25:04:05", "string"),
            ("2013-01-02 03:04", "string"),
            ("12:30", "string"),
            ("hello", "string"),
            ("naïve", "string"),
        ] {
            assert_eq!(text_shape(text).column_type().to_string(), ty, "{text}");
        }
        assert_eq!(text_shape(""), Shape::Unknown);
    }
}
