//! Maintenance of tables, as workflows declare it beside their SQL jobs.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::file::fifteen_minutes;
use super::units::{ByteSize, Seconds};

/// Maintenance of an Iceberg table: its files are put together, then old snapshots expire, then orphans go. What is not named is not
/// done.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Maintenance {
    /// `table` or `database.table`.
    pub table: String,
    /// Put small files together, apply row-level deletes, sort.
    pub compact: Option<Compaction>,
    /// Remove old snapshots, and the files that only they name.
    pub expire: Option<Expiry>,
    /// Remove files of the table's folder that nothing names.
    pub orphans: Option<OrphanRemoval>,
    /// Report what would be done, change nothing (default: false).
    #[serde(default)]
    pub dry_run: bool,
    /// Jobs of this workflow that must succeed first; those that write the table are found without being named.
    #[serde(default)]
    pub after: Vec<String>,
    /// Tries after the first one fails, 0 to 10 (default: 0).
    #[serde(default)]
    pub retries: u32,
    /// How long one try may take (default: 15m).
    #[serde(default = "fifteen_minutes")]
    pub timeout: Seconds,
    pub description: Option<String>,
}

/// How files are put together.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Compaction {
    /// Columns to sort the rows by, `column` or `column desc` (default: rows stay in their order).
    #[serde(default)]
    pub sort: Vec<String>,
    /// Columns in all of which near rows should be near each other; not together with `sort`.
    #[serde(default)]
    pub z_order: Vec<String>,
    /// Bytes of a file, 1MiB to 4GiB (default: the table's `write.target-file-size-bytes`, or 128MiB).
    pub file_size: Option<ByteSize>,
    /// Files of a partition from which on they are put together, 2 to 1,000 (default: 5).
    pub min_files: Option<u32>,
}

/// Which snapshots go.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Expiry {
    /// Age from which on (default: the table's `history.expire.max-snapshot-age-ms`, or 5d).
    pub older_than: Option<Seconds>,
    /// Snapshots that stay however old they are, 1 or more (default: the table's `history.expire.min-snapshots-to-keep`, or 1).
    pub keep: Option<u32>,
}

/// Which orphans go.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct OrphanRemoval {
    /// Age from which on, 1d or more, because younger files may belong to a writer at work (default: 3d).
    pub older_than: Option<Seconds>,
}

/// A column to sort by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SortColumn {
    pub column: String,
    pub descending: bool,
}

impl Compaction {
    /// The columns of `sort`.
    ///
    /// # Errors
    /// `Invalid` for a text that is neither `column` nor `column desc`.
    pub fn sort_columns(&self) -> crate::Result<Vec<SortColumn>> {
        self.sort.iter().map(|text| SortColumn::parse(text)).collect()
    }
}

impl SortColumn {
    /// `column`, `column asc` or `column desc`.
    ///
    /// # Errors
    /// `Invalid` for anything else.
    pub fn parse(text: &str) -> crate::Result<Self> {
        let (column, descending) = match text.split_whitespace().collect::<Vec<_>>().as_slice() {
            [column] => (*column, false),
            [column, way] if way.eq_ignore_ascii_case("asc") => (*column, false),
            [column, way] if way.eq_ignore_ascii_case("desc") => (*column, true),
            _ => return Err(crate::Error::invalid(format!("expected `column` or `column desc`, found `{text}`"))),
        };
        crate::model::name::check_identifier("column", column)?;
        Ok(Self { column: column.to_owned(), descending })
    }
}
