//! Orphans: files in a table's own folder that nothing names, such as writers leave that were stopped. No other folder is looked
//! through, also when the table has files there.
//!
//! A file in flight is safe twice over: it is younger than the age that is asked for, which is a day or more, and the folder is
//! listed before the table is read, so what was committed since is named. The table is read once more before anything goes.

use std::collections::HashSet;

use super::expire::check_collected;
use super::ownership::{check_alone, folder, place};
use super::{Table, reachable};
use shared::error::Context;
use shared::storage::ObjectInfo;
use shared::{Error, Result};

/// Files that are younger may belong to a writer that is still at work.
const LEAST_AGE_MS: i64 = 86_400_000;
/// Unless something else is asked for.
const AGE_MS: i64 = 3 * 86_400_000;
/// Locations in a report.
const EXAMPLES: usize = 20;
/// By which writers without a catalog find the newest metadata.
const VERSION_HINT: &str = "version-hint.text";

/// Which orphans to remove.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Orphans {
    /// Files that were last written before this time: milliseconds since the epoch, a day ago or earlier (default: 3 days ago).
    pub older_than_ms: Option<i64>,
    /// Tell what would go, change nothing.
    pub dry_run: bool,
}

/// What was found in a table's folder.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OrphanReport {
    pub files: u64,
    /// Files that nothing names and that are old enough: removed, or would be.
    pub orphans: u64,
    /// Bytes of the orphans.
    pub bytes: u64,
    /// Files that nothing names and that are too young to tell.
    pub young: u64,
    /// Orphans that could not be removed.
    pub left_behind: u64,
    /// Some of the orphans.
    pub examples: Vec<String>,
}

impl Table {
    /// Removes files of the table's folder that no snapshot, manifest or metadata file of it names.
    ///
    /// # Errors
    /// `Invalid` for files younger than a day, or when the table's `gc.enabled` is `false`; `Conflict` when another table has a
    /// claim to the folder; `Bug`, naming the file, when something that a snapshot names can't be read: nothing is removed then.
    pub async fn remove_orphans(&self, orphans: &Orphans) -> Result<OrphanReport> {
        run(self, orphans).await.context(|| format!("removing orphans of the table `{}`", self.name()))
    }
}

async fn run(table: &Table, orphans: &Orphans) -> Result<OrphanReport> {
    let now_ms = table.ports.clock.now_ms();
    let cutoff_ms = orphans.older_than_ms.unwrap_or(now_ms - AGE_MS);
    if cutoff_ms > now_ms - LEAST_AGE_MS {
        let age = (now_ms - cutoff_ms) / 1000;
        return Err(Error::invalid(format!(
            "expected orphans of a day or older, because younger files may belong to a writer at work, found {age} s"
        )));
    }
    check_collected(&table.metadata)?;
    check_alone(table).await?;
    let listed = table.io.storage().list(&folder(table)?).await?;
    let now = table.reload().await?;
    let (mut old, young) = unnamed(&listed, &now, cutoff_ms).await?;
    let files = listed.len() as u64;
    if !orphans.dry_run && !old.is_empty() {
        let again = now.reload().await?;
        if again.location != now.location {
            old = unnamed(&listed, &again, cutoff_ms).await?.0;
        }
    }
    let mut report = OrphanReport {
        files,
        orphans: old.len() as u64,
        bytes: old.iter().map(|object| object.size).sum(),
        young,
        left_behind: 0,
        examples: old.iter().take(EXAMPLES).map(|object| object.url.to_string()).collect(),
    };
    if !orphans.dry_run {
        report.left_behind = reachable::remove(&table.io, old.iter().map(|object| object.url.clone())).await;
        tracing::info!(table = %table.name(), orphans = report.orphans, bytes = report.bytes, "orphans removed");
    }
    Ok(report)
}

/// Objects that nothing of the table names: those that are old enough, and the number of the others.
async fn unnamed<'a>(listed: &'a [ObjectInfo], table: &Table, cutoff_ms: i64) -> Result<(Vec<&'a ObjectInfo>, u64)> {
    let named = reachable::everything(table).await?;
    let named: HashSet<_> =
        named.keys().map(|location| table.io.url(location).map(|url| place(&url))).collect::<Result<_>>()?;
    let unnamed = listed
        .iter()
        .filter(|object| !named.contains(&place(&object.url)) && !object.url.path().ends_with(VERSION_HINT));
    let (old, young): (Vec<_>, Vec<_>) = unnamed.partition(|object| object.modified_ms < cutoff_ms);
    Ok((old, young.len() as u64))
}
