//! Tables that another engine wrote come into the catalog.

use super::io::url;
use super::{Table, Tables, create};
use crate::model::TableName;
use crate::{Error, ErrorKind, Result};

pub(super) async fn register(tables: &Tables, name: &TableName, location: &str) -> Result<Table> {
    let location = url(location)
        .map_err(|_| Error::invalid(format!("expected the URL of a metadata file, found `{location}`")))?
        .to_string();
    let metadata = tables.io.metadata(&location).await.map_err(|error| match error.kind() {
        // The caller chose the file, no catalog did.
        ErrorKind::Bug => Error::invalid(format!("expected an Iceberg table's metadata in `{location}`, found none"))
            .with_source(error),
        _ => error,
    })?;
    let input = create::catalog_input(name, &metadata, &location)?;
    Table::open(tables, tables.ports.catalog.create_table(&input).await?).await
}
