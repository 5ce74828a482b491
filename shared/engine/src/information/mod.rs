//! SHOW, DESCRIBE and `information_schema`: what the catalog lists ([`schema`], [`pattern`]), and what tables are by their own metadata
//! ([`described`], [`ddl`]), in the words of [`types`].

mod ddl;
mod described;
mod pattern;
mod schema;
mod types;

use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray, RecordBatch, StringArray};
use arrow::datatypes::Schema;
use datafusion::sql::sqlparser::ast::{Ident, ObjectName, ShowCreateObject, ShowStatementOptions, Statement};

use self::described::Described;
pub(super) use self::pattern::Pattern;
pub(super) use self::schema::table;
pub(super) use self::types::declared;
use super::names::Names;
use super::session::CATALOG;
use shared::catalog::{Catalog, Table as Entry};
use shared::model::types::columns_of;
use shared::{Error, Result};

/// The answer of a SHOW or DESCRIBE statement.
///
/// # Errors
/// `NotFound` for an unknown database or table; `Invalid` for a SHOW that is not known.
pub(super) async fn answer(names: &Names<'_>, statement: &Statement) -> Result<RecordBatch> {
    let (catalog, database) = (names.catalog(), names.database());
    match statement {
        Statement::ShowDatabases { show_options, .. } | Statement::ShowSchemas { show_options, .. } => {
            let wanted = Pattern::of(show_options)?;
            let names = catalog.list_databases().await?.into_iter().map(|d| d.name);
            batch(vec![("database_name", text(names.filter(|n| wanted.matches(n))))])
        }
        Statement::ShowTables { show_options, .. } => show_tables(catalog, show_options, database, false).await,
        Statement::ShowViews { show_options, .. } => show_tables(catalog, show_options, database, true).await,
        Statement::ShowColumns { show_options, .. } => {
            let name = parent(show_options)
                .ok_or_else(|| Error::invalid("expected `SHOW COLUMNS FROM table`, found no table"))?;
            describe(&described::columns(names, &name).await?)
        }
        Statement::ExplainTable { table_name, .. } => describe(&described::columns(names, &parts(table_name)).await?),
        Statement::ShowCreate { obj_type: ShowCreateObject::Table, obj_name } => {
            let entry = get(names, &parts(obj_name)).await?;
            let statement = match entry.is_iceberg() {
                true => ddl::iceberg(&entry.input, &names.open(&entry).await?)?,
                false => ddl::hive(&entry.input),
            };
            batch(vec![("createtab_stmt", text([statement]))])
        }
        Statement::ShowVariable { variable } => show_of_table(names, variable, statement).await,
        other => Err(unknown_show(other)),
    }
}

/// `SHOW PARTITIONS table` and `SHOW TBLPROPERTIES table`, which the parser has no statements for.
async fn show_of_table(names: &Names<'_>, words: &[Ident], statement: &Statement) -> Result<RecordBatch> {
    let [word, name @ ..] = words else { return Err(unknown_show(statement)) };
    let name: Vec<String> = name.iter().map(|i| i.value.clone()).filter(|v| v != ".").collect();
    match word.value.to_ascii_lowercase().as_str() {
        "partitions" if !name.is_empty() => show_partitions(names, get(names, &name).await?.as_ref()).await,
        "tblproperties" if !name.is_empty() => show_properties(names, get(names, &name).await?.as_ref()).await,
        _ => Err(unknown_show(statement)),
    }
}

fn unknown_show(statement: &Statement) -> Error {
    Error::invalid(format!(
        "expected SHOW DATABASES, SCHEMAS, TABLES [IN database], COLUMNS FROM table, PARTITIONS table, TBLPROPERTIES table, CREATE TABLE \
         table or FUNCTIONS, found `{statement}`"
    ))
}

async fn show_tables(
    catalog: &dyn Catalog,
    options: &ShowStatementOptions,
    database: &str,
    views: bool,
) -> Result<RecordBatch> {
    let wanted = Pattern::of(options)?;
    let asked = parent(options).and_then(|mut name| name.pop()).unwrap_or_else(|| database.to_owned());
    let tables = catalog.list_tables(&asked.to_ascii_lowercase()).await?;
    let is_asked = |t: &Entry| !views || t.input.table_type.eq_ignore_ascii_case("VIRTUAL_VIEW");
    let names = tables.into_iter().filter(is_asked).map(|t| t.input.name.table).filter(|n| wanted.matches(n));
    batch(vec![("table_name", text(names))])
}

async fn show_partitions(names: &Names<'_>, entry: &Entry) -> Result<RecordBatch> {
    let keys = &entry.input.partition_keys;
    let lines = if entry.is_iceberg() {
        let table = names.open(entry).await?;
        let lines = table.partitions().await?;
        if lines.is_empty() && table.partition_fields()?.is_empty() {
            return Err(Error::invalid(format!("table `{}` is not partitioned", entry.input.name)));
        }
        lines
    } else if keys.is_empty() {
        return Err(Error::invalid(format!("table `{}` has no partition columns", entry.input.name)));
    } else {
        let line = |values: Vec<String>| {
            let pairs: Vec<String> = keys.iter().zip(values).map(|(k, v)| format!("{}={v}", k.name)).collect();
            pairs.join("/")
        };
        let partitions = names.catalog().list_partitions(&entry.input.name, &[]).await?;
        partitions.into_iter().map(|p| line(p.values)).collect()
    };
    batch(vec![("partition", text(lines))])
}

/// The properties that the catalog has, e.g. where an Iceberg table's metadata file is, and those of the metadata.
async fn show_properties(names: &Names<'_>, entry: &Entry) -> Result<RecordBatch> {
    let mut properties = entry.input.parameters.clone();
    if entry.is_iceberg() {
        properties.extend(names.open(entry).await?.properties());
    }
    let (keys, values): (Vec<String>, Vec<String>) = properties.into_iter().unzip();
    batch(vec![("prpt_name", text(keys)), ("prpt_value", text(values))])
}

/// The columns of a query, as DESCRIBE tells them.
///
/// # Errors
/// `Invalid` for a type that no table has.
pub(super) fn of_schema(schema: &Schema) -> Result<RecordBatch> {
    let plain = |column| Described { column, partition_by: None };
    describe(&columns_of(schema)?.into_iter().map(plain).collect::<Vec<_>>())
}

fn describe(columns: &[Described]) -> Result<RecordBatch> {
    let nullable = columns.iter().map(|c| Some(!c.column.required));
    let partitions = columns.iter().map(|c| Some(c.partition_by.is_some()));
    batch(vec![
        ("column_name", text(columns.iter().map(|c| c.column.name.as_str()))),
        ("data_type", text(columns.iter().map(|c| declared(&c.column.ty)))),
        ("is_nullable", Arc::new(BooleanArray::from_iter(nullable))),
        ("is_partition", Arc::new(BooleanArray::from_iter(partitions))),
        ("comment", maybe(columns.iter().map(|c| c.column.comment.as_deref()))),
        ("partition_by", maybe(columns.iter().map(|c| c.partition_by.as_deref()))),
    ])
}

/// The database and the table that a name of one to three parts means, in lower case.
fn place(names: &Names<'_>, name: &[String]) -> Result<(String, String)> {
    let (database, table) = match name {
        [table] => (names.database(), table),
        [database, table] => (database.as_str(), table),
        [catalog, database, table] if catalog.eq_ignore_ascii_case(CATALOG) => (database.as_str(), table),
        [catalog, ..] if name.len() == 3 => {
            return Err(Error::not_found(format!("no catalog `{catalog}`; the only one is `{CATALOG}`")));
        }
        _ => return Err(Error::invalid(format!("expected `table` or `database.table`, found `{}`", name.join(".")))),
    };
    Ok((database.to_ascii_lowercase(), table.to_ascii_lowercase()))
}

/// The table of that name.
async fn get(names: &Names<'_>, name: &[String]) -> Result<Arc<Entry>> {
    let (database, table) = place(names, name)?;
    let found = names.entry_of_parts(&database, &table).await?;
    found.check()?;
    Ok(found)
}

fn parent(options: &ShowStatementOptions) -> Option<Vec<String>> {
    options.show_in.as_ref()?.parent_name.as_ref().map(parts)
}

fn parts(name: &ObjectName) -> Vec<String> {
    name.0.iter().filter_map(|p| p.as_ident()).map(|i| i.value.clone()).collect()
}

fn text<T: AsRef<str>>(values: impl IntoIterator<Item = T>) -> ArrayRef {
    Arc::new(StringArray::from_iter_values(values))
}

fn maybe<'a>(values: impl Iterator<Item = Option<&'a str>>) -> ArrayRef {
    Arc::new(values.collect::<StringArray>())
}

fn same(value: &str, rows: usize) -> ArrayRef {
    text(std::iter::repeat_n(value, rows))
}

fn batch(columns: Vec<(&str, ArrayRef)>) -> Result<RecordBatch> {
    let columns = columns.into_iter().map(|(name, array)| (name, array, true));
    Ok(RecordBatch::try_from_iter_with_nullable(columns)?)
}
