//! Tables that another engine wrote come into the catalog.

use std::sync::Arc;

use super::{Table, Tables, create, ownership};
use shared::model::TableName;
use shared::{Error, ErrorKind, Result, catalog};

pub(super) async fn register(tables: &Tables, name: &TableName, location: &str) -> Result<Table> {
    let url = tables.io.url(location).map_err(|error| {
        Error::invalid(format!("expected the location of a metadata file, found `{location}`")).with_source(error)
    })?;
    // Other engines know no bare paths.
    let location = if location.starts_with('/') { format!("file://{location}") } else { location.to_owned() };
    // What was read of it before says nothing of a file that was removed since.
    tables.io.forget(&location);
    let metadata = tables.io.metadata(&location).await.map_err(|error| match error.kind() {
        // The caller chose the file, no catalog did.
        ErrorKind::Bug => {
            Error::invalid(format!("expected an Iceberg table's metadata in `{url}`, found none")).with_source(error)
        }
        _ => error,
    })?;
    let mut input = create::catalog_input(&tables.io, name, &metadata, &location)?;
    ownership::mark_registered(&mut input);
    let entry =
        catalog::Table { input: input.clone(), version: String::new(), created_ms: 0, updated_ms: 0, fault: None };
    let table = Table::new(tables.ports.clone(), tables.io.clone(), entry, location, Arc::clone(&metadata))?;
    ownership::check_free(tables, &table).await?;
    let entry = tables.ports.catalog.create_table(&input).await?;
    Ok(Table { entry: Arc::new(entry), ..table })
}
