//! Batches cut small where an operator makes much of each row, as it accounts for its memory once for each batch: an aggregation
//! that groups a row once for each of many grouping sets, a projection that writes a large constant into each row.

use std::fmt;
use std::sync::Arc;

use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{DataFusionError, Result};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_plan::aggregates::AggregateExec;
use datafusion::physical_plan::metrics::{ExecutionPlanMetricsSet, SplitMetrics};
use datafusion::physical_plan::placeholder_row::PlaceholderRowExec;
use datafusion::physical_plan::projection::ProjectionExec;
use datafusion::physical_plan::stream::BatchSplitStream;
use datafusion::physical_plan::{
    ChildrenPropertiesMode, DisplayAs, DisplayFormatType, ExecutionPlan, PlanProperties, ReplaceChildrenOptions,
};

use shared::Error;
use table_datafusion::constant_bytes;

/// Rows of a batch, multiplied by the grouping sets that each is in.
const GROUPED_ROWS: usize = 64 << 10;
/// Rows of a batch at least.
const LEAST_ROWS: usize = 16;
/// Share of the memory that a constant may take in a batch.
const CONSTANT_SHARE: usize = 8;

/// Cuts the batches of such operators.
#[derive(Debug)]
pub(super) struct SplitBatches {
    /// Bytes that queries may hold.
    pub(super) memory: usize,
}

impl PhysicalOptimizerRule for SplitBatches {
    fn name(&self) -> &str {
        "split_batches"
    }

    fn optimize(&self, plan: Arc<dyn ExecutionPlan>, config: &ConfigOptions) -> Result<Arc<dyn ExecutionPlan>> {
        let usual = usize::from(config.execution.batch_size);
        let split = |node: Arc<dyn ExecutionPlan>| match self.rows(&node)? {
            Some(rows) if rows < usual => {
                let inputs = node.children().into_iter().map(|input| SplitExec::over(input, rows)).collect();
                let options = ReplaceChildrenOptions::new(ChildrenPropertiesMode::Recompute);
                node.replace_children(inputs, options).map(Transformed::yes)
            }
            _ => Ok(Transformed::no(node)),
        };
        plan.transform_up(split).map(|transformed| transformed.data)
    }

    fn schema_check(&self) -> bool {
        true
    }
}

impl SplitBatches {
    /// Rows that a batch of the operator's input may have, where that is bounded.
    ///
    /// # Errors
    /// `Limit` for a constant that is too large for the fewest rows.
    fn rows(&self, node: &Arc<dyn ExecutionPlan>) -> Result<Option<usize>> {
        if let Some(aggregate) = node.downcast_ref::<AggregateExec>() {
            let rows = (GROUPED_ROWS / aggregate.group_expr().groups().len().max(1)).max(LEAST_ROWS);
            let args = aggregate.aggr_expr().iter().flat_map(|call| call.expressions());
            return Ok(Some(rows.min(self.rows_with(args.map(|arg| constant_bytes(&arg)).sum())?)));
        }
        let Some(projection) = node.downcast_ref::<ProjectionExec>() else { return Ok(None) };
        if projection.input().is::<PlaceholderRowExec>() {
            return Ok(None);
        }
        self.rows_with(projection.expr().iter().map(|column| constant_bytes(&column.expr)).sum()).map(Some)
    }

    /// Rows into which constants of so many bytes may be written.
    ///
    /// # Errors
    /// `Limit` for constants that are too large for the fewest rows.
    fn rows_with(&self, constants: usize) -> Result<usize> {
        let share = self.memory / CONSTANT_SHARE;
        let rows = share / constants.max(1);
        if rows < LEAST_ROWS {
            return Err(DataFusionError::from(Error::limit(format!(
                "expected constants of at most {} bytes in each row, found {constants} bytes",
                share / LEAST_ROWS
            ))));
        }
        Ok(rows)
    }
}

/// Gives the rows of its input in batches of `rows` at most.
#[derive(Debug, Clone)]
pub(super) struct SplitExec {
    input: Arc<dyn ExecutionPlan>,
    rows: usize,
    metrics: ExecutionPlanMetricsSet,
}

impl SplitExec {
    pub(super) fn over(input: &Arc<dyn ExecutionPlan>, rows: usize) -> Arc<dyn ExecutionPlan> {
        Arc::new(Self { input: Arc::clone(input), rows, metrics: ExecutionPlanMetricsSet::new() })
    }
}

impl DisplayAs for SplitExec {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SplitExec: rows={}", self.rows)
    }
}

impl ExecutionPlan for SplitExec {
    fn name(&self) -> &str {
        "SplitExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        self.input.properties()
    }

    fn maintains_input_order(&self) -> Vec<bool> {
        vec![true]
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![&self.input]
    }

    fn apply_expressions(
        &self,
        _: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }

    fn with_new_children(self: Arc<Self>, children: Vec<Arc<dyn ExecutionPlan>>) -> Result<Arc<dyn ExecutionPlan>> {
        Ok(Self::over(children.first().unwrap_or(&self.input), self.rows))
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let input = self.input.execute(partition, context)?;
        Ok(Box::pin(BatchSplitStream::new(input, self.rows, SplitMetrics::new(&self.metrics, partition))))
    }
}
