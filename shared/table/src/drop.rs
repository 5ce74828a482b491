//! Tables leave the catalog, and the store if asked.

use std::collections::BTreeSet;

use url::Url;

use super::expire::check_collected;
use super::ownership::{Own, check_alone, folder, is_registered};
use super::{Table, Tables, reachable};
use shared::model::TableName;
use shared::{Error, ErrorKind, Result, catalog};

/// Tries to remove a table from the catalog.
const TRIES: u32 = 5;

/// Whether the files of a table go with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purge {
    /// They stay: the table is only taken out of the catalog.
    No,
    /// They go, unless the table was registered: then another engine made them.
    Own,
    /// They go, also those of a table that was registered.
    All,
}

/// What went with a table.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Dropped {
    pub files: u64,
    /// Files that could not be removed.
    pub left_behind: u64,
    /// Files that stay because they lie outside the table's folder.
    pub elsewhere: u64,
    /// Whether all files stay because the table was registered.
    pub registered: bool,
}

pub(super) async fn drop(tables: &Tables, name: &TableName, purge: Purge) -> Result<Dropped> {
    let entry = tables.ports.catalog.get_table(name).await?;
    if !entry.is_iceberg() {
        return Err(Error::invalid(format!("expected an Iceberg table, found `{name}` of another kind")));
    }
    let registered = purge == Purge::Own && is_registered(&entry);
    if registered || purge == Purge::No {
        remove_entry(tables, &entry).await?;
        return Ok(Dropped { registered, ..Dropped::default() });
    }
    let table = tables.open(entry.clone()).await?;
    check_collected(&table.metadata)?;
    check_alone(&table).await?;
    // Before the name is free: what is made under it later is not listed.
    let (files, elsewhere) = files(&table).await?;
    remove_entry(tables, &entry).await?;
    let dropped = files.len() as u64;
    let left_behind = reachable::remove(&tables.io, files).await;
    tracing::info!(table = %name, files = dropped, left_behind, elsewhere, "table dropped");
    Ok(Dropped { files: dropped, left_behind, elsewhere, registered })
}

/// What the table names in its folders and whatever else is in its own; how many files it names elsewhere.
async fn files(table: &Table) -> Result<(BTreeSet<Url>, u64)> {
    let named = reachable::everything(table).await?.into_keys();
    let (own, elsewhere) = Own::of(table)?.among(&table.io, named)?;
    let listed = table.io.storage().list(&folder(table)?).await?.into_iter().map(|object| object.url);
    Ok((own.into_iter().chain(listed).collect(), elsewhere))
}

/// Removes the table from the catalog, but never another one that took its name.
async fn remove_entry(tables: &Tables, entry: &catalog::Table) -> Result<()> {
    let name = &entry.input.name;
    let mut tries = 0;
    loop {
        tries += 1;
        let error = match tables.ports.catalog.delete_table(name).await {
            Ok(()) => return Ok(()),
            Err(error) => error,
        };
        // An earlier try, whose answer was lost, took effect.
        if error.kind() == ErrorKind::NotFound && tries > 1 {
            return Ok(());
        }
        if tries == TRIES || !matches!(error.kind(), ErrorKind::Retry | ErrorKind::OutcomeUnknown) {
            return Err(error);
        }
        match tables.ports.catalog.get_table(name).await {
            Ok(now) if now.created_ms == entry.created_ms => {}
            Ok(_) => return Ok(()),
            Err(gone) if gone.kind() == ErrorKind::NotFound => return Ok(()),
            Err(_) => return Err(error),
        }
    }
}
