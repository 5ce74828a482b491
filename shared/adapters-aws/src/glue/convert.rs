//! Between the catalog's words and Glue's.

use std::collections::{BTreeMap, HashMap};
use std::fmt;

use aws_sdk_glue::primitives::DateTime;
use aws_sdk_glue::types::builders::TableInputBuilder;
use aws_sdk_glue::types::{
    Column as GlueColumn, Database as GlueDatabase, DatabaseInput, Partition as GluePartition, PartitionInput,
    SerDeInfo, StorageDescriptor as GlueStorage, Table as GlueTable, TableInput as GlueTableInput,
};

use super::types::{glue_type, key_of_url, url_of_key};
use shared::catalog::{Database, Partition, StorageDescriptor, Table, TableInput};
use shared::digest::sha256_hex;
use shared::model::{Column, ColumnType, TableName};
use shared::{Error, Result};

/// The column parameter by which Iceberg's own Glue catalog says whether a value may be missing.
const OPTIONAL: &str = "iceberg.field.optional";
/// The column parameter that holds Tarn's type where Glue's is another (see [`glue_type`]).
const TYPE: &str = "tarn.type";

/// What tells a version of a table from every other: Glue's number and a hash of the content. A table that was removed and made
/// again begins to count anew.
pub(super) struct VersionMark {
    pub(super) id: Option<String>,
    hash: String,
}

impl VersionMark {
    pub(super) fn of(table: &GlueTable) -> Result<Self> {
        let created = millis(table.create_time.as_ref());
        let content = serde_json::to_vec(&(input_of(table), created))
            .map_err(|e| Error::bug("a table has no JSON form").with_source(e))?;
        let hash = sha256_hex(content, 8);
        Ok(Self { id: table.version_id.clone(), hash })
    }
}

impl fmt::Display for VersionMark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.id.as_deref().unwrap_or("none"), self.hash)
    }
}

pub(super) fn table_of(table: GlueTable) -> Result<Table> {
    let version = VersionMark::of(&table)?.to_string();
    let (input, fault) = input_of(&table);
    let created_ms = millis(table.create_time.as_ref());
    let updated_ms = table.update_time.as_ref().map_or(created_ms, |time| millis(Some(time)));
    Ok(Table { input, version, created_ms, updated_ms, fault })
}

/// What Glue holds of a table, and what of it can't be read: that is left out.
fn input_of(table: &GlueTable) -> (TableInput, Option<String>) {
    let (database, name) = (table.database_name.clone().unwrap_or_default(), table.name.clone());
    let mut fault = TableName::new(database.as_str(), name.as_str()).err();
    let storage = table.storage_descriptor.clone().map(|storage| storage_of(storage, &mut fault)).unwrap_or_default();
    let partition_keys = columns_of(table.partition_keys.clone(), None, &mut fault);
    let input = TableInput {
        name: TableName { database, table: name },
        description: table.description.clone().filter(|text| !text.is_empty()),
        table_type: table.table_type.clone().unwrap_or_default(),
        parameters: sorted(table.parameters.clone()),
        storage,
        partition_keys,
    };
    (input, fault.map(|fault| fault.to_string()))
}

/// What Glue is to hold. Of `now`, the table that is replaced, stays what Tarn has no word for.
pub(super) fn to_table(input: &TableInput, now: Option<GlueTable>) -> Result<GlueTableInput> {
    let (builder, storage) = match now {
        Some(now) => (kept(&now), now.storage_descriptor),
        None => (GlueTableInput::builder(), None),
    };
    builder
        .name(&input.name.table)
        .set_description(input.description.clone())
        .table_type(&input.table_type)
        .set_parameters(Some(input.parameters.clone().into_iter().collect()))
        .storage_descriptor(to_storage(&input.storage, storage)?)
        .set_partition_keys(Some(to_columns(&input.partition_keys, None)?))
        .build()
        .map_err(|e| Error::bug(format!("table `{}` lacks what Glue needs", input.name)).with_source(e))
}

fn kept(now: &GlueTable) -> TableInputBuilder {
    GlueTableInput::builder()
        .set_owner(now.owner.clone())
        .set_last_access_time(now.last_access_time)
        .set_last_analyzed_time(now.last_analyzed_time)
        .retention(now.retention)
        .set_view_original_text(now.view_original_text.clone())
        .set_view_expanded_text(now.view_expanded_text.clone())
        .set_target_table(now.target_table.clone())
}

fn storage_of(storage: GlueStorage, fault: &mut Option<Error>) -> StorageDescriptor {
    let serde = storage.serde_info;
    let library = serde.as_ref().and_then(|s| s.serialization_library.clone()).filter(|name| !name.is_empty());
    StorageDescriptor {
        columns: columns_of(storage.columns, library.as_deref(), fault),
        location: url_of_key(&storage.location.unwrap_or_default()),
        input_format: storage.input_format.filter(|name| !name.is_empty()),
        output_format: storage.output_format.filter(|name| !name.is_empty()),
        serde_library: library,
        serde_parameters: sorted(serde.and_then(|s| s.parameters)),
        compressed: storage.compressed,
        parameters: sorted(storage.parameters),
    }
}

fn to_storage(storage: &StorageDescriptor, now: Option<GlueStorage>) -> Result<GlueStorage> {
    let serde = SerDeInfo::builder()
        .set_name(now.as_ref().and_then(|now| now.serde_info.as_ref()?.name.clone()))
        .set_serialization_library(storage.serde_library.clone())
        .set_parameters(Some(storage.serde_parameters.clone().into_iter().collect()))
        .build();
    let columns = to_columns(&storage.columns, storage.serde_library.as_deref())?;
    let mut builder = GlueStorage::builder();
    if let Some(now) = now {
        builder = builder
            .set_additional_locations(now.additional_locations)
            .number_of_buckets(now.number_of_buckets)
            .set_bucket_columns(now.bucket_columns)
            .set_sort_columns(now.sort_columns)
            .set_skewed_info(now.skewed_info)
            .stored_as_sub_directories(now.stored_as_sub_directories)
            .set_schema_reference(now.schema_reference);
    }
    let builder = builder
        .set_columns(Some(columns))
        .location(key_of_url(&storage.location)?)
        .set_input_format(storage.input_format.clone())
        .set_output_format(storage.output_format.clone())
        .compressed(storage.compressed)
        .serde_info(serde)
        .set_parameters(Some(storage.parameters.clone().into_iter().collect()));
    Ok(builder.build())
}

/// The columns of files that the serde `library` reads; none, and why, when one has a type that can't be read.
fn columns_of(columns: Option<Vec<GlueColumn>>, library: Option<&str>, fault: &mut Option<Error>) -> Vec<Column> {
    let columns: Result<Vec<Column>> =
        columns.unwrap_or_default().into_iter().map(|column| column_of(column, library)).collect();
    columns.unwrap_or_else(|error| {
        fault.get_or_insert(error);
        Vec::new()
    })
}

fn column_of(column: GlueColumn, library: Option<&str>) -> Result<Column> {
    let parameters = column.parameters.unwrap_or_default();
    let parse =
        |text: &str| text.parse::<ColumnType>().map_err(|e: Error| e.context(format!("column `{}`", column.name)));
    let declared = parse(column.r#type.as_deref().unwrap_or("string"))?;
    // Somebody may have given the column another type since: that one holds.
    let own = parameters.get(TYPE).map(|text| parse(text)).transpose()?;
    let own = own.filter(|own| glue_type(own, library) == declared);
    Ok(Column {
        ty: own.unwrap_or(declared),
        required: parameters.get(OPTIONAL).is_some_and(|optional| optional == "false"),
        comment: column.comment.filter(|text| !text.is_empty()),
        name: column.name,
    })
}

fn to_columns(columns: &[Column], library: Option<&str>) -> Result<Vec<GlueColumn>> {
    columns.iter().map(|column| to_column(column, library)).collect()
}

fn to_column(column: &Column, library: Option<&str>) -> Result<GlueColumn> {
    let ty = glue_type(&column.ty, library);
    let optional = column.required.then(|| (OPTIONAL.to_owned(), "false".to_owned()));
    let own = (ty != column.ty).then(|| (TYPE.to_owned(), column.ty.to_string()));
    let parameters: HashMap<String, String> = optional.into_iter().chain(own).collect();
    GlueColumn::builder()
        .name(&column.name)
        .r#type(ty.to_string())
        .set_comment(column.comment.clone())
        .set_parameters((!parameters.is_empty()).then_some(parameters))
        .build()
        .map_err(|e| Error::bug(format!("column `{}` lacks what Glue needs", column.name)).with_source(e))
}

/// A partition is read with its table's columns, so its own may be ones that can't be read.
pub(super) fn partition_of(partition: GluePartition) -> Partition {
    let storage = partition.storage_descriptor.map(|storage| storage_of(storage, &mut None));
    Partition {
        values: partition.values.unwrap_or_default(),
        storage: storage.unwrap_or_default(),
        parameters: sorted(partition.parameters),
    }
}

pub(super) fn to_partition(partition: &Partition) -> Result<PartitionInput> {
    let builder = PartitionInput::builder()
        .set_values(Some(partition.values.clone()))
        .storage_descriptor(to_storage(&partition.storage, None)?)
        .set_parameters(Some(partition.parameters.clone().into_iter().collect()));
    Ok(builder.build())
}

pub(super) fn database_of(database: GlueDatabase) -> Database {
    Database {
        name: database.name,
        description: database.description.filter(|text| !text.is_empty()),
        location: database.location_uri.filter(|text| !text.is_empty()),
        parameters: sorted(database.parameters),
    }
}

pub(super) fn to_database(database: &Database) -> Result<DatabaseInput> {
    DatabaseInput::builder()
        .name(&database.name)
        .set_description(database.description.clone())
        .set_location_uri(database.location.clone())
        .set_parameters(Some(database.parameters.clone().into_iter().collect()))
        .build()
        .map_err(|e| Error::bug(format!("database `{}` lacks what Glue needs", database.name)).with_source(e))
}

fn sorted(parameters: Option<HashMap<String, String>>) -> BTreeMap<String, String> {
    parameters.unwrap_or_default().into_iter().collect()
}

fn millis(time: Option<&DateTime>) -> i64 {
    time.and_then(|time| time.to_millis().ok()).unwrap_or_default()
}
