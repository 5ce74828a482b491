//! SHOW, DESCRIBE and `information_schema`, answered from the catalog's own column lists: no table is loaded for them.

use std::borrow::Cow;
use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray, Int64Array, RecordBatch, StringArray};
use datafusion::catalog::TableProvider;
use datafusion::datasource::MemTable;
use datafusion::sql::sqlparser::ast::{
    ObjectName, ShowCreateObject, ShowStatementFilter, ShowStatementFilterPosition, ShowStatementOptions, Statement,
};
use futures::future::try_join_all;

use super::errors::suggestion;
use super::names::{AT_ONCE, INFORMATION_SCHEMA, Names};
use super::session::CATALOG;
use shared::catalog::{Catalog, Table, TableInput};
use shared::model::{Column, ColumnType, TableName};
use shared::{Error, Result};

const TABLES: [&str; 3] = ["columns", "schemata", "tables"];

/// `information_schema.{name}` as it is now.
///
/// # Errors
/// `NotFound` for another name.
pub(super) async fn table(catalog: &dyn Catalog, name: &str) -> Result<Arc<dyn TableProvider>> {
    let batch = match name {
        "schemata" => schemata(catalog).await?,
        "tables" => tables(catalog).await?,
        "columns" => columns(catalog).await?,
        other => {
            let near = suggestion(other, TABLES.into_iter());
            return Err(Error::not_found(format!("no table `{other}` in `{INFORMATION_SCHEMA}`{near}")));
        }
    };
    Ok(Arc::new(MemTable::try_new(batch.schema(), vec![vec![batch]])?))
}

async fn schemata(catalog: &dyn Catalog) -> Result<RecordBatch> {
    let names: Vec<String> = catalog.list_databases().await?.into_iter().map(|d| d.name).collect();
    batch(vec![("catalog_name", same(CATALOG, names.len())), ("schema_name", text(names))])
}

async fn every_table(catalog: &dyn Catalog) -> Result<Vec<Table>> {
    let databases = catalog.list_databases().await?;
    let mut all = Vec::new();
    for databases in databases.chunks(AT_ONCE) {
        let tables = try_join_all(databases.iter().map(|database| catalog.list_tables(&database.name)));
        all.extend(tables.await?.into_iter().flatten());
    }
    Ok(all)
}

async fn tables(catalog: &dyn Catalog) -> Result<RecordBatch> {
    let all = every_table(catalog).await?;
    let kind = |t: &Table| match t.fault {
        Some(_) => "BROKEN TABLE",
        None if t.input.table_type.eq_ignore_ascii_case("VIRTUAL_VIEW") => "VIEW",
        None => "BASE TABLE",
    };
    batch(vec![
        ("table_catalog", same(CATALOG, all.len())),
        ("table_schema", text(all.iter().map(|t| t.input.name.database.as_str()))),
        ("table_name", text(all.iter().map(|t| t.input.name.table.as_str()))),
        ("table_type", text(all.iter().map(kind))),
    ])
}

async fn columns(catalog: &dyn Catalog) -> Result<RecordBatch> {
    let all = every_table(catalog).await?;
    let rows: Vec<(&TableName, i64, &Column, bool)> = all
        .iter()
        .flat_map(|t| (1..).zip(listed(&t.input)).map(|(at, (c, key))| (&t.input.name, at, c, key)))
        .collect();
    batch(vec![
        ("table_catalog", same(CATALOG, rows.len())),
        ("table_schema", text(rows.iter().map(|r| r.0.database.as_str()))),
        ("table_name", text(rows.iter().map(|r| r.0.table.as_str()))),
        ("column_name", text(rows.iter().map(|r| r.2.name.as_str()))),
        ("ordinal_position", Arc::new(Int64Array::from_iter_values(rows.iter().map(|r| r.1)))),
        ("is_nullable", text(rows.iter().map(|r| if r.2.required { "NO" } else { "YES" }))),
        ("data_type", text(rows.iter().map(|r| presto_type(&r.2.ty)))),
        ("comment", maybe(rows.iter().map(|r| r.2.comment.as_deref()))),
        ("extra_info", maybe(rows.iter().map(|r| r.3.then_some("partition key")))),
    ])
}

/// The columns in order, and whether each is a partition column.
fn listed(table: &TableInput) -> impl Iterator<Item = (&Column, bool)> {
    let columns = table.storage.columns.iter().map(|c| (c, false));
    columns.chain(table.partition_keys.iter().map(|c| (c, true)))
}

/// The answer of a SHOW or DESCRIBE statement.
///
/// # Errors
/// `NotFound` for an unknown database or table; `Invalid` for a SHOW that is not known.
pub(super) async fn answer(names: &Names<'_>, statement: &Statement) -> Result<RecordBatch> {
    let (catalog, database) = (names.catalog(), names.database());
    match statement {
        Statement::ShowDatabases { show_options, .. } | Statement::ShowSchemas { show_options, .. } => {
            let like = Pattern::of(show_options)?;
            let names = catalog.list_databases().await?.into_iter().map(|d| d.name);
            batch(vec![("database_name", text(names.filter(|n| like.matches(n))))])
        }
        Statement::ShowTables { show_options, .. } => show_tables(catalog, show_options, database, false).await,
        Statement::ShowViews { show_options, .. } => show_tables(catalog, show_options, database, true).await,
        Statement::ShowColumns { show_options, .. } => {
            let name = parent(show_options)
                .ok_or_else(|| Error::invalid("expected `SHOW COLUMNS FROM table`, found no table"))?;
            describe(get(names, &name).await?.as_ref())
        }
        Statement::ExplainTable { table_name, .. } => describe(get(names, &parts(table_name)).await?.as_ref()),
        Statement::ShowCreate { obj_type: ShowCreateObject::Table, obj_name } => {
            let table = get(names, &parts(obj_name)).await?;
            batch(vec![("createtab_stmt", text([ddl(&table.input)]))])
        }
        Statement::ShowVariable { variable } => match variable.as_slice() {
            [word, rest @ ..] if word.value.eq_ignore_ascii_case("partitions") && !rest.is_empty() => {
                let name: Vec<String> = rest.iter().map(|i| i.value.clone()).filter(|v| v != ".").collect();
                show_partitions(catalog, get(names, &name).await?.as_ref()).await
            }
            _ => Err(unknown_show(statement)),
        },
        other => Err(unknown_show(other)),
    }
}

fn unknown_show(statement: &Statement) -> Error {
    Error::invalid(format!(
        "expected SHOW DATABASES, SCHEMAS, TABLES [IN database], COLUMNS FROM table, PARTITIONS table or CREATE TABLE table, \
         found `{statement}`"
    ))
}

async fn show_tables(
    catalog: &dyn Catalog,
    options: &ShowStatementOptions,
    database: &str,
    views: bool,
) -> Result<RecordBatch> {
    let like = Pattern::of(options)?;
    let asked = parent(options).and_then(|mut name| name.pop()).unwrap_or_else(|| database.to_owned());
    let tables = catalog.list_tables(&asked.to_ascii_lowercase()).await?;
    let wanted = |t: &Table| !views || t.input.table_type.eq_ignore_ascii_case("VIRTUAL_VIEW");
    let names = tables.into_iter().filter(wanted).map(|t| t.input.name.table).filter(|n| like.matches(n));
    batch(vec![("table_name", text(names))])
}

async fn show_partitions(catalog: &dyn Catalog, table: &Table) -> Result<RecordBatch> {
    let keys = &table.input.partition_keys;
    if keys.is_empty() {
        return Err(Error::invalid(format!("table `{}` has no partition columns", table.input.name)));
    }
    let partitions = catalog.list_partitions(&table.input.name, &[]).await?;
    let line = |values: &[String]| {
        let pairs: Vec<String> = keys.iter().zip(values).map(|(k, v)| format!("{}={v}", k.name)).collect();
        pairs.join("/")
    };
    batch(vec![("partition", text(partitions.iter().map(|p| line(&p.values))))])
}

fn describe(table: &Table) -> Result<RecordBatch> {
    let rows: Vec<(&Column, bool)> = listed(&table.input).collect();
    batch(vec![
        ("column_name", text(rows.iter().map(|r| r.0.name.as_str()))),
        ("data_type", text(rows.iter().map(|r| r.0.ty.to_string()))),
        ("is_nullable", Arc::new(BooleanArray::from_iter(rows.iter().map(|r| Some(!r.0.required))))),
        ("is_partition", Arc::new(BooleanArray::from_iter(rows.iter().map(|r| Some(r.1))))),
        ("comment", maybe(rows.iter().map(|r| r.0.comment.as_deref()))),
    ])
}

/// The table as Athena's DDL would declare it.
fn ddl(table: &TableInput) -> String {
    let line = |c: &Column| format!("  `{}` {}", c.name, c.ty);
    let columns: Vec<String> = table.storage.columns.iter().map(line).collect();
    let keys: Vec<String> = table.partition_keys.iter().map(line).collect();
    let partitioned =
        if keys.is_empty() { String::new() } else { format!("\nPARTITIONED BY (\n{})", keys.join(",\n")) };
    let properties: Vec<String> = table.parameters.iter().map(|(k, v)| format!("  '{k}'='{v}'")).collect();
    format!(
        "CREATE EXTERNAL TABLE `{}`.`{}`(\n{}){partitioned}\nLOCATION\n  '{}'\nTBLPROPERTIES (\n{})",
        table.name.database,
        table.name.table,
        columns.join(",\n"),
        table.storage.location,
        properties.join(",\n")
    )
}

/// The table of that name.
async fn get(names: &Names<'_>, name: &[String]) -> Result<Arc<Table>> {
    let (database, table) = match name {
        [table] => (names.database().to_owned(), table),
        [database, table] | [_, database, table] => (database.to_ascii_lowercase(), table),
        _ => return Err(Error::invalid(format!("expected `table` or `database.table`, found `{}`", name.join(".")))),
    };
    let found = names.entry_of_parts(&database, &table.to_ascii_lowercase()).await?;
    found.check()?;
    Ok(found)
}

fn parent(options: &ShowStatementOptions) -> Option<Vec<String>> {
    options.show_in.as_ref()?.parent_name.as_ref().map(parts)
}

fn parts(name: &ObjectName) -> Vec<String> {
    name.0.iter().filter_map(|p| p.as_ident()).map(|i| i.value.clone()).collect()
}

/// A LIKE pattern: `%` any text, `_` any character; Hive's `*` is understood too.
struct Pattern(Option<String>);

impl Pattern {
    fn of(options: &ShowStatementOptions) -> Result<Self> {
        let filter = match &options.filter_position {
            None => return Ok(Self(None)),
            Some(ShowStatementFilterPosition::Infix(filter) | ShowStatementFilterPosition::Suffix(filter)) => filter,
        };
        match filter {
            ShowStatementFilter::Like(text)
            | ShowStatementFilter::ILike(text)
            | ShowStatementFilter::NoKeyword(text) => Ok(Self(Some(text.to_ascii_lowercase()))),
            ShowStatementFilter::Where(_) => Err(Error::invalid("expected SHOW … LIKE 'pattern', found WHERE")),
        }
    }

    fn matches(&self, name: &str) -> bool {
        self.0.as_ref().is_none_or(|pattern| like(pattern, name))
    }
}

/// Takes as many characters for a star as it must, and one more each time that what follows does not fit: no star before the last
/// one is looked at again, so the time is that of pattern times text.
fn like(pattern: &str, text: &str) -> bool {
    let (pattern, text): (Vec<char>, Vec<char>) = (pattern.chars().collect(), text.chars().collect());
    let (mut p, mut t) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while t < text.len() {
        match (pattern.get(p), star) {
            (Some('%' | '*'), _) => {
                star = Some((p, t));
                p += 1;
            }
            (Some(c), _) if *c == '_' || *c == text[t] => {
                p += 1;
                t += 1;
            }
            (_, Some((at, taken))) => {
                star = Some((at, taken + 1));
                p = at + 1;
                t = taken + 1;
            }
            (_, None) => return false,
        }
    }
    pattern[p..].iter().all(|c| matches!(c, '%' | '*'))
}

/// The type in the words that Athena's `information_schema` uses.
pub(super) fn presto_type(ty: &ColumnType) -> String {
    match ty {
        ColumnType::Int => "integer".into(),
        ColumnType::Float => "real".into(),
        ColumnType::String => "varchar".into(),
        ColumnType::Binary => "varbinary".into(),
        ColumnType::Timestamp => "timestamp(6)".into(),
        ColumnType::TimestampTz => "timestamp(6) with time zone".into(),
        ColumnType::TimestampNs => "timestamp(9)".into(),
        ColumnType::TimestampTzNs => "timestamp(9) with time zone".into(),
        ColumnType::Time => "time(6)".into(),
        ColumnType::Array(item) => format!("array({})", presto_type(item)),
        ColumnType::Map(key, value) => format!("map({}, {})", presto_type(key), presto_type(value)),
        ColumnType::Struct(fields) => {
            let field = |(name, ty): &(String, ColumnType)| format!("{} {}", row_field(name), presto_type(ty));
            let fields: Vec<String> = fields.iter().map(field).collect();
            format!("row({})", fields.join(", "))
        }
        other => other.to_string(),
    }
}

/// A row field's name, in double quotes when it is no identifier.
fn row_field(name: &str) -> Cow<'_, str> {
    if !name.is_empty() && name.chars().all(|c| c.is_alphanumeric() || c == '_') {
        return Cow::Borrowed(name);
    }
    Cow::Owned(format!("\"{}\"", name.replace('"', "\"\"")))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn like_knows_any_text_and_any_character() {
        for (pattern, name, fits) in [
            ("fl%", "flights", true),
            ("*lights", "flights", true),
            ("f_ights", "flights", true),
            ("f_ight", "flights", false),
            ("%", "", true),
            ("flights", "flights", true),
            ("light", "flights", false),
            ("%l%s", "flights", true),
            ("fl%ts_", "flights", false),
            ("%_", "ü", true),
        ] {
            assert_eq!(like(pattern, name), fits, "{pattern} {name}");
        }
    }

    #[test]
    fn like_with_many_stars_takes_no_time() {
        let started = std::time::Instant::now();
        assert!(!like(&"%a".repeat(40), &("a".repeat(60) + "b")));
        assert!(started.elapsed() < std::time::Duration::from_secs(1));
    }

    #[test]
    fn types_are_written_as_athena_writes_them() {
        let ty: ColumnType = "struct<a:int,b:array<string>>".parse().unwrap();
        assert_eq!(presto_type(&ty), "row(a integer, b array(varchar))");
        let odd: ColumnType = "struct<`http-method`:string>".parse().unwrap();
        assert_eq!(presto_type(&odd), "row(\"http-method\" varchar)");
    }
}
