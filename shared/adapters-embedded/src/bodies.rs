//! What is kept as text in the databases of a data directory, edited while nobody has the directory open.

use std::path::Path;

use rusqlite::Connection;
use rusqlite::types::Value;

use crate::sqlite::transact;
use shared::Result;
use shared::error::Context;

/// What a text is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Body<'a> {
    /// The JSON of a [`Database`](shared::catalog::Database).
    Database,
    /// The JSON of a [`TableInput`](shared::catalog::TableInput), of the current or an earlier version of a table.
    Table,
    /// The JSON of a [`Partition`](shared::catalog::Partition).
    Partition,
    /// The state document with this key.
    Document(&'a str),
}

/// A table of a file: the columns of its key, and whether its bodies are text.
const PLACES: [(&str, &str, &[&str], bool); 4] = [
    ("catalog.db", "databases", &["name"], true),
    ("catalog.db", "versions", &["version"], true),
    ("catalog.db", "partitions", &["table_id", "key"], true),
    ("state.db", "documents", &["key"], false),
];

/// Gives `edit` every body of the catalog and the state in the folder `data`; what it gives back takes the body's place.
///
/// # Errors
/// Those of `edit`, of a database that can't be read or written. Each table is edited whole or not at all.
pub fn edit<E>(data: &Path, mut edit: E) -> Result<()>
where
    E: FnMut(Body<'_>, &[u8]) -> Result<Option<Vec<u8>>>,
{
    for (file, table, keys, is_text) in PLACES {
        let path = data.join(file);
        let mut edited = || -> Result<()> {
            let mut connection = Connection::open(&path)?;
            transact(&mut connection, |transaction| {
                let rows = rows(transaction, table, keys)?;
                let conditions: Vec<_> =
                    keys.iter().enumerate().map(|(n, key)| format!("{key} = ?{}", n + 2)).collect();
                let update = format!("UPDATE {table} SET body = ?1 WHERE {}", conditions.join(" AND "));
                let mut update = transaction.prepare(&update)?;
                for (key, body) in rows {
                    let Some(bytes) = edit(owner(table, &key), &body)? else { continue };
                    let body = match is_text {
                        true => Value::Text(String::from_utf8_lossy(&bytes).into_owned()),
                        false => Value::Blob(bytes),
                    };
                    update.execute(rusqlite::params_from_iter(std::iter::once(body).chain(key)))?;
                }
                Ok(())
            })
        };
        edited().context(|| format!("editing `{table}` in `{}`", path.display()))?;
    }
    Ok(())
}

fn rows(connection: &Connection, table: &str, keys: &[&str]) -> Result<Vec<(Vec<Value>, Vec<u8>)>> {
    let mut statement = connection.prepare(&format!("SELECT body, {} FROM {table}", keys.join(", ")))?;
    let rows = statement.query_map([], |row| {
        let key = (1..=keys.len()).map(|column| row.get(column)).collect::<rusqlite::Result<Vec<Value>>>()?;
        Ok((key, row.get_ref(0)?.as_bytes()?.to_vec()))
    })?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

fn owner<'a>(table: &str, key: &'a [Value]) -> Body<'a> {
    match (table, key) {
        ("databases", _) => Body::Database,
        ("versions", _) => Body::Table,
        ("partitions", _) => Body::Partition,
        (_, [Value::Text(key)]) => Body::Document(key),
        _ => Body::Document(""),
    }
}
