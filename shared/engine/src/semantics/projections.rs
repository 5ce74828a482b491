//! Projections that a physical plan hands down through filters.
//!
//! DataFusion swaps a projection with the filter below it though that filter gives its columns in another order than it takes them:
//! the projection then counts among the wrong ones. It takes others of the same names, or is refused. [`Unfolded`] gives such a filter
//! a projection of its own before the rule sees it.

use std::sync::Arc;

use datafusion::common::Result;
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::physical_expr::expressions::Column;
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::filter::{FilterExec, FilterExecBuilder};
use datafusion::physical_plan::projection::{ProjectionExec, ProjectionExpr};

/// A rule that sees no filter that projects.
#[derive(Debug)]
pub(super) struct Unfolded(pub(super) Arc<dyn PhysicalOptimizerRule + Send + Sync>);

impl PhysicalOptimizerRule for Unfolded {
    fn optimize(&self, plan: Arc<dyn ExecutionPlan>, config: &ConfigOptions) -> Result<Arc<dyn ExecutionPlan>> {
        let plan = plan.transform_up(|node| match node.downcast_ref::<FilterExec>() {
            Some(filter) => unfolded(filter).map(|plan| plan.map_or(Transformed::no(node), Transformed::yes)),
            None => Ok(Transformed::no(node)),
        })?;
        self.0.optimize(plan.data, config)
    }

    fn name(&self) -> &str {
        self.0.name()
    }

    fn schema_check(&self) -> bool {
        self.0.schema_check()
    }
}

/// The filter without its projection, and that above it; none where it has none.
fn unfolded(filter: &FilterExec) -> Result<Option<Arc<dyn ExecutionPlan>>> {
    let Some(columns) = filter.projection() else { return Ok(None) };
    let schema = filter.input().schema();
    let column = |at: &usize| {
        let name = schema.field(*at).name();
        ProjectionExpr { expr: Arc::new(Column::new(name, *at)), alias: name.clone() }
    };
    let columns: Vec<_> = columns.iter().map(column).collect();
    let whole = FilterExecBuilder::from(filter).apply_projection(None)?.build()?;
    Ok(Some(Arc::new(ProjectionExec::try_new(columns, Arc::new(whole))?)))
}
