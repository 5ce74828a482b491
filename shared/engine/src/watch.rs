//! Windows held to the time and the memory of their statement.
//!
//! DataFusion's window operators hold a whole partition's rows, make a value for each in one go and give them as one batch; they
//! neither account for any of it nor yield. Here their input and the functions that they call ask, and what they give is cut.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::mem::size_of;
use std::ops::Range;
use std::sync::Arc;

use arrow::array::ArrayRef;
use arrow::compute::SortOptions;
use arrow::datatypes::{DataType, FieldRef};
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{Result, ScalarValue};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::logical_expr::expr::{AggregateFunctionParams, WindowFunctionParams};
use datafusion::logical_expr::function::{
    AccumulatorArgs, AggregateFunctionSimplification, ExpressionArgs, PartitionEvaluatorArgs, StateFieldsArgs,
    WindowFunctionSimplification, WindowUDFFieldArgs,
};
use datafusion::logical_expr::utils::AggregateOrderSensitivity;
use datafusion::logical_expr::window_state::WindowAggState;
use datafusion::logical_expr::{
    Accumulator, AggregateUDF, AggregateUDFImpl, Expr, LimitEffect, LogicalPlan, PartitionEvaluator, ReversedUDAF,
    ReversedUDWF, SetMonotonicity, Signature, WindowFrame, WindowFunctionDefinition, WindowUDF, WindowUDFImpl,
};
use datafusion::optimizer::AnalyzerRule;
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::windows::{BoundedWindowAggExec, WindowAggExec};
use datafusion::physical_plan::{
    ChildrenPropertiesMode, DisplayAs, DisplayFormatType, ExecutionPlan, PlanProperties, ReplaceChildrenOptions,
};
use futures::StreamExt;

use super::memory::check_heap;
use super::split::SplitExec;
use super::stop::Stop;

/// Rows after which a function looks at the clock.
const ROWS_BETWEEN_LOOKS: usize = 64;
/// Copies of what an operator gathers that it holds at once, beside what it copies.
const COPIES: u64 = 2;

/// What a statement may take.
#[derive(Debug, Clone)]
pub(super) struct StatementLimits {
    pub(super) stop: Arc<Stop>,
    /// Bytes that queries may hold.
    pub(super) memory: u64,
}

impl StatementLimits {
    /// # Errors
    /// `Limit` when the statement is to stop, or when queries, with copies of `gathered` bytes, hold too much.
    fn check(&self, gathered: u64) -> Result<()> {
        self.stop.check()?;
        self.check_memory(gathered)
    }

    fn check_memory(&self, gathered: u64) -> Result<()> {
        Ok(check_heap(self.memory, gathered.saturating_mul(COPIES))?)
    }
}

/// The values that a function made and that the operator still has to copy: of a batch's rows, or of a whole partition's.
#[derive(Debug, Clone)]
struct ValueCount {
    rows: usize,
    /// What the values hold on the heap.
    bytes: u64,
    /// Rows after which values were copied; none where a frame ends with its partition.
    copied_after: Option<usize>,
}

impl ValueCount {
    fn of(frame: &WindowFrame, batch_rows: usize) -> Self {
        let copied_after = (!frame.end_bound.is_unbounded()).then_some(batch_rows);
        Self { rows: 0, bytes: 0, copied_after }
    }

    /// Counts a value and asks whether the copies have room; a look at the clock takes longer than one at the heap.
    fn add(&mut self, value: ScalarValue, limits: &StatementLimits) -> Result<ScalarValue> {
        if self.copied_after.is_some_and(|rows| self.rows.is_multiple_of(rows)) {
            self.bytes = 0;
        }
        self.rows += 1;
        let bytes = value.size().saturating_sub(size_of::<ScalarValue>());
        self.bytes = self.bytes.saturating_add(u64::try_from(bytes).unwrap_or(u64::MAX));
        match self.rows.is_multiple_of(ROWS_BETWEEN_LOOKS) {
            true => limits.check(self.bytes)?,
            false => limits.check_memory(self.bytes)?,
        }
        Ok(value)
    }
}

/// Has the functions of windows ask a [`StatementLimits`]. Runs after all other rules of the kind.
#[derive(Debug)]
pub(super) struct WatchFunctions(pub(super) StatementLimits);

impl AnalyzerRule for WatchFunctions {
    fn name(&self) -> &str {
        "watch_functions"
    }

    fn analyze(&self, plan: LogicalPlan, config: &ConfigOptions) -> Result<LogicalPlan> {
        let watched = |expr: Expr| {
            expr.transform_up(|expr| match expr {
                Expr::WindowFunction(mut call) => {
                    let count = ValueCount::of(&call.params.window_frame, usize::from(config.execution.batch_size));
                    call.fun = self.watched(call.fun, count);
                    Ok(Transformed::yes(Expr::WindowFunction(call)))
                }
                other => Ok(Transformed::no(other)),
            })
        };
        let node = |node: LogicalPlan| match node {
            window @ LogicalPlan::Window(_) => window.map_expressions(watched),
            other => Ok(Transformed::no(other)),
        };
        Ok(plan.transform_up_with_subqueries(node)?.data)
    }
}

/// Has the functions that take lambdas ask a [`StatementLimits`] between the parts of what they compute.
#[derive(Debug)]
pub(super) struct WatchLambdas(pub(super) StatementLimits);

impl AnalyzerRule for WatchLambdas {
    fn name(&self) -> &str {
        "watch_lambdas"
    }

    fn analyze(&self, plan: LogicalPlan, _: &ConfigOptions) -> Result<LogicalPlan> {
        let limits = self.0.clone();
        let watch: trino_functions::Watch = Arc::new(move |bytes| limits.check(bytes));
        let watched = |expr: Expr| match expr {
            Expr::HigherOrderFunction(mut call) => match trino_functions::watched(&call.func, &watch) {
                Some(func) => {
                    call.func = func;
                    Ok(Transformed::yes(Expr::HigherOrderFunction(call)))
                }
                None => Ok(Transformed::no(Expr::HigherOrderFunction(call))),
            },
            other => Ok(Transformed::no(other)),
        };
        let node = |node: LogicalPlan| node.map_expressions(|expr| expr.transform_up(watched));
        Ok(plan.transform_up_with_subqueries(node)?.data)
    }
}

impl WatchFunctions {
    fn watched(&self, function: WindowFunctionDefinition, count: ValueCount) -> WindowFunctionDefinition {
        let limits = self.0.clone();
        match function {
            WindowFunctionDefinition::AggregateUDF(inner) if !inner.inner().is::<WatchedAggregate>() => {
                WindowFunctionDefinition::AggregateUDF(Arc::new(WatchedAggregate { inner, limits, count }.into()))
            }
            WindowFunctionDefinition::WindowUDF(inner) if !inner.inner().is::<WatchedWindow>() => {
                WindowFunctionDefinition::WindowUDF(Arc::new(WatchedWindow { inner, limits, count }.into()))
            }
            other => other,
        }
    }
}

/// An aggregate over frames of a window.
#[derive(Debug)]
struct WatchedAggregate {
    inner: Arc<AggregateUDF>,
    limits: StatementLimits,
    count: ValueCount,
}

impl PartialEq for WatchedAggregate {
    fn eq(&self, other: &Self) -> bool {
        self.inner == other.inner
    }
}

impl Eq for WatchedAggregate {}

impl Hash for WatchedAggregate {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.inner.hash(state);
    }
}

impl WatchedAggregate {
    fn over(&self, inner: Arc<AggregateUDF>) -> Self {
        Self { inner, limits: self.limits.clone(), count: self.count.clone() }
    }

    fn accumulator_of(&self, inner: Box<dyn Accumulator>) -> Box<dyn Accumulator> {
        Box::new(WatchedAccumulator { inner, limits: self.limits.clone(), count: self.count.clone() })
    }
}

impl AggregateUDFImpl for WatchedAggregate {
    fn name(&self) -> &str {
        self.inner.name()
    }

    fn schema_name(&self, params: &AggregateFunctionParams) -> Result<String> {
        self.inner.schema_name(params)
    }

    fn display_name(&self, params: &AggregateFunctionParams) -> Result<String> {
        self.inner.display_name(params)
    }

    fn window_function_schema_name(&self, params: &WindowFunctionParams) -> Result<String> {
        self.inner.window_function_schema_name(params)
    }

    fn window_function_display_name(&self, params: &WindowFunctionParams) -> Result<String> {
        self.inner.window_function_display_name(params)
    }

    fn signature(&self) -> &Signature {
        self.inner.signature()
    }

    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        self.inner.coerce_types(types)
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        self.inner.return_type(types)
    }

    fn return_field(&self, fields: &[FieldRef]) -> Result<FieldRef> {
        self.inner.return_field(fields)
    }

    fn is_nullable(&self) -> bool {
        self.inner.is_nullable()
    }

    fn default_value(&self, ty: &DataType) -> Result<ScalarValue> {
        self.inner.default_value(ty)
    }

    fn accumulator(&self, args: AccumulatorArgs<'_>) -> Result<Box<dyn Accumulator>> {
        Ok(self.accumulator_of(self.inner.accumulator(args)?))
    }

    fn create_sliding_accumulator(&self, args: AccumulatorArgs<'_>) -> Result<Box<dyn Accumulator>> {
        Ok(self.accumulator_of(self.inner.create_sliding_accumulator(args)?))
    }

    fn state_fields(&self, args: StateFieldsArgs<'_>) -> Result<Vec<FieldRef>> {
        self.inner.state_fields(args)
    }

    fn order_sensitivity(&self) -> AggregateOrderSensitivity {
        self.inner.order_sensitivity()
    }

    fn with_beneficial_ordering(
        self: Arc<Self>,
        beneficial_ordering: bool,
    ) -> Result<Option<Arc<dyn AggregateUDFImpl>>> {
        let Some(inner) = Arc::clone(self.inner.inner()).with_beneficial_ordering(beneficial_ordering)? else {
            return Ok(None);
        };
        let inner = Arc::new(AggregateUDF::new_from_shared_impl(inner));
        Ok(Some(Arc::new(self.over(inner))))
    }

    fn simplify(&self) -> Option<AggregateFunctionSimplification> {
        self.inner.simplify()
    }

    fn reverse_expr(&self) -> ReversedUDAF {
        match self.inner.reverse_udf() {
            ReversedUDAF::Reversed(inner) => ReversedUDAF::Reversed(Arc::new(self.over(inner).into())),
            other => other,
        }
    }

    fn is_descending(&self) -> Option<bool> {
        self.inner.is_descending()
    }

    fn set_monotonicity(&self, ty: &DataType) -> SetMonotonicity {
        self.inner.inner().set_monotonicity(ty)
    }
}

#[derive(Debug)]
struct WatchedAccumulator {
    inner: Box<dyn Accumulator>,
    limits: StatementLimits,
    count: ValueCount,
}

impl Accumulator for WatchedAccumulator {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        self.inner.update_batch(values)
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        self.count.add(self.inner.evaluate()?, &self.limits)
    }

    fn size(&self) -> usize {
        self.inner.size()
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        self.inner.state()
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        self.inner.merge_batch(states)
    }

    fn retract_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        self.inner.retract_batch(values)
    }

    fn supports_retract_batch(&self) -> bool {
        self.inner.supports_retract_batch()
    }
}

/// A function of windows alone.
#[derive(Debug)]
struct WatchedWindow {
    inner: Arc<WindowUDF>,
    limits: StatementLimits,
    count: ValueCount,
}

impl PartialEq for WatchedWindow {
    fn eq(&self, other: &Self) -> bool {
        self.inner == other.inner
    }
}

impl Eq for WatchedWindow {}

impl Hash for WatchedWindow {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.inner.hash(state);
    }
}

impl WatchedWindow {
    fn over(&self, inner: Arc<WindowUDF>) -> Self {
        Self { inner, limits: self.limits.clone(), count: self.count.clone() }
    }
}

impl WindowUDFImpl for WatchedWindow {
    fn name(&self) -> &str {
        self.inner.name()
    }

    fn signature(&self) -> &Signature {
        self.inner.signature()
    }

    fn expressions(&self, args: ExpressionArgs<'_>) -> Vec<Arc<dyn PhysicalExpr>> {
        self.inner.expressions(args)
    }

    fn partition_evaluator(&self, args: PartitionEvaluatorArgs<'_>) -> Result<Box<dyn PartitionEvaluator>> {
        let inner = self.inner.partition_evaluator_factory(args)?;
        Ok(Box::new(WatchedEvaluator { inner, limits: self.limits.clone(), count: self.count.clone() }))
    }

    fn simplify(&self) -> Option<WindowFunctionSimplification> {
        self.inner.simplify()
    }

    fn field(&self, args: WindowUDFFieldArgs<'_>) -> Result<FieldRef> {
        self.inner.field(args)
    }

    fn sort_options(&self) -> Option<SortOptions> {
        self.inner.sort_options()
    }

    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        self.inner.coerce_types(types)
    }

    fn reverse_expr(&self) -> ReversedUDWF {
        match self.inner.reverse_expr() {
            ReversedUDWF::Reversed(inner) => ReversedUDWF::Reversed(Arc::new(self.over(inner).into())),
            other => other,
        }
    }

    fn limit_effect(&self, args: &[Arc<dyn PhysicalExpr>]) -> LimitEffect {
        self.inner.inner().limit_effect(args)
    }
}

#[derive(Debug)]
struct WatchedEvaluator {
    inner: Box<dyn PartitionEvaluator>,
    limits: StatementLimits,
    count: ValueCount,
}

impl PartitionEvaluator for WatchedEvaluator {
    fn memoize(&mut self, state: &mut WindowAggState) -> Result<()> {
        self.inner.memoize(state)
    }

    fn get_range(&self, row: usize, rows: usize) -> Result<Range<usize>> {
        self.inner.get_range(row, rows)
    }

    fn is_causal(&self) -> bool {
        self.inner.is_causal()
    }

    fn evaluate_all(&mut self, values: &[ArrayRef], rows: usize) -> Result<ArrayRef> {
        self.limits.check(0)?;
        self.inner.evaluate_all(values, rows)
    }

    fn evaluate(&mut self, values: &[ArrayRef], range: &Range<usize>) -> Result<ScalarValue> {
        self.count.add(self.inner.evaluate(values, range)?, &self.limits)
    }

    fn evaluate_all_with_rank(&self, rows: usize, ranks: &[Range<usize>]) -> Result<ArrayRef> {
        self.limits.check(0)?;
        self.inner.evaluate_all_with_rank(rows, ranks)
    }

    fn supports_bounded_execution(&self) -> bool {
        self.inner.supports_bounded_execution()
    }

    fn uses_window_frame(&self) -> bool {
        self.inner.uses_window_frame()
    }

    fn include_rank(&self) -> bool {
        self.inner.include_rank()
    }
}

/// Has what comes to windows ask a [`StatementLimits`], and cuts what they give into batches of the usual size.
#[derive(Debug)]
pub(super) struct WatchWindows(pub(super) StatementLimits);

impl PhysicalOptimizerRule for WatchWindows {
    fn name(&self) -> &str {
        "watch_windows"
    }

    fn optimize(&self, plan: Arc<dyn ExecutionPlan>, config: &ConfigOptions) -> Result<Arc<dyn ExecutionPlan>> {
        let rows = usize::from(config.execution.batch_size);
        let watch = |node: Arc<dyn ExecutionPlan>| {
            let gathers = node.is::<WindowAggExec>();
            if !gathers && !node.is::<BoundedWindowAggExec>() {
                return Ok(Transformed::no(node));
            }
            let inputs = node.children().into_iter().map(|input| {
                let (input, limits) = (Arc::clone(input), self.0.clone());
                Arc::new(LimitCheckExec { input, limits, gathers }) as Arc<dyn ExecutionPlan>
            });
            let options = ReplaceChildrenOptions::new(ChildrenPropertiesMode::Recompute);
            let node = Arc::clone(&node).replace_children(inputs.collect(), options)?;
            Ok(Transformed::yes(SplitExec::over(&node, rows)))
        };
        plan.transform_up(watch).map(|transformed| transformed.data)
    }

    fn schema_check(&self) -> bool {
        true
    }
}

/// Gives the batches of its input as long as the statement may go on.
#[derive(Debug, Clone)]
struct LimitCheckExec {
    input: Arc<dyn ExecutionPlan>,
    limits: StatementLimits,
    /// Whether all rows are held, to be copied into one batch.
    gathers: bool,
}

impl DisplayAs for LimitCheckExec {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("LimitCheckExec")
    }
}

impl ExecutionPlan for LimitCheckExec {
    fn name(&self) -> &str {
        "LimitCheckExec"
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
        let input = children.into_iter().next().unwrap_or_else(|| Arc::clone(&self.input));
        Ok(Arc::new(Self { input, limits: self.limits.clone(), gathers: self.gathers }))
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let (input, limits, gathers) = (self.input.execute(partition, context)?, self.limits.clone(), self.gathers);
        let schema = input.schema();
        let mut gathered = 0_u64;
        let checked = input.map(move |batch| {
            let batch = batch?;
            if gathers {
                gathered = gathered.saturating_add(u64::try_from(batch.get_array_memory_size()).unwrap_or(u64::MAX));
            }
            limits.check(gathered)?;
            Ok(batch)
        });
        Ok(Box::pin(RecordBatchStreamAdapter::new(schema, checked)))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn text(bytes: usize) -> ScalarValue {
        ScalarValue::from("x".repeat(bytes))
    }

    #[test]
    fn values_are_counted_until_they_are_copied() {
        let limits = StatementLimits { stop: Stop::after(None), memory: 1 << 20 };
        let mut of_batches = ValueCount { rows: 0, bytes: 0, copied_after: Some(4) };
        let mut of_all = ValueCount { copied_after: None, ..of_batches.clone() };
        for _ in 0..4 {
            of_batches.add(text(100 << 10), &limits).unwrap();
            of_all.add(text(100 << 10), &limits).unwrap();
        }
        assert!(of_batches.add(text(300 << 10), &limits).is_ok());
        assert!(of_all.add(text(300 << 10), &limits).is_err(), "twice 700 KiB are more than 1 MiB");
        assert!(of_all.add(ScalarValue::from(1_i64), &limits).is_err());
    }

    #[test]
    fn a_statement_that_is_to_stop_stops_at_a_look() {
        let limits = StatementLimits { stop: Stop::after(Some(Duration::ZERO)), memory: 1 << 20 };
        let mut count = ValueCount { rows: 0, bytes: 0, copied_after: None };
        let ended = (0..ROWS_BETWEEN_LOOKS).position(|_| count.add(ScalarValue::from(1_i64), &limits).is_err());
        assert_eq!(ended, Some(ROWS_BETWEEN_LOOKS - 1));
    }
}
