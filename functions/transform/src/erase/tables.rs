//! Erasure in Iceberg tables: delete → rewrite → drop tags and branches → expire. Older versions wait for the jobs that have read up to one
//! of them.

use serde::Serialize;
use shared::api::status::counted;
use shared::catalog::Table as Entry;
use shared::model::TableName;
use shared::{ErrorKind, Result};
use table::{Orphans, Table};
use table_datafusion::Rewrite;
use table_datafusion::erase::{self, Missing, Purged, Traces};

use super::{Report, Scope};
use crate::Transform;
use crate::positions;

/// How old a file that nothing names is at least when it goes, a bit over what removal asks for.
const LEAST_ORPHAN_AGE_MS: i64 = 86_400_000 + 60_000;

/// What was found in a table, and what was done.
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct TableReport {
    table: String,
    /// Rows that queries saw.
    rows: u64,
    /// Rows in data files of any version, deleted ones among them.
    kept_rows: u64,
    /// Those files, and the snapshots that name them.
    files: u64,
    snapshots: u64,
    /// Tags and branches that name them.
    references: Vec<String>,
    #[serde(flatten)]
    done: Option<Done>,
    /// Why the table was left as it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    left: Option<String>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Done {
    rows_deleted: u64,
    files_rewritten: u64,
    snapshots_expired: u64,
    references_dropped: Vec<String>,
}

impl TableReport {
    pub(super) fn found(&self) -> bool {
        self.rows > 0 || self.files > 0
    }
}

impl Transform {
    pub(super) async fn erase_table(&self, scope: &Scope<'_>, entry: &Entry, report: &mut Report) -> Result<()> {
        let name = &entry.input.name;
        let table = match self.context.tables.load(name).await {
            Ok(table) => table,
            // It went since it was listed.
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error.context(format!("looking for rows to erase in the table `{name}`"))),
        };
        match erase::missing(&table, scope.subject) {
            Some(Missing::Never(_)) => return Ok(()),
            Some(Missing::Unreadable(column)) => {
                report.matched = true;
                report.remaining.push(format!(
                    "table `{name}`: its column `{column}` is of a type that a value's text can't be compared with: delete the rows by a \
                     statement and expire its snapshots"
                ));
                return Ok(());
            }
            Some(Missing::Dropped(column)) => {
                report.matched = true;
                report.not_reached.push(format!(
                    "table `{name}`: its column `{column}` was dropped, files that were written before may hold it: rewrite them by \
                     `OPTIMIZE {name} REWRITE DATA USING BIN_PACK` and expire its snapshots"
                ));
                return Ok(());
            }
            None => report.matched = true,
        }
        if !scope.dry_run {
            self.remove_orphans(&table, report).await?;
        }
        let found = match erase::traces(&table, scope.subject).await {
            // Files went while they were read: another erasure, or maintenance.
            Err(error) if error.kind() == ErrorKind::NotFound => {
                report.remaining.push(format!("table `{name}` was changed meanwhile"));
                return Ok(());
            }
            found => found?,
        };
        if found.is_empty() {
            return Ok(());
        }
        let mut told = TableReport {
            table: name.to_string(),
            rows: found.rows,
            kept_rows: found.kept_rows,
            files: found.files.len() as u64,
            snapshots: found.snapshots.len() as u64,
            references: found.references.clone(),
            ..TableReport::default()
        };
        if !scope.dry_run {
            self.remove(scope, &table, &mut told, report).await?;
        }
        report.tables.push(told);
        Ok(())
    }

    /// Files that writers left which were stopped may hold anything. Younger ones may belong to a writer at work.
    async fn remove_orphans(&self, table: &Table, report: &mut Report) -> Result<()> {
        let name = table.name();
        let older_than_ms = Some(report.at_ms - LEAST_ORPHAN_AGE_MS);
        match table.remove_orphans(&Orphans { older_than_ms, dry_run: false }).await {
            Ok(found) if found.left_behind > 0 => report.remaining.push(format!(
                "{} in the folder of `{name}` that nothing names could not be removed",
                counted(found.left_behind, "file")
            )),
            Ok(found) if found.young > 0 => report.not_reached.push(format!(
                "{} in the folder of `{name}` that nothing names, such as writers leave which were stopped: the removal of orphans takes \
                 them when they are a day old",
                counted(found.young, "file")
            )),
            Ok(_) => {}
            Err(error) if matches!(error.kind(), ErrorKind::Invalid | ErrorKind::Conflict) => {
                report.not_reached.push(format!("files in the folder of `{name}` that nothing names: {error}"));
            }
            Err(error) => return Err(error),
        }
        Ok(())
    }

    async fn remove(
        &self,
        scope: &Scope<'_>,
        table: &Table,
        told: &mut TableReport,
        report: &mut Report,
    ) -> Result<()> {
        let resources = &self.context.resources;
        let rewrite =
            Rewrite { memory_bytes: resources.memory_bytes, spill: resources.spill.clone(), ..Rewrite::default() };
        let name = table.name();
        let removed = async {
            let mut purged = erase::delete(table, scope.subject, &rewrite).await?;
            let now = table.reload().await?;
            let found = erase::traces(&now, scope.subject).await?;
            let waiting = self.waiting_for(name, &now, &found).await?;
            let mut remaining = waiting;
            if remaining.is_empty() {
                erase::purge(&now, &found, &mut purged).await?;
                let left = erase::traces(&now, scope.subject).await?;
                if !left.snapshots.is_empty() {
                    remaining.push(format!(
                        "{} of `{name}` still have rows, as a branch's or the table's own settings keep them \
                         (`min-snapshots-to-keep`): change those",
                        counted(left.snapshots.len() as u64, "version")
                    ));
                }
            }
            Ok::<_, shared::Error>((purged, remaining))
        };
        match removed.await {
            Ok((purged, waiting)) => {
                if purged.left_behind > 0 {
                    report.remaining.push(format!("{} files of `{name}` could not be removed", purged.left_behind));
                }
                report.remaining.extend(waiting);
                told.done = Some(Done::of(purged));
            }
            // A table that forbids the removal of files, a format that is not written, ….
            Err(error) if matches!(error.kind(), ErrorKind::Invalid | ErrorKind::Conflict | ErrorKind::NotFound) => {
                report.remaining.push(format!("table `{name}`: {error}"));
                told.left = Some(error.to_string());
            }
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// The jobs that read on from a version which is to go.
    async fn waiting_for(&self, name: &TableName, table: &Table, found: &Traces) -> Result<Vec<String>> {
        let Some(newest) = found.snapshots.values().max() else { return Ok(Vec::new()) };
        let positions = positions::in_table(&self.context.project, &self.context.tables, name).await?;
        let waits = positions.into_iter().filter(|at| at.sequence(table).is_some_and(|sequence| sequence <= *newest));
        let told = waits.map(|positions::Position { workflow, job, .. }| {
            format!(
                "job `{job}` of the workflow `{workflow}` goes on from a version of `{name}` that is to be removed: let it read on (`tarn run {workflow}`), or drop its table if it can't"
            )
        });
        Ok(told.collect())
    }
}

impl Done {
    fn of(purged: Purged) -> Self {
        Self {
            rows_deleted: purged.rows,
            files_rewritten: purged.files_rewritten,
            snapshots_expired: purged.snapshots_expired,
            references_dropped: purged.references,
        }
    }
}
