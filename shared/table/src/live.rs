//! The files that are alive in a snapshot, as its manifests list them.

use std::collections::BTreeSet;
use std::sync::Arc;

use futures::{StreamExt, TryStreamExt, stream};
use iceberg::spec::{
    DataFile, Manifest, ManifestContentType, ManifestEntry, ManifestFile, ManifestStatus, Snapshot, TableMetadata,
};

use super::deletes::{Deletes, Index, Scope};
use super::io::Io;
use super::lineage::first_row_id;
use super::snapshot::{DeleteFile, PARALLEL_READS};
use shared::{Error, Result};

/// A file of a snapshot, in the manifest that lists it.
#[derive(Debug, Clone)]
pub struct LiveFile {
    manifest: Arc<Manifest>,
    entry: usize,
    first_row_id: Option<u64>,
    /// Row-level deletes that apply to a data file.
    deletes: Option<Arc<Deletes>>,
}

impl LiveFile {
    pub fn data(&self) -> &DataFile {
        self.entry().data_file()
    }

    pub fn entry(&self) -> &ManifestEntry {
        &self.manifest.entries()[self.entry]
    }

    /// The data sequence number; 0 for what was written to a v1 table.
    pub fn sequence(&self) -> i64 {
        self.entry().sequence_number().unwrap_or(0)
    }

    /// The id of a data file's first row, in tables that keep row lineage; the others follow.
    pub fn first_row_id(&self) -> Option<u64> {
        self.first_row_id
    }

    /// Whether the file came with the snapshot `id`.
    pub fn added_by(&self, id: i64) -> bool {
        self.entry().status() == ManifestStatus::Added && self.entry().snapshot_id() == Some(id)
    }

    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// The partition spec that the file was written with.
    pub fn spec_id(&self) -> i32 {
        self.manifest.metadata().partition_spec().spec_id()
    }

    /// The delete files that apply to a data file.
    pub fn delete_files(&self) -> BTreeSet<DeleteFile> {
        self.deletes.as_ref().map(|deletes| deletes.files(self.sequence())).unwrap_or_default()
    }

    pub fn deletes(&self) -> Option<&Arc<Deletes>> {
        self.deletes.as_ref()
    }

    /// Whether the same delete files apply to both.
    pub fn same_deletes(&self, other: &Self) -> bool {
        self.delete_files() == other.delete_files()
    }

    /// Whether both have the same rows with the same ids: rows that are older than a table's lineage get ids with the first
    /// commit after it begins.
    pub fn same_rows(&self, other: &Self) -> bool {
        self.same_deletes(other) && self.first_row_id == other.first_row_id
    }

    pub fn equality(&self) -> &[Arc<Scope>] {
        self.deletes.as_ref().map_or(&[], |deletes| &deletes.equality)
    }
}

/// The data files of a snapshot, each with the row-level deletes that apply to it.
pub async fn live_files(io: &Io, metadata: &TableMetadata, snapshot: &Snapshot) -> Result<Vec<LiveFile>> {
    let list = io.manifest_list(snapshot, metadata.format_version()).await?;
    let (data, deletes) = live_manifests(&list);
    files_of(io, &data, &deletes).await
}

/// The manifests of a snapshot that list live files: of data files, of delete files.
pub fn live_manifests(list: &[ManifestFile]) -> (Vec<&ManifestFile>, Vec<&ManifestFile>) {
    live(list).partition(|m| m.content == ManifestContentType::Data)
}

/// The data files of some manifests, each with the deletes of others that apply to it.
pub async fn files_of(io: &Io, data: &[&ManifestFile], deletes: &[&ManifestFile]) -> Result<Vec<LiveFile>> {
    let mut files = alive(io, data).await?;
    if !deletes.is_empty() && !files.is_empty() {
        let index = Index::new(alive(io, deletes).await?)?;
        files.iter_mut().for_each(|file| file.deletes = index.of(file));
    }
    Ok(files)
}

/// The data files that came with a snapshot, without the deletes that came with it. Only the manifests that it wrote are read.
pub async fn added_files(io: &Io, metadata: &TableMetadata, snapshot: &Snapshot) -> Result<Vec<LiveFile>> {
    let id = snapshot.snapshot_id();
    let list = io.manifest_list(snapshot, metadata.format_version()).await?;
    let own = live(&list).filter(|m| m.content == ManifestContentType::Data && m.added_snapshot_id == id);
    let mut files = alive(io, &own.collect::<Vec<_>>()).await?;
    files.retain(|file| file.added_by(id));
    Ok(files)
}

/// The delete files of a snapshot.
pub async fn live_deletes(io: &Io, metadata: &TableMetadata, snapshot: &Snapshot) -> Result<Vec<LiveFile>> {
    let list = io.manifest_list(snapshot, metadata.format_version()).await?;
    alive(io, &live(&list).filter(|m| m.content == ManifestContentType::Deletes).collect::<Vec<_>>()).await
}

/// All files of a snapshot, data and deletes.
pub async fn live_entries(io: &Io, metadata: &TableMetadata, snapshot: &Snapshot) -> Result<Vec<LiveFile>> {
    let list = io.manifest_list(snapshot, metadata.format_version()).await?;
    alive(io, &live(&list).collect::<Vec<_>>()).await
}

fn live(list: &[ManifestFile]) -> impl Iterator<Item = &ManifestFile> {
    list.iter().filter(|m| m.has_added_files() || m.has_existing_files())
}

async fn alive(io: &Io, manifests: &[&ManifestFile]) -> Result<Vec<LiveFile>> {
    let reads: Vec<_> = manifests.iter().map(|file| read(io.clone(), ManifestFile::clone(file))).collect();
    let read: Vec<_> = stream::iter(reads).buffered(PARALLEL_READS).try_collect().await?;
    let mut files = Vec::new();
    for (file, manifest) in manifests.iter().zip(read) {
        let mut row_ids = file.first_row_id;
        for (entry, alive) in manifest.entries().iter().enumerate().filter(|(_, entry)| entry.is_alive()) {
            let first_row_id = first_row_id(alive, &mut row_ids);
            files.push(LiveFile { manifest: manifest.clone(), entry, first_row_id, deletes: None });
        }
    }
    Ok(files)
}

/// Reads a manifest in a task of its own, unless it is known: decoding takes longer than reading.
async fn read(io: Io, file: ManifestFile) -> Result<Arc<Manifest>> {
    if let Some(known) = io.known_manifest(&file) {
        return Ok(known);
    }
    let read = tokio::spawn(async move { io.any_manifest(&file).await }).await;
    read.map_err(|e| Error::bug("reading a manifest broke off").with_source(e))?
}
