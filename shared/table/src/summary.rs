//! What a snapshot's summary counts, in the names of the Iceberg specification.

use std::collections::{BTreeMap, HashMap, HashSet};

use iceberg::spec::{DataContentType, DataFile, DataFileFormat, Operation, Snapshot, Struct, Summary};

use super::Token;

/// Files that came, or that left.
#[derive(Debug, Default, Clone)]
pub struct Counts {
    pub data_files: u64,
    pub rows: u64,
    pub delete_files: u64,
    position_delete_files: u64,
    vectors: u64,
    equality_delete_files: u64,
    position_deletes: u64,
    equality_deletes: u64,
    pub bytes: u64,
    partitions: HashSet<(i32, Struct)>,
}

impl Counts {
    pub fn add(&mut self, file: &DataFile, spec_id: i32) {
        let bytes = file.content_size_in_bytes().map_or(file.file_size_in_bytes(), i64::unsigned_abs);
        self.bytes += bytes;
        self.partitions.insert((spec_id, file.partition().clone()));
        match file.content_type() {
            DataContentType::Data => {
                self.data_files += 1;
                self.rows += file.record_count();
            }
            DataContentType::PositionDeletes => {
                self.delete_files += 1;
                self.position_deletes += file.record_count();
                match file.file_format() {
                    DataFileFormat::Puffin => self.vectors += 1,
                    _ => self.position_delete_files += 1,
                }
            }
            DataContentType::EqualityDeletes => {
                self.delete_files += 1;
                self.equality_delete_files += 1;
                self.equality_deletes += file.record_count();
            }
        }
    }

    /// What the summary calls each count, when files come and when they leave.
    fn named(&self) -> [(&'static str, &'static str, u64); 9] {
        [
            ("added-data-files", "deleted-data-files", self.data_files),
            ("added-records", "deleted-records", self.rows),
            ("added-files-size", "removed-files-size", self.bytes),
            ("added-delete-files", "removed-delete-files", self.delete_files),
            ("added-position-delete-files", "removed-position-delete-files", self.position_delete_files),
            ("added-dvs", "removed-dvs", self.vectors),
            ("added-position-deletes", "removed-position-deletes", self.position_deletes),
            ("added-equality-delete-files", "removed-equality-delete-files", self.equality_delete_files),
            ("added-equality-deletes", "removed-equality-deletes", self.equality_deletes),
        ]
    }

    fn totals(&self) -> [(&'static str, u64); 6] {
        [
            ("total-data-files", self.data_files),
            ("total-records", self.rows),
            ("total-files-size", self.bytes),
            ("total-delete-files", self.delete_files),
            ("total-position-deletes", self.position_deletes),
            ("total-equality-deletes", self.equality_deletes),
        ]
    }
}

/// Counts, totals and the token. `replaces`: the rows stay as they are, only the files change.
pub fn summary(
    parent: Option<&Snapshot>,
    added: &Counts,
    removed: &Counts,
    replaces: bool,
    token: Option<&Token>,
) -> Summary {
    let mut properties = HashMap::new();
    let partitions = added.partitions.union(&removed.partitions).count() as u64;
    let came = added.named().map(|(name, _, value)| (name, value));
    let left = removed.named().map(|(_, name, value)| (name, value));
    for (name, value) in came.into_iter().chain(left).chain([("changed-partition-count", partitions)]) {
        if value > 0 {
            properties.insert(name.to_owned(), value.to_string());
        }
    }
    let gone: BTreeMap<_, _> = removed.totals().into_iter().collect();
    for (name, came) in added.totals() {
        let before = match parent {
            Some(parent) => parent.summary().additional_properties.get(name).and_then(|n| n.parse::<u64>().ok()),
            None => Some(0),
        };
        // Without the parent's total there is none to give.
        if let Some(before) = before {
            let total = (before + came).saturating_sub(gone.get(name).copied().unwrap_or(0));
            properties.insert(name.to_owned(), total.to_string());
        }
    }
    if let Some(token) = token {
        properties.insert(token.key.clone(), token.value.clone());
    }
    Summary { operation: operation(added, removed, replaces), additional_properties: properties }
}

/// Readers of what was added need not stop at a snapshot that removed nothing.
fn operation(added: &Counts, removed: &Counts, replaces: bool) -> Operation {
    let removes = removed.data_files > 0 || added.delete_files > 0;
    match (added.data_files > 0, removes) {
        _ if replaces => Operation::Replace,
        (_, false) => Operation::Append,
        (false, true) => Operation::Delete,
        (true, true) => Operation::Overwrite,
    }
}
