//! Tables leave the catalog, and the store if asked.

use std::collections::HashSet;

use super::expire::check_collected;
use super::orphans::{check_alone, folder};
use super::{Table, Tables, reach};
use crate::model::TableName;
use crate::{Error, ErrorKind, Result, catalog};

/// Tries to remove a table from the catalog.
const TRIES: u32 = 5;

/// What went with a table.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Dropped {
    pub files: u64,
    /// Files that could not be removed.
    pub left_behind: u64,
}

pub(super) async fn drop(tables: &Tables, name: &TableName, purge: bool) -> Result<Dropped> {
    let entry = tables.ports.catalog.get_table(name).await?;
    if !entry.is_iceberg() {
        return Err(Error::invalid(format!("expected an Iceberg table, found `{name}` of another kind")));
    }
    if !purge {
        remove_entry(tables, &entry).await?;
        return Ok(Dropped::default());
    }
    let table = Table::open(tables, entry.clone()).await?;
    check_collected(&table.metadata)?;
    // Before the name is free: what is made under it later is not listed.
    let files = files(&table).await?;
    remove_entry(tables, &entry).await?;
    let dropped = files.len() as u64;
    let left_behind = reach::remove(&tables.io, files).await;
    tracing::info!(table = %name, files = dropped, left_behind, "table dropped");
    Ok(Dropped { files: dropped, left_behind })
}

/// What the table names, and whatever else is in its folder if that is its own.
async fn files(table: &Table) -> Result<HashSet<String>> {
    let mut files: HashSet<String> = reach::everything(table).await?.into_keys().collect();
    match check_alone(table).await {
        Ok(()) => files.extend(table.io.storage.list(&folder(table)?).await?.into_iter().map(|o| o.url.to_string())),
        Err(error) if error.kind() == ErrorKind::Conflict => {}
        Err(error) => return Err(error),
    }
    Ok(files)
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
