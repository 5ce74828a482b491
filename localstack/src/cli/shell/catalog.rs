//! The tables and columns that Tab completes, asked for when they are first needed.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde_json::Value;
use shared::Result;

use crate::cli::answer::{self, Question};
use crate::cli::caller::{Caller, Lakehouse};

/// How long Tab waits for names, and how many it takes.
const PATIENCE: Duration = Duration::from_secs(2);
const MOST: u64 = 50_000;

const COLUMNS: &str = "SELECT table_schema, table_name, column_name FROM information_schema.columns \
    WHERE table_schema <> 'information_schema'";

/// A table's names.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct TableNames {
    pub(super) database: String,
    pub(super) name: String,
    pub(super) columns: Vec<String>,
    /// Whether it is found without its database.
    pub(super) is_near: bool,
}

/// What statements may name.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Names {
    pub(super) tables: Vec<TableNames>,
    pub(super) functions: Vec<String>,
}

/// What is known of the lakehouse.
#[derive(Debug, Clone)]
pub(super) struct Catalog {
    lakehouse: Lakehouse,
    database: Option<String>,
    names: Arc<Mutex<Option<Arc<Names>>>>,
}

impl Catalog {
    pub(super) fn new(lakehouse: Lakehouse, database: Option<String>) -> Self {
        Self { lakehouse, database, names: Arc::default() }
    }

    fn known(&self) -> MutexGuard<'_, Option<Arc<Names>>> {
        self.names.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Forgets what is known: a statement may have changed it.
    pub(super) fn forget(&self) {
        *self.known() = None;
    }

    /// All names; none when they can't be had soon.
    pub(super) fn names(&self) -> Arc<Names> {
        if let Some(names) = self.known().clone() {
            return names;
        }
        match tokio::runtime::Handle::current().block_on(tokio::time::timeout(PATIENCE, self.asked())) {
            Ok(Ok(names)) => Arc::clone(self.known().insert(Arc::new(names))),
            Ok(Err(error)) => {
                tracing::debug!(%error, "no names to complete");
                Arc::default()
            }
            Err(_) => Arc::default(),
        }
    }

    async fn asked(&self) -> Result<Names> {
        let caller = Caller::connect(&self.lakehouse).await?;
        let question = |sql| Question { sql, database: self.database.as_deref(), key: None, limit: Some(MOST) };
        let near = answer::rows(&caller, question("SHOW TABLES")).await?;
        let tables = gathered(&answer::rows(&caller, question(COLUMNS)).await?, &near);
        // A deployment of an earlier version does not tell them.
        let functions = answer::rows(&caller, question("SHOW FUNCTIONS")).await.unwrap_or_else(|error| {
            tracing::debug!(%error, "no functions to complete");
            Vec::new()
        });
        let name = |row: Vec<Value>| row.first().and_then(Value::as_str).map(str::to_owned);
        Ok(Names { tables, functions: functions.into_iter().filter_map(name).collect() })
    }
}

/// Tables by their columns; `near` are those of the database that names without one mean.
fn gathered(columns: &[Vec<Value>], near: &[Vec<Value>]) -> Vec<TableNames> {
    let text = |row: &[Value], at: usize| row.get(at).and_then(Value::as_str).unwrap_or_default().to_owned();
    let mut tables: Vec<TableNames> = Vec::new();
    for row in columns {
        let (database, name, column) = (text(row, 0), text(row, 1), text(row, 2));
        match tables.last_mut() {
            Some(last) if last.database == database && last.name == name => last.columns.push(column),
            _ => {
                let is_near = near.iter().any(|row| row.last().and_then(Value::as_str) == Some(name.as_str()));
                tables.push(TableNames { database, name, columns: vec![column], is_near });
            }
        }
    }
    tables
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn columns_are_gathered_by_their_tables() {
        let rows = |value: Value| -> Vec<Vec<Value>> { serde_json::from_value(value).unwrap() };
        let columns = rows(json!([["shop", "orders", "id"], ["shop", "orders", "day"], ["mart", "sums", "day"]]));
        let tables = gathered(&columns, &rows(json!([["orders"]])));
        let table = |database: &str, name: &str, columns: &[&str], is_near| TableNames {
            database: database.into(),
            name: name.into(),
            columns: columns.iter().map(|c| (*c).to_owned()).collect(),
            is_near,
        };
        assert_eq!(tables, [table("shop", "orders", &["id", "day"], true), table("mart", "sums", &["day"], false)]);
    }
}
