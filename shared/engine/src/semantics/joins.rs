//! Joins that take null for equal to null.
//!
//! Such a join, of `a.k IS NOT DISTINCT FROM b.k`, does so for all its keys. Two of DataFusion's rules give it keys of another kind, or
//! its keys to another join: the one that turns cross joins into joins takes a tree of inner joins apart and gives all of them what
//! the outermost says of nulls; the one that finds keys in a join's filter adds `a.x = b.x` to those that are there. [`OfOneKind`]
//! keeps both from them.

use std::sync::Arc;

use datafusion::common::tree_node::{Transformed, TreeNodeRecursion};
use datafusion::common::{NullEquality, Result};
use datafusion::logical_expr::{JoinType, LogicalPlan};
use datafusion::optimizer::optimizer::ApplyOrder;
use datafusion::optimizer::{Optimizer, OptimizerConfig, OptimizerRule};

/// DataFusion's rules of logical plans.
pub(super) fn logical_rules() -> Vec<Arc<dyn OptimizerRule + Send + Sync>> {
    let mixing = ["eliminate_cross_join", "extract_equijoin_predicate"];
    let rules = Optimizer::new().rules.into_iter();
    rules.map(|rule| if mixing.contains(&rule.name()) { Arc::new(OfOneKind(rule)) as _ } else { rule }).collect()
}

#[derive(Debug)]
struct OfOneKind(Arc<dyn OptimizerRule + Send + Sync>);

impl OptimizerRule for OfOneKind {
    fn name(&self) -> &str {
        self.0.name()
    }

    fn apply_order(&self) -> Option<ApplyOrder> {
        self.0.apply_order()
    }

    fn rewrite(&self, plan: LogicalPlan, config: &dyn OptimizerConfig) -> Result<Transformed<LogicalPlan>> {
        let mixes = match self.apply_order() {
            // It is given one node after the other.
            Some(_) => joins_nulls(&plan),
            None => any_joins_nulls(&plan)?,
        };
        if mixes { Ok(Transformed::no(plan)) } else { self.0.rewrite(plan, config) }
    }
}

fn joins_nulls(node: &LogicalPlan) -> bool {
    matches!(node, LogicalPlan::Join(join) if !join.on.is_empty() && join.null_equality == NullEquality::NullEqualsNull)
}

fn any_joins_nulls(plan: &LogicalPlan) -> Result<bool> {
    let mut found = false;
    plan.apply_with_subqueries(|node| {
        found |= joins_nulls(node) && matches!(node, LogicalPlan::Join(join) if join.join_type == JoinType::Inner);
        Ok(if found { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
    })?;
    Ok(found)
}
