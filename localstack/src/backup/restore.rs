//! A backup back into a data directory.
//!
//! The files are written below `.restoring/` of the directory, compared with their checksums on the way, and moved to their places
//! at the end. While the folder is there, nothing opens the directory, and another restore begins anew: a restore that is broken off
//! is never taken for a data directory. What else is done to the files is done there, too.

use std::fs::File;
use std::path::{Component, Path, PathBuf};
use std::time::Instant;

use adapters_embedded::format;
use adapters_embedded::stream::EmbeddedStream;
use serde::Serialize;
use shared::config::OBJECTS;
use shared::error::Context;
use shared::lock::DataLock;
use shared::{Error, Result};
use url::Url;

use super::copy::{fetch, in_parallel};
use super::manifest::{Entry, Manifest};
use super::relocate::relocate;
use super::store::{Store, flush};

/// The file of the lock, which the directory may hold before.
const LOCK: &str = "tarn.lock";

/// What a restore did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Restored {
    /// Name of the backup.
    pub name: String,
    pub at_ms: i64,
    pub files: u64,
    pub bytes: u64,
    /// Iceberg tables whose metadata was rewritten.
    pub relocated: u64,
    pub elapsed_ms: u64,
}

/// What to restore.
#[derive(Debug, Clone, Default)]
pub struct Wanted {
    /// Name of the backup; the newest when none is named.
    pub at: Option<String>,
    /// Exchange the URLs of the objects for those of the place that they are restored to.
    pub relocate: bool,
}

/// Restores a backup in `folder` into the directory `data`, which is new or empty.
///
/// # Errors
/// `NotFound` when there is no such backup; `Conflict` when `data` holds anything or is in use; `Invalid` for a backup of a newer
/// program; `Bug`, naming the file, for one that is damaged; `Limit` on a full disk. `data` is no data directory then, and the
/// same command can be run again.
pub async fn restore(folder: &Path, wanted: &Wanted, data: &Path, now_ms: i64) -> Result<Restored> {
    let began = Instant::now();
    let store = Store::for_reading(folder)?;
    let name = match &wanted.at {
        Some(name) => name.clone(),
        None => store.names()?.pop().ok_or_else(|| {
            Error::not_found(format!("expected a backup in `{}`, found none that was finished", folder.display()))
        })?,
    };
    let manifest = store.manifest(&name)?;
    check(&manifest, &name)?;
    let found = first_other(data)?;
    if let Some(found) = found {
        return Err(Error::conflict(format!(
            "expected an empty directory to restore into, found `{found}` in `{}`",
            data.display()
        )));
    }
    let _lock = DataLock::acquire(data, "")?;
    let restored = Restored {
        at_ms: manifest.head.at_ms,
        files: manifest.entries.len() as u64,
        bytes: manifest.bytes(),
        relocated: 0,
        name,
        elapsed_ms: 0,
    };
    let places = wanted.relocate.then(|| places(&manifest, data)).transpose()?;
    let away_ms = now_ms - manifest.head.at_ms;
    let (data, draft) = (data.to_owned(), data.join(format::RESTORING));
    let filled = blocking({
        let (data, draft) = (data.clone(), draft.clone());
        move || {
            clear(&data, &manifest)?;
            fill(&store, &manifest, &draft)?;
            Ok(manifest)
        }
    });
    let manifest = filled.await?;
    EmbeddedStream::revive(&draft.join("stream.db"), away_ms, now_ms).await?;
    let placed = blocking(move || {
        let relocated = places.map_or(Ok(0), |(from, to)| relocate(&draft, &from, &to))?;
        put_in_place(&data, &draft, &manifest)?;
        Ok(relocated)
    });
    let relocated = placed.await?;
    let elapsed_ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
    Ok(Restored { relocated, elapsed_ms, ..restored })
}

/// What the URLs of the objects begin with, and what they shall begin with in `data`.
fn places(manifest: &Manifest, data: &Path) -> Result<(Url, Url)> {
    let from = Url::parse(&manifest.head.root)
        .map_err(|e| Error::bug(format!("expected a URL, found `{}`", manifest.head.root)).with_source(e))?;
    let to = Url::from_directory_path(data.join(OBJECTS))
        .map_err(|()| Error::invalid(format!("expected a whole path, found `{}`", data.display())))?;
    Ok((from, to))
}

/// # Errors
/// `Invalid` for a backup of a directory that this program can't open; `Bug` for a path that leads elsewhere.
fn check(manifest: &Manifest, name: &str) -> Result<()> {
    let head = &manifest.head;
    if head.directory_format > format::CURRENT {
        return Err(Error::invalid(format!(
            "expected a backup of a data directory of format {} or older, found format {} in `{name}`: Tarn {} wrote it, this is Tarn {}",
            format::CURRENT,
            head.directory_format,
            head.version,
            env!("CARGO_PKG_VERSION")
        )));
    }
    let leads_out = |entry: &&Entry| !Path::new(&entry.path).components().all(|c| matches!(c, Component::Normal(_)));
    match manifest.entries.iter().find(leads_out) {
        Some(entry) => Err(Error::bug(format!("expected a path within the data directory, found `{}`", entry.path))),
        None => Ok(()),
    }
}

/// Something in the directory that no restore has left there.
fn first_other(data: &Path) -> Result<Option<String>> {
    let entries = match std::fs::read_dir(data) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        entries => entries.context(|| format!("listing `{}`", data.display()))?,
    };
    let mut names = Vec::new();
    for entry in entries {
        let entry = entry.context(|| format!("listing `{}`", data.display()))?;
        names.push(entry.file_name().to_string_lossy().into_owned());
    }
    if names.iter().any(|name| name == format::RESTORING) {
        return Ok(None);
    }
    Ok(names.into_iter().find(|name| name != LOCK && name != "lost+found"))
}

/// Removes what a restore left that was broken off.
fn clear(data: &Path, manifest: &Manifest) -> Result<()> {
    if !data.join(format::RESTORING).exists() {
        return Ok(());
    }
    for name in top_level(manifest).into_iter().chain([OBJECTS, format::RESTORING]) {
        let path = data.join(name);
        let removed = match path.is_dir() {
            true => std::fs::remove_dir_all(&path),
            false => std::fs::remove_file(&path),
        };
        match removed {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            removed => removed.context(|| format!("removing `{}`, which an earlier restore left", path.display()))?,
        }
    }
    Ok(())
}

/// The names of the files and folders that a backup has in the data directory itself.
fn top_level(manifest: &Manifest) -> Vec<&str> {
    let mut names: Vec<_> = manifest
        .entries
        .iter()
        .filter_map(|entry| entry.path.split('/').next())
        .filter(|name| *name != OBJECTS)
        .collect();
    names.sort_unstable();
    names.dedup();
    names
}

/// Writes all files below `draft`.
fn fill(store: &Store, manifest: &Manifest, draft: &Path) -> Result<()> {
    let mut folders: Vec<PathBuf> =
        manifest.entries.iter().filter_map(|entry| Some(draft.join(&entry.path).parent()?.to_owned())).collect();
    folders.push(draft.join(OBJECTS));
    folders.sort_unstable();
    folders.dedup();
    for folder in &folders {
        std::fs::create_dir_all(folder).context(|| format!("making the folder `{}`", folder.display()))?;
    }
    in_parallel(&manifest.entries, |entry| fetch(store, entry, &draft.join(&entry.path)))?;
    for folder in &folders {
        for above in folder.ancestors().take_while(|above| above.starts_with(draft)) {
            flush(above)?;
        }
    }
    Ok(())
}

/// Moves everything from `draft` to its place; the folder goes last.
fn put_in_place(data: &Path, draft: &Path, manifest: &Manifest) -> Result<()> {
    for name in top_level(manifest).into_iter().chain([OBJECTS]) {
        let (from, to) = (draft.join(name), data.join(name));
        std::fs::rename(&from, &to).context(|| format!("moving `{}` to `{}`", from.display(), to.display()))?;
    }
    flush(data)?;
    std::fs::remove_dir_all(draft).context(|| format!("removing `{}`", draft.display()))?;
    File::open(data).and_then(|folder| folder.sync_all()).context(|| format!("flushing `{}`", data.display()))
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(|e| Error::bug("a restore broke off").with_source(e))?
}
