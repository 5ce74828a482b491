//! The manifests of a new snapshot: one for what comes, the parent's without what leaves, small ones merged.
//!
//! A manifest that a try wrote serves the next one too, as long as it would be written the same again.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};
use iceberg::spec::{
    DataContentType, DataFile, DataFileBuilder, FormatVersion, Manifest, ManifestContentType, ManifestEntry,
    ManifestFile, ManifestWriter, ManifestWriterBuilder, PartitionSpec, PrimitiveLiteral, SchemaRef,
    UNASSIGNED_SEQUENCE_NUMBER,
};

use super::Table;
use super::io::{IcebergContext, Io, Scratch};
use super::lineage::first_row_id;
use super::manifest_names;
use super::properties;
use super::snapshot::{AddedFile, DeleteFile, Delta, PARALLEL_READS};
use super::summary::Counts;
use shared::model::keys;
use shared::{Error, Result};

/// Ids that the specification reserves for the columns of position deletes, `file_path` and `pos`.
pub const DELETED_PATH: i32 = 2_147_483_546;
pub const DELETED_POS: i32 = 2_147_483_545;

/// Bytes of manifests that wait in memory to be written along with what names them.
const UNSAVED_BYTES: usize = 16 << 20;

/// Writes the manifests of one commit, however often it is tried.
pub struct Manifests {
    snapshot_id: i64,
    /// Part of the names of all manifests of this commit.
    id: String,
    /// By what they were made from.
    written: HashMap<Vec<String>, ManifestFile>,
    files: Vec<String>,
    /// Those that are not in the store yet.
    unsaved: Vec<(String, Bytes)>,
}

/// A manifest of the parent.
struct Carried {
    file: ManifestFile,
    /// Read because something may leave it; what leaves, by place.
    read: Option<(Arc<Manifest>, Vec<usize>)>,
    /// Whether it is to be written anew because it lists files that have left.
    is_stale: bool,
}

impl Carried {
    fn is_touched(&self) -> bool {
        self.is_stale || self.read.as_ref().is_some_and(|(_, removed)| !removed.is_empty())
    }
}

/// The manifests of a try, and what is no longer alive in them.
pub struct Listed {
    pub manifests: Vec<ManifestFile>,
    pub removed: Counts,
}

impl Manifests {
    pub fn new(base: &Table, snapshot_id: i64) -> Self {
        Self {
            snapshot_id,
            id: base.ports.random.uuid().to_string(),
            written: HashMap::new(),
            files: Vec::new(),
            unsaved: Vec::new(),
        }
    }

    /// What the manifests of the last list lack in the store: they are to be written before the list is of use.
    pub fn unsaved(&self) -> Vec<(String, Bytes)> {
        self.unsaved.clone()
    }

    /// All of [`Manifests::unsaved`] is written.
    pub fn saved(&mut self) {
        self.unsaved.clear();
    }

    /// Every manifest that was begun.
    pub fn files(&self) -> &[String] {
        &self.files
    }

    /// # Errors
    /// What the store answers; `Bug` for a damaged manifest, or when a file that is to leave is not there.
    pub async fn list(&mut self, base: &Table, delta: &Delta) -> Result<Listed> {
        let mut listed = Listed { manifests: self.added(base, delta).await?, removed: Counts::default() };
        let carried = parent_manifests(base, delta, &mut listed.removed).await?;
        let mut groups: BTreeMap<(i32, i32), Vec<Carried>> = BTreeMap::new();
        for manifest in carried {
            groups.entry((manifest.file.content as i32, manifest.file.partition_spec_id)).or_default().push(manifest);
        }
        let settings = properties::ManifestMerging::of(&base.metadata)?;
        for group in groups.into_values() {
            let lengths: Vec<_> = group.iter().map(|m| m.file.manifest_length).collect();
            let mut group: Vec<_> = group.into_iter().map(Some).collect();
            for bin in settings.bins(&lengths) {
                let bin: Vec<_> = bin.into_iter().filter_map(|i| group.get_mut(i)?.take()).collect();
                listed.manifests.extend(self.carry(base, bin).await?);
            }
        }
        Ok(listed)
    }

    /// A manifest for each content and partition spec of the files that come.
    async fn added(&mut self, base: &Table, delta: &Delta) -> Result<Vec<ManifestFile>> {
        let mut groups: BTreeMap<(bool, i32), Vec<&AddedFile>> = BTreeMap::new();
        for added in &delta.added {
            let deletes = added.file.content_type() != DataContentType::Data;
            groups.entry((deletes, added.spec_id)).or_default().push(added);
        }
        let mut manifests = Vec::new();
        for ((deletes, spec_id), files) in groups {
            let metadata = &base.metadata;
            let mut key = vec![format!("{deletes} {spec_id} {}", metadata.current_schema_id())];
            key.extend(files.iter().map(|added| format!("{:?} {}", added.sequence, identity(&added.file))));
            if let Some(written) = self.written.get(&key) {
                manifests.push(written.clone());
                continue;
            }
            let spec = metadata
                .partition_spec_by_id(spec_id)
                .ok_or_else(|| Error::bug(format!("expected the partition spec {spec_id} in the table, found none")))?;
            let open = Open::new(self, base, metadata.current_schema().clone(), spec.as_ref().clone(), deletes)?;
            let mut writer = open.writer;
            for added in files {
                writer
                    .add_file(added.file.clone(), added.sequence.unwrap_or(UNASSIGNED_SEQUENCE_NUMBER))
                    .doing(|| format!("listing the file `{}`", added.file.file_path()))?;
            }
            let manifest = self.finish(&base.io, writer, &open.scratch, open.location).await?;
            self.written.insert(key, manifest.clone());
            manifests.push(manifest);
        }
        Ok(manifests)
    }

    /// The manifests of a bin, as they are or as few new ones.
    async fn carry(&mut self, base: &Table, bin: Vec<Carried>) -> Result<Vec<ManifestFile>> {
        let mut manifests = Vec::new();
        if bin.len() == 1 && !bin.iter().any(Carried::is_touched) {
            return Ok(bin.into_iter().map(|m| m.file).collect());
        }
        let mut schemas: BTreeMap<i32, Vec<Source>> = BTreeMap::new();
        for carried in bin {
            let (manifest, removed) = match carried.read {
                Some(read) => read,
                None => (base.io.any_manifest(&carried.file).await?, Vec::new()),
            };
            let schema_id = manifest.metadata().schema_id();
            let source = Source { file: carried.file, manifest, removed, is_stale: carried.is_stale };
            schemas.entry(schema_id).or_default().push(source);
        }
        for sources in schemas.into_values() {
            let untouched = sources.iter().all(|s| s.removed.is_empty() && !s.is_stale);
            match sources.as_slice() {
                [one] if untouched => manifests.push(one.file.clone()),
                sources => manifests.push(self.rewritten(base, sources).await?),
            }
        }
        Ok(manifests)
    }

    /// One manifest in place of some of one content, partition spec and schema.
    async fn rewritten(&mut self, base: &Table, sources: &[Source]) -> Result<ManifestFile> {
        let key: Vec<_> = sources.iter().map(|s| format!("{} {:?}", s.file.manifest_path, s.removed)).collect();
        if let Some(written) = self.written.get(&key) {
            return Ok(written.clone());
        }
        let first = sources.first().ok_or_else(|| Error::bug("expected a manifest to rewrite, found none"))?;
        let (schema, spec) = (first.manifest.metadata().schema(), first.manifest.metadata().partition_spec());
        let deletes = first.file.content == ManifestContentType::Deletes;
        let open = Open::new(self, base, schema.clone(), spec.clone(), deletes)?;
        let mut writer = open.writer;
        for source in sources {
            let removed: HashSet<_> = source.removed.iter().copied().collect();
            let mut row_ids = source.file.first_row_id;
            for (place, entry) in source.manifest.entries().iter().enumerate().filter(|(_, e)| e.is_alive()) {
                let file = with_row_id(entry, &mut row_ids, spec.spec_id())?;
                let (sequence, file_sequence) = (entry.sequence_number().unwrap_or(0), entry.file_sequence_number);
                let written = if removed.contains(&place) {
                    writer.add_delete_file(file, sequence, file_sequence)
                } else {
                    writer.add_existing_file(file, entry.snapshot_id().unwrap_or(0), sequence, file_sequence)
                };
                written.doing(|| format!("listing the file `{}`", entry.file_path()))?;
            }
        }
        let manifest = self.finish(&base.io, writer, &open.scratch, open.location).await?;
        self.written.insert(key, manifest.clone());
        Ok(manifest)
    }

    async fn finish(
        &mut self,
        io: &Io,
        writer: ManifestWriter,
        scratch: &Scratch,
        location: String,
    ) -> Result<ManifestFile> {
        let manifest = writer.write_manifest_file().await.doing(|| format!("writing the manifest `{location}`"))?;
        self.unsaved.push((location, scratch.bytes().await?));
        if self.unsaved.iter().map(|(_, bytes)| bytes.len()).sum::<usize>() > UNSAVED_BYTES {
            io.put_all(self.unsaved()).await?;
            self.saved();
        }
        Ok(manifest)
    }
}

/// A manifest that goes into another one.
struct Source {
    file: ManifestFile,
    manifest: Arc<Manifest>,
    removed: Vec<usize>,
    is_stale: bool,
}

/// A manifest that is being written.
struct Open {
    writer: ManifestWriter,
    scratch: Scratch,
    location: String,
}

impl Open {
    fn new(
        manifests: &mut Manifests,
        base: &Table,
        schema: SchemaRef,
        spec: PartitionSpec,
        deletes: bool,
    ) -> Result<Self> {
        let location = keys::manifest(base.metadata.location(), &manifests.id, manifests.files.len());
        manifests.files.push(location.clone());
        let scratch = Scratch::new(&location);
        let spec = manifest_names::spec_with_avro_names(spec)?;
        let builder = ManifestWriterBuilder::new(scratch.output()?, Some(manifests.snapshot_id), schema, spec);
        let writer = match (base.metadata.format_version(), deletes) {
            (FormatVersion::V3, false) => builder.build_v3_data(),
            (FormatVersion::V3, true) => builder.build_v3_deletes(),
            (_, false) => builder.build_v2_data(),
            (_, true) => builder.build_v2_deletes(),
        };
        Ok(Self { writer, scratch, location })
    }
}

/// The parent's manifests that list something alive, and what leaves each of them.
async fn parent_manifests(base: &Table, delta: &Delta, removed: &mut Counts) -> Result<Vec<Carried>> {
    let Some(parent) = base.metadata.current_snapshot() else { return Ok(Vec::new()) };
    let list = base.io.manifest_list(parent, base.metadata.format_version()).await?;
    let live = list.iter().filter(|m| m.has_added_files() || m.has_existing_files());
    let reads = live.map(|file| async move {
        let leaves = match file.content {
            ManifestContentType::Data => !delta.removed.is_empty(),
            ManifestContentType::Deletes => !delta.removed.is_empty() || !delta.removed_deletes.is_empty(),
        };
        let read = if leaves { Some((base.io.any_manifest(file).await?, Vec::new())) } else { None };
        Ok::<_, Error>(Carried { file: file.clone(), read, is_stale: delta.forgets && file.has_deleted_files() })
    });
    let reads: Vec<_> = reads.collect();
    let mut carried: Vec<Carried> = stream::iter(reads).buffered(PARALLEL_READS).try_collect().await?;
    let mut missing: HashSet<&str> = delta.removed.iter().map(String::as_str).collect();
    let mut missing_deletes: HashSet<&DeleteFile> = delta.removed_deletes.iter().collect();
    for Carried { file, read, .. } in &mut carried {
        let Some((manifest, leaving)) = read else { continue };
        for (place, entry) in manifest.entries().iter().enumerate().filter(|(_, e)| e.is_alive()) {
            let leaves = if file.content == ManifestContentType::Data {
                missing.remove(entry.file_path())
            } else {
                let found = delta.removed_deletes.get(&DeleteFile::of(entry.data_file()));
                found.is_some_and(|found| missing_deletes.remove(found))
                    || only_target(entry.data_file()).is_some_and(|path| delta.removed.contains(&path))
            };
            if leaves {
                leaving.push(place);
                removed.add(entry.data_file(), file.partition_spec_id);
            }
        }
    }
    let missing_deletes = missing_deletes.iter().map(|file| file.path.as_str());
    match missing.into_iter().chain(missing_deletes).next() {
        None => Ok(carried),
        Some(path) => Err(Error::bug(format!("expected the file `{path}` in the table, found it gone"))),
    }
}

/// The data file whose rows a delete file removes, if it is a single one and the manifest tells.
pub fn only_target(file: &DataFile) -> Option<String> {
    if file.content_type() != DataContentType::PositionDeletes {
        return None;
    }
    if let Some(path) = file.referenced_data_file() {
        return Some(path);
    }
    let (lower, upper) = (file.lower_bounds().get(&DELETED_PATH)?, file.upper_bounds().get(&DELETED_PATH)?);
    match (lower.literal(), upper.literal()) {
        (PrimitiveLiteral::String(lower), PrimitiveLiteral::String(upper)) if lower == upper => Some(lower.clone()),
        _ => None,
    }
}

/// What tells a file of a manifest from all others: vectors share the file that they are in.
fn identity(file: &DataFile) -> String {
    format!("{} {:?}", file.file_path(), file.content_offset())
}

/// The file with the id of its first row written out, as the specification asks for when an entry moves to another manifest.
/// `next` counts the ids that the entries of the manifest inherit.
fn with_row_id(entry: &ManifestEntry, next: &mut Option<u64>, spec_id: i32) -> Result<DataFile> {
    let file = entry.data_file();
    let (None, Some(id)) = (file.first_row_id(), first_row_id(entry, next)) else { return Ok(file.clone()) };
    let mut builder = DataFileBuilder::default();
    builder
        .content(file.content_type())
        .file_path(file.file_path().to_owned())
        .file_format(file.file_format())
        .partition(file.partition().clone())
        .partition_spec_id(spec_id)
        .record_count(file.record_count())
        .file_size_in_bytes(file.file_size_in_bytes())
        .column_sizes(file.column_sizes().clone())
        .value_counts(file.value_counts().clone())
        .null_value_counts(file.null_value_counts().clone())
        .nan_value_counts(file.nan_value_counts().clone())
        .lower_bounds(file.lower_bounds().clone())
        .upper_bounds(file.upper_bounds().clone())
        .key_metadata(file.key_metadata().map(<[u8]>::to_vec))
        .split_offsets(file.split_offsets().map(<[i64]>::to_vec))
        .first_row_id(i64::try_from(id).ok());
    if let Some(order) = file.sort_order_id() {
        builder.sort_order_id(order);
    }
    builder.build().map_err(|e| Error::bug("describing a data file").with_source(e))
}
