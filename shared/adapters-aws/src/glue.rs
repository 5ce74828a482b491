//! The AWS Glue Data Catalog.

use std::collections::BTreeSet;

use async_trait::async_trait;
use aws_sdk_glue::Client;
use aws_sdk_glue::error::ProvideErrorMetadata;
use aws_sdk_glue::types::{BatchUpdatePartitionRequestEntry, ErrorDetail, PartitionValueList};
use futures::future::try_join_all;

use crate::client::{Aws, Call, kind_of_code};
use shared::catalog::{Catalog, Database, KeyFilter, MAX_PARTITIONS_PER_CALL, Partition, Table, TableInput, filter};
use shared::model::TableName;
use shared::model::name::check_identifier;
use shared::{Error, ErrorKind, Result};

mod convert;
mod expression;
mod types;

use convert::{VersionMark, database_of, partition_of, table_of, to_database, to_partition, to_table};

/// Partitions in one `BatchDeletePartition` at most.
const MAX_REMOVALS_PER_CALL: usize = 25;
/// Calls that are under way at once where one batch takes many.
const CALLS_AT_ONCE: usize = 8;
/// What the catalog answers about a partition that is there already, or is not.
const EXISTS: &str = "AlreadyExistsException";
const ABSENT: &str = "EntityNotFoundException";

/// [`Catalog`] in Glue, in the account and region of the caller.
///
/// What Tarn does not know of a table (owner, retention, buckets, a view's text) is kept when the table is updated.
#[derive(Debug, Clone)]
pub struct GlueCatalog {
    client: Client,
}

impl GlueCatalog {
    pub fn new(aws: &Aws) -> Self {
        Self { client: Client::new(aws.config()) }
    }

    async fn raw_table(&self, name: &TableName) -> Result<aws_sdk_glue::types::Table> {
        let resource = table(name);
        let answer = self.client.get_table().database_name(&name.database).name(&name.table).send().await;
        let answer = answer.map_err(|e| Call::repeatable("glue:GetTable", &resource).failed(e))?;
        answer.table.ok_or_else(|| Error::bug(format!("expected {resource} from Glue, found none")))
    }

    async fn raw_tables(&self, database: &str) -> Result<Vec<aws_sdk_glue::types::Table>> {
        let resource = format!("the tables of database `{database}`");
        let mut pages = self.client.get_tables().database_name(database).into_paginator().send();
        let mut tables = Vec::new();
        while let Some(page) = pages.next().await {
            let page = page.map_err(|e| Call::repeatable("glue:GetTables", &resource).failed(e))?;
            tables.extend(page.table_list.unwrap_or_default());
        }
        Ok(tables)
    }

    /// The table that a write ended with. A second attempt of a write whose answer was lost is refused because of what the first
    /// one made, which is then found here.
    ///
    /// # Errors
    /// That of the write; `OutcomeUnknown` when it may have taken effect and the table can't be read.
    async fn written(&self, write: Result<()>, input: &TableInput, after: &str) -> Result<Table> {
        let refused = match write {
            Ok(()) => None,
            Err(error) if error.kind() == ErrorKind::Conflict => Some(error),
            Err(error) => return Err(error),
        };
        let unknown = |error: Error| match error.kind() {
            ErrorKind::NotFound => error,
            _ => {
                let message = format!("{} may have been written, but can't be read", table(&input.name));
                Error::new(ErrorKind::OutcomeUnknown, message).with_source(error)
            }
        };
        let found = self.raw_table(&input.name).await.map_err(unknown)?;
        let found = table_of(found).map_err(unknown)?;
        match refused {
            None => Ok(ours(found, input, after)),
            Some(_) if found.input == *input => Ok(found),
            Some(error) => Err(error),
        }
    }

    async fn partitions_where(&self, name: &TableName, expression: Option<String>) -> Result<Vec<Partition>> {
        let ask = self.client.get_partitions().database_name(&name.database).table_name(&name.table);
        let mut pages = ask.set_expression(expression).into_paginator().send();
        let mut found = Vec::new();
        while let Some(page) = pages.next().await {
            let page = page.map_err(|e| Call::repeatable("glue:GetPartitions", &partitions(name)).failed(e))?;
            for partition in page.partitions.unwrap_or_default() {
                found.push(partition_of(partition));
            }
        }
        Ok(found)
    }

    async fn create_batch(&self, name: &TableName, batch: &[Partition]) -> Result<Vec<Vec<String>>> {
        let resource = partitions(name);
        let inputs = batch.iter().map(to_partition).collect::<Result<Vec<_>>>()?;
        let create = self.client.batch_create_partition().database_name(&name.database).table_name(&name.table);
        let answer = create.set_partition_input_list(Some(inputs)).send().await;
        let answer = answer.map_err(|e| Call::repeatable("glue:BatchCreatePartition", &resource).failed(e))?;
        let mut existing = Vec::new();
        for error in answer.errors.unwrap_or_default() {
            let values = error.partition_values.unwrap_or_default();
            match error.error_detail {
                Some(detail) if detail.error_code() == Some(EXISTS) => existing.push(values),
                detail => return Err(refused("glue:BatchCreatePartition", name, &values, detail)),
            }
        }
        Ok(existing)
    }

    async fn update_batch(&self, name: &TableName, batch: &[Partition]) -> Result<Vec<Vec<String>>> {
        let entry = |partition: &Partition| {
            BatchUpdatePartitionRequestEntry::builder()
                .set_partition_value_list(Some(partition.values.clone()))
                .partition_input(to_partition(partition)?)
                .build()
                .map_err(|e| Error::bug("a partition lacks what Glue needs").with_source(e))
        };
        let entries = batch.iter().map(entry).collect::<Result<Vec<_>>>()?;
        let update = self.client.batch_update_partition().database_name(&name.database).table_name(&name.table);
        let answer = update.set_entries(Some(entries)).send().await;
        let answer = answer.map_err(|e| Call::repeatable("glue:BatchUpdatePartition", &partitions(name)).failed(e))?;
        let mut absent = Vec::new();
        for error in answer.errors.unwrap_or_default() {
            let values = error.partition_value_list.unwrap_or_default();
            match error.error_detail {
                Some(detail) if detail.error_code() == Some(ABSENT) => absent.push(values),
                detail => return Err(refused("glue:BatchUpdatePartition", name, &values, detail)),
            }
        }
        Ok(absent)
    }

    async fn delete_batch(&self, name: &TableName, batch: &[Vec<String>]) -> Result<()> {
        let list = batch.iter().map(|values| PartitionValueList::builder().set_values(Some(values.clone())).build());
        let list = list.collect::<Result<Vec<_>, _>>().map_err(|e| Error::bug("no values").with_source(e))?;
        let delete = self.client.batch_delete_partition().database_name(&name.database).table_name(&name.table);
        let answer = match delete.set_partitions_to_delete(Some(list)).send().await {
            // Some emulators have no batches.
            Err(error) if is_unknown_operation(error.code()) => return self.delete_each(name, batch).await,
            answer => answer.map_err(|e| Call::repeatable("glue:BatchDeletePartition", &partitions(name)).failed(e))?,
        };
        for error in answer.errors.unwrap_or_default() {
            if error.error_detail.as_ref().and_then(ErrorDetail::error_code) != Some(ABSENT) {
                let values = error.partition_values.unwrap_or_default();
                return Err(refused("glue:BatchDeletePartition", name, &values, error.error_detail));
            }
        }
        Ok(())
    }

    async fn delete_each(&self, name: &TableName, batch: &[Vec<String>]) -> Result<()> {
        for values in batch {
            let delete = self.client.delete_partition().database_name(&name.database).table_name(&name.table);
            match delete.set_partition_values(Some(values.clone())).send().await {
                Err(error) if error.code() != Some(ABSENT) => {
                    return Err(Call::repeatable("glue:DeletePartition", &partitions(name)).failed(error));
                }
                _ => {}
            }
        }
        Ok(())
    }
}

#[async_trait]
impl Catalog for GlueCatalog {
    async fn create_database(&self, database: &Database) -> Result<()> {
        check_identifier("database", &database.name)?;
        let resource = format!("database `{}`", database.name);
        if found(self.get_database(&database.name).await)?.is_some() {
            return Err(Error::conflict(format!("{resource} exists already")));
        }
        let answer = self.client.create_database().database_input(to_database(database)?).send().await;
        match answer.map_err(|e| Call::repeatable("glue:CreateDatabase", &resource).failed(e)) {
            // The attempt before, whose answer was lost, has made it.
            Err(error)
                if error.kind() == ErrorKind::Conflict && self.get_database(&database.name).await? == *database =>
            {
                Ok(())
            }
            answer => answer.map(drop),
        }
    }

    async fn get_database(&self, name: &str) -> Result<Database> {
        let resource = format!("database `{name}`");
        let answer = self.client.get_database().name(name).send().await;
        let answer = answer.map_err(|e| Call::repeatable("glue:GetDatabase", &resource).failed(e))?;
        let found = answer.database.ok_or_else(|| Error::bug(format!("expected {resource} from Glue, found none")))?;
        Ok(database_of(found))
    }

    async fn list_databases(&self) -> Result<Vec<Database>> {
        let mut pages = self.client.get_databases().into_paginator().send();
        let mut databases = Vec::new();
        while let Some(page) = pages.next().await {
            let page = page.map_err(|e| Call::repeatable("glue:GetDatabases", "all databases").failed(e))?;
            databases.extend(page.database_list.into_iter().map(database_of));
        }
        databases.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(databases)
    }

    async fn delete_database(&self, name: &str) -> Result<()> {
        self.get_database(name).await?;
        // Glue would remove the tables too.
        let tables = self.raw_tables(name).await?.len();
        if tables > 0 {
            return Err(Error::conflict(format!("database `{name}` still holds {tables} tables")));
        }
        let answer = self.client.delete_database().name(name).send().await;
        let answer =
            answer.map_err(|e| Call::repeatable("glue:DeleteDatabase", &format!("database `{name}`")).failed(e));
        // It was there: an attempt whose answer was lost has removed it, or somebody who wanted the same.
        found(answer).map(drop)
    }

    async fn create_table(&self, input: &TableInput) -> Result<Table> {
        let TableName { database, table: of } = &input.name;
        TableName::new(database.as_str(), of.as_str())?;
        let resource = table(&input.name);
        if found(self.raw_table(&input.name).await)?.is_some() {
            return Err(Error::conflict(format!("{resource} exists already")));
        }
        let create = self.client.create_table().database_name(database).table_input(to_table(input, None)?);
        let made = create.send().await.map_err(|e| Call::once("glue:CreateTable", &resource).failed(e));
        self.written(made.map(drop), input, "created").await
    }

    async fn get_table(&self, name: &TableName) -> Result<Table> {
        table_of(self.raw_table(name).await?)
    }

    async fn list_tables(&self, database: &str) -> Result<Vec<Table>> {
        let raw = self.raw_tables(database).await?;
        if raw.is_empty() {
            self.get_database(database).await?;
        }
        let mut tables = Vec::with_capacity(raw.len());
        for raw in raw {
            let name = raw.name.clone();
            match table_of(raw) {
                Ok(table) => tables.push(table),
                // Other programs' tables may have what Tarn does not know: theirs must not hide ours.
                Err(error) => tracing::warn!(database, table = name, %error, "a table in Glue can't be read"),
            }
        }
        tables.sort_by(|a, b| a.input.name.cmp(&b.input.name));
        Ok(tables)
    }

    async fn update_table(&self, input: &TableInput, expected_version: &str) -> Result<Table> {
        let resource = table(&input.name);
        let now = self.raw_table(&input.name).await?;
        let mark = VersionMark::of(&now)?;
        if mark.to_string() != expected_version {
            return Err(Error::conflict(format!(
                "{resource}: expected version `{expected_version}`, found version `{mark}`"
            )));
        }
        // An Iceberg table keeps its history in its metadata; Glue allows only so many versions.
        let iceberg = input.parameters.get("table_type").is_some_and(|t| t.eq_ignore_ascii_case("iceberg"));
        let update = self.client.update_table().database_name(&input.name.database).skip_archive(iceberg);
        let update = update.table_input(to_table(input, Some(now))?).set_version_id(mark.id);
        let updated = update.send().await.map_err(|e| Call::once("glue:UpdateTable", &resource).failed(e));
        self.written(updated.map(drop), input, expected_version).await
    }

    async fn delete_table(&self, name: &TableName) -> Result<()> {
        self.raw_table(name).await?;
        let delete = self.client.delete_table().database_name(&name.database).name(&name.table);
        let answer = delete.send().await.map_err(|e| Call::repeatable("glue:DeleteTable", &table(name)).failed(e));
        // It was there: an attempt whose answer was lost has removed it, or somebody who wanted the same.
        found(answer).map(drop)
    }

    async fn table_versions(&self, name: &TableName) -> Result<Vec<Table>> {
        self.raw_table(name).await?;
        let ask = self.client.get_table_versions().database_name(&name.database).table_name(&name.table);
        let mut pages = ask.into_paginator().send();
        let mut versions = Vec::new();
        while let Some(page) = pages.next().await {
            let page = page.map_err(|e| Call::repeatable("glue:GetTableVersions", &table(name)).failed(e))?;
            for version in page.table_versions.unwrap_or_default() {
                let Some(mut raw) = version.table else { continue };
                raw.version_id = version.version_id.or(raw.version_id);
                versions.push(raw);
            }
        }
        let number = |raw: &aws_sdk_glue::types::Table| raw.version_id.as_ref().and_then(|id| id.parse::<u64>().ok());
        versions.sort_by_key(|raw| std::cmp::Reverse(number(raw)));
        versions.into_iter().map(table_of).collect()
    }

    async fn create_partitions(&self, name: &TableName, partitions: &[Partition]) -> Result<Vec<Vec<String>>> {
        let keys = self.get_table(name).await?.input.partition_keys.len();
        if let Some(wrong) = partitions.iter().find(|partition| partition.values.len() != keys) {
            return Err(Error::invalid(format!(
                "table `{name}`: expected {keys} values of a partition, found {}: {:?}",
                wrong.values.len(),
                wrong.values
            )));
        }
        let mut existing = Vec::new();
        for wave in partitions.chunks(MAX_PARTITIONS_PER_CALL * CALLS_AT_ONCE) {
            let calls = wave.chunks(MAX_PARTITIONS_PER_CALL).map(|batch| self.create_batch(name, batch));
            existing.extend(try_join_all(calls).await?.into_iter().flatten());
        }
        Ok(existing)
    }

    async fn list_partitions(&self, name: &TableName, filters: &[KeyFilter]) -> Result<Vec<Partition>> {
        let keys = self.get_table(name).await?.input.partition_keys;
        let mut found = match expression::of(&keys, filters) {
            None => self.partitions_where(name, None).await?,
            Some(expression) => match self.partitions_where(name, Some(expression)).await {
                // As when some partition's value is none of its column's type, or a column's name is a word of the expressions.
                Err(error) if error.kind() == ErrorKind::Invalid => {
                    tracing::debug!(table = %name, %error, "Glue refused to choose partitions: all are listed");
                    self.partitions_where(name, None).await?
                }
                found => found?,
            },
        };
        // Not every catalog looks at the expression, and it can't say everything.
        found.retain(|partition| filter::admit(filters, &keys, &partition.values));
        found.sort_by(|a, b| a.values.cmp(&b.values));
        Ok(found)
    }

    async fn update_partitions(&self, name: &TableName, partitions: &[Partition]) -> Result<Vec<Vec<String>>> {
        self.raw_table(name).await?;
        let mut absent = Vec::new();
        for wave in partitions.chunks(MAX_PARTITIONS_PER_CALL * CALLS_AT_ONCE) {
            let calls = wave.chunks(MAX_PARTITIONS_PER_CALL).map(|batch| self.update_batch(name, batch));
            absent.extend(try_join_all(calls).await?.into_iter().flatten());
        }
        Ok(absent)
    }

    async fn delete_partitions(&self, name: &TableName, values: &[Vec<String>]) -> Result<()> {
        self.raw_table(name).await?;
        let distinct: BTreeSet<_> = values.iter().cloned().collect();
        let distinct: Vec<_> = distinct.into_iter().collect();
        for wave in distinct.chunks(MAX_REMOVALS_PER_CALL * CALLS_AT_ONCE) {
            let calls = wave.chunks(MAX_REMOVALS_PER_CALL).map(|batch| self.delete_batch(name, batch));
            try_join_all(calls).await?;
        }
        Ok(())
    }
}

/// `found`, which was read after `input` was written. When somebody wrote in between, its version is not the one that was
/// written: the table then bears a mark that no update can match.
fn ours(found: Table, input: &TableInput, after: &str) -> Table {
    if found.input == *input {
        return found;
    }
    Table { input: input.clone(), version: format!("superseded after {after}"), ..found }
}

/// `None` for what is not there.
fn found<T>(result: Result<T>) -> Result<Option<T>> {
    match result {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        result => result.map(Some),
    }
}

fn table(name: &TableName) -> String {
    format!("table `{name}`")
}

fn partitions(name: &TableName) -> String {
    format!("the partitions of table `{name}`")
}

fn is_unknown_operation(code: Option<&str>) -> bool {
    matches!(code, Some("InvalidAction" | "UnknownOperationException" | "NotImplemented" | "InvalidRequestException"))
}

fn refused(action: &str, name: &TableName, values: &[String], detail: Option<ErrorDetail>) -> Error {
    let code = detail.as_ref().and_then(ErrorDetail::error_code).unwrap_or("no code");
    let said = detail.as_ref().and_then(ErrorDetail::error_message).unwrap_or("no reason was given");
    let kind = kind_of_code(code).unwrap_or(ErrorKind::Retry);
    Error::new(kind, format!("`{action}` on partition {values:?} of table `{name}` failed ({code}): {said}"))
}
