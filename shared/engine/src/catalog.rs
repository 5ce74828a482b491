//! The tables that a statement names, looked up once before it is planned.

use std::collections::BTreeMap;
use std::sync::Arc;

use datafusion::catalog::{
    CatalogProvider, MemoryCatalogProvider, MemorySchemaProvider, SchemaProvider, TableProvider,
};
use datafusion::common::ResolvedTableReference;
use datafusion::execution::session_state::SessionState;
use datafusion::sql::parser::Statement;
use datafusion::sql::sqlparser::ast::ObjectName;
use futures::future::try_join_all;

use super::errors::{Place, pointed, suggestion};
use super::session::CATALOG;
use super::sources::{self, Changes, Source, SourceKind};
use super::statement::Named;
use super::tables::{FileTable, ScanLog};
use super::{Input, QueryOptions, guard, information};
use shared::model::TableName;
use shared::ports::Ports;
use shared::{Error, ErrorKind, Result};
use table::{Read, Table, Tables};
use table_datafusion::{MetadataTable, ReadTable};

/// Tables that are looked up at once.
const AT_ONCE: usize = 8;

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

/// Looks up tables for one query.
pub(super) struct Lookup<'a> {
    /// With the query's metered storage.
    pub(super) ports: &'a Ports,
    /// Through these ports.
    pub(super) tables: &'a Tables,
    pub(super) options: &'a QueryOptions,
    pub(super) log: &'a ScanLog,
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

impl Lookup<'_> {
    /// Gives `state` a provider for each table that `statement` names.
    ///
    /// # Errors
    /// `NotFound` for an unknown table or database, with its place in `sql` and near names; whatever loading a table gives.
    pub(super) async fn register(
        &self,
        state: &SessionState,
        statement: &Statement,
        sql: &str,
    ) -> Result<Vec<Resolved>> {
        let places = guard::relations(statement);
        let names = resolved_names(state, statement)?;
        let mut found = Vec::with_capacity(names.len());
        for names in names.chunks(AT_ONCE) {
            found.extend(try_join_all(names.iter().map(|name| self.find_or_call(state, name, &places, sql))).await?);
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
    async fn find_or_call(
        &self,
        state: &SessionState,
        name: &ResolvedTableReference,
        places: &[(ObjectName, Place)],
        sql: &str,
    ) -> Result<Option<Found>> {
        match self.find(state, name).await {
            Ok(found) => Ok(Some(found)),
            Err(_) if state.table_functions().contains_key(name.table.as_ref()) => Ok(None),
            Err(error) => Err(at(error, sql, place_of(places, &name.table))),
        }
    }

    async fn find(&self, state: &SessionState, reference: &ResolvedTableReference) -> Result<Found> {
        if let Some(provider) = self.given.get(reference.table.as_ref()) {
            return Ok((Arc::clone(provider), None));
        }
        if let Some(source) = self.sources.iter().find(|s| s.name == *reference.table) {
            return self.source(state, source).await;
        }
        if !reference.catalog.eq_ignore_ascii_case(CATALOG) {
            return Err(Error::not_found(format!("no catalog `{}`; the only one is `{CATALOG}`", reference.catalog)));
        }
        let (database, table) = (reference.schema.to_ascii_lowercase(), reference.table.to_ascii_lowercase());
        if database == INFORMATION_SCHEMA {
            return Ok((information::table(self.ports.catalog.as_ref(), &table).await?, None));
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
    async fn source(
        &self,
        state: &SessionState,
        source: &Source,
    ) -> Result<(Arc<dyn TableProvider>, Option<Resolved>)> {
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

    /// `table$snapshots` and the like: what the table's metadata tells.
    async fn metadata_table(&self, database: &str, table: &str, which: &str) -> Result<Arc<dyn TableProvider>> {
        let which = which.parse::<MetadataTable>()?;
        self.iceberg(&TableName::new(database, table)?).await?.metadata_table(which).await
    }

    async fn iceberg(&self, name: &TableName) -> Result<Table> {
        match self.tables.load(name).await {
            Err(error) if error.kind() == ErrorKind::NotFound => Err(self.unknown(&name.database, &name.table).await),
            other => other,
        }
    }

    /// The provider of a table of the catalog, or of `input` of it.
    async fn load(&self, name: &TableName, input: Option<&Input>) -> Result<(Arc<dyn TableProvider>, Resolved)> {
        let entry = match self.ports.catalog.get_table(name).await {
            Ok(entry) => entry,
            Err(error) if error.kind() == ErrorKind::NotFound => {
                return Err(self.unknown(&name.database, &name.table).await);
            }
            Err(error) => return Err(error),
        };
        let location = entry.input.storage.location.clone();
        if entry.is_iceberg() {
            let read = match input {
                None => Read::Current,
                Some(Input::Rows(read)) => read.clone(),
                Some(Input::Files(_)) => {
                    return Err(Error::invalid(format!(
                        "table `{name}` is an Iceberg table: its files can't be chosen"
                    )));
                }
            };
            let table = self.tables.load(name).await?;
            let files_total = table.newest().and_then(|s| s.summary.get("total-data-files")?.parse().ok());
            let provider = table.provider(read).await?;
            return Ok((provider, Resolved { name: name.clone(), files_total, location }));
        }
        if entry.input.table_type.eq_ignore_ascii_case("VIRTUAL_VIEW") {
            return Err(Error::invalid(format!("`{name}` is a view; views are not supported")));
        }
        let only = match input {
            None => None,
            Some(Input::Files(files)) => Some(files.clone()),
            Some(Input::Rows(_)) => {
                return Err(Error::invalid(format!("table `{name}` is a file table: it has no snapshots")));
            }
        };
        let (catalog, storage) = (Arc::clone(&self.ports.catalog), self.ports.storage.clone());
        let provider = FileTable::new(entry, only, catalog, storage, self.log.clone())?;
        Ok((Arc::new(provider), Resolved { name: name.clone(), files_total: None, location }))
    }

    /// `NotFound`, with near names.
    pub(super) async fn unknown(&self, database: &str, table: &str) -> Error {
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
