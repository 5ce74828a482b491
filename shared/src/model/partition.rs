//! How a table is partitioned.

use std::fmt;
use std::str::FromStr;

use super::text::text_type;
use crate::{Error, Result};

/// An Iceberg partition transform.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Transform {
    Identity,
    Year,
    Month,
    Day,
    Hour,
    Bucket(u32),
    Truncate(u32),
}

/// A partition field: `carrier`, `day(time_hour)`, `bucket(16, id)`, `truncate(4, name)`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct PartitionField {
    pub column: String,
    pub transform: Transform,
}

text_type!(
    PartitionField,
    r"^([a-z_][a-z0-9_]*|(year|month|day|hour)\(.+\)|(bucket|truncate)\([0-9]+, ?.+\))$",
    "day(time_hour)"
);

impl FromStr for PartitionField {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let unknown = || {
            // A list of YAML parts at commas.
            let is_cut = text.contains('(') && !text.contains(')');
            let hint = if is_cut { ": a field with a comma stands in quotes, as \"bucket(16, id)\"" } else { "" };
            Error::invalid(format!(
                "expected a column, or year|month|day|hour(column), bucket(n, column), truncate(n, column), found `{text}`{hint}"
            ))
        };
        let Some((name, rest)) = text.trim().split_once('(') else {
            return Ok(Self { column: text.trim().into(), transform: Transform::Identity });
        };
        let arguments: Vec<&str> = rest.strip_suffix(')').ok_or_else(unknown)?.split(',').map(str::trim).collect();
        let sized = |n: &str| n.parse::<u32>().ok().filter(|n| *n > 0).ok_or_else(unknown);
        let (transform, column) = match (name.trim(), arguments.as_slice()) {
            ("year", [column]) => (Transform::Year, column),
            ("month", [column]) => (Transform::Month, column),
            ("day", [column]) => (Transform::Day, column),
            ("hour", [column]) => (Transform::Hour, column),
            ("bucket", [n, column]) => (Transform::Bucket(sized(n)?), column),
            ("truncate", [n, column]) => (Transform::Truncate(sized(n)?), column),
            _ => return Err(unknown()),
        };
        Ok(Self { column: (*column).into(), transform })
    }
}

impl fmt::Display for PartitionField {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let column = &self.column;
        match self.transform {
            Transform::Identity => f.write_str(column),
            Transform::Year => write!(f, "year({column})"),
            Transform::Month => write!(f, "month({column})"),
            Transform::Day => write!(f, "day({column})"),
            Transform::Hour => write!(f, "hour({column})"),
            Transform::Bucket(n) => write!(f, "bucket({n}, {column})"),
            Transform::Truncate(n) => write!(f, "truncate({n}, {column})"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_survives_its_text_and_a_wrong_one_is_refused() {
        for text in ["carrier", "day(time_hour)", "bucket(16, id)", "truncate(4, name)"] {
            assert_eq!(text.parse::<PartitionField>().unwrap().to_string(), text);
        }
        for text in ["week(ts)", "bucket(0, id)"] {
            assert!(text.parse::<PartitionField>().is_err());
        }
        let cut = "bucket(4".parse::<PartitionField>().unwrap_err();
        assert!(cut.to_string().ends_with("stands in quotes, as \"bucket(16, id)\""), "{cut}");
    }
}
