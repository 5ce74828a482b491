//! The files that are alive in a snapshot, as its manifests list them.

use std::sync::Arc;

use futures::{StreamExt, TryStreamExt, stream};
use iceberg::spec::{
    DataContentType, DataFile, Manifest, ManifestEntry, ManifestFile, ManifestStatus, Snapshot, TableMetadata,
};

use super::io::Io;
use super::snapshot::PARALLEL_READS;
use crate::{Error, Result};

/// A file of a snapshot, in the manifest that lists it.
#[derive(Debug, Clone)]
pub(super) struct LiveFile {
    manifest: Arc<Manifest>,
    entry: usize,
}

impl LiveFile {
    pub(super) fn data(&self) -> &DataFile {
        self.entry().data_file()
    }

    pub(super) fn entry(&self) -> &ManifestEntry {
        &self.manifest.entries()[self.entry]
    }

    /// Whether the file came with the snapshot `id`.
    pub(super) fn added_by(&self, id: i64) -> bool {
        self.entry().status() == ManifestStatus::Added && self.entry().snapshot_id() == Some(id)
    }

    pub(super) fn manifest(&self) -> &Manifest {
        &self.manifest
    }
}

/// The data files of a snapshot.
pub(super) async fn live_files(io: &Io, metadata: &TableMetadata, snapshot: &Snapshot) -> Result<Vec<LiveFile>> {
    let files = live_entries(io, metadata, snapshot).await?;
    match files.iter().find(|file| file.data().content_type() != DataContentType::Data) {
        None => Ok(files),
        Some(deletes) => Err(Error::invalid(format!(
            "expected a table without row-level delete files, found `{}`: compact the table with the engine that wrote them",
            deletes.data().file_path()
        ))),
    }
}

/// All files of a snapshot, data and deletes.
pub(super) async fn live_entries(io: &Io, metadata: &TableMetadata, snapshot: &Snapshot) -> Result<Vec<LiveFile>> {
    let list = io.manifest_list(snapshot, metadata.format_version()).await?;
    let live: Vec<_> = list.iter().filter(|m| m.has_added_files() || m.has_existing_files()).collect();
    alive(io, &live).await
}

async fn alive(io: &Io, manifests: &[&ManifestFile]) -> Result<Vec<LiveFile>> {
    let reads: Vec<_> = manifests.iter().map(|file| io.manifest(file)).collect();
    let manifests: Vec<_> = stream::iter(reads).buffered(PARALLEL_READS).try_collect().await?;
    let mut files = Vec::new();
    for manifest in manifests {
        let alive = manifest.entries().iter().enumerate().filter(|(_, entry)| entry.is_alive());
        files.extend(alive.map(|(entry, _)| LiveFile { manifest: manifest.clone(), entry }));
    }
    Ok(files)
}
