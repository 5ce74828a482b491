//! Which files are rewritten together: a decision over what the manifests say.

use std::collections::{HashMap, HashSet};

use iceberg::spec::{DataContentType, DataFile, Struct};

use super::pack::{self, Packing, Piece};
use shared::Result;
use table::Table;
use table::live::{LiveFile, live_entries, live_files};
use table::manifests::only_target;

/// The files of a table.
pub(super) struct Inventory {
    /// Each with the deletes that apply to it.
    pub(super) data: Vec<LiveFile>,
    pub(super) deletes: Vec<LiveFile>,
}

impl Inventory {
    pub(super) async fn of(table: &Table) -> Result<Self> {
        let Some(snapshot) = table.metadata().current_snapshot() else {
            return Ok(Self { data: Vec::new(), deletes: Vec::new() });
        };
        let data = live_files(table.io(), table.metadata(), snapshot).await?;
        let mut deletes = live_entries(table.io(), table.metadata(), snapshot).await?;
        deletes.retain(|file| file.data().content_type() != DataContentType::Data);
        Ok(Self { data, deletes })
    }
}

/// What makes files worth rewriting.
pub(super) struct Rules {
    pub(super) packing: Packing,
    /// The partition spec of files that come.
    pub(super) spec_id: i32,
    /// Whether rows are put in order: then every file that is not is worth it.
    pub(super) sorts: bool,
    /// The order that they are put in, if the table has a name for it.
    pub(super) order_id: Option<i32>,
}

/// Files that are rewritten together.
#[derive(Debug)]
pub(super) struct Group {
    pub(super) files: Vec<LiveFile>,
}

/// Groups of one partition each; files of earlier partitionings are grouped together, as they become others.
pub(super) fn groups(files: Vec<LiveFile>, rules: &Rules) -> Vec<Group> {
    let mut places: HashMap<Option<Struct>, usize> = HashMap::new();
    let mut partitions: Vec<Vec<LiveFile>> = Vec::new();
    for file in files {
        if !must_be_written(&file, rules) && is_good_size(file.data().file_size_in_bytes(), rules.packing.target) {
            continue;
        }
        let is_current = file.spec_id() == rules.spec_id;
        let partition = is_current.then(|| file.data().partition().clone());
        let place = *places.entry(partition).or_insert_with(|| {
            partitions.push(Vec::new());
            partitions.len() - 1
        });
        partitions[place].push(file);
    }
    partitions.into_iter().flat_map(|files| packed(files, rules)).collect()
}

fn packed(mut files: Vec<LiveFile>, rules: &Rules) -> Vec<Group> {
    files.sort_by_cached_key(|file| (file.sequence(), file.data().file_path().to_owned()));
    let piece = |file: &LiveFile| Piece { bytes: file.data().file_size_in_bytes(), must: must_be_written(file, rules) };
    let groups = rules.packing.groups(&files.iter().map(piece).collect::<Vec<_>>());
    groups.iter().map(|group| Group { files: group.iter().map(|place| files[*place].clone()).collect() }).collect()
}

/// Whether a file should be rewritten even alone.
fn must_be_written(file: &LiveFile, rules: &Rules) -> bool {
    is_bad(file, rules) || !is_arranged(file, rules)
}

/// Whether the rows are in the order that is asked for.
fn is_arranged(file: &LiveFile, rules: &Rules) -> bool {
    !rules.sorts || (rules.order_id.is_some() && file.data().sort_order_id() == rules.order_id)
}

fn is_good_size(bytes: u64, target: u64) -> bool {
    bytes >= pack::enough(target) && !is_too_large(bytes, target)
}

fn is_too_large(bytes: u64, target: u64) -> bool {
    bytes > target.saturating_add(target / 5 * 4)
}

/// Files of an earlier partitioning, with deleted rows, or far too large.
fn is_bad(file: &LiveFile, rules: &Rules) -> bool {
    file.spec_id() != rules.spec_id
        || is_too_large(file.data().file_size_in_bytes(), rules.packing.target)
        || file.deletes().is_some()
}

/// Whether a delete file may be about rows of a data file, as the specification's scan planning has it.
pub(super) fn may_concern(delete: &LiveFile, file: &LiveFile) -> bool {
    let (deleted, data) = (delete.data(), file.data());
    let same_partition = || delete.spec_id() == file.spec_id() && deleted.partition() == data.partition();
    match deleted.content_type() {
        DataContentType::Data => false,
        DataContentType::EqualityDeletes => {
            let is_global = delete.manifest().metadata().partition_spec().is_unpartitioned();
            file.sequence() < delete.sequence() && (is_global || same_partition())
        }
        DataContentType::PositionDeletes => match only_target(deleted) {
            Some(path) => path == data.file_path(),
            None => file.sequence() <= delete.sequence() && same_partition(),
        },
    }
}

/// What delete files may be about, told for all data files at once as [`may_concern`] tells it of one.
#[derive(Default)]
struct Concerned<'a> {
    paths: HashSet<&'a str>,
    /// The least sequence number of each partition.
    oldest: HashMap<(i32, &'a Struct), i64>,
    oldest_of_all: Option<i64>,
}

impl<'a> Concerned<'a> {
    fn add(&mut self, file: &'a LiveFile) {
        let (data, sequence) = (file.data(), file.sequence());
        self.paths.insert(data.file_path());
        let oldest = self.oldest.entry((file.spec_id(), data.partition())).or_insert(sequence);
        *oldest = sequence.min(*oldest);
        self.oldest_of_all = Some(self.oldest_of_all.map_or(sequence, |oldest| oldest.min(sequence)));
    }

    fn by(&self, delete: &LiveFile) -> bool {
        let deleted = delete.data();
        let in_partition = || self.oldest.get(&(delete.spec_id(), deleted.partition())).copied();
        match deleted.content_type() {
            DataContentType::Data => false,
            DataContentType::EqualityDeletes => {
                let is_global = delete.manifest().metadata().partition_spec().is_unpartitioned();
                let oldest = if is_global { self.oldest_of_all } else { in_partition() };
                oldest.is_some_and(|oldest| oldest < delete.sequence())
            }
            DataContentType::PositionDeletes => match only_target(deleted) {
                Some(path) => self.paths.contains(path.as_str()),
                None => in_partition().is_some_and(|oldest| oldest <= delete.sequence()),
            },
        }
    }
}

/// Delete files that are about none of the data files which stay. New files are none of them: position deletes name the files that
/// they are about, and what was deleted by equality before is gone from the new ones.
pub(super) fn dangling<'a>(now: &'a Inventory, gone: &HashSet<String>) -> Vec<&'a DataFile> {
    let mut concerned = Concerned::default();
    now.data.iter().filter(|file| !gone.contains(file.data().file_path())).for_each(|file| concerned.add(file));
    now.deletes.iter().filter(|delete| !concerned.by(delete)).map(LiveFile::data).collect()
}
