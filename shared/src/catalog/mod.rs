//! The catalog of databases, tables and partitions, in the shape of the AWS Glue Data Catalog.

use std::collections::BTreeMap;
use std::fmt::Debug;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use crate::model::{Column, TableName};
use crate::{Error, Result};

pub mod declared;
pub mod filter;
pub mod hive;
mod locks;

pub use self::filter::{KeyFilter, NULL_VALUE, Wanted};
pub use self::locks::{AdvisoryLock, AdvisoryLocks};

/// Partitions in one call at most (Glue `BatchCreatePartition` and `BatchUpdatePartition`: 100); the adapters cut larger batches
/// themselves.
pub const MAX_PARTITIONS_PER_CALL: usize = 100;

/// A database.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Database {
    pub name: String,
    pub description: Option<String>,
    /// URL of the folder for new tables.
    pub location: Option<String>,
    pub parameters: BTreeMap<String, String>,
}

/// Where a table's or partition's data lies and how it is written (Glue `StorageDescriptor`).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StorageDescriptor {
    /// Without the partition columns.
    pub columns: Vec<Column>,
    /// A folder's URL.
    pub location: String,
    /// A Hive class name, e.g. `org.apache.hadoop.hive.ql.io.parquet.MapredParquetInputFormat`.
    pub input_format: Option<String>,
    pub output_format: Option<String>,
    /// A Hive class name, e.g. `org.openx.data.jsonserde.JsonSerDe`.
    pub serde_library: Option<String>,
    pub serde_parameters: BTreeMap<String, String>,
    pub compressed: bool,
    pub parameters: BTreeMap<String, String>,
}

/// What the caller declares of a table (Glue `TableInput`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TableInput {
    pub name: TableName,
    pub description: Option<String>,
    /// `EXTERNAL_TABLE` or `VIRTUAL_VIEW`.
    pub table_type: String,
    /// E.g. `table_type=ICEBERG` and `metadata_location` of an Iceberg table, `classification` of a file table.
    pub parameters: BTreeMap<String, String>,
    pub storage: StorageDescriptor,
    pub partition_keys: Vec<Column>,
}

/// A table as the catalog holds it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Table {
    pub input: TableInput,
    /// Changes with every update; what [`Catalog::update_table`] compares.
    pub version: String,
    /// Milliseconds since the epoch.
    pub created_ms: i64,
    pub updated_ms: i64,
    /// What is wrong with a definition that can't be read whole; `input` then has no columns. Such a table is listed and can be
    /// dropped, and stands in the way of no other.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fault: Option<String>,
}

impl Table {
    /// # Errors
    /// `Invalid`, naming the table and what is wrong with its definition.
    pub fn check(&self) -> Result<()> {
        match &self.fault {
            None => Ok(()),
            Some(fault) => Err(Error::invalid(format!(
                "the definition of table `{}` in the catalog can't be read; drop the table or correct it there: {fault}",
                self.input.name
            ))),
        }
    }

    /// Whether the table is an Iceberg table (`table_type=ICEBERG`, in any case).
    pub fn is_iceberg(&self) -> bool {
        self.input.parameters.get("table_type").is_some_and(|t| t.eq_ignore_ascii_case("iceberg"))
    }
}

/// A partition of a file table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Partition {
    /// One value for each partition column, in their order.
    pub values: Vec<String>,
    pub storage: StorageDescriptor,
    pub parameters: BTreeMap<String, String>,
}

/// Databases, tables, partitions and table versions. Names are lowercase.
#[async_trait]
pub trait Catalog: Debug + Send + Sync {
    /// # Errors
    /// `Conflict` when it exists.
    async fn create_database(&self, database: &Database) -> Result<()>;

    /// # Errors
    /// `NotFound`.
    async fn get_database(&self, name: &str) -> Result<Database>;

    /// In order of name.
    async fn list_databases(&self) -> Result<Vec<Database>>;

    /// Removes a database that holds no tables.
    ///
    /// # Errors
    /// `NotFound`; `Conflict` when it still holds tables.
    async fn delete_database(&self, name: &str) -> Result<()>;

    /// # Errors
    /// `NotFound` without its database; `Conflict` when the table exists.
    async fn create_table(&self, input: &TableInput) -> Result<Table>;

    /// # Errors
    /// `NotFound`, naming the table.
    async fn get_table(&self, name: &TableName) -> Result<Table>;

    /// In order of name.
    ///
    /// # Errors
    /// `NotFound` without the database.
    async fn list_tables(&self, database: &str) -> Result<Vec<Table>>;

    /// Replaces the table's declaration if it still has `expected_version`; the one before stays in [`Catalog::table_versions`].
    ///
    /// # Errors
    /// `NotFound`; `Conflict` when the version has changed.
    async fn update_table(&self, input: &TableInput, expected_version: &str) -> Result<Table>;

    /// Removes the table, its versions and partitions; never its data.
    ///
    /// # Errors
    /// `NotFound`.
    async fn delete_table(&self, name: &TableName) -> Result<()>;

    /// All versions, newest (the current one) first.
    ///
    /// # Errors
    /// `NotFound`.
    async fn table_versions(&self, name: &TableName) -> Result<Vec<Table>>;

    /// Adds partitions, any number. Those that exist are left as they are; gives back the values of those.
    ///
    /// # Errors
    /// `NotFound` without the table; `Invalid` when a partition has not one value for each partition column.
    async fn create_partitions(&self, name: &TableName, partitions: &[Partition]) -> Result<Vec<Vec<String>>>;

    /// Partitions in order of their values: those that may match all of `filters`. A partition that matches none may be among them
    /// only for a value that is none of its column's type, or a type whose values are not compared (see [`Wanted`]).
    ///
    /// # Errors
    /// `NotFound` without the table.
    async fn list_partitions(&self, name: &TableName, filters: &[KeyFilter]) -> Result<Vec<Partition>>;

    /// Replaces partitions, any number. None is made: gives back the values of those that are not there.
    ///
    /// # Errors
    /// `NotFound` without the table.
    async fn update_partitions(&self, name: &TableName, partitions: &[Partition]) -> Result<Vec<Vec<String>>>;

    /// Removes partitions, any number; absent ones are passed over.
    ///
    /// # Errors
    /// `NotFound` without the table.
    async fn delete_partitions(&self, name: &TableName, values: &[Vec<String>]) -> Result<()>;
}

/// Makes the database unless it exists.
///
/// # Errors
/// Any but the `Conflict` of an existing database.
pub async fn ensure_database(catalog: &dyn Catalog, name: &str) -> Result<()> {
    let database = Database { name: name.into(), description: None, location: None, parameters: BTreeMap::new() };
    match catalog.create_database(&database).await {
        Err(error) if error.kind() == crate::ErrorKind::Conflict => Ok(()),
        other => other,
    }
}
