//! Rows of a stream go into a table: appended, in place of all or some rows, or merged by key.
//!
//! Rows are written to data files once, before the first try to commit.

use async_trait::async_trait;
use datafusion::execution::SendableRecordBatchStream;
use futures::StreamExt;
use iceberg::spec::DataFile;

use super::commit::{self, Operation, file_prefix};
use super::conform::Conform;
use super::live::live_deletes;
use super::merge::Merge;
use super::rows::{OverwriteWhere, ReplacePartitions, live_rows};
use super::snapshot::{AddedFile, DeleteFile, Delta, Rows, live_files};
use super::write::Writer;
use super::{Change, Committed, Table, Token};
use shared::Result;

/// Rows that are written to files, and what is done with them.
struct Incoming<'a> {
    files: Vec<DataFile>,
    spec_id: i32,
    way: Way,
    token: Option<&'a Token>,
    created: Vec<String>,
}

enum Way {
    Append,
    Overwrite,
    OverwriteWhere(Box<OverwriteWhere>),
    ReplacePartitions,
    Merge(Box<Merge>),
}

pub(super) async fn commit(
    table: &Table,
    change: Change,
    rows: SendableRecordBatchStream,
    token: Option<Token>,
) -> Result<Committed> {
    let base = table.reload().await?;
    commit::check(&base, token.as_ref())?;
    let mut incoming = write(&base, change, rows, token.as_ref()).await?;
    commit::run(base, &mut incoming, token.as_ref()).await
}

/// As the rows of a table that is being made.
pub(super) async fn append<'a>(
    base: &Table,
    rows: SendableRecordBatchStream,
    token: Option<&'a Token>,
) -> Result<impl Operation + use<'a>> {
    write(base, Change::Append, rows, token).await
}

/// Writes the rows to data files.
async fn write<'a>(
    base: &Table,
    change: Change,
    rows: SendableRecordBatchStream,
    token: Option<&'a Token>,
) -> Result<Incoming<'a>> {
    let mut writer = Writer::new(&base.io, &base.metadata, file_prefix(token))?;
    let mut way = match change {
        Change::Append => Way::Append,
        Change::Overwrite => Way::Overwrite,
        Change::OverwriteWhere(filters) => Way::OverwriteWhere(Box::new(OverwriteWhere::new(filters))),
        Change::ReplacePartitions => Way::ReplacePartitions,
        Change::Merge { key } => {
            let schema_id = base.metadata.current_schema_id();
            let memory = base.io.memory("keys of a merge");
            Way::Merge(Box::new(Merge::new(&key, writer.arrow_schema(), schema_id, memory)?))
        }
    };
    match drain(&mut writer, rows, &mut way).await {
        Ok(files) => {
            let spec_id = base.metadata.default_partition_spec_id();
            Ok(Incoming { files, spec_id, way, token, created: writer.created().to_vec() })
        }
        Err(error) => {
            writer.settle().await;
            base.io.discard(writer.created().to_vec()).await;
            Err(error)
        }
    }
}

async fn drain(writer: &mut Writer, mut rows: SendableRecordBatchStream, way: &mut Way) -> Result<Vec<DataFile>> {
    let conform = Conform::new(&rows.schema(), writer.arrow_schema())?;
    while let Some(batch) = rows.next().await {
        let batch = conform.apply(&batch?)?;
        if let Way::Merge(merge) = way {
            merge.observe(&batch)?;
        }
        writer.write(batch).await?;
    }
    writer.finish().await
}

#[async_trait]
impl Operation for Incoming<'_> {
    async fn delta(&mut self, base: &Table) -> Result<Delta> {
        let rows: u64 = self.files.iter().map(DataFile::record_count).sum();
        let added = self.files.iter().map(|file| AddedFile::new(file.clone(), self.spec_id)).collect();
        let mut delta = Delta { added, rows: Rows { added: rows, ..Rows::default() }, ..Delta::default() };
        let Some(parent) = base.metadata.current_snapshot() else { return Ok(delta) };
        match &mut self.way {
            Way::Append => {}
            Way::Overwrite => {
                let live = live_files(&base.io, &base.metadata, parent).await?;
                delta.rows.deleted = live_rows(base, &live).await?;
                delta.removed = live.iter().map(|file| file.data().file_path().to_owned()).collect();
                let deletes = live_deletes(&base.io, &base.metadata, parent).await?;
                delta.removed_deletes = deletes.iter().map(|delete| DeleteFile::of(delete.data())).collect();
            }
            Way::OverwriteWhere(overwrite) => {
                let left = overwrite.delta(base, file_prefix(self.token), &mut self.created).await?;
                delta.rows.deleted = left.rows.deleted;
                delta.removed = left.removed;
                delta.removed_deletes = left.removed_deletes;
                delta.added.extend(left.added);
            }
            Way::ReplacePartitions => return ReplacePartitions::delta(base, &self.files, self.spec_id).await,
            Way::Merge(_) if self.files.is_empty() => {}
            Way::Merge(merge) => {
                let live = live_files(&base.io, &base.metadata, parent).await?;
                let replaced = merge.replace(base, &live, &file_prefix(self.token), &mut self.created).await?;
                delta.rows.deleted = replaced.rows_removed;
                delta.removed = replaced.removed;
                delta.added.extend(replaced.added);
            }
        }
        Ok(delta)
    }

    async fn holds(&mut self, base: &Table) -> Result<bool> {
        match (&self.way, base.metadata.current_snapshot()) {
            (Way::OverwriteWhere(overwrite), Some(_)) => overwrite.holds(base).await,
            (Way::Merge(merge), Some(parent)) if !self.files.is_empty() => {
                Ok(merge.knows(base, &live_files(&base.io, &base.metadata, parent).await?))
            }
            _ => Ok(true),
        }
    }

    fn created(&self) -> Vec<String> {
        self.created.clone()
    }
}
