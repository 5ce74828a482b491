//! OPTIMIZE and VACUUM: what keeps a table quick to read and small, each with a report.

use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray};

use super::{Outcome, Write};
use crate::statement::{Named, Optimize};
use shared::Result;
use table::{Expire, Expired, FileKind, OrphanReport, Orphans};
use table_datafusion::{ChangeTable, Rewrite, Rewritten};

/// What was done, or would be.
#[derive(Debug, Default)]
pub(super) struct Report(Vec<Line>);

#[derive(Debug)]
struct Line {
    what: &'static str,
    count: u64,
    bytes: Option<u64>,
}

impl Report {
    fn line(&mut self, what: &'static str, count: u64, bytes: Option<u64>) {
        self.0.push(Line { what, count, bytes });
    }

    /// A row for each line.
    pub(super) fn batch(&self) -> Result<RecordBatch> {
        let number = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
        let whats = StringArray::from_iter_values(self.0.iter().map(|line| line.what));
        let counts = Int64Array::from_iter_values(self.0.iter().map(|line| number(line.count)));
        let bytes: Int64Array = self.0.iter().map(|line| line.bytes.map(number)).collect();
        Ok(RecordBatch::try_from_iter_with_nullable([
            ("what", Arc::new(whats) as ArrayRef, false),
            ("count", Arc::new(counts), false),
            ("bytes", Arc::new(bytes), true),
        ])?)
    }

    /// For EXPLAIN.
    pub(super) fn text(&self) -> String {
        let line = |line: &Line| format!("{}: {}", line.what, line.count);
        self.0.iter().map(line).collect::<Vec<_>>().join("\n")
    }
}

impl Write<'_> {
    /// Expires snapshots as the table's properties say, and removes files that nothing names.
    pub(super) async fn vacuum(&self, table: &Named, dry_run: bool) -> Result<(Outcome, Report)> {
        let table = self.iceberg(table).await?;
        let expired = table.expire(&Expire { dry_run, ..Expire::default() }).await?;
        let orphans = table.reload().await?.remove_orphans(&Orphans { dry_run, ..Orphans::default() }).await?;
        Ok((Outcome::new("VACUUM", table.name()), vacuumed(&expired, &orphans)))
    }
}

impl Write<'_> {
    /// Arranges files anew. A sort takes a half of the engine's memory at most, and spills where queries do.
    pub(super) async fn optimize(&self, asked: &Optimize, dry_run: bool) -> Result<(Outcome, Report)> {
        let table = self.iceberg(&asked.table).await?;
        let filters = match &asked.condition {
            Some(condition) => self.conditions(&table, std::slice::from_ref(condition)).await?,
            None => Vec::new(),
        };
        let sessions = &self.engine.sessions;
        let rewrite = Rewrite {
            arrangement: asked.arrangement.clone(),
            filters,
            memory_bytes: Some(sessions.memory / 2),
            spill: Some(sessions.spill.clone()),
            dry_run,
            ..Rewrite::default()
        };
        let rewritten = self.run.in_time(table.rewrite(&rewrite)).await?;
        let snapshot_id = rewritten.snapshots.last().copied();
        Ok((Outcome { snapshot_id, ..Outcome::new("OPTIMIZE", table.name()) }, optimized(&rewritten)))
    }
}

fn optimized(rewritten: &Rewritten) -> Report {
    let mut report = Report::default();
    report.line("files rewritten", rewritten.files_removed, Some(rewritten.bytes_removed));
    report.line("files written", rewritten.files_added, Some(rewritten.bytes_added));
    report.line("delete files removed", rewritten.delete_files_removed, None);
    report.line("groups of files rewritten", rewritten.groups, None);
    report.line("groups left as others changed them", rewritten.conflicts, None);
    report
}

fn vacuumed(expired: &Expired, orphans: &OrphanReport) -> Report {
    let mut report = Report::default();
    report.line("snapshots removed", expired.snapshots.len() as u64, None);
    report.line("tags and branches removed", expired.references.len() as u64, None);
    for (kind, what) in [
        (FileKind::Data, "data files removed"),
        (FileKind::Delete, "delete files removed"),
        (FileKind::Manifest, "manifests removed"),
        (FileKind::ManifestList, "manifest lists removed"),
        (FileKind::Statistics, "statistics files removed"),
        (FileKind::Metadata, "metadata files removed"),
    ] {
        report.line(what, expired.files.get(&kind).copied().unwrap_or(0), None);
    }
    report.line("all of these files", expired.files.values().sum(), Some(expired.bytes));
    report.line("orphans removed", orphans.orphans, Some(orphans.bytes));
    report.line("unnamed files too young to remove", orphans.young, None);
    report.line("files that could not be removed", expired.left_behind + orphans.left_behind, None);
    report
}
