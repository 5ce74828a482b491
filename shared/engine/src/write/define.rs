//! CREATE and DROP of tables and databases.

use std::collections::BTreeMap;

use datafusion::execution::session_state::SessionState;

use super::{Idempotency, Outcome, Source, Write, assign, of_files};
use crate::names::NamedTables;
use crate::semantics::given_name;
use crate::statement::{CreateTable, Named};
use shared::catalog::{Database, Table as Entry};
use shared::model::Column;
use shared::model::types::columns_of;
use shared::principal::Access;
use shared::{Error, ErrorKind, Result};
use table::{Dropped, NewTable, Purge};
use table_datafusion::row_stream;

/// Properties of tables that Athena calls otherwise than Iceberg.
const ATHENAS: &[(&str, &str)] = &[
    ("write_compression", "write.parquet.compression-codec"),
    ("parquet_compression", "write.parquet.compression-codec"),
    ("write_target_data_file_size_bytes", "write.target-file-size-bytes"),
    ("vacuum_min_snapshots_to_keep", "history.expire.min-snapshots-to-keep"),
    ("vacuum_max_metadata_files_to_keep", "write.metadata.previous-versions-max"),
];

/// What Athena calls the age of snapshots that VACUUM removes, in seconds; Iceberg counts it in milliseconds.
const ATHENAS_AGE: &str = "vacuum_max_snapshot_age_seconds";
const AGE: &str = "history.expire.max-snapshot-age-ms";

impl Write<'_> {
    pub(super) async fn create_table(&self, made: CreateTable) -> Result<Outcome> {
        let statement = if made.query.is_some() { "CREATE TABLE AS" } else { "CREATE TABLE" };
        let name = self.name(&made.table)?;
        let names = self.run.names();
        if let Some(entry) = names.find(Access::Write, &name).await? {
            return self.exists(statement, &made, &entry).await;
        }
        let state = self.run.session(self.engine);
        let (new, source) = self.run.in_time(self.new_table(&state, &made)).await?;
        let created = match source.filter(|_| made.with_data) {
            Some(source) => {
                let rows = self.run.in_time(self.start(&state, &source.plan)).await?;
                let created = Box::pin(self.tables.create_with(&name, &new, row_stream(rows), self.token()?)).await;
                created.map(|committed| Outcome::of(statement, &name, &committed))
            }
            None => self.tables.create_as(&name, &new, self.token()?).await.map(|_| Outcome::new(statement, &name)),
        };
        match created {
            // Somebody made it meanwhile.
            Err(error) if error.kind() == ErrorKind::Conflict => match names.find(Access::Write, &name).await {
                Ok(Some(entry)) => self.exists(statement, &made, &entry).await,
                _ => Err(error),
            },
            created => created,
        }
    }

    pub(super) async fn register(&self, named: &Named, file: &str) -> Result<Outcome> {
        const STATEMENT: &str = "CALL register_table";
        self.without_key(STATEMENT, "a second one finds the table there")?;
        let name = self.name(named)?;
        self.run.options.principal.check(Access::Write, &name)?;
        self.tables.register(&name, file).await?;
        Ok(Outcome::new(STATEMENT, &name))
    }

    pub(super) async fn unregister(&self, named: &Named) -> Result<Outcome> {
        const STATEMENT: &str = "CALL unregister_table";
        self.without_key(STATEMENT, "a second one finds no table there")?;
        let (name, entry) = self.run.names().named(Access::Write, named).await?;
        if !entry.is_iceberg() {
            return Err(of_files(&name));
        }
        self.tables.drop(&name, Purge::No).await?;
        let metadata = entry.input.parameters.get("metadata_location");
        let left = format!("its files stay; its metadata file is `{}`", metadata.map_or("", String::as_str));
        Ok(Outcome::new(STATEMENT, &name).noted(left))
    }

    /// The statement's table is there already.
    async fn exists(&self, statement: &'static str, made: &CreateTable, entry: &Entry) -> Result<Outcome> {
        let name = &entry.input.name;
        if entry.is_iceberg()
            && let Idempotency::Done(outcome) = self.idempotency(statement, &self.tables.open(entry.clone()).await?)?
        {
            return Ok(outcome);
        }
        match made.if_not_exists {
            true => Ok(Outcome::new(statement, name).noted("the table exists")),
            false => Err(Error::conflict(format!("expected no table `{name}`, found one"))),
        }
    }

    /// What the statement declares, and its rows.
    async fn new_table(&self, state: &SessionState, made: &CreateTable) -> Result<(NewTable, Option<Source>)> {
        let (columns, source) = match &made.query {
            None => (made.columns.clone(), None),
            Some(_) if !made.columns.is_empty() => {
                return Err(Error::invalid("expected columns or a query, found both"));
            }
            Some(query) => {
                let source = self.query(state, query, &NamedTables::new()).await?;
                let mut fields = source.plan.schema().fields().iter();
                if let Some(position) = fields.position(|field| given_name(field.name()).is_none()) {
                    return Err(Error::invalid(format!(
                        "expected a name for every column, found none for column {}: give it one with AS",
                        position + 1
                    )));
                }
                let columns: Vec<Column> = columns_of(source.plan.schema().as_arrow())?
                    .into_iter()
                    .map(|column| Column {
                        name: given_name(&column.name).unwrap_or_default().to_ascii_lowercase(),
                        required: false,
                        ..column
                    })
                    .collect();
                let unnamed =
                    columns.iter().find(|c| shared::model::name::check_identifier("column", &c.name).is_err());
                if let Some(column) = unnamed {
                    return Err(Error::invalid(format!(
                        "expected a name of lowercase letters, digits and underscores for every column, found `{}`: \
                         give it one with AS",
                        column.name
                    )));
                }
                let fields: Vec<_> = columns.iter().map(|column| column.to_arrow().into()).collect();
                let plan = assign::project(source.plan, &fields).map_err(|e| self.run.explained(e))?;
                (columns, Some(Source { plan, ..source }))
            }
        };
        let new = NewTable {
            columns,
            partition_by: made.partition_by.clone(),
            location: made.location.clone(),
            comment: made.comment.clone(),
            properties: properties(&made.properties)?,
        };
        Ok((new, source))
    }

    /// What CREATE TABLE would do, for EXPLAIN.
    pub(super) async fn creation(&self, state: &SessionState, made: &CreateTable) -> Result<(String, Option<Source>)> {
        let (new, source) = self.new_table(state, made).await?;
        let columns: Vec<_> = new.columns.iter().map(|c| format!("{} {}", c.name, c.ty)).collect();
        let effect = format!("create the table {} ({})", self.name(&made.table)?, columns.join(", "));
        Ok((effect, source))
    }

    pub(super) async fn drop_table(&self, table: &Named, if_exists: bool, purge: bool) -> Result<Outcome> {
        self.without_key("DROP TABLE", "say IF EXISTS")?;
        let name = self.name(table)?;
        let gone = || Outcome::new("DROP TABLE", &name).noted("there was no such table");
        let names = self.run.names();
        let entry = match names.find(Access::Write, &name).await? {
            Some(entry) => entry,
            None if if_exists => return Ok(gone()),
            None => names.named(Access::Write, table).await?.1,
        };
        // A definition that can't be read is of no use to anybody, and a crawl can't mend it.
        if !entry.is_iceberg() && entry.fault.is_some() {
            self.run.ports.catalog.delete_table(&name).await?;
            return Ok(Outcome::new("DROP TABLE", &name));
        }
        if !entry.is_iceberg() {
            return Err(of_files(&name));
        }
        let purge = if purge { Purge::All } else { Purge::Own };
        match self.tables.drop(&name, purge).await {
            Err(error) if error.kind() == ErrorKind::NotFound && if_exists => Ok(gone()),
            dropped => dropped.map(|dropped| told(Outcome::new("DROP TABLE", &name), &dropped)),
        }
    }

    pub(super) async fn create_database(&self, name: &str, if_not_exists: bool) -> Result<Outcome> {
        self.without_key("CREATE DATABASE", "say IF NOT EXISTS")?;
        shared::model::name::check_identifier("database", name)?;
        self.check_declared(name)?;
        let database = Database { name: name.into(), description: None, location: None, parameters: BTreeMap::new() };
        match self.run.ports.catalog.create_database(&database).await {
            Err(error) if error.kind() == ErrorKind::Conflict && if_not_exists => {
                Ok(Outcome::new("CREATE DATABASE", name).noted("the database exists"))
            }
            made => made.map(|()| Outcome::new("CREATE DATABASE", name)),
        }
    }

    pub(super) async fn drop_database(&self, name: &str, if_exists: bool) -> Result<Outcome> {
        self.without_key("DROP DATABASE", "say IF EXISTS")?;
        self.check_declared(name)?;
        match self.run.ports.catalog.delete_database(name).await {
            Err(error) if error.kind() == ErrorKind::NotFound && if_exists => {
                Ok(Outcome::new("DROP DATABASE", name).noted("there was no such database"))
            }
            dropped => dropped.map(|()| Outcome::new("DROP DATABASE", name)),
        }
    }

    /// # Errors
    /// `Denied` for a database that the lakehouse does not declare.
    fn check_declared(&self, name: &str) -> Result<()> {
        match &self.run.options.databases {
            Some(declared) if !declared.contains(name) => Err(Error::denied(format!(
                "the lakehouse file does not declare the database `{name}`: add it there first"
            ))),
            _ => Ok(()),
        }
    }
}

/// The outcome of a drop, which says what is left.
fn told(outcome: Outcome, dropped: &Dropped) -> Outcome {
    if dropped.registered {
        return outcome.noted("its files stay, as the table was registered: DROP TABLE … PURGE removes them too");
    }
    let left = [
        (dropped.elsewhere, "files stay, as they lie outside the table's folder"),
        (dropped.left_behind, "files could not be removed"),
    ];
    let left = left.iter().filter(|(files, _)| *files > 0).map(|(files, why)| format!("{files} {why}"));
    match left.collect::<Vec<_>>().join(", ") {
        none if none.is_empty() => outcome,
        left => outcome.noted(left),
    }
}

/// The properties of Iceberg that stand for those of a statement.
///
/// # Errors
/// `Invalid` for a table of another kind, or a number that is none.
pub(super) fn properties(asked: &BTreeMap<String, String>) -> Result<BTreeMap<String, String>> {
    let mut properties = BTreeMap::new();
    for (key, value) in asked {
        let lower = key.to_ascii_lowercase();
        let expect = |expected: &str, holds: bool| match holds {
            true => Ok(()),
            false => Err(Error::invalid(format!("property `{key}`: expected {expected}, found `{value}`"))),
        };
        match lower.as_str() {
            "table_type" => expect("`ICEBERG`", value.eq_ignore_ascii_case("iceberg"))?,
            "format" => expect("`PARQUET`", value.eq_ignore_ascii_case("parquet"))?,
            "format_version" | "format-version" => {
                expect("`2` or `3`", value == "2" || value == "3")?;
                properties.insert("format-version".into(), value.clone());
            }
            "is_external" => expect("`false`", value.eq_ignore_ascii_case("false"))?,
            ATHENAS_AGE => {
                let seconds = value.parse::<u64>().ok().and_then(|seconds| seconds.checked_mul(1000));
                expect("a number of seconds", seconds.is_some())?;
                properties.insert(AGE.into(), seconds.unwrap_or(0).to_string());
            }
            _ => match ATHENAS.iter().find(|(athenas, _)| *athenas == lower) {
                Some((_, codec)) if codec.ends_with("compression-codec") => {
                    properties.insert((*codec).into(), value.to_ascii_lowercase());
                }
                Some((_, number)) => {
                    expect("a number", value.parse::<u64>().is_ok())?;
                    properties.insert((*number).into(), value.clone());
                }
                None => {
                    properties.insert(key.clone(), value.clone());
                }
            },
        }
    }
    Ok(properties)
}

/// A property of Iceberg in Athena's words, where it has some.
pub(crate) fn athenas_property(key: &str, value: &str) -> (String, String) {
    let seconds = value.parse::<u64>().ok().filter(|ms| key == AGE && ms % 1000 == 0).map(|ms| ms / 1000);
    match (seconds, ATHENAS.iter().find(|(_, iceberg)| *iceberg == key)) {
        (Some(seconds), _) => (ATHENAS_AGE.to_owned(), seconds.to_string()),
        (None, Some((athenas, _))) => ((*athenas).to_owned(), value.to_owned()),
        (None, None) => (key.to_owned(), value.to_owned()),
    }
}

/// Iceberg's names of properties.
pub(super) fn named(names: &[String]) -> Vec<String> {
    let iceberg = |name: &String| match name.to_ascii_lowercase() {
        lower if lower == ATHENAS_AGE => AGE.to_owned(),
        lower => match ATHENAS.iter().find(|(athenas, _)| *athenas == lower) {
            Some((_, iceberg)) => (*iceberg).to_owned(),
            None => name.clone(),
        },
    };
    names.iter().map(iceberg).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn athenas_properties_become_icebergs() {
        let asked =
            [("table_type", "ICEBERG"), ("vacuum_max_snapshot_age_seconds", "60"), ("write_compression", "ZSTD")];
        let asked = asked.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        let found = properties(&asked).unwrap();
        assert_eq!(found["history.expire.max-snapshot-age-ms"], "60000");
        assert_eq!(found["write.parquet.compression-codec"], "zstd");
        assert_eq!(found.len(), 2);
        let back = |key: &str| athenas_property(key, &found[key]);
        assert_eq!(back("history.expire.max-snapshot-age-ms"), ("vacuum_max_snapshot_age_seconds".into(), "60".into()));
        assert_eq!(back("write.parquet.compression-codec"), ("write_compression".into(), "zstd".into()));
    }

    #[test]
    fn tables_of_another_kind_and_numbers_that_are_none_are_refused() {
        for (key, value) in [("table_type", "hive"), ("format", "orc"), ("vacuum_min_snapshots_to_keep", "few")] {
            let error = properties(&[(key.to_owned(), value.to_owned())].into()).unwrap_err();
            assert!(error.to_string().contains(key) && error.to_string().contains(value), "{error}");
        }
    }
}
