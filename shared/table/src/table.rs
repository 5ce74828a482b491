//! A table as it was when it was loaded, and the swap that makes other metadata current.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use iceberg::spec::{Snapshot, TableMetadata};
use shared::catalog;
use shared::error::Context;
use shared::model::{Column, TableName, keys};
use shared::ports::Ports;
use shared::{Error, Result};

use super::io::Io;
use super::{Committed, RowStream, SnapshotInfo, Tables, Token, ancestors, append, create, lineage, schema, token};

/// A table as it was when it was loaded. Commits reload by themselves when somebody else came first.
#[derive(Debug, Clone)]
pub struct Table {
    pub(crate) ports: Ports,
    pub(crate) io: Io,
    /// The table in the catalog.
    pub(crate) entry: Arc<catalog::Table>,
    /// URL of `metadata`.
    pub(crate) location: String,
    pub(crate) metadata: Arc<TableMetadata>,
    pub(crate) columns: Arc<Vec<Column>>,
    pub(crate) schema: SchemaRef,
}

impl Table {
    pub fn name(&self) -> &TableName {
        &self.entry.input.name
    }

    /// The columns of the current schema.
    pub fn columns(&self) -> Vec<Column> {
        self.columns.to_vec()
    }

    pub fn arrow_schema(&self) -> &SchemaRef {
        &self.schema
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

    /// The newest value stored under a [`Token`]'s key, also if the snapshot that held it has expired or was left by a rollback.
    pub fn token(&self, key: &str) -> Option<String> {
        token::find(&self.metadata, key).cloned()
    }

    /// The [`Token`]s of streams, jobs and replays, by their keys, each with its newest value.
    pub fn tokens(&self) -> BTreeMap<String, String> {
        token::all(&self.metadata)
    }

    /// Writes `rows` and commits them as one snapshot. `rows` has the table's columns by name, in any order; missing columns
    /// that may be null are filled with nulls, values are cast where no information is lost.
    ///
    /// Without rows a commit with a token still makes a snapshot, which moves the token.
    ///
    /// # Errors
    /// `Conflict` when the token's `expected` no longer holds (another writer did the same work) or when retries ran out;
    /// `Invalid` for rows that don't fit the schema; `OutcomeUnknown` when it can't be found out whether the commit happened.
    pub async fn append(&self, rows: RowStream, token: Option<Token>) -> Result<Committed> {
        let name = self.name();
        append::commit(self, rows, token).await.context(|| format!("committing to the table `{name}`"))
    }

    /// Reads and writes the table's metadata files.
    pub fn io(&self) -> &Io {
        &self.io
    }

    pub fn metadata(&self) -> &Arc<TableMetadata> {
        &self.metadata
    }

    /// The ports that the table was loaded through.
    pub fn ports(&self) -> &Ports {
        &self.ports
    }

    /// A table that no catalog knows yet: it has no metadata file, and can't be swapped or reloaded.
    pub(crate) fn unborn(tables: &Tables, name: &TableName, metadata: Arc<TableMetadata>) -> Result<Self> {
        let input = create::catalog_input(&tables.io, name, &metadata, "")?;
        let entry = catalog::Table { input, version: String::new(), created_ms: 0, updated_ms: 0, fault: None };
        Self::new(tables.ports.clone(), tables.io.clone(), entry, String::new(), metadata)
    }

    pub(crate) fn new(
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

    pub(crate) async fn of_entry(ports: Ports, io: Io, entry: catalog::Table) -> Result<Self> {
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
    pub fn next_location(&self) -> String {
        let version = self.file().map_or(0, |file| keys::table_metadata_version(file) + 1);
        keys::table_metadata(self.metadata.location(), version, &self.ports.random.uuid().to_string())
    }

    /// The metadata file, if there is one.
    pub(crate) fn file(&self) -> Option<&str> {
        Some(self.location.as_str()).filter(|location| !location.is_empty())
    }

    /// Makes `metadata`, written to `location`, current if nobody changed the table since it was loaded.
    ///
    /// # Errors
    /// `Conflict` when somebody did; otherwise what the catalog answers, after which the swap may have happened. What fails on this
    /// side fails before the swap.
    pub async fn swap(&self, metadata: &Arc<TableMetadata>, location: String) -> Result<Self> {
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
    pub(crate) fn ancestors(&self) -> impl Iterator<Item = &Snapshot> {
        ancestors(&self.metadata, self.metadata.current_snapshot_id())
    }
}
