//! Tables come to be: metadata without a snapshot, registered in the catalog as Athena, Spark and pyiceberg expect.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use iceberg::spec::{FormatVersion, Schema, SortOrder, TableMetadata, TableMetadataBuilder, UnboundPartitionSpec};
use url::Url;

use super::alter::{FORMAT_VERSION, check_property, format_version, iceberg_transform};
use super::io::Io;
use super::write::check_partition_type;
use super::{Committed, RowStream, Table, Tables, Token, commit, files, schema};
use shared::catalog::{StorageDescriptor, TableInput};
use shared::model::{Column, TableName, keys};
use shared::model::{PartitionField, Transform};
use shared::random::Random;
use shared::storage::location_of;
use shared::{Error, ErrorKind, Result};

/// A table to be made.
#[derive(Debug, Clone, Default)]
pub struct NewTable {
    pub columns: Vec<Column>,
    pub partition_by: Vec<PartitionField>,
    /// URL of its folder, which must lie in the warehouse and be empty; `None`: where the warehouse keeps its tables.
    pub location: Option<String>,
    pub comment: Option<String>,
    /// Properties of Iceberg, added to those that every new table has. `format-version` is `2`, the default, or `3`.
    pub properties: BTreeMap<String, String>,
}

pub(super) async fn create(tables: &Tables, name: &TableName, new: &NewTable, token: Option<&Token>) -> Result<Table> {
    let metadata = Arc::new(metadata(tables, free_folder(tables, name).await?, new, token).await?);
    let location = keys::table_metadata(metadata.location(), 0, &tables.ports.random.uuid().to_string());
    tables.io.put_metadata(&location, &metadata).await?;
    match enter(tables, name, new, &metadata, &location).await {
        Ok(table) => Ok(table),
        Err((error, lost)) => {
            tables.io.discard(lost.then_some(location)).await;
            Err(error)
        }
    }
}

/// Makes a table whose first snapshot holds `rows`.
pub(super) async fn create_with(
    tables: &Tables,
    name: &TableName,
    new: &NewTable,
    rows: RowStream,
    token: Option<&Token>,
) -> Result<Committed> {
    let folder = tables.ports.keys.table_with_rows(name, &short_id(&*tables.ports.random));
    let metadata = metadata(tables, folder, new, None).await?;
    let unborn = Table::unborn(tables, name, Arc::new(metadata))?;
    let (first, created) = commit::first(&unborn, rows, token).await?;
    let location = first.location.clone();
    match enter(tables, name, new, &first.metadata, &location).await {
        Ok(_) => {
            commit::Counts { commits: u64::from(first.committed.attempts), conflicts: 0 }.tell();
            Ok(first.committed)
        }
        Err((error, lost)) => {
            if lost {
                tables.io.discard(created).await;
            }
            Err(error)
        }
    }
}

/// The folder of a table's name; one of its own where a table that left the catalog has left files, which may come back.
async fn free_folder(tables: &Tables, name: &TableName) -> Result<Url> {
    let folder = tables.ports.keys.table(name);
    match tables.ports.storage.list_first(&folder, 1, |_| true).await?.is_empty() {
        true => Ok(folder),
        false => Ok(tables.ports.keys.table_with_rows(name, &short_id(&*tables.ports.random))),
    }
}

fn short_id(random: &dyn Random) -> String {
    random.uuid().simple().to_string().split_off(20)
}

/// The metadata of an empty table that keeps `token`, in `folder` unless `new` says where.
async fn metadata(tables: &Tables, folder: Url, new: &NewTable, token: Option<&Token>) -> Result<TableMetadata> {
    let iceberg_schema = schema::new_schema(&new.columns)?;
    let spec = partition_spec(&iceberg_schema, &new.partition_by)?;
    let location = match &new.location {
        Some(asked) => chosen_location(tables, asked).await?,
        None => location_of(&folder),
    };
    let mut asked = new.properties.clone();
    let version = match asked.remove(FORMAT_VERSION) {
        Some(value) => format_version(&value)?,
        None => FormatVersion::V2,
    };
    if version < FormatVersion::V2 {
        return Err(Error::invalid(format!("property `{FORMAT_VERSION}`: expected `2` or `3`, found `1`")));
    }
    schema::check_version(&iceberg_schema, version)?;
    asked.iter().try_for_each(|(key, value)| check_property(key, value))?;
    let mut properties = HashMap::from([("write.parquet.compression-codec".to_owned(), "zstd".to_owned())]);
    properties.extend(asked);
    properties.extend(token.map(Token::property));
    let order = SortOrder::unsorted_order();
    let built = TableMetadataBuilder::new(iceberg_schema, spec, order, location, version, properties)
        .and_then(TableMetadataBuilder::build)
        .map_err(|e| Error::invalid("expected columns and partition fields that Iceberg accepts").with_source(e))?;
    files::check(&built.metadata)?;
    Ok(built.metadata)
}

/// Enters a table into the catalog. An error comes with whether the table is out of it for certain, so that its files are of no
/// use.
async fn enter(
    tables: &Tables,
    name: &TableName,
    new: &NewTable,
    metadata: &Arc<TableMetadata>,
    location: &str,
) -> Result<Table, (Error, bool)> {
    let declared = catalog_input(&tables.io, name, metadata, location).map_err(|error| (error, true))?;
    let input = TableInput { description: new.comment.clone(), ..declared };
    // Whatever may fail comes first: an error after the table is in the catalog would look as if it were not.
    let unborn = Table::unborn(tables, name, Arc::clone(metadata)).map_err(|error| (error, true))?;
    let made = |entry| Table { entry: Arc::new(entry), location: location.to_owned(), ..unborn };
    let error = match tables.ports.catalog.create_table(&input).await {
        Ok(entry) => return Ok(made(entry)),
        Err(error) => error,
    };
    // Tells a table that this call made, though the answer was lost, from one that somebody else made.
    match tables.ports.catalog.get_table(name).await {
        Ok(entry) if entry.input.parameters.get("metadata_location").is_some_and(|found| found == location) => {
            Ok(made(entry))
        }
        Ok(_) => Err((error, true)),
        // A request without an answer may still take effect.
        Err(_) => {
            let refused = !matches!(error.kind(), ErrorKind::Retry | ErrorKind::OutcomeUnknown);
            Err((error, refused))
        }
    }
}

/// The table in the catalog.
pub(super) fn catalog_input(io: &Io, name: &TableName, metadata: &TableMetadata, location: &str) -> Result<TableInput> {
    Ok(TableInput {
        name: name.clone(),
        description: None,
        table_type: "EXTERNAL_TABLE".into(),
        parameters: BTreeMap::from([
            ("table_type".into(), "ICEBERG".into()),
            ("metadata_location".into(), location.to_owned()),
        ]),
        storage: StorageDescriptor {
            columns: schema::catalog_columns(metadata.current_schema())?,
            location: io.url(metadata.location())?.to_string(),
            ..StorageDescriptor::default()
        },
        partition_keys: Vec::new(),
    })
}

/// # Errors
/// `Denied` for a folder that is none of the warehouse's for tables; `Conflict` for one that holds something.
async fn chosen_location(tables: &Tables, asked: &str) -> Result<String> {
    let root = tables.ports.keys.root();
    let zone = format!("{}tables/", root.path());
    let url = tables.io.url(&format!("{}/", asked.trim_end_matches('/'))).ok();
    let same_store = |url: &Url| url.scheme() == root.scheme() && url.host_str() == root.host_str();
    // Two folders deep as all tables are, so that no table lies in another.
    let is_table =
        |rest: &str| rest.split('/').count() == 3 && rest.split('/').filter(|part| !part.is_empty()).count() == 2;
    let url = url.filter(|url| same_store(url) && url.path().strip_prefix(&zone).is_some_and(is_table));
    let url = url.ok_or_else(|| {
        let root = location_of(root);
        Error::denied(format!("expected a location such as `{root}tables/database/table/`, found `{asked}`"))
    })?;
    match tables.ports.storage.list(&url).await?.first() {
        None => Ok(location_of(&url)),
        Some(object) => Err(Error::conflict(format!("expected an empty location, found `{}`", object.url))),
    }
}

fn partition_spec(schema: &Schema, fields: &[PartitionField]) -> Result<UnboundPartitionSpec> {
    let mut builder = UnboundPartitionSpec::builder();
    for field in fields {
        let source = schema.field_by_name(&field.column).ok_or_else(|| {
            let known: Vec<_> = schema.as_struct().fields().iter().map(|f| format!("`{}`", f.name)).collect();
            Error::invalid(format!(
                "partition field `{field}`: expected one of {}, found `{}`",
                known.join(", "),
                field.column
            ))
        })?;
        let column = &field.column;
        let transform = iceberg_transform(field.transform);
        let name = match field.transform {
            Transform::Identity => column.clone(),
            Transform::Year => format!("{column}_year"),
            Transform::Month => format!("{column}_month"),
            Transform::Day => format!("{column}_day"),
            Transform::Hour => format!("{column}_hour"),
            Transform::Bucket(_) => format!("{column}_bucket"),
            Transform::Truncate(_) => format!("{column}_trunc"),
        };
        if transform.result_type(&source.field_type).is_err() {
            return Err(Error::invalid(format!(
                "partition field `{field}`: expected a column of a type that `{transform}` takes, found `{}`",
                source.field_type
            )));
        }
        check_partition_type(&field.column, transform, &source.field_type)?;
        builder = builder
            .add_partition_field(source.id, name, transform)
            .map_err(|e| Error::invalid(format!("partition field `{field}`")).with_source(e))?;
    }
    Ok(builder.build())
}
