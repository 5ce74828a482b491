//! Rows of a stream go into a table: appended, in place of all or some rows, or merged by key.
//!
//! Rows are written to data files once, before the first try to commit.

use arrow::record_batch::RecordBatch;
use async_trait::async_trait;
use datafusion::execution::SendableRecordBatchStream;
use shared::{Error, Result};
use table::commit::{self, Operation, file_prefix};
use table::live::live_deletes;
use table::snapshot::{DeleteFile, Delta, Rows, live_files};
use table::{Committed, Table, Token, Written, write_rows};

use super::rows::{KeyedMerge, OverwriteWhere, ReplacePartitions, live_rows};
use super::{Change, memory, row_stream};

/// Rows that are written to files, and what is done with them.
struct Incoming<'a> {
    written: Written,
    action: Action,
    token: Option<&'a Token>,
    created: Vec<String>,
    /// The only snapshot that it may follow.
    follows: Option<Option<i64>>,
}

enum Action {
    Append,
    Overwrite,
    OverwriteWhere(Box<OverwriteWhere>),
    ReplacePartitions,
    Merge(Box<KeyedMerge>),
}

pub(super) async fn commit(
    table: &Table,
    change: Change,
    rows: SendableRecordBatchStream,
    token: Option<Token>,
) -> Result<Committed> {
    let base = table.reload().await?;
    commit::check(&base, token.as_ref())?;
    check_snapshot(&base, follows(&change))?;
    let mut incoming = write(&base, change, rows, token.as_ref()).await?;
    commit::run(base, &mut incoming, token.as_ref()).await
}

/// Writes the rows to data files.
async fn write<'a>(
    base: &Table,
    change: Change,
    rows: SendableRecordBatchStream,
    token: Option<&'a Token>,
) -> Result<Incoming<'a>> {
    let follows = follows(&change);
    let mut action = match change {
        Change::Append => Action::Append,
        Change::Overwrite => Action::Overwrite,
        Change::OverwriteWhere(filters) => Action::OverwriteWhere(Box::new(OverwriteWhere::new(filters))),
        Change::ReplacePartitions => Action::ReplacePartitions,
        Change::Merge { key } | Change::MergeInto { key, .. } => merge(base, &key, Vec::new())?,
        Change::MergeAndRemove { key, gone } => merge(base, &key, gone)?,
    };
    let observe = |batch: &RecordBatch| match &mut action {
        Action::Merge(merge) => merge.observe(batch),
        _ => Ok(()),
    };
    let written = write_rows(base, row_stream(rows), token, observe).await?;
    if let Action::Merge(merge) = &mut action {
        merge.observe_gone()?;
    }
    let created = written.created.clone();
    Ok(Incoming { written, action, token, created, follows })
}

/// The only snapshot that a change may follow, if it says so.
fn follows(change: &Change) -> Option<Option<i64>> {
    match change {
        Change::MergeInto { snapshot, .. } => Some(*snapshot),
        _ => None,
    }
}

fn check_snapshot(base: &Table, follows: Option<Option<i64>>) -> Result<()> {
    let found = base.current_snapshot();
    match follows {
        Some(expected) if expected != found => {
            let shown = |id: Option<i64>| id.map_or("none".to_owned(), |id| format!("`{id}`"));
            Err(Error::conflict(format!(
                "expected the table's snapshot to be {}, found {}: it was changed meanwhile",
                shown(expected),
                shown(found)
            )))
        }
        _ => Ok(()),
    }
}

fn merge(base: &Table, key: &[String], gone: Vec<RecordBatch>) -> Result<Action> {
    let schema_id = base.metadata().current_schema_id();
    let memory = memory::reservation(base.io(), "keys of a merge");
    let merge = KeyedMerge::new(key, base.arrow_schema(), schema_id, memory)?;
    Ok(Action::Merge(Box::new(merge.removing(gone))))
}

/// The rows that come, and what leaves with what is written in its place.
fn together(come: Delta, left: Delta) -> Delta {
    let rows = Rows { deleted: left.rows.deleted, ..come.rows };
    Delta { added: [come.added, left.added].concat(), rows, ..left }
}

#[async_trait]
impl Operation for Incoming<'_> {
    async fn delta(&mut self, base: &Table) -> Result<Delta> {
        check_snapshot(base, self.follows)?;
        let mut delta = self.written.added();
        let Some(parent) = base.metadata().current_snapshot() else { return Ok(delta) };
        match &mut self.action {
            Action::Append => {}
            Action::Overwrite => {
                let live = live_files(base.io(), base.metadata(), parent).await?;
                delta.rows.deleted = live_rows(base, &live).await?;
                delta.removed = live.iter().map(|file| file.data().file_path().to_owned()).collect();
                let deletes = live_deletes(base.io(), base.metadata(), parent).await?;
                delta.removed_deletes = deletes.iter().map(|delete| DeleteFile::of(delete.data())).collect();
            }
            Action::OverwriteWhere(overwrite) => {
                let left = overwrite.delta(base, file_prefix(base, self.token), &mut self.created).await?;
                delta = together(delta, left);
            }
            Action::ReplacePartitions => {
                return ReplacePartitions::delta(base, &self.written.files, self.written.spec_id).await;
            }
            Action::Merge(merge) if merge.is_empty() => {}
            Action::Merge(merge) => {
                let left = merge.delta(base, file_prefix(base, self.token), &mut self.created).await?;
                delta = together(delta, left);
            }
        }
        Ok(delta)
    }

    async fn holds(&mut self, base: &Table) -> Result<bool> {
        match (&self.action, base.metadata().current_snapshot()) {
            (Action::OverwriteWhere(overwrite), Some(_)) => overwrite.holds(base).await,
            (Action::Merge(merge), Some(_)) if !merge.is_empty() => merge.holds(base).await,
            _ => Ok(true),
        }
    }

    fn created(&self) -> Vec<String> {
        self.created.clone()
    }
}
