//! `information_schema`: databases, tables and columns as the catalog and the tables' metadata have them now.

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::array::{Int64Array, RecordBatch};
use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::ScalarValue;
use datafusion::datasource::memory::MemorySourceConfig;
use datafusion::datasource::{MemTable, TableType};
use datafusion::logical_expr::expr::InList;
use datafusion::logical_expr::{BinaryExpr, Expr, Operator, TableProviderFilterPushDown};
use datafusion::physical_plan::ExecutionPlan;
use futures::future::{join_all, try_join_all};

use super::described::{Described, of_files, of_iceberg};
use super::types::presto;
use super::{batch, maybe, same, text};
use crate::errors::suggestion;
use crate::names::{AT_ONCE, INFORMATION_SCHEMA};
use crate::session::CATALOG;
use shared::catalog::{Catalog, Table as Entry};
use shared::{Error, Result};
use table::Tables;

const TABLES: [&str; 3] = ["columns", "schemata", "tables"];

/// `information_schema.{name}`.
///
/// # Errors
/// `NotFound` for another name.
pub(crate) async fn table(catalog: &Arc<dyn Catalog>, tables: &Tables, name: &str) -> Result<Arc<dyn TableProvider>> {
    let batch = match name {
        "schemata" => schemata(catalog.as_ref()).await?,
        "tables" => every_table(catalog.as_ref()).await?,
        "columns" => {
            return Ok(Arc::new(Columns {
                catalog: Arc::clone(catalog),
                tables: tables.clone(),
                schema: columns_batch(&[])?.schema(),
            }));
        }
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

async fn every_table(catalog: &dyn Catalog) -> Result<RecordBatch> {
    let all = entries(catalog, &Wanted::default()).await?;
    let kind = |t: &Entry| match t.fault {
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

/// The entries of all wanted tables.
async fn entries(catalog: &dyn Catalog, wanted: &Wanted) -> Result<Vec<Entry>> {
    let databases = catalog.list_databases().await?;
    let databases: Vec<_> = databases.into_iter().filter(|d| wanted.databases.has(&d.name)).collect();
    let mut all = Vec::new();
    for databases in databases.chunks(AT_ONCE) {
        let tables = try_join_all(databases.iter().map(|database| catalog.list_tables(&database.name)));
        all.extend(tables.await?.into_iter().flatten().filter(|t| wanted.tables.has(&t.input.name.table)));
    }
    Ok(all)
}

/// `information_schema.columns`. The metadata of tables is read when a query runs, of those only that its conditions leave.
#[derive(Debug)]
struct Columns {
    catalog: Arc<dyn Catalog>,
    tables: Tables,
    schema: SchemaRef,
}

#[async_trait]
impl TableProvider for Columns {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn table_type(&self) -> TableType {
        TableType::View
    }

    fn supports_filters_pushdown(
        &self,
        filters: &[&Expr],
    ) -> datafusion::common::Result<Vec<TableProviderFilterPushDown>> {
        Ok(vec![TableProviderFilterPushDown::Inexact; filters.len()])
    }

    async fn scan(
        &self,
        _state: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        _limit: Option<usize>,
    ) -> datafusion::common::Result<Arc<dyn ExecutionPlan>> {
        let batch = self.rows(&Wanted::of(filters)).await?;
        let exec: Arc<dyn ExecutionPlan> =
            MemorySourceConfig::try_new_exec(&[vec![batch]], self.schema(), projection.cloned())?;
        Ok(exec)
    }
}

/// A table's columns; `fault` says why its metadata could not be read, of a table whose columns are then the catalog's.
struct TableColumns {
    entry: Entry,
    columns: Vec<Described>,
    fault: Option<String>,
}

impl Columns {
    async fn rows(&self, wanted: &Wanted) -> Result<RecordBatch> {
        let mut all = Vec::new();
        for entries in entries(self.catalog.as_ref(), wanted).await?.chunks(AT_ONCE) {
            all.extend(join_all(entries.iter().map(|entry| self.of(entry))).await);
        }
        columns_batch(&all)
    }

    /// One table that can't be read does not hide the others.
    async fn of(&self, entry: &Entry) -> TableColumns {
        let read = match entry.is_iceberg() && entry.fault.is_none() {
            true => self.tables.open(entry.clone()).await.and_then(|table| of_iceberg(&table)),
            false => Ok(of_files(entry)),
        };
        let (columns, fault) = match read {
            Ok(columns) => (columns, None),
            Err(error) => (of_files(entry), Some(format!("as the catalog has it: {error}"))),
        };
        TableColumns { entry: entry.clone(), columns, fault }
    }
}

fn columns_batch(all: &[TableColumns]) -> Result<RecordBatch> {
    let rows: Vec<(&TableColumns, i64, &Described)> =
        all.iter().flat_map(|t| (1..).zip(&t.columns).map(move |(at, c)| (t, at, c))).collect();
    let nullable =
        |(table, _, described): &(&TableColumns, i64, &Described)| match (&table.fault, described.column.required) {
            (Some(_), _) => None,
            (None, true) => Some("NO"),
            (None, false) => Some("YES"),
        };
    let extra = |(table, _, described): &(&TableColumns, i64, &Described)| match (&table.fault, &described.partition_by)
    {
        (Some(fault), _) => Some(fault.clone()),
        (None, Some(_)) if !table.entry.is_iceberg() => Some("partition key".to_owned()),
        (None, Some(by)) => Some(format!("partitioned by {by}")),
        (None, None) => None,
    };
    let extra: Vec<Option<String>> = rows.iter().map(extra).collect();
    batch(vec![
        ("table_catalog", same(CATALOG, rows.len())),
        ("table_schema", text(rows.iter().map(|r| r.0.entry.input.name.database.as_str()))),
        ("table_name", text(rows.iter().map(|r| r.0.entry.input.name.table.as_str()))),
        ("column_name", text(rows.iter().map(|r| r.2.column.name.as_str()))),
        ("ordinal_position", Arc::new(Int64Array::from_iter_values(rows.iter().map(|r| r.1)))),
        ("is_nullable", maybe(rows.iter().map(nullable))),
        ("data_type", text(rows.iter().map(|r| presto(&r.2.column.ty)))),
        ("comment", maybe(rows.iter().map(|r| r.2.column.comment.as_deref()))),
        ("extra_info", maybe(extra.iter().map(Option::as_deref))),
    ])
}

/// The tables that a query's conditions leave.
#[derive(Debug, Default)]
struct Wanted {
    databases: Named,
    tables: Named,
}

/// Names, or all.
#[derive(Debug, Default)]
struct Named(Option<BTreeSet<String>>);

impl Named {
    fn has(&self, name: &str) -> bool {
        self.0.as_ref().is_none_or(|names| names.contains(name))
    }

    fn keep(&mut self, names: BTreeSet<String>) {
        self.0 = Some(match self.0.take() {
            Some(kept) => kept.intersection(&names).cloned().collect(),
            None => names,
        });
    }
}

impl Wanted {
    fn of(filters: &[Expr]) -> Self {
        let mut wanted = Self::default();
        for (column, names) in filters.iter().filter_map(chosen) {
            match column {
                "table_schema" => wanted.databases.keep(names),
                "table_name" => wanted.tables.keep(names),
                _ => {}
            }
        }
        wanted
    }
}

/// The values that a condition leaves of a column: `column = 'a'`, `column IN ('a', 'b')`.
fn chosen(filter: &Expr) -> Option<(&str, BTreeSet<String>)> {
    let value = |expr: &Expr| match expr {
        Expr::Literal(ScalarValue::Utf8(Some(text)) | ScalarValue::Utf8View(Some(text)), _) => Some(text.clone()),
        _ => None,
    };
    match filter {
        Expr::BinaryExpr(BinaryExpr { left, op: Operator::Eq, right }) => match (left.as_ref(), right.as_ref()) {
            (Expr::Column(column), other) | (other, Expr::Column(column)) => {
                Some((column.name(), [value(other)?].into()))
            }
            _ => None,
        },
        Expr::InList(InList { expr, list, negated: false }) => match expr.as_ref() {
            Expr::Column(column) => Some((column.name(), list.iter().map(value).collect::<Option<_>>()?)),
            _ => None,
        },
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use datafusion::logical_expr::{col, lit};

    #[test]
    fn conditions_on_names_choose_the_tables_that_are_read() {
        let filters = [
            col("table_schema").eq(lit("db")),
            col("table_name").in_list(vec![lit("a"), lit("b")], false),
            lit("b").eq(col("table_name")),
            col("column_name").eq(lit("c")),
            col("table_name").not_eq(lit("a")),
        ];
        let wanted = Wanted::of(&filters);
        assert!(wanted.databases.has("db") && !wanted.databases.has("other"));
        assert!(wanted.tables.has("b") && !wanted.tables.has("a"));
        assert!(Wanted::of(&filters[3..]).tables.has("anything"));
    }
}
