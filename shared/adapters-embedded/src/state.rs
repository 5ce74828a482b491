//! Documents in SQLite.
//!
//! A document's version is the number of the write that made it. Numbers are never used twice, so a document that was removed
//! and made again does not pass for the old one.

use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use rusqlite::{OptionalExtension, Transaction};

use crate::sqlite::{Database, Schema};
use shared::clock::Clock;
use shared::state::{Document, Expect, State, Version};
use shared::{Error, Result};

const SCHEMA: Schema = Schema {
    version: 1,
    sql: "
        CREATE TABLE documents (
            version INTEGER PRIMARY KEY AUTOINCREMENT,
            key TEXT NOT NULL UNIQUE,
            written_ms INTEGER NOT NULL,
            body BLOB NOT NULL
        );
    ",
};

/// [`State`] in one SQLite file.
#[derive(Debug, Clone)]
pub struct EmbeddedState {
    database: Database,
    clock: Arc<dyn Clock>,
}

impl EmbeddedState {
    /// Opens the file at `path`, made when it is absent.
    ///
    /// # Errors
    /// `Denied` when it can't be opened, `Limit` on a full disk, `Invalid` when another version of Tarn wrote it.
    pub fn open(path: &Path, clock: Arc<dyn Clock>) -> Result<Self> {
        Ok(Self { database: Database::open(path, &SCHEMA)?, clock })
    }

    /// Documents that end with the last clone.
    ///
    /// # Errors
    /// `Bug` when SQLite can't open in memory.
    pub fn in_memory(clock: Arc<dyn Clock>) -> Result<Self> {
        Ok(Self { database: Database::in_memory(&SCHEMA)?, clock })
    }
}

#[async_trait]
impl State for EmbeddedState {
    async fn get(&self, key: &str) -> Result<Option<Document>> {
        let key = key.to_owned();
        self.database
            .read(move |transaction| {
                let mut statement = transaction.prepare_cached("SELECT body, version FROM documents WHERE key = ?1")?;
                let row = statement.query_row([&key], |row| Ok((row.get::<_, Vec<u8>>(0)?, row.get(1)?))).optional()?;
                Ok(row.map(|(bytes, number)| Document { bytes: bytes.into(), version: version(number) }))
            })
            .await
    }

    async fn put(&self, key: &str, bytes: Bytes, expect: Expect) -> Result<Version> {
        if key.is_empty() {
            return Err(Error::invalid("expected a state key, found an empty text"));
        }
        let (key, now) = (key.to_owned(), self.clock.now_ms());
        self.database
            .write(move |transaction| {
                check(transaction, &key, &expect)?;
                let insert = "INSERT OR REPLACE INTO documents (key, written_ms, body) VALUES (?1, ?2, ?3)";
                transaction.prepare_cached(insert)?.execute((&key, now, bytes.as_ref()))?;
                Ok(version(transaction.last_insert_rowid()))
            })
            .await
    }

    async fn delete(&self, key: &str, expect: Expect) -> Result<()> {
        let key = key.to_owned();
        self.database
            .write(move |transaction| {
                check(transaction, &key, &expect)?;
                transaction.prepare_cached("DELETE FROM documents WHERE key = ?1")?.execute([&key])?;
                Ok(())
            })
            .await
    }

    async fn list_first(&self, prefix: &str, most: usize) -> Result<Vec<String>> {
        let prefix = prefix.to_owned();
        self.database
            .read(move |transaction| {
                let mut statement =
                    transaction.prepare_cached("SELECT key FROM documents WHERE key >= ?1 ORDER BY key")?;
                let mut rows = statement.query([&prefix])?;
                let mut keys = Vec::new();
                while keys.len() < most {
                    let Some(row) = rows.next()? else { break };
                    let key: String = row.get(0)?;
                    if !key.starts_with(&prefix) {
                        break;
                    }
                    keys.push(key);
                }
                Ok(keys)
            })
            .await
    }
}

fn version(number: i64) -> Version {
    Version(number.to_string())
}

/// Compares what is there with what the caller expects.
fn check(transaction: &Transaction<'_>, key: &str, expect: &Expect) -> Result<()> {
    let mut statement = transaction.prepare_cached("SELECT version FROM documents WHERE key = ?1")?;
    let found = statement.query_row([key], |row| row.get(0)).optional()?.map(version);
    let expected = match (expect, &found) {
        (Expect::Anything, _) | (Expect::Absent, None) => return Ok(()),
        (Expect::Version(expected), Some(found)) if expected == found => return Ok(()),
        (Expect::Absent, Some(_)) => "no document".into(),
        (Expect::Version(expected), _) => format!("version `{}`", expected.0),
    };
    let found = found.map_or_else(|| "none".into(), |version| format!("version `{}`", version.0));
    Err(Error::conflict(format!("state document `{key}`: expected {expected}, found {found}")))
}
