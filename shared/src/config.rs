//! The one registry of environment variables, and the settings that they make.
//!
//! [`VARIABLES`] lists every variable that any part of Tarn reads. [`Settings`] is data, read once at start; connections, opened
//! from settings, are [`Ports`](crate::ports::Ports).

use std::path::PathBuf;

use url::Url;

use crate::model::Keys;
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
    Variable { name: "TARN_LOG", meaning: "log filter, e.g. `info` or `warn,engine=debug`", default: "info" },
    Variable { name: "TARN_LOG_FORMAT", meaning: "`json` or `text`", default: "json" },
    Variable { name: "TARN_METRICS_NAMESPACE", meaning: "CloudWatch namespace of metrics", default: "no metrics" },
];

/// The folder of objects in a data directory.
pub const OBJECTS: &str = "objects";

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

    #[test]
    fn a_bad_value_names_its_variable_and_itself() {
        let error = Settings::from_lookup(&|name| (name == "TARN_MEMORY").then(|| "lots".into())).unwrap_err();
        assert!(error.to_string().contains("TARN_MEMORY") && error.to_string().contains("`lots`"), "{error}");
    }
}
