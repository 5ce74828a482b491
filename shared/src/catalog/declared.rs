//! A catalog of which only some databases are seen: those that a lakehouse declares.
//!
//! An account's Glue catalog holds the databases of others too, and the roles of the functions reach only the declared ones. What
//! is not declared is not there: it is neither listed nor asked for.

use std::collections::BTreeSet;
use std::sync::Arc;

use async_trait::async_trait;
use futures::future::try_join_all;

use super::{Catalog, Database, KeyFilter, Partition, Table, TableInput};
use crate::model::TableName;
use crate::{Error, ErrorKind, Result};

/// The databases `seen` of the catalog `inner`.
#[derive(Debug)]
pub struct Declared {
    inner: Arc<dyn Catalog>,
    seen: BTreeSet<String>,
}

impl Declared {
    pub fn new(inner: Arc<dyn Catalog>, seen: BTreeSet<String>) -> Self {
        Self { inner, seen }
    }

    fn check(&self, database: &str) -> Result<()> {
        if self.seen.contains(database) {
            return Ok(());
        }
        let known: Vec<_> = self.seen.iter().map(|name| format!("`{name}`")).collect();
        Err(Error::not_found(format!(
            "no database `{database}` in this lakehouse: expected one of {}",
            known.join(", ")
        )))
    }

    async fn found(&self, name: &str) -> Result<Option<Database>> {
        match self.inner.get_database(name).await {
            Ok(database) => Ok(Some(database)),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }
}

#[async_trait]
impl Catalog for Declared {
    async fn create_database(&self, database: &Database) -> Result<()> {
        self.check(&database.name)?;
        self.inner.create_database(database).await
    }

    async fn get_database(&self, name: &str) -> Result<Database> {
        self.check(name)?;
        self.inner.get_database(name).await
    }

    async fn list_databases(&self) -> Result<Vec<Database>> {
        let found = try_join_all(self.seen.iter().map(|name| self.found(name))).await?;
        Ok(found.into_iter().flatten().collect())
    }

    async fn delete_database(&self, name: &str) -> Result<()> {
        self.check(name)?;
        self.inner.delete_database(name).await
    }

    async fn create_table(&self, input: &TableInput) -> Result<Table> {
        self.check(&input.name.database)?;
        self.inner.create_table(input).await
    }

    async fn get_table(&self, name: &TableName) -> Result<Table> {
        self.check(&name.database)?;
        self.inner.get_table(name).await
    }

    async fn list_tables(&self, database: &str) -> Result<Vec<Table>> {
        self.check(database)?;
        self.inner.list_tables(database).await
    }

    async fn update_table(&self, input: &TableInput, expected_version: &str) -> Result<Table> {
        self.check(&input.name.database)?;
        self.inner.update_table(input, expected_version).await
    }

    async fn delete_table(&self, name: &TableName) -> Result<()> {
        self.check(&name.database)?;
        self.inner.delete_table(name).await
    }

    async fn table_versions(&self, name: &TableName) -> Result<Vec<Table>> {
        self.check(&name.database)?;
        self.inner.table_versions(name).await
    }

    async fn create_partitions(&self, name: &TableName, partitions: &[Partition]) -> Result<Vec<Vec<String>>> {
        self.check(&name.database)?;
        self.inner.create_partitions(name, partitions).await
    }

    async fn list_partitions(&self, name: &TableName, filters: &[KeyFilter]) -> Result<Vec<Partition>> {
        self.check(&name.database)?;
        self.inner.list_partitions(name, filters).await
    }

    async fn update_partitions(&self, name: &TableName, partitions: &[Partition]) -> Result<Vec<Vec<String>>> {
        self.check(&name.database)?;
        self.inner.update_partitions(name, partitions).await
    }

    async fn delete_partitions(&self, name: &TableName, values: &[Vec<String>]) -> Result<()> {
        self.check(&name.database)?;
        self.inner.delete_partitions(name, values).await
    }
}
