//! The list of what is in one backup: a JSON line about the backup, one a file, and one with the checksum of the lines before.

use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};
use shared::digest::sha256_hex;
use shared::{Error, Result};

/// What this program writes and reads.
pub(super) const FORMAT: u32 = 1;

/// Bytes of a part of a database: what did not change between two backups is stored once.
pub(super) const PART_BYTES: u64 = 1 << 20;

const DIGEST_BYTES: usize = 32;

/// What a backup is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Head {
    pub(super) format: u32,
    /// The version of the program that wrote it.
    pub(super) version: String,
    /// Of the data directory.
    pub(super) directory_format: u32,
    /// What the URLs of the objects begin with.
    pub(super) root: String,
    /// Milliseconds since the epoch.
    pub(super) at_ms: i64,
}

/// A file of a backup.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Entry {
    /// Relative to the data directory.
    pub(super) path: String,
    /// Bytes.
    pub(super) size: u64,
    /// When it was last written to, nanoseconds since the epoch, and its number in the file system: by both it is told from another one.
    pub(super) modified_ns: i64,
    pub(super) inode: u64,
    /// Checksums of its parts in order: SHA-256 in hexadecimal digits.
    pub(super) parts: Vec<String>,
}

/// The last line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct End {
    files: u64,
    bytes: u64,
    sha256: String,
}

/// A whole backup.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Manifest {
    pub(super) head: Head,
    pub(super) entries: Vec<Entry>,
}

impl Entry {
    pub(super) fn new(path: &str, metadata: &Metadata, parts: Vec<String>) -> Self {
        Self {
            path: path.to_owned(),
            size: metadata.len(),
            modified_ns: modified_ns(metadata),
            inode: metadata.ino(),
            parts,
        }
    }

    pub(super) fn modified(&self) -> SystemTime {
        match u64::try_from(self.modified_ns) {
            Ok(after) => SystemTime::UNIX_EPOCH + Duration::from_nanos(after),
            Err(_) => SystemTime::UNIX_EPOCH - Duration::from_nanos(self.modified_ns.unsigned_abs()),
        }
    }
}

/// When a file was last written to, nanoseconds since the epoch.
pub(super) fn modified_ns(metadata: &Metadata) -> i64 {
    metadata.mtime().saturating_mul(1_000_000_000).saturating_add(metadata.mtime_nsec())
}

impl Manifest {
    pub(super) fn bytes(&self) -> u64 {
        self.entries.iter().map(|entry| entry.size).sum()
    }

    /// # Errors
    /// None that can be caused from outside.
    pub(super) fn to_text(&self) -> Result<String> {
        let mut text = line(&self.head)?;
        for entry in &self.entries {
            text.push_str(&line(entry)?);
        }
        let sha256 = sha256_hex(&text, DIGEST_BYTES);
        text.push_str(&line(&End { files: self.entries.len() as u64, bytes: self.bytes(), sha256 })?);
        Ok(text)
    }

    /// Reads what [`Manifest::to_text`] wrote.
    ///
    /// # Errors
    /// `Invalid` for one of a newer format, `Bug` for one that is damaged.
    pub(super) fn parse(text: &str) -> Result<Self> {
        let damaged = || Error::bug("expected a whole list of files, found it damaged");
        let first = text.lines().next().ok_or_else(damaged)?;
        let format: serde_json::Value = serde_json::from_str(first).map_err(|e| damaged().with_source(e))?;
        if let Some(found) = format["format"].as_u64().filter(|found| *found > u64::from(FORMAT)) {
            return Err(Error::invalid(format!(
                "expected a backup of format {FORMAT} or older, found format {found}: Tarn {} wrote it, this is Tarn {}",
                format["version"].as_str().unwrap_or("of a newer version"),
                env!("CARGO_PKG_VERSION")
            )));
        }
        let body = text.strip_suffix('\n').and_then(|text| Some(text.rfind('\n')? + 1)).ok_or_else(damaged)?;
        let (body, last) = text.split_at(body);
        let end: End = serde_json::from_str(last).map_err(|e| damaged().with_source(e))?;
        if end.sha256 != sha256_hex(body, DIGEST_BYTES) {
            return Err(damaged());
        }
        let head = serde_json::from_str(first).map_err(|e| damaged().with_source(e))?;
        let entries = body.lines().skip(1).map(serde_json::from_str).collect::<Result<_, _>>();
        Ok(Self { head, entries: entries.map_err(|e| damaged().with_source(e))? })
    }
}

fn line(value: &impl Serialize) -> Result<String> {
    let text = serde_json::to_string(value);
    text.map(|text| text + "\n").map_err(|e| Error::bug("a line of a backup has no JSON form").with_source(e))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manifest() -> Manifest {
        let head = Head {
            format: FORMAT,
            version: "0.1.0".into(),
            directory_format: 2,
            root: "file:///lake/objects/".into(),
            at_ms: 1_700_000_000_000,
        };
        let entry = |path: &str| Entry {
            path: path.into(),
            size: 3,
            modified_ns: -5,
            inode: 7,
            parts: vec!["ab".into(), "cd".into()],
        };
        Manifest { head, entries: vec![entry("objects/raw/a\n\"b"), entry("state.db")] }
    }

    #[test]
    fn a_list_is_read_as_it_was_written() {
        let text = manifest().to_text().unwrap();
        assert_eq!(Manifest::parse(&text).unwrap(), manifest());
        assert_eq!(manifest().entries[0].modified(), SystemTime::UNIX_EPOCH - Duration::from_nanos(5));
    }

    #[test]
    fn a_list_that_lacks_anything_is_none() {
        let text = manifest().to_text().unwrap();
        for end in 0..text.len() {
            assert!(Manifest::parse(&text[..end]).is_err(), "cut at {end}");
        }
        assert!(Manifest::parse(&text.replace("state.db", "stale.db")).is_err());
    }

    #[test]
    fn a_list_of_a_newer_format_is_refused_by_name() {
        let error = Manifest::parse("{\"format\":9,\"version\":\"7.0.0\"}\n{}\n").unwrap_err();
        assert!(error.kind() == shared::ErrorKind::Invalid && error.to_string().contains("7.0.0"), "{error}");
    }
}
