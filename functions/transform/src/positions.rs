//! Where the incremental jobs of the lakehouse file stand in the tables that they read.

use shared::model::TableName;
use shared::project::{Mode, Project};
use shared::{ErrorKind, Result};
use table::{Table, Tables};

use crate::bookmark::{Bookmark, Mark};
use crate::job::token_key;

/// A job that reads a table on from a snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Position {
    pub(crate) workflow: String,
    pub(crate) job: String,
    /// What was read last. The table may have lost it since.
    pub(crate) snapshot: i64,
}

/// The jobs that read on in `source`, as their own tables tell.
///
/// # Errors
/// What the catalog or the store answers.
pub(crate) async fn in_table(project: &Project, tables: &Tables, source: &TableName) -> Result<Vec<Position>> {
    let mut positions = Vec::new();
    for (workflow, declared) in &project.file().workflows {
        for (job, query) in &declared.jobs {
            let reads = query.incremental.as_deref().filter(|_| query.mode == Mode::Incremental);
            let Some(reads) = reads else { continue };
            if project.table_name(reads)? != *source {
                continue;
            }
            let target = match tables.load(&project.table_name(&query.into)?).await {
                Ok(target) => target,
                Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::Invalid) => continue,
                Err(error) => return Err(error),
            };
            let Some(token) = target.token(&token_key(workflow, job)) else { continue };
            match Mark::parse(&token)?.bookmark {
                Some(Bookmark::Snapshot { table, snapshot }) if table == *source => {
                    positions.push(Position { workflow: workflow.clone(), job: job.clone(), snapshot });
                }
                _ => {}
            }
        }
    }
    Ok(positions)
}

impl Position {
    /// The sequence number of the snapshot, if the table still has it.
    pub(crate) fn sequence(&self, source: &Table) -> Option<i64> {
        source.metadata().snapshot_by_id(self.snapshot).map(|snapshot| snapshot.sequence_number())
    }
}
