//! The one resolver of names: what a statement calls a table becomes what the catalog has of it, if who asks may have it.
//!
//! A resolver asks for each entry of the catalog once, however often the table is named, and for several at the same time. A statement
//! that reads has one; one that writes looks its target up by another, and a new try of it resolves all names anew.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use datafusion::catalog::{
    CatalogProvider, MemoryCatalogProvider, MemorySchemaProvider, SchemaProvider, TableProvider,
};
use datafusion::common::ResolvedTableReference;
use datafusion::datasource::MemTable;
use datafusion::execution::session_state::SessionState;
use datafusion::sql::parser::Statement;
use datafusion::sql::sqlparser::ast::ObjectName;
use futures::future::try_join_all;
use tokio::sync::OnceCell;

use super::errors::{Place, pointed, suggestion};
use super::session::CATALOG;
use super::sources::{self, Changes, Source, SourceKind};
use super::statement::Named;
use super::tables::{FileTable, ScanLog};
use super::{Input, QueryOptions, guard, information};
use shared::catalog::{Catalog, Table as Entry};
use shared::model::TableName;
use shared::ports::Ports;
use shared::principal::Access;
use shared::{Error, ErrorKind, Result};
use table::{Read, Table, Tables};
use table_datafusion::{MetadataTable, ReadTable};

/// Tables that are looked up at once.
pub(super) const AT_ONCE: usize = 8;

/// Schema of the tables that describe all others.
pub(super) const INFORMATION_SCHEMA: &str = "information_schema";

/// A table that a query reads.
#[derive(Debug, Clone)]
pub(super) struct Resolved {
    pub(super) name: TableName,
    /// Files of the whole table, where its metadata tells without a listing.
    pub(super) files_total: Option<u64>,
    /// Folder of the table's objects.
    pub(super) location: String,
}

/// The names of one statement.
pub(super) struct Names<'a> {
    /// With the query's metered storage.
    ports: &'a Ports,
    /// Through these ports.
    tables: &'a Tables,
    options: &'a QueryOptions,
    sql: &'a str,
    log: &'a ScanLog,
    /// What the catalog has told.
    entries: Mutex<BTreeMap<TableName, Arc<OnceCell<Arc<Entry>>>>>,
}

/// Tables that are not in the catalog.
#[derive(Clone, Copy)]
pub(super) struct StatementTables<'a> {
    /// Versions of tables and changes, under the names that the statement has for them.
    pub(super) sources: &'a [Source],
    /// Tables that are there for this statement alone, by name.
    pub(super) given: &'a NamedTables,
}

/// A provider, and the table behind it if the catalog has one.
type Found = (Arc<dyn TableProvider>, Option<Resolved>);

/// The tables that the statement names, each once.
fn resolved_names(state: &SessionState, statement: &Statement) -> Result<Vec<ResolvedTableReference>> {
    let options = &state.config_options().catalog;
    let mut names = Vec::new();
    for reference in state.resolve_table_references(statement)? {
        let name = reference.resolve(&options.default_catalog, &options.default_schema);
        if !names.contains(&name) {
            names.push(name);
        }
    }
    Ok(names)
}

/// Tables by name.
pub(super) type NamedTables = BTreeMap<String, Arc<dyn TableProvider>>;

impl<'a> Names<'a> {
    /// Of the statement `sql`. `tables` are those of `ports`.
    pub(super) fn new(
        ports: &'a Ports,
        tables: &'a Tables,
        options: &'a QueryOptions,
        sql: &'a str,
        log: &'a ScanLog,
    ) -> Self {
        Self { ports, tables, options, sql, log, entries: Mutex::default() }
    }

    /// The database of tables that are named without one.
    pub(super) fn database(&self) -> &str {
        &self.options.database
    }

    pub(super) fn catalog(&self) -> &dyn Catalog {
        self.ports.catalog.as_ref()
    }

    /// What the catalog has under a name; none when it has nothing.
    ///
    /// # Errors
    /// `Denied` when who asks may not have it; what the catalog answers.
    pub(super) async fn find(&self, access: Access, name: &TableName) -> Result<Option<Arc<Entry>>> {
        self.options.principal.check(access, name)?;
        let cell = {
            let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(entries.entry(name.clone()).or_default())
        };
        let ask = async || self.ports.catalog.get_table(name).await.map(Arc::new);
        match cell.get_or_try_init(ask).await {
            Ok(entry) => Ok(Some(Arc::clone(entry))),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// As [`Names::find`].
    ///
    /// # Errors
    /// As [`Names::find`]; `NotFound`, with near names.
    pub(super) async fn entry(&self, access: Access, name: &TableName) -> Result<Arc<Entry>> {
        match self.find(access, name).await? {
            Some(entry) => Ok(entry),
            None => Err(self.unknown(&name.database, &name.table).await),
        }
    }

    /// As [`Names::entry`], to read it; for a name that can't be there is none.
    pub(super) async fn entry_of_parts(&self, database: &str, table: &str) -> Result<Arc<Entry>> {
        match TableName::new(database, table) {
            Ok(name) => self.entry(Access::Read, &name).await,
            Err(_) => Err(self.unknown(database, table).await),
        }
    }

    /// The name that stands in the statement, and what the catalog has under it.
    ///
    /// # Errors
    /// As [`Names::entry`], `NotFound` with the place.
    pub(super) async fn named(&self, access: Access, named: &Named) -> Result<(TableName, Arc<Entry>)> {
        let name = named.resolve(self.database())?;
        match self.entry(access, &name).await {
            Ok(entry) => Ok((name, entry)),
            Err(error) => Err(at(error, self.sql, Some(named.place))),
        }
    }

    /// Gives `state` a provider for each table that `statement` names.
    ///
    /// # Errors
    /// `NotFound` for an unknown table or database, with its place and near names; whatever loading a table gives.
    pub(super) async fn register(
        &self,
        state: &SessionState,
        statement: &Statement,
        beside: StatementTables<'_>,
    ) -> Result<Vec<Resolved>> {
        let places = guard::relations(statement);
        let names = resolved_names(state, statement)?;
        let mut found = Vec::with_capacity(names.len());
        for names in names.chunks(AT_ONCE) {
            found.extend(
                try_join_all(names.iter().map(|name| self.provider_or_call(state, name, &places, beside))).await?,
            );
        }
        let mut schemas: BTreeMap<String, BTreeMap<String, Arc<MemorySchemaProvider>>> = BTreeMap::new();
        let mut tables = Vec::new();
        for (name, found) in names.into_iter().zip(found) {
            let Some((provider, table)) = found else { continue };
            tables.extend(table);
            let ResolvedTableReference { catalog, schema, table } = name;
            let schema = schemas.entry(catalog.to_string()).or_default().entry(schema.to_string()).or_default();
            schema.register_table(table.to_string(), provider)?;
        }
        for (catalog, schemas) in schemas {
            let provider = MemoryCatalogProvider::new();
            for (name, schema) in schemas {
                provider.register_schema(&name, schema)?;
            }
            state.catalog_list().register_catalog(catalog, Arc::new(provider));
        }
        Ok(tables)
    }

    /// The table of that name; none for what may be the call of a function, e.g. of `generate_series`.
    async fn provider_or_call(
        &self,
        state: &SessionState,
        name: &ResolvedTableReference,
        places: &[(ObjectName, Place)],
        beside: StatementTables<'_>,
    ) -> Result<Option<Found>> {
        match self.provider(state, name, beside).await {
            Ok(found) => Ok(Some(found)),
            Err(_) if state.table_functions().contains_key(name.table.as_ref()) => Ok(None),
            Err(error) => Err(at(error, self.sql, place_of(places, &name.table))),
        }
    }

    async fn provider(
        &self,
        state: &SessionState,
        reference: &ResolvedTableReference,
        beside: StatementTables<'_>,
    ) -> Result<Found> {
        if let Some(provider) = beside.given.get(reference.table.as_ref()) {
            return Ok((Arc::clone(provider), None));
        }
        if let Some(source) = beside.sources.iter().find(|s| s.name == *reference.table) {
            return self.source(state, source).await;
        }
        if !reference.catalog.eq_ignore_ascii_case(CATALOG) {
            return Err(Error::not_found(format!("no catalog `{}`; the only one is `{CATALOG}`", reference.catalog)));
        }
        let (database, table) = (reference.schema.to_ascii_lowercase(), reference.table.to_ascii_lowercase());
        if database == INFORMATION_SCHEMA {
            return Ok((self.information(&table).await?, None));
        }
        if let Some((table, which)) = table.split_once('$') {
            return Ok((self.metadata_table(&database, table, which).await?, None));
        }
        let Ok(name) = TableName::new(&database, &table) else {
            return Err(self.unknown(&database, &table).await);
        };
        let (provider, resolved) = self.load(&name, self.options.inputs.get(&name)).await?;
        Ok((provider, Some(resolved)))
    }

    /// An older version of a table, or what changed between two.
    async fn source(&self, state: &SessionState, source: &Source) -> Result<Found> {
        let (table, read) = match &source.of {
            SourceKind::Time { table, at } => (table, Read::AsOf { ms: sources::instant(state, at).await? }),
            SourceKind::Version { table, at } => (table, sources::version(state, at).await?),
            SourceKind::Changes(arguments) => {
                let changes = Changes::of(state, arguments, &self.options.database).await?;
                let table = self.iceberg(&changes.table).await?;
                let provider = table.changes(changes.after, changes.to, changes.key).await?;
                return Ok((provider, None));
            }
        };
        let name = Named::of(table)?.resolve(&self.options.database)?;
        let (provider, resolved) = self.load(&name, Some(&Input::Rows(read))).await?;
        Ok((provider, Some(resolved)))
    }

    /// A table of `information_schema`.
    pub(super) async fn information(&self, table: &str) -> Result<Arc<dyn TableProvider>> {
        information::table(&self.ports.catalog, self.tables, table).await
    }

    /// `table$snapshots` and the like: what the table's metadata tells.
    pub(super) async fn metadata_table(
        &self,
        database: &str,
        table: &str,
        which: &str,
    ) -> Result<Arc<dyn TableProvider>> {
        let which = which.parse::<MetadataTable>()?;
        self.iceberg(&TableName::new(database, table)?).await?.metadata_table(which).await
    }

    async fn iceberg(&self, name: &TableName) -> Result<Table> {
        self.open(&*self.entry(Access::Read, name).await?).await
    }

    /// The Iceberg table that the catalog has.
    pub(super) async fn open(&self, entry: &Entry) -> Result<Table> {
        self.tables.open(entry.clone()).await
    }

    /// The provider of a table of the catalog, or of `input` of it.
    async fn load(&self, name: &TableName, input: Option<&Input>) -> Result<(Arc<dyn TableProvider>, Resolved)> {
        if let Some(Input::Batches(schema, batches)) = input {
            self.options.principal.check(Access::Read, name)?;
            let resolved = Resolved { name: name.clone(), files_total: None, location: String::new() };
            return Ok((Arc::new(MemTable::try_new(Arc::clone(schema), vec![batches.clone()])?), resolved));
        }
        let entry = self.entry(Access::Read, name).await?;
        let location = entry.input.storage.location.clone();
        if entry.is_iceberg() {
            let read = match input {
                None | Some(Input::Batches(..)) => Read::Current,
                Some(Input::Rows(read)) => read.clone(),
                Some(Input::Files(_)) => {
                    return Err(Error::invalid(format!(
                        "table `{name}` is an Iceberg table: its files can't be chosen"
                    )));
                }
            };
            let table = self.open(&entry).await?;
            let files_total = table.newest().and_then(|s| s.summary.get("total-data-files")?.parse().ok());
            let provider = table.provider(read).await?;
            return Ok((provider, Resolved { name: name.clone(), files_total, location }));
        }
        if entry.input.table_type.eq_ignore_ascii_case("VIRTUAL_VIEW") {
            return Err(Error::invalid(format!("`{name}` is a view; views are not supported")));
        }
        let only = match input {
            None | Some(Input::Batches(..)) => None,
            Some(Input::Files(files)) => Some(files.clone()),
            Some(Input::Rows(_)) => {
                return Err(Error::invalid(format!("table `{name}` is a file table: it has no snapshots")));
            }
        };
        let (catalog, storage) = (Arc::clone(&self.ports.catalog), self.ports.storage.clone());
        let provider = FileTable::new(Entry::clone(&entry), only, catalog, storage, self.log.clone())?;
        Ok((Arc::new(provider), Resolved { name: name.clone(), files_total: None, location }))
    }

    /// `NotFound`, with near names.
    async fn unknown(&self, database: &str, table: &str) -> Error {
        let catalog = self.ports.catalog.as_ref();
        match catalog.list_tables(database).await {
            Ok(tables) => {
                let near = suggestion(table, tables.iter().map(|t| t.input.name.table.as_str()));
                Error::not_found(format!("no table `{table}` in database `{database}`{near}"))
            }
            Err(error) if error.kind() == ErrorKind::NotFound => match catalog.list_databases().await {
                Ok(databases) => {
                    let near = suggestion(database, databases.iter().map(|d| d.name.as_str()));
                    Error::not_found(format!("no database `{database}`{near}"))
                }
                Err(error) => error,
            },
            Err(error) => error,
        }
    }
}

fn place_of(places: &[(ObjectName, Place)], table: &str) -> Option<Place> {
    let names = |name: &ObjectName| {
        name.0.last().and_then(|p| p.as_ident()).is_some_and(|ident| ident.value.eq_ignore_ascii_case(table))
    };
    places.iter().find(|(name, place)| names(name) && place.line > 0).map(|(_, place)| *place)
}

/// Points at the name in the statement, when the name is what is wrong.
fn at(error: Error, sql: &str, place: Option<Place>) -> Error {
    match place {
        Some(place) if error.kind() == ErrorKind::NotFound => Error::not_found(pointed(&error.to_string(), sql, place)),
        _ => error,
    }
}
