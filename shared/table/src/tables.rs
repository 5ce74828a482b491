//! The tables of a catalog: made, found, entered, dropped.

use std::any::Any;

use shared::Result;
use shared::catalog;
use shared::error::Context;
use shared::model::{Column, PartitionField, TableName};
use shared::ports::Ports;

use super::io::Io;
use super::{Committed, Dropped, NewTable, Purge, RowStream, Table, Token, create, declared, drop, register};

/// The tables of a catalog. Cheap to clone; clones share a cache of metadata files.
#[derive(Debug, Clone)]
pub struct Tables {
    pub(crate) ports: Ports,
    pub(crate) io: Io,
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

    /// With something that a crate above this one keeps beside tables: see [`Extensions`](crate::Extensions).
    #[must_use]
    pub fn with_extension<T: Any + Send + Sync>(self, extension: T) -> Self {
        Self { io: self.io.with_extension(extension), ..self }
    }

    /// The same tables through other ports, such as metered ones. What was read of metadata is shared.
    #[must_use]
    pub fn through(&self, ports: Ports) -> Self {
        Self { io: self.io.through(ports.storage.clone()), ports }
    }

    /// What the tables are reached through.
    pub fn ports(&self) -> &Ports {
        &self.ports
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
    /// As [`Tables::create_as`], and as [`Table::append`] for the rows. Nothing is left then, unless the error is `OutcomeUnknown`
    /// or `Retry`: the table may still be made.
    pub async fn create_with(
        &self,
        name: &TableName,
        new: &NewTable,
        rows: RowStream,
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
    /// Iceberg allows it. When the partitioning that is asked for is another than it was asked for last, the table takes it on for
    /// files that come; while `partition_by` is empty it keeps what it has.
    ///
    /// # Errors
    /// `Invalid` when a column exists with a type that can't become the one asked for.
    pub async fn ensure(&self, name: &TableName, columns: &[Column], partition_by: &[PartitionField]) -> Result<Table> {
        declared::ensure(self, name, columns, partition_by).await
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
        self.open(self.ports.catalog.get_table(name).await?).await
    }

    /// The table that the catalog told of.
    ///
    /// # Errors
    /// `Invalid` for a table that is not Iceberg; `Bug` when its metadata can't be read.
    pub async fn open(&self, entry: catalog::Table) -> Result<Table> {
        let name = entry.input.name.clone();
        let opened = Table::of_entry(self.ports.clone(), self.io.clone(), entry).await;
        opened.context(|| format!("loading the table `{name}`"))
    }
}
