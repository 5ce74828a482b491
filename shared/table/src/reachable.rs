//! The files that snapshots name, and their removal.

use std::collections::{BTreeMap, BTreeSet};

use futures::{StreamExt, TryStreamExt, stream};
use iceberg::spec::{DataContentType, ManifestFile, TableMetadata};
use url::Url;

use super::Table;
use super::io::Io;
use shared::{ErrorKind, Result};

/// Files that are read or removed at the same time.
const PARALLEL: usize = 16;

/// What a file of a table is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum FileKind {
    Data,
    /// Position deletes, equality deletes, deletion vectors.
    Delete,
    Manifest,
    ManifestList,
    Statistics,
    Metadata,
    /// What nothing names, so that nothing tells what it is.
    Other,
}

/// Files by their location, each with its kind and its size in bytes, 0 where nothing tells.
pub type Files = BTreeMap<String, (FileKind, u64)>;

/// The manifests of some snapshots, by location, and the lists that name them.
#[derive(Default)]
pub struct Named {
    pub lists: BTreeSet<String>,
    pub manifests: BTreeMap<String, ManifestFile>,
}

/// What the snapshots of `metadata` name that `wanted` lets pass. A list that is gone is passed over if `lenient`.
///
/// # Errors
/// As [`Io::manifest_list`].
pub async fn named(io: &Io, metadata: &TableMetadata, lenient: bool, wanted: impl Fn(i64) -> bool) -> Result<Named> {
    let mut snapshots: Vec<_> = metadata.snapshots().filter(|s| wanted(s.snapshot_id())).collect();
    snapshots.sort_by_key(|snapshot| (snapshot.sequence_number(), snapshot.snapshot_id()));
    let reads: Vec<_> = snapshots
        .into_iter()
        .map(|snapshot| async move {
            match io.manifest_list(snapshot, metadata.format_version()).await {
                Err(error) if lenient && error.kind() == ErrorKind::Bug => {
                    tracing::warn!(%error, snapshot = snapshot.snapshot_id(), "the files of a snapshot are not known");
                    Ok(None)
                }
                read => read.map(|list| Some((snapshot.manifest_list().to_owned(), list))),
            }
        })
        .collect();
    let mut lists = stream::iter(reads).buffer_unordered(PARALLEL);
    let mut named = Named::default();
    while let Some((location, list)) = lists.try_next().await?.map(Option::unwrap_or_default) {
        if location.is_empty() {
            continue;
        }
        named.lists.insert(location);
        for manifest in list.iter() {
            named.manifests.entry(manifest.manifest_path.clone()).or_insert_with(|| manifest.clone());
        }
    }
    Ok(named)
}

/// Calls `each` with every file that is alive in the manifests: its location, kind and size. A manifest that is gone is passed
/// over if `lenient`.
///
/// # Errors
/// As [`Io::any_manifest`].
pub async fn alive(
    io: &Io,
    manifests: impl IntoIterator<Item = &ManifestFile>,
    lenient: bool,
    mut each: impl FnMut(&str, FileKind, u64),
) -> Result<()> {
    let reads: Vec<_> = manifests
        .into_iter()
        .map(|file| async move {
            match io.any_manifest(file).await {
                Err(error) if lenient && error.kind() == ErrorKind::Bug => {
                    tracing::warn!(%error, manifest = file.manifest_path, "the files of a manifest are not known");
                    Ok(None)
                }
                read => read.map(Some),
            }
        })
        .collect();
    let mut read = stream::iter(reads).buffer_unordered(PARALLEL);
    while let Some(manifest) = read.try_next().await? {
        for entry in manifest.iter().flat_map(|m| m.entries()).filter(|entry| entry.is_alive()) {
            let kind = match entry.content_type() {
                DataContentType::Data => FileKind::Data,
                _ => FileKind::Delete,
            };
            each(entry.file_path(), kind, entry.data_file().file_size_in_bytes());
        }
    }
    Ok(())
}

/// Every file that the table's metadata, the log of those before it, and its snapshots name.
///
/// # Errors
/// As [`Io::manifest_list`]: without what a snapshot names nothing can be told from an orphan.
pub async fn everything(table: &Table) -> Result<Files> {
    let (io, metadata) = (&table.io, &table.metadata);
    let named = named(io, metadata, false, |_| true).await?;
    let mut files = statistics(metadata, |_| true);
    alive(io, named.manifests.values(), false, |location, kind, size| {
        files.insert(location.to_owned(), (kind, size));
    })
    .await?;
    files.extend(named.manifests.into_values().map(manifest));
    files.extend(named.lists.into_iter().map(|list| (list, (FileKind::ManifestList, 0))));
    let logged = metadata.metadata_log().iter().map(|entry| entry.metadata_file.clone());
    files.extend(logged.chain([table.location.clone()]).map(|location| (location, (FileKind::Metadata, 0))));
    Ok(files)
}

/// A manifest among other files.
pub fn manifest(file: ManifestFile) -> (String, (FileKind, u64)) {
    (file.manifest_path, (FileKind::Manifest, file.manifest_length.max(0).unsigned_abs()))
}

/// The files of statistics, of the snapshots that `wanted` lets pass.
pub fn statistics(metadata: &TableMetadata, wanted: impl Fn(i64) -> bool) -> Files {
    let size = |bytes: i64| (FileKind::Statistics, bytes.max(0).unsigned_abs());
    let of_table = metadata.statistics_iter().filter(|s| wanted(s.snapshot_id));
    let of_partitions = metadata.partition_statistics_iter().filter(|s| wanted(s.snapshot_id));
    of_table
        .map(|s| (s.statistics_path.clone(), size(s.file_size_in_bytes)))
        .chain(of_partitions.map(|s| (s.statistics_path.clone(), size(s.file_size_in_bytes))))
        .collect()
}

/// Removes files; gives the number of those that could not be removed, which are logged.
pub async fn remove(io: &Io, files: impl IntoIterator<Item = Url>) -> u64 {
    let removals: Vec<_> = files
        .into_iter()
        .map(|url| async move {
            let removed = io.storage().delete(&url).await;
            removed.inspect_err(|error| tracing::warn!(%error, %url, "left an unused file behind")).is_err()
        })
        .collect();
    stream::iter(removals).buffer_unordered(PARALLEL).filter(|failed| std::future::ready(*failed)).count().await as u64
}
