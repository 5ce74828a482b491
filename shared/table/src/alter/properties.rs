//! Table properties: those that Tarn or Iceberg understand are checked, others are kept as they are.

use std::collections::{BTreeMap, HashMap};

use iceberg::spec::FormatVersion;

use super::draft::Draft;
use crate::token::EXPIRED_TOKEN;
use crate::{Table, files};
use shared::{Error, Result};

/// What a property may hold.
enum Values {
    OneOf(&'static [&'static str]),
    /// A whole number from this one on.
    AtLeast(i64),
}

const MODES: Values = Values::OneOf(&["copy-on-write", "merge-on-read"]);
const LEVELS: Values = Values::OneOf(&["serializable", "snapshot"]);
const SWITCH: Values = Values::OneOf(&["true", "false"]);

const KNOWN: &[(&str, Values)] = &[
    ("write.delete.mode", MODES),
    ("write.update.mode", MODES),
    ("write.merge.mode", MODES),
    ("write.delete.isolation-level", LEVELS),
    ("write.update.isolation-level", LEVELS),
    ("write.merge.isolation-level", LEVELS),
    ("write.format.default", Values::OneOf(&["parquet"])),
    ("write.target-file-size-bytes", Values::AtLeast(1)),
    ("write.metadata.previous-versions-max", Values::AtLeast(1)),
    ("write.metadata.delete-after-commit.enabled", SWITCH),
    ("history.expire.max-snapshot-age-ms", Values::AtLeast(1)),
    ("history.expire.min-snapshots-to-keep", Values::AtLeast(1)),
    ("history.expire.max-ref-age-ms", Values::AtLeast(1)),
    ("commit.retry.num-retries", Values::AtLeast(0)),
    ("commit.retry.min-wait-ms", Values::AtLeast(0)),
    ("commit.retry.max-wait-ms", Values::AtLeast(0)),
    ("commit.retry.total-timeout-ms", Values::AtLeast(0)),
    ("commit.manifest.min-count-to-merge", Values::AtLeast(1)),
    ("commit.manifest.target-size-bytes", Values::AtLeast(1)),
    ("commit.manifest-merge.enabled", SWITCH),
    ("gc.enabled", SWITCH),
];

/// Properties that end in a column's name.
const BY_COLUMN: [&str; 4] = [
    "write.metadata.metrics.column.",
    "write.parquet.bloom-filter-enabled.column.",
    "write.parquet.bloom-filter-fpp.column.",
    "write.parquet.bloom-filter-ndv.column.",
];

pub(crate) const FORMAT_VERSION: &str = "format-version";

/// # Errors
/// `Invalid` for a value that is no version of the table format.
pub(crate) fn format_version(value: &str) -> Result<FormatVersion> {
    match value {
        "1" => Ok(FormatVersion::V1),
        "2" => Ok(FormatVersion::V2),
        "3" => Ok(FormatVersion::V3),
        other => Err(Error::invalid(format!("property `{FORMAT_VERSION}`: expected `1`, `2` or `3`, found `{other}`"))),
    }
}

impl Table {
    /// The properties that are the user's to set.
    pub fn properties(&self) -> BTreeMap<String, String> {
        let all = self.metadata.properties().iter();
        all.filter(|(key, _)| check_ours(key).is_ok()).map(|(key, value)| (key.clone(), value.clone())).collect()
    }
}

impl Draft<'_> {
    pub(super) fn set_properties(&mut self, properties: &BTreeMap<String, String>) -> Result<()> {
        let mut set = HashMap::new();
        for (key, value) in properties {
            if key == FORMAT_VERSION {
                self.upgrade(value)?;
                continue;
            }
            check_property(key, value)?;
            if self.metadata.properties().get(key) != Some(value) {
                set.insert(key.clone(), value.clone());
            }
        }
        if set.is_empty() {
            return Ok(());
        }
        self.edit(|builder| builder.set_properties(set))?;
        files::check(&self.metadata)
    }

    pub(super) fn remove_properties(&mut self, keys: &[String]) -> Result<()> {
        keys.iter().try_for_each(|key| check_ours(key))?;
        let found: Vec<_> = keys.iter().filter(|key| self.metadata.properties().contains_key(*key)).cloned().collect();
        if found.is_empty() { Ok(()) } else { self.edit(|builder| builder.remove_properties(&found)) }
    }

    fn upgrade(&mut self, value: &str) -> Result<()> {
        let have = self.metadata.format_version();
        let want = format_version(value)?;
        if want < have {
            return Err(Error::invalid(format!(
                "property `{FORMAT_VERSION}`: expected the table's version `{have}` or a later one, found `{want}`"
            )));
        }
        if want == have { Ok(()) } else { self.edit(|builder| builder.upgrade_format_version(want)) }
    }

    /// Properties of a column go with its name, and with those of the fields inside it.
    pub(super) fn rename_in_properties(&mut self, from: &str, to: &str) -> Result<()> {
        let (mut removed, mut set) = (Vec::new(), HashMap::new());
        for (key, value) in self.metadata.properties() {
            let named = BY_COLUMN.iter().find_map(|prefix| Some((prefix, key.strip_prefix(prefix)?)));
            let Some((prefix, rest)) = named.and_then(|(p, name)| Some((p, name.strip_prefix(from)?))) else {
                continue;
            };
            if rest.is_empty() || rest.starts_with('.') {
                removed.push(key.clone());
                set.insert(format!("{prefix}{to}{rest}"), value.clone());
            }
        }
        if removed.is_empty() {
            return Ok(());
        }
        self.edit(|builder| builder.remove_properties(&removed)?.set_properties(set))
    }
}

/// # Errors
/// `Invalid`, naming the property, when it is not the user's to set or has a value that can't be.
pub(crate) fn check_property(key: &str, value: &str) -> Result<()> {
    check_ours(key)?;
    check(key, value)
}

fn check_ours(key: &str) -> Result<()> {
    if key.starts_with(EXPIRED_TOKEN.trim_end_matches('.')) {
        return Err(Error::invalid(format!(
            "expected a property that is the user's to set, found `{key}`, by which commits happen once"
        )));
    }
    Ok(())
}

fn check(key: &str, value: &str) -> Result<()> {
    let Some((_, values)) = KNOWN.iter().find(|(known, _)| *known == key) else { return Ok(()) };
    let expected = match values {
        Values::OneOf(values) if values.contains(&value) => return Ok(()),
        Values::OneOf(values) => values.iter().map(|v| format!("`{v}`")).collect::<Vec<_>>().join(" or "),
        Values::AtLeast(least) if value.parse::<i64>().is_ok_and(|n| n >= *least) => return Ok(()),
        Values::AtLeast(least) => format!("a whole number of at least {least}"),
    };
    Err(Error::invalid(format!("property `{key}`: expected {expected}, found `{value}`")))
}
