//! Row-level changes: what DELETE, UPDATE and MERGE do to a table, and merges by key.
//!
//! A [`RowChange`] names rows by their address, data file and place, and gives the values that come. Rows leave in one of two
//! ways: their files are written anew without them (copy on write), or delete files name them (merge on read); table
//! properties choose. When somebody else commits first, what was worked out serves again if it still holds under the
//! isolation asked for; otherwise it is worked out anew.

mod count;
mod deletes;
mod keyed;
mod overwrite;
mod positions;
mod rewrite;
mod vectors;
mod work;

use std::sync::Arc;

use arrow::compute::filter_record_batch;
use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use datafusion::execution::SendableRecordBatchStream;
use datafusion::logical_expr::Expr;
use futures::TryStreamExt;

pub(super) use self::count::live_rows;
pub(super) use self::keyed::KeyedMerge;
pub(super) use self::overwrite::{OverwriteWhere, ReplacePartitions};
use self::positions::Addresses;
use self::work::{Settings, Work};
use shared::{Error, Result};
use table::commit::{self, Operation, file_prefix};
use table::conform::Conform;
use table::lineage::ROW_ID;
use table::snapshot::Delta;
use table::write::Writer;
use table::{Committed, Table, Token};

/// Which statement changes rows: each has its own table properties (`write.{delete,update,merge}.{mode,isolation-level}`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RowChangeKind {
    Delete,
    Update,
    Merge,
}

impl RowChangeKind {
    fn name(self) -> &'static str {
        match self {
            Self::Delete => "delete",
            Self::Update => "update",
            Self::Merge => "merge",
        }
    }
}

/// What DELETE, UPDATE and MERGE do, worked out anew against each state of the table that it is tried on.
#[async_trait]
pub trait RowChange: Send + Sync {
    fn kind(&self) -> RowChangeKind;

    /// Filters on the table's columns that all rows which matter let pass. A file that came meanwhile and holds none of them
    /// is no conflict. None: every row matters.
    fn filters(&self) -> Vec<Expr>;

    /// Columns: `_file` (text) and `_pos` (integer), both null for a row that is new, `_insert` (boolean), then columns of the
    /// table by name. A row with `_file` says that this old row leaves; `_insert` says that the values come in. So a deleted
    /// row is `(file, pos, false, …)`, an updated one `(file, pos, true, values)`, a new one `(null, null, true, values)`.
    /// In a table that keeps row lineage rows whose values come have `_row_id` too: that of the old row, null for a new one.
    async fn rows(&self, table: &Table) -> Result<SendableRecordBatchStream>;
}

/// A row-level change on its way into the table.
struct Changing<'a> {
    change: &'a dyn RowChange,
    token: Option<&'a Token>,
    work: Option<Work>,
    created: Vec<String>,
}

pub(super) async fn change_rows(table: &Table, change: &dyn RowChange, token: Option<&Token>) -> Result<Committed> {
    let base = table.reload().await?;
    commit::check(&base, token)?;
    let mut changing = Changing { change, token, work: None, created: Vec::new() };
    commit::run(base, &mut changing, token).await
}

#[async_trait]
impl Operation for Changing<'_> {
    async fn delta(&mut self, base: &Table) -> Result<Delta> {
        if let Some(work) = &self.work
            && work.holds(base).await?
        {
            return Ok(work.delta());
        }
        let mut writer = work::begin(base, file_prefix(base, self.token))?;
        let worked_out = work_out(self.change, base, &mut writer).await;
        Ok(self.work.insert(work::end(worked_out, writer, &mut self.created).await?).delta())
    }

    async fn holds(&mut self, base: &Table) -> Result<bool> {
        match &self.work {
            Some(work) => work.holds(base).await,
            None => Ok(false),
        }
    }

    fn created(&self) -> Vec<String> {
        self.created.clone()
    }
}

async fn work_out(change: &dyn RowChange, base: &Table, writer: &mut Writer) -> Result<Work> {
    let settings = Settings::of(base, change.kind())?;
    let mut addresses = Addresses::default();
    write_rows(change.rows(base).await?, &mut addresses, writer).await?;
    let mut work = Work::new(base, change.filters(), settings.isolation);
    work.rows = addresses.rows;
    work.remove(base, addresses, settings.mode, writer).await?;
    Ok(work)
}

/// Remembers the addresses of rows that leave and writes the values that come.
async fn write_rows(mut rows: SendableRecordBatchStream, addresses: &mut Addresses, writer: &mut Writer) -> Result<()> {
    let schema = rows.schema();
    let values = positions::values(&schema)?;
    // A change that only deletes has no values.
    let mut conform = None;
    while let Some(batch) = rows.try_next().await? {
        let comes = addresses.take(&batch)?;
        if comes.true_count() == 0 {
            continue;
        }
        let conform = match &mut conform {
            Some(conform) => conform,
            none => none.insert(conforming(&Arc::new(schema.project(&values)?), writer)?),
        };
        let coming = filter_record_batch(&batch.project(&values)?, &comes)?;
        writer.write(conform.apply(&coming)?).await?;
    }
    Ok(())
}

/// How the values that come fit the files.
///
/// # Errors
/// `Bug` when rows come without the ids that the table keeps of them.
fn conforming(values: &SchemaRef, writer: &Writer) -> Result<Conform> {
    if writer.arrow_schema().index_of(ROW_ID).is_ok() && values.index_of(ROW_ID).is_err() {
        return Err(Error::bug(format!("expected the column `{ROW_ID}` in the rows of a change, found none")));
    }
    Conform::new(values, writer.arrow_schema())
}
