//! Names of databases, tables and columns, as Athena accepts them.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// A table and the database that holds it; both lowercase.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct TableName {
    pub database: String,
    pub table: String,
}

impl TableName {
    /// Checks both parts.
    ///
    /// # Errors
    /// `Invalid` when a part breaks [`check_identifier`].
    pub fn new(database: impl Into<String>, table: impl Into<String>) -> Result<Self> {
        let (database, table) = (database.into(), table.into());
        check_identifier("database", &database)?;
        check_identifier("table", &table)?;
        Ok(Self { database, table })
    }

    /// Parses `table` or `database.table`; a bare table lies in `default_database`.
    ///
    /// # Errors
    /// `Invalid` when there are more than two parts or a part is not an identifier.
    pub fn parse(text: &str, default_database: &str) -> Result<Self> {
        match text.split('.').collect::<Vec<_>>().as_slice() {
            [table] => Self::new(default_database, *table),
            [database, table] => Self::new(*database, *table),
            _ => Err(Error::invalid(format!("expected `table` or `database.table`, found `{text}`"))),
        }
    }
}

impl fmt::Display for TableName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.database, self.table)
    }
}

impl FromStr for TableName {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text.split_once('.') {
            Some((database, table)) => Self::new(database, table),
            None => Err(Error::invalid(format!("expected `database.table`, found `{text}`"))),
        }
    }
}

/// Checks that `name` is lowercase letters, digits and underscores, begins with no digit, and has 1 to 255 of them: what
/// Glue, Athena and Iceberg readers all accept without quotes.
///
/// # Errors
/// `Invalid`, naming `what` and `name`.
pub fn check_identifier(what: &str, name: &str) -> Result<()> {
    let head_fits = name.starts_with(|c: char| c.is_ascii_lowercase() || c == '_');
    let rest_fits = name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
    if head_fits && rest_fits && name.len() <= 255 {
        return Ok(());
    }
    Err(Error::invalid(format!(
        "expected a {what} name of 1 to 255 lowercase letters, digits and underscores that begins with no digit, found `{name}`"
    )))
}

/// Turns any text (a CSV header, a JSON key) into a column's name: as [`to_identifier`], but letters and digits of every script stay,
/// which Glue and Athena take in columns.
pub fn to_column_name(text: &str) -> String {
    let lower = text.trim().to_lowercase();
    let mut name = String::with_capacity(lower.len());
    for c in lower.chars().map(|c| if c.is_alphanumeric() { c } else { '_' }) {
        if name.len() + c.len_utf8() > 254 {
            break;
        }
        name.push(c);
    }
    if !name.starts_with(|c: char| c.is_alphabetic() || c == '_') {
        name.insert(0, '_');
    }
    name
}

/// Turns any text (a folder, a file's name) into an identifier that [`check_identifier`] accepts: lowercased, every other
/// character an underscore, an underscore before a leading digit. An empty text becomes `_`.
pub fn to_identifier(text: &str) -> String {
    let mut name: String = text
        .trim()
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '_' })
        .take(254)
        .collect();
    if !name.starts_with(|c: char| c.is_ascii_lowercase() || c == '_') {
        name.insert(0, '_');
    }
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bare_table_lies_in_the_default_database() {
        let name = TableName::parse("flights", "nyc").unwrap();
        assert_eq!(name.to_string(), "nyc.flights");
        assert_eq!(TableName::parse("a.b", "nyc").unwrap().to_string(), "a.b");
    }

    #[test]
    fn names_that_athena_would_quote_are_refused_with_the_name() {
        for bad in ["", "Flights", "1st", "a-b", "a b", "a.b.c"] {
            let error = TableName::parse(bad, "nyc").unwrap_err();
            assert!(error.to_string().contains(&format!("`{bad}`")), "{error}");
        }
    }

    #[test]
    fn any_text_becomes_an_identifier() {
        for text in ["Dep Time", "1st", "", "é", "a-b"] {
            check_identifier("column", &to_identifier(text)).unwrap();
        }
        assert_eq!(to_identifier("Dep Time"), "dep_time");
    }

    #[test]
    fn columns_keep_the_letters_of_every_script() {
        for (text, name) in
            [("年齢", "年齢"), ("Größe (cm)", "größe__cm_"), ("Dep Time", "dep_time"), ("1st", "_1st"), ("", "_")]
        {
            assert_eq!(to_column_name(text), name);
        }
    }
}
