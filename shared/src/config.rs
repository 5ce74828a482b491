//! The one registry of environment variables, and the wiring of settings to adapters.
//!
//! [`VARIABLES`] lists every variable that any part of Tarn reads. [`Settings`] is data, read once at start; [`Ports`] is
//! connections, opened from settings.

use std::path::PathBuf;
use std::sync::Arc;

use url::Url;

use crate::aws::Aws;
use crate::catalog::embedded::EmbeddedCatalog;
use crate::catalog::glue::GlueCatalog;
use crate::catalog::{Catalog, Turns};
use crate::clock::{Clock, SystemClock};
use crate::model::Keys;
use crate::state::State;
use crate::state::embedded::EmbeddedState;
use crate::state::objects::ObjectState;
use crate::storage::{Storage, memory_root};
use crate::stream::Stream;
use crate::stream::embedded::EmbeddedStream;
use crate::stream::kinesis::KinesisStream;
use crate::{Error, Result};

/// A variable: its name, what it means, its default.
#[derive(Debug, Clone, Copy)]
pub struct Variable {
    pub name: &'static str,
    pub meaning: &'static str,
    pub default: &'static str,
}

/// Every variable that Tarn reads. The AWS SDK reads its own `AWS_…` beside these.
pub const VARIABLES: &[Variable] = &[
    Variable { name: "TARN_DATA", meaning: "directory of the embedded lakehouse", default: "data" },
    Variable { name: "TARN_PROJECT", meaning: "path of the lakehouse file", default: "lakehouse.yaml" },
    Variable {
        name: "TARN_PORTS",
        meaning: "`embedded`, or `aws`: Kinesis, Glue, state in the warehouse",
        default: "embedded",
    },
    Variable {
        name: "TARN_STREAM_PREFIX",
        meaning: "what Kinesis names begin with, before a stream's own",
        default: "",
    },
    Variable { name: "TARN_WAREHOUSE", meaning: "URL below which all objects lie", default: "objects/ in TARN_DATA" },
    Variable { name: "TARN_MEMORY", meaning: "memory for queries, e.g. `1GiB`", default: "1GiB" },
    Variable { name: "TARN_SPILL", meaning: "directory that queries may spill to", default: "spill/ in TARN_DATA" },
    Variable { name: "TARN_SPILL_LIMIT", meaning: "disk that spilling may take, e.g. `8GiB`", default: "8GiB" },
    Variable { name: "TARN_LOG", meaning: "log filter, e.g. `info` or `shared=debug`", default: "info" },
    Variable { name: "TARN_LOG_FORMAT", meaning: "`json` or `text`", default: "json" },
    Variable { name: "TARN_METRICS_NAMESPACE", meaning: "CloudWatch namespace of metrics", default: "no metrics" },
];

/// The folder of objects in a data directory.
const OBJECTS: &str = "objects";
/// The file of a data directory that says what the URLs of its objects begin with.
const ROOT_FILE: &str = "objects.url";

/// Where environment values come from; a closure in tests.
pub type Lookup<'a> = &'a dyn Fn(&str) -> Option<String>;

/// Where streams, catalog and state are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Backend {
    /// In SQLite files of the data directory.
    Embedded,
    /// In Kinesis, in Glue, and as objects below `state/` in the warehouse.
    Aws,
}

/// What the environment says, validated.
#[derive(Debug, Clone)]
pub struct Settings {
    pub place: Backend,
    /// What the names of streams in Kinesis begin with.
    pub stream_prefix: String,
    /// Directory of the embedded adapters.
    pub data: PathBuf,
    pub project: PathBuf,
    /// Root of all objects, with a final slash.
    pub warehouse: Url,
    /// Bytes that queries may hold in memory.
    pub memory: u64,
    pub spill: PathBuf,
    /// Bytes that queries may spill to disk.
    pub spill_limit: u64,
}

impl Settings {
    /// Reads the process's environment.
    ///
    /// # Errors
    /// `Invalid`, with the variable's name, its value and what was expected.
    pub fn from_env() -> Result<Self> {
        Self::from_lookup(&|name| std::env::var(name).ok())
    }

    /// Reads from any source of values.
    ///
    /// # Errors
    /// As [`Settings::from_env`].
    pub fn from_lookup(lookup: Lookup<'_>) -> Result<Self> {
        let text = |name: &str| lookup(name).filter(|v| !v.is_empty());
        let data = absolute(text("TARN_DATA").unwrap_or_else(|| "data".into()))?;
        let warehouse = match text("TARN_WAREHOUSE") {
            Some(value) => Url::parse(&value)
                .map_err(|e| bad("TARN_WAREHOUSE", &value, "a URL such as `s3://bucket/prefix/`").with_source(e))?,
            None => Url::from_directory_path(data.join(OBJECTS))
                .map_err(|()| bad("TARN_DATA", &data.display().to_string(), "a directory"))?,
        };
        let size = |name: &str, default: &str| -> Result<u64> {
            let value = text(name).unwrap_or_else(|| default.into());
            value
                .parse::<crate::project::ByteSize>()
                .map(|size| size.0)
                .map_err(|_| bad(name, &value, "a size such as `512MiB` or `2GiB`"))
        };
        let place = match text("TARN_PORTS").as_deref() {
            None | Some("embedded") => Backend::Embedded,
            Some("aws") => Backend::Aws,
            Some(other) => return Err(bad("TARN_PORTS", other, "`embedded` or `aws`")),
        };
        if place == Backend::Aws && warehouse.scheme() != "s3" {
            return Err(bad("TARN_WAREHOUSE", warehouse.as_str(), "an `s3://` URL, as TARN_PORTS is `aws`"));
        }
        Ok(Self {
            place,
            stream_prefix: text("TARN_STREAM_PREFIX").unwrap_or_default(),
            project: absolute(text("TARN_PROJECT").unwrap_or_else(|| "lakehouse.yaml".into()))?,
            warehouse: Keys::new(warehouse)?.root().clone(),
            memory: size("TARN_MEMORY", "1GiB")?,
            spill: text("TARN_SPILL").map_or_else(|| Ok(data.join("spill")), absolute)?,
            spill_limit: size("TARN_SPILL_LIMIT", "8GiB")?,
            data,
        })
    }

    /// Settings of an embedded lakehouse in `data`, everything else at its default.
    ///
    /// # Errors
    /// `Invalid` when `data` is no path.
    pub fn embedded(data: &std::path::Path) -> Result<Self> {
        let data = data.display().to_string();
        Self::from_lookup(&|name| (name == "TARN_DATA").then(|| data.clone()))
    }
}

/// The connections that every function works through. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Ports {
    pub storage: Storage,
    pub stream: Arc<dyn Stream>,
    pub catalog: Arc<dyn Catalog>,
    pub state: Arc<dyn State>,
    pub clock: Arc<dyn Clock>,
    pub keys: Keys,
    /// Shared by all that change tables in this process, and embedded with other processes over the same data.
    pub turns: Turns,
}

impl Ports {
    /// Opens the adapters that the settings name. On AWS nothing is called yet.
    ///
    /// # Errors
    /// `Denied` or `Limit` when the directory can't be written; `Invalid` when AWS is named without a region.
    pub async fn connect(settings: &Settings) -> Result<Self> {
        if settings.warehouse.scheme() != "s3" {
            return Self::open(settings);
        }
        Self::through(&Aws::load().await?, settings)
    }

    /// As [`Ports::connect`] for a warehouse on S3, through `aws`.
    ///
    /// # Errors
    /// As [`Ports::connect`].
    pub fn through(aws: &Aws, settings: &Settings) -> Result<Self> {
        let storage = Storage::connect(std::slice::from_ref(&settings.warehouse), Some(aws))?;
        if settings.place == Backend::Embedded {
            make_folder(&settings.data)?;
            return Self::embedded(settings, storage);
        }
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let keys = Keys::new(settings.warehouse.clone())?;
        Ok(Self {
            stream: Arc::new(KinesisStream::new(aws, &settings.stream_prefix, clock.clone())),
            catalog: Arc::new(GlueCatalog::new(aws)),
            state: Arc::new(ObjectState::new(storage.clone(), keys.state())),
            storage,
            clock,
            keys,
            turns: Turns::default(),
        })
    }

    /// Opens the embedded adapters: SQLite files in `settings.data`, objects below `settings.warehouse`.
    ///
    /// # Errors
    /// `Denied` or `Limit` when the directory can't be written; `Invalid` for a warehouse on S3, which [`Ports::connect`] opens.
    pub fn open(settings: &Settings) -> Result<Self> {
        make_folder(&settings.data)?;
        if settings.warehouse.scheme() == "file" {
            let objects = settings.warehouse.to_file_path().map_err(|()| {
                Error::invalid(format!(
                    "expected a warehouse in a folder of this machine, found `{}`",
                    settings.warehouse
                ))
            })?;
            make_folder(&objects)?;
        }
        let root = first_root(settings)?;
        if root == settings.warehouse {
            return Self::embedded(settings, Storage::open(std::slice::from_ref(&settings.warehouse))?);
        }
        let place = settings.data.join(OBJECTS);
        tracing::info!(place = %place.display(), %root, "the data directory was copied or moved: its objects keep their URLs");
        let settings = Settings { warehouse: root.clone(), ..settings.clone() };
        Self::embedded(&settings, Storage::open_moved(&root, &place)?)
    }

    fn embedded(settings: &Settings, storage: Storage) -> Result<Self> {
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        Ok(Self {
            storage,
            stream: Arc::new(EmbeddedStream::open(&settings.data.join("stream.db"), clock.clone())?),
            catalog: Arc::new(EmbeddedCatalog::open(&settings.data.join("catalog.db"), clock.clone())?),
            state: Arc::new(EmbeddedState::open(&settings.data.join("state.db"), clock.clone())?),
            clock,
            keys: Keys::new(settings.warehouse.clone())?,
            turns: Turns::across(settings.data.join("turns")),
        })
    }

    /// Ports in memory with `clock`, for tests and for `memory://` runs: nothing outlives them.
    ///
    /// # Errors
    /// `Bug` when SQLite can't open in memory.
    pub fn in_memory(clock: Arc<dyn Clock>) -> Result<Self> {
        Ok(Self {
            keys: Keys::new(memory_root())?,
            storage: Storage::in_memory(),
            stream: Arc::new(EmbeddedStream::in_memory(clock.clone())?),
            catalog: Arc::new(EmbeddedCatalog::in_memory(clock.clone())?),
            state: Arc::new(EmbeddedState::in_memory(clock.clone())?),
            clock,
            turns: Turns::default(),
        })
    }
}

/// The root that the URLs of a data directory's objects began with when it was made, which is remembered in it: the URLs are stored
/// whole in its catalog and tables. A warehouse elsewhere is where it is.
///
/// # Errors
/// `Invalid` for a file that holds no URL.
fn first_root(settings: &Settings) -> Result<Url> {
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

fn absolute(path: impl Into<PathBuf>) -> Result<PathBuf> {
    let path = path.into();
    let absolute = std::path::absolute(&path)
        .map_err(|e| Error::from(e).context(format!("resolving the path `{}`", path.display())))?;
    Ok(without_parents(&absolute))
}

/// The path without `..`, which URLs can't have: as the file system follows it where it exists (a folder may be a link), else as it
/// is written.
fn without_parents(path: &std::path::Path) -> PathBuf {
    let mut plain = PathBuf::new();
    for part in path.components() {
        if part == std::path::Component::ParentDir {
            plain = plain.canonicalize().unwrap_or(plain);
            plain.pop();
        } else {
            plain.push(part);
        }
    }
    plain
}

fn bad(name: &str, value: &str, expected: &str) -> Error {
    Error::invalid(format!("environment variable {name}: expected {expected}, found `{value}`"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_lie_in_the_data_directory() {
        let settings = Settings::embedded(std::path::Path::new("/lake")).unwrap();
        assert_eq!(settings.warehouse.as_str(), "file:///lake/objects/");
        assert_eq!(settings.spill, PathBuf::from("/lake/spill"));
        assert_eq!(settings.memory, 1 << 30);
    }

    #[test]
    fn a_path_may_climb() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().canonicalize().unwrap();
        std::fs::create_dir_all(root.join("a/b")).unwrap();
        std::os::unix::fs::symlink(root.join("a/b"), root.join("link")).unwrap();
        for (path, expected) in [("a/../c", "c"), ("a/b/../../c", "c"), ("new/../c", "c"), ("link/../c", "a/c")] {
            let settings = Settings::embedded(&root.join(path)).unwrap();
            assert_eq!(settings.data, root.join(expected), "{path}");
            assert!(!settings.warehouse.as_str().contains(".."), "{}", settings.warehouse);
        }
    }

    #[test]
    fn the_page_of_the_configuration_has_every_variable() {
        let page = include_str!("../../docs/configuration.md");
        for Variable { name, meaning, default } in VARIABLES {
            let row = format!("| `{name}` | {meaning} | {default} |");
            assert!(page.contains(&row), "docs/configuration.md: expected the row {row}");
        }
    }

    #[tokio::test]
    async fn a_new_data_directory_is_made_with_all_that_belongs_in_it() {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path().join("a lake/é");
        let ports = Ports::open(&Settings::embedded(&data).unwrap()).unwrap();
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
        let ports = Ports::open(&Settings::embedded(&first).unwrap()).unwrap();
        let url = ports.keys.raw("weather").join("x.csv").unwrap();
        ports.storage.put(&url, "first").await.unwrap();
        assert_eq!(ports.storage.address(&url), url);

        std::fs::create_dir_all(copy.join("objects/raw/weather")).unwrap();
        for name in ["objects.url", "objects/raw/weather/x.csv"] {
            std::fs::copy(first.join(name), copy.join(name)).unwrap();
        }
        let moved = Ports::open(&Settings::embedded(&copy).unwrap()).unwrap();
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
        let ports = Ports::in_memory(Arc::new(SystemClock)).unwrap();
        let url = ports.keys.project();
        ports.storage.put(&url, "x").await.unwrap();
        assert_eq!(ports.storage.get(&url).await.unwrap(), "x");
        assert_eq!(url.as_str(), "memory:///project/lakehouse.yaml");
    }

    #[test]
    fn a_data_directory_that_is_a_file_is_refused_with_its_path() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let error = Ports::open(&Settings::embedded(file.path()).unwrap()).unwrap_err();
        assert!(error.to_string().contains(&file.path().display().to_string()), "{error}");
    }

    #[test]
    fn a_bad_value_names_its_variable_and_itself() {
        let error = Settings::from_lookup(&|name| (name == "TARN_MEMORY").then(|| "lots".into())).unwrap_err();
        assert!(error.to_string().contains("TARN_MEMORY") && error.to_string().contains("`lots`"), "{error}");
    }
}
