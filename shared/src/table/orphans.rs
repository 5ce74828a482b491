//! Orphans: files in a table's folder that nothing names, such as writers leave that were stopped.
//!
//! A file in flight is safe twice over: it is younger than the age that is asked for, which is a day or more, and the folder is
//! listed before the table is read, so what was committed since is named. The table is read once more before anything goes.

use std::collections::HashSet;

use percent_encoding::percent_decode_str;
use url::Url;

use super::expire::check_collected;
use super::io::url;
use super::{Table, reach};
use crate::error::Context;
use crate::storage::ObjectInfo;
use crate::{Error, ErrorKind, Result};

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
    /// `Invalid` for files younger than a day, or when the table's `gc.enabled` is `false`; `Conflict` when another table lies in
    /// the folder; `Bug`, naming the file, when something that a snapshot names can't be read: nothing is removed then.
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
    let listed = table.io.storage.list(&folder(table)?).await?;
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
        report.left_behind = reach::remove(&table.io, old.iter().map(|object| object.url.to_string())).await;
        tracing::info!(table = %table.name(), orphans = report.orphans, bytes = report.bytes, "orphans removed");
    }
    Ok(report)
}

/// Objects that nothing of the table names: those that are old enough, and the number of the others.
async fn unnamed<'a>(listed: &'a [ObjectInfo], table: &Table, cutoff_ms: i64) -> Result<(Vec<&'a ObjectInfo>, u64)> {
    let named = reach::everything(table).await?;
    let named: HashSet<_> = named.keys().map(|location| url(location).map(|url| place(&url))).collect::<Result<_>>()?;
    let unnamed = listed
        .iter()
        .filter(|object| !named.contains(&place(&object.url)) && !object.url.path().ends_with(VERSION_HINT));
    let (old, young): (Vec<_>, Vec<_>) = unnamed.partition(|object| object.modified_ms < cutoff_ms);
    Ok((old, young.len() as u64))
}

/// The table's folder, with a final slash.
pub(super) fn folder(table: &Table) -> Result<Url> {
    url(&format!("{}/", table.metadata.location().trim_end_matches('/')))
}

/// # Errors
/// `Conflict` when another table of the catalog lies in the table's folder: its files would be taken for orphans.
pub(super) async fn check_alone(table: &Table) -> Result<()> {
    let ours = place(&folder(table)?);
    let catalog = &table.ports.catalog;
    for database in catalog.list_databases().await? {
        let others = match catalog.list_tables(&database.name).await {
            // A database that is none of the lakehouse's.
            Err(error) if matches!(error.kind(), ErrorKind::Denied | ErrorKind::NotFound) => continue,
            others => others?,
        };
        for other in others {
            let Ok(theirs) = Url::parse(&format!("{}/", other.input.storage.location.trim_end_matches('/'))) else {
                continue;
            };
            if other.input.name != *table.name() && place(&theirs).starts_with(&ours) {
                return Err(Error::conflict(format!(
                    "expected the folder `{}` to hold one table, found `{}` in it too",
                    table.metadata.location(),
                    other.input.name
                )));
            }
        }
    }
    Ok(())
}

/// Where an object lies, however its address is written: `s3a` is `s3`, and characters are decoded as often as they are encoded,
/// so that in doubt two addresses are one.
fn place(url: &Url) -> String {
    let mut path = url.path().to_owned();
    loop {
        let decoded = percent_decode_str(&path).decode_utf8_lossy().into_owned();
        if decoded == path {
            return format!("{}{path}", url.host_str().unwrap_or_default());
        }
        path = decoded;
    }
}
