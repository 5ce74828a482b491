//! Which files are a table's own: only those may a drop, an expiry or the removal of orphans take from the store.
//!
//! Metadata may name any file, and nothing keeps two entries of the catalog from naming the same ones: the metadata of a table
//! that was registered twice, a folder within another's. So before files go the catalog is asked who else has a claim, and what
//! goes lies in the table's folders.

use percent_encoding::percent_decode_str;
use url::Url;

use super::io::Io;
use super::{Table, Tables};
use shared::catalog;
use shared::{Error, ErrorKind, Result};

/// The parameter of an entry that says, as Hive's does, whether a drop takes the files too.
const PURGED: &str = "external.table.purge";

/// Properties that name folders of a table besides its location.
const MORE_FOLDERS: [&str; 2] = ["write.data.path", "write.metadata.path"];

/// Folders of the warehouse that hold other things than tables.
const RESERVED: [&str; 5] = ["errors", "project", "quarantine", "results", "state"];

/// Notes in an entry that another engine made the table, so that a drop leaves its files.
pub(super) fn mark_registered(input: &mut catalog::TableInput) {
    input.parameters.insert(PURGED.into(), "FALSE".into());
}

/// Whether a drop leaves the files of an entry's table unless it is asked to purge them.
pub(super) fn is_registered(entry: &catalog::Table) -> bool {
    entry.input.parameters.get(PURGED).is_some_and(|purged| purged.eq_ignore_ascii_case("false"))
}

/// The folders whose files are a table's own.
pub(super) struct Own {
    places: Vec<String>,
}

impl Own {
    /// # Errors
    /// `Invalid` for a location that names no object.
    pub(super) fn of(table: &Table) -> Result<Self> {
        let properties = table.metadata.properties();
        let more = MORE_FOLDERS.iter().filter_map(|key| properties.get(*key)).map(String::as_str);
        let folders = [table.metadata.location()].into_iter().chain(more);
        let places = folders.map(|location| folder_of(&table.io, location).map(|url| place(&url)));
        Ok(Self { places: places.collect::<Result<_>>()? })
    }

    /// Whether a file lies in one of the folders.
    pub(super) fn holds(&self, file: &Url) -> bool {
        let file = place(file);
        self.places.iter().any(|folder| file.starts_with(folder))
    }

    /// Those of some files that lie in the folders, and how many do not.
    ///
    /// # Errors
    /// `Invalid` for a location that names no object.
    pub(super) fn among(&self, io: &Io, locations: impl IntoIterator<Item = String>) -> Result<(Vec<Url>, u64)> {
        let urls = locations.into_iter().map(|location| io.url(&location)).collect::<Result<Vec<_>>>()?;
        let all = urls.len();
        let own: Vec<_> = urls.into_iter().filter(|url| self.holds(url)).collect();
        let others = (all - own.len()) as u64;
        Ok((own, others))
    }
}

/// The table's folder, with a final slash.
pub(super) fn folder(table: &Table) -> Result<Url> {
    folder_of(&table.io, table.metadata.location())
}

fn folder_of(io: &Io, location: &str) -> Result<Url> {
    io.url(&format!("{}/", location.trim_end_matches('/')))
}

/// # Errors
/// `Conflict` when another table of the catalog has a claim to the table's files: its folder and the table's lie one in the other,
/// or it has its metadata there; when the table's folder is one that the warehouse keeps other things in.
pub(super) async fn check_alone(table: &Table) -> Result<()> {
    let own = Own::of(table)?;
    check_reserved(table, &own)?;
    let metadata = table.file().map(|location| table.io.url(location)).transpose()?.map(|url| place(&url));
    for other in others(table.ports.catalog.as_ref(), table.name()).await? {
        let claims = claims(&table.io, &other);
        let shared = claims.iter().any(|claim| own.places.iter().any(|folder| overlap(folder, claim)));
        let in_metadata = metadata.iter().any(|file| claims.iter().any(|claim| overlap(file, claim)));
        if shared || in_metadata {
            return Err(Error::conflict(format!(
                "expected the folder `{}` to hold one table, found `{}` in it too or around it: no file may go while both are in the \
                 catalog, `CALL system.unregister_table` takes an Iceberg table out of it and leaves its files",
                table.metadata.location(),
                other.input.name
            )));
        }
    }
    Ok(())
}

/// # Errors
/// `Conflict` when an Iceberg table of the catalog other than `table`, which is about to be registered, has its metadata or its
/// folder.
pub(super) async fn check_free(tables: &Tables, table: &Table) -> Result<()> {
    let own = Own::of(table)?;
    let metadata = place(&tables.io.url(&table.location)?);
    for other in others(tables.ports.catalog.as_ref(), table.name()).await? {
        let claims = claims(&tables.io, &other);
        let shared =
            claims.iter().any(|claim| overlap(&metadata, claim) || own.places.iter().any(|p| overlap(p, claim)));
        if other.is_iceberg() && shared {
            return Err(Error::conflict(format!(
                "expected the metadata of a table that the catalog does not have, found that of `{}`: a table has one name",
                other.input.name
            )));
        }
    }
    Ok(())
}

/// # Errors
/// `Conflict` for a folder that the warehouse keeps other things in, or that holds such a one.
fn check_reserved(table: &Table, own: &Own) -> Result<()> {
    let root = table.ports.keys.root();
    let is_within = |folder: &str| {
        let reserved = RESERVED.iter().filter_map(|name| root.join(&format!("{name}/")).ok());
        reserved.map(|url| place(&url)).any(|reserved| overlap(folder, &reserved))
    };
    let is_zone = |folder: &str| {
        ["", "raw/", "tables/"].iter().filter_map(|name| root.join(name).ok()).any(|url| place(&url) == *folder)
    };
    match own.places.iter().any(|folder| is_within(folder) || is_zone(folder)) {
        false => Ok(()),
        true => Err(Error::conflict(format!(
            "expected a folder that holds the table alone, found `{}`, where the warehouse keeps other things",
            table.metadata.location()
        ))),
    }
}

/// The other entries of the catalog.
async fn others(catalog: &dyn catalog::Catalog, name: &shared::model::TableName) -> Result<Vec<catalog::Table>> {
    let mut others = Vec::new();
    for database in catalog.list_databases().await? {
        let tables = match catalog.list_tables(&database.name).await {
            // A database that is none of the lakehouse's.
            Err(error) if matches!(error.kind(), ErrorKind::Denied | ErrorKind::NotFound) => continue,
            tables => tables?,
        };
        others.extend(tables.into_iter().filter(|table| table.input.name != *name));
    }
    Ok(others)
}

/// Where an entry's files lie: its folder, and its metadata file.
fn claims(io: &Io, entry: &catalog::Table) -> Vec<String> {
    // Of others, which need not lie in a store: what names no object claims none.
    let location = entry.input.storage.location.as_str();
    let folder = (!location.is_empty()).then(|| folder_of(io, location).ok()).flatten();
    let metadata = entry.input.parameters.get("metadata_location").and_then(|location| io.url(location).ok());
    folder.iter().chain(&metadata).map(place).collect()
}

/// Whether one of two places lies in the other; those of folders end with a slash.
fn overlap(one: &str, other: &str) -> bool {
    one == other || (other.ends_with('/') && one.starts_with(other)) || (one.ends_with('/') && other.starts_with(one))
}

/// Where an object lies, however its address is written: `s3a` is `s3`, and characters are decoded as often as they are encoded,
/// so that in doubt two addresses are one.
pub(super) fn place(url: &Url) -> String {
    let mut path = url.path().to_owned();
    loop {
        let decoded = percent_decode_str(&path).decode_utf8_lossy().into_owned();
        if decoded == path {
            return format!("{}{path}", url.host_str().unwrap_or_default());
        }
        path = decoded;
    }
}
