//! The tables that a statement names, looked up once before it is planned.

use std::collections::BTreeMap;
use std::sync::Arc;

use datafusion::catalog::{
    CatalogProvider, MemoryCatalogProvider, MemorySchemaProvider, SchemaProvider, TableProvider,
};
use datafusion::common::ResolvedTableReference;
use datafusion::execution::session_state::SessionState;
use datafusion::sql::parser::Statement;

use super::errors::{Place, pointed, suggestion};
use super::session::CATALOG;
use super::tables::{FileTable, ScanLog};
use super::{Input, QueryOptions, guard, information};
use crate::config::Ports;
use crate::model::TableName;
use crate::table::{Read, Tables};
use crate::{Error, ErrorKind, Result};

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
    pub(super) options: &'a QueryOptions,
    pub(super) log: &'a ScanLog,
}

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
        let mut schemas: BTreeMap<String, BTreeMap<String, Arc<MemorySchemaProvider>>> = BTreeMap::new();
        let mut tables = Vec::new();
        for reference in state.resolve_table_references(statement)? {
            let place = place_of(&places, reference.table());
            let options = &state.config_options().catalog;
            let resolved = reference.resolve(&options.default_catalog, &options.default_schema);
            let (provider, table) = match self.find(&resolved).await {
                Ok(found) => found,
                // The reference may be a call, e.g. of `generate_series`.
                Err(_) if state.table_functions().contains_key(resolved.table.as_ref()) => continue,
                Err(error) => return Err(at(error, sql, place)),
            };
            tables.extend(table);
            let ResolvedTableReference { catalog, schema, table } = resolved;
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

    async fn find(&self, reference: &ResolvedTableReference) -> Result<(Arc<dyn TableProvider>, Option<Resolved>)> {
        if !reference.catalog.eq_ignore_ascii_case(CATALOG) {
            return Err(Error::not_found(format!("no catalog `{}`; the only one is `{CATALOG}`", reference.catalog)));
        }
        let (database, table) = (reference.schema.to_ascii_lowercase(), reference.table.to_ascii_lowercase());
        if database == INFORMATION_SCHEMA {
            return Ok((information::table(self.ports.catalog.as_ref(), &table).await?, None));
        }
        let Ok(name) = TableName::new(&database, &table) else {
            return Err(self.unknown(&database, &table).await);
        };
        let (provider, resolved) = self.load(&name).await?;
        Ok((provider, Some(resolved)))
    }

    /// The provider of a table of the catalog.
    pub(super) async fn load(&self, name: &TableName) -> Result<(Arc<dyn TableProvider>, Resolved)> {
        let entry = match self.ports.catalog.get_table(name).await {
            Ok(entry) => entry,
            Err(error) if error.kind() == ErrorKind::NotFound => {
                return Err(self.unknown(&name.database, &name.table).await);
            }
            Err(error) => return Err(error),
        };
        let input = self.options.inputs.get(name);
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
            let table = Tables::new(self.ports.clone()).load(name).await?;
            let newest = table.history().into_iter().next();
            let files_total = newest.and_then(|s| s.summary.get("total-data-files")?.parse().ok());
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

fn place_of(places: &[(datafusion::sql::sqlparser::ast::ObjectName, Place)], table: &str) -> Option<Place> {
    let names = |name: &datafusion::sql::sqlparser::ast::ObjectName| {
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
