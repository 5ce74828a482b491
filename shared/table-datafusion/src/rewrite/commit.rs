//! Rewritten groups on their way into the table.

use std::collections::{HashMap, HashSet};

use async_trait::async_trait;
use iceberg::spec::{DataContentType, DataFile};

use super::Rewritten;
use super::plan::{self, Group, Inventory};
use shared::Result;
use table::Table;
use table::commit::{self as protocol, Operation};
use table::live::LiveFile;
use table::manifests::only_target;
use table::snapshot::{AddedFile, DeleteFile, Delta};

/// A group that is written.
pub(super) struct Done {
    group: Group,
    files: Vec<DataFile>,
    /// Every file that was begun for it.
    created: Vec<String>,
}

impl Done {
    pub(super) fn new(group: Group, files: Vec<DataFile>, created: Vec<String>) -> Self {
        Self { group, files, created }
    }
}

/// Groups that are written and not yet committed.
pub(super) struct Replacement {
    /// The table that the groups were read from.
    read: Table,
    groups: Vec<Done>,
    /// What the last try was about.
    tried: Rewritten,
}

impl Replacement {
    pub(super) fn new(read: &Table) -> Self {
        Self { read: read.clone(), groups: Vec::new(), tried: Rewritten::default() }
    }

    pub(super) fn push(&mut self, group: Done) {
        self.groups.push(group);
    }

    /// Bytes of the files that are written.
    pub(super) fn bytes(&self) -> u64 {
        self.groups.iter().flat_map(|group| &group.files).map(DataFile::file_size_in_bytes).sum()
    }

    /// Commits what is written, and adds it to the report.
    pub(super) async fn commit(&mut self, rewritten: &mut Rewritten) -> Result<()> {
        if self.groups.is_empty() {
            return Ok(());
        }
        let base = match self.read.reload().await {
            Ok(base) => base,
            Err(error) => {
                self.read.io().discard(self.created()).await;
                return Err(error);
            }
        };
        let committed = protocol::run(base, self, None).await?;
        self.groups.clear();
        let tried = std::mem::take(&mut self.tried);
        rewritten.conflicts += tried.conflicts;
        if committed.attempts > 0 {
            rewritten.groups += tried.groups;
            rewritten.files_removed += tried.files_removed;
            rewritten.bytes_removed += tried.bytes_removed;
            rewritten.files_added += tried.files_added;
            rewritten.bytes_added += tried.bytes_added;
            rewritten.delete_files_removed += tried.delete_files_removed;
            rewritten.snapshots.push(committed.snapshot_id);
        }
        Ok(())
    }

    /// Whether the group's files are all there, and nobody deleted rows of them or gave them ids since they were read. Deletes by equality do no
    /// harm: the new files are as old to them as the rows that they hold.
    fn still(&self, group: &Group, now: &Inventory, present: &HashMap<&str, &LiveFile>) -> bool {
        let read = self.read.metadata().last_sequence_number();
        let by_place = |delete: &&LiveFile| delete.data().content_type() == DataContentType::PositionDeletes;
        let came = now.deletes.iter().filter(|delete| delete.sequence() > read).filter(by_place);
        let touched = |file| came.clone().any(|delete| plan::may_concern(delete, file));
        group.files.iter().all(|file| {
            let found = present.get(file.data().file_path());
            found.is_some_and(|found| found.first_row_id() == file.first_row_id()) && !touched(file)
        })
    }
}

#[async_trait]
impl Operation for Replacement {
    async fn delta(&mut self, base: &Table) -> Result<Delta> {
        let now = Inventory::of(base).await?;
        let present: HashMap<&str, &LiveFile> = now.data.iter().map(|file| (file.data().file_path(), file)).collect();
        let (hold, lost): (Vec<&Done>, Vec<&Done>) =
            self.groups.iter().partition(|done| self.still(&done.group, &now, &present));
        let removed: HashSet<String> =
            hold.iter().flat_map(|done| &done.group.files).map(|file| file.data().file_path().to_owned()).collect();
        // Those that are about one of the removed files leave with it.
        let dangling = plan::dangling(&now, &removed);
        let with_their_file = |file: &&DataFile| only_target(file).is_some_and(|path| removed.contains(&path));
        let removed_deletes =
            dangling.iter().filter(|file| !with_their_file(file)).map(|file| DeleteFile::of(file)).collect();
        let sequence = Some(self.read.metadata().last_sequence_number());
        let spec_id = self.read.metadata().default_partition_spec_id();
        let files = || hold.iter().flat_map(|done| &done.files);
        let added = files().map(|file| AddedFile { file: file.clone(), spec_id, sequence }).collect();
        let tried = Rewritten {
            groups: hold.len() as u64,
            conflicts: lost.len() as u64,
            files_removed: removed.len() as u64,
            bytes_removed: hold
                .iter()
                .flat_map(|done| &done.group.files)
                .map(|file| file.data().file_size_in_bytes())
                .sum(),
            files_added: files().count() as u64,
            bytes_added: files().map(DataFile::file_size_in_bytes).sum(),
            delete_files_removed: dangling.len() as u64,
            snapshots: Vec::new(),
        };
        self.tried = tried;
        if removed.is_empty() {
            return Ok(Delta::default());
        }
        Ok(Delta { added, removed, removed_deletes, replaces: true, ..Delta::default() })
    }

    fn created(&self) -> Vec<String> {
        self.groups.iter().flat_map(|group| group.created.iter().cloned()).collect()
    }
}
