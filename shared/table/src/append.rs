//! Rows of a stream go into data files, once, before the first try to commit.

use arrow::record_batch::RecordBatch;
use async_trait::async_trait;
use futures::StreamExt;
use iceberg::spec::DataFile;
use shared::Result;

use super::commit::{self, Operation, file_prefix};
use super::conform::Conform;
use super::snapshot::{AddedFile, Delta, Rows};
use super::write::Writer;
use super::{Committed, RowStream, Table, Token};

/// Data files that hold the rows of a stream.
#[derive(Debug)]
pub struct Written {
    pub files: Vec<DataFile>,
    /// The partition spec of the files.
    pub spec_id: i32,
    /// Every file that was begun.
    pub created: Vec<String>,
}

impl Written {
    /// The files as a change adds them, and how many rows they hold.
    pub fn added(&self) -> Delta {
        let rows = self.files.iter().map(DataFile::record_count).sum();
        let added = self.files.iter().map(|file| AddedFile::new(file.clone(), self.spec_id)).collect();
        Delta { added, rows: Rows { added: rows, ..Rows::default() }, ..Delta::default() }
    }
}

/// Writes rows to data files of the table that no snapshot names yet; `observe` sees each batch, in the table's columns, first.
///
/// # Errors
/// `Invalid` for rows that don't fit; what `observe`, reading the rows and writing them answer. No file is left then.
pub async fn write_rows(
    base: &Table,
    rows: RowStream,
    token: Option<&Token>,
    observe: impl FnMut(&RecordBatch) -> Result<()> + Send,
) -> Result<Written> {
    let mut writer = Writer::new(&base.io, &base.metadata, file_prefix(base, token))?;
    match drain(&mut writer, rows, observe).await {
        Ok(files) => {
            let spec_id = base.metadata.default_partition_spec_id();
            Ok(Written { files, spec_id, created: writer.created().to_vec() })
        }
        Err(error) => {
            writer.settle().await;
            base.io.discard(writer.created().to_vec()).await;
            Err(error)
        }
    }
}

async fn drain(
    writer: &mut Writer,
    mut rows: RowStream,
    mut observe: impl FnMut(&RecordBatch) -> Result<()> + Send,
) -> Result<Vec<DataFile>> {
    let conform = Conform::new(&rows.schema(), writer.arrow_schema())?;
    while let Some(batch) = rows.next().await {
        let batch = conform.apply(&batch?)?;
        observe(&batch)?;
        writer.write(batch).await?;
    }
    writer.finish().await
}

pub(super) async fn commit(table: &Table, rows: RowStream, token: Option<Token>) -> Result<Committed> {
    let base = table.reload().await?;
    commit::check(&base, token.as_ref())?;
    let mut append = append(&base, rows, token.as_ref()).await?;
    commit::run(base, &mut append, token.as_ref()).await
}

/// Rows that come to those that the table has, or are its first.
pub(super) async fn append(base: &Table, rows: RowStream, token: Option<&Token>) -> Result<Append> {
    Ok(Append(write_rows(base, rows, token, |_| Ok(())).await?))
}

/// New files beside all others.
pub(super) struct Append(Written);

#[async_trait]
impl Operation for Append {
    async fn delta(&mut self, _: &Table) -> Result<Delta> {
        Ok(self.0.added())
    }

    fn created(&self) -> Vec<String> {
        self.0.created.clone()
    }
}
