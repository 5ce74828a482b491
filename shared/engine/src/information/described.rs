//! The columns of tables as they are. The catalog's own list of an Iceberg table is made for Athena, which knows fewer types, so
//! they come from the table's metadata.

use std::sync::Arc;

use crate::names::{INFORMATION_SCHEMA, Names};
use shared::Result;
use shared::catalog::Table as Entry;
use shared::model::types::columns_of;
use shared::model::{Column, PartitionField};
use table::Table;

/// A column, and what rows are partitioned by of it: the column itself, or `day(column)`, …; several are set apart by commas.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Described {
    pub(super) column: Column,
    pub(super) partition_by: Option<String>,
}

/// The columns of a table of the catalog, or of `table$snapshots`, `information_schema.columns` and the like.
pub(super) async fn columns(names: &Names<'_>, name: &[String]) -> Result<Vec<Described>> {
    let (database, table) = super::place(names, name)?;
    let plain = |column| Described { column, partition_by: None };
    let provider = if database == INFORMATION_SCHEMA {
        names.information(&table).await?
    } else if let Some((table, which)) = table.split_once('$') {
        names.metadata_table(&database, table, which).await?
    } else {
        let entry = super::get(names, name).await?;
        return of_entry(names, &entry).await;
    };
    Ok(columns_of(&provider.schema())?.into_iter().map(plain).collect())
}

async fn of_entry(names: &Names<'_>, entry: &Arc<Entry>) -> Result<Vec<Described>> {
    match entry.is_iceberg() {
        true => of_iceberg(&names.open(entry).await?),
        false => Ok(of_files(entry)),
    }
}

/// Of an Iceberg table.
pub(super) fn of_iceberg(table: &Table) -> Result<Vec<Described>> {
    let fields = table.partition_fields()?;
    let partition_by = |column: &Column| {
        let of = |field: &&PartitionField| {
            field.column.strip_prefix(&column.name).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
        };
        let told: Vec<String> = fields.iter().filter(of).map(ToString::to_string).collect();
        (!told.is_empty()).then(|| told.join(", "))
    };
    let described = |column| Described { partition_by: partition_by(&column), column };
    Ok(table.columns().into_iter().map(described).collect())
}

/// Of a table of files, its partition columns last; of a table that can't be opened, what the catalog has.
pub(super) fn of_files(entry: &Entry) -> Vec<Described> {
    let columns = entry.input.storage.columns.iter();
    let columns = columns.map(|column| Described { column: column.clone(), partition_by: None });
    let keys = entry.input.partition_keys.iter();
    columns.chain(keys.map(|key| Described { column: key.clone(), partition_by: Some(key.name.clone()) })).collect()
}
