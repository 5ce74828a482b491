//! The catalog in SQLite.
//!
//! Every version of a table is a row of `versions`; the table points to its current one. A version's number is the row's id
//! and is never used twice, so a table that was dropped and made again does not pass for the old one. Declarations are kept
//! as JSON, names and partition values as columns that can be searched.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use rusqlite::{OptionalExtension, Row, Transaction};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::sqlite::{self, Schema};
use shared::catalog::{Catalog, Database, KeyFilter, Partition, StorageDescriptor, Table, TableInput, filter};
use shared::clock::Clock;
use shared::model::TableName;
use shared::model::name::check_identifier;
use shared::{Error, Result};

mod values;

const SCHEMA: Schema = Schema {
    version: 1,
    sql: "
        CREATE TABLE databases (
            name TEXT PRIMARY KEY,
            body TEXT NOT NULL
        ) WITHOUT ROWID;
        CREATE TABLE tables (
            id INTEGER PRIMARY KEY,
            database TEXT NOT NULL REFERENCES databases (name),
            name TEXT NOT NULL,
            created_ms INTEGER NOT NULL,
            version INTEGER NOT NULL,
            UNIQUE (database, name)
        );
        CREATE TABLE versions (
            version INTEGER PRIMARY KEY AUTOINCREMENT,
            table_id INTEGER NOT NULL,
            updated_ms INTEGER NOT NULL,
            body TEXT NOT NULL
        );
        CREATE INDEX versions_by_table ON versions (table_id);
        CREATE TABLE partitions (
            table_id INTEGER NOT NULL,
            key BLOB NOT NULL,
            body TEXT NOT NULL,
            PRIMARY KEY (table_id, key)
        ) WITHOUT ROWID;
    ",
};

/// [`Catalog`] in one SQLite file.
#[derive(Debug, Clone)]
pub struct EmbeddedCatalog {
    file: sqlite::Database,
    clock: Arc<dyn Clock>,
}

impl EmbeddedCatalog {
    /// Opens the file at `path`, made when it is absent.
    ///
    /// # Errors
    /// `Denied` when it can't be opened, `Limit` on a full disk, `Invalid` when another version of Tarn wrote it.
    pub fn open(path: &Path, clock: Arc<dyn Clock>) -> Result<Self> {
        Ok(Self { file: sqlite::Database::open(path, &SCHEMA)?, clock })
    }

    /// A catalog that ends with its last clone.
    ///
    /// # Errors
    /// `Bug` when SQLite can't open in memory.
    pub fn in_memory(clock: Arc<dyn Clock>) -> Result<Self> {
        Ok(Self { file: sqlite::Database::in_memory(&SCHEMA)?, clock })
    }
}

#[async_trait]
impl Catalog for EmbeddedCatalog {
    async fn create_database(&self, database: &Database) -> Result<()> {
        check_identifier("database", &database.name)?;
        let (name, body) = (database.name.clone(), to_json(database)?);
        self.file
            .write(move |t| {
                let insert = "INSERT OR IGNORE INTO databases (name, body) VALUES (?1, ?2)";
                match t.execute(insert, (&name, &body))? {
                    0 => Err(Error::conflict(format!("database `{name}` exists"))),
                    _ => Ok(()),
                }
            })
            .await
    }

    async fn get_database(&self, name: &str) -> Result<Database> {
        let name = name.to_owned();
        self.file.read(move |t| database(t, &name)).await
    }

    async fn list_databases(&self) -> Result<Vec<Database>> {
        self.file
            .read(|t| {
                let mut statement = t.prepare_cached("SELECT body FROM databases ORDER BY name")?;
                let bodies = statement.query_map([], |row| row.get::<_, String>(0))?;
                bodies.map(|body| from_json(&body?)).collect()
            })
            .await
    }

    async fn delete_database(&self, name: &str) -> Result<()> {
        let name = name.to_owned();
        self.file
            .write(move |t| {
                database(t, &name)?;
                let count = "SELECT count(*) FROM tables WHERE database = ?1";
                let tables: i64 = t.query_row(count, [&name], |row| row.get(0))?;
                if tables > 0 {
                    return Err(Error::conflict(format!("database `{name}` still holds {tables} tables")));
                }
                t.execute("DELETE FROM databases WHERE name = ?1", [&name])?;
                Ok(())
            })
            .await
    }

    async fn create_table(&self, input: &TableInput) -> Result<Table> {
        let TableName { database: of, table } = &input.name;
        TableName::new(of.as_str(), table.as_str())?;
        let (input, now_ms) = (input.clone(), self.clock.now_ms());
        self.file
            .write(move |t| {
                let TableName { database: of, table } = &input.name;
                database(t, of)?;
                let insert =
                    "INSERT OR IGNORE INTO tables (database, name, created_ms, version) VALUES (?1, ?2, ?3, 0)";
                if t.execute(insert, (of, table, now_ms))? == 0 {
                    return Err(Error::conflict(format!("table `{}` exists", input.name)));
                }
                add_version(t, t.last_insert_rowid(), input, now_ms, now_ms)
            })
            .await
    }

    async fn get_table(&self, name: &TableName) -> Result<Table> {
        let name = name.clone();
        self.file.read(move |t| Ok(current(t, &name)?.1)).await
    }

    async fn list_tables(&self, name: &str) -> Result<Vec<Table>> {
        let name = name.to_owned();
        self.file
            .read(move |t| {
                database(t, &name)?;
                let select = "SELECT v.body, v.version, t.created_ms, v.updated_ms, t.database, t.name FROM tables t
                              JOIN versions v ON v.version = t.version WHERE t.database = ?1 ORDER BY t.name";
                tables(t, select, [&name])
            })
            .await
    }

    async fn update_table(&self, input: &TableInput, expected_version: &str) -> Result<Table> {
        let (input, expected, now_ms) = (input.clone(), expected_version.to_owned(), self.clock.now_ms());
        self.file
            .write(move |t| {
                let (id, table) = current(t, &input.name)?;
                if table.version != expected {
                    let name = &input.name;
                    return Err(Error::conflict(format!(
                        "table `{name}`: expected version `{expected}`, found version `{}`",
                        table.version
                    )));
                }
                add_version(t, id, input, table.created_ms, now_ms)
            })
            .await
    }

    async fn delete_table(&self, name: &TableName) -> Result<()> {
        let name = name.clone();
        self.file
            .write(move |t| {
                let id = table_id(t, &name)?;
                t.execute("DELETE FROM partitions WHERE table_id = ?1", [id])?;
                t.execute("DELETE FROM versions WHERE table_id = ?1", [id])?;
                t.execute("DELETE FROM tables WHERE id = ?1", [id])?;
                Ok(())
            })
            .await
    }

    async fn table_versions(&self, name: &TableName) -> Result<Vec<Table>> {
        let name = name.clone();
        self.file
            .read(move |t| {
                let id = table_id(t, &name)?;
                let select = "SELECT v.body, v.version, t.created_ms, v.updated_ms, t.database, t.name FROM versions v
                              JOIN tables t ON t.id = v.table_id WHERE v.table_id = ?1 ORDER BY v.version DESC";
                tables(t, select, [id])
            })
            .await
    }

    async fn create_partitions(&self, name: &TableName, partitions: &[Partition]) -> Result<Vec<Vec<String>>> {
        let (name, partitions) = (name.clone(), partitions.to_vec());
        self.file
            .write(move |t| {
                let (id, table) = current(t, &name)?;
                let mut insert =
                    t.prepare_cached("INSERT OR IGNORE INTO partitions (table_id, key, body) VALUES (?1, ?2, ?3)")?;
                let mut existing = Vec::new();
                for partition in partitions {
                    check_values(&table, &partition.values)?;
                    let key = values::key(&partition.values);
                    if insert.execute((id, key, to_json(&partition)?))? == 0 {
                        existing.push(partition.values);
                    }
                }
                Ok(existing)
            })
            .await
    }

    async fn list_partitions(&self, name: &TableName, filters: &[KeyFilter]) -> Result<Vec<Partition>> {
        let (name, filters) = (name.clone(), filters.to_vec());
        self.file
            .read(move |t| {
                let (id, table) = current(t, &name)?;
                let columns = &table.input.partition_keys;
                let keys = values::range(&filter::prefix(&filters, columns));
                let select = "SELECT body FROM partitions WHERE table_id = ?1 AND key >= ?2 AND key < ?3 ORDER BY key";
                let mut statement = t.prepare_cached(select)?;
                let bodies = statement.query_map((id, &keys.start, &keys.end), |row| row.get::<_, String>(0))?;
                let mut found = bodies.map(|body| from_json(&body?)).collect::<Result<Vec<Partition>>>()?;
                found.retain(|partition| filter::admit(&filters, columns, &partition.values));
                Ok(found)
            })
            .await
    }

    async fn update_partitions(&self, name: &TableName, partitions: &[Partition]) -> Result<Vec<Vec<String>>> {
        let (name, partitions) = (name.clone(), partitions.to_vec());
        self.file
            .write(move |t| {
                let id = table_id(t, &name)?;
                let update = "UPDATE partitions SET body = ?3 WHERE table_id = ?1 AND key = ?2";
                let mut update = t.prepare_cached(update)?;
                let mut absent = Vec::new();
                for partition in partitions {
                    if update.execute((id, values::key(&partition.values), to_json(&partition)?))? == 0 {
                        absent.push(partition.values);
                    }
                }
                Ok(absent)
            })
            .await
    }

    async fn delete_partitions(&self, name: &TableName, values: &[Vec<String>]) -> Result<()> {
        let (name, keys) = (name.clone(), values.iter().map(|v| values::key(v)).collect::<Vec<_>>());
        self.file
            .write(move |t| {
                let id = table_id(t, &name)?;
                let mut delete = t.prepare_cached("DELETE FROM partitions WHERE table_id = ?1 AND key = ?2")?;
                for key in keys {
                    delete.execute((id, key))?;
                }
                Ok(())
            })
            .await
    }
}

fn database(transaction: &Transaction<'_>, name: &str) -> Result<Database> {
    let mut statement = transaction.prepare_cached("SELECT body FROM databases WHERE name = ?1")?;
    let body: Option<String> = statement.query_row([name], |row| row.get(0)).optional()?;
    from_json(&body.ok_or_else(|| Error::not_found(format!("no database `{name}`")))?)
}

fn table_id(transaction: &Transaction<'_>, name: &TableName) -> Result<i64> {
    let mut statement = transaction.prepare_cached("SELECT id FROM tables WHERE database = ?1 AND name = ?2")?;
    let id = statement.query_row((&name.database, &name.table), |row| row.get(0)).optional()?;
    id.ok_or_else(|| Error::not_found(format!("no table `{name}`")))
}

/// The table's id and its current version.
fn current(transaction: &Transaction<'_>, name: &TableName) -> Result<(i64, Table)> {
    let id = table_id(transaction, name)?;
    let select = "SELECT v.body, v.version, t.created_ms, v.updated_ms, t.database, t.name FROM tables t
                  JOIN versions v ON v.version = t.version WHERE t.id = ?1";
    let table = tables(transaction, select, [id])?.pop();
    Ok((id, table.ok_or_else(|| Error::bug(format!("table `{name}` has no current version")))?))
}

fn tables(transaction: &Transaction<'_>, select: &str, parameters: impl rusqlite::Params) -> Result<Vec<Table>> {
    let mut statement = transaction.prepare_cached(select)?;
    let mut rows = statement.query(parameters)?;
    let mut tables = Vec::new();
    while let Some(row) = rows.next()? {
        tables.push(table(row)?);
    }
    Ok(tables)
}

/// A row of `body, version, created_ms, updated_ms, database, name`.
fn table(row: &Row<'_>) -> Result<Table> {
    let name = TableName { database: row.get(4)?, table: row.get(5)? };
    let (input, fault) = definition(&row.get::<_, String>(0)?, name);
    Ok(Table {
        input,
        version: row.get::<_, i64>(1)?.to_string(),
        created_ms: row.get(2)?,
        updated_ms: row.get(3)?,
        fault,
    })
}

/// The definition in `body`; of one that can't be read what can be without its columns, and what is wrong with it.
fn definition(body: &str, name: TableName) -> (TableInput, Option<String>) {
    let fault = match serde_json::from_str(body) {
        Ok(input) => return (input, None),
        Err(error) => error.to_string(),
    };
    let without_columns = || {
        let mut value: Value = serde_json::from_str(body).ok()?;
        *value.pointer_mut("/storage/columns")? = Value::Array(Vec::new());
        *value.pointer_mut("/partition_keys")? = Value::Array(Vec::new());
        serde_json::from_value(value).ok()
    };
    let nothing = TableInput {
        name,
        description: None,
        table_type: String::new(),
        parameters: BTreeMap::new(),
        storage: StorageDescriptor::default(),
        partition_keys: Vec::new(),
    };
    (without_columns().unwrap_or(nothing), Some(fault))
}

/// Adds a version and makes it the current one.
fn add_version(t: &Transaction<'_>, id: i64, input: TableInput, created_ms: i64, updated_ms: i64) -> Result<Table> {
    let insert = "INSERT INTO versions (table_id, updated_ms, body) VALUES (?1, ?2, ?3)";
    t.execute(insert, (id, updated_ms, to_json(&input)?))?;
    let version = t.last_insert_rowid();
    t.execute("UPDATE tables SET version = ?1 WHERE id = ?2", (version, id))?;
    Ok(Table { input, version: version.to_string(), created_ms, updated_ms, fault: None })
}

fn check_values(table: &Table, values: &[String]) -> Result<()> {
    let keys = &table.input.partition_keys;
    if keys.len() == values.len() && !keys.is_empty() {
        return Ok(());
    }
    let keys: Vec<_> = keys.iter().map(|column| column.name.as_str()).collect();
    Err(Error::invalid(format!(
        "table `{}`: expected one partition value for each of the columns `{}`, found `{}`",
        table.input.name,
        keys.join(", "),
        values.join(", ")
    )))
}

fn to_json(value: &impl Serialize) -> Result<String> {
    serde_json::to_string(value).map_err(|e| Error::bug("a catalog entry has no JSON form").with_source(e))
}

fn from_json<T: DeserializeOwned>(body: &str) -> Result<T> {
    serde_json::from_str(body).map_err(|e| Error::bug("a catalog entry is not what this version writes").with_source(e))
}

#[cfg(test)]
mod tests {
    use super::*;
    use shared::catalog::ensure_database;
    use shared::clock::SystemClock;
    use shared::model::{Column, ColumnType};

    fn table(name: &str) -> TableInput {
        TableInput {
            name: TableName::new("db", name).unwrap(),
            description: None,
            table_type: "EXTERNAL_TABLE".into(),
            parameters: BTreeMap::from([("classification".into(), "json".into())]),
            storage: StorageDescriptor {
                columns: vec![Column::new("a", ColumnType::Int)],
                location: "memory:///raw/t/".into(),
                ..StorageDescriptor::default()
            },
            partition_keys: Vec::new(),
        }
    }

    #[tokio::test]
    async fn a_definition_that_cannot_be_read_is_one_broken_table_among_the_others() {
        let catalog = EmbeddedCatalog::in_memory(Arc::new(SystemClock)).unwrap();
        ensure_database(&catalog, "db").await.unwrap();
        for name in ["bad", "good", "worse"] {
            catalog.create_table(&table(name)).await.unwrap();
        }
        let spoil = |name: &'static str, body: &'static str| {
            catalog.file.write(move |t| {
                let set = "UPDATE versions SET body = replace(body, '\"int\"', ?2) WHERE table_id = (SELECT id FROM tables WHERE name = ?1)";
                t.execute(set, (name, body))?;
                Ok(())
            })
        };
        spoil("bad", "\"money\"").await.unwrap();
        spoil("worse", "nothing").await.unwrap();
        let listed = catalog.list_tables("db").await.unwrap();
        let faults: Vec<_> = listed.iter().map(|t| (t.input.name.table.as_str(), t.fault.is_some())).collect();
        assert_eq!(faults, [("bad", true), ("good", false), ("worse", true)]);
        assert_eq!(listed[0].input.storage.location, "memory:///raw/t/", "what can be read is there");
        let error = listed[0].check().unwrap_err().to_string();
        assert!(error.contains("`db.bad`") && error.contains("`money`"), "{error}");
        for name in ["bad", "worse"] {
            catalog.delete_table(&TableName::new("db", name).unwrap()).await.unwrap();
        }
        assert_eq!(catalog.list_tables("db").await.unwrap().len(), 1);
    }
}
