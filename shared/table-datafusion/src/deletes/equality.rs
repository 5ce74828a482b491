//! Deletes by value: a node of the plan over the scan of the data files that they apply to.

use std::fmt;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, RecordBatch};
use arrow::compute::filter_record_batch;
use arrow::datatypes::{Int32Type, SchemaRef};
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::common::{Result, internal_datafusion_err};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::{EquivalenceProperties, PhysicalExpr};
use datafusion::physical_plan::execution_plan::{Boundedness, EmissionType};
use datafusion::physical_plan::filter_pushdown::{
    ChildPushdownResult, FilterDescription, FilterPushdownPhase, FilterPushdownPropagation,
};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{
    ChildrenPropertiesMode, DisplayAs, DisplayFormatType, ExecutionPlan, Partitioning, PlanProperties,
    ReplaceChildrenOptions,
};
use futures::StreamExt;

use super::Loader;
use table::deletes::Scope;

/// How equality deletes apply to a data file.
#[derive(Debug, Clone)]
pub(crate) struct ScopeUse {
    pub(crate) scope: Arc<Scope>,
    /// Places of the columns that are compared.
    pub(crate) columns: Vec<usize>,
    /// The data sequence number of the data file.
    pub(crate) sequence: i64,
}

/// Gives the first `width` columns of the rows that no equality delete applies to.
#[derive(Debug, Clone)]
pub(crate) struct EqualityDeletes {
    input: Arc<dyn ExecutionPlan>,
    width: usize,
    /// By number of the data file, which the last column holds.
    files: Arc<Vec<Vec<ScopeUse>>>,
    loader: Arc<Loader>,
    properties: Arc<PlanProperties>,
}

impl EqualityDeletes {
    pub(crate) fn try_new(
        input: Arc<dyn ExecutionPlan>,
        width: usize,
        files: Arc<Vec<Vec<ScopeUse>>>,
        loader: Arc<Loader>,
    ) -> Result<Self> {
        let schema: SchemaRef = Arc::new(input.schema().project(&(0..width).collect::<Vec<_>>())?);
        let partitions = input.properties().output_partitioning().partition_count();
        let properties = PlanProperties::new(
            EquivalenceProperties::new(schema),
            Partitioning::UnknownPartitioning(partitions),
            EmissionType::Incremental,
            Boundedness::Bounded,
        );
        Ok(Self { input, width, files, loader, properties: Arc::new(properties) })
    }
}

impl DisplayAs for EqualityDeletes {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "EqualityDeletes: files={}", self.files.len())
    }
}

impl ExecutionPlan for EqualityDeletes {
    fn name(&self) -> &'static str {
        "EqualityDeletes"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![&self.input]
    }

    fn benefits_from_input_partitioning(&self) -> Vec<bool> {
        vec![false]
    }

    fn apply_expressions(
        &self,
        _: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }

    fn replace_children(
        self: Arc<Self>,
        mut children: Vec<Arc<dyn ExecutionPlan>>,
        _: ReplaceChildrenOptions,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let input = children.pop().ok_or_else(|| internal_datafusion_err!("expected an input, found none"))?;
        Ok(Arc::new(Self::try_new(input, self.width, self.files.clone(), self.loader.clone())?))
    }

    fn with_new_children(self: Arc<Self>, children: Vec<Arc<dyn ExecutionPlan>>) -> Result<Arc<dyn ExecutionPlan>> {
        self.replace_children(children, ReplaceChildrenOptions::new(ChildrenPropertiesMode::Recompute))
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let this = Arc::new(self.clone());
        let rows = self.input.execute(partition, context)?.then(move |batch| {
            let this = this.clone();
            async move { this.remaining(&batch?).await }
        });
        Ok(Box::pin(RecordBatchStreamAdapter::new(self.schema(), rows)))
    }

    /// A filter of rows may come first: the deletes look at each row alone.
    fn gather_filters_for_pushdown(
        &self,
        _phase: FilterPushdownPhase,
        filters: Vec<Arc<dyn PhysicalExpr>>,
        _config: &ConfigOptions,
    ) -> Result<FilterDescription> {
        FilterDescription::from_children(filters, &self.children())
    }

    fn handle_child_pushdown_result(
        &self,
        _phase: FilterPushdownPhase,
        result: ChildPushdownResult,
        _config: &ConfigOptions,
    ) -> Result<FilterPushdownPropagation<Arc<dyn ExecutionPlan>>> {
        Ok(FilterPushdownPropagation::if_all(result))
    }
}

impl EqualityDeletes {
    async fn remaining(&self, batch: &RecordBatch) -> Result<RecordBatch> {
        let numbers = batch.columns().last().and_then(|column| column.as_primitive_opt::<Int32Type>());
        let numbers = numbers.ok_or_else(|| internal_datafusion_err!("expected the number of the file in each row"))?;
        let mut deleted = vec![false; batch.num_rows()];
        let mut start = 0;
        while start < numbers.len() {
            let number = numbers.value(start);
            let end = (start..numbers.len()).find(|row| numbers.value(*row) != number).unwrap_or(numbers.len());
            let uses = usize::try_from(number).ok().and_then(|number| self.files.get(number));
            for scope in uses.into_iter().flatten() {
                let rows = self.loader.rows(&scope.scope).await?;
                let values: Vec<ArrayRef> =
                    scope.columns.iter().map(|place| batch.column(*place).slice(start, end - start)).collect();
                rows.mark(&values, scope.sequence, &mut deleted[start..end])?;
            }
            start = end;
        }
        let kept: BooleanArray = deleted.into_iter().map(|deleted| Some(!deleted)).collect();
        let kept = filter_record_batch(batch, &kept)?;
        Ok(kept.project(&(0..self.width).collect::<Vec<_>>())?)
    }
}
