//! Iceberg tables in DataFusion: scans (current, time travel, what was added, what changed), and the changes that have to read
//! rows first: overwrites, merges, row-level changes, compaction.
//!
//! [`ReadTable`] and [`ChangeTable`] are what a [`Table`] can do here. What comes is DataFusion's: a `TableProvider`, an `Expr` as a
//! filter, a record batch stream as rows; [`row_stream`] makes the table layer's own of one.
//! Errors of DataFusion become ours at these doors, as those of `table` go through it.

mod address;
mod change;
mod changes;
mod deletes;
pub mod erase;
mod field_id;
pub mod floats;
mod footers;
mod memory;
mod metadata_tables;
mod prune;
mod reshape;
mod rewrite;
mod rows;
mod scan;
mod source;
mod span;
#[cfg(test)]
mod tests;
mod transcode;

use std::sync::Arc;

use arrow::array::RecordBatch;
use async_trait::async_trait;
use datafusion::catalog::TableProvider;
use datafusion::execution::SendableRecordBatchStream;
use datafusion::logical_expr::Expr;
use futures::TryStreamExt;
use shared::error::Context;
use shared::{Error, Result};
use table::{Committed, Read, RowStream, Table, Token};

pub use self::footers::FooterReaders;
pub use self::memory::with_memory;
pub use self::metadata_tables::MetadataTable;
pub use self::rewrite::{Arrangement, Rewrite, Rewritten};
pub use self::rows::{RowChange, RowChangeKind};
pub use self::source::{WrapMorselizer, constant_bytes, guarded, writes_constants};

/// The rows of a query as the table layer takes them.
pub fn row_stream(rows: SendableRecordBatchStream) -> RowStream {
    RowStream::new(rows.schema(), rows.map_err(Error::from))
}

/// How rows go into a table.
#[derive(Debug, Clone, PartialEq)]
pub enum Change {
    Append,
    /// The rows become the whole table.
    Overwrite,
    /// Rows of the table that all filters let pass leave, the new rows come. The filters name the table's columns.
    OverwriteWhere(Vec<Expr>),
    /// The partitions that the rows fall into hold nothing else afterwards. A table without partitions is one partition.
    ReplacePartitions,
    /// A row replaces those with equal values in these columns (null equals null), or is added. The property `write.merge.mode` says
    /// how rows leave.
    Merge {
        key: Vec<String>,
    },
    /// As [`Change::Merge`], if the table's current snapshot still is this one; a `Conflict` otherwise.
    MergeInto {
        key: Vec<String>,
        snapshot: Option<i64>,
    },
    /// As [`Change::Merge`]; rows with one of the keys in `gone` leave too. The batches of `gone` have the key's columns, in its order.
    MergeAndRemove {
        key: Vec<String>,
        gone: Vec<RecordBatch>,
    },
}

/// Tables as DataFusion reads them.
#[async_trait]
pub trait ReadTable {
    /// A DataFusion table over the rows that `read` names.
    ///
    /// # Errors
    /// `NotFound` for a snapshot, tag or branch that does not exist, or a time before the first snapshot; `Invalid` for
    /// [`Read::Added`] over a snapshot that removed rows ([`Read::Came`] and [`Read::Left`] tell of those).
    async fn provider(&self, read: Read) -> Result<Arc<dyn TableProvider>>;

    /// The current rows with two more columns, found by name: `_file`, the location of the data file that holds the row as the
    /// manifest names it, and `_pos`, its place there from 0. Where the table keeps row lineage there are `_row_id` and
    /// `_last_updated_sequence_number` too. Filters prune files, also filters on `_file`.
    ///
    /// # Errors
    /// `Invalid` when the table has a column of one of these names.
    async fn addressed(&self) -> Result<Arc<dyn TableProvider>>;

    /// What changed after the snapshot `after` (none: from the start) up to `to` (none: the current one): the table's columns, then
    /// `_change_type` (`insert`, `delete`), `_change_ordinal` (0 for the oldest snapshot) and `_commit_snapshot_id`. With a key
    /// a row that goes and one that comes with equal keys in one snapshot are `update_preimage` and `update_postimage`.
    ///
    /// Rows that a snapshot only moves to other files do not count. What an expired snapshot did is not told: its rows count
    /// as inserted by the oldest one that is left.
    ///
    /// # Errors
    /// `NotFound` for a snapshot that does not exist; `Invalid` when `after` is no ancestor of `to`, or for an unknown key column.
    async fn changes(
        &self,
        after: Option<i64>,
        to: Option<i64>,
        key: Option<Vec<String>>,
    ) -> Result<Arc<dyn TableProvider>>;

    /// What the table's metadata tells, as rows with the columns that Athena and Trino give them.
    ///
    /// # Errors
    /// `Bug` for damaged metadata.
    async fn metadata_table(&self, which: MetadataTable) -> Result<Arc<dyn TableProvider>>;
}

#[async_trait]
impl ReadTable for Table {
    async fn provider(&self, read: Read) -> Result<Arc<dyn TableProvider>> {
        scan::provider(self, read).await.context(|| format!("reading the table `{}`", self.name()))
    }

    async fn addressed(&self) -> Result<Arc<dyn TableProvider>> {
        scan::addressed(self).await.context(|| format!("reading the table `{}`", self.name()))
    }

    async fn changes(
        &self,
        after: Option<i64>,
        to: Option<i64>,
        key: Option<Vec<String>>,
    ) -> Result<Arc<dyn TableProvider>> {
        let changes = changes::provider(self, after, to, key).await;
        changes.context(|| format!("reading the changes of the table `{}`", self.name()))
    }

    async fn metadata_table(&self, which: MetadataTable) -> Result<Arc<dyn TableProvider>> {
        let rows = metadata_tables::provider(self, which).await;
        rows.context(|| format!("reading the metadata of the table `{}`", self.name()))
    }
}

/// Changes of tables that read what is there.
#[async_trait]
pub trait ChangeTable {
    /// Writes `rows` and commits them as one snapshot. `rows` has the table's columns by name, in any order; missing columns
    /// that may be null are filled with nulls, values are cast where no information is lost.
    ///
    /// Without rows a commit with a token still makes a snapshot, which moves the token.
    ///
    /// # Errors
    /// As [`Table::append`]; `Invalid` for a merge whose rows hold a key twice, `Limit` when there is no memory for its keys.
    async fn commit(&self, change: Change, rows: SendableRecordBatchStream, token: Option<Token>) -> Result<Committed>;

    /// Deletes, updates and inserts rows as `change` says, as one snapshot. When others commit meanwhile, `change` is asked anew
    /// unless what it said still holds.
    ///
    /// # Errors
    /// As [`ChangeTable::commit`]; `Invalid` when a row of the table is named twice, or for a table property that can't be read.
    async fn change_rows(&self, change: &dyn RowChange, token: Option<Token>) -> Result<Committed>;

    /// Arranges the table's files anew. The order of a sort gets an id in the table first, by which files say that they are in it.
    ///
    /// # Errors
    /// `Invalid` for columns that can't be sorted by, a size of 0, or a table of format v1; `Limit` when the disk is full;
    /// otherwise as a commit. What was committed before an error stays.
    async fn rewrite(&self, rewrite: &Rewrite) -> Result<Rewritten>;
}

#[async_trait]
impl ChangeTable for Table {
    async fn commit(&self, change: Change, rows: SendableRecordBatchStream, token: Option<Token>) -> Result<Committed> {
        let committed = change::commit(self, change, rows, token).await;
        committed.context(|| format!("committing to the table `{}`", self.name()))
    }

    async fn change_rows(&self, change: &dyn RowChange, token: Option<Token>) -> Result<Committed> {
        let changed = rows::change_rows(self, change, token.as_ref()).await;
        changed.context(|| format!("changing rows of the table `{}`", self.name()))
    }

    async fn rewrite(&self, rewrite: &Rewrite) -> Result<Rewritten> {
        rewrite::run(self, rewrite).await.context(|| format!("rewriting files of the table `{}`", self.name()))
    }
}
