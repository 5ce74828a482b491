//! Which files are a table's, told in one place for crawls, scans and bookmarks.
//!
//! A table of files is every file below its folder, but for hidden ones and those that its location excludes. What a crawl found
//! and could not take for the table's is remembered in its definition: such a file is not read, and leaving it out would be a
//! wrong answer, so that listing the table is an error that names it. These parameters of the table say so:
//!
//! | parameter | value | meaning |
//! |---|---|---|
//! | `exclusions` | `["**/*.bak"]` | glob patterns, relative to the crawled location, of files that are not the table's |
//! | `tarn.path` | `sales/` | the table's place relative to the crawled location (absent: patterns are relative to the table) |
//! | `tarn.refused` | `{"sales/b.csv": {"mark": …, "why": …}}` | files (or, with a final slash, folders) that a crawl left out |

use std::collections::BTreeMap;

use futures::TryStreamExt;
use globset::{Glob, GlobSet, GlobSetBuilder};
use object_store::path::Path;
use object_store::{ObjectMeta, ObjectStore, ObjectStoreExt};
use serde::{Deserialize, Serialize};
use url::Url;

use super::folders::below_folder;
use super::is_hidden;
use shared::catalog::TableInput;
use shared::digest::sha256_hex;
use shared::error::Context;
use shared::model::TableName;
use shared::storage::Storage;
use shared::{Error, Result};

/// Parameter with the patterns of excluded files.
pub const EXCLUSIONS: &str = "exclusions";
/// Parameter with the table's place in its location.
pub const PATH: &str = "tarn.path";
/// Parameter with the files that a crawl left out.
pub const REFUSED: &str = "tarn.refused";

/// Files that a definition remembers by name; the rest are one entry, the folder that holds them.
const MAX_REFUSED: usize = 100;
/// Characters of a reason that a definition keeps.
const MAX_REASON: usize = 200;

/// Folders of logs, which list the files of a table that count, and whose they are.
const LOGS: [(&str, &str); 2] = [("_delta_log", "a Delta Lake table"), (".hoodie", "an Apache Hudi table")];

/// The folder (with a final slash, empty for the top) that is a table with a log, and which kind, if the file at `path` is of the log.
pub fn log_of(path: &str) -> Option<(&str, &'static str)> {
    let mut start = 0;
    for segment in path.split('/') {
        if let Some((_, kind)) = LOGS.iter().find(|(log, _)| *log == segment) {
            return Some((&path[..start], kind));
        }
        start += segment.len() + 1;
    }
    None
}

/// What tells an object from what was under its name before.
pub fn mark(etag: Option<&str>, size: u64, modified_ms: i64) -> String {
    let identity = format!("{}|{size}|{modified_ms}", etag.unwrap_or_default());
    sha256_hex(identity, 8)
}

/// A file that a crawl left out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RefusedFile {
    /// [`mark`]: a file that was replaced since is another file. Empty for a folder.
    #[serde(default)]
    pub mark: String,
    pub why: String,
}

/// The parameter's text for these files, by path relative to the location; `None` for no files. Past [`MAX_REFUSED`], the folder
/// that holds the others stands for them.
pub fn refused_parameter(files: &BTreeMap<String, RefusedFile>) -> Option<String> {
    let short = |file: &RefusedFile| RefusedFile { why: file.why.chars().take(MAX_REASON).collect(), ..file.clone() };
    let mut kept: BTreeMap<_, _> =
        files.iter().take(MAX_REFUSED).map(|(path, file)| (path.clone(), short(file))).collect();
    let more = files.len() - kept.len();
    if more > 0 {
        let first = files.values().nth(MAX_REFUSED).map(|file| short(file).why).unwrap_or_default();
        let why = format!("{more} files, the first of them: {first}");
        kept.insert(folder_of_all(files.keys().skip(MAX_REFUSED)), RefusedFile { mark: String::new(), why });
    }
    (!kept.is_empty()).then(|| serde_json::json!(kept).to_string())
}

/// The deepest folder that holds all the paths, with a final slash; empty for the location itself.
fn folder_of_all<'a>(mut paths: impl Iterator<Item = &'a String>) -> String {
    let folder = |path: &str| path.rsplit_once('/').map_or(String::new(), |(folder, _)| format!("{folder}/"));
    let first = paths.next().map_or(String::new(), |path| folder(path));
    paths.fold(first, |mut all, path| {
        while !path.starts_with(&all) {
            all = folder(all.trim_end_matches('/'));
        }
        all
    })
}

/// A file of a table.
#[derive(Debug, Clone)]
pub struct ListedFile {
    pub url: Url,
    pub meta: ObjectMeta,
}

/// A file or folder of a table that a crawl left out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeftOut {
    /// The folder that it lies in, as a path in the table.
    pub folder: String,
    pub url: Url,
}

/// What a table's definition says of its files.
#[derive(Debug, Clone)]
pub struct TableFiles {
    table: TableName,
    /// The table's folder or file.
    location: String,
    /// That relative to the crawled location.
    path: String,
    filter: FileFilter,
    refused: BTreeMap<String, RefusedFile>,
}

impl TableFiles {
    /// # Errors
    /// `Invalid` when a parameter of the definition means nothing.
    pub fn of(input: &TableInput) -> Result<Self> {
        let refused = match input.parameters.get(REFUSED) {
            None => BTreeMap::new(),
            Some(text) => serde_json::from_str(text).map_err(|e| {
                Error::invalid(format!("table `{}`: expected `{REFUSED}` to be JSON, found `{text}`", input.name))
                    .with_source(e)
            })?,
        };
        Ok(Self {
            table: input.name.clone(),
            location: input.storage.location.clone(),
            path: input.parameters.get(PATH).cloned().unwrap_or_default(),
            filter: FileFilter::from_table(input)?,
            refused,
        })
    }

    /// Every file of the table below the folder, or the one file that the folder's name is, in order; empty ones apart.
    ///
    /// # Errors
    /// `Invalid`, naming it, for a file that a crawl left out, and for a folder whose log says which files count.
    pub async fn list(&self, storage: &Storage, folder: &Url) -> Result<Vec<ListedFile>> {
        let (store, prefix) = storage.resolve(folder)?;
        let mut metas: Vec<ObjectMeta> =
            store.list(Some(&prefix)).try_collect().await.context(|| format!("listing `{folder}`"))?;
        if metas.is_empty() {
            match store.head(&prefix).await {
                Ok(file) => metas.push(file),
                Err(object_store::Error::NotFound { .. }) => {}
                Err(error) => return Err(Error::from(error).context(format!("listing `{folder}`"))),
            }
        }
        metas.sort_by(|a, b| a.location.cmp(&b.location));
        let base = self.base(storage, &prefix)?;
        let mut files = Vec::with_capacity(metas.len());
        for meta in metas {
            let path = self.path_of(&base, &meta.location);
            if let Some((folder, kind)) = log_of(&path) {
                return Err(self.logged(folder, kind));
            }
            if meta.size > 0 && self.filter.includes(&path) {
                self.check(&path, &meta)?;
                files.push(ListedFile { url: url_of(folder, &meta.location), meta });
            }
        }
        Ok(files)
    }

    /// What a crawl left out and no listing of `partitions`, the table's, would show.
    ///
    /// # Errors
    /// `Invalid` when the table's location is no URL.
    pub fn left_out_beside(&self, partitions: &[Url]) -> Result<Vec<LeftOut>> {
        let table = Url::parse(&self.location)
            .map_err(|e| Error::invalid(format!("expected a URL, found `{}`", self.location)).with_source(e))?;
        let covers = |partition: &Url, url: &Url| {
            url.as_str().starts_with(&format!("{}/", partition.as_str().trim_end_matches('/')))
        };
        let mut beside = Vec::new();
        for path in self.refused.keys() {
            let below = match path.strip_prefix(&self.path) {
                Some(below) => below,
                None if self.path.starts_with(path) => "",
                None => continue,
            };
            let url = below_folder(&table, below);
            if !partitions.iter().any(|partition| covers(partition, &url)) {
                let folder = below.rsplit_once('/').map_or("", |(folder, _)| folder);
                beside.push(LeftOut { folder: folder.to_owned(), url });
            }
        }
        Ok(beside)
    }

    /// Fails while what a crawl left out is still there, as a listing does.
    ///
    /// # Errors
    /// As [`TableFiles::list`].
    pub async fn refuse(&self, storage: &Storage, left_out: &LeftOut) -> Result<()> {
        self.list(storage, &left_out.url).await.map(drop)
    }

    /// What paths are relative to: the table's own place; of a partition that lies elsewhere, the partition's.
    fn base(&self, storage: &Storage, folder: &Path) -> Result<Path> {
        let own = Url::parse(&self.location).ok().and_then(|url| storage.resolve(&url).ok()).map(|(_, path)| path);
        Ok(own.filter(|own| folder.prefix_matches(own)).unwrap_or_else(|| folder.clone()))
    }

    /// The path of a file relative to the crawled location.
    fn path_of(&self, base: &Path, file: &Path) -> String {
        let below = file.as_ref().strip_prefix(base.as_ref()).unwrap_or(file.as_ref()).trim_start_matches('/');
        if below.is_empty() && self.path.is_empty() {
            return file.filename().unwrap_or_default().to_owned();
        }
        format!("{}{below}", self.path)
    }

    fn check(&self, path: &str, meta: &ObjectMeta) -> Result<()> {
        let now = || mark(meta.e_tag.as_deref(), meta.size, meta.last_modified.timestamp_millis());
        let found = self.refused.iter().find(|(refused, file)| match refused.ends_with('/') || refused.is_empty() {
            true => path.starts_with(refused.as_str()),
            false => *refused == path && file.mark == now(),
        });
        match found {
            None => Ok(()),
            Some((refused, file)) => Err(Error::invalid(format!(
                "table `{}`: its crawl left out `{refused}`, so that an answer would lack what it holds: {}; move it away or name \
                 it in the location's `exclude`, then crawl again",
                self.table, file.why
            ))),
        }
    }

    fn logged(&self, folder: &str, kind: &str) -> Error {
        let folder = if folder.is_empty() { "/" } else { folder };
        Error::invalid(format!(
            "table `{}`: expected files that are all the table's, found {kind} in `{folder}`, whose log lists the files that count",
            self.table
        ))
    }
}

fn url_of(folder: &Url, location: &Path) -> Url {
    let mut url = folder.clone();
    if let Ok(mut segments) = url.path_segments_mut() {
        segments.clear().extend(location.parts().map(|part| part.as_ref().to_owned()));
    }
    url
}

/// Which files below a crawled location are its tables': not hidden ones, not those that patterns exclude.
#[derive(Debug, Clone)]
pub struct FileFilter {
    excluded: GlobSet,
}

impl FileFilter {
    /// What the table's parameter `exclusions` says.
    ///
    /// # Errors
    /// `Invalid` when it is not a JSON array of glob patterns.
    pub fn from_table(input: &TableInput) -> Result<Self> {
        let Some(text) = input.parameters.get(EXCLUSIONS) else { return Self::new::<&str>(&[]) };
        let patterns: Vec<String> = serde_json::from_str(text).map_err(|e| {
            Error::invalid(format!("expected `exclusions` to be a JSON array of patterns, found `{text}`"))
                .with_source(e)
        })?;
        Self::new(&patterns)
    }

    /// # Errors
    /// `Invalid` when a pattern is no glob.
    pub fn new<P: AsRef<str>>(patterns: &[P]) -> Result<Self> {
        let bad = |pattern: &str, e| {
            Error::invalid(format!("expected a glob pattern such as `**/*.bak`, found `{pattern}`")).with_source(e)
        };
        let mut set = GlobSetBuilder::new();
        for pattern in patterns {
            let pattern = pattern.as_ref();
            set.add(Glob::new(pattern).map_err(|e| bad(pattern, e))?);
        }
        let excluded = set.build().map_err(|e| bad("these together", e))?;
        Ok(Self { excluded })
    }

    /// Whether the file at `path`, relative to the location and decoded, is the table's.
    pub fn includes(&self, path: &str) -> bool {
        !path.split('/').any(is_hidden) && !self.excluded.is_match(path)
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use shared::catalog::StorageDescriptor;

    fn table(parameters: &[(&str, &str)]) -> TableInput {
        TableInput {
            name: TableName::new("db", "t").unwrap(),
            description: None,
            table_type: "EXTERNAL_TABLE".into(),
            parameters: parameters.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect(),
            storage: StorageDescriptor { location: "memory:///raw/loc/t/".into(), ..StorageDescriptor::default() },
            partition_keys: Vec::new(),
        }
    }

    async fn lake(paths: &[&str]) -> Storage {
        let storage = Storage::in_memory();
        for path in paths {
            let url = Url::parse("memory:///raw/loc/").unwrap().join(path).unwrap();
            storage.put(&url, Bytes::from_static(b"x")).await.unwrap();
        }
        storage
    }

    async fn listed(storage: &Storage, parameters: &[(&str, &str)], folder: &str) -> Result<Vec<String>> {
        let folder = Url::parse("memory:///raw/loc/").unwrap().join(folder).unwrap();
        let files = TableFiles::of(&table(parameters)).unwrap().list(storage, &folder).await?;
        Ok(files.into_iter().map(|file| file.meta.location.to_string()).collect())
    }

    #[test]
    fn hidden_and_excluded_files_are_not_the_tables() {
        let filter = FileFilter::new(&["**/*.bak"]).unwrap();
        assert!(filter.includes("2013/a.csv"));
        for out in ["_SUCCESS", "2013/.a.csv.crc", "_temporary/0/a.csv", "2013/a.bak", "a.bak"] {
            assert!(!filter.includes(out), "{out}");
        }
        assert!(FileFilter::new(&["a["]).unwrap_err().to_string().contains("`a[`"));
    }

    #[tokio::test]
    async fn patterns_are_relative_to_the_crawled_location_for_tables_and_partitions_alike() {
        let storage = lake(&["t/k=1/a.csv", "t/k=2/old/b.csv", "t/k=2/b.csv"]).await;
        for patterns in ["[\"t/k=2/old/**\"]", "[\"t/*/old/*\"]", "[\"**/old/**\"]"] {
            let parameters = [(EXCLUSIONS, patterns), (PATH, "t/")];
            assert_eq!(
                listed(&storage, &parameters, "t/").await.unwrap(),
                ["raw/loc/t/k=1/a.csv", "raw/loc/t/k=2/b.csv"]
            );
            assert_eq!(listed(&storage, &parameters, "t/k=2/").await.unwrap(), ["raw/loc/t/k=2/b.csv"]);
        }
        let of_table = [(EXCLUSIONS, "[\"k=1/*\"]")];
        assert_eq!(listed(&storage, &of_table, "t/").await.unwrap().len(), 2, "without a path, to the table");
    }

    #[tokio::test]
    async fn a_file_that_a_crawl_left_out_is_an_error_until_it_is_replaced_or_gone() {
        let storage = lake(&["t/a.csv", "t/b.csv"]).await;
        let b = Url::parse("memory:///raw/loc/t/b.csv").unwrap();
        let info = storage.head(&b).await.unwrap();
        let refused = RefusedFile {
            mark: mark(info.etag.as_deref(), info.size, info.modified_ms),
            why: "expected the delimiter `,`, found `;`".into(),
        };
        let text = refused_parameter(&BTreeMap::from([("t/b.csv".to_owned(), refused)])).unwrap();
        let parameters = [(REFUSED, text.as_str()), (PATH, "t/")];
        let error = listed(&storage, &parameters, "t/").await.unwrap_err().to_string();
        assert!(error.contains("`t/b.csv`") && error.contains("found `;`"), "{error}");
        storage.put(&b, Bytes::from_static(b"another")).await.unwrap();
        assert_eq!(listed(&storage, &parameters, "t/").await.unwrap().len(), 2);
        assert_eq!(refused_parameter(&BTreeMap::new()), None);
    }

    #[test]
    fn more_files_than_are_remembered_refuse_the_folder_that_holds_them() {
        let file = |why: &str| RefusedFile { mark: "m".into(), why: why.into() };
        let mut files: BTreeMap<String, RefusedFile> =
            (0..MAX_REFUSED).map(|n| (format!("t/a/{n:04}"), file("odd"))).collect();
        files.insert("t/b/1.json".into(), file("JSON"));
        files.insert("t/b/c/2.json".into(), file("JSON"));
        let kept: BTreeMap<String, RefusedFile> = serde_json::from_str(&refused_parameter(&files).unwrap()).unwrap();
        assert_eq!(kept.len(), MAX_REFUSED + 1);
        assert_eq!(kept["t/b/"].why, "2 files, the first of them: JSON");
        assert_eq!(folder_of_all(["a/x".to_owned(), "b/y".to_owned()].iter()), "");
    }

    #[test]
    fn what_was_left_out_lies_beside_the_partitions_or_in_one() {
        let of = |refused: &str| {
            let entry = serde_json::json!({refused: {"mark": "", "why": "odd"}}).to_string();
            TableFiles::of(&table(&[(REFUSED, &entry), (PATH, "t/")])).unwrap()
        };
        let partitions = [Url::parse("memory:///raw/loc/t/k=1").unwrap()];
        let beside = |refused: &str| {
            let found = of(refused).left_out_beside(&partitions).unwrap();
            found.into_iter().map(|left_out| (left_out.folder, left_out.url.path().to_owned())).next()
        };
        let found = |folder: &str, path: &str| Some((folder.to_owned(), path.to_owned()));
        assert_eq!(beside("t/k=1/a.csv"), None);
        assert_eq!(beside("t/k=10/a.csv"), found("k=10", "/raw/loc/t/k=10/a.csv"));
        assert_eq!(beside("t/"), found("", "/raw/loc/t/"));
        assert_eq!(beside(""), found("", "/raw/loc/t/"), "what holds the table");
        assert_eq!(beside("u/a.csv"), None, "another table's");
    }

    #[tokio::test]
    async fn a_folder_with_a_log_is_refused_by_name() {
        for (log, kind) in [("_delta_log/00.json", "Delta Lake"), (".hoodie/hoodie.properties", "Hudi")] {
            let storage = lake(&["t/a.parquet", &format!("t/{log}")]).await;
            let error = listed(&storage, &[(PATH, "t/")], "t/").await.unwrap_err().to_string();
            assert!(error.contains(kind) && error.contains("`t/`"), "{error}");
        }
        assert_eq!(log_of("a/_delta_log/0.json"), Some(("a/", "a Delta Lake table")));
        assert_eq!(log_of("_delta_log/0.json"), Some(("", "a Delta Lake table")));
        assert_eq!(log_of("a/b.parquet"), None);
    }

    #[tokio::test]
    async fn a_table_may_be_one_file() {
        let storage = lake(&["planes.csv"]).await;
        let mut input = table(&[(PATH, "planes.csv")]);
        input.storage.location = "memory:///raw/loc/planes.csv".into();
        let folder = Url::parse("memory:///raw/loc/planes.csv/").unwrap();
        assert_eq!(TableFiles::of(&input).unwrap().list(&storage, &folder).await.unwrap().len(), 1);
    }
}
