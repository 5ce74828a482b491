//! The expressions by which Glue chooses partitions.

use std::ops::Bound;

use shared::catalog::{KeyFilter, Wanted, filter};
use shared::model::{Column, ColumnType};

/// Bytes of an expression at most.
const MAX_BYTES: usize = 2_048;

/// What the filters ask, as far as an expression can say it: the caller looks at what it gets. `None` when it can say nothing.
pub(super) fn of(keys: &[Column], filters: &[KeyFilter]) -> Option<String> {
    let mut expression = String::new();
    for filter in filters {
        let key = keys.iter().find(|key| key.name == filter.column && is_plain(&key.name));
        let Some(term) = key.and_then(|key| term(key, &filter.wanted)) else { continue };
        let and = if expression.is_empty() { "" } else { " AND " };
        if expression.len() + and.len() + term.len() <= MAX_BYTES {
            expression.push_str(and);
            expression.push_str(&term);
        }
    }
    (!expression.is_empty()).then_some(expression)
}

fn is_plain(name: &str) -> bool {
    name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

fn term(key: &Column, wanted: &Wanted) -> Option<String> {
    let name = &key.name;
    match wanted {
        Wanted::OneOf(values) => {
            let literals = values.iter().map(|value| literal(&key.ty, value)).collect::<Option<Vec<_>>>()?;
            match literals.as_slice() {
                [] => None,
                [one] => Some(format!("{name} = {one}")),
                many => Some(format!("{name} IN ({})", many.join(", "))),
            }
        }
        Wanted::Within(from, to) => {
            let bound = |bound: &Bound<String>, open: &str, closed: &str| match bound {
                Bound::Unbounded => None,
                Bound::Included(value) => Some(format!("{name} {closed} {}", ordered(&key.ty, value)?)),
                Bound::Excluded(value) => Some(format!("{name} {open} {}", ordered(&key.ty, value)?)),
            };
            let bounds: Vec<_> = bound(from, ">", ">=").into_iter().chain(bound(to, "<", "<=")).collect();
            (!bounds.is_empty()).then(|| bounds.join(" AND "))
        }
    }
}

/// A value that others are more or less than. Glue may order text beyond ASCII in another way.
fn ordered(ty: &ColumnType, value: &str) -> Option<String> {
    value.is_ascii().then(|| literal(ty, value)).flatten()
}

fn literal(ty: &ColumnType, value: &str) -> Option<String> {
    match ty {
        ColumnType::String => Some(format!("'{}'", value.replace('\'', "''"))),
        ColumnType::TinyInt | ColumnType::SmallInt | ColumnType::Int | ColumnType::BigInt => {
            // A value such as `007` is another text than `7` and the same number.
            value.parse::<i64>().ok().map(|number| number.to_string())
        }
        ColumnType::Date => filter::is_date(value).then(|| format!("'{value}'")),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys() -> Vec<Column> {
        let of = |name: &str, ty| Column::new(name, ty);
        vec![of("year", ColumnType::Int), of("city", ColumnType::String), of("day", ColumnType::Date)]
    }

    fn one_of(column: &str, values: &[&str]) -> KeyFilter {
        KeyFilter { column: column.into(), wanted: Wanted::OneOf(values.iter().map(|&v| v.to_owned()).collect()) }
    }

    fn within(column: &str, from: Bound<&str>, to: Bound<&str>) -> KeyFilter {
        let wanted = Wanted::Within(from.map(str::to_owned), to.map(str::to_owned));
        KeyFilter { column: column.into(), wanted }
    }

    #[test]
    fn numbers_stand_bare_and_texts_and_dates_in_quotes() {
        let filters = [one_of("year", &["007"]), one_of("city", &["l'Aquila", "Roma"])];
        assert_eq!(of(&keys(), &filters).unwrap(), "year = 7 AND city IN ('l''Aquila', 'Roma')");
        let filters = [
            within("year", Bound::Excluded("2012"), Bound::Unbounded),
            within("day", Bound::Included("2013-01-01"), Bound::Excluded("2013-02-01")),
        ];
        assert_eq!(of(&keys(), &filters).unwrap(), "year > 2012 AND day >= '2013-01-01' AND day < '2013-02-01'");
    }

    #[test]
    fn what_can_not_be_said_is_left_out() {
        assert_eq!(of(&keys(), &[]), None);
        let long: Vec<String> = (0..500).map(|n| n.to_string()).collect();
        let long = KeyFilter { column: "year".into(), wanted: Wanted::OneOf(long) };
        for unsaid in [
            one_of("year", &["old"]),
            one_of("year", &[]),
            one_of("day", &["2013-1-1"]),
            one_of("other", &["1"]),
            within("city", Bound::Included("Zürich"), Bound::Unbounded),
            long,
        ] {
            assert_eq!(of(&keys(), std::slice::from_ref(&unsaid)), None, "{unsaid:?}");
            assert_eq!(of(&keys(), &[unsaid, one_of("year", &["1"])]).unwrap(), "year = 1");
        }
    }
}
