//! What DataFusion takes the rows of an UNNEST for: still one for each group, as the rows that it unnests were.
//!
//! An aggregate's columns are known to depend on its groups, and DISTINCT, GROUP BY and ORDER BY leave out what depends. An unnest gives
//! each row several times, and the dependencies of its input no longer hold; DataFusion keeps them. A node below each unnest forgets
//! them; it is taken out again before the plan runs.

use std::cmp::Ordering;
use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use datafusion::catalog::Session;
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::Transformed;
use datafusion::common::{DFSchema, DFSchemaRef, FunctionalDependencies, Result, internal_err};
use datafusion::execution::context::QueryPlanner;
use datafusion::logical_expr::logical_plan::Unnest;
use datafusion::logical_expr::{Expr, Extension, LogicalPlan, UserDefinedLogicalNodeCore};
use datafusion::optimizer::AnalyzerRule;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_planner::{DefaultPhysicalPlanner, PhysicalPlanner};

/// The rows of `plan`, of which nothing is known to depend on anything.
///
/// # Errors
/// What the schema says.
pub(super) fn unlinked(plan: LogicalPlan) -> Result<LogicalPlan> {
    if plan.schema().functional_dependencies().is_empty() {
        return Ok(plan);
    }
    Ok(LogicalPlan::Extension(Extension { node: Arc::new(Unlinked::new(plan)?) }))
}

/// Forgets dependencies below each unnest that another part of planning makes.
#[derive(Debug)]
pub(super) struct UnlinkUnnest;

impl AnalyzerRule for UnlinkUnnest {
    fn name(&self) -> &str {
        "unlink_unnest"
    }

    fn analyze(&self, plan: LogicalPlan, _: &ConfigOptions) -> Result<LogicalPlan> {
        let plan = plan.transform_up_with_subqueries(|plan| match plan {
            LogicalPlan::Unnest(unnest) if !unnest.input.schema().functional_dependencies().is_empty() => {
                let input = Arc::new(unlinked(Arc::unwrap_or_clone(unnest.input))?);
                Ok(Transformed::yes(LogicalPlan::Unnest(Unnest::try_new(input, unnest.exec_columns, unnest.options)?)))
            }
            // The dependencies of what stands above are made from those below.
            plan if !plan.schema().functional_dependencies().is_empty() => {
                let plan = plan.recompute_schema()?;
                Ok(Transformed::yes(plan))
            }
            plan => Ok(Transformed::no(plan)),
        })?;
        Ok(plan.data)
    }
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Unlinked {
    input: LogicalPlan,
    schema: DFSchemaRef,
}

impl Unlinked {
    fn new(input: LogicalPlan) -> Result<Self> {
        let schema = DFSchema::clone(input.schema());
        let schema = schema.with_functional_dependencies(FunctionalDependencies::empty())?;
        Ok(Self { input, schema: Arc::new(schema) })
    }
}

impl PartialOrd for Unlinked {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        self.input.partial_cmp(&other.input)
    }
}

impl UserDefinedLogicalNodeCore for Unlinked {
    fn name(&self) -> &str {
        "Unlinked"
    }

    fn inputs(&self) -> Vec<&LogicalPlan> {
        vec![&self.input]
    }

    fn schema(&self) -> &DFSchemaRef {
        &self.schema
    }

    fn expressions(&self) -> Vec<Expr> {
        Vec::new()
    }

    /// All conditions go through.
    fn prevent_predicate_push_down_columns(&self) -> HashSet<String> {
        HashSet::new()
    }

    fn fmt_for_explain(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }

    fn with_exprs_and_inputs(&self, _: Vec<Expr>, inputs: Vec<LogicalPlan>) -> Result<Self> {
        match <[LogicalPlan; 1]>::try_from(inputs) {
            Ok([input]) => Self::new(input),
            Err(inputs) => internal_err!("expected one input, found {}", inputs.len()),
        }
    }

    fn necessary_children_exprs(&self, output_columns: &[usize]) -> Option<Vec<Vec<usize>>> {
        Some(vec![output_columns.to_vec()])
    }

    fn supports_limit_pushdown(&self) -> bool {
        true
    }
}

/// Plans without the nodes that forget.
#[derive(Debug)]
pub(super) struct Planner;

#[async_trait]
impl QueryPlanner for Planner {
    async fn create_physical_plan(&self, plan: &LogicalPlan, session: &dyn Session) -> Result<Arc<dyn ExecutionPlan>> {
        let plan = plan.clone().transform_up_with_subqueries(|plan| match &plan {
            LogicalPlan::Extension(Extension { node }) => match node.as_any().downcast_ref::<Unlinked>() {
                Some(unlinked) => Ok(Transformed::yes(unlinked.input.clone())),
                None => Ok(Transformed::no(plan)),
            },
            _ => Ok(Transformed::no(plan)),
        })?;
        DefaultPhysicalPlanner::default().create_physical_plan(&plan.data, session).await
    }
}
