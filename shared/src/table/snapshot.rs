//! One snapshot: its manifests, its manifest list, its summary, and the table metadata that makes it current.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use futures::{StreamExt, TryStreamExt, stream};
use iceberg::spec::{
    DataFile, MAIN_BRANCH, Manifest, ManifestFile, ManifestListWriter, ManifestStatus, ManifestWriterBuilder,
    Operation, Snapshot, Summary, TableMetadata, TableMetadataBuilder, UNASSIGNED_SEQUENCE_NUMBER,
};
use uuid::Uuid;

use super::io::{IcebergContext, Io, Scratch};
use super::{Table, Token};
use crate::model::keys;
use crate::{Error, Result};

/// From this number of manifests on they are merged into one, so that planning a scan stays cheap.
const MERGE_MANIFESTS: usize = 100;

/// Manifests that are read at the same time.
const PARALLEL_READS: usize = 16;

/// What a snapshot changes in the live files of its parent.
#[derive(Debug, Default)]
pub(super) struct Delta {
    pub(super) added: Vec<DataFile>,
    /// The partition spec that the added files were written with.
    pub(super) spec_id: i32,
    /// Locations of live files that leave the table.
    pub(super) removed: HashSet<String>,
}

/// A snapshot that is written but not yet current.
pub(super) struct Prepared {
    pub(super) metadata: Arc<TableMetadata>,
    /// URL of `metadata`.
    pub(super) location: String,
    /// Everything that was written for it.
    pub(super) files: Vec<String>,
    pub(super) rows_removed: u64,
}

/// Writes everything that a snapshot needs.
pub(super) struct Build<'a> {
    base: &'a Table,
    io: &'a Io,
    snapshot_id: i64,
    /// Part of the names of all files that this try writes.
    id: String,
    files: Vec<String>,
    removed: Counts,
}

#[derive(Debug, Default, Clone, Copy)]
struct Counts {
    files: u64,
    rows: u64,
    bytes: u64,
}

impl Counts {
    fn add(&mut self, file: &DataFile) {
        self.files += 1;
        self.rows += file.record_count();
        self.bytes += file.file_size_in_bytes();
    }
}

impl<'a> Build<'a> {
    pub(super) fn new(base: &'a Table, snapshot_id: i64) -> Self {
        let id = Uuid::new_v4().to_string();
        Self { base, io: &base.io, snapshot_id, id, files: Vec::new(), removed: Counts::default() }
    }

    /// Writes the manifests, the list and the metadata.
    ///
    /// # Errors
    /// What the store answers, `Bug` for a damaged manifest; files that were written by then are removed.
    pub(super) async fn prepare(mut self, delta: &Delta, token: Option<&Token>) -> Result<Prepared> {
        match self.write(delta, token).await {
            Ok((metadata, location)) => {
                Ok(Prepared { metadata, location, files: self.files, rows_removed: self.removed.rows })
            }
            Err(error) => {
                self.io.discard(self.files).await;
                Err(error)
            }
        }
    }

    async fn write(&mut self, delta: &Delta, token: Option<&Token>) -> Result<(Arc<TableMetadata>, String)> {
        let metadata = self.base.metadata.clone();
        let mut manifests = Vec::new();
        if !delta.added.is_empty() {
            manifests.push(self.added_manifest(delta).await?);
        }
        manifests.extend(self.carried_manifests(delta).await?);
        let list = self.manifest_list(manifests).await?;
        let snapshot = Snapshot::builder()
            .with_snapshot_id(self.snapshot_id)
            .with_parent_snapshot_id(metadata.current_snapshot_id())
            .with_sequence_number(metadata.next_sequence_number())
            .with_timestamp_ms(self.base.ports.clock.now_ms().max(metadata.last_updated_ms()))
            .with_manifest_list(list)
            .with_summary(self.summary(delta, token))
            .with_schema_id(metadata.current_schema_id())
            .build();
        let builder = metadata.as_ref().clone().into_builder(Some(self.base.location.clone()));
        let built = builder
            .set_branch_snapshot(snapshot, MAIN_BRANCH)
            .and_then(TableMetadataBuilder::build)
            .doing(|| "adding a snapshot".into())?;
        let (metadata, location) = (Arc::new(built.metadata), self.base.next_location());
        self.files.push(location.clone());
        self.io.put_metadata(&location, &metadata).await?;
        Ok((metadata, location))
    }

    async fn added_manifest(&mut self, delta: &Delta) -> Result<ManifestFile> {
        let (metadata, spec_id) = (&self.base.metadata, delta.spec_id);
        let spec = metadata
            .partition_spec_by_id(spec_id)
            .ok_or_else(|| Error::bug(format!("expected the partition spec {spec_id} in the table, found none")))?;
        let (scratch, location) = self.next_manifest()?;
        let output = scratch.output()?;
        let (schema, spec) = (metadata.current_schema().clone(), spec.as_ref().clone());
        let mut writer = ManifestWriterBuilder::new(output, Some(self.snapshot_id), schema, spec).build_v2_data();
        for file in &delta.added {
            writer
                .add_file(file.clone(), UNASSIGNED_SEQUENCE_NUMBER)
                .doing(|| format!("listing the data file `{}`", file.file_path()))?;
        }
        let manifest = writer.write_manifest_file().await.doing(|| format!("writing the manifest `{location}`"))?;
        self.io.put(&location, scratch.bytes().await?).await?;
        Ok(manifest)
    }

    /// The parent's manifests, without what is removed, merged when there are many.
    async fn carried_manifests(&mut self, delta: &Delta) -> Result<Vec<ManifestFile>> {
        let Some(parent) = self.base.metadata.current_snapshot() else { return Ok(Vec::new()) };
        let list = self.io.manifest_list(parent, self.base.metadata.format_version()).await?;
        let live: Vec<_> = list.iter().filter(|m| m.has_added_files() || m.has_existing_files()).collect();
        let merge = live.len() >= MERGE_MANIFESTS;
        let mut carried = Vec::with_capacity(live.len());
        let mut rewritten: BTreeMap<(i32, i32), Vec<Arc<Manifest>>> = BTreeMap::new();
        let mut missing: HashSet<&str> = delta.removed.iter().map(String::as_str).collect();
        for file in live {
            if !merge && delta.removed.is_empty() {
                carried.push(file.clone());
                continue;
            }
            let manifest = self.io.manifest(file).await?;
            let alive = || manifest.entries().iter().filter(|e| e.is_alive());
            let found = alive().filter(|e| missing.remove(e.file_path())).count();
            if merge || found > 0 {
                let key = (file.partition_spec_id, manifest.metadata().schema_id());
                rewritten.entry(key).or_default().push(manifest.clone());
            } else {
                carried.push(file.clone());
            }
        }
        if let Some(path) = missing.iter().next() {
            return Err(Error::bug(format!("expected the data file `{path}` in the table, found it gone")));
        }
        for manifests in rewritten.values() {
            carried.push(self.rewritten_manifest(manifests, &delta.removed).await?);
        }
        Ok(carried)
    }

    /// One manifest in place of several of one spec and schema.
    async fn rewritten_manifest(
        &mut self,
        manifests: &[Arc<Manifest>],
        removed: &HashSet<String>,
    ) -> Result<ManifestFile> {
        let (scratch, location) = self.next_manifest()?;
        let first = manifests.first().ok_or_else(|| Error::bug("expected a manifest to rewrite, found none"))?;
        let (schema, spec) = (first.metadata().schema().clone(), first.metadata().partition_spec().clone());
        let mut writer =
            ManifestWriterBuilder::new(scratch.output()?, Some(self.snapshot_id), schema, spec).build_v2_data();
        for entry in manifests.iter().flat_map(|m| m.entries()).filter(|e| e.is_alive()) {
            let (file, sequence) = (entry.data_file().clone(), entry.sequence_number().unwrap_or(0));
            let written = if removed.contains(entry.file_path()) {
                self.removed.add(&file);
                writer.add_delete_file(file, sequence, entry.file_sequence_number)
            } else {
                let snapshot = entry.snapshot_id().unwrap_or(0);
                writer.add_existing_file(file, snapshot, sequence, entry.file_sequence_number)
            };
            written.doing(|| format!("listing the data file `{}`", entry.file_path()))?;
        }
        let manifest = writer.write_manifest_file().await.doing(|| format!("writing the manifest `{location}`"))?;
        self.io.put(&location, scratch.bytes().await?).await?;
        Ok(manifest)
    }

    fn next_manifest(&mut self) -> Result<(Scratch, String)> {
        let location = keys::manifest(self.base.metadata.location(), &self.id, self.files.len());
        self.files.push(location.clone());
        Ok((Scratch::new(&location), location))
    }

    async fn manifest_list(&mut self, manifests: Vec<ManifestFile>) -> Result<String> {
        let metadata = &self.base.metadata;
        let location = keys::manifest_list(metadata.location(), self.snapshot_id, &self.id);
        self.files.push(location.clone());
        let doing = || format!("writing the manifest list `{location}`");
        let scratch = Scratch::new(&location);
        let output = scratch.output()?.writer().await.doing(doing)?;
        let (parent, sequence) = (metadata.current_snapshot_id(), metadata.next_sequence_number());
        let mut writer = ManifestListWriter::v2(output, self.snapshot_id, parent, sequence);
        writer.add_manifests(manifests.into_iter()).doing(doing)?;
        writer.close().await.doing(doing)?;
        self.io.put(&location, scratch.bytes().await?).await?;
        Ok(location)
    }

    /// The counts that the Iceberg specification names, and the token.
    fn summary(&self, delta: &Delta, token: Option<&Token>) -> Summary {
        let mut added = Counts::default();
        delta.added.iter().for_each(|file| added.add(file));
        let removed = self.removed;
        let mut properties = HashMap::new();
        let mut set = |key: &str, value: u64| properties.insert(key.to_owned(), value.to_string());
        for (key, value) in [
            ("added-data-files", added.files),
            ("added-records", added.rows),
            ("added-files-size", added.bytes),
            ("deleted-data-files", removed.files),
            ("deleted-records", removed.rows),
            ("removed-files-size", removed.bytes),
            ("changed-partition-count", changed_partitions(&delta.added)),
        ] {
            if value > 0 {
                set(key, value);
            }
        }
        let before = self.base.metadata.current_snapshot().map(|s| &s.summary().additional_properties);
        let total = |key: &str| before.and_then(|p| p.get(key)?.parse::<u64>().ok()).unwrap_or(0);
        set("total-data-files", (total("total-data-files") + added.files).saturating_sub(removed.files));
        set("total-records", (total("total-records") + added.rows).saturating_sub(removed.rows));
        set("total-files-size", (total("total-files-size") + added.bytes).saturating_sub(removed.bytes));
        for key in ["total-delete-files", "total-position-deletes", "total-equality-deletes"] {
            set(key, total(key));
        }
        if let Some(token) = token {
            properties.insert(token.key.clone(), token.value.clone());
        }
        // Readers of what was added need not stop at a snapshot that removed nothing.
        let operation = if removed.files == 0 { Operation::Append } else { Operation::Overwrite };
        Summary { operation, additional_properties: properties }
    }
}

fn changed_partitions(added: &[DataFile]) -> u64 {
    added.iter().map(DataFile::partition).collect::<HashSet<_>>().len() as u64
}

/// The entries that are alive in a snapshot.
pub(super) async fn live_files(io: &Io, metadata: &TableMetadata, snapshot: &Snapshot) -> Result<Vec<LiveFile>> {
    let list = io.manifest_list(snapshot, metadata.format_version()).await?;
    let live = list.iter().filter(|m| m.has_added_files() || m.has_existing_files());
    let reads: Vec<_> = live.map(|file| io.manifest(file)).collect();
    let manifests: Vec<_> = stream::iter(reads).buffered(PARALLEL_READS).try_collect().await?;
    let mut files = Vec::new();
    for manifest in manifests {
        let alive = manifest.entries().iter().enumerate().filter(|(_, entry)| entry.is_alive());
        files.extend(alive.map(|(entry, _)| LiveFile { manifest: manifest.clone(), entry }));
    }
    Ok(files)
}

/// A data file of a snapshot, in the manifest that lists it.
#[derive(Debug, Clone)]
pub(super) struct LiveFile {
    manifest: Arc<Manifest>,
    entry: usize,
}

impl LiveFile {
    pub(super) fn data(&self) -> &DataFile {
        self.manifest.entries()[self.entry].data_file()
    }

    /// Whether the file came with the snapshot `id`.
    pub(super) fn added_by(&self, id: i64) -> bool {
        let entry = &self.manifest.entries()[self.entry];
        entry.status() == ManifestStatus::Added && entry.snapshot_id() == Some(id)
    }

    pub(super) fn manifest(&self) -> &Manifest {
        &self.manifest
    }
}
