//! Maintenance of tables, as workflows declare it beside their SQL jobs, and as it is done by default.

use std::collections::{BTreeMap, BTreeSet};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::file::{LakehouseFile, Workflow, fifteen_minutes};
use super::switch::{Switch, Switched};
use super::units::{ByteSize, Schedule, Seconds};
use crate::Result;
use crate::model::TableName;

/// The workflow that keeps the tables which no other one keeps.
pub const DEFAULT_WORKFLOW: &str = "maintenance";

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

/// How the tables of streams, and the table of the workflows' runs, are kept unless a workflow's own `maintenance` names them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct MaintenancePolicy {
    /// When (default: cron(0 3 * * *), each night at 3 in UTC).
    #[serde(default = "nightly")]
    pub schedule: Schedule,
    /// How small files are put together, or `off`. Without `sort` and `z_order`, as tables have different columns.
    #[serde(default)]
    pub compact: Switched<Compaction>,
    /// Which old snapshots go, or `off`. Those from which on an incremental job reads stay.
    #[serde(default)]
    pub expire: Switched<Expiry>,
    /// Which files go that nothing names, or `off`.
    #[serde(default)]
    pub orphans: Switched<OrphanRemoval>,
}

impl Default for MaintenancePolicy {
    fn default() -> Self {
        let (compact, expire, orphans) = Default::default();
        Self { schedule: nightly(), compact, expire, orphans }
    }
}

fn nightly() -> Schedule {
    Schedule::Cron("0 3 * * *".into())
}

impl MaintenancePolicy {
    /// The workflow that follows the policy in a validated file: a job for each table, which is named by it. None without tables.
    ///
    /// # Errors
    /// `Bug` when the file was not validated.
    pub(super) fn workflow(&self, file: &LakehouseFile) -> Result<Option<Workflow>> {
        let does = [self.compact.on().is_some(), self.expire.on().is_some(), self.orphans.on().is_some()];
        let tables = tables_by_default(file)?;
        if tables.is_empty() || !does.contains(&true) {
            return Ok(None);
        }
        let maintenance: BTreeMap<String, Maintenance> =
            tables.into_iter().map(|table| (table.to_string(), self.of(&table))).collect();
        Ok(Some(Workflow {
            schedule: Some(self.schedule.clone()),
            parameters: BTreeMap::new(),
            jobs: BTreeMap::new(),
            maintenance,
            parallel: 1,
            description: None,
        }))
    }

    fn of(&self, table: &TableName) -> Maintenance {
        Maintenance {
            table: table.to_string(),
            compact: self.compact.on().cloned(),
            expire: self.expire.on().cloned(),
            orphans: self.orphans.on().cloned(),
            dry_run: false,
            after: Vec::new(),
            retries: 0,
            timeout: fifteen_minutes(),
            description: None,
        }
    }
}

/// The tables that are kept by default.
fn tables_by_default(file: &LakehouseFile) -> Result<BTreeSet<TableName>> {
    if file.streams.is_empty() && file.workflows.is_empty() {
        return Ok(BTreeSet::new());
    }
    let kept = file.streams.iter().filter(|(_, stream)| stream.maintenance == Switch::On);
    let tables = kept.map(|(name, stream)| stream.table.as_deref().unwrap_or(name));
    let tables = tables.map(|table| TableName::parse(table, &file.database));
    let named = file.workflows.values().flat_map(|workflow| workflow.maintenance.values());
    let named = named.map(|maintenance| TableName::parse(&maintenance.table, &file.database));
    let named: BTreeSet<TableName> = named.collect::<Result<_>>()?;
    let mut tables: BTreeSet<TableName> = tables.collect::<Result<_>>()?;
    tables.insert(TableName::new(&file.system_database, "runs")?);
    tables.retain(|table| !named.contains(table));
    Ok(tables)
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
