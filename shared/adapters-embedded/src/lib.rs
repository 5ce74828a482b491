//! The ports on one machine: catalog, streams and state in SQLite files of a data directory, objects in folders.
//!
//! [`open`] opens those of a data directory, [`over`] those whose objects lie elsewhere, [`in_memory`] some that nothing outlives.
//! A file that is locked for long is `Retry`, one that can't be read `Bug`. [`format`] is the format of the directory, [`snapshot`]
//! one state of its databases, [`bodies`] the texts in them.

pub mod bodies;
pub mod catalog;
pub mod format;
pub mod snapshot;
mod sqlite;
pub mod state;
pub mod storage;
pub mod stream;

use std::sync::Arc;

use shared::catalog::AdvisoryLocks;
use shared::clock::{Clock, SystemClock};
use shared::config::{OBJECTS, Settings};
use shared::model::Keys;
use shared::ports::Ports;
use shared::random::{Random, SystemRandom};
use shared::storage::{Storage, memory_root};
use shared::{Error, Result};
use url::Url;

use self::catalog::EmbeddedCatalog;
use self::state::EmbeddedState;
use self::stream::EmbeddedStream;

/// The file of a data directory that says what the URLs of its objects begin with.
pub const ROOT_FILE: &str = "objects.url";

/// Opens the embedded adapters: SQLite files in `settings.data`, objects below `settings.warehouse`.
///
/// # Errors
/// `Denied` or `Limit` when the directory can't be written; `Invalid` for a warehouse that is no folder of this machine, and for a
/// directory of a newer format; `Conflict` for one whose restore is not finished.
pub fn open(settings: &Settings) -> Result<Ports> {
    make_folder(&settings.data)?;
    format::upgrade(&settings.data)?;
    if settings.warehouse.scheme() == "file" {
        let objects = settings.warehouse.to_file_path().map_err(|()| {
            Error::invalid(format!("expected a warehouse in a folder of this machine, found `{}`", settings.warehouse))
        })?;
        make_folder(&objects)?;
    }
    let root = first_root(settings)?;
    if root == settings.warehouse {
        return over(settings, storage::open(std::slice::from_ref(&settings.warehouse))?);
    }
    let place = settings.data.join(OBJECTS);
    tracing::info!(place = %place.display(), %root, "the data directory was copied or moved: its objects keep their URLs");
    let settings = Settings { warehouse: root.clone(), ..settings.clone() };
    over(&settings, storage::open_moved(&root, &place)?)
}

/// Opens the SQLite files in `settings.data` beside the objects in `storage`.
///
/// # Errors
/// `Denied` or `Limit` when the directory can't be written.
pub fn over(settings: &Settings, storage: Storage) -> Result<Ports> {
    make_folder(&settings.data)?;
    format::upgrade(&settings.data)?;
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    Ok(Ports {
        storage,
        stream: Arc::new(EmbeddedStream::open(&settings.data.join("stream.db"), clock.clone())?),
        catalog: Arc::new(EmbeddedCatalog::open(&settings.data.join("catalog.db"), clock.clone())?),
        state: Arc::new(EmbeddedState::open(&settings.data.join("state.db"), clock.clone())?),
        clock,
        random: Arc::new(SystemRandom),
        keys: Keys::new(settings.warehouse.clone())?,
        locks: AdvisoryLocks::across(settings.data.join("turns")),
    })
}

/// Ports in memory with `clock`, for tests and for `memory://` runs: nothing outlives them.
///
/// # Errors
/// `Bug` when SQLite can't open in memory.
pub fn in_memory(clock: Arc<dyn Clock>) -> Result<Ports> {
    in_memory_with(clock, Arc::new(SystemRandom))
}

/// As [`in_memory`], with chance that is told.
///
/// # Errors
/// As [`in_memory`].
pub fn in_memory_with(clock: Arc<dyn Clock>, random: Arc<dyn Random>) -> Result<Ports> {
    Ok(Ports {
        keys: Keys::new(memory_root())?,
        storage: Storage::in_memory(),
        stream: Arc::new(EmbeddedStream::in_memory(clock.clone())?),
        catalog: Arc::new(EmbeddedCatalog::in_memory(clock.clone())?),
        state: Arc::new(EmbeddedState::in_memory(clock.clone())?),
        clock,
        random,
        locks: AdvisoryLocks::default(),
    })
}

/// The root that the URLs of a data directory's objects began with when it was made, which is remembered in it: the URLs are stored
/// whole in its catalog and tables. A warehouse elsewhere is where it is.
///
/// # Errors
/// `Invalid` for a file that holds no URL.
pub fn first_root(settings: &Settings) -> Result<Url> {
    let own = Url::from_directory_path(settings.data.join(OBJECTS)).ok();
    if own.as_ref() != Some(&settings.warehouse) {
        return Ok(settings.warehouse.clone());
    }
    let file = settings.data.join(ROOT_FILE);
    let doing = || format!("reading `{}`", file.display());
    match std::fs::read_to_string(&file) {
        Ok(text) => {
            let url = Url::parse(text.trim()).ok().filter(|url| url.scheme() == "file" && url.path().ends_with('/'));
            url.ok_or_else(|| {
                Error::invalid(format!("expected a folder's URL, found `{}`", text.trim())).context(doing())
            })
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            // Written aside, so that a process that is killed leaves no half of it.
            let draft = settings.data.join(format!("{ROOT_FILE}.{}", std::process::id()));
            std::fs::write(&draft, format!("{}\n", settings.warehouse))
                .and_then(|()| std::fs::rename(&draft, &file))
                .map_err(|e| Error::from(e).context(format!("writing `{}`", file.display())))?;
            Ok(settings.warehouse.clone())
        }
        Err(error) => Err(Error::from(error).context(doing())),
    }
}

fn make_folder(path: &std::path::Path) -> Result<()> {
    std::fs::create_dir_all(path).map_err(|e| Error::from(e).context(format!("making the folder `{}`", path.display())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_new_data_directory_is_made_with_all_that_belongs_in_it() {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path().join("a lake/é");
        let ports = open(&Settings::embedded(&data).unwrap()).unwrap();
        let url = ports.keys.raw("weather").join("x.csv").unwrap();
        ports.storage.put(&url, "a,b").await.unwrap();
        for name in ["stream.db", "catalog.db", "state.db", "objects/raw/weather/x.csv"] {
            assert!(data.join(name).exists(), "{name}");
        }
    }

    #[tokio::test]
    async fn a_directory_that_was_copied_has_its_own_objects_under_their_first_urls() {
        let folder = tempfile::tempdir().unwrap();
        let (first, copy) = (folder.path().join("first"), folder.path().join("copy"));
        let ports = open(&Settings::embedded(&first).unwrap()).unwrap();
        let url = ports.keys.raw("weather").join("x.csv").unwrap();
        ports.storage.put(&url, "first").await.unwrap();
        assert_eq!(ports.storage.address(&url), url);

        std::fs::create_dir_all(copy.join("objects/raw/weather")).unwrap();
        for name in ["objects.url", "objects/raw/weather/x.csv"] {
            std::fs::copy(first.join(name), copy.join(name)).unwrap();
        }
        let moved = open(&Settings::embedded(&copy).unwrap()).unwrap();
        assert_eq!(moved.keys.raw("weather").join("x.csv").unwrap(), url);
        moved.storage.put(&url, "copy").await.unwrap();
        assert_eq!(
            (moved.storage.get(&url).await.unwrap(), ports.storage.get(&url).await.unwrap()),
            ("copy".into(), "first".into())
        );
        let read = std::fs::read_to_string(moved.storage.address(&url).to_file_path().unwrap()).unwrap();
        assert_eq!(read, "copy");
        moved.storage.delete(&url).await.unwrap();
        assert!(ports.storage.exists(&url).await.unwrap() && !moved.storage.exists(&url).await.unwrap());
    }

    #[tokio::test]
    async fn ports_in_memory_share_one_root() {
        let ports = in_memory(Arc::new(SystemClock)).unwrap();
        let url = ports.keys.project();
        ports.storage.put(&url, "x").await.unwrap();
        assert_eq!(ports.storage.get(&url).await.unwrap(), "x");
        assert_eq!(url.as_str(), "memory:///project/lakehouse.yaml");
    }

    #[test]
    fn a_data_directory_that_is_a_file_is_refused_with_its_path() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let error = open(&Settings::embedded(file.path()).unwrap()).unwrap_err();
        assert!(error.to_string().contains(&file.path().display().to_string()), "{error}");
    }
}
