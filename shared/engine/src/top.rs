//! `ORDER BY … LIMIT` of many rows as a sort, which spills: DataFusion keeps the rows of a limit in memory, however many they are,
//! and is slower at it than a sort then.

use std::sync::Arc;

use datafusion::common::Result;
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::limit::LocalLimitExec;
use datafusion::physical_plan::sorts::sort::SortExec;

/// Rows that are kept in memory at most.
const KEPT: usize = 1 << 15;

/// Sorts where a limit is above [`KEPT`].
#[derive(Debug)]
pub(super) struct SortManyRows;

impl PhysicalOptimizerRule for SortManyRows {
    fn name(&self) -> &str {
        "sort_many_rows"
    }

    fn optimize(&self, plan: Arc<dyn ExecutionPlan>, _: &ConfigOptions) -> Result<Arc<dyn ExecutionPlan>> {
        let sorted = |node: Arc<dyn ExecutionPlan>| {
            let sort = node.downcast_ref::<SortExec>();
            match sort.and_then(|sort| Some((sort, sort.fetch().filter(|rows| *rows > KEPT)?))) {
                Some((sort, rows)) => {
                    let limited = LocalLimitExec::new(Arc::new(sort.with_fetch(None)), rows);
                    Ok(Transformed::yes(Arc::new(limited) as _))
                }
                None => Ok(Transformed::no(node)),
            }
        };
        plan.transform_up(sorted).map(|transformed| transformed.data)
    }

    fn schema_check(&self) -> bool {
        true
    }
}
