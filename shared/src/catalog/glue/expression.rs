//! The expressions by which Glue chooses partitions.

use crate::model::{Column, ColumnType};

/// That the first partition columns have these values; `None` when that is always so or can't be said. What can't be said of a
/// column is left out: the caller looks at what it gets.
pub(super) fn equals(keys: &[Column], values: &[String]) -> Option<String> {
    let terms: Vec<_> = keys.iter().zip(values).filter_map(|(key, value)| term(key, value)).collect();
    (!terms.is_empty()).then(|| terms.join(" AND "))
}

fn term(key: &Column, value: &str) -> Option<String> {
    let name = &key.name;
    match key.ty {
        ColumnType::String => Some(format!("{name} = '{}'", value.replace('\'', "''"))),
        ColumnType::TinyInt | ColumnType::SmallInt | ColumnType::Int | ColumnType::BigInt => {
            // A value such as `007` is another text than `7` and the same number.
            value.parse::<i64>().ok().map(|number| format!("{name} = {number}"))
        }
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

    #[test]
    fn numbers_stand_bare_and_texts_in_quotes() {
        let values = ["2013", "l'Aquila", "2013-01-01"].map(str::to_owned);
        assert_eq!(equals(&keys(), &values).unwrap(), "year = 2013 AND city = 'l''Aquila'");
        assert_eq!(equals(&keys(), &values[..1]).unwrap(), "year = 2013");
    }

    #[test]
    fn what_can_not_be_said_is_left_out() {
        assert_eq!(equals(&keys(), &[]), None);
        assert_eq!(equals(&keys(), &["__HIVE_DEFAULT_PARTITION__".into()]), None);
    }
}
