//! The maintenance of a table: compaction → expiry → orphans, each done again without harm when a try is repeated. Snapshots from which
//! on an incremental job reads do not expire.
//!
//! The workflow that keeps tables by default does only what there is to do ([`has_work`]), so that a lakehouse at rest stays as it is:
//! the state document `maintenance/{table}` tells what its last run left.

use serde::{Deserialize, Serialize};
use shared::model::{TableName, Transform};
use shared::project::{Compaction, Expiry, Maintenance, OrphanRemoval, Seconds};
use shared::state::{change_json, get_json};
use shared::{ErrorKind, Result};
use table::{Expire, SortField, Table};
use table_datafusion::{Arrangement, ChangeTable, Rewrite};

use crate::job::{JobContext, Resources, Task};
use crate::positions;
use crate::record::{Compacted, Expired, MaintenanceReport, Orphans, Outcome};

/// Time between two listings for orphans by default, unless the policy names another age: younger orphans would not go anyway.
const ORPHAN_AGE: Seconds = Seconds(3 * 86_400);

/// What the maintenance by default left of a table.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
struct Kept {
    /// The snapshot of which no files are to be put together, and what that was asked with.
    #[serde(default)]
    compacted: Option<(i64, Compaction)>,
    #[serde(default)]
    orphans: Option<Looked>,
}

/// A listing of a table's folder.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Looked {
    /// The metadata file that was current.
    metadata: String,
    at_ms: i64,
    /// Whether files were left that nothing named.
    unsettled: bool,
}

impl Kept {
    async fn load(context: &JobContext, table: &TableName) -> Result<Self> {
        let kept = get_json(context.ports.state.as_ref(), &key(table)).await?;
        Ok(kept.map(|(kept, _)| kept).unwrap_or_default())
    }

    fn is_compacted(&self, table: &Table, compaction: &Compaction) -> bool {
        let Some(snapshot) = table.current_snapshot() else { return true };
        self.compacted.as_ref().is_some_and(|(of, by)| (*of, by) == (snapshot, compaction))
    }

    fn is_to_be_listed(&self, table: &Table, removal: &OrphanRemoval, now_ms: i64) -> bool {
        let Some(looked) = &self.orphans else { return true };
        let is_time = looked.at_ms <= ago(now_ms, removal.older_than.unwrap_or(ORPHAN_AGE));
        is_time && (looked.unsettled || looked.metadata != table.metadata_location())
    }
}

fn key(table: &TableName) -> String {
    format!("maintenance/{table}")
}

async fn note(context: &JobContext, table: &TableName, change: impl Fn(&mut Kept) + Sync) -> Result<()> {
    let change = |kept: &mut Kept| {
        let before = kept.clone();
        change(kept);
        *kept != before
    };
    change_json(context.ports.state.as_ref(), &*context.ports.random, &key(table), change).await.map(|_: Kept| ())
}

/// Whether a table that is kept by default needs anything. What is found to need no compaction is remembered.
///
/// # Errors
/// As [`run`].
pub(crate) async fn has_work(context: &JobContext, task: &Task, maintenance: &Maintenance) -> Result<bool> {
    let table = match context.tables.load(&task.into).await {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(false),
        other => other?,
    };
    let now_ms = context.ports.clock.now_ms();
    let kept = Kept::load(context, &task.into).await?;
    if table.is_collected() {
        if let Some(expiry) = &maintenance.expire
            && table.count_expired(&expiry_of(context, &table, expiry, now_ms, true).await?.0)? > 0
        {
            return Ok(true);
        }
        if let Some(removal) = &maintenance.orphans
            && kept.is_to_be_listed(&table, removal, now_ms)
        {
            return Ok(true);
        }
    }
    let Some(compaction) = maintenance.compact.as_ref().filter(|compaction| !kept.is_compacted(&table, compaction))
    else {
        return Ok(false);
    };
    if compact(&table, compaction, &context.resources, true).await?.groups > 0 {
        return Ok(true);
    }
    note_compacted(context, &table, table.current_snapshot(), compaction).await?;
    Ok(false)
}

async fn note_compacted(
    context: &JobContext,
    table: &Table,
    snapshot: Option<i64>,
    compaction: &Compaction,
) -> Result<()> {
    let compacted = snapshot.map(|snapshot| (snapshot, compaction.clone()));
    note(context, table.name(), |kept| kept.compacted.clone_from(&compacted)).await
}

/// Keeps the task's table. `outcome` is filled as far as it gets.
///
/// # Errors
/// `NotFound` without the table, unless it is kept by default; otherwise what [`Table::rewrite`], [`Table::expire`] and
/// [`Table::remove_orphans`] answer.
pub async fn run(context: &JobContext, task: &Task, maintenance: &Maintenance, outcome: &mut Outcome) -> Result<()> {
    let by_default = context.project.keeps_by_default(&task.workflow);
    let table = match context.tables.load(&task.into).await {
        Err(error) if by_default && error.kind() == ErrorKind::NotFound => {
            outcome.note = Some("nothing has written the table yet".into());
            return Ok(());
        }
        other => other?,
    };
    let mut report = MaintenanceReport { dry_run: maintenance.dry_run, ..MaintenanceReport::default() };
    let mut keeper = Keeper { context, table, maintenance, by_default, outcome };
    let done = keeper.keep(&mut report).await;
    if let Some(compacted) = &report.compacted {
        outcome.bytes_written = compacted.bytes_added;
        outcome.snapshot_id = compacted.snapshots.last().cloned();
    }
    outcome.maintenance = Some(report);
    done
}

/// The maintenance of a table under way.
struct Keeper<'a> {
    context: &'a JobContext,
    table: Table,
    maintenance: &'a Maintenance,
    /// Whether only what there is to do is done, and remembered.
    by_default: bool,
    outcome: &'a mut Outcome,
}

impl Keeper<'_> {
    /// One after the other: what is put together now is expired the next time, what is expired now is not taken for orphans.
    async fn keep(&mut self, report: &mut MaintenanceReport) -> Result<()> {
        let (context, Maintenance { compact: compaction, expire: expiry, orphans: removal, dry_run, .. }) =
            (self.context, self.maintenance);
        let now_ms = context.ports.clock.now_ms();
        if let Some(compaction) = compaction {
            let before = self.table.current_snapshot();
            let compacted = compact(&self.table, compaction, &context.resources, *dry_run).await?;
            if self.by_default && !dry_run && compacted.conflicts == 0 {
                let newest = compacted.snapshots.last().and_then(|snapshot| snapshot.parse().ok());
                note_compacted(context, &self.table, newest.or(before), compaction).await?;
            }
            report.compacted = Some(compacted);
        }
        if self.by_default && !self.table.is_collected() {
            self.outcome.note = Some("the table's property `gc.enabled` is `false`: no files were removed".into());
            return Ok(());
        }
        if let Some(expiry) = expiry {
            report.expired = Some(self.expire(expiry, now_ms).await?);
        }
        if let Some(removal) = removal {
            report.orphans = self.remove_orphans(removal, now_ms).await?;
        }
        Ok(())
    }

    async fn expire(&mut self, expiry: &Expiry, now_ms: i64) -> Result<Expired> {
        self.table = self.table.reload().await?;
        let (expire, held_by) = expiry_of(self.context, &self.table, expiry, now_ms, self.maintenance.dry_run).await?;
        let done = self.table.expire(&expire).await?;
        if let Some(job) = held_by {
            self.outcome.note = Some(format!("older snapshots stay, as job `{job}` reads on from one of them"));
        }
        Ok(Expired {
            snapshots: done.snapshots.len() as u64,
            references: done.references,
            files: done.files.values().sum(),
            bytes: done.bytes,
            left_behind: done.left_behind,
        })
    }

    async fn remove_orphans(&mut self, removal: &OrphanRemoval, now_ms: i64) -> Result<Option<Orphans>> {
        let (context, dry_run) = (self.context, self.maintenance.dry_run);
        self.table = self.table.reload().await?;
        let name = self.table.name().clone();
        if self.by_default && !Kept::load(context, &name).await?.is_to_be_listed(&self.table, removal, now_ms) {
            return Ok(None);
        }
        let orphans = remove_orphans(&self.table, removal, now_ms, dry_run).await?;
        if self.by_default && !dry_run {
            let metadata = self.table.metadata_location().to_owned();
            let looked = Looked { metadata, at_ms: now_ms, unsettled: orphans.young + orphans.left_behind > 0 };
            note(context, &name, |kept| kept.orphans = Some(looked.clone())).await?;
        }
        Ok(Some(orphans))
    }
}

async fn compact(table: &Table, compaction: &Compaction, resources: &Resources, dry_run: bool) -> Result<Compacted> {
    let sorted: Vec<_> = compaction
        .sort_columns()?
        .into_iter()
        .map(|by| SortField {
            column: by.column,
            transform: Transform::Identity,
            descending: by.descending,
            nulls_first: !by.descending,
        })
        .collect();
    let arrangement = match (sorted.is_empty(), compaction.z_order.is_empty()) {
        (false, _) => Arrangement::Sort(sorted),
        (true, false) => Arrangement::ZOrder(compaction.z_order.clone()),
        (true, true) => Arrangement::BinPack,
    };
    let rewrite = Rewrite {
        arrangement,
        filters: Vec::new(),
        target_file_bytes: compaction.file_size.map(|size| size.0),
        memory_bytes: resources.memory_bytes,
        spill: resources.spill.clone(),
        min_input_files: compaction.min_files.and_then(|files| usize::try_from(files).ok()),
        dry_run,
    };
    let done = table.rewrite(&rewrite).await?;
    Ok(Compacted {
        groups: done.groups,
        conflicts: done.conflicts,
        files_removed: done.files_removed,
        bytes_removed: done.bytes_removed,
        files_added: done.files_added,
        bytes_added: done.bytes_added,
        delete_files_removed: done.delete_files_removed,
        snapshots: done.snapshots.iter().map(ToString::to_string).collect(),
    })
}

/// What an expiry asks for, and the job that keeps snapshots from going which are old enough.
async fn expiry_of(
    context: &JobContext,
    table: &Table,
    expiry: &Expiry,
    now_ms: i64,
    dry_run: bool,
) -> Result<(Expire, Option<String>)> {
    let older_than_ms = expiry.older_than.map(|age| ago(now_ms, age));
    let expire = Expire { older_than_ms, retain_last: expiry.keep, dry_run, ..Expire::default() };
    let old = table.count_expired(&expire)?;
    if old == 0 {
        return Ok((expire, None));
    }
    let positions = positions::in_table(&context.project, &context.tables, table.name()).await?;
    let least = positions.iter().filter_map(|at| Some((at.sequence(table)?, at))).min_by_key(|(sequence, _)| *sequence);
    let held = Expire { from_sequence: least.map(|(sequence, _)| sequence), ..expire };
    let holds = table.count_expired(&held)? < old;
    Ok((held, least.filter(|_| holds).map(|(_, at)| format!("{}.{}", at.workflow, at.job))))
}

async fn remove_orphans(table: &Table, removal: &OrphanRemoval, now_ms: i64, dry_run: bool) -> Result<Orphans> {
    let older_than_ms = removal.older_than.map(|age| ago(now_ms, age));
    let found = table.remove_orphans(&table::Orphans { older_than_ms, dry_run }).await?;
    Ok(Orphans {
        files: found.orphans,
        bytes: found.bytes,
        young: found.young,
        left_behind: found.left_behind,
        examples: found.examples,
    })
}

/// The time so long before `now_ms`.
fn ago(now_ms: i64, age: Seconds) -> i64 {
    let age_ms = i64::try_from(age.0).unwrap_or(i64::MAX).saturating_mul(1000);
    now_ms.saturating_sub(age_ms)
}
