//! Every object's URL is built here.
//!
//! Layout below the warehouse root (`s3://bucket/prefix/` or `file:///…/objects/`):
//!
//! ```text
//! raw/{location}/…                                      uploaded files, as they came
//! tables/{database}/{table}/data/…                      data files of Iceberg tables
//! tables/{database}/{table}/metadata/…                  metadata of Iceberg tables
//! errors/{stream}/{shard}/{from}.ndjson                 records that could not be stored, with the reason
//! errors/{stream}/refused/{id}.ndjson                   records that `ingest` refused, where they are kept
//! errors/{stream}/replayed/r-{id}.ndjson                what a replay of those could not store either
//! errors/{stream}/.replay/{id}/{writer}.ndjson          the same while the replay goes on
//! quarantine/{workflow}/{job}/{run}.ndjson              rows that a quality rule set aside
//! results/{query}.{format}                              answers of queries
//! erasures/{id}.json                                    what a pass of an erasure found and did
//! state/…                                               state documents, where the state is kept as objects
//! project/lakehouse.yaml                                the declaration in force
//! ```

use url::Url;

use super::{SequenceNumber, ShardId, TableName};
use crate::{Error, Result};

/// Builds object URLs below one warehouse root.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Keys {
    root: Url,
}

impl Keys {
    /// `root` is a directory URL; a missing final slash is added.
    ///
    /// # Errors
    /// `Invalid` when `root` can't hold paths (e.g. `data:`).
    pub fn new(mut root: Url) -> Result<Self> {
        if root.cannot_be_a_base() {
            return Err(Error::invalid(format!(
                "expected a warehouse URL such as `s3://bucket/prefix/`, found `{root}`"
            )));
        }
        if !root.path().ends_with('/') {
            root.set_path(&format!("{}/", root.path()));
        }
        Ok(Self { root })
    }

    /// The warehouse root, with a final slash.
    pub fn root(&self) -> &Url {
        &self.root
    }

    /// The bucket that the warehouse is in; a warehouse in no bucket is in one named `local`.
    pub fn bucket(&self) -> &str {
        self.root.host_str().filter(|host| !host.is_empty()).unwrap_or("local")
    }

    /// The object that `key` names in the warehouse's bucket. A key begins at the bucket, not at the warehouse's prefix; without
    /// a bucket it is the whole path.
    ///
    /// # Errors
    /// `Invalid` for a key that is empty or has `.` or `..` for a part: no URL has it.
    pub fn in_bucket(&self, key: &str) -> Result<Url> {
        if key.is_empty() || key.split('/').any(|part| part == "." || part == "..") {
            return Err(Error::invalid(format!(
                "expected an object's key without parts that are `.` or `..`, found `{}`",
                key.escape_debug()
            )));
        }
        let mut url = self.root.clone();
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.clear().extend(key.split('/'));
        }
        Ok(url)
    }

    /// The folder that holds everything uploaded to `location`.
    pub fn raw(&self, location: &str) -> Url {
        self.below(&["raw", location, ""])
    }

    /// The table's own folder (Iceberg's `location`), without a final slash.
    pub fn table(&self, name: &TableName) -> Url {
        self.below(&["tables", &name.database, &name.table])
    }

    /// As [`Keys::table`], a folder that no other table of the name has had: rows are there before the name is taken.
    pub fn table_with_rows(&self, name: &TableName, id: &str) -> Url {
        self.below(&["tables", &name.database, &format!("{}-{id}", name.table)])
    }

    /// The folder of everything that `stream` could not store.
    pub fn errors(&self, stream: &str) -> Url {
        self.below(&["errors", stream, ""])
    }

    /// The folder of everything that could not be stored.
    pub fn all_errors(&self) -> Url {
        self.below(&["errors", ""])
    }

    /// The folder of all rows that quality rules set aside.
    pub fn all_quarantines(&self) -> Url {
        self.below(&["quarantine", ""])
    }

    /// The records of `shard` that could not be stored, of the interval that begins after `from`. A replay of the same
    /// interval writes the same object, so nothing is recorded twice.
    pub fn error_object(&self, stream: &str, shard: &ShardId, from: &SequenceNumber) -> Url {
        self.below(&["errors", stream, &shard.0, &format!("{from}.ndjson")])
    }

    /// The records of one request that were refused at the door of `stream`; `id` tells the request from all others, and is the
    /// same when it comes again.
    pub fn refused_object(&self, stream: &str, id: &str) -> Url {
        self.below(&["errors", stream, "refused", &format!("{id}.ndjson")])
    }

    /// The folder of all rows that the quality rules of `workflow` set aside.
    pub fn quarantines(&self, workflow: &str) -> Url {
        self.below(&["quarantine", workflow, ""])
    }

    /// The folder of those of `job`.
    pub fn quarantines_of_job(&self, workflow: &str, job: &str) -> Url {
        self.below(&["quarantine", workflow, job, ""])
    }

    /// The rows that the quality rules of `job` set aside in `run`.
    pub fn quarantine(&self, workflow: &str, job: &str, run: &str) -> Url {
        self.below(&["quarantine", workflow, job, &format!("{run}.ndjson")])
    }

    /// The stored answer of a query.
    pub fn result(&self, query_id: &str, extension: &str) -> Url {
        self.below(&["results", &format!("{query_id}.{extension}")])
    }

    /// The folder of all stored answers.
    pub fn results(&self) -> Url {
        self.below(&["results", ""])
    }

    /// The report of a pass of an erasure.
    pub fn erasure(&self, id: &str) -> Url {
        self.below(&["erasures", &format!("{id}.json")])
    }

    /// The folder of state documents, where they are objects.
    pub fn state(&self) -> Url {
        self.below(&["state", ""])
    }

    /// The lakehouse file in force.
    pub fn project(&self) -> Url {
        self.below(&["project", "lakehouse.yaml"])
    }

    fn below(&self, parts: &[&str]) -> Url {
        let mut url = self.root.clone();
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.pop_if_empty().extend(parts);
        }
        url
    }
}

/// Metadata of a table at `location`: `{location}/metadata/{version:05}-{id}.metadata.json`, the name that Iceberg writers
/// share.
pub fn table_metadata(location: &str, version: u32, id: &str) -> String {
    format!("{}/metadata/{version:05}-{id}.metadata.json", folder(location))
}

/// The version in the name of a metadata file, `00003-….metadata.json` or `v3.metadata.json`; 0 when it has none.
pub fn table_metadata_version(metadata_location: &str) -> u32 {
    let name = metadata_location.rsplit('/').next().unwrap_or_default();
    let numbered = name.strip_prefix('v').and_then(|name| name.split_once('.')).or_else(|| name.split_once('-'));
    numbered.and_then(|(version, _)| version.parse().ok()).unwrap_or(0)
}

/// A table's folder without a final slash, which some writers leave.
fn folder(location: &str) -> &str {
    location.trim_end_matches('/')
}

/// The `n`th manifest that a commit writes.
pub fn manifest(location: &str, id: &str, n: usize) -> String {
    format!("{}/metadata/{id}-m{n}.avro", folder(location))
}

/// The `n`th file of a commit that holds deletion vectors.
pub fn deletion_vectors(location: &str, prefix: &str, n: usize) -> String {
    format!("{}/data/{prefix}-{n:05}-deletes.puffin", folder(location))
}

/// The list of a snapshot's manifests.
pub fn manifest_list(location: &str, snapshot: i64, id: &str) -> String {
    format!("{}/metadata/snap-{snapshot}-{id}.avro", folder(location))
}

/// The `n`th data file of a commit, in the folder of its partition (`day=2013-01-01`, empty without partitions). The folder
/// is for people: characters that mean something in a URL become underscores, for `prefix` makes the name unique.
pub fn data_file(location: &str, partition: &str, prefix: &str, n: usize) -> String {
    let safe = |c: char| if c.is_ascii_alphanumeric() || "=/._-".contains(c) { c } else { '_' };
    let folders = partition.split('/').filter(|part| !part.is_empty() && !part.starts_with('.'));
    let mut path = format!("{}/data/", folder(location));
    for folder in folders {
        path.extend(folder.chars().take(100).map(safe));
        path.push('/');
    }
    format!("{path}{prefix}-{n:05}.parquet")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_partition_folder_holds_no_character_that_a_url_would_change() {
        let name = data_file("s3://b/t", "name=a b%2F?/../day=2013-01-01", "p", 3);
        assert_eq!(name, "s3://b/t/data/name=a_b_2F_/day=2013-01-01/p-00003.parquet");
        assert_eq!(data_file("s3://b/t", "", "p", 0), "s3://b/t/data/p-00000.parquet");
    }

    #[test]
    fn the_version_of_metadata_is_read_back_from_its_name() {
        assert_eq!(table_metadata_version(&table_metadata("s3://b/t", 17, "x-y")), 17);
        assert_eq!(table_metadata_version("s3://b/t/metadata/v3.metadata.json"), 3);
        assert_eq!(table_metadata_version("s3://b/t/metadata/v3.gz.metadata.json"), 3);
        assert_eq!(table_metadata_version("s3://b/t/metadata/other.metadata.json"), 0);
        assert!(table_metadata("s3://b/t/", 1, "x").starts_with("s3://b/t/metadata/00001-"));
    }

    fn keys() -> Keys {
        Keys::new(Url::parse("s3://bucket/lake").unwrap()).unwrap()
    }

    #[test]
    fn every_object_lies_below_the_root() {
        let shard = ShardId("shardId-000000000000".into());
        assert_eq!(keys().raw("weather").as_str(), "s3://bucket/lake/raw/weather/");
        assert_eq!(
            keys().error_object("flights", &shard, &17.into()).as_str(),
            "s3://bucket/lake/errors/flights/shardId-000000000000/17.ndjson"
        );
        assert_eq!(
            keys().table(&TableName::new("nyc", "flights").unwrap()).as_str(),
            "s3://bucket/lake/tables/nyc/flights"
        );
    }

    #[test]
    fn a_key_begins_at_the_bucket() {
        assert_eq!(keys().bucket(), "bucket");
        let url = |key: &str| keys().in_bucket(key).unwrap().to_string();
        assert_eq!(url("lake/raw/weather/a.csv"), "s3://bucket/lake/raw/weather/a.csv");
        assert_eq!(url("lake/raw/w/a b+ü 50%.csv"), "s3://bucket/lake/raw/w/a%20b+%C3%BC%2050%25.csv");
        assert_eq!(url("elsewhere/a.csv"), "s3://bucket/elsewhere/a.csv");
        for climbing in ["lake/raw/w/../../errors/x", "lake/./x", ""] {
            assert!(keys().in_bucket(climbing).is_err(), "{climbing}");
        }
        let folder = Keys::new(Url::parse("file:///data/objects/").unwrap()).unwrap();
        assert_eq!(folder.bucket(), "local");
        assert_eq!(folder.in_bucket("data/objects/raw/x").unwrap().as_str(), "file:///data/objects/raw/x");
    }

    #[test]
    fn a_root_that_holds_no_paths_is_refused() {
        assert!(Keys::new(Url::parse("data:text/plain,x").unwrap()).is_err());
    }
}
