//! Which objects of a location a crawl has to read.

use std::collections::{BTreeMap, BTreeSet};

use format::listing::{self, log_of};
use format::{FileFault, FileFilter};
use percent_encoding::percent_decode_str;
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
        let mark = listing::mark(info.etag.as_deref(), info.size, info.modified_ms);
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
    /// Hidden and excluded ones, and those of tables with a log.
    pub ignored: usize,
    /// Known to be faulty and still the same.
    pub known_faults: Vec<(String, FileFault)>,
    /// Folders (with a final slash) that are tables whose log lists the files that count, and what they are.
    pub logged: BTreeMap<String, String>,
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
    let mut selection = Selection { logged: logged(&objects, everything, marks), ..Selection::default() };
    let (objects, ignored): (Vec<_>, Vec<_>) = objects.into_iter().partition(|object| filter.includes(&object.path));
    selection.ignored = ignored.len();
    let present: BTreeSet<&str> = objects.iter().map(|object| object.path.as_str()).collect();
    selection.gone = marks
        .objects
        .keys()
        .filter(|path| match path.ends_with('/') {
            true => everything && !selection.logged.contains_key(path.as_str()),
            false => (everything && !present.contains(path.as_str())) || removed.contains(path),
        })
        .cloned()
        .collect();
    let changed: BTreeSet<String> =
        objects.iter().filter(|object| marks.is_new(object)).map(|object| object.path.clone()).collect();
    let stirred: BTreeSet<&str> = changed.iter().chain(&selection.gone).map(|path| unit(path)).collect();
    for object in objects {
        // Without a mark, so that it is new when the log is gone.
        if selection.is_logged(&object.path) {
            selection.ignored += 1;
            continue;
        }
        let misfit = marks.objects.get(&object.path).and_then(|mark| mark.fault.clone());
        match misfit {
            _ if changed.contains(&object.path) => selection.read.push(object),
            // What did not fit may fit now that the files beside it have changed.
            Some(FileFault::Misfit { .. }) if stirred.contains(unit(&object.path)) => selection.read.push(object),
            Some(fault) => {
                selection.unchanged += 1;
                selection.known_faults.push((object.path, fault));
            }
            None => selection.unchanged += 1,
        }
    }
    if let Some(sample) = sample {
        selection.limit(sample);
    }
    selection
}

/// The folders that are tables with a log: those that the objects show, and those that were found before if these are not all.
fn logged(objects: &[Object], everything: bool, marks: &Marks) -> BTreeMap<String, String> {
    let shown = objects.iter().filter_map(|object| log_of(&object.path));
    let mut logged: BTreeMap<String, String> =
        shown.map(|(folder, kind)| (format!("{folder}/").replace("//", "/"), kind.to_owned())).collect();
    if !everything {
        for (path, mark) in marks.objects.iter().filter(|(path, _)| path.ends_with('/')) {
            if let Some(FileFault::Unsupported { format }) = &mark.fault {
                logged.insert(path.clone(), format.clone());
            }
        }
    }
    logged
}

impl Selection {
    /// Whether the file lies in a table with a log.
    fn is_logged(&self, path: &str) -> bool {
        self.logged.keys().any(|folder| folder == "/" || path.starts_with(folder.as_str()))
    }

    /// Whether there is nothing to do.
    pub fn is_empty(&self, marks: &Marks) -> bool {
        let known = |folder: &String| marks.objects.contains_key(folder);
        self.read.is_empty() && self.assumed.is_empty() && self.gone.is_empty() && self.logged.keys().all(known)
    }

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
pub fn unit(path: &str) -> &str {
    path.split_once('/').map_or("", |(folder, _)| folder)
}

/// The folder of a path, without a final slash; empty for the location itself.
pub fn folder(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(folder, _)| folder)
}
