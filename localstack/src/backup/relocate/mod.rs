//! URLs that begin with the place that a data directory was made in, exchanged for those of the place that it is restored to: in the
//! catalog, in the state, and in all metadata of Iceberg tables, so that every engine finds their files there.
//!
//! Iceberg names files by whole URLs: metadata files name manifest lists, those manifests, those data files and delete files; and
//! position deletes and deletion vectors name data files. Lists also hold the sizes of manifests, manifests those of delete files,
//! which change with the names in them. So a table is rewritten from its delete files up, in place: the files are those of a
//! restore that nobody has opened yet. What Spark's procedure `rewrite_table_path` does is the model.

mod avro;
mod deletes;

use std::collections::{BTreeSet, HashMap};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use adapters_embedded::ROOT_FILE;
use adapters_embedded::bodies::{self, Body};
use avro::{Container, Datum};
use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use percent_encoding::percent_decode_str;
use serde_json::Value;
use shared::config::OBJECTS;
use shared::error::Context;
use shared::{Error, Result};
use url::Url;

/// The id of the column of position deletes that names a data file.
const DELETED_PATH: i64 = 2_147_483_546;
const GZIP: [u8; 2] = [0x1f, 0x8b];
/// What a data file of this content holds.
const POSITION_DELETES: i64 = 1;

/// Places of URLs in JSON: where a `*` stands, any item or field.
const IN_METADATA: [&str; 8] = [
    "location",
    "snapshots/*/manifest-list",
    "snapshots/*/manifests/*",
    "metadata-log/*/metadata-file",
    "statistics/*/statistics-path",
    "partition-statistics/*/statistics-path",
    "properties/write.data.path",
    "properties/write.metadata.path",
];
const IN_DATABASE: [&str; 1] = ["location"];
const IN_TABLE: [&str; 3] =
    ["storage/location", "parameters/metadata_location", "parameters/previous_metadata_location"];
const IN_PARTITION: [&str; 1] = ["storage/location"];

/// What URLs begin with, and what they shall begin with: in each form that a URL is written in.
#[derive(Debug, Clone)]
pub(super) struct Urls(Vec<(String, String)>);

impl Urls {
    /// # Errors
    /// `Invalid` for URLs that are no folder's.
    pub(super) fn new(from: &Url, to: &Url) -> Result<Self> {
        let decoded = |url: &Url| {
            let path = percent_decode_str(url.path()).decode_utf8().map(std::borrow::Cow::into_owned);
            path.map_err(|e| Error::invalid(format!("expected a folder's URL, found `{url}`")).with_source(e))
        };
        let (from_path, to_path) = (decoded(from)?, decoded(to)?);
        let form = |prefix: &str| (format!("{prefix}{from_path}"), format!("{prefix}{to_path}"));
        Ok(Self(vec![(from.to_string(), to.to_string()), form("file://"), form("file:"), form("")]))
    }

    /// The URL in the new place; `None` when it does not lie in the old one.
    fn moved(&self, url: &str) -> Option<String> {
        self.0.iter().find_map(|(from, to)| Some(format!("{to}{}", url.strip_prefix(from.as_str())?)))
    }

    /// The path below the old place.
    fn below<'a>(&self, url: &'a str) -> Option<&'a str> {
        self.0.iter().find_map(|(from, _)| url.strip_prefix(from.as_str()))
    }
}

/// Exchanges the URLs of what lies in the folder `data`, which nobody has opened; gives the number of Iceberg tables.
///
/// # Errors
/// `Invalid` for a table whose files can't be rewritten here, with its metadata file; what reading and writing answer.
pub(super) fn relocate(data: &Path, from: &Url, to: &Url) -> Result<u64> {
    let urls = Urls::new(from, to)?;
    let mut metadata = BTreeSet::new();
    bodies::edit(data, |body, bytes| edited(body, bytes, &urls, &mut metadata))?;
    let mut tables = Tables { urls: &urls, objects: data.join(OBJECTS), rewritten: HashMap::new() };
    let mut count = 0;
    for location in metadata {
        let table = tables.table(&location);
        count += u64::from(table.context(|| format!("rewriting the table with the metadata `{location}`"))?);
    }
    let file = data.join(ROOT_FILE);
    std::fs::write(&file, format!("{to}\n")).context(|| format!("writing `{}`", file.display()))?;
    Ok(count)
}

/// A text of catalog or state with its URLs exchanged; notes where the metadata of tables lies.
fn edited(body: Body<'_>, bytes: &[u8], urls: &Urls, metadata: &mut BTreeSet<String>) -> Result<Option<Vec<u8>>> {
    // A state document need not be JSON.
    let Ok(mut value) = serde_json::from_slice::<Value>(bytes) else { return Ok(None) };
    let changed = match body {
        Body::Database => exchange(&mut value, &IN_DATABASE, urls),
        Body::Partition => exchange(&mut value, &IN_PARTITION, urls),
        Body::Document(_) => exchange_all(&mut value, urls),
        Body::Table => {
            metadata.extend(value["parameters"]["metadata_location"].as_str().map(str::to_owned));
            exchange(&mut value, &IN_TABLE, urls)
        }
    };
    if !changed {
        return Ok(None);
    }
    let bytes = serde_json::to_vec(&value);
    bytes.map(Some).map_err(|e| Error::bug("a document has no JSON form").with_source(e))
}

/// Exchanges the URLs at `places`; says whether there were any.
fn exchange(value: &mut Value, places: &[&str], urls: &Urls) -> bool {
    let mut changed = false;
    for place in places {
        changed |= exchange_at(value, &place.split('/').collect::<Vec<_>>(), urls);
    }
    changed
}

fn exchange_at(value: &mut Value, place: &[&str], urls: &Urls) -> bool {
    match (place, value) {
        ([], Value::String(url)) => match urls.moved(url) {
            Some(moved) => {
                *url = moved;
                true
            }
            None => false,
        },
        (["*", rest @ ..], Value::Array(items)) => {
            items.iter_mut().fold(0, |count, item| count + u32::from(exchange_at(item, rest, urls))) > 0
        }
        ([name, rest @ ..], Value::Object(fields)) => {
            fields.get_mut(*name).is_some_and(|value| exchange_at(value, rest, urls))
        }
        _ => false,
    }
}

/// Exchanges URLs wherever they stand, as names too.
fn exchange_all(value: &mut Value, urls: &Urls) -> bool {
    match value {
        Value::String(_) => exchange_at(value, &[], urls),
        Value::Array(items) => items.iter_mut().fold(0, |count, item| count + u32::from(exchange_all(item, urls))) > 0,
        Value::Object(fields) => {
            let mut changed = false;
            let named = std::mem::take(fields).into_iter().map(|(name, mut value)| {
                let moved = urls.moved(&name);
                changed |= exchange_all(&mut value, urls) | moved.is_some();
                (moved.unwrap_or(name), value)
            });
            *fields = named.collect();
            changed
        }
        _ => false,
    }
}

/// The files of Iceberg tables.
struct Tables<'a> {
    urls: &'a Urls,
    objects: PathBuf,
    /// Files that were rewritten, by the URL that they had, with their size in bytes now.
    rewritten: HashMap<String, u64>,
}

impl Tables<'_> {
    /// Rewrites all that a metadata file names, then the file; whether it is there.
    fn table(&mut self, location: &str) -> Result<bool> {
        let Some(bytes) = self.read(location)? else { return Ok(false) };
        if self.rewritten.contains_key(location) {
            return Ok(true);
        }
        let is_compressed = bytes.starts_with(&GZIP);
        let mut text = Vec::new();
        match is_compressed {
            true => drop(GzDecoder::new(&bytes[..]).read_to_end(&mut text)?),
            false => text = bytes,
        }
        let mut metadata: Value = serde_json::from_slice(&text)
            .map_err(|e| Error::invalid(format!("expected metadata in JSON, found `{location}`")).with_source(e))?;
        for list in texts(&metadata, "snapshots", "manifest-list") {
            self.list(&list).context(|| format!("rewriting `{list}`"))?;
        }
        for manifest in metadata["snapshots"].as_array().into_iter().flatten().flat_map(manifests_in_place) {
            self.manifest(&manifest).context(|| format!("rewriting `{manifest}`"))?;
        }
        let logged = texts(&metadata, "metadata-log", "metadata-file");
        exchange(&mut metadata, &IN_METADATA, self.urls);
        let mut bytes =
            serde_json::to_vec(&metadata).map_err(|e| Error::bug("metadata has no JSON form").with_source(e))?;
        if is_compressed {
            let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
            encoder.write_all(&bytes)?;
            bytes = encoder.finish()?;
        }
        self.write(location, &bytes)?;
        for earlier in logged {
            self.table(&earlier)?;
        }
        Ok(true)
    }

    /// Rewrites the manifests that a list names, then the list. Those of expired snapshots, which earlier metadata names, are gone.
    fn list(&mut self, location: &str) -> Result<()> {
        if self.rewritten.contains_key(location) {
            return Ok(());
        }
        let Some(bytes) = self.read(location)? else { return Ok(()) };
        let mut list = Container::parse(&bytes)?;
        for entry in &mut list.values {
            let path = entry.field("manifest_path").and_then(Datum::text).unwrap_or_default().to_owned();
            self.manifest(&path).context(|| format!("rewriting `{path}`"))?;
            if let (Some(Datum::Number(length)), Some(size)) =
                (entry.field_mut("manifest_length"), self.rewritten.get(&path))
            {
                *length = i64::try_from(*size).unwrap_or(i64::MAX);
            }
            self.exchange_field(entry, "manifest_path");
        }
        self.write(location, &list.to_bytes()?)
    }

    /// Rewrites the delete files that a manifest names, then the manifest.
    fn manifest(&mut self, location: &str) -> Result<()> {
        if self.rewritten.contains_key(location) {
            return Ok(());
        }
        let Some(bytes) = self.read(location)? else { return Ok(()) };
        let mut manifest = Container::parse(&bytes)?;
        for entry in &mut manifest.values {
            let Some(file) = entry.field_mut("data_file") else { continue };
            let path = file.field("file_path").and_then(Datum::text).unwrap_or_default().to_owned();
            if file.field("content").and_then(Datum::number) == Some(POSITION_DELETES) {
                self.deletes(&path).context(|| format!("rewriting `{path}`"))?;
                for bounds in ["lower_bounds", "upper_bounds"] {
                    self.exchange_bound(file.field_mut(bounds));
                }
            }
            if let (Some(Datum::Number(length)), Some(size)) =
                (file.field_mut("file_size_in_bytes"), self.rewritten.get(&path))
            {
                *length = i64::try_from(*size).unwrap_or(i64::MAX);
            }
            for name in ["file_path", "referenced_data_file"] {
                self.exchange_field(file, name);
            }
        }
        self.write(location, &manifest.to_bytes()?)
    }

    /// Rewrites a file of position deletes or deletion vectors; one that only manifests of the past name may be gone.
    fn deletes(&mut self, location: &str) -> Result<()> {
        if self.rewritten.contains_key(location) {
            return Ok(());
        }
        let Some(bytes) = self.read(location)? else { return Ok(()) };
        let moved = |path: &str| self.urls.moved(path).unwrap_or_else(|| path.to_owned());
        let bytes = deletes::with_paths(bytes, &moved)?;
        self.write(location, &bytes)
    }

    fn exchange_field(&self, record: &mut Datum, name: &str) {
        if let Some(Datum::Text(url)) = record.field_mut(name)
            && let Some(moved) = self.urls.moved(url)
        {
            *url = moved;
        }
    }

    /// Exchanges the bound of the column that names data files. One that is cut short is dropped: it would leave out files that the
    /// deletes are about.
    fn exchange_bound(&self, bounds: Option<&mut Datum>) {
        let Some(Datum::Array(bounds)) = bounds else { return };
        bounds.retain_mut(|bound| {
            if bound.field("key").and_then(Datum::number) != Some(DELETED_PATH) {
                return true;
            }
            let Some(Datum::Bytes(bytes)) = bound.field_mut("value") else { return true };
            let moved = std::str::from_utf8(bytes).ok().and_then(|url| self.urls.moved(url));
            let is_moved = moved.is_some();
            *bytes = moved.unwrap_or_default().into_bytes();
            is_moved
        });
    }

    /// The file that a URL names; `None` when it is gone, or lies outside the warehouse.
    fn read(&self, location: &str) -> Result<Option<Vec<u8>>> {
        let Some(path) = self.path(location) else { return Ok(None) };
        match std::fs::read(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            read => read.map(Some).context(|| format!("reading `{}`", path.display())),
        }
    }

    fn write(&mut self, location: &str, bytes: &[u8]) -> Result<()> {
        let Some(path) = self.path(location) else { return Ok(()) };
        let written = std::fs::File::create(&path).and_then(|mut file| {
            file.write_all(bytes)?;
            file.sync_all()
        });
        written.context(|| format!("writing `{}`", path.display()))?;
        self.rewritten.insert(location.to_owned(), bytes.len() as u64);
        Ok(())
    }

    fn path(&self, location: &str) -> Option<PathBuf> {
        let below = self.urls.below(location)?;
        let climbs = below.split('/').any(|part| part == "..");
        (!climbs).then(|| self.objects.join(below))
    }
}

fn texts(value: &Value, list: &str, name: &str) -> Vec<String> {
    let items = value[list].as_array().into_iter().flatten();
    items.filter_map(|item| item[name].as_str().map(str::to_owned)).collect()
}

/// Manifests that a snapshot of format v1 may name without a list.
fn manifests_in_place(snapshot: &Value) -> Vec<String> {
    let names = snapshot["manifests"].as_array().into_iter().flatten();
    names.filter_map(|name| name.as_str().map(str::to_owned)).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn urls(from: &str, to: &str) -> Urls {
        Urls::new(&Url::parse(from).unwrap(), &Url::parse(to).unwrap()).unwrap()
    }

    #[test]
    fn a_url_is_exchanged_in_the_form_that_it_has() {
        let urls = urls("file:///old/a%20b/objects/", "file:///new%20c/objects/");
        for (url, moved) in [
            ("file:///old/a%20b/objects/t/s=%C3%BC/f", "file:///new%20c/objects/t/s=%C3%BC/f"),
            ("file:///old/a b/objects/t/f", "file:///new c/objects/t/f"),
            ("file:/old/a b/objects/t/f", "file:/new c/objects/t/f"),
            ("/old/a b/objects/t/f", "/new c/objects/t/f"),
        ] {
            assert_eq!(urls.moved(url).as_deref(), Some(moved));
        }
        assert_eq!(urls.moved("file:///old/a b/objects.url"), None);
        assert_eq!(urls.moved("s3://bucket/old/a b/objects/t"), None);
    }

    #[test]
    fn only_what_names_files_is_exchanged_in_metadata() {
        let urls = urls("file:///a/", "file:///b/");
        let mut metadata = json!({
            "location": "file:///a/t",
            "properties": {"comment": "file:///a/t", "write.data.path": "file:///a/t/d"},
            "snapshots": [{"manifest-list": "file:///a/t/l", "summary": {"x": "file:///a/"}}, {"manifest-list": "file:///c/l"}],
            "metadata-log": [{"metadata-file": "file:///a/t/m", "timestamp-ms": 1}],
        });
        assert!(exchange(&mut metadata, &IN_METADATA, &urls));
        assert_eq!(
            metadata,
            json!({
                "location": "file:///b/t",
                "properties": {"comment": "file:///a/t", "write.data.path": "file:///b/t/d"},
                "snapshots": [{"manifest-list": "file:///b/t/l", "summary": {"x": "file:///a/"}}, {"manifest-list": "file:///c/l"}],
                "metadata-log": [{"metadata-file": "file:///b/t/m", "timestamp-ms": 1}],
            })
        );
        assert!(!exchange(&mut metadata, &IN_METADATA, &urls), "once");
        let mut marks = json!({"files": {"file:///a/x": "1-2-3"}, "at": ["file:///a/y", 5]});
        assert!(exchange_all(&mut marks, &urls));
        assert_eq!(marks, json!({"files": {"file:///b/x": "1-2-3"}, "at": ["file:///b/y", 5]}));
    }
}
