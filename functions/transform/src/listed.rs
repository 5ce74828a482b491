//! The files of a file table: what lies in its folder, or in the folders of its partitions.

use format::listing::{ListedFile, TableFiles};
use shared::catalog::Table;
use shared::error::Context;
use shared::ports::Ports;
use shared::{Error, Result};
use url::Url;

/// The folders that files of the table lie in.
///
/// # Errors
/// What the catalog answers; `Invalid` for a location that is no URL.
pub(crate) async fn folders(ports: &Ports, entry: &Table) -> Result<Vec<Url>> {
    let name = &entry.input.name;
    if entry.input.partition_keys.is_empty() {
        let location = parse_url(&entry.input.storage.location);
        return Ok(vec![location.context(|| format!("listing the table `{name}`"))?]);
    }
    let partitions = ports.catalog.list_partitions(name, &[]).await?;
    partitions.iter().map(|partition| parse_url(&partition.storage.location)).collect()
}

/// Every file that is the table's and holds something.
///
/// # Errors
/// As [`folders`] and [`TableFiles::list`].
pub(crate) async fn files(ports: &Ports, entry: &Table) -> Result<Vec<ListedFile>> {
    let table = TableFiles::of(&entry.input)?;
    let mut files = Vec::new();
    for folder in folders(ports, entry).await? {
        files.extend(table.list(&ports.storage, &folder).await?);
    }
    Ok(files)
}

/// # Errors
/// `Invalid` for a text that is no URL.
pub(crate) fn parse_url(url: &str) -> Result<Url> {
    Url::parse(url).map_err(|e| Error::invalid(format!("expected a URL, found `{url}`")).with_source(e))
}
