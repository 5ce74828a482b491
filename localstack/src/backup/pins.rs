//! The objects of a data directory, held as they are at one moment: hard links below `pinned/`.
//!
//! What nobody needs any more goes when the backup ends; what one left that was killed, when the next one or `tarn up` begins.

use std::collections::BTreeMap;
use std::fs::{File, Metadata, OpenOptions, TryLockError};
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use shared::error::Context;
use shared::{Error, Result};

use super::manifest::{Entry, modified_ns};

const FOLDER: &str = "pinned";
const LOCK: &str = "lock";
/// Links in one folder.
const LINKS: u64 = 10_000;
/// The folder of answers that were too large to send: nobody asks for them later.
const LEFT_OUT: &str = "results";
/// Endings of files that are never replaced below `tables/`: what has such a name there is what it was.
const IMMUTABLE: [&str; 4] = ["parquet", "avro", "puffin", "orc"];

/// An object as it was.
#[derive(Debug, Clone)]
pub(super) struct Pinned {
    /// Relative to the data directory: `objects/…`.
    pub(super) path: String,
    /// Where to read it.
    pub(super) source: PathBuf,
    size: u64,
    modified_ns: i64,
    inode: u64,
    /// Whether `source` is a link of our own.
    is_linked: bool,
}

impl Pinned {
    /// Whether an entry of an earlier backup is this object.
    pub(super) fn is(&self, entry: &Entry) -> bool {
        (self.size, self.modified_ns, self.inode) == (entry.size, entry.modified_ns, entry.inode)
    }

    fn is_now(&self, now: &Metadata) -> bool {
        (self.size, self.modified_ns, self.inode) == (now.len(), modified_ns(now), now.ino())
    }
}

/// All objects.
#[derive(Debug)]
pub(super) struct Pins {
    /// Where the objects are.
    objects: PathBuf,
    pinned: BTreeMap<String, Pinned>,
    links: u64,
    guard: PinGuard,
}

impl Pins {
    /// # Errors
    /// `Conflict`, naming the process, when another backup of the data directory goes on.
    pub(super) fn new(data: &Path, objects: &Path) -> Result<Self> {
        let folder = data.join(FOLDER);
        let mut lock = match locked(&folder, true)? {
            Locked::Ours(lock) => lock,
            Locked::Others(pid) => {
                return Err(Error::conflict(format!(
                    "another backup of the data directory `{}` goes on: process {pid}",
                    data.display()
                )));
            }
        };
        empty(&folder)?;
        lock.set_len(0).and_then(|()| writeln!(lock, "{}", std::process::id())).context(|| doing(&folder))?;
        let guard = PinGuard { folder, _lock: lock };
        Ok(Self { objects: objects.to_owned(), pinned: BTreeMap::new(), links: 0, guard })
    }

    /// What is pinned, as long as it is held.
    pub(super) fn into_pinned(self) -> (Vec<Pinned>, PinGuard) {
        (self.pinned.into_values().collect(), self.guard)
    }

    /// Pins the objects as they are now: those that came, instead of those that went.
    ///
    /// # Errors
    /// `Limit` on a full disk; what the folders answer.
    pub(super) fn renew(&mut self) -> Result<()> {
        let mut found = BTreeMap::new();
        let mut folders = vec![(self.objects.clone(), String::from("objects"))];
        while let Some((folder, path)) = folders.pop() {
            let entries = match std::fs::read_dir(&folder) {
                // It went since its name was read, or there is none yet.
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
                entries => entries.context(|| format!("listing `{}`", folder.display()))?,
            };
            for entry in entries {
                let entry = entry.context(|| format!("listing `{}`", folder.display()))?;
                let Some(name) = entry.file_name().to_str().map(str::to_owned) else {
                    tracing::warn!(path = %entry.path().display(), "a file whose name is no text is left out of the backup");
                    continue;
                };
                let path = format!("{path}/{name}");
                let known = self.pinned.remove(&path);
                if let Some(known) = known.as_ref().filter(|known| is_immutable(known)) {
                    found.insert(path, known.clone());
                    continue;
                }
                // Follows links, as the store does.
                let place = entry.path();
                let metadata = match std::fs::metadata(&place) {
                    Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
                    metadata => metadata.context(|| format!("looking up `{}`", place.display()))?,
                };
                if metadata.is_dir() && path != format!("objects/{LEFT_OUT}") {
                    folders.push((place, path));
                } else if metadata.is_file() && !is_draft(&name) {
                    let pinned = match known.filter(|known| known.is_now(&metadata)) {
                        None => self.pin(&place, path.clone(), metadata)?,
                        known => known,
                    };
                    found.extend(pinned.map(|pinned| (path, pinned)));
                }
            }
        }
        self.pinned = found;
        Ok(())
    }

    /// Pins one object; `None` when it has gone.
    fn pin(&mut self, place: &Path, path: String, metadata: Metadata) -> Result<Option<Pinned>> {
        let target = self.guard.folder.join((self.links / LINKS).to_string()).join(self.links.to_string());
        self.links += 1;
        let link = || {
            // What a link leads to is not linked: the file that it names may become another's.
            if std::fs::symlink_metadata(place)?.is_symlink() {
                return Err(std::io::Error::from(std::io::ErrorKind::Unsupported));
            }
            std::fs::hard_link(place, &target)?;
            std::fs::metadata(&target)
        };
        let mut linked = link();
        if linked.as_ref().is_err_and(|error| error.kind() == std::io::ErrorKind::NotFound) {
            let folder = target.parent().unwrap_or(&self.guard.folder);
            std::fs::create_dir_all(folder).context(|| doing(folder))?;
            linked = link();
        }
        let (source, metadata, is_linked) = match linked {
            Ok(metadata) => (target, metadata, true),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) if error.kind() == std::io::ErrorKind::StorageFull => {
                return Err(Error::from(error).context(doing(&self.guard.folder)));
            }
            // Another file system, or another's file.
            Err(_) => (place.to_owned(), metadata, false),
        };
        let (size, modified_ns, inode) = (metadata.len(), modified_ns(&metadata), metadata.ino());
        Ok(Some(Pinned { path, source, size, modified_ns, inode, is_linked }))
    }
}

/// The links, which are removed when it is dropped.
#[derive(Debug)]
pub(super) struct PinGuard {
    folder: PathBuf,
    _lock: File,
}

impl Drop for PinGuard {
    fn drop(&mut self) {
        if let Err(error) = empty(&self.folder) {
            tracing::warn!(%error, "links of the backup are still there: the next one removes them");
        }
    }
}

/// Removes what a backup of the data directory left that was killed.
///
/// # Errors
/// What the folder answers.
pub fn forget(data: &Path) -> Result<()> {
    let folder = data.join(FOLDER);
    if !folder.join(LOCK).exists() {
        return Ok(());
    }
    match locked(&folder, false)? {
        Locked::Ours(_lock) => empty(&folder),
        Locked::Others(_) => Ok(()),
    }
}

enum Locked {
    Ours(File),
    /// The id of the process that has it.
    Others(String),
}

fn locked(folder: &Path, create: bool) -> Result<Locked> {
    let path = folder.join(LOCK);
    if create {
        std::fs::create_dir_all(folder).context(|| doing(folder))?;
    }
    let file = OpenOptions::new().read(true).write(true).create(create).truncate(false).open(&path);
    let file = file.context(|| doing(folder))?;
    match file.try_lock() {
        Ok(()) => Ok(Locked::Ours(file)),
        Err(TryLockError::WouldBlock) => {
            Ok(Locked::Others(std::fs::read_to_string(&path).unwrap_or_default().trim().to_owned()))
        }
        Err(TryLockError::Error(error)) => Err(Error::from(error).context(doing(folder))),
    }
}

/// Removes all but the lock.
fn empty(folder: &Path) -> Result<()> {
    for entry in std::fs::read_dir(folder).context(|| doing(folder))? {
        let entry = entry.context(|| doing(folder))?;
        if entry.file_type().context(|| doing(folder))?.is_dir() {
            std::fs::remove_dir_all(entry.path()).context(|| doing(folder))?;
        }
    }
    Ok(())
}

fn doing(folder: &Path) -> String {
    format!("holding the objects in `{}`", folder.display())
}

/// Whether what was pinned under a name is what has the name now, without looking.
fn is_immutable(pinned: &Pinned) -> bool {
    let ending = pinned.path.rsplit_once('.').map(|(_, ending)| ending);
    pinned.is_linked
        && pinned.path.starts_with("objects/tables/")
        && ending.is_some_and(|ending| IMMUTABLE.contains(&ending))
}

/// Whether it is what a store writes before it gives it its name: `name#1`.
fn is_draft(name: &str) -> bool {
    name.split_once('#').is_some_and(|(_, end)| !end.is_empty() && end.bytes().all(|byte| byte.is_ascii_digit()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(pins: &Pins) -> Vec<String> {
        pins.pinned.keys().cloned().collect()
    }

    fn read(pins: &Pins, path: &str) -> String {
        std::fs::read_to_string(&pins.pinned[path].source).unwrap()
    }

    #[test]
    fn objects_are_held_as_they_were_whatever_becomes_of_them() {
        let folder = tempfile::tempdir().unwrap();
        let (data, objects) = (folder.path().join("data"), folder.path().join("data/objects"));
        let write = |path: &str, text: &str| {
            let path = objects.join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            // As a store writes: under another name first.
            let draft = path.with_extension("draft#1");
            std::fs::write(&draft, text).unwrap();
            std::fs::rename(&draft, &path).unwrap();
        };
        for path in ["raw/a.csv", "raw/gone.csv", "tables/t/data/f.parquet", "results/q.json"] {
            write(path, path);
        }
        std::fs::write(objects.join("raw/a.csv#7"), "half of it").unwrap();
        std::fs::write(folder.path().join("elsewhere"), "linked").unwrap();
        std::os::unix::fs::symlink(folder.path().join("elsewhere"), objects.join("raw/link.csv")).unwrap();

        let mut pins = Pins::new(&data, &objects).unwrap();
        pins.renew().unwrap();
        let held =
            ["objects/raw/a.csv", "objects/raw/gone.csv", "objects/raw/link.csv", "objects/tables/t/data/f.parquet"];
        assert_eq!(names(&pins), held);
        let links = pins.links;
        pins.renew().unwrap();
        assert_eq!((pins.links, names(&pins).len()), (links, 4), "what is the same is not linked again");

        std::fs::remove_file(objects.join("raw/gone.csv")).unwrap();
        std::fs::remove_file(objects.join("tables/t/data/f.parquet")).unwrap();
        write("raw/a.csv", "replaced");
        assert_eq!(read(&pins, "objects/raw/a.csv"), "raw/a.csv");
        assert_eq!(read(&pins, "objects/tables/t/data/f.parquet"), "tables/t/data/f.parquet");
        assert_eq!(read(&pins, "objects/raw/link.csv"), "linked");

        write("raw/new.csv", "new");
        pins.renew().unwrap();
        assert_eq!(names(&pins), ["objects/raw/a.csv", "objects/raw/link.csv", "objects/raw/new.csv"]);
        assert_eq!(read(&pins, "objects/raw/a.csv"), "replaced");

        let second = Pins::new(&data, &objects).unwrap_err();
        assert!(second.to_string().contains(&std::process::id().to_string()), "{second}");
        drop(pins.into_pinned());
        assert_eq!(std::fs::read_dir(data.join(FOLDER)).unwrap().count(), 1, "nothing but the lock is left");
        forget(&data).unwrap();
    }
}
