//! Subqueries that stand for a value, and name nothing from outside: null where they give no row.
//!
//! DataFusion takes the value of `(SELECT 1 WHERE false)` for one that is never null, as its column is not. The column is put into an
//! aggregate here, whose result may be null.

use std::cell::Cell;
use std::sync::Arc;

use datafusion::common::Result;
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::Transformed;
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::{Expr, LogicalPlan, Subquery};
use datafusion::optimizer::AnalyzerRule;

use super::outer::refers;
use super::subqueries::only_row;
use super::{under_its_name, whole_subqueries};

#[derive(Debug)]
pub(super) struct NullableScalars;

impl AnalyzerRule for NullableScalars {
    fn name(&self) -> &str {
        "nullable_scalars"
    }

    fn analyze(&self, plan: LogicalPlan, _: &ConfigOptions) -> Result<LogicalPlan> {
        let changed = Cell::new(false);
        whole_subqueries(plan, |plan| {
            let names = NamePreserver::new(&plan);
            let plan = plan.map_expressions(|expr| under_its_name(expr, &names, &nullable))?;
            changed.set(changed.get() || plan.transformed);
            // What stands above may be null too.
            if changed.get() { plan.map_data(LogicalPlan::recompute_schema) } else { Ok(plan) }
        })
    }
}

fn nullable(expr: Expr) -> Result<Transformed<Expr>> {
    match expr {
        Expr::ScalarSubquery(subquery) if may_be_empty(&subquery) => {
            let plan = Arc::new(only_row(Arc::unwrap_or_clone(subquery.subquery))?);
            Ok(Transformed::yes(Expr::ScalarSubquery(Subquery {
                subquery: plan,
                outer_ref_columns: subquery.outer_ref_columns,
                spans: subquery.spans,
            })))
        }
        other => Ok(Transformed::no(other)),
    }
}

/// Whether the subquery may give no row, and its column is never null.
fn may_be_empty(subquery: &Subquery) -> bool {
    let plan = &subquery.subquery;
    let columns = plan.schema().fields();
    columns.len() == 1 && columns.iter().all(|field| !field.is_nullable()) && !gives_one(plan) && !refers(plan)
}

/// Whether the plan gives one row always.
fn gives_one(plan: &LogicalPlan) -> bool {
    match plan {
        LogicalPlan::Aggregate(aggregate) => aggregate.group_expr.is_empty(),
        LogicalPlan::EmptyRelation(empty) => empty.produce_one_row,
        LogicalPlan::Projection(projection) => gives_one(&projection.input),
        LogicalPlan::SubqueryAlias(alias) => gives_one(&alias.input),
        _ => false,
    }
}
