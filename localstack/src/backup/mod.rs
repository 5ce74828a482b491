//! Backups of a data directory, taken while it is in use, and their restore.
//!
//! **What is in a backup is what `kill -9` would have left at one moment.** For that moment the three databases stand still
//! ([`Snapshot`]): no transaction is half done in any of them, and none begins. In the same moment the objects are listed and pinned
//! ([`pins`]), so databases and objects belong together. Everything that Tarn writes is made to go on from where a process that was
//! killed left it: a table holds its stream's position in its own snapshots, a bookmark is judged by its table's token, an error
//! object that belongs to no commit is written anew. So a restored lakehouse needs no rule of its own about which of the databases
//! may be ahead of which: it starts as the lakehouse itself would have started after a crash at that moment, and nothing is lost and
//! nothing doubled. That objects are listed one after the other makes no difference: what an object's writer does next is, wherever
//! it matters, a transaction (a plan, a commit, a note that something is done), and those wait.
//!
//! Pinned objects are hard links below `pinned/` of the data directory. Objects are replaced and removed as a whole, never written
//! to in place, so a link is the object as it was, whatever expiry, compaction, a replay or a `DROP TABLE` does while the backup
//! copies. Most are pinned before the moment, which lasts only as long as it takes to look through the folders again. Where a file
//! can't be linked it is read in its place; when it has gone by then, the backup begins anew.
//!
//! The backup works beside the process that has the data directory and does not ask it: it takes SQLite's locks for a moment, and
//! writes nothing there but the links. So nothing that reaches the HTTP API can make the runtime write files somewhere.
//!
//! [`store`] is what a directory of backups holds: contents named by their checksums, so that a second backup adds only what is
//! new, and one [`manifest`] for each backup, which is written last: without it there is no backup, however far one went.

mod copy;
mod manifest;
mod marks;
mod pins;
mod relocate;
mod restore;
mod store;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use adapters_embedded::snapshot::{DATABASES, Snapshot};
use adapters_embedded::{ROOT_FILE, format};
use chrono::DateTime;
use serde::Serialize;
use shared::config::Settings;
use shared::error::Context;
use shared::{Error, ErrorKind, Result};

use copy::{Copied, has_gone, in_parallel, store_bytes, store_database, store_object};
use manifest::{Entry, Head, Manifest};
use pins::{Pinned, Pins};
use store::Store;

pub use marks::follow as follow_objects;
pub use pins::forget as forget_pins;
pub use restore::{Restored, Wanted, restore};
pub use store::Listed;

/// Tries while objects go that could not be linked.
const TRIES: u32 = 3;
/// The lakehouse file of a data directory.
const PROJECT_FILE: &str = "lakehouse.yaml";

/// What a backup did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    pub name: String,
    pub files: u64,
    pub bytes: u64,
    /// Bytes that the directory did not have from earlier backups.
    pub new_bytes: u64,
    pub elapsed_ms: u64,
    /// For how long writers had to wait.
    pub held_ms: u64,
    /// Names of backups that went.
    pub removed: Vec<String>,
}

/// A lakehouse in a data directory.
#[derive(Debug, Clone)]
struct Source {
    data: PathBuf,
    /// What the URLs of its objects begin with, and where they lie.
    root: String,
    objects: PathBuf,
}

/// Backs the data directory up into the directory of backups `target`; of the backups there the newest `keep` stay.
///
/// # Errors
/// `NotFound` without a data directory; `Invalid` for objects that don't lie on this machine, and for a `target` in the data
/// directory; `Conflict`, naming the process, while another backup goes on; `Limit` on a full disk. There is no new backup then, and the
/// earlier ones are whole.
pub fn backup(settings: &Settings, target: &Path, keep: Option<usize>, now_ms: i64) -> Result<Report> {
    let began = Instant::now();
    let source = Source::of(settings)?;
    let target = source.apart(target)?;
    let store = Store::for_writing(&target, &source.root)?;
    let taken = source.try_into_store(&store, now_ms).and_then(|(manifest, new_bytes, held)| {
        let name = store.finish(&name_at(now_ms), &manifest)?;
        Ok((name, manifest, new_bytes, held))
    });
    let (name, manifest, new_bytes, held) = match taken {
        // What was written of it is of no use on a disk that is full.
        Err(error) if error.kind() == ErrorKind::Limit => {
            let swept = store.discard_drafts().and_then(|()| store.sweep());
            return Err(match swept {
                Ok(()) => error,
                Err(left) => error.context(format!("what was copied is still there ({left})")),
            }
            .context("there is no new backup, the earlier ones are whole"));
        }
        taken => taken?,
    };
    let removed = keep.map(|keep| store.prune(keep.max(1))).transpose()?.unwrap_or_default();
    let milliseconds = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    Ok(Report {
        name,
        files: manifest.entries.len() as u64,
        bytes: manifest.bytes(),
        new_bytes,
        elapsed_ms: milliseconds(began.elapsed()),
        held_ms: milliseconds(held),
        removed,
    })
}

/// The backups in a directory, oldest first. With `verify` all that they hold is read, and compared with its checksums.
///
/// # Errors
/// `NotFound` when it holds no backups; what reading answers.
pub fn list(folder: &Path, verify: bool) -> Result<Vec<Listed>> {
    let store = if verify { Store::for_reading(folder)? } else { Store::to_look(folder)? };
    let mut listed = store.list()?;
    if verify {
        store.verify(&mut listed)?;
    }
    Ok(listed)
}

impl Source {
    fn of(settings: &Settings) -> Result<Self> {
        let data = &settings.data;
        if !data.join(DATABASES[1]).is_file() {
            return Err(Error::not_found(format!("no data directory `{}`", data.display())));
        }
        format::check(data)?;
        let objects = match settings.warehouse.scheme() {
            "file" => settings.warehouse.to_file_path().ok(),
            _ => None,
        };
        let objects = objects.ok_or_else(|| {
            Error::invalid(format!(
                "expected a warehouse on this machine, found `{}`: the versions that its bucket keeps are its backup",
                settings.warehouse
            ))
        })?;
        let root = adapters_embedded::first_root(settings)?.to_string();
        Ok(Self { data: data.clone(), root, objects })
    }

    /// The directory of backups by its whole path.
    ///
    /// # Errors
    /// `Invalid` when it and the data directory lie one in the other.
    fn apart(&self, target: &Path) -> Result<PathBuf> {
        let target = resolved(target)?;
        for own in [resolved(&self.data)?, resolved(&self.objects)?] {
            if target.starts_with(&own) || own.starts_with(&target) {
                return Err(Error::invalid(format!(
                    "expected a directory of backups apart from the data directory, found `{}` beside `{}`",
                    target.display(),
                    own.display()
                )));
            }
        }
        Ok(target)
    }

    /// Stores everything; what it is, how many bytes were new, and for how long writers had to wait.
    fn try_into_store(&self, store: &Store, now_ms: i64) -> Result<(Manifest, u64, Duration)> {
        let before = match store.names()?.last() {
            // Without it all is read anew.
            Some(newest) => store.manifest(newest).map(|manifest| manifest.entries).unwrap_or_default(),
            None => Vec::new(),
        };
        let before: HashMap<&str, &Entry> = before.iter().map(|entry| (entry.path.as_str(), entry)).collect();
        let mut tries = 0;
        loop {
            tries += 1;
            match self.store_once(store, &before, now_ms) {
                Err(error) if has_gone(&error) && tries < TRIES => {
                    tracing::warn!(%error, "an object went while it was to be copied: the backup begins anew");
                }
                stored => return stored,
            }
        }
    }

    fn store_once(
        &self,
        store: &Store,
        before: &HashMap<&str, &Entry>,
        now_ms: i64,
    ) -> Result<(Manifest, u64, Duration)> {
        let mut pins = Pins::new(&self.data, &self.objects)?;
        pins.renew()?;
        let (snapshot, (), held) = Snapshot::take(&self.data, || pins.renew())?;
        let (pinned, held_objects) = pins.into_pinned();
        let mut copied = self.store_databases(store, &snapshot)?;
        drop(snapshot);
        copied.extend(in_parallel(&pinned, |pinned: &Pinned| store_object(store, pinned, before))?);
        drop(held_objects);
        let new_bytes = copied.iter().map(|copied| copied.new).sum();
        let head = Head {
            format: manifest::FORMAT,
            version: env!("CARGO_PKG_VERSION").into(),
            directory_format: format::of(&self.data)?,
            root: self.root.clone(),
            at_ms: now_ms,
        };
        Ok((Manifest { head, entries: copied.into_iter().map(|copied| copied.entry).collect() }, new_bytes, held))
    }

    /// Stores the databases, and what else a data directory has: the lakehouse file in force, and what the URLs begin with.
    fn store_databases(&self, store: &Store, snapshot: &Snapshot) -> Result<Vec<Copied>> {
        let mut copied = vec![store_bytes(store, ROOT_FILE, format!("{}\n", self.root).as_bytes())?];
        if let Some(project) = snapshot.document(crate::runtime::lakehouse::IN_FORCE)? {
            copied.push(store_bytes(store, PROJECT_FILE, &project)?);
        }
        if let Ok(format) = std::fs::read(self.data.join(format::FILE)) {
            copied.push(store_bytes(store, format::FILE, &format)?);
        }
        for name in DATABASES {
            let draft = store.draft();
            snapshot.copy(name, &draft)?;
            copied.push(store_database(store, name, &draft)?);
            std::fs::remove_file(&draft).context(|| format!("removing `{}`", draft.display()))?;
        }
        Ok(copied)
    }
}

/// The whole path without links, as far as it exists.
fn resolved(path: &Path) -> Result<PathBuf> {
    let absolute = std::path::absolute(path).context(|| format!("resolving the path `{}`", path.display()))?;
    let existing = absolute.ancestors().find_map(|above| Some((above, above.canonicalize().ok()?)));
    Ok(match existing {
        Some((above, real)) => real.join(absolute.strip_prefix(above).unwrap_or(Path::new(""))),
        None => absolute,
    })
}

/// The name of a backup: its time, such as `2026-01-31T06-00-00Z`.
fn name_at(now_ms: i64) -> String {
    DateTime::from_timestamp_millis(now_ms).unwrap_or_default().format("%Y-%m-%dT%H-%M-%SZ").to_string()
}
