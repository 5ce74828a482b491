//! Which columns tables have, as far as a lakehouse file and a catalog tell.

use std::collections::BTreeMap;

use arrow::datatypes::SchemaRef;
use shared::model::{Column, TableName};
use shared::project::Project;
use shared::{Error, ErrorKind, Result};
use table::{TableColumns, Tables};

use crate::archive;

/// The database of the tables that describe all others.
const INFORMATION_SCHEMA: &str = "information_schema";

/// Tables by what is known of them.
pub(super) struct KnownTables<'a> {
    project: &'a Project,
    /// Those of the catalog; none where only the file counts.
    tables: Option<&'a Tables>,
    columns: BTreeMap<TableName, TableColumns>,
    /// Why nothing is known of a table's columns.
    unknown: BTreeMap<TableName, String>,
}

/// What is known of a table.
pub(super) enum Found {
    Columns(SchemaRef),
    /// It is a table of files, whose columns the catalog has, or one that the engine makes.
    InCatalog,
    /// It is there, or is yet to be made, with columns that are not known: why.
    Unknown(String),
    /// There is no such table, unless it is a function: why it is not known.
    Absent(String),
}

/// What the catalog has under a name.
enum Entry {
    Absent,
    Iceberg(Box<TableColumns>),
    Files,
}

impl<'a> KnownTables<'a> {
    /// What streams declare and Tarn itself makes.
    pub(super) async fn of(project: &'a Project, tables: Option<&'a Tables>) -> Result<Self> {
        let mut known = Self { project, tables, columns: BTreeMap::new(), unknown: BTreeMap::new() };
        for (name, stream) in &project.file().streams {
            let table = project.stream_table(name)?;
            if let Err(error) = known.add(&table, &stream.schema).await {
                // The plan of the streams tells it.
                known.forget(&table, format!("stream `{name}` can't be written to it: {error}"));
            }
        }
        let runs = project.runs_table()?;
        if let Err(error) = known.add(&runs, &archive::columns()).await {
            known.forget(&runs, error.to_string());
        }
        for (name, insight) in &project.file().insights {
            let Some(into) = &insight.into else { continue };
            let table = project.table_name(into)?;
            if !known.exists(&table).await {
                known.forget(&table, format!("insight `{name}` has yet to make it"));
            }
        }
        Ok(known)
    }

    /// Takes rows of `columns` into a table, that is made when it is not there.
    ///
    /// # Errors
    /// `Invalid`, naming the column, when the table can't take them; what the catalog answers.
    pub(super) async fn add(&mut self, table: &TableName, columns: &[Column]) -> Result<()> {
        let before = match self.columns.remove(table) {
            Some(known) => Some(known),
            None => match self.entry(table).await? {
                Entry::Iceberg(known) => Some(*known),
                Entry::Absent => None,
                Entry::Files => {
                    return Err(Error::invalid(format!("expected an Iceberg table `{table}`, found one of files")));
                }
            },
        };
        let grown = match &before {
            Some(before) => before.with(columns),
            None => TableColumns::new(columns),
        };
        match grown {
            Ok(grown) => {
                self.columns.insert(table.clone(), grown);
                Ok(())
            }
            Err(error) => {
                self.columns.extend(before.map(|before| (table.clone(), before)));
                Err(error)
            }
        }
    }

    /// Takes note that a table's columns are not known.
    pub(super) fn forget(&mut self, table: &TableName, why: String) {
        self.columns.remove(table);
        self.unknown.entry(table.clone()).or_insert(why);
    }

    /// # Errors
    /// `Invalid` for a type that has no Arrow type.
    pub(super) async fn find(&mut self, table: &TableName) -> Result<Found> {
        if let Some(why) = self.unknown.get(table) {
            return Ok(Found::Unknown(why.clone()));
        }
        if table.database == INFORMATION_SCHEMA {
            return Ok(Found::InCatalog);
        }
        if !self.columns.contains_key(table) {
            match self.entry(table).await {
                Ok(Entry::Iceberg(columns)) => {
                    self.columns.insert(table.clone(), *columns);
                }
                Ok(Entry::Files) => return Ok(Found::InCatalog),
                Ok(Entry::Absent) => return Ok(Found::Absent(self.absence(table))),
                Err(error) => return Ok(Found::Unknown(error.to_string())),
            }
        }
        match self.columns.get(table).map(TableColumns::to_arrow) {
            Some(schema) => schema.map(Found::Columns),
            None => Ok(Found::Absent(self.absence(table))),
        }
    }

    async fn exists(&self, table: &TableName) -> bool {
        matches!(self.entry(table).await, Ok(Entry::Iceberg(_) | Entry::Files))
    }

    async fn entry(&self, name: &TableName) -> Result<Entry> {
        let Some(tables) = self.tables else { return Ok(Entry::Absent) };
        let entry = match tables.ports().catalog.get_table(name).await {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Entry::Absent),
            other => other?,
        };
        if !entry.is_iceberg() {
            return Ok(Entry::Files);
        }
        tables.open(entry).await.map(|table| Entry::Iceberg(Box::new(TableColumns::of(&table))))
    }

    /// Why nothing is known of a table that is not there.
    fn absence(&self, table: &TableName) -> String {
        let makes = |name: &&String| self.project.location_table(name).is_ok_and(|made| made == *table);
        match (self.project.file().locations.keys().find(makes), self.tables) {
            (Some(location), _) => format!("its columns are known once the files of location `{location}` are crawled"),
            (None, Some(_)) => "nothing in the lakehouse file makes it, and it is not in the catalog".into(),
            (None, None) => "nothing in the lakehouse file declares its columns".into(),
        }
    }
}
