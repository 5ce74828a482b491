//! EXCEPT ALL and INTERSECT ALL.
//!
//! DataFusion plans both as an anti or semi join, which lets a row of the right leave or keep all equal rows of the left. Here the
//! rows of each side are numbered among their equals, and the numbers are compared too: the second of three equal rows meets the
//! second of the other side.

use std::sync::Arc;

use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::Transformed;
use datafusion::common::{Column, NullEquality, Result};
use datafusion::functions_window::row_number::row_number;
use datafusion::logical_expr::logical_plan::{Distinct, Join, JoinConstraint};
use datafusion::logical_expr::{Expr, ExprFunctionExt, JoinType, LogicalPlan, LogicalPlanBuilder};
use datafusion::optimizer::AnalyzerRule;

use super::whole_subqueries;

/// Number of a row of the left among its equals.
const LEFT_NUMBER: &str = "$left_number";

/// Replaces the joins that EXCEPT ALL and INTERSECT ALL became. Runs before any other rule makes such joins.
#[derive(Debug)]
pub(super) struct Multisets;

impl AnalyzerRule for Multisets {
    fn name(&self) -> &str {
        "multisets"
    }

    fn analyze(&self, plan: LogicalPlan, _: &ConfigOptions) -> Result<LogicalPlan> {
        whole_subqueries(plan, |plan| match plan {
            LogicalPlan::Join(join) if is_of_all(&join) => Ok(Transformed::yes(numbered(&join)?)),
            other => Ok(Transformed::no(other)),
        })
    }
}

/// Whether the join is a set operation that keeps duplicates. One without them has a DISTINCT on its left.
fn is_of_all(join: &Join) -> bool {
    let whole = !join.on.is_empty() && join.on.len() == join.left.schema().fields().len();
    matches!(join.join_type, JoinType::LeftAnti | JoinType::LeftSemi)
        && join.null_equality == NullEquality::NullEqualsNull
        && join.join_constraint == JoinConstraint::On
        && join.filter.is_none()
        && whole
        && !matches!(join.left.as_ref(), LogicalPlan::Distinct(Distinct::All(_)))
        && join.left.schema().fields().iter().all(|field| field.name() != LEFT_NUMBER)
}

fn numbered(join: &Join) -> Result<LogicalPlan> {
    let columns: Vec<Expr> = join.left.schema().columns().into_iter().map(Expr::Column).collect();
    let left = with_number(&join.left, LEFT_NUMBER)?;
    let right = with_number(&join.right, "$right_number")?;
    let (left_number, right_number) = (number_of(&left), number_of(&right));
    let mut on = join.on.clone();
    on.push((left_number, right_number));
    let joined = Join::try_new(
        Arc::new(left),
        Arc::new(right),
        on,
        None,
        join.join_type,
        JoinConstraint::On,
        NullEquality::NullEqualsNull,
        false,
    )?;
    LogicalPlanBuilder::from(LogicalPlan::Join(joined)).project(columns)?.build()
}

/// The plan's columns and the number of each row among its equals.
fn with_number(plan: &Arc<LogicalPlan>, name: &str) -> Result<LogicalPlan> {
    let columns: Vec<Expr> = plan.schema().columns().into_iter().map(Expr::Column).collect();
    let number = row_number().partition_by(columns).build()?.alias(name);
    LogicalPlanBuilder::from(plan.as_ref().clone()).window([number])?.build()
}

/// The last column.
fn number_of(plan: &LogicalPlan) -> Expr {
    let (relation, field) = plan.schema().qualified_field(plan.schema().fields().len() - 1);
    Expr::Column(Column::new(relation.cloned(), field.name()))
}
