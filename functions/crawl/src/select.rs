//! Which objects of a location a crawl has to read.

use std::collections::{BTreeMap, BTreeSet};

use percent_encoding::percent_decode_str;
use sha2::{Digest, Sha256};
use shared::format::{FileFilter, Flaw};
use shared::storage::ObjectInfo;
use url::Url;

use crate::marks::Marks;

/// An object in a location.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Object {
    /// Relative to the location, decoded once: as the store names it.
    pub path: String,
    pub url: Url,
    /// Bytes.
    pub size: u64,
    /// Changes when the object does.
    pub mark: String,
}

impl Object {
    /// `None` when `info` is the location itself or lies outside it.
    pub fn of(base: &Url, info: &ObjectInfo) -> Option<Self> {
        let path = relative_path(base, &info.url)?;
        let identity = format!("{}|{}|{}", info.etag.as_deref().unwrap_or_default(), info.size, info.modified_ms);
        let digest = Sha256::digest(identity.as_bytes());
        let mark = digest.iter().take(8).map(|byte| format!("{byte:02x}")).collect();
        Some(Self { path, url: info.url.clone(), size: info.size, mark })
    }
}

/// The path of `url` below the folder `base`; `None` when it lies outside.
pub fn relative_path(base: &Url, url: &Url) -> Option<String> {
    let rest = url.as_str().strip_prefix(base.as_str())?;
    let path = percent_decode_str(rest).decode_utf8().ok()?.into_owned();
    (!path.is_empty()).then_some(path)
}

/// What a crawl does with the objects that it was shown.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Selection {
    /// New or changed, in order of path.
    pub read: Vec<Object>,
    /// New or changed, but left unread because enough files of their folder are read.
    pub assumed: Vec<Object>,
    /// Paths that are marked and no longer there.
    pub gone: Vec<String>,
    /// Objects that are as they were.
    pub unchanged: usize,
    /// Hidden and excluded ones.
    pub ignored: usize,
    /// Known to be flawed and still the same.
    pub known_flaws: Vec<(String, Flaw)>,
}

/// Compares what is there with what was seen. `everything` says that `objects` is all that the location holds, so that what is
/// marked and not among them is gone; `removed` names paths that are gone anyhow. `sample` limits the files to read of each folder.
pub fn select(
    objects: Vec<Object>,
    removed: &[String],
    everything: bool,
    marks: &Marks,
    filter: &FileFilter,
    sample: Option<u32>,
) -> Selection {
    let mut selection = Selection::default();
    let (objects, ignored): (Vec<_>, Vec<_>) = objects.into_iter().partition(|object| filter.includes(&object.path));
    selection.ignored = ignored.len();
    let present: BTreeSet<&str> = objects.iter().map(|object| object.path.as_str()).collect();
    selection.gone = marks
        .objects
        .keys()
        .filter(|path| (everything && !present.contains(path.as_str())) || removed.contains(path))
        .cloned()
        .collect();
    let changed: BTreeSet<String> =
        objects.iter().filter(|object| marks.is_new(object)).map(|object| object.path.clone()).collect();
    let stirred: BTreeSet<&str> = changed.iter().chain(&selection.gone).map(|path| unit(path)).collect();
    for object in objects {
        let misfit = marks.objects.get(&object.path).and_then(|mark| mark.flaw.clone());
        match misfit {
            _ if changed.contains(&object.path) => selection.read.push(object),
            // What did not fit may fit now that the files beside it have changed.
            Some(Flaw::Misfit { .. }) if stirred.contains(unit(&object.path)) => selection.read.push(object),
            Some(flaw) => {
                selection.unchanged += 1;
                selection.known_flaws.push((object.path, flaw));
            }
            None => selection.unchanged += 1,
        }
    }
    if let Some(sample) = sample {
        selection.limit(sample);
    }
    selection
}

impl Selection {
    /// Leaves at most `sample` files of each folder to read.
    fn limit(&mut self, sample: u32) {
        let mut read_of: BTreeMap<String, u32> = BTreeMap::new();
        for object in std::mem::take(&mut self.read) {
            let read = read_of.entry(folder(&object.path).to_owned()).or_default();
            if *read < sample || object.size == 0 {
                *read += 1;
                self.read.push(object);
            } else {
                self.assumed.push(object);
            }
        }
    }
}

/// The first-level folder of a path, empty for a file beside them: files of different ones never make a table, or all do.
fn unit(path: &str) -> &str {
    path.split_once('/').map_or("", |(folder, _)| folder)
}

/// The folder of a path, without a final slash; empty for the location itself.
pub fn folder(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(folder, _)| folder)
}
