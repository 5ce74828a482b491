//! Rows with their addresses and their lineage: what files hold of it, or what rows inherit.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Fields, Schema as ArrowSchema, SchemaRef as ArrowSchemaRef};
use async_trait::async_trait;
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::DFSchema;
use datafusion::datasource::TableType;
use datafusion::logical_expr::{Expr, TableProviderFilterPushDown, ident, when};
use datafusion::physical_expr::projection::ProjectionExpr;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::projection::ProjectionExec;

use super::files::IcebergTable;
use crate::address::{self, POS};
use shared::Result;
use table::lineage::{ROW_ID, UPDATED};

type DfResult<T> = datafusion::common::Result<T>;

/// What a file holds in the columns of the lineage.
pub(super) const STORED_ID: &str = "stored row id";
pub(super) const STORED_UPDATED: &str = "stored sequence number";
/// What all rows of a file inherit from.
pub(super) const FIRST_ID: &str = "first row id";
pub(super) const SEQUENCE: &str = "sequence number";

/// A table's rows with the columns [`ROW_ID`] and [`UPDATED`] besides those of the address.
#[derive(Debug)]
pub(super) struct LineageTable {
    stored: IcebergTable,
    schema: ArrowSchemaRef,
}

impl LineageTable {
    /// # Errors
    /// `Invalid` when a column of the table has a name that lineage or addresses take.
    pub(super) fn new(table: IcebergTable) -> Result<Self> {
        let own = TableProvider::schema(&table).fields().clone();
        let more = [ROW_ID, UPDATED].map(|name| Arc::new(Field::new(name, DataType::Int64, true)));
        let address = [address::pos_field(), address::file_field()].map(Arc::new);
        let schema = ArrowSchema::new(own.iter().cloned().chain(more).chain(address).collect::<Fields>());
        Ok(Self { stored: table.with_stored_lineage()?, schema: Arc::new(schema) })
    }
}

/// The columns of a scan that a column is made of.
fn sources(column: &str) -> Vec<&str> {
    match column {
        ROW_ID => vec![STORED_ID, FIRST_ID, POS],
        UPDATED => vec![STORED_UPDATED, SEQUENCE],
        other => vec![other],
    }
}

fn value(column: &str) -> DfResult<Expr> {
    let inherited = |stored: &str, otherwise| when(ident(stored).is_not_null(), ident(stored)).otherwise(otherwise);
    match column {
        ROW_ID => inherited(STORED_ID, ident(FIRST_ID) + ident(POS)),
        UPDATED => inherited(STORED_UPDATED, ident(SEQUENCE)),
        other => Ok(ident(other)),
    }
}

#[async_trait]
impl TableProvider for LineageTable {
    fn schema(&self) -> ArrowSchemaRef {
        self.schema.clone()
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    /// Nothing is known of the lineage before files are read.
    fn supports_filters_pushdown(&self, filters: &[&Expr]) -> DfResult<Vec<TableProviderFilterPushDown>> {
        let of_lineage = |filter: &&Expr| filter.column_refs().iter().any(|c| [ROW_ID, UPDATED].contains(&c.name()));
        let answer = |filter| match of_lineage(filter) {
            true => TableProviderFilterPushDown::Unsupported,
            false => TableProviderFilterPushDown::Inexact,
        };
        Ok(filters.iter().map(answer).collect())
    }

    async fn scan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> DfResult<Arc<dyn ExecutionPlan>> {
        let every = || (0..self.schema.fields().len()).collect();
        let wanted: Vec<usize> = projection.cloned().unwrap_or_else(every);
        let names: Vec<&str> = wanted.iter().map(|place| self.schema.field(*place).name().as_str()).collect();
        let stored = self.stored.schema();
        let mut columns = Vec::new();
        for name in names.iter().copied().flat_map(sources) {
            let column = stored.index_of(name)?;
            if !columns.contains(&column) {
                columns.push(column);
            }
        }
        let plan = self.stored.scan(state, Some(&columns), filters, limit).await?;
        if !names.iter().any(|name| [ROW_ID, UPDATED].contains(name)) {
            return Ok(plan);
        }
        let schema = DFSchema::try_from(plan.schema().as_ref().clone())?;
        let project = |name: &&str| {
            let expr = state.create_physical_expr(value(name)?, &schema)?;
            Ok(ProjectionExpr::new(expr, (*name).to_owned()))
        };
        let columns = names.iter().map(project).collect::<DfResult<Vec<_>>>()?;
        Ok(Arc::new(ProjectionExec::try_new(columns, plan)?))
    }
}
