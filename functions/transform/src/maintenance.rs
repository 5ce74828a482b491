//! The maintenance of a table: compaction → expiry → orphans, each done again without harm when a try is repeated.

use shared::Result;
use shared::model::Transform;
use shared::project::{Compaction, Expiry, Maintenance, OrphanRemoval, Seconds};
use table::{Expire, SortField, Table};
use table_datafusion::{Arrangement, ChangeTable, Rewrite};

use crate::job::{JobContext, Resources, Task};
use crate::record::{Compacted, Expired, MaintenanceReport, Orphans, Outcome};

/// Keeps the task's table. `outcome` is filled as far as it gets.
///
/// # Errors
/// `NotFound` without the table; otherwise what [`Table::rewrite`], [`Table::expire`] and [`Table::remove_orphans`] answer.
pub async fn run(context: &JobContext, task: &Task, maintenance: &Maintenance, outcome: &mut Outcome) -> Result<()> {
    let table = context.tables.load(&task.into).await?;
    let dry_run = maintenance.dry_run;
    let mut report = MaintenanceReport { dry_run, ..MaintenanceReport::default() };
    let now_ms = context.ports.clock.now_ms();
    // One after the other: what is put together now is expired the next time, what is expired now is not taken for orphans.
    let done = async {
        if let Some(compaction) = &maintenance.compact {
            report.compacted = Some(compact(&table, compaction, &context.resources, dry_run).await?);
        }
        if let Some(expiry) = &maintenance.expire {
            report.expired = Some(expire(&table, expiry, now_ms, dry_run).await?);
        }
        if let Some(removal) = &maintenance.orphans {
            report.orphans = Some(remove_orphans(&table, removal, now_ms, dry_run).await?);
        }
        Ok(())
    };
    let done = done.await;
    if let Some(compacted) = &report.compacted {
        outcome.bytes_written = compacted.bytes_added;
        outcome.snapshot_id = compacted.snapshots.last().cloned();
    }
    outcome.maintenance = Some(report);
    done
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

async fn expire(table: &Table, expiry: &Expiry, now_ms: i64, dry_run: bool) -> Result<Expired> {
    let older_than_ms = expiry.older_than.map(|age| ago(now_ms, age));
    let done = table.expire(&Expire { older_than_ms, retain_last: expiry.keep, dry_run, ..Expire::default() }).await?;
    Ok(Expired {
        snapshots: done.snapshots.len() as u64,
        references: done.references,
        files: done.files.values().sum(),
        bytes: done.bytes,
        left_behind: done.left_behind,
    })
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
