//! One snapshot: its manifest list, its summary, and the table metadata that makes it current.

use std::collections::HashSet;
use std::sync::Arc;

use bytes::Bytes;
use iceberg::spec::{
    DataFile, FormatVersion, MAIN_BRANCH, ManifestFile, ManifestListWriter, Snapshot, TableMetadata,
    TableMetadataBuilder,
};

use super::io::{IcebergContext, Scratch};
pub use super::live::{LiveFile, live_files};
use super::manifests::Manifests;
use super::summary::{Counts, summary};
use super::{Table, Token};
use shared::Result;
use shared::model::keys;

/// Manifests that are read at the same time.
pub const PARALLEL_READS: usize = 16;

/// What a snapshot changes in the live files of its parent.
#[derive(Debug, Default)]
pub struct Delta {
    /// Data files and delete files that come.
    pub added: Vec<AddedFile>,
    /// Locations of live data files that leave. Delete files that only concern one of them leave with it.
    pub removed: HashSet<String>,
    /// Live delete files that leave.
    pub removed_deletes: HashSet<DeleteFile>,
    /// Whether the rows stay as they are: files are only arranged anew.
    pub replaces: bool,
    /// Whether manifests that still list files which have left are written anew without them.
    pub forgets: bool,
    /// What the caller is told.
    pub rows: Rows,
}

/// Rows that a commit changes.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Rows {
    pub added: u64,
    pub updated: u64,
    pub deleted: u64,
}

/// A file that comes with a snapshot.
#[derive(Debug, Clone)]
pub struct AddedFile {
    pub file: DataFile,
    /// The partition spec that the file was written with.
    pub spec_id: i32,
    /// The data sequence number, for rows that are older than the snapshot; otherwise the snapshot's own.
    pub sequence: Option<i64>,
}

impl AddedFile {
    pub fn new(file: DataFile, spec_id: i32) -> Self {
        Self { file, spec_id, sequence: None }
    }
}

/// A delete file among others: deletion vectors share the file that they are in.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DeleteFile {
    pub path: String,
    pub offset: Option<i64>,
}

impl DeleteFile {
    pub fn of(file: &DataFile) -> Self {
        Self { path: file.file_path().to_owned(), offset: file.content_offset() }
    }
}

impl Delta {
    pub fn is_empty(&self) -> bool {
        self.added.is_empty() && self.removed.is_empty() && self.removed_deletes.is_empty() && !self.forgets
    }
}

/// A snapshot that is written but not yet current.
pub struct Prepared {
    pub metadata: Arc<TableMetadata>,
    /// URL of `metadata`.
    pub location: String,
    /// What was written for this try alone.
    pub files: Vec<String>,
    /// Manifests of the snapshot.
    pub manifests: HashSet<String>,
    pub added: Counts,
    pub removed: Counts,
}

/// Writes everything that a snapshot on top of `base` needs.
///
/// # Errors
/// What the store answers, `Bug` for a damaged manifest; files that were written for this try alone are removed by then.
pub async fn prepare(
    base: &Table,
    manifests: &mut Manifests,
    snapshot_id: i64,
    delta: &Delta,
    token: Option<&Token>,
) -> Result<Prepared> {
    let listed = manifests.list(base, delta).await?;
    let mut added = Counts::default();
    delta.added.iter().for_each(|file| added.add(&file.file, file.spec_id));
    let list = keys::manifest_list(base.metadata.location(), snapshot_id, &base.ports.random.uuid().to_string());
    let mut prepared = Prepared {
        metadata: base.metadata.clone(),
        location: base.next_location(),
        manifests: listed.manifests.iter().map(|m| m.manifest_path.clone()).collect(),
        files: vec![list.clone()],
        added,
        removed: listed.removed,
    };
    prepared.files.push(prepared.location.clone());
    let written = async {
        let (listing, rows) = list_bytes(base, &list, snapshot_id, listed.manifests).await?;
        let parent = base.metadata.current_snapshot().map(AsRef::as_ref);
        let summary = summary(parent, &prepared.added, &prepared.removed, delta.replaces, token);
        let snapshot = Snapshot::builder()
            .with_snapshot_id(snapshot_id)
            .with_parent_snapshot_id(base.metadata.current_snapshot_id())
            .with_sequence_number(base.metadata.next_sequence_number())
            .with_timestamp_ms(base.ports.clock.now_ms().max(base.metadata.last_updated_ms()))
            .with_manifest_list(list.clone())
            .with_summary(summary)
            .with_schema_id(base.metadata.current_schema_id());
        let snapshot = match rows {
            Some((first, count)) => snapshot.with_row_range(first, count).build(),
            None => snapshot.build(),
        };
        let builder = base.metadata.as_ref().clone().into_builder(base.file().map(str::to_owned));
        let built = builder
            .set_branch_snapshot(snapshot, MAIN_BRANCH)
            .and_then(TableMetadataBuilder::build)
            .doing(|| "adding a snapshot".into())?;
        let metadata = Arc::new(built.metadata);
        let mut files = manifests.unsaved();
        files.push((list, listing));
        base.io.put_with_metadata(files, &prepared.location, &metadata).await?;
        manifests.saved();
        Ok(metadata)
    };
    match written.await {
        Ok(metadata) => Ok(Prepared { metadata, ..prepared }),
        Err(error) => {
            base.io.discard(prepared.files).await;
            Err(error)
        }
    }
}

/// The list of a snapshot's manifests, and the range of row ids that it hands out: the first, and how many (v3).
async fn list_bytes(
    base: &Table,
    location: &str,
    snapshot_id: i64,
    manifests: Vec<ManifestFile>,
) -> Result<(Bytes, Option<(u64, u64)>)> {
    let metadata = &base.metadata;
    let doing = || format!("writing the manifest list `{location}`");
    let scratch = Scratch::new(location);
    let output = scratch.output()?.writer().await.doing(doing)?;
    let (parent, sequence) = (metadata.current_snapshot_id(), metadata.next_sequence_number());
    let first = (metadata.format_version() == FormatVersion::V3).then(|| metadata.next_row_id());
    let mut writer = match first {
        Some(_) => ManifestListWriter::v3(output, snapshot_id, parent, sequence, first),
        None => ManifestListWriter::v2(output, snapshot_id, parent, sequence),
    };
    writer.add_manifests(manifests.into_iter()).doing(doing)?;
    let rows = first.zip(writer.next_row_id()).map(|(first, next)| (first, next - first));
    writer.close().await.doing(doing)?;
    Ok((scratch.bytes().await?, rows))
}
