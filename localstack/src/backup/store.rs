//! A directory of backups.
//!
//! | path | holds |
//! |---|---|
//! | `tarn-backups.json` | that it is one, and of which lakehouse |
//! | `lock` | whom the directory is locked by: one that writes, or some that read |
//! | `backups/{name}.ndjson` | the files of one backup ([`Manifest`](super::manifest::Manifest)) |
//! | `contents/{first two digits}/{SHA-256}` | the contents of files, each once |
//! | `drafts/` | what is being written |

use std::collections::HashSet;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use serde::{Deserialize, Serialize};
use shared::error::Context;
use shared::{Error, ErrorKind, Result};

use super::copy::{in_parallel, verified};
use super::manifest::{Entry, FORMAT, Manifest, PART_BYTES};

const MARKER: &str = "tarn-backups.json";
const LOCK: &str = "lock";
const BACKUPS: &str = "backups";
const CONTENTS: &str = "contents";
const DRAFTS: &str = "drafts";

/// What `tarn-backups.json` holds.
#[derive(Debug, Serialize, Deserialize)]
struct Marker {
    format: u32,
    /// What the URLs of the lakehouse's objects begin with.
    root: String,
}

/// A directory of backups that is locked.
#[derive(Debug)]
pub(super) struct Store {
    folder: PathBuf,
    drafts: AtomicU64,
    _lock: Option<Lock>,
}

/// A backup as it is listed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Listed {
    pub name: String,
    pub at_ms: i64,
    pub files: u64,
    pub bytes: u64,
    pub version: String,
    /// Why it can't be restored.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub damage: Option<String>,
}

impl Store {
    /// Opens the directory to write a backup of the lakehouse whose objects' URLs begin with `root`; makes it when it is absent.
    ///
    /// # Errors
    /// `Conflict` when another backup goes on in it, when it holds backups of another lakehouse, or other things; `Invalid` for one of a newer
    /// format.
    pub(super) fn for_writing(folder: &Path, root: &str) -> Result<Self> {
        make(folder)?;
        let found = first_other(folder)?;
        if let (false, Some(found)) = (folder.join(MARKER).exists(), found) {
            return Err(Error::conflict(format!(
                "expected an empty directory or one with backups, found `{found}` in `{}`",
                folder.display()
            )));
        }
        let lock = Lock::exclusive(folder)?;
        match marker(folder)? {
            Some(marker) if marker.root != root => {
                return Err(Error::conflict(format!(
                    "expected backups of the lakehouse at `{root}`, found those of the one at `{}` in `{}`",
                    marker.root,
                    folder.display()
                )));
            }
            Some(_) => {}
            None => {
                let marker = Marker { format: FORMAT, root: root.to_owned() };
                let text = serde_json::to_string(&marker)
                    .map_err(|e| Error::bug("the mark of a directory has no JSON form").with_source(e))?;
                write_whole(&folder.join(MARKER), text.as_bytes())?;
            }
        }
        for name in [BACKUPS, CONTENTS] {
            make(&folder.join(name))?;
        }
        let store = Self { folder: folder.to_owned(), drafts: AtomicU64::new(0), _lock: Some(lock) };
        // What a backup left that was broken off.
        store.discard_drafts()?;
        Ok(store)
    }

    /// Removes what is half written.
    ///
    /// # Errors
    /// What the folder answers.
    pub(super) fn discard_drafts(&self) -> Result<()> {
        let drafts = self.folder.join(DRAFTS);
        match std::fs::remove_dir_all(&drafts) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(Error::from(error).context(format!("emptying `{}`", drafts.display())))
            }
            _ => make(&drafts),
        }
    }

    /// Opens the directory to restore from.
    ///
    /// # Errors
    /// `NotFound` when it holds no backups; `Conflict` while a backup goes on in it; `Invalid` for one of a newer format.
    pub(super) fn for_reading(folder: &Path) -> Result<Self> {
        expect_marker(folder)?;
        Ok(Self { folder: folder.to_owned(), drafts: AtomicU64::new(0), _lock: Lock::shared(folder)? })
    }

    /// Opens the directory only to tell what is in it, which can be done at any time.
    ///
    /// # Errors
    /// `NotFound` when it holds no backups; `Invalid` for one of a newer format.
    pub(super) fn to_look(folder: &Path) -> Result<Self> {
        expect_marker(folder)?;
        Ok(Self { folder: folder.to_owned(), drafts: AtomicU64::new(0), _lock: None })
    }

    /// Where a content lies.
    pub(super) fn content(&self, sum: &str) -> PathBuf {
        self.folder.join(CONTENTS).join(sum.get(..2).unwrap_or_default()).join(sum)
    }

    /// A fresh path to write something to.
    pub(super) fn draft(&self) -> PathBuf {
        self.folder.join(DRAFTS).join(self.drafts.fetch_add(1, Ordering::Relaxed).to_string())
    }

    /// Makes what was written to `draft` the content with the checksum `sum`; says whether it is new.
    ///
    /// # Errors
    /// `Limit` on a full disk.
    pub(super) fn keep(&self, draft: &Path, written: &File, sum: &str, length: u64) -> Result<bool> {
        let path = self.content(sum);
        if self.has(sum, length) {
            std::fs::remove_file(draft).context(|| format!("removing `{}`", draft.display()))?;
            return Ok(false);
        }
        let doing = || format!("writing `{}`", path.display());
        written.sync_all().context(doing)?;
        match std::fs::rename(draft, &path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                path.parent().map_or(Ok(()), make)?;
                std::fs::rename(draft, &path).context(doing)?;
            }
            renamed => renamed.context(doing)?,
        }
        Ok(true)
    }

    /// Whether all of an entry's content is here, as far as sizes tell.
    pub(super) fn holds(&self, entry: &Entry) -> bool {
        let mut left = entry.size;
        let count = entry.parts.len();
        let holds = entry.parts.iter().enumerate().all(|(place, sum)| {
            let size = if place + 1 < count { PART_BYTES } else { left };
            left = left.saturating_sub(size);
            self.has(sum, size)
        });
        holds && left == 0
    }

    fn has(&self, sum: &str, length: u64) -> bool {
        self.content(sum).metadata().is_ok_and(|found| found.len() == length)
    }

    /// Names of the backups, oldest first.
    ///
    /// # Errors
    /// What the folder answers.
    pub(super) fn names(&self) -> Result<Vec<String>> {
        let folder = self.folder.join(BACKUPS);
        let files = match std::fs::read_dir(&folder) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            files => files.context(|| format!("listing `{}`", folder.display()))?,
        };
        let mut names = Vec::new();
        for file in files {
            let name = file.context(|| format!("listing `{}`", folder.display()))?.file_name();
            names.extend(name.to_str().and_then(|name| name.strip_suffix(".ndjson")).map(str::to_owned));
        }
        names.sort();
        Ok(names)
    }

    /// # Errors
    /// `NotFound` when there is none of this name; as [`Manifest::parse`].
    pub(super) fn manifest(&self, name: &str) -> Result<Manifest> {
        let path = self.path_of(name);
        let text = match std::fs::read_to_string(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                let known = self.names()?.into_iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
                return Err(Error::not_found(format!(
                    "no backup `{name}` in `{}`: expected one of {known}",
                    self.folder.display()
                )));
            }
            text => text.context(|| format!("reading `{}`", path.display()))?,
        };
        Manifest::parse(&text).context(|| format!("reading `{}`", path.display()))
    }

    /// Writes the list of a backup under the first name from `name` on that is free: from then on there is the backup. What it
    /// names is on the disk before.
    ///
    /// # Errors
    /// `Limit` on a full disk.
    pub(super) fn finish(&self, name: &str, manifest: &Manifest) -> Result<String> {
        let contents = self.folder.join(CONTENTS);
        for folder in std::fs::read_dir(&contents).context(|| format!("listing `{}`", contents.display()))? {
            flush(&folder?.path())?;
        }
        flush(&contents)?;
        let taken: HashSet<_> = self.names()?.into_iter().collect();
        let name = (1..).map(|n| if n == 1 { name.to_owned() } else { format!("{name}-{n:02}") });
        let name = name.into_iter().find(|name| !taken.contains(name)).unwrap_or_default();
        write_whole(&self.path_of(&name), manifest.to_text()?.as_bytes())?;
        flush(&self.folder.join(BACKUPS))?;
        Ok(name)
    }

    /// Removes all backups but the newest `keep`, and the contents that none of those has; gives the names of those removed.
    ///
    /// # Errors
    /// As [`Store::sweep`].
    pub(super) fn prune(&self, keep: usize) -> Result<Vec<String>> {
        let mut names = self.names()?;
        names.truncate(names.len().saturating_sub(keep));
        for name in &names {
            let path = self.path_of(name);
            std::fs::remove_file(&path).context(|| format!("removing `{}`", path.display()))?;
        }
        flush(&self.folder.join(BACKUPS))?;
        self.sweep()?;
        Ok(names)
    }

    /// Removes contents that no backup has.
    ///
    /// # Errors
    /// As [`Store::manifest`]: while it is not known what a backup has, nothing is removed.
    pub(super) fn sweep(&self) -> Result<()> {
        let mut named = HashSet::new();
        for name in self.names()? {
            named.extend(self.manifest(&name)?.entries.into_iter().flat_map(|entry| entry.parts));
        }
        let contents = self.folder.join(CONTENTS);
        let doing = || format!("removing what no backup has from `{}`", contents.display());
        for folder in std::fs::read_dir(&contents).context(doing)? {
            for content in std::fs::read_dir(folder.context(doing)?.path()).context(doing)? {
                let content = content.context(doing)?;
                if content.file_name().to_str().is_none_or(|sum| !named.contains(sum)) {
                    std::fs::remove_file(content.path()).context(doing)?;
                }
            }
        }
        Ok(())
    }

    /// All backups, oldest first.
    ///
    /// # Errors
    /// As [`Store::names`].
    pub(super) fn list(&self) -> Result<Vec<Listed>> {
        let listed = |name: String| match self.manifest(&name) {
            Ok(manifest) => Listed {
                at_ms: manifest.head.at_ms,
                files: manifest.entries.len() as u64,
                bytes: manifest.bytes(),
                version: manifest.head.version,
                damage: None,
                name,
            },
            Err(error) => {
                Listed { name, at_ms: 0, files: 0, bytes: 0, version: String::new(), damage: Some(error.to_string()) }
            }
        };
        Ok(self.names()?.into_iter().map(listed).collect())
    }

    /// Reads all contents that backups have, and compares them with their checksums; notes in `listed` which backups are damaged.
    ///
    /// # Errors
    /// What reading answers, where it does not say that something is damaged.
    pub(super) fn verify(&self, listed: &mut [Listed]) -> Result<()> {
        let mut sums: Vec<(String, Vec<usize>)> = Vec::new();
        let mut places = std::collections::HashMap::<String, usize>::new();
        for (backup, entry) in listed.iter().enumerate().filter(|(_, listed)| listed.damage.is_none()) {
            for sum in self.manifest(&entry.name)?.entries.into_iter().flat_map(|entry| entry.parts) {
                let place = *places.entry(sum.clone()).or_insert_with(|| {
                    sums.push((sum, Vec::new()));
                    sums.len() - 1
                });
                if sums[place].1.last() != Some(&backup) {
                    sums[place].1.push(backup);
                }
            }
        }
        let damages = in_parallel(&sums, |(sum, _)| match verified(self, sum, &mut vec![0; 1 << 20], |_| Ok(())) {
            Err(error) if error.kind() == ErrorKind::Bug => Ok(Some(error.to_string())),
            other => other.map(|_| None),
        })?;
        for ((_, backups), damage) in sums.into_iter().zip(damages) {
            let Some(damage) = damage else { continue };
            for backup in backups {
                listed[backup].damage.get_or_insert_with(|| damage.clone());
            }
        }
        Ok(())
    }

    fn path_of(&self, name: &str) -> PathBuf {
        self.folder.join(BACKUPS).join(format!("{name}.ndjson"))
    }
}

/// The lock of a directory of backups: the operating system's, so it ends with its process.
#[derive(Debug)]
struct Lock(#[allow(dead_code, reason = "held until it is dropped")] File);

impl Lock {
    /// # Errors
    /// `Conflict`, naming the process, when another has it.
    fn exclusive(folder: &Path) -> Result<Self> {
        let path = folder.join(LOCK);
        let doing = || format!("locking `{}`", path.display());
        let open = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path);
        let mut file = open.context(doing)?;
        match file.try_lock() {
            Ok(()) => {
                file.set_len(0).and_then(|()| writeln!(file, "{}", std::process::id())).context(doing)?;
                Ok(Self(file))
            }
            Err(TryLockError::WouldBlock) => Err(in_use(folder, &path)),
            Err(TryLockError::Error(error)) => Err(Error::from(error).context(doing())),
        }
    }

    /// With others that only read; without any where the directory can't be written.
    ///
    /// # Errors
    /// `Conflict`, naming the process, while one writes.
    fn shared(folder: &Path) -> Result<Option<Self>> {
        let path = folder.join(LOCK);
        let file = match File::open(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            file => file.context(|| format!("opening `{}`", path.display()))?,
        };
        match file.try_lock_shared() {
            Ok(()) => Ok(Some(Self(file))),
            Err(TryLockError::WouldBlock) => Err(in_use(folder, &path)),
            Err(TryLockError::Error(error)) => Err(Error::from(error).context(format!("locking `{}`", path.display()))),
        }
    }
}

fn in_use(folder: &Path, lock: &Path) -> Error {
    let pid = std::fs::read_to_string(lock).unwrap_or_default();
    let by = match pid.trim() {
        "" => "another process".to_owned(),
        pid => format!("process {pid}"),
    };
    Error::conflict(format!("the directory of backups `{}` is in use by {by}", folder.display()))
}

fn expect_marker(folder: &Path) -> Result<()> {
    match marker(folder)? {
        Some(_) => Ok(()),
        None => Err(Error::not_found(format!(
            "expected a directory of backups, found no `{MARKER}` in `{}`",
            folder.display()
        ))),
    }
}

fn marker(folder: &Path) -> Result<Option<Marker>> {
    let path = folder.join(MARKER);
    let doing = || format!("reading `{}`", path.display());
    let text = match std::fs::read_to_string(&path) {
        Err(error) if matches!(error.kind(), std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory) => {
            return Ok(None);
        }
        text => text.context(doing)?,
    };
    let marker: Marker = serde_json::from_str(&text)
        .map_err(|e| {
            Error::invalid(format!("expected the mark of a directory of backups, found `{text}`")).with_source(e)
        })
        .context(doing)?;
    match marker.format > FORMAT {
        true => Err(Error::invalid(format!(
            "expected backups of format {FORMAT} or older, found format {} in `{}`: a newer Tarn wrote them",
            marker.format,
            folder.display()
        ))),
        false => Ok(Some(marker)),
    }
}

/// Something in a folder that is no backup.
fn first_other(folder: &Path) -> Result<Option<String>> {
    for entry in std::fs::read_dir(folder).context(|| format!("listing `{}`", folder.display()))? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        if name != LOCK && name != "lost+found" && !name.starts_with(MARKER) {
            return Ok(Some(name));
        }
    }
    Ok(None)
}

/// Writes a file so that it is there whole or not at all.
fn write_whole(path: &Path, bytes: &[u8]) -> Result<()> {
    let draft = path.with_extension(format!("{}.draft", std::process::id()));
    let written = File::create(&draft).and_then(|mut file| {
        file.write_all(bytes)?;
        file.sync_all()
    });
    let renamed = written.and_then(|()| std::fs::rename(&draft, path));
    if renamed.is_err() {
        // The error that is told is the first one.
        let _removed = std::fs::remove_file(&draft);
    }
    renamed.context(|| format!("writing `{}`", path.display()))
}

fn make(folder: &Path) -> Result<()> {
    std::fs::create_dir_all(folder).context(|| format!("making the folder `{}`", folder.display()))
}

/// Has the names in a folder on the disk.
pub(super) fn flush(folder: &Path) -> Result<()> {
    File::open(folder).and_then(|folder| folder.sync_all()).context(|| format!("flushing `{}`", folder.display()))
}
