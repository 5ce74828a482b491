//! What a caller asks of the values of a table's partitions.

use std::ops::Bound;

use crate::model::{Column, ColumnType};

/// The value that Hive writes for null.
pub const NULL_VALUE: &str = "__HIVE_DEFAULT_PARTITION__";

/// What the value of a partition column must be; null is never it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyFilter {
    /// Name of the column.
    pub column: String,
    pub wanted: Wanted,
}

/// Values as a partition has them: text as it is, whole numbers in digits, dates as `2013-01-31`. They are compared as the
/// column's type has it: `007` is the number 7.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wanted {
    OneOf(Vec<String>),
    Within(Bound<String>, Bound<String>),
}

/// A value in the order of its type.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Typed<'a> {
    Text(&'a str),
    Number(i64),
}

/// `None` when values of the type are not compared, or `value` is none of them.
fn typed<'a>(ty: &ColumnType, value: &'a str) -> Option<Typed<'a>> {
    match ty {
        ColumnType::String => Some(Typed::Text(value)),
        ColumnType::TinyInt | ColumnType::SmallInt | ColumnType::Int | ColumnType::BigInt => {
            value.parse().ok().map(Typed::Number)
        }
        ColumnType::Date => is_date(value).then_some(Typed::Text(value)),
        _ => None,
    }
}

/// Whether the text is a date whose order is that of its text.
pub fn is_date(text: &str) -> bool {
    let digits = |text: &[u8]| text.iter().all(u8::is_ascii_digit);
    match text.as_bytes() {
        [a, b, c, d, b'-', e, f, b'-', g, h] => digits(&[*a, *b, *c, *d, *e, *f, *g, *h]),
        _ => false,
    }
}

impl Wanted {
    /// Whether a column of type `ty` that has `value` may match: a value that can't be compared may.
    fn admits(&self, ty: &ColumnType, value: &str) -> bool {
        if value == NULL_VALUE {
            return false;
        }
        let Some(value) = typed(ty, value) else { return true };
        match self {
            Self::OneOf(wanted) => wanted.iter().any(|wanted| typed(ty, wanted).is_none_or(|wanted| wanted == value)),
            Self::Within(from, to) => {
                let above = match from {
                    Bound::Unbounded => true,
                    Bound::Included(from) => typed(ty, from).is_none_or(|from| value >= from),
                    Bound::Excluded(from) => typed(ty, from).is_none_or(|from| value > from),
                };
                let below = match to {
                    Bound::Unbounded => true,
                    Bound::Included(to) => typed(ty, to).is_none_or(|to| value <= to),
                    Bound::Excluded(to) => typed(ty, to).is_none_or(|to| value < to),
                };
                above && below
            }
        }
    }
}

/// Whether a partition with these values may match all filters.
pub fn admit(filters: &[KeyFilter], keys: &[Column], values: &[String]) -> bool {
    let admits = |(key, value): (&Column, &String)| {
        filters.iter().filter(|filter| filter.column == key.name).all(|filter| filter.wanted.admits(&key.ty, value))
    };
    keys.iter().zip(values).all(admits)
}

/// The texts that the first partition columns must have, as far as the filters leave one for each.
pub fn prefix(filters: &[KeyFilter], keys: &[Column]) -> Vec<String> {
    let only = |key: &Column| {
        let of_key = filters.iter().filter(|filter| filter.column == key.name && key.ty == ColumnType::String);
        of_key.into_iter().find_map(|filter| match &filter.wanted {
            Wanted::OneOf(values) if values.len() == 1 => values.first().cloned(),
            _ => None,
        })
    };
    keys.iter().map_while(only).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn admits(ty: &ColumnType, wanted: &Wanted, values: &[&str]) -> Vec<bool> {
        values.iter().map(|value| wanted.admits(ty, value)).collect()
    }

    fn one_of(values: &[&str]) -> Wanted {
        Wanted::OneOf(values.iter().map(|&v| v.to_owned()).collect())
    }

    #[test]
    fn values_are_compared_as_their_type_has_it() {
        let values = ["7", "007", "8", "10", NULL_VALUE];
        assert_eq!(admits(&ColumnType::Int, &one_of(&["7"]), &values), [true, true, false, false, false]);
        assert_eq!(admits(&ColumnType::String, &one_of(&["7", "10"]), &values), [true, false, false, true, false]);
        let above = Wanted::Within(Bound::Excluded("7".into()), Bound::Unbounded);
        assert_eq!(admits(&ColumnType::BigInt, &above, &values), [false, false, true, true, false]);
        assert_eq!(admits(&ColumnType::String, &above, &values), [false, false, true, false, false]);
        let days = Wanted::Within(Bound::Included("2013-01-02".into()), Bound::Excluded("2013-02-01".into()));
        let values = ["2013-01-01", "2013-01-02", "2013-01-31", "2013-02-01"];
        assert_eq!(admits(&ColumnType::Date, &days, &values), [false, true, true, false]);
    }

    #[test]
    fn what_can_not_be_compared_may_match() {
        assert_eq!(admits(&ColumnType::Int, &one_of(&["7"]), &["old"]), [true]);
        assert_eq!(admits(&ColumnType::Int, &one_of(&["old"]), &["7"]), [true]);
        assert_eq!(admits(&ColumnType::Date, &one_of(&["2013-01-02"]), &["2013-1-2"]), [true]);
        assert_eq!(admits(&ColumnType::Double, &one_of(&["1"]), &["1.0"]), [true]);
    }

    #[test]
    fn a_prefix_ends_at_the_first_column_that_is_not_a_single_text() {
        let of = |name: &str, ty| Column::new(name, ty);
        let keys = [of("a", ColumnType::String), of("b", ColumnType::String), of("c", ColumnType::Int)];
        let filter = |column: &str, values: &[&str]| KeyFilter { column: column.into(), wanted: one_of(values) };
        assert_eq!(prefix(&[filter("b", &["x"]), filter("a", &["y"]), filter("c", &["1"])], &keys), ["y", "x"]);
        assert_eq!(prefix(&[filter("a", &["x", "y"]), filter("b", &["x"])], &keys), Vec::<String>::new());
    }
}
