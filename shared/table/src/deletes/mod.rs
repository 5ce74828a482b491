//! Row-level deletes of a snapshot: which delete files apply to which data file, by the rules of the specification's "scan
//! planning".

pub mod vector;

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use iceberg::spec::{DataContentType, Struct};

pub use self::vector::blob as vector_blob;
use super::live::LiveFile;
use super::manifests::only_target;
use super::snapshot::DeleteFile;
use shared::{Error, Result};

/// The delete files that apply to a data file.
#[derive(Debug, Default)]
pub struct Deletes {
    /// Position delete files; none when there is a vector, which holds what they say.
    pub positions: Vec<LiveFile>,
    pub vector: Option<LiveFile>,
    pub equality: Vec<Arc<Scope>>,
}

impl Deletes {
    /// The delete files that hold for a data file with the sequence number.
    pub fn files(&self, sequence: i64) -> BTreeSet<DeleteFile> {
        let compared = self.equality.iter().flat_map(|scope| &scope.files).filter(|file| file.sequence() > sequence);
        let all = self.positions.iter().chain(&self.vector).chain(compared);
        all.map(|file| DeleteFile::of(file.data())).collect()
    }

    /// Whether rows are deleted by their place.
    pub fn has_places(&self) -> bool {
        self.vector.is_some() || !self.positions.is_empty()
    }
}

/// Equality deletes over the same columns for one partition, or for all. A row is deleted by those that came after it.
#[derive(Debug)]
pub struct Scope {
    /// Field ids of the columns, in ascending order.
    pub ids: Vec<i32>,
    pub files: Vec<LiveFile>,
    newest: i64,
}

type Partition = (i32, Struct);

/// Finds the deletes of a data file.
#[derive(Debug, Default)]
pub struct Index {
    vectors: HashMap<String, LiveFile>,
    by_file: HashMap<String, Vec<LiveFile>>,
    by_partition: HashMap<Partition, Vec<LiveFile>>,
    equality: HashMap<Option<Partition>, Vec<Arc<Scope>>>,
}

impl Index {
    /// # Errors
    /// `Bug` for an equality delete file that names no columns, or a vector that names no data file.
    pub fn new(deletes: Vec<LiveFile>) -> Result<Self> {
        let mut index = Self::default();
        let mut scopes: HashMap<(Option<Partition>, Vec<i32>), Vec<LiveFile>> = HashMap::new();
        for file in deletes {
            let data = file.data();
            match data.content_type() {
                DataContentType::EqualityDeletes => {
                    let mut ids = data.equality_ids().unwrap_or_default();
                    if ids.is_empty() {
                        return Err(lacking("equality ids", &file));
                    }
                    ids.sort_unstable();
                    let global = file.manifest().metadata().partition_spec().is_unpartitioned();
                    let partition = (!global).then(|| partition(&file));
                    scopes.entry((partition, ids)).or_default().push(file);
                }
                _ if vector::is_vector(data) => {
                    let path = data.referenced_data_file().ok_or_else(|| lacking("a referenced data file", &file))?;
                    index.vectors.insert(path, file);
                }
                _ => match only_target(data) {
                    Some(path) => index.by_file.entry(path).or_default().push(file),
                    None => index.by_partition.entry(partition(&file)).or_default().push(file),
                },
            }
        }
        for ((partition, ids), files) in scopes {
            let newest = files.iter().map(LiveFile::sequence).max().unwrap_or(0);
            index.equality.entry(partition).or_default().push(Arc::new(Scope { ids, files, newest }));
        }
        Ok(index)
    }

    /// What applies to a data file; `None` when nothing does.
    pub fn of(&self, file: &LiveFile) -> Option<Arc<Deletes>> {
        let (path, sequence) = (file.data().file_path(), file.sequence());
        let own = (!self.by_partition.is_empty() || !self.equality.is_empty()).then(|| partition(file));
        let vector = self.vectors.get(path).filter(|vector| vector.sequence() >= sequence).cloned();
        let positions = match vector {
            Some(_) => Vec::new(),
            None => {
                let of_file = self.by_file.get(path);
                let of_partition = own.as_ref().and_then(|own| self.by_partition.get(own));
                let all = of_file.into_iter().chain(of_partition).flatten();
                all.filter(|deletes| deletes.sequence() >= sequence).cloned().collect()
            }
        };
        let scopes = [self.equality.get(&None), own.and_then(|own| self.equality.get(&Some(own)))];
        let equality: Vec<_> =
            scopes.into_iter().flatten().flatten().filter(|scope| scope.newest > sequence).cloned().collect();
        let none = positions.is_empty() && vector.is_none() && equality.is_empty();
        (!none).then(|| Arc::new(Deletes { positions, vector, equality }))
    }
}

fn partition(file: &LiveFile) -> Partition {
    (file.manifest().metadata().partition_spec().spec_id(), file.data().partition().clone())
}

fn lacking(what: &str, file: &LiveFile) -> Error {
    Error::bug(format!("expected {what} for the delete file `{}`, found none", file.data().file_path()))
}
