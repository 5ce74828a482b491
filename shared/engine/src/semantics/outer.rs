//! The columns of a query that a subquery of it names.

use std::sync::Arc;

use arrow::datatypes::FieldRef;
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{Column, DFSchema, ExprSchema, Result};
use datafusion::logical_expr::utils::merge_schema;
use datafusion::logical_expr::{Expr, LogicalPlan};

/// Whether the plan names columns of the query around it.
pub(super) fn refers(plan: &LogicalPlan) -> bool {
    !outer_columns(plan).is_empty()
}

/// The columns of the query around that the plan names, each once, in its subqueries too.
pub(super) fn outer_columns(plan: &LogicalPlan) -> Vec<Column> {
    let mut found: Vec<Column> = Vec::new();
    let walked = plan.apply(|node| {
        let schema = merge_schema(&node.inputs());
        for column in node.expressions().iter().flat_map(|expr| outer_of(expr, &schema)) {
            if !found.contains(&column) {
                found.push(column);
            }
        }
        Ok(TreeNodeRecursion::Continue)
    });
    debug_assert!(walked.is_ok(), "nothing in the walk fails");
    found
}

/// As [`outer_columns`], of an expression over `schema`.
pub(super) fn outer_of(expr: &Expr, schema: &DFSchema) -> Vec<Column> {
    let mut found = Vec::new();
    let walked = expr.apply(|expr| {
        let nested = match expr {
            Expr::OuterReferenceColumn(_, column) => {
                found.push(column.clone());
                None
            }
            Expr::ScalarSubquery(subquery) => Some(subquery),
            Expr::Exists(exists) => Some(&exists.subquery),
            Expr::InSubquery(found) => Some(&found.subquery),
            Expr::SetComparison(found) => Some(&found.subquery),
            _ => None,
        };
        if let Some(subquery) = nested {
            let outer = outer_columns(&subquery.subquery).into_iter();
            found.extend(outer.filter(|column| !schema.has_column(column)));
        }
        Ok(TreeNodeRecursion::Continue)
    });
    debug_assert!(walked.is_ok(), "nothing in the walk fails");
    found
}

/// The expression as a subquery over other rows names it: its columns of `schema` come from outside.
pub(super) fn as_outer(expr: Expr, schema: &DFSchema) -> Result<Expr> {
    let outer = expr.transform_down(|expr| match expr {
        Expr::Column(column) => {
            let field: FieldRef = Arc::clone(schema.field_from_column(&column)?);
            Ok(Transformed::yes(Expr::OuterReferenceColumn(field, column)))
        }
        other => Ok(Transformed::no(other)),
    })?;
    Ok(outer.data)
}

/// The references to outer columns in the expressions, each once.
pub(super) fn outer_references(exprs: &[Expr]) -> Result<Vec<Expr>> {
    let mut found: Vec<Expr> = Vec::new();
    for expr in exprs {
        expr.apply(|part| {
            if matches!(part, Expr::OuterReferenceColumn(..)) && !found.contains(part) {
                found.push(part.clone());
            }
            Ok(TreeNodeRecursion::Continue)
        })?;
    }
    Ok(found)
}
