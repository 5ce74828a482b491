//! A table that follows what the lakehouse file declares of it: made when it is not there, given the columns that it lacks, wider
//! types, another partitioning. What a statement changed stands until the declaration changes.

use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use iceberg::spec::{FormatVersion, Schema, TableMetadata, TableMetadataBuilder};
use shared::catalog;
use shared::error::Context;
use shared::model::{Column, PartitionField, TableName};
use shared::{ErrorKind, Result};

use super::alter::{self, Alter};
use super::create::{NewTable, create};
use super::io::IcebergContext;
use super::revise::{Revision, revise};
use super::{Table, Tables, schema};

/// The property that keeps the partitioning that was declared last: a change of it is a change of the declaration, and not what a
/// statement made of the table.
const PARTITION_BY: &str = "tarn.partition-by";

/// The columns of a table that is there or is yet to be made, and how they follow the rows that it is given.
#[derive(Debug, Clone)]
pub struct TableColumns {
    schema: Schema,
    /// The highest field id that the table ever used.
    last_id: i32,
}

impl TableColumns {
    /// Of a table that is made with `columns`.
    ///
    /// # Errors
    /// `Invalid`, naming the column, for those that no table can have.
    pub fn new(columns: &[Column]) -> Result<Self> {
        let schema = schema::new_schema(columns)?;
        Ok(Self { last_id: schema.highest_field_id(), schema })
    }

    /// Of a table as it is.
    pub fn of(table: &Table) -> Self {
        let metadata = table.metadata();
        Self { schema: metadata.current_schema().as_ref().clone(), last_id: metadata.last_column_id() }
    }

    /// When rows of `columns` have been written.
    ///
    /// # Errors
    /// `Invalid`, naming the column, when its type can't become the one asked for.
    pub fn with(&self, columns: &[Column]) -> Result<Self> {
        let schema = schema::evolve(&self.schema, columns, self.last_id, false)?;
        let schema = schema.unwrap_or_else(|| self.schema.clone());
        Ok(Self { last_id: self.last_id.max(schema.highest_field_id()), schema })
    }

    /// As SQL sees them.
    ///
    /// # Errors
    /// `Invalid` for a type that has no Arrow type.
    pub fn to_arrow(&self) -> Result<SchemaRef> {
        schema::arrow_schema(&self.schema).map(|arrow| schema::without_ids(&arrow))
    }

    /// Their names, in order.
    pub fn names(&self) -> Vec<&str> {
        self.schema.as_struct().fields().iter().map(|field| field.name.as_str()).collect()
    }
}

/// How a table would follow a declaration.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Evolution {
    /// Names of columns that it gains.
    pub added: Vec<String>,
    /// Columns that change, each with how.
    pub changed: Vec<String>,
    /// The partitioning that it takes on.
    pub partitioning: Option<String>,
}

pub(super) async fn ensure(
    tables: &Tables,
    name: &TableName,
    columns: &[Column],
    partition_by: &[PartitionField],
) -> Result<Table> {
    let table = match tables.load(name).await {
        Err(error) if error.kind() == ErrorKind::NotFound => {
            catalog::ensure_database(tables.ports.catalog.as_ref(), &name.database).await?;
            let new = NewTable {
                columns: columns.to_vec(),
                partition_by: partition_by.to_vec(),
                properties: property(partition_by).into_iter().filter(|(_, told)| !told.is_empty()).collect(),
                ..NewTable::default()
            };
            match create(tables, name, &new, None).await {
                Err(error) if error.kind() == ErrorKind::Conflict => tables.load(name).await?,
                other => return other,
            }
        }
        other => other?,
    };
    let table = grow(table, columns).await.context(|| format!("adding columns to the table `{name}`"))?;
    repartition(table, partition_by).await
}

impl Table {
    /// How [`Tables::ensure`] would change the table. Changes nothing.
    ///
    /// # Errors
    /// `Invalid`, naming the column or the partition field, when it can't.
    pub fn evolution(&self, columns: &[Column], partition_by: &[PartitionField]) -> Result<Evolution> {
        let mut evolution = Evolution::default();
        let metadata = self.metadata();
        let current = metadata.current_schema();
        if let Some(evolved) = evolved(metadata, columns)? {
            for field in evolved.as_struct().fields() {
                match current.field_by_id(field.id) {
                    None => evolution.added.push(field.name.clone()),
                    Some(before) if before.field_type != field.field_type => {
                        let (from, to) = (&before.field_type, &field.field_type);
                        evolution.changed.push(format!("column `{}`: {from} → {to}", field.name));
                    }
                    Some(before) if before.required != field.required => {
                        evolution.changed.push(format!("column `{}` may be null", field.name));
                    }
                    Some(_) => {}
                }
            }
        }
        // Columns that come with the same commit can't be looked up yet.
        let is_known = |field: &PartitionField| current.field_by_name(&field.column).is_some();
        if !partition_by.iter().all(is_known) || is_repartitioned(self, partition_by)? {
            evolution.partitioning = Some(told(partition_by));
        }
        Ok(evolution)
    }
}

/// Adds and widens columns until the rows of `columns` fit.
async fn grow(table: Table, columns: &[Column]) -> Result<Table> {
    Ok(revise(table, &mut Grow { columns }).await?.now)
}

struct Grow<'a> {
    columns: &'a [Column],
}

#[async_trait]
impl Revision for Grow<'_> {
    async fn revise(&mut self, base: &Table) -> Result<Option<TableMetadata>> {
        let metadata = &base.metadata;
        let Some(evolved) = evolved(metadata, self.columns)? else { return Ok(None) };
        let builder = metadata.as_ref().clone().into_builder(Some(base.location.clone()));
        let built = builder
            .add_current_schema(evolved)
            .and_then(TableMetadataBuilder::build)
            .doing(|| "adding a schema".into())?;
        Ok(Some(built.metadata))
    }
}

fn evolved(metadata: &TableMetadata, columns: &[Column]) -> Result<Option<iceberg::spec::Schema>> {
    let is_empty = metadata.current_snapshot().is_none();
    let evolved = schema::evolve(metadata.current_schema(), columns, metadata.last_column_id(), is_empty)?;
    if let Some(evolved) = &evolved {
        schema::check_version(evolved, metadata.format_version())?;
    }
    Ok(evolved)
}

async fn repartition(table: Table, partition_by: &[PartitionField]) -> Result<Table> {
    if !is_repartitioned(&table, partition_by)? {
        return Ok(table);
    }
    let changes =
        [Alter::ReplacePartitionFields(partition_by.to_vec()), Alter::SetProperties(property(partition_by).into())];
    table.alter(&changes).await
}

/// Whether the declaration is another than the last one that the table followed. While none is declared a table keeps its
/// partitioning, since others may write it who declare one; a table of format v1 always does.
fn is_repartitioned(table: &Table, partition_by: &[PartitionField]) -> Result<bool> {
    let metadata = table.metadata();
    if partition_by.is_empty() || metadata.format_version() == FormatVersion::V1 {
        return Ok(false);
    }
    match metadata.properties().get(PARTITION_BY) {
        Some(known) => Ok(*known != told(partition_by)),
        None => alter::would_change(table, &Alter::ReplacePartitionFields(partition_by.to_vec())),
    }
}

fn property(partition_by: &[PartitionField]) -> [(String, String); 1] {
    [(PARTITION_BY.to_owned(), told(partition_by))]
}

fn told(partition_by: &[PartitionField]) -> String {
    partition_by.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}
