//! Iceberg tables: create, load, commit, read (current, time travel, what was added, what changed), also those that others
//! wrote: v1 to v3, with row-level deletes of every kind.
//!
//! A commit is: build from the current metadata, write new metadata under a fresh name, swap the catalog's pointer under its
//! version; on conflict reload, validate, rebase, retry. A [`Token`] stored in the snapshot that holds the rows makes a commit
//! happen exactly once.

mod address;
mod alter;
mod change;
mod changes;
mod commit;
mod conform;
mod create;
mod deletes;
mod drop;
mod expire;
mod field_id;
mod files;
pub mod floats;
mod io;
mod lineage;
mod live;
mod manifest_names;
mod manifests;
mod merge;
mod metadata_tables;
mod metrics;
mod orphans;
mod ownership;
mod properties;
mod prune;
mod reach;
mod refs;
mod register;
mod reshape;
mod revise;
mod rewrite;
mod rows;
mod scan;
mod schema;
mod snapshot;
mod source;
mod span;
mod summary;
#[cfg(test)]
mod tests;
mod transcode;
mod transform;
mod write;

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use datafusion::catalog::TableProvider;
use datafusion::execution::SendableRecordBatchStream;
use datafusion::execution::memory_pool::MemoryPool;
use datafusion::logical_expr::Expr;
use iceberg::spec::{Snapshot, TableMetadata};
use uuid::Uuid;

pub use self::alter::{Alter, Keep, Position, SortField};
pub use self::conform::assigned;
pub use self::create::NewTable;
pub use self::drop::{Dropped, Purge};
pub use self::expire::{Expire, Expired};
use self::io::Io;
pub use self::metadata_tables::MetadataTable;
pub use self::orphans::{OrphanReport, Orphans};
pub use self::reach::FileKind;
pub use self::rewrite::{Arrangement, Rewrite, Rewritten};
pub use self::rows::{RowChange, RowChangeKind};
pub use self::source::{constant_bytes, guarded, writes_constants};
use shared::catalog;
use shared::error::Context;
use shared::model::{Column, TableName, keys};
use shared::ports::Ports;
use shared::project::PartitionField;
use shared::{Error, Result};

/// Table properties of this prefix keep the tokens of expired snapshots.
const EXPIRED_TOKEN: &str = "tarn.token.";

/// How the keys of tokens begin whose work may be done again however late: expiry keeps them.
const KEPT_TOKENS: [&str; 4] = ["stream.", "job.", "runs.", "insight."];

/// What a commit was made for: `value` is stored under `key` in the snapshot's summary, if the newest value under `key` in
/// the table's history still is `expected`.
///
/// Streams use the key `stream.{name}` and the JSON of [`shared::model::Positions`]; jobs use `job.{workflow}.{job}`. Tokens of
/// streams and jobs outlast the snapshots that hold them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Token {
    pub key: String,
    pub expected: Option<String>,
    pub value: String,
}

impl Token {
    /// The table property that holds the token where no snapshot does.
    pub fn property(&self) -> (String, String) {
        (format!("{EXPIRED_TOKEN}{}", self.key), self.value.clone())
    }
}

/// How rows go into a table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    Append,
    /// The rows become the whole table.
    Overwrite,
    /// Rows of the table that all filters let pass leave, the new rows come. The filters name the table's columns.
    OverwriteWhere(Vec<Expr>),
    /// The partitions that the rows fall into hold nothing else afterwards. A table without partitions is one partition.
    ReplacePartitions,
    /// A row replaces those with equal values in these columns (null equals null), or is added.
    Merge {
        key: Vec<String>,
    },
}

/// Which rows a read sees.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Read {
    Current,
    Snapshot(i64),
    /// What was current at a time, in milliseconds since the epoch.
    AsOf {
        ms: i64,
    },
    /// A tag, with the columns it had then, or a branch.
    Reference(String),
    /// Rows of the files that were added after `after` (none: from the start) up to and including `to`.
    Added {
        after: Option<i64>,
        to: i64,
    },
}

/// What a commit did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Committed {
    /// The new snapshot. Where nothing changes and without a token nothing is committed: the current snapshot then, 0 if there
    /// is none.
    pub snapshot_id: i64,
    pub rows_added: u64,
    /// Rows whose values were replaced by a row-level change; such rows are neither added nor deleted.
    pub rows_updated: u64,
    pub rows_deleted: u64,
    /// Data files.
    pub files_added: u64,
    pub files_removed: u64,
    pub delete_files_added: u64,
    /// Bytes of the data and delete files that were added.
    pub bytes_added: u64,
    /// Tries it took; more than 1 when other writers came first.
    pub attempts: u32,
}

/// A snapshot of a table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SnapshotInfo {
    pub id: i64,
    pub parent: Option<i64>,
    /// Milliseconds since the epoch.
    pub committed_ms: i64,
    /// `append`, `overwrite`, `replace` or `delete`.
    pub operation: String,
    pub summary: BTreeMap<String, String>,
}

/// The tables of a catalog. Cheap to clone; clones share a cache of metadata files.
#[derive(Debug, Clone)]
pub struct Tables {
    ports: Ports,
    io: Io,
}

impl Tables {
    pub fn new(ports: Ports) -> Self {
        Self { io: Io::new(ports.storage.clone()), ports }
    }

    /// With at most `bytes` of metadata kept in memory.
    #[must_use]
    pub fn within(self, bytes: usize) -> Self {
        Self { io: self.io.within(bytes), ..self }
    }

    /// With changes that take what they hold of many rows, such as the keys of a merge, out of `pool`.
    #[must_use]
    pub fn with_memory(self, pool: Arc<dyn MemoryPool>) -> Self {
        Self { io: self.io.with_pool(pool), ..self }
    }

    /// The same tables through other ports, such as metered ones. What was read of metadata is shared.
    #[must_use]
    pub fn through(&self, ports: Ports) -> Self {
        Self { io: self.io.through(ports.storage.clone()), ports }
    }

    /// Makes an empty table; its database must exist.
    ///
    /// # Errors
    /// `Conflict` when it exists; `Invalid` for a column or partition field that can't be.
    pub async fn create(&self, name: &TableName, columns: &[Column], partition_by: &[PartitionField]) -> Result<Table> {
        let new = NewTable { columns: columns.to_vec(), partition_by: partition_by.to_vec(), ..NewTable::default() };
        self.create_as(name, &new, None).await
    }

    /// As [`Tables::create`], with all that can be said of a new table, which keeps `token`.
    ///
    /// # Errors
    /// As [`Tables::create`]; `Invalid` for a property or its value that can't be set, `Denied` for a location outside the
    /// warehouse, `Conflict` for one that is not empty.
    pub async fn create_as(&self, name: &TableName, new: &NewTable, token: Option<Token>) -> Result<Table> {
        create::create(self, name, new, token.as_ref()).await.context(|| format!("creating the table `{name}`"))
    }

    /// Makes a table of `rows`: they are written first, and the table enters the catalog with the snapshot that holds them. Without
    /// rows and without a token it has no snapshot.
    ///
    /// # Errors
    /// As [`Tables::create_as`], and as [`Table::commit`] for the rows. Nothing is left then, unless the error is `OutcomeUnknown`
    /// or `Retry`: the table may still be made.
    pub async fn create_with(
        &self,
        name: &TableName,
        new: &NewTable,
        rows: SendableRecordBatchStream,
        token: Option<Token>,
    ) -> Result<Committed> {
        let made = create::create_with(self, name, new, rows, token.as_ref()).await;
        made.context(|| format!("creating the table `{name}`"))
    }

    /// Enters a table that another engine wrote, as its metadata file `location` has it. From then on the catalog says which
    /// metadata is current: whoever else changes the table does so through this catalog.
    ///
    /// # Errors
    /// `Conflict` when the name is taken, or another table has the metadata or the folder; `NotFound` without the database; `Invalid` when there is no table's metadata; `Denied`
    /// for a place outside the warehouse.
    pub async fn register(&self, name: &TableName, location: &str) -> Result<Table> {
        register::register(self, name, location).await.context(|| format!("registering the table `{name}`"))
    }

    /// Loads the table, or makes it (and its database). Columns that the table lacks are added, types are widened where
    /// Iceberg allows it. The partitioning of a table that exists stays as it is.
    ///
    /// # Errors
    /// `Invalid` when a column exists with a type that can't become the one asked for.
    pub async fn ensure(&self, name: &TableName, columns: &[Column], partition_by: &[PartitionField]) -> Result<Table> {
        create::ensure(self, name, columns, partition_by).await
    }

    /// Removes the table from the catalog; its files too, as `purge` says, once it is out of the catalog for certain: those in its
    /// folder, never those elsewhere.
    ///
    /// # Errors
    /// `NotFound`; `Invalid` for a table that is not Iceberg, or whose `gc.enabled` is `false`; `Conflict` when another table of the
    /// catalog has a claim to the files; `Bug`, naming the file, when metadata can't be read that says what to purge. Nothing is
    /// removed then.
    pub async fn drop(&self, name: &TableName, purge: Purge) -> Result<Dropped> {
        drop::drop(self, name, purge).await.context(|| format!("dropping the table `{name}`"))
    }

    /// # Errors
    /// `NotFound`; `Invalid` when the catalog holds a table of that name that is not Iceberg.
    pub async fn load(&self, name: &TableName) -> Result<Table> {
        let entry = self.ports.catalog.get_table(name).await?;
        Table::open(self, entry).await.context(|| format!("loading the table `{name}`"))
    }
}

/// A table as it was when it was loaded. Commits reload by themselves when somebody else came first.
#[derive(Debug, Clone)]
pub struct Table {
    ports: Ports,
    io: Io,
    /// The table in the catalog.
    entry: Arc<catalog::Table>,
    /// URL of `metadata`.
    location: String,
    metadata: Arc<TableMetadata>,
    columns: Arc<Vec<Column>>,
    schema: SchemaRef,
}

impl Table {
    pub fn name(&self) -> &TableName {
        &self.entry.input.name
    }

    /// The columns of the current schema.
    pub fn columns(&self) -> Vec<Column> {
        self.columns.to_vec()
    }

    pub fn arrow_schema(&self) -> SchemaRef {
        self.schema.clone()
    }

    /// Whether rows have an id that outlives their move to another file, as in tables of format v3.
    pub fn keeps_lineage(&self) -> bool {
        lineage::is_kept(&self.metadata)
    }

    /// Whether rows that come are partitioned.
    pub fn is_partitioned(&self) -> bool {
        !self.metadata.default_partition_spec().is_unpartitioned()
    }

    /// URL of the metadata file that this is, for readers of Iceberg.
    pub fn metadata_location(&self) -> &str {
        &self.location
    }

    /// `None` for a table that never had rows.
    pub fn current_snapshot(&self) -> Option<i64> {
        self.metadata.current_snapshot_id()
    }

    /// Newest first, from the current one back through its parents.
    pub fn history(&self) -> Vec<SnapshotInfo> {
        self.ancestors().map(SnapshotInfo::from).collect()
    }

    /// The current snapshot; `None` for a table that never had rows.
    pub fn newest(&self) -> Option<SnapshotInfo> {
        self.ancestors().next().map(SnapshotInfo::from)
    }

    /// The newest value stored under a [`Token`]'s key, also if the snapshot that held it has expired.
    pub fn token(&self, key: &str) -> Option<String> {
        let retained = self.ancestors().find_map(|snapshot| snapshot.summary().additional_properties.get(key));
        retained.or_else(|| self.metadata.properties().get(&format!("{EXPIRED_TOKEN}{key}"))).cloned()
    }

    /// Writes `rows` and commits them as one snapshot. `rows` has the table's columns by name, in any order; missing columns
    /// that may be null are filled with nulls, values are cast where no information is lost.
    ///
    /// Without rows a commit with a token still makes a snapshot, which moves the token.
    ///
    /// # Errors
    /// `Conflict` when the token's `expected` no longer holds (another writer did the same work) or when retries ran out;
    /// `Invalid` for rows that don't fit the schema, or a merge whose rows hold a key twice; `OutcomeUnknown` when it can't be
    /// found out whether the commit happened.
    pub async fn commit(
        &self,
        change: Change,
        rows: SendableRecordBatchStream,
        token: Option<Token>,
    ) -> Result<Committed> {
        let name = self.name();
        change::commit(self, change, rows, token).await.context(|| format!("committing to the table `{name}`"))
    }

    /// Deletes, updates and inserts rows as `change` says, as one snapshot. When others commit meanwhile, `change` is asked anew
    /// unless what it said still holds.
    ///
    /// # Errors
    /// As [`Table::commit`]; `Invalid` when a row of the table is named twice, or for a table property that can't be read.
    pub async fn change_rows(&self, change: &dyn RowChange, token: Option<Token>) -> Result<Committed> {
        let name = self.name();
        rows::change_rows(self, change, token.as_ref()).await.context(|| format!("changing rows of the table `{name}`"))
    }

    /// A DataFusion table over the rows that `read` names.
    ///
    /// # Errors
    /// `NotFound` for a snapshot, tag or branch that does not exist, or a time before the first snapshot; `Invalid` for [`Read::Added`] over a snapshot that removed rows.
    pub async fn provider(&self, read: Read) -> Result<Arc<dyn TableProvider>> {
        let name = self.name();
        scan::provider(self, read).await.context(|| format!("reading the table `{name}`"))
    }

    /// The current rows with two more columns, found by name: `_file`, the location of the data file that holds the row as the
    /// manifest names it, and `_pos`, its place there from 0. Where the table keeps row lineage there are `_row_id` and
    /// `_last_updated_sequence_number` too. Filters prune files, also filters on `_file`.
    ///
    /// # Errors
    /// `Invalid` when the table has a column of one of these names.
    pub async fn addressed(&self) -> Result<Arc<dyn TableProvider>> {
        let name = self.name();
        scan::addressed(self).await.context(|| format!("reading the table `{name}`"))
    }

    /// What changed after the snapshot `after` (none: from the start) up to `to` (none: the current one): the table's columns, then
    /// `_change_type` (`insert`, `delete`), `_change_ordinal` (0 for the oldest snapshot) and `_commit_snapshot_id`. With a key
    /// a row that goes and one that comes with equal keys in one snapshot are `update_preimage` and `update_postimage`.
    ///
    /// Rows that a snapshot only moves to other files do not count. What an expired snapshot did is not told: its rows count
    /// as inserted by the oldest one that is left.
    ///
    /// # Errors
    /// `NotFound` for a snapshot that does not exist; `Invalid` when `after` is no ancestor of `to`, or for an unknown key column.
    pub async fn changes(
        &self,
        after: Option<i64>,
        to: Option<i64>,
        key: Option<Vec<String>>,
    ) -> Result<Arc<dyn TableProvider>> {
        let name = self.name();
        let changes = changes::provider(self, after, to, key).await;
        changes.context(|| format!("reading the changes of the table `{name}`"))
    }

    /// What the table's metadata tells, as rows with the columns that Athena and Trino give them.
    ///
    /// # Errors
    /// `Bug` for damaged metadata.
    pub async fn metadata_table(&self, which: MetadataTable) -> Result<Arc<dyn TableProvider>> {
        let name = self.name();
        metadata_tables::provider(self, which).await.context(|| format!("reading the metadata of the table `{name}`"))
    }

    async fn open(tables: &Tables, entry: catalog::Table) -> Result<Self> {
        Self::of_entry(tables.ports.clone(), tables.io.clone(), entry).await
    }

    /// A table that no catalog knows yet: it has no metadata file, and can't be swapped or reloaded.
    fn unborn(tables: &Tables, name: &TableName, metadata: Arc<TableMetadata>) -> Result<Self> {
        let input = create::catalog_input(&tables.io, name, &metadata, "")?;
        let entry = catalog::Table { input, version: String::new(), created_ms: 0, updated_ms: 0, fault: None };
        Self::new(tables.ports.clone(), tables.io.clone(), entry, String::new(), metadata)
    }

    fn new(
        ports: Ports,
        io: Io,
        entry: catalog::Table,
        location: String,
        metadata: Arc<TableMetadata>,
    ) -> Result<Self> {
        let columns = Arc::new(schema::columns(metadata.current_schema())?);
        let schema = schema::without_ids(&*schema::arrow_schema(metadata.current_schema())?);
        Ok(Self { ports, io, entry: Arc::new(entry), location, metadata, columns, schema })
    }

    async fn of_entry(ports: Ports, io: Io, entry: catalog::Table) -> Result<Self> {
        let parameters = &entry.input.parameters;
        let location = match parameters.get("metadata_location") {
            Some(location) if entry.is_iceberg() => location.clone(),
            _ => {
                let found = parameters.get("classification").map_or("another kind", String::as_str);
                return Err(Error::invalid(format!(
                    "expected an Iceberg table (`table_type=ICEBERG` and `metadata_location`), found `{found}`"
                )));
            }
        };
        let metadata = io.metadata(&location).await?;
        Self::new(ports, io, entry, location, metadata)
    }

    /// The table as it is now.
    ///
    /// # Errors
    /// `NotFound` when it is gone; `Conflict` when another table took its name.
    pub async fn reload(&self) -> Result<Self> {
        let entry = self.ports.catalog.get_table(self.name()).await?;
        if entry == *self.entry {
            return Ok(self.clone());
        }
        let now = Self::of_entry(self.ports.clone(), self.io.clone(), entry).await?;
        if now.metadata.uuid() == self.metadata.uuid() {
            return Ok(now);
        }
        Err(Error::conflict(format!("expected the table `{}`, found another that took its name", self.name())))
    }

    /// A fresh name for the metadata that comes after this.
    fn next_location(&self) -> String {
        let version = self.file().map_or(0, |file| keys::table_metadata_version(file) + 1);
        keys::table_metadata(self.metadata.location(), version, &Uuid::new_v4().to_string())
    }

    /// The metadata file, if there is one.
    fn file(&self) -> Option<&str> {
        Some(self.location.as_str()).filter(|location| !location.is_empty())
    }

    /// Makes `metadata`, written to `location`, current if nobody changed the table since it was loaded.
    ///
    /// # Errors
    /// `Conflict` when somebody did; otherwise what the catalog answers, after which the swap may have happened. What fails on this
    /// side fails before the swap.
    async fn swap(&self, metadata: &Arc<TableMetadata>, location: String) -> Result<Self> {
        let mut input = self.entry.input.clone();
        input.parameters.insert("table_type".into(), "ICEBERG".into());
        input.parameters.insert("previous_metadata_location".into(), self.location.clone());
        input.parameters.insert("metadata_location".into(), location.clone());
        input.storage.columns = schema::catalog_columns(metadata.current_schema())?;
        input.storage.location = self.io.url(metadata.location())?.to_string();
        // Whatever may fail comes before the swap: an error after it would look as if nothing had happened.
        let next = Self::new(
            self.ports.clone(),
            self.io.clone(),
            self.entry.as_ref().clone(),
            location,
            Arc::clone(metadata),
        )?;
        let entry = self.ports.catalog.update_table(&input, &self.entry.version).await?;
        Ok(Self { entry: Arc::new(entry), ..next })
    }

    /// The current snapshot, its parent, and so on.
    fn ancestors(&self) -> impl Iterator<Item = &Snapshot> {
        ancestors(&self.metadata, self.metadata.current_snapshot_id())
    }
}

/// Whether expiry keeps the token with this key.
fn is_kept_token(key: &str) -> bool {
    KEPT_TOKENS.iter().any(|kind| key.starts_with(kind))
}

/// The snapshot `from`, its parent, and so on, as far back as the metadata reaches.
fn ancestors(metadata: &TableMetadata, from: Option<i64>) -> impl Iterator<Item = &Snapshot> {
    let find = |id: Option<i64>| id.and_then(|id| metadata.snapshot_by_id(id)).map(|snapshot| snapshot.as_ref());
    std::iter::successors(find(from), move |snapshot| find(snapshot.parent_snapshot_id()))
}

impl From<&Snapshot> for SnapshotInfo {
    fn from(snapshot: &Snapshot) -> Self {
        let summary = snapshot.summary();
        Self {
            id: snapshot.snapshot_id(),
            parent: snapshot.parent_snapshot_id(),
            committed_ms: snapshot.timestamp_ms(),
            operation: summary.operation.as_str().to_owned(),
            summary: summary.additional_properties.iter().map(|(k, v)| (k.clone(), v.clone())).collect(),
        }
    }
}
